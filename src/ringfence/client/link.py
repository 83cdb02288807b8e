"""One blocking Unix-socket connection: requests out, replies in.

Not safe for two threads at once; whoever owns it holds a lock around it."""

import select
import socket
import time
from collections import deque

from ringfence.client.messages import Lines, cannot_connect, line_of
from ringfence.wire.client import Reply, Request

CONNECT_S = 10.0
CHUNK_BYTES = 256 << 10


class Silence(Exception):
    """Nothing came within the limit."""


class Gone(Exception):
    """The other side closed the connection, or it broke."""


class Link:
    def __init__(self, path: str) -> None:
        """Raises Unavailable, with what to do next."""
        self._lines = Lines()
        self._replies: deque[Reply] = deque()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(CONNECT_S)
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise cannot_connect(path, error) from None
        except BaseException:  # Ctrl-C while it connects
            self._socket.close()
            raise

    def send(self, request: Request, deadline_s: float | None = None) -> None:
        """Raises Gone, Silence (the daemon reads nothing), BadInput (too long)."""
        line = line_of(request)
        try:
            self._socket.settimeout(_left(deadline_s))
            self._socket.sendall(line)
        except TimeoutError:
            raise Silence from None
        except OSError:
            raise Gone from None

    def receive(self, deadline_s: float | None = None) -> Reply:
        """The next reply.  A reply that is already here is returned even after the deadline.

        Raises Gone, Silence; Unavailable if this is not the daemon's language."""
        while not self._replies:
            try:
                self._socket.settimeout(_left(deadline_s))
                data = self._socket.recv(CHUNK_BYTES)
            except TimeoutError:
                raise Silence from None
            except OSError:
                raise Gone from None
            if not data:
                raise Gone
            self._replies.extend(self._lines.feed(data))
        return self._replies.popleft()

    def ready(self) -> bool:
        """Whether `receive` would return (or raise Gone) at once, but for half a line."""
        if self._replies or self._socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def fileno(self) -> int:
        return self._socket.fileno()

    def shut(self) -> None:
        """End the connection; a thread in `receive` wakes up with Gone."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        self._socket.close()


def deadline(limit_ms: int | None) -> float | None:
    return None if limit_ms is None else time.monotonic() + limit_ms / 1000


def _left(deadline_s: float | None) -> float | None:
    # Never 0: that would mean "do not block" rather than "time is over".
    return None if deadline_s is None else max(0.0001, deadline_s - time.monotonic())
