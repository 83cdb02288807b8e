"""A small blocking NBD client on a Unix socket: what the lab's workload reads and writes through.

Plain requests, one at a time, no structured replies.  Errors are OSErrors with the server's errno;
a connection that breaks is ConnectionError, after which the client is of no more use.

Source: the NetworkBlockDevice project's doc/proto.md."""

import contextlib
import errno
import os
import socket
import struct
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit

from ringfence.block import protocol as nbd
from ringfence.block.protocol import Command, Info, Option, Rep


class NbdClient:
    """Connected from construction on.

    Args:
        where: an nbd+unix:///EXPORT?socket=PATH URI, or a socket's path.
        export: the export's name, if `where` is a path; "" is the server's default.
        timeout_s: of each send and receive; None waits for ever, as a held write may.

    Raises:
        OSError: nobody listens, or the export is refused (ENOENT).
    """

    def __init__(self, where: str, export: str = "", timeout_s: float | None = None) -> None:
        path = where
        if where.startswith("nbd"):
            path, export = parse_uri(where)
        self.size_bytes = 0
        self.flags = 0
        self._handle = 0
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._sock.settimeout(timeout_s)
            self._sock.connect(path)
            self._negotiate(export.encode())
        except BaseException:
            self._sock.close()
            raise

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        self._request(Command.READ, 0, offset_bytes, length_bytes)
        return self._receive(length_bytes)

    def write(self, offset_bytes: int, data: bytes, fua: bool = False) -> None:
        """With `fua`, on stable storage when this returns."""
        self._request(Command.WRITE, nbd.CMD_FLAG_FUA if fua else 0, offset_bytes, len(data), data)

    def flush(self) -> None:
        """All that was answered is on stable storage when this returns."""
        self._request(Command.FLUSH, 0, 0, 0)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.sendall(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, Command.DISC, 0, 0, 0))
        self._sock.close()

    def __enter__(self) -> "NbdClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- wire -------------------------------------------------------------------

    def _negotiate(self, export: bytes) -> None:
        magic, option_magic, _ = struct.unpack(">8s8sH", self._receive(18))
        if (magic, option_magic) != (nbd.INIT_MAGIC, nbd.OPTION_MAGIC):
            raise OSError(errno.EPROTO, "not an NBD server")
        body = struct.pack(">I", len(export)) + export + struct.pack(">HH", 1, Info.BLOCK_SIZE)
        flags = nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES
        self._sock.sendall(
            struct.pack(">I", flags) + nbd.OPTION.pack(nbd.OPTION_MAGIC, Option.GO, len(body)) + body
        )
        while True:
            _, _, kind, length = nbd.OPTION_REPLY.unpack(self._receive(nbd.OPTION_REPLY.size))
            payload = self._receive(length)
            if kind == Rep.ACK:
                return
            if kind != Rep.INFO:
                words = payload.decode(errors="replace")
                raise OSError(errno.ENOENT, f"the server refuses the export: {words}")
            if struct.unpack_from(">H", payload)[0] == Info.EXPORT:
                self.size_bytes, self.flags = struct.unpack_from(">QH", payload, 2)

    def _request(self, command: Command, flags: int, offset: int, length: int, data: bytes = b"") -> None:
        """Send one request and wait for its reply.  Raises OSError with the reply's errno."""
        self._handle += 1
        header = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, flags, command, self._handle, offset, length)
        self._sock.sendall(header + data)
        magic, error, handle = nbd.REPLY.unpack(self._receive(nbd.REPLY.size))
        if magic != nbd.REPLY_MAGIC or handle != self._handle:
            raise ConnectionError(errno.EPROTO, "the server's reply is not to our request")
        if error:
            raise OSError(error, os.strerror(error))

    def _receive(self, length: int) -> bytes:
        data = bytearray(length)
        view = memoryview(data)
        while view:
            got = self._sock.recv_into(view)
            if not got:
                raise ConnectionResetError(errno.ECONNRESET, "the server hung up")
            view = view[got:]
        return bytes(data)


def parse_uri(uri: str) -> tuple[str, str]:
    """(socket path, export) of an nbd+unix URI.  Raises OSError(EINVAL)."""
    parts = urlsplit(uri)
    sockets = parse_qs(parts.query).get("socket", [])
    if parts.scheme != "nbd+unix" or len(sockets) != 1:
        raise OSError(errno.EINVAL, f"not an nbd+unix URI: {uri}")
    return sockets[0], unquote(parts.path.removeprefix("/"))
