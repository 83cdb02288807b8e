"""Leaving the cluster cleanly: close every volume, let go of every lock, say goodbye.

Only who has done all of that is cleanly out; anything less is a victim to the others, and rightly.

What stock LVM2 has active is not ours to close: whoever leaves has LVM2 deactivate it first.  An LV of
which device-mapper has no table (LVM2 was told to activate nothing) is a lock and no more, and is let go."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

from ringfence.core.errors import Refused
from ringfence.core.listed import listed
from ringfence.core.locknames import VG_SPACE
from ringfence.engine.orders import (
    Active,
    ClosePath,
    Command,
    GiveBack,
    HoldOff,
    Joined,
    LeaveLockspace,
    OpenPaths,
    OpenVolume,
    Order,
    Release,
    SayGoodbye,
    StandingTables,
)

NAMED = 5
"""So many of a long list are named to people."""


def leave(take_away: Callable[[str], int] | None = None) -> Command:
    """Whoever still uses a lock is found out while nothing is closed yet; unless it is taken away.

    Args:
        take_away: takes all locks in a lockspace from their clients, who are told; the number of them.
    """
    lost = 0
    joined: tuple[str, ...] = yield Joined()
    if take_away is None:
        yield GiveBack(joined, for_good=True)
    active: tuple[Active, ...] = yield HoldOff(joined)
    yield from refuse_tables(active)
    volumes: tuple[OpenVolume, ...] = yield OpenPaths()
    for volume in volumes:
        yield ClosePath(volume.vg, volume.lv, volume.uuid)
    for one in active:
        yield Release(one.lock)
    joined = yield Joined()
    for lockspace in joined:
        if take_away is not None:
            lost += take_away(lockspace)
        yield LeaveLockspace(lockspace, for_good=True)
    yield SayGoodbye()
    closed = [f"{one.vg}/{one.lv}" for one in volumes]
    return {"message": "left the cluster", "closed": closed, "lost": lost}


def refuse_tables(active: Sequence[Active]) -> Generator[Order, Any, None]:
    """Raises Refused while device-mapper has a table of a VG in which LVM2 has an LV active."""
    vgs = [one.lockspace.removeprefix(VG_SPACE) for one in active if one.by_lvm2]
    if not vgs:
        return
    standing: tuple[str, ...] = yield StandingTables(tuple(dict.fromkeys(vgs)))
    if standing:
        raise Refused(
            f"{listed(standing, NAMED)} is active here through LVM2, which no force will close",
            next="; ".join(f"lvm vgchange -an {vg}" for vg in dict.fromkeys(vgs)),
            retry=True,
        )
