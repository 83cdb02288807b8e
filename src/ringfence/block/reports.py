"""What a worker reports: late writes one by one, refused writes gathered.

A late write has reached the disk after authority had ended: it is stored, with its range, before its
client is answered, each by itself.  A refused write has changed nothing; the first is reported at
once, and what a client that tries again and again adds to it is gathered into one report with the
range that covers all, at intervals that double up to a minute."""

import itertools
import threading
from collections.abc import Callable

from ringfence.block.incident_file import IncidentFile
from ringfence.wire.block import IncidentStored
from ringfence.wire.entries import Incident

FIRST_GATHER_S = 1.0
LONGEST_GATHER_S = 60.0


class Reports:
    """
    Args:
        volume: "VG/LV", as it is called at the time.
        prefix: makes the ids unique among all workers of all times.
        file: where incidents are stored first.
        tell: passes one on to the service; never blocks for long, never raises.
        wall_ms: the wall clock, for people.
    """

    def __init__(
        self,
        volume: str,
        node: int,
        prefix: str,
        file: IncidentFile,
        tell: Callable[[IncidentStored], None],
        wall_ms: Callable[[], int],
    ) -> None:
        self.volume = volume
        self._node = node
        self._prefix = prefix
        self._file = file
        self._tell = tell
        self._wall_ms = wall_ms
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._gathering: threading.Timer | None = None
        self._gather_s = FIRST_GATHER_S
        self._count = 0
        self._start = 0
        self._end = 0
        self._why = ""

    def late(self, what: str, offset_bytes: int, length_bytes: int, why: str) -> None:
        """A write was done and its authority had ended by then.  Returns when that is on disk.

        Args: what: "write", or what else changes a range."""
        words = (
            f"a {what} of {length_bytes} bytes at {offset_bytes} of {self.volume} reached the disk"
            f" though {why} meanwhile"
        )
        self._report("write-late", words, offset_bytes, length_bytes)

    def refused(self, what: str, offset_bytes: int, length_bytes: int, why: str) -> None:
        """A write was not done."""
        with self._lock:
            if self._gathering is not None:
                end = offset_bytes + length_bytes
                self._start = min(self._start, offset_bytes) if self._count else offset_bytes
                self._end = max(self._end, end) if self._count else end
                self._count += 1
                self._why = why
                return
            self._wait()
        words = f"a {what} of {length_bytes} bytes at {offset_bytes} of {self.volume} was refused: {why}"
        self._report("write-refused", words, offset_bytes, length_bytes)

    def close(self) -> None:
        """Report what was gathered."""
        with self._lock:
            if self._gathering is not None:
                self._gathering.cancel()
                self._gathering = None
        self._report_gathered()

    def _wait(self) -> None:
        self._gathering = threading.Timer(self._gather_s, self._gathered)
        self._gathering.daemon = True
        self._gathering.start()

    def _gathered(self) -> None:
        with self._lock:
            self._gathering = None
            if self._count:
                self._gather_s = min(self._gather_s * 2, LONGEST_GATHER_S)
                self._wait()
            else:
                self._gather_s = FIRST_GATHER_S  # quiet for a whole interval: the next one is news again
        self._report_gathered()

    def _report_gathered(self) -> None:
        with self._lock:
            count, start, end, why = self._count, self._start, self._end, self._why
            self._count = 0
        if count:
            what = f"{count} more writes within {start}..{end} of {self.volume} were refused: {why}"
            self._report("write-refused", what, start, end - start)

    def _report(self, kind: str, what: str, offset_bytes: int, length_bytes: int) -> None:
        incident = Incident(
            kind, self._node, what, volume=self.volume,
            offset_bytes=offset_bytes, length_bytes=length_bytes, at_wall_ms=self._wall_ms(),
        )  # fmt: skip
        id = f"{self._prefix}.{next(self._numbers)}"
        durable = True
        try:
            self._file.store(id, incident)
        except OSError:
            durable = False  # the service keeps it in memory; better than to stop the answer
        self._tell(IncidentStored(id, incident, durable))
