"""What a command costs on a VG of many LVs: it parses those that it is about, and not the others.

Counted are texts of LVs that go through the parser: each takes 60 us of the event loop."""

from pathlib import Path

import msgspec
import pytest
from command_world import MIB, Node, World

from ringfence.core.errors import RingfenceError
from ringfence.engine import orders
from ringfence.engine.commands import reload
from ringfence.volumes import model
from ringfence.wire import client as calls

LVS = 40
FEW = 12


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    world = World(tmp_path_factory.mktemp("cost"), (256 * MIB, 64 * MIB, 64 * MIB))
    node = world.node(1)
    node.run(calls.VgCreate("vg0", tuple(world.images[:2]), shared=True, extent_size_bytes=MIB))
    for number in range(LVS):
        node.run(calls.LvCreate("vg0", f"lv{number}", extents=1, activate="n"))
    return node


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The texts of LVs that were parsed."""
    texts: list[bytes] = []
    real = model.parse_member

    def counting(text: bytes, where: str) -> object:
        texts.append(text)
        return real(text, where)

    monkeypatch.setattr(model, "parse_member", counting)
    return texts


def changes(world: World) -> list[calls.Call]:
    return [
        calls.LvCreate("vg0", "new", extents=3, activate="n"),
        calls.LvCreate("vg0", "striped", extents=4, stripes=2, activate="n"),
        calls.LvResize("vg0", "lv3", extents=2, sign="+"),
        calls.LvResize("vg0", "lv3", extents=1, sign="-", force=True),
        calls.LvRename("vg0", "lv4", "renamed"),
        calls.LvChange("vg0", "lv5", add_tags=("a",)),
        calls.LvChange("vg0", "lv5", permission="r"),
        calls.LvRemove("vg0", "lv6"),
        calls.VgSet("vg0", add_tags=("b",)),
        calls.VgExtend("vg0", (world.images[2],)),
        calls.PvResize((world.images[2],)),
        calls.VgReduce("vg0", (world.images[2],)),
        calls.VgCk("vg0"),
        calls.Lvs("vg0"),
        calls.Vgs("vg0"),
        calls.Pvs(),
        calls.LvChange("vg0", "lv7", "ey"),
        calls.LvChange("vg0", "lv7", "n"),
        calls.VgRename("vg0", "vg1"),
        calls.VgRename("vg1", "vg0"),
    ]


@pytest.mark.parametrize("number", range(20))
def test_a_command_parses_few_lvs(node: Node, parsed: list[bytes], number: int) -> None:
    call = changes(node.world)[number]
    node.run(call)
    assert len(parsed) <= FEW, f"{call} parsed {len(parsed)} LVs of {LVS}"


def test_what_is_refused_costs_no_more(node: Node, parsed: list[bytes]) -> None:
    with pytest.raises(RingfenceError):
        node.run(calls.LvCreate("vg0", "lv8", extents=3, activate="n"))
    with pytest.raises(RingfenceError):
        node.run(calls.LvCreate("vg0", "large", extents=3000, activate="n"))
    assert len(parsed) <= FEW


def test_a_look_at_thousands_gives_others_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a notice that does not say what has changed: every LV that is open is compared with the text."""
    monkeypatch.setattr(reload, "STEP", 3)
    world = World(tmp_path, (64 * MIB,))
    node = world.node(1)
    node.run(calls.VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    for number in range(8):
        node.run(calls.LvCreate("vg0", f"lv{number}", extents=1))
    node.open = {
        key: msgspec.structs.replace(path, readonly=key[1] in ("lv0", "lv7"))
        for key, path in node.open.items()
    }
    assert node.drive(reload.reload_changed("vg0")) == {}
    assert [order.lv for order in node.trace if isinstance(order, orders.ReloadPath)] == ["lv0", "lv7"]
    assert not any(path.readonly for path in node.open.values())
    assert sum(isinstance(order, orders.GoOn) for order in node.trace) == 2 * 3, "two looks"
