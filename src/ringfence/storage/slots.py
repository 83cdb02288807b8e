"""Disk slots of one device, read and written directly; `do` blocks for as long as the device likes.

The device stays open between two orders, for they come twice a second.  After any failure it is opened
anew: the path may lead to another device by then."""

from collections.abc import Callable

from ringfence.core.errors import NoAuthority, NotFound
from ringfence.engine.orders import SlotIo
from ringfence.storage.direct import DirectFile
from ringfence.wire.slots import BLOCK_BYTES


class SlotDevice:
    """Args: clock: CLOCK_BOOTTIME, in nanoseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._file: DirectFile | None = None

    def do(self, order: SlotIo) -> tuple[bytes, ...]:
        """Raises NotFound, DeviceFailed, NoAuthority (it is too late to write)."""
        try:
            return self._do(self._opened(order.path), order)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.__exit__(None, None, None)

    def _opened(self, path: str) -> DirectFile:
        if self._file is None or self._file.path != path:
            self.close()
            self._file = DirectFile(path, write=True)
        return self._file

    def _do(self, file: DirectFile, order: SlotIo) -> tuple[bytes, ...]:
        if file.read(order.start_bytes, BLOCK_BYTES) != order.header:
            raise NotFound(
                f"the disk slots of VG {order.vg} are not on {order.path} any more",
                next=f"ringfence slots show {order.vg}",
            )
        if order.write is not None:
            offset_bytes, data = order.write
            assert offset_bytes % BLOCK_BYTES == 0 == len(data) % BLOCK_BYTES
            if order.not_after_ns and self._clock() > order.not_after_ns:
                raise NoAuthority(f"VG {order.vg}: its slots were not written: it is too late", retry=True)
            file.write(order.start_bytes + offset_bytes, data)
            file.flush()
        return tuple(file.read(order.start_bytes + one, BLOCK_BYTES) for one in order.reads)
