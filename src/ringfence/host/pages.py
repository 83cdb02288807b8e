"""Authority pages: deadlines that other processes can see the instant they change.

RUN/authority/<incarnation>/grant      for grants, and for client-side cached locks
RUN/authority/<incarnation>/vg.NAME    for writes to the volumes of VG NAME

Each file is 4096 bytes, mapped by its writer (the daemon) and its readers (the workers of the data
path).  Bytes 0..7 hold a little-endian u64, aligned, so that one store changes it and one load reads
it; the rest is zero:

    0           lost, for ever: a page that was 0 never becomes anything else
    2**64 - 1   always valid (a lab without protections)
    otherwise   CLOCK_BOOTTIME nanoseconds; authority is valid while now < deadline, then lapsed

A reader that finds no page, or a page that it cannot map, has no authority: lost.  A daemon that
comes back is another incarnation and gets other files: what held the old ones can never be revived."""

import contextlib
import ctypes
import enum
import errno
import functools
import mmap
import os
import sys
from collections.abc import Collection
from pathlib import Path

from ringfence.core.errors import BadInput, DeviceFailed

PAGE_BYTES = 4096
LOST_NS = 0
UNCHECKED_NS = (1 << 64) - 1


class Authority(enum.Enum):
    VALID = "valid"
    LAPSED = "lapsed"
    """Hold: it may be renewed."""
    LOST = "lost"
    """Fail: it never comes back under this incarnation."""


class _Page(ctypes.LittleEndianStructure):
    # ctypes copies an aligned 8-byte field in one instruction; struct's "<Q" goes byte by byte,
    # and a reader could see half of an old deadline and half of a new one.
    _fields_ = [("deadline_ns", ctypes.c_uint64)]


@functools.lru_cache(maxsize=256)  # it is asked before and after each write
def page_path(directory: Path, incarnation: int, page: str) -> Path:
    """Where `page` ("grant" or "vg/NAME") of an incarnation lies under RUN/authority.

    Raises BadInput for any other page name."""
    room, _, name = page.partition("/")
    if page == "grant":
        return directory / str(incarnation) / "grant"
    if room != "vg" or not name or "/" in name or "\0" in name:
        raise BadInput(f"no such authority page: {page!r}")
    return directory / str(incarnation) / f"vg.{name}"


def page_of(directory: Path, path: Path) -> tuple[int, str] | None:
    """(incarnation, page) of a page's file: the inverse of `page_path`.  None for any other path."""
    incarnation, vg = path.parent.name, path.name.removeprefix("vg.")
    if not incarnation.isdecimal():
        return None
    page = "grant" if path.name == "grant" else f"vg/{vg}"
    found = int(incarnation), page
    return found if vg and page_path(directory, *found) == path else None


def state_of(deadline_ns: int, now_ns: int) -> Authority:
    """What a deadline means at an instant of CLOCK_BOOTTIME."""
    if deadline_ns == LOST_NS:
        return Authority.LOST
    if deadline_ns == UNCHECKED_NS or now_ns < deadline_ns:
        return Authority.VALID
    return Authority.LAPSED


class Pages:
    """The writer's side.  One process writes an incarnation's pages: the daemon that lives it.

    Args:
        directory: RUN/authority; made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pages: dict[Path, _Page] = {}
        self._over = False

    def path(self, incarnation: int, page: str) -> Path:
        return page_path(self._directory, incarnation, page)

    def set(self, incarnation: int, page: str, deadline_ns: int) -> None:
        """Store a deadline.  On a page that is lost, nothing happens: it stays lost.

        Raises:
            BadInput: no such page.
            DeviceFailed: the page cannot be made; its readers then have no authority.
        """
        assert 0 <= deadline_ns <= UNCHECKED_NS
        path = self.path(incarnation, page)
        if self._over:
            deadline_ns = LOST_NS
        view = self._pages.get(path) or self._open(path, deadline_ns)
        if view.deadline_ns != LOST_NS:
            view.deadline_ns = deadline_ns

    def deadline(self, incarnation: int, page: str) -> int:
        """The stored deadline; 0 (lost) for a page that was never set."""
        path = self.path(incarnation, page)
        view = self._pages.get(path)
        if view is None and path.exists():
            view = self._open(path, LOST_NS)
        return view.deadline_ns if view is not None else LOST_NS

    def lose_all(self) -> None:
        """Every page that this process wrote reads lost from here on, and none can be set again."""
        self._over = True
        for view in self._pages.values():
            view.deadline_ns = LOST_NS

    def lose_before(self, incarnation: int, kept: Collection[tuple[int, str]] = ()) -> None:
        """Take what is left of earlier incarnations' authority away (their daemons are gone).

        Args:
            kept: (incarnation, page) of those that stand as they are."""
        stay = [self.path(*page) for page in kept]
        with contextlib.suppress(FileNotFoundError):
            for old in sorted(self._directory.iterdir()):
                if old.name.isdecimal() and int(old.name) < incarnation:
                    for path in sorted(old.iterdir()):
                        if not path.name.endswith(".new") and path not in stay:
                            self._open(path, LOST_NS).deadline_ns = LOST_NS

    def _open(self, path: Path, first_ns: int) -> _Page:
        """Map a page; make it first, holding `first_ns`, if it is not there."""
        try:
            if not path.exists():
                _make(path, first_ns)
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                view = _Page.from_buffer(mmap.mmap(fd, PAGE_BYTES))
            finally:
                os.close(fd)
        except (OSError, ValueError) as error:
            raise DeviceFailed(
                f"cannot map authority page {path}: {error}", next=f"make room under {self._directory}"
            ) from None
        self._pages[path] = view
        return view


def _make(path: Path, first_ns: int) -> None:
    """A page appears whole, with its first deadline: an empty one would read as lost for ever.

    All 4096 bytes are written, or a full disk would show later as SIGBUS at a store.  Whoever may use the
    daemon's socket must be able to read it, whatever this process's umask: it is a time, and no secret."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for directory in (path.parent, path.parent.parent):
        directory.chmod(0o755)
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)
        data = first_ns.to_bytes(8, "little").ljust(PAGE_BYTES, b"\0")
        if os.write(fd, data) != PAGE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)
    os.rename(new, path)


class PageReader:
    """A reader's side: maps read-only and looks as often as it likes.

    Args:
        path: the page's file.  While it is missing, its state is lost; it is looked for again at
            each question, for the daemon may make it a moment later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._view: memoryview | None = None
        self._map()

    def deadline_ns(self) -> int:
        """One load.  0 where there is no page."""
        view = self._view or self._map()
        if view is None:
            return LOST_NS
        return view[0] if sys.byteorder == "little" else int.from_bytes(view[0].to_bytes(8, "big"), "little")

    def state(self, now_ns: int) -> Authority:
        return state_of(self.deadline_ns(), now_ns)

    def _map(self) -> memoryview | None:
        with contextlib.suppress(OSError, ValueError):
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                page = mmap.mmap(fd, PAGE_BYTES, prot=mmap.PROT_READ)
            finally:
                os.close(fd)
            # Native "Q" is one 8-byte load (ctypes cannot map what it may not write).
            self._view = memoryview(page).cast("B")[:8].cast("Q")
        return self._view
