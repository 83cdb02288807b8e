"""A lockspace, as the blocking client has it."""

from functools import lru_cache
from typing import TYPE_CHECKING

from ringfence.client.held import OnBlocking, OnLost
from ringfence.client.link import Gone, Link
from ringfence.client.lock import Lock
from ringfence.client.messages import check_cached, check_callbacks, mode_of, not_granted
from ringfence.core.errors import NotFound
from ringfence.core.locknames import lockspace_text_of, text_of
from ringfence.core.modes import MODE_NAMES, UN, Mode
from ringfence.wire import client as calls

if TYPE_CHECKING:
    from ringfence.client.blocking import Connection

_known = lru_cache(4096)(text_of)  # a third of what a cached lock costs


def _text_of(name: str | bytes) -> str:
    """Raises as `text_of`, also for what is no name and cannot be looked up."""
    try:
        return _known(name)
    except TypeError:
        return text_of(name)


class Lockspace:
    """A lockspace that this node has joined.  Made by `Connection.lockspace`; safe for several threads.

    A node that comes back is in no lockspace but those of its volumes.  So the first lock that is asked for
    after a restart of the daemon joins anew; one that was left, here or by another process, stays left."""

    def __init__(self, connection: "Connection", name: str | bytes, joined: Link | None = None) -> None:
        self.name = lockspace_text_of(name)
        self._connection = connection
        self._joined = joined
        """A link to the daemon that joined it; None: it is left, or somebody else sees to that."""

    def lock(
        self,
        resource: str | bytes,
        mode: Mode | str = Mode.EX,
        *,
        wait_ms: int | None = None,
        flags: int = 0,
        cached: bool = False,
        deadlock: bool = False,
        owner: str = "",
        on_blocking: OnBlocking | None = None,
        on_lost: OnLost | None = None,
    ) -> Lock:
        """Take a lock; returns when it is granted.

        Ctrl-C gives the wait up, and nothing else.  Locks of one process are independent of one another:
        two of one resource compete like those of two processes.

        Args:
            resource: 1 to 64 bytes of any content; a str stands for its UTF-8.
            mode: NL, CR, CW, PR (shared), PW or EX (exclusive).
            wait_ms: None waits for ever, 0 does not queue.
            flags: the DLM's (`ringfence.locks.flags.Flag`).
            cached: keep the lock after use, so that the next `lock` of this resource and mode by this
                process asks nobody.  It goes back as soon as somebody else asks for it.  CW, PR, PW and EX
                only, and no flags.  Its mode stays, its token and value block are those of the grant.
            deadlock: refuse it rather than let it wait in a ring with others, if it is the newest there.
            owner: what ties locks together in such a ring, on any node: who waits for one lets go of no
                other.  Default: the thread that calls this, even if another one converts or unlocks.  A
                cached lock outlives its uses, and stands for itself: a ring through one that is in use is
                found only if its users name an owner.
            on_blocking: called with a mode when somebody is kept waiting for it by this lock.
            on_lost: called when the lock is gone: stop using what it protects, at once.  Both are called
                in a thread of their own, and may unlock or convert.

        Returns: the lock, held.  Use it as a context manager, or `unlock` it.

        Raises:
            LockHeld: wait_ms is 0 and somebody holds it; the message names the node.
            TimedOut: not granted within wait_ms; ask again, or see `ringfence why`.
            Deadlock: with `deadlock`: the message names the ring; unlock what you hold, then try again.
            Refused: the lockspace is frozen and wait_ms is 0, or the cluster cannot act.
            LocksLost: the daemon ended meanwhile; ask again once it is back.
            Unavailable: no daemon, or one that does not answer.
            BadInput, NotFound: names, modes or flags that cannot be; a lockspace that was left.

        Source: Linux dlm_lock(3); Davis, VAXcluster Principles, ch. 6."""
        wanted = mode if type(mode) is Mode and mode is not UN else mode_of(mode)
        resource = _text_of(resource)
        if on_blocking is not None or on_lost is not None:
            check_callbacks(on_blocking, on_lost)
        lock = Lock(self.name, resource, on_blocking, on_lost, self._connection)
        call = calls.Lock(
            self.name, resource, MODE_NAMES[wanted], wait_ms, flags,
            cached=cached, deadlock=deadlock, owner=owner,
            notices=on_blocking is not None or on_lost is not None,
            thread="" if cached else self._connection.names.own(),
        )  # fmt: skip
        try:
            try:
                self._take(lock, wanted, call)
            except NotFound:
                if not self._rejoin(wait_ms):
                    raise
                self._take(lock, wanted, call)
        except BaseException:
            lock.abandon()  # Ctrl-C, just now
            raise
        return lock

    def try_lock(
        self,
        resource: str | bytes,
        mode: Mode | str = Mode.EX,
        *,
        flags: int = 0,
        cached: bool = False,
        owner: str = "",
        on_blocking: OnBlocking | None = None,
        on_lost: OnLost | None = None,
    ) -> Lock:
        """Take a lock now or never: `lock` with wait_ms=0.

        What others merely keep (a node after its last client, a client that caches) is not in the way:
        they are asked, and given five seconds to answer.

        Raises LockHeld, which names the holder, and what `lock` raises.

        Source: Linux dlm_lock(3), LKF_NOQUEUE."""
        return self.lock(
            resource, mode, wait_ms=0, flags=flags, cached=cached, owner=owner,
            on_blocking=on_blocking, on_lost=on_lost,
        )  # fmt: skip

    def leave(self, *, force: bool = False) -> None:
        """This node leaves the lockspace.

        Args:
            force: take clients' locks away first; their holders lose them.  Never what volumes use.

        Raises Refused while locks are held in it: unlock them first.

        Source: Linux libdlm dlm_release_lockspace(3)."""
        self._connection.call(calls.LeaveSpace(self.name, force))
        self._joined = None

    def _take(self, lock: Lock, mode: Mode, call: calls.Lock) -> None:
        connection = self._connection
        for again in (False, True):
            try:
                if call.cached or call.notices:
                    self._take_listening(lock, mode, call)
                else:
                    lock.acquire(connection.link_for(self.name, lock.resource), call)
                return
            except Gone:  # the daemon was started anew, and the old connection could not even carry it
                if again:
                    raise not_granted(lock.what) from None

    def _take_listening(self, lock: Lock, mode: Mode, call: calls.Lock) -> None:
        link, cache = self._connection.listening()
        if not call.cached:
            lock.acquire(link, call)
            return
        lock.link = link
        if not cache.take(self.name, lock.resource, mode, call.owner, lock):
            check_cached(mode, call.flags)
            lock.acquire(link, call, cache.new(self.name, lock.resource, mode, call.owner, lock))

    def _rejoin(self, wait_ms: int | None) -> bool:
        """Join it anew if the daemon that had joined it is gone.  Raises as `Connection.lockspace`."""
        if self._joined is None:
            return False
        self._joined.look()  # it may be another thread's, who has asked nothing since
        if not self._joined.ended:
            return False
        self._joined = self._connection.join(self.name, wait_ms)
        return True
