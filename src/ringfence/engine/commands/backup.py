"""vgcfgbackup, vgcfgrestore.

vgcfgrestore writes what a file says as a new version: with a seqno above all that anybody saw, on the disks,
in the lock's value block and in the cluster's notices; no version is ever made twice.  It is refused while
any host has an LV of the VG active, and where that cannot be known: while the VG's lockspace is not started
here, or frozen by a victim.  All PVs of the file must be there, by their uuids, and in no other VG.

After a crash at each step:

    (only where the disk slots were elsewhere, or are to go:)
    the slots' nodes let go, their header cleared: the VG as it was; `slots add` makes them anew
    text, pre-commit:            the VG as it was
    commit on the first area:    the VG as the file says; areas that lag are written by the next change
    labels marked "in a VG":     likewise
    PVs cleared that the file does not list: likewise; vgck --updatemetadata clears them
    slots made anew:             they can be used; until then `slots add` makes them

Source: LVM2 tools/vgcfgrestore.c, lib/format_text/archiver.c (backup_restore_vg)."""

from collections.abc import Generator
from typing import Any

from ringfence.core.errors import BadInput, Damaged, DeviceFailed, NotFound, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.commit import Change, abandoned_seqno, finish, prepare, write
from ringfence.engine.commands.disks import read_disks
from ringfence.engine.commands.in_use import refuse_in_use
from ringfence.engine.commands.locking import (
    VG_RESOURCE,
    LockedVg,
    join,
    lock_global,
    lock_vg,
    parse_lvb,
    space_of,
    undo,
    unlock_global,
)
from ringfence.engine.commands.members import clear, on_pvs
from ringfence.engine.commands.slots import end_slots, mend_slots, note_slots
from ringfence.engine.orders import (
    Acquire,
    Command,
    Held,
    Identity,
    Joined,
    Order,
    ReadText,
    Release,
    SaveText,
    SeqnoHeard,
    Whoami,
)
from ringfence.lvm2.names import without_dashes
from ringfence.volumes.access import check_ours
from ringfence.volumes.checks import check_vg
from ringfence.volumes.discovery import Disks, PvOnDisk, VgOnDisk, check_twins
from ringfence.volumes.model import SECTOR_BYTES, Pv, Vg
from ringfence.volumes.slots import place_of, slots_of
from ringfence.volumes.unclean import forget_done
from ringfence.wire.client import VgCfgBackup, VgCfgRestore

MOST_SEQNO = 1 << 31
"""LVM2 counts in 32 bits: the versions after one near their end would be old ones to it."""
WAIT_MS = 10_000
"""For the VG's lock: changes are short, and a lockspace that is frozen is not waited for."""


def vgcfgbackup(call: VgCfgBackup) -> Command:
    locked = yield from lock_vg(call.vg, Mode.PR, WAIT_MS)
    found = locked.found
    current = [area for area in found.areas if area.header is not None and area not in found.lagging]
    if not current or current[0].header is None:
        raise Damaged(f"no metadata area of VG {call.vg} is up to date on this host", next="see: vgck")
    file: str = yield SaveText(current[0].path, current[0].header, f"ringfence vgcfgbackup {call.vg}")
    yield Release(locked.held.lock)
    return {"message": f'Volume group "{call.vg}" successfully backed up.', "vg": call.vg, "file": file}


# -- vgcfgrestore ------------------------------------------------------------------


def vgcfgrestore(call: VgCfgRestore) -> Command:
    me: Whoami = yield Identity()
    try:
        wanted: Vg = yield ReadText(call.text.encode(), f"the backup of VG {call.vg}", packed=True)
    except Damaged as error:
        choose = f"give a file that is in order; see: vgcfgrestore --list {call.vg}"
        raise Damaged(error.message, next=choose) from None
    if wanted.name != call.vg:
        raise BadInput(f"the file is of VG {wanted.name}, not of {call.vg}", next="give its own name")
    check_ours(wanted, me.cluster)
    check_vg(wanted)
    if wanted.seqno > MOST_SEQNO:
        raise BadInput(f"the file says seqno {wanted.seqno}: no VG was changed so often", next="correct it")
    wanted = forget_done(wanted)
    global_lock = yield from lock_global()
    existing = _existing((yield from read_disks()), wanted)
    yield from _must_know(call.vg, existing, me)
    space = space_of(call.vg)
    held: Held = yield Acquire(space, VG_RESOURCE, Mode.EX, WAIT_MS, what=f"VG {call.vg}")
    disks: Disks = yield from read_disks()
    existing = _existing(disks, wanted)
    yield from refuse_in_use(call.vg, wanted, *([existing.vg] if existing else []))
    found = on_pvs(wanted, _pvs(disks, wanted))
    _check_areas(found)
    seqno = 1 + (yield from _highest(disks, wanted, held))
    locked = LockedVg(held, disks, found, me)
    prepared = prepare(Change(locked, True, seqno), wanted, f"vgcfgrestore {call.vg}")
    moved = existing is not None and _slots_move(existing.vg, wanted)
    restore: Order | None = None
    try:
        if moved and existing is not None:
            restore = yield from end_slots(existing, me.cluster)
        yield from write(prepared)
    except RingfenceError as error:
        if restore is not None and existing is not None and (yield from undo(error, restore)):
            yield from note_slots([existing], me)
        raise
    yield from clear(_left_out(existing, found), call.vg)
    if slots_of(wanted) is not None:
        yield from mend_slots(call.vg, me)
    yield from finish(locked, prepared.known, prepared.what)
    yield from unlock_global(global_lock)
    return {"message": f"Restored volume group {call.vg}.", "vg": call.vg, "seqno": prepared.vg.seqno}


def _existing(disks: Disks, wanted: Vg) -> VgOnDisk | None:
    """The VG as it is on the disks; None: it is not.  Raises Refused if what is there is another VG."""
    for one in disks.vgs:
        if one.vg.uuid == wanted.uuid and one.vg.name != wanted.name:
            raise Refused(
                f"VG {wanted.name} was renamed to {one.vg.name} since then",
                next=f"vgrename {one.vg.name} {wanted.name}, then restore it",
            )
        if one.vg.name == wanted.name and one.vg.uuid != wanted.uuid:
            raise Refused(
                f"VG {wanted.name} on the disks is another VG ({one.vg.uuid}) than that of the file",
                next=f"rename it first: vgrename {one.vg.uuid} NEWNAME",
            )
    return next((one for one in disks.vgs if one.vg.uuid == wanted.uuid), None)


def _must_know(name: str, existing: VgOnDisk | None, me: Whoami) -> Generator[Order, Any, None]:
    """Raises Refused where this node does not take part in the VG's locks.

    Of a VG that is not on the disks any more nothing can be started, so its lockspace is joined here."""
    joined: tuple[str, ...] = yield Joined()
    if existing is None:
        yield from join(space_of(name))
        return
    check_ours(existing.vg, me.cluster)
    if space_of(name) not in joined:
        raise Refused(
            f"VG {name} is not started on {me.name}: whether its LVs are in use is not known here",
            next=f"vgchange --lockstart {name}",
        )


def _pvs(disks: Disks, wanted: Vg) -> dict[str, PvOnDisk]:
    """The devices of all PVs of the file.  Raises NotFound, Damaged, Refused, BadInput."""
    pvs: dict[str, PvOnDisk] = {}
    for pv in wanted.pvs:
        bare = without_dashes(pv.uuid)
        have = [one for one in disks.pvs if one.label.uuid == bare]
        if not have:
            raise NotFound(
                f"Couldn't find device with uuid {pv.uuid} (last seen as {pv.device})",
                next="make it visible: [devices] paths; if its label is gone: "
                f"lvm pvcreate --uuid {pv.uuid} --restorefile FILE DEVICE",
            )
        pvs[pv.name] = have[0]
        if len(have) > 1:
            check_twins(VgOnDisk(wanted, 0, {}, (), {pv.name: (have[0].path, have[1].path)}), [pv.name])
        _check_pv(disks, wanted, pv, have[0])
    return pvs


def _check_pv(disks: Disks, wanted: Vg, pv: Pv, have: PvOnDisk) -> None:
    others = [area.vg for area in have.areas if area.vg is not None and area.vg.uuid != wanted.uuid]
    found = disks.vg_of(have)
    others += [found.vg] if found is not None and found.vg.uuid != wanted.uuid else []
    if others:
        name = others[0].name
        raise Refused(f"{have.path} is in VG {name} now", next=f"vgreduce {name} {have.path}")
    end_bytes = (pv.start_sectors + pv.extent_count * wanted.extent_sectors) * SECTOR_BYTES
    if end_bytes > have.device_bytes:
        raise BadInput(
            f"{have.path} has {have.device_bytes} bytes; of the VG of the file it had {end_bytes}",
            next="give the device its size back",
        )
    if any(
        area.place.offset_bytes < end_bytes
        and area.place.offset_bytes + area.place.size_bytes > pv.start_sectors * SECTOR_BYTES
        for area in have.areas
    ):
        raise BadInput(
            f"the metadata area of {have.path} is where the file has extents",
            next=f"lvm pvcreate --uuid {pv.uuid} --restorefile FILE {have.path}",
        )


def _check_areas(found: VgOnDisk) -> None:
    """Raises DeviceFailed, Damaged."""
    unread = next((area for area in found.areas if area.unread), None)
    if unread is not None:
        raise DeviceFailed(unread.problem, next="look at the device and its paths (dmesg), then try again")
    if not found.areas:
        raise Damaged(f"VG {found.vg.name} has no metadata area in use")


def _highest(disks: Disks, wanted: Vg, held: Held) -> Generator[Order, Any, int]:
    """The highest seqno that anybody saw of the VG."""
    areas = tuple(area for pv in disks.pvs for area in pv.areas if not area.unread)
    seqnos = [area.vg.seqno for area in areas if area.vg is not None and area.vg.uuid == wanted.uuid]
    known = parse_lvb(held.lvb)
    heard: int = yield SeqnoHeard(wanted.name)
    abandoned = yield from abandoned_seqno(areas, wanted.uuid)
    return max(wanted.seqno, heard, abandoned, known.number if known is not None else 0, *seqnos)


def _slots_move(now: Vg, wanted: Vg) -> bool:
    """Whether the disk slots are not where the file has them."""
    have, then = slots_of(now), slots_of(wanted)
    if have is None:
        return False
    return then is None or then.uuid != have.uuid or _place(now) != _place(wanted)


def _place(vg: Vg) -> tuple[str, int]:
    lv = slots_of(vg)
    assert lv is not None
    name, start = place_of(vg, lv)
    pv = vg.pv(name)
    assert pv is not None
    return pv.uuid, start


def _left_out(existing: VgOnDisk | None, found: VgOnDisk) -> list[PvOnDisk]:
    """PVs of the VG as it was found that the file does not list."""
    kept = [pv.path for pv in found.pvs.values()]
    return [pv for pv in (existing.pvs.values() if existing else ()) if pv.path not in kept]
