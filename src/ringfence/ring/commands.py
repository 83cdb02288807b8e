"""`ringfence hub`: the embedded ring's broker, in the foreground."""

import sys
from pathlib import Path

import click

from ringfence.core.errors import RingfenceError
from ringfence.host import loop
from ringfence.ring.hub import serve


@click.command()
@click.option(
    "--socket", type=click.Path(path_type=Path), required=True, help="Unix socket that the nodes connect to."
)
@click.option(
    "--state", type=click.Path(path_type=Path), required=True, help="File that keeps the highest epoch."
)
@click.option("--token-ms", type=int, default=1000, show_default=True, help="Token time-out of the ring.")
def hub(socket: Path, state: Path, token_ms: int) -> None:
    """Run the embedded ring's broker, one a host, until SIGTERM.

    A host that is silent for 2.2 token times is removed from the ring.  Keep the state file: it
    makes epochs increase for ever."""
    try:
        loop.run(serve(socket, state, token_ms, ready=lambda: click.echo(f"hub ready on {socket}")))
    except RingfenceError as error:
        click.echo(f"ringfence: {error}", err=True)
        sys.exit(error.exit_code)
