"""Checker 8: VG metadata on the shared disks is always one committed version.

Looked at after every write, with the format's own reader (`lvm2`) and a count of extents of its own:
nothing of `volumes` or `engine` is asked.

* Every committed slot names a text whose checksum is right, whatever was torn around it.
* Of all areas of a VG the text with the highest seqno is the VG; that seqno never goes back, and no
  seqno is ever committed with two texts.
* No two LVs share an extent, and none lies outside of its PV."""

from dataclasses import dataclass, field

from ringfence.core.errors import Damaged
from ringfence.lvm2.area import HEADER_BYTES, MdaHeader, check_text, parse_header, text_ranges
from ringfence.lvm2.label import LABEL_SCAN_BYTES, SECTOR_BYTES, parse_label
from ringfence.lvm2.text import Section, parse_text
from ringfence.sim.disk import Disk, Disks
from ringfence.sim.safety import SafetyViolation
from ringfence.volumes.parts import MOVING_TAG


@dataclass(frozen=True)
class Version:
    """A committed text."""

    vg: str
    uuid: str
    seqno: int
    crc: int
    lvs: tuple[str, ...]
    """Names."""
    pieces: tuple[tuple[str, int, int, str], ...]
    """(PV uuid, first byte, byte after the last, LV uuid)."""
    unclean: tuple[str, ...] = ()
    """Names of LVs that are being zeroed or wiped, or keep extents for one that moves; none while a PV counts
    as missing, which a person ends."""


@dataclass
class Metadata:
    disks: Disks
    versions: dict[str, Version] = field(default_factory=dict)
    """By VG uuid: what is committed now."""
    commits: int = 0
    _pvs: dict[str, str] = field(default_factory=dict)
    """PV uuid -> path."""
    _removed: set[str] = field(default_factory=set)
    """VGs that were there once: they must not come back."""
    _crcs: dict[tuple[str, int], int] = field(default_factory=dict)
    _parsed: dict[bytes, Version] = field(default_factory=dict)

    def look(self) -> None:
        """Raises SafetyViolation."""
        found: dict[str, Version] = {}
        for disk in self.disks.disks.values():
            version = self._committed(disk)
            if version is None:
                continue
            crc = self._crcs.setdefault((version.uuid, version.seqno), version.crc)
            if crc != version.crc:
                raise SafetyViolation(f"8: version {version.seqno} of VG {version.vg} was committed twice")
            best = found.get(version.uuid)
            if best is None or version.seqno > best.seqno:
                found[version.uuid] = version
        self._removed.update(uuid for uuid in self.versions if uuid not in found)
        for uuid, version in found.items():
            if uuid in self._removed:
                raise SafetyViolation(f"8: VG {version.vg} was removed and is there again")
            before = self.versions.get(uuid)
            if before is not None and version.seqno < before.seqno:
                raise SafetyViolation(
                    f"8: VG {version.vg} went back from version {before.seqno} to {version.seqno}"
                )
            self.commits += before is None or version.seqno > before.seqno
        self.versions = found

    def named(self, vg: str) -> Version | None:
        return next((one for one in self.versions.values() if one.vg == vg), None)

    def holder(self, path: str, start_bytes: int) -> str:
        """The uuid of the LV that a byte of a disk belongs to, or is kept for; "": none."""
        for version in self.versions.values():
            for pv, start, end, lv in version.pieces:
                if self._pvs.get(pv) == path and start <= start_bytes < end:
                    return lv
        return ""

    def _committed(self, disk: Disk) -> Version | None:
        try:
            label = parse_label(bytes(disk.data[:LABEL_SCAN_BYTES]), disk.path)
            if label is None or not label.metadata_areas:
                return None
            self._pvs[label.uuid] = disk.path
            area = label.metadata_areas[0]
            start = area.offset_bytes
            header = parse_header(bytes(disk.data[start : start + HEADER_BYTES]), area, disk.path)
            if header.committed.empty:
                return None
            text = check_text(header.committed, _text(disk, header), disk.path)
        except Damaged as error:
            raise SafetyViolation(f"8: {error.message}") from None
        if text not in self._parsed:
            self._parsed[text] = _version(text, header.committed.crc, disk)
        return self._parsed[text]


def _text(disk: Disk, header: MdaHeader) -> bytes:
    pieces = text_ranges(header, header.committed)
    return b"".join(bytes(disk.data[one.offset_bytes : one.offset_bytes + one.size_bytes]) for one in pieces)


def _version(text: bytes, crc: int, disk: Disk) -> Version:
    name, vg = next(
        (name, body) for name, body in parse_text(text, disk.path).sections() if body.get("seqno") is not None
    )
    extent = SECTOR_BYTES * (vg.number("extent_size") or 0)
    pvs = dict(_section(vg, "physical_volumes").sections())
    pieces: list[tuple[str, int, int, str]] = []
    names, unclean = [], []
    for lv_name, lv in _section(vg, "logical_volumes").sections():
        names.append(lv_name)
        if {"ringfence.zeroing", "ringfence.wiping"} & {*lv.strings("tags")}:
            unclean.append(lv_name)
        # What is kept for an LV that moves is written to, and was, as its own.
        moves = [tag for tag in lv.strings("tags") if tag.startswith(MOVING_TAG)]
        if moves:
            unclean.append(lv_name)
        owner = moves[0].removeprefix(MOVING_TAG) if moves else lv.string("id") or ""
        for _, segment in lv.sections():
            count = segment.number("extent_count") or 0
            pv_name, first = _stripe(segment)
            pv = pvs[pv_name]
            if first + count > (pv.number("pe_count") or 0):
                raise SafetyViolation(f"8: LV {name}/{lv_name} lies outside of PV {pv_name}")
            start = SECTOR_BYTES * (pv.number("pe_start") or 0) + first * extent
            bare = (pv.string("id") or "").replace("-", "")
            pieces.append((bare, start, start + count * extent, owner))
    for index, one in enumerate(pieces):
        for other in pieces[index + 1 :]:
            if one[0] == other[0] and one[1] < other[2] and other[1] < one[2]:
                raise SafetyViolation(
                    f"8: two LVs of VG {name} share the extent at byte {max(one[1], other[1])}"
                )
    seqno = vg.number("seqno") or 0
    if any("MISSING" in pv.strings("flags") for pv in pvs.values()):
        unclean = []
    return Version(name, vg.string("id") or "", seqno, crc, tuple(names), tuple(pieces), tuple(unclean))


def _stripe(segment: Section) -> tuple[str, int]:
    """(PV, first extent) of a linear segment; other kinds are not made here."""
    stripes = segment.get("stripes")
    if not isinstance(stripes, tuple) or len(stripes) != 2 or not isinstance(stripes[1], int):
        raise SafetyViolation(f"8: a segment is not linear: {stripes!r}")
    return str(stripes[0]), stripes[1]


def _section(vg: Section, key: str) -> Section:
    return vg.section(key) or Section()
