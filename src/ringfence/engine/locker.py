"""This node's lock users: from a wish to one answer, with names, time limits and authority.

Users are the volume commands and the clients' own locks.  Each lock id is one use; every operation
on it ends in exactly one call of its `done`, with what is held now or with an error that says who
is in the way.  Between them and the ordered state stand `NodeLocks` (which may grant at once under
a kept cluster lock) and `Grants` (which holds a cluster grant back until it may be told).

A local grant, too, is told only under grant authority: a node that was frozen wakes with a kept
lock that may be somebody else's by now."""

import functools
from collections import deque
from collections.abc import Callable, Collection, Sequence
from heapq import heapify, heappop, heappush
from itertools import groupby, islice
from operator import itemgetter

import msgspec

from ringfence.core.errors import (
    BadInput,
    NotFound,
    Refused,
    RingfenceError,
    TimedOut,
)
from ringfence.core.locknames import VG_SPACE
from ringfence.core.modes import UN, Mode
from ringfence.engine.commands.locking import GLOBAL_RESOURCE, VG_RESOURCE
from ringfence.engine.context import Context
from ringfence.engine.denials import Denials, lost_error, no_orphan, not_waited_for, wrong_flags
from ringfence.engine.facts import LockFact, LockFacts
from ringfence.engine.grants import Grants
from ringfence.engine.lvm_notes import LvmNotes
from ringfence.engine.orders import Acquire, Held
from ringfence.engine.uses import Done, Owner, Use
from ringfence.locks.compat import covers
from ringfence.locks.flags import Flag, valid_unlock
from ringfence.locks.node_locks import (
    AskCluster,
    AskMany,
    ClientBlocking,
    ClientCancelled,
    ClientGranted,
    ClientLost,
    ClientRefused,
    ClientReleased,
    NodeLocks,
    Out,
)
from ringfence.locks.queues import BUSY, CONVERT, REQUEST, UNLOCK
from ringfence.locks.resource import Blocking, Lock
from ringfence.wire import entries
from ringfence.wire.lvmlockd import LvmLock
from ringfence.wire.ring import OpenLock

OnBlocking = Callable[[int, int, Mode, bool], None]
"""Called when a client's lock keeps somebody waiting: client, lock, for which mode, and whether it is a
try (see `Locker.busy`)."""

TRY_MS = 5_000
"""How long a try-lock may wait for the cluster's answer: it needs a round of the ring, no more."""
PLAIN_HEAP = 256
"""Time limits that are over and still in the heap are not worth a look while there are no more than these."""
NEWER_FLAGS = Flag.NOQUEUEBAST | Flag.ALTPR | Flag.ALTCW
"""What a node that speaks an older protocol would refuse (wire.WHOLE_DLM); without them a client is served
all the same: another node's clients miss a notice, and of PR and CW it waits for the one that it wants."""
USED_TOLD_MS = 100
USED_WAITS_MS = 5_000
"""That locks asked for ahead are in use is told when no more were taken for the one, or after the other at
the latest: not in the middle of a command that takes thousands.  Until then who tries for one has this node
asked, which costs time, but gives it to nobody."""
LET_GO_AT = 32
"""So many that are to be given back are worth a frame of their own."""
FREED = 16
"""How many table rows go for one lock that a step may handle."""
KEPT_RESOURCES = (GLOBAL_RESOURCE, VG_RESOURCE)


def is_kept(lockspace: str, resource: str) -> bool:
    """Whether the node keeps its cluster lock after the last user.  Locks of LVs are never kept."""
    return not lockspace.startswith(VG_SPACE) or resource in KEPT_RESOURCES


class _Ending(msgspec.Struct):
    """Locks that end little by little, whatever their users want."""

    lockspace: str
    locks: deque[int]
    taken: Callable[[Use], None] | None = None
    """None: orphans are purged, those that nobody has taken over meanwhile."""
    ended: Callable[[], None] | None = None


class Locker:
    def __init__(self, context: Context) -> None:
        self._context = context
        self.node_locks = NodeLocks()
        self.grants = Grants(context, self.node_locks)
        self._denials = Denials(context, self.node_locks)
        self.on_blocking: OnBlocking = _unheard
        """Called with a client, its lock and the mode that somebody wants."""
        self._uses: dict[int, Use] = {}
        self._in_flight: dict[int, Use] = {}
        """Those whose operation was not answered at once; some may have been since."""
        self.lvm_notes = LvmNotes(context)
        self._persistent: dict[int, Use] = {}
        self._persistent_at: dict[tuple[str, str], tuple[Use, ...]] = {}
        """The same by lockspace and resource."""
        self._limits: list[tuple[int, int]] = []
        """A heap of (deadline_ns, lock), with entries of operations that ended long ago."""
        self.leaving: list[str] = []
        """Lockspaces that this node is about to leave: nothing new is asked for there."""
        self._last = 0
        self._dropped: deque[int] = deque()
        """Locks whose users are gone, to be dropped little by little."""
        self._endings: deque[_Ending] = deque()
        self._outs: deque[Out] = deque()
        self._later: dict[tuple[str, str], None] = {}
        """What is to be given back, and need not be at once: (lockspace, resource)."""
        self._let_go_step = 0
        """From which step on there is enough of it; 0: there is not.  The one that brought the last of it has
        its answer to give first."""
        self._used: dict[tuple[str, str], None] = {}
        """Locks asked for ahead that a client has taken, of which the cluster has not been told."""
        self._used_since_ns = self._used_last_ns = 0
        self._working = False
        self.seeking: dict[int, None] = {}
        """Locks whose operation in flight is rather refused than left to wait in a ring."""
        self._untold: dict[int, list[ClientGranted | ClientBlocking]] = {}
        """Grants that NodeLocks has made and that may not be told yet, for want of authority; behind each
        the notices that its user must not hear before it."""

    # -- users ---------------------------------------------------------------------

    def acquire(
        self,
        lockspace: str,
        resource: str,
        mode: Mode,
        wait_ms: int | None,
        done: Done,
        *,
        what: str = "",
        flags: int = 0,
        persistent: bool = False,
        client: int = 0,
        cached: bool = False,
        owner: Owner | None = None,
        deadlock: bool = False,
        by_lvm2: bool = False,
        process: tuple[int, int] = (0, 0),
    ) -> int:
        """Ask for a lock.  Returns its id; `done` may have been called already.

        client: to whom blocking notices go (`on_blocking`).
        cached: its user may keep it unused, and answers notices at once: with a release or with `busy`.
        by_lvm2: stock LVM2 has it; with `persistent` that is an LV which LVM2 has active here.
        process: (pid, start) of LVM2's command: what is not persistent must not end before it, should this
        daemon be killed.
        With Flag.ORPHAN it takes over one that its client left behind on this node, and has its id.

        Raises BadInput for an impossible name."""
        self._last += 1
        use = Use(
            self._last, lockspace, resource, what, mode, done,
            since_wall_ms=self._context.wall_ms, client=client, owner=owner, by_lvm2=by_lvm2, process=process,
        )  # fmt: skip
        if self._refuse_now(use, wait_ms):
            return use.lock
        if self._dropped:
            self._drop_first(lockspace, resource)
        if flags & Flag.ORPHAN:
            self._adopt(use, flags)
            return use.lock
        self._uses[use.lock] = use
        if persistent:
            self._persist(use)
        use.trying, use.deadline_ns = self._limits_of(wait_ms)
        if deadlock:
            self._seek(use, True)
        try:
            self._ask(use, self._flags(flags, wait_ms), cached)
        except BadInput:
            self._forget(use.lock)
            raise
        if use.done is not None:
            self._watch(use)
        return use.lock

    def _ask(self, use: Use, flags: int, cached: bool = False) -> None:
        outs = self.node_locks.request(
            use.lock, use.lockspace, use.resource, use.wanted, flags=flags,
            keep=is_kept(use.lockspace, use.resource), cached=cached, now_ms=self._context.wall_ms,
        )  # fmt: skip
        self.take(outs)

    def take_kept(
        self, lockspace: str, resource: str, mode: Mode, client: int, owner: Owner
    ) -> Held | None:
        """`acquire` for a client, without flags, of what this node keeps and nobody has or wants.

        None: it is not so, and nothing was done; also for names that cannot be."""
        context = self._context
        if self._dropped or lockspace in self.leaving or not is_kept(lockspace, resource):
            return None
        if not context.may_report_in(lockspace):
            return None
        lock, wall_ms = self._last + 1, context.wall_ms
        out = self.node_locks.take_kept(lock, lockspace, resource, mode, wall_ms)
        if out is None:
            return None
        self._last = lock
        held = Held(lock, mode, out.token, out.lvb if out.lvb_valid else None)
        self._uses[lock] = Use(
            lock, lockspace, resource, "", mode, None, held=held, since_wall_ms=wall_ms, client=client,
            owner=owner,
        )  # fmt: skip
        return held

    def acquire_many(self, orders: Sequence[Acquire], dones: Sequence[Done], owner: Owner) -> list[int]:
        """`acquire` of persistent locks of LVs, of one lockspace, in one mode and with one wait.

        Those with which this node has nothing to do yet are asked for in one entry.

        Returns: their ids."""
        first, last = orders[0], self._last
        space, mode, wait_ms, wall_ms = first.lockspace, first.mode, first.wait_ms, self._context.wall_ms
        trying, deadline_ns = self._limits_of(wait_ms)
        uses = [
            Use(
                lock, space, order.resource, order.what, mode, done, deadline_ns,
                trying=trying, since_wall_ms=wall_ms, owner=owner,
            )
            for lock, (order, done) in enumerate(zip(orders, dones, strict=True), last + 1)
        ]  # fmt: skip
        self._last += len(uses)
        refused = space in self.leaving or (wait_ms == 0 and bool(self._denials.frozen(uses[0].lockspace)))
        flags = Flag.NOQUEUE if wait_ms == 0 else 0
        wishes: list[tuple[int, str]] = []
        for use in uses:
            if refused and self._refuse_now(use, wait_ms):
                continue
            self._uses[use.lock] = use
            self._persist(use)
            wishes.append((use.lock, use.resource))
        outs, others = self.node_locks.request_many(space, wishes, mode, flags, wall_ms)
        self.take(outs)
        for lock in others:
            use = self._uses[lock]
            try:
                self._ask(use, flags)
            except BadInput as error:
                self._ended(use, error)
        for use in uses:
            self._watch(use)
        return [use.lock for use in uses]

    def restore(self, one: OpenLock, held: Lock, what: str, lvm2: LvmLock | None = None) -> int:
        """What was held under an earlier life goes on in this one.  Returns its id.

        Args:
            held: the node's lock in the ordered state.
            lvm2: whose it is, if LVM2's; else it is an activation of ours."""
        assert held.token is not None
        self._last += 1
        use = Use(
            self._last, one.lockspace, one.resource, what, one.mode, None,
            held=Held(self._last, one.mode, held.token, None, by_lvm2=lvm2 is not None),
            since_wall_ms=held.since_ms, by_lvm2=lvm2 is not None,
        )  # fmt: skip
        self._uses[use.lock] = use
        if lvm2 is None or lvm2.persistent:
            self._persist(use)
        if lvm2 is not None:
            use.process = lvm2.pid, lvm2.started
            self.lvm_notes.restored(use.lock, lvm2)
        self.take(self.node_locks.restore(use.lock, one.lockspace, one.resource, one.mode, held))
        if held.flags & Flag.AHEAD:  # the earlier life did not live to tell (before `SHOWN_IS_USED`)
            self._context.submit(entries.LockBusy(one.lockspace, one.resource), unhurried=True)
        return use.lock

    def convert(
        self,
        lock: int,
        mode: Mode,
        wait_ms: int | None,
        done: Done,
        *,
        flags: int = 0,
        lvb: bytes | None = None,
        owner: Owner | None = None,
        deadlock: bool = False,
    ) -> None:
        """Change a lock's mode; on behalf of `owner`, if another than it was taken for."""
        use = self._uses.get(lock)
        if use is None:
            done(NotFound(f"lock {lock} is not held here", next="ringfence locks"))
            return
        if use.done is not None:
            done(Refused(f"{use.what}: another operation on this lock is in flight", retry=True))
            return
        use.done, use.wanted, use.since_wall_ms = done, mode, self._context.wall_ms
        use.owner, use.operation = owner or use.owner, 0
        if self._refuse_now(use, wait_ms):
            return
        use.trying, use.deadline_ns = self._limits_of(wait_ms)
        self._seek(use, deadlock)
        if use.by_lvm2:
            self.lvm_notes.lowers(lock, mode)
        flags = self._flags(flags, wait_ms)
        self.take(self.node_locks.convert(lock, mode, flags=flags, lvb=lvb, now_ms=self._context.wall_ms))
        self._watch(use)

    def release(
        self, lock: int, done: Done, *, flags: int = 0, lvb: bytes | None = None, later: bool = False
    ) -> None:
        """Let go of a lock.  What is in flight is in the way, but with Flag.FORCEUNLOCK ends first.

        With Flag.CANCEL only what is in flight is taken back; `done` gets what is held then, if anything.
        later: `done` is called before the cluster knows, which hears of many releases at a time; whoever asks
        for the lock here until then gets it without the cluster (`let_go`)."""
        use = self._uses.get(lock)
        if use is None:
            done(NotFound(f"lock {lock} is not held here", next="ringfence locks"))
            return
        if (flags or lvb is not None) and not valid_unlock(flags, lvb):
            done(wrong_flags(use))
            return
        waits = use.done is not None and use.wanted is not UN
        if flags & Flag.CANCEL and waits:
            self._give_up(use, not_waited_for(use))
            done(use.held)
            return
        if use.done is not None and not (flags & Flag.FORCEUNLOCK and waits):
            done(Refused(f"{use.what}: another operation on this lock is in flight", retry=True))
            return
        if use.done is not None:
            broken_off, use.done = use.done, None
            self._untold.pop(lock, None)
            broken_off(not_waited_for(use))
        self._lets_go(use, done)
        self.take(self.node_locks.unlock(lock, flags=flags, lvb=lvb, keep=later))
        if use.done is not None:
            self._watch(use)
        if later:
            self.give_back(use.lockspace, use.resource)

    def leave_kept(self, lock: int) -> bool:
        """`release`, without flags or value, of a client's lock that this node keeps after it, its only user.

        False: it is not so, and nothing was done."""
        use = self._uses.get(lock)
        if use is None or use.done is not None or lock in self._persistent:
            return False
        if not self.node_locks.leave_kept(lock):
            return False
        del self._uses[lock]  # what else there was about it has ended with its grant
        return True

    def _lets_go(self, use: Use, done: Done) -> None:
        use.done, use.wanted, use.deadline_ns = done, UN, None
        if self._persistent:
            self._not_persistent(use.lock)
        if use.by_lvm2:
            self.lvm_notes.ends(use.lock)

    def release_many(self, locks: Sequence[int], dones: Sequence[Done]) -> None:
        """`release` of each of these, without a value: of those that nobody else has here in one entry."""
        plain: list[Use] = []
        for lock, done in zip(locks, dones, strict=True):
            use = self._uses.get(lock)
            if use is None or use.done is not None:
                self.release(lock, done)  # which says what is wrong
                continue
            self._lets_go(use, done)
            plain.append(use)
        outs, others = self.node_locks.unlock_many([use.lock for use in plain])
        self.take(outs)
        for lock in others:
            self.take(self.node_locks.unlock(lock))
        for use in plain:
            self._watch(use)

    def ask_ahead(self, lockspace: str, resources: Sequence[str], mode: Mode) -> None:
        """Have the node hold locks that users may want soon: granted, they are kept like any cluster lock
        without users, until one takes them (`acquire`), another node asks for them, or `give_back`."""
        if lockspace not in self.leaving:
            self.take(self.node_locks.ask_ahead(lockspace, resources, mode))

    def take_ahead(
        self, lockspace: str, resource: str, mode: Mode, what: str, owner: Owner, process: tuple[int, int]
    ) -> bool:
        """`acquire` for LVM2 of a persistent lock that was asked for ahead, and is here: nobody waits.

        False: it is not so, and nothing was done."""
        context = self._context
        state = context.running
        if lockspace in self.leaving or not context.may_report_in(lockspace):
            return False
        if state is None or state.blocking(lockspace):
            return False
        lock, wall_ms = self._last + 1, context.wall_ms
        out = self.node_locks.take_ahead(lock, lockspace, resource, mode, wall_ms)
        if out is None:
            return False
        self._last = lock
        lvb = out.lvb if out.lvb_valid else None
        held = Held(lock, mode, out.token, lvb, by_lvm2=True)
        use = Use(
            lock, lockspace, resource, what, mode, None, held=held, since_wall_ms=wall_ms, owner=owner,
            by_lvm2=True, process=process,
        )  # fmt: skip
        self._uses[lock] = use
        self._persist(use)
        self.lvm_notes.granted(use, persistent=True)
        self._taken(lockspace, resource)
        return True

    def give_back(self, lockspace: str, resource: str) -> None:
        """Keep nothing of this resource that no user has; soon, or when `let_go` is called."""
        self._later[lockspace, resource] = None
        if len(self._later) == min(LET_GO_AT, self._context.at_once):
            self._let_go_step, self._context.more_locks = self._context.step + 1, True

    def let_go(self) -> None:
        """Give back all that is to be given back, in one frame."""
        if not self._later:
            self._let_go_step = 0
            return
        later, self._later, self._let_go_step = list(self._later), {}, 0
        for lockspace, together in groupby(later, key=itemgetter(0)):
            names = [resource for _, resource in together]
            for at in range(0, len(names), self._context.at_once):
                some = names[at : at + self._context.at_once]
                self.take(self.node_locks.give_back_many(lockspace, some))

    def busy(self, lock: int) -> None:
        """A cached lock is in use: who tries for it is refused."""
        self.take(self.node_locks.busy(lock))

    def give_up(self, lock: int, why: RingfenceError) -> None:
        """The user does not wait any longer; `done` gets `why`, unless its answer crosses this."""
        use = self._uses.get(lock)
        if use is None or use.done is None or use.wanted is UN:
            return
        self._give_up(use, why)

    def drop(self, locks: Collection[int]) -> None:
        """Their user is gone: no answer is given, and what they could write is no longer valid.

        What bears Flag.PERSISTENT stays, as an orphan.  A thousand of them are let go in several steps; what
        is in flight is forgotten at once."""
        for lock in [lock for lock in self._in_flight if lock in locks]:
            if self._in_flight[lock].done is not None:
                self._in_flight[lock].done = _nobody
        self._dropped.extend(locks)
        self._drop_some()

    def _drop_some(self) -> None:
        some = [self._dropped.popleft() for _ in range(min(len(self._dropped), self._context.at_once))]
        self._context.more = bool(self._dropped) or self._context.more
        self.take(self.node_locks.client_ended([lock for lock in some if self._forget(lock)]))

    def _drop_first(self, lockspace: str, resource: str) -> None:
        """Somebody asks for a lock whose holder may be gone already: what is over refuses no try."""
        here = [row.lock_id for row in self.node_locks.rows(lockspace, resource)]
        some = [lock for lock in here if lock is not None and lock in self._dropped and self._forget(lock)]
        if some:
            self.take(self.node_locks.client_ended(some))

    @property
    def dropping(self) -> bool:
        """Whether locks of clients that are gone are still to be let go of."""
        return bool(self._dropped)

    def purge_orphans(
        self, lockspace: str, resource: str = "", ended: Callable[[int], None] | None = None
    ) -> None:
        """Let go of what clients left behind, as if it had not been persistent; resource "": of all.

        A thousand take several steps; `ended` is called with how many there were when all are gone."""
        orphans = self.node_locks.orphans(lockspace, resource)
        told = functools.partial(ended, len(orphans)) if ended is not None else None
        self._endings.append(_Ending(lockspace, deque(orphans), ended=told))
        self._end_some()

    def take_away(self, lockspace: str, locks: list[int], taken: Callable[[Use], None]) -> None:
        """End these locks and the orphans of a lockspace under their users; what they could write is no
        longer valid.  A thousand take several steps (`ends`), in which nothing new may be asked for.

        Args:
            taken: called with each use as it ends; it answers what is in flight.

        Raises Refused, with nothing done, if anybody else has a lock there: a volume command could be
        writing under it."""
        uses = [use for use in self._uses.values() if use.lockspace == lockspace]
        may_end = {*locks, *self._dropped}
        others = [use.what for use in uses if use.lock not in may_end]
        if others:
            raise Refused(
                f"lockspace {lockspace}: {', '.join(sorted(set(others)))} is in use by volumes of this node",
                next="deactivate them (ringfence lvchange -an), then leave again",
            )
        ending = deque([*(use.lock for use in uses), *self.node_locks.orphans(lockspace)])
        self._endings.append(_Ending(lockspace, ending, taken))
        self._end_some()

    def ends(self, lockspace: str) -> bool:
        """Whether locks there are being purged or taken away."""
        return any(one.lockspace == lockspace for one in self._endings)

    def ending(self, lockspace: str) -> set[int]:
        """Which those are."""
        return {
            lock
            for one in self._endings
            for lock in one.locks
            if one.lockspace == lockspace and self._will_end(one, lock)
        }

    def _will_end(self, ending: _Ending, lock: int) -> bool:
        return ending.taken is not None or self.node_locks.is_orphan(lock)

    def _end_some(self) -> None:
        budget = self._context.at_once
        while self._endings and (budget > 0 or not self._endings[0].locks):
            one = self._endings[0]
            some = [one.locks.popleft() for _ in range(min(len(one.locks), budget))]
            budget -= len(some)
            some = [lock for lock in some if self._will_end(one, lock)]
            for lock in some:
                use = self._uses.get(lock)
                self._forget(lock)
                if use is not None and one.taken is not None:
                    one.taken(use)
            self.take(self.node_locks.drop(some))
            if not one.locks:
                self._endings.popleft()
                if one.ended is not None:
                    one.ended()
        self._context.more = bool(self._endings) or self._context.more

    def leave_behind(self, locks: list[int]) -> None:
        """A command ended without releasing these: they are released, whatever they wait for."""
        for lock in locks:
            use = self._uses.get(lock)
            if use is None:
                continue
            if use.done is not None:
                use.done = _nobody
                self.give_up(lock, Refused("its command ended"))
            if lock in self._uses and use.done is None:
                self.release(lock, _nobody)
            elif lock in self._uses:
                self.drop([lock])

    def find(self, lockspace: str, resource: str) -> Use | None:
        """This node's persistent lock on a resource, once it is held."""
        for use in self._persistent_at.get((lockspace, resource), ()):
            if use.held is not None:
                return use
        return None

    def persistent_on(self, lockspace: str, resource: str) -> tuple[Use, ...]:
        """Its persistent locks on a resource, held or asked for."""
        return self._persistent_at.get((lockspace, resource), ())

    def is_persistent(self, lock: int) -> bool:
        return lock in self._persistent

    def make_persistent(self, lock: int) -> None:
        """A transient lock that is held becomes an activation's."""
        use = self._uses[lock]
        assert use.held is not None
        assert lock not in self._persistent
        self._persist(use)
        if use.by_lvm2:
            self.lvm_notes.granted(use, persistent=True)

    def wanted(self, lock: int) -> bool:
        """Whether a lock is in somebody's way, here or elsewhere, or its lockspace is about to be left."""
        use = self._uses.get(lock)
        if use is None or use.lockspace in self.leaving:
            return True
        here = any(row.wanted is not UN for row in self._denials.others_here(use))
        return here or bool(self._denials.others_waiting(use))

    def use(self, lock: int) -> Use | None:
        return self._uses.get(lock)

    def uses(self) -> list[Use]:
        """Every lock that is held or asked for here, as of now."""
        return list(self._uses.values())

    def persistent(self) -> list[Use]:
        return list(self._persistent.values())

    def waiting(self) -> list[Use]:
        """Uses that wait for a grant, oldest first, for `why`."""
        return [use for use in self._uses.values() if use.done is not None and use.wanted is not UN]

    # -- the cluster -----------------------------------------------------------------

    def take_fact(self, fact: LockFact) -> None:
        if self._dropped and isinstance(fact.effect, Blocking):
            self._drop_first(fact.lockspace, fact.resource)
        outs = self.grants.take(fact)
        if outs:
            self.take(outs)

    def take_facts(self, fact: LockFacts) -> None:
        self.take(self.grants.take_many(fact))

    @property
    def has_to_look(self) -> bool:
        """Whether `look` would find anything to do, or to ask for once more."""
        grants, limits = self.grants, self._limits
        return bool(
            grants.held_back
            or grants.just_now
            or self._untold
            or self._used
            or self._let_go_step
            or self._dropped
            or self._endings
            or self._context.discarded
            or (limits and limits[0][0] <= self._context.now_ns)
        )

    def look(self) -> None:
        """Tell what may be told now; end what has waited too long."""
        grants = self.grants
        if (grants.held_back or grants.just_now) and (outs := grants.tell()):
            self.take(outs)
        if self._untold and self._context.may_report:
            told = [lock for lock in self._untold if self._may_report(lock)]
            self.take([out for lock in told for out in self._untold.pop(lock)])
        if self._used:
            self._tell_some()
        if 0 < self._let_go_step <= self._context.step:
            self.let_go()
        if self._dropped:
            self._drop_some()
        if self._endings:
            self._end_some()
        if self._context.discarded:
            self._free_some()
        while self._limits and self._limits[0][0] <= self._context.now_ns:
            deadline_ns, lock = heappop(self._limits)
            use = self._uses.get(lock)
            if use is not None and use.deadline_ns == deadline_ns:
                use.deadline_ns = None
                self._give_up(use, self._denials.too_late(use))

    def _may_report(self, lock: int) -> bool:
        use = self._uses.get(lock)
        return use is None or self._context.may_report_in(use.lockspace)

    def lost(self) -> None:
        """This life is stale: every use ends, with LocksLost for what is in flight."""
        self._untold = {}
        self.lvm_notes.lost()
        self.grants.clear()
        in_flight, self._in_flight = self._in_flight, {}
        self.take(self.node_locks.lost([use.lock for use in in_flight.values() if use.done is not None]))
        self._context.discarded += [self._uses, self._persistent_at, *self.node_locks.clear()]
        self._uses, self._persistent, self._limits, self.seeking = {}, {}, [], {}
        self._persistent_at = {}
        self._later, self._used = {}, {}
        self._dropped.clear()
        endings, self._endings = self._endings, deque()
        for one in endings:
            if one.ended is not None:
                one.ended()  # with this life, as everything else here

    def _taken(self, lockspace: str, resource: str) -> None:
        """A client has what was asked for ahead: to be told later."""
        self._used_last_ns = self._context.now_ns
        if not self._used:
            self._used_since_ns = self._used_last_ns
        self._used[lockspace, resource] = None

    def _tell_taken(self, ask: AskCluster) -> None:
        """Something else is about to be said of a lock: what comes before it, unless it says as much.

        Of a VG's: whoever has that next may ask the ordered state who uses its LVs (`commands.in_use`)."""
        where = (ask.lockspace, ask.resource)
        if ask.resource == VG_RESOURCE:
            for taken in [one for one in self._used if one[0] == ask.lockspace]:
                del self._used[taken]
                self._context.submit(entries.LockBusy(*taken))
        if where in self._used:
            del self._used[where]
            if ask.kind not in (UNLOCK, BUSY):
                self._context.submit(entries.LockBusy(*where))

    def _tell_some(self) -> None:
        now_ns = self._context.now_ns
        idle_ns, waits_ns = now_ns - self._used_last_ns, now_ns - self._used_since_ns
        if idle_ns < USED_TOLD_MS * 1_000_000 and waits_ns < USED_WAITS_MS * 1_000_000:
            return
        for where in list(islice(self._used, self._context.at_once)):
            del self._used[where]
            self._context.submit(entries.LockBusy(*where), unhurried=True)
        if self._used:
            self._context.more = True

    def _free_some(self) -> None:
        discarded = self._context.discarded
        for _ in range(self._context.at_once * FREED):
            while discarded and not discarded[-1]:
                discarded.pop()
            if not discarded:
                return
            discarded[-1].popitem()
        self._context.more = True

    def take(self, outs: list[Out]) -> None:
        """Carry out what NodeLocks wants sent and told, in order, also what that leads to."""
        self._outs.extend(outs)
        if self._working:
            return
        self._working = True
        try:
            while self._outs:
                self._one(self._outs.popleft())
        finally:
            self._working = False

    def _one(self, out: Out) -> None:
        if isinstance(out, ClientGranted):
            use = self._uses.get(out.lock_id)
            if use is not None:  # else it was dropped meanwhile
                self._granted(use, out)
            return
        if isinstance(out, AskCluster):
            if out.unhurried:
                self._taken(out.lockspace, out.resource)
                return
            if self._used:
                self._tell_taken(out)
            if out.flags & NEWER_FLAGS and not self._context.speaks_whole_dlm:
                out = msgspec.structs.replace(out, flags=out.flags & ~NEWER_FLAGS)
            self._context.submit(_entry(out))
            return
        if isinstance(out, AskMany):
            for resource in out.resources if self._used else ():
                self._used.pop((out.lockspace, resource), None)  # to give it back says as much
            self._context.submit_many(_entry_of_many(out))
            return
        use = self._uses.get(out.lock_id)
        if use is None:
            return  # dropped meanwhile
        if isinstance(out, ClientRefused):
            self._ended(use, self._denials.of(use, out))
        elif isinstance(out, ClientReleased):
            use.held = None
            self._ended(use, None)
        elif isinstance(out, ClientCancelled):
            if use.wanted is UN:
                return  # it was broken off by a release, and answered
            if use.held is not None and use.held.mode is not out.held:
                # While it waited its mode was given up (CONVDEADLK), and does not come back.
                use.held = msgspec.structs.replace(use.held, mode=out.held, lvb=None, demoted=True)
            self._ended(use, self._denials.too_late(use))
        elif isinstance(out, ClientLost):
            use.held = None
            self._ended(use, lost_error(use.what, self._context.name(self._context.me)))
        elif isinstance(out, ClientBlocking) and use.client:
            if use.lock in self._untold:
                self._untold[use.lock].append(out)
            else:
                self.on_blocking(use.client, use.lock, out.wants, out.tries)

    def _granted(self, use: Use, out: ClientGranted) -> None:
        if use.done is None:
            return  # of a conversion that was undone: its user knows what it holds
        if not (self._context.may_report_in(use.lockspace) or _gives_up(use, out.mode)):
            self._untold[out.lock_id] = [out]
            return
        lvb = out.lvb if out.lvb_valid else None
        use.held = Held(use.lock, out.mode, out.token, lvb, out.demoted, out.altmode, use.by_lvm2)
        use.since_wall_ms = self._context.wall_ms
        if use.by_lvm2:
            self.lvm_notes.granted(use, persistent=use.lock in self._persistent)
        self._ended(use, use.held)

    def _adopt(self, use: Use, flags: int) -> None:
        """The answer is at once: nobody else can have what an orphan holds."""
        if not self._context.may_report_in(use.lockspace):
            self._ended(use, self._denials.lapsed(use))
            return
        outs = self.node_locks.adopt(use.lockspace, use.resource, use.wanted, flags=flags)
        first = outs[0]
        if isinstance(first, ClientRefused):
            self._ended(use, no_orphan(use, first.errno))
            return
        assert isinstance(first, ClientGranted)
        use.lock = first.lock_id
        self._uses[use.lock] = use
        self.take(outs)

    def _ended(self, use: Use, result: Held | RingfenceError | None) -> None:
        done, use.done, use.deadline_ns, use.operation = use.done, None, None, 0
        if self._in_flight:
            self._in_flight.pop(use.lock, None)
        if use.deadlock:
            self._seek(use, False)
        if use.held is None:
            self._forget(use.lock)
        if done is not None:
            done(result)

    def _forget(self, lock: int) -> bool:
        """Returns whether there was such a use."""
        if self._persistent:
            self._not_persistent(lock)
        self._untold.pop(lock, None)
        self._in_flight.pop(lock, None)
        self.seeking.pop(lock, None)
        use = self._uses.pop(lock, None)
        if use is not None and use.by_lvm2 and use.wanted is not UN:  # else it was struck off before
            self.lvm_notes.ends(lock)
        return use is not None

    def _persist(self, use: Use) -> None:
        self._persistent[use.lock] = use
        where, alone = (use.lockspace, use.resource), (use,)
        there = self._persistent_at.setdefault(where, alone)
        if there is not alone:
            self._persistent_at[where] = (*there, use)

    def _not_persistent(self, lock: int) -> None:
        use = self._persistent.pop(lock, None)
        if use is not None:
            where = (use.lockspace, use.resource)
            others = tuple(one for one in self._persistent_at[where] if one is not use)
            if others:
                self._persistent_at[where] = others
            else:
                del self._persistent_at[where]

    # -- time and words ----------------------------------------------------------------

    def _flags(self, flags: int, wait_ms: int | None) -> int:
        """A flag TIMEOUT says what a time limit says better; without one it is refused as it always is."""
        if wait_ms:
            flags &= ~Flag.TIMEOUT
        return flags | Flag.VALBLK | (Flag.NOQUEUE if wait_ms == 0 else 0)

    def _limits_of(self, wait_ms: int | None) -> tuple[bool, int | None]:
        """Whether it is a try, and until when it waits."""
        limit_ms = TRY_MS if wait_ms == 0 else wait_ms
        return wait_ms == 0, None if limit_ms is None else self._context.now_ns + limit_ms * 1_000_000

    def _watch(self, use: Use) -> None:
        """Note what is still in flight, and its time limit."""
        if use.done is not None:
            self._in_flight[use.lock] = use
        if use.deadline_ns is None:
            return
        heappush(self._limits, (use.deadline_ns, use.lock))
        if len(self._limits) > PLAIN_HEAP + 2 * len(self._uses):
            self._limits = [one for one in self._limits if self._limit_of(one[1]) == one[0]]
            heapify(self._limits)

    def _limit_of(self, lock: int) -> int | None:
        use = self._uses.get(lock)
        return use.deadline_ns if use is not None else None

    def _seek(self, use: Use, deadlock: bool) -> None:
        use.deadlock = deadlock and not use.trying
        if use.deadlock:
            self.seeking[use.lock] = None
        elif self.seeking:
            self.seeking.pop(use.lock, None)

    def _refuse_now(self, use: Use, wait_ms: int | None) -> bool:
        """Nobody is kept waiting by a node that leaves, nor a try-lock for a cluster that cannot answer."""
        if use.lockspace in self.leaving and use.held is None:
            self._ended(use, self._denials.leaves(use))
            return True
        error = self._denials.now(use) if wait_ms == 0 else None
        if error is not None:
            self._ended(use, error)
        return error is not None

    def _give_up(self, use: Use, why: RingfenceError) -> None:
        """Cancel; the answer comes at once, or the operation's own answer is on its way."""
        if self._untold.pop(use.lock, None) is not None:
            # Granted here, but for want of authority never told: it goes back unused.
            done, use.done, use.deadline_ns = use.done, None, None
            self._in_flight.pop(use.lock, None)
            self._seek(use, False)
            if use.held is None:
                self._forget(use.lock)
                self.take(self.node_locks.drop([use.lock]))
            else:
                self._undo(use, use.held)
            if done is not None:
                done(why)
            return
        done = use.done

        def tell(result: Held | RingfenceError | None) -> None:
            if done is not None:
                done(why if isinstance(result, TimedOut) else result)

        use.done = tell
        self.take(self.node_locks.cancel(use.lock))

    def _undo(self, use: Use, held: Held) -> None:
        """Bring a conversion that was never told back to what its user believes in.

        Of PR and CW that could mean to wait for others: then to CR, which both cover."""
        lock = self.node_locks.find(use.lock)
        if lock is None or lock.held is held.mode:
            return
        back = held.mode if covers(lock.held, held.mode) else Mode.CR
        if back is not held.mode:
            use.held = msgspec.structs.replace(held, mode=back, lvb=None, demoted=True)
        self.take(self.node_locks.convert(use.lock, back))


def _gives_up(use: Use, mode: Mode) -> bool:
    """To tell of less than its user believes to hold needs no authority, and may not be put off: if that user
    stopped waiting it would go on believing in the old mode, and another node be granted what agrees with
    the new one."""
    return use.held is not None and use.held.mode is not mode and covers(use.held.mode, mode)


def _entry(ask: AskCluster) -> entries.Entry:
    """Its flags are known to every node."""
    where = (ask.lockspace, ask.resource)
    if ask.kind is REQUEST:
        return entries.LockRequest(*where, ask.mode, ask.flags, ask.lvb)
    if ask.kind is CONVERT:
        return entries.LockConvert(*where, ask.mode, ask.flags, ask.lvb)
    if ask.kind is UNLOCK:
        return entries.LockUnlock(*where, ask.flags, ask.lvb)
    if ask.kind is BUSY:
        return entries.LockBusy(*where)
    return entries.LockCancel(*where)


def _entry_of_many(ask: AskMany) -> entries.LockRequests | entries.LockUnlocks:
    """Its flags are known in every protocol."""
    if ask.kind is REQUEST:
        return entries.LockRequests(ask.lockspace, ask.resources, ask.mode, ask.flags)
    assert ask.kind is UNLOCK
    return entries.LockUnlocks(ask.lockspace, ask.resources)


def _unheard(client: int, lock: int, wants: Mode, tries: bool) -> None:
    """Nobody listens to blocking notices."""


def _nobody(result: Held | RingfenceError | None) -> None:
    """Nobody waits for this answer."""
