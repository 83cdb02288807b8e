"""What /proc tells of a process that is ending: as long as one thread of it is left, it is not gone."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ringfence.host.processes import ENDING, GONE, group_lives, process

HEADLESS = """
import ctypes, os, sys, threading

threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)  # exit of this thread alone
"""
LIMIT_S = 20.0


@pytest.fixture
def headless() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose first thread is a zombie, while another waits for its stdin to end."""
    with subprocess.Popen([sys.executable, "-c", HEADLESS], stdin=subprocess.PIPE) as made:
        give_up = time.monotonic() + LIMIT_S
        while _state_in_proc(made.pid) != "Z":
            assert time.monotonic() < give_up
            time.sleep(0.005)
        yield made
        made.kill()


def _state_in_proc(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0]


def test_a_process_lives_as_long_as_any_thread_of_it(headless: subprocess.Popen[bytes]) -> None:
    one = process(headless.pid)
    assert one is not None
    assert one.state == "S"
    assert headless.stdin is not None
    headless.stdin.close()
    give_up = time.monotonic() + LIMIT_S
    while one is not None and one.state not in GONE:
        assert time.monotonic() < give_up
        time.sleep(0.005)
        one = process(headless.pid)


def test_a_list_of_threads_that_ends_early_does_not_make_it_gone(
    headless: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel walks from thread to thread, and stops at one that ends just then."""
    whole = os.listdir

    def cut_short(path: Any = ".") -> list[str]:
        return whole(path)[:1]

    monkeypatch.setattr(os, "listdir", cut_short)
    one = process(headless.pid)
    assert one is not None
    assert one.state == ENDING


def test_what_cannot_be_told_is_not_gone() -> None:
    """Nor is it another process's: a group may live as long as nobody can say that it does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            process(os.getpid())
        assert group_lives(os.getpgid(0))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
