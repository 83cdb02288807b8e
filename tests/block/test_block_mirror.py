"""Mirror: a stretch of an open LV is copied to another place under writers, and is equal there in the end."""

import contextlib
import errno
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from block_rig import MIB, Rig, eventually

from ringfence.block.extents import Extents
from ringfence.block.fastpath import buffer
from ringfence.block.gate import Denied
from ringfence.block.mirror import Copying, Mirror
from ringfence.core.errors import BadInput, NotFound, Refused
from ringfence.engine.orders import MirrorPath, ReloadPath, SealPath, UnmirrorPath
from ringfence.lab.nbd_client import NbdClient
from ringfence.wire import block as wire
from ringfence.wire.block import Extent, Moving

LV, FROM, LENGTH = 24 * MIB, 4 * MIB, 16 * MIB
OLD = MIB
"""Where the LV lies on its image."""


def disk(block: Rig, size_bytes: int = 32 * MIB) -> Path:
    path = block.root / "img2"
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


def order(block: Rig, to: Path) -> MirrorPath:
    """The stretch goes to `to` in two pieces, the second part first."""
    half = LENGTH // 2
    places = (Extent(str(to), MIB + half, half), Extent(str(to), MIB, half))
    one = block.order()
    return MirrorPath("vg0", "vm1", one.uuid, FROM, places, one.token)


def new_place(to: Path) -> bytes:
    data, half = to.read_bytes(), LENGTH // 2
    return data[MIB + half : MIB + LENGTH] + data[MIB : MIB + half]


def mirror(block: Rig, what: MirrorPath) -> None:
    block.ask(lambda service: service.mirror(what))


def moving(block: Rig) -> Moving | None:
    return block.ask(lambda service: service.list())[0].moving


def complete(block: Rig) -> bool:
    now = moving(block)
    assert now is not None
    assert not now.failed
    return now.complete


def seal(block: Rig) -> None:
    block.ask(lambda service: service.seal(SealPath("vg0", "vm1", block.order().uuid)))


def reload(block: Rig, what: MirrorPath) -> None:
    image = str(block.image)
    before, behind = Extent(image, OLD, FROM), Extent(image, OLD + FROM + LENGTH, LV - FROM - LENGTH)
    table = (before, *what.to, behind)
    order = ReloadPath("vg0", "vm1", what.uuid, table, "vm1", False, what.token)
    block.ask(lambda service: service.reload(order))


class Writers:
    """Some clients that write all over the LV, each to blocks of its own, and know what must be there."""

    def __init__(self, uri: str, count: int = 3) -> None:
        self._uri, self._count = uri, count
        self._stop = threading.Event()
        self.expected = bytearray(LV)
        self.done = 0
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        chance = random.Random(number)
        try:
            with NbdClient(self._uri, timeout_s=60) as client:
                while not self._stop.is_set():
                    lane = chance.randrange(LV // 65536 // self._count) * self._count + number
                    at = lane * 65536 + chance.randrange(0, 65536, 512)
                    length = min(chance.choice([512, 4096, 32768]), (lane + 1) * 65536 - at)
                    data = os.urandom(length)
                    client.write(at, data, fua=chance.random() < 0.1)
                    self.expected[at : at + length] = data
                    self.done += 1
        except BaseException as error:
            self.errors.append(error)

    def wait(self, more: int = 100) -> None:
        """For so many more writes."""
        before = self.done
        eventually(lambda: self.done >= before + more or bool(self.errors))

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors


def test_an_lv_that_has_grown_is_reloaded_to_its_new_place_and_more(block: Rig) -> None:
    """It may grow between the commit and the reload."""
    uri = block.open(block.order(size_bytes=LV))
    to = disk(block)
    what = order(block, to)
    mirror(block, what)
    eventually(lambda: complete(block))
    seal(block)
    image = str(block.image)
    before, behind = Extent(image, OLD, FROM), Extent(image, OLD + FROM + LENGTH, LV - FROM - LENGTH)
    more = Extent(str(to), MIB + LENGTH, MIB)
    stays = Extent(image, OLD + FROM, LENGTH)
    for table in ((before, stays, behind, more), (before, *what.to, more, behind)):
        with pytest.raises(Refused, match="is being moved"):
            block.ask(lambda service, table=table: service.reload(reloading(what, table)))
    block.ask(lambda service: service.reload(reloading(what, (before, *what.to, behind, more))))
    assert moving(block) is None
    with NbdClient(uri) as client:
        assert client.size_bytes == LV + MIB


def reloading(what: MirrorPath, table: tuple[Extent, ...]) -> ReloadPath:
    return ReloadPath("vg0", "vm1", what.uuid, table, "vm1", False, what.token)


def test_the_copy_is_equal_at_every_byte_under_writers(block: Rig) -> None:
    uri = block.open(block.order(size_bytes=LV))
    to = disk(block)
    what = order(block, to)
    writers = Writers(uri)
    for _ in range(4):
        mirror(block, what)
        mirror(block, what)  # asked for once more: it goes on
        eventually(lambda: complete(block))
        writers.wait()
        block.ask(lambda service: service.unmirror(UnmirrorPath("vg0", "vm1", what.uuid)))
        assert moving(block) is None
        writers.wait()
    mirror(block, what)
    eventually(lambda: complete(block))
    with pytest.raises(Refused, match="is being moved"):
        reload(block, what)  # not sealed yet
    seal(block)
    writers.wait()
    writers.end()
    with NbdClient(uri) as client:
        client.flush()
        assert block.on_disk(0, LV) == writers.expected, "the old place has everything"
        assert new_place(to) == writers.expected[FROM : FROM + LENGTH]
    for another in ({"offset_bytes": 0}, {"to": what.to[:1]}):
        with pytest.raises(Refused, match="is being moved already"):
            mirror(block, msgspec.structs.replace(what, **another))


def test_it_is_reloaded_under_writers_and_the_old_place_is_left(block: Rig) -> None:
    uri = block.open(block.order(size_bytes=LV))
    to = disk(block)
    what = order(block, to)
    writers = Writers(uri)
    mirror(block, what)
    eventually(lambda: complete(block))
    seal(block)
    reload(block, what)
    assert moving(block) is None
    left = block.on_disk(FROM, LENGTH)
    writers.wait()
    writers.end()
    with NbdClient(uri) as client:
        assert b"".join(client.read(at, MIB) for at in range(0, LV, MIB)) == writers.expected
    assert block.on_disk(FROM, LENGTH) == left
    assert new_place(to) == writers.expected[FROM : FROM + LENGTH]


def test_what_cannot_be_moved(block: Rig) -> None:
    block.open(block.order(size_bytes=LV))
    what = order(block, disk(block))
    with pytest.raises(BadInput, match="beyond the end"):
        mirror(block, msgspec.structs.replace(what, offset_bytes=12 * MIB))
    with pytest.raises(NotFound):
        mirror(block, msgspec.structs.replace(what, uuid="another"))
    with pytest.raises(Refused, match="not complete"):
        seal(block)
    assert moving(block) is None
    with NbdClient(block.path().uri) as client:
        client.write(0, b"1" * 4096)


def test_the_copy_waits_for_authority_and_ends_with_it(block: Rig) -> None:
    uri = block.open(block.order(size_bytes=LV))
    to = disk(block)
    what = order(block, to)
    with NbdClient(uri) as client:
        client.write(FROM, b"2" * 4096)
    block.lapse()
    mirror(block, what)
    assert not complete(block)
    assert new_place(to)[:4096] == bytes(4096)
    block.renew()
    eventually(lambda: complete(block))
    assert new_place(to)[:4096] == b"2" * 4096
    block.ask(lambda service: service.unmirror(UnmirrorPath("vg0", "vm1", what.uuid)))
    block.lose()
    mirror(block, what)
    eventually(lambda: bool((now := moving(block)) and now.failed))
    assert (now := moving(block)) is not None
    assert "authority is lost" in now.failed


def test_a_slice_that_is_written_late_is_told(freezable: Rig) -> None:
    freezable.open(freezable.order(size_bytes=LV))
    what = order(freezable, disk(freezable))
    with freezable.held_writes():
        mirror(freezable, what)
        eventually(lambda: len(freezable.standing()) == 1)
        freezable.lapse()
    told = freezable.incidents(1)[0]
    assert (told.kind, told.offset_bytes, told.length_bytes) == ("write-late", FROM, MIB)
    freezable.renew()
    eventually(lambda: complete(freezable))


@contextlib.contextmanager
def small_file_system(block: Rig) -> Iterator[Path]:
    """Whose 32 MiB file has no place on it."""
    mount = block.root / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)], check=True)
    try:
        with (mount / "img").open("wb") as file:
            file.truncate(32 * MIB)
        yield mount / "img"
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_new_place_that_fails_is_no_matter_to_clients(block: Rig) -> None:
    uri = block.open(block.order(size_bytes=LV))
    with NbdClient(uri) as client, small_file_system(block) as to:
        for at in range(0, LV, MIB):
            client.write(at, os.urandom(MIB))
        mirror(block, order(block, to))
        eventually(lambda: bool((now := moving(block)) and now.failed))
        assert (now := moving(block)) is not None
        assert "No space left" in now.failed
        client.write(FROM, b"3" * 4096)
        client.flush()
        with pytest.raises(Refused, match="not complete"):
            seal(block)
        assert block.on_disk(FROM, 4096) == b"3" * 4096
        block.ask(lambda service: service.close("vg0", "vm1"))


def test_a_sealed_copy_does_not_fail_its_clients_do(tmp_path: Path) -> None:
    """After the metadata may name the new place, what has not reached it is not answered well."""
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(bytes(4 * MIB))
    old = Extents((wire.Extent(str(tmp_path / "old"), 0, 4 * MIB),))
    told: list[wire.Moving] = []
    copy = Mirror(MIB, Extents((wire.Extent(str(tmp_path / "new"), 0, 2 * MIB),)), told.append)
    copy.start(
        Copying(old, lambda left: None, lambda: True, lambda: None, lambda: None, lambda at, length: None)
    )
    eventually(lambda: copy.moving.complete)
    broken = threading.Event()

    def part(extents: Extents, at: int, skip: int, length: int) -> None:
        if extents is copy.to and broken.is_set():
            raise OSError(errno.EIO, "broken")

    copy.change(old, MIB, 4096, part)
    assert copy.seal()
    broken.set()
    with pytest.raises(OSError, match="broken"):
        copy.change(old, MIB, 4096, part)
    copy.change(old, 0, 4096, part)  # not in the stretch
    assert not copy.moving.failed
    assert [one.sealed for one in told][-1]
    copy.stop()
    copy.close()
    old.close()


def test_a_slice_waits_for_a_write_that_was_there_first(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(bytes(MIB))
    old = Extents((wire.Extent(str(tmp_path / "old"), 0, MIB),))
    copy = Mirror(0, Extents((wire.Extent(str(tmp_path / "new"), 0, MIB),)), lambda moving: None)
    begun, go, sat, copies = (threading.Event() for _ in range(4))

    def part(extents: Extents, at: int, skip: int, length: int) -> None:
        begun.set()
        go.wait()
        with (tmp_path / "old").open("r+b") as file:
            file.write(b"4" * length)

    writer = threading.Thread(target=copy.change, args=(old, 0, 4096, part))
    writer.start()
    begun.wait()

    def is_open() -> bool:
        copies.set()
        return True

    copy.start(Copying(old, lambda left: None, is_open, sat.set, lambda: None, lambda at, length: None))
    sat.wait()
    assert not copies.wait(0.2), "it reads what is about to be written"
    go.set()
    writer.join()
    eventually(lambda: copy.moving.complete)
    copy.stop()
    copy.close()
    old.close()
    assert (tmp_path / "new").read_bytes()[:4096] == b"4" * 4096


def test_a_slice_that_took_long_to_read_is_not_written_without_authority(tmp_path: Path) -> None:
    """The disk stood still, and authority has ended meanwhile."""
    (tmp_path / "old").write_bytes(b"5" * MIB)
    (tmp_path / "new").write_bytes(bytes(MIB))
    valid = threading.Event()
    valid.set()
    late: list[int] = []

    class Slow(Extents):
        def read(self, offset: int, into: memoryview) -> None:
            super().read(offset, into)
            valid.clear()

    old = Slow((wire.Extent(str(tmp_path / "old"), 0, MIB),))
    copy = Mirror(0, Extents((wire.Extent(str(tmp_path / "new"), 0, MIB),)), lambda moving: None)
    waits = threading.Event()

    def pass_through(left: Callable[[int], bool]) -> None:
        if not valid.is_set():
            waits.set()
            raise Denied(errno.EPERM, "it is lost")

    told = lambda at, length: late.append(at)  # noqa: E731
    copy.start(Copying(old, pass_through, valid.is_set, lambda: None, lambda: None, told))
    assert waits.wait(60)
    copy.stop()
    assert (tmp_path / "new").read_bytes() == bytes(MIB)
    assert not late
    copy.close()
    old.close()


def test_of_two_writes_that_overlap_the_same_one_is_last_in_both_places(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).write_bytes(bytes(MIB))
    old = Extents((wire.Extent(str(tmp_path / "old"), 0, MIB),))
    copy = Mirror(0, Extents((wire.Extent(str(tmp_path / "new"), 0, MIB),)), lambda moving: None)
    copy.start(
        Copying(old, lambda left: None, lambda: True, lambda: None, lambda: None, lambda at, length: None)
    )
    eventually(lambda: copy.moving.complete)
    first_is_in_old, second_is_done = threading.Event(), threading.Event()
    buffers = [memoryview(buffer())[:4096] for _ in range(2)]
    buffers[0][:], buffers[1][:] = b"6" * 4096, b"7" * 4096

    def first(extents: Extents, at: int, skip: int, length: int) -> None:
        if extents is copy.to:
            first_is_in_old.set()
            second_is_done.wait(0.2)
        extents.write(at, buffers[0], False)

    def second(extents: Extents, at: int, skip: int, length: int) -> None:
        extents.write(at, buffers[1], False)

    writer = threading.Thread(target=copy.change, args=(old, 0, 4096, first))
    writer.start()
    first_is_in_old.wait()
    copy.change(old, 0, 4096, second)
    second_is_done.set()
    writer.join()
    copy.stop()
    copy.close()
    old.close()
    assert (tmp_path / "old").read_bytes() == (tmp_path / "new").read_bytes()


def test_a_stretch_of_a_striped_lv() -> None:
    """Three stripes of 4 KiB: a stretch begins and ends with a row of 12 KiB."""
    striped = wire.Extent("a", 0, 48 * 4096, (wire.Place("b", 0), wire.Place("c", 8192)), 4096)
    linear = wire.Extent("d", 0, 4096)
    to = (wire.Extent("e", 0, 12 * 4096, (wire.Place("f", 0), wire.Place("c", 8192 + 4 * 4096)), 4096),)
    before, new, behind, last = wire.moved((striped, linear), 12 * 4096, to)
    assert (before.length_bytes, before.places) == (12 * 4096, striped.places)
    assert new == to[0]
    starts = [place.start_bytes for place in behind.places]
    assert (behind.length_bytes, starts) == (24 * 4096, [8 * 4096, 8 * 4096, 8192 + 8 * 4096])
    assert last == linear
    assert wire.joined((before, msgspec.structs.replace(before, start_bytes=4 * 4096))) != (before,)
    back = wire.Extent("a", 4 * 4096, 12 * 4096, (wire.Place("b", 4 * 4096), wire.Place("c", 6 * 4096)), 4096)
    assert wire.joined((before, back, behind, last)) == (striped, linear)
    with pytest.raises(ValueError, match="within a row"):
        wire.moved((striped,), 4096, to)
