"""What the service manager hears of the daemon: ready, how it fares, that it still turns round.

The watchdog is fed from the loop's own tick, so a loop that stands still goes unfed: it is killed, and
started anew, between three quarters of the limit and the whole of it after it stopped.  Words leave
through a worker thread: a service manager that does not read must not hold the loop.

Source: sd_notify(3), sd_watchdog_enabled(3)."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping

from ringfence.core.cluster import Timing
from ringfence.host.notify import notify

STATUS_KINDS = (
    "started", "ring-lost", "suspended", "shut-out", "not-admitted", "protocol", "stale", "reborn", "victim",
    "adopted", "lockspace-runs", "divergent", "left",
)  # fmt: skip
"""Events that change what an admin should read in `systemctl status`."""
START_S = 5.0
"""How long a daemon may take from its end by the watchdog until it is ready again."""


class Supervisor:
    """Fulfils `ports.Watch`.

    Args:
        environment: where WATCHDOG_USEC and WATCHDOG_PID stand.
        say: sends one message; may block.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, say: Callable[[str], object] = notify
    ) -> None:
        self._say = say
        self._every_s = watchdog_s(environment) / 4
        self._fed_s = 0.0

    def ready(self) -> None:
        self._later("READY=1")

    def recorded(self, kind: str, what: str) -> None:
        if kind in STATUS_KINDS:
            self._later(f"STATUS={' '.join(what.split())}")

    def alive(self) -> None:
        now_s = time.monotonic()
        if self._every_s and now_s - self._fed_s >= self._every_s:
            self._fed_s = now_s
            self._later("WATCHDOG=1")

    def ending(self, why: str) -> None:
        self._later(f"STOPPING=1\nSTATUS={' '.join(why.split())}")

    def _later(self, words: str) -> None:
        asyncio.get_running_loop().run_in_executor(None, self._say, words)


def misfit(timing: Timing, environment: Mapping[str, str] = os.environ) -> str:
    """Why the watchdog's limit does not fit this timing; "" if it does, or there is none."""
    limit_s = watchdog_s(environment)
    most_s, least_s = timing.grace_ms / 1000 - START_S, timing.write_ms / 1000 * 4 / 3
    if limit_s and limit_s > most_s:
        why = f"grace_ms = {timing.grace_ms}: the next daemon comes too late to go on with the volumes"
        return f"WatchdogSec={limit_s:g} does not fit {why}; make it {most_s:g} at most"
    if 0 < limit_s < least_s:
        why = f"write_ms = {timing.write_ms}: a loop that stood still so long might go on by itself"
        return f"WatchdogSec={limit_s:g} does not fit {why}; make it {least_s:g} at least"
    return ""


def watchdog_s(environment: Mapping[str, str]) -> float:
    """0: nobody watches this process."""
    limit_us, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not limit_us.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(limit_us) / 1e6
