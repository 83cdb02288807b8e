"""What a check returns: one value for each thing that is wrong."""

import enum

import msgspec


class Severity(enum.Enum):
    ERROR = "error"
    """The cluster will not do what it promises, or does not already."""
    WARNING = "warning"
    """It does, with less to spare than it should have."""
    NOTE = "note"
    """Nothing is wrong; good to know."""

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class Finding(msgspec.Struct, frozen=True):
    id: str
    """Stable: for programs, and for docs/DOCTOR.md."""
    severity: Severity
    host: str
    """Where to type `mend`; empty: on any host of the cluster."""
    what: str
    """One line, naming the node, file or device."""
    why: str
    mend: str
    """The command, or the words where no command will do."""


class Kind(msgspec.Struct, frozen=True):
    """One row of docs/DOCTOR.md."""

    id: str
    severity: Severity
    title: str
    why: str
    excused: str = ""
    """Why this is no fault of a lab's host; empty: it is one there too."""

    def at(self, host: str, what: str, mend: str) -> Finding:
        return Finding(self.id, self.severity, host, what, self.why, mend)


def error(id: str, title: str, why: str, excused: str = "") -> Kind:
    return Kind(id, Severity.ERROR, title, why, excused)


def warning(id: str, title: str, why: str, excused: str = "") -> Kind:
    return Kind(id, Severity.WARNING, title, why, excused)


def note(id: str, title: str, why: str, excused: str = "") -> Kind:
    return Kind(id, Severity.NOTE, title, why, excused)
