"""Disk slots on real files and loop devices, and the thread that an array without an answer keeps."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ringfence.core.errors import NoAuthority, NotFound, TimedOut, VgChanged
from ringfence.core.ids import Life
from ringfence.daemon.slots import SlotThreads
from ringfence.engine.orders import SlotIo, VgText
from ringfence.storage.direct import DirectFile
from ringfence.storage.slots import SlotDevice
from ringfence.wire import slots

LIFE = Life(1, "m", "boot", 1)
HEADER = slots.print_block(slots.Header("ring", "uuid", 8, "lv"), 0)
OWN = slots.print_block(slots.Own(LIFE, 1), slots.own_offset(1))
START = 1 << 20
TEXT_AT, TEXT = 4096 + 40, bytes(24)
NO_TEXT = VgText("/dev/a", 0, b"")


@pytest.fixture(params=[0, 512, 4096])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A file, and loop devices with sectors of both sizes, with empty slots on it."""
    image = tmp_path / "image"
    image.write_bytes(bytes(START) + HEADER + bytes(slots.size_bytes(8) - len(HEADER)))
    if not request.param:
        yield str(image)
        return
    made = subprocess.run(
        ["losetup", "--find", "--show", "--sector-size", str(request.param), str(image)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    path = made.stdout.strip()
    try:
        yield path
    finally:
        subprocess.run(["losetup", "--detach", path], check=True)


def order(path: str, write: tuple[int, bytes] | None = None, *reads: int) -> SlotIo:
    return SlotIo("vg0", path, START, HEADER, VgText(path, TEXT_AT, TEXT), reads, write)


def test_write_then_read(device: str) -> None:
    one = SlotDevice(lambda: 0)
    own, mark = slots.own_offset(1), slots.mark_offset(1)
    assert one.do(order(device, None, mark)) == (bytes(slots.BLOCK_BYTES),)
    assert one.do(order(device, (own, OWN), own, mark)) == (OWN, bytes(slots.BLOCK_BYTES))
    one.close()
    other = SlotDevice(lambda: 0)
    assert other.do(order(device, None, own)) == (OWN,)
    other.close()


def test_nothing_is_written_once_the_vg_is_another(device: str) -> None:
    """Its slots may be elsewhere by then, and another's data here; the header may still be read."""
    one = SlotDevice(lambda: 0)
    own = slots.own_offset(1)
    changed = msgspec.structs.replace(order(device, (own, OWN)), text=VgText(device, TEXT_AT, b"x" * 24))
    with pytest.raises(VgChanged):
        one.do(changed)
    assert one.do(order(device, None, own)) == (bytes(slots.BLOCK_BYTES),)
    one.close()


def test_what_was_read_while_the_vg_changed_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark that was written just then may not be in the copy that stock LVM2 made of the slots."""
    image = tmp_path / "image"
    image.write_bytes(bytes(START) + HEADER + bytes(slots.size_bytes(8)))
    flush = DirectFile.flush

    def change(self: DirectFile) -> None:
        flush(self)
        with image.open("r+b") as file:
            file.seek(TEXT_AT)
            file.write(b"x" * 24)

    monkeypatch.setattr(DirectFile, "flush", change)
    with pytest.raises(VgChanged):
        SlotDevice(lambda: 0).do(order(str(image), (slots.own_offset(1), OWN)))


def test_slots_that_are_gone_are_not_written(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(START + slots.size_bytes(8)))
    with pytest.raises(NotFound, match=r"not on .* any more"):
        SlotDevice(lambda: 0).do(order(str(image), (slots.own_offset(1), OWN)))
    assert image.read_bytes() == bytes(START + slots.size_bytes(8))


def test_a_write_from_the_past_is_not_begun(tmp_path: Path) -> None:
    """A host that stood still must not carry out today what it decided then."""
    image = tmp_path / "image"
    image.write_bytes(bytes(START) + HEADER + bytes(slots.size_bytes(8)))
    late = msgspec.structs.replace(order(str(image), (slots.own_offset(1), OWN)), not_after_ns=5)
    with pytest.raises(NoAuthority):
        SlotDevice(lambda: 6).do(late)
    SlotDevice(lambda: 5).do(late)


class _Dead:
    """An array that answers when it is told to."""

    def __init__(self) -> None:
        self.back = threading.Event()
        self.closed = threading.Event()
        self.done: list[SlotIo] = []

    def do(self, order: SlotIo) -> tuple[bytes, ...]:
        self.back.wait()
        self.done.append(order)
        return ()

    def close(self) -> None:
        self.closed.set()


def test_a_dead_array_keeps_one_thread_and_nobody_else() -> None:
    """One order hangs, the next is given up and never begins, another VG's is answered at once."""
    dead, well = _Dead(), _Dead()
    well.back.set()
    devices = iter([dead, well])
    first = SlotIo("vg0", "/dev/a", 0, b"", NO_TEXT, (), limit_ms=500)  # it does begin
    second = SlotIo("vg0", "/dev/a", 4096, b"", NO_TEXT, (), limit_ms=30)

    async def main() -> None:
        threads = SlotThreads(time.monotonic_ns, lambda: next(devices))
        for one in (first, second):
            late = rf"VG vg0: its array \(/dev/a\) did not answer within {one.limit_ms} ms"
            with pytest.raises(TimedOut, match=late):
                await threads.do(one)
        await threads.do(SlotIo("vg1", "/dev/b", 0, b"", NO_TEXT, ()))
        dead.back.set()
        await threads.do(SlotIo("vg0", "/dev/a", 8192, b"", NO_TEXT, ()))

    asyncio.run(main())
    assert [one.start_bytes for one in dead.done] == [0, 8192]


def test_a_device_that_is_not_used_any_more_is_closed() -> None:
    """Its VG was removed, and somebody wants to take the disk away."""
    device = _Dead()
    device.back.set()

    async def main() -> None:
        threads = SlotThreads(time.monotonic_ns, lambda: device, idle_s=0.02)
        await threads.do(SlotIo("vg0", "/dev/a", 0, b"", NO_TEXT, ()))
        assert await asyncio.to_thread(device.closed.wait, 60)
        await threads.do(SlotIo("vg0", "/dev/a", 4096, b"", NO_TEXT, ()))

    asyncio.run(main())
    assert [one.start_bytes for one in device.done] == [0, 4096], "and is opened when it is used again"
