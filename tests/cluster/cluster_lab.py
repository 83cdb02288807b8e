"""A lab for tests of whole clusters, and commands typed on its hosts."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ringfence.client import connect
from ringfence.core.cluster import Timing
from ringfence.core.errors import Unavailable
from ringfence.host.processes import Process
from ringfence.lab import trees
from ringfence.lab.cluster import TIMING, Lab

ONE, TWO, THREE = "an-a01n01", "an-a01n02", "an-a01n03"
SIZE = 256 << 20


@contextmanager
def running(nodes: int, timing: Timing = TIMING, devices: tuple[str, ...] = ()) -> Iterator[Lab]:
    path = Path(tempfile.mkdtemp(prefix="rfcl", dir="/tmp"))
    try:
        lab = Lab.up(path / "lab", nodes, SIZE, timing, devices=devices)
        try:
            yield lab
        finally:
            lab.down()
    finally:
        shutil.rmtree(path, ignore_errors=True)


def ringfence(lab: Lab, node: str, *words: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """A command as its user types it on that host."""
    return subprocess.run(
        [sys.executable, "-m", "ringfence", *words], env={**os.environ, **lab.env(node)}, text=True,
        capture_output=True, timeout=timeout_s, check=False,
    )  # fmt: skip


def done(lab: Lab, node: str, *words: str) -> str:
    """The command must succeed; what it printed."""
    ran = ringfence(lab, node, *words)
    assert ran.returncode == 0, (words, ran.stdout, ran.stderr)
    return ran.stdout


def make_volume(lab: Lab, node: str) -> None:
    """vg0/vm1 of 8 MiB on the lab's disk, active on the host."""
    done(lab, node, "vgcreate", "--shared", "vg0", str(lab.disk))
    done(lab, node, "lvcreate", "-L", "8M", "-n", "vm1", "vg0")


def refused(lab: Lab, node: str, *words: str) -> str:
    """The command must be refused, in one line."""
    ran = ringfence(lab, node, *words)
    assert (ran.returncode, ran.stdout) == (5, ""), (words, ran)
    assert ran.stderr.count("\n") == 1, ran.stderr
    return ran.stderr


def report(lab: Lab, node: str, *words: str) -> list[dict[str, Any]]:
    """Rows of pvs, vgs or lvs."""
    told = json.loads(done(lab, node, *words, "--reportformat", "json"))["report"][0]
    (rows,) = told.values()
    return list(rows)


def uri_of(lab: Lab, node: str, volume: str) -> str:
    vg, lv = volume.split("/")
    exports = status(lab, node)["exports"]
    return next(str(one["uri"]) for one in exports if (one["vg"], one["lv"]) == (vg, lv))


def status(lab: Lab, node: str) -> dict[str, Any]:
    """What its daemon says of itself; {}: none answers.  As often as you like: nothing is started for it."""
    try:
        with connect(lab.socket(node), retry_ms=0) as daemon:
            return daemon.status()
    except Unavailable:
        return {}


def why(lab: Lab, node: str, target: str = "") -> str:
    """The lines of `ringfence why`, likewise."""
    with connect(lab.socket(node)) as daemon:
        return "\n".join(daemon.why(target)["lines"])


def kinds(lab: Lab, node: str) -> list[str]:
    """Of all that its daemon has recorded, oldest first."""
    with connect(lab.socket(node)) as daemon:
        return [str(event["kind"]) for event in daemon.events()]


def pid_of(lab: Lab, node: str, word: str) -> int:
    """A process of the host with this word in its command line."""
    init = Process(*lab.status()["hosts"][node]["init"])
    for one in trees.tree(init):
        if word in trees.command(one.pid).split(" "):
            return one.pid
    raise AssertionError(f"{node} runs no {word}")


def tool(*words: str | Path) -> str:
    ran = subprocess.run(words, text=True, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0, (words, ran.stdout, ran.stderr)
    return ran.stdout


def eventually(true: Callable[[], bool], limit_s: float = 60) -> None:
    give_up = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.05)
