"""`ringfence hub`: the embedded ring's broker, in the foreground."""

import sys
from pathlib import Path

import click

from ringfence.config import Paths, load
from ringfence.core.errors import EXIT_FAILED, RingfenceError
from ringfence.host import loop
from ringfence.ring.hostlink import HostLink
from ringfence.ring.hub import serve


@click.command()
@click.option(
    "--socket", type=click.Path(path_type=Path), required=True, help="Unix socket that the nodes connect to."
)
@click.option(
    "--state", type=click.Path(path_type=Path), required=True, help="File that keeps the highest epoch."
)
@click.option("--token-ms", type=int, default=1000, show_default=True, help="Token time-out of the ring.")
@click.option("--host", metavar="NODE", help="The node, by ringfence.toml, of the host that the hub runs on.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=Path("/"),
    show_default=True,
    help="Directory that stands for / on this host: where ringfence.toml is.",
)
def hub(socket: Path, state: Path, token_ms: int, host: str | None, root: Path) -> None:
    """Run the embedded ring's broker, one a host, until SIGTERM.

    A host that is silent for 2.2 token times is removed from the ring.  Keep the state file: it
    makes epochs increase for ever.

    With --host the hub vouches for its own host: a daemon that ends there has the grace period to come back.
    Without, its end is taken for its host's."""
    try:
        if host is not None:
            HostLink(socket, load(Paths(root.absolute())).cluster.node_named(host).id).start()
        loop.run(serve(socket, state, token_ms, ready=lambda: click.echo(f"hub ready on {socket}")))
    except RingfenceError as error:
        click.echo(f"ringfence: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyError:
        click.echo(f"ringfence: ringfence.toml has no node {host}; ringfence config show --file", err=True)
        sys.exit(EXIT_FAILED)
