"""The rings side by side: the embedded hub, corosync over udpu, corosync over knet (encrypted).

    python bench/ring.py [--quick] [--rounds N] [--only locks|failover|init] [--ring NAME] [--json]

needs root and the packages of packages.txt (labs on corosync live in network namespaces of their own).

locks     lock + unlock of a name that this node knows (it keeps the cluster's lock: no ring), of a new name
          (one message to all, one back), and the hand-over to a client that waits on another node; 1-3 nodes.
failover  a host is frozen while it writes; from the freeze until the other has the volume open, split as the
          demo does it, for token 300 and 1000 ms.  What it may take:

              max(detection + the agents' own time, purge bound) + 250 ms

          detection: 2.2 x token, corosync's own (token + consensus).  The agents' own time: what the runs of
          the fence agents took that led to the evidence.  Purge bound: counted from the last word of the
          victim, so it is over at most that long after the freeze.
init      from the call of `ringfence init` for two hosts, through both corosyncs and daemons, to the first EX
          lock.

Each round takes every ring in turn; what is told are medians of rounds.  Absolute figures belong to the
machine; ratios hold."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # as a script, and when a test loads it

from lock_work import Worker, hand_overs, medians, us
from progress_lines import Say, progress
from ring_setup import init_to_lock

from ringfence.core.cluster import Timing
from ringfence.core.errors import RingfenceError
from ringfence.lab.cluster import TIMING, Lab
from ringfence.lab.layout import Ring
from ringfence.lab.stage import Stage
from ringfence.lab.teller import Teller

RINGS = {"hub": Ring(), "udpu": Ring("corosync", "udpu"), "knet": Ring("corosync", "knet")}
NODES = (1, 2, 3)
TOKENS_MS = (300, 1000)
SLACK_MS = 250
DISK_BYTES = 256 << 20
WHAT = ("locks", "failover", "init")
LOCKS = ("known", "new", "hand_over")
WORDS = {
    "known": "lock + unlock, kept here, us",
    "new": "lock + unlock, new name, us",
    "hand_over": "hand-over to one that waits, us",
}
Found = dict[str, Any]


class Sizes:
    """How much is measured in a round."""

    def __init__(self, quick: bool, rings: Sequence[str] = ()) -> None:
        self.rings = {name: ring for name, ring in RINGS.items() if not rings or name in rings}
        self.nodes = NODES[1:2] if quick else NODES
        self.tokens_ms = TOKENS_MS[:1] if quick else TOKENS_MS
        self.pairs = 200 if quick else 1000
        self.hand_overs = 10 if quick else 30
        self.queued_s = 0.05
        self.writes = 50 if quick else 200


# -- locks ---------------------------------------------------------------------------------


def locks(ring: Ring, nodes: int, sizes: Sizes, directory: Path) -> dict[str, list[int]]:
    """{measure: nanoseconds of each}, on a lab of its own."""
    lab = Lab.up(directory, nodes, 64 << 20, ring=ring)
    try:
        where = {"sockets": [str(lab.socket(node)) for node in lab.nodes]}
        with Worker("ringfence", where) as worker:
            worker.ask("pairs", sizes.pairs // 10)
            known = worker.ask("pairs", sizes.pairs)
            worker.ask("new", sizes.pairs // 10)
            new = worker.ask("new", sizes.pairs)
        return {
            "known": known,
            "new": new,
            "hand_over": hand_overs("ringfence", where, sizes.hand_overs, sizes.queued_s),
        }
    finally:
        lab.down()


# -- failover --------------------------------------------------------------------------------


def timing_for(token_ms: int) -> Timing:
    """The lab's, with this token; authority follows it as the defaults do."""
    return Timing(
        heartbeat_ms=max(50, token_ms // 5), token_ms=token_ms, grant_ms=token_ms * 3 // 2,
        silent_ms=token_ms * 3, write_ms=token_ms * 6, hold_ms=30000, grace_ms=TIMING.grace_ms,
        post_join_delay_ms=TIMING.post_join_delay_ms, agent_timeout_ms=TIMING.agent_timeout_ms,
        backoff_ms=TIMING.backoff_ms,
    )  # fmt: skip


def failovers(ring: Ring, timing: Timing, count: int, sizes: Sizes, directory: Path) -> Iterator[Found]:
    """So many, on one lab of two hosts; the one that was fenced comes back before the next."""
    lab = Lab.up(directory / "lab", 2, DISK_BYTES, timing, ring=ring)
    try:
        stage = Stage(lab, Teller(None), directory / "vms")
        try:
            holder, other = lab.nodes
            stage.make_volume(holder, "64M")
            for number in range(count):
                vm = stage.start_vm(holder, f"vm{number}")
                stage.let_write(vm, sizes.writes)
                yield _failover(stage, timing, other, holder)
                lab.power(holder, "on")
                stage.until("both are ready", lambda: ready(lab), 60)
                holder, other = other, holder
        finally:
            stage.close()
    finally:
        lab.down()


def _failover(stage: Stage, timing: Timing, survivor: str, lost: str) -> Found:
    times = stage.take_over(survivor, lost)
    agents_ms = agent_time_ms(stage.daemon(survivor).events(), times.evidence_ns)
    allowed_ms = allowed(timing, agents_ms)
    return {
        "detect_ms": times.detect_ms,
        "fence_ms": times.fence_ms,
        "authority_wait_ms": times.authority_wait_ms,
        "recover_ms": times.recover_ms,
        "total_ms": times.total_ms,
        "agents_ms": agents_ms,
        "bound_ms": timing.bound_ms,
        "allowed_ms": allowed_ms,
        "over_ms": times.total_ms - allowed_ms,
    }


def allowed(timing: Timing, agents_ms: int) -> int:
    """What a whole failover may take, in ms."""
    return max(timing.detection_ms + agents_ms, timing.bound_ms) + SLACK_MS


def agent_time_ms(events: Sequence[Found], evidence_ns: int) -> int:
    """What the agents' runs took in the attempt that led to this evidence; 0: there was none."""
    ended = [
        event["fields"]["words"]
        for event in events
        if event["kind"] == "attempt-ended"
        and event["fields"]["passed"]
        and abs(int(event["boottime_ns"]) - evidence_ns) < 1_000_000_000
    ]
    return sum(int(word["took_ms"]) for word in ended[-1]) if ended else 0


def ready(lab: Lab) -> bool:
    try:
        lab.wait_ready(0)
    except RingfenceError:
        return False
    return True


# -- all of it ---------------------------------------------------------------------------------


def measure(what: list[str], rounds: int, sizes: Sizes, say: Say) -> Found:
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix=f"rfb{os.getpid()}-", dir="/tmp") as name:
        directory = Path(name)
        if "locks" in what:
            found["locks"] = _locks(rounds, sizes, directory, say)
        if "failover" in what:
            found["failover"] = _failovers(rounds, sizes, directory, say)
        if "init" in what:
            say("init, two hosts")
            taken = [init_to_lock(directory / f"init{number}") for number in range(rounds)]
            found["init"] = medians(taken)
    return found


def _locks(rounds: int, sizes: Sizes, directory: Path, say: Say) -> Found:
    taken: dict[str, list[Found]] = {}
    for number in range(rounds):
        for nodes in sizes.nodes:
            for name, ring in sizes.rings.items():
                say(f"round {number + 1} of {rounds}: locks, {name}, {nodes} nodes")
                place = directory / f"{name}{nodes}.{number}"
                for measure, took_ns in locks(ring, nodes, sizes, place).items():
                    taken.setdefault(f"{measure}, {name}, {nodes}", []).append(us(took_ns))
    return {what: medians(each) for what, each in taken.items()}


def _failovers(rounds: int, sizes: Sizes, directory: Path, say: Say) -> Found:
    found: Found = {}
    for token_ms in sizes.tokens_ms:
        for name, ring in sizes.rings.items():
            say(f"failover, {name}, token {token_ms} ms")
            place = directory / f"{name}-{token_ms}"
            place.mkdir()
            each = list(failovers(ring, timing_for(token_ms), rounds, sizes, place))
            worst_ms = max(one["over_ms"] for one in each)
            found[f"{name}, {token_ms}"] = {**medians(each), "worst_over_ms": worst_ms}
    return found


# -- telling -------------------------------------------------------------------------------------


def tell(report: Found) -> None:
    found = report["measures"]
    print(f"medians of {report['rounds']} rounds, {report['cpus']} CPUs")
    if "locks" in found:
        columns = [what.removeprefix("known, ") for what in found["locks"] if what.startswith("known, ")]
        columns.sort(key=lambda column: list(RINGS).index(column.partition(",")[0]))
        print(f"\n{'p50':34}" + "".join(f"{column:>9}" for column in columns))
        for what in LOCKS:
            values = [found["locks"][f"{what}, {column}"]["p50"] for column in columns]
            print(f"{WORDS[what]:34}" + "".join(f"{value:9.0f}" for value in values))
    if "failover" in found:
        head = (
            "detect",
            "fence",
            "authority_wait",
            "recover",
            "total",
            "agents",
            "bound",
            "allowed",
            "over",
            "worst_over",
        )
        print(f"\n{'failover, ms':16}" + "".join(f"{column.replace('_', ' '):>16}" for column in head))
        for name, one in found["failover"].items():
            print(f"{name:16}" + "".join(f"{one[f'{column}_ms']:16.0f}" for column in head))
    if "init" in found:
        one = found["init"]
        start = f"from the hosts' start to the first EX lock: {one['hosts_s']:.2f} s"
        print(f"\nringfence init: {one['init_s']:.2f} s; {start}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help="rounds (default 5; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a look: two hosts, one token; no measurement")
    parser.add_argument("--only", choices=WHAT, action="append", help="this (repeat)")
    parser.add_argument("--ring", choices=sorted(RINGS), action="append", help="this one (repeat)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    say = progress()
    rounds = asked.rounds or (1 if asked.quick else 5)
    what = asked.only or list(WHAT)
    found = measure(what, rounds, Sizes(asked.quick, asked.ring or ()), say)
    report = {"version": 1, "rounds": rounds, "cpus": len(os.sched_getaffinity(0)), "measures": found}
    if asked.json:
        print(json.dumps(report, indent=2))
    else:
        tell(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
