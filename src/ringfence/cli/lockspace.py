"""lockspace join, leave, purge: this node's part in a lockspace, and what its clients left behind there."""

from pathlib import Path

import click

from ringfence.cli.answers import print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon
from ringfence.core.locknames import lockspace_name, resource_name
from ringfence.wire import client as calls


@click.group()
def lockspace() -> None:
    """Join or leave a lockspace; let go of orphans.

    `ringfence lock` joins by itself; a shared VG's lockspace is started and stopped by vgchange."""


@lockspace.command()
@click.argument("name")
@daemon_options
@json_option
def join(name: str, socket: str | None, root: Path | None, as_json: bool) -> None:
    """Join the lockspace NAME, which is made if there is none."""
    with open_daemon(socket, root) as daemon:
        answer = daemon.call(calls.JoinSpace(lockspace_name(name)))
    if as_json:
        print_json(answer)
    else:
        click.echo(f"joined {answer['joined']}")


@lockspace.command()
@click.argument("name")
@click.option(
    "-f", "--force", is_flag=True,
    help="Take its locks from clients of this node first.  Never from volumes.",
)  # fmt: skip
@daemon_options
@json_option
def leave(name: str, force: bool, socket: str | None, root: Path | None, as_json: bool) -> None:
    """Leave the lockspace NAME.

    It is refused while anybody on this node has a lock there, and while the lockspace is frozen.  What
    clients merely cache is asked back first; orphans are let go of by `ringfence lockspace purge`.

    With --force clients are told that their locks are lost, and what they could write counts as not valid.
    Whoever does not listen may go on as if it held its lock: end such programs instead, if you can."""
    with open_daemon(socket, root) as daemon:
        answer = daemon.call(calls.LeaveSpace(lockspace_name(name), force))
    if as_json:
        print_json(answer)
        return
    lost = answer["lost"]
    click.echo(f"left {answer['left']}" + (f"; locks taken away: {lost}" if lost else ""))


@lockspace.command()
@click.argument("name")
@click.argument("resource", default="")
@daemon_options
@json_option
def purge(name: str, resource: str, socket: str | None, root: Path | None, as_json: bool) -> None:
    """Let go of orphans: locks of the lockspace NAME that clients of this node left behind (PERSISTENT).

    What they could write counts as not valid.  To take one over instead, ask for it with the flag ORPHAN."""
    with open_daemon(socket, root) as daemon:
        answer = daemon.call(calls.PurgeOrphans(lockspace_name(name), resource and resource_name(resource)))
    if as_json:
        print_json(answer)
    else:
        click.echo(f"orphans let go: {answer['purged']}")
