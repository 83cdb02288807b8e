"""Activation: this node holds an LV's lock, and a data path to it is open.

The order is always: lock, then read where the LV is, then open; and back: close, which flushes and
reaps, then unlock.

What whoever holds an LV's lock, in whatever mode, may trust of its metadata: what the LV is made of stays
so, extent by extent, and may be written or not.  To take an extent away, to put it elsewhere or to take
the access away needs the LV's lock EX, and the path on that host closed or reloaded before the commit.

Under the VG's lock alone what takes nothing away may be changed, also while the LV is in use anywhere:
extents are appended, it gets another name, other tags, another policy, or may be written where it might
not be.  Who has it open then hears of the new version, and reloads its path (`refreshes`); until then it
goes on with less than it could have, under the old name."""

import contextlib
from collections.abc import Collection, Generator
from typing import Any

import msgspec

from ringfence.core.errors import BadInput, LocksLost, NotFound, Refused, RingfenceError
from ringfence.core.modes import EX, Mode
from ringfence.engine.commands.disks import find_vg
from ringfence.engine.commands.locking import LockedVg, check_newest, lock_vg, space_of, undo
from ringfence.engine.commands.sharing import check_shareable
from ringfence.engine.commands.wiping import await_zeroed
from ringfence.engine.orders import (
    Acquire,
    ClosePath,
    Convert,
    FindLock,
    Handovers,
    Held,
    OnItsWay,
    Opened,
    OpenPath,
    OpenPaths,
    OpenVolume,
    Order,
    Pause,
    Release,
)
from ringfence.volumes.discovery import VgOnDisk, check_twins
from ringfence.volumes.model import SECTOR_BYTES, Lv, Stripe, Vg
from ringfence.volumes.plan import check_plain, find_lv
from ringfence.wire.block import NO_HOLD, Extent, Hold, Place, Plane

_MODES = {"ey": Mode.EX, "sy": Mode.PR, "n": Mode.UN}
_NAMES = {mode: name for name, mode in _MODES.items()}
VG_WAIT_MS = 5000
"""How long a command that must not wait for an LV still waits for its VG: changes are short."""

GIVE_WAY_MS = 15_000
"""How long who zeroes or wipes an LV may take to let go of it: a slice, and a last commit."""
LOOKS, LOOK_AGAIN_MS = 6, 100
"""At an LV that is to be removed, until it counts as in use."""


def mode_named(activate: str) -> Mode:
    """ey | sy | n.  Raises BadInput."""
    if activate not in _MODES:
        raise BadInput(f"activation {activate!r} is not known", next="give ey, sy or n")
    return _MODES[activate]


def vg_wait(wait_ms: int | None) -> int | None:
    return None if wait_ms is None else max(wait_ms, VG_WAIT_MS)


Bases = dict[str, Place]
"""PV's name in the metadata -> where its first extent is."""


def extents_of(found: VgOnDisk, lv: Lv, bases: Bases | None = None) -> tuple[Extent, ...]:
    """A linear or striped LV as pieces of devices; what is missing has no path (`wire.block.Place`), where
    `found` may be partial.

    Args: bases: of PVs that were looked at by now, for who asks about thousands of LVs of `found`.

    Raises NotFound (a PV is missing), Refused (it was), Damaged (it is there twice)."""
    assert lv.plain
    bases = {} if bases is None else bases
    extent_bytes = found.vg.extent_bytes
    extents = []
    for segment in lv.segments:
        length, stripe = segment.extent_count * extent_bytes, segment.stripes[0]
        base = bases.get(stripe.pv) or _base(found, lv, stripe.pv, bases)
        start_bytes = base.start_bytes + stripe.start_extent * extent_bytes
        if len(segment.stripes) == 1:
            extents.append(Extent(base.path, start_bytes, length))
            continue
        beside = [_place(found, lv, stripe, extent_bytes, bases) for stripe in segment.stripes[1:]]
        striped = segment.stripe_sectors * SECTOR_BYTES
        extents.append(Extent(base.path, start_bytes, length, tuple(beside), striped))
    return tuple(extents)


def _place(found: VgOnDisk, lv: Lv, stripe: Stripe, extent_bytes: int, bases: Bases) -> Place:
    base = bases.get(stripe.pv) or _base(found, lv, stripe.pv, bases)
    return Place(base.path, base.start_bytes + stripe.start_extent * extent_bytes)


def _base(found: VgOnDisk, lv: Lv, name: str, bases: Bases) -> Place:
    bases[name] = base = _looked_up(found, lv, name)
    return base


def _looked_up(found: VgOnDisk, lv: Lv, name: str) -> Place:
    vg = found.vg
    pv, have = vg.pv(name), found.pvs.get(name)
    assert pv is not None
    check_twins(found, (name,))
    start_bytes = pv.start_sectors * SECTOR_BYTES
    if found.partial and name in found.lost:
        return Place("", start_bytes)
    if pv.missing and have is not None:
        raise Refused(
            f"Cannot activate {vg.name}/{lv.name}: PV {have.path} was missing; what it holds may be old",
            next=f"if it is current: vgextend --restoremissing {vg.name} {have.path}; without it: --partial",
        )
    if have is None:
        raise NotFound(
            f"Cannot activate {vg.name}/{lv.name}: PV {pv.uuid} (last seen as {pv.device}) is missing",
            next="make the device visible to this host: [devices] paths; for what is left of the LV: "
            f"lvchange -aey --partial {vg.name}/{lv.name} (what was on the PV fails)",
        )
    return Place(have.path, start_bytes)


def _locate(
    vg: str, name: str, wait_ms: int | None, partial: bool, *, zeroing: bool = False
) -> Generator[Order, Any, tuple[LockedVg, Lv]]:
    """Look an LV up under its VG's lock, which is let go again at once.

    Args: zeroing: it may be one that is being zeroed."""
    locked = yield from lock_vg(vg, Mode.PR, vg_wait(wait_ms))
    try:
        yield from check_newest(locked)
        lv = find_lv(locked.found.vg, name)
        check_plain(locked.found.vg, lv, unclean=zeroing and lv.zeroing)
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise
    yield Release(locked.held.lock)
    found = msgspec.structs.replace(locked.found, partial=partial)
    return msgspec.structs.replace(locked, found=found), lv


def activate(
    vg: str,
    name: str,
    mode: Mode,
    wait_ms: int | None,
    *,
    force: bool = False,
    partial: bool = False,
    disconnect: bool = False,
) -> Generator[Order, Any, dict[str, Any]]:
    """Lock and open.  An LV that is active in this mode already stays as it is,
    unless its path has failed: then it is opened anew.

    Args:
        wait_ms: also for one that is being zeroed.
        force: in shared mode, too, whatever is on it (`sharing`).
        partial: also if PVs of it are missing; what lies there fails.
        disconnect: to another mode though it is in use: the path is closed between the two.

    Raises LockHeld (names the holder), TimedOut, NotFound, Refused (not a linear or striped LV; not
    to be shared; in use in the other mode)."""
    if partial and mode is Mode.PR:
        raise BadInput("--partial is for one host alone", next=f"lvchange -aey --partial {vg}/{name}")
    locked, lv = yield from _locate(vg, name, wait_ms, partial, zeroing=wait_ms != 0)
    if lv.zeroing:
        wait_ms = yield from await_zeroed(vg, lv, wait_ms)
        locked, lv = yield from _locate(vg, name, wait_ms, partial)
    what = f"LV {vg}/{name}"
    mine: Held | None = yield FindLock(space_of(vg), lv.uuid)
    check_ours_to_use(mine, vg, name)
    yield from check_stays(vg, lv)
    if mine is not None and mine.mode is mode:
        volume = yield from find_open(vg, lv.uuid)
        if volume is not None and not volume.failed:
            return answer_of(vg, lv, mine, volume)
        if volume is not None:
            yield ClosePath(vg, volume.lv, lv.uuid)  # what is left of a path that has failed
        return (yield from _open(vg, lv, mine, wait_ms, partial))
    shares = mode is Mode.PR and not force
    if mine is not None:
        if shares:
            yield from check_shareable(vg, lv.name, extents_of(locked.found, lv))
        if not disconnect and (volume := (yield from find_open(vg, lv.uuid))) is not None:
            asked = f"-a{_NAMES[mode]}" + " --force" * force + " --partial" * partial
            yield from check_unused(volume, asked)
        return (yield from _change_mode(vg, lv, mine, mode, wait_ms, partial))
    held: Held = yield Acquire(space_of(vg), lv.uuid, mode, wait_ms, persistent=True, what=what)
    try:
        if shares:  # under the lock: nobody who may write it alone has it open
            yield from check_shareable(vg, lv.name, extents_of(locked.found, lv))
        return (yield from _open(vg, lv, held, wait_ms, partial))
    except RingfenceError as error:
        yield from undo(error, ClosePath(vg, name, lv.uuid, own=True), Release(held.lock))
        raise


def _change_mode(
    vg: str, lv: Lv, mine: Held, mode: Mode, wait_ms: int | None, partial: bool
) -> Generator[Order, Any, dict[str, Any]]:
    """Between EX and PR.  The path is closed while its lock is the weaker of the two.

    Raises what Convert raises; on the way from EX to PR the LV is not active any more then, so that nobody
    waits for what nobody here can use."""
    if mode > mine.mode:
        held: Held = yield Convert(mine.lock, mode, wait_ms)
        yield from close_path(vg, lv)
    else:
        yield from close_path(vg, lv)
        try:
            held = yield Convert(mine.lock, mode, wait_ms)
        except LocksLost:
            raise
        except RingfenceError as error:  # a frozen lockspace, say, in which the lock stays as it was
            # Not opened again: where the LV is may only be read under the VG's lock, which is frozen, too.
            yield from undo(error, Release(mine.lock))
            raise type(error)(
                f"{error.message}; {vg}/{lv.name} is not active here any more", node=error.node,
                next=error.next, retry=error.retry, code=error.code,
            ) from None  # fmt: skip
    try:
        return (yield from _open(vg, lv, held, wait_ms, partial))
    except RingfenceError as error:
        yield from undo(error, ClosePath(vg, lv.name, lv.uuid, own=True), Release(held.lock))
        raise


def _open(
    vg: str, lv: Lv, held: Held, wait_ms: int | None, partial: bool
) -> Generator[Order, Any, dict[str, Any]]:
    """Read the LV's extents now that nobody else can change them, and open the path."""
    locked, now = yield from _locate(vg, lv.name, wait_ms, partial)
    if now.uuid != lv.uuid:
        raise Refused(f"LV {vg}/{lv.name} was removed and made anew meanwhile", next="try again", retry=True)
    return (yield from open_path(locked.found, now, held))


def open_path(
    found: VgOnDisk, lv: Lv, held: Held, hold: Hold = Hold.NONE
) -> Generator[Order, Any, dict[str, Any]]:
    opened: Opened = yield open_order(found, lv, held, hold)
    return answer_of(found.vg.name, lv, held, opened)


def open_order(
    found: VgOnDisk, lv: Lv, held: Held, hold: Hold = Hold.NONE, bases: Bases | None = None
) -> OpenPath:
    """Args and errors as of `extents_of`."""
    shared = held.mode is not EX and hold is NO_HOLD
    return OpenPath(
        found.vg.name, lv.name, lv.uuid, extents_of(found, lv, bases), shared=shared, token=held.token,
        readonly=not lv.writable, seqno=found.vg.seqno, vg_uuid=found.vg.uuid, hold=hold,
    )  # fmt: skip


def answer_of(vg: str, lv: Lv, held: Held, path: Opened | OpenVolume) -> dict[str, Any]:
    return {
        "vg": vg,
        "name": lv.name,
        "uuid": lv.uuid,
        "mode": held.mode.name,
        "token": str(held.token),
        "path": path.path,
        "uri": path.uri,
    }


def find_open(vg: str, uuid: str) -> Generator[Order, Any, OpenVolume | None]:
    """An LV's open path: by uuid, for a path keeps the name that its LV had when it was opened."""
    volumes: tuple[OpenVolume, ...] = yield OpenPaths()
    return next((one for one in volumes if (one.vg, one.uuid) == (vg, uuid)), None)


def close_path(vg: str, lv: Lv) -> Generator[Order, Any, None]:
    yield ClosePath(vg, lv.name, lv.uuid)


def check_ours_to_use(mine: Held | None, vg: str, name: str) -> None:
    """An LV is active on a host through LVM2 or through a path of ours, never through both.

    Raises Refused if it is LVM2 that has it."""
    if mine is not None and mine.by_lvm2:
        raise Refused(
            f"Logical volume {vg}/{name} is active here through LVM2",
            next=f"deactivate it as it was activated: lvm lvchange -an {vg}/{name}",
        )


def check_stays(vg: str, lv: Lv) -> Generator[Order, Any, None]:
    """Raises Refused while the LV is being handed over: its lock may be weak for the sake of that alone."""
    ways: dict[str, OnItsWay] = yield Handovers(vg)
    way = ways.get(lv.uuid)
    if way is not None:
        giver, taker = way.names
        raise Refused(
            f"Logical volume {vg}/{lv.name} is being handed over from {giver} to {taker}",
            next=f"wait until it is; to drop that: on {giver}, ringfence handover {vg}/{lv.name} --abort",
            retry=True,
        )


def deactivate(vg: str, name: str, *, disconnect: bool = False) -> Generator[Order, Any, dict[str, Any]]:
    """Close, then unlock.  Needs no VG lock: letting go must be possible while a lockspace is frozen.

    Args: disconnect: though it is in use; that is cut off.

    Raises Refused if it is LVM2 that has it active, or it is in use."""
    volume, uuid = yield from _named(vg, name)
    mine: Held | None = yield FindLock(space_of(vg), uuid)
    check_ours_to_use(mine, vg, name)
    if volume is not None and not disconnect:
        yield from check_unused(volume)
    yield ClosePath(vg, volume.lv if volume is not None else name, uuid)
    if mine is not None:
        with contextlib.suppress(NotFound):  # another command has let go of it meanwhile
            yield Release(mine.lock)
    return {"vg": vg, "name": name, "uuid": uuid, "mode": Mode.UN.name, "was_active": mine is not None}


def _named(vg: str, name: str) -> Generator[Order, Any, tuple[OpenVolume | None, str]]:
    """The open path, if there is one, and the uuid of the LV that has this name; where the disks do not tell
    any more, of the one that had it when it was opened."""
    volumes: tuple[OpenVolume, ...] = yield OpenPaths()
    try:
        _, found = yield from find_vg(vg)
        uuid = find_lv(found.vg, name).uuid
    except LocksLost:
        raise
    except RingfenceError:
        volume = next((one for one in volumes if (one.vg, one.lv) == (vg, name)), None)
        if volume is None:
            raise
        return volume, volume.uuid
    return next((one for one in volumes if (one.vg, one.uuid) == (vg, uuid)), None), uuid


def is_connected(volume: OpenVolume) -> bool:
    """Whether to close it would cut somebody off.  A device is guarded by the kernel: while it is open
    it cannot be taken away."""
    return volume.connections > 0 and volume.plane is Plane.NBD


def check_unused(volume: OpenVolume, asked: str = "-an") -> Generator[Order, Any, None]:
    """Raises Refused while NBD clients are connected, as LVM2 does not deactivate what is open.

    Args: asked: as `in_use`."""
    if is_connected(volume) and (yield from used_here((volume.uuid,))):
        raise in_use(volume.vg, volume.lv, asked)


def in_use(vg: str, name: str, asked: str = "-an") -> Refused:
    """Args: asked: what lvchange was to do; what cuts the users off does that, too."""
    return Refused(
        f"Logical volume {vg}/{name} in use",
        next="end what uses it (ringfence status); or cut that off: "
        f"lvchange {asked} --disconnect {vg}/{name}",
    )


def used_here(uuids: Collection[str]) -> Generator[Order, Any, frozenset[str]]:
    """Which of these LVs somebody on this host uses: not only open, but connected to.

    Who has just gone may be counted for a moment yet: so it is looked again, as LVM2 does (lvm.conf(5),
    retry_deactivation).  Raises Unavailable: that is not known."""
    used: frozenset[str] = frozenset()
    for look in range(LOOKS):
        if look:
            yield Pause(LOOK_AGAIN_MS)
        volumes: tuple[OpenVolume, ...] = yield OpenPaths()
        used = frozenset(one.uuid for one in volumes if one.connections and one.uuid in uuids)
        if not used:
            break
    return used


def take_for_removal(
    vg: Vg, lv: Lv, *, force: bool | None, used: frozenset[str] = frozenset()
) -> Generator[Order, Any, int]:
    """EX on an LV that is to go; it waits for nobody but who zeroes or wipes it.  Answer: the lock, to
    be released after the commit.

    Args:
        force: also if it is active here.  None: no, and the command has no word that would do that.
        used: as `used_here`, where it is forced: scripts force by habit, and LVM2 would not remove it.

    Raises Refused if the LV is active here (unless forced, but always if LVM2 has it, or it is in use),
    LockHeld if it is elsewhere.  A path that is open here stays open: the caller closes it once nothing
    can be refused any more."""
    space = space_of(vg.name)
    mine: Held | None = yield FindLock(space, lv.uuid)
    if mine is None:
        wait_ms = GIVE_WAY_MS if lv.unclean else 0
        held: Held = yield Acquire(space, lv.uuid, Mode.EX, wait_ms, what=f"LV {vg.name}/{lv.name}")
        return held.lock
    check_ours_to_use(mine, vg.name, lv.name)
    if not force:
        raise Refused(
            f"Logical volume {vg.name}/{lv.name} is active here",
            next=f"lvchange -an {vg.name}/{lv.name}" + (", or use --force" if force is not None else ""),
        )
    if lv.uuid in used:
        raise in_use(vg.name, lv.name)
    if mine.mode is not Mode.EX:
        yield Convert(mine.lock, Mode.EX, 0)
    return mine.lock
