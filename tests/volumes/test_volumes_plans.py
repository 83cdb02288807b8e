"""The VG model: reading, checks, allocation, plans, access, report rows."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.core.errors import BadInput, Damaged, NotFound, Refused, RingfenceError
from ringfence.lvm2.text import Section, parse_text, print_text
from ringfence.volumes import access, allocate, plan, policies, sizes
from ringfence.volumes.checks import check_vg
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import Stripe, Vg, read_vg
from ringfence.volumes.relations import Relations
from ringfence.volumes.report import ROW_FIELDS, LvHere, LvsView, lv_attr, lv_columns, vg_rows

MIB = 1 << 20
MAKER = plan.Maker("test", "host1", 1_700_000_000)


def uuid(number: int) -> str:
    text = f"{number:032d}"
    return "-".join(
        text[start:end] for start, end in ((0, 6), (6, 10), (10, 14), (14, 18), (18, 22), (22, 26), (26, 32))
    )


def new_vg(*extents: int) -> Vg:
    """A VG of PVs with so many extents of 1 MiB each."""
    pvs = tuple(
        plan.NewPv(uuid(index + 1), f"/dev/d{index}", (count + 1) * MIB, MIB)
        for index, count in enumerate(extents)
    )
    return plan.create_vg("vg0", uuid(99), "ring", pvs, MIB // 512, MAKER)


def with_lv(vg: Vg, name: str, extents: int) -> Vg:
    return plan.create_lv(vg, name, uuid(200 + len(vg.lvs) + len(name)), extents, MAKER)


def edited(vg: Vg, old: str, new: str) -> Vg:
    text = print_text(vg.tree).decode()
    assert old in text
    return read_vg(parse_text(text.replace(old, new).encode(), "edited"), "edited")


def pieces(vg: Vg, name: str) -> list[tuple[str, int, int]]:
    lv = plan.find_lv(vg, name)
    return [
        (one.pv, one.start_extent, one.extent_count) for segment in lv.segments for one in segment.stripes
    ]


# -- plans ---------------------------------------------------------------------------


def test_a_new_vg_is_shared_as_lvmlockd_shares() -> None:
    vg = new_vg(10, 20)
    check_vg(vg)
    assert (vg.seqno, vg.lock_type, vg.lock_args) == (1, "dlm", "1.0.0:ring")
    assert vg.status == ("RESIZEABLE", "READ")
    assert vg.flags == ("WRITE_LOCKED",)
    assert [pv.extent_count for pv in vg.pvs] == [10, 20]
    assert vg.writable


def test_a_new_lv_has_its_lock_and_its_record() -> None:
    vg = with_lv(new_vg(10), "vm1", 4)
    lv = plan.find_lv(vg, "vm1")
    assert (lv.lock_args, lv.creation_host, lv.creation_time_s) == ("dlm", "host1", 1_700_000_000)
    assert (lv.status, lv.flags) == (("READ", "VISIBLE"), ("WRITE_LOCKED",))
    assert lv.extent_count == 4
    check_vg(vg)


def test_removing_gives_back_the_vg_that_was() -> None:
    vg = new_vg(10)
    assert plan.remove_lv(with_lv(vg, "vm1", 3), "vm1") == vg
    two = with_lv(with_lv(vg, "vm1", 3), "vm2", 3)
    assert [lv.name for lv in plan.remove_lv(two, "vm1").lvs] == ["vm2"]


def test_seqno_and_signature() -> None:
    vg = plan.next_seqno(new_vg(10), 7, plan.Maker("lvcreate", "host2", 5))
    assert vg.seqno == 7
    assert vg.tree.string("description") == "Write from lvcreate."
    assert (vg.tree.string("creation_host"), vg.tree.number("creation_time")) == ("host2", 5)


def test_names_are_counted_like_lvm2s() -> None:
    vg = new_vg(10)
    assert plan.free_lv_name(vg) == "lvol0"
    vg = with_lv(with_lv(vg, "lvol0", 1), "lvol7", 1)
    assert plan.free_lv_name(vg) == "lvol8"


@pytest.mark.parametrize(
    ("name", "extents", "kind", "words"),
    [
        ("vm1", 1, BadInput, 'Logical Volume "vm1" already exists in volume group "vg0"'),
        ("big", 8, Refused, r'Volume group "vg0" has insufficient free space \(7 extents\): 8 required'),
        ("a b", 1, BadInput, "invalid character"),
    ],
)
def test_lvs_that_cannot_be(name: str, extents: int, kind: type[RingfenceError], words: str) -> None:
    vg = with_lv(new_vg(10), "vm1", 3)
    with pytest.raises(kind, match=words):
        plan.create_lv(vg, name, uuid(1), extents, MAKER)


def test_a_full_vg_needs_room_and_not_a_smaller_size() -> None:
    vg = with_lv(new_vg(10), "vm1", 9)
    with pytest.raises(Refused, match=r"\(1 extents\): 2 required; give a smaller size"):
        plan.create_lv(vg, "vm2", uuid(1), 2, MAKER)
    with pytest.raises(Refused, match=r"\(0 extents\): 1 required; make room: vgextend"):
        plan.create_lv(with_lv(vg, "vm2", 1), "vm3", uuid(1), 1, MAKER)


def test_what_is_not_linear_is_left_alone() -> None:
    vg = with_lv(with_lv(new_vg(10), "pool", 2), "thin", 2)
    vg = edited(
        vg,
        'type = "striped"\nstripe_count = 1\n\nstripes = [\n"pv0", 2\n]',
        'type = "thin"\nthin_pool = "pool"',
    )
    with pytest.raises(Refused, match=r"neither linear nor striped \(it is: thin\).*stock LVM2"):
        plan.remove_lv(vg, "thin")
    with pytest.raises(Refused, match="part of thin"):
        plan.remove_lv(vg, "pool")
    with pytest.raises(NotFound, match='Failed to find logical volume "vg0/gone"'):
        plan.remove_lv(vg, "gone")


def test_an_lv_may_bear_the_name_of_a_pv() -> None:
    vg = with_lv(with_lv(new_vg(10), "pv0", 1), "striped", 1)
    assert [lv.name for lv in plan.remove_lv(plan.remove_lv(vg, "pv0"), "striped").lvs] == []


# -- allocation ----------------------------------------------------------------------


def test_contiguous_first_then_the_largest_pieces() -> None:
    vg = with_lv(new_vg(5, 10, 7), "a", 4)
    assert pieces(vg, "a") == [("pv0", 0, 4)]
    vg = with_lv(vg, "b", 6)
    assert pieces(vg, "b") == [("pv1", 0, 6)], "pv0 has one extent left"
    vg = with_lv(vg, "c", 9)
    assert pieces(vg, "c") == [("pv2", 0, 7), ("pv1", 6, 2)]
    check_vg(vg)
    assert allocate.free_count(vg) == 3


@pytest.mark.parametrize("size", [1, 40])
@pytest.mark.parametrize("pvs", [1, 4])
def test_twenty_thousand_free_areas_take_no_long_time(size: int, pvs: int) -> None:
    """They hold the daemon's loop; which ones are chosen, stock LVM2 judges (tests/commands, allocation)."""
    areas = [Stripe(f"pv{number % pvs}", number * 50, 1 + number * 7 % size) for number in range(20_000)]
    before = time.process_time()
    for policy in policies.POLICIES:
        policies.allocate(areas, 1, policy=policy)
        if policy != "contiguous":
            policies.allocate(areas, 200, policy=policy)
    assert time.process_time() - before < 6, "it was half a minute where each was sought from the first on"


def test_freed_extents_are_used_again() -> None:
    vg = with_lv(with_lv(with_lv(new_vg(10), "a", 3), "b", 3), "c", 3)
    vg = with_lv(plan.remove_lv(vg, "b"), "d", 2)
    assert pieces(vg, "d") == [("pv0", 3, 2)]


def test_pvs_that_must_not_be_used() -> None:
    vg = edited(new_vg(5, 5), '"ALLOCATABLE"', "")
    with pytest.raises(Refused, match="1 extents needed, but only 0 available"):
        with_lv(vg, "a", 1)


def test_an_unknown_segment_type_keeps_its_extents() -> None:
    vg = edited(with_lv(new_vg(10), "x", 4), 'type = "striped"', 'type = "of_tomorrow"')
    assert allocate.free_ranges(vg, vg.pvs[0]) == (Stripe("pv0", 4, 6),)
    check_vg(vg)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=20),
)
def test_whatever_is_made_and_removed_no_extent_is_shared(
    pvs: list[int], steps: list[tuple[int, bool]]
) -> None:
    vg = new_vg(*pvs)
    for number, (extents, remove) in enumerate(steps):
        if remove and vg.lvs:
            vg = plan.remove_lv(vg, vg.lvs[extents % len(vg.lvs)].name)
        elif extents <= allocate.free_count(vg):
            vg = plan.create_lv(vg, f"v{number}", uuid(1000 + number), extents, MAKER)
            assert plan.find_lv(vg, f"v{number}").extent_count == extents
        check_vg(vg)
        assert allocate.free_count(vg) == vg.extent_count - sum(lv.extent_count for lv in vg.lvs)
        assert read_vg(parse_text(print_text(vg.tree), "x"), "x") == vg


# -- sizes ---------------------------------------------------------------------------


def new_size(vg: Vg, stripes: int = 1, listed: int | None = None, **size: Any) -> int:
    return sizes.extents_for_new(vg, sizes.Size(**size), sizes.Stripes(stripes, 128), listed).extents


def test_sizes() -> None:
    vg = with_lv(new_vg(10, 10), "a", 5)
    assert new_size(vg, size_bytes=1) == 1
    assert new_size(vg, size_bytes=MIB) == 1
    assert new_size(vg, size_bytes=MIB + 1) == 2
    assert new_size(vg, extents=7) == 7
    assert new_size(vg, extents=100, percent="FREE") == 15
    assert new_size(vg, extents=50, percent="FREE") == 7
    assert new_size(vg, extents=50, percent="VG") == 10
    assert new_size(vg, extents=100, percent="VG") == 15, "no more than is free"
    assert new_size(vg, extents=50, percent="PVS", listed=9) == 4


def test_sizes_are_whole_stripes() -> None:
    vg = new_vg(10, 10)
    assert new_size(vg, stripes=3, extents=7) == 9
    assert new_size(vg, stripes=3, extents=100, percent="FREE") == 18, "there is no room for 21"
    assert new_size(vg, stripes=3, extents=50, percent="FREE") == 12


@pytest.mark.parametrize(
    "size",
    [{}, {"size_bytes": 1, "extents": 1}, {"extents": 5, "percent": "LV"}, {"extents": 101, "percent": "VG"},
     {"extents": 5, "percent": "ORIGIN"}, {"extents": 1, "percent": "FREE"}, {"size_bytes": -5},
     {"extents": 5, "sign": "+"}, {"extents": 5, "percent": "of"}],
)  # fmt: skip
def test_sizes_that_cannot_be(size: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        new_size(new_vg(10), **size)


@pytest.mark.parametrize(
    ("count", "size_bytes", "sectors"), [(1, 4096, 0), (2, 0, 128), (2, 4096, 8), (2, 16 * MIB, 2048)]
)
def test_stripe_sizes(count: int, size_bytes: int, sectors: int) -> None:
    stripes, _ = sizes.stripes_for(new_vg(10), count, size_bytes)
    assert stripes == sizes.Stripes(count, sectors)


@pytest.mark.parametrize(("count", "size_bytes"), [(129, 0), (-1, 0), (2, 2048), (2, 5000), (2, 12288)])
def test_stripe_sizes_that_cannot_be(count: int, size_bytes: int) -> None:
    with pytest.raises(BadInput):
        sizes.stripes_for(new_vg(10), count, size_bytes)


def test_extent_sizes() -> None:
    assert sizes.check_extent_size(0) == 8192
    assert sizes.check_extent_size(1024) == 2
    assert sizes.check_extent_size(3 * MIB) == 6144
    for wrong in (512, 3 * 1024, 3 * MIB + 1024, 1 << 40, -4):
        with pytest.raises(BadInput, match="power of two"):
            sizes.check_extent_size(wrong)


# -- checks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"pv0", 3\n', '"pv0", 2\n', "LVs a and b share extent 2 of PV pv0"),
        ('"pv0", 3\n', '"pv0", 8\n', "LV b runs over the end of PV pv0"),
        (
            "start_extent = 0\nextent_count = 3",
            "start_extent = 1\nextent_count = 3",
            "do not follow each other",
        ),
        ("segment_count = 1", "segment_count = 2", "segment_count and the segments disagree"),
        ("stripe_count = 1", "stripe_count = 2", "cannot be shared by 2 stripes"),
        ("pe_count = 10", "pe_count = 11", "run over the end of its device"),
        (uuid(1), uuid(2), "PV uuid .* is there twice"),
        ("seqno = 1\n", "", "seqno is missing"),
        ("seqno = 1\n", 'seqno = "1"\n', "seqno is missing or not a number"),
        ("extent_size = 2048", "extent_size = 0", "extent_size is 0"),
        ('contents = "Text Format Volume Group"', 'contents = "x"', "not a volume group"),
        ("version = 1", "version = 2", "not a volume group of version 1"),
    ],
)
def test_metadata_that_does_not_hold_together(old: str, new: str, words: str) -> None:
    vg = with_lv(with_lv(new_vg(10, 10), "a", 3), "b", 3)
    check_vg(vg)
    with pytest.raises(Damaged, match=words) as caught:
        check_vg(edited(vg, old, new))
    assert "vg0" in caught.value.message or "edited" in caught.value.message


# -- access ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('lock_type = "dlm"', 'lock_type = "sanlock"', "lock type sanlock: only dlm"),
        ('lock_type = "dlm"', 'lock_type = "idm"', "lock type idm"),
        ('lock_type = "dlm"', 'lock_type = "of_tomorrow"', "lock type of_tomorrow"),
        ('lock_type = "dlm"', 'lock_type = "none"', "is not shared.*vgchange --locktype dlm vg0"),
        ('lock_type = "dlm"\n', "", "is not shared.*vgchange --locktype dlm vg0"),
        ("1.0.0:ring", "1.0.0:other", 'shared by cluster "other"'),
        ('lock_type = "dlm"', 'lock_type = "dlm"\nsystem_id = "alice"', "system ID alice"),
        ('"RESIZEABLE"', '"CLUSTERED", "RESIZEABLE"', "clustered VG vg0"),
    ],
)
def test_vgs_of_others_are_refused_with_what_to_do(old: str, new: str, words: str) -> None:
    vg = new_vg(10)
    access.check_ours(vg, "ring")
    assert access.is_ours(vg, "ring")
    with pytest.raises(Refused, match=words) as caught:
        access.check_ours(edited(vg, old, new), "ring")
    assert caught.value.next


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"RESIZEABLE"', '"EXPORTED", "RESIZEABLE"', "exported"),
        ('"RESIZEABLE", ', "", "not resizeable"),
        ('"WRITE_LOCKED"', "", "read-only"),
        (
            'status = ["ALLOCATABLE"]\nflags = []',
            'status = ["ALLOCATABLE"]\nflags = ["MISSING"]',
            "missing: pv0",
        ),
    ],
)
def test_vgs_that_must_not_be_written(old: str, new: str, words: str) -> None:
    vg = new_vg(10)
    access.check_writable(vg, resizing=True)
    with pytest.raises(Refused, match=words):
        access.check_writable(edited(vg, old, new), resizing=True)


# -- reports -----------------------------------------------------------------------------


def test_attributes_are_lvm2s() -> None:
    vg = with_lv(new_vg(10), "vm1", 2)
    lv = plan.find_lv(vg, "vm1")
    relations = Relations(vg)
    assert lv_attr(lv, LvHere(), relations, False) == "-wi-------"
    assert lv_attr(lv, LvHere(active=True), relations, False) == "-wi-a-----"
    assert lv_attr(lv, LvHere(active=True, connections=2), relations, False) == "-wi-ao----"
    assert lv_attr(lv, LvHere(), relations, True) == "-wi-----p-"
    found = VgOnDisk(vg, 0, {}, ())
    (row,) = vg_rows((found,))
    assert row["vg_attr"] == "wz-pns", "its PV was not found"
    assert (row["vg_size"], row["vg_free"]) == (10 * MIB, 8 * MIB)


def test_holders_are_named() -> None:
    vg = with_lv(new_vg(10), "vm1", 2)
    holder = {"node": "an-a01n01", "mode": "EX", "token": "1.1.1", "since_wall_ms": 5}
    lv = plan.find_lv(vg, "vm1")
    view = LvsView(VgOnDisk(vg, 0, {}, ()), {lv.uuid: LvHere((holder,))}, Relations(vg))
    row = {field: value for field, (value,) in lv_columns(view, (lv,), ROW_FIELDS).items()}
    assert row["lv_holder"] == "an-a01n01:EX"
    assert row["lv_holders"] == [holder]
    assert row["lv_size"] == 2 * MIB
    assert row["seg_pe_ranges"] == "[unknown]:0-1"


def test_what_nobody_knows_is_carried_along() -> None:
    vg = edited(
        with_lv(new_vg(10), "vm1", 2), "max_lv = 0", 'max_lv = 0\nof_tomorrow = [1, "x"]\nmore {\ny = 1.5\n}'
    )
    vg = plan.remove_lv(with_lv(vg, "vm2", 1), "vm1")
    assert vg.body.get("of_tomorrow") == (1, "x")
    assert isinstance(vg.body.get("more"), Section)


@pytest.mark.parametrize("name", ["../../etc/x", "a b", "-x", "..", "x" * 128, "line\\nend"])
def test_names_from_a_disk_that_no_vg_or_lv_can_have_are_damage(name: str) -> None:
    """Paths are made of them, and lines of messages."""
    text = print_text(with_lv(new_vg(10), "vm1", 3).tree).decode()
    raw = name.replace("\\n", "\n")
    for old in ("vm1 {", "vg0 {"):
        with pytest.raises(Damaged, match="cannot be called") as caught:
            read_vg(parse_text(text.replace(old, f'"{raw}" {{').encode(), "x"), "x")
        assert "\n" not in str(caught.value)


def test_an_lv_made_of_one_that_is_not_there_is_damage() -> None:
    vg = edited(with_lv(new_vg(10), "vm1", 3), '"pv0", 0', '"vm2", 0')
    with pytest.raises(Damaged, match="LV vm1 is made of vm2, which is not there"):
        check_vg(vg)


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ('status = ["RESIZEABLE", "READ"]', "VG status TOMORROWS"),
        ('status = ["ALLOCATABLE"]', "PV status TOMORROWS"),
        ('status = ["READ", "VISIBLE"]', "LV status TOMORROWS"),
    ],
)
def test_a_status_that_is_not_known_is_read_and_not_written_over(old: str, words: str) -> None:
    vg = with_lv(new_vg(10), "vm1", 3)
    access.check_writable(vg)
    vg = edited(vg, old, old.replace("]", ', "TOMORROWS"]'))
    with pytest.raises(Refused, match=words):
        access.check_writable(vg)
    access.check_writable(edited(new_vg(10), 'flags = ["WRITE_LOCKED"]', 'flags = ["WRITE_LOCKED", "NEW"]'))
