"""The daemon's hold on what stock LVM2 has through it on this host: its locks, its commands, its tables.

LVM2's writes pass no authority page.  So a life that is lost is over for them only when three things are
known, in this order: its commands have ended (one that was granted a lock could still write metadata, or
make a device), every device-mapper table of their VGs is cut, and a last look finds none."""

import asyncio
import contextlib
import functools
import os
import signal
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ringfence.core.errors import Unavailable
from ringfence.core.ids import Token
from ringfence.core.listed import listed
from ringfence.core.locknames import VG_SPACE, vg_of
from ringfence.daemon.ports import Feed
from ringfence.engine.inputs import LeftOpen, ProcessEnded
from ringfence.host.lvm_locks import LvmLocks
from ringfence.host.mapper import Mapper, SharedVg
from ringfence.host.processes import GONE, process
from ringfence.wire.lvmlockd import MODES, LvmLock
from ringfence.wire.ring import OpenLock

ENDING_S = 1.0
"""How long a command that was killed may take before it is called one that hangs."""
POLL_S = 0.2
NAMED = 3
"""So many of a long list are named to people."""

Answer = TypeVar("Answer")


class LvmHost:
    """Fulfils `ports.Lvm`."""

    def __init__(self, locks: LvmLocks, mapper: Mapper) -> None:
        self._locks = locks
        self._mapper = mapper
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="mapper")

    def keep(self, kept: Collection[LvmLock], gone: Collection[LvmLock]) -> None:
        self._locks.keep(kept, () if self._locks.lost else gone)

    def left(self, *, adoptable: bool) -> tuple[LeftOpen, ...] | None:
        """What an earlier daemon of this boot has left, but for commands that have ended; None: there is
        something, and it may not be adopted.

        Raises DeviceFailed."""
        ended = [one for one in self._locks.locks() if not (one.persistent or _runs(one))]
        self._locks.keep((), ended)
        if not self.empty and (self._locks.lost or not adoptable):
            return None
        return tuple(map(_left_open, self._locks.locks()))

    def lose(self) -> None:
        """From now on nothing that is noted may be adopted, nor is it struck off before it is dropped.

        Raises DeviceFailed."""
        self._locks.lose()

    @property
    def empty(self) -> bool:
        return not self._locks.locks()

    def watch(self, pid: int, started: int, feed: Feed) -> None:
        """Feed ProcessEnded when it has: by a pidfd, or where none can be had by looking again and again."""
        loop = asyncio.get_running_loop()
        over = ProcessEnded(pid, started)
        if not _alive(pid, started):
            feed(over)
            return
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            loop.call_later(POLL_S, self.watch, pid, started, feed)
            return
        if not _alive(pid, started):  # it was another one's already
            os.close(fd)
            feed(over)
            return

        def ended() -> None:
            loop.remove_reader(fd)
            os.close(fd)
            feed(over)

        loop.add_reader(fd, ended)

    async def standing(self, vgs: Collection[str]) -> tuple[str, ...]:
        """"VG/LV" of device-mapper tables of these VGs through which something may be written.

        Raises Unavailable."""
        found = await self._in_thread(functools.partial(self._mapper.standing, self._named(vgs)))
        return tuple(dict.fromkeys("/".join(one.volume) for one in found))

    async def cut(self, vgs: Collection[str]) -> tuple[str, ...]:
        """Cut all of them; "VG/LV" of those that stand all the same.

        Raises Unavailable."""
        left = await self._in_thread(functools.partial(self._mapper.cut, self._named(vgs)))
        return tuple(dict.fromkeys("/".join(one.volume) for one in left))

    def _named(self, vgs: Collection[str]) -> tuple[SharedVg, ...]:
        noted = {one.name: one for one in self._vgs()}
        return tuple(noted.get(name, SharedVg(name)) for name in vgs)

    async def drop_all(self) -> None:
        """Returns only when nothing that LVM2 has through this node can write any more.

        Raises Unavailable (what is left), DeviceFailed."""
        self.lose()
        vgs = self._vgs()
        commands = [one for one in self._locks.locks() if not one.persistent]
        for one in commands:
            _kill(one)
        await self._in_thread(functools.partial(self._mapper.cut, vgs))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDING_S):
                while any(_runs(one) for one in commands):  # noqa: ASYNC110 - they are not our children
                    await asyncio.sleep(0.01)
        if hanging := [f"{one.what} (pid {one.pid})" for one in commands if _runs(one)]:
            raise Unavailable(f"commands of LVM2 do not end: {listed(hanging, NAMED)}")
        # Nobody is left who could make another one.
        if left := await self._in_thread(functools.partial(self._mapper.standing, vgs)):
            names = [one.name for one in left]
            raise Unavailable(f"device-mapper tables are not cut: {listed(names, NAMED)}")
        self._locks.clear()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._mapper.close()

    def _vgs(self) -> tuple[SharedVg, ...]:
        """The VGs of all locks noted, whether of LVs or of the VG."""
        found: dict[str, SharedVg] = {}
        for one in self._locks.locks():
            name = vg_of(one.lockspace)
            if name is None:  # the global lock's: a VG of that name is none of ours
                continue
            known = found.get(name) or SharedVg(name)
            lvs = (*known.lvs, one.resource) if one.persistent else known.lvs
            found[name] = SharedVg(name, one.vg_uuid or known.uuid, lvs)
        return tuple(found.values())

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _left_open(lock: LvmLock) -> LeftOpen:
    shown = OpenLock(lock.lockspace, lock.resource, MODES[lock.mode], Token.parse(lock.token))
    return LeftOpen(lock.lockspace.removeprefix(VG_SPACE), "", shown, (), lock)


def _runs(lock: LvmLock) -> bool:
    return _alive(lock.pid, lock.started)


def _alive(pid: int, started: int) -> bool:
    """Also where it cannot be told: what it holds is let go of when it has ended, and that is not known."""
    try:
        found = process(pid)
    except OSError:
        return True
    return found is not None and found.start == started and found.state not in GONE


def _kill(lock: LvmLock) -> None:
    """By a pidfd, so that it hits that process or none: nobody of whom it cannot be told who it is."""
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(lock.pid)
        try:
            found = process(lock.pid)
            if found is not None and found.start == lock.started:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)
