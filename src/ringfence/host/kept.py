"""Small values that must survive a power cut, each in a file of its own, replaced whole.

`keep` writes PATH.new, flushes it, renames it over PATH and flushes the directory.  What a reader
finds after a crash at any point:

    while PATH.new is written or flushed    the old value (a left-over PATH.new is written over next time)
    after the rename, before the last flush the old or the new value, whole
    after `keep` has returned               the new value

So a caller may act on a value only after `keep` has returned.  Source: rename(2), fsync(2)."""

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from ringfence.core.errors import Damaged, DeviceFailed

T = TypeVar("T")


def keep(path: Path, value: msgspec.Struct) -> None:
    """Store `value` as JSON; on stable storage when this returns.

    Raises:
        DeviceFailed: the disk is full or failed.  The old value is still there, whole.
    """
    keep_bytes(path, msgspec.json.encode(value) + b"\n")


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
    """As `keep`, for bytes that are already rendered."""
    new = path.with_name(path.name + ".new")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(new, path)
        sync_directory(path.parent)
    except OSError as error:
        raise DeviceFailed(
            f"cannot keep {path}: {error.strerror}",
            next=f"make room or mend the file system under {path.parent}",
        ) from None


def sync_directory(directory: Path) -> None:
    """Make a rename, creation or removal in `directory` durable.  Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
