"""What a crash has left behind on this host: sockets, block workers, shared memory, failed units."""

import contextlib
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from ringfence.config import Paths
from ringfence.core.errors import RingfenceError
from ringfence.host.probes import tool
from ringfence.wire.checkup import Leftover

SHM = Path("/dev/shm")
PROC = Path("/proc")
TOOL_S = 2.0
MOST = 50
"""Of each kind: facts stay small."""
_QB = re.compile(r"qb-(?:[a-z]+-)?(\d+)-")
_WORKER = b"ringfence.block.worker"


def leftovers(paths: Paths) -> tuple[Leftover, ...]:
    found = [
        *[Leftover("socket", str(path)) for path in _stale_sockets(paths)][:MOST],
        *[Leftover("worker", str(pid)) for pid in _lonely_workers(paths)][:MOST],
    ]
    if paths.root == Path("/"):  # the rest belongs to the machine, not to a lab's host
        found += [Leftover("shm", str(path)) for path in _dead_memory()][:MOST]
        found += [Leftover("unit", name) for name in _failed_units()][:MOST]
    return tuple(found)


def _stale_sockets(paths: Paths) -> Iterator[Path]:
    """Control sockets on which nobody listens, and if the block service's is one, its volumes'."""
    for path in (paths.socket, paths.block_socket, paths.hub_socket):
        if _stale(path):
            yield path
    if not _listens(paths.block_socket):
        for path in sorted(paths.dev.glob("*/*")):
            if path.is_socket():
                yield path


def _stale(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode) and not _listens(path)
    except OSError:
        return False


def _listens(path: Path) -> bool:
    """Also where a full queue or missing rights keep us from knowing better."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _lonely_workers(paths: Paths) -> Iterator[int]:
    """Workers of this root whose service has ended: they hold the service's lock, so none can start.

    A worker's last word is the pid of the service that started it (block.handle).  A service that lives
    has the lock itself: then there are none, and no need to look at every process."""
    lock = str(paths.run / "block.lock")
    with contextlib.suppress(OSError, ValueError):
        if _serves(int(Path(lock).read_text())):
            return
    for entry in sorted(PROC.iterdir()):
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            if _WORKER not in words or _serves(int(words[-1])):
                continue
            if any(os.readlink(entry / "fd" / fd) == lock for fd in os.listdir(entry / "fd")):
                yield int(entry.name)


def _serves(pid: int) -> bool:
    try:
        return b"block" in (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


def _dead_memory() -> Iterator[Path]:
    """libqb's shared memory of processes that are gone: a killed corosync's, or its clients'."""
    for path in sorted(SHM.glob("qb-*")):
        owner = _QB.match(path.name)
        if owner is not None and not (PROC / owner[1]).exists():
            yield path


def _failed_units() -> list[str]:
    words = ("systemctl", "list-units", "--state=failed", "--no-legend", "--plain", "ringfence*", "corosync*")
    try:
        lines = tool(words, TOOL_S).splitlines()
    except RingfenceError:
        return []
    return [line.split()[0] for line in lines if line.strip()]
