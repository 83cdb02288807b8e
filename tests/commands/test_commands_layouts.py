"""PVs and areas in every shape that stock LVM2 makes them: read, changed beside, handed back."""

import re
from pathlib import Path

import pytest
from command_world import MIB, World
from segment_judge import dump, without_signature
from stock_lvm import Stock

from ringfence.wire.client import LvCreate, LvRemove, Lvs, Pvs, Vgs

PV_FIELDS = (
    "pv_name,pv_attr,pv_size,pv_free,pv_uuid,dev_size,pe_start,pv_mda_count,pv_mda_used_count,pv_in_use"
)
VG_FIELDS = "vg_attr,vg_size,vg_free,vg_extent_size,vg_extent_count,pv_count,lv_count,vg_tags,vg_mda_count"


@pytest.fixture
def world(directory: Path) -> World:
    return World(directory, (64 * MIB, 64 * MIB, 64 * MIB))


def share(world: World, stock: Stock) -> None:
    """What `vgchange --locktype dlm` makes of a local VG, by way of a restored backup."""
    text = dump(world, stock)
    text = text.replace('"READ", "WRITE"', '"READ"')
    text = re.sub(
        r"\n\textent_size", '\n\tlock_type = "dlm"\n\tlock_args = "1.0.0:ring"\n\textent_size', text, count=1
    )
    text = re.sub(r"(\tseqno.*\n.*format.*\n.*\n)\tflags = \[\]", r'\1\tflags = ["WRITE_LOCKED"]', text)
    text = re.sub(r"(\n\t\t\tflags) = \[\](.*?\n\t\t\tsegment_count)", _locked, text, flags=re.DOTALL)
    file = world.directory / "shared.vg"
    file.write_text(text)
    stock.run("vgcfgrestore", "-f", str(file), "vg0", quiet=False)


def _locked(match: re.Match[str]) -> str:
    head, rest = match.groups()
    return f'{head} = ["WRITE_LOCKED"]' + rest.replace(
        "\n\t\t\tsegment_count", '\n\t\t\tlock_args = "dlm"\n\t\t\tsegment_count'
    )


# What stock is told, in words that stand for the loop devices: @0 @1 @2.
LAYOUTS = {
    "two areas, none, one out of use": [
        "pvcreate --pvmetadatacopies 2 @0",
        "pvcreate --pvmetadatacopies 0 @1",
        "pvcreate --metadataignore y @2",
        "vgcreate -s 384k vg0 @0 @1 @2",
    ],
    "one of five areas, by the VG's choice": [
        "pvcreate --pvmetadatacopies 2 @0 @1", "vgcreate -s 4k --vgmetadatacopies 1 vg0 @0 @1 @2",
    ],
    "labels, data and bootloaders elsewhere": [
        "pvcreate --labelsector 3 --bootloaderareasize 3m @0",
        "pvcreate --labelsector 0 --dataalignment 192k --dataalignmentoffset 7s @1",
        "pvcreate -y --setphysicalvolumesize 40m @2",
        "vgcreate -s 12m vg0 @0 @1 @2",
    ],
    "tags, limits, policies": [
        "vgcreate --addtag a/b=c --addtag x&y -l 20 -p 5 --alloc cling vg0 @0 @1",
        "pvchange --addtag pv.tag @1", "pvchange -xn @1",
        "lvcreate -an -Zn -l 3 -n one --addtag lv.tag vg0",
        "lvcreate -an -Zn -l 2 -n minor vg0",
        "lvchange -My --major 253 --minor 77 vg0/minor",
        "lvchange -pr --alloc contiguous -r 256 vg0/one",
        "lvchange -ky --setautoactivation n vg0/minor",
    ],
    "rings of 32 KiB and 32 MiB": [
        "pvcreate --metadatasize 32k --dataalignment 4k @0",
        "pvcreate --metadatasize 32m @1",
        "vgcreate vg0 @0 @1",
    ],
}  # fmt: skip


def build(world: World, stock: Stock, lines: list[str]) -> list[str]:
    loops = stock.attach(*world.images)
    for line in lines:
        words = [loops[int(word[1])] if re.fullmatch("@[0-9]", word) else word for word in line.split()]
        code, _, noise = stock.try_run(*words, lvmlockd=False)
        assert code == 0, (line, noise)
    share(world, stock)
    return loops


def plain(world: World, stock: Stock, row: dict[str, object], fields: str) -> dict[str, str]:
    found = {field: str(row[field]) for field in fields.split(",")}
    if "pv_name" in found:
        found["pv_name"] = stock.loops.get(found["pv_name"], found["pv_name"])
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_stock_goes_on_with_what_we_hand_back(world: World, stock: Stock, name: str) -> None:
    build(world, stock, LAYOUTS[name])
    judge_change(world, stock)


def judge_change(world: World, stock: Stock) -> None:
    """Stock reads all of ours after a change of ours, and nothing else has changed."""
    node = world.node()
    before = dump(world, stock)
    heads = [fixed_headers(stock, image) for image in world.images]
    node.run(LvCreate("vg0", "new", extents=2, activate="n"))
    stock.run("vgck", "vg0")
    theirs = stock.report("vgs", "-o", VG_FIELDS)
    assert theirs == [plain(world, stock, row, VG_FIELDS) for row in node.run(Vgs("vg0"))["rows"]]
    rows = [plain(world, stock, row, PV_FIELDS) for row in node.run(Pvs())["rows"]]
    assert sorted(stock.report("pvs", "-o", PV_FIELDS), key=str) == sorted(rows, key=str)
    mine = {row["lv_name"]: row["lv_attr"] for row in node.run(Lvs("vg0"))["rows"]}
    for row in stock.report("lvs"):
        attr = mine[row["lv_name"]]
        assert row["lv_attr"] == f"{attr[:4]}XX{attr[6:]}"
    node.run(LvRemove("vg0", "new", force=True))
    assert without_signature(before) == without_signature(dump(world, stock))
    assert heads == [fixed_headers(stock, image) for image in world.images]


def fixed_headers(stock: Stock, image: str) -> dict[str, str]:
    """`pvck --dump headers` without what every change changes."""
    moving = ("checksum", "offset", "size")
    return {
        key: value
        for key, value in stock.headers(image).items()
        if not ("raw_locn[" in key and key.endswith(moving)) and not key.startswith("metadata")
        and not re.fullmatch(r"mda_header_[12]\.checksum", key)
    }  # fmt: skip


def test_disks_with_sectors_of_4_kib(world: World, stock: Stock) -> None:
    """Headers and texts begin at multiples of 512 bytes all the same; writes are of whole sectors."""
    world.paths = stock.attach(*world.images, sector_bytes=4096)
    build(world, stock, LAYOUTS["tags, limits, policies"])
    for _ in range(2):
        judge_change(world, stock)
