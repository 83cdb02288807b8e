"""corosync's own quorum can forbid what the votes in the stream allow, and never the other way round."""

from pathlib import Path

import pytest
from engine_ring import TIMING, World

from ringfence.core.evidence import Power
from ringfence.engine.inputs import QuorumSaid, RingRemarked
from ringfence.wire import client as calls


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 3, ring="corosync")
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(200)
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20))
    one.do(calls.JoinSpace("games"))
    world.pass_ms(200)
    return world


def veto(world: World, *nodes: int, quorate: bool = False) -> None:
    for node in nodes:
        world.hosts[node].feed(QuorumSaid(quorate))
    world.run()


def test_under_a_veto_nothing_is_granted_and_authority_runs_out_and_then_all_goes_on(world: World) -> None:
    one = world.hosts[1]
    assert one.may_write("vg/vg0")
    veto(world, 1, 2, 3)
    asked = one.ask(calls.Lock("games", "chess"))
    assert one.reply(asked) is None
    world.pass_ms(TIMING.write_ms - 500)
    assert one.may_write("vg/vg0"), "what it had earned stands"
    world.pass_ms(1000)
    assert not one.may_write("vg/vg0")
    assert not one.may_write("grant")
    assert one.reply(asked) is None
    found = one.do(calls.Status())
    assert "an-a01n01 may not act: corosync says that it is not quorate" in found["blocked_by"][0]
    why = one.do(calls.Why(""))
    assert why["stuck"]
    assert "an-a01n01 may not act: corosync says that it is not quorate" in why["lines"][0]
    assert "write authority ran out" in why["lines"][1]
    assert "corosync-quorumtool -s" in why["lines"][2]
    veto(world, 1, 2, 3, quorate=True)
    world.pass_ms(500)
    assert one.reply(asked) is not None
    assert one.may_write("vg/vg0")
    assert one.node.context.state.lockspaces["lvm_vg0"].resources, "no lock was lost"
    assert [kind for kind in one.kinds() if "quorate" in kind] == ["not-quorate", "quorate"]
    assert "stale" not in one.kinds()
    assert not one.do(calls.Status())["blocked"]


def test_under_a_veto_nobody_fences(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    world.freeze(3)
    veto(world, 1, 2)
    world.view(1, 2)
    world.run()
    world.pass_ms(20_000)
    assert not one.runs
    assert not two.runs
    veto(world, 1, 2, quorate=True)
    world.until(lambda: world.power[3] is Power.OFF)


def test_a_veto_of_one_does_not_keep_the_others_from_fencing(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    world.freeze(3)
    veto(world, 1)
    world.view(1, 2)
    world.run()
    world.until(lambda: world.power[3] is Power.OFF)
    assert not one.runs
    assert two.runs


def test_under_a_veto_of_all_attempts_are_not_given_up_again_and_again(world: World) -> None:
    world.freeze(3)
    veto(world, 1, 2)
    world.view(1, 2)
    world.run()
    world.pass_ms(60_000)
    victim = world.hosts[1].node.context.state.victims()[0]
    assert 2 <= victim.round <= 8, "rounds go on, with the pauses of rounds that failed"


def test_attempt_that_a_veto_interrupts_is_given_up_and_made_again(world: World) -> None:
    one = world.hosts[1]
    world.freeze(3)
    world.view(1, 2)
    world.until(lambda: bool(one.runs))
    veto(world, 1, 2)  # it comes a moment after the view
    world.pass_ms(5000)
    assert world.power[3] is Power.ON, "the agent was killed before it had done anything"
    assert len(one.runs) == 1
    attempts = one.node.context.state.victims()[0].attempts
    assert attempts
    assert all("could not act for a while" in attempt.verdict for attempt in attempts)
    veto(world, 1, 2, quorate=True)
    world.until(lambda: world.power[3] is Power.OFF)


def test_attempt_that_was_asked_for_before_the_veto_starts_no_agent(world: World) -> None:
    one = world.hosts[1]
    world.freeze(3)
    world.view(1, 2)
    while not any(b"AttemptBegan" in payload for _, payload in world.queue):
        world.deliver(*world.queue.popleft())
    veto(world, 1, 2)
    world.pass_ms(2000)
    assert not one.runs


def test_quorate_is_no_authority(world: World) -> None:
    one = world.hosts[1]
    world.view(1)
    world.run()
    veto(world, 1)
    veto(world, 1, quorate=True)
    world.pass_ms(TIMING.write_ms + 1000)
    assert not one.may_write("vg/vg0")
    assert not one.may_write("grant")
    assert not one.running
    assert not one.runs


def test_what_is_said_again_is_no_event(world: World) -> None:
    one = world.hosts[1]
    veto(world, 1, quorate=True)
    veto(world, 1)
    veto(world, 1)
    assert [kind for kind in one.kinds() if "quorate" in kind] == ["not-quorate"]


def test_remark_is_an_event_and_in_the_status_until_it_is_taken_back(world: World) -> None:
    one = world.hosts[1]
    one.feed(RingRemarked("corosync's token is 3000 ms"))
    assert one.kinds()[-1] == "ring-remark"
    assert one.do(calls.Status())["remarks"] == ["corosync's token is 3000 ms"]
    one.feed(RingRemarked(""))
    assert one.do(calls.Status())["remarks"] == []


def test_ring_that_does_not_deliver_is_said(world: World) -> None:
    one = world.hosts[1]
    world.stopped = True
    world.pass_ms(TIMING.grant_ms + 200)
    line, *_ = one.do(calls.Why(""))["lines"]
    assert "messages of an-a01n01 do not come back from the ring since" in line
    assert "corosync does not deliver" in line
