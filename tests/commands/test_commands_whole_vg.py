"""A whole VG activated and deactivated at once: each LV as if it were alone."""

from typing import Any

import pytest
from command_world import Node, World

from ringfence.core.errors import DeviceFailed, LockHeld, LocksLost, RingfenceError, Unavailable
from ringfence.core.modes import Mode
from ringfence.engine import orders
from ringfence.wire.client import LvChange, LvCreate, VgCreate

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def first(world: World) -> Node:
    node = world.node(1)
    node.run(VgCreate("vg0", tuple(world.images), shared=True))
    for name in NAMES:
        node.run(LvCreate("vg0", name, extents=1, activate="n"))
    return node


def open_on(node: Node) -> list[str]:
    return [lv for _, lv in node.open]


def locked_on(world: World, node: int) -> int:
    return len([mode for *_, mode in world.locks_of(node) if mode is Mode.EX])


def kinds(node: Node) -> list[str]:
    """What it has ordered; of what is staggered the parts."""
    names = []
    for order in node.trace:
        parts = [order.locks, order.paths] if isinstance(order, orders.Staggered) else [order]
        names += [type(part).__name__ for part in parts if getattr(part, "orders", ...)]
    return names


def refuse(*, opens: str = "", closes: str = "", whole: bool = False) -> Any:
    """The block service fails at one LV, or does not answer."""

    def fail(order: orders.Order) -> RingfenceError | None:
        if whole and isinstance(order, orders.PathsTogether):
            return Unavailable("no block service answers")
        if isinstance(order, orders.OpenPath) and order.lv == opens:
            return DeviceFailed("no such disk")
        if isinstance(order, orders.ClosePath) and order.lv == closes:
            return DeviceFailed("its worker does not end", retry=True)
        return None

    return fail


def test_all_go_together_under_one_lock_of_the_vg(world: World, first: Node) -> None:
    first.run(LvChange("vg0", "", "ey"))
    names = kinds(first)
    assert names.count("LocksTogether") == names.count("PathsTogether") == names.count("Release") == 1
    assert names[-1] == "Release", "the VG is let go of when all are open"
    assert [one.token for one in first.open.values()] == sorted({one.token for one in first.open.values()})
    before = dict(first.open)
    again = first.run(LvChange("vg0", "", "ey"))
    assert [lv["name"] for lv in again["lvs"]] == list(NAMES)
    assert first.open == before, "what is active stays as it is"
    assert "PathsTogether" not in kinds(first)
    assert len(first.run(LvChange("vg0", "", "n"))["lvs"]) == len(NAMES)
    assert (open_on(first), world.locks_of(1)) == ([], [])


def test_what_cannot_be_opened_is_not_locked(world: World, first: Node) -> None:
    first.fail = refuse(opens="b")
    with pytest.raises(DeviceFailed, match="no such disk"):
        first.run(LvChange("vg0", "", "ey"))
    assert open_on(first) == ["a", "c", "d"]
    assert locked_on(world, 1) == 3


def test_what_may_be_open_keeps_its_lock(world: World, first: Node) -> None:
    first.fail = refuse(opens="b", closes="b")
    with pytest.raises(DeviceFailed, match="no such disk"):
        first.run(LvChange("vg0", "", "ey"))
    assert locked_on(world, 1) == 4
    first.fail = refuse(closes="c")
    with pytest.raises(DeviceFailed, match="does not end"):
        first.run(LvChange("vg0", "", "n"))
    assert (open_on(first), locked_on(world, 1)) == (["c"], 1)


def test_without_a_block_service_nothing_changes_hands(world: World, first: Node) -> None:
    first.run(LvChange("vg0", "a", "ey"))
    first.fail = refuse(whole=True)
    for activate in ("ey", "n"):
        with pytest.raises(Unavailable, match=r"\(and \d more\)"):
            first.run(LvChange("vg0", "", activate))
    assert open_on(first) == ["a"]
    assert locked_on(world, 1) == 4, "nobody knows whether they are open"


def test_who_waits_does_not_keep_the_vg_meanwhile(world: World, first: Node) -> None:
    second = world.node(2)
    second.run(LvChange("vg0", "b", "ey"))
    with pytest.raises(LockHeld):
        first.run(LvChange("vg0", "", "ey", wait_ms=0))
    assert open_on(first) == ["a", "c", "d"]
    assert [one for one in first.trace if isinstance(one, orders.Acquire)][1:] == [], "it is only tried for"
    with pytest.raises(RingfenceError, match="held EX by an-a01n02"):
        first.run(LvChange("vg0", "", "ey", wait_ms=100))
    waited = [one for one in first.trace if isinstance(one, orders.Acquire) and one.persistent]
    assert [one.wait_ms for one in waited] == [100]
    at = first.trace.index(waited[0])
    vg = [one for one in first.trace[:at] if isinstance(one, orders.Acquire) and one.resource == "VGLK"]
    assert len(vg) == kinds(first)[:at].count("Release"), "and not while the VG is locked"


def test_a_path_that_has_gone_is_opened_again(world: World, first: Node) -> None:
    first.run(LvChange("vg0", "", "ey"))
    del first.open["vg0", "b"]
    assert len(first.run(LvChange("vg0", "", "ey"))["lvs"]) == len(NAMES)
    assert sorted(open_on(first)) == list(NAMES)


def test_a_life_that_ends_meanwhile_takes_nothing_back(world: World, first: Node) -> None:
    def lost(order: orders.Order) -> RingfenceError | None:
        return LocksLost("stale") if isinstance(order, orders.OpenPath) and order.lv == "c" else None

    first.fail = lost
    with pytest.raises(LocksLost):
        first.run(LvChange("vg0", "", "ey"))
    assert "ClosePath" not in kinds(first)
    assert kinds(first)[-1] == "PathsTogether"
