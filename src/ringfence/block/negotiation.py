"""The handshake with an NBD client: fixed newstyle, up to GO or EXPORT_NAME.

Source: NBD's doc/proto.md, "Fixed newstyle negotiation", "Structured reply", "Metadata querying"."""

import socket
import struct

import msgspec

from ringfence.block import protocol as nbd
from ringfence.block.export import Export
from ringfence.block.protocol import Info, Option, Rep

PREFERRED_BYTES = 4096
MAX_OPTIONS = 1000


class Garbage(Exception):
    """The client is gone, or does not speak NBD: close the connection."""


class Agreed(msgspec.Struct, frozen=True):
    """How requests will be answered."""

    structured: bool = False
    allocation: bool = False
    """BLOCK_STATUS may be asked for."""


class Negotiation:
    """With one client.  Only what the client asks for is agreed; each answer tells of the volume as it is
    at that moment."""

    def __init__(self, sock: socket.socket, export: Export) -> None:
        self._sock = sock
        self._export = export
        self._structured = False
        self._allocation = False

    def run(self) -> Agreed | None:
        """None: the client wants no more.  Raises Garbage, OSError."""
        ours = nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES
        self._sock.sendall(nbd.INIT_MAGIC + nbd.OPTION_MAGIC + struct.pack(">H", ours))
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
                known = self._export_name(body, bool(theirs & nbd.FLAG_NO_ZEROES))
                return Agreed(self._structured, self._allocation) if known else None
            if option == Option.ABORT:
                self._sock.sendall(nbd.option_reply(option, Rep.ACK))
                return None
            if self._option(option, body) and option == Option.GO:
                return Agreed(self._structured, self._allocation)
        raise Garbage("too many options")

    def _option(self, option: int, body: bytes) -> bool:
        """Answer one.  True if it was granted."""
        match option:
            case Option.INFO | Option.GO:
                replies = self._info(option, body)
            case Option.LIST:
                replies = self._list(body)
            case Option.STRUCTURED_REPLY:
                replies = [(Rep.ERR_INVALID, b"")] if body else [(Rep.ACK, b"")]
                self._structured = self._structured or not body
            case Option.LIST_META_CONTEXT | Option.SET_META_CONTEXT:
                replies = self._contexts(option, body)
            case _:
                replies = [(Rep.ERR_UNSUP, b"")]
        self._sock.sendall(b"".join(nbd.option_reply(option, kind, payload) for kind, payload in replies))
        return replies[-1][0] == Rep.ACK

    def _flags(self) -> int:
        return self._export.volume.flags | (nbd.SEND_DF if self._structured else 0)

    def _export_name(self, body: bytes, no_zeroes: bool) -> bool:
        """The old way in: it has no error reply, so an unknown name ends the connection."""
        volume = self._export.volume
        if body.decode(errors="replace") not in volume.names:
            return False
        told = struct.pack(">QH", volume.extents.size_bytes, self._flags())
        self._sock.sendall(told + (b"" if no_zeroes else bytes(124)))
        return True

    def _list(self, body: bytes) -> list[tuple[Rep, bytes]]:
        if body:
            return [(Rep.ERR_INVALID, b"")]
        name = self._export.volume.names[0].encode()
        return [(Rep.SERVER, struct.pack(">I", len(name)) + name), (Rep.ACK, b"")]

    def _info(self, option: int, body: bytes) -> list[tuple[Rep, bytes]]:
        name, rest = _name(body)
        if name is None or len(rest) < 2 or len(rest) != 2 + 2 * struct.unpack_from(">H", rest)[0]:
            return [(Rep.ERR_INVALID, b"")]
        volume = self._export.volume
        if name not in volume.names:
            return [self._unknown(name)]
        extents = volume.extents
        infos = [struct.pack(">HQH", Info.EXPORT, extents.size_bytes, self._flags())]
        if Info.NAME in struct.unpack(f">{len(rest) // 2 - 1}H", rest[2:]):
            infos.append(struct.pack(">H", Info.NAME) + volume.names[0].encode())
        sizes = (extents.block_bytes, max(PREFERRED_BYTES, extents.block_bytes), nbd.MAX_PAYLOAD_BYTES)
        infos.append(struct.pack(">HIII", Info.BLOCK_SIZE, *sizes))
        return [*((Rep.INFO, info) for info in infos), (Rep.ACK, b"")]

    def _contexts(self, option: int, body: bytes) -> list[tuple[Rep, bytes]]:
        """SET asks for contexts by name; LIST looks what there is, also in a namespace, or at all."""
        setting = option == Option.SET_META_CONTEXT
        name, rest = _name(body)
        queries = _queries(rest) if name is not None else None
        if setting:
            self._allocation = False  # whatever was set before is not any more
        if name is None or queries is None or (setting and not self._structured):
            return [(Rep.ERR_INVALID, b"")]
        if name not in self._export.volume.names:
            return [self._unknown(name)]
        found = nbd.ALLOCATION in queries or (not setting and (not queries or "base:" in queries))
        if setting:
            self._allocation = found
        told = struct.pack(">I", nbd.ALLOCATION_ID if setting else 0) + nbd.ALLOCATION.encode()
        return [*([(Rep.META_CONTEXT, told)] if found else []), (Rep.ACK, b"")]

    def _unknown(self, name: str) -> tuple[Rep, bytes]:
        there = self._export.volume.names[0]
        return Rep.ERR_UNKNOWN, f"there is no export {name!r} here, only {there!r}".encode()

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self._sock.recv(length - len(data))
            if not part:
                raise Garbage("the client hung up")
            data += part
        return bytes(data)


def _name(body: bytes) -> tuple[str | None, bytes]:
    """(name, what follows it) of a length-prefixed string; None: malformed."""
    if len(body) < 4:
        return None, b""
    (length,) = struct.unpack_from(">I", body)
    if length > nbd.MAX_NAME_BYTES or len(body) < 4 + length:
        return None, b""
    try:
        return body[4 : 4 + length].decode(), body[4 + length :]
    except UnicodeDecodeError:
        return None, b""


def _queries(body: bytes) -> list[str] | None:
    """The queries of a metadata option; None: malformed."""
    if len(body) < 4:
        return None
    (count,), rest = struct.unpack_from(">I", body), body[4:]
    found: list[str] = []
    while rest and len(found) < count:
        query, rest = _name(rest)
        if query is None:
            return None
        found.append(query)
    return found if len(found) == count and not rest else None
