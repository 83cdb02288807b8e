"""Passwords that a script prints: `password_script` and its like in a device's parameters or secrets.

The script is run here and its word handed on as the password.  Agents would run it themselves, by a shell;
but then nobody here would know the word, and could not keep it out of what an agent says and we record.

A script that others could change is not run.  Nothing that it prints is shown, however it ends.

Source: FenceAgentAPI; lib/fencing.py (`check_input`): its output less the blanks at its end."""

import asyncio
import contextlib
import os
import shlex
import stat
from collections.abc import Mapping

import msgspec

from ringfence.agents.find import only_ours
from ringfence.agents.process import Running
from ringfence.core.cluster import DeviceConfig
from ringfence.core.errors import ConfigError, Unavailable

SCRIPT_S = 10.0
"""At most so long of a call's limit."""
_SUFFIX = "_script"
_SCRIPTS = ("passwd_script", "password_script")


async def ask_passwords(
    device: DeviceConfig, secrets: Mapping[str, str], stop: asyncio.Event, limit_s: float
) -> tuple[DeviceConfig, dict[str, str]]:
    """The device without its scripts, and its secrets with what they printed.

    Raises:
        ConfigError: a script is not an absolute path, or others than its owner could change it.
        Unavailable: it fails, is late or prints nothing.  What it printed is not in the message.
    """
    found = dict(secrets)
    scripts = {
        key: value
        for key, value in {**device.parameters, **secrets}.items()
        if key.replace("-", "_").endswith(_SCRIPTS)
    }
    for key, command in scripts.items():
        where = f"device {device.name}: {key}"
        found.pop(key, None)
        word = await _word(where, _command(where, command), stop, min(limit_s, SCRIPT_S))
        found[key.replace("-", "_").removesuffix(_SUFFIX)] = word
    open_ = {key: value for key, value in device.parameters.items() if key not in scripts}
    return msgspec.structs.replace(device, parameters=open_), found


def _command(where: str, command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{where} is not a command: {error}", next="mend its quotes") from None
    if not words or not words[0].startswith("/"):
        raise ConfigError(f"{where} is no absolute path", next="begin it with /")
    path = words[0]
    try:
        status = os.stat(path)
    except OSError as error:
        raise ConfigError(f"{where}: {path}: {error.strerror}", next="mend the path") from None
    if not stat.S_ISREG(status.st_mode) or not os.access(path, os.X_OK):
        raise ConfigError(f"{where}: {path} is not executable", next=f"chmod u+x {path}")
    if not only_ours(path) or not only_ours(os.path.dirname(path)):
        raise ConfigError(
            f"{where}: others could change {path}, and would be run as the daemon",
            next="give it and its directory to root, writable by root alone",
        )
    return words


async def _word(where: str, words: list[str], stop: asyncio.Event, limit_s: float) -> str:
    with contextlib.closing(Running(words)) as running:
        late = await running.ended(b"", stop, limit_s)
        code = await running.buried()
    if late or code is None:
        why = "cancelled" if stop.is_set() else f"no password within {limit_s:g} s: killed"
        raise Unavailable(f"{where}: {why}")
    if code != 0:
        raise Unavailable(f"{where}: {words[0]} ended with exit code {code}", next="try it by hand")
    if running.out.cut:
        raise Unavailable(f"{where}: {words[0]} prints too much for a password", next="try it by hand")
    try:
        word = running.out.data.decode().rstrip()
    except UnicodeDecodeError:
        raise Unavailable(f"{where}: {words[0]} prints no UTF-8", next="try it by hand") from None
    if not word:
        raise Unavailable(f"{where}: {words[0]} prints nothing", next="try it by hand")
    return word
