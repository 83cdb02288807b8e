"""A resource inside a node: the same queues and rules, under the node's own cluster lock.

It adds five things to `Resource`: nothing is granted above the ceiling (what the cluster lets this
node hold), new requests wait while other nodes wait for this node (for its minimum hold time excepted),
what those want is a wish like any local one when it comes to blocking notices, an alternative mode is
not taken only because the ceiling is too low for the one wanted (the cluster is asked first), and a client
that caches may not be using what it holds: a try, by a client or another node, is refused for its sake only
after it has been asked."""

from ringfence.core.modes import UN, Mode
from ringfence.locks.compat import compatible, covers, supremum
from ringfence.locks.flags import Flag
from ringfence.locks.queues import EMPTY_LVB, Effect, Granted, LocalQueues, Lock
from ringfence.locks.resource import Resource, reads_lvb


class Local(Resource, LocalQueues):
    @property
    def queueing(self) -> bool:
        """Whether the node itself waits in the cluster's queue."""
        asked = self.outstanding
        return asked is not None and asked.raises and not (asked.cancelled or asked.flags & Flag.NOQUEUE)

    @property
    def closed(self) -> bool:
        """Other nodes come first: nothing is asked of the cluster for new clients, and but for the minimum
        hold time none is let in under the present ceiling."""
        return self.fresh is None and not compatible(self.ceiling, self.asked)

    @property
    def plain(self) -> bool:
        """There is no value block that anybody could miss."""
        return self.lvb_valid and self.lvb == EMPTY_LVB

    def needed(self) -> Mode:
        """The weakest cluster mode that covers what clients hold."""
        needed = UN
        for lock in (*self.granted, *self.converting):
            needed = supremum(needed, lock.held)
        return needed

    def awaits_word(self, lock: Lock) -> bool:
        """Whether only clients that cache are in this one's way: they have been asked."""
        conflicts = self._conflicts(lock)
        return bool(conflicts) and all(one.owner in self.caching for one in conflicts)

    def take_alone(self, owner: int, mode: Mode, now_ms: int) -> Granted | None:
        """`request` where there is no other lock: nothing but the ceiling can be in its way (`_within`).

        None: the ceiling is."""
        fresh = self.ceiling >= Mode.CW or owner in (self.fresh or ())
        if mode is UN or not fresh or not covers(self.ceiling, mode):
            return None
        if self.nudged:
            self.nudged.pop(owner, None)
        self.granted = (Lock(owner, mode, since_ms=now_ms),)
        return Granted(owner, mode, self.lvb if self.lvb_valid else None, self.lvb_valid)

    def leave_alone(self, owner: int) -> bool:
        """`unlock` of the only lock there is, which writes no value block.  False: it is not that."""
        only = self.granted[0] if len(self.granted) == 1 else None
        if only is None or only.owner != owner or self.converting or self.waiting:
            return False
        self.granted = ()
        return True

    def nudge(self, wants: Mode, asker: int | None = None) -> list[Effect]:
        """Each client hears of a mode once until its next grant, as of any (lock.c, `lkb_highbast`).

        It is remembered here, not in the ordered state: there it would cost every lock a field."""
        told: list[Effect] = []
        for effect in super().nudge(wants, asker):
            self.nudged = self.nudged or {}
            before = self.nudged.get(effect.owner, UN)
            if not covers(before, wants):
                self.nudged[effect.owner] = supremum(before, wants)
                told.append(effect)
        return told

    def candidate(self) -> tuple[Lock, Mode] | None:
        """The queued lock that only the ceiling keeps from being granted, if any, and in which mode."""
        for lock in (*self.converting, *self.waiting):
            mode = self._lacks(lock, new=False)
            if mode is not UN:
                return lock, mode
        return None

    def _grant(self, lock: Lock, mode: Mode, now_ms: int) -> Granted:
        if self.nudged:
            self.nudged.pop(lock.owner, None)
        return super()._grant(lock, mode, now_ms)

    def _grantable(self, lock: Lock, *, new: bool) -> bool:
        return self._within(lock) and not self._must_give_way(lock, new=new) and self._lawful(lock, new=new)

    def _settles(self, lock: Lock, *, new: bool) -> bool:
        return lock.owner in self.settled or not self._lawful(lock, new=new)

    def _within(self, lock: Lock) -> bool:
        """Whether the cluster lock covers the wish, its reading of the value block included.

        Under NL and CR another node may hold PW or EX and write, so what is known here may be old."""
        if not covers(self.ceiling, lock.wanted):
            return False
        reads = lock.flags & Flag.VALBLK and reads_lvb(lock.held, lock.wanted)
        return not reads or self.ceiling >= Mode.CW or lock.owner in (self.fresh or ())

    def _must_give_way(self, lock: Lock, *, new: bool) -> bool:
        """Other nodes come before this client: it is new, or queued with nothing in hand but NL.

        Such a conversion would go before requests of others in one flat queue, too, but not before their
        conversions; two clients here that take turns would keep those out for ever."""
        if self.hold_until_ms:
            return False
        return self._shut(lock) or (self.closed and lock.held is Mode.NL and not new)

    def _lawful(self, lock: Lock, *, new: bool) -> bool:
        """Whether the rules alone allow it, the ceiling apart."""
        return super()._grantable(lock, new=new)

    def _shut(self, lock: Lock) -> bool:
        """Other nodes come before this new client."""
        return self.closed and lock.held is UN and not lock.flags & Flag.EXPEDITE

    def _lacks(self, lock: Lock, *, new: bool) -> Mode:
        """The mode, wanted or alternative, that the node's lock must cover to grant it; UN: none would do."""
        if self._shut(lock):
            return UN
        modes = [lock.wanted]
        instead = self.alternative(lock)
        if instead is not UN:
            modes.insert(0 if lock.owner in self.settled else 1, instead)
        wanted = lock.wanted
        for mode in modes:
            lock.wanted = mode
            lawful, within = self._lawful(lock, new=new), self._within(lock)
            lock.wanted = wanted
            if lawful:
                return UN if within else mode
        return UN

    def either_will_do(self, lock: Lock) -> bool:
        """Of PR and CW neither stands in for the other: who settles may have whichever comes first."""
        return not covers(lock.wanted, self.alternative(lock)) and self._lawful(lock, new=False)

    def _may_wait(self, lock: Lock) -> bool:
        """A NOQUEUE request waits for the cluster's answer, if all depends on that alone.

        Where the node queues in the cluster already, the answer would be a wait.  It also waits for the
        word of clients that cache."""
        if self.queueing or self._ahead(lock) or self._shut(lock):
            return False
        return self._lacks(lock, new=True) is not UN or self.awaits_word(lock)

    def _wishes(self) -> list[tuple[int | None, Mode, bool]]:
        outside: list[tuple[int | None, Mode, bool]] = []
        if self.noticed is not UN:
            outside.append((None, self.noticed, False))
        if self.caching and self.awaits_word(Lock(-1, wanted=self.tried)):
            outside.append((None, self.tried, True))
        return super()._wishes() + outside
