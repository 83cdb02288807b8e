"""One question, one answer: for commands that ask and end.

As `blocking.Connection.call` does it, without what takes long to load: msgspec, threads, json, socket.
A question goes again under the same id where the connection broke, so that nothing is done twice."""

from __future__ import annotations

import _socket  # what `socket` adds is not used here, and loads `selectors`, `enum` and more
import os
import time

from ringfence.client import quick_json
from ringfence.client.place import cannot_connect, connection_lost, socket_path
from ringfence.core.errors import BadInput, RingfenceError, Unavailable, from_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

CONNECT_S = 10.0
PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
CHUNK_BYTES = 1 << 20
UNKNOWN = "unknown request"
"""How a daemon's answer begins to what is no request of its version."""
OLDER = "older-daemon"
REQUEST_BYTES = 1 << 20
"""The daemon reads no longer one."""

Call: TypeAlias = "dict[str, Any]"
"""One of `wire.client`'s calls as it goes over the wire: {"type": NAME, field: value}."""


class Brief:
    """A daemon's client.  A context manager.

    Args:
        path: the daemon's socket; None: as `place.socket_path` has it.
        retry_ms: how long a call goes on trying after the connection broke under it.
        limit_s: how long the daemon may say nothing; None: for ever, once connected.

    Raises: Unavailable, BadInput: as `blocking.connect`."""

    def __init__(self, path: str | None, retry_ms: int, limit_s: float | None = None) -> None:
        self.path = socket_path(path, os.environ)
        self._retry_ms = retry_ms
        self._limit_s = limit_s
        self._socket: _socket.socket | None = None
        self._connect()

    def __enter__(self) -> Brief:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def call(self, call: Call) -> Any:
        """Its result.

        Raises: Unavailable: the daemon went away and did not come back within retry_ms, or said nothing for
        too long; BadInput with the code OLDER: it does not know such a call; any other RingfenceError: the
        daemon's answer."""
        name = os.urandom(16).hex()
        line = quick_json.written({"id": name, "call": call}) + "\n"
        try:
            data = line.encode()
        except UnicodeEncodeError as error:
            begin, end = line.rfind('"', 0, error.start) + 1, line.find('"', error.end)
            raise BadInput(f"{line[begin:end]!r} is no text", next="give text that UTF-8 can write") from None
        if len(data) >= REQUEST_BYTES:
            raise BadInput(f"a request is longer than {REQUEST_BYTES} bytes", next="send less at once")
        return self._answer(data, name)

    def _answer(self, data: bytes, name: str) -> Any:
        pause_s, give_up_s = PAUSE_S, time.monotonic() + self._retry_ms / 1000
        while True:
            try:
                reply = self._exchange(data, name)
                if reply.get("error") is not None:
                    raise _understood(from_dict(reply["error"]))
                return reply.get("result")
            except (OSError, Unavailable) as error:
                # OSError: the daemon went away.  Unavailable with retry: it is not back yet.
                if isinstance(error, Unavailable) and not error.retry:
                    raise
                self._close()
                if time.monotonic() + pause_s > give_up_s:
                    raise (error if isinstance(error, Unavailable) else connection_lost(self.path)) from None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _exchange(self, data: bytes, name: str) -> dict[str, Any]:
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        self._socket.sendall(data)
        chunks: list[bytes] = []
        while True:
            chunk = self._socket.recv(CHUNK_BYTES)
            if not chunk:
                raise ConnectionError
            chunks.append(chunk)
            if not chunk.endswith(b"\n"):
                continue
            # A line of another id is about what this connection did not ask.
            for line in b"".join(chunks).splitlines():
                reply = _decode(line)
                if reply.get("id") in (name, "") and reply.get("final", True):
                    return reply
            chunks.clear()

    def _connect(self) -> None:
        made = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            made.settimeout(CONNECT_S if self._limit_s is None else self._limit_s)
            made.connect(self.path)
            made.settimeout(self._limit_s)
        except OSError as error:
            made.close()
            raise cannot_connect(self.path, error) from None
        self._socket = made

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _understood(error: RingfenceError) -> RingfenceError:
    """A daemon that cannot read the request at all is of an older version than this client."""
    if error.code != BadInput.code or not error.message.startswith(UNKNOWN):
        return error
    return BadInput(
        f"the daemon that runs is of an older version, and does not know this{error.message[len(UNKNOWN) :]}",
        next="restart it: systemctl restart ringfence (volumes stay open)", code=OLDER,
    )  # fmt: skip


def _decode(line: bytes) -> dict[str, Any]:
    try:
        reply = quick_json.read(line.decode())
    except ValueError as error:
        raise _foreign(str(error)) from None
    if not isinstance(reply, dict) or "id" not in reply:
        raise _foreign("no reply")
    return reply


def _foreign(what: str) -> Unavailable:
    return Unavailable(
        f"the reply is not in ringfence's language: {what}",
        next="check that the socket is ringfence's, and that client and daemon have one version",
    )
