"""Shrinking: from a scenario that fails to one that fails in the same way with fewer faults and hosts.

Delta debugging (Zeller and Hildebrandt, 2002) over the list of faults, then over hosts, clients and
time.  Any change moves the small delays of everything that follows, so a smaller plan is tried with a
few other seeds too before it counts as one that does not fail."""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

from msgspec.structs import replace

from ringfence.sim.faults import Fault
from ringfence.sim.scenario import Scenario
from ringfence.sim.world import Report, play

SEEDS_EACH = 4
"""So many seeds are tried for each smaller plan."""
SLACK_MS = 1500
"""So much later than before may a smaller plan fail, if it fails while faults strike."""


class Shrinker:
    """Args:
    report: of the run that failed.
    limit_s: give up after so long, with the smallest found so far.
    play: for tests.
    progress: told now and then how far it is."""

    def __init__(
        self,
        report: Report,
        limit_s: float,
        play: Callable[[Scenario], Report] = play,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        assert report.failure, "only what fails can be shrunk"
        self._failure, self._play, self._progress = report.failure, play, progress
        self._began = time.monotonic()
        self._limit_s = limit_s
        self._plays = 0
        self.best = report
        self._take(report)

    def shrink(self) -> Report:
        """Returns the smallest run found that fails in the same way."""
        self._fails(plan=())
        before = None
        while before != self._size and not self._late:
            before = self._size
            self._fewer_faults()
            self._fewer_hosts()
            self._fewer_clients()
            self._less_time()
        return self.best

    # -- what is tried --------------------------------------------------------------

    def _fewer_faults(self) -> None:
        """Leave out a half, then each quarter, and so on, down to single faults."""
        parts = 2
        while self._plan and not self._late:
            parts = min(parts, len(self._plan))
            if any(self._fails(plan=rest) for rest in _complements(self._plan, parts)):
                parts = max(2, parts - 1)
            elif parts == len(self._plan):
                return
            else:
                parts *= 2

    def _fewer_hosts(self) -> None:
        for node in range(self._scenario.nodes, 0, -1):
            if self._scenario.nodes > 2:
                rest = [fault.without(node) for fault in self._plan]
                plan = tuple(fault for fault in rest if fault is not None)
                self._fails(nodes=self._scenario.nodes - 1, plan=plan)

    def _fewer_clients(self) -> None:
        if self._scenario.clients > 1:
            self._fails(clients=1)

    def _less_time(self) -> None:
        """Of use only where the failure is found after the faults."""
        if not self.best.mended:
            return
        last_ms = self._plan[-1].at_ms if self._plan else 0
        for lasts_ms in (last_ms + 1, (last_ms + self._scenario.lasts_ms) // 2):
            if lasts_ms < self._scenario.lasts_ms * 0.8 and self._fails(lasts_ms=lasts_ms):
                return

    # -- how ------------------------------------------------------------------------

    def _fails(self, **changes: object) -> bool:
        """Whether the best so far still fails in this way with these changes; then it is the best."""
        candidate = replace(self._scenario, **changes)
        if not self.best.mended and "lasts_ms" not in changes:
            candidate = replace(candidate, lasts_ms=candidate.lasts_ms + SLACK_MS)
        for seed in range(candidate.seed, candidate.seed + SEEDS_EACH):
            if self._late:
                return False
            self._plays += 1
            report = self._play(replace(candidate, seed=seed))
            if report.failure == self._failure:
                self._take(report)
                return True
        self._tell()
        return False

    def _take(self, report: Report) -> None:
        """What has not struck when it failed is no part of it; nor is the time after it."""
        report.scenario = replace(report.scenario, lasts_ms=report.suffered_ms)
        self.best = report
        self._tell()

    def _tell(self) -> None:
        scenario, took_s = self._scenario, time.monotonic() - self._began
        self._progress(
            f"shrinking: {len(self._plan)} faults, {scenario.nodes} nodes, "
            f"{scenario.lasts_ms / 1000:.1f} s of faults; {self._plays} runs in {took_s:.0f} s"
        )

    @property
    def _scenario(self) -> Scenario:
        return self.best.scenario

    @property
    def _plan(self) -> tuple[Fault, ...]:
        assert self._scenario.plan is not None
        return self._scenario.plan

    @property
    def _size(self) -> tuple[int, int, int, int]:
        scenario = self._scenario
        return len(self._plan), scenario.nodes, scenario.clients, scenario.lasts_ms

    @property
    def _late(self) -> bool:
        return time.monotonic() - self._began > self._limit_s


def _complements(plan: tuple[Fault, ...], parts: int) -> Iterator[tuple[Fault, ...]]:
    """The plan without each of so many parts of it, the earliest first: a fault long before the failure
    has seldom to do with it."""
    bounds = [len(plan) * part // parts for part in range(parts + 1)]
    for begin, end in pairwise(bounds):
        yield (*plan[:begin], *plan[end:])
