"""-S without a daemon: what an expression passes, and what is refused where.

Beside stock LVM2 the same is tried by tests/commands/test_commands_stock_reports.py."""

import datetime
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ringfence.cli.report.fields import LVS, Field, find
from ringfence.cli.report.moments import parse_moment
from ringfence.cli.report.select import parse_selection, selected
from ringfence.core.errors import BadInput

M = 1 << 20


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


DAY_S = 86400
ROWS: dict[str, list[Any]] = {
    "lv_name": ["a", "b", "c"],
    "lv_size": [M, 2 * M, 3 * M],
    "lv_tags": ["", "x", "x,y"],
    "seg_count": [1, 2, ""],
    "lv_time": [0, 1_577_836_800, 1_577_836_800 + DAY_S],  # never, 2020-01-01, 2020-01-02 (UTC)
    "copy_percent": ["", 50.0, 100.0],
    "lv_fixed_minor": [True, False, "unknown"],
    "lv_permissions": ["writeable", "read-only", ""],
}


def passed(text: str) -> str:
    node = parse_selection(text, lambda name: find(LVS, name))

    def values(field: Field) -> list[Any]:
        return ROWS[field.name]

    passes = [True] * 3 if node is None else selected(node, values)
    return "".join(name for name, one in zip("abc", passes, strict=True) if one)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "abc"), ("ALL", "abc"), ("name=a", "a"), ("name!=a", "bc"),
        ("name=~'[ab]'", "ab"), ("name!~^[ab]$", "c"), ("name=~[a|b]", "ab"),
        ("size>1m", "bc"), ("size<=2", "ab"), ("size=2048k", "b"), ("size=4096s", "b"), ("size>2.5M", "c"),
        ("name=a || name=b && size>1m", "ab"), ("(name=a || name=b) && size>1m", "b"), ("!(name=a)", "bc"),
        ("tags=x", "bc"), ("tags=[x]", "b"), ("tags=[y,x]", "c"), ("tags={x && y}", "c"),
        ("tags={x || z}", "bc"), ('tags=""', "a"), ("tags!=x", "a"), ("seg_count=undefined", "c"),
        ("seg_count>0", "ab"), ("seg_count<9", "ab"),
        ("time since 2020-01-01", "bc"), ("time=2020-01-01", "b"), ("time!=2020-01-01", "ac"),
        ("time=2020", "bc"),
        ("time after 2020-01-01", "c"), ("time before 2020-01-01", "a"), ("time until 2020-01-01", "ab"),
        ("time=@1577836800", "b"), ("time='2020-01-01 00:00 +0000'", "b"), ("copy_percent>=50%", "bc"),
        ("copy_percent<60", "b"), ("lv_fixed_minor=fixed", "a"), ("lv_fixed_minor=0", "b"),
        ("lv_fixed_minor=unknown", "c"), ("lv_permissions=rw", "a"), ("lv_permissions='r'", "b"),
    ],
)  # fmt: skip
def test_what_passes(text: str, names: str) -> None:
    assert passed(text) == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nosuch=1", "Unrecognised selection field: nosuch"),
        ("name", "Unrecognised comparison operator"),
        ("name>a", "Operator can be used only with number, size, time or percent fields: name"),
        ("size since 2020", "Operator can be used only with time fields: size"),
        ("size=big", "Failed to parse numeric value"),
        ("size=5%", "Found percent value"),
        ("seg_count=5m", "Found size unit"),
        ("(name=a", "right parenthesis expected"),
        ("!name=a", "left parenthesis expected"),
        ("name=a b", "Expecting logical operator"),
        ("name=a &&", "Expecting field name"),
        ("name='a", "Missing end quote"),
        ("tags=[a,b||c]", "Only one type of logical operator"),
        ("tags=[a}", "incorrect character"),
        ("name=~'('", "is no regular expression"),
        ("time=2020-13", "month"),
        ("time='2020 10:00'", "Full date specification needed"),
        ("copy_percent>101", "out of range"),
    ],
)
def test_what_is_refused_names_the_place(text: str, said: str) -> None:
    with pytest.raises(BadInput, match="syntax error at") as caught:
        passed(text)
    assert said in caught.value.message
    assert caught.value.next


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2020", "2020-01-01 00:00:00", "2020-12-31 23:59:59"),
        ("2020-02", "2020-02-01 00:00:00", "2020-02-29 23:59:59"),
        ("20200228", "2020-02-28 00:00:00", "2020-02-28 23:59:59"),
        ("2020-02-28 10", "2020-02-28 10:00:00", "2020-02-28 10:59:59"),
        ("2020-02-28 10:05", "2020-02-28 10:05:00", "2020-02-28 10:05:59"),
        ("2020-02-28 10:05:06", "2020-02-28 10:05:06", "2020-02-28 10:05:06"),
        ("2020-02-28 10:05:06 +0200", "2020-02-28 08:05:06", "2020-02-28 08:05:06"),
        ("today", "2021-03-04 00:00:00", "2021-03-04 23:59:59"),
        ("yesterday", "2021-03-03 00:00:00", "2021-03-03 23:59:59"),
        ("2 hours ago", "2021-03-04 03:06:07", "2021-03-04 03:06:07"),
    ],
)
def test_a_time_is_a_stretch_of_time(text: str, first: str, last: str) -> None:
    now = datetime.datetime(2021, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    moment = parse_moment(text, now)
    told = [datetime.datetime.fromtimestamp(one, datetime.UTC) for one in moment]
    assert [f"{one:%Y-%m-%d %H:%M:%S}" for one in told] == [first, last]
