"""Says, soon after the start, what is wrong with the configured fence devices, as far as this host's agents
tell.

A warning each, and nothing more: a host whose agent is missing or whose parameter is misspelt is still a
member, and other hosts may fence in its place."""

import asyncio
from collections.abc import Callable

from ringfence.agents.checking import check_devices
from ringfence.config import Paths
from ringfence.core.cluster import ClusterConfig

SETTLED_S = 3.0
"""What must be quick at a start is over by then."""


async def warn_of_devices(paths: Paths, config: ClusterConfig, warn: Callable[[str], None]) -> None:
    """
    Args:
        warn: gets a line for each thing that is wrong, and for each agent that is not here or broken.
    """
    await asyncio.sleep(SETTLED_S)
    found = await check_devices(paths, config)
    for line in dict.fromkeys(f"device {one.line}" for one in found if one.wrong or one.lacking):
        warn(line)
