"""What a member's disk remembers of the lost: never forgotten, never held against the living."""

from pathlib import Path

import msgspec
import pytest
from engine_ring import World

from ringfence.core.errors import NotFound, Refused
from ringfence.core.evidence import Power
from ringfence.core.ids import Life
from ringfence.engine.inputs import Delivered
from ringfence.wire import client as calls

UNKNOWN = Life(2)
"""Any life of host 2."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Host 3 is gone and fenced; host 2 holds a lock."""
    world = World(tmp_path, 3)
    world.pass_ms(1000)
    world.cut(3)
    world.view(1, 2)
    world.run()
    world.until(lambda: not world.hosts[1].node.context.state.victims())
    world.hosts[2].do(calls.JoinSpace("mine"))
    world.hosts[2].do(calls.Lock("mine", "x"))
    return world


def boot_with_memory(world: World, *members: int) -> None:
    three = world.hosts[3]
    three.disk = msgspec.structs.replace(three.disk, victims=(UNKNOWN,))
    world.boot(3, *members)


def test_any_life_of_a_node_is_not_the_one_that_is_let_in(world: World) -> None:
    one = world.hosts[1]
    seen = len(one.events)
    boot_with_memory(world, 1, 2, 3)
    assert world.hosts[3].running
    assert one.node.context.state.victims() == []
    assert [event.kind for event in one.events[seen:] if event.kind in ("evidence", "purged")] == []
    assert one.node.context.state.frozen == []


def test_any_life_of_a_node_that_is_away_is_a_victim_again(world: World) -> None:
    one = world.hosts[1]
    world.cut(2)
    world.view(1)  # no quorum: nothing is decided about host 2 yet
    boot_with_memory(world, 1, 3)
    assert UNKNOWN in [victim.life for victim in one.node.context.state.victims()]
    assert "mine" in one.node.context.state.frozen


def test_a_word_that_was_signed_before_the_loss_is_not_taken_for_it(world: World) -> None:
    """A daemon that stood still finds it in its socket, after the news of the loss."""
    one = world.hosts[1]
    world.says["bmc2", "off"] = world.says["pdu2", "off"] = Power.UNKNOWN
    signed_ns = world.now_ns
    boot_with_memory(world, 1, 2, 3)
    world.pass_ms(1000)
    world.freeze(2)
    world.view(1, 3)
    world.run()
    with pytest.raises(Refused, match="an-a01n02 was lost after this was signed"):
        one.do(calls.FenceConfirm("an-a01n02", "ann", "it was dark", signed_ns))
    assert one.node.context.state.victims()[0].evidence == []
    world.pass_ms(1000)
    answer = one.do(calls.FenceConfirm("an-a01n02", "ann", "it is dark", world.now_ns))
    assert answer["confirmed"]
    world.until(lambda: one.node.context.state.victims() == [])


def test_a_device_that_lied_is_not_believed_after_a_cold_start(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    lied = (("bmc2", "vouched for what was not so"),)
    for host in (one, two):
        world.cut(host.id)
        host.disk = msgspec.structs.replace(host.disk, quarantined=lied if host is two else ())
    world.boot(1, 1)
    world.boot(2, 1, 2)
    assert one.node.context.state.domain.quarantined == dict(lied)
    assert one.disk.quarantined == lied
    world.until(lambda: one.node.context.may_report)
    with pytest.raises(NotFound, match="no device is called bcm2"):
        one.do(calls.FenceTrust("bcm2", "ann"))
    with pytest.raises(Refused, match="device bmc1 is not in quarantine"):
        one.do(calls.FenceTrust("bmc1", "ann"))
    one.do(calls.FenceTrust("bmc2", "ann"))
    world.pass_ms(200)
    assert one.disk.quarantined == two.disk.quarantined == ()


def test_who_was_not_admitted_with_open_paths_comes_in_once_they_are_closed(tmp_path: Path) -> None:
    """They close between the barrier's end and what the carrier says after it."""
    world = World(tmp_path, 3, members=(1, 2))
    world.pass_ms(1000)
    three = world.hosts[3]
    three.reaped = False
    three.start()
    world.view(1, 2, 3)
    for sender, payload in [world.queue.popleft() for _ in world.members]:  # each says that it is ready
        for host in world.hosts.values():
            host.feed(Delivered(sender, payload))
    world.stopped = True
    world.run()
    assert "reborn" in three.kinds()
    world.go_on()
    assert three.running
