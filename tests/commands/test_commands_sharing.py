"""Which LVs several hosts may have open at once, by what is on them."""

import subprocess
from pathlib import Path

import pytest
from command_world import MIB, Node, World

from ringfence.core.errors import Refused
from ringfence.core.modes import Mode
from ringfence.wire.client import LvChange, LvCreate, VgCreate

SIZE = 8 * MIB


@pytest.fixture
def first(world: World) -> Node:
    node = world.node(1)
    node.run(VgCreate("vg0", tuple(world.images), shared=True))
    node.run(LvCreate("vg0", "vm1", size_bytes=SIZE, activate="n"))
    return node


def put(world: World, data: bytes, offset: int = 0) -> None:
    with open(world.images[0], "r+b") as file:
        file.seek(MIB + offset)
        file.write(data)


def made_by(tmp_path: Path, *tool: str) -> bytes:
    image = tmp_path / "fs"
    image.write_bytes(bytes(SIZE))
    image.chmod(0o600)
    subprocess.run([*tool, str(image)], check=True, capture_output=True)
    return image.read_bytes()


def test_a_single_hosts_file_system_is_not_shared(world: World, first: Node, tmp_path: Path) -> None:
    put(world, made_by(tmp_path, "mkfs.ext4", "-q", "-F"))
    with pytest.raises(Refused, match=r"vg0/vm1 carries ext4 \(file system of a single host\), as libblkid"):
        first.run(LvChange("vg0", "vm1", "sy"))
    assert world.locks_of(1) == []
    first.run(LvChange("vg0", "vm1", "ey"))
    first.run(LvChange("vg0", "vm1", "n"))
    first.run(LvChange("vg0", "vm1", "sy", force=True))
    assert [mode for _, _, mode in world.locks_of(1)] == [Mode.PR]


@pytest.mark.parametrize(
    ("offset", "data", "said"),
    [
        (4086, b"SWAPSPACE2", r"swap \(swap space\) at offset 4086, as ringfence's own table says"),
        (510, b"\x55\xaa", "partition table"),
        (512, b"LABELONE" + bytes(16) + b"LVM2 001", r"LVM2_member \(member of a set of disks\)"),
        (0, b"LUKS\xba\xbe", "encrypted volume"),
    ],
)
def test_nor_is_what_has_one_writer(world: World, first: Node, offset: int, data: bytes, said: str) -> None:
    put(world, data, offset)
    with pytest.raises(Refused, match=said):
        first.run(LvChange("vg0", "vm1", "sy"))


@pytest.mark.parametrize(
    ("offset", "data"),
    [(0x10000, b"\x01\x16\x19\x70"), (2048, b"OCFSV2"), (0x8001, b"CD001"), (0, b""), (0, b"anything")],
)
def test_what_bears_it_is(world: World, first: Node, offset: int, data: bytes) -> None:
    put(world, data, offset)
    for id in (1, 2):
        world.node(id).run(LvChange("vg0", "vm1", "sy"))
    assert len(world.locks_of(1)) == len(world.locks_of(2)) == 1


def test_who_has_it_alone_keeps_it(world: World, first: Node) -> None:
    """EX to PR is refused before the path is closed."""
    put(world, b"XFSB")
    first.run(LvChange("vg0", "vm1", "ey"))
    with pytest.raises(Refused, match="carries xfs"):
        first.run(LvChange("vg0", "vm1", "sy"))
    assert list(first.open) == [("vg0", "vm1")]
    assert [mode for _, _, mode in world.locks_of(1)] == [Mode.EX]
