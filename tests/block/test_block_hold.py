"""Hold: while an LV is handed over, what changes it waits at both ends, and reads are answered."""

import asyncio
import errno
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from block_rig import MIB, Rig, Writing, eventually, rig

from ringfence.block import protocol as nbd
from ringfence.block.control import BlockService
from ringfence.block.gate import Denied, Gate
from ringfence.block.protocol import Command
from ringfence.core.errors import Refused
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.daemon.inheritance import take_over
from ringfence.engine.orders import MirrorPath, OpenPath, ReloadPath
from ringfence.host.pages import PageReader, Pages
from ringfence.lab.nbd_client import NbdClient
from ringfence.wire import block as wire
from ringfence.wire.block import Extent, Hold, Plane

NEW = Token(1, 2, 2)


@pytest.fixture(params=["fast", "plain"])
def both(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The usual case runs in C or in Python."""
    with rig(plain=request.param == "plain") as one:
        yield one


def order(block: Rig, how: Hold | None, token: Token = NEW) -> ReloadPath:
    one = block.order()
    return ReloadPath("vg0", "vm1", one.uuid, one.extents, "vm1", False, token, how)


def hold(block: Rig, how: Hold | None, token: Token = NEW) -> None:
    block.ask(lambda service: service.reload(order(block, how, token)))


def hold_behind_a_write(
    freezable: Rig, uri: str, pool: ThreadPoolExecutor
) -> tuple[Writing, "Future[None]"]:
    """A write that is under way, and a hold that waits for it."""
    write = Writing(uri, 0, b"d" * 4096)
    eventually(lambda: len(freezable.standing()) == 1)
    told = pool.submit(hold, freezable, Hold.GIVING)
    with pytest.raises(TimeoutError):
        told.result(timeout=0.3)
    return write, told


def requests(uri: str, pool: ThreadPoolExecutor) -> dict[str, "Future[None]"]:
    """One of each kind that changes something, to a block of its own, on a connection of its own."""

    def ask(command: Command, number: int, data: bytes) -> Callable[[], None]:
        def run() -> None:
            with NbdClient(uri, timeout_s=60) as client:
                client._request(command, 0, number * 4096, 4096, data)

        return run

    kinds = (Command.WRITE, b"n" * 4096), (Command.TRIM, b""), (Command.WRITE_ZEROES, b"")
    return {
        command.name: pool.submit(ask(command, number, data)) for number, (command, data) in enumerate(kinds)
    }


def test_changes_wait_reads_are_answered_and_all_goes_on_at_its_end(both: Rig) -> None:
    uri = both.open()
    with NbdClient(uri, timeout_s=60) as reader, ThreadPoolExecutor(4) as pool:
        reader.write(0, b"o" * 12288)
        hold(both, Hold.GIVING)
        asked = requests(uri, pool)
        eventually(lambda: both.path().connections == 4)
        for _ in range(50):
            assert reader.read(0, 12288) == b"o" * 12288
        reader.flush()
        assert not any(one.done() for one in asked.values())
        assert both.on_disk(0, 12288) == b"o" * 12288
        assert (both.path().hold, both.path().token) == (Hold.GIVING, str(NEW))
        hold(both, None)  # another reload keeps it
        assert both.path().hold is Hold.GIVING
        hold(both, Hold.NONE)
        for one in asked.values():
            one.result(timeout=60)
    assert both.on_disk(0, 12288) == b"n" * 4096 + bytes(8192)
    assert not both.places.incidents.read_bytes()


def test_a_write_that_waits_holds_up_no_read_on_its_connection(both: Rig) -> None:
    uri = both.open()
    hold(both, Hold.GIVING)
    with NbdClient(uri, timeout_s=60) as client:
        head = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, Command.WRITE, 1 << 40, 0, 4096)
        client._sock.sendall(head + b"w" * 4096)
        for _ in range(20):
            assert client.read(4096, 4096) == bytes(4096)
        hold(both, Hold.NONE)
        assert nbd.REPLY.unpack(client._receive(nbd.REPLY.size)) == (nbd.REPLY_MAGIC, 0, 1 << 40)
    assert both.on_disk(0, 4096) == b"w" * 4096


def test_a_hold_that_a_dead_daemon_has_ordered_is_over_when_the_next_one_is_told_what_is_open(
    freezable: Rig,
) -> None:
    """It goes by what it was told: which lock a path needs, and whether its writes wait for somebody."""
    uri = freezable.open()
    with ThreadPoolExecutor(2) as pool:
        with freezable.held_writes():
            write, _ = hold_behind_a_write(freezable, uri, pool)
            taken = pool.submit(freezable.ask, lambda service: service.take_over())
            with pytest.raises(TimeoutError):
                taken.result(timeout=0.3)
        (left,) = taken.result(timeout=60)
    assert write.result() == 0
    assert left.hold is freezable.path().hold is Hold.GIVING


def test_it_is_answered_when_nothing_is_on_its_way_any_more(freezable: Rig) -> None:
    uri = freezable.open()
    with ThreadPoolExecutor(1) as pool:
        with freezable.held_writes():
            write, told = hold_behind_a_write(freezable, uri, pool)
        told.result(timeout=60)
    assert freezable.on_disk(0, 4096) == b"d" * 4096
    assert write.result() == 0


def test_the_other_end_is_opened_held_and_as_a_socket(both: Rig) -> None:
    opened = msgspec.structs.replace(both.order(), hold=Hold.TAKING)

    async def open_as_a_device(_: BlockService) -> None:
        service = BlockService(both.places.socket, node=1, plane=Plane.DM)
        await service.open(opened, [both.pages.path(1, "vg/vg0")])
        await service.aclose()

    both.renew()
    both.ask(open_as_a_device)
    assert (both.path().hold, both.path().plane) == (Hold.TAKING, Plane.NBD)
    write = Writing(both.path().uri, 0, b"t" * 4096)
    eventually(lambda: both.path().connections == 1)
    with NbdClient(both.path().uri) as reader:
        assert not reader.flags & 2, "who opens it early must be able to write later"
        for _ in range(50):
            assert reader.read(0, 4096) == bytes(4096)
    assert not write.answered
    hold(both, Hold.NONE)
    assert write.result() == 0


def test_what_waits_fails_when_it_is_closed_and_is_no_incident(block: Rig) -> None:
    uri = block.open()
    hold(block, Hold.GIVING)
    write = Writing(uri, 0, b"e" * 4096)
    eventually(lambda: block.path().connections == 1)
    block.ask(lambda service: service.close("vg0", "vm1"))
    assert write.result() != 0
    assert block.on_disk(0, 4096) == bytes(4096)
    assert not block.places.incidents.read_bytes()


def test_a_lender_writes_on_and_is_not_moved(block: Rig) -> None:
    uri = block.open()
    hold(block, Hold.LENDING)
    with NbdClient(uri) as client:
        client.write(0, b"l" * 4096)
    assert block.path().hold is Hold.LENDING
    away = (Extent(str(block.image), 32 * MIB, MIB),)
    with pytest.raises(Refused, match="vg0/vm1 is being handed over"):
        block.ask(lambda service: service.mirror(MirrorPath("vg0", "vm1", "uuid-vm1", 0, away, NEW)))


@pytest.mark.parametrize(
    ("how", "mode"),
    [
        (Hold.NONE, Mode.EX),
        (Hold.LENDING, Mode.PW),
        (Hold.GIVING, Mode.PR),
        (Hold.TAKING, Mode.PR),
        (Hold.BORROWING, Mode.CR),
    ],
)
def test_a_daemon_that_comes_back_shows_what_the_path_is_open_under(
    how: Hold, mode: Mode, tmp_path: Path
) -> None:
    pages = Pages(tmp_path)
    pages.set(1, "vg/vg0", 1)
    page = str(pages.path(1, "vg/vg0"))
    path = wire.Path("vg0", "vm1", "uuid-vm1", "", "", 0, pages=(page,), token=str(NEW), hold=how)

    class Service(BlockService):
        async def take_over(self) -> tuple[wire.Path, ...]:
            return (path,)

    left = asyncio.run(take_over(Service(tmp_path), tmp_path, 1, print))
    assert left is not None
    assert (left[0].lock.mode, left[0].lock.token) == (mode, NEW)


def test_a_hold_has_no_limit_and_a_lapse_within_it_has_its_own(tmp_path: Path) -> None:
    """Seen through the clock of the gate: a hold of an hour, then a lapse, then one that is too long."""
    pages = Pages(tmp_path)
    pages.set(1, "vg/vg0", 10**18)
    now_ns = 0
    gate = Gate([PageReader(pages.path(1, "vg/vg0"))], hold_ms=1000, now_ns=lambda: now_ns)
    gate.held = True
    script = iter(
        [
            (3600, 10**18),
            (3600, 0 + 1),  # lapsed
            (3600.9, 10**18),
            (7200, 10**18),
            (7200, 1),
            (7201, 1),
        ]
    )

    def wait(_: int) -> bool:
        nonlocal now_ns
        now_s, deadline_ns = next(script)
        now_ns = int(now_s * 10**9)
        pages.set(1, "vg/vg0", deadline_ns)
        return False

    with pytest.raises(Denied, match="lapsed for over 1000 ms") as refused:
        gate.pass_through(wait, changes=True)
    assert refused.value.errno == errno.EPERM
    assert next(script, None) is None
    pages.set(1, "vg/vg0", 10**18 * 2)
    gate.pass_through(wait)  # what only reads goes on


def test_a_block_service_of_before_is_told_nothing_of_it() -> None:
    """What it does not know it refuses, so nothing of it is said where there is no hold."""
    opened = wire.Open("vg0", "vm1", "u", (), ("page",))
    reload = wire.Reload("vg0", "vm1", "u", (), "vm1")
    for call in (opened, reload):
        assert b'hold"' not in wire.encode(wire.Request(1, call))
    assert OpenPath("vg0", "vm1", "u", (), False, NEW).hold is Hold.NONE
