"""What the demo measured: times from a survivor's own events, the verdict on each act, the table.

Times are differences of CLOCK_BOOTTIME stamps on one host (all lab hosts share its clock), relative
to the instant at which the freeze began:

    freeze -> suspected (detect) -> evidence (fence) -> locks purged (authority wait) -> EX granted (recover)

The authority wait runs beside fencing; what is left of it after the evidence is what it cost."""

from collections.abc import Sequence
from typing import Any

import msgspec

NS_PER_MS = 1_000_000


class Timeline(msgspec.Struct, frozen=True):
    """Instants of one failure, in BOOTTIME nanoseconds."""

    frozen_ns: int
    suspected_ns: int
    evidence_ns: int
    purged_ns: int
    granted_ns: int

    @property
    def detect_ms(self) -> int:
        return (self.suspected_ns - self.frozen_ns) // NS_PER_MS

    @property
    def fence_ms(self) -> int:
        return (self.evidence_ns - self.suspected_ns) // NS_PER_MS

    @property
    def authority_wait_ms(self) -> int:
        return (self.purged_ns - self.evidence_ns) // NS_PER_MS

    @property
    def recover_ms(self) -> int:
        return (self.granted_ns - self.purged_ns) // NS_PER_MS

    @property
    def total_ms(self) -> int:
        return (self.granted_ns - self.frozen_ns) // NS_PER_MS


class ActReport(msgspec.Struct):
    """One row.  Field names are those of `demo --json`."""

    name: str
    detect_ms: int = 0
    fence_ms: int = 0
    authority_wait_ms: int = 0
    recover_ms: int = 0
    total_ms: int = 0
    acknowledged_writes: int = 0
    lost_writes: int = 0
    foreign_blocks: int = 0
    unreported_foreign_blocks: int = 0
    incidents: list[dict[str, Any]] = []
    tokens: list[str] = []
    """The lock's token at the first holder and at the second."""
    ok: bool = False

    def add_times(self, times: Timeline) -> None:
        """An act of several scenes sums them."""
        self.detect_ms += times.detect_ms
        self.fence_ms += times.fence_ms
        self.authority_wait_ms += times.authority_wait_ms
        self.recover_ms += times.recover_ms
        self.total_ms += times.total_ms


class DemoReport(msgspec.Struct):
    acts: list[ActReport]

    @property
    def ok(self) -> bool:
        """Protected acts lost nothing, and the unprotected one shows what protection is for.

        Acts that were not asked for do not count; none at all is no success."""
        return bool(self.acts) and all(act.ok for act in self.acts)

    def as_dict(self) -> dict[str, Any]:
        return {"version": 1, "acts": [msgspec.to_builtins(act) for act in self.acts], "ok": self.ok}


class EventsMissing(Exception):
    """The survivor did not record what the story says it must have."""


def timeline(events: Sequence[dict[str, Any]], victim: int, frozen_ns: int, granted_ns: int) -> Timeline:
    """Find the failure that began at `frozen_ns` in a survivor's events, oldest first.

    Args:
        events: as the daemon returns them: "kind", "boottime_ns", "fields".
        victim: node id of the frozen host.
        granted_ns: when the survivor had the volume open.

    Raises:
        EventsMissing: an instant is not there, or not in this order.
    """
    stamps = [frozen_ns]
    for kind in ("victim", "evidence", "purged"):
        at_ns = next(
            (
                int(event["boottime_ns"])
                for event in events
                if event["kind"] == kind
                and event["fields"].get("node") == victim
                and stamps[-1] <= int(event["boottime_ns"]) <= granted_ns
            ),
            None,
        )
        if at_ns is None:
            raise EventsMissing(f"no {kind!r} event about node {victim} between the freeze and the grant")
        stamps.append(at_ns)
    frozen, suspected, evidence, purged = stamps
    return Timeline(frozen, suspected, evidence, purged, granted_ns)


COLUMNS = (
    ("act", "name"),
    ("detection", "detect_ms"),
    ("fencing", "fence_ms"),
    ("authority wait", "authority_wait_ms"),
    ("recovery", "recover_ms"),
    ("total ms", "total_ms"),
    ("writes acknowledged", "acknowledged_writes"),
    ("lost", "lost_writes"),
    ("foreign blocks", "foreign_blocks"),
    ("incidents", "incidents"),
    ("as promised", "ok"),
)


def rows(report: DemoReport) -> list[list[str]]:
    """The table's cells, one row an act."""
    return [[_cell(getattr(act, field)) for _, field in COLUMNS] for act in report.acts]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, list):
        return str(len(value))
    return str(value)


def plain_table(report: DemoReport) -> list[str]:
    """The table in plain lines, for logs and pipes."""
    cells = [[title for title, _ in COLUMNS], *rows(report)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(COLUMNS))]
    return [_line(row, widths) for row in cells]


def _line(row: list[str], widths: list[int]) -> str:
    padded = [
        cell.rjust(width) if at else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()
