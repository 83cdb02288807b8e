"""Faults as data: what goes wrong in a world, when, and with which parameters.

A plan is a list of these, one a line in a scenario file:

    12.345 freeze-host node=2 for_ms=3000

Whatever is left to chance is a parameter, drawn with the plan: so a plan can lose a fault without
changing what the others do.  A new kind is a class here with its `strike`, and a draw in `plans`.

A fault that finds nothing to do (its host is off already) does nothing: which of them come at a good
moment is the business of chance, or of whoever writes the plan."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, get_origin, get_type_hints

import msgspec

from ringfence.engine import orders
from ringfence.sim import slotted
from ringfence.sim.host import Host, OwnDisk
from ringfence.sim.power import Manner, PowerRoom
from ringfence.sim.ring import SimRing
from ringfence.sim.scheduler import MS, Scheduler
from ringfence.sim.storage import Trouble
from ringfence.wire import SPEAKS
from ringfence.wire.ring import Ready, decode


@dataclass(frozen=True)
class Arena:
    """What faults can get at.

    Attributes:
        sign: an operator signs, at the daemon of the second host, that the first host is off; the word
            gets there so many ms later.
        order: an operator orders, at the daemon of the second host, that the first is fenced.
        disarm: an operator disarms fencing, at a host's daemon, for so many ms.
        leave: ask a host's daemon for a clean leave.
        stop: ask a host's daemon to leave the lockspace of the volume group.
        hand_over: have who has an LV hand it over to a host, or prepare that.
        hand_back: drop a hand-over that is prepared.
        type_there: an operator types a command about an LV at a host.
        replace: another machine takes a host's place, under its node id, for so many ms.
        tend: boot a host, or start its daemon, if that is what it lacks.
        rot: damage what stands in the mark of a host.
        await_writer: call once, with the node where a client is next told a lock under which it may write a
            value."""

    scheduler: Scheduler
    ring: SimRing
    power: PowerRoom
    hosts: dict[int, Host]
    sign: Callable[[Host, Host, int], None]
    order: Callable[[Host, Host], None]
    disarm: Callable[[Host, int], None]
    leave: Callable[[Host], None]
    stop: Callable[[Host], None]
    hand_over: Callable[[Host, bool], None]
    hand_back: Callable[[], None]
    type_there: Callable[[Host, str, str], None]
    replace: Callable[[Host, int], None]
    tend: Callable[[Host], None]
    rot: Callable[[int], None]
    await_writer: Callable[[Callable[[int], None]], None]

    def part(self, parts: list[list[int]], for_ms: int, ragged_ms: int = 0) -> None:
        """Cut the ring; it heals in the end, if it is not cut otherwise meanwhile."""
        self.ring.cut(parts, ragged_ms)
        self.scheduler.after(for_ms, lambda: self.ring.heal() if self.ring.parts is parts else None)

    def sicken(self, host: Host, how: Trouble, disk: str, for_ms: int) -> None:
        """A host's way to a shared disk has trouble for so long."""
        host.storage.suffer(how, (disk,))
        self.scheduler.after(for_ms, lambda: host.storage.suffer(Trouble.NONE, ()))

    def neglect(self, host: Host, for_ms: int) -> None:
        """Nobody switches the host on, or starts its daemon, for so long; then somebody does at once.
        0: sooner or later."""
        if for_ms:
            host.neglected_until_ns = self.scheduler.now_ns + for_ms * MS
            self.scheduler.after(for_ms, lambda: self.tend(host))


JUMP_EVERY_MS = 6000
HANGS_ON_MS = 1500
"""A write that hangs in a disk does so for longer than its host is cut off."""
ORDERS: dict[str, type[orders.BlockOrder]] = {
    "open": orders.OpenPath, "reload": orders.ReloadPath, "close": orders.ClosePath,
    "mirror": orders.MirrorPath, "seal": orders.SealPath, "unmirror": orders.UnmirrorPath,
    "list": orders.OpenPaths,
}  # fmt: skip
HOSTS = ("node", "desk")
"""Fields that name a host."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of fault, its tag being its word in scenario files; an instance is one of a plan."""

    at_ms: int = 0
    """Since the world began (in a draw: since its story began)."""

    def strike(self, arena: Arena) -> None:
        raise NotImplementedError

    @property
    def kind(self) -> str:
        return str(self.__struct_config__.tag)

    def later(self, by_ms: int) -> Self:
        return msgspec.structs.replace(self, at_ms=self.at_ms + by_ms)

    def without(self, node: int) -> Self | None:
        """The same in a world in which that host does not exist and later ones have moved up; None: it
        was about that host, or would be about nobody."""
        changes: dict[str, Any] = {}
        for field, value in _values(self).items():
            if field in HOSTS:
                if value == node:
                    return None
                changes[field] = value - (value > node)
            elif field == "nodes":
                changes[field] = tuple(one - (one > node) for one in value if one != node)
                if not changes[field]:
                    return None
        return msgspec.structs.replace(self, **changes)

    def __str__(self) -> str:
        words = [f"{self.at_ms / 1000:.3f} {self.kind}"]
        defaults = {field.name: field.default for field in msgspec.structs.fields(self)}
        for field, value in _values(self).items():
            if value == defaults[field]:
                continue
            if isinstance(value, tuple):
                value = ",".join(str(one) for one in value)
            words.append(f"{field}={value.value if isinstance(value, enum.Enum) else value}")
        return " ".join(words)


def parse_fault(line: str) -> Fault:
    """Read one line.  Raises ValueError with what is wrong with it."""
    at_s, _, rest = line.strip().partition(" ")
    kind, *words = rest.split()
    kinds = {str(one.__struct_config__.tag): one for one in Fault.__subclasses__()}
    cls = kinds.get(kind)
    if cls is None:
        raise ValueError(f"no fault is called {kind!r}; there are: {', '.join(sorted(kinds))}")
    hints = get_type_hints(cls)
    values: dict[str, Any] = {"type": kind, "at_ms": round(float(at_s) * 1000)}
    for word in words:
        field, equals, text = word.partition("=")
        if not equals or field not in cls.__struct_fields__:
            raise ValueError(f"{kind} has no parameter {word!r}")
        values[field] = text.split(",") if get_origin(hints[field]) is tuple else text
    try:
        return msgspec.convert(values, cls, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"{line.strip()!r}: {error}") from error


def _values(fault: Fault) -> dict[str, Any]:
    return {field: getattr(fault, field) for field in fault.__struct_fields__ if field != "at_ms"}


# -- hosts and daemons ------------------------------------------------------------------


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


# -- disks ------------------------------------------------------------------------------


class OwnDiskFault(Fault, frozen=True, tag="own-disk"):
    """The disk on which a host's daemon keeps its state."""

    node: int
    how: OwnDisk
    for_ms: int

    def strike(self, arena: Arena) -> None:
        host = arena.hosts[self.node]
        host.own_disk = self.how
        arena.scheduler.after(self.for_ms, lambda: setattr(host, "own_disk", OwnDisk.GOOD))


class SharedDisk(Fault, frozen=True, tag="shared-disk"):
    """One host's way to one of the shared disks."""

    node: int
    disk: str
    how: Trouble
    for_ms: int

    def strike(self, arena: Arena) -> None:
        arena.sicken(arena.hosts[self.node], self.how, self.disk, self.for_ms)


class SlotArray(Fault, frozen=True, tag="slot-array"):
    """One host's way to the disk slots."""

    node: int
    how: str
    """dead or slow."""
    for_ms: int
    disks: tuple[str, ...] = (slotted.PATH,)

    def strike(self, arena: Arena) -> None:
        port = arena.hosts[self.node].slots
        port.suffer(dead=self.disks if self.how == "dead" else (), slow=self.how == "slow")
        arena.scheduler.after(self.for_ms, port.suffer)


class SlotRot(Fault, frozen=True, tag="slot-rot"):
    """A sector of the mark of a host goes bad, if there is a mark."""

    node: int

    def strike(self, arena: Arena) -> None:
        arena.rot(self.node)


class MidWrite(Fault, frozen=True, tag="mid-write"):
    """While one of a daemon's own writes to a shared disk is in flight.  Power loss tears it; where it hangs,
    the host is cut off, and back before it lands."""

    node: int
    skip: int
    """So many writes are let pass first."""
    how: str
    """freeze, kill, power or hang."""
    for_ms: int = 0
    """How long a freeze lasts, or a cut."""
    within_ms: int = 0
    """If it has not come to that by then, it does not strike at all; 0: it waits for ever."""

    def strike(self, arena: Arena) -> None:
        host, left = arena.hosts[self.node], self.skip

        def forget() -> None:
            if host.storage.fault is fault:
                host.storage.fault = lambda: None

        def fault() -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                return
            host.storage.fault = lambda: None
            arena.scheduler.note(f"nemesis: {self.how} of {host.name} in the middle of a write")
            match self.how:
                case "freeze":
                    host.freeze()
                    arena.scheduler.after(self.for_ms, host.thaw)
                case "kill":
                    host.kill_daemon()
                case "hang":
                    host.storage.hangs_ms = self.for_ms + HANGS_ON_MS
                    others = [node for node in arena.hosts if node != self.node]
                    arena.part([[self.node], others], self.for_ms)
                case "power":
                    arena.power.cut(self.node)

        host.storage.fault = fault
        if self.within_ms:
            arena.scheduler.after(self.within_ms, forget)


class StuckPaths(Fault, frozen=True, tag="stuck-paths"):
    """The workers of a host's open volumes do not end when they are told to."""

    node: int
    for_ms: int

    def strike(self, arena: Arena) -> None:
        block = arena.hosts[self.node].block
        block.stuck = True
        arena.scheduler.after(self.for_ms, lambda: setattr(block, "stuck", False))


class LateOrders(Fault, frozen=True, tag="late-orders"):
    """A host's block service carries out each order, and answers it, up to so late."""

    node: int
    worst_ms: int
    for_ms: int

    def strike(self, arena: Arena) -> None:
        block = arena.hosts[self.node].block
        block.late_ms = self.worst_ms
        arena.scheduler.after(self.for_ms, lambda: setattr(block, "late_ms", 0))


class MidOrder(Fault, frozen=True, tag="mid-order"):
    """While an order about a path is under way: once the block service has it, or has done it and not
    answered."""

    node: int
    order: str
    """open, reload, close, mirror, seal, unmirror or list."""
    when: str
    """given or done."""
    how: str
    """freeze, cut, kill, power, or the name of a disk, to which its host's writes fail."""
    for_ms: int
    """How long a freeze, a cut, or an error lasts, or the daemon or the host stays away."""
    skip: int = 0
    """So many orders of the kind are let pass first."""
    within_ms: int = 0
    """If it has not come to that by then, it does not strike at all; 0: it waits for ever."""

    def strike(self, arena: Arena) -> None:
        host, left, kind = arena.hosts[self.node], self.skip, ORDERS[self.order]

        def forget() -> None:
            if host.block.ordered is ordered:
                host.block.ordered = lambda order, when: None

        def ordered(order: orders.BlockOrder, when: str) -> None:
            nonlocal left
            left -= when == self.when and isinstance(order, kind) and not host.frozen
            if left >= 0:
                return
            forget()
            arena.scheduler.note(f"nemesis: {self.how} of {host.name}, an order to {self.order} is {when}")
            match self.how:
                case "freeze":
                    host.freeze()
                    arena.scheduler.after(self.for_ms, host.thaw)
                case "cut":
                    others = [node for node in arena.hosts if node != self.node]
                    arena.part([[self.node], others], self.for_ms)
                case "kill":
                    arena.neglect(host, self.for_ms)
                    host.kill_daemon()
                case "power":
                    arena.neglect(host, self.for_ms)
                    arena.power.cut(self.node)
                case disk:
                    arena.sicken(host, Trouble.WRITES_FAIL, disk, self.for_ms)

        host.block.ordered = ordered
        if self.within_ms:
            arena.scheduler.after(self.within_ms, forget)


# -- the ring ---------------------------------------------------------------------------


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


# -- fence devices and people ----------------------------------------------------------------


class Unplug(Fault, frozen=True, tag="unplug"):
    """Both plugs of a host are pulled: its BMC dies with it, and only the outlets can tell."""

    node: int
    for_ms: int = 0

    def strike(self, arena: Arena) -> None:
        arena.neglect(arena.hosts[self.node], self.for_ms)
        for outlet in "ab":
            arena.power.switch(self.node, outlet, False)


class Devices(Fault, frozen=True, tag="devices"):
    """A host's fence devices behave like this from now on; one that is not named stays as it is."""

    node: int
    bmc: Manner | None = None
    a: Manner | None = None
    b: Manner | None = None

    def strike(self, arena: Arena) -> None:
        named = {f"bmc{self.node}": self.bmc, f"pdu{self.node}a": self.a, f"pdu{self.node}b": self.b}
        for name, manner in named.items():
            if manner is not None:
                arena.power.devices[name].manner = manner


class Calm(Fault, frozen=True, tag="calm"):
    """All devices are honest again."""

    def strike(self, arena: Arena) -> None:
        arena.power.calm()


class Sign(Fault, frozen=True, tag="sign"):
    """An honest operator signs that a host is off, if it is."""

    node: int
    desk: int
    """The host at whose daemon this is said."""
    slow_ms: int = 0
    """The word takes so long from the signing to the daemon (the command stood still)."""

    def strike(self, arena: Arena) -> None:
        if not arena.hosts[self.node].up:
            arena.sign(arena.hosts[self.node], arena.hosts[self.desk], self.slow_ms)


class Order(Fault, frozen=True, tag="order"):
    """An operator has a host fenced, whatever it does."""

    node: int
    desk: int
    """The host at whose daemon this is said; it may be the same."""

    def strike(self, arena: Arena) -> None:
        arena.order(arena.hosts[self.node], arena.hosts[self.desk])


class Disarm(Fault, frozen=True, tag="disarm"):
    """Maintenance: nobody is fenced for so long."""

    desk: int
    for_ms: int

    def strike(self, arena: Arena) -> None:
        arena.disarm(arena.hosts[self.desk], self.for_ms)


class Leave(Fault, frozen=True, tag="leave"):
    node: int

    def strike(self, arena: Arena) -> None:
        arena.leave(arena.hosts[self.node])


class HandOver(Fault, frozen=True, tag="hand-over"):
    """An operator has an LV that is open on another host go on here."""

    node: int
    prepare: bool = False

    def strike(self, arena: Arena) -> None:
        arena.hand_over(arena.hosts[self.node], self.prepare)


class HandBack(Fault, frozen=True, tag="hand-back"):
    """An operator drops what is prepared."""

    def strike(self, arena: Arena) -> None:
        arena.hand_back()


class Typed(Fault, frozen=True, tag="typed"):
    """An operator types a command at a host, whatever else is under way there."""

    node: int
    verb: str
    """create, alone, shared, off, remove or move."""
    lv: str

    def strike(self, arena: Arena) -> None:
        arena.type_there(arena.hosts[self.node], self.verb, self.lv)


class LockStop(Fault, frozen=True, tag="lock-stop"):
    """An operator stops the volume group on a host."""

    node: int

    def strike(self, arena: Arena) -> None:
        arena.stop(arena.hosts[self.node])
