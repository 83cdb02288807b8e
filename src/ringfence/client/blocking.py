"""The blocking client: `connect()` and what it returns.

    ring = ringfence.connect()
    space = ring.lockspace("games")
    with space.lock("chess", "EX", wait_ms=5000) as lock:
        store(lock.token, ...)

Every method raises the errors of `ringfence.core.errors`; each says what to do next.

Each thread has a connection to the daemon (`link.Link`) that carries all its locks: of threads that share
one, those that wait would have to wake one another.  One more, with a thread that listens, is for locks
about which something may be told while nobody asks: those with `on_blocking` or `on_lost`, and cached ones.

An unlock is not waited for, and yet whatever thread asks for the resource next comes after it: it uses
the connection of that unlock, until the daemon is known to have seen it."""

import contextlib
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self

from ringfence.client.cache import Cache
from ringfence.client.link import Gone, Link, Silence, deadline
from ringfence.client.lockspace import Lockspace
from ringfence.client.messages import (
    CLOSED_HERE,
    RETRY_MS,
    check_limit_ms,
    check_plain,
    closed,
    forked,
    new_id,
    no_answer,
    not_joined,
    result_of,
)
from ringfence.client.owners import ThreadNames
from ringfence.client.place import connection_lost, socket_path
from ringfence.core.errors import TimedOut, Unavailable
from ringfence.core.locknames import text_of
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Request

PAUSE_S = 0.05
"""Between two attempts to reach a daemon that went away; it doubles, up to a second."""


NOTHING = "0"
"""No request has this id: to cancel it only asks whether the daemon is there."""
UNSEEN = 1000
"""So many unlocks are remembered at most; then the daemon is asked whether it has seen them."""


def connect(socket: str | os.PathLike[str] | None = None, *, retry_ms: int = RETRY_MS) -> "Connection":
    """Connect to this host's daemon.

    Args:
        socket: its Unix socket; default: $RINGFENCE_SOCKET, else /run/ringfence/socket.
        retry_ms: how long a call goes on trying after the connection broke under it.

    Returns: a Connection, which any number of threads may share.  A child process needs its own.

    Raises:
        Unavailable: nobody listens there (start the daemon), or this user may not (join the group that
            owns the socket).
        BadInput: no Unix socket can have this path; retry_ms is no number of milliseconds."""
    check_limit_ms("retry_ms", retry_ms)
    return Connection(socket_path(socket, os.environ), retry_ms)


class Connection:
    """A daemon's client.  A context manager: leaving it releases all locks that were taken with it.

    Safe for several threads."""

    def __init__(self, path: str, retry_ms: int = RETRY_MS) -> None:
        self.path = path
        self.names = ThreadNames()
        """Used by Lockspace."""
        self._retry_ms = retry_ms
        self._pid = os.getpid()
        self._closed = False
        self._opening = threading.Lock()
        self._seats = threading.local()
        self._free: list[Link] = []
        """Of threads that have ended."""
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()
        self._unlocked: dict[tuple[str, str], tuple[Link, int]] = {}
        """Unlocks that the daemon may not have seen yet: where they went, and their ids."""
        self._listening: tuple[Link, Cache] | None = None
        self._callbacks: queue.SimpleQueue[Callable[[], object] | None] | None = None
        self.link()

    # -- calls ---------------------------------------------------------------------

    def lockspace(self, name: str | bytes, *, wait_ms: int | None = None) -> Lockspace:
        """Join a lockspace; the first to join creates it.

        Args:
            name: 1 to 64 bytes of any content; a str stands for its UTF-8.
            wait_ms: how long at most; None: until it is so; 0: not for a node that cannot act, nor a fence.

        Returns: when every ready member of the cluster has acknowledged the join.

        Raises:
            Refused: wait_ms is 0 and it would have to wait; `ringfence why` tells what for.
            TimedOut: not within wait_ms.
            BadInput: a name that cannot be.
            Unavailable: the daemon went away and did not come back within retry_ms.

        Source: Linux libdlm dlm_create_lockspace(3)."""
        return Lockspace(self, name, self.join(text_of(name), wait_ms))

    def call(self, call: Call, *, timeout_ms: int | None = None, id: str = "") -> Any:
        """Send any request of `wire.client` that has one answer, and return its result.

        If the connection breaks it is sent again, under the same id, on a new one: what was done is
        not done twice.  `id` does the same across calls, say after TimedOut.

        Raises:
            TimedOut: no answer within timeout_ms; whether it is carried out is unknown.
            Unavailable: the daemon went away and did not come back within retry_ms.
            any other RingfenceError: the daemon's answer."""
        check_plain(call)
        if timeout_ms is not None:
            check_limit_ms("timeout_ms", timeout_ms)
        request = Request(id or new_id(), call)
        limit = deadline(timeout_ms)
        try:
            return self._exchange(request, limit)
        except Silence:
            raise no_answer(call, timeout_ms or 0) from None

    def stream(self, call: Call) -> Iterator[tuple[Any, bool]]:
        """Send a request that is answered bit by bit: each result, and whether it was the last one.

        It is not sent again if the connection breaks.

        Raises: Unavailable: the daemon went away; any other RingfenceError: its answer."""
        check_plain(call)
        request = Request(new_id(), call)
        self._check()
        link = Link(self.path)
        try:
            answer = link.expect(request.id)
            link.send(request)
            final = False
            while not final:
                reply = link.wait(answer)
                final = reply.final
                yield result_of(reply), final
        except Gone:
            raise connection_lost(self.path) from None
        finally:
            link.end(CLOSED_HERE)

    def _exchange(self, request: Request, limit: float | None) -> Any:
        pause_s, give_up = PAUSE_S, deadline(self._retry_ms)
        while True:
            try:
                return result_of(self.link().ask(request, limit))
            except (Gone, Unavailable) as error:
                # Gone: the daemon went away.  Unavailable with retry: it is not back yet.
                if isinstance(error, Unavailable) and not error.retry:
                    raise
                if give_up is None or time.monotonic() + pause_s > give_up:
                    raise (error if isinstance(error, Unavailable) else connection_lost(self.path)) from None
                if limit is not None and time.monotonic() + pause_s > limit:
                    raise Silence from None
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 1.0)

    def status(self) -> dict[str, Any]:
        """The node, its view, victims, lockspaces, authority, open volumes, incidents."""
        return _object(self.call(calls.Status()))

    def why(self, target: str = "") -> Any:
        """Why TARGET is stuck: VG/LV, LOCKSPACE/RESOURCE, a node; "" for everything."""
        return self.call(calls.Why(target))

    def locks(self, lockspace: str | bytes = "") -> Any:
        return self.call(calls.Locks(text_of(lockspace)))

    # -- events --------------------------------------------------------------------

    def events(self, follow: bool = False, *, since: int = 0, limit: int = 1000) -> Iterator[dict[str, Any]]:
        """Recorded events, oldest first; with `follow`, then new ones for ever.

        After a lost connection it goes on with the event after the last that was returned."""
        if not follow:
            yield from _object(self.call(calls.Events(since=since, limit=limit)))["events"]
            return
        give_up: float | None = None
        while True:
            link = None
            try:
                self._check()
                link = Link(self.path)
                request = Request(new_id(), calls.Events(follow=True, since=since, limit=limit))
                answer = link.expect(request.id)
                link.send(request)
                while True:
                    event = _object(result_of(link.wait(answer)))["event"]
                    give_up = None
                    since = max(since, int(event["seq"]))
                    yield event
            except (Gone, Unavailable) as error:
                give_up = deadline(self._retry_ms) if give_up is None else give_up
                lasting = isinstance(error, Unavailable) and not error.retry
                if lasting or give_up is None or time.monotonic() > give_up:
                    raise (error if isinstance(error, Unavailable) else connection_lost(self.path)) from None
                time.sleep(PAUSE_S)
            finally:
                if link is not None:
                    link.end(CLOSED_HERE)

    # -- used by Lockspace -----------------------------------------------------------

    def join(self, lockspace: str, wait_ms: int | None) -> Link:
        """Join it.  Returns: a link that has ended if the daemon that joined it has."""
        link = self.link()  # before the question: which may be asked twice, of two daemons
        try:
            self.call(calls.JoinSpace(lockspace, wait_ms), timeout_ms=wait_ms or None)
        except TimedOut:
            raise not_joined(lockspace, wait_ms or 0) from None
        return link

    def link(self) -> Link:
        """This thread's connection, made anew if it has ended.  Raises Unavailable, BadInput."""
        seat: _Seat | None = getattr(self._seats, "seat", None)
        if seat is not None and not seat.link.ended:
            return seat.link
        self._check()
        link = self._free.pop() if self._free else None
        if link is None or link.ended:
            with self._opening:
                link = self._opened(Link(self.path))
        self._seats.seat = _Seat(link, self._free)
        return link

    def link_for(self, lockspace: str, resource: str) -> Link:
        """The connection on which a request comes after this process's unlocks of the resource."""
        last = self._unlocked.get((lockspace, resource))
        if last is not None:
            link, id = last
            if link.answered < id and not link.ended:
                return link
            self._unlocked.pop((lockspace, resource), None)
        return self.link()

    def unlocked(self, lockspace: str, resource: str, link: Link, id: int) -> None:
        """Remember an unlock that is not answered."""
        self._unlocked[lockspace, resource] = link, id
        if len(self._unlocked) > UNSEEN:
            for where, (link, sent) in list(self._unlocked.items()):
                if link.answered > sent or link.ended:
                    self._unlocked.pop(where, None)
            if len(self._unlocked) > UNSEEN // 2:  # nothing was asked since: so ask
                for link in dict.fromkeys(link for link, _ in list(self._unlocked.values())):
                    with contextlib.suppress(Gone):
                        link.ask(Request(link.new_id(), calls.Cancel(NOTHING)))
                self._unlocked.clear()

    def listening(self) -> tuple[Link, Cache]:
        """The connection that a thread listens to, and what is cached on it: both end together."""
        found = self._listening
        if found is not None and not found[0].ended:
            return found
        self._check()
        with self._opening:
            if self._listening is None or self._listening[0].ended:
                link = self._opened(Link(self.path, listens=True))
                self._listening = link, Cache(self.path, _teller(link))
            return self._listening

    def _opened(self, link: Link) -> Link:
        if self._closed:  # by another thread, just now
            link.end(CLOSED_HERE)
            raise closed(self.path)
        self._links.add(link)
        return link

    def later(self, callback: Callable[[], object]) -> None:
        """Have it called in the callbacks' thread, in order."""
        with self._opening:
            if self._callbacks is None:
                self._callbacks = queue.SimpleQueue()
                target, name = partial(_call_each, self._callbacks), "ringfence callbacks"
                threading.Thread(target=target, name=name, daemon=True).start()
        self._callbacks.put(callback)

    def _check(self) -> None:
        if self._closed:
            raise closed(self.path)
        if self._pid != os.getpid():
            raise forked(self.path)

    # -- its end ---------------------------------------------------------------------

    def close(self) -> None:
        """End it: all locks taken with it are released (value blocks that they could have written are
        no longer valid; to keep those, unlock first).  Who asks for one of them after this has returned
        does not meet it, however many there were."""
        with self._opening:
            self._closed = True
            links = list(self._links)
        if self._listening is not None:
            self._listening[1].give_all_back()
        for link in links:
            link.end(CLOSED_HERE)
        if self._callbacks is not None:
            self._callbacks.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Seat:
    """A thread's hold on its connection: when the thread ends, another one may have it."""

    __slots__ = ("_free", "link")

    def __init__(self, link: Link, free: list[Link]) -> None:
        self.link = link
        self._free = free

    def __del__(self) -> None:
        if not self.link.ended:
            self._free.append(self.link)


def _teller(link: Link) -> Callable[[Call], None]:
    def tell(call: Call) -> None:
        with contextlib.suppress(Gone):  # the locks went with it
            if isinstance(call, calls.Unlock):
                link.holders.pop(call.lock, None)
            link.tell(call)

    return tell


def _call_each(callbacks: "queue.SimpleQueue[Callable[[], object] | None]") -> None:
    while (callback := callbacks.get()) is not None:
        try:
            callback()
        except BaseException:  # told as it is of any thread (SystemExit never is), but the next one is called
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _object(result: Any) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise Unavailable(
            f"the daemon's answer is not an object: {str(result)[:80]}",
            next="check that client and daemon have one version",
        )
    return result
