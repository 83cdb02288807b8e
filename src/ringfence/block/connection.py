"""One NBD client: its handshake, then requests, several at a time.

Each connection has a few *lanes*: threads that take turns to receive a request, carry it out, and reply,
in whatever order they are done.  So requests of a client overlap on the disk, and each write is still
checked right before it is issued and right after it is done, by the lane that issues it.

A lane runs in `fastpath` as long as all is as usual, where that is built, and carries several small requests
out together there; `carry_out` here is what it does otherwise.  A payload is received into the lane's own
page-aligned buffer and written from there, or read into it and sent from there: of what is large no byte is
copied by us.

A flush covers what any connection has been answered: there is no cache of ours between them.

Source: NBD's doc/proto.md."""

import contextlib
import errno
import os
import select
import socket
import threading
from typing import Protocol

from ringfence.block import protocol as nbd
from ringfence.block.export import Export, Volume
from ringfence.block.extents import Extents
from ringfence.block.fastpath import PAGE, FastChannel, FastSeats, Request, What, buffer
from ringfence.block.gate import ClientGone, Denied
from ringfence.block.negotiation import Agreed, Garbage, Negotiation
from ringfence.block.protocol import Chunk, Command
from ringfence.host.pages import Authority

HANDSHAKE_S = 60
"""Silence after which a client that has not finished its handshake is let go."""
LANES, FEWER_LANES = 8, 4
"""Of a connection that comes alone, and of one that comes beside others: many get more out of a disk that is
far away, but all share the volume's seats, and those that wait for one cost time."""
SPAN_BYTES = nbd.MAX_PAYLOAD_BYTES
"""So much is trimmed or zeroed between two looks at authority.  A write is never longer."""
UNREAD_BYTES = 4 << 20
"""What a client may leave in its socket before a lane waits for it.  With Linux's usual 208 KiB a reply of
1 MiB waits for the client five times, each a wake-up of both."""
SO_SNDBUFFORCE = 32
"""Of socket(7): past net.core.wmem_max, for who may administer the network."""
MAX_STATES = 1024
"""Stretches that one BLOCK_STATUS tells of."""

CHANGES = {Command.WRITE: "write", Command.TRIM: "trim", Command.WRITE_ZEROES: "zeroing"}
"""What must be told if it is late, and refused if the volume is read-only."""
FLAGS = {
    Command.READ: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_DF,
    Command.WRITE: nbd.CMD_FLAG_FUA,
    Command.FLUSH: 0,
    Command.TRIM: nbd.CMD_FLAG_FUA,
    Command.CACHE: 0,
    Command.WRITE_ZEROES: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO,
    Command.BLOCK_STATUS: nbd.CMD_FLAG_REQ_ONE,
}
"""Which flags each may have."""


class Channel(Protocol):
    """Requests in, replies out, for all lanes of a connection."""

    def next(self, request: Request, payload: memoryview) -> What:
        """Receive the next one; what is returned says what is left to do."""

    def send(self, data: memoryview) -> bool:
        """All of it, in one piece beside other lanes' replies.  False: the client is gone."""

    def end(self) -> None:
        """No lane receives anything from here on."""

    def close(self) -> None: ...


class PlainChannel:
    """A channel of Python's own."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._receiving = threading.Lock()
        self._sending = threading.Lock()
        self._over = False

    def next(self, request: Request, payload: memoryview) -> What:
        with self._receiving:
            if self._over or not self._receive(request, payload):
                self._over = True
                return What.OVER
            return What.ASKED

    def _receive(self, request: Request, payload: memoryview) -> bool:
        header = bytearray(nbd.REQUEST.size)
        try:
            if self._sock.recv_into(header, 0, socket.MSG_WAITALL) < len(header):
                return False  # the client left, perhaps in the middle of a word
            magic, flags, command, cookie, offset, length = nbd.REQUEST.unpack(header)
            request.flags, request.command, request.cookie = flags, command, cookie
            request.offset, request.length = offset, length
            if magic != nbd.REQUEST_MAGIC or command == Command.DISC:
                return False
            if command != Command.WRITE or not length:
                return True
            if length > nbd.MAX_PAYLOAD_BYTES:
                return False
            return self._sock.recv_into(payload[:length], 0, socket.MSG_WAITALL) == request.length
        except OSError:
            return False

    def send(self, data: memoryview) -> bool:
        with self._sending:
            try:
                self._sock.sendall(data)
            except OSError:
                return False
        return True

    def end(self) -> None:
        self._over = True

    def close(self) -> None:
        pass


class Connection:
    """Serve one client until it leaves.  `run` is the first lane's thread; it never raises.

    Args: lanes: how many."""

    def __init__(self, sock: socket.socket, export: Export, lanes: int) -> None:
        self.sock = sock
        self._lanes = lanes
        self.export = export
        self.agreed = Agreed()

    def run(self) -> None:
        try:
            self.sock.settimeout(HANDSHAKE_S)
            agreed = Negotiation(self.sock, self.export).run()
            if agreed is not None:
                self.agreed = agreed
                self.sock.settimeout(None)
                _let_stand(self.sock, UNREAD_BYTES)
                self._transmit()
        except (OSError, Garbage):
            pass  # the client is gone or talks nonsense: nothing to say to it
        finally:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()

    def _transmit(self) -> None:
        """All lanes, until the last of them has ended."""
        seats = self.export.seats
        channel: Channel = PlainChannel(self.sock)
        if isinstance(seats, FastSeats):
            channel = FastChannel(seats, self.sock.fileno(), self.agreed.structured)
        begun: list[threading.Thread] = []
        _serve([Lane(self, channel) for _ in range(self._lanes)], begun)
        for thread in begun:  # who is joined has begun the next one
            thread.join()
        channel.close()


def _serve(lanes: list["Lane"], begun: list[threading.Thread]) -> None:
    """The first of these, until it ends; the others on a thread that is begun here, and so on: the first
    waits for one thread to begin, not for all of them."""
    if len(lanes) > 1:
        others = threading.Thread(target=_serve, args=(lanes[1:], begun), daemon=True)
        others.start()
        begun.append(others)
    lanes[0].run()


def _let_stand(sock: socket.socket, unread_bytes: int) -> None:
    """Or as much of it as we may.  Raises OSError."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, unread_bytes)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, unread_bytes)


class Lane:
    """One request of a client at a time."""

    def __init__(self, connection: Connection, channel: Channel) -> None:
        self._channel = channel
        self._export = connection.export
        self._agreed = connection.agreed
        # Never closed by hand: a traceback may still hold a slice of it.
        self._view = buffer()
        self._request = Request.at(self._view[PAGE:])
        self._hangup = select.poll()
        self._hangup.register(connection.sock, select.POLLRDHUP)

    def run(self) -> None:
        payload = self._view[PAGE:]
        try:
            while (what := self._channel.next(self._request, payload)) is not What.OVER:
                if not self._go_on(what):
                    break
        except ClientGone:
            pass
        finally:
            self._channel.end()

    def _client_left(self, wait_ms: int) -> bool:
        return bool(self._hangup.poll(wait_ms))

    # -- replies ----------------------------------------------------------------

    def _go_on(self, what: What) -> bool:
        """False: nobody is left who could be told."""
        if what is What.ASKED:
            return self._carry_out()
        error = self._request.error
        if what is What.LATE:
            self._tell_late(0, self._request.length)
            return True
        if what is What.TOLD:
            return self._reply(self._answer_late() or (nbd.wire_error(error) if error else 0))
        return self._reply(nbd.wire_error(error) if error else 0)

    def _reply(self, error: int, why: str = "") -> bool:
        """Without data."""
        cookie = self._request.cookie
        if self._agreed.structured and error:
            return self._send(nbd.error_chunk(cookie, error, why or os.strerror(error)))
        return self._send(nbd.REPLY.pack(nbd.REPLY_MAGIC, error, cookie))

    def _send(self, head: bytes, length: int = 0) -> bool:
        """Args: length: of the data that follow it, which are in the buffer."""
        start = PAGE - len(head)
        if start < 0:
            return self._channel.send(memoryview(bytearray(head)))
        self._view[start:PAGE] = head
        return self._channel.send(self._view[start : PAGE + length])

    def _send_data(self) -> bool:
        request, length = self._request, self._request.length
        if not self._agreed.structured:
            return self._send(nbd.REPLY.pack(nbd.REPLY_MAGIC, 0, request.cookie), length)
        size = nbd.OFFSET.size + length
        head = nbd.CHUNK.pack(nbd.STRUCTURED_MAGIC, nbd.CHUNK_DONE, Chunk.OFFSET_DATA, request.cookie, size)
        return self._send(head + nbd.OFFSET.pack(request.offset), length)

    # -- requests ---------------------------------------------------------------

    def _carry_out(self) -> bool:
        request = self._request
        try:
            command = Command(request.command)
        except ValueError:
            return self._reply(errno.EINVAL, f"there is no command {request.command} here")
        if request.flags & ~FLAGS[command]:
            return self._reply(errno.EINVAL, f"{command.name} has no such flags: {request.flags:#x}")
        if command in CHANGES:
            return self._reply(self._change(command))
        states: list[tuple[int, bool]] = []
        try:
            volume = self._enter()
            try:
                if command != Command.FLUSH and (error := self._misfit(volume)):
                    return self._reply(error)
                if command == Command.READ:
                    volume.extents.read(request.offset, self._view[PAGE : PAGE + request.length])
                elif command == Command.FLUSH:
                    volume.extents.flush()
                    if self._export.mirror is not None:
                        self._export.mirror.flush()
                elif command == Command.BLOCK_STATUS:
                    most = 1 if request.flags & nbd.CMD_FLAG_REQ_ONE else MAX_STATES
                    states = volume.extents.allocation(request.offset, request.length, most)
            finally:
                self._export.seats.leave()
        except Denied as denied:
            return self._reply(denied.errno, denied.why)
        except OSError as failed:
            return self._reply(nbd.wire_error(failed.errno or errno.EIO), failed.strerror or "")
        if command == Command.READ:
            return self._send_data()
        if command == Command.BLOCK_STATUS:
            told = [(length, 0 if data else nbd.STATE_HOLE | nbd.STATE_ZERO) for length, data in states]
            return self._send(nbd.status_chunk(request.cookie, told))
        if command == Command.FLUSH and not self._export.gate.open:
            return self._reply(self._answer_late())
        return self._reply(0)  # there is no cache: CACHE has nothing to do

    def _enter(self, changes: bool = False) -> Volume:
        """The volume, with authority at this instant, from a seat: leave it.

        Args: changes: it is to be changed, which may be held.

        Raises Denied, ClientGone; there is no seat to leave then."""
        export = self._export
        while True:
            if not export.gate.lets(changes):
                export.gate.pass_through(self._client_left, changes)
            export.seats.sit()
            if export.gate.lets(changes):
                return export.volume
            export.seats.leave()  # nobody waits for authority, or for the end of a hold, on a seat

    def _misfit(self, volume: Volume) -> int:
        """0, or why the volume does not take the request."""
        request, extents = self._request, volume.extents
        command, offset, length = request.command, request.offset, request.length
        if command in CHANGES and volume.readonly:
            return errno.EPERM
        if command == Command.BLOCK_STATUS and not self._agreed.allocation:
            return errno.EINVAL
        if command == Command.READ and length > nbd.MAX_PAYLOAD_BYTES:
            return errno.EOVERFLOW
        if length == 0 or (offset | length) % extents.block_bytes:
            return errno.EINVAL
        if offset + length > extents.size_bytes:
            return errno.ENOSPC if command in (Command.WRITE, Command.WRITE_ZEROES) else errno.EINVAL
        return 0

    def _change(self, command: Command) -> int:
        """Check, change, check again.  Returns the error to answer with.

        What has no payload may be long, and is done by spans: no more than one can land late."""
        # At once, whatever authority there is: it changes nothing.
        if error := self._misfit(self._export.volume):
            return error
        for skip in range(0, self._request.length, SPAN_BYTES):
            if error := self._change_span(command, skip, min(SPAN_BYTES, self._request.length - skip)):
                return error
        return 0

    def _change_span(self, command: Command, skip: int, length: int) -> int:
        export, offset = self._export, self._request.offset + skip
        try:
            volume = self._enter(changes=True)
        except (Denied, ClientGone) as refusal:
            handed_over = export.gate.held and export.gate.open
            if not handed_over:
                why = refusal.why if isinstance(refusal, Denied) else "its client left while it was lapsed"
                export.reports.refused(CHANGES[command], offset, length, why)
            if isinstance(refusal, Denied):
                return refusal.errno
            raise
        try:
            if error := self._misfit(volume):
                return error
            error = self._do_change(volume, command, skip, length)
            late = not export.gate.open
        finally:
            export.seats.leave()
        return self._late(error, skip, length) if late else error

    def _do_change(self, volume: Volume, command: Command, skip: int, length: int) -> int:
        request, mirror = self._request, self._export.mirror
        try:
            if mirror is None:
                self._part(volume.extents, request.offset + skip, 0, length)
            elif request.flags & nbd.CMD_FLAG_FAST_ZERO and command == Command.WRITE_ZEROES:
                return errno.ENOTSUP  # the one place may have it and the other not
            elif command != Command.TRIM:  # what is trimmed might read differently in the two places
                mirror.change(volume.extents, request.offset + skip, length, self._part)
        except OSError as failed:
            # Part of it may be on the disk all the same.
            return nbd.wire_error(failed.errno or errno.EIO)
        return 0

    def _part(self, extents: Extents, offset: int, skip: int, length: int) -> None:
        """Change, at `offset` of these extents, what is `skip` bytes into the request.  Raises OSError."""
        flags, command = self._request.flags, self._request.command
        durable = bool(flags & nbd.CMD_FLAG_FUA)
        if command == Command.WRITE:
            extents.write(offset, self._view[PAGE + skip : PAGE + skip + length], durable)
        elif command == Command.TRIM:
            extents.trim(offset, length, durable)
        else:
            keep, fast = bool(flags & nbd.CMD_FLAG_NO_HOLE), bool(flags & nbd.CMD_FLAG_FAST_ZERO)
            extents.zero(offset, length, keep, fast, durable)

    def _late(self, error: int, skip: int, length: int) -> int:
        """Authority ended between the two checks: the range is on the disk and perhaps should not be.

        That is stored first.  The answer then waits as any request does: renewed in the same incarnation
        means that the lock was ours all the time, and the write good; else it fails.

        Args:
            error: how it ended itself; 0: well.
            skip, length: which part of the request."""
        self._tell_late(skip, length)
        return self._answer_late() or (nbd.wire_error(error) if error else 0)

    def _tell_late(self, skip: int, length: int) -> None:
        export, request = self._export, self._request
        why = "authority was lost" if export.gate.state() is Authority.LOST else "authority lapsed"
        export.reports.late(CHANGES[Command(request.command)], request.offset + skip, length, why)

    def _answer_late(self) -> int:
        """0 once authority is renewed, an errno when it is not coming back."""
        try:
            self._export.gate.pass_through(self._client_left)
        except Denied as denied:
            return denied.errno
        return 0
