"""fence history, fence confirm, fence trust; the rest of the group has modules of its own."""

import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ringfence.cli.answers import one_line, print_json
from ringfence.cli.fence_agents import agents, describe
from ringfence.cli.fence_prove import drill, test_ways
from ringfence.cli.fence_words import arm, disarm, order, status
from ringfence.cli.observe import event_line
from ringfence.cli.options import daemon_options, json_option, open_daemon, user
from ringfence.cli.verbs.completion import Names
from ringfence.client import Connection
from ringfence.core.errors import BadInput, Refused
from ringfence.core.moments import moment
from ringfence.host.clock import boottime_ns, wall_ms
from ringfence.wire import client as calls


class FenceGroup(click.Group):
    """`fence NODE` is `fence node NODE`, and `fence --off NODE` is `fence node --off NODE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx):
            args = ["node", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            args = ["node", *args]
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        nodes = Names("node").complete(ctx, incomplete) if not incomplete.startswith("-") else []
        return [*super().shell_complete(ctx, incomplete), *nodes]


@click.group(cls=FenceGroup, subcommand_metavar="NODE | COMMAND [ARGS]...")
def fence() -> None:
    """Have NODE fenced; who was, who must be; a person's word; tests and drills.

    A node that is called like one of the commands is fenced by `ringfence fence node NODE`."""


@fence.command()
@click.argument("node", default="")
@click.option("--since", default="", help="No older than this: 2h, 1d, or 2026-11-26T14:00.")
@daemon_options
@json_option
def history(node: str, since: str, socket: str | None, root: Path | None, as_json: bool) -> None:
    """Every loss, order, attempt, evidence and incident, of NODE or of all: who, what, when, which words."""
    oldest_ms = moment(since, wall_ms()) if since else 0
    with open_daemon(socket, root) as daemon:
        answer: dict[str, Any] = daemon.call(calls.FenceHistory(node))
    answer["history"] = [event for event in answer["history"] if event["wall_ms"] >= oldest_ms]
    if as_json:
        print_json(answer)
        return
    for event in answer["history"]:
        click.echo(event_line(event))
        for line in _details(event["fields"]):
            click.echo(f"{'':25}{line}")


def _details(fields: dict[str, Any]) -> list[str]:
    """What each agent said, and how the time was spent, as the attempt recorded it."""
    lines = [_word(word) for word in fields.get("words") or []]
    if "ours_ms" in fields:
        spent = {"agents": "agents_ms", "waits as configured": "waits_ms", "ringfence": "ours_ms"}
        lines.append(", ".join(f"{what} {fields[key] / 1000:.2f} s" for what, key in spent.items()))
    return lines


def _word(word: Any) -> str:
    if not isinstance(word, dict):
        return one_line(str(word))
    parts = [str(word.get(key, "")) for key in ("device", "action", "power", "words")]
    took = [f"({word['took_ms']} ms)"] if word.get("took_ms") else []
    return one_line(" ".join([*parts, *took]))


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


for _command in (agents, describe, test_ways, drill, order, status, disarm, arm):
    fence.add_command(_command)
