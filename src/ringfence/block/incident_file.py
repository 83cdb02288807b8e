"""The incidents that nobody has acknowledged yet: an append-only file of JSON lines.

Workers append an incident and flush it before they answer the write that it is about, so that it is
known even if the host loses power right then.  The service appends acknowledgements, and rewrites
the file without what was acknowledged when it starts, while no worker lives.

After a crash at any point each line is whole or it is the torn last one, which nobody was told of
and which is skipped; every record starts on a line of its own, so a torn line spoils no other."""

import os
from pathlib import Path

import msgspec

from ringfence.host.kept import keep_bytes
from ringfence.wire.entries import Incident


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    incident: Incident | None = None
    """None: the incident of this id is acknowledged."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Record).decode


class IncidentFile:
    """An open incidents file, for appending.  Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def store(self, id: str, incident: Incident) -> None:
        """Durable when this returns.  Raises OSError (a full disk)."""
        self._append(_Record(id, incident))
        os.fdatasync(self._fd)

    def acknowledge(self, id: str) -> None:
        """Not flushed: an acknowledgement that is lost means that the incident is told once more."""
        self._append(_Record(id))

    def _append(self, record: _Record) -> None:
        line = b"\n" + _encode(record) + b"\n"
        wrote = os.write(self._fd, line)  # one write with O_APPEND: whole, beside other writers'
        if wrote != len(line):
            raise OSError(28, os.strerror(28))


class IncidentReader:
    """Reads what was appended since it last looked.  A line that is not whole yet is read next time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self.unread_lines = 0
        """Lines that are no records: torn ones."""

    def new(self) -> list[tuple[str, Incident | None]]:
        """(id, incident), None for an acknowledgement.  Raises OSError."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return []
        end = data.rfind(b"\n") + 1
        self._at += end
        found: list[tuple[str, Incident | None]] = []
        for line in data[:end].splitlines():
            if not line:
                continue
            try:
                record = _decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self.unread_lines += 1
            else:
                found.append((record.id, record.incident))
        return found


def compact(path: Path) -> dict[str, Incident]:
    """Rewrite the file with only what is not acknowledged, and return that.  No worker may live.

    Raises OSError, DeviceFailed; the old file is then untouched."""
    open_incidents: dict[str, Incident] = {}
    for id, incident in IncidentReader(path).new():
        if incident is None:
            open_incidents.pop(id, None)
        else:
            open_incidents[id] = incident
    keep_bytes(path, b"".join(_encode(_Record(id, one)) + b"\n" for id, one in open_incidents.items()))
    return open_incidents
