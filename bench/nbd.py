"""ringfence's NBD path beside qemu-nbd and nbdkit, on disks of one kind, in one run.

    python bench/nbd.py [--on file|loop|memory] [--rounds N] [--size SIZE] [--dir DIR] [--quick] [--json]

Needs nbdcopy (libnbd-bin), qemu-nbd and qemu-img (qemu-utils), nbdkit.  Each round measures all servers, one
after the other; what is told are medians and ratios of medians, ringfence : peer; and what CPU time each
server took for a request, which a machine that has other work to do changes less.  The server of ringfence
is a whole lab of one host: authority checked before and after each write, direct I/O where the file system
has it.  qemu-nbd runs with --cache=none --aio=threads, or --cache=writethrough where there is no direct I/O.

--on file    files of one file system
     loop    a loop device each, made alike, of files of one file system (needs root)
     memory  files in /dev/shm: no disk has a part in it, which compares the servers alone

`nbdkit file` runs as it comes: what it reads and writes is this host's page cache, and what is still there
would land after the host was given up and thawed.  So two rows stand beside it, without a goal: `nbdkit+fua`
has each write on the disk before it answers; `bare` is no server at all, qemu-img with direct I/O on the disk
itself, 16 requests at a time, in threads (`-i native` would do half as many again of small writes).

Clients: nbdcopy with requests of 1 MiB, over one connection or four; `qemu-img bench`, 16 writes of 4 KiB at
a time all over the volume, one of it or four side by side."""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))  # as a script, and when a test loads it

from lvm_disks import loop

from ringfence.block.control import BlockService
from ringfence.block.service import Places
from ringfence.client import connect
from ringfence.core.units import parse_size
from ringfence.lab.cluster import Lab
from ringfence.lab.nbd_client import NbdClient
from ringfence.wire import client as calls

BLOCK_BYTES = 4096
DEPTH = 16
WRITES = 24000
"""Of one measure."""
MIB = 1 << 20
RINGFENCE, PEERS = "ringfence", ("qemu-nbd", "nbdkit")
FILE, LOOP, MEMORY = "file", "loop", "memory"
GOALS = {"4 KiB writes": 0.5, "1 MiB": 0.9}
"""By the beginning of a measure's name: the least ratio to each peer."""


class Server(NamedTuple):
    uri: str
    """Of what is no server, the disk."""
    pid: int = 0

    def cpu_us(self) -> float:
        """What it has taken so far, threads that have ended included.  Source: proc_pid_stat(5)."""
        if not self.pid:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--on", choices=(FILE, LOOP, MEMORY), default=FILE, help="what the disks are")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--size", default="256M", help="size of the volume (default 256M)")
    parser.add_argument("--dir", default=None, help="where the files lie (default: the system's place)")
    parser.add_argument("--quick", action="store_true", help="a look: one round, 64M")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # and its servers with it
    size_bytes = parse_size("64M" if asked.quick else asked.size)
    report = measure(size_bytes, 1 if asked.quick else asked.rounds, asked.dir, asked.on)
    if asked.json:
        print(json.dumps({"version": 3, **report}, indent=2))
    else:
        tell(report)
    return 0


def measure(size_bytes: int, rounds: int, directory: str | None = None, on: str = FILE) -> dict[str, Any]:
    """All measures of all servers.

    Args: directory: where the files lie for as long as it takes; None: the system's place.

    Returns: `measures`: by name, `median` by server, `ratio` by peer, `goal`, `met`."""
    directory = "/dev/shm" if on == MEMORY and directory is None else directory
    with tempfile.TemporaryDirectory(prefix="rfbench", dir=directory) as name:
        place = Path(name)
        with (
            ringfence(place, size_bytes, on == LOOP) as (ours, direct),
            peers(place, size_bytes, direct, on == LOOP) as others,
        ):
            servers = {RINGFENCE: ours, **others}
            return {"on": on, "direct_io": direct, **compare(servers, place, size_bytes, rounds)}


@contextlib.contextmanager
def ringfence(place: Path, size_bytes: int, on_loop: bool) -> Iterator[tuple[Server, bool]]:
    """A volume in a lab of one host, and whether it has direct I/O."""
    lab = Lab.up(place / "lab", 1, size_bytes + (16 << 20), loop=on_loop)
    try:
        with connect(lab.socket(lab.nodes[0])) as daemon:
            daemon.call(calls.VgCreate("vg0", (str(lab.disk),), shared=True))
            daemon.call(calls.LvCreate("vg0", "vm1", size_bytes=size_bytes))
            (volume,) = daemon.status()["exports"]
        with NbdClient(volume["uri"]):  # who serves it begins with its first client
            pass
        service = BlockService(Places.under(lab.root(lab.nodes[0])).socket, node=1, hold_ms=0)
        (path,) = asyncio.run(service.paths())
        yield Server(volume["uri"], path.pid), volume["direct"]
    finally:
        lab.down()


@contextlib.contextmanager
def peers(place: Path, size_bytes: int, direct: bool, on_loop: bool) -> Iterator[dict[str, Server]]:
    """By name."""
    cache = "none" if direct else "writethrough"
    servers = {
        "qemu-nbd": ["qemu-nbd", "--persistent", "--shared=8", "--format=raw", f"--cache={cache}",
                     "--aio=threads", "--socket={socket}", "{image}"],
        "nbdkit": ["nbdkit", "--foreground", "--unix={socket}", "file", "{image}"],
        "nbdkit+fua": ["nbdkit", "--foreground", "--unix={socket}", "--filter=fua", "file", "{image}",
                       "fuamode=force"],
        "bare": [],
    }  # fmt: skip
    with contextlib.ExitStack() as running:
        found: dict[str, Server] = {}
        for name, words in servers.items():
            image, path = place / f"{name}.img", place / name
            with image.open("wb") as file:
                file.truncate(size_bytes)
            disk = running.enter_context(loop(image)) if on_loop else str(image)
            if not words:
                found[name] = Server(disk)
                continue
            filled = [word.format(socket=path, image=disk) for word in words]
            # In a session of its own, as ringfence's is: Linux shares a busy CPU by sessions.
            server = running.enter_context(subprocess.Popen(filled, start_new_session=True))
            running.callback(server.terminate)
            while not path.exists():
                if server.poll() is not None:
                    sys.exit(f"{name} has ended with {server.returncode}")
                time.sleep(0.01)
            uri = f"nbd+unix:///?socket={path}"
            found[name] = Server(uri, server.pid)
        yield found


def compare(servers: dict[str, Server], place: Path, size_bytes: int, rounds: int) -> dict[str, Any]:
    """Run every measure on all servers, round by round."""
    pattern = place / "pattern"
    pattern.write_bytes(os.urandom(MIB) * (size_bytes // MIB))
    for server in servers.values():  # allocate the files before anything is timed
        if server.pid:
            run("nbdcopy", "--flush", str(pattern), server.uri)
        else:
            run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(pattern), server.uri)
    found: dict[str, dict[str, list[float]]] = {}
    spent: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for name, take in MEASURES.items():
            requests = WRITES if name.startswith("4 KiB") else size_bytes // MIB
            for who, server in servers.items():
                before_us = server.cpu_us()
                found.setdefault(name, {}).setdefault(who, []).append(take(server.uri, pattern, size_bytes))
                us = (server.cpu_us() - before_us) / requests
                spent.setdefault(name, {}).setdefault(who, []).append(us)
    measures = {}
    for name, values in found.items():
        median = {server: statistics.median(taken) for server, taken in values.items()}
        ratio = {peer: median[RINGFENCE] / median[peer] for peer in median if peer != RINGFENCE}
        goal = next(least for begins, least in GOALS.items() if name.startswith(begins))
        met = min(ratio[peer] for peer in PEERS) >= goal
        cpu = {server: statistics.median(taken) for server, taken in spent[name].items()}
        del cpu["bare"]  # it is no server
        measures[name] = {"median": median, "ratio": ratio, "goal": goal, "met": met, "cpu_us": cpu}
    return {"rounds": rounds, "size_bytes": size_bytes, "measures": measures}


def reads(connections: int) -> Callable[[str, Path, int], float]:
    def copy_out(uri: str, pattern: Path, size_bytes: int) -> float:
        if not uri.startswith("nbd"):
            return bare(uri, size_bytes, connections)
        return size_bytes / MIB / seconds(*nbdcopy(connections), uri, "null:")

    return copy_out


def writes(connections: int) -> Callable[[str, Path, int], float]:
    def copy_in(uri: str, pattern: Path, size_bytes: int) -> float:
        """With a flush at its end."""
        if not uri.startswith("nbd"):
            return bare(uri, size_bytes, connections, "-w")
        return size_bytes / MIB / seconds(*nbdcopy(connections), "--flush", str(pattern), uri)

    return copy_in


def bare(disk: str, size_bytes: int, copies: int, *options: str) -> float:
    """MiB/s, by requests of 1 MiB; copies: they share the work."""
    count = size_bytes // MIB // copies
    words = ["qemu-img", "bench", "-f", "raw", "-t", "none", "-d", str(DEPTH)]
    words += ["-s", str(MIB), "-c", str(count)]
    offsets = [count * MIB * number for number in range(copies)]
    return size_bytes / MIB / slowest([[*words, *options, "-o", str(offset), disk] for offset in offsets])


def slowest(benches: list[list[str]]) -> float:
    """Seconds of the one of these `qemu-img bench`, run side by side, that takes the longest."""
    clients = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for words in benches]
    took = [re.search(r"completed in ([0-9.]+) s", client.communicate()[0]) for client in clients]
    return max(
        float(one[1]) if one else sys.exit(" ".join(words)) for one, words in zip(took, benches, strict=True)
    )


def nbdcopy(connections: int) -> list[str]:
    return ["nbdcopy", f"--connections={connections}", "--request-size=1048576", "--requests=16"]


def small_writes(connections: int) -> Callable[[str, Path, int], float]:
    def bench(uri: str, pattern: Path, size_bytes: int) -> float:
        """4 KiB writes a second, each far from the one before.  The stride has no factor in common with the
        number of blocks, so it comes everywhere."""
        blocks = size_bytes // BLOCK_BYTES
        stride = (blocks * 5 // 8 | 1) * BLOCK_BYTES
        words = ["qemu-img", "bench", "-f", "raw", "-w", "-t", "none", "-s", str(BLOCK_BYTES)]
        words += ["-d", str(DEPTH), "-c", str(WRITES // connections), "-S", str(stride)]
        offsets = [blocks // connections * number * BLOCK_BYTES for number in range(connections)]
        return WRITES / slowest([[*words, "-o", str(offset), uri] for offset in offsets])

    return bench


MEASURES: dict[str, Callable[[str, Path, int], float]] = {
    "4 KiB writes a second, 1 connection": small_writes(1),
    "4 KiB writes a second, 4 connections": small_writes(4),
    "1 MiB writes, MiB/s, 1 connection": writes(1),
    "1 MiB writes, MiB/s, 4 connections": writes(4),
    "1 MiB reads, MiB/s, 1 connection": reads(1),
    "1 MiB reads, MiB/s, 4 connections": reads(4),
}


def seconds(*words: str) -> float:
    began = time.monotonic()
    run(*words)
    return time.monotonic() - began


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")


def tell(report: dict[str, Any]) -> None:
    direct = "yes" if report["direct_io"] else "no"
    print(f"on {report['on']}; medians of {report['rounds']} rounds; direct I/O: {direct}")
    first = next(iter(report["measures"].values()))
    servers = list(first["median"])
    print(f"{'':38}" + "".join(f"{name:>11}" for name in servers), "   ratios                   goal")
    for name, one in report["measures"].items():
        values = "".join(f"{one['median'][server]:11.0f}" for server in servers)
        ratios = " ".join(f"{ratio:5.2f}" for ratio in one["ratio"].values())  # in the order of the servers
        print(f"{name:38}{values}  {ratios} {one['goal']:5.1f}  {'met' if one['met'] else 'NOT MET'}")
        cpu = "".join(f"{us:11.1f}" for us in one["cpu_us"].values())
        print(f"{'  CPU of the server, us a request':38}{cpu}")


if __name__ == "__main__":
    sys.exit(main())
