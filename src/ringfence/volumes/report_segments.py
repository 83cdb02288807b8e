"""Rows for `lvs --segments` and `pvs --segments`: a row a segment, under LVM2's field names; sizes in bytes.

Source: LVM2 lib/report/report.c (_segtype_disp, _segstart_disp, _devices_disp), tools/reporter.c
(_pvsegs_sub_single: free pieces are segments too)."""

from typing import Any

from ringfence.core.errors import printable
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import SECTOR_BYTES, Lv, Pv, Segment, Stripe
from ringfence.volumes.segments import Part

Row = dict[str, Any]


def lv_segments(found: VgOnDisk, lv: Lv) -> list[Row]:
    """By their place in the LV."""
    sizes = _stripe_sizes(found, lv)
    return [_segment(found, segment, size) for segment, size in zip(lv.segments, sizes, strict=True)]


def _stripe_sizes(found: VgOnDisk, lv: Lv) -> list[int]:
    """Of each segment; 0: it has no stripes."""
    section = found.vg.section_of(lv.name)
    return [(one.number("stripe_size") or 0) * SECTOR_BYTES for _, one in section.sections()]


def _segment(found: VgOnDisk, segment: Segment, stripe_bytes: int) -> Row:
    extent_bytes = found.vg.extent_bytes
    return {
        "segtype": printable(segment.type_name),
        "stripes": max(1, len(segment.areas)),
        "stripe_size": stripe_bytes,
        "seg_start": segment.start_extent * extent_bytes,
        "seg_start_pe": segment.start_extent,
        "seg_size": segment.extent_count * extent_bytes,
        "seg_size_pe": segment.extent_count,
        "seg_pe_ranges": " ".join(
            f"{device_of(found, one.pv)}:{one.start_extent}-{one.start_extent + one.extent_count - 1}"
            for one in segment.stripes
        ),
        "devices": ",".join(area_of(found, area) for area in segment.areas),
    }


def pv_segments(found: VgOnDisk, pv: Pv) -> list[Row]:
    """By their place on the PV, free ones too."""
    extent_bytes = found.vg.extent_bytes
    used = sorted(
        (
            (stripe.start_extent, stripe.extent_count, lv, at)
            for lv in found.vg.lvs
            for at, segment in enumerate(lv.segments)
            for stripe in segment.stripes
            if stripe.pv == pv.name
        ),
        key=lambda one: one[:2],
    )
    rows: list[Row] = []
    at = 0
    for start, count, lv, number in used:
        if start > at:
            rows.append(free_piece(at, start - at, extent_bytes))
        segment = lv.segments[number]
        stripe_bytes = _stripe_sizes(found, lv)[number] if len(segment.areas) > 1 else 0
        rows.append(
            {
                "pvseg_start": start, "pvseg_size": count, "lv_name": lv.name, "lv_uuid": lv.uuid,
                "lv_size": lv.extent_count * extent_bytes, "lv_tags": tags_of(lv.tags),
            }
            | _segment(found, segment, stripe_bytes)
        )
        at = max(at, start + count)
    if at < pv.extent_count or not rows:
        rows.append(free_piece(at, pv.extent_count - at, extent_bytes))
    return rows


def free_piece(start: int, count: int, extent_bytes: int) -> Row:
    """Extents that no LV uses."""
    return {
        "pvseg_start": start, "pvseg_size": count, "lv_name": "", "lv_size": 0, "segtype": "free",
        "stripes": 0, "stripe_size": 0, "seg_start": 0, "seg_start_pe": 0,
        "seg_size": count * extent_bytes, "seg_size_pe": count,
    }  # fmt: skip


def area_of(found: VgOnDisk, area: Stripe | Part) -> str:
    """As lvs names it: a place on a device, or in a hidden LV."""
    name = device_of(found, area.pv) if isinstance(area, Stripe) else area.lv
    return f"{name}({area.start_extent})"


def tags_of(tags: tuple[str, ...]) -> str:
    """Sorted, as LVM2 shows lists of strings."""
    return printable(",".join(sorted(tags))) if tags else ""


def device_of(found: VgOnDisk, pv: str) -> str:
    """Where a PV of the VG was found."""
    have = found.pvs.get(pv)
    return have.path if have else "[unknown]"
