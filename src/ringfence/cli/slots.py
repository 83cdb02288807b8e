"""slots add, slots forget, slots show."""

import sys
from pathlib import Path
from typing import Any

import click

from ringfence.cli.answers import one_line, print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon
from ringfence.client import Connection
from ringfence.client.messages import new_id
from ringfence.core.errors import BadInput, Refused, TimedOut
from ringfence.wire import client as calls

SILENT_MS = 2_000
"""A command that takes longer says what it waits for."""
HEADINGS = ("Node", "Life", "Counter", "Age", "Clean", "Mark", "By")


@click.group()
def slots() -> None:
    """The disk slots of a VG: where nodes see that they were given up for fenced."""


@slots.command()
@click.argument("vg")
@daemon_options
@json_option
def add(vg: str, socket: str | None, root: Path | None, as_json: bool) -> None:
    """Give VG disk slots: a small LV, one extent, that nobody activates.

    `vgcreate --shared` makes them by itself; this is for a VG that stock LVM2 or an older ringfence made."""
    with open_daemon(socket, root) as daemon:
        answer = _add(daemon, vg)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"  {answer['message']}")


def _add(daemon: Connection, vg: str) -> dict[str, Any]:
    """What it waits for is said after a while: for a VG that is frozen, until somebody is fenced."""
    call, id = calls.SlotsAdd(vg), new_id()
    try:
        answer: dict[str, Any] = daemon.call(call, timeout_ms=SILENT_MS, id=id)
    except TimedOut:
        for line in daemon.why(vg).get("lines", ()):
            click.echo(f"  waiting: {line}", err=True)
        answer = daemon.call(call, id=id)
    return answer


@slots.command()
@click.argument("vg")
@click.option("--yes", is_flag=True, help="Do not ask.")
@daemon_options
def forget(vg: str, yes: bool, socket: str | None, root: Path | None) -> None:
    """VG was removed, or taken off this cluster, with stock LVM2: no lock waits for a mark there any more.

    Refused where this host finds the VG as this cluster's, or its slots. If another host does, and a victim
    lives, both may write."""
    if not yes:
        if not sys.stdin.isatty():
            raise BadInput(
                "slots forget asks first, and there is no terminal", next=f"ringfence slots forget {vg} --yes"
            )
        if not click.confirm(f"Was VG {vg} removed, or taken off, for every host?", err=True):
            raise Refused(f"VG {vg}: not forgotten", next="nothing was changed")
    with open_daemon(socket, root) as daemon:
        click.echo(f"  {daemon.call(calls.SlotsForget(vg))['message']}")


@slots.command()
@click.argument("vg")
@daemon_options
@json_option
def show(vg: str, socket: str | None, root: Path | None, as_json: bool) -> None:
    """What stands in the slots of VG: each node's life, since when it was written, and its mark."""
    with open_daemon(socket, root) as daemon:
        answer: dict[str, Any] = daemon.call(calls.SlotsShow(vg))
    if as_json:
        print_json(answer)
        return
    rows = [HEADINGS, *(_cells(row) for row in answer["nodes"])]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADINGS))]
    for row in rows:
        click.echo(
            "  " + " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    for row in answer["nodes"]:
        for line in row["damaged"]:
            click.echo(f"  {row['name']}: {one_line(line)}", err=True)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    age = "-" if row["age_s"] is None else f"{row['age_s']} s"
    clean = "yes" if row["clean"] else "no"
    mark = (
        f"{row['mark']} since {row['mark_epoch']}{', cut' if row['mark_cut'] else ''}" if row["mark"] else "-"
    )
    return (
        row["name"], row["life"] or "-", str(row["counter"]), age, clean if row["life"] else "-", mark,
        row["marked_by"] or "-",
    )  # fmt: skip
