"""Disks with a shared VG on them, and stock LVM2 that sees nothing else.

A VG of thousands of LVs is written by ringfence's own writer of LVM2's format, in a second or two; stock
lvcreate would need an hour.  A disk is a sparse file behind a loop device which goes away with the process
that holds it open, however that ends.  With `activation=0` LVM2 needs no device-mapper and asks for the
same locks."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from ringfence.engine.commands.pvcreate import lay_out
from ringfence.lvm2.area import MdaHeader, place_text, print_header, text_writes
from ringfence.lvm2.label import SECTOR_BYTES, USED, PvLabel, print_label
from ringfence.lvm2.names import with_dashes
from ringfence.lvm2.text import Section, print_text
from ringfence.volumes.plan import Maker, NewPv, create_lv, create_vg

AREA_BYTES = 64 << 20
EXTENT_BYTES = 64 << 10
COMMAND_LIMIT_S = 600.0
QUIET = "WARNING: Activation disabled. No device-mapper interaction will be attempted."
"""What a command says that has nothing else to complain of."""

CONFIG = """\
devices {{
    use_devicesfile = 0
    filter = [ "a|^{device}$|", "r|.*|" ]
    global_filter = [ "a|^{device}$|", "r|.*|" ]
    obtain_device_list_from_udev = 0
    external_device_info_source = "none"
    scan_lvs = 0
    hints = "none"
}}
global {{
    activation = 0
    use_lvmlockd = 1
    use_lvmpolld = 0
    event_activation = 0
    notify_dbus = 0
    lvmlockd_lock_retries = 60
    locking_dir = "{locks}"
}}
activation {{
    udev_sync = 0
    udev_rules = 0
    monitoring = 0
}}
backup {{
    backup = 0
    archive = 0
}}
"""


def disk_bytes(lvs: int) -> int:
    """How large a disk is that has room for a VG of so many LVs, and for some hundreds more."""
    return AREA_BYTES + (2 << 20) + (lvs + 640) * EXTENT_BYTES


def lv_uuid(number: int) -> str:
    return with_dashes(f"BenchLv{number:08}".ljust(32, "x"))


def write_vg(image: Path, name: str, cluster: str, lvs: int) -> None:
    """Make the image a PV, and it a shared VG with LVs lv0, lv1, … of one extent each."""
    size_bytes = disk_bytes(lvs)
    uuid, maker = f"BenchPv{name}".ljust(32, "x"), Maker("bench", "bench", 0)
    label = lay_out(str(image), size_bytes, uuid, AREA_BYTES)
    area = label.metadata_areas[0]
    pv = NewPv(with_dashes(uuid), str(image), size_bytes, label.data_start_bytes)
    vg_uuid = with_dashes(f"BenchVg{name}".ljust(32, "x"))
    vg = create_vg(name, vg_uuid, cluster, (pv,), EXTENT_BYTES // SECTOR_BYTES, maker)
    tree = vg.tree
    if lvs:
        first = create_lv(vg, "lv0", lv_uuid(0), 1, maker)
        tree = first.tree.put(name, first.body.put("logical_volumes", _copies(first.body, lvs)))
    empty = MdaHeader(area.offset_bytes, area.size_bytes)
    text = print_text(tree)
    slot = place_text(empty, text, str(image))
    writes = [*text_writes(empty, slot, text)]
    writes.append((area.offset_bytes, print_header(MdaHeader(area.offset_bytes, area.size_bytes, slot))))
    writes.append(
        (SECTOR_BYTES, print_label(PvLabel(uuid, size_bytes, label.data_areas, (area,), flags=USED)))
    )
    with image.open("r+b") as file:
        for offset, data in writes:
            file.seek(offset)
            file.write(data)


def _copies(body: Section, lvs: int) -> Section:
    """The VG's one LV so many times, each on an extent of its own."""
    section = body.section("logical_volumes")
    assert section is not None
    ((_, pattern),) = section.sections()
    segment = pattern.section("segment1")
    assert segment is not None
    made = []
    for number in range(lvs):
        own = segment.put("stripes", ("pv0", number))
        made.append((f"lv{number}", pattern.put("id", lv_uuid(number)).put("segment1", own)))
    return Section(tuple(made))


@contextlib.contextmanager
def loop(image: Path) -> Iterator[str]:
    """The image as a loop device.  It is detached at once, which the kernel does when the last user of it
    is gone; that is us."""
    found = subprocess.run(
        ["losetup", "--find", "--show", str(image)], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        fd = os.open(found, os.O_RDONLY)
    finally:
        subprocess.run(["losetup", "--detach", found], check=True)
    try:
        yield found
    finally:
        os.close(fd)


class Failed(Exception):
    """A stock command failed; its words."""


class Host:
    """Stock LVM2 as one host has it: a configuration, local locks and a lock daemon of its own."""

    def __init__(self, directory: Path, device: str, socket: str) -> None:
        locks = directory / "locks"
        locks.mkdir(parents=True)
        (directory / "lvm.conf").write_text(CONFIG.format(device=device, locks=locks))
        self.socket = socket
        self._env = {
            "PATH": os.environ["PATH"], "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1",
            "LVM_SYSTEM_DIR": str(directory), "LVM_LVMLOCKD_SOCKET": socket,
        }  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words, env=self._env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str) -> str:
        """What it printed.  Raises Failed."""
        code, out, complaint = self.attempt(*words)
        if code:
            raise Failed(f"{' '.join(words)}: exit {code}: {complaint}")
        return out

    def attempt(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output, the last line of complaint."""
        with self.start(*words) as process:
            try:
                out, complaints = process.communicate(timeout=COMMAND_LIMIT_S)
            except BaseException:
                process.kill()
                raise
        return process.returncode, out, (complaints.strip().splitlines() or [""])[-1]

    def seconds(self, *words: str) -> float:
        began = time.perf_counter()
        self.run(*words)
        return time.perf_counter() - began

    def value(self, *words: str) -> str:
        """Of a report with one field of one row."""
        return self.run(*words, "--noheadings").strip()
