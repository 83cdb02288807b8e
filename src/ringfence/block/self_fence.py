"""Self-fencing: the block service feeds the host's watchdog, as long as its open volumes are in order.

The block service is older than any daemon, has the data paths, and reads what authority they have left.  So a
daemon that is started anew resets nobody; and a host whose volumes cannot be closed, or whose daemon never
gets its authority back, does not stay as it is for ever.

A volume is in order while its authority is valid, and `hold_ms` more: so long the first write that is held
may still go on.  After that writes fail, and the volume ought to be closed.  With no volume open there is
nothing to be said against the host, and it is fed.  So a host is reset

    hold_ms + timeout_ms   at most after the authority of a volume that is still open has ended;
    timeout_ms             at most after it stopped running at all, or this service did.

What must hold between the times (`misfit`): timeout_ms <= write_ms, so that a host that stops altogether is
reset before anybody may purge it, which is at the earliest write_ms + 5 % after its last word; and
grace_ms <= hold_ms, so that a daemon that comes back within its grace period finds its host alive.

It is a net, not evidence: nobody's lock moves because a watchdog must have run out."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime_ns

import msgspec

from ringfence.core.cluster import Timing
from ringfence.host.pages import Authority, PageReader, state_of
from ringfence.host.watchdog import Watchdog

FEEDINGS = 4
"""In one timeout."""
NS_PER_MS = 1_000_000


class OpenPath(msgspec.Struct, frozen=True):
    """A data path whose worker is not reaped."""

    name: str
    pages: tuple[str, ...]
    hold_ms: int


def timeout_s(timing: Timing, timeout_ms: int = 0) -> int:
    """What the watchdog is set to, in whole seconds.

    Args: timeout_ms: as configured; 0: as long as the write authority."""
    return (timeout_ms or timing.write_ms) // 1000


def misfit(timing: Timing, timeout_ms: int = 0) -> str:
    """Why a watchdog with this timeout does not fit the timing; empty: it fits."""
    limit_ms = timeout_ms or timing.write_ms
    if limit_ms < 1000:
        return f"timeout_ms = {limit_ms}: a watchdog counts whole seconds; give 1000 at least"
    if limit_ms > timing.write_ms:
        what = f"timeout_ms = {limit_ms} is longer than write_ms = {timing.write_ms}"
        return f"{what}: a host that hangs could be purged before it is reset"
    if timing.grace_ms > timing.hold_ms:
        what = f"hold_ms = {timing.hold_ms} is shorter than grace_ms = {timing.grace_ms}"
        return f"{what}: the host could be reset while its daemon may still come back"
    return ""


class SelfFence:
    """Args:
    paths: what is open now.
    say: for what a person should know; a line each."""

    def __init__(
        self,
        watchdog: Watchdog,
        paths: Callable[[], Sequence[OpenPath]],
        say: Callable[[str], None],
        now_ns: Callable[[], int] = lambda: clock_gettime_ns(CLOCK_BOOTTIME),
    ) -> None:
        self._watchdog = watchdog
        self._paths = paths
        self._say = say
        self._now_ns = now_ns
        self._readers: dict[str, PageReader] = {}
        self._valid_ns: dict[str, int] = {}
        """When a path's authority was last seen valid; at first, when it was first seen."""
        self._said = ""

    async def run(self) -> None:
        """Feed until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(self._watchdog.timeout_s / FEEDINGS)

    def look(self) -> None:
        """Feed it, if nothing is to be said against that."""
        why = self._why_not()
        if not why:
            self._watchdog.feed()
        if why != self._said:
            self._said = why
            self._say(
                f"THE WATCHDOG IS NOT FED, and resets this host within {self._watchdog.timeout_s} s: {why}"
                if why
                else "the watchdog is fed again"
            )

    def end(self) -> None:
        """The service ends in order: with everything closed the timer stops, else it runs on."""
        if self._paths():
            self._watchdog.leave_ticking()
        else:
            self._watchdog.stop()

    def _why_not(self) -> str:
        now_ns, paths = self._now_ns(), self._paths()
        self._valid_ns = {path.name: self._valid_ns.get(path.name, now_ns) for path in paths}
        used = [page for path in paths for page in path.pages]
        self._readers = {page: self._readers.get(page) or PageReader(Path(page)) for page in used}
        for path in paths:
            over_ms = (now_ns - self._ended_ns(path, now_ns)) // NS_PER_MS
            if over_ms >= path.hold_ms:
                return f"{path.name} is still open over {path.hold_ms} ms after its authority ended"
        return ""

    def _ended_ns(self, path: OpenPath, now_ns: int) -> int:
        """When its authority ended; `now_ns` if it has not.

        A page may be taken away before its deadline: it reads lost, or a deadline of long ago."""
        deadline_ns = min((self._readers[page].deadline_ns() for page in path.pages), default=0)
        if state_of(deadline_ns, now_ns) is Authority.VALID:
            self._valid_ns[path.name] = now_ns
            return now_ns
        return max(deadline_ns, self._valid_ns[path.name])
