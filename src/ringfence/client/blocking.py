"""The blocking client: `connect()` and what it returns.

    with ringfence.connect() as ring:
        ring.join("games")
        with ring.lock("games", "chess", "EX", wait_ms=5000) as lock:
            store(lock.token, ...)

Every method raises the errors of `ringfence.core.errors`; each says what to do next."""

import os
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from ringfence.client.handle import LockHandle, OnNotice
from ringfence.client.link import Gone, Link, Silence, deadline
from ringfence.client.messages import (
    RETRY_MS,
    check_plain,
    closed,
    connection_lost,
    mode_name,
    new_id,
    no_answer,
    result_of,
    socket_path,
)
from ringfence.core.errors import RingfenceError, Unavailable
from ringfence.core.locknames import text_of
from ringfence.core.modes import Mode
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Request

PAUSE_S = 0.05
"""Between two attempts to reach a daemon that went away; it doubles, up to a second."""


def connect(socket: str | os.PathLike[str] | None = None, *, retry_ms: int = RETRY_MS) -> "Connection":
    """Connect to this host's daemon.

    Args:
        socket: its Unix socket; default: $RINGFENCE_SOCKET, else /run/ringfence/socket.
        retry_ms: how long a call goes on trying after the connection broke under it.

    Raises:
        Unavailable: nobody listens there, or this user may not.
        BadInput: no Unix socket can have this path."""
    return Connection(socket_path(socket, os.environ), retry_ms)


class Connection:
    """A daemon's client.  A context manager: leaving it releases all locks that were taken with it.

    Safe for several threads: a lock around the one socket that `call` uses lets one call at a time
    through.  Locks and followed events have sockets of their own and do not wait for it."""

    def __init__(self, path: str, retry_ms: int = RETRY_MS) -> None:
        self.path = path
        self._retry_ms = retry_ms
        self._one_at_a_time = threading.Lock()
        self._closed = False
        self._handles: dict[int, LockHandle] = {}
        self._link: Link | None = Link(path)

    # -- calls ---------------------------------------------------------------------

    def call(self, call: Call, *, timeout_ms: int | None = None, id: str = "") -> Any:
        """Send any request of `wire.client` that has one answer, and return its result.

        If the connection breaks it is sent again, under the same id, on a new one: what was done is
        not done twice.  `id` does the same across calls, say after TimedOut.

        Raises:
            TimedOut: no answer within timeout_ms; whether it is carried out is unknown.
            Unavailable: the daemon went away and did not come back within retry_ms.
            any other RingfenceError: the daemon's answer."""
        check_plain(call)
        request = Request(id or new_id(), call)
        limit = deadline(timeout_ms)
        with self._one_at_a_time:
            try:
                return self._exchange(request, limit)
            except Silence:
                self._hang_up()
                raise no_answer(call, timeout_ms or 0) from None
            except RingfenceError:
                raise
            except BaseException:  # Ctrl-C: an answer that nobody waits for must not be read later
                self._hang_up()
                raise

    def _exchange(self, request: Request, limit: float | None) -> Any:
        pause_s, give_up = PAUSE_S, deadline(self._retry_ms)
        while True:
            try:
                link = self._open()
                link.send(request, limit)
                reply = link.receive(limit)
                while reply.id not in (request.id, ""):  # "": a word about the whole connection
                    reply = link.receive(limit)
            except (Gone, Unavailable) as error:
                # Gone: the daemon went away.  Unavailable with retry: it is not back yet.
                self._hang_up()
                if isinstance(error, Unavailable) and not error.retry:
                    raise
                if give_up is None or time.monotonic() + pause_s > give_up:
                    raise (error if isinstance(error, Unavailable) else connection_lost(self.path)) from None
                if limit is not None and time.monotonic() + pause_s > limit:
                    raise Silence from None
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 1.0)
                continue
            return result_of(reply)

    def _open(self) -> Link:
        if self._closed:
            raise closed(self.path)
        if self._link is None:
            self._link = Link(self.path)
        return self._link

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def status(self) -> dict[str, Any]:
        """The node, its view, victims, lockspaces, authority, open volumes, incidents."""
        return _object(self.call(calls.Status()))

    def why(self, target: str = "") -> Any:
        """Why TARGET is stuck: VG/LV, LOCKSPACE/RESOURCE, a node; "" for everything."""
        return self.call(calls.Why(target))

    def locks(self, lockspace: str | bytes = "") -> Any:
        return self.call(calls.Locks(text_of(lockspace)))

    def join(self, lockspace: str | bytes) -> Any:
        """Join a lockspace; returns when every ready member has acknowledged it."""
        return self.call(calls.JoinSpace(text_of(lockspace)))

    def leave(self, lockspace: str | bytes, *, force: bool = False) -> Any:
        return self.call(calls.LeaveSpace(text_of(lockspace), force))

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
                link = self._another()
                request = Request(new_id(), calls.Events(follow=True, since=since, limit=limit))
                link.send(request)
                while True:
                    event = _object(result_of(link.receive()))["event"]
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
                    link.close()

    # -- locks -----------------------------------------------------------------------

    def lock(
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
    ) -> LockHandle:
        """Take a lock; returns when it is granted.

        Args:
            lockspace, resource: 1 to 64 bytes of any content; a str stands for its UTF-8.
            wait_ms: None waits for ever, 0 is a try-lock.  Ctrl-C gives the wait up.
            flags: the DLM's (`ringfence.locks.flags.Flag`).
            deadlock: raise Deadlock rather than wait in a ring with others (of any node), if this is the
                newest wait there of those that ask so.
            owner: a name of at most 64 bytes for whoever lets go of none of its locks while it waits for
                another: give all of them the same, and another to each thread.  Without it every lock
                stands for itself, and only conversions can be seen to wait in a ring.
            on_notice: called in a thread of its own when somebody is kept waiting by this lock, and
                when it is lost.

        Raises LockHeld, TimedOut, LocksLost (the daemon ended meanwhile; ask again), and others."""
        lockspace, resource = text_of(lockspace), text_of(resource)
        call = calls.Lock(
            lockspace, resource, mode_name(mode), wait_ms, flags, notices=True, deadlock=deadlock, owner=owner
        )
        link = self._another()
        key = id(link)
        handle = LockHandle(link, lockspace, resource, on_notice, lambda: self._forget(key))
        self._handles[key] = handle
        handle.acquire(call)
        return handle

    def _forget(self, key: int) -> None:
        self._handles.pop(key, None)

    def _another(self) -> Link:
        if self._closed:
            raise closed(self.path)
        return Link(self.path)

    # -- its end ---------------------------------------------------------------------

    def close(self) -> None:
        """End it: all locks taken with it are released (value blocks that they could have written are
        no longer valid; to keep those, release the locks first)."""
        self._closed = True
        for handle in list(self._handles.values()):
            handle.close()
        with self._one_at_a_time:
            self._hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _object(result: Any) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise Unavailable(
            f"the daemon's answer is not an object: {str(result)[:80]}",
            next="check that client and daemon have one version",
        )
    return result
