"""Label, area header and ring: the bytes, the places, and what damage looks like."""

import contextlib
import struct

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.core.errors import Damaged, Refused
from ringfence.lvm2.area import (
    HEADER_BYTES,
    MdaHeader,
    RawLocn,
    check_text,
    next_place,
    parse_header,
    place_text,
    print_header,
    text_end,
    text_ranges,
    text_writes,
)
from ringfence.lvm2.checksum import crc32
from ringfence.lvm2.label import SECTOR_BYTES, Area, PvLabel, mark_used, parse_label, print_label

AREA = Area(4096, 1044480)
LABEL = PvLabel("9m6Z9uafhKttpoZ1osF2SLoU5uowyiZa", 67108864, (Area(1 << 20, 0),), (AREA,))

# As stock LVM2 2.03.16 wrote it (pvcreate on 64 MiB); `pvck --dump headers` names each field.
STOCK_CRC = 0xB5D8ADBB
STOCK_USED = msgspec.structs.replace(LABEL, flags=1)


def start_with(sector: bytes, number: int = 1) -> bytes:
    return bytes(number * SECTOR_BYTES) + sector + bytes((3 - number) * SECTOR_BYTES)


def test_checksum_is_lvm2s() -> None:
    """The label that stock wrote for this uuid and these areas has this checksum."""
    sector = print_label(STOCK_USED)
    assert struct.unpack_from("<I", sector, 16)[0] == crc32(sector[20:]) == STOCK_CRC


def test_label_comes_back() -> None:
    read = parse_label(start_with(print_label(LABEL)), "x")
    assert read is not None
    assert read.flags_offset_bytes == 652 - 512
    assert msgspec.structs.replace(read, flags_offset_bytes=0) == LABEL
    assert read.data_start_bytes == 1 << 20
    assert not read.used


def test_label_may_be_in_any_of_four_sectors() -> None:
    for number in range(4):
        label = msgspec.structs.replace(LABEL, sector=number)
        read = parse_label(start_with(print_label(label), number), "x")
        assert read is not None
        assert read.sector == number


def test_marking_changes_the_flag_and_nothing_else() -> None:
    sector = bytearray(print_label(LABEL))
    sector[300:310] = b"of another"  # something that a later LVM2 may put there
    sector[16:20] = struct.pack("<I", crc32(bytes(sector[20:])))
    start = start_with(bytes(sector))
    label = parse_label(start, "x")
    assert label is not None
    marked = mark_used(start, label, True)
    read = parse_label(start_with(marked), "x")
    assert read is not None
    assert read.used
    differing = [at for at in range(512) if marked[at] != sector[at]]
    assert set(differing) <= {16, 17, 18, 19, label.flags_offset_bytes}
    assert mark_used(start_with(marked), read, False) == bytes(sector)


def test_no_label_is_no_pv() -> None:
    assert parse_label(bytes(2048), "x") is None
    assert parse_label(b"", "x") is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda sector: sector[:40] + b"!" + sector[41:], "wrong checksum"),
        (lambda sector: sector[:8] + b"\2" + sector[9:], "written for sector 2"),
    ],
)
def test_damaged_label_is_named(change, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Damaged, match=f"/dev/x: .*{words}"):
        parse_label(start_with(change(print_label(LABEL))), "/dev/x")


@given(st.binary(min_size=492, max_size=492))
def test_a_label_of_arbitrary_content_is_read_or_named_as_damaged(rest: bytes) -> None:
    sector = struct.pack("<8sQI", b"LABELONE", 1, crc32(rest)) + rest
    with contextlib.suppress(Damaged):
        parse_label(start_with(sector), "x")
    kind = struct.pack("<I8s", 32, b"LVM2 001") + rest[12:]
    sector = struct.pack("<8sQI", b"LABELONE", 1, crc32(kind)) + kind
    with contextlib.suppress(Damaged):
        parse_label(start_with(sector), "x")


# -- area header -------------------------------------------------------------------


def header(size: int = AREA.size_bytes, **slots: RawLocn) -> MdaHeader:
    return MdaHeader(4096, size, **slots)


def test_header_comes_back_and_matches_stock() -> None:
    """As `pvck --dump headers` printed it for a stock VG: checksum 0xddfde896."""
    slot = RawLocn(4096, 1950, 0x20AEC4F7)
    data = print_header(header(committed=slot))
    assert struct.unpack_from("<I", data)[0] == 0xDDFDE896
    assert parse_header(data, AREA, "x") == header(committed=slot)
    assert data[40:64] == struct.pack("<QQII", 4096, 1950, 0x20AEC4F7, 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(512), "no LVM2 header"),
        (b"x" * 100, "cut short"),
        (print_header(header())[:-1] + b"!", "wrong checksum"),
        (print_header(MdaHeader(8192, AREA.size_bytes)), "area at 8192"),
        (print_header(header(size=2048)), "of 2048 bytes"),
        (print_header(header(committed=RawLocn(AREA.size_bytes, 5, 0))), "outside the ring"),
        (print_header(header(committed=RawLocn(100, 5, 0))), "outside the ring"),
        (print_header(header(precommitted=RawLocn(512, AREA.size_bytes, 0))), "outside the ring"),
    ],
)
def test_damaged_header_is_named(data: bytes, words: str) -> None:
    with pytest.raises(Damaged, match=words) as caught:
        parse_header(data, AREA, "/dev/x")
    assert caught.value.message.startswith("/dev/x: ")


@given(st.binary(min_size=512, max_size=512))
def test_arbitrary_headers_are_named_as_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        parse_header(data, AREA, "x")


# -- the ring ------------------------------------------------------------------------


def text_of(length: int, fill: int = 0x61) -> bytes:
    return bytes([fill]) * (length - 2) + b"\n\0"


def commit(disk: bytearray, area: MdaHeader, text: bytes, *, avoid: int | None = None) -> MdaHeader:
    """What a change does to one area."""
    slot = place_text(area, text, "x", avoid=avoid)
    for offset, data in text_writes(area, slot, text):
        assert offset % SECTOR_BYTES == 0
        disk[offset : offset + len(data)] = data
    return MdaHeader(area.start_bytes, area.size_bytes, slot)


def read(disk: bytearray, area: MdaHeader) -> bytes:
    pieces = text_ranges(area, area.committed)
    data = b"".join(bytes(disk[one.offset_bytes : one.offset_bytes + one.size_bytes]) for one in pieces)
    check_text(area.committed, data, "x")
    return data


@given(
    st.integers(4, 40).map(lambda sectors: sectors * SECTOR_BYTES),
    st.lists(st.tuples(st.floats(0, 1), st.none() | st.integers(0, 1000)), min_size=1, max_size=40),
)
def test_many_changes_round_the_ring(ring: int, changes: list[tuple[float, int | None]]) -> None:
    """The text before is whole until the new one is committed; nothing outside the area is touched."""
    area = header(size=HEADER_BYTES + ring)
    disk = bytearray(b"\xee" * (4096 + area.size_bytes + 4096))
    limit = area.text_limit_bytes
    before: tuple[MdaHeader, bytes] | None = None
    for number, (share, avoid) in enumerate(changes):
        text = text_of(max(3, int(limit * share)), number % 256)
        area = commit(disk, area, text, avoid=avoid)
        if before is not None:
            assert read(disk, before[0]) == before[1]
        assert read(disk, area) == text
        before = area, text
    assert disk[: 4096 + HEADER_BYTES] == b"\xee" * (4096 + HEADER_BYTES)
    assert disk[4096 + area.size_bytes :] == b"\xee" * 4096


def test_text_wraps_as_lvm2_does() -> None:
    area = header(size=HEADER_BYTES + 8192, committed=RawLocn(4608, 1500, 0))
    assert next_place(area, area.committed) == 6144
    slot = place_text(area, text_of(3500), "x")
    assert slot.offset_bytes == 6144
    assert text_ranges(area, slot) == (Area(4096 + 6144, 2560), Area(4096 + 512, 940))
    assert text_end(area, slot) == 512 + 940
    assert next_place(area, slot) == 1536
    assert next_place(area, RawLocn(6144, 2560, 0)) == HEADER_BYTES, "exactly full: begin anew"


def test_a_text_too_long_for_the_area_is_refused() -> None:
    area = header()
    assert area.text_limit_bytes == 521472
    place_text(area, text_of(521472), "x")
    with pytest.raises(
        Refused, match="/dev/x: the metadata area is full: 521473 bytes needed, 521472 allowed"
    ):
        place_text(area, text_of(521473), "/dev/x")


@given(
    st.integers(4, 200).map(lambda sectors: sectors * SECTOR_BYTES),
    st.integers(0, 199),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_an_unfinished_text_that_lands_late_spoils_nothing_if_there_is_room(
    ring: int, first: int, committed: float, ours: float, theirs: float
) -> None:
    """However long it is: as long as both texts fit into the free part, they do not meet."""
    area = header(size=HEADER_BYTES + ring)
    limit = area.text_limit_bytes
    before, late, new = (
        text_of(max(3, int(limit * share)), 97 + n) for n, share in enumerate((committed, theirs, ours))
    )
    disk = bytearray(4096 + area.size_bytes)
    start = RawLocn(HEADER_BYTES + first * SECTOR_BYTES % ring, len(before), crc32(before))
    for offset, data in text_writes(area, start, before):
        disk[offset : offset + len(data)] = data
    area = header(size=area.size_bytes, committed=start)
    unfinished = place_text(area, late, "x")
    now = commit(disk, area, new, avoid=0)
    for offset, data in text_writes(area, unfinished, late):
        disk[offset : offset + len(data)] = data
    assert read(disk, area) == before
    padded = [-(-len(text) // SECTOR_BYTES) * SECTOR_BYTES for text in (before, late, new)]
    if sum(padded) + SECTOR_BYTES <= ring:
        assert read(disk, now) == new


def test_the_place_of_an_unfinished_change_is_not_used_again() -> None:
    area = header(committed=RawLocn(5120, 1000, 1))
    assert place_text(area, text_of(900), "x").offset_bytes == 6144
    assert place_text(area, text_of(900), "x", avoid=0).offset_bytes == 4096
    area = header(committed=RawLocn(512, 1000, 1))
    assert place_text(area, text_of(900), "x", avoid=0).offset_bytes == area.size_bytes - 1024


@given(
    st.integers(600, 2000).map(lambda sectors: sectors * SECTOR_BYTES),
    st.integers(0, 1999),
    st.integers(3, 2_000),
    st.integers(0, 4000),
    st.integers(1, 15),
)
@example(600 * SECTOR_BYTES, 0, 1237, 24, 8)  # texts of two lengths, for which there are 16 places and 64
def test_who_avoids_one_that_avoided_another_takes_another_place(
    ring: int, first: int, size: int, number: int, later: int
) -> None:
    """Three writers in a row, two of them frozen: the first where the text belongs, the second elsewhere."""
    area = header(size=HEADER_BYTES + ring)
    disk = bytearray(4096 + area.size_bytes)
    before = text_of(size, 97)
    start = RawLocn(HEADER_BYTES + first * SECTOR_BYTES % ring, len(before), crc32(before))
    for offset, data in text_writes(area, start, before):
        disk[offset : offset + len(data)] = data
    area = header(size=area.size_bytes, committed=start)
    frozen = [(None, text_of(size + 400, 98)), (number, text_of(size + 300, 99))]
    late = [(place_text(area, text, "x", avoid=avoid), text) for avoid, text in frozen]
    new = text_of(size + 200, 100)
    now = commit(disk, area, new, avoid=number + later)
    for slot, text in late:
        for offset, data in text_writes(area, slot, text):
            disk[offset : offset + len(data)] = data
    assert read(disk, area) == before
    assert read(disk, now) == new


def test_a_ring_without_room_elsewhere_uses_the_place_again() -> None:
    area = header(size=HEADER_BYTES + 4096, committed=RawLocn(2048, 1536, 1))
    slot = place_text(area, text_of(1400), "x", avoid=7)
    assert slot.offset_bytes == 512
    late = place_text(area, text_of(1500), "x")
    assert late.offset_bytes == 3584
    assert text_end(area, late) > slot.offset_bytes, "they meet: there is no better place"


def test_a_text_that_does_not_match_its_slot_is_damaged() -> None:
    text = text_of(600)
    slot = RawLocn(512, len(text), crc32(text))
    assert check_text(slot, text, "x") == text[:-1]
    for other in (text[:-1], b"b" + text[1:]):
        with pytest.raises(Damaged, match="wrong checksum"):
            check_text(slot, other, "x")


def test_an_area_out_of_use_is_known_as_such() -> None:
    assert header(committed=RawLocn(0, 0, 0, 1)).ignored
    assert not header(committed=RawLocn(512, 5, 0)).ignored


def test_a_committed_text_that_leaves_no_room_is_damage_not_a_crash() -> None:
    """Half of the ring is the most that LVM2 writes; a header with a right checksum may say anything."""
    area = header(size=HEADER_BYTES + 8192, committed=RawLocn(512, 8000, 0))
    for avoid in (None, 3):
        with pytest.raises(Damaged, match="committed text of 8000 bytes is longer than one may be"):
            place_text(area, text_of(600), "/dev/x", avoid=avoid)
