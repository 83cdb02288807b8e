"""An LV that grows or shrinks: the VG as it should be then.

What an LV has stays where it is: growth is appended, and what is taken off is its end.

Source: LVM2 lib/metadata/lv_manip.c (lv_extend, _lv_reduce)."""

from collections.abc import Sequence

from ringfence.core.errors import Refused
from ringfence.lvm2.text import Section, Value
from ringfence.volumes.allocate import free_count
from ringfence.volumes.layout import Space, choose, segment_section, segments_of
from ringfence.volumes.model import Vg
from ringfence.volumes.plan import check_plain, find_lv
from ringfence.volumes.policies import Row, what_helps

MERGED = ("start_extent", "extent_count", "type", "stripe_count", "stripe_size", "stripes")
"""A segment that has more than these (tags) is its own, also where the next one follows it on the disk."""


def extend_lv(vg: Vg, name: str, extents: int, space: Space) -> Vg:
    """The VG with so many extents more in the LV (fewer, if the space is approximate).

    Raises NotFound, Refused.  The seqno is not touched."""
    lv = find_lv(vg, name)
    check_plain(vg, lv)
    assert extents > 0
    free = free_count(vg)
    if extents > free and not space.approximate:
        raise Refused(
            f"Insufficient free space: {extents} extents needed, but only {free} available",
            next=what_helps(free, "+"),
        )
    rows = choose(vg, extents, space, lv.segments, lv.policy)
    return append_rows(vg, name, rows, space.stripes.sectors)


def append_rows(vg: Vg, name: str, rows: Sequence[Row], stripe_sectors: int) -> Vg:
    """The VG with these extents, which are free, behind those of the LV."""
    lv = find_lv(vg, name)
    old = [body for _, body in vg.section_of(name).sections()]
    last = lv.segments[-1] if all(key in MERGED for key, _ in old[-1].items) else None
    new = segments_of(rows, stripe_sectors, lv.extent_count, last)
    if new[0].start_extent == lv.segments[-1].start_extent:
        old[-1:] = [old[-1].put("extent_count", new.pop(0).extent_count)]
    return with_segments(vg, name, [*old, *map(segment_section, new)])


def reduce_lv(vg: Vg, name: str, extents: int) -> Vg:
    """The VG with the LV's first `extents` extents alone left of it.

    Args: extents: whole stripes of the segment that becomes the last one.

    Raises NotFound, Refused.  The seqno is not touched."""
    lv = find_lv(vg, name)
    check_plain(vg, lv)
    assert 0 < extents < lv.extent_count
    kept = [segment for segment in lv.segments if segment.start_extent < extents]
    bodies = [body for _, body in vg.section_of(name).sections()][: len(kept)]
    left = min(extents - kept[-1].start_extent, kept[-1].extent_count)
    assert left % len(kept[-1].stripes) == 0
    bodies[-1] = bodies[-1].put("extent_count", left)
    return with_segments(vg, name, bodies)


def with_segments(vg: Vg, name: str, bodies: Sequence[Section]) -> Vg:
    section = vg.section_of(name).put("segment_count", len(bodies))
    items: list[tuple[str, Value | Section]] = [
        (key, node) for key, node in section.items if not isinstance(node, Section)
    ]
    items += [(f"segment{number}", body) for number, body in enumerate(bodies, 1)]
    return vg.with_lv(name, Section(tuple(items)))
