"""A resource inside a node: the same queues and rules, under the node's own cluster lock.

It adds four things to `Resource`: nothing is granted above the ceiling (what the cluster lets this
node hold), new requests wait while other nodes wait for this node, what they want is a wish like any
local one when it comes to blocking notices, and a client that caches may not be using what it holds: a
try, by a client or another node, is refused for its sake only after it has been asked."""

from ringfence.core.modes import Mode
from ringfence.locks.compat import compatible, covers, supremum
from ringfence.locks.flags import Flag
from ringfence.locks.resource import Granted, Lock, Resource, reads_lvb


class Local(Resource):
    ceiling: Mode = Mode.UN
    """The node's cluster lock; while that is being lowered, what it is lowered to."""
    asked: Mode = Mode.UN
    """The weakest mode that covers what other nodes wait for; UN: none does."""
    noticed: Mode = Mode.UN
    """The same without mere tries: of a try that may be refused its holders are not told (lock.c)."""
    tried: Mode = Mode.UN
    """What other nodes try for, and have not been told that it is needed here."""
    caching: tuple[int, ...] = ()
    """Clients that may keep a lock unused; asked with a notice of a try, they release or say `busy`."""
    serving: bool = False
    """A cluster grant has just arrived: those who queued before it come before the other nodes."""
    fresh: list[int] = []  # noqa: RUF012 (msgspec makes a new one for each)
    """Clients for whom the value block was just now read from the cluster, after they had asked."""
    queueing: bool = False
    """The node itself waits in the cluster's queue."""

    @property
    def closed(self) -> bool:
        """Other nodes come first: no new client is let in under the present ceiling."""
        return not self.serving and not compatible(self.ceiling, self.asked)

    def needed(self) -> Mode:
        """The weakest cluster mode that covers what clients hold."""
        needed = Mode.UN
        for lock in (*self.granted, *self.converting):
            needed = supremum(needed, lock.held)
        return needed

    def awaits_word(self, lock: Lock) -> bool:
        """Whether only clients that cache are in this one's way: they have been asked."""
        conflicts = self._conflicts(lock)
        return bool(conflicts) and all(one.owner in self.caching for one in conflicts)

    def take_alone(self, owner: int, mode: Mode, now_ms: int) -> Granted | None:
        """`request` where there is no other lock: nothing but the ceiling can be in its way.

        None: the ceiling is."""
        lock = Lock(owner, wanted=mode, flags=Flag.VALBLK, since_ms=now_ms)
        return self._grant(lock, now_ms) if mode is not Mode.UN and self._within(lock) else None

    def leave_alone(self, owner: int) -> bool:
        """`unlock` of the only lock there is, which writes no value block.  False: it is not that."""
        only = self.granted[0] if len(self.granted) == 1 else None
        if only is None or only.owner != owner or self.converting or self.waiting:
            return False
        self.granted = []
        return True

    def candidate(self) -> Lock | None:
        """The queued lock that only the ceiling keeps from being granted, if any."""
        for lock in (*self.converting, *self.waiting):
            if self._lawful(lock, new=False) and not self._within(lock):
                return lock
        return None

    def _grantable(self, lock: Lock, *, new: bool) -> bool:
        return self._within(lock) and self._lawful(lock, new=new)

    def _within(self, lock: Lock) -> bool:
        """Whether the cluster lock covers the wish, its reading of the value block included.

        Under NL and CR another node may hold PW or EX and write, so what is known here may be old."""
        if not covers(self.ceiling, lock.wanted):
            return False
        reads = lock.flags & Flag.VALBLK and reads_lvb(lock.held, lock.wanted)
        return not reads or self.ceiling >= Mode.CW or lock.owner in self.fresh

    def _lawful(self, lock: Lock, *, new: bool) -> bool:
        """Whether the rules alone allow it, the ceiling apart."""
        return not self._shut(lock) and super()._grantable(lock, new=new)

    def _shut(self, lock: Lock) -> bool:
        return self.closed and lock.held is Mode.UN and not lock.flags & Flag.EXPEDITE

    def _may_wait(self, lock: Lock) -> bool:
        """A NOQUEUE request waits for the cluster's answer, if all depends on that alone.

        Where the node queues in the cluster already, the answer would be a wait.  It also waits for the
        word of clients that cache."""
        if self.queueing or self._ahead(lock) or self._shut(lock):
            return False
        return self._lawful(lock, new=True) or self.awaits_word(lock)

    def _wishes(self) -> list[tuple[int | None, Mode, bool]]:
        outside: list[tuple[int | None, Mode, bool]] = []
        if self.noticed is not Mode.UN:
            outside.append((None, self.noticed, False))
        if self.caching and self.awaits_word(Lock(-1, wanted=self.tried)):
            outside.append((None, self.tried, True))
        return super()._wishes() + outside
