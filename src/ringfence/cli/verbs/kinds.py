"""What options' values mean.  Each raises BadInput for what it does not understand."""

from __future__ import annotations

from ringfence.cli.verbs.words import LeftToStock
from ringfence.core.errors import BadInput
from ringfence.core.units import parse_extents, parse_signed_extents, parse_signed_size, parse_size

_ACTIVATIONS = {
    "y": "ey", "ay": "ey", "ey": "ey", "e": "ey", "sy": "sy", "s": "sy", "n": "n", "an": "n", "en": "n",
    "ly": "ey", "ln": "n",
}  # fmt: skip
_POLICIES = ("contiguous", "cling", "normal", "anywhere", "inherit")
_OURS = ("linear", "striped")


def size(text: str) -> int:
    """Bytes."""
    return parse_size(text)


def extents(text: str) -> tuple[int, str]:
    """A number, and what it is a percentage of."""
    return parse_extents(text)


def size_change(text: str) -> tuple[str, int]:
    """Sign, bytes."""
    return parse_signed_size(text)


def extents_change(text: str) -> tuple[str, int, str]:
    """Sign, a number, and what it is a percentage of."""
    return parse_signed_extents(text)


def policy(text: str) -> str:
    """--alloc."""
    if text not in _POLICIES:
        raise BadInput(f"{text!r} is not one of {', '.join(_POLICIES)}")
    return text


def activation(text: str) -> str:
    if text not in _ACTIVATIONS:
        raise BadInput(f"{text!r} is not ey, sy or n")
    return _ACTIVATIONS[text]


def activation_mode(text: str) -> str:
    """--activationmode.  Linear and striped LVs are never degraded: whole, or partial."""
    if text not in ("complete", "degraded", "partial"):
        raise BadInput(f"{text!r} is not complete, degraded or partial")
    return text


def wait_ms(text: str) -> int | None:
    """None: for ever."""
    if text == "forever":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e9:
        raise BadInput(f"{text!r} is neither seconds nor 'forever'")
    return round(seconds * 1000)


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise BadInput(f"{text!r} is not a whole number")
    return int(text)


def yes_or_no(text: str) -> bool:
    if text not in ("y", "n"):
        raise BadInput(f"{text!r} is neither y nor n")
    return text == "y"


def tag(text: str) -> str:
    """LVM2 takes tags with @ and without."""
    return text.removeprefix("@")


def segment_type(text: str) -> str:
    """--type.  Raises LeftToStock."""
    if text not in _OURS:
        raise LeftToStock(f"segment type {text}")
    return text


def zero(text: str) -> str:
    """--zero of a PV.  Raises LeftToStock."""
    if not yes_or_no(text):
        raise LeftToStock("a PV whose first sectors are left as they are")
    return text


def metadata_type(text: str) -> str:
    """--metadatatype: LVM2 has one left."""
    if text not in ("2", "lvm2"):
        raise BadInput(f"{text!r} is not lvm2")
    return text
