"""A daemon that is back within its grace goes on with its open volumes, or closes all of them first."""

from pathlib import Path

import msgspec
import pytest
from engine_ring import Host, World

from ringfence.core.errors import LockHeld, Refused, RingfenceError
from ringfence.core.evidence import Power
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.engine.inputs import LeftOpen
from ringfence.wire import client as calls

SPACE, PAGE = "lvm_vg0", "vg/vg0"
TAKE = calls.LvChange("vg0", "vm1", "ey", wait_ms=0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """vg0/vm1 is open on host 1; no device can fence anybody."""
    world = World(tmp_path, 2)
    for device in ("bmc1", "pdu1", "bmc2", "pdu2"):
        world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.PvCreate((str(world.image),)))
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(200)
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20))
    world.pass_ms(1000)
    return world


def kill(world: World, how: str = "procdown") -> None:
    world.hosts[1].kill()
    world.view(2, how=how)
    world.run()


def come_back(world: World, left_open: tuple[LeftOpen, ...] = ()) -> None:
    one = world.hosts[1]
    one.start(left_open or one.left_open())
    world.view(1, 2)
    world.run()


def holder(world: World) -> tuple[int, Mode, Token | None]:
    resources = world.hosts[2].node.context.state.lockspaces[SPACE].resources
    (name,) = [name for name in resources if name not in ("VGLK", "GLLK")]
    (lock,) = resources[name].granted
    return lock.owner, lock.held, lock.token


def new_kinds(host: Host, since: int) -> list[str]:
    return host.kinds()[since:]


# -- adopted ------------------------------------------------------------------------------


def test_a_daemon_that_is_back_in_time_goes_on_with_its_volume(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    held, seen = holder(world), len(two.events)
    deadline_ns = one.pages[1, PAGE]
    kill(world)
    with pytest.raises(Refused, match="frozen until an-a01n01"):
        two.do(calls.Lock(SPACE, "x", wait_ms=0))
    world.pass_ms(1000)
    come_back(world)
    assert one.running
    assert holder(world) == held
    assert list(one.paths) == [("vg0", "vm1")]
    assert one.pages[1, PAGE] == deadline_ns, "as the first life left it, until the second has authority"
    world.pass_ms(1000)
    assert one.pages[1, PAGE] == one.pages[2, PAGE] > world.now_ns
    assert two.node.context.state.victims() == []
    assert "adopted" in new_kinds(two, seen)
    assert {"evidence", "purged", "attempt"}.isdisjoint(new_kinds(two, seen))
    with pytest.raises(LockHeld, match="held EX by an-a01n01"):
        two.do(TAKE)
    assert one.do(TAKE)["token"] == str(held[2]), "it is active already"
    one.do(calls.LvChange("vg0", "vm1", "n"))
    world.pass_ms(200)
    assert two.do(TAKE)["mode"] == "EX"


def test_a_daemon_that_is_back_before_it_was_missed_goes_on_too(world: World) -> None:
    held = holder(world)
    world.hosts[1].kill()
    come_back(world)
    assert world.hosts[1].running
    assert holder(world) == held
    assert world.hosts[2].node.context.state.victims() == []


def test_what_is_not_shown_is_cleaned_up(world: World) -> None:
    """The dead daemon's clients are gone: whoever waits for them goes on, and trusts no value block."""
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    one.do(calls.Lock("games", "chess"), client=7)
    one.do(calls.Lock(SPACE, "chess"), client=7)
    asked = two.ask(calls.Lock("games", "chess")), two.ask(calls.Lock(SPACE, "chess"))
    kill(world)
    come_back(world)
    world.pass_ms(1000)
    assert [two.reply(one)["lvb"] for one in asked] == [None, None]
    members = {name: space.members for name, space in two.node.context.state.lockspaces.items()}
    assert (members["games"], members[SPACE]) == ([2], [1, 2])


def test_a_daemon_that_is_killed_again_before_it_knows_is_followed_by_the_next(world: World) -> None:
    """The others have admitted the second life; it died before it had their state."""
    one, two = world.hosts[1], world.hosts[2]
    held = holder(world)
    kill(world)
    one.start(one.left_open())
    world.view(1, 2)
    while world.queue and two.node.context.state.lives.get(1) is None:
        sender, payload = world.queue.popleft()
        world.deliver(sender, payload)
    assert two.node.context.state.lives[1].incarnation == 2
    assert not one.running
    kill(world)
    world.pass_ms(500)
    come_back(world)
    assert one.node.context.life.incarnation == 3
    assert one.running
    assert holder(world) == held
    world.pass_ms(1000)
    assert one.pages[1, PAGE] > world.now_ns


def test_what_opened_after_an_adoption_is_adopted_as_well(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    kill(world)
    come_back(world)
    world.pass_ms(1000)
    one.do(calls.LvCreate("vg0", "vm2", size_bytes=8 << 20))
    kill(world)
    come_back(world)
    world.pass_ms(1000)
    assert [pages for left in one.left_open() for pages in left.pages] == [(1, PAGE), (2, PAGE)]
    assert min(one.pages[life, PAGE] for life in (1, 2, 3)) > world.now_ns
    for volume in ("vm1", "vm2"):
        with pytest.raises(LockHeld):
            two.do(calls.LvChange("vg0", volume, "ey", wait_ms=0))


def test_a_lock_that_was_lowered_since_is_still_its_volume_s(world: World) -> None:
    """The path is that of the weaker mode, its token that of the grant before."""
    one, two = world.hosts[1], world.hosts[2]
    one.do(calls.LvChange("vg0", "vm1", "sy"))
    world.pass_ms(200)
    assert holder(world)[1] is Mode.PR
    assert holder(world)[2] > one.left_open()[0].lock.token
    kill(world)
    come_back(world)
    world.pass_ms(1000)
    assert one.running
    assert two.do(calls.LvChange("vg0", "vm1", "sy", wait_ms=0))["mode"] == "PR"
    two.do(calls.LvResize("vg0", "vm1", extents=1, sign="+"))
    world.pass_ms(200)
    (path,) = one.paths.values()
    lock = two.node.context.state.lockspaces[SPACE].resources[path.uuid].find(1)
    assert lock is not None
    assert path.token == lock.token, "it has grown, under the lock's own token"
    assert sum(extent.length_bytes for extent in path.extents) == 12 << 20


def test_adopted_volumes_lose_their_authority_with_the_life_that_adopted_them(world: World) -> None:
    one = world.hosts[1]
    kill(world)
    come_back(world)
    world.pass_ms(1000)
    world.view(2)
    world.run()
    world.pass_ms(500)
    world.view(1, 2)
    world.run()
    assert "stale" in one.kinds()
    assert one.pages[1, PAGE] == one.pages[2, PAGE] == 0
    assert one.paths == {}


# -- not adopted ------------------------------------------------------------------------------


def assert_closed_first(world: World) -> None:
    """Everything is closed, all authority of before is lost; then its next life is let in, and the
    volume is free."""
    one, two = world.hosts[1], world.hosts[2]
    assert one.paths == {}
    assert one.pages[1, PAGE] == 0
    world.until(lambda: one.running and two.running)
    assert one.node.context.life.incarnation == 3
    world.until(lambda: two.node.context.state.victims() == [])
    assert "adopted" not in two.kinds()
    world.pass_ms(1000)
    assert two.do(TAKE)["mode"] == "EX"


def test_after_its_grace(world: World) -> None:
    kill(world)
    world.until(lambda: "victim-due" in world.hosts[2].kinds())
    come_back(world)
    assert_closed_first(world)


def test_a_host_that_was_lost_and_not_only_its_daemon(world: World) -> None:
    kill(world, how="nodedown")
    come_back(world)
    assert_closed_first(world)


def test_a_lock_that_is_not_its_own(world: World) -> None:
    kill(world)
    (left,) = world.hosts[1].left_open()
    newer = msgspec.structs.replace(left.lock.token, position=left.lock.token.position + 1)
    come_back(world, (msgspec.structs.replace(left, lock=msgspec.structs.replace(left.lock, token=newer)),))
    assert_closed_first(world)


def test_a_volume_of_which_nobody_knows(world: World) -> None:
    """All or nothing: the volume beside it, which is known, is closed as well."""
    kill(world)
    (left,) = world.hosts[1].left_open()
    other = msgspec.structs.replace(left, lv="vm9", lock=msgspec.structs.replace(left.lock, resource="vm9"))
    come_back(world, (left, other))
    assert_closed_first(world)


def test_a_cluster_that_begins_afresh(world: World) -> None:
    """Both daemons were killed: nobody knows whose the volume is."""
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.kill()
    two.start()
    come_back(world)
    assert_closed_first(world)


def test_a_cluster_that_begins_afresh_with_nobody_but_those_who_would_adopt(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    two.do(calls.LvCreate("vg0", "vm2", size_bytes=8 << 20))
    for host in (one, two):
        host.kill()
    two.start(two.left_open())
    come_back(world)
    world.until(lambda: one.running and two.running)
    for host in (one, two):
        assert host.paths == {}
        assert host.pages[1, PAGE] == 0
        assert host.node.context.life.incarnation == 3
    world.pass_ms(1000)
    assert two.do(TAKE)["mode"] == "EX"


def test_a_life_that_a_person_has_called_off_is_a_lie_come_to_light(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    kill(world)
    world.pass_ms(100)
    two.do(calls.FenceConfirm("an-a01n01", "ann", "it is dark", world.now_ns))
    come_back(world)
    assert "fence-lied" in two.kinds()
    assert one.paths == {}
    assert not one.running


def test_while_it_waits_to_take_over_it_lets_go_of_nothing(world: World) -> None:
    one = world.hosts[1]
    kill(world)
    one.start(one.left_open())
    for call in (calls.LvChange("vg0", "vm1", "n"), calls.Leave()):
        with pytest.raises(RingfenceError, match="waits to take over LV vg0/vm1"):
            one.do(call)
    world.view(1, 2)
    world.run()
    world.pass_ms(1000)
    assert one.do(calls.LvChange("vg0", "vm1", "n"))["was_active"]
