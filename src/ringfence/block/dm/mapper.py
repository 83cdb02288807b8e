"""What this program asks of device-mapper, one device a call; and the lines of its tables.

A device has an active table, through which I/O goes, and perhaps an inactive one that was loaded and takes
its place at the next `resume`.  While it is suspended, new I/O waits in the kernel.

Source: Linux drivers/md/dm-ioctl.c, dm.c; Documentation/admin-guide/device-mapper/{linear,striped}.rst."""

import os
import stat
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from ringfence.core.errors import BadInput, DeviceFailed
from ringfence.wire.block import Extent, Place

ERROR = "error"
UUID_PREFIX = "LVM-"
SECTOR_BYTES = 512


class Line(msgspec.Struct, frozen=True):
    """One line of a table, in sectors of 512 bytes."""

    start_sectors: int
    length_sectors: int
    kind: str
    parameters: str = ""


class Device(msgspec.Struct, frozen=True):
    """A device as it is at this moment."""

    name: str
    uuid: str
    number: int
    """As `os.stat` has it in st_rdev."""
    open_count: int
    suspended: bool
    readonly: bool
    active: bool
    """It has a table."""
    inactive: bool
    """It has another one, loaded and waiting."""

    @property
    def kernel(self) -> str:
        """dm-7."""
        return f"dm-{os.minor(self.number)}"


class Mapper(Protocol):
    """Device-mapper.  Every call may block as long as a disk does, and raises OSError: ENXIO (there is no
    such device), EBUSY (the name or uuid is taken; it is open), EINVAL (a table that the kernel does not
    like)."""

    def find(self, uuid: str) -> Device | None: ...

    def create(self, name: str, uuid: str, *, readonly: bool = False) -> Device:
        """Without a table."""

    def load(self, uuid: str, lines: Sequence[Line], *, readonly: bool = False) -> None:
        """As the inactive table."""

    def suspend(self, uuid: str) -> None:
        """Hold new I/O; return when what was under way has ended.  No flush, no freezing of file systems:
        both write, or wait for what hangs."""

    def resume(self, uuid: str) -> None:
        """Put the inactive table, if there is one, in place of the active one, and let I/O go on."""

    def remove(self, uuid: str, *, deferred: bool = False) -> None:
        """deferred: when its last user closes it, if it is open."""

    def rename(self, uuid: str, name: str) -> None: ...

    def table(self, uuid: str) -> tuple[Line, ...]:
        """The active one."""


def mapper_uuid(vg_uuid: str, lv_uuid: str) -> str:
    """As LVM2 gives it to an LV's device: its tools know the LV by it (lib/activate/dev_manager.c)."""
    return UUID_PREFIX + vg_uuid.replace("-", "") + lv_uuid.replace("-", "")


def device_number(path: str) -> int:
    """Of a block device.  Raises BadInput (a file), DeviceFailed."""
    try:
        found = os.stat(path)
    except OSError as error:
        words = f"cannot find {path}: {error.strerror}"
        raise DeviceFailed(words, next="check that the disk is there") from None
    if not stat.S_ISBLK(found.st_mode):
        raise BadInput(f"{path} is no block device", next='use plane = "nbd" for PVs in files')
    return found.st_rdev


def lines_of(extents: Sequence[Extent], number: Callable[[str], int] = device_number) -> tuple[Line, ...]:
    """The table of an LV: a line for each piece of it, linear or striped.  Raises as `number` does."""
    lines: list[Line] = []
    start = 0
    for extent in extents:
        length = extent.length_bytes // SECTOR_BYTES
        lines.append(Line(start, length, *_parameters(extent, number)))
        start += length
    return tuple(lines)


def _parameters(extent: Extent, number: Callable[[str], int]) -> tuple[str, str]:
    def words(place: Place) -> str:
        device = number(place.path)
        return f"{os.major(device)}:{os.minor(device)} {place.start_bytes // SECTOR_BYTES}"

    places = " ".join(map(words, extent.places))
    if not extent.beside:
        return "linear", places
    return "striped", f"{len(extent.places)} {extent.stripe_bytes // SECTOR_BYTES} {places}"


def failing(lines: Sequence[Line]) -> tuple[Line, ...]:
    """A table of the same size that fails all I/O."""
    return (Line(0, sum(line.length_sectors for line in lines), ERROR),)


def fails(lines: Sequence[Line]) -> bool:
    """Whether nothing can be written through this table."""
    return all(line.kind == ERROR for line in lines)
