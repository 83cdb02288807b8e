"""vgchange of what stands in a VG's metadata, and vgck.

Both are one change of the metadata: `commit` says what a crash at each step leaves.  vgck --updatemetadata
then clears PVs that were taken out of the VG by a writer that ended before it could do so itself; until
that is done they carry an older version, which nobody takes for the newest."""

from ringfence.core.errors import BadInput, Damaged
from ringfence.core.modes import Mode
from ringfence.engine.commands.commit import begin, commit, prepare
from ringfence.engine.commands.extent_size import rescaled
from ringfence.engine.commands.locking import LockedVg, lock_vg
from ringfence.engine.commands.members import clear
from ringfence.engine.orders import Command, Release
from ringfence.volumes.checks import check_vg
from ringfence.volumes.discovery import PvOnDisk, check_complete, check_ends, shrunk
from ringfence.volumes.groups import set_resizeable, tag, with_properties
from ringfence.volumes.sizes import check_extent_size
from ringfence.wire.client import VgCk, VgSet


def vgset(call: VgSet) -> Command:
    if call == VgSet(call.vg):
        raise BadInput("nothing to change is given", next="see: vgchange --help")
    locked = yield from lock_vg(call.vg, Mode.EX)
    limits = (call.max_lv, call.max_pv) != (None, None)
    extent_sectors = check_extent_size(call.extent_size_bytes) if call.extent_size_bytes else 0
    tags_alone = call == VgSet(call.vg, call.add_tags, call.drop_tags)
    change = yield from begin(locked, partial=tags_alone, resizing=limits or extent_sectors > 0)
    vg = with_properties(
        tag(change.vg, call.add_tags, call.drop_tags),
        call.policy, call.max_lv, call.max_pv, call.autoactivation,
    )  # fmt: skip
    if call.resizeable is not None:
        if call.resizeable == ("RESIZEABLE" in vg.status):
            word = "already" if call.resizeable else "already not"
            raise BadInput(f'Volume group "{call.vg}" is {word} resizeable')
        vg = set_resizeable(vg, call.resizeable)
    if extent_sectors:
        vg = yield from rescaled(locked.found, vg, extent_sectors)
    yield from commit(prepare(change, vg, f"vgchange {call.vg}"))
    return {"message": f'Volume group "{call.vg}" successfully changed', "vg": call.vg}


def vgck(call: VgCk) -> Command:
    """Raises Damaged, with the first thing that is wrong."""
    if call.update_metadata:
        return (yield from _update(call.vg))
    locked = yield from lock_vg(call.vg, Mode.PR)
    yield Release(locked.held.lock)
    found = locked.found
    if found.missing:
        raise Damaged(
            f"The volume group {call.vg} is missing {len(found.missing)} physical volumes",
            next=f"make them visible, or vgreduce --removemissing {call.vg}",
        )
    check_complete(found)
    check_vg(found.vg)
    check_ends(found)
    mend = f"vgck --updatemetadata {call.vg}"
    for area in found.lagging:
        raise Damaged(area.problem or f"{area.path} has old metadata of VG {call.vg}", next=mend)
    for pv in outdated(locked):
        raise Damaged(f"{pv.path} was removed from VG {call.vg} and still has its metadata", next=mend)
    for pv in found.pvs.values():
        if pv.label.flags_offset_bytes and not pv.label.used:
            raise Damaged(f"PV {pv.path} of VG {call.vg} is not marked as in use", next=mend)
    return {"message": "", "vg": call.vg, "notes": [f"WARNING: {line}" for line in shrunk(found)]}


def _update(name: str) -> Command:
    locked = yield from lock_vg(name, Mode.EX)
    change = yield from begin(locked, partial=True)
    stale = outdated(locked)
    yield from commit(prepare(change, change.vg, f"vgck --updatemetadata {name}"))
    yield from clear(stale, name)
    lines = [f"Cleared {pv.path}, which is not in volume group {name} any more" for pv in stale]
    return {"message": "\n".join(lines), "vg": name}


def outdated(locked: LockedVg) -> list[PvOnDisk]:
    """PVs that the VG does not list, and that carry an older version of it and of no other."""
    vg, members = locked.found.vg, [pv.path for pv in locked.found.pvs.values()]
    return [
        pv
        for pv in locked.disks.pvs
        if pv.path not in members
        and not any(pv.label.uuid == have.label.uuid for have in locked.found.pvs.values())
        and any(area.vg is not None for area in pv.areas)
        and all(area.vg is None or area.vg.uuid == vg.uuid for area in pv.areas)
        and not any(area.unread for area in pv.areas)
    ]
