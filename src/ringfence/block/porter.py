"""The porter: the process that listens for LVs that nobody uses yet.

    python -m ringfence.block.porter CHANNEL_FD SERVICE_PID GROUP

It binds the sockets that the service names.  When somebody connects to one it hands the listening socket to
the service, connection and all, and forgets it: a worker serves it from then on.  It reads and writes no LV,
so it needs no authority; it ends with the service, as workers do.

On the channel, a socket pair that keeps messages apart, a message is a JSON object.  Asked is `listen` and
`close`, with the sockets' paths, and answered `errors`, one for each path, empty where there is none; told is
`knock`, a path, with its socket as a descriptor."""

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

from ringfence.host.parent import end_with

MESSAGE_BYTES = 1 << 20
BACKLOG = 128


class Porter:
    """Args: group: the sockets' group; -1: unchanged."""

    def __init__(self, channel: socket.socket, group: int) -> None:
        self._channel = channel
        self._group = group
        self._listeners: dict[str, socket.SocketType] = {}
        self._paths: dict[int, str] = {}
        """By descriptor."""
        self._poll = select.epoll()  # the kernel alone goes over thousands of sockets
        self._poll.register(channel, select.EPOLLIN)

    def run(self) -> None:
        """Until the service ends, or hangs up."""
        channel = self._channel.fileno()
        while True:
            ready = [fd for fd, _ in self._poll.poll()]
            for fd in ready:  # before the message, after which a descriptor may be another socket's
                if fd != channel:
                    self._knock(self._paths[fd])
            if channel in ready:
                message = self._channel.recv(MESSAGE_BYTES)
                if not message:
                    return
                self._say(self._obey(json.loads(message)))

    def _obey(self, message: dict[str, Any]) -> dict[str, Any]:
        if "listen" in message:
            return {"errors": [self._listen(path) for path in message["listen"]]}
        for path in message["close"]:
            self._close(path)
        return {"errors": [""] * len(message["close"])}

    def _listen(self, path: str) -> str:
        try:
            listener = socket.SocketType(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            return error.strerror or str(error)
        try:
            self._bind(listener, path)
            if self._group >= 0:
                os.chown(path, -1, self._group)
            listener.listen(BACKLOG)
            self._poll.register(listener.fileno(), select.EPOLLIN)
        except OSError as error:
            listener.close()
            return error.strerror or str(error)
        self._listeners[path] = listener
        self._paths[listener.fileno()] = path
        return ""

    def _bind(self, listener: socket.SocketType, path: str) -> None:
        """Nobody looks first: only who was killed leaves a socket behind."""
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            os.unlink(path)
            listener.bind(path)

    def _close(self, path: str) -> None:
        listener = self._forget(path)
        if listener is not None:
            with contextlib.suppress(OSError):
                os.unlink(path)
            listener.close()

    def _knock(self, path: str) -> None:
        listener = self._forget(path)
        if listener is not None:
            self._say({"knock": path}, listener)
            listener.close()

    def _forget(self, path: str) -> socket.SocketType | None:
        """It may live on elsewhere, so it is taken out of what is looked at."""
        listener = self._listeners.pop(path, None)
        if listener is not None:
            self._poll.unregister(listener.fileno())
            del self._paths[listener.fileno()]
        return listener

    def _say(self, message: dict[str, Any], *listeners: socket.SocketType) -> None:
        data = json.dumps(message).encode()
        socket.send_fds(self._channel, [data], [one.fileno() for one in listeners])


def main(argv: list[str]) -> int:
    channel_fd, service_pid, group = map(int, argv)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not end_with(service_pid):
        return 1  # the service ended before it could take us along
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.umask(0o117)  # a socket is its owner's and its group's
    Porter(socket.socket(fileno=channel_fd), group).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
