"""The storage driver: direct and aligned, in order, behind its guard, on files and block devices."""

import os
from pathlib import Path

import pytest

from ringfence.core.errors import DeviceFailed, NoAuthority, NotFound
from ringfence.engine.orders import Read, ReadBlocks, ScanDevices, Write, WriteBlocks, WriteVersion
from ringfence.storage import Moment, Storage, direct

SIZE = 1 << 20


@pytest.fixture
def image(directory: Path) -> str:
    path = directory / "a.img"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    return str(path)


def allow(vg: str) -> None:
    pass


def one(path: str, offset: int, data: bytes, **options: str) -> WriteBlocks:
    return WriteBlocks((Write(path, offset, data),), **options)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 512), (1, 1), (511, 2), (4095, 4098), (SIZE - 3, 3), (0, 0)]
)
def test_reads_and_writes_any_range(image: str, offset: int, length: int) -> None:
    storage = Storage([image], allow)
    before = Path(image).read_bytes()
    assert storage.do(ReadBlocks((Read(image, offset, length),))) == (before[offset : offset + length],)
    data = b"\xaa" * length
    storage.do(one(image, offset, data))
    assert Path(image).read_bytes() == before[:offset] + data + before[offset + length :]


def test_on_a_block_device(loop: str, image: str) -> None:
    storage = Storage(["/dev/loop*"], allow)
    (device,) = [found for found in storage.do(ScanDevices()) if found.path == loop]
    assert (device.size_bytes, device.sector_bytes) == (SIZE, 512)
    storage.do(one(loop, 1000, b"hello"))
    assert storage.do(ReadBlocks((Read(loop, 998, 9),))) == (b"\xe6\xe7hello\xed\xee",)
    assert Path(image).read_bytes()[1000:1005] == b"hello"


def test_scan_finds_each_device_once(directory: Path, image: str) -> None:
    (directory / "link.img").symlink_to(image)
    (directory / "empty.img").touch()
    (directory / "sub.img").mkdir()
    os.mkfifo(directory / "fifo.img")
    (directory / "odd[1].img").write_bytes(bytes(512))
    storage = Storage([f"{directory}/*.img", f"{directory}/odd[1].img", f"{directory}/absent"], allow)
    found = {device.path: device.aliases for device in storage.do(ScanDevices())}
    assert found == {image: (f"{directory}/link.img",), f"{directory}/odd[1].img": ()}


def test_other_names_of_a_device_are_known(directory: Path, image: str) -> None:
    link = directory / "by-id"
    link.symlink_to(image)
    (device,) = Storage([str(link)], allow).do(ScanDevices())
    assert (device.path, device.aliases) == (str(link), (image,))


def test_devices_that_are_not_allowed_are_not_opened(directory: Path, image: str) -> None:
    other = directory / "b.dat"
    other.write_bytes(bytes(512))
    storage = Storage([image], allow)
    for order in (one(str(other), 0, b"x"), ReadBlocks((Read(str(other), 0, 1),))):
        with pytest.raises(NotFound, match="not among the devices"):
            storage.do(order)
    assert other.read_bytes() == bytes(512)


def test_what_cannot_be_read_is_none(directory: Path, image: str) -> None:
    storage = Storage([str(directory / "*.img")], allow)
    gone = directory / "b.img"
    gone.write_bytes(bytes(4096))
    storage.do(ScanDevices())
    gone.unlink()
    answers = storage.do(ReadBlocks((Read(image, 0, 2), Read(str(gone), 0, 2), Read(image, SIZE - 1, 2))))
    assert answers == (b"\0\1", None, None)


def test_a_write_beyond_the_end_fails_and_does_not_grow_the_file(image: str) -> None:
    with pytest.raises(DeviceFailed, match=f"{image}: beyond the end"):
        Storage([image], allow).do(one(image, SIZE - 1, b"xx"))
    assert os.path.getsize(image) == SIZE


def test_the_guard_is_asked_before_and_after_each_write(image: str) -> None:
    events: list[str] = []
    storage = Storage(
        [image],
        lambda vg: events.append(f"guard {vg}"),
        lambda moment, what, index, write: events.append(f"{moment.value} {what} {index}"),
    )
    storage.do(WriteBlocks((Write(image, 0, b"a"), Write(image, 9, b"b")), "vg0", "text"))
    each = ["guard vg0", "before text {}", "after text {}", "guard vg0"]
    assert events == [line.format(index) for index in (0, 1) for line in each]


@pytest.mark.parametrize("allowed", range(4))
def test_without_authority_nothing_further_is_written(image: str, allowed: int) -> None:
    asked = [0]

    def guard(vg: str) -> None:
        asked[0] += 1
        if asked[0] > allowed:
            raise NoAuthority("lapsed")

    storage = Storage([image], guard)
    with pytest.raises(NoAuthority):
        storage.do(WriteBlocks(tuple(Write(image, at, b"\xff") for at in (0, 1, 2)), "vg0"))
    written = Path(image).read_bytes()[:3].count(0xFF)
    assert written == (allowed + 1) // 2
    assert asked[0] == allowed + 1, "once refused, the guard is not asked again"


@pytest.mark.parametrize("fails", ["write", "flush"])
def test_what_was_written_is_flushed_though_another_device_fails(
    directory: Path, image: str, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """An area that names the new version makes it the VG's: it counts, whatever becomes of the others."""
    images = [image, *(str(directory / name) for name in ("b.img", "c.img"))]
    for path in images[1:]:
        Path(path).write_bytes(bytes(SIZE))
    broken, committing = images[1], False
    flushed: list[str] = []
    write, flush = direct.DirectFile.write, direct.DirectFile.flush

    def writes(self: direct.DirectFile, offset: int, data: bytes) -> None:
        nonlocal committing
        committing = data == b"new"
        if (fails, committing, self.path) == ("write", True, broken):
            raise DeviceFailed(f"cannot write {broken}")
        write(self, offset, data)

    def flushes(self: direct.DirectFile) -> None:
        if (fails, committing, self.path) == ("flush", True, broken):
            raise DeviceFailed(f"cannot flush {broken}")
        flush(self)
        flushed.extend([self.path] * committing)

    monkeypatch.setattr(direct.DirectFile, "write", writes)
    monkeypatch.setattr(direct.DirectFile, "flush", flushes)
    texts, precommits, commits = (
        tuple(Write(path, at, data) for path in images)
        for at, data in ((4096, b"text"), (0, b"pre"), (0, b"new"))
    )
    with pytest.raises(DeviceFailed, match=f"cannot {fails} {broken}"):
        Storage(images, allow).do(WriteVersion(texts, precommits, commits, "vg0"))
    assert Path(image).read_bytes()[:3] == b"new"
    assert flushed == [path for path in images if fails == "write" or path != broken]


def test_a_crash_stops_between_two_writes(image: str) -> None:
    class Crash(Exception):
        pass

    def crash(moment: Moment, what: str, index: int, write: Write) -> None:
        if (moment, index) == (Moment.BEFORE, 1):
            raise Crash

    with pytest.raises(Crash):
        Storage([image], allow, crash).do(WriteBlocks((Write(image, 0, b"\xff"), Write(image, 1, b"\xff"))))
    assert Path(image).read_bytes()[:2] == b"\xff\1"


def test_without_o_direct_it_is_said_once_and_still_works(
    image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that refuses O_DIRECT, as tmpfs long did."""
    real = os.open
    flags_seen = []

    def refuse(path: str, flags: int, *rest: int) -> int:
        flags_seen.append(flags)
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real(path, flags, *rest)

    monkeypatch.setattr(direct.os, "open", refuse)
    said: list[str] = []
    storage = Storage([image], allow, say=said.append)
    storage.do(one(image, 3, b"zz"))
    storage.do(one(image, 5, b"zz"))
    assert storage.do(ReadBlocks((Read(image, 3, 4),))) == (b"zzzz",)
    assert said == [f"{image} has no O_DIRECT: O_DSYNC is used; hosts must not share it"]
    assert all(flags & os.O_DSYNC for flags in flags_seen if flags & os.O_RDWR and not flags & os.O_DIRECT)


def test_blocks_of_4096_bytes_are_respected(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk whose smallest block is 4 KiB refuses anything else; neighbours stay as they are."""
    preadv, pwritev = os.preadv, os.pwritev

    def check(offset: int, length: int) -> None:
        if offset % 4096 or length % 4096:
            raise OSError(22, "Invalid argument")

    def strict_read(fd: int, buffers: list[memoryview], offset: int) -> int:
        check(offset, sum(map(len, buffers)))
        return preadv(fd, buffers, offset)

    def strict_write(fd: int, buffers: list[memoryview], offset: int) -> int:
        check(offset, sum(map(len, buffers)))
        return pwritev(fd, buffers, offset)

    monkeypatch.setattr(direct.os, "preadv", strict_read)
    monkeypatch.setattr(direct.os, "pwritev", strict_write)
    before = Path(image).read_bytes()
    Storage([image], allow).do(one(image, 4608, b"\xee" * 512))
    assert Path(image).read_bytes() == before[:4608] + b"\xee" * 512 + before[5120:]


def test_memory_that_is_used_again_shows_nothing_of_what_was_in_it(tmp_path: Path) -> None:
    """Neither where a file ends early nor where blocks are filled up; and what is long has its own."""
    long, short = tmp_path / "long.img", tmp_path / "short.img"
    long.write_bytes(b"s" * (1 << 20))
    short.write_bytes(b"a" * 1000 + b"b" * 524)
    with direct.DirectFile(str(long), write=False) as file:
        assert file.read(0, 1 << 20) == b"s" * (1 << 20)
        assert file.read(0, 8192) == b"s" * 8192
    with direct.DirectFile(str(short), write=True) as file:
        with pytest.raises(DeviceFailed):
            file.read(1000, 1000)
        assert file.read(999, 3) == b"abb"
        file.write(1000, b"c" * 24)
        assert file.read(0, 1524) == b"a" * 1000 + b"c" * 24 + b"b" * 500


def test_memory_that_is_in_use_is_not_given_to_another(tmp_path: Path) -> None:
    with direct._aligned(4096) as one, direct._aligned(4096) as other:
        one[:], other[:] = b"1" * 4096, b"2" * 4096
        assert bytes(one) == b"1" * 4096
