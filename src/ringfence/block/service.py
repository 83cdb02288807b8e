"""`ringfence block`: one service a host, older than any daemon and outliving it.

It starts a worker per open LV, reaps it, and keeps incidents until somebody has recorded them.  Of what is
opened together the workers start with their first clients (`porch`).  A client that goes away closes
nothing.  What it promises to its clients:

- `Close` and `DropAll` are answered when the workers are reaped: from then on nothing of ours
  writes through those paths.
- An incident is told at least once to whoever watches, across restarts of both sides.
- Of two services under one directory, the second refuses.  The lock that decides this is kept open
  by every worker, so that a service which comes back after a crash starts only when no worker of
  the old one is left (they end with it)."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ringfence.block.disks import Disk, check_same, disks_of
from ringfence.block.dm.control import Control
from ringfence.block.dm.counters import BLOCK
from ringfence.block.dm.handle import MappedHandle
from ringfence.block.dm.mapper import Mapper
from ringfence.block.dm.plane import DmPlane
from ringfence.block.extents import Extents, outline
from ringfence.block.handle import Handle
from ringfence.block.incident_file import IncidentFile, IncidentReader, compact
from ringfence.block.porch import Porch, Waiting, listed, uri_of
from ringfence.block.self_fence import OpenPath, SelfFence
from ringfence.block.turns import Turn, Turns
from ringfence.core.cluster import Timing
from ringfence.core.errors import BadInput, DeviceFailed, NotFound, Refused, RingfenceError, Unavailable
from ringfence.core.ids import Token
from ringfence.host.notify import notify
from ringfence.host.watchdog import Watchdog
from ringfence.wire import block as wire
from ringfence.wire.entries import Incident

MAX_SOCKET_PATH_BYTES = 107
LOCK_WAIT_S = 5.0
"""How long the workers of a crashed service may take to end before we say so."""
LAST_WORD_S = 0.1
"""How long dropped volumes go on refusing what their clients ask."""
IN_FLIGHT = 16
STARTS = 8
"""How many of many paths are opened or closed at one time."""
LISTED = 512
"""How many paths are listed in one step of the loop."""
STOP_S = 10.0
"""How long volumes may take to flush when the service is stopped."""


class Places(msgspec.Struct, frozen=True):
    """Where the service keeps what."""

    socket: Path
    dev: Path
    run: Path
    incidents: Path
    group: int = -1
    """Group of the LVs' sockets and devices; -1: the service's own."""
    boot: str = ""
    """This boot's id; empty: stock LVM2's device-mapper tables are not looked after."""

    @classmethod
    def under(cls, root: Path, group: int = -1, boot: str = "") -> "Places":
        """The usual places: /run/ringfence and /var/lib/ringfence, below `root`."""
        run = root / "run/ringfence"
        return cls(run / "block", run / "dev", run, root / "var/lib/ringfence/incidents", group, boot)


class Service:
    """Raises, on construction: Refused (another service), Unavailable, DeviceFailed.

    Args:
        watchdog: of this host, fed while the service runs and its volumes are in order.
        in_flight: how many requests of a volume may be on their way to its disks at one time.
        mapper: makes device-mapper; raises Unavailable where there is none.
        hold_ms: how long stock LVM2's tables are held before they fail.
        block: sysfs's list of block devices."""

    def __init__(
        self,
        places: Places,
        watchdog: Watchdog | None = None,
        in_flight: int = IN_FLIGHT,
        mapper: Callable[[], Mapper] = Control,
        hold_ms: int = Timing().hold_ms,
        block: Path = BLOCK,
    ) -> None:
        self._places = places
        self._in_flight = in_flight
        self._self_fence = SelfFence(watchdog, self._open_paths, _say) if watchdog is not None else None
        self._hold_ms = hold_ms
        self._stopped = asyncio.Event()
        self._handles: dict[str, Handle | MappedHandle | Waiting] = {}
        self._turns = Turns()
        """By name of the LV: opens, closes and changes of it wait for one another."""
        self._reloading: dict[str, None] = {}
        """Names of LVs that are being reloaded."""
        self._drops = 0
        self._connections = 0
        self._floor = 0
        """Connections below this number belong to a daemon that was succeeded."""
        self._watchers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()  # held so that none is collected; never iterated
        self._clients: list[asyncio.StreamWriter] = []
        self._acknowledged: set[str] = set()
        """By id, since the start: the file tells of them again when it is read."""
        for directory in (places.run, places.dev, places.socket.parent, places.incidents.parent):
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                words = f"cannot make {directory}: {error.strerror}"
                raise Unavailable(words, next="check its parent") from None
        _check_length(places.socket)
        self._lock_fd = _take_lock(places.run / "block.lock")
        # From here on no worker lives but our own.
        self._porch = Porch(places.group, self._lock_fd, self._knocked, self._unattended)
        _remove_stale(places.dev)
        with contextlib.suppress(FileNotFoundError):
            places.socket.unlink()
        try:
            self._open_incidents = compact(places.incidents)
            self._reader = IncidentReader(places.incidents)
            self._reader.new()
            self._file = IncidentFile(places.incidents)
            self._dm = DmPlane(
                places.run, places.dev, places.boot, places.group, self._file, self._told, _say, mapper, block
            )
        except OSError as error:
            words = f"cannot open {places.incidents}: {error.strerror}"
            raise DeviceFailed(words, next="make room for it") from None

    # -- life ---------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then flush and close every volume."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        for mapped in await self._dm.start(self._hold_ms):
            self._handles[mapped.name] = mapped
        old = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(
                self._serve, str(self._places.socket), limit=wire.MAX_LINE_BYTES
            )
        except OSError as error:
            raise Unavailable(f"cannot listen on {self._places.socket}: {error.strerror}") from None
        finally:
            os.umask(old)
        if self._self_fence is not None:
            self._spawn(self._self_fence.run())
        notify("READY=1")
        await self._stopped.wait()
        notify("STOPPING=1")
        server.close()
        await self._stop()
        self._dm.close()
        if self._self_fence is not None:
            self._self_fence.end()
        for writer in list(self._clients):
            writer.close()
        with contextlib.suppress(FileNotFoundError):
            self._places.socket.unlink()

    def stop(self) -> None:
        """End in order, as on SIGTERM."""
        self._stopped.set()

    async def _stop(self) -> None:
        self._drops += 1  # opens that still wait are refused
        self._porch.end()
        closing = [asyncio.ensure_future(self._close(name, True)) for name in list(self._handles)]
        if closing:
            done, _ = await asyncio.wait(closing, timeout=STOP_S)
            for one in done:
                if (error := one.exception()) is not None:
                    _say(str(error))
        for handle in list(self._handles.values()):
            _say(f"{handle.name} did not close in {STOP_S:.0f} s: its worker is ended without flush")
        await self._drop_all()

    def _open_paths(self) -> list[OpenPath]:
        return [
            OpenPath(handle.name, handle.open_call.pages, handle.open_call.hold_ms)
            for handle in self._handles.values()
            if not handle.gone
        ]

    # -- clients ------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.append(writer)
        self._connections += 1
        number = self._connections
        try:
            while line := await reader.readline():
                try:
                    request = wire.decode_request(line)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    refusal = BadInput(f"not a request of the block service's language: {error}")
                    writer.write(wire.encode(wire.Reply(0, error=refusal.as_dict())))
                    return  # what follows on this connection cannot be trusted
                self._spawn(self._answer(request, writer, number, self._drops))
        except (OSError, ValueError):
            pass  # gone, or a line over the limit
        finally:
            self._clients.remove(writer)
            if writer in self._watchers:
                self._watchers.remove(writer)
            with contextlib.suppress(OSError):
                writer.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, request: wire.Request, writer: asyncio.StreamWriter, number: int, drops: int
    ) -> None:
        try:
            result = await self._do(request.call, writer, number, drops)
            reply = wire.Reply(request.id, result)
        except RingfenceError as error:
            reply = wire.Reply(request.id, error=error.as_dict())
        except Exception as error:
            _say(f"{type(request.call).__name__} failed: {error!r}")
            failure = Unavailable(f"the block service failed: {error!r}", next="look at its log")
            reply = wire.Reply(request.id, error=failure.as_dict())
        with contextlib.suppress(OSError, RuntimeError):
            writer.write(wire.encode(reply))
            if isinstance(request.call, wire.Watch):
                for id, incident in self._open_incidents.items():
                    writer.write(wire.encode(wire.Notice(id, incident)))
            await writer.drain()

    async def _do(self, call: wire.Call, writer: asyncio.StreamWriter, number: int, drops: int) -> Any:
        """Args:
        number: of the connection that asks.
        drops: how often all was dropped before this request was read."""
        self._check_current(number)
        if isinstance(call, wire.Open):
            return await self._open(call, number, drops)
        if isinstance(call, wire.Close):
            return await self._close_call(call, number, drops)
        if isinstance(call, wire.Together):
            return await self._together(call, number, drops)
        if isinstance(call, wire.Reload):
            return await self._reload(call, number, drops)
        if isinstance(call, (wire.Mirror, wire.Seal, wire.Unmirror)):
            return await self._move(call, number, drops)
        if isinstance(call, wire.DropAll):
            return await self._drop_all()
        if isinstance(call, wire.TakeOver):
            self._floor = number
            async with self._turns.of(*self._reloading):
                pass  # what is listed stays so: whether it writes, and under which lock
        if isinstance(call, wire.TakeOver | wire.List):
            return await self._list()
        if isinstance(call, wire.Watch):
            self._watchers.append(writer)
            return None
        return self._acknowledge(call.ids)

    async def _list(self) -> list[wire.Path]:
        """What is open now, each as it is a moment later: of thousands, after others had their turn."""
        found = []
        for number, (_, handle) in enumerate(sorted(self._handles.items()), 1):
            found.append(await handle.look())
            if number % LISTED == 0:
                await asyncio.sleep(0)
        return found

    def _check_current(self, number: int) -> None:
        if number < self._floor:
            raise Refused("a later daemon has taken over", next="let this one end: one daemon a host")

    def _check_still(self, name: str, number: int, drops: int) -> None:
        """In its turn, which may have come late: nothing is done for a daemon, or a life of it, that is over.

        Raises Refused."""
        self._check_current(number)
        if drops != self._drops:
            raise Refused(f"{name} was left alone: all paths were dropped meanwhile", retry=True)

    # -- paths --------------------------------------------------------------------

    async def _open(self, call: wire.Open, number: int, drops: int) -> wire.Path:
        async with self._turns.of(_name_of(call)):
            return await self._open_now(call, number, drops)

    async def _open_now(self, call: wire.Open, number: int, drops: int) -> wire.Path:
        """In its turn."""
        name = _name(call.vg, call.lv)
        socket_path = self._places.dev / call.vg / call.lv
        _check_length(socket_path)
        if not call.pages:
            raise BadInput(f"{name} cannot be opened without an authority page")
        self._check_still(name, number, drops)
        there = self._handles.get(name)
        if there is not None:
            if there.open_call == call and not there.path.failed:
                return there.path
            state = f"has failed ({there.path.failed})" if there.path.failed else "is open in another way"
            raise Refused(f"{name} {state}", next=f"close {name} first")
        handle = self._handle(call, socket_path)
        self._handles[name] = handle
        try:
            self._directory_of(call.vg)
            await handle.start()
        except OSError as error:
            self._handles.pop(name, None)
            raise DeviceFailed(f"cannot make {socket_path.parent}: {error.strerror}") from None
        except RingfenceError:
            self._handles.pop(name, None)
            raise
        return handle.path

    async def _together(self, call: wire.Together, number: int, drops: int) -> list[wire.Outcome]:
        """Opens and closes of what is waiting, or shall be, go to the porters in one message.

        Each LV's turn counts from now on, whatever becomes of the others: who gives up waiting for what shall
        be opened, and has it closed, must find it closed after that."""
        running = asyncio.Semaphore(STARTS)

        async def one(single: wire.Open | wire.Close, turn: Turn | None = None) -> wire.Outcome:
            try:
                async with turn or contextlib.nullcontext(), running:
                    if isinstance(single, wire.Open):
                        path = await self._open_now(single, number, drops)
                        return wire.Outcome(path.path, path.uri)
                    await self._close_now(single, number, drops)
                if turn is not None:
                    await self._close_renamed(single, number, drops)
                return wire.Outcome()
            except RingfenceError as error:
                return wire.Outcome(error=error.as_dict())

        opens, closes = self._in_porch(call)
        together = (*opens, *closes)
        turn_of_all = self._turns.of(*(_name_of(call.calls[at]) for at in together))
        others = [at for at in range(len(call.calls)) if at not in opens and at not in closes]
        turns = [self._turns.of(_name_of(call.calls[at])) for at in others]
        rest = asyncio.gather(*(one(call.calls[at], turn) for at, turn in zip(others, turns, strict=True)))
        try:
            async with turn_of_all:
                outcomes = await self._open_in_porch(opens, number, drops)
                outcomes |= await self._close_in_porch(closes)
                left = [at for at in together if at not in outcomes]
                alone = await asyncio.gather(*(one(call.calls[at]) for at in left))
        finally:
            told = await rest
        outcomes |= dict(zip((*left, *others), (*alone, *told), strict=True))
        return [outcomes[at] for at in range(len(call.calls))]

    def _in_porch(self, call: wire.Together) -> tuple[dict[int, wire.Open], dict[int, wire.Close]]:
        """By place: what may wait in the porch, and what does, unless something is under way; no LV twice."""
        opens: dict[int, wire.Open] = {}
        closes: dict[int, wire.Close] = {}
        names: dict[str, None] = {}
        for place, one in enumerate(call.calls):
            name = _name_of(one)
            there = self._handles.get(name)
            if name in names or self._turns.taken(name):
                continue
            names[name] = None
            if isinstance(one, wire.Open):
                if there is None and one.pages and not self._dm.serves(one):
                    opens[place] = one
            elif isinstance(there, Waiting) and (not one.uuid or one.uuid == there.open_call.uuid):
                closes[place] = one
        return opens, closes

    async def _open_in_porch(
        self, opens: dict[int, wire.Open], number: int, drops: int
    ) -> dict[int, wire.Outcome]:
        """What cannot be is left out: it is opened by itself then, which says why not."""
        looked = await asyncio.to_thread(_look_at, list(opens.values())) if opens else None
        # No sooner: a daemon that took over meanwhile was told of all that is open, and shall go by that.
        self._check_current(number)
        if looked is None or drops != self._drops:
            return {}
        waiting = self._make_wait(opens, *looked)
        for one in waiting.values():
            self._handles[one.name] = one
        paths = [one.socket_path for one in waiting.values()]
        try:
            errors = await self._porch.listen(paths)
        except Unavailable as error:
            errors = [str(error)] * len(paths)
        outcomes = {}
        for (place, one), failed in zip(waiting.items(), errors, strict=True):
            if failed:
                if self._handles.get(one.name) is one:
                    del self._handles[one.name]
                why = Unavailable(f"cannot listen on {one.socket_path}: {failed}")
                outcomes[place] = wire.Outcome(error=why.as_dict())
            else:
                outcomes[place] = wire.Outcome(one.socket_path, uri_of(one.open_call.lv, one.socket_path))
        if drops != self._drops:
            await self._porch.close(paths)
            raise Refused("nothing was opened: all paths were dropped meanwhile", retry=True)
        return outcomes

    def _make_wait(
        self, opens: dict[int, wire.Open], direct: bool, disks: Mapping[str, Disk]
    ) -> dict[int, Waiting]:
        """Those of them whose sockets can be, by place."""
        waiting: dict[int, Waiting] = {}
        directories: dict[str, str] = {}
        for place, call in opens.items():
            try:
                _name(call.vg, call.lv)
                if call.vg not in directories:
                    directories[call.vg] = str(self._directory_of(call.vg))
                socket_path = f"{directories[call.vg]}/{call.lv}"
                _check_length(socket_path)
            except (OSError, BadInput):
                continue
            waiting[place] = Waiting(call, socket_path, direct, disks, self._porch)
        return waiting

    def _directory_of(self, vg: str) -> Path:
        """Of its LVs' sockets.  Raises OSError."""
        directory = self._places.dev / vg
        directory.mkdir(mode=0o755, exist_ok=True)
        return directory

    async def _close_in_porch(self, closes: dict[int, wire.Close]) -> dict[int, wire.Outcome]:
        """What has begun to be used meanwhile is left out."""
        names = {place: _name_of(call) for place, call in closes.items()}
        waiting = {
            place: one for place, name in names.items() if isinstance(one := self._handles.get(name), Waiting)
        }
        for knocked_at in await self._porch.close([one.socket_path for one in waiting.values()]):
            _unlink(knocked_at)
        for one in waiting.values():
            if self._handles.get(one.name) is one:
                del self._handles[one.name]
        return dict.fromkeys(waiting, wire.Outcome())

    def _knocked(self, path: str, listener: socket.socket) -> None:
        """Somebody has come to an LV in the porch."""
        waiting = self._handles.get(os.path.relpath(path, self._places.dev))
        if isinstance(waiting, Waiting) and waiting.socket_path == path:
            self._spawn(self._wake(waiting, listener))
        else:
            listener.close()

    async def _wake(self, waiting: Waiting, listener: socket.socket | None = None) -> None:
        """Start its worker in its turn.  One that does not start has failed, and waits for its Close."""
        with listener or contextlib.nullcontext():
            async with self._turns.of(waiting.name):
                if self._handles.get(waiting.name) is waiting:
                    await self._start_worker(waiting, listener)

    async def _start_worker(self, waiting: Waiting, listener: socket.socket | None) -> None:
        """In its turn."""
        fd = listener.fileno() if listener is not None else -1
        order = self._order_for(waiting.open_call, Path(waiting.socket_path))
        order = msgspec.structs.replace(order, listener_fd=fd)
        handle = Handle(order, waiting.path, self._told, self._gone)
        self._handles[waiting.name] = handle
        try:
            check_same(waiting.open_call.extents, waiting.disks)
            await handle.start()
        except RingfenceError as error:
            handle.path = msgspec.structs.replace(handle.path, failed=str(error))
            _remove(Path(handle.path.path))

    def _unattended(self, paths: list[str], why: str) -> None:
        """Nobody listens there any more."""
        gone = dict.fromkeys(paths)
        for one in self._handles.values():
            if isinstance(one, Waiting) and one.socket_path in gone:
                one.failed = why
                _unlink(one.socket_path)
        _say(f"{len(gone)} LVs that nobody used: {why}")

    async def _reload(self, call: wire.Reload, number: int, drops: int) -> wire.Path:
        """A rename holds both names, so that neither is opened or closed half-way."""
        old, new = _name(call.vg, call.lv), _name(call.vg, call.name)
        socket_path = self._places.dev / call.vg / call.name
        _check_length(socket_path)
        async with self._turns.of(old, new):
            for name in sorted({old, new}):
                await self._begin_to_serve(name)
            self._check_still(old, number, drops)
            handle = self._to_reload(call, old, new)
            opened = _reloaded(handle.open_call, call)
            if opened == handle.open_call:
                return handle.path
            if isinstance(handle, MappedHandle):
                if call.hold is not None:
                    words = f"{handle.name} is open as a device: only what is open on the NBD plane is held"
                    raise Refused(words)
                await handle.reload(opened)
                self._renamed(handle, old, new)
                return handle.path
            order = msgspec.structs.replace(handle.order, open=opened, socket=str(socket_path))
            self._reloading[old] = None
            try:
                await handle.swap(order, listed(opened, str(socket_path)))
            except RingfenceError:
                if handle.gone:  # perhaps after it had moved its socket
                    _remove(socket_path)
                raise
            finally:
                del self._reloading[old]
            self._renamed(handle, old, new)
            return handle.path

    def _renamed(self, handle: Handle | MappedHandle, old: str, new: str) -> None:
        if self._handles.get(old) is handle:
            self._handles[new] = self._handles.pop(old)

    async def _move(
        self, call: wire.Mirror | wire.Seal | wire.Unmirror, number: int, drops: int
    ) -> wire.Path:
        name = _name(call.vg, call.lv)
        async with self._turns.of(name):
            await self._begin_to_serve(name)
            self._check_still(name, number, drops)
            token = call.token if isinstance(call, wire.Mirror) else ""
            handle = self._running(name, self._handles.get(name), call.uuid, token)
            if handle.path.hold is not wire.Hold.NONE:  # to copy is to write
                raise Refused(f"{name} is being handed over", next="wait until that is over", retry=True)
            await handle.obey(call)
            return handle.path

    async def _begin_to_serve(self, name: str) -> None:
        """In its turn.  An LV in the porch leaves it, though nobody has come: only a worker can change."""
        waiting = self._handles.get(name)
        if isinstance(waiting, Waiting) and not waiting.failed:
            await self._porch.close([waiting.socket_path])
            if self._handles.get(name) is waiting:  # else all was dropped meanwhile
                await self._start_worker(waiting, None)

    def _to_reload(self, call: wire.Reload, old: str, new: str) -> Handle | MappedHandle:
        """Raises NotFound, Refused."""
        handle = self._handles.get(old)
        renamed = self._handles.get(new)
        if renamed is not None and renamed is not handle:
            if renamed.path.uuid != call.uuid:
                raise Refused(f"{new} is open: it is another LV", next=f"close {new} first")
            handle = renamed  # it was renamed before: the first answer was lost
        return self._running(old, handle, call.uuid, call.token if call.hold is None else "")

    @staticmethod
    def _running(
        name: str, handle: Handle | MappedHandle | Waiting | None, uuid: str, token: str
    ) -> Handle | MappedHandle:
        """Args: token: of the lock that it must be open under; empty: any.  A later one is of the same lock,
        converted since: no lock is let go of while something is open under it.

        Raises NotFound, Refused."""
        if handle is None or handle.path.uuid != uuid:
            raise NotFound(f"{name} is not open here", next="activate it")
        if handle.path.failed or isinstance(handle, Waiting) or handle.gone:
            words = f"{handle.name} has failed ({handle.path.failed})"
            raise Refused(words, next=f"close {handle.name} first")
        if token and _is_later(handle.path.token, token):
            words = f"{handle.name} is open under another lock, {handle.path.token}"
            raise Refused(words, next="look again: it was closed and opened meanwhile", retry=True)
        return handle

    def _handle(self, call: wire.Open, socket_path: Path) -> Handle | MappedHandle:
        if self._dm.serves(call):
            return self._dm.handle(call)
        order = self._order_for(call, socket_path)
        return Handle(order, listed(call, str(socket_path)), self._told, self._gone)

    def _order_for(self, call: wire.Open, socket_path: Path) -> wire.Order:
        places = self._places
        return wire.Order(
            call, str(socket_path), str(places.incidents), self._lock_fd, places.group, self._in_flight
        )

    async def _close_call(self, call: wire.Close, number: int, drops: int) -> None:
        async with self._turns.of(_name_of(call)):
            await self._close_now(call, number, drops)
        await self._close_renamed(call, number, drops)

    async def _close_now(self, call: wire.Close, number: int, drops: int) -> None:
        """In its turn."""
        name = _name(call.vg, call.lv)
        self._check_still(name, number, drops)
        await self._end(name, call.flush, call.uuid)

    async def _close_renamed(self, call: wire.Close, number: int, drops: int) -> None:
        """A reload that was under way may have renamed the path: look again when it is closed."""
        while name := next((one for one, path in self._handles.items() if _is_of(path, call)), ""):
            async with self._turns.of(name):
                self._check_still(name, number, drops)
                await self._end(name, call.flush, call.uuid)

    async def _close(self, name: str, flush: bool) -> None:
        async with self._turns.of(name):
            await self._end(name, flush)

    async def _end(self, name: str, flush: bool, uuid: str = "") -> None:
        """In its turn."""
        handle = self._handles.get(name)
        if handle is None or (uuid and handle.open_call.uuid != uuid):
            return
        try:
            await handle.end(flush)
        finally:
            if handle.gone and self._handles.get(name) is handle:
                del self._handles[name]
        _remove(Path(handle.path.path))

    async def _drop_all(self) -> None:
        self._drops += 1
        self._porch.end()
        for name, one in list(self._handles.items()):
            if isinstance(one, Waiting):  # at once: nobody shall start its worker from here on
                del self._handles[name]
                _unlink(one.socket_path)
        handles = list(self._handles.items())
        if any(handle.path.connections for _, handle in handles):
            # Authority is lost by now.  What clients still ask is refused, and recorded, for a moment:
            # better than silence, which a guest would take for a slow disk.
            await asyncio.sleep(LAST_WORD_S)
        for _, handle in handles:
            handle.kill()
        for _, handle in handles:
            await handle.reaped()
            for name in [name for name, one in self._handles.items() if one is handle]:  # perhaps renamed
                del self._handles[name]
            _remove(Path(handle.path.path))

    def _gone(self, handle: Handle) -> None:
        """A worker was reaped.  What it stored but could not tell is read from the file."""
        if handle.path.failed:
            _say(f"{handle.name}: {handle.path.failed}")
            _remove(Path(handle.path.path))
        try:
            for id, incident in self._reader.new():
                if incident is not None:
                    self._told(wire.IncidentStored(id, incident))
        except OSError as error:
            _say(f"cannot read {self._places.incidents}: {error.strerror}")

    # -- incidents ------------------------------------------------------------------

    def _told(self, stored: wire.IncidentStored) -> None:
        if stored.id in self._open_incidents or stored.id in self._acknowledged:
            return
        self._open_incidents[stored.id] = stored.incident
        _say(f"incident: {stored.incident.what}{'' if stored.durable else ' (could not be stored)'}")
        line = wire.encode(wire.Notice(stored.id, stored.incident))
        for writer in self._watchers:
            with contextlib.suppress(OSError, RuntimeError):
                writer.write(line)

    def _acknowledge(self, ids: tuple[str, ...]) -> None:
        for id in ids:
            if self._open_incidents.pop(id, None) is not None:
                self._acknowledged.add(id)
                with contextlib.suppress(OSError):  # it will be told once more
                    self._file.acknowledge(id)

    @property
    def open_incidents(self) -> dict[str, Incident]:
        return dict(self._open_incidents)


def _reloaded(opened: wire.Open, call: wire.Reload) -> wire.Open:
    """As if it had been opened so."""
    changes: dict[str, Any] = {"lv": call.name, "extents": call.extents, "readonly": call.readonly}
    if call.hold is not None:
        changes["hold"] = call.hold
    if call.token:
        changes["token"] = call.token
    return msgspec.structs.replace(opened, **changes)


def _is_later(one: str, other: str) -> bool:
    """Of two tokens as text; of what is none nothing is known, and it is another's."""
    try:
        return Token.parse(one) > Token.parse(other)
    except ValueError:
        return one != other


def _name(vg: str, lv: str) -> str:
    """VG/LV.  Raises BadInput for what could not be one directory entry each."""
    for word in (vg, lv):
        if not word or word in (".", "..") or "/" in word or "\0" in word:
            raise BadInput(f"{word!r} cannot be the name of a VG or LV")
    return f"{vg}/{lv}"


def _name_of(call: wire.Open | wire.Close) -> str:
    return f"{call.vg}/{call.lv}"


def _look_at(calls: list[wire.Open]) -> tuple[bool, dict[str, Disk]] | None:
    """Whether what these LVs are made of has direct I/O, and which disks that is; None: some cannot be
    opened, or are too short."""
    direct = True
    if not all(call.extents for call in calls):
        return None
    for readonly in (False, True):
        extents = outline(one for call in calls if call.readonly is readonly for one in call.extents)
        try:
            opened = Extents(extents, readonly) if extents else None
        except RingfenceError:
            return None
        if opened is not None:
            direct = direct and opened.direct
            opened.close()
    try:
        return direct, disks_of(extent for call in calls for extent in call.extents)
    except DeviceFailed:
        return None


def _is_of(handle: Handle | MappedHandle | Waiting, call: wire.Close) -> bool:
    return bool(call.uuid) and (handle.open_call.vg, handle.open_call.uuid) == (call.vg, call.uuid)


def _check_length(path: Path | str) -> None:
    text = str(path)
    if (len(text) if text.isascii() else len(os.fsencode(text))) > MAX_SOCKET_PATH_BYTES:
        raise BadInput(
            f"{path} is longer than a socket's path may be ({MAX_SOCKET_PATH_BYTES} bytes)",
            next="use a --root with a shorter path",
        )


def _take_lock(path: Path) -> int:
    """Returns the descriptor that holds it; workers inherit it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Unavailable(f"cannot open {path}: {error.strerror}", next="check the directory") from None
    give_up = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
            if _is_alive(pid):
                os.close(fd)
                raise Refused(
                    f"a block service is already running here, pid {pid}",
                    next="stop that one first, or use another --root",
                ) from None
            if time.monotonic() > give_up:
                os.close(fd)
                raise Refused(
                    f"workers of an earlier block service (pid {pid or 'unknown'}) are still alive",
                    next=f"look who holds {path} (fuser -v) and whether a disk hangs",
                    retry=True,
                ) from None
            time.sleep(0.02)
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _is_alive(pid: str) -> bool:
    """Whether a service of that pid runs (a number that was used again passes for one: say so, wait)."""
    try:
        command = Path(f"/proc/{int(pid)}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False
    return b"block" in command


def _remove_stale(dev: Path) -> None:
    """Sockets on which nobody listens any more, and links to devices (those that stand are made again).
    Anything else in there is not ours."""
    for path in sorted(dev.glob("*/*")):
        _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode) or path.is_symlink():
            path.unlink()


def _unlink(path: str) -> None:
    """What is known to be a socket of ours: there may be thousands."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def _say(words: str) -> None:
    print(f"block: {words}", file=sys.stderr, flush=True)
