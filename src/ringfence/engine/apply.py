"""Entries: how the ordered state changes with each.

Every ready node applies the same entries at the same places, and gets the same facts."""

from collections.abc import Callable
from typing import Any

import msgspec

from ringfence.core.evidence import Evidence, EvidenceKind
from ringfence.core.ids import Life
from ringfence.core.locknames import VG_SPACE
from ringfence.engine import drill_entries, handover_entries, marks, powering, spaces, words
from ringfence.engine.facts import (
    AttemptGranted,
    ConfigAccepted,
    ConfigRefused,
    DeadlockSought,
    Expelled,
    Fact,
    HostHeard,
    HostsAsked,
    Left,
    Noted,
    RefreshAsked,
    RefreshHeard,
    TestsAsked,
    TestsHeard,
    VgChanged,
    WaitsTold,
)
from ringfence.engine.losses import lose, record_incident, witness
from ringfence.engine.state import ClusterState, VgVersion
from ringfence.fencing.proving import merged
from ringfence.wire import entries
from ringfence.wire.entries import Incident
from ringfence.wire.proving import Outcome
from ringfence.wire.ring import Submitted


def apply(state: ClusterState, life: Life, item: Submitted) -> list[Fact]:
    """Apply the next entry of the total order; the caller has asked `fits`, and then runs `settle`."""
    sender = state.senders[life.node]
    assert sender.life == life, "who is not admitted has said something"
    sender.seq = item.seq
    state.position += 1
    state.wall_ms = max(state.wall_ms, item.wall_ms)
    if state.handovers:
        handover_entries.forget_ended(state)
    handler = _HANDLERS[type(item.entry)]
    facts: list[Fact] = handler(state, life, item.entry)
    return facts


def _evidence(state: ClusterState, life: Life, entry: entries.EvidenceSeen) -> list[Fact]:
    return witness(state, entry.evidence)


def _began(state: ClusterState, life: Life, entry: entries.AttemptBegan) -> list[Fact]:
    victim = state.domain.victim(entry.life)
    if victim is None or victim.current is not None or state.domain.proven(victim):
        return []
    if state.disarmed is not None or state.being_cut(entry.life):
        return []
    if entry.number != victim.number + 1 or state.domain.actor_for(victim, state.ready) != life.node:
        return []
    levels = state.config.levels_of(entry.life.node)
    if not levels:
        return []
    level = entry.level % len(levels)  # the configuration may have changed since it was asked for
    state.domain.began(entry.life, life.node, level, entry.number, state.wall_ms)
    devices = [use.label for use in levels[level].uses]
    what = (
        f"{state.name(life.node)} starts attempt {entry.number} to fence {state.name(entry.life.node)}: "
        f"level {level + 1} ({', '.join(devices)})"
    )
    fields = {
        "node": entry.life.node,
        "life": str(entry.life),
        "actor": life.node,
        "level": level + 1,
        "number": entry.number,
        "devices": devices,
    }
    return [
        Noted("attempt", what, fields),
        AttemptGranted(entry.life, life.node, level, entry.number),
    ]


def _ended(state: ClusterState, life: Life, entry: entries.AttemptEnded) -> list[Fact]:
    victim = state.domain.victim(entry.life)
    if victim is None:  # its evidence, right before, was all that the purge had waited for
        over = [one for one in state.domain.fenced if (one.life, one.number) == (entry.life, entry.number)]
        return [_ended_note(life, one.next_level, entry) for one in over]
    if victim.current is None or victim.current.number != entry.number:
        return []
    if victim.current.actor != life.node:
        return []
    level = victim.current.level + 1
    state.domain.ended(
        entry.life,
        entry.number,
        entry.passed,
        entry.verdict,
        entry.words,
        entry.next_in_ms,
        ready=state.ready,
        levels=len(state.config.levels_of(entry.life.node)),
    )
    facts: list[Fact] = [_ended_note(life, level, entry)]
    if entry.contradicted:
        state.domain.contradicted(entry.contradicted)
        incident = Incident(
            kind="fence-contradicted",
            node=entry.life.node,
            what=entry.verdict,
            life=entry.life,
            device=", ".join(entry.contradicted),
            at_wall_ms=state.wall_ms,
        )
        facts += record_incident(state, incident)
    return facts


def _ended_note(actor: Life, level: int, entry: entries.AttemptEnded) -> Noted:
    fields = {
        "node": entry.life.node,
        "life": str(entry.life),
        "actor": actor.node,
        "level": level,
        "number": entry.number,
        "passed": entry.passed,
        "words": [msgspec.to_builtins(word) for word in entry.words],
        "agents_ms": entry.agents_ms,
        "waits_ms": entry.waits_ms,
        "ours_ms": entry.ours_ms,
    }
    return Noted("attempt-ended", entry.verdict, fields)


def _agent_said(state: ClusterState, life: Life, entry: entries.AgentSaid) -> list[Fact]:
    state.domain.said(entry.life, life.node, entry.number, entry.word)
    return []


def _due(state: ClusterState, life: Life, entry: entries.VictimDue) -> list[Fact]:
    victim = state.domain.victim(entry.life)
    if victim is None or victim.due:
        return []
    victim.due = True
    what = f"{state.name(entry.life.node)} did not come back in time: it will be fenced"
    return [Noted("victim-due", what, {"node": entry.life.node, "life": str(entry.life)})]


def _bound(state: ClusterState, life: Life, entry: entries.BoundPassed) -> list[Fact]:
    state.domain.bound_passed(entry.life, life.node)
    return []


def _suspect(state: ClusterState, life: Life, entry: entries.Suspect) -> list[Fact]:
    if state.lives.get(entry.life.node) != entry.life:
        return []
    reason = f"its daemon is silent, as {state.name(life.node)} found"
    return [*lose(state, entry.life, reason, due=False), Expelled(entry.life)]


def _operator(state: ClusterState, life: Life, entry: entries.OperatorConfirms) -> list[Fact]:
    facts: list[Fact] = []
    for victim in state.domain.of_node(entry.node):
        if entry.victims is not None and (victim.life, victim.since) not in entry.victims:
            continue  # signed before this loss
        how = f"{entry.who} confirms that {state.name(entry.node)} is off: {entry.why}"
        facts += witness(
            state, Evidence(victim.life, EvidenceKind.OPERATOR, life.node, how, (), state.wall_ms)
        )
    return facts


def _trust(state: ClusterState, life: Life, entry: entries.QuarantineLifted) -> list[Fact]:
    state.domain.release_quarantine(entry.device)
    what = f"{entry.who} trusts {entry.device} again"
    return [Noted("quarantine-lifted", what, {"device": entry.device, "who": entry.who})]


NODES_STAY = "the set of nodes cannot change while the cluster runs"


def _config(state: ClusterState, life: Life, entry: entries.ConfigProposed) -> list[Fact]:
    new, old = entry.config, state.config
    why = ""
    if new.version != old.version + 1:
        why = f"version {new.version} offered, {old.version + 1} expected"
    elif [(n.id, n.name) for n in new.nodes] != [(n.id, n.name) for n in old.nodes]:
        why = NODES_STAY
    elif (new.name, new.ring, new.naive) != (old.name, old.ring, old.naive):
        why = "name, ring and naive cannot change while the cluster runs"
    elif state.ready != tuple(node.id for node in old.nodes):
        absent = [node.name for node in old.nodes if node.id not in state.lives]
        why = f"all nodes must be ready; missing: {', '.join(absent)}"
    if why:
        return [ConfigRefused(life.node, why)]
    state.config = new
    what = f"{state.name(life.node)} applied configuration version {new.version}"
    return [ConfigAccepted(new), Noted("config", what, {"version": new.version})]


def _goodbye(state: ClusterState, life: Life, entry: entries.Goodbye) -> list[Fact]:
    node = life.node
    if entry.life != life or any(state.member(name, node) for name in sorted(state.lockspaces)):
        return []
    state.pending_joins = [one for one in state.pending_joins if one[1] != node]
    del state.lives[node]
    del state.senders[node]
    state.out[node] = life
    marks.gone(state, node)
    return [Noted("left", f"{state.name(node)} left the cluster", {"node": node}), Left(node)]


def _volume(state: ClusterState, life: Life, entry: entries.VolumeNotice) -> list[Fact]:
    state.vgs[entry.vg] = VgVersion(entry.seqno, entry.crc, entry.what, life.node)
    fields = {"vg": entry.vg, "seqno": entry.seqno, "node": life.node}
    return [
        VgChanged(entry.vg, entry.seqno, entry.crc, entry.what, life.node, entry.delta, entry.removed),
        Noted("vg-changed", f"{entry.what} ({entry.vg} seqno {entry.seqno})", fields),
    ]


def _unclean(state: ClusterState, life: Life, entry: entries.UncleanNoted) -> list[Fact]:
    told = {vg: uuids for vg, uuids in state.unclean.items() if vg != entry.vg}
    # An LV is in one VG: what is named elsewhere is of a VG that was renamed.
    told = {vg: [uuid for uuid in uuids if uuid not in entry.uuids] for vg, uuids in told.items()}
    told[entry.vg] = list(entry.uuids)
    state.unclean = {vg: uuids for vg, uuids in sorted(told.items()) if uuids}
    return []


def _incident_seen(state: ClusterState, life: Life, entry: entries.IncidentSeen) -> list[Fact]:
    return record_incident(state, entry.incident)


def _search(state: ClusterState, life: Life, entry: entries.SearchDeadlock) -> list[Fact]:
    return [DeadlockSought(life, entry.number)]


def _waits(state: ClusterState, life: Life, entry: entries.Waits) -> list[Fact]:
    return [WaitsTold(entry.by, entry.number, life.node, entry.locks)]


def _ask_hosts(state: ClusterState, life: Life, entry: entries.AskHosts) -> list[Fact]:
    return [HostsAsked(life, entry.number)]


def _host_says(state: ClusterState, life: Life, entry: entries.HostSays) -> list[Fact]:
    return [HostHeard(entry.by, entry.number, life.node, entry.facts)]


def _ask_tests(state: ClusterState, life: Life, entry: entries.AskTests) -> list[Fact]:
    if not entry.target:
        state.tests_asked_ms = state.wall_ms
    return [TestsAsked(life, entry.number, entry.target, state.ready)]


def _tests_told(state: ClusterState, life: Life, entry: entries.TestsTold) -> list[Fact]:
    node = life.node
    before = {(one.node, one.use): one.failed for one in state.tested.get(node, ())}
    state.tested[node] = merged(state.config, state.tested.get(node, ()), entry.results)
    facts: list[Fact] = []
    for one in entry.results:
        what = f"{state.name(node)} could not fence {state.name(one.node)} by {one.use}: {one.what}"
        if one.outcome is Outcome.FAILED and before.get((one.node, one.use)) != one.what:
            fields = {"node": one.node, "device": one.use, "tester": node}
            facts.append(Noted("fence-test-failed", what, fields))
    counts = dict.fromkeys(Outcome, 0)
    for one in entry.results:
        counts[one.outcome] += 1
    if entry.number:
        told = ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items() if count)
        what = f"{state.name(node)} tested its ways to fence: {told or 'there is none'}"
        facts.append(Noted("fence-test", what, {"tester": node}))
    return [*facts, TestsHeard(entry.by, entry.number, node, entry.results)]


def _ask_refresh(state: ClusterState, life: Life, entry: entries.AskRefresh) -> list[Fact]:
    space = f"{VG_SPACE}{entry.vg}"
    nodes = tuple(node for node in state.ready if node != life.node and state.member(space, node))
    return [RefreshAsked(life, entry.number, entry.vg, entry.lv, entry.uuid, nodes)]


def _refresh_told(state: ClusterState, life: Life, entry: entries.RefreshTold) -> list[Fact]:
    return [RefreshHeard(entry.by, entry.number, life.node, entry.failed)]


_HANDLERS: dict[type, Callable[[ClusterState, Life, Any], list[Fact]]] = {
    entries.JoinLockspace: spaces.join,
    entries.AckJoin: spaces.ack_join,
    entries.LeaveLockspace: spaces.leave_space,
    entries.LockRequest: spaces.lock_request,
    entries.LockConvert: spaces.lock_convert,
    entries.LockUnlock: spaces.lock_unlock,
    entries.LockCancel: spaces.lock_cancel,
    entries.LockBusy: spaces.lock_busy,
    entries.LockRequests: spaces.lock_requests,
    entries.LockUnlocks: spaces.lock_unlocks,
    entries.LocksBusy: spaces.locks_busy,
    entries.Retoken: spaces.retoken,
    entries.EvidenceSeen: _evidence,
    entries.AttemptBegan: _began,
    entries.AttemptEnded: _ended,
    entries.VictimDue: _due,
    entries.BoundPassed: _bound,
    entries.Suspect: _suspect,
    entries.OperatorConfirms: _operator,
    entries.QuarantineLifted: _trust,
    entries.ConfigProposed: _config,
    entries.Goodbye: _goodbye,
    entries.VolumeNotice: _volume,
    entries.UncleanNoted: _unclean,
    entries.IncidentSeen: _incident_seen,
    entries.SearchDeadlock: _search,
    entries.Waits: _waits,
    entries.AskHosts: _ask_hosts,
    entries.HostSays: _host_says,
    entries.AgentSaid: _agent_said,
    entries.PowerOnBegan: powering.began,
    entries.PowerOnEnded: powering.ended,
    entries.SlotsKept: marks.kept,
    entries.SlotsLeft: marks.left,
    entries.SlotsEnd: marks.ending,
    entries.Marked: marks.marked,
    entries.LifeSeen: marks.seen,
    entries.AskTests: _ask_tests,
    entries.TestsTold: _tests_told,
    entries.DrillBegan: drill_entries.began,
    entries.DrillAttempted: drill_entries.attempted,
    entries.DrillEnded: drill_entries.ended,
    entries.FenceOrdered: words.ordered,
    entries.Disarmed: words.disarmed,
    entries.Armed: words.armed,
    entries.DisarmExpired: words.expired,
    entries.MachineForgotten: words.forgotten,
    entries.AskRefresh: _ask_refresh,
    entries.RefreshTold: _refresh_told,
    entries.AskHandover: handover_entries.asked,
    entries.HandoverTold: handover_entries.told,
}
