"""What is measured, each in processes of its own: `python lock_work.py WORK SYSTEM WHERE NODE …`.

A worker says "ready" on its standard output, reads its orders, one a line, and answers each with one line
of JSON.  Times are CLOCK_MONOTONIC nanoseconds, which all processes of a host share."""

import contextlib
import json
import os
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lock_peers import CLIENTS, Client

PING_BYTES = 64
PATIENCE_S = 120.0
CONNECT_S = 6.0
"""For 64 clients."""
ASIDE_S = 0.01
"""Whoever has unlocked says so later: what bench and worker do about that answer would otherwise take the CPU
from a lock that is on its way to who waits for it, where an unlock does not wait for its reply."""

# -- in the worker ---------------------------------------------------------------------


def pairs(client: Client, count: int) -> list[int]:
    """Nanoseconds of each lock and unlock of a lock that nobody else wants."""
    took = []
    for _ in range(count):
        began = time.perf_counter_ns()
        client.lock("uncontended")
        client.unlock("uncontended")
        took.append(time.perf_counter_ns() - began)
    return took


def new_names(client: Client, count: int) -> list[int]:
    """As `pairs`, each with a name that nobody has used before."""
    took = []
    for number in range(count):
        name = f"new-{time.monotonic_ns()}-{number}"
        began = time.perf_counter_ns()
        client.lock(name)
        client.unlock(name)
        took.append(time.perf_counter_ns() - began)
    return took


def crowd(where: dict[str, Any], node: int, system: str, threads: int, from_ns: int, until_ns: int) -> int:
    """Pairs that so many threads had in that time, each with a lock of its own.

    Clients that threads cannot share are one a thread."""
    shared = CLIENTS[system](where, node) if system.startswith("ringfence") else None
    counts = [0] * threads

    def work(number: int) -> None:
        client = shared or CLIENTS[system](where, node)
        name = f"own-{node}-{number}"
        assert time.monotonic_ns() < from_ns, "connecting took too long"
        time.sleep((from_ns - time.monotonic_ns()) / 1e9)
        done = 0
        while time.monotonic_ns() < until_ns:
            client.lock(name)
            client.unlock(name)
            done += 1
        counts[number] = done

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(counts)


def tight(client: Client, until_ns: int) -> list[int]:
    """When this one was inside, in a loop against another that does the same."""
    inside = []
    while (now := time.monotonic_ns()) < until_ns:
        client.lock("contended")
        now = time.monotonic_ns()
        inside.append(now)
        client.unlock("contended")
    return inside


def serve(system: str, where: dict[str, Any], node: int) -> None:
    client = None if system == "-" else CLIENTS[system](where, node)
    print("ready", flush=True)
    for line in sys.stdin:
        word, *rest = json.loads(line)
        answer: Any = None
        if word == "pairs":
            assert client is not None
            answer = pairs(client, *rest)
        elif word == "new":
            assert client is not None
            answer = new_names(client, *rest)
        elif word == "tight":
            assert client is not None
            answer = tight(client, *rest)
        elif word == "crowd":
            answer = crowd(where, node, *rest)
        elif word == "lock":
            assert client is not None
            client.lock(*rest)
            answer = time.monotonic_ns()
        elif word == "unlock":
            assert client is not None
            answer = time.monotonic_ns()
            client.unlock(*rest)
            time.sleep(ASIDE_S)
        elif word == "ping":
            answer = ping(*rest)
        elif word == "pin":
            os.sched_setaffinity(0, rest)
        print(json.dumps(answer), flush=True)


def ping(path: str, count: int) -> list[int]:
    """Ping-pong of 64 bytes with whoever serves the socket."""
    took = []
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        ball = bytes(PING_BYTES)
        for _ in range(count):
            began = time.perf_counter_ns()
            peer.send(ball)
            peer.recv(PING_BYTES)
            took.append(time.perf_counter_ns() - began)
    return took


def pong(path: str, cpu: int) -> None:
    if cpu >= 0:
        os.sched_setaffinity(0, [cpu])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        peer, _ = listener.accept()
        with peer:
            while ball := peer.recv(PING_BYTES):
                peer.send(ball)


# -- in the bench -----------------------------------------------------------------------


def us(took_ns: list[int]) -> dict[str, float]:
    ordered = sorted(took_ns)
    return {
        "p50": statistics.median(ordered) / 1000,
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] / 1000,
    }


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure, over the rounds."""
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


class Worker:
    """A worker process.  A context manager: leaving it ends the process."""

    def __init__(self, system: str, where: dict[str, Any], node: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), system, json.dumps(where), str(node)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._line()

    def order(self, *words: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        return json.loads(self._line())

    def ask(self, *words: Any) -> Any:
        self.order(*words)
        return self.answer()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE_S)[0]:
            raise TimeoutError(f"a worker says nothing for {PATIENCE_S:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended")
        return line

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def hand_overs(system: str, where: dict[str, Any], count: int, queued_s: float) -> list[int]:
    """From the holder's call of unlock to the return of the other's lock, which has waited for a while.

    The two take turns, on two nodes where the system has two."""
    with Worker(system, where, 0) as one, Worker(system, where, 1) as two:
        took = []
        holder, waiter = one, two
        holder.ask("lock", "directed")
        for _ in range(count):
            waiter.order("lock", "directed")
            time.sleep(queued_s)
            began = holder.ask("unlock", "directed")
            took.append(waiter.answer() - began)
            holder, waiter = waiter, holder
        holder.ask("unlock", "directed")
    return took


def in_turns(system: str, where: dict[str, Any], seconds: float) -> dict[str, float]:
    """Two in a tight loop: hand-overs a second, how many grants were one, the smaller share, longest run."""
    with Worker(system, where, 0) as one, Worker(system, where, 1) as two:
        until = time.monotonic_ns() + int(seconds * 1e9)
        for worker in (one, two):
            worker.order("tight", until)
        inside = [(at, number) for number, worker in enumerate((one, two)) for at in worker.answer()]
    inside.sort()
    runs: list[int] = []
    for position, (_, number) in enumerate(inside):
        if position and number == inside[position - 1][1]:
            runs[-1] += 1
        else:
            runs.append(1)
    first = sum(1 for _, number in inside if number == 0)
    return {
        "hand_overs_per_s": (len(runs) - 1) / seconds,
        "alternation": (len(runs) - 1) / max(1, len(inside) - 1),
        "smaller_share": min(first, len(inside) - first) / max(1, len(inside)),
        "longest_run": max(runs, default=0),
    }


def throughput(system: str, where: dict[str, Any], processes: int, threads: int, seconds: float) -> float:
    """Pairs a second of so many clients, each with a lock of its own."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker("-", where, number)) for number in range(processes)]
        begins = time.monotonic_ns() + int(CONNECT_S * 1e9)
        for worker in workers:
            worker.order("crowd", system, threads, begins, begins + int(seconds * 1e9))
        return float(sum(worker.answer() for worker in workers) / seconds)


def ping_pong(directory: Path, count: int, pinned: bool) -> list[int]:
    path = directory / f"ping-{time.monotonic_ns()}"
    cpu = min(os.sched_getaffinity(0)) if pinned else -1
    words = [sys.executable, str(Path(__file__)), "pong", str(path), str(cpu)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other, Worker("-", {}) as worker:
        assert other.stdout is not None
        other.stdout.readline()
        if pinned:
            worker.ask("pin", cpu)
        took: list[int] = worker.ask("ping", str(path), count)
    return took


if __name__ == "__main__":
    if sys.argv[1] == "pong":
        pong(sys.argv[2], int(sys.argv[3]))
    else:
        serve(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
