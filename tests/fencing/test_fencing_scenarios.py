"""Scenario files of the fence domain: each says in words what the rules mean."""

import os
from pathlib import Path

import pytest
from fence_story import BadCommand, replay
from word_story import WordStory

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


def test_there_are_scenarios():
    assert len(SCENARIOS) >= 8


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path):
    text, now = replay(path, WordStory())
    if os.environ.get("REWRITE"):
        path.write_text(now)
    else:
        assert now == text


@pytest.mark.parametrize("line", ["frobnicate", "lose 3/b1.1 color=red", "say ipmi_n3 off"])
def test_the_harness_rejects_what_it_does_not_know(line: str):
    with pytest.raises(BadCommand):
        WordStory().do(line)
