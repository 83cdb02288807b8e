"""ringfence's NBD path beside qemu-nbd, on files of one file system, in one run.

    python bench/nbd.py [--rounds N] [--size SIZE] [--dir DIR] [--json]

Needs nbdcopy (libnbd-bin), qemu-nbd and qemu-img (qemu-utils).  Each round measures both servers, one
after the other; what is told are medians and the ratio ringfence : qemu-nbd of medians.  The server of
ringfence is a whole lab of one host (authority checked before and after each write, direct I/O where
the file system has it); qemu-nbd runs with --cache=none --aio=threads, or --cache=writethrough where
there is no direct I/O."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ringfence.client import connect
from ringfence.core.units import parse_size
from ringfence.lab.cluster import Lab
from ringfence.wire import client as calls

OPERATIONS = 2000
BLOCK_BYTES = 4096


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--size", default="128M", help="size of the volume (default 128M)")
    parser.add_argument("--dir", default=None, help="where the files lie (default: the system's place)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    size_bytes = parse_size(asked.size)
    with tempfile.TemporaryDirectory(prefix="rfbench", dir=asked.dir) as name:
        directory = Path(name)
        lab = Lab.up(directory / "lab", 1, size_bytes + (16 << 20))
        try:
            with connect(lab.socket(lab.nodes[0])) as daemon:
                daemon.call(calls.VgCreate("vg0", (str(lab.disk),), shared=True))
                daemon.call(calls.LvCreate("vg0", "vm1", size_bytes=size_bytes))
                (volume,) = daemon.status()["exports"]
            report = compare(directory, volume["uri"], volume["direct"], size_bytes, asked.rounds)
        finally:
            lab.down()
    if asked.json:
        print(json.dumps({"version": 1, **report}, indent=2))
    else:
        tell(report)
    return 0


def compare(directory: Path, uri: str, direct: bool, size_bytes: int, rounds: int) -> dict[str, object]:
    """Run every measure on both servers, round by round."""
    image, socket = directory / "qemu.img", directory / "qemu"
    with image.open("wb") as file:
        file.truncate(size_bytes)
    cache = "none" if direct else "writethrough"
    words = ["qemu-nbd", "--persistent", "--shared=8", "--format=raw", f"--cache={cache}", "--aio=threads"]
    with subprocess.Popen([*words, f"--socket={socket}", str(image)]) as server:
        try:
            while not socket.exists():
                time.sleep(0.01)
            other = f"nbd+unix:///?socket={socket}"
            pattern = directory / "pattern"
            pattern.write_bytes(os.urandom(1 << 20) * (size_bytes >> 20))
            for each in (uri, other):  # allocate both files before anything is timed
                run("nbdcopy", "--flush", str(pattern), each)
            found: dict[str, dict[str, list[float]]] = {}
            for _ in range(rounds):
                for measure, take in MEASURES.items():
                    for server_name, where in (("ringfence", uri), ("qemu_nbd", other)):
                        value = take(where, pattern, size_bytes)
                        found.setdefault(measure, {}).setdefault(server_name, []).append(value)
        finally:
            server.terminate()
    measures = {}
    for measure, values in found.items():
        medians = {name: statistics.median(taken) for name, taken in values.items()}
        measures[measure] = {**medians, "ratio": medians["ringfence"] / medians["qemu_nbd"]}
    return {"rounds": rounds, "direct_io": direct, "size_bytes": size_bytes, "measures": measures}


def copy_out(uri: str, pattern: Path, size_bytes: int) -> float:
    """Sequential read, MiB/s."""
    return size_bytes / (1 << 20) / seconds("nbdcopy", uri, "null:")


def copy_in(uri: str, pattern: Path, size_bytes: int) -> float:
    """Sequential write and a flush, MiB/s."""
    return size_bytes / (1 << 20) / seconds("nbdcopy", "--flush", str(pattern), uri)


def bench(depth: int) -> Callable[[str, Path, int], float]:
    def writes(uri: str, pattern: Path, size_bytes: int) -> float:
        """4 KiB writes a second."""
        count = OPERATIONS * (1 if depth == 1 else 4)
        words = ["qemu-img", "bench", "-f", "raw", "-w", "-t", "none", "-s", str(BLOCK_BYTES)]
        return count / seconds(*words, "-d", str(depth), "-c", str(count), "-S", "69632", uri)

    return writes


MEASURES: dict[str, Callable[[str, Path, int], float]] = {
    "sequential read, MiB/s": copy_out,
    "sequential write, MiB/s": copy_in,
    "4 KiB writes a second, depth 1": bench(1),
    "4 KiB writes a second, depth 16": bench(16),
}


def seconds(*words: str) -> float:
    began = time.monotonic()
    run(*words)
    return time.monotonic() - began


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")


def tell(report: dict[str, object]) -> None:
    print(f"medians of {report['rounds']} rounds; direct I/O: {'yes' if report['direct_io'] else 'no'}")
    print(f"{'':34}{'ringfence':>12}{'qemu-nbd':>12}{'ratio':>8}")
    measures = report["measures"]
    assert isinstance(measures, dict)
    for name, one in measures.items():
        print(f"{name:34}{one['ringfence']:12.0f}{one['qemu_nbd']:12.0f}{one['ratio']:8.2f}")


if __name__ == "__main__":
    sys.exit(main())
