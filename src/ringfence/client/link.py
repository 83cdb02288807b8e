"""One connection to the daemon: requests out, replies to whoever waits for them.

Many threads may use one.  Whoever waits reads, for itself and for the others (one leads, the rest follow;
when the leader has its own reply it wakes one that goes on).  So a thread that waits long for a lock keeps
nobody from asking, and one that is alone waits in the kernel and nowhere else.  A listening link is read
by a thread of its own instead, so that notices are heard while nobody waits.

A link ends when the connection does, or when the daemon takes nothing for `STUCK_S`.

An interrupt (Ctrl-C, any exception of a signal handler) may strike after any call, and costs the waiter
its own request and nothing else: what a system call did is kept by the C code that made it (the `map`
in `_send` and `_read`), so that it is known whether a line is out and no byte that came in is lost."""

import contextlib
import itertools
import os
import select
import socket
import struct
import threading
import time
import weakref
from typing import Any, Protocol

from ringfence.client.exchange import hear, peek, say
from ringfence.client.messages import CLOSED, INTERRUPTED, Grant, Lines, forked, grant_of, line_of, result_of
from ringfence.client.place import cannot_connect
from ringfence.core.errors import Unavailable
from ringfence.wire.client import Call, Lock, Reply, Request

CONNECT_S = 10.0
STUCK_S = 30
CHUNK_BYTES = 16 << 10
"""Small enough for malloc to have it at hand: each read makes a buffer of this size first."""
AWAKE_MS = 1000
"""Who waits longer asks again: a signal that comes after Python has looked for one, and before the system
call is entered, wakes nobody.  (Any call of Python's that waits has this gap.)"""
_TIMEVAL = struct.Struct("@ll")


class Silence(Exception):
    """Nothing came within the limit."""


class Gone(Exception):
    """The link has ended."""


class Unsent(Gone):
    """It had ended before, and nothing was asked."""


class Holder(Protocol):
    """Whoever is to be told what becomes of a lock.  Called by the thread that reads: it must not wait."""

    def told(self, lock: int, result: dict[str, Any]) -> None:
        """A later word about the lock: {"blocking": …}, {"lost": …} or {"released": …}."""

    def lose(self, why: str) -> None:
        """The link ended, and the lock with it."""


class Answer:
    """Where the replies to one request arrive."""

    __slots__ = ("holder", "replies", "wake")

    def __init__(self, holder: Holder | None) -> None:
        self.replies: list[Reply] = []
        self.holder = holder
        self.wake = threading.Lock()
        self.wake.acquire()


class Link:
    """Args: path: the daemon's socket.  listens: a thread reads it as long as it lives.

    Raises Unavailable, with what to do next."""

    def __init__(self, path: str, *, listens: bool = False) -> None:
        self.path = path
        self.listens = listens
        self.ended = ""
        """Why it ended; empty while it is alive."""
        self.holders: dict[int, Holder] = {}
        """Of each lock that this connection has."""
        self.answered = 0
        """The highest id for which a lock was granted: the daemon has seen all that was sent before."""
        self._answers: dict[str, Answer] = {}
        self.ids = itertools.count(1)
        """Requests are numbered."""
        self._lines = Lines()
        self._sending = threading.Lock()
        self._reading = threading.RLock()
        self._socket = _connected(path)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._way = self._socket, self._sending, self._reading, self._lines, self.holders
        """For `exchange`."""
        _links.add(self)
        if not listens:  # nor is a thread of its own ever told of a signal
            awake = _TIMEVAL.pack(AWAKE_MS // 1000, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, awake)
        else:
            threading.Thread(target=self._listen, name="ringfence notices", daemon=True).start()

    # -- asking ----------------------------------------------------------------------

    def lock(self, number: int, call: Lock, holder: Holder, limit_ms: int | None) -> Grant:
        """Ask for a lock and wait for it, as `expect`, `send` and `wait` would.

        Args: number: of `ids`.  Raises the reply's error, Unsent, Gone, Silence."""
        id = str(number)
        until = None if limit_ms is None else deadline(limit_ms)
        answer = Answer(holder)
        try:
            self._answers[id] = answer
            line = line_of(Request(id, call))
            if say is None or not say(self._way, line):
                try:
                    self._send(line)
                except Gone:
                    raise Unsent from None
            found = None
            if hear is not None and not self.listens:
                at_most_ms = -1 if limit_ms is None else max(0, min(limit_ms, AWAKE_MS))
                found = hear(self._way, id, answer, at_most_ms)
            if found is None:
                found = grant_of(result_of(self.wait(answer, until)))
            if self.answered < number:
                self.answered = number
            return found
        finally:
            try:
                self.forget(id)
            except BaseException:  # Ctrl-C, just now
                self.forget(id)
                raise

    def new_id(self) -> str:
        """For calls that belong to this connection: a number is enough."""
        return str(next(self.ids))

    def ask(self, request: Request, deadline_s: float | None = None) -> Reply:
        """Send, and wait for the one reply.  Raises Gone, Silence, BadInput (too long)."""
        answer = self.expect(request.id)
        try:
            self.send(request)
            return self.wait(answer, deadline_s)
        finally:
            self.forget(request.id)

    def expect(self, id: str, holder: Holder | None = None) -> Answer:
        """Replies to that id are had from `wait` until `forget`.

        `holder` is registered by whoever reads the grant, before any later word about the lock is read."""
        answer = self._answers[id] = Answer(holder)
        return answer

    def send(self, request: Request) -> None:
        """Raises Gone, BadInput (too long)."""
        line = line_of(request)
        if say is None or not say(self._way, line):
            self._send(line)

    def tell(self, call: Call) -> None:
        """Send what nobody waits for the answer of.  Raises Gone."""
        self.send(Request(self.new_id(), call))

    def forget(self, id: str) -> None:
        """Nobody waits for this one's replies any more; if it was to lead, or `hear` did, another one may."""
        self._answers.pop(id, None)
        if self._answers or self.ended:
            self._hand_over()

    def wait(self, answer: Answer, deadline_s: float | None = None) -> Reply:
        """The next reply; one that is here already is returned even after the deadline.

        Raises Gone, Silence."""
        while not answer.replies:
            if self.ended:
                self._hand_over(answer)
                raise Gone
            leads = False
            try:
                leads = self._reading.acquire(blocking=False)
                while leads and not answer.replies and not self.ended:
                    self._read(deadline_s)
            finally:
                try:
                    self._let_go()
                except BaseException:
                    self._let_go()
                    self._hand_over()
                    raise
            if not leads:
                self._follow(answer, deadline_s)
        return answer.replies.pop(0)

    def look(self) -> None:
        """Read what the daemon has said meanwhile, without waiting."""
        if peek is not None and not peek(self._way):
            return
        try:
            if self._reading.acquire(blocking=False):
                while not self.ended and (self._lines.undigested or self._poll.poll(0)):
                    self._read_now()
        finally:
            try:
                self._let_go()
            except BaseException:
                self._let_go()
                self._hand_over()
                raise

    # -- its end -----------------------------------------------------------------------

    def end(self, why: str) -> None:
        """Close it.  Whoever waits is woken with Gone; the holders of its locks lose them."""
        if self.ended:
            return
        self.ended = why
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # whoever reads wakes up
        for answer in list(self._answers.values()):
            _wake(answer)
        for lock in list(self.holders):
            holder = self.holders.pop(lock, None)
            if holder is not None:
                holder.lose(why)
        self._close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def leave_to_parent(self) -> None:
        """In a child process: the connection is the parent's, and must end when that one does."""
        self.ended = forked(self.path).message
        self._socket.close()

    # -- helpers ---------------------------------------------------------------------------

    def _send(self, line: bytes) -> None:
        if self.ended:  # in a child process the next line might wait for ever
            raise Gone
        with self._sending:
            sent: list[int] = []
            try:
                while (size := sum(sent)) < len(line):
                    sent.extend(map(self._socket.send, (line[size:] if size else line,)))
                return
            except OSError:
                why = CLOSED
            except BaseException:
                if 0 < sum(sent) < len(line):  # nobody could go on from half a line
                    self.end(INTERRUPTED)
                raise
        self.end(why)
        raise Gone

    def _read(self, deadline_s: float | None) -> None:
        """Wait for bytes and hand out what they say.  Raises Silence."""
        if deadline_s is not None and not self._lines.undigested:
            left_ms = max(0.0, deadline_s - time.monotonic()) * 1000
            if not self._poll.poll(min(left_ms, AWAKE_MS)):
                if left_ms > AWAKE_MS:
                    return  # and ask again
                raise Silence
        self._read_now()

    def _read_now(self) -> None:
        """The reader's lock is held."""
        lines = self._lines
        try:
            if not lines.undigested and not lines.over:
                lines.undigested = True
                lines.chunks.extend(
                    zip(lines.numbers, map(self._socket.recv, (CHUNK_BYTES,)), strict=False)
                )
            while (reply := lines.next()) is not None:
                self._hand_out(reply)
                if not lines.seen():
                    break
            lines.undigested = False
        except BlockingIOError:  # after AWAKE_MS
            lines.undigested = False
        except OSError:
            self.end(CLOSED)
        except Unavailable as error:
            self.end(str(error))
        if lines.chunks and lines.over:
            self.end(CLOSED)

    def _hand_out(self, reply: Reply) -> None:
        if not reply.id:  # a word about the whole connection, which ends with it
            for answer in list(self._answers.values()):
                answer.replies.append(reply)
                _wake(answer)
            return
        result = reply.result
        lock = result.get("lock") if isinstance(result, dict) else None
        if lock in self.holders and "mode" not in result:
            self.holders[lock].told(lock, result)
        elif reply.id in self._answers:
            waiting = self._answers[reply.id]
            if lock is not None and waiting.holder is not None:
                self.holders[lock] = waiting.holder
            waiting.replies.append(reply)
            _wake(waiting)

    def _let_go(self) -> None:
        """Lead no more, if this one did.  If not, it wakes nobody: two who follow would never
        sleep."""
        try:
            self._reading.release()
        except RuntimeError:
            return
        self._hand_over()

    def _hand_over(self, leaving: Answer | None = None) -> None:
        """Let another one lead, if there is one."""
        if self.ended:
            self._close()
        for answer in list(self._answers.values()) if self._answers else ():
            if answer is not leaving and not answer.replies and _wake(answer):
                return

    def _follow(self, answer: Answer, deadline_s: float | None) -> None:
        """Sleep until the reply is here, or the leader has gone."""
        try:
            left_s = -1.0
            if deadline_s is not None:
                left_s = min(max(0.0, deadline_s - time.monotonic()), threading.TIMEOUT_MAX)
            if not answer.wake.acquire(timeout=left_s) and not answer.replies:
                raise Silence
        except BaseException:
            self._hand_over(answer)  # it may have been this one's turn to lead
            raise

    def _listen(self) -> None:
        with self._reading:
            try:
                while not self.ended:
                    self._read(None)
            finally:
                self.end(CLOSED)
        self._close()

    def _close(self) -> None:
        """Give the descriptor back, unless somebody reads from it: that one does it then."""
        if self._reading.acquire(blocking=False):
            try:
                self._socket.close()
            finally:
                self._reading.release()


def deadline(limit_ms: int | None) -> float | None:
    return None if limit_ms is None else time.monotonic() + limit_ms / 1000


def _connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(CONNECT_S)
        made.connect(path)
        made.settimeout(None)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(STUCK_S, 0))
    except OSError as error:
        made.close()
        raise cannot_connect(path, error) from None
    except BaseException:  # Ctrl-C while it connects
        made.close()
        raise
    return made


def _wake(answer: Answer) -> bool:
    """Whether it was asleep (or about to be)."""
    try:
        answer.wake.release()
    except RuntimeError:
        return False
    return True


_links: "weakref.WeakSet[Link]" = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for link in list(_links):
        link.leave_to_parent()


os.register_at_fork(after_in_child=_leave_all_to_parent)
