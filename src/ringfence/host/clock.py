"""The host's clocks.

Everything that is compared uses CLOCK_BOOTTIME: it counts on while the host sleeps and no admin sets
it, so a host that was suspended or frozen finds its deadlines passed when it wakes.  The wall clock
is for people's eyes only."""

import time
from functools import partial


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class HostClock:
    """Both clocks as one object, for callers that take their clock as an argument."""

    boottime_ns = staticmethod(partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME))
    """As the function of that name; read at every step, and so without one."""

    def wall_ms(self) -> int:
        return wall_ms()
