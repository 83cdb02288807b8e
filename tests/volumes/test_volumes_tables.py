"""Device-mapper tables of LVs, from texts as stock LVM2 writes them.

What stock LVM2 itself loads for the same LVs is compared by the rig (`make rig`)."""

import pytest

from ringfence.core.errors import NotFound, Refused
from ringfence.lvm2.text import parse_text
from ringfence.volumes.model import Vg, read_vg
from ringfence.volumes.tables import table_of
from ringfence.wire.block import Area, Target

PATHS = {"pv0": "/dev/sda", "pv1": "/dev/sdb"}
TEXT = """
contents = "Text Format Volume Group"
version = 1
vg0 {
    id = "VVVVVV-VVVV-VVVV-VVVV-VVVV-VVVV-VVVVVV"
    seqno = 3
    status = ["RESIZEABLE", "READ"]
    flags = ["WRITE_LOCKED"]
    extent_size = 8192
    max_lv = 0
    max_pv = 0
    physical_volumes {
        pv0 { id = "PPPPPP-PPPP-PPPP-PPPP-PPPP-PPPP-PPPPP0" device = "/dev/sda" status = ["ALLOCATABLE"]
              dev_size = 1048576 pe_start = 2048 pe_count = 100 }
        pv1 { id = "PPPPPP-PPPP-PPPP-PPPP-PPPP-PPPP-PPPPP1" device = "/dev/sdb" status = ["ALLOCATABLE"]
              dev_size = 1048576 pe_start = 4096 pe_count = 100 }
    }
    logical_volumes {
        lv { id = "LLLLLL-LLLL-LLLL-LLLL-LLLL-LLLL-LLLLLL" status = ["READ", "VISIBLE"]
             flags = ["WRITE_LOCKED"] segment_count = 2
             segment1 { start_extent = 0 extent_count = 3 type = "striped" stripe_count = 1
                        stripes = ["pv1", 7] }
             segment2 { start_extent = 3 extent_count = 4 SEGMENT }
        }
    }
}
"""


def vg(segment: str) -> Vg:
    return read_vg(parse_text(TEXT.replace("SEGMENT", segment).encode(), "text"), "text")


def table(vg: Vg, paths: dict[str, str] = PATHS) -> tuple[Target, ...]:
    (lv,) = vg.lvs
    return table_of(vg, lv, paths)


def test_a_segment_is_a_line_linear_or_striped() -> None:
    striped = 'type = "striped" stripe_count = 2 stripe_size = 128 stripes = ["pv0", 0, "pv1", 50]'
    assert table(vg(striped)) == (
        Target(0, 3 * 8192, (Area("/dev/sdb", 4096 + 7 * 8192),)),
        Target(3 * 8192, 4 * 8192, (Area("/dev/sda", 2048), Area("/dev/sdb", 4096 + 50 * 8192)), 128),
    )


def test_what_is_no_plain_piece_of_pvs_is_left_to_stock_lvm2() -> None:
    mirror = 'type = "mirror" mirror_count = 2 mirrors = ["pv0", 0, "pv1", 50]'
    with pytest.raises(Refused, match=r"vg0/lv has a segment of type mirror.*lvchange -ay vg0/lv"):
        table(vg(mirror))


def test_a_pv_that_is_not_here_is_named() -> None:
    linear = 'type = "striped" stripe_count = 1 stripes = ["pv0", 0]'
    with pytest.raises(NotFound, match=r"PPPP0 \(last seen as /dev/sda\) is missing"):
        table(vg(linear), {"pv1": "/dev/sdb"})
