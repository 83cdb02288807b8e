"""Evidence: the typed record without which no victim is ever given up for fenced.

An agent's exit status is a *claim*.  Evidence is what remains after a second, fresh look
agreed and nothing contradicted it.  `Power.UNKNOWN` never reads as off."""

import enum

import msgspec

from ringfence.core.ids import Life


class Power(enum.Enum):
    """What a fence agent said of a plug or host."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class EvidenceKind(enum.Enum):
    HOST_OFF = "host-off"
    """Host power off (a BMC), seen by a second, fresh look."""
    OUTLETS_OFF = "outlets-off"
    """Every outlet that feeds the host is off, each seen by a second, fresh look."""
    NEW_BOOT = "new-boot"
    """The same machine came back under a new boot id."""
    STORAGE_CUT = "storage-cut"
    """A storage reservation was preempted and read back."""
    SELF_FENCED = "self-fenced"
    """The host was told to end itself, and the time has passed after which its own watchdog would have."""
    VOLUMES_CLOSED = "volumes-closed"
    """The life's own successor has verified that every data path of it is reaped."""
    ADOPTED = "adopted"
    """Its own successor, in the same boot, goes on with its open volumes: nothing that held a lock ended.
    Never witnessed: the ordered state itself makes it."""
    OPERATOR = "operator"
    """A person's signed word."""
    CLAIM = "claim"
    """An agent's bare word.  Accepted only by a lab in naive mode; proves nothing."""


EVIDENCE_WORDS = {
    "power": (EvidenceKind.HOST_OFF, EvidenceKind.OUTLETS_OFF),
    "new-boot": (EvidenceKind.NEW_BOOT,),
    "storage": (EvidenceKind.STORAGE_CUT,),
    "closed": (EvidenceKind.VOLUMES_CLOSED,),
    "operator": (EvidenceKind.OPERATOR,),
    "self-fence": (EvidenceKind.SELF_FENCED,),
}
"""What a cluster's policy may list, and the kinds that each word lets count."""
DEFAULT_EVIDENCE = tuple(word for word in EVIDENCE_WORDS if word != "self-fence")
"""What rests on the victim itself counts only where somebody has asked for it."""

CUTS = frozenset(
    {
        EvidenceKind.HOST_OFF,
        EvidenceKind.OUTLETS_OFF,
        EvidenceKind.NEW_BOOT,
        EvidenceKind.SELF_FENCED,
        EvidenceKind.OPERATOR,
        EvidenceKind.CLAIM,
    }
)
"""Kinds after which the life must be silent for ever: to hear it again exposes a lie.  (After a new boot:
that two machines share one identity.)"""
CUTS_BEFORE_FENCING = CUTS - {EvidenceKind.NEW_BOOT, EvidenceKind.SELF_FENCED}
"""The same beside nodes whose protocol is older than `wire.FENCING`: all must come to one state."""


class Evidence(msgspec.Struct, frozen=True):
    life: Life
    kind: EvidenceKind
    seen_by: int
    """Node id of the witness."""
    how: str
    """One line for people: which device said what, or who signed."""
    devices: tuple[str, ...] = ()
    at_wall_ms: int = 0
    """Wall-clock milliseconds at the witness; for people, never compared."""
