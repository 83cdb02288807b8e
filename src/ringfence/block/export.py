"""What all connections of a worker serve: one volume, which may be swapped for another under them.

A request takes its *seat* before it touches the volume and leaves it when its transfer is over; what waits
for authority has no seat.  `swap` lets nobody sit down, waits until all seats are empty, exchanges the
volume, and lets them in again: no request meets two tables, and none is lost."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ringfence.block import protocol as nbd
from ringfence.block.extents import Extents
from ringfence.block.gate import Gate
from ringfence.core.errors import DeviceFailed

LOOK_S = 0.0005
DRAIN_S = 10.0
"""How long transfers under way may take before a swap is given up."""


class Reporter(Protocol):
    """`reports.Reports`."""

    def late(self, offset_bytes: int, length_bytes: int, why: str) -> None: ...

    def refused(self, offset_bytes: int, length_bytes: int, why: str) -> None: ...


class Volume:
    """What is served at one time.  Never changes.

    Args:
        names: the first is what we list; "" is the default export.
    """

    def __init__(self, names: tuple[str, ...], extents: Extents, readonly: bool) -> None:
        self.names = names
        self.extents = extents
        self.readonly = readonly
        self.flags = nbd.HAS_FLAGS | nbd.SEND_FLUSH | nbd.SEND_FUA | nbd.CAN_MULTI_CONN
        if readonly:
            self.flags |= nbd.READ_ONLY


class Seat:
    """Of one thread that carries out requests, one at a time."""

    def __init__(self) -> None:
        self.taken = False


class Export:
    """The volume, who may touch it, and whom to tell."""

    def __init__(self, volume: Volume, gate: Gate, reports: Reporter) -> None:
        self.volume = volume
        self.gate = gate
        self.reports = reports
        self._swapping = False
        self._over = threading.Condition()
        self._seats: list[Seat] = []

    def add(self, seat: Seat) -> None:
        with self._over:
            self._seats.append(seat)

    def remove(self, seat: Seat) -> None:
        with self._over:
            self._seats.remove(seat)

    def sit(self, seat: Seat) -> Volume:
        """The volume, which stays until `seat.taken` is false again."""
        while True:
            seat.taken = True  # before the look: `swap` looks in the other order
            if not self._swapping:
                return self.volume
            seat.taken = False
            with self._over:
                self._over.wait_for(lambda: not self._swapping)

    def swap(self, volume: Volume, last: Callable[[], None]) -> None:
        """Serve another volume from now on, and close the one before.

        Args:
            last: called while nobody transfers; what it raises leaves the old one in place.

        Raises DeviceFailed: a transfer does not end; the old one stays in place."""
        with self._over:
            self._swapping = True
            seats = list(self._seats)
        before = self.volume
        try:
            give_up = time.monotonic() + DRAIN_S
            while any(seat.taken for seat in seats):
                if time.monotonic() > give_up:
                    words = f"a request to {before.names[0]} has been under way for {DRAIN_S:.0f} s"
                    raise DeviceFailed(words, next="look whether its disk hangs; ask again", retry=True)
                time.sleep(LOOK_S)
            last()
            self.volume = volume
        finally:
            with self._over:
                self._swapping = False
                self._over.notify_all()
        with contextlib.suppress(OSError):
            before.extents.close()
