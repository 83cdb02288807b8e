"""Whether any host uses an LV of a VG: asked of the ordered state, which knows all locks of all hosts."""

from collections.abc import Generator
from typing import Any

from ringfence.core.errors import Refused
from ringfence.engine.commands.locking import VG_RESOURCE, space_of
from ringfence.engine.orders import Holder, LocksIn, OpenPaths, OpenVolume, Order
from ringfence.volumes.model import Vg

_TOLD = 4


def refuse_in_use(name: str, *vgs: Vg) -> Generator[Order, Any, None]:
    """Raises Refused while an LV of the VG is active on any host, through LVM2 or through a path of ours, or
    a path is open here.  The caller holds the VG's lock, so that none is activated meanwhile.

    Args: vgs: where the LVs' names stand; one of an LV that they do not know counts all the same."""
    found: tuple[tuple[str, Holder], ...] = yield LocksIn(space_of(name))
    names = {lv.uuid: lv.name for vg in vgs for lv in vg.lvs}
    active = [
        f"{names.get(resource, resource)} ({holder.mode.name} on {holder.name})"
        for resource, holder in found
        if resource != VG_RESOURCE
    ]
    opened: tuple[OpenVolume, ...] = yield OpenPaths()
    held = dict.fromkeys(resource for resource, _ in found)
    active += [f"{one.lv} (open here)" for one in opened if one.vg == name and one.uuid not in held]
    if active:
        more = f" and {len(active) - _TOLD} more" if len(active) > _TOLD else ""
        raise Refused(
            f"Volume group {name} has active LVs: {', '.join(active[:_TOLD])}{more}",
            next=f"deactivate them there: lvchange -an {name}",
        )
