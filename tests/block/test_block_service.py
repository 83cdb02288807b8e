"""The service: opens, closes, reaps, comes back, and never says closed of what is not."""

import asyncio
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from block_rig import MIB, Rig, Writing, eventually, process_state, rig

from ringfence.block.control import LOOK_S, BlockService
from ringfence.block.service import STARTS
from ringfence.core.errors import BadInput, DeviceFailed, Refused, RingfenceError, Unavailable
from ringfence.engine.orders import ClosePath, OpenPath, PathsTogether
from ringfence.lab.nbd_client import NbdClient
from ringfence.wire.block import Extent
from ringfence.wire.block import Path as OpenPathRow
from ringfence.wire.entries import Incident


def gone(pid: int) -> bool:
    return process_state(pid) == ""


def test_open_list_close(block: Rig) -> None:
    uri = block.open()
    path = block.path()
    assert uri == f"nbd+unix:///vm1?socket={block.places.dev}/vg0/vm1" == path.uri
    assert (path.size_bytes, path.direct, path.failed, path.uuid) == (8 * MIB, True, "", "uuid-vm1")
    assert path.fast is True
    mode = os.stat(path.path).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    volumes = block.ask(lambda service: service.list())
    assert [(one.vg, one.lv, one.path) for one in volumes] == [("vg0", "vm1", path.path)]
    block.ask(lambda service: service.close("vg0", "vm1"))
    assert gone(path.pid), "closed, but its worker is not reaped"
    assert not os.path.exists(path.path)
    assert block.paths() == ()
    block.ask(lambda service: service.close("vg0", "vm1"))  # closed already: nothing to do


def test_to_open_twice_is_to_open_once(block: Rig) -> None:
    block.open()
    pid = block.path().pid
    block.open()
    assert [path.pid for path in block.paths()] == [pid]
    with pytest.raises(Refused, match="open in another way"):
        block.open(block.order(size_bytes=4 * MIB))


def test_a_client_that_goes_closes_nothing(block: Rig) -> None:
    uri = block.open()  # each `ask` is a connection of its own, gone by now
    with NbdClient(uri) as client:
        client.write(0, b"x" * 512)
        eventually(lambda: block.path().connections == 1)
    eventually(lambda: block.path().connections == 0)


def test_close_answers_what_was_begun_and_ends_what_is_held(block: Rig) -> None:
    uri = block.open()
    with NbdClient(uri) as idle:
        block.lapse()
        writing = Writing(uri, 0, b"y" * 4096)
        eventually(lambda: block.path().connections == 2)
        time.sleep(0.05)
        pid = block.path().pid
        block.ask(lambda service: service.close("vg0", "vm1"))
        assert gone(pid)
        assert writing.result() == 108, "ESHUTDOWN: neither done nor forgotten"
        assert block.on_disk(0, 4096) == bytes(4096)
        with pytest.raises(ConnectionError):
            idle.read(0, 512)


def test_drop_all_reaps_stopped_workers_too(block: Rig) -> None:
    block.open()
    block.open(block.order("vm2", start_bytes=16 * MIB))
    pids = [path.pid for path in block.paths()]
    os.kill(pids[0], signal.SIGSTOP)
    eventually(lambda: process_state(pids[0]) == "T")
    block.ask(lambda service: service.drop_all())
    assert all(gone(pid) for pid in pids)
    assert block.paths() == ()
    assert list(block.places.dev.glob("*/*")) == []
    block.open()  # and life goes on


def test_a_daemon_that_was_succeeded_opens_and_closes_nothing_more(block: Rig) -> None:
    """What it had asked for before it was killed may be read only after its successor has looked."""
    block.open()
    page = block.pages.path(1, "vg/vg0")

    async def succeed() -> tuple[OpenPathRow, list[BaseException | object]]:
        first, second = BlockService(block.places.socket), BlockService(block.places.socket)
        await first.list()
        (left,) = await second.take_over()
        late = [first.open(block.order("vm2", MIB, MIB), [page]), first.close("vg0", "vm1"), first.drop_all()]
        results = await asyncio.gather(*late, return_exceptions=True)
        await second.open(block.order("vm3", MIB, 2 * MIB), [page])
        for service in (first, second):
            await service.aclose()
        return left, list(results)

    left, results = asyncio.run(succeed())
    assert (left.lv, left.pages, left.token) == ("vm1", (str(page),), str(block.order().token))
    for result in results:
        assert isinstance(result, Refused)
        assert "a later daemon has taken over" in str(result)
    assert [path.lv for path in block.paths()] == ["vm1", "vm3"]


def test_of_many_closes_none_comes_after_its_daemon_was_succeeded(freezable: Rig) -> None:
    """No more of them are under way at a time than the service starts; the rest wait.

    What its successor was told is open stays so, but for what was being closed already."""
    names = [f"vm{number}" for number in range(STARTS + 1)]
    uris = [freezable.open(freezable.order(name, MIB, n * MIB)) for n, name in enumerate(names, 1)]
    closes = PathsTogether(tuple(ClosePath("vg0", name, f"uuid-{name}") for name in names))
    with ThreadPoolExecutor(1) as pool:
        with freezable.held_writes():
            writes = [Writing(uri, 0, b"w" * 4096) for uri in uris]
            eventually(lambda: len(freezable.standing()) == len(names))
            told = pool.submit(freezable.ask, lambda service: service.together(closes, {}))
            eventually(lambda: sum(not Path(path.path).exists() for path in freezable.paths()) == STARTS)
            freezable.ask(lambda service: service.take_over())
        *closed, late = told.result(timeout=60)
    assert closed == [None] * STARTS
    assert isinstance(late, Refused)
    assert "a later daemon has taken over" in str(late)
    assert [path.lv for path in freezable.paths()] == [names[-1]]
    assert [one.result() for one in writes] == [0] * len(names)


def test_an_open_that_is_under_way_is_dropped_with_the_rest(block: Rig) -> None:
    page = block.pages.path(1, "vg/vg0")
    block.pages.set(1, "vg/vg0", 1 << 62)

    async def race() -> list[BaseException | object]:
        service = BlockService(block.places.socket)
        opens = [service.open(block.order(f"vm{n}", MIB, n * MIB), [page]) for n in range(4)]
        tasks = [asyncio.ensure_future(one) for one in opens]
        await asyncio.sleep(0.01)
        await service.drop_all()
        left = await service.list()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await service.aclose()
        assert left == ()
        return list(results)

    for result in asyncio.run(race()):
        assert isinstance(result, RingfenceError)
    assert block.paths() == ()


def test_a_worker_that_dies_is_noticed_and_can_be_closed(block: Rig) -> None:
    uri = block.open()
    with NbdClient(uri) as client:
        client.write(0, b"z" * 4096)
        os.kill(block.path().pid, signal.SIGKILL)
        eventually(lambda: bool(block.path().failed))
        with pytest.raises(ConnectionError):
            client.read(0, 512)
    path = block.path()
    assert path.failed == "its worker ended with signal 9"
    assert path.connections == 0
    assert block.ask(lambda service: service.list())[0].failed == path.failed
    with pytest.raises(Refused, match=r"has failed .*; close vg0/vm1 first"):
        block.open()
    block.ask(lambda service: service.close("vg0", "vm1"))
    block.open()
    assert block.path().failed == ""


def test_a_worker_that_does_not_end_is_not_closed(block: Rig) -> None:
    block.open()
    pid = block.path().pid
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: process_state(pid) == "T")

    async def impatient() -> None:
        service = BlockService(block.places.socket)
        closing = asyncio.ensure_future(service.close("vg0", "vm1"))
        await asyncio.sleep(0.5)
        assert not closing.done(), "closed, though the worker is only stopped"
        assert len(await service.list()) == 1
        os.kill(pid, signal.SIGCONT)
        await asyncio.wait_for(closing, 60)
        assert gone(pid)
        await service.aclose()

    asyncio.run(impatient())


def test_no_new_service_comes_while_a_workers_memory_is_there(between: Path) -> None:
    with rig(between) as block:
        share = block.between / "share"
        share.touch()
        block.open()
        pid = block.path().pid
        block.service.kill()
        block.service.wait()
        eventually(lambda: gone(pid))
        with (block.places.run / "block.lock").open("rb") as lock:
            with pytest.raises(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            share.unlink()
            fcntl.flock(lock, fcntl.LOCK_EX)


def test_a_worker_is_closed_when_its_memory_is_gone(between: Path) -> None:
    """The kernel waits there for writes that were issued together, whoever else keeps it for a while."""
    with rig(between) as block:
        share = block.between / "share"
        share.touch()
        block.open()
        pid = block.path().pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: bool(block.path().failed))
        assert gone(pid), "it is reaped"
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(block.ask, lambda service: service.close("vg0", "vm1"))
            with pytest.raises(TimeoutError):
                closing.result(timeout=0.5)
            share.unlink()
            closing.result(timeout=60)
        assert block.paths() == ()


def test_a_service_that_stands_still_is_told_and_one_that_is_slow_is_waited_for(block: Rig) -> None:
    block.open()
    worker, service_pid = block.path().pid, block.service.pid
    os.kill(worker, signal.SIGSTOP)
    eventually(lambda: process_state(worker) == "T")
    (volume,) = block.ask(lambda service: service.list())
    assert volume.stopped == f"its worker, process {worker}, is stopped; next: kill -CONT {worker}"

    async def slow() -> None:
        service = BlockService(block.places.socket)
        closing = asyncio.ensure_future(service.close("vg0", "vm1"))
        await asyncio.sleep(2.5 * LOOK_S)
        assert not closing.done(), "its worker stands still, the service does not"
        os.kill(service_pid, signal.SIGSTOP)
        with pytest.raises(Unavailable, match="has not answered for 2 s"):
            await asyncio.wait_for(closing, 30 * LOOK_S)
        os.kill(service_pid, signal.SIGCONT)
        os.kill(worker, signal.SIGCONT)
        await service.close("vg0", "vm1")
        assert gone(worker)
        await service.aclose()

    asyncio.run(slow())


def test_sigterm_flushes_and_closes_all(block: Rig) -> None:
    uri = block.open()
    pid = block.path().pid
    with NbdClient(uri) as client:
        client.write(0, b"q" * 4096)
        block.service.terminate()
        assert block.service.wait(60) == 0
    assert gone(pid)
    assert not block.places.socket.exists()
    assert not (block.places.dev / "vg0/vm1").exists()
    assert block.on_disk(0, 4096) == b"q" * 4096


def test_workers_end_with_a_service_that_is_killed_and_stale_sockets_go(block: Rig) -> None:
    block.open()
    pid = block.path().pid
    socket_path = block.places.dev / "vg0/vm1"
    os.kill(pid, signal.SIGSTOP)  # even a stopped one
    block.service.kill()
    block.service.wait()
    eventually(lambda: gone(pid) or process_state(pid) == "Z")
    assert socket_path.exists()
    (block.places.dev / "vg0/notes").write_text("not ours")
    block.start()
    assert not socket_path.exists()
    assert (block.places.dev / "vg0/notes").exists()
    assert block.paths() == ()
    block.open()


def second(block: Rig) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ringfence.block", "--root", str(block.root)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_second_service_refuses(block: Rig) -> None:
    block.open()
    said = second(block)
    assert said.returncode == 5
    assert f"already running here, pid {block.service.pid}" in said.stderr
    assert said.stderr.count("\n") == 1
    assert block.path().failed == "", "the first one was disturbed"
    with NbdClient(block.path().uri) as client:
        client.write(0, bytes(512))


def test_a_worker_that_is_left_keeps_a_new_service_out(block: Rig) -> None:
    """The lock is the proof: whoever still has it open may still write."""
    block.service.terminate()
    block.service.wait()
    with (block.places.run / "block.lock").open("rb") as left:
        fcntl.flock(left, fcntl.LOCK_EX)
        said = second(block)
    assert said.returncode == 5
    assert "workers of an earlier block service" in said.stderr


def test_an_lv_of_several_extents(block: Rig) -> None:
    other = block.root / "img2"
    other.write_bytes(bytes(4 * MIB))
    extents = (
        Extent(str(block.image), 2 * MIB, MIB),
        Extent(str(other), MIB, MIB),
        Extent(str(block.image), 8 * MIB, MIB),
    )
    order = block.order()
    uri = block.open(OpenPath("vg0", "wide", "u", extents, False, order.token))
    data = os.urandom(3 * MIB - 1024)
    with NbdClient(uri) as client:
        assert client.size_bytes == 3 * MIB
        client.write(512, data, fua=True)
        assert client.read(512, len(data)) == data
        client.flush()
    assert block.on_disk(512, MIB - 512, start_bytes=2 * MIB) == data[: MIB - 512]
    assert other.read_bytes()[MIB : 2 * MIB] == data[MIB - 512 : 2 * MIB - 512]
    assert block.on_disk(0, MIB - 512, start_bytes=8 * MIB) == data[2 * MIB - 512 :]
    assert other.read_bytes()[2 * MIB :] == bytes(2 * MIB), "beyond its extent"


def test_a_file_system_without_direct_io_is_said(block: Rig) -> None:
    """ramfs has none; tmpfs has it since Linux 6.6."""
    mount = block.root / "ram"
    mount.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", str(mount)], check=True)
    try:
        (mount / "img").write_bytes(bytes(2 * MIB))
        extents = (Extent(str(mount / "img"), 0, 2 * MIB),)
        uri = block.open(OpenPath("vg0", "ram", "u", extents, False, block.order().token))
        with NbdClient(uri) as client:
            client.write(4096, b"r" * 4096, fua=True)
            client.flush()
            assert client.read(4096, 4096) == b"r" * 4096
        assert block.path("ram").direct is has_direct_io(mount / "img")
        block.ask(lambda service: service.close("vg0", "ram"))
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def has_direct_io(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def test_readonly_refuses_writes_without_an_incident(block: Rig) -> None:
    block.pages.set(1, "vg/vg0", 1 << 62)
    page = block.pages.path(1, "vg/vg0")
    order = msgspec.structs.replace(block.order(), readonly=True)
    opened = block.ask(lambda service: service.open(order, [page]))
    with NbdClient(opened.uri) as client:
        assert client.flags & 2
        with pytest.raises(PermissionError):
            client.write(0, bytes(512))
        assert client.read(0, 512) == bytes(512)
    assert not block.places.incidents.read_bytes()


@pytest.mark.parametrize(
    ("vg", "lv", "extents", "error", "words"),
    [
        ("vg0", "..", None, BadInput, "cannot be the name"),
        ("a/b", "x", None, BadInput, "cannot be the name"),
        ("vg0", "l" * 120, None, BadInput, "longer than a socket's path"),
        ("vg0", "x", (), BadInput, "without extents"),
        ("vg0", "x", (("img", 100, 4096),), BadInput, "512-byte blocks"),
        ("vg0", "x", (("img", 0, 65 * MIB),), DeviceFailed, "before the LV does"),
        ("vg0", "x", (("none", 0, 4096),), DeviceFailed, "cannot open .*No such file"),
    ],
)
def test_what_cannot_be_opened(
    block: Rig,
    vg: str,
    lv: str,
    extents: tuple[tuple[str, int, int], ...] | None,
    error: type[RingfenceError],
    words: str,
) -> None:
    pieces = block.order().extents
    if extents is not None:
        pieces = tuple(Extent(str(block.root / path), start, length) for path, start, length in extents)
    with pytest.raises(error, match=words):
        block.open(OpenPath(vg, lv, "u", pieces, False, block.order().token))
    assert block.paths() == ()


def test_no_service_is_unavailable_with_the_next_step(block: Rig) -> None:
    block.service.terminate()
    block.service.wait()
    words = r"no block service answers on .*; start it: ringfence block"
    with pytest.raises(Unavailable, match=words) as raised:
        block.ask(lambda service: service.drop_all())
    assert raised.value.retry


def test_control_goes_on_after_the_service_came_back(block: Rig) -> None:
    async def through() -> None:
        service = BlockService(block.places.socket)
        assert await service.list() == ()
        block.service.terminate()
        block.service.wait()
        await asyncio.to_thread(block.start)
        assert await service.list() == ()
        await service.aclose()

    asyncio.run(through())


def test_incidents_are_told_until_acknowledged_across_a_restart(block: Rig) -> None:
    uri = block.open()
    block.lose()
    with NbdClient(uri) as client, pytest.raises(PermissionError):
        client.write(8192, bytes(4096))
    told = block.incidents(1, acknowledge=False)
    assert told == block.incidents(1, acknowledge=False), "told once, then forgotten"
    block.service.terminate()
    block.service.wait()
    block.start()
    assert block.incidents(1, acknowledge=True) == told
    assert no_incident(block)
    block.service.terminate()
    block.service.wait()
    block.start()
    assert no_incident(block)


def no_incident(block: Rig) -> bool:
    async def look() -> list[Incident]:
        service = BlockService(block.places.socket)
        watching = service.incidents()
        try:
            return [await asyncio.wait_for(anext(watching), 0.3)]
        except TimeoutError:
            return []

    return asyncio.run(look()) == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\xff\xfe not json\n",
        b"{}\n",
        b'{"id":1,"call":{"type":"Nonsense"}}\n',
        b'{"id":1',
        b"\n",
        b"x" * (17 << 20),
    ],
    ids=["bytes", "empty", "unknown", "half", "newline", "endless"],
)
def test_garbage_on_the_control_socket(block: Rig, garbage: bytes) -> None:
    block.open()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(block.places.socket))
        client.settimeout(60)
        try:
            client.sendall(garbage)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while part := client.recv(4096):
                answer += part
        except OSError:
            answer = b""  # hung up on in the middle
    if garbage.endswith(b"}\n"):
        assert b'"code":"bad-input"' in answer
    assert block.path().failed == ""


def test_a_root_that_is_too_long(tmp_path: Path) -> None:
    root = tmp_path / ("d" * 100)
    root.mkdir()
    command = [sys.executable, "-m", "ringfence.block", "--root", str(root)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 5
    assert "longer than a socket's path may be" in said.stderr
    assert said.stderr.count("\n") == 1


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ringfence.block", "--root", str(tmp_path / "typo")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 5
    assert f"--root {tmp_path}/typo is not a directory" in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_closes_that_come_behind_opens_close_what_those_open(block: Rig) -> None:
    """However many can be opened at a time: whoever has given up waiting for them closes all, and unlocks."""
    block.pages.set(1, "vg/vg0", 1 << 62)
    page = block.pages.path(1, "vg/vg0")
    names = [f"vm{number}" for number in range(STARTS + 4)]
    opens = [block.order(name, MIB, n * MIB) for n, name in enumerate(names)]
    lacks = msgspec.structs.replace(block.order("no"), extents=(Extent("/nowhere", 0, MIB),))
    closes = [ClosePath("vg0", name, f"uuid-{name}") for name in names]

    async def both() -> None:
        service = BlockService(block.places.socket)
        first = service.together(PathsTogether((lacks, *opens)), {"vg0": [page]})
        await asyncio.gather(first, service.together(PathsTogether(tuple(closes)), {}))
        await service.aclose()

    asyncio.run(both())
    assert [path.lv for path in block.paths()] == []
