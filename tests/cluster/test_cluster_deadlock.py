"""Programs on two hosts that wait for one another: told by `locks --deadlocks`, ended for who asks so."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_lab import ONE, TWO, done, eventually, ringfence, running

import ringfence as api
from ringfence.client import Lockspace, aio
from ringfence.core.errors import Deadlock
from ringfence.lab.cluster import Lab
from ringfence.wire import client as calls
from ringfence.wire.client import Reply, Request


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with running(2) as lab:
        yield lab


def nested(lab: Lab, node: str, first: str, second: str, meet: Path, *options: str) -> subprocess.Popen[str]:
    """Hold the first lock, wait until the other program holds its own, then ask for the second."""
    script = (
        f"touch {meet}/{first}; while [ ! -e {meet}/{second} ]; do sleep 0.05; done; "
        f"exec {sys.executable} -m ringfence lock games {second} {' '.join(options)} -- echo both"
    )
    return subprocess.Popen(
        [sys.executable, "-m", "ringfence", "lock", "games", first, "--", "sh", "-c", script],
        env={**os.environ, **lab.env(node)}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def deadlocks(lab: Lab, node: str) -> list[list[str]]:
    ran = ringfence(lab, node, "locks", "--deadlocks", "--json")
    found = json.loads(ran.stdout)["deadlocks"]
    assert ran.returncode == (1 if found else 0), ran.stderr
    return [ring["lines"] for ring in found]


def test_two_programs_that_wait_for_one_another(two: Lab, tmp_path: Path) -> None:
    assert deadlocks(two, ONE) == []
    one = nested(two, ONE, "a", "b", tmp_path)
    other = nested(two, TWO, "b", "a", tmp_path)
    eventually(lambda: deadlocks(two, ONE) != [])
    for node in (ONE, TWO):
        ((first, second),) = deadlocks(two, node)
        assert f" on {ONE} waits for EX on games/b, which " in first + second
        assert f" on {TWO} waits for EX on games/a, which " in first + second
        assert "pid " in first
    told = done(two, ONE, "locks", "games")
    assert f"behind {TWO}, which holds EX; some of its clients wait: EX on games/a" in told
    assert "waits for EX on games/b" in done(two, ONE, "why", "games/b")
    assert ringfence(two, ONE, "locks", "--deadlocks").stdout.startswith("deadlock 1:\n  uid ")
    # One gives up, by hand.
    other.terminate()
    assert one.communicate(timeout=60) == ("both\n", "")
    other.communicate(timeout=60)
    eventually(lambda: deadlocks(two, TWO) == [])


def test_the_one_that_asked_so_is_refused_and_the_other_goes_on(two: Lab, tmp_path: Path) -> None:
    one = nested(two, ONE, "c", "d", tmp_path)
    other = nested(two, TWO, "d", "c", tmp_path, "-D")
    told = other.communicate(timeout=60)
    assert (other.returncode, told[0]) == (1, "")
    assert "games/c: to wait would be for ever: " in told[1]
    assert told[1].count("\n") == 1
    assert one.communicate(timeout=60) == ("both\n", "")
    assert "deadlock" in done(two, TWO, "events", "--kind", "deadlock")


class Program:
    """One connection, spoken to line by line."""

    def __init__(self, lab: Lab, node: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(lab.env(node)["RINGFENCE_SOCKET"])
        self._lines = self._socket.makefile("rb")
        self._last = 0

    def send(self, call: calls.Call) -> None:
        self._last += 1
        self._socket.sendall(calls.encode(Request(str(self._last), call)))

    def reply(self) -> Reply:
        return calls.decode_reply(self._lines.readline())

    def ask(self, call: calls.Call) -> Any:
        self.send(call)
        reply = self.reply()
        assert reply.error is None, reply.error
        return reply.result


def test_conversions_of_two_hosts(two: Lab) -> None:
    """Both read and want to write: the later one is refused at once, by the rule of one resource."""
    one, other = Program(two, ONE), Program(two, TWO)
    locks = []
    for program in (one, other):
        program.ask(calls.JoinSpace("games"))
        locks.append(program.ask(calls.Lock("games", "e", "PR"))["lock"])
    one.send(calls.Convert(locks[0], "EX"))
    eventually(lambda: " converting " in done(two, TWO, "locks", "games"))
    other.send(calls.Convert(locks[1], "EX"))
    refused = other.reply().error
    assert refused is not None
    assert refused["code"] == "deadlock"
    other.ask(calls.Unlock(locks[1]))
    assert one.reply().result["mode"] == "EX"


def test_threads_whose_locks_are_on_two_connections(two: Lab) -> None:
    """Each holds one that it would be told the loss of, and waits for a plain one."""
    both = threading.Barrier(2)
    ended: list[str] = []

    def nest(space: Lockspace, first: str, second: str) -> None:
        with space.lock(first, on_lost=lambda: None):
            both.wait(60)
            try:
                with space.lock(second, wait_ms=60_000, deadlock=True):
                    ended.append("both")
            except Deadlock:
                ended.append("refused")

    rings = [api.connect(two.env(node)["RINGFENCE_SOCKET"]) for node in (ONE, TWO)]
    try:
        spaces = [ring.lockspace("games") for ring in rings]
        threads = [
            threading.Thread(target=nest, args=(space, *names))
            for space, names in zip(spaces, (("f1", "f2"), ("f2", "f1")), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for ring in rings:
            ring.close()
    assert ended == ["refused", "both"]


def test_tasks_that_share_a_connection_make_no_ring_up(two: Lab) -> None:
    """One holds and waits for nothing, another waits: nobody is refused."""

    async def take(space: aio.Lockspace, name: str, held: asyncio.Event, go_on: asyncio.Event) -> None:
        async with await space.lock(name, wait_ms=60_000, deadlock=True):
            held.set()
            await go_on.wait()

    async def main() -> None:
        async with (
            await aio.connect(two.env(ONE)["RINGFENCE_SOCKET"]) as one,
            await aio.connect(two.env(TWO)["RINGFENCE_SOCKET"]) as other,
            asyncio.TaskGroup() as tasks,
        ):
            spaces = [await ring.lockspace("games") for ring in (one, other)]
            held, go_on = [asyncio.Event(), asyncio.Event()], asyncio.Event()
            for space, name, event in zip(spaces, ("g1", "g2"), held, strict=True):
                tasks.create_task(take(space, name, event, go_on))
            for event in held:
                await event.wait()
            for space, name in zip(spaces, ("g2", "g1"), strict=True):
                tasks.create_task(take(space, name, asyncio.Event(), go_on))
            for node, name in ((ONE, "g2"), (TWO, "g1")):
                waits = f"waits for EX on games/{name}"
                await asyncio.to_thread(
                    eventually,
                    lambda: waits in done(two, node, "why", f"games/{name}"),  # noqa: B023
                )
            assert await asyncio.to_thread(deadlocks, two, ONE) == []
            go_on.set()

    asyncio.run(main())
