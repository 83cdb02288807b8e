"""Votes and majorities."""

import pytest

from ringfence.core.cluster import ClusterConfig, NodeConfig
from ringfence.membership.quorum import is_primary, votes_of


def cluster(*votes: int, two_node: bool = False) -> ClusterConfig:
    nodes = tuple(NodeConfig(id, f"n{id}", votes=count) for id, count in enumerate(votes, 1))
    return ClusterConfig("c", two_node=two_node, nodes=nodes)


@pytest.mark.parametrize(
    ("votes", "members", "primary"),
    [
        ((1, 1, 1), (1, 2), True),
        ((1, 1, 1), (1,), False),
        ((1, 1, 1), (), False),
        ((1, 1, 1, 1), (1, 2), False),  # half is no majority
        ((1, 1, 1, 1), (1, 2, 3), True),
        ((3, 1, 1), (1,), True),
        ((3, 1, 1), (2, 3), False),
        ((1, 1, 1), (1, 9, 8), False),  # strangers do not vote
        ((1, 1, 1), (1, 1, 1), False),  # nor does anyone twice
        ((0, 1, 1), (1, 2), False),
        ((1,), (1,), True),
    ],
)
@pytest.mark.parametrize("state", [False, True])
def test_a_majority_of_all_configured_votes(votes, members, primary, state):
    assert is_primary(cluster(*votes), members, state) is primary


@pytest.mark.parametrize(
    ("members", "state", "primary"),
    [
        ((1,), True, True),
        ((2,), True, True),
        ((1,), False, False),  # alone without state: it cannot know what its peer holds
        ((1, 2), False, True),
        ((1, 2), True, True),
        ((), True, False),
        ((9,), True, False),
        ((1, 9), False, False),
    ],
)
def test_one_of_two_is_enough_with_state(members, state, primary):
    assert is_primary(cluster(1, 1, two_node=True), members, state) is primary


def test_votes():
    assert votes_of(cluster(2, 3, 5), (1, 3, 7)) == 7
