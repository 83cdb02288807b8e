"""What happens to the ring: cuts of every shape, lost and late words."""

from ringfence.sim.faults.fault import Arena, Fault


class Cut(Fault, frozen=True, tag="cut"):
    """The ring is parted: these hosts on one side, the others on the other."""

    nodes: tuple[int, ...]
    for_ms: int
    ragged_ms: int = 0
    """As `SimRing.cut`."""

    def strike(self, arena: Arena) -> None:
        here = [node for node in self.nodes if node in arena.hosts]
        there = [node for node in arena.hosts if node not in here]
        if here and there:
            arena.part([here, there], self.for_ms, self.ragged_ms)


class SwitchOff(Fault, frozen=True, tag="switch-off"):
    """A switch reboots: everybody is alone for a while."""

    for_ms: int
    ragged_ms: int = 0
    """As `SimRing.cut`."""

    def strike(self, arena: Arena) -> None:
        arena.part([[node] for node in arena.hosts], self.for_ms, self.ragged_ms)


class Deaf(Fault, frozen=True, tag="deaf"):
    """A host still sends, and receives nothing."""

    node: int
    for_ms: int

    def strike(self, arena: Arena) -> None:
        if arena.ring.whole:
            arena.ring.deafen(self.node, [node for node in arena.hosts if node != self.node])
            arena.scheduler.after(self.for_ms, arena.ring.heal)


class PathCut(Fault, frozen=True, tag="path-cut"):
    """The path between two hosts is cut, and both still reach a third."""

    nodes: tuple[int, ...]
    for_ms: int

    def strike(self, arena: Arena) -> None:
        if len(self.nodes) == 2 and len(arena.hosts) > 2:
            arena.ring.stick(*self.nodes)
            arena.scheduler.after(self.for_ms, arena.ring.unstick)


class SlowRing(Fault, frozen=True, tag="slow-ring"):
    """Deliveries take up to so long, each as it comes, and so does what is sent, now and then."""

    worst_ms: int
    for_ms: int

    def strike(self, arena: Arena) -> None:
        arena.ring.slow_ms = self.worst_ms
        arena.scheduler.after(self.for_ms, lambda: setattr(arena.ring, "slow_ms", 0))


class FreezeRing(Fault, frozen=True, tag="freeze-ring"):
    """The ring's own process on a host stands still (corosync is stopped): its daemon notices nothing, and
    whatever it sends is taken."""

    node: int
    for_ms: int

    def strike(self, arena: Arena) -> None:
        endpoint = arena.ring.numb(self.node)
        if endpoint is not None:
            arena.scheduler.after(self.for_ms, lambda: arena.ring.wake(endpoint))


class RingStill(Fault, frozen=True, tag="ring-still"):
    """The hub stands still, and goes on where it was."""

    for_ms: int

    def strike(self, arena: Arena) -> None:
        arena.ring.stand_still()
        arena.scheduler.after(self.for_ms, arena.ring.go_on)


class RingLost(Fault, frozen=True, tag="ring-lost"):
    for_ms: int

    def strike(self, arena: Arena) -> None:
        arena.ring.lose()
        arena.scheduler.after(self.for_ms, arena.ring.restore)
