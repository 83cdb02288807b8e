"""All LVs of a VG activated, or deactivated, at once.

For each LV the order is that of `activation`: lock, read where it is, open; and close, unlock.  What is
different is that much goes together: the VG is locked and read once, and stays locked until the LVs are open,
so that nothing changes between the look and the opening.  Therefore each LV's lock is only tried for: who
waited for one would keep the VG from everybody, be it the very host that has the LV.  What was not to be had
at once is waited for after that, one LV after the other.

After a crash at any step: what is open is open under its lock, as after `activation.activate`; where the lock
was had and nothing was opened yet, it ends with the daemon's life.  The command given again does the rest."""

from collections.abc import Generator, Iterable
from itertools import islice
from typing import Any, TypeVar

import msgspec

from ringfence.core.errors import LocksLost, NotFound, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.activation import answer_of, check_ours_to_use, open_order
from ringfence.engine.commands.disks import find_vg
from ringfence.engine.commands.locking import check_newest, lock_vg, space_of, undo
from ringfence.engine.orders import (
    Acquire,
    ClosePath,
    FindLocks,
    GoOn,
    Held,
    LocksTogether,
    Opened,
    OpenPath,
    OpenPaths,
    OpenVolume,
    Order,
    PathsTogether,
    Release,
)
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.plan import check_plain

AT_ONCE = 512
"""So many LVs in one order: who makes it, and who carries it out, must not hold its event loop for long."""

T = TypeVar("T")
Rows = list[dict[str, Any]]


class Outcome:
    """What became of a VG's LVs."""

    def __init__(self) -> None:
        self.done: Rows = []
        self.refused: list[RingfenceError] = []
        self.left: list[str] = []
        """LVs to be taken up one by one."""


def activate_all(
    vg: str, mode: Mode, wait_ms: int | None, out: Outcome, *, partial: bool = False
) -> Generator[Order, Any, None]:
    """Every LV that can be.  In shared mode each is left, to be looked at (`sharing`); and what is being
    zeroed, if there is a wait.

    Args: partial: as of `activation.activate`."""
    locked = yield from lock_vg(vg, Mode.PR)
    try:
        yield from check_newest(locked)
        lvs: list[Lv] = []
        for every in _batches(list(locked.found.vg.lvs)):
            lvs += [lv for lv in every if _is_plain(locked.found.vg, lv)]
            if wait_ms != 0:
                out.left += [lv.name for lv in every if lv.zeroing]
            yield GoOn()
        if mode is Mode.EX:
            free = yield from _free(vg, lvs, out)
            found = msgspec.structs.replace(locked.found, partial=partial)
            for some in _batches(free):
                yield from _lock_and_open(found, some, wait_ms, out)
        else:
            out.left += [lv.name for lv in lvs]
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise
    yield Release(locked.held.lock)


def _free(vg: str, lvs: list[Lv], out: Outcome) -> Generator[Order, Any, list[Lv]]:
    """Those that this node has no lock of; the others are done if they are open for it alone, else left."""
    mine: dict[str, Held] = yield FindLocks(space_of(vg))
    if not mine:
        return lvs
    volumes: tuple[OpenVolume, ...] = yield OpenPaths()
    opened = {one.uuid: one for one in volumes if one.vg == vg and not one.failed}
    for lv in lvs:
        held, volume = mine.get(lv.uuid), opened.get(lv.uuid)
        if held is None:
            continue
        if volume is not None and held.mode is Mode.EX and not held.by_lvm2:
            out.done.append(answer_of(vg, lv, held, volume))
        else:
            out.left.append(lv.name)
    return [lv for lv in lvs if lv.uuid not in mine]


def _lock_and_open(
    found: VgOnDisk, lvs: list[Lv], wait_ms: int | None, out: Outcome
) -> Generator[Order, Any, None]:
    vg = found.vg.name
    wishes = tuple(
        Acquire(space_of(vg), lv.uuid, Mode.EX, 0, persistent=True, what=f"LV {vg}/{lv.name}") for lv in lvs
    )
    had: list[tuple[Lv, Held, OpenPath]] = []
    useless: list[Release] = []
    for lv, held in zip(lvs, (yield from _locks(wishes)), strict=True):
        if isinstance(held, Held):
            try:
                had.append((lv, held, open_order(found, lv, held)))
            except RingfenceError as error:
                out.refused.append(error)
                useless.append(Release(held.lock))
        elif wait_ms == 0:
            out.refused.append(held)
        else:
            out.left.append(lv.name)
    failed: list[tuple[Lv, Held]] = []
    for (lv, held, _), path in zip(had, (yield from _paths([one for *_, one in had])), strict=True):
        if isinstance(path, Opened):
            out.done.append(answer_of(vg, lv, held, path))
        else:
            out.refused.append(path)
            failed.append((lv, held))
    closes = [ClosePath(vg, lv.name, lv.uuid) for lv, _ in failed]
    for (_, held), closed in zip(failed, (yield from _paths(closes)), strict=True):
        if closed is None:  # what may be open keeps its lock
            useless.append(Release(held.lock))
    yield from _locks(tuple(useless))


def deactivate_all(vg: str, out: Outcome) -> Generator[Order, Any, None]:
    """Deactivate what is open or locked here.  Needs no VG lock, as for one LV."""
    volumes: tuple[OpenVolume, ...] = yield OpenPaths()
    names = {one.uuid: one.lv for one in volumes if one.vg == vg}
    _, found = yield from find_vg(vg)
    mine: dict[str, Held] = yield FindLocks(space_of(vg))
    names |= {lv.uuid: lv.name for lv in found.vg.lvs if lv.uuid in mine and lv.uuid not in names}
    ours: list[tuple[str, str]] = []
    for uuid, name in names.items():
        try:
            check_ours_to_use(mine.get(uuid), vg, name)
            ours.append((uuid, name))
        except RingfenceError as error:
            out.refused.append(error)
    for some in _batches(ours):
        closed = yield from _paths([ClosePath(vg, name, uuid) for uuid, name in some])
        out.refused += [failed for failed in closed if failed is not None]
        shut = [one for one, failed in zip(some, closed, strict=True) if failed is None]
        had = [uuid for uuid, _ in shut if uuid in mine]
        released = yield from _locks(tuple(Release(mine[uuid].lock) for uuid in had))
        kept = {
            uuid: error
            for uuid, error in zip(had, released, strict=True)
            if error is not None and not isinstance(error, NotFound)  # another command has let go of it
        }
        out.refused += kept.values()
        out.done += [
            {"vg": vg, "name": name, "uuid": uuid, "mode": Mode.UN.name, "was_active": uuid in mine}
            for uuid, name in shut
            if uuid not in kept
        ]


def _locks(orders: tuple[Acquire | Release, ...]) -> Generator[Order, Any, tuple[Any, ...]]:
    """Raises LocksLost if that is what became of any."""
    return _none_lost((yield LocksTogether(orders)) if orders else ())


def _paths(orders: Iterable[OpenPath | ClosePath]) -> Generator[Order, Any, tuple[Any, ...]]:
    """What fails as a whole (no block service) is each one's error.  Raises LocksLost."""
    asked = tuple(orders)
    if not asked:
        return ()
    try:
        return _none_lost((yield PathsTogether(asked)))
    except LocksLost:
        raise
    except RingfenceError as error:
        return (error,) * len(asked)


def _none_lost(answers: tuple[Any, ...]) -> tuple[Any, ...]:
    for one in answers:
        if isinstance(one, LocksLost):
            raise one
    return answers


def _is_plain(vg: Vg, lv: Lv) -> bool:
    try:
        check_plain(vg, lv)
    except Refused:
        return False
    return True


def _batches(every: list[T]) -> Iterable[list[T]]:
    rest = iter(every)
    while some := list(islice(rest, AT_ONCE)):
        yield some
