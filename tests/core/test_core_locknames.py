"""Names of any content: one text each, readable and printable, and back."""

import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.core.errors import BadInput
from ringfence.core.locknames import (
    NAME_BYTES,
    escape,
    lockspace_name,
    resource_name,
    text_of,
    unescape,
)

NAMES = st.one_of(
    st.binary(min_size=1, max_size=NAME_BYTES),
    st.text(min_size=1, max_size=16).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text("\\x41/ é", min_size=1, max_size=30).map(str.encode),
)


@given(NAMES)
@example(b"\\x41")
@example("é".encode() + b"\xff")
@example(bytes(range(64)))
@example(bytes(range(192, 256)))
def test_any_bytes_and_back(name: bytes) -> None:
    text = escape(name)
    assert unescape(text) == name
    assert resource_name(text) == text
    assert unescape(lockspace_name(text)) == name
    assert json.loads(json.dumps(text)) == text
    text.encode()  # no surrogates: JSON and msgpack take it
    assert text.strip() == text
    assert len(text.split()) == 1
    assert all(unicodedata.category(one)[0] not in "ZC" or unicodedata.category(one) == "Cn" for one in text)


@given(st.lists(NAMES, min_size=2, max_size=2, unique=True))
def test_two_names_have_two_texts(names: list[bytes]) -> None:
    one, other = map(escape, names)
    assert one != other
    assert lockspace_name(one) != lockspace_name(other)


@given(NAMES, st.data())
def test_every_way_to_write_a_name_means_the_same(name: bytes, data: st.DataObject) -> None:
    """Any byte may be written as \\xHH, in capitals or not."""
    plain = "".join(data.draw(st.sampled_from([f"\\x{byte:02x}", f"\\x{byte:02X}"])) for byte in name)
    assert resource_name(plain) == escape(name)


def test_how_names_look() -> None:
    assert escape(b"chess") == "chess"
    assert escape("Stra\u00dfe".encode()) == "Straße"
    assert escape(b"a b\t\\") == r"a\x20b\x09\\"
    assert escape("x\u202ey\u200b".encode()) == r"x\xe2\x80\xaey\xe2\x80\x8b"
    assert lockspace_name("a/b") == r"a\x2fb"
    assert resource_name("a/b") == "a/b"


def test_what_a_program_gives() -> None:
    assert text_of("a\\b") == r"a\\b"
    assert text_of(b"\xff") == r"\xff"
    assert text_of("\udcff") == r"\xff"
    with pytest.raises(BadInput, match="is no text"):
        text_of("\ud800")


NO_NAMES = ["", "\\", "\\x", "\\x4", "\\xzz", "\\n", "x" * 65, "\\x00" * 65, "é" * 33, "\ud800"]


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_cannot_be(text: str) -> None:
    for name_of in (lockspace_name, resource_name):
        with pytest.raises(BadInput):
            name_of(text)


def test_the_longest() -> None:
    assert len(unescape(resource_name("\\xff" * NAME_BYTES))) == NAME_BYTES
