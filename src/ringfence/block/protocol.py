"""NBD's numbers, and the frames we send.  Pure.

Source: the NetworkBlockDevice project's doc/proto.md: "Fixed newstyle negotiation", "Transmission
phase".  All integers are big-endian."""

import enum
import struct

INIT_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
REPLY_MAGIC = 0x67446698

FLAG_FIXED_NEWSTYLE = 1
FLAG_NO_ZEROES = 2

HAS_FLAGS = 1
READ_ONLY = 2
SEND_FLUSH = 4
SEND_FUA = 8
CAN_MULTI_CONN = 256

MAX_PAYLOAD_BYTES = 32 << 20
"""The specification's own default maximum, and what we advertise."""
MAX_OPTION_BYTES = 64 << 10
MAX_NAME_BYTES = 4096

OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
REPLY = struct.Struct(">IIQ")


class Option(enum.IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8


class Rep(enum.IntEnum):
    ACK = 1
    SERVER = 2
    INFO = 3
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


CMD_FLAG_FUA = 1


class Error(enum.IntEnum):
    """What a reply may carry; NBD's numbers are those of Linux."""

    OK = 0
    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ESHUTDOWN = 108


def wire_error(errno: int) -> int:
    """A local errno as NBD may carry it; whatever it has no number for is an I/O error."""
    return errno if errno in Error._value2member_map_ and errno else Error.EIO


def option_reply(option: int, kind: Rep, payload: bytes = b"") -> bytes:
    return OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, kind, len(payload)) + payload
