"""What stock LVM2 has through a daemon (`daemon.lvm`): the next one adopts it, or it is ended."""

import asyncio
import errno
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_mapper import FakeMapper

from ringfence.core.errors import Unavailable
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.daemon import lvm
from ringfence.daemon.lvm import LvmHost
from ringfence.engine.inputs import Input, ProcessEnded
from ringfence.host import mapper
from ringfence.host.lvm_locks import LvmLocks
from ringfence.host.processes import process
from ringfence.wire.lvmlockd import LvmLock

VG, LV = "V" * 32, "aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa"
TABLE = "vg0-vm1"
ACTIVE = LvmLock("lvm_vg0", LV, "ex", "3.1.7", "LV vg0/vm1")
WRITES_ON = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(flush=True); sys.stdin.read()"


@pytest.fixture
def fake(tmp_path: Path) -> FakeMapper:
    fake = FakeMapper(tmp_path)
    fake.add(0, TABLE, f"LVM-{VG}{LV.replace('-', '')}", "sda")
    return fake


@pytest.fixture
def command() -> Iterator[subprocess.Popen[bytes]]:
    """A command of LVM2 in mid-commit: it runs until its stdin ends."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITES_ON], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as one:
        assert one.stdout is not None
        one.stdout.readline()
        yield one
        one.kill()


def changes(command: subprocess.Popen[bytes]) -> LvmLock:
    found = process(command.pid)
    assert found is not None
    return LvmLock("lvm_vg0", "VGLK", "ex", "3.1.9", "VG vg0", command.pid, found.start)


def host(fake: FakeMapper, *locks: LvmLock) -> LvmHost:
    """As a daemon of this boot begins, after one that had noted these."""
    file = LvmLocks(fake.root / "lvm-locks", "boot")
    file.keep(locks, ())
    return LvmHost(file, fake.mapper())


# -- the next daemon -----------------------------------------------------------------


def test_the_next_daemon_shows_all_of_it(fake: FakeMapper, command: subprocess.Popen[bytes]) -> None:
    host(fake, ACTIVE, changes(command))
    left = host(fake).left(adoptable=True)
    assert left is not None
    assert [(one.what, one.lock.mode, one.lock.token) for one in left] == [
        ("LV vg0/vm1", Mode.EX, Token(3, 1, 7)),
        ("VG vg0", Mode.EX, Token(3, 1, 9)),
    ]


def test_of_a_command_that_has_ended_nothing_is_left(
    fake: FakeMapper, command: subprocess.Popen[bytes]
) -> None:
    lock = changes(command)
    command.kill()
    command.wait()
    assert host(fake, lock).left(adoptable=True) == ()
    assert host(fake).empty


def test_another_process_of_that_pid_is_not_the_command(
    fake: FakeMapper, command: subprocess.Popen[bytes]
) -> None:
    lock = changes(command)
    earlier = LvmLock(lock.lockspace, "VGLK", "ex", "3.1.9", "VG vg0", lock.pid, lock.started - 1)
    assert host(fake, earlier).left(adoptable=True) == ()


def test_what_a_daemon_began_to_drop_is_never_adopted(fake: FakeMapper) -> None:
    first = host(fake, ACTIVE)
    first.lose()
    first.keep((), (ACTIVE,))
    second = host(fake)
    assert second.left(adoptable=True) is None
    assert not second.empty


def test_nothing_may_be_adopted_where_no_life_of_this_boot_is_known(fake: FakeMapper) -> None:
    assert host(fake, ACTIVE).left(adoptable=False) is None
    assert host(FakeMapperLess(fake)).left(adoptable=False) == ()


class FakeMapperLess(FakeMapper):
    """Another host, with the same devices and nothing noted."""

    def __init__(self, like: FakeMapper) -> None:
        self.root = like.root / "other"
        self.root.mkdir()
        self.block, self.dmsetup = like.block, like.dmsetup


# -- the end of it -------------------------------------------------------------------


def test_all_is_ended_before_it_is_called_dropped(fake: FakeMapper, command: subprocess.Popen[bytes]) -> None:
    one = host(fake, ACTIVE, changes(command))
    asyncio.run(one.drop_all())
    assert process(command.pid) is None or command.poll() is not None
    assert fake.cut == [TABLE]
    assert host(fake).left(adoptable=True) == ()


def test_a_table_that_stands_is_not_closed(fake: FakeMapper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapper, "CUT_S", 0.2)
    fake.hangs(TABLE)
    one = host(fake, ACTIVE)

    async def drop() -> None:
        for _ in range(2):
            with pytest.raises(Unavailable, match=f"tables are not cut: {TABLE}"):
                await one.drop_all()

    asyncio.run(drop())
    assert not one.empty
    one.close()
    fake.hangs(TABLE, now=False)
    asyncio.run(host(fake).drop_all())
    assert host(fake).empty


def test_a_table_that_is_made_while_its_command_is_ended_is_cut_too(
    fake: FakeMapper, command: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command was told of its lock just before, and makes the device while the first look finds none."""
    fake.remove(0)
    one = host(fake, changes(command))
    cut = fake.mapper()

    def makes_one(lock: LvmLock) -> None:
        if command.poll() is None:
            fake.add(1, "vg0-vm2", f"LVM-{VG}{'b' * 32}", "sda")
            command.kill()
            command.wait()

    monkeypatch.setattr(lvm, "_kill", makes_one)
    monkeypatch.setattr(one, "_mapper", _Blind(cut))

    async def drop() -> None:
        with pytest.raises(Unavailable, match="vg0-vm2"):
            await one.drop_all()
        monkeypatch.setattr(one, "_mapper", cut)
        await one.drop_all()

    asyncio.run(drop())
    assert fake.cut == ["vg0-vm2"]


class _Blind:
    """Its first look is older than what it is asked for."""

    def __init__(self, real: mapper.Mapper) -> None:
        self.standing = real.standing

    def cut(self, vgs: object) -> tuple[mapper.Table, ...]:
        return ()


def test_a_command_that_no_kill_ends_is_not_over(
    fake: FakeMapper, command: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that the kernel holds in the middle of a write."""
    monkeypatch.setattr(lvm, "_kill", lambda lock: None)
    monkeypatch.setattr(lvm, "ENDING_S", 0.1)
    one = host(fake, changes(command))
    with pytest.raises(Unavailable, match=rf"do not end: VG vg0 \(pid {command.pid}\)"):
        asyncio.run(one.drop_all())
    assert not one.empty


def test_only_the_vgs_of_locks_are_touched(fake: FakeMapper) -> None:
    fake.add(5, "host-root", f"LVM-{'o' * 32}{'r' * 32}", "sdb")
    asyncio.run(host(fake, ACTIVE).drop_all())
    assert fake.cut == [TABLE]


def test_who_leaves_is_told_what_stands(fake: FakeMapper) -> None:
    one = host(fake, ACTIVE)
    assert asyncio.run(one.standing(["vg0"])) == ("vg0/vm1",)
    assert asyncio.run(one.standing(["vg1"])) == ()
    fake.mapper().cut([mapper.SharedVg("vg0")])
    assert asyncio.run(one.standing(["vg0"])) == ()


# -- a process that is watched -----------------------------------------------------------


class Ends:
    """What is told of the ends of processes."""

    def __init__(self) -> None:
        self.told: list[Input] = []
        self.over = asyncio.Event()

    def feed(self, *facts: Input) -> None:
        self.told.extend(facts)
        self.over.set()


@pytest.mark.parametrize("pidfd", [True, False], ids=["by a pidfd", "by looking"])
def test_the_end_of_a_process_is_told(
    fake: FakeMapper, command: subprocess.Popen[bytes], pidfd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = changes(command)
    ends = Ends()

    def no_pidfd(pid: int) -> int:
        raise OSError(24, "Too many open files")

    if not pidfd:
        monkeypatch.setattr("os.pidfd_open", no_pidfd)
        monkeypatch.setattr(lvm, "POLL_S", 0.02)

    async def watched() -> None:
        host(fake).watch(lock.pid, lock.started, ends.feed)
        await asyncio.sleep(0.05)
        assert ends.told == []
        command.stdin.close()  # type: ignore[union-attr]
        await asyncio.wait_for(ends.over.wait(), 60)

    asyncio.run(watched())
    assert ends.told == [ProcessEnded(lock.pid, lock.started)]


def test_a_process_of_which_nothing_can_be_told_has_not_ended(
    fake: FakeMapper, command: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that can open no more files: who changes a VG keeps the lock of it."""
    lock = changes(command)
    ends = Ends()
    monkeypatch.setattr(lvm, "POLL_S", 0.02)

    async def watched() -> None:
        one = host(fake, lock)
        with no_more_files():
            one.watch(lock.pid, lock.started, ends.feed)
            await asyncio.sleep(0.1)
        assert ends.told == []
        command.stdin.close()  # type: ignore[union-attr]
        await asyncio.wait_for(ends.over.wait(), 60)

    asyncio.run(watched())
    assert ends.told == [ProcessEnded(lock.pid, lock.started)]


def test_a_process_of_which_nothing_can_be_told_is_not_killed(
    fake: FakeMapper, command: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be another's by now; whether the command has ended is not known either."""
    lock = changes(command)
    other = LvmLock("lvm_vg0", "VGLK", "ex", "3.1.9", "VG vg0", lock.pid, lock.started - 1)

    def untold(pid: int) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def drop() -> None:
        one = host(fake, other)
        with monkeypatch.context() as patch:
            patch.setattr(lvm, "process", untold)
            patch.setattr(lvm, "ENDING_S", 0.1)
            with pytest.raises(Unavailable, match="do not end: VG vg0"):
                await one.drop_all()
        await one.drop_all()

    asyncio.run(drop())
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(0.1)


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_is_over_is_told_at_once(fake: FakeMapper) -> None:
    told: list[Input] = []

    async def watched() -> None:
        host(fake).watch(4194304 - 1, int(time.time()), lambda *facts: told.extend(facts))

    asyncio.run(watched())
    assert len(told) == 1
