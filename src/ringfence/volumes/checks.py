"""What must hold of a VG's metadata, before it is changed and again before it is written.

No two LVs share an extent; every segment lies within its PV; segments follow each other without
gaps; names and uuids are unique; what LVs are made of is there.  What concerns single LVs, the VG's
index keeps account of.

Source: LVM2 lib/metadata/merge.c (check_lv_segments), pv_manip.c (check_pv_segments), metadata.c
(vg_validate)."""

from collections.abc import Iterable

from ringfence.core.errors import Damaged
from ringfence.volumes.model import Vg


def check_vg(vg: Vg) -> None:
    """Raises Damaged, with the first thing that does not hold."""
    if vg.extent_sectors == 0:
        raise Damaged(f"VG {vg.name}: extent_size is 0")
    if not vg.pvs:
        raise Damaged(f"VG {vg.name} has no PVs")
    _unique(vg, "PV name", [pv.name for pv in vg.pvs])
    _unique(vg, "PV uuid", [pv.uuid for pv in vg.pvs])
    for pv in vg.pvs:
        end = pv.start_sectors + pv.extent_count * vg.extent_sectors
        if pv.device_sectors and end > pv.device_sectors:
            raise Damaged(f"VG {vg.name}: the extents of PV {pv.name} run over the end of its device")
    if vg.repeated:
        raise Damaged(f"VG {vg.name}: LV name {vg.repeated[0]} is there twice")
    if vg.index.fault:
        raise Damaged(f"VG {vg.name}: {vg.index.fault}")
    _check_parts(vg)


def _check_parts(vg: Vg) -> None:
    """LVs are made of LVs that are there (of a type that is not known, nobody knows)."""
    for name in vg.index.composed:
        for segment in vg.by_name[name].segments:
            for part in segment.parts if segment.exact else ():
                if part.lv not in vg.by_name:
                    raise Damaged(f"VG {vg.name}: LV {name} is made of {part.lv}, which is not there")


def _unique(vg: Vg, what: str, words: Iterable[str]) -> None:
    seen: dict[str, bool] = {}
    for word in words:
        if word in seen:
            raise Damaged(f"VG {vg.name}: {what} {word} is there twice")
        seen[word] = True
