"""What a ring of many hosts does to a node, fault by fault, to the end that each must come to.

The ring here does what corosync was seen to do: parts, delivers nothing, tells nobody of a path that is
cut, forms anew again and again.  The ends are safe ones (nobody forgets a victim, nobody writes under
what another was given), and alive ones (nobody is fenced without need, and everybody goes on).  At each
step `why` must tell what the matter is."""

from pathlib import Path
from typing import Any

import pytest
from engine_ring import AGENT_MS, TIMING, Host, World

from ringfence.core.evidence import Power
from ringfence.core.ids import Life
from ringfence.wire import Speaks
from ringfence.wire import client as calls

PAGE = "vg/vg0"


def make(tmp_path: Path, count: int, members: tuple[int, ...] = (), **options: Any) -> World:
    """Hosts with one VG; each member has a volume of its own active: vm1 on the first host, and so on."""
    world = World(tmp_path, count, members, ring="corosync", **options)
    members = members or tuple(world.hosts)
    world.pass_ms(1000)
    world.until(lambda: all_is_well(world))  # who is absent is fenced first
    world.hosts[members[0]].do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(1000)
    for id in members:
        world.hosts[id].do(calls.LvCreate("vg0", f"vm{id}", size_bytes=4 << 20))
        world.pass_ms(200)
    return world


def why(host: Host, target: str = "") -> str:
    asked = host.ask(calls.Why(target))
    host.world.pass_ms(100)
    answer: dict[str, Any] = host.reply(asked)
    return ("STUCK\n" if answer["stuck"] else "") + "\n".join(answer["lines"])


def victims(host: Host) -> list[int]:
    assert host.node is not None
    assert host.node.context is not None
    state = host.node.context.state
    return [victim.life.node for victim in state.victims()] if state else []


def lives(world: World) -> list[Life]:
    return [host.node.context.life for host in world.hosts.values() if host.node is not None]


def writing(world: World) -> list[int]:
    """Hosts whose volumes may be written to."""
    return [id for id, host in world.hosts.items() if host.node is not None and host.may_write(PAGE)]


def dead_devices(world: World, *hosts: int) -> None:
    """Nobody can fence these."""
    for id in hosts:
        for device in (f"bmc{id}", f"pdu{id}"):
            world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN


def all_is_well(world: World) -> bool:
    up = [host for host in world.hosts.values() if host.node is not None]
    return all(host.running and not victims(host) for host in up)


# -- quorum is gone, and comes back --------------------------------------------------------------------


@pytest.mark.parametrize("sides", [((1, 2), (3, 4)), ((1,), (2,), (3,), (4,))], ids=["halves", "outage"])
@pytest.mark.parametrize("for_ms", [1000, 5000])
def test_all_are_suspended_then_everybody_goes_on(
    tmp_path: Path, sides: tuple[tuple[int, ...], ...], for_ms: int
) -> None:
    """2|2 of four, and an outage of the whole network: nothing is closed, no one stale, nobody fenced."""
    world = make(tmp_path, 4)
    held = world.hosts[2].ask(calls.Lock("lvm_vg0", "mine", notices=True), client=7)
    world.pass_ms(200)
    before, paths = lives(world), [dict(host.paths) for host in world.hosts.values()]
    world.part(*sides)
    world.run()
    waits = world.hosts[3].ask(calls.LvCreate("vg0", "later", size_bytes=4 << 20))
    world.pass_ms(for_ms)
    assert waits not in world.hosts[3].replies, "nothing is granted without quorum"
    assert writing(world) == ([1, 2, 3, 4] if for_ms < TIMING.write_ms else [])
    for id, host in world.hosts.items():
        said = why(host)
        side = next(side for side in sides if id in side)
        absent = ", ".join(f"an-a01n0{one}" for one in (1, 2, 3, 4) if one not in side)
        assert f"{host.name} cannot act (suspended): no quorum: {absent} missing" in said
        held_now = "writes are held, each for 30 s" in said
        assert held_now == (for_ms > TIMING.write_ms), said
        assert "grant authority ran out" in said or for_ms < TIMING.grant_ms
        assert "next: it goes on by itself when enough of the missing nodes are back" in said
    world.view(1, 2, 3, 4)
    world.run()
    world.pass_ms(500)
    assert writing(world) == [1, 2, 3, 4]
    assert all_is_well(world)
    assert lives(world) == before, "somebody went stale"
    assert [host.runs for host in world.hosts.values()] == [[]] * 4, "somebody was to be fenced"
    assert [list(host.paths)[:1] for host in world.hosts.values()] == [list(one)[:1] for one in paths]
    world.until(lambda: waits in world.hosts[3].replies, 3000)
    assert [next(iter(one.result)) for one in world.hosts[2].replies[held]] == ["lock"], "its lock was lost"
    assert why(world.hosts[1]) == "nothing is stuck"


def test_two_of_three_that_find_each_other_first_wait_for_the_third(tmp_path: Path) -> None:
    """After an outage links come up one by one; for a moment there is a majority without host 3."""
    world = make(tmp_path, 3)
    before = lives(world)
    world.outage()
    world.run()
    world.pass_ms(1000)
    for _ in range(3):
        world.part((1, 2), (3,))
        world.run()
        world.pass_ms(TIMING.token_ms - 50)
        assert not any(host.running for host in world.hosts.values())
    world.view(1, 2, 3)
    world.run()
    world.pass_ms(200)
    assert all_is_well(world)
    assert lives(world) == before


def test_a_minority_that_is_back_before_it_was_fenced_begins_a_new_life(tmp_path: Path) -> None:
    """1|2 and heal: the majority went on without host 1, which drops its volumes, and is let in again."""
    world = make(tmp_path, 3)
    dead_devices(world, 1)
    world.part((1,), (2, 3))
    world.run()
    world.pass_ms(5000)
    one, two = world.hosts[1], world.hosts[2]
    assert "an-a01n01 cannot act (suspended): no quorum: an-a01n02, an-a01n03 missing" in why(one)
    assert writing(world) == [2, 3]
    assert victims(two) == [1]
    said = why(two, "an-a01n01")
    assert "an-a01n01 suspected since" in said
    assert "lost from view" in said
    assert one.paths, "what it has open is held, not closed, until it knows better"
    world.view(1, 2, 3)
    world.until(lambda: all_is_well(world))
    assert one.paths == {}
    assert one.node.context.life.incarnation == 2
    assert world.power[1] is Power.ON
    world.pass_ms(1000)
    assert one.do(calls.LvChange("vg0", "vm1", "ey", wait_ms=0))["mode"] == "EX"


def test_a_minority_is_fenced_and_comes_back_after_the_heal(tmp_path: Path) -> None:
    """1|2, fenced, heal: its volumes can be had elsewhere, and its next boot is let in."""
    world = make(tmp_path, 3)
    world.part((1,), (2, 3))
    world.run()
    two = world.hosts[2]
    asked = two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    assert asked not in two.replies
    world.until(lambda: asked in two.replies)
    assert world.power[1] is Power.OFF
    world.boot(1, 1, 2, 3)
    world.until(lambda: all_is_well(world))
    assert world.hosts[1].running


def test_no_victim_is_forgotten_by_a_view_that_finds_its_quorum_elsewhere(tmp_path: Path) -> None:
    """{V, A} | {B}, and C and D join B: V and A were never lost from a primary view before that one."""
    world = make(tmp_path, 5, (1, 2, 3))
    world.part((1, 2), (3,))
    world.run()
    world.pass_ms(1000)
    three = world.hosts[3]
    assert not any(world.hosts[id].running for id in (1, 2, 3))
    assert victims(three) == []
    for id in (4, 5):
        world.hosts[id].start()
    world.part((1, 2), (3, 4, 5))
    world.run()
    said = why(three)
    assert "waiting a moment for an-a01n01, an-a01n02, for the ring is just coming together again" in said
    world.pass_ms(TIMING.token_ms)
    assert [victims(world.hosts[id]) for id in (3, 4, 5)] == [[1, 2]] * 3
    asked = world.hosts[4].ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    world.until(lambda: asked in world.hosts[4].replies)
    assert (world.power[1], world.power[2]) == (Power.OFF, Power.OFF)
    assert all_is_well(world)


def test_nor_if_who_remembered_the_quorum_was_restarted_meanwhile(tmp_path: Path) -> None:
    """As above, but B has lost power: nobody carries the state, so V and A may hold anything."""
    world = make(tmp_path, 5, (1, 2, 3))
    world.part((1, 2), (3,))
    world.run()
    world.cut(3)
    for id in (3, 4, 5):
        world.hosts[id].boots += 1
        world.hosts[id].start()
    world.part((1, 2), (3, 4, 5))
    world.run()
    world.pass_ms(100)
    assert [victims(world.hosts[id]) for id in (3, 4, 5)] == [[1, 2]] * 3
    world.until(lambda: all_is_well(world))
    assert (world.power[1], world.power[2]) == (Power.OFF, Power.OFF)


# -- faults of which nobody is told --------------------------------------------------------------------


def test_a_path_between_two_of_three_is_cut(tmp_path: Path) -> None:
    """No view changes.  Authority runs out everywhere, nobody is fenced; once mended, all is well."""
    world = make(tmp_path, 3)
    world.pass_ms(4000)
    before = lives(world)
    world.stuck = (1, 3)
    world.pass_ms(4000)
    one, two, three = world.hosts.values()
    for host in (one, three):
        said = why(host)
        assert said.startswith(f"STUCK\n{host.name} has no authority: messages of {host.name} do not come ")
        assert "corosync does not deliver (it is frozen, or a path between two nodes is cut)" in said
        assert "grant authority ran out 3." in said
        assert "write authority ran out 1." in said
        assert "writes are held" in said
        assert "next: on every node: corosync-cfgtool -n" in said
        (blocked,) = host.do(calls.Status())["blocked_by"]
        assert blocked.startswith(f"{host.name} has no authority: messages of {host.name} do not come back")
    said = why(two)
    assert "an-a01n02 has no authority: no majority of 3 votes has answered its heartbeats" in said
    assert "in the ring and silent: an-a01n01 (for 4." in said
    assert writing(world) == []
    world.pass_ms(20_000)
    assert [victims(host) for host in world.hosts.values()] == [[], [], []], "one alone had the others fenced"
    world.part((1, 2), (3,))  # mended, two of them find each other first
    world.run()
    world.pass_ms(200)
    world.mend()
    world.view(1, 2, 3)
    world.run()
    world.pass_ms(1000)
    assert all_is_well(world)
    assert lives(world) == before
    assert writing(world) == [1, 2, 3]
    assert why(two) == "nothing is stuck"


def test_a_ring_that_re_forms_again_and_again_is_told_of(tmp_path: Path) -> None:
    """A node that sends and does not receive: the others fence it, though their ring re-forms meanwhile."""
    world = make(tmp_path, 3)
    one, _, three = world.hosts.values()
    world.pass_ms(4000)
    world.part((1, 3), (2,))
    world.run()
    for times in range(1, 5):
        assert ("re-formed" in why(one)) == (times >= 3), "one failure is found once"
        world.pass_ms(2000)
        world.part((1, 3), (2,)) if world.power[2] is Power.ON else world.view(1, 3)
        world.run()
    line = "the ring re-formed 5 times in 15 s, and nobody joined it or ended: messages get lost, or a node "
    assert world.power[2] is Power.OFF, "it was fenced"
    world.pass_ms(100)
    assert all_is_well(world)
    for host in (one, three):
        assert why(host).startswith(f"STUCK\n{line}sends and does not receive; next: on every node: corosync")
        (said,) = host.do(calls.Status())["blocked_by"]
        assert said.startswith(line)
        assert "re-formed" not in why(host, "vg0/vm1")
    assert writing(world) == [1, 3]
    world.pass_ms(15_000)
    assert why(one) == "nothing is stuck"


def test_a_ring_that_re_forms_while_nobody_can_be_fenced_holds(tmp_path: Path) -> None:
    world = make(tmp_path, 3)
    dead_devices(world, 2)
    for _ in range(20):
        world.part((1, 3), (2,))
        world.run()
        world.pass_ms(1500)
    said = why(world.hosts[1])
    assert "the ring re-formed 9 times in 15 s" in said
    assert "an-a01n02 suspected since" in said
    assert "make sure that an-a01n02 is off, then: ringfence fence confirm an-a01n02" in said
    assert writing(world) == [1, 3], "the others write on meanwhile"
    world.view(1, 2, 3)
    world.until(lambda: all_is_well(world))


def test_rolling_restarts_are_no_unrest(tmp_path: Path) -> None:
    world = make(tmp_path, 3)
    one = world.hosts[1]
    for _ in range(6):
        world.hosts[3].kill()
        world.view(1, 2, how="procdown")
        world.run()
        world.hosts[3].start(world.hosts[3].left_open())
        world.view(1, 2, 3)
        world.run()
        world.pass_ms(300)
        assert "re-formed" not in why(one)


def test_corosync_alone_is_frozen(tmp_path: Path) -> None:
    """The others are told after the detection time; the node itself of nothing, and its sends succeed."""
    world = make(tmp_path, 3)
    dead_devices(world, 1)
    world.pass_ms(4000)
    one, two, _ = world.hosts.values()
    world.sides = [(2, 3)]
    world.pass_ms(TIMING.detection_ms - 300)
    assert one.running, "it knows nothing"
    said = why(one)
    assert "an-a01n01 has no authority: messages of an-a01n01 do not come back from the ring since" in said
    assert "corosync does not deliver" in said
    assert "writes go on for 1." in said
    world.view(2, 3)
    world.run()
    world.pass_ms(3000)
    assert victims(two) == [1]
    said = why(one)
    assert "write authority ran out 1." in said
    assert writing(world) == [2, 3]
    world.view(1)  # thawed, it finds itself alone; then they meet
    world.run()
    assert "no quorum" in why(one)
    world.view(1, 2, 3)
    world.until(lambda: all_is_well(world))
    assert one.node.context.life.incarnation == 2
    assert one.paths == {}


def test_a_daemon_alone_is_frozen(tmp_path: Path) -> None:
    """Its corosync is well, so no view changes: its silence is called out, and it is fenced."""
    world = make(tmp_path, 3)
    world.pass_ms(4000)
    two = world.hosts[2]
    world.freeze(1)
    asked = two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    took_ms = world.until(lambda: victims(two) == [1])
    assert took_ms <= TIMING.silent_ms + TIMING.token_ms
    assert "its daemon is silent, as an-a01n02 found" in why(two, "an-a01n01")
    world.until(lambda: asked in two.replies)
    assert world.power[1] is Power.OFF


# -- two nodes -----------------------------------------------------------------------------------------


def test_of_two_that_are_parted_exactly_the_one_without_a_delay_survives(tmp_path: Path) -> None:
    world = make(tmp_path, 2)
    one, two = world.hosts.values()
    before = list(one.paths)
    world.slow = {"bmc1": 10 * AGENT_MS, "pdu1": 10 * AGENT_MS}  # whoever shoots host 1 takes its time
    world.outage()
    world.run()
    world.pass_ms(100)
    assert [victims(one), victims(two)] == [[2], [1]], "each wants to fence the other"
    asked = one.ask(calls.LvChange("vg0", "vm2", "ey", wait_ms=None))
    world.until(lambda: world.power[2] is Power.OFF)
    assert two.node is None
    world.until(lambda: asked in one.replies)
    world.pass_ms(20_000)
    assert world.power[1] is Power.ON
    assert one.may_write(PAGE), "writes that were held meanwhile go on"
    assert before[0] in one.paths
    assert all_is_well(world)
    world.power[2] = Power.ON  # it boots while they are still parted; host 1 is told nothing of that
    two.boots += 1
    two.start()
    world.sides = [(1,)]
    world.joined(2)
    world.run()
    world.pass_ms(10_000)
    assert not two.running
    assert "an-a01n02 cannot act (suspended): no quorum: an-a01n01 missing" in why(two)
    assert two.runs[-1].device in ("bmc1", "pdu1"), "what it began before it was fenced, and nothing since"
    assert world.power[1] is Power.ON
    assert one.may_write(PAGE)
    assert two.disk.epoch > one.disk.epoch, "its half had an epoch of its own"
    world.view(1, 2)
    world.until(lambda: all_is_well(world))
    assert one.may_write(PAGE)
    assert one.node.context.life.incarnation == 1, "the loser's memory struck down who went on"
    assert before[0] in one.paths


def test_of_two_without_slots_that_nobody_can_fence_both_block_and_say_so(tmp_path: Path) -> None:
    world = make(tmp_path, 2, speaks=Speaks(1, 3))
    dead_devices(world, 1, 2)
    one, two = world.hosts.values()
    world.outage()
    world.run()
    world.pass_ms(20_000)
    assert writing(world) == []
    assert world.power == {1: Power.ON, 2: Power.ON}
    for host, other in ((one, two), (two, one)):
        said = why(host)
        assert f"{host.name} has no authority: the other node does not answer, and is not proven" in said
        assert "write authority ran out 1" in said
        assert "still missing: evidence" in said
        assert "every device was tried" in said
        assert f"make sure that {other.name} is off, then: ringfence fence confirm {other.name}" in said
        assert host.do(calls.Status())["blocked"]
    world.view(1, 2)
    world.until(lambda: all_is_well(world))
    assert one.paths == two.paths == {}, "each was a victim to the other: neither state may be carried on"


# -- all are off ----------------------------------------------------------------------------------------


def test_after_a_loss_of_all_who_is_absent_is_fenced_when_it_had_its_time(tmp_path: Path) -> None:
    world = make(tmp_path, 3)
    for id in world.hosts:
        world.cut(id)
    world.power = dict.fromkeys(world.power, Power.ON)
    for id in (1, 2):
        world.hosts[id].boots += 1
        world.hosts[id].start()
    world.view(1, 2)
    world.run()
    one = world.hosts[1]
    world.pass_ms(TIMING.post_join_delay_ms - 500)
    assert victims(one) == [3]
    assert one.runs == []
    said = why(one)
    assert "absent when the cluster started" in said
    assert "may come back by itself within" in said
    world.until(lambda: all_is_well(world))
    assert world.power[3] is Power.OFF


def test_who_is_back_within_its_time_is_not_fenced(tmp_path: Path) -> None:
    world = make(tmp_path, 3)
    for id in world.hosts:
        world.cut(id)
    for id in (1, 2):
        world.hosts[id].boots += 1
        world.hosts[id].start()
    world.view(1, 2)
    world.run()
    world.pass_ms(TIMING.post_join_delay_ms - 1000)
    world.boot(3, 1, 2, 3)
    world.pass_ms(10_000)
    assert all_is_well(world)
    assert [host.runs for host in world.hosts.values()] == [[], [], []]


def stop(world: World, id: int) -> None:
    """A clean leave, as `ringfence leave` asks for."""
    host = world.hosts[id]
    left = host.ask(calls.Leave())
    world.until(lambda: host.ended is not None)
    assert host.reply(left)["message"] == "left the cluster"
    rest = tuple(one for one in world.members if one != id)
    world.view(*rest, how="leave")
    world.run()


def power_on(world: World, *members: int) -> None:
    for id in members:
        world.hosts[id].boots += 1
        world.hosts[id].start()
    world.view(*members)
    world.run()


@pytest.mark.parametrize("stays_off", [1, 2])
def test_after_a_clean_stop_nobody_is_fenced_who_stays_off(tmp_path: Path, stays_off: int) -> None:
    """All stop, one after the other; at the next start one is absent, and is left alone."""
    world = make(tmp_path, 4)
    for id in (1, 2):
        stop(world, id)  # then the others have no quorum, and are switched off
    for id in (1, 2, 3, 4):
        world.cut(id)
    world.members = ()
    power_on(world, *(one for one in (1, 2, 3, 4) if one != stays_off))
    three = world.hosts[3]
    assert all_is_well(world)
    world.pass_ms(3 * TIMING.post_join_delay_ms)
    assert [host.runs for host in world.hosts.values()] == [[], [], [], []]
    assert three.do(calls.Status())["members"][stays_off - 1]["state"] == "left"
    assert three.do(calls.LvChange("vg0", f"vm{stays_off}", "ey", wait_ms=0))["mode"] == "EX"
    assert f"an-a01n0{stays_off} left cleanly; it comes back when" in why(three, f"an-a01n0{stays_off}")


@pytest.mark.parametrize("stays_off", [1, 2])
def test_after_a_clean_stop_of_all_at_once_nobody_is_fenced_either(tmp_path: Path, stays_off: int) -> None:
    """Nodes 1 and 2 leave in one view: what node 1 remembers of that view ends with its own goodbye."""
    world = make(tmp_path, 3)
    for id in (1, 2):
        host = world.hosts[id]
        host.ask(calls.Leave())
        world.until(lambda host=host: host.ended is not None)
    for id in world.hosts:
        world.cut(id)
    world.members = ()
    power_on(world, *(one for one in (1, 2, 3) if one != stays_off))
    assert all_is_well(world)
    world.pass_ms(3 * TIMING.post_join_delay_ms)
    assert [host.runs for host in world.hosts.values()] == [[], [], []]
    assert world.hosts[3].do(calls.Status())["members"][stays_off - 1]["state"] == "left"


def test_a_clean_stop_is_over_when_the_node_is_back(tmp_path: Path) -> None:
    """Node 1 left, and came back while node 3 was off: what node 3 remembers is no longer so."""
    world = make(tmp_path, 3)
    stop(world, 1)
    world.cut(3)
    world.view(2)
    world.run()
    world.hosts[1].boots += 1
    world.hosts[1].start()
    world.view(1, 2)
    world.until(lambda: all_is_well(world))
    world.power[3] = Power.ON
    world.hosts[1].do(calls.LvChange("vg0", "vm1", "ey", wait_ms=0))
    dead_devices(world, 1)
    world.part((1,), (2,))
    world.run()
    world.cut(2)
    world.hosts[2].boots += 1
    world.hosts[3].boots += 1
    world.hosts[2].start()
    world.hosts[3].start()
    world.part((1,), (2, 3))
    world.run()
    assert victims(world.hosts[3]) == [1], "it is alive, and may have its volume open"


# -- the end of a view --------------------------------------------------------------------------------


@pytest.mark.parametrize("after_ms", [TIMING.detection_ms, TIMING.detection_ms - TIMING.token_ms])
def test_what_a_parted_ring_delivers_late_is_not_taken_in(tmp_path: Path, after_ms: int) -> None:
    """Each of two sides is delivered, at the end, what its own members sent behind a gap: not the same.

    A host that comes at that very moment has them look round at once, and not when the token is overdue."""
    world = make(tmp_path, 4)
    world.pass_ms(1000)
    for host in world.hosts.values():
        host.do(calls.JoinSpace("games"))
    world.pass_ms(200)
    before = [host.node.context.state.position for host in world.hosts.values()]
    world.stopped = True
    for id in (1, 3):
        world.hosts[id].ask(calls.Lock("games", "chess"), client=id)
    waiting = list(world.queue)  # later ones are sent when no token comes any more, and stay at home
    world.pass_ms(after_ms)
    world.queue.clear()
    for side in ((1, 2), (3, 4)):
        world.sides = [side]
        for sender, payload in waiting:
            if sender in side:
                world.deliver(sender, payload)
    world.stopped = False
    assert [host.node.context.state.position for host in world.hosts.values()] == before
    world.part((1, 2), (3, 4))
    world.run()
    world.pass_ms(500)
    world.view(1, 2, 3, 4)
    world.run()
    world.pass_ms(500)
    assert all_is_well(world), "their states differ, and no majority agrees"
    queues = world.hosts[2].node.context.state.lockspaces["games"].resources["chess"]
    assert [lock.owner for lock in queues.granted] == [1]
    assert [lock.owner for lock in queues.waiting] == [3]
