"""A change on one host, and what other hosts have open of that VG."""

from pathlib import Path

import msgspec
import pytest
from engine_ring import World

from ringfence.core.errors import DeviceFailed, LockHeld, Refused
from ringfence.core.modes import Mode
from ringfence.engine import inputs, orders, reloads
from ringfence.engine.orders import LvmRan
from ringfence.wire import client as calls

MIB = 1 << 20


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two hosts, VG vg0; an-a01n01 has vm1 open, of 4 extents of 4 MiB."""
    world = World(tmp_path, 2)
    world.pass_ms(1000)
    world.hosts[1].do(calls.PvCreate((str(world.image),)))
    world.hosts[1].do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(1000)
    world.hosts[1].do(calls.LvCreate("vg0", "vm1", extents=4))
    world.pass_ms(500)
    return world


def opened(world: World, id: int = 1) -> list[tuple[str, int, bool]]:
    """(name, extents, read-only) of what a host has open."""
    return [
        (path.lv, sum(extent.length_bytes for extent in path.extents) // (4 * MIB), path.readonly)
        for path in world.hosts[id].paths.values()
    ]


def test_growth_on_one_host_is_seen_by_the_path_on_another_at_once(world: World) -> None:
    world.hosts[2].do(calls.LvResize("vg0", "vm1", extents=3, sign="+"))
    world.run()
    assert opened(world) == [("vm1", 7, False)], "in the same moment: no tick has passed"
    (reload,) = world.hosts[1].reloads
    scans = world.hosts[1].scans
    world.hosts[2].do(calls.LvCreate("vg0", "other", extents=1, activate="n"))
    world.pass_ms(300)  # later it looks for disk slots
    assert world.hosts[1].reloads == [reload], "other changes of the VG are no reason"
    assert world.hosts[1].scans == scans, "and nothing is read for them"


def test_a_path_is_renamed_with_its_lv_and_closed_under_its_new_name(world: World) -> None:
    world.hosts[2].do(calls.LvRename("vg0", "vm1", "vm2"))
    world.run()
    assert opened(world) == [("vm2", 4, False)]
    assert world.hosts[1].do(calls.Status())["exports"][0]["lv"] == "vm2"
    world.hosts[2].do(calls.LvCreate("vg0", "vm1", extents=1))
    for name, holder in (("vm1", "an-a01n02"), ("vm2", "an-a01n01")):
        said = world.hosts[1].do(calls.Why(f"vg0/{name}"))["lines"][0]
        assert said.startswith(f"vg0/{name} is held EX by {holder} "), "the old name is another LV's by now"
    world.hosts[1].do(calls.LvChange("vg0", "vm2", "n"))
    assert opened(world) == []
    world.hosts[2].do(calls.LvChange("vg0", "vm2", "ey"))
    assert sorted(opened(world, 2)) == [("vm1", 1, False), ("vm2", 4, False)]


def test_what_takes_something_away_needs_the_lock(world: World) -> None:
    with pytest.raises(LockHeld, match="held EX by an-a01n01"):
        world.hosts[2].do(calls.LvResize("vg0", "vm1", extents=2, force=True))
    with pytest.raises(LockHeld, match="held EX by an-a01n01"):
        world.hosts[2].do(calls.LvChange("vg0", "vm1", permission="r"))
    with pytest.raises(Refused, match="would lose what is at its end"):
        world.hosts[1].do(calls.LvResize("vg0", "vm1", extents=2))
    assert world.hosts[1].reloads == []
    world.hosts[1].do(calls.LvResize("vg0", "vm1", extents=2, force=True))
    world.hosts[1].do(calls.LvChange("vg0", "vm1", permission="r"))
    assert opened(world) == [("vm1", 2, True)]
    world.hosts[2].do(calls.LvChange("vg0", "vm1", permission="rw"))
    world.run()
    assert opened(world) == [("vm1", 2, False)]


def test_a_path_that_cannot_be_reloaded_is_shown_and_tried_again(world: World) -> None:
    world.hosts[1].reload_fails = DeviceFailed("the disk hangs")
    world.hosts[2].do(calls.LvResize("vg0", "vm1", extents=1, sign="+"))
    world.run()
    (row,) = [row for row in world.hosts[1].do(calls.Lvs("vg0"))["rows"] if row["lv_name"] == "vm1"]
    assert row["lv_attr"][4] == "X"
    lines = world.hosts[1].do(calls.Why("vg0/vm1"))["lines"]
    assert any("as it was before its last change: the disk hangs" in line for line in lines), lines
    world.hosts[1].reload_fails = None
    world.pass_ms(reloads.AGAIN_MS + 500)
    assert opened(world) == [("vm1", 5, False)]
    (row,) = [row for row in world.hosts[1].do(calls.Lvs("vg0"))["rows"] if row["lv_name"] == "vm1"]
    assert row["lv_attr"][4] == "a"


def test_a_reduction_whose_commit_fails_is_undone_by_the_next_look(world: World) -> None:
    world.hosts[1].write_fails = "commit"
    with pytest.raises(DeviceFailed):
        world.hosts[1].do(calls.LvResize("vg0", "vm1", extents=2, force=True))
    world.pass_ms(2 * reloads.AGAIN_MS)
    sizes = [reload.extents[0].length_bytes // (4 * MIB) for reload in world.hosts[1].reloads]
    assert sizes == [2, 4], "less before the commit; and as the metadata says after it"


def test_a_change_that_was_missed_is_seen_when_the_node_is_back(world: World) -> None:
    """It did not hear the last words of a view, and took the other's state in the next."""
    world.hosts[2].do(calls.LvCreate("vg0", "other", extents=1, activate="n"))  # it keeps the VG's lock
    world.stuck = (1,)
    world.hosts[2].ask(calls.LvResize("vg0", "vm1", extents=3, sign="+"))
    assert opened(world) == [("vm1", 4, False)]
    world.waiting, world.unsent, world.stuck = [], [], ()
    world.view(1, 2)
    world.run()
    world.pass_ms(1000)
    assert opened(world) == [("vm1", 7, False)]


def by_stock(world: World, id: int, lv: str) -> None:
    """Stock LVM2 has the LV active there, exclusively."""
    (row,) = [row for row in world.hosts[id].do(calls.Lvs("vg0"))["rows"] if row["lv_name"] == lv]
    engine, box = world.hosts[id].node._running, []
    engine.locker.acquire("lvm_vg0", row["lv_uuid"], Mode.EX, 0, box.append, persistent=True, what=lv)
    world.pass_ms(100)
    use = engine.locker.use(box[0].lock)
    use.by_lvm2, use.held = True, msgspec.structs.replace(use.held, by_lvm2=True)


def test_stock_lvm2_reloads_what_it_has_active_when_another_host_or_this_one_grows_it(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    one.do(calls.LvChange("vg0", "vm1", "n"))
    by_stock(world, 1, "vm1")
    asked = two.ask(calls.LvResize("vg0", "vm1", extents=1, sign="+"))
    world.pass_ms(500)
    assert two.reply(asked)["notes"] == []
    assert [run.lvs for run in one.refreshes] == [("vm1",)]
    asked = one.ask(calls.LvResize("vg0", "vm1", extents=1, sign="+"))
    world.pass_ms(500)
    assert one.reply(asked)["notes"] == []
    assert [run.lvs for run in one.refreshes] == [("vm1",), ("vm1",)]
    one.lvm_ran = LvmRan(5, "  device busy", 4)
    asked = two.ask(calls.LvRename("vg0", "vm1", "vm2"))
    world.pass_ms(500)
    (note,) = two.reply(asked)["notes"]
    assert "was not reloaded by an-a01n01" in note


def test_the_next_daemon_looks_at_what_the_one_before_did_not_reload(world: World) -> None:
    one = world.hosts[1]
    one.reload_fails = DeviceFailed("the daemon is killed by then")
    world.hosts[2].do(calls.LvResize("vg0", "vm1", extents=3, sign="+"))
    world.run()
    one.kill()
    world.view(2, how="procdown")
    world.run()
    one.reload_fails = None
    one.start(one.left_open())
    world.view(1, 2)
    world.run()
    world.pass_ms(500)
    assert opened(world) == [("vm1", 7, False)]


def test_what_is_closed_while_it_is_reloaded_is_not_missed(world: World) -> None:
    one = world.hosts[1]
    one.hanging = True
    world.hosts[2].do(calls.LvCreate("vg0", "other", extents=1, activate="n"))
    world.hosts[2].ask(calls.LvResize("vg0", "vm1", extents=1, sign="+"))
    world.run()
    (order,) = one.hung
    one.do(calls.LvChange("vg0", "vm1", "n"))
    one.feed(inputs.OrderDone(order.order, answer=orders.Opened("/dev/vg0/vm1", "nbd+unix:///vm1")))
    world.pass_ms(500)
    (row,) = [row for row in one.do(calls.Lvs("vg0"))["rows"] if row["lv_name"] == "vm1"]
    assert row["lv_attr"][4] == "-"
