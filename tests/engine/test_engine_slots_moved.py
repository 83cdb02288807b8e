"""Disk slots that stock LVM2 moves, makes anew or removes: it tells no node of it, and the old bytes stay."""

import re
from pathlib import Path

import pytest
from engine_ring import World
from test_engine_slots import PAGE, activated, both_write_vm2, lies, make, mark_of, part, place, why, writing
from test_engine_slots import dead as beyond_reach

from ringfence.core.errors import Refused
from ringfence.engine.slot_watch import Watches
from ringfence.lvm2 import area as mda
from ringfence.lvm2.label import LABEL_SCAN_BYTES, parse_label
from ringfence.wire import client as calls
from ringfence.wire import slots

ELSEWHERE = 9
"""An extent that nobody uses."""


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees others' slots move: each wall must hold alone."""
    monkeypatch.setattr(Watches, "saw", lambda *words: None)


def commit(image: Path, pattern: str, by: str) -> None:
    """Change the VG's text as stock LVM2 does without lvmlockd, its seqno too."""
    with image.open("r+b") as file:
        label = parse_label(file.read(LABEL_SCAN_BYTES), "x")
        assert label is not None
        (place,) = label.metadata_areas
        file.seek(place.offset_bytes)
        header = mda.parse_header(file.read(mda.HEADER_BYTES), place, "x")
        text = b""
        for piece in mda.text_ranges(header, header.committed):
            file.seek(piece.offset_bytes)
            text += file.read(piece.size_bytes)
        old = text.rstrip(b"\0").decode()
        new, count = re.subn(pattern, by, old, count=1, flags=re.DOTALL)
        assert count == 1
        new = re.sub(r"seqno = (\d+)", lambda found: f"seqno = {int(found[1]) + 1}", new, count=1)
        slot = mda.place_text(header, new.encode(), "x")
        for offset, data in mda.text_writes(header, slot, new.encode()):
            file.seek(offset)
            file.write(data)
        file.seek(header.start_bytes)
        file.write(
            mda.print_header(mda.MdaHeader(header.start_bytes, header.size_bytes, slot, mda.RawLocn()))
        )


def move(world: World, uuid: str = "") -> None:
    """Stock pvmove of the slots; with a uuid: lvremove, and `slots add` elsewhere."""
    host = next(iter(world.hosts.values()))
    where = place(host)
    header = slots.parse_header(where.header, "x")
    assert header is not None
    size = slots.size_bytes(where.nodes)
    extent, begins = 4 << 20, where.start_bytes % (4 << 20)
    with Path(where.path).open("r+b") as file:
        file.seek(where.start_bytes)
        data = file.read(size)
        if uuid:
            made = slots.Header(header.cluster, header.vg_uuid, header.nodes, uuid)
            data = slots.print_block(made, 0).ljust(size, b"\0")
        file.seek(begins + ELSEWHERE * extent)
        file.write(data)
    commit(
        Path(where.path),
        rf'{header.lv_uuid}(.*?stripes = \[\s*"pv0", )\d+',
        rf"{uuid or header.lv_uuid}\g<1>{ELSEWHERE}",
    )


NEW_UUID = "abcdef-0123-4567-89ab-cdef-0123-456789"


@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize("uuid", ["", NEW_UUID])
@pytest.mark.parametrize("when", ["before", "after"])
def test_one_lie_and_slots_that_have_moved_are_one_writer(tmp_path: Path, uuid: str, when: str) -> None:
    """Whoever is marked at the new place must not read "not marked" at the old one."""
    world = make(tmp_path)
    one, two = world.hosts.values()
    old = place(one)
    lies(world, 2)
    beyond_reach(world, 1)
    if when == "before":
        move(world, uuid)
        world.pass_ms(3000)
        assert place(one) == place(two) != old
        part(world)
    else:
        two.dead_arrays = ["vg0"]
        part(world)
        move(world, uuid)
        two.dead_arrays = []
    assert not both_write_vm2(world)


@pytest.mark.usefixtures("blind")
def test_slots_made_anew_have_forgotten_the_mark_and_give_none_authority(tmp_path: Path) -> None:
    """The victim was frozen while it was given up; its mark went with the slots that bore it."""
    world = make(tmp_path)
    lies(world, 2)
    beyond_reach(world, 1)
    one, two = world.hosts.values()
    world.freeze(2)
    world.view(1)
    world.run()
    world.until(lambda: activated(one, "vm2"))
    assert mark_of(one, 2) is not None
    move(world, NEW_UUID)
    world.pass_ms(3000)
    assert mark_of(one, 2) is None
    world.thaw(2)
    world.sides = [(1,), (2,)]
    world.joined(2)
    world.run()
    for _ in range(100):
        world.pass_ms(100)
        assert not two.may_write(PAGE)


def test_slots_that_move_in_a_whole_cluster_cost_nobody_anything(tmp_path: Path) -> None:
    world = make(tmp_path)
    old = place(world.hosts[1])
    part(world)
    beyond_reach(world, 1, 2)
    world.pass_ms(1000)
    move(world)
    for _ in range(60):
        world.pass_ms(200)
        assert writing(world) == [1, 2]
    assert place(world.hosts[1]) == place(world.hosts[2]) != old


def test_nothing_is_written_where_slots_were_removed(tmp_path: Path) -> None:
    """lvremove, and lvcreate over the same extents: the old header stands there until somebody writes."""
    world = make(tmp_path)
    where = place(world.hosts[1])
    commit(Path(where.path), r'ringfence_slots \{(.*?)"ringfence.slots"', r'data {\g<1>"mine"')
    world.pass_ms(TICKS_MS)
    begin, end = where.start_bytes, where.start_bytes + slots.size_bytes(where.nodes)
    image = Path(where.path).read_bytes()[begin:end]
    world.pass_ms(5000)
    assert Path(where.path).read_bytes()[begin:end] == image


TICKS_MS = 20
"""Orders that were under way have ended."""


def test_a_vg_that_stock_lvm2_has_removed_can_be_forgotten(tmp_path: Path) -> None:
    """Its lost keeper is never marked there, and so would never be purged."""
    world = make(tmp_path, 3, vgs=("vg0", "vg1"))
    one = world.hosts[1]
    with pytest.raises(Refused, match="VG vg1 is on the disks of this host"):
        one.do(calls.SlotsForget("vg1"))
    (tmp_path / "vg1.img").write_bytes(bytes(64 << 20))
    world.cut(3)
    world.view(1, 2)
    world.run()
    world.pass_ms(15_000)
    assert one.node.context.state.victims(), "it is given up on vg0 alone"  # type: ignore[union-attr]
    assert "if the VG was removed: ringfence slots forget vg1" in why(one)
    one.ask(calls.SlotsForget("vg1"))
    world.until(lambda: not one.node.context.state.victims())  # type: ignore[union-attr]
    assert list(one.node.context.state.slots) == ["vg0"]  # type: ignore[union-attr]


def test_a_vg_that_was_taken_off_the_cluster_can_be_forgotten(tmp_path: Path) -> None:
    """Else it could never lose a host again once it is shared anew, without slots."""
    world = make(tmp_path, 3, vgs=("vg0", "vg1"))
    one = world.hosts[1]
    where = place(one, "vg1")
    commit(Path(where.path), r'lock_type = "dlm"\nlock_args = "[^"]*"\n', "")
    with pytest.raises(Refused, match=r"VG vg1 still has its disk slots, vg1/ringfence_slots; lvm lvremove"):
        one.do(calls.SlotsForget("vg1"))
    commit(Path(where.path), r'ringfence_slots \{(.*?)"ringfence.slots"', r'data {\g<1>"mine"')
    one.ask(calls.SlotsForget("vg1"))
    world.until(lambda: list(one.node.context.state.slots) == ["vg0"])  # type: ignore[union-attr]


def test_a_vg_that_changed_is_no_trouble_before_its_slots_were_looked_for_in_vain(tmp_path: Path) -> None:
    """Every lvcreate changes the VG; nobody is to be alarmed by that."""
    world = make(tmp_path)
    one = world.hosts[1]

    def troubles() -> list[str]:
        return [row["trouble"] for row in one.do(calls.Status())["slots"]]

    for _ in range(10):
        commit(Path(place(one).path), "vg0", "vg0")  # another version, and nothing else
        for _ in range(6):
            world.pass_ms(50)
            assert troubles() == [""]
    commit(Path(place(one).path), r'ringfence_slots \{(.*?)"ringfence.slots"', r'data {\g<1>"mine"')
    world.pass_ms(15_000)
    assert troubles() != [""]
