"""ringfence's locks beside those that a program would use instead, in one run on one machine.

    make bench                                     needs packages-bench.txt; a quarter of an hour
    python bench/locks.py [--quick] [--rounds N] [--only NAME …] [--no-scale] [--json] [--plot FILE]

Each round measures every system, one after the other, in the other order every second round; what is told
are medians of rounds, and ratios.  `limit` is a ping-pong of 64 bytes over a Unix socket between two blocking
Python processes, on one CPU and where the scheduler likes.  ringfence is a lab of two hosts on the hub
ring, `ringfence corosync` one on corosync (needs root); hand-overs go between the two, and `relay` is what
their processes alone cost: as many of bare Python, which pass 64 bytes on (lock_relay.py).  ringfence's
clients make their calls in C where that is built, and in Python elsewhere; the first line says which.  What
is not installed is left out, and said so.  Absolute figures belong to the machine; ratios hold."""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # as a script, and when a test loads it

from lock_peers import SERVERS, Missing
from lock_work import Worker, hand_overs, in_turns, medians, ping_pong, throughput, us
from progress_lines import Say, progress

from ringfence.client.exchange import IN_C

OURS, CACHED, COROSYNC = "ringfence", "ringfence cached", "ringfence corosync"
RELAY = "relay"
PEERS = ("postgresql", "redis", "zookeeper", "etcd", "sanlock")
SLOW = ("sanlock",)
"""A tenth of the pairs, or it would take a minute a round."""
WORDS = {
    "pair": "lock + unlock, uncontended, us",
    "hand_over": "hand-over to one that waits, us",
    "crowd": "64 clients, own locks, pairs/s",
    "turns": "two in a tight loop, hand-overs/s",
}
RELAYED = ("hand_over", "turns")
MORE_IS_BETTER = ("crowd", "turns")
Found = dict[str, Any]


class Sizes:
    """How much is measured in a round."""

    def __init__(self, quick: bool) -> None:
        self.pairs = 300 if quick else 2000
        self.hand_overs = 10 if quick else 30
        self.queued_s = 0.12
        """How long a waiter has waited: etcd takes 98 ms more if it is less than 100."""
        self.seconds = 0.5 if quick else 3.0
        self.processes, self.threads = (2, 2) if quick else (8, 8)
        self.pings = 2000 if quick else 20_000


# -- measuring ---------------------------------------------------------------------------


def pair(system: str, where: Found, sizes: Sizes) -> Found:
    with Worker(system, where) as worker:
        count = sizes.pairs // 30 if system in SLOW else sizes.pairs
        worker.ask("pairs", max(5, count // 10))  # caches, prepared statements
        return us(worker.ask("pairs", count))


def hand_over(system: str, where: Found, sizes: Sizes) -> Found:
    return us(hand_overs(system, where, sizes.hand_overs, sizes.queued_s))


def crowd(system: str, where: Found, sizes: Sizes) -> Found:
    return {"p50": throughput(system, where, sizes.processes, sizes.threads, sizes.seconds)}


def turns(system: str, where: Found, sizes: Sizes) -> Found:
    found = in_turns(system, where, sizes.seconds)
    return {"p50": found.pop("hand_overs_per_s"), **found}


MEASURES: dict[str, Callable[[str, Found, Sizes], Found]] = {
    "pair": pair,
    "hand_over": hand_over,
    "crowd": crowd,
    "turns": turns,
}


def measure(systems: list[str], rounds: int, sizes: Sizes, say: Say) -> Found:
    """{measure: {system: {figure: median of rounds}}}, the limit's too."""
    taken: dict[str, dict[str, list[Found]]] = {}
    with (
        tempfile.TemporaryDirectory(prefix=f"rfb{os.getpid()}-", dir="/tmp") as name,
        contextlib.ExitStack() as stack,
    ):
        directory = Path(name)
        directory.chmod(0o755)  # PostgreSQL's server is another user
        running = dict(_started(stack, directory, systems, say))
        for number in range(rounds):
            for pinned in (True, False):
                found = us(ping_pong(directory, sizes.pings, pinned))
                what = "limit, one CPU" if pinned else "limit"
                taken.setdefault("pair", {}).setdefault(what, []).append(found)
            for what, take in MEASURES.items():
                order = [one for one in running if one != RELAY or what in RELAYED]
                if number % 2:
                    order.reverse()
                if what == "pair" and OURS in running:
                    order.insert(order.index(OURS) + 1, CACHED)
                for system in order:
                    say(f"round {number + 1} of {rounds}: {what}, {system}")
                    found = take(system, running[OURS if system == CACHED else system], sizes)
                    taken.setdefault(what, {}).setdefault(system, []).append(found)
    return {
        what: {system: medians(rounds) for system, rounds in by_system.items()}
        for what, by_system in taken.items()
    }


def _started(
    stack: contextlib.ExitStack, directory: Path, systems: list[str], say: Say
) -> Iterator[tuple[str, Found]]:
    for system in systems:
        place = directory / system
        place.mkdir()
        try:
            yield system, stack.enter_context(SERVERS[system](place))
        except Missing as error:
            say(f"{system} is left out: {error}")


def scale(quick: bool) -> Found:
    """What bench/scale.py tells: purge, joiner, memory.  Empty if it fails."""
    words = ["--locks", "5000", "--waiters", "100", "--memory", "20000"] if quick else []
    found: Found = {}
    for only in ("purge", "joiner", "memory"):
        ran = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("scale.py")), "--json", "--only", only, *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if ran.returncode == 0:
            found[only] = json.loads(ran.stdout)[only]
        else:
            found[only] = {"failed": (ran.stderr.strip().splitlines() or ["?"])[-1]}
    return found


# -- goals -----------------------------------------------------------------------------------


def goals(found: Found, scaled: Found, in_c: bool) -> list[Found]:
    """Issue 3's, as {"goal", "value", "limit", "met"}; those whose figures are not there are left out.

    Args: in_c: the client's calls are (client/exchange.c)."""
    told: list[Found] = []

    def p50(what: str, system: str) -> float | None:
        value = found.get(what, {}).get(system, {}).get("p50")
        return None if value is None else float(value)

    def ratio(goal: str, mine: float | None, theirs: float | None, limit: float, least: bool = False) -> None:
        if mine is not None and theirs:
            value = mine / theirs
            met = value >= limit if least else value <= limit
            told.append({"goal": goal, "value": value, "limit": limit, "least": least, "met": met})

    for peer, limit in (("redis", 1 / 2), ("postgresql", 1.0), ("etcd", 1 / 10), ("zookeeper", 1 / 10)):
        ratio(f"pair : {peer}'s", p50("pair", OURS), p50("pair", peer), limit)
    ratio("cached pair : ping-pong on one CPU", p50("pair", CACHED), p50("pair", "limit, one CPU"), 0.5)
    ratio("cached pair : redis's", p50("pair", CACHED), p50("pair", "redis"), 1 / 30)
    crowds = p50("crowd", OURS), p50("crowd", "postgresql")
    how, limit = ("in C", 2.0) if in_c else ("in Python", 1.2)
    ratio(f"64 clients {how} : postgresql's", *crowds, limit, least=True)
    for peer, limit in (("postgresql", 1.5), ("zookeeper", 1 / 3)):
        ratio(f"hand-over : {peer}'s", p50("hand_over", OURS), p50("hand_over", peer), limit)
    turns = found.get("turns", {}).get(OURS)
    if turns:
        ratio("two in a tight loop: smaller share of grants", turns["smaller_share"], 1.0, 0.45, least=True)
    for (what, figure), (goal, limit) in SCALE_GOALS.items():
        ratio(goal, _number(scaled.get(what, {}).get(figure)), 1.0, limit)
    return told


SCALE_GOALS = {
    ("purge", "seconds"): ("purge of 100,000 locks, 1,000 waiters: s", 0.3),
    ("purge", "longest_step_ms"): ("purge: longest step, ms", 20.0),
    ("joiner", "seconds"): ("state of 100,000 locks handed to a joiner: s", 1.0),
    ("memory", "ordered_bytes"): ("memory: bytes a lock, ordered state", 600.0),
    ("memory", "node_bytes"): ("memory: bytes a lock, node", 600.0),
    ("memory", "client_bytes"): ("memory: bytes a lock, client", 600.0),
}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


# -- telling ---------------------------------------------------------------------------------


def tell(report: Found) -> None:
    found = report["measures"]
    print(
        f"medians of {report['rounds']} rounds, {report['cpus']} CPUs; ratio: ringfence to the other one; "
        f"its client's calls are {report['client']}"
    )
    for what, words in WORDS.items():
        by_system = found.get(what, {})
        if not by_system:
            continue
        mine = by_system.get(OURS, {}).get("p50")
        print(f"\n{words:38}{'p50':>10}{'p99':>10}{'ratio':>9}")
        for system in _ranked(by_system, reverse=what in MORE_IS_BETTER):
            one = by_system[system]
            p99 = f"{one['p99']:10.1f}" if "p99" in one else " " * 10
            ratio = f"{mine / one['p50']:9.2f}" if mine and one["p50"] and system != OURS else " " * 9
            more = [f"{key.replace('_', ' ')} {one[key]:.2f}" for key in one if key not in ("p50", "p99")]
            print(f"  {system:36}{one['p50']:10.1f}{p99}{ratio}  {', '.join(more)}".rstrip())
    for what, one in report["scale"].items():
        print(f"\n{what}: " + ", ".join(f"{key} {value}" for key, value in one.items()))
    print(f"\n{'goal':52}{'value':>10}{'limit':>10}")
    for one in report["goals"]:
        sign = ">=" if one["least"] else "<="
        met = "met" if one["met"] else "NOT MET"
        print(f"  {one['goal']:50}{one['value']:10.3f} {sign}{one['limit']:7.3f}  {met}")


def _ranked(by_system: Found, reverse: bool) -> list[str]:
    return sorted(by_system, key=lambda one: float(by_system[one]["p50"]), reverse=reverse)


def plot(report: Found, path: Path) -> None:
    """Bars for each measure, ringfence's first."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "ringfence"  # the same figures give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7))
    for axis, (what, words) in zip(axes.flat, WORDS.items(), strict=True):
        by_system = report["measures"].get(what, {})
        names = _ranked(by_system, reverse=what not in MORE_IS_BETTER)
        values = [by_system[name]["p50"] for name in names]
        colours = ["#c0392b" if name in (OURS, CACHED, COROSYNC) else "#7f8c8d" for name in names]
        bars = axis.barh(names, values, color=colours)
        labels = [f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in values]
        axis.bar_label(bars, labels, padding=3)
        axis.set_xscale("log")
        axis.margins(x=0.25)
        axis.set_title(words)
    figure.suptitle(f"medians of {report['rounds']} rounds, {report['cpus']} shared CPUs, all on one machine")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help="rounds (default 5; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a look in a minute, not a measurement")
    parser.add_argument("--only", choices=sorted(SERVERS), action="append", help="this system (repeat)")
    parser.add_argument("--no-scale", action="store_true", help="without what bench/scale.py measures")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="an SVG of the table")
    asked = parser.parse_args()
    systems = [one for one in (OURS, COROSYNC, *PEERS) if not asked.only or one in asked.only]
    if OURS in systems or COROSYNC in systems or asked.only == [RELAY]:
        systems.insert(0, RELAY)
    rounds = asked.rounds or (1 if asked.quick else 5)
    say = progress()
    found = measure(systems, rounds, Sizes(asked.quick), say)
    scaled = {} if asked.no_scale else scale(asked.quick)
    cpus = len(os.sched_getaffinity(0))
    report: Found = {"version": 1, "rounds": rounds, "cpus": cpus, "measures": found, "scale": scaled}
    report["client"] = "in C" if IN_C else "in Python"
    report["goals"] = goals(found, scaled, IN_C)
    if asked.plot is not None:
        plot(report, asked.plot)
    if asked.json:
        print(json.dumps(report, indent=2))
    else:
        tell(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
