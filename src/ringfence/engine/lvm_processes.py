"""Commands of stock LVM2 that may run on though nobody listens to them any more.

The lock of such a command ends with its connection; so says lvmlockd's protocol.  But where it is the daemon
that ended, or that hung up, the command may be in the middle of a commit and write on.  Then its locks stay
until its process has ended, and what they could write is no longer valid."""

from ringfence.engine.context import Context
from ringfence.engine.effects import KeepLvmLocks, WatchProcess
from ringfence.engine.inputs import ProcessEnded
from ringfence.engine.locker import Locker
from ringfence.wire.lvmlockd import LvmLock

Process = tuple[int, int]
"""(pid, started)."""


class LvmProcesses:
    def __init__(self, context: Context, locker: Locker) -> None:
        self._context = context
        self._locker = locker
        self._locks: dict[Process, list[tuple[int, LvmLock]]] = {}

    def stays(self, lock: int, noted: LvmLock) -> None:
        """A command's lock is held until its process ends.

        Args:
            lock: the use's id.
            noted: as it was told to the driver to keep (KeepLvmLocks)."""
        assert noted.pid, "an activation does not end with a process"
        process = noted.pid, noted.started
        if process not in self._locks:
            self._context.out(WatchProcess(*process))
        self._locks.setdefault(process, []).append((lock, noted))

    def ended(self, fact: ProcessEnded) -> None:
        locks = self._locks.pop((fact.pid, fact.started), [])
        if locks:
            # Struck off before the release is said: what is noted is held, whenever a daemon is killed.
            self._context.out(KeepLvmLocks(gone=tuple(noted for _, noted in locks)))
            self._locker.drop([lock for lock, _ in locks])
            words = ", ".join(noted.what for _, noted in locks)
            self._context.record(
                "lvm-ended", f"LVM2's process {fact.pid} has ended; {words} is released, its value not valid"
            )

    def lost(self) -> None:
        """This life is over; its driver ends the processes."""
        self._locks.clear()
