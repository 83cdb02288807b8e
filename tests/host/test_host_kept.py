"""What must survive a power cut: old or new, never half, never silently nothing."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from ringfence.core.errors import Damaged, DeviceFailed, Unavailable
from ringfence.core.ids import Epoch, Life
from ringfence.engine.inputs import DiskState
from ringfence.host import clock, identity, kept, notify

STATE = DiskState(Epoch(4, 1), 3, "boot", (Life(2, "m", "b", 1), Life(3)))


def test_a_value_comes_back_and_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "state"
    assert kept.load(path, DiskState) is None
    kept.keep(path, STATE)
    assert kept.load(path, DiskState) == STATE
    kept.keep(path, DiskState(incarnation=9))
    assert kept.load(path, DiskState) == DiskState(incarnation=9)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["state", "state.new"]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    "step", ["os.open", "os.write", "os.ftruncate", "os.fsync", "os.replace", "_exchange"]
)
def test_a_failure_at_any_step_leaves_the_old_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, first: bool
) -> None:
    path = tmp_path / "state"
    kept.keep(path, STATE)
    if not first:
        kept.keep(path, STATE)

    def fail(*args: object, **named: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        room, _, name = step.rpartition(".")
        patch.setattr(kept.os if room else kept, name, fail)
        if name == "replace":  # where the file system cannot exchange
            patch.setattr(kept, "_exchange", lambda one, other: False)
        with pytest.raises(DeviceFailed, match=r"cannot keep .*No space left on device"):
            kept.keep(path, DiskState())
    assert kept.load(path, DiskState) == STATE
    kept.keep(path, DiskState(incarnation=1))
    assert kept.load(path, DiskState) == DiskState(incarnation=1)


def test_the_new_file_is_flushed_before_it_takes_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, write, exchange = os.fsync, os.write, kept._exchange
    monkeypatch.setattr(kept.os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(kept.os, "write", lambda fd, data: (steps.append("write"), write(fd, data))[1])
    monkeypatch.setattr(kept, "_exchange", lambda old, new: (steps.append("rename"), exchange(old, new))[1])
    # What this process has not flushed may be the other way round on the disk.
    kept.keep(tmp_path / "state", STATE)
    assert steps == ["fsync", "write", "fsync", "rename", "fsync"]
    del steps[:]
    kept.keep(tmp_path / "state", STATE)
    assert steps == ["write", "fsync", "rename", "fsync"]
    monkeypatch.setattr(kept, "_exchange", lambda old, new: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kept.keep(tmp_path / "state", STATE)
    monkeypatch.setattr(kept, "_exchange", exchange)
    del steps[:]
    kept.keep(tmp_path / "state", STATE)
    assert steps == ["fsync", "write", "fsync", "fsync"]


def test_a_really_full_disk(tmp_path: Path) -> None:
    mount = tmp_path / "m"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(mount)], check=True)
    try:
        kept.keep(mount / "state", STATE)
        (mount / "filler").write_bytes(bytes(12288))
        with pytest.raises(DeviceFailed, match="No space left"):
            kept.keep(mount / "state", DiskState(incarnation=8))
        assert kept.load(mount / "state", DiskState) == STATE
        (mount / "filler").unlink()
        kept.keep(mount / "state", STATE)
        (mount / "filler").write_bytes(bytes(8192))
        for number in range(9):  # each is written where the one before the last was
            full = DiskState(incarnation=number, victims=tuple(Life(id, "m", "b", 1) for id in range(1, 17)))
            kept.keep(mount / "state", full)
            assert kept.load(mount / "state", DiskState) == full
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("data", [b"", b"{", b'{"incarnation": "x"}', b"\xff\xfe"])
def test_damage_is_not_read_as_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "state").write_bytes(data)
    with pytest.raises(Damaged, match="is damaged"):
        kept.load(tmp_path / "state", DiskState)


def test_a_lab_host_has_its_own_identity(tmp_path: Path) -> None:
    assert identity.machine_id(tmp_path) == identity.machine_id()
    assert identity.boot_id(tmp_path) == identity.boot_id()
    (tmp_path / "etc").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "etc/machine-id").write_text("lab-machine-1\n")
    (tmp_path / "run/boot_id").write_text("lab-boot-1\n")
    assert identity.machine_id(tmp_path) == "lab-machine-1"
    assert identity.boot_id(tmp_path) == "lab-boot-1"
    assert identity.boot_id(Path("/")) == identity.boot_id() != "lab-boot-1"


def test_no_identity_is_an_error_never_an_empty_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    own = tmp_path / "etc/machine-id"
    for text in ("", "\n", "two words", "uninitialized"):
        own.write_text(text)
        with pytest.raises(Damaged, match="systemd-machine-id-setup"):
            identity.machine_id(tmp_path)
    own.unlink()
    own.symlink_to("nowhere")  # there, but unreadable: not a reason to take another machine's
    with pytest.raises(Unavailable):
        identity.machine_id(tmp_path)
    monkeypatch.setattr(identity, "MACHINE_ID", tmp_path / "none")
    with pytest.raises(Unavailable, match="cannot read"):
        identity.machine_id()


def test_the_clock_is_boottime() -> None:
    before = clock.boottime_ns()
    uptime_ns = int(float(Path("/proc/uptime").read_text().split()[0]) * 1e9)
    assert abs(before - uptime_ns) < 2_000_000_000
    assert clock.HostClock().boottime_ns() >= before


def test_notify_sends_one_datagram_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        assert notify.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    assert not notify.notify("STOPPING=1")
