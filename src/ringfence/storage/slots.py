"""Disk slots of one device, read and written directly; `do` blocks for as long as the device likes.

The device stays open between two orders, for they come twice a second.  After any failure it is opened
anew: the path may lead to another device by then."""

from collections.abc import Callable

from ringfence.core.errors import NoAuthority, NotFound, VgChanged
from ringfence.engine.orders import SlotIo
from ringfence.storage.direct import DirectFile
from ringfence.wire.slots import BLOCK_BYTES


class SlotDevice:
    """Args: clock: CLOCK_BOOTTIME, in nanoseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._files: dict[str, DirectFile] = {}

    def do(self, order: SlotIo) -> tuple[bytes, ...]:
        """Raises NotFound, VgChanged, DeviceFailed, NoAuthority (it is too late to write)."""
        try:
            return self._do(order)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        files, self._files = self._files, {}
        for file in files.values():
            file.__exit__(None, None, None)

    def _opened(self, path: str) -> DirectFile:
        if path not in self._files:
            self._files[path] = DirectFile(path, write=True)
        return self._files[path]

    def _check_text(self, order: SlotIo) -> None:
        text = order.text
        if self._opened(text.path).read(text.at_bytes, len(text.data)) != text.data:
            raise VgChanged(f"VG {order.vg} has changed: its disk slots may be elsewhere", retry=True)

    def _do(self, order: SlotIo) -> tuple[bytes, ...]:
        if any(path not in (order.path, order.text.path) for path in self._files):
            self.close()
        file = self._opened(order.path)
        self._check_text(order)
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
        found = tuple(file.read(order.start_bytes + one, BLOCK_BYTES) for one in order.reads)
        self._check_text(order)
        return found
