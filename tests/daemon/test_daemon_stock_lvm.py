"""Stock LVM2's commands as processes: what they are told, how they end, and that none goes on."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.agents import process as agents_process
from ringfence.agents.process import Running
from ringfence.core.errors import Unavailable
from ringfence.daemon import stock_lvm
from ringfence.daemon.stock_lvm import LvmCommands
from ringfence.engine.orders import LvmRan, RefreshLvs
from ringfence.host.processes import GONE, process


class Program:
    """A script in lvm's place."""

    def __init__(self, directory: Path, body: str) -> None:
        self.directory = directory
        path = directory / "lvm"
        path.write_text(f"#!/bin/sh\ncd {directory}\n{body}\n")
        path.chmod(0o755)
        self.commands = LvmCommands({"LVM_BINARY": str(path), "LVM_SYSTEM_DIR": "/e", "SECRET": "s"})

    def run(self, *lvs: str, limit_ms: int = 5000) -> LvmRan:
        return asyncio.run(self.commands.refresh(RefreshLvs("vg0", lvs, limit_ms)))

    def says(self, name: str) -> str:
        return (self.directory / name).read_text().strip()

    def said(self, name: str) -> bool:
        return (self.directory / name).exists() and self.says(name) != ""

    def ended(self, name: str) -> bool:
        """Whether the process whose pid is in that file is gone."""
        found = process(int(self.says(name)))
        return found is None or found.state in GONE


def test_lvm2_is_told_to_reload_the_tables_with_this_hosts_configuration(tmp_path: Path) -> None:
    program = Program(tmp_path, 'echo "$@" >args; env >env')
    ran = program.run("one", "two")
    assert (ran.code, ran.words) == (0, "")
    assert program.says("args") == "lvchange --refresh --partial --nolocking vg0/one vg0/two"
    assert "LVM_SYSTEM_DIR=/e" in program.says("env").splitlines()
    assert "SECRET" not in program.says("env")


def test_what_it_said_last_is_kept(tmp_path: Path) -> None:
    ran = Program(tmp_path, "echo working; echo cannot suspend >&2; exit 5").run("one")
    assert (ran.code, ran.words) == (5, "cannot suspend\n")
    assert Program(tmp_path, "kill -9 $$").run("one").code is None


@pytest.fixture
def limits_begin_with_its_pid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes to start a shell: no limit passes before "pid" is written."""

    class Patient(Running):
        async def ended(self, stdin: bytes, stop: asyncio.Event, limit_s: float) -> bool:
            await asyncio.to_thread(
                wait_for, lambda: bool((tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
            )
            return await super().ended(stdin, stop, limit_s)

    monkeypatch.setattr(stock_lvm, "Running", Patient)


@pytest.mark.usefixtures("limits_begin_with_its_pid")
def test_at_its_limit_it_is_asked_to_end(tmp_path: Path) -> None:
    """A killed one may leave a table suspended."""
    body = "trap 'echo resumed >last; exit 0' TERM; echo $$ >pid; while :; do sleep 0.05; done"
    program = Program(tmp_path, body)
    assert program.run("one", limit_ms=100).code is None
    assert program.says("last") == "resumed"


STUBBORN = "trap '' TERM; sleep 60 >/dev/null 2>&1 & echo $! >child; echo $$ >pid; while :; do wait; done"
"""With a child that holds no pipe of ours: of its end nobody tells us."""


@pytest.mark.usefixtures("limits_begin_with_its_pid")
def test_what_does_not_end_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock_lvm, "ENDS_S", 0.2)
    program = Program(tmp_path, STUBBORN)
    assert program.run("one", limit_ms=100).code is None
    assert program.ended("pid")
    assert program.ended("child")


def kill_the_command_alone(self: Running) -> None:
    """Stands in for a kernel that holds a killed child in a call: the command ends, its child lives on."""
    if self._process.returncode is None:
        os.kill(self._process.pid, signal.SIGKILL)


def test_it_is_over_when_its_children_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed child still does may come after all that follows otherwise."""
    monkeypatch.setattr(Running, "kill", kill_the_command_alone)
    monkeypatch.setattr(agents_process, "KILL_S", 20)
    program = Program(tmp_path, STUBBORN)

    async def story() -> LvmRan:
        running = asyncio.ensure_future(program.commands.refresh(RefreshLvs("vg0", ("one",), 50_000)))
        await asyncio.to_thread(wait_for, lambda: program.said("pid"))
        os.kill(int(program.says("pid")), signal.SIGKILL)
        await asyncio.sleep(0.3)
        assert not running.done()
        os.kill(int(program.says("child")), signal.SIGKILL)
        return await running

    assert asyncio.run(story()).code is None
    assert program.ended("child")


def test_a_child_that_the_kernel_holds_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables must not be cut while somebody can load them anew."""
    monkeypatch.setattr(Running, "kill", kill_the_command_alone)
    for module, name in ((agents_process, "KILL_S"), (stock_lvm, "KILLED_S")):
        monkeypatch.setattr(module, name, 0.1)
    program = Program(tmp_path, STUBBORN.replace("while :; do wait; done", "exit 0"))
    assert program.run("one").code is None, "it exits with 0, but goes on"
    try:
        with pytest.raises(Unavailable, match="goes on though it was killed"):
            asyncio.run(program.commands.end_all())
    finally:
        os.kill(int(program.says("child")), signal.SIGKILL)
    wait_for(lambda: program.ended("child"))
    asyncio.run(program.commands.end_all())


def test_a_lost_life_ends_all_of_them_before_anything_is_cut(tmp_path: Path) -> None:
    program = Program(tmp_path, "echo $$ >pid; sleep 60; echo reloaded >last")

    async def story() -> LvmRan:
        running = asyncio.ensure_future(program.commands.refresh(RefreshLvs("vg0", ("one",), 50_000)))
        await asyncio.to_thread(wait_for, lambda: program.said("pid"))
        await program.commands.end_all()
        assert program.ended("pid")
        return await running

    assert asyncio.run(story()).code is None
    assert not (tmp_path / "last").exists()


def test_none_outlives_a_daemon_that_is_killed(tmp_path: Path) -> None:
    """The daemon that comes next does not know of it, and cuts tables that it would load anew."""
    program = Program(tmp_path, "echo $$ >pid; exec sleep 60")
    daemon = os.fork()
    if not daemon:
        program.run("one", limit_ms=50_000)
        os._exit(0)
    wait_for(lambda: program.said("pid"))
    os.kill(daemon, signal.SIGKILL)
    os.waitpid(daemon, 0)
    wait_for(lambda: program.ended("pid"))


def wait_for(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_host_without_lvm2_says_so(tmp_path: Path) -> None:
    commands = LvmCommands({"LVM_BINARY": str(tmp_path / "none")})
    with pytest.raises(Unavailable, match="is not on this host; install the package lvm2"):
        asyncio.run(commands.refresh(RefreshLvs("vg0", ("one",), 1000)))
