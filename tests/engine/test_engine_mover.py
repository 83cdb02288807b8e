"""LVs go to other extents by whoever has them open, or gets their lock, and after its loss by another."""

import errno
import random
from pathlib import Path
from typing import Any

import pytest
from engine_ring import Host, World, read_file

from ringfence.core.errors import Refused
from ringfence.core.evidence import Power
from ringfence.engine.inputs import LvmRequest
from ringfence.sim.mirrored import read_lv
from ringfence.wire import MOVES, Speaks
from ringfence.wire import client as calls
from ringfence.wire.lvmlockd import LvmAsked

MIB = 1 << 20
SIZE = 20 * MIB


def make(tmp_path: Path, count: int = 2, **options: Any) -> World:
    """vg0 on two disks; vm1 lies on the first, full of anything."""
    world = World(tmp_path, count, **options)
    second = tmp_path / "disk2.img"
    second.write_bytes(bytes(64 * MIB))
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.VgCreate("vg0", (str(world.image), str(second)), shared=True))
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=SIZE, activate="n", pvs=(str(world.image),)))
    world.pass_ms(500)
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make(tmp_path)


class Guest:
    def __init__(self, host: Host) -> None:
        self.host = host
        host.do(calls.LvChange("vg0", "vm1", "ey"))
        self._rng = random.Random(1)
        self.data = bytearray(self._rng.randbytes(SIZE))
        host.write("vg0", "vm1", 0, bytes(self.data))

    def write(self, count: int = 20) -> None:
        for _ in range(count):
            at = self._rng.randrange(SIZE // 512) * 512
            some = self._rng.randbytes(512)
            self.host.write("vg0", "vm1", at, some)
            self.data[at : at + 512] = some


def disks(host: Host) -> dict[str, str]:
    """LV -> the disks that it is on."""
    rows = host.do(calls.Lvs("vg0", all=True))["rows"]
    found = {
        row["lv_name"]: {Path(one.split(":")[0]).stem for one in row["seg_pe_ranges"].split()} for row in rows
    }
    return {name: " ".join(sorted(on)) for name, on in found.items() if name != "ringfence_slots"}


def percents(host: Host) -> dict[str, str]:
    rows = host.do(calls.Lvs("vg0", all=True))["rows"]
    return {row["lv_name"]: row["copy_percent"] for row in rows if row["lv_name"] != "ringfence_slots"}


def begin(world: World, host: Host) -> None:
    host.do(calls.PvMove(str(world.image), lv="vm1", background=True))


def contents(world: World, host: Host) -> bytes:
    """By opening it."""
    host.do(calls.LvChange("vg0", "vm1", "ey"))
    return host.read("vg0", "vm1")


def test_an_open_lv_is_moved_by_the_host_that_has_it_open_without_anybodys_asking(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    guest = Guest(two)
    begin(world, one)
    assert disks(one) == {"vm1": "disk", "vm1_moving": "disk2"}
    world.until(lambda: bool(two.mirrors))
    guest.write()
    (row,) = two.do(calls.Status())["wiping"]
    assert (row["lv"], row["what"], row["size_bytes"]) == ("vm1", "moved", SIZE)
    why = two.do(calls.Why("vg0/vm1"))
    assert any("% of 20 MiB are moved by this host" in line for line in why["lines"])
    world.until(lambda: percents(two)["vm1_moving"] not in ("", "0.00"))
    done = two.do(calls.Status())["wiping"][0]["done_bytes"]
    assert percents(two) == {"vm1": "", "vm1_moving": f"{100 * done / SIZE:.2f}"}
    assert percents(one) == {"vm1": "", "vm1_moving": ""}, "only who does it knows"
    for _ in range(200):
        world.pass_ms(100)
        guest.write(3)
        if "lv-moved" in two.kinds():
            break
    assert disks(one) == {"vm1": "disk2"}
    assert two.mirrors == {}
    assert two.read("vg0", "vm1") == guest.data
    told = [event.what for event in two.events if event.kind == "lv-moved"]
    assert told == ["LV vg0/vm1 is where it was to go"]
    assert one.do(calls.Status())["unclean"] == {}


def test_who_asks_in_the_foreground_waits_for_the_other_host(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    guest = Guest(two)
    asked = one.ask(calls.PvMove(str(world.image), lv="vm1"))
    world.until(lambda: one.reply(asked) is not None, 60_000)
    assert one.reply(asked)["moved_bytes"] == SIZE
    assert (disks(one), two.read("vg0", "vm1")) == ({"vm1": "disk2"}, guest.data)


def test_after_the_loss_of_its_host_another_goes_on(tmp_path: Path) -> None:
    world = make(tmp_path, 3)
    lost, others = world.hosts[2], [world.hosts[1], world.hosts[3]]
    guest = Guest(lost)
    begin(world, others[0])
    world.until(lambda: bool(lost.mirrors))
    guest.write()
    world.freeze(lost.id)
    for device in (f"bmc{lost.id}", f"pdu{lost.id}"):
        world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN
    world.view(*(host.id for host in others))
    world.pass_ms(20_000)
    assert not any("lv-moved" in host.kinds() for host in others), "not before there is proof"
    world.says.clear()
    world.until(lambda: any("lv-moved" in host.kinds() for host in others), 60_000)
    assert disks(others[0]) == {"vm1": "disk2"}
    assert contents(world, others[1]) == guest.data


def test_why_says_what_a_move_waits_for(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    Guest(two)
    begin(world, one)
    world.until(lambda: bool(two.mirrors))
    for name in ("vg0/vm1", "vg0/vm1_moving"):
        assert (
            f"{name} is being moved, not by this host: an-a01n02 has it, and so moves it; trying again"
            in one.do(calls.Why(name))["lines"]
        )


def test_a_daemon_that_comes_back_goes_on_with_what_its_path_still_mirrors(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    guest = Guest(two)
    begin(world, one)
    world.until(lambda: bool(two.mirrors))
    for device in ("bmc1", "pdu1", "bmc2", "pdu2"):
        world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN
    two.kill()
    world.view(1, how="procdown")
    guest.write()
    world.pass_ms(1000)
    two.start(two.left_open())
    world.view(1, 2)
    world.run()
    assert two.running
    assert two.mirrors
    guest.write()
    world.until(lambda: "lv-moved" in two.kinds(), 60_000)
    assert two.read("vg0", "vm1") == guest.data
    assert (disks(one), two.mirrors) == ({"vm1": "disk2"}, {})


def test_who_gives_it_up_stops_the_host_that_moves(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    guest = Guest(two)
    begin(world, one)
    world.until(lambda: bool(two.mirrors))
    guest.write()
    asked = one.ask(calls.PvMove(abort=True))
    world.until(lambda: asked in one.replies, 30_000)
    with pytest.raises(Refused, match="held EX by an-a01n02"):
        one.reply(asked)
    asked = two.ask(calls.PvMove(abort=True))
    world.until(lambda: two.reply(asked) is not None, 30_000)
    assert two.reply(asked)["message"] == "Given up: vg0/vm1"
    assert (two.mirrors, disks(one)) == ({}, {"vm1": "disk"})
    assert two.read("vg0", "vm1") == guest.data
    world.pass_ms(12_000)
    assert disks(one) == {"vm1": "disk"}


def test_stock_lvm2_gets_no_lock_of_what_keeps_extents(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    Guest(two)
    begin(world, one)
    (row,) = [row for row in one.do(calls.Lvs("vg0", all=True))["rows"] if row["lv_name"] == "vm1_moving"]
    asked = LvmAsked(
        "lock_lv", "lvremove", 7, mode="ex", vg_name="vg0", lv_name="vm1_moving", lv_uuid=row["lv_uuid"],
        opts=("persistent",),
    )  # fmt: skip
    one.feed(LvmRequest(7, asked))
    world.run()
    assert one.lvm_answers[-1][1].result == -errno.EBUSY
    with pytest.raises(Refused, match="keeps extents for vg0/vm1"):
        one.do(calls.LvRemove("vg0", "vm1_moving"))


def test_a_host_that_leaves_gives_way_and_the_other_goes_on(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    guest = Guest(two)
    begin(world, one)
    world.until(lambda: bool(two.mirrors))
    guest.write()
    two.ask(calls.Leave())
    assert world.until(lambda: two.ended is not None, 20_000) < 2_000
    world.view(1, how="leave")
    world.until(lambda: "lv-moved" in one.kinds(), 60_000)
    assert disks(one) == {"vm1": "disk2"}
    assert contents(world, one) == guest.data


def test_an_lv_that_is_closed_meanwhile_is_copied_by_whoever_gets_its_lock(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    guest = Guest(two)
    begin(world, one)
    world.until(lambda: bool(two.mirrors))
    two.do(calls.LvChange("vg0", "vm1", "n"))
    world.until(lambda: "lv-moved" in (*one.kinds(), *two.kinds()), 60_000)
    assert disks(one) == {"vm1": "disk2"}
    assert contents(world, one) == guest.data


def test_nothing_is_set_apart_beside_a_daemon_that_would_let_it_be_removed(tmp_path: Path) -> None:
    world = make(tmp_path, speaks=Speaks(1, MOVES - 1))
    with pytest.raises(Refused, match="the cluster speaks protocol 6, and moves LVs from 7 on"):
        begin(world, world.hosts[1])
    assert disks(world.hosts[1]) == {"vm1": "disk"}
    assert world.hosts[1].do(calls.PvMove(abort=True))["message"] == "Nothing is on its way."


def test_contents_are_what_the_disks_say(world: World) -> None:
    """That the world itself reads what it should."""
    guest = Guest(world.hosts[1])
    extents = world.hosts[1].paths["vg0", "vm1"].extents
    assert read_lv(extents, 0, SIZE, read_file) == guest.data
