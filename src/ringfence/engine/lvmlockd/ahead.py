"""Locks of LVs asked for ahead of a stock command that wants all of them, one after the other.

`vgchange -aey` asks for the lock of each LV when it has the last one's, on one connection: a round of the
ring for each.  Once a connection has asked for a few in a row this node asks for the next ones, many in one
frame, and *keeps* them (`NodeLocks.ask_ahead`): the connection's own request then finds its lock here.  What
comes next is read from the VG's text, whose order is stock LVM2's; for a vgchange as soon as it has the VG's
lock, while it reads that text itself.

What was asked for ahead is nobody's: it is shown as no activation, a daemon's successor does not take it
over, and whoever else wants it gets it, also who only tries.  What its command did not take is given back:
what it passed over when it has, the rest when it lets go of its VG, ends, or asks for nothing for a while.

That none of it is worth a promise is what makes it safe: a wrong guess costs a message."""

import functools
from typing import Any

import msgspec

from ringfence.core.errors import RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.disks import lv_order
from ringfence.engine.commands.locking import space_of
from ringfence.engine.context import Context
from ringfence.engine.locker import Locker
from ringfence.engine.tasks import Tasks
from ringfence.wire import AHEAD

AFTER = 3
"""So many requests in a row, and the next ones are asked for."""
FIRST, MOST = 32, 256
"""How many are asked for before they are wanted: it doubles from the one to the other."""
BITE = 32
"""So many of them at a time: what is asked for and granted ahead keeps the next request waiting, and the more
it is the longer, while the command works on the last answer."""
ORDER_MS = 1_000
"""An order that was read is good for so long, to whoever else asks: it is but a guess."""
UNUSED_MS = 1_000
"""A connection that asks for nothing for so long has its locks given back, until it asks again."""


class _Run(msgspec.Struct):
    """Requests of one connection in a row."""

    vg: str
    mode: Mode
    """EX or PR; UN: it has not asked for any yet."""
    last: str = ""
    count: int = 0
    asked_ns: int = 0
    """When the last of them came."""
    reads: bool = False
    order: list[str] = []
    """The VG's LVs; empty until it was read."""
    places: dict[str, int] = {}
    at: int = 0
    """The place in `order` after that of the last request."""
    until: int = 0
    """What stands before this place was asked for ahead, or passed over."""
    window: int = FIRST
    ask_step: int = 0
    """In which step to ask for more; 0: none is due."""

    @property
    def bite(self) -> int:
        return min(BITE, self.window // 2)


class _Order(msgspec.Struct, frozen=True):
    """That of a VG's LVs, as read for all connections that want it within a while."""

    until_ns: int = 0
    """0: it is being read."""
    uuids: list[str] = []
    places: dict[str, int] = {}


class Ahead:
    def __init__(self, context: Context, locker: Locker, tasks: Tasks) -> None:
        self._context = context
        self._locker = locker
        self._tasks = tasks
        self._runs: dict[int, _Run] = {}
        self._orders: dict[str, _Order] = {}
        """By VG."""

    def expect(self, client: int, vg: str) -> None:
        """A connection has the VG's lock, and may soon ask for one LV after the other."""
        if client not in self._runs:
            self._runs[client] = run = _Run(vg, Mode.UN)
            self._start_reading(run)

    def asked(self, client: int, vg: str, uuid: str, mode: Mode, *, here: bool = False) -> None:
        """A connection asks for an LV's lock, for an activation: look ahead.

        Args:
            client: the connection.
            mode: EX or PR.
            here: the node has it, and the connection gets its answer now."""
        run = self._runs.get(client)
        if run is not None and run.vg == vg and run.mode is Mode.UN:
            run.mode = mode
        elif run is None or (run.vg, run.mode) != (vg, mode):
            self.over(client)
            run = self._runs[client] = _Run(vg, mode)
        run.asked_ns = self._context.now_ns
        if uuid == run.last:
            return  # it takes one over and over, not one after the other
        run.count += 1
        run.last = uuid
        if run.count >= AFTER and not run.reads:
            self._start_reading(run)
        place = run.places.get(uuid)
        if place is None or run.count < AFTER:
            return
        if not run.at <= place <= run.until:
            self._give_back(run)
            run.at = run.until = place
        if run.at < place:
            self._give_back(run, place)
        run.at, run.until = place + 1, max(run.until, place + 1)
        if run.ask_step or run.until - run.at > run.window - run.bite or run.until >= len(run.order):
            return
        if here:
            # Its answer first: the command works on that meanwhile.
            run.ask_step, self._context.more_locks = self._context.step + 1, True
        else:
            self._ask(run)

    def over(self, client: int) -> None:
        """The connection lets go of its VG, or has ended."""
        run = self._runs.pop(client, None)
        if run is not None:
            self._give_back(run)

    def look(self) -> None:
        """Give back what a connection does not come for."""
        if not (self._runs or self._orders):
            return
        idle_ns = self._context.now_ns - UNUSED_MS * 1_000_000
        for run in self._runs.values():
            if run.asked_ns <= idle_ns and run.at < run.until:
                self._give_back(run)
            elif 0 < run.ask_step <= self._context.step:
                self._ask(run)
        now_ns = self._context.now_ns
        for vg in [vg for vg, order in self._orders.items() if 0 < order.until_ns <= now_ns]:
            del self._orders[vg]

    def lost(self) -> None:
        """This life is stale, and so are its guesses."""
        self._runs, self._orders = {}, {}

    def _start_reading(self, run: _Run) -> None:
        """Once for all that want it: a command may take and leave a VG's lock as often as it likes."""
        run.reads = True
        order = self._orders.get(run.vg)
        if order is None:
            self._orders[run.vg] = _Order()
            self._tasks.start(
                f"order of VG {run.vg}", lv_order(run.vg), functools.partial(self._read, run.vg)
            )
        else:
            run.order, run.places = order.uuids, order.places

    def _read(self, vg: str, uuids: Any, error: RingfenceError | None) -> None:
        """Without an order (its disks cannot be read now) each lock is asked for when it is wanted."""
        found = [] if error is not None else uuids
        places = {uuid: place for place, uuid in enumerate(found)}
        self._orders[vg] = _Order(self._context.now_ns + ORDER_MS * 1_000_000, found, places)
        for run in self._runs.values():
            if run.vg == vg and run.reads and not run.order:  # its places are those of what it has
                run.order, run.places = found, places

    def _may_ask(self, vg: str) -> bool:
        context, space = self._context, space_of(vg)
        state = context.running
        return (
            state is not None
            and state.protocol >= AHEAD
            and context.may_report_in(space)
            and not state.blocking(space)
        )

    def _ask(self, run: _Run) -> None:
        run.ask_step = 0
        if not self._may_ask(run.vg):
            return
        end = min(run.at + run.window, run.until + BITE, len(run.order))
        space = space_of(run.vg)
        self._locker.ask_ahead(space, run.order[run.until : end], run.mode)
        run.until = max(run.until, end)
        run.window = min(2 * run.window, MOST)

    def _give_back(self, run: _Run, until: int | None = None) -> None:
        """What was asked for and not taken: all of it, or what stands before a place."""
        end = run.until if until is None else until
        for uuid in run.order[run.at : end]:
            self._locker.give_back(space_of(run.vg), uuid)
        if until is None:
            run.at, run.window, run.ask_step = run.until, FIRST, 0
