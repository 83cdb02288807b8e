"""pvs, vgs, lvs: LVM2's tables and JSON, with one column more: which host holds an LV.

Source: LVM2 tools/reporter.c; lvmreport(7)."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from ringfence.cli.answers import VERSION, one_line, stamp
from ringfence.cli.report import fields as known
from ringfence.cli.report.fields import LVS, PVS, PVSEGS, SEGS, VGS, Field, Report
from ringfence.cli.report.layout import Style, json_lines, json_rows, table
from ringfence.cli.report.select import Node, fields_of, parse_selection, selected
from ringfence.cli.report.values import MISSING, Look, sort_keys, texts
from ringfence.cli.verbs.derive import DERIVED, Row
from ringfence.cli.verbs.kinds import tag
from ringfence.cli.verbs.pv import path
from ringfence.cli.verbs.run import open_daemon
from ringfence.cli.verbs.table import DAEMON, HELP, QUIET, TEST, VERBOSE, Given, Option, Verb, call
from ringfence.client.brief import Brief, Call
from ringfence.core.errors import EXIT_FAILED, EXIT_OK, BadInput, NotFound, RingfenceError
from ringfence.core.units import UNITS

FORMATS = ("basic", "json", "json_std")


class Asked(NamedTuple):
    """What a command line wants to see."""

    report: Report
    """The kind that it became."""
    shown: list[Field]
    compact: tuple[str, ...]
    sort: list[tuple[Field, bool]]
    selection: Node | None
    look: Look
    style: Style
    format: str

    @property
    def needed(self) -> list[Field]:
        return list(
            dict.fromkeys([*self.shown, *(field for field, _ in self.sort), *fields_of(self.selection)])
        )


class Heard(NamedTuple):
    rows: list[Row]
    notes: list[str]
    errors: list[RingfenceError]


def _units(text: str) -> str:
    if len(text) != 1 or text not in UNITS:
        raise BadInput(f"--units {text}: give one of {' '.join(UNITS)}")
    return text


def _format(text: str) -> str:
    if text not in FORMATS:
        raise BadInput(f"{text!r} is not one of {', '.join(FORMATS)}")
    return text


OPTIONS = (
    Option("fields", ("-o", "--options"),
        "Fields; +FIELDS adds, -FIELDS takes away, #FIELDS leaves out empty ones; `help` lists all.",
        "FIELDS", many=True),
    Option("sort", ("-O", "--sort"), "Sort by these fields; -FIELD turns one round.", "FIELDS", default=""),
    Option("select", ("-S", "--select"), "Only rows that pass, as in lvmreport(7).", "SELECTION", default=""),
    Option("all", ("-a", "--all"), "What is internal, too: the LVs of disk slots."),
    Option("noheadings", ("--noheadings",), "No headings."),
    Option("separator", ("--separator",), "Between columns; they are then not aligned.", "TEXT"),
    Option("aligned", ("--aligned",), "Align columns though there is a --separator."),
    Option("unaligned", ("--unaligned",), "Do not align columns.", ours=True),
    Option("nameprefixes", ("--nameprefixes",), "LVM2_FIELD='VALUE', for a shell."),
    Option("unquoted", ("--unquoted",), "--nameprefixes without quotes."),
    Option("rows", ("--rows",), "A line a field."),
    Option("units", ("--units",), f"One of {UNITS}; capitals: 1000s.  [default: r]", "UNIT", _units, "r"),
    Option("nosuffix", ("--nosuffix",), "No unit behind sizes."),
    Option("reportformat", ("--reportformat",), "basic, json or json_std.", "FORMAT", _format, "basic",
        choices=FORMATS),
    Option("json", ("--json",), "As --reportformat json_std.", ours=True),
    Option("binary", ("--binary",), "1 and 0 for what is or is not."),
    Option("readonly", ("--readonly",), "Reports only read; taken from LVM2's scripts."),
    Option("partial", ("-P", "--partial"), "VGs without all of their PVs are shown anyway."),
    Option("shared", ("--shared",), "Shared VGs are shown anyway."),
    Option("foreign", ("--foreign",), "VGs of other hosts are shown anyway."),
    Option("unbuffered", ("--unbuffered",), "Rows are printed when all are there."),
    Option("yes", ("-y", "--yes"), "Reports do not ask."),
    VERBOSE._replace(help="More columns."), QUIET, TEST._replace(help="Reports change nothing."),
    *DAEMON, HELP,
)  # fmt: skip
_SEGMENTS = Option("segments", ("--segments",), "A row a segment.")


def _asked(given: Given, report: Report, of_pvs: bool = False) -> Asked | None:
    """None: `-o help` was printed."""
    shown, compact, help = known.chosen(report, given["fields"], bool(given["verbose"]))
    if help or given["select"] in known.HELP:
        print("\n".join("  " + line for line in known.help_lines()))
        return None
    selection = parse_selection(given["select"], lambda name: known.find(report, name))
    sort = known.keys(report, given["sort"])
    used = [*shown, *(field for field, _ in sort if given["sort"]), *fields_of(selection)]
    became = known.final(report, [one for one in used if one is not known.SELECTED], of_pvs)
    if not given["sort"]:
        sort = known.keys(became if became.name.endswith("seg") else report, "")
    style = Style(
        headings=not given["noheadings"],
        separator=" " if given["separator"] is None else given["separator"],
        aligned=not given["unaligned"] and (given["separator"] is None or bool(given["aligned"])),
        prefixes=bool(given["nameprefixes"]),
        quoted=not given["unquoted"],
        columns_as_rows=bool(given["rows"]),
    )
    if style.prefixes:
        style = style._replace(aligned=bool(given["aligned"]))
    look = Look(given["units"], not given["nosuffix"], bool(given["binary"]))
    format = "json_std" if given["json"] else given["reportformat"]
    return Asked(became, shown, compact, sort, selection, look, style, format)


# -- asking ------------------------------------------------------------------------


def pvs(given: Given) -> int:
    asked = _asked(given, PVSEGS if given["segments"] else PVS, of_pvs=True)
    if asked is None:
        return EXIT_OK
    with open_daemon(given) as daemon:
        heard = _hear(daemon, [_pv_call(asked)])
        _with_vgs(daemon, asked, heard)
    wanted = {path(name): name for name in given.names if not name.startswith("@")}
    tags = {tag(name) for name in given.names if name.startswith("@")}
    have = {row["pv_name"] for row in heard.rows}
    heard.errors.extend(
        NotFound(f'Failed to find physical volume "{one}"', next="see pvs, and [devices] paths")
        for one in wanted
        if one not in have
    )
    if given.names:
        heard = heard._replace(
            rows=[row for row in heard.rows if row["pv_name"] in wanted or tags & set(_tags(row, "pv_tags"))]
        )
    return _finish(asked, heard)


def vgs(given: Given) -> int:
    asked = _asked(given, VGS)
    if asked is None:
        return EXIT_OK
    vgs = [name for name in given.names if not name.startswith("@")]
    tags = {tag(name) for name in given.names if name.startswith("@")}
    with open_daemon(given) as daemon:
        if asked.report is VGS:
            heard = _hear(daemon, [call("Vgs", vg=name or None) for name in vgs or ("",)])
        else:
            questions = [_lv_call(asked, name, "", given) for name in vgs or ("",)]
            heard = _hear(daemon, [_pv_call(asked)] if asked.report in (PVS, PVSEGS) else questions)
            rows = [row for row in heard.rows if row.get("vg_name") and (not vgs or row["vg_name"] in vgs)]
            heard = heard._replace(rows=rows)
            _with_vgs(daemon, asked, heard)
    if tags and not vgs:
        heard = heard._replace(rows=[row for row in heard.rows if tags & set(_tags(row, "vg_tags"))])
    return _finish(asked, heard)


def lvs(given: Given) -> int:
    asked = _asked(given, SEGS if given["segments"] else LVS)
    if asked is None:
        return EXIT_OK
    questions = []
    for name in [name for name in given.names if not name.startswith("@")] or ("",):
        vg, _, lv = name.removeprefix("/dev/").partition("/")
        questions.append(_lv_call(asked, vg, lv, given))
    tags = {tag(name) for name in given.names if name.startswith("@")}
    with open_daemon(given) as daemon:
        heard = _hear(daemon, questions)
        _with_vgs(daemon, asked, heard)
    if tags:
        rows = [row for row in heard.rows if tags & set(_tags(row, "lv_tags"))]
        heard = heard._replace(rows=rows)
    return _finish(asked, heard)


def _tags(row: Row, field: str) -> list[str]:
    return str(row.get(field) or "").split(",")


def _pv_call(asked: Asked) -> Call:
    return call("Pvs", segments=asked.report is PVSEGS or None)


def _lv_call(asked: Asked, vg: str, lv: str, given: Given) -> Call:
    return call(
        "Lvs", vg=vg or None, lv=lv or None, all=bool(given["all"]) or None,
        segments=asked.report is SEGS or None,
    )  # fmt: skip


def _hear(daemon: Brief, questions: Sequence[Call]) -> Heard:
    rows: list[Row] = []
    notes: list[str] = []
    errors: list[RingfenceError] = []
    for question in questions:
        try:
            answer: dict[str, Any] = daemon.call(question)
        except RingfenceError as error:
            errors.append(error)
            continue
        found = answer["rows"]
        rows += [row for row in found if row not in rows] if rows else found
        notes += [note for note in answer.get("notes") or [] if note not in notes]
    return Heard([part for row in rows for part in _parts(row)], notes, errors)


def _parts(row: Row) -> list[Row]:
    """A row of an LV or PV with its segments: a row for each of those."""
    segments = row.pop("segments", None)
    return [row] if segments is None else [row | segment for segment in segments]


_NO_VG: Row = {
    field.name: 0
    for field in known.FIELDS.values()
    if field.section == "vg" and field.kind in (known.NUMBER, known.SIZE)
}
"""What a PV without a VG says of its VG."""


def _with_vgs(daemon: Brief, asked: Asked, heard: Heard) -> None:
    """Give rows the fields of their VGs, where they are asked for."""
    if not any(field.section == "vg" and field.name != "vg_name" for field in asked.needed):
        return
    vgs = {row["vg_name"]: row for row in _hear(daemon, [call("Vgs")]).rows}
    for at, row in enumerate(heard.rows):
        heard.rows[at] = vgs.get(row.get("vg_name"), _NO_VG) | row


# -- printing ----------------------------------------------------------------------


def _finish(asked: Asked, heard: Heard) -> int:
    values = Columns(heard.rows)
    passes = selected(asked.selection, values, len(heard.rows))
    shown = asked.shown
    order = [at for at, passed in enumerate(passes) if passed]
    if known.SELECTED in asked.needed:
        values.known[known.SELECTED.name] = [int(passed) for passed in passes]
        if known.SELECTED in shown:
            order = list(range(len(passes)))
    for field, descending in reversed(asked.sort):
        key = sort_keys(field, values(field))
        order.sort(key=key.__getitem__, reverse=descending)
    columns = [[column[at] for at in order] for column in map(values, shown)]
    cells = [texts(field, column, asked.look) for field, column in zip(shown, columns, strict=True)]
    if asked.compact:
        empty = {
            field.name
            for field, text in zip(shown, cells, strict=True)
            if ("*" in asked.compact or field.name in asked.compact) and not any(text)
        }
        kept = [at for at, field in enumerate(shown) if field.name not in empty]
        shown, columns, cells = (
            [shown[at] for at in kept], [columns[at] for at in kept], [cells[at] for at in kept]
        )  # fmt: skip
    if asked.format == "basic":
        _say(table(shown, cells, asked.style))
    elif asked.format == "json":
        _say(json_lines(asked.report.name, shown, cells))
    else:
        _print_json_std(asked, heard, json_rows(shown, columns, cells, asked.look))
    if asked.format != "json_std":
        for note in heard.notes:
            print(f"  {one_line(note)}", file=sys.stderr)
        for error in heard.errors:
            print(f"  {one_line(str(error))}", file=sys.stderr)
    return EXIT_FAILED if heard.errors else EXIT_OK


def _say(lines: list[str]) -> None:
    """In one piece: 20,000 lines are printed quickly."""
    if lines:
        sys.stdout.write("\n".join(lines) + "\n")


class Columns:
    """Raw values of each field, a list a field."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self.known: dict[str, list[Any]] = {}

    def __call__(self, field: Field) -> list[Any]:
        name = field.name
        if name not in self.known:
            self.known[name] = self._column(name)
        return self.known[name]

    def _column(self, name: str) -> list[Any]:
        if name == "lv_holder":
            return [holder(row) for row in self._rows]
        if name in DERIVED:
            made = DERIVED[name][1]
            return [row[name] if name in row else made(row) for row in self._rows]
        missing = MISSING.get(name, "")
        return [row.get(name, missing) for row in self._rows]


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


def _print_json_std(asked: Asked, heard: Heard, rows: list[dict[str, Any]]) -> None:
    """LVM2's json_std: native types, and what was said beside the report in a log; plus our version."""
    import json

    log = [{"log_type": "warn", "log_message": one_line(note)} for note in heard.notes]
    log += [{"log_type": "error", "log_message": one_line(str(error))} for error in heard.errors]
    answer: dict[str, Any] = {"version": VERSION, "report": [{asked.report.name: rows}], "log": log}
    if heard.errors:
        answer["error"] = heard.errors[0].as_dict()
    print(json.dumps(answer, indent=4, ensure_ascii=False))


VERBS = {
    "pvs": Verb(
        "pvs", "Report PVs.", "[PV|@TAG...]", (_SEGMENTS, *OPTIONS), run=pvs, names="pv",
        examples=(
            ("pvs -o +pv_used", "a column more"), ("pvs --segments", "what each piece of a PV is used for"),
        ),
    ),
    "vgs": Verb(
        "vgs", "Report VGs.", "[VG|@TAG...]", OPTIONS, run=vgs, names="vg",
        examples=(
            ("vgs --units g -o name,size,free", "sizes in GiB"), ("vgs -S 'vg_free<10g'", "VGs that fill up"),
        ),
    ),
    "lvs": Verb(
        "lvs", "Report LVs and which host holds them.", "[VG|VG/LV|@TAG...]", (_SEGMENTS, *OPTIONS), run=lvs,
        names="lv",
        examples=(
            ("lvs -o +devices vg0", "where each segment lies"),
            ("lvs -O -lv_size -S 'lv_tags=db && lv_size>=1g'", "the large ones with the tag, largest first"),
            ("lvs --reportformat json --units b", "for programs"),
        ),
    ),
}  # fmt: skip
