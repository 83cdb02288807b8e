"""pvs, vgs, lvs: LVM2's tables and JSON, with one column more: which host holds an LV.

Source: LVM2 libdm/libdm-report.c (rows, headings, separators, JSON); lvmreport(7)."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from ringfence.cli.answers import VERSION, one_line
from ringfence.cli.fields import (
    HEADINGS,
    LVS,
    PVS,
    RIGHT,
    VGS,
    Report,
    Row,
    chosen,
    json_value,
    sorted_rows,
    text_of,
)
from ringfence.cli.options import daemon_options, open_daemon
from ringfence.client import Connection
from ringfence.core.errors import EXIT_FAILED, EXIT_OK, NotFound, RingfenceError
from ringfence.core.units import UNITS
from ringfence.wire import client as calls

C = TypeVar("C", bound=Callable[..., Any])


class Look(NamedTuple):
    """How to print."""

    options: tuple[str, ...]
    sort: str
    headings: bool
    separator: str | None
    unit: str
    suffix: bool
    format: str


def _report_options(command: C) -> C:
    for option in reversed((
        click.option("-o", "--options", multiple=True, help="Fields; +FIELDS adds, -FIELDS takes away."),
        click.option("-O", "--sort", default="", help="Sort by these fields; -FIELD turns one round."),
        click.option("--noheadings", is_flag=True),
        click.option("--separator", help="Between columns; they are then not aligned."),
        click.option("--units", default="r", show_default=True, help="One of rhbskmgtpe; capitals: 1000s."),
        click.option("--nosuffix", is_flag=True, help="No unit behind sizes."),
        click.option("--reportformat", type=click.Choice(["basic", "json", "json_std"]), default="basic"),
        click.option("--json", "as_json", is_flag=True, help="As --reportformat json_std."),
    )):  # fmt: skip
        command = option(command)
    return daemon_options(command)


@click.command()
@click.argument("names", nargs=-1)
@_report_options
def pvs(names: tuple[str, ...], socket: str | None, root: Path | None, **given: Any) -> int:
    """Report PVs; NAMES: devices."""
    look = _look(given)
    chosen(PVS, look.options)  # a wrong field is said before the disks are read
    with open_daemon(socket, root) as daemon:
        answer: dict[str, Any] = daemon.call(calls.Pvs())
    wanted = [str(Path(name).absolute()) for name in names]
    known = [row["pv_name"] for row in answer["rows"]]
    errors = [
        NotFound(f'Failed to find physical volume "{name}"', next="see pvs, and [devices] paths")
        for name in wanted
        if name not in known
    ]
    rows = [row for row in answer["rows"] if not names or row["pv_name"] in wanted]
    return _finish(PVS, look, rows, answer.get("notes") or [], errors)


@click.command()
@click.argument("names", nargs=-1)
@_report_options
def vgs(names: tuple[str, ...], socket: str | None, root: Path | None, **given: Any) -> int:
    """Report VGs; NAMES: VGs."""
    return _ask(VGS, [calls.Vgs(name) for name in names or ("",)], socket, root, _look(given))


@click.command()
@click.argument("names", nargs=-1)
@click.option("-a", "--all", "whole", is_flag=True, help="The LVs of disk slots and those being wiped, too.")
@_report_options
def lvs(names: tuple[str, ...], whole: bool, socket: str | None, root: Path | None, **given: Any) -> int:
    """Report LVs and which host holds them; NAMES: VGs or VG/LV."""
    asked = []
    for name in names or ("",):
        vg, _, lv = name.removeprefix("/dev/").partition("/")
        asked.append(calls.Lvs(vg, lv, whole))
    return _ask(LVS, asked, socket, root, _look(given))


def _look(given: dict[str, Any]) -> Look:
    unit = given["units"]
    if len(unit) != 1 or unit not in UNITS:
        raise click.UsageError(f"--units {unit}: give one of {' '.join(UNITS)}")
    return Look(
        options=given["options"],
        sort=given["sort"],
        headings=not given["noheadings"],
        separator=given["separator"],
        unit=unit,
        suffix=not given["nosuffix"],
        format="json_std" if given["as_json"] else given["reportformat"],
    )


def _ask(
    report: Report, asked: Sequence[calls.Call], socket: str | None, root: Path | None, look: Look
) -> int:
    rows: list[Row] = []
    notes: list[str] = []
    errors: list[RingfenceError] = []
    chosen(report, look.options)  # a wrong field is said before the disks are read
    with open_daemon(socket, root) as daemon:
        for call in asked:
            try:
                answer = _answer(daemon, call)
            except RingfenceError as error:
                errors.append(error)
                continue
            rows += [row for row in answer["rows"] if row not in rows]
            notes += [note for note in answer.get("notes") or [] if note not in notes]
    return _finish(report, look, rows, notes, errors)


def _answer(daemon: Connection, call: calls.Call) -> dict[str, Any]:
    answer: dict[str, Any] = daemon.call(call)
    return answer


def _finish(
    report: Report, look: Look, rows: list[Row], notes: Sequence[str], errors: Sequence[RingfenceError]
) -> int:
    fields = chosen(report, look.options)
    rows = sorted_rows(report, rows, look.sort)
    if look.format == "basic":
        for line in table(rows, fields, look):
            click.echo(line)
    elif look.format == "json":
        for line in json_lines(report, rows, fields, look):
            click.echo(line)
    else:
        click.echo(
            json.dumps(json_std(report, rows, fields, look, notes, errors), indent=4, ensure_ascii=False)
        )
    if look.format != "json_std":
        for note in notes:
            click.echo(f"  {one_line(note)}", err=True)
        for error in errors:
            click.echo(f"  {one_line(str(error))}", err=True)
    return EXIT_FAILED if errors else EXIT_OK


def table(rows: Sequence[Row], fields: Sequence[str], look: Look) -> list[str]:
    """Two spaces first, columns padded, the last one too, as LVM2 does."""
    cells = [[text_of(row, field, look.unit, look.suffix) for field in fields] for row in rows]
    if not cells or not fields:
        return []
    if look.headings:
        cells.insert(0, [HEADINGS[field] for field in fields])
    if look.separator is not None:
        return ["  " + look.separator.join(row) for row in cells]
    widths = [max(len(row[at]) for row in cells) for at in range(len(fields))]
    # Headings are aligned to the left, even above numbers.
    lines = []
    for number, row in enumerate(cells):
        heading = look.headings and number == 0
        padded = [
            cell.rjust(width) if field in RIGHT and not heading else cell.ljust(width)
            for cell, field, width in zip(row, fields, widths, strict=True)
        ]
        lines.append("  " + " ".join(padded))
    return lines


def json_lines(report: Report, rows: Sequence[Row], fields: Sequence[str], look: Look) -> list[str]:
    """LVM2's own layout of `--reportformat json`: every value a string."""
    objects = []
    for row in rows:
        pairs = [f'"{field}":{_quoted(text_of(row, field, look.unit, look.suffix))}' for field in fields]
        objects.append(f"{' ' * 18}{{{', '.join(pairs)}}}")
    lines = ["  {", '      "report": [', "          {", f'              "{report.key}": [']
    lines += [line + ("," if number < len(objects) else "") for number, line in enumerate(objects, 1)]
    return [*lines, "              ]", "          }", "      ]", "  }"]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def json_std(
    report: Report,
    rows: Sequence[Row],
    fields: Sequence[str],
    look: Look,
    notes: Sequence[str],
    errors: Sequence[RingfenceError],
) -> dict[str, Any]:
    """LVM2's json_std: native types, and what was said beside the report in a log; plus our version."""
    listed = [{field: json_value(row, field, look.unit, look.suffix) for field in fields} for row in rows]
    log = [{"log_type": "warn", "log_message": one_line(note)} for note in notes]
    log += [{"log_type": "error", "log_message": one_line(str(error))} for error in errors]
    answer: dict[str, Any] = {"version": VERSION, "report": [{report.key: listed}], "log": log}
    if errors:
        answer["error"] = errors[0].as_dict()
    return answer
