"""Where the daemon listens, and what is said when it does not.

Loads nothing else of the client: commands that ask once (`brief`) start quickly."""

from __future__ import annotations

import errno
import os

from ringfence.core.errors import BadInput, RingfenceError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET = "/run/ringfence/socket"
SOCKET_VARIABLE = "RINGFENCE_SOCKET"
PATH_BYTES = 108
"""A Unix socket's path, final NUL included (unix(7), sun_path)."""


def socket_path(given: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> str:
    """The argument, else RINGFENCE_SOCKET, else the usual place.

    Raises BadInput for a path that no Unix socket can have."""
    if given is None:
        path = environment.get(SOCKET_VARIABLE) or SOCKET
    else:
        try:
            path = os.fsdecode(given)
        except TypeError:
            raise BadInput(f"{given!r} is no path", next="give the path of the daemon's socket") from None
    if not path or "\0" in path or len(os.fsencode(path)) >= PATH_BYTES:
        raise BadInput(
            f"{path!r} cannot be a Unix socket's path (1 to {PATH_BYTES - 1} bytes)",
            next="give a shorter path, or a shorter --root to the daemon",
        )
    return path


def cannot_connect(path: str, error: OSError) -> RingfenceError:
    if error.errno == errno.EACCES:
        return Unavailable(
            f"this user may not use {path}", next="run as root, or join the group that owns the socket"
        )
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
        return Unavailable(
            f"no ringfence daemon listens on {path}",
            next="start it (systemctl start ringfence), or set RINGFENCE_SOCKET",
            retry=True,
        )
    if error.errno in (errno.EAGAIN, errno.ETIMEDOUT):
        return Unavailable(
            f"the daemon on {path} accepts no connection: it is frozen or overrun",
            next="look at its process and its log",
            retry=True,
        )
    return Unavailable(f"cannot connect to {path}: {error.strerror or error}", next="check the path")


def connection_lost(path: str) -> Unavailable:
    return Unavailable(
        f"the daemon on {path} closed the connection before it answered",
        next="see whether it still runs (ringfence status), then look before repeating a change",
        retry=True,
    )
