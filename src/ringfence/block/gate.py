"""The gate: nothing passes to a disk without authority.

valid    go
lapsed   hold the request, and look again every few milliseconds: renewed, it goes on; lost, or held
         longer than hold_ms, or ended meanwhile, it fails.  Never both.
lost     fail at once.

held     while an LV is handed over to another host (`wire.block.Hold`), or from one, what would change it
         waits, for as long as that lasts, and what only reads goes on.  Whatever else is the case, the
         rules above hold for both.

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
        self.held = False
        """Changes wait.  Set only while nobody transfers (`Export.swap`)."""

    @property
    def open(self) -> bool:
        """Valid at this instant.  (Lost is 0, always valid is 2**64 - 1: one comparison serves all.)"""
        return all(self._now_ns() < page.deadline_ns() for page in self._pages)

    def state(self) -> Authority:
        """The worst of the pages."""
        deadline_ns = min(page.deadline_ns() for page in self._pages)
        return state_of(deadline_ns, self._now_ns())

    def lets(self, changes: bool) -> bool:
        """Whether a request may go on at this instant.  Args: changes: it is no mere reading."""
        return self.open and not (changes and self.held)

    def pass_through(self, client_left: Callable[[int], bool], changes: bool = False) -> None:
        """Return when authority is valid, and for what changes the volume nothing else holds it.

        Args:
            client_left: waits up to that many ms; True if the client hung up.

        Raises:
            Denied: it is lost, was lapsed for too long, or the worker ends.
            ClientGone: the client hung up while it was held.
        """
        if self.lets(changes):
            return
        give_up_ns = self._now_ns() + self._hold_ms * 1_000_000
        while True:
            state, held = self.state(), changes and self.held
            if state is Authority.LOST:
                raise Denied(errno.EPERM, "this host's authority is lost")
            if self.ending:
                why = "while it was handed over" if held else "while authority was lapsed"
                raise Denied(errno.ESHUTDOWN, f"the volume was closed {why}")
            if state is Authority.VALID:
                give_up_ns = self._now_ns() + self._hold_ms * 1_000_000  # a hold has no limit of its own
            elif self._now_ns() >= give_up_ns:
                raise Denied(errno.EPERM, f"this host's authority was lapsed for over {self._hold_ms} ms")
            passes = state is Authority.VALID and not held
            left = client_left(0 if passes else POLL_MS)
            if self.ending:
                continue  # our own end looks like the client's; it is told
            if left:
                raise ClientGone
            if passes:
                return
