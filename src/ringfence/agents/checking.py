"""A configuration's fence devices held against the agents that are installed on this host."""

import contextlib
from collections.abc import Callable, Mapping

from ringfence.agents.catalogue import Catalogue, Known
from ringfence.agents.commands import OWN
from ringfence.agents.find import find_agent
from ringfence.config import Paths, read_secrets
from ringfence.config.agents.check import Trouble, check_agents
from ringfence.config.agents.stock import base_name
from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import RingfenceError, Unavailable


async def check_devices(
    paths: Paths, cluster: ClusterConfig, progress: Callable[[str], None] = lambda line: None
) -> list[Trouble]:
    """What is wrong with them first, then what is worth knowing.  Starts no agent but for its metadata.

    An agent that is not installed here is only told: another host may be the one that has it."""
    lacking: list[Trouble] = []
    places: dict[str, str] = {}
    for device in cluster.devices:
        if base_name(device.agent) in OWN:
            continue
        try:
            places[device.agent] = find_agent(device.agent)
        except Unavailable as error:
            lacking.append(Trouble(device.name, device.name, error.message, error.next, False, True))
    known = await Catalogue(paths.agents).look(dict.fromkeys(places.values()), progress)
    said = {one.path: one for one in known}
    found: dict[str, Known] = {agent: said[path] for agent, path in places.items()}
    for device in cluster.devices:
        one = found.get(device.agent)
        if one is not None and one.metadata is None:
            what = f"{one.path} does not describe itself ({one.trouble}): its parameters are not checked"
            lacking.append(Trouble(device.name, device.name, what, "", False, True))

    def secrets(device: str) -> Mapping[str, str] | None:
        with contextlib.suppress(RingfenceError, OSError):  # whoever may not read them is told elsewhere
            return read_secrets(paths, device)
        return None

    metadata = {agent: one.metadata for agent, one in found.items()}
    return [*check_agents(cluster, metadata.get, secrets), *lacking]
