"""`--devices`, for all commands that make labs."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ringfence.lab.devices.kinds import KINDS

C = TypeVar("C", bound=Callable[..., Any])


def devices_option(command: C) -> C:
    """Hands it to the command as argument `devices`; see `kinds.chosen_kinds`."""
    return click.option(
        "--devices",
        default="",
        metavar="KIND,KIND",
        help="Simulated fence devices, and real agents, instead of the lab's own: a kind of BMC, a kind of "
        f"PDU, or both, of {', '.join(KINDS)}.",
    )(command)
