"""A VG that is changed an LV at a time is the one that reading all of its text would give."""

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ringfence.core.errors import Damaged
from ringfence.lvm2.checksum import crc32
from ringfence.lvm2.fragments import cut
from ringfence.lvm2.text import Section, Value, parse_member, parse_text, print_member, print_text
from ringfence.volumes import plan
from ringfence.volumes.checks import check_vg
from ringfence.volumes.deltas import delta_between, follow
from ringfence.volumes.index import Index
from ringfence.volumes.known import Known
from ringfence.volumes.model import Vg, read_lv, read_text_like, read_vg
from ringfence.volumes.plain import plain_lv
from ringfence.wire.entries import VgDelta

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
    pv, at = rng.choice(["pv0", "pv1", "lv1"]), rng.randrange(42)
    if place is not None:
        pv, at = place.pv, place.start_extent
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
    items += [("mirror_count" if kind == "mirror" else "stripe_count", 1), (area_list, (pv, at))]
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
    verb = rng.choices(["put", "edit", "drop", "rename", "header", "pvs"], [10, 2, 4, 2, 2, 2])[0]
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
            key, pv = rng.choice(pvs.sections())
            match rng.randrange(3):
                case 0:
                    pvs = pvs.put(rng.choice([f"pv{number}", "lv1", "lv2"]), pv.put("id", uuid(number)))
                case 1:
                    pvs = pvs.put(key, pv.put("pe_count", rng.randrange(20, 60)))
                case _ if len(pvs.sections()) > 1:
                    pvs = pvs.drop(key)
            return vg.with_header(vg.header.put("physical_volumes", pvs))
    return plan.next_seqno(vg, vg.seqno + 1, MAKER)


def fault_of(vg: Vg) -> str:
    try:
        check_vg(vg)
    except Damaged as error:
        return error.message
    return ""


@settings(max_examples=60)
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
        assert [*vg.index.composed] == [*whole.index.composed]
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


def known_as(vg: Vg) -> Known:
    text = vg.text
    return Known(vg, crc32(text), len(text))


@settings(max_examples=60)
@given(st.integers(0, 1 << 32))
def test_who_follows_a_delta_has_what_was_written(seed: int) -> None:
    rng = random.Random(seed)
    vg = new_vg()
    for number in range(10):
        before, after = vg, changed(rng, vg, 2 * number)
        if rng.random() < 0.3:
            after = changed(rng, after, 2 * number + 1)
        told = delta_between(known_as(before), known_as(after))
        assert told is not None
        told = msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=VgDelta)
        view = follow(known_as(before), told, after.seqno, known_as(after).crc)
        if {pv.name for pv in after.pvs} != {pv.name for pv in before.pvs}:
            assert view is None, "who is a PV is another question then"
        else:
            assert view == known_as(after)
            assert (view.vg.index, view.vg.tree) == (after.index, after.tree)
        vg = after


def test_a_delta_that_does_not_fit_is_not_followed() -> None:
    vg = plain_vg(3)
    one = plan.next_seqno(plan.create_lv(vg, "new", uuid(5), 1, MAKER), 2, MAKER)
    told = delta_between(known_as(vg), known_as(one))
    assert told is not None
    (splice,) = told.splices
    crc = known_as(one).crc
    assert follow(known_as(vg), told, 2, crc) == known_as(one)
    other = plan.next_seqno(vg.with_renamed("lv1", "lv9"), 2, MAKER)
    assert follow(known_as(other), told, 2, crc) is None
    assert follow(known_as(vg), told, 2, crc ^ 1) is None
    assert follow(known_as(vg), told, 3, crc) is None
    for text in (splice.lvs[0][:-3], b"", b'\nx = "', splice.lvs[0] * 2, vg.lvs[0].text):
        wrong = replace(told, splices=(replace(splice, lvs=(text,)),))
        assert follow(known_as(vg), wrong, 2, crc) is None
    for wrong in (replace(told, head=told.head + b'x = "\n'), replace(told, tail=told.tail[2:])):
        assert follow(known_as(vg), wrong, 2, crc) is None


def test_a_change_of_many_lvs_is_not_told() -> None:
    vg = plain_vg(30)
    assert delta_between(known_as(new_vg()), known_as(vg)) is None


WORDS = st.lists(st.sampled_from(["READ", "VISIBLE", 'a", "b', "x", "\\", "ü", ""]), max_size=3).map(tuple)


@settings(max_examples=200)
@given(
    WORDS, WORDS, WORDS | st.none(), WORDS, st.integers(-1, 1 << 65), st.sampled_from(["pv0", "pv1", "lv"]),
    st.permutations(range(5)), st.booleans(),
)  # fmt: skip
def test_a_plain_lv_is_read_as_the_parser_reads_it(
    status: tuple[str, ...], flags: tuple[str, ...], tags: tuple[str, ...] | None, host: tuple[str, ...],
    number: int, pv: str, order: list[int], swap: bool,
) -> None:  # fmt: skip
    keys: list[tuple[str, Value | Section]] = [("id", uuid(1)), ("status", status), ("flags", flags)]
    if tags is not None:
        keys.append(("tags", tags))
    more: list[tuple[str, Value | Section]] = [
        ("creation_time", max(number, 0)), ("creation_host", "".join(host)), ("lock_args", "dlm"),
        ("allocation_policy", "cling"), ("segment_count", 1),
    ]  # fmt: skip
    keys += [more[at] for at in order] if swap else more[:2] + more[3:1:-1] + more[4:]
    segment = Section((
        ("start_extent", 0), ("extent_count", max(number, 0)), ("type", "striped"), ("stripe_count", 1),
        ("stripes", (pv, number)),
    ))  # fmt: skip
    text = print_member("lv1", Section((*keys, ("segment1", segment))))
    plain = plain_lv(text, frozenset({"pv0", "pv1"}))
    try:
        parsed = read_lv("lv1", parse_member(text, "x")[1], "vg", frozenset({"pv0", "pv1"}), text)
    except Damaged:
        assert plain is None
        return
    odd = {"\\", "ü", 'a", "b'} & {*status, *flags, *(tags or ()), *host}
    if not swap and not odd and pv != "lv" and 0 <= number < 1 << 59:
        assert plain is not None
    assert plain in (None, parsed)


def test_the_comments_that_lvm2_writes_do_not_keep_a_text_from_being_cut() -> None:
    """Behind creation_host and creation_time of every text that stock commits."""
    text = plan.create_lv(new_vg(), "lv1", uuid(50), 2, MAKER).text.rstrip(b"\0")
    for key in (b"creation_host = ", b"creation_time = "):
        at = text.index(b"\n", text.rindex(key))
        text = text[:at] + b'\t# Linux "vm" { #1 } SMP' + text[at:]
    pieces = cut(text)
    assert pieces is not None
    assert len(pieces.fragments) == 1
    assert b"".join((pieces.head, *pieces.fragments, pieces.tail)) == text
