"""fence test, fence drill: whether fencing would work, before it has to."""

import sys
from pathlib import Path
from typing import Any

import click

from ringfence.cli import Interrupted
from ringfence.cli.answers import one_line, print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon, user
from ringfence.core.errors import EXIT_OK, BadInput, Refused
from ringfence.wire import client as calls

EXIT_NOT_PROVEN = 1
MARKS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}


@click.command(
    "test",
    epilog="Example: ringfence fence test an-a01n01\n\nThe daemons do the same by themselves every "
    "timing.fence_test_ms; `ringfence status` says when a test failed or is overdue.",
)
@click.argument("target", default="")
@daemon_options
@json_option
def test_ways(target: str, socket: str | None, root: Path | None, as_json: bool) -> int:
    """Try whether every member could fence TARGET: a node, a device, or a plug of one; else all.

    Nothing is switched.  Each member asks each device for the status of each plug: is the agent there, are
    the credentials accepted, does the plug exist, and is it on for a host that is up?

    Exit 0: all passed; 1: something failed, or could not be tested."""
    result: dict[str, Any] = {}
    with open_daemon(socket, root) as daemon:
        for result, final in daemon.stream(calls.FenceTest(target)):
            if not (final or as_json):
                for one in result["tests"]:
                    click.echo(test_line(one))
    if as_json:
        print_json(result)
    else:
        for line in rest_lines(result):
            click.echo(line)
    return EXIT_OK if all_passed(result) else EXIT_NOT_PROVEN


def test_line(one: dict[str, Any]) -> str:
    how = f"{one['tester']} -> {one['node']} by {one['use']}"
    took = f" ({one['took_ms'] / 1000:.1f} s)" if one["took_ms"] else ""
    words = one_line(f"{how}: {one['what']}{took}")
    return f"{MARKS[one['outcome']]:<7} {words}"


def rest_lines(result: dict[str, Any]) -> list[str]:
    """What the tests themselves did not say."""
    lines = [f"FAILED  {name} did not tell its results in time" for name in result["silent"]]
    lines += [
        f"FAILED  {name} has no fence device: only a person's word, or its return, frees its locks"
        for name in result["unfenceable"]
    ]
    lines += [f"note    {name} is not in the cluster now, and tested nothing" for name in result["absent"]]
    if not result["tests"]:
        lines.append("FAILED  nothing was tested: nobody but the node itself is there to fence it")
    return lines


def all_passed(result: dict[str, Any]) -> bool:
    failed = result["silent"] or result["unfenceable"] or not result["tests"]
    return not failed and all(one["outcome"] == "passed" for one in result["tests"])


@click.command(
    epilog="Example: ringfence fence drill an-a01n01\n\nRun it on another node than the one that is drilled."
)
@click.argument("node")
@click.option("--destructive", is_flag=True, help="Cut NODE's power; it must hold nothing.")
@click.option(
    "--level", type=click.IntRange(1), help="Which fence level cuts it, with --destructive.  [default: 1]"
)
@click.option("--yes", is_flag=True, help="Ask nothing before power is cut.")
@click.option("--who", default="", help="Who wants it; recorded.  [default: the user who calls]")
@daemon_options
@json_option
def drill(
    node: str, destructive: bool, level: int | None, yes: bool, who: str,
    socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Find out by switching whether NODE's fence devices are its own.

    A host with two power supplies loses one outlet at a time, and stays up: its management controller, and
    those of all other hosts, are watched for which supply goes without mains.  So cables that were swapped
    or moved are found.  Nothing begins unless every supply is fed, and each outlet is on again before the
    next one is touched.

    With --destructive NODE is fenced in earnest: its power is cut, it and no other host must fall silent,
    and it must come back under a new boot.  A device that passes is believed again; one that said "off" of
    a host that went on is not believed any more.

    Exit 0: passed; 1: failed.  The drill goes on to its end when this command is interrupted."""
    if level and not destructive:
        raise click.UsageError("--level is for --destructive: cables are drilled where there are two outlets")
    if destructive and not yes:
        _ask(node)
    result: dict[str, Any] = {}
    with open_daemon(socket, root) as daemon:
        call = calls.FenceDrill(node, who or user(), destructive, level or 1)
        try:
            for result, final in daemon.stream(call):
                if not (final or as_json):
                    click.echo(one_line(result["line"]))
        except KeyboardInterrupt:
            raise Interrupted(
                "the drill goes on", next=f"`ringfence fence history {node}` tells its end"
            ) from None
    if as_json:
        print_json(result)
    else:
        click.echo(one_line(f"{'passed' if result['passed'] else 'FAILED'}: {result['verdict']}"))
    return EXIT_OK if result["passed"] else EXIT_NOT_PROVEN


def _ask(node: str) -> None:
    """Have the node's name typed.

    Raises:
        BadInput: nobody is there to be asked.
        Refused: another word was typed."""
    if not sys.stdin.isatty():
        raise BadInput(
            "a destructive drill asks for a word and there is no terminal",
            next=f"ringfence fence drill {node} --destructive --yes",
        )
    click.echo(f"The power of {node} will be cut, whatever runs there.", err=True)
    word = click.prompt("Type the node's name", err=True, default="", show_default=False)
    if word.strip() != node:
        raise Refused(f"{node}: not drilled, another word was typed", next="nothing was switched")
