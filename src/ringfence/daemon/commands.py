"""`ringfence daemon`: this host's daemon, in the foreground."""

from pathlib import Path

import click

from ringfence.agents.runner import AgentRunner
from ringfence.daemon.assemble import Current, Makers, run
from ringfence.daemon.ports import Agents
from ringfence.engine.node import Node


@click.command(
    epilog="Example: ringfence daemon --node an-a01n01\n\nThe block service (`ringfence block`) and, "
    "on the hub ring, the hub (`ringfence hub`) run beside it; with systemd: ringfence.service."
)
@click.option("--node", required=True, help="This host's name in ringfence.toml.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=Path("/"),
    show_default=True,
    help="Directory that stands for / in all paths of this host.",
)
def daemon(node: str, root: Path) -> int:
    """Run this host's daemon until SIGTERM, which leaves the cluster cleanly.

    SIGTERM is an order: volumes are closed, and clients that still hold locks lose them.  To start the
    daemon anew and keep both the volumes and the cluster, send SIGHUP (as `systemctl restart ringfence`
    does): it ends at once, as by a crash.

    Refuses to start twice under one root.  A host whose daemon is killed is fenced when its grace
    period (`timing.grace_ms`) has lapsed, unless the daemon is back before: then it goes on with the
    volumes that are open, and nobody who uses them notices."""
    return run(root.absolute(), node, Makers(Node, _agents))


def _agents(current: Current) -> Agents:
    return AgentRunner(current.device, current.secrets)
