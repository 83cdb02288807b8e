"""The workload's blocks and its log: what was written, by whom, and what was acknowledged.

A block says who wrote it (tag, run, lock token), which write it was (sequence, slot), when, and a
CRC-32 over everything, with filler made of the sequence, so that half a block is never taken for one.

A log is a file outside of the volume: JSON lines, each written in one system call before the workload
goes on, so that it survives a SIGKILL of its writer.  A torn last line is skipped."""

import enum
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

MAGIC = b"RFSTAMP1"
_HEAD = struct.Struct("<8s16s16s32sQQQQ")
_CRC = struct.Struct("<I")
MIN_BLOCK_BYTES = 512
RESUME_GAP = 1000
"""Numbers left out by a run that goes on with a log: the last may be on the disk, but not in it."""


class Stamp(msgspec.Struct, frozen=True):
    tag: str
    run: str
    """32 hex digits, one run of the workload."""
    token: str
    seq: int
    slot: int
    wall_ns: int
    boottime_ns: int


class Odd(enum.Enum):
    EMPTY = "empty"
    """Zeroes: never written."""
    DAMAGED = "damaged"
    """Anything else that is not a whole stamped block of this slot."""


def render(stamp: Stamp, block_bytes: int) -> bytes:
    head = _HEAD.pack(
        MAGIC,
        _text(stamp.tag, 16),
        bytes.fromhex(stamp.run),
        _text(stamp.token, 32),
        stamp.seq,
        stamp.slot,
        stamp.wall_ns,
        stamp.boottime_ns,
    )
    filler_bytes = block_bytes - len(head) - _CRC.size
    filler = (struct.pack("<Q", stamp.seq) * (filler_bytes // 8 + 1))[:filler_bytes]
    body = head + filler
    return body + _CRC.pack(zlib.crc32(body))


def parse(block: bytes, slot: int) -> Stamp | Odd:
    """What a slot's bytes are."""
    if not any(block):
        return Odd.EMPTY
    body, (crc,) = block[: -_CRC.size], _CRC.unpack(block[-_CRC.size :])
    if not block.startswith(MAGIC) or zlib.crc32(body) != crc:
        return Odd.DAMAGED
    _, tag, run, token, seq, at_slot, wall_ns, boottime_ns = _HEAD.unpack_from(block)
    if at_slot != slot:
        return Odd.DAMAGED  # a whole block in the wrong place
    return Stamp(_word(tag), run.hex(), _word(token), seq, at_slot, wall_ns, boottime_ns)


def _text(word: str, size: int) -> bytes:
    data = word.encode()
    if len(data) > size or b"\0" in data:
        raise ValueError(f"{word!r} does not fit {size} bytes")
    return data


def _word(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


class Found(msgspec.Struct, frozen=True, array_like=True):
    """What a slot holds, briefly: a stamped block, or an Odd (then `tag` is "" and `odd` its word)."""

    slot: int
    tag: str = ""
    seq: int = 0
    odd: str = ""

    @classmethod
    def of(cls, slot: int, content: Stamp | Odd) -> "Found":
        if isinstance(content, Odd):
            return cls(slot, odd=content.value)
        return cls(slot, content.tag, content.seq)


Read = Callable[[int, int], bytes]
"""(offset_bytes, length_bytes) -> bytes of the volume."""
_CHUNK_BYTES = 1 << 20


def snapshot(read: Read, slots: int, block_bytes: int) -> tuple[Found, ...]:
    """Every slot's content, in order.  Raises what `read` raises."""
    found: list[Found] = []
    per_chunk = max(1, _CHUNK_BYTES // block_bytes)
    for first in range(0, slots, per_chunk):
        count = min(per_chunk, slots - first)
        data = read(first * block_bytes, count * block_bytes)
        for index in range(count):
            block = data[index * block_bytes : (index + 1) * block_bytes]
            found.append(Found.of(first + index, parse(block, first + index)))
    return tuple(found)


# -- the log -----------------------------------------------------------------------


class Started(msgspec.Struct, frozen=True, tag=True):
    tag: str
    run: str
    token: str
    slots: int
    block_bytes: int
    at_ns: int
    """CLOCK_BOOTTIME, as all `_ns` here."""


class Baseline(msgspec.Struct, frozen=True, tag=True):
    """What the volume held at a run's first act."""

    began_ns: int
    ended_ns: int
    slots: tuple[Found, ...]


class Acknowledged(msgspec.Struct, frozen=True, tag=True):
    """The volume answered: this write is on stable storage."""

    seq: int
    slot: int
    at_ns: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A write that was not acknowledged.  It may or may not be on the disk."""

    seq: int
    slot: int
    errno: int
    at_ns: int


class Mismatch(msgspec.Struct, frozen=True, tag=True):
    """Before it wrote a slot again, the workload looked, and found what it had not left there."""

    found: Found
    expected: tuple[Found, ...]
    """What could have been there: the last acknowledged block, or an attempt without an answer."""
    at_ns: int


class Stopped(msgspec.Struct, frozen=True, tag=True):
    at_ns: int


Record = Started | Baseline | Acknowledged | Failed | Mismatch | Stopped

_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Record] = msgspec.json.Decoder(Record).decode


class LogWriter:
    """Appends records; goes on with a log that is there already."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.write(self._fd, b"\n")  # whatever was torn ends here

    def append(self, record: Record) -> None:
        """In the kernel's hands when this returns."""
        line = _encode(record) + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]


def read_log(path: Path) -> list[Record]:
    """Every whole record.  Raises OSError; ValueError if a line inside the log is no record."""
    lines = [line for line in path.read_bytes().split(b"\n") if line]
    return list(_records(lines))


def _records(lines: list[bytes]) -> Iterable[Record]:
    for number, line in enumerate(lines):
        try:
            yield _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            # Torn by a SIGKILL: the last line, or the last one before a run that went on.
            resumed = number + 1 < len(lines) and b'"type":"Started"' in lines[number + 1]
            if number + 1 < len(lines) and not resumed:
                raise ValueError(f"line {number + 1} of the log is no record: {error}") from None


def last_sequence(records: list[Record]) -> int:
    """Highest number that the log knows of; 0: none."""
    return max((one.seq for one in records if isinstance(one, Acknowledged | Failed)), default=0)
