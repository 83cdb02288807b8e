"""vgcreate, vgremove, and a VG's lockspace: vgchange --lockstart, --lockstop, the start by itself.

vgcreate, after a crash at each step:

    PVs made (those that were none):      no VG; PVs without one
    text, pre-commit:                     no VG
    commit on the first area:             the VG, whole; other areas lag until the next change
    labels marked "in a VG":              the VG (the mark is only a hint; the next change repairs it)

vgremove, after a crash at each step:

    labels no longer marked:              the VG
    some areas emptied:                   the VG, as long as one area names it; those that lag are
                                          emptied first, so that no older version comes back
    all areas emptied:                    no VG; PVs without one"""

from collections.abc import Generator
from contextlib import suppress
from typing import Any

from ringfence.core.errors import BadInput, Damaged, NotFound, Refused, RingfenceError
from ringfence.core.locknames import VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine.commands.activation import close_path, take_for_removal, used_here
from ringfence.engine.commands.commit import (
    begin,
    finish,
    label_writes,
    place,
    refuse_with_lvs,
    write_version,
)
from ringfence.engine.commands.disks import find_vg, read_disks
from ringfence.engine.commands.locking import (
    VG_RESOURCE,
    LockedVg,
    Version,
    fresh_uuids,
    join,
    lock_global,
    lock_vg,
    print_lvb,
    space_of,
    undo,
    unlock_global,
)
from ringfence.engine.commands.pvcreate import PvPlan, lay_out_members, make_pv, planned_pv
from ringfence.engine.commands.slots import end_slots, note_made, note_slots, write_empty
from ringfence.engine.orders import (
    Acquire,
    ClosePath,
    Command,
    FindLock,
    Held,
    Identity,
    Joined,
    JoinLockspace,
    LeaveLockspace,
    NoteRenamed,
    NoteStopped,
    NoteUnclean,
    NoteUnseen,
    OpenPaths,
    OpenVolume,
    Order,
    Publish,
    Release,
    Whoami,
    Write,
    WriteBlocks,
)
from ringfence.lvm2.area import MdaHeader, print_header
from ringfence.lvm2.names import check_vg_name, with_dashes
from ringfence.volumes.access import check_ours, is_ours
from ringfence.volumes.checks import check_vg
from ringfence.volumes.discovery import AreaOnDisk, Disks, PvOnDisk, VgOnDisk
from ringfence.volumes.groups import tag, with_properties
from ringfence.volumes.known import Known
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.plan import Maker, check_plain, create_vg
from ringfence.volumes.sizes import check_extent_size
from ringfence.volumes.slots import add_slots, slots_of
from ringfence.volumes.unclean import unclean_uuids
from ringfence.wire.client import VgChange, VgCreate, VgRemove

# -- vgcreate --------------------------------------------------------------------


def vgcreate(call: VgCreate) -> Command:
    check_vg_name(call.vg)
    if not call.shared:
        raise BadInput(
            f"VG {call.vg} would not be shared: only shared VGs are made here",
            next=f"vgcreate --shared {call.vg} DEVICE...",
        )
    if not call.devices:
        raise BadInput("no device given", next=f"vgcreate --shared {call.vg} DEVICE...")
    extent_sectors = check_extent_size(call.extent_size_bytes)
    global_lock = yield from lock_global()
    disks = yield from read_disks()
    if any(found.vg.name == call.vg for found in disks.vgs):
        raise BadInput(f'A volume group called "{call.vg}" already exists', next="choose another name")
    me, uuids = yield from fresh_uuids(2 + len(call.devices))
    plans, members = yield from lay_out_members(
        disks, call.devices, uuids[2:], call.metadata_size_bytes, force=call.force
    )
    maker = Maker(f"ringfence vgcreate {call.vg}", me.name, me.now_wall_s)
    vg = create_vg(call.vg, with_dashes(uuids[0]), me.cluster, members, extent_sectors, maker)
    vg = with_properties(
        tag(vg, call.tags, ()), call.policy, call.max_lv, call.max_pv, call.autoactivation
    )
    vg, notes = _with_slots(vg, with_dashes(uuids[1]), me, maker)
    check_vg(vg)
    yield from join(space_of(call.vg))
    held: Held = yield Acquire(space_of(call.vg), VG_RESOURCE, Mode.EX, what=f"VG {call.vg}")
    for plan in plans:
        yield from make_pv(plan, guard=call.vg)
    found = _on_disk(vg, disks, plans)
    if slots_of(vg) is not None:
        yield from write_empty(found, me.cluster)
    yield from _write_new(LockedVg(held, disks, found, me), call)
    yield from note_made(call.vg, me) if slots_of(vg) is not None else note_slots([found], me)
    yield from unlock_global(global_lock)
    message = f'Volume group "{call.vg}" successfully created'
    return {"message": message, "vg": call.vg, **({"notes": notes} if notes else {})}


def _with_slots(vg: Vg, uuid: str, me: Whoami, maker: Maker) -> tuple[Vg, list[str]]:
    """The new VG with disk slots, where there is room and every node knows them; and what to say."""
    if not me.slots:
        return vg, []
    try:
        return add_slots(vg, uuid, max(me.node_names), maker), []
    except Refused as error:
        return vg, [f"VG {vg.name} is made without disk slots: {error.message}"]


def _on_disk(vg: Vg, disks: Disks, plans: list[PvPlan]) -> VgOnDisk:
    """The new VG on its PVs as they are once the plans are carried out."""
    made = {plan.path: planned_pv(plan) for plan in plans}
    pvs: dict[str, PvOnDisk] = {}
    for pv in vg.pvs:
        have = made.get(pv.device) or disks.pv_at(pv.device)
        assert have is not None
        pvs[pv.name] = have
    areas = tuple(area for one in pvs.values() for area in one.areas if area.in_use)
    return VgOnDisk(vg, 0, pvs, areas)


def _write_new(locked: LockedVg, call: VgCreate) -> Generator[Order, Any, None]:
    found = locked.found
    text = found.vg.text
    left_over = any(area.header is not None and not area.header.precommitted.empty for area in found.areas)
    placed = place(found.areas, text, avoid=locked.held.token.position if left_over else None)
    yield from write_version(placed, text, call.vg)
    yield from label_writes(found, used=True)
    slot = placed[0].slot
    yield from finish(locked, Known(found.vg, slot.crc, slot.size_bytes), f"vgcreate {call.vg}")


# -- vgremove --------------------------------------------------------------------


def vgremove(call: VgRemove) -> Command:
    global_lock = yield from lock_global()
    locked = yield from lock_vg(call.vg, Mode.EX)
    yield from begin(locked)
    found = locked.found
    vg = found.vg
    if not call.force:
        refuse_with_lvs(vg)
    lvs = [lv for lv in vg.lvs if not lv.slots]
    for lv in lvs:
        check_plain(vg, lv, unclean=True)
    locks = yield from _take_all(vg, lvs, call.force)
    restore: Order | None = None
    try:
        for lv in lvs:
            yield from close_path(vg.name, lv)
        # Or a node would write its slot where another's data is by then.
        restore = yield from end_slots(found, locked.me.cluster)
        yield from label_writes(found, used=False)
        lagging = found.lagging
        areas = sorted(found.areas, key=lambda area: area not in lagging)
        yield WriteBlocks(tuple(_emptied(area) for area in areas), vg.name, "commit")
    except RingfenceError as error:
        for lv, lock in zip(lvs, locks, strict=True):
            yield from undo(error, ClosePath(vg.name, lv.name, lv.uuid), Release(lock))
        if slots_of(vg) is not None and (yield from undo(error, *([restore] if restore else []))):
            yield from note_slots([found], locked.me)
        raise
    yield Publish(vg.name, vg.seqno + 1, 0, f"{locked.me.name}: vgremove {vg.name}", removed=True)
    for lock in locks:
        yield Release(lock)
    yield Release(locked.held.lock, print_lvb(Version(vg.seqno + 1, 0, removed=True)))
    with suppress(Refused):  # the VG is gone all the same; an empty lockspace does no harm
        yield LeaveLockspace(space_of(vg.name))
    yield from unlock_global(global_lock)
    messages = [f'Logical volume "{lv.name}" successfully removed.' for lv in lvs]
    messages.append(f'Volume group "{vg.name}" successfully removed')
    left = ["WARNING: what its LVs held is left on the PVs: lvremove has it wiped, vgremove has not"]
    return {"message": "\n".join(messages), "vg": vg.name, **({"notes": left} if lvs else {})}


def _take_all(vg: Vg, lvs: list[Lv], force: bool) -> Generator[Order, Any, list[int]]:
    """EX on every LV."""
    locks: list[int] = []
    used = (yield from used_here({lv.uuid for lv in lvs})) if force else frozenset()
    for lv in lvs:
        # If one is refused, the transient ones end with the command; what was active stays active.
        locks.append((yield from take_for_removal(vg, lv, force=force, used=used)))
    return locks


def _emptied(area: AreaOnDisk) -> Write:
    header = MdaHeader(area.place.offset_bytes, area.place.size_bytes)
    return Write(area.path, header.start_bytes, print_header(header))


# -- lockspaces ------------------------------------------------------------------


def vgchange(call: VgChange) -> Command:
    match call.action:
        case "lockstart":
            return (yield from _lockstart(call.vg))
        case "lockstop":
            return (yield from _lockstop(call.vg))
    raise BadInput(f"vgchange: {call.action!r} is not known", next="give --lockstart or --lockstop")


def _lockstart(name: str) -> Command:
    me: Whoami = yield Identity()
    if not name:
        return (yield from autostart())
    _, found = yield from find_vg(name)
    check_ours(found.vg, me.cluster)
    yield JoinLockspace(space_of(name))
    yield from note_slots([found], me)
    return {"message": f"VG {name} starting dlm lockspace", "started": [name]}


def autostart(
    stopped: dict[str, str] | None = None, uuids: dict[str, str] | None = None, removed: tuple[str, ...] = ()
) -> Command:
    """Join the lockspace of every VG that this cluster shares, and leave those of names that a VG bears no
    more.  Run when the node becomes ready, and when a VG is made, renamed or removed.

    Args:
        stopped: VGs that were stopped here by hand, with uuids, "" if not known.  They are left alone,
            whatever they are called by now; another one that bears such a name is not meant.
        uuids: which VG each lockspace is of, as this node last saw it.
        removed: VGs of which that was said; there may be new ones of their names by now."""
    me: Whoami = yield Identity()
    disks = yield from read_disks()
    known = uuids or {}
    by_hand = {name: uuid or known.get(space_of(name), "") for name, uuid in (stopped or {}).items()}
    named = {uuid: name for name, uuid in by_hand.items() if uuid}
    ours = {found.vg.name: found.vg.uuid for found in disks.vgs if is_ours(found.vg, me.cluster)}
    renamed = {name: named[uuid] for name, uuid in ours.items() if named.get(uuid, name) != name}
    if renamed:
        yield NoteRenamed(renamed)
    if by_hand:
        seen = {known_by for found in disks.vgs for known_by in (found.vg.uuid, found.vg.name)}
        left = [(name, uuid or name) for name, uuid in by_hand.items() if name not in renamed]
        unseen = tuple(name for name, what in left if what not in seen)
        yield NoteUnseen(unseen, tuple(name for name in unseen if name in removed))
    names = [name for name, uuid in ours.items() if uuid not in named and by_hand.get(name) != ""]
    for name in names:
        yield from join(space_of(name))
    for found in disks.vgs:
        if found.vg.name in names and (unclean := unclean_uuids(found.vg)):
            yield NoteUnclean(found.vg.name, unclean)
    joined: tuple[str, ...] = yield Joined()
    gone = [space for space, uuid in known.items() if uuid in ours.values()]
    gone += [space_of(name) for name in removed]
    for space in dict.fromkeys(gone):
        if space in joined and space.removeprefix(VG_SPACE) not in ours:
            with suppress(Refused):  # somebody uses it yet; an empty lockspace does no harm
                yield LeaveLockspace(space)
    yield from note_slots(list(disks.vgs), me)
    return {
        "message": "\n".join(f"VG {name} starting dlm lockspace" for name in names),
        "started": names,
    }


def _lockstop(name: str) -> Command:
    """Closes nothing: whoever stops a lockspace ends the use of its LVs first."""
    me: Whoami = yield Identity()
    joined: tuple[str, ...] = yield Joined()
    if name:
        stopping = [name]
    else:
        disks = yield from read_disks()
        ours = dict.fromkeys(found.vg.name for found in disks.vgs if is_ours(found.vg, me.cluster))
        stopping = list(ours)
    names = [one for one in stopping if space_of(one) in joined]
    for one in names:
        yield from _refuse_active(one)
    for one in stopping:
        if one in names:
            yield LeaveLockspace(space_of(one))
        yield NoteStopped(one)  # in one step with the leave: what others say of it starts it no more
    return {"message": "", "stopped": names}


def _refuse_active(name: str) -> Generator[Order, Any, None]:
    opened: tuple[OpenVolume, ...] = yield OpenPaths()
    active = [volume.lv for volume in opened if volume.vg == name]
    by_lvm2: list[str] = []
    try:
        _, found = yield from find_vg(name)
        lvs: tuple[Lv, ...] = found.vg.lvs
    except (NotFound, Damaged):
        lvs = ()  # its disks are gone; LeaveLockspace still refuses while locks are held
    for lv in lvs:
        held: Held | None = yield FindLock(space_of(name), lv.uuid)
        if held is not None:
            (by_lvm2 if held.by_lvm2 else active).append(lv.name)
    if by_lvm2:
        raise Refused(
            f"VG {name} has LVs that are active here through LVM2: {', '.join(by_lvm2)}",
            next=f"lvm vgchange -an {name}",
        )
    if active:
        raise Refused(
            f"VG {name} has active LVs here: {', '.join(dict.fromkeys(active))}",
            next=f"lvchange -an {name}",
        )
