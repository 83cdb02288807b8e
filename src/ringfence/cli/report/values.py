"""A field's raw values: how they are printed, sorted and compared.

Raw are, as the daemon answers: strings; lists of strings (or one with commas); whole numbers; sizes in
bytes; times in seconds since 1970.  "" and None say that there is no value.

Source: LVM2 lib/report/values.h (the words), lib/report/report.c, libdm/libdm-report.c (_row_compare)."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ringfence.cli.report.fields import BINARY, LIST, NUMBER, PERCENT, SIZE, TIME, Field
from ringfence.core.units import format_size

UNDEFINED = (1 << 64) - 1
"""A number that there is not: greater than any."""
UNKNOWN = ("-1", "unknown", "undefined", "undef")

WORDS: dict[str, tuple[str, ...]] = {
    "pv_allocatable": ("allocatable",),
    "pv_exported": ("exported",),
    "pv_missing": ("missing",),
    "pv_in_use": ("used", "in use"),
    "pv_duplicate": ("duplicate",),
    "vg_extendable": ("extendable",),
    "vg_exported": ("exported",),
    "vg_autoactivation": ("enabled",),
    "vg_partial": ("partial",),
    "vg_clustered": ("clustered",),
    "vg_shared": ("shared",),
    "lv_initial_image_sync": ("initial image sync", "sync"),
    "lv_image_synced": ("image synced", "synced"),
    "lv_merging": ("merging",),
    "lv_converting": ("converting",),
    "lv_allocation_locked": ("allocation locked", "locked"),
    "lv_fixed_minor": ("fixed minor", "fixed"),
    "lv_skip_activation": ("skip activation", "skip"),
    "lv_autoactivation": ("enabled",),
    "lv_active": ("active",),
    "lv_active_locally": ("active locally", "active", "locally"),
    "lv_active_remotely": ("active remotely", "active", "remotely"),
    "lv_active_exclusively": ("active exclusively", "active", "exclusively"),
    "lv_suspended": ("suspended",),
    "lv_live_table": ("live table present", "live table", "live"),
    "lv_inactive_table": ("inactive table present", "inactive table", "inactive"),
    "lv_device_open": ("open",),
    "lv_historical": ("historical",),
    "lv_check_needed": ("check needed", "needed"),
    "lv_merge_failed": ("merge failed", "failed"),
    "lv_snapshot_invalid": ("snapshot invalid", "invalid"),
    "zero": ("zero",),
}
"""Of yes-or-no fields: what is printed for yes, and other words for it in a selection."""
NAMES: dict[str, dict[str, str]] = {
    "vg_permissions": {"rw": "writeable", "read-write": "writeable", "r": "read-only", "ro": "read-only"},
    "lv_permissions": {"rw": "writeable", "read-write": "writeable", "r": "read-only", "ro": "read-only"},
    "lv_when_full": {
        "error when full": "error", "error if no space": "error", "queue when full": "queue",
        "queue if no space": "queue", "undefined": "",
    },
    "cache_policy": {"undefined": ""}, "seg_monitor": {"undefined": ""},
    "lv_health_status": {"undefined": ""},
    "kernel_discards": {"undefined": ""}, "vdo_write_policy": {"undefined": ""},
}  # fmt: skip
"""Of string fields: words in a selection -> the value that is meant."""
NUMBER_WORDS = {"lv_read_ahead": "auto", "vg_mda_copies": "unmanaged"}
"""Of number and size fields: what is said where there is no number."""

MISSING: dict[str, str | int] = {
    "lv_major": -1, "lv_minor": -1, "lv_kernel_major": -1, "lv_kernel_minor": -1, "lv_read_ahead": "auto",
    "lv_kernel_read_ahead": "-1", "raidintegrityblocksize": -1, "writecache_block_size": -1,
    "vg_mda_copies": "unmanaged", "zero": "unknown", "lv_suspended": "unknown", "lv_live_table": "unknown",
    "lv_inactive_table": "unknown", "lv_check_needed": "unknown", "lv_merge_failed": "unknown",
    "lv_snapshot_invalid": "unknown", "region_size": 0, "chunk_size": 0, "data_copies": 1,
    "lv_autoactivation": "enabled", "vg_autoactivation": "enabled", "max_lv": 0, "max_pv": 0,
    "pv_ba_start": 0, "pv_ba_size": 0, "pv_ext_vsn": 2, "snap_count": 0,
}  # fmt: skip
"""What stock LVM2 prints where a field has no value and that is not the empty string."""


class Look(NamedTuple):
    """How values are printed."""

    unit: str = "r"
    suffix: bool = True
    numeric: bool = False
    """1 and 0 for yes and no."""


def all_same(values: Sequence[Any]) -> bool:
    """Whether there is one value in all rows, as in most columns of thousands of LVs."""
    return bool(values) and values[0] == values[-1] and values.count(values[0]) == len(values)


def texts(field: Field, values: Sequence[Any], look: Look) -> list[str]:
    """As LVM2 prints them."""
    make = _printer(field, look)
    if all_same(values):
        return [make(values[0])] * len(values)
    if make is _plain:
        return [value if type(value) is str else _plain(value) for value in values]
    keys = [tuple(value) if type(value) is list else value for value in values]
    known = {key: make(key) for key in dict.fromkeys(keys)}
    return [known[key] for key in keys]


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def _printer(field: Field, look: Look) -> Callable[[Any], str]:
    if field.kind == SIZE:
        return lambda value: _size(value, look)
    if field.kind == TIME:
        return _time
    if field.kind == LIST:
        return lambda value: value if type(value) is str else ",".join(value or ())
    if field.kind == BINARY:
        if look.numeric:
            return lambda value: ("-1" if value in UNKNOWN else "1") if value else "0"
        word = WORDS.get(field.name, ("yes",))[0]
        return lambda value: value if type(value) is str else word if value else ""
    return _plain


def _size(value: Any, look: Look) -> str:
    if type(value) is int:
        return format_size(value, look.unit, suffix=look.suffix)
    return value or ""


def _time(value: Any) -> str:
    if type(value) is str:
        return value
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(value)) if value else ""


def sort_keys(field: Field, values: Sequence[Any]) -> list[Any]:
    """Values that Python compares as LVM2 does."""
    if field.kind in (NUMBER, SIZE, TIME, BINARY):
        return [number(field, value) for value in values]
    if field.kind == LIST:
        return [value if type(value) is str else ",".join(value or ()) for value in values]
    return ["" if value is None else str(value) for value in values]


def number(field: Field, value: Any) -> float:
    """What a value counts as.  Sizes are in bytes."""
    if isinstance(value, int):
        return value if value >= 0 else value + (1 << 64)
    if value is None or value == "":
        return 0 if field.kind in (TIME, BINARY) else UNDEFINED
    if field.kind == BINARY:
        return UNDEFINED if value in UNKNOWN else 1
    if isinstance(value, float):
        return value
    try:
        return int(value) % (1 << 64)
    except ValueError:
        return UNDEFINED


def items(value: Any) -> list[str]:
    """Of a list field, sorted."""
    found = value.split(",") if type(value) is str else list(value or ())
    return sorted(one for one in found if one)


def json_value(field: Field, value: Any, text: str, look: Look) -> Any:
    """A value with its own JSON type, as LVM2's json_std has it."""
    if field.kind == LIST:
        return [one for one in text.replace(" ", ",").split(",") if one]
    if field.kind in (NUMBER, PERCENT):
        return value if isinstance(value, int | float) else text or None
    if field.kind == SIZE and not look.suffix and type(value) is int:
        return (float(text) if "." in text else int(text)) if text[:1].isdigit() else text
    return text
