"""The asyncio client's one connection: a task reads it, and hands replies to whoever waits for them."""

import asyncio
import contextlib
import itertools
import os
import weakref

from ringfence.client.cache import Cache
from ringfence.client.link import Gone, Holder
from ringfence.client.messages import CLOSED, Lines, forked, line_of
from ringfence.client.place import cannot_connect
from ringfence.core.errors import Unavailable
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Reply, Request

CONNECT_S = 10.0
CHUNK_BYTES = 256 << 10

Replies = asyncio.Queue[Reply | Exception]


class AsyncLink:
    """One socket and the task that reads it.  Replies go to the queue of their request."""

    def __init__(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.ended = ""
        """Why it ended; empty while it is alive."""
        self.holders: dict[int, Holder] = {}
        """Of each lock that this connection has."""
        self.cache = Cache(path, self.give_back)
        self.path = path
        self._reader = reader
        self._writer = writer
        self._fd = writer.get_extra_info("socket").fileno()
        self._queues: dict[str, tuple[Replies, Holder | None]] = {}
        self._ids = itertools.count(1)
        self._task = asyncio.create_task(self._read(), name="ringfence replies")
        _links.add(self)

    @classmethod
    async def open(cls, path: str) -> "AsyncLink":
        """Raises Unavailable, with what to do next."""
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(path)
        except TimeoutError:
            raise cannot_connect(path, TimeoutError(110, "timed out")) from None
        except OSError as error:
            raise cannot_connect(path, error) from None
        return cls(path, reader, writer)

    def new_id(self) -> str:
        return str(next(self._ids))

    def start(self, request: Request, holder: Holder | None = None) -> Replies:
        """Send; the replies arrive in the queue until `forget`.  Raises Gone."""
        line = line_of(request)
        if self.ended:
            raise Gone
        replies: Replies = asyncio.Queue()
        self._queues[request.id] = replies, holder
        self._writer.write(line)
        return replies

    def tell(self, call: Call) -> None:
        """Send what nobody waits for the answer of.  Raises Gone."""
        if self.ended:
            raise Gone
        self._writer.write(line_of(Request(self.new_id(), call)))

    def give_back(self, call: Call) -> None:
        with contextlib.suppress(Gone):  # the locks went with it
            if isinstance(call, calls.Unlock):
                self.holders.pop(call.lock, None)
            self.tell(call)

    async def flush(self) -> None:
        """Wait until the daemon keeps up."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def forget(self, id: str) -> None:
        self._queues.pop(id, None)

    async def _read(self) -> None:
        lines = Lines()
        why = CLOSED
        try:
            while data := await self._reader.read(CHUNK_BYTES):
                lines.feed(data)
                while (reply := lines.next()) is not None:
                    self._hand_out(reply)
                    lines.seen()
        except OSError:
            why = CLOSED
        except Unavailable as error:
            for replies, _ in self._queues.values():
                replies.put_nowait(error)
            why = str(error)
        self.end(why)

    def _hand_out(self, reply: Reply) -> None:
        if not reply.id:  # a word about the whole connection, which ends with it
            for replies, _ in self._queues.values():
                replies.put_nowait(reply)
            return
        result = reply.result
        lock = result.get("lock") if isinstance(result, dict) else None
        if lock in self.holders and "mode" not in result:
            self.holders[lock].told(lock, result)
        elif reply.id in self._queues:
            replies, holder = self._queues[reply.id]
            if lock is not None and holder is not None:
                self.holders[lock] = holder
            replies.put_nowait(reply)

    def end(self, why: str) -> None:
        """Close it.  Whoever waits gets Gone; the holders of its locks lose them."""
        if self.ended:
            return
        self.ended = why
        if self._task is not asyncio.current_task():
            self._task.cancel()
        self._writer.close()
        for replies, _ in self._queues.values():
            replies.put_nowait(Gone())
        holders, self.holders = self.holders, {}
        for holder in holders.values():
            holder.lose(why)

    def leave_to_parent(self) -> None:
        """In a child process: the connection is the parent's, and must end when that one does."""
        if not self.ended:
            self.ended = forked(self.path).message
            with contextlib.suppress(OSError):
                os.close(self._fd)


_links: "weakref.WeakSet[AsyncLink]" = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for link in list(_links):
        link.leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)


async def next_of(replies: Replies) -> Reply:
    """Raises Gone, Unavailable."""
    reply = await replies.get()
    if isinstance(reply, Exception):
        replies.put_nowait(reply)  # for whoever asks again
        raise reply
    return reply
