"""`why` and `status`, in every standing of a node: never silent while something is stuck."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_ring import Host, World
from test_engine_slots_moved import commit

from ringfence.core.errors import LockHeld, NotFound, Refused
from ringfence.core.evidence import Power
from ringfence.core.ids import Life
from ringfence.engine.inputs import ClientGone, RingLost, Wall
from ringfence.wire import client as calls


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 3)
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(200)
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20))
    world.pass_ms(200)
    return world


def why(host: Host, target: str = "") -> str:
    """All lines; `stuck` must agree with them."""
    id = host.ask(calls.Why(target))
    host.world.pass_ms(100)
    answer: dict[str, Any] = host.reply(id)
    assert answer["target"] == target
    assert answer["lines"]
    return ("STUCK\n" if answer["stuck"] else "") + "\n".join(answer["lines"])


def status(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = host.do(calls.Status())
    assert found["blocked"] == bool(found["blocked_by"])
    return found


def test_in_peace_nothing_is_stuck(world: World) -> None:
    for host in world.hosts.values():
        assert why(host) == "nothing is stuck"
        assert not status(host)["blocked"]
    two = world.hosts[2]
    assert "vg0/vm1 is held EX by an-a01n01" in why(two, "vg0/vm1")
    assert "STUCK" not in why(two, "vg0/vm1")
    assert "an-a01n01 is a ready member, last heard" in why(two, "an-a01n01")
    assert [one["state"] for one in status(two)["members"]] == ["ready"] * 3


def test_a_wait_behind_a_member_names_it_and_the_command_that_ends_it(world: World) -> None:
    two = world.hosts[2]
    two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    said = why(two, "vg0/vm1")
    assert said.startswith("STUCK\nvg0/vm1 is held EX by an-a01n01 since")
    assert "an-a01n02 waits for EX on" in said
    assert "next: on an-a01n01, ringfence lvchange -an vg0/vm1" in said
    assert "waits for EX on LV vg0/vm1" in why(two)
    assert "waits for EX" in why(world.hosts[3], "vg0/vm1"), "the third host knows it too"


def test_a_victim_is_explained_to_its_end(world: World) -> None:
    two = world.hosts[2]
    world.says["bmc1", "off"] = world.says["bmc1", "status"] = Power.UNKNOWN
    world.says["pdu1", "off"] = Power.UNKNOWN
    world.freeze(1)
    world.view(2, 3)
    world.run()
    two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    for target in ("", "vg0/vm1", "an-a01n01"):
        said = why(two, target)
        assert "an-a01n01 suspected since" in said, target
        assert "an-a01n02 is running level" in said or "next: level" in said, target
        assert "frozen" in said, target
    world.pass_ms(20_000)
    assert "make sure that an-a01n01 is off, then: ringfence fence confirm an-a01n01" in why(two)
    (victim,) = status(two)["victims"]
    assert (victim["proven"], victim["lied"]) == (False, False)
    assert victim["attempts"] > 3
    assert status(two)["lockspaces"][-1]["frozen"]
    del world.says["pdu1", "off"]
    world.until(lambda: not two.node.context.state.victims())
    assert why(two, "vg0/vm1").startswith("vg0/vm1 is held EX by an-a01n02")


def test_evidence_is_there_and_the_bound_is_not(world: World) -> None:
    two = world.hosts[2]
    world.freeze(1)
    world.view(2, 3)
    world.until(lambda: "evidence" in two.kinds())
    said = why(two)
    assert "evidence: host-off" in said
    assert "still missing: purge bound on" in said
    assert "its write authority must have run out, on the clock of an-a01n02" in said
    assert "until the write authority of an-a01n01, proven fenced, has run out" in said


def test_without_quorum_a_node_says_who_is_missing(world: World) -> None:
    one = world.hosts[1]
    world.view(1)
    world.run()
    for target in ("", "vg0/vm1", "an-a01n01", "an-a01n02"):
        assert "an-a01n01 cannot act (suspended): no quorum: an-a01n02, an-a01n03 missing" in why(one, target)
    found = status(one)
    assert (found["ready"], found["primary"], found["blocked"]) == (False, False, True)
    assert "when last heard of" in found["members"][0]["state"]


def test_without_a_ring_a_node_says_so(world: World) -> None:
    one = world.hosts[1]
    one.feed(RingLost("the hub is gone; start it"))
    said = why(one)
    assert "cannot act (no ring): the hub is gone; start it" in said
    assert "next: it joins by itself when the ring is back" in said
    world.pass_ms(4000)
    assert status(one)["authority"]["write"] == "lapsed"


def test_a_node_without_news_does_not_say_that_nobody_holds_a_lock(world: World) -> None:
    two = world.hosts[2]
    two.do(calls.LvCreate("vg0", "vm2", size_bytes=8 << 20, activate="n"))
    assert "nobody holds it" in why(two, "vg0/vm2")
    two.feed(RingLost("the hub is gone"))
    said = why(two, "vg0/vm2")
    assert "nobody holds it" not in said
    assert "who holds it is not known here" in said


def test_a_barrier_names_who_has_not_spoken(world: World) -> None:
    one = world.hosts[1]
    world.freeze(3)
    world.view(1, 2, 3)
    world.run()
    said = why(one)
    assert "waits for an-a01n03 to say that it is ready" in said
    assert "next:" in said


def test_a_stale_node_says_what_it_waits_for(world: World) -> None:
    one = world.hosts[1]
    world.freeze(1)
    world.says["bmc1", "off"] = world.says["bmc1", "status"] = Power.OFF  # it lies: the host lives
    world.view(2, 3)
    world.until(lambda: "purged" in world.hosts[2].kinds())
    world.thaw(1, 1, 2, 3)
    assert why(one).startswith("STUCK\nan-a01n01 cannot act (shut out): the cluster did not admit this node")
    assert "next: on a ready member: ringfence why an-a01n01;" in why(one)
    assert "the fence lied" in why(world.hosts[2], "an-a01n01")
    assert "the fence lied" in why(world.hosts[2])


def test_what_nobody_knows_is_not_found(world: World) -> None:
    for target in ("nobody", "vg0/nothing", "vg9/vm1", "a/b/c", "/", "vg0/"):
        id = world.hosts[2].ask(calls.Why(target))
        with pytest.raises(NotFound, match="no node, no volume"):
            world.hosts[2].reply(id)


def test_a_vg_that_has_no_locks_is_told_apart_from_what_nobody_knows(world: World) -> None:
    """`vgs` shows it: "no such name" would be a lie."""
    one = world.hosts[1]
    one.do(calls.LvChange("vg0", "vm1", "n"))
    one.do(calls.VgChange("lockstop", "vg0"))
    for id in (2, 3):
        world.hosts[id].do(calls.VgChange("lockstop", "vg0"))
    world.pass_ms(200)
    assert "VG vg0 was stopped on an-a01n01 by hand" in why(one, "vg0")
    assert one.node is not None
    one.node.context.note_started("vg0")
    assert why(one, "vg0").startswith("no node is in the lockspace of VG vg0; next: ringfence vgchange")
    commit(world.image, r'lock_type = "dlm"\nlock_args = "[^"]*"\n', "")
    said = why(one, "vg0")
    assert said.startswith("VG vg0 is not shared: no lock of it is known here; next: make it so with stock")


def test_a_lock_of_a_program_is_explained_by_its_own_name(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.ask(calls.JoinSpace("games"))
    world.pass_ms(200)
    one.ask(calls.Lock("games", "chess", "EX"))
    two.ask(calls.Lock("games", "chess", "PR"), client=7)
    said = why(two, "games/chess")
    assert "games/chess is held EX by an-a01n01" in said
    assert "an-a01n02 waits for PR on games/chess" in said
    assert "(tester), behind an-a01n01, which holds EX" in said
    line = "an-a01n02 waits for PR on games/chess since an unknown time, behind an-a01n01"
    assert line in why(world.hosts[3], "games/chess"), "the third host knows the nodes"
    assert "next: the wait ends when it lets go; `ringfence locks` there says who" in said
    assert "on an-a01n01, tester holds it EX since" in why(one, "games/chess")
    (held,) = [one for one in two.do(calls.Locks("games"))["locks"] if one["state"] == "granted"]
    assert (held["name"], held["mode"], held["wanted"]) == ("an-a01n01", "EX", "")


def test_a_client_holds_its_lock_since_it_was_granted_not_since_it_asked(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.feed(Wall(1000))
        host.do(calls.JoinSpace("games"))
    held = one.do(calls.Lock("games", "chess"), client=7)["lock"]
    two.ask(calls.Lock("games", "chess"), client=8)
    tries = two.ask(calls.Lock("games", "chess", wait_ms=0), client=9)
    with pytest.raises(LockHeld, match="another client of this node waits for it, and comes first"):
        two.reply(tries)
    for host in (one, two):
        host.feed(Wall(9000))
    one.do(calls.Unlock(held), client=7)
    (client,) = two.do(calls.Locks("games"))["clients"]
    assert (client["mode"], client["since_wall_ms"]) == ("EX", 9000)
    assert "on an-a01n02, tester holds it EX since 00:00:09Z" in why(two, "games/chess")


def test_a_lock_that_is_only_kept_is_told_apart(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    one.do(calls.JoinSpace("games"))
    world.pass_ms(200)
    one.do(calls.Unlock(one.do(calls.Lock("games", "chess"))["lock"]))
    said = why(one, "games/chess")
    assert "STUCK" not in said
    assert "an-a01n01 keeps it from an earlier use: nobody holds it there" in said
    assert "keeps" not in why(two, "games/chess"), "that only the node itself can know"


def chain(host: Host, lockspace: str = "") -> list[list[str]]:
    return [wait["lines"] for wait in host.do(calls.Locks(lockspace))["waits"]]


def test_chains_of_waits_go_on_across_resources(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    world.pass_ms(200)
    two.do(calls.Lock("games", "go"), client=3)
    one.do(calls.Lock("games", "chess", owner="first"), client=1)
    one.ask(calls.Lock("games", "go", owner="first"), client=2)
    one.ask(calls.Lock("games", "chess", "PR"), client=4)
    one.ask(calls.Lock("games", "chess", "CR"), client=5)
    assert chain(one) == [
        ["tester waits for EX on games/go", "behind an-a01n02, which holds EX"],
        [
            "tester waits for PR on games/chess",
            "behind tester on an-a01n01, which holds EX and waits for EX on games/go",
            "behind an-a01n02, which holds EX",
        ],
        [
            "tester waits for CR on games/chess",
            "behind tester on an-a01n01, which holds EX and waits for EX on games/go",
            "behind an-a01n02, which holds EX",
        ],
    ]
    assert chain(two) == []
    assert chain(one, "lvm_vg0") == []
    (reported,) = [wait["chain"] for wait in one.do(calls.Locks("games"))["waits"][:1]]
    assert [(step["name"], step["mode"], step["lock"]) for step in reported] == [("an-a01n02", "EX", None)]
    clients = one.do(calls.Locks("games"))["clients"]
    assert {(client["who"], client["owner"]) for client in clients} == {("tester", ""), ("tester", "first")}
    said = why(one, "games/chess")
    assert said.count("waits for") >= 4
    assert "behind an-a01n02, which holds EX" in said


def test_a_chain_tells_that_its_end_waits_too(world: World) -> None:
    one, two, three = world.hosts[1], world.hosts[2], world.hosts[3]
    for host in (one, two, three):
        host.do(calls.JoinSpace("games"))
    world.pass_ms(200)
    two.do(calls.Lock("games", "go"), client=3)
    three.do(calls.Lock("games", "chess"))
    two.ask(calls.Lock("games", "chess"), client=3)
    one.ask(calls.Lock("games", "go"))
    assert chain(one) == [
        [
            "tester waits for EX on games/go",
            "behind an-a01n02, which holds EX; some of its clients wait: EX on games/chess",
        ]
    ]


def test_a_chain_on_one_node_that_closes_is_a_ring(world: World) -> None:
    one = world.hosts[1]
    one.do(calls.JoinSpace("games"))
    world.pass_ms(200)
    one.do(calls.Lock("games", "go"), client=1)
    one.do(calls.Lock("games", "chess"), client=2)
    one.ask(calls.Lock("games", "chess"), client=1)
    one.ask(calls.Lock("games", "go"), client=2)
    for lines in chain(one):
        assert len(lines) == 3
        assert lines[-1].endswith("this closes a ring: nobody in it can go on")


def test_a_chain_that_ends_at_a_victim(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    world.pass_ms(200)
    two.do(calls.Lock("games", "go"), client=3)
    one.ask(calls.Lock("games", "go"))
    world.says["bmc2", "off"] = world.says["pdu2", "off"] = Power.UNKNOWN
    world.freeze(2)
    world.view(1, 3)
    world.run()
    ((_, end),) = chain(one, "games")
    assert end == "behind an-a01n02; lockspace games is frozen until it is fenced"


def test_a_lockspace_is_explained(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    one.do(calls.JoinSpace("games"))
    world.pass_ms(200)
    assert why(one, "games") == "lockspace games runs; in it: an-a01n01"
    one.do(calls.Lock("games", "chess"), client=1)
    gone = one.ask(calls.Lock("games", "chess"), client=2)
    runs, waits = why(one, "games").splitlines()[1:]
    assert (runs, "waits for EX on games/chess" in waits) == ("lockspace games runs; in it: an-a01n01", True)
    one.feed(ClientGone(2))
    assert gone not in one.replies
    world.says["bmc1", "off"] = world.says["pdu1", "off"] = Power.UNKNOWN
    world.freeze(1)
    world.view(2, 3)
    world.run()
    two.ask(calls.JoinSpace("games"))
    said = why(two, "games")
    assert said.startswith("STUCK\nlockspace games is frozen")
    assert "an-a01n02 joins games when it runs again" in said
    (space,) = [one for one in status(two)["lockspaces"] if one["name"] == "games"]
    assert (space["members"], space["pending"]) == (["an-a01n01"], ["an-a01n02"])
    assert space["why"] == "until an-a01n01 is fenced"


def test_a_command_for_a_volume_that_waits_for_its_vg_is_told(world: World) -> None:
    two, three = world.hosts[2], world.hosts[3]
    three.ask(calls.Lock("lvm_vg0", "VGLK"))
    two.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    said = why(two, "vg0/vm1")
    assert said.startswith("STUCK\nvg0/vm1 is held EX by an-a01n01")
    assert "an-a01n02 waits for PR on VG vg0 since" in said
    assert "VG vg0 is held EX by an-a01n03 since" in said


def test_a_volume_whose_export_is_gone_is_told(world: World) -> None:
    one = world.hosts[1]
    paths, one.paths = one.paths, {}
    line = "vg0/vm1 is active here, but its export is gone: the block service was started anew, or did not "
    line += "open it; next: ringfence lvchange -aey vg0/vm1"
    assert why(one) == f"STUCK\n{line}"
    assert line in why(one, "vg0/vm1")
    assert "export" not in why(world.hosts[2], "vg0/vm1")
    assert status(one)["blocked_by"] == [line]
    reported = one.do(calls.Lvs())
    (row,) = reported["rows"]
    assert (row["lv_attr"], row["lv_active"]) == ("-wi-X-----", "unknown")
    assert reported["notes"] == [f"WARNING: {line}"]
    assert world.hosts[2].do(calls.Lvs())["rows"][0]["lv_active"] == ""
    one.paths = paths
    assert one.do(calls.Lvs())["rows"][0]["lv_active"] == "active"
    assert why(one) == "nothing is stuck"
    one.do(calls.LvChange("vg0", "vm1", "n"))
    assert why(one) == "nothing is stuck"


def test_locks_of_a_lockspace_that_is_not_there(world: World) -> None:
    with pytest.raises(NotFound, match="there is no lockspace nope"):
        world.hosts[1].do(calls.Locks("nope"))


def test_heartbeats_that_do_not_come_back_point_at_the_ring(world: World) -> None:
    one = world.hosts[1]
    world.pass_ms(4000)
    world.stopped = True
    world.pass_ms(1000)
    assert "an-a01n01 has no authority: messages of an-a01n01 do not come back from the ring" in why(one)


def test_a_node_that_was_taken_out_of_the_configuration_can_be_confirmed(tmp_path: Path) -> None:
    """Two hosts lose power; one never comes back.  The other goes on when a person says so."""
    world = World(tmp_path, 2)
    world.pass_ms(1000)
    for id in (1, 2):
        world.cut(id)
    world.boot(1, 1)
    one = world.hosts[1]
    said = why(one)
    assert "no quorum: an-a01n02 missing" in said
    assert "if an-a01n02 never comes back" in said
    world.cut(1)
    old = world.config
    world.config = msgspec.structs.replace(old, two_node=False, nodes=old.nodes[:1], devices=old.devices[:1])
    victims = (Life(2, "machine-2", "boot-2-1", 1),)
    one.disk = msgspec.structs.replace(one.disk, victims=victims)  # it had seen the other go
    world.boot(1, 1)
    world.pass_ms(10_000)
    assert one.running
    assert "no fence devices: make sure that node-2 is off, then: ringfence fence confirm node-2" in why(one)
    assert one.node.context.state.victims()
    assert "no fence devices" in why(one, "node-2")
    assert one.do(calls.FenceConfirm("node-2", "ann", "it burnt down", world.now_ns))["waiting"] == 0
    world.until(lambda: not one.node.context.state.victims())


def test_a_configuration_with_other_nodes_is_refused_with_the_way_to_get_it(world: World) -> None:
    one, config = world.hosts[1], world.config
    fewer = msgspec.structs.replace(config, version=config.version + 1, nodes=config.nodes[:2])
    with pytest.raises(Refused, match="the set of nodes cannot change") as caught:
        one.do(calls.ConfigApply(fewer))
    assert caught.value.next.startswith("stop ringfence on all hosts, give all of them the new file")
    other = msgspec.structs.replace(config, version=config.version + 1, name="other")
    with pytest.raises(Refused, match="name, ring and naive") as caught:
        one.do(calls.ConfigApply(other))
    assert caught.value.next == "ringfence config show"


def test_what_waits_without_quorum_is_not_said_to_be_held(world: World) -> None:
    one = world.hosts[1]
    world.view(1)
    world.run()
    world.pass_ms(1500)
    one.ask(calls.LvCreate("vg0", "vm2", extents=1))
    said = why(one, "vg0")
    assert "an-a01n01 waits for EX on VG vg0" in said
    assert "an-a01n01 has it, and may not tell lvcreate vg0/vm2 so: that takes grant authority" in said
    assert "lvcreate vg0/vm2 holds" not in said
