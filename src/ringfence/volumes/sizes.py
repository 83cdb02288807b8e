"""Sizes as LVM2 computes them: bytes up to whole extents, percentages down.

Source: LVM2 lib/metadata/metadata.c (extents_from_size, extents_from_percent_size), tools/lvcreate.c."""

from ringfence.core.errors import BadInput
from ringfence.volumes.allocate import free_count
from ringfence.volumes.model import SECTOR_BYTES, Vg

EXTENT_BYTES = 4 << 20
"""LVM2's default extent size."""
SMALLEST_EXTENT_BYTES = 1024
LARGEST_EXTENT_BYTES = 16 << 30


def extents_for(vg: Vg, *, size_bytes: int = 0, extents: int = 0, percent: str = "") -> int:
    """The size of a new LV in extents.  percent: "VG", "FREE" or "".  Raises BadInput for 0 and less."""
    if (size_bytes > 0) == (extents > 0):
        raise BadInput("one of size and extents is needed, above 0", next="give -L SIZE or -l EXTENTS")
    if size_bytes:
        return -(-size_bytes // vg.extent_bytes)
    if percent == "":
        return extents
    if percent not in ("VG", "FREE"):
        raise BadInput(f"percentages of {percent!r} are not known", next="give %VG or %FREE")
    if extents > 100:
        raise BadInput(f"{extents}%{percent} is more than there is", next="give at most 100")
    whole = free_count(vg) if percent == "FREE" else vg.extent_count
    count = whole * extents // 100
    if count == 0:
        raise BadInput(f'{extents}%{percent} of volume group "{vg.name}" is less than one extent')
    return count


def check_extent_size(size_bytes: int) -> int:
    """An extent size for a new VG (0 = the default), in sectors.  Raises BadInput."""
    size_bytes = size_bytes or EXTENT_BYTES
    if not SMALLEST_EXTENT_BYTES <= size_bytes <= LARGEST_EXTENT_BYTES or size_bytes & (size_bytes - 1):
        raise BadInput(
            f"physical extent size {size_bytes} bytes cannot be",
            next="give a power of two from 1k to 16g",
        )
    return size_bytes // SECTOR_BYTES
