"""What a lab is furnished with before anything starts: a disk, fence agents, each host's configuration."""

import os
import re
import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ringfence.config import Loaded, render
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Timing, Use
from ringfence.core.errors import BadInput, Unavailable
from ringfence.lab import fence_agent
from ringfence.lab.devices.kinds import KINDS, devices_of
from ringfence.lab.devices.model import BMC, PDUS, Simulated, new_password
from ringfence.lab.layout import Kept, Layout
from ringfence.lab.ring_side import RingSide
from ringfence.lab.stock_lvm2 import attach, lvm_conf

_PLAIN = re.compile(r"[A-Za-z0-9/._+=-]+")


def furnish(
    places: Layout, kept: Kept, side: RingSide, size_bytes: int, timing: Timing, disks: int, loop: bool
) -> Kept:
    """What is kept of it from now on.

    Args:
        size_bytes: of each disk.
        loop: make block devices of the disks, as stock LVM2 needs them.

    Raises RingfenceError; whoever called then ends what there is (`stock_lvm2.detach`)."""
    if kept.devices and not _PLAIN.fullmatch(str(places.dir)):
        raise BadInput(
            f"simulators cannot work below {places.dir}: their files know no quotes",
            next="choose a directory whose name is letters, digits and . _ + = -",
        )
    try:
        places.dir.mkdir(parents=True, exist_ok=True)
        images = [places.image(number) for number in range(1, disks + 1)]
        for image in images:
            with image.open("xb") as disk:
                disk.truncate(size_bytes)
        shared = tuple(attach(image) if loop else str(image) for image in images)
        kept = msgspec.structs.replace(kept, disks=shared)
        password = new_password()
        _write(places.password_file, f"{password}\n", 0o600)
        for name in ("bmc", "pdu"):
            words = [sys.executable, "-I", "-S", os.path.abspath(fence_agent.__file__), name]
            _write(places.agent(name), f"#!/bin/sh\nexec {shlex.join(words)}\n", 0o755)
        devices = devices_of(kept.devices, kept.nodes, side.rack_address)
        places.keep_devices(devices)
        config = side.configured(config_of(places, kept.nodes, timing, kept.naive, devices))
        secrets_of = {one.name: KINDS[one.kind].secrets(password) for one in devices}
        for node in kept.nodes:
            paths, root = places.paths(node), places.root(node)
            hub = None if kept.ring.is_corosync else places.hub_socket
            loaded = Loaded(config, shared, "", hub, lab=True, lab_dir=str(places.dir))
            _write(paths.file, render(loaded), 0o644)
            conf = lvm_conf(places.lvm(node), root / "run/lock/lvm", shared if loop else ())
            _write(places.lvm(node) / "lvm.conf", conf, 0o644)
            _write(root / "etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
            for device in config.devices:
                known = secrets_of.get(device.name, {"password": password})
                lines = "".join(f"{key}={value}\n" for key, value in known.items())
                _write(paths.secrets / device.name, lines, 0o600)
        side.furnish(config)
    except OSError as error:
        raise Unavailable(
            f"cannot make a lab in {places.dir}: {error}", next="choose another --dir"
        ) from None
    places.keep(kept)
    return kept


def config_of(
    places: Layout,
    nodes: Sequence[str],
    timing: Timing,
    naive: bool,
    simulated: Sequence[Simulated] = (),
) -> ClusterConfig:
    """Level 1 is each host's BMC, level 2 both its outlets."""
    configs = []
    devices = {one.name: _simulated(one) for one in simulated}
    for number, node in enumerate(nodes, 1):
        levels = []
        for names in ((BMC,), PDUS):
            uses: list[str | Use] = []
            for name in names:
                there = [one for one in simulated if one.device == name and node in one.hosts]
                if there:
                    uses.append(_use(there[0], node))
                else:
                    own = _own(places, name, node)
                    devices[own.name] = own
                    uses.append(own.name)
            levels.append(Level(tuple(uses)))
        configs.append(NodeConfig(number, node, levels=tuple(levels)))
    return ClusterConfig(
        "lab",
        two_node=len(nodes) == 2,
        naive=naive,
        timing=timing,
        nodes=tuple(configs),
        devices=tuple(sorted(devices.values(), key=lambda device: device.name)),
    )


def _own(places: Layout, device: str, node: str) -> DeviceConfig:
    """One of the lab's own, which its own agents ask for at the power switch."""
    kind, _, outlet = device.partition("-")
    plug = f"{node}:{outlet}" if outlet else node
    return DeviceConfig(
        f"{device}-{node}",
        str(places.agent(kind)),
        Confirms.OUTLET_OFF if outlet else Confirms.HOST_OFF,
        {"ip": str(places.power_socket), "plug": plug},
        own_supply=bool(outlet),
    )


def _simulated(one: Simulated) -> DeviceConfig:
    kind = KINDS[one.kind]
    return DeviceConfig(
        one.name,
        kind.agent,
        Confirms.HOST_OFF if kind.bmc else Confirms.OUTLET_OFF,
        {**kind.parameters(one), **kind.quick},
        timeout_ms=kind.timeout_ms,
        own_supply=not kind.bmc,
    )


def _use(one: Simulated, node: str) -> str | Use:
    """A BMC is its host's alone; of a PDU the host has an outlet."""
    return one.name if one.device == BMC else Use(one.name, {"plug": one.plug_of(node)})


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.chmod(path, mode)
