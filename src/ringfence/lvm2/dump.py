"""What stands on a PV, as people read it: the lines of `pvck --dump`, and what is wrong with it.

The lines are LVM2's own, field by field with its place on the device, so that who knows the one reads the
other.  Nothing here trusts a checksum: what is damaged is shown as it is, with a line that says so.

Source: LVM2 tools/pvck.c (_dump_label_and_pv_header, _dump_mda_header, _dump_all_text)."""

import re
import struct
from collections.abc import Iterator

import msgspec

from ringfence.lvm2.area import HEADER_BYTES, RawLocn
from ringfence.lvm2.checksum import crc32
from ringfence.lvm2.images import heading
from ringfence.lvm2.label import LABEL_SCAN_BYTES, SECTOR_BYTES, Area

_LABEL_ID = b"LABELONE"
_CRC_FROM = 20
_HEADING = re.compile(rb'([a-zA-Z0-9+_.-]+) \{\n\s*id = "([^"\n]*)"\n\s*seqno = (\d{1,20})\n')
_LAST_LINES = re.compile(rb"\ncreation_time = [^\n]*\n\n*")


class Lines(msgspec.Struct):
    """What to print, and what is wrong."""

    lines: list[str] = []
    problems: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def check(self, right: bool, line: str) -> None:
        if not right:
            self.problems.append(f"CHECK: {line}")


def label_sector(start: bytes) -> int:
    """The sector of the label; 1, where it belongs, if there is none."""
    for number in range(LABEL_SCAN_BYTES // SECTOR_BYTES):
        if start[number * SECTOR_BYTES :].startswith(_LABEL_ID):
            return number
    return 1


def dump_label(start: bytes, out: Lines) -> None:
    """label_header, pv_header and its extension, from the first bytes of a device."""
    number = label_sector(start)
    base = number * SECTOR_BYTES
    sector = start[base : base + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")
    identity, claimed, crc, offset, kind = struct.unpack_from("<8sQII8s", sector)
    out.say(f"label_header at {base}")
    out.say(f"label_header.id {_text(identity)}")
    out.say(f"label_header.sector {claimed}")
    out.say(f"label_header.crc 0x{crc:x}")
    out.say(f"label_header.offset {offset}")
    out.say(f"label_header.type {_text(kind)}")
    out.check(identity == _LABEL_ID, "label_header.id expected LABELONE")
    out.check(claimed == number, f"label_header.sector expected {number}")
    right = crc32(sector[_CRC_FROM:])
    out.check(crc == right, f"label_header.crc expected 0x{right:x}")
    out.check(offset == 32, "label_header.offset expected 32")
    out.check(kind == b"LVM2 001", "label_header.type expected LVM2 001")
    offset = 32 if offset > SECTOR_BYTES - 48 else offset
    uuid = sector[offset : offset + 32]
    (size,) = struct.unpack_from("<Q", sector, offset + 32)
    out.say(f"pv_header at {base + offset}")
    out.say(f"pv_header.pv_uuid {_text(uuid)}")
    out.say(f"pv_header.device_size {size}")
    out.check(uuid.isalnum(), "pv_header.pv_uuid invalid format")
    at, count = _dump_list(sector, base, offset + 40, "pv_header", 0, "location of data area", out)
    at, _ = _dump_list(sector, base, at, "pv_header", count, "location of metadata area", out)
    if at + 8 > SECTOR_BYTES:
        return
    version, flags = struct.unpack_from("<II", sector, at)
    if version == 0:
        return
    out.say(f"pv_header_extension at {base + at}")
    out.say(f"pv_header_extension.version {version}")
    out.say(f"pv_header_extension.flags {flags}")
    if version >= 2:
        _dump_list(sector, base, at + 8, "pv_header_extension", 0, "location of bootloader area", out)


def _dump_list(
    sector: bytes, base: int, at: int, name: str, index: int, what: str, out: Lines
) -> tuple[int, int]:
    """A list of areas with its end.  Returns the place behind it, and the number of the next one."""
    while at + 16 <= SECTOR_BYTES:
        offset, size = struct.unpack_from("<QQ", sector, at)
        field = f"{name}.disk_locn[{index}]"
        out.say(f"{field} at {base + at} # {what if offset else 'location list end'}")
        out.say(f"{field}.offset {offset}")
        out.say(f"{field}.size {size}")
        at, index = at + 16, index + 1
        if not offset:
            return at, index
    out.check(False, f"{name}.disk_locn runs over the end of the sector")
    return at, index


def dump_header(number: int, area: Area, data: bytes, out: Lines) -> None:
    """An mda_header, from its 512 bytes."""
    name = f"mda_header_{number}"
    crc, magic, version, start, size = struct.unpack_from("<I16sIQQ", data)
    out.say(f"{name} at {area.offset_bytes} # metadata area")
    out.say(f"{name}.checksum 0x{crc:x}")
    out.say(f"{name}.magic 0x{magic.hex()}")
    out.say(f"{name}.version {version}")
    out.say(f"{name}.start {start}")
    out.say(f"{name}.size {size}")
    right = crc32(data[4:HEADER_BYTES])
    out.check(crc == right, f"{name}.checksum expected 0x{right:x}")
    out.check(magic == b" LVM2 x[5A%r0N*>", f"{name}.magic expected 0x204c564d3220785b35412572304e2a3e")
    out.check(version == 1, f"{name}.version expected 1")
    out.check(start == area.offset_bytes, f"{name}.start expected {area.offset_bytes}")
    out.check(size == area.size_bytes, f"{name}.size expected {area.size_bytes}")
    for index, what in enumerate(("commit", "precommit")):
        at = 40 + 24 * index
        offset, length, checksum, flags = struct.unpack_from("<QQII", data, at)
        field = f"{name}.raw_locn[{index}]"
        out.say(f"{field} at {area.offset_bytes + at} # {what}")
        out.say(f"{field}.offset {offset}")
        out.say(f"{field}.size {length}")
        out.say(f"{field}.checksum 0x{checksum:x}")
        out.say(f"{field}.flags 0x{flags:x}")


def text_line(area: Area, slot: RawLocn, text: bytes, out: Lines) -> None:
    """Where a committed text is, and of which VG and version it is."""
    at, crc = area.offset_bytes + slot.offset_bytes, crc32(text)
    said = heading(text[:SECTOR_BYTES])
    what = f" # vgname {said[0]} seqno {said[1]}" if said else ""
    out.say(f"metadata text at {at} crc 0x{slot.crc:x}{what}")
    out.check(crc == slot.crc, f"metadata text at {at} has crc 0x{crc:x}, expected 0x{slot.crc:x}")
    out.check(said is not None, f"metadata text at {at} does not begin with a VG")


class Copy(msgspec.Struct, frozen=True):
    """A text in a ring, current or old."""

    at_bytes: int
    """On the device."""
    length_bytes: int
    """With its final NUL; 0: its end is not found."""
    crc: int
    vg: str
    seqno: int
    uuid: str

    def line(self) -> str:
        return (
            f"metadata at {self.at_bytes} length {self.length_bytes} crc {self.crc:08x} "
            f"vg {self.vg} seqno {self.seqno} id {self.uuid}"
        )


def copies_in(ring: bytes, at_bytes: int) -> Iterator[Copy]:
    """Texts that begin at a sector of a ring and end within it, in the order of the disk.

    Args: at_bytes: where on the device `ring` begins, at a whole sector."""
    for start in range(0, len(ring), SECTOR_BYTES):
        match = _HEADING.match(ring, start)
        if match is None:
            continue
        last = _LAST_LINES.search(ring, start)
        end = ring.find(b"\0", last.start() if last else start) + 1
        text = ring[start:end]
        name, uuid, seqno = (one.decode(errors="replace") for one in match.groups())
        yield Copy(at_bytes + start, len(text), crc32(text), name, int(seqno), uuid)


def _text(data: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data).rstrip(".")
