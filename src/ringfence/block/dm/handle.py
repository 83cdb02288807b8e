"""The service's side of one device: what `block.handle` is for a worker.

What asks device-mapper runs in threads: it may take as long as a disk does."""

import asyncio

import msgspec

from ringfence.block.dm.device import Mapped
from ringfence.block.dm.guard import Guard
from ringfence.block.dm.judge import Wanted
from ringfence.core.errors import Refused, RingfenceError
from ringfence.wire import block as wire

CUT_AGAIN_S = 0.5


class MappedHandle:
    """One device, from its making to its end."""

    def __init__(self, mapped: Mapped, guard: Guard) -> None:
        self.mapped = mapped
        self._guard = guard
        self._cutting: asyncio.Task[None] | None = None
        self.gone = True
        """Nothing can be written through it."""
        if mapped.opened:
            self._guarded()

    @property
    def open_call(self) -> wire.Open:
        return self.mapped.call

    @property
    def name(self) -> str:
        return self.mapped.name

    @property
    def path(self) -> wire.Path:
        call, mapped = self.mapped.call, self.mapped
        return wire.Path(
            call.vg,
            call.lv,
            call.uuid,
            str(mapped.link),
            f"file://{mapped.link}",
            mapped.size_bytes,
            shared=call.shared,
            readonly=call.readonly,
            pages=call.pages,
            token=call.token,
            extents=call.extents,
            plane=wire.Plane.DM,
            failed=mapped.failed,
        )

    async def start(self) -> None:
        """Raises RingfenceError; there is no device then."""
        if self._guard.judge(self.mapped) is not Wanted.PASS:
            raise Refused(f"{self.name} cannot be opened: there is no write authority now", retry=True)
        await asyncio.to_thread(self.mapped.open)
        self._guarded()

    def _guarded(self) -> None:
        self.gone = False
        self._guard.add(self.mapped)

    async def look(self) -> wire.Path:
        """As it is at this moment."""
        try:
            there = await asyncio.to_thread(self.mapped.look)
        except OSError:
            there = None
        stopped = ""
        if self.mapped.state is Wanted.HOLD:
            stopped = "its table is suspended: this host's authority is lapsed"
        path = msgspec.structs.replace(self.path, stopped=stopped)
        return msgspec.structs.replace(path, connections=there.open_count) if there is not None else path

    async def reload(self, call: wire.Open) -> None:
        """Raises RingfenceError; the old table stands then."""
        await asyncio.to_thread(self.mapped.reload, call)

    async def obey(self, order: wire.Mirror | wire.Seal | wire.Unmirror) -> None:
        """Raises Refused: a device is not moved while it is open."""
        raise Refused(
            f"{self.name} is open as a device: only what is open over NBD is moved meanwhile",
            next=f"close it (lvchange -an {self.name}) and move it then",
        )

    async def end(self, flush: bool) -> None:
        """Raises Refused: it is in use.  DeviceFailed."""
        try:
            await asyncio.to_thread(self.mapped.close, flush)
        finally:
            if self.mapped.closed:
                self._over()

    def kill(self) -> None:
        """Have all I/O fail; `reaped` says when it does."""
        if self._cutting is None and not self.gone:
            self._cutting = asyncio.ensure_future(self._cut())

    async def reaped(self) -> None:
        if self._cutting is not None:
            await asyncio.shield(self._cutting)

    async def _cut(self) -> None:
        """Until it is known: whoever waits for it may give up, and ask again."""
        self._guard.judge(self.mapped)  # else nobody reports what landed since the guard's last look
        while True:
            try:
                await asyncio.to_thread(self.mapped.cut)
                break
            except RingfenceError:
                await asyncio.sleep(CUT_AGAIN_S)
        self._over()

    def _over(self) -> None:
        self._guard.remove(self.mapped)
        self.gone = True
