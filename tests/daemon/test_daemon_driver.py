"""The driver around a scripted engine, with real sockets and clocks."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.core.cluster import ClusterConfig, NodeConfig, Timing
from ringfence.core.errors import ConfigError, DeviceFailed, NoAuthority, Refused, Unavailable
from ringfence.core.evidence import Power
from ringfence.core.ids import Epoch
from ringfence.daemon import driver as driver_module
from ringfence.daemon.driver import Driver, Ports
from ringfence.daemon.log import Log
from ringfence.daemon.ports import Feed
from ringfence.engine import effects, inputs, orders
from ringfence.engine.effects import Effect
from ringfence.engine.inputs import AgentExited, DiskState, Input
from ringfence.lvm2.lockd_text import END
from ringfence.servers.client_socket import ClientSocket
from ringfence.servers.lvmlockd_socket import LvmSocket
from ringfence.wire import client as calls
from ringfence.wire.client import Reply
from ringfence.wire.lvmlockd import LvmAnswered

CONFIG = ClusterConfig("lab", timing=Timing(heartbeat_ms=20, token_ms=100))


class World:
    """Every port at once; `done` is what was carried out, in order."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.lost_pages = 0
        self.fail_keep: OSError | None = None
        self.fail_history = False
        self.drop_failures = 0
        self.jump_ns = 0
        self.stored: list[dict[str, Any]] = []
        self.cancelled: list[int] = []
        self.do_storage: Callable[[Any], Any] = lambda order: (b"read",)
        self.agent: Callable[[effects.RunAgent], AgentExited] = lambda effect: AgentExited(
            effect.run, Power.OFF, "off", 5
        )

    # clock
    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self.jump_ns

    def wall_ms(self) -> int:
        return 1_700_000_000_000

    # ring
    on_input: Any = None

    def feed(self, *facts: Input) -> None:
        for fact in facts:
            self.on_input(fact)

    async def start(self) -> None:
        pass

    def multicast(self, payload: bytes) -> None:
        self.done.append(payload)

    async def leave(self) -> None:
        self.done.append(("closed", True))

    async def stop(self) -> None:
        self.done.append(("closed", False))

    # block
    async def drop_all(self) -> None:
        if self.drop_failures:
            self.drop_failures -= 1
            raise Unavailable("the block service does not answer")
        self.done.append("dropped")

    # agents
    async def run(self, effect: effects.RunAgent) -> AgentExited:
        return self.agent(effect)

    def cancel(self, run: int) -> None:
        self.cancelled.append(run)

    # storage
    def bound(self) -> Callable[[Any], Any]:
        return self.do

    def do(self, order: Any) -> Any:
        return self.do_storage(order)

    # pages
    def set(self, incarnation: int, page: str, deadline_ns: int) -> None:
        self.done.append((page, deadline_ns))

    def lose_all(self) -> None:
        self.lost_pages += 1

    # kept
    def keep(self, disk: DiskState) -> None:
        if self.fail_keep is not None:
            raise self.fail_keep
        self.done.append(disk)

    def keep_config(self, config: ClusterConfig) -> None:
        self.done.append(config)

    # history
    def append(self, kind: str, what: str, fields: dict[str, Any], wall_ms: int, boottime_ns: int) -> int:
        if self.fail_history:
            raise Unavailable("disk full")
        self.stored.append({"seq": len(self.stored) + 1, "kind": kind, "what": what})
        return len(self.stored)

    def events(self, since: int, limit: int) -> list[dict[str, Any]]:
        return [event for event in self.stored if event["seq"] > since][:limit]

    def fences(self, node: str) -> list[dict[str, Any]]:
        return [{"node": node or "all"}]


class Blocking:
    """The block port: as World, but its orders are awaited."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def start(self, feed: Feed) -> None:
        pass

    async def do(self, order: Any) -> Any:
        return "block"

    async def drop_all(self) -> None:
        await self._world.drop_all()

    def recorded(self, fields: dict[str, Any]) -> None:
        pass

    async def close(self) -> None:
        pass


class Script:
    """An engine that remembers its inputs and returns what the test's function says."""

    def __init__(self, answer: Callable[[Input], list[Effect]]) -> None:
        self._answer = answer
        self.heard: list[Input] = []
        self.times: list[int] = []

    def step(self, now_ns: int, input: Input) -> list[Effect]:
        self.heard.append(input)
        self.times.append(now_ns)
        return self._answer(input)

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.heard if isinstance(one, kind)]


class Running:
    """Args: lvm: whether stock LVM2 is to be served, at PLACE/lvm."""

    def __init__(self, place: Path, answer: Callable[[Input], list[Effect]], *, lvm: bool = False) -> None:
        self.place = place
        self.world = World()
        self.engine = Script(answer)
        read, write = os.pipe()
        self._read = read
        self._write = write
        self.log = Log("n1", write)
        ports = Ports(
            self.world, self.world, self.world, self.world, Blocking(self.world), self.world, self.world,
            self.world, self.log,
        )  # fmt: skip
        self.driver = Driver(self.engine, ports, CONFIG, "n1")
        self.socket = ClientSocket(place / "s", self.driver.asked, self.driver.gone)
        started = inputs.Started(CONFIG, 1, "m", "b", DiskState(), True)
        self.lvm = LvmSocket(place / "lvm", place / "pid", self.driver)
        run = self.driver.run(started, self.socket, self.lvm if lvm else None)
        self.task = asyncio.get_running_loop().create_task(run)

    async def end(self) -> tuple[int, str]:
        """The exit code and the log."""
        code = await asyncio.wait_for(self.task, 60)
        self.log.close()
        os.close(self._write)
        text = b""
        while part := os.read(self._read, 65536):
            text += part
        os.close(self._read)
        return code, text.decode()

    async def ask(self, id: str, call: calls.Call) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(self.place / "s")
        writer.write(calls.encode(calls.Request(id, call)))
        reply: dict[str, Any] = json.loads(await reader.readline())
        writer.close()
        return reply


@pytest.fixture
def place() -> Iterator[Path]:
    where = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
    yield where
    shutil.rmtree(where)


@contextlib.asynccontextmanager
async def running(
    place: Path, answer: Callable[[Input], list[Effect]], *, lvm: bool = False
) -> AsyncIterator[Running]:
    one = Running(place, answer, lvm=lvm)
    try:
        async with asyncio.timeout(60):
            while not one.engine.of(inputs.Tick):  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        yield one
    finally:
        if not one.task.done():
            one.driver.fail("the test is over")
            await one.end()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - other tasks and threads make it true
            await asyncio.sleep(0.002)


def on(kind: type, *todo: Effect) -> Callable[[Input], list[Effect]]:
    return lambda fact: list(todo) if isinstance(fact, kind) else []


def test_inputs_begin_with_started_and_ticks_keep_their_cadence(place: Path) -> None:
    async def body() -> None:
        async with running(place, lambda fact: []) as one:
            await until(lambda: len(one.engine.of(inputs.Tick)) >= 10)
            assert isinstance(one.engine.heard[0], inputs.Started)
            assert one.engine.of(inputs.Wall)
            assert one.engine.times == sorted(one.engine.times)

    asyncio.run(body())


def test_effects_happen_in_order_and_a_keep_before_what_follows(place: Path) -> None:
    disk = DiskState(Epoch(3, 1))
    todo = [
        effects.SetDeadline(1, "grant", 5), effects.Keep(disk), effects.Multicast(b"one"),
        effects.SetDeadline(1, "vg/vg0", 6), effects.Multicast(b"two"),
    ]  # fmt: skip

    async def body() -> None:
        async with running(place, on(inputs.Started, *todo)) as one:
            await until(lambda: len(one.world.done) >= 5)
            assert one.world.done == [("grant", 5), disk, b"one", ("vg/vg0", 6), b"two"]

    asyncio.run(body())


def test_records_are_written_after_what_their_step_sends_but_an_incident_at_once(place: Path) -> None:
    todo = [
        effects.Record("x", "one", {}), effects.Multicast(b"a"), effects.Record("incident", "two", {}),
        effects.Multicast(b"b"), effects.Record("x", "three", {}), effects.Multicast(b"c"),
        effects.Note("y", "four"), effects.Record("x", "five", {}), effects.Ended("bye"),
    ]  # fmt: skip

    async def body() -> None:
        async with running(place, on(inputs.RingLost, *todo)) as one:
            world, append = one.world, one.world.append

            def stored(kind: str, what: str, *rest: Any) -> int:
                world.done.append(what)
                return append(kind, what, *rest)

            world.append = stored  # type: ignore[method-assign]
            world.feed(inputs.RingLost("go"))
            code, log = await one.end()
            assert code == 0
            assert world.done[:7] == [b"a", "one", "two", b"b", b"c", "three", "five"], "none is lost"
            words = [line.rpartition(" ")[2] for line in log.splitlines()]
            assert words == ["one", "two", "three", "four", "five", "bye"], "the log has all in their order"

    asyncio.run(body())


def test_a_storage_order_is_begun_before_what_follows_it(place: Path) -> None:
    begun = threading.Event()
    waited: list[bool] = []

    async def body() -> None:
        todo = [effects.DoOrder(1, orders.ScanDevices()), effects.Multicast(b"after")]
        async with running(place, on(inputs.RingLost, *todo)) as one:
            one.world.do_storage = lambda order: begun.set()
            one.world.multicast = lambda payload: waited.append(begun.wait(30))  # type: ignore[method-assign]
            one.world.feed(inputs.RingLost("go"))
            await until(lambda: bool(one.engine.of(inputs.OrderDone)))
            assert waited == [True]

    asyncio.run(body())


def test_a_disk_that_cannot_keep_ends_the_daemon_before_anything_follows(place: Path) -> None:
    async def body() -> None:
        todo = [effects.Keep(DiskState()), effects.Multicast(b"echo"), effects.SetDeadline(1, "grant", 9)]
        async with running(place, on(inputs.RingLost, *todo)) as one:
            one.world.fail_keep = OSError(28, "No space left on device")
            one.world.feed(inputs.RingLost("go"))
            code, log = await one.end()
            assert code == 5
            assert b"echo" not in one.world.done
            assert ("grant", 9) not in one.world.done
            assert one.world.lost_pages
            assert log.count("No space left on device") == 1

    asyncio.run(body())


def test_a_step_that_raises_takes_authority_away_and_ends(place: Path) -> None:
    def answer(fact: Input) -> list[Effect]:
        if isinstance(fact, inputs.Delivered):
            raise AssertionError("two holders")
        return []

    async def body() -> None:
        async with running(place, answer) as one:
            one.world.feed(inputs.Delivered(1, b""), inputs.Delivered(1, b"never seen"))
            code, log = await one.end()
            assert code == 5
            assert one.world.lost_pages
            assert len(one.engine.of(inputs.Delivered)) == 1
            assert "the engine failed at Delivered: AssertionError('two holders')" in log
            assert all(len(line.split(" ", 3)) == 4 for line in log.splitlines())

    asyncio.run(body())


def test_where_a_command_met_a_fault_is_logged_and_the_daemon_goes_on(place: Path) -> None:
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError as error:
        fault = error

    async def body() -> None:
        todo = [effects.Trace(fault), effects.Multicast(b"on"), effects.Ended("enough")]
        async with running(place, on(inputs.RingLost, *todo)) as one:
            one.world.feed(inputs.RingLost("go"))
            code, log = await one.end()
            assert code == 0
            assert b"on" in one.world.done
            assert 'raise ZeroDivisionError("a bug")' in log
            assert "test_daemon_driver.py" in log

    asyncio.run(body())


def test_while_something_long_is_computed_the_loop_goes_on(place: Path) -> None:
    ticked = threading.Event()

    def refuse() -> None:
        raise Refused("no room")

    async def body() -> None:
        todo = [effects.DoOrder(1, orders.Compute(ticked.wait)), effects.DoOrder(2, orders.Compute(refuse))]
        async with running(place, on(inputs.RingLost, *todo)) as one:
            one.world.feed(inputs.RingLost("go"))
            await until(lambda: len(one.engine.of(inputs.OrderDone)) == 1)
            ticked.set()
            await until(lambda: len(one.engine.of(inputs.OrderDone)) == 2)
            second, first = one.engine.of(inputs.OrderDone)
            assert (first.order, first.answer) == (1, True)
            assert (second.order, second.error["code"]) == (2, "refused")

    asyncio.run(body())


def test_orders_come_back_with_answers_and_errors(place: Path) -> None:
    read = orders.ReadBlocks((orders.Read("/d", 0, 512),))
    write = orders.WriteBlocks((), guard="vg0")
    scan = orders.ScanDevices()

    def storage(order: Any) -> Any:
        if order == write:
            raise NoAuthority("authority lost on vg0")
        if order == scan:
            raise ZeroDivisionError("bug")
        return (b"bytes",)

    async def body() -> None:
        todo = [
            effects.DoOrder(1, read), effects.DoOrder(2, write), effects.DoOrder(3, scan),
            effects.DoOrder(4, orders.OpenPaths()),
        ]  # fmt: skip
        async with running(place, on(inputs.RingLost, *todo)) as one:
            one.world.do_storage = storage
            one.world.feed(inputs.RingLost("go"))
            await until(lambda: len(one.engine.of(inputs.OrderDone)) == 4)
            done = {fact.order: fact for fact in one.engine.of(inputs.OrderDone)}
            assert done[1].answer == (b"bytes",)
            assert done[2].error["code"] == "no-authority"
            assert "bug" in done[3].error["message"]
            assert done[4].answer == "block"

    asyncio.run(body())


def test_a_tick_comes_when_it_was_asked_for(place: Path) -> None:
    """Beside those that come anyway, every 10 ms: so many at once that they cannot be the same."""
    many = 200

    async def body() -> None:
        at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 500_000_000
        todo = [effects.TickAt(at_ns)] * many
        async with running(place, on(inputs.RingLost, *todo)) as one:
            one.world.feed(inputs.RingLost("go"))
            await until(lambda: len(one.engine.of(inputs.Tick)) > many)
            pairs = zip(one.engine.heard, one.engine.times, strict=True)
            early = [now_ns for fact, now_ns in pairs if isinstance(fact, inputs.Tick) and now_ns < at_ns]
            assert len(early) < many / 2

    asyncio.run(body())


def test_agents_answer_even_when_the_runner_breaks(place: Path) -> None:
    def broken(effect: effects.RunAgent) -> AgentExited:
        if effect.run == 2:
            raise RuntimeError("no such thing")
        return AgentExited(effect.run, Power.OFF, "off", 5)

    async def body() -> None:
        runs = [effects.RunAgent(number, "bmc", "off", 1000, "n2") for number in (1, 2)]
        async with running(place, on(inputs.RingLost, *runs, effects.CancelAgent(1))) as one:
            one.world.agent = broken
            one.world.feed(inputs.RingLost("go"))
            await until(lambda: len(one.engine.of(inputs.AgentExited)) == 2)
            exits = {fact.run: fact for fact in one.engine.of(inputs.AgentExited)}
            assert exits[1].power is Power.OFF
            assert (exits[2].power, exits[2].answered) == (Power.UNKNOWN, False)
            assert one.world.cancelled == [1]

    asyncio.run(body())


def test_a_daemon_that_stood_still_does_not_fire_an_old_order(place: Path) -> None:
    """The freeze falls between the engine's decision and the agent's start."""
    started: list[effects.RunAgent] = []

    async def body() -> None:
        def answer(fact: Input) -> list[Effect]:
            if isinstance(fact, inputs.RingLost):
                return [effects.RunAgent(1, "bmc", "off", 1000, "n2"), effects.Multicast(b"jump")]
            return []

        async with running(place, answer) as one:

            def jump(payload: bytes) -> None:
                one.world.jump_ns = 5_000_000_000

            one.world.multicast = jump  # type: ignore[method-assign]
            one.world.agent = lambda effect: started.append(effect) or AgentExited(1, Power.OFF, "", 1)  # type: ignore[func-returns-value]
            one.world.feed(inputs.RingLost("test"))
            await until(lambda: bool(one.engine.of(inputs.AgentExited)))
            assert not started
            (exit,) = one.engine.of(inputs.AgentExited)
            assert exit.power is Power.UNKNOWN
            assert "stood still for 500" in exit.words

    asyncio.run(body())


def test_paths_count_as_dropped_only_when_the_block_service_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "DROP_RETRY_S", 0.01)

    async def body() -> None:
        async with running(place, on(inputs.RingLost, effects.DropPaths(4))) as one:
            one.world.drop_failures = 3
            one.world.feed(inputs.RingLost("test"))
            await until(lambda: one.world.drop_failures == 1)
            assert not one.engine.of(inputs.PathsDropped)
            await until(lambda: bool(one.engine.of(inputs.PathsDropped)))
            assert "dropped" in one.world.done
            assert one.engine.of(inputs.PathsDropped) == [inputs.PathsDropped(4)]

    asyncio.run(body())


@pytest.mark.parametrize(
    "order",
    [
        orders.WriteBlocks((), guard="vg0"),
        orders.ZeroBlocks("/d", 0, 512, "vg0"),
        orders.CopyBlocks("/d", 0, 512, "/e", 0, "vg0"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_paths_count_as_dropped_only_when_no_write_of_a_command_s_hangs_in_a_disk(
    place: Path, order: orders.StorageOrder
) -> None:
    """It may land when the disk answers again, and by then where it goes may be another host's."""
    hangs, goes_on = threading.Event(), threading.Event()

    def storage(_: Any) -> None:
        hangs.set()
        goes_on.wait(60)

    async def body() -> None:
        todo = (effects.DoOrder(1, order), effects.DropPaths(4))
        async with running(place, on(inputs.RingLost, *todo)) as one:
            one.world.do_storage = storage
            one.world.feed(inputs.RingLost("test"))
            await until(lambda: "dropped" in one.world.done and hangs.is_set())
            await asyncio.sleep(0.05)
            assert not one.engine.of(inputs.PathsDropped)
            goes_on.set()
            await until(lambda: one.engine.of(inputs.PathsDropped) == [inputs.PathsDropped(4)])
            assert one.engine.of(inputs.OrderDone), "it was done, or refused, before that"

    try:
        asyncio.run(body())
    finally:
        goes_on.set()


def test_a_write_that_has_not_begun_is_not_waited_for(place: Path) -> None:
    """A read before it hangs; when its turn comes it has lost its authority."""
    hangs, goes_on = threading.Event(), threading.Event()

    def storage(order: Any) -> None:
        hangs.set()
        goes_on.wait(60)

    async def body() -> None:
        read, write = orders.ReadBlocks((orders.Read("/d", 0, 512),)), orders.WriteBlocks((), guard="vg0")
        todo = (effects.DoOrder(1, read), effects.DoOrder(2, write), effects.DropPaths(4))
        async with running(place, on(inputs.RingLost, *todo)) as one:
            one.world.do_storage = storage
            one.world.feed(inputs.RingLost("test"))
            await until(lambda: hangs.is_set() and bool(one.engine.of(inputs.PathsDropped)))
            goes_on.set()

    try:
        asyncio.run(body())
    finally:
        goes_on.set()


def echo(fact: Input) -> list[Effect]:
    if isinstance(fact, inputs.Asked):
        return [effects.Answer(fact.client, Reply(fact.request.id, result={"who": fact.who}))]
    return []


def serve_lvm2(fact: Input) -> list[Effect]:
    if isinstance(fact, inputs.LvmRequest):
        return [effects.Note("lvmlockd", "asked"), effects.LvmAnswer(fact.client, LvmAnswered(fact.asked.op))]
    return echo(fact)


def test_stock_lvm2_is_served_beside_clients(place: Path) -> None:
    async def body() -> None:
        async with running(place, serve_lvm2, lvm=True) as one:
            status = await one.ask("s", calls.Status())
            assert status["result"]["lvmlockd"] == {"served": True, "trouble": ""}
            reader, writer = await asyncio.open_unix_connection(place / "lvm")
            writer.write(b'request = "hello"\n\n##\nrequest = "running_lm"\n\n##\n')
            assert b'protocol = "lvmlockd"' in await reader.readuntil(END)
            assert b"op_result = 0" in await reader.readuntil(END)
            writer.close()
            await until(lambda: bool(one.engine.of(inputs.LvmGone)))
            (gone,) = one.engine.of(inputs.LvmGone)
            assert (gone.unread, gone.hung_up) == (False, False)
            one.driver.fail("over")
            _, log = await one.end()
            assert "n1 lvmlockd asked" in log

    asyncio.run(body())


def test_a_daemon_goes_on_where_another_lvmlockd_listens(place: Path) -> None:
    async def body() -> None:
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(place / "lvm"))
            other.listen()
            async with running(place, echo, lvm=True) as one:
                status = await one.ask("s", calls.Status())
                trouble = status["result"]["lvmlockd"]["trouble"]
                assert f"lvmlockd is already running on {place}/lvm" in trouble
                one.driver.fail("over")
                _, log = await one.end()
            assert "n1 lvmlockd stock LVM2 is not served: lvmlockd is already running" in log
            assert (place / "lvm").exists()

    asyncio.run(body())


def test_a_repeated_request_runs_once(place: Path) -> None:
    async def body() -> None:
        async with running(place, echo) as one:
            call = calls.LvCreate("vg0", "a", extents=1)
            first = await one.ask("same", call)
            second = await one.ask("same", call)
            assert first == second
            assert len(one.engine.of(inputs.Asked)) == 1
            status = await one.ask("s", calls.Status())
            assert status["result"]["daemon"]["loop_lag_max_ms"] >= 0
            await until(lambda: len(one.engine.of(inputs.ClientGone)) == 3)

    asyncio.run(body())


def test_a_configuration_that_cannot_be_does_not_reach_the_engine(place: Path) -> None:
    """`ringfence config apply` has judged its own; another program that writes to the socket has not."""
    bad = [
        ClusterConfig("lab", nodes=(NodeConfig(1, "a"),), version=2, timing=Timing(write_ms=10)),
        ClusterConfig("lab", nodes=(NodeConfig(1, "a"),), version=2**64),
        ClusterConfig("lab", nodes=(NodeConfig(1, "a", votes=2**64),), version=2),
        ClusterConfig("lab", version=2),
    ]

    async def body() -> None:
        async with running(place, on(inputs.RingLost)) as one:
            for n, config in enumerate(bad):
                reply = await one.ask(f"c{n}", calls.ConfigApply(config))
                assert reply["error"]["code"] == ConfigError.code
            assert not one.engine.of(inputs.Asked)

    asyncio.run(body())


def test_events_are_answered_and_streamed_without_the_engine(place: Path) -> None:
    async def body() -> None:
        record = effects.Record("victim", "n2 is suspected", {})
        async with running(place, on(inputs.RingLost, record)) as one:
            one.world.feed(inputs.RingLost("a"), inputs.RingLost("b"))
            await until(lambda: len(one.world.stored) == 2)
            reply = await one.ask("e", calls.Events(since=1))
            assert [event["seq"] for event in reply["result"]["events"]] == [2]
            assert reply.get("final", True)

            reader, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(calls.encode(calls.Request("f", calls.Events(follow=True))))
            assert [json.loads(await reader.readline())["result"]["event"]["seq"] for _ in range(2)] == [1, 2]
            one.world.feed(inputs.RingLost("c"))
            third = json.loads(await reader.readline())
            assert (third["result"]["event"]["seq"], third["final"]) == (3, False)
            writer.close()
            await until(lambda: len(one.engine.of(inputs.ClientGone)) == 2)
            one.world.feed(inputs.RingLost("d"))
            await until(lambda: len(one.world.stored) == 4)

            assert (await one.ask("h", calls.FenceHistory("n2")))["result"] == {"history": [{"node": "n2"}]}
            assert (await one.ask("c", calls.ConfigShow()))["result"]["config"]["name"] == "lab"
            assert not one.engine.of(inputs.Asked)

    asyncio.run(body())


def test_a_full_history_is_said_once_and_the_daemon_goes_on(place: Path) -> None:
    async def body() -> None:
        async with running(place, on(inputs.Tick, effects.Record("x", "happened", {}))) as one:
            one.world.fail_history = True
            before = len(one.engine.of(inputs.Tick))
            await until(lambda: len(one.engine.of(inputs.Tick)) > before + 10)
            one.driver.fail("enough")
            _, log = await one.end()
            assert log.count("events are not stored any more") == 1
            assert log.count("happened") > 10

    asyncio.run(body())


def test_a_clean_leave_ends_with_0(place: Path) -> None:
    def answer(fact: Input) -> list[Effect]:
        if isinstance(fact, inputs.Asked) and isinstance(fact.request.call, calls.Leave):
            return [effects.Answer(fact.client, Reply(fact.request.id)), effects.Ended("left the cluster")]
        return []

    async def body() -> None:
        async with running(place, answer) as one:
            one.driver.leave("SIGTERM")
            code, log = await one.end()
            assert code == 0
            assert "left the cluster" in log
            assert ("closed", True) in one.world.done
            assert one.world.lost_pages

    asyncio.run(body())


def test_a_leave_that_is_refused_is_asked_for_again_by_force(place: Path) -> None:
    def answer(fact: Input) -> list[Effect]:
        if not isinstance(fact, inputs.Asked) or not isinstance(fact.request.call, calls.Leave):
            return []
        if fact.request.call.force:
            return [effects.Answer(fact.client, Reply(fact.request.id)), effects.Ended("left the cluster")]
        error = Refused("n1 still has locks in use").as_dict()
        return [effects.Answer(fact.client, Reply(fact.request.id, error=error))]

    async def body() -> None:
        async with running(place, answer) as one:
            one.driver.leave("SIGTERM")
            code, log = await one.end()
            assert code == 0
            assert "not yet: n1 still has locks in use" in log

    asyncio.run(body())


def test_a_leave_that_is_refused_or_late_ends_with_5(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "LEAVE_S", 0.5)

    def refuse(fact: Input) -> list[Effect]:
        if isinstance(fact, inputs.Asked):
            error = DeviceFailed("vm1 cannot be closed").as_dict()
            return [effects.Answer(fact.client, Reply(fact.request.id, error=error))]
        return []

    async def body() -> None:
        for answer, words in ((refuse, "vm1 cannot be closed"), (lambda fact: [], "no clean leave within")):
            async with running(place, answer) as one:
                one.driver.leave("SIGTERM")
                code, log = await one.end()
                assert code == 5
                assert words in log
                assert " no-leave no clean leave within 0.5 s" in log
                assert "the others will fence it" in log
                assert ("closed", False) in one.world.done

    asyncio.run(body())


def test_the_log_never_blocks_the_loop() -> None:
    read, write = os.pipe()
    log = Log("n1", write)
    began = time.monotonic()
    for number in range(10_000):
        log.line("flood", f"{number} " + "x" * 100, 0)
    assert time.monotonic() - began < 30, "nobody reads it: it would wait for ever"
    log.close(0.05)
    os.close(read)
