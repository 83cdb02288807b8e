"""What a drill switches, watches and switches back: pure generators, driven by `engine.drills`.

Whatever fails, outlets that were switched off are switched on again before the drill ends.  But while the
host must be fenced an "on" of ours could undo that "off": then the drill waits until it is, and leaves off
what is to stay off."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

import msgspec

from ringfence.core.cluster import ClusterConfig, Use
from ringfence.core.evidence import Evidence, Power
from ringfence.core.ids import Life
from ringfence.engine.inputs import AgentExited
from ringfence.engine.orders import CallAgent, Order, Pause, ReadSupplies
from ringfence.fencing.cabling import (
    Cable,
    Finding,
    all_back,
    anything_lost,
    judge,
    one_outlet_twice,
    unfit,
)
from ringfence.fencing.level_run import LevelRun, Run
from ringfence.wire.proving import Reading, Supply

LOOK_MS = 1_000
SEEN_MS = 30_000
"""How long a sensor may take to show that an outlet was switched: controllers poll their supplies."""
SETTLE_MS = 2_000
"""After the first supply was seen without mains, a second one would be by then."""
ON_TRIES = 6
ON_AGAIN_MS = 5_000
FREE_MS = 500
"""How often it is looked whether fencing still needs a device."""
NEEDED_MS = 60_000
"""How long a device that fencing needs is left alone altogether; from then on a call of the drill has its
turn between two of the fence."""
RETURN_MS = 900_000
"""How long a host may take to boot and to come back."""

Steps = Generator[Order, Any, Any]


class World(Protocol):
    """What a drill sees of the cluster around it, at each moment."""

    def tell(self, line: str) -> None:
        """Progress, for whoever waits."""

    def acts(self) -> bool:
        """This node may switch something now."""

    def lost(self) -> bool:
        """A life of the drilled node must be fenced, or is being."""

    def needed(self, device: str) -> str:
        """Whom else fencing needs this device for; empty: nobody."""

    def stays_off(self) -> bool:
        """The drilled node was fenced, and is to stay off."""

    def others_lost(self) -> list[str]:
        """Other nodes that were ready when the drill began, and are not any more."""

    def attempted(self, evidence: Evidence | None) -> None:
        """The level has been run: tell the cluster what it has shown; others may fence from here on."""

    def returned(self) -> bool:
        """The drilled node is back under another boot id."""

    def now_ms(self) -> int: ...


class Verdict(msgspec.Struct, frozen=True):
    passed: bool
    verdict: str
    lines: tuple[str, ...] = ()
    liars: tuple[str, ...] = ()


# -- cabling --------------------------------------------------------------------


def cabling(
    config: ClusterConfig, node: int, uses: Sequence[Use], controllers: dict[int, Use], world: World
) -> Steps:
    """One outlet at a time off and on again, while the supplies' sensors are watched.  Returns: Verdict."""
    name = config.name_of(node)
    if node not in controllers:
        return Verdict(False, f"no controller of {name} tells of its power supplies: only IPMI is read")
    before, unread = yield from _read(config, controllers)
    why = unread.get(node) or unfit(name, before.get(node, ())) or one_outlet_twice(config, uses)
    if not why:
        why = yield from _not_on(node, uses)
    if why:
        return Verdict(False, f"not begun: {why}")
    for other in sorted(set(unread) - {node}):
        world.tell(f"{config.name_of(other)}: not watched: {unread[other]}")
    watched = {one: controllers[one] for one in before}
    findings: list[Finding] = []
    for index, use in enumerate(uses):
        finding, back = yield from _one_outlet(config, node, uses, index, watched, before, world)
        findings.append(finding)
        world.tell(f"{finding.cable.value}: {finding.what}")
        if back:
            lines = tuple(one.what for one in findings)
            return Verdict(False, f"ended at {use.label}: {back}", lines)
    lines = tuple(one.what for one in findings)
    wrong = [one for one in findings if one.cable is not Cable.CORRECT]
    if wrong:
        told = ", ".join(f"{one.use} {one.cable.value}" for one in wrong)
        return Verdict(False, f"{told}: mend the cables, or the configuration, and drill again", lines)
    return Verdict(
        True, f"each of {len(findings)} outlets feeds one supply of {name}, and nothing else", lines
    )


def _one_outlet(
    config: ClusterConfig,
    node: int,
    uses: Sequence[Use],
    index: int,
    watched: dict[int, Use],
    before: dict[int, Sequence[Supply]],
    world: World,
) -> Steps:
    """Returns: (Finding, why nothing more may be switched; empty: all is as before)."""
    use = uses[index]
    lost = f"{config.name_of(node)} was lost meanwhile"
    yield from _until_free(use, world)
    if world.lost() or world.stays_off():
        return Finding(use.label, Cable.UNKNOWN, f"{use.label} was not switched"), lost
    world.tell(f"{use.label}: off")
    off: AgentExited = yield CallAgent(use, "off", node, _limit(config, use))
    after = before
    if off.power is Power.OFF:

        def shown(seen: dict[int, Sequence[Supply]]) -> bool:
            # A controller that falls silent may have lost its power with the host: no time is to be lost.
            return anything_lost(before, seen) or node not in seen

        after = yield from _watch(config, watched, world, shown)
        if anything_lost(before, after):
            yield Pause(SETTLE_MS)
            after, _ = yield from _read(config, watched)
    was_lost = world.lost()
    if was_lost:
        finding = Finding(use.label, Cable.UNKNOWN, f"{lost}, with {use.label} off")
    elif off.power is not Power.OFF:
        finding = Finding(use.label, Cable.UNKNOWN, f"{use.label} could not be switched off: {off.words}")
    elif node not in after:
        what = f"the controller of {config.name_of(node)} fell silent when {use.label} was off"
        finding = Finding(use.label, Cable.UNKNOWN, what)
    else:
        finding = judge(config, node, uses, index, before, after)
    trouble = yield from switched_on(config, node, use, world)
    if trouble or was_lost:
        return finding, trouble or lost
    again = yield from _watch(config, watched, world, lambda seen: all_back(before, seen))
    if not all_back(before, again):
        return finding, f"{use.label} is on again, and not every supply is: look at the cables"
    return finding, ""


def switched_on(config: ClusterConfig, node: int, use: Use, world: World) -> Steps:
    """Switch an outlet on, and see it on.  Returns: why it is not; empty: it is."""
    words = ""
    for left in reversed(range(ON_TRIES)):
        yield from _until_free(use, world, until_fenced=True)
        if world.stays_off():
            return f"{config.name_of(node)} was fenced: {use.label} was left off"
        done: AgentExited = yield CallAgent(use, "on", node, _limit(config, use))
        seen: AgentExited = yield CallAgent(use, "status", node, _limit(config, use))
        if done.power is Power.ON and seen.power is Power.ON:
            world.tell(f"{use.label}: on again")
            return ""
        words = done.words if done.power is not Power.ON else f'it said "on", and reads {seen.power.value}'
        world.tell(f"{use.label}: not on yet: {words}")
        if left:
            yield Pause(ON_AGAIN_MS)
    return f"{use.label} COULD NOT BE SWITCHED ON AGAIN ({words}): do it by hand"


def _until_free(use: Use, world: World, *, until_fenced: bool = False) -> Steps:
    """Fencing goes first; and a node that is in no primary view does not know what is needed.

    A fence that does not succeed does not keep an outlet off for ever: see `NEEDED_MS`."""
    give_up_ms = world.now_ms() + NEEDED_MS
    while True:
        whom = world.needed(use.device) if world.now_ms() < give_up_ms else ""
        if whom:
            world.tell(f"{use.label}: waits until {whom} is fenced")
        elif until_fenced and world.lost():
            world.tell(f"{use.label}: waits until its own host is fenced, or back")
        elif world.acts():
            return
        yield Pause(FREE_MS)


def _watch(
    config: ClusterConfig,
    watched: dict[int, Use],
    world: World,
    shown: Callable[[dict[int, Sequence[Supply]]], bool],
) -> Steps:
    """Read the supplies until something is shown, or time is up.  Returns: the last reading."""
    give_up_ms = world.now_ms() + SEEN_MS
    while True:
        seen, _ = yield from _read(config, watched)
        if shown(seen) or world.lost() or world.now_ms() >= give_up_ms:
            return seen
        yield Pause(LOOK_MS)


def _read(config: ClusterConfig, controllers: dict[int, Use]) -> Steps:
    """Returns: (node -> its supplies, node -> why they could not be read)."""
    order = ReadSupplies(tuple(sorted(controllers.items(), key=lambda one: one[0])))
    readings: tuple[Reading, ...] = yield order
    seen = {one.node: one.supplies for one in readings if not one.trouble}
    return seen, {
        one.node: f"the controller of {config.name_of(one.node)} could not be read: {one.trouble}"
        for one in readings
        if one.trouble
    }


def _not_on(node: int, uses: Sequence[Use]) -> Steps:
    """Returns: which outlet is not on; empty: all are."""
    for use in uses:
        seen: AgentExited = yield CallAgent(use, "status", node)
        if seen.power is not Power.ON:
            return f"{use.label} is not on ({seen.words or seen.power.value})"
    return ""


def _limit(config: ClusterConfig, use: Use) -> int:
    return config.device(use.device).timeout_ms


# -- destructive -------------------------------------------------------------------


def destructive(config: ClusterConfig, life: Life, level: int, me: int, wall_ms: int, world: World) -> Steps:
    """Cut a host's power as a fence would, and see whether that host, and no other, falls silent; then let it
    boot, and come back.  Returns: Verdict."""
    name, uses = config.name_of(life.node), config.levels_of(life.node)[level].uses
    labels = ", ".join(use.label for use in uses)
    world.tell(f"{labels}: off")
    run = LevelRun(config, life, level, 1, seen_by=me, wall_ms=wall_ms)
    yield from _run_level(run, life.node, world)
    outcome = run.finished
    assert outcome is not None
    if outcome.evidence is None:
        failed = Verdict(False, outcome.verdict)
    else:
        world.tell(outcome.verdict)
        failed = yield from _only_this_one(config, name, uses, world)
    if failed.verdict:
        world.attempted(None)
        on = yield from _all_on(config, life.node, uses, world)
        return msgspec.structs.replace(failed, lines=on)
    world.tell(f"{name} fell silent, and nobody else")
    assert outcome.evidence is not None
    how = f"{outcome.evidence.how}; and {name} fell silent in a drill"
    world.attempted(msgspec.structs.replace(outcome.evidence, how=how))
    for use in uses:
        trouble = yield from switched_on(config, life.node, use, world)
        if trouble:
            return Verdict(False, f"{name} was cut off as it should be, but {trouble}")
    give_up_ms = world.now_ms() + RETURN_MS
    world.tell(f"waits for {name} to come back")
    while not world.returned():
        if world.now_ms() >= give_up_ms:
            what = f"did not come back within {RETURN_MS // 60_000} min"
            return Verdict(False, f"{name} was cut off as it should be, but {what}: look at its console")
        yield Pause(LOOK_MS)
    return Verdict(True, f"{labels} cut {name}, and no other host; it is back under a new boot id")


def _run_level(run: LevelRun, node: int, world: World) -> Steps:
    """Its calls one after the other, also of a level whose devices a fence would switch side by side."""
    todo: list[Run] = run.start(world.now_ms())
    while run.finished is None:
        if not todo:
            yield Pause(max(1, run.until_ms - world.now_ms()))
            todo = run.time_passes(world.now_ms())
            continue
        while not world.acts():
            yield Pause(FREE_MS)
        one = todo.pop(0)
        said: AgentExited = yield CallAgent(one.use, one.action, node, one.timeout_ms)
        todo += run.exited(one.run, said.power, said.words, said.took_ms, said.answered, world.now_ms())


def _only_this_one(config: ClusterConfig, name: str, uses: Sequence[Use], world: World) -> Steps:
    """Wait until the cluster has noticed.  Returns: Verdict, without words if all is as it should be."""
    timing = config.timing
    give_up_ms = world.now_ms() + 2 * timing.detection_ms + timing.silent_ms
    while not world.lost() and world.now_ms() < give_up_ms:
        yield Pause(timing.heartbeat_ms)
    yield Pause(timing.detection_ms)  # a second host that was cut with it is noticed by then
    while not world.acts():
        yield Pause(FREE_MS)
    others = world.others_lost()
    devices = tuple(dict.fromkeys(use.device for use in uses))
    labels = ", ".join(use.label for use in uses)
    if not world.lost():
        whom = f"; it cut {', '.join(others)} instead" if others else ""
        return Verdict(False, f'{labels} said "off", and {name} goes on{whom}', liars=devices)
    if others:
        return Verdict(False, f"{labels} cut {', '.join(others)} together with {name}", liars=devices)
    return Verdict(False, "")


def _all_on(config: ClusterConfig, node: int, uses: Sequence[Use], world: World) -> Steps:
    """What a drill that failed has switched off is switched on again.  Returns: what is to be said of it."""
    lines = []
    for use in uses:
        trouble = yield from switched_on(config, node, use, world)
        if trouble:
            lines.append(trouble)
    return tuple(lines)


def tidied(config: ClusterConfig, node: int, uses: Sequence[Use], actor: str, world: World) -> Steps:
    """The actor of a drill is lost: switch on what it may have left off.  Returns: Verdict."""
    lines = yield from _all_on(config, node, uses, world)
    return Verdict(False, f"{actor}, which ran it, was lost", lines)
