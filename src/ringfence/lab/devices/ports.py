"""Ports for devices that are to keep them, also while nobody listens there."""

import random
import socket
from pathlib import Path

from ringfence.core.errors import Unavailable

LOWEST = 10240
TRIES = 500


def free_ports(count: int) -> list[int]:
    """So many that are free over TCP and UDP, and that the kernel gives nobody by itself.

    Raises Unavailable.  Source: ip(7), ip_local_port_range."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: dict[int, None] = {}
    for _ in range(TRIES):
        if len(found) == count:
            return list(found)
        port = random.randrange(LOWEST, max(first, LOWEST + 2 * TRIES))
        if all(_free(port, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)):
            found[port] = None
    raise Unavailable("too few free ports on loopback", next="see what has them: ss -ulntp")


def _free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
