"""Stories of LVs that change, move, and are handed over while something breaks."""

import msgspec

from ringfence.sim.disk import DISKS
from ringfence.sim.faults import (
    Cut,
    Fault,
    FreezeDaemon,
    FreezeHost,
    HandBack,
    HandOver,
    KillDaemon,
    LateOrders,
    MidOrder,
    MidWrite,
    PowerOff,
    SharedDisk,
    Typed,
    Upgrade,
)
from ringfence.sim.power import Manner
from ringfence.sim.scheduler import Chance
from ringfence.sim.storage import Trouble
from ringfence.sim.stories.story import all_devices, story
from ringfence.sim.volumes import LVS


@story("volumes", nodes=(2, 3), volumes=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Daemons and hosts end, or stand still, while LVs are made, grown, renamed, moved, removed and wiped."""
    rng = chance.rng
    faults: list[Fault] = []
    for number in range(5):
        at_ms, node, for_ms = 4000 * number + rng.randrange(2500), rng.choice(nodes), rng.randrange(400, 3000)
        drawn: list[Fault] = [
            KillDaemon(node=node, for_ms=for_ms),
            PowerOff(nodes=(node,), for_ms=for_ms),
            FreezeDaemon(node=node, for_ms=for_ms),
            FreezeHost(node=node, for_ms=for_ms),
            MidWrite(node=node, skip=rng.randrange(40), how=rng.choice(("kill", "power"))),
        ]
        faults.append(rng.choice(drawn).later(at_ms))
    return faults


@story("moved", nodes=(2, 3), volumes=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """LVs go to other extents and to other hosts; one host's devices lie, and whoever is at it is cut off,
    stands still, or ends, in the middle of a write or after it."""
    rng = chance.rng
    faults: list[Fault] = [all_devices(nodes[0], rng.choice([Manner.HONEST, Manner.HONEST, Manner.LIES]))]
    for at_ms in range(500, 20_000, 1500):
        faults.append(HandOver(at_ms=at_ms, node=rng.choice(nodes), prepare=rng.random() < 0.5))
        if rng.random() < 0.3:
            faults.append(HandBack(at_ms=at_ms + 700))
    for number in range(4):
        at_ms, node, for_ms = 4500 * number + rng.randrange(3000), rng.choice(nodes), rng.randrange(300, 4000)
        drawn: list[Fault] = [
            KillDaemon(node=node, for_ms=for_ms),
            PowerOff(nodes=(node,), for_ms=for_ms),
            FreezeHost(node=node, for_ms=for_ms),
            Cut(nodes=(node,), for_ms=for_ms),
            MidWrite(node=node, skip=rng.randrange(30), how=rng.choice(("kill", "power", "freeze"))),
        ]
        faults.append(rng.choice(drawn).later(at_ms))
    return sorted(faults, key=lambda fault: fault.at_ms)


@story("moved-sick", nodes=(2, 3), volumes=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """LVs go from disk to disk under their guests, and now and then a disk fails a host on the way: while
    it copies, when the copy is sealed, or when the metadata name the new place and the path is not there yet
    (block services are slow).  Daemons end now and then, too."""
    rng = chance.rng
    faults: list[Fault] = [
        LateOrders(node=node, worst_ms=rng.choice([100, 500, 1500]), for_ms=25_000) for node in nodes
    ]
    for at_ms in range(0, 20_000, 2500):
        node, lv = rng.choice(nodes), rng.choice(LVS)
        faults += [
            Typed(at_ms=at_ms, node=node, verb="create", lv=lv),
            Typed(at_ms=at_ms + 300, node=node, verb="alone", lv=lv),
            *(Typed(at_ms=at_ms + late_ms, node=node, verb="move", lv=lv) for late_ms in (700, 900)),
            MidOrder(
                at_ms=at_ms + 600, node=node, order=rng.choice(["mirror", "seal", "reload", "reload"]),
                when=rng.choice(["given", "given", "done"]), how=rng.choice([*DISKS, *DISKS, "kill"]),
                for_ms=rng.randrange(300, 1500), within_ms=1800,
            ),
        ]  # fmt: skip
        if rng.random() < 0.4:
            how, for_ms = rng.choice([Trouble.WRITES_FAIL, Trouble.READS_FAIL]), rng.randrange(50, 900)
            sick = SharedDisk(node=node, disk=rng.choice(DISKS), how=how, for_ms=for_ms)
            faults.append(sick.later(at_ms + rng.randrange(700, 2500)))
    return sorted(faults, key=lambda fault: fault.at_ms)


@story("met", nodes=(2, 3), volumes=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """Commands of one host meet at one LV, and with what ends its hand-over."""
    rng = chance.rng
    faults: list[Fault] = []
    for at_ms in range(0, 15_000, 300):
        node, lv = rng.choice(nodes), rng.choice(("lv0", "lv1"))
        first: list[Fault] = [
            Typed(node=node, verb=rng.choice(("create", "alone", "shared")), lv=lv),
            HandOver(node=node, prepare=True),
            HandBack(),
        ]
        faults.append(rng.choice(first).later(at_ms))
        for verb in rng.sample(("alone", "shared", "off", "off", "remove"), 2):
            faults.append(Typed(at_ms=at_ms + rng.randrange(40), node=node, verb=verb, lv=lv))
    return sorted(faults, key=lambda fault: fault.at_ms)


@story("slow-writes", nodes=(3,), volumes=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A host is given up while a write of its commands hangs in its way to a disk; it is back at once, and
    says that its volumes are closed."""
    a, *_ = nodes
    rng = chance.rng
    faults: list[Fault] = [all_devices(a, Manner.UNREACHABLE)]
    for at_ms in range(0, 20_000, 7000):
        skip, for_ms = rng.randrange(20), rng.randrange(900, 3500)
        faults.append(MidWrite(at_ms=at_ms, node=a, skip=skip, how="hang", for_ms=for_ms))
    return faults


@story("late-orders", nodes=(2, 3), volumes=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A host's block service is slow.  Its daemon ends, or all is lost, when it has just ordered something
    of it, and is back at once: what it shows is adopted, what was still to be opened is given to others."""
    a, *others = nodes
    rng = chance.rng
    faults: list[Fault] = [all_devices(a, Manner.UNREACHABLE)]
    for at_ms in range(0, 20_000, 4000):
        order = rng.choice(["open", "open", "open", "close", "reload"])
        struck = MidOrder(
            at_ms=at_ms, node=a, order=order, when="given", how=rng.choice(["kill", "cut"]),
            for_ms=rng.randrange(20, 300), skip=rng.randrange(3), within_ms=3000,
        )  # fmt: skip
        worst_ms = rng.choice([400, 1500])
        if struck.how == "cut":  # for so long that its life is over
            struck = msgspec.structs.replace(struck, for_ms=rng.randrange(900, 1300))
            worst_ms = rng.choice([3000, 6000])
        faults += [LateOrders(at_ms=at_ms, node=a, worst_ms=worst_ms, for_ms=3900), struck]
        for number, lv in enumerate(LVS):
            faults.append(Typed(at_ms=at_ms + 50 * number, node=a, verb="create", lv=lv))
            faults.append(Typed(at_ms=at_ms + 400 + rng.randrange(1200), node=a, verb="alone", lv=lv))
            other = rng.choice(others)
            faults.append(Typed(at_ms=at_ms + 2000 + rng.randrange(1500), node=other, verb="alone", lv=lv))
        faults.append(HandOver(at_ms=at_ms + rng.randrange(4000), node=rng.choice(nodes)))
    return sorted(faults, key=lambda fault: fault.at_ms)


@story("killed-opening", nodes=(2, 3), volumes=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """A daemon is killed, again and again, when it has a lock and the path under it is not open yet, or is
    open and it does not know; on other hosts somebody waits for that very lock."""
    a, *others = nodes
    rng = chance.rng
    faults: list[Fault] = []
    for at_ms in range(0, 20_000, 2500):
        lv = rng.choice(LVS)
        faults += [
            Typed(at_ms=at_ms, node=a, verb="create", lv=lv),
            MidOrder(
                at_ms=at_ms, node=a, order=rng.choice(["list", "open", "open", "open"]),
                when=rng.choice(["given", "done"]), how=rng.choice(["kill", "kill", "kill", "power"]),
                for_ms=rng.randrange(20, 1500), within_ms=2400,
            ),
            *(Typed(at_ms=at_ms + 200 + rng.randrange(300), node=a, verb="alone", lv=lv) for _ in range(2)),
            Typed(at_ms=at_ms + 300 + rng.randrange(1500), node=rng.choice(others), verb="alone", lv=lv),
        ]  # fmt: skip
    return sorted(faults, key=lambda fault: fault.at_ms)


@story("upgraded", nodes=(2, 3, 4), volumes=True, older=True)
def _(chance: Chance, nodes: list[int]) -> list[Fault]:
    """One host after the other is upgraded, under open volumes, to what speaks a newer protocol; meanwhile
    daemons and hosts end, stand still or are cut off, upgraded ones and others."""
    rng = chance.rng
    faults: list[Fault] = []
    for number, node in enumerate(nodes):
        at_ms = 4500 * number + rng.randrange(2500)
        faults.append(Upgrade(at_ms=at_ms, node=node, for_ms=rng.randrange(20, 900)))
        struck, for_ms = rng.choice(nodes), rng.randrange(20, rng.choice([900, 3000]))
        drawn: list[Fault] = [
            KillDaemon(node=struck, for_ms=for_ms),
            FreezeHost(node=struck, for_ms=for_ms),
            FreezeDaemon(node=struck, for_ms=for_ms),
            PowerOff(nodes=(struck,), for_ms=for_ms),
            Cut(nodes=(struck,), for_ms=for_ms),
            MidOrder(node=struck, order="open", when="given", how="kill", for_ms=for_ms, within_ms=3000),
        ]
        faults.append(rng.choice(drawn).later(at_ms + rng.randrange(-500, 1500)))
    for at_ms in range(0, 20_000, 1000):
        verb, lv = rng.choice(("create", "alone", "alone", "shared", "off")), rng.choice(LVS)
        faults.append(Typed(at_ms=at_ms + rng.randrange(900), node=rng.choice(nodes), verb=verb, lv=lv))
    return sorted(faults, key=lambda fault: fault.at_ms)
