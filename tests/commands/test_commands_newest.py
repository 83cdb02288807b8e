"""No path is opened by an older version of a VG than the cluster knows: its extents may be another LV's."""

import os
from pathlib import Path

import pytest
from command_world import Node, World

from ringfence.core.errors import Damaged
from ringfence.wire.client import LvChange, LvCreate, LvRemove, VgCreate

MIB = 1 << 20


@pytest.fixture
def world(directory: Path) -> World:
    """Two PVs.  vm1 is gone and vm2 has its extents, but the first PV's area has not heard of that."""
    world = World(directory, (40 * MIB, 40 * MIB))
    first: Node = world.node(1)
    first.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    first.run(LvCreate("vg0", "vm1", extents=2, activate="n"))
    older = Path(world.images[0]).read_bytes()[:MIB]
    first.run(LvRemove("vg0", "vm1"))
    first.run(LvCreate("vg0", "vm2", extents=2, activate="n"))
    with open(world.images[0], "r+b") as file:
        file.write(older)
    return world


@pytest.mark.parametrize("mode", ["ey", "sy"])
def test_a_host_that_lacks_the_newest_area_opens_nothing(world: World, mode: str) -> None:
    os.rename(world.images[1], world.images[1] + ".away")
    with pytest.raises(Damaged, match="is version 2, but version 4 was committed"):
        world.node(2).run(LvChange("vg0", "vm1", mode))


def test_a_host_that_has_it_opens_what_is_there(world: World) -> None:
    assert world.node(2).run(LvChange("vg0", "vm2", "ey"))["name"] == "vm2"
