"""ringfence: clustered LVM for today.  See docs/ARCHITECTURE.md for the picture and the promise."""

import os

TYPE_CHECKING = False  # typing's own takes longer to load than a quick command does in all
if TYPE_CHECKING:
    from ringfence.client import Connection

__version__ = "0.1.0"
__all__ = ["__version__", "connect"]


def connect(socket: str | os.PathLike[str] | None = None, *, retry_ms: int | None = None) -> "Connection":
    """Connect to this host's daemon; see `ringfence.client.connect`."""
    # Not at the top: every room imports this package, and pure ones must not drag in sockets.
    from ringfence.client import connect

    return connect(socket) if retry_ms is None else connect(socket, retry_ms=retry_ms)
