"""--foreground: the command ends when what it left to the background is done, and says how far that is.

Any host may do it, so the LV itself is looked at; what this host does is known more closely."""

from __future__ import annotations

import sys
import time

from ringfence.cli.verbs.run import open_daemon
from ringfence.cli.verbs.table import Given, Option, call
from ringfence.core.errors import NotFound, RingfenceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringfence.client.brief import Brief

FOREGROUND = Option(
    "foreground", ("--foreground",), "Wait until its extents are wiped; say how far that is.", ours=True
)
POLL_S = 0.5
_LATER = "being wiped, and free after that."
STILL_S = 30.0
"""After so long without progress it is said who knows why."""


def until_clean(given: Given, result: dict[str, Any]) -> dict[str, Any]:
    """After a command whose result names an LV that is being zeroed or wiped; the result, completed.

    That the LV is made or gone stands, whatever is said here: `problems` make the command fail."""
    vg, name, uuid = (str(result.get(key) or "") for key in ("vg", "unclean", "uuid_unclean"))
    if not given["foreground"] or not name:
        return result
    silent = bool(given["quiet"] or given["json"])
    try:
        with open_daemon(given) as daemon:
            _watch(daemon, vg, name, uuid, silent)
    except RingfenceError as error:
        problem = f"{vg}/{name}: how far it is, is not known: {error}; see: ringfence why {vg}/{name}"
        return {**result, "problems": [problem]}
    said = [line for line in str(result["message"]).splitlines() if not line.endswith(_LATER)]
    notes = [note for note in result.get("notes") or [] if not note.endswith(_LATER)]
    return {**result, "message": "\n".join(said), "notes": notes}


def made_active(given: Given, result: dict[str, Any]) -> dict[str, Any]:
    """After lvcreate, which was asked to leave the LV inactive; activated when it is zeroed."""
    result = until_clean(given, result)
    if not given["foreground"] or given["activate"] == "n" or result.get("problems"):
        return result
    name = f"{result['vg']}/{result['name']}"
    try:
        with open_daemon(given) as daemon:
            wanted = call("LvChange", vg=result["vg"], lv=result["name"], activate=given["activate"] or "ey")
            active: dict[str, Any] = daemon.call(wanted | {"wait_ms": given["wait"]})
    except RingfenceError as error:
        return {**result, "problems": [f"{name} was created, but not activated: {error}"]}
    return {**result, **{key: value for key, value in active.items() if key != "message"}}


def _watch(daemon: Brief, vg: str, name: str, uuid: str, silent: bool) -> None:
    shown, since = "", time.monotonic()
    while (told := _how_far(daemon, vg, name, uuid)) is not None:
        now = time.monotonic()
        if told != shown:
            shown, since = told, now
            if not silent:
                print(f"  {vg}/{name}: {told}", flush=True)
        elif now - since >= STILL_S:
            print(f"  {vg}/{name}: no progress; see: ringfence why {vg}/{name}", file=sys.stderr)
            since = now
        time.sleep(POLL_S)
    if not silent:
        print(f"  {vg}/{name}: 100.00%", flush=True)


def _how_far(daemon: Brief, vg: str, name: str, uuid: str) -> str | None:
    """None: it is done."""
    try:
        question = call("Lvs", vg=vg, lv=name, fields=["lv_uuid", "copy_percent"])
        columns = daemon.call(question)["columns"]
    except NotFound:
        return None
    if columns["lv_uuid"] != [uuid] or columns["copy_percent"] == [""]:
        return None
    for one in daemon.call(call("Status")).get("wiping") or []:
        if (one["vg"], one["lv"]) == (vg, name) and one["size_bytes"]:
            return f"{100 * one['done_bytes'] / one['size_bytes']:.2f}%"
    return f"{columns['copy_percent'][0]}%"
