"""The broker's memory: the highest epoch sequence it ever announced.

One small file, replaced whole.  Order of the steps, and what is true if the machine stops after each:

1. write STATE.new and fsync it: the old number is in force, its view was announced, fine;
2. rename over STATE, fsync the directory: the new number is in force, no view bears it yet: a gap;
3. the view is announced: all is well.

So a number is never announced twice.  A file that is missing reads as "never ran": that it once
existed cannot be told from here.  Against that, nodes say in `Hello` the highest number they saw,
and the broker goes on above it.  A file that is damaged is an error: guessing low would let two
different views bear one number."""

import fcntl
import os
import zlib
from pathlib import Path
from typing import Self

import msgspec

from ringfence.core.errors import Damaged, RingfenceError, Unavailable


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    seq: int
    crc: int


class Epochs:
    """Strictly increasing numbers, each on stable storage before it is handed out.

    Holds a lock on the file, so that two brokers cannot count in it."""

    def __init__(self, path: Path) -> None:
        """Raises Damaged if the file makes no sense, Unavailable if another broker uses it or it
        cannot be opened."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(
                path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise Unavailable(
                f"the hub's state file {path} cannot be used: {error.strerror}", next="give another --state"
            ) from None
        try:
            self._take_lock()
            self.seq = self._read()
        except RingfenceError:
            os.close(self._lock)
            raise

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Unavailable(
                f"another hub uses the state file {self.path}", next="stop it, or give another --state"
            ) from None

    def _read(self) -> int:
        try:
            stored = msgspec.json.decode(self.path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise Unavailable(f"the hub's state file {self.path} cannot be read: {error.strerror}") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from None
        if stored.version != 1:
            raise self._damaged(f"version {stored.version}, but this hub knows 1")
        if stored.crc != _crc(stored.seq):
            raise self._damaged("the checksum does not fit")
        return stored.seq

    def _damaged(self, what: str) -> Damaged:
        return Damaged(
            f"the hub's state file {self.path} is damaged ({what})",
            next="stop every daemon, remove the file, start the hub, then the daemons: "
            "they tell it the highest epoch they know",
        )

    def above(self, seen: int) -> None:
        """Somebody saw this number announced: never give out one that is not greater."""
        self.seq = max(self.seq, seen)

    def next(self) -> int:
        """A number greater than all before.  Raises OSError, and counts nothing, if it cannot be kept."""
        seq = self.seq + 1
        fresh = self.path.with_name(self.path.name + ".new")
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(_Stored(1, seq, _crc(seq))) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self.seq = seq
        return seq

    def close(self) -> None:
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _crc(seq: int) -> int:
    return zlib.crc32(f"ringfence hub 1 {seq}".encode())
