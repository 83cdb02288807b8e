"""Clocks: their rates, which safety rests on, and the time of day, which only people look at.

A host's clock was read at some instant between the question and its answer's arrival, both on the clock of
the host that asked.  So two rounds bound the rate from both sides; nothing is guessed about latency."""

from collections.abc import Iterator

import msgspec

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, error, warning
from ringfence.wire.checkup import HostAnswer

MARGIN = 0.05
"""What the purge bound allows for (core.cluster.Timing.bound_ms)."""
DRIFT = 0.01
WALL_MS = 2_000
"""How far the times of day may be apart."""

RATE = error(
    "clock-rate",
    "a host's clock runs at another rate",
    "a victim's locks are purged when its authority must have run out on its own clock; the purge bound "
    "allows 5 % for unequal rates, and this is more: two hosts may write",
)
DRIFTS = warning(
    "clock-drift",
    "a host's clock runs at a rate that eats into the margin",
    "sound clocks differ by less than 0.1 %; the purge bound allows for 5 %",
)
WALL = warning(
    "clock-offset",
    "a host's time of day is off",
    "nothing rests on it but what people read: the order of events in logs and histories is misleading",
)
KINDS = (RATE, DRIFTS, WALL)


class Bounds(msgspec.Struct, frozen=True):
    """What a value must lie between."""

    low: float
    high: float

    def outside(self, around: float, margin: float) -> bool:
        """Whether all of it is further than `margin` from `around`: certain, whatever was in between."""
        return self.low > around + margin or self.high < around - margin


def rate(first: HostAnswer, first_asked_ns: int, last: HostAnswer, last_asked_ns: int) -> Bounds | None:
    """How many seconds of the host's clock pass in one of the asking host's.  None: nothing can be said."""
    theirs = last.facts.boottime_ns - first.facts.boottime_ns
    longest, shortest = last.told_ns - first_asked_ns, last_asked_ns - first.told_ns
    if first.facts.boot != last.facts.boot or theirs <= 0 or shortest <= 0:
        return None
    return Bounds(theirs / longest, theirs / shortest)


def offset_ms(answer: HostAnswer, asked_ns: int, wall_at_boot_ms: float) -> Bounds:
    """The host's time of day less the asking host's."""
    asked_ms, told_ms = (wall_at_boot_ms + at_ns / 1e6 for at_ns in (asked_ns, answer.told_ns))
    return Bounds(answer.facts.wall_ms - told_ms, answer.facts.wall_ms - asked_ms)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    if not facts.rounds:
        return
    last = facts.rounds[-1]
    for host in last.hosts:
        if not host.facts.wall_ms:
            continue
        offset = offset_ms(host, last.asked_ns, facts.wall_at_boot_ms)
        if offset.outside(0, WALL_MS):
            nearest_s = min(abs(offset.low), abs(offset.high)) / 1000
            ahead = "ahead of" if offset.low > 0 else "behind"
            what = f"{host.name}'s time of day is {nearest_s:.1f} s {ahead} {facts.me}'s"
            yield WALL.at(host.name, what, "systemctl restart chronyd (or systemd-timesyncd); timedatectl")
    if len(facts.rounds) < 2:
        return
    first = facts.rounds[0]
    for host in last.hosts:
        before = next((one for one in first.hosts if one.node == host.node), None)
        found = rate(before, first.asked_ns, host, last.asked_ns) if before is not None else None
        if found is None or not found.outside(1.0, DRIFT):
            continue
        percent = 100 * (min(found.low, found.high, key=lambda one: abs(one - 1)) - 1)
        how = "faster" if percent > 0 else "slower"
        what = f"{host.name}'s clock runs at least {abs(percent):.1f} % {how}"
        mend = "look at /sys/devices/system/clocksource/clocksource0/current_clocksource; take the host out"
        kind = RATE if found.outside(1.0, MARGIN) else DRIFTS
        yield kind.at(host.name, f"{what} than {facts.me}'s", mend)
