"""Which VGs have disk slots, and which victims' marks are on them: the part of it that all agree on.

A VG is *gated* from the first word of a node that keeps a slot there: from then on the locks in its
lockspace move from a victim only after the mark is on the disk, for the victim may write by the word of its
unmarked slot (`engine.slots`).  Whoever relies on that is sure of the other node's gate: a node uses its
slot only if the other one has said that it keeps one, too, and what a node has said is applied before all
that it says later, on whatever side of a partition.  So a gate is not lifted when nodes leave their slots,
but only with the VG itself.

One broken array keeps its own lockspace frozen and no other one: a victim can be given up in some lockspaces
before it is in others (`losses`).

Source: the safety model; without a mark before the purge it finds two writers in 13 steps."""

from ringfence.core.ids import Life
from ringfence.engine.facts import Fact, Noted
from ringfence.engine.losses import expose
from ringfence.engine.state import ClusterState
from ringfence.wire import entries


def kept(state: ClusterState, life: Life, entry: entries.SlotsKept) -> list[Fact]:
    first = entry.vg not in state.slots
    state.slots[entry.vg] = sorted({*state.slots.get(entry.vg, []), life.node})
    state.slots_ending = [vg for vg in state.slots_ending if vg != entry.vg]
    if not first:
        return []
    what = f"VG {entry.vg} has disk slots: its locks move only after a lost node is marked there"
    return [Noted("slots", what, {"vg": entry.vg, "node": life.node})]


def left(state: ClusterState, life: Life, entry: entries.SlotsLeft) -> list[Fact]:
    _leave(state, entry.vg, life.node)
    return []


def ending(state: ClusterState, life: Life, entry: entries.SlotsEnd) -> list[Fact]:
    if entry.vg in state.slots:
        state.slots_ending = sorted({*state.slots_ending, entry.vg})
        _leave(state, entry.vg, 0)
    return []


def gone(state: ClusterState, node: int) -> None:
    """The node has left the cluster cleanly."""
    for vg in sorted(state.slots):
        _leave(state, vg, node)


def _leave(state: ClusterState, vg: str, node: int) -> None:
    if vg not in state.slots:
        return
    state.slots[vg] = [one for one in state.slots[vg] if one != node]
    if vg in state.slots_ending and not state.slots[vg]:
        del state.slots[vg]
        state.marked.pop(vg, None)
        state.slots_ending = [one for one in state.slots_ending if one != vg]


def marked(state: ClusterState, life: Life, entry: entries.Marked) -> list[Fact]:
    victim = state.domain.victim(entry.life)
    if victim is None or entry.vg not in state.slots or not state.domain.proven(victim):
        return []
    lives = state.marked.get(entry.vg, [])
    if entry.life in lives:
        return []
    state.marked[entry.vg] = sorted([*lives, entry.life])
    name = state.name(entry.life.node)
    what = f"{name} is marked as fenced on VG {entry.vg}, by {state.name(life.node)}"
    return [Noted("marked", what, {"node": entry.life.node, "life": str(entry.life), "vg": entry.vg})]


def seen(state: ClusterState, life: Life, entry: entries.LifeSeen) -> list[Fact]:
    """Not once a later boot was let in: whoever looked at the disk did so before that, and to fence the node
    for it would hit the later boot."""
    if entry.life.node in state.lives:
        return []
    return expose(state, entry.life, entry.how)
