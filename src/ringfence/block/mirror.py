"""A stretch of an open LV that is being moved: copied to its new place, and kept equal there under writers.

The old place has everything at all times, and is what is read.  The copy goes slice by slice.  A write to
what is copied already goes to both places; one to the slice at hand waits until that is copied; one beyond it
goes to the old place alone, and is copied when its turn comes.  So

    copying    the copy is of no use yet; whatever goes wrong ends it, and no client knows
    complete   both places are equal but for what is in flight; the copy may still fail
    sealed     a write that does not reach both fails, so the copy cannot: the metadata may name it now
    reloaded   the new place is all there is (`Reload` takes a sealed copy only)

A crash before the metadata are committed leaves the old place, one after that the new one, each with
every write that was answered and flushed.

Copying is writing: from a seat, checked before and after, a late slice reported as any late write.  A write
to both places is two in flight."""

import threading
import time
from collections.abc import Callable

import msgspec

from ringfence.block.extents import Extents
from ringfence.block.fastpath import PAGE, buffer
from ringfence.block.gate import ClientGone, Denied
from ringfence.core.errors import BadInput
from ringfence.wire.block import Moving

SLICE_BYTES = 1 << 20
TELL_S = 0.1
"""How often it is told how far the copy is."""

Part = Callable[[Extents, int, int, int], None]
"""Change (extents, offset there, offset within the request, bytes).  Raises OSError."""


class Mirror:
    """
    Args:
        offset_bytes: where in the LV the stretch begins.
        to: its new place; as long as the stretch.
        told: called when something has changed that a person may want to know.
    """

    def __init__(self, offset_bytes: int, to: Extents, told: Callable[[Moving], None]) -> None:
        self.to = to
        self.moving = Moving(offset_bytes, to.size_bytes)
        self._told = told
        self._changed = threading.Condition()
        self._copying = (0, 0)
        """The slice at hand, as offsets of the LV."""
        self._writing: list[tuple[int, int]] = []
        self._stopped = False
        self._tell_at = 0.0
        self._copier: threading.Thread | None = None

    @property
    def end_bytes(self) -> int:
        return self.moving.offset_bytes + self.moving.length_bytes

    def seal(self) -> bool:
        """True: from now on no write is answered well that is not in both places."""
        with self._changed:
            if self.moving.complete and not self.moving.failed:
                self._say(sealed=True)
            return self.moving.sealed

    def fail(self, why: str) -> None:
        """The copy is of no use any more."""
        with self._changed:
            if not self.moving.failed and not self.moving.sealed:
                self._say(failed=why)
            self._changed.notify_all()

    def _say(self, **changes: object) -> None:
        self.moving = msgspec.structs.replace(self.moving, **changes)
        if "copied_bytes" not in changes or time.monotonic() > self._tell_at:
            self._tell_at = time.monotonic() + TELL_S
            self._told(self.moving)

    # -- clients ----------------------------------------------------------------

    def change(self, extents: Extents, offset: int, length: int, part: Part) -> None:
        """A client's change, to the old place and where it must be to the new one.

        Raises OSError: it may be in part of either."""
        span = offset, offset + length
        with self._changed:
            while _meet(span, self._copying) or any(_meet(span, one) for one in self._writing):
                self._changed.wait()
            self._writing.append(span)
        try:
            self._change(extents, offset, length, part)
        finally:
            with self._changed:
                self._writing.remove(span)
                self._changed.notify_all()

    def _change(self, extents: Extents, offset: int, length: int, part: Part) -> None:
        try:
            part(extents, offset, 0, length)
        except OSError:
            self.fail("a write to the old place has failed")
            raise
        # What is copied does not change within this span while it stands in `_writing`.
        first = max(offset, self.moving.offset_bytes)
        last = min(offset + length, self.moving.offset_bytes + self.moving.copied_bytes)
        if first < last and not self.moving.failed:
            try:
                part(self.to, first - self.moving.offset_bytes, first - offset, last - first)
            except OSError as error:
                self._new_place_failed(error)

    def flush(self) -> None:
        """Raises OSError."""
        try:
            self.to.flush()
        except OSError as error:
            self._new_place_failed(error)

    def _new_place_failed(self, error: OSError) -> None:
        self.fail(f"the new place failed: {error.strerror}")
        if self.moving.sealed:
            raise error

    # -- the copy ---------------------------------------------------------------

    def start(self, world: "Copying") -> None:
        self._copier = threading.Thread(target=self._run, args=(world,), daemon=True)
        self._copier.start()

    def stop(self) -> None:
        """Returns when nothing is copied any more."""
        self._stopped = True
        if self._copier is not None:
            self._copier.join()

    def close(self) -> None:
        self.to.close()

    def _run(self, world: "Copying") -> None:
        data = memoryview(buffer())[PAGE : PAGE + SLICE_BYTES]
        try:
            while not self._stopped and not self.moving.failed:
                start = self.moving.offset_bytes + self.moving.copied_bytes
                if start == self.end_bytes:
                    self.to.flush()
                    with self._changed:
                        if not self.moving.failed:
                            self._say(complete=True)
                    return
                self._slice(world, start, data[: min(SLICE_BYTES, self.end_bytes - start)])
        except Denied as denied:
            self.fail(denied.why)
        except ClientGone:
            pass  # stopped
        except OSError as error:
            self.fail(f"the copy failed: {error.strerror}")

    def _left(self, wait_ms: int) -> bool:
        time.sleep(wait_ms / 1000)
        return self._stopped

    def _slice(self, world: "Copying", start: int, data: memoryview) -> None:
        """Copy one, unless authority ends before it begins.  From a seat first: who waits for the slice has
        one, too."""
        world.pass_through(self._left)
        world.sit()
        try:
            with self._changed:
                self._copying = start, start + len(data)
                while any(_meet(span, self._copying) for span in self._writing):
                    self._changed.wait()
            if not world.is_open():
                return
            world.extents.read(start, data)
            if not world.is_open():  # a disk may take its time to read
                return
            self.to.write(start - self.moving.offset_bytes, data, False)
            if not world.is_open():
                world.late(start, len(data))
            with self._changed:
                copied = start + len(data) - self.moving.offset_bytes
                self._say(copied_bytes=copied)
        finally:
            with self._changed:
                self._copying = 0, 0
                self._changed.notify_all()
            world.leave()


class Copying(msgspec.Struct, frozen=True):
    """What the copy needs of its export."""

    extents: Extents
    """The LV as it is: the old place."""
    pass_through: Callable[[Callable[[int], bool]], None]
    is_open: Callable[[], bool]
    sit: Callable[[], None]
    leave: Callable[[], None]
    late: Callable[[int, int], None]
    """(offset, bytes) of a slice that was written as authority ended."""


def check_fits(extents: Extents, offset_bytes: int, to: Extents) -> None:
    """Raises BadInput: the stretch is not within the LV, or the new place has other blocks."""
    if offset_bytes < 0 or offset_bytes + to.size_bytes > extents.size_bytes:
        raise BadInput("what is to be moved reaches beyond the end of the LV")
    if to.block_bytes > extents.block_bytes or offset_bytes % extents.block_bytes:
        raise BadInput(f"the new place has blocks of {to.block_bytes} bytes, the LV of {extents.block_bytes}")


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < other[1] and other[0] < one[1]
