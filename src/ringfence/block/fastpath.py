"""`fastpath.c`, where it is built: the usual case of a lane without the interpreter.

Whoever installs ringfence from its source with a C compiler has it (`hatch_build.py`).  Without it all is
the same, and slower: each class here stands for one of `seats` or `connection` that does it in Python."""

import ctypes
import enum
import mmap
from collections.abc import Sequence
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path

from ringfence.block import protocol as nbd
from ringfence.block.extents import Piece

LIBRARY = Path(__file__).with_name("libfastpath.so")
MAP_NORESERVE = 0x4000
PAGE = mmap.PAGESIZE
HUGE = 2 << 20


class What(enum.IntEnum):
    """What a lane has to do next."""

    ASKED = 0
    """Carry the request out."""
    FAILED = 1
    """It was carried out; tell why it failed."""
    LATE = 2
    """A write was carried out, and authority has ended since it was checked: tell it, and go on."""
    TOLD = 3
    """Authority ended during a write, which was told as LATE: answer it."""
    OVER = 4
    """End."""


class Request(Structure):
    """A lane's: the request that it is at.  As `struct lane`."""

    payload: int
    cookie: int
    offset: int
    length: int
    flags: int
    command: int
    error: int
    """An errno, where it was carried out already."""
    _fields_ = (
        ("payload", c_void_p),
        ("cookie", c_uint64),
        ("offset", c_uint64),
        ("length", c_uint32),
        ("flags", c_uint16),
        ("command", c_uint16),
        ("error", c_int32),
        ("_own", c_void_p),
    )

    @classmethod
    def at(cls, payload: memoryview) -> "Request":
        """Args: payload: where data go; it must outlive this."""
        return cls(payload=ctypes.addressof(ctypes.c_char.from_buffer(payload)))


class _Stripe(Structure):
    _fields_ = (("fd", c_int64), ("start", c_int64))


class _Extent(Structure):
    _fields_ = (
        ("lv_start", c_int64),
        ("stripe_bytes", c_int64),
        ("stripe_count", c_int64),
        ("stripes", POINTER(_Stripe)),
    )


def buffer() -> memoryview:
    """A page of room for a reply's head, then the largest payload; it begins where a huge page may.

    Pages of it that nobody touches take no memory."""
    size = PAGE + nbd.MAX_PAYLOAD_BYTES
    room = mmap.mmap(-1, size + HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    skip = -ctypes.addressof(ctypes.c_char.from_buffer(room)) % HUGE
    return memoryview(room)[skip : skip + size]


def load() -> ctypes.CDLL | None:
    """None: it cannot be used here; `trouble` says why."""
    try:
        return _load()
    except OSError:
        return None


def trouble() -> str:
    """Why it cannot be used here; empty: it can."""
    try:
        _load()
    except OSError as error:
        return str(error)
    return ""


def _load() -> ctypes.CDLL:
    """Raises OSError."""
    if not Path(LIBRARY).exists():
        raise OSError(f"{LIBRARY} was not built (no C compiler, when ringfence was installed)")
    library = ctypes.CDLL(str(LIBRARY))
    try:
        _declare(library)
    except AttributeError:
        fits = False
    else:
        fits = library.rf_lane_bytes() == ctypes.sizeof(Request)
    if not fits:
        raise OSError(f"{LIBRARY} was built from another version of ringfence")
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Raises AttributeError."""
    for name, result, arguments in (
        ("rf_export_new", c_void_p, (c_int,)),
        ("rf_add_page", c_int, (c_void_p, c_char_p)),
        ("rf_hold", c_int, (c_int,)),
        ("rf_table", None, (c_void_p, POINTER(_Extent), c_int64, c_int64, c_int64, c_int)),
        ("rf_sit", None, (c_void_p,)),
        ("rf_leave", None, (c_void_p,)),
        ("rf_empty", c_int, (c_void_p, c_int64)),
        ("rf_fill", None, (c_void_p,)),
        ("rf_connection_new", c_void_p, (c_void_p, c_int, c_int)),
        ("rf_connection_free", None, (c_void_p,)),
        ("rf_send", c_int, (c_void_p, c_void_p, c_int64)),
        ("rf_end", None, (c_void_p,)),
        ("rf_serve", c_int, (c_void_p, POINTER(Request))),
        ("rf_lane_bytes", c_int64, ()),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


class FastSeats:
    """`seats.Seats`, and what is served from them.  Lives as long as its process.

    Args:
        pages: the authority pages; a path without all of them is not for this.
        locks: files that stay locked until what was issued here is over, whatever ends this process.

    Raises OSError: a page or a lock cannot be mapped."""

    def __init__(self, library: ctypes.CDLL, seats: int, pages: Sequence[Path], locks: Sequence[int]) -> None:
        self.library = library
        self.pointer = library.rf_export_new(seats)
        for page in pages:
            if error := library.rf_add_page(self.pointer, bytes(page)):
                raise OSError(error, f"cannot map {page}")
        for fd in locks:
            if error := library.rf_hold(fd):
                raise OSError(error, "cannot map a lock")
        self._table: ctypes.Array[_Extent] | None = None

    def sit(self) -> None:
        self.library.rf_sit(self.pointer)

    def leave(self) -> None:
        self.library.rf_leave(self.pointer)

    def empty(self, wait_s: float) -> bool:
        return bool(self.library.rf_empty(self.pointer, int(wait_s * 1000)))

    def fill(self) -> None:
        self.library.rf_fill(self.pointer)

    def serve(self, table: Sequence[Piece], size_bytes: int, block_bytes: int, writes: bool) -> None:
        """What is served from now on; only while nobody sits.

        Args: writes: whether they are usual."""
        entries = (_Extent * len(table))()
        at = 0
        for entry, (stripes, length, stripe_bytes) in zip(entries, table, strict=True):
            entry.lv_start, entry.stripe_bytes, entry.stripe_count = at, stripe_bytes, len(stripes)
            # Kept alive by the entry.
            entry.stripes = (_Stripe * len(stripes))(*(_Stripe(*one) for one in stripes))
            at += length
        self.library.rf_table(self.pointer, entries, len(table), size_bytes, block_bytes, writes)
        self._table = entries  # and the one before may go


class FastChannel:
    """`connection.Channel`."""

    def __init__(self, seats: FastSeats, fd: int, structured: bool) -> None:
        self._library = seats.library
        self._pointer = self._library.rf_connection_new(seats.pointer, fd, structured)
        if not self._pointer:
            raise MemoryError

    def next(self, request: Request, payload: memoryview) -> What:
        return What(self._library.rf_serve(self._pointer, request))

    def send(self, data: memoryview) -> bool:
        start = ctypes.addressof(ctypes.c_char.from_buffer(data))
        return bool(self._library.rf_send(self._pointer, start, len(data)))

    def end(self) -> None:
        self._library.rf_end(self._pointer)

    def close(self) -> None:
        self._library.rf_connection_free(self._pointer)
