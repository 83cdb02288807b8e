"""Which kinds of evidence end a victim's claim to its locks, in one table, each with its reason.

An agent's exit status alone is a claim, and no row of this table accepts it (but for a lab in
naive mode, which exists to show what happens then).

Source: the lies of real agents, seen on real tools: an outlet list of which only the first is set,
"already off" from a stale controller, an acknowledged poison pill that nobody read."""

from collections.abc import Collection

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms
from ringfence.core.evidence import DEFAULT_EVIDENCE, EVIDENCE_WORDS, Evidence, EvidenceKind


class Rule(msgspec.Struct, frozen=True):
    accepted: bool
    after_lie: bool
    """Whether it also counts for a life that was given up for fenced once and spoke again."""
    by_attempt: bool
    """It comes out of a fence attempt: must be newer than the lie, or the start, that it answers."""
    why: str
    own_clock: bool = False
    """It rests on the victim's own clock or watchdog, which stand still with a virtual machine that is
    paused: never believed about one."""


POLICY: dict[EvidenceKind, Rule] = {
    EvidenceKind.HOST_OFF: Rule(True, True, True, "host power off, and a second, fresh look agreed"),
    EvidenceKind.OUTLETS_OFF: Rule(True, True, True, "all its outlets off, and a second, fresh look agreed"),
    EvidenceKind.STORAGE_CUT: Rule(True, True, True, "its access to the storage was taken and read back"),
    EvidenceKind.SELF_FENCED: Rule(
        True, True, True, "it was told to end itself, and its watchdog would have by now", own_clock=True
    ),
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


def accepts(
    kind: EvidenceKind,
    *,
    lied: bool,
    naive: bool,
    words: Collection[str] = DEFAULT_EVIDENCE,
    virtual: bool = False,
) -> bool:
    """Does evidence of this kind count, for a life that has (not) given the lie to a fence before?

    Args:
        words: what the cluster's policy lists (core.evidence.EVIDENCE_WORDS); no other kind counts.
        virtual: the life's host is itself a virtual machine.
    """
    if kind is EvidenceKind.CLAIM:
        return naive
    rule = POLICY[kind]
    if not rule.accepted or (lied and not rule.after_lie) or (virtual and rule.own_clock):
        return False
    return any(kind in EVIDENCE_WORDS[word] for word in words)


def why_not(kind: EvidenceKind, *, lied: bool, words: Collection[str], virtual: bool) -> str:
    """For people: why evidence of this kind is not accepted.  Arguments as `accepts`."""
    rule = POLICY[kind]
    if not rule.accepted:
        return rule.why
    if virtual and rule.own_clock:
        return "its host is, or may be, a virtual machine, whose clock and watchdog can be paused with it"
    if lied and not rule.after_lie:
        return "it was given up for fenced before, and spoke"
    return f"the cluster's policy counts only {', '.join(words)}"


def kind_of(confirms: Collection[Confirms]) -> EvidenceKind:
    """What a level proves when all its devices passed: the strongest that one of them shows, but
    outlets only if there is nothing else in the level (all outlets that feed the host)."""
    if Confirms.HOST_OFF in confirms:
        return EvidenceKind.HOST_OFF
    if Confirms.STORAGE_CUT in confirms:
        return EvidenceKind.STORAGE_CUT
    if Confirms.OUTLET_OFF in confirms:
        return EvidenceKind.OUTLETS_OFF
    return EvidenceKind.SELF_FENCED


def levels_kinds(config: ClusterConfig, node: int) -> tuple[EvidenceKind, ...]:
    """What each of a node's levels proves, in their order."""
    return tuple(
        kind_of([config.device(name).confirms for name in level.names]) for level in config.levels_of(node)
    )


def proofs_of(
    config: ClusterConfig, node: int, *, lied: bool, virtual: bool, untrusted: Collection[str] = ()
) -> list[str]:
    """For people: each proof that would end a life of the node, with the levels that it may come from.

    Args:
        lied, virtual: as `accepts`.
        untrusted: devices (and the word "new-boot") that are not believed.
    """
    found = []
    for kind, rule in POLICY.items():
        if not accepts(kind, lied=lied, naive=False, words=config.evidence, virtual=virtual):
            continue
        levels = zip(config.levels_of(node), levels_kinds(config, node), strict=True)
        numbers = [
            str(number)
            for number, (level, shows) in enumerate(levels, 1)
            if shows is kind and not any(name in untrusted for name in level.names)
        ]
        if numbers:
            found.append(f"{kind.value} (level {' or '.join(numbers)})")
        elif not rule.by_attempt and kind.value not in untrusted:
            found.append(kind.value)
    return found


def describe(evidence: Evidence, names: str) -> str:
    """One line for people.  `names`: the witness's name."""
    return f"{evidence.kind.value}, seen by {names}: {evidence.how}"
