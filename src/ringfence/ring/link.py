"""One connection of the hub, either end: whole messages in, frames out, bounded work per callback.

Not an asyncio transport, because the broker must know what is still unsent (to bound a slow
member's share), throw it away when the member is removed without tearing a frame in two, and write
many frames with one system call."""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ringfence.wire.hub import FrameError, Frames

_READ_BYTES = 64 << 10  # more would have the allocator map and unmap memory at each read
_WRITE_BYTES = 1 << 20
_WRITE_FRAMES = 64
_SOCKET_BUFFER_BYTES = 1 << 20
T = TypeVar("T")


class Link(Generic[T]):
    """A non-blocking stream socket in the running event loop.

    Args:
        sock: connected; the link owns it from here on.
        frames: the decoder of what the other side says."""

    def __init__(self, sock: socket.socket, frames: Frames[T]) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        self.frames = frames
        self.buffered_bytes = 0
        """Queued here, not yet taken by the kernel."""
        self.heard = False
        """Something arrived since the owner last looked (and cleared it)."""
        self.closed = False
        self.paused = False
        self.on_message: Callable[[T], None] = lambda message: None
        """Called for every message, in order."""
        self.on_closed: Callable[[str], None] = lambda why: None
        """Called once, with one line of why; not after `close` or `finish`."""
        self.on_drained: Callable[[], None] = lambda: None
        """Called when everything queued has been handed to the kernel."""
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._out: deque[memoryview] = deque()
        self._torn = False
        """The first of `_out` is the rest of a frame whose beginning is gone already."""
        self._flushing = False
        self._finishing = False
        self._mute = False
        self._loop.add_reader(sock, self._readable)

    def peer_pid(self) -> int:
        """The other process's id as of connect; 0 if the socket does not know."""
        with contextlib.suppress(OSError):
            credentials = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int(struct.unpack("3i", credentials)[0])
        return 0

    # -- in ------------------------------------------------------------------

    def pause(self) -> None:
        """Do not read: the sender's kernel buffer fills, and it waits."""
        if not self.paused and not self.closed and not self._finishing:
            self._loop.remove_reader(self._sock)
        self.paused = True

    def resume(self) -> None:
        if self.paused and not self.closed and not self._finishing:
            self._loop.add_reader(self._sock, self._readable)
        self.paused = False

    def _readable(self) -> None:
        try:
            chunk = self._sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error.strerror or "connection lost")
            return
        if not chunk:
            self._lost("half a frame, then the end" if self.frames.partial_bytes else "end of connection")
            return
        self.heard = True
        try:
            for message in self.frames.feed(chunk):
                self.on_message(message)
                if self.closed or self._finishing:
                    return
        except FrameError as error:
            self._lost(str(error))

    # -- out -----------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Queue a frame; everything queued in one turn of the loop leaves together."""
        if self.closed or self._finishing or self._mute:
            return
        self._queue(memoryview(frame))
        self._soon()

    def send_now(self, frame: bytes) -> None:
        """`send`, without waiting for what else this turn may bring."""
        if self.closed or self._finishing or self._mute:
            return
        if self._flushing:  # behind what waits
            self._queue(memoryview(frame))
            return
        try:
            sent = self._sock.send(frame)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._broken()
            return
        if sent < len(frame):
            self._queue(memoryview(frame)[sent:])
            self._torn = sent > 0
            self._flushing = True
            self._loop.add_writer(self._sock, self._writable)

    def _queue(self, piece: memoryview) -> None:
        self._out.append(piece)
        self.buffered_bytes += len(piece)

    def _broken(self) -> None:
        """The other side has gone.  What it said before may still be waiting here (perhaps why it went): the
        reader gets to that, then to the end."""
        self._mute = True
        self._out.clear()
        self.buffered_bytes = 0

    def _soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Hand the kernel what it takes; wait for room if that is not all."""
        if self.closed:
            return
        try:
            while self._out:
                if not self._write_some():
                    self._loop.add_writer(self._sock, self._writable)
                    return
        except OSError:
            self._broken()
        self._flushing = False
        if self._finishing:
            self.close()
        else:
            self.on_drained()

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock)
        self._flush()

    def _write_some(self) -> bool:
        """One system call.  False: the kernel's buffer is full."""
        pieces: list[memoryview] = []
        size = 0
        for piece in self._out:
            if pieces and (size + len(piece) > _WRITE_BYTES or len(pieces) == _WRITE_FRAMES):
                break
            pieces.append(piece)
            size += len(piece)
        try:
            sent = self._sock.sendmsg(pieces)
        except (BlockingIOError, InterruptedError):
            return False
        self.buffered_bytes -= sent
        while sent:
            first = self._out[0]
            if sent < len(first):
                self._out[0] = first[sent:]
                self._torn = True
                return False
            sent -= len(first)
            self._out.popleft()
            self._torn = False
        return True

    # -- the end -------------------------------------------------------------

    def finish(self, frame: bytes = b"") -> None:
        """Say a last thing and close, without reading on.

        Whatever waits unsent is dropped, but for the rest of a frame that is half out already: the
        other side must be able to read the last one.  A frozen peer's half frame waits in memory
        until the peer thaws or ends."""
        if self.closed or self._finishing:
            return
        self._finishing = True
        if not self.paused:
            self._loop.remove_reader(self._sock)
        rest = [self._out[0]] if self._torn else []
        self._out = deque([*rest, memoryview(frame)] if frame else rest)
        self.buffered_bytes = sum(len(piece) for piece in self._out)
        self._soon()

    def close(self) -> None:
        """End the connection now."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._out.clear()
        self.buffered_bytes = 0
        self._sock.close()

    def _lost(self, why: str) -> None:
        if self.closed:
            return
        finishing = self._finishing
        self.close()
        if not finishing:
            self.on_closed(why)
