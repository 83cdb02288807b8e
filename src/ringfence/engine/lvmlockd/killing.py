"""lvmlockctl --kill and --drop: an admin says that a VG's LVs must stop on this host, then that they have.

lvmlockd has them for sanlock, whose leases can be lost while LVs are in use.  Here they are an admin's:
*kill* cuts the device-mapper tables of the VG that LVM2 has made, so that nothing is written through them any
more, and gives no lock in it until *drop*, which lets go of the VG's locks and stops it here.  Drop is
refused while a table stands, a command is at work in the VG, or ringfence's own path is open there: a lock
may only go when nobody can write under it.

Source: LVM2 daemons/lvmlockd/lvmlockd-core.c (lockspace_thread_main, process_op_during_kill);
lvmlockctl(8)."""

from collections.abc import Generator
from typing import Any

from ringfence.core.errors import Refused
from ringfence.core.listed import listed
from ringfence.engine.commands.locking import space_of
from ringfence.engine.locker import Locker
from ringfence.engine.orders import Command, CutTables, LeaveLockspace, Order, Release, StandingTables
from ringfence.wire.lvmlockd import LvmAsked

REFUSED = ("lock_vg", "lock_lv", "rename_vg_before", "rename_vg_final", "query_lock_vg",
           "query_lock_lv", "find_free_lock")  # fmt: skip
NAMED = 5
"""So many of a long list are named."""


def is_refused(asked: LvmAsked) -> bool:
    """Whether a killed VG does not allow it: what ends something is allowed; so is vg_update, for its command
    goes on to commit whatever it is told, under the VG's lock that it has."""
    return asked.op in REFUSED and asked.mode != "un"


def kill(vg: str) -> Command:
    """Raises Refused if a table stands all the same; Unavailable if that cannot be known."""
    left: tuple[str, ...] = yield CutTables((vg,))
    if left:
        raise Refused(
            f"tables of VG {vg} stand though they were cut: {listed(left, NAMED)}",
            next=f"dmsetup wipe_table, then lvmlockctl --drop {vg}",
        )
    return None


def drop(vg: str, locker: Locker) -> Command:
    """Raises Refused, with nothing done, while somebody could write there; Unavailable: that is not known."""
    yield from _check(vg, locker)
    space = space_of(vg)
    for use in [use for use in locker.persistent() if use.by_lvm2 and use.lockspace == space]:
        yield Release(use.lock)
    yield LeaveLockspace(space)
    return None


def _check(vg: str, locker: Locker) -> Generator[Order, Any, None]:
    uses = [use for use in locker.uses() if use.lockspace == space_of(vg)]
    own = list(dict.fromkeys(use.what for use in uses if not use.by_lvm2))
    if own:
        raise Refused(
            f"VG {vg} is in use here through ringfence: {listed(own, NAMED)}",
            next=f"ringfence lvchange -an {vg}",
        )
    transient = [use for use in uses if use.held is None or not locker.is_persistent(use.lock)]
    working = list(dict.fromkeys(use.owner.who if use.owner else use.what for use in transient))
    if working:
        words = f"commands are at work in VG {vg}: {listed(working, NAMED)}"
        raise Refused(words, next="end them, then try again")
    standing: tuple[str, ...] = yield StandingTables((vg,))
    if standing:
        raise Refused(
            f"LVs of VG {vg} are active here: {listed(standing, NAMED)}",
            next=f"lvm vgchange -an {vg}, or lvmlockctl --kill {vg}",
        )
