"""A host's block service: open LVs with their guests, which write whenever they are let.

As the real one it is older than any daemon: a path outlives the daemon that opened it, and holds,
goes on or fails by the authority page of the life that opened it.  A write is checked, is in flight
for a moment, lands, and is checked again."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ringfence.core.errors import DeviceFailed, NotFound, Refused
from ringfence.core.modes import Mode
from ringfence.engine import orders
from ringfence.sim.grips import Grip, Holder
from ringfence.sim.scheduler import Scheduler
from ringfence.wire.block import Extent, Hold, Moving

Done = Callable[[object], None]


@dataclass(eq=False)
class OpenLv:
    """An open path; its grip is what its guest believes."""

    order: orders.OpenPath
    grip: Grip
    in_flight: int = 0
    closing: bool = False
    moving: Moving | None = None
    to: tuple[Extent, ...] = ()
    """Where what is being moved goes."""

    @property
    def writes(self) -> bool:
        """Its guest believes that it alone has the LV, and its writes do not wait."""
        return not self.order.shared and not self.order.hold.waits


@dataclass(frozen=True)
class Landed:
    """A write of a guest reached the disk."""

    path: OpenLv
    late: bool
    """Its host froze on the way."""
    disk: str
    at_bytes: int


class BlockService:
    """Args:
    host: whose; asked for its pages, its freezes, and to be awake.
    landed: told of every write that reaches a disk.
    report: tells the daemon, if one runs, of a write that may have landed late."""

    def __init__(
        self,
        scheduler: Scheduler,
        host: Holder,
        landed: Callable[[Landed], None],
        report: Callable[[Grip], None],
    ) -> None:
        self._scheduler, self._host = scheduler, host
        self._landed, self._report = landed, report
        self.open: dict[tuple[str, str], OpenLv] = {}
        self.opened: Callable[[orders.OpenPath], None] = lambda order: None
        """Told what a path is made of, when it is opened or reloaded."""
        self.stuck = False
        """Its workers do not end when they are told to, and go on."""

    @property
    def grips(self) -> list[Grip]:
        return [path.grip for path in self.open.values()]

    def reap(self) -> None:
        """Every path is closed, without flush; what was in flight is over, one way or the other."""
        self.open = {}

    # -- orders --------------------------------------------------------------------

    def do(self, body: orders.BlockOrder, incarnation: int, done: Done) -> None:
        """`done` gets the answer, or the error."""
        match body:
            case orders.OpenPath():
                self._open(body, incarnation, done)
            case orders.ReloadPath():
                self._reload(body, done)
            case orders.ClosePath():
                self._close(body, done)
            case orders.MirrorPath() | orders.SealPath() | orders.UnmirrorPath():
                self._move(body, done)
            case orders.PathsTogether():
                self._together(body, incarnation, done)
            case orders.OpenPaths():
                done(tuple(self._looked_at(path) for path in self.open.values()))

    def _together(self, order: orders.PathsTogether, incarnation: int, done: Done) -> None:
        answers: dict[int, object] = {}

        def one_done(number: int, answer: object) -> None:
            answers[number] = answer
            if len(answers) == len(order.orders):
                done(tuple(answers[one] for one in range(len(answers))))

        for number, one in enumerate(order.orders):
            self.do(one, incarnation, functools.partial(one_done, number))

    def _open(self, order: orders.OpenPath, incarnation: int, done: Done) -> None:
        key = order.vg, order.lv
        if key in self.open:
            done(Refused(f"{order.vg}/{order.lv} is open already", next="close it first"))
            return
        mode = Mode.PR if order.shared else order.hold.least
        grip = Grip(self._host, incarnation, 0, 0, f"lvm_{order.vg}", order.uuid, mode, order.token)
        if self._host.lost(grip.incarnation, grip.page):
            done(Refused(f"{order.vg}/{order.lv} was not opened: all paths were dropped meanwhile"))
            return
        path = self.open[key] = OpenLv(order, grip)
        self._scheduler.note(f"{self._host.name} opens {order.vg}/{order.lv} {mode.name} {order.token}")
        self.opened(order)
        if path.writes:
            self._plan_write(path)
        listed = _listed(order)
        done(orders.Opened(listed.path, listed.uri))

    def _reload(self, order: orders.ReloadPath, done: Done) -> None:
        """What is in flight lands in the old place, and then the next one goes to the new one; or waits."""
        path = self.open.get((order.vg, order.lv))
        if path is None or path.order.uuid != order.uuid or path.closing:
            done(NotFound(f"{order.vg}/{order.lv} is not open here", next="activate it"))
            return
        if order.hold is None and path.order.token > order.token:
            done(NotFound(f"{order.vg}/{order.lv} is not open here", next="activate it"))
            return
        if path.in_flight:
            self._soon(lambda: self._reload(order, done), 1)
            return
        if path.moving is not None:
            if not path.moving.sealed:
                words = f"{order.vg}/{order.lv} is being moved"
                done(Refused(words, next="wait until that is over", retry=True))
                return
            path.moving, path.to = None, ()
        del self.open[order.vg, order.lv]
        waited = not path.writes
        hold = path.order.hold if order.hold is None else order.hold
        path.order = msgspec.structs.replace(
            path.order, lv=order.name, extents=order.extents, token=order.token, hold=hold
        )
        self.open[order.vg, order.name] = path
        self.opened(path.order)
        if order.hold is not None:
            path.grip.mode, path.grip.token = hold.least, order.token
            how = hold.value or "no more"
            self._scheduler.note(f"{self._host.name} holds {order.vg}/{order.name}: {how}")
        if waited and path.writes:
            self._plan_write(path)
        listed = _listed(path.order)
        done(orders.Opened(listed.path, listed.uri))

    def _move(
        self, order: orders.MirrorPath | orders.SealPath | orders.UnmirrorPath, done: Done
    ) -> None:
        """What is in flight lands before anything changes."""
        path = self.open.get((order.vg, order.lv))
        if path is None or path.order.uuid != order.uuid:
            done(NotFound(f"{order.vg}/{order.lv} is not open here", next="activate it"))
            return
        if path.in_flight:
            self._soon(lambda: self._move(order, done), 1)
            return
        if isinstance(order, orders.MirrorPath) and path.order.hold is not Hold.NONE:
            done(Refused(f"{order.vg}/{order.lv} is being handed over", next="wait until that is over"))
            return
        if isinstance(order, orders.MirrorPath) and path.moving is None:
            length_bytes = sum(one.length_bytes for one in order.to)
            path.moving, path.to = Moving(order.offset_bytes, length_bytes), order.to
        elif isinstance(order, orders.MirrorPath):
            done(Refused(f"{order.vg}/{order.lv} is being moved already", next="wait until that is over"))
            return
        elif isinstance(order, orders.UnmirrorPath):
            path.moving, path.to = None, ()
        elif path.moving is None or not path.moving.complete:
            done(Refused("the copy is not complete", next="wait for it", retry=True))
            return
        else:
            path.moving = msgspec.structs.replace(path.moving, sealed=True)
        done(path.moving)

    def _looked_at(self, path: OpenLv) -> orders.OpenVolume:
        """A copy goes on from one look to the next, while its host may write."""
        moving = path.moving
        if moving is not None and not moving.complete and path.grip.valid:
            half = (moving.length_bytes + 1) // 2
            copied = min(moving.copied_bytes + half, moving.length_bytes)
            complete = copied == moving.length_bytes
            path.moving = msgspec.structs.replace(moving, copied_bytes=copied, complete=complete)
        return msgspec.structs.replace(_listed(path.order), moving=path.moving)

    def _close(self, order: orders.ClosePath, done: Done) -> None:
        """Flush first: what is in flight lands before the answer."""
        key = self._named(order)
        path = self.open.get(key)
        if path is None:
            done(None)
            return
        if self.stuck:
            words = f"{key[0]}/{key[1]} is not closed yet: its worker does not end"
            done(DeviceFailed(words, next="ask again", retry=True))
            return
        path.closing = True
        if path.in_flight:
            self._soon(lambda: self._close(order, done), 5)
            return
        del self.open[key]
        done(None)

    def _named(self, order: orders.ClosePath) -> tuple[str, str]:
        """What the path that is meant is called by now."""
        if not order.uuid:
            return order.vg, order.lv
        return next(
            (key for key, path in self.open.items() if (key[0], path.order.uuid) == (order.vg, order.uuid)),
            ("", ""),
        )

    # -- a guest -------------------------------------------------------------------

    def _soon(self, what: Callable[[], None], typical_ms: float) -> None:
        delay_ms = self._scheduler.delay_ms(typical_ms, typical_ms * 10)
        self._scheduler.after(delay_ms, lambda: self._host.awake(what))

    def _is_open(self, path: OpenLv) -> bool:
        return self.open.get((path.order.vg, path.order.lv)) is path

    def _plan_write(self, path: OpenLv) -> None:
        self._soon(lambda: self._write(path), 60)

    def _write(self, path: OpenLv) -> None:
        if not self._is_open(path) or path.closing or not path.writes:
            return
        if not path.grip.valid:  # held, or failed; the guest tries again
            self._plan_write(path)
            return
        path.in_flight += 1
        freezes = self._host.freezes

        def land() -> None:
            if not self._is_open(path):
                return
            path.in_flight -= 1
            extent = self._scheduler.rng.choice(path.order.extents)
            late = self._host.freezes != freezes
            self._landed(Landed(path, late, extent.path, extent.start_bytes))
            if path.moving is not None and path.moving.copied_bytes:  # in both places
                extent = self._scheduler.rng.choice(path.to)
                self._landed(Landed(path, late, extent.path, extent.start_bytes))
            if not path.grip.valid:
                self._report(path.grip)
            self._plan_write(path)

        self._soon(land, 0.5)


def _listed(order: orders.OpenPath) -> orders.OpenVolume:
    path = f"/run/ringfence/dev/{order.vg}/{order.lv}"
    uri = f"nbd+unix:///{order.lv}?socket={path}"
    return orders.OpenVolume(
        order.vg, order.lv, order.uuid, path, uri, extents=order.extents, hold=order.hold
    )
