"""This node's clients under this node's cluster locks: a table of `NodeLock`s.

Pure, one instance a life of a node, not replicated.  Methods take what clients ask and what the
ordered state answered, and return what must be sent and told, in order.  Each client operation has
one completion: ClientGranted, ClientRefused, ClientReleased, ClientCancelled or ClientLost; except
that a cancel which finds nothing to take back has none (the completion crossed it).

A client that ends without unlocking leaves its PERSISTENT locks behind as *orphans*: they count as
before, until somebody adopts them (ORPHAN) or they are purged.  They end with this life of the node."""

import errno
from bisect import insort
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from operator import itemgetter
from typing import Any

from ringfence.core.ids import Token
from ringfence.core.locknames import is_lockspace_name, is_resource_name
from ringfence.core.modes import UN, Mode
from ringfence.locks.flags import CLIENTS_OWN, NODES_OWN, Flag
from ringfence.locks.holdings import Place, Row
from ringfence.locks.local import Local
from ringfence.locks.lockspace import check_names
from ringfence.locks.node_lock import AHEAD_FLAGS, NodeLock, asked_ahead, asked_alone, first_asked
from ringfence.locks.outs import (
    AskCluster,
    AskMany,
    ClientBlocking,
    ClientCancelled,
    ClientGranted,
    ClientLost,
    ClientRefused,
    ClientReleased,
    Out,
)
from ringfence.locks.queues import REQUEST, UNLOCK, Lock

__all__ = [
    "AskCluster",
    "AskMany",
    "ClientBlocking",
    "ClientCancelled",
    "ClientGranted",
    "ClientLost",
    "ClientRefused",
    "ClientReleased",
    "NodeLocks",
    "Out",
    "Place",
    "Row",
]


class NodeLocks:
    def __init__(self) -> None:
        self._spaces: dict[str, dict[str, NodeLock]] = {}
        """Lockspace -> resource -> this node's lock; no lockspace without any."""
        self._of: dict[int, NodeLock] = {}
        """Lock id -> what it is a lock of."""
        self._persistent: dict[int, bool] = {}
        """Lock ids that bear PERSISTENT -> whether they are orphans; in the order of their becoming one."""
        self.holding: deque[tuple[int, NodeLock]] = deque()
        """(end, lock) of the minimum hold times that run, the next to end first."""

    # -- clients -----------------------------------------------------------------------

    def request(
        self,
        lock_id: int,
        lockspace: str,
        resource: str,
        mode: Mode,
        *,
        flags: int = 0,
        lvb: bytes | None = None,
        keep: bool = True,
        cached: bool = False,
        now_ms: int = 0,
    ) -> list[Out]:
        """A client wants a lock; `lock_id` is new and chosen by the caller.

        cached=True: once granted the client may not be using it.  It makes no try fail before it has been
        asked (ClientBlocking with `tries`) and has said `busy`.

        keep=False: this resource's cluster lock is given back with its last client.  That client is
        told Released only when the cluster knows, so that whoever is told next can take the lock.

        Raises BadInput for an impossible name."""
        lock = self._find(lockspace, resource)
        if lock is None:
            check_names(lockspace, resource)
        if lock_id in self._of or flags & NODES_OWN:
            return [ClientRefused(lock_id, errno.EINVAL)]
        if lock is None:
            lock = self._new(lockspace, resource)
        self._of[lock_id] = lock
        if flags & Flag.PERSISTENT:
            self._persistent[lock_id] = False
        outs = lock.request(lock_id, mode, flags & ~CLIENTS_OWN, lvb, keep, cached, now_ms)
        return self._done(lock, outs)

    def request_many(
        self,
        lockspace: str,
        wishes: Sequence[tuple[int, str]],
        mode: Mode,
        flags: int,
        now_ms: int,
    ) -> tuple[list[Out], list[int]]:
        """`request` of many clients, each (lock id, resource), where this node has nothing yet to do with it.
        Their cluster locks are not kept after them.

        Args: flags: NOQUEUE or none; the value block is read.
        Returns: what follows; and the ids of those others for whom nothing was done."""
        asked: list[str] = []
        others: list[int] = []
        space = self._spaces.get(lockspace, {})
        if not is_lockspace_name(lockspace):
            return [], [lock_id for lock_id, _ in wishes]
        for lock_id, resource in wishes:
            if resource in space or lock_id in self._of or not is_resource_name(resource):
                others.append(lock_id)
                continue
            lock = first_asked(lockspace, resource, lock_id, mode, flags, now_ms)
            space[resource] = self._of[lock_id] = lock
            asked.append(resource)
        if not asked:
            return [], others
        self._spaces[lockspace] = space
        flags = asked_alone(flags, keeps=False)
        return [AskMany(lockspace, tuple(asked), REQUEST, mode, flags)], others

    def ask_ahead(self, lockspace: str, resources: Sequence[str], mode: Mode) -> list[Out]:
        """Ask for locks that clients may want soon, but for those that this node has, or asks for, already.

        Nobody is told what becomes of them; `give_back` is for what no client has wanted."""
        space = self._spaces.get(lockspace, {})
        asked = [one for one in resources if one not in space and is_resource_name(one)]
        if not asked or not is_lockspace_name(lockspace):
            return []
        self._spaces[lockspace] = space
        space.update({one: asked_ahead(lockspace, one, mode) for one in asked})
        return [AskMany(lockspace, tuple(asked), REQUEST, mode, int(AHEAD_FLAGS))]

    def take_ahead(
        self, lock_id: int, lockspace: str, resource: str, mode: Mode, now_ms: int
    ) -> ClientGranted | None:
        """`request`, without `keep`, of what this node has asked for ahead, and has.  That it is used (BUSY)
        the caller says.

        None: it is not so, and nothing was done."""
        lock = self._find(lockspace, resource)
        taken = lock.take_ahead(lock_id, mode, now_ms) if lock is not None else None
        if lock is not None and taken is not None:
            self._of[lock_id] = lock
        return taken

    def take_kept(
        self, lock_id: int, lockspace: str, resource: str, mode: Mode, now_ms: int
    ) -> ClientGranted | None:
        """`request`, with `keep` and without flags, of what this node keeps and no client has or wants.

        None: it is not so, and nothing was done; also for names that cannot be."""
        space = self._spaces.get(lockspace)
        lock = space.get(resource) if space is not None else None
        taken = lock.take_kept(lock_id, mode, now_ms) if lock is not None else None
        if lock is not None and taken is not None:
            self._of[lock_id] = lock
        return taken

    def leave_kept(self, lock_id: int) -> bool:
        """`unlock`, without flags, of the only client of a resource, of which the cluster lock is kept.

        False: it is not so, and nothing was done."""
        lock = self._of.get(lock_id)
        if lock is None or not lock.leave_kept(lock_id):
            return False
        del self._of[lock_id]
        if self._persistent:
            self._persistent.pop(lock_id, None)
        return True

    def adopt(self, lockspace: str, resource: str, mode: Mode, *, flags: int = 0) -> list[Out]:
        """Take over an orphan (ORPHAN), PERSISTENT again or not; its lock id stands in the first answer.

        Refused, with 0 for a lock id: EAGAIN if orphans of this name have other modes, ENOENT if there is
        none (lock.c, `dlm_user_adopt_orphan`).  Who waits for it is told anew.

        Raises BadInput for an impossible name."""
        check_names(lockspace, resource)
        found = self.orphans(lockspace, resource)
        if not found:
            return [ClientRefused(0, errno.ENOENT)]
        for lock_id in found:
            lock = self.find(lock_id)
            assert lock is not None
            assert lock.token is not None
            if lock.held is mode:
                del self._persistent[lock_id]
                self._persist(lock_id, flags)
                wants = [] if lock.notified is UN else [ClientBlocking(lock_id, lock.notified)]
                return [ClientGranted(lock_id, mode, lock.token), *wants]
        return [ClientRefused(0, errno.EAGAIN)]

    def restore(self, lock_id: int, lockspace: str, resource: str, mode: Mode, held: Lock) -> list[Out]:
        """What a client held under an earlier life of this node it still holds.

        Args:
            held: the node's lock in the ordered state, which is not kept after its last client."""
        lock = self._find(lockspace, resource) or self._new(lockspace, resource)
        self._of[lock_id] = lock
        return self._done(lock, lock.restore(lock_id, mode, held))

    def convert(
        self, lock_id: int, mode: Mode, *, flags: int = 0, lvb: bytes | None = None, now_ms: int = 0
    ) -> list[Out]:
        """Change a granted lock's mode.  From PW or EX to no higher mode, `lvb` is written."""
        lock = self._of.get(lock_id)
        if lock is None:
            return [ClientRefused(lock_id, errno.ENOENT)]
        if flags & NODES_OWN:
            return [ClientRefused(lock_id, errno.EINVAL)]
        outs = lock.convert(lock_id, mode, flags & ~CLIENTS_OWN, lvb, now_ms)
        if outs[:1] not in ([ClientRefused(lock_id, errno.EINVAL)], [ClientRefused(lock_id, errno.EBUSY)]):
            self._persist(lock_id, flags)  # the last operation's flags count (lock.c, `lkb_exflags`)
        return self._done(lock, outs)

    def unlock(
        self, lock_id: int, *, flags: int = 0, lvb: bytes | None = None, keep: bool = False
    ) -> list[Out]:
        """Release a granted lock; from PW or EX, `lvb` is written.  EBUSY while it waits or converts.

        keep: the cluster lock is kept, also one that is not otherwise, until it is asked for, or `give_back`.

        With FORCEUNLOCK also then; the operation in flight is answered first (ClientCancelled).  With
        CANCEL it is `cancel`, and EBUSY if there is nothing to take back."""
        lock = self._of.get(lock_id)
        if lock is None:
            return [ClientRefused(lock_id, errno.ENOENT)]
        return self._done(lock, lock.unlock(lock_id, flags, lvb, keep))

    def unlock_many(self, lock_ids: Sequence[int]) -> tuple[list[Out], list[int]]:
        """`unlock` of the last clients that this node has of their resources, where all is up to the cluster.

        Returns: what follows; and the ids of those others for whom nothing was done."""
        asked: dict[str, list[str]] = {}
        others: list[int] = []
        for lock_id in lock_ids:
            lock = self._of.get(lock_id)
            if lock is not None and lock.ends_with(lock_id):
                asked.setdefault(lock.lockspace, []).append(lock.resource)
            else:
                others.append(lock_id)
        return [AskMany(space, tuple(names), UNLOCK) for space, names in asked.items()], others

    def busy(self, lock_id: int) -> list[Out]:
        """A client that caches uses its lock: refuse those who try for it."""
        lock = self._of.get(lock_id)
        return [] if lock is None else self._done(lock, lock.busy(lock_id))

    def cancel(self, lock_id: int) -> list[Out]:
        """Take back a request or conversion that waits; the answer is at once."""
        lock = self._of.get(lock_id)
        return [] if lock is None else self._done(lock, lock.cancel(lock_id))

    def drop(self, lock_ids: Collection[int]) -> list[Out]:
        """These locks and requests vanish, and nothing is told to their clients.

        Where one of them could write, the value block is no longer valid (the DLM's IVVALBLK)."""
        gone: dict[tuple[str, str], list[int]] = {}
        for one in lock_ids:
            lock = self._of.get(one)
            if lock is not None:
                gone.setdefault((lock.lockspace, lock.resource), []).append(one)
        outs: list[Out] = []
        for where in sorted(gone):
            lock = self._spaces[where[0]][where[1]]
            for one in gone[where]:
                del self._of[one]
                self._persistent.pop(one, None)
            outs += self._done(lock, lock.drop(gone[where]))
        return outs

    def client_ended(self, lock_ids: Collection[int]) -> list[Out]:
        """A client ended without unlocking: persistent locks become orphans, what else it had is dropped.

        What an orphan still converted to is taken back."""
        outs: list[Out] = []
        orphans: list[int] = []
        for lock_id in sorted(one for one in lock_ids if one in self._persistent):
            lock, mine = self._of.get(lock_id), self.find(lock_id)
            if lock is None or mine is None or mine.held is UN:
                continue
            orphans.append(lock_id)
            del self._persistent[lock_id]
            self._persistent[lock_id] = True
            outs += lock.orphan(lock_id)
        return outs + self.drop([one for one in lock_ids if one not in orphans])

    # -- the cluster's answers and notices ---------------------------------------------------

    def on_granted(
        self,
        lockspace: str,
        resource: str,
        mode: Mode,
        token: Token,
        lvb: bytes | None,
        lvb_valid: bool,
        demoted: bool = False,
        *,
        hold_until_ms: int = 0,
    ) -> list[Out]:
        """A grant to this node may be used now.  (`demoted` is never so: nodes do not offer it.)

        hold_until_ms: until when this node may serve its own clients before others, see `time_passes`."""
        space = self._spaces.get(lockspace)
        lock = space.get(resource) if space is not None else None
        if lock is None:
            lock = self._new(lockspace, resource)
            return self._done(lock, lock.adopt(mode, token))
        only = lock.grants_alone(mode)
        if only is not None:
            if hold_until_ms:
                self._hold(hold_until_ms, lock)
            return [lock.grant_alone(only, mode, token, lvb, lvb_valid, hold_until_ms)]
        outs = lock.on_granted(mode, token, lvb, lvb_valid, hold_until_ms)
        if hold_until_ms and lock.local.hold_until_ms == hold_until_ms:
            self._hold(hold_until_ms, lock)
        return self._done(lock, outs)

    def on_granted_many(
        self,
        lockspace: str,
        resources: Sequence[str],
        mode: Mode,
        tokens: Sequence[Token],
        lvb: bytes | None,
        *,
        hold_until_ms: int = 0,
    ) -> list[Out]:
        """`on_granted` of each of these, with values that are valid."""
        space = self._spaces.get(lockspace, {})
        outs: list[Out] = []
        for resource, token in zip(resources, tokens, strict=True):
            lock = space.get(resource)
            only = lock.grants_alone(mode) if lock is not None else None
            if lock is not None and only is not None:
                outs.append(lock.grant_alone(only, mode, token, lvb, True, hold_until_ms))
            elif lock is not None and lock.keeps_ahead():
                lock.keep_ahead(mode, token, lvb, True, hold_until_ms)
            else:
                outs += self.on_granted(
                    lockspace, resource, mode, token, lvb, True, hold_until_ms=hold_until_ms
                )
                continue
            if hold_until_ms:
                self._hold(hold_until_ms, lock)
        return outs

    def on_released_many(self, lockspace: str, resources: Sequence[str]) -> list[Out]:
        """`on_released` of each of these."""
        space = self._spaces.get(lockspace, {})
        outs: list[Out] = []
        for resource in resources:
            lock = space.get(resource)
            told = lock.last_released() if lock is not None else None
            if told is None:
                outs += self.on_released(lockspace, resource)
                continue
            outs.append(told)
            self._of.pop(told.lock_id, None)
            self._persistent.pop(told.lock_id, None)
            del space[resource]
        if not space:
            self._spaces.pop(lockspace, None)
        return outs

    def on_queued(self, lockspace: str, resource: str) -> None:
        """What this node asked for has to wait for others."""
        lock = self._find(lockspace, resource)
        if lock is not None:
            lock.on_queued()

    def on_refused(
        self, lockspace: str, resource: str, errno: int, blockers: tuple[tuple[int, Mode], ...]
    ) -> list[Out]:
        lock = self._find(lockspace, resource)
        if lock is None or lock.local.outstanding is None:
            return []
        return self._done(lock, lock.on_refused(errno, blockers))

    def on_released(self, lockspace: str, resource: str) -> list[Out]:
        lock = self._find(lockspace, resource)
        return [] if lock is None else self._done(lock, lock.on_released())

    def on_cancelled(self, lockspace: str, resource: str, held: Mode) -> list[Out]:
        lock = self._find(lockspace, resource)
        if lock is None or lock.local.outstanding is None:
            return []
        return self._done(lock, lock.on_cancelled(held))

    def on_blocking(
        self, lockspace: str, resource: str, wants: Mode, tries: bool = False, once: bool = False
    ) -> list[Out]:
        lock = self._find(lockspace, resource)
        return [] if lock is None else self._done(lock, lock.on_blocking(wants, tries, once))

    def time_passes(self, now_ms: int) -> None:
        """End the minimum hold times that are over.  Call it before anything else that happens at `now_ms`;
        nothing becomes due by it, so it need not be called for its own sake."""
        while self.holding and self.holding[0][0] <= now_ms:
            end_ms, lock = self.holding.popleft()
            if lock.local.hold_until_ms == end_ms:
                lock.hold_ends()

    # -- this node's life ----------------------------------------------------------------------

    def lost(self, lock_ids: Iterable[int]) -> list[Out]:
        """This life is stale: tell these locks, and others of the same resources.  `clear` follows."""
        outs: list[Out] = []
        for lock_id in lock_ids:
            lock = self._of.get(lock_id)
            outs += lock.on_vanished() if lock is not None else []
        return outs

    def clear(self) -> list[dict[Any, Any]]:
        """Forget everything.  Returns the tables, to be emptied by whoever has the time."""
        tables: list[dict[Any, Any]] = [self._of, *self._spaces.values()]
        self._spaces, self._of, self._persistent = {}, {}, {}
        self.holding.clear()
        return tables

    def give_back(self, lockspace: str, resource: str) -> list[Out]:
        """The node is about to leave: a kept lock is given back.  Ask `holds` after each answer."""
        lock = self._find(lockspace, resource)
        return [] if lock is None else self._done(lock, lock.give_back())

    def give_back_many(self, lockspace: str, resources: Iterable[str]) -> list[Out]:
        """`give_back` of each of these."""
        space = self._spaces.get(lockspace, {})
        alone: list[str] = []
        outs: list[Out] = []
        for resource in resources:
            lock = space.get(resource)
            if lock is None:
                continue
            if lock.gives_back():
                alone.append(resource)
            else:
                outs += self._done(lock, lock.give_back())
        return [AskMany(lockspace, tuple(alone), UNLOCK), *outs] if alone else outs

    # -- reading -------------------------------------------------------------------------------

    def keeps(self, lockspace: str, resource: str) -> bool:
        """Whether this node has a cluster lock there that no client has or wants, be it on its way back."""
        lock = self._find(lockspace, resource)
        return lock is not None and lock.local.empty

    def holds(self, lockspace: str) -> bool:
        """Whether this node has, or may be about to have, any cluster lock of the lockspace."""
        return lockspace in self._spaces

    def spaces(self) -> list[str]:
        """The lockspaces with any of the following."""
        return list(self._spaces)

    def resources(self, lockspace: str) -> list[str]:
        """The resources of which this node has, or may be about to have, a cluster lock."""
        return list(self._spaces.get(lockspace, ()))

    def clients(self, lockspace: str) -> list[int]:
        """Lock ids of clients that hold or want something there."""
        return sorted(lock_id for lock_id, lock in self._of.items() if lock.lockspace == lockspace)

    def orphans(self, lockspace: str, resource: str = "") -> list[int]:
        """Lock ids without a client there, the first orphaned first; resource "": of all."""
        found = [(lock_id, self._of[lock_id]) for lock_id, orphan in self._persistent.items() if orphan]
        return [
            lock_id
            for lock_id, lock in found
            if lock.lockspace == lockspace and resource in ("", lock.resource)
        ]

    def is_orphan(self, lock_id: int) -> bool:
        return self._persistent.get(lock_id, False)

    def where(self, lock_id: int) -> tuple[str, str] | None:
        """(lockspace, resource) of a lock id; None if there is no such lock."""
        lock = self._of.get(lock_id)
        return None if lock is None else (lock.lockspace, lock.resource)

    def find(self, lock_id: int) -> Lock | None:
        """A client's lock or request."""
        lock = self._of.get(lock_id)
        return lock.local.find(lock_id) if lock is not None else None

    def place(self, lock_id: int) -> Place:
        """Where the wish of a client that waits stands."""
        return self._of[lock_id].place(lock_id)

    def blockers(self, lock_id: int) -> list[Lock]:
        """Clients of this node that are in the way of one that waits."""
        lock = self._of.get(lock_id)
        mine = lock.local.find(lock_id) if lock is not None else None
        return lock.local.blockers(mine) if lock and mine and mine.wanted is not UN else []

    def wanted_by_others(self, lock_id: int) -> bool:
        """Whether anybody, here or on another node, waits for the resource of a client's lock."""
        lock = self._of.get(lock_id)
        return lock is not None and (
            bool(lock.local.converting or lock.local.waiting) or lock.local.asked is not UN
        )

    def statistics(self, lockspace: str = "") -> list[Row]:
        """Every client's lock, and every kept one, in the order of names and queues."""
        rows: list[Row] = []
        for name in sorted(self._spaces):
            if lockspace in ("", name):
                for _, lock in sorted(self._spaces[name].items()):
                    rows += self._rows(lock)
        return rows

    def rows(self, lockspace: str, resource: str) -> list[Row]:
        """`statistics` of one resource."""
        lock = self._find(lockspace, resource)
        return self._rows(lock) if lock is not None else []

    # -- helpers ---------------------------------------------------------------------------------

    def _find(self, lockspace: str, resource: str) -> NodeLock | None:
        space = self._spaces.get(lockspace)
        return None if space is None else space.get(resource)

    def _new(self, lockspace: str, resource: str) -> NodeLock:
        lock = NodeLock(lockspace, Local(resource))
        self._spaces.setdefault(lockspace, {})[resource] = lock
        return lock

    def _hold(self, end_ms: int, lock: NodeLock) -> None:
        """It ends last; but not for a moment after the configured time was made shorter."""
        if self.holding and end_ms < self.holding[-1][0]:
            insort(self.holding, (end_ms, lock), key=itemgetter(0))
        else:
            self.holding.append((end_ms, lock))

    def _done(self, lock: NodeLock, outs: list[Out]) -> list[Out]:
        """Forget what has ended."""
        for out in outs:
            if isinstance(out, (ClientReleased, ClientLost)) or (
                isinstance(out, (ClientRefused, ClientCancelled)) and not lock.knows(out.lock_id)
            ):
                self._of.pop(out.lock_id, None)
                if self._persistent:
                    self._persistent.pop(out.lock_id, None)
        if lock.held is UN and lock.idle:
            space = self._spaces.get(lock.lockspace, {})
            if space.get(lock.resource) is lock:
                del space[lock.resource]
                if not space:
                    del self._spaces[lock.lockspace]
        return outs

    def _persist(self, lock_id: int, flags: int) -> None:
        if flags & Flag.PERSISTENT:
            self._persistent[lock_id] = False
        else:
            self._persistent.pop(lock_id, None)

    def _rows(self, lock: NodeLock) -> list[Row]:
        local, names = lock.local, (lock.lockspace, lock.resource)
        kept = local.needed() is not lock.held
        rows = [
            Row(
                *names, one.owner, one.held, one.wanted, lock.held, kept, one.since_ms, one.token,
                self._persistent.get(one.owner, False),
            )
            for one in (*local.granted, *local.converting, *local.waiting)
        ]  # fmt: skip
        if not rows and lock.held is not UN:
            rows.append(Row(*names, None, UN, UN, lock.held, True, 0, lock.token))
        return rows
