"""A drill: fencing, or a part of it, tried in earnest.  One at a time in a cluster, and known to all.

That it goes on stands in the ordered state, so that whoever is left knows that outlets may be off when the
member that switched them is lost: its successor switches them on again."""

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms, Use
from ringfence.core.ids import Life
from ringfence.wire.proving import DrillKind

IPMI_AGENTS = (
    "fence_ipmilan", "fence_ipmilanplus", "fence_idrac", "fence_imm", "fence_ilo3", "fence_ilo4",
    "fence_ilo5",
)  # fmt: skip
"""Agents of controllers that speak IPMI, whose sensors can be read."""


class Drill(msgspec.Struct):
    kind: DrillKind
    life: Life
    """Of the drilled node when it began."""
    actor: Life
    """Who switches."""
    level: int
    """From 0."""
    who: str
    """Who wants it."""
    began_wall_ms: int = 0
    attempted: bool = False
    """Destructive: its level has been run; whatever is still to be fenced is so by others."""


def uses_of(config: ClusterConfig, drill: Drill) -> tuple[Use, ...]:
    """What the drill switches; empty if that is not configured any more."""
    levels = config.levels_of(drill.life.node)
    uses = levels[drill.level].uses if drill.level < len(levels) else ()
    if drill.kind is DrillKind.DESTRUCTIVE:
        return uses
    return tuple(one for one in uses if _confirms(config, one) is Confirms.OUTLET_OFF)


def controllers(config: ClusterConfig) -> dict[int, Use]:
    """Each node's management controller, as far as its sensors can be read, by node."""
    found: dict[int, Use] = {}
    for node in config.nodes:
        for use in (one for level in node.levels for one in level.uses):
            agent = next((one.agent for one in config.devices if one.name == use.device), "")
            sees_host = _confirms(config, use) is Confirms.HOST_OFF
            if sees_host and agent.rpartition("/")[2] in IPMI_AGENTS:
                found.setdefault(node.id, use)
    return found


def cabling_level(config: ClusterConfig, node: int) -> int | None:
    """The first level in which two or more outlets feed the node; None: there is none."""
    for number, level in enumerate(config.levels_of(node)):
        outlets = [one for one in level.uses if _confirms(config, one) is Confirms.OUTLET_OFF]
        if len(outlets) >= 2:
            return number
    return None


def power_level(config: ClusterConfig, node: int, level: int) -> bool:
    """Whether the level cuts a host's power: what only cuts its storage leaves it running."""
    uses = config.levels_of(node)[level].uses
    return all(_confirms(config, one) is not Confirms.STORAGE_CUT for one in uses)


def _confirms(config: ClusterConfig, use: Use) -> Confirms | None:
    return next((one.confirms for one in config.devices if one.name == use.device), None)
