"""Columns of pvs, vgs and lvs: headings, alignment, which are shown, how a value is printed.

Headings are LVM2's.  Source: LVM2 lib/report/columns.h; lvmreport(7).  `lv_holder` and `lv_uri` are ours."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ringfence.cli.answers import stamp
from ringfence.core.errors import RingfenceError
from ringfence.core.units import format_size

Row = dict[str, Any]


class Report(NamedTuple):
    verb: str
    key: str
    """The list's name in JSON."""
    prefix: str
    default: tuple[str, ...]
    sort: tuple[str, ...]


PVS = Report(
    "pvs", "pv", "pv_", ("pv_name", "vg_name", "pv_fmt", "pv_attr", "pv_size", "pv_free"), ("pv_name",)
)
VGS = Report(
    "vgs", "vg", "vg_",
    ("vg_name", "pv_count", "lv_count", "snap_count", "vg_attr", "vg_size", "vg_free"), ("vg_name",),
)  # fmt: skip
LVS = Report(
    "lvs", "lv", "lv_",
    (
        "lv_name", "vg_name", "lv_attr", "lv_size", "pool_lv", "origin", "data_percent", "metadata_percent",
        "move_pv", "mirror_log", "copy_percent", "convert_lv", "lv_holder",
    ),
    ("vg_name", "lv_name"),
)  # fmt: skip

HEADINGS = {
    "pv_name": "PV", "pv_fmt": "Fmt", "pv_attr": "Attr", "pv_size": "PSize", "pv_free": "PFree",
    "pv_used": "Used", "pv_uuid": "PV UUID", "dev_size": "DevSize", "pe_start": "1st PE", "pv_pe_count": "PE",
    "pv_pe_alloc_count": "Alloc", "pv_mda_count": "#PMda", "pv_mda_used_count": "#PMdaUse",
    "pv_in_use": "PInUse", "pv_tags": "PV Tags",
    "vg_name": "VG", "pv_count": "#PV", "lv_count": "#LV", "snap_count": "#SN", "vg_attr": "Attr",
    "vg_size": "VSize", "vg_free": "VFree", "vg_fmt": "Fmt", "vg_uuid": "VG UUID", "vg_seqno": "Seq",
    "vg_shared": "Shared", "vg_lock_type": "VLockType", "vg_lock_args": "VLockArgs",
    "vg_systemid": "System ID",
    "vg_tags": "VG Tags", "vg_extent_size": "Ext", "vg_extent_count": "#Ext", "vg_free_count": "Free",
    "vg_missing_pv_count": "#PV Missing", "vg_mda_count": "#VMda", "vg_mda_used_count": "#VMdaUse",
    "vg_mda_size": "VMdaSize",
    "lv_name": "LV", "lv_attr": "Attr", "lv_size": "LSize", "pool_lv": "Pool", "origin": "Origin",
    "data_percent": "Data%", "metadata_percent": "Meta%", "move_pv": "Move", "mirror_log": "Log",
    "copy_percent": "Cpy%Sync", "convert_lv": "Convert", "lv_uuid": "LV UUID", "lv_full_name": "LV",
    "lv_path": "Path", "lv_active": "Active", "lv_lockargs": "Lock Args", "lv_tags": "LV Tags",
    "lv_time": "CTime", "lv_host": "Host", "lv_parents": "Parents", "seg_count": "#Seg", "segtype": "Type",
    "seg_pe_ranges": "PE Ranges", "devices": "Devices", "lv_holder": "Holder", "lv_uri": "URI",
}  # fmt: skip

SIZES = (
    "pv_size", "pv_free", "pv_used", "dev_size", "pe_start", "vg_size", "vg_free", "vg_extent_size",
    "vg_mda_size", "lv_size",
)  # fmt: skip
NUMBERS = (
    "pv_count", "lv_count", "snap_count", "vg_seqno", "vg_extent_count", "vg_free_count",
    "vg_missing_pv_count", "vg_mda_count", "vg_mda_used_count", "pv_pe_count", "pv_pe_alloc_count",
    "pv_mda_count", "pv_mda_used_count", "seg_count",
)  # fmt: skip
_PERCENTS = ("data_percent", "metadata_percent", "copy_percent")
RIGHT = SIZES + NUMBERS + _PERCENTS
LISTS = ("pv_tags", "vg_tags", "lv_tags", "lv_parents")

_OWN = {
    "pvs": ("pv_name", "pv_fmt", "pv_attr", "pv_size", "pv_free", "pv_used", "pv_uuid", "dev_size",
            "pe_start", "pv_pe_count", "pv_pe_alloc_count", "pv_mda_count", "pv_mda_used_count",
            "pv_in_use", "pv_tags", "vg_name"),
    "vgs": ("vg_name", "vg_attr", "vg_size", "vg_free", "vg_fmt", "vg_uuid", "vg_seqno", "vg_shared",
            "vg_lock_type", "vg_lock_args", "vg_systemid", "vg_tags", "vg_extent_size", "vg_extent_count",
            "vg_free_count", "vg_missing_pv_count", "vg_mda_count", "vg_mda_used_count", "vg_mda_size",
            "pv_count", "lv_count", "snap_count"),
    "lvs": ("lv_name", "vg_name", "lv_attr", "lv_size", "pool_lv", "origin", "data_percent",
            "metadata_percent", "move_pv", "mirror_log", "copy_percent", "convert_lv", "lv_uuid",
            "lv_full_name", "lv_path", "lv_uri", "lv_active", "lv_holder", "lv_lockargs", "lv_tags",
            "lv_time", "lv_host", "lv_parents", "seg_count", "segtype", "seg_pe_ranges", "devices"),
}  # fmt: skip


def chosen(report: Report, options: Sequence[str]) -> list[str]:
    """The fields to print, from all -o options in order: FIELDS sets, +FIELDS adds, -FIELDS takes away.

    Raises RingfenceError for a field that there is not."""
    fields = list(report.default)
    for option in options:
        sign = option[:1] if option[:1] in "+-#" else ""
        names = [find(report, one.strip()) for one in option[len(sign) :].split(",") if one.strip()]
        found = [field for group in names for field in group]
        if sign == "+":
            fields += [field for field in found if field not in fields]
        elif sign == "-":
            fields = [field for field in fields if field not in found]
        elif sign == "":
            fields = list(dict.fromkeys(found))
    return fields


def find(report: Report, name: str) -> list[str]:
    """A field by its name, with or without its prefix; `all` and PREFIX_all are the report's all."""
    known = _OWN[report.verb]
    if name in ("all", f"{report.prefix}all"):
        return list(known)
    for candidate in (name, report.prefix + name, "vg_" + name, "lv_" + name, "seg_" + name):
        if candidate in known:
            return [candidate]
    raise RingfenceError(
        f"Unrecognised field: {name}", next=f"known to {report.verb}: {', '.join(known)}", code="bad-input"
    )


def text_of(row: Row, field: str, unit: str, suffix: bool) -> str:
    """A value as LVM2 prints it."""
    if field == "lv_holder":
        return holder(row)
    value = row.get(field)
    if value is None or value == "":
        return ""
    if field in SIZES:
        return format_size(int(value), unit, suffix=suffix)
    if field == "lv_time":
        return stamp(int(value) * 1000) if value else ""
    return str(value)


def holder(row: Row) -> str:
    """Which hosts hold the LV, in which mode, since when: NODE:MODE@TIME, several with commas."""
    holders = row.get("lv_holders")
    if not holders:
        return str(row.get("lv_holder") or "")
    return ",".join(
        f"{one['node']}:{one['mode']}"
        + (f"@{stamp(one['since_wall_ms'])}" if one.get("since_wall_ms") else "")
        for one in holders
    )


def json_value(row: Row, field: str, unit: str, suffix: bool) -> Any:
    """A value with its own JSON type, as LVM2's json_std has it."""
    if field in NUMBERS:
        return int(row.get(field) or 0)
    if field in LISTS:
        return [one for one in str(row.get(field) or "").split(",") if one]
    if field in _PERCENTS and row.get(field) in ("", None):
        return None
    text = text_of(row, field, unit, suffix)
    if field in SIZES and not suffix and text:
        return float(text) if "." in text else int(text)
    return text


def sorted_rows(report: Report, rows: Sequence[Row], keys: str) -> list[Row]:
    """By LVM2's default keys, or by `-O KEY,-KEY`; `-` turns one round."""
    order = [key.strip() for key in keys.split(",") if key.strip()] or list(report.sort)
    found = list(rows)
    for key in reversed(order):
        descending = key.startswith("-")
        (field, *_) = find(report, key.lstrip("+-"))
        found.sort(key=lambda row: _sort_key(row, field), reverse=descending)
    return found


def _sort_key(row: Row, field: str) -> tuple[int, str]:
    value = row.get(field)
    return (value, "") if isinstance(value, int) else (0, str(value or ""))
