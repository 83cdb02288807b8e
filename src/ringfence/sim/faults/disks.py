"""What happens to disks, to what is under way to them, and to orders about paths."""

from collections.abc import Callable

from ringfence.engine import orders
from ringfence.sim import slotted
from ringfence.sim.faults.fault import Arena, Fault
from ringfence.sim.host import OwnDisk
from ringfence.sim.storage import Trouble

HANGS_ON_MS = 1500
"""A write that hangs in a disk does so for longer than its host is cut off."""
ORDERS: dict[str, type[orders.BlockOrder]] = {
    "open": orders.OpenPath, "reload": orders.ReloadPath, "close": orders.ClosePath,
    "mirror": orders.MirrorPath, "seal": orders.SealPath, "unmirror": orders.UnmirrorPath,
    "list": orders.OpenPaths,
}  # fmt: skip


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


class _Trap:
    """Strikes once: where what it waits for is met after so many others of its kind were let pass.

    Args: within_ms: not later than that; 0: it waits for ever."""

    def __init__(self, arena: Arena, skip: int, within_ms: int, strike: Callable[[], None]) -> None:
        self._left = skip
        self._strike = strike
        if within_ms:
            arena.scheduler.after(within_ms, self._forget)

    def met(self) -> None:
        self._left -= 1
        if self._left == -1:
            self._strike()

    def _forget(self) -> None:
        self._left = -1


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
        host = arena.hosts[self.node]

        def struck() -> None:
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

        host.storage.fault = _Trap(arena, self.skip, self.within_ms, struck).met


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
        host, kind = arena.hosts[self.node], ORDERS[self.order]

        def struck() -> None:
            what = f"an order to {self.order} is {self.when}"
            arena.scheduler.note(f"nemesis: {self.how} of {host.name}, {what}")
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

        trap = _Trap(arena, self.skip, self.within_ms, struck)

        def ordered(order: orders.BlockOrder, when: str) -> None:
            if when == self.when and isinstance(order, kind) and not host.frozen:
                trap.met()

        host.block.ordered = ordered
