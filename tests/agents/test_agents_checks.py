"""What is said of devices beside the real agents: tests/agents/checks, in the format of check_story."""

import os
from pathlib import Path

import pytest
from agent_rig import stock
from check_story import BadCommand, replay

CHECKS = sorted((Path(__file__).parent / "checks").glob("*.txt"))


def test_there_are_checks() -> None:
    assert len(CHECKS) >= 3


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_check(path: Path) -> None:
    text, now = replay(path, lambda agent: stock()[agent].metadata if agent in stock() else None)
    assert "geheim" not in "".join(line for line in now.splitlines() if not line.startswith("secret "))
    if os.environ.get("REWRITE"):
        path.write_text(now)
    else:
        assert now == text


def test_the_harness_rejects_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("agent fence_apc\ngiven ip=1\n----\n")
    with pytest.raises(BadCommand):
        replay(tmp_path / "a.txt", lambda agent: None)
