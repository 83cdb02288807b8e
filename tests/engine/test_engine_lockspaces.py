"""Lockspaces: join, leave, leave by force, and what a lost node stops."""

from pathlib import Path
from typing import Any

import pytest
from engine_ring import Host, World

from ringfence.core.errors import LocksLost, NotFound, Refused
from ringfence.core.evidence import Power
from ringfence.engine.effects import LAPSED
from ringfence.engine.inputs import ClientGone
from ringfence.locks.flags import Flag
from ringfence.wire import client as calls

ALICE, BOB = 11, 12


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 3)
    world.pass_ms(1000)
    return world


def join(world: World, name: str, *nodes: int) -> None:
    for node in nodes:
        assert world.hosts[node].do(calls.JoinSpace(name)) == {"joined": name}


def lock(host: Host, client: int, mode: str = "EX", name: str = "chess", **more: Any) -> Any:
    return host.do(calls.Lock("games", name, mode, notices=True, **more), client)


def spaces(host: Host) -> dict[str, Any]:
    return {one["name"]: one for one in host.do(calls.Status())["lockspaces"]}


def test_who_will_not_wait_is_refused_by_a_node_that_cannot_act(world: World) -> None:
    """A join has no time limit of its own: a try-lock would hang in it before it could try."""
    one = world.hosts[1]
    world.part((1,), (2, 3))
    world.run()
    with pytest.raises(Refused, match="an-a01n01 cannot act now: no quorum: an-a01n02, an-a01n03 missing"):
        one.do(calls.JoinSpace("games", wait_ms=0))
    waits = one.ask(calls.JoinSpace("games"))
    world.pass_ms(100)
    assert one.reply(waits) is None
    assert world.hosts[2].do(calls.JoinSpace("mine", wait_ms=0)) == {"joined": "mine"}


def test_who_will_not_wait_is_refused_a_frozen_lockspace(world: World) -> None:
    join(world, "games", 1, 2)
    world.cut(2)
    world.view(1, 3)
    world.run()
    three = world.hosts[3]
    with pytest.raises(Refused, match="lockspace games is frozen until an-a01n02 is fenced"):
        three.do(calls.JoinSpace("games", wait_ms=0))
    waits = three.ask(calls.JoinSpace("games"))
    assert three.reply(waits) is None
    assert world.hosts[1].do(calls.JoinSpace("games", wait_ms=0)) == {"joined": "games"}, "it is in already"


def test_a_lockspace_lasts_from_the_first_join_to_the_last_leave(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    join(world, "games", 1, 2)
    assert spaces(one)["games"]["members"] == ["an-a01n01", "an-a01n02"]
    with pytest.raises(NotFound, match="not in lockspace games"):
        lock(world.hosts[3], ALICE)
    one.do(calls.LeaveSpace("games"))
    assert spaces(two)["games"]["members"] == ["an-a01n02"]
    with pytest.raises(NotFound, match="not in lockspace games"):
        lock(one, ALICE)
    assert two.do(calls.LeaveSpace("games"))["left"] == "games"
    assert "games" not in spaces(one)
    for call in (calls.LeaveSpace("games"), calls.LeaveSpace("games", True), calls.PurgeOrphans("games")):
        with pytest.raises(NotFound, match="there is no lockspace games"):
            two.do(call)


def test_a_clean_leave_waits_for_no_client_and_gives_back_what_is_kept(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    join(world, "games", 1, 2)
    mine = lock(one, ALICE)["lock"]
    with pytest.raises(Refused, match=r"an-a01n01 still has locks in use: games/chess \(tester\)"):
        one.do(calls.LeaveSpace("games"))
    one.do(calls.Unlock(mine), ALICE)
    one.do(calls.LeaveSpace("games"))
    lock(two, BOB, wait_ms=0)


def test_nobody_gets_a_lock_while_the_node_leaves(world: World) -> None:
    """Else it would be kept after use, and the leave would never end."""
    one = world.hosts[1]
    join(world, "games", 1, 2)
    one.do(calls.Unlock(lock(one, ALICE)["lock"]), ALICE)
    world.stopped = True
    leaving = one.ask(calls.LeaveSpace("games"))
    with pytest.raises(Refused, match="an-a01n01 leaves the lockspace"):
        lock(one, ALICE)
    world.go_on()
    assert one.reply(leaving)["left"] == "games"
    join(world, "games", 1)
    lock(one, ALICE)


def test_by_force_clients_lose_their_locks(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    join(world, "games", 1, 2)
    lock(two, BOB, "NL")
    id = one.ask(calls.Lock("games", "chess", notices=True), ALICE)
    lost = one.reply(id)["lock"]
    waits = one.ask(calls.Lock("games", "chess", "PR"), ALICE + 1)
    lock(one, ALICE + 2, "PR", "go", flags=Flag.PERSISTENT)
    one.feed(ClientGone(ALICE + 2))
    elsewhere = two.ask(calls.Lock("games", "chess", "PR"), BOB + 1)
    assert one.do(calls.LeaveSpace("games", force=True)) == {"left": "games", "lost": 2}
    assert one.replies[id][-1].result == {"lost": True, "lock": lost}
    with pytest.raises(LocksLost, match="leaves lockspace games by force"):
        one.reply(waits)
    with pytest.raises(NotFound):
        one.do(calls.Unlock(lost), ALICE)
    assert not two.reply(elsewhere)["lvb_valid"], "its client might have written"
    assert lock(two, BOB + 2, name="go")["mode"] == "EX"
    assert spaces(two)["games"]["members"] == ["an-a01n02"]


def test_no_force_moves_a_volume(world: World) -> None:
    one = world.hosts[1]
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(200)
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20))
    with pytest.raises(Refused, match="vg0/vm1 is open here, which no force will close"):
        one.do(calls.LeaveSpace("lvm_vg0", force=True))
    one.paths.clear()  # the block service was restarted; the activation stands
    with pytest.raises(Refused, match="LV vg0/vm1 is in use by volumes of this node"):
        one.do(calls.LeaveSpace("lvm_vg0", force=True))
    one.do(calls.LvChange("vg0", "vm1", "n"))
    assert one.do(calls.LeaveSpace("lvm_vg0", force=True))["left"] == "lvm_vg0"


def test_a_page_goes_with_its_lockspace_though_no_heartbeat_came_meanwhile(world: World) -> None:
    one, page = world.hosts[1], (1, "vg/vg0")
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    at_ns = world.now_ns
    assert one.pages[page] > at_ns
    one.do(calls.LeaveSpace("lvm_vg0"))
    assert one.pages[page] == LAPSED
    one.do(calls.JoinSpace("lvm_vg0"))
    assert one.pages[page] > at_ns == world.now_ns


def test_a_frozen_lockspace_is_not_left(world: World) -> None:
    one = world.hosts[1]
    join(world, "games", 1, 2)
    lock(one, ALICE)
    world.says["bmc2", "off"] = world.says["pdu2", "off"] = Power.UNKNOWN
    world.freeze(2)
    world.view(1, 3)
    world.run()
    with pytest.raises(Refused, match="frozen until an-a01n02 is fenced"):
        one.do(calls.LeaveSpace("games", force=True))
    assert [row["state"] for row in one.do(calls.Locks("games"))["clients"]] == ["granted"]


def test_a_lost_node_stops_only_the_lockspaces_it_was_in(world: World) -> None:
    one, three = world.hosts[1], world.hosts[3]
    join(world, "games", 1, 2, 3)
    join(world, "music", 1, 3)
    world.says["bmc2", "off"] = world.says["pdu2", "off"] = Power.UNKNOWN
    world.freeze(2)
    world.view(1, 3)
    world.run()
    world.pass_ms(200)
    assert {name: space["frozen"] for name, space in spaces(one).items() if not name.startswith("lvm_")} == {
        "games": True,
        "music": False,
    }
    stuck = one.ask(calls.Lock("games", "chess"), ALICE)
    mine = one.do(calls.Lock("music", "organ"), ALICE)
    one.do(calls.Unlock(mine["lock"]), ALICE)
    theirs = three.ask(calls.Lock("music", "organ"), BOB)
    world.pass_ms(100)
    assert three.reply(theirs)["mode"] == "EX"
    assert one.reply(stuck) is None
    del world.says["bmc2", "off"], world.says["pdu2", "off"]
    world.until(lambda: one.reply(stuck) is not None, 60_000)


def members(host: Host, space: str) -> list[str]:
    found: list[str] = spaces(host).get(space, {"members": []})["members"]
    return found


def test_a_removed_vgs_lockspace_is_left_by_all_who_do_not_use_it(world: World) -> None:
    one, two, three = world.hosts.values()
    names = [host.name for host in world.hosts.values()]
    make = calls.VgCreate("vg0", (str(world.image),), shared=True)
    one.do(make)
    world.until(lambda: members(one, "lvm_vg0") == names)
    two.do(calls.Lock("lvm_vg0", "mine"), ALICE)
    asked = one.ask(calls.VgRemove("vg0", force=True))
    world.pass_ms(3000)
    assert "successfully removed" in one.reply(asked)["message"]
    assert members(three, "lvm_vg0") == [two.name], "only who has a lock there stays"
    three.do(make)
    world.until(lambda: members(one, "lvm_vg0") == names)
    two.feed(ClientGone(ALICE))
    asked = one.ask(calls.VgRemove("vg0", force=True))
    world.pass_ms(3000)
    assert one.reply(asked) is not None
    assert "lvm_vg0" not in spaces(one)
    two.do(make)
    world.until(lambda: members(one, "lvm_vg0") == names)


# -- stopped by hand -------------------------------------------------------------------


@pytest.fixture
def sharing(tmp_path: Path) -> World:
    """Two hosts that have started VG vg0."""
    world = World(tmp_path, 2)
    world.pass_ms(1000)
    world.hosts[1].do(calls.PvCreate((str(world.image),)))
    world.hosts[1].do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(1000)
    assert all(host.node.context.is_in("lvm_vg0") for host in world.hosts.values())
    return world


def restart(world: World, id: int, *, boots: bool) -> None:
    others = [one for one in world.hosts if one != id]
    if boots:
        world.cut(id)
        world.view(*others)
        world.pass_ms(1000)
        world.boot(id, *others, id)
    else:
        world.hosts[id].kill()
        world.view(*others, how="procdown")
        world.pass_ms(200)
        world.hosts[id].start()
        world.view(*others, id)
    world.pass_ms(3000)
    assert world.hosts[id].running


@pytest.mark.parametrize("vg", ["vg0", ""])
def test_what_was_stopped_by_hand_stays_so_until_the_host_boots(sharing: World, vg: str) -> None:
    """Whoever restores a VG with stock LVM2 asks each host once."""
    one, two = sharing.hosts[1], sharing.hosts[2]
    two.do(calls.VgChange("lockstop", vg))
    restart(sharing, 2, boots=False)
    one.do(calls.LvCreate("vg0", "vm1", extents=1))  # others' news of it do not start it either
    sharing.pass_ms(1000)
    assert not two.node.context.is_in("lvm_vg0")
    for target in ("", "vg0"):
        lines = two.do(calls.Why(target))["lines"]
        assert "VG vg0 was stopped on an-a01n02 by hand" in lines[-1]
    restart(sharing, 2, boots=True)
    assert two.node.context.is_in("lvm_vg0")
    assert not two.do(calls.Why("vg0"))["stuck"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_vg_that_was_stopped_by_hand_stays_so_whatever_it_is_called(sharing: World, restarts: bool) -> None:
    """Also if it got its new name while no daemon ran here."""
    one, two = sharing.hosts[1], sharing.hosts[2]
    two.do(calls.VgChange("lockstop", "vg0"))
    if restarts:
        two.kill()
        sharing.view(1, how="procdown")
        sharing.pass_ms(200)
    one.do(calls.VgRename("vg0", "vg1"))
    sharing.pass_ms(200)
    if restarts:
        two.start()
        sharing.view(1, 2)
    sharing.pass_ms(3000)
    assert one.node.context.is_in("lvm_vg1")
    assert not two.node.context.is_in("lvm_vg1")
    assert "VG vg1 was stopped on an-a01n02 by hand" in two.do(calls.Why("vg1"))["lines"][-1]
    two.do(calls.VgChange("lockstart", "vg1"))
    restart(sharing, 2, boots=False)
    assert two.node.context.is_in("lvm_vg1")


def test_a_vg_that_is_removed_while_it_is_stopped_here_is_not_advised_to_be_started(sharing: World) -> None:
    one, two = sharing.hosts[1], sharing.hosts[2]
    two.do(calls.VgChange("lockstop", "vg0"))
    one.do(calls.VgRemove("vg0"))
    sharing.pass_ms(3000)
    assert two.do(calls.Why())["lines"] == ["nothing is stuck"]
    with pytest.raises(NotFound):
        two.do(calls.Why("vg0"))
    one.do(calls.VgCreate("vg0", (str(sharing.image),), shared=True))  # another one: nobody has stopped it
    sharing.pass_ms(3000)
    assert two.node.context.is_in("lvm_vg0")


def test_one_that_goes_while_no_daemon_runs_here_may_be_on_a_disk_that_is_missing(sharing: World) -> None:
    one, two = sharing.hosts[1], sharing.hosts[2]
    two.do(calls.VgChange("lockstop", "vg0"))
    two.kill()
    sharing.view(1, how="procdown")
    sharing.pass_ms(200)
    one.do(calls.VgRemove("vg0"))
    sharing.pass_ms(200)
    two.start()
    sharing.view(1, 2)
    sharing.pass_ms(3000)
    for target in ("", "vg0"):
        line = two.do(calls.Why(target))["lines"][-1]
        assert "VG vg0 was stopped on an-a01n02 by hand" in line
        assert "it was removed, or its disks are missing; next: ringfence vgs" in line
        assert "--lockstart" not in line
    assert "vg0" in two.node.context.stopped, "a disk that comes back brings no VG that starts by itself"
    one.do(calls.VgCreate("vg0", (str(sharing.image),), shared=True))  # another one, which was seen
    sharing.pass_ms(3000)
    two.do(calls.VgChange("lockstop", "vg0"))
    assert "next: ringfence vgchange --lockstart vg0" in two.do(calls.Why("vg0"))["lines"][-1]


def test_vgs_that_were_stopped_and_go_by_each_other_s_names_stay_so(sharing: World) -> None:
    context = sharing.hosts[2].node.context
    context.vg_uuids |= {"lvm_a": "A", "lvm_b": "B"}
    context.note_stopped(["a", "b"])
    context.vg_uuids.clear()
    context.note_renamed({"a": "b", "c": "a"})
    assert context.stopped == {"a": "B", "c": "A"}
    context.note_started("c")
    assert context.stopped == {"a": "B"}


@pytest.mark.parametrize(
    "call",
    [
        calls.VgChange("lockstart", "vg0"),
        calls.VgChange("lockstart"),
        calls.LvCreate("vg0", "vm2", extents=1),
    ],
)
def test_who_starts_it_again_ends_that(sharing: World, call: Any) -> None:
    two = sharing.hosts[2]
    two.do(calls.VgChange("lockstop", "vg0"))
    two.do(call)
    if isinstance(call, calls.LvCreate):
        two.do(calls.LvChange("vg0", "vm2", "n"))
    restart(sharing, 2, boots=False)
    assert two.node.context.is_in("lvm_vg0")
    assert not any("by hand" in line for line in two.do(calls.Why())["lines"])


def test_a_vg_that_nobody_has_started_is_explained_too(sharing: World) -> None:
    for host in sharing.hosts.values():
        host.do(calls.VgChange("lockstop", "vg0"))
    said = sharing.hosts[1].do(calls.Why("vg0"))
    assert "next: ringfence vgchange --lockstart vg0" in said["lines"][0]
    assert not said["stuck"]


def test_what_is_not_left_is_not_stopped(sharing: World) -> None:
    """It is started, and the next daemon of this boot starts it, too."""
    two = sharing.hosts[2]
    sharing.view(2)  # with a victim nothing is left
    asked = two.ask(calls.VgChange("lockstop", "vg0"))
    sharing.pass_ms(300)
    assert not two.replies.get(asked) or two.replies[asked][0].error
    assert two.disk.stopped == ()
