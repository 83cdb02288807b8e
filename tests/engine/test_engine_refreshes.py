"""LVs that stock LVM2 has active on several hosts: whose change makes whom reload what."""

from pathlib import Path
from typing import Any

import pytest
from engine_ring import Host, World

from ringfence.core.errors import LocksLost, Refused, RingfenceError
from ringfence.core.evidence import Power
from ringfence.core.modes import Mode
from ringfence.engine import inputs, orders, refreshes
from ringfence.engine.commands import command_for, refresh
from ringfence.engine.commands.commit import begin, commit, prepare
from ringfence.engine.commands.locking import lock_vg
from ringfence.engine.orders import LvmRan
from ringfence.volumes.plan import find_lv
from ringfence.wire import Speaks
from ringfence.wire import client as calls


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three hosts, VG vg0 with the LVs one and two."""
    world = World(tmp_path, 3)
    return with_vg(world)


def with_vg(world: World) -> World:
    world.pass_ms(1000)
    world.hosts[1].do(calls.PvCreate((str(world.image),)))
    world.hosts[1].do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(1000)
    for name in ("one", "two"):
        world.hosts[1].do(calls.LvCreate("vg0", name, extents=1, activate="n"))
    world.pass_ms(1000)
    return world


def uuid_of(host: Host, lv: str) -> str:
    (found,) = [one for one in host.do(calls.Lvs("vg0"))["rows"] if one["lv_name"] == lv]
    uuid: str = found["lv_uuid"]
    return uuid


def active(world: World, id: int, lv: str, mode: Mode = Mode.PR, wait_ms: int = 3000) -> None:
    """Stock LVM2 activates an LV there, and so much time passes."""
    host, uuid = world.hosts[id], uuid_of(world.hosts[1], lv)
    engine, box = host.node._running, []
    engine.locker.acquire("lvm_vg0", uuid, mode, 0, box.append, persistent=True, what=f"LV vg0/{lv}")
    world.pass_ms(100)
    (held,) = box
    assert held.mode is mode
    engine.locker.use(held.lock).by_lvm2 = True
    if mode is Mode.PR:
        engine.refreshes.activated("vg0", uuid)
    world.pass_ms(wait_ms)


def change(world: World, id: int, lv: str, unheard_by: tuple[int, ...] = ()) -> None:
    """One extent of the PV more for it, as a stock command would give it under a shared lock."""
    done: list[Any] = []

    def command() -> orders.Command:
        locked = yield from lock_vg("vg0", Mode.EX)
        began = yield from begin(locked)
        world.stuck = unheard_by
        name, segment = find_lv(began.vg, lv).name, "segment1"
        lvs = began.vg.body.section("logical_volumes")
        old = lvs.section(name)
        part = old.section(segment)
        more = part.number("extent_count") + 1
        start = max(extent for each in began.vg.lvs for one in each.segments for extent in ends(one))
        new = part.put("extent_count", more).put("stripes", ("pv0", start))
        planned = began.vg.with_body(
            began.vg.body.put("logical_volumes", lvs.put(name, old.put(segment, new)))
        )
        yield from commit(prepare(began, planned, f"lvextend vg0/{lv}"))

    engine = world.hosts[id].node._running
    engine._tasks.start("lvextend", command(), lambda result, error: done.append(error))
    world.hosts[id].feed(inputs.Tick())
    world.run()
    assert done == [None]


def ends(segment: Any) -> list[int]:
    return [one.start_extent + one.extent_count for one in segment.stripes]


def ask(world: World, id: int, lv: str) -> list[RingfenceError | None]:
    """`refresh_lv`; the list gets its answer."""
    box: list[RingfenceError | None] = []
    world.hosts[id].node._running.refreshes.ask("vg0", lv, uuid_of(world.hosts[id], lv), box.append)
    world.hosts[id].feed(inputs.Tick())
    world.run()
    return box


def reloads(world: World) -> dict[int, list[str]]:
    return {id: [name for run in host.refreshes for name in run.lvs] for id, host in world.hosts.items()}


# -- refresh_lv ----------------------------------------------------------------------------


def test_who_asks_is_answered_when_every_other_host_that_has_it_has_reloaded_it(world: World) -> None:
    active(world, 1, "one")
    active(world, 2, "one")
    assert ask(world, 1, "one") == [None]
    assert reloads(world) == {1: [], 2: ["one"], 3: []}
    (run,) = world.hosts[2].refreshes
    assert (run.vg, run.limit_ms) == ("vg0", 30_000)


def test_a_host_that_has_it_by_its_own_path_has_no_table(world: World) -> None:
    world.hosts[2].do(calls.LvChange("vg0", "one", activate="sy"))
    assert ask(world, 1, "one") == [None]
    assert reloads(world)[2] == []


def test_what_one_host_could_not_do_is_the_askers_error(world: World) -> None:
    active(world, 2, "one")
    active(world, 3, "one")
    world.hosts[3].lvm_ran = LvmRan(5, "  WARNING: x\n  Failed to suspend vg0/one.\n", 4)
    (error,) = ask(world, 1, "one")
    assert str(error) == (
        "LV vg0/one was not reloaded by an-a01n03 (lvchange --refresh: Failed to suspend vg0/one.); "
        "there: lvchange --refresh vg0/one"
    )
    assert reloads(world) == {1: [], 2: ["one"], 3: ["one"]}
    assert [event.what for event in world.hosts[1].events if event.kind == "refresh-failed"] == [
        "an-a01n03 did not reload LV vg0/one: lvchange --refresh: Failed to suspend vg0/one."
    ]
    assert "refresh-failed" in world.hosts[3].kinds()


def test_a_host_that_does_not_answer_is_waited_for_then_named(world: World) -> None:
    active(world, 2, "one")
    world.hosts[2].hanging = True
    box = ask(world, 1, "one")
    world.pass_ms(refreshes.ANSWER_MS - 500)
    assert box == []
    world.pass_ms(1000)
    assert "an-a01n02 (no answer within 45 s)" in str(box[0])
    assert "refresh-failed" in world.hosts[1].kinds()
    said = world.hosts[1].do(calls.Why("vg0/one"))
    assert said["stuck"]
    assert said["lines"][0].startswith("an-a01n02 has not said for 45.")
    assert "opens nothing anew by that; next: there, lvchange --refresh vg0/one" in said["lines"][0]
    world.hosts[2].catch_up()
    world.pass_ms(500)
    assert not world.hosts[1].do(calls.Why("vg0/one"))["stuck"], "it has answered in the end"
    assert len(box) == 1


def test_a_command_of_ours_waits_less_and_says_what_it_means(world: World) -> None:
    active(world, 2, "one")
    world.hosts[2].hanging = True
    box: list[Any] = []
    engine = world.hosts[1].node._running
    command = command_for(calls.LvResize("vg0", "one", extents=1, sign="+"))
    engine._tasks.start("lvextend", command, lambda answer, error: box.append((answer, error)))
    world.hosts[1].feed(inputs.Tick())
    world.run()
    world.pass_ms(refreshes.PATIENCE_MS - 1000)
    assert box == []
    world.pass_ms(1500)
    ((answer, error),) = box
    assert error is None
    assert "successfully resized" in answer["message"]
    (note,) = answer["notes"]
    assert "was not reloaded by an-a01n02 (no answer within 10 s); there: lvchange --refresh" in note
    assert "until then it goes on with what it had of it" in note


def test_who_does_not_hold_the_lv_is_not_waited_for(world: World) -> None:
    active(world, 2, "one")
    world.stuck = (3,)
    assert ask(world, 1, "one") == [None], "node 3 hears of it later, and reads the VG when it takes the LV"


def test_a_host_that_is_lost_is_not_waited_for(world: World) -> None:
    active(world, 2, "one")
    world.hosts[2].hanging = True
    box = ask(world, 1, "one")
    world.hosts[2].kill()
    world.view(1, 3)
    world.run()
    world.pass_ms(500)
    assert box == [None]


def test_a_host_that_stopped_the_vg_is_not_asked(world: World) -> None:
    active(world, 2, "one")
    world.hosts[3].do(calls.VgChange("lockstop", "vg0"))
    world.hosts[3].hanging = True
    assert ask(world, 1, "one") == [None]


def test_a_node_that_went_stale_does_not_leave_its_command_waiting(world: World) -> None:
    active(world, 3, "one")
    world.hosts[3].hanging = True
    for action in ("off", "status"):
        world.says["bmc1", action] = Power.OFF  # a lie: it runs on
    box = ask(world, 1, "one")
    world.view(2, 3)
    world.run()
    world.pass_ms(6000)
    world.view(1, 2, 3)
    world.run()
    world.pass_ms(500)
    assert [type(one) for one in box] == [LocksLost]


def test_older_nodes_are_not_asked_what_they_do_not_know(tmp_path: Path) -> None:
    world = with_vg(World(tmp_path, 2, speaks=Speaks(1, 4)))
    with pytest.raises(Refused, match="speaks protocol 4, and reloads volumes of other hosts from 5 on"):
        ask(world, 1, "one")


# -- every change --------------------------------------------------------------------------


def test_what_has_changed_is_reloaded_and_nothing_else(world: World) -> None:
    for id in (2, 3):
        active(world, id, "one")
        active(world, id, "two")
    change(world, 1, "two")
    world.pass_ms(500)
    assert reloads(world) == {1: [], 2: ["two"], 3: ["two"]}
    change(world, 1, "one")
    world.pass_ms(500)
    assert reloads(world) == {1: [], 2: ["two", "one"], 3: ["two", "one"]}
    told = [event.what for event in world.hosts[2].events if event.kind == "lv-refreshed"]
    assert told[0] == "stock LVM2 reloaded vg0/two: its metadata changed"


def test_other_lvs_that_come_and_go_make_nobody_reload_anything(world: World) -> None:
    """To reload makes a volume stand still for a moment."""
    active(world, 2, "one")
    for number in range(5):
        world.hosts[1].do(calls.LvCreate("vg0", f"new{number}", extents=1, activate="n"))
        world.pass_ms(500)
    assert reloads(world)[2] == []


def test_many_changes_at_once_are_looked_at_together(world: World) -> None:
    active(world, 2, "one")
    scans = world.hosts[2].scans - world.hosts[3].scans
    for number in range(5):
        world.hosts[1].do(calls.LvCreate("vg0", f"new{number}", extents=1, activate="n"))
    change(world, 1, "one")
    world.pass_ms(2000)
    assert reloads(world)[2] == ["one"]
    assert world.hosts[2].scans - world.hosts[3].scans - scans == 2


def test_a_change_right_after_an_activation_reloads_it_though_it_may_be_for_nothing(world: World) -> None:
    active(world, 2, "one", wait_ms=0)
    world.hosts[1].do(calls.LvCreate("vg0", "new", extents=1, activate="n"))
    world.pass_ms(3000)
    assert reloads(world)[2] == ["one"]


def test_a_volume_that_is_active_in_exclusive_mode_is_left_alone(world: World) -> None:
    active(world, 2, "one", Mode.EX)
    world.hosts[1].do(calls.LvCreate("vg0", "new", extents=1, activate="n"))
    world.pass_ms(3000)
    assert reloads(world)[2] == []


def test_who_asks_for_what_its_change_has_had_reloaded_needs_no_second_time(world: World) -> None:
    active(world, 2, "one")
    change(world, 1, "one")
    assert ask(world, 1, "one") == [None]
    assert reloads(world)[2] == ["one"]


def test_who_asks_for_what_could_not_be_reloaded_is_told(world: World) -> None:
    active(world, 2, "one")
    world.hosts[2].lvm_ran = LvmRan(5, "no such device", 4)
    change(world, 1, "one")
    (error,) = ask(world, 1, "one")
    assert "an-a01n02 (lvchange --refresh: no such device)" in str(error)
    assert reloads(world)[2] == ["one", "one"]


def test_a_reload_that_failed_is_tried_again(world: World) -> None:
    active(world, 2, "one")
    world.hosts[2].lvm_ran = LvmRan(None, "", 30_000)
    change(world, 1, "one")
    world.pass_ms(500)
    (event,) = [event for event in world.hosts[2].events if event.kind == "refresh-failed"]
    assert event.what == (
        "LV vg0/one was not reloaded: lvchange --refresh: it did not end within 30 s; "
        "by hand: lvchange --refresh vg0/one"
    )
    world.hosts[2].lvm_ran = LvmRan(0, "", 4)
    world.pass_ms(refreshes.AGAIN_MS + 500)
    assert reloads(world)[2] == ["one", "one"]
    world.pass_ms(refreshes.AGAIN_MS + 500)
    assert reloads(world)[2] == ["one", "one"]


def test_nothing_is_reloaded_without_authority(world: World) -> None:
    """The lock may be another's by now, and its table cut."""
    active(world, 2, "one")
    world.hosts[2].feed(inputs.QuorumSaid(False))
    change(world, 1, "one")
    world.pass_ms(1000)
    assert world.hosts[2].running
    assert reloads(world)[2] == []
    world.hosts[2].feed(inputs.QuorumSaid(True))
    world.pass_ms(1000)
    assert reloads(world)[2] == ["one"]


def test_a_life_that_is_lost_loads_no_further_table(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was under way is ended before tables are cut; what would have come next must not come."""
    monkeypatch.setattr(refresh, "AT_ONCE", 1)
    active(world, 2, "one", wait_ms=0)
    active(world, 2, "two", wait_ms=0)
    world.hosts[2].hanging = True
    world.hosts[1].do(calls.LvCreate("vg0", "new", extents=1, activate="n"))
    world.pass_ms(2000)
    (order,) = world.hosts[2].hung
    for action in ("off", "status"):
        world.says["bmc2", action] = Power.OFF  # a lie: it wakes
    world.freeze(2)
    world.view(1, 3)
    world.run()
    world.pass_ms(6000)
    world.thaw(2, 1, 2, 3)
    world.hosts[2].feed(inputs.OrderDone(order.order, answer=LvmRan(None, "", 4)))
    world.pass_ms(1000)
    assert "reborn" in world.hosts[2].kinds()
    assert world.hosts[2].hung == [order]


def test_who_missed_changes_looks_for_them(world: World) -> None:
    """It did not hear the last words of a view, and took the others' state in the next."""
    active(world, 3, "one")
    change(world, 1, "one", unheard_by=(3,))
    world.waiting, world.unsent, world.stuck = [], [], ()
    world.view(1, 2, 3)
    world.run()
    world.pass_ms(1000)
    assert world.hosts[3].running
    assert reloads(world)[3] == ["one"]
