"""A view begins while a daemon stands still and its host is in the ring: the others go on without it.

It is a victim like any other then: nothing that it holds moves before there is evidence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_ring import TIMING, Host, World

from ringfence.core.evidence import Power
from ringfence.core.ids import Life
from ringfence.engine.digest import digest_of_state
from ringfence.engine.inputs import Tick
from ringfence.wire import LEAVE_OUT, Speaks
from ringfence.wire import client as calls

PATIENCE_MS = TIMING.left_out_ms()
ONE = "an-a01n01"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., World]:
    def made(count: int = 3, **options: Any) -> World:
        """vg0/vm1 is active on host 1."""
        world = World(tmp_path, count, ring="corosync", **options)
        world.pass_ms(1000)
        world.hosts[1].do(calls.VgCreate("vg0", (str(world.image),), shared=True))
        world.pass_ms(1000)
        world.hosts[1].do(calls.LvCreate("vg0", "vm1", size_bytes=4 << 20))
        world.pass_ms(4000)
        return world

    return made


def freeze_as_a_view_begins(world: World, *ids: int) -> None:
    for id in ids:
        world.freeze(id)
    world.view(*world.hosts)
    world.run()


def go_on(world: World, id: int) -> None:
    """Its daemon finds all that came meanwhile, in its order."""
    host = world.hosts[id]
    host.frozen = False
    while host.inbox:
        host.feed(host.inbox.popleft())
    world.run()


def dead_devices(world: World, *ids: int) -> None:
    for id in ids:
        for device in (f"bmc{id}", f"pdu{id}"):
            world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN


def why(host: Host, target: str = "") -> str:
    asked = host.ask(calls.Why(target))
    host.world.pass_ms(100)
    return "\n".join(host.reply(asked)["lines"])


def life(host: Host) -> Life:
    assert host.node is not None
    assert host.node.context is not None
    return host.node.context.life


def told(host: Host) -> str:
    return "\n".join(event.what for event in host.events)


def victims(host: Host) -> list[int]:
    assert host.node is not None
    assert host.node.context is not None
    state = host.node.context.state
    return [victim.life.node for victim in state.victims()] if state else []


def states(world: World) -> set[tuple[int, str]]:
    found = set()
    for host in world.hosts.values():
        assert host.node is not None
        state = host.node.context.state
        assert state is not None
        found.add((state.position, digest_of_state(state)))
    return found


def test_it_is_fenced_and_its_volume_moves(make: Callable[..., World]) -> None:
    world = make()
    two = world.hosts[2]
    freeze_as_a_view_begins(world, 1)
    asked = two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    world.pass_ms(TIMING.silent_ms)
    waits = f"waits for {ONE} to say that it is ready; after 3 s it goes on without, and has that fenced"
    assert waits in why(two)
    assert not two.running
    took_ms = world.until(lambda: two.running)
    assert took_ms <= PATIENCE_MS - TIMING.silent_ms
    assert victims(two) == [1]
    assert f"{ONE} must be fenced: its daemon is silent: it did not say that it is ready in view" in told(two)
    assert asked not in two.replies
    world.until(lambda: asked in two.replies)
    assert world.power[1] is Power.OFF
    assert two.may_write("vg/vg0")


def test_who_cannot_be_fenced_comes_back_as_its_next_life(make: Callable[..., World]) -> None:
    world = make()
    one, two = world.hosts[1], world.hosts[2]
    dead_devices(world, 1)
    before = life(one)
    freeze_as_a_view_begins(world, 1)
    asked = two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    world.pass_ms(30_000)
    assert asked not in two.replies, "there is no evidence"
    go_on(world, 1)
    assert one.paths == {}
    assert not one.may_write("vg/vg0")
    world.until(lambda: asked in two.replies and one.running)
    assert life(one).incarnation == before.incarnation + 1
    assert f"{ONE} is stale: view 2.1 began without it" in told(one)
    assert victims(two) == []
    assert len(states(world)) == 1
    assert "fence-lied" not in two.kinds()


def test_a_device_that_lied_of_it_is_found_out(make: Callable[..., World]) -> None:
    world = make()
    one, two = world.hosts[1], world.hosts[2]
    world.says["bmc1", "off"] = world.says["bmc1", "status"] = Power.OFF
    freeze_as_a_view_begins(world, 1)
    world.until(lambda: "purged" in two.kinds())
    assert world.power[1] is Power.ON
    go_on(world, 1)
    assert one.paths == {}
    assert "fence-lied" in two.kinds()


def test_nobody_goes_on_without_a_majority_that_speaks(make: Callable[..., World]) -> None:
    world = make()
    three = world.hosts[3]
    lives = [life(host) for host in world.hosts.values()]
    freeze_as_a_view_begins(world, 1, 2)
    world.pass_ms(20_000)
    said = why(three)
    assert f"waits for {ONE}, an-a01n02 to say that it is ready" in said
    assert "goes on without" not in said
    go_on(world, 1)
    go_on(world, 2)
    world.until(lambda: all(host.running for host in world.hosts.values()))
    assert [life(host) for host in world.hosts.values()] == lives
    assert not [run for host in world.hosts.values() for run in host.runs]


def test_of_two_the_other_one_goes_on(make: Callable[..., World]) -> None:
    world = make(2)
    two = world.hosts[2]
    freeze_as_a_view_begins(world, 1)
    asked = two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    world.until(lambda: asked in two.replies)
    assert world.power[1] is Power.OFF


def test_nobody_is_left_out_by_whom_it_would_not_understand(make: Callable[..., World]) -> None:
    world = make(speaks=Speaks(1, LEAVE_OUT - 1))
    two = world.hosts[2]
    freeze_as_a_view_begins(world, 1)
    world.pass_ms(20_000)
    assert not two.running
    assert "goes on without" not in why(two)
    go_on(world, 1)
    world.until(lambda: two.running and world.hosts[1].running)


def test_who_was_to_leave_it_out_is_silent_as_well(make: Callable[..., World]) -> None:
    """Host 1 says nothing; host 2 has said Ready, and stands still since."""
    world = make(5)
    dead_devices(world, 1, 2)
    freeze_as_a_view_begins(world, 1)
    world.freeze(2)
    three = world.hosts[3]
    took_ms = world.until(lambda: three.running)
    assert PATIENCE_MS < took_ms <= PATIENCE_MS + TIMING.silent_ms
    world.until(lambda: victims(three) == [1, 2])
    for id in (2, 1):
        go_on(world, id)
    world.until(lambda: all(host.running for host in world.hosts.values()) and victims(three) == [])
    assert len(states(world)) == 1


def test_who_speaks_at_the_last_moment_is_in(make: Callable[..., World]) -> None:
    """Its Ready stands in the order before the word that it is to be left out."""
    world = make()
    one, two = world.hosts[1], world.hosts[2]
    before = life(one)
    freeze_as_a_view_begins(world, 1)
    world.pass_ms(PATIENCE_MS - 50)
    world.stopped = True
    one.frozen = False
    while one.inbox:
        one.feed(one.inbox.popleft())
    world.pass_ms(200)
    assert [sender for sender, _ in world.queue] == [1, 2]
    world.stopped = False
    world.run()
    world.pass_ms(2000)
    assert one.running
    assert two.running
    assert life(one) == before
    assert "victim" not in two.kinds()
    assert len(states(world)) == 1


def test_a_newcomer_that_was_left_out_is_let_in_later(make: Callable[..., World]) -> None:
    """It has held nothing yet."""
    world = make()
    one, three = world.hosts[1], world.hosts[3]
    world.cut(3)
    world.view(1, 2)
    world.until(lambda: victims(one) == [] and one.running)
    three.boots += 1
    world.power[3] = Power.ON
    three.start()
    seen = len(one.events)
    freeze_as_a_view_begins(world, 3)
    world.until(lambda: one.running)
    world.pass_ms(5000)
    assert victims(one) == []
    go_on(world, 3)
    world.until(lambda: three.running)
    world.pass_ms(1000)
    assert victims(one) == []
    assert not [event for event in one.events[seen:] if event.kind == "fence-lied"]
    assert len(states(world)) == 1
    three.do(calls.LvCreate("vg0", "vm3", size_bytes=4 << 20))


def test_an_answer_to_the_life_that_was_left_out_is_not_taken_for_one_to_the_next(
    make: Callable[..., World],
) -> None:
    """Its paths are closed, and it says Ready again, before the others have heard what came too late."""
    world = make()
    one, two = world.hosts[1], world.hosts[2]
    dead_devices(world, 1)
    freeze_as_a_view_begins(world, 1)
    world.until(lambda: two.running)
    one.frozen = False
    while one.inbox:
        one.feed(one.inbox.popleft())
    while world.later:
        world.later.popleft()()
    assert life(one).incarnation == 2
    assert [sender for sender, _ in world.queue] == [1, 1]
    world.run()
    assert one.running
    assert "shut-out" not in one.kinds()


def test_who_goes_stale_by_itself_and_comes_back_in_the_same_view_has_lost_its_locks(
    make: Callable[..., World],
) -> None:
    """As one does that finds itself marked as fenced: the others knew nothing of it."""
    world = make()
    one, two = world.hosts[1], world.hosts[2]
    assert one.node is not None
    assert one.node._running is not None
    one.node._running._views.go_stale("it is marked as fenced on VG vg0")
    one.feed(Tick())
    world.run()
    assert life(one).incarnation == 2
    assert f"{ONE} must be fenced: came back as another life in view 1.1" in told(two)
    assert f"{ONE} came back and has verified that every volume was closed" in told(two)
    world.pass_ms(2000)
    assert len(states(world)) == 1
    assert two.do(calls.LvChange("vg0", "vm1", "ey", wait_ms=0))["mode"] == "EX"
