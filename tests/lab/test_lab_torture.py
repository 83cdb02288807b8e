"""`ringfence lab torture` for real: it finds what it must, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_watch import eventually, processes_of, scratch


@pytest.fixture
def directory() -> Iterator[Path]:
    with scratch("rft") as path:  # a run that was ended for its time leaves nothing either
        yield path


def torture(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringfence", "lab", "torture", "--dir", str(directory), *words],
        text=True, capture_output=True, timeout=110, check=False,
    )  # fmt: skip


def test_a_short_run_keeps_its_promises_and_leaves_nothing(directory: Path) -> None:
    ran = torture(directory, "--minutes", "0.3", "--seed", "7")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    first, *lines = ran.stdout.splitlines()
    assert (
        first == lines[-1] == "seed 7: ringfence lab torture --minutes 0.3 --seed 7 --nodes 3 --faults swarm"
    )
    told = dict(
        line.rsplit(maxsplit=1) for line in lines if line.startswith(("grants ", "writes ", "fenced "))
    )
    assert all(int(count) > 0 for count in told.values()), told
    assert len(told) == 3
    assert list(directory.iterdir()) == []
    assert processes_of(directory) == []


def test_a_short_run_on_corosync_keeps_the_same_promises(directory: Path) -> None:
    ran = torture(directory, "--minutes", "0.2", "--seed", "3", "--ring", "corosync", "--json")
    report = json.loads(ran.stdout)
    assert (ran.returncode, report["outcome"]) == (0, "ok"), ran.stdout
    assert report["ring"] == {"name": "corosync", "transport": "knet", "links": 1}
    assert report["locks"]["grants"] > 0
    assert sum(one["acknowledged"] for one in report["volumes"].values()) > 0
    assert sum(report["struck"].values()) > 0
    assert list(directory.iterdir()) == []
    assert processes_of(directory) == []


def test_protections_are_off_on_the_hub_alone(directory: Path) -> None:
    ran = torture(directory, "--ring", "corosync", "--naive")
    assert (ran.returncode, ran.stderr.count("\n")) == (5, 1), ran.stderr
    assert "--ring hub" in ran.stderr


def test_without_protections_the_same_lies_are_found_out(directory: Path) -> None:
    """The control of the experiment: what is checked can fail.

    A lie corrupts where it finds a writer at work, which one run may not see on a machine with much to do."""
    for seed in ("2", "3", "4"):
        ran = torture(directory, "--minutes", "0.7", "--seed", seed, "--faults", "liar", "--naive", "--json")
        report = json.loads(ran.stdout)
        if ran.returncode:
            break
    assert (ran.returncode, report["outcome"]) == (10, "safety"), ran.stdout
    assert report["violations"]
    assert (Path(report["directory"]) / "lab/an-a01n01/daemon.log").exists()
    assert processes_of(directory) == []


def test_ctrl_c_leaves_nothing(directory: Path) -> None:
    words = [sys.executable, "-m", "ringfence", "lab", "torture", "--dir", str(directory)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        eventually(lambda: len(processes_of(directory)) > 12)
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(60) == 130
    assert processes_of(directory) == []
    assert list(directory.iterdir()) == []
