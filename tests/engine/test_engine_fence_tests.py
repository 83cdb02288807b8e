"""Whether every member could fence: who tests when, what is kept, and that fencing goes first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_ring import AGENT_MS, IDLE_TICK_MS, TIMING, World

from ringfence.core.errors import NotFound, Refused
from ringfence.core.evidence import Power
from ringfence.engine import fence_tests
from ringfence.engine.inputs import Wall
from ringfence.wire import Speaks
from ringfence.wire import client as calls

WALL_MS = 1_700_000_000_000
DAY_MS = 86_400_000


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 3)
    world.pass_ms(1000)
    return world


def results(world: World, asker: int = 1, target: str = "", limit_ms: int = 60_000) -> dict[str, Any]:
    host = world.hosts[asker]
    id = host.ask(calls.FenceTest(target))
    world.until(lambda: id in host.replies and host.replies[id][-1].final, limit_ms)
    found: dict[str, Any] = host.reply(id)
    return found


def who(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["tester"], one["use"], one["outcome"]) for one in found["tests"]]


def runs(world: World, id: int) -> list[str]:
    return [f"{run.device} {run.action}" for run in world.hosts[id].runs]


def set_wall(world: World, wall_ms: int, hosts: Sequence[int] = (1, 2, 3)) -> None:
    for id in hosts:
        world.hosts[id].feed(Wall(wall_ms))
    world.run()


def test_every_member_tests_all_others_in_its_turn(world: World) -> None:
    found = results(world, asker=2)
    devices = {1: ["bmc1", "pdu1"], 2: ["bmc2", "pdu2"], 3: ["bmc3", "pdu3"]}
    expected = [
        (f"an-a01n{tester:02}", device, "passed")
        for tester in (1, 2, 3)
        for node in devices
        for device in devices[node]
        if node != tester
    ]
    assert who(found) == expected
    assert (found["silent"], found["absent"], found["unfenceable"]) == ([], [], [])


def test_it_only_looks_and_one_at_a_time(world: World) -> None:
    host = world.hosts[1]
    id = host.ask(calls.FenceTest(""))
    seen = 0
    while not host.replies.get(id) or not host.replies[id][-1].final:
        assert len(world.agents) <= 1
        seen += len(world.agents)
        world.pass_ms(50)
    assert seen > 0
    actions = {run.action for one in world.hosts.values() for run in one.runs}
    assert actions == {"status", "list"}


def test_a_member_is_told_of_as_soon_as_it_is_through(world: World) -> None:
    host = world.hosts[3]
    id = host.ask(calls.FenceTest("an-a01n02"))
    world.until(lambda: id in host.replies and host.replies[id][-1].final)
    *progress, last = host.replies[id]
    assert [len(one.result["tests"]) for one in progress] == [2, 0, 2]
    assert [one.final for one in host.replies[id]] == [False, False, False, True]
    assert len(last.result["tests"]) == 4


def test_a_device_that_does_not_answer_fails_with_its_own_words(world: World) -> None:
    world.says["bmc2", "status"] = Power.UNKNOWN
    found = results(world, target="bmc2")
    assert who(found) == [("an-a01n01", "bmc2", "failed"), ("an-a01n03", "bmc2", "failed")]
    assert found["tests"][0]["what"] == "as scripted"


def test_off_for_a_node_that_is_up_is_a_wrong_plug_or_a_lie(world: World) -> None:
    world.says["pdu2", "status"] = Power.OFF
    found = results(world, target="pdu2")
    assert [one["outcome"] for one in found["tests"]] == ["failed", "failed"]
    assert found["tests"][0]["what"] == (
        'pdu2 says "off", but an-a01n02 is up: the plug is another\'s, or the device lies'
    )


def test_a_crash_in_the_middle_of_a_test_makes_no_liar(world: World) -> None:
    """The host loses power; its controller says so before the ring does."""
    world.power[3] = Power.OFF
    world.cut(3)
    host = world.hosts[1]
    id = host.ask(calls.FenceTest("bmc3"))
    world.pass_ms(2 * AGENT_MS + 100)
    world.view(1, 2)
    world.run()
    world.until(lambda: id in host.replies and host.replies[id][-1].final)
    assert "failed" not in {one["outcome"] for one in host.reply(id)["tests"]}


def test_fencing_goes_first(world: World) -> None:
    """What a test runs on a device that is needed is cancelled, and the rest of it waits for nobody."""
    world.slow["pdu3"] = 20_000
    host = world.hosts[1]
    id = host.ask(calls.FenceTest("an-a01n03"))
    world.until(lambda: any(run.device == "pdu3" for _, _, run in world.agents))
    world.cut(3)
    world.view(1, 2)
    world.run()
    assert not [run for _, _, run in world.agents if run.device == "pdu3"]
    world.until(lambda: "purged" in host.kinds(), 10_000)
    world.until(lambda: id in host.replies and host.replies[id][-1].final)
    outcomes = {(one["tester"], one["use"]): one for one in host.reply(id)["tests"]}
    assert outcomes["an-a01n01", "pdu3"]["what"] == "not tested: it is needed to fence an-a01n03"
    assert outcomes["an-a01n01", "bmc3"]["outcome"] == "passed"


def test_a_member_that_ends_in_its_turn_keeps_nobody_waiting(world: World) -> None:
    world.slow["bmc1"] = 60_000
    host = world.hosts[1]
    id = host.ask(calls.FenceTest("an-a01n01"))
    world.until(lambda: any(one is world.hosts[2] for _, one, _ in world.agents))
    world.hosts[2].kill()
    world.slow.clear()
    world.view(1, 3, how="procdown")
    world.run()
    world.until(lambda: id in host.replies and host.replies[id][-1].final, 10_000)
    assert {one["tester"] for one in host.reply(id)["tests"]} == {"an-a01n03"}
    assert host.reply(id)["absent"] == ["an-a01n02"]


def test_no_member_tests_for_longer_than_its_time(world: World) -> None:
    for device in ("bmc1", "pdu1", "bmc2", "pdu2", "bmc3", "pdu3"):
        world.slow[device] = fence_tests.MEMBER_MS
    found = results(world, target="", limit_ms=4 * (fence_tests.MEMBER_MS + fence_tests.LATE_MS))
    skipped = [one for one in found["tests"] if one["outcome"] == "skipped"]
    assert skipped
    assert {one["what"] for one in skipped} == {"not tested: no time was left"}


def test_who_asks_for_what_is_not_there_is_told(world: World) -> None:
    with pytest.raises(NotFound, match="no node and no device is called bmc9"):
        world.hosts[1].do(calls.FenceTest("bmc9"))


def test_an_older_cluster_does_not_test(tmp_path: Path) -> None:
    world = World(tmp_path, 3, speaks=Speaks(1, 3))
    world.pass_ms(1000)
    with pytest.raises(Refused, match="tests its fencing from 4 on"):
        world.hosts[1].do(calls.FenceTest(""))
    set_wall(world, WALL_MS)
    world.pass_ms(fence_tests.FIRST_MS + 20_000, IDLE_TICK_MS)
    assert not any(host.runs for host in world.hosts.values())


def test_what_failed_is_an_alarm_until_it_passes(world: World) -> None:
    set_wall(world, WALL_MS)
    world.says["bmc2", "status"] = Power.UNKNOWN
    results(world, target="bmc2")
    status = world.hosts[3].do(calls.Status())["fence_tests"]
    assert status["alarms"] == [
        "an-a01n01 could not fence an-a01n02 by bmc2: as scripted",
        "an-a01n03 could not fence an-a01n02 by bmc2: as scripted",
    ]
    assert world.hosts[2].kinds().count("fence-test-failed") == 2
    results(world, target="bmc2")
    assert world.hosts[2].kinds().count("fence-test-failed") == 2, "said again without news"
    world.says.clear()
    results(world, target="bmc2")
    assert world.hosts[3].do(calls.Status())["fence_tests"]["alarms"] == []


# -- the calendar ---------------------------------------------------------------------


def pass_days(world: World, wall_ms: int, days: float) -> int:
    """Lets the calendar move on, with a little time in between; returns the new date."""
    wall_ms += round(days * DAY_MS)
    set_wall(world, wall_ms)
    world.pass_ms(20_000, IDLE_TICK_MS)
    return wall_ms


def all_runs(world: World) -> int:
    return sum(len(host.runs) for host in world.hosts.values())


def test_what_is_new_is_tried_by_itself(world: World) -> None:
    set_wall(world, WALL_MS)
    world.pass_ms(fence_tests.FIRST_MS - 20_000, IDLE_TICK_MS)
    assert all_runs(world) == 0
    world.pass_ms(60_000, IDLE_TICK_MS)
    assert all_runs(world) == 3 * 4 * 2
    world.pass_ms(fence_tests.FIRST_MS, IDLE_TICK_MS)
    assert all_runs(world) == 3 * 4 * 2


def test_it_is_tried_again_every_day_and_by_hand_counts_too(world: World) -> None:
    set_wall(world, WALL_MS)
    results(world)
    world.pass_ms(fence_tests.FIRST_MS, IDLE_TICK_MS)
    assert all_runs(world) == 24
    wall_ms = pass_days(world, WALL_MS, 0.9)
    assert all_runs(world) == 24
    pass_days(world, wall_ms, 0.2)
    assert all_runs(world) == 48


def test_never_by_itself_if_so_configured(tmp_path: Path) -> None:
    timing = msgspec.structs.replace(TIMING, fence_test_ms=0)
    world = World(tmp_path, 3, timing=timing)
    set_wall(world, WALL_MS)
    world.pass_ms(fence_tests.FIRST_MS + 60_000, IDLE_TICK_MS)
    pass_days(world, WALL_MS, 30)
    assert all_runs(world) == 0
    assert world.hosts[1].do(calls.Status())["fence_tests"]["alarms"] == []


def test_what_was_not_tested_for_long_is_an_alarm(world: World) -> None:
    """Nobody tests while somebody must be fenced and cannot be."""
    set_wall(world, WALL_MS)
    results(world)
    for device in ("bmc3", "pdu3"):
        world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN
    world.cut(3)
    world.view(1, 2)
    world.run()
    pass_days(world, WALL_MS, 2.5)
    status = world.hosts[1].do(calls.Status())["fence_tests"]
    assert status["alarms"][0] == (
        "an-a01n01 has not tested bmc2 of an-a01n02 for 60 h; next: ringfence fence test"
    )
    old = [event for event in world.hosts[1].events if event.kind == "fence-test-old"]
    assert len(old) == 8


def test_results_survive_a_restart_of_everything(world: World) -> None:
    set_wall(world, WALL_MS)
    world.says["bmc2", "status"] = Power.UNKNOWN
    results(world)
    before = world.hosts[1].do(calls.Status())["fence_tests"]["tested"]
    for host in world.hosts.values():
        host.kill()
        host.boots += 1
    world.part()
    for host in world.hosts.values():
        host.start()
    world.view(1, 2, 3)
    world.run()
    set_wall(world, WALL_MS)
    world.pass_ms(1000)
    after = world.hosts[1].do(calls.Status())["fence_tests"]
    assert after["tested"] == before
    assert len(after["alarms"]) == 2


def test_time_does_not_stand_in_the_way(world: World) -> None:
    """A wall clock that was set back by years does not put a test off by years."""
    set_wall(world, WALL_MS)
    results(world)
    before = all_runs(world)
    world.pass_ms(fence_tests.FIRST_MS, IDLE_TICK_MS)
    set_wall(world, WALL_MS - 900 * DAY_MS)
    world.pass_ms(20_000, IDLE_TICK_MS)
    assert all_runs(world) > before
