"""fence test, fence drill: whether fencing would work, before it has to."""

from pathlib import Path
from typing import Any

import click

from ringfence.cli.answers import one_line, print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon
from ringfence.core.errors import EXIT_OK
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
    return one_line(f"{MARKS[one['outcome']]:<7} {how}: {one['what']}{took}")


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
