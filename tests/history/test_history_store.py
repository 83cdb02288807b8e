"""The history: what is kept, what is pruned, and what a bad disk does."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.core.errors import DeviceFailed, NotFound, RingfenceError
from ringfence.history import History
from ringfence.history.kinds import FENCE_KINDS

NAMES = {1: "a01n01", 2: "a01n02"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    one = History(path, NAMES)
    yield one
    one.close()


def test_events_come_back_whole_and_in_order(history: History) -> None:
    fields = {"node": 1, "words": ["naïve", {"x": None}], "deep": {"a": [1, 2]}}
    assert history.append("victim", "n1 is suspected", fields, 1700, 42) == 1
    assert history.append("joined", "n2 joined", {}, 1701, 43) == 2
    assert history.events(0, 10) == [
        {
            "seq": 1,
            "wall_ms": 1700,
            "boottime_ns": 42,
            "kind": "victim",
            "what": "n1 is suspected",
            "fields": fields,
        },
        {"seq": 2, "wall_ms": 1701, "boottime_ns": 43, "kind": "joined", "what": "n2 joined", "fields": {}},
    ]
    assert [event["seq"] for event in history.events(1, 10)] == [2]
    assert [event["seq"] for event in history.events(0, 1)] == [1]
    assert history.events(2, 10) == []


def test_it_outlives_its_daemon(path: Path) -> None:
    first = History(path)
    first.append("joined", "x", {}, 0, 0)
    first.close()
    second = History(path)
    assert second.append("joined", "y", {}, 0, 0) == 2
    assert [event["what"] for event in second.events(0, 9)] == ["x", "y"]
    second.close()


def test_it_outlives_a_killed_daemon(path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from ringfence.history import History\n"
        "h = History(Path(sys.argv[1]))\n"
        "for i in range(50): h.append('incident', str(i), {}, 0, 0)\n"
        "os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
    history = History(path)
    assert [event["what"] for event in history.events(0, 99)] == [str(number) for number in range(50)]
    history.close()


def test_fences_by_name_and_by_id(history: History) -> None:
    for kind, node in (("victim", 1), ("joined", 1), ("evidence", 1), ("incident", 2), ("config", 2)):
        history.append(kind, kind, {"node": node}, 0, 0)
    history.append("quarantine-lifted", "x", {"device": "bmc"}, 0, 0)
    assert [event["kind"] for event in history.fences("a01n01")] == ["victim", "evidence"]
    assert [event["kind"] for event in history.fences("2")] == ["incident"]
    assert [event["kind"] for event in history.fences("")] == [
        "victim", "evidence", "incident", "quarantine-lifted",
    ]  # fmt: skip
    with pytest.raises(NotFound, match="no node is called 'x'; choose one of: a01n01, a01n02"):
        history.fences("x")


def test_pruning_leaves_the_newest_and_every_fence_record(path: Path) -> None:
    history = History(path, NAMES, keep=10)
    for number in range(200):
        kind = FENCE_KINDS[number // 20 % len(FENCE_KINDS)] if number % 20 == 0 else "vg-changed"
        history.append(kind, str(number), {"node": 1}, 0, 0)
    events = history.events(0, 1000)
    ordinary = [int(event["what"]) for event in events if event["kind"] == "vg-changed"]
    assert ordinary[-9:] == list(range(191, 200))
    assert len(ordinary) <= 20, "at most twice what is kept, whenever one looks"
    assert [event["what"] for event in history.fences("a01n01")] == [
        str(number) for number in range(0, 200, 20)
    ]
    history.close()
    again = History(path)
    assert again.append("x", "x", {}, 0, 0) == 201, "a number is never used twice"
    again.close()


@pytest.mark.parametrize("damage", ["noise", "header", "middle", "other tables"])
def test_a_damaged_file_is_set_aside_with_a_line(path: Path, damage: str) -> None:
    first = History(path)
    for number in range(300):
        first.append("incident", "x" * 100 + str(number), {}, 0, 0)
    first.close()
    data = bytearray(path.read_bytes())
    if damage == "noise":
        path.write_bytes(os.urandom(8192))
    elif damage == "header":
        path.write_bytes(b"\0" * 100 + data[100:])
    elif damage == "middle":
        path.write_bytes(data[:4096] + os.urandom(8192) + data[12288:])
    else:
        path.unlink()
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY, kind TEXT)")
        db.commit()
        db.close()
    damaged = path.read_bytes()
    said: list[str] = []
    history = History(path, say=said.append)
    assert history.append("joined", "x", {}, 0, 0) == 1
    history.close()
    assert len(said) == 1
    assert "\n" not in said[0]
    aside = path.with_name("history.db.damaged-1")
    assert str(aside) in said[0]
    if damage != "other tables":  # SQLite could open that one, and has marked it so
        assert aside.read_bytes() == damaged, "nothing of it is lost"


def test_a_second_damaged_file_does_not_replace_the_first(path: Path) -> None:
    for number in (1, 2):
        path.write_bytes(b"noise" * 1000 + bytes([number]))
        History(path, say=lambda line: None).close()
    assert path.with_name("history.db.damaged-1").read_bytes()[-1] == 1
    assert path.with_name("history.db.damaged-2").read_bytes()[-1] == 2


def test_a_full_disk_fails_one_event_and_not_the_next(history: History) -> None:
    history.append("joined", "before", {}, 0, 0)
    (pages,) = history._db.execute("PRAGMA page_count").fetchone()
    history._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DeviceFailed, match=r"cannot use the history .*full; make room"):
        history.append("victim", "x" * 100_000, {}, 0, 0)
    history._db.execute("PRAGMA max_page_count = 100000")
    assert history.append("joined", "after", {}, 0, 0) == 2
    assert [event["what"] for event in history.events(0, 9)] == ["before", "after"]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RingfenceError, match=r"cannot use the history .*; make room or mend"):
        History(tmp_path / "none/history.db")


def test_incidents_are_flushed_and_the_rest_is_quick(history: History) -> None:
    """After an incident ordinary events must not go on paying for a flush each."""
    history.append("incident", "x", {}, 0, 0)
    assert history._db.execute("PRAGMA synchronous").fetchone() == (1,)
