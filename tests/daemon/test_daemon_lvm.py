"""Of which VGs tables are cut as a life ends: those in which LVM2 has locks through this host, no others."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from ringfence.daemon.lvm import LvmHost
from ringfence.host.lvm_locks import LvmLocks
from ringfence.host.mapper import Mapper, SharedVg, Table
from ringfence.wire.lvmlockd import LvmLock


class Recording(Mapper):
    """A host without tables."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, ...]] = []

    def standing(self, vgs: Sequence[SharedVg]) -> tuple[Table, ...]:
        self.asked.append(tuple(vg.name for vg in vgs))
        return ()


def test_a_local_vg_called_global_is_not_the_global_lock(tmp_path: Path) -> None:
    locks, mapper = LvmLocks(tmp_path / "lvm-locks", "boot"), Recording()
    ended = (2**22 + 1, 1)  # no such process
    locks.keep(
        [
            LvmLock("lvm_global", "GLLK", "ex", "1.1.1", "the global lock", *ended),
            LvmLock("lvm_vg0", "VGLK", "ex", "1.1.2", "VG vg0", *ended),
        ],
        [],
    )
    host = LvmHost(locks, mapper)
    asyncio.run(host.drop_all())
    host.close()
    assert set(mapper.asked) == {("vg0",)}
    assert host.empty
