"""vgextend, vgreduce: which PVs a VG has.

vgextend, after a crash at each step:

    PVs made (those that were none):      the VG as it was; PVs without one
    text, pre-commit:                     likewise
    commit on the first area:             the VG with its new PVs; the next change writes the areas that lag
    labels marked "in a VG":              likewise (the mark is a hint)

vgreduce, after a crash at each step:

    text, pre-commit:                     the VG as it was
    commit on the first area:             the VG without the PVs; they still carry an older version of it,
                                          which nobody takes for the newest; vgck --updatemetadata clears it,
                                          and so does vgextend
    their labels unmarked:                likewise
    their areas emptied:                  PVs without a VG

vgreduce --removemissing --force removes LVs first, in the same version of the metadata.  The lock of each is
held EX until then, so an LV that any host uses is not removed, whatever this host finds missing.  What they
have of PVs that stay is kept to be wiped (`volumes.freed`).  LVs that were removed before, and wait for a
missing PV to be wiped (`wiping`), go so without --force, too."""

from collections.abc import Generator
from typing import Any

from ringfence.core.errors import BadInput, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.activation import close_path, take_for_removal
from ringfence.engine.commands.commit import Change, begin, commit, prepare
from ringfence.engine.commands.disks import device_named
from ringfence.engine.commands.locking import (
    LockedVg,
    fresh_uuids,
    lock_global,
    lock_vg,
    undo,
    unlock_global,
)
from ringfence.engine.commands.pvcreate import PvPlan, lay_out_members, make_pv, planned_pv
from ringfence.engine.orders import ClosePath, Command, EndSlots, Order, Release, Write, WriteBlocks
from ringfence.lvm2.area import MdaHeader, print_header
from ringfence.lvm2.label import SECTOR_BYTES, mark_used
from ringfence.lvm2.names import with_dashes
from ringfence.volumes.discovery import PvOnDisk, VgOnDisk
from ringfence.volumes.freed import keep_to_wipe, left_on
from ringfence.volumes.groups import extend, partial, pv_at, reduce, restore_missing, users_on
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.plan import Maker, check_plain, remove_lv
from ringfence.volumes.slots import slots_of
from ringfence.volumes.unclean import WIPING_SUFFIX, check_kept
from ringfence.wire.client import VgExtend, VgReduce

# -- vgextend --------------------------------------------------------------------


def vgextend(call: VgExtend) -> Command:
    if not call.devices:
        raise BadInput("no device given", next=f"vgextend {call.vg} DEVICE...")
    if call.restore_missing:
        return (yield from _restore(call))
    global_lock = yield from lock_global()
    locked = yield from lock_vg(call.vg, Mode.EX)
    change = yield from begin(locked, resizing=True)
    _, uuids = yield from fresh_uuids(len(call.devices))
    plans, members = yield from lay_out_members(
        locked.disks, call.devices, uuids, call.metadata_size_bytes, force=call.force, into=change.vg
    )
    planned = extend(change.vg, members)
    found = _extended(locked.found, planned, locked, plans)
    prepared = prepare(change, planned, f"vgextend {call.vg}", found)
    for plan in plans:
        yield from make_pv(plan, guard=call.vg)
    yield from commit(prepared)
    yield from unlock_global(global_lock)
    return {"message": f'Volume group "{call.vg}" successfully extended', "vg": call.vg}


def _extended(found: VgOnDisk, planned: Vg, locked: LockedVg, plans: list[PvPlan]) -> VgOnDisk:
    """The VG on its PVs as they are once the plans are carried out."""
    made = {plan.path: planned_pv(plan) for plan in plans}
    pvs = dict(found.pvs)
    for pv in planned.pvs[len(found.vg.pvs) :]:
        have = made.get(pv.device) or locked.disks.pv_at(pv.device)
        assert have is not None
        pvs[pv.name] = have
    return on_pvs(planned, pvs)


def on_pvs(vg: Vg, pvs: dict[str, PvOnDisk]) -> VgOnDisk:
    """A planned VG on these devices."""
    areas = tuple(area for pv in pvs.values() for area in pv.areas if area.in_use)
    return VgOnDisk(vg, 0, pvs, areas)


def _restore(call: VgExtend) -> Command:
    """PVs that were missing are there again, and what they hold is to be trusted."""
    locked = yield from lock_vg(call.vg, Mode.EX)
    change = yield from begin(locked, partial=True)
    paths = [device_named(locked.disks, device) for device in call.devices]
    names = [pv_at(locked.found, path).name for path in paths]
    planned = restore_missing(change.vg, names)
    yield from commit(prepare(change, planned, f"vgextend --restoremissing {call.vg}"))
    return {"message": f'Volume group "{call.vg}" successfully extended', "vg": call.vg}


# -- vgreduce --------------------------------------------------------------------


def vgreduce(call: VgReduce) -> Command:
    if sum((bool(call.devices), call.all, call.remove_missing)) != 1:
        raise BadInput(
            "give physical volumes, or --all, or --removemissing", next=f"vgreduce {call.vg} DEVICE..."
        )
    global_lock = yield from lock_global()
    locked = yield from lock_vg(call.vg, Mode.EX)
    if call.remove_missing:
        answer = yield from _remove_missing(call, locked)
    else:
        answer = yield from _reduce(call, locked)
    yield from unlock_global(global_lock)
    return answer


def _reduce(call: VgReduce, locked: LockedVg) -> Generator[Order, Any, dict[str, Any]]:
    change = yield from begin(locked, resizing=True)
    found, vg = locked.found, change.vg
    if call.all:
        names = [pv.name for pv in vg.pvs if not users_on(vg, pv.name)]
        names = names if len(names) < len(vg.pvs) else names[1:]
        if not names:
            raise Refused(f"every PV of VG {vg.name} is in use", next="see: pvs -o +pv_used")
    else:
        paths = [device_named(locked.disks, device) for device in call.devices]
        names = list(dict.fromkeys(pv_at(found, path).name for path in paths))
    planned = reduce(vg, names)
    prepared = prepare(change, planned, f"vgreduce {vg.name}", _without(found, names))
    yield from commit(prepared)
    gone = [found.pvs[name] for name in names]
    yield from clear(gone, vg.name)
    lines = [f'Removed "{pv.path}" from volume group "{vg.name}"' for pv in gone]
    return {"message": "\n".join(lines), "vg": vg.name, "pvs": [pv.path for pv in gone]}


def _without(found: VgOnDisk, names: list[str]) -> VgOnDisk:
    """Raises Refused if no metadata area in use would be left."""
    left = on_pvs(found.vg, {name: pv for name, pv in found.pvs.items() if name not in names})
    if not left.areas:
        raise Refused(
            f'Cannot remove final metadata area from "{found.vg.name}"',
            next="add a PV with a metadata area first: vgextend",
        )
    return left


def clear(pvs: list[PvOnDisk], guard: str) -> Generator[Order, Any, None]:
    """Make PVs that are a VG's no more PVs without one.

    Labels first: one that still carries an old version is known by it, and is cleared by the next who looks;
    one that is merely marked as in use would be nobody's."""
    writes = [
        Write(pv.path, pv.label.sector * SECTOR_BYTES, mark_used(pv.start, pv.label, used=False))
        for pv in pvs
        if pv.label.used
    ]
    writes += [
        Write(area.path, area.place.offset_bytes, _empty(area.place.offset_bytes, area.place.size_bytes))
        for pv in pvs
        for area in pv.areas
        if not area.empty
    ]
    if writes:
        yield WriteBlocks(tuple(writes), guard, "pv-header")


def _empty(start_bytes: int, size_bytes: int) -> bytes:
    return print_header(MdaHeader(start_bytes, size_bytes))


# -- vgreduce --removemissing ------------------------------------------------------


def _remove_missing(call: VgReduce, locked: LockedVg) -> Generator[Order, Any, dict[str, Any]]:
    change = yield from begin(locked, partial=True)
    vg, found = change.vg, locked.found
    missing = sorted(found.lost)
    if not missing:
        yield Release(locked.held.lock)
        return {"message": f'Volume group "{vg.name}" is already consistent.', "vg": vg.name}
    lacking = partial(vg, missing)
    notes: list[str] = []
    if not call.force:
        kept = [lv for lv in lacking if not lv.wiping]
        notes = [f"WARNING: Partial LV {lv.name} needs to be repaired or removed." for lv in kept]
        waiting = [lv for lv in lacking if lv.wiping]
        names = {lv.name for lv in waiting}
        missing = [name for name in missing if names.issuperset(users_on(vg, name))]
        if notes and not missing:
            raise Refused(
                f"There are still partial LVs in VG {vg.name}: {', '.join(lv.name for lv in kept)}",
                next=f"to remove them unconditionally: vgreduce --removemissing --force {vg.name}",
            )
        lacking = [lv for lv in waiting if left_on(lv, missing)]
    yield from _drop(change, lacking, missing)
    gone = [found.pvs[name] for name in missing if name in found.pvs]
    yield from clear(gone, vg.name)
    lines = [f'Logical volume "{lv.name}" successfully removed.' for lv in lacking if not lv.wiping]
    if notes:
        notes.append(f"There are still partial LVs in VG {vg.name}: vgreduce --removemissing --force")
    else:
        lines.append(f"Wrote out consistent volume group {vg.name}.")
    return {"message": "\n".join(lines), "vg": vg.name, **({"notes": notes} if notes else {})}


def _drop(change: Change, lvs: list[Lv], missing: list[str]) -> Generator[Order, Any, None]:
    """Commit the VG without these LVs and PVs.  What can be refused is, before anything is written."""
    vg, locked = change.vg, change.locked
    slots = slots_of(vg)
    planned = vg
    for lv in lvs:
        if lv is slots:
            planned = planned.without_lv(lv.name)
        else:
            check_kept(vg, lv)
            check_plain(vg, lv, unclean=True)
            planned = remove_lv(planned, lv.name)
    planned = reduce(planned, missing)
    what = f"vgreduce --removemissing {vg.name}"
    planned = yield from _kept_to_wipe(planned, [lv for lv in lvs if not (lv.slots or lv.zeroing)], what)
    prepared = prepare(change, planned, what, _without(locked.found, missing))
    users = [lv for lv in lvs if lv is not slots]
    locks = []
    for lv in users:
        locks.append((yield from take_for_removal(vg, lv, force=None)))
    try:
        for lv in users:
            yield from close_path(vg.name, lv)
        if slots in lvs:
            yield EndSlots(vg.name)  # or a node would write its slot where another's data is by then
        yield from commit(prepared)
    except RingfenceError as error:
        for lv, lock in zip(users, locks, strict=True):
            yield from undo(error, ClosePath(vg.name, lv.name), Release(lock))
        raise
    for lock in locks:
        yield Release(lock)


def _kept_to_wipe(vg: Vg, lvs: list[Lv], what: str) -> Generator[Order, Any, Vg]:
    """With what removed LVs have left on the PVs that stay."""
    staying = [pv.name for pv in vg.pvs]
    left = [(lv.name.removesuffix(WIPING_SUFFIX), left_on(lv, staying)) for lv in lvs]
    me, uuids = yield from fresh_uuids(len(lvs))
    maker = Maker(f"ringfence {what}", me.name, me.now_wall_s)
    for (name, places), uuid in zip(left, uuids, strict=False):
        if places:
            vg = keep_to_wipe(vg, name, places, with_dashes(uuid), maker)
    return vg
