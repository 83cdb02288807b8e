"""Drills: what is switched and switched back, whoever is lost meanwhile; what a lie in a drill leads to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_ring import World

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, Use
from ringfence.core.errors import NotFound, Refused
from ringfence.core.evidence import Power
from ringfence.engine import effects, inputs
from ringfence.engine.commands import drills
from ringfence.wire import Speaks
from ringfence.wire import client as calls

LAST = "an-a01n03"


def fed_twice(config: ClusterConfig) -> ClusterConfig:
    """Each node has a controller, and an outlet for each of its two supplies."""
    nodes = [
        msgspec.structs.replace(
            node,
            levels=(
                node.levels[0],
                Level(tuple(Use(f"feed{number}", {"plug": str(node.id)}) for number in (1, 2))),
            ),
        )
        for node in config.nodes
    ]
    controllers = [
        msgspec.structs.replace(one, agent="fence_ipmilan")
        for one in config.devices
        if one.name.startswith("bmc")
    ]
    feeds = [
        DeviceConfig(f"feed{number}", "fence_apc_snmp", Confirms.OUTLET_OFF, own_supply=True)
        for number in (1, 2)
    ]
    return msgspec.structs.replace(config, nodes=tuple(nodes), devices=(*controllers, *feeds))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 3, shape=fed_twice)
    world.pass_ms(3000)
    return world


def begun(world: World, node: str = LAST, **options: Any) -> str:
    return world.hosts[1].ask(calls.FenceDrill(node, "tester", **options))


def is_over(world: World, id: str, host: int = 1) -> Callable[[], bool]:
    return lambda: id in world.hosts[host].replies and world.hosts[host].replies[id][-1].final


def ended(world: World, id: str, limit_ms: int = 120_000) -> dict[str, Any]:
    world.until(is_over(world, id), limit_ms)
    found: dict[str, Any] = world.hosts[1].reply(id)
    return found


def lines(world: World, id: str) -> list[str]:
    return [one.result["line"] for one in world.hosts[1].replies[id] if not one.final]


def switched(world: World, *hosts: int) -> list[str]:
    """What was ordered, looks apart."""
    return [
        f"{run.device}[{run.parameters['plug']}] {run.action}"
        if run.parameters
        else f"{run.device} {run.action}"
        for id in hosts or world.hosts
        for run in world.hosts[id].runs
        if run.action in ("on", "off")
    ]


def goes_on(world: World) -> bool:
    return any(
        not host.frozen and host.node is not None and host.node.context.running is not None
        and host.node.context.running.drill is not None
        for host in world.hosts.values()
    )  # fmt: skip


def told(world: World, host: int, kind: str) -> list[str]:
    return [event.what for event in world.hosts[host].events if event.kind == kind]


# -- cables ----------------------------------------------------------------------------


def test_one_outlet_at_a_time_and_nobody_goes_down(world: World) -> None:
    id = begun(world)
    found = ended(world, id)
    assert found == {
        "passed": True,
        "verdict": f"each of 2 outlets feeds one supply of {LAST}, and nothing else",
        "lines": [
            f"feed1[3] feeds PSU1 of {LAST}, and nothing else",
            f"feed2[3] feeds PSU2 of {LAST}, and nothing else",
        ],
    }
    assert switched(world) == ["feed1[3] off", "feed1[3] on", "feed2[3] off", "feed2[3] on"]
    assert all(host.running for host in world.hosts.values())
    assert not goes_on(world)
    assert told(world, 2, "drill-ended") == [f"cabling drill of {LAST} passed: {found['verdict']}"]


def test_a_moved_cable_is_found(world: World) -> None:
    world.cables = {(3, 1): (2, 1), (2, 1): (3, 1)}
    found = ended(world, begun(world))
    assert not found["passed"]
    assert found["lines"][0] == f"feed1[3] feeds PSU1 of an-a01n02, and nothing of {LAST}"
    assert found["verdict"].startswith("feed1[3] moved: ")
    assert world.outlets_off == []


def test_nothing_is_switched_while_a_supply_is_bad(world: World) -> None:
    world.outlets_off.append((3, 2))
    found = ended(world, begun(world))
    assert found["verdict"] == f"not begun: {LAST} runs on what is left already: PSU2 (lost)"
    assert switched(world) == []


def test_nothing_is_switched_if_both_are_one_outlet(tmp_path: Path) -> None:
    both = Level((Use("feed1", {"plug": "3"}), Use("feed1", {"port": "3"})))

    def shape(config: ClusterConfig) -> ClusterConfig:
        config = fed_twice(config)
        third = msgspec.structs.replace(config.nodes[2], levels=(config.nodes[2].levels[0], both))
        return msgspec.structs.replace(config, nodes=(*config.nodes[:2], third))

    world = World(tmp_path, 3, shape=shape)
    world.pass_ms(3000)
    found = ended(world, begun(world))
    assert found["verdict"] == "not begun: feed1[3] and feed1[3] are one outlet"
    assert switched(world) == []


def test_an_outlet_that_does_not_come_on_ends_the_drill_and_is_shouted_about(world: World) -> None:
    world.says["feed1", "on"] = Power.UNKNOWN
    found = ended(world, begun(world))
    assert "feed1[3] COULD NOT BE SWITCHED ON AGAIN (as scripted): do it by hand" in found["verdict"]
    assert switched(world).count("feed1[3] on") == drills.ON_TRIES
    assert "feed2[3] off" not in switched(world)


def test_an_outlet_whose_off_is_unsure_is_switched_on_all_the_same(world: World) -> None:
    world.says["feed1", "off"] = Power.UNKNOWN
    found = ended(world, begun(world))
    assert not found["passed"]
    assert switched(world) == ["feed1[3] off", "feed1[3] on", "feed2[3] off", "feed2[3] on"]


@pytest.mark.parametrize(
    ("node", "options", "why"),
    [
        ("an-a01n01", {}, "an-a01n01 cannot drill itself"),
        ("an-a01n09", {}, "no node is called an-a01n09"),
        (LAST, {"destructive": True, "level": 3}, "has no fence level 3"),
    ],
)
def test_what_cannot_be_drilled_is_refused(world: World, node: str, options: Any, why: str) -> None:
    with pytest.raises((Refused, NotFound), match=why):
        world.hosts[1].do(calls.FenceDrill(node, "tester", **options))
    assert not goes_on(world)


def test_a_node_with_one_outlet_has_no_cables_to_drill(tmp_path: Path) -> None:
    world = World(tmp_path, 3)
    world.pass_ms(3000)
    with pytest.raises(NotFound, match="no fence level with two outlets"):
        world.hosts[1].do(calls.FenceDrill(LAST, "tester"))


def test_there_is_one_drill_at_a_time(world: World) -> None:
    id = begun(world)
    with pytest.raises(Refused, match=f"a drill of {LAST} goes on"):
        world.hosts[2].do(calls.FenceDrill("an-a01n01", "tester"))
    assert ended(world, id)["passed"]


def test_an_older_cluster_does_not_drill(tmp_path: Path) -> None:
    world = World(tmp_path, 3, speaks=Speaks(1, 3), shape=fed_twice)
    world.pass_ms(1000)
    with pytest.raises(Refused, match="drills from 4 on"):
        world.hosts[1].do(calls.FenceDrill(LAST, "tester"))


def test_nothing_is_drilled_while_somebody_must_be_fenced(world: World) -> None:
    world.says["bmc2", "off"] = world.says["feed1", "off"] = Power.UNKNOWN
    world.cut(2)
    world.view(1, 3)
    world.run()
    with pytest.raises(Refused, match="an-a01n02 must be fenced first"):
        world.hosts[1].do(calls.FenceDrill(LAST, "tester"))


def test_nothing_is_drilled_during_a_maintenance(world: World) -> None:
    world.hosts[2].do(calls.FenceDisarm(60_000, "tester", "new PDU"))
    with pytest.raises(Refused, match="fencing is disarmed"):
        world.hosts[1].do(calls.FenceDrill(LAST, "tester"))


def test_a_test_leaves_alone_what_a_drill_switches(world: World) -> None:
    id = begun(world)
    world.until(lambda: bool(world.outlets_off))
    test = world.hosts[2].ask(calls.FenceTest("feed1"))
    ended(world, id)
    world.until(is_over(world, test, host=2))
    whats = [one["what"] for one in world.hosts[2].reply(test)["tests"] if one["node"] == LAST]
    assert f"not tested: the drill of {LAST} switches it" in whats


# -- somebody is lost in the middle ------------------------------------------------------


def off_now(world: World) -> None:
    """Go on until the first outlet is off."""
    world.until(lambda: world.outlets_off == [(3, 1)])


def test_the_actor_is_lost_and_another_switches_on_again(world: World) -> None:
    begun(world)
    off_now(world)
    world.cut(1)
    world.view(2, 3)
    world.run()
    assert world.outlets_off == [(3, 1)]
    world.until(lambda: not goes_on(world), 60_000)
    assert world.outlets_off == []
    assert [one for one in switched(world, 2) if "feed" in one] == ["feed1[3] on", "feed2[3] on"]
    assert told(world, 3, "drill-failed") == [
        f"cabling drill of {LAST} failed: an-a01n01, which ran it, was lost"
    ]
    assert world.hosts[3].running


def test_the_actors_daemon_is_started_anew_and_switches_on_again(world: World) -> None:
    begun(world)
    off_now(world)
    world.hosts[1].kill()
    world.view(2, 3, how="procdown")
    world.run()
    world.hosts[1].start()
    world.view(1, 2, 3)
    world.run()
    world.until(lambda: not goes_on(world), 60_000)
    assert world.outlets_off == []


def test_the_drilled_node_is_lost_and_no_on_undoes_its_fence(world: World) -> None:
    begun(world)
    off_now(world)
    world.slow["bmc3"] = 3_000
    world.cut(3)
    world.view(1, 2)
    world.run()
    while "purged" not in world.hosts[1].kinds():
        assert not [one for one in switched(world) if one.endswith(" on")]
        world.pass_ms(50)
    world.until(lambda: not goes_on(world), 60_000)
    assert not [one for one in switched(world) if one.endswith(" on")]
    (verdict,) = told(world, 2, "drill-failed")
    assert verdict.endswith(f"{LAST} was fenced: feed1[3] was left off")


def test_a_node_whose_daemon_is_started_anew_gets_its_outlet_back(world: World) -> None:
    begun(world)
    off_now(world)
    world.hosts[3].kill()
    world.view(1, 2, how="procdown")
    world.run()
    world.pass_ms(500)
    world.hosts[3].start()
    world.view(1, 2, 3)
    world.run()
    world.until(lambda: not goes_on(world), 60_000)
    assert world.outlets_off == []
    assert world.power[3] is Power.ON


def test_fencing_another_by_the_same_device_goes_first(world: World) -> None:
    """What the drill runs there is cancelled; the outlet that it has left off is on again afterwards."""
    id = begun(world)
    off_now(world)
    world.slow["feed1"] = 20_000
    world.until(lambda: any(run.action == "on" for _, _, run in world.agents))
    world.says["bmc2", "off"] = Power.UNKNOWN
    world.cut(2)
    world.view(1, 3)
    world.run()
    assert not any(run.action == "on" for _, _, run in world.agents)
    world.slow.clear()
    world.until(lambda: "purged" in world.hosts[1].kinds(), 60_000)
    ended(world, id)
    assert (3, 1) not in world.outlets_off
    assert world.hosts[3].running


def test_an_actor_without_a_primary_view_switches_on_when_it_has_one_again(world: World) -> None:
    id = begun(world)
    off_now(world)
    world.outage()
    world.run()
    world.pass_ms(8000)
    assert switched(world) == ["feed1[3] off"], "nobody here knows whom the others fence"
    world.view(1, 2, 3)
    world.run()
    ended(world, id)
    assert world.outlets_off == []


def test_an_actor_that_was_frozen_does_not_wake_up_and_switch(world: World) -> None:
    """Meanwhile another has ended its drill: what it would switch off now, nobody would switch on."""
    begun(world)
    off_now(world)
    for device in ("bmc1", "feed1", "feed2"):
        world.says[device, "off"] = Power.UNKNOWN  # so that it lives to thaw
    world.freeze(1)
    world.view(2, 3)
    world.run()
    world.until(lambda: world.outlets_off == [] and not goes_on(world), 300_000)
    before = switched(world, 1)
    world.hosts[1].frozen = False
    world.pass_ms(3000)  # it has not heard yet that the others went on without it
    assert switched(world, 1) == before


# -- power is cut ------------------------------------------------------------------------


def test_a_level_that_cuts_its_own_host_alone_passes(world: World) -> None:
    id = begun(world, destructive=True)
    world.until(lambda: world.power[3] is Power.OFF)
    world.view(1, 2)
    world.run()
    world.until(lambda: world.power[3] is Power.ON, 60_000)
    world.boot(3, 1, 2, 3)
    found = ended(world, id)
    assert found["passed"], found
    assert found["verdict"] == f"bmc3 cut {LAST}, and no other host; it is back under a new boot id"
    assert "attempt" not in world.hosts[1].kinds(), "the drill itself is the fence"
    assert "purged" in world.hosts[2].kinds()
    assert not goes_on(world)


def test_a_drill_that_passed_ends_a_quarantine(world: World) -> None:
    lie(world)
    assert world.hosts[2].do(calls.Status())["quarantined"] == ["bmc3"]
    world.says.clear()
    test_a_level_that_cuts_its_own_host_alone_passes(world)
    assert world.hosts[2].do(calls.Status())["quarantined"] == []
    assert told(world, 2, "quarantine-lifted") == [
        f"bmc3 is believed again: a destructive drill of {LAST} passed"
    ]


def lie(world: World) -> dict[str, Any]:
    """bmc3 says off, looks off, and does nothing."""
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.OFF
    return ended(world, begun(world, destructive=True))


def test_a_device_that_lies_is_quarantined_and_nobody_was_harmed(world: World) -> None:
    found = lie(world)
    assert not found["passed"]
    assert found["verdict"] == f'bmc3 said "off", and {LAST} goes on'
    assert world.hosts[3].running
    for host in world.hosts.values():
        assert host.do(calls.Status())["quarantined"] == ["bmc3"]
    assert told(world, 2, "incident") == [
        f'destructive drill of {LAST} failed: bmc3 said "off", and {LAST} goes on'
    ]


def test_a_device_that_cuts_another_host_is_quarantined(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = world.agent

    def crossed(run: effects.RunAgent) -> inputs.AgentExited:
        if (run.device, run.action) == ("bmc3", "off"):
            world.power[2] = Power.OFF
            world.cut(2)
            return inputs.AgentExited(run.run, Power.OFF, "done", 5)
        if run.device == "bmc3":
            return inputs.AgentExited(run.run, world.power[2], "done", 5)
        return honest(run)

    monkeypatch.setattr(world, "agent", crossed)
    id = begun(world, destructive=True)
    world.until(lambda: world.power[2] is Power.OFF)
    world.view(1, 3)
    world.run()
    found = ended(world, id)
    assert found["verdict"] == f'bmc3 said "off", and {LAST} goes on; it cut an-a01n02 instead'
    assert world.hosts[1].do(calls.Status())["quarantined"] == ["bmc3"]


def test_a_device_that_does_not_answer_fails_and_is_no_liar(world: World) -> None:
    world.says["bmc3", "off"] = Power.UNKNOWN
    found = ended(world, begun(world, destructive=True))
    assert (found["passed"], found["verdict"]) == (False, "bmc3: unreachable (as scripted)")
    assert world.hosts[1].do(calls.Status())["quarantined"] == []
    assert world.hosts[3].running
    assert switched(world) == ["bmc3 off", "bmc3 on"]


def test_the_second_level_can_be_drilled_too(world: World) -> None:
    id = begun(world, destructive=True, level=2)
    world.until(lambda: world.power[3] is Power.OFF, 60_000)
    world.view(1, 2)
    world.run()
    world.until(lambda: world.outlets_off == [], 60_000)
    world.boot(3, 1, 2, 3)
    assert ended(world, id)["passed"]


def test_a_node_that_is_in_a_lockspace_is_not_cut(world: World) -> None:
    world.hosts[3].do(calls.JoinSpace("games"))
    with pytest.raises(Refused, match=r"in lockspace games.*; ringfence lockspace leave games; then"):
        world.hosts[1].do(calls.FenceDrill(LAST, "tester", destructive=True))
    assert switched(world) == []


def test_a_node_that_is_being_cut_joins_nothing_until_the_drill_is_over(world: World) -> None:
    world.says["bmc3", "off"] = Power.UNKNOWN
    world.slow["bmc3"] = 3_000
    id = begun(world, destructive=True)
    join = world.hosts[3].ask(calls.JoinSpace("games"))
    world.pass_ms(1000)
    assert world.hosts[3].reply(join) is None
    ended(world, id)
    world.until(lambda: world.hosts[3].reply(join) is not None)


def test_without_a_majority_of_the_others_nobody_is_cut(tmp_path: Path) -> None:
    world = World(tmp_path, 3, shape=fed_twice)
    world.pass_ms(3000)
    world.hosts[2].do(calls.Leave())
    world.view(1, 3, how="leave")
    world.run()
    with pytest.raises(Refused, match="the others have no majority"):
        world.hosts[1].do(calls.FenceDrill(LAST, "tester", destructive=True))


def test_the_actor_is_lost_with_the_power_off_and_others_fence(world: World) -> None:
    world.slow["bmc3"] = 1_000
    begun(world, destructive=True)
    world.until(lambda: world.power[3] is Power.OFF)
    world.hosts[1].kill()
    world.view(2, how="nodedown")
    world.run()
    world.hosts[1].boots += 1
    world.hosts[1].start()
    world.view(1, 2)
    world.run()
    world.until(lambda: "purged" in world.hosts[2].kinds(), 60_000)
    world.until(lambda: not goes_on(world), 60_000)
    assert told(world, 2, "drill-failed")[0].endswith("an-a01n01, which ran it, was lost")
