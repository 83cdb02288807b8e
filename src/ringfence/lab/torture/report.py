"""What a torture run comes to: the first thing that is wrong decides its exit code, as the simulator's."""

import enum

import msgspec

from ringfence.lab.layout import HUB, Ring
from ringfence.lab.torture.check import Verdict
from ringfence.lab.torture.plan import Faults
from ringfence.lab.torture.volumes import VolumeVerdict


class Outcome(enum.Enum):
    OK = "ok"
    SAFETY = "safety"
    LIVENESS = "liveness"
    CRASH = "crash"


EXITS = {Outcome.OK: 0, Outcome.SAFETY: 10, Outcome.LIVENESS: 11, Outcome.CRASH: 12}
SHOWN = 20
"""Lines of each kind of trouble that are printed; all of it is in the JSON."""


class Report(msgspec.Struct):
    seed: int
    command: str
    minutes: float
    nodes: int
    faults: Faults
    naive: bool
    ring: Ring = HUB
    directory: str = ""
    """Where everything lies; "": nothing was kept."""
    struck: dict[str, int] = {}
    """Kind of fault -> how many took place."""
    fences: int = 0
    """Lives that were given up for fenced."""
    lies: int = 0
    """Fences that were found out to be lies."""
    locks: Verdict | None = None
    volumes: dict[str, VolumeVerdict] = {}
    late: list[str] = []
    """What did not come about in bounded time."""
    crashes: list[str] = []
    well_ms: int = 0
    """From the last fault's end until all hosts were ready."""

    @property
    def violations(self) -> list[str]:
        found = list(self.locks.violations) if self.locks else []
        return found + [one for volume in self.volumes.values() for one in volume.violations]

    @property
    def outcome(self) -> Outcome:
        """A lost write outweighs a crash, and a crash explains why somebody waits for ever."""
        if self.violations:
            return Outcome.SAFETY
        if self.crashes:
            return Outcome.CRASH
        return Outcome.LIVENESS if self.late else Outcome.OK

    @property
    def exit_code(self) -> int:
        return EXITS[self.outcome]

    def as_dict(self) -> dict[str, object]:
        told: dict[str, object] = msgspec.to_builtins(self)
        return {"version": 1, "outcome": self.outcome.value, "violations": self.violations, **told}


def lines(report: Report) -> list[str]:
    """For people."""
    found = [f"{what:<34} {value}" for what, value in _rows(report)]
    for title, troubles in (
        ("SAFETY", report.violations), ("CRASH", report.crashes), ("LIVENESS", report.late),
    ):  # fmt: skip
        found += [f"{title}: {one}" for one in troubles[:SHOWN]]
        if len(troubles) > SHOWN:
            found.append(f"{title}: and {len(troubles) - SHOWN} more")
    found.append(report.outcome.value.upper())
    return found


def _rows(report: Report) -> list[tuple[str, object]]:
    volumes = list(report.volumes.values())
    rows: list[tuple[str, object]] = []
    if report.locks is not None:
        locks = report.locks
        rows += [
            ("grants", locks.grants),
            ("uses under locks", locks.uses),
            ("  that outlasted authority", f"{locks.late_uses}, {locks.clashes} beside another's"),
            ("value blocks written", f"{locks.writes}; not valid when read: {locks.not_valid}"),
            ("longest wait for a lock", f"{locks.longest_wait_ms / 1000:.1f} s"),
        ]
    return [
        *rows,
        ("writers of volumes", sum(one.writers for one in volumes)),
        ("writes acknowledged", sum(one.acknowledged for one in volumes)),
        ("  refused", sum(one.refused for one in volumes)),
        ("  late, and reported", sum(one.reported for one in volumes)),
        ("  late, cut before the report", sum(one.unreported for one in volumes)),
        ("faults", sum(report.struck.values())),
        *((f"  {kind}", count) for kind, count in sorted(report.struck.items())),
        ("fenced", report.fences),
        ("lies found out", report.lies),
        ("well again after", f"{report.well_ms / 1000:.1f} s"),
    ]
