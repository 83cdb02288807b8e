"""Events in SQLite: an append-only list with bounds.

Promises: sequence numbers only grow; the newest `keep` events are there; what is about fencing, and
every incident, is never pruned.  An incident is on stable storage when `append` returns (the block
service forgets its own copy then); other events may lose the last moments before a power cut.  A
file that SQLite cannot read is set aside under another name and a new one begun: a damaged log must
not keep a host out of its cluster.

Source: sqlite.org/wal.html (synchronous=NORMAL loses recent commits at power loss, never consistency)."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ringfence.core.errors import DeviceFailed, NotFound
from ringfence.history.kinds import FENCE_KINDS, INCIDENT

KEEP = 100_000
PRUNE_EVERY = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    wall_ms INTEGER NOT NULL,
    boottime_ns INTEGER NOT NULL,
    kind TEXT NOT NULL,
    what TEXT NOT NULL,
    node INTEGER,
    fields TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_kind ON events (kind, seq);
"""
_COLUMNS = "seq, wall_ms, boottime_ns, kind, what, fields"
_FENCES = f"kind IN ({', '.join('?' * len(FENCE_KINDS))})"


class History:
    """One writer: the host's daemon.

    Args:
        path: the database; its directory must exist.
        names: node ids and names, so that `fences` can be asked by name.
        say: told one line when a damaged file was set aside.
        keep: how many ordinary events stay.

    Raises:
        DeviceFailed: it cannot be opened, and not because it is damaged.
    """

    def __init__(
        self,
        path: Path,
        names: Mapping[int, str] | None = None,
        say: Callable[[str], None] = lambda line: None,
        keep: int = KEEP,
    ) -> None:
        self.path = path
        self._names = dict(names or {})
        self._keep = keep
        self._since_pruning = 0
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise self._failed(error) from None
            aside = self._set_aside()
            say(f"the history {path} was damaged ({error}); it lies now at {aside}, and a new one is begun")
            try:
                self._db = self._open()
            except sqlite3.DatabaseError as second:
                raise self._failed(second) from None

    def append(self, kind: str, what: str, fields: dict[str, Any], wall_ms: int, boottime_ns: int) -> int:
        """Returns the event's sequence number.

        Raises:
            DeviceFailed: it is not stored (disk full, file damaged); the next one may be again.
        """
        node = fields.get("node")
        row = (wall_ms, boottime_ns, kind, what, node if isinstance(node, int) else None, json.dumps(fields))
        try:
            if kind == INCIDENT:
                self._db.execute("PRAGMA synchronous = FULL")
            seq = self._db.execute(
                "INSERT INTO events (wall_ms, boottime_ns, kind, what, node, fields) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                row,
            ).lastrowid
            if kind == INCIDENT:
                self._db.execute("PRAGMA synchronous = NORMAL")
            assert seq is not None
            self._since_pruning += 1
            if self._since_pruning >= min(PRUNE_EVERY, self._keep):
                self._prune(seq)
        except sqlite3.Error as error:
            raise self._failed(error) from None
        return seq

    def events(self, since: int, limit: int) -> list[dict[str, Any]]:
        """Oldest first, those after sequence number `since`.

        Keys: seq, wall_ms, boottime_ns, kind, what, fields.  Raises DeviceFailed."""
        return self._select("seq > ? ORDER BY seq LIMIT ?", (since, limit))

    def fences(self, node: str) -> list[dict[str, Any]]:
        """Everything about fencing, oldest first: of one node (a name or an id), or of all ("").

        Raises:
            NotFound: no node of this name is configured.
            DeviceFailed: the store cannot be read.
        """
        if not node:
            return self._select(f"{_FENCES} ORDER BY seq", FENCE_KINDS)
        id = next((id for id, name in self._names.items() if name == node), None)
        if id is None and not node.isdecimal():
            known = ", ".join(self._names.values())
            raise NotFound(f"no node is called {node!r}", next=f"choose one of: {known}")
        return self._select(
            f"{_FENCES} AND node = ? ORDER BY seq", (*FENCE_KINDS, int(node) if id is None else id)
        )

    def close(self) -> None:
        self._db.close()

    # -- inside -----------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        # The daemon uses it from its event loop's thread alone, but may open it before in another.
        db = sqlite3.connect(self.path, timeout=1, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.executescript(_SCHEMA)
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(f"malformed: {verdict}".splitlines()[0])
            db.execute(f"SELECT {_COLUMNS}, node FROM events LIMIT 1").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    def _select(self, where: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        try:
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM events WHERE {where}", values).fetchall()
            return [
                {
                    "seq": seq,
                    "wall_ms": wall_ms,
                    "boottime_ns": boottime_ns,
                    "kind": kind,
                    "what": what,
                    "fields": json.loads(fields),
                }
                for seq, wall_ms, boottime_ns, kind, what, fields in rows
            ]
        except (sqlite3.Error, ValueError) as error:
            raise self._failed(error) from None

    def _prune(self, newest: int) -> None:
        self._since_pruning = 0
        self._db.execute(
            f"DELETE FROM events WHERE seq <= ? AND NOT {_FENCES}", (newest - self._keep, *FENCE_KINDS)
        )

    def _set_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        try:
            self.path.rename(aside)
            # They belong to the damaged file; beside a new one they would be read as its own.
            for tail in ("-wal", "-shm"):
                beside = self.path.with_name(self.path.name + tail)
                if beside.exists():
                    beside.rename(aside.with_name(aside.name + tail))
        except OSError as error:
            raise DeviceFailed(
                f"cannot set the damaged history {self.path} aside: {error.strerror}", next="remove it"
            ) from None
        return aside

    def _failed(self, error: Exception) -> DeviceFailed:
        return DeviceFailed(
            f"cannot use the history {self.path}: {error}",
            next=f"make room or mend the file system under {self.path.parent}",
        )


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Damage, or a table of another shape; not a full disk, a lock or a missing directory."""
    text = str(error)
    words = ("malformed", "not a database", "no such column", "no such table")
    return any(word in text for word in words)
