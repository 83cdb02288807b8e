"""A VG that is changed an LV at a time is the one that reading all of its text would give."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.core.errors import Damaged
from ringfence.lvm2.fragments import cut
from ringfence.lvm2.text import Section, Value, parse_text, print_text
from ringfence.volumes import plan
from ringfence.volumes.checks import check_vg
from ringfence.volumes.index import Index
from ringfence.volumes.model import Vg, read_text_like, read_vg

MIB = 1 << 20
MAKER = plan.Maker("test", "host1", 1_700_000_000)
PVS = (40, 25)


def uuid(number: int) -> str:
    text = f"{number:032d}"
    return "-".join(
        text[start:end] for start, end in ((0, 6), (6, 10), (10, 14), (14, 18), (18, 22), (22, 26), (26, 32))
    )


def new_vg() -> Vg:
    pvs = tuple(
        plan.NewPv(uuid(index + 1), f"/dev/d{index}", (count + 1) * MIB, MIB)
        for index, count in enumerate(PVS)
    )
    return plan.create_vg("vg0", uuid(99), "ring", pvs, MIB // 512, MAKER)


def segment(rng: random.Random, start: int, vg: Vg) -> Section:
    """Mostly sound; sometimes over another's extents, over the PV's end, or of a type nobody knows."""
    free = [one for pv in vg.pvs for one in vg.index.free_ranges(pv.name)]
    place = rng.choice(free) if free and rng.random() < 0.9 else None
    pv, at = (place.pv, place.start_extent) if place else (f"pv{rng.randrange(2)}", rng.randrange(42))
    count = rng.randint(1, min(4, place.extent_count)) if place else rng.randint(1, 4)
    kind = rng.choices(["striped", "mirror", "of_tomorrow"], [20, 2, 1])[0]
    items: list[tuple[str, Value | Section]] = [
        ("start_extent", start),
        ("extent_count", count),
        ("type", kind),
    ]
    if rng.random() < 0.1:
        items.append(("origin", rng.choice(["lv1", "lv2", 'odd "name"\\'])))
    area_list = {"striped": "stripes", "mirror": "mirrors"}.get(kind, "parts")
    items += [("stripe_count", 1), (area_list, (pv, at))]
    if rng.random() < 0.1:
        items.append(("inside", Section((("key", 5), ("deep", Section((("deeper", "}\n}\n}\n\n"),)))))))
    return Section(tuple(items))


def lv_section(rng: random.Random, vg: Vg, id: str) -> Section:
    segments: list[Section] = []
    for _ in range(rng.choice([1, 1, 1, 2, 0])):
        start = sum(one.number("extent_count") or 0 for one in segments)
        segments.append(segment(rng, start + (rng.random() < 0.03), vg))
    items: list[tuple[str, Value | Section]] = [
        ("id", id),
        ("status", ("READ", "VISIBLE")),
        ("flags", ()),
        ("unknown", ("x", 3, 'y"\\')),
        ("segment_count", len(segments)),
    ]
    items += [(f"segment{number}", one) for number, one in enumerate(segments, 1)]
    return Section(tuple(items))


def changed(rng: random.Random, vg: Vg, number: int) -> Vg:
    names = [*vg.by_name]
    verb = rng.choices(["put", "edit", "drop", "rename", "header", "pvs"], [10, 2, 4, 2, 2, 0.5])[0]
    if verb == "put" or not names:
        twice = names and rng.random() < 0.05
        id = vg.by_name[rng.choice(names)].uuid if twice else uuid(1000 + number)
        return vg.with_lv(f"lv{number}", lv_section(rng, vg, id))
    name = rng.choice(names)
    match verb:
        case "edit":
            return vg.with_lv(name, lv_section(rng, vg, vg.by_name[name].uuid))
        case "drop":
            return vg.without_lv(name)
        case "rename":
            return vg.with_renamed(name, f"renamed{number}")
        case "pvs":
            pvs = vg.header.section("physical_volumes")
            assert pvs is not None
            pv = pvs.section("pv1")
            assert pv is not None
            return vg.with_header(
                vg.header.put("physical_volumes", pvs.put(f"pv{number}", pv.put("id", uuid(number))))
            )
    return plan.next_seqno(vg, vg.seqno + 1, MAKER)


def fault_of(vg: Vg) -> str:
    try:
        check_vg(vg)
    except Damaged as error:
        return error.message
    return ""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_changes_one_at_a_time_give_what_reading_it_all_gives(seed: int) -> None:
    rng = random.Random(seed)
    vg = new_vg()
    for number in range(12):
        before, vg = vg, changed(rng, vg, number)
        text = vg.text
        whole = read_vg(parse_text(text, "whole"), "whole")
        assert vg.tree == whole.tree
        assert (vg.lvs, vg.pvs, vg.seqno) == (whole.lvs, whole.pvs, whole.seqno)
        assert vg.index == Index.of(whole.pvs, whole.lvs)
        assert fault_of(vg) == fault_of(whole)
        for like in (None, before):
            again = read_text_like(text.rstrip(b"\0"), "again", like)
            assert (again.tree, again.lvs, again.index) == (whole.tree, whole.lvs, whole.index)
            assert again.text == text


def plain_vg(lvs: int) -> Vg:
    vg = new_vg()
    for number in range(lvs):
        vg = plan.create_lv(vg, f"lv{number}", uuid(1000 + number), 2, MAKER)
    return vg


def test_a_plain_text_is_cut_into_its_lvs_and_what_is_unchanged_is_not_read_again() -> None:
    vg = plain_vg(5)
    pieces = cut(vg.text.rstrip(b"\0"))
    assert pieces is not None
    assert pieces.fragments == [lv.text for lv in vg.lvs]
    more = plan.next_seqno(plan.create_lv(vg, "new", uuid(5), 1, MAKER), 2, MAKER)
    again = read_text_like(more.text.rstrip(b"\0"), "x", vg)
    assert again == more
    assert all(one is other for one, other in zip(again.lvs, vg.lvs, strict=False))


def outcome(reading: Callable[[], Vg]) -> Vg | str:
    try:
        return reading()
    except Damaged as error:
        return error.message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('creation_host = "host1"\n', 'creation_host = "a\nlogical_volumes {\nb"\n'),
        ("seqno = 1\n", 'seqno = 1\nodd { logical_volumes { } }\nlogical_volumes {\n}\n'),
        ("seqno = 1\n", 'seqno = 1 # "\n'),
        ("seqno = 1\n", "seqno = 1\nnest {\nlogical_volumes {\n\nx {\na {\n}\n}\n}\n\n}\n"),
        ('\nlv2 {\n', '\nlv1 {\n'),
        ('\nlv2 {\n', '\n"odd name" {\n'),
        ('segment_count = 1\n', 'segment_count = 1\nmore = "\n}\n}\n\nlv9 {"\n'),
        ('segment_count = 1\n', 'segment_count = 1\n# }\n}\n'),
        ('\nlv1 {\n', '\nscalar = 1\nlv1 {\n'),
        ('\nlv1 {\n', '\nempty {\n}\n\nlv1 {\n'),
        ('}\n}\n}\n\n}\n', '}\n}\n}\n\nhistorical_logical_volumes {\n\nold {\nid = "x"\n}\n}\n}\n'),
        ('}\n}\n}\n\n}\n', '}\n}\n}\n\n}\n\nlv9 {\nsegment1 {\n}\n}\n}\n\n}\n'),
        ('\nlv1 {\n', '\n}\n'),
    ],
)  # fmt: skip
def test_an_odd_text_means_what_the_whole_of_it_says(old: str, new: str) -> None:
    text = plain_vg(3).text.rstrip(b"\0")
    assert old.encode() in text
    odd = text.replace(old.encode(), new.encode(), 1)
    whole = outcome(lambda: read_vg(parse_text(odd, "odd"), "odd"))
    read = outcome(lambda: read_text_like(odd, "odd", plain_vg(3)))
    if isinstance(whole, str) or isinstance(read, str):
        assert read == whole
        return
    assert (read.tree, read.lvs, read.repeated) == (whole.tree, whole.lvs, whole.repeated)
    assert parse_text(print_text(read.tree), "again") == read.tree
