"""What a real kernel said, byte for byte, against our packing and against the fake.

Recorded by `tests/rig/story.py` in a guest of the rig (`make rig` compares it anew)."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fake_dm import FakeMapper, story

from ringfence.block.dm.control import Control
from ringfence.block.dm.mapper import Line
from ringfence.core.errors import Unavailable

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("kernel-*.json"))


@pytest.fixture(params=RECORDINGS, ids=lambda path: path.stem)
def recording(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text())


def tables(disk: str) -> tuple[list[Line], list[Line]]:
    """As `tests/rig/story.py` has them."""
    lines = [
        Line(0, 8192, "linear", f"{disk} 2048"),
        Line(8192, 4096, "striped", f"2 128 {disk} 20480 {disk} 40960"),
    ]
    return lines, [*lines, Line(12288, 8192, "linear", f"{disk} 81920")]


class Replayed:
    """As fcntl.ioctl.  Every request must be the recorded one, to the byte."""

    def __init__(self, conversation: list[dict[str, Any]]) -> None:
        self._left = list(conversation)

    def __call__(self, fd: int, request: int, buffer: bytearray, mutate: bool) -> int:
        one = self._left.pop(0)
        assert request == one["request"]
        assert buffer == bytes.fromhex(one["asked"]).ljust(one["size"], b"\0")
        if "errno" in one:
            raise OSError(one["errno"], os.strerror(one["errno"]))
        buffer[:] = bytes.fromhex(one["answered"]).ljust(one["size"], b"\0")
        return 0

    @property
    def done(self) -> bool:
        return not self._left


def test_our_ioctls_are_the_kernels(recording: dict[str, Any]) -> None:
    replayed = Replayed(recording["conversation"])
    control = Control(Path("/dev/null"), replayed)
    try:
        told = story(control, *tables(recording["disk"]), lambda kernel: lambda: None)
    finally:
        control.close()
    assert told == recording["told"]
    assert replayed.done


def test_the_fake_answers_as_the_kernel_did(recording: dict[str, Any]) -> None:
    fake = FakeMapper()

    def users(kernel: str) -> Any:
        (uuid,) = (one.uuid for one in fake.devices.values() if f"dm-{one.minor}" == kernel)
        fake.open(uuid)
        return lambda: fake.close(uuid)

    assert story(fake, *tables(recording["disk"]), users) == recording["told"]


def test_an_answer_that_does_not_fit_is_asked_for_with_more_room() -> None:
    rooms = []

    def ioctl(fd: int, request: int, buffer: bytearray, mutate: bool) -> int:
        rooms.append(len(buffer))
        if request & 0xFF == 12 and len(rooms) < 4:
            buffer[28:32] = (1 << 8).to_bytes(4, "little")  # DM_BUFFER_FULL_FLAG
        return 0

    control = Control(Path("/dev/null"), ioctl)
    assert control.table("LVM-x") == ()
    control.close()
    assert rooms[1] < rooms[2] < rooms[3]


def test_a_host_without_device_mapper_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot be used: .*No such file.*modprobe dm_mod as root, or"):
        Control(tmp_path / "control")
