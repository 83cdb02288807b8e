"""Device-mapper's tables on this host, as sysfs shows them; and the end of those that LVM2 made of a VG.

A device's uuid says whose it is: "LVM-", the VG's uuid, the LV's, both without hyphens, and for the parts
that LVM2 makes other LVs of perhaps a suffix ("-tpool", "-real").  Its name is VG-LV, hyphens doubled.

LVM2's writes go through such a table with nobody's authority asked.  So who must say "every volume is
closed" cuts them: each gets a table that fails all I/O, and what was under way through it has ended by then
(dmsetup(8), wipe_table).  A table is *cut* once it stands on no device any more: sysfs lists what it stands
on as its slaves, and a table that only fails has none.

Which tables: all of a VG's, not only those of the LVs whose locks are known.  A RAID leg, a thin pool or a
cache is a device of its own, which LVM2 alone knows to be part of a locked LV; and once this host's locks
are others', no table of that VG has a right to be here.

Source: Linux Documentation/ABI/testing/sysfs-block-dm, drivers/md/dm.c (bd_link_disk_holder); LVM2
lib/activate/dev_manager.c, lib/misc/lvm-string.c (dm names); lvmlockd(8), "sanlock lease storage failure
automation", which cuts likewise."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from ringfence.core.errors import Unavailable
from ringfence.host.probes import TOOLS_PATH

BLOCK = Path("/sys/block")
DMSETUP = ("dmsetup",)
CUT_S = 5.0
"""How long one level of tables is waited for before those below are cut as well."""
LOOK_S = 0.02
AT_ONCE = 16
_UUID = re.compile(r"LVM-([0-9A-Za-z!#]{32})([0-9A-Za-z!#]{32})(-\w+)?")
_NAME = re.compile(r"((?:[^-]|--)+)-((?:[^-]|--)+)(-.+)?")
_MANGLED = re.compile(r"\\x([0-9a-f]{2})")


class Table(msgspec.Struct, frozen=True):
    kernel: str
    """dm-7."""
    name: str
    uuid: str
    slaves: tuple[str, ...]
    """Kernel names of the devices that it stands on; none: it reaches no disk."""

    @property
    def vg_uuid(self) -> str:
        """Without hyphens, as `lv_uuid`; both empty: it is not LVM2's."""
        return self._uuid(1)

    @property
    def lv_uuid(self) -> str:
        return self._uuid(2)

    @property
    def layer(self) -> str:
        """What LVM2 uses it for, of one that is only a part of something: "-tpool"."""
        return self._uuid(3)

    @property
    def volume(self) -> tuple[str, str]:
        """(VG, LV) by its name, of LVM2's tables; the LV may be one that LVM2 hides."""
        found = _NAME.fullmatch(_plain(self.name))
        return (_one_hyphen(found[1]), _one_hyphen(found[2])) if found and self.vg_uuid else ("", "")

    def _uuid(self, part: int) -> str:
        found = _UUID.fullmatch(_plain(self.uuid))
        return (found[part] or "") if found else ""


class SharedVg(msgspec.Struct, frozen=True):
    """A VG in which stock LVM2 has locks through this host."""

    name: str
    uuid: str = ""
    """As in the metadata; empty: not known."""
    lvs: tuple[str, ...] = ()
    """Uuids of the LVs that it may have active."""


def tables(block: Path = BLOCK) -> tuple[Table, ...]:
    """All of this host; one that goes away meanwhile is none.

    Raises Unavailable: what is there cannot be told."""
    found = []
    try:
        names = sorted(name for name in os.listdir(block) if name.startswith("dm-"))
        for kernel in names:
            at = block / kernel
            try:
                name, uuid = ((at / "dm" / one).read_text().rstrip("\n") for one in ("name", "uuid"))
                slaves = tuple(sorted(os.listdir(at / "slaves")))
            except (FileNotFoundError, NotADirectoryError):
                if at.exists():
                    raise
                continue
            found.append(Table(kernel, name, uuid, slaves))
    except (OSError, UnicodeDecodeError) as error:
        words = f"cannot read device-mapper's tables: {error}"
        raise Unavailable(words, next=f"see that {block} can be read") from None
    return tuple(found)


def of_vgs(found: Iterable[Table], vgs: Sequence[SharedVg], *, by_name: bool = True) -> tuple[Table, ...]:
    """Tables that LVM2 made of these VGs.

    A VG goes by its uuid; where nobody has told that, by the table of any of its LVs, and by its name."""
    lvm = [one for one in found if one.vg_uuid]
    lvs = {_plain_uuid(uuid) for vg in vgs for uuid in vg.lvs}
    uuids = {_plain_uuid(vg.uuid) for vg in vgs if vg.uuid}
    uuids |= {one.vg_uuid for one in lvm if one.lv_uuid in lvs}
    names = {vg.name for vg in vgs if by_name and not vg.uuid}
    return tuple(one for one in lvm if one.vg_uuid in uuids or one.volume[0] in names)


class Mapper:
    """This host's tables.  Blocking: what cuts may hang as long as an array does.

    Args:
        block: sysfs's list of block devices.
        dmsetup: how that program is started.
        by_name: False for a lab's host: another VG of that name may be its machine's own.
    """

    def __init__(
        self, block: Path = BLOCK, dmsetup: Sequence[str] = DMSETUP, *, by_name: bool = True
    ) -> None:
        self._by_name = by_name
        self._block = block
        self._dmsetup = tuple(dmsetup)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        """By kernel name: one that hangs is not started a second time."""
        self._one_at_a_time = threading.Lock()

    def standing(self, vgs: Sequence[SharedVg]) -> tuple[Table, ...]:
        """Tables of these VGs through which something may yet be written.  Raises Unavailable."""
        if not vgs:
            return ()
        found = of_vgs(tables(self._block), vgs, by_name=self._by_name)
        return tuple(one for one in found if one.slaves)

    def cut(self, vgs: Sequence[SharedVg]) -> tuple[Table, ...]:
        """Cut every table of these VGs, those on top first.  Returns what stands all the same.

        Raises Unavailable: nothing is known."""
        with self._one_at_a_time:
            left = self.standing(vgs)
            for level in levels(left):
                self._wipe(level)
            return self.standing(vgs) if left else ()

    def close(self) -> None:
        """Wait for nothing any more."""
        for one in self._running.values():
            one.kill()
        self._reap()

    def _wipe(self, level: Sequence[Table]) -> None:
        give_up = time.monotonic() + CUT_S
        waiting = list(level)
        while waiting or any(one.kernel in self._running for one in level):
            self._reap()
            while waiting and len(self._running) < AT_ONCE:
                self._start(waiting.pop(0))
            if time.monotonic() > give_up:
                return
            time.sleep(LOOK_S)

    def _start(self, table: Table) -> None:
        if table.kernel in self._running:
            return
        words = (*self._dmsetup, "wipe_table", "--noflush", "--nolockfs", "--noudevsync", table.name)
        try:
            self._running[table.kernel] = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={"PATH": TOOLS_PATH, "LC_ALL": "C.UTF-8"}, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            words_ = f"cannot start {self._dmsetup[0]}: {error.strerror}"
            raise Unavailable(words_, next="install dmsetup") from None

    def _reap(self) -> None:
        self._running = {kernel: one for kernel, one in self._running.items() if one.poll() is None}


def levels(found: Collection[Table]) -> list[list[Table]]:
    """Those that no other of them stands on, then those below: what is on top ends before its parts."""
    by_name = {one.kernel: one for one in found}
    depth = {one.kernel: _height(one, by_name) for one in found}
    return [
        [one for one in found if depth[one.kernel] == height]
        for height in sorted(set(depth.values()), reverse=True)
    ]


def _height(table: Table, by_name: Mapping[str, Table]) -> int:
    below = [by_name[slave] for slave in table.slaves if slave in by_name]
    return 1 + max((_height(one, by_name) for one in below), default=0)


def _plain_uuid(uuid: str) -> str:
    return uuid.replace("-", "")


def _one_hyphen(name: str) -> str:
    return name.replace("--", "-")


def _plain(text: str) -> str:
    """As before libdevmapper wrote characters that it does not like as \\xNN (libdm-common.c)."""
    return _MANGLED.sub(lambda found: chr(int(found[1], 16)), text)
