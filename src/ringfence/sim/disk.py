"""The shared disks of a world: sectors in memory, written by any host, as a disk writes them.

A sector of 512 bytes is written whole or not at all.  A write of more than one that is torn (its host
lost power) leaves some sectors old and some new, in any mixture."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ringfence.lvm2.area import MdaHeader, print_header
from ringfence.lvm2.label import SECTOR_BYTES, Area, PvLabel, print_label
from ringfence.sim.scheduler import Scheduler

DATA_START_BYTES = 64 << 10
AREA_START_BYTES = 4096
DISKS = ("/dev/sim0", "/dev/sim1")


@dataclass(eq=False)
class Disk:
    path: str
    data: bytearray

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes | None:
        """None where the disk ends before that."""
        end = offset_bytes + length_bytes
        return bytes(self.data[offset_bytes:end]) if end <= len(self.data) else None

    def write(self, offset_bytes: int, data: bytes) -> None:
        end = offset_bytes + len(data)
        assert offset_bytes % SECTOR_BYTES == 0 == end % SECTOR_BYTES, "direct I/O is in whole sectors"
        assert end <= len(self.data), "a write beyond the end of a disk"
        self.data[offset_bytes:end] = data

    def tear(self, offset_bytes: int, data: bytes, scheduler: Scheduler) -> None:
        """The write was under way when its host lost power."""
        for start in range(0, len(data), SECTOR_BYTES):
            if scheduler.chance(0.5):
                self.write(offset_bytes + start, data[start : start + SECTOR_BYTES])


@dataclass(eq=False)
class Disks:
    """What all hosts see.  `wrote` is told after every change, with a word for the step."""

    disks: dict[str, Disk]
    wrote: Callable[[str], None] = field(default=lambda what: None)


def blank_disks(size_bytes: int) -> Disks:
    return Disks({path: Disk(path, bytearray(size_bytes)) for path in DISKS})


def make_small_pvs(disks: Disks) -> None:
    """Make every disk a PV with a metadata area so small that texts soon come round in its ring.

    (`pvcreate` makes areas of a MiB, in which a run of the simulator never gets to the end.)"""
    for number, disk in enumerate(disks.disks.values()):
        area = Area(AREA_START_BYTES, DATA_START_BYTES - AREA_START_BYTES >> 2)
        uuid = f"SimPv{number}".ljust(32, "x")
        label = PvLabel(uuid, disk.size_bytes, (Area(DATA_START_BYTES, 0),), (area,))
        disk.write(area.offset_bytes, print_header(MdaHeader(area.offset_bytes, area.size_bytes)))
        disk.write(SECTOR_BYTES * label.sector, print_label(label))
