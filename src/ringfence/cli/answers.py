"""How answers reach the user: JSON objects with a version, lines, errors.

What takes long to load is loaded by what needs it: quick commands import this, too."""

from __future__ import annotations

import sys
import time

from ringfence.core.errors import RingfenceError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

VERSION = 1


def json_asked(words: Sequence[str]) -> bool:
    """Whether this command line wants JSON.  Asked before it is parsed, for it may be wrong."""
    own = list(words[: words.index("--")]) if "--" in words else list(words)
    if "--json" in own or "--reportformat=json" in own or "--reportformat=json_std" in own:
        return True
    at = own.index("--reportformat") + 1 if "--reportformat" in own else len(own)
    return at < len(own) and own[at] in ("json", "json_std")


def print_json(answer: dict[str, Any]) -> None:
    """One object, with its version, on one or more lines."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode({"version": VERSION, **answer}), indent=2)
    print(text.decode())


def print_json_line(answer: dict[str, Any]) -> None:
    import msgspec

    print(msgspec.json.encode({"version": VERSION, **answer}).decode(), flush=True)


def print_error(error: RingfenceError, as_json: bool) -> None:
    if as_json:
        print_json({"error": error.as_dict()})
        return
    print(f"  {one_line(str(error))}", file=sys.stderr)


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def on_terminal() -> bool:
    return sys.stdout.isatty()


def clock_time(wall_ms: int) -> str:
    """Local wall time with milliseconds, for people."""
    if not wall_ms:
        return "-"
    import datetime

    at = datetime.datetime.fromtimestamp(wall_ms / 1000).astimezone()
    return f"{at:%Y-%m-%d %H:%M:%S}.{wall_ms % 1000:03d}"


def stamp(wall_ms: int) -> str:
    """Wall time in UTC to the second, without blanks: fit for a column."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall_ms // 1000))


def age(since_wall_ms: int, now_wall_ms: int) -> str:
    """How long ago, in words as short as they are clear.  Wall clocks may jump: never below 0."""
    seconds = max(0, now_wall_ms - since_wall_ms) // 1000
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def columns(rows: Sequence[Sequence[str]], gap: str = "  ") -> list[str]:
    """Plain aligned lines."""
    if not rows:
        return []
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
