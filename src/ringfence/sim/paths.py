"""A host's block service: open LVs with their guests, which write whenever they are let.

As the real one it is older than any daemon: a path outlives the daemon that opened it, and holds,
goes on or fails by the authority page of the life that opened it.  A write is checked, is in flight
for a moment, lands, and is checked again.  Orders wait for their turn (`turns`), and are carried out and
answered late where it is slow."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ringfence.core.errors import DeviceFailed, NotFound, Refused, RingfenceError, Unavailable
from ringfence.core.modes import Mode
from ringfence.engine import orders
from ringfence.lvm2.label import SECTOR_BYTES
from ringfence.sim.disk import Disks
from ringfence.sim.grips import Grip, Holder
from ringfence.sim.mirrored import Mirrored, pieces
from ringfence.sim.scheduler import Scheduler
from ringfence.sim.storage import Trouble
from ringfence.sim.turns import Asked, Done, Giver, Turns
from ringfence.wire.block import Hold

UNIT_BYTES = 16 << 10
"""A guest writes at the beginning of one of these: an extent is no smaller."""
PATIENCE_MS = 4000
"""A daemon that has no answer for so long knows nothing of its order (`block.control`)."""


@dataclass(eq=False)
class OpenLv:
    """An open path; its grip is what its guest believes."""

    order: orders.OpenPath
    grip: Grip
    in_flight: int = 0
    closing: bool = False
    mirror: Mirrored | None = None
    """A stretch of it is being moved."""

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
    copied: bool = False
    """It is no guest's: what is there is copied to where it moves."""


class BlockService:
    """Args:
    host: whose; asked for its pages, its freezes, and to be awake.
    landed: told of every write that reaches a disk.
    disks: what guests write to.
    report: tells the daemon, if one runs, of a write that may have landed late."""

    def __init__(
        self,
        scheduler: Scheduler,
        host: Holder,
        landed: Callable[[Landed], None],
        report: Callable[[Grip], None],
        disks: Disks,
    ) -> None:
        self._scheduler, self._host, self._disks = scheduler, host, disks
        self._landed, self._report = landed, report
        self.signs = False
        """Somebody looks at what guests write, and where."""
        self.drawn: Callable[[orders.OpenPath, int], bytes] = lambda order, offset: b""
        """What a guest writes at a byte of its LV."""
        self.acknowledged: Callable[[orders.OpenPath, int, bytes], None] = lambda order, offset, data: None
        """Told what a guest was told that it has written; empty: it was told of an error."""
        self.open: dict[tuple[str, str], OpenLv] = {}
        self.opened: Callable[[orders.OpenPath], None] = lambda order: None
        """Told what a path is made of, when it is opened or reloaded."""
        self.stuck = False
        """Its workers do not end when they are told to, and go on."""
        self.fails: Callable[[Trouble, str], bool] = lambda trouble, disk: False
        """Whether this host's way to a disk has that trouble now."""
        self.late_ms = 0
        """Each order is carried out, and then answered, up to so late."""
        self.ordered: Callable[[orders.BlockOrder, str], None] = lambda order, when: None
        """Told what an order is at: given, or done and not answered."""
        self._turns = Turns(self._begin)

    @property
    def grips(self) -> list[Grip]:
        return [path.grip for path in self.open.values()]

    @property
    def drops(self) -> int:
        """How often all paths were dropped."""
        return self._turns.drops

    def drop(self) -> None:
        """What was ordered before this, and has not begun, is refused."""
        self._turns.drops += 1

    def reap(self) -> None:
        """Every path is closed, without flush; what was in flight is over, one way or the other."""
        self.open = {}

    def lose_power(self) -> None:
        self._turns.stop()
        self.reap()

    def take_over(self, daemon: int) -> bool:
        """Nothing is begun for earlier daemons any more.  False: not all that they have begun is over."""
        self._turns.floor = daemon
        return not self._turns.reloads

    # -- orders --------------------------------------------------------------------

    def do(self, body: orders.BlockOrder, giver: Giver, done: Done) -> None:
        """`done` gets the answer, or the error; it may be that of who waited in vain."""
        if isinstance(body, orders.PathsTogether):
            self._together(body, giver, done)
            return
        if self.late_ms:
            done = self._patient(done)
        asked = Asked(body, giver, done)
        self._turns.add(asked)
        self.ordered(body, "given")
        self._late(lambda: self._turns.due(asked))

    def _late(self, what: Callable[[], None]) -> None:
        if not self.late_ms:
            self._host.awake(what)
            return
        delay_ms = self._scheduler.between(0, self.late_ms)
        self._scheduler.after(delay_ms, lambda: self._host.awake(what))

    def _patient(self, done: Done) -> Done:
        """Whoever gives up waiting hears nothing of what becomes of it."""
        waits = [True]

        def answer(answer: object) -> None:
            if waits:
                waits.clear()
                done(answer)

        words = "the block service has not answered"
        give_up = Unavailable(words, next="look whether it is stopped", retry=True)
        self._scheduler.after(PATIENCE_MS, lambda: self._host.awake(lambda: answer(give_up)))
        return answer

    def _begin(self, asked: Asked) -> None:
        """In its turn, which may have come late."""

        def done(answer: object) -> None:
            self.ordered(asked.body, "done")
            self._late(lambda: asked.done(answer))
            self._turns.ended(asked)

        try:
            self._turns.check_still(asked.giver)
        except RingfenceError as error:
            done(error)
            return
        match asked.body:
            case orders.OpenPath() as body:
                self._open(body, asked.giver.incarnation, done)
            case orders.ReloadPath() as body:
                self._reload(body, done)
            case orders.ClosePath() as body:
                self._close(body, done)
            case orders.MirrorPath() | orders.SealPath() | orders.UnmirrorPath() as body:
                self._move(body, done)
            case orders.OpenPaths():
                done(tuple(self._looked_at(path) for path in self.open.values()))

    def _together(self, order: orders.PathsTogether, giver: Giver, done: Done) -> None:
        answers: dict[int, object] = {}

        def one_done(number: int, answer: object) -> None:
            answers[number] = answer
            if len(answers) == len(order.orders):
                done(tuple(answers[one] for one in range(len(answers))))

        for number, one in enumerate(order.orders):
            self.do(one, giver, functools.partial(one_done, number))

    def _open(self, order: orders.OpenPath, incarnation: int, done: Done) -> None:
        key = order.vg, order.lv
        if key in self.open:
            done(Refused(f"{order.vg}/{order.lv} is open already", next="close it first"))
            return
        mode = Mode.PR if order.shared else order.hold.least
        grip = Grip(self._host, incarnation, 0, 0, f"lvm_{order.vg}", order.uuid, mode, order.token)
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
        if path.mirror is not None:
            try:
                path.mirror.check_becomes(order.extents)
            except Refused as error:
                done(error)
                return
            path.mirror = None
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
        if isinstance(order, orders.MirrorPath) and path.mirror is None:
            copy = functools.partial(self._copy, path)
            path.mirror = Mirrored(path.order.extents, order, self._read, copy)
        elif isinstance(order, orders.MirrorPath):
            done(Refused(f"{order.vg}/{order.lv} is being moved already", next="wait until that is over"))
            return
        elif isinstance(order, orders.UnmirrorPath):
            path.mirror = None
        elif path.mirror is None:
            done(Refused("nothing of it is being moved", next="begin again", retry=True))
            return
        else:
            try:
                path.mirror.seal()
            except Refused as error:
                done(error)
                return
        done(path.mirror.moving if path.mirror is not None else None)

    def _read(self, path: str, offset: int, length: int) -> bytes:
        if self.fails(Trouble.READS_FAIL, path):
            raise DeviceFailed(f"cannot read {path}: I/O error")
        data = self._disks.disks[path].read(offset, length)
        assert data is not None, "beyond the end of a disk"
        return data

    def _copy(self, path: OpenLv, disk: str, offset: int, data: bytes) -> None:
        if self.fails(Trouble.WRITES_FAIL, disk):
            raise DeviceFailed(f"cannot write to {disk}: I/O error")
        self._landed(Landed(path, late=False, disk=disk, at_bytes=offset, copied=True))
        self._disks.disks[disk].write(offset, data)

    def _looked_at(self, path: OpenLv) -> orders.OpenVolume:
        """A copy goes on from one look to the next, while its host may write."""
        if path.mirror is None:
            return _listed(path.order)
        if path.grip.valid and self._scheduler.chance(0.4):
            path.mirror.go_on()
        return msgspec.structs.replace(_listed(path.order), moving=path.mirror.moving)

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
            self._lands(path, late=self._host.freezes != freezes)
            if not path.grip.valid:
                self._report(path.grip)
            self._plan_write(path)

        self._soon(land, 0.5)

    def _lands(self, path: OpenLv, *, late: bool) -> None:
        """In all places that it belongs to; then its guest is told."""
        extents, rng = path.order.extents, self._scheduler.rng
        extent = rng.choice(extents)
        offset = sum(one.length_bytes for one in extents[: extents.index(extent)])
        if self.signs:
            offset += rng.randrange(extent.length_bytes // UNIT_BYTES) * UNIT_BYTES
        data = self.drawn(path.order, offset)
        here = pieces(extents, offset, SECTOR_BYTES)
        beside = path.mirror.beside(offset) if path.mirror is not None else []
        if late and not path.grip.valid:
            data = b""  # it may land in what is another LV's by now: it is reported, and not to be prevented
        whole = all(self._lands_at(path, late, place, data) for place in here)
        if path.mirror is not None and not whole:
            path.mirror.fail("a write to the old place has failed")
        elif path.mirror is not None and not all(
            self._lands_at(path, late, place, data) for place in beside
        ):
            path.mirror.fail("the new place failed")
            whole = not path.mirror.moving.sealed
        self.acknowledged(path.order, offset, data if whole else b"")

    def _lands_at(self, path: OpenLv, late: bool, place: tuple[str, int, int], data: bytes) -> bool:
        """False: an error; it may be there all the same."""
        disk, at_bytes, _ = place
        failed = self.fails(Trouble.WRITES_FAIL, disk)
        if failed and self._scheduler.chance(0.5):
            return False
        self._landed(Landed(path, late, disk, at_bytes))
        if data:
            self._disks.disks[disk].write(at_bytes, data)
        return not failed


def _listed(order: orders.OpenPath) -> orders.OpenVolume:
    path = f"/run/ringfence/dev/{order.vg}/{order.lv}"
    uri = f"nbd+unix:///{order.lv}?socket={path}"
    return orders.OpenVolume(
        order.vg, order.lv, order.uuid, path, uri, extents=order.extents, hold=order.hold
    )
