"""Plans of faults, drawn from a seed.

A plan is a sequence of stories, each of one fault or a few that belong together, of which the design
says that it survives them.  With two nodes and no slots a lie of a fence device during a partition, or
before the survivor is lost in its turn, is outside of that; there the two are never drawn together."""

import enum
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ringfence.sim.disk import DISKS
from ringfence.sim.faults import (
    Calm,
    ClockJump,
    ClockRate,
    Cut,
    Deaf,
    Devices,
    Fault,
    FreezeDaemon,
    FreezeHost,
    FreezeRing,
    KillDaemon,
    LateOrders,
    Leave,
    MidOrder,
    MidStep,
    MidWrite,
    OwnDiskFault,
    PathCut,
    PowerOff,
    RingLost,
    RingStill,
    SharedDisk,
    Sign,
    SlowRing,
    StuckPaths,
    SwitchOff,
    Unplug,
    WallJump,
)
from ringfence.sim.host import OwnDisk
from ringfence.sim.power import Manner
from ringfence.sim.scheduler import Chance
from ringfence.sim.storage import Trouble


class Faults(enum.Enum):
    """Which faults a world suffers."""

    SWARM = "swarm"
    """A handful of kinds, by chance: each seed enables its own (swarm testing: Groce et al., ISSTA
    2012), so that rare combinations are not drowned by common ones."""
    LIAR = "liar"
    """The story of the lie, again and again: a host's devices claim that it is off, and it is only
    frozen, or cut off with its clients at work; it comes back at the worst moments."""
    RESTARTS = "restarts"
    """Daemons are killed and come back, to the volumes that they left open: soon or late, killed again
    in the middle of taking over, while others fail."""
    STORY = "story"
    """One of `stories`, once, and then peace."""


Nodes = tuple[int, ...]
Draw = Callable[[Chance, Nodes], list[Fault]]


@dataclass(frozen=True)
class Swarm:
    """A story that a swarm may enable."""

    weight: int
    draw: Draw


SWARM: dict[str, Swarm] = {}
BEYOND_TWO = (
    "cut", "switch-off", "halves", "deaf", "freeze-ring",
    "power-off", "power-off-all", "unplug", "operator", "kill-daemon", "own-disk", "mid-step", "mid-write",
)  # fmt: skip
"""What parts two nodes, or takes one away while the other, given up on a lie, is about to come back."""
LIE_PACE_MS = 5000
RESTART_PACE_MS = 5000
ONLY_QUORUM = 0.04
"""How often nothing strikes but the loss of quorum, on all sides at once: then nobody may go stale."""


def _swarm(name: str, weight: int) -> Callable[[Draw], Draw]:
    def add(draw: Draw) -> Draw:
        assert name not in SWARM
        SWARM[name] = Swarm(weight, draw)
        return draw

    return add


def draw_plan(seed: int, nodes: int, faults: Faults) -> Iterator[Fault]:
    """The plan of a seed, in the order of time, without end; the same for the same arguments."""
    assert faults is not Faults.STORY, "a story has an end: see `stories`"
    chance = Chance(random.Random(f"{seed}/{faults.value}"))
    ids = tuple(range(1, nodes + 1))
    draw = {Faults.SWARM: _swarm_of, Faults.LIAR: _liar, Faults.RESTARTS: _restarts}[faults]
    stories = draw(chance, ids)
    pending: list[Fault] = []
    for at_ms, story in stories:
        ready = [one for one in pending if one.at_ms <= at_ms]
        yield from ready
        pending = sorted([*pending[len(ready) :], *(one.later(at_ms) for one in story)], key=_when)


def _when(fault: Fault) -> int:
    return fault.at_ms


# -- a swarm ----------------------------------------------------------------------------


def _swarm_of(chance: Chance, nodes: Nodes) -> Iterator[tuple[int, list[Fault]]]:
    enabled = [name for name in SWARM if chance.chance(0.5)] or ["freeze-host"]
    if chance.chance(ONLY_QUORUM):
        enabled = ["switch-off", "halves"]
    if len(nodes) == 2 and "devices-lie" in enabled:
        beyond = [name for name in enabled if name in BEYOND_TWO]
        gone = chance.rng.choice([["devices-lie"], beyond])
        enabled = [name for name in enabled if name not in gone]
    pace_ms = chance.rng.choice([400, 1500, 4000] if len(nodes) <= 5 else [400])
    weights = [SWARM[name].weight for name in enabled]
    at_ms = 0
    while True:
        at_ms += int(chance.between(0.1, 2) * pace_ms)
        yield at_ms, SWARM[chance.rng.choices(enabled, weights)[0]].draw(chance, nodes)


@_swarm("freeze-host", 8)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [FreezeHost(node=chance.rng.choice(nodes), for_ms=_freeze_ms(chance))]


@_swarm("freeze-daemon", 3)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [FreezeDaemon(node=chance.rng.choice(nodes), for_ms=_freeze_ms(chance))]


def _freeze_ms(chance: Chance) -> int:
    return chance.rng.randrange(10, chance.rng.choice([300, 3000, 12000]))


@_swarm("kill-daemon", 4)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [KillDaemon(node=chance.rng.choice(nodes))]


@_swarm("power-off", 3)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [PowerOff(nodes=(chance.rng.choice(nodes),))]


@_swarm("power-off-all", 1)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [PowerOff(nodes=nodes)]


@_swarm("cut", 6)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    here = chance.rng.sample(nodes, chance.rng.randrange(1, len(nodes)))
    return [Cut(nodes=tuple(sorted(here)), for_ms=chance.rng.randrange(100, 10000))]


@_swarm("ring-lost", 1)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [RingLost(for_ms=chance.rng.randrange(100, 8000))]


@_swarm("switch-off", 2)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [SwitchOff(for_ms=_cut_ms(chance))]


@_swarm("halves", 2)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    """No side has a majority (but of two nodes)."""
    if len(nodes) % 2:
        return [SwitchOff(for_ms=_cut_ms(chance))]
    here = chance.rng.sample(nodes, len(nodes) // 2)
    return [Cut(nodes=tuple(sorted(here)), for_ms=_cut_ms(chance))]


def _cut_ms(chance: Chance) -> int:
    return chance.rng.randrange(50, chance.rng.choice([1000, 3000, 9000]))


@_swarm("deaf", 2)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [Deaf(node=chance.rng.choice(nodes), for_ms=chance.rng.randrange(300, 12000))]


@_swarm("path-cut", 3)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [PathCut(nodes=tuple(sorted(chance.rng.sample(nodes, 2))), for_ms=_cut_ms(chance))]


@_swarm("slow-ring", 3)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [SlowRing(worst_ms=chance.rng.choice([50, 200, 800]), for_ms=chance.rng.randrange(300, 6000))]


@_swarm("freeze-ring", 2)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [FreezeRing(node=chance.rng.choice(nodes), for_ms=_freeze_ms(chance))]


@_swarm("ring-still", 2)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [RingStill(for_ms=chance.rng.randrange(50, chance.rng.choice([1000, 4000])))]


@_swarm("devices-fail", 4)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    failing = (Manner.UNREACHABLE, Manner.HANGS, Manner.CONTRADICTED, Manner.HONEST)
    return [_spoiled(chance, nodes, failing)]


@_swarm("devices-lie", 4)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [_spoiled(chance, nodes, (Manner.LIES, Manner.LATE, Manner.WRONG_HOST, Manner.HONEST))]


def _spoiled(chance: Chance, nodes: Nodes, manners: tuple[Manner, ...]) -> Devices:
    bmc, a, b = (chance.rng.choice(manners) if chance.chance(0.6) else None for _ in range(3))
    return Devices(node=chance.rng.choice(nodes), bmc=bmc, a=a, b=b)


@_swarm("unplug", 2)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [Unplug(node=chance.rng.choice(nodes))]


@_swarm("wall-jump", 1)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    by_ms = chance.rng.choice([-1, 1]) * chance.rng.randrange(1, 10 ** chance.rng.randrange(2, 8))
    return [WallJump(node=chance.rng.choice(nodes), by_ms=by_ms)]


@_swarm("clock", 2)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    node = chance.rng.choice(nodes)
    if chance.chance(0.5):
        return [ClockJump(node=node, by_ms=chance.rng.randrange(1, 100))]
    return [ClockRate(node=node, off_ppm=chance.rng.randrange(-20_000, 20_001))]


@_swarm("own-disk", 2)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    how = chance.rng.choice([OwnDisk.SLOW, OwnDisk.SLOW, OwnDisk.FAILS])
    return [OwnDiskFault(node=chance.rng.choice(nodes), how=how, for_ms=chance.rng.randrange(100, 3000))]


@_swarm("shared-disk", 4)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    how = chance.rng.choice([Trouble.SLOW, Trouble.WRITES_FAIL, Trouble.READS_FAIL])
    for_ms = chance.rng.randrange(20, chance.rng.choice([300, 5000]))
    node, disk = chance.rng.choice(nodes), chance.rng.choice(DISKS)
    return [SharedDisk(node=node, disk=disk, how=how, for_ms=for_ms)]


@_swarm("stuck-paths", 2)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [StuckPaths(node=chance.rng.choice(nodes), for_ms=chance.rng.randrange(100, 8000))]


@_swarm("late-orders", 2)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    worst_ms = chance.rng.choice([100, 1000, 6000])
    node, for_ms = chance.rng.choice(nodes), chance.rng.randrange(500, 10000)
    return [LateOrders(node=node, worst_ms=worst_ms, for_ms=for_ms)]


@_swarm("mid-order", 3)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    order = chance.rng.choice(["open", "open", "reload", "close", "list"])
    when, how = chance.rng.choice(["given", "done"]), chance.rng.choice(["freeze", "cut", "kill", "power"])
    node, for_ms = chance.rng.choice(nodes), chance.rng.randrange(10, 5000)
    return [MidOrder(node=node, order=order, when=when, how=how, for_ms=for_ms, skip=chance.rng.randrange(4))]


@_swarm("mid-write", 5)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    how = chance.rng.choice(["freeze", "kill", "power"])
    skip, for_ms = chance.rng.randrange(12), chance.rng.randrange(10, 8000)
    return [MidWrite(node=chance.rng.choice(nodes), skip=skip, how=how, for_ms=for_ms)]


@_swarm("mid-step", 3)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    how = chance.rng.choice(["freeze", "kill", "power"])
    skip, for_ms = chance.rng.randrange(600), chance.rng.randrange(10, 8000)
    return [MidStep(node=chance.rng.choice(nodes), skip=skip, how=how, for_ms=for_ms)]


@_swarm("operator", 1)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    """An honest operator: pulls the plug, then signs."""
    node, desk = chance.rng.sample(nodes, 2)
    return [PowerOff(nodes=(node,)), Sign(at_ms=chance.rng.randrange(500, 2000), node=node, desk=desk)]


@_swarm("leave", 1)
def _(chance: Chance, nodes: Nodes) -> list[Fault]:
    return [Leave(node=chance.rng.choice(nodes))]


# -- the lie, again and again --------------------------------------------------------------


def _liar(chance: Chance, nodes: Nodes) -> Iterator[tuple[int, list[Fault]]]:
    at_ms = 0
    while True:
        at_ms += int(chance.between(0.1, 2) * LIE_PACE_MS)
        story = _lie(chance, nodes)
        yield at_ms, story
        at_ms += max(one.at_ms for one in story)  # one lie at a time


def _lie(chance: Chance, nodes: Nodes) -> list[Fault]:
    """The others give a host up wrongly; it comes back before or after they acted on that."""
    rng = chance.rng
    node = rng.choice(nodes)
    others = [one for one in nodes if one != node]
    away_ms = rng.randrange(700, rng.choice([2500, 4500, 7000]))
    faults: list[Fault] = [Devices(node=node, bmc=Manner.LIES, a=Manner.LIES, b=Manner.LIES)]
    # With two nodes the design promises nothing for a lie in a partition, or before a loss of both.
    stories = ["frozen", "writing", "cut off", "silent", "alone"]
    how = rng.choice(stories if len(others) > 1 else stories[:1])
    match how:
        case "cut off":
            faults.append(Cut(nodes=(node,), for_ms=away_ms))
        case "writing":  # a piece of its metadata is in flight
            skip = rng.randrange(3)
            faults.append(MidWrite(node=node, skip=skip, how="freeze", for_ms=away_ms, within_ms=1000))
        case "silent":  # its daemon alone; and the view changes for another reason
            faults.append(FreezeDaemon(node=node, for_ms=away_ms))
            killed_ms = int(away_ms * chance.between(0.6, 1.1))
            faults.append(KillDaemon(at_ms=killed_ms, node=rng.choice(others)))
        case _:
            faults.append(FreezeHost(node=node, for_ms=away_ms))
    if how == "alone":  # those who gave it up are gone when it comes back
        for one in others:
            faults.append(PowerOff(at_ms=int(away_ms * chance.between(0.7, 1)), nodes=(one,)))
    faults.append(Calm(at_ms=away_ms + rng.randrange(1500)))
    return sorted(faults, key=_when)


# -- daemons that come back -------------------------------------------------------------------


def _restarts(chance: Chance, nodes: Nodes) -> Iterator[tuple[int, list[Fault]]]:
    at_ms = 0
    while True:
        at_ms += int(chance.between(0.2, 2) * RESTART_PACE_MS)
        yield at_ms, _restart(chance, nodes)


def _restart(chance: Chance, nodes: Nodes) -> list[Fault]:
    """A daemon is killed, and back after a while; one story in three goes no further."""
    rng = chance.rng
    node = rng.choice(nodes)
    others = [one for one in nodes if one != node]
    away_ms = rng.randrange(20, rng.choice([300, 2000, 8000]))
    faults: list[Fault] = [KillDaemon(node=node, for_ms=away_ms)]
    moment_ms = int(away_ms * chance.between(0.5, 1.5))
    match rng.choice(["", "", "", "again", "again", "frozen", "cut off", "other", "other", "all"]):
        case "again":  # from its first step on to well after its adoption
            skip = rng.randrange(rng.choice([12, 60]))
            faults.append(MidStep(at_ms=away_ms, node=node, skip=skip, how="kill"))
        case "frozen":
            faults.append(FreezeHost(at_ms=moment_ms, node=node, for_ms=_freeze_ms(chance)))
        case "cut off":
            faults.append(Cut(at_ms=moment_ms, nodes=(node,), for_ms=_cut_ms(chance)))
        case "other":
            other = rng.choice(others)
            fall: Fault = rng.choice([
                KillDaemon(node=other, for_ms=rng.randrange(20, 4000)),
                FreezeHost(node=other, for_ms=_freeze_ms(chance)),
                PowerOff(nodes=(other,)),
            ])  # fmt: skip
            faults.append(fall.later(moment_ms))
        case "all":
            faults += [KillDaemon(at_ms=rng.randrange(300), node=one, for_ms=away_ms) for one in others]
    return sorted(faults, key=_when)
