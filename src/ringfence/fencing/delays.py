"""Who is shot later, where two nodes fence each other.

After a partition both halves of two nodes fence, and the faster device would decide.  Two delays decide
instead, each before the first attempt on a victim only:

- static: `fence_delay_ms` of the node that is to win;
- by priority: `priority_delay_ms` for the half that had more at stake in the last state that both had in
  common.  Both halves compute it from that state, so both find the same one; where the stakes are equal, the
  lower id wins.  Not where a majority is left: what was lost cannot act then, and waiting gains nothing.

Source: Pacemaker's pcmk_delay_base and priority-fencing-delay, and that they add up."""

from collections.abc import Collection, Mapping

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.ids import Life

DECIDING_MS = 5000
"""For who has no other wish: in this time the half that does not wait has called the other one off."""


class Delay(msgspec.Struct, frozen=True):
    delay_ms: int
    why: str
    """For people."""


def stakes_decide(config: ClusterConfig, lost: Collection[int], left: Collection[int]) -> bool:
    """Whether it matters what was at stake: a majority that is left never waits."""
    votes = sum(node.votes for node in config.nodes if node.id in left)
    return bool(config.timing.priority_delay_ms and lost) and votes < config.majority


def favours_lost(
    config: ClusterConfig, stakes: Mapping[int, int], lost: Collection[int], left: Collection[int]
) -> bool:
    """Whether those who were lost are to be shot later.

    Args:
        stakes: node -> what it has at stake; a node that is not named has nothing.
        lost: nodes that were lost in a view, of those who were ready before.
        left: those that are left.
    """
    if not stakes_decide(config, lost, left):
        return False
    theirs, ours = (sum(stakes.get(node, 0) for node in side) for side in (lost, left))
    return theirs > ours or (theirs == ours and min(lost) < min(left, default=0))


def shoots_at_once(config: ClusterConfig) -> bool:
    """Whether two nodes that lose each other fence one another at the same time: both may die of it."""
    if not config.two_node or not all(node.levels for node in config.nodes):
        return False
    if config.timing.priority_delay_ms or len({node.fence_delay_ms for node in config.nodes}) > 1:
        return False
    first = [config.device(name) for node in config.nodes for name in node.levels[0].names]
    return not any(device.parameters.get("delay", "").strip("0.") for device in first)  # the agent waits


def delays_of(config: ClusterConfig, life: Life, favoured: Collection[Life]) -> tuple[Delay, ...]:
    """What whoever fences this life waits for first; they add up."""
    node = next((node for node in config.nodes if node.id == life.node), None)
    found = []
    if node is not None and node.fence_delay_ms:
        found.append(Delay(node.fence_delay_ms, f"fence_delay_ms of {node.name}"))
    if life in favoured and config.timing.priority_delay_ms:
        found.append(Delay(config.timing.priority_delay_ms, "priority delay, for it had more at stake"))
    return tuple(found)
