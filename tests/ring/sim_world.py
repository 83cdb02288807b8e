"""The simulator's ring for the contract tests: what it promises there is what real rings keep."""

from ring_world import TOKEN_MS, Event, Watched

from ringfence.engine.inputs import Delivered, QuorumSaid, RingLost, ViewChanged
from ringfence.sim.ring import RingInput, SimRing
from ringfence.sim.scheduler import Scheduler


class SimMember(Watched):
    survives_its_host = False

    def __init__(self, world: "SimWorld", node: int, host: bool) -> None:
        super().__init__(node)
        self.world = world
        self.host = host or world.network.totem
        self.seq = 0
        self.endpoint = world.network.connect(node, self._deliver)

    def _deliver(self, fact: RingInput) -> None:
        line: Event
        match fact:
            case ViewChanged(epoch, members, joined, left, how):
                self.seq = epoch.seq
                line = ("view", epoch, members, joined, left, how)
            case Delivered(sender, payload):
                line = ("got", sender, payload.decode())
            case RingLost(reason):
                line = ("lost", reason)
            case QuorumSaid(quorate):
                line = ("quorum", quorate)
        self.events.append(line)

    def poll(self, timeout_s: float = 0.0) -> None:
        until_s = self.now_s + timeout_s
        while self.now_s < until_s and self.world.scheduler.step():
            pass

    @property
    def now_s(self) -> float:
        return self.world.now_s

    def send(self, text: str) -> None:
        self.world.network.multicast(self.endpoint, text.replace("EPOCH", str(self.seq)).encode())

    def burst(self, count: int, size_bytes: int = 10) -> None:
        del size_bytes  # here nothing depends on it
        for number in range(count):
            self.send(f"{self.node}:{number}")

    def leave(self) -> None:
        self.world.network.close(self.endpoint, "leave")

    def freeze(self, host_too: bool = True) -> None:
        self.world.network.freeze(self.endpoint, with_host=host_too)

    def thaw(self) -> None:
        self.world.network.thaw(self.endpoint)

    def kill(self) -> None:
        self.world.network.close(self.endpoint, "procdown" if self.host else "nodedown")

    def kill_host(self) -> None:
        self.world.network.close(self.endpoint, "nodedown")

    power_off = kill_host


class SimWorld:
    """Args:
    totem: as corosync, else as the hub."""

    late_s = 0.0

    def __init__(self, totem: bool) -> None:
        self.scheduler = Scheduler(1)
        self.scheduler.at(0, self._beat)
        self.network = SimRing(self.scheduler.stream("ring"), TOKEN_MS, totem, nodes=3)

    def _beat(self) -> None:
        """Time goes on though nothing happens."""
        self.scheduler.after(10, self._beat)

    @property
    def now_s(self) -> float:
        return self.scheduler.now_ns / 1e9

    @property
    def detection_s(self) -> float:
        return TOKEN_MS * 2.2 / 1000

    def member(self, node: int, host: bool = False) -> SimMember:
        return SimMember(self, node, host)

    def ring(self, *nodes: int, host: bool = False) -> list[SimMember]:
        members: list[SimMember] = []
        for node in nodes:
            members.append(self.member(node, host))
            members[-1].wait_view(*nodes[: len(members)])
        for member in members:
            member.wait_view(*nodes)
        return members

    def lose(self) -> None:
        self.network.lose()

    def restore(self) -> None:
        self.network.restore()

    def cut(self, *groups: tuple[int, ...]) -> None:
        self.network.cut([list(group) for group in groups])

    def heal(self) -> None:
        self.network.heal()

    def close(self) -> None:
        pass
