"""lvcreate, lvremove, and lvchange's activation, for linear and striped LVs."""

from collections.abc import Generator
from typing import Any

from ringfence.core.errors import BadInput, LocksLost, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.activation import (
    activate,
    close_path,
    deactivate,
    extents_of,
    mode_named,
    open_path,
    take_for_removal,
)
from ringfence.engine.commands.alter import alter
from ringfence.engine.commands.commit import Prepared, begin, commit, prepare
from ringfence.engine.commands.disks import find_vg
from ringfence.engine.commands.locking import LockedVg, fresh_uuids, lock_vg, space_of, undo
from ringfence.engine.orders import (
    Acquire,
    ClosePath,
    Command,
    Extent,
    FindLock,
    Held,
    OpenPaths,
    OpenVolume,
    Order,
    Release,
    Write,
    WriteBlocks,
)
from ringfence.lvm2.names import with_dashes
from ringfence.volumes.alter import check_own_tags
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.layout import Space
from ringfence.volumes.model import Lv, Stripe, Vg
from ringfence.volumes.plan import Maker, check_plain, create_lv, find_lv, free_lv_name, remove_lv
from ringfence.volumes.policies import policy_named
from ringfence.volumes.pv_list import areas_within
from ringfence.volumes.sizes import Size, extents_for_new, stripes_for
from ringfence.wire.client import LvChange, LvCreate, LvRemove

_WIPED_BYTES = 4096
"""LVM2 clears so much of a new LV (-Zy), lest an old file system shines through."""

# -- lvcreate --------------------------------------------------------------------


def lvcreate(call: LvCreate) -> Command:
    """Everything that can be refused is, before the first write; if the new LV cannot be opened it
    is removed again, as LVM2 does."""
    mode = mode_named(call.activate)
    if mode is Mode.PR:
        raise BadInput(
            "a new LV cannot be activated shared", next="lvcreate, then lvchange -an and lvchange -asy"
        )
    locked = yield from lock_vg(call.vg, Mode.EX, call.wait_ms)
    change = yield from begin(locked)
    _, uuids = yield from fresh_uuids(1)
    planned, lv, notes = _plan(locked, call, with_dashes(uuids[0]))
    result: dict[str, Any] = {
        "message": f'Logical volume "{lv.name}" created.',
        "name": lv.name,
        "vg": call.vg,
        "uuid": lv.uuid,
        "size_bytes": lv.extent_count * planned.extent_bytes,
        "notes": notes,
    }
    found = VgOnDisk(planned, 0, locked.found.pvs, ())
    prepared = prepare(change, planned, f"lvcreate {call.vg}/{lv.name}")
    if mode is Mode.UN:
        yield from _wipe(found, lv)
        yield from commit(prepared)
        return result
    opened = yield from _create_active(prepared, found, lv)
    return {**opened, **result}


def _plan(locked: LockedVg, call: LvCreate, uuid: str) -> tuple[Vg, Lv, list[str]]:
    vg, me = locked.found.vg, locked.me
    stripes, notes = stripes_for(vg, call.stripes, call.stripe_size_bytes)
    areas, listed = places_named(locked, call.pvs)
    size = Size(call.size_bytes, call.extents, call.percent)
    wanted = extents_for_new(vg, size, stripes, listed)
    space = Space(areas, policy_named(call.alloc), stripes, wanted.approximate)
    name = call.lv or free_lv_name(vg)
    maker = Maker(f"ringfence lvcreate {vg.name}/{name}", me.name, me.now_wall_s)
    planned = create_lv(
        vg, name, uuid, wanted.extents, maker, space,
        tags=check_own_tags(call.tags), writable=is_writable(call.permission),
    )  # fmt: skip
    return planned, find_lv(planned, name), [*notes, *wanted.notes]


def places_named(locked: LockedVg, words: tuple[str, ...]) -> tuple[tuple[Stripe, ...] | None, int | None]:
    """The free extents of the PVs that are named, and how many; None: none was.  Raises BadInput, Refused."""
    if not words:
        return None, None
    at = {pv.path: name for name, pv in locked.found.pvs.items()}
    at |= {alias: at[path] for alias, path in locked.disks.aliases.items() if path in at}
    areas = areas_within(locked.found.vg, words, at)
    return areas, sum(area.extent_count for area in areas)


def is_writable(permission: str) -> bool:
    """rw | r.  Raises BadInput."""
    if permission not in ("rw", "r"):
        raise BadInput(f"permission {permission!r} is not known", next="give rw or r")
    return permission == "rw"


def _wipe(found: VgOnDisk, lv: Lv) -> Generator[Order, Any, None]:
    """Before the commit: the extents are still free, and a crash leaves them so."""
    first: Extent = extents_of(found, lv)[0]
    data = bytes(min(_WIPED_BYTES, first.length_bytes))
    yield WriteBlocks((Write(first.path, first.start_bytes, data),), found.vg.name, "wipe")


def _create_active(prepared: Prepared, found: VgOnDisk, lv: Lv) -> Generator[Order, Any, dict[str, Any]]:
    vg = found.vg.name
    held: Held = yield Acquire(space_of(vg), lv.uuid, Mode.EX, 0, persistent=True, what=f"LV {vg}/{lv.name}")
    try:
        yield from _wipe(found, lv)
        committed = yield from commit(prepared)
    except RingfenceError as error:
        yield from undo(error, Release(held.lock))
        raise
    found = VgOnDisk(committed, 0, found.pvs, ())
    try:
        return (yield from open_path(found, lv, held))
    except RingfenceError as error:
        if (yield from undo(error, ClosePath(vg, lv.name, lv.uuid))):
            yield from _uncreate(vg, lv, held, error)
        elif not isinstance(error, LocksLost):
            raise _half_made(vg, lv, error, f"lvchange -an {vg}/{lv.name}") from error
        raise


def _uncreate(vg: str, lv: Lv, held: Held, error: RingfenceError) -> Generator[Order, Any, None]:
    """Raises if the LV cannot be removed again; says then that it is there, inactive."""
    try:
        locked = yield from lock_vg(vg, Mode.EX)
        change = yield from begin(locked)
        yield from commit(prepare(change, remove_lv(change.vg, lv.name), f"lvremove {vg}/{lv.name}"))
    except RingfenceError as second:
        yield from undo(second, Release(held.lock))
        raise _half_made(vg, lv, error, f"lvchange -aey {vg}/{lv.name}") from error
    yield from undo(error, Release(held.lock))


def _half_made(vg: str, lv: Lv, error: RingfenceError, next: str) -> RingfenceError:
    message = f"Logical volume {vg}/{lv.name} was created, but not activated: {error.message}"
    return type(error)(message, node=error.node, next=next)


# -- lvremove --------------------------------------------------------------------


def lvremove(call: LvRemove) -> Command:
    locked = yield from lock_vg(call.vg, Mode.EX)
    change = yield from begin(locked)
    lv = find_lv(change.vg, call.lv)
    prepared = prepare(change, remove_lv(change.vg, call.lv), f"lvremove {call.vg}/{call.lv}")
    lock = yield from take_for_removal(change.vg, lv, force=call.force)
    try:
        yield from close_path(call.vg, lv)
        yield from commit(prepared)
    except RingfenceError as error:
        yield from undo(error, ClosePath(call.vg, lv.name, lv.uuid), Release(lock))
        raise
    yield Release(lock)
    return {"message": f'Logical volume "{call.lv}" successfully removed.', "vg": call.vg, "name": call.lv}


# -- lvchange --------------------------------------------------------------------


def lvchange(call: LvChange) -> Command:
    """Activate or deactivate one LV, or every LV of the VG that can be; or what `alter` does."""
    if not call.activate:
        return (yield from alter(call))
    if call.add_tags or call.drop_tags or call.permission or call.alloc or call.refresh:
        raise BadInput("an activation and other changes are two commands", next="lvchange -a alone first")
    mode = mode_named(call.activate)
    if call.lv:
        return {"message": "", **(yield from _switch(call.vg, call.lv, mode, call.wait_ms))}
    names = yield from _all_names(call.vg, mode)
    done, refused = [], []
    for name in names:
        try:
            done.append((yield from _switch(call.vg, name, mode, call.wait_ms)))
        except LocksLost:
            raise
        except RingfenceError as error:
            refused.append(error)
    if refused:
        first = refused[0]
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise type(first)(f"{first.message}{more}", node=first.node, next=first.next, retry=first.retry)
    verb = "active" if mode is not Mode.UN else "inactive"
    return {
        "message": f'{len(done)} logical volume(s) in volume group "{call.vg}" now {verb}',
        "vg": call.vg,
        "lvs": done,
    }


def _switch(vg: str, name: str, mode: Mode, wait_ms: int | None) -> Generator[Order, Any, dict[str, Any]]:
    if mode is Mode.UN:
        return (yield from deactivate(vg, name))
    return (yield from activate(vg, name, mode, wait_ms))


def _all_names(vg: str, mode: Mode) -> Generator[Order, Any, list[str]]:
    """To deactivate: what is open or locked here.  To activate: every plain LV."""
    if mode is Mode.UN:
        volumes: tuple[OpenVolume, ...] = yield OpenPaths()
        names = [one.lv for one in volumes if one.vg == vg]
        _, found = yield from find_vg(vg)
        for lv in found.vg.lvs:
            if lv.name not in names and (yield FindLock(space_of(vg), lv.uuid)) is not None:
                names.append(lv.name)
        return names
    locked = yield from lock_vg(vg, Mode.PR)
    yield Release(locked.held.lock)
    return [lv.name for lv in locked.found.vg.lvs if _is_plain(locked.found.vg, lv)]


def _is_plain(vg: Vg, lv: Lv) -> bool:
    try:
        check_plain(vg, lv)
    except Refused:
        return False
    return True
