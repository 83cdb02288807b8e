"""The gate: nothing passes to a disk without authority.

valid    go
lapsed   hold the request, and look again every few milliseconds: renewed, it goes on; lost, or held
         longer than hold_ms, or ended meanwhile, it fails.  Never both.
lost     fail at once.

A held request whose client has gone away is dropped, never carried out later: the client may have
come back on another connection and written newer data there."""

import errno
from collections.abc import Callable, Sequence
from time import CLOCK_BOOTTIME, clock_gettime_ns

from ringfence.host.pages import Authority, PageReader, state_of

POLL_MS = 4


class Denied(Exception):
    """Fail the request with `errno`; `why` completes "was refused: …"."""

    def __init__(self, errno: int, why: str) -> None:
        super().__init__(why)
        self.errno = errno
        self.why = why


class ClientGone(Exception):
    """Nobody is left who could be told."""


class Gate:
    """One for all connections of a worker.

    Args:
        pages: all must be valid.
        hold_ms: how long a request may wait.
        now_ns: CLOCK_BOOTTIME.
    """

    def __init__(
        self,
        pages: Sequence[PageReader],
        hold_ms: int,
        now_ns: Callable[[], int] = lambda: clock_gettime_ns(CLOCK_BOOTTIME),
    ) -> None:
        assert pages, "a path without an authority page would always be closed"
        self._pages = tuple(pages)
        self._hold_ms = hold_ms
        self._now_ns = now_ns
        self.ending = False
        """Set when the worker ends: what is held then fails."""

    @property
    def open(self) -> bool:
        """Valid at this instant.  (Lost is 0, always valid is 2**64 - 1: one comparison serves all.)"""
        return all(self._now_ns() < page.deadline_ns() for page in self._pages)

    def state(self) -> Authority:
        """The worst of the pages."""
        deadline_ns = min(page.deadline_ns() for page in self._pages)
        return state_of(deadline_ns, self._now_ns())

    def pass_through(self, client_left: Callable[[int], bool]) -> None:
        """Return when authority is valid.

        Args:
            client_left: waits up to that many ms; True if the client hung up.

        Raises:
            Denied: it is lost, was lapsed for too long, or the worker ends.
            ClientGone: the client hung up while it was held.
        """
        if self.open:
            return
        give_up_ns = self._now_ns() + self._hold_ms * 1_000_000
        while True:
            state = self.state()
            if state is Authority.LOST:
                raise Denied(errno.EPERM, "this host's authority is lost")
            if self.ending:
                raise Denied(errno.ESHUTDOWN, "the volume was closed while authority was lapsed")
            if state is Authority.LAPSED and self._now_ns() >= give_up_ns:
                raise Denied(errno.EPERM, f"this host's authority was lapsed for over {self._hold_ms} ms")
            left = client_left(POLL_MS if state is Authority.LAPSED else 0)
            if self.ending:
                continue  # our own end looks like the client's; it is told
            if left:
                raise ClientGone
            if state is Authority.VALID:
                return
