"""What a node says of itself and of the cluster's locks: values for `status` and `locks`.

Answered from the state that this node has, at once.  A node that is not running says so and shows the
last state it had, marked as not current: nothing here may read as better than it is known to be."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ringfence.core.cluster import NodeConfig
from ringfence.core.ids import Life
from ringfence.core.modes import Mode
from ringfence.engine.chains import Chains, who
from ringfence.engine.context import Context, Phase
from ringfence.engine.locker import Locker
from ringfence.engine.orders import Command, GoOn
from ringfence.engine.standing import disarmed_line, restless, standing
from ringfence.engine.state import ClusterState
from ringfence.engine.uses import Use
from ringfence.fencing.domain import Victim
from ringfence.fencing.explain import explain_victim
from ringfence.fencing.power_on import explain
from ringfence.fencing.proving import alarms
from ringfence.locks.flags import Flag
from ringfence.locks.node_locks import Row
from ringfence.locks.resource import Lock, Resource
from ringfence.membership.barrier import Barrier

Json = dict[str, Any]
Doing = Callable[[Life], list[str]]
SLICE = 100
"""So many resources are looked at before others have their turn."""


def status(
    context: Context,
    exports: list[Json],
    barrier: Barrier | None,
    why: str,
    broken: Sequence[str] = (),
    *,
    doing: Doing,
) -> Json:
    """This node, its view of the members, victims, lockspaces, its authority, its open volumes.

    broken: what is wrong with those, a line each.
    doing: what this node's own attempt on a victim waits for just now.
    `blocked_by` has a line for everything that keeps somebody from going on; `blocked` is whether
    there is any."""
    state = context.state
    victims = state.victims() if state else []
    blocked_by = [*_blocked_by(context, barrier, why), *broken]
    return {
        "node": context.name(context.me),
        "cluster": context.config.name,
        "life": str(context.life),
        "ready": context.running is not None,
        "state": context.phase.value,
        "why": why if context.phase is not Phase.RUNNING else "",
        "epoch": str(context.epoch),
        "primary": context.phase in (Phase.RUNNING, Phase.JOINING),
        "protocol": state.protocol if state else None,
        "speaks": {"low": context.speaks.low, "high": context.speaks.high},
        "two_node": context.config.two_node,
        "naive": context.config.naive,
        "members": [_member(context, node, barrier) for node in context.config.nodes],
        "victims": [_victim(context, victim, doing) for victim in victims],
        "lockspaces": _lockspaces(state) if state else [],
        "authority": _authority(context),
        "exports": exports,
        "broken": list(broken),
        "remarks": [
            *(line for line in (disarmed_line(context), context.ring_remark) if line),
            *(power_lines(state) if state else []),
        ],
        "refused": [context.refused[node] for node in sorted(context.refused) if node != context.me],
        "fence_tests": fence_tests(context),
        "drill": _drill(state) if state else None,
        "disarmed": _disarmed(state),
        "unclean": {vg: len(uuids) for vg, uuids in state.unclean.items()} if state else {},
        "quarantined": sorted(state.domain.quarantined) if state else [],
        "incidents": [msgspec.to_builtins(incident) for incident in state.incidents] if state else [],
        "config": {"version": context.config.version, "ring": context.config.ring},
        "blocked": bool(blocked_by),
        "blocked_by": blocked_by,
    }


def locks(context: Context, lockspace: str, locker: Locker) -> Command:
    """Cluster locks of `lockspace` ("" = of all), with this node's own clients under them.

    Of thousands it takes several steps, and each is told as it was in its own.

    waits: for each of those that waits, who is in its way, and what that one waits for itself.
    current: whether the state is one that this node may act on now."""
    found: list[Json] = []
    own: list[Json] = []
    seen = 0
    for name in _spaces(context, lockspace, locker):
        for resource in _resources(context, name, locker):
            rows = locker.node_locks.rows(name, resource)
            kept = any(row.lock_id is None for row in rows)
            found += _locks_of(context, name, resource, kept=kept)
            own += [_client(row, locker) for row in rows if row.lock_id is not None]
            seen += 1
            if seen % SLICE == 0:
                yield GoOn()
        found += _deferred(context, name)
    chains = Chains(context, locker)
    waits = [chains.report(use) for use in locker.waiting() if lockspace in ("", use.lockspace)]
    current = context.running is not None
    node = context.name(context.me)
    return {"node": node, "locks": found, "clients": own, "waits": waits, "current": current}


def _spaces(context: Context, lockspace: str, locker: Locker) -> list[str]:
    if lockspace:
        return [lockspace]
    known = list(context.state.lockspaces) if context.state else []
    return sorted(dict.fromkeys((*known, *locker.node_locks.spaces())))


def _resources(context: Context, lockspace: str, locker: Locker) -> list[str]:
    space = context.state.lockspaces.get(lockspace) if context.state else None
    known = list(space.resources) if space else []
    return sorted(dict.fromkeys((*known, *locker.node_locks.resources(lockspace))))


def _drill(state: ClusterState) -> Json | None:
    """The drill that goes on."""
    drill = state.drill
    if drill is None:
        return None
    return {
        "kind": drill.kind.value,
        "node": state.name(drill.life.node),
        "actor": state.name(drill.actor.node),
        "who": drill.who,
        "since_wall_ms": drill.began_wall_ms,
    }


def fence_tests(context: Context) -> Json:
    """What the members' tests of their ways to fence came to, and what a person should know of it."""
    state = context.state
    if state is None:
        return {"alarms": [], "tested": []}
    ready = state.ready if context.running is not None else ()
    found = alarms(context.config, ready, state.tested, context.wall_ms)
    tested = [
        {
            "tester": context.name(tester),
            "node": context.name(one.node),
            "use": one.use,
            "passed_wall_ms": one.passed_wall_ms,
            "failed": one.failed,
            "at_wall_ms": one.at_wall_ms,
        }
        for tester, kept in sorted(state.tested.items())
        for one in kept
    ]
    return {"alarms": [alarm.what for alarm in found], "tested": tested}


def _blocked_by(context: Context, barrier: Barrier | None, why: str) -> list[str]:
    state = context.running
    if state is None:
        return [f"{context.name(context.me)}: {why}", *restless(context)]
    found = [_blocked_by_victim(context, state, victim) for victim in state.victims()]
    return [*found, *standing(context, barrier, why)[:1], *restless(context)]


def _blocked_by_victim(context: Context, state: ClusterState, victim: Victim) -> str:
    name = context.name(victim.life.node)
    spaces = ", ".join(one for one in state.frozen if victim in state.blocking(one)) or "no lockspace"
    if state.domain.proven(victim):
        return f"{name} is proven fenced, its authority runs out; frozen: {spaces}"
    return f"{name} must be fenced; frozen: {spaces}"


def _member(context: Context, node: NodeConfig, barrier: Barrier | None) -> Json:
    state = context.state
    life = state.lives.get(node.id) if state else None
    if life is None and barrier is not None:
        life = barrier.life(node.id)
    return {
        "node": node.id,
        "name": node.name,
        "votes": node.votes,
        "life": str(life) if life else "-",
        "state": _standing(context, node.id, barrier),
        "hypervisor": state.virtual.get(node.id, "") if state else "",
    }


def _standing(context: Context, node: int, barrier: Barrier | None) -> str:
    state = context.state
    here = barrier is not None and node in barrier.members
    if state is not None and any(one.life.node == node for one in state.victims()):
        return "to be fenced" if node not in state.lives else "ready, an earlier life to be fenced"
    if state is not None and node in state.lives:
        return "ready" if here and context.running is not None else "ready when last heard of"
    if here:
        return "in the ring, not admitted" if node in context.refused else "in the ring, not ready"
    if state is not None and node in state.out:
        return "left"
    return "absent"


def victim_lines(context: Context, state: ClusterState, victim: Victim, doing: Doing) -> list[str]:
    """All that there is to say of a victim, the most important first."""
    current, doing_now = victim.current, doing(victim.life)
    if context.running is None and current is not None and current.actor == context.me:
        doing_now = ["has stopped its agents: it cannot act now"]
    return explain_victim(
        context.config, state.domain, victim, state.ready, context.wall_ms,
        favoured=state.favoured, doing=doing_now, disarmed=state.disarmed is not None,
        virtual=state.may_be_virtual(victim.life.node),
    )  # fmt: skip


def power_lines(state: ClusterState, node: int = 0) -> list[str]:
    """What is to be switched on, of one node or (0) of all, a line each."""
    return [explain(state.config, one) for one in state.power_ons if node in (0, one.life.node)]


def _victim(context: Context, victim: Victim, doing: Doing) -> Json:
    state = context.state
    assert state is not None
    return {
        "node": victim.life.node,
        "name": context.name(victim.life.node),
        "life": str(victim.life),
        "since_wall_ms": victim.since_wall_ms,
        "reason": victim.reason,
        "due": victim.due,
        "round": victim.round,
        "attempts": victim.number,
        "proven": state.domain.proven(victim),
        "lied": victim.lied,
        "lines": victim_lines(context, state, victim, doing),
    }


def _disarmed(state: ClusterState | None) -> Json | None:
    """Who stopped fencing for a while; None: it is armed."""
    disarm = state.disarmed if state is not None else None
    if disarm is None:
        return None
    return {"who": disarm.who, "why": disarm.why, "until_wall_ms": disarm.at_wall_ms + disarm.for_ms}


def _lockspaces(state: ClusterState) -> list[Json]:
    found = []
    for name in sorted(state.lockspaces):
        blocking = state.blocking(name)
        found.append(
            {
                "name": name,
                "members": [state.name(node) for node in state.lockspaces[name].members],
                "joining": [state.name(node) for node in sorted(state.lockspaces[name].joining)],
                "pending": [state.name(node) for space, node in state.pending_joins if space == name],
                "resources": len(state.lockspaces[name].resources),
                "locks": state.lockspaces[name].resources.locks,
                "frozen": bool(blocking),
                "why": ", ".join(f"until {state.name(one.life.node)} is fenced" for one in blocking),
            }
        )
    return found


def _authority(context: Context) -> Json:
    """Until when this node may report grants, and let writes through, on its own clock."""
    grant_ns, write_ns = context.authority.grant_deadline_ns, context.authority.write_deadline_ns
    if context.config.naive:
        return {"grant": "unchecked", "write": "unchecked", "grant_left_ms": 0, "write_left_ms": 0}
    report: Json = {}
    for what, deadline_ns in (("grant", grant_ns), ("write", write_ns)):
        left_ms = max(0, (deadline_ns - context.now_ns) // 1_000_000)
        report[what] = "valid" if left_ms else "lapsed" if deadline_ns else "none"
        report[f"{what}_left_ms"] = left_ms
    return report


def _locks_of(context: Context, lockspace: str, name: str, *, kept: bool) -> list[Json]:
    """Args: kept: of this node's own lock no client is in need."""
    space = context.state.lockspaces.get(lockspace) if context.state else None
    resource = space.resources.get(name) if space else None
    found: list[Json] = []
    for queue, lock in in_queues(resource) if resource else ():
        row = _lock(context, lockspace, name, queue, lock)
        if resource is not None and queue != "granted":
            row["behind"] = [context.name(one.owner) for one in resource.blockers(lock)]
        elif lock.flags & Flag.AHEAD or (kept and lock.owner == context.me):
            row["state"] = "kept"
        found.append(row)
    return found


def _deferred(context: Context, lockspace: str) -> list[Json]:
    """What waits there until it runs again."""
    state = context.state
    space = state.lockspaces.get(lockspace) if state else None
    if state is None or space is None:
        return []
    victims = list(dict.fromkeys(context.name(one.life.node) for one in state.blocking(lockspace)))
    found: list[Json] = []
    for op in space.deferred.values():
        row = _lock(context, lockspace, op.resource, "frozen", Lock(op.owner, since_ms=op.now_ms))
        wanted = op.mode.name if op.mode is not None else op.kind.value
        found.append({**row, "wanted": wanted, "behind": victims})
    return found


def in_queues(resource: Resource) -> list[tuple[str, Lock]]:
    """(queue, lock), holders first, each queue in its order."""
    queues = (
        ("granted", resource.granted),
        ("converting", resource.converting),
        ("waiting", resource.waiting),
    )
    return [(name, lock) for name, queue in queues for lock in queue]


def _lock(context: Context, space: str, resource: str, queue: str, lock: Lock) -> Json:
    return {
        "lockspace": space,
        "resource": resource,
        "node": lock.owner,
        "name": context.name(lock.owner),
        "mode": _mode(lock.held),
        "wanted": _mode(lock.wanted),
        "state": queue,
        "token": str(lock.token) if lock.token else "",
        "since_wall_ms": lock.since_ms,
        "behind": [],
    }


def _client(row: Row, locker: Locker) -> Json:
    use = locker.use(row.lock_id) if row.lock_id is not None else None
    return {
        "lockspace": row.lockspace,
        "resource": row.resource,
        "lock": row.lock_id,
        "who": who(use) if use is not None else "",
        "owner": use.owner.name if use is not None and use.owner is not None and use.owner.named else "",
        "mode": _mode(row.held),
        "wanted": _mode(row.wanted),
        "cluster_mode": _mode(row.cluster_held),
        "kept": row.kept,
        "state": _state(row),
        "token": str(row.token) if row.token else "",
        "since_wall_ms": held_since_ms(row, use),
    }


def held_since_ms(row: Row, use: Use | None) -> int:
    """A client's lock waits since it was asked for, but is held only since its client was told so."""
    told = use is not None and use.held is not None and use.done is None and row.wanted is Mode.UN
    return use.since_wall_ms if use is not None and told else row.since_ms


def _state(row: Row) -> str:
    if row.orphan:
        return "orphan"
    if row.wanted is Mode.UN:
        return "granted"
    return "waiting" if row.held is Mode.UN else "converting"


def _mode(mode: Mode) -> str:
    return "" if mode is Mode.UN else mode.name
