"""Sizes as LVM2 computes them: bytes up to whole extents, percentages down; whole stripes.

Source: LVM2 lib/metadata/metadata.c (extents_from_size, percent_of_extents), tools/lvcreate.c
(_update_extents_params), tools/toollib.c (_validate_stripe_params), lib/metadata/lv_manip.c
(_lv_create_an_lv, _lvresize_extents_from_percent, _lvresize_adjust_extents)."""

import msgspec

from ringfence.core.errors import BadInput, Refused
from ringfence.core.units import sized
from ringfence.volumes.allocate import free_count
from ringfence.volumes.model import SECTOR_BYTES, Lv, Vg

EXTENT_BYTES = 4 << 20
"""LVM2's default extent size."""
SMALLEST_EXTENT_BYTES = 1024
LARGEST_EXTENT_BYTES = 16 << 30
EXTENT_STEP_BYTES = 128 << 10
"""Extents that are no power of two are so many times this."""
STRIPE_SECTORS = 128
"""LVM2's default stripe size (allocation/metadata stripesize): 64 KiB."""
SMALLEST_STRIPE_SECTORS = 8
LARGEST_STRIPE_SECTORS = 0xFFFFFFFF // 4 * 2
MAX_STRIPES = 128


class Size(msgspec.Struct, frozen=True):
    """A size as it is asked for: one of bytes and extents.  `percent` applies to extents."""

    size_bytes: int = 0
    extents: int = 0
    percent: str = ""
    """VG | FREE | PVS | LV | ORIGIN, or empty: extents are counted."""
    sign: str = ""
    """+ | -: by so much; empty: to so much."""


class Stripes(msgspec.Struct, frozen=True):
    count: int = 1
    sectors: int = 0
    """0: there is one stripe."""


class Wanted(msgspec.Struct, frozen=True):
    """What comes of a size."""

    extents: int
    approximate: bool
    """As much of it as there is."""
    notes: tuple[str, ...] = ()


# -- stripes ---------------------------------------------------------------------


def stripes_for(vg: Vg, count: int, size_bytes: int) -> tuple[Stripes, list[str]]:
    """-i and -I (0: not given), and what to say.  Raises BadInput."""
    count = count or 1
    if not 1 <= count <= MAX_STRIPES:
        raise BadInput(f"Number of stripes ({count}) must be between 1 and {MAX_STRIPES}")
    if count == 1:
        return Stripes(), ["Ignoring stripesize argument with single stripe."] if size_bytes else []
    if not size_bytes:
        sectors, notes = (
            STRIPE_SECTORS,
            [f"Using default stripesize {sized(STRIPE_SECTORS * SECTOR_BYTES)}."],
        )
    else:
        sectors, notes = size_bytes // SECTOR_BYTES, []
        whole = sectors * SECTOR_BYTES == size_bytes and not sectors & (sectors - 1)
        if not whole or not SMALLEST_STRIPE_SECTORS <= sectors <= LARGEST_STRIPE_SECTORS:
            raise BadInput(f"Invalid stripe size {sized(size_bytes)}", next="give a power of two from 4k on")
    if sectors > vg.extent_sectors:
        notes.append(
            f"Reducing requested stripe size {sized(sectors * SECTOR_BYTES)} to maximum, "
            f"physical extent size {sized(vg.extent_bytes)}."
        )
        sectors = vg.extent_sectors
    if sectors < SMALLEST_STRIPE_SECTORS or sectors & (sectors - 1):
        raise BadInput(
            f"The extent size of volume group {vg.name} ({sized(vg.extent_bytes)}) allows no such stripes",
            next="give -I with a smaller power of two, from 4k on",
        )
    return Stripes(count, sectors), notes


# -- a new LV --------------------------------------------------------------------


def extents_for_new(vg: Vg, size: Size, stripes: Stripes, listed: int | None) -> Wanted:
    """The size of a new LV, in whole stripes.

    Args: listed: free extents of the PVs that were named; None: none was.

    Raises BadInput."""
    _check_one(size)
    if size.sign:
        raise BadInput("the size of a new LV has no sign", next="give -L SIZE or -l EXTENTS")
    notes: list[str] = []
    free = free_count(vg)
    count = _counted(vg, size)
    if size.percent:
        if size.extents > 100:
            raise BadInput(f"{size.extents}%{size.percent} is more than there is", next="give at most 100")
        count = _percent_of_vg(vg, size, free, listed)
        if size.percent == "VG" and count > free:
            count = free
            notes.append(
                f"Reducing {size.extents}%VG to remaining free space {sized(free * vg.extent_bytes)} in VG."
            )
        if count == 0:
            raise BadInput(
                f'{size.extents}%{size.percent} of volume group "{vg.name}" is less than one extent'
            )
        over = count % stripes.count
        if over and free < count - over + stripes.count:
            notes.append(
                f"Rounding size ({count} extents) down to stripe boundary size ({count - over} extents)"
            )
            count -= over
        if count == 0:
            raise BadInput(f"{stripes.count} stripes need as many free extents", next="give fewer stripes")
    elif size.size_bytes and size.size_bytes != count * vg.extent_bytes:
        notes.append(f"Rounding up size to full physical extent {sized(count * vg.extent_bytes)}")
    whole = -(-count // stripes.count) * stripes.count
    if whole != count:
        notes.append(
            f"Rounding size {sized(count * vg.extent_bytes)} ({count} extents) up to stripe boundary size "
            f"{sized(whole * vg.extent_bytes)} ({whole} extents)."
        )
    return Wanted(whole, bool(size.percent), tuple(notes))


def _check_one(size: Size) -> None:
    if (size.size_bytes > 0) == (size.extents > 0):
        raise BadInput("one of size and extents is needed, above 0", next="give -L SIZE or -l EXTENTS")


def _counted(vg: Vg, size: Size) -> int:
    return -(-size.size_bytes // vg.extent_bytes) if size.size_bytes else size.extents


def _percent_of_vg(vg: Vg, size: Size, free: int, listed: int | None, *, up: bool = False) -> int:
    match size.percent:
        case "VG":
            whole = vg.extent_count
        case "FREE":
            whole = free
        case "PVS":
            whole = vg.extent_count if listed is None else listed
        case "ORIGIN":
            raise BadInput(
                "%ORIGIN is for snapshots, which are not made here",
                next=f"stock LVM2, on one host: lvcreate -s -l {size.extents}%ORIGIN {vg.name}/ORIGIN",
            )
        case "LV":
            raise BadInput("%LV needs an LV that is there", next="give %VG, %FREE or %PVS")
        case _:
            raise BadInput(f"percentages of {size.percent!r} are not known", next="give %VG, %FREE or %PVS")
    return (whole * size.extents + (99 if up else 0)) // 100


# -- an LV's new size --------------------------------------------------------------


def extents_for_resize(
    vg: Vg, lv: Lv, size: Size, stripes: Stripes | None, listed: int | None
) -> tuple[Wanted, Stripes]:
    """The new size of an LV in extents, and the stripes of what is added.

    Args: stripes: as they were asked for; None: as the LV's own are.

    Raises BadInput, Refused."""
    _check_one(size)
    notes: list[str] = []
    have, free = lv.extent_count, free_count(vg)
    amount = _amount(vg, lv, size, free, listed, notes)
    if size.sign == "-" and amount >= have:
        raise BadInput(f"Unable to reduce {vg.name}/{lv.name} below 1 extent")
    new = {"": amount, "+": have + amount, "-": have - amount}[size.sign]
    if new < have:
        if stripes is not None:
            notes.append("Ignoring stripes and stripesize arguments when reducing.")
        last, part = _last_kept(lv, new)
        over = part % last.count
        if over:
            notes.append(_rounded(new, new - over + last.count, "up"))
            new += last.count - over
        if new == have:
            raise Refused(
                f"{vg.name}/{lv.name} is not reduced: less than one stripe of each of its {last.count} "
                "would be left over",
                next=f"reduce it by {last.count} extents",
            )
        return Wanted(new, False, tuple(notes)), last
    if stripes is None:
        stripes = stripes_of(vg, lv)
    over = (new - have) % stripes.count
    if over and (not size.percent or free >= new - have - over + stripes.count):
        notes.append(_rounded(new, new - over + stripes.count, "up"))
        new += stripes.count - over
    elif over:
        notes.append(_rounded(new, new - over, "down"))
        new -= over
    approximate = size.percent in ("VG", "FREE", "PVS") and not size.sign
    approximate = approximate or (size.percent == "FREE" and size.sign == "+")
    return Wanted(new, approximate, tuple(notes)), stripes


def _amount(vg: Vg, lv: Lv, size: Size, free: int, listed: int | None, notes: list[str]) -> int:
    up = size.sign != "-"
    if size.size_bytes:
        count = _counted(vg, size) if up else size.size_bytes // vg.extent_bytes
        if count * vg.extent_bytes != size.size_bytes:
            notes.append(
                f"Rounding size to boundary between physical extents: {sized(count * vg.extent_bytes)}."
            )
        return count
    if not size.percent:
        return size.extents
    if size.percent == "LV":
        return (lv.extent_count * size.extents + (99 if up else 0)) // 100
    count = _percent_of_vg(vg, size, free, listed, up=up)
    if size.percent == "VG" and not size.sign and count > lv.extent_count + free:
        count = lv.extent_count + free
        notes.append(
            f"Reducing {size.extents}%VG to remaining free space {sized(count * vg.extent_bytes)} in VG."
        )
    return count


def _rounded(extents: int, to: int, way: str) -> str:
    return f"Rounding size ({extents} extents) {way} to stripe boundary size for segment ({to} extents)."


def _last_kept(lv: Lv, extents: int) -> tuple[Stripes, int]:
    """The stripes of the last segment that is left, and how much of it."""
    for segment in lv.segments:
        if extents <= segment.start_extent + segment.extent_count:
            return Stripes(len(segment.stripes), segment.stripe_sectors), extents - segment.start_extent
    raise AssertionError("an LV is reduced to less than it has")


def stripes_of(vg: Vg, lv: Lv) -> Stripes:
    """Raises BadInput: its segments differ."""
    kinds = dict.fromkeys((len(segment.stripes), segment.stripe_sectors) for segment in lv.segments)
    if len(kinds) != 1:
        raise BadInput(
            "Please specify number of stripes (-i) and stripesize (-I): "
            f"the segments of {vg.name}/{lv.name} differ"
        )
    ((count, sectors),) = kinds
    return Stripes(count, sectors)


# -- extents ---------------------------------------------------------------------


def check_extent_size(size_bytes: int) -> int:
    """A VG's extent size (0 = the default), in sectors.  Raises BadInput.

    Source: LVM2 lib/metadata/vg.c (vg_check_new_extent_size)."""
    size_bytes = size_bytes or EXTENT_BYTES
    fits = size_bytes & (size_bytes - 1) == 0 or size_bytes % EXTENT_STEP_BYTES == 0
    if not SMALLEST_EXTENT_BYTES <= size_bytes <= LARGEST_EXTENT_BYTES or not fits:
        raise BadInput(
            f"physical extent size {size_bytes} bytes cannot be",
            next="give a power of two, or a multiple of 128k, from 1k to 16g",
        )
    return size_bytes // SECTOR_BYTES
