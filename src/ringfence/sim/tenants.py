"""Checker 12: whoever opens an LV finds in it what its guests have written last, and nobody else's data.

Guests sign what they write, and count it; when a path is opened, or gets another table, all that it is made
of is looked at: each extent has what was acknowledged last, or, where nothing ever was, zeros.  Of a write
that landed late, when its host's authority had ended, nothing is known.  That LVs which are being zeroed,
wiped or moved come to an end, the `world` sees, once mended.

What a command zeroes at once, and how large a slice of the rest is, is for disks of gigabytes; here both are
a few extents, so that there is something to do in the background."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ringfence.engine.commands import moving, wiping, zeroing
from ringfence.engine.orders import OpenPath
from ringfence.lvm2.label import SECTOR_BYTES
from ringfence.sim import mirrored
from ringfence.sim.disk import Disks
from ringfence.sim.mirrored import pieces
from ringfence.sim.paths import UNIT_BYTES
from ringfence.sim.safety import SafetyViolation

EXTENT_BYTES = 16 << 10
_SMALL: tuple[tuple[Any, str, int], ...] = (
    (zeroing, "SLICE_BYTES", EXTENT_BYTES),
    (zeroing, "AT_ONCE_BYTES", 2 * EXTENT_BYTES),
    (zeroing, "ALONG_BYTES", EXTENT_BYTES),
    (wiping, "STEP_LEAST_BYTES", EXTENT_BYTES),
    (wiping, "STEP_MOST_BYTES", EXTENT_BYTES),
    (moving, "SLICE_BYTES", EXTENT_BYTES),
    (moving, "STEP_LEAST_BYTES", EXTENT_BYTES),
    (moving, "STEP_MOST_BYTES", 2 * EXTENT_BYTES),
    (mirrored, "STEP_BYTES", EXTENT_BYTES),
)


class Tenants:
    def __init__(self, disks: Disks) -> None:
        self._disks = disks
        self._count = 0
        self._told: dict[tuple[str, int], bytes] = {}
        """(LV's uuid, byte) -> what was written there last, as its guest was told; empty: nobody knows."""

    def drawn(self, order: OpenPath, offset: int) -> bytes:
        """What a guest writes now."""
        self._count += 1
        return f"{order.uuid} {self._count}".encode().ljust(SECTOR_BYTES, b"\0")

    def acknowledged(self, order: OpenPath, offset: int, data: bytes) -> None:
        self._told[order.uuid, offset] = data

    def opened(self, order: OpenPath) -> None:
        """Raises SafetyViolation."""
        size = sum(one.length_bytes for one in order.extents)
        for offset in range(0, size, UNIT_BYTES):
            ((path, at, _),) = pieces(order.extents, offset, SECTOR_BYTES)
            there = self._disks.disks[path].read(at, SECTOR_BYTES) or b""
            told = self._told.get((order.uuid, offset), bytes(SECTOR_BYTES))
            if there == told or not told:
                continue
            whose = there.rstrip(b"\0").decode(errors="replace") or "nothing"
            last = told.rstrip(b"\0").decode() or "nothing"
            raise SafetyViolation(
                f"12: LV {order.vg}/{order.lv} is opened, and at byte {at} of {path} it has {whose}, where "
                f"{last} was written last"
            )


@contextmanager
def small_slices() -> Iterator[None]:
    """What is zeroed and wiped in this process is so in small steps."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in _SMALL]
    try:
        for owner, name, value in _SMALL:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
