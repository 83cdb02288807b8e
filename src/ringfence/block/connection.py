"""One NBD client: fixed newstyle negotiation, then requests, one after the other.

Requests of a connection are served in turn by one thread, so that at most one write of it is
between its check and its disk at any instant.  A client that wants more opens more connections:
each flush covers what any of them has been answered (there is no cache of ours between them).

Source: NBD's doc/proto.md."""

import contextlib
import errno
import mmap
import select
import socket
import struct

from ringfence.block import protocol as nbd
from ringfence.block.export import Export, Seat, Volume
from ringfence.block.gate import ClientGone, Denied
from ringfence.block.protocol import Command, Info, Option, Rep
from ringfence.host.pages import Authority

PAGE = mmap.PAGESIZE
PREFERRED_BYTES = 4096
HANDSHAKE_S = 60
"""Silence after which a client that has not finished its handshake is let go."""
MAX_OPTIONS = 1000


class Garbage(Exception):
    """The client does not speak NBD: close the connection."""


class Connection:
    """Serve one client until it leaves.  `run` is the thread's body; it never raises."""

    def __init__(self, sock: socket.socket, export: Export) -> None:
        self.sock = sock
        self._export = export
        self._seat = Seat()
        self._hangup = select.poll()
        self._hangup.register(sock, select.POLLRDHUP)

    def run(self) -> None:
        self._export.add(self._seat)
        try:
            self.sock.settimeout(HANDSHAKE_S)
            if self._negotiate():
                self.sock.settimeout(None)
                self._transmit()
        except (OSError, Garbage, ClientGone):
            pass  # the client is gone or talks nonsense: nothing to say to it
        finally:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)
            self.sock.close()
            self._export.remove(self._seat)

    def _client_left(self, wait_ms: int) -> bool:
        return bool(self._hangup.poll(wait_ms))

    # -- negotiation ------------------------------------------------------------

    def _negotiate(self) -> bool:
        """True: go on with transmission."""
        ours = nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES
        self.sock.sendall(nbd.INIT_MAGIC + nbd.OPTION_MAGIC + struct.pack(">H", ours))
        (theirs,) = struct.unpack(">I", self._receive(4))
        if theirs & ~ours:
            raise Garbage("client flags that we did not offer")
        for _ in range(MAX_OPTIONS):
            magic, option, length = nbd.OPTION.unpack(self._receive(nbd.OPTION.size))
            if magic != nbd.OPTION_MAGIC:
                raise Garbage("no option magic")
            if length > nbd.MAX_OPTION_BYTES:
                raise Garbage("an option longer than any that there is")
            body = self._receive(length)
            if option == Option.EXPORT_NAME:
                return self._export_name(body, bool(theirs & nbd.FLAG_NO_ZEROES))
            if option == Option.ABORT:
                self.sock.sendall(nbd.option_reply(option, Rep.ACK))
                return False
            if option in (Option.INFO, Option.GO):
                if self._info(option, body) and option == Option.GO:
                    return True
            elif option == Option.LIST:
                self._list(option, body)
            else:
                self.sock.sendall(nbd.option_reply(option, Rep.ERR_UNSUP))
        raise Garbage("too many options")

    def _export_name(self, body: bytes, no_zeroes: bool) -> bool:
        """The old way in: it has no error reply, so an unknown name ends the connection."""
        volume = self._export.volume
        if body.decode(errors="replace") not in volume.names:
            return False
        size = volume.extents.size_bytes
        self.sock.sendall(struct.pack(">QH", size, volume.flags) + (b"" if no_zeroes else bytes(124)))
        return True

    def _list(self, option: int, body: bytes) -> None:
        if body:
            self.sock.sendall(nbd.option_reply(option, Rep.ERR_INVALID))
            return
        name = self._export.volume.names[0].encode()
        self.sock.sendall(
            nbd.option_reply(option, Rep.SERVER, struct.pack(">I", len(name)) + name)
            + nbd.option_reply(option, Rep.ACK)
        )

    def _info(self, option: int, body: bytes) -> bool:
        """Answer INFO and GO.  True if the export is known."""
        name, wanted = _parse_info(body)
        if name is None:
            self.sock.sendall(nbd.option_reply(option, Rep.ERR_INVALID))
            return False
        volume = self._export.volume
        if name not in volume.names:
            words = f"there is no export {name!r} here, only {volume.names[0]!r}".encode()
            self.sock.sendall(nbd.option_reply(option, Rep.ERR_UNKNOWN, words))
            return False
        extents = volume.extents
        infos = [struct.pack(">HQH", Info.EXPORT, extents.size_bytes, volume.flags)]
        if Info.NAME in wanted:
            infos.append(struct.pack(">H", Info.NAME) + volume.names[0].encode())
        sizes = (extents.block_bytes, max(PREFERRED_BYTES, extents.block_bytes), nbd.MAX_PAYLOAD_BYTES)
        infos.append(struct.pack(">HIII", Info.BLOCK_SIZE, *sizes))
        replies = [nbd.option_reply(option, Rep.INFO, info) for info in infos]
        self.sock.sendall(b"".join(replies) + nbd.option_reply(option, Rep.ACK))
        return True

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self.sock.recv(length - len(data))
            if not part:
                raise ClientGone
            data += part
        return bytes(data)

    # -- transmission -----------------------------------------------------------

    def _transmit(self) -> None:
        """Requests until the client disconnects.

        Payloads are received into one page-aligned buffer and written from there, or read into it and
        sent from there with the reply's 16 bytes right in front: no byte is copied by us."""
        recv_into = self.sock.recv_into
        sendall = self.sock.sendall
        # Untouched pages of it cost nothing, so it may as well hold the largest payload.  Never closed by
        # hand: a traceback may still hold a slice of it.
        view = memoryview(mmap.mmap(-1, PAGE + nbd.MAX_PAYLOAD_BYTES))
        header = bytearray(nbd.REQUEST.size)
        reply_at = PAGE - nbd.REPLY.size
        while True:
            got = recv_into(header, nbd.REQUEST.size, socket.MSG_WAITALL)
            if got < nbd.REQUEST.size:
                return  # the client left, perhaps in the middle of a word
            magic, flags, command, handle, offset, length = nbd.REQUEST.unpack(header)
            if magic != nbd.REQUEST_MAGIC:
                raise Garbage("no request magic")
            sent = 0
            if command == Command.WRITE:
                if length > nbd.MAX_PAYLOAD_BYTES:
                    raise Garbage("a payload over the limit")
                if recv_into(view[PAGE:], length, socket.MSG_WAITALL) < length:
                    return
                error = self._write(offset, view[PAGE : PAGE + length], bool(flags & nbd.CMD_FLAG_FUA))
            elif command == Command.READ:
                error = errno.EINVAL
                if length <= nbd.MAX_PAYLOAD_BYTES:
                    error = self._read(offset, view[PAGE : PAGE + length])
                    sent = 0 if error else length
            elif command == Command.FLUSH:
                error = self._flush()
            elif command == Command.DISC:
                return
            else:
                error = errno.EINVAL
            nbd.REPLY.pack_into(view, reply_at, nbd.REPLY_MAGIC, error, handle)
            sendall(view[reply_at : PAGE + sent])

    def _enter(self) -> Volume:
        """The volume, with authority at this instant; the seat is taken.

        Raises Denied, ClientGone."""
        export = self._export
        while True:
            if not export.gate.open:
                export.gate.pass_through(self._client_left)
            volume = export.sit(self._seat)
            if export.gate.open:
                return volume
            self._seat.taken = False  # nobody waits for authority on a seat

    def _read(self, offset: int, into: memoryview) -> int:
        try:
            volume = self._enter()
            if error := _misfit(volume, offset, len(into)):
                return error
            volume.extents.read(offset, into)
        except Denied as denied:
            return denied.errno
        except OSError as failed:
            return nbd.wire_error(failed.errno or errno.EIO)
        finally:
            self._seat.taken = False
        return 0

    def _write(self, offset: int, data: memoryview, durable: bool) -> int:
        """Check, write, check again.

        Where authority ended between the two checks, the range is on the disk and perhaps should not
        be: that is stored first.  The answer then waits as any request does: renewed in the same
        incarnation means that the lock was ours all the time, and the write good; else it fails."""
        export = self._export
        if error := _misfit(export.volume, offset, len(data), writes=True):
            return error  # at once, whatever authority there is: it changes nothing
        try:
            volume = self._enter()
            if error := _misfit(volume, offset, len(data), writes=True):
                return error
            try:
                volume.extents.write(offset, data, durable)
            except OSError as failed:
                # Part of it may be on the disk all the same.
                error = nbd.wire_error(failed.errno or errno.EIO)
            open_after = export.gate.open
        except Denied as denied:
            export.reports.refused(offset, len(data), denied.why)
            return denied.errno
        except ClientGone:
            export.reports.refused(offset, len(data), "its client left while authority was lapsed")
            raise
        finally:
            self._seat.taken = False
        if not open_after:
            why = "authority was lost" if export.gate.state() is Authority.LOST else "authority lapsed"
            export.reports.late(offset, len(data), why)
            error = self._answer_late() or error
        return error

    def _flush(self) -> int:
        export = self._export
        try:
            self._enter().extents.flush()
        except Denied as denied:
            return denied.errno
        except OSError as failed:
            return nbd.wire_error(failed.errno or errno.EIO)
        finally:
            self._seat.taken = False
        return 0 if export.gate.open else self._answer_late()

    def _answer_late(self) -> int:
        """0 once authority is renewed, an errno when it is not coming back."""
        try:
            self._export.gate.pass_through(self._client_left)
        except Denied as denied:
            return denied.errno
        return 0


def _misfit(volume: Volume, offset: int, length: int, writes: bool = False) -> int:
    """0, or why the volume does not take such a request."""
    if writes and volume.readonly:
        return errno.EPERM
    extents = volume.extents
    if length == 0 or (offset | length) % extents.block_bytes or offset + length > extents.size_bytes:
        return errno.EINVAL
    return 0


def _parse_info(body: bytes) -> tuple[str | None, tuple[int, ...]]:
    """(name, requested infos) of an INFO or GO option; name None: malformed."""
    try:
        (length,) = struct.unpack_from(">I", body)
        if length > nbd.MAX_NAME_BYTES:
            return None, ()
        name = body[4 : 4 + length].decode()
        (count,) = struct.unpack_from(">H", body, 4 + length)
        wanted = struct.unpack_from(f">{count}H", body, 6 + length)
        if len(body) != 6 + length + 2 * count:
            return None, ()
    except (struct.error, UnicodeDecodeError):
        return None, ()
    return name, wanted


