"""Fresh looks at Pacemaker's devices: each plug's status by the device's own agent, run here."""

import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ringfence.agents.find import find_agent
from ringfence.agents.pacemaker import cib, fencer
from ringfence.agents.pacemaker.cib import Plug
from ringfence.agents.pacemaker.judge import Look, Looks
from ringfence.agents.runner import WORDS_CHARS
from ringfence.config.checks import is_secret
from ringfence.core.errors import ConfigError, RingfenceError
from ringfence.core.evidence import Power

SECRETS = Path("/var/lib/pacemaker/lrm/secrets")
"""Where `crm_resource --secret`, as pcs does it, keeps what the CIB calls "lrm://"."""


class Target:
    """What Pacemaker would fence this node by.  Raises RingfenceError.

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

    def looks(self, plugs: Iterable[Plug], limit_s: float) -> Looks:
        """One at each, side by side but for those of one address; within `limit_s`."""
        until = time.monotonic() + limit_s
        sessions: dict[str, list[Plug]] = {}
        for plug in plugs:
            sessions.setdefault(plug.session, []).append(plug)
        with ThreadPoolExecutor(max(1, len(sessions))) as pool:
            found = pool.map(lambda some: [self._look(one, until) for one in some], sessions.values())
            looks = [look for some in found for look in some]
        return {
            device: [one for one in looks if one.plug.device == device] for device in self._devices(looks)
        }

    @staticmethod
    def _devices(looks: Iterable[Look]) -> list[str]:
        return list(dict.fromkeys(look.plug.device for look in looks))

    def _look(self, plug: Plug, until: float) -> Look:
        try:
            given = {name: _value(plug.device, name, value) for name, value in plug.parameters.items()}
            lines = {**given, "nodename": self.name, "action": "status"}
            done = subprocess.run(
                [find_agent(plug.agent)], input="".join(f"{name}={value}\n" for name, value in lines.items()),
                text=True, errors="replace", capture_output=True, timeout=max(until - time.monotonic(), 0),
                cwd="/", env=fencer.ENVIRONMENT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return Look(plug, Power.UNKNOWN, "no answer in time")
        except RingfenceError as error:
            return Look(plug, Power.UNKNOWN, str(error))
        power = {0: Power.ON, 2: Power.OFF}.get(done.returncode, Power.UNKNOWN)
        if power is not Power.UNKNOWN:
            return Look(plug, power)
        # What an agent prints may hold what it was given: where that was a secret, its exit code must do.
        secret = any(is_secret(name) or plug.parameters[name] != given[name] for name in given)
        said = "" if secret else " ".join((done.stderr or done.stdout).split())[-WORDS_CHARS // 3 :]
        return Look(plug, power, said or f"exit code {done.returncode}")


def _value(device: str, name: str, value: str) -> str:
    if value != "lrm://":
        return value
    try:
        return (SECRETS / device / name).read_text().rstrip("\n")
    except OSError as error:
        raise ConfigError(
            f"{device}: the secret {name} cannot be read: {error.strerror}", next="pcs stonith config"
        ) from None
