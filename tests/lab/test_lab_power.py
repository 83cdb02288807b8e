"""What ends a host must end all of it, and what starts a lab must not be able to lose track of it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_watch import eventually, processes_of, scratch

from ringfence.core.errors import BadInput, Refused, RingfenceError
from ringfence.host.processes import Process, process
from ringfence.lab import cluster, trees
from ringfence.lab.cluster import Lab
from ringfence.lab.interrupts import undisturbed
from ringfence.ring.admin import HubAdmin

SIZE = 64 << 20
ONE, TWO, THREE = "an-a01n01", "an-a01n02", "an-a01n03"
HEADLESS = """
import ctypes, os, sys, threading, time

def beat():
    while True:
        with open(sys.argv[1], "a") as file:
            file.write("x")
        time.sleep(0.01)

threading.Thread(target=beat).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)  # exit of this thread alone
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with scratch("rflab") as path:
        yield path


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Whoever starts the tests in the background has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def sockets_of(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_socket()]


def test_threads_that_outlive_their_first_one_are_frozen_and_cut_too(directory: Path) -> None:
    lab = Lab.up(directory / "lab", 1, SIZE)
    beats = directory / "beats"
    headless: Process | None = None

    def size() -> int:
        return beats.stat().st_size

    def beats_on() -> None:
        before = size()
        eventually(lambda: size() > before)

    try:
        pid = lab.spawn(ONE, [sys.executable, "-c", HEADLESS, str(beats)])
        eventually(lambda: beats.exists() and f"{pid} (" in Path(f"/proc/{pid}/stat").read_text())
        eventually(lambda: ") Z " in Path(f"/proc/{pid}/stat").read_text())
        headless = process(pid)
        assert headless is not None
        beats_on()
        lab.freeze(ONE)
        before = size()
        time.sleep(0.3)
        assert size() == before
        lab.thaw(ONE)
        beats_on()
        lab.power(ONE, "off")
        before = size()
        time.sleep(0.3)
        assert size() == before
        assert not trees.alive(headless)
    finally:
        if headless is not None:
            trees.send(headless, signal.SIGKILL)
        lab.down()


def test_a_host_whose_init_ends_has_crashed_and_nothing_of_it_runs_on(directory: Path) -> None:
    lab = Lab.up(directory / "lab", 2, SIZE)
    try:
        boot = lab.boot_id(ONE)
        init = Process(*lab.status()["hosts"][ONE]["init"])
        tree, others = trees.tree(init), trees.tree(Process(*lab.status()["hosts"][TWO]["init"]))
        assert len(tree) >= 3
        trees.send(init, signal.SIGKILL)
        eventually(lambda: not trees.alive(init))
        assert lab.status()["hosts"][ONE]["init"] is None
        assert not any(trees.alive(one) for one in tree), "who is told of it is told when it is over"
        with pytest.raises(BadInput, match="has crashed"):
            lab.freeze(ONE)
        assert all(trees.alive(one) for one in others)
        lab.power(ONE, "on")
        assert lab.boot_id(ONE) != boot
        assert lab.status()["hosts"][ONE]["boots"] == 2
    finally:
        lab.down()
    assert processes_of(directory) == []


def test_a_second_cut_leaves_the_first_one_cut(directory: Path) -> None:
    lab = Lab.up(directory / "lab", 3, SIZE)
    try:
        for node in (ONE, TWO, ONE):
            lab.cut(node)
        with HubAdmin(lab._places.hub_socket) as hub:
            assert sorted(hub.status().groups) == [(1,), (2,)]
            lab.heal()
            assert hub.status().groups == ()
    finally:
        lab.down()


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("nth", [1, 2])
def test_ctrl_c_at_the_very_start_of_a_process_leaves_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Between the start of the hub (1) or the power switch (2) and the note that it was started."""
    real, started = cluster.process, []

    def interrupted(pid: int) -> Process | None:
        if sys._getframe(1).f_code.co_name == "_run":
            started.append(pid)
            if len(started) == nth:
                os.kill(os.getpid(), signal.SIGINT)
        return real(pid)

    monkeypatch.setattr(cluster, "process", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Lab.up(directory / "lab", 2, SIZE)
    assert len(started) == nth
    assert processes_of(directory) == []


def test_what_a_lab_starts_has_no_signal_blocked(directory: Path) -> None:
    lab = Lab.up(directory / "lab", 1, SIZE)
    try:
        for pid in (lab._kept.carrier[0], lab._kept.power[0]):
            status = Path(f"/proc/{pid}/status").read_text()
            assert int(status.split("SigBlk:")[1].split()[0], 16) == 0
    finally:
        lab.down()


def test_down_ends_what_is_stopped_and_removes_its_sockets(directory: Path) -> None:
    lab = Lab.up(directory / "lab", 2, SIZE)
    lab.freeze(ONE)
    for pid in (lab._kept.power[0], lab._kept.carrier[0]):
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    lab.down()
    assert time.monotonic() - began < 60, "it waits for no answer from a process that is stopped"
    assert processes_of(directory) == []
    assert sockets_of(directory) == []


def test_a_frozen_host_starts_nothing_later(directory: Path) -> None:
    lab = Lab.up(directory / "lab", 1, SIZE)
    try:
        lab.freeze(ONE)
        with pytest.raises(Refused, match="is frozen"):
            lab.spawn(ONE, ["/bin/sh", "-c", f"touch {directory}/ran"])
        lab.thaw(ONE)
        pid = lab.spawn(ONE, ["/bin/true"])
        eventually(lambda: not lab.alive(ONE, pid))
        assert not (directory / "ran").exists()
    finally:
        lab.down()


def test_a_child_that_a_look_has_missed_is_stopped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Born after the second look's list was read, by a parent that read as stopped a moment later."""
    parent, stopped = Process(10, 1, 1, "R"), Process(10, 1, 1, "T")
    child, child_stopped = Process(11, 2, 10, "R"), Process(11, 2, 10, "T")
    both = [stopped, child_stopped]
    looks = iter([[parent], [stopped], [stopped, child], both, both])
    told: list[int] = []
    monkeypatch.setattr(trees, "tree", lambda root: next(looks))
    monkeypatch.setattr(trees, "send", lambda one, number: told.append(one.pid))
    trees.freeze(parent)
    assert told == [10, 11]
    assert list(looks) == []


def test_a_parent_in_vfork_counts_as_stopped_with_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that was frozen while it started an agent could never be powered off."""
    parent, child = Process(10, 1, 1, "D"), Process(11, 2, 10, "T")
    images = {10: b"daemon", 11: b"daemon"}
    told: list[int] = []
    monkeypatch.setattr(trees, "tree", lambda root: [parent, child])
    monkeypatch.setattr(trees, "send", lambda one, number: told.append(one.pid))
    monkeypatch.setattr(trees, "_image", lambda one: images[one.pid])
    trees.freeze(parent)
    assert told == [10], "it is told once more, and obeys when it wakes up"
    images[11] = b"agent"  # it has called exec: the parent sleeps for another reason, and is waited for
    monkeypatch.setattr(trees, "LIMIT_S", 0.05)
    with pytest.raises(RingfenceError, match="do not freeze"):
        trees.freeze(parent)


def interrupted_work(done: list[str]) -> None:
    with undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        done.append("all")


@pytest.mark.usefixtures("interruptible")
def test_what_must_not_be_interrupted_is_not_whatever_thread_takes_the_signal() -> None:
    """With a thread that waits, a signal may be its: a mask of the main thread does not help then."""
    over = threading.Event()
    waiting = threading.Thread(target=over.wait)
    waiting.start()
    done: list[str] = []
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted_work(done)
    finally:
        over.set()
        waiting.join()
    assert done == ["all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
