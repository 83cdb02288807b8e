"""Which extents are free."""

from ringfence.volumes.model import Pv, Stripe, Vg


def free_ranges(vg: Vg, pv: Pv) -> tuple[Stripe, ...]:
    """Free extents of a PV, lowest first."""
    return vg.index.free_ranges(pv.name)


def free_extents(vg: Vg, pv: Pv) -> int:
    return vg.index.free_extents(pv.name)


def free_count(vg: Vg) -> int:
    """Free extents of the VG, as `vgs` shows them: all PVs."""
    return sum(free_extents(vg, pv) for pv in vg.pvs)
