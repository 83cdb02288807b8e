"""Areas that fill, and large ones: where stock stops we stop, before anything is written."""

from pathlib import Path

import pytest
from command_world import MIB, World
from stock_lvm import Stock

from ringfence.core.errors import Refused
from ringfence.wire.client import LvCreate, LvRemove, VgCreate, Vgs


def test_a_full_area_is_refused_before_anything_is_written(world: World, stock: Stock) -> None:
    """The last LV that fits fits for both; the next one for neither."""
    (loop,) = stock.attach(world.images[0])
    stock.run("pvcreate", "--metadatasize", "32k", "--dataalignment", "4k", loop, lvmlockd=False)
    node = world.node()
    node.run(VgCreate("vg0", (world.images[0],), shared=True, extent_size_bytes=MIB // 16))
    tags = [word for number in range(12) for word in ("--addtag", f"t{number}" + "x" * 1000)]
    stock.try_run("vgchange", *tags, "vg0")
    made = 0
    while True:
        before = Path(world.images[0]).read_bytes()[:MIB]
        try:
            node.run(LvCreate("vg0", f"lv{made:04}", extents=1, activate="n"))
        except Refused as error:
            refused = error
            break
        made += 1
    assert "the metadata area is full" in refused.message
    assert "remove LVs" in (refused.next or "")
    assert Path(world.images[0]).read_bytes()[:MIB] == before
    assert 3 < made < 20
    stock.run("vgck", "vg0")
    code, _, noise = stock.try_run("vgchange", "--addtag", "y" * 900, "vg0")
    assert code == 5
    assert any("exceeds maximum metadata size (15616 bytes)" in line for line in noise), noise
    assert "15616 allowed" in refused.message
    assert len(stock.report("lvs")) == made
    node.run(LvRemove("vg0", "lv0000"))
    node.run(LvCreate("vg0", "lv0000", extents=1, activate="n"))
    stock.run("vgck", "vg0")


@pytest.mark.parametrize("area", [1, 64, 256])
def test_areas_up_to_256_mib(directory: Path, stock: Stock, area: int) -> None:
    """Made by us, and by stock; the other goes on."""
    world = World(directory, ((area + 16) * MIB, (area + 16) * MIB))
    loops = stock.attach(*world.images)
    stock.run("pvcreate", "--metadatasize", f"{area}m", loops[1], lvmlockd=False)
    node = world.node()
    node.run(VgCreate("vg0", tuple(world.images), shared=True, metadata_size_bytes=area * MIB - 4096))
    for number in range(3):
        node.run(LvCreate("vg0", f"ours{number}", extents=1, activate="n"))
        code, _, noise = stock.try_run("vgchange", "--addtag", f"t{number}", "vg0")
        assert code == 0, noise
    stock.run("vgck", "vg0")
    theirs = {row["pv_name"]: row["pv_mda_size"] for row in stock.report("pvs", "-o", "pv_name,pv_mda_size")}
    assert int(theirs[loops[0]]) == area * MIB - 4096
    assert int(theirs[loops[1]]) >= area * MIB - 4096
    (row,) = node.run(Vgs("vg0"))["rows"]
    assert (row["vg_seqno"], row["vg_tags"]) == (7, "t0,t1,t2")
