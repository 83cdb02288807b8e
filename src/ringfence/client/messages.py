"""What both clients, blocking and asyncio, say and understand; no input or output in here.

Requests are `wire.client`'s, one JSON object a line, each with a UUID for an id.  An id is kept when
a request is sent again on a new connection, so that a change whose reply was lost is not made twice.
Locks are the exception: they end with their connection, and so cannot be sent again."""

import base64
import errno
import os
import uuid
from collections.abc import Mapping
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
from ringfence.core.modes import Mode
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Reply, Request, decode_reply, encode

SOCKET = "/run/ringfence/socket"
SOCKET_VARIABLE = "RINGFENCE_SOCKET"
PATH_BYTES = 108
"""A Unix socket's path, final NUL included (unix(7), sun_path)."""
REPLY_BYTES = 64 << 20
"""Longest reply line that is read."""
REQUEST_BYTES = 1 << 20
"""Longest request line that the daemon reads; for a longer one it ends the connection."""
RETRY_MS = 5000
"""How long a lost connection is tried again before a call is given up."""
PATIENCE_MS = 30_000
"""How much longer than its own `wait_ms` a lock may take before the daemon counts as frozen."""

CONNECTION_OWNED = (calls.Lock, calls.Convert, calls.Unlock)


class Grant(msgspec.Struct, frozen=True):
    lock: int
    mode: Mode
    token: Token
    lvb: bytes | None
    """None: nothing is known of the value block, or it is not valid."""


class Notice(msgspec.Struct, frozen=True):
    """Something happened to a lock that is held."""

    wants: Mode | None = None
    """Somebody is kept waiting and wants this mode."""
    lost: bool = False
    """The lock is gone: stop using what it protects, at once."""


def socket_path(given: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> str:
    """The argument, else RINGFENCE_SOCKET, else the usual place.

    Raises BadInput for a path that no Unix socket can have."""
    path = os.fspath(given) if given is not None else environment.get(SOCKET_VARIABLE) or SOCKET
    if not path or "\0" in path or len(os.fsencode(path)) >= PATH_BYTES:
        raise BadInput(
            f"{path!r} cannot be a Unix socket's path (1 to {PATH_BYTES - 1} bytes)",
            next="give a shorter path, or a shorter --root to the daemon",
        )
    return path


def new_id() -> str:
    return str(uuid.uuid4())


def line_of(request: Request) -> bytes:
    """Raises BadInput: to send what the daemon will not read would look like a lost connection."""
    line = encode(request)
    if len(line) >= REQUEST_BYTES:
        raise BadInput(f"a request is longer than {REQUEST_BYTES} bytes", next="send less at once")
    return line


class Lines:
    """Bytes in, replies out; what is incomplete waits for more."""

    def __init__(self) -> None:
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[Reply]:
        """Raises Unavailable if this is not the daemon's language."""
        searched = len(self._partial)
        self._partial += data
        replies: list[Reply] = []
        start = 0
        while (end := self._partial.find(b"\n", max(start, searched))) >= 0:
            replies.append(_decode(bytes(self._partial[start:end])))
            start = end + 1
        del self._partial[:start]
        if len(self._partial) > REPLY_BYTES:
            raise Unavailable(
                f"the daemon's reply is longer than {REPLY_BYTES >> 20} MiB", next="ask for less at once"
            )
        return replies


def _decode(line: bytes) -> Reply:
    try:
        return decode_reply(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        what = str(error).splitlines()[0]
        raise Unavailable(
            f"the reply is not in ringfence's language: {what}",
            next="check that the socket is ringfence's, and that client and daemon have one version",
        ) from None


def result_of(reply: Reply) -> Any:
    """The reply's result; raises its error."""
    if reply.error is not None:
        raise from_dict(reply.error)
    return reply.result


def grant_of(result: Any) -> Grant:
    try:
        lvb = result["lvb"]
        return Grant(
            int(result["lock"]),
            Mode[result["mode"]],
            Token.parse(result["token"]),
            None if lvb is None or not result["lvb_valid"] else base64.b64decode(lvb),
        )
    except (KeyError, TypeError, ValueError):
        raise Unavailable(
            f"the daemon's reply to a lock request is not a grant: {str(result)[:200]}",
            next="check that client and daemon have one version",
        ) from None


def notice_of(result: Any) -> Notice | None:
    """A later reply to a lock's request; None for the release that this client asked for."""
    if isinstance(result, dict):
        if result.get("lost"):
            return Notice(lost=True)
        wants = result.get("blocking")
        if isinstance(wants, str) and wants in Mode.__members__:
            return Notice(wants=Mode[wants])
    return None


def mode_name(mode: Mode | str) -> str:
    """Raises BadInput.  The daemon would say so too, but later."""
    name = mode.name if isinstance(mode, Mode) else mode.upper()
    if name not in Mode.__members__ or name == Mode.UN.name:
        raise BadInput(f"{mode!r} is no lock mode", next="give NL, CR, CW, PR, PW or EX")
    return name


def check_plain(call: Call) -> None:
    """Raises BadInput for what `call` cannot carry: it answers once and may be sent again."""
    if isinstance(call, CONNECTION_OWNED):
        raise BadInput("locks belong to a connection of their own", next="use Connection.lock()")
    if isinstance(call, calls.Events) and call.follow:
        raise BadInput("a call has one answer, and followed events have many", next="use Connection.events()")


def lock_limit_ms(wait_ms: int | None) -> int | None:
    return None if wait_ms is None else wait_ms + PATIENCE_MS


# -- errors ------------------------------------------------------------------


def cannot_connect(path: str, error: OSError) -> RingfenceError:
    if error.errno == errno.EACCES:
        return Unavailable(
            f"this user may not use {path}", next="run as root, or join the group that owns the socket"
        )
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return Unavailable(
            f"no ringfence daemon listens on {path}",
            next="start it (ringfence daemon --node NAME), or set RINGFENCE_SOCKET",
            retry=True,
        )
    if error.errno in (errno.EAGAIN, errno.ETIMEDOUT):
        return Unavailable(
            f"the daemon on {path} accepts no connection: it is frozen or overrun",
            next="look at its process and its log",
            retry=True,
        )
    return Unavailable(f"cannot connect to {path}: {error.strerror or error}", next="check the path")


def connection_lost(path: str) -> Unavailable:
    return Unavailable(
        f"the daemon on {path} closed the connection before it answered",
        next="see whether it still runs (ringfence status), then look before repeating a change",
        retry=True,
    )


def no_answer(call: Call, limit_ms: int) -> TimedOut:
    return TimedOut(
        f"no answer to {type(call).__name__} within {limit_ms} ms; it may still be carried out",
        next="look with ringfence status before repeating it, or repeat it with the same id",
        retry=True,
    )


def lock_lost(what: str, why: str) -> LocksLost:
    return LocksLost(
        f"the lock of {what} is lost: {why}", next="stop using what it protects, then ask for it again"
    )


def as_lock_error(error: RingfenceError, what: str) -> RingfenceError:
    """On a lock's own connection "no such lock" means that the daemon dropped it."""
    if isinstance(error, NotFound):
        return lock_lost(what, "the daemon knows it no more")
    return error


def ended(what: str) -> BadInput:
    return BadInput(f"the lock of {what} has been released", next="ask for it again")


def closed(path: str) -> BadInput:
    return BadInput(f"this connection to {path} is closed", next="call connect() again")
