"""What the hosts of a torture run have left behind: incidents, fences, and signs of a crash."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ringfence.block.incident_file import IncidentReader
from ringfence.config import Paths
from ringfence.history.kinds import INCIDENT
from ringfence.history.store import History
from ringfence.wire.entries import Incident

EXPECTED_ENDS = ("0", "-9")
"""Exit codes: a clean end, and SIGKILL, which is ours."""
TRACEBACK = "Traceback (most recent call last)"


class Evidence(msgspec.Struct, frozen=True):
    incidents: tuple[Incident, ...]
    fences: int
    """Lives that were given up for fenced."""
    lies: int
    """Fences that were found out to be lies."""


def collect(roots: Sequence[Path]) -> Evidence:
    """Of hosts that are off.  What one has not told the others yet is read from its own disk."""
    incidents: list[Incident] = []
    purged: set[str] = set()
    lies: set[tuple[str, str]] = set()
    for root in roots:
        paths = Paths(root)
        told = IncidentReader(paths.incidents).new()
        incidents += [incident for _, incident in told if incident is not None]
        for event in _fences(paths.history):
            fields = event["fields"]
            if event["kind"] == INCIDENT:
                incidents.append(msgspec.convert(fields, Incident))
            elif event["kind"] == "purged":
                purged.add(str(fields["life"]))
            elif event["kind"] == "fence-lied":
                lies.add((str(fields["life"]), event["what"]))
    return Evidence(tuple(incidents), len(purged), len(lies))


def _fences(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    history = History(path)
    try:
        return history.fences("")
    finally:
        history.close()


def crashes(directory: Path) -> list[str]:
    """Tracebacks in any log, and programs that ended neither cleanly nor by a kill."""
    found = []
    for path in sorted([*directory.rglob("*.log"), *directory.rglob("*.out")]):
        where = path.relative_to(directory)
        lines = path.read_text(errors="replace").splitlines()
        if path.name == "ended.log":
            ends = [line.partition(" ") for line in lines]
            found += [
                f"{where}: exit {code}: {words}" for code, _, words in ends if code not in EXPECTED_ENDS
            ]
        else:
            found += [f"{where}: {error}" for error in _errors(lines)]
    return found


def _errors(lines: Sequence[str]) -> Iterator[str]:
    """The last line of each traceback, or the first that we have."""
    for number, line in enumerate(lines):
        if TRACEBACK in line:
            rest = [one for one in lines[number + 1 : number + 60] if one.strip()]
            ends = (one for one in rest if not one.startswith((" ", "\t")) and " trace   " not in one)
            yield next(ends, line)
