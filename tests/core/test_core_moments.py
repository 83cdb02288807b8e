"""Lengths of time and dates as people type them."""

import datetime

import pytest

from ringfence.core.errors import BadInput
from ringfence.core.moments import duration_ms, moment

NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [("30s", 30_000), ("45m", 2_700_000), ("45min", 2_700_000), ("2h", 7_200_000), ("1h30m", 5_400_000),
     ("1 d", 86_400_000), ("1D2H", 93_600_000)],
)  # fmt: skip
def test_a_length_of_time(text: str, ms: int) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "5", "2 hours", "-1h", "h", "1.5h", "1h x"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(BadInput, match="is no length of time; give for example"):
        duration_ms(text)


def test_a_point_in_time() -> None:
    assert moment("2h", NOW_MS) == NOW_MS - 7_200_000
    date = datetime.datetime(2026, 11, 26, 14, tzinfo=datetime.UTC)
    assert moment("2026-11-26T14:00+00:00", NOW_MS) == int(date.timestamp() * 1000)
    with pytest.raises(BadInput, match="is no point in time"):
        moment("yesterday", NOW_MS)
