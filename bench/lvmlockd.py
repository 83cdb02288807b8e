"""What stock LVM2 waits for its locks: ringfence beside LVM2's own lvmlockd, in one run on one machine.

    python bench/lvmlockd.py [--quick] [--rounds N] [--only SERVER …] [--json]

needs root and the packages lvm2 and lvm2-lockd; some minutes.  Everything happens in a mount namespace of its
own, on sparse files behind loop devices; no device-mapper is needed: LVM2 asks for the same locks without.

lvmlockd -T         Debian's own, one host, with no DLM below it: it is its own lock manager
grant everything    a socket that says yes: what is left is LVM2's own time
ringfence           a lab of one host on the hub ring; also one of two hosts, where all orders go between both

activate      `vgchange -aey` and `-an` of a whole VG.  The *share* of a server is its time less that of
              grant everything; compared are shares.
create        80 `lvcreate` by 4 writers on 2 hosts at once.  Where locks are given away LVs are lost.
request       one request and its reply, by a client that speaks the protocol: lock_vg sh and un in turn, and
              lock_lv ex, then un, of one LV after the other; on one connection and on four at once.

Each round measures every server, in the other order every second round; told are medians of rounds."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # as a script, and when a test loads it

from lvm_disks import QUIET, lv_uuid
from lvmlockd_client import HUNG_UP
from lvmlockd_servers import GRANTS, OURS, OURS_TWO, REAL, SERVERS, VG, private_run, running
from progress_lines import Say, progress

ROUNDS = 3
WRITERS = 4
EACH = 20
"""LVs that a writer makes: with fewer, one who grants everything may be lucky."""
CONNECTIONS = (1, 4)
SHARE_GOALS = {1000: 2.0, 5000: 1.0, 20_000: 2 / 3}
"""LVs -> the most that ours may be of lvmlockd's, of `-aey`."""
OFF_GOAL = (20_000, 1 / 3)
"""The same of `-an`."""
LINEAR = 1.25
"""The most that a lock of the largest VG may take of what it takes in the middle one."""
CREATE_GOAL = 1.2
REQUEST_GOAL_US = 200.0
TRIES = 3
"""Of a peer that hangs up on a client."""
Found = dict[str, Any]


class HungUp(Exception):
    """A server closed a client's connection."""


class Sizes:
    """How much is measured in a round."""

    def __init__(self, quick: bool) -> None:
        self.lvs = (200,) if quick else tuple(SHARE_GOALS)
        self.requests = 100 if quick else 2000


# -- measuring ---------------------------------------------------------------------------


def activate(servers: list[str], lvs: int, rounds: int, say: Say) -> dict[str, Found]:
    """{server: {"on_s", "off_s"}}: each a list of seconds, a round each.  Every server runs all the while."""
    found: dict[str, Found] = {}
    with running(servers, lvs, 1, say) as hosts:
        for number in range(rounds):
            for server in list(hosts) if number % 2 == 0 else reversed(hosts):
                say(f"round {number + 1} of {rounds}: {lvs} LVs, {server}")
                host = hosts[server][0]
                one = found.setdefault(server, {"on_s": [], "off_s": []})
                one["on_s"].append(host.seconds("vgchange", "-aey", VG))
                one["off_s"].append(host.seconds("vgchange", "-an", VG))
    return found


def create(server: str, say: Say) -> Found:
    """{"seconds", "made", "lost", "failed", "seqno", "clean"}: what became of WRITERS * EACH LVs.  Where
    the whole VG is lost, no LV was made and the seqno is that of before."""
    with running([server], 0, 2, say) as found:
        if server not in found:
            return {}
        hosts = found[server]

        def write(number: int) -> int:
            """One admin who makes LVs, one after the other; how many commands failed."""
            words = ["lvcreate", "-an", "-Zn", "-l", "1", VG, "-n"]
            host = hosts[number % len(hosts)]
            return sum(host.attempt(*words, f"w{number}n{one}")[0] != 0 for one in range(EACH))

        began = time.perf_counter()
        with ThreadPoolExecutor(WRITERS) as writers:
            failed = sum(writers.map(write, range(WRITERS)))
        seconds = time.perf_counter() - began
        code, out, _ = hosts[0].attempt("vgs", "--noheadings", "-o", "lv_count,seqno", VG)
        fields = out.split()[-2:] if code == 0 else ["0", "1"]
        clean = all(host.attempt("vgck", VG)[::2] == (0, QUIET) for host in hosts)
        return {
            "seconds": seconds, "made": int(fields[0]), "lost": WRITERS * EACH - int(fields[0]),
            "failed": failed, "seqno": int(fields[1]) - 1, "clean": clean,
        }  # fmt: skip


def requests(server: str, count: int, say: Say) -> Found:
    """{"vg, 1": {"p50", "p99"}, …} in us: by what is locked and how many connections ask.  A peer that hangs
    up on a client, which Debian's lvmlockd did once in some hundred runs, is asked anew; ours must not.

    Args: count: LVs of each connection.

    Raises HungUp."""
    left = 1 if server in (OURS, OURS_TWO) else TRIES
    while True:
        left -= 1
        try:
            return _requests(server, count, say)
        except HungUp:
            if not left:
                raise
            say(f"{server} hung up on a client: once more")


def _requests(server: str, count: int, say: Say) -> Found:
    found: Found = {}
    words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("lvmlockd_client.py"))]
    with running([server], max(CONNECTIONS) * count, 1, say) as hosts:
        if server not in hosts:
            return {}
        for clients in CONNECTIONS:
            processes = [
                subprocess.Popen(
                    [*words, hosts[server][0].socket, VG],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                )
                for _ in range(clients)
            ]  # fmt: skip
            for number, process in enumerate(processes):
                assert process.stdin is not None
                json.dump([lv_uuid(number * count + one) for one in range(count)], process.stdin)
                process.stdin.close()
                process.stdin = None
            printed = [process.communicate()[0] for process in processes]
            if any(process.returncode == HUNG_UP for process in processes):
                raise HungUp(f"{server} hung up on one of {clients} clients")
            told = [json.loads(one) for one in printed]
            for what in ("vg", "lv"):
                took = sorted(us for one in told for us in one[what])
                p99 = took[min(len(took) - 1, len(took) * 99 // 100)]
                found[f"{what}, {clients}"] = {"p50": statistics.median(took), "p99": p99}
    return found


def measure(servers: list[str], rounds: int, sizes: Sizes, say: Say) -> Found:
    """{"activate": {LVs: {server: {"on_s", "off_s", "on_share_s", …}}}, "create": …, "request": …}; medians
    of rounds.  What a server could not be had for is not there."""
    activated = {str(lvs): shares(activate(servers, lvs, rounds, say)) for lvs in sizes.lvs}
    created: dict[str, Found] = {}
    asked: dict[str, Found] = {}
    for server in servers:
        if server != OURS:  # one host says nothing of what two do
            say(f"{WRITERS * EACH} lvcreate, {server}")
            created[server] = _middle([create(server, say) for _ in range(rounds)])
        if server != GRANTS:
            say(f"requests, {server}")
            asked[server] = requests(server, sizes.requests, say)
    return {
        "activate": activated,
        "create": {server: one for server, one in created.items() if one},
        "request": {server: one for server, one in asked.items() if one},
    }


def _middle(rounds: list[Found]) -> Found:
    """Medians of what is a number; the worst of whether it was clean."""
    return {
        key: all(one[key] for one in rounds)
        if key == "clean"
        else statistics.median(one[key] for one in rounds)
        for key in rounds[0]
    }


def shares(rounds: dict[str, Found]) -> Found:
    """Medians of seconds, and of the share of them that is the locks': a round's time less that of grant
    everything in that round."""
    found: Found = {}
    for server, one in rounds.items():
        told = found[server] = {what: statistics.median(one[what]) for what in ("on_s", "off_s")}
        if GRANTS in rounds and server != GRANTS:
            for what in ("on", "off"):
                pairs = zip(one[f"{what}_s"], rounds[GRANTS][f"{what}_s"], strict=True)
                told[f"{what}_share_s"] = statistics.median(mine - bare for mine, bare in pairs)
    return found


# -- goals -----------------------------------------------------------------------------------


def goals(found: Found) -> list[Found]:
    """Issue 6's, as {"goal", "value", "limit", "least", "met"}; those whose figures are not there are left
    out."""
    told: list[Found] = []

    def tell_goal(goal: str, value: float, limit: float, least: bool = False) -> None:
        met = value >= limit if least else value <= limit
        told.append({"goal": goal, "value": value, "limit": limit, "least": least, "met": met})

    for server in (OURS, OURS_TWO):
        for lvs, limit in SHARE_GOALS.items():
            _ratio(tell_goal, found, server, lvs, "on_share_s", limit, f"-aey of {lvs}: share : lvmlockd's")
        _ratio(tell_goal, found, server, OFF_GOAL[0], "off_share_s", OFF_GOAL[1],
               f"-an of {OFF_GOAL[0]}: share : lvmlockd's")  # fmt: skip
        each = [_each(found, server, lvs) for lvs in list(SHARE_GOALS)[1:]]
        if all(each):
            tell_goal(f"{server}: share a lock, 20000 LVs : 5000 LVs", each[1] / each[0], LINEAR)
    made, bare = found["create"].get(OURS_TWO), found["create"].get(GRANTS)
    if made:
        tell_goal("80 lvcreate: LVs", made["made"], 80, least=True)
        tell_goal("80 lvcreate: seqno", made["seqno"], 80, least=True)
        tell_goal("80 lvcreate: vgck is clean", float(made["clean"]), 1, least=True)
    if made and bare:
        tell_goal("80 lvcreate: time : grant everything's", made["seconds"] / bare["seconds"], CREATE_GOAL)
        tell_goal("80 lvcreate: grant everything loses LVs", bare["lost"], 1, least=True)
    for server in (OURS, OURS_TWO):
        for what in ("vg, 1", "lv, 1"):
            if server in found["request"]:
                p50 = found["request"][server][what]["p50"]
                tell_goal(f"{server}: request ({what}), p50 us", p50, REQUEST_GOAL_US)
    return told


def _ratio(
    tell_goal: Callable[[str, float, float], None], found: Found, server: str, lvs: int, what: str,
    limit: float, goal: str,
) -> None:  # fmt: skip
    there = found["activate"].get(str(lvs), {})
    mine, theirs = there.get(server, {}).get(what), there.get(REAL, {}).get(what)
    if mine is not None and theirs:
        tell_goal(f"{server}: {goal}", mine / theirs, limit)


def _each(found: Found, server: str, lvs: int) -> float:
    return float(found["activate"].get(str(lvs), {}).get(server, {}).get("on_share_s", 0)) / lvs


# -- telling ---------------------------------------------------------------------------------


def table(found: Found) -> list[str]:
    """As docs/lvm2.md has it."""
    lines = [
        "| vgchange | server | -aey | of it locks | a lock | -an | of it locks | a lock |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for lvs, by_server in found["activate"].items():
        for server, one in by_server.items():
            cells = [f"{lvs} LVs", server]
            for what in ("on", "off"):
                share = one.get(f"{what}_share_s")
                cells.append(f"{one[f'{what}_s']:.2f} s")
                cells += ["", ""] if share is None else [f"{share:.2f} s", f"{share / int(lvs) * 1e6:.0f} us"]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| lvcreate | LVs | lost | seqno | vgck | time |", "|---|---|---|---|---|---|"]
    for server, one in found["create"].items():
        clean = "clean" if one["clean"] else "damaged"
        cells = [server, *(f"{one[key]:.0f}" for key in ("made", "lost", "seqno")), clean]
        lines.append(f"| {' | '.join(cells)} | {one['seconds']:.2f} s |")
    lines += [
        "",
        "| request, p50 (p99) us | lock_vg | 4 connections | lock_lv | 4 connections |",
        "|---|---|---|---|---|",
    ]
    for server, one in found["request"].items():
        cells = [
            f"{one[what]['p50']:.0f} ({one[what]['p99']:.0f})"
            for what in ("vg, 1", "vg, 4", "lv, 1", "lv, 4")
        ]
        lines.append(f"| {server} | {' | '.join(cells)} |")
    return lines


def tell(report: Found) -> None:
    print(f"medians of {report['rounds']} rounds, {report['cpus']} CPUs\n")
    print("\n".join(table(report["measures"])))
    print(f"\n{'goal':62}{'value':>10}{'limit':>10}")
    for one in report["goals"]:
        sign, met = ">=" if one["least"] else "<=", "met" if one["met"] else "NOT MET"
        print(f"  {one['goal']:60}{one['value']:10.3f} {sign}{one['limit']:7.3f}  {met}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help=f"rounds (default {ROUNDS}; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a look: small VGs, one round; no measurement")
    parser.add_argument("--only", choices=sorted(SERVERS), action="append", help="this server (repeat)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    private_run()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    say = progress()
    rounds = asked.rounds or (1 if asked.quick else ROUNDS)
    servers = [one for one in SERVERS if not asked.only or one in asked.only]
    found = measure(servers, rounds, Sizes(asked.quick), say)
    cpus = len(os.sched_getaffinity(0))
    report = {"version": 1, "rounds": rounds, "cpus": cpus, "measures": found, "goals": goals(found)}
    if asked.json:
        print(json.dumps(report, indent=2))
    else:
        tell(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
