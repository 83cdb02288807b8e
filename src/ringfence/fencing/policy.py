"""Which kinds of evidence end a victim's claim to its locks, in one table, each with its reason.

An agent's exit status alone is a claim, and no row of this table accepts it (but for a lab in
naive mode, which exists to show what happens then).

Source: the lies of real agents, seen on real tools: an outlet list of which only the first is set,
"already off" from a stale controller, an acknowledged poison pill that nobody read."""

import msgspec

from ringfence.core.evidence import Evidence, EvidenceKind


class Rule(msgspec.Struct, frozen=True):
    accepted: bool
    after_lie: bool
    """Whether it also counts for a life that was given up for fenced once and spoke again."""
    by_attempt: bool
    """It comes out of a fence attempt: must be newer than the lie, or the start, that it answers."""
    why: str


POLICY: dict[EvidenceKind, Rule] = {
    EvidenceKind.HOST_OFF: Rule(True, True, True, "host power off, and a second, fresh look agreed"),
    EvidenceKind.OUTLETS_OFF: Rule(True, True, True, "all its outlets off, and a second, fresh look agreed"),
    EvidenceKind.STORAGE_CUT: Rule(True, True, True, "its access to the storage was taken and read back"),
    EvidenceKind.NEW_BOOT: Rule(True, True, False, "the same machine runs another boot: the old one is over"),
    EvidenceKind.OPERATOR: Rule(True, True, False, "a person signed that it is off"),
    EvidenceKind.VOLUMES_CLOSED: Rule(
        True, False, False, "its successor has verified that every data path is reaped; not believed of a "
        "life whose locks have moved on already, for it may have written since",
    ),
    EvidenceKind.ADOPTED: Rule(
        False, False, False, "the ordered state alone can tell whether a successor may go on with its volumes"
    ),
    EvidenceKind.CLAIM: Rule(False, False, True, "an agent's bare word proves nothing"),
}  # fmt: skip


def accepts(kind: EvidenceKind, *, lied: bool, naive: bool) -> bool:
    """Does evidence of this kind count, for a life that has (not) given the lie to a fence before?"""
    if kind is EvidenceKind.CLAIM:
        return naive
    rule = POLICY[kind]
    return rule.accepted and (rule.after_lie or not lied)


def describe(evidence: Evidence, names: str) -> str:
    """One line for people.  `names`: the witness's name."""
    return f"{evidence.kind.value}, seen by {names}: {evidence.how}"
