"""LVs made by several writers on two hosts at once, and what became of them."""

import os
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lvm_disks import QUIET, Host
from lvmlockd_servers import VG
from progress_lines import Say
from volume_hosts import both

from ringfence.wire import client as calls

WRITERS = 4
_WORDS = ["lvcreate", "-an", "-l", "1", VG, "-n"]


def writers(rounds: int, each: int, say: Say) -> dict[str, Any]:
    """{"lvs": how many each way makes in a round, "api_ms", "cli_ms", "stock_ms": lists, a round each;
    "lost": LVs of ours that are not there, "clean": whether stock LVM2 finds nothing wrong, and no extent in
    two LVs}.

    Args: each: how many a writer makes."""
    lvs = WRITERS * each
    took: dict[str, list[float]] = {"api_ms": [], "cli_ms": [], "stock_ms": []}
    with both(0, hosts=2) as (ours, stock), ours.daemons(WRITERS // 2) as daemons:

        def by_api(number: int, name: str) -> None:
            daemons[number].call(calls.LvCreate(VG, name, extents=1, activate="n"))

        def by_cli(number: int, name: str) -> None:
            ours.run(*_WORDS, name, host=number % 2)

        def by_stock(number: int, name: str) -> None:
            stock[number % 2].run(*_WORDS, name, "-Zn")

        ways = {"api_ms": by_api, "cli_ms": by_cli, "stock_ms": by_stock}
        for number in range(rounds):
            for who, make in sorted(ways.items(), reverse=number % 2 == 1):
                say(f"round {number + 1} of {rounds}: {lvs} LVs, {who.removesuffix('_ms')}")
                took[who].append(_make_all(make, f"{who[0]}{number}", each))
        with tempfile.TemporaryDirectory(prefix=f"rfbv{os.getpid()}-", dir="/tmp") as place:
            made, clean = _judge(ours.judge(Path(place)))
    return {"lvs": lvs, **took, "lost": 2 * lvs * rounds - made, "clean": clean}


def _make_all(make: Callable[[int, str], None], prefix: str, each: int) -> float:
    """How long all writers take together, in ms.  Raises what one of them met."""

    def write(number: int) -> None:
        for one in range(each):
            make(number, f"{prefix}w{number}n{one}")

    began = time.perf_counter()
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    return (time.perf_counter() - began) * 1000


def _judge(stock: Host) -> tuple[int, bool]:
    """How many LVs there are, each on an extent of its own; whether stock LVM2 has no complaint."""
    code, _, complaint = stock.attempt("vgck", VG)
    rows = [line.split() for line in stock.run(
        "lvs", "--noheadings", "-o", "lv_name,seg_pe_ranges", VG
    ).splitlines()]  # fmt: skip
    extents: list[int] = []
    for _, ranges in rows:
        found = re.fullmatch(r"\S+:(\d+)-(\d+)", ranges)
        assert found, f"not the extents of a linear LV: {ranges!r}"
        extents += range(int(found[1]), int(found[2]) + 1)
    return len({name for name, _ in rows}), (code, complaint) == (0, QUIET) and len(extents) == len(
        set(extents)
    )
