"""Volumes: ringfence beside stock LVM2 with its own lvmlockd, in one run on one machine.

    python bench/volumes.py [--quick] [--rounds N] [--only ROW …] [--rig [FILE]] [--json]

needs root, the packages lvm2 and lvm2-lockd, and for `nbd` those of bench/nbd.py; some minutes.  Everything
happens in a mount namespace of its own, on sparse files behind loop devices, metadata only (no device-mapper
is needed).

lvs         the whole command on a VG of so many LVs, start-up and printing included
lvcreate    the whole command, one LV more in such a VG: through a running daemon, and stock's own
writers     80 LVs made by 4 writers on 2 hosts at once: by the Python API, by the command, by stock's
activate    `vgchange -aey` of a whole VG, the whole command
view        from the moment at which one host's lvcreate is answered until another host, asked what it sees of
            this LV, has answered: both by the Python API
nbd         what bench/nbd.py measures, on a smaller volume, in fewer rounds: on files, then in memory, which
            compares the servers alone.  `nbdkit file` answers from its host's page cache, which ours may not:
            `bare`, direct I/O without a server, is what can be had of the files' disk
dm          reads through device-mapper beside the raw device.  That takes a kernel with device-mapper: the
            figures are read from FILE, what `make rig` has printed; without FILE the rig is run now

Each round measures both, in the other order every second round; told are medians of rounds, and ratios of
medians.  A goal that is not met is told, and is no failure."""

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # as a script, and when a test loads it

from lvm_disks import Host
from lvmlockd_servers import VG, private_run
from nbd import PEERS
from progress_lines import Say, progress
from volume_hosts import Ours, both
from volume_planes import through_dm, through_nbd
from volume_writers import writers

from ringfence.wire import client as calls

ROUNDS = 5
SLOW_ROUNDS = 3
"""At the most, of `writers`, `activate` and `nbd`."""
SIZES = (1000, 10_000, 20_000)
ROWS = ("lvs", "lvcreate", "writers", "activate", "view", "nbd", "dm")
GOALS = {
    "lvs": {1000: 1.2, 10_000: 2 / 3, 20_000: 1 / 2},
    "lvcreate": {1000: 1.2, 10_000: 1 / 3, 20_000: 1 / 4},
    "activate": {20_000: 1 / 10},
}
"""LVs -> the most that ours may take of stock's time."""
WRITERS_GOALS = {"API": 1 / 2, "command": 2.0}
VIEW_GOAL = (20_000, 50.0)
"""LVs, ms."""
DM_GOAL = 0.98
EACH = 20
"""LVs of a writer: with four of them, 80."""
QUICK_LVS, QUICK_EACH = (200,), 2
Found = dict[str, Any]


# -- measuring ---------------------------------------------------------------------------


def measure(
    rows: list[str], sizes: tuple[int, ...], each: int, rounds: int, rig: str | None, say: Say
) -> Found:
    """By row: of `lvs`, `lvcreate`, `activate` {LVs: {"ours_ms", "stock_ms"}}, medians; of `view` {LVs:
    {"ours_ms", "worst_ms"}}; of the others what measures them returns.  Besides "lag": {LVs: the longest time
    for which one of our event loops was late}.

    Args:
        each: LVs that each of the writers makes.
        rig: see `through_dm`; None: `dm` is not run."""
    found: Found = {row: {} for row in (*rows, "lag")}
    sized = [row for row in rows if row in _SIZED]
    for lvs in sizes if sized else ():
        say(f"VGs of {lvs} LVs are made")
        with both(lvs) as (ours, (stock,)):
            for row in sized:
                if row == "activate" and lvs != sizes[-1]:
                    continue
                say(f"{row}, {lvs} LVs")
                found[row][str(lvs)] = _SIZED[row](ours, stock, rounds)
            found["lag"][str(lvs)] = ours.longest_step_ms()
    if "writers" in rows:
        told = writers(min(rounds, SLOW_ROUNDS), each, say)
        found["writers"] = {
            what: statistics.median(one) if isinstance(one, list) else one for what, one in told.items()
        }
    if "nbd" in rows:
        say("nbd")
        found["nbd"] = through_nbd(min(rounds, SLOW_ROUNDS))
    if "dm" in rows:
        say("dm")
        found["dm"] = {} if rig is None else through_dm(rig)
    return found


def _lvs(ours: Ours, stock: Host, rounds: int) -> Found:
    return _compared(rounds, lambda number: ours.seconds("lvs", VG), lambda number: stock.seconds("lvs", VG))


def _lvcreate(ours: Ours, stock: Host, rounds: int) -> Found:
    words = ["lvcreate", "-an", "-l", "1", VG, "-n"]
    return _compared(
        rounds,
        lambda number: ours.seconds(*words, f"new{number}"),
        lambda number: stock.seconds(*words, f"new{number}", "-Zn"),
    )


def _activate(ours: Ours, stock: Host, rounds: int) -> Found:
    def switch(host: Ours | Host) -> float:
        took = host.seconds("vgchange", "-aey", VG)
        host.seconds("vgchange", "-an", VG)
        return took

    return _compared(min(rounds, SLOW_ROUNDS), lambda number: switch(ours), lambda number: switch(stock))


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


_SIZED: dict[str, Callable[[Ours, Host, int], Found]] = {
    "lvs": _lvs, "lvcreate": _lvcreate, "activate": _activate, "view": _view,
}  # fmt: skip


# -- rows and goals ------------------------------------------------------------------------


def rows(found: Found) -> list[Found]:
    """What was measured, a line each: {"name", "unit", "ours", "stock" (who else's it is stands in the name;
    None: nobody's), "ratio" (ours : stock's), "goal" (its words; empty: none), "met" (None: no goal, or not
    measured)}."""
    told: list[Found] = []
    for row in ("lvs", "lvcreate", "activate", "view"):
        for lvs, one in found.get(row, {}).items():
            limit = GOALS.get(row, {}).get(int(lvs))
            if row == "view":
                limit = VIEW_GOAL[1] if int(lvs) == VIEW_GOAL[0] else None
                told.append(_row(f"another host's view, {lvs} LVs", "ms", one["ours_ms"], most=limit))
            else:
                told.append(_row(f"{row}, {lvs} LVs", "ms", one["ours_ms"], one["stock_ms"], most=limit))
    if found.get("writers"):
        told += _writers_rows(found["writers"])
    for name, one in found.get("nbd", {}).items():
        mine = one["median"]["ringfence"]
        told += [
            _row(
                f"NBD, {name}: {peer}", "", mine, one["median"][peer],
                least=one["goal"] if peer in PEERS else None,
            )
            for peer in one["ratio"]
        ]
    if "dm" in found:
        for disk, dm in found["dm"].items():
            speeds = [2**20 / dm[who] for who in ("ours_us", "raw_us")]
            told.append(_row(f"dm, 1 MiB reads {disk}: raw device", "MB/s", *speeds, least=DM_GOAL))
        if not found["dm"]:
            goal = f">= {DM_GOAL:g}"
            told.append({
                "name": "dm, 1 MiB reads: raw device (not run: --rig)", "unit": "", "ours": None,
                "stock": None, "ratio": None, "goal": goal, "met": None,
            })  # fmt: skip
    for lvs, lag_ms in found.get("lag", {}).items():
        told.append(_row(f"an event loop was late at most, {lvs} LVs", "ms", lag_ms))
    return told


def _writers_rows(one: Found) -> list[Found]:
    found = [
        _row(
            f"{one['lvs']} LVs from 2 hosts, by the {way}", "ms", one[key], one["stock_ms"],
            most=WRITERS_GOALS[way],
        )
        for way, key in (("API", "api_ms"), ("command", "cli_ms"))
    ]  # fmt: skip
    lost = _row("of them lost, or refused by stock LVM2", "", one["lost"] + (not one["clean"]), most=0)
    return [*found, lost]


def _row(
    name: str, unit: str, ours: float, stock: float | None = None, *,
    most: float | None = None, least: float | None = None,
) -> Found:  # fmt: skip
    """Args: most, least: the goal, of the ratio, or of ours if nobody else's is there."""
    ratio = None if stock is None else ours / stock
    value = ours if ratio is None else ratio
    goal, met = "", None
    if most is not None:
        goal, met = f"<= {most:.3g}", value <= most
    elif least is not None:
        goal, met = f">= {least:.3g}", value >= least
    return {
        "name": name,
        "unit": unit,
        "ours": ours,
        "stock": stock,
        "ratio": ratio,
        "goal": goal,
        "met": met,
    }


def table(told: list[Found]) -> list[str]:
    lines = ["| work | ringfence | stock | ratio | goal | |", "|---|---|---|---|---|---|"]
    for one in told:
        unit = f" {one['unit']}" if one["unit"] else ""
        ours, stock = ("" if one[who] is None else f"{one[who]:.0f}{unit}" for who in ("ours", "stock"))
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        met = {True: "met", False: "NOT MET", None: ""}[one["met"]]
        lines.append(f"| {one['name']} | {ours} | {stock} | {ratio} | {one['goal']} | {met} |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help=f"rounds (default {ROUNDS}; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a look: small VGs, one round; no measurement")
    parser.add_argument("--only", choices=ROWS, action="append", help="this row (repeat)")
    parser.add_argument("--lvs", type=int, action="append", help="VGs of so many LVs (repeat)")
    parser.add_argument(
        "--rig", nargs="?", const="", metavar="FILE", help="what `make rig` printed; none: run it now"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    private_run()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    say = progress()
    rounds = asked.rounds or (1 if asked.quick else ROUNDS)
    sizes = tuple(asked.lvs or (QUICK_LVS if asked.quick else SIZES))
    wanted = [row for row in ROWS if not asked.only or row in asked.only]
    each = QUICK_EACH if asked.quick else EACH
    found = measure(wanted, sizes, each, rounds, asked.rig, say)
    told, cpus = rows(found), len(os.sched_getaffinity(0))
    if asked.json:
        report = {"version": 3, "rounds": rounds, "cpus": cpus, "measures": found, "rows": told}
        print(json.dumps(report, indent=2))
    else:
        print(f"medians of {rounds} rounds at most, {cpus} CPUs\n")
        print("\n".join(table(told)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
