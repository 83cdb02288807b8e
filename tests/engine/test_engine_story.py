"""The story, on real engines and a real disk image: share, hold, freeze, fence, recover; and the lie."""

from pathlib import Path

import pytest
from engine_ring import World

from ringfence.core.errors import LockHeld, LocksLost, Refused, RingfenceError, TimedOut
from ringfence.core.evidence import Power
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.wire import client as calls

LV_SPACE = "lvm_vg0"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 2)
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.PvCreate((str(world.image),)))
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(200)
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20))
    world.pass_ms(200)
    return world


def lv_lock(world: World, host: int) -> tuple[int, Token]:
    """(holder, token) of vg0/vm1 as `host` knows it."""
    context = world.hosts[host].node.context
    resources = context.state.lockspaces[LV_SPACE].resources
    (name,) = [name for name in resources if name not in ("VGLK", "GLLK")]
    (lock,) = [lock for lock in resources[name].granted if lock.held is Mode.EX]
    return lock.owner, lock.token


def test_an_lv_made_on_one_host_is_seen_on_the_other(world: World) -> None:
    rows = world.hosts[2].do(calls.Lvs())
    assert "vm1" in str(rows)


def test_the_second_host_is_refused_and_told_who_holds_it(world: World) -> None:
    with pytest.raises(LockHeld, match="an-a01n01"):
        world.hosts[2].do(calls.LvChange("vg0", "vm1", "ey", wait_ms=0))


def test_a_frozen_holder_is_fenced_then_the_lock_moves_with_a_higher_token(world: World) -> None:
    world.says["bmc1", "off"] = Power.UNKNOWN  # the BMC went down with its host
    world.says["bmc1", "status"] = Power.UNKNOWN
    _, first = lv_lock(world, 2)
    world.freeze(1)
    world.pass_ms(1000)
    world.view(2)
    world.run()
    two = world.hosts[2]
    asked = two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    assert asked not in two.replies
    world.until(lambda: asked in two.replies)
    assert two.reply(asked)["mode"] == "EX"
    holder, second = lv_lock(world, 2)
    assert holder == 2
    assert second > first
    devices = [(run.device, run.action) for run in two.runs]
    assert devices[0] == ("bmc1", "off")
    assert ("pdu1", "off") in devices
    assert two.may_write("vg/vg0")


def test_nothing_moves_while_no_device_can_be_believed(world: World) -> None:
    for device in ("bmc1", "pdu1"):
        world.says[device, "off"] = Power.OFF
        world.says[device, "status"] = Power.ON
    world.freeze(1)
    world.view(2)
    world.run()
    two = world.hosts[2]
    asked = two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    world.pass_ms(60_000)
    assert asked not in two.replies
    with pytest.raises((TimedOut, Refused), match="an-a01n01"):
        two.do(calls.Lock(LV_SPACE, "x", wait_ms=0))
    assert two.kinds().count("attempt-ended") > 4, "it tries round and round"


def test_the_purge_waits_for_the_write_authority_of_the_victim(world: World) -> None:
    """Evidence comes at once; the lock may move only when the frozen holder's deadline has passed."""
    one, two = world.hosts[1], world.hosts[2]
    world.says["bmc1", "off"] = world.says["bmc1", "status"] = Power.OFF
    deadline_ns = max(value for (_, page), value in one.pages.items() if page == "vg/vg0")
    world.freeze(1)
    world.view(2)
    world.run()
    asked = two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    world.until(lambda: "evidence" in two.kinds())
    world.until(lambda: asked in two.replies)
    assert world.now_ns > deadline_ns


def test_a_perfect_lie_is_found_out_when_the_host_thaws(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    world.says["bmc1", "off"] = world.says["bmc1", "status"] = Power.OFF
    world.freeze(1)
    world.view(2)
    world.run()
    asked = two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    world.until(lambda: asked in two.replies)
    assert two.may_write("vg/vg0")
    assert not one.may_write("vg/vg0"), "its deadline passed before the lock moved"
    world.thaw(1, 1, 2)
    assert not two.may_write("vg/vg0"), "writes of the new holder are held while the liar's host is up"
    assert "incident" in two.kinds()
    assert "bmc1" in two.node.context.state.domain.quarantined
    assert not one.running
    assert one.pages[1, "vg/vg0"] == 0, "lost for ever"
    assert one.paths == {}
    world.until(lambda: world.power[1] is Power.OFF)
    assert [run.device for run in two.runs][-1] != "bmc1"
    world.view(2)
    world.until(lambda: two.may_write("vg/vg0"))


def test_a_host_that_comes_back_under_a_new_boot_needs_no_fencing(world: World) -> None:
    world.cut(1)
    world.view(2)
    world.run()
    world.boot(1, 1, 2)
    world.until(lambda: not world.hosts[2].node.context.state.victims())
    assert world.hosts[1].running
    assert world.hosts[2].runs == [] or world.hosts[2].runs[0].action == "off"


def part_and_meet_again(world: World) -> None:
    """The ring loses host 1 for a moment; nothing can fence it; it comes back alive."""
    for device in ("bmc1", "pdu1", "bmc2", "pdu2"):
        world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN
    world.view(2)
    world.run()
    world.pass_ms(1000)
    world.view(1, 2)
    world.run()


def test_a_stale_host_drops_its_volumes_and_goes_on_as_a_new_life(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    held = one.ask(calls.Lock(LV_SPACE, "mine", notices=True), client=7)
    assert one.reply(held)["mode"] == "EX"
    part_and_meet_again(world)
    assert one.paths == {}
    assert "stale" in one.kinds()
    assert one.replies[held][-1].result["lost"]
    assert one.pages[1, "vg/vg0"] == 0, "lost for ever"
    assert one.running
    assert one.node.context.life.incarnation == 2
    assert two.node.context.state.victims() == [], "its own successor has verified that all is closed"
    world.until(lambda: LV_SPACE in two.node.context.state.lockspaces)
    world.pass_ms(1000)
    assert one.do(calls.LvChange("vg0", "vm1", "ey", wait_ms=0))["mode"] == "EX"


def test_whoever_waits_for_a_lock_learns_that_this_life_is_over(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    two.do(calls.Lock(LV_SPACE, "busy"))
    waiting = one.ask(calls.Lock(LV_SPACE, "busy"))
    part_and_meet_again(world)
    with pytest.raises(LocksLost):
        one.reply(waiting)
    third = one.ask(calls.Lock(LV_SPACE, "busy"), client=9)
    world.pass_ms(1000)
    assert third not in one.replies or one.reply(third) is None


def test_a_clean_leave_makes_no_victim(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    left = one.ask(calls.Leave())
    world.pass_ms(200)
    assert one.reply(left)["closed"] == ["vg0/vm1"]
    assert one.ended is not None
    assert not one.ended.failed
    world.view(2)
    world.run()
    assert two.node.context.state.victims() == []
    world.pass_ms(500)
    assert two.do(calls.LvChange("vg0", "vm1", "ey", wait_ms=0))["mode"] == "EX"
    assert two.may_write("vg/vg0")


def test_a_ring_that_stood_still_makes_nobody_silent(world: World) -> None:
    """A hub that was stopped and goes on delivers host 1's heartbeats before those of host 2."""
    one, two = world.hosts[1], world.hosts[2]
    lives = [one.node.context.life, two.node.context.life]
    world.pass_ms(4000)
    world.stopped = True
    world.pass_ms(world.config.timing.silent_ms + 500)
    world.go_on()
    world.pass_ms(5000)
    assert [one.node.context.life, two.node.context.life] == lives
    assert "victim" not in one.kinds() + two.kinds()
    assert one.may_write("vg/vg0")


def test_a_daemon_that_falls_silent_in_a_ring_that_moves_is_called_out(world: World) -> None:
    """Its host is in the ring, so only the heartbeats tell."""
    one, two = world.hosts[1], world.hosts[2]
    world.pass_ms(4000)
    world.freeze(2)
    timing = world.config.timing
    took_ms = world.until(lambda: "victim" in one.kinds())
    assert took_ms <= timing.silent_ms + timing.token_ms
    assert [victim.life for victim in one.node.context.running.victims()] == [two.node.context.life]


def test_two_that_called_each_other_victims_begin_anew_together(world: World) -> None:
    """Each was alone for a while, and no device worked: neither state may be carried on."""
    one, two = world.hosts[1], world.hosts[2]
    for device in ("bmc1", "pdu1", "bmc2", "pdu2"):
        world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN
    for frozen, alone in ((2, 1), (1, 2)):
        world.freeze(frozen)
        world.hosts[alone].frozen = False
        world.hosts[alone].inbox.clear()
        world.view(alone)
        world.run()
        world.pass_ms(500)
    assert [life.node for life in one.disk.victims] == [2]
    assert [life.node for life in two.disk.victims] == [1]
    world.thaw(1)
    world.view(1, 2)
    world.until(lambda: one.running and two.running)
    assert {"stale", "reborn"} <= set(one.kinds()) & set(two.kinds())
    assert one.paths == {}
    world.until(lambda: one.node.context.state.victims() == [])
    world.pass_ms(1000)
    assert one.do(calls.LvChange("vg0", "vm1", "ey", wait_ms=0))["mode"] == "EX"


def test_a_lock_that_a_node_merely_keeps_makes_no_try_fail(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    used = one.do(calls.Lock("games", "chess"))
    with pytest.raises(LockHeld, match="held EX by an-a01n01"):
        two.do(calls.Lock("games", "chess", wait_ms=0))
    one.do(calls.Unlock(used["lock"]))
    assert two.do(calls.Lock("games", "chess", wait_ms=0))["mode"] == "EX"


def test_a_try_whose_holder_is_not_heard_is_refused_and_names_it(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    one.do(calls.Unlock(one.do(calls.Lock("games", "chess"))["lock"]))
    world.stopped = True
    asked = two.ask(calls.Lock("games", "chess", wait_ms=0))
    took_ms = world.until(lambda: asked in two.replies)
    assert took_ms <= 5000
    with pytest.raises(Refused, match="games/chess: an-a01n01 does not answer whether it needs its lock"):
        two.reply(asked)


def test_a_try_against_a_node_that_does_not_answer_is_refused_and_names_it(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    one.do(calls.Unlock(one.do(calls.Lock("games", "chess"))["lock"]))
    world.pass_ms(4000)
    world.freeze(1)
    for device in ("bmc1", "pdu1"):
        world.says[device, "off"] = Power.UNKNOWN
    asked = two.ask(calls.Lock("games", "chess", wait_ms=0))
    took_ms = world.until(lambda: asked in two.replies)
    with pytest.raises(RingfenceError, match="frozen until an-a01n01") as refused:
        two.reply(asked)
    assert refused.value.retry
    assert took_ms <= 5000


def test_a_holder_is_not_told_that_it_is_in_the_way_before_it_is_told_that_it_holds(world: World) -> None:
    """The grant waits for authority; the next client of the same node asks meanwhile."""
    one = world.hosts[1]
    one.do(calls.JoinSpace("app"))
    kept = one.do(calls.Lock("app", "leader"), client=2)
    one.do(calls.Unlock(kept["lock"]), client=2)
    world.stopped = True
    world.pass_ms(1000)
    first = one.ask(calls.Lock("app", "leader", notices=True), client=3)
    one.ask(calls.Lock("app", "leader"), client=4)
    assert first not in one.replies
    world.go_on()
    world.pass_ms(200)
    assert [next(iter(reply.result)) for reply in one.replies[first]] == ["lock", "blocking"]
