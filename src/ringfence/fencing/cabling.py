"""The cabling drill: which outlet feeds which power supply of which host, found out by switching.

A switched outlet says "off", and something is off; whether it was the host that the configuration names,
no outlet can tell.  A host with two supplies can: with one outlet off at a time it runs on, and its
management controller sees exactly one supply without mains.  What is seen, of this host and of all others
whose controllers can be read, tells whether the cable is where the configuration says.

Pure: what the controllers say comes in, what it means goes out.

Source: docs/fencing.md, "Prove it before you need it"; the sensors are IPMI's "Power Supply" (type 08h),
offset 3, "Power Supply input lost (AC/DC)" (IPMI 2.0, table 42-3).  sonic-mgmt#25317: drills that took
both supplies at once rebooted their hosts; so nothing begins unless every supply is fed, and nothing goes on
until it is again."""

import enum
from collections.abc import Mapping, Sequence

import msgspec

from ringfence.core.cluster import ClusterConfig, Use
from ringfence.fencing.proving import target_of
from ringfence.wire.proving import Current, Supply

Seen = Mapping[int, Sequence[Supply]]
"""What the controllers of some nodes say, by node."""


class Cable(enum.Enum):
    CORRECT = "correct"
    SWAPPED = "swapped"
    """It feeds this host, but another supply of it than its place in the level says."""
    MOVED = "moved"
    """It feeds another host."""
    NOTHING = "nothing"
    """No controller saw anything."""
    BOTH = "both"
    """More went without mains than one supply of this host."""
    UNKNOWN = "unknown"
    """The outlet could not be switched, or the controller not be read."""


class Finding(msgspec.Struct, frozen=True):
    use: str
    cable: Cable
    what: str
    """One line for people."""


def one_outlet_twice(config: ClusterConfig, uses: Sequence[Use]) -> str:
    """Which of them are one and the same outlet: to switch it would take the host down.  Empty: none."""
    seen: dict[tuple[str, ...], str] = {}
    for use in uses:
        target = target_of(config, use) or (use.device,)
        if target in seen:
            return f"{seen[target]} and {use.label} are one outlet"
        seen[target] = use.label
    return ""


def unfit(name: str, supplies: Sequence[Supply]) -> str:
    """Why a host must not lose one of its supplies now; empty: it may."""
    if len(supplies) < 2:
        return f"{name} has {len(supplies) or 'no'} power supply that its controller tells of: two are needed"
    bad = [
        f"{one.name} ({one.words or one.current.value})" for one in supplies if one.current is not Current.FED
    ]
    return f"{name} runs on what is left already: {', '.join(bad)}" if bad else ""


def judge(
    config: ClusterConfig, node: int, uses: Sequence[Use], index: int, before: Seen, after: Seen
) -> Finding:
    """What it means that, with outlet `index` off, the controllers say `after`."""
    label, name = uses[index].label, config.name_of(node)
    lost = {one: _lost(before.get(one, ()), after.get(one, ())) for one in sorted(before)}
    mine = lost.pop(node, [])
    others = [f"{supply} of {config.name_of(one)}" for one, names in lost.items() for supply in names]
    if not mine and not others:
        what = f"{label} is off, and no controller saw a supply of {name}, or of another host, lose its mains"
        return Finding(label, Cable.NOTHING, what)
    if not mine:
        return Finding(label, Cable.MOVED, f"{label} feeds {', '.join(others)}, and nothing of {name}")
    if others or len(mine) > 1:
        fed = [*(f"{supply} of {name}" for supply in mine), *others]
        return Finding(label, Cable.BOTH, f"{label} feeds more than one supply: {', '.join(fed)}")
    names = [one.name for one in before[node]]
    at = names.index(mine[0])
    if len(names) == len(uses) and at != index:
        what = f"{label} feeds {mine[0]} of {name}; in its place in the level {names[index]} was expected"
        return Finding(label, Cable.SWAPPED, what)
    return Finding(label, Cable.CORRECT, f"{label} feeds {mine[0]} of {name}, and nothing else")


def anything_lost(before: Seen, after: Seen) -> bool:
    return any(_lost(before[node], after.get(node, ())) for node in before)


def all_back(before: Seen, after: Seen) -> bool:
    """Every supply that was fed before is fed again."""
    return all(
        {one.name: one.current for one in after.get(node, ())}.get(old.name) is Current.FED
        for node, supplies in sorted(before.items())
        for old in supplies
        if old.current is Current.FED
    )


def _lost(before: Sequence[Supply], after: Sequence[Supply]) -> list[str]:
    """Supplies that were fed and are known to be without mains; a silent controller says nothing."""
    fed = [one.name for one in before if one.current is Current.FED]
    return [one.name for one in after if one.current is Current.LOST and one.name in fed]
