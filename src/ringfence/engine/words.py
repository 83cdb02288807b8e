"""What operators' words change in the ordered state: fence a node, no fencing for a while, another machine.

`fence confirm` and `fence trust` are in `apply`, beside the evidence.  None of these words is evidence, and
none lets a lock move: an order makes a victim, and a victim ends by proof like any other.

An order about a member takes it out at once, before any agent runs: it is told so in the same place of the
order as everybody else, goes stale, and gives its authority up by itself, should it still be sound."""

from ringfence.core.ids import Life
from ringfence.engine import powering
from ringfence.engine.facts import Expelled, Fact, Noted
from ringfence.engine.losses import lose, make_victim, note_victim
from ringfence.engine.state import ORDERS_KEPT, ClusterState, Disarm, FenceOrder, absent_life
from ringfence.membership.quorum import is_primary
from ringfence.wire import entries


def why_no_order(state: ClusterState, node: int) -> tuple[str, str]:
    """(why this node cannot be ordered fenced now, what to do next); empty: it can."""
    name = state.name(node)
    rest = [one for one in state.ready if one != node]
    if state.disarmed is not None:
        return f"{state.disarmed.who} disarmed fencing", "ringfence fence arm, then order it again"
    if not state.config.levels_of(node):
        cure = f"switch it off by hand, then: ringfence fence confirm {name}"
        return f"{name} has no fence device", cure
    if not rest:
        return f"nobody but {name} is ready: nobody could fence it", "ringfence status"
    if node in state.lives and not is_primary(state.config, rest, True):
        return f"without {name} the rest has no quorum: nobody could act", "ringfence status"
    return "", ""


def ordered(state: ClusterState, life: Life, entry: entries.FenceOrdered) -> list[Fact]:
    node = entry.node
    repeated = any(one.id == entry.id for one in state.orders)
    if repeated or state.lives.get(node) != entry.life or why_no_order(state, node)[0]:
        return []
    reason = f"ordered by {entry.who}" + (f": {entry.why}" if entry.why else "")
    facts: list[Fact] = []
    if entry.life is not None:
        facts += lose(state, entry.life, reason, due=True)
        facts.append(Expelled(entry.life, f"it is to be fenced, {reason}"))
    elif not state.domain.of_node(node):
        absent = absent_life(node, state.epoch, state.position)
        make_victim(state, absent, reason, due=True, lockspaces=())
        facts.append(note_victim(state, absent, reason))
    for victim in state.domain.of_node(node):
        victim.due = True
        order = FenceOrder(entry.id, victim.life, entry.action, entry.who, entry.why, state.wall_ms)
        state.orders = [*state.orders, order][-ORDERS_KEPT:]
    state.domain.actor_gone(state.ready)
    if entry.action == "off":
        powering.leave_off(state, node)
    what = f"{entry.who} orders {state.name(node)} fenced"
    fields = {"node": node, "who": entry.who, "why": entry.why, "action": entry.action, "order": entry.id}
    return [Noted("fence-ordered", what + (f": {entry.why}" if entry.why else ""), fields), *facts]


def disarmed(state: ClusterState, life: Life, entry: entries.Disarmed) -> list[Fact]:
    """What runs is stopped: hands may be in the rack from now on.  Not in the middle of a drill, which would
    leave an outlet off."""
    if state.drill is not None:
        return []
    state.disarmed = Disarm(state.position, entry.for_ms, entry.who, entry.why, state.wall_ms)
    why = f"stopped: {entry.who} disarmed fencing"
    state.domain.stopped(why)
    powering.stopped(state, why)
    fields = {"who": entry.who, "why": entry.why, "for_ms": entry.for_ms}
    what = f"{entry.who} disarmed fencing for {_time(entry.for_ms)}: no agent is started"
    return [Noted("disarmed", what + (f": {entry.why}" if entry.why else ""), fields)]


def armed(state: ClusterState, life: Life, entry: entries.Armed) -> list[Fact]:
    if state.disarmed is None:
        return []
    state.disarmed = None
    return [Noted("armed", f"{entry.who} armed fencing again", {"who": entry.who})]


def expired(state: ClusterState, life: Life, entry: entries.DisarmExpired) -> list[Fact]:
    disarm = state.disarmed
    if disarm is None or disarm.number != entry.number:
        return []
    disarm.expired = sorted({*disarm.expired, life.node})
    if not all(node in disarm.expired for node in state.ready):
        return []
    state.disarmed = None
    return [Noted("armed", f"the time that {disarm.who} asked for is over: fencing is armed again", {})]


def forgotten(state: ClusterState, life: Life, entry: entries.MachineForgotten) -> list[Fact]:
    """Not while a life of the old machine may run: its fence devices would be taken for the new one's."""
    if state.enrolled.get(entry.node) != entry.machine or why_not_forgotten(state, entry.node)[0]:
        return []
    del state.enrolled[entry.node]
    state.boards.pop(entry.node, None)
    what = f"{entry.who} lets another machine be {state.name(entry.node)}"
    fields = {"node": entry.node, "who": entry.who, "why": entry.why, "machine": entry.machine}
    return [Noted("machine-forgotten", what + (f": {entry.why}" if entry.why else ""), fields)]


def why_not_forgotten(state: ClusterState, node: int) -> tuple[str, str]:
    """(why another machine may not be this node now, what to do next); empty: it may."""
    name = state.name(node)
    if node in state.lives:
        return f"{name} is a ready member: its machine is here", f"on {name}: ringfence leave"
    if state.domain.of_node(node):
        return (
            f"{name} must be proven fenced first: its old machine may run on",
            f"wait for it, or make sure that it is off: ringfence fence confirm {name}",
        )
    return "", ""


def _time(ms: int) -> str:
    """As a person says it: "2 h 5 min", "40 s"."""
    hours, minutes, seconds = ms // 3_600_000, ms // 60_000 % 60, ms // 1000 % 60
    parts = [(hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "no time"
