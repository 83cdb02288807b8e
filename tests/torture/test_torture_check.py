"""The checker of lock histories, as files to read: scenarios, in the format of torture_story."""

import os
from pathlib import Path

import pytest
from torture_story import BadLine, Story, replay

from ringfence.lab.torture.check import check
from ringfence.lab.torture.history import Granted, Log, Started, parse_log

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 3


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    text, now = replay(path)
    if os.environ.get("REWRITE"):
        path.write_text(now)
    else:
        assert now == text


@pytest.mark.parametrize(
    "line",
    [
        "1 n1.a frobnicates r",
        "1 n1.a asks r",
        "1 n1.a gets r EX 1.1.1",
        "x n1.a asks r EX",
        "1 n1.a asks r EX hot=1",
    ],
)
def test_the_harness_rejects_what_it_does_not_know(line: str) -> None:
    with pytest.raises(BadLine):
        Story().add(line)


def test_a_history_that_no_client_can_have_written_is_refused() -> None:
    log = Log("n1.a", "n1", (Started("n1.a", "n1", 0), Granted(1, "EX", "1.1.1", 5)))
    with pytest.raises(ValueError, match="no operation"):
        check([log], ())


def test_a_torn_last_line_is_left_out_and_a_damaged_one_is_not() -> None:
    start = b'{"type":"Started","client":"n1.a","node":"n1","at_ns":1}\n'
    lost = b'{"type":"Lost","op":1,"why":"told","at_ns":2}\n'
    log = parse_log(start + lost + lost[:20])
    assert log is not None
    assert len(log.events) == 2
    assert parse_log(start[:20]) is None
    with pytest.raises(ValueError, match="line 2"):
        parse_log(start + lost[:20] + b"\n")
