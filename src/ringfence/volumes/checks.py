"""What must hold of a VG's metadata, before it is changed and again before it is written.

No two LVs share an extent; every segment lies within its PV; segments follow each other without
gaps; names and uuids are unique.  Source: LVM2 lib/metadata/merge.c (check_lv_segments), pv_manip.c
(check_pv_segments), metadata.c (vg_validate)."""

from collections.abc import Iterable
from itertools import pairwise

from ringfence.core.errors import Damaged
from ringfence.volumes.model import Lv, Stripe, Vg


def check_vg(vg: Vg) -> None:
    """Raises Damaged, with the first thing that does not hold."""
    if vg.extent_sectors == 0:
        raise Damaged(f"VG {vg.name}: extent_size is 0")
    if not vg.pvs:
        raise Damaged(f"VG {vg.name} has no PVs")
    _unique(vg, "PV name", [pv.name for pv in vg.pvs])
    _unique(vg, "PV uuid", [pv.uuid for pv in vg.pvs])
    _unique(vg, "LV name", [lv.name for lv in vg.lvs])
    _unique(vg, "LV uuid", [lv.uuid for lv in vg.lvs])
    for pv in vg.pvs:
        end = pv.start_sectors + pv.extent_count * vg.extent_sectors
        if pv.device_sectors and end > pv.device_sectors:
            raise Damaged(f"VG {vg.name}: the extents of PV {pv.name} run over the end of its device")
    for lv in vg.lvs:
        _check_segments(vg, lv)
    _check_overlaps(vg)


def _unique(vg: Vg, what: str, words: Iterable[str]) -> None:
    seen: dict[str, bool] = {}
    for word in words:
        if word in seen:
            raise Damaged(f"VG {vg.name}: {what} {word} is there twice")
        seen[word] = True


def _check_segments(vg: Vg, lv: Lv) -> None:
    position = 0
    for segment in lv.segments:
        if segment.start_extent != position or segment.extent_count == 0:
            raise Damaged(f"VG {vg.name}: the segments of LV {lv.name} do not follow each other")
        position += segment.extent_count
        for stripe in segment.stripes if segment.exact else ():
            pv = vg.pv(stripe.pv)
            assert pv is not None
            if stripe.start_extent + stripe.extent_count > pv.extent_count:
                raise Damaged(f"VG {vg.name}: LV {lv.name} runs over the end of PV {stripe.pv}")


def _check_overlaps(vg: Vg) -> None:
    used: dict[str, list[tuple[Stripe, str]]] = {}
    for lv in vg.lvs:
        for segment in lv.segments:
            for stripe in segment.stripes if segment.exact else ():
                used.setdefault(stripe.pv, []).append((stripe, lv.name))
    for pv, stripes in used.items():
        stripes.sort(key=lambda pair: pair[0].start_extent)
        for (one, first), (other, second) in pairwise(stripes):
            if other.start_extent < one.start_extent + one.extent_count:
                raise Damaged(
                    f"VG {vg.name}: LVs {first} and {second} share extent {other.start_extent} of PV {pv}"
                )
