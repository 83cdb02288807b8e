"""status, why, events, locks: what is, and why."""

import contextlib
import time
from collections import deque
from pathlib import Path
from typing import Any

import click

from ringfence.cli.answers import (
    clock_time,
    columns,
    on_terminal,
    one_line,
    print_json,
    print_json_line,
)
from ringfence.cli.options import daemon_options, json_option, open_daemon
from ringfence.cli.status_view import print_rich, status_lines
from ringfence.cli.verbs.words import bare
from ringfence.client import Connection
from ringfence.core.errors import EXIT_OK, BadInput
from ringfence.core.locknames import unescape
from ringfence.wire import client as calls

EXIT_BLOCKED = 1
PAGE = 1000


@click.command()
@daemon_options
@json_option
def status(socket: str | None, root: Path | None, as_json: bool) -> int:
    """This node, its cluster, who must be fenced, what is frozen.

    Exit 0: all is well; 1: something is blocked (`ringfence why` says what and why), or a test of a fence
    device failed or is overdue (an ALARM line)."""
    with open_daemon(socket, root) as daemon:
        answer = daemon.status()
    if as_json:
        print_json(answer)
    elif on_terminal():
        print_rich(answer, _now_ms())
    else:
        for line in status_lines(answer, _now_ms()):
            click.echo(line)
    alarms = (answer.get("fence_tests") or {}).get("alarms")
    return EXIT_BLOCKED if answer.get("blocked") or alarms else EXIT_OK


@click.command()
@click.argument("target", required=False)
@daemon_options
@json_option
def why(target: str | None, socket: str | None, root: Path | None, as_json: bool) -> None:
    """Why TARGET is stuck: who holds it, since when, which fence attempt runs, what comes next.

    TARGET is VG/LV (or the path of its device), a VG, LOCKSPACE/RESOURCE or a node; without it, everything
    that is stuck."""
    if target is not None and not (target := bare(target)):  # $lv of a script that has not set it, say
        raise click.UsageError("TARGET is empty: leave it out to be told of everything")
    with open_daemon(socket, root) as daemon:
        answer: dict[str, Any] = daemon.why(target or "")
    if as_json:
        print_json(answer)
        return
    for line in answer.get("lines") or [f"{target or 'nothing'} is not stuck"]:
        click.echo(line)


# -- events -------------------------------------------------------------------


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Then print new ones as they happen, until Ctrl-C.")
@click.option(
    "-n", "--last", type=click.IntRange(0), default=100, show_default=True, help="How many; 0: all."
)
@click.option("--since", type=click.IntRange(0), default=0, help="Only events after this sequence number.")
@click.option("--kind", multiple=True, help="Only this kind (incident, victim, evidence, …); repeatable.")
@daemon_options
@json_option
def events(
    follow: bool, last: int, since: int, kind: tuple[str, ...],
    socket: str | None, root: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """What happened, oldest first, one line each.

    With --json and -f: one object a line."""
    if kind:
        _check(kind)
    with open_daemon(socket, root) as daemon:
        found, newest = _recorded(daemon, since, last, kind)
        if as_json and not follow:
            print_json({"events": found})
            return
        for event in found:
            _print_event(event, as_json)
        if follow:
            # Ctrl-C is how following ends, not a failure of it.
            with contextlib.suppress(KeyboardInterrupt):
                for event in daemon.events(follow=True, since=newest):
                    if not kind or event["kind"] in kind:
                        _print_event(event, as_json)


def _check(kinds: tuple[str, ...]) -> None:
    """Raises BadInput: nothing can be of that kind, so that nobody would ever hear of it."""
    from ringfence.history.kinds import KINDS  # loads sqlite3

    for one in kinds:
        if one not in KINDS:
            known = ", ".join(sorted(KINDS))
            raise BadInput(f"no event is of kind {one!r}", next=f"give one of {known}", code="bad-command")


def _recorded(
    daemon: Connection, since: int, last: int, kinds: tuple[str, ...]
) -> tuple[list[dict[str, Any]], int]:
    """The last events, and the newest sequence number that was seen on the way."""
    found: deque[dict[str, Any]] = deque(maxlen=last or None)
    while True:
        page = list(daemon.events(since=since, limit=PAGE))
        found.extend(event for event in page if not kinds or event["kind"] in kinds)
        if page:
            since = max(since, int(page[-1]["seq"]))
        if len(page) < PAGE:
            return list(found), since


def _print_event(event: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json_line(event)
        return
    click.echo(event_line(event))


def event_line(event: dict[str, Any]) -> str:
    return (
        f"{clock_time(event['wall_ms'])}  {event['seq']:>6}  {event['kind']:<14}  {one_line(event['what'])}"
    )


# -- lockspaces, locks --------------------------------------------------------------------


@click.command()
@daemon_options
@json_option
def lockspaces(socket: str | None, root: Path | None, as_json: bool) -> None:
    """The lockspaces: who is in them, who joins, how many locks there are, what they wait for."""
    with open_daemon(socket, root) as daemon:
        answer = daemon.status()
    if as_json:
        print_json({"node": answer["node"], "ready": answer["ready"], "lockspaces": answer["lockspaces"]})
        return
    rows = [["LOCKSPACE", "MEMBERS", "RESOURCES", "LOCKS", "STATE"]]
    for one in answer["lockspaces"]:
        state = f"frozen {one['why']}" if one["frozen"] else "runs"
        if one["joining"]:
            state += f"; joining: {', '.join(one['joining'])}"
        if one.get("pending"):
            state += f"; join when it runs again: {', '.join(one['pending'])}"
        members = ",".join(one["members"])
        rows.append([one["name"], members, str(one["resources"]), str(one["locks"]), state])
    for line in columns(rows):
        click.echo(line)
    if not answer["ready"]:
        click.echo(f"  not current: {answer['node']} is {answer['state']}", err=True)


@click.command()
@click.argument("lockspace", required=False)
@click.option("--deadlocks", is_flag=True, help="Ask every node for clients that wait in a ring.")
@daemon_options
@json_option
def locks(
    lockspace: str | None, deadlocks: bool, socket: str | None, root: Path | None, as_json: bool
) -> int:
    """Who holds what in LOCKSPACE (default: in all), who waits for it, and behind whom.

    STATE kept: this node has it from an earlier use and gives it back when it is asked.  Below: the
    clients of this node, and for each that waits the chain of those in its way.  Where that chain leads
    to another node it ends, for that node alone knows its clients.  An orphan is what a client left when it
    ended (PERSISTENT); `ringfence lockspace purge` lets go of it.

    --deadlocks asks all of them, of all lockspaces.  Exit 0: no deadlock; 1: there are some."""
    if lockspace == "":
        raise click.UsageError("LOCKSPACE is empty: leave it out to be told of all")
    if deadlocks and lockspace:
        raise click.UsageError("--deadlocks looks through all lockspaces")
    with open_daemon(socket, root) as daemon:
        answer = daemon.call(calls.Deadlocks()) if deadlocks else daemon.locks(unescape(lockspace or ""))
    if as_json:
        print_json(answer)
    elif deadlocks:
        _print_deadlocks(answer["deadlocks"])
    else:
        _print_locks(answer)
    return EXIT_BLOCKED if answer.get("deadlocks") else EXIT_OK


def _print_deadlocks(found: list[dict[str, Any]]) -> None:
    for number, ring in enumerate(found, 1):
        click.echo(f"deadlock {number}:")
        for line in ring["lines"]:
            click.echo(f"  {one_line(line)}")
    click.echo("no deadlock" if not found else "each ends when one of its waits is given up")


def _print_locks(answer: dict[str, Any]) -> None:
    rows = [["LOCKSPACE", "RESOURCE", "NODE", "STATE", "MODE", "WANTS", "TOKEN", "SINCE", "BEHIND"]]
    rows += [_lock_row(lock) for lock in answer["locks"]]
    for line in columns(rows):
        click.echo(line)
    if answer.get("clients"):
        click.echo(f"\nclients of {answer['node']}:")
        rows = [["LOCKSPACE", "RESOURCE", "LOCK", "STATE", "MODE", "WANTS", "SINCE", "OWNER", "WHO"]]
        rows += [_client_row(client) for client in answer["clients"]]
        for line in columns(rows):
            click.echo(f"  {line}")
    if answer.get("waits"):
        click.echo("\nwaits:")
    for wait in answer.get("waits") or []:
        first, *rest = wait["lines"]
        click.echo(f"  {one_line(first)}")
        for line in rest:
            click.echo(f"    {one_line(line)}")
    if not answer.get("current", True):
        click.echo(f"  not current: {answer['node']} cannot act now (ringfence why)", err=True)


def _lock_row(lock: dict[str, Any]) -> list[str]:
    cells = ["lockspace", "resource", "name", "state", "mode", "wanted", "token"]
    behind = ",".join(lock.get("behind") or []) or "-"
    return [*_cells(lock, cells), _since(lock), behind]


def _client_row(client: dict[str, Any]) -> list[str]:
    cells = _cells(client, ["lockspace", "resource", "lock", "state", "mode", "wanted"])
    return [*cells, _since(client), *_cells(client, ["owner", "who"])]


def _cells(row: dict[str, Any], names: list[str]) -> list[str]:
    return [one_line(str(row.get(name) or "-")) for name in names]


def _since(row: dict[str, Any]) -> str:
    return clock_time(row.get("since_wall_ms") or 0).replace(" ", "T")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
