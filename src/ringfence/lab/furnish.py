"""What a lab is furnished with before anything starts: a disk, fence agents, each host's configuration."""

import os
import secrets
import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from ringfence.config import Loaded, render
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Timing
from ringfence.core.errors import Unavailable
from ringfence.lab import fence_agent
from ringfence.lab.layout import DEVICES, Kept, Layout
from ringfence.lab.ring_side import RingSide


def furnish(places: Layout, kept: Kept, side: RingSide, size_bytes: int, timing: Timing) -> None:
    """Raises RingfenceError."""
    try:
        places.dir.mkdir(parents=True, exist_ok=True)
        with places.disk.open("xb") as disk:
            disk.truncate(size_bytes)
        password = secrets.token_hex(12)
        _write(places.password_file, f"{password}\n", 0o600)
        for name in ("bmc", "pdu"):
            words = [sys.executable, "-I", "-S", os.path.abspath(fence_agent.__file__), name]
            _write(places.agent(name), f"#!/bin/sh\nexec {shlex.join(words)}\n", 0o755)
        config = side.configured(config_of(places, kept.nodes, timing, kept.naive))
        for node in kept.nodes:
            paths, root = places.paths(node), places.root(node)
            hub = None if kept.ring.is_corosync else places.hub_socket
            loaded = Loaded(config, (str(places.disk),), "", hub, lab=True, lab_dir=str(places.dir))
            _write(paths.file, render(loaded), 0o644)
            _write(root / "etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
            for device in config.devices:
                _write(paths.secrets / device.name, f"password={password}\n", 0o600)
        side.furnish(config)
    except OSError as error:
        raise Unavailable(
            f"cannot make a lab in {places.dir}: {error}", next="choose another --dir"
        ) from None
    places.keep(kept)


def config_of(places: Layout, nodes: Sequence[str], timing: Timing, naive: bool) -> ClusterConfig:
    """Level 1 is each host's BMC, level 2 both its outlets."""
    configs, devices = [], []
    for number, node in enumerate(nodes, 1):
        names = [f"{device}-{node}" for device in DEVICES]
        configs.append(NodeConfig(number, node, levels=(Level((names[0],)), Level((names[1], names[2])))))
        where = {"ip": str(places.power_socket)}
        bmc, pdu = str(places.agent("bmc")), str(places.agent("pdu"))
        devices.append(DeviceConfig(names[0], bmc, Confirms.HOST_OFF, {**where, "plug": node}))
        for name, outlet in ((names[1], "a"), (names[2], "b")):
            plug = {**where, "plug": f"{node}:{outlet}"}
            devices.append(DeviceConfig(name, pdu, Confirms.OUTLET_OFF, plug, own_supply=True))
    return ClusterConfig(
        "lab",
        two_node=len(nodes) == 2,
        naive=naive,
        timing=timing,
        nodes=tuple(configs),
        devices=tuple(sorted(devices, key=lambda device: device.name)),
    )


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.chmod(path, mode)
