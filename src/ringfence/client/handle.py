"""A lock that a blocking client holds.

Each lock has a connection of its own.  So a wait is given up, by Ctrl-C or otherwise, by ending that
connection and nothing else; threads wait for different locks at once; and a process that ends, in
whatever way, lets go of all it held.  It costs a file descriptor a lock, here and in the daemon (which
serves 2000 connections)."""

import contextlib
import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from ringfence.client.link import Gone, Link, Silence, deadline
from ringfence.client.messages import (
    Grant,
    Notice,
    as_lock_error,
    ended,
    grant_of,
    lock_limit_ms,
    lock_lost,
    mode_name,
    new_id,
    notice_of,
    result_of,
)
from ringfence.core.errors import BadInput, LocksLost, RingfenceError, Unavailable
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Reply, Request

LINK_ENDED = "the connection to the daemon ended"
NODE_LOST = "this node's locks were lost"

OnNotice = Callable[[Notice], None]


class LockHandle:
    """Made by `Connection.lock`.  A context manager: leaving it releases the lock.

    Safe for several threads: one operation at a time, the others wait.  With `on_notice`, a thread
    calls it for each `Notice`.  That thread also reads the answers that convert and release wait
    for, so they cannot be called in it: set an event there, and let another thread act."""

    def __init__(
        self,
        link: Link,
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
        self._one_at_a_time = threading.RLock()
        self._grant: Grant | None = None
        self._lost = ""
        self._wanted: Mode | None = None
        self._answers: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        self._listener: threading.Thread | None = None

    # -- reading -------------------------------------------------------------------

    @property
    def what(self) -> str:
        return f"{self.lockspace}/{self.resource}"

    @property
    def mode(self) -> Mode:
        """UN once it is released or lost."""
        return self._grant.mode if self._grant is not None and not self._lost else Mode.UN

    @property
    def token(self) -> Token:
        """The newest grant's fencing token, for whatever storage can check it."""
        return self._granted().token

    @property
    def lvb(self) -> bytes | None:
        """The value block as the newest grant read it; None if it read none or it is not valid."""
        return self._granted().lvb

    @property
    def held(self) -> bool:
        """Whether the lock is still ours, as far as the daemon has told."""
        self._drain()
        return self._grant is not None and not self._lost

    @property
    def wanted(self) -> Mode | None:
        """The strongest mode that somebody was said to wait for since the newest grant."""
        self._drain()
        return self._wanted

    def fileno(self) -> int:
        """The connection's descriptor.  The lock lives as long as any process has it open."""
        return self._link.fileno()

    # -- operations ------------------------------------------------------------------

    def convert(
        self, mode: Mode | str, *, wait_ms: int | None = None, flags: int = 0, lvb: bytes | None = None
    ) -> Token:
        """Change the mode; returns the new token.

        From PW or EX to no higher mode, `lvb` (32 bytes) is written; upward the value is read anew.
        If this is interrupted while it waits (Ctrl-C), the lock is given up altogether.

        Raises LockHeld, TimedOut, Deadlock: the old mode is kept.  LocksLost: there is no lock."""
        with self._one_at_a_time:
            held = self._granted()
            call = calls.Convert(held.lock, mode_name(mode), wait_ms, flags, lvb)
            self._wanted = None
            self._grant = grant_of(self._ask(new_id(), call, lock_limit_ms(wait_ms)))
            return self._grant.token

    def release(self, *, lvb: bytes | None = None) -> None:
        """Let go; from PW or EX, `lvb` (32 bytes) is written.  A second release does nothing.

        Raises LocksLost if the lock was gone already: what was done under it since is in doubt."""
        with self._one_at_a_time:
            if self._lost:
                self.close()
                raise lock_lost(self.what, self._lost)
            if self._grant is None:
                return
            call = calls.Unlock(self._grant.lock, lvb=lvb)
            try:
                self._ask(new_id(), call, lock_limit_ms(0))
            except LocksLost:
                self.close()
                raise
            self.close()

    def wait_notice(self, timeout_ms: int | None = None) -> Notice | None:
        """Wait until somebody is kept waiting by this lock, or it is lost; None after the timeout.

        Not for handles with `on_notice`, whose thread reads what this would."""
        assert self._listener is None, "this handle's notices go to its on_notice"
        limit = deadline(timeout_ms)
        with self._one_at_a_time:
            self._granted()
            while True:
                try:
                    notice = self._noticed(self._link.receive(limit))
                except Silence:
                    return None
                except Gone:
                    self._lost = LINK_ENDED
                    return Notice(lost=True)
                if notice is not None:
                    return notice

    def close(self) -> None:
        """End the lock's connection without a word.  The daemon releases the lock; if it was PW or EX
        and not released before, its value block is no longer valid."""
        self._grant = None
        self._link.shut()
        if self._listener is None:  # else its thread closes it, when it has stopped to read
            self._link.close()
        self._on_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.release()
            else:
                with contextlib.suppress(RingfenceError):  # the first error is the one to tell
                    self.release()
        finally:
            self.close()

    # -- used by Connection --------------------------------------------------------------

    def acquire(self, call: calls.Lock) -> None:
        """Ask and wait; whatever interrupts it ends the connection and thus the wait."""
        try:
            self._grant = grant_of(self._ask(self._request, call, lock_limit_ms(call.wait_ms)))
        except BaseException:
            self.close()
            raise
        if self._on_notice is not None:
            self._listener = threading.Thread(target=self._listen, name=f"notices {self.what}", daemon=True)
            self._listener.start()

    # -- helpers ---------------------------------------------------------------------------

    def _granted(self) -> Grant:
        if self._lost:
            raise lock_lost(self.what, self._lost)
        if self._grant is None:
            raise ended(self.what)
        return self._grant

    def _ask(self, id: str, call: Call, limit_ms: int | None) -> Any:
        limit = deadline(limit_ms)
        if self._listener is threading.current_thread():
            raise BadInput(
                "on_notice cannot wait for its own lock's operations",
                next="let another thread convert or release",
            )
        try:
            self._link.send(Request(id, call), limit)
            reply = self._reply(id, limit)
            return result_of(reply)
        except Gone:
            # Before there was a grant there is nothing to lose, but to ask again is a new request.
            if self._grant is None:
                raise LocksLost(
                    f"the daemon ended while {self.what} was asked for",
                    next="ask for the lock again once it is back",
                    retry=True,
                ) from None
            self._lost = LINK_ENDED
            raise lock_lost(self.what, self._lost) from None
        except Silence:
            self._lost = "the daemon does not answer"
            self.close()
            raise Unavailable(
                f"the daemon does not answer about {self.what}; the wait, and the lock, are given up",
                next="look at the daemon's process and its log",
                retry=True,
            ) from None
        except RingfenceError as error:
            if self._grant is not None and isinstance(as_lock_error(error, self.what), LocksLost):
                self._lost = NODE_LOST
                raise as_lock_error(error, self.what) from None
            raise
        except BaseException:
            if self._grant is not None:
                self._lost = "its operation was interrupted"
                self.close()
            raise

    def _reply(self, id: str, limit: float | None) -> Reply:
        if self._listener is not None:
            return self._heard(id)
        while True:
            reply = self._link.receive(limit)
            if reply.id in (id, ""):  # "": a word about the whole connection, which ends with it
                return reply
            self._noticed(reply)

    def _heard(self, id: str) -> Reply:
        while True:
            reply = self._answers.get()
            if reply is None:
                raise Gone
            if reply.id in (id, ""):
                return reply

    def _noticed(self, reply: Reply) -> Notice | None:
        if reply.id != self._request:
            return None
        notice = notice_of(reply.result)
        if notice is not None and notice.lost:
            self._lost = NODE_LOST
        elif notice is not None and notice.wants is not None:
            self._wanted = notice.wants if self._wanted is None else max(self._wanted, notice.wants)
        return notice

    def _drain(self) -> None:
        """Take what the daemon has said meanwhile, without waiting."""
        if self._listener is not None:
            return  # its thread does that
        with self._one_at_a_time:
            while self._grant is not None and not self._lost and self._link.ready():
                try:
                    self._noticed(self._link.receive(deadline(0)))
                except Silence:
                    return
                except (Gone, Unavailable):
                    self._lost = LINK_ENDED

    def _listen(self) -> None:
        """The notices' thread: it reads everything, and hands on what is no notice."""
        assert self._on_notice is not None
        while True:
            try:
                reply = self._link.receive()
            except (Gone, Unavailable):
                break
            notice = self._noticed(reply)
            if notice is None:
                self._answers.put(reply)
            else:
                self._on_notice(notice)
        if self._grant is not None and not self._lost:
            self._lost = LINK_ENDED
            self._on_notice(Notice(lost=True))
        self._answers.put(None)
        self._link.close()
