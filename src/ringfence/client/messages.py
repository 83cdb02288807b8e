"""What both clients, blocking and asyncio, say and understand; no input or output in here.

Requests are `wire.client`'s, one JSON object a line, each with a UUID for an id.  An id is kept when
a request is sent again on a new connection, so that a change whose reply was lost is not made twice.
Locks are the exception: they end with their connection, and so cannot be sent again; their requests
are numbered."""

import base64
import itertools
import uuid
from typing import Any

import msgspec

from ringfence.core.errors import (
    BadInput,
    LocksLost,
    NotFound,
    RingfenceError,
    TimedOut,
    Unavailable,
    from_dict,
)
from ringfence.core.ids import Token
from ringfence.core.modes import MODES, Mode
from ringfence.locks.flags import LVB_BYTES
from ringfence.locks.queues import EMPTY_LVB
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Reply, Request, decode_reply, encode

REPLY_BYTES = 64 << 20
"""Longest reply line that is read."""
REQUEST_BYTES = 1 << 20
"""Longest request line that the daemon reads; for a longer one it ends the connection."""
RETRY_MS = 5000
"""How long a lost connection is tried again before a call is given up."""
PATIENCE_MS = 30_000
"""How much longer than its own `wait_ms` a lock may take before the daemon counts as frozen."""

CLOSED = "the connection to the daemon ended"
CLOSED_HERE = "its connection was closed"
INTERRUPTED = "the connection to the daemon was interrupted in the middle of a request"
NODE_LOST = "this node's locks were lost"
SILENT = "the daemon does not answer"


class Grant(msgspec.Struct, frozen=True):
    lock: int
    mode: Mode
    token: Token
    lvb: bytes | None
    """None: nothing is known of the value block, or it is not valid."""
    incarnation: int = 0
    """Of a cached lock: whose authority page says whether it may be used."""


def new_id() -> str:
    return str(uuid.uuid4())


def line_of(request: Request) -> bytes:
    """Raises BadInput: to send what the daemon will not read would look like a lost connection."""
    try:
        line = encode(request)
    except UnicodeEncodeError as error:
        raise BadInput(f"{error.object!r} is no text", next="give text that UTF-8 can write") from None
    if len(line) >= REQUEST_BYTES:
        raise BadInput(f"a request is longer than {REQUEST_BYTES} bytes", next="send less at once")
    return line


class Lines:
    """Bytes in, replies out; what is incomplete waits for more.

    An interrupt (Ctrl-C) may strike between any two steps.  Each step is one assignment, and what was not
    finished is done again: a reply may be seen twice, none is lost."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, bytes]] = []
        """What arrived, numbered upward.  An empty one is the end."""
        self.numbers = itertools.count(1)
        self.undigested = False
        """Something may have been read and not handed out, as an interrupt came in between.  The link's."""
        self._state = (b"", 0, 0)
        """Bytes with whole lines in them, where the next one begins, the number of their last chunk."""
        self._scanned = 0
        """Number of the last chunk that is known to hold no end of a line."""

    def feed(self, data: bytes) -> None:
        self.chunks.append((next(self.numbers), data))

    @property
    def over(self) -> bool:
        """No more will arrive."""
        return bool(self.chunks) and not self.chunks[-1][1]

    def next(self) -> Reply | None:
        """The next whole reply, if there is one; the same again until `seen`.

        Raises Unavailable if this is not the daemon's language."""
        data, at, _ = self._state
        end = data.find(b"\n", at)
        if end < 0:
            if not self.chunks or not self._join():
                return None
            data, at, _ = self._state
            end = data.find(b"\n", at)
        try:
            return decode_reply(data[at:end])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _unreadable(error) from None

    def seen(self) -> bool:
        """The reply that `next` told has been dealt with.  Returns whether there is anything behind it."""
        data, at, last = self._state
        self._state = (data, at := data.find(b"\n", at) + 1, last)
        return at < len(data) or bool(self.chunks)

    def _join(self) -> bool:
        """Whether what arrived ends a line."""
        data, at, last = self._state
        if at == len(data) and len(self.chunks) == 1:  # nearly always
            number, chunk = self.chunks[0]
            if number > last and chunk.endswith(b"\n"):
                self._state = (chunk, 0, number)
                self.chunks = []
                return True
        fresh = [chunk for chunk in self.chunks if chunk[0] > last]
        for position, (number, chunk) in enumerate(fresh, 1):
            if number > self._scanned and b"\n" in chunk:
                self._state = (b"".join([data[at:], *(one for _, one in fresh[:position])]), 0, number)
                self.chunks = fresh[position:]
                return True
        if fresh:
            self._scanned = fresh[-1][0]
            if sum(len(chunk) for _, chunk in fresh) > REPLY_BYTES:
                raise Unavailable(
                    f"the daemon's reply is longer than {REPLY_BYTES >> 20} MiB", next="ask for less at once"
                )
        return False


def _unreadable(error: Exception) -> Unavailable:
    what = str(error).splitlines()[0]
    return Unavailable(
        f"the reply is not in ringfence's language: {what}",
        next="check that the socket is ringfence's, and that client and daemon have one version",
    )


def result_of(reply: Reply) -> Any:
    """The reply's result; raises its error."""
    if reply.error is not None:
        raise from_dict(reply.error)
    return reply.result


def grant_of(result: Any) -> Grant:
    try:
        lvb = result["lvb"]
        value = EMPTY_LVB if lvb == calls.NO_VALUE else None if lvb is None else base64.b64decode(lvb)
        return Grant(
            int(result["lock"]),
            MODES[result["mode"]],
            Token.parse(result["token"]),
            value if result["lvb_valid"] else None,
            int(result.get("incarnation", 0)),
        )
    except (KeyError, TypeError, ValueError):
        raise Unavailable(
            f"the daemon's reply to a lock request is not a grant: {str(result)[:200]}",
            next="check that client and daemon have one version",
        ) from None


def mode_of(mode: Mode | str) -> Mode:
    """Raises BadInput.  The daemon would say so too, but later."""
    known = mode if isinstance(mode, Mode) else MODES.get(str(mode).upper(), Mode.UN)
    if known is Mode.UN:
        raise BadInput(f"{mode!r} is no lock mode", next="give NL, CR, CW, PR, PW or EX")
    return known


def check_cached(mode: Mode, flags: int) -> None:
    """Raises BadInput.  Under NL and CR others may write the value block while it is kept."""
    if flags or mode < Mode.CW:
        raise BadInput(
            "a cached lock is CW, PR, PW or EX and has no flags", next="take it without cached=True"
        )


def check_callbacks(*callbacks: object) -> None:
    """Raises BadInput.  When one is to be called it is too late to say so."""
    for one in callbacks:
        if one is not None and not callable(one):
            raise BadInput(f"{one!r} cannot be called", next="give on_blocking or on_lost a function")


def check_lvb(lvb: bytes | None) -> None:
    """Raises BadInput for what is no value block."""
    if lvb is None:
        return
    if not isinstance(lvb, bytes | bytearray):  # a str would only be found out by the daemon
        raise BadInput(f"a value block is bytes, not {type(lvb).__name__}", next=f"give {LVB_BYTES} bytes")
    if len(lvb) != LVB_BYTES:
        raise BadInput(
            f"a value block has {LVB_BYTES} bytes, not {len(lvb)}", next="fill it up, with zeros say"
        )


def is_unread(error: RingfenceError) -> bool:
    """Whether the daemon could not even read what it was asked: nothing is another than before."""
    return isinstance(error, BadInput) and not isinstance(error, NotFound)


def check_plain(call: Call) -> None:
    """Raises BadInput for what `call` cannot carry: it answers once and may be sent again."""
    if isinstance(call, calls.LOCK_CALLS):
        raise BadInput("locks are not taken by a plain call", next="use Lockspace.lock()")
    if isinstance(call, calls.Events) and call.follow:
        raise BadInput("a call has one answer, and followed events have many", next="use Connection.events()")


def check_limit_ms(name: str, limit_ms: int) -> None:
    """Raises BadInput for what is no number of milliseconds: NaN is neither before nor after any time."""
    if type(limit_ms) is not int or limit_ms < 0:
        raise BadInput(f"{name} is {limit_ms!r}", next="give whole milliseconds, 0 or more")


def lock_limit_ms(wait_ms: int | None) -> int | None:
    """Raises BadInput for what is no number of milliseconds; call it before anything is asked."""
    if wait_ms is None:
        return None
    if type(wait_ms) is not int:  # NaN would be sent as null: for ever
        raise BadInput(
            f"wait_ms is {wait_ms!r}", next="give whole milliseconds, 0 to try, or None to wait for ever"
        )
    return wait_ms + PATIENCE_MS


# -- errors ------------------------------------------------------------------


def no_answer(call: Call, limit_ms: int) -> TimedOut:
    return TimedOut(
        f"no answer to {type(call).__name__} within {limit_ms} ms; it may still be carried out",
        next="look with ringfence status before repeating it, or repeat it with the same id",
        retry=True,
    )


def not_joined(lockspace: str, limit_ms: int) -> TimedOut:
    return TimedOut(
        f"lockspace {lockspace} was not joined within {limit_ms} ms", next="ringfence why", retry=True
    )


def lock_lost(what: str, why: str) -> LocksLost:
    return LocksLost(
        f"the lock of {what} is lost: {why}", next="stop using what it protects, then ask for it again"
    )


def not_granted(what: str, why: str = "") -> LocksLost:
    """Args: why: the link ended."""
    if why == CLOSED_HERE:
        return LocksLost(f"the connection was closed here while {what} was asked for", next="connect anew")
    return LocksLost(
        f"the daemon ended while {what} was asked for",
        next="ask for the lock again once it is back",
        retry=True,
    )


def silent(what: str) -> Unavailable:
    return Unavailable(
        f"the daemon does not answer about {what}; it is not waited for any more",
        next="look at the daemon's process and its log",
        retry=True,
    )


def forked(path: str) -> BadInput:
    return BadInput(
        f"this connection to {path} was made before the fork and belongs to the parent process",
        next="call connect() in the child",
    )


def ended(what: str) -> BadInput:
    return BadInput(f"the lock of {what} has been released", next="ask for it again")


def closed(path: str) -> BadInput:
    return BadInput(f"this connection to {path} is closed", next="call connect() again")
