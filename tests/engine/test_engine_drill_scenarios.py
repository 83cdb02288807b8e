"""Cabling drills as files: a new admin may learn from them what a drill does."""

import os
from pathlib import Path

import pytest
from drill_story import BadCommand, Story, replay

SCENARIOS = sorted((Path(__file__).parent / "drills").glob("*.txt"))


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 12


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    text, now = replay(path)
    if os.environ.get("REWRITE"):
        path.write_text(now)
    else:
        assert now == text


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_each_begins_with_what_it_teaches(path: Path) -> None:
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("line", ["frobnicate", "drill n9", "plug n1 PSU3 pdu-a[1]", "go"])
def test_the_harness_rejects_what_it_does_not_know(line: str) -> None:
    with pytest.raises((BadCommand, AssertionError)):
        Story().do(line)
