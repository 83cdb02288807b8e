"""Looking for clients of any nodes that wait for one another in a ring.

The ordered state knows nodes; which client waits on which other, each node alone can tell.  So a
search is an entry; every ready node answers, once it has applied it, with a picture of its own
waits; whoever searches joins them (`locks.deadlock`).  Where that shows a ring a second picture is
taken: only what stands in both is one, for the first is not of one instant.  (And somewhat later, for
a client may have been asked for a lock that it merely caches, and be about to give it back.)  All
answers come in the order of entries, so a search needs no time limit of its own: it ends with the view
it began in, and begins anew in the next.

Who asked for it (`seeking`) is refused with Deadlock if it is the newest in its ring of those who did.
Each node refuses its own clients only: the newest one's own node searches too.  A search costs an
entry, and an answer from each node, so none begins before somebody has waited for AFTER_MS, there is
one at a time a node, and who waits on is looked for ever more seldom."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ringfence.core.errors import Deadlock, RingfenceError, TimedOut
from ringfence.core.modes import UN
from ringfence.engine.context import Context
from ringfence.engine.facts import DeadlockSought, WaitsTold
from ringfence.engine.locker import Locker
from ringfence.engine.pictures import Pictures
from ringfence.locks.deadlock import Link, Ring, Seen, links, rings, unchanged, victim
from ringfence.wire import DEADLOCKS
from ringfence.wire.entries import ClientLock, SearchDeadlock

AFTER_MS = 1_000
"""How long a wait lasts before it is looked for a ring."""
PAUSE_MS = 16_000
"""At least as often it is looked again: somebody else may have closed a ring since."""
CONFIRM_MS = 300
"""How long after the first picture the second is taken."""
ANSWER_MS = 10_000
"""How long who asks for a report is kept waiting."""

Told = Callable[[list[Ring] | RingfenceError], None]


class _Search(msgspec.Struct):
    due_ns: int
    number: int = 0
    """0: not begun."""
    first: int = 0
    """The number of its first picture."""
    awaited: list[int] | None = None
    """Nodes that have yet to answer; None: the search itself is not applied yet."""
    picture: dict[int, tuple[ClientLock, ...]] = {}
    before: list[Link] | None = None
    """The links of the first picture; None: this is the first."""


class _Asked(msgspec.Struct):
    told: Told
    until_ns: int
    after: int
    """Only a later search than this answers: an earlier one may have looked before there was a ring."""


class _Seeker(msgspec.Struct):
    """A wait that is rather refused than left in a ring."""

    due_ns: int
    pause_ms: int = AFTER_MS


class Deadlocks:
    def __init__(self, context: Context, locker: Locker) -> None:
        self._context = context
        self._locker = locker
        self._last = 0
        self._pictures = Pictures(context, locker)
        self._search: _Search | None = None
        self._asked: list[_Asked] = []
        self._seekers: dict[int, _Seeker] = {}

    def ask(self, told: Told) -> None:
        """Search now, for a report; `told` is called once.

        Raises Refused while the cluster's protocol does not have it."""
        self._context.must_speak(DEADLOCKS, "looks for deadlocks")
        self._asked.append(_Asked(told, self._context.now_ns + ANSWER_MS * 1_000_000, self._last))

    def lost(self, error: RingfenceError) -> None:
        """This life is stale."""
        asked, self._asked, self._search = self._asked, [], None
        for one in asked:
            one.told(error)

    # -- the ordered state -------------------------------------------------------------

    def sought(self, fact: DeadlockSought) -> None:
        """Somebody searches: tell what this node knows, as it is now."""
        context, search = self._context, self._search
        state = context.running
        assert state is not None
        if search is not None and fact.by == context.life and fact.number == search.number:
            search.awaited = list(state.ready)
        self._pictures.ask(fact.by, fact.number)

    def answered(self, fact: WaitsTold) -> None:
        search = self._search
        if search is None or search.awaited is None or fact.by != self._context.life:
            return
        if fact.number == search.number and fact.node in search.awaited:
            search.awaited.remove(fact.node)
            search.picture[fact.node] = fact.locks

    # -- time ----------------------------------------------------------------------------

    def look(self) -> None:
        """Go on with a search, begin one that is due, answer who has waited too long."""
        context = self._context
        search, state = self._search, context.running
        self._pictures.go_on()
        if state is None:
            search = self._search = None  # the view ended: some may be other lives in the next
        elif search is not None and not search.number and search.due_ns <= context.now_ns:
            self._last += 1
            search.number, search.first = self._last, search.first or self._last
            context.submit(SearchDeadlock(search.number))
        elif search is not None and search.awaited is not None:
            search.awaited = [node for node in search.awaited if node in state.lives]
            if not search.awaited:
                self._conclude(search)
        self._expire()
        can = state is not None and state.protocol >= DEADLOCKS
        if self._search is None and can and (self._asked or self._due()):
            self._search = _Search(context.now_ns)
            self.look()

    def _due(self) -> bool:
        now_ns, seeking = self._context.now_ns, self._locker.seeking
        if not seeking and not self._seekers:
            return False
        for lock in [one for one in self._seekers if one not in seeking]:
            del self._seekers[lock]
        for lock in seeking:
            self._seekers.setdefault(lock, _Seeker(now_ns + AFTER_MS * 1_000_000))
        return any(one.due_ns <= now_ns for one in self._seekers.values())

    def _expire(self) -> None:
        if not self._asked:
            return
        late = [one for one in self._asked if one.until_ns <= self._context.now_ns]
        self._asked = [one for one in self._asked if one not in late]
        search = self._search
        names = [self._context.name(node) for node in (search.awaited or [])] if search else []
        what = f"{', '.join(names)} has not answered" if names else "the ring has not brought the search back"
        for one in late:
            one.told(TimedOut(f"deadlocks: {what}", next="ringfence why", retry=True))

    # -- a search ------------------------------------------------------------------------

    def _conclude(self, search: _Search) -> None:
        found = links(search.picture)
        if search.before is None:
            if rings(found):
                due_ns = self._context.now_ns + CONFIRM_MS * 1_000_000
                self._search = _Search(due_ns, first=search.first, before=found)
                return
            confirmed = []
        else:
            confirmed = rings(unchanged(search.before, found))
        self._search = None
        now_ns = self._context.now_ns
        for seeker in self._seekers.values():
            if seeker.due_ns <= now_ns:
                seeker.pause_ms = min(2 * seeker.pause_ms, PAUSE_MS)
                seeker.due_ns = now_ns + seeker.pause_ms * 1_000_000
        asked = [one for one in self._asked if one.after < search.first]
        self._asked = [one for one in self._asked if one not in asked]
        for one in asked:
            one.told(confirmed)
        for ring in confirmed:
            self._break(ring)

    def _break(self, ring: Ring) -> None:
        """Refuse the ring's victim, if it is this node's and waits on."""
        context, one = self._context, victim(ring)
        use = self._locker.use(one.lock.lock) if one is not None and one.node == context.me else None
        if one is None or use is None or not use.deadlock or use.operation != one.lock.operation:
            return
        words = "; ".join(said(context, ring))
        context.record("deadlock", f"{use.what} is refused to {one.lock.who}: {words}", node=context.me)
        error = Deadlock(
            f"{use.what}: to wait would be for ever: {words}",
            next="let go of what the others wait for, then begin again",
            retry=True,
        )
        self._locker.give_up(use.lock, error)


# -- words -------------------------------------------------------------------------------


def said(context: Context, ring: Ring) -> list[str]:
    """A line for each link."""
    return [_line(context, link) for link in ring]


def _line(context: Context, link: Link) -> str:
    waiter, blocker = link.waiter, link.blocker
    what = f"{waiter.lock.lockspace}/{waiter.lock.resource}"
    behind = f"which {_who(context, blocker)} holds {blocker.lock.held.name}"
    if blocker.lock.held is UN:
        behind = f"behind {_who(context, blocker)}, which waits for {blocker.lock.wanted.name}"
    return f"{_who(context, waiter)} waits for {waiter.lock.wanted.name} on {what}, {behind}"


def _who(context: Context, seen: Seen) -> str:
    name = f" ({seen.lock.owner})" if seen.lock.named else ""
    return f"{seen.lock.who or seen.lock.owner}{name} on {context.name(seen.node)}"


def report(context: Context, found: Sequence[Ring]) -> dict[str, Any]:
    """For `locks --deadlocks`."""
    return {
        "deadlocks": [
            {
                "lines": said(context, ring),
                "ring": [
                    {"waiter": _spot(context, link.waiter), "behind": _spot(context, link.blocker)}
                    for link in ring
                ],
            }
            for ring in found
        ]
    }


def _spot(context: Context, seen: Seen) -> dict[str, Any]:
    lock = seen.lock
    return {
        "node": seen.node,
        "name": context.name(seen.node),
        "lockspace": lock.lockspace,
        "resource": lock.resource,
        "lock": lock.lock,
        "owner": lock.owner,
        "who": lock.who,
        "mode": "" if lock.held is UN else lock.held.name,
        "wanted": "" if lock.wanted is UN else lock.wanted.name,
        "since_wall_ms": lock.since_ms,
    }
