"""The text of lvmlockd's socket, and that it is what LVM2's own grammar reads."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.core.errors import BadInput
from ringfence.lvm2.lockd_text import END, parse_fields, print_fields
from ringfence.lvm2.text import parse_text

HELLO = b'request = "hello"\n'
LOCK = b'request="lock_vg"\ncmd ="vgs"\npid =14719\nmode ="sh"\nopts ="none"\nvg_name ="vg0"\n'
"""As two of LVM2's printers write them."""


def test_both_printers_of_lvm2_are_read() -> None:
    assert parse_fields(HELLO) == {"request": "hello"}
    assert parse_fields(LOCK) == {
        "request": "lock_vg", "cmd": "vgs", "pid": "14719", "mode": "sh", "opts": "none", "vg_name": "vg0",
    }  # fmt: skip


def test_blank_lines_say_nothing_and_the_last_of_two_counts() -> None:
    assert parse_fields(b'\n  \na = 1\na = "x"\n\n') == {"a": "x"}


@pytest.mark.parametrize(
    "frame",
    [b"hello", b"a = ", b'a = "x', b'a = "x" b = 1', b"= 1", b"a = x", b"a = 1.5", b"a { b = 1 }", b"\0\n"],
)
def test_anything_else_is_refused(frame: bytes) -> None:
    with pytest.raises(BadInput):
        parse_fields(frame)


@given(st.binary(max_size=200))
def test_noise_raises_nothing_else(noise: bytes) -> None:
    with contextlib.suppress(BadInput):
        parse_fields(noise)


words = st.from_regex(r"[a-z][a-z_]{0,12}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20)


@given(st.dictionaries(words, texts | st.integers(-(1 << 40), 1 << 40), min_size=1, max_size=8))
def test_what_is_printed_is_read_by_us_and_by_lvm2s_grammar(fields: dict[str, str | int]) -> None:
    frame = print_fields(fields.items())
    assert frame.endswith(END)
    body = frame.removesuffix(END)
    assert parse_fields(body) == {key: str(value) for key, value in fields.items()}
    assert dict(parse_text(body + b"\n\0", "reply").items) == fields
