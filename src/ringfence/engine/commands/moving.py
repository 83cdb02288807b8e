"""An LV goes to the extents that are kept for it, run by run (`volumes.moves`): the long work of pvmove.

It goes on under two locks, EX, and without the VG's: that of NAME_moving, so that one works at a time, and
the LV's own.  An LV that nobody has open is copied; one that is open here is mirrored under its clients
(`block.mirror`); one that is in use elsewhere, or otherwise, is left to whoever uses it.

After a crash or a freeze at each order of a step another host goes on, or this one:

    copied:               as before; that run is copied once more
    mirrored:             as before; the path goes on with both places until somebody goes on (`settled`), or
                          closes it.  So NAME_moving is not removed but under the LV's lock
    sealed:               likewise
    committed:            the LV is at its new place, and what it had is kept.  A path that is open writes to
                          both and is reloaded by whoever looks next (`reloads`, `settled`)
    reloaded:             likewise; what it had is free with the next commit, for whoever commits has the LV's
                          lock EX, and has seen that no path here uses it

A commit whose outcome is not known leaves the path sealed: both versions of the metadata are true of it."""

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from ringfence.core.errors import LockHeld, NotFound, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.activation import extents_of, find_open
from ringfence.engine.commands.commit import Change, begin, commit, prepare
from ringfence.engine.commands.locking import LockedVg, lock_vg, space_of, undo
from ringfence.engine.commands.reload import reload_changed, reload_order
from ringfence.engine.commands.zeroing import SLICE_BYTES, places
from ringfence.engine.orders import (
    Acquire,
    CopyBlocks,
    FindLock,
    Held,
    MirrorPath,
    NoteProgress,
    OpenVolume,
    Order,
    Pause,
    Release,
    SealPath,
    UnmirrorPath,
    Wanted,
)
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.moves import (
    Move,
    check_stock,
    given_up,
    kept,
    left_to_move,
    let_go,
    moved,
    moved_segment,
    next_move,
)
from ringfence.volumes.unclean import by_uuid, piece_of
from ringfence.wire.block import Extent, Plane

TAKE_MS = 3000
"""For NAME_moving's lock: who merely looks at it has it for a moment, who works on it gives way."""
VG_WAIT_MS = 10_000
"""Changes are short, and nobody who has the VG's lock waits for one of an LV that is being moved."""
POLL_MS = 200
STEP_LEAST_BYTES, STEP_MOST_BYTES, STEPS = 1 << 30, 16 << 30, 64
"""How much goes in one version of the metadata: a part of the LV, within limits."""

Told = Callable[[int], NoteProgress]
"""What to say when so many bytes of an LV have arrived since the work began."""


class Use(msgspec.Struct, frozen=True):
    """How this host has an LV that moves."""

    lock: Held | None
    """The activation's; None: it is not active here, and its lock is the command's own."""
    volume: OpenVolume | None


class _Work(msgspec.Struct):
    """One NAME_moving, and who works on it."""

    vg: str
    uuid: str
    keeper_lock: Held
    told: Told
    own: Held | None = None
    """The LV's lock, where it is not active here."""
    arrived_bytes: int = 0


def move_one(vg: str, uuid: str, name: str, wait_ms: int, told: Told) -> Generator[Order, Any, bool]:
    """Move an LV to what is kept for it.

    Args:
        uuid: of NAME_moving.
        name: for messages.
        wait_ms: how long to wait for its lock.

    Returns False: somebody else wants one of the locks, or this node ends; what has arrived, has.

    Raises LockHeld (another host has the LV, or works on it), Refused (it is active here in a way in which it
    cannot be moved), NotFound (a PV is missing), DeviceFailed, NoAuthority, TimedOut."""
    held: Held = yield Acquire(space_of(vg), uuid, Mode.EX, wait_ms, what=f"LV {vg}/{name}")
    work = _Work(vg, uuid, held, told)
    try:
        finished = yield from _run(work)
    except RingfenceError as error:
        yield from undo(error, *(Release(one.lock) for one in (work.own, held) if one is not None))
        raise
    for one in (work.own, held):
        if one is not None:
            yield Release(one.lock)
    return finished


def _run(work: _Work) -> Generator[Order, Any, bool]:
    while True:
        found = yield from newest(work.vg)
        keeper = by_uuid(found.vg, work.uuid)
        if keeper is None or not keeper.keeps_for:
            return True
        check_stock(found.vg)
        had = work.own
        use = yield from _taken(work, found.vg, keeper)
        if work.own is not had or (yield from settled(found, keeper, use)):
            continue  # as it was read before that, it need not be now
        move = next_move(found.vg, keeper, _most(found.vg, keeper))
        if move is None:
            if (yield from _ended(work)):
                return True
            continue
        if (yield from _wanted(work)):
            return False
        before = work.arrived_bytes
        if use.volume is None:
            goes_on = yield from _copied(work, found, move)
            changed = goes_on and (yield from _committed(work, move))
        else:
            goes_on = yield from _mirrored(work, found, move, use)
            changed = goes_on and (yield from _swapped(work, move, use))
        if not goes_on:
            return False
        work.arrived_bytes = before + (_bytes(found.vg, move) if changed else 0)


def newest(vg: str) -> Generator[Order, Any, VgOnDisk]:
    """The VG as it was committed last, checked as if it were to be changed."""
    locked = yield from lock_vg(vg, Mode.PR, VG_WAIT_MS)
    try:
        yield from begin(locked)
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise
    yield Release(locked.held.lock)
    return locked.found


def _most(vg: Vg, keeper: Lv) -> int:
    step = left_to_move(vg, keeper) * vg.extent_bytes // STEPS
    return max(min(max(step, STEP_LEAST_BYTES), STEP_MOST_BYTES) // vg.extent_bytes, 1)


def _bytes(vg: Vg, move: Move) -> int:
    return move.source.extent_count * vg.extent_bytes


def _wanted(work: _Work) -> Generator[Order, Any, bool]:
    for one in (work.keeper_lock, work.own):
        if one is not None and (yield Wanted(one.lock)):
            return True
    return False


# -- who has the LV ------------------------------------------------------------------------


def _taken(work: _Work, vg: Vg, keeper: Lv) -> Generator[Order, Any, Use]:
    """See to it that this host has the LV's lock, EX."""
    lv = by_uuid(vg, keeper.keeps_for)
    name = f"{vg.name}/{lv.name if lv is not None else keeper.name}"
    space = space_of(vg.name)
    mine: Held | None = yield FindLock(space, keeper.keeps_for)
    if mine is None:
        if work.own is None:
            try:
                work.own = yield Acquire(space, keeper.keeps_for, Mode.EX, 0, what=f"LV {name}")
            except LockHeld as error:
                cure = "an LV that is open is moved by the host that has it (EX, by its block service)"
                raise LockHeld(error.message, node=error.node, next=cure, retry=True) from error
        return Use(None, None)
    if work.own is not None:  # it was given to somebody else here: nothing is known of it any more
        yield Release(work.own.lock)
        work.own = None
    _check_use(mine, name)
    volume = yield from find_open(vg.name, keeper.keeps_for)
    _check_path(volume, name)
    return Use(mine, volume)


def _check_use(mine: Held, name: str) -> None:
    if mine.by_lvm2:
        raise Refused(
            f"Logical volume {name} is active here through LVM2",
            next=f"lvm lvchange -an {name}, or give it up (pvmove --abort) and: lvm pvmove -n {name}",
        )
    if mine.mode is not Mode.EX:
        raise Refused(
            f"Logical volume {name} is active here in shared mode",
            next=f"lvchange -an {name} on every host, or lvchange -aey on one",
        )


def _check_path(volume: OpenVolume | None, name: str) -> None:
    if volume is None:
        raise Refused(f"Logical volume {name} is just being opened or closed", next="try again", retry=True)
    if volume.failed:
        raise Refused(f"The path of {name} has failed: {volume.failed}", next=f"lvchange -an {name} first")
    if volume.plane is not Plane.NBD or not volume.extents:
        raise Refused(
            f"Logical volume {name} is open through device-mapper, and cannot be moved so",
            next=f"lvchange -an {name} for as long as it takes",
        )


def settled(found: VgOnDisk, keeper: Lv, use: Use) -> Generator[Order, Any, bool]:
    """Bring an open path to what the metadata say, whatever was left of an earlier step.

    Returns True: something was done.

    Raises Refused: it cannot be."""
    lv, volume = by_uuid(found.vg, keeper.keeps_for), use.volume
    if volume is None or is_settled(found, keeper, volume):
        return False
    if lv is None:
        raise Refused(
            f"LV {volume.vg}/{volume.lv} is open here, and was removed", next=f"lvchange -an {volume.vg}"
        )
    if volume.moving is not None and _grown_from(extents_of(found, lv), volume.extents):
        # The old place is what is committed, and nobody else commits another.
        yield UnmirrorPath(found.vg.name, volume.lv, lv.uuid)
        return True
    failed: dict[str, str] = yield from reload_changed(found.vg.name, only=(lv.uuid,))
    for name, why in failed.items():
        raise Refused(f"LV {name} is not reloaded after a change: {why}", next="pvmove again", retry=True)
    yield Pause(POLL_MS)
    return True


def is_settled(found: VgOnDisk, keeper: Lv, volume: OpenVolume) -> bool:
    """Whether a path is as the metadata say, and writes nowhere else."""
    lv = by_uuid(found.vg, keeper.keeps_for)
    return lv is not None and volume.moving is None and volume.extents == extents_of(found, lv)


def _grown_from(said: tuple[Extent, ...], have: tuple[Extent, ...]) -> bool:
    """Whether the one table is the other, or that and more behind it."""
    *first, last = have
    now = said[len(first)] if len(said) >= len(have) else None
    return (
        now is not None
        and said[: len(first)] == tuple(first)
        and now.length_bytes >= last.length_bytes
        and msgspec.structs.replace(last, length_bytes=now.length_bytes) == now
    )


# -- one run ---------------------------------------------------------------------------------


def _copied(work: _Work, found: VgOnDisk, move: Move) -> Generator[Order, Any, bool]:
    """Returns False: somebody wants a lock."""
    vg = found.vg
    source, target = places(found, (piece_of(vg, move.source), piece_of(vg, move.target)))
    for at in range(0, source.length_bytes, SLICE_BYTES):
        if (yield from _wanted(work)):
            return False
        length = min(SLICE_BYTES, source.length_bytes - at)
        yield CopyBlocks(
            source.path, source.start_bytes + at, length, target.path, target.start_bytes + at, vg.name
        )
        yield work.told(work.arrived_bytes + at + length)
    return True


def _mirrored(work: _Work, found: VgOnDisk, move: Move, use: Use) -> Generator[Order, Any, bool]:
    """Returns False: somebody wants NAME_moving's lock, and nothing is mirrored any more."""
    vg, volume, lock = found.vg, use.volume, use.lock
    assert volume is not None
    assert lock is not None
    lv = by_uuid(vg, volume.uuid)
    assert lv is not None
    at, segment = moved_segment(lv, move)
    to = extents_of(found, msgspec.structs.replace(lv, segments=(segment,)))
    yield MirrorPath(vg.name, volume.lv, lv.uuid, at * vg.extent_bytes, to, lock.token)
    forget = UnmirrorPath(vg.name, volume.lv, lv.uuid)
    try:
        while True:
            now = yield from find_open(vg.name, lv.uuid)
            moving = now.moving if now is not None and not now.failed else None
            if moving is None:  # it was closed, or opened anew: `_swapped` sees that
                return not (yield from _wanted(work))
            if moving.failed:
                raise Refused(
                    f"LV {vg.name}/{lv.name} was not moved further: {moving.failed}",
                    next="look at the PV that it goes to; then pvmove again, or pvmove --abort",
                )
            share = move.source.extent_count * moving.copied_bytes // (segment.extent_count or 1)
            yield work.told(work.arrived_bytes + share)
            if moving.complete:
                return True
            if (yield from _wanted(work)):
                yield forget
                return False
            yield Pause(POLL_MS)
    except RingfenceError as error:
        yield from undo(error, forget)
        raise


# -- commits -----------------------------------------------------------------------------------


def _changing(work: _Work) -> Generator[Order, Any, tuple[LockedVg, Change]]:
    locked = yield from lock_vg(work.vg, Mode.EX, VG_WAIT_MS)
    try:
        return locked, (yield from begin(locked))
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise


def _goes_so(work: _Work, vg: Vg, move: Move | None) -> bool:
    """Whether the VG, read anew, still wants this done next."""
    keeper = by_uuid(vg, work.uuid)
    if keeper is None or not keeper.keeps_for:
        return False
    most = move.source.extent_count if move is not None else 1
    return next_move(vg, keeper, most) == move


def _planned(work: _Work, vg: Vg, move: Move, *, in_use: bool) -> Vg:
    """What the LV had before is let go of: `settled` has seen that its path does not use it."""
    keeper = by_uuid(vg, work.uuid)
    assert keeper is not None
    if kept(vg, keeper).left:
        vg = let_go(vg, keeper)
        keeper = by_uuid(vg, work.uuid)
        assert keeper is not None, "there is more to move"
    return moved(vg, keeper, move, in_use=in_use)


def _ended(work: _Work) -> Generator[Order, Any, bool]:
    """Nothing is left to be moved, and NAME_moving goes."""
    locked, change = yield from _changing(work)
    try:
        ended = _goes_so(work, change.vg, None)
        if ended:
            keeper = by_uuid(change.vg, work.uuid)
            assert keeper is not None
            what = f"pvmove, end of {keeper.name}"
            yield from commit(prepare(change, given_up(change.vg, keeper), what))
        else:
            yield Release(locked.held.lock)
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise
    return ended


def _committed(work: _Work, move: Move) -> Generator[Order, Any, bool]:
    """An LV that nobody has open has another place.  False: it is as it was."""
    locked, change = yield from _changing(work)
    try:
        if not _goes_so(work, change.vg, move):
            yield Release(locked.held.lock)
            return False
        planned = _planned(work, change.vg, move, in_use=False)
        yield from commit(prepare(change, planned, "pvmove"))
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise
    return True


def _swapped(work: _Work, move: Move, use: Use) -> Generator[Order, Any, bool]:
    """An LV that is open here, and equal in both places, has the new one.  False: it is as it was."""
    assert use.volume is not None
    uuid = use.volume.uuid
    locked, change = yield from _changing(work)
    try:
        lv = by_uuid(change.vg, uuid)
        mine: Held | None = yield FindLock(space_of(work.vg), uuid)
        volume = yield from find_open(work.vg, uuid)
        fits = (
            lv is not None
            and volume is not None
            and mine is not None
            and use.lock is not None
            and (mine.lock, mine.mode, mine.token) == (use.lock.lock, Mode.EX, use.lock.token)
            and volume.extents == extents_of(locked.found, lv)
            and _goes_so(work, change.vg, move)
        )
        if not fits:
            yield Release(locked.held.lock)
            return False
        assert volume is not None
        assert mine is not None
        prepared = prepare(change, _planned(work, change.vg, move, in_use=True), "pvmove")
        yield SealPath(work.vg, volume.lv, uuid)
        yield from commit(prepared)
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise
    after = by_uuid(prepared.vg, uuid)
    assert after is not None
    with contextlib.suppress(NotFound):  # it was closed meanwhile
        # To this very version: what was appended meanwhile is not what its path was sealed for.
        yield reload_order(VgOnDisk(prepared.vg, 0, locked.found.pvs, ()), volume.lv, after, mine)
    return True
