"""A host's way to the disk slots, as `daemon.slots` and `storage.slots` are one: a queue for each VG.

Header, write, reads, one after the other.  A host that freezes does so between two of them; what it has
given to the disk lands all the same.  An array may be dead for this host (nothing is answered, what was
begun lands when it is back) or slow; power loss tears the write in flight."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ringfence.core.errors import NotFound, RingfenceError, TimedOut, VgChanged
from ringfence.engine import inputs
from ringfence.engine.orders import SlotIo
from ringfence.sim.disk import Disks
from ringfence.sim.scheduler import Scheduler
from ringfence.wire.slots import BLOCK_BYTES

SLOWEST_MS = 1500


@dataclass(eq=False)
class _Job:
    order: int
    body: SlotIo
    done: Callable[[inputs.OrderDone], None]
    late: Callable[[], bool]
    """Whether it is too late to begin the write, on the host's clock."""
    begun: bool = False
    given_up: bool = False


class SlotPort:
    """Args: awake: as `Host.awake`, of the host whose way it is."""

    def __init__(
        self, scheduler: Scheduler, disks: Disks, awake: Callable[[Callable[[], None]], None]
    ) -> None:
        self._scheduler, self._disks, self._awake = scheduler, disks, awake
        self._queues: dict[str, deque[_Job]] = {}
        self._in_flight: list[_Job] = []
        self._dead: tuple[str, ...] = ()
        self._slow = False
        self._stuck: list[Callable[[], None]] = []
        self.troubled_ns = -1
        """When its last trouble began or ended."""

    def suffer(self, dead: tuple[str, ...] = (), *, slow: bool = False) -> None:
        """These disks do not answer, or all answer slowly; nothing: the end of it."""
        self._dead, self._slow, self.troubled_ns = dead, slow, self._scheduler.now_ns
        stuck, self._stuck = self._stuck, []
        for what in stuck:
            self._scheduler.after(self._scheduler.between(0, 20), what)

    @property
    def well(self) -> bool:
        return not self._dead and not self._slow

    def do(
        self, order: int, body: SlotIo, late: Callable[[], bool], done: Callable[[inputs.OrderDone], None]
    ) -> None:
        job = _Job(order, body, done, late)
        jobs = self._queues.setdefault(body.vg, deque())
        jobs.append(job)
        if len(jobs) == 1:
            self._later(job, self._begin)
        self._scheduler.after(body.limit_ms, lambda: self._awake(lambda: self._give_up(job)))

    def stop(self, power: bool) -> None:
        """The daemon is gone, with or without its host."""
        in_flight, self._in_flight = self._in_flight, []
        self._queues, self._stuck = {}, []
        for job in in_flight:
            assert job.body.write is not None
            offset, data = job.body.write
            disk = self._disks.disks[job.body.path]
            if power:
                disk.tear(job.body.start_bytes + offset, data, self._scheduler)
            elif self._scheduler.chance(0.5):
                disk.write(job.body.start_bytes + offset, data)

    # -- one order -----------------------------------------------------------------

    def _first(self, job: _Job) -> bool:
        jobs = self._queues.get(job.body.vg)
        return bool(jobs) and jobs is not None and jobs[0] is job

    def _later(
        self, job: _Job, what: Callable[[_Job], None], frozen_too: bool = False, often: bool = False
    ) -> None:
        def go_on() -> None:
            if not self._first(job):
                return
            if job.body.path in self._dead:
                self._stuck.append(go_on)
            elif frozen_too:
                what(job)
            else:
                self._awake(lambda: what(job) if self._first(job) else None)

        if self._slow and often:
            delay_ms = self._scheduler.between(50, 400)
        elif self._slow and self._scheduler.chance(0.1):
            delay_ms = self._scheduler.between(50, SLOWEST_MS)
        else:
            delay_ms = self._scheduler.delay_ms(0.5, 20)
        self._scheduler.after(delay_ms, go_on)

    def _begin(self, job: _Job) -> None:
        if job.given_up:
            self._end(job, None)
            return
        job.begun = True
        body = job.body
        disk = self._disks.disks.get(body.path)
        if self._changed(body):
            self._end(job, VgChanged(f"VG {body.vg} has changed", retry=True))
        elif disk is None or disk.read(body.start_bytes, BLOCK_BYTES) != body.header:
            self._end(job, NotFound(f"the disk slots of VG {body.vg} are not there any more"))
        elif body.write is None:
            self._later(job, self._read)
        elif job.late():
            self._end(job, RingfenceError("too late to write", retry=True))
        else:
            self._in_flight.append(job)
            self._later(job, self._land, frozen_too=True)

    def _land(self, job: _Job) -> None:
        if job not in self._in_flight:
            return
        self._in_flight.remove(job)
        assert job.body.write is not None
        offset, data = job.body.write
        self._disks.disks[job.body.path].write(job.body.start_bytes + offset, data)
        self._later(job, self._read)

    def _read(self, job: _Job) -> None:
        disk = self._disks.disks[job.body.path]
        found = tuple(disk.read(job.body.start_bytes + one, BLOCK_BYTES) for one in job.body.reads)
        changed = VgChanged(f"VG {job.body.vg} has changed", retry=True) if self._changed(job.body) else None
        self._later(job, lambda job: self._end(job, changed or found), often=True)  # old news by then, maybe

    def _changed(self, body: SlotIo) -> bool:
        disk = self._disks.disks.get(body.text.path)
        return disk is None or disk.read(body.text.at_bytes, len(body.text.data)) != body.text.data

    def _give_up(self, job: _Job) -> None:
        if job.given_up or not any(job in jobs for jobs in self._queues.values()):
            return
        job.given_up = True
        words = f"VG {job.body.vg}: its array ({job.body.path}) does not answer"
        job.done(inputs.OrderDone(job.order, error=TimedOut(words, retry=True).as_dict()))

    def _end(self, job: _Job, answer: Any) -> None:
        jobs = self._queues[job.body.vg]
        jobs.popleft()
        if jobs:
            self._later(jobs[0], self._begin)
        if job.given_up:
            return
        if isinstance(answer, RingfenceError):
            job.done(inputs.OrderDone(job.order, error=answer.as_dict()))
        else:
            job.done(inputs.OrderDone(job.order, answer=answer))
