"""Ranges of PVs are made to read as zeros, slice by slice.

What is small is zeroed by the command that needs it, before its commit and under the VG's lock; what is
larger, `wiping` does afterwards and without it."""

from collections.abc import Generator, Iterable, Iterator
from typing import Any

from ringfence.core.errors import NotFound
from ringfence.engine.orders import Order, ZeroBlocks
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import Lv
from ringfence.volumes.unclean import Piece, pieces
from ringfence.wire.block import Extent

SLICE_BYTES = 64 << 20
"""Of one order: authority, and whether to go on, is looked at in between."""
AT_ONCE_BYTES = 2 * SLICE_BYTES
"""So much may be zeroed under a VG's lock: about a second of a slow disk."""
ALONG_BYTES = 16 << 20
"""So much is zeroed in the order that writes the version, which spares a turn to who waits for the VG's lock;
but other storage orders of this host wait for that one."""


def fits_at_once(size_bytes: int) -> bool:
    return size_bytes <= AT_ONCE_BYTES


def zero_lv(found: VgOnDisk, lv: Lv) -> Generator[Order, Any, tuple[ZeroBlocks, ...]]:
    """All of an LV that nobody has open, ahead of a commit.  Raises NotFound (a PV is missing), DeviceFailed,
    NoAuthority.

    Returns: what is not done yet, and goes along with the version (`WriteVersion.zeros`)."""
    extents = places(found, pieces(found.vg, lv))
    if sum(extent.length_bytes for extent in extents) <= ALONG_BYTES:
        return tuple(slices(found.vg.name, extents))
    yield from zero(found.vg.name, extents)
    return ()


def zero(vg: str, extents: Iterable[Extent]) -> Generator[Order, Any, None]:
    """These ranges of devices, under the VG's authority."""
    yield from slices(vg, extents)


def slices(vg: str, extents: Iterable[Extent]) -> Iterator[ZeroBlocks]:
    for extent in extents:
        end = extent.start_bytes + extent.length_bytes
        for start in range(extent.start_bytes, end, SLICE_BYTES):
            yield ZeroBlocks(extent.path, start, min(SLICE_BYTES, end - start), vg)


def places(found: VgOnDisk, wanted: Iterable[Piece]) -> tuple[Extent, ...]:
    """Where pieces of PVs are on this host.  Raises NotFound if a PV is missing."""
    extents = []
    for piece in wanted:
        have = found.pvs.get(piece.pv)
        if have is None:
            pv = found.vg.pv(piece.pv)
            assert pv is not None
            raise NotFound(
                f"VG {found.vg.name}: PV {pv.uuid} (last seen as {pv.device}) is missing",
                next="make the device visible to this host: [devices] paths",
            )
        extents.append(Extent(have.path, piece.start_bytes, piece.length_bytes))
    return tuple(extents)
