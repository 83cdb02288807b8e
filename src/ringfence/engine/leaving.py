"""Leaving the cluster cleanly: close every volume, let go of every lock, say goodbye.

Only who has done all of that is cleanly out; anything less is a victim to the others, and rightly."""

from collections.abc import Callable, Sequence

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


def leave(locks: Sequence[int], take_away: Callable[[str], int] | None = None) -> Command:
    """Whoever still uses a lock is found out while nothing is closed yet; unless it is taken away.

    Args:
        locks: this node's persistent locks (activations).
        take_away: takes all locks in a lockspace from their clients, who are told; the number of them.
    """
    lost = 0
    joined: tuple[str, ...] = yield Joined()
    if take_away is None:
        yield GiveBack(joined, for_good=True)
    volumes: tuple[OpenVolume, ...] = yield OpenPaths()
    for volume in volumes:
        yield ClosePath(volume.vg, volume.lv)
    for lock in locks:
        yield Release(lock)
    joined = yield Joined()
    for lockspace in joined:
        if take_away is not None:
            lost += take_away(lockspace)
        yield LeaveLockspace(lockspace, for_good=True)
    yield SayGoodbye()
    closed = [f"{one.vg}/{one.lv}" for one in volumes]
    return {"message": "left the cluster", "closed": closed, "lost": lost}
