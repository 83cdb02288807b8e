"""All LVs of a VG activated, or deactivated, at once.

For each LV the order is that of `activation`: lock, read where it is, open; and close, unlock.  What is
different is that much goes together: the VG is locked and read once, and stays locked until the LVs are open,
so that nothing changes between the look and the opening.  Therefore each LV's lock is only tried for: who
waited for one would keep the VG from everybody, be it the very host that has the LV.  What was not to be had
at once is waited for after that, one LV after the other.

After a crash at any step: what is open is open under its lock, as after `activation.activate`; where the lock
was had and nothing was opened yet, it ends with the daemon's life.  The command given again does the rest."""

from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from ringfence.core.errors import LocksLost, NotFound, Refused, RingfenceError
from ringfence.core.modes import EX, Mode
from ringfence.engine.commands.activation import (
    Bases,
    answer_of,
    check_ours_to_use,
    in_use,
    is_connected,
    open_order,
    used_here,
)
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
    Staggered,
)
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.plan import check_plain

AT_ONCE = 512
"""So many LVs in one order: who makes it, and who carries it out, must not hold its event loop for long."""

T = TypeVar("T")
Rows = list[dict[str, Any]]


class Outcome:
    """What became of a VG's LVs.

    Args: told: each of those that are done is to be told."""

    def __init__(self, *, told: bool = True) -> None:
        self._told = told
        self.count = 0
        """How many are done."""
        self.done: Rows = []
        self.refused: list[RingfenceError] = []
        self.left: list[str] = []
        """LVs to be taken up one by one."""

    def add(self, row: dict[str, Any]) -> None:
        self.count += 1
        if self._told:
            self.done.append(row)

    def add_open(self, vg: str, lv: Lv, held: Held, path: Opened | OpenVolume) -> None:
        self.count += 1
        if self._told:
            self.done.append(answer_of(vg, lv, held, path))


class _Had(NamedTuple):
    """An LV whose lock was had, and what opens it."""

    lv: Lv
    held: Held
    path: OpenPath


def activate_all(
    vg: str, mode: Mode, wait_ms: int | None, out: Outcome, *, partial: bool = False
) -> Generator[Order, Any, None]:
    """Every LV that can be.  In shared mode each is left, to be looked at (`sharing`); and what is being
    zeroed, if there is a wait.

    Args: partial: as of `activation.activate`."""
    locked = yield from lock_vg(vg, Mode.PR)
    try:
        yield from check_newest(locked)
        if mode is Mode.EX:
            found = msgspec.structs.replace(locked.found, partial=partial)
            yield from _lock_and_open(found, wait_ms, out)
        else:
            for some in _batches(locked.found.vg.lvs):
                out.left += [lv.name for lv in _usable(locked.found.vg, some, wait_ms, out)]
                yield GoOn()
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise
    yield Release(locked.held.lock)


def _usable(vg: Vg, lvs: tuple[Lv, ...], wait_ms: int | None, out: Outcome) -> list[Lv]:
    if wait_ms != 0:
        out.left += [lv.name for lv in lvs if lv.zeroing]
    return [lv for lv in lvs if _is_plain(vg, lv)]


def _lock_and_open(found: VgOnDisk, wait_ms: int | None, out: Outcome) -> Generator[Order, Any, None]:
    """While some are opened, the next ones are locked, and those after them."""
    vg = found.vg.name
    space = space_of(vg)
    mine: dict[str, Held] = yield FindLocks(space)
    volumes: tuple[OpenVolume, ...] = (yield OpenPaths()) if mine else ()
    opened = {one.uuid: one for one in volumes if one.vg == vg and not one.failed}
    had: list[_Had] = []
    opening: list[_Had] = []
    failed: list[_Had] = []
    useless: list[Release] = []
    bases: Bases = {}
    for some in (*_batches(found.vg.lvs), (), ()):
        free = _free(vg, _usable(found.vg, some, wait_ms, out), mine, opened, out)
        wishes = [
            Acquire(space, lv.uuid, EX, 0, persistent=True, what=f"LV {vg}/{lv.name}")
            for lv in free
        ]
        locks, paths = yield from _staggered(wishes, [one.path for one in had], len(opening))
        for one, path in zip(opening, paths, strict=True):
            if isinstance(path, Opened):
                out.add_open(vg, one.lv, one.held, path)
            else:
                out.refused.append(path)
                failed.append(one)
        opening, had = had, []
        for lv, held in zip(free, locks, strict=True):
            if isinstance(held, Held):
                try:
                    had.append(_Had(lv, held, open_order(found, lv, held, bases=bases)))
                except RingfenceError as error:
                    out.refused.append(error)
                    useless.append(Release(held.lock))
            elif wait_ms == 0:
                out.refused.append(held)
            else:
                out.left.append(lv.name)
    for few in _batches(tuple(failed)):
        shut = tuple(ClosePath(vg, one.lv.name, one.lv.uuid, own=True) for one in few)
        closed = yield from _paths(shut)
        # What may be open keeps its lock.
        useless += [Release(one.held.lock) for one, error in zip(few, closed, strict=True) if error is None]
    for releases in _batches(tuple(useless)):
        _none_lost((yield LocksTogether(releases)))


def _free(
    vg: str, lvs: list[Lv], mine: dict[str, Held], opened: dict[str, OpenVolume], out: Outcome
) -> list[Lv]:
    """Those that this node has no lock of; the others are done if they are open for it alone, else left.

    Args: mine, opened: by the LV's uuid."""
    for lv in lvs if mine else ():
        held, volume = mine.get(lv.uuid), opened.get(lv.uuid)
        if held is None:
            continue
        if volume is not None and held.mode is Mode.EX and not held.by_lvm2:
            out.add_open(vg, lv, held, volume)
        else:
            out.left.append(lv.name)
    return [lv for lv in lvs if lv.uuid not in mine]


def deactivate_all(
    vg: str, out: Outcome, *, disconnect: bool = False
) -> Generator[Order, Any, None]:
    """Deactivate what is open or locked here, but what is in use.  Needs no VG lock, as for one LV.

    While some are closed, and the next ones, those that are closed by now are unlocked.

    Args: disconnect: also what is in use; that is cut off."""
    volumes: tuple[OpenVolume, ...] = yield OpenPaths()
    connected = {one.uuid for one in volumes if one.vg == vg and is_connected(one)}
    used = (yield from used_here(connected)) if connected and not disconnect else frozenset()
    names = {one.uuid: one.lv for one in volumes if one.vg == vg}
    _, found = yield from find_vg(vg)
    mine: dict[str, Held] = yield FindLocks(space_of(vg))
    yield GoOn()
    names |= {lv.uuid: lv.name for lv in found.vg.lvs if lv.uuid in mine and lv.uuid not in names}
    yield GoOn()
    shut: list[ClosePath] = []
    closing: list[ClosePath] = []
    for some in (*_batches(tuple(names.items())), (), ()):
        had = [one for one in shut if one.uuid in mine]
        ours: list[ClosePath] = []
        for uuid, name in some:
            try:
                check_ours_to_use(mine.get(uuid), vg, name)
                if uuid in used:
                    raise in_use(vg, name)
                ours.append(ClosePath(vg, name, uuid))
            except RingfenceError as error:
                out.refused.append(error)
        releases = [Release(mine[one.uuid].lock) for one in had]
        released, closed = yield from _staggered(releases, ours, len(closing))
        kept = {
            one.uuid: error
            for one, error in zip(had, released, strict=True)
            if not isinstance(error, NotFound | None)  # not found: another command was quicker
        }
        out.refused += [*kept.values(), *(failed for failed in closed if failed is not None)]
        for one in shut:
            if one.uuid not in kept:
                active = one.uuid in mine
                out.add(
                    {"vg": vg, "name": one.lv, "uuid": one.uuid, "mode": Mode.UN.name, "was_active": active}
                )
        shut = [one for one, failed in zip(closing, closed, strict=True) if failed is None]
        closing = ours


def _staggered(
    locks: Sequence[Acquire | Release], paths: Sequence[OpenPath | ClosePath], before: int
) -> Generator[Order, Any, tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """The answers, or errors, to the locks, and to the paths of the call before; what fails as a whole (no
    block service) is each one's error.

    Args: before: how many paths those are.

    Raises LocksLost if that is what became of any."""
    if not (locks or paths or before):
        yield GoOn()
        return (), ()
    locked, opened = yield Staggered(LocksTogether(tuple(locks)), PathsTogether(tuple(paths)))
    return _none_lost(locked), _none_lost(_each(opened, before))


def _paths(paths: tuple[ClosePath, ...]) -> Generator[Order, Any, tuple[Any, ...]]:
    """As of `_staggered`, each one's own answer."""
    try:
        answers = yield PathsTogether(paths)
    except RingfenceError as error:
        answers = error
    return _none_lost(_each(answers, len(paths)))


def _each(answers: tuple[Any, ...] | RingfenceError, count: int) -> tuple[Any, ...]:
    return (answers,) * count if isinstance(answers, RingfenceError) else answers


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


def _batches(every: tuple[T, ...]) -> Iterable[tuple[T, ...]]:
    return (every[first : first + AT_ONCE] for first in range(0, len(every), AT_ONCE))
