"""What an LV is to grow by, kept apart until it is zeroed: as an LV of its own, NAME_growing.

It bears the tag `ringfence.zeroing` like any new LV that is not clean yet (`unclean`); then its segments go
behind those of the LV that grows, in one commit.  What a crash leaves of it is an LV that nobody needs."""

from ringfence.volumes.layout import segments_of
from ringfence.volumes.model import Lv, Stripe, Vg
from ringfence.volumes.plan import Maker, check_plain, find_lv, lv_section
from ringfence.volumes.policies import Row
from ringfence.volumes.resize import append_rows
from ringfence.volumes.unclean import Piece, mark_zeroing, name_beside, piece_of

GROWING_SUFFIX = "_growing"


def added_rows(old: Lv, new: Lv) -> tuple[Row, ...]:
    """What lies behind the old end of an LV that has grown."""
    rows, end = [], old.extent_count
    for segment in new.segments:
        kept = max(0, end - segment.start_extent) // len(segment.stripes)
        row = tuple(
            Stripe(stripe.pv, stripe.start_extent + kept, stripe.extent_count - kept)
            for stripe in segment.stripes
            if stripe.extent_count > kept
        )
        if row:
            rows.append(row)
    return tuple(rows)


def added_pieces(vg: Vg, old: Lv, new: Lv) -> tuple[Piece, ...]:
    """The same, in bytes of PVs.  Args: vg: in which the LV has grown."""
    return tuple(piece_of(vg, stripe) for row in added_rows(old, new) for stripe in row)


def set_apart(vg: Vg, planned: Vg, name: str, uuid: str, maker: Maker) -> tuple[Vg, str]:
    """The VG with what the LV is to grow by as an LV of its own, not zeroed yet; and that one's name.

    Args:
        vg: as it is.
        planned: with the LV grown."""
    new = find_lv(planned, name)
    rows = added_rows(find_lv(vg, name), new)
    apart = name_beside(vg, name, GROWING_SUFFIX)
    segments = segments_of(rows, new.segments[-1].stripe_sectors)
    return mark_zeroing(vg.with_lv(apart, lv_section(uuid, segments, maker)), apart), apart


def take_up(vg: Vg, name: str, apart: str) -> Vg:
    """The VG with one LV's extents behind those of the other, and that one gone.

    Raises NotFound, Refused."""
    more = find_lv(vg, apart)
    check_plain(vg, more)
    check_plain(vg, find_lv(vg, name))
    rows = tuple(segment.stripes for segment in more.segments)
    return append_rows(vg.without_lv(apart), name, rows, more.segments[-1].stripe_sectors)
