"""Locks of client connections: they live and end with their connection."""

import base64
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from ringfence.core.errors import BadInput, LocksLost, NotFound, Refused, RingfenceError
from ringfence.core.listed import listed
from ringfence.core.locknames import lockspace_name, resource_name
from ringfence.core.modes import MODE_NAMES, MODES, UN, Mode
from ringfence.engine.context import Context
from ringfence.engine.effects import Answer
from ringfence.engine.locker import TRY_MS, Locker
from ringfence.engine.orders import Held
from ringfence.engine.uses import Done, Owned, Owner, Use
from ringfence.fencing.explain import clock
from ringfence.locks.flags import FOR_CLIENTS, Flag
from ringfence.locks.queues import EMPTY_LVB
from ringfence.wire import client as calls
from ringfence.wire.client import Reply

OWNER_BYTES = 64
OWNERS_KEPT = 100
"""Of one connection: the oldest names are made anew, should they come again."""
WAITED, TRIED = 1, 2
SHOWN = 4
"""So many of the locks in the way of a leave are named."""


class Recall(msgspec.Struct):
    """What clients cache, asked back because this node wants to leave."""

    unasked: deque[tuple[int, int]]
    """(connection, lock)."""
    owed: deque[tuple[int, int]]
    until_ns: int


class ClientLocks:
    def __init__(self, context: Context, locker: Locker) -> None:
        self._context = context
        self._locker = locker
        self._clients: dict[int, dict[int, Owned]] = {}
        """What each connection holds and waits for, oldest first."""
        self._lost: list[tuple[int, dict[int, Owned]]] = []
        """The same of a life that is over: each of these is still to be told."""
        self._owners: dict[int, dict[tuple[str, str], Owner]] = {}
        """Connection -> on whose behalf it takes locks, by the owner or the thread that its requests name."""
        self._cached = itertools.count(1)
        self.answers: dict[type, Callable[[int, str, Any, str], None]] = {
            calls.Lock: self.lock,
            calls.Unlock: self.unlock,
            calls.Convert: self.convert,
            calls.Cancel: self.cancel,
            calls.Busy: self.busy,
        }
        """Of each of LOCK_CALLS: called with (connection, request, call, who is asking).  It raises
        RingfenceError for what is refused at once."""
        locker.on_blocking = self._blocking

    def lock(self, client: int, id: str, call: calls.Lock, who: str) -> None:
        """Raises BadInput for a mode, flags or a name that cannot be."""
        mode = MODES.get(call.mode) or _mode(call.mode)
        if call.wait_ms is not None:
            _check_wait(call.wait_ms)
        if call.flags:
            _check_flags(call.flags)
        if call.cached and (call.flags & ~Flag.VALBLK or mode <= Mode.CR):
            raise BadInput(
                "a cached lock is CW, PR, PW or EX and has no flags", next="take it without cached"
            )
        if call.lvb is not None:
            raise BadInput("a new lock writes no value block", next="give it when you convert or unlock")
        owned = Owned(id, call.notices or call.cached, cached=call.cached)
        owner = self._owner(client, call, who)

        if not (call.flags or call.cached or call.wait_ms == 0):
            held = self._locker.take_kept(call.lockspace, call.resource, mode, client, owner)
            if held is not None:
                self._granted(client, owned, held)
                return

        def done(result: Held | RingfenceError | None) -> None:
            if isinstance(result, Held):
                self._granted(client, owned, result)
            elif isinstance(result, RingfenceError):
                self._disown(client, owned.lock)
                self._send(client, Reply(id, error=result.as_dict()))

        where = lockspace_name(call.lockspace), resource_name(call.resource)
        if not self._context.speaks_whole_dlm:
            for name in where:
                self._context.check_name(name)
        lock = self._locker.acquire(
            *where, mode, call.wait_ms, done,
            flags=call.flags, client=client, cached=call.cached, owner=owner, deadlock=call.deadlock,
        )  # fmt: skip
        if not owned.lock and self._locker.use(lock) is not None:
            self._own(client, lock, owned)

    def _granted(self, client: int, owned: Owned, held: Held) -> None:
        self._own(client, held.lock, owned)
        told = _told(held)
        if owned.cached:
            told["incarnation"] = self._context.life.incarnation
        self._send(client, Reply(owned.request, told, final=not owned.notices))

    def convert(self, client: int, id: str, call: calls.Convert, who: str) -> None:
        owned = self._mine(client, call.lock)
        answer = self._answer(client, id, call.lock)
        mode = _mode(call.mode)
        if call.wait_ms is not None:
            _check_wait(call.wait_ms)
        _check_flags(call.flags)
        if not owned.converting:
            owned.converting = id

        def done(result: Held | RingfenceError | None) -> None:
            if owned.converting == id:
                owned.converting = ""
            answer(result)

        self._locker.convert(
            call.lock, mode, call.wait_ms, done, flags=call.flags, lvb=call.lvb, deadlock=call.deadlock
        )

    def unlock(self, client: int, id: str, call: calls.Unlock, who: str) -> None:
        owned = self._mine(client, call.lock)
        if call.flags:
            _check_flags(call.flags)
        elif call.lvb is None and self._locker.leave_kept(call.lock):
            self._released(client, id, call, owned)
            return

        def done(result: Held | RingfenceError | None) -> None:
            if result is None:
                self._released(client, id, call, owned)
            else:
                self._answer(client, id, call.lock)(result)

        self._locker.release(call.lock, done, flags=call.flags, lvb=call.lvb)

    def _released(self, client: int, id: str, call: calls.Unlock, owned: Owned) -> None:
        self._disown(client, call.lock)
        if owned.notices:
            self._send(client, Reply(owned.request, result={"released": True, "lock": call.lock}))
        if not call.quiet:
            self._send(client, Reply(id, result={"released": True}))

    def cancel(self, client: int, id: str, call: calls.Cancel, who: str) -> None:
        """An operation that waits ends with an error; what a Lock got meanwhile is released."""
        cancelled = False
        for lock, owned in reversed(self._clients.get(client, {}).items()):
            if call.request in (owned.request, owned.converting or owned.request):
                cancelled = True
                self._take_back(client, lock, owned, call.request == owned.converting)
                break
        self._send(client, Reply(id, result={"cancelled": cancelled}))

    def _take_back(self, client: int, lock: int, owned: Owned, converting: bool) -> None:
        use = self._locker.use(lock)
        assert use is not None, "a lock of a connection that the locker does not know"
        if converting or use.held is None:
            self._locker.give_up(lock, Refused(f"{use.what} is not waited for any more"))
            return
        self._disown(client, lock)
        self._locker.leave_behind([lock])
        if owned.notices:
            self._send(client, Reply(owned.request, result={"released": True, "lock": lock}))

    def busy(self, client: int, id: str, call: calls.Busy, who: str) -> None:
        owned = self._mine(client, call.lock)
        owned.unanswered &= ~TRIED
        owned.needed = True
        self._locker.busy(call.lock)
        self._send(client, Reply(id, result={}))

    def gone(self, client: int) -> None:
        """The connection ended; so do its locks."""
        self._owners.pop(client, None)
        locks = self._clients.pop(client, {})
        self._locker.drop(locks)
        self._context.discarded.append(locks)

    def take_away(self, lockspace: str) -> int:
        """This node leaves a lockspace by force: clients are told that their locks are lost, and they are.

        Returns how many there are; if they are many, it goes on in later steps (`Locker.ends`).

        Raises Refused, with nothing done, if not only clients have."""
        me = self._context.name(self._context.me)
        lost = LocksLost(f"{me} leaves lockspace {lockspace} by force: its locks there are lost", node=me)

        def taken(use: Use) -> None:
            owned = self._clients.get(use.client, {}).get(use.lock)
            if use.done is not None:
                use.done(lost)
            if owned is not None and use.held is not None:
                self._disown(use.client, use.lock)
                self._send(use.client, Reply(owned.request, result={"lost": True, "lock": use.lock}))

        uses = [self._locker.use(lock) for locks in self._clients.values() for lock in locks]
        mine = [use.lock for use in uses if use is not None and use.lockspace == lockspace]
        self._locker.take_away(lockspace, mine, taken)
        return len(mine)

    def end_all(self) -> None:
        """This node leaves the cluster: nobody waits for a lock here any more.

        A lock that a client holds is not taken from it: it would go on believing in it, under
        authority that is still valid, while another node is granted the same.

        Raises Refused, with nothing done, while a client holds a lock that it does not merely cache."""
        mine = [(owned, use) for _, owned, use in self._uses()]
        held = [use for owned, use in mine if use.held is not None and not _may_come_back(owned, use)]
        if held:
            raise in_use(self._context, held)
        leaving = Refused(f"{self._context.name(self._context.me)} leaves the cluster", retry=True)
        for _, use in mine:
            self._locker.give_up(use.lock, leaving)

    def recall(self, lockspaces: Sequence[str], *, for_good: bool) -> Recall:
        """Begin to ask for what clients cache there, as for a try's sake: see `recalled`.

        Raises Refused, with nothing done, if anybody has a lock there that it does not merely cache; where
        the node leaves `for_good`, who waits was refused already, and is waited for."""
        recall = Recall(deque(), deque(), self._context.now_ns + TRY_MS * 1_000_000)
        used: list[Use] = []
        for client, owned, use in self._uses():
            if use.lockspace not in lockspaces:
                continue
            if _may_come_back(owned, use):
                recall.unasked.append((client, use.lock))
            elif use.held is None and for_good:
                recall.owed.append((client, use.lock))
            else:
                used.append(use)
        if used:
            raise in_use(self._context, used)
        return recall

    def recalled(self, recall: Recall) -> bool:
        """Whether all of it is back; ask again after every step.

        Raises Refused if one of them is in use, or was not given back within the time of a try."""
        for _ in range(min(len(recall.unasked), self._context.at_once)):
            client, lock = one = recall.unasked.popleft()
            owned, use = self._clients.get(client, {}).get(lock), self._locker.use(lock)
            if owned is not None and use is not None:
                recall.owed.append(one)
                owned.needed = False
                if use.done is None:
                    self._blocking(client, lock, Mode.EX, tries=True)
        if recall.unasked or self._locker.dropping:
            self._context.more = True
            return False
        late = self._context.now_ns >= recall.until_ns
        while recall.owed:
            client, lock = recall.owed[0]
            owned = self._clients.get(client, {}).get(lock)
            if owned is not None and (owned.needed or late):
                raise self._kept_back(recall)
            if owned is not None:
                return False
            recall.owed.popleft()
        return True

    def _kept_back(self, recall: Recall) -> Refused:
        needed: list[Use] = []
        silent: list[Use] = []
        for client, lock in recall.owed:
            owned, use = self._clients.get(client, {}).get(lock), self._locker.use(lock)
            if owned is not None and use is not None:
                (needed if owned.needed else silent).append(use)
        if needed:
            return in_use(self._context, needed)
        return Refused(
            f"no answer came whether these cached locks are in use: {_listed(silent)}",
            next="end their clients (ringfence locks), then leave again",
            retry=True,
        )

    def _uses(self) -> Iterator[tuple[int, Owned, Use]]:
        for client, locks in self._clients.items():
            for lock, owned in locks.items():
                use = self._locker.use(lock)
                if use is not None:
                    yield client, owned, use

    def cached_line(self, use: Use) -> str:
        """For `why`: that a lock is cached, and what its client was told; empty: it is not."""
        owned = self._clients.get(use.client, {}).get(use.lock)
        if owned is None or not owned.cached:
            return ""
        if owned.unanswered & TRIED:
            return f"it caches it, and has not answered since {clock(owned.asked_ms)} whether it needs it"
        if owned.unanswered:
            return f"it caches it, and was asked for it at {clock(owned.asked_ms)}"
        return "it caches it: it is asked when somebody wants it"

    def lost(self) -> None:
        """This life is stale.  What was in flight has been answered; every holder is told."""
        self._lost += self._clients.items()
        self._clients = {}
        self.look()

    def look(self) -> None:
        """Tell some of those who have lost their locks."""
        for _ in range(self._context.at_once):
            while self._lost and not self._lost[-1][1]:
                self._lost.pop()
            if not self._lost:
                return
            client, locks = self._lost[-1]
            lock, owned = locks.popitem()
            self._send(client, Reply(owned.request, result={"lost": True, "lock": lock}))
        self._context.more = True

    def _blocking(self, client: int, lock: int, wants: Mode, tries: bool) -> None:
        owned = self._clients.get(client, {}).get(lock)
        word = TRIED if tries else WAITED
        if owned is not None and owned.notices and owned.lock and not owned.unanswered & word:
            if owned.cached:
                owned.unanswered |= word
                owned.asked_ms = self._context.wall_ms
            told: dict[str, Any] = {"blocking": wants.name, "lock": lock}
            if tries:
                told["tries"] = True
            self._send(client, Reply(owned.request, result=told, final=False))

    def _owner(self, client: int, call: calls.Lock, who: str) -> Owner:
        """Raises BadInput for a name that is too long to be told to every node."""
        if call.cached and not call.owner:
            return Owner(f"cached lock {next(self._cached)}", who)
        known = self._owners.setdefault(client, {})
        key = (call.owner, "" if call.owner else call.thread)
        owner = known.get(key)
        if owner is None:
            owner = _named(client, *key, who)
            if len(known) >= OWNERS_KEPT:
                del known[next(iter(known))]
            known[key] = owner
        return owner

    def _answer(self, client: int, id: str, lock: int) -> Done:
        def done(result: Held | RingfenceError | None) -> None:
            if isinstance(result, RingfenceError):
                use = self._locker.use(lock)
                if use is None:
                    self._disown(client, lock)
                # Not the mode that it held when it asked: so it is told what it holds.
                demoted = use.held if use is not None and use.held is not None and use.held.demoted else None
                self._send(client, Reply(id, _told(demoted) if demoted else None, result.as_dict()))
            else:
                self._send(client, Reply(id, result=_told(result) if result else {"released": True}))

        return done

    def _own(self, client: int, lock: int, owned: Owned) -> None:
        owned.lock = lock
        self._clients.setdefault(client, {})[lock] = owned

    def _disown(self, client: int, lock: int) -> None:
        locks = self._clients.get(client)
        if locks is not None:
            locks.pop(lock, None)
            if not locks:
                del self._clients[client]

    def _mine(self, client: int, lock: int) -> Owned:
        owned = self._clients.get(client, {}).get(lock)
        if owned is None:
            raise NotFound(f"lock {lock} is not one of this connection's", next="ringfence locks")
        return owned

    def _send(self, client: int, reply: Reply) -> None:
        self._context.effects.append(Answer(client, reply))


def _named(client: int, name: str, thread: str, who: str) -> Owner:
    if len((name or thread).encode("utf-8", "surrogatepass")) > OWNER_BYTES:
        raise BadInput(f"an owner's name has at most {OWNER_BYTES} bytes", next="shorten it")
    if name:
        return Owner(name, who, named=True)
    return Owner(f"thread {thread}" if thread else f"connection {client}", who)


def in_use(context: Context, uses: Sequence[Use]) -> Refused:
    return Refused(
        f"{context.name(context.me)} still has locks in use: {_listed(uses)}",
        next="end their clients or let them unlock (ringfence locks), then leave again",
        retry=True,
    )


def _listed(uses: Sequence[Use]) -> str:
    """Which locks, and whose they are."""
    names = [f"{use.what} ({use.owner.who})" if use.owner and use.owner.who else use.what for use in uses]
    return listed(sorted(names), SHOWN)


def _may_come_back(owned: Owned, use: Use) -> bool:
    """Whether it is merely cached, as far as is known here, or is being released already."""
    if use.done is None:
        return owned.cached and use.held is not None
    return use.wanted is UN


def _check_wait(wait_ms: int) -> None:
    if wait_ms < 0:
        raise BadInput(f"to wait for {wait_ms} ms cannot be", next="give 0 to try, or none to wait for ever")


def _check_flags(flags: int) -> None:
    if flags & ~FOR_CLIENTS:
        raise BadInput(f"flags {flags:#x} are not all known here", next="see dlm_lock(3)")


def _mode(name: str) -> Mode:
    mode = MODES.get(name)
    if mode is None:
        raise BadInput(f"{name!r} is no lock mode", next="give NL, CR, CW, PR, PW or EX")
    return mode


def _told(held: Held) -> dict[str, Any]:
    lvb = held.lvb
    text = calls.NO_VALUE if lvb == EMPTY_LVB else None if lvb is None else base64.b64encode(lvb).decode()
    return {
        "lock": held.lock,
        "mode": MODE_NAMES[held.mode],
        "token": str(held.token),
        "lvb": text,
        "lvb_valid": lvb is not None,
        "demoted": held.demoted,
        "altmode": held.altmode,
    }
