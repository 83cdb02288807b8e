"""Hearing: when this node last heard each life, and whether its own clock, and the ring, ran without a gap.

A survivor may say "the purge bound of this life has passed" only when it has not heard it for the
life's whole write authority plus a margin.  A survivor that starts counts as having heard every
victim at its start: it cannot know what it missed (the safety model: two writers in 10 steps if a
fresh survivor's bound is zero).

Time is an argument: nanoseconds of CLOCK_BOOTTIME, which goes on while the host sleeps."""

from collections import deque

from ringfence.core.cluster import Timing
from ringfence.core.ids import Life

NS_PER_MS = 1_000_000
RESTLESS = 3
"""So often within so many tokens a ring re-forms only if something is wrong with it: one failure is found
once, and a member that cannot receive is found again and again, every four tokens or so."""
RESTLESS_TOKENS = 30
CALM_TOKENS = 10
"""After so many without one more it is over."""


class Hearing:
    """One node's ears and its sense of its own freezes."""

    def __init__(self, timing: Timing | None = None) -> None:
        self.configured(timing or Timing())
        self._started_ns: int | None = None
        self._heard_ns: dict[Life, int] = {}
        self._ticked_ns = 0
        self.last_gap_ns = 0
        """When the latest gap between two ticks ended; the start counts as one."""
        self._echoed_ns = 0
        self._deaf_ns = 0
        """When the latest gap between two own heartbeats that came back ended."""
        self.view_ns = 0
        """When the ring's present view began; the start of this node before the first."""
        self._reforms_ns: deque[int] = deque(maxlen=100)
        """When the ring formed anew, or was lost, though nobody joined and no daemon ended."""

    def configured(self, timing: Timing) -> None:
        self._timing = timing
        self._gap_ns = timing.token_ms * NS_PER_MS // 2
        """Longer without a tick is a gap."""

    def started(self, now_ns: int) -> None:
        """This node's engine starts: the floor under every life's last word."""
        self._started_ns = now_ns
        self._ticked_ns = self.last_gap_ns = self._echoed_ns = self._deaf_ns = self.view_ns = now_ns

    def heard(self, life: Life, now_ns: int) -> None:
        """Any frame of `life` was delivered.  Also call it for a member when it is lost from a view
        in which it was ready, if in doubt: later is safer."""
        self._heard_ns[life] = max(self._heard_ns.get(life, 0), now_ns)

    def last_heard_ns(self, life: Life) -> int:
        """When this node last heard `life`, at the earliest its own start.  A life that we know
        nothing of may be any of its node's, so all of them count for it."""
        assert self._started_ns is not None, "started() comes first: it is the floor of every bound"
        if life.unknown:
            known_ns = [at_ns for known, at_ns in self._heard_ns.items() if known.node == life.node]
            return max([self._started_ns, *known_ns])
        return max(self._started_ns, self._heard_ns.get(life, 0))

    def bound_passed(self, life: Life, now_ns: int, timing: Timing) -> bool:
        """Must the write authority of `life` have run out, as far as this node can tell?"""
        return now_ns >= self.last_heard_ns(life) + timing.bound_ms * NS_PER_MS

    def bound_left_ms(self, life: Life, now_ns: int, timing: Timing) -> int:
        """Milliseconds until `bound_passed`, for `why`; 0 = passed."""
        left_ns = self.last_heard_ns(life) + timing.bound_ms * NS_PER_MS - now_ns
        return max(0, -(-left_ns // NS_PER_MS))

    def silent(self, life: Life, now_ns: int, silent_ms: int) -> bool:
        """Has a member that ought to speak been silent for too long?"""
        return now_ns >= self.last_heard_ns(life) + silent_ms * NS_PER_MS

    def forget(self, life: Life) -> None:
        """The life is over and purged; its entry is no longer needed."""
        self._heard_ns.pop(life, None)

    def ticked(self, now_ns: int) -> None:
        """Time has passed.  A jump of over half a token is a gap: this node was frozen or starved."""
        if now_ns - self._ticked_ns > self._gap_ns:
            self.last_gap_ns = now_ns
        if now_ns > self._ticked_ns:
            self._ticked_ns = now_ns

    def calm(self, now_ns: int, detection_ms: int) -> bool:
        """No gap within the last detection time, nor one going on now.

        Whoever just thawed has an old idea of who is lost, and must not fence on it."""
        gap = now_ns - self._ticked_ns > self._gap_ns
        return not gap and now_ns >= self.last_gap_ns + detection_ms * NS_PER_MS

    def echoed(self, now_ns: int) -> None:
        """An own heartbeat came back through the ring.  A token without one is a gap: the ring stood
        still, or this node did not hear it."""
        if now_ns - self._echoed_ns > self._timing.token_ms * NS_PER_MS:
            self._deaf_ns = now_ns
        self._echoed_ns = max(self._echoed_ns, now_ns)

    def attentive(self, now_ns: int, detection_ms: int) -> bool:
        """Own heartbeats came back without a gap for the last detection time.

        When a ring that stood still goes on, it may deliver one member's backlog before another's:
        for a moment the others seem silent that only were not delivered yet."""
        return now_ns >= self._deaf_ns + detection_ms * NS_PER_MS

    def ring_formed(self, now_ns: int, *, without_cause: bool) -> None:
        """The ring formed anew, or was lost.

        Args:
            without_cause: nobody joined, and no daemon ended: messages were lost, or a host."""
        self.view_ns = now_ns
        if without_cause:
            self._reforms_ns.append(now_ns)

    def restless(self, now_ns: int) -> tuple[int, float]:
        """(how often the ring re-formed without cause, in how many seconds); (0, 0.0): as it should."""
        over_ms = RESTLESS_TOKENS * self._timing.token_ms
        ago_ms = [(now_ns - at_ns) / NS_PER_MS for at_ns in self._reforms_ns]
        times = sum(one < over_ms for one in ago_ms)
        goes_on = times >= RESTLESS and ago_ms[-1] < CALM_TOKENS * self._timing.token_ms
        return (times, over_ms / 1000) if goes_on else (0, 0.0)
