"""Fence devices, as this host reaches them: each was asked for its status, and nothing else."""

from collections.abc import Iterator

from ringfence.agents.commands import OWN
from ringfence.config.agents.stock import base_name
from ringfence.core.cluster import ClusterConfig, Confirms, NodeConfig
from ringfence.core.evidence import Power
from ringfence.doctor.facts import ClusterFacts, DeviceFacts
from ringfence.doctor.findings import Finding, error, note, warning

AGENT_MISSING = error(
    "agent-missing",
    "a fence agent is not installed here",
    "this host cannot fence by that device; if it is the one that must, its victim's locks wait",
)
TOLD_WRONG = error(
    "device-told-wrong",
    "a fence device is configured with what its agent does not take",
    "agents pass over what they do not know: the device looks configured, and fails when it is needed",
)
FAILS = error(
    "device-fails",
    "a fence device does not tell its status",
    "what cannot be asked cannot fence: locks of a failed host wait until another level or host can",
)
SAYS_OFF = error(
    "device-says-off",
    "a fence device says that a running host is off",
    "its plug is not that host's: fencing by it would prove nothing, and may switch off another host",
)
QUARANTINED = warning(
    "device-quarantined",
    "a fence device was caught lying",
    "it is still fired, but no longer believed: fencing needs another level",
)
DISARMED = warning(
    "fencing-disarmed",
    "fencing is disarmed",
    "no fence agent is started: what a host held that fails now waits until fencing is armed again",
)
BY_HAND = note(
    "fenced-by-hand",
    "a node has no fence device",
    "its failure waits for a person: ringfence fence confirm, at any hour",
)
UNUSED = note("device-unused", "a device is in no level of any node", "nobody would notice that it is broken")
ONE_SUPPLY = note(
    "level-one-supply",
    "both outlets of a level are on one PDU",
    "where that PDU loses power, host and device go silent together, and the level cannot pass",
    excused="a lab has one power switch",
)
KINDS = (AGENT_MISSING, TOLD_WRONG, FAILS, SAYS_OFF, QUARANTINED, DISARMED, BY_HAND, UNUSED, ONE_SUPPLY)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    cluster = facts.cluster
    if cluster is None:
        return
    for device in facts.devices:
        yield from _device(facts, cluster, device)
    for trouble in facts.troubles:
        if trouble.wrong:
            mend = trouble.next or f"mend [device.{trouble.device}]"
            yield TOLD_WRONG.at("", f"device {trouble.label}: {trouble.what}", mend)
    for name in facts.daemon.quarantined if facts.daemon is not None else ():
        what = f"device {name} is in quarantine"
        yield QUARANTINED.at("", what, f"look at its cables and its plug; then ringfence fence trust {name}")
    if facts.daemon is not None and facts.daemon.disarmed:
        yield DISARMED.at("", facts.daemon.disarmed, "ringfence fence arm, when the maintenance is over")
    used = [device for node in cluster.nodes for level in node.levels for device in level.names]
    for one in cluster.devices:
        if one.name not in used:
            mend = f"put it into a [[node.NAME.level]], or remove [device.{one.name}]"
            yield UNUSED.at("", f"device {one.name} is in no level of any node", mend)
    for node in cluster.nodes:
        yield from _levels(cluster, node)


def _device(facts: ClusterFacts, cluster: ClusterConfig, found: DeviceFacts) -> Iterator[Finding]:
    me, what = facts.me, f"{found.named} (fences {found.node}), asked from {facts.me}"
    agent = cluster.device(found.device).agent
    if found.agent_missing:
        yield AGENT_MISSING.at(
            me, f"{what}: {found.agent_missing}", f"apt install fence-agents (for {agent})"
        )
    elif found.power is Power.UNKNOWN:
        mend = f"mend its address, plug or secrets/{found.device}"
        if base_name(agent) not in OWN:
            mend += f"; by hand: echo action=status … | {agent}"
        yield FAILS.at(me, f"{what}: {found.words}", mend)
    elif found.power is Power.OFF and _runs(facts, cluster, found):
        what = f"{found.named} says that {found.node} is off, and {found.node} is a ready member"
        yield SAYS_OFF.at(me, what, f"mend its plug in [device.{found.device}], or its cables")


def _runs(facts: ClusterFacts, cluster: ClusterConfig, found: DeviceFacts) -> bool:
    ready = facts.daemon.members if facts.daemon is not None else ()
    host_power = cluster.device(found.device).confirms is not Confirms.STORAGE_CUT
    return host_power and any(node.name == found.node and node.id in ready for node in cluster.nodes)


def _levels(cluster: ClusterConfig, node: NodeConfig) -> Iterator[Finding]:
    if node.manual:
        what = f'{node.name} has fence = "manual"'
        yield BY_HAND.at("", what, f"add a device and a [[node.{node.name}.level]]")
    for number, level in enumerate(node.levels, 1):
        devices = [cluster.device(name) for name in level.names]
        outlets = [one for one in devices if one.confirms is Confirms.OUTLET_OFF]
        where = {one.parameters.get("ip") or one.parameters.get("ipaddr") or one.name for one in outlets}
        if len(outlets) > 1 and len(where) == 1:
            what = f"{node.name}'s level {number}: {', '.join(one.name for one in outlets)} are on one PDU"
            yield ONE_SUPPLY.at("", what, "feed the host's second supply from another PDU")
