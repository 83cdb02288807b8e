"""What becomes of a table, by its authority pages and the clock.  Pure.

valid     I/O passes
lapsed    it is held (suspended without flush), and goes on if the page is renewed in the same incarnation
lost      it fails; so does what was held for longer than hold_ms

To suspend takes a moment, of many tables a longer one.  So it begins LEAD_MS before the deadline; a host that
is well renews its deadline several times in each write_ms, and never comes that near.  (Where write_ms is
short it begins at most a quarter of it before.)"""

from enum import Enum

from ringfence.host.pages import LOST_NS, UNCHECKED_NS

LEAD_MS = 250


class Wanted(Enum):
    PASS = "pass"
    HOLD = "hold"
    FAIL = "fail"


class Judge:
    """Of one table, or of several under the same pages.

    Args: hold_ms: how long I/O may be held."""

    def __init__(self, hold_ms: int, lead_ms: int = LEAD_MS) -> None:
        self._hold_ns = hold_ms * 1_000_000
        self._lead_ns = lead_ms * 1_000_000
        self._held_since_ns: int | None = None
        self._valid_ns = 0
        self._longest_ns = 0
        """How far off a deadline was at most."""
        self.ended_ns: int | None = None
        """When authority ended; None: it has not.  At the deadline, or where the page was taken away before
        that, some moment after the last look that found it valid."""

    def look(self, deadline_ns: int, now_ns: int) -> Wanted:
        """
        Args:
            deadline_ns: the least of the pages', 0 where one is lost.
            now_ns: CLOCK_BOOTTIME.
        """
        left_ns = deadline_ns - now_ns
        self._longest_ns = max(self._longest_ns, left_ns)
        if deadline_ns == UNCHECKED_NS or left_ns > min(self._lead_ns, self._longest_ns // 4):
            self._held_since_ns = self.ended_ns = None
            self._valid_ns = now_ns
            return Wanted.PASS
        if self._held_since_ns is None:
            self._held_since_ns = now_ns
            self.ended_ns = max(deadline_ns, self._valid_ns)
        lost = deadline_ns == LOST_NS or now_ns - self._held_since_ns >= self._hold_ns
        return Wanted.FAIL if lost else Wanted.HOLD
