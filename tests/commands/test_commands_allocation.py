"""The same extents are chosen as by stock LVM2, and stock finds nothing wrong with any result.

Two VGs of the same shape: the one is changed by us, the other by stock, step by step."""

import random
from pathlib import Path
from typing import Any

import pytest
from command_world import MIB, World
from stock_lvm import Stock

from ringfence.core.errors import RingfenceError
from ringfence.core.units import parse_extents, parse_signed_extents
from ringfence.wire.client import LvChange, LvCreate, LvRemove, LvRename, LvResize, VgCreate, VgSet

SIZES = (24, 40, 16, 32)
"""MiB of data; extents of 1 MiB."""


class Twins:
    """One VG is ours and one is stock's; `step` does the same to both."""

    def __init__(self, directory: Path, stock: Stock) -> None:
        self.stock = stock
        self.world = World(directory, [(size + 1) * MIB for size in SIZES])
        self.others = []
        for index, size in enumerate(SIZES):
            path = directory / f"other{index}.img"
            path.touch()
            with path.open("r+b") as file:
                file.truncate((size + 1) * MIB)
            self.others.append(str(path))
        stock.attach(*self.world.images, *self.others)
        self.world.images, ours = self.world.images[: len(SIZES)], self.world.images
        self.node = self.world.node()
        self.node.storage = type(self.node.storage)(ours, self.node.guards.append)
        self.node.run(VgCreate("ours", tuple(ours), shared=True, extent_size_bytes=MIB))
        loops = [stock.loops[image] for image in self.others]
        stock.run("vgcreate", "-s", "1m", "stocks", *loops, lvmlockd=False)

    def loop(self, index: int) -> str:
        return self.stock.loops[self.others[index]]

    def ranges(self, vg: str) -> list[tuple[str, str, str, str]]:
        """Of each segment: its LV, stripes, stripe size and places, PVs by number."""
        rows = self.stock.report(
            "lvs", "--segments", "-o", "lv_name,stripes,stripe_size,seg_pe_ranges,seg_start_pe", vg
        )
        loops = [self.stock.loops[image] for image in (self.world.images if vg == "ours" else self.others)]
        found = []
        for row in rows:
            places = row["seg_pe_ranges"]
            for number, loop in enumerate(loops):
                places = places.replace(f"{loop}:", f"pv{number}:")
            found.append((row["lv_name"], row["stripes"], row["stripe_size"], places))
        return found

    def same(self) -> None:
        self.stock.run("vgck", "ours")
        assert self.ranges("ours") == self.ranges("stocks")

    def step(self, call: Any, *words: str) -> bool:
        """Returns whether both did it; it fails if only one of them did."""
        failed: str | None = None
        try:
            self.node.run(call)
        except RingfenceError as error:
            failed = str(error)
        code, _, noise = self.stock.try_run(*words, lvmlockd=False)
        if failed is not None and failed.startswith("Insufficient suitable") and getattr(call, "percent", ""):
            return False  # stock calls it a success to have found nothing; that nothing changed is looked at
        assert (code != 0) == (failed is not None), f"{call}: {failed}; stock: {words}: {noise}"
        return failed is None

    def create(self, name: str, size: str, *options: str, pvs: tuple[str, ...] = (), **fields: Any) -> bool:
        extents, percent = parse_extents(size)
        call = LvCreate(
            "ours", name, extents=extents, percent=percent, activate="n",
            pvs=tuple(self._named(pv, self.world.images) for pv in pvs), **fields,
        )  # fmt: skip
        named = [self._named(pv, [self.stock.loops[image] for image in self.others]) for pv in pvs]
        return self.step(
            call, "lvcreate", "-an", "-Zn", "-Wn", "-l", size, *options, "-n", name, "stocks", *named
        )

    def _named(self, word: str, devices: list[str]) -> str:
        number, colon, ranges = word.partition(":")
        return f"{devices[int(number)]}{colon}{ranges}"

    def remove(self, name: str) -> None:
        assert self.step(LvRemove("ours", name), "lvremove", "-y", f"stocks/{name}")

    def resize(self, name: str, size: str, *options: str, **fields: Any) -> bool:
        sign, extents, percent = parse_signed_extents(size)
        call = LvResize(
            "ours", name, extents=extents, percent=percent, sign=sign, force=True, **fields
        )
        return self.step(call, "lvresize", "-f", "-l", size, *options, f"stocks/{name}")


@pytest.fixture
def twins(directory: Path, stock: Stock) -> Twins:
    return Twins(directory, stock)


def test_simple_cases_lie_where_stock_puts_them(twins: Twins) -> None:
    assert twins.create("a", "10")
    assert twins.create("b", "20")  # the first PV has no room for it
    assert twins.create("c", "4")
    assert twins.create("two", "12", "-i", "2", stripes=2)
    assert twins.create("three", "7", "-i", "3", "-I", "16k", stripes=3, stripe_size_bytes=16 << 10)
    twins.same()
    twins.remove("b")
    assert twins.create("d", "30")  # in pieces
    assert twins.resize("a", "+5")
    assert twins.resize("two", "+3")  # rounded to whole stripes
    assert not twins.resize("three", "-2")  # less than a stripe of each
    assert twins.resize("three", "-4")
    twins.same()
    assert twins.create("rest", "100%FREE")
    twins.same()
    assert not twins.create("none", "1")


def test_pv_lists_and_policies(twins: Twins) -> None:
    assert twins.create("a", "6", pvs=("2", "0:10-"))
    assert twins.create("b", "6", pvs=("1:5-7:20-", "3"))
    assert not twins.create("c", "6", pvs=("1:0-3",))
    assert twins.create("d", "30", "--alloc", "cling", alloc="cling")
    assert not twins.create("e", "30", "--alloc", "contiguous", alloc="contiguous")
    assert twins.create("f", "5", "-C", "y", alloc="contiguous")
    assert not twins.resize("f", "+20")  # its own policy
    striped = ("-i", "2", "--alloc", "anywhere")
    assert twins.create("g", "8", *striped, pvs=("0:8-",), stripes=2, alloc="anywhere")
    assert twins.create("h", "50%PVS", pvs=("0", "2"))
    twins.same()
    assert twins.resize("f", "+20", "--alloc", "normal", alloc="normal")
    assert twins.resize("d", "+50%FREE")
    twins.same()


def test_a_sequence_lies_where_stock_puts_it(twins: Twins) -> None:
    play(twins, 1, 12)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 22))
def test_any_sequence_lies_where_stock_puts_it(twins: Twins, seed: int) -> None:
    play(twins, seed, 30)


def play(twins: Twins, seed: int, steps: int) -> None:
    rng = random.Random(seed)
    names: list[str] = []
    done = 0
    for number in range(steps):
        kind = rng.choice(["create", "create", "remove", "resize"]) if names else "create"
        if kind == "create":
            stripes = rng.choice([1, 1, 2, 3])
            policy = rng.choice(["inherit", "inherit", "cling", "contiguous", "anywhere", "normal"])
            counts = [f"{rng.randint(1, 20)}", f"{rng.randint(5, 100)}%FREE", f"{rng.randint(5, 40)}%VG"]
            size = rng.choice(counts)
            options = ["-i", str(stripes), "--alloc", policy]
            if twins.create(f"v{number}", size, *options, stripes=stripes, alloc=policy):
                names.append(f"v{number}")
                done += 1
        elif kind == "remove":
            twins.remove(names.pop(rng.randrange(len(names))))
        else:
            name = rng.choice(names)
            counts = [f"+{rng.randint(1, 12)}", f"-{rng.randint(1, 3)}", f"+{rng.randint(5, 50)}%FREE"]
            done += twins.resize(name, rng.choice(counts))
        assert twins.ranges("ours") == twins.ranges("stocks"), f"seed {seed}, step {number}: {kind}"
    twins.same()
    assert done > 5


def test_lvs_come_and_go_in_a_vg_whose_pvs_stay(twins: Twins) -> None:
    twins.node.run(VgSet("ours", resizeable=False))
    twins.stock.run("vgchange", "-xn", "stocks", lvmlockd=False)
    assert twins.create("a", "4")
    assert twins.resize("a", "+2")
    twins.same()
    twins.remove("a")


def test_what_an_lv_is_changes_as_stock_changes_it(twins: Twins) -> None:
    """Names, tags, access and policy; and what else stock says of the LVs."""
    assert twins.create("a", "4", "--addtag", "x", "--addtag", "y", "-pr", tags=("x", "y"), permission="r")
    assert twins.create("b", "4", "--alloc", "cling", alloc="cling")
    change = ("lvchange", "-y")
    assert twins.step(LvChange("ours", "a", permission="rw"), *change, "-prw", "stocks/a")
    assert twins.step(LvChange("ours", "b", permission="r"), *change, "-pr", "stocks/b")
    assert twins.step(LvChange("ours", "a", add_tags=("z",)), *change, "--addtag", "z", "stocks/a")
    assert twins.step(LvChange("ours", "a", drop_tags=("x",)), *change, "--deltag", "x", "stocks/a")
    assert twins.step(LvChange("ours", "a", alloc="anywhere"), *change, "--alloc", "anywhere", "stocks/a")
    assert twins.step(LvChange("ours", "b", alloc="inherit"), *change, "--alloc", "inherit", "stocks/b")
    assert not twins.step(LvChange("ours", "a", permission="rw"), *change, "-prw", "stocks/a")
    assert not twins.step(LvChange("ours", "b", permission="r"), *change, "-pr", "stocks/b")
    assert not twins.step(LvChange("ours", "a", alloc="anywhere"), *change, "--alloc", "anywhere", "stocks/a")
    assert not twins.step(LvChange("ours", "b", alloc="inherit"), *change, "--alloc", "inherit", "stocks/b")
    assert twins.step(LvChange("ours", "a", add_tags=("z",)), *change, "--addtag", "z", "stocks/a")
    both = LvChange("ours", "a", permission="rw", add_tags=("new",))
    told = twins.node.run(both)
    assert told["problems"] == ["Logical volume ours/a is already writable."]
    assert twins.stock.try_run(*change, "-prw", "--addtag", "new", "stocks/a", lvmlockd=False)[0] == 5
    assert twins.step(LvRename("ours", "b", "c"), "lvrename", "stocks", "b", "c")
    assert not twins.step(LvRename("ours", "c", "a"), "lvrename", "stocks", "c", "a")
    assert not twins.step(LvRename("ours", "c", "snapshot1"), "lvrename", "stocks", "c", "snapshot1")
    twins.same()
    fields = "lv_name,lv_tags,lv_permissions,lv_allocation_policy,lv_size,seg_count"
    report = twins.stock.report
    assert report("lvs", "-o", fields, "ours") == report("lvs", "-o", fields, "stocks")
