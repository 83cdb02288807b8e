"""The LV of a VG's disk slots: how it is known, and how it is made.

It is linear and in one piece, so that a block's place on its PV is one sum.  It bears the tag
`ringfence.slots`, whatever it is called, and LVM2's flag ACTIVATION_SKIP, so that a stock `vgchange -ay`
leaves it alone.  Source: lvmlockd's own LV for sanlock (lvmlock) for the idea; lib/format_text/flags.c."""

from ringfence.core.errors import Refused
from ringfence.lvm2.text import Section
from ringfence.volumes.model import SECTOR_BYTES, SLOTS_TAG, Lv, Vg
from ringfence.volumes.plan import Maker, create_lv
from ringfence.wire.slots import LEAST_NODES, size_bytes

SLOTS_LV = "ringfence_slots"


def slots_of(vg: Vg) -> Lv | None:
    """The VG's slots; None if it has none."""
    return next((lv for lv in vg.lvs if lv.slots), None)


def place_of(vg: Vg, lv: Lv) -> tuple[str, int]:
    """(PV, first byte on its device) of the slots.

    Raises Refused for slots that somebody has moved into pieces."""
    if len(lv.segments) != 1 or not lv.linear:
        raise Refused(
            f"the disk slots of VG {vg.name} are not in one piece any more",
            next=f"stop the VG on every node (vgchange --lockstop {vg.name}), then, with stock LVM2: "
            f"pvmove -n {lv.name} to a PV with room for them in one piece",
        )
    (stripe,) = lv.segments[0].stripes
    pv = vg.pv(stripe.pv)
    assert pv is not None, "a stripe lies on a PV of its VG"
    return pv.name, pv.start_sectors * SECTOR_BYTES + stripe.start_extent * vg.extent_bytes


def add_slots(vg: Vg, uuid: str, highest_node: int, maker: Maker) -> Vg:
    """The VG with slots.  The seqno is not touched.

    Args:
        uuid: of the new LV, with dashes.
        highest_node: the highest node id that is configured.

    Raises Refused: there are slots, or no room for them in one piece."""
    have = slots_of(vg)
    if have is not None:
        raise Refused(
            f"VG {vg.name} has disk slots already ({have.name})", next=f"ringfence slots show {vg.name}"
        )
    extents = -(-size_bytes(max(highest_node, LEAST_NODES)) // vg.extent_bytes)
    new = create_lv(vg, SLOTS_LV, uuid, extents, maker)
    lv = new.lv(SLOTS_LV)
    assert lv is not None
    if len(lv.segments) != 1:
        raise Refused(
            f"VG {vg.name} has no {extents} free extents in one piece for its disk slots",
            next="free some, or add a PV with stock LVM2: vgextend",
        )
    section = new.section_of(SLOTS_LV).put("flags", ("WRITE_LOCKED", "ACTIVATION_SKIP"))
    return new.with_lv(SLOTS_LV, _tagged(section))


def _tagged(section: Section) -> Section:
    """LVM2 writes tags right behind the flags."""
    items = [*section.drop("tags").items]
    at = next(index for index, (key, _) in enumerate(items) if key == "flags") + 1
    return Section((*items[:at], ("tags", (SLOTS_TAG,)), *items[at:]))
