"""What an open LV's data goes through: NBD beside other servers, device-mapper beside the raw device."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbd

RIG = Path(__file__).parents[1] / "tests/rig"
RIG_SCENARIOS = ("throughput",)
NBD_BYTES = 128 << 20


def through_nbd(rounds: int) -> dict[str, Any]:
    """`nbd.measure` on files and in memory: {measure: {"median" by server, "ratio" by peer, "goal", …}}."""
    found: dict[str, Any] = {}
    for on, where in ((nbd.FILE, ""), (nbd.MEMORY, ", in memory")):
        measures = nbd.measure(NBD_BYTES, rounds, on=on)["measures"]
        found |= {name + where: one for name, one in measures.items()}
    return found


def through_dm(rig: str) -> dict[str, Any]:
    """By disk {"ours_us", "raw_us"} of a read of 1 MiB; empty: the rig has not told.

    Args: rig: a file with what `make rig` has printed; empty: it is run now, which takes minutes."""
    if rig:
        told = Path(rig).read_text()
    else:
        words = [sys.executable, str(RIG), *RIG_SCENARIOS]
        told = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False).stdout
    found = re.findall(r"a read (of .*?) takes ([\d.]+) us through dm, ([\d.]+) us raw", told)
    return {disk: {"ours_us": float(ours), "raw_us": float(raw)} for disk, ours, raw in found}
