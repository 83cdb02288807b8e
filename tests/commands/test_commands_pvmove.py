"""pvmove: LVs leave a PV, copied or mirrored, an extent at a time; whoever crashes, another goes on."""

import contextlib
import copy
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_world import MIB, Crash, Node, World, read_file, write_file
from stock_lvm import Stock

from ringfence.core.errors import (
    BadInput,
    DeviceFailed,
    LockHeld,
    LocksLost,
    NoAuthority,
    Refused,
    RingfenceError,
)
from ringfence.core.modes import Mode
from ringfence.engine import orders
from ringfence.engine.commands import moving
from ringfence.engine.commands.activation import extents_of
from ringfence.engine.commands.disks import find_vg
from ringfence.engine.commands.pvmove import move_all
from ringfence.sim import mirrored
from ringfence.sim.mirrored import read_all
from ringfence.storage.driver import Moment
from ringfence.volumes.model import Vg
from ringfence.wire.block import Plane
from ringfence.wire.client import (
    LvChange,
    LvCreate,
    LvRemove,
    LvRename,
    LvResize,
    Lvs,
    PvMove,
    VgCreate,
    VgReduce,
    VgRemove,
)

EXTENT = MIB // 4
DISKS = (MIB + 9 * EXTENT, MIB + 11 * EXTENT, MIB + 9 * EXTENT)
LV = 4 * EXTENT


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extents go in runs of 3, in slices of 2, and are mirrored one by one."""
    monkeypatch.setattr(moving, "STEP_LEAST_BYTES", 3 * EXTENT)
    monkeypatch.setattr(moving, "SLICE_BYTES", 2 * EXTENT)
    monkeypatch.setattr(mirrored, "STEP_BYTES", EXTENT)


@pytest.fixture
def fast() -> Iterator[World]:
    """In memory: for what is done hundreds of times."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="rf") as directory:
        yield made(Path(directory))


@pytest.fixture
def world(directory: Path) -> World:
    return made(directory)


def made(directory: Path) -> World:
    """vm1 is linear, vm2 has two stripes; both have extents on the first disk."""
    world = World(directory, DISKS)
    node = world.node(1)
    node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=EXTENT))
    first, second, _ = world.images
    node.run(LvCreate("vg0", "vm1", extents=4, activate="n", pvs=(first,)))
    node.run(LvCreate("vg0", "vm2", extents=4, stripes=2, activate="n", pvs=(first, second)))
    world.node(2).run(LvChange("vg0", "", "n"))
    return world


class Saved:
    """A world that can be begun again."""

    def __init__(self, world: World) -> None:
        self._world = copy.deepcopy(world)
        self._disks = [Path(image).read_bytes() for image in world.images]

    def again(self) -> World:
        for image, data in zip(self._world.images, self._disks, strict=True):
            write_file(image, 0, data)
        return copy.deepcopy(self._world)


@pytest.fixture
def first(world: World) -> Node:
    return world.node(1)


def fill(world: World, lv: str, seed: int = 1) -> bytes:
    """Random contents, by somebody who has it open for a moment."""
    node = world.node(1)
    node.run(LvChange("vg0", lv, "ey"))
    data = random.Random(seed).randbytes(len(node.read("vg0", lv)))
    node.write("vg0", lv, 0, data)
    node.run(LvChange("vg0", lv, "n"))
    return data


def contents(world: World, lv: str) -> bytes:
    """As any host would read it now."""
    node = world.node(9)
    vg = vg_of(world)

    def look() -> Any:
        _, found = yield from find_vg("vg0")
        return found

    extents = extents_of(node.drive(look()), vg.by_name[lv])
    return read_all(extents, read_file)


def vg_of(world: World) -> Vg:
    def look() -> Any:
        _, found = yield from find_vg("vg0")
        return found.vg

    vg: Vg = world.node(9).drive(look())
    return vg


def on(world: World, disk: int) -> list[str]:
    """LVs that have extents there."""
    vg = vg_of(world)
    return sorted({name for _, _, name in vg.index.uses[f"pv{disk}"].exact})


def move(world: World, node: Node, **options: Any) -> dict[str, Any]:
    options.setdefault("source", world.images[0])
    answer: dict[str, Any] = node.run(PvMove(**options))
    return answer


# -- LVs that nobody has open ------------------------------------------------------------------


def test_what_nobody_has_open_is_copied(world: World, first: Node, stock: Stock) -> None:
    stock.attach(*world.images)
    one, two = fill(world, "vm1"), fill(world, "vm2", 2)
    answer = move(world, first)
    assert answer["message"].endswith("disk0.img: Moved: 100.00%")
    assert answer["moved_bytes"] == LV + 2 * EXTENT
    assert (on(world, 0), on(world, 1), on(world, 2)) == ([], ["vm1", "vm2"], ["vm2"])
    assert (contents(world, "vm1"), contents(world, "vm2")) == (one, two)
    assert world.locks_of(1) == []
    stock.run("vgck", "vg0")
    assert [row["lv_name"] for row in stock.report("lvs", "-o", "lv_name,seg_pe_ranges")] == ["vm1", "vm2"]
    assert first.progress[-1].done_bytes == first.progress[-1].size_bytes == LV + 2 * EXTENT


def test_nothing_is_copied_under_the_vgs_lock_or_without_the_lvs(world: World, first: Node) -> None:
    move(world, first, lv="vm1")
    held: list[tuple[str, Mode]] = []
    runs = []
    for order in first.trace:
        if isinstance(order, orders.Acquire):
            held.append((order.resource, order.mode))
        elif isinstance(order, orders.Release):
            held.pop()  # the last that was taken, here
        elif isinstance(order, orders.CopyBlocks):
            assert [mode for _, mode in held] == [Mode.EX, Mode.EX]
            assert "VGLK" not in [name for name, _ in held]
            runs.append(order.length_bytes // EXTENT)
    assert runs == [2, 1, 1]


def test_every_version_passes_stock_lvm2(world: World, first: Node, stock: Stock) -> None:
    """Also the ones in between, which a crash would leave."""
    stock.attach(*world.images)
    first.run(LvChange("vg0", "vm1", "ey"))
    seen = []

    def look(order: Any) -> None:
        if isinstance(order, orders.Publish):
            stock.run("vgck", "vg0")
            rows = stock.report("lvs", "-a", "-o", "lv_name,lv_attr,lv_size,lv_tags", "vg0")
            seen.append(" ".join(f"{row['lv_name']}:{int(row['lv_size']) // EXTENT}" for row in rows))
            (kept,) = [row for row in rows if row["lv_name"].endswith("_moving")] or [None]
            assert kept is None or kept["lv_attr"][9] == "k", "activation is skipped"

    first.fail = look
    move(world, first, lv="vm1")
    assert seen == [
        "vm1:4 vm1_moving:4 vm2:4",
        "vm1:4 vm1_moving:4 vm2:4",
        "vm1:4 vm1_moving:1 vm2:4",
        "vm1:4 vm2:4",
    ]


# -- LVs that are open here ----------------------------------------------------------------------


class Guest:
    """Writes a little before every order of a command, and knows what must be read."""

    def __init__(self, node: Node, lv: str, data: bytes) -> None:
        self._node, self._lv, self.data = node, lv, bytearray(data)
        self._rng = random.Random(7)

    def write(self) -> None:
        if ("vg0", self._lv) in self._node.open:
            at = self._rng.randrange(len(self.data) // 512) * 512
            some = self._rng.randbytes(512)
            self._node.write("vg0", self._lv, at, some)
            self.data[at : at + 512] = some


@pytest.mark.parametrize("lv", ["vm1", "vm2"])
def test_an_open_lv_moves_under_its_writer(world: World, first: Node, lv: str) -> None:
    guest = Guest(first, lv, fill(world, lv))
    first.run(LvChange("vg0", lv, "ey"))
    first.fail = lambda order: guest.write()
    move(world, first, lv=lv)
    assert first.read("vg0", lv) == bytes(guest.data)
    assert contents(world, lv) == bytes(guest.data)
    assert lv not in on(world, 0)
    assert first.mirrors == {}
    kinds = [type(one).__name__ for one in first.trace]
    assert "CopyBlocks" not in kinds
    assert kinds.count("SealPath") == kinds.count("ReloadPath") == kinds.count("MirrorPath")
    for at, kind in enumerate(kinds):
        if kind == "SealPath":
            assert kinds[at + 1] == "WriteVersion"
            assert kinds.index("ReloadPath", at) < kinds.index("Acquire", at)


def test_what_an_open_lv_had_is_free_only_after_its_reload(world: World, first: Node) -> None:
    first.run(LvChange("vg0", "vm1", "ey"))
    free = []

    def look(order: Any) -> None:
        if isinstance(order, orders.ReloadPath):
            free.append(vg_of(world).index.free_extents("pv0"))

    first.fail = look
    before = vg_of(world).index.free_extents("pv0")
    move(world, first, lv="vm1")
    assert free == [before, before + 3]
    assert vg_of(world).index.free_extents("pv0") == before + 4


@pytest.mark.parametrize(
    ("more", "stride"),
    [(1, 3), *(pytest.param(more, 1, marks=pytest.mark.long) for more in (1, 6))],
    ids=["behind its end", "behind its end, at all", "elsewhere, at all"],
)
def test_an_lv_that_grows_meanwhile_moves_and_has_grown(fast: World, more: int, stride: int) -> None:
    """Another host asks for it, at moments at which the VG's lock is free."""
    data = fill(fast, "vm1")
    fast.node(1).run(LvCreate("vg0", "between", extents=1, activate="n", pvs=(fast.images[0],)))
    saved = Saved(fast)
    for at in range(0, 1000, stride):
        world = saved.again()
        node = world.node(1)
        node.run(LvChange("vg0", "vm1", "ey"))
        guest = Guest(node, "vm1", data)
        grown, count = growing(world, node, guest, at, more)
        move(world, node, lv="vm1")
        assert node.read("vg0", "vm1")[:LV] == bytes(guest.data), f"order {at}"
        assert contents(world, "vm1")[:LV] == bytes(guest.data), f"order {at}"
        assert vg_of(world).by_name["vm1"].extent_count == 4 + more * len(grown)
        assert "vm1" not in on(world, 0) or grown
        if count[0] < at:
            break
    assert at > 60


def growing(world: World, node: Node, guest: Guest, at: int, more: int) -> tuple[list[Any], list[int]]:
    """The LV grows at the node's n-th order.  Returns what that answers, and the number of orders."""
    grown: list[Any] = []
    count = [-1]

    def look(order: Any) -> None:
        guest.write()
        count[0] += 1
        if count[0] == at and not any(name == "VGLK" for _, name, _ in world.locks_of(1)):
            grown.append(world.node(2).run(LvResize("vg0", "vm1", extents=more, sign="+", wipe=False)))

    node.fail = look
    return grown, count


# -- crashes --------------------------------------------------------------------------------------


def crashed(node: Node, guest: "Guest", at: int, call: PvMove) -> bool:
    """pvmove ends with its n-th order, whose answer nobody hears.  False: it came to its end before."""
    count = [-1]
    do = node._do

    def stop(order: Any) -> Any:
        guest.write()
        count[0] += 1
        if count[0] < at:
            return do(order)
        with contextlib.suppress(RingfenceError):
            do(order)
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "_do", stop)
        try:
            node.run(call)
        except Crash:
            return True
    return False


def junk(world: World) -> Node:
    """Another host takes all extents that are free, and fills them."""
    node = world.node(2)
    node.run(LvCreate("vg0", "junk", extents=100, percent="FREE", wipe=False))
    node.write("vg0", "junk", 0, JUNK * (len(node.read("vg0", "junk")) // len(JUNK)))
    return node


JUNK = b"somebody else's!"


@pytest.mark.parametrize(
    ("lv", "active", "what", "stride"),
    [
        ("vm1", True, "daemon", 2),
        ("vm2", False, "host", 3),
        *(
            pytest.param(lv, active, what, 1, marks=pytest.mark.long)
            for lv in ("vm1", "vm2")
            for active in (True, False)
            for what in ("daemon", "host")
        ),
    ],
)
def test_after_a_crash_at_any_order_nothing_is_lost_and_somebody_goes_on(
    fast: World, lv: str, active: bool, what: str, stride: int
) -> None:
    """A daemon that ends leaves its paths, and their guests write on; a host leaves nothing.  All that is
    free then is another's at once.

    stride: every so many orders; all of them in `make volumes-long`."""
    data = fill(fast, lv)
    saved = Saved(fast)
    for at in range(0, 1000, stride):
        world = saved.again()
        node = world.node(1)
        guest = Guest(node, lv, data)
        if active:
            node.run(LvChange("vg0", lv, "ey"))
        if not crashed(node, guest, at, PvMove(world.images[0], lv=lv)):
            break
        where = f"order {at}: {node.trace[-1]}"
        if what == "host":
            node.open.clear()
            node.mirrors.clear()
            world.purge(1)
        else:
            world.end_commands(1)
        other = junk(world)
        for _ in range(20):
            guest.write()
        filled = other.read("vg0", "junk")
        assert filled == JUNK * (len(filled) // len(JUNK)), where
        assert contents(world, lv) == bytes(guest.data), where
        goes_on = node if what == "daemon" else other
        goes_on.fail = lambda order, guest=guest: guest.write()
        goes_on.run(PvMove())
        assert f"{lv}_moving" not in vg_of(world).by_name, where
        if lv in on(world, 0):  # it had not begun
            other.run(LvChange("vg0", "junk", "n"))
            other.run(LvRemove("vg0", "junk", wipe=False))
            move(world, goes_on, lv=lv)
        assert lv not in on(world, 0), where
        assert contents(world, lv) == bytes(guest.data), where
        assert node.mirrors == {}, where
    assert at > (30 if not active else 50)


# -- who moves what ---------------------------------------------------------------------------------


def start(world: World, node: Node, **options: Any) -> None:
    """All is set apart, and nothing done yet."""
    move(world, node, background=True, **options)


def in_background(world: World, id: int) -> dict[str, Any]:
    """A host's turn."""
    if id not in world.members["lvm_vg0"]:
        world.members["lvm_vg0"].append(id)
    answer: dict[str, Any] = world.node(id).drive(move_all("vg0", world.published[-1].unclean))
    return answer


def test_what_is_open_is_left_to_the_host_that_has_it_open(world: World, first: Node) -> None:
    second = world.node(2)
    guest = Guest(second, "vm1", fill(world, "vm1"))
    second.run(LvChange("vg0", "vm1", "ey"))
    turns = []

    def other_works(order: Any) -> None:
        guest.write()
        if isinstance(order, orders.Pause) and not turns:
            turns.append(second.drive(move_all("vg0", world.published[-1].unclean)))

    first.fail = other_works
    answer = move(world, first)
    assert turns[0]["done"] == ["vm1"]
    assert answer["moved_bytes"] == LV + 2 * EXTENT
    assert on(world, 0) == []
    assert second.read("vg0", "vm1") == bytes(guest.data)


def test_who_waits_in_vain_is_told_whose_turn_it_is(world: World, first: Node) -> None:
    world.node(2).run(LvChange("vg0", "vm1", "ey"))
    with pytest.raises(
        Refused, match="1 of 2 LVs are not moved: LV vg0/vm1 is not moved yet by an-a01n02, which has it"
    ):
        move(world, first)
    assert on(world, 0) == ["vm1"]
    assert world.locks_of(1) == []


def test_background_work_goes_on_until_all_is_moved(world: World, first: Node) -> None:
    one, two = fill(world, "vm1"), fill(world, "vm2")
    start(world, first)
    assert len(world.published[-1].unclean) == 2
    assert on(world, 0) == ["vm1", "vm2"]
    answer = in_background(world, 2)
    assert (answer["done"], answer["left"], answer["trouble"]) == (["vm1", "vm2"], 0, "")
    assert (on(world, 0), contents(world, "vm1"), contents(world, "vm2")) == ([], one, two)
    assert world.published[-1].unclean == ()
    assert first.run(PvMove())["moved_bytes"] == 0


@pytest.mark.parametrize("active", ["sy", "dm"])
def test_what_is_in_use_otherwise_is_refused(world: World, first: Node, active: str) -> None:
    first.run(LvChange("vg0", "vm1", "sy" if active == "sy" else "ey", force=True))
    words = "active here in shared mode" if active == "sy" else "open through device-mapper"
    if active == "dm":
        first.plane = Plane.DM
    with pytest.raises(Refused, match=words):
        move(world, first, lv="vm1")
    assert on(world, 0) == ["vm1", "vm2"]
    assert "vm1" in in_background(world, 1)["trouble"] or active == "dm"
    first.run(LvChange("vg0", "vm1", "n"))
    first.run(PvMove())
    assert on(world, 0) == ["vm2"]


def test_who_is_wanted_gives_way_and_somebody_goes_on(world: World, first: Node) -> None:
    data = fill(world, "vm1")
    asked = []

    def want(order: Any) -> None:
        if isinstance(order, orders.Wanted):
            asked.append(order)
            first.wanted = len(asked) == 7

    first.fail = want
    with pytest.raises(Refused, match="LV vg0/vm1 is not moved yet"):
        move(world, first, lv="vm1")
    assert world.locks_of(1) == []
    assert on(world, 0) == ["vm1", "vm2"]
    world.node(2).run(PvMove())
    assert (on(world, 0), contents(world, "vm1")) == (["vm2"], data)


def test_a_path_that_is_closed_meanwhile_is_copied_from_there(world: World, first: Node) -> None:
    data = fill(world, "vm1")
    first.run(LvChange("vg0", "vm1", "ey"))
    seen = []

    def close(order: Any) -> None:
        seen.append(order)
        if sum(isinstance(one, orders.Pause) for one in seen) == 2 and isinstance(order, orders.Pause):
            close_beside(first)

    first.fail = close
    move(world, first, lv="vm1")
    kinds = [type(one).__name__ for one in seen]
    assert "CopyBlocks" in kinds
    assert (on(world, 0), contents(world, "vm1")) == (["vm2"], data)


def close_beside(node: Node) -> None:
    """lvchange -an, beside the command that runs."""
    (path,) = node.open.values()
    node._do_ClosePath(orders.ClosePath(path.vg, path.lv, path.uuid))
    held = node._do_FindLock(orders.FindLock("lvm_vg0", path.uuid))
    assert held is not None
    node._do_Release(orders.Release(held.lock))


# -- what goes wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["text", "precommit", "commit"])
def test_a_commit_that_fails_under_an_open_lv_loses_nothing(world: World, first: Node, step: str) -> None:
    """Whether it is committed, only the disks say: the path writes to both places until somebody looks."""
    guest = Guest(first, "vm1", fill(world, "vm1"))
    first.run(LvChange("vg0", "vm1", "ey"))
    start(world, first, lv="vm1")
    for fails_after in (False, True):

        def fail(
            moment: Moment, what: str, index: int, write: orders.Write, lands: bool = fails_after
        ) -> None:
            if (moment, what) == (Moment.AFTER if lands else Moment.BEFORE, step):
                raise NoAuthority("its authority has ended")

        first.fail = lambda order: guest.write()
        first.storage._crash_hook = fail
        with pytest.raises(NoAuthority):
            first.run(PvMove())
        assert (len(first.mirrors), next(iter(first.mirrors.values())).moving.sealed) == (1, True)
        other = junk(world)
        guest.write()
        assert contents(world, "vm1") == bytes(guest.data)
        assert set(other.read("vg0", "junk")) == set(JUNK)
        other.run(LvChange("vg0", "junk", "n"))
        other.run(LvRemove("vg0", "junk", wipe=False))
    first.storage._crash_hook = None
    first.run(PvMove())
    assert (on(world, 0), contents(world, "vm1")) == (["vm2"], bytes(guest.data))
    assert first.mirrors == {}


def test_a_copy_that_fails_leaves_the_lv_where_it_was(world: World, first: Node) -> None:
    guest = Guest(first, "vm1", fill(world, "vm1"))
    first.run(LvChange("vg0", "vm1", "ey"))

    def fail(order: Any) -> None:
        guest.write()
        for one in first.mirrors.values():
            one.fail("the new place failed: Input/output error")

    first.fail = fail
    with pytest.raises(Refused, match="was not moved further: the new place failed"):
        move(world, first, lv="vm1")
    assert first.mirrors == {}
    assert (first.read("vg0", "vm1"), "vm1" in on(world, 0)) == (bytes(guest.data), True)
    first.fail = None
    first.run(PvMove(abort=True))
    assert "vm1_moving" not in vg_of(world).by_name


def test_a_device_that_fails_ends_the_copy_of_what_nobody_has_open(world: World, first: Node) -> None:
    data = fill(world, "vm1")
    first.fail = lambda order: DeviceFailed("I/O error") if isinstance(order, orders.CopyBlocks) else None
    with pytest.raises(DeviceFailed, match="I/O error"):
        move(world, first, lv="vm1")
    assert (world.locks_of(1), contents(world, "vm1")) == ([], data)


# -- giving up -------------------------------------------------------------------------------------------


def test_what_is_given_up_stays_where_it_is_by_then(world: World, first: Node, stock: Stock) -> None:
    stock.attach(*world.images)
    guest = Guest(first, "vm1", fill(world, "vm1"))
    first.run(LvChange("vg0", "vm1", "ey"))
    assert crashed(first, guest, 48, PvMove(world.images[0], lv="vm1"))
    world.end_commands(1)
    assert first.mirrors != {}
    answer = first.run(PvMove(abort=True))
    assert answer["message"] == "Given up: vg0/vm1"
    assert first.mirrors == {}
    assert first.read("vg0", "vm1") == contents(world, "vm1") == bytes(guest.data)
    assert "vm1_moving" not in vg_of(world).by_name
    stock.run("vgck", "vg0")
    assert first.run(PvMove(abort=True))["message"] == "Nothing is on its way."


def test_nothing_is_given_up_under_a_path_of_another_host(world: World, first: Node) -> None:
    start(world, first, lv="vm1")
    first.run(LvChange("vg0", "vm1", "ey"))
    with pytest.raises(LockHeld, match="an-a01n01"):
        world.node(2).run(PvMove(abort=True))
    assert world.locks_of(2) == []
    assert "vm1_moving" in vg_of(world).by_name
    first.run(PvMove(world.images[0], abort=True))
    assert "vm1_moving" not in vg_of(world).by_name


# -- what others may do meanwhile --------------------------------------------------------------------------


def test_what_keeps_extents_is_nobodys_to_use(world: World, first: Node) -> None:
    start(world, first, lv="vm1")
    for call in (
        LvRemove("vg0", "vm1_moving"),
        LvRemove("vg0", "vm1_moving", wipe=False),
        LvChange("vg0", "vm1_moving", "ey"),
        LvResize("vg0", "vm1_moving", extents=1, sign="+"),
        LvRename("vg0", "vm1_moving", "mine"),
        LvChange("vg0", "vm1_moving", add_tags=("mine",)),
    ):
        with pytest.raises(Refused, match=r"keeps extents for vg0/vm1, which is being moved.*pvmove --abort"):
            first.run(call)
    assert world.locks_of(1) == []
    assert [row["lv_name"] for row in first.run(Lvs("vg0"))["rows"]] == ["vm1", "vm2"]
    rows = {row["lv_name"]: row for row in first.run(Lvs("vg0", all=True))["rows"]}
    assert rows["vm1_moving"]["move_pv"] == world.images[0]


def test_what_was_removed_or_shrank_meanwhile_is_not_moved(world: World, first: Node) -> None:
    two = fill(world, "vm2")
    start(world, first)
    first.run(LvRemove("vg0", "vm1", wipe=False))
    first.run(LvResize("vg0", "vm2", extents=2, force=True))
    first.run(PvMove())
    assert on(world, 0) == []
    assert [row["lv_name"] for row in first.run(Lvs("vg0", all=True))["rows"]] == ["vm2"]
    assert contents(world, "vm2") == two[: 2 * EXTENT]


def test_an_lv_has_another_name_by_the_time_it_arrives(world: World, first: Node) -> None:
    guest = Guest(first, "vm1", fill(world, "vm1"))
    first.run(LvChange("vg0", "vm1", "ey"))
    renamed = []

    def rename(order: Any) -> None:
        if isinstance(order, orders.Pause) and not renamed:
            renamed.append(world.node(2).run(LvRename("vg0", "vm1", "new")))

    first.fail = rename
    move(world, first, lv="vm1")
    assert [path.lv for path in first.open.values()] == ["new"]
    assert (first.read("vg0", "new"), on(world, 0)) == (bytes(guest.data), ["vm2"])


def test_a_vg_goes_with_what_is_on_its_way(world: World, first: Node) -> None:
    start(world, first)
    first.run(VgRemove("vg0", force=True))
    assert first.run(PvMove())["moved_bytes"] == 0


def test_an_emptied_pv_leaves_the_vg(world: World, first: Node) -> None:
    with pytest.raises(Refused):
        first.run(VgReduce("vg0", (world.images[0],)))
    move(world, first)
    first.run(VgReduce("vg0", (world.images[0],)))


# -- bad words --------------------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_refused_before_anything_is_written(world: World, first: Node) -> None:
    before = [Path(image).read_bytes() for image in world.images]
    source = world.images[0]
    for call, kind, words in (
        (PvMove(lv="vm1"), BadInput, "no source PV"),
        (PvMove(source, abort=True, lv="vm1"), BadInput, "--abort takes the source PV alone"),
        (PvMove("/nowhere"), RingfenceError, "/nowhere"),
        (PvMove(f"{source}:99"), BadInput, "has no extents 99"),
        (PvMove(source, alloc="best"), BadInput, "not known"),
        (PvMove(source, (source,)), Refused, "insufficient free space"),
        (PvMove(source, lv="vm9"), RingfenceError, "vm9"),
        (PvMove(world.images[2]), None, "No data to move for vg0."),
    ):  # fmt: skip
        if kind is None:
            assert first.run(call)["message"] == words
            continue
        with pytest.raises(kind, match=words):
            first.run(call)
        assert world.locks_of(1) == []
    assert [Path(image).read_bytes() for image in world.images] == before


# -- again: giving up, and a host that was frozen ---------------------------------------------------


def test_after_a_crash_at_any_order_of_giving_up_it_is_given_up_again(fast: World) -> None:
    data = fill(fast, "vm1")
    start(fast, fast.node(1), lv="vm1")
    saved = Saved(fast)
    for at in range(100):
        world = saved.again()
        node = world.node(1)
        node.run(LvChange("vg0", "vm1", "ey"))
        guest = Guest(node, "vm1", data)
        assert crashed(node, guest, 45, PvMove(world.images[0], lv="vm1"))
        world.end_commands(1)
        assert node.mirrors
        if not crashed(node, guest, at, PvMove(abort=True)):
            break
        world.end_commands(1)
        other = junk(world)
        guest.write()
        assert set(other.read("vg0", "junk")) == set(JUNK), f"order {at}"
        node.run(PvMove(abort=True))
        assert (node.mirrors, node.read("vg0", "vm1")) == ({}, bytes(guest.data)), f"order {at}"
        assert contents(world, "vm1") == bytes(guest.data), f"order {at}"
        assert "vm1_moving" not in vg_of(world).by_name
    assert at > 10


@pytest.mark.parametrize("active", [True, False], ids=["open", "closed"])
def test_whose_locks_are_lost_does_nothing_more(fast: World, active: bool) -> None:
    """It was frozen, and thaws: what it had under way ends, and no disk or path hears of it again."""
    saved = Saved(fast)
    for at in range(0, 1000, 3):
        world = saved.again()
        node = world.node(1)
        if active:
            node.run(LvChange("vg0", "vm1", "ey"))
        count = [-1]

        def fail(order: Any, count: list[int] = count, at: int = at) -> RingfenceError | None:
            count[0] += 1
            return LocksLost("this node was frozen") if count[0] == at else None

        node.fail = fail
        try:
            move(world, node, lv="vm1")
        except LocksLost:
            assert count[0] == at, node.trace[at:]
        else:
            break
    assert at > 30
