"""`fence status`: who can be fenced, who waits for it, which proof is missing, who acts, what comes next.

{"node": who answers, "current": it may act, "disarmed": null or {"who", "why", "left_ms"},
 "evidence": [word], "quarantined": {device: why},
 "nodes": [{"name", "state", "levels": [[device]], "fenceable", "why_not", "machine", "board",
            "hypervisor", "holds": {lockspace: locks}, "counts": [kind of proof],
            "tested_wall_ms": when the last test of all its devices, by each member, had passed (0: never),
            "test_failed": [what did not]}],
 "victims": [{"node", "life", "order", "action", "acts", "missing": [what], "next", "words": [what agents
              said in the last attempt], "proven", "lines": [text]}],
 "fenced": [{"node", "life", "evidence": [{"kind", "how"}], "order", "action"}]: the last of each node,
 "power": [what is to be switched on, a line each]}."""

from typing import Any

import msgspec

from ringfence.core.cluster import NodeConfig
from ringfence.engine.arming import Arming
from ringfence.engine.context import Context
from ringfence.engine.reports import Doing, power_lines, victim_lines
from ringfence.engine.state import ClusterState
from ringfence.engine.words import why_no_order
from ringfence.fencing.domain import FencedRecord, Victim
from ringfence.fencing.explain import missing_of, next_step, would_count
from ringfence.fencing.policy import proofs_of

COUNTED_AT_MOST = 2000
"""Resources of a lockspace that are looked through for a node's locks: nothing may hold the loop."""

Json = dict[str, Any]


def report(context: Context, arming: Arming, node: int | None, doing: Doing) -> Json:
    """Args:
    node: only of this one; None: of all.
    doing: as `reports.victim_lines`."""
    state = context.state
    nodes = [one for one in context.config.nodes if node in (None, one.id)]
    victims = [one for one in (state.victims() if state else []) if node in (None, one.life.node)]
    return {
        "node": context.name(context.me),
        "current": context.running is not None,
        "disarmed": disarmed(context, arming),
        "evidence": list(context.config.evidence),
        "quarantined": dict(sorted(state.domain.quarantined.items())) if state else {},
        "nodes": [_node(context, state, one) for one in nodes],
        "victims": [_victim(context, state, one, doing) for one in victims] if state else [],
        "fenced": _fenced(context, state, node) if state else [],
        "power": power_lines(state, node or 0) if state else [],
    }


def disarmed(context: Context, arming: Arming) -> Json | None:
    """The maintenance, and how long it still goes on by this node's clock; None: fencing is armed."""
    disarm = context.state.disarmed if context.state is not None else None
    if context.state is None or disarm is None:
        return None
    left_ms = arming.left_ms(disarm, context.state.wall_ms)
    return {"who": disarm.who, "why": disarm.why, "left_ms": left_ms, "since_wall_ms": disarm.at_wall_ms}


def _node(context: Context, state: ClusterState | None, node: NodeConfig) -> Json:
    why, _ = why_no_order(state, node.id) if state is not None else ("the state is not known here", "")
    victims = [one for one in state.victims() if one.life.node == node.id] if state else []
    standing = "absent"
    if victims:
        standing = "to be fenced"
    elif state is not None and node.id in state.lives:
        standing = "ready"
    elif state is not None and node.id in state.out:
        standing = "left"
    virtual = state.virtual.get(node.id, "") if state else ""
    return {
        "name": node.name,
        "state": standing,
        "levels": [[use.label for use in level.uses] for level in node.levels],
        "fenceable": not why,
        "why_not": why,
        "machine": state.enrolled.get(node.id, "") if state else "",
        "board": state.boards.get(node.id, "") if state else "",
        "hypervisor": virtual,
        **_tests(context, state, node.id),
        "holds": _holds(state, node.id) if state else {},
        "counts": proofs_of(
            context.config,
            node.id,
            lied=any(one.lied for one in victims),
            virtual=bool(virtual),
            untrusted=list(state.domain.quarantined) if state else (),
        ),
    }


def _tests(context: Context, state: ClusterState | None, node: int) -> Json:
    """Of what each member's last test of each of the node's devices came to, the oldest and the failed."""
    if state is None:
        return {"tested_wall_ms": 0, "test_failed": []}
    every = [(tester, one) for tester in state.ready for one in state.tested.get(tester, ())]
    kept = [(tester, one) for tester, one in every if one.node == node]
    failed = [f"{context.name(tester)}, {one.use}: {one.failed}" for tester, one in kept if one.failed]
    passed_ms = min((one.passed_wall_ms for _, one in kept), default=0)
    return {"tested_wall_ms": passed_ms, "test_failed": failed}


def _holds(state: ClusterState, node: int) -> dict[str, int]:
    """Locks that the node holds in each lockspace that it is in; counted up to a limit."""
    found: dict[str, int] = {}
    for name, space in sorted(state.lockspaces.items()):
        if state.member(name, node):
            names = [resource for resource, _ in zip(space.resources, range(COUNTED_AT_MOST), strict=False)]
            found[name] = sum(space.resources[one].find(node) is not None for one in names)
    return found


def _victim(context: Context, state: ClusterState, victim: Victim, doing: Doing) -> Json:
    order = state.order_of(victim.life)
    last = victim.current or (victim.attempts[-1] if victim.attempts else None)
    ready = state.ready
    actor = victim.current.actor if victim.current else state.domain.actor_for(victim, ready)
    proven = state.domain.proven(victim)
    disarmed, virtual = state.disarmed is not None, state.may_be_virtual(victim.life.node)
    step = next_step(context.config, state.domain, victim, ready, context.wall_ms, disarmed=disarmed)
    return {
        "node": context.name(victim.life.node),
        "life": str(victim.life),
        "since_wall_ms": victim.since_wall_ms,
        "reason": victim.reason,
        "order": order.id if order else "",
        "action": state.action_for(victim.life),
        "acts": context.name(actor) if actor and victim.due and not proven else "",
        "running": victim.current is not None,
        "attempts": victim.number,
        "missing": missing_of(context.config, state.domain, victim, ready),
        "counts": would_count(context.config, state.domain, victim, virtual=virtual),
        "next": "" if proven else step,
        "words": [msgspec.to_builtins(word) for word in last.words] if last else [],
        "verdict": last.verdict if last else "",
        "proven": proven,
        "lied": victim.lied,
        "lines": victim_lines(context, state, victim, doing),
    }


def _fenced(context: Context, state: ClusterState, node: int | None) -> list[Json]:
    last: dict[int, FencedRecord] = {}
    for record in state.domain.fenced:
        if node in (None, record.life.node):
            last[record.life.node] = record
    found = []
    for id, record in sorted(last.items()):
        order = state.order_of(record.life)
        proofs = [{"kind": one.kind.value, "how": one.how} for one in record.evidence]
        found.append(
            {
                "node": context.name(id),
                "life": str(record.life),
                "evidence": proofs,
                "order": order.id if order else "",
                "action": state.action_for(record.life),
            }
        )
    return found
