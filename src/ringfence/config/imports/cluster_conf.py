"""cluster.conf of cman (RHEL 5 and 6) -> nodes, votes, fence methods in order, two_node, times.

A node's methods are levels, their devices in order; a device's own attributes go before those that a node
gives it; `off` twice and then `on` twice, as two outlets need it there, is one level here.  Source:
cluster.conf(5), fenced(8), cman(5); fenced's agent.c for who wins."""

from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from ringfence.config.agents.stock import NO_PROOF, base_name
from ringfence.config.checks import is_secret
from ringfence.config.imports.found import Found, Part, short_names
from ringfence.config.xml_tree import parse_xml
from ringfence.core.cluster import NodeConfig
from ringfence.core.errors import ConfigError

_WHY = {
    "rm": "services are not ringfence's: leave them to Pacemaker, or to libvirt",
    "quorumd": "a quorum disk's vote is not counted; its heuristics have no counterpart",
    "multicast": "knet speaks to each host by itself",
    "altmulticast": "knet speaks to each host by itself",
    "unfence": "nothing is switched on at boot: do that yourself",
    "logging": "it says nothing of the cluster",
    "dlm": "it is about the kernel's DLM, which ringfence does not use",
    "gfs_controld": "there is no cluster file system here",
    "group": "it is about groupd, which is not used",
    "uidgid": "who may speak to the daemon: [socket] group in ringfence.toml",
    "clean_start": "hosts that are absent at the first start are always fenced",
    "post_fail_delay": "a host that fails is fenced at once",
    "override_path": "a person's word: `ringfence fence confirm NODE`",
    "override_time": "a person's word: `ringfence fence confirm NODE`",
    "consensus": "ringfence counts on corosync's default, 1.2 x token",
    "expected_votes": "votes are counted from the nodes",
    "keyfile": "init makes a new key",
    "transport": "here it is knet, encrypted",
    "secauth": "here it is always on",
    "rrp_mode": "knet looks after several links by itself",
}
_UNKNOWN = "ringfence has no word for it"
_HANDLED = {
    "cluster": ("name", "config_version"),
    "cman": ("two_node",),
    "totem": ("token",),
    "fence_daemon": ("post_join_delay",),
    "clusternode": ("name", "nodeid", "votes"),
    "altname": ("name",),
    "method": ("name",),
    "fencedevice": (),
}
_PLACES = {
    "cluster": ("cman", "totem", "fence_daemon", "clusternodes", "fencedevices"),
    "clusternode": ("altname", "fence"),
    "clusternodes": ("clusternode",),
    "fencedevices": ("fencedevice",),
    "fence": ("method",),
    "method": ("device",),
}
"""What is read where; every other element is named as not carried over."""


def read_cluster_conf(file: str, data: bytes) -> Found:
    """Raises ConfigError."""
    root = parse_xml(file, data)
    if root.tag != "cluster":
        raise ConfigError(f"{file} begins with <{root.tag}>, not <cluster>", next="name another file")
    notes = [f"{file}: {note}" for note in _notes(root)]
    elements = root.findall("clusternodes/clusternode")
    if not elements:
        raise ConfigError(f"{file} has no <clusternode>", next="name another file")
    devices = {device.get("name", ""): device.attrib for device in root.findall("fencedevices/fencedevice")}
    nodes, levels, switched_on = [], {}, []
    for element in elements:
        node = _node(file, element)
        if node.name in levels:
            raise ConfigError(f"{file}: clusternode {node.name} is there twice", next="remove one")
        nodes.append(node)
        methods = [
            _method(f"{file}: {node.name}", method, devices) for method in element.findall("fence/method")
        ]
        levels[node.name] = [parts for parts, _ in methods]
        switched_on += [
            on for parts, on in methods if any(base_name(part.agent) not in NO_PROOF for part in parts)
        ]
    token_ms = _number(file, root.find("totem"), "token", 0)
    if not token_ms:
        notes.append(f"{file}: totem has no token: here it is 1000 ms; cman had 10000")
    delay = root.find("fence_daemon")
    if delay is not None and delay.get("post_join_delay") == "-1":
        notes.append(f"{file}: post_join_delay=-1 (for ever): absent hosts are fenced after the default time")
        delay = None
    if len(set(switched_on)) > 1:
        notes.append(
            f"{file}: some methods switch hosts on again, some leave them off: here all are left off"
        )
    found = Found(
        name=root.get("name", ""),
        nodes=tuple(nodes),
        levels=levels,
        two_node=_number(file, root.find("cman"), "two_node", 0) == 1,
        token_ms=token_ms,
        post_join_delay_ms=_number(file, delay, "post_join_delay", 0) * 1000,
        reboot=bool(switched_on) and all(switched_on),
        notes=tuple(notes),
    )
    return short_names(found)


def _node(file: str, element: Element) -> NodeConfig:
    name = element.get("name", "")
    if not name:
        raise ConfigError(f"{file}: a clusternode has no name", next="add it")
    if not element.get("nodeid"):
        raise ConfigError(
            f"{file}: clusternode {name} has no nodeid", next='add nodeid="NUMBER", each its own'
        )
    others = [one.get("name", "") for one in element.findall("altname")]
    return NodeConfig(
        id=_number(file, element, "nodeid", 0),
        name=name,
        votes=_number(file, element, "votes", 1),
        addresses=(name, *(one for one in others if one)),
        manual=True,
    )


def _method(where: str, method: Element, devices: Mapping[str, dict[str, str]]) -> tuple[list[Part], bool]:
    """Its parts, and whether the host is on again afterwards."""
    parts: list[Part] = []
    actions = []
    for element in method.findall("device"):
        name = element.get("name", "")
        if name not in devices:
            raise ConfigError(
                f"{where}: method {method.get('name', '?')} names {name!r}, which no fencedevice defines",
                next="define or remove it",
            )
        own = {key: value for key, value in devices[name].items() if key not in ("name", "agent")}
        parameters = {**{key: value for key, value in element.items() if key != "name"}, **own}
        old = parameters.pop("option", "reboot")
        actions.append(parameters.pop("action", old).lower())
        agent = devices[name].get("agent", "")
        if not agent:
            raise ConfigError(f"{where}: fencedevice {name} has no agent", next="add it")
        part = Part(name, agent, parameters)
        if part not in parts:  # the same outlet again, to switch it on
            parts.append(part)
    return parts, any(action not in ("off", "disable") for action in actions)


def _number(file: str, element: Element | None, key: str, default: int) -> int:
    value = element.get(key, "") if element is not None else ""
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        assert element is not None
        raise ConfigError(f"{file}: {element.tag} {key}={value!r} is no number", next="mend its value")
    return int(value)


# -- what is not read ---------------------------------------------------------------


def _notes(element: Element, of: str = "") -> Iterator[str]:
    """`of`: the node that it is about, with a blank."""
    if element.tag == "clusternode":
        of = f"{element.get('name', '?')} "
    handled = _HANDLED.get(element.tag)
    if handled is not None and element.tag != "fencedevice":
        for key, value in element.items():
            if key not in handled and not (key == "expected_votes" and element.tag == "cman"):
                shown = "" if is_secret(key) else f"={value}"
                yield f"{of}{element.tag} {key}{shown}: {_WHY.get(key, _UNKNOWN)}"
    for child in element:
        if child.tag in _PLACES.get(element.tag, ()):
            yield from _notes(child, of)
        else:
            yield f"{of}<{child.tag}>: {_WHY.get(child.tag, _UNKNOWN)}"
