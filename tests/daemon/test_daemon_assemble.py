"""The assembled daemon as a process: real lock, block service, hub, pages and sockets; a scripted engine."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.config import Paths
from ringfence.core.cluster import Timing
from ringfence.daemon.supervisor import Supervisor, misfit
from ringfence.host.pages import LOST_NS, PageReader, Pages
from ringfence.wire import client as calls

CONFIG = """
[cluster]
name = "lab"
two_node = true
[node.n1]
id = 1
fence = "manual"
[node.n2]
id = 2
fence = "manual"
[devices]
paths = ["{root}/img"]
"""
SCRIPT = Path(__file__).with_name("scripted_daemon.py")


class Host:
    """One root and every process started under it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
        self.paths = Paths(self.root)
        self.paths.etc.mkdir(parents=True)
        self.paths.file.write_text(CONFIG.format(root=self.root))
        (self.root / "run").mkdir()
        (self.root / "run/boot_id").write_text("boot-1\n")
        (self.root / "etc/machine-id").write_text("machine-1\n")
        (self.root / "img").write_bytes(bytes(2 << 20))
        self.log = self.root / "log"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *argv: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, *argv], stdout=out, stderr=out, env={**os.environ, **(env or {})}
            )
        self.processes.append(process)
        return process

    def block(self) -> subprocess.Popen[bytes]:
        process = self.start("-m", "ringfence.block", "--root", str(self.root))
        self.until(self.paths.block_socket.exists)
        return process

    def hub(self) -> subprocess.Popen[bytes]:
        code = "from ringfence.ring.commands import hub; hub()"
        where = ("--socket", str(self.paths.hub_socket), "--state", str(self.root / "hub.epoch"))
        return self.start("-c", code, *where)

    def daemon(self, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        process = self.start(str(SCRIPT), str(self.root), "n1", env=env)
        self.until(lambda: process.poll() is not None or self._answers())
        return process

    def refused(self, node: str = "n1") -> str:
        """Start a daemon that must not start.  Returns its words."""
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(self.root), node], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 5, done
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    def ask(self, call: calls.Call) -> Any:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(self.paths.socket))
            sock.sendall(calls.encode(calls.Request(os.urandom(8).hex(), call)))
            return json.loads(sock.makefile().readline()).get("result")

    def facts(self) -> Any:
        return self.ask(calls.Why())

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return self.facts() is not None
        return False

    def until(self, true: Callable[[], bool]) -> None:
        limit = time.monotonic() + 60
        while not true():
            assert time.monotonic() < limit, self.log.read_text()
            time.sleep(0.02)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def end(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                self.kill(process)
        shutil.rmtree(self.root)


@pytest.fixture
def host() -> Iterator[Host]:
    one = Host()
    yield one
    one.end()


def test_a_daemon_starts_and_sigterm_is_a_clean_leave(host: Host) -> None:
    host.block()
    daemon = host.daemon()
    assert host.facts()["incarnation"] == 1
    assert host.facts()["reaped"] is True
    assert stat.S_IMODE(host.paths.socket.stat().st_mode) == 0o660
    page = PageReader(host.paths.authority / "1/vg.vg0")
    assert page.deadline_ns() > time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(60) == 0
    assert page.deadline_ns() == LOST_NS
    assert not host.paths.socket.exists()


def test_a_daemon_may_open_as_many_files_as_it_is_allowed(host: Host) -> None:
    """At the usual 1024 its clients could leave none for what it keeps and for fence agents."""
    host.block()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        daemon = host.daemon()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    most = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    assert resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE) == (most, hard)


def test_a_second_daemon_is_refused_and_the_first_goes_on(host: Host) -> None:
    host.block()
    daemon = host.daemon()
    assert f"already running under {host.paths.run}, pid {daemon.pid}" in host.refused()
    assert host.facts()["incarnation"] == 1  # neither its pages nor its paths were touched


def killed_with_an_open_volume(host: Host, number: signal.Signals = signal.SIGKILL) -> PageReader:
    """Returns the page of the volume, whose authority goes on until its deadline."""
    host.block()
    daemon = host.daemon()
    assert "nbd+unix" in host.ask(calls.Why("open"))["answer"]
    page = PageReader(host.paths.authority / "1/vg.vg0")
    daemon.send_signal(number)
    assert daemon.wait(60) == -number
    assert page.deadline_ns() != LOST_NS
    return page


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=["a crash", "a restart"])
def test_what_a_killed_daemon_left_open_is_left_to_the_next(host: Host, number: signal.Signals) -> None:
    page = killed_with_an_open_volume(host, number)
    deadline_ns, grant = page.deadline_ns(), PageReader(host.paths.authority / "1/grant")
    host.daemon()
    facts = host.facts()
    assert (facts["incarnation"], facts["reaped"]) == (2, False)
    (left,) = facts["left_open"]
    lock = {"lockspace": "lvm_vg0", "resource": "u-1", "mode": 5, "token": [7, 1, 1]}
    assert (left["vg"], left["lv"], left["lock"], left["pages"]) == ("vg0", "vm1", lock, [[1, "vg/vg0"]])
    assert (host.paths.dev / "vg0/vm1").is_socket()
    assert page.deadline_ns() == deadline_ns
    assert grant.deadline_ns() == LOST_NS, "what the dead daemon's clients held is over"
    assert not grant.path.exists()


def closed(host: Host, page: PageReader) -> bool:
    """Nothing is left of the first daemon's volume or authority."""
    facts = host.facts()
    volume = host.paths.dev / "vg0/vm1"
    return facts["reaped"] and not facts["left_open"] and not volume.exists() and not page.deadline_ns()


def test_a_volume_whose_authority_was_lost_is_closed_before_the_next_begins(host: Host) -> None:
    page = killed_with_an_open_volume(host)
    Pages(host.paths.authority).set(1, "vg/vg0", LOST_NS)
    host.daemon()
    assert closed(host, page)
    assert "its authority was lost" in host.log.read_text()
    assert host.ask(calls.Why("write")) == {"answer": ""}


def test_a_volume_that_a_daemon_without_memory_finds_is_closed(host: Host) -> None:
    """Its state file is gone: incarnations begin anew, and could be taken for those of before."""
    page = killed_with_an_open_volume(host)
    host.paths.disk_state.unlink()
    host.daemon()
    assert host.facts()["incarnation"] == 1
    assert closed(host, page)


def test_a_volume_of_the_boot_before_is_closed(host: Host) -> None:
    page = killed_with_an_open_volume(host)
    (host.root / "run/boot_id").write_text("boot-2\n")
    host.daemon()
    assert closed(host, page)


def test_without_a_block_service_nothing_is_taken_for_closed(host: Host) -> None:
    host.daemon({"ANSWER_S": "1"})
    assert host.facts()["reaped"] is False
    assert "no block service answers" in host.log.read_text()


def test_another_boot_begins_with_fresh_pages(host: Host) -> None:
    """Incarnations begin at 1 again; the pages of the last boot are lost for ever and must not be used."""
    host.block()
    daemon = host.daemon()
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(60) == 0
    (host.root / "run/boot_id").write_text("boot-2\n")
    host.daemon()
    assert host.facts()["incarnation"] == 1
    assert host.ask(calls.Why("write")) == {"answer": ""}


def test_a_daemon_without_a_hub_says_so_and_goes_on_when_it_comes(host: Host) -> None:
    host.block()
    host.daemon()
    host.until(lambda: "lost" in host.facts()["heard"])
    host.until(lambda: f"no hub answers on {host.paths.hub_socket}" in host.log.read_text())
    host.hub()
    host.until(lambda: "view" in host.facts()["heard"])


def test_a_damaged_state_is_refused_and_left_alone(host: Host) -> None:
    host.paths.var.mkdir(parents=True)
    host.paths.disk_state.write_text('{"victims": [')
    assert "state.json is damaged" in host.refused()
    assert host.paths.disk_state.read_text() == '{"victims": ['


def test_an_unknown_node_is_refused(host: Host) -> None:
    assert "no node is called 'n3'; choose one of: n1, n2" in host.refused("n3")


def test_a_state_directory_that_cannot_be_made_is_refused(host: Host) -> None:
    (host.root / "var").write_text("in the way")
    assert f"cannot make {host.paths.var}" in host.refused()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")
def test_a_full_disk_under_the_state_is_refused(host: Host) -> None:
    host.paths.var.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "full", str(host.paths.var)]
    subprocess.run(mount, check=True)
    try:
        with contextlib.suppress(OSError), (host.paths.var / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(512))
        assert "No space left on device; make room" in host.refused()
        assert not host.paths.disk_state.exists()
    finally:
        subprocess.run(["umount", str(host.paths.var)], check=True)


def test_the_service_manager_hears_ready_status_watchdog_and_the_end(host: Host) -> None:
    host.block()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(host.root / "notify"))
        manager.settimeout(60)
        daemon = host.daemon({"NOTIFY_SOCKET": str(host.root / "notify"), "WATCHDOG_USEC": "400000"})
        heard: list[str] = []

        def hear(words: str) -> None:
            while not any(line.startswith(words) for line in heard):
                heard.append(manager.recv(4096).decode())

        hear("READY=1")
        hear("STATUS=the script starts")
        hear("WATCHDOG=1")
        daemon.send_signal(signal.SIGTERM)
        hear("STOPPING=1")
        assert daemon.wait(60) == 0


def test_a_loop_that_is_ended_by_the_watchdog_says_where_it_stood(host: Host) -> None:
    host.block()
    daemon = host.daemon()
    daemon.send_signal(signal.SIGABRT)
    assert daemon.wait(60) == -signal.SIGABRT
    assert "most recent call first" in host.log.read_text()


@pytest.mark.parametrize(
    ("limit_s", "timing", "said"),
    [
        (8, Timing(), ""),
        (0, Timing(grace_ms=1000), ""),
        (8, Timing(grace_ms=12000), "make it 7 at most"),
        (8, Timing(write_ms=7000), "make it 9.33333 at least"),
    ],
)
def test_a_watchdog_that_does_not_fit_the_timing_is_told(limit_s: int, timing: Timing, said: str) -> None:
    found = misfit(timing, {"WATCHDOG_USEC": str(limit_s * 1_000_000)})
    assert (said in found) if said else found == ""


def test_the_unit_s_watchdog_fits_the_default_timing() -> None:
    unit = Path(__file__).parents[2] / "packaging/systemd/ringfence.service"
    (limit_s,) = re.findall(r"^WatchdogSec=(\d+)$", unit.read_text(), re.MULTILINE)
    assert misfit(Timing(), {"WATCHDOG_USEC": f"{limit_s}000000"}) == ""


def test_a_watchdog_of_another_process_is_not_fed() -> None:
    said: list[str] = []
    Supervisor({"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, said.append).alive()
    Supervisor({}, said.append).alive()
    assert said == []
