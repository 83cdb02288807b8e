"""What happens to hosts and their daemons: frozen, killed, switched off, replaced, upgraded."""

from ringfence.sim.faults.fault import Arena, Fault
from ringfence.sim.scheduler import MS
from ringfence.wire import SPEAKS
from ringfence.wire.ring import Ready, decode

JUMP_EVERY_MS = 6000


class FreezeHost(Fault, frozen=True, tag="freeze-host"):
    node: int
    for_ms: int
    forgets: bool = False
    """What its daemon has not read when the ring removes it never comes."""

    def strike(self, arena: Arena) -> None:
        host = arena.hosts[self.node]
        host.freeze()
        if host.frozen and host.daemon is not None and host.daemon.endpoint is not None:
            host.daemon.endpoint.forgets = self.forgets
        arena.scheduler.after(self.for_ms, host.thaw)


class FreezeDaemon(Fault, frozen=True, tag="freeze-daemon"):
    node: int
    for_ms: int

    def strike(self, arena: Arena) -> None:
        arena.hosts[self.node].freeze(daemon_only=True)
        arena.scheduler.after(self.for_ms, arena.hosts[self.node].thaw)


class KillDaemon(Fault, frozen=True, tag="kill-daemon"):
    """Its host's init starts it again, sooner or later."""

    node: int
    for_ms: int = 0
    """How long it stays away; 0: as it comes."""

    def strike(self, arena: Arena) -> None:
        host = arena.hosts[self.node]
        if host.daemon is not None and not host.frozen:
            arena.neglect(host, self.for_ms)
            host.kill_daemon()


class Upgrade(Fault, frozen=True, tag="upgrade"):
    """A host gets the newest ringfence: its daemon is started anew, and speaks all protocols from then on."""

    node: int
    for_ms: int = 0
    """How long it stays away; 0: as it comes."""

    def strike(self, arena: Arena) -> None:
        host = arena.hosts[self.node]
        host.speaks = SPEAKS
        if host.daemon is not None and not host.frozen:
            arena.neglect(host, self.for_ms)
            host.kill_daemon()


class PowerOff(Fault, frozen=True, tag="power-off"):
    nodes: tuple[int, ...]
    for_ms: int = 0
    """How long they stay off; 0: as it comes."""

    def strike(self, arena: Arena) -> None:
        for node in self.nodes:
            arena.neglect(arena.hosts[node], self.for_ms)
            arena.power.cut(node)


class MidStep(Fault, frozen=True, tag="mid-step"):
    """Between two effects of one step of the engine."""

    node: int
    skip: int
    """So many chances to strike are let pass first."""
    how: str
    """As `Host.fault`: freeze, kill or power."""
    for_ms: int = 0
    """How long a freeze lasts."""

    def strike(self, arena: Arena) -> None:
        host, left = arena.hosts[self.node], self.skip

        def fault() -> str:
            nonlocal left
            left -= 1
            if left >= 0:
                return ""
            host.fault = lambda: ""
            arena.scheduler.note(f"nemesis: {self.how} of {host.name} in the middle of a step")
            if self.how == "freeze":
                arena.scheduler.after(self.for_ms, host.thaw)
            return self.how

        host.fault = fault


class FreezeReady(Fault, frozen=True, tag="freeze-ready"):
    """The host freezes in the next barrier: it has said Ready, and has not heard the others' words."""

    node: int
    for_ms: int
    forgets: bool = False
    """As `FreezeHost`."""

    def strike(self, arena: Arena) -> None:
        host = arena.hosts[self.node]

        def sent(payload: bytes) -> None:
            if any(isinstance(item, Ready) for item in decode(payload).items):
                host.sent = lambda payload: None
                host.freeze()
                if host.daemon is not None and host.daemon.endpoint is not None:
                    host.daemon.endpoint.forgets = self.forgets
                arena.scheduler.after(self.for_ms, host.thaw)

        host.sent = sent


class FreezeRenewed(Fault, frozen=True, tag="freeze-renewed"):
    """The host freezes as soon as it has nearly as much authority as it can have."""

    node: int
    for_ms: int
    within_ms: int = 20
    """So far from what it would have had at the sending of its heartbeat."""

    def strike(self, arena: Arena) -> None:
        host = arena.hosts[self.node]

        def renewed(deadline_ns: int) -> None:
            left_ms = (deadline_ns - host.clock_ns) / MS
            if host.config.timing.write_ms - self.within_ms <= left_ms <= host.config.timing.write_ms:
                host.renewed = lambda deadline_ns: None
                host.freeze()
                arena.scheduler.after(self.for_ms, host.thaw)

        host.renewed = renewed


class FreezeWriter(Fault, frozen=True, tag="freeze-writer"):
    """Whatever daemon tells a client next that it may write a value stands still right after that, then its
    host, too, and then all are apart: when it goes on it gives the lock back, and hears of that alone."""

    for_ms: int
    host_ms: int
    """After so long its host freezes, until the end."""
    apart_ms: int
    """After so long all are apart."""
    apart_for_ms: int

    def strike(self, arena: Arena) -> None:
        def told(node: int) -> None:
            host = arena.hosts[node]
            scheduler, alone = arena.scheduler, [[one] for one in arena.hosts]
            scheduler.after(0, lambda: host.freeze(daemon_only=True))
            scheduler.after(self.host_ms, host.freeze)
            scheduler.after(self.apart_ms, lambda: arena.part(alone, self.apart_for_ms))
            scheduler.after(self.for_ms, host.thaw)

        arena.await_writer(told)


class ClockRate(Fault, frozen=True, tag="clock-rate"):
    """A host's clock goes at another speed from now on, within what the purge bound allows for."""

    node: int
    off_ppm: int

    def strike(self, arena: Arena) -> None:
        arena.hosts[self.node].drift(rate=1 + self.off_ppm / 1e6)


class ClockJump(Fault, frozen=True, tag="clock-jump"):
    """CLOCK_BOOTTIME is set forward a little (after a suspend it is set by a clock that knows no better).

    Seldom: what the purge bound allows for unequal clocks is for one jump within it."""

    node: int
    by_ms: int

    def strike(self, arena: Arena) -> None:
        host, now_ns = arena.hosts[self.node], arena.scheduler.now_ns
        if now_ns - host.jumped_ns > JUMP_EVERY_MS * MS:
            host.jumped_ns = now_ns
            host.drift(ahead_ns=self.by_ms * MS)


class AnotherMachine(Fault, frozen=True, tag="another-machine"):
    """Somebody puts another machine, with a disk of its own, in the place of a host that hangs."""

    node: int
    for_ms: int

    def strike(self, arena: Arena) -> None:
        if arena.hosts[self.node].frozen:
            arena.replace(arena.hosts[self.node], self.for_ms)


class WallJump(Fault, frozen=True, tag="wall-jump"):
    """Somebody sets a host's wall clock."""

    node: int
    by_ms: int

    def strike(self, arena: Arena) -> None:
        arena.hosts[self.node].wall_off_ms += self.by_ms
