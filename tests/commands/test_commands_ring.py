"""Areas that fill, and large ones: where stock stops we stop, before anything is written."""

from pathlib import Path

import pytest
from command_world import MIB, World
from stock_lvm import Stock

from ringfence.core.errors import Damaged, Refused
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


def area_of(image: str) -> bytes:
    with open(image, "rb") as file:
        return file.read(MIB)


def put_area(image: str, data: bytes) -> None:
    with open(image, "r+b") as file:
        file.write(data)


def test_a_pv_that_lags_is_outvoted_and_repaired(world: World, stock: Stock) -> None:
    """Stock and we read the same version of the two, whichever PV is behind; the next change mends it."""
    stock.attach(*world.images)
    node = world.node()
    node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    for number, image in enumerate(world.images):
        before = area_of(image)
        node.run(LvCreate("vg0", f"lv{number}", extents=1, activate="n"))
        put_area(image, before)
        (row,) = stock.report("vgs", "-o", "vg_seqno,lv_count", quiet=False)
        (ours,) = node.run(Vgs("vg0"))["rows"]
        assert (row["vg_seqno"], row["lv_count"]) == (str(ours["vg_seqno"]), str(number * 2 + 1))
        node.run(LvCreate("vg0", f"mended{number}", extents=1, activate="n"))
        stock.run("vgck", "vg0")
        texts = [stock.text(one).partition("vg0 {")[2] for one in world.images]
        assert texts[0] == texts[1] != ""


def test_two_disks_with_one_pv_uuid_are_refused_as_stock_refuses_them(directory: Path, stock: Stock) -> None:
    world = World(directory, (64 * MIB, 64 * MIB))
    node = world.node()
    node.run(VgCreate("vg0", (world.images[0],), shared=True, extent_size_bytes=MIB))
    put_area(world.images[1], area_of(world.images[0]))
    stock.attach(*world.images)
    _, _, noise = stock.try_run("pvs")
    assert any("duplicate" in line.lower() or "not using device" in line.lower() for line in noise), noise
    code, _, noise = stock.try_run("vgchange", "--addtag", "t", "vg0")
    assert code == 5, noise
    areas = [area_of(image) for image in world.images]
    with pytest.raises(Damaged, match="have the same PV uuid"):
        node.run(LvCreate("vg0", "lv1", extents=1, activate="n"))
    assert areas == [area_of(image) for image in world.images]
