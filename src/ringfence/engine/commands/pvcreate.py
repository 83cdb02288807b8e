"""pvcreate: a device becomes a PV.

Header of the empty metadata area first, the label last: without its label the device is no PV, so
a crash leaves no PV or the whole one.  A PV that is there already loses its label before that: its
area may be elsewhere, or of another size.

Default layout as LVM2's: the area begins at 4 KiB and reaches to where the data begins, at a
multiple of 1 MiB.  Source: LVM2 lib/metadata/pv_manip.c, format-text.c (_text_pv_add_metadata_area)."""

from collections.abc import Generator, Sequence
from typing import Any

import msgspec

from ringfence.core.errors import BadInput, Refused
from ringfence.engine.commands.disks import device_named, read_disks
from ringfence.engine.commands.locking import fresh_uuids, lock_global, unlock_global
from ringfence.engine.orders import Command, Order, Probe, Write, WriteBlocks
from ringfence.lvm2.area import MdaHeader, print_header
from ringfence.lvm2.label import LABEL_SCAN_BYTES, SECTOR_BYTES, Area, PvLabel, parse_label, print_label
from ringfence.lvm2.names import with_dashes
from ringfence.volumes.discovery import AreaOnDisk, Disks, PvOnDisk
from ringfence.volumes.model import Vg
from ringfence.volumes.plan import NewPv
from ringfence.volumes.signatures import Probed
from ringfence.wire.block import Extent
from ringfence.wire.client import PvCreate

AREA_START_BYTES = 4096
DATA_ALIGNMENT_BYTES = 1 << 20
LARGEST_AREA_BYTES = 1 << 30


class PvPlan(msgspec.Struct, frozen=True):
    """A PV to be made."""

    path: str
    label: PvLabel
    writes: tuple[Write, ...]
    """In order; the last one makes it a PV."""


def pvcreate(call: PvCreate) -> Command:
    if not call.devices:
        raise BadInput("no device given", next="pvcreate DEVICE...")
    held = yield from lock_global()
    disks = yield from read_disks()
    _, uuids = yield from fresh_uuids(len(call.devices))
    plans = []
    for path, uuid in zip(call.devices, uuids, strict=False):
        plans.append((yield from plan_pv(disks, path, uuid, call.metadata_size_bytes, force=call.force)))
    _refuse_twins([plan.path for plan in plans])
    for plan in plans:
        yield from make_pv(plan, guard="")
    yield from unlock_global(held)
    messages = [f'Physical volume "{plan.path}" successfully created.' for plan in plans]
    return {"message": "\n".join(messages), "pvs": [plan.path for plan in plans]}


def _refuse_twins(paths: list[str]) -> None:
    for path in paths:
        if paths.count(path) > 1:
            raise BadInput(f"device {path} is named twice")


def plan_pv(
    disks: Disks, device: str, uuid: str, metadata_bytes: int, *, force: bool, into: Vg | None = None
) -> Generator[Order, Any, PvPlan]:
    """Check that the device may become a PV, and lay it out.  Raises BadInput, NotFound, Refused.

    Args: into: an old version of this VG may be on it."""
    path = device_named(disks, device)
    check_single(disks, path)
    _refuse_in_use(disks, path, force, into)
    yield from _refuse_users(path, disks.sizes[path], signatures=not force and disks.pv_at(path) is None)
    size = disks.sizes[path] // SECTOR_BYTES * SECTOR_BYTES
    label = lay_out(path, size, uuid, metadata_bytes)
    area = label.metadata_areas[0]
    start = bytearray(LABEL_SCAN_BYTES)
    sector = label.sector * SECTOR_BYTES
    start[sector : sector + SECTOR_BYTES] = print_label(label)
    writes = [
        Write(path, area.offset_bytes, print_header(MdaHeader(area.offset_bytes, area.size_bytes))),
        Write(path, 0, bytes(start)),
    ]
    if disks.pv_at(path) is not None:
        writes.insert(0, Write(path, 0, bytes(LABEL_SCAN_BYTES)))
    return PvPlan(path, label, tuple(writes))


def lay_out(path: str, size_bytes: int, uuid: str, metadata_bytes: int) -> PvLabel:
    if metadata_bytes < 0 or metadata_bytes > LARGEST_AREA_BYTES:
        raise BadInput(
            f"metadata size {metadata_bytes} bytes cannot be",
            next=f"give at most {LARGEST_AREA_BYTES >> 20}m",
        )
    end = AREA_START_BYTES + max(metadata_bytes, 1)
    data_start = -(-end // DATA_ALIGNMENT_BYTES) * DATA_ALIGNMENT_BYTES
    if size_bytes <= data_start:
        raise BadInput(f"{path} is too small to be a PV: {size_bytes} bytes", next="use a larger device")
    area = Area(AREA_START_BYTES, data_start - AREA_START_BYTES)
    return PvLabel(uuid, size_bytes, (Area(data_start, 0),), (area,))


def check_single(disks: Disks, path: str) -> None:
    """Raises Refused if another device has the same PV uuid."""
    pv = disks.pv_at(path)
    twins = [one.path for one in disks.pvs if pv and one is not pv and one.label.uuid == pv.label.uuid]
    if twins:
        raise Refused(
            f"Cannot use {path}: {' and '.join(twins)} has the same PV uuid: a copy, or another path to it",
            next="name only one of them in [devices] paths",
        )


def _refuse_in_use(disks: Disks, path: str, force: bool, into: Vg | None) -> None:
    if path in disks.problems and not force:
        raise Refused(f"cannot use {disks.problems[path]}", next="--force writes a new label over it")
    pv = disks.pv_at(path)
    if pv is None:
        return
    found = disks.vg_of(pv)
    carried = [area.vg for area in pv.areas if area.vg is not None]
    if found is None and into is not None and carried and all(one.uuid == into.uuid for one in carried):
        return  # it was taken out of the VG, and the writer ended before it could say so there
    if found is not None and into is not None and found.vg.uuid == into.uuid:
        raise Refused(f"Physical volume {path} is already in volume group {into.name}", next="see: pvs")
    names = [found.vg.name] if found else [one.name for one in carried]
    if names:
        raise Refused(
            f"cannot initialize physical volume {path}: it belongs to volume group {names[0]}",
            next=f"choose another device; or, if it is to leave {names[0]}: vgreduce {names[0]} {path}",
        )
    if pv.label.used and not force and not any(area.empty for area in pv.areas):
        raise Refused(
            f"PV {path} is marked as used by a VG whose metadata was not found",
            next="find the VG's other devices, or --force",
        )
    if not force and any(area.problem for area in pv.areas):
        problem = next(area.problem for area in pv.areas if area.problem)
        raise Refused(f"cannot use {problem}: a VG may be on it", next="repair it with pvck, or --force")


def _refuse_users(path: str, size_bytes: int, *, signatures: bool) -> Generator[Order, Any, None]:
    """Data of something else would be lost: by no force what somebody on this host is using just now."""
    found: Probed = yield Probe((Extent(path, 0, size_bytes),))
    if found.busy:
        raise Refused(
            f"cannot open {path} exclusively: it is mounted on this host, or part of another device",
            next=f"see: lsblk {path}; if it is to be a PV: unmount it, or take it out of there",
        )
    if signatures and found.signatures:
        raise Refused(
            f"{found.signatures[0]} signature detected on {path}, by {found.by.value}",
            next="if its data may be lost: pvcreate --force",
        )


def lay_out_members(
    disks: Disks,
    devices: Sequence[str],
    uuids: list[str],
    metadata_bytes: int,
    *,
    force: bool,
    into: Vg | None = None,
) -> Generator[Order, Any, tuple[list[PvPlan], tuple[NewPv, ...]]]:
    """PVs that must be made first, and all PVs that a VG is to have, in the order given.

    Checks what pvcreate checks, too: in no other VG, nothing of anybody's on it.

    Args: into: the VG that they are for; a PV that carries an old version of it is made anew."""
    plans: list[PvPlan] = []
    members, seen = [], []
    for device, uuid in zip(devices, uuids, strict=False):
        path = device_named(disks, device)
        if path in seen:
            raise BadInput(f"device {path} is named twice")
        seen.append(path)
        plan = yield from plan_pv(disks, path, uuid, metadata_bytes, force=force, into=into)
        pv = disks.pv_at(path)
        label = pv.label if pv and any(area.empty and area.in_use for area in pv.areas) else plan.label
        if label is plan.label:
            plans.append(plan)
        members.append(NewPv(with_dashes(label.uuid), path, label.device_bytes, label.data_start_bytes))
    return plans, tuple(members)


def planned_pv(plan: PvPlan) -> PvOnDisk:
    """The PV as it is once its plan is carried out."""
    where = plan.label.metadata_areas[0]
    area = AreaOnDisk(plan.path, where, MdaHeader(where.offset_bytes, where.size_bytes))
    start = plan.writes[-1].data
    label = parse_label(start, plan.path)
    assert label is not None
    return PvOnDisk(plan.path, label.device_bytes, start, label, (area,))


def make_pv(plan: PvPlan, guard: str) -> Generator[Order, Any, None]:
    yield WriteBlocks(plan.writes, guard, "pv-header")
