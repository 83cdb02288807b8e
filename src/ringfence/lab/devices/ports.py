"""Ports for devices that are to keep them, also while nobody listens there.

Who looks for ports for another lab meanwhile must not find the same ones: between the look and the moment
when the device listens, or while it has no power, they look free.  So each is taken by its number among the
abstract Unix sockets, too, which are of one network as ports are (unix(7)), until this process ends; by then
the devices of a lab have them."""

import random
import socket
from pathlib import Path

from ringfence.core.errors import Unavailable

LOWEST = 10240
TRIES = 500


def free_ports(count: int) -> list[int]:
    """So many that are free over TCP and UDP, that the kernel gives nobody by itself, and that were not given
    to anybody else who still runs.

    Raises Unavailable.  Source: ip(7), ip_local_port_range."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: dict[int, None] = {}
    for _ in range(TRIES):
        if len(found) == count:
            return list(found)
        port = random.randrange(LOWEST, max(first, LOWEST + 2 * TRIES))
        kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        if port not in found and all(_free(port, kind) for kind in kinds) and _take(port):
            found[port] = None
    raise Unavailable("too few free ports on loopback", next="see what has them: ss -ulntp")


_taken: list[socket.socket] = []


def _take(port: int) -> bool:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(f"\0ringfence-lab-port-{port}")
    except OSError:
        sock.close()
        return False
    _taken.append(sock)
    return True


def _free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
