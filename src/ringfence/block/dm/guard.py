"""The guard: a thread that brings tables to what their authority pages say.

It depends on no event loop: a daemon, or this service's own loop, may stand still meanwhile.  It looks every
LOOK_S and does nothing slow itself: to suspend, resume and cut is the work of other threads, one at a time
for each table, so that a disk that hangs holds up its own table alone."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime_ns
from typing import Protocol

from ringfence.block.dm.judge import Judge, Wanted
from ringfence.host.pages import PageReader

LOOK_S = 0.02
AT_ONCE = 16
COUNTED_AT_ONCE = 64
"""So many tables' counters are read at one look."""


class Guarded(Protocol):
    """One table, or several that have their authority from the same pages."""

    def deadline_ns(self, read: Callable[[str], int]) -> int:
        """Its authority's, 0 if it is lost.  Args: read: a page's deadline, by its path."""

    @property
    def judge(self) -> Judge: ...

    @property
    def state(self) -> Wanted:
        """What it was brought to last."""

    def count(self, deadline_ns: int) -> None:
        """Note what was written so far, if that is known before the deadline.  Quick."""

    def bring(self, wanted: Wanted) -> None:
        """Bring it there.  May block; raises nothing."""


class Guard:
    """Args: now_ns: CLOCK_BOOTTIME."""

    def __init__(self, now_ns: Callable[[], int] = lambda: clock_gettime_ns(CLOCK_BOOTTIME)) -> None:
        self._now_ns = now_ns
        self._guarded: list[Guarded] = []
        self._busy: list[Guarded] = []
        self._lock = threading.Lock()
        self._readers: dict[str, PageReader] = {}
        self._used: set[str] = set()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="dm")
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dm-guard", daemon=True)
        self._next_counted = 0

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """The thread ends; tables stay as they are."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def add(self, one: Guarded) -> None:
        with self._lock:
            if not any(other is one for other in self._guarded):
                self._guarded = [*self._guarded, one]

    def remove(self, one: Guarded) -> None:
        with self._lock:
            self._guarded = [other for other in self._guarded if other is not one]

    def judge(self, one: Guarded) -> Wanted:
        """What is right for it now."""
        return one.judge.look(one.deadline_ns(self._read), self._now_ns())

    def look(self) -> None:
        """Once over all of them."""
        with self._lock:
            guarded, busy = self._guarded, self._busy
        self._used = set()
        passing: list[tuple[Guarded, int]] = []
        for one in guarded:
            deadline_ns = one.deadline_ns(self._read)
            wanted = one.judge.look(deadline_ns, self._now_ns())
            if any(other is one for other in busy):
                continue
            if wanted is not one.state:
                self._order(one, wanted)
            elif wanted is Wanted.PASS:
                passing.append((one, deadline_ns))
        self._count(passing)
        self._readers = {page: reader for page, reader in self._readers.items() if page in self._used}

    def _count(self, passing: Sequence[tuple[Guarded, int]]) -> None:
        """Some of them, in turn."""
        if not passing:
            return
        first = self._next_counted % len(passing)
        for one, deadline_ns in (*passing[first:], *passing[:first])[:COUNTED_AT_ONCE]:
            one.count(deadline_ns)
        self._next_counted = first + COUNTED_AT_ONCE

    def _order(self, one: Guarded, wanted: Wanted) -> None:
        with self._lock:
            self._busy = [*self._busy, one]
        self._pool.submit(self._bring, one, wanted)

    def _bring(self, one: Guarded, wanted: Wanted) -> None:
        try:
            one.bring(wanted)
        finally:
            with self._lock:
                self._busy = [other for other in self._busy if other is not one]

    def _read(self, page: str) -> int:
        self._used.add(page)
        reader = self._readers.get(page)
        if reader is None:
            reader = self._readers[page] = PageReader(Path(page))
        return reader.deadline_ns()

    def _run(self) -> None:
        while not self._ending.wait(LOOK_S):
            self.look()
