"""Scenario files of the fence domain: each says in words what the rules mean."""

import os
from itertools import takewhile
from pathlib import Path

import pytest
from fence_story import BadCommand, replay
from word_story import WordStory

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


INDEX = Path(__file__).parents[2] / "docs/fencing.md"
BEGIN, END = "<!-- the scenario files; REWRITE=1 pytest tests/fencing writes it -->", "<!-- end -->"
LEAST, MOST_HEADING_LINES = 60, 3


def heading(path: Path) -> list[str]:
    """The comment that a file opens with: what a newcomer learns from it."""
    return [line.removeprefix("# ") for line in takewhile(lambda line: line[:1] == "#", _lines(path))]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_there_are_enough_to_learn_our_fencing_from():
    assert len(SCENARIOS) >= LEAST


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_each_says_first_what_it_teaches(path: Path):
    said = heading(path)
    assert 1 <= len(said) <= MOST_HEADING_LINES
    assert said[-1].rstrip().endswith((".", ")")), "in whole sentences"


def test_the_index_names_them_all():
    """In docs/fencing.md, by their prefix."""
    says = {path: " ".join(" ".join(heading(path)).split()) for path in SCENARIOS}
    rows = [
        f"- [{path.stem}](../tests/fencing/scenarios/{path.name}): {said}" for path, said in says.items()
    ]
    text = INDEX.read_text()
    before, rest = text.split(BEGIN)
    written, after = rest.split(END)
    if os.environ.get("REWRITE"):
        INDEX.write_text("\n".join([f"{before}{BEGIN}", "", *rows, "", f"{END}{after}"]))
    else:
        assert written.strip().splitlines() == rows


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
