"""Two ways to fence with the same real agents: by exit code alone, and as ringfence's acting member does it."""

import asyncio
import subprocess
from collections.abc import Callable, Mapping

import msgspec

from ringfence.agents.runner import AGENT_PATH, AgentRunner, find_agent
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig
from ringfence.core.ids import Life
from ringfence.engine.effects import RunAgent
from ringfence.fencing.level_run import LevelRun, Outcome, Run

LOST = Life(1, "machine-1", "boot-1", 1)
"""The victim: n1."""


class Answer(msgspec.Struct, frozen=True):
    code: int
    words: str

    @property
    def believed(self) -> bool:
        """By whoever looks at exit codes alone."""
        return self.code == 0


def bare(device: DeviceConfig, secrets: Mapping[str, str], action: str, env: Mapping[str, str] = {}) -> Answer:
    """Run the agent once, as a stack does that hands it its keys and looks at its exit code."""
    keys = {**device.parameters, **secrets, "action": action}
    return say(device.agent, keys, env)


def say(agent: str, keys: Mapping[str, str], env: Mapping[str, str] = {}, timeout_s: float = 60) -> Answer:
    done = subprocess.run(
        [find_agent(agent)],
        input="".join(f"{key}={value}\n" for key, value in keys.items()).encode(),
        capture_output=True,
        env={"PATH": AGENT_PATH, **env},
        timeout=timeout_s,
    )
    return Answer(done.returncode, (done.stdout + done.stderr).decode(errors="replace"))


def cluster(*levels: tuple[DeviceConfig, ...], agent_timeout_ms: int = 20_000) -> ClusterConfig:
    """n1 and n2; n1's fence levels are these devices."""
    devices = {device.name: device for level in levels for device in level}
    node = NodeConfig(1, "n1", levels=tuple(Level(tuple(one.name for one in level)) for level in levels))
    config = ClusterConfig(
        "lies", two_node=True, nodes=(node, NodeConfig(2, "n2", manual=True)),
        devices=tuple(devices[name] for name in sorted(devices)),
    )  # fmt: skip
    timing = msgspec.structs.replace(config.timing, agent_timeout_ms=agent_timeout_ms)
    return msgspec.structs.replace(config, timing=timing)


def ours(
    config: ClusterConfig,
    secrets: Mapping[str, dict[str, str]],
    level: int = 1,
    after: Callable[[Run, LevelRun], None] = lambda run, level: None,
) -> Outcome:
    """One attempt on n1 by n2, as `engine.fencer` makes it.

    Args:
        secrets: device -> its secret parameters.
        level: counted from 1.
        after: called when a run has ended, before its result counts."""
    return asyncio.run(_attempt(config, secrets, level, after))


async def _attempt(
    config: ClusterConfig,
    secrets: Mapping[str, dict[str, str]],
    level: int,
    after: Callable[[Run, LevelRun], None],
) -> Outcome:
    runner = AgentRunner(config.device, lambda name: secrets.get(name, {}))
    attempt = LevelRun(config, LOST, level - 1, 1, seen_by=2)
    orders = attempt.start()
    while attempt.finished is None:
        (order,) = orders
        run = RunAgent(order.run, order.device, order.action, order.timeout_ms, "n1")
        exited = await runner.run(run)
        after(order, attempt)
        orders = attempt.exited(exited.run, exited.power, exited.words, exited.took_ms, exited.answered)
    return attempt.finished


def host_off(name: str, agent: str, **parameters: object) -> DeviceConfig:
    return _device(name, agent, Confirms.HOST_OFF, parameters)


def outlet_off(name: str, agent: str, **parameters: object) -> DeviceConfig:
    return _device(name, agent, Confirms.OUTLET_OFF, parameters)


def _device(name: str, agent: str, confirms: Confirms, parameters: Mapping[str, object]) -> DeviceConfig:
    return DeviceConfig(name, agent, confirms, {key: str(value) for key, value in parameters.items()})
