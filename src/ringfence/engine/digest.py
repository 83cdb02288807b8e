"""The digest of the ordered state, which is equal on all nodes at equal positions."""

import msgspec

from ringfence.core.digest import digest_of
from ringfence.engine.state import ClusterState


def digest_of_state(state: ClusterState) -> str:
    """Of a state with any number of locks, at once: their sums are kept up to date by `locks.table`."""
    spaces = [
        (name, space.members, space.joining, list(space.deferred.values()), space.resources.digest())
        for name, space in sorted(state.lockspaces.items())
    ]
    return digest_of((msgspec.structs.replace(state, lockspaces={}), spaces))
