"""One resource on one node: the node's cluster lock and the clients under it.

Clients are granted by the resource's own rules as long as the cluster lock covers them; for more, the
node asks the cluster, one operation at a time.  When the last client lets go the cluster lock is kept
until another node asks for it, unless it must not be.

What it promises, whatever crosses on the way:
- the node's lock in the ordered state covers what its clients hold.  It is lowered only to what they
  need, and from the moment that this is asked for nothing above it is granted here;
- a node that is in others' way gives back what its clients do not need, and before it lets new clients
  in; but a grant that it waited for first serves those who waited;
- a lock that the node had to wait for is given back with its last client, unasked: the next request, here
  or there, is ordered among the nodes, so that two clients in a tight loop take turns.  It is kept all
  the same while it has a value block, which would be lost with the last lock;
- the value block: what a client wrote is sent on at once, with the lowering if there is one, else by
  itself (a conversion from PW to PW or EX to EX writes), and the writer is answered only when it is in
  the ordered state: holders of NL or CR elsewhere may read it from then on.

A node may ask ahead (AHEAD): for a lock that no client wants yet, if nobody is in the way.  It is kept like
any other, though after its clients it may not be; the first client takes it without a word from the
cluster, which hears of that later (BUSY).  Until then whoever tries for it has this node asked first.

A client that names an alternative mode (ALTPR, ALTCW) has the one it wants tried first (NOQUEUE); once
that was refused it settles for the alternative, and waits for that.

A hand-over from another node starts a minimum hold time: until it is over, clients that ask here meanwhile
are served before that other node, as long as one is always there.  Nothing is kept for its sake.

Clients never wait for the cluster to cancel: their request is gone at once, and a grant that arrives
for nobody is kept or given back.

A node's conversion is not always a client's.  A client that converts from CR or more keeps others out
while it waits, and may deadlock with them.  If no client of the node does, or if the node holds more
than its clients need, the mode held is no reason to call it a deadlock: the conversion bears YIELDS,
and if that mode is in the way the node withdraws, lowers its lock and asks again.

Why that ends: a node that withdrew for others lowers before it asks again, even if they have withdrawn
meanwhile; having given back what it does not need, it is in nobody's way until a grant lets a client
go on.  An EDEADLK takes a client's mode or its wish, so it cannot come back for the same one."""

import errno
from collections.abc import Collection

from ringfence.core.ids import Token
from ringfence.core.modes import UN, Mode
from ringfence.locks.compat import compatible, covers, supremum
from ringfence.locks.flags import ALTERNATIVES, Flag, valid_unlock
from ringfence.locks.holdings import NEVER, UNTIL_ASKED, UNTIL_UNUSED, Holding, Keep, Place
from ringfence.locks.local import Local
from ringfence.locks.outs import (
    AskCluster,
    ClientBlocking,
    ClientCancelled,
    ClientGranted,
    ClientLost,
    ClientRefused,
    ClientReleased,
    Out,
)
from ringfence.locks.queues import (
    BUSY,
    CANCEL,
    CONVERT,
    REQUEST,
    UNLOCK,
    Blocking,
    Cancelled,
    Effect,
    Granted,
    Lock,
    Outstanding,
    Refused,
    Released,
)

PASSED_ON = Flag.NOQUEUE | Flag.NOQUEUEBAST | Flag.NOORDER | Flag.HEADQUE
PLAIN = Flag.NOQUEUE | Flag.VALBLK
"""Flags that mean nothing where nobody is in the way."""
NOT_PLAIN = ~(PLAIN | Flag.TRY)
AHEAD_FLAGS = Flag.NOQUEUE | Flag.VALBLK | Flag.AHEAD
DEADLOCK = Flag.YIELDS | Flag.NODLCKWT
"""What decides whether the cluster calls a node's conversion a deadlock."""


class NodeLock(Holding):
    @property
    def resource(self) -> str:
        return self.local.name

    @property
    def idle(self) -> bool:
        """Nothing held, queued or outstanding: this object may be forgotten."""
        return self.held is UN and self.local.outstanding is None and self.local.empty

    def knows(self, lock_id: int) -> bool:
        """Whether a client has, wants, or was not yet told that it gave back, a lock of this."""
        releasing = any(isinstance(one, ClientReleased) and one.lock_id == lock_id for one in self._withheld)
        return releasing or self.local.find(lock_id) is not None

    # -- clients -----------------------------------------------------------------------

    def request(
        self, lock_id: int, mode: Mode, flags: int, lvb: bytes | None, keep: bool, cached: bool, now_ms: int
    ) -> list[Out]:
        if not (keep or cached or flags & ~PLAIN):
            taken = self.take_ahead(lock_id, mode, now_ms)
            if taken is not None:
                return [taken, self._used()]
        alone = self._at_rest and self.local.empty and not cached and not flags & ~PLAIN
        nothing = self.held is UN and self.local.ceiling is UN
        granted = self.local.take_alone(lock_id, mode, now_ms) if alone and not nothing else None
        if not keep:
            self.keep = NEVER
        if granted is not None and (keep or self.held is mode):
            return [self._stamp(granted), *self._say_used()] if self.ahead else [self._stamp(granted)]
        if granted is not None:
            return [self._stamp(granted), *self._step()]
        if alone and nothing and lvb is None:
            return self._request_alone(lock_id, mode, flags, now_ms)
        if cached:
            self.local.caching = (*self.local.caching, lock_id)
        return self._tell(self.local.request(lock_id, mode, _tries(flags), lvb, now_ms)) + self._step()

    def take_ahead(self, lock_id: int, mode: Mode, now_ms: int) -> ClientGranted | None:
        """`request` of what was asked for ahead, and is not to be kept after this client.  That it is in use
        (BUSY) the caller says.

        None: it is not so, and nothing was done."""
        if not (self.ahead and self.held is mode and self._at_rest and self.local.empty):
            return None
        granted = self.local.take_alone(lock_id, mode, now_ms)
        if granted is None:
            return None
        self.keep, self.ahead = NEVER, False
        return self._stamp(granted)

    def take_kept(self, lock_id: int, mode: Mode, now_ms: int) -> ClientGranted | None:
        """`request`, without flags, of what is kept here and is to be kept after this client, too.

        None: it is not so, and nothing was done."""
        local = self.local
        if self.ahead or local.granted or local.converting or local.waiting or not self._at_rest:
            return None
        granted = local.take_alone(lock_id, mode, now_ms)
        if granted is None:
            return None
        assert self.token is not None
        local.granted[0].token = self.token
        return ClientGranted(lock_id, mode, self.token, granted.lvb, granted.lvb_valid)

    def leave_kept(self, lock_id: int) -> bool:
        """`unlock`, without flags, of the only client there is, after whom the cluster lock is kept.

        False: it is not so, and nothing was done."""
        return self.keep is UNTIL_ASKED and self._at_rest and self.local.leave_alone(lock_id)

    def _request_alone(self, lock_id: int, mode: Mode, flags: int, now_ms: int) -> list[Out]:
        """`request` where there is nothing yet and nothing can be in the way: all is up to the cluster.

        As the rules have it (`Local.request`, `_step`), at a third of their price: a VG has thousands."""
        if mode is UN:
            return [ClientRefused(lock_id, errno.EINVAL)]
        local = self.local
        local.waiting, local.outstanding = _first_wish(lock_id, mode, flags, self.keep, now_ms)
        return [AskCluster(self.lockspace, local.name, REQUEST, mode, local.outstanding.flags)]

    def convert(self, lock_id: int, mode: Mode, flags: int, lvb: bytes | None, now_ms: int) -> list[Out]:
        before = self._value()
        effects = self.local.convert(lock_id, mode, _tries(flags), lvb, now_ms)
        return self._tell(effects, writer=self._writer(lock_id, before)) + self._step()

    def unlock(self, lock_id: int, flags: int, lvb: bytes | None, keep: bool = False) -> list[Out]:
        if keep and self.keep is NEVER:
            self.keep = UNTIL_ASKED
        if lvb is None and not flags:
            if self.keep is NEVER:
                if self._ends_alone() and self.local.leave_alone(lock_id):
                    self._withheld = (ClientReleased(lock_id),)
                    self._ask_unlock()
                    return [AskCluster(self.lockspace, self.local.name, UNLOCK)]
            elif self.local.asked is UN:
                if self.leave_kept(lock_id):
                    return [ClientReleased(lock_id)]
            elif self._goes_on() and self.local.leave_alone(lock_id):
                self._ask_unlock()
                return [ClientReleased(lock_id), AskCluster(self.lockspace, self.local.name, UNLOCK)]
        if not valid_unlock(flags, lvb):
            return [ClientRefused(lock_id, errno.EINVAL)]
        if flags & Flag.CANCEL:
            return self.cancel(lock_id) or [ClientRefused(lock_id, errno.EBUSY)]
        outs = self._interrupt(lock_id) if flags & Flag.FORCEUNLOCK else []
        before = self._value()
        effects = self.local.unlock(lock_id, flags if lvb is None else flags | Flag.VALBLK, lvb)
        writer = self._writer(lock_id, before)
        if outs:
            writer = lock_id  # what it wrote is on its way yet
        return outs + self._tell(effects, writer) + self._step()

    def ends_with(self, lock_id: int) -> bool:
        """`unlock` of the last client, where all that is to be done is to ask the cluster (UNLOCK).

        False: that is not so, and nothing was done."""
        if not (self._ends_alone() and self.local.leave_alone(lock_id)):
            return False
        self._withheld = (ClientReleased(lock_id),)
        self._ask_unlock()
        return True

    def _ask_unlock(self) -> None:
        """What `_lower` does where no value was written."""
        self.local.ceiling = UN
        self.local.outstanding = Outstanding(UNLOCK, UN)

    def cancel(self, lock_id: int) -> list[Out]:
        lock = self.local.find(lock_id)
        if lock is None or lock.wanted is UN:
            return []
        self._forget_client(lock_id)
        return self._tell(self.local.cancel(lock_id)) + self._step()

    def busy(self, lock_id: int) -> list[Out]:
        """A client that caches does use its lock: tries that it is in the way of fail."""
        outs = self._tell(self.local.busy(lock_id))
        lock = self.local.find(lock_id)
        if lock is not None and not compatible(lock.held, self.local.tried):
            outs += self._busy()
        return outs + self._step()

    def drop(self, lock_ids: Collection[int]) -> list[Out]:
        """These clients are gone without a word; one that could write has spoiled the value block."""
        before = self._value()
        could_write = any(lock.held >= Mode.PW for lock in map(self.local.find, lock_ids) if lock is not None)
        for lock_id in lock_ids:
            self._forget_client(lock_id)
        self._withheld = tuple(one for one in self._withheld if one.lock_id not in lock_ids)
        self.local.purge(lock_ids)
        self._writer(0, before)
        # Of a client of an earlier life (`restore`) the value was unknown here, and is valid elsewhere.
        self._unwritten = self._unwritten or could_write
        return self._step()

    def orphan(self, lock_id: int) -> list[Out]:
        """Its client has ended, and it stays: what it waited for is taken back, and nobody is told."""
        self._interrupt(lock_id)
        self.local.caching = tuple(one for one in self.local.caching if one != lock_id)
        # Whoever tries for it gets an answer: nobody is left to be asked whether it is in use.
        outs = self._tell([*self.local.cancel(lock_id), *self.local.busy(lock_id)]) + self._step()
        return [one for one in outs if not isinstance(one, ClientCancelled) or one.lock_id != lock_id]

    def adopt(self, mode: Mode, token: Token) -> list[Out]:
        """A grant that nobody here asked for: give it back."""
        self.held, self.token, self.keep = mode, token, NEVER
        self._settle_held()
        return self._step()

    def restore(self, lock_id: int, mode: Mode, held: Lock) -> list[Out]:
        """A client of an earlier life goes on.  What the value block says is not known here."""
        if self.held is UN:
            self.held, self.token, self.keep = held.held, held.token, NEVER
        mine = Lock(lock_id, held=mode, token=held.token, since_ms=held.since_ms)
        self.local.granted = (*self.local.granted, mine)
        self.local.lvb_valid = False
        self._settle_held()
        return self._step()

    def give_back(self) -> list[Out]:
        """Keep the cluster lock no longer than clients need it."""
        if self.gives_back():
            return [AskCluster(self.lockspace, self.resource, UNLOCK)]
        return self._step()

    def gives_back(self) -> bool:
        """`give_back`, where all that is to be done is to ask the cluster (UNLOCK).  False: there is more."""
        self.keep = NEVER
        if self.held is UN or not (self.local.empty and self._ends_alone()):
            return False
        self._ask_unlock()
        return True

    def _ends_alone(self) -> bool:
        """Whether nothing is to be done when the last client has gone but to give the cluster lock back."""
        return self.keep is NEVER and self.local.outstanding is None and self._unburdened

    def _goes_on(self) -> bool:
        """The same of a lock that may be kept, and will not be: others ask for it."""
        local = self.local
        lasts = self.keep is NEVER or local.outstanding is not None or compatible(self.held, local.asked)
        return not lasts and self._unburdened

    @property
    def _unburdened(self) -> bool:
        """Nobody is yet to be told or to be written anything, nor is anything remembered of clients that come
        and go."""
        local = self.local
        return not (self._unwritten or self._withheld or local.caching or local.settled or local.nudged)

    def _interrupt(self, lock_id: int) -> list[Out]:
        """The client's operation in flight counts no more; one that is done but for its answer is said
        to be taken back, for what comes next undoes it."""
        self._forget_client(lock_id)
        untold = [one for one in self._withheld if isinstance(one, ClientGranted) and one.lock_id == lock_id]
        if not untold:
            return []
        self._withheld = tuple(one for one in self._withheld if one.lock_id != lock_id)
        return [ClientCancelled(lock_id, untold[0].mode)]

    def _forget_client(self, lock_id: int) -> None:
        outstanding = self.local.outstanding
        if outstanding is not None:
            outstanding.client = None if outstanding.client == lock_id else outstanding.client
            outstanding.readers = tuple(one for one in outstanding.readers if one != lock_id)

    # -- the cluster's answers -----------------------------------------------------------

    def on_granted(
        self, mode: Mode, token: Token, lvb: bytes | None, lvb_valid: bool, hold_until_ms: int = 0
    ) -> list[Out]:
        """`grants_alone` has been asked, and says no."""
        if self.keeps_ahead():
            self.keep_ahead(mode, token, lvb, lvb_valid, hold_until_ms)
            return []
        done = self._answered()
        if done.raises and self.held < Mode.CR:
            # Not at each conversion upward: those who wait would never have their turn.
            self.local.hold_until_ms = hold_until_ms
        self.held, self.token = mode, token
        self.ahead = bool(done.flags & Flag.AHEAD)
        if self.keep is not NEVER:
            self.keep = UNTIL_UNUSED if done.queued else UNTIL_ASKED
        if not self._unwritten:
            self.local.lvb_valid = lvb_valid
            if lvb is not None:
                self.local.lvb = lvb
        self._settle_held()
        if not done.raises:
            return self._step()
        self.local.fresh = done.readers
        outs = self._tell(self.local.advance())
        self.local.fresh = None
        if done.refused_early is not UN:
            outs += self._tell(self.local.nudge(done.refused_early))
        return outs + self._step()

    def keeps_ahead(self) -> bool:
        """Whether this grant is of what was asked for ahead, and there is nothing to do but to keep it."""
        local, done = self.local, self.local.outstanding
        return (
            done is not None
            and bool(done.flags & Flag.AHEAD)
            and local.empty
            and self.held is UN
            and self.keep is UNTIL_ASKED
            and local.asked is UN
            and done.refused_early is UN
            and not done.queued
            and self._unburdened
        )

    def keep_ahead(
        self, mode: Mode, token: Token, lvb: bytes | None, lvb_valid: bool, hold_until_ms: int
    ) -> None:
        """What `on_granted` and `_step` would do then."""
        local = self.local
        local.outstanding, local.ceiling = None, mode
        local.hold_until_ms = hold_until_ms
        self.held, self.token, self.ahead = mode, token, True
        local.lvb_valid = lvb_valid
        if lvb is not None:
            local.lvb = lvb

    def grants_alone(self, mode: Mode) -> Lock | None:
        """The client's wish, if this grant is for the one client that there is, which asked for just this,
        and nothing else is to be done."""
        local, done = self.local, self.local.outstanding
        if done is None or done.kind is not REQUEST or len(local.waiting) != 1:
            return None
        only = local.waiting[0]
        alone = (
            done.readers == (only.owner,)
            and only.wanted is mode
            and not only.flags & NOT_PLAIN
            and not (local.granted or local.converting)
            and self.held is local.asked is done.refused_early is UN
            and not done.flags & Flag.AHEAD
            and not (self._unwritten or self._withheld)
            and not (local.caching or local.settled or local.nudged)
        )
        return only if alone else None

    def grant_alone(
        self, only: Lock, mode: Mode, token: Token, lvb: bytes | None, lvb_valid: bool, hold_until_ms: int
    ) -> ClientGranted:
        """What `advance` and `_step` would do then."""
        local, done = self.local, self.local.outstanding
        assert done is not None
        local.outstanding, local.hold_until_ms = None, hold_until_ms
        self.held, self.token, self.ahead = mode, token, False
        if self.keep is not NEVER:
            self.keep = UNTIL_UNUSED if done.queued else UNTIL_ASKED
        local.lvb_valid = lvb_valid
        if lvb is not None:
            local.lvb = lvb
        local.ceiling = mode
        only.held, only.wanted, only.flags, only.token = mode, UN, 0, token
        local.waiting, local.granted = (), (only,)
        return ClientGranted(only.owner, mode, token, local.lvb if lvb_valid else None, lvb_valid)

    def on_queued(self) -> None:
        """What the node asked for has to wait for others."""
        if self.local.outstanding is not None:
            self.local.outstanding.queued = True

    def on_refused(self, number: int, holders: tuple[tuple[int, Mode], ...]) -> list[Out]:
        done = self._answered()
        if done.kind is not REQUEST and number == errno.ENOENT:
            if done.kind is CONVERT:
                return self.on_vanished()
            return [*self._answer_withheld(known=not self._writes(done)), *self.on_released()]
        self._settle_held()
        if number == errno.EDEADLK:
            return self._deadlocked(holders)
        if number != errno.EAGAIN:
            queued = [*self.local.converting, *self.local.waiting]
            return [self._refuse(lock, number, holders) for lock in queued] + self._step()
        lock = None if done.client is None else self.local.find(done.client)
        if lock is None or lock.wanted is UN:
            return self._step()
        if self.local.alternative(lock) is not UN and lock.owner not in self.local.settled:
            self.local.settled += (lock.owner,)
            return self._step()
        return [self._refuse(lock, number, holders), *self._step()]

    def _deadlocked(self, holders: tuple[tuple[int, Mode], ...]) -> list[Out]:
        """The newest client whose own mode may be the reason gives way, not whoever heads the queue."""
        guilty = self._at_stake()
        if not guilty:
            return self._step()
        lock = guilty[-1]
        if lock.flags & Flag.CONVDEADLK:
            # The cluster would have demoted the whole node; only this client offered its mode.
            lock.held, lock.notified = Mode.NL, UN
            lock.flags |= Flag.DEMOTED
            return self._step()
        return [self._refuse(lock, errno.EDEADLK, holders), *self._step()]

    def on_released(self) -> list[Out]:
        self.local.outstanding = None
        self.held, self.token, self.ahead = UN, None, False
        self.local.ceiling = UN
        self._nobody_asks()
        if self._is_over():
            withheld, self._withheld = self._withheld, ()
            return list(withheld)
        return self._step()

    def last_released(self) -> ClientReleased | None:
        """What is to be told, if with the cluster lock, which is given back now, this object has no use any
        more; to be forgotten then."""
        if len(self._withheld) != 1 or not self._is_over():
            return None
        told = self._withheld[0]
        return told if isinstance(told, ClientReleased) else None

    def _is_over(self) -> bool:
        """Whether, now that the cluster lock is given back, all there is to tell is to who waits for that."""
        local = self.local
        return local.empty and not (self._unwritten or local.caching or local.settled or local.nudged)

    def on_cancelled(self, held: Mode) -> list[Out]:
        done = self._answered()
        self.held = held
        self._settle_held()
        outs = self._tell(self.local.advance())
        if done.yielded and self.local.needed() is not held:
            # Those whom it yielded to may have withdrawn for this node's sake, so that nobody seems to
            # wait for it now.  If both asked again at once, both would withdraw again, for ever.
            outs += self._lower(self.local.needed())
        return outs + self._step()

    def hold_ends(self) -> None:
        """The minimum hold time is over."""
        self.local.hold_until_ms = 0

    def on_blocking(self, wants: Mode, tries: bool = False, once: bool = False) -> list[Out]:
        """Another node waits for this one, or was refused for its sake (`once`); UN: none waits any more.

        The notice may be about a grant that is on its way: it is remembered until then."""
        if self.held is UN and self.local.outstanding is None:
            return []
        local = self.local
        if once:
            asked = self.local.outstanding
            if asked is not None and asked.raises:
                asked.refused_early = supremum(asked.refused_early, wants)
            return self._tell(local.nudge(wants))
        if wants is UN:
            self._nobody_asks()
        elif tries:
            local.asked, local.tried = supremum(local.asked, wants), supremum(local.tried, wants)
        else:
            local.asked, local.noticed = supremum(local.asked, wants), supremum(local.noticed, wants)
        return self._step()

    def on_vanished(self) -> list[Out]:
        """The cluster knows no lock of this node: whatever clients had is gone."""
        local = self.local
        outs: list[Out] = [
            ClientLost(lock.owner) for lock in (*local.granted, *local.converting, *local.waiting)
        ]
        outs += self._answer_withheld(known=not self._writes(self.local.outstanding))
        self.local, self._unwritten = Local(self.resource), False
        self.held, self.token, self.ahead = UN, None, False
        return outs

    def _writes(self, outstanding: Outstanding | None) -> bool:
        """What a client wrote is not known to be in the ordered state: it waits here, or was on its way."""
        under_way = outstanding is not None and outstanding.flags & (Flag.VALBLK | Flag.IVVALBLK)
        return self._unwritten or bool(under_way and outstanding and not outstanding.raises)

    def _answer_withheld(self, known: bool) -> list[Out]:
        """Those whose lock is gone are told so; that all is well only if nothing that they wrote is lost."""
        withheld, self._withheld = self._withheld, ()
        released = [one for one in withheld if isinstance(one, ClientReleased)]
        return list(released) if known else [ClientLost(one.lock_id) for one in released]

    def _answered(self) -> Outstanding:
        done, self.local.outstanding = self.local.outstanding, None
        assert done is not None, f"an answer about {self.lockspace}/{self.resource} that nobody asked for"
        return done

    def _settle_held(self) -> None:
        """The cluster lock is known again: the ceiling follows, and notices it satisfies are done with."""
        self.local.ceiling = self.held
        if compatible(self.held, self.local.asked):
            self._nobody_asks()

    def _nobody_asks(self) -> None:
        self.local.asked = self.local.noticed = self.local.tried = UN

    # -- what to do next -------------------------------------------------------------------

    @property
    def _at_rest(self) -> bool:
        """Nobody else asks, and nothing is under way: whoever comes or goes alone changes nothing more."""
        return (
            self.local.outstanding is None
            and self.local.asked is UN
            and self.keep is UNTIL_ASKED
            and not (self._unwritten or self._withheld or self.local.caching)
        )

    def _step(self) -> list[Out]:
        if self.local.caching:
            self.local.caching = tuple(one for one in self.local.caching if self.local.find(one))
        outs = self._tell(self.local.advance())
        outs += self._ask() if self.local.outstanding is None else self._reconsider(self.local.outstanding)
        outs += self._tell(self.local.advance()) + self._say_busy() + self._say_used()
        if not self._unwritten and (self.local.outstanding is None or self.local.outstanding.raises):
            outs += self._withheld
            self._withheld = ()
        if self.local.settled:
            queued = [lock.owner for lock in (*self.local.converting, *self.local.waiting)]
            self.local.settled = tuple(one for one in self.local.settled if one in queued)
        if self.local.nudged:
            self.local.nudged = {one: mode for one, mode in self.local.nudged.items() if self.local.find(one)}
        self._check()
        return outs

    def _ask(self) -> list[Out]:
        """Nothing is outstanding: give back what others ask for, or ask for what clients want."""
        local = self.local
        if self._in_the_way():
            return self._lower(local.needed())
        queued = local.converting or local.waiting
        if self.keep is NEVER and not queued and local.needed() is not self.held:
            return self._lower(local.needed())
        if self.keep is UNTIL_UNUSED and self.held is not UN and local.empty and local.plain:
            return self._lower(UN)
        if self._unwritten:
            return self._lower(self.held)
        candidate = local.candidate()
        refused = self._refuse_hopeless(candidate[0] if candidate else None)
        if refused:
            return refused + self._tell(local.advance()) + self._ask()
        return [self._raise(*candidate)] if candidate else []

    def _say_busy(self) -> list[Out]:
        """A try by another node waits for our word: clients here need what it is refused for."""
        tried = self.local.tried
        if compatible(self.local.needed(), tried) or self.local.awaits_word(Lock(-1, wanted=tried)):
            return []
        return self._busy()

    def _say_used(self) -> list[Out]:
        """A client has taken what was asked for ahead: nobody need ask any more whether it is in use."""
        if not self.ahead or self.local.needed() is UN:
            return []
        self.ahead = False
        return [self._used()]

    def _used(self) -> AskCluster:
        return AskCluster(self.lockspace, self.resource, BUSY, unhurried=True)

    def _busy(self) -> list[Out]:
        self.local.tried, self.ahead = UN, False
        return [AskCluster(self.lockspace, self.resource, BUSY)]

    def _in_the_way(self) -> bool:
        """Other nodes wait for something that no client here needs."""
        return not compatible(self.held, self.local.asked) and self.local.needed() is not self.held

    def _reconsider(self, outstanding: Outstanding) -> list[Out]:
        """Take the outstanding request back if nobody here wants it any more, or if it must yield."""
        if not outstanding.raises or outstanding.cancelled:
            return []
        local = self.local
        local.fresh = ()  # others' wishes do not undo one that was sent before them
        candidate = local.candidate()
        local.fresh = None
        yields = self._in_the_way()
        if candidate is not None and self._target(*candidate) is outstanding.mode and not yields:
            converts = outstanding.kind is CONVERT
            if not converts or self._deadlock_flags() == outstanding.flags & DEADLOCK:
                return []
        outstanding.cancelled, outstanding.yielded = True, yields
        return [AskCluster(self.lockspace, self.resource, CANCEL)]

    def _refuse_hopeless(self, asked_for: Lock | None) -> list[Out]:
        """NOQUEUE requests that waited for an answer which would not serve them now."""
        return [
            self._refuse(lock, errno.EAGAIN, ())
            for lock in [*self.local.converting, *self.local.waiting]
            if lock.flags & Flag.NOQUEUE and lock is not asked_for and not self.local.awaits_word(lock)
        ]

    def _target(self, lock: Lock, mode: Mode) -> Mode:
        """What the node must hold for a client to have this mode, without giving up anything meanwhile.

        What is held counts too: clients may be let in under it, or cancel a conversion and go on with
        it, before the answer is here.  (PR to CW thus asks for PW, which is as easy to get: nobody else
        can hold CW beside our PR.)"""
        if mode is not lock.wanted and self.local.either_will_do(lock):
            mode = lock.wanted
        return supremum(self.held, mode)

    def _raise(self, lock: Lock, mode: Mode) -> AskCluster:
        """Ask for what the client wants, or at the second attempt for its alternative."""
        target = self._target(lock, mode)
        flags = Flag.VALBLK | (lock.flags & PASSED_ON)
        if not flags & Flag.NOQUEUE:
            flags &= ~Flag.NOQUEUEBAST
            if self.local.alternative(lock) is not UN and lock.owner not in self.local.settled:
                flags |= Flag.NOQUEUE if mode is lock.wanted else 0
        if mode is not lock.wanted and self.local.either_will_do(lock):
            flags |= lock.flags & ALTERNATIVES
        if flags & Flag.NOQUEUE and self.keep is not NEVER:
            flags |= Flag.TRY
        if self.held is UN:
            kind = REQUEST
            flags |= lock.flags & Flag.EXPEDITE
        else:
            kind = CONVERT
            flags |= self._deadlock_flags()
            if target is not self.held and not flags & Flag.YIELDS:
                flags |= lock.flags & Flag.QUECVT
        queued = tuple(one.owner for one in (*self.local.converting, *self.local.waiting))
        self.local.outstanding = Outstanding(kind, target, flags, True, lock.owner, queued)
        return AskCluster(self.lockspace, self.resource, kind, target, int(flags))

    def _at_stake(self) -> list[Lock]:
        """Clients that wait with a mode in hand which others may wait for, oldest first.

        NL is in nobody's way.  If the node holds more than it needs, it can give that back instead."""
        if self.local.needed() is not self.held:
            return []
        return [lock for lock in self.local.converting if lock.held > Mode.NL]

    def _deadlock_flags(self) -> int:
        at_stake = self._at_stake()
        if not at_stake:
            return Flag.YIELDS
        return Flag.NODLCKWT if all(lock.flags & Flag.NODLCKWT for lock in at_stake) else 0

    def _lower(self, target: Mode) -> list[Out]:
        """Give back what lies above `target`, and send on the value block if a client wrote it."""
        flags, lvb = 0, None
        if self._unwritten:
            flags, lvb = (Flag.VALBLK, self.local.lvb) if self.local.lvb_valid else (Flag.IVVALBLK, None)
            self._unwritten = False
        self.local.ceiling = target
        kind = UNLOCK if target is UN else CONVERT
        self.local.outstanding = Outstanding(kind, target, flags)
        return [AskCluster(self.lockspace, self.resource, kind, target, int(flags), lvb)]

    def place(self, lock_id: int) -> Place:
        """Of a client that waits."""
        lock = self.local.find(lock_id)
        assert lock is not None
        behind: list[int] = []
        for one in reversed(self.local.queued_ahead(lock)):
            behind.append(one.owner)
            if not one.flags & (Flag.NOQUEUE | Flag.NOORDER):
                break
        asked = self.local.outstanding
        heads = asked is not None and asked.raises and asked.client == lock_id
        return Place(heads, tuple(behind), lock.held is UN and self.local.closed)

    # -- helpers -----------------------------------------------------------------------------

    def _value(self) -> tuple[int, bool]:
        return (self.local.lvb_seq, self.local.lvb_valid)

    def _writer(self, lock_id: int, before: tuple[int, bool]) -> int | None:
        """The client, if its operation changed the value block."""
        if self._value() == before:
            return None
        assert self.held >= Mode.PW, "a client wrote what its node may not write"
        self._unwritten = True
        return lock_id

    def _refuse(self, lock: Lock, number: int, holders: tuple[tuple[int, Mode], ...]) -> ClientRefused:
        self.local.withdraw(lock.owner)
        self._forget_client(lock.owner)
        return ClientRefused(lock.owner, number, holders)

    def _tell(self, effects: list[Effect], writer: int | None = None) -> list[Out]:
        outs: list[Out] = []
        for effect in effects:
            if isinstance(effect, Granted):
                if self.local.outstanding is not None:  # granted by other means than its answer: see below
                    self._forget_client(effect.owner)
                self._say(outs, self._stamp(effect), later=effect.owner == writer)
            elif isinstance(effect, Refused):
                lock = self.local.find(effect.owner)
                if lock is None or lock.wanted is UN:
                    # The cluster's answer, if one is on its way, must not be taken for that to its next wish.
                    self._forget_client(effect.owner)
                outs.append(ClientRefused(effect.owner, effect.errno))
            elif isinstance(effect, Blocking):
                if effect.wants is UN or (effect.tries and effect.owner not in self.local.caching):
                    continue  # of a mere try only those are told who can do something about it
                early = any(one.lock_id == effect.owner for one in self._withheld)
                notice = ClientBlocking(effect.owner, effect.wants, effect.tries)
                self._say(outs, notice, later=early)
            elif isinstance(effect, Cancelled):
                outs.append(ClientCancelled(effect.owner, effect.held))
            elif isinstance(effect, Released):
                at_once = self.keep is not NEVER and effect.owner != writer
                self._say(outs, ClientReleased(effect.owner), later=not at_once)
        return outs

    def _say(
        self, outs: list[Out], out: ClientReleased | ClientGranted | ClientBlocking, *, later: bool
    ) -> None:
        if later:
            self._withheld += (out,)
        else:
            outs.append(out)

    def _stamp(self, effect: Granted) -> ClientGranted:
        lock = self.local.find(effect.owner)
        assert lock is not None
        assert self.token is not None
        lock.token = self.token
        return ClientGranted(
            effect.owner, effect.mode, self.token, effect.lvb, effect.lvb_valid,
            effect.demoted, effect.altmode,
        )  # fmt: skip

    def _check(self) -> None:
        assert covers(self.held, self.local.needed()), "clients hold more than their node"
        assert covers(self.local.ceiling, self.local.needed())
        assert not self._unwritten or self.held >= Mode.PW


def first_asked(
    lockspace: str, resource: str, lock_id: int, mode: Mode, flags: int, now_ms: int
) -> NodeLock:
    """A node's lock, not kept, of which there was nothing yet: as the first client's wish makes it."""
    waiting, outstanding = _first_wish(lock_id, mode, flags, NEVER, now_ms)
    local = Local(resource, waiting=waiting, outstanding=outstanding)
    return NodeLock(lockspace, local, keep=NEVER)


def asked_ahead(lockspace: str, resource: str, mode: Mode) -> NodeLock:
    """A node's lock of which there was nothing yet, and that no client wants yet."""
    asked = Outstanding(REQUEST, mode, AHEAD_FLAGS, True)
    return NodeLock(lockspace, Local(resource, outstanding=asked))


def _first_wish(
    lock_id: int, mode: Mode, flags: int, keep: Keep, now_ms: int
) -> tuple[tuple[Lock, ...], Outstanding]:
    """The only client's wish, and what the cluster is asked for its sake."""
    wish = Lock(lock_id, UN, mode, _tries(flags), None, now_ms)
    flags = asked_alone(flags, keep is not NEVER)
    return (wish,), Outstanding(REQUEST, mode, flags, True, lock_id, (lock_id,))


def asked_alone(flags: int, keeps: bool) -> int:
    """What the cluster is asked with for the only client, by its own flags (of PLAIN ones)."""
    tries = flags & Flag.NOQUEUE
    return Flag.VALBLK | tries | (Flag.TRY if tries and keeps else 0)


def _tries(flags: int) -> int:
    """A client's flags inside its node: it reads the value block, and NOQUEUE asks those who cache."""
    return flags | Flag.VALBLK | (Flag.TRY if flags & Flag.NOQUEUE else 0)
