"""lvextend -r: a real ext4 on a real device grows by LVM2's own fsadm; what NBD serves is left alone."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import CannedDaemon
from cli_run import Run

MIB = 1 << 20


def tool(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """16 MiB, with an ext4 of 8 MiB at its beginning."""
    image = tmp_path / "img"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(16 * MIB)
    loop = tool("losetup", "--find", "--show", image)
    try:
        tool("mkfs.ext4", "-q", loop, "8M")
        yield loop
    finally:
        tool("losetup", "--detach", loop)


def size_of(device: str) -> int:
    """Of its file system, in bytes."""
    said = dict(line.split(":", 1) for line in tool("dumpe2fs", "-h", device).splitlines() if ":" in line)
    return int(said["Block count"]) * int(said["Block size"])


def answer(daemon: CannedDaemon, device: str) -> None:
    result: dict[str, Any] = {"vg": "vg0", "name": "vm1", "message": "it grew", "notes": [], "device": device}
    daemon.answer = lambda call: result


def test_the_file_system_grows_with_its_lv(daemon: CannedDaemon, run: Run, device: str) -> None:
    answer(daemon, device)
    assert run("lvextend", "-L", "16m", "vg0/vm1").code == 0
    assert size_of(device) == 8 * MIB, "not without -r"
    ran = run("lvextend", "-r", "-L", "16m", "vg0/vm1")
    assert (ran.code, ran.err) == (0, "")
    assert size_of(device) == 16 * MIB


def test_what_fsadm_cannot_do_is_said_and_fails(daemon: CannedDaemon, run: Run, device: str) -> None:
    tool("dd", "if=/dev/zero", f"of={device}", "bs=1M", "count=2", "conv=fsync")
    answer(daemon, device)
    ran = run("lvextend", "-r", "-L", "16m", "vg0/vm1")
    assert ran.code == 5
    assert "it grew" in ran.out
    assert "vg0/vm1 has grown, its file system has not: " in ran.err
    assert f"next: fsadm resize {device}" in ran.err


@pytest.mark.parametrize(
    ("device", "words"), [("/nowhere/vg0/vm1", "resize2fs DEVICE or xfs_growfs"), ("", "not active here")]
)
def test_where_it_is_no_device_here_it_fails_and_says_what_to_do(
    daemon: CannedDaemon, run: Run, device: str, words: str
) -> None:
    answer(daemon, device)
    ran = run("lvresize", "-r", "-L", "+16m", "vg0/vm1")
    assert ran.code == 5
    assert "it grew" in ran.out
    assert "vg0/vm1 has grown, its file system has not: " in ran.err
    assert words in ran.err


def test_a_file_system_is_not_made_smaller(daemon: CannedDaemon, run: Run) -> None:
    for words in ("lvreduce -r -L 8m vg0/vm1", "lvresize -r -L -8m vg0/vm1"):
        ran = run(*words.split())
        assert (ran.code, daemon.calls) == (3, [])
        assert "resize2fs DEVICE SIZE" in ran.err
