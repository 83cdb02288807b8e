"""The rules of locks, as files to read: tests/locks/scenarios, in the format of lock_story."""

import os
from pathlib import Path

import pytest
from lock_story import BadCommand, NodesStory, ResourceStory, replay

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*/*.txt"))


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 20


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_scenario(path: Path) -> None:
    text, now = replay(path)
    if os.environ.get("REWRITE"):
        path.write_text(now)
    else:
        assert now == text


BAD = ["frobnicate", "request a XX", "request a UN", "request a EX SOON", "request a EX color=red", "purge a"]


@pytest.mark.parametrize("line", [*BAD, "request aa EX", "freeze now"])
def test_the_resource_harness_rejects_what_it_does_not_know(line: str) -> None:
    with pytest.raises(BadCommand):
        ResourceStory().do(line)


BAD_FOR_NODES = ["frobnicate", "request n9 a EX", "request n1 a", "unlock a", "order n1", "lost"]


@pytest.mark.parametrize("line", BAD_FOR_NODES)
def test_the_nodes_harness_rejects_what_it_does_not_know(line: str) -> None:
    with pytest.raises(BadCommand):
        NodesStory().do(line)
