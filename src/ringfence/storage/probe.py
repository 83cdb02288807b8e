"""What is on a device or an LV: libblkid's word, where its `blkid` is on this host, else our own table's.

blkid looks without its cache and at the bytes alone (-p), of one range of a device (-O, -S); an LV in more
pieces is read through them, and held against `volumes.signatures`.  So is where blkid finds nothing (of what
is damaged it says nothing, and it may be dear to somebody), what it finds ambivalent, what it fails at, and
what it does not answer within its limit.  It reads through this host's page cache, from
which the range is dropped before: another host may have written there since.

Source: blkid(8) of util-linux; exit codes 0 found, 2 nothing found, 4 usage, 8 ambivalent."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ringfence.core.errors import DeviceFailed
from ringfence.storage.direct import DirectFile
from ringfence.volumes.signatures import Probed, Prober, identify, parts_read, read_blkid
from ringfence.wire.block import Extent

LIMIT_S = 5.0
_FOUND, _NOTHING = 0, 2
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def probe(extents: Sequence[Extent], opened: Mapping[str, DirectFile]) -> Probed:
    """Args: opened: the extents' devices.  Raises DeviceFailed."""
    found = _found(extents, opened)
    return msgspec.structs.replace(found, busy=True) if _is_busy(extents[0]) else found


def _is_busy(first: Extent) -> bool:
    """Whether this is a device from its beginning, which is mounted here, or part of a RAID, of multipath, …

    Source: open(2), O_EXCL: EBUSY of a block device that "is in use by the system"."""
    if first.start_bytes:
        return False
    try:
        os.close(os.open(first.path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY
    return False


def _found(extents: Sequence[Extent], opened: Mapping[str, DirectFile]) -> Probed:
    in_one_piece = len(extents) == 1 and not extents[0].beside
    told = _by_blkid(extents[0]) if in_one_piece else None
    if told is not None and told.signatures:
        return told
    size = sum(extent.length_bytes for extent in extents)
    head, tail = (_read(extents, opened, offset, length) for offset, length in parts_read(size))
    found = Probed(identify(size, head, tail), Prober.OWN_TABLE)
    return found if found.signatures or told is None else told


def _by_blkid(extent: Extent) -> Probed | None:
    """None: it cannot tell."""
    blkid = shutil.which("blkid", path=_PATH)
    if blkid is None:
        return None
    where = ["-O", str(extent.start_bytes), "-S", str(extent.length_bytes)]
    try:
        _forget_cached(extent)
        done = subprocess.run(
            [blkid, "-p", "-o", "export", *where, extent.path],
            capture_output=True, timeout=LIMIT_S, env={"LC_ALL": "C", "PATH": _PATH}, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode not in (_FOUND, _NOTHING):
        return None
    return Probed(read_blkid(done.stdout.decode(errors="replace")), Prober.LIBBLKID)


def _forget_cached(extent: Extent) -> None:
    fd = os.open(extent.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(fd, extent.start_bytes, extent.length_bytes, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _pieces(extent: Extent, first: int, last: int) -> Iterator[tuple[str, int, int]]:
    """Where a range of an extent lies: (path, offset, length), in its order."""
    if not extent.beside:
        yield extent.path, extent.start_bytes + first, last - first
        return
    stripes = ((extent.path, extent.start_bytes), *((one.path, one.start_bytes) for one in extent.beside))
    while first < last:
        chunk, inside = divmod(first, extent.stripe_bytes)
        row, number = divmod(chunk, len(stripes))
        path, start = stripes[number]
        length = min(extent.stripe_bytes - inside, last - first)
        yield path, start + row * extent.stripe_bytes + inside, length
        first += length


def _read(
    extents: Sequence[Extent], opened: Mapping[str, DirectFile], offset_bytes: int, length_bytes: int
) -> bytes:
    """A range of what the extents make up together."""
    parts, start, end = [], 0, offset_bytes + length_bytes
    for extent in extents:
        first, last = max(offset_bytes, start), min(end, start + extent.length_bytes)
        if first < last:
            pieces = _pieces(extent, first - start, last - start)
            parts += [opened[path].read(at, length) for path, at, length in pieces]
        start += extent.length_bytes
    data = b"".join(parts)
    if len(data) != length_bytes:
        raise DeviceFailed(f"cannot read {length_bytes} bytes at {offset_bytes}: there are not so many")
    return data
