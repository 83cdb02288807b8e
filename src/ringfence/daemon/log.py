"""The daemon's log: one line a record on stderr, for the journal.

    2026-03-01T12:00:00.123Z an-a01n01 victim an-a01n02 is suspected: it left the ring

A reader that does not read (a stopped journal, a full pipe) must not hold the event loop, so the
lines go through a thread and a bounded queue; what does not fit is counted, and the count logged."""

import contextlib
import datetime
import os
import queue
import threading

QUEUED_LINES = 4096


class Log:
    def __init__(self, node: str, fd: int = 2) -> None:
        self._node = node
        self._fd = fd
        self._lines: queue.Queue[bytes | None] = queue.Queue(QUEUED_LINES)
        self._lost = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def line(self, kind: str, what: str, wall_ms: int) -> None:
        """Queue one record.  Never blocks, never raises."""
        self._put(kind, what, wall_ms)
        if self._lost and not self._lines.full():
            lost, self._lost = self._lost, 0
            self._put("log", f"{lost} lines were lost: nobody read the log", wall_ms)

    def _put(self, kind: str, what: str, wall_ms: int) -> None:
        text = f"{stamp(wall_ms)} {self._node} {kind} {' '.join(what.split())}\n"
        try:
            self._lines.put_nowait(text.encode(errors="replace"))
        except queue.Full:
            self._lost += 1

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, as far as somebody reads it within the time."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(timeout_s)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError):  # stderr closed: nothing is left to say it to
                while line:
                    line = line[os.write(self._fd, line) :]


def stamp(wall_ms: int) -> str:
    at = datetime.datetime.fromtimestamp(wall_ms / 1000, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{wall_ms % 1000:03d}Z"
