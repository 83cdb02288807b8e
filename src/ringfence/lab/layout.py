"""Where a lab keeps what, and what it keeps: one directory, one root per host below it."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ringfence.config import Paths
from ringfence.core.errors import BadInput, Unavailable
from ringfence.lab.devices.model import BMC, PDUS, Simulated

SOCKET_BYTES = 107
"""sun_path less its final zero (unix(7))."""
LONGEST = "an-a01n16/run/ringfence/dev/vg0/lvol0-long-name"
"""A socket path like the longest that a lab makes below its directory."""
DEVICES = (BMC, *PDUS)
"""A host's fence devices: a BMC, and the two outlets of a PDU that feed it."""


RINGS = ("hub", "corosync")


class Ring(msgspec.Struct, frozen=True):
    """By what the hosts of a lab hear one another."""

    name: str = "hub"
    transport: str = "knet"
    """Of corosync."""
    links: int = 1
    """Of corosync: separate networks from each host to each."""

    @property
    def is_corosync(self) -> bool:
        return self.name == "corosync"

    @property
    def words(self) -> list[str]:
        """The options of a command that make it this one; none for the default."""
        names = ("ring", "transport", "links")
        pairs = zip(names, msgspec.structs.astuple(self), msgspec.structs.astuple(Ring()), strict=True)
        return [word for name, mine, usual in pairs if mine != usual for word in (f"--{name}", str(mine))]


HUB = Ring()


class Kept(msgspec.Struct, frozen=True):
    """D/lab.json: what was started.  (pid, start time) names a process for ever."""

    nodes: tuple[str, ...]
    ring: Ring = HUB
    carrier: tuple[int, int] = (0, 0)
    """The hub, or the switch."""
    power: tuple[int, int] = (0, 0)
    naive: bool = False
    devices: tuple[str, ...] = ()
    """Kinds of simulated devices; what is not among them is the lab's own."""
    rack: tuple[int, int] = (0, 0)
    disks: tuple[str, ...] = ()
    """What the hosts share: image files, or the block devices that are made of them."""


class Wires(msgspec.Struct, frozen=True):
    """D/network.json: the network namespaces, as paths that are good while the switch runs."""

    switch: str
    hosts: dict[str, str]
    inodes: tuple[int, ...]
    """Of all of them: by these a process in one is known when the switch has ended."""


class Layout(msgspec.Struct, frozen=True):
    dir: Path

    @property
    def disk(self) -> Path:
        """The first one's image."""
        return self.image(1)

    def image(self, number: int) -> Path:
        return self.dir / (f"disk{number}.img" if number > 1 else "disk.img")

    @property
    def images(self) -> list[Path]:
        """Those that are there."""
        return sorted(self.dir.glob("disk*.img"))

    @property
    def file(self) -> Path:
        return self.dir / "lab.json"

    @property
    def hub_socket(self) -> Path:
        return self.dir / "hub"

    @property
    def hub_state(self) -> Path:
        return self.dir / "hub.epoch"

    @property
    def network_file(self) -> Path:
        """Of a lab on corosync; there once its switch works."""
        return self.dir / "network.json"

    def wires(self) -> Wires | None:
        try:
            return msgspec.json.decode(self.network_file.read_bytes(), type=Wires)
        except (OSError, msgspec.MsgspecError):
            return None

    @property
    def power_socket(self) -> Path:
        return self.dir / "power"

    @property
    def password_file(self) -> Path:
        """Of all the lab's fence devices; mode 0600."""
        return self.dir / "power.secret"

    @property
    def rack(self) -> Path:
        """What simulated devices keep, a directory each."""
        return self.dir / "rack"

    @property
    def rack_socket(self) -> Path:
        """There once all simulated devices answer."""
        return self.dir / "rack.sock"

    @property
    def devices_file(self) -> Path:
        return self.dir / "devices.json"

    def devices(self) -> list[Simulated]:
        """The simulated ones, at which ports; none in most labs."""
        try:
            return msgspec.json.decode(self.devices_file.read_bytes(), type=list[Simulated])
        except (OSError, msgspec.MsgspecError):
            return []

    def agent(self, name: str) -> Path:
        return self.dir / "agents" / f"fence_lab_{name}"

    def log(self, name: str) -> Path:
        return self.dir / f"{name}.log"

    def root(self, node: str) -> Path:
        return self.dir / node

    def paths(self, node: str) -> Paths:
        return Paths(self.root(node))

    def lvm(self, node: str) -> Path:
        """LVM_SYSTEM_DIR of stock LVM2 on that host."""
        return self.root(node) / "etc/lvm"

    def init_file(self, node: str) -> Path:
        """(pid, start time) of the host's init, as last booted."""
        return self.root(node) / "init.json"

    def init_of(self, node: str) -> tuple[int, int] | None:
        try:
            return msgspec.json.decode(self.init_file(node).read_bytes(), type=tuple[int, int])
        except (OSError, msgspec.MsgspecError):
            return None

    def ended(self, node: str) -> Path:
        """Exit codes and words of programs that ended while the host ran."""
        return self.root(node) / "ended.log"

    def init_socket(self, node: str) -> Path:
        """Through which a host's init is asked to start programs."""
        return self.root(node) / "run/init"

    def keep(self, kept: Kept) -> None:
        self._write(self.file, kept)

    def keep_wires(self, wires: Wires) -> None:
        self._write(self.network_file, wires)

    def keep_devices(self, devices: Sequence[Simulated]) -> None:
        self._write(self.devices_file, devices)

    def _write(self, file: Path, value: object) -> None:
        new = file.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(value))
        os.replace(new, file)

    def kept(self) -> Kept:
        """Raises Unavailable: there is no lab."""
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError):
            raise Unavailable(
                f"there is no lab in {self.dir}", next=f"ringfence lab up --dir {self.dir}"
            ) from None


def layout(directory: Path) -> Layout:
    """Raises BadInput if the directory's name is too long for the sockets below it."""
    directory = directory.absolute()
    too_long = len(os.fsencode(directory / LONGEST)) - SOCKET_BYTES
    if too_long > 0:
        raise BadInput(
            f"{directory} is {too_long} bytes too long a name for the sockets below it",
            next="choose a directory with a shorter path, for example below /tmp",
        )
    return Layout(directory)


def node_names(count: int) -> tuple[str, ...]:
    """an-a01n01, an-a01n02, …"""
    return tuple(f"an-a01n{number:02}" for number in range(1, count + 1))


def device_names(device: str) -> Sequence[str]:
    """"pdu" stands for both outlets.  Raises BadInput."""
    if device == "pdu":
        return ("pdu-a", "pdu-b")
    if device not in DEVICES:
        raise BadInput(f"a lab host has no device {device!r}", next="one of bmc, pdu, pdu-a, pdu-b")
    return (device,)
