"""Account of a VG's LVs: who bears a uuid, which extents of the PVs are used, which LVs are made of others.

It is kept along when one LV changes; for 20,000 LVs that is some list copies instead of a second look at all
of them.  An index in which something does not hold says so (`fault`) and is never kept along: `changed` then
has no answer, nor has it one where the change would break something, and `of` looks at all LVs.  So each
index that `changed` gives is the one that `of` would.

Source of what must hold: LVM2 lib/metadata/merge.c (check_lv_segments), pv_manip.c (check_pv_segments),
metadata.c (vg_validate)."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from itertools import pairwise

import msgspec

from ringfence.volumes.parts import Lv, Pv
from ringfence.volumes.segments import Stripe

_Use = tuple[int, int, str]
"""(first extent, the one behind the last, LV)."""


class PvUse(msgspec.Struct, frozen=True, gc=False):
    """Which extents of a PV are used."""

    exact: list[_Use] = []
    """Sorted.  Never changed once it is in an index."""
    guessed: list[_Use] = []
    """Likewise, of segments whose type is not known: they may be too much, and overlap."""
    free: list[tuple[int, int]] = []
    """(first, the one behind the last) of each free range, sorted."""

    @property
    def taken(self) -> bool:
        return bool(self.exact or self.guessed)


class Index(msgspec.Struct, frozen=True):
    uuids: Mapping[str, str]
    """LV's uuid -> its name."""
    uses: Mapping[str, PvUse]
    """By PV name: every PV of the VG."""
    composed: Mapping[str, tuple[str, ...]]
    """LV -> the words in its segments that may name LVs it is made of; only LVs that have any, in their
    order."""
    fault: str = ""
    """What does not hold, if anything: the first of it."""

    @staticmethod
    def of(pvs: Iterable[Pv], lvs: Iterable[Lv]) -> "Index":
        """By looking at all LVs."""
        sizes = {pv.name: pv.extent_count for pv in pvs}
        exact: dict[str, list[_Use]] = {name: [] for name in sizes}
        guessed: dict[str, list[_Use]] = {name: [] for name in sizes}
        uuids: dict[str, str] = {}
        composed: dict[str, tuple[str, ...]] = {}
        faults = []
        for lv in lvs:
            if lv.uuid in uuids:
                faults.append((0, f"LV uuid {lv.uuid} is there twice"))
            uuids[lv.uuid] = lv.name
            fault = _fault_of(lv, sizes)
            if fault:
                faults.append((1, fault))
            words = _words_of(lv)
            if words:
                composed[lv.name] = words
            for segment in lv.segments:
                for stripe in segment.stripes:
                    (exact if segment.exact else guessed)[stripe.pv].append(_use(lv, stripe))
        for name in sizes:
            exact[name].sort()
            guessed[name].sort()
        faults += [(2, overlap) for name in sizes if (overlap := _overlap(name, exact[name]))]
        uses = {
            name: PvUse(exact[name], guessed[name], _free(exact[name], guessed[name], size))
            for name, size in sizes.items()
        }
        return Index(uuids, uses, composed, min(faults, key=lambda fault: fault[0])[1] if faults else "")

    def changed(self, pvs: Iterable[Pv], old: Lv | None, new: Lv | None) -> "Index | None":
        """With `new` in place of `old`.  None: `of` must look."""
        sizes = {pv.name: pv.extent_count for pv in pvs}
        if self.fault or (new is not None and _fault_of(new, sizes)):
            return None
        uuids = dict(self.uuids)
        if old is not None:
            del uuids[old.uuid]
        if new is not None:
            if new.uuid in uuids:
                return None
            uuids[new.uuid] = new.name
        uses, composed = self._uses(sizes, old, new), self._composed(old, new)
        return Index(uuids, uses, composed) if uses is not None and composed is not None else None

    def _composed(self, old: Lv | None, new: Lv | None) -> Mapping[str, tuple[str, ...]] | None:
        """None: its place among the others is to be found."""
        words = _words_of(new) if new is not None else ()
        was = old is not None and old.name in self.composed
        if not was and not words:
            return self.composed
        composed = dict(self.composed)
        if old is not None and was and not words:
            del composed[old.name]
        elif new is not None and (old is None or (was and old.name == new.name)):
            composed[new.name] = words
        else:
            return None
        return composed

    def with_pvs(self, before: Iterable[Pv], after: Iterable[Pv]) -> "Index | None":
        """With other PVs, of which the LVs use what they used before.  None: `of` must look."""
        sizes = {pv.name: pv.extent_count for pv in before}
        uses: dict[str, PvUse] = {}
        for pv in after:
            use, size = self.uses.get(pv.name, PvUse()), pv.extent_count
            if self.fault or (use.exact and use.exact[-1][1] > size):
                return None
            if sizes.get(pv.name) != size:
                use = PvUse(use.exact, use.guessed, _free(use.exact, use.guessed, size))
            uses[pv.name] = use
        return Index(self.uuids, uses, self.composed)

    @property
    def words(self) -> frozenset[str]:
        """All that is, or may be, an LV's name in some segment."""
        return frozenset(word for words in self.composed.values() for word in words)

    def _uses(self, sizes: Mapping[str, int], old: Lv | None, new: Lv | None) -> Mapping[str, PvUse] | None:
        """None: extents are used twice, or may be."""
        touched: dict[str, PvUse] = {}
        for lv in (old, new):
            for segment in lv.segments if lv is not None else ():
                for stripe in segment.stripes:
                    use = self.uses[stripe.pv]
                    if not segment.exact or use.guessed:
                        return None
                    if stripe.pv not in touched:
                        touched[stripe.pv] = PvUse([*use.exact], [], [*use.free])
        for lv, change in ((old, _take_back), (new, _take)):
            for segment in lv.segments if lv is not None else ():
                for stripe in segment.stripes:
                    assert lv is not None
                    if not change(touched[stripe.pv], _use(lv, stripe)):
                        return None
        return {**self.uses, **touched} if touched else self.uses

    def free_ranges(self, pv: str) -> tuple[Stripe, ...]:
        """A PV's free extents, lowest first."""
        return tuple(Stripe(pv, start, end - start) for start, end in self.uses[pv].free)

    def free_extents(self, pv: str) -> int:
        return sum(end - start for start, end in self.uses[pv].free)


def _use(lv: Lv, stripe: Stripe) -> _Use:
    return stripe.start_extent, stripe.start_extent + stripe.extent_count, lv.name


def _words_of(lv: Lv) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for segment in lv.segments for word in segment.words))


def _fault_of(lv: Lv, sizes: Mapping[str, int]) -> str:
    position = 0
    for segment in lv.segments:
        if segment.start_extent != position or segment.extent_count == 0:
            return f"the segments of LV {lv.name} do not follow each other"
        position += segment.extent_count
        for stripe in segment.stripes if segment.exact else ():
            if stripe.start_extent + stripe.extent_count > sizes[stripe.pv]:
                return f"LV {lv.name} runs over the end of PV {stripe.pv}"
    return ""


def _overlap(pv: str, uses: list[_Use]) -> str:
    for (_, end, first), (start, _, second) in pairwise(uses):
        if start < end:
            return f"LVs {first} and {second} share extent {start} of PV {pv}"
    return ""


def _free(exact: list[_Use], guessed: list[_Use], size: int) -> list[tuple[int, int]]:
    free, position = [], 0
    for start, end, _ in sorted([*exact, *guessed]) if guessed else exact:
        if start > position and position < size:
            free.append((position, min(start, size)))
        position = max(position, end)
    if position < size:
        free.append((position, size))
    return free


# -- one extent range more or less; False: that is not so easy ------------------------


def _take(pv: PvUse, use: _Use) -> bool:
    start, end, _ = use
    if start == end:
        return False
    at = bisect_left(pv.free, (start + 1,)) - 1
    if at < 0 or pv.free[at][1] < end:
        return False
    first, last = pv.free[at]
    pv.free[at : at + 1] = [one for one in ((first, start), (end, last)) if one[0] < one[1]]
    insort(pv.exact, use)
    return True


def _take_back(pv: PvUse, use: _Use) -> bool:
    start, end, _ = use
    at = bisect_left(pv.exact, use)
    if start == end or at >= len(pv.exact) or pv.exact[at] != use:
        return False
    del pv.exact[at]
    at = bisect_left(pv.free, (start,))
    low = at - 1 if at > 0 and pv.free[at - 1][1] == start else at
    high = at + 1 if at < len(pv.free) and pv.free[at][0] == end else at
    first = pv.free[low][0] if low < at else start
    last = pv.free[at][1] if high > at else end
    pv.free[low:high] = [(first, last)]
    return True
