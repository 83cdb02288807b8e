"""Report fields that follow from others: what a letter of lv_attr says, where a device node would be.

They cost nothing on the wire.  Source: lvs(8), "lv_attr"; LVM2 lib/metadata/lv.c, vg.c, pv.c."""

import os
from collections.abc import Callable
from typing import Any

from ringfence.cli.answers import stamp

Row = dict[str, Any]

_POLICIES = {"c": "contiguous", "l": "cling", "n": "normal", "a": "anywhere", "i": "inherit"}


def letter(row: Row, field: str, at: int) -> str:
    return str(row.get(field) or "").ljust(at + 1, "-")[at]


def _dm_path(row: Row) -> str:
    names = (str(row.get(key) or "").replace("-", "--") for key in ("vg_name", "lv_name"))
    return "/dev/mapper/" + "-".join(names)


def _layout(row: Row) -> str:
    kinds = str(row.get("segtype") or "").split(",")
    return kinds[0] if len(kinds) == 1 else "striped" if set(kinds) <= {"linear", "striped"} else kinds[0]


def _modes(row: Row) -> list[str]:
    return [str(one["mode"]) for one in row["lv_holders"] or ()]


def _locally(row: Row) -> bool:
    return row.get("lv_active") == "active"


def _remotely(row: Row) -> bool:
    return len(_modes(row)) > _locally(row)


def _number(row: Row, major: bool) -> int:
    try:
        device = os.stat(str(row.get("pv_name"))).st_rdev
    except OSError:
        return -1
    return os.major(device) if major else os.minor(device)


def holder(row: Row) -> str:
    """Which hosts hold the LV, in which mode, since when: NODE:MODE@TIME, several with commas."""
    return ",".join(
        f"{one['node']}:{one['mode']}"
        + (f"@{stamp(one['since_wall_ms'])}" if one.get("since_wall_ms") else "")
        for one in row["lv_holders"] or ()
    )


ASKABLE = (
    "lv_name", "vg_name", "lv_attr", "lv_size", "pool_lv", "origin", "data_percent", "metadata_percent",
    "move_pv", "mirror_log", "copy_percent", "convert_lv", "lv_uuid", "lv_path", "lv_uri", "lv_active",
    "lv_holders", "lv_lockargs", "lv_tags", "lv_time", "lv_host", "lv_parents", "seg_count", "segtype",
    "seg_pe_ranges", "devices", "segments",
)  # fmt: skip
"""Fields of LVs that the daemon can be asked for; the rest follows from them, or is not known here."""

DERIVED: dict[str, tuple[tuple[str, ...], Callable[[Row], Any]]] = {
    "lv_full_name": (("vg_name", "lv_name"), lambda row: f"{row['vg_name']}/{row['lv_name']}"),
    "lv_dm_path": (("vg_name", "lv_name"), _dm_path),
    "lv_layout": (("segtype",), _layout),
    "lv_role": (("lv_name",), lambda row: "public"),
    "lv_allocation_policy": (("lv_attr",), lambda row: _POLICIES.get(letter(row, "lv_attr", 2).lower(), "")),
    "lv_allocation_locked": (("lv_attr",), lambda row: letter(row, "lv_attr", 2).isupper()),
    "lv_fixed_minor": (("lv_attr",), lambda row: letter(row, "lv_attr", 3) == "m"),
    "lv_skip_activation": (("lv_attr",), lambda row: letter(row, "lv_attr", 9) == "k"),
    "lv_permissions": (
        ("lv_attr",), lambda row: {"w": "writeable", "r": "read-only"}.get(letter(row, "lv_attr", 1), "")
    ),
    "lv_device_open": (("lv_attr",), lambda row: letter(row, "lv_attr", 5) == "o"),
    "lv_health_status": (("lv_attr",), lambda row: "partial" if letter(row, "lv_attr", 8) == "p" else ""),
    "lv_active_locally": (("lv_active",), _locally),
    "lv_active_remotely": (("lv_active", "lv_holders"), _remotely),
    "lv_active_exclusively": (("lv_holders",), lambda row: _modes(row) == ["EX"]),
    "vg_permissions": (
        ("vg_attr",), lambda row: {"w": "writeable", "r": "read-only"}.get(letter(row, "vg_attr", 0), "")
    ),
    "vg_extendable": (("vg_attr",), lambda row: letter(row, "vg_attr", 1) == "z"),
    "vg_exported": (("vg_attr",), lambda row: letter(row, "vg_attr", 2) == "x"),
    "vg_partial": (("vg_attr",), lambda row: letter(row, "vg_attr", 3) == "p"),
    "vg_allocation_policy": (("vg_attr",), lambda row: _POLICIES.get(letter(row, "vg_attr", 4), "")),
    "vg_clustered": (("vg_attr",), lambda row: letter(row, "vg_attr", 5) == "c"),
    "vg_sysid": (("vg_systemid",), lambda row: row.get("vg_systemid") or ""),
    "pv_allocatable": (("pv_attr",), lambda row: letter(row, "pv_attr", 0) == "a"),
    "pv_exported": (("pv_attr",), lambda row: letter(row, "pv_attr", 1) == "x"),
    "pv_missing": (("pv_attr",), lambda row: letter(row, "pv_attr", 2) == "m"),
    "pv_duplicate": (("pv_attr",), lambda row: letter(row, "pv_attr", 0) == "d"),
    "pv_major": (("pv_name",), lambda row: _number(row, True)),
    "pv_minor": (("pv_name",), lambda row: _number(row, False)),
    "lv_holder": (("lv_holders",), holder),
    "data_stripes": (("stripes",), lambda row: row.get("stripes", "")),
    "seg_le_ranges": (("seg_pe_ranges",), lambda row: str(row.get("seg_pe_ranges") or "").replace(" ", ",")),
}  # fmt: skip
"""Field -> what it follows from, and how."""
