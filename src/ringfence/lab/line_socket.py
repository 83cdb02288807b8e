"""One JSON object a line over a Unix socket: how the lab's own processes talk to one another.

A request of one line gets an answer of one line; then the connection ends.  With a request may go open
files (unix(7), SCM_RIGHTS)."""

import contextlib
import os
import socket as sockets
import socketserver
import threading
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ringfence.core.errors import RingfenceError, Unavailable, from_dict

Json = dict[str, Any]
Handler = Callable[[Json], Json | None]
"""Returns the answer; None: hang up without one.  RingfenceErrors become answers.  Files that came along are
request["files"], descriptors that are closed when it returns."""
MOST_FILES = 8


def ask(socket: Path, request: Json, timeout_s: float = 30.0, files: Sequence[int] = ()) -> Json:
    """Raises Unavailable (nobody answers), or the error that was answered."""
    try:
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(str(socket))
            line = msgspec.json.encode(request) + b"\n"
            sent = sockets.send_fds(sock, [line], list(files)) if files else 0
            if sent < len(line):  # nothing at all is sent, too, and fails if all was answered meanwhile
                sock.sendall(line[sent:])
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


def _received(sock: sockets.socket) -> tuple[bytes, list[int]]:
    """The first bytes, and files that came with them.  (socket.recv_fds drops its flags: no program that
    is started meanwhile may inherit them.)"""
    room = sockets.CMSG_SPACE(MOST_FILES * array("i").itemsize)
    line, controls, _, _ = sock.recvmsg(1 << 16, room, sockets.MSG_CMSG_CLOEXEC)
    return line, [file for _, _, data in controls for file in array("i", data)]


def _handler(handler: Handler) -> type[socketserver.StreamRequestHandler]:
    class OneRequest(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            line, files = _received(self.request)
            if not line.endswith(b"\n"):
                line += self.rfile.readline()
            try:
                answer = handler({**msgspec.json.decode(line), "files": files})
            except RingfenceError as error:
                answer = {"error": error.as_dict()}
            except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
                answer = {"error": RingfenceError(f"not a request: {error!r}").as_dict()}
            finally:
                for file in files:
                    os.close(file)
            if answer is not None:
                with contextlib.suppress(OSError):
                    self.wfile.write(msgspec.json.encode(answer) + b"\n")

    return OneRequest
