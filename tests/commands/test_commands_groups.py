"""PVs and VGs as a whole: vgextend, vgreduce, vgrename, vgchange, vgck, pvremove, pvresize, pvck.

Each at every crash point, and judged by stock LVM2."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_world import MIB, Crash, Node, World
from stock_lvm import Stock
from test_commands_crash import CrashAt, own_view, stock_view

from ringfence.core.errors import BadInput, Damaged, DeviceFailed, LockHeld, NotFound, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.disks import find_vg
from ringfence.engine.commands.reload import reload_changed
from ringfence.engine.commands.vg import autostart
from ringfence.engine.orders import Identity, ReadBlocks, ReadDisks, Recall, ReloadPath, Remember
from ringfence.storage import Moment
from ringfence.volumes.rescale import check_at_rest
from ringfence.wire.client import (
    LvChange,
    LvCreate,
    LvRemove,
    Lvs,
    PvCk,
    PvCreate,
    PvRemove,
    PvResize,
    Pvs,
    SlotsAdd,
    VgChange,
    VgCk,
    VgCreate,
    VgExtend,
    VgReduce,
    VgRename,
    Vgs,
    VgSet,
)

SIZES = (8 * MIB, 8 * MIB, 8 * MIB)


def blank(directory: Path) -> World:
    """A world whose images are empty again, under the loop devices that they have."""
    for image in directory.glob("*.img"):
        with image.open("r+b") as file:
            file.write(bytes(image.stat().st_size))
    return World(directory, SIZES)


def on_two(world: World) -> Node:
    """vg0 on the first two disks, an LV on the first."""
    node = world.node()
    node.run(VgCreate("vg0", tuple(world.images[:2]), shared=True, extent_size_bytes=MIB))
    node.run(LvCreate("vg0", "first", extents=2, activate="n"))
    return node


def with_slots(world: World) -> Node:
    world.slots = True
    return on_two(world)


def one_pv(world: World) -> Node:
    on_two(world)
    node = world.node()
    node.run(PvCreate((world.images[2],)))
    return node


COMMANDS: dict[str, tuple[Callable[[World], Node], Callable[[World], Any]]] = {
    "vgextend": (on_two, lambda world: VgExtend("vg0", (world.images[2],))),
    "vgreduce": (on_two, lambda world: VgReduce("vg0", (world.images[1],))),
    "vgrename": (on_two, lambda world: VgRename("vg0", "vg1")),
    "vgrename with slots": (with_slots, lambda world: VgRename("vg0", "vg1")),
    "vgchange": (on_two, lambda world: VgSet("vg0", add_tags=("t1",), policy="cling", max_pv=7)),
    "vgchange -s": (on_two, lambda world: VgSet("vg0", extent_size_bytes=256 << 10)),
    "pvresize": (on_two, lambda world: PvResize((world.images[0],), size_bytes=6 * MIB, yes=True)),
    "pvremove": (one_pv, lambda world: PvRemove((world.images[2],))),
}


@pytest.fixture
def three(directory: Path) -> World:
    return World(directory, SIZES)


@pytest.mark.parametrize("name", COMMANDS)
def test_crash_at_every_write_leaves_old_or_new(directory: Path, stock: Stock, name: str) -> None:
    setup, call = COMMANDS[name]
    world = World(directory, SIZES)
    stock.attach(*world.images)
    node = setup(world)
    before = stock_view(stock), own_view(world)
    counter = CrashAt(-1, Moment.AFTER)
    node.storage._crash_hook = counter
    node.run(call(world))
    after = stock_view(stock), own_view(world)
    assert counter.count >= (1 if name != "pvremove" else 0)
    seen = []
    # Before a write it is as after the one before it.
    for at, moment in [(0, Moment.BEFORE), *((at, Moment.AFTER) for at in range(counter.count + 1))]:
        world = blank(directory)
        node = setup(world)
        crash = CrashAt(at, moment)
        node.storage._crash_hook = crash
        with pytest.raises(Crash):
            node.run(call(world))
        world.purge(1)
        where = f"{name}: write {at} ({crash.writes[-1][0]}), {moment.value}"
        now = stock_view(stock), own_view(world)
        assert now in (before, after), where
        seen.append(now == after)
        mended(world, stock, where)
    assert name == "pvremove" or seen == sorted(seen), "the commit is one moment"


def mended(world: World, stock: Stock, where: str) -> None:
    """Another host makes everything right by one command; afterwards nothing is left of the crash."""
    other = world.node(2)
    (vg,) = [row["vg_name"] for row in other.run(Vgs())["rows"]]
    other.run(VgCk(vg, update_metadata=True))
    other.run(VgCk(vg))
    members = [row["pv_name"] for row in stock.report("pvs") if row["vg_name"] == vg]  # and no complaint
    mine = [row["pv_name"] for row in other.run(Pvs())["rows"] if row["vg_name"] == vg]
    assert sorted(map(stock.image_of, members)) == sorted(mine), where
    if world.slots:
        other.run(VgChange("lockstart", vg))
        if other.without:
            other.run(SlotsAdd(vg))
        other.run(VgChange("lockstart", vg))
        assert list(other.slots) == [vg], where
    if rest := tuple(image for image in world.images if image not in mine):
        other.run(VgExtend(vg, rest))
    other.run(LvCreate(vg, "next", extents=1, activate="n"))
    assert stock.try_run("vgck", vg)[2] == [], where


# -- what stock says ------------------------------------------------------------------


def test_stock_and_own_commands_follow_one_another(three: World, stock: Stock) -> None:
    loops = stock.attach(*three.images)
    node = on_two(three)
    node.run(VgExtend("vg0", (three.images[2],)))
    stock.run("vgck", "vg0")
    change(stock, "vgreduce", "vg0", loops[1])
    node.run(VgCk("vg0"))
    assert [row["vg_name"] for row in node.run(Pvs())["rows"]] == ["vg0", "", "vg0"]
    change(stock, "vgextend", "vg0", loops[1])
    node.run(VgReduce("vg0", all=True))
    stock.run("vgck", "vg0")
    found = {stock.image_of(row["pv_name"]): row["vg_name"] for row in stock.report("pvs")}
    assert [found[image] for image in three.images] == ["vg0", "", ""]
    change(stock, "vgextend", "vg0", loops[2])
    node.run(VgSet("vg0", ("b", "a"), policy="contiguous", max_lv=5, max_pv=6, autoactivation=False))
    (vg,) = stock.report("vgs", "-o", "vg_name,vg_tags,vg_allocation_policy,max_lv,max_pv,vg_autoactivation")
    assert list(vg.values()) == ["vg0", "a,b", "contiguous", "5", "6", ""]
    change(stock, "vgchange", "--deltag", "a", "--setautoactivation", "y", "--alloc", "normal", "vg0")
    node.run(VgSet("vg0", drop_tags=("b",), resizeable=False))
    assert stock.report("vgs", "-o", "vg_attr")[0]["vg_attr"] == "w---ns"
    with pytest.raises(Refused, match="not resizeable; vgchange --resizeable y vg0"):
        node.run(VgExtend("vg0", (three.images[1],)))
    node.run(VgSet("vg0", resizeable=True))
    node.run(VgRename("vg0", "vg1"))
    stock.run("vgck", "vg1")
    change(stock, "vgchange", "--addtag", "theirs", "vg1")
    assert node.run(Vgs("vg1"))["rows"][0]["vg_tags"] == "theirs"
    node.run(VgRename(str(stock.report("vgs", "-o", "vg_uuid")[0]["vg_uuid"]), "vg2"))
    stock.run("vgck", "vg2")


def test_a_vg_is_made_with_properties(three: World, stock: Stock) -> None:
    stock.attach(*three.images)
    properties = {"tags": ("b", "a"), "policy": "cling", "max_lv": 2, "max_pv": 6, "autoactivation": False}
    node = three.node()
    node.run(VgCreate("vg0", (three.images[0],), shared=True, extent_size_bytes=MIB, **properties))
    stock.run("vgck", "vg0")
    fields = "vg_tags,vg_allocation_policy,max_lv,max_pv,vg_autoactivation"
    assert list(stock.report("vgs", "-o", fields)[0].values()) == ["a,b", "cling", "2", "6", ""]
    for _ in range(2):
        node.run(LvCreate("vg0", extents=1, activate="n"))
    with pytest.raises(Refused, match=r"Maximum number of logical volumes \(2\) reached in volume group vg0"):
        node.run(LvCreate("vg0", extents=1, activate="n"))


def test_another_extent_size_is_stocks(three: World, stock: Stock) -> None:
    """The same text as stock vgchange -s writes, whichever way; what does not fit is refused by both."""
    stock.attach(*three.images)
    node = on_two(three)
    node.run(LvCreate("vg0", "striped", extents=4, stripes=2, stripe_size_bytes=128 << 10, activate="n"))
    node.run(LvCreate("vg0", "open", extents=4))
    opened = dict(node.open)

    def text() -> list[str]:
        lines = [line.strip() for line in stock.text(three.images[0]).splitlines()]
        others = ("seqno", "description", "creation", "device =", "#")
        return [line for line in lines if not line.startswith(others)]

    begun = text()
    for size in (256 << 10, 2 * MIB, 384 << 10, 128 << 10):
        code, _, noise = stock.try_run("vgchange", "-s", f"{size}b", "vg0")
        if code:
            before = Path(three.images[0]).read_bytes()
            with pytest.raises(Refused, match="not a perfect fit") as caught:
                node.run(VgSet("vg0", extent_size_bytes=size))
            assert any("perfect fit" in line or "not an exact number" in line for line in noise), noise
            assert caught.value.next
            assert Path(three.images[0]).read_bytes() == before
            continue
        theirs = text()
        change(stock, "vgchange", "-s", "1m", "vg0")
        node.run(VgSet("vg0", extent_size_bytes=size))
        assert text() == theirs
        stock.run("vgck", "vg0")
        node.run(VgCk("vg0"))
        assert (node.open, node.run(Vgs("vg0"))["rows"][0]["vg_extent_size"]) == (opened, size)
        node.run(VgSet("vg0", extent_size_bytes=MIB))
        assert text() == begun != theirs
    with pytest.raises(Refused, match=r"vg0/striped has stripes of 128.00 KiB, larger"):
        node.run(VgSet("vg0", extent_size_bytes=64 << 10))
    with pytest.raises(BadInput, match=r"is already 1\.00 MiB"):
        node.run(VgSet("vg0", extent_size_bytes=MIB))


def test_the_extent_size_stays_while_tags_count_extents(three: World) -> None:
    node = on_two(three)
    node.run(LvChange("vg0", "first", "n"))
    _, found = node.drive(_find("vg0"))
    for tags in (("ringfence.wiped.4", "ringfence.wiping"), ("ringfence.moving.x",)):
        marked = found.vg.with_lv("first", found.vg.section_of("first").put("tags", tags))
        with pytest.raises(Refused, match="being zeroed, wiped or moved"):
            check_at_rest(marked)
    node.run(LvChange("vg0", "first", add_tags=("mine",)))
    node.run(VgSet("vg0", extent_size_bytes=256 << 10))
    assert len(node.run(Lvs("vg0"))["rows"]) == 1


def _find(vg: str) -> Any:
    return (yield from find_vg(vg))


def change(stock: Stock, *words: str) -> None:
    code, _, noise = stock.try_run(*words)
    assert code == 0, (words, noise)


def test_pvresize_says_what_stock_says(three: World, stock: Stock) -> None:
    node = on_two(three)
    os.truncate(three.images[0], 12 * MIB)
    stock.attach(*three.images)
    answer = node.run(PvResize((three.images[0],)))
    assert answer["message"].splitlines()[-1] == (
        "1 physical volume(s) resized or updated / 0 physical volume(s) not resized"
    )
    stock.run("vgck", "vg0")
    fields = "pv_name,pv_size,dev_size,pv_pe_count"
    ours = {row["pv_name"]: row for row in node.run(Pvs())["rows"]}
    for row in stock.report("pvs", "-o", fields):
        assert row["pv_size"] == str(ours[stock.image_of(row["pv_name"])]["pv_size"])
    assert stock.headers(three.images[0])["pv_header.device_size"] == str(12 * MIB)
    node.run(LvCreate("vg0", "high", extents=9, activate="n"))
    with pytest.raises(Refused, match="later ones are allocated"):
        node.run(PvResize((three.images[0],), size_bytes=6 * MIB, yes=True))
    with pytest.raises(Refused, match="if that is meant: --yes"):
        node.run(PvResize((three.images[1],), size_bytes=6 * MIB))
    with pytest.raises(Refused, match="could not be written"):
        node.run(PvResize((three.images[1],), size_bytes=16 * MIB, yes=True))
    node.run(PvResize((three.images[1],), size_bytes=6 * MIB, yes=True))
    stock.run("vgck", "vg0")


@pytest.mark.parametrize("dump", ["headers", "metadata", "metadata_all", "metadata_search"])
def test_pvck_dumps_what_stock_dumps(three: World, stock: Stock, dump: str) -> None:
    stock.attach(*three.images)
    node = on_two(three)
    node.run(LvRemove("vg0", "first"))
    theirs = stock.run("pvck", "--dump", dump, three.images[0], quiet=False)
    answer = node.run(PvCk(three.images[0], dump))
    assert answer["problems"] == []
    assert [line.strip() for line in answer["lines"] if line] == [
        line.strip() for line in theirs.splitlines() if line
    ]


@pytest.mark.parametrize("at", [512 + 40, 4096 + 20, 4608 + 8])
def test_pvck_finds_what_is_damaged_and_so_does_stock(three: World, stock: Stock, at: int) -> None:
    stock.attach(*three.images)
    node = on_two(three)
    assert node.run(PvCk(three.images[0]))["problems"] == []
    with open(three.images[0], "r+b") as file:
        file.seek(at + 1024 * (at > 4608))  # of the texts, the committed one
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    before = Path(three.images[0]).read_bytes()
    for dump in ("", "headers", "metadata", "metadata_all", "metadata_search"):
        problems = node.run(PvCk(three.images[0], dump))["problems"]
        assert problems or (dump.startswith("metadata_") and at > 4096), dump
    assert stock.try_run("pvck", three.images[0])[0] == 5
    assert Path(three.images[0]).read_bytes() == before


# -- PVs that are missing ---------------------------------------------------------------


def hide(world: World, at: int) -> str:
    path = world.images[at]
    os.rename(path, path + ".away")
    return path


def test_without_a_pv_only_what_mends_it_may_change_the_vg(three: World, stock: Stock) -> None:
    stock.attach(*three.images)
    node = on_two(three)
    node.run(LvCreate("vg0", "second", extents=6, activate="n"))
    node.run(LvCreate("vg0", "third", extents=2, activate="n"))
    path = hide(three, 1)
    with pytest.raises(Damaged, match="while PVs are missing"):
        node.run(LvCreate("vg0", "vm1", extents=1, activate="n"))
    with pytest.raises(Damaged, match="is missing 1 physical volumes"):
        node.run(VgCk("vg0"))
    for report in (Pvs(), Vgs(), Vgs("vg0"), Lvs("vg0")):
        (told,) = node.run(report)["notes"]
        assert told.startswith("WARNING: VG vg0 is missing PV ")
        assert told.endswith(f" (last seen as {path})")
    with pytest.raises(NotFound, match="lvchange -aey --partial vg0/second"):
        node.run(LvChange("vg0", "second", "ey"))
    assert node.run(LvChange("vg0", "first", "ey"))["mode"] == "EX"
    node.run(LvChange("vg0", "first", "n"))
    with pytest.raises(Refused, match="still partial LVs in VG vg0: second;"):
        node.run(VgReduce("vg0", remove_missing=True))
    node.run(VgCk("vg0", update_metadata=True))
    os.rename(path + ".away", path)
    assert [row["pv_missing"] for row in stock.report("pvs", "-o", "pv_missing,vg_name", quiet=False)].count(
        "missing"
    ) == 1
    (theirs,) = stock.report("vgs", "-o", "vg_attr,vg_missing_pv_count", quiet=False)
    (ours,) = node.run(Vgs("vg0"))["rows"]
    assert [theirs[field] for field in theirs] == [str(ours[field]) for field in theirs]
    assert ours["vg_missing_pv_count"] == 1
    with pytest.raises(Refused, match="vgextend --restoremissing vg0"):
        node.run(LvCreate("vg0", "vm1", extents=1, activate="n"))
    with pytest.raises(Refused, match="was missing; what it holds may be old"):
        node.run(LvChange("vg0", "second", "ey"))
    with pytest.raises(BadInput, match="not flagged as missing"):
        node.run(VgExtend("vg0", (three.images[0],), restore_missing=True))
    node.run(VgExtend("vg0", (path,), restore_missing=True))
    stock.run("vgck", "vg0")
    assert node.run(LvChange("vg0", "second", "ey"))["mode"] == "EX"


def test_a_partial_lv_is_activated_when_that_is_asked_for_and_made_whole_when_its_pv_is_back(
    three: World
) -> None:
    node = on_two(three)
    pvs = (three.images[0], three.images[1] + ":0-0")
    node.run(LvCreate("vg0", "over", extents=6, activate="n", pvs=pvs))
    path = hide(three, 1)
    with pytest.raises(NotFound, match="what was on the PV fails"):
        node.run(LvChange("vg0", "over", "ey"))
    with pytest.raises(BadInput, match="for one host alone; lvchange -aey --partial vg0/over"):
        node.run(LvChange("vg0", "over", "sy", partial=True))
    with pytest.raises(BadInput, match="--partial is for an activation"):
        node.run(LvChange("vg0", "over", add_tags=("a",), partial=True))
    node.run(LvChange("vg0", "over", "ey", partial=True))
    assert [extent.path for extent in node.open["vg0", "over"].extents] == [three.images[0], ""]
    assert node.drive(reload_changed("vg0")) == {}
    assert not any(isinstance(order, ReloadPath) for order in node.trace), "it may go on so"
    node.run(LvChange("vg0", "", "n"))
    with pytest.raises(NotFound, match="--partial"):
        node.run(LvChange("vg0", "", "ey"))
    assert [lv for _, lv in node.open] == ["first"]
    node.run(LvChange("vg0", "", "ey", partial=True))
    assert len(node.open) == 2
    node.run(VgSet("vg0", add_tags=("tagged",)))  # the PV counts as missing from now on
    os.rename(path + ".away", path)
    assert node.drive(reload_changed("vg0")) == {}
    assert [extent.path for extent in node.open["vg0", "over"].extents] == [three.images[0], ""]
    node.run(VgExtend("vg0", (path,), restore_missing=True))
    assert node.drive(reload_changed("vg0")) == {}
    assert [extent.path for extent in node.open["vg0", "over"].extents] == [three.images[0], path]


def test_missing_pvs_go_with_the_lvs_on_them_that_nobody_uses(three: World, stock: Stock) -> None:
    stock.attach(*three.images)
    node = on_two(three)
    node.run(VgExtend("vg0", (three.images[2],)))
    node.run(LvCreate("vg0", "second", extents=8, activate="n"))
    three.node(2).run(LvChange("vg0", "second", "ey"))
    path = hide(three, 1)
    with pytest.raises(LockHeld, match="an-a01n02"):
        node.run(VgReduce("vg0", remove_missing=True, force=True))
    three.node(2).run(LvChange("vg0", "second", "n"))
    os.rename(path + ".away", path)
    node.run(LvChange("vg0", "second", "ey"))
    hide(three, 1)
    with pytest.raises(Refused, match=r"vg0/second is active here; lvchange -an vg0/second$"):
        node.run(VgReduce("vg0", remove_missing=True, force=True))
    node.run(LvChange("vg0", "second", "n"))
    answer = node.run(VgReduce("vg0", remove_missing=True, force=True))
    assert answer["message"].splitlines() == [
        'Logical volume "second" successfully removed.',
        "Wrote out consistent volume group vg0.",
    ]
    os.rename(path + ".away", path)
    assert stock.try_run("vgck", "vg0")[0] == 0
    with pytest.raises(Damaged, match="was removed from VG vg0 and still has its metadata"):
        node.run(VgCk("vg0"))
    with pytest.raises(Refused, match="belongs to volume group vg0"):
        node.run(PvCreate((path,)))
    node.run(VgExtend("vg0", (path,)))
    stock.run("vgck", "vg0")
    node.run(VgCk("vg0"))
    assert node.run(VgReduce("vg0", remove_missing=True))["message"].endswith("is already consistent.")


def test_what_the_cluster_knows_of_is_not_made_again_from_older_metadata(three: World) -> None:
    """Of two PVs the one is away while the VG changes; then the other is."""
    node = on_two(three)
    first = hide(three, 0)
    node.run(VgCk("vg0", update_metadata=True))
    os.rename(first + ".away", first)
    hide(three, 1)
    three.resources["lvm_vg0", "VGLK"].lvb = None  # its last holder was fenced
    with pytest.raises(Damaged, match="on the disks that are here is version 2, but 3 was committed"):
        node.run(VgReduce("vg0", remove_missing=True))


# -- what is refused --------------------------------------------------------------------


def test_what_is_refused_is_refused_before_anything_is_written(three: World) -> None:
    node = on_two(three)
    three.node(2).run(LvChange("vg0", "first", "ey"))
    before = [Path(image).read_bytes() for image in three.images]
    first, second, third = three.images
    for call, kind, words in (
        (VgReduce("vg0", (first,)), Refused, "still in use; move or remove what is on it: first"),
        (VgReduce("vg0", (second, first)), Refused, "still in use"),
        (VgReduce("vg0", (third,)), NotFound, 'is not in volume group "vg0"'),
        (VgReduce("vg0"), BadInput, "give physical volumes, or --all"),
        (VgExtend("vg0", (first,)), Refused, "is already in volume group vg0"),
        (VgExtend("vg0", (third, third)), BadInput, "named twice"),
        (VgRename("vg0", "vg1"), Refused, r"active LVs: first \(EX on an-a01n02\); deactivate them there"),
        (VgRename("vg0", "vg0"), BadInput, "already exists"),
        (VgRename("vg9", "vg1"), NotFound, "not found"),
        (VgRename("vg0", "a b"), BadInput, "invalid character"),
        (VgSet("vg0"), BadInput, "nothing to change"),
        (VgSet("vg0", max_pv=1), Refused, "less than the current number 2"),
        (VgSet("vg0", policy="best"), BadInput, "not known"),
        (VgSet("vg0", add_tags=("-x",)), BadInput, "invalid"),
        (VgSet("vg0", resizeable=True), BadInput, "already resizeable"),
        (PvRemove((first,)), Refused, "is used by VG vg0 so please use vgreduce first"),
        (PvRemove((first,), force=1), Refused, "--force twice"),
        (PvRemove((first,), force=2), Refused, "active LVs: first"),
        (PvRemove((third,)), BadInput, "No PV found on device"),
        (PvResize((third,)), BadInput, "Failed to find physical volume"),
        (PvCk(third, "all"), BadInput, "not known"),
    ):
        with pytest.raises(kind, match=words):
            node.run(call)
        assert three.locks_of(1) == [], call
        assert [Path(image).read_bytes() for image in three.images] == before, call


def test_a_copy_of_a_pv_is_refused_by_both_names(three: World) -> None:
    node = on_two(three)
    one, _, copy = three.images
    Path(copy).write_bytes(Path(one).read_bytes())
    both = f"{one} and {copy} have the same PV uuid"
    for call in (
        LvCreate("vg0", "vm1", extents=1, activate="n"),
        LvChange("vg0", "first", "ey"),
        VgReduce("vg0", (one,)),
        VgRename("vg0", "vg1"),
        VgCk("vg0"),
    ):
        with pytest.raises(Damaged, match=both):
            node.run(call)
    for call in (PvResize((copy,)), VgExtend("vg0", (copy,)), PvCreate((copy,), force=True)):
        with pytest.raises(RingfenceError, match=f"{copy}.*{one}|{one}.*{copy}"):
            node.run(call)


def test_pvremove_by_force_takes_a_pv_out_of_a_vg_that_nobody_uses(three: World, stock: Stock) -> None:
    stock.attach(*three.images)
    node = on_two(three)
    node.run(PvRemove((three.images[1],), force=2))
    assert [row["vg_attr"] for row in stock.report("vgs", "-o", "vg_attr", quiet=False)] == ["wz-pns"]
    node.run(VgReduce("vg0", remove_missing=True))
    stock.run("vgck", "vg0")
    node.run(VgExtend("vg0", (three.images[1],)))
    stock.run("vgck", "vg0")


def test_every_failing_order_is_undone(directory: Path) -> None:
    """Whatever order fails, no lock is left, and the old version or the new."""
    for name in ("vgextend", "vgreduce", "vgrename with slots", "pvresize"):
        setup, call = COMMANDS[name]
        for fail_at in range(100):
            world = blank(directory)
            setup(world)
            count = [-1]

            def fail(order: Any, count: list[int] = count, fail_at: int = fail_at) -> RingfenceError | None:
                if isinstance(order, ReadBlocks | ReadDisks | Recall | Remember | Identity):
                    return None
                count[0] += 1
                return DeviceFailed("made to fail") if count[0] == fail_at else None

            node = world.node(1, fail=fail)
            try:
                node.run(call(world))
            except RingfenceError:
                assert world.locks_of(1) == [], f"{name}, order {fail_at}: {node.trace[-1]}"
                world.node(2).run(VgCk(world.node(2).run(Vgs())["rows"][0]["vg_name"], update_metadata=True))
            else:
                break
        assert fail_at > 6, name


# -- vgrename ---------------------------------------------------------------------------


def test_vgrename_moves_the_lockspace_and_the_slots(three: World) -> None:
    node, other = with_slots(three), three.node(2)
    other.drive(autostart())
    uuids = {f"lvm_{row['vg_name']}": row["vg_uuid"] for row in other.run(Vgs())["rows"]}
    old = node.slots["vg0"] if node.slots else other.slots["vg0"]
    node.run(VgRename("vg0", "vg1"))
    assert three.ended == ["vg0"]
    place = node.slots["vg1"]
    assert (place.path, place.start_bytes, place.header) == (old.path, old.start_bytes, old.header)
    assert [(one.vg, one.seqno) for one in three.published[-2:]] == [("vg0", 3), ("vg1", 3)]
    assert three.members["lvm_vg0"] == [2]
    other.drive(autostart({}, uuids))
    assert three.members["lvm_vg0"] == []
    assert three.members["lvm_vg1"] == [1, 2]
    assert list(other.slots) == ["vg1"]
    with pytest.raises(NotFound):
        other.run(LvChange("vg0", "first", "ey"))
    assert other.run(LvChange("vg1", "first", "ey"))["mode"] == "EX"
    assert three.locks_of(2)[0][0::2] == ("lvm_vg1", Mode.EX)


@pytest.mark.parametrize("known", ["kept", "seen"])
def test_a_vg_that_was_stopped_by_hand_stays_so_under_its_new_name(three: World, known: str) -> None:
    """By the uuid that was kept with the stop, or that this daemon has seen since."""
    node, other = on_two(three), three.node(2)
    uuid = node.run(Vgs())["rows"][0]["vg_uuid"]
    stopped, uuids = ({"vg0": uuid}, {}) if known == "kept" else ({"vg0": ""}, {"lvm_vg0": uuid})
    other.drive(autostart(stopped, uuids))
    assert three.members["lvm_vg0"] == [1]
    node.run(VgRename("vg0", "vg1"))
    other.drive(autostart(stopped, uuids))
    assert three.members["lvm_vg1"] == [1]
    assert other.renamed == {"vg1": "vg0"}
    node.run(VgCreate("vg0", (three.images[2],), shared=True))
    other.drive(autostart({"vg1": uuid}, uuids))  # what is called vg0 now was never stopped
    assert (three.members["lvm_vg0"], three.members["lvm_vg1"]) == ([1, 2], [1])


def test_a_vg_that_was_stopped_by_hand_is_left_alone_by_its_name_alone_too(three: World) -> None:
    on_two(three)
    other = three.node(2)
    other.drive(autostart({"vg0": ""}))
    assert (three.members["lvm_vg0"], other.unseen) == ([1], ((), ()))
    other.drive(autostart({"vg0": "of-another", "vg7": ""}, {}, ("vg7",)))
    assert (three.members["lvm_vg0"], other.unseen) == ([1, 2], (("vg0", "vg7"), ("vg7",)))


def test_one_of_two_vgs_of_one_name_is_renamed_by_its_uuid(three: World) -> None:
    node = on_two(three)
    uuid = node.run(Vgs())["rows"][0]["vg_uuid"]
    away = [hide(three, 0), hide(three, 1)]
    node.run(VgCreate("vg0", (three.images[2],), shared=True))
    for path in away:
        os.rename(path + ".away", path)
    with pytest.raises(Damaged, match="Multiple VGs found with the same name"):
        node.run(VgRename("vg0", "vg1"))
    node.run(VgRename(uuid, "vg1"))
    assert [(row["vg_name"], row["vg_uuid"] == uuid) for row in node.run(Vgs())["rows"]] == [
        ("vg0", False),
        ("vg1", True),
    ]


# -- devices that shrink ----------------------------------------------------------------


def test_a_disk_that_shrank_is_told_in_lvm2_s_words(three: World) -> None:
    node, image = three.node(), three.images[0]
    node.run(VgCreate("vg0", (image,), shared=True))  # one extent, from 1 MiB on
    os.truncate(image, 8 * MIB - 512)  # behind the last extent
    told = f"WARNING: Device {image} has size of 16383 sectors which is smaller than corresponding PV size of"
    for call in (VgCk("vg0"), Pvs(), Vgs("vg0"), Lvs("vg0")):
        assert node.run(call)["notes"] == [f"{told} 16384 sectors. Was device resized?"]
    os.truncate(image, 4 * MIB)
    ends = rf"{image} ends at {4 * MIB} bytes, and PV .* at {5 * MIB}; .*pvresize"
    with pytest.raises(Damaged, match=ends):
        node.run(VgCk("vg0"))
    assert "8192 sectors" in node.run(Pvs())["notes"][0]
    os.truncate(image, 8 * MIB)
    assert node.run(VgCk("vg0"))["notes"] == []
    assert "notes" not in node.run(Pvs())
