"""How an LV lies on its PVs: rows of extents become segments, and segments text.

Segments that follow each other on all their PVs are one, as LVM2 merges them.
Source: LVM2 lib/striped/striped.c (_striped_text_export, _striped_segments_compatible)."""

from collections.abc import Sequence

import msgspec

from ringfence.core.errors import BadInput
from ringfence.lvm2.text import Section, Value
from ringfence.volumes.model import Segment, Stripe, Vg
from ringfence.volumes.policies import INHERIT, Row, allocate
from ringfence.volumes.pv_list import free_areas
from ringfence.volumes.sizes import Stripes

_MAX_EXTENTS = 0xFFFFFFFF


class Space(msgspec.Struct, frozen=True):
    """Which free extents may be used, and how."""

    areas: tuple[Stripe, ...] | None = None
    """None: all that are free."""
    policy: str = INHERIT
    stripes: Stripes = Stripes()
    approximate: bool = False
    """Fewer extents will do, if there are no more."""


ANYWHERE = Space()


def choose(
    vg: Vg, extents: int, space: Space, behind: Sequence[Segment] = (), own_policy: str = ""
) -> tuple[Row, ...]:
    """Choose extents for a new LV, or for the growth of one.

    Args:
        behind: the LV's segments.
        own_policy: the LV's.

    Raises BadInput, Refused."""
    if extents + sum(segment.extent_count for segment in behind) > _MAX_EXTENTS:
        raise BadInput(f"an LV has at most {_MAX_EXTENTS} extents", next="give a smaller size")
    policy = next(
        one
        for one in (space.policy, own_policy, vg.header.string("allocation_policy") or "", "normal")
        if one not in ("", INHERIT)
    )
    return allocate(
        space.areas if space.areas is not None else free_areas(vg),
        extents,
        policy="cling" if policy == "cling_by_tags" else policy,
        stripes=space.stripes.count,
        behind=behind,
        approximate=space.approximate,
    )


def segments_of(
    rows: Sequence[Row], stripe_sectors: int, start: int = 0, last: Segment | None = None
) -> list[Segment]:
    """The segments that rows become.

    Args:
        start: the LV's extent at which they begin.
        last: the segment before, if it may grow; it comes first then, if it does."""
    segments: list[Segment] = []
    for row in rows:
        before = segments[-1] if segments else last
        one = Segment(
            start, sum(stripe.extent_count for stripe in row), "striped", row,
            stripe_sectors=stripe_sectors if len(row) > 1 else 0,
        )  # fmt: skip
        if before is not None and _goes_on(before, one):
            segments[-1:] = [_joined(before, one)]
        else:
            segments.append(one)
        start += one.extent_count
    return segments


def _goes_on(one: Segment, other: Segment) -> bool:
    return (
        one.kind in ("striped", "linear")
        and one.exact
        and len(one.stripes) == len(other.stripes)
        and one.stripe_sectors == other.stripe_sectors
        and all(
            (a.pv, a.start_extent + a.extent_count) == (b.pv, b.start_extent)
            for a, b in zip(one.stripes, other.stripes, strict=True)
        )
    )


def _joined(one: Segment, other: Segment) -> Segment:
    stripes = tuple(
        Stripe(a.pv, a.start_extent, a.extent_count + b.extent_count)
        for a, b in zip(one.stripes, other.stripes, strict=True)
    )
    return msgspec.structs.replace(one, extent_count=one.extent_count + other.extent_count, stripes=stripes)


def segment_section(segment: Segment) -> Section:
    """A segment as text, keys in LVM2's order."""
    items: list[tuple[str, Value | Section]] = [
        ("start_extent", segment.start_extent),
        ("extent_count", segment.extent_count),
        ("type", "striped"),
        ("stripe_count", len(segment.stripes)),
    ]
    if len(segment.stripes) > 1:
        items.append(("stripe_size", segment.stripe_sectors))
    places = tuple(part for stripe in segment.stripes for part in (stripe.pv, stripe.start_extent))
    items.append(("stripes", places))
    return Section(tuple(items))
