"""The tables that stock LVM2 made of VGs in which it has locks through this host's daemon.

Which those are is read from the daemon's note (`host.lvm_locks`), where a lock stands before LVM2 is told of
it.  A VG's authority is the best of its pages: each incarnation has its own, the locks may be of an earlier
one that was adopted, and a life that was not adopted ends with its pages lost and its tables cut.

All tables of such a VG are suspended, those on top first, not only those of the LVs whose locks are noted:
the legs of a RAID, a thin pool, a cache are devices of their own.  What was suspended already is LVM2's
business, and is not resumed here."""

import threading
from collections.abc import Callable, Iterable, Sequence
from glob import escape
from pathlib import Path

from ringfence.block.dm.counters import BLOCK, Counters, Written
from ringfence.block.dm.guard import Guard
from ringfence.block.dm.judge import Judge, Wanted
from ringfence.block.dm.mapper import Mapper, failing, fails
from ringfence.core.errors import RingfenceError
from ringfence.core.locknames import vg_of
from ringfence.host.clock import boottime_ns
from ringfence.host.lvm_locks import read_locks
from ringfence.host.mapper import SharedVg, Table, levels, of_vgs, tables
from ringfence.wire.lvmlockd import LvmLock

SCAN_S = 0.25

Late = Callable[[str, Written, int], None]
"""("VG/LV", what may have been written without authority, ms from its end to the table's)."""


class StockVg:
    """One VG's tables.  Fulfils `guard.Guarded`."""

    def __init__(
        self,
        vg: SharedVg,
        mapper: Mapper,
        hold_ms: int,
        ours: Callable[[], Iterable[str]],
        late: Late,
        say: Callable[[str], None],
        block: Path = BLOCK,
    ) -> None:
        """Args: ours: uuids of devices that are guarded one by one."""
        self.vg = vg
        self.judge = Judge(hold_ms)
        self.pages: tuple[str, ...] = ()
        self.lost = False
        self.state = Wanted.PASS
        self._mapper = mapper
        self._ours = ours
        self._late = late
        self._say = say
        self._block = block
        self._known: list[Table] = []
        """As of the last scan, those on top first."""
        self._working = threading.Lock()
        self._suspended: list[str] = []
        """Uuids, as they were suspended."""
        self._counted: dict[str, tuple[Counters, Written | None]] = {}
        """By kernel name."""

    def deadline_ns(self, read: Callable[[str], int]) -> int:
        return 0 if self.lost else max((read(page) for page in self.pages), default=0)

    def count(self, deadline_ns: int) -> None:
        for kernel, (counters, _) in list(self._counted.items()):
            written = counters.read()
            if boottime_ns() < deadline_ns:
                self._counted[kernel] = (counters, written)

    def bring(self, wanted: Wanted) -> None:
        with self._working:
            was, ended_ns = self.state, self.judge.ended_ns
            if was is Wanted.PASS and ended_ns is not None:
                self.count(ended_ns)
            try:
                if wanted is Wanted.PASS:
                    self._resume()
                else:
                    self._stop(wanted)
            except (OSError, RingfenceError) as error:
                self._say(f"tables of VG {self.vg.name} cannot be brought to {wanted.value}: {error}")
                return
            self.state = wanted
        if was is Wanted.PASS and ended_ns is not None:
            self._report((boottime_ns() - ended_ns) // 1_000_000)

    def scan(self) -> None:
        """Look which tables there are now.  While they are held LVM2 may have made one, or resumed one.

        Raises OSError, Unavailable."""
        with self._working:
            if self.state is not Wanted.PASS:
                self._stop(self.state)
        found = self._tables()
        self._known = [table for level in levels(found) for table in level]
        here = {one.kernel for one in found}
        for kernel in [one for one in self._counted if one not in here]:
            self._counted.pop(kernel)[0].close()
        for kernel in sorted(here.difference(self._counted)):
            self._counted[kernel] = (Counters(kernel, self._block), None)

    def close(self) -> None:
        for counters, _ in self._counted.values():
            counters.close()
        self._counted = {}

    def _tables(self) -> tuple[Table, ...]:
        """Raises Unavailable."""
        ours = set(self._ours())
        found = of_vgs(tables(self._block), (self.vg,), by_name=False)
        return tuple(one for one in found if one.uuid not in ours)

    def _stop(self, wanted: Wanted) -> None:
        """Raises OSError, Unavailable."""
        for table in self._known:  # no time is lost with looking
            self._stop_one(table.uuid, wanted)
        for level in levels(self._tables()):
            for table in level:
                self._stop_one(table.uuid, wanted)

    def _stop_one(self, uuid: str, wanted: Wanted) -> None:
        device = self._mapper.find(uuid)
        if device is None or not device.active:
            return
        if wanted is Wanted.HOLD and not device.suspended:
            self._mapper.suspend(uuid)
            self._suspended.append(uuid)
        elif wanted is Wanted.FAIL and not fails(lines := self._mapper.table(uuid)):
            self._mapper.load(uuid, failing(lines))
            self._mapper.resume(uuid)

    def _resume(self) -> None:
        """Raises OSError."""
        while self._suspended:
            uuid = self._suspended[-1]
            device = self._mapper.find(uuid)
            if device is not None and device.suspended:
                self._mapper.resume(uuid)
            self._suspended.pop()

    def _report(self, late_ms: int) -> None:
        if late_ms < 0:
            return
        for table in self._tables():
            counters, seen = self._counted.get(table.kernel, (None, None))
            now = counters.read() if counters is not None else None
            if now is not None and seen is not None and now.since(seen).requests and not table.layer:
                self._late("/".join(table.volume), now.since(seen), late_ms)


class Stock:
    """Keeps the guard's list of such VGs up to the daemon's note.

    Args:
        note: the daemon's file.
        authority: the directory of the authority pages.
        boot: this boot's id.
        make: makes the guarded thing of a VG.
    """

    def __init__(
        self, note: Path, authority: Path, boot: str, guard: Guard, make: Callable[[SharedVg], StockVg],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._note, self._authority, self._boot = note, authority, boot
        self._guard = guard
        self._make = make
        self._say = say
        self._said = ""
        self._guarded: dict[str, StockVg] = {}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dm-stock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ending.set()

    def look(self) -> None:
        """Raises OSError, Unavailable; what was guarded is guarded on then."""
        try:
            locks, lost = read_locks(self._note, self._boot)
        except (OSError, ValueError):
            return  # it is being written; what is there is guarded on
        vgs = {vg.name: vg for vg in _vgs(locks)}
        for name in [one for one in self._guarded if one not in vgs]:
            one = self._guarded.pop(name)
            self._guard.remove(one)
            one.close()
        for name, vg in vgs.items():
            there = self._guarded.get(name)
            if there is None:
                there = self._guarded[name] = self._make(vg)
            there.vg, there.lost = vg, lost
            there.pages = tuple(sorted(map(str, self._authority.glob(f"*/vg.{escape(name)}"))))
            there.scan()
            self._guard.add(there)

    def _run(self) -> None:
        while not self._ending.wait(SCAN_S):
            said = ""
            try:
                self.look()
            except (OSError, RingfenceError) as error:
                said = f"the tables of LVM2 cannot be guarded: {error}"
            if said and said != self._said:
                self._say(said)
            self._said = said


def _vgs(locks: Sequence[LvmLock]) -> list[SharedVg]:
    found: dict[str, SharedVg] = {}
    for one in locks:
        name = vg_of(one.lockspace)
        if name is None or not one.persistent:
            continue
        known = found.get(name) or SharedVg(name)
        found[name] = SharedVg(name, one.vg_uuid or known.uuid, (*known.lvs, one.resource))
    return list(found.values())
