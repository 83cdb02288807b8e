"""What is to be switched on: plugs of a fenced host, and a host's way to the storage when it is back.

Replicated.  Two purposes, one machine:

- *reboot* (`fence_action = "reboot"`): once a life is purged, every plug that was told "off" for it is told
  "on": what was cut last first, so that a controller has its power back before it is asked.  Any ready member
  does it, each try the next one;
- *unfence*: what confirms a storage cut (fence_scsi, fence_mpath, a switch's port) is told "on" when a life
  has been let in, and never before: a host that registers by itself takes back what fencing took from it.
  The node itself does it, for such agents act on the host on which they run.

Neither is ever evidence, and none of it blocks a lock: a host that does not come up again is fenced all the
same.  A failed try is told, and repeated after a while.

Source: FenceAgentAPI, action `on` with automatic and on_target; cman and Pacemaker fail the whole fencing,
or hide it, when only the "on" has failed."""

import enum
from collections.abc import Collection

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms, Use
from ringfence.core.ids import Life

TRIES = 20
"""Then a person is left to do it."""


class Purpose(enum.Enum):
    REBOOT = "reboot"
    UNFENCE = "unfence"


class PowerOn(msgspec.Struct, omit_defaults=True):
    life: Life
    """The life that was fenced; or, to unfence, the one that is let in."""
    purpose: Purpose
    levels: list[int] = []
    """reboot: the levels that were tried."""
    since_wall_ms: int = 0
    number: int = 0
    """Tries so far."""
    actor: int = 0
    """Who is at it; 0 = nobody."""
    failed: str = ""
    """What came of the last try, in one line."""
    next_in_ms: int = 0
    """How long after that one the next may begin."""


def uses_of(config: ClusterConfig, what: PowerOn) -> tuple[Use, ...]:
    """What is told "on", in order, each plug once."""
    levels = config.levels_of(what.life.node)
    if what.purpose is Purpose.REBOOT:
        tried = [levels[index] for index in sorted(what.levels, reverse=True) if index < len(levels)]
        return _uses(config, [use for level in tried for use in level.uses], storage=False)
    return _uses(config, [use for level in levels for use in level.uses], storage=True)


def _uses(config: ClusterConfig, uses: list[Use], *, storage: bool) -> tuple[Use, ...]:
    cuts_storage = {one.name: one.confirms is Confirms.STORAGE_CUT for one in config.devices}
    found = {use.label: use for use in reversed(uses) if cuts_storage.get(use.device) is storage}
    return tuple(reversed(found.values()))


def actor_for(what: PowerOn, ready: Collection[int]) -> int | None:
    """Whose turn the next try is."""
    if what.purpose is Purpose.UNFENCE:
        return what.life.node if what.life.node in ready else None
    able = [node for node in sorted(ready) if node != what.life.node]
    return able[what.number % len(able)] if able else None


def explain(config: ClusterConfig, what: PowerOn) -> str:
    """One line for people."""
    name = config.name_of(what.life.node)
    labels = ", ".join(use.label for use in uses_of(config, what))
    if what.purpose is Purpose.REBOOT:
        head, doing = f"{name} is fenced", "switching it on again"
    else:
        head, doing = f"{name} is in the cluster", "giving it access to the storage again"
    if what.actor:
        return f"{head}; {config.name_of(what.actor)} is {doing} ({labels})"
    if what.failed:
        later = f"in {what.next_in_ms / 1000:.1f} s" if what.next_in_ms else "at once"
        return f"{head}; {doing} failed: {what.failed}; next try {later}"
    return f"{head}; next: {doing} ({labels})"
