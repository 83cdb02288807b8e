"""Whether any host uses an LV of a VG: asked of the ordered state, which knows all locks of all hosts."""

from collections.abc import Generator
from typing import Any

from ringfence.core.errors import Refused
from ringfence.engine.commands.locking import VG_RESOURCE, space_of
from ringfence.engine.orders import Holder, Holders, LockNames, LocksThere, OpenPaths, OpenVolume, Order
from ringfence.volumes.model import Vg

_TOLD = 4


def refuse_in_use(name: str, *vgs: Vg) -> Generator[Order, Any, None]:
    """Raises Refused while an LV of the VG is active on any host, through LVM2 or through a path of ours, or
    a path is open here.  The caller holds the VG's lock, so that none is activated meanwhile.

    Args: vgs: where the LVs' names stand; one of an LV that they do not know counts all the same."""
    locks: LockNames = yield LocksThere(space_of(name))
    opened: tuple[OpenVolume, ...] = yield OpenPaths()
    names = {lv.uuid: lv.name for vg in vgs for lv in vg.lvs}
    told = [f"{one.lv} (open here)" for one in opened if one.vg == name and one.uuid not in locks.held]
    for resource in sorted(locks.held - {VG_RESOURCE}):
        holders: tuple[Holder, ...] = yield Holders(space_of(name), resource)
        if holders:
            where = ", ".join(f"{one.mode.name} on {one.name}" for one in holders)
            told.append(f"{names.get(resource, resource)} ({where})")
        if len(told) > _TOLD:
            told[_TOLD:] = ["..."]
            break
    if told:
        raise Refused(
            f"Volume group {name} has active LVs: {', '.join(told)}",
            next=f"deactivate them there: lvchange -an {name}",
        )
