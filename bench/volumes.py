"""Volumes: ringfence beside stock LVM2 with its own lvmlockd, in one run on one machine.

    python bench/volumes.py [--quick] [--rounds N] [--only ROW …] [--json]

needs root and the packages lvm2 and lvm2-lockd; some minutes.  Everything happens in a mount namespace of its
own, on sparse files behind loop devices, metadata only (no device-mapper is needed).

lvs         the whole command on a VG of so many LVs, start-up and printing included
lvcreate    the whole command, one LV more in such a VG: through a running daemon, and stock's own
view        from the moment at which one host's lvcreate is answered until another host, asked what it sees of
            this LV, has answered: both by the Python API

Each round measures both, in the other order every second round; told are medians of rounds, and ratios of
medians."""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # as a script, and when a test loads it

from lvm_disks import Failed, Host, disk_bytes, write_vg
from lvmlockd_servers import VG, private_run, real
from progress_lines import Say, progress

from ringfence.client import Connection, connect
from ringfence.lab.cluster import Lab
from ringfence.wire import client as calls

ROUNDS = 7
ROWS = ("lvs", "lvcreate", "view")
GOALS = {
    "lvs": {1000: 1.2, 10_000: 2 / 3, 20_000: 1 / 2},
    "lvcreate": {1000: 1.2, 10_000: 1 / 3, 20_000: 1 / 4},
}
"""LVs -> the most that ours may take of stock's time."""
VIEW_GOAL = (20_000, 50.0)
"""LVs, ms."""
QUICK_LVS = (200,)
Found = dict[str, Any]


class Ours:
    """Two hosts of a lab, on a loop device with a VG."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._command = str(Path(sys.executable).parent / "ringfence")
        self._env = {"PATH": os.environ["PATH"], "LC_ALL": "C", **lab.env(lab.nodes[0])}

    def seconds(self, *words: str) -> float:
        """Raises Failed."""
        began = time.perf_counter()
        ran = subprocess.run(
            [self._command, *words], env=self._env, check=False, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        took_s = time.perf_counter() - began
        if ran.returncode:
            raise Failed(f"ringfence {' '.join(words)}: exit {ran.returncode}: {ran.stderr.strip()}")
        return took_s

    @contextlib.contextmanager
    def daemons(self) -> Iterator[list[Connection]]:
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(connect(str(self._lab.socket(node)), retry_ms=0))
                for node in self._lab.nodes
            ]

    def longest_step_ms(self) -> float:
        """For how long an event loop was ever late, of either host."""
        with self.daemons() as daemons:
            return max(daemon.call(calls.Status())["daemon"]["loop_lag_max_ms"] for daemon in daemons)


@contextlib.contextmanager
def both(lvs: int) -> Iterator[tuple[Ours, Host]]:
    """Ours and stock's, each with a VG of so many LVs, started."""
    with tempfile.TemporaryDirectory(prefix="rfbv", dir="/tmp") as place, contextlib.ExitStack() as stack:
        directory = Path(place)
        stock_place = directory / "stock"
        stock_place.mkdir()
        (stock,) = stack.enter_context(real(stock_place, lvs))
        lab = Lab.up(directory / "lab", 2, disk_bytes(lvs), loop=True)
        stack.callback(lab.down)
        write_vg(lab.disk, VG, "lab", lvs)
        ours = Ours(lab)
        with ours.daemons() as daemons:
            for daemon in daemons:
                daemon.call(calls.VgChange("lockstart", VG))
                daemon.call(calls.Lvs(VG, "lv0"))  # each has seen the VG once
        yield ours, stock


# -- measuring ---------------------------------------------------------------------------


def measure(rows: list[str], sizes: tuple[int, ...], rounds: int, say: Say) -> Found:
    """{row: {LVs: {"ours_ms", "stock_ms"}}}, medians; of "view" {"ours_ms", "worst_ms"} alone.  Besides
    "lag": {LVs: the longest time for which one of our event loops was late}."""
    found: Found = {row: {} for row in (*rows, "lag")}
    for lvs in sizes:
        say(f"VGs of {lvs} LVs are made")
        with both(lvs) as (ours, stock):
            for row in rows:
                say(f"{row}, {lvs} LVs")
                found[row][str(lvs)] = _ROWS[row](ours, stock, rounds)
            found["lag"][str(lvs)] = ours.longest_step_ms()
    return found


def _lvs(ours: Ours, stock: Host, rounds: int) -> Found:
    return _compared(
        rounds, lambda number: ours.seconds("lvs", VG), lambda number: stock.seconds("lvs", VG)
    )


def _lvcreate(ours: Ours, stock: Host, rounds: int) -> Found:
    words = ["lvcreate", "-an", "-l", "1", VG, "-n"]
    return _compared(
        rounds,
        lambda number: ours.seconds(*words, f"new{number}"),
        lambda number: stock.seconds(*words, f"new{number}", "-Zn"),
    )


def _compared(rounds: int, ours: Callable[[int], float], stock: Callable[[int], float]) -> Found:
    took: dict[str, list[float]] = {"ours_ms": [], "stock_ms": []}
    for number in range(rounds):
        for who, run in sorted({"ours_ms": ours, "stock_ms": stock}.items(), reverse=number % 2 == 1):
            took[who].append(run(number) * 1000)
    return {who: statistics.median(times) for who, times in took.items()}


def _view(ours: Ours, stock: Host, rounds: int) -> Found:
    times = []
    with ours.daemons() as (one, other):
        for number in range(rounds):
            one.call(calls.LvCreate(VG, f"seen{number}", extents=1, activate="n"))
            began = time.perf_counter()
            told = other.call(calls.Lvs(VG, f"seen{number}"))
            times.append((time.perf_counter() - began) * 1000)
            assert len(told["rows"]) == 1
            assert not told["stale"]
    return {"ours_ms": statistics.median(times), "worst_ms": max(times)}


_ROWS: dict[str, Callable[[Ours, Host, int], Found]] = {"lvs": _lvs, "lvcreate": _lvcreate, "view": _view}


# -- goals and telling ---------------------------------------------------------------------


def goals(found: Found) -> list[Found]:
    """Issue 7's, as {"goal", "value", "limit", "met"}; those whose figures are not there are left out."""
    told: list[Found] = []

    def tell_goal(goal: str, value: float, limit: float) -> None:
        told.append({"goal": goal, "value": value, "limit": limit, "met": value <= limit})

    for row, limits in GOALS.items():
        for lvs, limit in limits.items():
            one = found.get(row, {}).get(str(lvs))
            if one:
                tell_goal(f"{row} of {lvs} LVs : stock's", one["ours_ms"] / one["stock_ms"], limit)
    view = found.get("view", {}).get(str(VIEW_GOAL[0]))
    if view:
        tell_goal(f"another host's view at {VIEW_GOAL[0]} LVs, ms", view["ours_ms"], VIEW_GOAL[1])
    return told


def table(found: Found) -> list[str]:
    lines = ["| work | LVs | ringfence | stock | ratio |", "|---|---|---|---|---|"]
    for row in ROWS:
        for lvs, one in found.get(row, {}).items():
            cells = [row, lvs, f"{one['ours_ms']:.0f} ms"]
            if "stock_ms" in one:
                cells += [f"{one['stock_ms']:.0f} ms", f"{one['ours_ms'] / one['stock_ms']:.2f}"]
            else:
                cells += ["", ""]
            lines.append(f"| {' | '.join(cells)} |")
    for lvs, lag_ms in found.get("lag", {}).items():
        lines.append(f"| an event loop was late, at the most | {lvs} | {lag_ms:.0f} ms | | |")
    return lines


def tell(report: Found) -> None:
    print(f"medians of {report['rounds']} rounds, {report['cpus']} CPUs\n")
    print("\n".join(table(report["measures"])))
    print(f"\n{'goal':50}{'value':>10}{'limit':>10}")
    for one in report["goals"]:
        met = "met" if one["met"] else "NOT MET"
        print(f"  {one['goal']:48}{one['value']:10.3f} <={one['limit']:7.3f}  {met}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help=f"rounds (default {ROUNDS}; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a look: small VGs, two rounds; no measurement")
    parser.add_argument("--only", choices=ROWS, action="append", help="this row (repeat)")
    parser.add_argument("--lvs", type=int, action="append", help="VGs of so many LVs (repeat)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    private_run()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    say = progress()
    rounds = asked.rounds or (2 if asked.quick else ROUNDS)
    sizes = tuple(asked.lvs or (QUICK_LVS if asked.quick else GOALS["lvs"]))
    found = measure([row for row in ROWS if not asked.only or row in asked.only], sizes, rounds, say)
    cpus = len(os.sched_getaffinity(0))
    report = {"version": 1, "rounds": rounds, "cpus": cpus, "measures": found, "goals": goals(found)}
    if asked.json:
        print(json.dumps(report, indent=2))
    else:
        tell(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
