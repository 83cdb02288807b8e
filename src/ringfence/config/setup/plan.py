"""What is to be set up: one configuration for all hosts, and the devices' secrets apart from it."""

from collections.abc import Mapping, Sequence

import msgspec

from ringfence.config.agents.cautions import remarks
from ringfence.config.agents.stock import OLD_WORDS, OTHER_WAYS, Sort, base_name, stock_agent
from ringfence.config.checks import check_cluster, is_secret
from ringfence.config.corosync_conf import render_corosync
from ringfence.config.setup.nodes import family
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, Timing
from ringfence.core.cluster import Use as LevelUse
from ringfence.core.errors import BadInput
from ringfence.fencing.delays import DECIDING_MS, shoots_at_once

MOST_TRIED = 16
RESERVED = ("secrets", "NEXT.txt")
"""What stands beside the hosts' directories."""


class Use(msgspec.Struct, frozen=True):
    """One device as one level of one node uses it."""

    device: str
    """The name it should have."""
    agent: str
    parameters: dict[str, str]
    """Secrets included."""
    confirms: Confirms

    @property
    def plug(self) -> dict[str, str]:
        """What alone tells it from another use of one switch, or of one manager of many hosts."""
        stock = stock_agent(self.agent)
        if stock is not None and stock.sort not in (Sort.OUTLET, Sort.MANAGER):
            return {}
        return {key: self.parameters[key] for key in ("plug", OLD_WORDS["plug"]) if key in self.parameters}

    @property
    def parameters_without_plug(self) -> dict[str, str]:
        return {key: value for key, value in self.parameters.items() if key not in self.plug}


class Secret(msgspec.Struct, frozen=True):
    """A device's secrets file."""

    device: str
    about: str
    values: dict[str, str]
    missing: tuple[str, ...] = ()
    """Keys that a person must fill in."""

    @property
    def text(self) -> str:
        lines = [f"# {self.about}: key=value lines, for its owner's eyes alone"]
        lines += [f"{key}={value}" for key, value in self.values.items()]
        lines += [f"#{key}=" for key in self.missing]
        return "\n".join(lines) + "\n"


class Plan(msgspec.Struct, frozen=True):
    config: ClusterConfig
    disks: tuple[str, ...] = ()
    """Globs of what may carry volumes."""
    secrets: tuple[Secret, ...] = ()
    """Sorted by device; a device without any has none."""
    imported: bool = False
    """The hosts run, or ran, another cluster software."""

    @property
    def warnings(self) -> list[str]:
        """What the user must know before he trusts it."""
        config = self.config
        return [
            *_unfenced(config), *_fenced_badly(config), *_slow(config.timing), *_by_name(config),
            *_odd_hosts(config),
        ]  # fmt: skip


def plan_of(
    config: ClusterConfig,
    levels: Mapping[str, Sequence[Sequence[Use]]],
    disks: Sequence[str] = (),
    imported: bool = False,
) -> Plan:
    """Name the devices and part them from their secrets.

    Args:
        config: without devices and levels; nodes with addresses.
        levels: by node name; a node without any stays fenced by hand.
        imported: the devices worked as they are described, so no secret is missing; and so did two that
            fence each other.

    Raises:
        BadInput: the whole is no cluster that ringfence and corosync would run.
    """
    names = _Names(levels)
    devices: dict[str, DeviceConfig] = {}
    secrets: dict[str, Secret] = {}
    nodes = []
    for node in config.nodes:
        if node.name in RESERVED:
            raise BadInput(f"a host cannot be called {node.name} here", next="set it up under another name")
        mine = []
        for number, level in enumerate(levels.get(node.name, ()), 1):
            used: list[str | LevelUse] = []
            for use in level:
                name = names.of(use)
                about = f"level {number} of {node.name}"
                if names.shared(use):
                    used.append(LevelUse(name, use.plug))
                    about = f"plugs of {', '.join(names.nodes(use))}"
                    use = msgspec.structs.replace(use, parameters=use.parameters_without_plug)
                else:
                    used.append(name)
                devices.setdefault(name, _device(name, use))
                secret = _secret(name, use, f"{base_name(use.agent)}, {about}")
                if secret is not None and (secret.values or not imported):
                    secrets.setdefault(name, secret)
            mine.append(Level(tuple(used)))
        nodes.append(msgspec.structs.replace(node, levels=tuple(mine), manual=not mine))
    whole = msgspec.structs.replace(
        config, nodes=tuple(nodes), devices=tuple(devices[name] for name in sorted(devices))
    )
    if not imported and shoots_at_once(whole):
        timing = msgspec.structs.replace(whole.timing, priority_delay_ms=DECIDING_MS)
        whole = msgspec.structs.replace(whole, timing=timing)
    check_cluster(whole, lab=False)
    render_corosync(whole)  # refuses what corosync would
    return Plan(whole, tuple(disks), tuple(secrets[name] for name in sorted(secrets)), imported)


def timing_for(token_ms: int) -> Timing:
    """The usual times, but for what a quick token asks for: grants must end before the ring notices."""
    usual = Timing(token_ms=token_ms)
    grant_ms = min(usual.grant_ms, token_ms * 3 // 2)
    return msgspec.structs.replace(
        usual,
        grant_ms=grant_ms,
        heartbeat_ms=min(usual.heartbeat_ms, max(1, grant_ms // 3)),
    )


# -- devices --------------------------------------------------------------------


class _Names:
    """Use -> device.  Uses that differ in nothing but the plug are one device, whose calls stand in one queue
    and which is quarantined as a whole.  What several nodes use with other parameters becomes one device a
    node; what all use alike stays one."""

    def __init__(self, levels: Mapping[str, Sequence[Sequence[Use]]]) -> None:
        uses = [(node, use) for node, mine in levels.items() for level in mine for use in level]
        self._users: dict[tuple[str, ...], list[tuple[str, dict[str, str]]]] = {}
        """Of what would be one device without the plugs: (node, plug) of each use."""
        for node, use in uses:
            self._users.setdefault(_without_plug(use), []).append((node, use.plug))
        kinds: dict[str, list[tuple[str, ...]]] = {}
        for _, use in uses:
            known = kinds.setdefault(use.device, [])
            if self._key(use) not in known:
                known.append(self._key(use))
        self._found: dict[tuple[str, ...], str] = {}
        for node, use in uses:
            if self._key(use) not in self._found:
                self._found[self._key(use)] = self._fresh(node, use, alone=len(kinds[use.device]) == 1)

    def of(self, use: Use) -> str:
        return self._found[self._key(use)]

    def shared(self, use: Use) -> bool:
        """Whether another plug of the same device is used."""
        plugs = [plug for _, plug in self._users[_without_plug(use)]]
        return bool(use.plug) and any(plug and plug != use.plug for plug in plugs)

    def nodes(self, use: Use) -> list[str]:
        """Who has a plug of the same device, each once."""
        return list(dict.fromkeys(node for node, _ in self._users[_without_plug(use)]))

    def _key(self, use: Use) -> tuple[str, ...]:
        if self.shared(use):
            return _without_plug(use)
        return (use.device, use.agent, *_pairs(use.parameters))

    def _fresh(self, node: str, use: Use, *, alone: bool) -> str:
        name = use.device
        if self.shared(use):
            name = name.removesuffix(f"-{node}")
        elif not alone and not name.endswith(f"-{node}"):
            name = f"{name}-{node}"
        number, wanted = 1, name
        while name in self._found.values():
            number += 1
            name = f"{wanted}-{number}"
        return name


def _without_plug(use: Use) -> tuple[str, ...]:
    return ("", use.agent, use.confirms.value, *_pairs(use.parameters_without_plug))


def _pairs(parameters: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in sorted(parameters.items())]


def _device(name: str, use: Use) -> DeviceConfig:
    open_ = {key: value for key, value in use.parameters.items() if not is_secret(key)}
    stock = stock_agent(use.agent)
    return DeviceConfig(
        name, use.agent, use.confirms, open_, own_supply=stock is not None and stock.own_supply
    )


def _secret(name: str, use: Use, about: str) -> Secret | None:
    values = {key: value for key, value in use.parameters.items() if is_secret(key)}
    stock = stock_agent(use.agent)
    missing = (
        () if values or use.parameters.keys() & set(OTHER_WAYS) else stock.secrets if stock else ("password",)
    )
    if not values and not missing:
        return None
    for key, value in values.items():
        if value != value.strip() or "\n" in value or "\r" in value:
            raise BadInput(
                f"{name}: its {key} has blanks at its ends or a line break", next="change it there"
            )
    return Secret(name, about, values, missing)


# -- warnings -------------------------------------------------------------------


def _unfenced(config: ClusterConfig) -> list[str]:
    names = [node.name for node in config.nodes if node.manual]
    if not names or len(config.nodes) == 1:
        return []
    return [
        f"NO FENCE DEVICE: {', '.join(names)}. When such a host fails, everything that it held stays blocked "
        f"until a person has made sure that it is off and says so (`ringfence fence confirm NODE`), or until "
        f"it has booted again. Nothing moves by itself"
    ]


def _slow(timing: Timing) -> list[str]:
    if timing.write_ms >= timing.detection_ms:
        return []
    return [
        f"a token of {timing.token_ms} ms is slow: a host that hears nobody holds its writes after "
        f"{timing.write_ms / 1000:g} s, but the others notice it after {timing.detection_ms / 1000:g} s; "
        f"1000 ms is usual (token in corosync.conf, token_ms in ringfence.toml)"
    ]


def _by_name(config: ClusterConfig) -> list[str]:
    names = [one for node in config.nodes for one in node.addresses if family(one) is None]
    if not names:
        return []
    return [
        f"addresses by name ({names[0]}, ...): corosync looks them up when it starts, so every host should "
        f"have them in its /etc/hosts"
    ]


def _odd_hosts(config: ClusterConfig) -> list[str]:
    found = []
    dotted = [node.name for node in config.nodes if "." in node.name]
    if dotted:
        found.append(
            f"`hostname -s` prints no dot, and {', '.join(dotted)} has one: its daemon finds itself in "
            f"ringfence.toml only if `systemctl edit ringfence` says the name; give short names"
        )
    if len(config.nodes) > MOST_TRIED:
        found.append(f"{len(config.nodes)} hosts: clusters of more than {MOST_TRIED} were never tried")
    return found


def bmc_address(agent: str, parameters: Mapping[str, str]) -> str:
    """Of a management controller: it is one host's, whoever logs in and by whichever agent.  Else empty."""
    stock = stock_agent(agent)
    if stock is None or stock.sort is not Sort.BMC:
        return ""
    address = parameters.get("ip", parameters.get(OLD_WORDS["ip"], ""))
    port = parameters.get("ipport", "")
    return f"{address} port {port}" if address and port else address


def _bmc_owners(config: ClusterConfig) -> dict[str, list[str]]:
    devices = {device.name: device for device in config.devices}
    owners: dict[str, list[str]] = {}
    for node in config.nodes:
        used = [devices[name] for level in node.levels for name in level.names]
        for address in {bmc_address(one.agent, one.parameters): None for one in used}:
            if address:
                owners.setdefault(address, []).append(node.name)
    return owners


def _fenced_badly(config: ClusterConfig) -> list[str]:
    found = []
    stock = {device.name: stock_agent(device.agent) for device in config.devices}
    inside = [name for name, agent in stock.items() if agent is not None and agent.sort is Sort.BMC]
    lonely = [
        node.name
        for node in config.nodes
        if node.levels and all(name in inside for level in node.levels for name in level.names)
    ]
    if lonely:
        found.append(
            f"{', '.join(lonely)}: a management controller alone. A host that loses its power takes its "
            f"controller with it: nothing can be proven, and the others wait for a person. A switched outlet "
            f"as second level ends that"
        )
    for address, owners in _bmc_owners(config).items():
        if len(owners) > 1:
            found.append(
                f"{address} is the management controller of {' and of '.join(owners)}: it switches one host, "
                f"and would vouch for the other, which runs on; give each the address of its own"
            )
    uses = {use.label: use for node in config.nodes for level in node.levels for use in level.uses}
    for label, use in uses.items():
        device = config.device(use.device)
        refused = [one for one in remarks(device.agent, device.parameters | use.parameters) if one.refused]
        found += [f"{label}: {one.words}; {one.next}" for one in refused]
    if config.two_node and config.devices:
        found.append(
            "two nodes are safe against one lying fence device at a time, not against two; three nodes are"
        )
    return found
