"""The service's side of one worker: start it, hear it, end it, reap it.

A worker counts as gone only when it has been waited for: a process that was sent SIGKILL may still
be inside a write to a disk, one that was reaped is not.  Writes that it has issued together (`fastpath.c`)
are waited for where its memory is given back (Linux, exit_aio), which is before it can be reaped, unless
somebody was looking into that memory just then.  So it counts as reaped when its memory is gone, too: a
file that is mapped there is locked as long."""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ringfence.block.extents import flush_paths
from ringfence.core.errors import DeviceFailed, RingfenceError, Unavailable, from_dict
from ringfence.host.processes import STOPPED, process
from ringfence.wire import block as wire

START_S = 30.0
MEMORY_POLL_S = 0.005
END_S = 20.0
"""How long an orderly end may take before whoever asked is told that it is not done yet."""


class Handle:
    """One worker, from its start to its reaping.

    Args:
        order: what it will serve.
        path: how it is listed; `pid`, `connections`, `direct` and `failed` are kept up to date in it.
        on_incident: called with each incident it tells.
        on_end: called once, when it has been reaped.
    """

    def __init__(
        self,
        order: wire.Order,
        path: wire.Path,
        on_incident: Callable[[wire.IncidentStored], None],
        on_end: Callable[["Handle"], None],
    ) -> None:
        self.order = order
        self.path = path
        self._on_incident = on_incident
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._memory_fd = -1
        self._began = asyncio.Event()
        self._reaped = asyncio.Event()
        self._said: RingfenceError | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._end_ordered = False
        self._swapped: asyncio.Future[wire.Swapped] | None = None

    @property
    def gone(self) -> bool:
        """Reaped (or never started)."""
        return self._process is None or self._reaped.is_set()

    async def start(self) -> None:
        """Returns when the LV's socket is served.

        Raises RingfenceError; the worker is then reaped."""
        ours = self._spawn()
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=wire.MAX_LINE_BYTES)
        self._listening = asyncio.create_task(self._listen(reader))
        self._writer.write(wire.encode(self.order))
        try:
            await asyncio.wait_for(self._began.wait(), START_S)
        except TimeoutError:
            words = f"the worker of {self.name} did not start in {START_S:.0f} s"
            self._said = Unavailable(words, retry=True)
            self.kill()
            await self._reaped.wait()
        if self.gone or self._said is not None:
            await self._reaped.wait()
            raise self._said or Unavailable(f"the worker of {self.name} ended at its start", retry=True)

    def _spawn(self) -> socket.socket:
        """Fork it (a few milliseconds).  Returns our end of the channel."""
        ours, theirs = socket.socketpair()
        memory_fd = -1
        try:
            memory_fd, self._memory_fd = _opened_twice(Path(self.order.socket).parent)
            fcntl.flock(memory_fd, fcntl.LOCK_EX)
            self.order = msgspec.structs.replace(self.order, memory_fd=memory_fd)
            command = [sys.executable, "-m", "ringfence.block.worker", str(theirs.fileno()), str(os.getpid())]
            order = self.order
            fds = [fd for fd in (theirs.fileno(), order.lock_fd, order.listener_fd, memory_fd) if fd >= 0]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=fds)
        except OSError as error:
            ours.close()
            if self._memory_fd >= 0:
                os.close(self._memory_fd)
            raise Unavailable(f"cannot start a worker: {error}", retry=True) from None
        finally:
            theirs.close()
            if memory_fd >= 0:
                os.close(memory_fd)
        self._pidfd = os.pidfd_open(self._process.pid)
        self.path = msgspec.structs.replace(self.path, pid=self._process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)
        return ours

    async def swap(self, order: wire.Order, path: wire.Path) -> None:
        """Have it serve something else.  `order` and `path` are the new ones afterwards.

        Raises RingfenceError: it ended meanwhile, or goes on as before."""
        answer = await self.obey(wire.Swap(order.open, order.socket))
        self.order = order
        changing = {name: getattr(self.path, name) for name in ("pid", "connections", "failed", "moving")}
        self.path = msgspec.structs.replace(path, direct=answer.direct, **changing)

    async def obey(self, word: wire.Swap | wire.Mirror | wire.Seal | wire.Unmirror) -> wire.Swapped:
        """Have it do something, one thing at a time; `path` is up to date afterwards.

        Raises RingfenceError: it ended meanwhile, or goes on as before."""
        assert self._writer is not None
        assert self._swapped is None
        self._swapped = swapped = asyncio.get_running_loop().create_future()
        ended = asyncio.ensure_future(self._reaped.wait())
        self._writer.write(wire.encode(wire.EndWorker(word=word)))
        try:
            either: list[asyncio.Future[Any]] = [swapped, ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not swapped.done():
                raise Unavailable(f"the worker of {self.name} has ended", next=f"close {self.name}")
            answer: wire.Swapped = swapped.result()
        finally:
            ended.cancel()
            self._swapped = None
        if answer.error is not None:
            raise from_dict(answer.error)
        return answer

    @property
    def open_call(self) -> wire.Open:
        return self.order.open

    @property
    def name(self) -> str:
        return f"{self.path.vg}/{self.path.lv}"

    async def look(self) -> wire.Path:
        """As it is at this moment."""
        seen = None
        if self._process is not None and not self.gone:
            with contextlib.suppress(OSError):  # then it is not told whether it is stopped
                seen = process(self._process.pid)
        if seen is None or seen.state not in STOPPED:
            return self.path
        said = f"its worker, process {self.path.pid}, is stopped; next: kill -CONT {self.path.pid}"
        return msgspec.structs.replace(self.path, stopped=said)

    def kill(self) -> None:
        """Reaches a stopped or stuck worker too; `reaped` says when it has taken effect."""
        self._end_ordered = True
        if self._pidfd >= 0:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def reaped(self) -> None:
        if self._process is not None:
            await self._reaped.wait()

    async def end(self, flush: bool) -> None:
        """End it in order.  Returns when it is reaped and, with `flush`, its devices are flushed.

        Raises:
            DeviceFailed: the flush failed (it is reaped all the same), or the worker has not ended yet;
                asking again goes on waiting.
        """
        if not self.gone and not self._end_ordered:
            self._end_ordered = True
            assert self._writer is not None
            self._writer.write(wire.encode(wire.EndWorker(flush)))
        try:
            await asyncio.wait_for(self.reaped(), END_S)
        except TimeoutError:
            raise DeviceFailed(
                f"{self.name} is not closed yet: its worker, process {self.path.pid}, does not end",
                next="look whether it is stopped or its disk hangs; ask again",
                retry=True,
            ) from None
        if flush and (self.path.failed or self._code != 0):
            # It did not get to its own flush.  What it had answered is in the devices' hands.
            await self._flush()

    async def _flush(self) -> None:
        if self.path.readonly:
            return
        places = [place for extent in self.order.open.extents for place in extent.places]
        paths = [place.path for place in places if place.path]
        try:
            await asyncio.get_running_loop().run_in_executor(None, flush_paths, paths)
        except OSError as error:
            words = f"{self.name} could not be flushed: {error.strerror}"
            raise DeviceFailed(words, next="what was written last may be missing: check the disk") from None
        if self._said is not None:
            raise self._said

    @property
    def _code(self) -> int:
        return 0 if self._process is None or self._process.returncode is None else self._process.returncode

    # -- what it says -------------------------------------------------------------

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._heard(wire.decode_from_worker(line))
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            print(f"block: the worker of {self.name} talks nonsense: {error}", file=sys.stderr, flush=True)
        finally:
            if self._writer is not None:
                self._writer.close()

    def _heard(self, message: wire.FromWorker) -> None:
        if isinstance(message, wire.IncidentStored):
            self._on_incident(message)
        elif isinstance(message, wire.Connections):
            self.path = msgspec.structs.replace(self.path, connections=message.count)
        elif isinstance(message, wire.Swapped):
            if self._swapped is not None and not self._swapped.done():
                self._swapped.set_result(message)
        elif isinstance(message, wire.Moves):
            self.path = msgspec.structs.replace(self.path, moving=message.moving)
        elif isinstance(message, wire.WorkerReady):
            self.path = msgspec.structs.replace(self.path, direct=message.direct, fast=message.fast)
            self._began.set()
        else:
            self._said = from_dict(message.error)

    def _ended(self) -> None:
        """The process has ended, all its threads with it: reap it."""
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._process.wait()
        task = asyncio.ensure_future(self._finish())
        task.add_done_callback(lambda done: done.exception())

    async def _finish(self) -> None:
        """Hear what it said last, then tell everybody."""
        if self._listening is not None:
            await asyncio.wait([self._listening], timeout=5)
        if not self._end_ordered:
            how = f"signal {-self._code}" if self._code < 0 else f"exit code {self._code}"
            failed = f"its worker ended with {how}"
            self.path = msgspec.structs.replace(self.path, connections=0, failed=failed)
        await self._memory_is_gone()
        self._reaped.set()
        self._began.set()
        self._on_end(self)

    async def _memory_is_gone(self) -> None:
        """As a rule it is."""
        while True:
            try:
                fcntl.flock(self._memory_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(MEMORY_POLL_S)
            else:
                os.close(self._memory_fd)
                return


def _opened_twice(directory: Path) -> tuple[int, int]:
    """Two descriptors of a file that has no name any more; a lock of the one is in the other's way.

    (A memfd could be opened again through /proc only, which a host need not show us.)  Raises OSError."""
    first, path = tempfile.mkstemp(prefix=".#", dir=directory)
    try:
        return first, os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        os.close(first)
        raise
    finally:
        os.unlink(path)
