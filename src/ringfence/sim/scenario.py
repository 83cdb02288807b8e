"""What a run is a function of, drawn from a seed or written down.

The file form is read by people and kept by tests: parameters, then the faults, one a line.

    # Which bug it was, and how it shows.
    mutant no-bound
    fails safety 1
    seed 6
    nodes 3
    ring totem
    clients 2
    lasts_ms 9000
    ----
    1.200 devices node=2 bmc=lies a=lies b=lies
    1.200 freeze-host node=2 for_ms=2900"""

import random
from collections.abc import Iterator
from itertools import islice

import msgspec

from ringfence.sim.faults import Fault, parse_fault
from ringfence.sim.plans import Faults, draw_plan
from ringfence.sim.power import TOPOLOGIES
from ringfence.sim.stories import RINGS, STORIES, draw_story
from ringfence.wire import MANY_LOCKS

STEPS = 4000
NODES = (2, 2, 3, 3, 3, 4, 4, 5)
OTHER_TOPOLOGY = 0.3
"""How often a seed fences in another way than the plain one.  (A story is told with the plain one.)"""
MANY = 0.03
"""How seldom a seed has more than a few nodes: what happens costs by their square."""
BY_SEED = (Faults.SWARM, Faults.SWARM, Faults.LIAR, Faults.STORY)
RESTARTS = 0.2
"""How often it is restarts instead of a swarm."""
AFTERMATH_MS = 4000
BRISK_MS = 8000
"""With `strikes`, the last fault of a swarm strikes before that."""
OLDER = MANY_LOCKS - 1
"""The last protocol that lacks entries of this one: of those since then only a meaning is another."""
RULER = "----"


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    """Of everything but the faults: delays, what clients do, clocks."""
    nodes: int
    ring: str
    clients: int = 2
    """On each host."""
    steps: int = STEPS
    """Engine steps with faults, before the world is mended; not looked at if there is `lasts_ms`."""
    lasts_ms: int = 0
    """Simulated time with faults.  (Steps are no good measure for a plan that is to be kept: what an
    engine does in one step changes.)"""
    slots: bool = False
    """Clients work under a VG with disk slots (`slotted`), and what strikes is beyond two nodes without."""
    volumes: bool = False
    """LVs are grown, renamed, and wiped in the background, and what guests write can be seen (`tenants`)."""
    speaks: int = 0
    """The newest protocol that hosts speak until they are upgraded; 0: they are."""
    faults: Faults = Faults.SWARM
    """What kind of plan to draw, where there is none."""
    topology: str = "plain"
    """How hosts are fenced (`power.TOPOLOGIES`)."""
    plan: tuple[Fault, ...] | None = None
    """In the order of time; None: drawn, without end."""

    def faults_to_come(self) -> Iterator[Fault]:
        return draw_plan(self.seed, self.nodes, self.faults) if self.plan is None else iter(self.plan)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario with its story, as a file keeps it."""

    scenario: Scenario
    about: str = ""
    mutant: str = ""
    """The rule that must be taken out of the engine for it to fail; "": it failed as the engine was."""
    fails: str = ""
    """How, as `Report.failure` says."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario by its seed: what is not said here, the seed says."""

    seed: int
    nodes: int = 0
    """0: mostly 2 to 5, seldom up to 16."""
    steps: int = STEPS
    """Of up to 7 nodes; the more there are, the less happens in as many steps."""
    strikes: int = 0
    """End soon after so many faults, instead of after `steps`."""
    faults: Faults | None = None
    story: str = ""
    """Which of `stories`, if faults is STORY (or not said)."""
    mutant: str = ""

    def scenario(self) -> Scenario:
        rng = random.Random(f"{self.seed}/scenario")
        nodes, ring, faults = rng.choice(NODES), rng.choice(RINGS), rng.choice(BY_SEED)
        if rng.random() < MANY and not self.strikes:
            nodes, faults = rng.randrange(max(NODES) + 1, 17), Faults.SWARM
        if self.strikes and faults is Faults.STORY:
            faults = Faults.SWARM  # a story has faults of its own number
        if faults is Faults.SWARM and rng.random() < RESTARTS:
            faults = Faults.RESTARTS
        faults = Faults.STORY if self.story else self.faults or faults
        if faults is Faults.STORY:
            story = STORIES[self.story or rng.choice(sorted(STORIES))]
            nodes, ring = rng.choice(story.nodes), rng.choice(story.rings)
        nodes = self.nodes or nodes
        drawn = Scenario(
            seed=self.seed,
            nodes=nodes,
            ring=ring,
            clients=2 if nodes <= max(NODES) else 1,
            steps=self.steps * max(1, nodes // 4),
            faults=faults,
        )
        aside = random.Random(f"{self.seed}/topology")  # so that nothing else of the seed's story moves
        if faults is not Faults.STORY and aside.random() < OTHER_TOPOLOGY:
            drawn = msgspec.structs.replace(drawn, topology="reboot")
        if faults is Faults.STORY:
            drawn = msgspec.structs.replace(
                drawn, slots=story.slots, volumes=story.volumes, speaks=OLDER if story.older else 0
            )
            return _planned(drawn, draw_story(self.seed, drawn.nodes, story))
        if self.strikes:
            plan = tuple(islice(drawn.faults_to_come(), self.strikes))
            return _planned(drawn, _brisk(plan) if faults is Faults.SWARM else plan)
        return drawn

    def command(self) -> str:
        """What to type, to see it again."""
        words = ["ringfence", "sim", str(self.seed)]
        for word in ("nodes", "steps", "strikes", "faults", "story", "mutant"):
            value = getattr(self, word)
            if value != getattr(_PLAIN, word):
                words += [f"--{word}", str(value.value if isinstance(value, Faults) else value)]
        return " ".join(words)


def _brisk(plan: tuple[Fault, ...]) -> tuple[Fault, ...]:
    """The same faults without long waits between them."""
    shorter = min(1.0, BRISK_MS / plan[-1].at_ms)
    return tuple(msgspec.structs.replace(fault, at_ms=int(fault.at_ms * shorter)) for fault in plan)


def _planned(scenario: Scenario, plan: tuple[Fault, ...]) -> Scenario:
    return msgspec.structs.replace(scenario, plan=plan, lasts_ms=plan[-1].at_ms + AFTERMATH_MS)


def write(kept: Kept) -> str:
    scenario = kept.scenario
    assert scenario.plan is not None, "only a plan that was played can be written down"
    lines = [f"# {line}".rstrip() for line in kept.about.splitlines()]
    for word in ("mutant", "fails"):
        if getattr(kept, word):
            lines.append(f"{word} {getattr(kept, word)}")
    plain = Scenario(seed=0, nodes=0, ring="")
    words = [
        word
        for word in _PARAMETERS
        if word not in _SELDOM or getattr(scenario, word) != getattr(plain, word)
    ]
    lines += [f"{word} {str(getattr(scenario, word)).lower()}" for word in words]
    return "\n".join([*lines, RULER, *(str(fault) for fault in scenario.plan)]) + "\n"


def read(text: str) -> Kept:
    """Raises ValueError with what is wrong with the text."""
    head, ruler, tail = text.partition(f"{RULER}\n")
    if not ruler:
        raise ValueError(f"no line {RULER!r} between the parameters and the faults")
    about, words = [], {}
    for line in head.splitlines():
        if line.startswith("#"):
            about.append(line[1:].strip())
        elif line.strip():
            word, _, value = line.partition(" ")
            words[word] = value.strip()
    kept = {word: words.pop(word) for word in ("mutant", "fails") if word in words}
    unknown = sorted({*words} - {*_PARAMETERS})
    if unknown:
        raise ValueError(f"no parameter is called {unknown[0]!r}; there are: {', '.join(_PARAMETERS)}")
    plan = [parse_fault(line) for line in tail.splitlines() if line.strip() and not line.startswith("#")]
    plan.sort(key=lambda fault: fault.at_ms)
    try:
        scenario = msgspec.convert({**words, "plan": ()}, Scenario, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    scenario = msgspec.structs.replace(scenario, plan=tuple(plan))
    if scenario.topology not in TOPOLOGIES:
        raise ValueError(f"topology is one of {', '.join(TOPOLOGIES)}")
    if scenario.ring not in RINGS or scenario.nodes < 2 or scenario.clients < 1:
        raise ValueError(f"ring is one of {', '.join(RINGS)}; there are 2 nodes or more, each with a client")
    return Kept(scenario=scenario, about="\n".join(about), **kept)


_PLAIN = Recipe(seed=0)
_SELDOM = ("topology", "slots", "volumes", "speaks")
"""Not written where they are as usual."""
_PARAMETERS = ("seed", "nodes", "ring", "clients", "lasts_ms", *_SELDOM)
