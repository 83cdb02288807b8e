"""Two ways to fence with the same real agents: by exit code alone, and as ringfence's acting member does."""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from ringfence.agents.find import find_agent
from ringfence.agents.process import AGENT_PATH
from ringfence.agents.runner import AgentRunner
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Use
from ringfence.core.ids import Life
from ringfence.engine.effects import RunAgent
from ringfence.engine.inputs import AgentExited
from ringfence.fencing.level_run import LevelRun, Outcome, Run
from ringfence.host.processes import process
from ringfence.lab import trees
from ringfence.lab.devices.bench import Bench

LOST = Life(1, "machine-1", "boot-1", 1)
"""The victim: n1."""
AGENT_LIMIT_MS = 60_000
Benches = Callable[..., Bench]
Ended = Callable[[Run, LevelRun], None]


class Answer(msgspec.Struct, frozen=True):
    code: int
    words: str
    took_s: float

    @property
    def believed(self) -> bool:
        """By whoever looks at exit codes alone."""
        return self.code == 0


def bare(bench: Bench, device: DeviceConfig, action: str, **env: str) -> Answer:
    """Run the agent once, as a stack does that hands it its keys and looks at its exit code."""
    return say(device.agent, keys_of(bench, device, action), **env)


def keys_of(bench: Bench, device: DeviceConfig, action: str) -> dict[str, str]:
    return {**device.parameters, **bench.secrets(device.name), "action": action}


def say(agent: str, keys: Mapping[str, str], **env: str) -> Answer:
    began = time.monotonic()
    done = subprocess.run(
        [find_agent(agent)], input=lines_of(keys), capture_output=True, env={"PATH": AGENT_PATH, **env},
        timeout=60,
    )  # fmt: skip
    words = (done.stdout + done.stderr).decode(errors="replace")
    return Answer(done.returncode, words, time.monotonic() - began)


def lines_of(keys: Mapping[str, str]) -> bytes:
    return "".join(f"{key}={value}\n" for key, value in keys.items()).encode()


def bmc_of(bench: Bench, host: str = "n1", **parameters: object) -> DeviceConfig:
    """Quick, and content with four looks of the agent's own.

    power_timeout is also how long a single ipmitool may take, in seconds (fencing.py, run_command)."""
    quick = {"power_wait": 0, "power_timeout": 4, **parameters}
    return bench.config(f"bmc-{host}", {key: str(value) for key, value in quick.items()})


def pdu_of(bench: Bench, pdu: str = "pdu-a", plug: object = 1, **parameters: object) -> DeviceConfig:
    quick = {"power_timeout": 4, "plug": plug, **parameters}
    if bench.devices[pdu].kind == "apc-snmp":  # by version 1 an off needs no list of plugs beside it
        quick = {"snmp_version": 1, "community": bench.secrets(pdu)["password"], **quick}
    return bench.config(pdu, {key: str(value) for key, value in quick.items()})


def outlets_of(bench: Bench) -> tuple[DeviceConfig, DeviceConfig]:
    """All that n1 lives from."""
    return pdu_of(bench), pdu_of(bench, "pdu-b")


@contextmanager
def sbd_device(directory: Path) -> Iterator[DeviceConfig]:
    """A block device with a slot for n1, which nobody watches; msgwait is 20 s."""
    image = directory / "sbd.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    loop = _run("losetup", "-f", "--show", str(image)).strip()
    try:
        _run("sbd", "-d", loop, "-4", "20", "-1", "10", "create")
        _run("sbd", "-d", loop, "allocate", "n1")
        yield DeviceConfig("sbd", "fence_sbd", Confirms.HOST_OFF, {"devices": loop, "plug": "n1"})
    finally:
        _run("losetup", "-d", loop)


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def cluster(*levels: tuple[DeviceConfig | Use, ...], devices: tuple[DeviceConfig, ...] = ()) -> ClusterConfig:
    """n1 and n2; n1's fence levels are these.

    Args:
        devices: those that the levels' uses name."""
    known = {one.name: one for level in levels for one in level if isinstance(one, DeviceConfig)}
    known |= {one.name: one for one in devices}
    named = tuple(
        Level(tuple(one.name if isinstance(one, DeviceConfig) else one for one in level)) for level in levels
    )
    nodes = (NodeConfig(1, "n1", levels=named), NodeConfig(2, "n2", manual=True))
    sorted_devices = tuple(known[one] for one in sorted(known))
    return ClusterConfig("lies", two_node=True, nodes=nodes, devices=sorted_devices)


def ours(
    bench: Bench | None,
    config: ClusterConfig,
    level: int = 1,
    *,
    limit_ms: int = AGENT_LIMIT_MS,
    after: Ended = lambda run, attempt: None,
    **more: Any,
) -> Outcome:
    """One attempt on n1 by n2, as `engine.fencer` makes it.

    Args:
        bench: knows the devices' secrets; None: they have none.
        level: counted from 1.
        after: called when a run has ended, before its result counts.
        more: as LevelRun takes it."""
    timing = msgspec.structs.replace(config.timing, agent_timeout_ms=limit_ms)
    config = msgspec.structs.replace(config, timing=timing)
    return asyncio.run(_attempt(bench, config, level, after, more))


async def _attempt(
    bench: Bench | None, config: ClusterConfig, level: int, after: Ended, more: dict[str, Any]
) -> Outcome:
    runner = AgentRunner(config.device, lambda name: bench.secrets(name) if bench is not None else {})
    attempt = LevelRun(config, LOST, level - 1, 1, seen_by=2, **more)
    running: dict[asyncio.Task[AgentExited], Run] = {}

    def begin(orders: list[Run]) -> None:
        for one in orders:
            effect = RunAgent(one.run, one.device, one.action, one.timeout_ms, "n1", one.use.parameters)
            running[asyncio.ensure_future(runner.run(effect))] = one

    begin(attempt.start(_now_ms()))
    while attempt.finished is None:
        wait_s = max(0, attempt.until_ms - _now_ms()) / 1000 if attempt.until_ms else None
        if not running:
            assert wait_s is not None, "nothing runs and nothing is waited for"
            await asyncio.sleep(wait_s)
        else:
            await asyncio.wait(running, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for task in [one for one in running if one.done()]:
            order, exited = running.pop(task), task.result()
            after(order, attempt)
            begin(
                attempt.exited(
                    exited.run, exited.power, exited.words, exited.took_ms, exited.answered, _now_ms()
                )
            )
        begin(attempt.time_passes(_now_ms()))
    for task, one in running.items():
        runner.cancel(one.run)
        await task
    return attempt.finished


def said(outcome: Outcome) -> str:
    """All that an operator is told of it."""
    return "; ".join([outcome.verdict, *(word.words for word in outcome.words)])


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def eventually(true: Callable[[], bool], limit_s: float = 60) -> None:
    give_up = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def tools_at(port: int) -> list[int]:
    """Processes of ipmitool that speak to this port."""
    words = f"ipmitool -I lanplus -H 127.0.0.1 -p {port} "
    found = [process(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    return [one.pid for one in found if one and one.state not in "ZX" and words in trees.command(one.pid)]
