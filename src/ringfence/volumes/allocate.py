"""Which extents are free."""

from ringfence.volumes.model import Pv, Stripe, Vg


def free_ranges(vg: Vg, pv: Pv) -> tuple[Stripe, ...]:
    """Free extents of a PV, lowest first."""
    used = [
        (stripe.start_extent, stripe.start_extent + stripe.extent_count)
        for lv in vg.lvs
        for segment in lv.segments
        for stripe in segment.stripes
        if stripe.pv == pv.name
    ]
    free, position = [], 0
    for start, end in sorted(used):
        if start > position:
            free.append(Stripe(pv.name, position, min(start, pv.extent_count) - position))
        position = max(position, end)
    if position < pv.extent_count:
        free.append(Stripe(pv.name, position, pv.extent_count - position))
    return tuple(free)


def free_extents(vg: Vg, pv: Pv) -> int:
    return sum(one.extent_count for one in free_ranges(vg, pv))


def free_count(vg: Vg) -> int:
    """Free extents of the VG, as `vgs` shows them: all PVs."""
    return sum(free_extents(vg, pv) for pv in vg.pvs)
