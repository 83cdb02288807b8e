"""Whoever gets an LV's lock zeroes or wipes it; when that host is lost, left or wanted, another goes on."""

import errno
from pathlib import Path
from typing import Any

import pytest
from engine_ring import Host, World

from ringfence.core.cluster import Volumes
from ringfence.core.errors import Refused
from ringfence.core.evidence import Power
from ringfence.engine.inputs import LvmRequest
from ringfence.engine.orders import Publish, ZeroBlocks
from ringfence.wire import Speaks
from ringfence.wire import client as calls
from ringfence.wire.lvmlockd import LvmAsked

MIB = 1 << 20
LARGE = 256 * MIB
START = 5 * MIB
"""The first extent is the disk slots'."""
SECRET = b"another tenant's"


def make(tmp_path: Path, count: int = 2, **options: Any) -> World:
    """vg0, started everywhere; its disk is full of secrets."""
    world = World(tmp_path, count, **options)
    with world.image.open("r+b") as file:
        file.truncate(1024 * MIB)
        for at in range(0, 1024 * MIB, 4 * MIB):
            file.seek(at + 2 * MIB)
            file.write(SECRET.ljust(512))
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(500)
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make(tmp_path)


def secrets(world: World) -> int:
    with world.image.open("rb") as file:
        file.seek(START)
        return sum(SECRET in file.read(4 * MIB) for _ in range(LARGE // (4 * MIB)))


def remove(world: World, *, hang: bool = True) -> None:
    """A large LV full of secrets is removed on host 1; with `hang`, none of its slices is done."""
    one = world.hosts[1]
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=LARGE, activate="n", wipe=False))
    for host in world.hosts.values():
        host.hanging = hang
    one.do(calls.LvRemove("vg0", "vm1"))
    world.pass_ms(600)


def listed(host: Host) -> list[str]:
    rows = host.do(calls.Lvs("vg0", all=True))["rows"]
    found = [f"{row['lv_name']} {row['copy_percent']}".strip() for row in rows]
    return [line for line in found if line != "ringfence_slots"]


def slices(host: Host) -> list[int]:
    """Of those that hang, where each begins."""
    return [one.body.offset_bytes // MIB for one in host.hung if isinstance(one.body, ZeroBlocks)]


def test_a_removed_lv_is_wiped_by_one_host_without_anybodys_asking(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    remove(world)
    working = [host for host in (one, two) if host.hung]
    assert len(working) == 1
    assert slices(working[0]) == [5]
    assert listed(two) == ["vm1_wiping 0.00"]
    assert one.do(calls.Status())["unclean"] == {"vg0": 1}
    working[0].catch_up(1)
    (row,) = working[0].do(calls.Status())["wiping"]
    assert (row["lv"], row["done_bytes"], row["size_bytes"]) == ("vm1_wiping", 64 * MIB, LARGE)
    (other,) = (host for host in (one, two) if host is not working[0])
    told = [host.do(calls.Why("vg0/vm1_wiping"))["lines"] for host in (working[0], other)]
    progress = "vg0/vm1_wiping is being wiped by this host: 25.00 %, 64.00 MiB of 256.00 MiB"
    assert told[0][0] == progress
    assert told[1][0] == (  # as the metadata say
        "vg0/vm1_wiping is being wiped: 0.00 %, 0 B of 256.00 MiB; not by this host: "
        f"LV vg0/vm1_wiping is held EX by {working[0].name}; ringfence why "
        "vg0/vm1_wiping; trying again"
    )
    assert all(working[0].name in lines[1] for lines in told), "by whom, says the lock"
    working[0].catch_up()
    assert secrets(world) == 0
    assert listed(two) == []
    assert one.do(calls.Status())["unclean"] == {}
    told = [event.what for event in working[0].events if event.kind == "lv-wiped"]
    assert told == ["LV vg0/vm1_wiping is wiped, and its extents are free"]


def test_after_the_loss_of_its_host_another_goes_on(tmp_path: Path) -> None:
    world = make(tmp_path, 3)
    remove(world)
    (lost,) = [host for host in world.hosts.values() if host.hung]
    others = [host for host in world.hosts.values() if host is not lost]
    lost.catch_up(1)
    world.freeze(lost.id)
    for device in (f"bmc{lost.id}", f"pdu{lost.id}"):
        world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN
    world.view(*(host.id for host in others))
    world.pass_ms(20_000)
    assert [slices(host) for host in others] == [[], []], "not before there is proof"
    world.says.clear()
    world.until(lambda: any(slices(host) for host in others), 60_000)
    for host in others:
        host.catch_up()
    world.pass_ms(1000)
    assert secrets(world) == 0
    assert listed(others[0]) == []


def test_who_leaves_gives_way_and_the_other_goes_on(world: World) -> None:
    remove(world)
    working, other = sorted(world.hosts.values(), key=lambda host: not host.hung)
    working.catch_up(1)
    leaving = working.ask(calls.Leave())
    world.pass_ms(300)
    assert working.reply(leaving) is None, "a slice is on its way"
    working.catch_up()
    world.pass_ms(300)
    assert working.ended is not None
    world.view(other.id, how="leave")
    world.until(lambda: bool(slices(other)))
    other.catch_up()
    assert secrets(world) == 0
    assert listed(other) == []


def test_a_lockspace_that_is_stopped_is_not_held_up(world: World) -> None:
    remove(world)
    working, other = sorted(world.hosts.values(), key=lambda host: not host.hung)
    stopping = working.ask(calls.VgChange("lockstop", "vg0"))
    working.catch_up()
    world.pass_ms(300)
    assert working.reply(stopping)["stopped"] == ["vg0"]
    world.until(lambda: bool(slices(other)))
    other.catch_up()
    assert listed(other) == []


def test_a_vg_is_removed_though_its_lvs_are_being_wiped(world: World) -> None:
    remove(world)
    working, other = sorted(world.hosts.values(), key=lambda host: not host.hung)
    removing = other.ask(calls.VgRemove("vg0", force=True))
    world.pass_ms(500)
    assert other.reply(removing) is None
    working.catch_up()
    world.pass_ms(500)
    assert "successfully removed" in other.reply(removing)["message"]
    assert secrets(world) > 0, "it was not waited for"


def test_a_large_new_lv_is_opened_when_it_is_zeroed(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    one.hanging = two.hanging = True
    making = one.ask(calls.LvCreate("vg0", "vm1", size_bytes=LARGE))
    world.pass_ms(12_000)
    assert (slices(one), slices(two)) == ([5], []), "nobody else comes into its way"
    with pytest.raises(Refused, match="still being zeroed"):
        two.do(calls.LvChange("vg0", "vm1", "ey"))
    two.do(calls.LvCreate("vg0", "vm2", size_bytes=4 * MIB, activate="n", wipe=False))  # the VG is free
    one.catch_up()
    assert one.reply(making)["uri"] == "nbd+unix:///vm1"
    assert secrets(world) == 0
    assert [event.kind for event in one.events].count("lv-zeroed") == 0


@pytest.mark.parametrize("here", [True, False])
def test_who_waits_for_a_new_lv_takes_its_zeroing_over(world: World, here: bool) -> None:
    for host in world.hosts.values():
        host.hanging = True
    world.hosts[1].do(calls.LvCreate("vg0", "vm1", size_bytes=LARGE, activate="n"))
    world.until(lambda: any(host.hung for host in world.hosts.values()))
    working, other = sorted(world.hosts.values(), key=lambda host: not host.hung)
    waits = working if here else other
    asked = waits.ask(calls.LvChange("vg0", "vm1", "ey", 60_000))
    working.catch_up(1)
    world.pass_ms(500)
    assert (slices(waits), slices(working if waits is other else other)) == ([START // MIB + 64], [])
    waits.catch_up()
    assert waits.reply(asked)["mode"] == "EX"
    assert secrets(world) == 0


def test_of_two_who_wait_for_a_new_lv_one_gets_it_and_neither_keeps_the_other_from_it(world: World) -> None:
    hosts = list(world.hosts.values())
    for host in hosts:
        host.hanging = True
    hosts[0].do(calls.LvCreate("vg0", "vm1", size_bytes=LARGE, activate="n"))
    asked = {host.id: host.ask(calls.LvChange("vg0", "vm1", "ey", 30_000)) for host in hosts}
    done = 0
    for _ in range(40):
        world.pass_ms(1000)
        for host in hosts:
            done += len(slices(host))
            host.catch_up(1)
    opened = [host for host in hosts if host.paths]
    assert len(opened) == 1
    assert opened[0].reply(asked[opened[0].id])["mode"] == "EX"
    (other,) = (host for host in hosts if host not in opened)
    world.pass_ms(30_000)
    with pytest.raises(Refused, match=f"LV vg0/vm1 is held EX by {opened[0].name}"):
        other.reply(asked[other.id])
    assert secrets(world) == 0
    assert done <= 6, "hardly anything twice"


def test_after_the_creators_end_the_other_zeroes_it_and_nobody_opens_it_before(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    one.hanging = two.hanging = True
    one.ask(calls.LvCreate("vg0", "vm1", size_bytes=LARGE))
    one.catch_up(2)
    world.cut(1)
    world.view(2)
    world.until(lambda: bool(slices(two)), 60_000)
    with pytest.raises(Refused, match="still being zeroed"):
        two.do(calls.LvChange("vg0", "vm1", "ey"))
    two.catch_up()
    assert secrets(world) == 0
    two.do(calls.LvChange("vg0", "vm1", "ey"))


def test_after_a_cold_start_the_disks_tell(world: World) -> None:
    remove(world)
    for id in world.hosts:
        world.cut(id)
    for host in world.hosts.values():
        host.hanging, host.hung = False, []
    for id in world.hosts:
        world.boot(id)
    world.view(1, 2)
    hosts = world.hosts.values()
    world.until(lambda: any("lv-wiped" in host.kinds() for host in hosts), 60_000)
    assert secrets(world) == 0
    assert listed(world.hosts[1]) == []
    world.pass_ms(12_000)
    assert [host.node.context.unclean("vg0") for host in hosts] == [(), ()], "what it saw, it sees no more"


def test_stock_lvm2_gets_no_lock_of_it(world: World) -> None:
    remove(world)
    other = next(host for host in world.hosts.values() if not host.hung)
    (row,) = other.do(calls.Lvs("vg0", "vm1_wiping"))["rows"]
    for mode, code in (("ex", errno.EBUSY), ("sh", errno.EBUSY), ("un", errno.ENOENT)):
        asked = LvmAsked(
            "lock_lv", "lvchange", 7, mode=mode, vg_name="vg0", lv_name="vm1_wiping", lv_uuid=row["lv_uuid"],
            opts=("persistent",),
        )  # fmt: skip
        other.feed(LvmRequest(7, asked))
        world.run()
        assert other.lvm_answers[-1][1].result == -code


def test_a_cluster_that_does_not_know_of_it_wipes_all_the_same(tmp_path: Path) -> None:
    world = make(tmp_path, speaks=Speaks(1, 5))
    remove(world, hang=False)
    world.pass_ms(500)
    assert secrets(world) == 0
    assert listed(world.hosts[2]) == []


def test_no_faster_than_it_may(tmp_path: Path) -> None:
    world = make(tmp_path, volumes=Volumes(wipe_mib_s=32))
    remove(world, hang=False)
    hosts = world.hosts.values()
    took_ms = world.until(lambda: any("lv-wiped" in host.kinds() for host in hosts))
    assert 5_500 <= took_ms <= 6_500, "after each of the first three slices of 64 MiB it waits 2 s"
    world.pass_ms(500)
    assert listed(world.hosts[1]) == []


def test_what_is_unclean_is_what_was_said_last_however_soon_after_the_other(world: World) -> None:
    """The next command of a host may publish before the last one's word has come back."""
    one, two = world.hosts.values()
    for unclean in (("a",), (), ("b",), ("a",), ("b",)):
        one.node._running._tasks._publish(Publish("vg0", 9, 0, "", unclean=unclean))
    assert two.node.context.unclean("vg0") == ()
    world.pass_ms(500)
    assert [host.node.context.unclean("vg0") for host in (one, two)] == [("b",), ("b",)]
    one.node._running._tasks._publish(Publish("vg0", 9, 0, "", unclean=("a",)))
    one.node._running._tasks._publish(Publish("vg0", 9, 0, "", unclean=("b",)))
    world.pass_ms(500)
    assert [host.node.context.unclean("vg0") for host in (one, two)] == [("b",), ("b",)]


def test_who_has_the_vg_next_on_this_host_activates_nothing_that_is_about_to_be_zeroed(world: World) -> None:
    """It has the VG's lock before the cluster is told what the command before it has left to be zeroed."""
    one = world.hosts[1]
    one.do(calls.LvCreate("vg0", "vm0", extents=1, activate="n"))  # so that it keeps the VG's lock
    world.pass_ms(500)
    world.stopped = True

    def stock(client: int, op: str, mode: str, **more: Any) -> int | None:
        """What is answered at once."""
        before = len(one.lvm_answers)
        one.lvm(client, LvmAsked(op, client, 1, "lvchange", mode, vg_name="vg0", **more))
        return next((told.result for who, told in one.lvm_answers[before:] if who == client), None)

    assert stock(7, "lock_vg", "ex") == 0
    created = one.ask(calls.LvCreate("vg0", "vm1", size_bytes=LARGE, activate="n"))
    assert stock(8, "lock_vg", "ex") is None
    assert stock(7, "lock_vg", "un") == 0
    assert [(who, told.result) for who, told in one.lvm_answers][-1] == (8, 0)
    assert one.reply(created) is None
    known = one.node.context.known_vgs.named("vg0")
    uuid = known.vg.lv("vm1").uuid
    assert one.node.context.unclean("vg0") == (), "nobody is told yet"
    wish = {"lv_name": "vm1", "lv_uuid": uuid, "opts": ("persistent",)}
    assert stock(8, "lock_lv", "ex", **wish) == -errno.EBUSY
    world.stopped = False
    world.pass_ms(500)
    assert one.reply(created)["zeroing"]
