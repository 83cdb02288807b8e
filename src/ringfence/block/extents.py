"""An LV's bytes: its extents on files and block devices, one after the other, each linear or striped.

Direct I/O where the file system has it, so that nothing of ours stands in this host's page cache
when the lock moves on; else O_DSYNC.  Short transfers are taken up again; a range never reaches
beyond its extent."""

import bisect
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterable, Sequence

from ringfence.core.errors import BadInput, DeviceFailed
from ringfence.wire.block import Extent

BLKSSZGET = 0x1268
BLOCK_BYTES = (512, 4096)
"""Granularities of direct I/O, tried in this order."""
BLKDISCARD = 0x1277
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16
ZEROES = memoryview(mmap.mmap(-1, 1 << 20, prot=mmap.PROT_READ))
"""On a page boundary; they take no memory, for nobody writes to them."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


Piece = tuple[tuple[tuple[int, int], ...], int, int]
"""An extent, open: (fd, start there) of each stripe, its length, and how much of it lies on one stripe before
the next one's turn; all of it where there is one alone."""


class Extents:
    """An LV, open.  Safe for several threads: there is no position and no cache.

    Raises:
        BadInput: no extents, or extents that direct I/O cannot address.
        DeviceFailed: a path cannot be opened or read, or ends before its extent.
    """

    def __init__(self, extents: Sequence[Extent], readonly: bool = False) -> None:
        if not extents:
            raise BadInput("an LV without extents cannot be opened")
        self._fds: dict[str, int] = {}
        """What is missing has none: the kernel refuses each call (EBADF), and NBD's clients read EIO."""
        self._devices: list[int] = []
        """Those of the descriptors that are block devices."""
        self.direct = True
        """False if any path has no direct I/O."""
        self.block_bytes = BLOCK_BYTES[0]
        """Offsets and lengths must be multiples of this."""
        self.table: list[Piece] = []
        self._starts: list[int] = []
        self.size_bytes = 0
        try:
            for extent in extents:
                for place in extent.places:
                    if place.path and place.path not in self._fds:
                        self._open(place.path, readonly)
                stripes = tuple((self._fds.get(place.path, -1), place.start_bytes) for place in extent.places)
                stripe_bytes = extent.stripe_bytes if extent.beside else extent.length_bytes
                self.table.append((stripes, extent.length_bytes, stripe_bytes))
                self._starts.append(self.size_bytes)
                self.size_bytes += extent.length_bytes
            for extent in extents:
                self._check(extent)
        except BaseException:
            self.close()
            raise

    def _open(self, path: str, readonly: bool) -> None:
        access = (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC
        try:
            try:
                self._fds[path] = os.open(path, access | os.O_DIRECT)
                self.block_bytes = max(self.block_bytes, _granularity(self._fds[path]))
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                if path in self._fds:
                    os.close(self._fds.pop(path))
                self._fds[path] = os.open(path, access | os.O_DSYNC)
                self.direct = False
            if stat.S_ISBLK(os.fstat(self._fds[path]).st_mode):
                self._devices.append(self._fds[path])
        except OSError as error:
            raise DeviceFailed(
                f"cannot open {path}: {error.strerror}", next="check that the disk is there and readable"
            ) from None

    def _check(self, extent: Extent) -> None:
        places, stripe_bytes = extent.places, extent.stripe_bytes
        length_bytes, rest = divmod(extent.length_bytes, len(places))
        if rest or (extent.beside and (stripe_bytes <= 0 or length_bytes % stripe_bytes)):
            raise BadInput(f"an extent on {extent.path} is not made of whole stripes")
        for place in places:
            units = place.start_bytes | length_bytes | stripe_bytes
            if units % self.block_bytes or length_bytes <= 0:
                raise BadInput(f"an extent on {place.path} is not made of {self.block_bytes}-byte blocks")
            if not place.path:
                continue
            end = os.lseek(self._fds[place.path], 0, os.SEEK_END)
            if place.start_bytes < 0 or place.start_bytes + length_bytes > end:
                raise DeviceFailed(f"{place.path} ends at {end} bytes, before the LV does", next="run vgck")

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])

    def flush(self) -> None:
        """Everything answered so far is on stable storage.  Raises OSError."""
        for fd in self._fds.values():
            os.fdatasync(fd)

    def read(self, offset_bytes: int, into: memoryview) -> None:
        """Fill `into`, which starts on a page boundary.  Raises OSError."""
        while into:
            fd, at, length = self._piece(offset_bytes, len(into))
            read = os.preadv(fd, (into[:length],), at)
            if read <= 0:
                raise OSError(errno.EIO, "the device ended before the LV")
            offset_bytes += read
            into = into[read:]

    def write(self, offset_bytes: int, data: memoryview, durable: bool) -> None:
        """Write `data`, which starts on a page boundary.  With `durable`, to stable storage (FUA).

        Raises OSError; how much of the range was written is then unknown."""
        flags = os.RWF_DSYNC if durable else 0
        while data:
            fd, at, length = self._piece(offset_bytes, len(data))
            wrote = os.pwritev(fd, (data[:length],), at, flags)
            if wrote <= 0:
                raise OSError(errno.EIO, "nothing was written")
            offset_bytes += wrote
            data = data[wrote:]

    def zero(self, offset_bytes: int, length_bytes: int, keep: bool, fast: bool, durable: bool) -> None:
        """Make a range read as zeroes.

        Args:
            keep: it stays allocated.
            fast: rather not at all than by writing so many zeroes.

        Raises OSError; ENOTSUP: it would not be fast, and nothing was done of what was left."""

        def piece(fd: int, at: int, length: int) -> None:
            self._zero(fd, at, length, keep, fast)

        self._each(offset_bytes, length_bytes, piece, durable)

    def trim(self, offset_bytes: int, length_bytes: int, durable: bool) -> None:
        """Its contents are of no use to anybody.  Raises OSError."""
        self._each(offset_bytes, length_bytes, self._trim, durable)

    def _each(
        self, offset_bytes: int, length_bytes: int, do: Callable[[int, int, int], None], durable: bool
    ) -> None:
        touched: list[int] = []
        while length_bytes:
            fd, at, length = self._piece(offset_bytes, length_bytes)
            do(fd, at, length)
            touched.append(fd)
            offset_bytes += length
            length_bytes -= length
        for fd in sorted(set(touched)) if durable else ():
            os.fdatasync(fd)

    def _zero(self, fd: int, at: int, length: int, keep: bool, fast: bool) -> None:
        # To a block device's ZERO_RANGE the kernel may write as many zeroes as we would.
        modes = [FALLOC_ZERO_RANGE] if not (fast and fd in self._devices) else []
        for mode in modes if keep else [FALLOC_PUNCH_HOLE, *modes]:
            try:
                return fallocate(fd, mode | FALLOC_KEEP_SIZE, at, length)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
        if fast:
            raise OSError(errno.ENOTSUP, "zeroes would have to be written")
        while length:
            wrote = os.pwritev(fd, (ZEROES[: min(length, len(ZEROES))],), at)
            if wrote <= 0:
                raise OSError(errno.EIO, "nothing was written")
            at += wrote
            length -= wrote
        return None

    def _trim(self, fd: int, at: int, length: int) -> None:
        try:
            if fd in self._devices:
                fcntl.ioctl(fd, BLKDISCARD, struct.pack("QQ", at, length))
            else:
                fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, at, length)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise  # else it is only a hint, which nobody takes here

    def allocation(self, offset_bytes: int, length_bytes: int, most: int) -> list[tuple[int, bool]]:
        """(bytes, whether they are allocated) of each stretch from an offset on.

        `most` of them at most, which may end before the range does.  Of a block device nothing is known:
        allocated.  Raises OSError."""
        found: list[tuple[int, bool]] = []
        while length_bytes and len(found) <= most:
            fd, at, length = self._piece(offset_bytes, length_bytes)
            length, data = (length, True) if fd in self._devices else _stretch(fd, at, length)
            if found and found[-1][1] == data:
                found[-1] = found[-1][0] + length, data
            else:
                found.append((length, data))
            offset_bytes += length
            length_bytes -= length
        return found[:most]

    def _piece(self, offset_bytes: int, length_bytes: int) -> tuple[int, int, int]:
        """(fd, offset there, bytes within this extent)."""
        index = bisect.bisect_right(self._starts, offset_bytes) - 1 if len(self._starts) > 1 else 0
        stripes, _, stripe_bytes = self.table[index]
        chunk, inside = divmod(offset_bytes - self._starts[index], stripe_bytes)
        row, number = divmod(chunk, len(stripes))
        fd, start = stripes[number]
        return fd, start + row * stripe_bytes + inside, min(length_bytes, stripe_bytes - inside)


def outline(extents: Iterable[Extent]) -> list[Extent]:
    """A few that can be opened if all of these can, and else cannot: of what lies on one path, and is not
    striped, the whole from the first to the last, and a piece of the smallest size."""
    found: list[Extent] = []
    reach: dict[str, tuple[int, int, int]] = {}
    """Path -> the first byte, the one after the last, and all bits of the places and lengths."""
    for one in extents:
        start, length = one.start_bytes, one.length_bytes
        if one.beside or not one.path or start < 0 or length <= 0:
            found.append(one)
            continue
        first, end, bits = reach.get(one.path, (start, 0, 0))
        reach[one.path] = min(first, start), max(end, start + length), bits | start | length
    for path, (first, end, bits) in reach.items():
        found += [Extent(path, first, end - first), Extent(path, 0, bits & -bits)]
    return found


def flush_paths(paths: Sequence[str]) -> None:
    """Flush devices whose worker is gone.  Raises OSError."""
    for path in sorted(set(paths)):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)


def fallocate(fd: int, mode: int, at: int, length: int) -> None:
    """As fallocate(2), which the standard library has without its mode.  Raises OSError."""
    while _libc.fallocate64(fd, mode, at, length) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def _stretch(fd: int, at: int, length: int) -> tuple[int, bool]:
    """How far a file is data, or a hole, from an offset on."""
    try:
        data = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            return length, True  # not a file system that tells
        return length, False  # a hole up to its end
    if data > at:
        return min(data - at, length), False
    return min(os.lseek(fd, at, os.SEEK_HOLE) - at, length), True


def _granularity(fd: int) -> int:
    """The smallest unit of direct I/O on an open file.  Raises OSError(EINVAL): there is none."""
    if stat.S_ISBLK(os.fstat(fd).st_mode):
        return max(BLOCK_BYTES[0], int(struct.unpack("i", fcntl.ioctl(fd, BLKSSZGET, bytes(4)))[0]))
    with mmap.mmap(-1, BLOCK_BYTES[-1]) as page, memoryview(page) as view:
        for size in BLOCK_BYTES[:-1]:
            with contextlib.suppress(OSError), view[:size] as part:
                os.preadv(fd, (part,), 0)
                # A file system may allow a read that it would refuse at another offset.
                os.preadv(fd, (part,), size)
                return size
        os.preadv(fd, (view,), 0)
        return BLOCK_BYTES[-1]
