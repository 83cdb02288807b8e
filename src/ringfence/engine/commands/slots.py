"""slots add, slots show; and where the disk slots of this cluster's VGs are, for the engine.

Making them, after a crash at each step:

    zeros, then the header:     free extents with something in them that no VG speaks of
    text, pre-commit:           the VG as it was
    commit:                     the VG with slots; nodes use them from the notice on"""

from collections.abc import Generator
from contextlib import suppress
from typing import Any

from ringfence.core.errors import Damaged, NotFound, Refused, RingfenceError
from ringfence.core.locknames import VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine.commands.commit import begin, commit, prepare
from ringfence.engine.commands.disks import find_vg, read_disks
from ringfence.engine.commands.locking import fresh_uuids, lock_vg
from ringfence.engine.orders import (
    Command,
    EndSlots,
    Identity,
    NoteSlots,
    Order,
    Read,
    ReadBlocks,
    SlotsPlace,
    VgText,
    Whoami,
    Write,
    WriteBlocks,
)
from ringfence.lvm2.area import committed_slot
from ringfence.lvm2.names import with_dashes
from ringfence.volumes.access import check_ours, is_ours
from ringfence.volumes.discovery import Disks, VgOnDisk
from ringfence.volumes.model import Lv
from ringfence.volumes.plan import Maker
from ringfence.volumes.slots import add_slots, place_of, slots_of
from ringfence.wire.client import SlotsAdd, SlotsForget, SlotsShow
from ringfence.wire.slots import (
    BLOCK_BYTES,
    Header,
    check_room,
    mark_offset,
    nodes_in,
    own_offset,
    parse_header,
    parse_mark,
    parse_own,
    print_block,
    size_bytes,
)

MOST_NODES = 128
"""More than anybody has; it bounds what is cleared when slots are made."""


# -- making them -------------------------------------------------------------------


def slots_add(call: SlotsAdd) -> Command:
    """Give a shared VG that has none its disk slots."""
    locked = yield from lock_vg(call.vg, Mode.EX)
    change = yield from begin(locked)
    if slots_of(change.vg) is not None and (yield from mend_slots(call.vg, locked.me)):
        return {"message": f'Disk slots of volume group "{call.vg}" can be used again.', "vg": call.vg}
    me, uuids = yield from fresh_uuids(1)
    if not me.slots:
        raise Refused(
            "not every node of the cluster knows disk slots",
            next="upgrade every node (ringfence status), then add them",
        )
    maker = Maker(f"ringfence slots add {call.vg}", me.name, me.now_wall_s)
    planned = add_slots(change.vg, with_dashes(uuids[0]), max(me.node_names), maker)
    prepared = prepare(change, planned, f"slots add {call.vg}")
    found = VgOnDisk(planned, 0, locked.found.pvs, ())
    yield from write_empty(found, me.cluster)
    yield from commit(prepared)
    yield from note_made(call.vg, me)
    return {"message": f'Disk slots of volume group "{call.vg}" created.', "vg": call.vg}


def write_empty(found: VgOnDisk, cluster: str) -> Generator[Order, Any, None]:
    """Slots that nobody has written to: zeros first, the header last.

    The VG need not be committed: its extents are still free then."""
    lv = slots_of(found.vg)
    assert lv is not None
    path, start = _place(found, lv)
    nodes, header = _new_header(found, lv, cluster)
    yield WriteBlocks((Write(path, start, bytes(size_bytes(nodes))),), found.vg.name, "slots")
    yield WriteBlocks((Write(path, start, header),), found.vg.name, "slots")


def _new_header(found: VgOnDisk, lv: Lv, cluster: str) -> tuple[int, bytes]:
    """For how many nodes there is room, and block 0."""
    nodes = min(nodes_in(lv.extent_count * found.vg.extent_bytes), MOST_NODES)
    return nodes, print_block(Header(cluster, found.vg.uuid, nodes, lv.uuid), 0)


def mend_slots(vg: str, me: Whoami) -> Generator[Order, Any, bool]:
    """Slots that nobody can use, for their header is not there (a vgrename that was stopped half-way) or is
    another's (a vgcfgrestore): make them anew.  Whoever still has something to say there lets go first.

    Under the VG's lock.  Returns whether that was needed."""
    _, found = yield from find_vg(vg)
    try:
        yield from _look(found, me)
    except Damaged:
        yield EndSlots(vg)
        yield from write_empty(found, me.cluster)
        yield from note_made(vg, me)
        return True
    yield from note_slots([found], me)
    return False


def end_slots(found: VgOnDisk, cluster: str) -> Generator[Order, Any, WriteBlocks | None]:
    """Before the VG, or its name, is gone: every node leaves its slots, and nobody who comes now takes them
    for any.

    Returns the order that undoes it."""
    lv = slots_of(found.vg)
    if lv is None:
        return None
    name, (path, start) = found.vg.name, _place(found, lv)
    (header,) = yield ReadBlocks((Read(path, start, BLOCK_BYTES),))
    yield EndSlots(name)
    yield WriteBlocks((Write(path, start, bytes(BLOCK_BYTES)),), name, "slots")
    with suppress(Damaged):
        if header is not None and parse_header(header, f"VG {name}") is None:
            header = _new_header(found, lv, cluster)[1]  # a command before this one was stopped here
    return WriteBlocks((Write(path, start, header),), name, "slots") if header else None


def _place(found: VgOnDisk, lv: Lv) -> tuple[str, int]:
    pv, start = place_of(found.vg, lv)
    have = found.pvs.get(pv)
    if have is None:
        raise NotFound(
            f"the disk slots of VG {found.vg.name} are on a PV that this host does not find",
            next="make the device visible to this host: [devices] paths",
        )
    return have.path, start


# -- finding them ------------------------------------------------------------------


def note_made(vg: str, me: Whoami) -> Generator[Order, Any, None]:
    """Tell the engine of slots that this command has made and committed."""
    disks: Disks = yield from read_disks()
    yield from note_slots([one for one in disks.vgs if one.vg.name == vg], me, made=True)


def note_slots(vgs: list[VgOnDisk], me: Whoami, *, made: bool = False) -> Generator[Order, Any, None]:
    """Tell the engine of the slots of these VGs, and of those that have none it may use."""
    places, without, uuids = [], {}, {}
    for found in vgs:
        if not is_ours(found.vg, me.cluster):
            continue
        uuids[VG_SPACE + found.vg.name] = found.vg.uuid
        try:
            places.append((yield from _look(found, me)))
        except RingfenceError as error:
            without[found.vg.name] = str(error)
    yield NoteSlots(tuple(places), without, made, uuids)


def _look(found: VgOnDisk, me: Whoami) -> Generator[Order, Any, SlotsPlace]:
    name, lv = found.vg.name, slots_of(found.vg)
    if lv is None:
        raise NotFound(f"VG {name} has no disk slots", next=f"ringfence slots add {name}")
    path, start = _place(found, lv)
    (data,) = yield ReadBlocks((Read(path, start, BLOCK_BYTES),))
    header = _header(found, lv, data, me.cluster)
    check_room(header, me.node, name)
    return SlotsPlace(name, path, start, data, header.nodes, _text(found, path), lv.uuid)


def _text(found: VgOnDisk, path: str) -> VgText:
    """By which it is known that the VG is still as it was found: on the slots' own PV if that has an area,
    for who cannot write there cannot mark there either."""
    current = [area for area in found.areas if area.header is not None and area not in found.lagging]
    if not current:
        raise NotFound(f"no metadata area of VG {found.vg.name} is up to date on this host", next="see: vgs")
    area = min(current, key=lambda area: area.path != path)
    assert area.header is not None
    return VgText(area.path, *committed_slot(area.header))


def _header(found: VgOnDisk, lv: Lv, data: bytes | None, cluster: str) -> Header:
    vg = found.vg
    header = parse_header(data or b"", f"VG {vg.name}")
    ours = cluster, vg.uuid, lv.uuid
    if header is None or (header.cluster, header.vg_uuid, header.lv_uuid) != ours:
        raise Damaged(
            f"the disk slots of VG {vg.name} are not this VG's and this cluster's",
            next="was the VG copied, or renamed from another cluster? remove its LV "
            "ringfence_slots with stock LVM2, then: ringfence slots add",
        )
    return header


# -- letting go of them ---------------------------------------------------------------


def slots_forget(call: SlotsForget) -> Command:
    """An operator's word that a VG with slots was removed, or is not this cluster's any more: then no lock of
    this cluster is given in it.

    Raises Refused: this host finds it as this cluster's, or with its slots; or cannot tell, for it cannot
    read everything."""
    me: Whoami = yield Identity()
    disks: Disks = yield from read_disks()
    for one in disks.vgs:
        if one.vg.name == call.vg and is_ours(one.vg, me.cluster):
            raise Refused(
                f"VG {call.vg} is on the disks of this host, and this cluster's",
                next=f"ringfence vgremove {call.vg}; to keep it: docs/lvm2.md, And back",
            )
        if one.vg.name == call.vg and (lv := slots_of(one.vg)) is not None:
            slots = f"{call.vg}/{lv.name}"
            raise Refused(f"VG {call.vg} still has its disk slots, {slots}", next=f"lvm lvremove {slots}")
    unread = [area.problem for pv in disks.pvs for area in pv.areas if area.problem]
    trouble = [*disks.problems.values(), *unread]
    if trouble:
        raise Refused(
            f"whether VG {call.vg} is gone cannot be told: {trouble[0]}",
            next="mend that, or ask on a host that reads all its disks",
        )
    yield EndSlots(call.vg, gone=True)
    return {"message": f'Nobody is marked on volume group "{call.vg}" any more.', "vg": call.vg}


# -- showing them ------------------------------------------------------------------


def slots_show(call: SlotsShow) -> Command:
    """What stands in the slots, read without a lock.  {"vg", "path", "nodes": [{...}]}.

    Raises NotFound: the VG has none."""
    me: Whoami = yield Identity()
    _, found = yield from find_vg(call.vg)
    check_ours(found.vg, me.cluster)
    place = yield from _look(found, me)
    nodes = [node for node in sorted(me.node_names) if node <= place.nodes]
    offsets = [at for node in nodes for at in (own_offset(node), mark_offset(node))]
    blocks = yield ReadBlocks(tuple(Read(place.path, place.start_bytes + at, BLOCK_BYTES) for at in offsets))
    rows = [
        _row(node, me.node_names[node], blocks[2 * index] or b"", blocks[2 * index + 1] or b"", me)
        for index, node in enumerate(nodes)
    ]
    return {"vg": call.vg, "path": place.path, "start_bytes": place.start_bytes, "nodes": rows}


def _row(node: int, name: str, own_data: bytes, mark_data: bytes, me: Whoami) -> dict[str, Any]:
    row: dict[str, Any] = {
        "node": node, "name": name, "life": "", "counter": 0, "age_s": None, "clean": False,
        "mark": "", "mark_epoch": "", "mark_cut": False, "marked_by": "", "damaged": [],
    }  # fmt: skip
    try:
        own = parse_own(own_data, node, "its own block")
        if own is not None:
            age_s = max(0, me.now_wall_s - own.wall_ms // 1000)
            row |= {"life": str(own.life), "counter": own.counter, "age_s": age_s, "clean": own.clean}
    except Damaged as error:
        row["damaged"].append(error.message)
    try:
        mark = parse_mark(mark_data, node, "its mark")
        if mark is not None:
            by = me.node_names.get(mark.by, f"node-{mark.by}")
            row |= {"mark": str(mark.life), "mark_epoch": str(mark.epoch), "mark_cut": mark.cut}
            row["marked_by"] = by
    except Damaged as error:
        row["damaged"].append(error.message)
    return row


def look_for_slots() -> Command:
    """Read the disks again, for VGs whose slots this node does not know yet."""
    me: Whoami = yield Identity()
    disks: Disks = yield from read_disks()
    yield from note_slots(list(disks.vgs), me)
    return None
