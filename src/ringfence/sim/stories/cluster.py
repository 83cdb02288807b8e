"""Stories of hosts, views, fences and people."""

from ringfence.sim.disk import DISKS
from ringfence.sim.faults import (
    AnotherMachine,
    Calm,
    ClockRate,
    Cut,
    Disarm,
    Fault,
    FreezeDaemon,
    FreezeHost,
    FreezeReady,
    FreezeRenewed,
    FreezeWriter,
    HandBack,
    HandOver,
    KillDaemon,
    Leave,
    LockStop,
    Order,
    PowerOff,
    RingStill,
    Sign,
    SlotArray,
    SlowRing,
    SwitchOff,
    Typed,
)
from ringfence.sim.power import Manner
from ringfence.sim.scheduler import Chance
from ringfence.sim.stories.story import OPENED_MS, all_devices, opened_by, story, typed_alone
from ringfence.sim.volumes import LVS


@story("later-epoch", nodes=(3,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A newcomer is let in by one who forgets it, in a view that the third never heard begin.

    `c` has said that it is ready, and freezes; the newcomer `a` is at work in the view; then `b` dies and
    comes back to `c`, who carries a state without the newcomer.  Only the disk of `b` knows better."""
    a, b, c = nodes
    rng = chance.rng
    back_ms = rng.randrange(5000, 8000)
    return [
        PowerOff(nodes=(a,), for_ms=back_ms),
        FreezeReady(at_ms=back_ms, node=c, for_ms=rng.randrange(1000, 1300), forgets=True),
        KillDaemon(at_ms=back_ms + rng.randrange(600, 850), node=b, for_ms=rng.randrange(50, 400)),
        Cut(at_ms=back_ms + rng.randrange(600, 850), nodes=(a,), for_ms=8000),
    ]


@story("each-other", nodes=(2,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Two that were parted for just long enough to call each other victims."""
    return [
        *(all_devices(node, Manner.UNREACHABLE) for node in nodes),
        Cut(nodes=(1,), for_ms=chance.rng.randrange(900, 2500)),
    ]


@story("lie-apart", nodes=(2,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Two are parted, and one half is given up on a lie; it cannot fence the other one."""
    a, b = nodes
    return [
        all_devices(a, Manner.UNREACHABLE),
        all_devices(b, Manner.LIES),
        Cut(nodes=(a,), for_ms=chance.rng.randrange(5000, 8000)),
    ]


@story("slow-word", nodes=(3, 4))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A person's word about a loss reaches the daemon after the next loss of the same host."""
    a, b, *_ = nodes
    rng = chance.rng
    off_ms, signed_ms = rng.randrange(2500, 5000), rng.randrange(1200, 2000)
    lost_ms = off_ms + rng.randrange(3500, 6000)
    return [
        all_devices(a, Manner.UNREACHABLE),
        PowerOff(nodes=(a,), for_ms=off_ms),
        Sign(at_ms=signed_ms, node=a, desk=b, slow_ms=lost_ms - signed_ms + rng.randrange(900, 2500)),
        FreezeHost(at_ms=lost_ms, node=a, for_ms=rng.randrange(4000, 8000)),
    ]


@story("suspected", nodes=(3,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One was called silent, and perhaps given up on a lie, in a view that goes on; all who know that are
    gone or have forgotten when it comes back."""
    a, b, c = nodes
    rng = chance.rng
    gone_ms = rng.randrange(6500, 9000)
    return [
        all_devices(b, rng.choice([Manner.LIES, Manner.UNREACHABLE])),
        FreezeDaemon(node=b, for_ms=gone_ms + 1300),
        FreezeHost(at_ms=gone_ms, node=b, for_ms=rng.randrange(1000, 1400), forgets=True),
        KillDaemon(at_ms=gone_ms + rng.randrange(300, 700), node=a, for_ms=rng.randrange(50, 300)),
        Cut(at_ms=gone_ms + rng.randrange(300, 700), nodes=(c,), for_ms=6000),
        Calm(at_ms=gone_ms + 7000),
    ]


@story("frozen-half", nodes=(2,), rings=("totem",))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One of two was given up on a lie, and wakes in a view of itself alone; that it is marked it cannot
    read."""
    a, b = nodes
    away_ms = chance.rng.randrange(3800, 7000)
    back_ms = OPENED_MS + away_ms
    return [
        *opened_by(a),
        all_devices(a, Manner.LIES),
        FreezeHost(at_ms=OPENED_MS, node=a, for_ms=away_ms),
        *typed_alone(b, range(OPENED_MS + 2500, back_ms + 500, 600)),
        SlotArray(at_ms=back_ms - 100, node=a, how="dead", for_ms=3000, disks=DISKS),
        Calm(at_ms=back_ms + chance.rng.randrange(1500)),
    ]


@story("cold-start", nodes=(3, 4))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Most lose power; one of the others is cut off with its locks when the rest begins afresh."""
    a, *others = nodes
    rng = chance.rng
    return [
        all_devices(a, Manner.UNREACHABLE),
        Cut(nodes=(a,), for_ms=rng.randrange(4000, 9000)),
        PowerOff(nodes=tuple(others), for_ms=rng.randrange(50, 600)),
    ]


@story("left-and-back", nodes=(3,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One leaves cleanly, and comes back while another is off; then it is cut off with its locks, and that
    other one, whose disk remembers it as cleanly out, is among those who begin afresh."""
    a, b, c = nodes
    rng = chance.rng
    off_ms, back_ms = rng.randrange(100, 1500), rng.randrange(5000, 10000)
    cut_ms = off_ms + back_ms - rng.randrange(100, 1000)
    return [
        *(Typed(node=b, verb="create", lv=lv) for lv in LVS),
        *typed_alone(a, range(off_ms + 1500, cut_ms, 500)),
        *typed_alone(c, range(cut_ms + 1000, cut_ms + 3000, 300)),
        Leave(at_ms=50, node=a),
        PowerOff(at_ms=off_ms, nodes=(c,), for_ms=back_ms),
        all_devices(a, Manner.UNREACHABLE).later(cut_ms),
        Cut(at_ms=cut_ms, nodes=(a,), for_ms=9000),
        PowerOff(at_ms=cut_ms + rng.randrange(50, 600), nodes=(b,), for_ms=rng.randrange(300, 900)),
    ]


@story("all-apart", nodes=(3, 4), rings=("totem",))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """No view is primary any more, nor any other, until all meet again; one has missed the end of the
    last primary one, and has heard itself alone instead."""
    rng = chance.rng
    deaf_ms = rng.choice([0, rng.randrange(100), rng.randrange(900)])
    frozen_ms = rng.randrange(900, 1300)
    apart_ms = deaf_ms + rng.randrange(0, 850)
    return [
        FreezeDaemon(node=nodes[0], for_ms=deaf_ms + frozen_ms),
        FreezeHost(at_ms=deaf_ms, node=nodes[0], for_ms=frozen_ms),
        SwitchOff(at_ms=apart_ms, for_ms=max(100, deaf_ms + frozen_ms - apart_ms + rng.randrange(50, 300))),
    ]


@story("thaws-apart", nodes=(3, 4), rings=("totem",))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One is frozen, and thaws while all are apart, just when it hears fresh words of its own among the late
    ones: it takes in what it alone has heard, and what the others had ordered at the end it has not."""
    rng = chance.rng
    host_ms = rng.randrange(200, 900)
    return [
        FreezeDaemon(node=nodes[0], for_ms=rng.randrange(1400, 2400)),
        FreezeHost(at_ms=host_ms, node=nodes[0], for_ms=rng.randrange(1000, 1600)),
        SwitchOff(at_ms=host_ms + rng.randrange(30, 300), for_ms=rng.randrange(1000, 1800)),
    ]


@story("ragged-ends", nodes=(3,), rings=("totem",))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """All thaw while all are apart, again and again: each takes in words of its own that nobody else has
    heard, and perhaps lacks what the others had ordered at the end."""
    rng = chance.rng
    faults: list[Fault] = []
    for at_ms in range(0, 24_000, 4000):
        host_ms = at_ms + rng.randrange(900, 1300)
        apart_ms = host_ms + rng.randrange(30, 300)
        thaws_ms = host_ms + rng.randrange(1000, 1400)
        for node in nodes:
            begins_ms = rng.randrange(at_ms, host_ms)
            lv, other = rng.sample(LVS, 2)
            faults += [
                Typed(at_ms=begins_ms - 300, node=node, verb="create", lv=lv),
                FreezeDaemon(at_ms=begins_ms, node=node, for_ms=thaws_ms - begins_ms + 20),
                FreezeHost(at_ms=host_ms, node=node, for_ms=thaws_ms - host_ms),
                Typed(at_ms=host_ms + 100, node=node, verb="alone", lv=lv),
                Typed(at_ms=host_ms + 100, node=node, verb="off", lv=other),
            ]
        faults.append(SwitchOff(at_ms=apart_ms, for_ms=thaws_ms - apart_ms + rng.randrange(50, 200)))
    return sorted((fault.later(300) for fault in faults), key=lambda fault: fault.at_ms)


@story("unheard-of", nodes=(3, 4), rings=("totem",))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Who has just begun to write a value is frozen, again and again, and gives its lock back when all are
    apart: nobody else hears of that, and it has not heard what the others had ordered at the end."""
    rng = chance.rng
    faults: list[Fault] = []
    for at_ms in range(0, 30_000, 6000):
        host_ms = rng.randrange(300, 900)
        apart_ms = host_ms + rng.randrange(30, 300)
        for_ms = host_ms + rng.randrange(890, 1300)
        apart_for_ms = for_ms - apart_ms + rng.randrange(50, 400)
        faults.append(
            FreezeWriter(
                at_ms=at_ms, for_ms=for_ms, host_ms=host_ms, apart_ms=apart_ms, apart_for_ms=apart_for_ms
            )
        )
    return faults


@story("quorum-gone", nodes=(4,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Two and two for a while, without any other change."""
    a, b, *_ = nodes
    return [Cut(nodes=(a, b), for_ms=chance.rng.randrange(500, 3000))]


@story("parted-again", nodes=(3, 4), rings=("totem",))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Nobody has a majority, again and again; each time the last messages may be told to some alone."""
    a, b, *_ = nodes
    rng = chance.rng
    faults: list[Fault] = []
    for number in range(4):
        at_ms, for_ms = 5000 * number + rng.randrange(1000), rng.randrange(1000, 3000)
        if len(nodes) == 4 and chance.chance(0.5):
            faults.append(Cut(at_ms=at_ms, nodes=(a, b), for_ms=for_ms))
        else:
            faults.append(SwitchOff(at_ms=at_ms, for_ms=for_ms))
    return faults


@story("quick-return", nodes=(3,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One is given up on a lie, and those who did that start anew right after: they remember whom, and not
    when they last heard it."""
    a, b, c = nodes
    rng = chance.rng
    gone_ms = OPENED_MS + rng.randrange(910, 960)
    return [
        *opened_by(a),
        all_devices(a, Manner.LIES),
        ClockRate(node=a, off_ppm=-20_000),
        FreezeRenewed(at_ms=OPENED_MS, node=a, for_ms=rng.randrange(3000, 6000)),
        *(KillDaemon(at_ms=gone_ms, node=one, for_ms=rng.randrange(10, 30)) for one in (b, c)),
        *typed_alone(b, range(gone_ms + 200, gone_ms + 1800, 200)),
        Calm(at_ms=8000),
    ]


@story("slow-barrier", nodes=(3,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One was given up on a lie and is back, and the barrier of the view in which it is takes long.  What it
    had open, another has opened since, and that it is marked it cannot read."""
    a, b, c = nodes
    rng = chance.rng
    gone_ms = rng.randrange(OPENED_MS, 1500)
    away_ms = rng.randrange(3800, 6000)
    back_ms = gone_ms + away_ms
    return [
        *opened_by(a),
        *typed_alone(b, range(gone_ms + 2500, back_ms, 600)),
        all_devices(a, Manner.LIES),
        FreezeHost(at_ms=gone_ms, node=a, for_ms=away_ms),
        SlotArray(at_ms=back_ms - 100, node=a, how="dead", for_ms=3000, disks=DISKS),
        FreezeDaemon(at_ms=back_ms - rng.randrange(20), node=c, for_ms=rng.randrange(600, 1300)),
        Calm(at_ms=back_ms + 3000),
    ]


@story("left-out", nodes=(3, 4))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A daemon stands still, and its host is in the ring, while views begin; it goes on late, and may have
    been given up on a lie by then."""
    a, b, *_ = nodes
    rng = chance.rng
    away_ms = rng.randrange(4000, 9000)
    return [
        all_devices(a, rng.choice([Manner.LIES, Manner.UNREACHABLE, Manner.UNREACHABLE])),
        FreezeDaemon(node=a, for_ms=away_ms),
        KillDaemon(at_ms=rng.randrange(20, 900), node=b, for_ms=rng.randrange(50, 400)),
        Calm(at_ms=away_ms + 2000),
    ]


@story("clocks", nodes=(2, 3))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Clocks are as unequal as they may be, and one is given up on a lie."""
    a, *others = nodes
    return [
        ClockRate(node=a, off_ppm=-20_000),
        *(ClockRate(node=one, off_ppm=20_000) for one in others),
        all_devices(a, Manner.LIES),
        FreezeRenewed(node=a, for_ms=chance.rng.randrange(3000, 5000)),
        Calm(at_ms=5000),
    ]


@story("newcomer-elsewhere", nodes=(3, 4))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A host hangs and cannot be fenced; somebody puts another machine in its place."""
    a, *_ = nodes
    rng = chance.rng
    off_ms, there_ms = rng.randrange(1200, 3000), rng.randrange(3000, 6000)
    return [
        all_devices(a, Manner.UNREACHABLE),
        FreezeHost(node=a, for_ms=off_ms + there_ms + rng.randrange(500, 3000)),
        AnotherMachine(at_ms=off_ms, node=a, for_ms=there_ms),
    ]


@story("stopped", nodes=(2, 3))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A host cannot be fenced; on the others somebody stops the volume group, and starts it again."""
    a, *others = nodes
    rng = chance.rng
    faults: list[Fault] = [
        all_devices(a, Manner.UNREACHABLE),
        FreezeHost(node=a, for_ms=rng.randrange(8000, 14000)),
    ]
    for at_ms in range(1500, 9000, 500):
        faults += [LockStop(at_ms=at_ms + rng.randrange(200), node=one) for one in others]
    return sorted(faults, key=lambda fault: fault.at_ms)


@story("handed-over", nodes=(2, 3))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """LVs go to and fro, some of them prepared; giver or taker is struck in the middle."""
    a, b, *_ = nodes
    rng = chance.rng
    faults: list[Fault] = []
    for at_ms in range(0, 20_000, 500):
        taker, prepare = rng.choice(nodes), rng.random() < 0.3
        faults.append(HandOver(at_ms=at_ms + rng.randrange(300), node=taker, prepare=prepare))
        if rng.random() < 0.2:
            faults.append(HandBack(at_ms=at_ms + rng.randrange(500)))
    for at_ms in range(1000, 20_000, 5000):
        at_ms += rng.randrange(2000)
        faults.append(
            rng.choice([
                KillDaemon(at_ms=at_ms, node=a, for_ms=rng.randrange(50, 900)),
                KillDaemon(at_ms=at_ms, node=b, for_ms=rng.randrange(50, 900)),
                FreezeHost(at_ms=at_ms, node=a, for_ms=rng.randrange(200, 4000)),
                FreezeHost(at_ms=at_ms, node=b, for_ms=rng.randrange(200, 4000)),
                Cut(at_ms=at_ms, nodes=(a,), for_ms=rng.randrange(200, 3000)),
                PowerOff(at_ms=at_ms, nodes=(b,), for_ms=rng.randrange(2000, 4000)),
            ])
        )  # fmt: skip
    return sorted(faults, key=lambda fault: fault.at_ms)


@story("majorities", nodes=(4,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Quorum is lost, and comes back with others: of the last who had it one is missing."""
    a, b, *others = nodes
    rng = chance.rng
    apart_ms = rng.randrange(1500, 4000)
    alone_ms = rng.randrange(2000, 5000)
    return [
        all_devices(a, Manner.UNREACHABLE),
        Cut(nodes=(b, *others[:1]), for_ms=apart_ms),
        Cut(at_ms=apart_ms - 200, nodes=(a,), for_ms=alone_ms + 3000),
        FreezeHost(at_ms=apart_ms + alone_ms, node=others[1], for_ms=rng.randrange(20, 1500)),
    ]


@story("hub-stood-still", nodes=(2, 3, 4), rings=("hub",))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """The hub stands still, again and again, and then delivers one member's backlog before another's."""
    rng = chance.rng
    return [RingStill(at_ms=at_ms, for_ms=rng.randrange(1400, 4000)) for at_ms in range(0, 30_000, 6000)]


@story("alone-for-long", nodes=(2,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One of two loses power for good: the other has no authority, and must fence it all the same."""
    return [PowerOff(nodes=(nodes[0],), for_ms=40_000), Calm(at_ms=30_000)]


@story("others-come", nodes=(5,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A host cannot be fenced; meanwhile another one goes, and comes back."""
    a, b, *_ = nodes
    rng = chance.rng
    return [
        all_devices(a, Manner.UNREACHABLE),
        FreezeHost(node=a, for_ms=rng.randrange(6000, 9000)),
        KillDaemon(at_ms=rng.randrange(1000, 1500), node=b, for_ms=rng.randrange(200, 2500)),
    ]


@story("late-words", nodes=(3, 4))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Views change again and again in a ring that is slow: much of what is said in one comes in another."""
    rng = chance.rng
    faults: list[Fault] = [SlowRing(worst_ms=rng.choice([20, 60, 200]), for_ms=12_000)]
    for at_ms in range(200, 11_000, 700):
        one = rng.choice(nodes)
        kill = KillDaemon(at_ms=at_ms, node=one, for_ms=rng.randrange(10, 100))
        faults.append(kill if chance.chance(0.4) else SwitchOff(at_ms=at_ms, for_ms=rng.randrange(50, 400)))
    return faults


@story("quick-boots", nodes=(3, 4), rings=("hub",))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A host loses power, is back and loses it again, before its first life can be given up; a person's word
    is about that one."""
    a, b, *_ = nodes
    rng = chance.rng
    off_ms = rng.randrange(400, 700)
    lost_ms = off_ms + rng.randrange(150, 500)
    signed_ms = rng.randrange(150, off_ms - 50)
    return [
        all_devices(a, Manner.UNREACHABLE),
        PowerOff(nodes=(a,), for_ms=off_ms),
        Sign(at_ms=signed_ms, node=a, desk=b, slow_ms=lost_ms - signed_ms + rng.randrange(100, 800)),
        PowerOff(at_ms=lost_ms, nodes=(a,), for_ms=rng.randrange(4000, 8000)),
    ]


@story("old-memory", nodes=(2,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Two were parted and called each other victims; one goes on, and the other comes back with nothing but
    its memory of that."""
    _, b = nodes
    rng = chance.rng
    return [
        *(all_devices(node, Manner.UNREACHABLE) for node in nodes),
        Cut(nodes=(1,), for_ms=rng.randrange(2500, 4000)),
        PowerOff(at_ms=rng.randrange(1200, 2400), nodes=(b,), for_ms=rng.randrange(1500, 4000)),
    ]


@story("contradicted", nodes=(2, 3))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Devices say that they have done it, and say themselves that they have not."""
    a, *_ = nodes
    return [
        all_devices(a, Manner.CONTRADICTED),
        FreezeHost(node=a, for_ms=chance.rng.randrange(2000, 8000)),
        Calm(at_ms=6000),
    ]


@story("quick-lie", nodes=(3, 4), rings=("hub",))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A host lost power and is back; its next life is called fenced on a lie, and heard again, before the
    first can be given up."""
    a, *_ = nodes
    rng = chance.rng
    off_ms = rng.randrange(300, 500)
    return [
        all_devices(a, Manner.LIES),
        PowerOff(nodes=(a,), for_ms=off_ms),
        FreezeHost(at_ms=off_ms + rng.randrange(80, 250), node=a, for_ms=rng.randrange(1200, 1700)),
        Calm(at_ms=6000),
    ]


@story("was-away", nodes=(3,))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One was parted from the others; when it is back one of these is given up on a lie, and it has not
    heard that one for long."""
    a, _, c = nodes
    away_ms = chance.rng.randrange(4000, 6000)
    return [
        all_devices(a, Manner.LIES),
        all_devices(c, Manner.UNREACHABLE),
        ClockRate(node=a, off_ppm=-20_000),
        Cut(nodes=(c,), for_ms=away_ms),
        FreezeRenewed(at_ms=away_ms - chance.rng.randrange(100, 700), node=a, for_ms=5000),
        Calm(at_ms=away_ms + 7000),
    ]


@story("ordered", nodes=(3, 4))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """An operator has sound hosts fenced, one after the other, at their own or at others' daemons; one
    device lies, and one of those who could act stands still for a while."""
    a, b, c, *_ = nodes
    rng = chance.rng
    return [
        all_devices(a, rng.choice([Manner.HONEST, Manner.LIES, Manner.CONTRADICTED, Manner.UNREACHABLE])),
        Order(node=a, desk=rng.choice([a, b])),
        FreezeHost(at_ms=rng.randrange(3000), node=c, for_ms=rng.randrange(200, 3000)),
        Calm(at_ms=6000),
        Order(at_ms=rng.randrange(9000, 14000), node=b, desk=rng.choice([b, c])),
    ]


@story("disarmed", nodes=(3, 4))
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Maintenance, in the middle of which a host is lost and somebody's daemon is started anew."""
    a, b, c, *_ = nodes
    rng = chance.rng
    begins_ms = rng.randrange(1500)
    return [
        Disarm(at_ms=begins_ms, desk=b, for_ms=rng.randrange(4000, 9000)),
        FreezeHost(at_ms=rng.randrange(2500), node=a, for_ms=rng.randrange(2000, 12000)),
        KillDaemon(at_ms=begins_ms + rng.randrange(300, 4000), node=c),
        Order(at_ms=begins_ms + rng.randrange(3000), node=a, desk=b),
    ]
