"""What the driver needs of the world around it, as Protocols.

The ring's is `ring.port.Ring`.  The real ones are put together in `assemble`; tests put in smaller
ones.  Every method here is
called in the event loop; the ones that are not `async` must return at once (bounded, no network)
unless said otherwise."""

from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

from ringfence.core.cluster import ClusterConfig, Use
from ringfence.engine.effects import Effect, RunAgent
from ringfence.engine.inputs import AgentExited, DiskState, Input
from ringfence.engine.orders import BlockOrder, LvmRan, RefreshLvs, SlotIo, StorageOrder
from ringfence.wire.checkup import HostFacts
from ringfence.wire.lvmlockd import LvmLock
from ringfence.wire.proving import Reading


class Feed(Protocol):
    def __call__(self, *facts: Input) -> None: ...


class Engine(Protocol):
    """`engine.node.Node`."""

    def step(self, now_ns: int, input: Input) -> list[Effect]: ...


class Clock(Protocol):
    def boottime_ns(self) -> int: ...

    def wall_ms(self) -> int: ...


class Agents(Protocol):
    async def run(self, effect: RunAgent) -> AgentExited:
        """One whole run, at its limit at the latest."""

    def cancel(self, run: int) -> None: ...


class Storage(Protocol):
    def bound(self) -> Callable[[StorageOrder], Any]:
        """What carries out an order of the life that is current now, and of no later one.

        Blocking; called in a thread of its own."""


class Slots(Protocol):
    """The disk slots of shared VGs."""

    async def do(self, order: SlotIo) -> tuple[bytes, ...]:
        """Answered within the order's limit, whatever hangs.  Raises RingfenceError."""


class Block(Protocol):
    """The host's block service, which is older than any daemon and outlives it."""

    async def start(self, feed: Feed) -> None:
        """Returns at once.  Incidents that the service reports go to `feed`."""

    def do(self, order: BlockOrder) -> Coroutine[Any, Any, Any]:
        """Bound at the call to the life that is current now.  May raise RingfenceError at once."""

    async def drop_all(self) -> None:
        """Returns only when every data path of this node is closed and its worker reaped.

        Raises RingfenceError if that cannot be known."""

    def recorded(self, fields: dict[str, Any]) -> None:
        """The cluster has recorded this incident: it need not be told again."""

    async def close(self) -> None: ...


class Lvm(Protocol):
    """What stock LVM2 has through this daemon: its locks, its commands, its device-mapper tables."""

    def keep(self, kept: Collection[LvmLock], gone: Collection[LvmLock]) -> None:
        """Noted for the next daemon of this boot when this returns.  Synchronous on purpose."""

    def watch(self, pid: int, started: int, feed: Feed) -> None:
        """ProcessEnded goes to `feed` when that process has ended."""

    def lose(self) -> None:
        """No later daemon may adopt what is noted: it is about to be dropped."""

    async def standing(self, vgs: Collection[str]) -> tuple[str, ...]:
        """Device-mapper tables of these VGs through which something may be written, "VG/LV" of each.

        Raises RingfenceError if that cannot be known."""

    async def cut(self, vgs: Collection[str]) -> tuple[str, ...]:
        """Have all of them fail.  Returns those that stand all the same.  Raises as `standing` does."""

    async def drop_all(self) -> None:
        """Returns only when LVM2's commands have ended and every table of its VGs is cut.

        Raises RingfenceError while that is not so, or cannot be known."""

    def close(self) -> None: ...


class Look(Protocol):
    async def look(self, running: ClusterConfig) -> HostFacts:
        """What this host looks like; within some seconds, whatever hangs."""


class Supplies(Protocol):
    async def read(self, controllers: tuple[tuple[int, Use], ...]) -> tuple[Reading, ...]:
        """All at once, each within its device's limit; what cannot be read says why."""


class StockLvm(Protocol):
    """LVM2's own commands on this host."""

    async def refresh(self, order: RefreshLvs) -> LvmRan:
        """Soon after the order's limit at the latest.  Raises Unavailable: LVM2 is not here."""

    async def end_all(self) -> None:
        """No command that was started here goes on when this returns: it could load a table again that is
        being cut.  Raises Unavailable while the kernel does not let go of one."""


class Watch(Protocol):
    """The service manager.  No method blocks or raises."""

    def ready(self) -> None: ...

    def recorded(self, kind: str, what: str) -> None: ...

    def alive(self) -> None:
        """The loop has turned."""

    def ending(self, why: str) -> None: ...


class Pages(Protocol):
    """Authority deadlines in shared memory."""

    def set(self, incarnation: int, page: str, deadline_ns: int) -> None: ...

    def lose_all(self) -> None:
        """Every page of this daemon's incarnations reads LOST from here on.  Never raises."""


class Kept(Protocol):
    def keep(self, disk: DiskState) -> None:
        """On stable storage when this returns.  Synchronous on purpose: it is a barrier."""

    def keep_config(self, config: ClusterConfig) -> None: ...


class History(Protocol):
    def append(self, kind: str, what: str, fields: dict[str, Any], wall_ms: int, boottime_ns: int) -> int:
        """Returns the event's sequence number.  Raises RingfenceError if it cannot be stored."""

    def events(self, since: int, limit: int) -> list[dict[str, Any]]: ...

    def fences(self, node: str) -> list[dict[str, Any]]: ...
