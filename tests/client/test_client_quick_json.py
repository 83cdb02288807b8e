"""JSON without Python's wrapping says and reads what Python's own does."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.client import quick_json

TEXTS = st.text(st.characters(codec=None))  # lone surrogates, too
SENT = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(TEXTS, inner),
)


@given(SENT)
@example({"id": "\u2028\"\\\0\x1f/", "call": {"lv": "\ud800", "n": -(1 << 70), "wipe": False, "pvs": ()}})
def test_what_is_sent_is_what_json_would_send(value: object) -> None:
    assert quick_json.written(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("value", [1.5, {1, 2}, b"x", {"a": [object()]}])
def test_what_no_call_has_is_not_sent(value: object) -> None:
    with pytest.raises(TypeError, match="is not sent"):
        quick_json.written(value)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
), st.booleans())  # fmt: skip
def test_what_json_wrote_is_read(value: object, ascii: bool) -> None:
    for text in (json.dumps(value, ensure_ascii=ascii), json.dumps(value, indent=1) + "\n"):
        assert quick_json.read(text) == value


@given(st.text("[]{}\",:01-+.eE tfn\\u\n", max_size=8) | st.text(max_size=4))
@example("")
@example("{} {}")
@example("[1,]")
@example("[NaN]")
@example('"\x01"')
def test_what_json_does_not_read_is_not_read(text: str) -> None:
    try:
        expected = json.loads(text, parse_constant=_refuse)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011  (whatever it says)
            quick_json.read(text)
    else:
        assert quick_json.read(text) == expected


def _refuse(name: str) -> None:
    raise ValueError(name)
