"""Tells the service manager how we fare (sd_notify), if there is one.

Source: sd_notify(3): one datagram of NAME=VALUE lines to the socket named in NOTIFY_SOCKET."""

import contextlib
import os
import socket


def notify(state: str) -> bool:
    """Send `state` ("READY=1", "STATUS=…", "STOPPING=1").  False: nobody listens.  Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
    ):
        sock.settimeout(1)
        sock.sendto(state.encode(), address)
        return True
    return False
