"""The asyncio client: the shape of the blocking one, with `await`.

    async with await ringfence.client.aio.connect() as ring:
        await ring.join("games")
        async with await ring.lock("games", "chess", "EX", wait_ms=5000) as lock:
            ...

Calls of one connection may overlap.  Locks and followed events have connections of their own, so
that a cancelled task gives up its own wait and nothing else.  For use within one event loop."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from ringfence.client.messages import (
    RETRY_MS,
    Grant,
    Lines,
    Notice,
    as_lock_error,
    cannot_connect,
    check_plain,
    closed,
    connection_lost,
    ended,
    grant_of,
    line_of,
    lock_limit_ms,
    lock_lost,
    mode_name,
    new_id,
    no_answer,
    notice_of,
    result_of,
    socket_path,
)
from ringfence.core.errors import LocksLost, RingfenceError, Unavailable
from ringfence.core.ids import Token
from ringfence.core.locknames import text_of
from ringfence.core.modes import Mode
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Reply, Request

CONNECT_S = 10.0
CHUNK_BYTES = 256 << 10
PAUSE_S = 0.05
LINK_ENDED = "the connection to the daemon ended"
NODE_LOST = "this node's locks were lost"

OnNotice = Callable[[Notice], None]


class _Gone(Exception):
    """The connection broke."""


class _Link:
    """One socket and the task that reads it.  Replies go to the queue of their request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._queues: dict[str, asyncio.Queue[Reply | Exception]] = {}
        self.broken: Exception | None = None
        self._task = asyncio.create_task(self._read(), name="ringfence replies")

    @classmethod
    async def open(cls, path: str) -> "_Link":
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(path)
        except TimeoutError:
            raise cannot_connect(path, TimeoutError(110, "timed out")) from None
        except OSError as error:
            raise cannot_connect(path, error) from None
        return cls(reader, writer)

    async def send(self, request: Request) -> asyncio.Queue[Reply | Exception]:
        """Returns where its replies will be.  Raises _Gone."""
        if self.broken is not None:
            raise self.broken
        line = line_of(request)
        replies = self._queues.setdefault(request.id, asyncio.Queue())
        self._writer.write(line)
        try:
            await self._writer.drain()
        except OSError:
            raise _Gone from None
        return replies

    def forget(self, id: str) -> None:
        self._queues.pop(id, None)

    async def _read(self) -> None:
        lines = Lines()
        try:
            while data := await self._reader.read(CHUNK_BYTES):
                for reply in lines.feed(data):
                    self._hand_out(reply)
            self.broken = _Gone()
        except OSError:
            self.broken = _Gone()
        except Unavailable as error:
            self.broken = error
        for replies in self._queues.values():
            replies.put_nowait(self.broken)

    def _hand_out(self, reply: Reply) -> None:
        # "": a word about the whole connection, which ends with it.  Else nobody waits for it: dropped.
        for replies in self._queues.values() if reply.id == "" else self._of(reply.id):
            replies.put_nowait(reply)

    def _of(self, id: str) -> list[asyncio.Queue[Reply | Exception]]:
        replies = self._queues.get(id)
        return [] if replies is None else [replies]

    def close(self) -> None:
        self._task.cancel()
        self._writer.close()


async def _next(replies: asyncio.Queue[Reply | Exception]) -> Reply:
    """Raises _Gone, Unavailable."""
    reply = await replies.get()
    if isinstance(reply, Exception):
        replies.put_nowait(reply)  # for whoever asks again
        raise reply
    return reply


async def connect(
    socket: str | os.PathLike[str] | None = None, *, retry_ms: int = RETRY_MS
) -> "Connection":
    """Connect to this host's daemon; arguments and errors as `ringfence.client.connect`."""
    path = socket_path(socket, os.environ)
    return Connection(path, await _Link.open(path), retry_ms)


class Connection:
    """A daemon's client.  An async context manager: leaving it releases all locks taken with it."""

    def __init__(self, path: str, link: _Link, retry_ms: int) -> None:
        self.path = path
        self._link: _Link | None = link
        self._retry_ms = retry_ms
        self._opening = asyncio.Lock()
        self._closed = False
        self._handles: dict[int, LockHandle] = {}

    # -- calls ---------------------------------------------------------------------

    async def call(self, call: Call, *, timeout_ms: int | None = None, id: str = "") -> Any:
        """As the blocking `Connection.call`: sent again under its id if the connection breaks."""
        check_plain(call)
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
            link: _Link | None = None
            try:
                link = await self._open()
                reply = await _next(await link.send(request))
            except (_Gone, Unavailable) as error:
                if link is not None and self._link is link:
                    self._link = None
                    link.close()
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

    async def _open(self) -> _Link:
        async with self._opening:
            if self._link is None or self._link.broken is not None:
                self._link = await self._another()
            return self._link

    async def _another(self) -> _Link:
        if self._closed:
            raise closed(self.path)
        return await _Link.open(self.path)

    async def status(self) -> dict[str, Any]:
        result: dict[str, Any] = await self.call(calls.Status())
        return result

    async def why(self, target: str = "") -> Any:
        return await self.call(calls.Why(target))

    async def locks(self, lockspace: str | bytes = "") -> Any:
        return await self.call(calls.Locks(text_of(lockspace)))

    async def join(self, lockspace: str | bytes) -> Any:
        return await self.call(calls.JoinSpace(text_of(lockspace)))

    async def leave(self, lockspace: str | bytes, *, force: bool = False) -> Any:
        return await self.call(calls.LeaveSpace(text_of(lockspace), force))

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
            link: _Link | None = None
            try:
                link = await self._another()
                request = Request(new_id(), calls.Events(follow=True, since=since, limit=limit))
                replies = await link.send(request)
                while True:
                    event = result_of(await _next(replies))["event"]
                    give_up = None
                    since = max(since, int(event["seq"]))
                    yield event
            except (_Gone, Unavailable) as error:
                give_up = give_up or loop.time() + self._retry_ms / 1000
                if (isinstance(error, Unavailable) and not error.retry) or loop.time() > give_up:
                    raise (error if isinstance(error, Unavailable) else connection_lost(self.path)) from None
                await asyncio.sleep(PAUSE_S)
            finally:
                if link is not None:
                    link.close()

    # -- locks -----------------------------------------------------------------------

    async def lock(
        self,
        lockspace: str | bytes,
        resource: str | bytes,
        mode: Mode | str = Mode.EX,
        *,
        wait_ms: int | None = None,
        flags: int = 0,
        deadlock: bool = False,
        owner: str = "",
        on_notice: OnNotice | None = None,
    ) -> "LockHandle":
        """As the blocking `Connection.lock`; `on_notice` is called in the event loop.  To cancel the
        task that waits here gives the wait up."""
        lockspace, resource = text_of(lockspace), text_of(resource)
        call = calls.Lock(
            lockspace, resource, mode_name(mode), wait_ms, flags, notices=True, deadlock=deadlock, owner=owner
        )
        link = await self._another()
        key = id(link)
        handle = LockHandle(link, lockspace, resource, on_notice, lambda: self._forget(key))
        self._handles[key] = handle
        await handle.acquire(call)
        return handle

    def _forget(self, key: int) -> None:
        self._handles.pop(key, None)

    async def close(self) -> None:
        self._closed = True
        for handle in list(self._handles.values()):
            handle.close()
        if self._link is not None:
            self._link.close()
            self._link = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class LockHandle:
    """A lock held through a connection of its own; see `ringfence.client.handle.LockHandle`."""

    def __init__(
        self,
        link: _Link,
        lockspace: str,
        resource: str,
        on_notice: OnNotice | None,
        on_end: Callable[[], None],
    ) -> None:
        self.lockspace = lockspace
        self.resource = resource
        self._link = link
        self._request = new_id()
        self._on_notice = on_notice
        self._on_end = on_end
        self._one_at_a_time = asyncio.Lock()
        self._grant: Grant | None = None
        self._lost = ""
        self._wanted: Mode | None = None
        self._notices: asyncio.Queue[Notice] = asyncio.Queue()
        self._listener: asyncio.Task[None] | None = None

    @property
    def what(self) -> str:
        return f"{self.lockspace}/{self.resource}"

    @property
    def held(self) -> bool:
        return self._grant is not None and not self._lost

    @property
    def mode(self) -> Mode:
        return self._grant.mode if self._grant is not None and not self._lost else Mode.UN

    @property
    def token(self) -> Token:
        return self._granted().token

    @property
    def lvb(self) -> bytes | None:
        return self._granted().lvb

    @property
    def wanted(self) -> Mode | None:
        """The strongest mode that somebody was said to wait for since the newest grant."""
        return self._wanted

    async def acquire(self, call: calls.Lock) -> None:
        """Used by Connection.lock."""
        try:
            replies = await self._link.send(Request(self._request, call))
            limit_ms = lock_limit_ms(call.wait_ms)
            async with asyncio.timeout(None if limit_ms is None else limit_ms / 1000):
                self._grant = grant_of(result_of(await _next(replies)))
        except _Gone:
            self.close()
            raise LocksLost(
                f"the daemon ended while {self.what} was asked for",
                next="ask for the lock again once it is back",
                retry=True,
            ) from None
        except TimeoutError:
            self.close()
            raise self._silent() from None
        except BaseException:
            self.close()
            raise
        self._listener = asyncio.create_task(self._listen(replies), name=f"notices {self.what}")

    async def convert(
        self, mode: Mode | str, *, wait_ms: int | None = None, flags: int = 0, lvb: bytes | None = None
    ) -> Token:
        """As the blocking one: cancelled while it waits, it gives the lock up altogether."""
        async with self._one_at_a_time:
            held = self._granted()
            self._wanted = None
            call = calls.Convert(held.lock, mode_name(mode), wait_ms, flags, lvb)
            self._grant = grant_of(await self._ask(call, lock_limit_ms(wait_ms)))
            return self._grant.token

    async def release(self, *, lvb: bytes | None = None) -> None:
        async with self._one_at_a_time:
            if self._lost:
                self.close()
                raise lock_lost(self.what, self._lost)
            if self._grant is None:
                return
            try:
                await self._ask(calls.Unlock(self._grant.lock, lvb=lvb), lock_limit_ms(0))
            except LocksLost:
                self.close()
                raise
            self.close()

    async def wait_notice(self, timeout_ms: int | None = None) -> Notice | None:
        """The next notice; None after the timeout.  With `on_notice`, they go there instead."""
        try:
            async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
                return await self._notices.get()
        except TimeoutError:
            return None

    def close(self) -> None:
        """End the lock's connection without a word; the daemon releases the lock."""
        self._grant = None
        if self._listener is not None:
            self._listener.cancel()
        self._link.close()
        self._on_end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self.release()
            else:
                with contextlib.suppress(RingfenceError):
                    await self.release()
        finally:
            self.close()

    def _granted(self) -> Grant:
        if self._lost:
            raise lock_lost(self.what, self._lost)
        if self._grant is None:
            raise ended(self.what)
        return self._grant

    async def _ask(self, call: Call, limit_ms: int | None) -> Any:
        try:
            replies = await self._link.send(Request(new_id(), call))
            async with asyncio.timeout(None if limit_ms is None else limit_ms / 1000):
                return result_of(await _next(replies))
        except _Gone:
            self._lost = self._lost or LINK_ENDED
            raise lock_lost(self.what, self._lost) from None
        except TimeoutError:
            self._lost = "the daemon does not answer"
            self.close()
            raise self._silent() from None
        except RingfenceError as error:
            known = as_lock_error(error, self.what)
            if isinstance(known, LocksLost):
                self._lost = NODE_LOST
            raise known from None
        except BaseException:
            self._lost = "its operation was interrupted"
            self.close()
            raise

    def _silent(self) -> Unavailable:
        return Unavailable(
            f"the daemon does not answer about {self.what}; the wait, and the lock, are given up",
            next="look at the daemon's process and its log",
            retry=True,
        )

    async def _listen(self, replies: asyncio.Queue[Reply | Exception]) -> None:
        while not self._lost:
            try:
                notice = notice_of((await _next(replies)).result)
            except (_Gone, Unavailable):
                notice = Notice(lost=True)
                self._lost = self._lost or LINK_ENDED
            if notice is None:
                continue
            if notice.lost:
                self._lost = self._lost or NODE_LOST
            elif notice.wants is not None:
                self._wanted = notice.wants if self._wanted is None else max(self._wanted, notice.wants)
            if self._on_notice is not None:
                self._on_notice(notice)
            else:
                self._notices.put_nowait(notice)
