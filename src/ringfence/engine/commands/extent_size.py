"""vgchange --physicalextentsize, planned: the text of every LV changes, a slice at a time."""

from collections.abc import Generator
from typing import Any

from ringfence.core.errors import Damaged, Refused
from ringfence.core.units import sized
from ringfence.engine.orders import Device, GoOn, Order, ReadText, ScanDevices
from ringfence.lvm2.text import print_ends, print_member
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import SECTOR_BYTES, Vg
from ringfence.volumes.rescale import Rescale, check_at_rest
from ringfence.volumes.unclean import pieces

STEP = 200
"""So many LVs are printed or looked at before others have their turn."""


def rescaled(found: VgOnDisk, vg: Vg, extent_sectors: int) -> Generator[Order, Any, Vg]:
    """The VG with extents of that size.

    Args: vg: as it is to be but for that.

    Raises BadInput, Refused."""
    check_at_rest(vg)
    yield from _check_devices(found, extent_sectors)
    change = Rescale(vg, extent_sectors)
    head, tail = print_ends(change.frame())
    texts = [head]
    for number, lv in enumerate(vg.lvs, 1):
        texts.append(print_member(lv.name, change.lv(lv)))
        if number % STEP == 0:
            yield GoOn()
    new: Vg = yield ReadText(b"".join((*texts, tail)), f"VG {vg.name}, rescaled")
    for number, (old_lv, new_lv) in enumerate(zip(vg.lvs, new.lvs, strict=True), 1):
        if (old_lv.name, pieces(vg, old_lv)) != (new_lv.name, pieces(new, new_lv)):
            raise Damaged(f"LV {vg.name}/{old_lv.name} would be elsewhere: nothing is written")
        if number % STEP == 0:
            yield GoOn()
    return new


def _check_devices(found: VgOnDisk, extent_sectors: int) -> Generator[Order, Any, None]:
    """An extent is whole blocks of every device."""
    paths = [pv.path for pv in found.pvs.values()]
    devices: tuple[Device, ...] = yield ScanDevices()
    for device in devices:
        if device.path in paths and extent_sectors * SECTOR_BYTES % device.sector_bytes:
            raise Refused(
                f"{device.path} has blocks of {device.sector_bytes} bytes: "
                f"an extent of {sized(extent_sectors * SECTOR_BYTES)} is no whole number of them",
                next="give a multiple",
            )
