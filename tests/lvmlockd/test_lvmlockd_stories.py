"""What stock LVM2 says to ringfence, and hears: tests/lvmlockd/stories, in the format of lvm2_story."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lvm2_story import BadCommand, replay
from stock_rig import ONE, TWO, LabHost, clear_vgs
from tap import taps_of

from ringfence.lab.cluster import Lab

STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))


@pytest.fixture
def hosts(pair: Lab) -> Iterator[dict[str, LabHost]]:
    """They share an empty disk."""
    found = {"one": LabHost(pair, ONE), "two": LabHost(pair, TWO)}
    yield found
    clear_vgs(list(found.values()))


def test_there_are_stories() -> None:
    assert len(STORIES) >= 3


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, hosts: dict[str, LabHost]) -> None:
    text, now = replay(path, hosts, taps_of(hosts), str(hosts["one"].lab.disk))
    if os.environ.get("REWRITE"):
        path.write_text(now)
    else:
        assert now == text


def test_the_harness_rejects_what_it_does_not_know(tmp_path: Path, hosts: dict[str, LabHost]) -> None:
    for text in ("three vgs\n----\n", "one\n----\n"):
        (tmp_path / "a.txt").write_text(text)
        with pytest.raises(BadCommand):
            replay(tmp_path / "a.txt", hosts, taps_of(hosts), "")
