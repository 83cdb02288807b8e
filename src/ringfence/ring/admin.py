"""Orders to a running hub: cut, heal, status.  Blocking; for labs and tests."""

import socket as sockets
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from ringfence.core.errors import BadInput, Unavailable
from ringfence.wire import hub as wire
from ringfence.wire.hub import Role

TIMEOUT_S = 5.0


class HubAdmin:
    """A connection to the hub at `socket`.  Raises Unavailable if nobody answers there."""

    def __init__(self, socket: Path | str, timeout_s: float = TIMEOUT_S) -> None:
        self.socket = Path(socket)
        self._sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self._sock.settimeout(timeout_s)
        self._frames = wire.from_hub_frames()
        try:
            self._sock.connect(str(socket))
            self._sock.sendall(wire.encode(wire.Hello(Role.ADMIN)))
            self._answer()
        except OSError as error:
            self._sock.close()
            raise self._unavailable(error) from None
        except BaseException:
            self._sock.close()
            raise

    def cut(self, groups: Iterable[Iterable[int]]) -> None:
        """Partition the ring into these groups of node ids; nodes in none form one more together.

        The parts see their new views one detection time later."""
        self._ask(wire.Cut(tuple(tuple(group) for group in groups)))

    def heal(self) -> None:
        """One ring again, at once."""
        self._ask(wire.Heal())

    def status(self) -> wire.HubStatus:
        status = self._ask(wire.AskStatus())
        assert isinstance(status, wire.HubStatus)
        return status

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, order: wire.ToHub) -> wire.FromHub:
        try:
            self._sock.sendall(wire.encode(order))
            return self._answer()
        except OSError as error:
            raise self._unavailable(error) from None

    def _answer(self) -> wire.FromHub:
        """Raises BadInput if the hub refused, Unavailable if it is gone."""
        while True:
            chunk = self._sock.recv(65536)
            if not chunk:
                raise Unavailable(f"the hub at {self.socket} ended the connection", next="look at its log")
            for message in self._frames.feed(chunk):
                if isinstance(message, wire.Refusal):
                    raise BadInput(message.message, next=message.next)
                return message

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"no hub answers on {self.socket} ({error.strerror or error})",
            next=f"start it with `ringfence hub --socket {self.socket}`",
        )
