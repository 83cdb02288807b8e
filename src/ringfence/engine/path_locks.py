"""No path without its lock: the last look before an order about either leaves a command.

Commands of one node may be at the same LV at the same time: two people's lvchange, or one and what ends a
hand-over (`handovers`).  Each of them goes from the lock to the path, or from the path to the lock, and waits
in between; so one could let go of the very lock under which the other is about to open.  Whatever the order:

    a path is opened, or held less, under the lock that its command was told of, if that is still had, is
        strong enough, and no operation on it is in flight
    a lock is not let go of, nor made weaker than its path needs, while a path is open under it, or may be
    nothing is closed while it is being opened, nor opened while it is being closed

    who takes back an opening of his own that has failed closes nothing that another command has opened, and
        has nothing to close, whatever the block service says or does not say, before he has ordered any

Who comes second is refused, and may try again.  "May be": from the order to open it until one to close it was
carried out."""

import msgspec

from ringfence.core.errors import Refused, RingfenceError
from ringfence.core.ids import Token
from ringfence.core.modes import EX, UN, Mode
from ringfence.engine.commands.locking import space_of
from ringfence.engine.locker import Locker
from ringfence.engine.orders import ClosePath, Convert, OpenPath, PathsTogether, Release, ReloadPath
from ringfence.wire.block import NO_HOLD, Hold

EARLIER = 0


class _Path(msgspec.Struct, gc=False):
    needs: Mode = UN
    """The least mode of its lock; UN: it is not open."""
    opening: int = 0
    closing: int = 0
    """Orders of that kind that are under way: of one of them at a time."""
    openers: tuple[int, ...] = ()
    """Commands that have ordered to open it since it was closed; EARLIER: a life before this one."""


class PathLocks:
    def __init__(self, locker: Locker) -> None:
        self._locker = locker
        self._paths: dict[tuple[str, str], _Path] = {}
        """By (lockspace, LV's uuid): the key of its lock."""

    def clear(self) -> None:
        """Every path is dropped."""
        self._paths.clear()

    def adopted(self, vg: str, uuid: str, mode: Mode) -> None:
        """An earlier life has left a path open, under this lock."""
        self._paths[space_of(vg), uuid] = _Path(mode, openers=(EARLIER,))

    # -- paths -----------------------------------------------------------------------------

    def ordered(self, order: object, by: int) -> None:
        """A command gives an order about paths.  Raises Refused: it must not be carried out.

        Args: by: which command, from 1."""
        match order:
            case OpenPath() | ClosePath():
                if refused := self._begin(order, by):
                    raise refused
            case ReloadPath(hold=Hold() as hold):
                key = space_of(order.vg), order.uuid
                if not self._may_open(key, order.token, hold.least):
                    raise _lock_changed(order)
                path = self._paths.get(key)
                if path is not None:
                    path.needs = max(path.needs, hold.least)

    def ordered_together(self, order: PathsTogether, by: int) -> dict[int, RingfenceError]:
        """As `ordered`; returns those that must not be carried out, by their number."""
        refused: dict[int, RingfenceError] = {}
        for number, one in enumerate(order.orders):
            if (why := self._begin(one, by)) is not None:
                refused[number] = why
        return refused

    def _begin(self, order: OpenPath | ClosePath, by: int) -> Refused | None:
        """Note that it is under way, unless it is refused; why, then."""
        key = space_of(order.vg), order.uuid
        path = self._paths.get(key)
        if isinstance(order, OpenPath):
            needs = Mode.PR if order.shared else EX if order.hold is NO_HOLD else order.hold.least
            if not self._may_open(key, order.token, needs):
                return _lock_changed(order)
            if path is None:
                self._paths[key] = _Path(needs, 1, 0, (by,))
                return None
            if path.closing:
                return _busy(order, "closed")
            path.needs = max(path.needs, needs)
            path.opening += 1
            if by not in path.openers:
                path.openers = (*path.openers, by)
            return None
        if path is None:
            path = self._paths[key] = _Path()
        elif order.own and any(one != by for one in path.openers):
            path.openers = tuple(one for one in path.openers if one != by)  # the last of them may close it
            return Refused(f"{order.vg}/{order.lv} was opened here by another command, too", retry=True)
        elif path.opening:
            return _busy(order, "opened")
        path.closing += 1
        return None

    def _may_open(self, key: tuple[str, str], token: Token, needs: Mode) -> bool:
        use = self._locker.find(*key)
        held = use.held if use is not None and use.done is None else None
        return held is not None and held.token == token and held.mode >= needs

    def is_closed(self, order: ClosePath) -> bool:
        """Whether a command that takes back its own opening has come to none, nor has any other."""
        return order.own and (space_of(order.vg), order.uuid) not in self._paths

    def done(self, order: object, answer: object, *, failed: bool) -> None:
        """What became of an order; answer: of many, that of each."""
        match order:
            case PathsTogether() if failed:
                for one in order.orders:
                    self._ends(one, failed=True)
            case PathsTogether():
                assert isinstance(answer, tuple)
                for one, its in zip(order.orders, answer, strict=True):
                    self._ends(one, failed=isinstance(its, Exception))
            case OpenPath() | ClosePath():
                self._ends(order, failed=failed)
            case ReloadPath(hold=Hold() as hold) if not failed:
                path = self._paths.get((space_of(order.vg), order.uuid))
                if path is not None:
                    path.needs = hold.least

    def _ends(self, order: OpenPath | ClosePath, *, failed: bool) -> None:
        key = space_of(order.vg), order.uuid
        path = self._paths.get(key)
        if path is None:
            return
        if isinstance(order, OpenPath):
            if path.opening:
                path.opening -= 1
        else:
            if path.closing:
                path.closing -= 1
            if not failed:
                path.needs, path.openers = UN, ()
        if path.needs is UN and not path.opening and not path.closing:
            del self._paths[key]

    # -- locks -----------------------------------------------------------------------------

    def check_lock(self, order: Release | Convert) -> None:
        """Raises Refused: a path is open under the lock, or may be, that needs what it would give up."""
        use = self._locker.use(order.lock)
        path = self._paths.get((use.lockspace, use.resource)) if use is not None else None
        if path is None or use is None or not self._locker.is_persistent(use.lock):
            return
        left = order.mode if isinstance(order, Convert) else UN
        if left < path.needs:
            raise Refused(
                f"{use.what} is being opened here by another command", next="try again", retry=True
            )


def _lock_changed(order: OpenPath | ReloadPath) -> Refused:
    words = f"Logical volume {order.vg}/{order.lv} was not opened: another command here has changed its lock"
    return Refused(f"{words} meanwhile", next="try again", retry=True)


def _busy(order: OpenPath | ClosePath, what: str) -> Refused:
    words = f"Logical volume {order.vg}/{order.lv} is just being {what} here by another command"
    return Refused(words, next="try again", retry=True)
