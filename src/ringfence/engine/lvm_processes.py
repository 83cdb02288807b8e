"""Commands of stock LVM2 that may run on though nobody listens to them any more.

The lock of such a command ends with its connection; so says lvmlockd's protocol.  But where it is the daemon
that ended, or that hung up, the command may be in the middle of a commit and write on.  Then its locks stay
until its process has ended, and what they could write is no longer valid."""

from ringfence.engine.context import Context
from ringfence.engine.effects import WatchProcess
from ringfence.engine.inputs import ProcessEnded
from ringfence.engine.locker import Locker


class LvmProcesses:
    def __init__(self, context: Context, locker: Locker) -> None:
        self._context = context
        self._locker = locker
        self._locks: dict[tuple[int, int], list[int]] = {}
        """Ids of the locks that a process has: by its pid and start."""

    def stays(self, lock: int) -> None:
        """A command's lock is held until its process ends."""
        use = self._locker.use(lock)
        assert use is not None
        assert use.process[0], "an activation does not end with a process"
        if use.process not in self._locks:
            self._context.out(WatchProcess(*use.process))
        self._locks.setdefault(use.process, []).append(lock)

    def works_in(self, lockspace: str) -> bool:
        """Whether one has a lock there; which LVs it was told that it has, nobody remembers."""
        uses = (self._locker.use(lock) for locks in self._locks.values() for lock in locks)
        return any(use is not None and use.lockspace == lockspace for use in uses)

    def ended(self, fact: ProcessEnded) -> None:
        locks = self._locks.pop((fact.pid, fact.started), [])
        uses = [use for use in map(self._locker.use, locks) if use is not None]
        if uses:
            words = ", ".join(dict.fromkeys(use.what for use in uses))
            what = f"LVM2's process {fact.pid} has ended: {words} is let go of, its value not valid"
            self._context.record("lvm-ended", what)
            self._locker.drop([use.lock for use in uses])

    def lost(self) -> None:
        """This life is over; its driver ends the processes."""
        self._locks.clear()
