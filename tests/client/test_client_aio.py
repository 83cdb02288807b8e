"""The asyncio client against the real client socket with scripted answers."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import pytest
from client_scripted import Daemon, LockTable, daemon

from ringfence.client.aio import Connection, Lock, Lockspace, connect
from ringfence.core import errors
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.locks.flags import Flag
from ringfence.wire import client as calls
from ringfence.wire.client import Reply, Request


def test_nobody_listens() -> None:
    with pytest.raises(errors.Unavailable, match="no ringfence daemon listens"):
        asyncio.run(connect("/tmp/rf-none"))


def test_calls_overlap(peer: Daemon) -> None:
    """The second answer comes first; each finds its caller."""

    def script(one: Daemon, client: int, request: Request) -> None:
        if len(one.asked) == 2:
            for asker, asked in reversed(one.asked):
                assert isinstance(asked.call, calls.Why)
                one.reply(asker, Reply(asked.id, asked.call.target))

    async def main(one: Daemon) -> None:
        async with await connect(one.path) as ring:
            assert list(await asyncio.gather(ring.why("a"), ring.why("b"))) == ["a", "b"]
        with pytest.raises(errors.BadInput, match="closed"):
            await ring.status()

    with daemon(script) as one:
        asyncio.run(main(one))


def test_a_lost_reply_is_asked_for_again_under_the_same_id() -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        if len(one.asked) < 3:
            one.drop(client)
        else:
            one.reply(client, Reply(request.id, "x" * (5 << 20)))

    async def main(one: Daemon) -> None:
        async with await connect(one.path) as ring:
            assert len(await ring.call(calls.LvCreate("vg0", "vm1", extents=1))) == 5 << 20
        assert len({request.id for _, request in one.asked}) == 1

    with daemon(script) as one:
        asyncio.run(main(one))


def test_a_daemon_that_stays_away_and_one_that_is_silent() -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        if isinstance(request.call, calls.Status):
            one.drop(client)
        if isinstance(request.call, calls.Lvs):
            one.reply(client, Reply(request.id, error=errors.Damaged("torn").as_dict()))

    async def main(one: Daemon) -> None:
        async with await connect(one.path, retry_ms=500) as ring:
            with pytest.raises(errors.Unavailable, match="closed the connection before it answered"):
                await ring.status()
            with pytest.raises(errors.TimedOut, match="no answer to Vgs within 50 ms"):
                await ring.call(calls.Vgs(), timeout_ms=50)
            with pytest.raises(errors.Damaged):
                await ring.call(calls.Lvs())
            with pytest.raises(errors.BadInput):
                await ring.call(calls.Lock("a", "b"))

    with daemon(script) as one:
        asyncio.run(main(one))


def test_who_gave_its_mode_up_for_a_conversion_that_failed_knows(peer: Daemon) -> None:
    async def main() -> None:
        async with await connect(peer.path) as ring:
            space = await ring.lockspace("games")
            async with await space.lock("chess", "PR") as lock:
                with pytest.raises(errors.TimedOut):
                    await lock.convert("EX", wait_ms=1000, flags=Flag.CONVDEADLK)
                assert (lock.held, lock.mode) == (True, Mode.NL)

    asyncio.run(main())


def test_a_lock_s_life(peer: Daemon) -> None:
    async def main() -> None:
        heard: asyncio.Queue[Mode] = asyncio.Queue()
        async with await connect(peer.path) as ring:
            space = await ring.lockspace("games")
            async with await space.try_lock("chess", "EX", on_blocking=heard.put_nowait) as lock:
                assert (lock.mode, lock.token, lock.lvb) == (Mode.EX, Token(3, 1, 1), b"AAA")
                assert await lock.convert("PR") == Token(3, 1, 1)
                client, request = peer.asked[1]
                peer.say(client, Reply(request.id, {"blocking": "CW", "lock": 1}, final=False))
                async with asyncio.timeout(60):
                    assert await heard.get() is Mode.CW
            assert not lock.held
            await lock.unlock()
            other = await space.lock("chess")
            with pytest.raises(errors.BadInput, match="32 bytes"):
                await other.unlock(lvb=b"short")
            await other.unlock(lvb=b"v" * 32)
            assert await ring.status() == {"call": "Status"}
            assert peer.calls(calls.Unlock) == [calls.Unlock(1, quiet=True), calls.Unlock(2, lvb=b"v" * 32)]
        assert len({client for client, _ in peer.asked}) == 1

    asyncio.run(main())


@pytest.mark.parametrize("how", ["connection", "node"])
def test_a_lost_lock(peer: Daemon, how: str) -> None:
    async def main() -> None:
        async with await connect(peer.path) as ring:
            space = await ring.lockspace("games")
            lost = asyncio.Event()
            lock = await space.lock("chess", on_lost=lost.set)
            client, request = peer.asked[1]
            if how == "node":
                peer.say(client, Reply(request.id, {"lost": True, "lock": 1}))
            else:
                peer._loop.call_soon_threadsafe(peer.drop, client)
            async with asyncio.timeout(60):
                await lost.wait()
            assert not lock.held
            for work in (lock.convert("PR"), lock.unlock()):
                with pytest.raises(errors.LocksLost):
                    await work
            assert (await space.lock("chess")).held

    asyncio.run(main())


def test_a_cancelled_task_takes_its_wait_back_and_nothing_else(peer: Daemon) -> None:
    async def cancelled(work: Coroutine[Any, Any, Any], kind: type[Any], count: int) -> None:
        waiter = asyncio.create_task(work)
        await asyncio.to_thread(peer.until, lambda: len(peer.calls(kind)) == count)
        waiter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiter

    async def main() -> None:
        async with await connect(peer.path) as ring:
            space = await ring.lockspace("games")
            other = await space.lock("chess")
            await cancelled(space.lock("busy"), calls.Lock, 2)
            await cancelled(other.convert("CW"), calls.Convert, 1)
            assert (other.held, other.mode) == (True, Mode.EX)
            await other.unlock(wait=True)
            ids = {type(request.call): request.id for _, request in peer.asked}
            taken_back = [call.request for call in peer.calls(calls.Cancel)]
            assert taken_back == [ids[calls.Lock], ids[calls.Convert]]
            assert peer.gone == []

    asyncio.run(main())


def test_cancelled_at_any_moment(peer: Daemon) -> None:
    """What was granted meanwhile is taken back or unlocked."""

    async def use(space: Lockspace) -> None:
        async with await space.lock("chess"):
            await asyncio.sleep(0)

    async def main() -> None:
        async with await connect(peer.path) as ring:
            space = await ring.lockspace("games")
            for number in range(200):
                task = asyncio.create_task(use(space))
                for _ in range(number % 20):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await ring.status()
        table = peer.script
        assert isinstance(table, LockTable)
        taken_back = {call.request for call in peer.calls(calls.Cancel)}
        assert [lock for lock in table.taken if table.requests[lock] not in taken_back] == []

    asyncio.run(main())


def test_events(peer: Daemon) -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        assert isinstance(request.call, calls.Events)
        since = request.call.since
        if not request.call.follow:
            one.reply(client, Reply(request.id, {"events": [{"seq": since + 1}]}))
            return
        for seq in (since + 1, since + 2):
            one.reply(client, Reply(request.id, {"event": {"seq": seq}}, final=False))
        if since == 0:
            one._loop.call_later(0.05, one.drop, client)

    async def followed(ring: Connection) -> list[int]:
        seen: list[int] = []
        events = ring.events(follow=True)
        async for event in events:
            seen.append(event["seq"])
            if len(seen) == 4:
                break
        await events.aclose()  # type: ignore[attr-defined]
        return seen

    async def main(one: Daemon) -> None:
        async with await connect(one.path) as ring:
            assert [event["seq"] async for event in ring.events(since=7)] == [8]
            assert await followed(ring) == [1, 2, 3, 4]

    with daemon(script) as one:
        asyncio.run(main(one))


def test_a_lockspace_is_joined_anew_after_a_restart_of_the_daemon() -> None:
    joined: set[str] = set()
    table = LockTable()

    def script(one: Daemon, client: int, request: Request) -> None:
        if isinstance(request.call, calls.JoinSpace):
            joined.add(request.call.lockspace)
        elif isinstance(request.call, calls.Lock) and not joined:
            one.reply(client, Reply(request.id, error=errors.NotFound("not in it").as_dict()))
            return
        table(one, client, request)

    async def main(one: Daemon) -> None:
        async with await connect(one.path) as ring:
            space = await ring.lockspace("games")
            joined.clear()
            with pytest.raises(errors.NotFound):  # left by another process
                await space.lock("chess")
            old = ring._link
            await asyncio.to_thread(one.end, one.asked[-1][0])
            await asyncio.wait({old._task}, timeout=60)
            for cached in (False, True):
                async with await space.lock("chess", cached=cached, wait_ms=5000):
                    pass
            assert one.calls(calls.JoinSpace) == [calls.JoinSpace("games"), calls.JoinSpace("games", 5000)]

    with daemon(script) as one:
        asyncio.run(main(one))


def test_what_cannot_be_asked_leaves_the_lock_held(peer: Daemon) -> None:
    async def main() -> None:
        async with await connect(peer.path) as ring:
            lock = await (await ring.lockspace("games")).lock("chess")
            with pytest.raises(errors.BadInput, match="a value block"):
                await lock.unlock(lvb="v" * 32)  # type: ignore[arg-type]
            with pytest.raises(errors.BadInput, match="whole milliseconds"):
                await lock.convert("PR", wait_ms=1.5)  # type: ignore[arg-type]
            await peer_refuses(lock)
            assert lock.held
            await lock.unlock(wait=True)

    async def peer_refuses(lock: Lock) -> None:
        table = peer.script

        def script(one: Daemon, client: int, request: Request) -> None:
            one.reply(client, Reply(request.id, error=errors.BadInput("unknown request").as_dict()))

        peer.script = script
        with pytest.raises(errors.BadInput, match="unknown request"):
            await lock.unlock(wait=True)
        peer.script = table

    asyncio.run(main())


def test_a_task_s_locks_bear_its_name(peer: Daemon) -> None:
    async def take(space: Lockspace, name: str) -> None:
        await space.lock(name, "PR")
        await space.try_lock(name, "PR", on_lost=lambda: None)

    async def main() -> None:
        async with await connect(peer.path) as ring:
            space = await ring.lockspace("games")
            await take(space, "0")
            for number in range(1, 4):  # one after the other: each may be where the last one was in memory
                await asyncio.create_task(take(space, str(number)))
            await asyncio.gather(take(space, "4"), take(space, "5"))
            await take(space, "0")
            await space.lock("6", cached=True)
            await space.lock("7", owner="job 7")

    asyncio.run(main())
    names: dict[str, set[str]] = {}
    for call in peer.calls(calls.Lock):
        names.setdefault(call.resource, set()).add(call.thread)
    assert names.pop("6") == {""}, "a cached lock stands for itself"
    assert names.pop("7") == names["0"]
    assert [len(found) for found in names.values()] == [1] * 6
    assert len(set().union(*names.values())) == 6
    assert [call.owner for call in peer.calls(calls.Lock) if call.owner] == ["job 7"]
