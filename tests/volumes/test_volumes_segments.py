"""What a segment takes of PVs, what it is made of, and texts that do not say."""

import pytest

from ringfence.core.errors import Damaged
from ringfence.lvm2.text import parse_text
from ringfence.volumes.segments import Part, Role, Segment, Stripe, read_segment

PVS = frozenset(("pv0", "pv1"))


def read(kind: str, *lines: str, count: int = 4) -> Segment:
    text = "\n".join((f"start_extent = 0\nextent_count = {count}", f'type = "{kind}"', *lines))
    return read_segment(parse_text(text.encode(), "text"), "VG vg0: LV lv: segment1", PVS)


def test_only_stripes_and_mirrors_take_extents() -> None:
    striped = read("striped", "stripe_count = 2", "stripe_size = 128", 'stripes = ["pv0", 3, "pv1", 7]')
    assert striped.stripes == (Stripe("pv0", 3, 2), Stripe("pv1", 7, 2))
    assert striped.stripe_sectors == 128
    mirror = read("mirror", "mirror_count = 2", 'mirror_log = "log"', 'mirrors = ["pv0", 3, "im", 7]')
    assert mirror.stripes == (Stripe("pv0", 3, 4),)
    assert mirror.parts == (Part("im", Role.MIRROR_IMAGE, 7, 1), Part("log", Role.MIRROR_LOG))
    assert mirror.areas == (Stripe("pv0", 3, 4), Part("im", Role.MIRROR_IMAGE, 7, 1))
    raid = read("raid6", "device_count = 3", 'raids = ["a_rmeta_0", "a", "b_rmeta_1", "b", "c"]')
    assert (raid.stripes, raid.exact) == ((), True)
    assert [part.area for part in raid.parts] == [-1, 0, -1, 1, 2]


def test_a_linear_piece_keeps_no_more_than_its_extents() -> None:
    """There are 20,000 of them."""
    linear = read("striped", "stripe_count = 1", 'stripes = ["pv0", 3]')
    assert linear == Segment(0, 4, "striped", (Stripe("pv0", 3, 4),))
    assert linear.type_name == "linear"
    on_lv = read("striped", "stripe_count = 1", 'stripes = ["pvmove0", 3]')
    assert (on_lv.type_name, on_lv.words) == ("linear", ("pvmove0",))


def test_flags_that_are_known_are_cut_off_and_others_make_another_type() -> None:
    lines = ("device_count = 2", 'raids = ["a", "b"]')
    known = read("raid5+RESHAPE+RESHAPE_DATA_OFFSET", *lines)
    assert (known.kind, known.flags, known.exact) == ("raid5", ("RESHAPE", "RESHAPE_DATA_OFFSET"), True)
    other = read("raid5+OF_TOMORROW", *lines)
    assert (other.kind, other.flags, other.exact) == ("raid5+OF_TOMORROW", (), False)


def test_a_type_that_is_not_known_takes_all_that_it_may_mean() -> None:
    found = read("new", 'things = ["pv0", 3, "x", 1]', "deeper {", 'more = ["pv1", 5]', 'one = "lv"', "}")
    assert found.stripes == (Stripe("pv0", 3, 4), Stripe("pv1", 5, 4))
    assert found.words == ("pv0", "x", "pv1", "lv")
    assert not found.exact


@pytest.mark.parametrize(
    ("kind", "lines", "words"),
    [
        ("striped", ["stripe_count = 1"], "stripes does not list 1 devices"),
        ("striped", ["stripe_count = 0", "stripes = []"], "no number above 0"),
        ("striped", ["stripe_count = 3", "stripe_size = 8", "stripes = []"], "cannot be shared by 3"),
        ("striped", ["stripe_count = 2", 'stripes = ["pv0", 0, "pv1", 0]'], "without stripe_size"),
        ("striped", ["stripe_count = 1", 'stripes = ["pv0", -1]'], "does not list devices and extents"),
        ("mirror", ["mirror_count = 2", 'mirrors = ["pv0", 0]'], "mirrors does not list 2"),
        ("raid1", ["device_count = 2", 'raids = ["a"]'], "raids lists 1 images, not 2"),
        ("raid1", ["device_count = 2", "stripe_count = 2", 'raids = ["a", "b"]'], "device_count or"),
        ("raid6", ["device_count = 2", 'raids = ["a", "b"]'], "2 images are too few for raid6"),
        ("raid0", ["stripe_count = 2", 'raids = ["a", "b"]'], "raid0_lvs lists 0 images"),
        ("snapshot", ['origin = "a"'], "one of cow_store and merging_store"),
        ("snapshot", ['cow_store = "a"'], "snapshot without origin"),
        ("thin", ["transaction_id = 1"], "thin without thin_pool"),
        ("thin", ['thin_pool = "p"', "origin = 5"], "thin without origin"),
        ("thin-pool", ['pool = "d"'], "thin-pool without metadata"),
        ("cache", ['origin = "o"'], "cache without cache_pool"),
        ("vdo", ['vdo_pool = "p"'], "vdo without vdo_offset"),
    ],
)
def test_a_segment_that_does_not_say_is_damage(kind: str, lines: list[str], words: str) -> None:
    with pytest.raises(Damaged, match=f"VG vg0: LV lv: segment1: .*{words}"):
        read(kind, *lines)
