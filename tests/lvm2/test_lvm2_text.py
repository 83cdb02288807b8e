"""The metadata text: what is read comes back, and damage is told from text."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.core.errors import Damaged
from ringfence.lvm2.text import Bare, Section, parse_text, print_text

SAMPLE = b"""\
# a comment, then a VG with things that nobody has heard of
vg0 {
id = "abc"   # trailing
seqno=7
flags = []
tags = ["a", 'b', plain , 4,]
hex = 0x1F
octal = 010
float = -2.50
quoted = "say \\"hi\\" \\\\ \\n"
"odd key" = 1
future {
deeper { deepest { x = 1 } }
}
}
contents = "Text Format Volume Group"
"""


def test_everything_that_the_grammar_allows_is_read() -> None:
    tree = parse_text(SAMPLE, "sample")
    vg = tree.section("vg0")
    assert vg is not None
    assert vg.string("id") == "abc"
    assert vg.number("seqno") == 7
    assert vg.get("flags") == ()
    assert vg.get("tags") == ("a", "b", "plain", 4)
    assert [vg.get(key) for key in ("hex", "octal", "float")] == [Bare("0x1F"), Bare("010"), Bare("-2.50")]
    assert vg.get("quoted") == 'say "hi" \\ \\n'
    assert vg.number("odd key") == 1
    future = vg.section("future")
    assert future is not None
    assert future.sections()[0][0] == "deeper"
    assert tree.string("contents") == "Text Format Volume Group"


def test_what_was_read_is_printed_so_that_it_reads_the_same() -> None:
    tree = parse_text(SAMPLE, "sample")
    printed = print_text(tree)
    assert printed.endswith(b"\n\0")
    assert b"hex = 0x1F\n" in printed
    assert b'quoted = "say \\"hi\\" \\\\ \\\\n"\n' in printed
    assert parse_text(printed, "again") == tree


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b'a = 1\nb = "never ends\n', 2, "string without an end"),
        (b"a {\nb = 1\n", 3, "section 'a' has no end"),
        (b"a = 1\n}\n", 2, "closing brace too many"),
        (b"a =\n", 2, "value is missing"),
        (b"a = [1, 2\nb = 3\n", 2, "list without an end"),
        (b"a = [1, [2]]\n", 1, "value is missing"),
        (b"a\nb = 1\n", 2, "neither a value nor a section follows 'a'"),
        (b"= 1\n", 1, "where a name should be"),
        (b"x {" * 40, 1, "nest too deep"),
    ],
)
def test_damage_is_named_with_its_line(text: bytes, line: int, words: str) -> None:
    with pytest.raises(Damaged) as caught:
        parse_text(text, "/dev/x")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("/dev/x: ")
    assert f"line {line}: " in str(caught.value)
    assert words in str(caught.value)


texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)
numbers = st.integers(min_value=-(10**18), max_value=10**18)
bare = st.sampled_from([Bare("0x10"), Bare("1.5"), Bare("007"), Bare("+3"), Bare("-0")])
scalars = st.one_of(texts, numbers, bare)
values = st.one_of(scalars, st.lists(scalars, max_size=5).map(tuple))
keys = st.one_of(st.sampled_from(["id", "type", "stripes", "status", "pe_start", "description"]), texts)


def sections(depth: int) -> st.SearchStrategy[Section]:
    node = values if depth == 0 else st.one_of(values, sections(depth - 1))
    return st.lists(st.tuples(keys, node), max_size=4).map(lambda items: Section(tuple(items)))


@given(sections(4))
def test_every_tree_survives_printing(tree: Section) -> None:
    assert parse_text(print_text(tree), "x") == tree


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_named_as_damaged(data: bytes) -> None:
    try:
        tree = parse_text(data, "x")
    except Damaged:
        return
    assert parse_text(print_text(tree), "x") == tree


@given(st.data())
def test_a_flipped_byte_is_read_or_named_as_damaged(data: st.DataObject) -> None:
    damaged = bytearray(SAMPLE)
    damaged[data.draw(st.integers(0, len(SAMPLE) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Damaged):
        tree = parse_text(bytes(damaged), "x")
        assert parse_text(print_text(tree), "x") == tree


def test_put_keeps_order_and_drop_forgets() -> None:
    section = Section((("a", 1), ("b", 2)))
    assert section.put("a", 3).items == (("a", 3), ("b", 2))
    assert section.put("c", ()).items == (("a", 1), ("b", 2), ("c", ()))
    assert section.put("c", ()).put("c", 5).items[-1] == ("c", 5)
    assert section.drop("a").items == (("b", 2),)


def test_bytes_that_are_not_utf8_survive() -> None:
    text = b'description = "caf\xe9"\n'
    tree = parse_text(text, "x")
    assert b"caf\xe9" in print_text(tree)
