"""Rows for pvs, vgs and lvs: raw values under LVM2's field names; sizes are integers, in bytes.

Which columns a person sees, and in which units, is for whoever prints them.
Source: LVM2 lib/report/columns.h, report.c; lib/metadata/vg.c (vg_attr_dup), lv.c (lv_attr_dup), pv.c."""

from typing import Any

import msgspec

from ringfence.lvm2.names import with_dashes
from ringfence.volumes.allocate import free_count, free_extents
from ringfence.volumes.discovery import Disks, PvOnDisk, VgOnDisk
from ringfence.volumes.model import SECTOR_BYTES, Lv, Pv, Vg
from ringfence.volumes.unclean import done_extents

Row = dict[str, Any]

_POLICIES = {"contiguous": "c", "cling": "l", "cling_by_tags": "l", "normal": "n", "anywhere": "a"}


class LvHere(msgspec.Struct, frozen=True):
    """What this host knows of an LV beside its metadata."""

    holders: tuple[dict[str, Any], ...] = ()
    """Each: node, mode, token, since_wall_ms."""
    path: str = ""
    uri: str = ""
    connections: int = 0
    active: bool = False
    broken: bool = False
    """It ought to be open here, and cannot be used."""


def vg_attr(vg: Vg, partial: bool) -> str:
    policy = vg.header.string("allocation_policy") or "normal"
    shared = vg.lock_type not in ("", "none")
    return "".join((
        "w" if vg.writable else "r",
        "z" if "RESIZEABLE" in vg.status else "-",
        "x" if "EXPORTED" in vg.status else "-",
        "p" if partial else "-",
        _POLICIES.get(policy, "n"),
        "c" if "CLUSTERED" in vg.status else "s" if shared else "-",
    ))  # fmt: skip


def lv_attr(lv: Lv, here: LvHere, partial: bool) -> str:
    """Ten characters; type and target of segment types other than linear are left at `-`."""
    policy = _lv_policy(lv)
    return "".join((
        "-",
        "w" if lv.writable else "r",
        policy,
        "m" if "FIXED_MINOR" in lv.status else "-",
        "X" if here.broken else "a" if here.active else "-",
        "o" if here.connections else "-",
        "-",
        "-",
        "p" if partial else "-",
        "k" if "ACTIVATION_SKIP" in lv.flags else "-",
    ))  # fmt: skip


def _lv_policy(lv: Lv) -> str:
    letter = "i" if lv.policy in ("", "inherit") else _POLICIES.get(lv.policy, "n")
    return letter.upper() if "LOCKED" in lv.status else letter


def pv_attr(pv: Pv | None, found: bool, exported: bool) -> str:
    allocatable = pv is not None and pv.allocatable
    return f"{'a' if allocatable else '-'}{'x' if exported else '-'}{'-' if found else 'm'}"


def vg_rows(vgs: tuple[VgOnDisk, ...]) -> list[Row]:
    return [_vg_row(found) for found in vgs]


def _vg_row(found: VgOnDisk) -> Row:
    vg = found.vg
    partial = bool(found.missing)
    areas = [area for area in found.areas if area.header is not None]
    return {
        "vg_name": vg.name,
        "pv_count": len(vg.pvs),
        "lv_count": sum(lv.visible for lv in vg.lvs),
        "snap_count": sum(segment.kind == "snapshot" for lv in vg.lvs for segment in lv.segments),
        "vg_attr": vg_attr(vg, partial),
        "vg_size": vg.extent_count * vg.extent_bytes,
        "vg_free": free_count(vg) * vg.extent_bytes,
        "vg_fmt": "lvm2",
        "vg_uuid": vg.uuid,
        "vg_seqno": vg.seqno,
        "vg_shared": "shared" if vg.lock_type not in ("", "none") else "",
        "vg_lock_type": vg.lock_type,
        "vg_lock_args": vg.lock_args,
        "vg_systemid": vg.system_id,
        "vg_tags": ",".join(vg.tags),
        "vg_extent_size": vg.extent_bytes,
        "vg_extent_count": vg.extent_count,
        "vg_free_count": free_count(vg),
        "vg_missing_pv_count": len(found.missing),
        "vg_mda_count": len(areas),
        "vg_mda_used_count": len(areas),
        "vg_mda_size": min((area.header.size_bytes for area in areas if area.header), default=0),
    }


def pv_rows(disks: Disks) -> list[Row]:
    """PVs of VGs and PVs without one, by path; then PVs that were not found."""
    rows = []
    for pv in disks.pvs:
        found = disks.vg_of(pv)
        member = (
            next((found.vg.pv(key) for key, have in found.pvs.items() if have is pv), None) if found else None
        )
        rows.append(_pv_row(pv, found, member))
    for found in disks.vgs:
        rows += [_pv_row(None, found, pv) for pv in found.missing]
    return rows


def _pv_row(pv: PvOnDisk | None, found: VgOnDisk | None, member: Pv | None) -> Row:
    vg = found.vg if found else None
    extent_bytes = vg.extent_bytes if vg else 0
    count = member.extent_count if member else 0
    free = free_extents(vg, member) if vg and member else 0
    device_bytes = pv.device_bytes if pv else member.device_sectors * SECTOR_BYTES if member else 0
    uuid = member.uuid if member else _dashed(pv)
    return {
        "pv_name": pv.path if pv else "[unknown]",
        "vg_name": vg.name if vg else "",
        "pv_fmt": "lvm2",
        "pv_attr": pv_attr(member, pv is not None, vg is not None and "EXPORTED" in vg.status),
        "pv_size": count * extent_bytes if member else device_bytes,
        "pv_free": free * extent_bytes if member else device_bytes,
        "pv_used": (count - free) * extent_bytes,
        "pv_uuid": uuid,
        "dev_size": device_bytes,
        "pe_start": pv.label.data_start_bytes if pv else member.start_sectors * SECTOR_BYTES if member else 0,
        "pv_pe_count": count,
        "pv_pe_alloc_count": count - free,
        "pv_mda_count": len(pv.areas) if pv else 0,
        "pv_mda_used_count": sum(area.in_use for area in pv.areas) if pv else 0,
        "pv_in_use": "used" if pv and pv.label.used else "",
        "pv_tags": ",".join(member.tags) if member else "",
    }


def _dashed(pv: PvOnDisk | None) -> str:
    return with_dashes(pv.label.uuid) if pv else ""


def lv_row(found: VgOnDisk, lv: Lv, here: LvHere, users: tuple[str, ...] = ()) -> Row:
    """Args: users: LVs that are made of this one (`plan.users_of_each`)."""
    vg = found.vg
    missing = frozenset(pv.name for pv in found.missing)
    partial = any(stripe.pv in missing for segment in lv.segments for stripe in segment.stripes)
    stripes = [stripe for segment in lv.segments for stripe in segment.stripes]
    return {
        "lv_name": lv.name,
        "vg_name": vg.name,
        "lv_attr": lv_attr(lv, here, partial),
        "lv_size": lv.extent_count * vg.extent_bytes,
        "pool_lv": "",
        "origin": "",
        "data_percent": "",
        "metadata_percent": "",
        "move_pv": "",
        "mirror_log": "",
        "copy_percent": f"{100 * done_extents(lv) / lv.extent_count:.2f}" if lv.unclean else "",
        "convert_lv": "",
        "lv_uuid": lv.uuid,
        "lv_full_name": f"{vg.name}/{lv.name}",
        "lv_path": here.path,
        "lv_uri": here.uri,
        "lv_active": "unknown" if here.broken else "active" if here.active else "",
        "lv_holder": ",".join(f"{one['node']}:{one['mode']}" for one in here.holders),
        "lv_holders": list(here.holders),
        "lv_lockargs": lv.lock_args,
        "lv_tags": ",".join(lv.tags),
        "lv_time": lv.creation_time_s,
        "lv_host": lv.creation_host,
        "lv_parents": ",".join(users),
        "seg_count": len(lv.segments),
        "segtype": ",".join(
            dict.fromkeys(_kind(segment.kind, len(segment.stripes)) for segment in lv.segments)
        ),
        "seg_pe_ranges": " ".join(
            f"{_device(found, one.pv)}:{one.start_extent}-{one.start_extent + one.extent_count - 1}"
            for one in stripes
        ),
        "devices": ",".join(f"{_device(found, stripe.pv)}({stripe.start_extent})" for stripe in stripes),
    }


def _kind(kind: str, stripes: int) -> str:
    return "linear" if kind == "striped" and stripes == 1 else kind


def _device(found: VgOnDisk, pv: str) -> str:
    have = found.pvs.get(pv)
    return have.path if have else "[unknown]"
