"""Losses: who must be fenced, what proves an end, lies that come to light, and what is purged in the end.

Recovery is not a protocol but two steps of the state: a loss freezes the lockspaces of the lost
life; `settle` purges it as soon as there is evidence and every ready node says that its write
authority must have run out, and lets what is free again go on."""

from collections.abc import Iterator, Sequence

import msgspec

from ringfence.core.evidence import CUTS, CUTS_BEFORE_FENCING, Evidence, EvidenceKind
from ringfence.core.ids import Life
from ringfence.core.locknames import VG_SPACE
from ringfence.engine import powering
from ringfence.engine.facts import Fact, Noted, VictimGone
from ringfence.engine.spaces import acknowledged, late_joins, stamp
from ringfence.engine.state import INCIDENTS_KEPT, ClusterState, GivenUp
from ringfence.fencing.domain import Victim
from ringfence.locks.lockspace import Lockspace
from ringfence.wire import FENCING
from ringfence.wire.entries import Incident


def is_fenced(state: ClusterState, life: Life) -> bool:
    """Whether hearing this life, or its boot, means that a fence lied."""
    return fenced_by(state, life) is not None


def _cuts(state: ClusterState) -> frozenset[EvidenceKind]:
    return CUTS if state.protocol >= FENCING else CUTS_BEFORE_FENCING


def fenced_by(state: ClusterState, life: Life) -> Life | None:
    cuts = _cuts(state)
    for record in state.domain.fenced:
        if record.life.same_boot(life) and any(one.kind in cuts for one in record.evidence):
            return record.life
    for victim in state.domain.victims:
        if victim.lied or not victim.life.same_boot(life):
            continue
        if any(one.kind in cuts for one in victim.evidence):
            return victim.life
    return None


def expose(state: ClusterState, life: Life, where: str = "") -> list[Fact]:
    """A fenced life goes on: the fence was a lie.  Freeze, quarantine, fence again.

    Args:
        where: where it was seen, if not in the ring."""
    devices = _devices_of_evidence(state, life)
    lie = state.domain.spoke(life, state.wall_ms, state.epoch, _cuts(state))
    if lie is None:
        return []
    _freeze_again(state)
    powering.leave_off(state, life.node)  # it is not off
    name = state.name(life.node)
    seen = f" ({where})" if where else ""
    what = (
        f"{name} was given up for fenced ({', '.join(devices) or 'by word'}) and runs on under the same "
        f"boot id {life.boot[:8]}{seen}: the fence lied"
    )
    kind = "fence-lied"
    if all(one.kind is EvidenceKind.NEW_BOOT for one in lie.evidence):
        kind = "clone-found"
        what = (
            f"{name} runs twice: it came back under a new boot id, and its old boot {life.boot[:8]} runs on"
            f"{seen}: its disk was cloned, or one virtual machine was started on two hosts"
        )
    incident = Incident(
        kind=kind,
        node=life.node,
        what=what,
        life=life,
        device=", ".join(devices),
        at_wall_ms=state.wall_ms,
    )
    fields = {"node": life.node, "life": str(life), "devices": list(devices)}
    return [
        *record_incident(state, incident),
        Noted(kind, what, fields),
        note_victim(state, life, "the fence lied"),
    ]


def _freeze_again(state: ClusterState) -> None:
    """Who was given up in some lockspaces, and speaks, is a victim in all of them again."""
    for victim in state.domain.victims:
        partly = state.partly(victim.life)
        if partly is not None and victim.lied and not victim.evidence:
            victim.lockspaces = sorted({*victim.lockspaces, *partly.lockspaces})
            state.given_up = [one for one in state.given_up if one is not partly]


def _devices_of_evidence(state: ClusterState, life: Life) -> tuple[str, ...]:
    """Devices behind the evidence that this life's end was believed on, in order."""
    found: list[str] = []
    records = [record.evidence for record in state.domain.fenced if record.life == life]
    records += [victim.evidence for victim in state.domain.victims if victim.life == life]
    for evidences in records:
        for one in evidences:
            found += [device for device in one.devices if device not in found]
    return tuple(found)


def explain_by_return(state: ClusterState, victim: Victim, life: Life) -> list[Fact]:
    """A node's return may prove what became of its earlier lives."""
    old = victim.life
    if not old.unknown and old.machine == life.machine and old.boot != life.boot:
        kind, how = EvidenceKind.NEW_BOOT, f"{state.name(life.node)} came back under a new boot id"
    elif old.unknown or (old.same_boot(life) and old.incarnation < life.incarnation):
        kind = EvidenceKind.VOLUMES_CLOSED
        how = f"{state.name(life.node)} came back and has verified that every volume was closed"
    else:
        return []
    evidence = Evidence(old, kind, life.node, how, (), state.wall_ms)
    return witness(state, evidence)


def lose(state: ClusterState, life: Life, reason: str, *, due: bool) -> list[Fact]:
    del state.lives[life.node]
    state.senders.pop(life.node, None)
    state.pending_joins = [one for one in state.pending_joins if one[1] != life.node]
    spaces = tuple(name for name in sorted(state.lockspaces) if state.member(name, life.node))
    facts: list[Fact] = []
    for lockspace in state.lockspaces.values():
        facts += acknowledged(state, lockspace, life.node)
    make_victim(state, life, reason, due=due, lockspaces=spaces)
    facts.append(note_victim(state, life, reason))
    return facts


def make_victim(
    state: ClusterState, life: Life, reason: str, *, due: bool, lockspaces: tuple[str, ...]
) -> None:
    state.domain.add(life, state.epoch, reason, due, lockspaces, state.wall_ms)
    state.frozen = [name for name in sorted(state.lockspaces) if state.blocking(name)]


def note_victim(state: ClusterState, life: Life, reason: str) -> Noted:
    what = f"{state.name(life.node)} must be fenced: {reason}"
    return Noted("victim", what, {"node": life.node, "life": str(life), "reason": reason})


def witness(state: ClusterState, evidence: Evidence) -> list[Fact]:
    fields = {
        "node": evidence.life.node,
        "life": str(evidence.life),
        "evidence": evidence.kind.value,
        "devices": list(evidence.devices),
    }
    config, virtual = state.config, state.may_be_virtual(evidence.life.node)
    if not state.domain.witness(evidence, naive=config.naive, words=config.evidence, virtual=virtual):
        if state.domain.victim(evidence.life) is None:
            return []  # proven otherwise meanwhile
        why = state.domain.refusal(evidence, naive=config.naive, words=config.evidence, virtual=virtual)
        kind, name = evidence.kind.value, state.name(evidence.life.node)
        return [Noted("evidence-refused", f"{kind} of {name} does not count ({evidence.how}): {why}", fields)]
    facts: list[Fact] = [Noted("evidence", evidence.how, fields)]
    victim = state.domain.victim(evidence.life)
    if victim is not None and state.domain.proven(victim):
        facts.append(VictimGone(evidence.life))
    return facts


def record_incident(state: ClusterState, incident: Incident) -> list[Fact]:
    """Record it; a device that repeats its lie about one life, round after round, counts once."""
    repeats = incident.kind == "fence-contradicted" and any(
        (one.kind, one.life, one.device) == (incident.kind, incident.life, incident.device)
        for one in state.incidents
    )
    if repeats:
        return []
    state.incidents = [*state.incidents, incident][-INCIDENTS_KEPT:]
    return [Noted("incident", incident.what, msgspec.to_builtins(incident))]


def settle(state: ClusterState) -> Iterator[list[Fact]]:
    """Purge what may be purged, then let every lockspace that is free again go on.

    After each entry, to its end before the next one.  A lost node may have had a hundred thousand locks:
    each item is what came of one of them, or of some, and the caller may do other things in between."""
    for life in state.domain.purgeable(state.ready):
        victim = state.domain.victim(life)
        assert victim is not None
        waiting = state.unmarked(victim)
        if waiting:
            yield from _give_up_partly(state, victim, waiting)
        else:
            yield from _purge(state, life)
    yield powering.settle(state)
    still = [name for name in sorted(state.lockspaces) if state.blocking(name)]
    thawed = [name for name in state.frozen if name not in still and name in state.lockspaces]
    state.frozen = still
    for name in thawed:
        space = state.lockspaces[name]
        yield [Noted("lockspace-runs", f"lockspace {name} goes on", {"lockspace": name})]
        for answers in space.resume(state.wall_ms):
            yield stamp(state, space, answers)
    yield late_joins(state)


def _give_up_partly(state: ClusterState, victim: Victim, waiting: list[str]) -> Iterator[list[Fact]]:
    """Give the victim up where nothing is waited for: a disk that takes no mark holds up its own VG alone."""
    partly = state.partly(victim.life)
    names = [name for name in victim.lockspaces if name not in waiting]
    begins = partly is None and victim.life.unknown  # which keeps every lockspace frozen until then
    if not names and not begins:
        return
    if partly is None:
        partly = GivenUp(victim.life, [])
        state.given_up = sorted([*state.given_up, partly], key=lambda one: one.life)
    partly.lockspaces = sorted({*partly.lockspaces, *names})
    victim.lockspaces = waiting
    vgs = ", ".join(name.removeprefix(VG_SPACE) for name in waiting)
    what = f"{state.name(victim.life.node)} is given up for fenced, but not on VG {vgs}: no mark there yet"
    fields = {"node": victim.life.node, "life": str(victim.life), "lockspaces": names, "waiting": waiting}
    yield from _clean(state, victim.life.node, names, [Noted("given-up-partly", what, fields)])


def _purge(state: ClusterState, life: Life) -> Iterator[list[Fact]]:
    victim, partly = state.domain.victim(life), state.partly(life)
    assert victim is not None
    names = list(victim.lockspaces)
    if partly is not None:
        victim.lockspaces = sorted({*names, *partly.lockspaces})
        state.given_up = [one for one in state.given_up if one is not partly]
    record = state.domain.purged(life)
    state.favoured = [one for one in state.favoured if one != life]
    powering.after_purge(state, victim, record.evidence)
    marked = {vg: [one for one in lives if one != life] for vg, lives in state.marked.items()}
    state.marked = {vg: lives for vg, lives in marked.items() if lives}
    what = f"{state.name(life.node)} is given up for fenced: its locks are cleaned up"
    fields = {"node": life.node, "life": str(life), "lockspaces": list(victim.lockspaces)}
    yield from _clean(state, life.node, names, [Noted("purged", what, fields), VictimGone(life)])


def _clean(state: ClusterState, node: int, names: list[str], facts: list[Fact]) -> Iterator[list[Fact]]:
    spaces = [state.lockspaces[name] for name in names if name in state.lockspaces]
    for space in spaces:
        # At once: with the victim gone, nobody could tell its membership from its successor's.
        _leave(state, space, node)
    yield facts
    for space in spaces:
        # Effects of a purge are what the survivors may now do; they are computed by
        # resume(), once the lockspace has no other victim.
        for _ in space.purge(node):
            yield []


def _leave(state: ClusterState, space: Lockspace, node: int) -> None:
    if node in space.members:
        space.members.remove(node)
    space.joining.pop(node, None)
    if not space.members:
        del state.lockspaces[space.name]


def clean_up(
    state: ClusterState, node: int, lockspaces: Sequence[str], kept: Sequence[tuple[str, str]]
) -> None:
    """Take a node's locks and memberships away, at once; but not the locks (LOCKSPACE, RESOURCE) it keeps."""
    for space in [state.lockspaces[name] for name in lockspaces if name in state.lockspaces]:
        keep = [resource for lockspace, resource in kept if lockspace == space.name]
        if not keep:
            _leave(state, space, node)
        for _ in space.purge(node, keep):
            pass
