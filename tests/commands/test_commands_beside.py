"""What takes long to plan is planned beside the event loop, and comes out the same."""

from pathlib import Path

import pytest
from command_world import MIB, Node, World

from ringfence.core.errors import Refused
from ringfence.engine import orders
from ringfence.engine.commands import beside
from ringfence.wire import client as calls

HOLES = 6
COMMANDS: dict[str, calls.Call] = {
    "lvcreate": calls.LvCreate("vg0", "all", extents=100, percent="FREE", activate="n"),
    "lvextend": calls.LvResize("vg0", "long", extents=3, sign="+", only="extend"),
    "lvreduce": calls.LvResize("vg0", "long", extents=2, sign="-", only="reduce", force=True),
    "lvrename": calls.LvRename("vg0", "long", "other"),
    "lvchange": calls.LvChange("vg0", "long", "", add_tags=("@t",), permission="r"),
    "lvremove": calls.LvRemove("vg0", "long"),
}


def with_holes(directory: Path) -> Node:
    """Free extents in seven pieces, and an LV in four."""
    directory.mkdir()
    world = World(directory, (64 * MIB,))
    node = world.node(1)
    node.run(calls.VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    for number in range(2 * HOLES):
        node.run(calls.LvCreate("vg0", f"lv{number}", extents=1, activate="n"))
    for number in range(0, 8, 2):
        node.run(calls.LvRemove("vg0", f"lv{number}"))
    area = f"{world.images[0]}:0-7"
    node.run(calls.LvCreate("vg0", "long", extents=4, activate="n", pvs=(area,)))
    for number in range(1, 2 * HOLES, 2):
        node.run(calls.LvRemove("vg0", f"lv{number}"))
    return node


def computed(node: Node) -> int:
    return sum(isinstance(order, orders.Compute) for order in node.trace)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_plan_of_many_pieces_is_made_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    here, there = with_holes(tmp_path / "here"), with_holes(tmp_path / "there")
    answer = here.run(COMMANDS[name])
    assert computed(here) == 0
    monkeypatch.setattr(beside, "MANY", 3)
    assert there.run(COMMANDS[name]) == answer
    assert computed(there) == 1
    texts = [node.known_vgs.named("vg0") for node in (here, there)]
    assert None not in texts
    assert len({one.vg.text.replace(b"/there/", b"/here/") for one in texts if one is not None}) == 1


def test_what_such_a_plan_refuses_is_refused_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, call = with_holes(tmp_path / "here"), calls.LvCreate("vg0", "large", extents=1000)
    with pytest.raises(Refused) as refused:
        node.run(call)
    monkeypatch.setattr(beside, "MANY", 3)
    with pytest.raises(Refused) as beside_refused:
        node.run(call)
    assert computed(node) == 1
    assert str(beside_refused.value) == str(refused.value)
    assert node.world.locks_of(1) == []
