"""Hand-overs: who hands which LV over to whom, and who it is decided for, as all agree on.

A hand-over is decided at one place of the total order.  Until TAKE is applied there the LV is the giver's:
whoever is lost by then, the giver gets its lock back and goes on, and the taker closes its end.  From then on
it is the taker's: the giver lets go, or is fenced, and the taker goes on with the lock EX.  TAKE is refused
unless the two, and nobody else, hold the LV, both PR.

That a hand-over goes on follows from the locks (`under_way`): so it ends with a node's purge, without a word
about it, and what a daemon that comes back has adopted goes on.  One that has ended is forgotten before the
next entry: whoever locks the LV after that begins afresh."""

from ringfence.core.ids import Life
from ringfence.core.locknames import VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine.facts import Fact, HandoverAsked, HandoverHeard, Noted
from ringfence.engine.state import ClusterState, Handover
from ringfence.locks.resource import Lock, Resource
from ringfence.wire import entries
from ringfence.wire.entries import HandoverStep


def under_way(state: ClusterState, uuid: str) -> Handover | None:
    """The hand-over of this LV, if it still goes on."""
    one = state.handovers.get(uuid)
    return one if one is not None and _counts(state, uuid, one) else None


def forget_ended(state: ClusterState) -> None:
    state.handovers = {uuid: one for uuid, one in state.handovers.items() if _counts(state, uuid, one)}


def _counts(state: ClusterState, uuid: str, one: Handover) -> bool:
    gives, takes = (_holds(state, one.vg, uuid, node) for node in (one.giver, one.taker))
    if one.step is HandoverStep.TAKE:
        return takes
    return gives and (takes or not one.opened)


def _holds(state: ClusterState, vg: str, uuid: str, node: int) -> bool:
    resource = _resource(state, vg, uuid)
    return any(lock.owner == node for lock in (_holders(resource) if resource is not None else ()))


def _resource(state: ClusterState, vg: str, uuid: str) -> Resource | None:
    space = state.lockspaces.get(f"{VG_SPACE}{vg}")
    return space.resources.get(uuid) if space is not None else None


def _holders(resource: Resource) -> list[Lock]:
    return [lock for lock in (*resource.granted, *resource.converting) if lock.held > Mode.NL]


def asked(state: ClusterState, life: Life, entry: entries.AskHandover) -> list[Fact]:
    one = state.handovers.get(entry.uuid)
    if entry.step is HandoverStep.DROP:
        why, facts = _drop(state, life, entry, one)
        return [*facts, HandoverHeard(life, entry.number, why)]
    why = _why_not(state, life, entry, one)
    if why:
        return [HandoverHeard(life, entry.number, why)]
    if one is None:
        one = Handover(
            entry.vg, entry.lv, life.node, entry.to, life, entry.number, entry.step, state.wall_ms
        )
        state.handovers = dict(sorted([*state.handovers.items(), (entry.uuid, one)]))
    one.lv, one.life, one.number, one.step = entry.lv, life, entry.number, entry.step
    if entry.step is HandoverStep.TAKE:
        return [HandoverHeard(life, entry.number, "")]
    return [HandoverAsked(life, entry.to, entry)]


def _drop(
    state: ClusterState, life: Life, entry: entries.AskHandover, one: Handover | None
) -> tuple[str, list[Fact]]:
    if one is None or one.giver != life.node:
        return "", []
    if one.step is HandoverStep.TAKE:
        return f"it is {state.name(one.taker)}'s already", []
    del state.handovers[entry.uuid]
    giver, taker = state.name(one.giver), state.name(one.taker)
    what = f"LV {one.vg}/{one.lv} is not handed over to {taker}: it stays with {giver}"
    return "", [Noted("handover-dropped", what, _fields(one))]


def _why_not(state: ClusterState, life: Life, entry: entries.AskHandover, one: Handover | None) -> str:
    taker, space = state.name(entry.to), f"{VG_SPACE}{entry.vg}"
    if one is not None and (one.giver, one.taker) != (life.node, entry.to):
        return f"it is being handed over from {state.name(one.giver)} to {state.name(one.taker)}"
    if one is not None and one.step is HandoverStep.TAKE:
        return f"it is {taker}'s already"
    if entry.to not in state.lives:
        return f"{taker} is no ready member"
    if not state.member(space, entry.to):
        return f"{taker} has not started VG {entry.vg}"
    if blocking := state.blocking(space):
        names = ", ".join(dict.fromkeys(state.name(victim.life.node) for victim in blocking))
        return f"lockspace {space} is frozen until {names} is fenced"
    resource = _resource(state, entry.vg, entry.uuid)
    holders = {lock.owner: lock.held for lock in (_holders(resource) if resource is not None else ())}
    if entry.step is HandoverStep.LOOK:
        if holders != {life.node: Mode.EX}:
            return f"{state.name(life.node)} does not hold it EX, alone"
        assert resource is not None
        if waiting := [*resource.waiting, *resource.converting]:
            return f"{state.name(waiting[0].owner)} waits for it"
        return ""
    if one is None:
        return "the hand-over was given up meanwhile"
    if entry.step is HandoverStep.TAKE:
        both = {life.node: Mode.PR, entry.to: Mode.PR}
        if one.step is not HandoverStep.OPEN or holders != both:
            held = ", ".join(f"{mode.name} on {state.name(node)}" for node, mode in sorted(holders.items()))
            return f"both hosts, and nobody else, must hold it PR, and it is held {held}"
    return ""


def told(state: ClusterState, life: Life, entry: entries.HandoverTold) -> list[Fact]:
    heard = HandoverHeard(entry.by, entry.number, entry.failed)
    one = state.handovers.get(entry.uuid)
    if one is None or (one.taker, one.life, one.number) != (life.node, entry.by, entry.number):
        return [heard]
    if one.step is HandoverStep.TAKE:
        del state.handovers[entry.uuid]
        giver, taker = state.name(one.giver), state.name(one.taker)
        what = f"LV {one.vg}/{one.lv} was handed over from {giver} to {taker}"
        return [heard, Noted("handed-over", what, _fields(one))]
    if one.step in (HandoverStep.LEND, HandoverStep.OPEN) and not entry.failed:
        one.opened = True
    return [heard]


def _fields(one: Handover) -> dict[str, object]:
    return {"vg": one.vg, "lv": one.lv, "node": one.giver, "taker": one.taker}
