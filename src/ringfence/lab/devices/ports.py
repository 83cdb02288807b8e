"""Ports for devices that are to keep them, also while nobody listens there."""

import random
import socket
from pathlib import Path

from ringfence.core.errors import Unavailable

LOWEST = 10240
TRIES = 200


def free_port(address: str) -> int:
    """One that is free over TCP and UDP, and that the kernel gives nobody by itself (ip_local_port_range).

    Raises Unavailable."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(TRIES):
        port = random.randrange(LOWEST, max(first, LOWEST + 1000))
        if all(_free(address, port, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)):
            return port
    raise Unavailable(f"no free port at {address}", next="see what has them: ss -ulntp")


def _free(address: str, port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as sock:
        try:
            sock.bind((address, port))
        except OSError:
            return False
    return True
