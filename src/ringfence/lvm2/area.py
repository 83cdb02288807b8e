"""A metadata area: a header with two slots, and a ring of text versions.

    +0    512  header:
        +0   4  CRC of bytes 4..511
        +4  16  magic
        +20  4  version (1)
        +24  8  where the area starts on the device
        +32  8  size of the area in bytes, header included
        +40 24  slot 0, the committed text:      {offset u64, size u64, crc u32, flags u32}
        +64 24  slot 1, the pre-committed text:  likewise; zeros when no change is under way
    +512       the ring: text that reaches the area's end goes on at 512

Offsets count from the start of the area.  A slot's size and CRC include the text's final NUL.
Slot flag 1 means that the area is not in use.

A new text goes to the next 512-byte boundary behind the committed one, so the committed one is
never overwritten: a text may be at most half of the ring.  Steps of a change, on every area of
the VG before the next step begins; after a crash:

    text written, slots as before:         readers see the old version
    slot 1 names the new text:             readers see the old version
    slot 0 names the new text, slot 1 is empty: readers see the new version
    (some areas old, some new:             the highest seqno with a good checksum wins)

Source: LVM2 lib/format_text/layout.h, format-text.c (_next_rlocn_offset, _raw_write_mda_header)."""

import struct

import msgspec

from ringfence.core.errors import Damaged, Refused
from ringfence.lvm2.checksum import crc32
from ringfence.lvm2.label import SECTOR_BYTES, Area

HEADER_BYTES = 512
IGNORED = 1
_MAGIC = b" LVM2 x[5A%r0N*>"
_VERSION = 1
_HEADER = struct.Struct("<I16sIQQ")
_SLOT = struct.Struct("<QQII")
_SLOTS_AT = 40
_CRC_FROM = 4


class RawLocn(msgspec.Struct, frozen=True):
    """A slot: where a text is in the ring.  All zero: empty."""

    offset_bytes: int = 0
    size_bytes: int = 0
    crc: int = 0
    flags: int = 0

    @property
    def empty(self) -> bool:
        return self.offset_bytes == 0


class MdaHeader(msgspec.Struct, frozen=True):
    start_bytes: int
    size_bytes: int
    committed: RawLocn = RawLocn()
    precommitted: RawLocn = RawLocn()

    @property
    def ignored(self) -> bool:
        return bool(self.committed.flags & IGNORED)

    @property
    def ring_bytes(self) -> int:
        return self.size_bytes - HEADER_BYTES

    @property
    def text_limit_bytes(self) -> int:
        """The longest text, final NUL included, that LVM2 writes to an area of this size."""
        return self.ring_bytes // 2 - SECTOR_BYTES


def parse_header(data: bytes, area: Area, where: str) -> MdaHeader:
    """Read an area's header.

    Args:
        data: the first 512 bytes of the area.
        area: where the PV header says that the area is.
        where: names the device in messages.

    Raises:
        Damaged: the bytes are not a header, or the header of another place."""
    if len(data) != HEADER_BYTES:
        raise Damaged(f"{where}: the metadata area at {area.offset_bytes} is cut short")
    crc, magic, version, start, size = _HEADER.unpack_from(data)
    place = f"{where}: the metadata area at {area.offset_bytes}"
    if magic != _MAGIC or version != _VERSION:
        raise Damaged(f"{place} has no LVM2 header")
    if crc32(data[_CRC_FROM:]) != crc:
        raise Damaged(f"{place} has a header with a wrong checksum")
    if start != area.offset_bytes or size < 2 * HEADER_BYTES or (area.size_bytes and size != area.size_bytes):
        raise Damaged(f"{place} has the header of an area at {start} of {size} bytes")
    slots = [RawLocn(*_SLOT.unpack_from(data, _SLOTS_AT + index * _SLOT.size)) for index in range(2)]
    header = MdaHeader(start, size, slots[0], slots[1])
    for slot in slots:
        _check_slot(header, slot, place)
    return header


def _check_slot(header: MdaHeader, slot: RawLocn, place: str) -> None:
    if slot.empty:
        return
    inside = HEADER_BYTES <= slot.offset_bytes < header.size_bytes
    if not inside or not 0 < slot.size_bytes <= header.ring_bytes:
        raise Damaged(f"{place} has a slot that points outside the ring")


def print_header(header: MdaHeader) -> bytes:
    """512 bytes.  Inverse of `parse_header`."""
    rest = struct.pack("<16sIQQ", _MAGIC, _VERSION, header.start_bytes, header.size_bytes)
    for slot in (header.committed, header.precommitted):
        rest += _SLOT.pack(slot.offset_bytes, slot.size_bytes, slot.crc, slot.flags)
    rest = rest.ljust(HEADER_BYTES - _CRC_FROM, b"\0")
    return struct.pack("<I", crc32(rest)) + rest


def committed_slot(header: MdaHeader) -> tuple[int, bytes]:
    """(offset on the device, its 24 bytes) of slot 0.  No two versions of a VG have the same: the CRC is of a
    text with another seqno."""
    slot = header.committed
    data = _SLOT.pack(slot.offset_bytes, slot.size_bytes, slot.crc, slot.flags)
    return header.start_bytes + _SLOTS_AT, data


def text_ranges(header: MdaHeader, slot: RawLocn) -> tuple[Area, ...]:
    """Where a slot's text is on the device: one range, or two if it runs over the ring's end."""
    room = header.size_bytes - slot.offset_bytes
    first = min(room, slot.size_bytes)
    ranges = [Area(header.start_bytes + slot.offset_bytes, first)]
    if first < slot.size_bytes:
        ranges.append(Area(header.start_bytes + HEADER_BYTES, slot.size_bytes - first))
    return tuple(ranges)


def check_text(slot: RawLocn, text: bytes, where: str) -> bytes:
    """The text itself, without its final NUL, once the checksum is verified.

    Raises:
        Damaged: text and slot disagree.  Try the PV's other area, then another PV, before
            calling the VG damaged."""
    verify_text(slot, text, where)
    return text.rstrip(b"\0")


def verify_text(slot: RawLocn, text: bytes, where: str) -> None:
    """Raises Damaged: as `check_text`."""
    if len(text) != slot.size_bytes or crc32(text) != slot.crc:
        raise Damaged(f"{where}: the metadata text has a wrong checksum")


def text_end(header: MdaHeader, slot: RawLocn) -> int:
    """The offset in the area just behind a slot's text; the ring's wrap is followed."""
    end = slot.offset_bytes + slot.size_bytes
    return end if end <= header.size_bytes else end - header.ring_bytes


def next_place(header: MdaHeader, behind: RawLocn) -> int:
    """Where LVM2 puts the text that follows the one of slot `behind`."""
    if behind.empty:
        return HEADER_BYTES
    end = text_end(header, behind)
    place = -(-end // SECTOR_BYTES) * SECTOR_BYTES
    return HEADER_BYTES if header.size_bytes - place < SECTOR_BYTES else place


def place_text(header: MdaHeader, text: bytes, where: str, *, avoid: int | None = None) -> RawLocn:
    """Choose the place of a new text (final NUL included).

    Args:
        avoid: the last writer may be frozen rather than finished.  Then its place is not used
            again, as long as the ring has room elsewhere: a late write of it must not spoil ours.
            It may have avoided somebody itself; so this is a number that each such writer has its own of,
            and says which of the places elsewhere is taken.

    Raises:
        Refused: the text is too long for the area.
        Damaged: the committed one is.  Nothing was written."""
    if len(text) > header.text_limit_bytes:
        raise Refused(
            f"{where}: the metadata area is full: {len(text)} bytes needed, "
            f"{header.text_limit_bytes} allowed",
            next="remove LVs, or make the VG on PVs with a larger --metadatasize",
        )
    slot = _slot_at(header, next_place(header, header.committed), text)
    if avoid is not None:
        other = _slot_at(header, _far_place(header, len(text), avoid), text)
        slot = slot if _overlap(header, other, header.committed) else other
    if _overlap(header, slot, header.committed):
        raise Damaged(
            f"{where}: the committed text of {header.committed.size_bytes} bytes is longer than one may be "
            f"({header.text_limit_bytes}), and leaves no room for a new one",
            next=f"look at it with: pvck --dump headers {where}",
        )
    return slot


FAR_PLACES = (64, 16, 4, 2)
"""How many places there are for a text that avoids another's, by how short it is."""


def _far_place(header: MdaHeader, size_bytes: int, number: int) -> int:
    """A place near the end of the free part of the ring, just in front of the committed text or some texts
    before that.

    An unfinished text begins where the free part begins; how long it is, or will be once a late
    write lands, only its writer knows.  So the last place is safe from the longest one, and the only one
    for a text that is long for its ring.  Short ones have more of them, in the last half of the ring: the
    places for shorter texts are parts of those for longer ones, so writers whose numbers differ keep apart
    whatever the lengths of their texts, as far as the longer one's places allow."""
    committed = HEADER_BYTES if header.committed.empty else header.committed.offset_bytes
    padded = _padded(size_bytes)
    finest_bytes = header.ring_bytes // 2 // FAR_PLACES[0]
    room_bytes = padded + padded // 4 + 2 * SECTOR_BYTES  # it moves to a sector's start
    places = next((many for many in FAR_PLACES if FAR_PLACES[0] // many * finest_bytes >= room_bytes), 1)
    back_bytes = padded + _far_index(number, places) * (FAR_PLACES[0] // places * finest_bytes)
    place = (committed - HEADER_BYTES - back_bytes) % header.ring_bytes
    place = HEADER_BYTES + place // SECTOR_BYTES * SECTOR_BYTES
    return place - SECTOR_BYTES if header.size_bytes - place < SECTOR_BYTES else place


def _far_index(number: int, places: int) -> int:
    """Which of so many places: the coarse one first, then which part of it."""
    index, coarser = 0, 1
    for many in reversed(FAR_PLACES):
        if many > places:
            break
        parts = many // coarser
        index = index * parts + number % parts
        number //= parts
        coarser = many
    return index


def _slot_at(header: MdaHeader, place: int, text: bytes) -> RawLocn:
    return RawLocn(place, len(text), crc32(text))


def _overlap(header: MdaHeader, one: RawLocn, other: RawLocn) -> bool:
    """Whether two texts share a sector (texts are padded to whole sectors when written)."""
    if one.empty or other.empty:
        return False
    distance = (other.offset_bytes - one.offset_bytes) % header.ring_bytes
    back = (one.offset_bytes - other.offset_bytes) % header.ring_bytes
    return distance < _padded(one.size_bytes) or back < _padded(other.size_bytes)


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES


def text_writes(header: MdaHeader, slot: RawLocn, text: bytes) -> tuple[tuple[int, bytes], ...]:
    """(offset on the device, bytes) of a text's one or two pieces, the last padded to a sector."""
    assert len(text) == slot.size_bytes
    assert crc32(text) == slot.crc
    assert not _overlap(header, slot, header.committed), "a change must not touch the committed text"
    writes, start = [], 0
    for piece in text_ranges(header, slot):
        data = text[start : start + piece.size_bytes]
        start += piece.size_bytes
        room = header.start_bytes + header.size_bytes - piece.offset_bytes
        writes.append((piece.offset_bytes, data.ljust(min(_padded(len(data)), room), b"\0")))
    return tuple(writes)
