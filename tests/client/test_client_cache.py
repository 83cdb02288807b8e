"""Cached locks, of both clients, against the real client socket with scripted answers."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from client_scripted import Daemon, LockTable

import ringfence
from ringfence.client import Lockspace, aio
from ringfence.core import errors
from ringfence.core.modes import Mode
from ringfence.host.pages import Pages
from ringfence.wire import client as calls
from ringfence.wire.client import Reply

FAR_NS = 3600 * 1_000_000_000


@pytest.fixture
def pages(peer: Daemon) -> Pages:
    """This host's authority is valid for an hour."""
    pages = Pages(Path(peer.path).parent / "authority")
    pages.set(1, "grant", time.clock_gettime_ns(time.CLOCK_BOOTTIME) + FAR_NS)
    return pages


@pytest.fixture
def space(peer: Daemon, pages: Pages) -> Iterator[Lockspace]:
    with ringfence.connect(peer.path) as ring:
        yield ring.lockspace("games")


def say(peer: Daemon, **what: object) -> None:
    """A word about the newest lock."""
    client, request = next(one for one in reversed(peer.asked) if isinstance(one[1].call, calls.Lock))
    peer.say(client, Reply(request.id, {"lock": len(peer.calls(calls.Lock)), **what}, final=False))


def test_the_second_use_asks_nobody(peer: Daemon, space: Lockspace) -> None:
    tokens = []
    for _ in range(5):
        with space.lock("chess", cached=True) as lock:
            assert (lock.held, lock.mode, lock.lvb) == (True, Mode.EX, b"AAA")
            tokens.append(lock.token)
        assert (lock.held, lock.mode) == (False, Mode.UN)
        lock.unlock()
        with pytest.raises(errors.BadInput, match="has been released"):
            lock.token  # noqa: B018
    assert len(set(tokens)) == 1
    assert peer.calls(calls.Lock) == [calls.Lock("games", "chess", cached=True)]
    assert peer.calls(calls.Unlock) == []


def test_it_is_not_used_for_another_owner(peer: Daemon, space: Lockspace) -> None:
    """The daemon would go on taking it for the first one's."""
    first = space.lock("chess", "PR", cached=True, owner="one")
    space.lock("chess", "PR", cached=True, owner="one").unlock()
    assert len(peer.calls(calls.Lock)) == 1
    space.lock("chess", "PR", cached=True).unlock()  # beside it
    assert [call.owner for call in peer.calls(calls.Lock)] == ["one", ""]
    peer.until(lambda: peer.calls(calls.Unlock) == [calls.Unlock(2, quiet=True)])
    first.unlock()
    space.lock("chess", "PR", cached=True, owner="two")  # in its place
    assert peer.calls(calls.Lock)[2].owner == "two"
    peer.until(lambda: calls.Unlock(1, quiet=True) in peer.calls(calls.Unlock))


def test_it_goes_back_at_once_when_somebody_asks_and_it_is_not_used(peer: Daemon, space: Lockspace) -> None:
    space.lock("chess", cached=True).unlock()
    say(peer, blocking="PR", tries=True)
    peer.until(lambda: peer.calls(calls.Unlock) == [calls.Unlock(1, quiet=True)])
    assert peer.calls(calls.Busy) == []
    space.lock("chess", cached=True).unlock()
    assert len(peer.calls(calls.Lock)) == 2


def test_it_goes_back_after_the_last_use_and_a_try_is_told_that_it_is_used(
    peer: Daemon, space: Lockspace
) -> None:
    wants: list[Mode] = []
    first = space.lock("chess", "PR", cached=True, on_blocking=wants.append)
    second = space.lock("chess", "PR", cached=True)
    say(peer, blocking="EX", tries=True)
    peer.until(lambda: peer.calls(calls.Busy) == [calls.Busy(1)])
    first.unlock()
    assert second.held
    assert peer.calls(calls.Unlock) == []
    third = space.lock("chess", "PR", cached=True)  # whoever asked comes first: this one is the daemon's
    assert len(peer.calls(calls.Lock)) == 2
    second.unlock()
    peer.until(lambda: peer.calls(calls.Unlock) == [calls.Unlock(1, quiet=True)])
    assert third.held
    assert wants == []


def test_who_uses_it_is_told_who_waits(peer: Daemon, space: Lockspace) -> None:
    heard = threading.Event()
    lock = space.lock("chess", cached=True, on_blocking=lambda wants: heard.set())
    say(peer, blocking="EX")
    assert heard.wait(60)
    lock.unlock()
    peer.until(lambda: peer.calls(calls.Unlock) == [calls.Unlock(1, quiet=True)])
    assert peer.calls(calls.Busy) == []


def test_an_exclusive_one_is_not_shared_by_two_threads(peer: Daemon, space: Lockspace) -> None:
    first = space.lock("chess", cached=True)
    second = space.lock("chess", cached=True)  # the scripted daemon grants everything
    assert [call.resource for call in peer.calls(calls.Lock)] == ["chess", "chess"]
    second.unlock()
    peer.until(lambda: peer.calls(calls.Unlock) == [calls.Unlock(2, quiet=True)])  # one is kept, not two
    first.unlock()
    space.lock("chess", cached=True).unlock()
    assert len(peer.calls(calls.Lock)) == 2


@pytest.mark.parametrize("deadline", ["lapsed", "lost", "no page"])
def test_without_authority_the_daemon_is_asked(
    peer: Daemon, space: Lockspace, pages: Pages, deadline: str
) -> None:
    space.lock("chess", cached=True).unlock()
    if deadline == "no page":
        pages.path(1, "grant").unlink()
    pages.set(1, "grant", 0 if deadline == "lost" else 1)
    space.lock("chess", cached=True).unlock()
    assert [type(request.call) for _, request in peer.asked[1:]] == [calls.Lock, calls.Unlock, calls.Lock]


def test_another_mode_and_what_cannot_be_cached(peer: Daemon, space: Lockspace) -> None:
    space.lock("chess", "EX", cached=True).unlock()
    space.lock("chess", "PR", cached=True).unlock()
    assert [type(request.call) for _, request in peer.asked[1:]] == [calls.Lock, calls.Unlock, calls.Lock]
    lock = space.lock("chess", "PR", cached=True)
    with pytest.raises(errors.BadInput, match="its mode stays"):
        lock.convert("EX")
    for mode, flags in (("NL", 0), ("CR", 0), ("EX", 0x400)):
        with pytest.raises(errors.BadInput, match="cached lock is"):
            space.lock("go", mode, flags=flags, cached=True)


def test_a_value_block_takes_it_out_of_the_cache(peer: Daemon, space: Lockspace) -> None:
    space.lock("chess", cached=True).unlock(lvb=b"v" * 32)
    assert peer.calls(calls.Unlock) == [calls.Unlock(1, lvb=b"v" * 32)]
    first = space.lock("chess", "PR", cached=True)
    second = space.lock("chess", "PR", cached=True)
    with pytest.raises(errors.BadInput, match="shared by other uses"):
        first.unlock(wait=True)
    assert first.held
    second.unlock()
    first.unlock(wait=True)
    assert peer.calls(calls.Unlock)[1:] == [calls.Unlock(2)]


@pytest.mark.parametrize("how", ["node", "connection"])
def test_it_is_lost(peer: Daemon, space: Lockspace, how: str) -> None:
    lost = threading.Event()
    lock = space.lock("chess", cached=True, on_lost=lost.set)
    space.lock("go", cached=True).unlock()
    if how == "node":
        client, request = peer.asked[1]
        peer.say(client, Reply(request.id, {"lost": True, "lock": 1}))
    else:
        peer.end(peer.asked[1][0])
    assert lost.wait(60)
    with pytest.raises(errors.LocksLost):
        lock.unlock()
    lock.unlock()
    space.lock("chess", cached=True).unlock()
    space.lock("go", cached=True).unlock()
    again = ["chess"] if how == "node" else ["chess", "go"]
    assert [call.resource for call in peer.calls(calls.Lock)] == ["chess", "go", *again]


def test_what_is_kept_goes_back_with_the_connection_s_close(peer: Daemon, pages: Pages) -> None:
    """Not by its end alone, which would spoil the value block."""
    with ringfence.connect(peer.path) as ring:
        space = ring.lockspace("games")
        space.lock("chess", cached=True).unlock()
        space.lock("go", cached=True)
    peer.until(lambda: len(peer.gone) == 2)
    assert peer.calls(calls.Unlock) == [calls.Unlock(1, quiet=True)]


def test_threads_in_and_out_while_it_is_asked_for(peer: Daemon, space: Lockspace) -> None:
    """At no time are there two uses; whatever was granted is unlocked once."""
    inside: list[int] = []
    wrong: list[str] = []
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            with space.lock("chess", cached=True) as lock:
                if lock._entry is not None and [one is lock for one in lock._entry.users] != [True]:
                    wrong.append(f"{len(lock._entry.users)} uses")
            inside.append(1)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(100):
        peer.until(lambda number=number: len(peer.calls(calls.Lock)) > number)
        client, _ = peer.asked[1]
        table = peer.script
        assert isinstance(table, LockTable)
        for lock in list(table.taken):
            told = {"lock": lock, "blocking": "EX", "tries": number % 2 == 0}
            peer.say(client, Reply(table.requests[lock], told, final=False))
    stop.set()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(inside) > 100
    unlocked = [call.lock for call in peer.calls(calls.Unlock)]
    assert len(unlocked) == len(set(unlocked))


def test_the_asyncio_client_caches_too(peer: Daemon, pages: Pages) -> None:
    async def settled(true: Callable[[], bool]) -> None:
        await asyncio.to_thread(peer.until, true)

    async def main() -> None:
        async with await aio.connect(peer.path) as ring:
            space = await ring.lockspace("games")
            for _ in range(3):
                async with await space.lock("chess", cached=True) as lock:
                    assert lock.held
            assert len(peer.calls(calls.Lock)) == 1
            async with await space.lock("chess", cached=True) as lock:
                say(peer, blocking="EX", tries=True)
                await settled(lambda: peer.calls(calls.Busy) == [calls.Busy(1)])
                with pytest.raises(errors.BadInput, match="its mode stays"):
                    await lock.convert("PR")
            await settled(lambda: peer.calls(calls.Unlock) == [calls.Unlock(1, quiet=True)])
            pages.set(1, "grant", 0)
            await (await space.lock("go", cached=True)).unlock()

    asyncio.run(main())


def test_an_unlock_that_is_refused_leaves_the_other_uses_their_lock(peer: Daemon, space: Lockspace) -> None:
    """The end of the `with` unlocks again: that released the lock under them, and they were not told."""
    other = space.lock("chess", "PR", cached=True)
    with (
        pytest.raises(errors.BadInput, match="shared by other uses"),
        space.lock("chess", "PR", cached=True) as lock,
    ):
        lock.unlock(wait=True)
    space.lock("go").unlock(wait=True)  # what was sent before has arrived
    assert [call.lock for call in peer.calls(calls.Unlock)] == [2]
    assert other.held
    other.unlock(wait=True)
    assert [call.lock for call in peer.calls(calls.Unlock)] == [2, 1]


def test_an_asyncio_unlock_that_is_refused_leaves_the_other_uses_their_lock(
    peer: Daemon, pages: Pages
) -> None:
    async def body() -> None:
        async with await aio.connect(peer.path) as ring:
            space = await ring.lockspace("games")
            other = await space.lock("chess", "PR", cached=True)
            with pytest.raises(errors.BadInput, match="shared by other uses"):
                async with await space.lock("chess", "PR", cached=True) as lock:
                    await lock.unlock(wait=True)
            await (await space.lock("go")).unlock(wait=True)
            assert [call.lock for call in peer.calls(calls.Unlock)] == [2]
            assert other.held

    asyncio.run(body())
