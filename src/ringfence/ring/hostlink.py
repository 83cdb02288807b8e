"""A host's own link to the hub, held by its init: as long as it answers, the host lives.

A thread of its own with blocking sockets, so that it needs no event loop and nothing of the daemon.
It answers pings, connects again for ever, and is silent for ever once its process is frozen or
gone, which is the point."""

import contextlib
import select
import socket as sockets
import threading
from pathlib import Path

from ringfence.wire import hub as wire
from ringfence.wire.hub import Role

FIRST_RETRY_S = 0.05
LONGEST_RETRY_S = 1.0
WRITE_TIMEOUT_S = 5.0
_PONG = wire.encode(wire.Pong())


class HostLink:
    """Holds node `node`'s host link to the hub at `socket`.

    To end it (`stop`, or the end of the process) while the node's daemon is in the ring says that
    the host is gone: the daemon is removed as "nodedown"."""

    def __init__(self, socket: Path | str, node: int) -> None:
        self.socket = Path(socket)
        self.node = node
        self.trouble = "not connected yet"
        """One line; "" while the hub has welcomed us."""
        self._wake, self._waker = sockets.socketpair()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run in a daemon thread.  Returns at once."""
        self._thread = threading.Thread(target=self.run, name=f"host link of node {self.node}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the link and, if `start` was used, the thread.  May be called from anywhere, and twice."""
        self._stopping = True
        with contextlib.suppress(OSError):
            self._waker.send(b"x")
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self._wake.close()
            self._waker.close()

    def run(self) -> None:
        """Hold the link until `stop`; for a host whose main thread has nothing else to do."""
        pause_s = FIRST_RETRY_S
        while not self._stopping:
            self.trouble, welcomed = self._hold()
            pause_s = FIRST_RETRY_S if welcomed else min(2 * pause_s, LONGEST_RETRY_S)
            self._sleep(pause_s)

    def _sleep(self, pause_s: float) -> None:
        if not self._stopping:
            select.select([self._wake], [], [], pause_s)

    def _hold(self) -> tuple[str, bool]:
        """One connection, from connect to end.  Returns why it ended and whether we were welcome."""
        welcomed = False
        try:
            with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as sock:
                sock.settimeout(WRITE_TIMEOUT_S)
                sock.connect(str(self.socket))
                sock.sendall(wire.encode(wire.Hello(Role.HOST, self.node)))
                frames = wire.from_hub_frames()
                while True:
                    ready, _, _ = select.select([sock, self._wake], [], [])
                    if self._stopping:
                        return "stopped", welcomed
                    if sock not in ready:
                        continue
                    chunk = sock.recv(65536)
                    if not chunk:
                        return self.trouble or f"the hub at {self.socket} ended the link", welcomed
                    for message in frames.feed(chunk):
                        welcomed = self._heard(sock, message) or welcomed
        except (OSError, wire.FrameError) as error:
            if welcomed and self.trouble:
                return self.trouble, True  # the hub said why before it closed
            return f"the hub at {self.socket} cannot be reached: {error}", welcomed

    def _heard(self, sock: sockets.socket, message: wire.FromHub) -> bool:
        match message:
            case wire.Welcome():
                self.trouble = ""
                return True
            case wire.Ping():
                sock.sendall(_PONG)
            case wire.Removed(epoch, why):
                self.trouble = f"the hub at {self.socket} removed this host in epoch {epoch}: {why}"
            case wire.Refusal(what, next):
                self.trouble = f"the hub at {self.socket} refuses this host: {what}; {next}"
            case _:
                pass
        return False
