"""fence history, fence confirm, fence trust; the rest of the group has modules of its own."""

import sys
from pathlib import Path
from typing import Any

import click

from ringfence.cli.answers import one_line, print_json
from ringfence.cli.fence_prove import test_ways
from ringfence.cli.observe import event_line
from ringfence.cli.options import daemon_options, json_option, open_daemon, user
from ringfence.client import Connection
from ringfence.core.errors import BadInput, Refused
from ringfence.host.clock import boottime_ns
from ringfence.wire import client as calls


@click.group()
def fence() -> None:
    """Fence history; a person's word on hosts and devices; tests and drills."""


@fence.command()
@click.argument("node", default="")
@daemon_options
@json_option
def history(node: str, socket: str | None, root: Path | None, as_json: bool) -> None:
    """Every suspicion, attempt, evidence and incident, of NODE or of all."""
    with open_daemon(socket, root) as daemon:
        answer: dict[str, Any] = daemon.call(calls.FenceHistory(node))
    if as_json:
        print_json(answer)
        return
    for event in answer["history"]:
        click.echo(event_line(event))
        for word in event["fields"].get("words") or []:
            click.echo(f"{'':25}{_word(word)}")


def _word(word: Any) -> str:
    """What an agent said, as the attempt recorded it."""
    if not isinstance(word, dict):
        return one_line(str(word))
    return one_line(" ".join(str(value) for value in word.values() if value not in ("", None)))


@fence.command()
@click.argument("node")
@click.option("--yes", is_flag=True, help="Ask nothing; needs --who and --why.")
@click.option("--who", default="", help="Who says so; recorded.  [default: the user who calls]")
@click.option("--why", "reason", default="", help="How you know; recorded.")
@daemon_options
@json_option
def confirm(
    node: str, yes: bool, who: str, reason: str, socket: str | None, root: Path | None, as_json: bool
) -> None:
    """Give your word that NODE is off and stays off.  Its locks then move to others.

    If it is not off, two hosts write to the same volumes: look at the machine first."""
    if yes and not (who and reason):
        raise click.UsageError("--yes needs --who and --why: what nobody was asked must still be signed")
    with open_daemon(socket, root) as daemon:
        if not yes:
            _ask_word(daemon, node)
            reason = reason or click.prompt("How do you know", err=True)
        call = calls.FenceConfirm(node, who or user(), reason, boottime_ns())
        answer: dict[str, Any] = daemon.call(call)
    if as_json:
        print_json(answer)
        return
    click.echo(f"{node}: confirmed by {call.who}; recorded")
    if answer.get("waiting"):
        click.echo(f"{node}: still waiting for proof of {answer['waiting']} more; see `ringfence why {node}`")


def _ask_word(daemon: Connection, node: str) -> None:
    """Show what is known, then have the node's name typed.

    Raises:
        BadInput: nobody is there to be asked.
        Refused: another word was typed; nothing was done.
    """
    why = daemon.why(node)
    if not sys.stdin.isatty():
        raise BadInput(
            "fence confirm asks for a word and there is no terminal",
            next=f"ringfence fence confirm {node} --yes --who NAME --why REASON",
        )
    for line in why.get("lines") or []:
        click.echo(f"  {line}", err=True)
    click.echo(
        f"If {node} still runs, its volumes will be written by two hosts and be destroyed.\n"
        f"Look at the machine.  It must be off, and stay off until it is told otherwise.",
        err=True,
    )
    word = click.prompt(
        f"Type the node's name to confirm that {node} is off", err=True, default="", show_default=False
    )
    if word.strip() != node:
        raise Refused(f"{node}: not confirmed, another word was typed", next="nothing was changed")


@fence.command()
@click.argument("device")
@click.option("--who", default="", help="Who says so; recorded.  [default: the user who calls]")
@daemon_options
@json_option
def trust(device: str, who: str, socket: str | None, root: Path | None, as_json: bool) -> None:
    """End the quarantine of DEVICE, which was caught lying: believe it again."""
    with open_daemon(socket, root) as daemon:
        answer: dict[str, Any] = daemon.call(calls.FenceTrust(device, who or user()))
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{device}: trusted again")


fence.add_command(test_ways)
