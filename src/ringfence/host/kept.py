"""Small values that must survive a power cut, each in a file of its own, replaced whole.

`keep` writes PATH.new, flushes it, renames it over PATH and flushes the directory.  What a reader
finds after a crash at any point:

    while PATH.new is written or flushed    the old value (a left-over PATH.new is written over next time)
    after the rename, before the last flush the old or the new value, whole
    after `keep` has returned               the new value

So a caller may act on a value only after `keep` has returned.

With `room` the value that was replaced stays as PATH.new, and the next one is written over it: on a file
system that has run full meanwhile there is still room for that (not where every write needs new blocks, as on
btrfs).  What is written over must not be what the disk has as PATH: so the directory is flushed first, unless
this process has done that since it exchanged the two.  Source: rename(2), fsync(2)."""

import ctypes
import errno
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from ringfence.core.errors import Damaged, DeviceFailed

T = TypeVar("T")

ROOM_BYTES = 4096
"""Of a small file, on most file systems: a value that grows within that needs no more room."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_libc = ctypes.CDLL(None, use_errno=True)
_settled: set[Path] = set()
"""Whose names on the disk are those that this process sees."""


def keep(path: Path, value: msgspec.Struct) -> None:
    """Store `value` as JSON; on stable storage when this returns.  With `room`: see above.

    Raises:
        DeviceFailed: the disk is full or failed.  The old value is still there, whole.
    """
    data = msgspec.json.encode(value) + b"\n"
    _replace(path, data + b" " * (-len(data) % ROOM_BYTES), 0o600, room=True)


def load(path: Path, kind: type[T]) -> T | None:
    """The stored value, or None if none was ever kept.

    Raises:
        DeviceFailed: the file cannot be read.
        Damaged: it does not hold a `kind`.  Never read as "nothing kept": what was forgotten here
            could be a victim.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DeviceFailed(f"cannot read {path}: {error.strerror}", next=f"look at {path.parent}") from None
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Damaged(
            f"{path} is damaged: {error}", next="restore it, or remove it if this host is new"
        ) from None


def keep_bytes(path: Path, data: bytes, mode: int = 0o600) -> None:
    """As `keep`, for bytes that are already rendered, and without room."""
    _replace(path, data, mode, room=False)


def _replace(path: Path, data: bytes, mode: int, *, room: bool) -> None:
    new = path.with_name(path.name + ".new")
    try:
        if room and path not in _settled:
            sync_directory(path.parent)
        _settled.discard(path)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if room else os.O_TRUNC), mode)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.ftruncate(fd, len(data))
            os.fsync(fd)
        finally:
            os.close(fd)
        if not (room and _exchange(new, path)):
            os.replace(new, path)
        sync_directory(path.parent)
        _settled.add(path)
    except OSError as error:
        raise DeviceFailed(
            f"cannot keep {path}: {error.strerror}",
            next=f"make room or mend the file system under {path.parent}",
        ) from None


def _exchange(one: Path, other: Path) -> bool:
    """Each gets the other's name.  False: there is no other yet, or the file system cannot do it.

    Raises OSError.  Source: renameat2(2)."""
    names = os.fsencode(one), os.fsencode(other)
    if _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOENT, errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))


def sync_directory(directory: Path) -> None:
    """Make a rename, creation or removal in `directory` durable.  Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
