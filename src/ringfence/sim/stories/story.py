"""What a story is, and all there are by their names."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ringfence.sim.faults import Devices, Fault, Typed
from ringfence.sim.power import Manner
from ringfence.sim.scheduler import Chance
from ringfence.sim.volumes import LVS

RINGS = ("hub", "totem")
Draw = Callable[[Chance, list[int]], list[Fault]]


@dataclass(frozen=True)
class Story:
    draw: Draw
    """From chance and the ids of the hosts, in an order by chance."""
    nodes: tuple[int, ...]
    """How many hosts it may be told of."""
    rings: tuple[str, ...]
    slots: bool = False
    """It is told of a world with disk slots."""
    volumes: bool = False
    """It is told of a world in which LVs change much."""
    older: bool = False
    """It begins with hosts that speak an older protocol alone."""


STORIES: dict[str, Story] = {}


def story(
    name: str,
    nodes: tuple[int, ...],
    rings: tuple[str, ...] = RINGS,
    *,
    slots: bool = False,
    volumes: bool = False,
    older: bool = False,
) -> Callable[[Draw], Draw]:
    def add(draw: Draw) -> Draw:
        assert name not in STORIES
        STORIES[name] = Story(draw, nodes, rings, slots, volumes, older)
        return draw

    return add


def draw_story(seed: int, nodes: int, story: Story) -> tuple[Fault, ...]:
    """The plan of a seed: the story, once all hosts are at work."""
    chance = Chance(random.Random(f"{seed}/story"))
    ids = list(range(1, nodes + 1))
    chance.rng.shuffle(ids)
    begins_ms = chance.rng.randrange(4000, 8000)
    faults = [fault.later(begins_ms) for fault in story.draw(chance, ids)]
    return tuple(sorted(faults, key=lambda fault: fault.at_ms))


def all_devices(node: int, manner: Manner) -> Devices:
    return Devices(node=node, bmc=manner, a=manner, b=manner)


def typed_alone(node: int, moments_ms: Iterable[int]) -> list[Fault]:
    """At each of these moments somebody at a host wants every LV for it alone."""
    return [Typed(at_ms=at_ms, node=node, verb="alone", lv=lv) for at_ms in moments_ms for lv in LVS]


def opened_by(node: int) -> list[Fault]:
    """Within a second all LVs there are are open on a host, or most."""
    made: list[Fault] = [Typed(at_ms=100 * at, node=node, verb="create", lv=lv) for at, lv in enumerate(LVS)]
    return made + typed_alone(node, (300, 600, 1000))


OPENED_MS = 1200
"""When `opened_by` is over."""
