"""Lock names, and the lock value block (LVB) of a VG, as lvmlockd has them.

Lockspace lvm_global, resource GLLK: which VGs and PVs there are.  Lockspace lvm_VG, resource VGLK:
the VG's metadata; one resource for each LV, named by its uuid: who uses it.

LVB, 32 bytes, little-endian: version u16 (0x0101), flags u16 (1 = the VG was removed), r_version u32
(a VG's seqno, or a counter), then our own: CRC u32 of the metadata text (0 = whoever wrote it did
not say), the rest zero.  An LVB that is not valid means that the last holder may have been stopped
in the middle of a change.

Source: LVM2 daemons/lvmlockd/lvmlockd-dlm.c, lvmlockd-internal.h (struct val_blk)."""

import struct
from collections.abc import Generator
from typing import Any

import msgspec

from ringfence.core.errors import Damaged, LocksLost, RingfenceError
from ringfence.core.locknames import GLOBAL_SPACE, VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine.commands.disks import find_vg
from ringfence.engine.orders import (
    Acquire,
    ClosePath,
    Held,
    Identity,
    Joined,
    JoinLockspace,
    Order,
    Release,
    SeqnoHeard,
    Whoami,
)
from ringfence.volumes.access import check_ours
from ringfence.volumes.discovery import Disks, VgOnDisk
from ringfence.volumes.model import Vg

GLOBAL_RESOURCE = "GLLK"
VG_RESOURCE = "VGLK"
REMOVED = 1

_LVB = struct.Struct("<HHII")
_LVB_BYTES = 32
_LVB_VERSION = 0x0101


def space_of(vg: str) -> str:
    """A VG's lockspace."""
    return f"{VG_SPACE}{vg}"


class Version(msgspec.Struct, frozen=True):
    """What a value block says."""

    number: int
    crc: int = 0
    removed: bool = False


def print_lvb(version: Version) -> bytes:
    flags = REMOVED if version.removed else 0
    return _LVB.pack(_LVB_VERSION, flags, version.number & 0xFFFFFFFF, version.crc).ljust(_LVB_BYTES, b"\0")


REMOVED_LVB = print_lvb(Version(0, removed=True))


def parse_lvb(lvb: bytes | None) -> Version | None:
    """None: not valid, never written, or of a version that is not known."""
    if lvb is None or len(lvb) < _LVB.size:
        return None
    version, flags, number, crc = _LVB.unpack_from(lvb)
    if version >> 8 != _LVB_VERSION >> 8:
        return None
    return Version(number, crc, bool(flags & REMOVED))


def join(space: str) -> Generator[Order, Any, None]:
    """Join a lockspace, unless this node is in it."""
    joined: tuple[str, ...] = yield Joined()
    if space not in joined:
        yield JoinLockspace(space)


def lock_global() -> Generator[Order, Any, Held]:
    """Lock the set of VGs and PVs against other changes of it."""
    yield from join(GLOBAL_SPACE)
    held: Held = yield Acquire(GLOBAL_SPACE, GLOBAL_RESOURCE, Mode.EX, what="the global lock")
    return held


def unlock_global(held: Held) -> Generator[Order, Any, None]:
    """After a change: count it."""
    version = parse_lvb(held.lvb) or Version(0)
    yield Release(held.lock, print_lvb(Version(version.number + 1)))


class LockedVg(msgspec.Struct, frozen=True):
    """A VG under its lock, read after the lock was granted."""

    held: Held
    disks: Disks
    found: VgOnDisk
    me: Whoami


def lock_vg(
    name: str, mode: Mode, wait_ms: int | None = None, uuid: str = ""
) -> Generator[Order, Any, LockedVg]:
    """Lock a shared VG of this cluster and read it.  Its lockspace is joined first, if need be.

    Args: uuid: of the one that is meant, where another VG may have the same name.

    Raises NotFound, Damaged, Refused (not ours), and what Acquire raises."""
    me: Whoami = yield Identity()
    joined: tuple[str, ...] = yield Joined()
    if space_of(name) not in joined:
        _, found = yield from find_vg(name, uuid)
        check_ours(found.vg, me.cluster)
        yield JoinLockspace(space_of(name))
    held: Held = yield Acquire(space_of(name), VG_RESOURCE, mode, wait_ms, what=f"VG {name}")
    try:
        disks, found = yield from find_vg(name, uuid)
        check_ours(found.vg, me.cluster)
    except RingfenceError as error:
        yield from undo(error, Release(held.lock))
        raise
    return LockedVg(held, disks, found, me)


def check_newest(locked: LockedVg) -> Generator[Order, Any, None]:
    """A device that this host does not see, or reads differently, may hold a later version, in which extents
    are another LV's: then neither is the VG changed nor a path opened by the older one.

    Raises Damaged."""
    vg = locked.found.vg
    known = parse_lvb(locked.held.lvb)
    if known is not None and not known.removed and known.number > vg.seqno and not _only_announced(known, vg):
        raise Damaged(
            f"VG {vg.name} on disk is version {vg.seqno}, but version {known.number} was committed",
            next="look for a device that this host reads differently; if a backup was restored: "
            f"vgchange --lockstop {vg.name} on every host, then --lockstart",
        )
    if locked.found.missing and (heard := (yield SeqnoHeard(vg.name))) > vg.seqno:
        raise Damaged(
            f"VG {vg.name} on the disks that are here is version {vg.seqno}, but {heard} was committed",
            next="make one of the missing devices visible that has it: [devices] paths; "
            f"if they are gone for good: lvm vgreduce --removemissing {vg.name}",
        )


def _only_announced(known: Version, vg: Vg) -> bool:
    """Whether the value block may be a stock command's that failed before its commit: LVM2 says the new
    version after the pre-commit, and lets go of the lock whatever becomes of it."""
    return known.crc == 0 and known.number == vg.seqno + 1


def undo(error: RingfenceError, *orders: Order) -> Generator[Order, Any, bool]:
    """Take back what a failed command had done.  The first error is the one to report.

    What is not known to be closed keeps its lock: after a ClosePath that failed nothing more is taken
    back.  After LocksLost there is nothing to take back: locks and data paths are gone already.

    Returns whether it came to the end."""
    if isinstance(error, LocksLost):
        return False
    for order in orders:
        try:
            yield order
        except LocksLost:
            return False
        except RingfenceError:
            if isinstance(order, ClosePath):
                return False
    return True


def fresh_uuids(count: int) -> Generator[Order, Any, tuple[Whoami, list[str]]]:
    """This node's identity, and random uuids with it (32 characters, no dashes)."""
    me: Whoami = yield Identity()
    uuids = list(me.uuid_seeds)
    while len(uuids) < count:
        more: Whoami = yield Identity()
        uuids += more.uuid_seeds
    return me, uuids
