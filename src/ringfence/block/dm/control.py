"""Device-mapper by ioctl on /dev/mapper/control.

A request is `struct dm_ioctl` (312 bytes, native byte order), behind it the command's data:

    0   u32 version[3]     interface version 4.0.0: the least that knows what we ask
    12  u32 data_size      the whole buffer, for the answer too
    16  u32 data_start     312
    20  u32 target_count
    24  s32 open_count     of the answer
    28  u32 flags
    32  u32 event_nr, u32 padding
    40  u64 dev            of the answer
    48  char name[128], uuid[129], 7 bytes

A table is a row of `struct dm_target_spec` (u64 start, u64 length, s32 status, u32 next, char type[16]), each
with its parameters behind it, ended by a NUL.  `next` counts from this very line where a table is loaded, and
from the first one where it is read.

Source: Linux include/uapi/linux/dm-ioctl.h, drivers/md/dm-ioctl.c."""

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum, IntFlag
from pathlib import Path

from ringfence.block.dm.mapper import Device, Line
from ringfence.core.errors import Unavailable

CONTROL = Path("/dev/mapper/control")
VERSION = (4, 0, 0)
_HEADER = struct.Struct("=3I II I i I I I Q 128s 129s 7x")
_LINE = struct.Struct("=QQiI16s")
_ROOM_BYTES = 1 << 12
_MOST_ROOM_BYTES = 1 << 24
assert _HEADER.size == 312

Ioctl = Callable[[int, int, bytearray, bool], int]


class Command(IntEnum):
    VERSION = 0
    DEV_CREATE = 3
    DEV_REMOVE = 4
    DEV_RENAME = 5
    DEV_SUSPEND = 6
    DEV_STATUS = 7
    TABLE_LOAD = 9
    TABLE_STATUS = 12

    @property
    def request(self) -> int:
        """_IOWR(0xfd, command, struct dm_ioctl)."""
        return 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | self


class Flag(IntFlag):
    READONLY = 1 << 0
    SUSPEND = 1 << 1
    STATUS_TABLE = 1 << 4
    ACTIVE_PRESENT = 1 << 5
    INACTIVE_PRESENT = 1 << 6
    BUFFER_FULL = 1 << 8
    SKIP_LOCKFS = 1 << 10
    NOFLUSH = 1 << 11
    DEFERRED_REMOVE = 1 << 17


NO_FLAG = Flag(0)
_QUICK = Flag.SKIP_LOCKFS | Flag.NOFLUSH


class Control:
    """Fulfils `Mapper`.  Safe for several threads: the kernel has its own locks, and one that waits for a
    disk holds up that device alone.

    Args: ioctl: as fcntl's.

    Raises Unavailable: this host has no device-mapper, or this process may not use it."""

    def __init__(self, path: Path = CONTROL, ioctl: Ioctl = fcntl.ioctl) -> None:
        self._ioctl = ioctl
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            self._ask(Command.VERSION)
        except OSError as error:
            raise Unavailable(
                f"device-mapper cannot be used: {path}: {error.strerror}",
                next='modprobe dm_mod as root, or [block] plane = "nbd"',
            ) from None

    def close(self) -> None:
        os.close(self._fd)

    def find(self, uuid: str) -> Device | None:
        try:
            return self._ask(Command.DEV_STATUS, uuid=uuid)[0]
        except OSError as error:
            if error.errno == errno.ENXIO:
                return None
            raise

    def create(self, name: str, uuid: str, *, readonly: bool = False) -> Device:
        return self._ask(Command.DEV_CREATE, name=name, uuid=uuid, flags=_readonly(readonly))[0]

    def load(self, uuid: str, lines: Sequence[Line], *, readonly: bool = False) -> None:
        payload = b"".join(map(_pack_line, lines))
        self._ask(
            Command.TABLE_LOAD, uuid=uuid, flags=_readonly(readonly), lines=len(lines), payload=payload
        )

    def suspend(self, uuid: str) -> None:
        self._ask(Command.DEV_SUSPEND, uuid=uuid, flags=Flag.SUSPEND | _QUICK)

    def resume(self, uuid: str) -> None:
        self._ask(Command.DEV_SUSPEND, uuid=uuid, flags=_QUICK)

    def remove(self, uuid: str, *, deferred: bool = False) -> None:
        self._ask(Command.DEV_REMOVE, uuid=uuid, flags=Flag.DEFERRED_REMOVE if deferred else NO_FLAG)

    def rename(self, uuid: str, name: str) -> None:
        device = self._ask(Command.DEV_STATUS, uuid=uuid)[0]
        # This one command goes by the name alone (dm-ioctl.c, dm_hash_rename).
        self._ask(Command.DEV_RENAME, name=device.name, payload=name.encode() + b"\0")

    def table(self, uuid: str) -> tuple[Line, ...]:
        _, count, data = self._ask(Command.TABLE_STATUS, uuid=uuid, flags=Flag.STATUS_TABLE)
        return _unpack_lines(count, data)

    def _ask(
        self,
        command: Command,
        *,
        name: str = "",
        uuid: str = "",
        flags: Flag = NO_FLAG,
        lines: int = 0,
        payload: bytes = b"",
    ) -> tuple[Device, int, bytes]:
        """Returns the device, how many lines follow, and these.  Raises OSError."""
        room = max(_ROOM_BYTES, len(payload))
        while True:
            size = _HEADER.size + room
            head = _HEADER.pack(
                *VERSION, size, _HEADER.size, lines, 0, flags, 0, 0, 0, name.encode(), uuid.encode()
            )
            buffer = bytearray(head + payload.ljust(room, b"\0"))
            self._ioctl(self._fd, command.request, buffer, True)
            device, count, told, data = _unpack(buffer)
            if Flag.BUFFER_FULL not in told:
                return device, count, data
            room *= 4
            if room > _MOST_ROOM_BYTES:
                raise OSError(errno.EMSGSIZE, "the kernel's answer does not end")


def _readonly(readonly: bool) -> Flag:
    return Flag.READONLY if readonly else NO_FLAG


def _unpack(buffer: bytearray) -> tuple[Device, int, Flag, bytes]:
    fields = _HEADER.unpack_from(buffer)
    size, start, count, opened, flags = fields[3:8]
    number, name, uuid = fields[10:13]
    told = Flag(flags)
    device = Device(
        name=_text(name),
        uuid=_text(uuid),
        number=number,
        open_count=opened,
        suspended=Flag.SUSPEND in told,
        readonly=Flag.READONLY in told,
        active=Flag.ACTIVE_PRESENT in told,
        inactive=Flag.INACTIVE_PRESENT in told,
    )
    return device, count, told, bytes(buffer[start:size])


def _pack_line(line: Line) -> bytes:
    parameters = line.parameters.encode() + b"\0"
    length = -(-(_LINE.size + len(parameters)) // 8) * 8
    head = _LINE.pack(line.start_sectors, line.length_sectors, 0, length, line.kind.encode())
    return (head + parameters).ljust(length, b"\0")


def _unpack_lines(count: int, data: bytes) -> tuple[Line, ...]:
    lines, at = [], 0
    for _ in range(count):
        start, length, _, following, kind = _LINE.unpack_from(data, at)
        parameters = data[at + _LINE.size : data.index(0, at + _LINE.size)]
        lines.append(Line(start, length, _text(kind), parameters.decode().strip()))
        at = following
    return tuple(lines)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")
