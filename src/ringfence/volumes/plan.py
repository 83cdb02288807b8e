"""Plans: a VG in, the VG as it should be out.  Nothing is written here.

A shared VG is written as lvmlockd's users write it: status without WRITE and the flag
WRITE_LOCKED in its stead (so that an LVM2 which knows no lvmlockd leaves it alone), lock_type
"dlm", lock_args "1.0.0:CLUSTER", and lock_args "dlm" on every LV.  Keys come in LVM2's order.

Source: LVM2 lib/format_text/export.c (_print_vg, _print_pv, _print_lv); seen in what it writes."""

from collections.abc import Sequence

import msgspec

from ringfence.core.errors import BadInput, NotFound, Refused
from ringfence.lvm2.names import check_lv_name, check_vg_name
from ringfence.lvm2.text import Section, Value
from ringfence.volumes.access import DLM, lock_args_of
from ringfence.volumes.allocate import free_count
from ringfence.volumes.layout import ANYWHERE, Space, choose, segment_section, segments_of
from ringfence.volumes.model import CONTENTS, SECTOR_BYTES, Lv, Segment, Vg, read_vg
from ringfence.volumes.policies import INHERIT, what_helps
from ringfence.volumes.unclean import check_clean


class Maker(msgspec.Struct, frozen=True):
    """Who changes what, for the text's description and the LV's creation record."""

    what: str
    """The command, as a person would type it."""
    host: str
    now_s: int


class NewPv(msgspec.Struct, frozen=True):
    """A PV for a new VG."""

    uuid: str
    """With dashes."""
    device: str
    device_bytes: int
    data_start_bytes: int


def create_vg(
    name: str, uuid: str, cluster: str, pvs: tuple[NewPv, ...], extent_sectors: int, maker: Maker
) -> Vg:
    """A new shared VG without LVs, seqno 1.  Raises BadInput."""
    check_vg_name(name)
    members = tuple((f"pv{index}", pv_section(pv, extent_sectors)) for index, pv in enumerate(pvs))
    body = Section((
        ("id", uuid),
        ("seqno", 1),
        ("format", "lvm2"),
        ("status", ("RESIZEABLE", "READ")),
        ("flags", ("WRITE_LOCKED",)),
        ("lock_type", DLM),
        ("lock_args", lock_args_of(cluster)),
        ("extent_size", extent_sectors),
        ("max_lv", 0),
        ("max_pv", 0),
        ("metadata_copies", 0),
        ("physical_volumes", Section(members)),
    ))  # fmt: skip
    tree = Section(((name, body), ("contents", CONTENTS), ("version", 1)))
    return read_vg(_signed(tree, maker), name)


def pv_section(pv: NewPv, extent_sectors: int) -> Section:
    """A PV as it stands in a VG's metadata.  Raises BadInput."""
    extents = (pv.device_bytes - pv.data_start_bytes) // (extent_sectors * SECTOR_BYTES)
    if extents < 1:
        raise BadInput(
            f"{pv.device} is too small for even one extent of {extent_sectors * SECTOR_BYTES} bytes",
            next="use a larger device, or a smaller --physicalextentsize",
        )
    return Section((
        ("id", pv.uuid),
        ("device", pv.device),
        ("status", ("ALLOCATABLE",)),
        ("flags", ()),
        ("dev_size", pv.device_bytes // SECTOR_BYTES),
        ("pe_start", pv.data_start_bytes // SECTOR_BYTES),
        ("pe_count", extents),
    ))  # fmt: skip


def next_seqno(vg: Vg, seqno: int, maker: Maker) -> Vg:
    """The VG as version `seqno`, signed by whoever changes it."""
    assert seqno > vg.seqno
    frame = vg.frame.put(vg.name, vg.header.put("seqno", seqno))
    return vg.with_frame(_signed(frame, maker))


def _signed(tree: Section, maker: Maker) -> Section:
    for key, value in (
        ("description", f"Write from {maker.what}."),
        ("creation_host", maker.host),
        ("creation_time", maker.now_s),
    ):
        tree = tree.put(key, value)
    return tree


def free_lv_name(vg: Vg) -> str:
    """lvol0, lvol1, …: one behind the highest, as LVM2 does."""
    numbers = [
        int(lv.name[4:])
        for lv in vg.lvs
        if lv.name.startswith("lvol") and lv.name[4:].isascii() and lv.name[4:].isdigit()
    ]
    return f"lvol{max(numbers, default=-1) + 1}"


def create_lv(
    vg: Vg, name: str, uuid: str, extents: int, maker: Maker, space: Space = ANYWHERE, *,
    tags: tuple[str, ...] = (), writable: bool = True,
) -> Vg:  # fmt: skip
    """The VG with a new linear or striped LV.  The seqno is not touched.

    Args:
        extents: whole stripes; fewer will do, if the space is approximate.
        space: where it may be, and how.  A policy of its own is the LV's from then on.

    Raises BadInput, Refused."""
    check_lv_name(name, vg.name)
    if vg.lv(name) is not None:
        raise BadInput(f'Logical Volume "{name}" already exists in volume group "{vg.name}"')
    limit = vg.header.number("max_lv") or 0
    if limit and sum(lv.visible for lv in vg.lvs) >= limit:
        raise Refused(
            f"Maximum number of logical volumes ({limit}) reached in volume group {vg.name}",
            next=f"vgchange --logicalvolume 0 {vg.name}",
        )
    free = free_count(vg)
    if extents > free and not space.approximate:
        raise Refused(
            f'Volume group "{vg.name}" has insufficient free space ({free} extents): {extents} required',
            next=what_helps(free),
        )
    segments = segments_of(choose(vg, extents, space), space.stripes.sectors)
    section = lv_section(uuid, segments, maker, tags=tags, writable=writable, policy=space.policy)
    return vg.with_lv(name, section)


def lv_section(
    uuid: str, segments: Sequence[Segment], maker: Maker, *,
    tags: tuple[str, ...] = (), writable: bool = True, policy: str = INHERIT,
) -> Section:  # fmt: skip
    """A linear or striped LV as it stands in a VG's metadata."""
    items: list[tuple[str, Value | Section]] = [
        ("id", uuid),
        ("status", ("READ", "VISIBLE")),
        ("flags", ("WRITE_LOCKED",) if writable else ()),
        *([("tags", tags)] if tags else []),
        ("creation_time", maker.now_s),
        ("creation_host", maker.host),
        ("lock_args", DLM),
        *([("allocation_policy", policy)] if policy != INHERIT else []),
        ("segment_count", len(segments)),
    ]
    items += [(f"segment{number}", segment_section(one)) for number, one in enumerate(segments, 1)]
    return Section(tuple(items))


def find_lv(vg: Vg, name: str) -> Lv:
    """Raises NotFound, in LVM2's words."""
    lv = vg.lv(name)
    if lv is None:
        raise NotFound(f'Failed to find logical volume "{vg.name}/{name}"', next=f"see: lvs {vg.name}")
    return lv


def users_of(vg: Vg, name: str) -> tuple[str, ...]:
    """LVs whose segments name this one: a pool's thin LVs, an origin's snapshots, a mirror's top."""
    composed = vg.index.composed
    return tuple(lv for lv, words in composed.items() if lv != name and name in words) if composed else ()


def check_plain(vg: Vg, lv: Lv, stock: str = "", *, unclean: bool = False) -> None:
    """Raises Refused unless the LV is a visible linear or striped one that no other LV is made of.

    Args:
        stock: the command of LVM2's that does it for others.
        unclean: it may be one that is being zeroed or wiped."""
    if not unclean:
        check_clean(vg, lv)
    if lv.slots:
        raise Refused(
            f"Logical volume {vg.name}/{lv.name} holds the disk slots of the VG and goes with it alone",
            next=f"leave it alone; see: ringfence slots show {vg.name}",
        )
    if not lv.visible:
        raise _for_stock(vg, lv, stock, "is a hidden part of another")
    if not lv.plain:
        kinds = ", ".join(dict.fromkeys(segment.kind for segment in lv.segments))
        raise _for_stock(vg, lv, stock, f"is neither linear nor striped (it is: {kinds})")
    users = users_of(vg, lv.name)
    if users:
        raise _for_stock(vg, lv, stock, f"is part of {', '.join(users)}")


def _for_stock(vg: Vg, lv: Lv, stock: str, what: str) -> Refused:
    next_step = f"use stock LVM2 for it: {stock or f'VG {vg.name} can be used by both'}"
    return Refused(f"Logical volume {vg.name}/{lv.name} {what}", next=next_step)


def remove_lv(vg: Vg, name: str) -> Vg:
    """The VG without the LV.  Raises NotFound, Refused.  The seqno is not touched."""
    check_plain(vg, find_lv(vg, name), f"lvremove {vg.name}/{name}", unclean=True)
    return vg.without_lv(name)
