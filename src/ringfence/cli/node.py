"""node list, node re-enrol: which machine each node is."""

import sys
from pathlib import Path
from typing import Any

import click

from ringfence.cli.answers import columns, print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon, user
from ringfence.core.errors import BadInput, Refused
from ringfence.wire import client as calls


@click.group()
def node() -> None:
    """Which machine each node is, and when another one may be it."""


@node.command("list")
@daemon_options
@json_option
def list_(socket: str | None, root: Path | None, as_json: bool) -> None:
    """Each node, the machine that was enrolled when it joined first, whether that is a virtual one."""
    with open_daemon(socket, root) as daemon:
        found: dict[str, Any] = daemon.call(calls.FenceStatus())
    keys = ("name", "state", "machine", "board", "hypervisor")
    nodes = [{key: one[key] for key in keys} for one in found["nodes"]]
    if as_json:
        print_json({"nodes": nodes})
        return
    rows = [["NODE", "STATE", "MACHINE-ID", "BOARD", "VIRTUAL"]]
    rows += [[one[key] or "-" for key in keys] for one in nodes]
    for line in columns(rows):
        click.echo(line)


@node.command("re-enrol")
@click.argument("node")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--who", default="", help="Who says so; recorded.  [default: the user who calls]")
@click.option("--why", "reason", default="", help="Recorded.")
@daemon_options
@json_option
def re_enrol(
    node: str, yes: bool, who: str, reason: str, socket: str | None, root: Path | None, as_json: bool
) -> None:
    """NODE was replaced (its board, its disk, or all of it): the next machine to join as NODE is enrolled.

    Refused while the old machine is a member, or is not proven fenced."""
    if not yes:
        if not sys.stdin.isatty():
            raise BadInput(
                "re-enrol asks first, and there is no terminal", next=f"ringfence node re-enrol {node} --yes"
            )
        click.echo(f"Is the old machine of {node} gone for good, and its disk not in two machines?", err=True)
        if not click.confirm(f"Let the next machine that joins as {node} be {node}?", err=True):
            raise Refused(f"{node}: not re-enrolled", next="nothing was changed")
    with open_daemon(socket, root) as daemon:
        answer: dict[str, Any] = daemon.call(calls.NodeReenrol(node, who or user(), reason))
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{node}: the next machine to join is enrolled; restart its daemon if it was refused")
