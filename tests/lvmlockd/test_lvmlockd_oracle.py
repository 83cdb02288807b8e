"""Stories that need but one host, told to LVM2's own lvmlockd in its test mode: what it answers, we answer.

In that mode it has no lock manager, and each lock is granted; all else is as ever.

It forgets its -g when it has no lockspace left (nothing sets its gl_type_static), which is as soon after a
lockstop as one of its threads comes to count them, and then finds no lock manager.  So it always has a
lockspace more, of a VG that is nowhere."""

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lvm2_story import replay
from stock_rig import BareHost, loop
from tap import END, Tap

STORIES = Path(__file__).parent / "stories"
ELSEWHERE = (
    b'request="start_vg"\npid=1\ncmd="test"\nvg_name="elsewhere"\nvg_lock_type="dlm"\nvg_lock_args="1.0.0:c"'
)
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
    place = host.run / "lvm/lvmlockd.socket"
    place.parent.mkdir()
    with open(os.devnull, "r+") as nothing:
        process = host.popen(TEST_MODE, [nothing.fileno()] * 3)
    try:
        give_up = time.monotonic() + 60
        while not place.exists():
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.01)
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(place))
            asked.sendall(ELSEWHERE + END)
            assert b"op_result = 0" in asked.recv(1 << 16)
        yield host
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("story", ["alone", "create_and_remove"])
def test_lvmlockd_says_the_same(story: str, one: BareHost) -> None:
    tap = Tap(one.run / "tap", one.run / "lvm/lvmlockd.socket")
    text, now = replay(STORIES / f"{story}.txt", {"one": one}, {"one": tap}, one.disk)
    assert now == text
