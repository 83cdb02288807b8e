"""Lengths of time and points in time as people type them."""

import datetime
import re

from ringfence.core.errors import BadInput

_UNITS_MS = {"s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART = re.compile(r"(\d+)(s|min|m|h|d)")
_WHOLE = re.compile(r"(?:\d+(?:s|min|m|h|d))+")


def duration_ms(text: str) -> int:
    """Milliseconds of "30s", "45m", "2h", "1d", "1h30m".

    Raises BadInput for anything else: a bare number could be minutes or hours."""
    words = "".join(text.split()).lower()
    if not _WHOLE.fullmatch(words):
        raise BadInput(f"{text!r} is no length of time", next="give for example 30s, 45m, 2h or 1h30m")
    return sum(int(count) * _UNITS_MS[unit] for count, unit in _PART.findall(words))


def moment(text: str, now_wall_ms: int) -> int:
    """Wall-clock milliseconds of a date (ISO 8601; without a zone it is local), or of so long ago ("2h").

    Raises BadInput."""
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        pass
    try:
        return now_wall_ms - duration_ms(text)
    except BadInput:
        raise BadInput(
            f"{text!r} is no point in time", next="give for example 2h (ago) or 2026-11-26T14:00"
        ) from None
