"""One JSON object a line over a Unix socket: how the lab's own processes talk to one another.

A request of one line gets an answer of one line; then the connection ends."""

import contextlib
import os
import socket as sockets
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ringfence.core.errors import RingfenceError, Unavailable, from_dict

Json = dict[str, Any]
Handler = Callable[[Json], Json | None]
"""Returns the answer; None: hang up without one.  RingfenceErrors become answers."""


def ask(socket: Path, request: Json, timeout_s: float = 30.0) -> Json:
    """Raises Unavailable (nobody answers), or the error that was answered."""
    try:
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(str(socket))
            sock.sendall(msgspec.json.encode(request) + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline()
    except OSError as error:
        why = error.strerror or error
        raise Unavailable(f"nobody answers on {socket}: {why}", next="ringfence lab status") from None
    if not line:
        raise Unavailable(f"no answer on {socket}", next="ringfence lab status")
    answer: Json = msgspec.json.decode(line)
    if "error" in answer:
        raise from_dict(answer["error"])
    return answer


class LineServer:
    """Serves `handler` at a socket, a thread a connection, until `close`."""

    def __init__(self, socket: Path, handler: Handler) -> None:
        self._socket = socket
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket)
        mask = os.umask(0o177)
        try:
            self._server = _Server(str(socket), _handler(handler))
        finally:
            os.umask(mask)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when every request that was read has its answer."""
        self._server.shutdown()
        self._server.server_close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._socket)


class _Server(socketserver.ThreadingUnixStreamServer):
    request_queue_size = 64


def _handler(handler: Handler) -> type[socketserver.StreamRequestHandler]:
    class OneRequest(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line = self.rfile.readline()
            try:
                answer = handler(msgspec.json.decode(line))
            except RingfenceError as error:
                answer = {"error": error.as_dict()}
            except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
                answer = {"error": RingfenceError(f"not a request: {error!r}").as_dict()}
            if answer is not None:
                with contextlib.suppress(OSError):
                    self.wfile.write(msgspec.json.encode(answer) + b"\n")

    return OneRequest
