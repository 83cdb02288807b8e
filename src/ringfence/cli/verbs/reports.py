"""pvs, vgs, lvs: LVM2's tables and JSON, with one column more: which host holds an LV.

Source: LVM2 tools/reporter.c; lvmreport(7)."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ringfence.cli.answers import VERSION, one_line
from ringfence.cli.report import fields as known
from ringfence.cli.report.fields import LVS, PVS, PVSEGS, SEGS, VGS, Field, Report
from ringfence.cli.report.layout import Style, json_lines, json_rows, table
from ringfence.cli.report.values import MISSING, Look, all_same, sort_keys, texts
from ringfence.cli.verbs.derive import ASKABLE, DERIVED, Row
from ringfence.cli.verbs.kinds import tag
from ringfence.cli.verbs.pv import path
from ringfence.cli.verbs.rows import Table
from ringfence.cli.verbs.run import ask, open_daemon
from ringfence.cli.verbs.table import (
    DAEMON,
    HELP,
    QUIET,
    TEST,
    VERBOSE,
    Given,
    Option,
    Stock,
    Verb,
    call,
    ignored,
)
from ringfence.client.brief import Brief, Call
from ringfence.core.errors import EXIT_FAILED, EXIT_OK, BadInput, NotFound, RingfenceError
from ringfence.core.units import UNITS, parse_unit

if TYPE_CHECKING:
    from ringfence.cli.report.select import Node

FORMATS = ("basic", "json", "json_std")


class Asked(NamedTuple):
    """What a command line wants to see."""

    report: Report
    """The kind that it became."""
    shown: list[Field]
    compact: tuple[str, ...]
    sort: list[tuple[Field, bool]]
    selection: "Node | None"
    look: Look
    style: Style
    format: str

    @property
    def needed(self) -> list[Field]:
        selects = self.selection.fields if self.selection else []
        return list(dict.fromkeys([*self.shown, *(field for field, _ in self.sort), *selects]))


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
    Option("all", ("-a", "--all"), "What is internal, too: LVs of disk slots, LVs that are being wiped."),
    Option("noheadings", ("--noheadings",), "No headings."),
    Option("separator", ("--separator",), "Between columns; they are then not aligned.", "TEXT"),
    Option("aligned", ("--aligned",), "Align columns though there is a --separator."),
    Option("unaligned", ("--unaligned",), "Do not align columns.", ours=True),
    Option("nameprefixes", ("--nameprefixes",), "LVM2_FIELD='VALUE', for a shell."),
    Option("unquoted", ("--unquoted",), "--nameprefixes without quotes."),
    Option("rows", ("--rows",), "A line a field."),
    Option("units", ("--units",), f"One of {UNITS}, or 4m; capitals: 1000s.  [default: r]", "UNIT",
        parse_unit, "r"),
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
    ignored("--ignorelockingfailure"),
    VERBOSE.saying("More columns."), QUIET, TEST.saying("Reports change nothing."),
    *DAEMON, HELP,
)  # fmt: skip
_SEGMENTS = Option("segments", ("--segments",), "A row a segment.")


def _asked(given: Given, report: Report, of_pvs: bool = False) -> Asked | None:
    """None: `-o help` was printed."""
    shown, compact, help = known.chosen(report, given["fields"], bool(given["verbose"]))
    if help or given["select"] in known.HELP:
        print("\n".join("  " + line for line in known.help_lines(kinds=not help)))
        return None
    selection = None
    if given["select"]:
        from ringfence.cli.report.select import parse_selection

        selection = parse_selection(given["select"], lambda name: known.find(report, name))
    sort = known.keys(report, given["sort"])
    used = [*shown, *(field for field, _ in sort if given["sort"]), *(selection.fields if selection else ())]
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
    have = heard.table.column("pv_name")
    heard.errors.extend(
        NotFound(f'Failed to find physical volume "{one}"', next="see pvs, and [devices] paths")
        for one in wanted
        if one not in have
    )
    if given.names:
        tagged = _tagged(heard, "pv_tags", given)
        heard.table.keep([name in wanted or one for name, one in zip(have, tagged, strict=True)])
    return _finish(asked, heard)


def vgs(given: Given) -> int:
    asked = _asked(given, VGS)
    if asked is None:
        return EXIT_OK
    names = [name for name in given.names if not name.startswith("@")]
    with open_daemon(given) as daemon:
        if asked.report is VGS:
            heard = _hear(daemon, [call("Vgs", vg=name or None) for name in names or ("",)])
        elif asked.report in (PVS, PVSEGS):
            heard = _hear(daemon, [_pv_call(asked)])
            heard.table.keep([bool(vg) and vg in (names or [vg]) for vg in heard.table.column("vg_name")])
        else:
            many = len(names) > 1
            heard = _hear(daemon, [_lv_call(asked, name, "", given, many) for name in names or ("",)])
        _with_vgs(daemon, asked, heard)
    if len(names) < len(given.names):
        tagged = _tagged(heard, "vg_tags", given)
        vgs = heard.table.column("vg_name")
        heard.table.keep([vg in names or one for vg, one in zip(vgs, tagged, strict=True)])
    return _finish(asked, heard)


def lvs(given: Given) -> int:
    asked = _asked(given, SEGS if given["segments"] else LVS)
    if asked is None:
        return EXIT_OK
    questions = []
    names = [name for name in given.names if not name.startswith("@")]
    for name in names or ("",):
        vg, _, lv = name.partition("/")
        questions.append(_lv_call(asked, vg, lv, given, len(names) > 1))
    with open_daemon(given) as daemon:
        heard = _hear(daemon, questions)
        _with_vgs(daemon, asked, heard)
    if any(name.startswith("@") for name in given.names):
        heard.table.keep(_tagged(heard, "lv_tags", given))
    return _finish(asked, heard)


def _tagged(heard: "Heard", field: str, given: Given) -> list[bool]:
    """For each row, whether it has one of the tags that were given as @TAG."""
    tags = {tag(name) for name in given.names if name.startswith("@")}
    return [bool(tags & set(str(have or "").split(","))) for have in heard.table.column(field)]


def _pv_call(asked: Asked) -> Call:
    return call("Pvs", segments=asked.report is PVSEGS or None)


def _lv_call(asked: Asked, vg: str, lv: str, given: Given, one_of_many: bool) -> Call:
    """Only what is to be shown is asked for: of 20,000 LVs each field takes its time.

    Args: one_of_many: answers are to be joined, by the LVs' uuids."""
    wanted = {field.name for field in asked.needed} | {"vg_name"}
    wanted |= {"lv_uuid"} if one_of_many else set()
    wanted |= {"lv_name"} if "lv_path" in wanted else set()
    wanted |= {source for name in wanted if name in DERIVED for source in DERIVED[name][0]}
    if any(name.startswith("@") for name in given.names):
        wanted.add("lv_tags")
    if asked.report is SEGS:
        wanted.add("segments")
    fields = [name for name in ASKABLE if name in wanted]
    every = bool(given["all"]) or None
    return call("Lvs", vg=vg or None, lv=lv or None, all=every, fields=fields, same=True)


class Heard(NamedTuple):
    table: Table
    notes: list[str]
    errors: list[RingfenceError]


def _hear(daemon: Brief, questions: Sequence[Call]) -> Heard:
    tables: list[Table] = []
    notes: list[str] = []
    errors: list[RingfenceError] = []
    for question in questions:
        try:
            answer: dict[str, Any] = ask(daemon, question, "fields", "segments")
        except RingfenceError as error:
            errors.append(error)
            continue
        tables.append(Table.of_answer(answer))
        notes += [note for note in answer.get("notes") or [] if note not in notes]
    table = tables[0] if len(tables) == 1 else Table.joined(tables)
    if "lv_path" in table.columns:
        _complete_paths(table, os.path.join(os.path.dirname(daemon.path), "dev"))
    table.split("segments")
    return Heard(table, notes, errors)


def _complete_paths(table: Table, directory: str) -> None:
    """LVM2 has a path of an LV that is not active, too: where it will be."""
    columns = (table.column(name) for name in ("lv_path", "vg_name", "lv_name"))
    table.columns["lv_path"] = [
        path or (f"{directory}/{vg}/{lv}" if lv else "") for path, vg, lv in zip(*columns, strict=True)
    ]


_NO_VG: Row = {
    field.name: 0
    for field in known.FIELDS.values()
    if field.section == "vg" and field.kind in (known.NUMBER, known.SIZE)
}
"""What a PV without a VG says of its VG."""


def _with_vgs(daemon: Brief, asked: Asked, heard: Heard) -> None:
    """Give rows the fields of their VGs, where they are asked for."""
    wanted = {field.name for field in asked.needed if field.section == "vg"}
    wanted |= {source for name in wanted if name in DERIVED for source in DERIVED[name][0]}
    wanted.discard("vg_name")
    if not wanted or asked.report is VGS:
        return
    vgs = {row["vg_name"]: row for row in daemon.call(call("Vgs"))["rows"]}
    named = heard.table.column("vg_name")
    for name in sorted(wanted - set(DERIVED)):
        heard.table.columns[name] = [vgs.get(vg, _NO_VG).get(name, MISSING.get(name, "")) for vg in named]


# -- printing ----------------------------------------------------------------------


def _finish(asked: Asked, heard: Heard) -> int:
    def values(field: Field) -> list[Any]:
        return heard.table.column(field.name)

    passes = [True] * heard.table.count
    if asked.selection is not None:
        from ringfence.cli.report.select import selected

        passes = selected(asked.selection, values)
    shown = asked.shown
    order = [at for at, passed in enumerate(passes) if passed]
    if known.SELECTED in asked.needed:
        heard.table.columns[known.SELECTED.name] = [int(passed) for passed in passes]
        if known.SELECTED in shown:
            order = list(range(len(passes)))
    for field, descending in reversed(asked.sort):
        if not all_same(values(field)):
            key = sort_keys(field, values(field))
            order.sort(key=key.__getitem__, reverse=descending)
    columns = [
        column[: len(order)] if all_same(column) else [column[at] for at in order]
        for column in map(values, shown)
    ]
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
        names="lv", stock=(Stock(("-H", "--history"), "historical LVs", False),),
        examples=(
            ("lvs -o +devices vg0", "where each segment lies"),
            ("lvs -O -lv_size -S 'lv_tags=db && lv_size>=1g'", "the large ones with the tag, largest first"),
            ("lvs --reportformat json --units b", "for programs"),
        ),
    ),
}  # fmt: skip
