"""What a hand-over costs by its processes alone: the way of a lock that goes to a client of another node,
walked by 64 bytes, in bare Python.

    client -> daemon -> hub -> daemon -> client

Each stands in a process of its own, as ringfence's do, and only reads and writes on.  `python lock_relay.py
hub DIRECTORY` and `… daemon DIRECTORY NUMBER` are those in the middle; `Relay` is a client: the lock is the
ball, which daemon 0 has at first."""

import contextlib
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BALL = bytes(64)
NODES = 2


class Relay:
    """Args: where: {"directory": the servers'}.  node: 0 or 1."""

    def __init__(self, where: dict[str, Any], node: int) -> None:
        self._daemon = socket.socket(socket.AF_UNIX)
        self._daemon.connect(f"{where['directory']}/{node % NODES}")

    def lock(self, name: str) -> None:
        self._daemon.recv(len(BALL))

    def unlock(self, name: str) -> None:
        self._daemon.send(BALL)


@contextlib.contextmanager
def relay(directory: Path) -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        _process(stack, "hub", str(directory))
        for number in range(NODES):
            _process(stack, "daemon", str(directory), str(number))
        yield {"directory": str(directory)}


def _process(stack: contextlib.ExitStack, *words: str) -> None:
    process = stack.enter_context(
        subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
    )
    stack.callback(process.kill)
    assert process.stdout is not None
    process.stdout.readline()


def hub(directory: str) -> None:
    with _listening(f"{directory}/hub") as listener:
        links = [listener.accept()[0] for _ in range(NODES)]
    on = {link.fileno(): other for link, other in zip(links, reversed(links), strict=True)}
    by = {link.fileno(): link for link in links}
    poll = select.epoll()
    for link in links:
        poll.register(link, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            ball = by[number].recv(len(BALL))
            if not ball:
                return
            on[number].send(ball)


def daemon(directory: str, node: int) -> None:
    """Has one client at a time."""
    up = socket.socket(socket.AF_UNIX)
    up.connect(f"{directory}/hub")
    client = socket.socket(socket.AF_UNIX)
    with _listening(f"{directory}/{node}") as listener:
        poll = select.epoll()
        poll.register(up, select.EPOLLIN)
        poll.register(listener, select.EPOLLIN)
        while True:
            for number, _ in poll.poll():
                if number == listener.fileno():
                    client, _ = listener.accept()
                    poll.register(client, select.EPOLLIN)
                    if node == 0:
                        client.send(BALL)
                elif number == up.fileno():
                    ball = up.recv(len(BALL))
                    with contextlib.suppress(ConnectionError):
                        client.send(ball)
                else:
                    ball = b""
                    with contextlib.suppress(ConnectionError):
                        ball = client.recv(len(BALL))
                    if ball:
                        up.send(ball)
                    else:
                        poll.unregister(client)  # it left, perhaps with the ball


def _listening(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    return listener


if __name__ == "__main__":
    if sys.argv[1] == "hub":
        hub(sys.argv[2])
    else:
        daemon(sys.argv[2], int(sys.argv[3]))
