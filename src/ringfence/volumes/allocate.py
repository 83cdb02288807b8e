"""Which extents are free, and which of them a new LV gets.

Contiguous first: the first free range that holds the whole LV, PVs in the VG's order.  If there is
none, the largest ranges first, so that the LV has few segments.  Same VG, same answer."""

from ringfence.core.errors import Refused
from ringfence.volumes.model import Pv, Stripe, Vg


def free_ranges(vg: Vg, pv: Pv) -> tuple[Stripe, ...]:
    """Free extents of a PV, lowest first."""
    return vg.index.free_ranges(pv.name)


def free_extents(vg: Vg, pv: Pv) -> int:
    return vg.index.free_extents(pv.name)


def free_count(vg: Vg) -> int:
    """Free extents of the VG, as `vgs` shows them: all PVs."""
    return sum(free_extents(vg, pv) for pv in vg.pvs)


def allocate(vg: Vg, extents: int) -> tuple[Stripe, ...]:
    """Choose extents for a linear LV.  Raises Refused if there are too few."""
    ranges = [one for pv in vg.pvs if pv.allocatable and not pv.missing for one in free_ranges(vg, pv)]
    for one in ranges:
        if one.extent_count >= extents:
            return (Stripe(one.pv, one.start_extent, extents),)
    chosen, needed = [], extents
    for one in sorted(ranges, key=lambda free: -free.extent_count):
        if needed == 0:
            break
        take = min(needed, one.extent_count)
        chosen.append(Stripe(one.pv, one.start_extent, take))
        needed -= take
    if needed:
        free = sum(one.extent_count for one in ranges)
        raise Refused(
            f'Volume group "{vg.name}" has insufficient free space ({free} extents): {extents} required',
            next="give a smaller size, or -l 100%FREE for all that is left",
        )
    return tuple(chosen)
