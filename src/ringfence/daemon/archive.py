"""The history of VGs' metadata on this host: ARCHIVE/VG_NNNNN-CRC.vg before each change, BACKUP/VG after it.

A thread of its own writes the files: nobody waits for it.  Short texts it has from whoever wrote them, if
they are what the headers name; the others it reads where they stand on the disks.
A text is in its ring until the change after the next; one that was written over by then has another checksum,
and is left out.  So are versions in the middle of a burst that is faster than the thread: of each device some
changes wait, and those that come are joined to the latest one.  Between long texts the thread rests.

A file is written as a new one, flushed, and renamed: it is there whole or not at all.  That none can be
written keeps no change from being made; whoever changes a VG is told."""

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from ringfence.core.errors import Damaged, DeviceFailed, Refused, RingfenceError
from ringfence.engine.orders import Read, SaveText, Write
from ringfence.host.kept import keep_bytes
from ringfence.lvm2.area import HEADER_BYTES, MdaHeader, check_text, parse_header, text_ranges
from ringfence.lvm2.backup import Archived, archive_name, description_of, expired, of_vg, to_file
from ringfence.lvm2.images import heading
from ringfence.lvm2.label import Area

_WAITING = 8
_MODE = 0o600
_CLOSE_S = 5.0
_LONG_S = 0.05
SHORT_BYTES = 1 << 20
"""Texts are not read again; longer ones do not wait in memory."""
FULL_BYTES = 64 << 10
_REST = 4.0
"""So many times as long as it works for a long text the thread rests."""
Reader = Callable[[tuple[Read, ...]], Sequence[bytes | None]]


class Change(msgspec.Struct, frozen=True):
    """A commit: the text before and after it, each by a header that names it."""

    path: str
    old: MdaHeader | None
    new: MdaHeader | None
    texts: tuple[bytes, bytes] = (b"", b"")
    """Perhaps those, NUL and all."""


class Archive:
    """Fulfils `storage.driver.Keeper`.

    Args:
        read: reads ranges of devices, whatever waits.
        say: takes one line for people, once for what keeps failing."""

    def __init__(
        self,
        archive: Path,
        backup: Path,
        host: str,
        read: Reader,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._archive, self._backup, self._host = archive, backup, host
        self._read, self._say = read, say
        self._said = ""
        self._failed = ""
        """Why the last change was not kept."""
        self._lock = threading.Lock()
        """Of what waits; never held for long."""
        self._writing = threading.Lock()
        self._waiting: list[Change] = []
        self._files: dict[str, list[Archived]] = {}
        """The archive's, by VG, oldest first: of those that were asked for, as the directory was when ..."""
        self._seen_ns = 0
        """... it had changed last."""
        self._closing = threading.Event()
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="archive", daemon=True)
        self._thread.start()

    # -- what the storage thread tells ---------------------------------------------------

    def headers_before(self, writes: Sequence[Write]) -> list[tuple[str, MdaHeader]]:
        """What stands where headers are about to be written."""
        blocks = self._read(tuple(Read(one.path, one.offset_bytes, HEADER_BYTES) for one in writes))
        return _headers([(one, data) for one, data in zip(writes, blocks, strict=True)])

    def headers_in(self, writes: Sequence[Write]) -> list[tuple[str, MdaHeader]]:
        """What they say of committed texts."""
        return _headers([(one, one.data) for one in writes])

    def committed(
        self,
        writes: Sequence[Write],
        before: list[tuple[str, MdaHeader]],
        texts: tuple[bytes, bytes] = (b"", b""),
    ) -> str:
        """Those headers were written.  Returns a warning: no history is kept of it; or nothing."""
        self._note(writes, before, texts)
        why = self._failed or obstacle(self._archive) or obstacle(self._backup)
        return f"WARNING: the history of VGs' metadata is not kept on {self._host}: {why}" if why else ""

    def _note(
        self, writes: Sequence[Write], before: list[tuple[str, MdaHeader]], texts: tuple[bytes, bytes]
    ) -> None:
        after = self.headers_in(writes)
        if not before and not after:
            return
        path = (after or before)[0][0]
        old = next((header for where, header in before if where == path), None)
        path, old = (path, old) if old is not None or not before else before[0]
        new = next((header for where, header in after if where == path), None)
        was, now = (text if len(text) <= SHORT_BYTES else b"" for text in texts)
        self._put(Change(path, old, new, (was, now)))

    def _put(self, change: Change) -> None:
        with self._lock:
            mine = [at for at, one in enumerate(self._waiting) if one.path == change.path]
            if len(mine) >= _WAITING:
                last = self._waiting.pop(mine[-1])
                change = Change(change.path, last.old, change.new, (last.texts[0], change.texts[1]))
            self._waiting.append(change)
        self._wake.put(True)

    def save(self, order: SaveText) -> str:
        """Write the backup now, after all that waits.  Returns its path.

        Raises Damaged, DeviceFailed; Refused: the file cannot be written."""
        with self._writing:
            while self._keep_next():
                pass
            text = self._text(order.path, order.header, b"")
            said = heading(text[:HEADER_BYTES])
            if said is None:
                raise Damaged(f"{order.path}: the metadata text does not begin with a VG")
            try:
                path = self._write_backup(said[0], text, order.description)
                self._failed = ""
                return str(path)
            except OSError as error:
                raise Refused(
                    f"the backup cannot be written: {error}", next=f"look at {self._backup} on {self._host}"
                ) from None

    # -- the thread ------------------------------------------------------------------------

    def close(self) -> None:
        """Once all is written that waits; but a device that hangs is not waited for."""
        self._closing.set()
        self._wake.put(False)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while self._wake.get():
            began = time.monotonic()
            with self._writing:
                self._keep_next()
            took = time.monotonic() - began
            if took > _LONG_S:  # the event loop and the next command need the interpreter more
                self._closing.wait(_REST * took)

    def _keep_next(self) -> bool:
        """Returns whether there was one."""
        with self._lock:
            if not self._waiting:
                return False
            change = self._waiting.pop(0)
        try:
            self._keep(change)
            self._failed = ""
        except (RingfenceError, OSError) as error:
            self._failed = str(error)
            line = f"the history of VGs' metadata is not kept: {error}"
            if line != self._said:
                self._said = line
                self._say(line)
        return True

    def _keep(self, change: Change) -> None:
        what = ""
        if change.new is not None:
            with suppress(Damaged):  # written over meanwhile: a later change has it
                text = self._text(change.path, change.new, change.texts[1])
                what = description_of(text)
                said = heading(text[:HEADER_BYTES])
                if said is not None:
                    self._write_backup(said[0], text, f"Created *after* executing '{what}'")
        if change.old is not None:
            with suppress(Damaged):
                text = self._text(change.path, change.old, change.texts[0])
                said = heading(text[:HEADER_BYTES])
                if said is not None:
                    what = what or "ringfence vgremove" if change.new is None else what
                    self._write_archive(said[0], text, change.old.committed.crc, what)

    def _text(self, path: str, header: MdaHeader, said: bytes) -> bytes:
        """The text that a header names, without its NUL: what is said to be it, or what is there.

        Raises Damaged: it is not there (any more); DeviceFailed."""
        with suppress(Damaged):
            return check_text(header.committed, said, path)
        pieces = text_ranges(header, header.committed)
        blocks = self._read(tuple(Read(path, piece.offset_bytes, piece.size_bytes) for piece in pieces))
        if any(data is None for data in blocks):
            raise DeviceFailed(f"{path}: the metadata text cannot be read", next="look at the device (dmesg)")
        return check_text(header.committed, b"".join(data or b"" for data in blocks), path)

    def _write_backup(self, vg: str, text: bytes, description: str) -> Path:
        self._backup.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._backup / vg
        keep_bytes(path, to_file(text, description, self._host, int(time.time())), _MODE)
        return path

    def _write_archive(self, vg: str, text: bytes, crc: int, what: str) -> None:
        self._archive.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = self._of_vg(vg)
        if files and files[-1].crc == crc:
            return  # whoever wanted to change it then did not
        now_s = int(time.time())
        path = self._archive / archive_name(vg, files[-1].number + 1 if files else 0, crc)
        data = to_file(text, f"Created *before* executing '{what}'", self._host, now_s)
        keep_bytes(path, data, _MODE)
        files.append(Archived(path.name, len(data), now_s))
        for old in expired(files, now_s):
            (self._archive / old.name).unlink(missing_ok=True)
            files.remove(old)
        self._seen_ns = self._archive.stat().st_mtime_ns

    def _of_vg(self, vg: str) -> list[Archived]:
        """The directory is read again only when somebody else has changed it: with hundreds of files that
        takes longer than the change that is to be kept, and other threads of the daemon wait for it."""
        seen_ns = self._archive.stat().st_mtime_ns
        if seen_ns != self._seen_ns:
            self._files.clear()
            self._seen_ns = seen_ns
        if vg not in self._files:
            self._files[vg] = of_vg(archived(self._archive), vg)
        return self._files[vg]


def _headers(blocks: list[tuple[Write, bytes | None]]) -> list[tuple[str, MdaHeader]]:
    """Those that name a committed text."""
    found = []
    for write, data in blocks:
        with suppress(Damaged):
            header = parse_header((data or b"")[:HEADER_BYTES], Area(write.offset_bytes, 0), write.path)
            if not header.committed.empty:
                found.append((write.path, header))
    return found


def obstacle(directory: Path) -> str:
    """Why no file can be kept there, as far as that shows without one; empty: nothing is in the way."""
    place = os.fspath(directory)
    try:
        while not os.path.exists(place):  # each change asks: half as long as by pathlib
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            return f"{place} is not a directory"
        space = os.statvfs(place)
    except OSError as error:
        return f"{place}: {error.strerror}"
    if space.f_flag & os.ST_RDONLY:
        return f"the file system of {place} is read-only"
    blocks, files = (space.f_bavail, space.f_favail) if os.geteuid() else (space.f_bfree, space.f_ffree)
    if blocks * space.f_frsize < FULL_BYTES or (space.f_files and not files):
        return f"the file system of {place} is full"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} may not be written"


def archived(directory: Path) -> list[Archived]:
    """The files of an archive; none where there is none."""
    try:
        names = [entry for entry in os.scandir(directory) if entry.name.endswith(".vg")]
    except FileNotFoundError:
        return []
    found = []
    for entry in names:
        with suppress(FileNotFoundError):
            stat = entry.stat()
            found.append(Archived(entry.name, stat.st_size, int(stat.st_mtime)))
    return found
