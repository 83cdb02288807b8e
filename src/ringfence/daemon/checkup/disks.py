"""Which disk stands behind each path of [devices], told so that hosts can be compared.

A PV's uuid is the same on a copy of the disk (a snapshot, a replica), so more is told: the disk's own
name, where it has one, and what its metadata areas say at the moment."""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from ringfence.core.errors import Damaged
from ringfence.lvm2.area import HEADER_BYTES, parse_header, text_ranges
from ringfence.lvm2.label import LABEL_SCAN_BYTES, Area, parse_label
from ringfence.storage.direct import DirectFile
from ringfence.storage.scan import scan_devices
from ringfence.wire.checkup import DiskFacts, VgFacts

BLOCK_DEVICES = Path("/sys/dev/block")
MOST = 256
"""Disks that are told of: facts stay small."""
HEAD_BYTES = 4096
"""Of a VG's text: what it says of the VG itself.  The whole of it may be megabytes, and to parse those would
hold up a daemon."""
_NAME = re.compile(r"^([\w+.-]+) \{$", re.M)
_STRING = re.compile(r'^(id|lock_type|lock_args) = "([^"]*)"$', re.M)
_FLAGS = re.compile(r"^flags = \[(.*)\]$", re.M)


def listed(patterns: Sequence[str]) -> tuple[DiskFacts, ...]:
    """The devices that the patterns allow, not yet read; and those that cannot be used."""
    found = scan_devices(patterns)
    usable = [DiskFacts(one.path, one.size_bytes, _is_block(one.path)) for one in found.devices]
    return tuple([*usable, *(DiskFacts(path, trouble=why) for path, why in found.refused.items())][:MOST])


def disk_facts(disk: DiskFacts, *, read: bool = True) -> DiskFacts:
    """Read past the page cache: what another host wrote is what is compared.  Raises RingfenceError."""
    if disk.trouble or not read:
        return disk
    pv = label = text = trouble = ""
    vg, pv_bytes = None, 0
    with DirectFile(disk.path, write=False) as file:
        start = file.read(0, min(LABEL_SCAN_BYTES, file.size_bytes))
        label = _digest(start)
        try:
            found = parse_label(start, disk.path)
        except Damaged as error:
            trouble, found = error.message, None
        if found is not None:
            pv, pv_bytes = found.uuid, found.device_bytes
            headers = [file.read(area.offset_bytes, HEADER_BYTES) for area in found.metadata_areas]
            text = _digest(b"".join(headers))
            with contextlib.suppress(Damaged):  # whoever reads the VG tells
                vg = _vg(file, found.metadata_areas, headers, disk.path)
    wwid = _wwid(disk.path) if disk.block else ""
    return DiskFacts(disk.path, disk.size_bytes, disk.block, pv, label, text, wwid, trouble, vg, pv_bytes)


def _vg(file: DirectFile, areas: Sequence[Area], headers: Sequence[bytes], path: str) -> VgFacts | None:
    """Of the first area that names a text.  Raises Damaged for headers that are."""
    for area, data in zip(areas, headers, strict=True):
        slot = (header := parse_header(data, area, path)).committed
        if not slot.empty:
            parts = [
                file.read(one.offset_bytes, min(one.size_bytes, HEAD_BYTES))
                for one in text_ranges(header, slot)
            ]
            return read_head(b"".join(parts)[:HEAD_BYTES])
    return None


def read_head(text: bytes) -> VgFacts | None:
    """From how the text of a VG begins, up to its PVs; None: it does not look like one."""
    head = text.decode("utf-8", "replace").partition("physical_volumes {")[0].replace("\t", "")
    name, flags = _NAME.search(head), _FLAGS.search(head)
    if name is None:
        return None
    said = dict(_STRING.findall(head))
    lock_type = said.get("lock_type", "none")
    return VgFacts(
        name[1],
        lock_type if lock_type != "none" else "",
        said.get("lock_args", ""),
        autoactivated=flags is None or '"NOAUTOACTIVATE"' not in flags[1],
        uuid=said.get("id", ""),
    )


def _is_block(path: str) -> bool:
    return stat.S_ISBLK(os.stat(path).st_mode)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _wwid(path: str) -> str:
    """Empty where the kernel tells none (loop devices, plain virtual disks)."""
    number = os.stat(path).st_rdev
    device = BLOCK_DEVICES / f"{os.major(number)}:{os.minor(number)}"
    for name in ("dm/uuid", "device/wwid", "wwid"):
        try:
            return bare_wwid((device / name).read_text(errors="replace"))
        except OSError:
            continue
    return ""


def bare_wwid(text: str) -> str:
    """The hexadecimal number that a disk and its multipath device have in common; else empty.

    Multipath calls a disk by scsi_id's name: a digit for the kind of number (3: NAA, 2: EUI-64), then the
    number, which sysfs shows as naa.N or eui.N.  Names of other kinds are spelled differently from tool
    to tool, and are not compared.  Source: scsi_id(8), Linux drivers/scsi/scsi_lib.c (scsi_vpd_lun_id)."""
    name = text.strip().lower()
    for prefix in ("mpath-3", "mpath-2", "naa.", "eui."):
        number = name.removeprefix(prefix)
        if number != name:
            return number if number and not set(number) - set("0123456789abcdef") else ""
    return ""
