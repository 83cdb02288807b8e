"""Carries out storage orders: each blocks until it is done, so `do` belongs in a worker thread.

Promises, for every write order:
- the guard is asked before each write and after it; once it says no, nothing further is written;
- writes happen in the order given, and are flushed before the answer;
- only devices that [devices] paths allow are opened.

`CrashHook` is called around every write.  Tests raise from it, to stop the world at that write."""

import enum
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Protocol

from ringfence.core.errors import DeviceFailed, NotFound, Unavailable
from ringfence.engine.commands.disks import steps_of
from ringfence.engine.orders import (
    CopyBlocks,
    Device,
    Probe,
    Read,
    ReadBlocks,
    ReadDisks,
    ReadText,
    SaveText,
    ScanDevices,
    StorageOrder,
    Write,
    WriteBlocks,
    WriteVersion,
    ZeroBlocks,
)
from ringfence.lvm2.area import MdaHeader
from ringfence.storage.direct import DirectFile
from ringfence.storage.probe import probe
from ringfence.storage.scan import scan_devices
from ringfence.volumes.discovery import Disks
from ringfence.volumes.model import Vg, read_all_of, unpack_text
from ringfence.volumes.signatures import Probed

ZERO_STEP_BYTES = 16 << 20
"""So much is zeroed between two looks at the guard: no more of it can land late."""

COPY_STEP_BYTES = 1 << 20
"""Likewise, of what is copied."""

Guard = Callable[[str], None]
"""Asked with a VG's name, or "" for grant authority alone.  Raises NoAuthority."""


class Keeper(Protocol):
    """Keeps what metadata was, beside the disks.  Called by storage threads; only `save` takes long."""

    def headers_before(self, writes: Sequence[Write]) -> list[tuple[str, MdaHeader]]:
        """These headers are about to be written.  Cheap: a sector each is read."""

    def headers_in(self, writes: Sequence[Write]) -> list[tuple[str, MdaHeader]]:
        """These stand there by now."""

    def committed(
        self,
        writes: Sequence[Write],
        before: list[tuple[str, MdaHeader]],
        texts: tuple[bytes, bytes] = (b"", b""),
    ) -> str:
        """They were.  Returns a warning for whoever changed it; empty: none.

        Args: texts: what headers named before, and name now, or so it is said (`WriteVersion.history`)."""

    def save(self, order: SaveText) -> str:
        """As `SaveText` says."""


class Moment(enum.Enum):
    BEFORE = "before"
    AFTER = "after"


CrashHook = Callable[[Moment, str, int, Write], None]
"""(before or after, the order's `what`, index of the write in its order, the write)."""


class Storage:
    """One host's devices.  `do` may be called from several threads at once."""

    def __init__(
        self,
        paths: Sequence[str],
        guard: Guard,
        crash_hook: CrashHook | None = None,
        say: Callable[[str], None] | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        """
        Args:
            paths: globs of the devices and files that may be used ([devices] paths).
            say: takes one line for people, once for each device that cannot be used directly.
        """
        self._paths = tuple(paths)
        self._guard = guard
        self._crash_hook = crash_hook
        self._say = say
        self._keeper = keeper
        self._said: set[str] = set()
        self._known: frozenset[str] = frozenset()

    def do(self, order: StorageOrder) -> Any:
        """Answers as `engine.orders` says.  Raises DeviceFailed, NoAuthority, NotFound, Damaged."""
        match order:
            case ScanDevices():
                return self._scan()
            case ReadBlocks():
                return self.read(order.reads)
            case ReadDisks():
                return self._read_disks(order)
            case ReadText():
                return parse(order)
            case SaveText():
                return self._save(order)
            case WriteBlocks():
                return self._write(order)
            case WriteVersion():
                return self._write_version(order)
            case ZeroBlocks():
                return self._zero(order)
            case CopyBlocks():
                return self._copy(order)
            case Probe():
                return self._probe(order)

    def _scan(self) -> tuple[Device, ...]:
        found = scan_devices(self._paths)
        for path, why in found.refused.items():
            self._tell(path, f"{path} is not used: {why}")
        self._known = frozenset(device.path for device in found.devices)
        return found.devices

    def _read_disks(self, order: ReadDisks) -> Disks:
        """Each device is opened once for all steps."""
        steps, answer = steps_of(order), None
        with self._reading() as read:
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as stop:
                    disks: Disks = stop.value
                    return disks
                answer = read(step.reads) if isinstance(step, ReadBlocks) else self._scan()

    def _save(self, order: SaveText) -> str:
        if self._keeper is None:
            raise Unavailable("this daemon keeps no backups", next="lvm vgcfgbackup")
        return self._keeper.save(order)

    def read(self, reads: tuple[Read, ...]) -> tuple[bytes | None, ...]:
        with self._reading() as read:
            return read(reads)

    @contextmanager
    def _reading(self) -> Iterator[Callable[[tuple[Read, ...]], tuple[bytes | None, ...]]]:
        """What answers ReadBlocks: within, each device is opened once."""
        with ExitStack() as stack:
            opened: dict[str, DirectFile | None] = {}

            def read(reads: tuple[Read, ...]) -> tuple[bytes | None, ...]:
                for path in dict.fromkeys(one.path for one in reads):
                    if path not in opened:
                        opened[path] = self._open_to_read(stack, path)
                return tuple(_read_one(opened[one.path], one) for one in reads)

            yield read

    def _open_to_read(self, stack: ExitStack, path: str) -> DirectFile | None:
        try:
            return stack.enter_context(self._open(path, write=False))
        except DeviceFailed as error:
            self._tell(path, error.message)
            return None

    def _write(self, order: WriteBlocks) -> str:
        keeper = self._keeper if order.what == "commit" else None
        before = keeper.headers_before(order.writes) if keeper is not None else []
        with ExitStack() as stack:
            opened = self._open_all(stack, order.writes)
            with _flushed(opened):
                self._write_all(opened, order.what, order.writes, order.guard)
        return keeper.committed(order.writes, before) if keeper is not None else ""

    def _write_version(self, order: WriteVersion) -> str:
        with ExitStack() as stack:
            opened = self._open_all(stack, (*order.zeros, *order.texts, *order.precommits, *order.commits))
            with _flushed(opened):
                for one in order.zeros:
                    self._zero_all(opened[one.path], one)
                for what, writes in order.steps:
                    if what == "commit":
                        _flush(opened)
                    self._write_all(opened, what, writes, order.guard)
        if self._keeper is None:
            return ""
        before = self._keeper.headers_in(order.precommits)
        return self._keeper.committed(order.commits, before, order.history)

    def _open_all(self, stack: ExitStack, writes: Sequence[Write | ZeroBlocks]) -> dict[str, DirectFile]:
        paths = dict.fromkeys(write.path for write in writes)
        return {path: stack.enter_context(self._open(path, write=True)) for path in paths}

    def _write_all(
        self, opened: dict[str, DirectFile], what: str, writes: Sequence[Write], guard: str
    ) -> None:
        for index, write in enumerate(writes):
            self._guard(guard)
            self._hook(Moment.BEFORE, what, index, write)
            opened[write.path].write(write.offset_bytes, write.data)
            self._hook(Moment.AFTER, what, index, write)
            self._guard(guard)

    def _zero(self, order: ZeroBlocks) -> None:
        with self._open(order.path, write=True) as file:
            self._zero_all(file, order)
            file.flush()

    def _zero_all(self, file: DirectFile, order: ZeroBlocks) -> None:
        """To crash points each piece is a write without bytes."""
        end = order.offset_bytes + order.length_bytes
        for index, start in enumerate(range(order.offset_bytes, end, ZERO_STEP_BYTES)):
            piece = Write(order.path, start, b"")
            self._guard(order.guard)
            self._hook(Moment.BEFORE, "zero", index, piece)
            file.zero(start, min(ZERO_STEP_BYTES, end - start))
            self._hook(Moment.AFTER, "zero", index, piece)
            self._guard(order.guard)

    def _copy(self, order: CopyBlocks) -> None:
        """To crash points each piece is a write."""
        with self._open(order.path, write=False) as file, self._open(order.to_path, write=True) as to:
            for index, at in enumerate(range(0, order.length_bytes, COPY_STEP_BYTES)):
                data = file.read(order.offset_bytes + at, min(COPY_STEP_BYTES, order.length_bytes - at))
                piece = Write(order.to_path, order.to_offset_bytes + at, data)
                self._guard(order.guard)
                self._hook(Moment.BEFORE, "copy", index, piece)
                to.write(piece.offset_bytes, data)
                self._hook(Moment.AFTER, "copy", index, piece)
                self._guard(order.guard)
            to.flush()

    def _probe(self, order: Probe) -> Probed:
        with ExitStack() as stack:
            opened: dict[str, DirectFile] = {}
            paths = [extent.path for extent in order.extents]
            paths += [place.path for extent in order.extents for place in extent.beside]
            for path in dict.fromkeys(paths):
                opened[path] = stack.enter_context(self._open(path, write=False))
            return probe(order.extents, opened)

    def _open(self, path: str, *, write: bool) -> DirectFile:
        if path not in self._known:
            self._scan()
        if path not in self._known:
            raise NotFound(f"{path} is not among the devices of this host", next="add it to [devices] paths")
        file = DirectFile(path, write=write)
        if not file.direct:
            self._tell(
                path,
                f"{path} has no O_DIRECT: O_DSYNC is used; hosts must not share it",
            )
        return file

    def _hook(self, moment: Moment, what: str, index: int, write: Write) -> None:
        if self._crash_hook is not None:
            self._crash_hook(moment, what, index, write)

    def _tell(self, path: str, line: str) -> None:
        if self._say is not None and path not in self._said:
            self._said.add(path)
            self._say(line)


@contextmanager
def _flushed(opened: dict[str, DirectFile]) -> Iterator[None]:
    """What is written within is flushed at the end, also if one of the devices fails: a version is committed
    once a single area names it, and then it must outlive that device's cache."""
    try:
        yield
    except DeviceFailed:
        with suppress(DeviceFailed):
            _flush(opened)
        raise
    _flush(opened)


def _flush(opened: dict[str, DirectFile]) -> None:
    """Each that can be.  Raises the first error."""
    failed: DeviceFailed | None = None
    for file in opened.values():
        try:
            file.flush()
        except DeviceFailed as error:
            failed = failed or error
    if failed is not None:
        raise failed


def parse(order: ReadText) -> Vg:
    """The VG, with all that takes long to know of it.  Raises Damaged."""
    if not order.packed:
        return read_all_of(order.text, order.where, order.like)
    vg = unpack_text(order.text, order.where)
    assert vg.index is not None
    assert vg.by_text is not None
    return vg


def _read_one(file: DirectFile | None, read: Read) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read(read.offset_bytes, read.length_bytes)
    except DeviceFailed:
        return None
