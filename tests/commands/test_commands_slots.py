"""The LV of the disk slots: made, found, left alone; and what stock LVM2 makes of it."""

from pathlib import Path

import pytest
from command_world import MIB, Node, World
from stock_lvm import Stock

from ringfence.core.errors import DeviceFailed, NotFound, Refused
from ringfence.core.ids import Epoch, Life
from ringfence.engine.orders import Order, WriteBlocks
from ringfence.wire import slots
from ringfence.wire.client import (
    LvChange,
    LvCreate,
    LvRemove,
    Lvs,
    SlotsAdd,
    SlotsShow,
    VgCreate,
    VgRemove,
)


@pytest.fixture
def first(world: World) -> Node:
    """A node of a cluster that knows slots, with a VG."""
    world.slots = True
    node = world.node(1)
    node.run(VgCreate("vg0", tuple(world.images), shared=True))
    return node


def write(node: Node, offset: int, data: bytes) -> None:
    place = node.slots["vg0"]
    with Path(place.path).open("r+b") as file:
        file.seek(place.start_bytes + offset)
        file.write(data)


def test_vgcreate_makes_empty_slots_and_tells_where(world: World, first: Node) -> None:
    place = first.slots["vg0"]
    header = slots.parse_header(place.header, "x")
    assert header is not None
    assert (header.cluster, header.nodes, place.nodes) == ("ring", 128, 128)
    shown = first.run(SlotsShow("vg0"))
    assert [row["name"] for row in shown["nodes"]] == ["an-a01n01", "an-a01n02"]
    assert not any(row["life"] or row["mark"] or row["damaged"] for row in shown["nodes"])


def test_stock_finds_nothing_wrong_and_skips_its_activation(world: World, stock: Stock, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", size_bytes=4 * MIB, activate="n"))
    stock.attach(*world.images)
    stock.run("vgck", "vg0")
    rows = {
        row["lv_name"]: row for row in stock.report("lvs", "-o", "lv_name,lv_attr,lv_tags,lv_size", "vg0")
    }
    assert rows["ringfence_slots"]["lv_tags"] == "ringfence.slots"
    assert rows["ringfence_slots"]["lv_attr"].endswith("k"), "activation is skipped"
    assert rows["ringfence_slots"]["lv_size"] == str(4 * MIB), "one extent"


def test_lvs_shows_them_only_when_asked(first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", size_bytes=4 * MIB, activate="n"))
    assert [row["lv_name"] for row in first.run(Lvs("vg0"))["rows"]] == ["vm1"]
    assert [row["lv_name"] for row in first.run(Lvs("vg0", all=True))["rows"]] == ["ringfence_slots", "vm1"]
    assert [row["lv_name"] for row in first.run(Lvs("vg0", "ringfence_slots"))["rows"]] == ["ringfence_slots"]


def test_nobody_activates_or_removes_them(first: Node) -> None:
    said = "holds the disk slots of the VG and goes with it alone"
    for call in (
        LvChange("vg0", "ringfence_slots", "ey"),
        LvRemove("vg0", "ringfence_slots", force=True),
    ):
        with pytest.raises(Refused, match=said) as refused:
            first.run(call)
        assert refused.value.next == "leave it alone; see: ringfence slots show vg0"
    assert first.run(LvChange("vg0", "", "ey"))["lvs"] == [], "a whole VG without them"


def test_vgremove_asks_all_to_leave_them_first(world: World, first: Node) -> None:
    """And leaves no header, by which one who scanned the disks a moment ago could take them for slots."""
    place = first.slots["vg0"]
    first.run(VgRemove("vg0"))
    assert world.ended == ["vg0"]
    with Path(place.path).open("rb") as file:
        file.seek(place.start_bytes)
        assert slots.parse_header(file.read(slots.BLOCK_BYTES), "x") is None


def test_a_vgremove_that_fails_goes_on_with_them(world: World, first: Node) -> None:
    first.slots = {}

    def fail(order: Order) -> DeviceFailed | None:
        wrong = isinstance(order, WriteBlocks) and order.what == "commit"
        return DeviceFailed("no") if wrong else None

    first.fail = fail
    with pytest.raises(DeviceFailed):
        first.run(VgRemove("vg0"))
    assert "vg0" in first.slots


def test_add_and_again(world: World) -> None:
    node = world.node(1)
    node.run(VgCreate("vg0", tuple(world.images), shared=True))
    assert node.without["vg0"] == "VG vg0 has no disk slots; ringfence slots add vg0"
    with pytest.raises(NotFound, match="has no disk slots"):
        node.run(SlotsShow("vg0"))
    with pytest.raises(Refused, match="not every node of the cluster knows disk slots"):
        node.run(SlotsAdd("vg0"))
    world.slots = True
    assert node.run(SlotsAdd("vg0"))["message"] == 'Disk slots of volume group "vg0" created.'
    assert "vg0" in node.slots
    with pytest.raises(Refused, match="VG vg0 has disk slots already") as refused:
        node.run(SlotsAdd("vg0"))
    assert refused.value.next == "ringfence slots show vg0"


def test_a_vg_without_room_is_made_without_them(directory: Path) -> None:
    world = World(directory, (MIB + (48 << 10),))
    world.slots = True
    node = world.node(1)
    reply = node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=16 << 10))
    (note,) = reply["notes"]
    assert note.startswith(
        'VG vg0 is made without disk slots: Volume group "vg0" has insufficient free space'
    )
    assert node.slots == {}


def test_what_stands_there_is_shown(first: Node) -> None:
    life = Life(2, "machine", "boot-2", 3)
    own = slots.Own(life, 17, wall_ms=1_699_999_995_000)
    mark = slots.Mark(life, Epoch(5, 1), cut=True, by=1)
    write(first, slots.own_offset(2), slots.print_block(own, slots.own_offset(2)))
    write(first, slots.mark_offset(2), slots.print_block(mark, slots.mark_offset(2)))
    write(first, slots.mark_offset(1), b"\xff" * 512)
    one, two = first.run(SlotsShow("vg0"))["nodes"]
    assert (two["life"], two["counter"], two["age_s"], two["clean"]) == ("2/boot-2.3", 17, 5, False)
    assert (two["mark"], two["mark_epoch"], two["mark_cut"], two["marked_by"]) == (
        "2/boot-2.3", "5.1", True, "an-a01n01",
    )  # fmt: skip
    assert one["damaged"] == ["its mark: slot block 2 is none of that kind"]
