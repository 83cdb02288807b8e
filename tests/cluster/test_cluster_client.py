"""The Python API on a cluster of real processes: shared connections, cached locks, threads, death."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_lab import ONE, TWO, done, eventually, running

from ringfence.client import Connection, Lockspace, aio, connect
from ringfence.core.errors import LockHeld, RingfenceError, TimedOut
from ringfence.core.modes import Mode
from ringfence.lab.cluster import Lab

STAY = "print(1, flush=True); sys.stdin.read()"


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with running(2) as lab:
        yield lab


@pytest.fixture
def rings(two: Lab) -> Iterator[tuple[Connection, Connection]]:
    with connect(two.socket(ONE)) as one, connect(two.socket(TWO)) as other:
        yield one, other


@pytest.fixture
def spaces(rings: tuple[Connection, Connection]) -> tuple[Lockspace, Lockspace]:
    one, two = rings
    return one.lockspace("games"), two.lockspace("games")


def start(lab: Lab, node: str, script: str) -> subprocess.Popen[str]:
    head = "import ringfence, sys\nring = ringfence.connect()\nspace = ring.lockspace('games')\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + script], env={**os.environ, **lab.env(node)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def test_names_and_values(spaces: tuple[Lockspace, Lockspace]) -> None:
    one, two = spaces
    with one.lock("chess", "EX", wait_ms=60_000) as lock:
        first = lock.token
        with pytest.raises(LockHeld, match=ONE):
            two.try_lock("chess")
        with pytest.raises(TimedOut):
            two.lock("chess", "PR", wait_ms=200)
        lock.convert("PR")
        assert two.try_lock("chess", "PR").token > first
        lock.convert("NL")
        assert lock.mode is Mode.NL
    keeper = one.lock("board", "NL")
    one.lock("board").unlock(lvb=b"e2e4".ljust(32, b"."))
    with two.lock("board", "PR") as lock:
        assert lock.lvb == b"e2e4".ljust(32, b".")
    keeper.unlock()


def test_a_cached_lock_makes_no_try_fail_wherever_it_is_tried(spaces: tuple[Lockspace, Lockspace]) -> None:
    one, two = spaces
    tokens = []
    for _ in range(3):
        with one.lock("chess", cached=True) as lock:
            tokens.append(lock.token)
    assert len(set(tokens)) == 1
    with two.try_lock("chess", cached=True) as lock:  # on the other node
        assert lock.token > tokens[0]
        with pytest.raises(LockHeld):
            one.try_lock("chess")
    with two.try_lock("chess", "EX"):  # by another client of its own node, and one that does not cache
        pass
    with two.lock("chess", "NL"):  # comes after that release, which is not answered
        pass
    with one.try_lock("chess", "PR"), two.try_lock("chess", "PR"):
        pass


def test_a_cached_lock_goes_to_who_waits_and_comes_back(spaces: tuple[Lockspace, Lockspace]) -> None:
    """Two processes' worth of clients, in turns: while one goes on neither starves, and no two are inside."""
    inside, wrong, count = [0], [], [0, 0]

    def use(number: int, space: Lockspace) -> None:
        give_up = time.monotonic() + 60
        while min(count) <= 10 and time.monotonic() < give_up:
            with space.lock("chess", cached=True, wait_ms=60_000):
                inside[0] += 1
                if inside[0] != 1:
                    wrong.append(inside[0])
                count[number] += 1
                inside[0] -= 1

    threads = [threading.Thread(target=use, args=one) for one in enumerate(spaces)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert min(count) > 10, count


def test_threads_of_one_connection(spaces: tuple[Lockspace, Lockspace]) -> None:
    """Six threads count in turns under one lock, on two nodes, while a seventh waits for another."""
    one, two = spaces
    held = two.lock("held")
    waits = threading.Thread(target=lambda: one.lock("held").unlock())
    waits.start()
    counter = [0]

    def count(space: Lockspace) -> None:
        for _ in range(20):
            with space.lock("counter", wait_ms=60_000):
                before = counter[0]
                time.sleep(0)
                counter[0] = before + 1

    threads = [threading.Thread(target=count, args=(space,)) for space in (one, two) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counter == [120]
    assert waits.is_alive()
    held.unlock()
    waits.join(60)
    assert not waits.is_alive()


@pytest.mark.parametrize("cached", [False, True])
def test_a_process_that_dies_lets_go(two: Lab, spaces: tuple[Lockspace, Lockspace], cached: bool) -> None:
    script = f"a = space.lock('a', cached={cached}); b = space.lock('b')\n{STAY}"
    with start(two, ONE, script) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        with pytest.raises(LockHeld):
            spaces[1].try_lock("a")
        holder.send_signal(signal.SIGKILL)
        for name in ("a", "b"):
            with spaces[1].lock(name, wait_ms=60_000) as lock:
                assert lock.lvb is None, "it could have written"


def test_a_client_that_stands_still_keeps_what_it_caches(
    two: Lab, spaces: tuple[Lockspace, Lockspace]
) -> None:
    """It cannot say whether it uses the lock, and would go on with it: a try ends in time, refused."""
    script = f"space.lock('still', cached=True).unlock()\n{STAY}"
    with start(two, ONE, script) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        holder.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{holder.pid}/stat")
        eventually(lambda: ") T " in stat.read_text())  # all of its threads
        try:
            began = time.monotonic()
            with pytest.raises(RingfenceError, match=r"in use here, by another client"):
                spaces[0].try_lock("still")
            assert time.monotonic() - began < 30
        finally:
            holder.send_signal(signal.SIGCONT)
        with spaces[0].lock("still", wait_ms=60_000):
            pass
        assert holder.stdin is not None
        holder.stdin.close()


def test_asyncio_and_blocking_meet(two: Lab, spaces: tuple[Lockspace, Lockspace]) -> None:
    async def main() -> None:
        async with await aio.connect(two.socket(TWO)) as ring:
            space = await ring.lockspace("games")
            async with await space.lock("chess", cached=True):
                with pytest.raises(LockHeld):
                    await asyncio.to_thread(spaces[0].try_lock, "chess")
            await asyncio.to_thread(lambda: spaces[0].try_lock("chess").unlock(wait=True))
            held = spaces[0].lock("chess")
            waits = asyncio.create_task(space.lock("chess"))
            await asyncio.sleep(0.2)
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
            held.unlock(wait=True)
            async with await space.try_lock("chess"):
                pass

    asyncio.run(main())


def test_locks_shows_what_a_client_caches_as_held(two: Lab, spaces: tuple[Lockspace, Lockspace]) -> None:
    spaces[0].lock("shown", cached=True).unlock()
    (row,) = [line for line in done(two, TWO, "locks", "games").splitlines() if " shown " in line]
    assert " EX " in row


def test_a_cache_ends_with_its_host_s_authority() -> None:
    """A host is frozen and given up on a lie; its client runs on, and stops in time to use what it caches."""
    with running(2) as lab, connect(lab.socket(ONE)) as one, connect(lab.socket(TWO)) as two:
        space, other = one.lockspace("games"), two.lockspace("games")
        used: list[float] = []

        def use() -> None:
            with contextlib.suppress(RingfenceError):
                while True:
                    space.lock("chess", cached=True).unlock()
                    used.append(time.monotonic())

        threading.Thread(target=use, daemon=True).start()
        eventually(lambda: len(used) > 1000)
        for device in ("bmc", "pdu-a", "pdu-b"):
            lab.lie(ONE, device, "perfect")
        frozen = time.monotonic()
        lab.freeze(ONE)
        with other.lock("chess", wait_ms=60_000):
            granted = time.monotonic()
            assert frozen < used[-1] < granted, "it went on for a while, and not for too long"
            lab.thaw(ONE)
