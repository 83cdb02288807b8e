"""Runs fence agents: any executable that speaks FenceAgentAPI, once, to one of three results.

Parameters, secrets and an explicit `action=` go to the agent's stdin; nothing goes into its command
line or environment, where others could read it.  There is no default action, and never `option=`
(today's agents ignore it and then reboot).  The agent runs in a session of its own, whose whole
process group is killed when it ends and at its wall-clock limit at the latest: an ipmitool that
outlives its agent could switch off a host that has long been up again.

Exit codes mean: 0 done, or for `status` on; 2 for `status` off; anything else tells nothing, and
nothing never reads as off.

Source: FenceAgentAPI (ClusterLabs fence-agents, doc/FenceAgentAPI.md); lib/fencing.py for exit codes."""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Mapping

import msgspec

from ringfence.agents.commands import command_of
from ringfence.agents.passwords import ask_passwords
from ringfence.agents.process import KEPT_BYTES, Running
from ringfence.agents.screen import screened
from ringfence.config.agents.cautions import is_listed, must_be_sent, plug_must_be_listed, prepared
from ringfence.config.agents.stock import OTHER_WAYS, stock_agent
from ringfence.config.checks import is_secret
from ringfence.core.cluster import DeviceConfig
from ringfence.core.errors import ConfigError, RingfenceError
from ringfence.core.evidence import Power
from ringfence.engine.effects import RunAgent
from ringfence.engine.inputs import AgentExited
from ringfence.fencing.level_run import already_off

ACTIONS = ("on", "off", "status", "list")
WORDS_CHARS = 300
CANCELLED_KEPT = 64
LIST_BYTES = 1 << 18
"""Of a list of plugs: a rack PDU's has some dozens of lines, a hypervisor's thousands."""
MASK = "****"
_STATUS_OFF = 2
_KEY = re.compile(r"[A-Za-z0-9_.-]+")
_LOGIN = re.compile(
    r"connect/login|correct plug status|log ?in|passw|authenti|authoriz|credential|denied", re.IGNORECASE
)
"""What they say then.  Source: lib/fencing.py, fail() and the agents' own words."""
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")


class _Said(msgspec.Struct, frozen=True):
    """One run of an agent."""

    code: int | None
    """None: it had to be ended."""
    words: str
    """For people."""
    out: str = ""
    """All that it printed; empty if that was more than is kept."""


class _Answer(msgspec.Struct, frozen=True):
    power: Power
    words: str
    answered: bool
    plugs: dict[str, str] | None = None


class AgentRunner:
    """Fulfils the daemon's `Agents`.

    Args:
        device: a configured device by name; raises KeyError.
        secrets: its secret parameters, read afresh at each run; raises RingfenceError.
            What a password script prints is added to them for that run.
    """

    def __init__(
        self, device: Callable[[str], DeviceConfig], secrets: Callable[[str], dict[str, str]]
    ) -> None:
        self._device = device
        self._secrets = secrets
        self._cancelled: dict[int, None] = {}
        """Runs cancelled before they began (the order to run is carried out a turn of the loop later)."""
        self._live: dict[int, asyncio.Event] = {}

    async def run(self, effect: RunAgent) -> AgentExited:
        """One whole run, at its limit at the latest.  Never raises for what an agent does."""
        began = time.monotonic()
        if effect.run in self._cancelled:
            del self._cancelled[effect.run]
            return AgentExited(effect.run, Power.UNKNOWN, "cancelled before it began", 0, answered=False)
        stop = self._live[effect.run] = asyncio.Event()
        try:
            answer = await self._run(effect, stop)
        except RingfenceError as error:
            answer = _Answer(Power.UNKNOWN, _clean(str(error), {}), answered=False)
        finally:
            del self._live[effect.run]
        took_ms = round((time.monotonic() - began) * 1000)
        return AgentExited(effect.run, answer.power, answer.words, took_ms, answer.answered, answer.plugs)

    def cancel(self, run: int) -> None:
        """Kill the run's process group; its AgentExited still follows."""
        if run in self._live:
            self._live[run].set()
            return
        self._cancelled[run] = None
        if len(self._cancelled) > CANCELLED_KEPT:
            del self._cancelled[next(iter(self._cancelled))]

    async def _run(self, effect: RunAgent, stop: asyncio.Event) -> _Answer:
        until = time.monotonic() + effect.timeout_ms / 1000
        try:
            device = self._device(effect.device)
        except KeyError:
            raise ConfigError(f"no device is called {effect.device}", next="ringfence config show") from None
        device = msgspec.structs.replace(device, parameters={**device.parameters, **effect.parameters})
        secrets = self._secrets(effect.device)
        device, secrets = await ask_passwords(device, secrets, stop, effect.timeout_ms / 1000)
        call = _Call(effect, device, secrets, stop, until)
        said = await call.run(effect.action)
        if said.code is None:
            return _Answer(Power.UNKNOWN, said.words, answered=False)
        power, answered = _result(effect.action, said.code), said.code in (0, _STATUS_OFF)
        if power is Power.OFF and (doubt := await _doubt(call, said)):
            return _Answer(Power.UNKNOWN, doubt, answered)
        if not answered:
            return _Answer(power, said.words + _login_hint(device, secrets, said.words), answered)
        plugs = plugs_of(said.out) if effect.action == "list" and said.code == 0 else None
        return _Answer(power, said.words, answered, plugs)


class _Call(msgspec.Struct, frozen=True):
    """One order to run an agent, for which it may be started more than once."""

    effect: RunAgent
    device: DeviceConfig
    """With the parameters of the plug that is meant."""
    secrets: dict[str, str]
    stop: asyncio.Event
    until: float
    """By time.monotonic()."""

    async def run(self, action: str) -> _Said:
        secrets, kept_bytes = self.secrets, LIST_BYTES if action == "list" else KEPT_BYTES
        with contextlib.ExitStack() as stack:
            told = stack.enter_context(screened(self.device, secrets))
            stdin = request_of(*told, action, self.effect.nodename)
            running = Running(command_of(self.device.agent), kept_bytes)
            stack.callback(running.close)
            late = await running.ended(stdin, self.stop, max(0.0, self.until - time.monotonic()))
            code = await running.buried()
            out, err = running.out.text(secrets), running.err.text(secrets)
            # Of a success the last word is on stdout ("Success: Already OFF"), whatever stderr warns of.
            raw = f"{err}\n{out}" if code == 0 else err or out
            words = _clean(raw, secrets)
            if already_off(raw) and not already_off(words):
                # Masked (a password may be "OFF"), or cut off: it decides what the answer is worth.
                words = f"{words} (it was already off)"
            out = "" if running.out.cut else out
        if late or code is None:
            limit = f"no answer within {self.effect.timeout_ms / 1000:g} s: killed"
            why = "cancelled" if self.stop.is_set() else limit
            return _Said(None, f"{why}; {words}" if words else why)
        return _Said(code, words or f"exit code {code}", out)


async def _doubt(call: _Call, said: _Said) -> str:
    """Why an "off" of this agent is not one; empty: it is."""
    device = call.device
    if plug_must_be_listed(device.agent, device.parameters):
        listed = await call.run("list")
        if listed.code != 0:
            return f"off, but its list of plugs cannot be read: {listed.words}"
        if not is_listed(device.parameters, listed.out):
            return f"off, but the device has no such plug ({said.words})"
    sent = said.out and not already_off(said.out)
    if call.effect.action == "off" and must_be_sent(device.agent) and not sent:
        return f"no off was sent ({said.words}), and it says so of a suspended machine, too"
    return ""


def _login_hint(device: DeviceConfig, secrets: Mapping[str, str], words: str) -> str:
    """Stock agents say the same of a device that refuses the login as of one that is not reached."""
    stock = stock_agent(device.agent)
    if stock is None or not stock.secrets or not _LOGIN.search(words):
        return ""
    if secrets or any(is_secret(key) or key in OTHER_WAYS for key in device.parameters):
        return f"; if it can be reached, is the login right? (secrets/{device.name})"
    return f"; it is given no {stock.secrets[0]}: this host has none in secrets/{device.name}"


def request_of(device: DeviceConfig, secrets: dict[str, str], action: str, nodename: str) -> bytes:
    """What the agent reads on stdin, corrected where its defaults are not safe (`config.agents.cautions`).

    Raises:
        ConfigError: for what could be read as something else, and for what would make its answer a lie.
    """
    if action not in ACTIONS:
        raise ConfigError(f"{action!r} is no action for a fence agent", next=f"one of {', '.join(ACTIONS)}")
    try:
        given = prepared(device.agent, {**device.parameters, **secrets})
    except ConfigError as error:
        raise ConfigError(f"device {device.name}: {error.message}", next=error.next) from None
    for key in given:
        if not _KEY.fullmatch(key):
            raise ConfigError(
                f"device {device.name}: {key!r} is no name of a parameter",
                next="use letters, digits, _ and -",
            )
        if key in ("action", "option"):
            raise ConfigError(
                f"device {device.name}: {key} is not for parameters or secrets", next=f"remove {key}"
            )
    # The action comes last: of a key that stands twice agents take the last.
    lines = {**given, "nodename": nodename, "action": action}
    for key, value in lines.items():
        # Stock agents do not take a carriage return for a line's end; other readers may.
        if any(end in value for end in "\n\r\0"):
            raise ConfigError(
                f"device {device.name}: the value of {key} is not one line", next="remove the line break"
            )
    try:
        return "".join(f"{key}={value}\n" for key, value in lines.items()).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"device {device.name}: a value is not UTF-8", next="mend its parameters") from None


def plugs_of(text: str) -> dict[str, str] | None:
    """What "list" prints: a line "PLUG,NAME" a plug.  None where there is nothing like it: agents that do
    not know their plugs say so in words of their own ("N/A", "NOTICE: ...").

    Source: lib/fencing.py, fence_action()."""
    lines = [line.partition(",") for line in text.splitlines()]
    plugs = {_clean(plug, {}): _clean(name, {}) for plug, comma, name in lines if comma and plug.strip()}
    return plugs or None


def _result(action: str, code: int) -> Power:
    if action == "status":
        return {0: Power.ON, _STATUS_OFF: Power.OFF}.get(code, Power.UNKNOWN)
    if code != 0 or action == "list":
        return Power.UNKNOWN
    return Power.OFF if action == "off" else Power.ON


def _clean(text: str, secrets: Mapping[str, str]) -> str:
    """One short line for people; no secret, nothing that a terminal would obey."""
    # Agents strip blanks and one pair of quotes: they may say a value with or without.
    spoken = {form for value in secrets.values() for form in (value, value.strip(), _unquoted(value.strip()))}
    known = sorted((form for form in spoken if form), key=lambda form: (-len(form), form))
    if known:
        text = re.sub("|".join(map(re.escape, known)), MASK, text)  # in one go: no mask is masked again
    lines = [_UNPRINTABLE.sub(" ", line).strip() for line in text.splitlines()]
    return "; ".join(line for line in lines if line)[-WORDS_CHARS:]


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
