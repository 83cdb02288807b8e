"""LVs on their way to other extents (`pvmove`): how the metadata say so, and what each step makes of them.

The extents that an LV is to have are set apart in an LV of its own, NAME_moving, with the tag
`ringfence.moving.UUID` of the one that moves.  Each of its segments says by a tag what it is:

    ringfence.from.PV.N     the place to which the extents from N on of that PV (a uuid) are to go
    ringfence.left          extents that the LV had, and that its path may still use

A step is one version of the metadata: a run of extents changes owners, and what the LV had is NAME_moving's
from then on, until it is known that nothing uses it any more.  So no extent is ever without an owner, any
host can go on, after any crash, and stock LVM2 carries the tags along unread.  Where the LV has lost extents
meanwhile (lvreduce, lvremove, a conversion), nothing is left to be moved there.

Source of a segment's layout: LVM2 lib/format_text/export.c (_print_segment)."""

from collections.abc import Iterable, Sequence

import msgspec

from ringfence.core.errors import Refused
from ringfence.lvm2.text import Section, Value
from ringfence.volumes.access import DLM
from ringfence.volumes.layout import segment_section
from ringfence.volumes.model import Lv, Segment, Stripe, Vg
from ringfence.volumes.parts import MOVING_TAG
from ringfence.volumes.plan import Maker
from ringfence.volumes.resize import MERGED, with_segments
from ringfence.volumes.unclean import SKIP_FLAG, by_uuid, name_beside

FROM_TAG = "ringfence.from."
LEFT_TAG = "ringfence.left"
MOVING_SUFFIX = "_moving"


class Move(msgspec.Struct, frozen=True):
    """A run of extents, and the place to which it goes; as long as it."""

    source: Stripe
    target: Stripe

    def first(self, extents: int) -> "Move":
        return Move(_cut(self.source, 0, extents), _cut(self.target, 0, extents))

    def behind(self, extents: int) -> "Move":
        """Without so many of its first extents."""
        rest = self.source.extent_count - extents
        return Move(_cut(self.source, extents, rest), _cut(self.target, extents, rest))


def _cut(stripe: Stripe, skip: int, count: int) -> Stripe:
    return Stripe(stripe.pv, stripe.start_extent + skip, count)


class Kept(msgspec.Struct, frozen=True):
    """What NAME_moving is made of."""

    moves: tuple[Move, ...]
    left: tuple[Stripe, ...]


class Place(msgspec.Struct, frozen=True):
    """Where in its LV a run of extents is: on one stripe of one segment."""

    segment: Segment
    number: int
    """Of the stripe."""
    skip: int
    """Extents of that stripe before the run."""
    count: int

    @property
    def start_extent(self) -> int:
        """Of the rows of stripes that the run is part of, in the LV."""
        return self.segment.start_extent + self.skip * len(self.segment.stripes)

    @property
    def extent_count(self) -> int:
        return self.count * len(self.segment.stripes)


def keepers(vg: Vg) -> tuple[Lv, ...]:
    """The LVs that keep extents for others."""
    return tuple(lv for lv in vg.lvs if lv.tags and lv.keeps_for)


def kept(vg: Vg, keeper: Lv) -> Kept:
    """Extents of a segment that says nothing of what it is count as left: nobody copies to them."""
    pvs = {pv.uuid: pv.name for pv in vg.pvs}
    moves, left = [], []
    for (_, body), segment in zip(vg.section_of(keeper.name).sections(), keeper.segments, strict=True):
        source = _source_of(body, pvs)
        for stripe in segment.stripes:
            if source is not None and len(segment.stripes) == 1:
                moves.append(Move(Stripe(*source, stripe.extent_count), stripe))
            else:
                left.append(stripe)
    return Kept(tuple(moves), tuple(left))


def _source_of(body: Section, pvs: dict[str, str]) -> tuple[str, int] | None:
    for tag in body.strings("tags"):
        if tag.startswith(FROM_TAG):
            pv, _, first = tag.removeprefix(FROM_TAG).rpartition(".")
            if pv in pvs and first.isascii() and first.isdigit() and len(first) < 12:
                return pvs[pv], int(first)
    return None


def check_stock(vg: Vg) -> None:
    """Raises Refused while a pvmove of stock LVM2's is under way in the VG."""
    theirs = next((lv for lv in vg.lvs if "PVMOVE" in lv.status), None)
    if theirs is not None:
        raise Refused(
            f"VG {vg.name}: a pvmove of stock LVM2 is under way (LV {theirs.name})",
            next="end it with stock LVM2: lvm pvmove, or lvm pvmove --abort",
        )


# -- where things are ----------------------------------------------------------------


def places_of(lv: Lv, run: Stripe) -> tuple[Place, ...]:
    """Where in an LV the extents of a run are, as far as it has them; in the order of the run.  What is being
    zeroed or wiped is not moved."""
    found = []
    for segment in lv.segments if lv.plain and not lv.unclean else ():
        for number, stripe in enumerate(segment.stripes):
            first = max(stripe.start_extent, run.start_extent)
            last = min(_end(stripe), _end(run))
            if stripe.pv == run.pv and first < last:
                at = first - stripe.start_extent
                found.append((first, Place(segment, number, at, last - first)))
    return tuple(place for _, place in sorted(found, key=lambda one: one[0]))


def _end(stripe: Stripe) -> int:
    return stripe.start_extent + stripe.extent_count


def next_move(vg: Vg, keeper: Lv, most: int) -> Move | None:
    """What is to be moved next, at most so many extents, all in one place; None: nothing (any more)."""
    lv = by_uuid(vg, keeper.keeps_for)
    for move in kept(vg, keeper).moves if lv is not None else ():
        assert lv is not None
        for place in places_of(lv, move.source)[:1]:
            skip = place.segment.stripes[place.number].start_extent + place.skip - move.source.start_extent
            return move.behind(skip).first(min(place.count, most))
    return None


def left_to_move(vg: Vg, keeper: Lv) -> int:
    """How many extents are still to be moved."""
    lv = by_uuid(vg, keeper.keeps_for)
    moves = kept(vg, keeper).moves if lv is not None else ()
    return sum(place.count for move in moves if lv is not None for place in places_of(lv, move.source))


def moved_segment(lv: Lv, move: Move) -> tuple[int, Segment]:
    """What a move makes of the rows that it is part of: the extent of the LV at which they begin, and their
    segment, as if it were alone.  Args: move: as `next_move` gives it."""
    (place,) = places_of(lv, move.source)
    row = [_cut(stripe, place.skip, place.count) for stripe in place.segment.stripes]
    row[place.number] = move.target
    segment = Segment(
        0, place.extent_count, "striped", tuple(row), stripe_sectors=place.segment.stripe_sectors
    )
    return place.start_extent, segment


# -- changes of the metadata; the seqno is not touched -------------------------------------


def set_apart(vg: Vg, lv: Lv, keeper: Lv | None, moves: Sequence[Move], uuid: str, maker: Maker) -> Vg:
    """The VG with extents kept for an LV, beside what is kept for it already.

    Args:
        keeper: who keeps that; None: there is nothing.
        uuid: of NAME_moving, if it is to be made."""
    if keeper is not None:
        have = kept(vg, keeper)
        return _with_kept(vg, keeper.name, Kept((*have.moves, *moves), have.left))
    name = name_beside(vg, lv.name, MOVING_SUFFIX)
    section = Section((
        ("id", uuid),
        ("status", ("READ", "VISIBLE")),
        ("flags", ("WRITE_LOCKED", SKIP_FLAG)),
        ("tags", (f"{MOVING_TAG}{lv.uuid}",)),
        ("creation_time", maker.now_s),
        ("creation_host", maker.host),
        ("lock_args", DLM),
    ))  # fmt: skip
    return _filled(vg, name, section, Kept(tuple(moves), ()))


def moved(vg: Vg, keeper: Lv, move: Move, *, in_use: bool) -> Vg:
    """The VG with a run of extents where it is to go.

    Args:
        move: as `next_move` gives it.
        in_use: a path may still use what the LV had: it is kept; else it is free."""
    lv = by_uuid(vg, keeper.keeps_for)
    assert lv is not None
    have = kept(vg, keeper)
    rest = [part for one in have.moves for part in _without(one, move)]
    section = vg.section_of(keeper.name)
    bare = _filled(vg, keeper.name, section, Kept(tuple(rest), have.left))
    bare = _replaced(bare, lv, move)
    if not in_use:
        return bare
    return _filled(bare, keeper.name, section, Kept(tuple(rest), (*have.left, move.source)))


def _without(one: Move, done: Move) -> list[Move]:
    if one.target.pv != done.target.pv or not (
        one.target.start_extent <= done.target.start_extent < _end(one.target)
    ):
        return [one]
    skip = done.target.start_extent - one.target.start_extent
    behind = skip + done.target.extent_count
    parts = [one.first(skip)] if skip else []
    return [*parts, one.behind(behind)] if behind < one.target.extent_count else parts


def let_go(vg: Vg, keeper: Lv) -> Vg:
    """The VG without what the LV had: nothing uses it any more."""
    return _with_kept(vg, keeper.name, Kept(kept(vg, keeper).moves, ()))


def given_up(vg: Vg, keeper: Lv) -> Vg:
    """The VG with nothing kept for the LV: it stays where it is."""
    return vg.without_lv(keeper.name)


def _with_kept(vg: Vg, name: str, have: Kept) -> Vg:
    return _filled(vg, name, vg.section_of(name), have)


def _filled(vg: Vg, name: str, section: Section, have: Kept) -> Vg:
    """With these segments; without the LV, if there are none."""
    uuids = {pv.name: pv.uuid for pv in vg.pvs}
    runs = [
        (move.target, f"{FROM_TAG}{uuids[move.source.pv]}.{move.source.start_extent}") for move in have.moves
    ]
    runs += [(stripe, LEFT_TAG) for stripe in _joined(have.left)]
    if not runs:
        return vg.without_lv(name) if vg.lv(name) is not None else vg
    items: list[tuple[str, Value | Section]] = [
        (key, node) for key, node in section.drop("segment_count").items if not isinstance(node, Section)
    ]
    items.append(("segment_count", len(runs)))
    at = 0
    for number, (stripe, tag) in enumerate(runs, 1):
        body = segment_section(Segment(at, stripe.extent_count, "striped", (stripe,)))
        items.append((f"segment{number}", _tagged(body, tag)))
        at += stripe.extent_count
    return vg.with_lv(name, Section(tuple(items)))


def _tagged(body: Section, tag: str) -> Section:
    """LVM2 writes tags right behind the type."""
    at = next(number for number, (key, _) in enumerate(body.items) if key == "type") + 1
    return Section((*body.items[:at], ("tags", (tag,)), *body.items[at:]))


def _joined(stripes: Iterable[Stripe]) -> list[Stripe]:
    runs: list[Stripe] = []
    for one in sorted(stripes, key=lambda one: (one.pv, one.start_extent)):
        if runs and runs[-1].pv == one.pv and _end(runs[-1]) == one.start_extent:
            runs[-1] = Stripe(one.pv, runs[-1].start_extent, runs[-1].extent_count + one.extent_count)
        else:
            runs.append(one)
    return runs


def _replaced(vg: Vg, lv: Lv, move: Move) -> Vg:
    """The VG with an LV's extents in their new place, which is free."""
    (place,) = places_of(lv, move.source)
    bodies: list[Section] = []
    for (_, body), segment in zip(vg.section_of(lv.name).sections(), lv.segments, strict=True):
        if segment is not place.segment:
            bodies.append(body)
            continue
        rows = segment.stripes[0].extent_count
        for first, last in (
            (0, place.skip),
            (place.skip, place.skip + place.count),
            (place.skip + place.count, rows),
        ):
            if first == last:
                continue
            row = [_cut(stripe, first, last - first) for stripe in segment.stripes]
            if first == place.skip:
                row[place.number] = move.target
            at = segment.start_extent + first * len(row)
            bodies.append(_with_row(body, at, row))
    return with_segments(vg, lv.name, _merged(bodies))


def _with_row(body: Section, at: int, row: Sequence[Stripe]) -> Section:
    body = body.put("start_extent", at).put("extent_count", sum(stripe.extent_count for stripe in row))
    return body.put("stripes", tuple(part for stripe in row for part in (stripe.pv, stripe.start_extent)))


def _merged(bodies: Sequence[Section]) -> list[Section]:
    """Segments that follow each other on all their PVs are one, unless one of them has tags."""
    merged: list[Section] = []
    for body in bodies:
        if merged and _goes_on(merged[-1], body):
            count = (merged[-1].number("extent_count") or 0) + (body.number("extent_count") or 0)
            merged[-1] = merged[-1].put("extent_count", count)
        else:
            merged.append(body)
    return merged


def _goes_on(one: Section, other: Section) -> bool:
    if any(key not in MERGED for body in (one, other) for key, _ in body.items):
        return False
    if any(one.get(key) != other.get(key) for key in ("type", "stripe_count", "stripe_size")):
        return False
    places, more = one.get("stripes"), other.get("stripes")
    assert isinstance(places, tuple)
    assert isinstance(more, tuple)
    each = (one.number("extent_count") or 0) // (len(places) // 2)
    behind = tuple(part + each if isinstance(part, int) else part for part in places)
    return behind == more
