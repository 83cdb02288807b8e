"""Which fields a report has, which of them are shown, and what kind of report they make of it.

A report is of one kind; fields of a finer kind make a finer report of it: `lvs -o +devices` has a row a
segment, `vgs -o +pv_name` a row a PV.

Source: lvmreport(7); LVM2 tools/reporter.c (_get_final_report_type), libdm/libdm-report.c (_get_field,
_all_match), lib/config/defaults.h (the default columns)."""

from collections.abc import Sequence
from typing import NamedTuple

from ringfence.cli.report import columns
from ringfence.core.errors import BadInput

STRING, LIST, BINARY, NUMBER, SIZE, PERCENT, TIME = "s", "l", "b", "n", "z", "p", "t"
_RIGHT = (BINARY, NUMBER, SIZE)
_LEFT = ("pv_major", "pv_minor")


class Field(NamedTuple):
    name: str
    kind: str
    width: int
    """The least."""
    heading: str
    section: str

    @property
    def right(self) -> bool:
        """Whether it stands at the right of its column."""
        return self.kind in _RIGHT and self.name not in _LEFT


class Report(NamedTuple):
    """A kind of report."""

    name: str
    """As -o `all` knows its own, and JSON calls the list of rows."""
    prefix: str
    """May be left out before a field's name."""
    shown: str
    verbose: str
    """Shown with -v."""
    sort: str
    all: tuple[str, ...]
    """The sections of `-o all`."""


_LV = "lv_name,vg_name,lv_attr,lv_size,pool_lv,origin,data_percent,metadata_percent,move_pv,mirror_log,"
_LV += "copy_percent,convert_lv"

VGS = Report(
    "vg", "vg_", "vg_name,pv_count,lv_count,snap_count,vg_attr,vg_size,vg_free",
    "vg_name,vg_attr,vg_extent_size,pv_count,lv_count,snap_count,vg_size,vg_free,vg_uuid,vg_profile",
    "vg_name", ("vg",),
)  # fmt: skip
PVS = Report(
    "pv", "pv_", "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free",
    "pv_name,vg_name,pv_fmt,pv_attr,pv_size,pv_free,dev_size,pv_uuid",
    "pv_name", ("label", "pv"),
)  # fmt: skip
PVSEGS = Report(
    "pvseg", "pvseg_", PVS.shown + ",pvseg_start,pvseg_size",
    PVS.shown + ",pvseg_start,pvseg_size,lv_name,seg_start_pe,segtype,seg_pe_ranges",
    "pv_name,pvseg_start", ("label", "pvseg"),
)  # fmt: skip
LVS = Report(
    "lv", "lv_", _LV + ",lv_holder",
    "lv_name,vg_name,seg_count,lv_attr,lv_size,lv_major,lv_minor,lv_kernel_major,lv_kernel_minor,pool_lv,"
    "origin,data_percent,metadata_percent,move_pv,copy_percent,mirror_log,convert_lv,lv_uuid,lv_profile,"
    "lv_holder",
    "vg_name,lv_name", ("lv", "lvinfo", "lvstatus", "lvinfostatus", "vg", "ours"),
)  # fmt: skip
SEGS = Report(
    "seg", "seg_", "lv_name,vg_name,lv_attr,stripes,segtype,seg_size",
    "lv_name,vg_name,lv_attr,seg_start,seg_size,stripes,segtype,stripe_size,chunk_size",
    "vg_name,lv_name,seg_start", ("lv", "vg", "seg", "ours"),
)  # fmt: skip

TITLES = {
    "lv": "Logical Volume Fields", "lvinfo": "Logical Volume Device Info Fields",
    "lvstatus": "Logical Volume Device Status Fields",
    "lvinfostatus": "Logical Volume Device Info and Status Combined Fields", "ours": "Fields of ringfence",
    "label": "Physical Volume Label Fields", "pv": "Physical Volume Fields", "vg": "Volume Group Fields",
    "seg": "Logical Volume Segment Fields", "pvseg": "Physical Volume Segment Fields",
}  # fmt: skip
_PREFIXES = {"lvinfo": "lv_", "lvstatus": "lv_", "lvinfostatus": "lv_", "ours": "lv_", "label": "pv_"}

_OURS = """
lv_holder s 0 Holder
lv_uri s 0 URI
lv_parents l 0 Parents
"""
SELECTED = Field("selected", NUMBER, 8, "Selected", "special")
HELP = ("help", "?")
BAD_FIELD = "bad-field"
"""Code of errors that LVM2 finds when it makes the report: its exit code is 5, not 3."""


def _table() -> dict[str, Field]:
    found = {}
    for section in TITLES:
        text = _OURS if section == "ours" else getattr(columns, section.upper())
        for line in text.split("\n"):
            if line:
                name, kind, width, heading = line.split(" ", 3)
                found[name] = Field(name, kind, int(width), heading, section)
    return found


FIELDS = _table()
"""By name, in the order of `-o help`."""
_CANONICAL: dict[str, Field] = {}


def find(report: Report, name: str) -> Field | None:
    """A field by its name: underscores and case do not count, the report's own prefix may be left out."""
    if name in FIELDS:
        return FIELDS[name]
    if not _CANONICAL:
        _CANONICAL.update((one.name.replace("_", ""), one) for one in [*FIELDS.values(), SELECTED])
    plain = name.replace("_", "").lower()
    return _CANONICAL.get(plain) or _CANONICAL.get(report.prefix.replace("_", "") + plain)


class Chosen(NamedTuple):
    shown: list[Field]
    compact: tuple[str, ...]
    """Fields that are left out where they are empty in every row; ("*",): all."""
    help: bool


def chosen(report: Report, options: Sequence[str], verbose: bool) -> Chosen:
    """The fields that all -o options in order leave: FIELDS sets, +FIELDS adds, -FIELDS takes away, #FIELDS
    leaves out what is empty.

    Raises BadInput for a field that there is not."""
    shown = _named(report, report.verbose if verbose else report.shown)
    compact: list[str] = []
    for option in options:
        sign = option[:1] if option[:1] in ("+", "-", "#") else ""
        names = option[len(sign) :]
        if any(one.strip() in HELP for one in names.split(",")):
            return Chosen([], (), True)
        if sign == "#":
            compact += [one.name for one in _named(report, names)] or ["*"]
            continue
        found = _named(report, names)
        if sign == "+":
            # LVM2 shows twice what is asked for twice; but lv_holder is asked for by those who do not know
            # that it is shown anyway.
            shown = shown + [one for one in found if one.section != "ours" or one not in shown]
        elif sign == "-":
            shown = [one for one in shown if one not in found]
        else:
            shown = found
    return Chosen(shown, tuple(compact), False)


def _named(report: Report, names: str) -> list[Field]:
    found: list[Field] = []
    for name in names.split(","):
        if name := name.strip():
            one = find(report, name)
            found += [one] if one is not None else _all(report, name)
    return found


def _all(report: Report, name: str) -> list[Field]:
    """`all`: the report's own; PREFIX_all: those of every section with the prefix."""
    plain = name.replace("_", "").lower()
    for section in TITLES:
        prefix = _PREFIXES.get(section, section + "_")
        if plain == prefix.replace("_", "") + "all":
            return [one for one in FIELDS.values() if _PREFIXES.get(one.section, one.section + "_") == prefix]
    if plain == "all":
        return [one for section in TITLES if section in report.all for one in _section(section)]
    raise unknown(name)


def _section(section: str) -> list[Field]:
    return [one for one in FIELDS.values() if one.section == section]


def unknown(name: str) -> BadInput:
    return BadInput(
        f"Unrecognised field: {name}", next="`-o help` lists those that there are", code=BAD_FIELD
    )


def keys(report: Report, text: str) -> list[tuple[Field, bool]]:
    """-O's keys: (field, whether it goes down).  Raises BadInput."""
    found = []
    for key in (text or report.sort).split(","):
        if key := key.strip():
            sign = key[0] if key[0] in "+-" else ""
            field = find(report, key[len(sign) :])
            if field is None:
                raise unknown(key[len(sign) :])
            found.append((field, sign == "-"))
    return found


def final(report: Report, fields: Sequence[Field], of_pvs: bool = False) -> Report:
    """The kind of report that these fields make of it.

    Raises BadInput: LVs' and PVs' fields are not rows of one report, but of PVs' segments."""
    sections = {one.section for one in fields} | {report.name}
    lv = bool(sections & {"lv", "lvinfo", "lvstatus", "lvinfostatus", "ours", "seg"})
    pv = bool(sections & {"pv", "label", "pvseg"})
    if lv and pv and not of_pvs:
        raise BadInput(
            f'Can\'t report LV and PV fields at the same time in report type "{report.prefix}".',
            next="pvs --segments has both", code=BAD_FIELD,
        )
    if "pvseg" in sections or (lv and pv):
        return PVSEGS
    if pv:
        return PVS
    if "seg" in sections:
        return SEGS
    return LVS if lv else VGS


def help_lines(*, kinds: bool) -> list[str]:
    """What `-o help` says.

    Args: kinds: of values, too, as `-S help` tells them."""
    from ringfence.cli.report.descriptions import DESCRIPTIONS

    def line(name: str, text: str, kind: str = "") -> str:
        return f"  {name:<28}- {text}{_KINDS[kind] if kinds and kind else ''}"

    lines: list[str] = []
    for section, title in TITLES.items():
        prefix = _PREFIXES.get(section, section + "_")
        lines += ["", title, "-" * len(title), line(prefix + "all", "All fields in this section.")]
        lines += [line(one.name, DESCRIPTIONS[one.name], one.kind) for one in _section(section)]
    title = "Special Fields"
    lines += ["", title, "-" * len(title), line("selected", "The row passes the selection.", NUMBER)]
    return [*lines[1:], line("help", "This list.")]


_KINDS = {
    STRING: " [string]", LIST: " [string list]", BINARY: " [yes or no]", NUMBER: " [number]",
    SIZE: " [size]", PERCENT: " [percent]", TIME: " [time]",
}  # fmt: skip
