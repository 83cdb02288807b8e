"""What an open LV does while a stretch of it is being moved, as `block.mirror` promises, in a world where
everything happens in turn."""

from collections.abc import Callable, Sequence

import msgspec

from ringfence.core.errors import DeviceFailed, Refused
from ringfence.engine.orders import MirrorPath
from ringfence.lvm2.label import SECTOR_BYTES
from ringfence.wire import block as wire
from ringfence.wire.block import Extent, Moving

STEP_BYTES = 1 << 20

Read = Callable[[str, int, int], bytes]
"""(path, offset, bytes).  Raises DeviceFailed, as a write does."""
Write = Callable[[str, int, bytes], None]
"""(path, offset, data)."""


def pieces(extents: Sequence[Extent], offset: int, length: int) -> list[tuple[str, int, int]]:
    """Where a range of an LV lies: (path, offset there, bytes), in the order of the LV."""
    found = []
    at = 0
    for one in extents:
        first, last = max(offset, at), min(offset + length, at + one.length_bytes)
        places = [(one.path, one.start_bytes), *((place.path, place.start_bytes) for place in one.beside)]
        chunk = one.stripe_bytes or one.length_bytes
        while first < last:
            number, within = divmod(first - at, chunk)
            row, stripe = divmod(number, len(places))
            count = min(chunk - within, last - first)
            path, start = places[stripe]
            found.append((path, start + row * chunk + within, count))
            first += count
        at += one.length_bytes
    assert offset + length <= at, "beyond the end of the LV"
    return found


def read_lv(extents: Sequence[Extent], offset: int, length: int, read: Read) -> bytes:
    return b"".join(read(*piece) for piece in pieces(extents, offset, length))


def read_all(extents: Sequence[Extent], read: Read) -> bytes:
    return read_lv(extents, 0, sum(one.length_bytes for one in extents), read)


def write_lv(extents: Sequence[Extent], offset: int, data: bytes, write: Write) -> None:
    for path, start, count in pieces(extents, offset, len(data)):
        write(path, start, data[:count])
        data = data[count:]


class Mirrored:
    """A stretch that is being moved; `go_on` copies some of it."""

    def __init__(self, extents: Sequence[Extent], order: MirrorPath, read: Read, write: Write) -> None:
        self.to = order.to
        self.moving = Moving(order.offset_bytes, sum(one.length_bytes for one in order.to))
        self._extents = tuple(extents)
        self._moved = wire.moved(tuple(extents), order.offset_bytes, order.to)
        self._read, self._write = read, write

    def go_on(self) -> None:
        now = self.moving
        if now.failed or now.complete:
            return
        at = now.copied_bytes
        count = min(STEP_BYTES, now.length_bytes - at)
        try:
            data = read_lv(self._extents, now.offset_bytes + at, count, self._read)
            write_lv(self.to, at, data, self._write)
        except DeviceFailed as error:
            self.fail(f"the copy failed: {error}")
            return
        copied = at + count
        complete = copied == now.length_bytes
        self.moving = msgspec.structs.replace(now, copied_bytes=copied, complete=complete)

    def write(self, offset: int, data: bytes) -> None:
        """A client's, to both places where it is copied already."""
        write_lv(self._extents, offset, data, self._write)
        now = self.moving
        first = max(offset, now.offset_bytes)
        last = min(offset + len(data), now.offset_bytes + now.copied_bytes)
        if first < last and not now.failed:
            write_lv(self.to, first - now.offset_bytes, data[first - offset : last - offset], self._write)

    def beside(self, offset: int) -> list[tuple[str, int, int]]:
        """Where else a sector lies that is copied already."""
        now, at = self.moving, offset - self.moving.offset_bytes
        there = 0 <= at < now.copied_bytes and not now.failed
        return pieces(self.to, at, SECTOR_BYTES) if there else []

    def fail(self, why: str) -> None:
        """The copy is of no use any more; one that is sealed cannot fail."""
        if self.moving.sealed:
            return
        self.moving = msgspec.structs.replace(self.moving, failed=why)

    def seal(self) -> Moving:
        """Raises Refused."""
        if not self.moving.complete or self.moving.failed:
            raise Refused("the copy is not complete", next="wait for it", retry=True)
        self.moving = msgspec.structs.replace(self.moving, sealed=True)
        return self.moving

    def check_becomes(self, extents: Sequence[Extent]) -> None:
        """Raises Refused: that is another table than the one it is being moved to."""
        if not self.moving.sealed or not wire.begins_with(tuple(extents), self._moved):
            raise Refused("it is being moved", next="wait until that is over, or end it", retry=True)
