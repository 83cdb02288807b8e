"""A VG read from its metadata tree, and the tree kept beside it.

The tree is the truth; everything else here is a view of it.  `Vg.with_tree` is the only way to
change: edit the tree, read it again.  So nothing that this program does not know gets lost.

Which extents of PVs a segment uses is known for the types below; a type that is not known is
taken to use `extent_count` extents behind every (PV, number) pair it lists, which can only be too much.

Source: LVM2 lib/format_text/import_vsn1.c, export.c; lib/striped, lib/mirror, lib/raid (text_import)."""

from functools import lru_cache
from itertools import pairwise

import msgspec

from ringfence.core.errors import Damaged
from ringfence.lvm2.text import Section, parse_text

SECTOR_BYTES = 512
SLOTS_TAG = "ringfence.slots"
ZEROING_TAG = "ringfence.zeroing"
"""Of a new LV that still shows what was on its extents before."""
WIPING_TAG = "ringfence.wiping"
"""Of a removed LV whose extents are still to be wiped."""
CONTENTS = "Text Format Volume Group"

_AREA_LISTS = {"striped": "stripes", "linear": "stripes", "mirror": "mirrors"}


class Pv(msgspec.Struct, frozen=True, gc=False):
    name: str
    """Its name in the metadata: "pv0"."""
    uuid: str
    """With dashes, as everywhere in metadata."""
    device: str
    """Where it was when the metadata was written; a hint."""
    device_sectors: int
    start_sectors: int
    """Where extent 0 begins."""
    extent_count: int
    status: tuple[str, ...]
    flags: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def allocatable(self) -> bool:
        return "ALLOCATABLE" in self.status

    @property
    def missing(self) -> bool:
        return "MISSING" in self.flags or "MISSING" in self.status


class Stripe(msgspec.Struct, frozen=True, gc=False):
    """Extents of one PV that a segment uses."""

    pv: str
    start_extent: int
    extent_count: int


class Segment(msgspec.Struct, frozen=True, gc=False):
    start_extent: int
    extent_count: int
    kind: str
    stripes: tuple[Stripe, ...]
    exact: bool
    """False: the type is not known, and `stripes` may be too much."""
    words: tuple[str, ...]
    """Strings in the segment that may name another LV that it is made of."""


class Lv(msgspec.Struct, frozen=True, gc=False):
    name: str
    uuid: str
    status: tuple[str, ...]
    flags: tuple[str, ...]
    tags: tuple[str, ...]
    lock_args: str
    creation_time_s: int
    creation_host: str
    segments: tuple[Segment, ...]
    policy: str = ""
    """Its own allocation policy; empty: it has none."""

    @property
    def extent_count(self) -> int:
        return sum(segment.extent_count for segment in self.segments)

    @property
    def visible(self) -> bool:
        return "VISIBLE" in self.status

    @property
    def writable(self) -> bool:
        return "WRITE" in self.status or "WRITE_LOCKED" in self.flags

    @property
    def slots(self) -> bool:
        """Holds the VG's disk slots (`volumes.slots`), and must be left alone."""
        return SLOTS_TAG in self.tags

    @property
    def zeroing(self) -> bool:
        """It may not be opened yet: others' data may stand in it (`volumes.unclean`)."""
        return ZEROING_TAG in self.tags

    @property
    def wiping(self) -> bool:
        """It is removed, and keeps its extents only until they are wiped (`volumes.unclean`)."""
        return WIPING_TAG in self.tags

    @property
    def unclean(self) -> bool:
        """It is being zeroed or wiped, and nobody may open it."""
        return self.zeroing or self.wiping

    @property
    def linear(self) -> bool:
        """Made of plain pieces of PVs, one behind the other."""
        return all(
            segment.kind in ("striped", "linear") and len(segment.stripes) == 1 for segment in self.segments
        )


class Vg(msgspec.Struct, frozen=True, gc=False):
    tree: Section
    """The whole file: the VG's section and what stands behind it."""
    name: str
    uuid: str
    seqno: int
    extent_sectors: int
    status: tuple[str, ...]
    flags: tuple[str, ...]
    tags: tuple[str, ...]
    lock_type: str
    lock_args: str
    system_id: str
    pvs: tuple[Pv, ...]
    lvs: tuple[Lv, ...]

    @property
    def body(self) -> Section:
        section = self.tree.section(self.name)
        assert section is not None
        return section

    def with_body(self, body: Section) -> "Vg":
        """The VG with its section replaced."""
        return read_vg(self.tree.put(self.name, body), self.name)

    def with_tree(self, tree: Section) -> "Vg":
        return read_vg(tree, self.name)

    @property
    def extent_bytes(self) -> int:
        return self.extent_sectors * SECTOR_BYTES

    @property
    def extent_count(self) -> int:
        return sum(pv.extent_count for pv in self.pvs)

    @property
    def writable(self) -> bool:
        return "WRITE" in self.status or "WRITE_LOCKED" in self.flags

    def pv(self, name: str) -> Pv | None:
        return next((pv for pv in self.pvs if pv.name == name), None)

    def lv(self, name: str) -> Lv | None:
        return next((lv for lv in self.lvs if lv.name == name), None)


class _Reader:
    """Reads keys that must be there; says which is not."""

    def __init__(self, section: Section, where: str) -> None:
        self._section = section
        self._where = where

    def number(self, key: str) -> int:
        value = self._section.number(key)
        if value is None or value < 0:
            raise Damaged(f"{self._where}: {key} is missing or not a number")
        return value

    def string(self, key: str) -> str:
        value = self._section.string(key)
        if value is None:
            raise Damaged(f"{self._where}: {key} is missing or not a string")
        return value


@lru_cache(maxsize=2)
def read_text(text: bytes, where: str) -> Vg:
    """A VG from its text.  A command reads its VG more than once, mostly unchanged.

    Raises Damaged."""
    return read_vg(parse_text(text, where), where)


def read_vg(tree: Section, where: str) -> Vg:
    """Read a VG.  Raises Damaged if it lacks what every VG has; `checks` looks at the rest."""
    if tree.string("contents") != CONTENTS or tree.number("version") != 1:
        raise Damaged(f"{where}: the metadata text is not a volume group of version 1")
    sections = tree.sections()
    if len(sections) != 1:
        raise Damaged(f"{where}: the metadata text has {len(sections)} volume groups, not one")
    name, body = sections[0]
    reader = _Reader(body, f"VG {name}")
    pvs = tuple(_read_pv(key, pv, name) for key, pv in _members(body, "physical_volumes"))
    names = frozenset(pv.name for pv in pvs)
    lvs = tuple(_read_lv(key, lv, name, names) for key, lv in _members(body, "logical_volumes"))
    return Vg(
        tree=tree,
        name=name,
        uuid=reader.string("id"),
        seqno=reader.number("seqno"),
        extent_sectors=reader.number("extent_size"),
        status=body.strings("status"),
        flags=body.strings("flags"),
        tags=body.strings("tags"),
        lock_type=body.string("lock_type") or "",
        lock_args=body.string("lock_args") or "",
        system_id=body.string("system_id") or "",
        pvs=pvs,
        lvs=lvs,
    )


def _members(body: Section, key: str) -> tuple[tuple[str, Section], ...]:
    section = body.section(key)
    return section.sections() if section else ()


def _read_pv(name: str, section: Section, vg: str) -> Pv:
    reader = _Reader(section, f"VG {vg}: PV {name}")
    return Pv(
        name=name,
        uuid=reader.string("id"),
        device=section.string("device") or "",
        device_sectors=section.number("dev_size") or 0,
        start_sectors=reader.number("pe_start"),
        extent_count=reader.number("pe_count"),
        status=section.strings("status"),
        flags=section.strings("flags"),
        tags=section.strings("tags"),
    )


def _read_lv(name: str, section: Section, vg: str, pvs: frozenset[str]) -> Lv:
    reader = _Reader(section, f"VG {vg}: LV {name}")
    segments = section.sections()
    if len(segments) != reader.number("segment_count"):
        raise Damaged(f"VG {vg}: LV {name}: segment_count and the segments disagree")
    return Lv(
        name=name,
        uuid=reader.string("id"),
        status=section.strings("status"),
        flags=section.strings("flags"),
        tags=section.strings("tags"),
        lock_args=section.string("lock_args") or "",
        creation_time_s=section.number("creation_time") or 0,
        creation_host=section.string("creation_host") or "",
        segments=tuple(_read_segment(body, f"VG {vg}: LV {name}: {key}", pvs) for key, body in segments),
        policy=section.string("allocation_policy") or "",
    )


def _read_segment(section: Section, where: str, pvs: frozenset[str]) -> Segment:
    reader = _Reader(section, where)
    start, count, kind = reader.number("start_extent"), reader.number("extent_count"), reader.string("type")
    area_list = _AREA_LISTS.get(kind)
    words = tuple(_words(section.drop("type").drop("tags").drop(area_list or "")))
    if area_list is None:
        return Segment(start, count, kind, tuple(_guessed(section, pvs, count)), False, words)
    areas = section.get(area_list)
    if not isinstance(areas, tuple) or len(areas) % 2 or not areas:
        raise Damaged(f"{where}: {area_list} is missing or odd")
    stripes, parts = [], []
    pairs = [areas[at : at + 2] for at in range(0, len(areas), 2)]
    each = count if kind == "mirror" else count // len(pairs)
    if kind != "mirror" and (section.number("stripe_count") != len(pairs) or each * len(pairs) != count):
        raise Damaged(f"{where}: stripe_count, extent_count and stripes disagree")
    for device, extent in pairs:
        if not isinstance(device, str) or not isinstance(extent, int) or extent < 0:
            raise Damaged(f"{where}: {area_list} does not list devices and extents")
        if device in pvs:
            stripes.append(Stripe(device, extent, each))
        else:
            parts.append(device)
    return Segment(start, count, kind, tuple(stripes), True, (*words, *parts))


def _guessed(section: Section, pvs: frozenset[str], count: int) -> list[Stripe]:
    """For a type that is not known: every (PV, number) pair in any list of the segment."""
    stripes = []
    for _, node in section.items:
        if isinstance(node, Section):
            stripes += _guessed(node, pvs, count)
        elif isinstance(node, tuple):
            for device, extent in pairwise(node):
                if isinstance(device, str) and device in pvs and isinstance(extent, int) and extent >= 0:
                    stripes.append(Stripe(device, extent, count))
    return stripes


def _words(section: Section) -> list[str]:
    words: list[str] = []
    for _, node in section.items:
        if isinstance(node, Section):
            words += _words(node)
        elif isinstance(node, tuple):
            words += [one for one in node if isinstance(one, str)]
        elif isinstance(node, str):
            words.append(node)
    return words
