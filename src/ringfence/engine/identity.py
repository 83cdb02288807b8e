"""Whose a node id is: the machine that joined first, and what tells a clone from it.

A life is told by a machine and a boot of it; that an old boot is over because a new one runs holds for one
machine only.  So a node id belongs to the machine that joined under it first: its machine-id, and its board's
UUID where that can be read, which a copied disk does not bring along.  It belongs to another machine only
after a person has said so (`node re-enrol`).  Each node keeps on disk whose the ids are, for a state that
begins afresh."""

from collections.abc import Iterable, Mapping

from ringfence.core.ids import Epoch, Life
from ringfence.engine.state import ClusterState
from ringfence.wire import FENCING
from ringfence.wire.ring import Enrolled, Hardware

SHOWN = 8
"""So many characters of an identity tell it from others, for people."""


def why_not_this_machine(state: ClusterState, life: Life, hardware: Hardware) -> str:
    """Why the node may not join from this machine, with what to do about it; "": it may."""
    name, node = state.name(life.node), life.node
    cure = f"if {name} has another machine now: ringfence node re-enrol {name}"
    machine = state.enrolled.get(node, life.machine)
    if machine != life.machine:
        return (
            f"{name} came from another machine than the one that joined first (machine-id "
            f"{life.machine[:SHOWN]}, not {machine[:SHOWN]}): refused; {cure}"
        )
    if state.protocol < FENCING:
        return ""
    for other, theirs in sorted(state.enrolled.items()):
        if other != node and theirs == life.machine:
            return (
                f"{name}'s disk was cloned from {state.name(other)}, or the other way round: both have the "
                f"machine-id {theirs[:SHOWN]}; on {name}: rm /etc/machine-id; systemd-machine-id-setup; "
                f"reboot; if it was {state.name(other)} before: ringfence node re-enrol {state.name(other)}"
            )
    board = state.boards.get(node, "")
    if board and hardware.board and board != hardware.board:
        return (
            f"{name} has its machine-id {life.machine[:SHOWN]} and another board (DMI UUID "
            f"{hardware.board[:SHOWN]}, not {board[:SHOWN]}): its disk, or a copy of it, runs in another "
            f"machine; refused; if its board was replaced: ringfence node re-enrol {name}"
        )
    return ""


def enrol(state: ClusterState, life: Life, hardware: Hardware) -> None:
    """The life is let in: from now on the node id is its machine's."""
    state.enrolled[life.node] = life.machine
    if state.protocol < FENCING:
        return
    if hardware.board:
        state.boards[life.node] = hardware.board
    state.virtual.pop(life.node, None)
    if hardware.hypervisor:
        state.virtual[life.node] = hardware.hypervisor


def remembered(words: Mapping[int, tuple[Epoch, Iterable[Enrolled]]]) -> dict[int, Enrolled]:
    """Whose the node ids are, for a state that begins afresh.

    Args:
        words: of each member the highest epoch that its disk knows, and whose the ids were then.  Who was
            there last knows best."""
    found: dict[int, Enrolled] = {}
    for _, known in sorted(((epoch, -node), tuple(known)) for node, (epoch, known) in words.items()):
        found |= {one.node: one for one in known}
    return found


def re_enrol(state: ClusterState, known: Enrolled) -> None:
    """A state that begins afresh takes over whose a node id was."""
    state.enrolled[known.node] = known.machine
    if known.board:
        state.boards[known.node] = known.board
    if known.hypervisor:
        state.virtual[known.node] = known.hypervisor


def to_keep(state: ClusterState) -> tuple[Enrolled, ...]:
    """For this node's disk."""
    return tuple(
        Enrolled(node, machine, state.boards.get(node, ""), state.virtual.get(node, ""))
        for node, machine in sorted(state.enrolled.items())
    )
