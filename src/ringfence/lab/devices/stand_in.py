"""Who holds a device's port while the device is silent, or talks nonsense."""

import contextlib
import os
import socket
import threading

GARBAGE_BYTES = 10 << 20
"""To each who connects; over UDP a few bytes to each datagram."""
CHUNK_BYTES = 1 << 16


class StandIn:
    """Raises OSError: somebody else has the port."""

    def __init__(self, address: str, port: int, udp: bool, garble: bool) -> None:
        self._udp = udp
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        try:
            if not udp:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((address, port))
            if not udp:
                self._socket.listen()  # who connects hears nothing more
        except OSError:
            self._socket.close()
            raise
        self._thread: threading.Thread | None = None
        if garble:
            self._thread = threading.Thread(target=self._garble, daemon=True)
            self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits on it
        if self._thread is not None:
            self._thread.join()
        self._socket.close()

    def _garble(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if self._udp:
                    data, whom = self._socket.recvfrom(CHUNK_BYTES)
                    if not whom:  # shut down
                        return
                    self._socket.sendto(os.urandom(len(data) or 1), whom)
                else:
                    sock, _ = self._socket.accept()
                    threading.Thread(target=_pour, args=(sock,), daemon=True).start()


def _pour(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        chunk = os.urandom(CHUNK_BYTES)
        for _ in range(GARBAGE_BYTES // CHUNK_BYTES):
            sock.sendall(chunk)
