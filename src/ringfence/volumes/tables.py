"""The device-mapper table of an LV: a line for each of its segments, linear or striped, in sectors.

Source: LVM2 lib/striped/striped.c (what it gives to libdevmapper); Linux
Documentation/admin-guide/device-mapper/{linear,striped}.rst."""

from collections.abc import Mapping

from ringfence.core.errors import NotFound, Refused
from ringfence.volumes.model import Lv, Segment, Stripe, Vg
from ringfence.wire.block import Area, Target

KINDS = ("striped", "linear")


def table_of(vg: Vg, lv: Lv, paths: Mapping[str, str]) -> tuple[Target, ...]:
    """
    Args:
        paths: where this host has each PV, by its name in the metadata.

    Raises:
        Refused: a segment of another kind, or one that lies on other LVs.
        NotFound: a PV that this host does not have.
    """
    return tuple(_target(vg, lv, segment, paths) for segment in lv.segments)


def _target(vg: Vg, lv: Lv, segment: Segment, paths: Mapping[str, str]) -> Target:
    extents = sum(stripe.extent_count for stripe in segment.stripes)
    if segment.kind not in KINDS or extents != segment.extent_count:
        raise Refused(
            f"{vg.name}/{lv.name} has a segment of type {segment.kind}: neither linear nor striped",
            next=f"use stock LVM2: lvchange -ay {vg.name}/{lv.name}",
        )
    return Target(
        segment.start_extent * vg.extent_sectors,
        segment.extent_count * vg.extent_sectors,
        tuple(_area(vg, lv, stripe, paths) for stripe in segment.stripes),
        segment.stripe_sectors,
    )


def _area(vg: Vg, lv: Lv, stripe: Stripe, paths: Mapping[str, str]) -> Area:
    pv = vg.pv(stripe.pv)
    assert pv is not None, "a stripe lies on a PV of its VG"
    path = paths.get(stripe.pv)
    if path is None:
        raise NotFound(
            f"Cannot activate {vg.name}/{lv.name}: PV {pv.uuid} (last seen as {pv.device}) is missing",
            next="make the device visible to this host: [devices] paths",
        )
    return Area(path, pv.start_sectors + stripe.start_extent * vg.extent_sectors)
