"""Stories of two hosts with disk slots."""

from ringfence.sim.faults import (
    Cut,
    Fault,
    FreezeHost,
    SlotArray,
    SlotRot,
)
from ringfence.sim.power import Manner
from ringfence.sim.scheduler import Chance
from ringfence.sim.stories.story import all_devices, story


@story("slots-lie", nodes=(2,), slots=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Two are parted; one half is given up on a lie, by one whose array hangs for so long: it sees no slot
    move, and cannot mark the other before its array is back."""
    a, b = nodes
    rng = chance.rng
    return [
        all_devices(a, Manner.UNREACHABLE),
        all_devices(b, Manner.LIES),
        SlotArray(node=a, how="dead", for_ms=rng.randrange(1500, 7000)),
        Cut(nodes=(a,), for_ms=rng.randrange(9000, 13000)),
    ]


@story("slots-two-lies", nodes=(2,), slots=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Both halves are given up on a lie, each by one whose array hangs for a while, perhaps for long."""
    a, b = nodes
    rng = chance.rng
    return [
        *(all_devices(node, Manner.LIES) for node in nodes),
        SlotArray(node=a, how="dead", for_ms=rng.randrange(1000, 3000)),
        SlotArray(node=b, how="dead", for_ms=rng.randrange(1000, 9000)),
        Cut(nodes=(a,), for_ms=rng.randrange(9000, 13000)),
    ]


@story("slots-hang", nodes=(2,), slots=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """The array hangs for one half, which is given up on a lie, just when the other half's is back: it is
    marked and cannot read so."""
    a, b = nodes
    rng = chance.rng
    back_ms = rng.randrange(1500, 4000)
    return [
        all_devices(a, Manner.UNREACHABLE),
        all_devices(b, Manner.LIES),
        SlotArray(node=a, how="dead", for_ms=back_ms),
        SlotArray(at_ms=back_ms - rng.randrange(300), node=b, how="dead", for_ms=5000),
        Cut(nodes=(a,), for_ms=12000),
    ]


@story("slots-slow", nodes=(2,), slots=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One half is given up on a lie, marked, and followed by the other, while it is frozen in the middle of
    reading its mark: when it thaws, the answer that it gets is of long ago."""
    a, b = nodes
    rng = chance.rng
    frozen_ms, away_ms = rng.randrange(1200, 2500), rng.randrange(6000, 8500)
    return [
        all_devices(a, Manner.UNREACHABLE),
        all_devices(b, Manner.LIES),
        SlotArray(node=a, how="dead", for_ms=rng.randrange(900, 1600)),
        SlotArray(node=b, how="slow", for_ms=frozen_ms + away_ms - 50),
        Cut(nodes=(a,), for_ms=13000),
        FreezeHost(at_ms=frozen_ms, node=b, for_ms=away_ms),
        SlotArray(at_ms=frozen_ms + away_ms - 20, node=b, how="dead", for_ms=4000),
    ]


@story("slots-wake-alone", nodes=(2,), slots=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One is given up on a lie and marked while it is frozen; it wakes alone, and could shoot the other.
    Perhaps its mark has rotted meanwhile."""
    a, b = nodes
    rng = chance.rng
    away_ms = rng.randrange(6000, 8000)
    story: list[Fault] = [
        all_devices(b, Manner.LIES),
        FreezeHost(node=b, for_ms=away_ms),
        Cut(at_ms=away_ms - 500, nodes=(b,), for_ms=8000),
    ]
    if chance.chance(0.5):
        story.append(SlotRot(at_ms=away_ms - 300, node=b))
        story.append(all_devices(a, Manner.UNREACHABLE))
    return story
