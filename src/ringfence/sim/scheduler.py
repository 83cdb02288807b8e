"""Simulated time and chance: what happens next, and when.

Everything that happens in a world is an event here.  Two events at the same instant happen in the
order in which they were planned, so one seed gives one story.

Each part of a world has a stream of chance of its own: a fault more or less, or a client that asks
once more, does not change what the others draw."""

import hashlib
import random
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

MS = 1_000_000
TRACE_KEPT = 400


class Timer:
    """An event that was planned and can be called off."""

    __slots__ = ("cancelled", "run")

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Chance:
    """One stream of chance."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def between(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high)

    def delay_ms(self, typical_ms: float, worst_ms: float) -> float:
        """Mostly about typical, now and then anything up to worst."""
        if self.rng.random() < 0.02:
            return self.rng.uniform(typical_ms, worst_ms)
        return self.rng.uniform(typical_ms / 2, typical_ms * 2)


class Timeline:
    """Events in the order of time; the trace of what they did."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.trace: deque[str] = deque(maxlen=TRACE_KEPT)
        self._digest = hashlib.blake2b(digest_size=12)
        self._heap: list[tuple[int, int, Timer]] = []
        self._planned = 0

    def after(self, delay_ms: float, run: Callable[[], None]) -> Timer:
        return self.at(self.now_ns + int(delay_ms * MS), run)

    def at(self, at_ns: int, run: Callable[[], None]) -> Timer:
        timer = Timer(run)
        self._planned += 1
        heappush(self._heap, (at_ns if at_ns > self.now_ns else self.now_ns, self._planned, timer))
        return timer

    def step(self) -> bool:
        """Let the next event happen.  False: there is none."""
        while self._heap:
            at_ns, _, timer = heappop(self._heap)
            if not timer.cancelled:
                self.now_ns = at_ns
                timer.run()
                return True
        return False

    def note(self, what: str) -> None:
        """A line of the trace."""
        line = f"{self.now_ns / 1e9:9.4f} {what}"
        self.trace.append(line)
        self._digest.update(line.encode() + b"\n")

    @property
    def digest(self) -> str:
        """Of the whole trace so far: equal for equal seeds, on any machine."""
        return self._digest.hexdigest()


class Scheduler(Chance):
    """Simulated time, as one part of a world sees it: with the part's own stream of chance.

    Args:
        timeline: shared by all parts; made by `stream`."""

    def __init__(self, seed: int, name: str = "world", timeline: Timeline | None = None) -> None:
        super().__init__(random.Random(f"{seed}/{name}"))
        self._seed = seed
        self.timeline = timeline or Timeline()
        """For who asks what time it is all the time."""
        self.after, self.at = self.timeline.after, self.timeline.at
        self.note, self.step = self.timeline.note, self.timeline.step

    def stream(self, name: str) -> "Scheduler":
        """For another part of the same world."""
        return Scheduler(self._seed, name, self.timeline)

    @property
    def now_ns(self) -> int:
        return self.timeline.now_ns

    @property
    def trace(self) -> deque[str]:
        """Its last lines."""
        return self.timeline.trace

    @property
    def digest(self) -> str:
        """Of the whole trace so far: equal for equal seeds, on any machine."""
        return self.timeline.digest
