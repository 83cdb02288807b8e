"""Whether each member could fence each node, if it had to: what a test asks, and what its answers mean.

Nothing is switched.  For each use of a device in a node's levels a test asks for the plug's status, and
for the device's own list of plugs where it has one.  What the answers show:

- no answer: the agent is absent, a secret cannot be read, the device is unreachable, the password is wrong;
  the agent's own words say which.  Unknown never reads as passed.
- "off" though the node is in the cluster: its plug is another host's, or the device lies.
- the plug is not in the device's list, or the device calls it by another node's name.
- two nodes have one and the same target: whoever fences the one cuts the other.

Source: fence_check(8) of cman (status of every configured device, by cron); docs/fencing.md for what real
agents answer to a plug that does not exist (fence_apc_snmp with SNMP v2c says "off")."""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms, Use
from ringfence.core.evidence import Power
from ringfence.core.listed import listed
from ringfence.wire.proving import Outcome, UseTest

OLD_INTERVALS = 2
"""After so many intervals without a passed test there is an alarm."""
PLUGS = 8
"""So many of a device's list are shown."""
_NAMES_OF_ADDRESS = ("ip", "ipaddr")
_NAMES_OF_PLUG = ("plug", "port")


class Subject(msgspec.Struct, frozen=True):
    """One use of a device, to be tested."""

    node: int
    level: int
    """From 0."""
    use: Use


class Answers(msgspec.Struct, frozen=True):
    """What a device answered."""

    power: Power
    words: str
    """The agent's own last line."""
    took_ms: int = 0
    plugs: Mapping[str, str] | None = None
    """Plug -> the device's own name for it; None: it tells none."""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered of one member's tests of one use."""

    node: int
    use: str
    passed_wall_ms: int = 0
    """The last time it passed; 0: never."""
    failed: str = ""
    """Why it does not pass; empty: it does."""
    at_wall_ms: int = 0
    """The last time it was tried at all."""


def subjects(config: ClusterConfig, target: str = "") -> list[Subject]:
    """What a test of `target` (a node, a device, or "" for all) looks at, level by level.

    The same plug twice in a node's levels is looked at once.  Nothing is found for an unknown target."""
    found: dict[tuple[int, str], Subject] = {}
    for node in config.nodes:
        for level, one in enumerate(node.levels):
            for use in one.uses:
                if target in ("", node.name, use.device, use.label):
                    found.setdefault((node.id, use.label), Subject(node.id, level, use))
    return list(found.values())


def target_of(config: ClusterConfig, use: Use) -> tuple[str, ...] | None:
    """What a use cuts off, by address and plug; None where that cannot be told from the configuration.

    Two devices with one address and plug are one target, whatever they are called."""
    device = config.device(use.device)
    if device.confirms is Confirms.STORAGE_CUT:
        return None  # told by the node's name or key: one device serves all
    given = {**device.parameters, **use.parameters}
    plug = next((given[name] for name in _NAMES_OF_PLUG if given.get(name)), "")
    address = next((given[name] for name in _NAMES_OF_ADDRESS if given.get(name)), "")
    if not address:
        return (use.device, plug) if plug else None
    return address, given.get("ipport", ""), plug


def sharers(config: ClusterConfig, subject: Subject) -> list[str]:
    """Other nodes that have the same target, by name."""
    target = target_of(config, subject.use)
    if target is None:
        return []
    return [
        node.name
        for node in config.nodes
        if node.id != subject.node
        and any(target_of(config, use) == target for level in node.levels for use in level.uses)
    ]


def judge(
    config: ClusterConfig, subject: Subject, answers: Answers, up: Collection[int], wall_ms: int = 0
) -> UseTest:
    """What a test's answers mean.

    Args:
        up: nodes that are ready members: their power is on for certain."""
    wrong = _wrong(config, subject, answers, up)
    what = wrong or _right(config, subject, answers)
    outcome = Outcome.FAILED if wrong else Outcome.PASSED
    return UseTest(subject.node, subject.use.label, outcome, what, answers.took_ms, wall_ms)


def skipped(subject: Subject, why: str, wall_ms: int = 0) -> UseTest:
    return UseTest(subject.node, subject.use.label, Outcome.SKIPPED, f"not tested: {why}", 0, wall_ms)


def _wrong(config: ClusterConfig, subject: Subject, answers: Answers, up: Collection[int]) -> str:
    label, name = subject.use.label, config.name_of(subject.node)
    others = sharers(config, subject)
    if others:
        return f"{name} and {', '.join(others)} have the same plug: whoever fences one cuts the other"
    if answers.power is Power.UNKNOWN:
        return answers.words or "no answer"
    if answers.power is Power.OFF and subject.node in up:
        if config.device(subject.use.device).confirms is Confirms.STORAGE_CUT:
            return f'{label} says "off", but {name} is up: it is cut off, or the key is another\'s'
        return f'{label} says "off", but {name} is up: the plug is another\'s, or the device lies'
    return _wrong_plug(config, subject, answers.plugs)


def _wrong_plug(config: ClusterConfig, subject: Subject, plugs: Mapping[str, str] | None) -> str:
    given = {**config.device(subject.use.device).parameters, **subject.use.parameters}
    plug = next((given[name] for name in _NAMES_OF_PLUG if given.get(name)), "")
    if not plugs or not plug:
        return ""
    if plug not in plugs and plug not in plugs.values():
        return f"the device has no plug {plug}; it lists {listed(sorted(plugs), PLUGS)}"
    called = plugs.get(plug, "")
    mine = config.name_of(subject.node)
    others = [node.name for node in config.nodes if node.id != subject.node and _names(called, node.name)]
    if others and not _names(called, mine):
        return f"the device calls plug {plug} {called!r}, and that is not {mine}"
    return ""


def _names(called: str, node: str) -> bool:
    """Whether an outlet's own name is about that node, and not about one whose name begins alike."""
    text, name = called.casefold(), node.casefold()
    at = text.find(name)
    while at >= 0:
        after = text[at + len(name) : at + len(name) + 1]
        before = text[at - 1 : at] if at else ""
        if not after.isalnum() and not before.isalnum():
            return True
        at = text.find(name, at + 1)
    return False


def _right(config: ClusterConfig, subject: Subject, answers: Answers) -> str:
    said = f'says "{answers.power.value}"'
    plug = subject.use.parameters.get("plug", "")
    called = (answers.plugs or {}).get(plug, "")
    return f"{said}, and calls the plug {called!r}" if called else said


# -- what is remembered ------------------------------------------------------------


def merged(config: ClusterConfig, kept: Sequence[Kept], results: Sequence[UseTest]) -> tuple[Kept, ...]:
    """One member's memory after more results; of what is not configured any more nothing is left.

    What was skipped says nothing, and changes nothing."""
    configured = [(one.node, one.use.label) for one in subjects(config)]
    memory = {(one.node, one.use): one for one in kept}
    for result in results:
        key = result.node, result.use
        old = memory.get(key, Kept(*key))
        if result.outcome is Outcome.PASSED:
            memory[key] = Kept(*key, max(old.passed_wall_ms, result.at_wall_ms), "", result.at_wall_ms)
        elif result.outcome is Outcome.FAILED:
            memory[key] = Kept(*key, old.passed_wall_ms, result.what, result.at_wall_ms)
    return tuple(memory[key] for key in configured if key in memory)


def remembered(kept: Sequence[Kept]) -> tuple[UseTest, ...]:
    """Results that lead to this memory again (`merged`), for a state that has forgotten them."""
    found = []
    for one in kept:
        if one.passed_wall_ms:
            found.append(UseTest(one.node, one.use, Outcome.PASSED, "", 0, one.passed_wall_ms))
        if one.failed:
            found.append(UseTest(one.node, one.use, Outcome.FAILED, one.failed, 0, one.at_wall_ms))
    return tuple(found)


def last_tried_ms(tested: Mapping[int, Sequence[Kept]]) -> int:
    """When anybody last tried anything (wall clock); 0: never."""
    return max((one.at_wall_ms for kept in tested.values() for one in kept), default=0)


def untried(config: ClusterConfig, ready: Sequence[int], tested: Mapping[int, Sequence[Kept]]) -> bool:
    """Whether some member has never tried one of the uses."""
    wanted = [(one.node, one.use.label) for one in subjects(config)]
    return any(
        key not in [(one.node, one.use) for one in tested.get(member, ())]
        for member in ready
        for key in wanted
        if key[0] != member
    )


class Alarm(msgspec.Struct, frozen=True):
    """One thing that would keep a fence from succeeding, or has not been tried for too long."""

    tester: int
    node: int
    use: str
    what: str
    """One line for people."""
    old: bool = False
    """It passed when it was last tested, and that is too long ago."""

    @property
    def key(self) -> tuple[int, int, str, bool]:
        """Names it while it lasts: its words grow older."""
        return self.tester, self.node, self.use, self.old


def alarms(
    config: ClusterConfig, ready: Sequence[int], tested: Mapping[int, Sequence[Kept]], now_wall_ms: int
) -> list[Alarm]:
    """What a person should know.  A use that was never tried is none: it is new, and will be."""
    found = []
    limit_ms = OLD_INTERVALS * config.timing.fence_test_ms
    for tester in ready:
        for one in tested.get(tester, ()):
            name, node = config.name_of(tester), config.name_of(one.node)
            if one.failed:
                what = f"{name} could not fence {node} by {one.use}: {one.failed}"
                found.append(Alarm(tester, one.node, one.use, what))
            elif limit_ms and now_wall_ms - one.at_wall_ms > limit_ms:
                age_h = (now_wall_ms - one.passed_wall_ms) // 3_600_000
                what = f"{name} has not tested {one.use} of {node} for {age_h} h; next: ringfence fence test"
                found.append(Alarm(tester, one.node, one.use, what, old=True))
    return found
