"""Checker 12: whoever opens an LV finds nobody's data in it but its own.

Guests sign what they write, extent by extent; when a path is opened, or gets another table, all that it is
made of is looked at.  That LVs which are being zeroed or wiped come to an end, the `world` sees, once mended.

What a command zeroes at once, and how large a slice of the rest is, is for disks of gigabytes; here both are
a few extents, so that there is something to do in the background."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ringfence.engine.commands import wiping, zeroing
from ringfence.engine.orders import OpenPath
from ringfence.lvm2.label import SECTOR_BYTES
from ringfence.sim.disk import Disks
from ringfence.sim.paths import Landed
from ringfence.sim.safety import SafetyViolation

EXTENT_BYTES = 16 << 10
_SMALL: tuple[tuple[Any, str, int], ...] = (
    (zeroing, "SLICE_BYTES", EXTENT_BYTES),
    (zeroing, "AT_ONCE_BYTES", 2 * EXTENT_BYTES),
    (wiping, "STEP_LEAST_BYTES", EXTENT_BYTES),
    (wiping, "STEP_MOST_BYTES", EXTENT_BYTES),
)


class Tenants:
    """Args: signs: guests write data; else there is nothing to see."""

    def __init__(self, disks: Disks, *, signs: bool) -> None:
        self._disks, self._signs = disks, signs

    def landed(self, write: Landed) -> None:
        if not self._signs:
            return
        order = write.path.order
        sector = _signature(order)
        places = (*order.extents, *write.path.to)
        extent = next(one for one in places if (one.path, one.start_bytes) == (write.disk, write.at_bytes))
        for at in range(extent.start_bytes, extent.start_bytes + extent.length_bytes, EXTENT_BYTES):
            self._disks.disks[extent.path].write(at, sector)

    def opened(self, order: OpenPath) -> None:
        """Raises SafetyViolation."""
        allowed = (_signature(order), bytes(SECTOR_BYTES))
        for extent in order.extents if self._signs else ():
            for at in range(extent.start_bytes, extent.start_bytes + extent.length_bytes, EXTENT_BYTES):
                sector = self._disks.disks[extent.path].read(at, SECTOR_BYTES)
                if sector not in allowed:
                    whose = (sector or b"").rstrip(b"\0").decode(errors="replace")
                    raise SafetyViolation(
                        f"12: LV {order.vg}/{order.lv} is opened, and at byte {at} of {extent.path} it has "
                        f"what LV {whose} has written"
                    )


def _signature(order: OpenPath) -> bytes:
    return order.uuid.encode().ljust(SECTOR_BYTES, b"\0")


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
