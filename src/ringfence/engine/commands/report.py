"""pvs, vgs, lvs: what the disks say, read under the VGs' locks where that can be had soon.

A report never hangs: where a VG's lock is not granted in time (a writer is at work, or its
lockspace is frozen) or its lockspace is not joined, the answer is what the disks say without a
lock.  That is still one committed version of each VG; `stale` says that it may not be the newest."""

from collections.abc import Callable, Generator
from typing import Any

import msgspec

from ringfence.core.errors import LocksLost, NotFound, Refused, Unavailable
from ringfence.core.modes import Mode
from ringfence.engine.commands.disks import read_disks
from ringfence.engine.commands.locking import VG_RESOURCE, space_of
from ringfence.engine.orders import (
    Acquire,
    Command,
    FindLock,
    GoOn,
    Held,
    Holder,
    Holders,
    Identity,
    Joined,
    OpenPaths,
    OpenVolume,
    Order,
    Release,
    Whoami,
)
from ringfence.volumes.access import is_ours
from ringfence.volumes.discovery import Disks, VgOnDisk
from ringfence.volumes.plan import find_lv, users_of_each
from ringfence.volumes.report import LvHere, Row, lv_row, pv_rows, vg_rows
from ringfence.wire.client import Lvs, Pvs, Vgs

WAIT_MS = 2000
"""For all VG locks of a report together, roughly: after the first that is not granted, none waits."""


SLICE = 100
"""So many LVs' rows are made before others have their turn."""


class _Seen(msgspec.Struct, frozen=True):
    disks: Disks
    unlocked: tuple[str, ...]
    """Shared VGs of ours that were read without a lock, each with the reason."""
    notes: list[str] = []


def pvs(call: Pvs) -> Command:
    seen = yield from _read("")
    return _answer(pv_rows(seen.disks), seen)


def vgs(call: Vgs) -> Command:
    seen = yield from _read(call.vg)
    if call.vg:
        seen.disks.vg_named(call.vg)
    found = tuple(one for one in seen.disks.vgs if call.vg in ("", one.vg.name))
    return _answer(vg_rows(found), seen)


Broken = Callable[[tuple[OpenVolume, ...]], dict[str, str]]
"""What is wrong with this host's data paths, given those that are open: VG/LV -> a line."""


def lvs(call: Lvs, broken: Broken = lambda volumes: {}) -> Command:
    seen = yield from _read(call.vg)
    if call.vg:
        found = seen.disks.vg_named(call.vg)
        if call.lv:
            find_lv(found.vg, call.lv)
    try:
        volumes: tuple[OpenVolume, ...] = yield OpenPaths()
    except Unavailable as error:
        volumes = ()
        seen.notes.append(f"What is open on this host is not known: {error.message}")
        wrong: dict[str, str] = {}
    else:
        wrong = broken(volumes)
    rows: list[Row] = []
    for found in seen.disks.vgs:
        if call.vg in ("", found.vg.name):
            rows += yield from _lv_rows(found, call, volumes, tuple(wrong))
    told = [row["lv_full_name"] for row in rows]
    seen.notes.extend(f"WARNING: {line}" for name, line in wrong.items() if name in told)
    return _answer(rows, seen)


def _answer(rows: list[Row], seen: _Seen) -> dict[str, Any]:
    answer: dict[str, Any] = {"rows": rows, "stale": bool(seen.unlocked)}
    notes = [*seen.unlocked, *seen.notes]
    notes += [f"WARNING: {why}" for _, why in sorted(seen.disks.problems.items())]
    notes += [f"WARNING: {area.problem}" for pv in seen.disks.pvs for area in pv.areas if area.problem]
    if notes:
        answer["notes"] = notes
    return answer


def _read(only: str) -> Generator[Order, Any, _Seen]:
    """Lock what can be locked, read, unlock."""
    me: Whoami = yield Identity()
    joined: tuple[str, ...] = yield Joined()
    disks = yield from read_disks()
    ours = [one.vg.name for one in disks.vgs if is_ours(one.vg, me.cluster) and only in ("", one.vg.name)]
    locks, unlocked, wait_ms = [], [], WAIT_MS
    # Sorted, and without waiting for ever: two reports cannot block each other.
    for name in sorted(dict.fromkeys(ours)):
        if space_of(name) not in joined:
            unlocked.append(f"Reading VG {name} without a lock: its lockspace is not started here")
            continue
        try:
            held: Held = yield Acquire(space_of(name), VG_RESOURCE, Mode.PR, wait_ms, what=f"VG {name}")
            locks.append(held.lock)
        except LocksLost:
            raise
        except (Refused, NotFound) as error:
            wait_ms = 0
            unlocked.append(f"Reading VG {name} without a lock: {error.message}")
    if locks:
        disks = yield from read_disks()
    for lock in locks:
        yield Release(lock)
    return _Seen(disks, tuple(unlocked))


def _lv_rows(
    found: VgOnDisk, call: Lvs, volumes: tuple[OpenVolume, ...], wrong: tuple[str, ...]
) -> Generator[Order, Any, list[Row]]:
    space = space_of(found.vg.name)
    paths = {one.uuid: one for one in volumes}
    users = users_of_each(found.vg)
    rows: list[Row] = []
    for lv in found.vg.lvs:
        if lv.visible and call.lv in ("", lv.name) and (call.all or call.lv or not (lv.slots or lv.wiping)):
            holders: tuple[Holder, ...] = yield Holders(space, lv.uuid)
            mine: Held | None = yield FindLock(space, lv.uuid)
            here = _here(holders, mine, paths.get(lv.uuid))
            broken = f"{found.vg.name}/{lv.name}" in wrong
            here = msgspec.structs.replace(here, broken=broken)
            rows.append(lv_row(found, lv, here, users.get(lv.name, ())))
            if len(rows) % SLICE == 0:
                yield GoOn()
    return rows


def _here(holders: tuple[Holder, ...], mine: Held | None, volume: OpenVolume | None) -> LvHere:
    found = tuple(
        {
            "node": one.name,
            "mode": one.mode.name,
            "token": str(one.token),
            "since_wall_ms": one.since_wall_ms,
        }
        for one in holders
        if one.mode > Mode.NL
    )
    return LvHere(
        holders=found,
        path=volume.path if volume else "",
        uri=volume.uri if volume else "",
        connections=volume.connections if volume else 0,
        active=mine is not None or volume is not None,
    )
