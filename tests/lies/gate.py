"""A way to a simulated controller that can be shut, and can be slow."""

import contextlib
import select
import socket
import threading
import time
from typing import Any


class Gate:
    """Forwards datagrams to a device.

    `sessions` is how many callers it still lets in, each for good (each ipmitool has a port of its own): with
    1 an agent may ask for the status, and its "off" stands at the door, and knocks, until there are more.

    Args:
        port: the device's.
        slow_s: how long each new caller waits for its first answer."""

    def __init__(self, port: int, sessions: int = 1 << 30, slow_s: float = 0.0) -> None:
        self.sessions, self._slow_s = sessions, slow_s
        self.held = threading.Event()
        """Somebody stands at the door."""
        self._inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._outer.bind(("127.0.0.1", 0))
        self._inner.connect(("127.0.0.1", port))
        self.port = int(self._outer.getsockname()[1])
        self._callers: list[Any] = []
        """In the order in which they came; answers go to the latest."""
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *exc: object) -> None:
        self._over = True
        self._thread.join()
        self._inner.close()
        self._outer.close()

    def _run(self) -> None:
        while not self._over:
            for ready in select.select([self._inner, self._outer], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    self._forward(ready)

    def _forward(self, ready: socket.socket) -> None:
        data, caller = ready.recvfrom(4096)
        if ready is self._inner:
            self._outer.sendto(data, self._callers[-1])
            return
        if caller not in self._callers:
            if self.sessions <= 0:
                self.held.set()
                return
            self.sessions -= 1
            self._callers.append(caller)
            time.sleep(self._slow_s)
        self._inner.send(data)
