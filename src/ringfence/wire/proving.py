"""What is said of proofs: tests of fence devices, and drills.

A test only looks.  A drill switches: one outlet at a time (cabling), or a whole level (destructive)."""

import enum

import msgspec


class Outcome(enum.Enum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It could not be made; says nothing of the device."""


class UseTest(msgspec.Struct, frozen=True, array_like=True):
    """One member has tried, without switching anything, whether it could fence one node by one device."""

    node: int
    """Whose level it is."""
    use: str
    """`Use.label`."""
    outcome: Outcome
    what: str
    """One line for people, without secrets."""
    took_ms: int = 0
    at_wall_ms: int = 0


class DrillKind(enum.Enum):
    CABLING = "cabling"
    """One outlet of two at a time; the host stays up."""
    DESTRUCTIVE = "destructive"
    """The host's power is cut."""
