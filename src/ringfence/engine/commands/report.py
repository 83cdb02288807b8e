"""pvs, vgs, lvs: what the disks say, read under the VGs' locks where that can be had soon.

A report never hangs: where a VG's lock is not granted in time (a writer is at work, or its
lockspace is frozen) or its lockspace is not joined, the answer is what the disks say without a
lock.  That is still one committed version of each VG; `stale` says that it may not be the newest."""

from collections.abc import Callable, Generator, Mapping
from itertools import islice
from typing import Any

import msgspec

from ringfence.core.errors import BadInput, LocksLost, NotFound, Refused, Unavailable
from ringfence.core.modes import Mode
from ringfence.engine.commands.disks import read_disks
from ringfence.engine.commands.locking import VG_RESOURCE, space_of
from ringfence.engine.orders import (
    Acquire,
    Command,
    GoOn,
    Handovers,
    Held,
    Holder,
    Holders,
    Identity,
    Joined,
    LockNames,
    LocksThere,
    OnItsWay,
    OpenPaths,
    OpenVolume,
    Order,
    Release,
    Whoami,
)
from ringfence.volumes.access import is_ours
from ringfence.volumes.discovery import Disks, VgOnDisk, shrunk
from ringfence.volumes.model import Vg
from ringfence.volumes.parts import Lv
from ringfence.volumes.plan import find_lv
from ringfence.volumes.relations import Relations
from ringfence.volumes.report import (
    HOLDER_FIELDS,
    LV_FIELDS,
    ROW_FIELDS,
    LvHere,
    LvsView,
    lv_columns,
    pv_rows,
    shown_lvs,
    vg_rows,
)
from ringfence.volumes.unclean import by_uuid
from ringfence.wire.client import Lvs, Pvs, Vgs

WAIT_MS = 2000
"""For all VG locks of a report together, roughly: after the first that is not granted, none waits."""


SLICE = 500
"""So many LVs are looked at before others have their turn."""
LARGE = 1000
"""The rows of more LVs are encoded a slice at a time, too, and stand in the answer as JSON."""


class _Seen(msgspec.Struct, frozen=True):
    disks: Disks
    unlocked: tuple[str, ...]
    """Shared VGs of ours that were read without a lock, each with the reason."""
    notes: list[str] = []


def pvs(call: Pvs) -> Command:
    seen = yield from _read("")
    return _answer({"rows": pv_rows(seen.disks, call.segments)}, seen, "")


def vgs(call: Vgs) -> Command:
    seen = yield from _read(call.vg)
    if call.vg:
        seen.disks.vg_named(call.vg)
    found = tuple(one for one in seen.disks.vgs if call.vg in ("", one.vg.name))
    return _answer({"rows": vg_rows(found)}, seen, call.vg)


Broken = Callable[[tuple[OpenVolume, ...]], dict[str, str]]
"""What is wrong with this host's data paths, given those that are open: VG/LV -> a line."""


def lvs(
    call: Lvs, broken: Broken = lambda volumes: {}, moved: Mapping[str, str] = {}
) -> Command:
    """Args: moved: VG/LV of those that this host moves -> per cent of it."""
    _check_fields(call.fields)
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
    listed: dict[str, list[Any]] = {field: [] for field in call.fields or ROW_FIELDS}
    for found in seen.disks.vgs:
        if call.vg in ("", found.vg.name):
            shown = yield from _add_lvs(listed, found, call, volumes, tuple(wrong), moved)
            seen.notes.extend((yield from _on_their_way(found.vg.name, shown)))
            seen.notes.extend(
                f"WARNING: {wrong[name]}" for lv in shown if (name := f"{found.vg.name}/{lv.name}") in wrong
            )
    if call.fields:
        return _answer((yield from _columns(listed, call.same)), seen, call.vg)
    return _answer({"rows": (yield from _rows(listed))}, seen, call.vg)


def _on_their_way(vg: str, shown: list[Lv]) -> Generator[Order, Any, list[str]]:
    """A line for each of these LVs that is being handed over."""
    ways: dict[str, OnItsWay] = yield Handovers(vg)
    return [
        f"{vg}/{lv.name} is being handed over from {ways[lv.uuid].names[0]} to {ways[lv.uuid].names[1]}"
        for lv in (shown if ways else ())
        if lv.uuid in ways
    ]


def _check_fields(fields: tuple[str, ...]) -> None:
    unknown = [field for field in fields if field not in LV_FIELDS]
    if unknown:
        raise BadInput(f"{unknown[0]} is not a field of LVs here", next=f"fields: {', '.join(LV_FIELDS)}")


def _rows(listed: dict[str, list[Any]]) -> Generator[Order, Any, Any]:
    cells = zip(*listed.values(), strict=True)
    many = len(next(iter(listed.values()))) > LARGE
    pieces: list[bytes] = []
    while rows := [dict(zip(listed, row, strict=True)) for row in islice(cells, SLICE if many else None)]:
        if not many:
            return rows
        pieces.append(msgspec.json.encode(rows)[1:-1])
        yield GoOn()
    return msgspec.Raw(b"[%b]" % b",".join(pieces)) if many else []


def _columns(listed: dict[str, list[Any]], apart: bool) -> Generator[Order, Any, dict[str, Any]]:
    """Args: apart: as `Lvs.same`."""
    count = len(next(iter(listed.values())))
    columns: dict[str, Any] = {}
    same: dict[str, Any] = {}
    for field, values in listed.items():
        if apart and count and values[0] == values[-1] and values.count(values[0]) == count:
            same[field] = values[0]
        elif count <= LARGE:
            columns[field] = values
        else:
            columns[field] = msgspec.Raw(msgspec.json.encode(values))
            yield GoOn()
    return {"columns": columns, "same": same, "count": count} if apart else {"columns": columns}


def _answer(told: dict[str, Any], seen: _Seen, only: str) -> dict[str, Any]:
    """Args: only: the VG that was asked for; empty: all of them."""
    answer: dict[str, Any] = {**told, "stale": bool(seen.unlocked)}
    notes = [*seen.unlocked, *seen.notes]
    notes += [
        f"WARNING: VG {one.vg.name} is missing PV {pv.uuid} (last seen as {pv.device})"
        for one in seen.disks.vgs
        if only in ("", one.vg.name)
        for pv in one.missing
    ]
    notes += [
        f"WARNING: {line}" for one in seen.disks.vgs if only in ("", one.vg.name) for line in shrunk(one)
    ]
    notes += [f"WARNING: {why}" for _, why in sorted(seen.disks.problems.items())]
    notes += [f"WARNING: {area.problem}" for pv in seen.disks.pvs for area in pv.areas if area.problem]
    if notes:
        answer["notes"] = notes
    return answer


def _read(only: str) -> Generator[Order, Any, _Seen]:
    """Lock what can be locked, read, unlock."""
    me: Whoami = yield Identity()
    joined: tuple[str, ...] = yield Joined()
    if only and space_of(only) in joined:
        ours = [only]
    else:  # which VGs are there to be locked?
        disks = yield from read_disks(believed=True)
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
    disks = yield from read_disks()
    for lock in locks:
        yield Release(lock)
    return _Seen(disks, tuple(unlocked))


def _add_lvs(
    listed: dict[str, list[Any]],
    found: VgOnDisk,
    call: Lvs,
    volumes: tuple[OpenVolume, ...],
    wrong: tuple[str, ...],
    moved: Mapping[str, str],
) -> Generator[Order, Any, list[Lv]]:
    """Add a VG's LVs to the columns.  Returns the LVs."""
    space = space_of(found.vg.name)
    locks: LockNames = yield LocksThere(space)
    paths = {one.uuid: one for one in volumes if one.vg == found.vg.name}
    view = LvsView(found, {}, Relations(found.vg))
    asks = any(field in HOLDER_FIELDS for field in listed)
    known = locks.here | paths.keys() | (locks.held if asks else frozenset())
    lvs = (find_lv(found.vg, call.lv),) if call.lv else found.vg.lvs
    shown: list[Lv] = []
    for at in range(0, len(lvs), SLICE):
        some = _shown(lvs[at : at + SLICE], call, found.vg, view.relations)
        here: dict[str, LvHere] = {}
        for lv in some if known or wrong else ():
            broken = bool(wrong) and f"{found.vg.name}/{lv.name}" in wrong
            if broken or lv.uuid in known:
                holders: tuple[Holder, ...] = (yield Holders(space, lv.uuid)) if asks else ()
                here[lv.uuid] = _here(holders, lv.uuid in locks.here, paths.get(lv.uuid), broken)
        for lv in some if moved else ():
            mover = by_uuid(found.vg, lv.keeps_for) if lv.keeps_for else None
            if mover is not None and (percent := moved.get(f"{found.vg.name}/{mover.name}")):
                old = here.get(lv.uuid, LvHere())
                here[lv.uuid] = msgspec.structs.replace(old, moved_percent=percent)
        view = msgspec.structs.replace(view, here=here)
        for field, values in lv_columns(view, some, listed).items():
            listed[field] += values
        shown += some
        if at + SLICE < len(lvs):
            yield GoOn()
    return shown


def _shown(lvs: tuple[Lv, ...], call: Lvs, vg: Vg, relations: Relations) -> list[Lv]:
    if call.all or call.lv:
        return [lv for lv in lvs if relations.exists(lv)]
    return [
        lv
        for lv in shown_lvs(lvs, vg, relations)
        if not lv.tags or not (lv.slots or lv.wiping or lv.keeps_for)
    ]


def _here(holders: tuple[Holder, ...], mine: bool, volume: OpenVolume | None, broken: bool) -> LvHere:
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
        active=mine or volume is not None,
        broken=broken,
    )
