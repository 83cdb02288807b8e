"""What we write, stock LVM2 accepts; what stock LVM2 writes, we read, change and hand back."""

import itertools
import os
import re
import subprocess

import pytest
from command_world import MIB, World
from stock_lvm import Stock

from ringfence.core.errors import Refused
from ringfence.lvm2.area import check_text, parse_header, place_text, text_ranges
from ringfence.lvm2.label import parse_label
from ringfence.lvm2.text import parse_text, print_text
from ringfence.storage import Storage
from ringfence.wire.client import LvCreate, LvRemove, Lvs, PvCreate, Pvs, VgCreate, VgRemove, Vgs


def committed_text(image: str) -> bytes:
    """The committed text as it stands on the disk, final NUL included."""
    with open(image, "rb") as file:
        label = parse_label(file.read(2048), image)
        assert label is not None
        area = label.metadata_areas[0]
        file.seek(area.offset_bytes)
        header = parse_header(file.read(512), area, image)
        data = b""
        for piece in text_ranges(header, header.committed):
            file.seek(piece.offset_bytes)
            data += file.read(piece.size_bytes)
    check_text(header.committed, data, image)
    return data


def rewrite_text(image: str, text: bytes) -> None:
    """Commit another text on an image, as an editor of metadata would."""
    with open(image, "r+b") as file:
        label = parse_label(file.read(2048), image)
        assert label is not None
        area = label.metadata_areas[0]
        file.seek(area.offset_bytes)
        header = parse_header(file.read(512), area, image)
        slot = place_text(header, text, image)
        from ringfence.lvm2.area import MdaHeader, print_header, text_writes

        for offset, data in text_writes(header, slot, text):
            file.seek(offset)
            file.write(data)
        file.seek(area.offset_bytes)
        file.write(print_header(MdaHeader(header.start_bytes, header.size_bytes, slot)))


def without_comments(text: str) -> list[str]:
    """Lines, comments cut off (LVM2's hold dates), trailing blank lines too."""
    lines = [re.sub(r"\t?# .*", "", line) for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def test_stock_accepts_every_image_we_write(world: World, stock: Stock) -> None:
    loops = stock.attach(*world.images)
    node = world.node()

    node.run(PvCreate(tuple(world.images)))
    assert sorted(row["pv_name"] for row in stock.report("pvs")) == sorted(loops), "/dev/loop10 comes first"
    assert stock.headers(world.images[0])["pv_header_extension.flags"] == "0"

    node.run(VgCreate("vg0", tuple(world.images), shared=True))
    stock.run("vgck", "vg0")
    node.run(LvCreate("vg0", "vm1", size_bytes=8 * MIB))
    node.run(LvCreate("vg0", "vm2", extents=100, percent="FREE", activate="n"))
    stock.run("vgck", "vg0")

    (vg,) = stock.report("vgs", "-o", "+vg_seqno,vg_lock_type,vg_lock_args,vg_extent_size")
    ours = node.run(Vgs("vg0"))["rows"][0]
    assert vg["vg_attr"] == ours["vg_attr"] == "wz--ns"
    assert (vg["vg_lock_type"], vg["vg_lock_args"], vg["vg_seqno"]) == ("dlm", "1.0.0:ring", "3")
    for field in ("vg_name", "pv_count", "lv_count", "snap_count", "vg_size", "vg_free", "vg_extent_size"):
        assert vg[field] == str(ours[field]), field

    fields = "lv_name,lv_size,lv_uuid,lv_lockargs,lv_time,lv_host,seg_pe_ranges"
    theirs = stock.report("lvs", "-o", fields, "--segments")
    rows = {row["lv_name"]: row for row in node.run(Lvs("vg0"))["rows"]}
    for row in theirs:
        mine = rows[row["lv_name"]]
        assert (row["lv_uuid"], row["lv_size"]) == (mine["lv_uuid"], str(mine["lv_size"]))
        loop, ranges = row["seg_pe_ranges"].split(":")
        assert f"{stock.image_of(loop)}:{ranges}" in mine["seg_pe_ranges"].split()
    assert [row["lv_name"] for row in theirs] == ["vm1", "vm2", "vm2"]

    for row, mine in zip(
        stock.report("pvs", "-o", "+pe_start,dev_size,pv_uuid"), node.run(Pvs())["rows"], strict=True
    ):
        for field in (
            "vg_name",
            "pv_fmt",
            "pv_attr",
            "pv_size",
            "pv_free",
            "pe_start",
            "dev_size",
            "pv_uuid",
        ):
            assert row[field] == str(mine[field]), field

    node.run(LvRemove("vg0", "vm1", force=True))
    stock.run("vgck", "vg0")
    assert [row["lv_name"] for row in stock.report("lvs")] == ["vm2"]
    node.run(VgRemove("vg0", force=True))
    assert stock.report("vgs") == []
    assert [row["vg_name"] for row in stock.report("pvs")] == ["", ""]
    assert stock.headers(world.images[0])["pv_header_extension.flags"] == "0"


@pytest.mark.parametrize("metadata", [0, 3 * MIB, 16 * MIB])
def test_headers_have_the_bytes_that_stock_would_write(world: World, stock: Stock, metadata: int) -> None:
    """The same pvcreate and vgcreate by stock on one disk and by us on the other."""
    loops = stock.attach(*world.images)
    size = ["--metadatasize", f"{metadata}b"] if metadata else []
    stock.run("pvcreate", *size, loops[0], lvmlockd=False)
    stock.run("vgcreate", "theirs", loops[0], lvmlockd=False)
    node = world.node()
    node.run(PvCreate((world.images[1],), metadata_size_bytes=metadata))
    node.run(VgCreate("ours", (world.images[1],), shared=True))
    theirs, ours = (stock.headers(image) for image in world.images)
    differ = {"label_header.crc", "pv_header.pv_uuid", "metadata", "mda_header_1.checksum"}
    differ |= {f"mda_header_1.raw_locn[0].{field}" for field in ("size", "checksum")}
    assert {key for key in theirs if theirs[key] != ours.get(key)} <= differ
    assert theirs.keys() == ours.keys()
    assert ours["pv_header_extension.flags"] == "1"
    with open(world.images[0], "rb") as one, open(world.images[1], "rb") as other:
        # Every byte before the text, but for uuid, checksums and the text's size.
        one_head, other_head = one.read(4096 + 512), other.read(4096 + 512)
    offsets = [at for at, (a, b) in enumerate(zip(one_head, other_head, strict=True)) if a != b]
    allowed = [*range(528, 532), *range(544, 576), *range(4096, 4100), *range(4144, 4156)]
    assert [at for at in offsets if at not in allowed] == []


def test_text_is_laid_out_as_stock_lays_it_out(world: World, stock: Stock) -> None:
    loops = stock.attach(*world.images)
    stock.run("vgcreate", "--addtag", "a.tag", "vg0", *loops, lvmlockd=False)
    texts = [committed_text(world.images[0])]
    for words in (
        ("lvcreate", "-an", "-Zn", "-l", "3", "-n", "one", "vg0"),
        ("lvcreate", "-an", "-Zn", "-l", "8", "-n", "two", "--addtag", "x/y=z", "--addtag", "q", "vg0"),
        ("lvcreate", "-an", "-Zn", "-l", "4", "-i", "2", "-n", "striped", "vg0"),
        ("vgchange", "-l", "7", "-p", "9", "vg0"),
        ("lvchange", "-pr", "--alloc", "contiguous", "vg0/one"),
    ):
        stock.run(*words, lvmlockd=False, quiet=False)
        texts.append(committed_text(world.images[0]))
    for text in texts:
        again = print_text(parse_text(text, "stock"))
        assert without_comments(again.decode()) == without_comments(text.decode())
    assert b'"x/y=z"' in texts[-1]


def test_our_texts_go_where_stock_would_put_them(world: World, stock: Stock) -> None:
    """Stock follows our text in the ring and we follow its, for many changes round a small ring."""
    (loop,) = stock.attach(world.images[0])
    stock.run("pvcreate", "--metadatasize", "32k", "--dataalignment", "4k", loop, lvmlockd=False)
    stock.run("vgcreate", "-s", "64k", "vg0", loop, lvmlockd=False)
    places = []
    for round in range(60):
        area = parse_area(world.images[0])
        stock.run("vgchange", "--addtag", f"tag{round}", "vg0", lvmlockd=False)
        after = parse_area(world.images[0])
        text = committed_text(world.images[0])
        # Where would we have put the very same text?
        assert place_text(area, text, "x") == after.committed, round
        places.append(after.committed.offset_bytes)
    assert sum(later < earlier for earlier, later in itertools.pairwise(places)) >= 2, "no wrap seen"


def parse_area(image: str):  # type: ignore[no-untyped-def]
    with open(image, "rb") as file:
        label = parse_label(file.read(2048), image)
        assert label is not None
        area = label.metadata_areas[0]
        file.seek(area.offset_bytes)
        return parse_header(file.read(512), area, image)


def share(image_texts: list[str], cluster: str) -> None:
    """What `vgchange --locktype dlm` does to the text of a local VG."""
    for image in image_texts:
        text = committed_text(image).decode()
        text = text.replace('"READ", "WRITE"', '"READ"').replace(
            "flags = []\nextent", 'flags = ["WRITE_LOCKED"]\nextent'
        )
        text = text.replace(
            "extent_size", f'lock_type = "dlm"\nlock_args = "1.0.0:{cluster}"\nextent_size', 1
        )
        rewrite_text(image, text.encode())


def test_a_stock_vg_is_refused_until_shared_then_changed_and_handed_back(world: World, stock: Stock) -> None:
    loops = stock.attach(*world.images)
    stock.run("vgcreate", "vg0", *loops, lvmlockd=False)
    stock.run("lvcreate", "-an", "-Zn", "-l", "3", "-n", "old", "vg0", lvmlockd=False)
    node = world.node()
    assert node.run(Vgs("vg0"))["rows"][0]["vg_attr"] == "wz--n-"
    with pytest.raises(Refused, match="vgchange --locktype dlm vg0") as caught:
        node.run(LvCreate("vg0", "new", extents=1))
    assert "not shared" in caught.value.message

    share(world.images, world.cluster)
    node.run(LvCreate("vg0", "new", extents=2))
    stock.run("vgck", "vg0")
    names = {
        row["lv_name"]: row["seg_pe_ranges"] for row in stock.report("lvs", "-o", "lv_name,seg_pe_ranges")
    }
    assert names == {"old": f"{loops[0]}:0-2", "new": f"{loops[0]}:3-4"}


RAID = """
raidlv {{
id = "{0}"
status = ["READ", "VISIBLE"]
flags = ["WRITE_LOCKED"]
lock_args = "dlm"
a_key_of_tomorrow = [1, 2.5, "x"]
segment_count = 1

segment1 {{
start_extent = 0
extent_count = 2

type = "raid1"
device_count = 2
region_size = 4096

raids = [
"raidlv_rmeta_0", "raidlv_rimage_0",
"raidlv_rmeta_1", "raidlv_rimage_1"
]
}}
}}
"""
PART = """
{1} {{
id = "{0}"
status = ["READ"]
flags = ["WRITE_LOCKED"]
segment_count = 1

segment1 {{
start_extent = 0
extent_count = {2}

type = "striped"
stripe_count = 1

stripes = [
"{3}", {4}
]
}}
}}
"""


def uuid(letter: str) -> str:
    return "-".join(letter * count for count in (6, 4, 4, 4, 4, 4, 6))


def test_segment_types_that_we_do_not_know_are_carried_through(world: World, stock: Stock) -> None:
    stock.attach(*world.images)
    node = world.node()
    node.run(VgCreate("vg0", tuple(world.images), shared=True))
    node.run(LvCreate("vg0", "vm1", extents=1, activate="n"))
    added = RAID.format(uuid("a"))
    for letter, name, count, pv, start in (
        ("b", "raidlv_rmeta_0", 1, "pv0", 1),
        ("c", "raidlv_rimage_0", 2, "pv0", 2),
        ("d", "raidlv_rmeta_1", 1, "pv1", 0),
        ("e", "raidlv_rimage_1", 2, "pv1", 1),
    ):
        added += PART.format(uuid(letter), name, count, pv, start)
    text = committed_text(world.images[0]).decode()
    edited = text.replace("\nvm1 {", added + "\nvm1 {").encode()
    for image in world.images:
        rewrite_text(image, edited)
    before = {row["lv_name"]: row for row in stock.report("lvs", "-a")}
    assert "raidlv" in before

    node.run(LvCreate("vg0", "vm2", size_bytes=1, activate="n"))
    node.run(LvRemove("vg0", "vm1"))
    stock.run("vgck", "vg0")
    names = [row["lv_name"] for row in stock.report("lvs", "-a")]
    assert sorted(names) == sorted({*before, "vm2"} - {"vm1"})
    tree = parse_text(committed_text(world.images[1]), "x")
    lvs = tree.sections()[0][1].section("logical_volumes")
    raid = lvs.section("raidlv") if lvs else None
    edited_lvs = parse_text(edited, "x").sections()[0][1].section("logical_volumes")
    assert raid is not None
    assert edited_lvs is not None
    assert raid == edited_lvs.section("raidlv")
    assert "1, 2.5," in committed_text(world.images[1]).decode()

    for name, words in (("raidlv", "neither linear nor striped"), ("raidlv_rimage_0", "hidden part")):
        with pytest.raises(Refused, match=words):
            node.run(LvRemove("vg0", name))


def test_stock_goes_on_where_we_stop_and_we_where_it_stops(world: World, stock: Stock) -> None:
    """Alternating changes by stock (no locking, alone here) and by us, on a ring that wraps."""
    (loop,) = stock.attach(world.images[0])
    stock.run("pvcreate", "--metadatasize", "32k", "--dataalignment", "4k", loop, lvmlockd=False)
    node = world.node()
    node.run(VgCreate("vg0", (world.images[0],), shared=True, extent_size_bytes=MIB))
    for round in range(12):
        node.run(LvCreate("vg0", f"ours{round}", extents=1, activate="n"))
        stock_change(stock, "vgchange", "--addtag", f"t{round}", "vg0")
        node.run(LvRemove("vg0", f"ours{round}"))
    stock.run("vgck", "vg0")
    (vg,) = stock.report("vgs", "-o", "vg_seqno,vg_tags")
    assert vg["vg_seqno"] == "37"
    assert len(vg["vg_tags"].split(",")) == 12
    assert node.run(Vgs())["rows"][0]["vg_seqno"] == 37


def stock_change(stock: Stock, *words: str) -> None:
    code, _, noise = stock.try_run(*words)
    assert code == 0, noise


def test_loop_devices_are_detached() -> None:
    """Runs last in this file: whatever the tests attached is gone."""
    done = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "back-file"], capture_output=True, text=True
    )
    assert [line for line in done.stdout.splitlines() if line.strip() in Stock.attached] == []


def test_what_is_in_use_on_this_host_becomes_no_pv_by_any_force(world: World, stock: Stock) -> None:
    """A mounted file system, a leg of a RAID: the kernel has the device for one of them alone."""
    one, two = stock.attach(*world.images[:2])
    node = world.node()
    node.storage = Storage([one, two], node.guards.append)
    with open(one, "r+b") as device:
        device.write(b"precious")
    mounted = os.open(one, os.O_RDWR | os.O_EXCL)
    try:
        assert stock.try_run("pvcreate", "-ff", "-y", one, lvmlockd=False)[0] == 5
        for call in (PvCreate((two, one), force=True), VgCreate("vg0", (one,), shared=True, force=True)):
            with pytest.raises(Refused, match=f"cannot open {one} exclusively: it is mounted"):
                node.run(call)
    finally:
        os.close(mounted)
    assert node.run(Pvs())["rows"] == []
    with open(one, "rb") as device:
        assert device.read(8) == b"precious"
    node.run(PvCreate((one,), force=True))
    (row,) = node.run(Pvs())["rows"]
    assert row["pv_name"] == one
