"""LVs are zeroed before they can be opened, and wiped before their extents are used again: the long work.

It goes on under the LV's own lock, EX, and without the VG's: whoever has that lock works, on whatever host.
The metadata say what is to be done (`volumes.unclean`), so after a crash at any step another host goes on:

    LV tagged (by lvcreate, lvremove):   nobody opens it, its extents are nobody's else; nothing is done
    slices zeroed:                       the same, with the first of its extents zeros; done once more
    progress committed:                  the same, and this much is not done again
    all slices zeroed:                   the same; a last commit is lacking
    tag removed, or the LV:              it is an LV as any other, or its extents are free

Locks are taken LV first, then VG, against the order of a command that removes LVs; so the VG's is waited for
only a little while, and between two slices whoever waits for the LV's gets it."""

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import msgspec

from ringfence.core.errors import Damaged, LockHeld, LocksLost, Refused, RingfenceError, TimedOut
from ringfence.core.modes import Mode
from ringfence.engine.commands.beside import beside
from ringfence.engine.commands.commit import begin, commit, prepare
from ringfence.engine.commands.locking import LockedVg, lock_vg, space_of, undo
from ringfence.engine.commands.zeroing import places, slices
from ringfence.engine.orders import (
    Acquire,
    Command,
    Held,
    Identity,
    NoteProgress,
    Order,
    Pause,
    Release,
    Wanted,
    Whoami,
)
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.plan import check_plain, remove_lv
from ringfence.volumes.unclean import by_uuid, done_extents, mark_clean, note_done, pieces, rest_of, size_of

VG_WAIT_MS = 3000
"""Less than whoever has the VG's lock waits for the LV's."""
STEP_LEAST_BYTES, STEP_MOST_BYTES, STEPS = 1 << 30, 16 << 30, 64
"""How much is done between two commits of the progress: a part of the LV, within limits."""
AGAIN_MS = 1000
"""Between two looks at an LV that another host zeroes."""

MOVED = "moved"


class Cleansed(msgspec.Struct, frozen=True):
    """What became of one LV."""

    name: str
    what: str
    """zeroed | wiped; moved: it keeps extents for an LV that moves, and nothing was done."""
    finished: bool
    """False: somebody else wanted its lock, or this node ends; what was done so far is noted."""


def cleanse(
    vg: str, uuid: str, name: str, wait_ms: int | None, *, paced: bool, until_s: int | None = None
) -> Generator[Order, Any, Cleansed | None]:
    """Zero or wipe one LV, from where it was left.  None: there is nothing of it to do (any more).

    Args:
        name: for messages.
        wait_ms: how long to queue for its lock.
        paced: no faster than the configuration allows; else somebody waits for it.
        until_s: wall clock; what is not done by then is left to others.

    Raises LockHeld (another host does it), NotFound (a PV is missing), DeviceFailed, NoAuthority."""
    me: Whoami = yield Identity()
    held: Held = yield Acquire(space_of(vg), uuid, Mode.EX, wait_ms, what=f"LV {vg}/{name}")
    try:
        done = yield from _under_lock(vg, uuid, held, me.wipe_mib_s if paced else 0, until_s)
    except RingfenceError as error:
        yield from undo(error, Release(held.lock))
        raise
    yield Release(held.lock)
    return done


def cleanse_all(vg: str, uuids: tuple[str, ...]) -> Command:
    """In the background: every unclean LV of a VG that no other host works on.

    Answer: {"done": [Cleansed], "gone": [uuid], "kept": [uuid: neither to be zeroed nor wiped], "left": how
    many are not through, "trouble": a line, "waits": {uuid: a line}}.
    What goes wrong with one LV does not keep the others."""
    done: list[Cleansed] = []
    gone: list[str] = []
    kept: list[str] = []
    left, trouble, waits = 0, "", dict[str, str]()
    for uuid in uuids:
        try:
            one = yield from cleanse(vg, uuid, uuid, 0, paced=True)
        except LocksLost:
            raise
        except RingfenceError as error:
            left += 1
            waits[uuid] = str(error)
            if not isinstance(error, Refused):  # another host has it; or its lockspace is frozen
                trouble = trouble or str(error)
            continue
        if one is None:
            gone.append(uuid)
        elif one.what == MOVED:
            kept.append(uuid)
        elif one.finished:
            done.append(one)
        else:
            left += 1
            waits[uuid] = "somebody else wanted its lock, or this host was about to leave its VG"
    return {"done": done, "gone": gone, "kept": kept, "left": left, "trouble": trouble, "waits": waits}


def _under_lock(
    vg: str, uuid: str, held: Held, mib_s: int, until_s: int | None
) -> Generator[Order, Any, Cleansed | None]:
    locked = yield from lock_vg(vg, Mode.PR, VG_WAIT_MS)
    yield Release(locked.held.lock)
    found = locked.found
    lv = by_uuid(found.vg, uuid)
    if lv is not None and lv.keeps_for:
        return Cleansed(lv.name, MOVED, finished=False)
    if lv is None or not lv.unclean:
        return None
    # In an older version than the newest, or on a copy of a PV, its extents may be another's by now.
    yield from begin(locked)
    check_plain(found.vg, lv, unclean=True)
    # Under its lock nobody moves or changes it.
    size, extent = size_of(found.vg, lv), found.vg.extent_bytes
    done = noted = done_extents(lv) * extent
    step = min(max(size // STEPS, STEP_LEAST_BYTES), STEP_MOST_BYTES)
    what = "wiped" if lv.wiping else "zeroed"
    yield NoteProgress(vg, lv.name, what, done, size)
    for part in slices(vg, places(found, rest_of(pieces(found.vg, lv), done))):
        if (yield Wanted(held.lock)) or (yield from _is_past(until_s)):
            yield from _note(vg, uuid, done // extent, wait_ms=0)
            return Cleansed(lv.name, what, finished=False)
        yield part
        done += part.length_bytes
        yield NoteProgress(vg, lv.name, what, done, size)
        if mib_s and done < size:
            yield Pause(part.length_bytes * 1000 // (mib_s << 20))
        if done - noted >= step and done < size:
            yield from _note(vg, uuid, done // extent)
            noted = done
    finished = yield from _finish(vg, uuid, held, lv, size)
    return Cleansed(lv.name, what, finished=finished)


def _is_past(until_s: int | None) -> Generator[Order, Any, bool]:
    if until_s is None:
        return False
    me: Whoami = yield Identity()
    return me.now_wall_s >= until_s


def _note(vg: str, uuid: str, extents: int, wait_ms: int = VG_WAIT_MS) -> Generator[Order, Any, None]:
    """Keep the progress, where that can be done; it is worth no error."""

    def plan(now: Vg, lv: Lv) -> Vg:
        return note_done(now, lv.name, extents)

    try:
        yield from _change(vg, uuid, "progress", plan, wait_ms)
    except LocksLost:
        raise
    except Refused:
        pass


def _finish(vg: str, uuid: str, held: Held, lv: Lv, size_bytes: int) -> Generator[Order, Any, bool]:
    """The last commit.  False: somebody wants the LV's lock, and the VG's could not be had."""
    while True:
        try:
            yield from _change(vg, uuid, f"end of {lv.name}", _done)
        except TimedOut:
            if (yield Wanted(held.lock)):
                yield from _note(vg, uuid, lv.extent_count, wait_ms=0)
                return False
        else:
            return True


def _done(vg: Vg, lv: Lv) -> Vg:
    return remove_lv(vg, lv.name) if lv.wiping else mark_clean(vg, lv.name)


def _change(
    vg: str, uuid: str, what: str, plan: Callable[[Vg, Lv], Vg], wait_ms: int = VG_WAIT_MS
) -> Generator[Order, Any, None]:
    """One commit, under the VG's lock.  Raises TimedOut, or LockHeld, if that is not to be had."""
    locked: LockedVg = yield from lock_vg(vg, Mode.EX, wait_ms)
    try:
        change = yield from begin(locked)
        lv = by_uuid(change.vg, uuid)
        if lv is None or not lv.unclean:  # a file was restored, or its tag taken away, without its lock
            raise Damaged(f"VG {vg} was changed while an LV of it was zeroed or wiped", next="see: vgck")
        planned = yield from beside(len(lv.segments), partial(plan, change.vg, lv))
        yield from commit(prepare(change, planned, f"{'wiping' if lv.wiping else 'zeroing'}, {what}"))
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise


# -- what other commands ask ---------------------------------------------------------------


def await_zeroed(vg: str, lv: Lv, wait_ms: int | None) -> Generator[Order, Any, int | None]:
    """Wait until a new LV can be opened.  Whoever zeroes it in the background gives way, and this host does
    it as fast as it can; whoever else wants it meanwhile gets it, and is waited for.

    Args: wait_ms: for all of it; None: for ever.

    Returns what is left of the wait.

    Raises TimedOut (what was done by then stays done), and as `cleanse`."""
    me: Whoami = yield Identity()
    began_s, left_ms, queue_ms = me.now_wall_s, wait_ms, wait_ms
    until_s = None if wait_ms is None else began_s + max(1, wait_ms // 1000)
    while True:
        try:
            done = yield from cleanse(vg, lv.uuid, lv.name, queue_ms, paced=False, until_s=until_s)
            over = done is None or done.finished
        except LockHeld:  # by whom this host gave way to
            over = not (yield from _is_zeroing(vg, lv.uuid, left_ms))
        me = yield Identity()
        if wait_ms is not None:
            left_ms = max(0, wait_ms - max(0, me.now_wall_s - began_s) * 1000)
        if over:
            return left_ms
        if left_ms == 0:
            raise TimedOut(
                f"Logical volume {vg}/{lv.name} is still being zeroed",
                next=f"it goes on by itself (see: lvs -a {vg}); for all of it: --wait forever", retry=True,
            )  # fmt: skip
        # Two that queued for it in turns would each find the other waiting, and neither do anything.
        queue_ms = 0
        yield Pause(AGAIN_MS)


def _is_zeroing(vg: str, uuid: str, wait_ms: int | None) -> Generator[Order, Any, bool]:
    locked = yield from lock_vg(vg, Mode.PR, None if wait_ms is None else max(wait_ms, VG_WAIT_MS))
    yield Release(locked.held.lock)
    lv = by_uuid(locked.found.vg, uuid)
    return lv is not None and lv.zeroing


def explain_lack(found: VgOnDisk, error: Refused, mib_s: int) -> Refused:
    """An allocation that was refused, with what is about to become free."""
    vg = found.vg
    waits = [lv for lv in vg.lvs if lv.wiping]
    if not waits:
        return error
    left = sum(size_of(vg, lv) - done_extents(lv) * vg.extent_bytes for lv in waits)
    extents = sum(size_of(vg, lv) for lv in waits) // vg.extent_bytes
    about = f", in about {_duration(left // (mib_s << 20))}" if mib_s else ""
    return Refused(
        f"{error.message}; {extents} more are being wiped, and free{about or ' after that'}",
        next=f"wait (see: lvs -a {vg.name}), or do without: lvremove --no-wipe {vg.name}/{waits[0].name}",
        retry=True,
    )


def _duration(seconds: int) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 1)} s"
