"""LVM2 of other versions than this host's, as build_lvm2.sh makes them: the same stories, the same writers.

Between versions requests may stand in another order (a table in docs/lvm2.md); what must be the same is which
commands succeed, and what is said of those that do not.  LVM2_BUILT names the directory of the builds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lvm2_story import outcome, replay
from stock_rig import ONE, TWO, LabHost, Written, clear_vgs, done, many_writers, start_vg
from tap import taps_of

from ringfence.lab.cluster import Lab

VERSIONS = ("2.03.11", "2.03.16", "2.03.31", "2.03.39", "git")
BUILT = Path(os.environ.get("LVM2_BUILT", "build/lvm2"))
STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))

pytestmark = pytest.mark.long


@pytest.fixture(params=VERSIONS)
def hosts(request: pytest.FixtureRequest, pair: Lab) -> Iterator[dict[str, LabHost]]:
    """With these commands; they share an empty disk."""
    tools = BUILT.absolute() / request.param / "bin"
    found = {name: LabHost(pair, node, tools) for name, node in (("one", ONE), ("two", TWO))}
    assert request.param in done(found["one"].start("lvs", "--version")), "make lvm2-versions"
    yield found
    clear_vgs(list(found.values()))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_same_commands_succeed(path: Path, hosts: dict[str, LabHost]) -> None:
    text, now = replay(path, hosts, taps_of(hosts), str(hosts["one"].lab.disk))
    assert outcome(now) == outcome(text)


def test_four_writers_lose_nothing(hosts: dict[str, LabHost]) -> None:
    both = list(hosts.values())
    start_vg(both, both[0].lab.disk)
    assert many_writers(both, "vg0", writers=4, each=20) == Written(80, 80, 80)


def test_versions_are_mixed(pair: Lab) -> None:
    """The oldest on one host, the newest on the other."""
    both = [
        LabHost(pair, node, BUILT.absolute() / version / "bin")
        for node, version in ((ONE, VERSIONS[0]), (TWO, VERSIONS[-1]))
    ]
    start_vg(both, pair.disk)
    assert many_writers(both, "vg0", writers=4, each=20) == Written(80, 80, 80)
    clear_vgs(both)
