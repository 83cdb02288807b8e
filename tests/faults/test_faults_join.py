"""A host joins while the others work, and one of them holds very many locks."""

import itertools
import sys
from pathlib import Path

import pytest
from faults_lab import Cluster, eventually, running

from ringfence.lab.parts import Part

HERE = Path(__file__).parent
LONGEST_PAUSE_MS = 2000
"""Of a client that takes one lock after the other, while the host joins; beyond what it waited before."""


@pytest.mark.parametrize("locks", [4_000, pytest.param(100_000, marks=[pytest.mark.long])])
def test_a_host_joins_under_load(locks: int, capsys: pytest.CaptureFixture[str]) -> None:
    """It takes the state over while clients go on; whatever the state knows it can act on at once."""
    with running(3) as cluster:
        cluster.stage.type(cluster.name(3), "leave")
        held = run(cluster, 1, "hold", str(locks))
        took_s = float(wait_for(held, locks / 300))
        flood = run(cluster, 2, "flood")
        eventually(lambda: flood.exists() and flood.read_text().count("\n") > 100)
        usual_ms = longest_pause_ms(flood)
        lives = [cluster.life(1), cluster.life(2)]
        cluster.lab.start(cluster.name(3), Part.DAEMON)
        joined_s = eventually(lambda: cluster.ready(3, 1, 2), what=cluster.tell)
        before = flood.read_text().count("\n")
        eventually(lambda: flood.read_text().count("\n") > before + 50)
        pause_ms = longest_pause_ms(flood)
        assert pause_ms < LONGEST_PAUSE_MS + usual_ms
        (space,) = [one for one in cluster.status(3)["lockspaces"] if one["name"] == "many"]
        assert space["resources"] == locks
        assert [cluster.life(1), cluster.life(2)] == lives
        assert cluster.victims(3) == []
        cluster.lab.power(cluster.name(1), "off")
        fenced_s = eventually(lambda: cluster.ready(3, 2), what=cluster.tell)
        free = [one for one in cluster.status(3)["lockspaces"] if one["name"] == "many"]
        assert not free, "with its only member gone the lockspace is, too"
        with capsys.disabled():
            print(
                f"\n{locks} locks taken in {took_s:.1f} s; joined in {joined_s:.1f} s, the longest pause of "
                f"another host's client {pause_ms} ms; lost, fenced and cleaned up in {fenced_s:.1f} s"
            )


def longest_pause_ms(flood: Path) -> int:
    """Between two grants, so far."""
    text = flood.read_text()
    times = [int(line.split()[1]) for line in text[: text.rfind("\n")].splitlines()]
    return max(later - one for one, later in itertools.pairwise(times))


def run(cluster: Cluster, number: int, what: str, *words: str) -> Path:
    """Start one of the programs beside this file on a host; its log."""
    node = cluster.name(number)
    log = cluster.lab.root(node) / f"{what}.log"
    argv = [sys.executable, str(HERE / f"faults_{what}.py"), *words, str(log)]
    cluster.lab.spawn(node, argv, log.with_suffix(".out"), cluster.lab.env(node))
    return log


def wait_for(log: Path, limit_s: float) -> str:
    eventually(lambda: log.exists() and log.read_text().endswith("\n"), max(limit_s, 60.0))
    return log.read_text()
