"""An event's fields in the journal.  The same table for admins: docs/formats/journal.md."""

import json
from collections.abc import Mapping
from typing import Any

from ringfence.host.journal import entry, name_of

CRITICAL, ERROR, WARNING, NOTICE, INFO = 2, 3, 4, 5, 6
"""As in syslog(3)."""
PRIORITIES = {
    **dict.fromkeys(("incident", "fence-lied", "clone-found", "fence-contradicted", "divergent"), CRITICAL),
    **dict.fromkeys(
        ("no-leave", "failed", "stale", "shut-out", "not-admitted", "adoption-refused", "clone-refused",
         "fence-test-failed", "drill-failed", "history", "command-failed", "trace"),
        ERROR,
    ),
    **dict.fromkeys(
        ("victim", "victim-due", "ring-lost", "suspended", "lag", "drop-paths", "autostart-failed",
         "bad-frame", "watchdog", "log", "storage", "deadlock", "device", "fence-ordered", "disarmed",
         "evidence-refused", "machine-forgotten", "power-on-failed", "power-on-given-up",
         "fence-test-old", "drill", "refresh-failed"),
        WARNING,
    ),
    **dict.fromkeys(
        ("started", "reborn", "joined", "adopted", "leaving", "left", "ended", "evidence", "purged",
         "quarantine-lifted", "armed", "lockspace-runs", "config", "protocol", "power-on-done",
         "drill-ended", "handed-over", "handover-dropped"),
        NOTICE,
    ),
}  # fmt: skip
"""Of any other kind: INFO."""
MESSAGE_IDS = {
    "started": "61ae23473b65480585580da888ff8a7d",
    "joined": "6c8469565a824273a924f782811e37cb",
    "adopted": "df8075793de94b6f8319f25f34d69c1f",
    "adoption-refused": "3570efe81d014e4e9dcd752372baf1d4",
    "left": "a13f4d2fb5634a9fa16efb597859a85e",
    "no-leave": "12c3e3c85d5f4996a8556c744d27d54f",
    "failed": "0db96af194ac4ca6ac0b30950c5e85b2",
    "ring-lost": "d5914f2c38b247acb24d20c3e66809f6",
    "suspended": "1056aac5b27941168f179caf6c7b3c47",
    "shut-out": "6a05597829b4481b9b4f31888b79106b",
    "not-admitted": "a2d8d6f589304804b605632d7e3c7eb1",
    "clone-refused": "a4f8521f4dc841d7b3f9bacd09cd6427",
    "stale": "2c6c1dd7cb984297bb20ef7183cfe7df",
    "divergent": "3a8a2ed0abd5478fa607f9f9262756d4",
    "victim": "aa49223502d745ef9a7909db985a4879",
    "victim-due": "7ac33cfe6f44428bad64414f80f85d2f",
    "evidence": "291a2b45ca48431b843a4629ef71abff",
    "purged": "f87344c066244f2f96a8035ad959b993",
    "fence-lied": "b6b7d084f2f14a21931a8ef9cd455a37",
    "clone-found": "d2d6a0c5d6c44ff0a8c05d4b7c0f4f13",
    "fence-ordered": "7e0e3d3f6d3a4a4e9a1b2a4f0f6a5c21",
    "disarmed": "3b9f4b8c1d0e4e4bb1d3c5f0a7e2d964",
    "armed": "91c6a7d25e0b4f5f8a3d6e1b0c4f7a82",
    "fence-test-failed": "edbda884afcf49bcb86acde2de0b41b2",
    "fence-test-old": "6387a7ecc0c040ea9d8169becab992c8",
    "drill-failed": "0482fcd598d946e782587ffd7e15bb07",
    "fence-contradicted": "5dad1b0c084b4d6fb4c1662de0e3fa48",
    "incident": "0691fbf65b6146e5a2a359fa51e576fa",
}
"""For ever: admins' filters and alarms name them."""
_OURS = ("kind", "node", "host")


def journal_entry(host: str, kind: str, what: str, fields: Mapping[str, Any], about: str = "") -> bytes:
    """Args:
    host: this node's name.
    fields: the event's; what is no text nor number is written as JSON.
    about: the name of the node that it is about, if it is about one.
    """
    found = {
        "MESSAGE": f"{kind}: {what}",
        "PRIORITY": str(PRIORITIES.get(kind, INFO)),
        "SYSLOG_IDENTIFIER": "ringfence",
        "RINGFENCE_HOST": host,
        "RINGFENCE_KIND": kind,
    }
    if kind in MESSAGE_IDS:
        found["MESSAGE_ID"] = MESSAGE_IDS[kind]
    if about:
        found["RINGFENCE_NODE"] = about
    for word, value in fields.items():
        if word == "node":
            continue
        prefix = f"ringfence_{kind}_" if word in _OURS else "ringfence_"
        found[name_of(word, prefix)] = value if isinstance(value, str) else json.dumps(value)
    return entry(found)
