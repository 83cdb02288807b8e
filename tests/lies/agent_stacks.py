"""Two ways to fence with the same real agents: by exit code alone, and as ringfence's acting member does."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from power_bench import PASSWORD

from ringfence.agents.process import AGENT_PATH
from ringfence.agents.runner import AgentRunner, find_agent
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Use
from ringfence.core.evidence import Power
from ringfence.core.ids import Life
from ringfence.engine.effects import RunAgent
from ringfence.engine.inputs import AgentExited
from ringfence.fencing.level_run import LevelRun, Outcome, Run

LOST = Life(1, "machine-1", "boot-1", 1)
"""The victim: n1."""
AGENT_LIMIT_MS = 20_000
LOGIN = {"password": PASSWORD}
BMC = {"bmc-n1": LOGIN}
Secrets = Mapping[str, dict[str, str]]
Ended = Callable[[Run, LevelRun], None]


class Answer(msgspec.Struct, frozen=True):
    code: int
    words: str
    took_s: float

    @property
    def believed(self) -> bool:
        """By whoever looks at exit codes alone."""
        return self.code == 0


def bare(device: DeviceConfig, secrets: Mapping[str, str], action: str, **env: str) -> Answer:
    """Run the agent once, as a stack does that hands it its keys and looks at its exit code."""
    return say(device.agent, {**device.parameters, **secrets, "action": action}, **env)


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


def host_off(name: str, agent: str, **parameters: object) -> DeviceConfig:
    return _device(name, agent, Confirms.HOST_OFF, parameters)


def outlet_off(name: str, agent: str, **parameters: object) -> DeviceConfig:
    return _device(name, agent, Confirms.OUTLET_OFF, parameters)


def _device(name: str, agent: str, confirms: Confirms, parameters: Mapping[str, object]) -> DeviceConfig:
    return DeviceConfig(name, agent, confirms, {key: str(value) for key, value in parameters.items()})


def bmc_of(port: int, **more: object) -> DeviceConfig:
    return host_off(
        "bmc-n1", "fence_ipmilan", ip="127.0.0.1", ipport=port, username="admin", lanplus=1, cipher=3,
        **{"power_wait": 0, "power_timeout": 2, **more},
    )  # fmt: skip


def pdu_of(port: int, **more: object) -> DeviceConfig:
    return outlet_off(
        "pdu", "fence_apc_snmp", ip="127.0.0.1", ipport=port, community="private",
        **{"snmp_version": 1, "power_timeout": 2, **more},
    )  # fmt: skip


def redfish_of(port: int, **more: object) -> DeviceConfig:
    return host_off(
        "redfish", "fence_redfish", ip="127.0.0.1", ipport=port, username="admin", ssl_insecure=1, **more
    )


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
    config: ClusterConfig,
    secrets: Secrets,
    level: int = 1,
    *,
    limit_ms: int = AGENT_LIMIT_MS,
    after: Ended = lambda run, attempt: None,
    **more: Any,
) -> Outcome:
    """One attempt on n1 by n2, as `engine.fencer` makes it.

    Args:
        secrets: device -> its secret parameters.
        level: counted from 1.
        after: called when a run has ended, before its result counts.
        more: as LevelRun takes it."""
    timing = msgspec.structs.replace(config.timing, agent_timeout_ms=limit_ms)
    config = msgspec.structs.replace(config, timing=timing)
    return asyncio.run(_attempt(config, secrets, level, after, more))


async def _attempt(
    config: ClusterConfig, secrets: Secrets, level: int, after: Ended, more: dict[str, Any]
) -> Outcome:
    runner = AgentRunner(config.device, lambda name: secrets.get(name, {}))
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


def power_of(outcome: Outcome) -> list[Power]:
    return [Power(word.power) for word in outcome.words]


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
