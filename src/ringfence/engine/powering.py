"""How the ordered state comes by what is to be switched on (`fencing.power_on`), and loses it again.

A try begins only while no life of the node is an unproven victim: a host that may still write is never
given power or a way to the storage.  What was begun ends when that changes, or its actor is gone."""

from collections.abc import Collection

import msgspec

from ringfence.core.cluster import Confirms
from ringfence.core.evidence import Evidence, EvidenceKind
from ringfence.core.ids import Life
from ringfence.engine.facts import Fact, Noted, PowerOnGranted
from ringfence.engine.state import ClusterState
from ringfence.fencing.domain import Victim
from ringfence.fencing.power_on import TRIES, PowerOn, Purpose, actor_for, explain, uses_of
from ringfence.wire import FENCING
from ringfence.wire.entries import PowerOnBegan, PowerOnEnded

_POWER = (EvidenceKind.HOST_OFF, EvidenceKind.OUTLETS_OFF)


def after_purge(state: ClusterState, victim: Victim, evidence: Collection[Evidence]) -> None:
    """A life was given up for fenced.  If its power was cut by an attempt, it is to come up again."""
    if state.protocol < FENCING or state.action_for(victim.life) != "reboot":
        return
    if any(one.kind in _POWER for one in evidence):
        reboot(state, victim)


def reboot(state: ClusterState, victim: Victim) -> None:
    """Switch on again what was switched off for this victim, as soon as that may be."""
    attempts = [*victim.attempts, *([victim.current] if victim.current is not None else [])]
    node = victim.life.node
    older = [one for one in state.power_ons if _reboots(one, node)]
    levels = {attempt.level for attempt in attempts} | {level for one in older for level in one.levels}
    what = PowerOn(victim.life, Purpose.REBOOT, sorted(levels), state.wall_ms)
    if uses_of(state.config, what):
        _add(state, what, older)


def let_in(state: ClusterState, life: Life) -> None:
    """A life was admitted.  What cuts hosts off from the storage is to let it in again."""
    devices = {use.device for level in state.config.levels_of(life.node) for use in level.uses}
    cutting = [one for one in state.config.devices if one.confirms is Confirms.STORAGE_CUT]
    if state.protocol >= FENCING and any(one.name in devices for one in cutting):
        of_node = [one for one in state.power_ons if one.life.node == life.node]
        older = [one for one in of_node if one.purpose is Purpose.UNFENCE]
        _add(state, PowerOn(life, Purpose.UNFENCE, since_wall_ms=state.wall_ms), older)


def leave_off(state: ClusterState, node: int) -> None:
    """It is not to be switched on: it may not be off, or an operator wants it off."""
    state.power_ons = [one for one in state.power_ons if not _reboots(one, node)]


def stopped(state: ClusterState, why: str) -> None:
    """Hosts are kept off from here on: what is tried just now is begun again when that is over."""
    for what in state.power_ons:
        if what.actor and what.purpose is Purpose.REBOOT:
            what.actor, what.failed = 0, why


def settle(state: ClusterState) -> list[Fact]:
    """What is over by itself: the host is back, the life that was let in is gone, or who was at it."""
    facts: list[Fact] = []
    for what in list(state.power_ons):
        present = state.lives.get(what.life.node)
        if what.purpose is Purpose.REBOOT and present is not None:
            state.power_ons.remove(what)
            facts.append(_noted(state, "power-on-done", what, f"{state.name(what.life.node)} is back"))
        elif what.purpose is Purpose.UNFENCE and present != what.life:
            state.power_ons.remove(what)
        elif what.actor and what.actor not in state.lives:
            what.failed, what.actor = f"{state.name(what.actor)}, who was at it, left", 0
    return facts


def may_begin(state: ClusterState, what: PowerOn) -> bool:
    """A maintenance keeps hosts off, but not a member from its own way to the storage."""
    held = state.disarmed is not None and what.purpose is Purpose.REBOOT
    return not held and not what.actor and all_proven(state, what.life.node)


def all_proven(state: ClusterState, node: int) -> bool:
    """No life of this node is left that may still write."""
    return all(state.domain.proven(victim) for victim in state.domain.of_node(node))


def began(state: ClusterState, life: Life, entry: PowerOnBegan) -> list[Fact]:
    what = _find(state, entry.life)
    if what is None or entry.number != what.number + 1 or not may_begin(state, what):
        return []
    if actor_for(what, state.ready) != life.node:
        return []
    what.number, what.actor, what.next_in_ms = entry.number, life.node, 0
    return [PowerOnGranted(entry.life, life.node, entry.number)]


def ended(state: ClusterState, life: Life, entry: PowerOnEnded) -> list[Fact]:
    what = _find(state, entry.life)
    if what is None or (what.actor, what.number) != (life.node, entry.number):
        return []
    what.actor, what.failed, what.next_in_ms = 0, "" if entry.passed else entry.verdict, entry.next_in_ms
    kind = "power-on-done" if entry.passed else "power-on-failed"
    said = [msgspec.to_builtins(word) for word in entry.words]
    line = f"{state.name(what.life.node)}: {entry.verdict}" if entry.passed else explain(state.config, what)
    facts: list[Fact] = [_noted(state, kind, what, line, actor=life.node, words=said)]
    if entry.passed:
        state.power_ons.remove(what)
    elif what.purpose is Purpose.REBOOT and what.number >= TRIES:
        state.power_ons.remove(what)
        name = state.name(what.life.node)
        line = f"{name} is fenced, and could not be switched on again in {TRIES} tries: do it by hand"
        facts.append(_noted(state, "power-on-given-up", what, line))
    return facts


def _add(state: ClusterState, what: PowerOn, instead_of: Collection[PowerOn]) -> None:
    rest = [one for one in state.power_ons if one not in instead_of]
    state.power_ons = sorted([*rest, what], key=lambda one: one.life)


def _find(state: ClusterState, life: Life) -> PowerOn | None:
    return next((one for one in state.power_ons if one.life == life), None)


def _reboots(what: PowerOn, node: int) -> bool:
    return what.purpose is Purpose.REBOOT and what.life.node == node


def _noted(state: ClusterState, kind: str, what: PowerOn, line: str, **fields: object) -> Noted:
    about = {"node": what.life.node, "life": str(what.life), "purpose": what.purpose.value}
    return Noted(kind, line, {**about, "number": what.number, **fields})
