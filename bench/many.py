"""What a cluster on corosync costs as it grows: each host's idle CPU and heartbeats, and what locks take.

    python bench/many.py [--hosts 2,4,8,16] [--seconds N] [--transport knet|udpu] [--json]

All hosts of each lab share this machine, with the times of a real cluster.  A lone figure belongs to the
machine, how it grows does not: of 16 hosts, 16 corosyncs pass one token round on the same few cores.  What is
sent and heard when nobody asks for anything are heartbeats, one a message.  Locks are lock + unlock of a
resource that nobody else uses and that its host does not keep: each goes through the ring.  Needs root, for
namespaces."""

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence.client import aio
from ringfence.core.cluster import Timing
from ringfence.lab.cluster import Lab
from ringfence.lab.layout import Ring
from ringfence.lab.parts import Part
from ringfence.wire import client as calls

DISK_BYTES = 64 << 20
SETTLE_S = 3.0
CROWD = 16
"""Clients that ask side by side on each host."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
COLUMNS = {
    "hosts": "hosts",
    "up_s": "up after, s",
    "daemon": "daemon idle, % of a core",
    "corosync": "corosync idle, % of a core",
    "sent": "sent, /s a host",
    "heard": "heard, /s a host",
    "alone_us": "lock + unlock, one client, us",
    "one_host": "locks/s, one host asks",
    "all_hosts": "locks/s, all ask",
}
Row = dict[str, Any]


# -- on a host ----------------------------------------------------------------------------


async def work(seconds: float, clients: int, prefix: str) -> list[int]:
    """How long each lock + unlock took, in ns."""
    daemon = await aio.connect()
    await daemon.call(calls.JoinSpace("many"), timeout_ms=30_000)
    space = await daemon.lockspace("many")
    took: list[int] = []
    until = time.monotonic() + seconds

    async def take(client: int) -> None:
        number = 0
        while time.monotonic() < until:
            began_ns = time.monotonic_ns()
            lock = await space.lock(f"{prefix}.{client}.{number}", "EX")
            await lock.unlock(wait=True)
            took.append(time.monotonic_ns() - began_ns)
            number += 1

    await asyncio.gather(*(take(client) for client in range(clients)))
    await daemon.close()
    return took


# -- the lab --------------------------------------------------------------------------------


@contextlib.contextmanager
def lab_of(hosts: int, transport: str) -> Iterator[tuple[Lab, float]]:
    path = Path(tempfile.mkdtemp(prefix="rfmany", dir="/tmp"))
    try:
        began = time.monotonic()
        lab = Lab.up(path / "lab", hosts, DISK_BYTES, Timing(), ring=Ring("corosync", transport=transport))
        try:
            yield lab, time.monotonic() - began
        finally:
            lab.down()
    finally:
        shutil.rmtree(path, ignore_errors=True)


def measure(hosts: int, seconds: float, transport: str) -> Row:
    with lab_of(hosts, transport) as (lab, up_s):
        time.sleep(SETTLE_S)
        row: Row = {"hosts": hosts, "up_s": round(up_s, 1), **idle(lab, seconds)}
        (alone,) = run_on(lab, lab.nodes[:1], seconds, 1)
        row["alone_us"] = round(statistics.median(alone) / 1000)
        for name, nodes in (("one_host", lab.nodes[:1]), ("all_hosts", lab.nodes)):
            row[name] = round(sum(len(one) for one in run_on(lab, nodes, seconds, CROWD)) / seconds)
        return row


def idle(lab: Lab, seconds: float) -> Row:
    """Of a host, as the median of all."""
    parts = (Part.DAEMON, Part.COROSYNC)
    before = {(node, part): cpu_s(lab, node, part) for node in lab.nodes for part in parts}
    first = messages(lab)
    began = time.monotonic()
    time.sleep(seconds)
    passed_s = time.monotonic() - began
    used = {key: (cpu_s(lab, *key) - spent) / passed_s for key, spent in before.items()}
    last = messages(lab)
    row: Row = {
        part.value: round(100 * statistics.median(used[node, part] for node in lab.nodes), 1)
        for part in parts
    }
    for at, name in ((1, "sent"), (2, "heard")):
        rates = [(last[node][at] - one[at]) / (last[node][0] - one[0]) for node, one in first.items()]
        row[name] = round(statistics.median(rates), 1)
    return row


def cpu_s(lab: Lab, node: str, part: Part) -> float:
    words = Path(f"/proc/{lab.part(node, part).pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_PER_S


def messages(lab: Lab) -> dict[str, tuple[float, int, int]]:
    """Host -> (when, sent, heard): messages of its corosync since that began, as it counts them."""
    outs = {node: lab.root(node) / f"stats{time.monotonic_ns()}" for node in lab.nodes}
    for node, out in outs.items():
        script = f"corosync-cmapctl -m stats > {out}.new; mv {out}.new {out}"
        lab.spawn(node, ["/bin/sh", "-c", script])
    found = {}
    for node, out in outs.items():
        while not out.exists():
            time.sleep(0.01)
        told = out.read_text()
        sent, heard = (
            int(re.findall(rf"^stats\.srp\.{what} .* = (\d+)$", told, re.MULTILINE)[0])
            for what in ("mcast_tx", "mcast_rx")
        )
        found[node] = (out.stat().st_mtime, sent, heard)
    return found


def run_on(lab: Lab, nodes: tuple[str, ...], seconds: float, clients: int) -> list[list[int]]:
    """Each node's times, of clients that work at the same time."""
    logs = []
    for node in nodes:
        log = lab.root(node) / f"work{time.monotonic_ns()}"
        words = ["--work", str(log), "--seconds", str(seconds), "--clients", str(clients)]
        lab.spawn(node, [sys.executable, __file__, *words], log.with_suffix(".out"), lab.env(node))
        logs.append(log)
    give_up = time.monotonic() + seconds + 120
    while not all(log.exists() for log in logs):
        if time.monotonic() > give_up:
            raise TimeoutError(f"clients did not end: see {lab.root(nodes[0])}")
        time.sleep(0.05)
    return [json.loads(log.read_text()) for log in logs]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", default="2,4,8,16")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--transport", choices=("knet", "udpu"), default="knet")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, default=1, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work is not None:
        took = asyncio.run(work(asked.seconds, asked.clients, asked.work.name))
        new = asked.work.with_suffix(".new")
        new.write_text(json.dumps(took))
        new.rename(asked.work)
        return 0
    rows = []
    for hosts in asked.hosts.split(","):
        rows.append(measure(int(hosts), asked.seconds, asked.transport))
        if not asked.json:
            if len(rows) == 1:
                print(f"| {' | '.join(COLUMNS.values())} |\n|{'---|' * len(COLUMNS)}")
            print(f"| {' | '.join(str(rows[-1][name]) for name in COLUMNS)} |", flush=True)
    if asked.json:
        print(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
