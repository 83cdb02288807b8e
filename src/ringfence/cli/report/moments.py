"""Times in a selection: YYYY[-MM[-DD]] [hh[:mm[:ss]]] [+hh[:mm]], each a stretch of time; "yesterday".

Source: lvmreport(7), "Date and time"; LVM2 libdm/libdm-report.c (_get_date, _get_time, _get_tz)."""

import datetime
import re
from typing import NamedTuple

_MOMENT = re.compile(
    r"(?P<year>\d{4})(?:-(?P<month>\d{2})(?:-(?P<day>\d{2}))?|(?P<month2>\d{2})(?P<day2>\d{2})?)?\s*"
    r"(?:(?P<hour>\d{2})(?::?(?P<minute>\d{2})(?::?(?P<second>\d{2}))?)?)?\s*"
    r"(?:(?P<sign>[+-])(?P<off_h>\d{2}):?(?P<off_m>\d{2})?)?"
)
_AGO = re.compile(r"(\d+)\s*(second|minute|hour|day|week|month|year)s?\s*ago", re.IGNORECASE)
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}


class Moment(NamedTuple):
    first_s: int
    last_s: int
    """Both count."""


def parse_moment(text: str, now: datetime.datetime | None = None) -> Moment:
    """Raises ValueError."""
    now = now or datetime.datetime.now().astimezone()
    named = _named(text.strip().lower(), now)
    if named is not None:
        return named
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        raise ValueError("give YYYY-MM-DD hh:mm:ss, or part of it")
    part = found.groupdict()
    month, day = part["month"] or part["month2"], part["day"] or part["day2"]
    if part["hour"] and not day:
        raise ValueError("Full date specification needed")
    zone = None
    if part["sign"]:
        offset = datetime.timedelta(hours=int(part["off_h"]), minutes=int(part["off_m"] or 0))
        zone = datetime.timezone(-offset if part["sign"] == "-" else offset)
    first = datetime.datetime(
        int(part["year"]), int(month or 1), int(day or 1), int(part["hour"] or 0), int(part["minute"] or 0),
        int(part["second"] or 0), tzinfo=zone,
    )  # fmt: skip
    if part["hour"]:
        step = {"second": 1, "minute": 60}.get(
            "second" if part["second"] else "minute" if part["minute"] else "", 3600
        )
        after = first + datetime.timedelta(seconds=step)
    elif day:
        after = first + datetime.timedelta(days=1)
    elif month:
        after = (first + datetime.timedelta(days=31)).replace(day=1)
    else:
        after = first.replace(year=first.year + 1)
    return Moment(int(first.timestamp()), int(after.timestamp()) - 1)


def _named(text: str, now: datetime.datetime) -> Moment | None:
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("now",):
        return Moment(int(now.timestamp()), int(now.timestamp()))
    if text in ("today", "yesterday"):
        first = int((today - datetime.timedelta(days=text == "yesterday")).timestamp())
        return Moment(first, first + 86399)
    found = _AGO.fullmatch(text)
    if found is None:
        return None
    count, unit = int(found[1]), found[2].lower()
    days = {"month": 30, "year": 365}.get(unit)
    at = int(now.timestamp()) - count * (days * 86400 if days else _SECONDS[unit])
    return Moment(at, at)
