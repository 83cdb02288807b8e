"""pvmove."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ringfence.cli.verbs.lv_kinds import ALLOC, places, split
from ringfence.cli.verbs.pv import path
from ringfence.cli.verbs.table import CHANGE, Given, Option, Stock, Verb, Work, call
from ringfence.cli.verbs.vg import NO_EFFECT
from ringfence.client.brief import Brief
from ringfence.core.errors import BadInput, RingfenceError

INTERVAL_S = 15
"""As stock LVM2's activation/polling_interval."""


def _pvmove(given: Given) -> Work:
    source = path(given.names[0]) if given.names else None
    lv = split(given["name"])[1] or given["name"] if given["name"] else None
    asked = call(
        "PvMove", source=source, pvs=places(given.names[1:]), lv=lv, alloc=given["alloc"],
        abort=bool(given["abort"]) or None, background=bool(given["background"]) or None,
    )  # fmt: skip
    return [(given.names[0] if given.names else "", asked)]


def _seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise BadInput(f"{text!r} is not a number of seconds")
    return int(text)


@contextmanager
def _progress(given: Given, daemon: Brief) -> Iterator[None]:
    """A line now and then of how far it is."""
    interval_s: int = given["interval"]
    over = threading.Event()

    def tell() -> None:
        while not over.wait(interval_s):
            try:
                rows = daemon.call(call("Status"))["wiping"]
            except RingfenceError:
                continue
            line = progress_line(given.names[0] if given.names else "all", rows)
            if line and not over.is_set():
                print(f"  {line}", flush=True)

    teller = threading.Thread(target=tell, daemon=True)
    if interval_s:
        teller.start()
    try:
        yield
    finally:
        over.set()
        if interval_s:
            teller.join(2)


def progress_line(what: str, rows: list[dict[str, Any]]) -> str:
    """In stock LVM2's words.  Empty: nothing is being moved by this host."""
    moved = [row for row in rows if row.get("what") == "moved"]
    size = sum(row["size_bytes"] for row in moved)
    if not size:
        return ""
    return f"{what}: Moved: {100 * sum(row['done_bytes'] for row in moved) / size:.2f}%"


VERBS = {
    "pvmove": Verb(
        "pvmove", "Move LVs to other extents, also under their users.", "[PV[:RANGE...] [PV[:RANGE...]...]]",
        (
            Option("name", ("-n", "--name"), "The extents of this LV alone.", "LV"),
            ALLOC,
            Option(
                "interval", ("-i", "--interval"), "Say how far it is every so many seconds; 0: never.  "
                f"[default: {INTERVAL_S}]", "SECONDS", _seconds, default=INTERVAL_S,
            ),
            Option("background", ("-b", "--background"), "Do not wait: the hosts go on by themselves."),
            Option("abort", ("--abort",), "Give up what is on its way; what has arrived stays there."),
            NO_EFFECT[0], *CHANGE,
        ),
        _pvmove,
        "Without a PV it goes on with all that was begun, and waits for it. What was begun outlives command, "
        "daemon and host: the hosts go on by themselves. An LV that is open (EX, through the block service) "
        "is moved under its clients by the host that has it open; one that nobody has open, by any host. Not "
        "moved: an LV that is active in shared mode, through device-mapper or through stock LVM2 (deactivate "
        "it first), and what is neither linear nor striped (left to stock LVM2, and named). What an LV had "
        "is free when nothing uses it any more, and is not wiped: an LV that ringfence makes there shows "
        "none of it, one that stock LVM2 makes does; wipe a PV that goes out of the house.",
        (
            ("pvmove /dev/sdb", "everything on it goes to other PVs of its VG"),
            ("pvmove -n vm1 /dev/sdb:1000-1999 /dev/sdc", "some extents of one LV, to one PV"),
            ("pvmove", "go on, after a crash or -b, until all is moved"),
            ("pvmove --abort", "leave everything where it is by now"),
        ),
        stock=(Stock(("--atomic",), "moving all LVs in one step", False),),
        during=_progress,
        names="pv",
    ),
}  # fmt: skip
