"""Which LVs device-mapper has active on this host, and what each is made of; read from sysfs.

A device's uuid says whose it is: LVM-, the VG's uuid, the LV's.  Its name is VG-LV, hyphens doubled.
Source: Linux Documentation/ABI/testing/sysfs-block-dm; LVM2 lib/activate/dev_manager.c."""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ringfence.doctor.facts import MappedVolume
from ringfence.lvm2.names import with_dashes

BLOCK = Path("/sys/block")
_UUID = re.compile(r"(?:part\d+-)?LVM-([0-9A-Za-z]{32})([0-9A-Za-z]{32})(-\w+)?")
_NAME = re.compile(r"((?:[^-]|--)+)-((?:[^-]|--)+)")


class Mapped(msgspec.Struct, frozen=True):
    name: str
    uuid: str
    slaves: tuple[str, ...]
    """Kernel names of the devices that it is made of."""


def mapped_volumes() -> tuple[MappedVolume, ...]:
    """Those that can be read; a device that goes away meanwhile is none."""
    found = {}
    for path in sorted(BLOCK.glob("dm-*")):
        try:
            name, uuid = (path / "dm/name").read_text().strip(), (path / "dm/uuid").read_text().strip()
            slaves = tuple(sorted(one.name for one in (path / "slaves").iterdir()))
        except OSError:
            continue
        found[path.name] = Mapped(name, uuid, slaves)
    return volumes(found)


def volumes(mapped: Mapping[str, Mapped]) -> tuple[MappedVolume, ...]:
    """LVs that are somebody's to use: not the parts that LVM2 makes others of (their uuid has a suffix)."""
    found = []
    for one in mapped.values():
        uuid, name = _UUID.fullmatch(one.uuid), _NAME.fullmatch(one.name)
        if uuid is None or uuid[3] or name is None or one.uuid.startswith("part"):
            continue
        vg, lv = (part.replace("--", "-") for part in name.groups())
        above = sorted({below for below in _below(one, mapped) if below != vg})
        found.append(MappedVolume(one.name, vg, lv, with_dashes(uuid[2]), tuple(above)))
    return tuple(found)


def _below(one: Mapped, mapped: Mapping[str, Mapped]) -> list[str]:
    """VGs of all LVs that a device stands on, however deep."""
    found = []
    for slave in one.slaves:
        under = mapped.get(slave)
        if under is None:
            continue
        name = _NAME.fullmatch(under.name)
        if _UUID.fullmatch(under.uuid) is not None and name is not None:
            found.append(name[1].replace("--", "-"))
        found += _below(under, mapped)
    return found
