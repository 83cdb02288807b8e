"""The asyncio client: the names and the rules of the blocking one, with `await`.

    ring = await ringfence.client.aio.connect()
    space = await ring.lockspace("games")
    async with await space.lock("chess", "EX", wait_ms=5000) as lock:
        store(lock.token, ...)

All calls and locks of a Connection share one socket.  A cancelled task gives up its own wait and nothing
else.  For use within one event loop."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from ringfence.client.aio_link import AsyncLink, Replies, next_of
from ringfence.client.aio_owners import TaskNames
from ringfence.client.cache import Entry
from ringfence.client.held import HeldLock, OnBlocking, OnLost
from ringfence.client.link import Gone
from ringfence.client.messages import (
    CLOSED_HERE,
    INTERRUPTED,
    NODE_LOST,
    RETRY_MS,
    SILENT,
    check_cached,
    check_callbacks,
    check_limit_ms,
    check_lvb,
    check_plain,
    closed,
    forked,
    grant_of,
    is_unread,
    lock_limit_ms,
    lock_lost,
    mode_of,
    new_id,
    no_answer,
    not_granted,
    not_joined,
    result_of,
    silent,
)
from ringfence.client.place import connection_lost, socket_path
from ringfence.core.errors import BadInput, NotFound, RingfenceError, TimedOut, Unavailable
from ringfence.core.ids import Token
from ringfence.core.locknames import lockspace_text_of, text_of
from ringfence.core.modes import Mode
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Request

PAUSE_S = 0.05
SETTLE_S = 1.0
"""How long a cancelled conversion waits to learn which mode it ended with."""


async def connect(
    socket: str | os.PathLike[str] | None = None, *, retry_ms: int = RETRY_MS
) -> "Connection":
    """Connect to this host's daemon; arguments and errors as `ringfence.client.connect`."""
    check_limit_ms("retry_ms", retry_ms)
    path = socket_path(socket, os.environ)
    return Connection(path, await AsyncLink.open(path), retry_ms)


class Connection:
    """A daemon's client.  An async context manager: leaving it releases all locks taken with it."""

    def __init__(self, path: str, link: AsyncLink, retry_ms: int) -> None:
        self.path = path
        self.names = TaskNames()
        """Used by Lockspace."""
        self._link = link
        self._retry_ms = retry_ms
        self._pid = os.getpid()
        self._opening = asyncio.Lock()
        self._closed = False

    # -- calls ---------------------------------------------------------------------

    async def lockspace(self, name: str | bytes, *, wait_ms: int | None = None) -> "Lockspace":
        """Join a lockspace; as the blocking `Connection.lockspace`."""
        return Lockspace(self, name, await self.join(text_of(name), wait_ms))

    async def join(self, lockspace: str, wait_ms: int | None) -> AsyncLink:
        """Used by Lockspace; as the blocking `Connection.join`."""
        link = self._link
        try:
            await self.call(calls.JoinSpace(lockspace, wait_ms), timeout_ms=wait_ms or None)
        except TimedOut:
            raise not_joined(lockspace, wait_ms or 0) from None
        return link

    async def call(self, call: Call, *, timeout_ms: int | None = None, id: str = "") -> Any:
        """As the blocking `Connection.call`: sent again under its id if the connection breaks."""
        check_plain(call)
        if timeout_ms is not None:
            check_limit_ms("timeout_ms", timeout_ms)
        request = Request(id or new_id(), call)
        try:
            async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
                return await self._exchange(request)
        except TimeoutError:
            raise no_answer(call, timeout_ms or 0) from None

    async def _exchange(self, request: Request) -> Any:
        loop = asyncio.get_running_loop()
        pause_s, give_up = PAUSE_S, loop.time() + self._retry_ms / 1000
        while True:
            link: AsyncLink | None = None
            try:
                link = await self.link()
                replies = link.start(request)
                await link.flush()
                reply = await next_of(replies)
            except (Gone, Unavailable) as error:
                if isinstance(error, Unavailable) and not error.retry:
                    raise
                if loop.time() + pause_s > give_up:
                    raise (error if isinstance(error, Unavailable) else connection_lost(self.path)) from None
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 1.0)
                continue
            finally:
                if link is not None:
                    link.forget(request.id)
            return result_of(reply)

    async def link(self) -> AsyncLink:
        """Used by Lockspace: the one connection, made anew if it has ended."""
        if not self._link.ended:
            return self._link
        async with self._opening:
            if self._link.ended:
                self._link = await self._another()
            return self._link

    async def _another(self) -> AsyncLink:
        if self._pid != os.getpid():
            raise forked(self.path)
        if self._closed:
            raise closed(self.path)
        link = await AsyncLink.open(self.path)
        if self._closed:  # meanwhile
            link.end(CLOSED_HERE)
            raise closed(self.path)
        return link

    async def status(self) -> dict[str, Any]:
        result: dict[str, Any] = await self.call(calls.Status())
        return result

    async def why(self, target: str = "") -> Any:
        return await self.call(calls.Why(target))

    async def locks(self, lockspace: str | bytes = "") -> Any:
        return await self.call(calls.Locks(text_of(lockspace)))

    # -- events --------------------------------------------------------------------

    async def events(
        self, follow: bool = False, *, since: int = 0, limit: int = 1000
    ) -> AsyncIterator[dict[str, Any]]:
        """As the blocking `Connection.events`.  Close it (aclose) when leaving it early."""
        if not follow:
            for event in (await self.call(calls.Events(since=since, limit=limit)))["events"]:
                yield event
            return
        loop = asyncio.get_running_loop()
        give_up: float | None = None
        while True:
            link: AsyncLink | None = None
            try:
                link = await self._another()
                replies = link.start(Request(new_id(), calls.Events(follow=True, since=since, limit=limit)))
                while True:
                    event = result_of(await next_of(replies))["event"]
                    give_up = None
                    since = max(since, int(event["seq"]))
                    yield event
            except (Gone, Unavailable) as error:
                give_up = give_up or loop.time() + self._retry_ms / 1000
                if (isinstance(error, Unavailable) and not error.retry) or loop.time() > give_up:
                    raise (error if isinstance(error, Unavailable) else connection_lost(self.path)) from None
                await asyncio.sleep(PAUSE_S)
            finally:
                if link is not None:
                    link.end(CLOSED_HERE)

    # -- its end ---------------------------------------------------------------------

    async def close(self) -> None:
        """End it: all locks taken with it are released, as by the blocking `Connection.close`."""
        self._closed = True
        self._link.cache.give_all_back()
        await self._link.flush()
        self._link.end(CLOSED_HERE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Lockspace:
    """A lockspace that this node has joined; see `ringfence.client.blocking.Lockspace`."""

    def __init__(self, connection: Connection, name: str | bytes, joined: AsyncLink) -> None:
        self.name = lockspace_text_of(name)
        self._connection = connection
        self._joined: AsyncLink | None = joined
        """A link to the daemon that joined it; None: left."""

    async def lock(
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
    ) -> "Lock":
        """As the blocking `Lockspace.lock`; the callbacks are called in the event loop and must not block.
        The default owner is the task that calls this.  `asyncio.gather` makes others, and so does `wait_for`
        before Python 3.12: what these take is not the caller's, unless an owner is named.

        To cancel the task that waits here gives the wait up."""
        wanted, resource = mode_of(mode), text_of(resource)
        check_callbacks(on_blocking, on_lost)
        lock = Lock(self.name, resource, on_blocking, on_lost)
        if cached:
            check_cached(wanted, flags)
        call = calls.Lock(
            self.name, resource, wanted.name, wait_ms, flags, cached=cached, deadlock=deadlock, owner=owner,
            notices=on_blocking is not None or on_lost is not None,
            thread="" if cached else self._connection.names.own(),
        )  # fmt: skip
        try:
            return await self._take(lock, wanted, call)
        except NotFound:
            if self._joined is None or not self._joined.ended:
                raise
            self._joined = await self._connection.join(self.name, wait_ms)
            return await self._take(lock, wanted, call)

    async def _take(self, lock: "Lock", mode: Mode, call: calls.Lock) -> "Lock":
        for last in (False, True):
            link = await self._connection.link()
            entry = None
            if call.cached:
                lock.link = link
                if link.cache.take(self.name, call.resource, mode, call.owner, lock):
                    return lock
                entry = link.cache.new(self.name, call.resource, mode, call.owner, lock)
            try:
                await lock.acquire(link, call, entry)
            except Gone:  # nothing was sent: the daemon has been started anew
                if last:
                    break
            else:
                return lock
        raise not_granted(lock.what)

    async def try_lock(
        self,
        resource: str | bytes,
        mode: Mode | str = Mode.EX,
        *,
        flags: int = 0,
        cached: bool = False,
        owner: str = "",
        on_blocking: OnBlocking | None = None,
        on_lost: OnLost | None = None,
    ) -> "Lock":
        """As the blocking `Lockspace.try_lock`: now or never."""
        return await self.lock(
            resource, mode, wait_ms=0, flags=flags, cached=cached, owner=owner,
            on_blocking=on_blocking, on_lost=on_lost,
        )  # fmt: skip

    async def leave(self, *, force: bool = False) -> None:
        """As the blocking `Lockspace.leave`: refused while locks are held in it, unless by force."""
        await self._connection.call(calls.LeaveSpace(self.name, force))
        self._joined = None


class Lock(HeldLock):
    """A lock that is held; see `ringfence.client.lock.Lock`."""

    def __init__(
        self, lockspace: str, resource: str, on_blocking: OnBlocking | None, on_lost: OnLost | None
    ) -> None:
        super().__init__(lockspace, resource, on_blocking, on_lost)
        self._one_at_a_time = asyncio.Lock()
        self.link: AsyncLink | None = None
        """Through which it is held."""

    @property
    def held(self) -> bool:
        """Whether the lock is still ours, as far as the daemon has told."""
        return self._grant is not None and not self._lost

    async def convert(
        self,
        mode: Mode | str,
        *,
        wait_ms: int | None = None,
        flags: int = 0,
        lvb: bytes | None = None,
        deadlock: bool = False,
    ) -> Token:
        """As the blocking `Lock.convert`: cancelled while it waits, it is taken back."""
        wanted = mode_of(mode)
        check_lvb(lvb)
        async with self._one_at_a_time:
            grant = self._granted()
            if self._entry is not None:
                raise BadInput(
                    f"{self.what} is cached: its mode stays", next="unlock it and ask for the other mode"
                )
            await self._convert(calls.Convert(grant.lock, wanted.name, wait_ms, flags, lvb, deadlock))
            return self._granted().token

    async def unlock(self, *, lvb: bytes | None = None, wait: bool = False) -> None:
        """As the blocking `Lock.unlock`: it waits for the daemon only with `lvb` or `wait`."""
        check_lvb(lvb)
        async with self._one_at_a_time:
            if self._grant is None:
                return
            entry = self._entry
            if entry is not None and lvb is None and not wait:
                entry.cache.done(entry, self)
                self._grant = self._entry = None
            else:
                if entry is not None:
                    entry.cache.take_out(entry)
                    self._entry = None  # not before: a second attempt would unlock under the other uses
                await self._release(self._grant.lock, lvb, wait or lvb is not None)
            if self._lost:
                raise lock_lost(self.what, self._lost)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.unlock()
        else:
            with contextlib.suppress(RingfenceError):  # the first error is the one to tell
                await self.unlock()

    # -- used by Lockspace -----------------------------------------------------------------

    async def acquire(self, link: AsyncLink, call: calls.Lock, entry: Entry | None) -> None:
        """Ask and wait.  Raises Gone: nothing was sent."""
        limit_ms = lock_limit_ms(call.wait_ms)
        holder = entry or self
        request = Request(link.new_id(), call)
        replies = link.start(request, holder)
        self.link = link
        try:
            async with asyncio.timeout(None if limit_ms is None else limit_ms / 1000):
                grant = grant_of(result_of(await next_of(replies)))
            if entry is not None:
                entry.cache.granted(entry, grant, self)
            else:
                self._grant = grant
        except Gone:
            raise not_granted(self.what, link.ended) from None
        except RingfenceError:
            raise
        except BaseException as error:  # the time limit, a cancelled task
            self._grant = self._entry = None
            if entry is not None:
                entry.cache.lose(entry, INTERRUPTED)
            for lock in [lock for lock, one in link.holders.items() if one is holder]:
                del link.holders[lock]
            with contextlib.suppress(Gone):
                link.tell(calls.Cancel(request.id))
            if isinstance(error, TimeoutError):
                raise silent(self.what) from None
            raise
        finally:
            link.forget(request.id)
        if self._lost:
            raise lock_lost(self.what, self._lost)

    # -- helpers ---------------------------------------------------------------------------

    async def _convert(self, call: calls.Convert) -> None:
        limit_ms = lock_limit_ms(call.wait_ms)
        link = self.link
        assert link is not None
        request = Request(link.new_id(), call)
        try:
            replies = link.start(request)
            try:
                async with asyncio.timeout(None if limit_ms is None else limit_ms / 1000):
                    self._converted(await next_of(replies))
            except (Gone, RingfenceError):
                raise
            except BaseException as error:  # the time limit, a cancelled task
                await self._settle(link, request.id, replies)
                if isinstance(error, TimeoutError):
                    raise silent(self.what) from None
                raise
            finally:
                link.forget(request.id)
        except Gone:
            self.lose(link.ended)
            raise lock_lost(self.what, self._lost) from None
        except NotFound:
            self.lose(NODE_LOST)
            raise lock_lost(self.what, self._lost) from None

    async def _settle(self, link: AsyncLink, id: str, replies: Replies) -> None:
        """Take the conversion back, and learn what it ended with: the old mode, or the new one."""
        try:
            link.tell(calls.Cancel(id))
            async with asyncio.timeout(SETTLE_S):
                self._converted(await next_of(replies))
        except RingfenceError:
            return
        except BaseException:  # nobody knows what is held now: nothing, then
            link.end(SILENT)
            self.lose(SILENT)

    async def _release(self, lock: int, lvb: bytes | None, wait: bool) -> None:
        """What was sent is carried out, whatever happens to the wait for the answer."""
        link = self.link
        assert link is not None
        grant, self._grant = self._grant, None
        if self._lost:
            return
        request = Request(link.new_id(), calls.Unlock(lock, lvb=lvb, quiet=not wait))
        try:
            replies = link.start(request)
            link.holders.pop(lock, None)
            if wait:
                async with asyncio.timeout((lock_limit_ms(0) or 0) / 1000):
                    result_of(await next_of(replies))
        except RingfenceError as error:
            if is_unread(error):
                self._grant, link.holders[lock] = grant, self
                raise
            self._lost = NODE_LOST
        except Gone:
            self._lost = self._lost or link.ended
        except TimeoutError:
            link.end(SILENT)
            raise silent(self.what) from None
        finally:
            link.forget(request.id)

    def _call(self, callback: Callable[..., object], *words: Mode) -> None:
        asyncio.get_running_loop().call_soon(callback, *words)
