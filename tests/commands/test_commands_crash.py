"""A crash at every write of every command: stock LVM2 and our own reader see the old version or the
new one, and the next host goes on from there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_world import MIB, Crash, Node, World
from stock_lvm import Stock

from ringfence.core.errors import DeviceFailed, LockHeld, NoAuthority, RingfenceError, Unavailable
from ringfence.core.modes import Mode
from ringfence.engine.commands.reload import reload_changed
from ringfence.engine.orders import OpenPath, Write, WriteVersion
from ringfence.storage import Moment
from ringfence.storage.direct import DirectFile
from ringfence.wire.block import Extent
from ringfence.wire.client import (
    LvChange,
    LvCreate,
    LvRemove,
    LvRename,
    LvResize,
    Lvs,
    PvCreate,
    Pvs,
    VgCreate,
    VgRemove,
    Vgs,
)

SIZES = (8 * MIB, 8 * MIB)


def blank(directory: Path, disks: int = 2) -> World:
    """A world whose images are empty again, under the loop devices that they have."""
    for image in directory.glob("*.img"):
        with image.open("r+b") as file:
            size = image.stat().st_size
            file.truncate(0)
            file.truncate(size)
    return World(directory, SIZES[:disks])


def with_vg(world: World) -> Node:
    node = world.node()
    node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    node.run(LvCreate("vg0", "first", extents=2, activate="n"))
    return node


def with_open_lv(world: World) -> Node:
    node = with_vg(world)
    node.run(LvChange("vg0", "first", "ey"))
    return node


def one_pv(world: World) -> Node:
    node = world.node()
    node.run(PvCreate((world.images[0],)))
    return node


def nothing(world: World) -> Node:
    return world.node()


def make_vg(world: World) -> VgCreate:
    return VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB)


COMMANDS: dict[str, tuple[Callable[[World], Node], Callable[[World], Any]]] = {
    "pvcreate": (nothing, lambda world: PvCreate((world.images[0],))),
    "vgcreate": (one_pv, make_vg),
    "lvcreate": (with_vg, lambda world: LvCreate("vg0", "vm1", extents=9)),
    "lvremove": (with_vg, lambda world: LvRemove("vg0", "first")),
    "vgremove": (with_vg, lambda world: VgRemove("vg0", force=True)),
    "lvextend": (with_open_lv, lambda world: LvResize("vg0", "first", extents=5, sign="+")),
    "lvreduce": (with_open_lv, lambda world: LvResize("vg0", "first", extents=1, force=True)),
}


class CrashAt:
    """Stops the world at one write; `torn` lets the first sectors of it reach the disk."""

    def __init__(self, at: int, moment: Moment, torn: bool = False) -> None:
        self.at, self.moment, self.torn = at, moment, torn
        self.count = -1
        self.writes: list[tuple[str, Write]] = []

    def __call__(self, moment: Moment, what: str, index: int, write: Write) -> None:
        if moment is Moment.BEFORE:
            self.count += 1
            self.writes.append((what, write))
        if (self.count, moment) != (self.at, self.moment):
            return
        if self.torn:
            part = write.data[: len(write.data) // 2 // 512 * 512]
            with open(write.path, "r+b") as file:
                file.seek(write.offset_bytes)
                file.write(part)
        raise Crash


def stock_view(stock: Stock) -> Any:
    fields = "vg_name,vg_uuid,vg_seqno,pv_count,lv_count,vg_free,lv_name,lv_uuid,lv_size,seg_pe_ranges"
    return sorted(map(str, stock.report("vgs", "-o", fields, quiet=False)))


def own_view(world: World) -> Any:
    node = world.node(2)
    keep = ("vg_name", "vg_uuid", "vg_seqno", "lv_name", "lv_uuid", "lv_size", "vg_free", "seg_pe_ranges")
    rows = [*node.run(Vgs())["rows"], *node.run(Lvs())["rows"]]
    return [{key: row[key] for key in keep if key in row} for row in rows]


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
    assert counter.count >= 1
    assert (before == after) == (name == "pvcreate"), "a PV alone is in neither view"

    seen = []
    points = []
    for at, (_, write) in enumerate(counter.writes):
        points.append((at, Moment.BEFORE, False))
        if len(write.data) >= 1024:  # a disk writes a sector whole or not at all
            points.append((at, Moment.BEFORE, True))
        points.append((at, Moment.AFTER, False))
    for at, moment, torn in points:
        world = blank(directory)
        node = setup(world)
        crash = CrashAt(at, moment, torn)
        node.storage._crash_hook = crash
        with pytest.raises(Crash):
            node.run(call(world))
        world.purge(1)
        where = f"{name}: write {at} ({crash.writes[-1][0]}), {moment.value}, torn={torn}"
        now = stock_view(stock), own_view(world)
        assert now in (before, after), where
        seen.append(now == after)
        go_on(world, stock, where)
    # The commit is one moment: once it is there, it stays there.
    assert seen == sorted(seen)


CHANGES = {
    "lvreduce": LvResize("vg0", "first", extents=1, force=True),
    "lvrename": LvRename("vg0", "first", "second"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_daemon_that_ends_at_any_order_leaves_no_path_with_more_than_is_its_lvs(
    world: World, name: str
) -> None:
    """Its paths go on without it.  The next daemon's first look makes them what the metadata say."""
    for at in range(100):
        world = blank(world.directory)
        node = with_open_lv(world)
        count = [-1]

        def fail(order: Any, count: list[int] = count, at: int = at) -> None:
            count[0] += 1
            if count[0] == at:
                raise Crash

        node.fail = fail
        try:
            node.run(CHANGES[name])
        except Crash:
            node.fail = None
            world.end_commands(1)
            where = f"{name}, order {at}: {node.trace[-1]}"
            (path,) = node.open.values()
            assert pieces(path.extents) <= pieces(said(node).extents), where
            assert path.readonly or not said(node).readonly, where
            assert node.drive(reload_changed("vg0")) == {}, where
            (path,) = node.open.values()
            now = said(node)
            assert (path.lv, path.extents, path.readonly) == (now.lv, now.extents, now.readonly), where
        else:
            break
    assert at > 8


def said(node: Node) -> OpenPath:
    """The path as it would be opened by the metadata."""
    other = node.world.node(1)
    (lock,) = [key for key, one in node.world.resources.items() if key[1] != "VGLK" and 1 in one.held]
    name = next(row["lv_name"] for row in other.run(Lvs("vg0"))["rows"] if row["lv_uuid"] == lock[1])
    other.run(LvChange("vg0", name, "ey"))
    return other.open["vg0", name]


def pieces(extents: tuple[Extent, ...]) -> set[tuple[str, int]]:
    return {
        (one.path, one.start_bytes + at) for one in extents for at in range(0, one.length_bytes, MIB)
    }


def go_on(world: World, stock: Stock, where: str) -> None:
    """Another host does the next thing; afterwards nothing is left of the crash."""
    node = world.node(2)
    if not node.run(Vgs())["rows"]:
        node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    node.run(LvCreate("vg0", "next", extents=1))
    code, _, noise = stock.try_run("vgck", "vg0")
    assert (code, noise) == (0, []), where
    assert [row["vg_name"] for row in stock.report("pvs")] == ["vg0", "vg0"], where
    with open(world.images[0], "rb") as one, open(world.images[1], "rb") as other:
        slots = {(file.seek(4096), file.read(512))[1][56:] for file in (one, other)}
    assert len(slots) == 1, f"{where}: the areas differ"
    assert all(row["pv_in_use"] == "used" for row in node.run(Pvs())["rows"]), where


@pytest.mark.parametrize("name", ["lvcreate", "lvremove"])
@pytest.mark.parametrize("disks", [1, 2])
def test_a_write_that_lands_late_spoils_nothing(directory: Path, stock: Stock, name: str, disks: int) -> None:
    """A host freezes before a write, is fenced, and the write lands after another host's change.

    The other host's version stays whole; only where a VG has one area alone can the late write
    take its place, by an older version that is whole as well."""
    # Its text is longer than the other host's: two segments, where there are two disks.
    create = LvCreate("vg0", "vm1", extents=4 * disks)
    call = create if name == "lvcreate" else LvRemove("vg0", "first")
    counter = CrashAt(-1, Moment.AFTER)
    for at in range(100):
        world = blank(directory, disks)
        stock.attach(*world.images)
        node = world.node()
        node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
        node.run(LvCreate("vg0", "first", extents=2, activate="n"))
        counter = CrashAt(at, Moment.BEFORE)
        node.storage._crash_hook = counter
        try:
            node.run(call)
            break
        except Crash:
            pass
        world.purge(1)
        other = world.node(2)
        other.run(LvCreate("vg0", "other", extents=1, activate="n"))
        mine = own_view(world)
        what, late = counter.writes[-1]
        with open(late.path, "r+b") as file:
            file.seek(late.offset_bytes)
            file.write(late.data)
        (vg,) = stock.report("vgs", "-o", "vg_name,vg_seqno", quiet=False)
        rows = own_view(world)
        assert vg["vg_seqno"] == str(rows[0]["vg_seqno"]), f"write {at} ({what})"
        if disks == 2 or what in ("text", "zero"):
            assert rows == mine, f"write {at} ({what})"
        assert world.node(3).run(Vgs()).get("notes", [])[1:] == [], f"write {at} ({what})"
    assert at >= 3 * disks


@pytest.mark.parametrize("name", ["vgcreate", "lvcreate", "lvremove", "vgremove"])
def test_without_authority_nothing_further_is_written(directory: Path, name: str) -> None:
    """The guard says no at each of its calls in turn: old or new, and no write after the no."""
    setup, call = COMMANDS[name]
    for refuse_at in range(100):
        world = blank(directory)
        setup(world)
        before = own_view(world)
        calls = [0]
        written_after = []

        def guard(vg: str, calls: list[int] = calls, refuse_at: int = refuse_at) -> None:
            calls[0] += 1
            if calls[0] > refuse_at:
                raise NoAuthority("authority has lapsed")

        def watch(
            moment: Moment, what: str, index: int, write: Write, calls: list[int] = calls,
            refuse_at: int = refuse_at, seen: list[str] = written_after,
        ) -> None:  # fmt: skip
            if calls[0] > refuse_at:
                seen.append(what)

        node = world.node(1, guard=guard, crash_hook=watch)
        try:
            node.run(call(world))
        except NoAuthority:
            assert written_after == []
        else:
            break
        assert world.locks_of(1) == [], "what was locked is let go"
        assert node.open == {}
        rows = own_view(world)
        if rows != before:
            # The guard asks again behind the commit: it was written all the same.
            assert [row["vg_seqno"] for row in rows if "vg_seqno" in row] != [
                row["vg_seqno"] for row in before if "vg_seqno" in row
            ]
    assert refuse_at > 4


def test_every_failing_order_is_undone(directory: Path) -> None:
    """Whatever order fails, the command leaves no lock, no open path, and the old version or the new."""
    calls = {
        "lvcreate": LvCreate("vg0", "vm1", extents=3),
        "lvchange": LvChange("vg0", "first", "ey"),
        "lvremove": LvRemove("vg0", "first"),
        "lvextend": LvResize("vg0", "first", extents=5, sign="+"),
        "lvreduce": LvResize("vg0", "first", extents=1, force=True),
        "lvrename": LvRename("vg0", "first", "second"),
    }
    for name, call in calls.items():
        for fail_at in range(100):
            world = blank(directory)
            with_vg(world)
            before = own_view(world)
            count = [-1]

            def fail(order: Any, count: list[int] = count, fail_at: int = fail_at) -> RingfenceError | None:
                count[0] += 1
                return LockHeld("made to fail") if count[0] == fail_at else None

            node = world.node(1, fail=fail)
            try:
                node.run(call)
            except RingfenceError:
                where = f"{name}, order {fail_at}: {node.trace}"
                held = world.locks_of(1)
                assert held == [], where
                assert node.open == {}, where
                committed = any(isinstance(one, WriteVersion) for one in node.trace)
                if not committed:
                    assert own_view(world) == before, where
            else:
                break
        assert fail_at > 8, name


def test_a_new_lv_that_cannot_be_opened_is_removed_again(world: World) -> None:
    with_vg(world)

    def fail(order: Any) -> RingfenceError | None:
        return LockHeld("no worker to be had") if type(order).__name__ == "OpenPath" else None

    node = world.node(1, fail=fail)
    with pytest.raises(LockHeld, match="no worker to be had"):
        node.run(LvCreate("vg0", "vm1", extents=1))
    assert [row["lv_name"] for row in world.node(2).run(Lvs("vg0"))["rows"]] == ["first"]
    assert world.locks_of(1) == []


@pytest.mark.parametrize("call", [LvCreate("vg0", "vm1", extents=1), LvChange("vg0", "first", "ey")])
def test_what_is_not_known_to_be_closed_keeps_its_lock(world: World, call: LvCreate | LvChange) -> None:
    """The service stood still: the path may open yet, so nobody else may have the LV, nor its extents."""
    with_vg(world)

    def fail(order: Any) -> RingfenceError | None:
        still = type(order).__name__ in ("OpenPath", "ClosePath")
        return Unavailable("the block service has not answered") if still else None

    with pytest.raises(Unavailable, match="has not answered"):
        world.node(1, fail=fail).run(call)
    name = call.lv
    assert name in [row["lv_name"] for row in world.node(2).run(Lvs("vg0"))["rows"]]
    assert [mode for _, _, mode in world.locks_of(1)] == [Mode.EX]
    with pytest.raises(LockHeld):
        world.node(2).run(LvChange("vg0", name, "ey", wait_ms=0))


def test_an_lv_whose_path_does_not_close_is_neither_removed_nor_let_go(world: World) -> None:
    with_vg(world)
    world.node(1).run(LvChange("vg0", "first", "ey"))

    def fail(order: Any) -> RingfenceError | None:
        return Unavailable("has not answered") if type(order).__name__ == "ClosePath" else None

    with pytest.raises(Unavailable, match="has not answered"):
        world.node(1, fail=fail).run(LvRemove("vg0", "first", force=True))
    assert [row["lv_name"] for row in world.node(2).run(Lvs("vg0"))["rows"]] == ["first"]
    assert [mode for _, _, mode in world.locks_of(1)] == [Mode.EX]


def test_a_report_is_given_when_the_block_service_is_not_there(world: World) -> None:
    with_vg(world)

    def fail(order: Any) -> RingfenceError | None:
        return Unavailable("no block service answers") if type(order).__name__ == "OpenPaths" else None

    answer = world.node(1, fail=fail).run(Lvs("vg0"))
    assert [row["lv_name"] for row in answer["rows"]] == ["first"]
    assert answer["notes"] == ["What is open on this host is not known: no block service answers"]


def test_a_vg_that_is_half_removed_does_not_come_back_older(directory: Path) -> None:
    """One area lags behind by a change whose writer was stopped between two commits."""
    world = blank(directory)
    with_vg(world)
    crash = CrashAt(-1, Moment.AFTER)
    world.node(1, crash_hook=crash).run(LvRemove("vg0", "first"))
    commits = [at for at, (what, _) in enumerate(crash.writes) if what == "commit"]
    for at in range(100):
        world = blank(directory)
        with_vg(world)
        with pytest.raises(Crash):
            world.node(1, crash_hook=CrashAt(commits[0], Moment.AFTER)).run(LvRemove("vg0", "first"))
        world.purge(1)
        try:
            world.node(2, crash_hook=CrashAt(at, Moment.AFTER)).run(VgRemove("vg0"))
            break
        except Crash:
            world.purge(2)
        rows = world.node(3).run(Vgs())["rows"]
        assert [row["vg_seqno"] for row in rows] in ([], [3]), f"after write {at}"
    assert at >= 2


def test_a_pv_that_is_made_anew_is_whole_or_none(directory: Path) -> None:
    """Its area was smaller before, or elsewhere."""
    old = PvCreate((str(directory / "disk0.img"),), metadata_size_bytes=3 * MIB)
    for at in range(100):
        world = blank(directory)
        world.node().run(old)
        try:
            world.node(1, crash_hook=CrashAt(at, Moment.AFTER)).run(PvCreate(old.devices))
            break
        except Crash:
            world.purge(1)
        assert "notes" not in world.node(2).run(Pvs()), f"after write {at}"
        world.node(2).run(PvCreate(old.devices))
    assert at >= 2


@pytest.mark.parametrize("part", ["header", "text"])
@pytest.mark.parametrize("name", ["lvcreate", "lvremove", "vgremove"])
def test_over_an_area_that_could_not_be_read_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, part: str
) -> None:
    """To take it for empty would be to write over the committed text; and it may hold a later one."""
    world = World(tmp_path, SIZES)
    make, command = COMMANDS[name]
    node = make(world)
    before = [Path(image).read_bytes() for image in world.images]
    real = DirectFile.read

    def without_one(file: DirectFile, offset: int, length: int) -> bytes:
        if file.path == world.images[1] and offset >= 4096 and (offset == 4096) == (part == "header"):
            raise DeviceFailed("no such sector")
        return real(file, offset, length)

    monkeypatch.setattr(DirectFile, "read", without_one)
    with pytest.raises(DeviceFailed, match="cannot be read"):
        node.run(command(world))
    assert [Path(image).read_bytes() for image in world.images] == before
    monkeypatch.undo()
    node.run(command(world))
