"""What all connections of a worker serve: one volume, which may be swapped for another under them.

A request touches the volume only from a seat.  `swap` lets nobody sit down, waits until all seats are
empty, exchanges the volume, and lets them in again: no request meets two tables, and none is lost."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from ringfence.block import protocol as nbd
from ringfence.block.extents import Extents
from ringfence.block.fastpath import FastSeats
from ringfence.block.gate import Gate
from ringfence.block.mirror import Copying, Mirror
from ringfence.block.seats import PlainSeats
from ringfence.core.errors import DeviceFailed

DRAIN_S = 10.0
"""How long transfers under way may take before a swap is given up."""


class Reporter(Protocol):
    """`reports.Reports`."""

    def late(self, what: str, offset_bytes: int, length_bytes: int, why: str) -> None: ...

    def refused(self, what: str, offset_bytes: int, length_bytes: int, why: str) -> None: ...


class Volume:
    """What is served at one time.  Never changes.

    Args:
        names: the first is what we list; "" is the default export.
    """

    def __init__(self, names: tuple[str, ...], extents: Extents, readonly: bool) -> None:
        self.names = names
        self.extents = extents
        self.readonly = readonly
        self.flags = nbd.HAS_FLAGS | nbd.SEND_FLUSH | nbd.SEND_FUA | nbd.CAN_MULTI_CONN | nbd.SEND_CACHE
        if readonly:
            self.flags |= nbd.READ_ONLY
        else:
            self.flags |= nbd.SEND_TRIM | nbd.SEND_WRITE_ZEROES | nbd.SEND_FAST_ZERO


class Export:
    """The volume, who may touch it, and whom to tell.

    Args: seats: those of `fastpath` are told what is served, too."""

    def __init__(self, volume: Volume, gate: Gate, reports: Reporter, seats: PlainSeats | FastSeats) -> None:
        self.volume = volume
        self.gate = gate
        self.reports = reports
        self.seats = seats
        self.mirror: Mirror | None = None
        """Changed only while nobody transfers, as the volume."""
        self._serve(volume)

    def swap(self, volume: Volume, last: Callable[[], None], held: bool = False) -> None:
        """Serve another volume from now on, and close the one before.

        Args:
            last: called while nobody transfers; what it raises leaves the old one in place.
            held: changes of it wait.  From the return on none is on its way.

        Raises DeviceFailed: a transfer does not end; the old one stays in place."""
        before, mirror = self.volume, self.mirror
        with self._alone():
            last()
            self.mirror, self.gate.held = None, held
            self._serve(volume)
        if mirror is not None:
            mirror.close()
        with contextlib.suppress(OSError):
            before.extents.close()

    def move(self, mirror: Mirror) -> None:
        """Begin to copy a stretch.  Raises DeviceFailed."""
        with self._alone():
            self.mirror = mirror
            self._serve(self.volume)
        mirror.start(
            Copying(
                self.volume.extents,
                self.gate.pass_through,
                lambda: self.gate.open,
                self.seats.sit,
                self.seats.leave,
                lambda offset, length: self.reports.late("copy", offset, length, "authority ended"),
            )
        )

    def stay(self) -> None:
        """Forget the copy.  Raises DeviceFailed."""
        mirror = self.mirror
        if mirror is None:
            return
        mirror.stop()
        with self._alone():
            self.mirror = None
            self._serve(self.volume)
        mirror.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While nobody transfers.  Raises DeviceFailed: somebody does not end."""
        if not self.seats.empty(DRAIN_S):
            words = f"a request to {self.volume.names[0]} has been under way for {DRAIN_S:.0f} s"
            raise DeviceFailed(words, next="look whether its disk hangs; ask again", retry=True)
        try:
            yield
        finally:
            self.seats.fill()

    def _serve(self, volume: Volume) -> None:
        """A write to what is being moved, or held, is not usual."""
        self.volume = volume
        if isinstance(self.seats, FastSeats):
            extents, usual = volume.extents, self.mirror is None and not self.gate.held
            writes = usual and not volume.readonly
            self.seats.serve(extents.table, extents.size_bytes, extents.block_bytes, writes)
