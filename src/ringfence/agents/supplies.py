"""What management controllers see of their hosts' power supplies: their IPMI sensors, through ipmitool.

The controller is the one that fences the host, with the same address and credentials; the password goes to
ipmitool on stdin.  Everything but a sensor that says that its supply is there and fed reads as not fed: no
drill may begin on a guess.

Source: ipmitool(1), `sdr type`; IPMI 2.0, table 42-3, sensor type 08h; entity 10 is a power supply, while
such sensors of other entities tell of redundancy, table 43-13."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from ringfence.agents.passwords import ask_passwords
from ringfence.agents.process import Running
from ringfence.config.agents.cautions import prepared
from ringfence.core.cluster import DeviceConfig, Use
from ringfence.core.errors import ConfigError, RingfenceError, Unavailable
from ringfence.wire.proving import Current, Reading, Supply

LIMIT_S = 10.0
"""Of one reading."""
KEPT_BYTES = 1 << 16
TROUBLE_CHARS = 200
TOOL = "/usr/bin/ipmitool"
_PRESENT = "presence detected"
_LOST = ("ac lost", "input lost")
_ENTITY = "10."


class SupplyReader:
    """Fulfils the daemon's `Supplies`.

    Args: as `AgentRunner`."""

    def __init__(
        self, device: Callable[[str], DeviceConfig], secrets: Callable[[str], dict[str, str]]
    ) -> None:
        self._device = device
        self._secrets = secrets

    async def read(self, controllers: tuple[tuple[int, Use], ...]) -> tuple[Reading, ...]:
        """All at once."""
        return tuple(await asyncio.gather(*(self._one(node, use) for node, use in controllers)))

    async def _one(self, node: int, use: Use) -> Reading:
        try:
            device = self._device(use.device)
            device = msgspec.structs.replace(device, parameters={**device.parameters, **use.parameters})
            stop = asyncio.Event()
            device, secrets = await ask_passwords(device, self._secrets(use.device), stop, LIMIT_S)
            given = prepared(device.agent, {**device.parameters, **secrets})
            words, password = command_of(use.device, given)
            with contextlib.closing(Running(words, KEPT_BYTES)) as running:
                late = await running.ended(f"{password}\n".encode(), stop, LIMIT_S)
                code = await running.buried()
                out, err = running.out.text(secrets), running.err.text(secrets)
        except KeyError:
            return Reading(node, trouble=f"no device is called {use.device}")
        except RingfenceError as error:
            return Reading(node, trouble=str(error))
        if late or code is None:
            return Reading(node, trouble=f"no answer within {LIMIT_S:g} s")
        if code != 0:
            said = [line.strip() for line in err.splitlines() if line.strip() and password not in line]
            return Reading(node, trouble="; ".join(said)[:TROUBLE_CHARS] or f"ipmitool: exit code {code}")
        return Reading(node, supplies_of(out))


def command_of(device: str, given: Mapping[str, str]) -> tuple[list[str], str]:
    """ipmitool's command line, which holds no secret, and the password.

    Args:
        given: an IPMI agent's parameters, old names or new.

    Raises:
        Unavailable: ipmitool is not installed.
        ConfigError: there is no address or no password, or a key without which it would not answer."""
    if not Path(TOOL).exists():
        raise Unavailable("ipmitool is not installed on this host", next="install it (Debian: ipmitool)")

    def value(*names: str) -> str:
        return next((given[name] for name in names if given.get(name)), "")

    address, password = value("ip", "ipaddr"), value("password", "passwd")
    if not address or not password:
        missing = "password" if address else "address"
        raise ConfigError(f"device {device} has no {missing}", next="ringfence fence test")
    if value("hexadecimal_kg"):
        raise ConfigError(f"device {device}: ipmitool takes its key on the command line only")
    plain = value("lanplus") in ("0", "off", "no", "false")
    words = [TOOL, "-I", "lan" if plain else "lanplus", "-H", address, "-f", "/dev/stdin"]
    options = (("-p", "ipport"), ("-C", "cipher"), ("-A", "auth"), ("-t", "target"))
    for option, name in options:
        if value(name):
            words += [option, value(name)]
    user = value("username", "login")
    words += ["-U", user] if user else []
    words += ["-L", (value("privlvl") or "administrator").upper()]
    return [*words, "sdr", "type", "Power Supply"], password


def supplies_of(text: str) -> tuple[Supply, ...]:
    """The supplies, in the controller's own order.

    A line: "PSU1 | 01h | ok | 10.1 | Presence detected, Power Supply AC lost"."""
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    rows = [row for row in rows if len(row) >= 5 and row[3].startswith(_ENTITY)]
    return tuple(Supply(row[0], _current(row[2], row[4]), row[4]) for row in rows if _tells(row[4]))


def _tells(words: str) -> bool:
    """A number (volts, watts) tells nothing of what the supply is fed with."""
    return not words[:1].isdigit()


def _current(status: str, words: str) -> Current:
    said = [word.strip().lower() for word in words.split(",")]
    if any(mark in word for word in said for mark in _LOST):
        return Current.LOST
    return Current.FED if status == "ok" and said == [_PRESENT] else Current.BAD
