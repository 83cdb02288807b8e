"""Operators' words on whole engines: fence a node, no fencing for a while, another machine."""

from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_ring import TICK_MS, TIMING, Host, World

from ringfence.core.errors import BadInput, NotFound, Refused
from ringfence.core.evidence import Evidence, EvidenceKind, Power
from ringfence.core.ids import Epoch, Life
from ringfence.engine.inputs import Tick, Wall
from ringfence.engine.losses import expose, fenced_by
from ringfence.fencing.domain import FencedRecord
from ringfence.fencing.drills import Drill
from ringfence.wire import FENCING, Speaks
from ringfence.wire import client as calls
from ringfence.wire.entries import AttemptBegan, DrillKind
from ringfence.wire.ring import Hardware


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 3)
    world.pass_ms(1000)
    for host in world.hosts.values():
        host.do(calls.JoinSpace("games"))
    return world


def fence(host: Host, node: str, action: str = "") -> Any:
    return host.do(calls.FenceNode(node, "ann", "it smokes", host.world.now_ns, action))


def status(host: Host, node: str = "") -> dict[str, Any]:
    found: dict[str, Any] = host.do(calls.FenceStatus(node))
    return found


def offs(world: World) -> list[str]:
    """Devices that were told to switch off, in order."""
    return [run.device for host in world.hosts.values() for run in host.runs if run.action == "off"]


# -- fence NODE ---------------------------------------------------------------------------


def test_a_member_that_is_ordered_fenced_is_out_at_once_and_is_cut(world: World) -> None:
    one, three = world.hosts[1], world.hosts[3]
    three.do(calls.Lock("games", "chess"))
    waits = one.ask(calls.Lock("games", "chess"))
    answer = fence(one, "an-a01n03")
    assert answer["node"] == "an-a01n03"
    assert three.kinds().count("stale") == 1, "it is told so by the order itself"
    (victim,) = status(one)["victims"]
    assert (victim["order"], victim["acts"], victim["missing"][0]) == (
        answer["order"], "an-a01n01", "evidence",
    )  # fmt: skip
    assert "ordered by ann (tester): it smokes" in victim["reason"]
    world.until(lambda: world.power[3] is Power.OFF)
    world.view(1, 2)
    world.run()
    assert one.reply(waits) is None, "nothing moves before the purge bound"
    world.until(lambda: one.reply(waits) is not None)
    (fenced,) = status(one, "an-a01n03")["fenced"]
    assert (fenced["order"], fenced["evidence"][0]["kind"]) == (answer["order"], "host-off")
    assert offs(world) == ["bmc3"]


def test_it_is_not_let_in_again_before_that(world: World) -> None:
    """Its next incarnation has closed every volume: no reason to forget the order."""
    one, three = world.hosts[1], world.hosts[3]
    world.says["bmc3", "off"] = world.says["pdu3", "off"] = Power.UNKNOWN
    fence(one, "an-a01n03")
    world.pass_ms(2000)
    assert "reborn" in three.kinds()
    assert not three.running
    why = "an-a01n03 is to be fenced, as ann (tester) ordered: it is let in again after that"
    assert three.do(calls.Status())["why"] == why
    assert status(one)["victims"][0]["proven"] is False
    assert one.do(calls.Status())["refused"] == [why]
    world.says.clear()
    world.until(lambda: world.power[3] is Power.OFF)
    world.boot(3, 1, 2, 3)
    world.until(lambda: three.running)
    world.until(lambda: status(one)["victims"] == [])


def test_it_goes_on_speaking_so_that_a_liar_is_found_out(world: World) -> None:
    """Who is kept out asks again and again: its voice contradicts the device that calls it off."""
    one, three = world.hosts[1], world.hosts[3]
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.OFF
    world.slow["bmc3"] = 1000
    fence(one, "an-a01n03")
    world.until(lambda: world.power[3] is Power.OFF)
    (incident,) = one.node.context.state.incidents
    assert (incident.kind, incident.device) == ("fence-contradicted", "bmc3")
    assert offs(world) == ["bmc3", "pdu3"]
    assert three.kinds().count("shut-out") == 1


def test_a_quick_lie_about_a_living_node_waits_for_its_voice(world: World) -> None:
    """Its paths are closed, its next life begins, it asks to be let in: all that takes longer than to lie."""
    one, three = world.hosts[1], world.hosts[3]
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.OFF
    world.slow["bmc3"] = TICK_MS
    fence(one, "an-a01n03")
    listens = [line for line in one.do(calls.Why("an-a01n03"))["lines"] if "listens" in line]
    assert not listens
    world.until(lambda: len(one.runs) == 2)
    world.pass_ms(2 * TICK_MS)
    assert [line for line in one.do(calls.Why("an-a01n03"))["lines"] if "listens" in line]
    world.until(lambda: world.power[3] is Power.OFF)
    assert "evidence" not in one.kinds(), "the lie was believed"
    assert offs(world) == ["bmc3", "pdu3"]
    assert status(one)["quarantined"] == {}
    assert three.kinds().count("shut-out") == 1


def test_an_honest_off_of_a_living_node_is_believed_two_tokens_later(world: World) -> None:
    one = world.hosts[1]
    fence(one, "an-a01n03")
    world.until(lambda: world.power[3] is Power.OFF)
    world.view(1, 2)
    world.run()
    took_ms = world.until(lambda: "evidence" in one.kinds())
    assert 2 * TIMING.token_ms <= took_ms <= 2 * TIMING.token_ms + 2 * TICK_MS
    assert offs(world) == ["bmc3"]


def test_who_was_lost_from_the_ring_is_not_listened_for(world: World) -> None:
    one = world.hosts[1]
    world.freeze(3)
    world.view(1, 2)
    world.run()
    world.until(lambda: "evidence" in one.kinds())
    (ended,) = [event for event in one.events if event.kind == "attempt-ended"]
    assert ended.fields["waits_ms"] == 0


def test_a_node_may_order_its_own_end_by_another(world: World) -> None:
    three = world.hosts[3]
    assert fence(three, "an-a01n03")["node"] == "an-a01n03"
    assert not three.running
    world.until(lambda: world.power[3] is Power.OFF)
    assert [host.id for host in world.hosts.values() if host.runs] == [1]


def test_a_node_that_is_away_is_cut_and_freezes_nothing(world: World) -> None:
    one, three = world.hosts[1], world.hosts[3]
    three.do(calls.LeaveSpace("games"))
    three.do(calls.Leave())
    three.node = None
    world.view(1, 2, how="leave")
    world.run()
    fence(one, "an-a01n03")
    assert one.node.context.state.frozen == []
    assert one.do(calls.Lock("games", "chess"))["mode"] == "EX"
    world.until(lambda: world.power[3] is Power.OFF)
    world.until(lambda: status(one)["victims"] == [])


def test_of_two_the_one_that_is_left_keeps_its_authority(tmp_path: Path) -> None:
    """The other left cleanly; that somebody wants it off says nothing about what it could still write."""
    world = World(tmp_path, 2)
    world.pass_ms(1000)
    one, two = world.hosts[1], world.hosts[2]
    two.do(calls.Leave())
    two.node = None
    world.view(1, how="leave")
    world.run()
    world.pass_ms(3000)
    assert one.node.context.may_report
    world.says["bmc2", "off"] = world.says["pdu2", "off"] = Power.UNKNOWN
    fence(one, "an-a01n02")
    world.pass_ms(3000)
    assert status(one)["victims"] != []
    assert one.node.context.may_report


def test_an_order_says_what_is_to_become_of_the_host(world: World) -> None:
    one = world.hosts[1]
    fence(one, "an-a01n03", "reboot")
    state = one.node.context.state
    (victim,) = state.victims()
    assert state.action_for(victim.life) == "reboot"
    assert status(one)["victims"][0]["action"] == "reboot"
    assert state.config.fence_action == "off"


def test_a_victim_in_its_grace_is_due_at_once(world: World) -> None:
    one = world.hosts[1]
    world.hosts[3].kill()
    world.view(1, 2, how="procdown")
    world.run()
    assert one.node.context.state.victims()[0].due is False
    fence(one, "an-a01n03")
    assert one.node.context.state.victims()[0].due is True


def test_orders_that_cannot_be_carried_out_are_refused(world: World, tmp_path: Path) -> None:
    one = world.hosts[1]
    with pytest.raises(NotFound, match="no node is called nobody"):
        fence(one, "nobody")
    with pytest.raises(BadInput, match='action "explode" is not known'):
        fence(one, "an-a01n03", "explode")
    with pytest.raises(Refused, match="the order was found 2 s after it was given"):
        one.do(calls.FenceNode("an-a01n03", "ann", "", world.now_ns - 2_000_000_000))
    world.cut(2)
    world.view(1, 3)
    world.run()
    with pytest.raises(Refused, match="without an-a01n03 the rest has no quorum"):
        fence(one, "an-a01n03")
    assert world.hosts[3].running


def test_a_repeated_order_counts_once(world: World) -> None:
    one = world.hosts[1]
    call = calls.FenceNode("an-a01n03", "ann", "it smokes", world.now_ns)
    for _ in range(2):
        one.ask(call, id="the-order")
    assert [order.id for order in one.node.context.state.orders] == ["the-order"]


def test_older_nodes_are_not_given_words_that_they_do_not_know(tmp_path: Path) -> None:
    world = World(tmp_path, 3, speaks=Speaks(1, FENCING - 1))
    world.pass_ms(1000)
    with pytest.raises(Refused, match=f"needs protocol {FENCING}"):
        fence(world.hosts[1], "an-a01n03")
    assert world.hosts[3].running


# -- disarm -----------------------------------------------------------------------------------


def test_while_disarmed_no_agent_starts_and_nothing_moves(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    world.hosts[3].do(calls.Lock("games", "chess"))
    two.do(calls.FenceDisarm(20_000, "ann", "new PDU"))
    world.freeze(3)
    world.view(1, 2)
    world.run()
    waits = one.ask(calls.Lock("games", "chess"))
    world.pass_ms(15_000)
    assert offs(world) == []
    assert one.reply(waits) is None
    assert one.node.context.state.frozen == ["games"]
    why = "\n".join(one.do(calls.Why())["lines"])
    assert why.startswith("FENCING IS DISARMED by ann (tester), new PDU")
    assert "next: nothing while fencing is disarmed" in why
    assert one.do(calls.Status())["disarmed"]["who"] == "ann (tester)"
    with pytest.raises(Refused, match="disarmed fencing; ringfence fence arm"):
        fence(one, "an-a01n03")
    world.until(lambda: offs(world) == ["bmc3"])
    assert status(one)["disarmed"] is None
    assert "armed" in one.kinds()
    world.until(lambda: one.reply(waits) is not None)


def test_what_runs_is_stopped(world: World) -> None:
    """Hands may be in the rack from now on."""
    one = world.hosts[1]
    world.slow["bmc3"] = 5000
    world.freeze(3)
    world.view(1, 2)
    world.run()
    world.until(lambda: bool(one.runs))
    one.do(calls.FenceDisarm(60_000, "ann"))
    assert world.agents == []
    world.pass_ms(6000)
    assert world.power[3] is Power.ON
    one.do(calls.FenceArm("bob"))
    world.until(lambda: world.power[3] is Power.OFF)
    with pytest.raises(Refused, match="nothing to arm"):
        one.do(calls.FenceArm("bob"))


def test_who_cannot_act_any_more_does_not_say_that_it_fences(world: World) -> None:
    one = world.hosts[1]
    world.slow["bmc3"] = 5000
    world.freeze(3)
    world.view(1, 2)
    world.run()
    world.until(lambda: bool(one.runs))
    world.freeze(2)
    world.view(1)
    world.pass_ms(1000)
    assert world.agents == []
    assert "an-a01n01 has stopped its agents: it cannot act now" in one.do(calls.Why())["lines"]


def test_it_outlives_a_daemon_and_ends_no_later(world: World) -> None:
    """Who comes later counts what has passed by the order's own dates."""
    for host in world.hosts.values():
        host.feed(Wall(1_000_000))
    one, two = world.hosts[1], world.hosts[2]
    one.do(calls.FenceDisarm(10_000, "ann"))
    world.pass_ms(4000)
    for host in (one, two):
        host.feed(Wall(1_004_000))
    one.kill()
    world.view(2, 3, how="procdown")
    world.run()
    one.start()
    one.feed(Wall(1_004_000))
    world.view(1, 2, 3)
    world.run()
    assert one.running
    assert status(one)["disarmed"]["left_ms"] <= 6000
    assert status(one)["disarmed"]["who"] == "ann (tester)"
    assert 5000 <= world.until(lambda: status(one)["disarmed"] is None) <= 7000


def test_one_clock_alone_does_not_end_it(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    one.do(calls.FenceDisarm(5000, "ann"))
    world.pass_ms(4500)
    world.freeze(2)
    world.pass_ms(1000)
    assert status(one)["disarmed"]["left_ms"] == 0
    two.frozen = False
    world.run()
    world.until(lambda: status(one)["disarmed"] is None)


def test_no_drill_is_left_in_its_middle(world: World) -> None:
    """It would leave an outlet off."""
    one = world.hosts[1]
    state = one.node.context.state
    for host in world.hosts.values():
        host.node.context.state.drill = Drill(DrillKind.CABLING, state.lives[3], state.lives[2], 0, "bob")
    with pytest.raises(Refused, match="a drill goes on"):
        one.do(calls.FenceDisarm(60_000, "ann"))
    assert one.node.context.state.disarmed is None


def test_a_second_maintenance_does_not_end_the_first_one_sooner(world: World) -> None:
    """Two operators: the hands of one are still in the rack when the other is through."""
    one, two = world.hosts[1], world.hosts[2]
    one.do(calls.FenceDisarm(60_000, "ann"))
    with pytest.raises(Refused, match=r"ann \(tester\) has disarmed fencing for longer than that"):
        two.do(calls.FenceDisarm(5000, "bob"))
    assert status(two)["disarmed"]["who"] == "ann (tester)"
    two.do(calls.FenceDisarm(90_000, "bob"))
    assert status(one)["disarmed"]["left_ms"] > 60_000


def test_disarming_has_a_limit(world: World) -> None:
    with pytest.raises(BadInput, match="between 1 s and 7 days"):
        world.hosts[1].do(calls.FenceDisarm(0, "ann"))


def test_an_attempt_that_was_asked_for_before_is_not_granted(world: World) -> None:
    """Both words are under way at once, and the maintenance comes first in the order."""
    one = world.hosts[1]
    world.freeze(3)
    world.view(1, 2)
    world.run()
    world.stopped = True
    while not one.node.context.outbox.unapplied(AttemptBegan):
        world.pass_ms(TICK_MS)
    mine, world.queue = world.queue, deque()
    world.hosts[2].ask(calls.FenceDisarm(60_000, "ann"))
    world.queue.extend(mine)
    world.stopped = False
    world.run()
    assert status(one)["disarmed"]
    assert one.node.context.state.victims()[0].number == 0
    one.do(calls.FenceArm("ann"))
    world.until(lambda: world.power[3] is Power.OFF)


def test_a_victim_that_speaks_contradicts_what_is_claimed_of_it(world: World) -> None:
    """Its daemon stood still, was called silent, and goes on while a device claims that it is off."""
    one, three = world.hosts[1], world.hosts[3]
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.OFF
    world.slow["bmc3"] = 1000
    world.freeze(3)
    world.until(lambda: any(run.action == "status" for run in one.runs))
    three.frozen = False
    three.feed(Tick())
    world.run()
    (incident,) = one.node.context.state.incidents
    assert (incident.kind, incident.device) == ("fence-contradicted", "bmc3")
    assert "still speaks: claim refused" in incident.what


# -- machines ---------------------------------------------------------------------------------


def leave(world: World, id: int) -> None:
    host = world.hosts[id]
    host.do(calls.LeaveSpace("games"))
    host.do(calls.Leave())
    host.node = None
    world.view(*(one for one in world.members if one != id), how="leave")
    world.run()


def come(world: World, id: int, machine: str, board: str = "") -> str:
    """Start another machine under a node id; returns why it is not let in."""
    host = world.hosts[id]
    host.machine, host.hardware = machine, Hardware(board)
    world.boot(id, *sorted({*world.members, id}))
    world.pass_ms(500)
    return "" if host.running else str(host.do(calls.Status())["why"])


def test_a_cloned_disk_is_refused_by_name(world: World) -> None:
    leave(world, 3)
    why = come(world, 3, "machine-2")
    assert why.startswith("an-a01n03 came from another machine")
    world.hosts[1].do(calls.NodeReenrol("an-a01n03", "ann", "new blade"))
    why = come(world, 3, "machine-2")
    assert why.startswith("an-a01n03's disk was cloned from an-a01n02, or the other way round")
    assert "rm /etc/machine-id" in why
    assert world.hosts[1].do(calls.Status())["refused"] == [why]
    assert come(world, 3, "machine-9") == ""


def test_a_disk_in_another_machine_is_refused_until_a_person_says_so(world: World) -> None:
    leave(world, 3)
    assert come(world, 3, "machine-3", "board-3") == ""
    world.pass_ms(500)
    world.hosts[3].do(calls.Leave())
    world.hosts[3].node = None
    world.view(1, 2, how="leave")
    world.run()
    why = come(world, 3, "machine-3", "other-board")
    assert "another board (DMI UUID other-bo, not board-3)" in why
    assert "ringfence node re-enrol an-a01n03" in why
    answer = world.hosts[1].do(calls.NodeReenrol("an-a01n03", "ann", "new board"))
    assert answer == {"node": "an-a01n03", "machine": "machine-3"}
    assert come(world, 3, "machine-3", "other-board") == ""


def test_a_clone_of_a_host_that_hangs_proves_nothing_of_it(world: World) -> None:
    """Same machine-id, another boot, another board: not the machine that came back."""
    world.hosts[3].hardware = Hardware("board-3")
    leave(world, 3)
    assert come(world, 3, "machine-3", "board-3") == ""
    one, three = world.hosts[1], world.hosts[3]
    three.do(calls.JoinSpace("games"))
    for device in ("bmc3", "pdu3"):
        world.says[device, "off"] = Power.UNKNOWN
    world.cut(3)
    world.view(1, 2)
    world.run()
    assert "another board" in come(world, 3, "machine-3", "the-clone")
    (victim,) = one.node.context.state.victims()
    assert victim.evidence == []
    assert one.node.context.state.frozen == ["games"]
    with pytest.raises(Refused, match="an-a01n03 must be proven fenced first"):
        one.do(calls.NodeReenrol("an-a01n03", "ann"))


def test_whose_a_node_id_is_survives_a_start_of_all(world: World) -> None:
    for host in world.hosts.values():
        host.hardware = Hardware(f"board-{host.id}")
    for id in (1, 2, 3):
        world.cut(id)
    for host in world.hosts.values():
        host.boots += 1
        host.start()
    world.view(1, 2, 3)
    world.run()
    assert all(host.running for host in world.hosts.values())
    for id in (1, 2, 3):
        world.cut(id)
    world.hosts[3].machine = "machine-9"
    world.hosts[2].hardware = Hardware("board-9")
    for host in world.hosts.values():
        host.boots += 1
        host.start()
    world.view(1, 2, 3)
    world.run()
    world.pass_ms(500)
    one = world.hosts[1]
    assert one.running or any(host.running for host in world.hosts.values())
    refused = [host.do(calls.Status())["why"] for host in world.hosts.values() if not host.running]
    assert len(refused) == 2
    assert "another board" in refused[0]
    assert "another machine" in refused[1]


def test_one_machine_that_runs_twice_is_found_out(world: World) -> None:
    """Its clone came back under a new boot id and was believed; then the first one thaws."""
    one, three = world.hosts[1], world.hosts[3]
    for device in ("bmc3", "pdu3"):
        world.says[device, "off"] = Power.UNKNOWN
    world.freeze(3)
    first = three.node
    world.view(1, 2)
    world.run()
    three.frozen, three.node = False, None
    world.boot(3, 1, 2, 3)
    world.until(lambda: three.running)
    world.until(lambda: one.node.context.state.victims() == [])
    world.view(1, 2)
    world.run()
    three.node = first
    world.thaw(3, 1, 2, 3)
    world.pass_ms(200)
    kinds = [incident.kind for incident in one.node.context.state.incidents]
    assert "clone-found" in kinds
    lied = [victim for victim in one.node.context.state.victims() if victim.lied]
    assert [victim.distrusted for victim in lied] == [["new-boot"]]


def test_beside_older_nodes_a_new_boot_exposes_nobody(world: World) -> None:
    """They do not know that rule: their state would be another one from here on."""
    state = world.hosts[1].node.context.state
    old, new = Life(3, "m", "boot-old", 1), Life(3, "m", "boot-new", 1)
    proof = Evidence(old, EvidenceKind.NEW_BOOT, 3, "it came back under a new boot id", (), 0)
    state.domain.fenced.append(FencedRecord(old, [proof], [], Epoch(1, 1)))
    for protocol, lied in ((FENCING - 1, None), (FENCING, old)):
        state.protocol = protocol
        assert fenced_by(state, msgspec.structs.replace(old, incarnation=2)) == lied
        assert fenced_by(state, new) is None
    state.protocol = FENCING - 1
    assert expose(state, old) == []


def test_a_virtual_machine_is_named(world: World) -> None:
    leave(world, 3)
    three = world.hosts[3]
    three.hardware = Hardware("b", "kvm")
    world.boot(3, 1, 2, 3)
    world.pass_ms(500)
    assert status(world.hosts[1])["nodes"][2]["hypervisor"] == "kvm"
    assert world.hosts[1].do(calls.Status())["members"][2]["hypervisor"] == "kvm"
