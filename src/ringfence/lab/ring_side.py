"""What is different between a lab on the hub and a lab on corosync: the process that carries the ring, the
hosts' files for it, and its cables."""

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import BadInput, Refused, RingfenceError, Unavailable
from ringfence.host.processes import Process, process
from ringfence.lab import trees
from ringfence.lab.corosync import SHARED, CorosyncFiles, check_host, new_key
from ringfence.lab.layout import Kept, Layout
from ringfence.lab.network import RACK_ADDRESS, Cables, Cut, Way, address, cuts_apart, cuts_between
from ringfence.ring.admin import HubAdmin


class RingSide(Protocol):
    """Host numbers are node ids: 1, 2, …"""

    carrier: str
    """What its process is called, in status and as the name of its log."""
    rack_address: str
    """Where simulated devices are, for all hosts."""

    def check(self) -> None:
        """Raises RingfenceError: such a lab cannot be made here, and why."""

    def configured(self, config: ClusterConfig) -> ClusterConfig:
        """The cluster's configuration, as this ring needs it."""

    def furnish(self, config: ClusterConfig) -> None:
        """Write each host's files.  Raises OSError, RingfenceError."""

    def words(self, token_ms: int) -> list[str]:
        """Python's arguments for the carrier."""

    def works(self) -> bool:
        """Whether hosts may boot."""

    def cut(self, number: int, others: Iterable[int], way: Way, link: int | None) -> None:
        """Beside what is cut already.

        Args:
            link: None: all of them.

        Raises RingfenceError."""

    def partition(self, groups: Sequence[Sequence[int]]) -> None:
        """In one step; hosts in none of the groups form one more together.  Raises RingfenceError."""

    def heal(self) -> None:
        """Raises RingfenceError."""

    def cuts(self) -> list[Cut]:
        """Raises RingfenceError."""

    def clear(self) -> None:
        """The carrier has ended: remove what it and the hosts left, and end what no init has below it."""


def ring_side(places: Layout, kept: Kept) -> RingSide:
    return CorosyncSide(places, kept) if kept.ring.is_corosync else HubSide(places, kept)


class HubSide:
    def __init__(self, places: Layout, kept: Kept) -> None:
        self.carrier = "hub"
        self.rack_address = "127.0.0.1"
        self._places = places
        self._numbers = range(1, len(kept.nodes) + 1)

    def check(self) -> None:
        """Whoever may run Python may have a cluster."""

    def configured(self, config: ClusterConfig) -> ClusterConfig:
        return config

    def furnish(self, config: ClusterConfig) -> None:
        pass

    def words(self, token_ms: int) -> list[str]:
        places = self._places
        places.hub_socket.unlink(missing_ok=True)
        words = ["-m", "ringfence", "hub", "--socket", str(places.hub_socket)]
        return [*words, "--state", str(places.hub_state), "--token-ms", str(token_ms)]

    def works(self) -> bool:
        return self._places.hub_socket.exists()

    def cut(self, number: int, others: Iterable[int], way: Way, link: int | None) -> None:
        if way is not Way.BOTH or link is not None or set(self._numbers) - {number, *others}:
            raise Refused(
                "the hub can only cut a host off from all others, in both directions",
                next="make a lab with --ring corosync",
            )
        with HubAdmin(self._places.hub_socket) as hub:
            groups = [[one for one in group if one != number] for group in hub.status().groups]
            hub.cut([*(group for group in groups if group), [number]])

    def partition(self, groups: Sequence[Sequence[int]]) -> None:
        with HubAdmin(self._places.hub_socket) as hub:
            hub.cut(groups)

    def heal(self) -> None:
        with HubAdmin(self._places.hub_socket) as hub:
            hub.heal()

    def cuts(self) -> list[Cut]:
        with HubAdmin(self._places.hub_socket) as hub:
            return cuts_apart(hub.status().groups, self._numbers)

    def clear(self) -> None:
        self._places.hub_socket.unlink(missing_ok=True)


class CorosyncSide:
    """A corosync a host, each in its own network namespace; the carrier is the switch between them."""

    def __init__(self, places: Layout, kept: Kept) -> None:
        self.carrier = "switch"
        self.rack_address = RACK_ADDRESS
        self._places = places
        self._kept = kept
        self._numbers = range(1, len(kept.nodes) + 1)
        self._links = range(kept.ring.links)

    def check(self) -> None:
        check_host()
        for hidden in (Path("/run"), SHARED):
            if self._places.dir.is_relative_to(hidden):
                raise BadInput(
                    f"{self._places.dir} lies below {hidden}, of which each host on corosync has its own",
                    next="choose a directory below /tmp",
                )

    def configured(self, config: ClusterConfig) -> ClusterConfig:
        nodes = [
            msgspec.structs.replace(node, addresses=tuple(address(node.id, link) for link in self._links))
            for node in config.nodes
        ]
        return msgspec.structs.replace(config, ring="corosync", nodes=tuple(nodes))

    def furnish(self, config: ClusterConfig) -> None:
        key = new_key()
        for node in self._kept.nodes:
            CorosyncFiles(self._places.root(node)).write(config, self._kept.ring.transport, key)

    def words(self, token_ms: int) -> list[str]:
        self._places.network_file.unlink(missing_ok=True)
        return ["-m", "ringfence.lab.switch", str(self._places.dir)]

    def works(self) -> bool:
        return self._places.network_file.exists()

    def cut(self, number: int, others: Iterable[int], way: Way, link: int | None) -> None:
        if link is not None and link not in self._links:
            raise BadInput(f"the lab has no link {link}", next=f"0 to {len(self._links) - 1}")
        links = self._links if link is None else (link,)
        self._cables().cut(cuts_between([number], others, links, way))

    def partition(self, groups: Sequence[Sequence[int]]) -> None:
        self._cables().cut(cuts_apart(groups, self._numbers, self._links))

    def heal(self) -> None:
        self._cables().heal()

    def cuts(self) -> list[Cut]:
        return sorted(self._cables().cuts())

    def _cables(self) -> Cables:
        wires = self._places.wires()
        if wires is None:
            raise Unavailable("the lab's switch does not run", next="ringfence lab status")
        return Cables(wires.switch)

    def clear(self) -> None:
        wires = self._places.wires()
        if wires is not None:
            for one in self._strays(wires.inodes):
                with contextlib.suppress(RingfenceError):
                    trees.kill(one)
        self._places.network_file.unlink(missing_ok=True)

    def _strays(self, inodes: Sequence[int]) -> list[Process]:
        """What still runs in the lab's namespaces because its init, and who would have ended it, were killed.

        A namespace's number may be another's by now, so each must also name the lab's directory."""
        ours = re.compile(re.escape(os.fsencode(self._places.dir)) + rb"[/\0]")
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{pid}/ns/net").st_ino not in inodes or pid == os.getpid():
                    continue
                one = process(pid)
                if one is not None and ours.search(Path(f"/proc/{pid}/cmdline").read_bytes()):
                    found.append(one)
        return found
