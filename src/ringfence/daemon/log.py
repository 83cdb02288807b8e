"""The daemon's log: one entry a record in the journal, with fields; else one line a record on stderr.

    2026-03-01T12:00:00.123Z an-a01n01 victim an-a01n02 is suspected: it left the ring

A reader that does not read (a stopped journal, a full pipe) must not hold the event loop, so the
records go through a thread and a bounded queue; what does not fit is counted, and the count logged.
What the journal does not take while it is down goes to stderr, which is kept for it."""

import contextlib
import datetime
import os
import queue
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ringfence.daemon.journal_fields import journal_entry
from ringfence.host.journal import Journal, is_journal

QUEUED_LINES = 4096
NO_FIELDS: Mapping[str, Any] = MappingProxyType({})


class _Record(NamedTuple):
    line: bytes
    entry: bytes
    """Empty: there is no journal."""


class Log:
    """Args:
    journal: where entries go; by default the host's, if `fd` leads there.
    """

    def __init__(self, node: str, fd: int = 2, journal: Journal | None = None) -> None:
        self._node = node
        self._fd = fd
        self._journal = journal or (Journal() if is_journal(fd) else None)
        self._records: queue.Queue[_Record | None] = queue.Queue(QUEUED_LINES)
        self._lost = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def line(
        self, kind: str, what: str, wall_ms: int, fields: Mapping[str, Any] = NO_FIELDS, about: str = ""
    ) -> None:
        """Queue one record.  Never blocks, never raises.

        Args: about: the name of the node that it is about, if it is about one."""
        self._put(kind, what, wall_ms, fields, about)
        if self._lost and not self._records.full():
            lost, self._lost = self._lost, 0
            self._put("log", f"{lost} lines were lost: nobody read the log", wall_ms, {"lost": lost})

    def _put(self, kind: str, what: str, wall_ms: int, fields: Mapping[str, Any], about: str = "") -> None:
        text = f"{stamp(wall_ms)} {self._node} {kind} {' '.join(what.split())}\n"
        entry = b"" if self._journal is None else journal_entry(self._node, kind, what, fields, about)
        try:
            self._records.put_nowait(_Record(text.encode(errors="replace"), entry))
        except queue.Full:
            self._lost += 1

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, as far as somebody reads it within the time."""
        with contextlib.suppress(queue.Full):
            self._records.put_nowait(None)
        self._thread.join(timeout_s)

    def _write(self) -> None:
        while (record := self._records.get()) is not None:
            if not (record.entry and self._told(record.entry)):
                self._print(record.line)

    def _told(self, entry: bytes) -> bool:
        assert self._journal is not None
        try:
            self._journal.send(entry)
        except OSError:
            return False
        return True

    def _print(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # stderr closed: nothing is left to say it to
            while line:
                line = line[os.write(self._fd, line) :]


def stamp(wall_ms: int) -> str:
    at = datetime.datetime.fromtimestamp(wall_ms / 1000, datetime.UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{wall_ms % 1000:03d}Z"
