"""vgrename: the VG, its lockspace and its disk slots under another name.

The locks of both names are held EX until all is written, so nobody changes the VG under either.  No LV of
it may be active on any host: its locks are the old lockspace's.  Whoever asks for an LV of the old name
meanwhile waits for the VG's lock, and then does not find the VG.

After a crash at each step:

    the slots' nodes let go, their header cleared: the VG as it was, without slots that can be used;
                                 vgrename again, or `slots add`, writes the header anew
    text, pre-commit:            likewise
    all areas emptied but one:   the VG as it was, in one area; the next change writes the others
    commit in that area:         the VG under its new name, in one area; likewise
    header of the slots:         slots under the new name, which nodes find at the notice or the next look
    published:                   other hosts start the new lockspace, and leave the old one
    locks released, old lockspace left"""

from collections.abc import Generator
from typing import Any

from ringfence.core.errors import BadInput, NotFound, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.commit import Prepared, begin, prepare, write
from ringfence.engine.commands.disks import read_disks
from ringfence.engine.commands.in_use import refuse_in_use
from ringfence.engine.commands.locking import (
    VG_RESOURCE,
    LockedVg,
    Version,
    join,
    lock_global,
    lock_vg,
    print_lvb,
    space_of,
    undo,
    unlock_global,
)
from ringfence.engine.commands.slots import end_slots, note_made, note_slots
from ringfence.engine.orders import Acquire, Command, Held, LeaveLockspace, Order, Publish, Release, Remember
from ringfence.lvm2.names import check_vg_name
from ringfence.volumes.discovery import Disks, VgOnDisk
from ringfence.volumes.groups import rename
from ringfence.volumes.unclean import unclean_uuids
from ringfence.wire.client import VgRename


def vgrename(call: VgRename) -> Command:
    check_vg_name(call.new)
    global_lock = yield from lock_global()
    disks = yield from read_disks()
    uuid = _meant(disks, call.vg).vg.uuid
    name = _meant(disks, call.vg).vg.name
    _check_free(disks, call.new)
    locked = yield from lock_vg(name, Mode.EX, uuid=uuid)
    change = yield from begin(locked)
    yield from refuse_in_use(name, change.vg)
    planned = rename(change.vg, call.new)
    prepared = prepare(change, planned, f"vgrename {name} {call.new}")
    yield from join(space_of(call.new))
    yield from refuse_in_use(call.new)
    held: Held = yield Acquire(space_of(call.new), VG_RESOURCE, Mode.EX, what=f"VG {call.new}")
    _check_free((yield from read_disks()), call.new)
    yield from _write(prepared, locked)
    yield from _tell(prepared, locked, held)
    yield from unlock_global(global_lock)
    message = f'Volume group "{name}" successfully renamed to "{call.new}"'
    return {"message": message, "vg": call.new, "old": name}


def _meant(disks: Disks, word: str) -> VgOnDisk:
    """By name, or by uuid: then it may share its name with another VG.  Raises NotFound, Damaged."""
    by_uuid = [one for one in disks.vgs if one.vg.uuid == word]
    return by_uuid[0] if by_uuid else disks.vg_named(word)


def _check_free(disks: Disks, new: str) -> None:
    if any(one.vg.name == new for one in disks.vgs):
        raise BadInput(f'New VG name "{new}" already exists', next="choose another name")
    if any(one.vg.uuid == new for one in disks.vgs):
        raise BadInput(f'New VG name "{new}" matches the UUID of an existing VG', next="choose another name")


def _write(prepared: Prepared, locked: LockedVg) -> Generator[Order, Any, None]:
    restore: Order | None = None
    try:
        # Or a node would keep its slot, and mark there, in the name of a VG that is none.
        restore = yield from end_slots(locked.found, locked.me.cluster)
        yield from write(prepared)
    except RingfenceError as error:
        if restore is not None and (yield from undo(error, restore)):
            yield from note_slots([locked.found], locked.me)
        raise
    if restore is not None:
        yield restore


def _tell(prepared: Prepared, locked: LockedVg, held: Held) -> Generator[Order, Any, None]:
    """Everybody: the VG has changed under its old name, and is there under its new one."""
    vg, old, me = prepared.vg, locked.found.vg.name, locked.me
    crc = prepared.known.crc
    version = print_lvb(Version(vg.seqno, crc))
    for name in (old, vg.name):
        unclean = unclean_uuids(vg) if name == vg.name else ()
        yield Publish(name, vg.seqno, crc, f"{me.name}: {prepared.what}", unclean=unclean)
    yield Remember(prepared.known)
    if any(lv.slots for lv in vg.lvs):
        yield from note_made(vg.name, me)
    yield Release(held.lock, version)
    yield Release(locked.held.lock, version)
    try:
        yield LeaveLockspace(space_of(old))
    except (Refused, NotFound):
        return  # an empty lockspace does no harm
