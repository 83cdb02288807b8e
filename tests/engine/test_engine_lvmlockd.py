"""Stock LVM2's requests as files: who learns lvmlockd's rules, or ours beside them, may read them."""

import os
from pathlib import Path

import pytest
from lvm_story import BadCommand, Story, replay

SCENARIOS = sorted((Path(__file__).parent / "lvmlockd").glob("*.txt"))


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 8


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, tmp_path: Path) -> None:
    text, now = replay(path, tmp_path)
    if os.environ.get("REWRITE"):
        path.write_text(now)
    else:
        assert now == text


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_each_begins_with_what_it_teaches(path: Path) -> None:
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("line", ["frobnicate", "n1 frobnicates vg0/vm1", "n9.1 lock_vg ex vg0"])
def test_the_harness_rejects_what_it_does_not_know(line: str, tmp_path: Path) -> None:
    with pytest.raises(BadCommand):
        Story(tmp_path).do(line)
