"""Arrivals: what a completed barrier, a late Ready, and a frame of a fenced life mean for the state.

After each of them the caller runs `losses.settle`."""

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from ringfence.core.ids import Epoch, Life
from ringfence.core.locknames import vg_of
from ringfence.core.modes import Mode
from ringfence.engine import powering
from ringfence.engine.adoption import adopt
from ringfence.engine.commands.locking import VG_RESOURCE
from ringfence.engine.facts import Fact, NotAdmitted, Noted
from ringfence.engine.identity import enrol, why_not_this_machine
from ringfence.engine.losses import (
    explain_by_return,
    expose,
    fenced_by,
    lose,
    make_victim,
    note_victim,
)
from ringfence.engine.state import ClusterState, Sender
from ringfence.fencing.delays import favours_lost, stakes_decide
from ringfence.wire import FENCING, LEAVE_OUT
from ringfence.wire.ring import UNSAID_HARDWARE, Hardware, OpenLock

NOTHING_SHOWN: Mapping[int, tuple[OpenLock, ...]] = MappingProxyType({})
NOTHING_SAID: Mapping[int, Hardware] = MappingProxyType({})


def enter_view(
    state: ClusterState,
    epoch: Epoch,
    members: tuple[int, ...],
    returning: tuple[tuple[Life, bool], ...],
    known_victims: tuple[Life, ...],
    procdown: tuple[int, ...],
    wall_ms: int,
    fresh: bool,
    shown: Mapping[int, tuple[OpenLock, ...]] = NOTHING_SHOWN,
    out: tuple[Life, ...] = (),
    hardware: Mapping[int, Hardware] = NOTHING_SAID,
    left_out: tuple[int, ...] = (),
) -> list[Fact]:
    """A primary view's barrier is complete.

    Args:
        returning: each member's life, and whether it may be admitted (False: it is stale, or its
            configuration differs; its life is looked at, for it may expose a lie).
        known_victims: the union of what the members' disks remember.
        procdown: nodes whose daemon ended while their host stayed; they get a grace period.
        fresh: the state was made just now; configured nodes that are absent may be alive somewhere.
        shown: what data paths of its earlier life a member's new daemon has found open.
        out: fresh: lives that had left cleanly before, and have not been back since.
        hardware: what each member says its machine is made of.
        left_out: who is in the ring, and said nothing in time: no member of this view.
    """
    state.epoch = epoch
    state.wall_ms = max(state.wall_ms, wall_ms)
    state.position += 1
    facts: list[Fact] = []
    favoured = _favoured(state, members)
    arriving = {life.node: life for life, _ in returning}
    may = {life.node: admitted for life, admitted in returning}
    for node, life in sorted(state.lives.items()):
        if node not in members:
            ended = node in procdown
            reason = f"its daemon ended, view {epoch}" if ended else f"lost from view {epoch}"
            if silent := node in left_out:
                reason = f"its daemon is silent: it did not say that it is ready in view {epoch}"
            facts += lose(state, life, reason, due=not (ended or silent))
        elif arriving[node] != life:
            facts += lose(state, life, f"came back as another life in view {epoch}", due=False)
        elif not may[node]:
            facts += lose(state, life, f"its state was stale in view {epoch}", due=False)
    for life in known_victims:
        if not _knows(state, life, arriving):
            # In no lockspace: had it been in one of this state's, the state would know it.
            make_victim(state, life, "remembered on disk as not proven fenced", due=True, lockspaces=())
    for life, admitted in returning:
        facts += _meet(
            state, life, admitted, shown.get(life.node, ()), hardware.get(life.node, UNSAID_HARDWARE)
        )
    for victim in state.victims():
        successor = state.lives.get(victim.life.node)
        if successor is not None and not victim.lied and not victim.evidence:
            facts += explain_by_return(state, victim, successor)
    if fresh:
        state.out = {life.node: life for life in out if life.node not in members}
        for node_config in state.config.nodes:
            if node_config.id in state.out:
                continue
            # Also where a disk remembers a victim of that node: it may have had a later life since.
            # Who is here but stale may still write under what it was granted before this state.
            if node_config.id not in members or not may[node_config.id]:
                here = node_config.id in members
                reason = "stale" if here else "absent"
                reason = f"{reason} when the cluster started"
                make_victim(state, Life(node_config.id), reason, due=False, lockspaces=())
                facts.append(note_victim(state, Life(node_config.id), reason))
    known = [*state.favoured, *favoured]
    state.favoured = [one for one in known if state.domain.victim(one) is not None]
    for node in members:
        if node not in state.lives:
            powering.leave_off(state, node)  # it is on, though it is not let in
    state.domain.actor_gone(state.ready)
    return facts


def _favoured(state: ClusterState, members: tuple[int, ...]) -> list[Life]:
    """Of those who are lost now: who is to be fenced later, for what it had at stake (`fencing.delays`)."""
    lost = [node for node in state.ready if node not in members]
    left = [node for node in state.ready if node in members]
    if state.protocol < FENCING or not stakes_decide(state.config, lost, left):
        return []  # (to count them takes a walk through all locks)
    if not favours_lost(state.config, _volumes_in_use(state), lost, left):
        return []
    return [state.lives[node] for node in lost]


def _volumes_in_use(state: ClusterState) -> Counter[int]:
    """How many volumes each node holds for itself alone.  (By comprehensions: 20 ms for 100,000 of them.)"""
    found: Counter[int] = Counter()
    alone = Mode.EX
    for name, space in state.lockspaces.items():
        if vg_of(name) is None:
            continue
        bodies = [body for resource, body in space.resources.items() if resource != VG_RESOURCE]
        found.update([lock.owner for body in bodies for lock in body.granted if lock.held is alone])
        found.update([lock.owner for body in bodies for lock in body.converting if lock.held is alone])
    return found


def admit(
    state: ClusterState, life: Life, wall_ms: int, hardware: Hardware = UNSAID_HARDWARE
) -> list[Fact]:
    """A member that was not ready says Ready again in this view, as a fresh incarnation.

    Who was left out before it had ever been let in may have been let in since as the life that said Ready too
    late, and ended it when it found out."""
    state.wall_ms = max(state.wall_ms, wall_ms)
    state.position += 1
    facts: list[Fact] = []
    earlier = state.lives.get(life.node)
    if earlier is not None and earlier != life and state.protocol >= LEAVE_OUT:
        facts = lose(state, earlier, f"came back as another life in view {state.epoch}", due=False)
    return facts + _meet(state, life, True, (), hardware)


def heard_fenced(state: ClusterState, life: Life) -> list[Fact]:
    """A frame of a life that is given up for fenced was delivered in this epoch."""
    state.position += 1
    return expose(state, life)


def _meet(
    state: ClusterState,
    life: Life,
    may_enter: bool,
    shown: tuple[OpenLock, ...],
    hardware: Hardware,
) -> list[Fact]:
    if state.lives.get(life.node) == life:
        return []
    fenced = fenced_by(state, life)
    if fenced is not None:
        return expose(state, fenced)
    if not may_enter or state.domain.victim(life) is not None:
        return []
    name, fields = state.name(life.node), {"node": life.node, "machine": life.machine}
    why = why_not_this_machine(state, life, hardware)
    if why:
        return [Noted("clone-refused", why, fields), NotAdmitted(life.node, why)]
    order = state.keeps_out(life)
    if order is not None:
        why = f"{name} is to be fenced, as {order.who} ordered: it is let in again after that"
        return [NotAdmitted(life.node, why)]
    facts: list[Fact] = []
    if shown:
        adopted, facts = adopt(state, life, shown)
        if not adopted:
            return facts
    for victim in state.domain.of_node(life.node):
        facts += explain_by_return(state, victim, life)
    if any(victim.lied and victim.life.same_boot(life) for victim in state.domain.of_node(life.node)):
        return facts  # it was given up for fenced and runs on: it stays out until it is fenced
    enrol(state, life, hardware)
    state.lives[life.node] = life
    state.out.pop(life.node, None)
    state.senders[life.node] = Sender(life, 0)
    powering.let_in(state, life)
    facts.append(Noted("joined", f"{state.name(life.node)} joined as {life}", {"node": life.node}))
    return facts


def _knows(state: ClusterState, life: Life, arriving: dict[int, Life]) -> bool:
    """Whether the state can already say what became of a life that a disk remembers.

    "Any life of this node" (unknown) was explained when the node was let in, with its present life: to
    bring it up again would put in doubt what that life rightfully holds."""
    if state.domain.victim(life) is not None:
        return True
    if any(record.life == life for record in state.domain.fenced):
        return True
    present = state.lives.get(life.node)
    return present is not None and arriving.get(life.node) == present and (life.unknown or life == present)
