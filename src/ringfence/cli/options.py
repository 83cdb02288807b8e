"""Options that many commands share, and the way to the daemon."""

import getpass
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ringfence.client import Connection, connect
from ringfence.client.place import SOCKET_VARIABLE
from ringfence.config.paths import Paths

C = TypeVar("C", bound=Callable[..., Any])

RETRY_MS = 2000
"""A daemon that is being restarted may be back by then; a person waits no longer without a word."""


def root_option(command: C) -> C:
    return click.option(
        "--root", type=click.Path(path_type=Path),
        help=f"All places below this directory.  [default: that of ${SOCKET_VARIABLE}, or /]",
    )(command)  # fmt: skip


def json_option(command: C) -> C:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def daemon_options(command: C) -> C:
    """--socket and --root."""
    socket = click.option(
        "--socket", type=click.Path(), help=f"The daemon's socket.  [default: ${SOCKET_VARIABLE}]"
    )
    return root_option(socket(command))


def open_daemon(socket: str | None, root: Path | None) -> Connection:
    """--socket, else the root that was given, else RINGFENCE_SOCKET, else the usual place.

    Raises Unavailable if nobody listens."""
    if socket is None and root is not None:
        socket = os.fspath(Paths(root.absolute()).socket)
    return connect(socket, retry_ms=RETRY_MS)


def user() -> str:
    """The person, as far as the system knows: who called sudo, else the user."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
