"""Stories that need but one host, told to LVM2's own lvmlockd in its test mode: what it answers, we answer.

In that mode it has no lock manager, and each lock is granted; all else is as ever."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lvm2_story import replay
from stock_rig import BareHost, loop
from tap import Tap

STORIES = Path(__file__).parent / "stories"
TEST_MODE = ("env", "-u", "LVM_LVMLOCKD_SOCKET", "lvmlockd", "-T", "-D", "-g", "dlm")


@pytest.fixture
def one() -> Iterator[BareHost]:
    path = Path(tempfile.mkdtemp(prefix="rflv", dir="/tmp"))
    try:
        with loop(path) as disk, lvmlockd(BareHost(path / "one", disk)) as host:
            yield host
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def lvmlockd(host: BareHost) -> Iterator[BareHost]:
    """LVM2's own runs there."""
    socket = host.run / "lvm/lvmlockd.socket"
    socket.parent.mkdir()
    with open(os.devnull, "r+") as nothing:
        process = host.popen(TEST_MODE, [nothing.fileno()] * 3)
    try:
        give_up = time.monotonic() + 60
        while not socket.exists():
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.01)
        yield host
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("story", ["alone", "create_and_remove"])
def test_lvmlockd_says_the_same(story: str, one: BareHost) -> None:
    tap = Tap(one.run / "tap", one.run / "lvm/lvmlockd.socket")
    text, now = replay(STORIES / f"{story}.txt", {"one": one}, {"one": tap}, one.disk)
    assert now == text
