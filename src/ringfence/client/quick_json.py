"""JSON for commands that ask and end.

Python's own `json` is C in a wrapping that loads `re`, `enum` and `collections`, which takes longer than all
the rest of a command.  Here is the same C without it."""

from __future__ import annotations

try:
    from _json import encode_basestring as quoted
    from _json import make_scanner
except ImportError:  # another Python than CPython
    from json.encoder import py_encode_basestring as quoted
    from json.scanner import make_scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def written(value: Any) -> str:
    """As `json.dumps(value, ensure_ascii=False, separators=(",", ":"))` has it.

    Raises TypeError for what is none of text, whole number, bool, None, and lists, tuples, dicts of such."""
    if isinstance(value, str):
        return quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{quoted(key)}:{written(one)}' for key, one in value.items())}}}"
    raise TypeError(f"{type(value).__name__} is not sent")


def read(text: str) -> Any:
    """As `json.loads` has it.  Raises ValueError."""
    text = text.strip(" \t\r\n")
    try:
        value, end = _scan(text, 0)
    except StopIteration as error:
        raise ValueError(f"no JSON value at {error.value}") from None
    if end != len(text):
        raise ValueError(f"more than one JSON value: {end}")
    return value


class _Asked:
    """What the scanner asks of `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012  (Python's own scanner, where there is no C)

    @staticmethod
    def parse_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON value")


_scan = make_scanner(_Asked())  # type: ignore[arg-type]
