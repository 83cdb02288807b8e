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


class Current(enum.Enum):
    """What a management controller sees of one power supply."""

    FED = "fed"
    LOST = "lost"
    """It has no mains."""
    BAD = "bad"
    """It has failed, is not there, or does not tell."""


class Supply(msgspec.Struct, frozen=True, array_like=True):
    name: str
    """As the controller calls it."""
    current: Current
    words: str = ""
    """The controller's own."""


class Reading(msgspec.Struct, frozen=True):
    """One controller's word on its host's supplies."""

    node: int
    supplies: tuple[Supply, ...] = ()
    trouble: str = ""
    """Why it could not be read."""
