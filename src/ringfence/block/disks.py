"""Which disk a path leads to.  A name such as /dev/sdb may be another disk's once its own was taken away; the
kernel numbers disks as they come (`diskseq`, since Linux 5.15), and never gives a number twice in a boot."""

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ringfence.core.errors import DeviceFailed
from ringfence.wire.block import Extent

Disk = tuple[int, int, int]
"""Device and inode of a file; of a block device 0, its number, and its diskseq (0: the kernel has none)."""

SYSFS = Path("/sys/dev/block")


def disks_of(extents: Iterable[Extent]) -> dict[str, Disk]:
    """Path -> the disk that it leads to now.  Raises DeviceFailed."""
    return {path: _disk_at(path) for path in _paths(extents)}


def check_same(extents: Iterable[Extent], before: Mapping[str, Disk]) -> None:
    """Raises DeviceFailed if a path leads to another disk by now, or to none."""
    for path in _paths(extents):
        if _disk_at(path) != before[path]:
            raise DeviceFailed(
                f"{path} is another disk than it was when the LV was opened",
                next="deactivate the LV, and activate it again: it is looked for on all disks then",
            )


def _paths(extents: Iterable[Extent]) -> dict[str, None]:
    """Those that are not missing, each once."""
    return dict.fromkeys(place.path for extent in extents for place in extent.places if place.path)


def _disk_at(path: str) -> Disk:
    try:
        found = os.stat(path)
    except OSError as error:
        words = f"cannot look at {path}: {error.strerror}"
        raise DeviceFailed(words, next="look whether it is there") from None
    if not stat.S_ISBLK(found.st_mode):
        return found.st_dev, found.st_ino, 0
    entry = SYSFS / f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    for place in (entry / "diskseq", entry / ".." / "diskseq"):  # a partition's is its disk's
        with suppress(OSError, ValueError):
            return 0, found.st_rdev, int(place.read_text())
    return 0, found.st_rdev, 0
