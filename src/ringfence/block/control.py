"""The daemon's way to the block service (asyncio).

A lost connection is made again; a request that was under way is then asked again, for every call of
the service may be repeated: opening what is open, reloading what is reloaded, closing what is closed and
dropping nothing change nothing.  If there is no service, the call raises Unavailable; nothing is taken
for closed then.

A slow answer is waited for as long as the service answers a mere word meanwhile.  One that does not
even do that stands still: that raises Unavailable too, and what was asked may still be done later."""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec

from ringfence.core.errors import RingfenceError, Unavailable, from_dict
from ringfence.engine.orders import (
    MirrorPath,
    Opened,
    OpenPath,
    OpenVolume,
    PathsTogether,
    ReloadPath,
    SealPath,
    UnmirrorPath,
)
from ringfence.wire import block as wire
from ringfence.wire.entries import Incident

TRIES = 2
RETRY_S = 0.5
LOOK_S = 2.0
"""How long to wait for a mere word: who asks why something is stuck must not get stuck as well."""
REMEMBERED = 4096
AT_ONCE = 512
"""How many of what is listed are decoded in one step of the loop."""


class BlockService:
    """One host's block service.

    Args:
        socket: its control socket.
        node: this host's node id, put into incidents.
        hold_ms: how long requests wait on lapsed authority.
        plane: how LVs reach their users on this host.
    """

    def __init__(
        self, socket: Path, node: int = 0, hold_ms: int = 60000, plane: wire.Plane = wire.Plane.NBD
    ) -> None:
        self.socket = socket
        self._node = node
        self._hold_ms = hold_ms
        self._plane = plane
        self._link: _Link | None = None
        self._linking = asyncio.Lock()

    async def open(self, order: OpenPath, pages: Sequence[Path]) -> Opened:
        """Start a worker for an LV.  Its writes need every one of `pages` valid.

        Raises:
            Refused: it is open in another way, failed, or was dropped meanwhile.
            DeviceFailed, BadInput: its extents cannot be opened.
            Unavailable: no block service, or no worker.
        """
        path = wire.as_path(await self._ask(self._opening(order, _named(pages))))
        return Opened(path.path, path.uri)

    async def together(
        self, order: PathsTogether, pages: Mapping[str, Sequence[Path]]
    ) -> tuple[Opened | RingfenceError | None, ...]:
        """Each of many orders, with its answer, or with what `open` or `close` would raise.

        Args: pages: by VG.

        Raises Unavailable: no block service; nothing is known of any."""
        named = {vg: _named(its) for vg, its in pages.items()}
        calls = tuple(
            self._opening(one, named[one.vg])
            if isinstance(one, OpenPath)
            else wire.Close(one.vg, one.lv, uuid=one.uuid)
            for one in order.orders
        )
        return tuple(
            from_dict(one.error) if one.error else Opened(one.path, one.uri) if one.path else None
            for one in wire.as_outcomes(await self._ask(wire.Together(calls)))
        )

    def _opening(self, order: OpenPath, pages: tuple[str, ...]) -> wire.Open:
        return wire.Open(
            order.vg,
            order.lv,
            order.uuid,
            order.extents,
            pages,
            shared=order.shared,
            readonly=order.readonly,
            hold_ms=self._hold_ms,
            node=self._node,
            token=str(order.token),
            plane=wire.Plane.NBD if order.hold is not wire.NO_HOLD else self._plane,
            vg_uuid=order.vg_uuid,
            hold=order.hold,
        )

    async def reload(self, order: ReloadPath) -> Opened:
        """Give an open LV other extents, another name, or another access, under its running clients.

        Raises (all is as it was, unless Unavailable):
            NotFound: it is not open.
            Refused: it is another LV, open under another lock, or has failed; the name is taken.
            DeviceFailed, BadInput: the new extents cannot be opened, or what is under way does not end.
            Unavailable: no block service; nothing is known.
        """
        call = wire.Reload(
            order.vg,
            order.lv,
            order.uuid,
            order.extents,
            order.name,
            order.readonly,
            str(order.token),
            order.hold,
        )
        path = wire.as_path(await self._ask(call))
        return Opened(path.path, path.uri)

    async def mirror(self, order: MirrorPath) -> wire.Moving | None:
        """Begin to copy a stretch of an open LV to another place; how far it is.

        Raises NotFound, Refused, DeviceFailed, BadInput: nothing has begun; Unavailable: nothing is known."""
        call = wire.Mirror(order.vg, order.lv, order.uuid, order.offset_bytes, order.to, str(order.token))
        return wire.as_path(await self._ask(call)).moving

    async def seal(self, order: SealPath) -> wire.Moving | None:
        """Raises Refused: the copy is not complete, or has failed; NotFound, Unavailable."""
        return wire.as_path(await self._ask(wire.Seal(order.vg, order.lv, order.uuid))).moving

    async def unmirror(self, order: UnmirrorPath) -> None:
        """Raises NotFound, DeviceFailed, Unavailable."""
        await self._ask(wire.Unmirror(order.vg, order.lv, order.uuid))

    async def close(self, vg: str, lv: str, flush: bool = True, uuid: str = "") -> None:
        """Returns when the worker is flushed, ended and reaped; at once if there is none.

        Args: uuid: of the LV that is meant, whatever it is called by now; empty: whatever has the name.

        Raises:
            DeviceFailed: the flush failed (it is closed all the same), or (`retry`) the worker does not
                end: it is not closed.
            Unavailable: no block service; nothing is known.
        """
        await self._ask(wire.Close(vg, lv, flush, uuid))

    async def drop_all(self) -> None:
        """Returns when every worker is reaped; nothing was flushed.  Raises Unavailable: unknown."""
        await self._ask(wire.DropAll())

    async def take_over(self) -> tuple[wire.Path, ...]:
        """What earlier daemons left open; from now on nothing is done for them any more.

        Raises Unavailable: unknown."""
        return tuple([path async for path in self._listed(wire.TakeOver())])

    async def list(self) -> tuple[OpenVolume, ...]:
        """What is open.  Raises Unavailable."""
        return tuple([_open_volume(path) async for path in self._listed(wire.List())])

    async def paths(self) -> tuple[wire.Path, ...]:
        """As `list`, with all that the service knows (pid, direct or not, why it failed)."""
        return tuple([path async for path in self._listed(wire.List())])

    async def _listed(self, call: wire.List | wire.TakeOver) -> AsyncIterator[wire.Path]:
        """What it lists, thousands in several steps of the loop."""
        for number, one in enumerate(wire.as_pieces(await self._ask(call)), 1):
            yield wire.as_path(one)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    async def incidents(self) -> AsyncIterator[Incident]:
        """Every incident that is not acknowledged, then each new one; for ever, across restarts.

        An incident is acknowledged when the next one is asked for: record it first."""
        done: deque[str] = deque(maxlen=REMEMBERED)
        while True:
            with contextlib.suppress(RingfenceError, OSError):
                link = await _Link.connect(self.socket)
                try:
                    await link.ask(wire.Watch())
                    while (notice := await link.notices.get()) is not None:
                        if notice.id not in done:
                            yield notice.incident
                            done.append(notice.id)
                        await link.ask(wire.Acknowledge((notice.id,)))
                finally:
                    await link.close()
            await asyncio.sleep(RETRY_S)

    async def aclose(self) -> None:
        """End the connection.  Closes no path."""
        if self._link is not None:
            await self._link.close()
            self._link = None

    async def _ask(self, call: wire.Call) -> msgspec.Raw:
        for attempt in range(TRIES):
            async with self._linking:
                if self._link is None or self._link.lost:
                    self._link = await _Link.connect(self.socket)
                link = self._link
            try:
                return await self._answer(link, call)
            except ConnectionError:
                if attempt + 1 == TRIES:
                    raise _unavailable(self.socket, "it hung up") from None
        raise AssertionError

    async def _answer(self, link: "_Link", call: wire.Call) -> msgspec.Raw:
        asked = asyncio.ensure_future(link.ask(call))
        try:
            wait_s = LOOK_S / 2 if isinstance(call, wire.List) else LOOK_S
            while not (await asyncio.wait([asked], timeout=wait_s))[0]:
                async with asyncio.timeout(wait_s):
                    await link.ask(wire.Acknowledge(()))  # of nothing: does it answer at all?
            return asked.result()
        except TimeoutError:
            raise Unavailable(
                f"the block service on {self.socket} has not answered for {LOOK_S:g} s",
                next="look whether it is stopped or its disk hangs (systemctl status ringfence-block)",
                retry=True,
            ) from None
        finally:
            asked.cancel()


class _Link:
    """One connection to the service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self.notices: asyncio.Queue[wire.Notice | None] = asyncio.Queue()
        """None: the connection ended."""
        self.lost = False
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def connect(cls, socket: Path) -> "_Link":
        """Raises Unavailable."""
        try:
            return cls(*await asyncio.open_unix_connection(str(socket), limit=wire.MAX_ANSWER_BYTES))
        except OSError as error:
            raise _unavailable(socket, error.strerror or str(error)) from None

    async def ask(self, call: wire.Call) -> msgspec.Raw:
        """Raises RingfenceError (the service's answer), ConnectionError (there will be none)."""
        if self.lost:
            raise ConnectionError
        id = next(self._ids)
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._waiting[id] = future
        try:
            self._writer.write(wire.encode(wire.Request(id, call)))
            await self._writer.drain()
            return await future
        finally:
            self._waiting.pop(id, None)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._heard(wire.decode_answer(line))
        except (OSError, ValueError, msgspec.MsgspecError):
            pass
        finally:
            self.lost = True
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError())
            self.notices.put_nowait(None)
            self._writer.close()

    def _heard(self, answer: wire.Answered | wire.Notice) -> None:
        if isinstance(answer, wire.Notice):
            self.notices.put_nowait(answer)
            return
        future = self._waiting.get(answer.id)
        if future is None or future.done():
            return
        if answer.error is not None:
            future.set_exception(from_dict(answer.error))
        else:
            future.set_result(answer.result)

    async def close(self) -> None:
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading


def _named(pages: Sequence[Path]) -> tuple[str, ...]:
    return tuple(str(page) for page in pages)


def _open_volume(path: wire.Path) -> OpenVolume:
    return OpenVolume(
        path.vg, path.lv, path.uuid, path.path, path.uri, path.connections, path.direct, path.failed,
        path.stopped, path.readonly, path.extents, path.moving, path.plane, path.fast, path.hold,
    )  # fmt: skip


def _unavailable(socket: Path, why: str) -> Unavailable:
    return Unavailable(
        f"no block service answers on {socket}: {why}",
        next="start it: ringfence block (systemctl start ringfence-block)",
        retry=True,
    )
