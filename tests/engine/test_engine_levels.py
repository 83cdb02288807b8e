"""How levels run on real engines: order, one session a device, delays, switching on again, takeover."""

from pathlib import Path

import msgspec
import pytest
from engine_ring import AGENT_MS, TICK_MS, TIMING, World

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, Use
from ringfence.core.errors import Refused
from ringfence.core.evidence import Power
from ringfence.engine.apply import apply
from ringfence.engine.facts import AttemptGranted
from ringfence.engine.losses import lose as lose_life
from ringfence.engine.state import ClusterState
from ringfence.fencing.power_on import TRIES
from ringfence.wire import FENCING, Speaks
from ringfence.wire import client as calls
from ringfence.wire.entries import AttemptBegan
from ringfence.wire.ring import Submitted


def on_one_pdu(*, parallel: bool = False, **options: int):
    """Each host N hangs on plugs N1 and N2 of one PDU, and on nothing else."""

    def shape(config: ClusterConfig) -> ClusterConfig:
        nodes = tuple(
            msgspec.structs.replace(
                node,
                levels=(
                    Level(tuple(Use("pdu", {"plug": f"{node.id}{outlet}"}) for outlet in "12"), parallel),
                ),
            )
            for node in config.nodes
        )
        pdu = DeviceConfig("pdu", "fence_pdu", Confirms.OUTLET_OFF, **options)
        return msgspec.structs.replace(config, nodes=nodes, devices=(pdu,))

    return shape


def with_nodes(**changes: dict[str, object]):
    """Nodes' own keys: an-a01n01={...} written as n1={...}."""

    def shape(config: ClusterConfig) -> ClusterConfig:
        nodes = tuple(
            msgspec.structs.replace(node, **changes.get(f"n{node.id}", {})) for node in config.nodes
        )
        return msgspec.structs.replace(config, nodes=nodes)

    return shape


def told(world: World, host: int = 1) -> list[str]:
    return [
        f"{run.device}{run.parameters.get('plug', '')} {run.action}" for run in world.hosts[host].runs
    ]


def lose(world: World, *left: int) -> None:
    for id in world.hosts:
        if id not in left:
            world.freeze(id)
    world.view(*left)
    world.run()


def test_all_plugs_are_told_off_then_all_are_looked_at(tmp_path: Path) -> None:
    world = World(tmp_path, 3, shape=on_one_pdu())
    world.pass_ms(2000)
    lose(world, 1, 2)
    world.until(lambda: "purged" in world.hosts[1].kinds())
    assert told(world) == ["pdu31 off", "pdu32 off", "pdu31 status", "pdu32 status"]
    assert not told(world, 2)


@pytest.mark.parametrize(("levels", "begins"), [(1, [0]), (0, [])])
def test_a_level_that_is_configured_no_more_is_not_begun(
    tmp_path: Path, levels: int, begins: list[int]
) -> None:
    """The attempt was asked for before the configuration changed, and is ordered after it."""
    world = World(tmp_path, 3)
    world.pass_ms(2000)
    state = ClusterState.decode(world.hosts[1].node.context.state.encode())
    victim = state.lives[3]
    lose_life(state, victim, "lost", due=True)
    nodes = tuple(msgspec.structs.replace(one, levels=one.levels[:levels]) for one in state.config.nodes)
    state.config = msgspec.structs.replace(state.config, nodes=nodes)
    seq = state.senders[1].seq
    facts = apply(state, state.lives[1], Submitted(seq + 1, AttemptBegan(victim, 1, 1), after=seq))
    assert [fact.level for fact in facts if isinstance(fact, AttemptGranted)] == begins


@pytest.mark.parametrize("action", ["off", "on"])
def test_an_actor_that_was_frozen_does_not_wake_up_and_switch_the_next_plug(
    tmp_path: Path, action: str
) -> None:
    """Meanwhile others may have fenced that host, and let it come back."""
    world = World(tmp_path, 4, shape=on_one_pdu(), fence_action="reboot")
    world.pass_ms(2000)
    one = world.hosts[1]
    lose(world, 1, 2, 3)
    world.until(lambda: told(world)[-1:] == [f"pdu41 {action}"])
    world.freeze(1)
    world.pass_ms(5000)
    before = told(world)
    one.frozen = False
    while one.inbox:
        one.feed(one.inbox.popleft())
    world.pass_ms(TIMING.detection_ms - TICK_MS)  # it has not heard yet that the others went on without it
    assert [call for call in told(world)[len(before) :] if not call.endswith("status")] == []


@pytest.mark.parametrize(("sessions", "most"), [(1, 1), (3, 3)])
def test_a_device_serves_as_many_calls_as_it_has_sessions_whoever_they_are_for(
    tmp_path: Path, sessions: int, most: int
) -> None:
    world = World(tmp_path, 5, shape=on_one_pdu(parallel=True, sessions=sessions))
    world.pass_ms(2000)
    lose(world, 1, 2, 3)
    at_once = []
    why: list[str] = []

    def over() -> bool:
        at_once.append(len(world.agents))
        why.extend(world.hosts[1].do(calls.Why(""))["lines"] if len(world.agents) == 1 else [])
        return world.hosts[1].kinds().count("purged") == 2

    world.until(over)
    assert max(at_once) == most
    assert sorted(told(world)) == sorted(
        f"pdu{node}{outlet} {action}" for node in (4, 5) for outlet in (1, 2) for action in ("off", "status")
    )
    if sessions == 1:
        assert told(world)[:4] == ["pdu41 off", "pdu42 off", "pdu51 off", "pdu52 off"], "first come"
        assert "an-a01n01 waits for pdu, which serves the fencing of an-a01n04" in why


def test_what_waits_for_a_session_is_cancelled_with_its_attempt(tmp_path: Path) -> None:
    world = World(tmp_path, 5, shape=on_one_pdu())
    world.pass_ms(2000)
    lose(world, 1, 2, 3)
    world.until(lambda: bool(world.hosts[1].runs))
    assert told(world) == ["pdu41 off"]
    now = world.now_ns
    world.hosts[1].ask(calls.FenceConfirm("an-a01n05", "ann", "it is in my hands", now + 1))
    world.until(lambda: "purged" in world.hosts[1].kinds())
    assert not [one for one in told(world) if one.startswith("pdu5")]


def test_a_device_settles_before_it_is_looked_at(tmp_path: Path) -> None:
    world = World(tmp_path, 3, shape=on_one_pdu(settle_ms=6000, looks=3, look_every_ms=2000))
    world.pass_ms(2000)
    world.says["pdu", "status"] = Power.ON
    lose(world, 1, 2)
    world.until(lambda: told(world)[-1:] == ["pdu32 off"])
    world.pass_ms(AGENT_MS + 1000)
    for host, line in (
        (1, "an-a01n01 waits 5.0 s for pdu[31] to settle"),
        (2, "an-a01n01 lets pdu settle for 6.0 s after its off, then looks at it up to 3 times, 2.0 s apart"),
    ):
        lines = world.hosts[host].do(calls.Why("an-a01n03"))["lines"]
        found = [one for one in lines if "settle" in one]
        assert [one.partition(" for ")[2] for one in found] == [line.partition(" for ")[2]]
        assert "pdu[32] off: off (done), after 0.0 s" in lines, "everybody knows what was said"
    del world.says["pdu", "status"]
    world.until(lambda: "attempt-ended" in world.hosts[1].kinds())
    (ended,) = [one for one in world.hosts[1].events if one.kind == "attempt-ended"]
    assert ended.fields["passed"]
    assert 5600 <= ended.fields["waits_ms"] <= 6000
    assert ended.fields["agents_ms"] == 4 * 5, "as the runner measured them"
    assert ended.fields["ours_ms"] <= 4 * (AGENT_MS + 2 * TICK_MS), "the rest of the test's runs, and ticks"


def test_whoever_takes_over_knows_what_was_switched_off(tmp_path: Path) -> None:
    world = World(tmp_path, 3, shape=on_one_pdu())
    world.pass_ms(2000)
    lose(world, 1, 2)
    world.until(lambda: told(world)[-1:] == ["pdu32 off"])
    world.hosts[1].kill()
    world.agents = [one for one in world.agents if one[1] is not world.hosts[1]]
    state = world.hosts[2].node.context.state
    (victim,) = state.domain.victims
    assert [word.device for word in victim.current.words] == ["pdu[31]"]
    # Its majority is gone; but what it goes on with, once it may, is there.
    state.domain.actor_gone((2,))
    assert state.domain.switched_off(victim) == {"pdu[31]": 1}


def test_older_nodes_are_not_told_what_agents_say(tmp_path: Path) -> None:
    world = World(tmp_path, 3, speaks=Speaks(1, FENCING - 1), fence_action="reboot")
    world.pass_ms(2000)
    lose(world, 1, 2)
    world.until(lambda: told(world)[-1:] == ["bmc3 status"])
    (victim,) = world.hosts[2].node.context.state.domain.victims
    assert victim.current.words == ()
    world.until(lambda: "purged" in world.hosts[1].kinds())
    world.pass_ms(3000)
    assert told(world) == ["bmc3 off", "bmc3 status"]
    assert not world.hosts[2].node.context.state.power_ons


# -- two nodes that shoot one another ---------------------------------------------------


def shoot_out(world: World) -> list[int]:
    """Both lose one another at once; returns who is still on when one has won."""
    world.part((1,), (2,))
    world.run()
    world.until(lambda: any("purged" in host.kinds() for host in world.hosts.values()))
    return [id for id, power in world.power.items() if power is Power.ON]


def test_without_a_delay_both_are_shot(tmp_path: Path) -> None:
    """What the delays are for: agents of equal speed cut both."""
    world = World(tmp_path, 2)
    world.pass_ms(2000)
    world.part((1,), (2,))
    world.run()
    world.pass_ms(2000)
    assert [host.runs[0].device for host in world.hosts.values()] == ["bmc2", "bmc1"]


@pytest.mark.parametrize("winner", [1, 2])
def test_a_static_delay_decides_a_shoot_out(tmp_path: Path, winner: int) -> None:
    world = World(tmp_path, 2, shape=with_nodes(**{f"n{winner}": {"fence_delay_ms": 3000}}))
    world.pass_ms(2000)
    assert shoot_out(world) == [winner]
    loser = world.hosts[3 - winner]
    assert not loser.runs, "it was off before its delay was over"


@pytest.mark.parametrize("winner", [1, 2])
def test_the_node_with_more_at_stake_wins_a_shoot_out(tmp_path: Path, winner: int) -> None:
    timing = msgspec.structs.replace(TIMING, priority_delay_ms=3000)
    world = World(tmp_path, 2, timing=timing)
    world.pass_ms(1000)
    one = world.hosts[winner]
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(500)
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20))
    world.pass_ms(1500)
    world.part((1,), (2,))
    world.run()
    world.pass_ms(AGENT_MS - TICK_MS)
    loser = world.hosts[3 - winner]
    why = loser.do(calls.Why(one.name))["lines"]
    assert f"{loser.name} waits 3.0 s before it fences {one.name}: " in "\n".join(why)
    assert not any("waits" in line for line in one.do(calls.Why(loser.name))["lines"])
    assert shoot_out_ends(world) == [winner]
    assert not loser.runs


def shoot_out_ends(world: World) -> list[int]:
    world.until(lambda: any("purged" in host.kinds() for host in world.hosts.values()))
    return [id for id, power in world.power.items() if power is Power.ON]


def test_equal_stakes_let_the_lower_id_win(tmp_path: Path) -> None:
    world = World(tmp_path, 2, timing=msgspec.structs.replace(TIMING, priority_delay_ms=3000))
    world.pass_ms(2000)
    assert shoot_out(world) == [1]
    assert not world.hosts[2].runs


def test_a_majority_that_is_left_does_not_wait_by_priority(tmp_path: Path) -> None:
    world = World(tmp_path, 3, timing=msgspec.structs.replace(TIMING, priority_delay_ms=10_000))
    world.pass_ms(2000)
    lose(world, 2, 3)
    took_ms = world.until(lambda: bool(world.hosts[2].runs))
    assert took_ms <= 2 * TICK_MS, "though the lost one has the lower id"


def test_only_the_first_attempt_waits(tmp_path: Path) -> None:
    world = World(tmp_path, 3, shape=with_nodes(n3={"fence_delay_ms": 5000}))
    world.pass_ms(2000)
    world.says["bmc3", "off"] = Power.UNKNOWN
    lose(world, 1, 2)
    assert 5000 <= world.until(lambda: bool(world.hosts[1].runs)) <= 5000 + 2 * TICK_MS
    assert world.until(lambda: "pdu3 off" in told(world)) <= AGENT_MS + 2 * TICK_MS


# -- switching on again -------------------------------------------------------------------


def test_a_fenced_host_is_switched_on_again_after_the_purge(tmp_path: Path) -> None:
    world = World(tmp_path, 3, fence_action="reboot")
    world.pass_ms(2000)
    lose(world, 1, 2)
    world.until(lambda: "evidence" in world.hosts[1].kinds())
    world.pass_ms(200)
    assert "purged" not in world.hosts[1].kinds()
    assert "bmc3 on" not in told(world), "not before the purge"
    world.until(lambda: "power-on-done" in world.hosts[1].kinds())
    assert told(world) == ["bmc3 off", "bmc3 status", "bmc3 on"]
    assert world.power[3] is Power.ON
    world.boot(3, 1, 2, 3)
    world.until(lambda: world.hosts[3].running)
    assert not world.hosts[1].node.context.state.power_ons
    assert not world.hosts[1].do(calls.Status())["victims"]


def test_a_host_with_two_plugs_gets_both_back(tmp_path: Path) -> None:
    world = World(tmp_path, 3, shape=on_one_pdu(), fence_action="reboot")
    world.pass_ms(2000)
    lose(world, 1, 2)
    world.until(lambda: "power-on-done" in world.hosts[1].kinds())
    assert told(world)[-2:] == ["pdu31 on", "pdu32 on"]
    assert told(world).index("pdu31 on") > told(world).index("pdu32 status")


def test_a_failed_on_is_told_and_tried_again_by_the_next_and_blocks_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, 3, fence_action="reboot")
    world.pass_ms(1000)
    three, one = world.hosts[3], world.hosts[1]
    three.do(calls.JoinSpace("games"))
    one.do(calls.JoinSpace("games"))
    world.pass_ms(500)
    three.do(calls.Lock("games", "chess"))
    world.pass_ms(1000)
    world.says["bmc3", "on"] = Power.UNKNOWN
    lose(world, 1, 2)
    asked = one.ask(calls.Lock("games", "chess"))
    world.until(lambda: "power-on-failed" in one.kinds())
    world.until(lambda: one.reply(asked) is not None)
    status = one.do(calls.Status())
    assert not status["blocked"]
    (remark,) = [line for line in status["remarks"] if "switching" in line]
    assert remark == (
        "an-a01n03 is fenced; switching it on again failed: bmc3: as scripted; next try in 0.5 s"
    )
    assert remark in one.do(calls.Why("an-a01n03"))["lines"]
    world.until(lambda: "bmc3 on" in told(world, 2))
    assert not status["victims"]
    del world.says["bmc3", "on"]
    world.until(lambda: "power-on-done" in one.kinds(), 60_000)


def test_to_switch_on_is_given_up_after_a_while_with_a_word(tmp_path: Path) -> None:
    world = World(tmp_path, 3, fence_action="reboot")
    world.pass_ms(2000)
    world.says["bmc3", "on"] = Power.UNKNOWN
    lose(world, 1, 2)
    world.until(lambda: "power-on-given-up" in world.hosts[1].kinds(), 20 * 60_000)
    assert (told(world) + told(world, 2)).count("bmc3 on") == TRIES
    last = [one.what for one in world.hosts[1].events if one.kind == "power-on-given-up"]
    assert last == [
        f"an-a01n03 is fenced, and could not be switched on again in {TRIES} tries: do it by hand"
    ]


def test_if_the_one_that_switches_on_dies_the_next_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path, 5, fence_action="reboot")
    world.pass_ms(2000)
    world.slow["bmc5"] = 1000
    lose(world, 1, 2, 3, 4)
    world.until(lambda: "bmc5 on" in told(world))
    world.hosts[1].kill()
    world.agents = [one for one in world.agents if one[1] is not world.hosts[1]]
    world.view(2, 3, 4)
    world.run()
    world.until(lambda: world.power[5] is Power.ON)
    assert "bmc5 on" in told(world, 3), "the second try is the second member's"


def test_nothing_is_switched_on_while_a_life_of_the_node_is_an_unproven_victim(tmp_path: Path) -> None:
    world = World(tmp_path, 3, fence_action="reboot")
    world.pass_ms(2000)
    world.says["bmc3", "on"] = Power.UNKNOWN
    lose(world, 1, 2)
    world.until(lambda: "power-on-failed" in world.hosts[1].kinds())
    del world.says["bmc3", "on"]
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.UNKNOWN
    world.says["pdu3", "off"] = Power.UNKNOWN
    world.boot(3, 1, 2, 3)  # somebody pressed the button
    world.pass_ms(2000)
    world.hosts[1].runs.clear()
    lose(world, 1, 2)
    world.pass_ms(20_000)
    assert "bmc3 off" in told(world)
    assert not [one for one in told(world) + told(world, 2) if one.endswith("bmc3 on")][1:]
    assert world.hosts[1].do(calls.Status())["victims"]


def test_a_host_that_was_not_off_is_not_switched_on(tmp_path: Path) -> None:
    world = World(tmp_path, 3, fence_action="reboot")
    world.pass_ms(2000)
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.OFF  # the perfect liar
    world.says["bmc3", "on"] = Power.UNKNOWN
    world.freeze(3)  # its daemon alone: the host stays in the ring, and its daemon is called silent
    world.until(lambda: "power-on-failed" in world.hosts[1].kinds())
    assert world.hosts[2].node.context.state.power_ons
    three = world.hosts[3]
    three.frozen = False
    while three.inbox:
        three.feed(three.inbox.popleft())
    world.until(lambda: "fence-lied" in world.hosts[1].kinds())
    assert not world.hosts[2].node.context.state.power_ons


# -- access to the storage ------------------------------------------------------------------


def with_scsi(config: ClusterConfig) -> ClusterConfig:
    scsi = DeviceConfig("scsi", "fence_scsi", Confirms.STORAGE_CUT)
    nodes = tuple(
        msgspec.structs.replace(node, levels=(Level((Use("scsi", {"plug": f"{node.id}"}),)), *node.levels))
        for node in config.nodes
    )
    return msgspec.structs.replace(config, nodes=nodes, devices=(*config.devices, scsi))


def test_a_node_gets_its_way_to_the_storage_by_itself_once_it_is_let_in(tmp_path: Path) -> None:
    world = World(tmp_path, 3, shape=with_scsi)
    world.pass_ms(3000)
    for id, host in world.hosts.items():
        assert told(world, id) == [f"scsi{id} on"]
        assert "power-on-done" in host.kinds()
    assert not world.hosts[1].node.context.state.power_ons


def test_a_node_that_is_not_let_in_gets_no_way_to_the_storage(tmp_path: Path) -> None:
    world = World(tmp_path, 3, members=(1,), shape=with_scsi)
    world.pass_ms(3000)
    assert not told(world), "alone it is in no primary view"


def test_no_volume_is_written_before_the_way_to_the_storage_is_open(tmp_path: Path) -> None:
    world = World(tmp_path, 3, shape=with_scsi)
    world.pass_ms(3000)
    one = world.hosts[1]
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20))
    world.pass_ms(1000)
    one.do(calls.LvChange("vg0", "vm1", "n"))
    world.says["scsi", "on"] = Power.UNKNOWN
    three = world.hosts[3]
    three.kill()
    world.view(1, 2, how="procdown")
    world.run()
    three.start()
    world.view(1, 2, 3)
    world.run()
    world.until(lambda: "power-on-failed" in three.kinds())
    with pytest.raises(Refused, match=r"again failed: scsi\[3\]: as scripted"):
        three.do(calls.LvChange("vg0", "vm1", "ey"))
    assert not three.paths
    one.do(calls.LvChange("vg0", "vm1", "ey"))
    world.pass_ms(200)
    one.do(calls.LvChange("vg0", "vm1", "n"))
    del world.says["scsi", "on"]
    world.until(lambda: "power-on-done" in three.kinds()[three.kinds().index("power-on-failed") :])
    world.pass_ms(200)
    three.do(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    assert three.paths


def test_a_maintenance_keeps_no_member_from_its_storage(tmp_path: Path) -> None:
    world = World(tmp_path, 3, shape=with_scsi)
    world.pass_ms(3000)
    world.hosts[1].ask(calls.FenceDisarm(3_600_000, "ann", "new cables"))
    world.pass_ms(200)
    assert world.hosts[2].node.context.state.disarmed is not None
    three = world.hosts[3]
    three.kill()
    world.view(1, 2, how="procdown")
    world.run()
    three.runs.clear()
    three.start()
    world.view(1, 2, 3)
    world.run()
    world.until(lambda: told(world, 3) == ["scsi3 on"])
