"""Asking all hosts what they look like: who answers, who is named, and what a mixed cluster does."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_ring import World

from ringfence.core.errors import LocksLost, Refused, RingfenceError, TimedOut
from ringfence.core.evidence import Power
from ringfence.engine import checkups
from ringfence.engine.inputs import RingLost
from ringfence.wire import Speaks
from ringfence.wire import client as calls
from ringfence.wire.checkup import Checkup


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 3)
    world.pass_ms(1000)
    return world


def told(answer: Any) -> Checkup:
    return msgspec.convert(answer, Checkup)


def test_every_host_is_asked_and_told_of(world: World) -> None:
    began_ns = world.now_ns
    found = told(world.hosts[2].do(calls.Checkup()))
    assert [(one.node, one.name, one.facts.node) for one in found.hosts] == [
        (1, "an-a01n01", "an-a01n01"), (2, "an-a01n02", "an-a01n02"), (3, "an-a01n03", "an-a01n03"),
    ]  # fmt: skip
    assert found.asked_ns == began_ns
    assert all(one.told_ns >= found.asked_ns for one in found.hosts)
    assert (found.silent, found.absent) == ((), ())


def test_it_changes_no_state(world: World) -> None:
    before = {id: host.node.context.state.lockspaces for id, host in world.hosts.items()}
    victims = world.hosts[1].do(calls.Status())["victims"]
    world.hosts[1].do(calls.Checkup())
    assert {id: host.node.context.state.lockspaces for id, host in world.hosts.items()} == before
    assert world.hosts[1].do(calls.Status())["victims"] == victims


def test_two_who_ask_at_once_get_the_same_answer(world: World) -> None:
    world.stopped = True
    one = world.hosts[1]
    asked = [one.ask(calls.Checkup(), client=client) for client in (1, 2)]
    world.go_on()
    first, second = (one.reply(id) for id in asked)
    assert first == second
    assert first is not None


def test_a_host_whose_look_fails_says_so(world: World) -> None:
    world.hosts[3].looks = None
    (third,) = [one for one in told(world.hosts[1].do(calls.Checkup())).hosts if one.node == 3]
    assert third.facts.unseen == ("this host: it cannot look",)


def test_a_host_that_does_not_answer_is_named(world: World) -> None:
    """Its look hangs; its daemon is well."""
    world.hosts[3].hanging = True
    id = world.hosts[1].ask(calls.Checkup())
    world.pass_ms(checkups.ANSWER_MS - 500)
    assert world.hosts[1].reply(id) is None
    world.pass_ms(1000)
    found = told(world.hosts[1].reply(id))
    assert [one.node for one in found.hosts] == [1, 2]
    assert found.silent == ("an-a01n03",)


def test_a_host_that_is_not_there_is_absent(world: World) -> None:
    world.hosts[3].kill()
    world.view(1, 2)
    world.run()
    world.pass_ms(500)
    found = told(world.hosts[1].do(calls.Checkup()))
    assert ([one.node for one in found.hosts], found.absent) == ([1, 2], ("an-a01n03",))


def test_a_host_that_is_lost_before_it_answers_is_not_waited_for(world: World) -> None:
    world.hosts[3].hanging = True
    id = world.hosts[1].ask(calls.Checkup())
    world.hosts[3].kill()
    world.view(1, 2)
    world.run()
    world.pass_ms(500)
    assert told(world.hosts[1].reply(id)).absent == ("an-a01n03",)


def test_a_ring_that_stands_still_is_told(world: World) -> None:
    world.stopped = True
    id = world.hosts[1].ask(calls.Checkup())
    world.pass_ms(checkups.ANSWER_MS + 500)
    with pytest.raises(TimedOut, match="has not brought the question back"):
        world.hosts[1].reply(id)


def test_a_node_without_a_ring_looks_at_itself_alone(world: World) -> None:
    world.hosts[1].feed(RingLost("cable"))
    found = told(world.hosts[1].do(calls.Checkup()))
    assert [one.node for one in found.hosts] == [1]
    assert (found.silent, found.absent, found.alone) == ((), (), True)
    world.hosts[1].looks = None
    with pytest.raises(RingfenceError, match="it cannot look"):
        world.hosts[1].do(calls.Checkup())


def test_a_node_that_went_stale_does_not_leave_the_asker_waiting(world: World) -> None:
    world.hosts[3].hanging = True
    for action in ("off", "status"):
        world.says["bmc1", action] = Power.OFF  # a lie: it runs on
    id = world.hosts[1].ask(calls.Checkup())
    world.view(2, 3)
    world.run()
    world.pass_ms(6000)
    world.view(1, 2, 3)
    world.run()
    world.pass_ms(500)
    with pytest.raises(LocksLost):
        world.hosts[1].reply(id)


def test_older_nodes_are_not_asked_what_they_do_not_know(tmp_path: Path) -> None:
    world = World(tmp_path, 2, speaks=Speaks(1, 2))
    world.pass_ms(1000)
    with pytest.raises(Refused, match="speaks protocol 2, and compares hosts from 3 on"):
        world.hosts[1].do(calls.Checkup())
