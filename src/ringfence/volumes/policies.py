"""Which free extents an LV gets: LVM2's allocation policies, so that both choose the same ones.

Policies are tried from the strictest one to the one that was asked for, each for what the ones before it
left over:

    contiguous   directly behind the LV's last segment; for a new LV, one free area for each stripe
    cling        on the PVs that the LV, or what was just found for it, is on
    normal       anywhere, but each stripe of a segment on a PV of its own
    anywhere     stripes may share a PV, too

On each PV the smallest free area that is large enough is taken, or else the largest; of several PVs the one
that has most to give, the first of equals.  Same VG, same answer.  Not served: cling by tags, which LVM2 does
only where lvm.conf lists tags for it.

Source: LVM2 lib/metadata/lv_manip.c (_allocate and what it calls) and pv_map.c, as they are with
allocation/maximise_cling = 1."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from ringfence.core.errors import BadInput, Refused
from ringfence.volumes.model import Segment, Stripe

POLICIES = ("contiguous", "cling", "normal", "anywhere")
"""From the strictest on."""
INHERIT = "inherit"
"""An LV's policy where it has none: the VG's."""
Row = tuple[Stripe, ...]
"""A segment's places: as many extents on each."""


def policy_named(name: str) -> str:
    """A policy as it is typed and as it stands in metadata.  Raises BadInput."""
    if name == "cling_by_tags":
        return "cling"
    if name not in (*POLICIES, INHERIT):
        raise BadInput(
            f"allocation policy {name!r} is not known", next=f"give one of {', '.join(POLICIES)}, {INHERIT}"
        )
    return name


def what_helps(free: int, sign: str = "") -> str:
    """What to do next where only so many extents are free.

    Args:
        sign: "+" where `-l` says by how much."""
    if free:
        return f"give a smaller size, or -l {sign}100%FREE for all that is left"
    return "make room: vgextend, or lvremove what is not needed"


def allocate(
    areas: Sequence[Stripe],
    extents: int,
    *,
    policy: str = "normal",
    stripes: int = 1,
    behind: Sequence[Segment] = (),
    approximate: bool = False,
) -> tuple[Row, ...]:
    """Choose extents; what is to be used comes in order, a row for each segment.

    Args:
        areas: the free areas that may be used; of each PV its lowest first, PVs in the order of preference.
        extents: how many in all, a multiple of `stripes`.
        behind: the segments of the LV that is extended.
        approximate: fewer will do, if there are no more.

    Raises Refused: too few, or none that the policy allows."""
    assert extents > 0
    assert extents % stripes == 0
    search = _Search(areas, stripes, behind)
    split = policy != "contiguous"
    for name in POLICIES[: POLICIES.index(policy) + 1]:
        free, lacking = search.free, extents - search.found
        if lacking > free and not approximate:
            raise Refused(
                f"Insufficient free space: {lacking} extents needed, but only {free} available",
                next=what_helps(free),
            )
        had = search.found
        search.run(name, extents, split=split, approximate=approximate)
        if search.found == extents or (not split and search.found != had):
            break
    if search.found != extents and not (approximate and search.found):
        kind = "" if split else "contiguous "
        raise Refused(
            f"Insufficient suitable {kind}allocatable extents: {extents - search.found} more required",
            next="give fewer stripes or another --alloc policy, or let more PVs be used",
        )
    return tuple(search.rows)


class _Area:
    """Free extents of a PV, some of which may be spoken for in the round that goes on."""

    __slots__ = ("count", "pv", "start", "unreserved")

    def __init__(self, pv: str, start: int, count: int) -> None:
        self.pv, self.start, self.count, self.unreserved = pv, start, count, count


class _Pv:
    """A PV's free areas, the largest first.

    Of tens of thousands none is looked at in vain: beside the list stands, in its order, what is sought."""

    def __init__(self) -> None:
        self.areas: list[_Area] = []
        self._least: list[int] = []
        """Minus the smallest count up to there: what is reserved in part stands where its rest belongs, and
        the counts themselves do not always fall."""
        self._open = bytearray()
        """1: not all of it is reserved."""
        self._reserved = bytearray()
        """1: some of it is."""
        self._at = 0
        """Of the area at which a walk stands."""

    def insert(self, area: _Area) -> None:
        """Before the first one that is smaller."""
        at = bisect_right(self._least, -area.unreserved)
        self.areas.insert(at, area)
        self._least.insert(at, max(-area.count, self._least[at - 1]) if at else -area.count)
        self._open.insert(at, area.unreserved > 0)
        self._reserved.insert(at, area.unreserved != area.count)

    def remove(self, area: _Area) -> None:
        at = self._index(area)
        for column in (self.areas, self._least, self._open, self._reserved):
            del column[at]
        before = self._least[at - 1] if at else None
        while at < len(self.areas):
            least = -self.areas[at].count if before is None else max(-self.areas[at].count, before)
            if least == self._least[at]:
                break
            self._least[at] = before = least
            at += 1

    def _index(self, area: _Area) -> int:
        if self._at < len(self.areas) and self.areas[self._at] is area:
            return self._at
        return self.areas.index(area, bisect_left(self._least, -area.count))

    def reserve(self, area: _Area, unreserved: int) -> None:
        if unreserved:
            self.remove(area)
            area.unreserved = unreserved
            self.insert(area)
        else:
            area.unreserved = 0
            at = self._index(area)
            self._open[at], self._reserved[at] = 0, 1

    def consume(self, area: _Area, count: int) -> None:
        self.remove(area)
        area.start, area.count = area.start + count, area.count - count
        area.unreserved = area.count
        if area.count:
            self.insert(area)

    def walk_open(self) -> Iterator[_Area]:
        """Each area of which something is not reserved."""
        return self._walk(self._open)

    def walk_reserved(self) -> Iterator[_Area]:
        """Each area of which something is reserved."""
        return self._walk(self._reserved)

    def _walk(self, marks: bytearray) -> Iterator[_Area]:
        """One that is moved meanwhile is gone on from where it is then."""
        at = marks.find(1)
        while at >= 0:
            area, self._at = self.areas[at], at
            yield area
            at = marks.find(1, self._index(area) + 1)


class _Taken(msgspec.Struct, frozen=True):
    area: _Area
    count: int


class _Terms(msgspec.Struct):
    """What one policy asks of an area."""

    policy: str
    behind: bool
    """It begins where the LV's last segment ends."""
    cling: bool
    """It is on a PV of the LV."""
    cling_to_found: bool
    """It is on a PV of what was found."""
    each_in_place: bool
    """Each stripe goes on where the same stripe of the segment before is."""

    @property
    def picky(self) -> bool:
        return self.behind or self.cling or self.cling_to_found


class _Search:
    def __init__(self, areas: Sequence[Stripe], stripes: int, behind: Sequence[Segment]) -> None:
        self._pvs: dict[str, _Pv] = {}
        for one in areas:
            self._pvs.setdefault(one.pv, _Pv()).insert(_Area(one.pv, one.start_extent, one.extent_count))
        self._stripes = stripes
        self._first = behind[0].stripes if behind else ()
        self._last = behind[-1].stripes if behind else ()
        self._matches = len(self._last) == stripes
        self._slots: dict[int, _Taken] = {}
        self._found_on: dict[str, bool] = {}
        self._found_by_stripe: dict[tuple[int, str], bool] = {}
        self.rows: list[Row] = []
        self.found = 0
        self.free = sum(one.extent_count for one in areas)

    def run(self, policy: str, extents: int, *, split: bool, approximate: bool) -> None:
        """Find what one policy allows."""
        terms = self._terms(policy, extents)
        while True:
            found = self._round(terms, extents - self.found, split)
            if found:
                terms.cling_to_found |= policy == "normal"  # further extents stay on the same disks
            elif policy == "cling" and terms.cling and terms.each_in_place:
                terms.each_in_place = False
            elif policy == "normal" and terms.cling_to_found:
                terms.cling_to_found = False
            else:
                return
            more = self.found != extents and split and policy != "contiguous"
            if not more or (approximate and not self.free):
                return

    def _terms(self, policy: str, extents: int) -> _Terms:
        strict = policy in ("contiguous", "cling")
        if self._matches:
            return _Terms(
                policy,
                behind=policy == "contiguous",
                cling=policy == "cling",
                cling_to_found=policy == "normal" and self.found != extents,
                each_in_place=strict,
            )
        cling = policy == "cling"
        return _Terms(policy, False, False, cling or policy == "normal", each_in_place=cling)

    def _round(self, terms: _Terms, wanted: int, split: bool) -> int:
        """Find places for all stripes of one more segment.  Returns how many extents it has."""
        self._slots = {}
        for pv in self._pvs.values():
            for area in pv.walk_reserved():
                pv.reserve(area, area.count)
        placed = spread = 0
        while True:
            before = spread
            for pv in self._pvs.values():
                if terms.each_in_place:
                    placed += self._place(terms, pv)
                else:
                    spread = self._spread(terms, pv, wanted, spread, split)
                if placed == self._stripes or (terms.policy == "anywhere" and spread >= self._stripes):
                    break
            if terms.policy != "anywhere" or spread == before or spread >= self._stripes:
                break
        if placed + spread < self._stripes:
            return 0
        slots = [self._slots[number] for number in range(placed + spread)]
        if spread:
            slots.sort(key=lambda one: -one.count)
        return self._take(slots[: self._stripes], wanted)

    def _take(self, slots: list[_Taken], wanted: int) -> int:
        each = min(wanted // self._stripes, *(one.count for one in slots))
        if each == 0:
            return 0
        row = []
        for number, one in enumerate(slots):
            row.append(Stripe(one.area.pv, one.area.start, each))
            self._pvs[one.area.pv].consume(one.area, each)
            self._found_on[one.area.pv] = self._found_by_stripe[number, one.area.pv] = True
        self.rows.append(tuple(row))
        self.found += each * self._stripes
        self.free -= each * self._stripes
        return each * self._stripes

    def _place(self, terms: _Terms, pv: _Pv) -> bool:
        """Find the stripe, if any, that may go on on this PV."""
        for area in pv.areas:
            stripe = self._place_of(terms, area)
            if stripe is not None:
                self._slots[stripe] = _Taken(area, area.count)
                return True
            if not terms.behind:
                break  # all areas of a PV are alike
        return False

    def _place_of(self, terms: _Terms, area: _Area) -> int | None:
        if terms.behind or self._matches:
            for number, stripe in enumerate(self._last):
                if number not in self._slots and _follows(stripe, area):
                    return number
        if terms.behind:
            return None
        if terms.cling:
            for number, stripe in enumerate(self._first[: self._stripes]):
                if number not in self._slots and stripe.pv == area.pv:
                    return number
        if terms.cling_to_found:
            for number in range(self._stripes):
                if number not in self._slots and (number, area.pv) in self._found_by_stripe:
                    return number
        return None

    def _spread(self, terms: _Terms, pv: _Pv, wanted: int, spread: int, split: bool) -> int:
        """Reserve what this PV has to give; returns how many slots are filled now."""
        anywhere = terms.policy == "anywhere"
        found = False
        for area in pv.walk_open():
            if terms.picky:
                if not self._clings(terms, area):
                    break
            elif area.unreserved * self._stripes < wanted and (not split or (found and not anywhere)):
                break
            if not found or anywhere:
                spread, found = spread + 1, True
            number = spread - 1
            each = 0 if anywhere and number >= self._stripes else wanted // self._stripes
            taken = min(each, area.unreserved)
            pv.reserve(area, area.unreserved - taken)
            self._slots[number] = _Taken(area, taken)
        return spread

    def _clings(self, terms: _Terms, area: _Area) -> bool:
        if self._matches and any(_follows(stripe, area) for stripe in self._last):
            return True
        if self._matches and any(stripe.pv == area.pv for stripe in self._first):
            return True
        return terms.cling_to_found and area.pv in self._found_on


def _follows(stripe: Stripe, area: _Area) -> bool:
    return stripe.pv == area.pv and stripe.start_extent + stripe.extent_count == area.start
