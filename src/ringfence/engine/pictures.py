"""This node's answers to searches for deadlocks: who waits here, and what the same owners hold.

Only what can be part of a ring is told: wishes that wait (who merely tries is answered without delay), and
what their owners hold for which anybody waits; an owner with a name may wait on another node.  A node
with very many locks looks through them in slices, so that no step is held up.  The picture is then of
no single moment, which it need not be: see `locks.deadlock`."""

import itertools
from collections.abc import Iterator

import msgspec

from ringfence.core.ids import Life
from ringfence.core.modes import UN
from ringfence.engine.context import Context
from ringfence.engine.locker import Locker
from ringfence.engine.uses import Use
from ringfence.locks.deadlock import served_before
from ringfence.wire.entries import ClientLock, Waits

WAITS_TOLD = 500
"""The oldest.  What is left out may hide a ring, and makes up none; a ring's waits grow old."""
LOCKS_TOLD = 2 * WAITS_TOLD
SLICE = 5_000
"""So many locks are looked at in a step."""
ROW = 25
"""To tell of one costs as much as to look at so many."""

_NONE: tuple[int, ...] = ()


class _Answer(msgspec.Struct):
    by: Life
    number: int
    rest: Iterator[ClientLock | None]
    told: list[ClientLock] = []


class Pictures:
    def __init__(self, context: Context, locker: Locker) -> None:
        self._context = context
        self._locker = locker
        self._operations = itertools.count(1)
        self._answers: list[_Answer] = []

    def ask(self, by: Life, number: int) -> None:
        """A search was applied: answer it, beginning with this step's `go_on`."""
        self._answers.append(_Answer(by, number, self._rows()))

    def go_on(self) -> None:
        """One slice of each; what is complete is sent.  Once a step, and the rest in the next."""
        if self._context.running is None:
            self._answers = []  # the searches have ended with their view
        for answer in list(self._answers):
            work = 0
            for row in answer.rest:
                work += 1 if row is None else ROW
                if row is not None:
                    answer.told.append(row)
                if work >= SLICE:
                    break
            else:
                self._answers.remove(answer)
                self._context.submit(Waits(answer.by, answer.number, tuple(answer.told[:LOCKS_TOLD])))
        self._context.more = self._context.more or bool(self._answers)

    def _rows(self) -> Iterator[ClientLock | None]:
        """Lock by lock, what is told of it: nothing, most often."""
        locker = self._locker
        waiting = [use for use in locker.waiting() if not use.trying and use.owner is not None][:WAITS_TOLD]
        owners = {use.owner.name for use in waiting if use.owner is not None}
        seen = {use.lock for use in waiting}  # both are only ever asked
        yield from map(self._row, waiting)
        for use in locker.uses():
            owner = use.owner
            held = owner is not None and (owner.named or owner.name in owners) and use.held is not None
            if held and use.lock not in seen and locker.node_locks.wanted_by_others(use.lock):
                yield self._row(use)
            else:
                yield None

    def _row(self, use: Use) -> ClientLock | None:
        context, locks, owner = self._context, self._locker.node_locks, use.owner
        lock, state = locks.find(use.lock), context.state
        if lock is None or owner is None or state is None:
            return None  # its end is on its way, or has come
        wanted = UN if use.trying else lock.wanted
        heads, behind, after = False, _NONE, _NONE
        if wanted is not UN:
            place = locks.place(use.lock)
            space = state.lockspaces.get(use.lockspace)
            resource = space.resources.get(use.resource) if space is not None else None
            heads, behind, after = place.heads, place.behind, served_before(resource, context.me, place)
        use.operation = use.operation or next(self._operations)
        return ClientLock(
            use.lockspace, use.resource, use.lock, use.operation, owner.name, owner.named, owner.who,
            lock.held, wanted, use.since_wall_ms, use.deadlock, heads, behind, after,
        )  # fmt: skip
