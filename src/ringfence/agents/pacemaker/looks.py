"""Fresh looks at Pacemaker's devices: each plug's status by the device's own agent, run here.

Run as any agent of ringfence's own: with its cautions, within a limit, and with the secrets kept out of
arguments and words."""

import asyncio
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from ringfence.agents.pacemaker import cib, fencer
from ringfence.agents.pacemaker.cib import Plug
from ringfence.agents.pacemaker.judge import Look, Looks
from ringfence.agents.runner import AgentRunner
from ringfence.config.agents.stock import base_name
from ringfence.config.checks import is_secret
from ringfence.core.cluster import Confirms, DeviceConfig
from ringfence.core.errors import ConfigError, Refused
from ringfence.engine.effects import RunAgent

OURS = "fence_ringfence"
SECRETS = Path("/var/lib/pacemaker/lrm/secrets")
"""Where `crm_resource --secret`, as pcs does it, keeps what the CIB calls "lrm://"."""
WORDS_CHARS = 100
"""Of each device: they stand side by side in one line."""


class Target:
    """What Pacemaker would fence this node by.  Raises RingfenceError; Refused: it would ask ringfence.

    A device of which that cannot be told is left out, and said on stderr: so no level with it is ever off."""

    def __init__(self, name: str) -> None:
        self.name = name
        configuration, capable = fencer.configuration(), fencer.capable(name)
        self.levels = cib.levels(configuration, name, capable)
        wanted = dict.fromkeys((*capable, *(device for level in self.levels for device in level)))
        self.plugs: list[Plug] = []
        for device in wanted:
            try:
                self.plugs += cib.plugs(configuration, device, name)
            except ConfigError as error:
                print(error, file=sys.stderr)
        for plug in self.plugs:
            if base_name(plug.agent) == OURS:
                raise Refused(
                    f"Pacemaker's {plug.device} asks ringfence: a loop", next=f"remove {plug.device}"
                )

    def looks(self, plugs: Iterable[Plug], limit_s: float) -> Looks:
        """One at each, side by side but for those of one address; within `limit_s`."""
        sessions: dict[str, list[Plug]] = {}
        for plug in plugs:
            sessions.setdefault(plug.session, []).append(plug)
        found = asyncio.run(self._all(sessions.values(), time.monotonic() + limit_s))
        looks: dict[str, list[Look]] = {}
        for look in found:
            looks.setdefault(look.plug.device, []).append(look)
        return looks

    async def _all(self, sessions: Iterable[list[Plug]], until: float) -> list[Look]:
        async def one_by_one(plugs: list[Plug]) -> list[Look]:
            return [await self._look(plug, until) for plug in plugs]

        found = await asyncio.gather(*map(one_by_one, sessions))
        return [look for some in found for look in some]

    async def _look(self, plug: Plug, until: float) -> Look:
        hidden = [name for name, value in plug.parameters.items() if is_secret(name) or value == "lrm://"]
        shown = {name: value for name, value in plug.parameters.items() if name not in hidden}
        device = DeviceConfig(plug.device, plug.agent, Confirms.HOST_OFF, shown)
        runner = AgentRunner(lambda _: device, lambda _: {name: _secret(plug, name) for name in hidden})
        limit_ms = max(0, round((until - time.monotonic()) * 1000))
        done = await runner.run(RunAgent(1, plug.device, "status", limit_ms, self.name))
        return Look(plug, done.power, done.words[-WORDS_CHARS:])


def _secret(plug: Plug, name: str) -> str:
    value = plug.parameters[name]
    if value != "lrm://":
        return value
    try:
        return (SECRETS / plug.device / name).read_text().rstrip("\n")
    except OSError as error:
        raise ConfigError(
            f"{plug.device}: the secret {name} cannot be read: {error.strerror}", next="pcs stonith config"
        ) from None
