"""Programs on two hosts that wait for one another: told by `locks --deadlocks`, ended for who asks so."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_lab import ONE, TWO, done, eventually, ringfence, running

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
    assert one.communicate(timeout=20) == ("both\n", "")
    other.communicate(timeout=20)
    eventually(lambda: deadlocks(two, TWO) == [])


def test_the_one_that_asked_so_is_refused_and_the_other_goes_on(two: Lab, tmp_path: Path) -> None:
    one = nested(two, ONE, "c", "d", tmp_path)
    other = nested(two, TWO, "d", "c", tmp_path, "-D")
    told = other.communicate(timeout=30)
    assert (other.returncode, told[0]) == (1, "")
    assert "games/c: to wait would be for ever: " in told[1]
    assert told[1].count("\n") == 1
    assert one.communicate(timeout=20) == ("both\n", "")
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
