"""All looks at this host, at once, joined into one HostFacts."""

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ringfence.block.fastpath import trouble
from ringfence.config import Loaded, Paths, digest, parse
from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import ConfigError
from ringfence.daemon.archive import obstacle
from ringfence.daemon.checkup.corosync import corosync_facts
from ringfence.daemon.checkup.disks import disk_facts, listed
from ringfence.daemon.checkup.files import directory_facts, group_of, place_facts, secret_facts
from ringfence.daemon.checkup.leftovers import leftovers
from ringfence.daemon.checkup.lockd import lockd_facts
from ringfence.daemon.checkup.lvm import lvm_facts
from ringfence.daemon.checkup.watchdog import watchdog_facts
from ringfence.host.clock import boottime_ns, wall_ms
from ringfence.host.hardware import hardware
from ringfence.host.identity import boot_id, machine_id
from ringfence.host.probes import Outcome, Probes
from ringfence.wire.checkup import DiskFacts, HostFacts
from ringfence.wire.ring import UNSAID_HARDWARE

LIMIT_S = 5.0
"""For each of the two rounds of looks: which disks there are, then everything else."""

_SHARED = Probes()
"""One for the process: what hangs is remembered between rounds."""


class HostLook:
    """A daemon's way to look: off its event loop, one at a time.

    The thread is nobody's: a daemon that ends does not wait for it, as it would for an executor's."""

    def __init__(self, paths: Paths, node: str) -> None:
        self._paths = paths
        self._node = node
        self._looking = asyncio.Lock()

    async def look(self, running: ClusterConfig) -> HostFacts:
        """Args: running: the configuration that the daemon has now."""
        async with self._looking:
            loop = asyncio.get_running_loop()
            found: asyncio.Future[HostFacts] = loop.create_future()

            def tell(facts: HostFacts | Exception) -> None:
                if found.cancelled():
                    return
                if isinstance(facts, Exception):
                    found.set_exception(facts)
                else:
                    found.set_result(facts)

            def look() -> None:
                facts: HostFacts | Exception
                try:
                    facts = look_at_host(self._paths, self._node, running)
                except Exception as error:  # the driver makes an answer of it
                    facts = error
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(tell, facts)

            threading.Thread(target=look, name="checkup", daemon=True).start()
            return await found


def look_at_host(
    paths: Paths, node: str, running: ClusterConfig | None = None, probes: Probes = _SHARED
) -> HostFacts:
    """Look at everything; returns within 2 x LIMIT_S, and never raises for what it finds.

    Args:
        node: this host's name; "" if nobody knows it.
        running: the configuration of the daemon that asks, if one does."""
    loaded, file_trouble = _file(paths)
    cluster = running or (loaded.cluster if loaded is not None else None)
    names = sorted({one.name for one in cluster.devices}) if cluster is not None else []
    patterns = loaded.devices_paths if loaded is not None else ()
    scan = probes.all({"disks": lambda: listed(patterns)}, LIMIT_S)["disks"]
    disks = scan.value or ()
    lab = loaded is not None and loaded.lab
    looks: dict[str, Callable[[], Any]] = {
        "machine": lambda: machine_id(paths.root),
        "boot": lambda: boot_id(paths.root),
        "hardware": lambda: hardware(paths.root),
        "secrets": lambda: secret_facts(paths, names),
        "places": lambda: place_facts(paths),
        "state": lambda: directory_facts(paths.var),
        "leftovers": lambda: leftovers(paths),
        "history": lambda: obstacle(paths.archive) or obstacle(paths.backup),
        "lvmlockd": lambda: lockd_facts(paths),
    }
    if cluster is not None and cluster.ring == "corosync":
        looks["corosync"] = lambda: corosync_facts(paths, cluster)
    if any(disk.block for disk in disks):  # LVM2 looks at no files
        looks["lvm"] = lambda: lvm_facts(paths)
    if not lab:
        looks["watchdog"] = lambda: watchdog_facts(loaded)
    hidden = [disk.path for disk in disks if not disk.trouble and not os.access(disk.path, os.R_OK)]
    for disk in disks:
        looks[f"disk {disk.path}"] = partial(disk_facts, disk, read=disk.path not in hidden)
    found = probes.all(looks, LIMIT_S)
    unseen = [f"{name}: {one.trouble}" for name, one in found.items() if one.trouble and name[:5] != "disk "]
    unseen += [f"disk {path}: this user may not read it" for path in hidden]
    if scan.trouble:
        unseen.append(f"disks: {scan.trouble}")
    made_of = found["hardware"].value or UNSAID_HARDWARE
    return HostFacts(
        node=node,
        version=_version(),
        user=os.geteuid(),
        root=str(paths.root),
        lab=lab,
        machine=found["machine"].value or "",
        boot=found["boot"].value or "",
        boottime_ns=boottime_ns(),
        wall_ms=wall_ms(),
        running=digest(running) if running is not None else "",
        file=digest(loaded.cluster) if loaded is not None else "",
        file_trouble=file_trouble,
        secrets=found["secrets"].value or (),
        places=found["places"].value or (),
        socket_group=group_of(loaded.socket_group) if loaded is not None else None,
        state=found["state"].value,
        disks=tuple(_disk(disk, found[f"disk {disk.path}"]) for disk in disks),
        corosync=_value(found, "corosync"),
        lvm=_value(found, "lvm"),
        watchdog=_value(found, "watchdog"),
        leftovers=found["leftovers"].value or (),
        unseen=tuple(unseen),
        board=made_of.board,
        hypervisor=made_of.hypervisor,
        lockd=found["lvmlockd"].value,
        slow_nbd=trouble(),
        history=found["history"].value or "",
    )


@functools.cache
def _version() -> str:
    import importlib.metadata  # a tenth of all that a daemon would import at its start

    try:
        return importlib.metadata.version("ringfence")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _value(found: dict[str, Outcome[Any]], name: str) -> Any:
    return found[name].value if name in found else None


def _disk(disk: DiskFacts, outcome: Outcome[DiskFacts]) -> DiskFacts:
    return outcome.value or DiskFacts(disk.path, disk.size_bytes, disk.block, trouble=outcome.trouble)


def _file(paths: Paths) -> tuple[Loaded | None, str]:
    """ringfence.toml by itself: the modes of secrets are looked at apart, each for itself."""
    try:
        return parse(paths.file.read_text(encoding="utf-8"), str(paths.file)), ""
    except FileNotFoundError:
        return None, f"there is no {paths.file}"
    except (OSError, UnicodeDecodeError) as error:
        return None, f"cannot read {paths.file}: {getattr(error, 'strerror', None) or error}"
    except ConfigError as error:
        return None, str(error)
