"""Quorum: do the members of a view hold enough configured votes to act?

Pure arithmetic over the configuration.  Only configured nodes vote, each once.  A majority is
counted against *all configured* votes, never against those who happened to be there before:
otherwise two halves could shrink their idea of the whole and both go on.

`two_node` is the one exception: one of two is enough, but only for a member that carries state.
A node without state that were primary alone would not know what its peer holds (the safety
model finds two writers in 17 steps).

Source: votequorum(5), "two_node" and "wait_for_all"."""

from collections.abc import Collection

from ringfence.core.cluster import ClusterConfig


def votes_of(config: ClusterConfig, members: Collection[int]) -> int:
    """Configured votes among `members`; ids that are not configured count nothing."""
    return sum(node.votes for node in config.nodes if node.id in members)


def is_primary(config: ClusterConfig, members: Collection[int], carries_state: bool) -> bool:
    """May a view of these members act?

    Args:
        members: those who take part in the view's barrier.
        carries_state: whether one of them carries the cluster's state.
    """
    if config.two_node:
        present = [node for node in config.nodes if node.id in members]
        return bool(present) if carries_state else len(present) == len(config.nodes) > 0
    return votes_of(config, members) >= config.majority
