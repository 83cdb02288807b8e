"""Many lock orders of one command in real engines: in slices, to one answer, whatever happens meanwhile."""

from pathlib import Path

import pytest
from engine_ring import Host, World

from ringfence.core.errors import LocksLost, TimedOut
from ringfence.engine import inputs
from ringfence.wire import client as calls

LVS = 8


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 2, at_once=3)
    world.pass_ms(300)  # heartbeats came back: there is authority
    first = world.hosts[1]
    first.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    for number in range(LVS):
        first.do(calls.LvCreate("vg0", f"lv{number}", extents=1, activate="n"))
    world.pass_ms(300)
    return world


def activate(host: Host, wait_ms: int | None = 0) -> str:
    return host.ask(calls.LvChange("vg0", "", activate="ey", wait_ms=wait_ms))


def persistent(host: Host) -> int:
    assert host.node is not None
    assert host.node._running is not None
    return len(host.node._running.locker.persistent())


def test_every_lock_is_had_in_slices(world: World) -> None:
    first, second = world.hosts.values()
    assert len(first.reply(activate(first))["lvs"]) == LVS
    assert len(first.paths) == persistent(first) == LVS
    with pytest.raises(Exception, match=r"held EX by an-a01n01 \(and 7 more"):
        second.reply(activate(second))
    assert persistent(second) == 0
    first.do(calls.LvChange("vg0", "", activate="n"))
    assert (first.paths, persistent(first)) == ({}, 0)
    assert len(second.reply(activate(second))["lvs"]) == LVS


def test_a_life_that_is_lost_half_way_opens_nothing(world: World) -> None:
    first, _ = world.hosts.values()
    world.stopped = True
    asked = activate(first)
    assert first.reply(asked) is None
    world.freeze(1)
    world.stopped = False
    world.view(2)
    world.run()
    world.thaw(1, 1, 2)
    world.run()
    with pytest.raises(LocksLost):
        first.reply(asked)
    assert (first.paths, persistent(first)) == ({}, 0)


def test_a_client_that_goes_waits_for_nothing_more(world: World) -> None:
    first, second = world.hosts.values()
    second.do(calls.LvChange("vg0", "lv3", activate="ey"))
    asked = first.ask(calls.LvChange("vg0", "", activate="ey", wait_ms=None), client=7)
    world.run()
    assert first.reply(asked) is None, "it waits for the one that is held"
    first.feed(inputs.ClientGone(7))
    world.run()
    with pytest.raises(TimedOut):
        first.reply(asked)
    assert persistent(first) == LVS - 1
