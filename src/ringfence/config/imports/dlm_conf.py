"""dlm.conf -> fence devices and their order, for nodes that corosync.conf names.

    device NAME AGENT KEY=VALUE ...        begins a device; order of devices is order of trying
    connect NAME node=ID KEY=VALUE ...     what NAME is told to fence that node
    device NAME:1 ..., device NAME:2 ...   all must pass: one level

Source: dlm.conf(5) and dlm_controld/config.c of dlm 4."""

from collections.abc import Sequence

import msgspec

from ringfence.config.imports.found import Found, Part
from ringfence.core.errors import ConfigError

_WHY = {
    "enable_fencing": "ringfence always fences: no lock moves without proof",
    "enable_startup_fencing": "hosts that are absent at the first start are always fenced",
    "enable_quorum_fencing": "only a majority fences, always",
    "enable_quorum_lockspace": "only a majority runs lockspaces, always",
    "repeat_failed_fencing": "fencing is tried again until it succeeds, always",
    "enable_concurrent_fencing": "victims are fenced one after another",
    "unfence": "nothing is switched on at boot: do that yourself",
    "unfence_all": "nothing is switched on at boot: do that yourself",
    "lockspace": "every member knows every lock: there is no master to choose",
    "master": "every member knows every lock: there is no master to choose",
}
_SAME = tuple(
    (key, "1") for key in _WHY if key.startswith(("enable_", "repeat_")) and "concurrent" not in key
)
"""What is so in ringfence anyway."""
_KERNEL = "it is about the kernel's DLM, which ringfence does not use"


class _Device(msgspec.Struct):
    name: str
    agent: str
    parameters: dict[str, str]
    nodes: dict[int, dict[str, str]] = {}


def add_dlm_conf(file: str, text: str, found: Found) -> Found:
    """`found` with the fence levels that dlm.conf gives its nodes.

    Raises ConfigError."""
    devices: dict[str, _Device] = {}
    notes: list[str] = []
    delay_ms = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{file} line {number}"
        word, *rest = line.split()
        if word in ("device", "connect"):
            (_begin if word == "device" else _connect)(where, rest, devices)
        elif word == "fence_all":
            agent = rest[0] if rest else "?"
            notes.append(f"{where}: fence_all {agent}: name a device for each node in ringfence.toml instead")
        elif word in _WHY:
            notes.append(f"{where}: {word}: {_WHY[word]}")
        else:
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals:
                raise ConfigError(f"{where}: {word!r} is not understood", next="mend the line")
            if key == "post_join_delay":
                delay_ms = _number(where, key, value) * 1000
            elif (key, value) not in _SAME:
                notes.append(f"{where}: {key}={value}: {_WHY.get(key, _KERNEL)}")
    return _joined(file, found, devices, notes, delay_ms)


def _begin(where: str, rest: Sequence[str], devices: dict[str, _Device]) -> None:
    if len(rest) < 2:
        raise ConfigError(f"{where}: device needs a name and an agent", next="mend the line")
    if rest[0] in devices:
        raise ConfigError(f"{where}: device {rest[0]} is there twice", next="remove one")
    devices[rest[0]] = _Device(rest[0], rest[1], _pairs(where, rest[2:]))


def _connect(where: str, rest: Sequence[str], devices: dict[str, _Device]) -> None:
    if not rest or rest[0] not in devices:
        raise ConfigError(f"{where}: connect names no device that was defined above", next="mend the line")
    given = _pairs(where, rest[1:])
    if "node" not in given:
        raise ConfigError(f"{where}: connect {rest[0]} has no node=ID", next="add it")
    devices[rest[0]].nodes[_number(where, "node", given.pop("node"))] = given


def _joined(file: str, found: Found, devices: dict[str, _Device], notes: list[str], delay_ms: int) -> Found:
    names = {node.id: node.name for node in found.nodes}
    levels: dict[str, list[list[Part]]] = {name: [] for name in names.values()}
    actions: list[str] = []
    groups: dict[str, list[_Device]] = {}
    for device in devices.values():
        groups.setdefault(device.name.split(":")[0], []).append(device)
        for id in device.nodes:
            if id not in names:
                notes.append(
                    f"{file}: device {device.name} is connected to node {id}, which corosync.conf has not"
                )
    for group in groups.values():
        for id, name in names.items():
            level = [_part(device, id, actions) for device in group if id in device.nodes]
            if level:
                levels[name].append(level)
    return msgspec.structs.replace(
        found,
        levels=levels,
        post_join_delay_ms=delay_ms,
        reboot=bool(actions) and all(action != "off" for action in actions),
        notes=(*found.notes, *notes),
    )


def _part(device: _Device, id: int, actions: list[str]) -> Part:
    parameters = {**device.parameters, **device.nodes[id]}
    actions.append(parameters.pop("action", parameters.pop("option", "reboot")))
    return Part(device.name.replace(":", "-"), device.agent, parameters)


def _pairs(where: str, words: Sequence[str]) -> dict[str, str]:
    found = {}
    for number, word in enumerate(words, 1):
        key, equals, value = word.partition("=")
        if not equals or not key:  # never quoted: it may be half a password
            raise ConfigError(f"{where}: argument {number} is not key=value", next="mend the line")
        found[key] = value
    return found


def _number(where: str, key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise ConfigError(f"{where}: {key}={value} is no number", next="mend its value")
    return int(value)
