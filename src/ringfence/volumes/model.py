"""A VG read from its metadata text, and the text kept beside it.

The text is the truth; everything else here is a view of it.  A VG is kept as its frame, the file without
LVs, and its LVs, each with its own piece of text: so nothing that this program does not know gets lost,
and a change of one LV in 20,000 touches that one.  `with_lv`, `without_lv`, `with_renamed` and `with_frame`
change it so; `with_tree` and `with_body` edit the tree of it all and read that again.

What is put in is printed and read back on the spot (Damaged if it does not come back as it was), what came
from a text is kept as it stood: so `Vg.text` always parses to `Vg.tree`.

Source: LVM2 lib/format_text/import_vsn1.c, export.c."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import zip_longest

import msgspec

from ringfence.core.errors import Damaged
from ringfence.lvm2.fragments import Cut, cut, sound_ends
from ringfence.lvm2.names import can_be_name
from ringfence.lvm2.text import Section, Value, parse_member, parse_text, print_ends, print_member
from ringfence.volumes.index import Index
from ringfence.volumes.parts import SLOTS_TAG, Lv, Pv
from ringfence.volumes.plain import plain_lv
from ringfence.volumes.segments import Segment, Stripe, read_segment

__all__ = [
    "CONTENTS", "SECTOR_BYTES", "SLOTS_TAG", "Lv", "Pv", "Segment", "Stripe", "Vg", "read_text_like",
    "read_vg",
]  # fmt: skip

SECTOR_BYTES = 512
CONTENTS = "Text Format Volume Group"

_LVS = "logical_volumes"


class Vg(msgspec.Struct, frozen=True, dict=True):
    frame: Section
    """The file without its LVs: the VG's section and what stands behind it."""
    ends: tuple[bytes, bytes]
    """The frame's text, before the first LV and behind the last."""
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
    by_name: Mapping[str, Lv]
    """The LVs, in the order of the text."""
    repeated: tuple[str, ...] = ()
    """Names that two LVs bear: the second is lost here, so such a VG is damaged and never written."""

    @cached_property
    def lvs(self) -> tuple[Lv, ...]:
        return tuple(self.by_name.values())

    @cached_property
    def index(self) -> Index:
        return Index.of(self.pvs, self.by_name.values())

    @cached_property
    def by_text(self) -> Mapping[bytes, Lv]:
        return {lv.text: lv for lv in self.by_name.values()}

    @cached_property
    def text(self) -> bytes:
        """As it goes to the disk, with its final NUL."""
        return b"".join((self.ends[0], *[lv.text for lv in self.by_name.values()], self.ends[1], b"\0"))

    @cached_property
    def tree(self) -> Section:
        """The whole file, parsed: takes long for thousands of LVs."""
        return self.frame.put(self.name, self.body)

    @property
    def body(self) -> Section:
        """The VG's section, with its LVs, all parsed: takes long for thousands of them.  See `header`."""
        lvs = self.header.section(_LVS)
        if lvs is None:
            return self.header
        members = tuple((name, self.section_of(name)) for name in self.by_name)
        return self.header.put(_LVS, Section((*lvs.items, *members)))

    @property
    def header(self) -> Section:
        """The VG's section without its LVs."""
        section = self.frame.section(self.name)
        assert section is not None
        return section

    def section_of(self, lv: str) -> Section:
        """An LV's section."""
        return parse_member(self.by_name[lv].text, f"LV {lv}")[1]

    # -- changes ------------------------------------------------------------------------

    def with_lv(self, name: str, section: Section) -> "Vg":
        """With an LV: in its old one's place, or as the last.  Raises Damaged."""
        lv = _written_lv(name, section, self.name, self._pv_names)
        return self._changed({**self.by_name, name: lv}, self.by_name.get(name), lv)

    def without_lv(self, name: str) -> "Vg":
        """Raises KeyError: there is no such LV."""
        rest = dict(self.by_name)
        lv = rest.pop(name)
        return self._changed(rest, lv, None)

    def with_renamed(self, old: str, new: str) -> "Vg":
        """With an LV under another name, in its place.  What other LVs say of it is not touched.

        Raises KeyError: there is no such LV."""
        assert new not in self.by_name
        lv = _written_lv(new, self.section_of(old), self.name, self._pv_names)
        lvs = {
            lv.name if name == old else name: lv if name == old else one for name, one in self.by_name.items()
        }
        return self._changed(lvs, self.by_name[old], lv)

    def with_header(self, header: Section) -> "Vg":
        """With the VG's section replaced, but for its LVs, which stay.  Raises Damaged."""
        return self.with_frame(self.frame.put(self.name, header))

    def with_frame(self, frame: Section) -> "Vg":
        """With all but its LVs replaced (the VG's name, too).  Raises Damaged."""
        ends = _written_ends(frame)
        new = _framed(frame, ends, self.name, self.by_name, self.repeated)
        if new.pvs == self.pvs:
            return self._indexed(new, self.index)
        if any(name in self.index.words for name in new._pv_names - self._pv_names) or any(
            self.index.uses[name].taken for name in self._pv_names - new._pv_names
        ):
            # Who is a PV and who is an LV in a segment's areas is another question now.
            return _read(Cut(ends[0], [lv.text for lv in self.lvs], ends[1]), frame, self.name, None)
        return self._indexed(new, self.index.with_pvs(self.pvs, new.pvs))

    def spliced(
        self, head: bytes, tail: bytes, splices: Sequence[tuple[int, int, Sequence[bytes]]]
    ) -> "Vg":
        """The VG whose text has these ends, and other LVs in some places.

        Args: splices: (where, how many LVs go, the sections that come), in the order of the text.

        Raises Damaged: that is no VG, or one that cannot be told from this one by these LVs alone."""
        frame = parse_text(head + tail, self.name)
        if not sound_ends(head, tail) or {pv.name for pv in _pvs_of(frame)} != self._pv_names:
            raise Damaged(f"VG {self.name}: more has changed than some LVs")
        lvs, gone, come = list(self.lvs), list[Lv](), list[Lv]()
        for at, count, texts in reversed(splices):
            new = [_lv_of(text, self.name, self._pv_names) for text in texts]
            gone += lvs[at : at + count]
            come += new
            lvs[at : at + count] = new
        by_name = {lv.name: lv for lv in lvs}
        if len(by_name) < len(lvs):
            raise Damaged(f"VG {self.name}: an LV is there twice")
        changed = _framed(frame, (head, tail), self.name, by_name, self.repeated)
        index: Index | None = self.index if changed.pvs == self.pvs else None
        for old, lv in zip_longest(gone, come):
            index = index.changed(self.pvs, old, lv) if index is not None else None
        return self._indexed(changed, index)

    def with_body(self, body: Section) -> "Vg":
        """The VG with its section replaced."""
        return read_vg(self.frame.put(self.name, body), self.name)

    def with_tree(self, tree: Section) -> "Vg":
        return read_vg(tree, self.name)

    def _changed(self, lvs: dict[str, Lv], old: Lv | None, new: Lv | None) -> "Vg":
        frame = _with_room(self.frame, self.name, bool(lvs))
        ends = self.ends if frame is self.frame else _written_ends(frame)
        changed = msgspec.structs.replace(self, frame=frame, ends=ends, by_name=lvs)
        return self._indexed(changed, self.index.changed(self.pvs, old, new))

    def _indexed(self, new: "Vg", index: Index | None) -> "Vg":
        if index is not None:
            new.__dict__["index"] = index  # where `cached_property` looks for it
        return new

    @property
    def _pv_names(self) -> frozenset[str]:
        return frozenset(pv.name for pv in self.pvs)

    # -- what is in it --------------------------------------------------------------------

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
        return self.by_name.get(name)


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


def read_text_like(text: bytes, where: str, like: Vg | None) -> Vg:
    """A VG from its text (without NUL); LVs whose text is the same in `like` are not read again.

    Raises Damaged."""
    pieces = cut(text)
    if pieces is not None:
        try:
            return _read(pieces, parse_text(pieces.head + pieces.tail, where), where, like)
        except (Damaged, _Uncut):
            pass  # whatever it is, the whole text decides, and names the line
    return read_vg(parse_text(text, where), where)


def read_all_of(text: bytes, where: str, like: Vg | None) -> Vg:
    """As `read_text_like`, with all that takes long to know of the VG.  Raises Damaged."""
    vg = read_text_like(text, where, like)
    assert vg.index is not None
    assert vg.by_text is not None
    return vg


LARGEST_BYTES = 64 << 20
"""More than any metadata area has room for."""


def unpack_text(packed: bytes, where: str) -> Vg:
    """A VG from a file of metadata (`lvm2.backup.pack`): every piece of it laid out as on a disk.

    Raises Damaged."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(base64.b85decode(packed), LARGEST_BYTES)
    except (zlib.error, ValueError):
        raise Damaged(f"{where} is not what was sent") from None
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise Damaged(f"{where} is cut short, or longer than {LARGEST_BYTES} bytes")
    tree = parse_text(text, where)
    sections, rest = tree.sections(), [item for item in tree.items if not isinstance(item[1], Section)]
    return read_vg(Section((*sections, *rest)), where)


class _Uncut(Exception):
    """A text was cut where it should not have been."""


def read_vg(tree: Section, where: str) -> Vg:
    """Read a VG.  Raises Damaged if it lacks what every VG has; `checks` looks at the rest."""
    name, body = _vg_section(tree, where)
    section = body.section(_LVS) or Section()
    members = section.sections()
    frame = tree
    if members:
        left = Section(tuple(item for item in section.items if not isinstance(item[1], Section)))
        frame = tree.put(name, body.put(_LVS, left))
    pvs = frozenset(pv.name for pv in _pvs_of(frame))
    lvs: dict[str, Lv] = {}
    repeated = []
    for key, member in members:
        if key in lvs:
            repeated.append(key)
        else:
            lvs[key] = _written_lv(key, member, name, pvs)
    return _framed(frame, _written_ends(frame), where, lvs, tuple(repeated))


def _read(pieces: Cut, frame: Section, where: str, like: Vg | None) -> Vg:
    """Raises Damaged, _Uncut."""
    name, body = _vg_section(frame, where)
    section = body.get(_LVS)
    if pieces.fragments and not (isinstance(section, Section) and not section.sections()):
        raise _Uncut
    pvs = frozenset(pv.name for pv in _pvs_of(frame))
    known = like.by_text if like is not None and like._pv_names == pvs else {}
    lvs: dict[str, Lv] = {}
    repeated = []
    for text in pieces.fragments:
        lv = known.get(text) or _lv_of(text, name, pvs)
        if lv.name in lvs:
            repeated.append(lv.name)
        else:
            lvs[lv.name] = lv
    return _framed(frame, (pieces.head, pieces.tail), where, lvs, tuple(repeated))


def _lv_of(text: bytes, vg: str, pvs: frozenset[str]) -> Lv:
    plain = plain_lv(text, pvs)
    if plain is not None:
        return plain
    name, section = parse_member(text, f"VG {vg}")
    return read_lv(name, section, vg, pvs, text)


def _written_lv(name: str, section: Section, vg: str, pvs: frozenset[str]) -> Lv:
    """An LV that is to be written: its text reads back as planned, or Damaged is raised."""
    text = print_member(name, section)
    if parse_member(text, name) != (name, section):
        raise Damaged(f"VG {vg}: LV {name}: the new metadata does not read back as planned")
    return read_lv(name, section, vg, pvs, text)


def _written_ends(frame: Section) -> tuple[bytes, bytes]:
    """Raises Damaged: they do not read back as planned."""
    head, tail = print_ends(frame)
    if parse_text(head + tail, "the new metadata") != frame:
        raise Damaged("the new metadata does not read back as planned")
    return head, tail


def _with_room(frame: Section, vg: str, has_lvs: bool) -> Section:
    """logical_volumes stands behind physical_volumes; without LVs LVM2 writes no such section."""
    body = frame.section(vg)
    assert body is not None
    section = body.section(_LVS)
    if has_lvs and section is None:
        items: list[tuple[str, Value | Section]] = []
        for key, node in body.items:
            items.append((key, node))
            if key == "physical_volumes":
                items.append((_LVS, Section()))
        return frame.put(vg, Section(tuple(items)))
    if not has_lvs and section is not None and not section.items:
        return frame.put(vg, body.drop(_LVS))
    return frame


def _vg_section(tree: Section, where: str) -> tuple[str, Section]:
    if tree.string("contents") != CONTENTS or tree.number("version") != 1:
        raise Damaged(f"{where}: the metadata text is not a volume group of version 1")
    sections = tree.sections()
    if len(sections) != 1:
        raise Damaged(f"{where}: the metadata text has {len(sections)} volume groups, not one")
    if not can_be_name(sections[0][0]):
        raise Damaged(f"{where}: a VG cannot be called {sections[0][0]!r}")
    return sections[0]


def _pvs_of(tree: Section) -> tuple[Pv, ...]:
    ((name, body),) = tree.sections()
    return tuple(_read_pv(key, pv, name) for key, pv in _members(body, "physical_volumes"))


def _framed(
    frame: Section, ends: tuple[bytes, bytes], where: str, lvs: Mapping[str, Lv], repeated: tuple[str, ...]
) -> Vg:
    name, body = _vg_section(frame, where)
    reader = _Reader(body, f"VG {name}")
    return Vg(
        frame=frame,
        ends=ends,
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
        pvs=_pvs_of(frame),
        by_name=lvs,
        repeated=repeated,
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


def read_lv(name: str, section: Section, vg: str, pvs: frozenset[str], text: bytes) -> Lv:
    if not can_be_name(name):  # paths are made of it
        raise Damaged(f"VG {vg}: an LV cannot be called {name!r}")
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
        segments=tuple(read_segment(body, f"VG {vg}: LV {name}: {key}", pvs) for key, body in segments),
        policy=section.string("allocation_policy") or "",
        text=text,
    )
