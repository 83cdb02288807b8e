"""One LV as a device: made, guarded, closed, and looked at again.

Opening, and what is true after a crash of the service at each step:

1. a record of the order, RUN/mapped/UUID        no device: the record is dropped at the next start
2. the device, without a table                   found by its uuid; nothing can be written; removed
3. its table, loaded and resumed                 found, and guarded again, under the pages of the record
4. the link DEV/VG/LV to /dev/dm-N               made again

and back: link, device, record.  Between a crash and the next start nobody guards a table.  The next start
comes at once (systemd), and a host with a watchdog is reset if it does not come at all."""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ringfence.block.dm.counters import BLOCK, Counters, Written
from ringfence.block.dm.judge import Judge, Wanted
from ringfence.block.dm.mapper import Device, Mapper, failing, fails, lines_of, mapper_uuid
from ringfence.block.extents import flush_paths
from ringfence.core.errors import DeviceFailed, Refused, Unavailable
from ringfence.core.listed import listed
from ringfence.host.clock import boottime_ns
from ringfence.lvm2.names import mapper_name
from ringfence.wire import block as wire

CLOSE_S = 3.0
"""How long an open device is waited for: udev and the like open new ones for a moment."""
RETRY_S = 0.1

Late = Callable[["Mapped", Written | None, int], None]
"""(whose, what may have been written without authority or None for unknown, ms from its end to the
table's)."""


class Mapped:
    """A device of ours.  Fulfils `guard.Guarded`; all methods block.

    Args:
        call: as it was opened.
        dev: below it is the link by which its user finds it.
        record: what remembers it over a crash of this service.
        late: called when its table was suspended or cut after its authority had ended, and something was
            written meanwhile, or may have been.
        say: for what a person should know; a line each.
        group: of its node in /dev; -1: unchanged.
    """

    def __init__(
        self,
        call: wire.Open,
        mapper: Mapper,
        dev: Path,
        record: Path,
        late: Late,
        say: Callable[[str], None],
        group: int = -1,
        block: Path = BLOCK,
    ) -> None:
        self.call = call
        self.uuid = mapper_uuid(call.vg_uuid, call.uuid)
        self.failed = ""
        self.opened = False
        self.closed = False
        """Nothing can be written through it any more, and it is nobody's business."""
        self._mapper = mapper
        self._dev = dev
        self._record = record
        self._late = late
        self._say = say
        self._group = group
        self._block = block
        self._counters: Counters | None = None
        self._seen: Written | None = None
        self._said = ""
        self._working = threading.Lock()
        self.judge = Judge(call.hold_ms)
        self.state = Wanted.HOLD

    @property
    def name(self) -> str:
        return f"{self.call.vg}/{self.call.lv}"

    @property
    def size_bytes(self) -> int:
        return sum(extent.length_bytes for extent in self.call.extents)

    @property
    def link(self) -> Path:
        return self._dev / self.call.vg / self.call.lv

    # -- opening --------------------------------------------------------------------

    def open(self) -> None:
        """Make the device; its table is active when this returns.

        Raises Refused (something of this name is there), BadInput, DeviceFailed, Unavailable; nothing is left
        then, but what the error names."""
        lines = lines_of(self.call.extents)
        there = self._mapper.find(self.uuid)
        if there is not None:
            raise self._occupied(there)
        self._remember(self.call)
        name, readonly = mapper_name(self.call.vg, self.call.lv), self.call.readonly
        try:
            device = self._mapper.create(name, self.uuid, readonly=readonly)
            self._mapper.load(self.uuid, lines, readonly=readonly)
            self._mapper.resume(self.uuid)
            self.state = Wanted.PASS
            self._show(device)
            self.opened = True
        except OSError as error:
            self._undo()
            if error.errno == errno.EBUSY:
                raise Refused(
                    f"device-mapper has another device called {name}",
                    next=f"see dmsetup info {name}: {self.name} cannot be opened beside it",
                ) from None
            words = f"device-mapper does not take the table of {self.name}: {error.strerror}"
            raise DeviceFailed(words, next="look at the kernel's log; run vgck") from None

    def adopt(self) -> bool:
        """Take up what an earlier service of this host had open.  False: there is no such device with a
        table.

        Raises OSError."""
        there = self._mapper.find(self.uuid)
        if there is None or not there.active:
            self._undo()
            return False
        if fails(self._mapper.table(self.uuid)):
            self._over("its table was cut")
        else:
            self.state = Wanted.HOLD if there.suspended else Wanted.PASS
        self._show(there)
        self.opened = True
        return True

    def _remember(self, call: wire.Open) -> None:
        """The record is the old one or the new one.  Raises Unavailable."""
        new = self._record.with_suffix(".new")
        try:
            self._record.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(wire.encode(wire.Request(0, call)))
            new.rename(self._record)
        except OSError as error:
            raise Unavailable(f"cannot write {self._record}: {error.strerror}", next="make room") from None

    def _show(self, device: Device) -> None:
        """Give it its node's group, and the link."""
        node = Path("/dev") / device.kernel
        if self._group >= 0 and node.exists():
            os.chown(node, -1, self._group)
            node.chmod(0o660)
        if self._counters is None:
            self._counters = Counters(device.kernel, self._block)
        self.link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(node)

    def _occupied(self, there: Device) -> Refused:
        if there.open_count and there.active and fails(self._mapper.table(self.uuid)):
            return Refused(
                f"{self.name} is still open since its authority was lost ({there.open_count} times)",
                next=f"end what uses /dev/{there.kernel} (fuser -v /dev/{there.kernel}), and ask again",
                retry=True,
            )
        return Refused(
            f"device-mapper has {self.name} already, as {there.name}, and not from us",
            next=f"deactivate it as it was activated: lvm lvchange -an {self.name}",
        )

    def _undo(self) -> None:
        with contextlib.suppress(OSError):
            self._mapper.remove(self.uuid)
        self.link.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    # -- as guarded -----------------------------------------------------------------

    def deadline_ns(self, read: Callable[[str], int]) -> int:
        return min((read(page) for page in self.call.pages), default=0)

    def count(self, deadline_ns: int) -> None:
        if self._counters is not None:
            written = self._counters.read()
            if boottime_ns() < deadline_ns:
                self._seen = written

    def bring(self, wanted: Wanted) -> None:
        with self._working:
            if self.failed:
                return
            try:
                was, ended_ns = self.state, self.judge.ended_ns
                if was is Wanted.PASS and ended_ns is not None:
                    self.count(ended_ns)
                if wanted is Wanted.HOLD:
                    self._mapper.suspend(self.uuid)
                elif wanted is Wanted.PASS:
                    self._mapper.resume(self.uuid)
                else:
                    self._cut()
                    self._over("its authority was lost, or lapsed for too long; its table fails all I/O")
                self.state = wanted
            except OSError as error:
                self._trouble(wanted, error)
                return
            if was is Wanted.PASS and wanted is not Wanted.PASS:
                self._report(ended_ns)

    def _trouble(self, wanted: Wanted, error: OSError) -> None:
        """Tried again at the next look, unless there is nothing to try it on."""
        if error.errno == errno.ENXIO:
            self._over("its device is gone: somebody else removed it")
        elif (words := f"{self.name} cannot be brought to {wanted.value}: {error.strerror}") != self._said:
            self._said = words
            self._say(words)

    def _over(self, why: str) -> None:
        self.failed = why
        self.state = Wanted.FAIL

    def _report(self, ended_ns: int | None) -> None:
        """Its I/O has just come to a stop: was that too late?"""
        if ended_ns is None or self.call.readonly:
            return
        late_ms = (boottime_ns() - ended_ns) // 1_000_000
        if late_ms < 0:
            return
        now = self._counters.read() if self._counters is not None else None
        written = now.since(self._seen) if now is not None and self._seen is not None else None
        if written is None or written.requests:
            self._late(self, written, late_ms)

    def _cut(self) -> None:
        """All I/O fails from here on.  Raises OSError."""
        self._mapper.load(self.uuid, failing(self._mapper.table(self.uuid)))
        self._mapper.resume(self.uuid)

    # -- changing -------------------------------------------------------------------

    def reload(self, call: wire.Open) -> None:
        """Another table under the running user, perhaps another name.

        A table that is held stays so, and goes on with the new one.

        Raises BadInput, DeviceFailed: the old table stands; Refused: it has failed."""
        lines = lines_of(call.extents)
        with self._working:
            if self.failed:
                raise Refused(f"{self.name} has failed: {self.failed}", next=f"close {self.name} first")
            self._remember(call)
            try:
                if (call.extents, call.readonly) != (self.call.extents, self.call.readonly):
                    self._mapper.load(self.uuid, lines, readonly=call.readonly)
                    if self.state is Wanted.PASS:
                        self._mapper.resume(self.uuid)
                if (call.vg, call.lv) != (self.call.vg, self.call.lv):
                    self._mapper.rename(self.uuid, mapper_name(call.vg, call.lv))
                there = self._mapper.find(self.uuid)
            except OSError as error:
                words = f"device-mapper does not take the new table of {self.name}: {error.strerror}"
                raise DeviceFailed(words, next="look at the kernel's log") from None
            self.link.unlink(missing_ok=True)
            self.call = call
            if there is not None:
                self._show(there)

    # -- closing --------------------------------------------------------------------

    def look(self) -> Device | None:
        """Raises OSError."""
        return self._mapper.find(self.uuid)

    def close(self, flush: bool) -> None:
        """Remove the device, see that it is gone, and flush what it stood on.

        Raises Refused: it is in use, and stands as before.  DeviceFailed: it does not go, or (it is closed
        all the same) its disks do not flush."""
        if self.failed:
            self.cut()
        else:
            self._remove()
        self.closed = True
        self._record.unlink(missing_ok=True)
        if self._counters is not None:
            self._counters.close()
        if flush and not self.call.readonly:
            paths = sorted({place.path for extent in self.call.extents for place in extent.places})
            try:
                flush_paths(paths)
            except OSError as error:
                raise DeviceFailed(
                    f"{self.name} could not be flushed ({listed(paths, 3)}): {error.strerror}",
                    next="what was written last may be missing: check the disk",
                ) from None

    def _remove(self) -> None:
        self.link.unlink(missing_ok=True)
        give_up = time.monotonic() + CLOSE_S
        while (there := self._removed()) is not None:
            if time.monotonic() > give_up:
                self._show(there)
                raise Refused(
                    f"Logical volume {self.name} in use ({there.open_count} times)",
                    next=f"end what uses it: fuser -v /dev/{there.kernel}",
                    retry=True,
                )
            time.sleep(RETRY_S)

    def _removed(self) -> Device | None:
        """The device, if it is still there when it was asked to go.  Raises DeviceFailed."""
        there = None
        try:
            there = self._mapper.find(self.uuid)
            if there is None or there.open_count:
                return there
            self._mapper.remove(self.uuid)
            return self._mapper.find(self.uuid)
        except OSError as error:
            if there is not None and error.errno == errno.EBUSY:
                return there  # somebody has just opened it
            if there is not None:
                self._show(there)
            raise DeviceFailed(f"{self.name} is not closed: {error.strerror}", retry=True) from None

    def cut(self) -> None:
        """Returns when nothing can be written through it any more, whoever has it open.

        What has it open keeps a device that fails; it goes when that closes it.

        Raises DeviceFailed: it stands all the same."""
        with self._working:
            was, ended_ns = self.state, self.judge.ended_ns
            self.link.unlink(missing_ok=True)
            try:
                there = self._mapper.find(self.uuid)
                if there is not None:
                    if there.active and not fails(self._mapper.table(self.uuid)):
                        self._cut()
                    if there.active and not fails(self._mapper.table(self.uuid)):
                        raise DeviceFailed(f"the table of {self.name} still stands", retry=True)
                    self._mapper.remove(self.uuid, deferred=True)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    words = f"the table of {self.name} could not be cut: {error.strerror}"
                    raise DeviceFailed(words, retry=True) from None
            if was is Wanted.PASS:
                self._report(ended_ns)
            self._over(self.failed or "its table was cut")
            self.closed = True
            self._record.unlink(missing_ok=True)
