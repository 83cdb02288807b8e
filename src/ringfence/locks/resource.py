"""A DLM resource: a granted, a converting and a waiting queue, and the lock value block (LVB).

Pure and serialisable.  Each method takes one operation of one holder and returns, in order, what
the caller must tell whom.  A lock is in one queue: granted (holds a mode), converting (holds one,
wants another) or waiting (wants one).  Holders are numbers: nodes in the ordered state, clients'
lock ids inside a node.  A holder has at most one lock of a resource and one operation in flight.

What it promises: granted modes agree pairwise; whoever heads a queue is really blocked by somebody
who has been told; every operation has one completion (Granted, Refused, Released or Cancelled);
a refused operation changes nothing.  `check` asserts all of that.

Rules: Davis, "VAXcluster Principles", ch. 6, in the numbering and reading of Linux fs/dlm/lock.c
(`_can_be_granted`, `conversion_deadlock_detect`, `set_lvb_lock`, `modes_require_bast`)."""

import errno
from collections.abc import Collection

from ringfence.core.modes import UN, Mode
from ringfence.locks.compat import compatible, covers, supremum
from ringfence.locks.flags import (
    LVB_BYTES,
    Flag,
    alternative,
    valid_convert,
    valid_request,
    valid_unlock,
)
from ringfence.locks.queues import (
    EMPTY_LVB,
    Blocking,
    Cancelled,
    Effect,
    Granted,
    Lock,
    Queued,
    Queues,
    Refused,
    Released,
)

__all__ = [
    "EMPTY_LVB", "Blocking", "Cancelled", "Effect", "Granted", "Lock", "Queued", "Refused", "Released",
    "Resource", "check", "reads_lvb", "writes_lvb",
]  # fmt: skip


def reads_lvb(held: Mode, wanted: Mode) -> bool:
    """A new lock and a conversion upward (or to the same mode) read; see `writes_lvb` first."""
    return wanted >= held and not writes_lvb(held, wanted)


def writes_lvb(held: Mode, wanted: Mode) -> bool:
    """From PW or EX to the same mode or a lower one, or to nothing, the LVB is written.

    With `reads_lvb` this is lock.c's `dlm_lvb_operations` in one line; EX to EX writes, PW to EX reads."""
    return held >= Mode.PW and wanted <= held


class Resource(Queues):
    # -- operations --------------------------------------------------------------

    def request(
        self, owner: int, mode: Mode | None, flags: int = 0, lvb: bytes | None = None, now_ms: int = 0
    ) -> list[Effect]:
        """A new lock.  Its value block can only be read, so `lvb` is ignored."""
        present = self.find(owner)
        if present is not None:
            return [Refused(owner, errno.EINVAL if present.wanted is UN else errno.EBUSY)]
        if not valid_request(mode, flags, lvb):
            return [Refused(owner, errno.EINVAL)]
        assert mode is not None
        lock = Lock(owner, wanted=mode, flags=flags, since_ms=now_ms)
        granted = mode if self._grantable(lock, new=True) else self._alternative_now(lock, new=True)
        if granted is not UN:
            return [self._grant(lock, granted, now_ms), *self.advance(now_ms)]
        if flags & Flag.NOQUEUE and not self._may_wait(lock):
            return self._refuse(lock)
        self.waiting = self._enqueued(self.waiting, lock)
        return [self._queued(lock), *self._notices()]

    def request_alone(self, owner: int, mode: Mode, flags: int, now_ms: int) -> Granted:
        """`request` where there is no lock at all: it is granted as it is wanted."""
        lvb = self.lvb if flags & Flag.VALBLK and self.lvb_valid else None
        granted = Lock(owner, held=mode, flags=flags & Flag.AHEAD, since_ms=now_ms)
        self.granted, self.stirred = (granted,), False
        return Granted(owner, mode, lvb, self.lvb_valid)

    def convert(
        self, owner: int, mode: Mode | None, flags: int = 0, lvb: bytes | None = None, now_ms: int = 0
    ) -> list[Effect]:
        """Change the mode of a granted lock."""
        lock = self.find(owner)
        if lock is None:
            return [Refused(owner, errno.ENOENT)]
        if lock.wanted is not UN:
            return [Refused(owner, errno.EBUSY)]
        if not valid_convert(lock.held, mode, flags, lvb):
            return [Refused(owner, errno.EINVAL)]
        assert mode is not None
        lock.wanted, lock.flags = mode, flags
        granted = mode if self._grantable(lock, new=True) else UN
        rivals = self._deadlocks(lock) if granted is UN and not flags & Flag.NOQUEUE else []
        if granted is UN and not rivals:
            granted = self._alternative_now(lock, new=True)
        if granted is not UN:
            self._write_lvb(lock.held, granted, flags, lvb)
            return [self._grant(lock, granted, now_ms), *self.advance(now_ms)]
        refused: list[Effect] = []
        if rivals and not flags & Flag.CONVDEADLK:
            refused = [Refused(owner, errno.EDEADLK, tuple((one.owner, one.held) for one in rivals))]
        elif flags & Flag.NOQUEUE and not self._may_wait(lock):
            refused = self._refuse(lock)
        if refused:
            lock.wanted, lock.flags = UN, 0
            return refused
        if rivals:
            return self._demote(lock, now_ms)
        self.granted = _without(self.granted, lock)
        self.converting = self._enqueued(self.converting, lock)
        return [self._queued(lock), *self._notices()]

    def unlock(self, owner: int, flags: int = 0, lvb: bytes | None = None, now_ms: int = 0) -> list[Effect]:
        """Give up a granted lock; with FORCEUNLOCK also one that is queued, whose operation is cancelled.

        With CANCEL it is `cancel`, but to find nothing queued is an error (EBUSY, as lock.c has it)."""
        lock = self.find(owner)
        if lock is None:
            return [Refused(owner, errno.ENOENT)]
        if not valid_unlock(flags, lvb):
            return [Refused(owner, errno.EINVAL)]
        if flags & Flag.CANCEL:
            return self.cancel(owner, now_ms) or [Refused(owner, errno.EBUSY)]
        if lock.wanted is not UN and not flags & Flag.FORCEUNLOCK:
            return [Refused(owner, errno.EBUSY)]
        effects = self.withdraw(owner) if lock.wanted is not UN else []
        if lock.held is not UN:
            self._write_lvb(lock.held, UN, flags, lvb)
            self.granted = _without(self.granted, lock)
        if not (self.granted or self.converting or self.waiting):
            self.stirred = False
            return [*effects, Released(owner)]
        return [*effects, Released(owner), *self.advance(now_ms)]

    def hand_on(self, owner: int, now_ms: int) -> tuple[Lock, Granted] | None:
        """`unlock` of the only lock that is granted, which writes no value block, while one other
        waits: nothing is in its way then, and to grant it as it is wanted is all there is.

        Returns: that other's lock and its grant, which follows the `Released`.  None: it is not so, and
        nothing was done."""
        granted, waiting = self.granted, self.waiting
        if len(granted) != 1 or len(waiting) != 1 or self.converting or granted[0].owner != owner:
            return None
        heir = waiting[0]
        mode, reads = heir.wanted, heir.flags & Flag.VALBLK and self.lvb_valid
        heir.held, heir.wanted, heir.flags = mode, UN, heir.flags & Flag.AHEAD
        heir.notified = heir.tried = UN
        if heir.since_ms < now_ms:
            heir.since_ms = now_ms
        self.granted, self.waiting, self.stirred = waiting, (), False
        return heir, Granted(heir.owner, mode, self.lvb if reads else None, self.lvb_valid)

    def cancel(self, owner: int, now_ms: int = 0) -> list[Effect]:
        """Take back what is queued; a conversion's held mode is kept.

        Nothing happens if nothing is queued: the operation completed before the cancel arrived, and
        that completion is its only one."""
        taken = self.withdraw(owner)
        return [*taken, *self.advance(now_ms)] if taken else []

    def withdraw(self, owner: int) -> list[Effect]:
        """`cancel` without letting anybody else go on (a frozen lockspace grants nothing)."""
        lock = self.find(owner)
        if lock is None or lock.wanted is UN:
            return []
        if lock.held is UN:
            self.waiting = _without(self.waiting, lock)
        else:
            self.converting = _without(self.converting, lock)
            lock.wanted, lock.flags = UN, 0
            self.granted = (*self.granted, lock)
        self.stirred = True
        return [Cancelled(owner, lock.held)]

    def busy(self, owner: int, now_ms: int = 0) -> list[Effect]:
        """A holder needs what it holds, and has not only asked ahead: tries that it is in the way of are
        refused."""
        refused = self.refuse_tries(owner)
        return [*refused, *self.advance(now_ms)] if refused else []

    def refuse_tries(self, owner: int) -> list[Effect]:
        """`busy` without letting anybody else go on."""
        effects: list[Effect] = []
        mine = self.find(owner)
        if mine is not None:
            mine.flags &= ~Flag.AHEAD
        for lock in [one for one in (*self.converting, *self.waiting) if one.flags & Flag.TRY]:
            if any(holder.owner == owner for holder in self._conflicts(lock)):
                effects += self._refuse(lock)
                self.withdraw(lock.owner)
        return effects

    def purge(self, owners: Collection[int]) -> None:
        """Lost holders: their locks and requests vanish.  Nothing is granted until `advance`.

        A lost holder of PW or EX may have changed what the LVB describes, so it is no longer valid."""
        gone = [one for one in self.granted + self.converting + self.waiting if one.owner in owners]
        if not gone:
            return
        if any(one.held >= Mode.PW for one in gone):
            self.lvb_valid = False
        self.granted = tuple(one for one in self.granted if one.owner not in owners)
        self.converting = tuple(one for one in self.converting if one.owner not in owners)
        self.waiting = tuple(one for one in self.waiting if one.owner not in owners)
        self.stirred = True

    def advance(self, now_ms: int = 0) -> list[Effect]:
        """Grant what can be granted, conversions first, then ask those in the way to give way."""
        self.stirred = False
        effects = self._grant_conversions(now_ms) if self.converting else []
        for lock in self.waiting:
            mode = self._choice(lock, new=False)
            if mode is not UN:
                self.waiting = _without(self.waiting, lock)
                effects += self._grant_queued(lock, mode, now_ms)
        return effects + self._notices()

    def nudge(self, wants: Mode, asker: int | None = None) -> list[Effect]:
        """Tell those who hold what conflicts that somebody wanted this and was refused (NOQUEUEBAST).

        Not those who were told that somebody waits for as much."""
        return [
            Blocking(lock.owner, wants, once=True)
            for lock in (*self.granted, *self.converting)
            if lock.owner != asker and not compatible(lock.held, wants) and not covers(lock.notified, wants)
        ]

    # -- reading -------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        return not (self.granted or self.converting or self.waiting)

    def find(self, owner: int) -> Lock | None:
        for queue in (self.granted, self.converting, self.waiting):
            for lock in queue:
                if lock.owner == owner:
                    return lock
        return None

    def blockers(self, lock: Lock) -> list[Lock]:
        """Who really blocks this queued lock: held modes that conflict, then those queued ahead."""
        conflicts = self._conflicts(lock)
        return conflicts + [one for one in self.queued_ahead(lock) if one not in conflicts]

    def queued_ahead(self, lock: Lock) -> tuple[Lock, ...]:
        """Those that the order of the queues puts before this queued lock."""
        return () if lock.flags & Flag.NOORDER else self._ahead(lock)

    def holders_against(self, owner: int, mode: Mode) -> tuple[tuple[int, Mode], ...]:
        """Who else holds a mode that conflicts with this one."""
        return tuple((one.owner, one.held) for one in self._conflicts(Lock(owner, wanted=mode)))

    # -- rules -----------------------------------------------------------------------

    def _conflicts(self, lock: Lock) -> list[Lock]:
        """A converting lock still counts at the mode that it holds."""
        return [
            other
            for other in (*self.granted, *self.converting)
            if other.owner != lock.owner and not compatible(other.held, lock.wanted)
        ]

    def _ahead(self, lock: Lock) -> tuple[Lock, ...]:
        """Those that the order of the queues puts before a lock, or would if it were queued now."""
        queue = self.waiting if lock.held is UN else self.converting
        before = queue[: queue.index(lock) if lock in queue else self._place(queue, lock)]
        return self.converting + before if lock.held is UN else before

    def _grantable(self, lock: Lock, *, new: bool) -> bool:
        """The grant rule, in lock.c's order; `new`: asked just now, in no queue for it yet.

        The rule for conversions during recovery (lock.c: order is lost, grant) has no place here:
        recovery keeps the queues."""
        if lock.flags & Flag.EXPEDITE:
            return True  # 6-11; only new NL requests bear it
        if self._conflicts(lock):
            return False  # 6-3, 6-4
        if new and lock.held is not UN:
            # 6-5: in place, even past queued conversions; 6-7: unless QUECVT asks for order.
            return not lock.flags & Flag.QUECVT or not self._ahead(lock)
        if lock.flags & Flag.NOORDER:
            return True
        # 6-3: a queued conversion must head its queue.  6-4: a new request finds both queues empty;
        # a queued one finds no conversion and heads the wait queue.
        return not self._ahead(lock)

    def _choice(self, lock: Lock, *, new: bool) -> Mode:
        """The mode that can be granted now: the one wanted, else the alternative; UN: neither."""
        return lock.wanted if self._grantable(lock, new=new) else self._alternative_now(lock, new=new)

    def _alternative_now(self, lock: Lock, *, new: bool) -> Mode:
        """The alternative, if there is one that can be granted now."""
        instead = self.alternative(lock, new=new)
        if instead is UN or not self._settles(lock, new=new):
            return UN
        wanted, lock.wanted = lock.wanted, instead
        grantable = self._grantable(lock, new=new)
        lock.wanted = wanted
        return instead if grantable else UN

    def alternative(self, lock: Lock, *, new: bool = False) -> Mode:
        """What will do in place of the mode wanted, if anything.

        Nothing will, for who is queued and could write: to come down from PW or EX writes the value block,
        and the value that came with the conversion is not kept."""
        return alternative(lock.wanted, lock.flags) if new or lock.held < Mode.PW else UN

    def _settles(self, lock: Lock, *, new: bool) -> bool:
        """Whether the alternative comes into question, once the mode wanted could not be granted."""
        return True

    def _may_wait(self, lock: Lock) -> bool:
        """Whether a NOQUEUE request that cannot be granted may wait all the same: a try, if nobody does.

        What is only in the way of locks that were asked for ahead is one."""
        if self.converting or self.waiting or lock.flags & Flag.AHEAD:
            return False
        if all(one.flags & Flag.AHEAD for one in self._conflicts(lock)):
            lock.flags |= Flag.TRY
        return bool(lock.flags & Flag.TRY)

    def _refuse(self, lock: Lock) -> list[Effect]:
        refused = Refused(lock.owner, errno.EAGAIN, self._in_the_way(lock))
        told = self.nudge(lock.wanted, lock.owner) if lock.flags & Flag.NOQUEUEBAST else []
        return [refused, *told]

    def _deadlocks(self, lock: Lock) -> list[Lock]:
        """Queued conversions with which this new one would wait in a ring.

        They go in order, so a deadlock is a later one whose held mode blocks an earlier one's wish
        (lock.c compares every earlier converter's wish with the newcomer's held mode; with HEADQUE
        the newcomer is the earlier one).  NODLCKWT on the newcomer lets it queue all the same."""
        if lock.flags & (Flag.NODLCKWT | Flag.YIELDS):
            return []
        others = [one for one in self.converting if not one.flags & Flag.YIELDS]
        if lock.flags & Flag.HEADQUE:
            return [one for one in others if not compatible(one.held, lock.wanted)]
        return [one for one in others if not compatible(lock.held, one.wanted)]

    def _in_the_way(self, lock: Lock) -> tuple[tuple[int, Mode], ...]:
        return tuple((one.owner, one.held) for one in self.blockers(lock))

    # -- changes ---------------------------------------------------------------------

    def _grant(self, lock: Lock, mode: Mode, now_ms: int) -> Granted:
        """Give the lock this mode; it is in no queue but, in place, the granted one."""
        lvb = self.lvb if lock.flags & Flag.VALBLK and reads_lvb(lock.held, mode) and self.lvb_valid else None
        altmode = mode is not lock.wanted
        demoted = bool(lock.flags & Flag.DEMOTED)
        effect = Granted(lock.owner, mode, lvb, self.lvb_valid, demoted, altmode)
        lock.held, lock.wanted, lock.flags = mode, UN, lock.flags & Flag.AHEAD
        lock.notified = lock.tried = UN
        lock.since_ms = max(lock.since_ms, now_ms)
        if lock not in self.granted:
            self.granted = (*self.granted, lock)
        return effect

    def _grant_queued(self, lock: Lock, mode: Mode, now_ms: int) -> list[Effect]:
        """Who was told of a wish that ends with its alternative, and would still be in its way, is told so.

        (Of one that is granted as it is, nobody is.)  What others wait for is then told anew."""
        wanted = lock.wanted
        effects: list[Effect] = [self._grant(lock, mode, now_ms)]
        if mode is not wanted:
            for other in (*self.granted, *self.converting):
                if other is not lock and not compatible(other.held, wanted):
                    other.notified = other.tried = UN
                    effects.append(Blocking(other.owner, UN))
        return effects

    def _grant_conversions(self, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        again = True
        while again:  # a grant may lower a mode (PR to CW), which lets one queued before it go
            again = False
            for lock in self.converting:
                mode = self._choice(lock, new=False)
                if mode is not UN:
                    self.converting = _without(self.converting, lock)
                    effects += self._grant_queued(lock, mode, now_ms)
                    again = True
        return effects

    def _demote(self, lock: Lock, now_ms: int) -> list[Effect]:
        """CONVDEADLK: the held mode goes, those it blocked go first, then it is tried as if new."""
        lock.held, lock.notified = Mode.NL, UN
        lock.flags |= Flag.DEMOTED
        effects = self._grant_conversions(now_ms)
        if self._grantable(lock, new=True):
            return [*effects, self._grant(lock, lock.wanted, now_ms), *self.advance(now_ms)]
        self.granted = _without(self.granted, lock)
        self.converting = self._enqueued(self.converting, lock)
        return [*effects, self._queued(lock), *self.advance(now_ms)]

    def _enqueued(self, queue: tuple[Lock, ...], lock: Lock) -> tuple[Lock, ...]:
        place = self._place(queue, lock)
        return (*queue[:place], lock, *queue[place:])

    def _place(self, queue: tuple[Lock, ...], lock: Lock) -> int:
        """At the tail, or with HEADQUE at the head; YIELDS (a new request in truth) after all others."""
        first, last = 0, len(queue)
        yielding = [number for number, one in enumerate(queue) if one.flags & Flag.YIELDS]
        if lock.flags & Flag.YIELDS:
            first = yielding[0] if yielding else last
        elif yielding:
            last = yielding[0]
        return first if lock.flags & Flag.HEADQUE else last

    def _queued(self, lock: Lock) -> Queued:
        return Queued(lock.owner, tuple(one.owner for one in self.blockers(lock)))

    def _write_lvb(self, held: Mode, wanted: Mode, flags: int, lvb: bytes | None) -> None:
        if not writes_lvb(held, wanted):
            return
        if flags & Flag.IVVALBLK:
            self.lvb_valid = False
        elif flags & Flag.VALBLK and lvb is not None:
            self.lvb, self.lvb_valid = lvb, True
            self.lvb_seq += 1

    def _wishes(self) -> list[tuple[int | None, Mode, bool]]:
        """What is waited for and by whom, in the queues' order, and whether it is a try."""
        if not (self.converting or self.waiting):
            return []
        queued = (*self.converting, *self.waiting)
        return [(lock.owner, lock.wanted, bool(lock.flags & Flag.TRY)) for lock in queued]

    def _notices(self) -> list[Effect]:
        """Tell every holder in somebody's way, once per wish that the earlier notices do not cover.

        A try is told apart from a wish that waits: the one is answered, for the other clients are asked.

        lock.c remembers only the highest mode told and special-cases PR against CW; their supremum
        (PW) says the same.  When the strongest wish behind a notice is gone the notice is taken back,
        and what is still waited for is told anew."""
        effects: list[Effect] = []
        wishes = self._wishes()
        for lock in (*self.granted, *self.converting) if self.converting else self.granted:
            if not wishes and lock.notified is UN and lock.tried is UN:
                continue
            against = [
                (wanted, tries)
                for owner, wanted, tries in wishes
                if owner != lock.owner and not compatible(lock.held, wanted)
            ]
            if not (
                covers(_total(against, tries=False), lock.notified)
                and covers(_total(against, tries=True), lock.tried)
            ):
                lock.notified = lock.tried = UN
                effects.append(Blocking(lock.owner, UN))
            for wanted, tries in against:
                if not covers(lock.tried if tries else lock.notified, wanted):
                    if tries:
                        lock.tried = supremum(lock.tried, wanted)
                    else:
                        lock.notified = supremum(lock.notified, wanted)
                    effects.append(Blocking(lock.owner, wanted, tries))
        return effects


def _without(queue: tuple[Lock, ...], lock: Lock) -> tuple[Lock, ...]:
    return tuple(one for one in queue if one is not lock) if len(queue) > 1 else ()


def _total(against: list[tuple[Mode, bool]], *, tries: bool) -> Mode:
    total = UN
    for wanted, is_try in against:
        if is_try is tries:
            total = supremum(total, wanted)
    return total


def check(resource: Resource) -> None:
    """Assert what must hold between any two operations."""
    holders = [*resource.granted, *resource.converting]
    queued = [*resource.converting, *resource.waiting]
    everyone = [*holders, *resource.waiting]
    assert len({lock.owner for lock in everyone}) == len(everyone), "a holder has two locks"
    assert len(resource.lvb) == LVB_BYTES
    for lock in resource.granted:
        assert lock.held is not UN, f"{lock.owner} is granted nothing"
        assert lock.wanted is UN, f"{lock.owner} is granted and wants more"
    for lock in queued:
        assert lock.wanted is not UN, f"{lock.owner} is queued for nothing"
    for number, lock in enumerate(holders):
        for other in holders[number + 1 :]:
            assert compatible(lock.held, other.held), f"{lock.owner} and {other.owner} hold conflicting modes"
    for queue in (resource.converting, resource.waiting):
        for lock in queue[:1]:
            assert resource.blockers(lock), f"{lock.owner} heads a queue and nobody blocks it"
    for lock in queued:
        for other in holders:
            if other.owner != lock.owner and not compatible(other.held, lock.wanted):
                told = other.tried if lock.flags & Flag.TRY else other.notified
                assert covers(told, lock.wanted), f"{other.owner} blocks {lock.owner} untold"
