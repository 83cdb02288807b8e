"""pvmove as a plan: where each extent goes, and what each step of the way says."""

import random

import pytest
from test_volumes_plans import MAKER, edited, new_vg, pieces, uuid, with_lv

from ringfence.core.errors import BadInput, Refused
from ringfence.lvm2.text import parse_text, print_text
from ringfence.volumes import plan
from ringfence.volumes.alter import put_behind
from ringfence.volumes.checks import check_vg
from ringfence.volumes.layout import Space
from ringfence.volumes.model import Lv, Stripe, Vg, read_vg
from ringfence.volumes.move_plan import Wanted, plan_moves, reserve
from ringfence.volumes.moves import (
    given_up,
    keepers,
    kept,
    left_to_move,
    let_go,
    moved,
    next_move,
)
from ringfence.volumes.parts import MOVING_TAG, SLOTS_TAG
from ringfence.volumes.pv_list import runs_named
from ringfence.volumes.resize import reduce_lv
from ringfence.volumes.sizes import Stripes
from ringfence.volumes.unclean import mark_wiping, unclean_uuids

MANY = 1 << 20


def striped(vg: Vg, name: str, extents: int, stripes: int = 2) -> Vg:
    space = Space(stripes=Stripes(stripes, 128))
    return plan.create_lv(vg, name, uuid(300 + len(vg.lvs)), extents, MAKER, space)


def all_of(vg: Vg, pv: str, **options: object) -> Wanted:
    (size,) = [one.extent_count for one in vg.pvs if one.name == pv]
    return Wanted((Stripe(pv, 0, size),), **options)  # type: ignore[arg-type]


def reserved(vg: Vg, wanted: Wanted) -> Vg:
    planned = plan_moves(vg, wanted, 100)
    new = reserve(vg, planned, [uuid(500 + number) for number, _ in enumerate(planned.moves)], MAKER)
    check_vg(new)
    return new


def the_keeper(vg: Vg) -> Lv:
    (keeper,) = keepers(vg)
    return keeper


def step(vg: Vg, most: int = MANY, *, in_use: bool = False) -> Vg:
    keeper = the_keeper(vg)
    move = next_move(vg, keeper, most)
    assert move is not None
    new = moved(vg, keeper, move, in_use=in_use)
    check_vg(new)
    assert read_vg(parse_text(print_text(new.tree), "again"), "again").lvs == new.lvs
    return new


# -- a linear one ----------------------------------------------------------------------


def test_an_lv_goes_in_steps_and_ends_in_one_piece() -> None:
    vg = reserved(with_lv(new_vg(10, 10), "vm1", 6), all_of(new_vg(10, 10), "pv0"))
    keeper = the_keeper(vg)
    assert (keeper.name, keeper.keeps_for) == ("vm1_moving", vg.by_name["vm1"].uuid)
    assert keeper.tags == (f"{MOVING_TAG}{keeper.keeps_for}",)
    assert pieces(vg, "vm1") == [("pv0", 0, 6)]
    assert pieces(vg, "vm1_moving") == [("pv1", 0, 6)]
    assert (unclean_uuids(vg), left_to_move(vg, keeper)) == ((keeper.uuid,), 6)
    vg = step(vg, 4)
    assert pieces(vg, "vm1") == [("pv1", 0, 4), ("pv0", 4, 2)]
    assert pieces(vg, "vm1_moving") == [("pv1", 4, 2)]
    assert left_to_move(vg, the_keeper(vg)) == 2
    vg = step(vg, 4)
    assert pieces(vg, "vm1") == [("pv1", 0, 6)]
    assert keepers(vg) == ()
    assert vg.index.free_extents("pv0") == 10


def test_what_a_path_may_still_use_is_nobodys_until_it_is_let_go() -> None:
    vg = reserved(with_lv(new_vg(10, 10), "vm1", 6), all_of(new_vg(10, 10), "pv0"))
    vg = step(vg, 4, in_use=True)
    assert kept(vg, the_keeper(vg)).left == (Stripe("pv0", 0, 4),)
    vg = step(vg, 4, in_use=True)
    assert pieces(vg, "vm1_moving") == [("pv0", 0, 6)]
    assert next_move(vg, the_keeper(vg), MANY) is None
    vg = let_go(vg, the_keeper(vg))
    assert (keepers(vg), pieces(vg, "vm1")) == ((), [("pv1", 0, 6)])


def test_an_lv_that_is_given_up_stays_where_it_is_by_then() -> None:
    vg = step(reserved(with_lv(new_vg(10, 10), "vm1", 6), all_of(new_vg(10, 10), "pv0")), 2)
    vg = given_up(vg, the_keeper(vg))
    assert pieces(vg, "vm1") == [("pv1", 0, 2), ("pv0", 2, 4)]
    assert vg.index.free_extents("pv1") == 8


def test_only_the_extents_that_are_named_go() -> None:
    vg = with_lv(new_vg(10, 10), "vm1", 8)
    runs = runs_named(vg, "/dev/d0:2-3:6-", {"/dev/d0": "pv0"})
    vg = reserved(vg, Wanted(runs))
    while keepers(vg):
        vg = step(vg)
    assert pieces(vg, "vm1") == [("pv0", 0, 2), ("pv1", 0, 2), ("pv0", 4, 2), ("pv1", 2, 2)]


def test_to_other_places_of_the_same_pv_only_where_anything_goes() -> None:
    vg = with_lv(new_vg(10), "vm1", 4)
    with pytest.raises(Refused, match=r"0 extents elsewhere\): 4 required"):
        plan_moves(vg, all_of(vg, "pv0"), 100)
    vg = reserved(vg, all_of(vg, "pv0", policy="anywhere"))
    assert pieces(step(vg), "vm1") == [("pv0", 4, 4)]


def test_what_is_on_its_way_is_not_planned_twice() -> None:
    vg = with_lv(new_vg(10, 10), "vm1", 6)
    vg = reserved(vg, Wanted((Stripe("pv0", 0, 2),)))
    vg = step(vg, 1, in_use=True)
    more = reserved(vg, all_of(vg, "pv0"))
    assert kept(more, the_keeper(more)).left == (Stripe("pv0", 0, 1),)
    assert left_to_move(more, the_keeper(more)) == 5
    assert plan_moves(more, all_of(more, "pv0"), 100).moves == ()


def test_several_lvs_and_one_alone() -> None:
    vg = with_lv(with_lv(new_vg(10, 10), "vm1", 3), "vm2", 4)
    assert [lv.name for lv, _ in plan_moves(vg, all_of(vg, "pv0"), 100).moves] == ["vm1", "vm2"]
    assert plan_moves(vg, all_of(vg, "pv0"), 1).extents == 3
    (only,) = plan_moves(vg, all_of(vg, "pv0", lv="vm2"), 100).moves
    assert only[0].name == "vm2"
    assert only[1][0].target == Stripe("pv1", 0, 4)


# -- striped ones ------------------------------------------------------------------------


def test_one_stripe_goes_and_never_to_the_pv_of_the_other() -> None:
    vg = striped(new_vg(10, 10, 5), "vm1", 8)
    with pytest.raises(Refused, match="nsufficient"):
        plan_moves(striped(new_vg(10, 10), "vm1", 8), all_of(vg, "pv0"), 100)
    vg = reserved(vg, all_of(vg, "pv0"))
    vg = step(vg, 3)
    assert pieces(vg, "vm1") == [("pv2", 0, 3), ("pv1", 0, 3), ("pv0", 3, 1), ("pv1", 3, 1)]
    assert [one.stripe_sectors for one in vg.by_name["vm1"].segments] == [128, 128]
    assert pieces(step(vg), "vm1") == [("pv2", 0, 4), ("pv1", 0, 4)]


# -- what is left alone ----------------------------------------------------------------------


def test_what_is_neither_linear_nor_striped_stays_and_is_named() -> None:
    vg = with_lv(with_lv(new_vg(10, 10), "vm1", 3), "pool", 4)
    areas = 'stripe_count = 1\n\nstripes = [\n"pv0", 3\n'
    vg = edited(vg, f'type = "striped"\n{areas}', f'type = "strange"\n{areas}')
    planned = plan_moves(vg, all_of(vg, "pv0"), 100)
    assert [lv.name for lv, _ in planned.moves] == ["vm1"]
    (stays,) = planned.stays
    assert "pool is neither linear nor striped" in str(stays)
    assert "lvm pvmove -n pool" in str(stays)


def test_a_pvmove_of_stock_lvm2_is_not_touched() -> None:
    vg = with_lv(with_lv(new_vg(10, 10), "vm1", 3), "move", 4)
    section = vg.section_of("move").put("status", ("READ", "PVMOVE", "LOCKED"))
    vg = vg.with_lv("move", section)
    with pytest.raises(Refused, match="pvmove of stock LVM2 is under way"):
        plan_moves(vg, all_of(vg, "pv0"), 100)


def test_who_keeps_extents_is_no_lv_to_be_used() -> None:
    vg = reserved(with_lv(new_vg(10, 10), "vm1", 6), all_of(new_vg(10, 10), "pv0"))
    with pytest.raises(Refused, match="keeps extents for vg0/vm1, which is being moved"):
        plan.check_plain(vg, the_keeper(vg))
    plan.check_plain(vg, vg.by_name["vm1"])


def test_ranges_that_no_pv_has() -> None:
    vg = with_lv(new_vg(10, 10), "vm1", 6)
    for word in ("/dev/d7", "/dev/d0:10-", "/dev/d0:x", "/dev/d0:1-3:2"):
        with pytest.raises(BadInput):
            runs_named(vg, word, {"/dev/d0": "pv0", "/dev/d1": "pv1"})


def test_the_disk_slots_stay() -> None:
    vg = with_lv(with_lv(new_vg(10, 10), "ringfence_slots", 1), "vm1", 3)
    section = put_behind(vg.section_of("ringfence_slots"), "tags", (SLOTS_TAG,), ("flags",))
    planned = plan_moves(vg.with_lv("ringfence_slots", section), all_of(vg, "pv0"), 100)
    assert [lv.name for lv, _ in planned.moves] == ["vm1"]
    assert "holds the disk slots of the VG" in str(planned.stays[0])


def test_what_is_being_wiped_is_not_moved() -> None:
    vg = reserved(with_lv(new_vg(10, 10), "vm1", 6), all_of(new_vg(10, 10), "pv0"))
    vg = mark_wiping(vg, "vm1")
    assert next_move(vg, the_keeper(vg), MANY) is None
    assert left_to_move(vg, the_keeper(vg)) == 0
    assert [str(why) for why in plan_moves(vg, all_of(vg, "pv0"), 100).stays] != []


# -- anything --------------------------------------------------------------------------------


def contents(vg: Vg, disk: dict[tuple[str, int], str], name: str) -> list[str]:
    """An LV's extents in its order, row by row."""
    found = []
    for segment in vg.by_name[name].segments:
        for row in range(segment.stripes[0].extent_count):
            found += [disk[one.pv, one.start_extent + row] for one in segment.stripes]
    return found


@pytest.mark.parametrize("seed", range(60))
def test_no_extent_is_lost_whatever_is_moved(seed: int) -> None:
    """Each extent has a value; a step copies it first.  In between LVs shrink, and moves are given up."""
    rng = random.Random(seed)
    vg = new_vg(*(rng.randint(8, 24) for _ in range(rng.randint(2, 4))))
    for number in range(rng.randint(1, 5)):
        try:
            vg = striped(vg, f"s{number}", 2 * rng.randint(1, 4)) if rng.random() < 0.4 else with_lv(
                vg, f"l{number}", rng.randint(1, 7))  # fmt: skip
        except Refused:
            continue
    disk = {(pv.name, at): f"{pv.name}:{at}" for pv in vg.pvs for at in range(pv.extent_count)}
    for turn in range(4):
        pv = rng.choice(vg.pvs)
        first = rng.randrange(pv.extent_count)
        whole = rng.random() < 0.5
        run = Stripe(pv.name, 0, pv.extent_count) if whole else Stripe(
            pv.name, first, rng.randint(1, pv.extent_count - first))  # fmt: skip
        wanted = Wanted((run,), policy=rng.choice(("inherit", "anywhere", "contiguous")))
        try:
            planned = plan_moves(vg, wanted, rng.randint(1, 5))
        except Refused:
            continue
        vg = reserve(
            vg, planned, [uuid(500 + 10 * turn + number) for number in range(len(planned.moves))], MAKER
        )
        check_vg(vg)
        while keepers(vg):
            keeper = rng.choice(keepers(vg))
            name = next((lv.name for lv in vg.lvs if lv.uuid == keeper.keeps_for), "")
            before = contents(vg, disk, name) if name else []
            dice = rng.random()
            move = next_move(vg, keeper, rng.randint(1, 4))
            if move is None or dice < 0.05:
                vg = given_up(vg, keeper)
            elif dice < 0.1 and vg.by_name[name].extent_count > 2:
                before = before[:2]
                vg = reduce_lv(vg, name, 2)
            elif dice < 0.3:
                vg = let_go(vg, keeper)
            else:
                for at in range(move.source.extent_count):
                    value = disk[move.source.pv, move.source.start_extent + at]
                    disk[move.target.pv, move.target.start_extent + at] = value
                vg = moved(vg, keeper, move, in_use=rng.random() < 0.5)
                if not vg.lvs:
                    break
            check_vg(vg)
            assert not name or contents(vg, disk, name) == before
            vg = read_vg(parse_text(print_text(vg.tree), "again"), "again")
