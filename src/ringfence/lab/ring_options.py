"""`--ring`, `--transport` and `--links`, for all commands that make labs."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ringfence.config.corosync_conf import MOST_LINKS, TRANSPORTS
from ringfence.core.errors import BadInput
from ringfence.lab.corosync import check_host
from ringfence.lab.layout import HUB, RINGS, Ring

C = TypeVar("C", bound=Callable[..., Any])


def ring_options(command: C) -> C:
    """Hands the three to the command as arguments `ring`, `transport`, `links`; see `chosen`."""
    for option in (
        click.option("--links", type=click.IntRange(1, MOST_LINKS), help="Of knet: networks.  [default: 1]"),
        click.option("--transport", type=click.Choice(TRANSPORTS), help="Of corosync.  [default: knet]"),
        click.option(
            "--ring",
            type=click.Choice(RINGS),
            default=HUB.name,
            show_default=True,
            help="hub: embedded.  corosync: one a host, each in a network namespace; needs root.",
        ),
    ):
        command = option(command)
    return command


def chosen(ring: str, transport: str | None, links: int | None, naive: bool = False) -> Ring:
    """Raises BadInput; Refused, Unavailable: this host cannot have such a lab."""
    if ring == HUB.name:
        if transport or links:
            raise BadInput("--transport and --links are corosync's", next="--ring corosync")
        return HUB
    if naive:
        raise BadInput("protections are off only in a lab on the hub", next="--ring hub")
    if transport == "udpu" and links and links > 1:
        raise BadInput("udpu has one link", next="--transport knet")
    check_host()
    return Ring(ring, transport or HUB.transport, links or HUB.links)
