"""A host's storage driver, as `storage.driver` is one: one order after the other, each write guarded.

The guard is asked before each write and after it, and between the two the write is in flight.  What a
host's freeze or end makes of that is what real ones make of it:

* Power loss tears it (`Disk.tear`).
* SIGKILL of the daemon lets it end or not begin; nothing after it happens.
* A freeze: a piece of text lands when the host thaws, for its thread stood still before the system call.
  A header was with the disk already and lands at once.  (A header that lands after its writer was fenced
  on a lie is the one write in flight that no check can stop: only power or the storage closes that gap.)"""

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ringfence.core.errors import Damaged, DeviceFailed, NoAuthority, RingfenceError, Unavailable
from ringfence.engine import inputs, orders
from ringfence.engine.commands.disks import Steps, steps_of
from ringfence.sim.disk import Disk, Disks
from ringfence.sim.scheduler import Scheduler
from ringfence.volumes.model import read_text_like
from ringfence.volumes.signatures import Probed, Prober, identify, parts_read

HEADERS = ("precommit", "commit", "pv-header")
SLOWEST_MS = 4000
_Writing = orders.WriteBlocks | orders.WriteVersion


class Trouble(enum.Enum):
    """What a host's way to the disks does."""

    NONE = "none"
    SLOW = "slow"
    WRITES_FAIL = "writes-fail"
    """An error; the bytes may be there all the same, or some of them."""
    READS_FAIL = "reads-fail"


@dataclass(eq=False)
class _Job:
    order: int
    body: orders.StorageOrder
    valid: Callable[[str], bool]
    """The guard of the life that gave the order."""
    done: Callable[[inputs.OrderDone], None]
    writes: deque[tuple[str, orders.Write]] = field(default_factory=deque)
    """Those that have not begun, each with the name of its step."""


class Storage:
    """Args: awake: as `Host.awake`, of the host whose storage this is."""

    def __init__(
        self, scheduler: Scheduler, disks: Disks, awake: Callable[[Callable[[], None]], None]
    ) -> None:
        self._scheduler, self._disks, self._awake = scheduler, disks, awake
        self._jobs: deque[_Job] = deque()
        self._in_flight: orders.Write | None = None
        self.trouble = Trouble.NONE
        self._sick: tuple[str, ...] = ()
        self.troubled_ns = -1
        """When trouble last began or ended."""
        self.hangs_ms = 0
        """How much longer the write in flight takes."""
        self.fault: Callable[[], None] = lambda: None
        """Called whenever a write is in flight."""

    @property
    def writes(self) -> bool:
        """Whether a write is with a disk, or about to be."""
        return self._in_flight is not None

    def suffer(self, trouble: Trouble, disks: tuple[str, ...]) -> None:
        """Trouble with these disks, or (NONE) the end of it."""
        self.trouble, self._sick, self.troubled_ns = trouble, disks, self._scheduler.now_ns

    def fails(self, trouble: Trouble, path: str) -> bool:
        """Whether this host's way to a disk has that trouble now."""
        return self.trouble is trouble and path in self._sick

    def do(
        self,
        order: int,
        body: orders.StorageOrder,
        valid: Callable[[str], bool],
        done: Callable[[inputs.OrderDone], None],
    ) -> None:
        if isinstance(body, orders.ZeroBlocks):
            body = orders.WriteBlocks((_zeros(body),), body.guard, "zero")
        steps: tuple[tuple[str, tuple[orders.Write, ...]], ...] = ()
        if isinstance(body, orders.WriteVersion):
            steps = (("zero", tuple(map(_zeros, body.zeros))), *body.steps)
        if isinstance(body, orders.WriteBlocks):
            steps = ((body.what, body.writes),)
        writes = deque((what, one) for what, some in steps for one in some)
        self._jobs.append(_Job(order, body, valid, done, writes))
        if len(self._jobs) == 1:
            self._later(self._jobs[0], self._work)

    def stop(self, power: bool) -> None:
        """The daemon is gone, with or without its host."""
        self._jobs.clear()
        self.hangs_ms = 0
        write, self._in_flight = self._in_flight, None
        if write is None:
            return
        if power:
            self._disk(write).tear(write.offset_bytes, write.data, self._scheduler)
        elif self._scheduler.chance(0.5):
            self._disk(write).write(write.offset_bytes, write.data)
        self._disks.wrote("cut short")

    # -- one order -----------------------------------------------------------------

    def _later(self, job: _Job, what: Callable[[_Job], None], frozen_too: bool = False) -> None:
        def go_on() -> None:
            if self._jobs and self._jobs[0] is job:
                what(job)

        slow = self.trouble is Trouble.SLOW and self._scheduler.chance(0.3)
        delay_ms = self._scheduler.between(100, SLOWEST_MS) if slow else self._scheduler.delay_ms(0.5, 20)
        self._scheduler.after(delay_ms, go_on if frozen_too else lambda: self._awake(go_on))

    def _work(self, job: _Job) -> None:
        body = job.body
        if isinstance(body, orders.ScanDevices | orders.ReadBlocks):
            self._end(job, self._look(body))
        elif isinstance(body, orders.ReadDisks):
            self._next_step(job, steps_of(body), None)
        elif isinstance(body, orders.ReadText):
            try:
                self._end(job, read_text_like(body.text, body.where, body.like))
            except Damaged as error:
                self._end(job, error)
        elif isinstance(body, orders.SaveText):
            self._end(job, Unavailable("no backups are kept here"))
        elif isinstance(body, orders.Probe):
            self._end(job, self._probe(body))
        elif isinstance(body, orders.CopyBlocks):
            self._copy(job, body)
        elif isinstance(body, orders.WriteBlocks | orders.WriteVersion) and job.writes:
            self._begin_write(job, body)
        else:
            self._end(job, None)

    def _look(self, order: orders.ScanDevices | orders.ReadBlocks) -> Any:
        if isinstance(order, orders.ReadBlocks):
            return tuple(self._read(read) for read in order.reads)
        return tuple(orders.Device(disk.path, disk.size_bytes) for disk in self._disks.disks.values())

    def _next_step(self, job: _Job, steps: Steps, answer: Any) -> None:
        """Of reading the disks: time passes in between, in which they may change."""
        try:
            step = steps.send(answer)
        except StopIteration as stop:
            self._end(job, stop.value)
        else:
            found = self._look(step)
            self._later(job, lambda job: self._next_step(job, steps, found))

    def _read(self, read: orders.Read) -> bytes | None:
        if self.fails(Trouble.READS_FAIL, read.path):
            return None
        disk = self._disks.disks.get(read.path)
        return disk.read(read.offset_bytes, read.length_bytes) if disk else None

    def _copy(self, job: _Job, body: orders.CopyBlocks) -> None:
        data = self._read(orders.Read(body.path, body.offset_bytes, body.length_bytes))
        if data is None:
            self._end(job, DeviceFailed("cannot be read", next="look at the disk"))
            return
        write = orders.Write(body.to_path, body.to_offset_bytes, data)
        job.writes.append(("copy", write))
        job.body = orders.WriteBlocks((write,), body.guard, "copy")
        self._begin_write(job, job.body)

    def _probe(self, body: orders.Probe) -> Probed | DeviceFailed:
        """The table of `volumes.signatures` looks: there is no libblkid here."""
        reads = [orders.Read(one.path, one.start_bytes, one.length_bytes) for one in body.extents]
        pieces = [self._read(read) for read in reads]
        if None in pieces:
            return DeviceFailed("cannot be read", next="look at the disk")
        data = b"".join(piece for piece in pieces if piece is not None)
        parts = [data[offset : offset + length] for offset, length in parts_read(len(data))]
        return Probed(identify(len(data), *parts), Prober.OWN_TABLE)

    def _begin_write(self, job: _Job, body: _Writing) -> None:
        if self._refused(job, body):
            return
        what, write = job.writes.popleft()
        if self.fails(Trouble.WRITES_FAIL, write.path):
            self._fail_write(job, what, write)
            return
        self._in_flight = write
        self._later(job, lambda job: self._land(job, body, what), frozen_too=what in HEADERS)
        self.fault()

    def _land(self, job: _Job, body: _Writing, what: str) -> None:
        if self.hangs_ms:
            hangs_ms, self.hangs_ms = self.hangs_ms, 0
            hanging = self._in_flight
            self._scheduler.after(
                hangs_ms, lambda: self._land(job, body, what) if self._in_flight is hanging else None
            )
            return
        write, self._in_flight = self._in_flight, None
        assert write is not None
        self._disk(write).write(write.offset_bytes, write.data)
        self._disks.wrote(what)
        self._awake(lambda: self._landed(job, body))

    def _landed(self, job: _Job, body: _Writing) -> None:
        if self._jobs and self._jobs[0] is job and not self._refused(job, body):
            self._later(job, self._work)

    def _refused(self, job: _Job, body: _Writing) -> bool:
        if job.valid(f"vg/{body.guard}" if body.guard else "grant"):
            return False
        self._end(job, NoAuthority("this host's authority has run out: nothing is written", retry=True))
        return True

    def _fail_write(self, job: _Job, what: str, write: orders.Write) -> None:
        match self._scheduler.rng.randrange(3):
            case 0:
                self._disk(write).write(write.offset_bytes, write.data)
            case 1:
                self._disk(write).tear(write.offset_bytes, write.data, self._scheduler)
        self._disks.wrote(what)
        self._end(job, DeviceFailed(f"cannot write to {write.path}: I/O error", next="look at the disk"))

    def _end(self, job: _Job, answer: Any) -> None:
        self._jobs.popleft()
        if self._jobs:
            self._later(self._jobs[0], self._work)
        if isinstance(answer, RingfenceError):
            job.done(inputs.OrderDone(job.order, error=answer.as_dict()))
        else:
            job.done(inputs.OrderDone(job.order, answer=answer))

    def _disk(self, write: orders.Write) -> Disk:
        return self._disks.disks[write.path]


def _zeros(order: orders.ZeroBlocks) -> orders.Write:
    return orders.Write(order.path, order.offset_bytes, bytes(order.length_bytes))
