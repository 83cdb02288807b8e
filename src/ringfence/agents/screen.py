"""Keeps secrets out of the arguments of the tools that agents call.

fence_ipmilan hands the password to ipmitool as `-P`, SNMP agents hand the community and the passphrases to
net-snmp's tools as `-c`, `-A`, `-X`.  The tools blank them, but only once they run: until then, some
milliseconds at each call, every user of the host can read them in /proc/PID/cmdline.

So such an agent is told of a stand-in for the tool, and of another word instead of the secret.  The stand-in
is a few lines of shell that drop the word and name a file in its place.  That file is memory of this process,
which what it starts reaches by /proc/PID/fd: no secret is on a disk, and none outlives the process.

Where it cannot be done (no place from which a script may be started; a tool of another kind), the agent is
told the secret itself, as every other cluster software tells it.

Sources: fence-agents 4.12.1 (fence_ipmilan, lib/fencing_snmp.py); ipmitool(1) -f; snmp.conf(5),
snmp_config(5) SNMPCONFPATH; memfd_create(2)."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

import msgspec

from ringfence.config.agents.stock import base_name
from ringfence.core.cluster import DeviceConfig

PLACEHOLDER = "hidden"
_IPMI_AGENTS = re.compile(r"fence_(ipmilan(plus)?|idrac|imm|ilo[3-6])")
_SNMP_AGENTS = re.compile(
    r"fence_(apc_snmp|tripplite_snmp|cisco_mds|eaton_snmp|emerson|ibmblade|ifmib|intelmodular|ipdu|lindypdu)"
)
_IPMI_TOOLS = {"ipmitool_path": "/usr/bin/ipmitool"}
_SNMP_TOOLS = {f"snmp{what}_path": f"/usr/bin/snmp{what}" for what in ("get", "set", "walk")}
_IPMI_WORDS = {"password": "", "passwd": ""}
_SNMP_WORDS = {
    "community": "defCommunity",
    "password": "defAuthPassphrase",
    "passwd": "defAuthPassphrase",
    "snmp_priv_passwd": "defPrivPassphrase",
    "snmp-priv-passwd": "defPrivPassphrase",
}
"""How snmp.conf calls what the agent would hand over as an argument."""
_SNMP_OPTIONS = {"defCommunity": "-c", "defAuthPassphrase": "-A", "defPrivPassphrase": "-X"}
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/+-]+")
_SCRIPT = """#!/bin/sh
left=$#
while [ $left -gt 0 ]; do
    word=$1; shift; left=$((left - 1))
    case $word in
        {options}) shift; left=$((left - 1)) {instead};;
        *) set -- "$@" "$word";;
    esac
done
exec {environment}{tool} "$@"
"""


class _Way(msgspec.Struct, frozen=True):
    """How one kind of tool is kept from being told."""

    tools: dict[str, str]
    """The parameters that name them, and what each is if nobody says."""
    words: dict[str, str]
    """The secrets that are hidden."""
    options: dict[str, str]
    """What hands each of them over, by what `words` calls it."""
    instead: str
    environment: str

    def file(self, hidden: dict[str, str]) -> str:
        """What the tool reads."""
        if self.environment:
            return "".join(f'{self.words[key]} "{value}"\n' for key, value in hidden.items())
        return "".join(f"{value}\n" for value in hidden.values())


_IPMI = _Way(_IPMI_TOOLS, _IPMI_WORDS, {"": "-P"}, '; set -- "$@" -f {file}', "")
_SNMP = _Way(_SNMP_TOOLS, _SNMP_WORDS, _SNMP_OPTIONS, "", "env SNMPCONFPATH={directory} ")


_Told = tuple[DeviceConfig, dict[str, str]]


@contextlib.contextmanager
def screened(device: DeviceConfig, secrets: dict[str, str]) -> Iterator[_Told]:
    """What the agent is told for the time of one call; the same, where nothing is hidden."""
    name, given = base_name(device.agent), device.parameters
    way = _IPMI if _IPMI_AGENTS.fullmatch(name) else _SNMP if _SNMP_AGENTS.fullmatch(name) else None
    with contextlib.ExitStack() as stack:
        told: _Told | None = None
        if way is not None and "use_sudo" not in given and "sudo" not in given:  # sudo's rules name the tool
            with contextlib.suppress(OSError):  # a full disk must not keep a host from being fenced
                told = _screen(way, device, secrets, stack)
        yield told or (device, secrets)


def _screen(
    way: _Way, device: DeviceConfig, secrets: dict[str, str], stack: contextlib.ExitStack
) -> _Told | None:
    """None: there is nothing to hide, or no way to.  Raises OSError."""
    hidden = {key: _bare(value) for key, value in secrets.items() if key in way.words and _bare(value)}
    tools = {key: device.parameters.get(key, usual) for key, usual in way.tools.items()}
    quotable = not set("".join(hidden.values())) & set('"\\\n')
    if not hidden or not quotable or not all(map(_usable, tools.values())):
        return None
    temporary = tempfile.TemporaryDirectory(prefix="ringfence-", ignore_cleanup_errors=True)
    directory = stack.enter_context(temporary)
    file = stack.enter_context(_memory(way.file(hidden)))
    os.symlink(file, f"{directory}/snmp.conf")
    # Only of what is hidden: a community that stands among the parameters is for the tool to be told.
    options = " | ".join(dict.fromkeys(way.options[way.words[key]] for key in hidden))
    told = {key: _stand_in(way, directory, file, key, tool, options) for key, tool in tools.items()}
    if not all(os.access(path, os.X_OK) for path in told.values()):  # mounted noexec
        return None
    other = msgspec.structs.replace(device, parameters={**device.parameters, **told})
    return other, secrets | dict.fromkeys(hidden, PLACEHOLDER)


def _stand_in(way: _Way, directory: str, file: str, key: str, tool: str, options: str) -> str:
    path = f"{directory}/{key.removesuffix('_path')}"
    script = _SCRIPT.format(
        options=options,
        instead=way.instead.format(file=file),
        environment=way.environment.format(directory=directory),
        tool=tool,
    )
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "w") as stream:
        stream.write(script)
    return path


def _bare(value: str) -> str:
    """As agents read a value: blanks stripped, one pair of quotes taken off."""
    value = value.strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _usable(tool: str) -> bool:
    return _PLAIN_PATH.fullmatch(tool) is not None and os.access(tool, os.X_OK)


@contextlib.contextmanager
def _memory(text: str) -> Iterator[str]:
    """A file in this process's memory; the path by which what it starts may open it."""
    file = os.memfd_create("ringfence")
    try:
        with open(file, "w", closefd=False) as stream:
            stream.write(text)
        yield f"/proc/{os.getpid()}/fd/{file}"
    finally:
        os.close(file)
