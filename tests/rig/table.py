"""Inside a guest: the table that we would load for an LV, as `dmsetup table` prints it.

    table.py VG LV"""

import subprocess
import sys
from pathlib import Path

from ringfence.block.dm.mapper import lines_of
from ringfence.lvm2.text import parse_text
from ringfence.volumes.model import read_vg
from ringfence.volumes.tables import table_of

BACKUP = Path("/run/rig.backup")

name, lv_name = sys.argv[1:]
subprocess.run(
    ("lvm", "vgcfgbackup", "--nolocking", "-f", BACKUP, name), check=True, stdout=subprocess.DEVNULL
)
vg = read_vg(parse_text(BACKUP.read_bytes(), name), name)
(lv,) = (one for one in vg.lvs if one.name == lv_name)
for line in lines_of(table_of(vg, lv, {pv.name: pv.device for pv in vg.pvs})):
    print(line.start_sectors, line.length_sectors, line.kind, line.parameters)
