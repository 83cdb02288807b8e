"""The block service with the plane of device-mapper: real pages, a real PV, a real service, a fake kernel."""

import asyncio
import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from block_rig import FOREVER_NS
from fake_dm import FakeMapper

from ringfence.block.control import BlockService
from ringfence.block.dm import guard
from ringfence.block.dm.mapper import Line, lines_of
from ringfence.block.service import Places, Service
from ringfence.core.errors import BadInput, Refused, Unavailable
from ringfence.core.ids import Token
from ringfence.engine.orders import OpenPath, ReloadPath
from ringfence.host.clock import boottime_ns
from ringfence.host.lvm_locks import LvmLocks
from ringfence.host.pages import Pages
from ringfence.wire import block as wire
from ringfence.wire.block import Extent, Hold, Plane
from ringfence.wire.lvmlockd import LvmLock

VG_UUID = "VVVVVV-VVVV-VVVV-VVVV-VVVV-VVVV-VVVVVV"
LV_UUID = "LLLLLL-LLLL-LLLL-LLLL-LLLL-LLLL-LLLLLL"
UUID = "LVM-" + "V" * 32 + "L" * 32
SECTORS = 16384


@pytest.fixture(scope="module")
def pv(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    image = tmp_path_factory.mktemp("pv") / "img"
    image.write_bytes(b"")
    os.truncate(image, 64 << 20)
    words = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


class Host:
    """One root with its service, in this process; a kernel that outlives it."""

    def __init__(self, root: Path, pv: str) -> None:
        self.pv = pv
        self.places = Places.under(root, boot="this-boot")
        self.pages = Pages(self.places.run / "authority")
        self.page = self.pages.path(1, "vg/vg0")
        self.sysfs = root / "sys"
        self.sysfs.mkdir()
        self.kernel = FakeMapper()
        self.link = self.places.dev / "vg0/vm1"
        self.record = self.places.run / "mapped" / UUID
        self.written(0)
        self.deadline(FOREVER_NS)

    def deadline(self, deadline_ns: int, incarnation: int = 1) -> None:
        self.pages.set(incarnation, "vg/vg0", deadline_ns)

    def written(self, requests: int) -> None:
        """As the kernel counts it."""
        (self.sysfs / "dm-0").mkdir(exist_ok=True)
        fields = [0, 0, 0, 0, requests, 0, requests * 8, *[0] * 10]
        (self.sysfs / "dm-0/stat").write_text(" ".join(map(str, fields)))

    def order(self, sectors: int = SECTORS) -> OpenPath:
        extents = (Extent(self.pv, 2048 * 512, sectors * 512),)
        return OpenPath("vg0", "vm1", LV_UUID, extents, False, Token(1, 1, 1), vg_uuid=VG_UUID)

    def reload(self, sectors: int, name: str = "vm1") -> ReloadPath:
        order = self.order(sectors)
        return ReloadPath("vg0", "vm1", LV_UUID, order.extents, name, False, Token(1, 1, 1))

    @contextlib.asynccontextmanager
    async def serving(self, hold_ms: int = 60_000, plane: Plane = Plane.DM, crash: bool = False):
        service = Service(self.places, mapper=lambda: self.kernel, hold_ms=hold_ms, block=self.sysfs)
        running = asyncio.ensure_future(service.run())
        client = BlockService(self.places.socket, 7, hold_ms, plane)
        try:
            await eventually(lambda: self.places.socket.exists() or running.done())
            yield client
        finally:
            await client.aclose()
            if crash:
                running.cancel()
                service._dm.close()
                os.close(service._lock_fd)
            else:
                service.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def open(self, client: BlockService) -> None:
        await client.open(self.order(), [self.page])


@pytest.fixture
def host(tmp_path: Path, pv: str) -> Host:
    return Host(tmp_path, pv)


class Looks:
    """The guard's, counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._done = 0
        self._blind = False
        look = guard.Guard.look

        def counted(one: guard.Guard) -> None:
            if not self._blind:
                look(one)
            self._done += 1

        monkeypatch.setattr(guard.Guard, "look", counted)

    async def one(self) -> None:
        """From its beginning to its end."""
        before = self._done
        await eventually(lambda: self._done >= before + 2)  # the first may have been under way

    async def end(self) -> None:
        """The guard sees nothing any more."""
        self._blind = True
        await self.one()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 120))


def kinds(host: Host, uuid: str) -> list[str]:
    """Of the active table's lines."""
    return [one.kind for one in host.kernel.devices[uuid].active or ()]


async def eventually(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not true():
        assert time.monotonic() < give_up, "it never came about"
        await asyncio.sleep(0.005)


def test_an_open_lv_is_a_device_that_lvm2_knows(host: Host) -> None:
    async def story() -> None:
        async with host.serving() as client:
            opened = await client.open(host.order(), [host.page])
            there = host.kernel.devices[UUID]
            assert (there.name, there.suspended) == ("vg0-vm1", False)
            number = os.stat(host.pv).st_rdev
            place = f"{os.major(number)}:{os.minor(number)}"
            assert [(one.kind, one.parameters) for one in there.active or ()] == [("linear", f"{place} 2048")]
            assert opened.path == str(host.link)
            assert os.readlink(host.link) == "/dev/dm-0"
            host.kernel.open(UUID)
            (path,) = await client.paths()
            assert (path.plane, path.connections, path.size_bytes) == (Plane.DM, 1, SECTORS * 512)
            host.kernel.close(UUID)
            await client.close("vg0", "vm1")
            assert not host.kernel.devices
            assert not host.link.is_symlink()
            assert not host.record.exists()

    run(story)


def test_a_device_that_is_in_use_is_not_closed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.block.dm.device.CLOSE_S", 0.05)

    async def story() -> None:
        async with host.serving() as client:
            await host.open(client)
            host.kernel.open(UUID)
            with pytest.raises(Refused, match=r"vg0/vm1 in use \(1 times\); .*fuser -v /dev/dm-0"):
                await client.close("vg0", "vm1")
            host.kernel.write(UUID, 8)
            assert host.link.is_symlink()
            host.kernel.close(UUID)
            await client.close("vg0", "vm1")
            assert not host.kernel.devices

    run(story)


def test_writes_wait_while_authority_is_lapsed_and_go_on_when_it_is_renewed(host: Host) -> None:
    async def story() -> None:
        async with host.serving() as client:
            await host.open(client)
            host.deadline(boottime_ns() + 300_000_000)
            await eventually(lambda: host.kernel.devices[UUID].suspended)
            host.kernel.write(UUID, 8)
            assert not host.kernel.written
            (path,) = await client.paths()
            assert "authority is lapsed" in path.stopped
            host.deadline(FOREVER_NS)
            await eventually(lambda: host.kernel.written == [(UUID, 8)])
            assert not await incidents(client)

    run(story)


@pytest.mark.parametrize("how", ["lost", "held for too long"])
def test_writes_fail_when_authority_is_lost_or_lapsed_for_too_long(host: Host, how: str) -> None:
    async def story() -> None:
        async with host.serving(hold_ms=200) as client:
            await host.open(client)
            host.kernel.open(UUID)
            host.deadline(0 if how == "lost" else 1)
            await eventually(lambda: kinds(host, UUID) == ["error"])
            await eventually(lambda: not host.kernel.devices[UUID].suspended)
            with pytest.raises(OSError, match="Input/output error"):
                host.kernel.write(UUID, 8)
            (path,) = await client.paths()
            assert "fails all I/O" in path.failed
            # Its lock may go: nothing can be written.  Its user keeps what fails; it opens to nobody else.
            await client.close("vg0", "vm1")
            assert await client.paths() == ()
            host.pages.set(2, "vg/vg0", FOREVER_NS)
            with pytest.raises(Refused, match=r"still open since its authority was lost \(1 times\)"):
                await client.open(host.order(), [host.pages.path(2, "vg/vg0")])
            host.kernel.close(UUID)
            assert not host.kernel.devices
            await client.open(host.order(), [host.pages.path(2, "vg/vg0")])
            assert host.kernel.devices[UUID].active

    run(story)


async def incidents(client: BlockService, awaited: int = 0) -> list[str]:
    """What there is by now; so many are waited for."""
    found: list[str] = []
    watching = client.incidents()
    with contextlib.suppress(TimeoutError):
        while True:
            limit_s = 0.3 if len(found) >= awaited else 60
            found.append((await asyncio.wait_for(anext(watching), limit_s)).what)
    await watching.aclose()
    return found


def test_what_was_written_after_the_deadline_is_reported(host: Host, looks: Looks) -> None:
    """As on a host that was frozen: it wakes behind its deadline, and writes before its guard runs."""

    async def story() -> None:
        async with host.serving() as client:
            host.written(5)
            await host.open(client)
            await looks.one()  # its guard has counted
            host.kernel.hang.clear()  # the suspension is under way, and its host so slow that it is late
            host.deadline(boottime_ns() + 100_000_000)
            await eventually(lambda: host.kernel.devices[UUID].suspended)
            host.written(8)
            await asyncio.sleep(0.2)
            host.kernel.hang.set()
            await eventually(lambda: bool(host.places.incidents.read_bytes()))
            (what,) = await incidents(client, awaited=1)
            assert "up to 3 writes (12288 bytes) to vg0/vm1 may have reached the disk" in what

    run(story)


def test_what_landed_before_all_is_dropped_is_reported_though_the_guard_had_not_looked_again(
    host: Host, looks: Looks
) -> None:
    """A host thaws, its daemon finds that it was given up, and is faster than the guard."""

    async def story() -> None:
        async with host.serving() as client:
            host.written(5)
            await host.open(client)
            await looks.one()  # its guard has counted
            await looks.end()
            host.deadline(0)
            host.written(8)
            await client.drop_all()
            (what,) = await incidents(client, awaited=1)
            assert "up to 3 writes (12288 bytes) to vg0/vm1 may have reached the disk" in what

    run(story)


def test_nothing_written_after_the_deadline_is_nothing_to_report(host: Host, looks: Looks) -> None:
    async def story() -> None:
        async with host.serving() as client:
            host.written(5)
            await host.open(client)
            await looks.one()
            host.deadline(1)
            await eventually(lambda: host.kernel.devices[UUID].suspended)
            assert await incidents(client) == []

    run(story)


def test_it_is_not_opened_without_authority(host: Host) -> None:
    async def story() -> None:
        async with host.serving() as client:
            host.deadline(1)
            with pytest.raises(Refused, match="no write authority now"):
                await host.open(client)
            assert not host.kernel.devices

    run(story)


def test_drop_all_cuts_what_is_in_use(host: Host) -> None:
    async def story() -> None:
        async with host.serving() as client:
            await host.open(client)
            host.kernel.open(UUID)
            await client.drop_all()
            with pytest.raises(OSError, match="Input/output error"):
                host.kernel.write(UUID, 8)
            assert await client.paths() == ()
            host.kernel.close(UUID)
            assert not host.kernel.devices

    run(story)


def test_drop_all_is_not_answered_while_a_table_stands(host: Host) -> None:
    async def story() -> None:
        async with host.serving() as client:
            await host.open(client)
            host.kernel.open(UUID)
            host.kernel.fail["load"] = errno.ENOMEM
            dropping = asyncio.ensure_future(client.drop_all())
            await asyncio.sleep(0.2)
            assert not dropping.done()
            del host.kernel.fail["load"]
            await dropping
            host.kernel.close(UUID)

    run(story)


def test_a_service_that_crashed_is_followed_by_one_that_guards_what_stands(host: Host) -> None:
    async def crash() -> None:
        async with host.serving(crash=True) as client:
            await host.open(client)
            host.kernel.open(UUID)

    async def follow() -> None:
        assert host.kernel.devices[UUID].active
        async with host.serving() as client:
            (path,) = await client.take_over()
            assert (path.lv, path.connections, path.token) == ("vm1", 1, str(Token(1, 1, 1)))
            assert host.link.is_symlink()
            host.deadline(1)
            await eventually(lambda: host.kernel.devices[UUID].suspended)
            host.kernel.close(UUID)

    run(crash)
    run(follow)


def test_a_grown_lv_is_reloaded_under_its_user(host: Host) -> None:
    async def story() -> None:
        async with host.serving() as client:
            await host.open(client)
            host.kernel.open(UUID)
            with pytest.raises(OSError, match="Input/output error"):
                host.kernel.write(UUID, SECTORS)
            await client.reload(host.reload(2 * SECTORS, "vm-2"))
            host.kernel.write(UUID, SECTORS)
            there = host.kernel.devices[UUID]
            assert (there.name, there.suspended) == ("vg0-vm--2", False)
            assert [path.name for path in (host.places.dev / "vg0").iterdir()] == ["vm-2"]
            held = msgspec.structs.replace(host.reload(2 * SECTORS, "vm-2"), lv="vm-2", hold=Hold.GIVING)
            with pytest.raises(Refused, match="open as a device"):
                await client.reload(held)
            # While it is held it is reloaded, and held on.
            host.deadline(1)
            await eventually(lambda: there.suspended)
            renamed = host.reload(3 * SECTORS, "vm-2")
            await client.reload(ReloadPath("vg0", "vm-2", *renamed_fields(renamed)))
            host.kernel.write(UUID, 2 * SECTORS)
            assert there.suspended
            assert there.held == [2 * SECTORS]
            host.deadline(FOREVER_NS)
            await eventually(lambda: (UUID, 2 * SECTORS) in host.kernel.written)
            host.kernel.close(UUID)

    def renamed_fields(order: ReloadPath) -> tuple[Any, ...]:
        return order.uuid, order.extents, order.name, order.readonly, order.token

    run(story)


def test_a_table_that_the_kernel_refuses_leaves_nothing(host: Host) -> None:
    async def story() -> None:
        async with host.serving() as client:
            host.kernel.fail["load"] = errno.EINVAL
            with pytest.raises(Exception, match="does not take the table of vg0/vm1"):
                await host.open(client)
            assert not host.kernel.devices
            assert not host.record.exists()
            host.kernel.create("vg0-vm1", "LVM-another")
            with pytest.raises(Refused, match="another device called vg0-vm1"):
                await host.open(client)
            assert list(host.kernel.devices) == ["LVM-another"]

    run(story)


def test_a_device_that_lvm2_made_is_not_taken_for_ours(host: Host) -> None:
    async def story() -> None:
        async with host.serving() as client:
            host.kernel.create("vg0-vm1", UUID)
            with pytest.raises(Refused, match="vg0/vm1 already, as vg0-vm1, and not from us; deactivate"):
                await host.open(client)
            assert UUID in host.kernel.devices

    run(story)


def test_auto_is_nbd_for_a_pv_in_a_file_and_dm_says_what_is_wrong(host: Host, tmp_path: Path) -> None:
    image = tmp_path / "img"
    image.write_bytes(bytes(16 << 20))
    host.pv = str(image)

    async def story() -> None:
        async with host.serving(plane=Plane.AUTO) as client:
            opened = await client.open(host.order(), [host.page])
            assert opened.uri.startswith("nbd+unix:")
            await client.close("vg0", "vm1")
            client = BlockService(host.places.socket, 7, plane=Plane.DM)
            with pytest.raises(BadInput, match=r'img is no block device; use plane = "nbd"'):
                await host.open(client)
            await client.aclose()

    run(story)


def test_auto_is_nbd_where_there_is_no_device_mapper(host: Host) -> None:
    def none() -> FakeMapper:
        raise Unavailable("device-mapper cannot be used")

    async def story() -> None:
        service = Service(host.places, mapper=none)
        running = asyncio.ensure_future(service.run())
        await eventually(host.places.socket.exists)
        for plane, is_open in ((Plane.AUTO, True), (Plane.DM, False)):
            client = BlockService(host.places.socket, 7, plane=plane)
            if is_open:
                await host.open(client)
                await client.close("vg0", "vm1")
            else:
                with pytest.raises(Unavailable, match="device-mapper cannot be used"):
                    await host.open(client)
            await client.aclose()
        service.stop()
        await running

    run(story)


# -- tables that stock LVM2 made -----------------------------------------------------


def stock(host: Host, number: int, name: str, uuid: str, *slaves: str) -> None:
    """A device that LVM2 made, in the kernel and in sysfs."""
    host.kernel.create(name, uuid)
    host.kernel.load(uuid, host_lines())
    host.kernel.resume(uuid)
    at = host.sysfs / f"dm-{number}"
    (at / "dm").mkdir(parents=True, exist_ok=True)
    (at / "slaves").mkdir(exist_ok=True)
    for slave in slaves:
        (at / "slaves" / slave).touch()
    (at / "dm/name").write_text(f"{name}\n")
    (at / "dm/uuid").write_text(f"{uuid}\n")


def host_lines() -> list[Line]:

    return [Line(0, SECTORS, "linear", "7:0 2048")]


def test_tables_that_lvm2_made_under_our_locks_are_held_and_cut_too(host: Host) -> None:
    other = "LVM-" + "W" * 32 + "M" * 32
    leg = "LVM-" + "V" * 32 + "R" * 32

    async def story() -> None:
        async with host.serving() as client:
            note = LvmLocks(host.places.run / "lvm-locks", "this-boot")
            lock = LvmLock("lvm_vg0", LV_UUID, "ex", "1.1.1", "LV vg0/vm1", vg_uuid=VG_UUID)
            note.keep([lock], [])
            stock(host, 0, "vg0-vm1", UUID, "dm-1")
            stock(host, 1, "vg0-leg", leg, "sda")
            stock(host, 2, "other-vm1", other, "sdb")
            kernel = host.kernel
            await asyncio.sleep(0.4)
            assert not [one.name for one in kernel.devices.values() if one.suspended]
            host.deadline(1)
            await eventually(lambda: kernel.devices[UUID].suspended and kernel.devices[leg].suspended)
            asked = [uuid for method, uuid in kernel.calls if method == "suspend"]
            assert asked[:2] == [UUID, leg], "what is on top first"
            assert not kernel.devices[other].suspended
            host.deadline(FOREVER_NS, incarnation=2)  # a daemon that adopted the locks
            await eventually(lambda: not kernel.devices[UUID].suspended and not kernel.devices[leg].suspended)
            note.lose()
            await eventually(lambda: kinds(host, leg) == ["error"])
            assert kinds(host, UUID) == ["error"]
            assert kinds(host, other) == ["linear"]
            assert await client.paths() == ()

    run(story)


def test_an_lv_that_was_ours_before_it_was_lvm2s_is_held_as_any_other(host: Host) -> None:
    async def story() -> None:
        async with host.serving() as client:
            await host.open(client)
            await client.close("vg0", "vm1")
            note = LvmLocks(host.places.run / "lvm-locks", "this-boot")
            note.keep([LvmLock("lvm_vg0", LV_UUID, "ex", "1.1.1", "LV vg0/vm1", vg_uuid=VG_UUID)], [])
            stock(host, 0, "vg0-vm1", UUID, "sda")
            host.deadline(1)
            await eventually(lambda: host.kernel.devices[UUID].suspended)

    run(story)


def test_what_lvm2_has_suspended_itself_is_not_resumed(host: Host) -> None:
    leg = "LVM-" + "V" * 32 + "R" * 32

    async def story() -> None:
        async with host.serving():
            note = LvmLocks(host.places.run / "lvm-locks", "this-boot")
            note.keep([LvmLock("lvm_vg0", LV_UUID, "ex", "1.1.1", "LV vg0/vm1", vg_uuid=VG_UUID)], [])
            stock(host, 0, "vg0-vm1", UUID, "dm-1")
            stock(host, 1, "vg0-leg", leg, "sda")
            host.kernel.suspend(leg)
            await asyncio.sleep(0.4)
            host.deadline(1)
            await eventually(lambda: host.kernel.devices[UUID].suspended)
            await asyncio.sleep(0.1)
            host.deadline(FOREVER_NS)
            await eventually(lambda: not host.kernel.devices[UUID].suspended)
            assert host.kernel.devices[leg].suspended

    run(story)


def test_an_lv_in_stripes_is_a_striped_line(host: Host) -> None:
    extents = (
        wire.Extent("/dev/a", 1 << 20, 8 << 20),
        wire.Extent("/dev/a", 16 << 20, 8 << 20, (wire.Place("/dev/b", 2 << 20),), 64 << 10),
    )
    numbers = {"/dev/a": os.makedev(8, 0), "/dev/b": os.makedev(8, 16)}
    assert lines_of(extents, numbers.__getitem__) == (
        Line(0, 16384, "linear", "8:0 2048"),
        Line(16384, 16384, "striped", "2 128 8:0 32768 8:16 4096"),
    )
