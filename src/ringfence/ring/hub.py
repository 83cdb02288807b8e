"""The hub as a process: its socket, its door, its end.  What it decides is in `broker`.

Whoever can connect can speak as any node, so the socket belongs to its user alone (mode 0600)."""

import asyncio
import contextlib
import errno
import os
import signal
import socket as sockets
import sys
from collections.abc import Callable
from pathlib import Path

from ringfence.core.errors import BadInput, Unavailable
from ringfence.ring.broker import Broker, JoinRefused
from ringfence.ring.epochs import Epochs
from ringfence.ring.link import Link
from ringfence.wire import hub as wire
from ringfence.wire.hub import Role, ToHub

HELLO_TIMEOUT_S = 5.0
MAX_STRANGERS = 64
"""Connections that have not said who they are; more are turned away."""
MAX_NODE = 1 << 31
MAX_SEEN = 1 << 60
_MAX_PATH_BYTES = 107
_ACCEPT_PAUSE_S = 0.5


class Door:
    """Lets connections in by their Hello, and answers admins."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._strangers: list[Link[ToHub]] = []
        self._admins: list[Link[ToHub]] = []

    def accept(self, connection: sockets.socket) -> None:
        if len(self._strangers) >= MAX_STRANGERS:
            connection.close()
            return
        link = Link(connection, wire.to_hub_frames())
        link.on_message = lambda message: self._hello(link, message)
        link.on_closed = lambda why: self._strangers.remove(link)
        self._strangers.append(link)
        asyncio.get_running_loop().call_later(HELLO_TIMEOUT_S, self._too_quiet, link)

    def _too_quiet(self, link: Link[ToHub]) -> None:
        if link in self._strangers:
            self._strangers.remove(link)
            link.finish(wire.encode(wire.Refusal("nothing was said", "begin with Hello")))

    def _hello(self, link: Link[ToHub], message: ToHub) -> None:
        self._strangers.remove(link)
        link.on_message, link.on_closed = (lambda message: None), (lambda why: None)
        try:
            self._admit(link, message)
        except JoinRefused as refused:
            link.finish(wire.encode(wire.Refusal(refused.message, refused.next)))

    def _admit(self, link: Link[ToHub], message: ToHub) -> None:
        if not isinstance(message, wire.Hello):
            raise JoinRefused("the first message must be Hello")
        if message.protocol != wire.HUB_PROTOCOL:
            raise JoinRefused(
                f"this hub speaks protocol {wire.HUB_PROTOCOL}, not {message.protocol}",
                "run the same version of ringfence on both sides",
            )
        link.frames.limit_bytes = wire.MAX_FRAME_BYTES
        if message.role is Role.ADMIN:
            link.on_message = lambda order: self._administer(link, order)
            link.on_closed = lambda why: self._admins.remove(link)
            self._admins.append(link)
            link.send(wire.encode(wire.Welcome(self._broker.token_ms, self._broker.detection_ms)))
            return
        if not 0 < message.node < MAX_NODE or not 0 <= message.seen < MAX_SEEN:
            raise JoinRefused(f"node id {message.node} (epoch {message.seen} seen) is out of range")
        if message.role is Role.HOST:
            self._broker.attach(message.node, link)
        else:
            self._broker.join(message.node, link, message.seen)

    def _administer(self, link: Link[ToHub], order: ToHub) -> None:
        answer: wire.FromHub = wire.Done()
        match order:
            case wire.Cut(groups):
                named = [node for group in groups for node in group]
                if len(named) != len(set(named)):
                    answer = wire.Refusal("a node stands in two groups", "name each node once")
                else:
                    self._broker.cut(groups)
            case wire.Heal():
                self._broker.heal()
            case wire.AskStatus():
                answer = self._broker.status()
            case _:
                answer = wire.Refusal("an admin link may only cut, heal and ask for status")
        link.send(wire.encode(answer))

    def close(self) -> None:
        for link in [*self._strangers, *self._admins]:
            link.close()


def listen(path: Path) -> sockets.socket:
    """A listening Unix socket that only this user can reach.

    A socket file that nobody answers on is a leftover and is replaced.

    Raises Unavailable if a hub answers there already, BadInput if the path cannot hold a socket."""
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise BadInput(f"socket path {path} is over {_MAX_PATH_BYTES} bytes", next="use a shorter directory")
    sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    sock.setblocking(False)
    try:
        _clear(path)
        before = os.umask(0o177)
        try:
            sock.bind(os.fspath(path))
        finally:
            os.umask(before)
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise BadInput(
            f"cannot listen on {path}: {error.strerror}",
            next="give a --socket in a directory that can be written",
        ) from None
    except Unavailable:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink()
            return
        except TimeoutError:
            pass  # somebody holds it and does not answer: that is still somebody
    raise Unavailable(f"a hub already listens on {path}", next="use that one, or stop it first")


async def serve(
    socket: Path, state: Path, token_ms: int = 1000, ready: Callable[[], None] = lambda: None
) -> None:
    """Run a hub until it is cancelled or gets SIGTERM or SIGINT.

    Args:
        socket: where nodes and admins connect.
        state: the file that keeps the highest epoch.  If it existed and is missing now, that
            cannot be told: nodes that were there before then bring the number with them.
        token_ms: the ring's token time-out; silence of 2.2 times that removes a host.
        ready: called once the hub can be connected to.

    Raises BadInput, Unavailable or Damaged, each one clear line, before anything was changed."""
    if not 10 <= token_ms <= 600_000:
        raise BadInput(f"a token time of {token_ms} ms is out of range", next="give 10 to 600000")
    with Epochs(state) as epochs:
        listener = listen(socket)
        broker = Broker(epochs, token_ms, _log)
        door = Door(broker)
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, _accept, listener, door)
        try:
            ready()
            await _tick_until_told(broker)
        finally:
            loop.remove_reader(listener)
            listener.close()
            door.close()
            broker.close()
            _unlink(socket)


def _unlink(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _accept(listener: sockets.socket, door: Door) -> None:
    try:
        connection, _ = listener.accept()
    except (BlockingIOError, InterruptedError, ConnectionAbortedError):
        return
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
            raise
        _log(f"cannot accept a connection: {error.strerror}")
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)  # it waits in the backlog; asking at once again would only spin
        loop.call_later(_ACCEPT_PAUSE_S, _accept_again, listener, door)
        return
    door.accept(connection)


def _accept_again(listener: sockets.socket, door: Door) -> None:
    if listener.fileno() >= 0:
        asyncio.get_running_loop().add_reader(listener, _accept, listener, door)


async def _tick_until_told(broker: Broker) -> None:
    """Ticks until SIGTERM or SIGINT (or cancellation)."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    handled = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: the caller cancels
            loop.add_signal_handler(number, told.set)
            handled.append(number)
    last = loop.time()
    try:
        while not told.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), broker.tick_ms / 1000)
            now = loop.time()
            broker.tick((now - last) * 1000)
            last = now
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def _log(line: str) -> None:
    with contextlib.suppress(OSError):  # a full disk under the log must not end the ring
        print(f"hub: {line}", file=sys.stderr, flush=True)
