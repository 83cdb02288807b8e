"""Lockspaces: how stock commands start, stop and free them, as commands over `engine.orders`."""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ringfence.core.errors import Refused, RingfenceError
from ringfence.core.locknames import GLOBAL_SPACE, VG_SPACE
from ringfence.engine.commands.disks import find_vg
from ringfence.engine.commands.locking import REMOVED_LVB, space_of
from ringfence.engine.commands.slots import note_slots
from ringfence.engine.orders import Command, Identity, JoinLockspace, LeaveLockspace, Release, Whoami


class Spaces(NamedTuple):
    """How the locks have a lockspace started."""

    start: Callable[[str], None]
    """Join one."""
    starts: Callable[[str], bool]
    """Whether this node is about to be in it."""


def start(space: str) -> Command:
    """Join, then look where the VG's disk slots are; what the disks do not tell now, they tell later."""
    yield JoinLockspace(space)
    if space == GLOBAL_SPACE:
        return None
    with suppress(RingfenceError):
        me: Whoami = yield Identity()
        _, found = yield from find_vg(space.removeprefix(VG_SPACE))
        yield from note_slots([found], me)
    return None


def stop(vgs: list[str], others: RingfenceError | None = None) -> Command:
    """Leave their lockspaces.  Raises Refused while anybody uses a lock there; else `others`, if given."""
    for vg in vgs:
        yield LeaveLockspace(space_of(vg))
    if others is not None:
        raise others
    return None


def free(vg: str, lock: int) -> Command:
    """The VG is gone: say so to whoever waits for its lock, and leave."""
    if lock:
        yield Release(lock, REMOVED_LVB)
    with suppress(Refused):  # an empty lockspace does no harm
        yield LeaveLockspace(space_of(vg))
    return None
