"""Disk slots: the bytes, what damage looks like, and whom a mark hits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.core.errors import Damaged, Refused
from ringfence.core.ids import Epoch, Life
from ringfence.wire import slots
from ringfence.wire.slots import BLOCK_BYTES, Header, Mark, Own

LIFE = Life(3, "machine", "boot-a", 2)
OWN = Own(LIFE, 17)
MARK = Mark(LIFE, Epoch(5, 1), cut=False, by=1)
ADMITTED = Epoch(4, 1)


def test_blocks_come_back() -> None:
    header = Header("ring", "uuid", 8, "lv")
    assert slots.parse_header(slots.print_block(header, 0), "x") == header
    assert slots.parse_own(slots.print_block(OWN, slots.own_offset(3)), 3, "x") == OWN
    assert slots.parse_mark(slots.print_block(MARK, slots.mark_offset(3)), 3, "x") == MARK


def test_the_layout_is_as_documented() -> None:
    """docs/formats/slots.md: another implementation must find the same bytes."""
    data = slots.print_block(OWN, slots.own_offset(3))
    assert len(data) == BLOCK_BYTES == 4096
    assert (data[:8], data[8:12], data[16:20]) == (b"RFSLLIFE", b"\x01\0\0\0", b"\x05\0\0\0")
    assert slots.mark_offset(3) == 6 * 4096


def test_zeros_were_never_written() -> None:
    zeros = bytes(BLOCK_BYTES)
    assert slots.parse_header(zeros, "x") is None
    assert slots.parse_own(zeros, 3, "x") is None
    assert slots.parse_mark(zeros, 3, "x") is None


@given(st.lists(st.booleans(), min_size=8, max_size=8), st.booleans())
def test_a_torn_mark_is_never_no_mark(landed: list[bool], first: bool) -> None:
    """Any mixture of sectors of 512 bytes, over zeros or over an older mark."""
    old = bytes(BLOCK_BYTES)
    if not first:
        old = slots.print_block(
            Mark(Life(3, "machine", "boot-0", 9), Epoch(2, 1), True, 2), slots.mark_offset(3)
        )
    new = slots.print_block(MARK, slots.mark_offset(3))
    data = b"".join(
        (new if one else old)[at : at + 512]
        for one, at in zip(landed, range(0, BLOCK_BYTES, 512), strict=True)
    )
    try:
        read = slots.parse_mark(data, 3, "x")
    except Damaged:
        return
    assert read == MARK or data == old


def test_another_place_s_block_is_damaged() -> None:
    for parse, data in (
        (slots.parse_mark, slots.print_block(MARK, slots.mark_offset(2))),
        (slots.parse_own, slots.print_block(OWN, slots.own_offset(2))),
        (slots.parse_mark, slots.print_block(OWN, slots.mark_offset(3))),
        (
            slots.parse_mark,
            slots.print_block(Mark(Life(4, "m", "b", 1), Epoch(), True, 1), slots.mark_offset(3)),
        ),
        (slots.parse_own, b"\xff" * BLOCK_BYTES),
        (slots.parse_own, b""),
    ):
        with pytest.raises(Damaged):
            parse(data, 3, "x")


@pytest.mark.parametrize(
    ("mark", "life", "hit"),
    [
        (MARK, LIFE, True),
        (MARK, Life(3, "machine", "boot-a", 1), True),
        (MARK, Life(3, "machine", "boot-a", 3), False),
        (Mark(LIFE, Epoch(5, 1), cut=True, by=1), Life(3, "machine", "boot-a", 3), False),
        (MARK, Life(3, "machine", "boot-b", 1), False),
        (MARK, Life(2, "machine", "boot-a", 2), False),
        (Mark(Life(3), Epoch(5, 1), cut=True, by=1), LIFE, True),
        (Mark(Life(3), ADMITTED, cut=True, by=1), LIFE, False),
        (Mark(Life(2), Epoch(5, 1), cut=True, by=1), LIFE, False),
    ],
)  # fmt: skip
def test_whom_a_mark_hits(mark: Mark, life: Life, hit: bool) -> None:
    assert mark.hits(life, ADMITTED) is hit


def test_a_life_never_let_in_is_hit_by_any_unknown_mark() -> None:
    assert Mark(Life(3), Epoch(1, 1), cut=True, by=1).hits(LIFE, Epoch())


def test_room() -> None:
    nodes = slots.nodes_in(4 << 20)
    assert slots.size_bytes(nodes) <= 4 << 20 < slots.size_bytes(nodes + 1)
    slots.check_room(Header("ring", "uuid", 8, "lv"), 8, "vg0")
    with pytest.raises(Refused, match="room for node ids 1 to 8, not for 9"):
        slots.check_room(Header("ring", "uuid", 8, "lv"), 9, "vg0")
