"""Leaving the cluster cleanly: close every volume, let go of every lock, say goodbye.

Only who has done all of that is cleanly out; anything less is a victim to the others, and rightly."""

from collections.abc import Sequence

from ringfence.engine.orders import (
    ClosePath,
    Command,
    GiveBack,
    Joined,
    LeaveLockspace,
    OpenPaths,
    OpenVolume,
    Release,
    SayGoodbye,
)


def leave(locks: Sequence[int]) -> Command:
    """Args: locks: this node's persistent locks (activations).

    Whoever still uses a lock is found out while nothing is closed yet."""
    joined: tuple[str, ...] = yield Joined()
    yield GiveBack(joined, for_good=True)
    volumes: tuple[OpenVolume, ...] = yield OpenPaths()
    for volume in volumes:
        yield ClosePath(volume.vg, volume.lv)
    for lock in locks:
        yield Release(lock)
    joined = yield Joined()
    for lockspace in joined:
        yield LeaveLockspace(lockspace, for_good=True)
    yield SayGoodbye()
    return {"message": "left the cluster", "closed": [f"{one.vg}/{one.lv}" for one in volumes]}
