"""New LVs are zeroed, removed ones wiped: at once what is small, by and by what is large, whoever does it."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_world import MIB, Crash, Node, World
from stock_lvm import Stock

from ringfence.core.errors import (
    Damaged,
    DeviceFailed,
    LockHeld,
    LocksLost,
    Refused,
    RingfenceError,
    TimedOut,
)
from ringfence.core.modes import Mode
from ringfence.engine import orders
from ringfence.engine.commands import beside, wiping, zeroing
from ringfence.engine.commands.commit import begin, commit, prepare
from ringfence.engine.commands.disks import find_vg
from ringfence.engine.commands.locking import lock_vg
from ringfence.engine.commands.wiping import cleanse_all
from ringfence.lvm2.names import check_lv_name
from ringfence.storage import Moment, driver
from ringfence.volumes.model import Vg
from ringfence.volumes.plan import find_lv
from ringfence.volumes.unclean import wiping_name
from ringfence.wire.client import (
    LvChange,
    LvCreate,
    LvRemove,
    LvResize,
    Lvs,
    VgCk,
    VgCreate,
    VgExtend,
    VgReduce,
    VgRemove,
    Vgs,
)

SMALL, LARGE = 6, 10
"""Extents of 1 MiB.  Everything else is a sixteenth of what it is otherwise, so that disks are small."""
SECRET = b"another tenant's"


@pytest.fixture(autouse=True)
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeroing, "SLICE_BYTES", zeroing.SLICE_BYTES // 16)
    monkeypatch.setattr(zeroing, "AT_ONCE_BYTES", zeroing.AT_ONCE_BYTES // 16)
    monkeypatch.setattr(zeroing, "ALONG_BYTES", zeroing.ALONG_BYTES // 16)
    monkeypatch.setattr(wiping, "STEP_LEAST_BYTES", zeroing.SLICE_BYTES)  # progress is committed, too
    monkeypatch.setattr(driver, "ZERO_STEP_BYTES", driver.ZERO_STEP_BYTES // 16)


@pytest.fixture
def world(directory: Path) -> World:
    return World(directory, (40 * MIB,))


@pytest.fixture
def first(world: World) -> Node:
    node = world.node(1)
    node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    return node


def soil(world: World) -> None:
    """Secrets in every extent, at its beginning, in its middle and at its end."""
    with open(world.images[0], "r+b") as file:
        for at in range(MIB, 40 * MIB, MIB // 2):
            for offset in (at, at + MIB // 2 - 512):
                file.seek(offset)
                file.write(SECRET.ljust(512, b"!"))


def secrets(world: World, extents: int = 39, start: int = 0) -> int:
    """Extents in which one is left."""
    with open(world.images[0], "rb") as file:
        file.seek(MIB * (1 + start))
        return sum(SECRET in file.read(MIB) for _ in range(extents))


def rows(world: World, **options: Any) -> list[str]:
    found = world.node(3).run(Lvs("vg0", **options))["rows"]
    return [f"{row['lv_name']} {row['lv_size'] // MIB} {row['copy_percent'] or '-'}" for row in found]


def free(world: World) -> int:
    (row,) = world.node(3).run(Vgs("vg0"))["rows"]
    return int(row["vg_free_count"])


def unclean(world: World) -> tuple[str, ...]:
    return world.published[-1].unclean


def work(world: World, id: int = 2, **options: Any) -> dict[str, Any]:
    """A host's turn in the background."""
    node = world.node(id, **options)
    if id not in world.members["lvm_vg0"]:
        world.members["lvm_vg0"].append(id)
    answer: dict[str, Any] = node.drive(cleanse_all("vg0", unclean(world)))
    return answer


# -- new ones --------------------------------------------------------------------------


def test_a_small_lv_is_zeroed_before_its_commit(world: World, first: Node) -> None:
    soil(world)
    first.run(LvCreate("vg0", "vm1", extents=SMALL))
    assert secrets(world, SMALL) == 0
    assert secrets(world, 8, SMALL) == 8, "and nothing else"
    told = (orders.ZeroBlocks, orders.WriteBlocks, orders.WriteVersion)
    kinds = [type(one).__name__ for one in first.trace if isinstance(one, told)]
    assert kinds == ["ZeroBlocks", "ZeroBlocks", "WriteVersion"]
    first.run(LvCreate("vg0", "vm2", extents=8, activate="n"))
    assert secrets(world, 8, SMALL) == 0


def test_a_little_is_zeroed_in_the_order_that_commits_it(world: World, first: Node) -> None:
    soil(world)
    first.run(LvCreate("vg0", "vm1", extents=1))
    assert secrets(world, 1) == 0
    assert secrets(world, 8, 1) == 8, "and nothing else"
    assert not any(isinstance(one, orders.ZeroBlocks) for one in first.trace)
    (written,) = [one for one in first.trace if isinstance(one, orders.WriteVersion)]
    assert [(zero.length_bytes, zero.guard) for zero in written.zeros] == [(1 << 20, "vg0")]


def test_without_wipe_nothing_is_zeroed(world: World, first: Node) -> None:
    soil(world)
    first.run(LvCreate("vg0", "vm1", extents=LARGE, wipe=False))
    assert secrets(world, LARGE) == LARGE
    assert unclean(world) == ()


def test_a_large_lv_is_zeroed_without_the_vgs_lock_and_opened_after_it(world: World, first: Node) -> None:
    soil(world)
    reply = first.run(LvCreate("vg0", "vm1", extents=LARGE))
    assert secrets(world, LARGE) == 0
    assert reply["uri"].startswith("nbd+unix:///vm1?")
    locked = False
    zeroed = []
    for order in first.trace:
        if isinstance(order, orders.Acquire) and order.resource == "VGLK":
            locked = True
        elif isinstance(order, orders.Release):
            locked = False
        elif isinstance(order, orders.ZeroBlocks):
            zeroed.append(order.length_bytes // MIB)
            assert not locked
        elif isinstance(order, orders.OpenPath):
            assert sum(zeroed) == LARGE
    assert zeroed == [4, 4, 2]
    assert [(one.done_bytes // MIB, one.size_bytes // MIB) for one in first.progress] == [
        (0, LARGE), (4, LARGE), (8, LARGE), (LARGE, LARGE),
    ]  # fmt: skip
    assert rows(world) == [f"vm1 {LARGE} -"]
    assert world.locks_of(1) == [("lvm_vg0", reply["uuid"], Mode.EX)]


def test_nobody_opens_it_before_that(world: World, first: Node) -> None:
    soil(world)
    reply = first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n"))
    assert reply["zeroing"]
    assert unclean(world) == (reply["uuid"],)
    assert rows(world) == [f"vm1 {LARGE} 0.00"]
    for force in (False, True):
        with pytest.raises(Refused, match=r"vm1 is still being zeroed \(0 %\)"):
            first.run(LvChange("vg0", "vm1", "ey", force=force))
    assert first.run(LvChange("vg0", "", "ey"))["lvs"] == [], "who activates all passes it over"
    assert [one.name for one in work(world)["done"]] == ["vm1"]
    assert secrets(world, LARGE) == 0
    assert unclean(world) == ()
    first.run(LvChange("vg0", "vm1", "ey"))


@pytest.mark.parametrize("lv", ["vm1", ""])
@pytest.mark.parametrize("wait_ms", [60_000, None])
def test_an_activation_that_waits_zeroes_it_first(
    world: World, first: Node, lv: str, wait_ms: int | None
) -> None:
    soil(world)
    uuid = first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n"))["uuid"]
    second = world.node(2)
    second.run(LvChange("vg0", lv, "ey", wait_ms))
    assert secrets(world, LARGE) == 0
    assert unclean(world) == ()
    assert world.locks_of(2) == [("lvm_vg0", uuid, Mode.EX)]
    told = (orders.ZeroBlocks, orders.OpenPath, orders.Pause)
    kinds = [type(one).__name__ for one in second.trace if isinstance(one, told)]
    assert kinds == ["ZeroBlocks"] * 3 + ["OpenPath"], "as fast as it can"


def test_who_gave_way_waits_until_the_other_has_zeroed_it(world: World, first: Node) -> None:
    uuid = first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n"))["uuid"]
    second = world.node(2)
    second.wanted = True
    looks: list[orders.Order] = []
    lock = orders.Acquire("lvm_vg0", uuid, Mode.EX)

    def other(order: orders.Order) -> None:
        nonlocal held
        if isinstance(order, orders.Pause):
            looks.append(order)
            if len(looks) == 1:
                held = first._do(lock)
                second.wanted = False
            elif len(looks) == 4:
                first._do(orders.Release(held.lock))
                work(world, 1)

    held: Any = None
    second.fail = other
    second.run(LvChange("vg0", "vm1", "ey", 60_000))
    assert len(looks) == 4
    assert ("vg0", "vm1") in second.open
    assert not any(isinstance(one, orders.ZeroBlocks) for one in second.trace)


def test_a_wait_for_the_zeroing_ends(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n"))
    second = world.node(2)

    def slow(order: orders.Order) -> None:
        if isinstance(order, orders.ZeroBlocks):
            second.now_wall_s += 40

    second.fail = slow
    with pytest.raises(TimedOut, match=r"vm1 is still being zeroed; it goes on by itself.*--wait forever"):
        second.run(LvChange("vg0", "vm1", "ey", 60_000))
    assert world.locks_of(2) == []
    assert rows(world) == [f"vm1 {LARGE} 80.00"], "what was done by then stays done"


def test_who_waits_for_a_large_lv_is_told_what_became_of_it(world: World, first: Node) -> None:
    def fail(order: Any) -> RingfenceError | None:
        broken = isinstance(order, orders.ZeroBlocks) and order.offset_bytes > 6 * MIB
        return DeviceFailed("I/O error") if broken else None

    with pytest.raises(DeviceFailed, match="vm1 was created, and is zeroed in the background: I/O error"):
        world.node(1, fail=fail).run(LvCreate("vg0", "vm1", extents=LARGE))
    assert world.locks_of(1) == []
    assert rows(world) == [f"vm1 {LARGE} 80.00"]
    work(world)
    assert rows(world) == [f"vm1 {LARGE} -"]


# -- removed ones ------------------------------------------------------------------------


def test_a_small_lv_is_wiped_as_it_is_removed(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=SMALL, activate="n"))
    soil(world)
    first.run(LvRemove("vg0", "vm1"))
    assert secrets(world, SMALL + 1) == 1
    assert rows(world, all=True) == []


def test_a_large_lvs_extents_are_free_once_they_are_wiped(world: World, first: Node) -> None:
    uuid = first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n", wipe=False))["uuid"]
    soil(world)
    reply = first.run(LvRemove("vg0", "vm1"))
    assert "10 extents are being wiped, and free after that" in reply["message"]
    assert (rows(world), rows(world, all=True)) == ([], [f"vm1_wiping {LARGE} 0.00"])
    assert (free(world), unclean(world)) == (39 - LARGE, (uuid,))
    with pytest.raises(Refused, match="was removed and is being wiped"):
        first.run(LvChange("vg0", "vm1_wiping", "ey"))
    with pytest.raises(Refused, match="was removed and is being wiped"):
        first.run(LvRemove("vg0", "vm1_wiping"))
    with pytest.raises(Refused, match=r"10 more are being wiped.*lvremove --no-wipe vg0/vm1_wiping"):
        first.run(LvCreate("vg0", "vm2", extents=30))
    first.run(LvCreate("vg0", "vm1", extents=5))  # the name is free at once, other extents are
    assert secrets(world, LARGE) == LARGE
    (done,) = work(world)["done"]
    assert (done.name, done.what) == ("vm1_wiping", "wiped")
    assert secrets(world, LARGE) == 0
    assert (rows(world, all=True), free(world)) == (["vm1 5 -"], 39 - 5)


def test_a_life_that_is_lost_while_an_lv_is_planned_lacks_no_extents(
    world: World, first: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n", wipe=False))
    first.run(LvRemove("vg0", "vm1"))
    monkeypatch.setattr(beside, "MANY", 0)

    def fail(order: Any) -> RingfenceError | None:
        return LocksLost("LV vg0/vm2: an-a01n01 was given up") if isinstance(order, orders.Compute) else None

    with pytest.raises(LocksLost, match=r"was given up$"):
        world.node(1, fail=fail).run(LvCreate("vg0", "vm2", extents=1))


def test_two_of_one_name_are_wiped(world: World, first: Node) -> None:
    for _ in range(2):
        first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n", wipe=False))
        first.run(LvRemove("vg0", "vm1"))
    assert rows(world, all=True) == [f"vm1_wiping {LARGE} 0.00", f"vm1_wiping1 {LARGE} 0.00"]
    assert len(work(world)["done"]) == 2
    assert rows(world, all=True) == []


def test_without_wipe_it_goes_at_once_also_one_that_is_being_wiped(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n", wipe=False))
    soil(world)
    first.run(LvRemove("vg0", "vm1"))
    first.run(LvRemove("vg0", "vm1_wiping", wipe=False))
    assert (free(world), secrets(world, LARGE), unclean(world)) == (39, LARGE, ())
    first.run(LvCreate("vg0", "vm1", extents=SMALL, activate="n", wipe=False))
    first.run(LvRemove("vg0", "vm1", wipe=False))
    assert secrets(world, SMALL) == SMALL


def test_the_vg_can_go_with_what_is_being_wiped(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n", wipe=False))
    first.run(LvRemove("vg0", "vm1"))
    with pytest.raises(Refused, match=r"still contains 1 logical .* being wiped; wait"):
        first.run(VgRemove("vg0"))
    assert "is left on the PVs: lvremove has it wiped" in first.run(VgRemove("vg0", force=True))["notes"][0]
    assert world.node(2).run(Vgs())["rows"] == []


# -- growth ---------------------------------------------------------------------------------


def grow(node: Node, extents: int, **options: Any) -> dict[str, Any]:
    call = LvResize("vg0", "vm1", extents=extents, sign="+", only="extend", **options)
    answer: dict[str, Any] = node.run(call)
    return answer


@pytest.mark.parametrize("more", [5, 20], ids=["little", "much"])
@pytest.mark.parametrize("stripes", [1, 2])
def test_an_lv_grows_by_zeros(directory: Path, more: int, stripes: int) -> None:
    world = World(directory, (40 * MIB, 40 * MIB))
    first = world.node(1)
    first.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    more = more // stripes * stripes
    first.run(LvCreate("vg0", "vm1", extents=2, stripes=stripes, activate="n"))
    for image in world.images:
        with open(image, "r+b") as file:
            file.seek(MIB)
            file.write(SECRET.ljust(512) * (39 * MIB // 512))
    grow(first, more)
    (row,) = world.node(3).run(Lvs("vg0", all=True))["rows"]
    assert (row["lv_size"] // MIB, row["lv_tags"], row["seg_count"]) == (2 + more, "", 1)
    kept = 2 // stripes
    for image in world.images[:stripes]:
        with open(image, "rb") as file:
            file.seek(MIB)
            parts = [SECRET in file.read(MIB) for _ in range(39)]
        assert parts == [True] * kept + [False] * (more // stripes) + [True] * (39 - kept - more // stripes)
    held = False
    for order in first.trace:
        if isinstance(order, orders.Acquire | orders.Release):
            held = isinstance(order, orders.Acquire) and order.resource == "VGLK"
        elif isinstance(order, orders.ZeroBlocks) and more > 8:
            assert not held


def test_growth_without_wipe(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=2, activate="n"))
    soil(world)
    grow(first, 20, wipe=False)
    assert secrets(world, 22) == 22


def test_growth_that_fails_half_way_leaves_what_can_be_removed(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=2, activate="n"))

    def fail(order: Any) -> RingfenceError | None:
        broken = isinstance(order, orders.ZeroBlocks) and order.offset_bytes > 8 * MIB
        return DeviceFailed("I/O error") if broken else None

    with pytest.raises(DeviceFailed, match="has not grown: I/O error; lvremove vg0/vm1_growing, then try"):
        grow(world.node(1, fail=fail), 20)
    assert rows(world) == ["vm1 2 -", "vm1_growing 20 40.00"]
    first.run(LvRemove("vg0", "vm1_growing"))
    grow(first, 20)
    assert rows(world) == ["vm1 22 -"]


# -- what an LV gives up ------------------------------------------------------------------------


def shrink(node: Node, extents: int, **options: Any) -> dict[str, Any]:
    call = LvResize("vg0", "vm1", extents=extents, sign="-", only="reduce", force=True, **options)
    answer: dict[str, Any] = node.run(call)
    return answer


def test_a_little_that_is_given_up_is_wiped_after_the_path_is_shorter_and_before_the_commit(
    world: World, first: Node
) -> None:
    first.run(LvCreate("vg0", "vm1", extents=LARGE))
    soil(world)
    assert shrink(first, SMALL)["notes"] == []
    assert secrets(world, LARGE) == LARGE - SMALL
    assert secrets(world) == 39 - SMALL, "and nothing else"
    told = (orders.ReloadPath, orders.ZeroBlocks, orders.WriteBlocks, orders.WriteVersion)
    kinds = [type(one).__name__ for one in first.trace if isinstance(one, told)]
    assert kinds == ["ReloadPath", "ZeroBlocks", "ZeroBlocks", "WriteVersion"]
    assert (rows(world, all=True), free(world)) == ([f"vm1 {LARGE - SMALL} -"], 39 - LARGE + SMALL)


@pytest.mark.parametrize("stripes", [1, 2])
def test_much_that_is_given_up_is_free_once_it_is_wiped(
    directory: Path, stock: Stock, stripes: int
) -> None:
    world = World(directory, (40 * MIB, 40 * MIB))
    first = world.node(1)
    first.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    first.run(LvCreate("vg0", "vm1", extents=30, stripes=stripes, activate="n", wipe=False))
    grow(first, 2, wipe=False)
    stock.attach(*world.images)
    for image in world.images:
        with open(image, "r+b") as file:
            file.seek(MIB)
            file.write(SECRET.ljust(512) * (39 * MIB // 512))
    assert shrink(first, 20)["notes"] == ["20 extents are being wiped, and free after that."]
    assert (rows(world), rows(world, all=True)) == (["vm1 12 -"], ["vm1 12 -", "vm1_wiping 20 0.00"])
    assert free(world) == 78 - 32
    stock.run("vgck", "vg0")
    (row,) = stock.report("lvs", "-o", "lv_name,lv_tags,seg_count", "vg0/vm1_wiping")
    assert list(row.values()) == ["vm1_wiping", "ringfence.wiping", str(stripes)]
    (done,) = work(world)["done"]
    assert (done.name, done.what) == ("vm1_wiping", "wiped")
    kept, wiped = 12 // stripes, 20 // stripes
    for image in world.images[:stripes]:
        with open(image, "rb") as file:
            file.seek(MIB)
            parts = [SECRET in file.read(MIB) for _ in range(39)]
        assert parts == [True] * kept + [False] * wiped + [True] * (39 - kept - wiped)
    assert (rows(world, all=True), free(world)) == (["vm1 12 -"], 78 - 12)


def test_what_is_given_up_without_wipe_is_free_at_once(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=30, activate="n", wipe=False))
    soil(world)
    shrink(first, 20, wipe=False)
    assert (rows(world, all=True), secrets(world, 30), free(world)) == (["vm1 10 -"], 30, 29)


# -- PVs that are missing -------------------------------------------------------------------------


@pytest.fixture
def pair(directory: Path) -> World:
    """Two PVs; vm1 is on both of them, small on the first, far on the second; secrets everywhere."""
    world = World(directory, (40 * MIB, 40 * MIB))
    node = world.node(1)
    node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    for name, extents, pvs in (
        ("small", SMALL, world.images[:1]),
        ("vm1", 40, [world.images[0], world.images[1] + ":0-6"]),
        ("far", SMALL, world.images[1:]),
    ):
        node.run(LvCreate("vg0", name, extents=extents, pvs=tuple(pvs), activate="n", wipe=False))
    for image in world.images:
        with open(image, "r+b") as file:
            file.seek(MIB)
            file.write(SECRET.ljust(512) * (39 * MIB // 512))
    return world


def hide(world: World) -> str:
    os.rename(world.images[1], world.images[1] + ".away")
    return world.images[1]


def left(world: World, disk: int) -> int:
    with open(world.images[disk], "rb") as file:
        file.seek(MIB)
        return sum(SECRET in file.read(MIB) for _ in range(39))


def test_what_is_removed_while_a_pv_is_missing_is_wiped_when_it_is_back(pair: World, stock: Stock) -> None:
    stock.attach(*pair.images)
    node = pair.node(1)
    path = hide(pair)
    for name in ("vm1", "small", "far"):
        reply = node.run(LvRemove("vg0", name))
        assert "wiped, and free, once no PV is missing" in reply["message"]
    assert rows(pair, all=True) == ["small_wiping 6 0.00", "vm1_wiping 40 0.00", "far_wiping 6 0.00"]
    assert "missing" in work(pair)["trouble"]
    assert left(pair, 0) == 39, "nothing is written by what may be older metadata"
    os.rename(path + ".away", path)
    assert any("was previously updated while PV" in line for line in stock.try_run("vgck", "vg0")[2])
    assert rows(pair, all=True)[1] == "vm1_wiping 40 0.00", "what the PV says is old"
    with pytest.raises(Refused, match="vgextend --restoremissing vg0"):
        node.run(LvCreate("vg0", "vm2", extents=1, activate="n"))
    node.run(VgExtend("vg0", (path,), restore_missing=True))
    assert sorted(one.name for one in work(pair)["done"]) == ["far_wiping", "small_wiping", "vm1_wiping"]
    assert (left(pair, 0), left(pair, 1), free(pair)) == (0, 39 - 7 - SMALL, 78)
    stock.run("vgck", "vg0")


def test_what_waits_for_a_pv_that_is_gone_for_good_goes_with_it_but_for_what_is_here(
    pair: World, stock: Stock
) -> None:
    stock.attach(*pair.images)
    node = pair.node(1)
    path = hide(pair)
    node.run(LvRemove("vg0", "vm1"))
    node.run(LvRemove("vg0", "far"))
    node.run(VgReduce("vg0", remove_missing=True))
    assert rows(pair, all=True) == ["small 6 -", "vm1_wiping 33 0.00"], "under its name again: it was gone"
    assert free(pair) == 0
    work(pair)
    assert (rows(pair, all=True), left(pair, 0), free(pair)) == (["small 6 -"], SMALL, 33)
    os.rename(path + ".away", path)
    with pytest.raises(Damaged, match="was removed from VG vg0"):
        node.run(VgCk("vg0"))
    node.run(VgCk("vg0", update_metadata=True))
    stock.run("vgck", "vg0")


def test_what_partial_lvs_leave_here_is_wiped(pair: World, stock: Stock) -> None:
    stock.attach(*pair.images)
    hide(pair)
    pair.node(1).run(VgReduce("vg0", remove_missing=True, force=True))
    assert rows(pair, all=True) == ["small 6 -", "vm1_wiping 33 0.00"]
    work(pair)
    assert (rows(pair, all=True), left(pair, 0)) == (["small 6 -"], SMALL)
    stock.run("vgck", "vg0", quiet=False)


def test_the_place_that_an_open_lv_may_be_writing_to_stays_though_a_pv_of_it_is_missing(
    pair: World,
) -> None:
    def keep() -> orders.Command:
        change = yield from begin((yield from lock_vg("vg0", Mode.EX)))
        section = change.vg.section_of("far")
        tags = (f"ringfence.moving.{find_lv(change.vg, 'small').uuid}",)
        planned = change.vg.with_lv("far", section.put("tags", tags))
        yield from commit(prepare(change, planned, "pvmove"))

    pair.node(1).drive(keep())
    hide(pair)
    before = Path(pair.images[0]).read_bytes()
    with pytest.raises(Refused, match="vg0/far keeps extents for vg0/small, which is being moved"):
        pair.node(1).run(VgReduce("vg0", remove_missing=True, force=True))
    assert Path(pair.images[0]).read_bytes() == before


def test_without_wipe_it_goes_at_once_though_a_pv_is_missing(pair: World) -> None:
    hide(pair)
    pair.node(1).run(LvRemove("vg0", "vm1", wipe=False))
    assert rows(pair, all=True) == ["small 6 -", "far 6 -"]


def test_a_vg_is_not_removed_while_a_pv_is_missing(pair: World) -> None:
    hide(pair)
    for force in (False, True):
        with pytest.raises(RingfenceError, match="vgreduce --removemissing vg0"):
            pair.node(1).run(VgRemove("vg0", force=force))
    assert left(pair, 0) == 39


# -- who works ------------------------------------------------------------------------------


def test_one_host_at_a_time_works_on_an_lv(world: World, first: Node) -> None:
    uuid = first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n"))["uuid"]
    second = world.node(2)
    second._do_JoinLockspace(orders.JoinLockspace("lvm_vg0"))
    held = second._do_Acquire(orders.Acquire("lvm_vg0", uuid, Mode.EX))
    nothing: dict[str, Any] = {"done": [], "gone": [], "kept": [], "left": 0, "trouble": "", "waits": {}}
    waits = f"LV vg0/{uuid} is held EX by an-a01n02"
    assert work(world, 1) == {**nothing, "left": 1, "waits": {uuid: waits}}
    second._do_Release(orders.Release(held.lock))
    work(world, 1)
    assert rows(world) == [f"vm1 {LARGE} -"]
    assert work(world, 2) == nothing
    stale = world.node(2).drive(cleanse_all("vg0", (uuid,)))
    assert stale["gone"] == [uuid], "to look at it again is no use"


def test_who_is_wanted_gives_way_and_the_next_goes_on_from_there(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n", wipe=False))
    soil(world)
    first.run(LvRemove("vg0", "vm1"))
    node = world.node(2)
    node._do_JoinLockspace(orders.JoinLockspace("lvm_vg0"))
    asked = []

    def fail(order: Any) -> None:
        if isinstance(order, orders.Wanted):
            asked.append(order)
            node.wanted = len(asked) == 2

    node.fail = fail
    answer = node.drive(cleanse_all("vg0", unclean(world)))
    assert (answer["done"], answer["left"]) == ([], 1)
    assert world.locks_of(2) == []
    assert rows(world, all=True) == [f"vm1_wiping {LARGE} 40.00"]
    assert secrets(world, LARGE) == LARGE - 4
    soil(world)  # what is done is not done again
    work(world, 1)
    assert secrets(world, LARGE) == 4
    assert free(world) == 39


class At:
    """The world ends at the n-th moment around a write."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, -1

    def __call__(self, moment: Moment, what: str, index: int, write: orders.Write) -> None:
        self.count += 1
        if self.count == self.at:
            raise Crash


@pytest.mark.parametrize("removed", [True, False], ids=["wiping", "zeroing"])
def test_after_a_crash_anywhere_another_host_goes_on(directory: Path, removed: bool) -> None:
    """Nothing of a secret is ever in an LV that can be opened, nor in a free extent."""
    world = World(directory, (40 * MIB,))
    node = world.node(1)
    node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    node.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n", wipe=not removed))
    if removed:
        node.run(LvRemove("vg0", "vm1"))
    before = Path(world.images[0]).read_bytes()[: 2 * MIB]
    published = list(world.published)
    percents = []
    for at in range(200):
        world = World(directory, (40 * MIB,))
        with open(world.images[0], "r+b") as file:
            file.write(before)
        soil(world)
        world.published = list(published)
        world.members["lvm_vg0"] = [1, 2, 3]
        try:
            work(world, 1, crash_hook=At(at))
        except Crash:
            world.purge(1)
        else:
            break
        left = rows(world, all=True)
        if left and not left[0].endswith(" -"):
            percent = float(left[0].split()[-1])
            percents.append(percent)
            assert secrets(world, LARGE) <= LARGE * (100 - percent) / 100, f"moment {at}"
        else:
            assert secrets(world, LARGE) == 0, f"moment {at}"
        work(world, 2)
        assert secrets(world, LARGE) == 0, f"moment {at}"
        assert rows(world, all=True) == ([] if removed else [f"vm1 {LARGE} -"]), f"moment {at}"
    assert at > 30
    assert sorted(set(percents)) == [0, 40, 80]


def test_a_lost_device_is_told_and_the_others_go_on(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n"))
    first.run(LvCreate("vg0", "vm2", extents=LARGE, activate="n"))

    def fail(order: Any) -> RingfenceError | None:
        broken = isinstance(order, orders.ZeroBlocks) and order.offset_bytes < LARGE * MIB
        return DeviceFailed("I/O error") if broken else None

    answer = work(world, fail=fail)
    assert [one.name for one in answer["done"]] == ["vm2"]
    assert (answer["left"], answer["trouble"]) == (1, "I/O error")
    assert world.locks_of(2) == []


def test_nobody_else_takes_the_lv_meanwhile(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n"))
    tried = []

    def fail(order: Any) -> None:
        if isinstance(order, orders.ZeroBlocks) and not tried:
            for call in (LvRemove("vg0", "vm1"), LvChange("vg0", "vm1", "ey")):
                with pytest.raises(Refused) as caught:
                    world.node(1).run(call)
                tried.append(type(caught.value))

    work(world, fail=fail)
    assert tried[1] is Refused
    assert issubclass(tried[0], Refused)
    assert tried[0] is not LockHeld, "it waits for a while, for who works gives way"


# -- what must not be zeroed --------------------------------------------------------------------


def test_what_an_lv_is_to_grow_by_is_not_taken_from_who_has_it_open(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=2, activate="n"))
    second = world.node(2)
    second._do_JoinLockspace(orders.JoinLockspace("lvm_vg0"))
    asked = []

    def activates(order: Any) -> None:
        """Once it is zeroed and its lock is free: as `vgchange -ay` of another host may."""
        if isinstance(order, orders.Acquire) and order.resource == "VGLK" and world.published:
            names = [row.partition(" ")[0] for row in rows(world)]
            if "vm1_growing" in names and not unclean(world) and not asked:
                asked.append(second.run(LvChange("vg0", "vm1_growing", "ey")))

    with pytest.raises(LockHeld, match="vm1_growing"):
        grow(world.node(1, fail=activates), 20)
    assert rows(world) == ["vm1 2 -", "vm1_growing 20 -"]
    assert asked


def test_nothing_is_zeroed_by_older_metadata_than_the_newest(directory: Path) -> None:
    """A host that does not see the PV whose area alone has the newest version."""
    world = World(directory, (40 * MIB, 40 * MIB))
    first = world.node(1)
    first.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n", wipe=False))
    first.run(LvRemove("vg0", "vm1"))
    uuids = unclean(world)
    before = Path(world.images[0]).read_bytes()[:MIB]
    work(world)
    first.run(LvCreate("vg0", "vm2", extents=LARGE, activate="n", wipe=False))
    with open(world.images[0], "r+b") as file:  # the commit did not come this far
        file.write(before)
    soil(world)
    os.rename(world.images[1], world.images[1] + ".away")
    answer = world.node(2).drive(cleanse_all("vg0", uuids))
    assert answer["trouble"]
    assert answer["done"] == []
    assert secrets(world) == 39


def test_no_copy_of_a_pv_is_zeroed(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n"))
    soil(world)
    copy = world.directory / "copy.img"
    shutil.copyfile(world.images[0], copy)
    answer = work(world)
    assert "same PV uuid" in answer["trouble"]
    assert secrets(world) == 39
    assert copy.read_bytes().count(SECRET) == 4 * 39


def test_a_tag_does_not_make_the_wiper_destroy_what_is_restored(world: World, first: Node) -> None:
    """Somebody who needs no lock took the LV away, or its tag, between two slices."""
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n"))
    at_work = []

    def fail(order: Any) -> None:
        if isinstance(order, orders.ZeroBlocks) and not at_work:
            at_work.append(order)
            world.resources["lvm_vg0", unclean(world)[0]].held.clear()
            world.node(1).run(LvRemove("vg0", "vm1", wipe=False))

    answer = work(world, fail=fail)
    assert "was changed while" in answer["trouble"]
    assert rows(world) == []


# -- stock LVM2 ---------------------------------------------------------------------------


def test_stock_lvm2_is_content(world: World, first: Node, stock: Stock) -> None:
    stock.attach(*world.images)
    first.run(LvCreate("vg0", "vm1", extents=LARGE, activate="n"))
    first.run(LvCreate("vg0", "vm2", extents=LARGE, activate="n", wipe=False))
    first.run(LvRemove("vg0", "vm2"))
    stock.run("vgck", "vg0")
    found = {row["lv_name"]: row for row in stock.report("lvs", "-o", "lv_name,lv_attr,lv_tags", "vg0")}
    assert found["vm1"]["lv_tags"] == "ringfence.zeroing"
    assert found["vm2_wiping"]["lv_tags"] == "ringfence.wiping"
    assert [row["lv_attr"][9] for row in found.values()] == ["k", "k"], "activation is skipped"
    node = world.node(2)
    node._do_JoinLockspace(orders.JoinLockspace("lvm_vg0"))
    stop = iter([False, True])
    node.fail = lambda order: (
        setattr(node, "wanted", next(stop, False)) if isinstance(order, orders.Wanted) else None
    )
    node.drive(cleanse_all("vg0", unclean(world)))
    stock.run("vgck", "vg0")
    (row,) = stock.report("lvs", "-o", "lv_name,lv_attr,lv_tags", "vg0/vm1")
    assert row["lv_tags"] == "ringfence.wiped.4,ringfence.zeroing"
    work(world, 1)
    stock.run("vgck", "vg0")
    (row,) = stock.report("lvs", "-o", "lv_name,lv_attr,lv_tags", "vg0")
    assert (row["lv_name"], row["lv_attr"][9], row["lv_tags"]) == ("vm1", "-", "")


def test_names_fit(first: Node) -> None:
    def look() -> Any:
        _, found = yield from find_vg("vg0")
        return found.vg

    vg: Vg = first.drive(look())
    assert wiping_name(vg, "vm1") == "vm1_wiping"
    long = wiping_name(vg, "x" * 123)
    assert (len(long), long[-8:]) == (123, "x_wiping")
    check_lv_name(wiping_name(vg, "a-" * 60), "vg0")
