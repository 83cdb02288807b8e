"""What LVs give up and is not wiped yet: an LV of its own, NAME_wiping, as a removed LV is (`unclean`).

So no extent is free, for whichever command allocates it, stock LVM2's too, while another tenant's data is on
it.  It is laid out one piece after the other, for nobody reads it."""

from collections.abc import Collection, Sequence

from ringfence.volumes.growth import added_rows
from ringfence.volumes.layout import segments_of
from ringfence.volumes.model import Lv, Stripe, Vg
from ringfence.volumes.plan import Maker, lv_section
from ringfence.volumes.unclean import mark_removed, wiping_name


def cut_off(before: Lv, after: Lv) -> tuple[Stripe, ...]:
    """What lies behind the new end of an LV that has shrunk."""
    return tuple(stripe for row in added_rows(after, before) for stripe in row)


def left_on(lv: Lv, pvs: Collection[str]) -> tuple[Stripe, ...]:
    """What an LV has of these PVs."""
    return tuple(stripe for segment in lv.segments for stripe in segment.stripes if stripe.pv in pvs)


def keep_to_wipe(vg: Vg, name: str, places: Sequence[Stripe], uuid: str, maker: Maker) -> Vg:
    """The VG with these extents, which are free in it, under the name of what is being wiped of this LV."""
    assert places
    order = {pv.name: number for number, pv in enumerate(vg.pvs)}
    rows = [(one,) for one in sorted(places, key=lambda one: (order[one.pv], one.start_extent))]
    new = wiping_name(vg, name)
    return mark_removed(vg.with_lv(new, lv_section(uuid, segments_of(rows, 0), maker)), new)
