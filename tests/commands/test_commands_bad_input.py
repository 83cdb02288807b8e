"""Disks and requests that cannot be: each gets one clear line, and nothing is changed."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from command_world import MIB, Node, World
from stock_lvm import Stock
from test_commands_stock import committed_text, parse_area, rewrite_text

from ringfence.core.errors import BadInput, BadName, Damaged, DeviceFailed, NotFound, Refused, RingfenceError
from ringfence.engine.orders import Write, WriteBlocks, WriteVersion
from ringfence.storage.driver import Moment
from ringfence.wire.client import (
    LvChange,
    LvCreate,
    LvRemove,
    LvRename,
    Lvs,
    PvCreate,
    Pvs,
    VgCreate,
    VgRemove,
    Vgs,
)


@pytest.fixture
def node(world: World) -> Node:
    node = world.node(1)
    node.run(VgCreate("vg0", tuple(world.images), shared=True))
    node.run(LvCreate("vg0", "vm1", extents=2, activate="n"))
    return node


def contents(world: World) -> list[bytes]:
    """Labels, metadata areas, and the first extents."""
    starts = []
    for image in world.images:
        with open(image, "rb") as file:
            starts.append(file.read(4 * MIB))
    return starts


def refused(world: World, call: Any, kind: type[RingfenceError], words: str, id: int = 1) -> RingfenceError:
    """The call is refused with one line, before anything is written."""
    before = contents(world)
    node = world.node(id)
    with pytest.raises(kind, match=words) as caught:
        node.run(call)
    assert "\n" not in str(caught.value)
    assert not any(isinstance(order, WriteBlocks | WriteVersion) for order in node.trace)
    assert contents(world) == before
    assert world.locks_of(id) == []
    assert node.open == {}
    return caught.value


def damage(image: str, offset: int, data: bytes) -> None:
    with open(image, "r+b") as file:
        file.seek(offset)
        file.write(data)


def edit(world: World, old: str, new: str) -> None:
    for image in world.images:
        text = committed_text(image).decode()
        assert old in text
        rewrite_text(image, text.replace(old, new).encode())


# -- requests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (LvCreate("vg0", "-x", extents=1), BadName, "hyphen"),
        (LvCreate("vg0", "a b", extents=1), BadName, "invalid character"),
        (LvCreate("vg0", "x_rimage_0", extents=1), BadName, "reserved"),
        (LvCreate("vg0", "x_wiping", extents=1), BadName, 'Names ending "_wiping" are reserved'),
        (LvCreate("vg0", "x_growing12", extents=1), BadName, 'Names ending "_growing" are reserved'),
        (LvRename("vg0", "vm1", "x_moving"), BadName, 'Names ending "_moving" are reserved'),
        (LvRename("vg0", "vm1", "x_tmeta"), BadName, 'Names including "_tmeta" are reserved'),
        (LvRename("vg0", "vm1", "vm1"), BadName, "must differ"),
        (LvCreate("vg0", "vm1", extents=1), BadInput, "already exists"),
        (LvCreate("vg0", "big", size_bytes=1 << 40), Refused, "insufficient free space"),
        (LvCreate("vg0", "big", extents=29), Refused, r"insufficient free space \(28 extents\): 29 required"),
        (LvCreate("vg0", "none"), BadInput, "one of size and extents"),
        (LvCreate("vg0", "x", extents=1, activate="sy"), BadInput, "shared"),
        (LvCreate("vg0", "x", extents=1, activate="maybe"), BadInput, "give ey, sy or n"),
        (LvCreate("vg9", "x", extents=1), NotFound, 'Volume group "vg9" not found'),
        (LvChange("vg0", "vm9", "ey"), NotFound, 'Failed to find logical volume "vg0/vm9"'),
        (LvChange("vg0", "vm9", "n"), NotFound, "vg0/vm9"),
        (LvChange("vg0", "vm1", "up"), BadInput, "give ey, sy or n"),
        (LvRemove("vg0", "vm9"), NotFound, "vg0/vm9"),
        (VgRemove("vg9"), NotFound, "vg9"),
        (PvCreate(()), BadInput, "no device"),
        (PvCreate(("/dev/none",)), NotFound, "Device /dev/none not found"),
        (VgCreate("vg1", ("/dev/none",), shared=True), NotFound, "Device /dev/none not found"),
        (VgCreate("vg1", (), shared=True), BadInput, "no device"),
        (VgCreate("vg1", ("/dev/none",)), BadInput, "vgcreate --shared vg1"),
        (VgCreate("v/1", ("/dev/none",), shared=True), BadName, "invalid character"),
        (VgCreate("vg1", ("x",), shared=True, extent_size_bytes=3000), BadInput, "power of two"),
    ],
)
def test_requests_that_cannot_be(
    world: World, node: Node, call: Any, kind: type[RingfenceError], words: str
) -> None:
    refused(world, call, kind, words)


def test_a_device_twice_or_in_use(world: World, node: Node) -> None:
    image = world.images[0]
    refused(world, PvCreate((image,)), Refused, "vg0; choose another device; or, .*: vgreduce vg0 ")
    refused(world, PvCreate((image,), force=True), Refused, "belongs to volume group vg0")
    refused(world, VgCreate("vg1", (image,), shared=True), Refused, "belongs to volume group vg0")
    node.run(VgRemove("vg0", force=True))
    refused(world, VgCreate("vg1", (image, image), shared=True), BadInput, "named twice")
    refused(world, PvCreate((image, image)), BadInput, "named twice")
    node.run(VgCreate("vg0", (image,), shared=True))
    refused(world, VgCreate("vg0", (world.images[1],), shared=True), BadInput, "already exists")


def test_devices_too_small(directory: Path) -> None:
    world = World(directory, (MIB, 2 * MIB))
    refused(world, PvCreate((world.images[0],)), BadInput, "too small to be a PV")
    refused(world, PvCreate((world.images[1],), metadata_size_bytes=2 * MIB), BadInput, "too small")
    refused(world, PvCreate((world.images[1],), metadata_size_bytes=-1), BadInput, "metadata size")
    refused(
        world, VgCreate("vg0", (world.images[1],), shared=True), BadInput, "too small for even one extent"
    )


@pytest.mark.parametrize(
    ("offset", "magic", "name"), [(0x438, b"\x53\xef", "ext"), (510, b"\x55\xaa", "dos"), (0, b"XFSB", "xfs")]
)
def test_data_of_others_is_not_overwritten(world: World, offset: int, magic: bytes, name: str) -> None:
    image = world.images[0]
    damage(image, offset, magic)
    refused(world, PvCreate((image,)), Refused, f"{name}.* signature detected on {image}")
    refused(world, VgCreate("vg0", (image,), shared=True), Refused, "signature detected")
    node = world.node()
    node.run(PvCreate((image,), force=True))
    assert [row["pv_name"] for row in node.run(Pvs())["rows"]] == [image]


# -- disks -------------------------------------------------------------------------------


def test_a_disk_that_is_not_a_pv(world: World) -> None:
    node = world.node()
    assert node.run(Pvs()) == {"rows": [], "stale": False}
    damage(world.images[0], 0, b"\xaa" * MIB)
    assert node.run(Vgs())["rows"] == []
    refused(world, Vgs("vg0"), NotFound, 'Volume group "vg0" not found')


def test_a_damaged_label_is_said_and_not_guessed(world: World, node: Node) -> None:
    damage(world.images[0], 600, b"\xff")
    reply = node.run(Vgs())
    assert reply["rows"][0]["vg_attr"] == "wz-pns"
    assert any(
        f"{world.images[0]}: the PV label in sector 1 has a wrong checksum" in line for line in reply["notes"]
    )
    refused(world, LvCreate("vg0", "x", extents=1), Damaged, "PVs are missing: .*make the device visible")
    refused(world, PvCreate((world.images[0],)), Refused, "wrong checksum")
    rows = node.run(Pvs())["rows"]
    assert {row["pv_name"]: row["pv_attr"] for row in rows} == {world.images[1]: "a--", "[unknown]": "a-m"}
    assert node.run(Lvs("vg0"))["rows"][0]["lv_attr"] == "-wi-----p-"
    refused(world, LvChange("vg0", "vm1", "ey"), NotFound, "Cannot activate vg0/vm1: PV .* is missing")


@pytest.mark.parametrize("part", ["header", "text"])
def test_one_torn_area_is_repaired_by_the_next_change(
    world: World, stock: Stock, node: Node, part: str
) -> None:
    area = parse_area(world.images[0])
    damage(world.images[0], 4096 + (100 if part == "header" else area.committed.offset_bytes), b"\xff\xfe")
    reply = node.run(Vgs())
    assert reply["rows"][0]["vg_seqno"] == 2
    assert "wrong checksum" in reply["notes"][0]
    node.run(LvCreate("vg0", "vm2", extents=1))
    assert "notes" not in node.run(Vgs())
    stock.attach(*world.images)
    stock.run("vgck", "vg0")
    assert len(stock.report("lvs")) == 2


def test_all_areas_torn_is_named(world: World, node: Node) -> None:
    for image in world.images:
        damage(image, 4096 + parse_area(image).committed.offset_bytes, b"\xff\xfe")
    error = refused(world, LvCreate("vg0", "x", extents=1), NotFound, 'Volume group "vg0" not found')
    assert "wrong checksum" in str(error)
    refused(
        world, PvCreate((world.images[0],)), Refused, "marked as used by a VG whose metadata was not found"
    )


def test_a_lagging_area_loses_against_the_newer_one(world: World, stock: Stock, node: Node) -> None:
    with open(world.images[0], "rb") as file:
        file.seek(4096)
        old = file.read(512)
    node.run(LvCreate("vg0", "vm2", extents=1))
    damage(world.images[0], 4096, old)
    assert [row["lv_name"] for row in node.run(Lvs())["rows"]] == ["vm1", "vm2"]
    node.run(LvCreate("vg0", "vm3", extents=1))
    stock.attach(*world.images)
    stock.run("vgck", "vg0")
    assert [row["lv_name"] for row in stock.report("lvs")] == ["vm1", "vm2", "vm3"]


def test_a_pv_of_another_vg(world: World, node: Node, directory: Path) -> None:
    """vg0 lists a PV on which another VG was made behind its back."""
    text = committed_text(world.images[1]).decode()
    other = text.replace("vg0 {", "vg1 {", 1).replace(
        text[text.index('id = "') :][:46], f'id = "{"-".join("x" * n for n in (6, 4, 4, 4, 4, 4, 6))}"', 1
    )
    rewrite_text(world.images[1], other.encode())
    refused(world, LvCreate("vg0", "x", extents=1), Damaged, "is listed by VG vg0 but carries VG vg1")


def test_a_copied_disk_is_not_written(world: World, node: Node, directory: Path) -> None:
    (directory / "copy.img").write_bytes(Path(world.images[0]).read_bytes())
    refused(world, LvCreate("vg0", "x", extents=1), Damaged, "the same PV uuid")


def test_two_vgs_of_one_name(world: World, directory: Path) -> None:
    node = world.node()
    node.run(VgCreate("vg0", (world.images[0],), shared=True))
    hidden = Path(world.images[0]).rename(directory / "hidden")
    node.run(VgCreate("vg0", (world.images[1],), shared=True))
    hidden.rename(world.images[0])
    refused(
        world,
        LvCreate("vg0", "x", extents=1),
        Damaged,
        'Multiple VGs found with the same name "vg0": on .*vgrename',
    )
    assert len(node.run(Vgs())["rows"]) == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('lock_type = "dlm"', 'lock_type = "sanlock"', "lock type sanlock"),
        ('lock_type = "dlm"', 'lock_type = "of_tomorrow"', "lock type of_tomorrow"),
        ('lock_type = "dlm"\n', "", "vgchange --locktype dlm vg0"),
        ("1.0.0:ring", "1.0.0:other", 'shared by cluster "other"'),
        ('lock_type = "dlm"', 'lock_type = "dlm"\nsystem_id = "alice"', "system ID alice"),
        ('"RESIZEABLE"', '"CLUSTERED", "RESIZEABLE"', "Cannot access clustered VG vg0"),
    ],
)
def test_vgs_of_others(world: World, node: Node, old: str, new: str, words: str) -> None:
    edit(world, old, new)
    for call in (
        LvCreate("vg0", "x", extents=1),
        LvRemove("vg0", "vm1"),
        LvChange("vg0", "vm1", "ey"),
        VgRemove("vg0"),
    ):
        for id in (1, 2):  # in the lockspace already, and not
            refused(world, call, Refused, words, id)
    assert "lvm_vg0" not in [space for space, nodes in world.members.items() if 2 in nodes]
    assert node.run(Vgs())["rows"][0]["vg_name"] == "vg0", "but it is shown"


def test_metadata_that_does_not_hold_together_is_not_written(world: World, node: Node) -> None:
    node.run(LvCreate("vg0", "vm2", extents=2, activate="n"))
    edit(world, '"pv0", 2\n', '"pv0", 1\n')
    refused(world, LvCreate("vg0", "x", extents=1), Damaged, "LVs vm1 and vm2 share extent 1 of PV pv0")


def test_a_full_metadata_area_is_refused_before_anything_is_written(directory: Path, stock: Stock) -> None:
    world = World(directory, (64 * MIB,))
    (loop,) = stock.attach(*world.images)
    stock.run("pvcreate", "--metadatasize", "32k", "--dataalignment", "4k", loop, lvmlockd=False)
    node = world.node()
    node.run(VgCreate("vg0", (world.images[0],), shared=True, extent_size_bytes=MIB))
    made = 0
    with suppress(Refused):
        while made < 200:
            node.run(LvCreate("vg0", f"lv{made}", extents=1, activate="n"))
            made += 1
    assert 20 < made < 60
    refused(world, LvCreate("vg0", "one-more", extents=1), Refused, "area is full: .*--metadatasize")
    stock.run("vgck", "vg0")
    node.run(LvRemove("vg0", "lv0"))
    assert len(stock.report("lvs")) == made - 1


def test_one_device_that_fails_at_the_commit_makes_it_lag(world: World, stock: Stock, node: Node) -> None:
    """The other area has it: the change is done.  With that one back, the next change repairs it."""
    failed = []

    def fail(moment: Moment, what: str, index: int, write: Write) -> None:
        if (moment, what, index) == (Moment.BEFORE, "commit", 1) and not failed:
            failed.append(write.path)
            raise DeviceFailed(f"cannot write {write.path}")

    world.node(1, crash_hook=fail).run(LvCreate("vg0", "vm2", extents=1))
    assert failed
    assert [row["lv_name"] for row in world.node(2).run(Lvs())["rows"]] == ["vm1", "vm2"]
    node.run(LvCreate("vg0", "vm3", extents=1))
    stock.attach(*world.images)
    stock.run("vgck", "vg0")


@pytest.mark.parametrize("step", ["text", "precommit", "commit"])
def test_a_device_that_fails_before_the_commit_leaves_the_old_version(
    world: World, node: Node, step: str
) -> None:
    def fail(moment: Moment, what: str, index: int, write: Write) -> None:
        if (moment, what) == (Moment.BEFORE, step):
            raise DeviceFailed("cannot write /dev/x")

    before = node.run(Lvs())["rows"]
    with pytest.raises(DeviceFailed, match="cannot write /dev/x"):
        world.node(1, crash_hook=fail).run(LvCreate("vg0", "vm2", extents=1))
    assert node.run(Lvs())["rows"] == before
    assert world.locks_of(1) == []
    node.run(LvCreate("vg0", "vm2", extents=1))


def test_arbitrary_damage_never_surprises(world: World, node: Node) -> None:
    """Every sector of metadata spoilt in turn: a report answers, a change succeeds or is refused clearly."""
    before = [Path(image).read_bytes()[: 16 * 512] for image in world.images]
    calls: list[Callable[[int], Any]] = [
        lambda at: Vgs(),
        lambda at: LvCreate("vg0", f"n{at}", extents=1, activate="n"),
    ]
    for sector in range(16):
        for image, start in zip(world.images, before, strict=True):
            damage(image, 0, start)
            damage(image, sector * 512 + 20, b"\x99" * 50)
        world.resources["lvm_vg0", "VGLK"].lvb = None
        for call in calls:
            error = outcome(node, call(sector))
            assert "\n" not in str(error), sector


def outcome(node: Node, call: Any) -> RingfenceError | None:
    try:
        node.run(call)
    except RingfenceError as error:
        return error
    return None
