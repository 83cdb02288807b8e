"""Many LVs opened together: each has its socket at once, and a worker when somebody comes."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
from block_rig import FOREVER_NS, MIB, Rig, eventually, process_state

from ringfence.block import porch as porch_module
from ringfence.block import service as service_module
from ringfence.block.control import BlockService
from ringfence.block.porch import Porch, uri_of
from ringfence.core.errors import DeviceFailed, Refused, RingfenceError, Unavailable
from ringfence.engine.orders import ClosePath, Opened, OpenPath, PathsTogether, ReloadPath
from ringfence.lab.nbd_client import NbdClient
from ringfence.wire import block as wire
from ringfence.wire.block import Extent

LVS = tuple(f"vm{number}" for number in range(1, 6))


Answers = tuple[Opened | RingfenceError | None, ...]


def together(block: Rig, orders: Sequence[OpenPath | ClosePath]) -> Answers:
    block.pages.set(1, "vg/vg0", FOREVER_NS)
    pages = {"vg0": [block.pages.path(1, "vg/vg0")]}
    return block.ask(lambda service: service.together(PathsTogether(tuple(orders)), pages))


def opens(block: Rig) -> list[OpenPath]:
    return [block.order(lv, MIB, number * MIB) for number, lv in enumerate(LVS)]


def mine(block: Rig) -> list[int]:
    """Its service's porters."""
    service, found = str(block.service.pid).encode(), []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"ringfence.block.porter" in words and service in words:
            found.append(int(place.parent.name))
    return found


def workers(block: Rig) -> dict[str, int]:
    return {path.lv: path.pid for path in block.paths()}


def uri(block: Rig, lv: str) -> str:
    return f"nbd+unix:///{lv}?socket={block.places.dev}/vg0/{lv}"


@pytest.mark.parametrize("lv", ["vm1", "a+b", "a.b-c_d", "ä"])
@pytest.mark.parametrize("place", ["/run/ringfence/dev/vg0", "/tmp/a b+c/ä"])
def test_a_uri_is_quoted_as_its_readers_expect(lv: str, place: str) -> None:
    for file in (lv, "other+name"):
        found = urlsplit(uri_of(lv, f"{place}/{file}"))
        assert (found.scheme, unquote(found.path), found.fragment) == ("nbd+unix", f"/{lv}", "")
        assert found.query == f"socket={quote(f'{place}/{file}')}"


def test_a_worker_starts_with_the_first_client(block: Rig) -> None:
    answers = together(block, opens(block))
    assert [one.uri for one in answers if isinstance(one, Opened)] == [uri(block, lv) for lv in LVS]
    assert workers(block) == dict.fromkeys(LVS, 0)
    assert all(os.stat(path.path).st_mode & 0o777 == 0o660 for path in block.paths())
    assert len(mine(block)) == 1
    with NbdClient(uri(block, "vm3")) as client:
        client.write(0, b"x" * 4096)
        assert block.on_disk(0, 4096, 2 * MIB) == b"x" * 4096
        eventually(lambda: block.path("vm3").connections == 1)
    assert [lv for lv, pid in workers(block).items() if pid] == ["vm3"]
    with NbdClient(uri(block, "vm3")) as client:
        assert client.read(0, 4096) == b"x" * 4096, "and serves the next one, too"


def test_what_waits_is_closed_and_opened_again(block: Rig) -> None:
    together(block, opens(block))
    pages = [block.pages.path(1, "vg/vg0")]
    assert block.ask(lambda service: service.open(opens(block)[0], pages)).uri == uri(block, "vm1")
    with NbdClient(uri(block, "vm2")):
        pid = block.path("vm2").pid
        closes = [ClosePath("vg0", lv, f"uuid-{lv}") for lv in (*LVS, "vm9")]
        assert together(block, closes) == (None,) * len(closes), "also where one was in use, or never open"
    assert process_state(pid) == ""
    assert block.paths() == ()
    assert list(block.places.dev.glob("*/*")) == []
    together(block, opens(block)[:1])
    block.ask(lambda service: service.close("vg0", "vm1"))
    with pytest.raises(FileNotFoundError):
        socket.socket(socket.AF_UNIX).connect(str(block.places.dev / "vg0/vm1"))


def test_each_has_its_own_answer(block: Rig) -> None:
    block.open()
    missing = OpenPath(
        "vg0", "gone", "u", (Extent(str(block.root / "no"), 0, MIB),), False, block.order().token
    )
    refused, failed, opened = together(block, [opens(block)[0], missing, opens(block)[1]])
    assert "is open in another way" in str(refused)
    assert isinstance(failed, DeviceFailed)
    assert isinstance(opened, Opened)
    assert sorted(workers(block)) == ["vm1", "vm2"]


def test_dropped_is_dropped(block: Rig) -> None:
    together(block, opens(block))
    with NbdClient(uri(block, "vm2")):
        (porter,), pid = mine(block), block.path("vm2").pid
        block.ask(lambda service: service.drop_all())
        assert process_state(pid) == process_state(porter) == ""
    assert block.paths() == ()
    assert list(block.places.dev.glob("*/*")) == []
    together(block, opens(block))  # and life goes on
    assert len(block.paths()) == len(LVS)


def test_whoever_knocks_as_all_is_dropped_finds_nobody(block: Rig) -> None:
    """The service stands still; meanwhile somebody comes, and all is dropped: he is not let in."""
    together(block, opens(block))
    (porter,) = mine(block)
    os.kill(block.service.pid, signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as late:
        late.connect(str(block.places.dev / "vg0/vm1"))
        time.sleep(0.1)  # the porter has passed him on

        async def drop() -> None:
            service = BlockService(block.places.socket)
            dropping = asyncio.ensure_future(service.drop_all())
            await asyncio.sleep(0.1)
            os.kill(block.service.pid, signal.SIGCONT)
            await dropping
            await service.aclose()

        asyncio.run(drop())
        late.settimeout(60)
        with contextlib.suppress(ConnectionError):
            assert late.recv(1) == b""
    assert process_state(porter) == ""
    assert block.paths() == ()


def test_a_disk_that_is_another_one_by_then_is_not_served(block: Rig) -> None:
    """Its name went to another one while nobody used the LV: what is there is somebody else's."""
    together(block, opens(block))
    other = block.root / "other"
    other.write_bytes(b"theirs!!" * (block.image.stat().st_size // 8))
    before = other.read_bytes()
    with NbdClient(uri(block, "vm1")) as client:
        client.write(0, b"x" * 512)
    other.rename(block.image)
    with contextlib.suppress(OSError), NbdClient(uri(block, "vm2")) as client:
        client.write(0, b"y" * 512)
    eventually(lambda: "is another disk than it was" in block.path("vm2").failed)
    assert block.image.read_bytes() == before
    block.ask(lambda service: service.close("vg0", "vm2", uuid="uuid-vm2"))
    assert isinstance(together(block, opens(block)[1:2])[0], Opened)


def test_nothing_is_opened_for_a_daemon_that_was_succeeded_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one was told what is open, and shows the cluster the locks of that alone: what came later
    would be open under a lock that is anybody's, and a page that is kept valid for the others."""
    (tmp_path / "img").write_bytes(bytes(MIB))
    extent = wire.Extent(str(tmp_path / "img"), 0, MIB)
    call = wire.Together((wire.Open("vg0", "vm1", "u1", (extent,), ("/page",)),))
    looks, goes_on = threading.Event(), threading.Event()
    look_at = service_module._look_at

    def slow(calls: list[wire.Open]) -> object:
        looks.set()
        goes_on.wait(60)
        return look_at(calls)

    monkeypatch.setattr(service_module, "_look_at", slow)

    async def body() -> None:
        service = service_module.Service(service_module.Places.under(tmp_path))
        opening = asyncio.ensure_future(service._together(call, 1, 0))
        await asyncio.to_thread(looks.wait, 60)
        nobody: Any = None
        told = await service._do(wire.TakeOver(), nobody, 2, 0)
        goes_on.set()
        with pytest.raises(Refused, match="a later daemon has taken over"):
            await opening
        assert told == await service._do(wire.List(), nobody, 2, 0) == []
        service._porch.end()
        os.close(service._lock_fd)

    asyncio.run(body())


def test_what_is_about_to_change_as_all_is_dropped_gets_no_worker(block: Rig) -> None:
    """A change takes it out of the porch; meanwhile all is dropped, and nothing may be open after that."""
    together(block, opens(block))
    (porter,) = mine(block)
    os.kill(porter, signal.SIGSTOP)
    grown = (Extent(str(block.image), 0, 2 * MIB),)
    order = ReloadPath("vg0", "vm1", "uuid-vm1", grown, "vm1", False, block.order().token)

    async def both() -> None:
        one, other = (BlockService(block.places.socket) for _ in range(2))
        reloading = asyncio.ensure_future(one.reload(order))
        await asyncio.sleep(0.2)  # it waits for the porter
        await other.drop_all()
        with pytest.raises(Refused, match="dropped meanwhile"):
            await reloading
        await asyncio.gather(one.aclose(), other.aclose())

    asyncio.run(both())
    assert block.paths() == ()


def test_a_porter_that_dies_fails_what_it_had(block: Rig) -> None:
    together(block, opens(block))
    with NbdClient(uri(block, "vm2")) as client:
        os.kill(mine(block)[0], signal.SIGKILL)
        eventually(lambda: "porter" in block.path("vm1").failed)
        assert block.path("vm2").failed == ""
        assert client.read(0, 512) == bytes(512), "whoever has a worker does not notice"
    assert "close vg0/vm1 first" in str(together(block, opens(block))[0])
    together(block, [ClosePath("vg0", "vm1", "uuid-vm1")])
    assert isinstance(together(block, opens(block))[0], Opened)


def test_a_porter_that_stands_still_keeps_nothing_open(block: Rig) -> None:
    together(block, opens(block))
    (porter,) = mine(block)
    os.kill(porter, signal.SIGSTOP)
    block.ask(lambda service: service.drop_all())
    assert process_state(porter) == ""


def test_the_next_daemon_may_adopt_what_waits(block: Rig) -> None:
    together(block, opens(block))
    page = str(block.pages.path(1, "vg/vg0"))
    left = block.ask(lambda service: service.take_over())
    assert [(one.lv, one.token, one.pages) for one in left] == [
        (lv, str(block.order().token), (page,)) for lv in LVS
    ]
    with NbdClient(uri(block, "vm1")) as client:
        assert client.size_bytes == MIB


def test_what_waits_can_change(block: Rig) -> None:
    together(block, opens(block))
    grown = (Extent(str(block.image), 0, 2 * MIB),)
    reload = ReloadPath("vg0", "vm1", "uuid-vm1", grown, "new", False, block.order().token)
    assert block.ask(lambda service: service.reload(reload)).uri == uri(block, "new")
    with NbdClient(uri(block, "new")) as client:
        assert client.size_bytes == 2 * MIB
    assert not (block.places.dev / "vg0/vm1").exists()


def test_nobody_outlives_the_service(block: Rig) -> None:
    together(block, opens(block))
    (porter,) = mine(block)
    block.service.kill()
    block.service.wait()
    eventually(lambda: process_state(porter) == "")
    block.start()
    assert block.paths() == ()
    assert list(block.places.dev.glob("*/*")) == []


def test_who_knocks_while_it_is_closed_leaves_no_socket_behind() -> None:
    """Its porter has handed the socket over by the time it is asked to close it, and so removes nothing."""
    heard: list[str] = []

    class Porter:
        count = 2

        async def ask(self, message: dict[str, list[str]]) -> list[str]:
            porch._heard("/dev/a", socket.socket(socket.AF_UNIX))
            return [""] * len(message["close"])

    def knocked(path: str, listener: socket.socket) -> None:
        heard.append(path)
        listener.close()

    porch = Porch(-1, -1, knocked, lambda paths, why: None)
    porter: Any = Porter()
    porch._at = {"/dev/a": porter, "/dev/b": porter}
    assert asyncio.run(porch.close(["/dev/a", "/dev/b"])) == ["/dev/a"]
    assert heard == ["/dev/a"]
    assert (porch._at, porter.count) == ({}, 0)


def test_where_some_have_no_porter_nobody_listens_for_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told to be closed: the sockets of those that had one are gone."""
    monkeypatch.setattr(porch_module, "PLACES", 2)
    paths = [str(tmp_path / name) for name in ("a", "b", "c")]
    made, porter = list[Any](), porch_module._Porter

    def one_alone(*args: Any) -> Any:
        if made:
            raise Unavailable("cannot start a porter")
        made.append(porter(*args))
        return made[0]

    monkeypatch.setattr(porch_module, "_Porter", one_alone)

    async def listen() -> None:
        lock_fd = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
        porch = Porch(-1, lock_fd, lambda path, listener: None, lambda paths, why: None)
        with pytest.raises(Unavailable):
            await porch.listen(paths)
        assert not any(map(os.path.exists, paths))
        assert (made[0].count, porch._at) == (0, {})
        porch.end()
        os.close(lock_fd)

    asyncio.run(listen())
