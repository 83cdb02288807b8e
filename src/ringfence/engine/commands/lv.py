"""lvcreate, lvremove, and lvchange's activation, for linear and striped LVs."""

from collections.abc import Generator
from functools import partial
from typing import Any

from ringfence.core.errors import BadInput, LocksLost, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.activation import (
    activate,
    close_path,
    deactivate,
    mode_named,
    open_path,
    take_for_removal,
    used_here,
)
from ringfence.engine.commands.alter import alter
from ringfence.engine.commands.beside import beside, holes
from ringfence.engine.commands.commit import Prepared, begin, commit, prepare
from ringfence.engine.commands.locking import LockedVg, lock_vg, space_of, undo
from ringfence.engine.commands.whole_vg import Outcome, activate_all, deactivate_all
from ringfence.engine.commands.wiping import cleanse, explain_lack
from ringfence.engine.commands.zeroing import fits_at_once, zero_lv
from ringfence.engine.orders import (
    Acquire,
    ClosePath,
    Command,
    Held,
    Order,
    Release,
)
from ringfence.lvm2.names import with_dashes
from ringfence.volumes.alter import check_own_name, check_own_tags
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.layout import Space
from ringfence.volumes.model import Lv, Stripe, Vg
from ringfence.volumes.plan import Maker, check_plain, create_lv, find_lv, free_lv_name, remove_lv
from ringfence.volumes.policies import policy_named
from ringfence.volumes.pv_list import areas_within
from ringfence.volumes.sizes import Size, extents_for_new, stripes_for
from ringfence.volumes.unclean import by_uuid, check_removable, mark_wiping, mark_zeroing, size_of
from ringfence.wire.client import LvChange, LvCreate, LvRemove

# -- lvcreate --------------------------------------------------------------------


def lvcreate(call: LvCreate) -> Command:
    """Everything that can be refused is, before the first write; if the new LV cannot be opened it
    is removed again, as LVM2 does."""
    mode = mode_named(call.activate)
    check_own_name(call.lv)
    if mode is Mode.PR:
        raise BadInput(
            "a new LV cannot be activated shared", next="lvcreate, then lvchange -an and lvchange -asy"
        )
    locked = yield from lock_vg(call.vg, Mode.EX, call.wait_ms)
    change = yield from begin(locked)
    try:
        plan = partial(_plan, locked, call, with_dashes(locked.me.uuid_seeds[0]))
        planned, lv, notes = yield from beside(holes(change.vg), plan)
    except LocksLost:
        raise
    except Refused as error:
        raise explain_lack(locked.found, error, locked.me.wipe_mib_s) from error
    result: dict[str, Any] = {
        "message": f'Logical volume "{lv.name}" created.',
        "name": lv.name,
        "vg": call.vg,
        "uuid": lv.uuid,
        "size_bytes": lv.extent_count * planned.extent_bytes,
        "notes": notes,
    }
    found = VgOnDisk(planned, 0, locked.found.pvs, ())
    if call.wipe and not fits_at_once(size_of(planned, lv)):
        marked = yield from beside(len(lv.segments), partial(mark_zeroing, planned, lv.name))
        yield from commit(prepare(change, marked, f"lvcreate {call.vg}/{lv.name}"))
        return {**(yield from _zeroed(call, lv, mode)), **result}
    prepared = prepare(change, planned, f"lvcreate {call.vg}/{lv.name}")
    # Zeroed before the commit: the extents are still free, and a crash leaves them so.
    if mode is Mode.UN:
        zeros = (yield from zero_lv(found, lv)) if call.wipe else ()
        yield from commit(prepared, zeros)
        return result
    opened = yield from _create_active(prepared, found, lv, call.wipe)
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


def _zeroed(call: LvCreate, lv: Lv, mode: Mode) -> Generator[Order, Any, dict[str, Any]]:
    """It is committed, and nobody opens it before it is zeroed; who wants it active waits for that."""
    name = f"{call.vg}/{lv.name}"
    if mode is Mode.UN:
        return {"zeroing": True, "unclean": lv.name, "uuid_unclean": lv.uuid}
    try:
        done = yield from cleanse(call.vg, lv.uuid, lv.name, None, paced=False)
        if done is not None and not done.finished:
            raise Refused("somebody else wants it", retry=True)
    except RingfenceError as error:
        if isinstance(error, LocksLost):
            raise
        message = f"Logical volume {name} was created, and is zeroed in the background: {error.message}"
        raise type(error)(message, node=error.node, next=f"lvchange -aey {name}, after that") from error
    return (yield from activate(call.vg, lv.name, mode, call.wait_ms))


def _create_active(
    prepared: Prepared, found: VgOnDisk, lv: Lv, wipe: bool
) -> Generator[Order, Any, dict[str, Any]]:
    vg = found.vg.name
    held: Held = yield Acquire(space_of(vg), lv.uuid, Mode.EX, 0, persistent=True, what=f"LV {vg}/{lv.name}")
    try:
        zeros = (yield from zero_lv(found, lv)) if wipe else ()
        committed = yield from commit(prepared, zeros)
    except RingfenceError as error:
        yield from undo(error, Release(held.lock))
        raise
    found = VgOnDisk(committed, 0, found.pvs, ())
    try:
        return (yield from open_path(found, lv, held))
    except RingfenceError as error:
        if (yield from undo(error, ClosePath(vg, lv.name, lv.uuid, own=True))):
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
    """What is small is wiped here, before the commit: a crash leaves the LV, emptied in part.  What is larger
    is committed as one that is to be wiped, and goes by itself (`wiping`).

    So is all that is removed while a PV of the VG is missing: what lies there cannot be wiped yet, and the
    mark is what remembers it; nothing else is written meanwhile, for what is here may be old."""
    locked = yield from lock_vg(call.vg, Mode.EX)
    change = yield from begin(locked, partial=True)
    lv = find_lv(change.vg, call.lv)
    check_plain(change.vg, lv, f"lvremove {call.vg}/{call.lv}", unclean=True)
    check_removable(change.vg, lv, wipe=call.wipe)
    wipes = call.wipe and not lv.unclean
    lost = bool(locked.found.lost)
    later = wipes and (lost or not fits_at_once(size_of(change.vg, lv)))
    plan = partial(mark_wiping if later else remove_lv, change.vg, lv.name)
    planned = yield from beside(len(lv.segments), plan)
    prepared = prepare(change, planned, f"lvremove {call.vg}/{call.lv}")
    used = (yield from used_here((lv.uuid,))) if call.force else frozenset()
    lock = yield from take_for_removal(change.vg, lv, force=call.force, used=used)
    try:
        yield from close_path(call.vg, lv)
        zeros = (yield from zero_lv(locked.found, lv)) if wipes and not later else ()
        yield from commit(prepared, zeros)
    except RingfenceError as error:
        yield from undo(error, ClosePath(call.vg, lv.name, lv.uuid), Release(lock))
        raise
    yield Release(lock)
    message = f'Logical volume "{call.lv}" successfully removed.'
    if later:
        message += f"\nIts {lv.extent_count} extents are " + (
            f"wiped, and free, once no PV is missing (see: vgs -o +vg_missing_pv_count {call.vg})."
            if lost
            else "being wiped, and free after that."
        )
    answer = {"message": message, "vg": call.vg, "name": call.lv, "wiping": later}
    left = by_uuid(planned, lv.uuid) if later else None
    return {**answer, "unclean": left.name, "uuid_unclean": left.uuid} if left is not None else answer


# -- lvchange --------------------------------------------------------------------


def lvchange(call: LvChange) -> Command:
    """Activate or deactivate one LV, or every LV of the VG that can be; or what `alter` does."""
    if call.partial and call.activate in ("", "n"):
        raise BadInput("--partial is for an activation", next="give it with -aey")
    if not call.activate:
        return (yield from alter(call))
    if call.add_tags or call.drop_tags or call.permission or call.alloc or call.refresh:
        raise BadInput("an activation and other changes are two commands", next="lvchange -a alone first")
    mode = mode_named(call.activate)
    if call.lv:
        return {"message": "", **(yield from _switch(call, call.lv, mode))}
    out = Outcome(told=not call.counted)
    if mode is Mode.UN:
        yield from deactivate_all(call.vg, out, disconnect=call.disconnect)
    else:
        yield from activate_all(call.vg, mode, call.wait_ms, out, partial=call.partial)
        yield from _one_by_one(call, mode, out)
    verb = "active" if mode is not Mode.UN else "inactive"
    message = f'{out.count} logical volume(s) in volume group "{call.vg}" now {verb}'
    if out.refused:
        first = out.refused[0]
        more = f" (and {len(out.refused) - 1} more)" if len(out.refused) > 1 else ""
        raise type(first)(
            f"{first.message}{more}; {message}", node=first.node, next=first.next, retry=first.retry
        )
    return {
        "message": message,
        "vg": call.vg,
        **({"count": out.count} if call.counted else {"lvs": out.done}),
    }


def _activate(call: LvChange, name: str, mode: Mode) -> Generator[Order, Any, dict[str, Any]]:
    return (yield from activate(
        call.vg, name, mode, call.wait_ms, force=call.force, partial=call.partial,
        disconnect=call.disconnect,
    ))  # fmt: skip


def _one_by_one(call: LvChange, mode: Mode, out: Outcome) -> Generator[Order, Any, None]:
    for name in out.left:
        try:
            out.add((yield from _activate(call, name, mode)))
        except LocksLost:
            raise
        except RingfenceError as error:
            out.refused.append(error)


def _switch(call: LvChange, name: str, mode: Mode) -> Generator[Order, Any, dict[str, Any]]:
    if mode is Mode.UN:
        return (yield from deactivate(call.vg, name, disconnect=call.disconnect))
    return (yield from _activate(call, name, mode))
