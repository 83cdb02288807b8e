"""A ring of real corosyncs, each in a network namespace of its own, for the contract tests and more."""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from ring_world import LATE_S, TOKEN_MS, Member, reap

from ringfence.core.cluster import ClusterConfig, NodeConfig, Timing
from ringfence.lab.corosync import CorosyncFiles, LoneCorosync, new_key
from ringfence.lab.namespaces import enter
from ringfence.lab.network import Cables, Network, address, cuts_apart
from ringfence.ring.port import Ring


class CorosyncMember(Member):
    """Its host is its corosync."""

    def __init__(self, world: "CorosyncWorld", node: int, timing: Timing) -> None:
        self.world = world
        self.corosync = world.corosyncs[node]
        path = world.network.hosts[node].path

        def make() -> Ring:
            from ringfence.ring.corosync import CorosyncRing

            enter(path)
            return CorosyncRing(node, timing, seen=world.seen.get(node, 0))

        super().__init__(make, node, world.log, self.corosync.pid, world._speaking)

    def freeze(self, host_too: bool = True) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        if host_too:
            self.corosync.send(signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self.corosync.send(signal.SIGCONT)

    def kill_host(self) -> None:
        self.corosync.stop(signal.SIGKILL)

    def power_off(self) -> None:
        """All at one moment, as power goes: nothing is left to tell of the daemon's end."""
        self.freeze()
        self.kill_host()
        self.kill()

    def close(self) -> None:
        reap(self.pid)
        self._ours.close()


class CorosyncWorld:
    """Nodes 1 to `nodes`.  A node's corosync starts with its daemon, unless it runs already."""

    late_s = LATE_S

    def __init__(
        self, token_ms: int = TOKEN_MS, nodes: int = 3, transport: str = "udpu", two_node: bool = False
    ) -> None:
        self.dir = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
        self.log = self.dir / "log"
        self.token_ms = token_ms
        self.timing = Timing(token_ms=token_ms, grant_ms=token_ms)
        self.seen: dict[int, int] = {}
        """What each node's disk knows when its daemon starts."""
        self.members: list[Member] = []
        self._speaking: list[Member] = []
        self.network = Network(nodes)
        self.cables = Cables(self.network.switch.path)
        self.corosyncs: dict[int, LoneCorosync] = {}
        try:
            self._configure(transport, two_node)
        except BaseException:
            self.close()
            raise

    def _configure(self, transport: str, two_node: bool) -> None:
        hosts = self.network.hosts
        configs = tuple(NodeConfig(one, f"n{one}", addresses=(address(one),), manual=True) for one in hosts)
        config = ClusterConfig("ring", ring="corosync", two_node=two_node, timing=self.timing, nodes=configs)
        key = new_key()
        for number, host in hosts.items():
            files = CorosyncFiles(self.dir / f"n{number}")
            files.write(config, transport, key)
            self.corosyncs[number] = LoneCorosync(files, host.path, self.dir / f"run{number}")

    @property
    def now_s(self) -> float:
        return time.monotonic()

    @property
    def detection_s(self) -> float:
        return self.token_ms * 2.2 / 1000

    def member(self, node: int, host: bool = True, timing: Timing | None = None) -> CorosyncMember:
        corosync = self.corosyncs[node]
        if not corosync.pid:
            corosync.start()
        member = CorosyncMember(self, node, timing or self.timing)
        self.members.append(member)
        self._speaking.append(member)
        return member

    def ring(self, *nodes: int, host: bool = True) -> list[CorosyncMember]:
        """Start nodes one after the other; returns once all have seen the view of all."""
        for node in nodes:
            self.corosyncs[node].start()
        members: list[CorosyncMember] = []
        for node in nodes:
            members.append(self.member(node))
            members[-1].wait_view(*nodes[: len(members)])
        for member in members:
            member.wait_view(*nodes)
        return members

    def lose(self) -> None:
        """The whole ring goes, without a word."""
        for corosync in self.corosyncs.values():
            corosync.stop(signal.SIGKILL)

    def restore(self) -> None:
        for member in self.members:
            corosync = self.corosyncs[member.node]
            if not corosync.pid:
                corosync.start()

    def cut(self, *groups: tuple[int, ...]) -> None:
        self.cables.cut(cuts_apart(groups, self.network.hosts))

    def heal(self) -> None:
        self.cables.heal()

    def close(self) -> None:
        for member in self.members:
            member.close()
        for corosync in self.corosyncs.values():
            corosync.stop(signal.SIGKILL)
        self.network.close()
        shutil.rmtree(self.dir, ignore_errors=True)
