"""Disk slots behind a time limit: a thread for each VG, which nobody waits for longer than that.

An array that is dead answers no system call, and no thread can be taken out of one.  So its thread stands
still alone; what was asked for meanwhile and has not begun is given up, and never begins."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from ringfence.core.errors import RingfenceError, TimedOut
from ringfence.engine.orders import SlotIo
from ringfence.storage.slots import SlotDevice

Answer = tuple[bytes, ...]
IDLE_S = 10.0
"""Slots are tended about once a second: a VG that was left alone for so long is not used any more."""


class Device(Protocol):
    """`storage.slots.SlotDevice`."""

    def do(self, order: SlotIo) -> Answer: ...

    def close(self) -> None: ...


class SlotThreads:
    """Fulfils `ports.Slots`.

    Args:
        clock: CLOCK_BOOTTIME, in nanoseconds.
        make: one VG's device; for tests.
        idle_s: after so long without an order a device is closed, so that nothing keeps a disk that is taken
            away."""

    def __init__(
        self, clock: Callable[[], int], make: Callable[[], Device] | None = None, idle_s: float = IDLE_S
    ) -> None:
        self._make = make or (lambda: SlotDevice(clock))
        self._idle_s = idle_s
        self._workers: dict[str, _Worker] = {}

    async def do(self, order: SlotIo) -> Answer:
        """Raises what the device raises, and TimedOut."""
        worker = self._workers.get(order.vg)
        if worker is None:
            worker = self._workers[order.vg] = _Worker(order.vg, self._make(), self._idle_s)
        job = _Job(order, asyncio.get_running_loop())
        worker.jobs.put(job)
        try:
            return await asyncio.wait_for(asyncio.shield(job.answer), order.limit_ms / 1000)
        except TimeoutError:
            job.given_up = True
            raise TimedOut(
                f"VG {order.vg}: its array ({order.path}) did not answer within {order.limit_ms} ms",
                next="look at the device and the kernel's log",
                retry=True,
            ) from None
        except asyncio.CancelledError:
            job.given_up = True
            raise


class _Job:
    def __init__(self, order: SlotIo, loop: asyncio.AbstractEventLoop) -> None:
        self.order = order
        self.given_up = False
        self.answer: asyncio.Future[Answer] = loop.create_future()
        self._loop = loop

    def run(self, device: Device) -> None:
        """In the worker's thread."""
        try:
            answer = device.do(self.order)
        except Exception as error:
            self._tell(None, error)
        else:
            self._tell(answer, None)

    def _tell(self, answer: Answer | None, error: Exception | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._take, answer, error)
        except RuntimeError:
            return  # the daemon has ended meanwhile: its loop is closed

    def _take(self, answer: Answer | None, error: Exception | None) -> None:
        if self.given_up or self.answer.done():
            self.answer.cancel()
        elif answer is not None:
            self.answer.set_result(answer)
        else:
            assert error is not None
            wrong = error if isinstance(error, RingfenceError) else RingfenceError(f"slots: {error!r}")
            self.answer.set_exception(wrong)


class _Worker:
    def __init__(self, vg: str, device: Device, idle_s: float) -> None:
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._device, self._idle_s = device, idle_s
        # A daemon thread: one that never comes back from its system call must not keep this process alive.
        threading.Thread(target=self._work, name=f"slots of {vg}", daemon=True).start()

    def _work(self) -> None:
        patience_s: float | None = None
        while True:
            try:
                job = self.jobs.get(timeout=patience_s)
            except queue.Empty:
                self._device.close()
                patience_s = None
                continue
            patience_s = self._idle_s
            if not job.given_up:
                job.run(self._device)
