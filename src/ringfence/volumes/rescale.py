"""A VG with another extent size: each LV and PV has what it has, in other units.

Every boundary of extents must fall on one of the new ones: nothing is rounded, nothing moves.  So whoever has
an LV open goes on, and PVs gain or lose no extent (pvresize gives them what became room).

Source: LVM2 lib/metadata/vg.c (vg_set_extent_size, _recalc_extents)."""

from ringfence.core.errors import BadInput, Refused
from ringfence.core.units import sized
from ringfence.lvm2.text import Section, Value
from ringfence.volumes.model import SECTOR_BYTES, SLOTS_TAG, Lv, Vg
from ringfence.volumes.parts import Pv

_OWN_TAG = "ringfence."
_SEGMENT_KEYS = ("start_extent", "extent_count", "type", "tags", "stripe_count", "stripe_size", "stripes")
"""Of a linear or striped one.  What another key counts is not known."""
_MOST_EXTENTS = 0xFFFFFFFF


class Rescale:
    """From one extent size of a VG to another."""

    def __init__(self, vg: Vg, extent_sectors: int) -> None:
        """Raises BadInput (it is so already), Refused (that is no fit for the VG as a whole)."""
        self._vg = vg
        self._old, self._new = vg.extent_sectors, extent_sectors
        if self._old == self._new:
            raise BadInput(f"Physical extent size of VG {vg.name} is already {sized(vg.extent_bytes)}.")
        for pv in vg.pvs:
            self._of_pv(pv)

    def frame(self) -> Section:
        """The file without its LVs."""
        header = self._vg.header
        members = header.section("physical_volumes") or Section()
        for pv in self._vg.pvs:
            section = members.section(pv.name)
            assert section is not None
            members = members.put(pv.name, section.put("pe_count", self._of_pv(pv)))
        header = header.put("extent_size", self._new).put("physical_volumes", members)
        return self._vg.frame.put(self._vg.name, header)

    def lv(self, lv: Lv) -> Section:
        """An LV's section.  Raises Refused: that is no fit for it, or it is left to stock LVM2."""
        where = f"{self._vg.name}/{lv.name}"
        self._check(lv, where)
        items: list[tuple[str, Value | Section]] = []
        for key, node in self._vg.section_of(lv.name).items:
            items.append((key, self._segment(node, where) if isinstance(node, Section) else node))
        return Section(tuple(items))

    def _check(self, lv: Lv, where: str) -> None:
        if not lv.plain:
            raise Refused(
                f"LV {where} is neither linear nor striped",
                next=f"stock LVM2: lvm vgchange -s {self._new * SECTOR_BYTES}b {self._vg.name}",
            )
        stripes = max(segment.stripe_sectors for segment in lv.segments)
        if stripes > self._new:
            raise Refused(
                f"LV {where} has stripes of {sized(stripes * SECTOR_BYTES)}, larger than such an extent",
                next="give an extent size that is not smaller than that",
            )

    def _segment(self, segment: Section, where: str) -> Section:
        strange = [key for key, _ in segment.items if key not in _SEGMENT_KEYS]
        tags = [tag for tag in segment.strings("tags") if tag.startswith(_OWN_TAG)]
        if strange or tags:
            raise Refused(f"LV {where} has a segment with {(*strange, *tags)[0]}, which may count extents")
        for key in ("start_extent", "extent_count"):
            segment = segment.put(key, self._count(segment.number(key) or 0, where))
        places = segment.get("stripes")
        assert isinstance(places, tuple)
        moved = tuple(self._count(one, where) if isinstance(one, int) else one for one in places)
        return segment.put("stripes", moved)

    def _of_pv(self, pv: Pv) -> int:
        return self._count(pv.extent_count, f"PV {pv.device}", f"pvresize it to a multiple of {self._size}")

    @property
    def _size(self) -> str:
        return sized(self._new * SECTOR_BYTES)

    def _count(self, extents: int, where: str, cure: str = "") -> int:
        count, rest = divmod(extents * self._old, self._new)
        if rest:
            raise Refused(
                f"New extent size {self._size} is not a perfect fit: {where} has a boundary at "
                f"{extents} extents of {sized(self._vg.extent_bytes)}",
                next=cure or "give a smaller one",
            )
        if count > _MOST_EXTENTS:
            raise Refused(f"{where} would have {count} extents, more than can be", next="give a larger size")
        return count


def check_at_rest(vg: Vg) -> None:
    """Raises Refused while the metadata count extents in tags: of what is zeroed, wiped or moved."""
    for lv in vg.lvs:
        if any(tag.startswith(_OWN_TAG) and tag != SLOTS_TAG for tag in lv.tags):
            raise Refused(
                f"LV {vg.name}/{lv.name} is being zeroed, wiped or moved",
                next=f"wait for it (see: lvs -a {vg.name})", retry=True,
            )  # fmt: skip
