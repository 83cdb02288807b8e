"""fence NODE, fence status, fence disarm, fence arm."""

import sys
from pathlib import Path
from typing import Any

import click

from ringfence.cli import Interrupted
from ringfence.cli.answers import age, columns, one_line, print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon, user
from ringfence.client import Connection
from ringfence.client.fencing import Order, Progress, follow, order_fence
from ringfence.core.errors import EXIT_OK, BadInput, Refused
from ringfence.core.moments import duration_ms
from ringfence.host.clock import wall_ms
from ringfence.wire import client as calls

EXIT_BLOCKED = 1


@click.command("node")
@click.argument("node")
@click.option("--off", is_flag=True, help="It stays off.  [default: fence_action]")
@click.option("--reboot", is_flag=True, help="It is switched on again afterwards.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it is proven fenced.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--who", default="", help="Who says so; recorded.  [default: the user who calls]")
@click.option("--why", "reason", default="", help="Recorded.")
@daemon_options
@json_option
def order(
    node: str, off: bool, reboot: bool, wait: bool, yes: bool, who: str, reason: str,
    socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Have NODE fenced now, though it may be alive: `ringfence fence NODE` for short.

    It is out of the cluster at once, whatever it holds; its locks move once it is proven fenced.  The
    order stands when this command is interrupted.  Exit 0: proven fenced (with --no-wait: ordered)."""
    if off and reboot:
        raise click.UsageError("give one of --off and --reboot")
    action = "off" if off else "reboot" if reboot else ""
    with open_daemon(socket, root) as daemon:
        if not yes:
            _ask(daemon, node)
        stands = "may stand"
        try:
            given = order_fence(daemon, node, who=who or user(), why=reason, action=action)
            stands = "stands"
            if node == daemon.status()["node"] and wait:
                if not as_json:
                    told = "another member fences it; nothing more is heard of it here"
                    click.echo(f"{node} is this host: {told}")
                wait = False
            last = _wait(daemon, given, quiet=as_json) if wait else None
        except KeyboardInterrupt:
            cure = f"`ringfence fence status {node}` shows it"
            raise Interrupted(f"the order {stands}", next=cure) from None
    answer = {"node": node, "order": given.id, "lives": list(given.lives)}
    if as_json and last is None:
        print_json(answer)
    elif as_json and last is not None:
        print_json({**answer, "fenced": last.fenced, "evidence": list(last.evidence)})
    elif last is None:
        click.echo(f"{node}: ordered fenced; see `ringfence fence status {node}`")
    else:
        click.echo(f"{node}: fenced; its locks move when its write authority must have run out")
    return EXIT_OK


def _wait(daemon: Connection, given: Order, *, quiet: bool) -> Progress:
    last = None
    for last in follow(daemon, given):
        for line in last.lines:
            if not quiet:
                click.echo(f"  {one_line(line)}")
    assert last is not None, "it ends with the proof"
    return last


def _ask(daemon: Connection, node: str) -> None:
    """Show what the node holds, and ask.

    Raises:
        BadInput: nobody is there to be asked.
        Refused: the answer was no; nothing was done.
    """
    found = daemon.call(calls.FenceStatus(node))  # refuses a name that no node has
    if not sys.stdin.isatty():
        raise BadInput(
            "fence asks before it switches a host off, and there is no terminal",
            next=f"ringfence fence node {node} --yes",
        )
    _loud(found)
    (about,) = found["nodes"]
    click.echo(f"{node} is {about['state']}.", err=True)
    for space, locks in about["holds"].items():
        click.echo(f"  in lockspace {space} it holds {locks} locks", err=True)
    if not click.confirm(f"Fence {node}: cut it off now, whatever runs there?", err=True):
        raise Refused(f"{node}: not fenced", next="nothing was changed")


# -- maintenance ------------------------------------------------------------------------------


@click.command()
@click.option("--for", "how_long", required=True, help="How long: 30m, 2h, 1d; 7 days at most.")
@click.option("--who", default="", help="Who says so; recorded.  [default: the user who calls]")
@click.option("--why", "reason", default="", help="Recorded, and shown to everybody meanwhile.")
@daemon_options
@json_option
def disarm(
    how_long: str, who: str, reason: str, socket: str | None, root: Path | None, as_json: bool
) -> None:
    """Maintenance: no fence agent is started by any node; running ones are stopped.  Ends by itself.

    Nothing is unblocked by it: what a lost node held waits until fencing is armed again, or a person
    confirms."""
    for_ms = duration_ms(how_long)
    with open_daemon(socket, root) as daemon:
        answer: dict[str, Any] = daemon.call(calls.FenceDisarm(for_ms, who or user(), reason))
    if as_json:
        print_json(answer)
    else:
        click.echo(f"FENCING IS DISARMED for {how_long}; `ringfence fence arm` ends that")


@click.command()
@click.option("--who", default="", help="Who says so; recorded.  [default: the user who calls]")
@daemon_options
@json_option
def arm(who: str, socket: str | None, root: Path | None, as_json: bool) -> None:
    """End a maintenance: nodes are fenced again."""
    with open_daemon(socket, root) as daemon:
        answer: dict[str, Any] = daemon.call(calls.FenceArm(who or user()))
    if as_json:
        print_json(answer)
    else:
        click.echo("fencing is armed")


# -- status ---------------------------------------------------------------------------------------


@click.command()
@click.argument("node", default="")
@daemon_options
@json_option
def status(node: str, socket: str | None, root: Path | None, as_json: bool) -> int:
    """Who can be fenced and how; who must be: which proof is missing, who acts, what comes next.

    Exit 0: nobody waits to be fenced; 1: somebody does."""
    with open_daemon(socket, root) as daemon:
        found: dict[str, Any] = daemon.call(calls.FenceStatus(node))
    if as_json:
        print_json(found)
    else:
        for line in _status_lines(found, wall_ms()):
            click.echo(line)
        _loud(found)
    return EXIT_BLOCKED if found["victims"] else EXIT_OK


def _status_lines(found: dict[str, Any], now_ms: int) -> list[str]:
    rows = [["NODE", "STATE", "LAST TEST", "FENCED BY", "WOULD COUNT", ""]]
    rows += [_node_row(one, now_ms) for one in found["nodes"]]
    lines = columns(rows)
    for device, why in found["quarantined"].items():
        lines.append(f"quarantined: {device}: {one_line(why)} (`ringfence fence trust {device}` ends it)")
    for victim in found["victims"]:
        since = int(victim.get("since_wall_ms") or 0)
        ago = f", since {age(since, now_ms)}" if since else ""
        lines += ["", f"{victim['node']} must be fenced{ago}:"]
        lines += [f"  {one_line(line)}" for line in victim["lines"]]
        lines += [f"    {_said(word)}" for word in victim["words"] if word.get("words")]
    lines += [one_line(line) for line in found["power"]]
    if not found["current"]:
        lines.append(f"not current: {found['node']} cannot act now (ringfence why)")
    return lines


def _node_row(node: dict[str, Any], now_ms: int) -> list[str]:
    levels = " | ".join(", ".join(level) for level in node["levels"]) or "by hand"
    notes = [f"virtual ({node['hypervisor']})"] if node["hypervisor"] else []
    if not node["fenceable"]:
        notes.append(one_line(node["why_not"]))
    notes += [f"test failed: {one_line(line)}" for line in node["test_failed"]]
    passed_ms = int(node["tested_wall_ms"])
    tested = "failed" if node["test_failed"] else f"{age(passed_ms, now_ms)} ago" if passed_ms else "never"
    return [node["name"], node["state"], tested, levels, ", ".join(node["counts"]), "; ".join(notes)]


def _said(word: dict[str, Any]) -> str:
    return one_line(f"{word['device']} {word['action']}: {word['words']}")


def _loud(found: dict[str, Any]) -> None:
    """Whoever deals with fencing must not overlook that nobody is fenced."""
    disarmed = found["disarmed"]
    if disarmed:
        why = f", {disarmed['why']}" if disarmed["why"] else ""
        left_s = disarmed["left_ms"] // 1000
        click.echo(f"FENCING IS DISARMED by {disarmed['who']}{why}: {left_s} s more", err=True)
