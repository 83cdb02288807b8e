"""A world whose VG vg0, under whose lockspace clients work, is real and has disk slots, on a disk of its own.

There two lies at once are drawn, too, and arrays that hang: what disk slots are for.  What is promised then
is promised for that VG; other lockspaces are as safe as with two nodes that have no slots."""

from ringfence.lvm2.area import MdaHeader, RawLocn, place_text, print_header, text_writes
from ringfence.lvm2.label import SECTOR_BYTES, USED, Area, PvLabel, print_label
from ringfence.lvm2.names import with_dashes
from ringfence.lvm2.text import print_text
from ringfence.sim.disk import AREA_START_BYTES, DATA_START_BYTES, Disk, Disks
from ringfence.volumes.model import SECTOR_BYTES as LVM_SECTOR_BYTES
from ringfence.volumes.plan import Maker, NewPv, create_vg
from ringfence.volumes.slots import add_slots, place_of, slots_of
from ringfence.wire.slots import LEAST_NODES, Header, print_block

VG = "vg0"
SPACE = "lvm_vg0"
PATH = "/dev/simslots"
SIZE_BYTES = 1 << 18
EXTENT_BYTES = 16 << 10


def make_slotted_vg(disks: Disks, cluster: str) -> int:
    """Returns where the slots begin on `PATH`."""
    disk = Disk(PATH, bytearray(SIZE_BYTES))
    uuid, maker = "SimPvSlots".ljust(32, "x"), Maker("sim", "sim", 0)
    area = Area(AREA_START_BYTES, DATA_START_BYTES - AREA_START_BYTES)
    label = PvLabel(uuid, SIZE_BYTES, (Area(DATA_START_BYTES, 0),), (area,), flags=USED)
    pv = NewPv(with_dashes(uuid), PATH, SIZE_BYTES, DATA_START_BYTES)
    vg_uuid = with_dashes("SimVgSlots".ljust(32, "x"))
    vg = create_vg(VG, vg_uuid, cluster, (pv,), EXTENT_BYTES // LVM_SECTOR_BYTES, maker)
    lv_uuid = with_dashes("SimLvSlots".ljust(32, "x"))
    vg = add_slots(vg, lv_uuid, LEAST_NODES, maker)
    header, text = MdaHeader(area.offset_bytes, area.size_bytes), print_text(vg.tree)
    slot = place_text(header, text, PATH, avoid=None)
    for offset, data in text_writes(header, slot, text):
        disk.write(offset, data)
    disk.write(
        area.offset_bytes, print_header(MdaHeader(area.offset_bytes, area.size_bytes, slot, RawLocn()))
    )
    disk.write(SECTOR_BYTES * label.sector, print_label(label))
    lv = slots_of(vg)
    assert lv is not None
    _, start = place_of(vg, lv)
    disk.write(start, print_block(Header(cluster, vg_uuid, LEAST_NODES, lv_uuid), 0))
    disks.disks[PATH] = disk
    return start
