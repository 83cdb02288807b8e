"""Values -> ringfence.toml.  What is at its default is left out; what is written loads back equal."""

import re
from typing import Any

from ringfence.config.load import Loaded
from ringfence.core.cluster import ClusterConfig, DeviceConfig, Lvmlockd, NodeConfig, Timing, Use, Volumes
from ringfence.core.evidence import DEFAULT_EVIDENCE
from ringfence.wire.block import Plane

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def render(config: Loaded | ClusterConfig) -> str:
    """The file's text.  A bare ClusterConfig renders the part that all nodes share."""
    loaded = config if isinstance(config, Loaded) else Loaded(config)
    cluster = loaded.cluster
    lines = ["[cluster]", *_pairs(name=cluster.name, version=cluster.version, ring=cluster.ring)]
    lines += _pairs(two_node=cluster.two_node or None, naive=cluster.naive or None)
    lines += _pairs(fence_action=cluster.fence_action if cluster.fence_action != "off" else None)
    lines += _pairs(fencing=cluster.fencing if cluster.fencing != "ringfence" else None)
    lines += _pairs(evidence=list(cluster.evidence) if cluster.evidence != DEFAULT_EVIDENCE else None)
    lines += _changed("timing", cluster.timing, Timing())
    lines += _changed("lvmlockd", cluster.lvmlockd, Lvmlockd())
    lines += _changed("volumes", cluster.volumes, Volumes())
    for node in cluster.nodes:
        lines += _node(node)
    for device in cluster.devices:
        lines += _device(device)
    lines += _own(loaded)
    return "\n".join(lines) + "\n"


def _changed(
    name: str, table: Timing | Lvmlockd | Volumes, default: Timing | Lvmlockd | Volumes
) -> list[str]:
    """What of a table is not at its default."""
    values = {key: getattr(table, key) for key in table.__struct_fields__}
    changed = {key: value for key, value in values.items() if value != getattr(default, key)}
    return ["", f"[{name}]", *_pairs(**changed)] if changed else []


def _node(node: NodeConfig) -> list[str]:
    name = _key(node.name)
    lines = ["", f"[node.{name}]", *_pairs(id=node.id, votes=node.votes if node.votes != 1 else None)]
    lines += _pairs(addresses=list(node.addresses) or None, fence="manual" if node.manual else None)
    lines += _pairs(fence_delay_ms=node.fence_delay_ms or None)
    for level in node.levels:
        lines += [f"[[node.{name}.level]]", *_pairs(devices=[_use(one) for one in level.devices])]
        lines += _pairs(parallel=level.parallel or None)
    return lines


def _use(one: str | Use) -> str | dict[str, str]:
    return one if isinstance(one, str) else {"device": one.device, **one.parameters}


def _device(device: DeviceConfig) -> list[str]:
    lines = ["", f"[device.{_key(device.name)}]"]
    lines += _pairs(agent=device.agent, confirms=device.confirms.value)
    lines += _pairs(timeout_ms=device.timeout_ms or None, own_supply=device.own_supply or None)
    usual = DeviceConfig(device.name, device.agent, device.confirms)
    own = {name: getattr(device, name) for name in ("sessions", "settle_ms", "looks", "look_every_ms")}
    lines += _pairs(**{name: value for name, value in own.items() if value != getattr(usual, name)})
    return lines + _pairs(parameters=device.parameters or None)


def _own(loaded: Loaded) -> list[str]:
    """This host's own part."""
    lines: list[str] = []
    if loaded.devices_paths:
        lines += ["", "[devices]", *_pairs(paths=list(loaded.devices_paths))]
    if loaded.socket_group:
        lines += ["", "[socket]", *_pairs(group=loaded.socket_group)]
    if loaded.hub_socket is not None:
        lines += ["", "[hub]", *_pairs(socket=str(loaded.hub_socket))]
    if loaded.watchdog is not None:
        pairs = _pairs(device=str(loaded.watchdog), timeout_ms=loaded.watchdog_ms or None)
        lines += ["", "[watchdog]", *pairs]
    if loaded.plane is not Plane.NBD:
        lines += ["", "[block]", *_pairs(plane=loaded.plane.value)]
    if loaded.lab:
        lines += ["", "[lab]", *_pairs(dir=loaded.lab_dir or None)]
    return lines


def _pairs(**values: Any) -> list[str]:
    """None is left out."""
    return [f"{_key(key)} = {_value(value)}" for key, value in values.items() if value is not None]


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        return f"{{ {', '.join(_pairs(**value))} }}"
    if isinstance(value, list):
        return f"[{', '.join(_value(one) for one in value)}]"
    assert isinstance(value, str)
    return f'"{"".join(_escaped(letter) for letter in value)}"'


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    return letter if ord(letter) >= 32 and letter != "\x7f" else f"\\u{ord(letter):04x}"
