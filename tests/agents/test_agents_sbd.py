"""SBD with its real tool on loop devices: a message in a slot is not an end.  Needs root.

No daemon runs here (a real one would end this machine): what it would do to a slot is done by hand."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.agents.runner import AgentRunner
from ringfence.core.cluster import Confirms, DeviceConfig
from ringfence.core.evidence import Power
from ringfence.engine.effects import RunAgent
from ringfence.engine.inputs import AgentExited

ON, OFF, NOTHING = 0, 2, 1
MSGWAIT_S = 2
STOCK = "/usr/sbin/fence_sbd"


class Disks:
    """SBD devices, each on a copy of an image."""

    def __init__(self, directory: Path, image: bytes, count: int = 1) -> None:
        self.devices: list[str] = []
        try:
            for number in range(count):
                file = directory / f"sbd{number}"
                file.write_bytes(image)
                self.devices.append(run("losetup", "--find", "--show", str(file)).stdout.strip())
        except BaseException:
            self.close()
            raise

    def lies_in(self, device: int) -> str:
        return run("sbd", "-d", self.devices[device], "list").stdout.split("\t")[2]

    def ask(self, action: str, node: str = "n2") -> subprocess.Popen[str]:
        return start([sys.executable, "-I", "-m", "ringfence.agents.sbd"], self._told(action, node))

    def ask_stock(self, action: str) -> subprocess.Popen[str]:
        return start([STOCK], self._told(action, "n2") + "plug=n2\nmethod=onoff\n")

    def _told(self, action: str, node: str) -> str:
        return f"devices={','.join(self.devices)}\nnodename={node}\naction={action}\n"

    def close(self) -> None:
        for device in self.devices:
            run("losetup", "--detach", device)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """With a slot for n2.  To make one takes seconds: each of 255 slots is written through."""
    directory = tmp_path_factory.mktemp("sbd")
    disks = Disks(directory, bytes(1 << 20))
    try:
        create(disks, watchdog_s=1)
        run("sbd", "-d", disks.devices[0], "allocate", "n2")
    finally:
        disks.close()
    return (directory / "sbd0").read_bytes()


def create(disks: Disks, watchdog_s: int) -> None:
    run("sbd", "-d", disks.devices[0], "-1", str(watchdog_s), "-4", str(MSGWAIT_S), "create")


@pytest.fixture
def disks(tmp_path: Path, image: bytes) -> Iterator[Disks]:
    made = Disks(tmp_path, image)
    yield made
    made.close()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, text=True, capture_output=True, timeout=60, check=True)


def start(words: list[str], told: str) -> subprocess.Popen[str]:
    asked = subprocess.Popen(
        words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert asked.stdin is not None
    asked.stdin.write(told)
    asked.stdin.close()
    return asked


def said(asked: subprocess.Popen[str]) -> tuple[int, str]:
    assert asked.stdout is not None
    assert asked.stderr is not None
    with asked:
        words = asked.stderr.read() + asked.stdout.read()
    return asked.returncode, words


def eventually(holds) -> None:
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_an_off_takes_the_time_that_a_host_may_need(disks: Disks) -> None:
    assert said(disks.ask("monitor"))[0] == 0
    assert said(disks.ask("status")) == (ON, "in its slots: clear\n")
    began = time.monotonic()
    code, words = said(disks.ask("off"))
    assert (code, time.monotonic() - began >= MSGWAIT_S) == (0, True)
    assert words == f"told to end itself, and msgwait ({MSGWAIT_S} s) has passed since\n"
    assert said(disks.ask("status"))[0] == OFF
    assert said(disks.ask("on"))[0] == 0
    assert disks.lies_in(0) == "clear"


def test_what_a_fencer_that_ended_has_written_is_no_off(disks: Disks) -> None:
    """The stock agent believes it at once; here the time is counted from a message of one's own."""
    first = disks.ask("off")
    eventually(lambda: disks.lies_in(0) == "off")
    first.kill()
    said(first)
    code, words = said(disks.ask_stock("off"))
    assert (code, "Already OFF" in words) == (0, True), words
    began = time.monotonic()
    assert said(disks.ask("off"))[0] == 0
    assert time.monotonic() - began >= MSGWAIT_S


def test_a_host_whose_sbd_starts_anew_is_not_off(disks: Disks) -> None:
    asked = disks.ask("off")
    eventually(lambda: disks.lies_in(0) == "off")
    run("sbd", "-d", disks.devices[0], "message", "n2", "clear")  # as it does when it starts
    code, words = said(asked)
    assert (code, "its sbd started anew" in words) == (NOTHING, True), words


def test_a_host_that_never_ran_it_has_no_slot(disks: Disks) -> None:
    code, words = said(disks.ask("off", "n3"))
    assert (code, "has no slot" in words) == (NOTHING, True)
    assert said(disks.ask("status", "n3"))[0] == NOTHING


def test_a_time_that_is_too_short_for_the_watchdog_is_refused(disks: Disks) -> None:
    create(disks, watchdog_s=2)
    for action in ("off", "monitor"):
        code, words = said(disks.ask(action))
        assert (code, "not twice the watchdog's 2 s" in words) == (NOTHING, True), words


def test_of_three_disks_two_are_enough_and_one_is_not(tmp_path: Path, image: bytes) -> None:
    disks = Disks(tmp_path, image, 3)
    try:
        run("dd", "if=/dev/zero", f"of={disks.devices[1]}", "bs=4096", "count=16", "oflag=direct")
        assert said(disks.ask("off"))[0] == 0
        assert said(disks.ask("status"))[0] == OFF
        run("dd", "if=/dev/zero", f"of={disks.devices[2]}", "bs=4096", "count=16", "oflag=direct")
        assert said(disks.ask("status"))[0] == NOTHING
        code, words = said(disks.ask("off"))
        assert (code, "1 of 3 devices have a header" in words) == (NOTHING, True), words
    finally:
        disks.close()


@pytest.mark.parametrize("devices", ["", "sbd0", "/a,/b,/c,/d"])
def test_what_cannot_be_a_device_is_one_line(devices: str) -> None:
    told = f"devices={devices}\nnodename=n2\naction=off\n"
    code, words = said(start([sys.executable, "-I", "-m", "ringfence.agents.sbd"], told))
    assert (code, words.count("\n")) == (NOTHING, 1)


def test_a_device_of_that_name_is_this_agent_wherever_the_stock_one_lies(
    tmp_path: Path, image: bytes
) -> None:
    disks = Disks(tmp_path, image, 2)
    try:
        agents = dict(zip(("fence_sbd", STOCK), disks.devices, strict=True))
        for disk in disks.devices:
            run("sbd", "-d", disk, "message", "n2", "off")

        def device(name: str) -> DeviceConfig:
            return DeviceConfig(name, name, Confirms.SELF_FENCE, {"devices": agents[name]}, timeout_ms=20_000)

        async def both() -> list[tuple[AgentExited, float]]:
            runner = AgentRunner(device, lambda _: {})

            async def off(number: int, agent: str) -> tuple[AgentExited, float]:
                began = time.monotonic()
                done = await runner.run(RunAgent(number, agent, "off", 20_000, "n2"))
                return done, time.monotonic() - began

            return await asyncio.gather(*(off(number, agent) for number, agent in enumerate(agents)))

        for done, took_s in asyncio.run(both()):
            assert (done.power, "has passed since" in done.words) == (Power.OFF, True), done.words
            assert took_s >= MSGWAIT_S
    finally:
        disks.close()
