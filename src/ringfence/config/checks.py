"""What a configuration must satisfy as a whole, wherever it came from (a file, or another node).

Each rule says what is wrong in the file's own words and what to change.  Why the timing rules are
as they are: docs/ARCHITECTURE.md, authority."""

import re
from collections.abc import Mapping, Sequence

from ringfence.config import pacemaker
from ringfence.config.agents.stock import NO_PROOF, base_name
from ringfence.core.cluster import (
    ClusterConfig,
    Confirms,
    DeviceConfig,
    Lvmlockd,
    NodeConfig,
    Timing,
    Volumes,
)
from ringfence.core.errors import ConfigError
from ringfence.core.evidence import EVIDENCE_WORDS, EvidenceKind
from ringfence.fencing.policy import accepts, levels_kinds

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""Names become file names, words in messages and, the cluster's, LVM2 lock_args."""
SBD = "fence_sbd"
RINGS = ("hub", "corosync")
ACTIONS = ("off", "reboot")
FENCERS = ("ringfence", "pacemaker")
MOST_LOOKS = 100
MOST_SESSIONS = 16
LARGEST_ID = 65535
LARGEST_VERSION = 2**53
"""Up to here every program reads the same number from JSON (RFC 8259, section 6)."""
LARGEST_MS = 24 * 3600 * 1000
FASTEST_MIB_S = 1 << 20
LARGEST_HOLD_MS = 1000

_SECRET = re.compile(
    r"passw|secret|token|credential|api_?key|access_?key|private_?key|community", re.IGNORECASE
)
_BY_NAME = re.compile(r"_?(script|file|path)$", re.IGNORECASE)
_OURS = ("action", "option", "nodename")


def check_cluster(config: ClusterConfig, *, lab: bool) -> None:
    """
    Args:
        lab: this host belongs to a lab; only there may protections be off.

    Raises:
        ConfigError: the first rule that is broken.
    """
    _check_cluster_table(config)
    _check_nodes(config)
    _check_devices(config)
    _check_evidence(config)
    check_timing(config.timing)
    _check_lvmlockd(config.lvmlockd)
    _check_volumes(config.volumes)
    if config.naive and not lab:
        raise ConfigError(
            "[cluster] naive = true switches every protection off and is for labs only",
            next="remove it; `ringfence lab up --naive` makes a lab with it",
        )
    if config.naive and config.ring != "hub":
        raise ConfigError('[cluster] naive needs ring = "hub"', next="remove naive")


def _check_cluster_table(config: ClusterConfig) -> None:
    check_name("[cluster] name", config.name)
    if not 1 <= config.version <= LARGEST_VERSION:
        raise ConfigError(
            f"[cluster] version = {config.version} cannot be",
            next="begin with 1, and count on by 1 with each change",
        )
    if config.ring not in RINGS:
        raise ConfigError(
            f'[cluster] ring = "{config.ring}" is not served by this version', next=_one_of(RINGS)
        )
    if config.fence_action not in ACTIONS:
        raise ConfigError(
            f'[cluster] fence_action = "{config.fence_action}" is not known', next=_one_of(ACTIONS)
        )
    if config.fencing not in FENCERS:
        raise ConfigError(f'[cluster] fencing = "{config.fencing}" is not known', next=_one_of(FENCERS))
    if config.fencing == pacemaker.NAME:
        for device in config.devices:
            if device.name == pacemaker.NAME and device.agent != pacemaker.AGENT:
                raise ConfigError(
                    f'[device.{device.name}] agent = "{device.agent}" is not how Pacemaker is asked',
                    next=f'give agent = "{pacemaker.AGENT}", or call the device otherwise',
                )
    if not config.evidence:
        raise ConfigError(
            "[cluster] evidence is empty: no lost host could ever be given up",
            next=_one_of(tuple(EVIDENCE_WORDS)),
        )
    for word in config.evidence:
        if word not in EVIDENCE_WORDS:
            raise ConfigError(
                f'[cluster] evidence: "{word}" is no kind of proof', next=_one_of(tuple(EVIDENCE_WORDS))
            )


def _check_nodes(config: ClusterConfig) -> None:
    if not config.nodes:
        raise ConfigError("no node is configured", next="add [node.NAME] with an id for every host")
    seen: dict[int, str] = {}
    names: list[str] = []
    for node in config.nodes:
        check_name(f"[node.{node.name}]", node.name)
        if node.name in names:
            raise ConfigError(f"node {node.name} is configured twice", next="remove one of the two")
        names.append(node.name)
        if not 1 <= node.id <= LARGEST_ID:
            raise ConfigError(f"[node.{node.name}] id = {node.id} cannot be", next=f"give 1 to {LARGEST_ID}")
        if node.id in seen:
            raise ConfigError(
                f"[node.{node.name}] id = {node.id} is {seen[node.id]}'s already",
                next="give each node its own",
            )
        seen[node.id] = node.name
        if not 0 <= node.votes <= LARGEST_ID:
            raise ConfigError(
                f"[node.{node.name}] votes = {node.votes} cannot be", next=f"give 0 to {LARGEST_ID}"
            )
        if not 0 <= node.fence_delay_ms <= LARGEST_MS:
            raise ConfigError(
                f"[node.{node.name}] fence_delay_ms = {node.fence_delay_ms} cannot be",
                next=f"give up to {LARGEST_MS}",
            )
        _check_levels(config, node)
    if config.votes < 1:
        raise ConfigError("no node has a vote", next="give at least one node votes = 1")
    if config.two_node and (len(config.nodes) != 2 or any(node.votes != 1 for node in config.nodes)):
        raise ConfigError(
            f"[cluster] two_node needs exactly two nodes with one vote each; there are {len(config.nodes)} "
            f"nodes with {config.votes} votes",
            next="remove two_node",
        )


def _check_levels(config: ClusterConfig, node: NodeConfig) -> None:
    if node.manual and node.levels:
        raise ConfigError(
            f'[node.{node.name}] has fence = "manual" and fence levels', next="remove one of the two"
        )
    if not node.manual and not node.levels:
        raise ConfigError(
            f"[node.{node.name}] has no fence level: it could never be given up for fenced",
            next=f'add [[node.{node.name}.level]] with devices, or fence = "manual" (a person confirms)',
        )
    for number, level in enumerate(node.levels, 1):
        where = f"[[node.{node.name}.level]] number {number}"
        if not level.devices:
            raise ConfigError(
                f"{where} has no devices", next='add devices = ["NAME", ...] or remove the level'
            )
        known = [device.name for device in config.devices]
        for use in level.uses:
            if use.device not in known:
                raise ConfigError(
                    f"{where} names device {use.device!r}, which is not configured",
                    next=f"add [device.{use.device}], or use one of: {', '.join(known) or 'none yet'}",
                )
            if level.uses.count(use) > 1:
                raise ConfigError(f"{where} names device {use.label!r} twice", next="remove one")
            _check_parameters(where, use.device, use.parameters)


def _check_evidence(config: ClusterConfig) -> None:
    """Each node can be given up on something that its own devices, or a person, may show.

    A return under a new boot is not enough: a host that is broken for good never returns."""
    for node in config.nodes:
        kinds = levels_kinds(config, node.id) or (EvidenceKind.OPERATOR,)
        if not any(accepts(kind, lied=False, naive=False, words=config.evidence) for kind in kinds):
            shows = " or ".join(dict.fromkeys(kind.value for kind in kinds))
            words = [word for word, proofs in EVIDENCE_WORDS.items() if any(kind in proofs for kind in kinds)]
            raise ConfigError(
                f"[cluster] evidence: {', '.join(config.evidence)} count nothing that [node.{node.name}] can "
                f"show ({shows}): its locks could never move",
                next=f'add "{words[0]}"',
            )


def _check_devices(config: ClusterConfig) -> None:
    for device in config.devices:
        where = f"[device.{device.name}]"
        check_name(where, device.name)
        if not device.agent:
            raise ConfigError(f"{where} agent is empty", next='name a fence agent, e.g. "fence_ipmilan"')
        if not 0 <= device.timeout_ms <= LARGEST_MS:
            raise ConfigError(
                f"{where} timeout_ms = {device.timeout_ms} cannot be", next="give 0 for the default"
            )
        for key, least, most in (
            ("sessions", 1, MOST_SESSIONS), ("looks", 1, MOST_LOOKS),
            ("settle_ms", 0, LARGEST_MS), ("look_every_ms", 0, LARGEST_MS),
        ):  # fmt: skip
            if not least <= getattr(device, key) <= most:
                raise ConfigError(
                    f"{where} {key} = {getattr(device, key)} cannot be", next=f"give {least} to {most}"
                )
        _check_self_fence(config, device)
        limit_ms = device.timeout_ms or config.timing.agent_timeout_ms
        delay = device.parameters.get("delay", "")  # whole seconds, before it switches off
        if delay.isascii() and delay.isdigit() and int(delay) * 1000 >= limit_ms:
            raise ConfigError(
                f"{where} delay = {delay} s leaves no time: a call is ended after {limit_ms} ms",
                next="lower it, or raise timeout_ms",
            )
        _check_parameters(where, device.name, device.parameters)


def _check_self_fence(config: ClusterConfig, device: DeviceConfig) -> None:
    where, name = f"[device.{device.name}]", base_name(device.agent)
    if (device.confirms is Confirms.SELF_FENCE) != (name == SBD):
        if name == SBD:
            what = f'{where} confirms = "{device.confirms.value}" is not what {SBD} shows: {NO_PROOF[SBD]}'
            raise ConfigError(what, next='give confirms = "self-fence", and see docs/fencing.md')
        raise ConfigError(
            f'{where} confirms = "self-fence" is of {SBD} alone', next="say what an off of this agent proves"
        )
    if device.confirms is not Confirms.SELF_FENCE:
        return
    if "self-fence" not in config.evidence:
        raise ConfigError(
            f"{where} would prove nothing: it rests on the watchdog of the host that is to be fenced",
            next='add "self-fence" to [cluster] evidence if you take that for proof, or remove the device',
        )
    if not device.parameters.get("devices") or not device.timeout_ms:
        raise ConfigError(
            f"{where} lacks the devices that its slots lie on, or its time",
            next='give parameters = {devices = "/dev/..."} and timeout_ms = its msgwait + 10 s',
        )


def _check_parameters(where: str, device: str, parameters: Mapping[str, str]) -> None:
    for key, value in parameters.items():
        if key in _OURS:
            raise ConfigError(f"{where} parameters may not set {key!r}", next="remove it: ringfence sets it")
        if is_secret(key):
            raise ConfigError(
                f"{where} parameters hold a secret ({key})",
                next=f"move it to secrets/{device} beside ringfence.toml as {key}=..., mode 0600",
            )
        if "\n" in key + value or "=" in key or not key:
            raise ConfigError(f"{where} parameter {key!r} cannot be handed to an agent", next="use one line")


def is_secret(key: str) -> bool:
    """Whether a fence agent's parameter of this name is a secret, rather than a file that holds one."""
    return _SECRET.search(key) is not None and _BY_NAME.search(key) is None


def check_timing(timing: Timing) -> None:
    positive = ("heartbeat_ms", "token_ms", "grant_ms", "silent_ms", "write_ms", "agent_timeout_ms")
    for name in timing.__struct_fields__:
        value = getattr(timing, name)
        if not (1 if name in positive else 0) <= value <= LARGEST_MS:
            raise ConfigError(f"[timing] {name} = {value} cannot be", next=f"give up to {LARGEST_MS}")
    if timing.min_hold_ms > LARGEST_HOLD_MS:
        raise ConfigError(
            f"[timing] min_hold_ms = {timing.min_hold_ms} lets other nodes wait for too long",
            next=f"give up to {LARGEST_HOLD_MS}; 0 switches it off",
        )
    rules = (
        (
            timing.grant_ms < timing.detection_ms,
            f"grant_ms = {timing.grant_ms} must be below the ring's detection time, 2.2 x token_ms = "
            f"{timing.detection_ms}: or a node could still report grants after the others went on",
            "lower grant_ms or raise token_ms",
        ),
        (
            timing.write_ms >= timing.grant_ms,
            f"write_ms = {timing.write_ms} must not be below grant_ms = {timing.grant_ms}",
            "raise write_ms (default: 4500)",
        ),
        (
            2 * timing.heartbeat_ms <= timing.grant_ms,
            f"grant_ms = {timing.grant_ms} must be at least two heartbeats of {timing.heartbeat_ms}: or "
            f"every late one stops the node",
            "lower heartbeat_ms or raise grant_ms",
        ),
        (
            timing.silent_ms > 2 * timing.heartbeat_ms,
            f"silent_ms = {timing.silent_ms} must be above two heartbeats of {timing.heartbeat_ms}",
            "raise silent_ms (default: 3000)",
        ),
    )
    for holds, what, cure in rules:
        if not holds:
            raise ConfigError(f"[timing] {what}", next=cure)


def _check_lvmlockd(limits: Lvmlockd) -> None:
    for name, value in (("vg_wait_ms", limits.vg_wait_ms), ("lv_wait_ms", limits.lv_wait_ms)):
        if not 0 <= value <= LARGEST_MS:
            raise ConfigError(f"[lvmlockd] {name} = {value} cannot be", next=f"give up to {LARGEST_MS}")


def _check_volumes(volumes: Volumes) -> None:
    if not 0 <= volumes.wipe_mib_s <= FASTEST_MIB_S:
        raise ConfigError(
            f"[volumes] wipe_mib_s = {volumes.wipe_mib_s} cannot be",
            next=f"give up to {FASTEST_MIB_S}, or 0: as fast as the devices take it",
        )


def check_name(where: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: {name!r} cannot be a name",
            next="use letters, digits, dot, dash and underscore, 63 at most",
        )


def _one_of(words: Sequence[str]) -> str:
    return "give " + " or ".join(f'"{word}"' for word in words)
