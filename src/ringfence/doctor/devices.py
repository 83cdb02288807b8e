"""Asks every fence device for its status, all at once, as the daemon would: by `agents.runner`.

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
    whose = [(use, node.name) for node in cluster.nodes for level in node.levels for use in level.uses]
    wanted: dict[str, tuple[Use, str]] = {}
    for use, node in whose:
        secret = paths.secrets / use.device
        if os.geteuid() != 0 and not os.access(secret, os.R_OK):
            line = f"device {use.device}: only root may read its secrets"
            unseen += [line] if line not in unseen else []
        else:
            wanted.setdefault(use.label, (use, node))
    if wanted:
        progress(f"asking {len(wanted)} fence devices for their status")
    return asyncio.run(_ask_all(paths, cluster, wanted))


def told_wrong(paths: Paths, cluster: ClusterConfig) -> tuple[Trouble, ...]:
    """What the agents on this host would not take."""
    return tuple(asyncio.run(check_devices(paths, cluster)))


async def _ask_all(
    paths: Paths, cluster: ClusterConfig, wanted: dict[str, tuple[Use, str]]
) -> tuple[DeviceFacts, ...]:
    runner = AgentRunner(cluster.device, lambda name: read_secrets(paths, name))
    gate = asyncio.Semaphore(AT_ONCE)
    sessions = {device.name: asyncio.Semaphore(device.sessions) for device in cluster.devices}

    async def ask(number: int, use: Use, node: str) -> DeviceFacts:
        name, device = use.device, cluster.device(use.device)
        try:
            command_of(device.agent)
        except RingfenceError as error:
            return DeviceFacts(name, node, agent_missing=error.message, label=use.label)
        limit_ms = min(device.timeout_ms or cluster.timing.agent_timeout_ms, LIMIT_MS)
        async with sessions[name], gate:
            done = await runner.run(RunAgent(number, name, "status", limit_ms, node, use.parameters))
        return DeviceFacts(name, node, "", done.power, done.words, done.took_ms, use.label)

    asked = [ask(number, use, node) for number, (use, node) in enumerate(wanted.values(), 1)]
    return tuple(await asyncio.gather(*asked))
