"""One open device or file, read and written past the page cache.

O_DIRECT wants offset, length and memory aligned to the device's logical block: buffers come from
mmap, ranges are widened to whole blocks, and a write that does not fill its blocks reads them first.
(Widening rewrites neighbours with what they were; areas of different writers never share a block.)
A file system without O_DIRECT gets O_DSYNC instead, which is said once for each device: a write is
then on stable storage when it returns, but reads may come from this host's cache, so such a file
must not be shared between hosts.

Source: open(2), fallocate(2); BLKSSZGET and BLKGETSIZE64 in Linux include/uapi/linux/fs.h, and what fallocate
means on a block device in block/fops.c (blkdev_fallocate: a hole is punched only where it reads as zeros)."""

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ringfence.core.errors import DeviceFailed

_BLKSSZGET = 0x1268
_BLKGETSIZE64 = 0x80081272
_SMALLEST_BLOCK = 512
_LARGEST_BLOCK = 4096
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10
_ZEROS_BYTES = 1 << 20
_CANNOT = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV)
"""What fallocate says where a device or a file system does not know a mode, or not for this range."""

_SCRATCH_BYTES = 256 << 10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class _Scratch(threading.local):
    """Aligned memory of a thread, for what is short: pages of its own for each read cost more than that."""

    memory: memoryview | None = None


_scratch = _Scratch()


@contextmanager
def _aligned(length: int) -> Iterator[memoryview]:
    """So much memory, of whatever content."""
    if length > _SCRATCH_BYTES:
        with mmap.mmap(-1, length) as buffer, memoryview(buffer) as whole:
            yield whole
        return
    memory, _scratch.memory = _scratch.memory, None  # nobody else's meanwhile
    if memory is None:
        memory = memoryview(mmap.mmap(-1, _SCRATCH_BYTES))
    try:
        with memory[:length] as part:
            yield part
    finally:
        _scratch.memory = memory


def _fallocate(fd: int, mode: int, offset_bytes: int, length_bytes: int) -> bool:
    """fallocate(2), which `os` has no modes for.  False: it cannot be done here.  Raises OSError."""
    while _libc.fallocate(fd, mode, offset_bytes, length_bytes):
        number = ctypes.get_errno()
        if number in _CANNOT:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


def size_and_block(path: str) -> tuple[int, int]:
    """Size and logical block of a device or file, in bytes.  Raises OSError; ValueError for other kinds."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _measure(fd)
    finally:
        os.close(fd)


def _measure(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode):
        return status.st_size, _SMALLEST_BLOCK
    if not stat.S_ISBLK(status.st_mode):
        raise ValueError("neither a regular file nor a block device")
    block = struct.unpack("i", fcntl.ioctl(fd, _BLKSSZGET, b"\0" * 4))[0]
    size = struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, b"\0" * 8))[0]
    return size, block


class DirectFile:
    """An open device; a context manager.  All methods raise DeviceFailed, which names the device."""

    def __init__(self, path: str, *, write: bool) -> None:
        self.path = path
        self.direct = True
        """False: O_DSYNC, for want of O_DIRECT."""
        mode = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC
        try:
            try:
                self._fd = os.open(path, mode | os.O_DIRECT)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._fd = os.open(path, mode | os.O_DSYNC)
                self.direct = False
        except OSError as error:
            raise _failed(path, "open", error) from error
        try:
            self.size_bytes, self._block = _measure(self._fd)
            if self.direct and self._block < _LARGEST_BLOCK and stat.S_ISREG(os.fstat(self._fd).st_mode):
                self._block = self._working_block()
        except (OSError, ValueError) as error:
            os.close(self._fd)
            raise _failed(path, "open", error) from error

    def __enter__(self) -> "DirectFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def _working_block(self) -> int:
        """A file on a disk with 4 KiB blocks refuses smaller ones; its size does not tell."""
        try:
            with _aligned(self._block) as view:
                os.preadv(self._fd, [view], 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return _LARGEST_BLOCK
        return self._block

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Exactly `length_bytes`.  Raises DeviceFailed, also where the device ends before that."""
        first, last = self._widen(offset_bytes, length_bytes)
        try:
            needed = offset_bytes + length_bytes - first
            return self._read_blocks(first, last - first, needed, slice(offset_bytes - first, needed))
        except OSError as error:
            raise _failed(self.path, f"read {length_bytes} bytes at {offset_bytes} of", error) from error

    def write(self, offset_bytes: int, data: bytes) -> None:
        """Write the bytes; they are on stable storage after `flush`."""
        first, last = self._widen(offset_bytes, len(data))
        try:
            if offset_bytes + len(data) > self.size_bytes:
                raise OSError(errno.ENOSPC, "beyond the end of the device")
            if (first, last) != (offset_bytes, offset_bytes + len(data)):
                old = self._read_blocks(first, last - first, needed=offset_bytes + len(data) - first)
                start = offset_bytes - first
                data = old[:start] + data + old[start + len(data) :]
            self._write_blocks(first, data)
        except OSError as error:
            raise _failed(self.path, f"write {len(data)} bytes at {offset_bytes} of", error) from error

    def zero(self, offset_bytes: int, length_bytes: int) -> None:
        """Have a range read as zeros; on stable storage after `flush`.

        The kernel is asked to give the space back, which it does only where zeros are read afterwards; else
        to write zeros, which a device may do by itself.  Where it can do neither, they are written here."""
        try:
            if offset_bytes + length_bytes > self.size_bytes:
                raise OSError(errno.ENOSPC, "beyond the end of the device")
            for mode in (_PUNCH_HOLE, _ZERO_RANGE):
                if _fallocate(self._fd, mode | _KEEP_SIZE, offset_bytes, length_bytes):
                    return
        except OSError as error:
            raise _failed(self.path, f"zero {length_bytes} bytes at {offset_bytes} of", error) from error
        zeros = bytes(min(_ZEROS_BYTES, length_bytes))
        for start in range(offset_bytes, offset_bytes + length_bytes, _ZEROS_BYTES):
            self.write(start, zeros[: offset_bytes + length_bytes - start])

    def flush(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise _failed(self.path, "flush", error) from error

    def _widen(self, offset_bytes: int, length_bytes: int) -> tuple[int, int]:
        block = self._block if self.direct else 1
        return offset_bytes // block * block, -(-(offset_bytes + length_bytes) // block) * block

    def _read_blocks(self, first: int, length: int, needed: int, part: slice | None = None) -> bytes:
        """Whole blocks, or a part of them; fewer only if the file ends behind what is needed."""
        if length == 0:
            return b""
        with _aligned(length) as memory:
            done = 0
            while done < needed:
                with memory[done:] as view:
                    count = os.preadv(self._fd, [view], first + done)
                if count == 0:
                    raise OSError(errno.EIO, "the device ends there")
                done += count
            with memory[part or slice(done)] as view:
                return bytes(view)

    def _write_blocks(self, first: int, data: bytes) -> None:
        if not data:
            return
        with _aligned(len(data)) as memory:
            memory[:] = data
            done = 0
            while done < len(data):
                with memory[done:] as view:
                    done += os.pwritev(self._fd, [view], first + done)


def _failed(path: str, what: str, error: Exception) -> DeviceFailed:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DeviceFailed(f"cannot {what} {path}: {reason}", next="look at the device and the kernel's log")
