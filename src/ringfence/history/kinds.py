"""The kinds of events.

What a kind means, and how loudly the journal is told of it: docs/formats/journal.md."""

INCIDENT = "incident"
FENCE_KINDS = (
    "victim", "victim-due", "attempt", "attempt-ended", "evidence", "evidence-refused", "purged",
    "fence-lied", "clone-found", "clone-refused", "machine-forgotten", "fence-ordered", "disarmed", "armed",
    "quarantine-lifted", "drill", "drill-ended", "drill-failed", "power-on-done", "power-on-failed",
    "power-on-given-up", INCIDENT,
)  # fmt: skip
"""Kept for ever."""
KINDS = (
    *FENCE_KINDS, "adopted", "adoption-refused", "autostart-failed", "bad-frame", "command-failed", "config",
    "deadlock", "device", "divergent", "fence-test", "fence-test-failed", "fence-test-old", "given-up-partly",
    "handed-over", "handover-dropped", "joined", "left", "lockspace-runs", "lv-moved", "lv-refreshed",
    "lv-wiped", "lv-zeroed", "lvm-ended", "marked", "move-failed", "not-admitted", "not-quorate", "protocol",
    "quorate", "reborn", "refresh-failed", "ring-lost", "ring-remark", "shut-out", "slots", "slots-failed",
    "stale", "started", "suspended", "vg-changed", "vg-dropped", "vg-killed", "wipe-failed",
)  # fmt: skip
"""All that the history is told of.  The daemon's log has more: what is only a remark (`lag`, …)."""
