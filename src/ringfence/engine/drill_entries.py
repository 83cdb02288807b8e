"""Drills in the ordered state: when one may begin, what it proves, what becomes of devices that lied."""

from ringfence.core.ids import Life
from ringfence.engine.facts import DrillGranted, DrillOver, Fact, Noted
from ringfence.engine.losses import record_incident, witness
from ringfence.engine.state import ClusterState
from ringfence.fencing import drills
from ringfence.fencing.drills import Drill
from ringfence.membership.quorum import is_primary
from ringfence.wire.entries import DrillAttempted, DrillBegan, DrillEnded, Incident
from ringfence.wire.proving import DrillKind


def began(state: ClusterState, life: Life, entry: DrillBegan) -> list[Fact]:
    why = refusal(state, life.node, entry)
    if why:
        return [DrillOver(life, entry.kind, entry.node, verdict=why, refused=True)]
    state.drill = Drill(entry.kind, state.lives[entry.node], life, entry.level, entry.who, state.wall_ms)
    uses = ", ".join(use.label for use in drills.uses_of(state.config, state.drill))
    what = (
        f"{state.name(life.node)} begins a {entry.kind.value} drill of {state.name(entry.node)} by {uses} "
        f"for {entry.who}"
    )
    fields = {"node": entry.node, "actor": life.node, "who": entry.who, "drill": entry.kind.value}
    return [Noted("drill", what, fields), DrillGranted(life)]


def refusal(state: ClusterState, actor: int, entry: DrillBegan) -> str:
    """Why this drill cannot begin now; empty: it may."""
    name = state.name(entry.node)
    if state.drill is not None:
        return f"a drill of {state.name(state.drill.life.node)} goes on"
    if state.disarmed is not None:
        return "fencing is disarmed: a drill would start agents (ringfence fence arm)"
    if state.victims():
        return f"{state.name(state.victims()[0].life.node)} must be fenced first"
    if entry.node not in state.lives:
        return f"{name} is not in the cluster: nobody could see what becomes of it"
    if entry.node == actor:
        return f"{name} cannot drill itself: nobody would be left to switch it on again"
    if entry.level >= len(state.config.levels_of(entry.node)):
        return f"{name} has no fence level {entry.level + 1}"
    return _not_expendable(state, entry.node) if entry.kind is DrillKind.DESTRUCTIVE else ""


def _not_expendable(state: ClusterState, node: int) -> str:
    name = state.name(node)
    spaces = [one for one, space in sorted(state.lockspaces.items()) if node in space.members]
    if spaces:
        return f"{name} is in lockspace {', '.join(spaces)}: its power is cut only while it holds nothing"
    rest = [one for one in state.ready if one != node]
    return "" if is_primary(state.config, rest, True) else f"without {name} the others have no majority"


def attempted(state: ClusterState, life: Life, entry: DrillAttempted) -> list[Fact]:
    drill = state.drill
    if drill is None or drill.actor != life or drill.life != entry.life:
        return []
    drill.attempted = True
    if entry.evidence is None:
        return []
    facts: list[Fact] = []
    who = f"a destructive drill of {state.name(drill.life.node)}"
    for device in entry.evidence.devices:
        if device in state.domain.quarantined:
            state.domain.release_quarantine(device)
            what = f"{device} is believed again: {who} passed"
            facts.append(Noted("quarantine-lifted", what, {"device": device, "who": who}))
    return [*facts, *witness(state, entry.evidence)]


def ended(state: ClusterState, life: Life, entry: DrillEnded) -> list[Fact]:
    drill = state.drill
    if drill is None or drill.life != entry.life:
        return []
    if drill.actor != life and drill.actor in state.lives.values():
        return []
    state.drill = None
    node, name = drill.life.node, state.name(drill.life.node)
    kind, result = ("drill-ended", "passed") if entry.passed else ("drill-failed", "failed")
    fields = {"node": node, "drill": drill.kind.value, "passed": entry.passed, "lines": list(entry.lines)}
    what = f"{drill.kind.value} drill of {name} {result}: {entry.verdict}"
    facts: list[Fact] = [Noted(kind, what, fields)]
    for device in entry.liars:
        state.domain.quarantined.setdefault(device, f"in a drill it said that {name} was off, and it was not")
    if entry.liars:
        liars = ", ".join(entry.liars)
        incident = Incident("fence-lied", node, what, drill.life, liars, at_wall_ms=state.wall_ms)
        facts += record_incident(state, incident)
    over = DrillOver(drill.actor, drill.kind, node, entry.passed, entry.verdict, entry.lines)
    return [*facts, over]
