"""pvremove, pvresize.

pvremove is one write: zeros over the label.  Before it the device is a PV, after it none.

pvresize, after a crash at each step (of a PV in a VG; of one without, the label is all there is):

    text, pre-commit:    the PV as it was
    commit:              the PV with its new size; its label still says the old one, which is read for PVs
                         without a VG alone, and is made right by the next pvresize
    label:               all says the new size"""

from collections.abc import Generator, Sequence
from typing import Any

from ringfence.core.errors import BadInput, LocksLost, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.commit import begin, commit, prepare
from ringfence.engine.commands.disks import device_named, read_disks
from ringfence.engine.commands.in_use import refuse_in_use
from ringfence.engine.commands.locking import lock_global, lock_vg, undo, unlock_global
from ringfence.engine.commands.pvcreate import check_single
from ringfence.engine.orders import Command, Held, Order, Read, ReadBlocks, Release, Write, WriteBlocks
from ringfence.lvm2.label import LABEL_SCAN_BYTES, SECTOR_BYTES, with_size
from ringfence.volumes.discovery import Disks, PvOnDisk
from ringfence.volumes.groups import pv_at, resize_pv
from ringfence.wire.client import PvRemove, PvResize

_LABEL = b"LABELONE"
_SURE = 2


def _locked(devices: Sequence[str], verb: str) -> Generator[Order, Any, tuple[Held, Disks, list[str]]]:
    """The global lock, the disks, and each of the devices once, as this host knows it."""
    if not devices:
        raise BadInput("no device given", next=f"{verb} DEVICE...")
    held = yield from lock_global()
    disks = yield from read_disks()
    return held, disks, list(dict.fromkeys(device_named(disks, device) for device in devices))


# -- pvremove --------------------------------------------------------------------


def pvremove(call: PvRemove) -> Command:
    held, disks, paths = yield from _locked(call.devices, "pvremove")
    for path in paths:
        _check_pv(disks, path, call.force)
    for path in paths:
        yield from _remove(disks, path)
    yield from unlock_global(held)
    lines = [f'Labels on physical volume "{path}" successfully wiped.' for path in paths]
    return {"message": "\n".join(lines), "pvs": paths}


def _check_pv(disks: Disks, path: str, force: int) -> None:
    """Raises NotFound, Refused."""
    pv = disks.pv_at(path)
    if pv is None:
        if path not in disks.problems:
            raise BadInput(f"No PV found on device {path}", next="see: pvs")
        if force < _SURE:
            raise Refused(
                f"{disks.problems[path]}: what it belongs to is not known", next=f"pvremove -ff {path}"
            )
        return
    name = _vg_name(disks, pv)
    if name and force < _SURE:
        raise Refused(
            f"PV {path} is used by VG {name} so please use vgreduce first",
            next=f"vgreduce {name} {path}; if you are certain you need pvremove: --force twice",
        )
    unknown = pv.label.used and not any(area.empty for area in pv.areas)
    if not name and unknown and force < _SURE:
        raise Refused(
            f"PV {path} is marked as used by a VG whose metadata was not found",
            next="find the VG's other devices, or --force twice",
        )


def _vg_name(disks: Disks, pv: PvOnDisk) -> str:
    found = disks.vg_of(pv)
    if found is not None:
        return found.vg.name
    return next((area.vg.name for area in pv.areas if area.vg is not None), "")


def _remove(disks: Disks, path: str) -> Generator[Order, Any, None]:
    """With --force twice also out of a VG of this cluster that nobody uses; it then lacks a PV."""
    pv = disks.pv_at(path)
    found = disks.vg_of(pv) if pv is not None else None
    if found is None:
        yield from _wipe(path, "")
        return
    locked = yield from lock_vg(found.vg.name, Mode.EX)
    try:
        yield from refuse_in_use(found.vg.name, locked.found.vg)
        yield from _wipe(path, found.vg.name)
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise
    yield Release(locked.held.lock)


def _wipe(path: str, guard: str) -> Generator[Order, Any, None]:
    (start,) = yield ReadBlocks((Read(path, 0, LABEL_SCAN_BYTES),))
    sectors = [
        at for at in range(0, LABEL_SCAN_BYTES, SECTOR_BYTES) if (start or b"")[at:].startswith(_LABEL)
    ]
    writes = tuple(Write(path, at, bytes(SECTOR_BYTES)) for at in sectors)
    if writes:
        yield WriteBlocks(writes, guard, "pv-header")


# -- pvresize --------------------------------------------------------------------


def pvresize(call: PvResize) -> Command:
    """As many as can be; then raises the first error, if there was one."""
    held, disks, paths = yield from _locked(call.devices, "pvresize")
    done: list[str] = []
    failed: list[RingfenceError] = []
    for path in paths:
        try:
            yield from _resize(disks, path, call)
            done.append(path)
        except LocksLost:
            raise
        except RingfenceError as error:
            failed.append(error)
    yield from unlock_global(held)
    count = (
        f"{len(done)} physical volume(s) resized or updated / {len(failed)} physical volume(s) not resized"
    )
    if failed:
        first = failed[0]
        raise type(first)(f"{first.message} ({count})", node=first.node, next=first.next, retry=first.retry)
    lines = [f'Physical volume "{path}" changed' for path in done]
    return {"message": "\n".join([*lines, count]), "pvs": done}


def _resize(disks: Disks, path: str, call: PvResize) -> Generator[Order, Any, None]:
    pv = disks.pv_at(path)
    if pv is None:
        raise BadInput(f'Failed to find physical volume "{path}"', next="see: pvs")
    check_single(disks, path)
    size = _size(pv, call)
    if any(area.place.offset_bytes >= pv.label.data_start_bytes for area in pv.areas):
        raise Refused(
            f"{path} has a metadata area behind its data, which would have to move",
            next=f"with stock LVM2: lvm pvresize {path}",
        )
    found = disks.vg_of(pv)
    if found is None:
        if size <= pv.label.data_start_bytes:
            raise BadInput(f"{path}: {size} bytes are less than where its data begins", next="give more")
        yield from _write_size(pv, size, "")
        return
    name = found.vg.name
    locked = yield from lock_vg(name, Mode.EX)
    try:
        change = yield from begin(locked)
        mine = pv_at(locked.found, path)
        planned = resize_pv(change.vg, mine.name, size)
        yield from commit(prepare(change, planned, f"pvresize {path}"))
    except RingfenceError as error:
        yield from undo(error, Release(locked.held.lock))
        raise
    yield from _write_size(locked.found.pvs[mine.name], size, name)


def _size(pv: PvOnDisk, call: PvResize) -> int:
    """Raises Refused for a size that is not the device's, unless it is meant."""
    size = call.size_bytes // SECTOR_BYTES * SECTOR_BYTES
    have = pv.device_bytes // SECTOR_BYTES * SECTOR_BYTES
    if not size or size == have:
        return have
    if size > have:
        raise Refused(
            f"{pv.path} has {have} bytes, not {size}: what lies behind its end could not be written",
            next="give at most its real size",
        )
    if not call.yes:
        raise Refused(f"{pv.path} has {have} bytes, not {size}", next="if that is meant: --yes")
    return size


def _write_size(pv: PvOnDisk, size_bytes: int, guard: str) -> Generator[Order, Any, None]:
    if pv.label.device_bytes != size_bytes:
        sector = with_size(pv.start, pv.label, size_bytes)
        write = Write(pv.path, pv.label.sector * SECTOR_BYTES, sector)
        yield WriteBlocks((write,), guard, "pv-header")
