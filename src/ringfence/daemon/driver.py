"""The event loop around the engine: feeds inputs, carries out effects in order, decides nothing.

Everything that happens becomes an input in one queue; each input is one `step`; its effects are
carried out in their order before the next input is looked at.  `Keep` is synchronous for that
reason: nothing after it, in this step or a later one, happens before the disk has it.

When the driver cannot trust its state any more (a step raised, the disk refuses to keep what must
be kept) it takes away its own authority first (all pages LOST) and ends second.  Nothing is ever
silently lost: what a driver task raises becomes the error answer of its order, or a log line and
the end of the daemon."""

import asyncio
import contextlib
import functools
import time
import traceback
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import EXIT_FAILED, EXIT_OK, RingfenceError, Unavailable
from ringfence.core.evidence import Power
from ringfence.daemon.log import Log
from ringfence.daemon.ports import (
    Agents,
    Block,
    Clock,
    Engine,
    History,
    Kept,
    Look,
    Lvm,
    Pages,
    Slots,
    StockLvm,
    Storage,
    Supplies,
    Watch,
)
from ringfence.daemon.queries import Queries
from ringfence.daemon.replies import ReplyBook, Step
from ringfence.engine import effects, inputs, orders
from ringfence.engine.effects import Effect
from ringfence.engine.inputs import Input
from ringfence.ring.port import Ring
from ringfence.servers.client_socket import ClientSocket
from ringfence.servers.lvmlockd_socket import LvmSocket
from ringfence.wire import client as calls
from ringfence.wire.checkup import HostFacts
from ringfence.wire.client import Reply, Request
from ringfence.wire.lvmlockd import LvmAsked
from ringfence.wire.proving import Reading

SELF = 0
"""The client number under which the driver itself asks; real clients count from 1."""
SLICE_NS = 10_000_000
"""How long the queue may hold the loop before sockets get their turn."""
KEEP_SLOW_NS = 20_000_000
LAG_LOGGED_S = 0.25
WALL_EVERY_S = 1.0
LEAVE_S = 30.0
"""How long a clean leave may take before the daemon ends without one; the unit's TimeoutStopSec is longer."""
LEAVE_RETRY_S = 0.5
NO_LEAVE = "this host ends without a clean leave, and the others will fence it"
DROP_RETRY_S = 0.5


class Ports(msgspec.Struct, frozen=True):
    """The world, as `assemble` puts it together."""

    clock: Clock
    ring: Ring
    agents: Agents
    storage: Storage
    block: Block
    pages: Pages
    kept: Kept
    history: History
    log: Log
    watch: Watch | None = None
    look: Look | None = None
    supplies: Supplies | None = None
    slots: Slots | None = None
    stock_lvm: StockLvm | None = None
    lvm: Lvm | None = None
    """None: no stock LVM2 is served here."""


class Driver:
    """One daemon's run.

    Args:
        engine: not yet started.
        config: the cluster's configuration at the start (cadence of ticks, ConfigShow).
        node: this node's name, for messages.
    """

    def __init__(self, engine: Engine, ports: Ports, config: ClusterConfig, node: str) -> None:
        self._engine = engine
        self._ports = ports
        self._config = config
        self._node = node
        self._queue: deque[Input] = deque()
        self._pumping = False
        self._book = ReplyBook()
        self._queries = Queries(ports.history, self._answer)
        self._socket: ClientSocket | None = None
        self._lvm_socket: LvmSocket | None = None
        self._lvm_trouble = ""
        """Why stock LVM2 is not served, though it should be."""
        self._tasks: set[asyncio.Task[None]] = set()  # held so that none is collected; never iterated
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="storage")
        self._zeroing_pool = ThreadPoolExecutor(1, thread_name_prefix="zeroing")
        """Beside the other: to zero a slice takes long, and no command waits for it."""
        self._writes: set[Future[Any]] = set()
        """Storage orders that write, of whatever life, until their threads are done with them."""
        self._dropping = 0
        self._drop_running = False
        self._tick_timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._next_wall = 0.0
        self._leaving = ""
        self._in_the_way = ""
        self._ended: asyncio.Future[int]
        self._over = False
        self._history_failed = False
        self._unrecorded: deque[tuple[effects.Record, int, int]] = deque()
        """What is to be recorded, with the wall clock and the time of its step."""
        self.metrics = Metrics()

    # -- life ---------------------------------------------------------------------

    async def run(self, started: inputs.Started, socket: ClientSocket, lvm: LvmSocket | None = None) -> int:
        """Drive until the end.  Returns the exit code.  Whatever happens, pages are LOST after it.

        lvm: where stock LVM2 is served; a daemon that cannot have it goes on without."""
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._socket = socket
        try:
            # Before the socket, which may bring a request at once: Started is the first input of all.
            self._queue.extend((started, inputs.Wall(self._ports.clock.wall_ms())))
            await socket.start()
            self.feed()
            await self._serve_lvm2(lvm)
            self._due = loop.time()
            self._tick()
            await self._ports.block.start(self.feed)
            self._ports.ring.on_input = self._at_once
            await self._ports.ring.start()
            if self._ports.watch is not None:
                self._ports.watch.ready()
            return await self._ended
        finally:
            self._over = True
            self._ports.pages.lose_all()
            await self._shut_down()

    async def _shut_down(self) -> None:
        self._write_records()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        clean = self._ended.done() and not self._ended.cancelled() and self._ended.result() == EXIT_OK
        for task in sorted(self._tasks, key=lambda task: task.get_name()):
            task.cancel()  # agents are killed with their run
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=2)
        assert self._socket is not None
        for what, closing in (
            ("ring", self._ports.ring.leave() if clean else self._ports.ring.stop()),
            ("socket", self._socket.close()),
            ("lvmlockd socket", self._lvm_socket.close() if self._lvm_socket is not None else _nothing()),
            ("block", self._ports.block.close()),
        ):
            try:
                await asyncio.wait_for(closing, 3)
            except Exception as error:
                self._note("ending", f"could not close the {what}: {error!r}")
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._zeroing_pool.shutdown(wait=False, cancel_futures=True)
        if self._ports.lvm is not None:
            self._ports.lvm.close()

    def leave(self, why: str) -> None:
        """Leave the cluster cleanly if that can be had in time, and end.  Asked twice: end now.

        It is an order: what clients merely cache is asked back first, and whoever still uses a lock after
        that loses it, and is told.  What is in the way otherwise (a command that runs, a lockspace that is
        frozen) is waited for."""
        if self._leaving:
            self._end(EXIT_FAILED, f"{why} again: {NO_LEAVE}", "no-leave")
            return
        self._leave_asked(calls.Leave(), why)
        self._note("leaving", f"{why}: leaving the cluster")
        asyncio.get_running_loop().call_later(LEAVE_S, self._left_late)

    def _leave_asked(self, call: calls.Leave, why: str) -> None:
        self._leaving = f"leave-{uuid.uuid4()}"
        self.asked(SELF, Request(self._leaving, call), why)

    def _leave_refused(self, trouble: str) -> None:
        if trouble != self._in_the_way:
            self._in_the_way = trouble
            self._note("leaving", f"not yet: {trouble}")
        by_force = calls.Leave(force=True)
        asyncio.get_running_loop().call_later(LEAVE_RETRY_S, self._leave_asked, by_force, "leaving")

    def _left_late(self) -> None:
        trouble = self._in_the_way or "nobody said what is in the way"
        self._end(EXIT_FAILED, f"no clean leave within {LEAVE_S:g} s ({trouble}): {NO_LEAVE}", "no-leave")

    def fail(self, why: str) -> None:
        """The state cannot be trusted any more: give up authority, then end."""
        self._ports.pages.lose_all()
        self._end(EXIT_FAILED, why)

    def _end(self, code: int, why: str, kind: str = "failed") -> None:
        if not self._over:
            self._over = True
            self._note("ended" if code == EXIT_OK else kind, why)
            if self._ports.watch is not None:
                self._ports.watch.ending(why)
        if not self._ended.done():
            self._ended.set_result(code)

    # -- inputs -------------------------------------------------------------------

    def feed(self, *facts: Input) -> None:
        """Queue inputs, in order.  Called in the event loop, from anywhere, an effect's outcome included."""
        self._queue.extend(facts)
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _at_once(self, fact: Input) -> None:
        """Now, after what waits: so whoever sends feels how fast this node really is and can hold back.

        Steps do not nest: no port calls back from within what an effect makes it do (`Ring.on_input`)."""
        self._queue.append(fact)
        while self._queue and not self._over:
            self._step(self._queue.popleft())

    def _pump(self) -> None:
        began_ns = time.monotonic_ns()
        while self._queue and not self._over:
            self._step(self._queue.popleft())
            if time.monotonic_ns() - began_ns > SLICE_NS:
                break
        if self._queue and not self._over:
            asyncio.get_running_loop().call_soon(self._pump)
        else:
            self._pumping = False

    def _step(self, fact: Input) -> None:
        now_ns = self._ports.clock.boottime_ns()
        try:
            todo = self._engine.step(now_ns, fact)
        except Exception as error:
            self.fail(f"the engine failed at {type(fact).__name__}: {error!r}; its state may be wrong")
            self._trace(error)
            return
        for effect in todo:
            if self._over:
                return  # nothing may follow a Keep that failed
            try:
                self._carry_out(effect, now_ns)
            except Exception as error:
                self.fail(f"cannot carry out {type(effect).__name__}: {error}")
                if not isinstance(error, RingfenceError | OSError):
                    self._trace(error)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        lag_s = loop.time() - self._due
        self.metrics.lagged(lag_s)
        if lag_s > LAG_LOGGED_S:
            self._note("lag", f"the event loop stood still for {lag_s * 1000:.0f} ms")
        if loop.time() >= self._next_wall:
            self._next_wall = loop.time() + WALL_EVERY_S
            self.feed(inputs.Wall(self._ports.clock.wall_ms()))
        self.feed(inputs.Tick())
        if self._ports.watch is not None:
            self._ports.watch.alive()
        every_s = self._config.timing.heartbeat_ms / 2000
        self._due += every_s
        if self._due < loop.time():
            self._due = loop.time() + every_s  # missed ticks are not made up for
        self._tick_timer = loop.call_at(self._due, self._tick)

    def asked(self, client: int, request: Request, who: str) -> None:
        """A client's request (the client socket's `on_request`)."""
        if self._over:
            return
        if isinstance(request.call, calls.LOCK_CALLS):
            self._at_once(inputs.Asked(client, request, who))  # never repeated: it ends with its connection
            return
        step, reply = self._book.asked(client, request)
        if reply is not None:
            self._send(client, reply)
        elif step is Step.RUN and not self._queries.answer(client, request, self._config):
            self.feed(inputs.Asked(client, request, who))

    async def _serve_lvm2(self, lvm: LvmSocket | None) -> None:
        if lvm is None:
            return
        try:
            await lvm.start()
        except RingfenceError as error:
            self._lvm_trouble = str(error)
            self._note("lvmlockd", f"stock LVM2 is not served: {error}")
        else:
            self._lvm_socket = lvm

    def lvm_asked(self, client: int, asked: LvmAsked) -> None:
        """A request of stock LVM2 (lvmlockd's socket)."""
        if not self._over:
            self._at_once(inputs.LvmRequest(client, asked))

    def lvm_gone(self, client: int, unread: bool, hung_up: bool) -> None:
        self.feed(inputs.LvmGone(client, unread, hung_up))

    def lvm_said(self, what: str) -> None:
        """What is wrong with a connection of that socket."""
        self._note("lvmlockd", what)

    def gone(self, client: int) -> None:
        self._queries.gone(client)
        self._book.gone(client)
        self.feed(inputs.ClientGone(client))

    # -- effects ------------------------------------------------------------------

    def _carry_out(self, effect: Effect, now_ns: int) -> None:
        if isinstance(effect, effects.Answer):  # by far the most frequent
            client = effect.client
            if client == SELF or self._book.running or self._socket is None:
                self._answer(client, effect.reply)
            else:  # to a lock's request, mostly: of those there is no book
                self._socket.send(client, effect.reply)
            return
        if isinstance(effect, effects.LvmAnswer):
            if self._lvm_socket is not None:
                self._lvm_socket.send(effect.client, effect.answered)
            return
        if isinstance(effect, effects.KeepLvmLocks):
            self._lvm_host.keep(effect.kept, effect.gone)
            return
        match effect:
            case effects.Multicast():
                self._ports.ring.multicast(effect.payload)
            case effects.SetDeadline():
                self._ports.pages.set(effect.incarnation, effect.page, effect.deadline_ns)
            case effects.Keep():
                self._keep(effect)
            case effects.WatchProcess():
                self._lvm_host.watch(effect.pid, effect.started, self.feed)
            case effects.KeepConfig():
                self._config = effect.config
                self._ports.kept.keep_config(effect.config)
            case effects.CallAgain():
                asyncio.get_running_loop().call_soon(self.feed, inputs.CalledAgain())
            case effects.TickAt():
                left_s = max(0, effect.at_ns - self._ports.clock.boottime_ns()) / 1e9
                asyncio.get_running_loop().call_later(left_s, self.feed, inputs.Tick())
            case effects.Trace():
                self._trace(effect.error)
            case effects.Record():
                self._record(effect, now_ns)
            case effects.Note():
                self._note(effect.kind, effect.what)
            case effects.DoOrder():
                if isinstance(effect.body, orders.StorageOrder):
                    self._store(effect, effect.body)
                else:
                    self._spawn(self._order(effect, self._bound(effect.body)), f"order {effect.order}")
            case effects.RunAgent():
                self._spawn(self._agent(effect, now_ns), f"agent {effect.run}")
            case effects.CancelAgent():
                self._ports.agents.cancel(effect.run)
            case effects.DropPaths():
                self._drop_paths(effect.generation)
            case effects.Ended():
                if effect.failed:
                    self.fail(effect.reason)
                else:
                    self._end(EXIT_OK, effect.reason)

    @property
    def _lvm_host(self) -> Lvm:
        assert self._ports.lvm is not None, "a daemon that serves stock LVM2 has a port for it"
        return self._ports.lvm

    def _keep(self, effect: effects.Keep) -> None:
        began_ns = time.monotonic_ns()
        self._ports.kept.keep(effect.disk)
        took_ns = time.monotonic_ns() - began_ns
        self.metrics.kept(took_ns)
        if took_ns > KEEP_SLOW_NS:
            self._note("lag", f"keeping the state on disk took {took_ns // 1_000_000} ms")

    def _record(self, effect: effects.Record, now_ns: int) -> None:
        """After what this turn of the loop has to send and to begin: others wait for that, and a record is
        for later.  An incident is stored at once: the block service forgets its own copy."""
        if not self._unrecorded:
            asyncio.get_running_loop().call_soon(self._write_records)
        self._unrecorded.append((effect, self._ports.clock.wall_ms(), now_ns))
        if effect.kind == "incident":
            self._write_records()

    def _write_records(self) -> None:
        while self._unrecorded:
            try:
                self._write_record(*self._unrecorded.popleft())
            except Exception as error:
                self.fail(f"cannot record: {error!r}")
                self._trace(error)

    def _write_record(self, effect: effects.Record, wall_ms: int, now_ns: int) -> None:
        node = effect.fields.get("node")
        about = self._config.name_of(node) if isinstance(node, int) else ""
        self._ports.log.line(effect.kind, effect.what, wall_ms, effect.fields, about)
        if self._ports.watch is not None:
            self._ports.watch.recorded(effect.kind, effect.what)
        try:
            seq = self._ports.history.append(effect.kind, effect.what, effect.fields, wall_ms, now_ns)
        except RingfenceError as error:
            if not self._history_failed:  # once; the log has the events
                self._history_failed = True
                self._note("history", f"events are not stored any more: {error}")
            return
        self._history_failed = False
        if effect.kind == "incident":
            self._ports.block.recorded(effect.fields)
        self._queries.recorded(seq)

    def _answer(self, client: int, reply: Reply) -> None:
        if client != SELF and not (self._book.running and self._book.expects(client, reply.id)):
            if self._socket is not None:
                self._socket.send(client, reply)
            return
        if client == SELF:
            if reply.error is not None and reply.id == self._leaving:
                self._leave_refused(str(reply.error.get("message", "")))
            return
        if isinstance(self._book.call(client, reply.id), calls.Status) and isinstance(reply.result, dict):
            lvmlockd = {"served": self._lvm_socket is not None, "trouble": self._lvm_trouble}
            own = {"daemon": self.metrics.report(), "lvmlockd": lvmlockd}
            reply = msgspec.structs.replace(reply, result={**reply.result, **own})
        for one in self._book.answered(client, reply):
            self._send(one, reply)

    def _send(self, client: int, reply: Reply) -> None:
        if self._socket is not None:
            self._socket.send(client, reply)

    # -- work that takes time -------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(f"the driver failed in {task.get_name()}: {error!r}")
            self._trace(error)

    def _bound(self, body: orders.DriverOrder) -> Callable[[], Awaitable[Any]]:
        """The order's work, under the authority of the life that gave it."""
        assert not isinstance(body, orders.StorageOrder), "`_store` carries those out"
        if isinstance(body, orders.Compute):
            return functools.partial(asyncio.to_thread, body.work)
        if isinstance(body, orders.StandingTables):
            return functools.partial(self._lvm_host.standing, body.vgs)
        if isinstance(body, orders.CutTables):
            return functools.partial(self._cut, body.vgs)
        if isinstance(body, orders.LookAtHost):
            return self._look
        if isinstance(body, orders.ReadSupplies):
            return functools.partial(self._read_supplies, body)
        if isinstance(body, orders.RefreshLvs):
            return functools.partial(self._refresh, body, self._ports.clock.boottime_ns())
        if isinstance(body, orders.SlotIo):
            slots, slot_io = self._ports.slots, body
            if slots is None:
                return lambda: _fail(Unavailable("this daemon has no way to disk slots"))
            return lambda: slots.do(slot_io)
        try:
            work = self._ports.block.do(body)
        except RingfenceError as error:
            failed = error
            return lambda: _fail(failed)
        return lambda: work

    def _store(self, effect: effects.DoOrder, body: orders.StorageOrder) -> None:
        """Carry a storage order out, under the authority of the life that gave it.

        A thread has it from this moment on, and its answer is the next thing that the loop looks at: whoever
        waits for a VG's lock waits for each turn of its holder's loop, and a task would take three."""
        long = isinstance(body, orders.ZeroBlocks | orders.CopyBlocks)
        running = (self._zeroing_pool if long else self._pool).submit(self._ports.storage.bound(), body)
        if long or isinstance(body, orders.WriteBlocks | orders.WriteVersion):
            self._writes = {one for one in self._writes if not one.done()} | {running}
        loop = asyncio.get_running_loop()

        def tell(done: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it any more
                loop.call_soon_threadsafe(self._stored, effect, done)

        running.add_done_callback(tell)

    def _stored(self, effect: effects.DoOrder, done: Future[Any]) -> None:
        if self._over or done.cancelled():
            return
        if (error := done.exception()) is None:
            self._at_once(inputs.OrderDone(effect.order, answer=done.result()))
        else:
            self._at_once(self._order_failed(effect, error))

    async def _order(self, effect: effects.DoOrder, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            answer = await work()
        except Exception as error:
            self.feed(self._order_failed(effect, error))
        else:
            self.feed(inputs.OrderDone(effect.order, answer=answer))

    def _order_failed(self, effect: effects.DoOrder, error: BaseException) -> inputs.OrderDone:
        if not isinstance(error, RingfenceError):
            self._trace(error)
            what = type(effect.body).__name__
            error = RingfenceError(f"{what} failed: {error!r}", next="see the daemon's log")
        return inputs.OrderDone(effect.order, error=error.as_dict())

    async def _look(self) -> HostFacts:
        if self._ports.look is None:
            raise Unavailable("this daemon does not look at its host")
        return await self._ports.look.look(self._config)

    async def _read_supplies(self, order: orders.ReadSupplies) -> tuple[Reading, ...]:
        if self._ports.supplies is None:
            raise Unavailable("this daemon reads no power supplies")
        return await self._ports.supplies.read(order.controllers)

    async def _cut(self, vgs: tuple[str, ...]) -> tuple[str, ...]:
        if self._ports.stock_lvm is not None:
            await self._ports.stock_lvm.end_all()  # it could load a table anew that was just cut
        return await self._lvm_host.cut(vgs)

    async def _refresh(self, order: orders.RefreshLvs, ordered_ns: int) -> orders.LvmRan:
        if self._ports.stock_lvm is None:
            raise Unavailable("this daemon runs no stock LVM2")
        late_ms = (self._ports.clock.boottime_ns() - ordered_ns) // 1_000_000
        if late_ms > self._config.timing.token_ms:
            raise Unavailable(f"not started: this host stood still for {late_ms} ms", retry=True)
        return await self._ports.stock_lvm.refresh(order)

    async def _agent(self, effect: effects.RunAgent, ordered_ns: int) -> None:
        late_ms = (self._ports.clock.boottime_ns() - ordered_ns) // 1_000_000
        if late_ms > self._config.timing.token_ms:
            # This process stood still between the engine's decision and now: others may have taken
            # over, and what the decision rested on is old.  "off" must never be fired from the past.
            words = f"not started: this host stood still for {late_ms} ms"
            self.feed(inputs.AgentExited(effect.run, Power.UNKNOWN, words, 0, answered=False))
            return
        try:
            self.feed(await self._ports.agents.run(effect))
        except Exception as error:
            self._trace(error)
            words = f"the agent could not be run: {error!r}"
            self.feed(inputs.AgentExited(effect.run, Power.UNKNOWN, words, 0, answered=False))

    def _drop_paths(self, generation: int) -> None:
        if self._ports.lvm is not None:
            self._ports.lvm.lose()
        self._dropping = max(self._dropping, generation)
        if not self._drop_running:
            self._drop_running = True
            self._spawn(self._drop_until_known(), "drop paths")

    async def _drop_until_known(self) -> None:
        """Never claims what is not verified of every path, LVM2's among them: tries for ever.

        What this daemon itself writes for its commands is such a path: of a write that hangs in a disk no
        guard knows when it lands, so it is waited for, as a worker is until it is reaped.  What has not begun
        by now finds its authority lost."""
        said = ""
        done = -1
        while done != self._dropping:
            generation = self._dropping
            try:
                if self._ports.stock_lvm is not None:
                    await self._ports.stock_lvm.end_all()
                await self._drop_all()
            except RingfenceError as error:
                if str(error) != said:
                    said = str(error)
                    self._note("drop-paths", f"data paths are not yet known to be closed: {error}")
                await asyncio.sleep(DROP_RETRY_S)
            else:
                done = generation
                self.feed(inputs.PathsDropped(generation))
        self._drop_running = False

    async def _drop_all(self) -> None:
        """Both kinds at once.  Raises what either raises."""
        lvm = self._ports.lvm
        dropping = [self._ports.block.drop_all(), *([lvm.drop_all()] if lvm is not None else [])]
        for outcome in await asyncio.gather(*dropping, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        begun = [asyncio.wrap_future(one) for one in self._writes if one.running()]
        if begun:
            await asyncio.wait(begun)

    # -- words ----------------------------------------------------------------------

    def _note(self, kind: str, what: str) -> None:
        self._write_records()  # in their order
        self._ports.log.line(kind, what, self._ports.clock.wall_ms())

    def _trace(self, error: BaseException) -> None:
        for line in "".join(traceback.format_exception(error)).splitlines():
            self._note("trace", line)


async def _nothing() -> None:
    """There is nothing to close."""


async def _fail(error: RingfenceError) -> None:
    raise error


class Metrics:
    """How the loop fares; part of every Status reply."""

    def __init__(self) -> None:
        self._lag_ms = 0.0
        self._lag_max_ms = 0.0
        self._keep_max_ms = 0.0
        self._keeps = 0

    def lagged(self, lag_s: float) -> None:
        self._lag_ms = lag_s * 1000
        self._lag_max_ms = max(self._lag_max_ms, self._lag_ms)

    def kept(self, took_ns: int) -> None:
        self._keeps += 1
        self._keep_max_ms = max(self._keep_max_ms, took_ns / 1e6)

    def report(self) -> dict[str, Any]:
        return {
            "loop_lag_ms": round(self._lag_ms, 1),
            "loop_lag_max_ms": round(self._lag_max_ms, 1),
            "keep_max_ms": round(self._keep_max_ms, 1),
            "keeps": self._keeps,
        }
