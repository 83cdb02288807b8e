"""What goes wrong in a torture run, and when: a pure function of the seed.

Kinds are dealt from a shuffled deck, so that a run of a few minutes has them all, in an order of its
own.  A lie comes with what makes it matter: the host that is "off" is frozen, or cut off with its
clients at work, and comes back.  With two hosts fence devices fail but do not lie (see "Two nodes" in
docs/ARCHITECTURE.md)."""

import enum
import random
from collections.abc import Callable, Iterator, Sequence

import msgspec

from ringfence.core.errors import BadInput


class Kind(enum.Enum):
    FREEZE_HOST = "freeze-host"
    FREEZE_DAEMON = "freeze-daemon"
    FREEZE_HUB = "freeze-hub"
    KILL_DAEMON = "kill-daemon"
    KILL_BLOCK = "kill-block"
    KILL_CLIENT = "kill-client"
    KILL_HUB = "kill-hub"
    CUT = "cut"
    CUT_IN = "cut-inbound"
    """The host sends, and hears nothing.  These and the following only on corosync."""
    CUT_OUT = "cut-outbound"
    CUT_PAIR = "cut-pair"
    """Two hosts do not hear one another; both hear everybody else."""
    FREEZE_COROSYNC = "freeze-corosync"
    KILL_COROSYNC = "kill-corosync"
    POWER_OFF = "power-off"
    POWER_OFF_ALL = "power-off-all"
    DEVICE = "device"
    """A fence device fails or lies."""


class Fault(msgspec.Struct, frozen=True):
    at_ms: int
    """After the start."""
    kind: Kind
    for_ms: int = 0
    """Until it is mended; 0: at once, by whoever starts what has ended."""
    node: str = ""
    """"": the hub, or all hosts."""
    device: str = ""
    way: str = ""
    """As `power.Lie`."""
    other: str = ""
    """The second host of a pair."""

    def __str__(self) -> str:
        words = [self.kind.value, self.node, self.other, self.device, self.way]
        until = f" for {self.for_ms / 1000:.1f} s" if self.for_ms else ""
        return f"{self.at_ms / 1000:7.1f} s  {' '.join(word for word in words if word)}{until}"


OF_HUB = (Kind.FREEZE_HUB, Kind.KILL_HUB)
OF_COROSYNC = (Kind.CUT_IN, Kind.CUT_OUT, Kind.CUT_PAIR, Kind.FREEZE_COROSYNC, Kind.KILL_COROSYNC)
OF_ALL = (Kind.FREEZE_HUB, Kind.KILL_HUB, Kind.POWER_OFF_ALL)
LIES = (
    (Kind.FREEZE_HOST, "perfect"),
    (Kind.FREEZE_HOST, "perfect"),
    (Kind.FREEZE_HOST, "perfect"),
    (Kind.FREEZE_HOST, "say-off"),
    (Kind.FREEZE_HOST, "wrong-host"),
    (Kind.FREEZE_HOST, "ack-ignore"),
    (Kind.FREEZE_DAEMON, "perfect"),
    (Kind.CUT, "perfect"),
    (Kind.CUT, "perfect"),
    (Kind.CUT, "say-off"),
    (Kind.CUT, "late"),
)
"""Why the others give a host up that is there, and what its BMC says."""
LYING = tuple(dict.fromkeys(way for _, way in LIES))
FAILING = ("unreachable", "hang", "no-login")
SHORT_MS, LONG_MS = (200, 1500), (4000, 9000)
"""Around the detection time and the authority's; well beyond both."""
GAPS_MS = (200, 1500, 5000, 9000)
"""Before the next story: in the middle of this one, or when it may be over."""
CALM_MS = 3000
"""Between two lies: the liar's victim is fenced in earnest, boots and takes part."""
FEWEST_FOR_LIES = 3


Story = Callable[[random.Random, int, str], list[Fault]]
"""(rng, at_ms, a host) -> its faults."""
Deck = tuple[tuple[Story, int], ...]
"""Stories, and how many of each are in it."""


class Faults(enum.Enum):
    """Which stories a run has."""

    SWARM = "swarm"
    """All kinds, also in the middle of one another."""
    LIAR = "liar"
    """Lies alone, one after the other, each to its end."""


def plan(
    seed: int,
    duration_ms: int,
    nodes: Sequence[str],
    faults: Faults = Faults.SWARM,
    corosync: bool = False,
) -> tuple[Fault, ...]:
    """In the order of time.

    Args:
        corosync: is the ring; else it is the hub.

    Raises BadInput: two hosts and lies."""
    if faults is Faults.LIAR and len(nodes) < FEWEST_FOR_LIES:
        raise BadInput(
            "with two hosts the design promises nothing for lies in a partition",
            next=f"--nodes {FEWEST_FOR_LIES}",
        )
    rng = random.Random(f"torture {faults.value} {seed}")
    found: list[Fault] = []
    at_ms = 1500
    deck = COMMON + (_corosync_deck(nodes) if corosync else HUB_DECK)
    for story in _deal(rng, faults, deck, lies=len(nodes) >= FEWEST_FOR_LIES):
        if at_ms >= duration_ms:
            break
        told = story(rng, at_ms, rng.choice(nodes))
        found += told
        if faults is Faults.LIAR:
            at_ms = max(fault.at_ms + fault.for_ms for fault in told) + CALM_MS
        else:
            at_ms += int(rng.choice(GAPS_MS) * rng.uniform(0.7, 1.3))
    return tuple(sorted(found, key=lambda fault: fault.at_ms))


def _deal(rng: random.Random, faults: Faults, deck: Deck, lies: bool) -> Iterator[Story]:
    stories = [story for story, count in deck for _ in range(count) if lies or story is not _lie]
    if faults is Faults.LIAR:
        stories = [_lie_of(kind, way) for kind, way in LIES]
    while True:
        rng.shuffle(stories)
        yield from stories


def _one(kind: Kind, *spans_ms: tuple[int, int]) -> Story:
    """One fault, mended after a time from one of the spans; without spans by whoever starts things again."""

    def story(rng: random.Random, at_ms: int, node: str) -> list[Fault]:
        for_ms = rng.randint(*rng.choice(spans_ms)) if spans_ms else 0
        return [Fault(at_ms, kind, for_ms, "" if kind in OF_ALL else node)]

    return story


def _lie(rng: random.Random, at_ms: int, node: str) -> list[Fault]:
    return _lie_of(*rng.choice(LIES))(rng, at_ms, node)


def _lie_of(kind: Kind, way: str) -> Story:
    """Given up on a lie, it comes back: before its fate is decided, or after its locks have moved."""

    def story(rng: random.Random, at_ms: int, node: str) -> list[Fault]:
        away_ms = rng.randint(*rng.choice(((1500, 4000), (4500, 7500), (4500, 7500))))
        ways = {"bmc": way, **({"pdu": rng.choice(LYING)} if rng.random() < 0.4 else {})}
        lies = [
            Fault(at_ms, Kind.DEVICE, away_ms + rng.randint(300, 2500), node, device, lie)
            for device, lie in ways.items()
        ]
        return [*lies, Fault(at_ms + 50, kind, away_ms, node)]

    return story


def _fail(rng: random.Random, at_ms: int, node: str) -> list[Fault]:
    """Devices do not answer for a while, and the host must be fenced."""
    away_ms = rng.randint(3000, 7000)
    fails = [
        Fault(at_ms, Kind.DEVICE, away_ms, node, device, rng.choice(FAILING))
        for device in rng.sample(("bmc", "pdu"), rng.randint(1, 2))
    ]
    kind = rng.choice((Kind.FREEZE_HOST, Kind.POWER_OFF, Kind.CUT))
    return [*fails, Fault(at_ms + 50, kind, 0 if kind is Kind.POWER_OFF else away_ms, node)]


def _pair(nodes: Sequence[str], *spans_ms: tuple[int, int]) -> Story:
    """With three hosts corosync may deliver nothing to two of them until it is over, and say so to nobody."""

    def story(rng: random.Random, at_ms: int, node: str) -> list[Fault]:
        other = rng.choice([one for one in nodes if one != node])
        return [Fault(at_ms, Kind.CUT_PAIR, rng.randint(*rng.choice(spans_ms)), node, other=other)]

    return story


COMMON: Deck = (
    (_lie, 4),
    (_fail, 2),
    (_one(Kind.FREEZE_HOST, SHORT_MS, LONG_MS), 3),
    (_one(Kind.FREEZE_DAEMON, SHORT_MS, LONG_MS), 2),
    (_one(Kind.CUT, SHORT_MS, LONG_MS), 2),
    (_one(Kind.KILL_DAEMON), 2),
    (_one(Kind.KILL_CLIENT), 2),
    (_one(Kind.KILL_BLOCK), 1),
    (_one(Kind.POWER_OFF), 1),
    (_one(Kind.POWER_OFF_ALL), 1),
)
HUB_DECK: Deck = (
    (_one(Kind.KILL_HUB, SHORT_MS), 1),
    (_one(Kind.FREEZE_HUB, SHORT_MS), 1),
)


def _corosync_deck(nodes: Sequence[str]) -> Deck:
    return (
        (_one(Kind.CUT_IN, SHORT_MS, LONG_MS), 1),
        (_one(Kind.CUT_OUT, SHORT_MS, LONG_MS), 1),
        (_pair(nodes, SHORT_MS, LONG_MS), 2),
        (_one(Kind.FREEZE_COROSYNC, SHORT_MS, LONG_MS), 2),
        (_one(Kind.KILL_COROSYNC), 1),
    )
