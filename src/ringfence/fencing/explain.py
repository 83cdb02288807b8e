"""Why a victim is not fenced yet, in lines for people.

The commonest complaint about this field's tools is an opaque wait: "waiting for fencing" and
nothing else.  So every victim can say since when, who acts, what failed and in which words, what
is still missing, and what comes next.  Pure: dates come from the ordered state, in UTC."""

from collections.abc import Collection

from ringfence.core.cluster import ClusterConfig
from ringfence.core.ids import Life
from ringfence.fencing.delays import delays_of
from ringfence.fencing.domain import Attempt, Domain, Victim
from ringfence.fencing.policy import proofs_of
from ringfence.wire.entries import DeviceWord


def explain_victim(
    config: ClusterConfig,
    domain: Domain,
    victim: Victim,
    ready: tuple[int, ...],
    now_wall_ms: int = 0,
    *,
    favoured: Collection[Life] = (),
    doing: Collection[str] = (),
    disarmed: bool = False,
    virtual: bool = False,
) -> list[str]:
    """All there is to say, the most important first.

    Args:
        ready: the view's ready members.
        now_wall_ms: the date, to say how long ago and how long still; 0 = leave that out.
        favoured: victims that are fenced later by priority.
        doing: what the attempt that this node runs waits for just now, a line each.
        disarmed: no agent is started for now.
        virtual: its host is itself a virtual machine.
    """
    lines = [_since(config, victim, now_wall_ms)]
    if victim.current is not None:
        lines.append(_running(config, victim, victim.current))
        lines += [_word(word) for word in victim.current.words]
        actor = config.name_of(victim.current.actor)
        lines += [f"{actor} {line}" for line in doing or _settling(config, victim, victim.current)]
    elif not victim.number and not domain.proven(victim):
        lines += _delays(config, domain, victim, ready, favoured)
    lines += _failed(config, victim)
    for device in _devices_of(config, victim):
        if device in domain.quarantined:
            why = domain.quarantined[device]
            lines.append(f"{device} is quarantined: {why}; it is fired but not believed")
    for evidence in victim.evidence:
        if domain.counts(victim, evidence):
            lines.append(f"evidence: {evidence.kind.value}: {evidence.how}")
    missing = missing_of(config, domain, victim, ready)
    if missing:
        lines.append(f"still missing: {', '.join(missing)}")
    if not domain.proven(victim):
        counts = would_count(config, domain, victim, virtual=virtual)
        lines.append(f"would count: {', '.join(counts) or 'nothing'}")
        step = next_step(config, domain, victim, ready, now_wall_ms, disarmed=disarmed)
        lines.append(f"next: {step}")
        lines += _by_hand(config, domain, victim)
    return lines


def would_count(config: ClusterConfig, domain: Domain, victim: Victim, *, virtual: bool) -> list[str]:
    """Each proof that would end it, with the levels that it may come from."""
    untrusted = [*domain.quarantined, *victim.distrusted]
    return proofs_of(
        config, victim.life.node, lied=victim.lied, virtual=virtual, untrusted=untrusted
    )


def missing_of(config: ClusterConfig, domain: Domain, victim: Victim, ready: tuple[int, ...]) -> list[str]:
    """What must come before the victim's locks are cleaned up."""
    missing = [] if domain.proven(victim) else ["evidence"]
    waiting = [config.name_of(node) for node in ready if node not in victim.bound]
    if waiting and victim.life not in domain.purgeable(ready):
        missing.append(f"purge bound on {', '.join(waiting)}")
    return missing


def next_step(
    config: ClusterConfig,
    domain: Domain,
    victim: Victim,
    ready: tuple[int, ...],
    now_wall_ms: int = 0,
    *,
    disarmed: bool = False,
) -> str:
    """What will happen by itself, or what a person must do, to get evidence."""
    name = config.name_of(victim.life.node)
    levels = config.levels_of(victim.life.node)
    if not victim.due:
        wait_ms = config.timing.post_join_delay_ms if victim.life.unknown else config.timing.grace_ms
        passed_ms = max(0, now_wall_ms - victim.since_wall_ms) if victim.since_wall_ms else 0
        left_ms = max(0, wait_ms - passed_ms)
        within = f"within {_seconds(left_ms)}" if left_ms else "any moment"
        if not levels:
            return f"{name} may come back by itself {within}; then a person is asked"
        return f"{name} may come back by itself {within}; then it is fenced"
    if not levels:
        return f"no fence devices: make sure that {name} is off, then: ringfence fence confirm {name}"
    if disarmed:
        return "nothing while fencing is disarmed; ringfence fence arm ends that"
    if victim.current is not None:
        coming = victim.current.level + 1
        rest = "the next member's turn, or another round"
        if coming < len(levels):
            rest = f"level {coming + 1} ({_names(config, victim, coming)})"
        return f"if attempt {victim.current.number} fails: {rest}"
    actor = domain.actor_for(victim, ready)
    if actor is None:
        return "no other member is ready: nobody can fence it"
    level = victim.level % len(levels)
    again = "again " if victim.round or any(one.level == level for one in victim.attempts) else ""
    wait_ms = victim.attempts[-1].next_in_ms if victim.attempts else 0
    when = f"in {_seconds(wait_ms)} " if wait_ms else ""
    return f"level {level + 1} {again}{when}({_names(config, victim, level)}) by {config.name_of(actor)}"


def _by_hand(config: ClusterConfig, domain: Domain, victim: Victim) -> list[str]:
    """Where no device is left that anybody would believe: what a person must do, in order."""
    devices = _devices_of(config, victim)
    if not devices or not all(one in domain.quarantined or one in victim.distrusted for one in devices):
        return []
    name = config.name_of(victim.life.node)
    return [
        f"no device of {name} is believed any more: they are fired, and prove nothing; a person must:",
        f"1. look at {name} itself: it must be off, and stay off",
        f"2. ringfence fence confirm {name}: its locks move then",
        f"3. find out why {', '.join(devices)} lied (plugs, cables), and mend it",
        f"4. ringfence fence drill {name} --destructive, or ringfence fence trust DEVICE: believed again",
    ]


def clock(wall_ms: int) -> str:
    """Time of day in UTC, as 12:00:01Z; "an unknown time" for 0."""
    if not wall_ms:
        return "an unknown time"
    seconds = wall_ms // 1000 % 86400
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"


def _since(config: ClusterConfig, victim: Victim, now_wall_ms: int) -> str:
    name = config.name_of(victim.life.node)
    ago = ""
    if now_wall_ms > victim.since_wall_ms > 0:
        ago = f", {_seconds(now_wall_ms - victim.since_wall_ms)} ago"
    reason = victim.reason or "no reason on record"
    return f"{name} suspected since {clock(victim.since_wall_ms)}{ago} ({reason}; life {victim.life})"


def _running(config: ClusterConfig, victim: Victim, attempt: Attempt) -> str:
    return (
        f"attempt {attempt.number}: {config.name_of(attempt.actor)} is running level {attempt.level + 1} "
        f"({_names(config, victim, attempt.level)}) since {clock(attempt.began_wall_ms)}"
    )


def _failed(config: ClusterConfig, victim: Victim) -> list[str]:
    """The last result of each level, lowest level first."""
    last: dict[int, Attempt] = {}
    for attempt in victim.attempts:
        last[attempt.level] = attempt
    return [
        f"level {level + 1} {'passed' if attempt.passed else 'failed'} "
        f"(attempt {attempt.number}, {config.name_of(attempt.actor)}): {attempt.verdict}"
        for level, attempt in sorted(last.items())
    ]


def _devices_of(config: ClusterConfig, victim: Victim) -> list[str]:
    levels = config.levels_of(victim.life.node)
    return list(dict.fromkeys(device for level in levels for device in level.names))


def _delays(
    config: ClusterConfig, domain: Domain, victim: Victim, ready: tuple[int, ...], favoured: Collection[Life]
) -> list[str]:
    actor = domain.actor_for(victim, ready)
    who = config.name_of(actor) if actor is not None else "whoever fences it"
    name = config.name_of(victim.life.node)
    delays = delays_of(config, victim.life, favoured)
    if not delays:
        return []
    whole = _seconds(sum(one.delay_ms for one in delays))
    parts = "; ".join(f"{one.why}, {_seconds(one.delay_ms)}" if delays[1:] else one.why for one in delays)
    return [f"{who} waits {whole} before it fences {name}: {parts}"]


def _settling(config: ClusterConfig, victim: Victim, attempt: Attempt) -> list[str]:
    """What its devices are given time for, where this node does not run the attempt itself."""
    levels = config.levels_of(victim.life.node)
    names = dict.fromkeys(levels[attempt.level].names if attempt.level < len(levels) else ())
    lines = []
    for device in [one for one in config.devices if one.name in names]:
        looks = f"looks at it up to {device.looks} times, {_seconds(device.look_every_ms)} apart"
        if device.settle_ms:
            looks = f"lets {device.name} settle for {_seconds(device.settle_ms)} after its off, then {looks}"
        elif device.look_every_ms:
            looks = looks.replace("it", device.name, 1)
        if device.settle_ms or device.look_every_ms:
            lines.append(looks)
    return lines


def _word(word: DeviceWord) -> str:
    said = f" ({word.words})" if word.words else ""
    return f"{word.device} {word.action}: {word.power}{said}, after {_seconds(word.took_ms)}"


def _names(config: ClusterConfig, victim: Victim, level: int) -> str:
    levels = config.levels_of(victim.life.node)
    return ", ".join(use.label for use in levels[level].uses) if level < len(levels) else "no devices"


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.1f} s"
