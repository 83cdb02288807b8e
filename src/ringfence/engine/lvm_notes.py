"""Which locks stock LVM2 has here, as the driver keeps them for a daemon that comes after this one.

What is noted is held, whenever the daemon is killed: a lock is noted when it is granted, before anybody is
told; it is noted in the weaker mode, or struck off, when that is asked for, before the others are."""

import msgspec

from ringfence.core.modes import Mode
from ringfence.engine.context import Context
from ringfence.engine.effects import KeepLvmLocks
from ringfence.engine.uses import Use
from ringfence.locks.compat import covers
from ringfence.wire.lvmlockd import MODES, LvmLock

_NAMES = {mode: name for name, mode in MODES.items()}


class LvmNotes:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._noted: dict[int, LvmLock] = {}
        """By the lock's id."""

    def granted(self, use: Use, *, persistent: bool) -> None:
        held, name = use.held, (use.lockspace, use.resource)
        assert held is not None
        process = (0, 0) if persistent else use.process
        assert persistent or process[0], f"{use.what}: whose lock it is must be known"
        uuid = self._context.vg_uuid(use.lockspace)
        note = LvmLock(*name, _NAMES[held.mode], str(held.token), use.what, *process, uuid)
        before = self._noted.get(use.lock)
        self._noted[use.lock] = note
        gone = (before,) if before is not None and before.key != note.key else ()
        self._context.out(KeepLvmLocks((note,), gone))

    def restored(self, lock: int, note: LvmLock) -> None:
        """It is noted already: by the daemon before."""
        self._noted[lock] = note

    def lowers(self, lock: int, mode: Mode) -> None:
        """Its conversion to `mode` is about to be asked for."""
        note = self._noted.get(lock)
        if note is not None and mode in _NAMES and not covers(mode, MODES[note.mode]):
            weaker = self._noted[lock] = msgspec.structs.replace(note, mode=_NAMES[mode])
            self._context.out(KeepLvmLocks((weaker,)))

    def ends(self, *locks: int) -> None:
        """Their release is about to be asked for, or they are gone."""
        gone = tuple(self._noted.pop(lock) for lock in locks if lock in self._noted)
        if gone:
            self._context.out(KeepLvmLocks(gone=gone))

    def lost(self) -> None:
        """This life is over: what is noted tells its driver what to end, and is struck off by that alone."""
        self._noted = {}
