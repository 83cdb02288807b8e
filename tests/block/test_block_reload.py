"""Reload: an open LV grows, moves, is renamed and changes its access under clients that go on."""

import asyncio
import errno
import os
import signal
import stat
import threading

import msgspec
import pytest
from block_rig import MIB, Rig, Writing, eventually, process_state

from ringfence.block.control import BlockService
from ringfence.core.errors import BadInput, DeviceFailed, NotFound, Refused, RingfenceError, Unavailable
from ringfence.core.ids import Token
from ringfence.engine.orders import ReloadPath
from ringfence.lab.nbd_client import NbdClient
from ringfence.wire.block import Extent, Place


def reload(block: Rig, order: ReloadPath) -> str:
    """Returns the URI."""
    return block.ask(lambda service: service.reload(order)).uri


def to(
    block: Rig, *places: tuple[int, int], lv: str = "vm1", name: str = "", readonly: bool = False
) -> ReloadPath:
    """Args: places: (start, length) on the image, in MiB."""
    extents = tuple(Extent(str(block.image), start * MIB, length * MIB) for start, length in places)
    order = block.order(lv)
    return ReloadPath("vg0", lv, order.uuid, extents, name or lv, readonly, order.token)


def test_it_grows_under_a_client_and_a_new_one_sees_the_size(block: Rig) -> None:
    uri = block.open()
    pid = block.path().pid
    with NbdClient(uri) as old:
        old.write(0, b"a" * 4096)
        order = to(block, (1, 8), (20, 4))
        assert reload(block, order) == uri
        assert reload(block, order) == uri, "asked once more: nothing to do"
        old.write(4096, b"b" * 4096)
        with NbdClient(uri) as new:
            assert new.size_bytes == 12 * MIB
            new.write(8 * MIB, b"c" * 4096)
            assert new.read(0, 8192) == b"a" * 4096 + b"b" * 4096
        assert old.read(8 * MIB, 4096) == b"c" * 4096
    assert block.on_disk(0, 4096, start_bytes=20 * MIB) == b"c" * 4096
    path = block.path()
    assert (path.pid, path.size_bytes) == (pid, 12 * MIB)
    assert [(one.start_bytes, one.length_bytes) for one in path.extents] == [
        (MIB, 8 * MIB),
        (20 * MIB, 4 * MIB),
    ]


def test_what_is_asked_beyond_the_end_of_a_smaller_one_fails(block: Rig) -> None:
    uri = block.open()
    with NbdClient(uri) as client:
        reload(block, to(block, (1, 4)))
        client.write(4 * MIB - 4096, b"d" * 4096)
        with pytest.raises(OSError, match=r"Invalid argument|No space"):
            client.write(4 * MIB, b"e" * 4096)
    assert block.on_disk(4 * MIB, 4096) == bytes(4096)


def test_it_is_renamed_under_a_client(block: Rig) -> None:
    uri = block.open()
    with NbdClient(uri) as client:
        renamed = reload(block, to(block, (1, 8), name="vm2"))
        assert renamed == uri.replace("vm1", "vm2")
        assert reload(block, to(block, (1, 8), name="vm2")) == renamed, "the first answer may have been lost"
        client.write(0, b"f" * 4096)
        with NbdClient(renamed) as new:
            assert new.read(0, 4096) == b"f" * 4096
        with pytest.raises(FileNotFoundError):
            NbdClient(uri)
        block.lose()
        with pytest.raises(PermissionError):
            client.write(0, b"g" * 4096)
    assert block.incidents(1)[0].volume == "vg0/vm2"
    assert stat.S_ISSOCK(os.stat(block.path("vm2").path).st_mode)
    with pytest.raises(NotFound):
        reload(block, to(block, (1, 4), lv="vm3"))
    block.ask(lambda service: service.close("vg0", "vm2"))
    assert block.paths() == ()
    assert list(block.places.dev.glob("*/*")) == []


def test_a_name_that_is_taken_is_refused(block: Rig) -> None:
    block.open()
    block.open(block.order("vm2", start_bytes=16 * MIB))
    with pytest.raises(Refused, match="vg0/vm2 is open: it is another LV"):
        reload(block, to(block, (1, 8), name="vm2"))
    (block.places.dev / "vg0/vm3").mkdir()
    with pytest.raises(Unavailable, match="cannot rename"):
        reload(block, to(block, (1, 4), name="vm3"))
    assert block.path().size_bytes == 8 * MIB, "it goes on as it was"
    with NbdClient(block.path().uri) as client:
        assert client.size_bytes == 8 * MIB


def test_writes_are_taken_away_and_given_back(block: Rig) -> None:
    uri = block.open()
    with NbdClient(uri) as client:
        reload(block, to(block, (1, 8), readonly=True))
        assert block.path().readonly
        with pytest.raises(PermissionError):
            client.write(0, bytes(512))
        with NbdClient(uri) as new:
            assert new.flags & 2
        reload(block, to(block, (1, 8)))
        client.write(0, b"h" * 512)
    assert not block.places.incidents.read_bytes()


def test_an_error_leaves_the_old_table(block: Rig) -> None:
    uri = block.open()
    with NbdClient(uri) as client:
        with pytest.raises(DeviceFailed, match="before the LV does"):
            reload(block, to(block, (1, 8), (60, 8)))
        with pytest.raises(NotFound):
            reload(block, msgspec.structs.replace(to(block, (1, 4)), uuid="another"))
        with pytest.raises(Refused, match="under another lock"):
            reload(block, msgspec.structs.replace(to(block, (1, 4)), token=Token(1, 1, 0)))
        client.write(7 * MIB, b"i" * 4096)
        assert block.path().size_bytes == 8 * MIB
        os.kill(block.path().pid, signal.SIGKILL)
        eventually(lambda: bool(block.path().failed))
        with pytest.raises(Refused, match="has failed"):
            reload(block, to(block, (1, 4)))


def test_a_path_whose_lock_was_converted_since_follows_under_its_later_token(block: Rig) -> None:
    """As one that a daemon takes over which died between the two."""
    uri = block.open()
    with NbdClient(uri) as client:
        reload(block, msgspec.structs.replace(to(block, (1, 12)), token=Token(1, 9, 2)))
        assert (block.path().size_bytes, block.path().token) == (12 * MIB, "1.9.2")
        with pytest.raises(Refused, match=r"under another lock, 1\.9\.2"):
            reload(block, to(block, (1, 4)))  # on its way since before that
        client.write(7 * MIB, b"i" * 4096)


def test_what_waits_for_authority_is_written_to_the_new_place_only(block: Rig) -> None:
    uri = block.open()
    block.lapse()
    writing = Writing(uri, 0, b"j" * 4096)
    eventually(lambda: block.path().connections == 1)
    reload(block, to(block, (20, 8)))
    assert not writing.answered
    block.renew()
    assert writing.result() == 0
    assert block.on_disk(0, 4096) == bytes(4096)
    assert block.on_disk(0, 4096, start_bytes=20 * MIB) == b"j" * 4096


def test_a_write_under_way_is_waited_for(freezable: Rig) -> None:
    """It lands in the old place, and is answered, before anything goes to the new one."""
    uri = freezable.open()

    async def swap() -> None:
        service = BlockService(freezable.places.socket)
        with freezable.held_writes():
            writings = [Writing(uri, number * 4096, b"k" * 4096) for number in range(3)]
            await asyncio.to_thread(eventually, lambda: len(freezable.standing()) == 3)
            asked = asyncio.ensure_future(service.reload(to(freezable, (20, 8))))
            await asyncio.sleep(0.3)
            assert not asked.done(), "swapped under a write"
            assert not any(one.answered for one in writings)
        await asked
        assert [one.result() for one in writings] == [0, 0, 0]
        await service.aclose()

    asyncio.run(swap())
    assert freezable.on_disk(0, 3 * 4096) == b"k" * 3 * 4096
    with NbdClient(uri) as client:
        assert client.read(0, 4096) == bytes(4096)


def test_all_that_is_dropped_ends_a_reload_too(block: Rig) -> None:
    block.open()
    pid = block.path().pid
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: process_state(pid) == "T")

    async def race() -> None:
        service = BlockService(block.places.socket)
        asked = asyncio.ensure_future(service.reload(to(block, (1, 4), name="vm2")))
        await service.list()
        await service.drop_all()
        with pytest.raises(RingfenceError):
            await asked
        assert await service.list() == ()
        await service.aclose()

    asyncio.run(race())
    assert list(block.places.dev.glob("*/*")) == []


def test_no_write_is_lost_while_it_is_reloaded_again_and_again(block: Rig) -> None:
    """Two tables over the same bytes, in other pieces: what is answered can be read."""
    uri = block.open()
    tables = [to(block, (1, 8)), to(block, *((one, 1) for one in range(1, 9))), to(block, (1, 8), (20, 1))]
    stop = threading.Event()
    wrong: list[str] = []

    def hammer(lane: int) -> None:
        with NbdClient(uri, timeout_s=60) as client:
            number = 0
            while not stop.is_set():
                number += 1
                at, data = lane * MIB + number % 64 * 4096, os.urandom(4096)
                client.write(at, data)
                if client.read(at, 4096) != data:
                    wrong.append(f"{lane}: {number}")

    lanes = [threading.Thread(target=hammer, args=(lane,)) for lane in range(3)]
    for one in lanes:
        one.start()
    for number in range(30):
        reload(block, tables[number % 3])
    stop.set()
    for one in lanes:
        one.join()
    assert not wrong


def test_a_reload_of_nothing_is_refused(block: Rig) -> None:
    block.open()
    with pytest.raises(RingfenceError, match="without extents"):
        reload(block, to(block))
    with NbdClient(block.path().uri) as client, pytest.raises(OSError, match="No space") as caught:
        client.write(8 * MIB, bytes(512))
    assert caught.value.errno == errno.ENOSPC


def test_it_is_closed_by_its_uuid_whatever_it_is_called_by_now(block: Rig) -> None:
    """Who closes it has seen its old name; another LV may have that by now."""
    block.open()
    reload(block, to(block, (1, 8), name="vm2"))
    other = msgspec.structs.replace(block.order("vm1", start_bytes=30 * MIB), uuid="another")
    block.open(other)
    block.ask(lambda service: service.close("vg0", "vm1", uuid="uuid-vm1"))
    assert [(path.lv, path.uuid) for path in block.paths()] == [("vm1", "another")]
    block.ask(lambda service: service.close("vg0", "vm1", uuid="uuid-vm1"))
    assert [path.lv for path in block.paths()] == ["vm1"]


def test_a_close_that_meets_a_rename_closes_it(block: Rig) -> None:
    async def both(service: BlockService) -> None:
        order = to(block, (1, 8), name="vm2")
        await asyncio.gather(service.reload(order), service.close("vg0", "vm1", uuid=order.uuid))

    block.open()
    with NbdClient(block.path().uri):
        block.ask(both)
    assert block.paths() == ()


def test_stripes_are_dealt_out_in_turn(block: Rig) -> None:
    """Three stripes of 16 KiB behind a linear piece, over real requests of any size."""
    places = (Place(str(block.image), 20 * MIB), Place(str(block.image), 10 * MIB))
    striped = Extent(str(block.image), 30 * MIB, 3 * MIB, places, 16 << 10)
    linear = Extent(str(block.image), 40 * MIB, MIB)
    order = msgspec.structs.replace(block.order(), extents=(linear, striped))
    with NbdClient(block.open(order)) as client:
        assert client.size_bytes == 4 * MIB
        data = b"".join(bytes([number]) * 4096 for number in range(250))
        client.write(MIB - 8192, data)
        assert client.read(MIB - 8192, len(data)) == data
        assert block.on_disk(0, 8192, start_bytes=41 * MIB - 8192) == data[:8192]
        chunks = [data[at : at + 16384] for at in range(8192, len(data), 16384)]
        starts = [30 * MIB, 20 * MIB, 10 * MIB]
        for number, chunk in enumerate(chunks):
            at = starts[number % 3] + number // 3 * 16384
            assert block.on_disk(0, len(chunk), start_bytes=at) == chunk, number
        reload(block, msgspec.structs.replace(to(block, (40, 1)), extents=(linear,)))
        client.write(0, b"k" * 4096)
    assert block.on_disk(0, 4096, start_bytes=40 * MIB) == b"k" * 4096
    for change in ({"stripe_bytes": 3 * 4096}, {"length_bytes": MIB}):
        wrong = msgspec.structs.replace(striped, **change)
        with pytest.raises(BadInput, match="whole stripes"):
            block.open(msgspec.structs.replace(block.order("vm3"), extents=(wrong,)))
