"""The agents' runner, with real processes: what an agent is told, what it means, what is left of it."""

import asyncio
import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_rig import Write, writer

from ringfence.agents import process
from ringfence.agents.runner import AgentRunner, request_of
from ringfence.core.cluster import Confirms, DeviceConfig
from ringfence.core.errors import ConfigError
from ringfence.core.evidence import Power
from ringfence.engine.effects import RunAgent
from ringfence.engine.inputs import AgentExited
from ringfence.fencing.level_run import already_off

PASSWORD = "geheim-4711"


@pytest.fixture
def agent(tmp_path: Path) -> Write:
    return writer(tmp_path)


def runner_of(agent: Path | str, parameters: dict[str, str] | None = None) -> AgentRunner:
    device = DeviceConfig("bmc", str(agent), Confirms.HOST_OFF, parameters or {"ip": "10.0.0.9", "plug": "3"})

    def find(name: str) -> DeviceConfig:
        return {"bmc": device}[name]

    return AgentRunner(find, lambda name: {"password": PASSWORD})


def run(agent: Path | str, action: str = "off", timeout_ms: int = 60_000) -> AgentExited:
    return asyncio.run(runner_of(agent).run(RunAgent(7, "bmc", action, timeout_ms, "an-a01n01")))


def gone(pid_file: Path) -> bool:
    """The process whose pid is in the file has ended (or is a zombie that init has yet to bury)."""
    try:
        state = Path(f"/proc/{int(pid_file.read_text())}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def eventually(true: Callable[[], bool], limit_s: float = 60) -> None:
    give_up = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_everything_goes_to_stdin_and_the_action_is_the_last_word(agent: Write, tmp_path: Path) -> None:
    path = agent(f'cd / && cat >"{tmp_path}/stdin"; echo "$#" >"{tmp_path}/argc"; env >"{tmp_path}/env"')
    exited = run(path)
    assert exited.power is Power.OFF
    expected = f"ip=10.0.0.9\nplug=3\npassword={PASSWORD}\nnodename=an-a01n01\naction=off\n"
    assert (tmp_path / "stdin").read_text() == expected
    assert (tmp_path / "argc").read_text() == "0\n"
    assert PASSWORD not in (tmp_path / "env").read_text()
    assert "RINGFENCE" not in (tmp_path / "env").read_text()
    assert "PWD=/\n" in (tmp_path / "env").read_text()


@pytest.mark.parametrize(
    ("action", "code", "power", "answered"),
    [
        ("off", 0, Power.OFF, True),
        ("on", 0, Power.ON, True),
        ("off", 1, Power.UNKNOWN, False),
        ("off", 2, Power.UNKNOWN, True),
        ("status", 0, Power.ON, True),
        ("status", 2, Power.OFF, True),
        ("status", 1, Power.UNKNOWN, False),
        ("status", 3, Power.UNKNOWN, False),
        ("status", 126, Power.UNKNOWN, False),
    ],
)
def test_only_clear_exit_codes_mean_anything(
    agent: Write, action: str, code: int, power: Power, answered: bool
) -> None:
    exited = run(agent(f"exit {code}"), action)
    assert (exited.power, exited.answered) == (power, answered)


def test_killed_by_a_signal_is_unknown(agent: Write) -> None:
    assert run(agent("kill -9 $$"), "status").power is Power.UNKNOWN


def test_the_limit_kills_the_whole_group(agent: Write, tmp_path: Path) -> None:
    path = agent(f'sleep 60 & echo $! >"{tmp_path}/child"; sleep 60')
    began = time.monotonic()
    exited = run(path, timeout_ms=300)
    assert time.monotonic() - began < 30
    assert (exited.power, exited.answered) == (Power.UNKNOWN, False)
    assert "no answer within 0.3 s" in exited.words
    eventually(lambda: gone(tmp_path / "child"))


def test_what_an_agent_leaves_behind_is_killed_too(agent: Write, tmp_path: Path) -> None:
    """An ipmitool that outlives its agent could switch off a host that is long up again."""
    path = agent(f'sleep 60 & echo $! >"{tmp_path}/child"; exit 0')
    began = time.monotonic()
    assert run(path).power is Power.OFF
    assert time.monotonic() - began < 30
    eventually(lambda: gone(tmp_path / "child"))


def test_a_stranger_that_holds_the_pipe_delays_nothing(agent: Write, tmp_path: Path) -> None:
    stranger = f'echo $$ >"{tmp_path}/stranger"; exec sleep 60'
    there = f'until [ -s "{tmp_path}/stranger" ]; do sleep 0.02; done'
    path = agent(f"setsid sh -c '{stranger}' & echo said; {there}; exit 0")
    try:
        began = time.monotonic()
        exited = run(path)
        assert time.monotonic() - began < 30
        assert exited.power is Power.OFF
        assert "said" in exited.words
    finally:
        os.kill(int((tmp_path / "stranger").read_text()), 9)


def test_a_talkative_agent_neither_blocks_nor_grows(agent: Write) -> None:
    exited = run(agent("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 2"), "status")
    assert exited.power is Power.OFF
    assert exited.words.endswith("the end")
    assert len(exited.words) <= 300


def test_words_hold_no_secret_and_nothing_that_a_terminal_obeys(agent: Write) -> None:
    said = "\\033[2Jlogin with %s failed\\377\\r\\n"
    exited = run(agent(f"read a; read b; read c; printf '{said}' \"$c\" >&2; exit 1"))
    assert PASSWORD not in exited.words
    assert "login with password=**** failed" in exited.words
    assert exited.words.isprintable()


def test_an_agent_that_does_not_read_is_no_trouble(agent: Write) -> None:
    big = {"key": "x" * 200_000}
    device_runner = runner_of(agent("exec <&-; exit 0"), big)
    assert asyncio.run(device_runner.run(RunAgent(1, "bmc", "off", 60_000, "n"))).power is Power.OFF


@pytest.mark.parametrize(
    "kind", ["missing", "not executable", "no interpreter", "no shebang", "by name", "relative", "odd"]
)
def test_what_cannot_be_started_is_unknown(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "fence_x"
    if kind != "missing":
        path.write_text("exit 0\n" if kind == "no shebang" else "#!/nowhere/sh\n")
    if kind in ("no interpreter", "no shebang"):
        path.chmod(stat.S_IRWXU)
    names = {"by name": "fence_that_nobody_has", "relative": "./fence_x", "odd": "/fence\x1b[2J\nx"}
    name = names.get(kind, str(path))
    exited = run(name)
    assert (exited.power, exited.answered) == (Power.UNKNOWN, False)
    assert "fence" in exited.words
    assert exited.words.isprintable()


def test_a_device_that_nobody_configured_is_unknown(agent: Write) -> None:
    exited = asyncio.run(runner_of(agent("exit 0")).run(RunAgent(1, "pdu", "off", 1000, "n")))
    assert (exited.power, exited.words) == (Power.UNKNOWN, "no device is called pdu; ringfence config show")


@pytest.mark.parametrize(
    ("parameters", "action"),
    [
        ({"ip": "x\naction=on"}, "off"),
        ({"option": "off"}, "off"),
        ({"action": "reboot"}, "off"),
        ({"a=b": "c"}, "off"),
        ({"ip": "x\rplug=9"}, "off"),
        ({" option": "reboot"}, "off"),
        ({"#ip": "x"}, "off"),
        ({"ip": "\udcff"}, "off"),
        ({}, ""),
        ({}, "reboot"),
        ({}, "metadata"),
    ],
)
def test_what_could_be_read_as_another_order_is_refused(parameters: dict[str, str], action: str) -> None:
    device = DeviceConfig("bmc", "/bin/false", Confirms.HOST_OFF, parameters)
    with pytest.raises(ConfigError):
        request_of(device, {}, action, "n")


def test_cancelled_ends_at_once_and_says_so(agent: Write, tmp_path: Path) -> None:
    path = agent(f'echo $$ >"{tmp_path}/pid"; sleep 60')

    async def story() -> AgentExited:
        runner = runner_of(path)
        task = asyncio.ensure_future(runner.run(RunAgent(3, "bmc", "off", 30_000, "n")))
        await asyncio.to_thread(eventually, lambda: (tmp_path / "pid").exists())
        runner.cancel(99)  # nobody's
        runner.cancel(3)
        return await asyncio.wait_for(task, 60)

    exited = asyncio.run(story())
    assert (exited.run, exited.power, exited.answered) == (3, Power.UNKNOWN, False)
    assert "cancelled" in exited.words
    eventually(lambda: gone(tmp_path / "pid"))


def test_cancelled_before_it_began_is_never_fired(agent: Write, tmp_path: Path) -> None:
    """The order to run and the one to cancel may come in one turn of the loop."""
    path = agent(f'touch "{tmp_path}/fired"')

    async def story() -> AgentExited:
        runner = runner_of(path)
        task = asyncio.ensure_future(runner.run(RunAgent(3, "bmc", "off", 60_000, "n")))
        runner.cancel(3)
        return await task

    exited = asyncio.run(story())
    assert (exited.run, exited.power, exited.answered) == (3, Power.UNKNOWN, False)
    assert not (tmp_path / "fired").exists()


def test_an_abandoned_run_is_killed(agent: Write, tmp_path: Path) -> None:
    path = agent(f'sleep 60 & echo $! >"{tmp_path}/child"; echo $$ >"{tmp_path}/pid"; sleep 60')

    async def story() -> None:
        task = asyncio.ensure_future(runner_of(path).run(RunAgent(3, "bmc", "off", 30_000, "n")))
        await asyncio.to_thread(eventually, lambda: (tmp_path / "pid").exists())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(story())
    eventually(lambda: gone(tmp_path / "pid") and gone(tmp_path / "child"))


@pytest.mark.parametrize("how", ["limit", "abandoned"])
def test_what_the_kernel_holds_holds_nobody(
    agent: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Stands in for an agent in a call that nothing interrupts: its kill has no effect for a while."""
    monkeypatch.setattr(process, "KILL_S", 0.1)
    monkeypatch.setattr(process.Running, "kill", lambda self: None)
    path = agent(f'echo $$ >"{tmp_path}/pid"; exec sleep 60')

    async def story() -> float:
        run = runner_of(path).run(RunAgent(3, "bmc", "off", 200 if how == "limit" else 60_000, "n"))
        task = asyncio.ensure_future(run)
        await asyncio.to_thread(
            eventually, lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()
        )
        began = time.monotonic()
        if how == "abandoned":
            task.cancel()
        (said,) = await asyncio.gather(task, return_exceptions=True)
        took = time.monotonic() - began
        if how == "limit":
            assert isinstance(said, AgentExited)
            assert (said.power, said.answered) == (Power.UNKNOWN, False)
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, 9)
        await asyncio.to_thread(eventually, lambda: not Path(f"/proc/{pid}").exists())  # and is buried
        return took

    assert asyncio.run(story()) < 30


def test_an_agent_that_cannot_be_watched_does_not_go_on(
    agent: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(pid: int) -> int:
        eventually(lambda: (tmp_path / "pid").exists())
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", full)
    exited = run(agent(f'echo $$ >"{tmp_path}/pid"; sleep 60'))
    assert (exited.power, exited.answered) == (Power.UNKNOWN, False)
    eventually(lambda: gone(tmp_path / "pid"))


def test_no_part_of_a_secret_is_left_by_the_cut_or_by_quotes(agent: Write) -> None:
    cut = f"printf '{PASSWORD}' >&2; head -c {4096 - len(PASSWORD) // 2} /dev/zero >&2; exit 1"
    assert run(agent(cut)).words == "exit code 1"
    device = DeviceConfig("bmc", str(agent("echo login abc123 >&2; exit 1")), Confirms.HOST_OFF)
    asked = AgentRunner(lambda name: device, lambda name: {"password": '"abc123"'})
    exited = asyncio.run(asked.run(RunAgent(1, "bmc", "off", 60_000, "n")))
    assert exited.words == "login ****"


def test_many_short_runs_leave_nothing_open(agent: Write) -> None:
    path = agent("exec <&-; exit 2")

    async def story() -> tuple[int, int]:
        runner, before = runner_of(path, {"key": "x" * 200_000}), len(os.listdir("/proc/self/fd"))
        for _ in range(8):
            runs = [runner.run(RunAgent(number, "bmc", "status", 60_000, "n")) for number in range(8)]
            assert {one.power for one in await asyncio.gather(*runs)} == {Power.OFF}
        await asyncio.sleep(0)
        return before, len(os.listdir("/proc/self/fd"))

    before, after = asyncio.run(story())
    assert after <= before


def test_agents_run_side_by_side_and_the_loop_goes_on(agent: Write, tmp_path: Path) -> None:
    """Each waits until all have begun, and then for a word from the loop that runs them."""
    begun, go_on = tmp_path / "begun", tmp_path / "go-on"
    begun.mkdir()

    async def let_go() -> None:
        while len(list(begun.iterdir())) < 6:  # noqa: ASYNC110 - they are processes
            await asyncio.sleep(0.01)
        go_on.touch()

    path = agent(f'echo >"{begun}/$$"; until [ -e "{go_on}" ]; do sleep 0.05; done; exit 2')

    async def story() -> list[AgentExited]:
        runner = runner_of(path)
        runs = [runner.run(RunAgent(number, "bmc", "status", 60_000, "n")) for number in range(6)]
        letting = asyncio.ensure_future(let_go())
        exited = await asyncio.gather(*runs)
        letting.cancel()
        return list(exited)

    assert [one.power for one in asyncio.run(story())] == [Power.OFF] * 6


def test_a_stock_agent_is_understood(tmp_path: Path) -> None:
    """fence_dummy of Debian's fence-agents: a file stands for the plug."""
    path = shutil.which("fence_dummy", path="/usr/sbin:/usr/bin")
    assert path is not None, "install packages.txt"
    device = DeviceConfig(
        "dummy", "fence_dummy", Confirms.HOST_OFF, {"type": "file", "status_file": str(tmp_path / "plug")}
    )
    runner = AgentRunner({"dummy": device}.__getitem__, lambda name: {})

    def ask(action: str) -> AgentExited:
        return asyncio.run(runner.run(RunAgent(1, "dummy", action, 20_000, "n")))

    assert ask("on").power is Power.ON
    assert ask("status").power is Power.ON
    assert ask("off").power is Power.OFF
    assert ask("status").power is Power.OFF


@pytest.mark.parametrize("password", ["OFF", "Already", "Success: Already OFF"])
def test_a_password_that_hides_already_off_does_not_make_it_an_off_that_was_sent(
    agent: Write, password: str
) -> None:
    """The words are masked for people; that nothing was sent must still be seen by who judges them."""
    path = agent("cat >/dev/null; echo 'Success: Already OFF'")
    device = DeviceConfig("bmc", str(path), Confirms.HOST_OFF, {"ip": "h", "plug": "3"})
    runner = AgentRunner(lambda name: device, lambda name: {"password": password})
    exited = asyncio.run(runner.run(RunAgent(7, "bmc", "off", 60_000, "an-a01n01")))
    assert already_off(exited.words), exited.words


def test_many_words_do_not_hide_it_either(agent: Write) -> None:
    exited = run(agent("cat >/dev/null; echo 'Already OFF'; head -c 2000 /dev/zero | tr '\\0' x"))
    assert already_off(exited.words), exited.words


REFUSED = "echo 'Failed: Unable to obtain correct plug status or plug is not available' >&2; exit 1"


@pytest.mark.parametrize(
    ("script", "secrets", "hint"),
    [
        (REFUSED, {"password": PASSWORD}, "; if it can be reached, is the login right? (secrets/bmc)"),
        (REFUSED, {}, "; it is given no password: this host has none in secrets/bmc"),
        ("echo 'Failed: Timed out waiting to power OFF' >&2; exit 1", {}, ""),
        ("echo 'Success: Powered OFF; login closed'", {}, ""),
    ],
)
@pytest.mark.parametrize("action", ["off", "status"])
def test_words_that_may_mean_a_wrong_login_say_where_it_stands(
    agent: Write, tmp_path: Path, script: str, secrets: dict[str, str], hint: str, action: str
) -> None:
    stock = tmp_path / "fence_apc"
    agent(script).rename(stock)
    device = DeviceConfig("bmc", str(stock), Confirms.OUTLET_OFF, {"ip": "10.0.0.9", "plug": "3"})
    runner = AgentRunner(lambda name: device, lambda name: secrets)
    exited = asyncio.run(runner.run(RunAgent(7, "bmc", action, 60_000, "n1")))
    words = script.split("'")[1]
    assert exited.words == words + hint
    assert PASSWORD not in exited.words


def test_an_agent_that_wants_no_secret_is_not_said_to_lack_one(agent: Write, tmp_path: Path) -> None:
    own = tmp_path / "fence_scsi"
    agent(REFUSED).rename(own)
    device = DeviceConfig("bmc", str(own), Confirms.STORAGE_CUT)
    exited = asyncio.run(
        AgentRunner(lambda name: device, lambda name: {}).run(RunAgent(7, "bmc", "off", 60_000, ""))
    )
    assert exited.words == "Failed: Unable to obtain correct plug status or plug is not available"
