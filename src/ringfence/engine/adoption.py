"""Adoption: a daemon is back within its grace, and goes on with the volumes that are open on its host.

A daemon's death is not its host's: the data paths run in processes of their own, under deadlines that
end by themselves.  The new life shows what is open and under which lock.  If the ordered state knows all
of these as locks of one earlier life of the same boot, and nobody has begun to do anything about that
life, they become the new life's; whatever else the old one had is cleaned up.  Otherwise nothing is
adopted, and the new life must close every path before it is let in as its next incarnation.

Why it is all or nothing: a path whose lock is not this node's must not be renewed with its neighbours,
and only its own host can tell the one from the other.

Why the purge bound still holds: a page of the old life stands at what its heartbeats earned it.  The
new life's first word, which every member of that view has heard, is later than any of those; so its
own bound, should it be lost in turn, covers both."""

from collections.abc import Sequence

from ringfence.core.evidence import Evidence, EvidenceKind
from ringfence.core.ids import Life
from ringfence.engine.facts import Fact, Noted, VictimGone
from ringfence.engine.losses import clean_up
from ringfence.engine.spaces import lock_busy
from ringfence.engine.state import ClusterState
from ringfence.fencing.domain import Victim
from ringfence.locks.compat import covers
from ringfence.locks.flags import Flag
from ringfence.locks.resource import Lock
from ringfence.wire import SHOWN_IS_USED, entries
from ringfence.wire.ring import OpenLock


def adopt(state: ClusterState, life: Life, shown: Sequence[OpenLock]) -> tuple[bool, list[Fact]]:
    """Let `life` have the locks of its predecessor that it shows.

    Returns whether it was done, and what to record of it.  If not, nothing has changed."""
    name = state.name(life.node)
    fields = {"node": life.node, "life": str(life)}
    victims = state.domain.of_node(life.node)
    why = _why_not(state, life, victims, shown)
    if why:
        what = f"{name} is back as {life} with open volumes, and may not go on with them: {why}"
        return False, [Noted("adoption-refused", what, fields)]
    (old,) = victims
    how = f"{name} came back as {life} and goes on with its open volumes"
    evidence = Evidence(old.life, EvidenceKind.ADOPTED, life.node, how, (), state.wall_ms)
    record = state.domain.adopted(old.life, evidence)
    clean_up(state, life.node, record.lockspaces, [(one.lockspace, one.resource) for one in shown])
    what = f"{how}: {len(shown)} lock{'s' if len(shown) > 1 else ''}; what else it held is cleaned up"
    noted = Noted("adopted", what, {**fields, "locks": len(shown)})
    return True, [*_used(state, life, shown), noted, VictimGone(old.life)]


def _used(state: ClusterState, life: Life, shown: Sequence[OpenLock]) -> list[Fact]:
    """What was asked for ahead, and is shown, is in use: the old life did not live to tell.

    With the adoption: who waited for its VG goes on now, and asks who uses its LVs (`commands.in_use`)."""
    facts: list[Fact] = []
    for one in shown if state.protocol >= SHOWN_IS_USED else ():
        lock = _lock(state, life.node, one)
        if lock is not None and lock.flags & Flag.AHEAD:
            facts += lock_busy(state, life, entries.LockBusy(one.lockspace, one.resource))
    return facts


def _why_not(state: ClusterState, life: Life, victims: list[Victim], shown: Sequence[OpenLock]) -> str:
    if len(victims) != 1:
        return "no life of it is remembered" if not victims else "more than one life of it must be fenced"
    (old,) = victims
    if not (old.life.same_boot(life) and old.life.incarnation < life.incarnation):
        return f"{old.life}, which must be fenced, is not an earlier life of this boot"
    if old.lied or old.evidence:
        return f"{old.life} was given up"
    if old.due or old.number:
        return f"the grace of {old.life} has lapsed"
    for one in shown:
        if one.lockspace not in old.lockspaces or not _holds(state, life.node, one):
            return f"it does not hold the lock {one.lockspace}/{one.resource} {one.mode.name} {one.token}"
    return ""


def _holds(state: ClusterState, node: int, one: OpenLock) -> bool:
    """A path is open only while its lock is held without a break.  The lock may be stronger than the
    path needs, and converted since: then its token is newer."""
    lock = _lock(state, node, one)
    if lock is None or lock.token is None:
        return False
    return covers(lock.held, one.mode) and lock.token >= one.token


def _lock(state: ClusterState, node: int, one: OpenLock) -> Lock | None:
    space = state.lockspaces.get(one.lockspace)
    resource = space.resources.get(one.resource) if space is not None else None
    return resource.find(node) if resource is not None else None
