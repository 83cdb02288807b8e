"""Rows for pvs, vgs and lvs: raw values under LVM2's field names; sizes are integers, in bytes.

Which columns a person sees, and in which units, is for whoever prints them.
Source: LVM2 lib/report/columns.h, report.c; lib/metadata/vg.c (vg_attr_dup), lv.c (lv_attr_dup), pv.c."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ringfence.core.errors import printable
from ringfence.lvm2.names import with_dashes
from ringfence.volumes.allocate import free_count, free_extents
from ringfence.volumes.discovery import AreaOnDisk, Disks, PvOnDisk, VgOnDisk
from ringfence.volumes.model import SECTOR_BYTES, Lv, Pv, Vg
from ringfence.volumes.moves import kept
from ringfence.volumes.relations import Relations
from ringfence.volumes.report_segments import (
    Row,
    area_of,
    device_of,
    free_piece,
    lv_segments,
    pv_segments,
    tags_of,
)
from ringfence.volumes.segments import Role
from ringfence.volumes.unclean import done_extents

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
    moved_percent: str = ""
    """Of an LV that keeps extents for one that this host moves: how far that is."""


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


def lv_attr(lv: Lv, here: LvHere, relations: Relations, partial: bool) -> str:
    """Ten characters."""
    kind, target, zeroes = relations.attributes(lv)
    return "".join((
        kind,
        "-" if "PVMOVE" in lv.status else "w" if lv.writable else "r",
        _lv_policy(lv),
        "m" if "FIXED_MINOR" in lv.status else "-",
        "X" if here.broken else "a" if here.active else "-",
        "o" if here.connections else "-",
        target,
        zeroes,
        _health(lv, relations, partial),
        "k" if "ACTIVATION_SKIP" in lv.flags else "-",
    ))  # fmt: skip


def _health(lv: Lv, relations: Relations, partial: bool) -> str:
    """What the metadata knows of it; the rest the kernel would have to say."""
    if partial:
        return "p"
    if relations.in_raid(lv):
        return "X"
    return "-"


def _lv_policy(lv: Lv) -> str:
    letter = "i" if lv.policy in ("", "inherit") else _POLICIES.get(lv.policy, "n")
    return letter.upper() if "LOCKED" in lv.status else letter


def pv_attr(pv: Pv | None, found: bool, used: bool, exported: bool) -> str:
    first = "a" if pv is not None and pv.allocatable else "u" if used else "-"
    return f"{first}{'x' if exported else '-'}{'-' if found else 'm'}"


def vg_rows(vgs: tuple[VgOnDisk, ...]) -> list[Row]:
    return [_vg_row(found) for found in vgs]


def _vg_row(found: VgOnDisk) -> Row:
    vg = found.vg
    relations = Relations(vg)
    partial = bool(found.lost)
    areas = [area for area in found.areas if area.header is not None]
    return {
        "vg_name": vg.name,
        "pv_count": len(vg.pvs),
        "lv_count": len(shown_lvs(vg.lvs, vg, relations)),
        "snap_count": sum(not relations.exists(vg.by_name[name]) for name in vg.index.composed),
        "vg_attr": vg_attr(vg, partial),
        "vg_size": vg.extent_count * vg.extent_bytes,
        "vg_free": free_count(vg) * vg.extent_bytes,
        "vg_fmt": "lvm2",
        "vg_uuid": printable(vg.uuid),
        "vg_seqno": vg.seqno,
        "vg_shared": "shared" if vg.lock_type not in ("", "none") else "",
        "vg_lock_type": printable(vg.lock_type),
        "vg_lock_args": printable(vg.lock_args),
        "vg_systemid": printable(vg.system_id),
        "vg_tags": tags_of(vg.tags),
        "vg_extent_size": vg.extent_bytes,
        "vg_extent_count": vg.extent_count,
        "vg_free_count": free_count(vg),
        "vg_missing_pv_count": len(found.lost),
        "vg_mda_count": sum(len(pv.areas) for pv in found.pvs.values()),
        "vg_mda_used_count": len(areas),
        "max_lv": vg.header.number("max_lv") or 0,
        "max_pv": vg.header.number("max_pv") or 0,
        "vg_profile": printable(vg.header.string("profile") or ""),
        "vg_mda_free": min((mda_free_bytes(area) for area in areas), default=0),
        "vg_mda_copies": vg.header.number("metadata_copies") or "unmanaged",
        "vg_mda_size": min((area.header.size_bytes for area in areas if area.header), default=0),
    }


def mda_free_bytes(area: AreaOnDisk) -> int:
    """By how much the text may still grow, in whole sectors: half the ring, less a sector, is the longest.

    Source: LVM2 lib/format_text/format-text.c (read_metadata_location_summary)."""
    header = area.header
    if header is None:
        return 0
    longest = (header.size_bytes - SECTOR_BYTES) // 2 - SECTOR_BYTES
    return max(0, longest - header.committed.size_bytes) // SECTOR_BYTES * SECTOR_BYTES


def pv_rows(disks: Disks, segments: bool = False) -> list[Row]:
    """PVs of VGs and PVs without one, by path; then PVs that were not found.

    Args: segments: each has "segments" too (`report_segments.pv_segments`)."""
    rows = []
    for pv in disks.pvs:
        found = disks.vg_of(pv)
        member = (
            next((found.vg.pv(key) for key, have in found.pvs.items() if have is pv), None) if found else None
        )
        rows.append(_pv_row(pv, found, member))
        if segments:
            rows[-1]["segments"] = pv_segments(found, member) if found and member else [free_piece(0, 0, 0)]
    for found in disks.vgs:
        for gone in found.missing:
            rows.append(_pv_row(None, found, gone))
            if segments:
                rows[-1]["segments"] = pv_segments(found, gone)
    return rows


def _pv_row(pv: PvOnDisk | None, found: VgOnDisk | None, member: Pv | None) -> Row:
    vg = found.vg if found else None
    extent_bytes = vg.extent_bytes if vg else 0
    count = member.extent_count if member else 0
    free = free_extents(vg, member) if vg and member else 0
    device_bytes = pv.device_bytes if pv else member.device_sectors * SECTOR_BYTES if member else 0
    uuid = member.uuid if member else _dashed(pv)
    used = member is not None or (pv is not None and pv.label.used)
    areas = pv.areas if pv else ()
    here = pv is not None and not (member is not None and member.missing)
    return {
        "pv_name": pv.path if pv else "[unknown]",
        "vg_name": vg.name if vg else "",
        "pv_fmt": "lvm2",
        "pv_attr": pv_attr(member, here, used, vg is not None and "EXPORTED" in vg.status),
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
        "pv_mda_free": min((mda_free_bytes(area) for area in areas), default=0),
        "pv_mda_size": min((area.header.size_bytes for area in areas if area.header), default=0),
        "pv_in_use": "used" if pv and pv.label.used else "",
        "pv_tags": tags_of(member.tags) if member else "",
    }


def _dashed(pv: PvOnDisk | None) -> str:
    return with_dashes(pv.label.uuid) if pv else ""


class LvsView(msgspec.Struct, frozen=True):
    """What the fields of a VG's LVs are made from."""

    found: VgOnDisk
    here: Mapping[str, LvHere]
    """By uuid, where there is anything to tell."""
    relations: Relations

    def of(self, lv: Lv) -> LvHere:
        return self.here.get(lv.uuid, _NOTHING_HERE)


_NOTHING_HERE = LvHere()


def shown_lvs(lvs: Sequence[Lv], vg: Vg, relations: Relations) -> list[Lv]:
    """Those that users see without asking for hidden ones."""
    if not vg.index.composed:  # nothing is hidden but what says so itself
        return [lv for lv in lvs if "VISIBLE" in lv.status]
    return [lv for lv in lvs if relations.shown(lv)]


def lv_columns(view: LvsView, lvs: Sequence[Lv], fields: Iterable[str]) -> dict[str, list[Any]]:
    """field -> its values, one for each LV.  Raises KeyError: there is no such field."""
    return {field: LV_FIELDS[field](view, lvs) for field in fields}


Column = Callable[[LvsView, Sequence[Lv]], list[Any]]


def _each(value: Callable[[LvsView, Lv], Any]) -> Column:
    return lambda view, lvs: [value(view, lv) for lv in lvs]


def _same(value: Callable[[Vg], Any]) -> Column:
    return lambda view, lvs: [value(view.found.vg)] * len(lvs)


def _done_percent(view: LvsView, lv: Lv) -> str:
    """How far it is zeroed, wiped or moved, as LVM2 prints such; empty: it is none of these, or nobody here
    knows."""
    if lv.unclean:
        return percent_of(done_extents(lv), lv.extent_count)
    return view.of(lv).moved_percent if lv.keeps_for else ""


def percent_of(done: int, all: int) -> str:
    """As LVM2 prints percentages."""
    return f"{100 * done / all:.2f}"


def _of_here(value: Callable[[LvHere], Any]) -> Column:
    return lambda view, lvs: (
        [value(view.of(lv)) for lv in lvs] if view.here else [value(_NOTHING_HERE)] * len(lvs)
    )


def _of_composed(value: Callable[[LvsView, Lv], str]) -> Column:
    """What is empty where no LV is made of others."""
    return lambda view, lvs: (
        [value(view, lv) for lv in lvs] if view.found.vg.index.composed else [""] * len(lvs)
    )


def _attrs(view: LvsView, lvs: Sequence[Lv]) -> list[Any]:
    """Thousands of LVs have few different ones, and neighbours mostly the same."""
    made: dict[Any, str] = {}
    relations, composed = view.relations, view.found.vg.index.composed
    missing, told = view.found.lost, view.here
    attrs, attr, last = [], "", None
    for lv in lvs:
        here = told.get(lv.uuid, _NOTHING_HERE) if told else _NOTHING_HERE
        partial = bool(missing) and relations.partial(lv, missing)
        status, segments = lv.status, lv.segments
        if composed or len(segments) != 1 or "VISIBLE" not in status:
            attrs.append(lv_attr(lv, here, relations, partial))
            continue
        one = segments[0]
        state = (here.broken, here.active, here.connections > 0) if told else ()
        shape = (status, lv.flags, lv.policy, one.kind, one.exact, len(one.stripes), state, partial)
        if shape != last:
            attr, last = made.get(shape, ""), shape
            if not attr:
                attr = made[shape] = lv_attr(lv, here, relations, partial)
        attrs.append(attr)
    return attrs


def _sizes(view: LvsView, lvs: Sequence[Lv]) -> list[Any]:
    extent_bytes = view.found.vg.extent_bytes
    return [view.relations.size_extents(lv) * extent_bytes for lv in lvs]


def _active(here: LvHere) -> str:
    return "unknown" if here.broken else "active" if here.active else ""


def _ranges(view: LvsView, lv: Lv) -> str:
    return " ".join(
        f"{device_of(view.found, one.pv)}:{one.start_extent}-{one.start_extent + one.extent_count - 1}"
        for segment in lv.segments
        for one in segment.stripes
    )


def _devices(view: LvsView, lv: Lv) -> str:
    return ",".join(area_of(view.found, area) for segment in lv.segments for area in segment.areas)


def _move_pv(view: LvsView, lv: Lv) -> str:
    """The PV that a pvmove takes extents from, ours or LVM2's."""
    if lv.tags and lv.keeps_for:
        moves = kept(view.found.vg, lv).moves
        return device_of(view.found, moves[0].source.pv) if moves else ""
    for segment in lv.segments:
        if segment.body.items and segment.body.get("extents_moved") is not None and segment.stripes:
            return device_of(view.found, segment.stripes[0].pv)
    return ""


def _mirror_log(view: LvsView, lv: Lv) -> str:
    return next((one.name for one in view.relations.parts(lv, Role.MIRROR_LOG)), "")


def _kinds(view: LvsView, lv: Lv) -> str:
    if len(lv.segments) == 1:
        return printable(lv.segments[0].type_name)
    return printable(",".join(dict.fromkeys(segment.type_name for segment in lv.segments)))


def _holder(here: LvHere) -> str:
    return ",".join(f"{one['node']}:{one['mode']}" for one in here.holders)


LV_FIELDS: dict[str, Column] = {
    "lv_name": lambda view, lvs: [lv.name for lv in lvs],
    "vg_name": _same(lambda vg: vg.name),
    "lv_attr": _attrs,
    "lv_size": _sizes,
    "pool_lv": _of_composed(lambda view, lv: view.relations.pool(lv)),
    "origin": _of_composed(lambda view, lv: view.relations.origin(lv)),
    "data_percent": _same(lambda vg: ""),
    "metadata_percent": _same(lambda vg: ""),
    "move_pv": _each(_move_pv),
    "mirror_log": _of_composed(_mirror_log),
    "copy_percent": lambda view, lvs: [_done_percent(view, lv) if lv.tags else "" for lv in lvs],
    "convert_lv": _same(lambda vg: ""),
    "lv_uuid": lambda view, lvs: [printable(lv.uuid) for lv in lvs],
    "lv_full_name": _each(lambda view, lv: f"{view.found.vg.name}/{lv.name}"),
    "lv_path": _of_here(lambda here: here.path),
    "lv_uri": _of_here(lambda here: here.uri),
    "lv_active": _of_here(_active),
    "lv_holder": _of_here(_holder),
    "lv_holders": _of_here(lambda here: list(here.holders)),
    "lv_lockargs": _each(lambda view, lv: printable(lv.lock_args)),
    "lv_tags": _each(lambda view, lv: tags_of(lv.tags)),
    "lv_time": _each(lambda view, lv: lv.creation_time_s),
    "lv_host": _each(lambda view, lv: printable(lv.creation_host)),
    "lv_parents": _each(lambda view, lv: ",".join(view.relations.users(lv))),
    "seg_count": _each(lambda view, lv: len(lv.segments)),
    "segtype": _each(_kinds),
    "seg_pe_ranges": _each(_ranges),
    "devices": _each(_devices),
    "segments": _each(lambda view, lv: lv_segments(view.found, lv)),
}
"""Fields of LVs, in the order of a row: what each is, for many LVs at once."""
ROW_FIELDS = tuple(field for field in LV_FIELDS if field != "segments")
"""Those that a row has when nothing else was asked for."""
HOLDER_FIELDS = ("lv_holder", "lv_holders")
