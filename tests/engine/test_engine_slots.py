"""Disk slots in small clusters of real engines with a real disk: who may write, what moves, who is found out.

Two nodes are parted while the disk still joins them; devices are honest, lie or are dead, arrays hang."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from engine_ring import TICK_MS, TIMING, Host, World

from ringfence.core.errors import RingfenceError
from ringfence.core.evidence import Power
from ringfence.core.ids import Epoch, Life
from ringfence.engine.effects import DoOrder
from ringfence.engine.inputs import OrderDone
from ringfence.engine.orders import SlotIo, SlotsPlace
from ringfence.engine.slot_watch import Watches
from ringfence.storage.slots import SlotDevice
from ringfence.wire import Speaks, slots
from ringfence.wire import client as calls
from ringfence.wire.entries import AttemptEnded, EvidenceSeen

PAGE = "vg/vg0"


def make(tmp_path: Path, count: int = 2, vgs: tuple[str, ...] = ("vg0",), **options: Any) -> World:
    """Hosts with a VG each of `vgs` on a disk of its own; in each, vmN is active on host N."""
    for vg in vgs[1:]:
        with (tmp_path / f"{vg}.img").open("wb") as file:
            file.truncate(64 << 20)
    world = World(tmp_path, count, **options)
    world.pass_ms(1000)
    for vg in vgs:
        image = world.image if vg == vgs[0] else tmp_path / f"{vg}.img"
        world.hosts[1].do(calls.VgCreate(vg, (str(image),), shared=True))
        world.pass_ms(1000)
        for host in world.hosts.values():
            host.do(calls.LvCreate(vg, f"vm{host.id}", size_bytes=4 << 20))
            world.pass_ms(100)
    world.pass_ms(2000)
    return world


def part(world: World) -> None:
    """The network is gone; the disks are not."""
    world.outage()
    world.run()


def lies(world: World, *hosts: int) -> None:
    """Every device of these hosts says "off", and does nothing."""
    for id in hosts:
        for device in (f"bmc{id}", f"pdu{id}"):
            world.says[device, "off"] = world.says[device, "status"] = Power.OFF


def dead(world: World, *hosts: int) -> None:
    """Nobody can fence these."""
    for id in hosts:
        for device in (f"bmc{id}", f"pdu{id}"):
            world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN


def writing(world: World, vg: str = "vg0") -> list[int]:
    return [id for id, host in world.hosts.items() if host.node is not None and host.may_write(f"vg/{vg}")]


def activated(host: Host, lv: str, vg: str = "vg0") -> bool:
    """Try to take a volume; whether it is this host's now."""
    try:
        id = host.ask(calls.LvChange(vg, lv, "ey", 0))
        host.world.run()
        reply = host.replies.get(id)
    except RingfenceError:
        return False
    return bool(reply) and reply[-1].error is None


def place(host: Host, vg: str = "vg0") -> SlotsPlace:
    assert host.node is not None
    return host.node._running._slots._slots[vg].place  # type: ignore[union-attr]


def mark_of(host: Host, node: int, vg: str = "vg0") -> slots.Mark | None:
    where = place(host, vg)
    with Path(where.path).open("rb") as file:
        file.seek(where.start_bytes + slots.mark_offset(node))
        return slots.parse_mark(file.read(slots.BLOCK_BYTES), node, "x")


def write(host: Host, offset: int, data: bytes, vg: str = "vg0") -> None:
    where = place(host, vg)
    with Path(where.path).open("r+b") as file:
        file.seek(where.start_bytes + offset)
        file.write(data)


def why(host: Host) -> str:
    asked = host.ask(calls.Why(""))
    host.world.pass_ms(50)
    return "\n".join(host.reply(asked)["lines"])


# -- two nodes, parted ------------------------------------------------------------------------


def test_parted_and_unmarked_both_go_on_with_what_is_theirs(tmp_path: Path) -> None:
    """Nobody can be fenced, nobody is marked: machines run on for as long as it lasts, on both sides."""
    world = make(tmp_path)
    dead(world, 1, 2)
    part(world)
    for _ in range(100):
        world.pass_ms(200)
        assert writing(world) == [1, 2]
    one, two = world.hosts.values()
    assert "VG vg0: authority by its disk slots for" in why(one)
    assert not activated(one, "vm2"), "what the other has is the other's"
    assert not one.node.context.may_report, "and nothing new is granted"  # type: ignore[union-attr]
    assert mark_of(one, 1) is mark_of(two, 2) is None


def test_an_array_that_does_not_answer_stops_its_own_volumes_alone(tmp_path: Path) -> None:
    world = make(tmp_path, vgs=("vg0", "vg1"))
    dead(world, 1, 2)
    world.hosts[1].dead_arrays = ["vg1"]
    part(world)
    world.pass_ms(10_000)
    assert (writing(world, "vg0"), writing(world, "vg1")) == ([1, 2], [2])
    said = why(world.hosts[1])
    assert "VG vg1: no authority by its disk slots (VG vg1: its array" in said
    assert "VG vg0: authority by its disk slots for" in said
    world.hosts[1].dead_arrays = []
    world.pass_ms(1000)
    assert writing(world, "vg1") == [1, 2], "nothing was lost by it"


def test_an_unmarked_slot_counts_from_the_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was two seconds on its way, in which a mark may have been written."""
    world = make(tmp_path)
    dead(world, 1, 2)
    part(world)
    world.pass_ms(500)
    one = world.hosts[1]
    held: list[tuple[DoOrder, tuple[bytes, ...]]] = []
    carry_out = one._order

    def hold(effect: DoOrder) -> None:
        if isinstance(effect.body, SlotIo):
            with contextlib.closing(SlotDevice(lambda: 0)) as device:
                held.append((effect, device.do(effect.body)))
        else:
            carry_out(effect)

    monkeypatch.setattr(one, "_order", hold)
    world.until(lambda: bool(held))
    asked_ns = world.now_ns
    world.pass_ms(2000)
    effect, answer = held[0]
    one.feed(OrderDone(effect.order, answer=answer))
    world.pass_ms(100)
    deadline_ns = max(at_ns for (_, page), at_ns in one.pages.items() if page == PAGE)
    assert deadline_ns == asked_ns + TIMING.write_ms * 1_000_000


def test_a_damaged_mark_gives_no_authority(tmp_path: Path) -> None:
    """Half a mark may be one: it must never read as "not marked"."""
    world = make(tmp_path)
    dead(world, 1, 2)
    part(world)
    world.pass_ms(1000)
    mark = slots.Mark(world.hosts[1].node.context.life, Epoch(9, 2), cut=True, by=2)  # type: ignore[union-attr]
    write(world.hosts[1], slots.mark_offset(1), slots.print_block(mark, slots.mark_offset(1))[:20])
    world.pass_ms(TIMING.write_ms + 1000)
    assert writing(world) == [2]
    assert "a damaged mark gives no authority" in why(world.hosts[1])


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees others' slots move: each wall must hold alone."""
    monkeypatch.setattr(Watches, "saw", lambda *words: None)


@pytest.mark.usefixtures("blind")
def test_one_lie_and_the_marked_one_is_out_before_its_locks_move(tmp_path: Path) -> None:
    world = make(tmp_path)
    lies(world, 2)
    dead(world, 1)
    part(world)
    one, two = world.hosts.values()
    world.until(lambda: activated(one, "vm2"))
    assert mark_of(one, 2) is not None, "the mark came first"
    assert not two.may_write(PAGE)
    assert two.paths == {}
    assert "stale" in two.kinds()
    for _ in range(50):
        world.pass_ms(200)
        assert writing(world) == [1]


@pytest.mark.usefixtures("blind")
def test_two_lies_at_once_block_both_and_corrupt_nothing(tmp_path: Path) -> None:
    """Without slots: two writers (see below)."""
    world = make(tmp_path)
    lies(world, 1, 2)
    part(world)
    assert not both_write_vm2(world)
    assert "stale" in world.hosts[1].kinds()
    assert "stale" in world.hosts[2].kinds()


def test_two_lies_at_once_are_both_refuted_by_moving_slots(tmp_path: Path) -> None:
    """As it is: neither lie is believed, both go on with what is theirs."""
    world = make(tmp_path)
    lies(world, 1, 2)
    for device in ("bmc1", "bmc2"):
        world.slow[device] = 500
    part(world)
    assert not both_write_vm2(world)
    assert writing(world) == [1, 2]
    assert mark_of(world.hosts[1], 1) is mark_of(world.hosts[1], 2) is None


def test_without_slots_two_lies_at_once_are_two_writers(tmp_path: Path) -> None:
    """The tests above would tell nothing if it could not come out otherwise."""
    world = make(tmp_path, speaks=Speaks(1, 3))
    lies(world, 1, 2)
    part(world)
    assert both_write_vm2(world)


def both_write_vm2(world: World) -> bool:
    """Whether at any moment the volume of host 2 may be written to on both."""
    one, two = world.hosts.values()
    for _ in range(400):
        world.pass_ms(50)
        activated(one, "vm2")
        holds = [host for host in (one, two) if ("vg0", "vm2") in host.paths and host.may_write(PAGE)]
        if len(holds) == 2:
            return True
    return False


def test_who_reads_its_mark_does_not_shoot(tmp_path: Path) -> None:
    """A host was given up while it was frozen; it wakes, is alone, and takes the other for lost."""
    world = make(tmp_path)
    lies(world, 2)
    one, two = world.hosts.values()
    world.freeze(2)
    world.view(1)
    world.run()
    world.until(lambda: activated(one, "vm2"))
    world.thaw(2)
    world.sides = [(1,)]
    world.joined(2)
    world.run()
    world.pass_ms(15_000)
    assert two.runs == []
    assert world.power[1] is Power.ON
    assert writing(world) == [1]


def test_a_mark_for_an_unknown_life_hits_who_was_let_in_before_it(tmp_path: Path) -> None:
    world = make(tmp_path)
    dead(world, 1, 2)
    part(world)
    world.pass_ms(500)
    two = world.hosts[2]
    mark = slots.Mark(Life(2), Epoch(50, 1), cut=True, by=1)
    write(two, slots.mark_offset(2), slots.print_block(mark, slots.mark_offset(2)))
    world.pass_ms(1000)
    assert "stale" in two.kinds()
    assert writing(world) == [1]


def test_alone_by_a_clean_leave_nobody_needs_the_disk(tmp_path: Path) -> None:
    world = make(tmp_path)
    one, two = world.hosts.values()
    two.do(calls.LvChange("vg0", "", "n"))
    two.do(calls.Leave())
    world.cut(2)
    world.view(1, how="leave")
    world.run()
    one.dead_arrays = ["vg0"]
    world.pass_ms(10_000)
    assert writing(world) == [1]


# -- marks and locks -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
def test_no_lock_moves_where_the_mark_is_not_written(tmp_path: Path, count: int) -> None:
    """The array of one VG takes no mark: its lockspace stays frozen, the other VG's volumes move."""
    world = make(tmp_path, count, vgs=("vg0", "vg1"))
    for host in world.hosts.values():
        host.dead_arrays = ["vg1"]
    world.cut(count)
    others = [id for id in world.hosts if id != count]
    world.view(*others)
    world.run()
    one = world.hosts[1]
    world.until(lambda: activated(one, f"vm{count}"))
    world.pass_ms(10_000)
    assert not activated(one, f"vm{count}", "vg1")
    said = why(one)
    assert f"VG vg1: the mark for an-a01n0{count} is not written: VG vg1: its array" in said
    one.dead_arrays = []
    world.until(lambda: activated(one, f"vm{count}", "vg1"))
    assert mark_of(one, count, "vg1") is not None


def test_who_was_given_up_in_part_does_not_carry_on_when_the_other_forgets(tmp_path: Path) -> None:
    """A lock of it has moved, on the VG whose array takes marks.  Then the survivor starts anew, without a
    state, and the victim thaws with one, and with all its locks; it cannot read its mark."""
    world = make(tmp_path, vgs=("vg0", "vg1"))
    lies(world, 2)
    one, two = world.hosts.values()
    one.dead_arrays = ["vg1"]
    world.freeze(2)
    world.view(1)
    world.run()
    world.until(lambda: activated(one, "vm2"))
    world.cut(1)
    two.dead_arrays = ["vg0", "vg1"]
    world.boot(1, 1, 2)
    world.thaw(2, 1, 2)
    for _ in range(20):
        world.pass_ms(100)
        assert ("vg0", "vm2") not in two.paths or not two.may_write(PAGE)
    assert "stale" in two.kinds()


def test_with_three_nodes_a_mark_costs_no_wait(tmp_path: Path) -> None:
    """There a majority gives authority, not the disk: the purge bound from the last word is enough."""
    world = make(tmp_path, 3)
    world.cut(3)
    world.view(1, 2)
    world.run()
    took_ms = world.until(lambda: activated(world.hosts[1], "vm3"))
    assert took_ms <= TIMING.bound_ms + 500


def test_with_two_nodes_the_bound_counts_from_the_slot_s_last_move(tmp_path: Path) -> None:
    """The victim's slot stands still since before the mark: the wait ran beside the fencing."""
    world = make(tmp_path)
    world.slow["bmc2"] = 1000
    world.cut(2)
    world.view(1)
    world.run()
    took_ms = world.until(lambda: activated(world.hosts[1], "vm2"))
    assert took_ms <= TIMING.slot_ms + TIMING.bound_ms + 500, "the device took 2 s of these"


# -- contradiction ---------------------------------------------------------------------------------


def test_a_slot_that_moves_refutes_a_claim_on_the_spot(tmp_path: Path) -> None:
    """Host 3 lost its network alone; its controller says that it is off, its disk slot moves on."""
    world = make(tmp_path, 3)
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.OFF
    world.slow["bmc3"] = 500
    world.part((1, 2), (3,))
    world.run()
    one = world.hosts[1]
    world.until(lambda: world.power[3] is Power.OFF)
    said = [event.what for event in one.events if event.kind == "attempt-ended"]
    assert "an-a01n03 goes on writing its slot on VG vg0: claim refused" in said[0]
    assert not any("fence-lied" in event.kind for event in one.events), "it was never believed"
    world.until(lambda: activated(one, "vm3"))


def test_a_voice_refutes_a_claim_that_waits_for_the_slot_to_move_again(tmp_path: Path) -> None:
    """All have said "off", the slot moved a moment ago; then the victim itself is heard."""
    world = make(tmp_path, 3)
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.OFF
    world.slow["bmc3"] = 500
    world.part((1, 2), (3,))
    world.run()
    one, three = world.hosts[1], world.hosts[3]
    running = one.node._running._fencer._running  # type: ignore[union-attr]
    world.until(lambda: any(one.passed is not None for one in running.values()))
    world.freeze(3)
    one.node._running.victim_heard(three.node.context.life)  # type: ignore[union-attr]
    world.pass_ms(TICK_MS)
    said = [event.what for event in one.events if event.kind == "attempt-ended"]
    assert "an-a01n03 still speaks: claim refused" in said[0]
    assert "evidence" not in one.kinds()


def test_an_attempt_that_is_closed_proves_nothing_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for the slot, and the slot stands still by now; in the same step it is seen to be over."""
    world = make(tmp_path, 3)
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.OFF
    world.slow["bmc3"] = 500
    world.part((1, 2), (3,))
    world.run()
    one = world.hosts[1]
    fencer, context = one.node._running._fencer, one.node.context  # type: ignore[union-attr]
    world.until(lambda: any(run.passed is not None for run in fencer._running.values()))
    (life,) = fencer._running
    context.state.domain.victim(life).current = None
    monkeypatch.setattr(fencer._slots, "alive_since", lambda node, moment_ns: "")
    monkeypatch.setattr(fencer._slots, "moves", lambda node: False)
    fencer._running[life].passed_ns = 1 - 10**12
    said: list[Any] = []
    monkeypatch.setattr(context, "submit", said.append)
    fencer.look()
    assert not any(isinstance(entry, AttemptEnded | EvidenceSeen) for entry in said)


def test_a_slot_that_stands_still_costs_no_time(tmp_path: Path) -> None:
    world = make(tmp_path, 3)
    world.cut(3)
    world.view(1, 2)
    world.run()
    one = world.hosts[1]
    took_ms = world.until(lambda: "evidence" in one.kinds())
    assert took_ms <= 2 * 200 + 100, "off, one look, no more"


def test_a_fenced_life_that_writes_its_slot_exposes_the_lie(tmp_path: Path) -> None:
    """It was frozen when it was "cut"; it thaws without a network: only the disk can tell."""
    world = make(tmp_path, 3)
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.OFF
    world.freeze(3)
    world.view(1, 2)
    world.run()
    one, three = world.hosts[1], world.hosts[3]
    world.until(lambda: activated(one, "vm3"))
    three.dead_arrays = []
    # Its mark is kept from it, or it would take itself out at the first look.
    zeros = bytes(slots.BLOCK_BYTES)
    write(one, slots.mark_offset(3), zeros)
    world.thaw(3)
    world.until(lambda: "fence-lied" in one.kinds(), 8000)
    lies_found = [event.what for event in one.events if event.kind == "fence-lied"]
    assert "its slot on VG vg0 is written on and on" in lies_found[0]
    state = one.node.context.state  # type: ignore[union-attr]
    assert "bmc3" in state.domain.quarantined
    world.until(lambda: world.power[3] is Power.OFF)


def test_a_marked_node_of_three_takes_itself_out_and_reports_the_lie(tmp_path: Path) -> None:
    world = make(tmp_path, 3)
    world.says["bmc3", "off"] = world.says["bmc3", "status"] = Power.OFF
    world.freeze(3)
    world.view(1, 2)
    world.run()
    world.until(lambda: activated(world.hosts[1], "vm3"))
    three = world.hosts[3]
    world.thaw(3)
    world.pass_ms(1000)
    stale = [event.what for event in three.events if event.kind == "stale"]
    assert "marked as fenced on VG vg0, by an-a01n01 in epoch" in stale[0]
    assert three.paths == {}


# -- making and ending them ------------------------------------------------------------------------


def test_every_node_keeps_its_slot_and_leaves_it_before_the_vg_goes(tmp_path: Path) -> None:
    world = make(tmp_path, 3)
    for host in world.hosts.values():
        host.do(calls.LvChange("vg0", "", "n"))
    asked = world.hosts[2].ask(calls.SlotsShow("vg0"))
    rows = world.hosts[2].reply(asked)["nodes"]
    assert [row["life"].split(".")[0] for row in rows] == ["1/boot-1-1", "2/boot-2-1", "3/boot-3-1"]
    asked = world.hosts[1].ask(calls.VgRemove("vg0", force=True))
    world.pass_ms(2000)
    assert world.hosts[1].reply(asked) is not None
    state = world.hosts[3].node.context.state  # type: ignore[union-attr]
    assert state.slots == {}
    assert state.slots_ending == []
    image = world.image.read_bytes()
    world.pass_ms(3000)
    assert world.image.read_bytes() == image, "nobody writes there any more"


def test_who_stops_a_vg_says_a_clean_last_word(tmp_path: Path) -> None:
    world = make(tmp_path, 3)
    two = world.hosts[2]
    two.do(calls.LvChange("vg0", "", "n"))
    two.ask(calls.VgChange("lockstop", "vg0"))
    world.pass_ms(1000)
    rows = world.hosts[1].do(calls.SlotsShow("vg0"))["nodes"]
    assert [row["clean"] for row in rows] == [False, True, False]
    assert world.hosts[1].node.context.state.slots == {"vg0": [1, 3]}  # type: ignore[union-attr]


def test_older_nodes_have_none(tmp_path: Path) -> None:
    world = make(tmp_path, 3, speaks=Speaks(1, 3))
    with pytest.raises(RingfenceError, match="VG vg0 has no disk slots"):
        world.hosts[1].do(calls.SlotsShow("vg0"))
