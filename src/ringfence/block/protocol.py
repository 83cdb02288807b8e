"""NBD's numbers, and the frames we send.  Pure.

Source: the NetworkBlockDevice project's doc/proto.md: "Fixed newstyle negotiation", "Transmission
phase".  All integers are big-endian."""

import enum
import struct
from collections.abc import Sequence

INIT_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
REPLY_MAGIC = 0x67446698
STRUCTURED_MAGIC = 0x668E33EF

FLAG_FIXED_NEWSTYLE = 1
FLAG_NO_ZEROES = 2

HAS_FLAGS = 1
READ_ONLY = 2
SEND_FLUSH = 4
SEND_FUA = 8
SEND_TRIM = 32
SEND_WRITE_ZEROES = 64
SEND_DF = 128
CAN_MULTI_CONN = 256
SEND_CACHE = 1024
SEND_FAST_ZERO = 2048

MAX_PAYLOAD_BYTES = 32 << 20
"""The specification's own default maximum, and what we advertise."""
MAX_OPTION_BYTES = 64 << 10
MAX_NAME_BYTES = 4096

OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
REPLY = struct.Struct(">IIQ")
CHUNK = struct.Struct(">IHHQI")
OFFSET = struct.Struct(">Q")
"""What an OFFSET_DATA chunk has before its data."""

ALLOCATION = "base:allocation"
"""The one metadata context that we have."""
ALLOCATION_ID = 1
STATE_HOLE = 1
STATE_ZERO = 2


class Option(enum.IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Rep(enum.IntEnum):
    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = (1 << 31) + 1
    ERR_POLICY = (1 << 31) + 2
    ERR_INVALID = (1 << 31) + 3
    ERR_UNKNOWN = (1 << 31) + 6
    ERR_TOO_BIG = (1 << 31) + 9


class Info(enum.IntEnum):
    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Command(enum.IntEnum):
    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


CMD_FLAG_FUA = 1
CMD_FLAG_NO_HOLE = 2
CMD_FLAG_DF = 4
CMD_FLAG_REQ_ONE = 8
CMD_FLAG_FAST_ZERO = 16


class Chunk(enum.IntEnum):
    """What a structured reply is made of."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1


CHUNK_DONE = 1
"""The last chunk of a reply."""


class Error(enum.IntEnum):
    """What a reply may carry; NBD's numbers are those of Linux."""

    OK = 0
    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


def wire_error(errno: int) -> int:
    """A local errno as NBD may carry it; whatever it has no number for is an I/O error."""
    return errno if errno in Error._value2member_map_ and errno else Error.EIO


def option_reply(option: int, kind: Rep, payload: bytes = b"") -> bytes:
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(payload)) + payload


def error_chunk(cookie: int, error: int, words: str) -> bytes:
    """A whole structured reply that says why a request failed."""
    said = words.encode()[:MAX_NAME_BYTES]
    body = struct.pack(">IH", error, len(said)) + said
    return CHUNK.pack(STRUCTURED_MAGIC, CHUNK_DONE, Chunk.ERROR, cookie, len(body)) + body


def status_chunk(cookie: int, states: Sequence[tuple[int, int]]) -> bytes:
    """A whole structured reply to BLOCK_STATUS.  Args: states: (bytes, flags) of each stretch."""
    body = struct.pack(">I", ALLOCATION_ID) + b"".join(struct.pack(">II", *state) for state in states)
    return CHUNK.pack(STRUCTURED_MAGIC, CHUNK_DONE, Chunk.BLOCK_STATUS, cookie, len(body)) + body
