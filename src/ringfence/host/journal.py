"""systemd's journal, in its own language: entries with fields, as one datagram each.

A field is NAME=VALUE and a newline; a value with a newline in it is NAME, a newline, its length as a
little-endian u64, its bytes, a newline.  Names are A to Z, 0 to 9 and _, do not begin with _ (those are the
journal's own) or a digit, and have 64 bytes at most.  An entry that is too large for a datagram goes in a
sealed memory file whose descriptor is sent in its place.

Source: systemd.io/JOURNAL_NATIVE_PROTOCOL; systemd.journal-fields(7); JOURNAL_STREAM in systemd.exec(5)."""

import errno
import fcntl
import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

JOURNAL = Path("/run/systemd/journal/socket")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")


def is_journal(fd: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to `fd` ends up in the journal: only then may entries go there instead."""
    try:
        there = os.fstat(fd)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{there.st_dev}:{there.st_ino}"


def name_of(word: str, prefix: str = "") -> str:
    """A field's name for a word of ours: RINGFENCE_AT_WALL_MS for at_wall_ms."""
    return _NOT_IN_NAMES.sub("_", f"{prefix}{word}".upper())[:64]


def entry(fields: Mapping[str, str]) -> bytes:
    """One entry's bytes.  Args: fields: by valid names; what cannot be encoded is escaped."""
    found = bytearray()
    for name, text in fields.items():
        value = text.encode(errors="backslashreplace")
        if b"\n" in value:
            found += name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
        else:
            found += name.encode() + b"=" + value + b"\n"
    return bytes(found)


class Journal:
    """A way to the journal.  It is connected when it is used: the journal may be restarted meanwhile."""

    def __init__(self, path: Path = JOURNAL) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def send(self, data: bytes) -> None:
        """Send one entry; blocks while the journal's queue is full.  Raises OSError: nobody takes it."""
        try:
            self._socket.sendto(data, str(self._path))
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_file(data)

    def close(self) -> None:
        self._socket.close()

    def _send_file(self, data: bytes) -> None:
        fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
            self._socket.sendmsg([], [rights], 0, str(self._path))
        finally:
            os.close(fd)
