"""Asks every fence device for its status, as many at once as it has sessions, as the daemon would: by
`agents.runner`.

Only `status`, never anything else.  From this host alone: many a device has one session, and if all
hosts asked at once, sound ones would fail."""

import asyncio
import os
from collections.abc import Callable

from ringfence.agents.checking import check_devices
from ringfence.agents.commands import command_of
from ringfence.agents.runner import AgentRunner
from ringfence.config import Paths, read_secrets
from ringfence.config.agents.check import Trouble
from ringfence.core.cluster import ClusterConfig, Use
from ringfence.core.errors import RingfenceError
from ringfence.doctor.facts import DeviceFacts
from ringfence.engine.effects import RunAgent

LIMIT_MS = 15_000
"""At most so long for one device, whatever its own limit."""
AT_ONCE = 16


def ask_devices(
    paths: Paths, cluster: ClusterConfig, unseen: list[str], progress: Callable[[str], None]
) -> tuple[DeviceFacts, ...]:
    """One run for each plug in a level of a node.  What this user may not ask goes to `unseen`."""
    wanted: dict[str, tuple[Use, str]] = {}
    hidden: dict[str, None] = {}
    whose = [(use, node.name) for node in cluster.nodes for level in node.levels for use in level.uses]
    for use, node in whose:
        if os.geteuid() != 0 and not os.access(paths.secrets / use.device, os.R_OK):
            hidden[f"device {use.device}: only root may read its secrets"] = None
        else:
            wanted.setdefault(use.label, (use, node))
    unseen += hidden
    if wanted:
        progress(f"asking {len(wanted)} fence devices for their status")
    return asyncio.run(_ask_all(paths, cluster, list(wanted.values())))


def told_wrong(paths: Paths, cluster: ClusterConfig) -> tuple[Trouble, ...]:
    """What the agents on this host would not take."""
    return tuple(asyncio.run(check_devices(paths, cluster)))


async def _ask_all(
    paths: Paths, cluster: ClusterConfig, wanted: list[tuple[Use, str]]
) -> tuple[DeviceFacts, ...]:
    runner = AgentRunner(cluster.device, lambda name: read_secrets(paths, name))
    gate = asyncio.Semaphore(AT_ONCE)
    sessions = {device.name: asyncio.Semaphore(device.sessions) for device in cluster.devices}

    async def ask(number: int, use: Use, node: str) -> DeviceFacts:
        device = cluster.device(use.device)
        try:
            command_of(device.agent)
        except RingfenceError as error:
            return DeviceFacts(device.name, node, agent_missing=error.message, label=use.label)
        limit_ms = min(device.timeout_ms or cluster.timing.agent_timeout_ms, LIMIT_MS)
        order = RunAgent(number, device.name, "status", limit_ms, node, use.parameters)
        async with sessions[device.name], gate:
            done = await runner.run(order)
        return DeviceFacts(device.name, node, "", done.power, done.words, done.took_ms, use.label)

    asked = [ask(number, use, node) for number, (use, node) in enumerate(wanted, 1)]
    return tuple(await asyncio.gather(*asked))
