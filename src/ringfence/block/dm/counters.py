"""What was written through a device, as the kernel counts it.

A look is only worth something if it was over before the authority ended: the difference to what stands there
once the table is suspended (nothing is under way then) is the most that can have been written without.

Source: Linux Documentation/block/stat.rst: field 5 writes, 7 sectors written, 12 discards, 14 sectors
discarded, each of I/O that has ended."""

import contextlib
import os
from pathlib import Path

import msgspec

BLOCK = Path("/sys/block")


class Written(msgspec.Struct, frozen=True):
    """Counted from the device's making."""

    requests: int
    sectors: int

    def since(self, earlier: "Written") -> "Written":
        return Written(self.requests - earlier.requests, self.sectors - earlier.sectors)


class Counters:
    """Of one device.  Reads nothing, for ever, where sysfs does not have it.

    Args: kernel: "dm-7"."""

    def __init__(self, kernel: str, block: Path = BLOCK) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(block / kernel / "stat", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> Written | None:
        if self._fd < 0:
            return None
        try:
            fields = [int(one) for one in os.pread(self._fd, 512, 0).split()]
        except (OSError, ValueError):
            return None
        if len(fields) < 7:
            return None
        discards, discarded = (fields[11], fields[13]) if len(fields) > 13 else (0, 0)
        return Written(fields[4] + discards, fields[6] + discarded)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
