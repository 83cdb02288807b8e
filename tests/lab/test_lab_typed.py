"""Commands typed on lab hosts, and the disk as a block device.  Needs root."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from lab_watch import eventually

from ringfence.core.errors import BadInput, Refused, Unavailable
from ringfence.lab import cluster, commands, trees
from ringfence.lab.cluster import Lab
from ringfence.lab.typed import Typed

SIZE = 64 << 20
ONE, TWO = "an-a01n01", "an-a01n02"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    path = Path(tempfile.mkdtemp(prefix="rflab", dir="/tmp"))
    made = Lab.up(path / "lab", 2, SIZE, loop=True)
    try:
        yield made
    finally:
        made.down()
        shutil.rmtree(path, ignore_errors=True)


def execute(
    lab: Lab, node: str, *words: str, stdin: str = "", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringfence", "lab", "exec", node, "--", *words], text=True, timeout=60,
        env={**os.environ, "RINGFENCE_LAB": str(lab.root(ONE).parent)}, input=stdin, capture_output=True,
        check=False, cwd=cwd,
    )  # fmt: skip


def words_of(lab: Lab, node: str, *words: str) -> list[str]:
    """What the command prints, split; it must succeed."""
    out = os.memfd_create("stdout")
    try:
        with open(os.devnull) as nothing:
            typed = Typed(lab, node, words, (nothing.fileno(), out, out))
        code = typed.wait(60)
        text = os.pread(out, 1 << 16, 0).decode()
    finally:
        os.close(out)
    assert code == 0, (words, text)
    return text.split()


def test_a_command_is_one_of_the_host(lab: Lab, tmp_path: Path) -> None:
    marks = set()
    for node in lab.nodes:
        mark = lab.root(node) / "run/mark"
        mark.write_text(node)
        marks.add(mark)
        script = 'cat; cat /run/mark; echo " $PWD $RINGFENCE_SOCKET"; echo oh >&2; exit 7'
        ran = execute(lab, node, "sh", "-c", script, stdin="in ", cwd=tmp_path)
        assert (ran.returncode, ran.stderr) == (7, "oh\n")
        assert ran.stdout == f"in {node} {tmp_path} {lab.socket(node)}\n"
    assert not Path("/run/mark").exists()
    assert Typed(lab, ONE, ["sh", "-c", "kill -9 $$"]).wait(60) == 128 + signal.SIGKILL
    assert words_of(lab, ONE, "ls", "/proc/self/fd") == ["0", "1", "2", "3"], "the last is that directory"


def test_what_cannot_be_run_is_one_line(lab: Lab) -> None:
    ran = execute(lab, ONE, "no-such-program")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (5, "", 1)
    assert "there is no program 'no-such-program'" in ran.stderr
    with pytest.raises(BadInput):
        Typed(lab, ONE, [])
    with pytest.raises(BadInput, match="has no host nobody"):
        Typed(lab, "nobody", ["true"])


def test_ringfence_need_not_be_on_the_path(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    assert execute(lab, ONE, "ringfence", "status").stdout.startswith(f"{ONE} in cluster lab: running")


def test_a_command_that_is_interrupted_ends_on_the_host(lab: Lab) -> None:
    words = [sys.executable, "-m", "ringfence", "lab", "exec", ONE, "--", "sleep", "3333"]
    with subprocess.Popen(words, env={**os.environ, "RINGFENCE_LAB": str(lab.root(ONE).parent)}) as waiting:
        eventually(lambda: bool(running(lab, "sleep 3333")))
        waiting.terminate()
        assert waiting.wait(60) != 0
    assert not running(lab, "sleep 3333")


def test_a_command_that_is_interrupted_while_it_starts_ends_too(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = Lab.spawn

    def interrupted(self: Lab, node: str, argv: Sequence[str], **more: Any) -> int:
        pid = spawn(self, node, argv, **more)
        signal.raise_signal(signal.SIGTERM)  # the host runs it, and nobody here has heard of it
        return pid

    monkeypatch.setattr(Lab, "spawn", interrupted)
    with pytest.raises(click.Abort):
        commands.execute.main(
            ["--dir", str(lab.root(ONE).parent), ONE, "--", "sleep", "3335"], standalone_mode=False
        )
    assert not running(lab, "sleep 3335")


def running(lab: Lab, words: str) -> list[int]:
    return [one.pid for one in lab.tree(ONE) if trees.command(one.pid).strip().endswith(words)]


def test_stock_lvm2_sees_the_labs_disk_and_no_other(lab: Lab) -> None:
    names = ("--nolocking", "--noheadings", "-o", "pv_name")
    quiet = ("sh", "-c", '"$0" "$@" 2>/dev/null')
    words_of(lab, ONE, "pvcreate", "--nolocking", "-qq", str(lab.disk))
    assert words_of(lab, ONE, *quiet, "pvs", *names) == [str(lab.disk)]
    assert words_of(lab, TWO, *quiet, "pvs", "-a", *names) == [str(lab.disk)]
    found = words_of(lab, TWO, *quiet, "lvmconfig")
    assert f'locking_dir="{lab.root(TWO)}/run/lock/lvm"' in found
    assert f'archive_dir="{lab.root(TWO)}/etc/lvm/archive"' in found


def test_a_command_stands_still_and_ends_with_its_host(lab: Lab) -> None:
    typed = Typed(lab, TWO, ["sleep", "3334"])
    try:
        lab.freeze(TWO)
        with pytest.raises(Refused, match="is frozen"):
            Typed(lab, TWO, ["true"])
        with pytest.raises(TimeoutError):
            typed.wait(0)
        lab.power(TWO, "off")
        with pytest.raises(Unavailable, match=f"{TWO} was switched off before the command ended"):
            typed.wait(60)
    finally:
        lab.power(TWO, "on")


def loops_of(image: Path) -> list[str]:
    ran = subprocess.run(
        ["losetup", "--associated", image, "--noheadings", "--output", "NAME"],
        text=True, capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    return ran.stdout.split()


def wait_detached(*images: Path) -> None:
    """One that somebody looks at (every `pvs` on this machine opens all) goes when that one closes it."""
    give_up = time.monotonic() + 60
    while left := [loop for image in images for loop in loops_of(image)]:
        assert time.monotonic() < give_up, left
        time.sleep(0.05)


def test_the_loop_devices_go_with_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(tempfile.mkdtemp(prefix="rflab", dir="/tmp"))
    try:
        made = Lab.up(path / "lab", 1, SIZE, loop=True, disks=2)
        images = [path / "lab/disk.img", path / "lab/disk2.img"]
        try:
            loops = [loop for image in images for loop in loops_of(image)]
            assert loops == [str(disk) for disk in made.disks]
            names = ("-o", "pv_name", "--noheadings")
            for pvs in (("pvs",), (sys.executable, "-m", "ringfence", "pvs")):
                words_of(made, ONE, *pvs[:-1], "pvcreate", "-qqf", *loops)
                words = words_of(made, ONE, *pvs, *names)  # some are warnings of stock LVM2
                assert [word for word in words if word in loops] == sorted(loops)
        finally:
            made.down()
        wait_detached(*images)

        def fails(*arguments: object) -> None:
            assert loops_of(path / "half/disk.img"), "it was made before"
            raise Unavailable("no hub today")

        monkeypatch.setattr(cluster.Lab, "start_carrier", fails)
        with pytest.raises(Unavailable, match="no hub today"):
            Lab.up(path / "half", 1, SIZE, loop=True)
        with pytest.raises(BadInput, match="1 to 16 disks, not 17"):
            Lab.up(path / "third", 1, SIZE, disks=17)
        wait_detached(path / "half/disk.img")
    finally:
        shutil.rmtree(path, ignore_errors=True)


def test_a_host_without_loop_devices_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(tempfile.mkdtemp(prefix="rflab", dir="/tmp"))
    monkeypatch.setenv("PATH", str(path))  # no losetup
    try:
        with pytest.raises(Refused, match=r"disk cannot be a loop device here: .*losetup") as caught:
            Lab.up(path / "lab", 1, SIZE, loop=True)
        assert caught.value.next == "become root; or leave out --loop, and stock LVM2 with it"
    finally:
        shutil.rmtree(path)
