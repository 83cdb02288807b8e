"""Programs on two hosts that wait for one another: told by `locks --deadlocks`, ended for who asks so."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_lab import ONE, TWO, done, eventually, ringfence, running

from ringfence.client import LockHandle, connect
from ringfence.core.errors import Deadlock
from ringfence.lab.cluster import Lab


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with running(2) as lab:
        yield lab


def nested(lab: Lab, node: str, first: str, second: str, meet: Path, *options: str) -> subprocess.Popen[str]:
    """Hold the first lock, wait until the other program holds its own, then ask for the second."""
    script = (
        f"touch {meet}/{first}; while [ ! -e {meet}/{second} ]; do sleep 0.05; done; "
        f"exec {sys.executable} -m ringfence lock games {second} {' '.join(options)} -- echo both"
    )
    return subprocess.Popen(
        [sys.executable, "-m", "ringfence", "lock", "games", first, "--", "sh", "-c", script],
        env={**os.environ, **lab.env(node)}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def deadlocks(lab: Lab, node: str) -> list[list[str]]:
    ran = ringfence(lab, node, "locks", "--deadlocks", "--json")
    found = json.loads(ran.stdout)["deadlocks"]
    assert ran.returncode == (1 if found else 0), ran.stderr
    return [ring["lines"] for ring in found]


def test_two_programs_that_wait_for_one_another(two: Lab, tmp_path: Path) -> None:
    assert deadlocks(two, ONE) == []
    one = nested(two, ONE, "a", "b", tmp_path)
    other = nested(two, TWO, "b", "a", tmp_path)
    eventually(lambda: deadlocks(two, ONE) != [])
    for node in (ONE, TWO):
        ((first, second),) = deadlocks(two, node)
        assert f" on {ONE} waits for EX on games/b, which " in first + second
        assert f" on {TWO} waits for EX on games/a, which " in first + second
        assert "pid " in first
    told = done(two, ONE, "locks", "games")
    assert f"behind {TWO}, which holds EX; some of its clients wait: EX on games/a" in told
    assert "waits for EX on games/b" in done(two, ONE, "why", "games/b")
    assert ringfence(two, ONE, "locks", "--deadlocks").stdout.startswith("deadlock 1:\n  uid ")
    # One gives up, by hand.
    other.terminate()
    assert one.communicate(timeout=20) == ("both\n", "")
    other.communicate(timeout=20)
    eventually(lambda: deadlocks(two, TWO) == [])


def test_the_one_that_asked_so_is_refused_and_the_other_goes_on(two: Lab, tmp_path: Path) -> None:
    one = nested(two, ONE, "c", "d", tmp_path)
    other = nested(two, TWO, "d", "c", tmp_path, "-D")
    told = other.communicate(timeout=30)
    assert (other.returncode, told[0]) == (1, "")
    assert "games/c: to wait would be for ever: " in told[1]
    assert told[1].count("\n") == 1
    assert one.communicate(timeout=20) == ("both\n", "")
    assert "deadlock" in done(two, TWO, "events", "--kind", "deadlock")


def test_conversions_of_two_hosts(two: Lab) -> None:
    """Both read and want to write: the later one is refused at once, by the rule of one resource."""
    refused: list[str] = []

    def convert(lock: LockHandle, node: str) -> None:
        try:
            lock.convert("EX", wait_ms=20_000)
        except Deadlock:
            refused.append(node)
            lock.release()

    with connect(two.env(ONE)["RINGFENCE_SOCKET"]) as one, connect(two.env(TWO)["RINGFENCE_SOCKET"]) as other:
        locks = []
        for daemon in (one, other):
            daemon.join("games")
            locks.append(daemon.lock("games", "e", "PR"))
        threads = [
            threading.Thread(target=convert, args=pair) for pair in zip(locks, (ONE, TWO), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(refused) == 1
        assert sorted(lock.mode.name for lock in locks) == ["EX", "UN"]
