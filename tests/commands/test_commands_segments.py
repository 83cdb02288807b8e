"""Every segment type of LVM2 2.03, restored by stock, read by us, handed back unchanged."""

from pathlib import Path

import pytest
from command_world import MIB, World
from segment_judge import judge, restore
from segment_samples import SAMPLES
from stock_lvm import Stock
from test_commands_stock import committed_text, without_comments

from ringfence.core.errors import Refused
from ringfence.engine.commands import zeroing
from ringfence.lvm2.fragments import cut
from ringfence.lvm2.text import parse_text, print_text
from ringfence.volumes.segments import PARITY
from ringfence.wire.client import LvCreate, LvRemove, Lvs, VgCreate


@pytest.fixture
def world(directory: Path) -> World:
    return World(directory, (400 * MIB, 400 * MIB))


def test_stock_and_we_say_the_same_of_every_type_and_hand_it_back(world: World, stock: Stock) -> None:
    verdict = judge(world, stock, *SAMPLES)
    assert verdict.restored == verdict.checked == "WARNING: Unrecognised segment type of_tomorrow"
    assert verdict.rows_agree == []
    assert verdict.same
    assert verdict.before == verdict.after
    kinds = {kind for row in verdict.before for kind in row["segtype"].split(",")}
    rest = {"cache", "cache-pool", "error", "integrity", "linear", "mirror", "of_tomorrow", "striped", "thin"}
    rest |= {"thin-pool", "vdo", "vdo-pool", "writecache", "zero"}
    assert kinds == rest | set(PARITY) - {"raid10_near"}
    assert len(verdict.before) > 150


def test_what_is_no_plain_lv_is_left_to_stock(
    world: World, stock: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is part of something, or made of something, is removed; nor shown where stock hides it."""
    stock.attach(*world.images)
    node = world.node()
    node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    restore(world, stock, *SAMPLES)
    text = committed_text(world.images[0])
    stocks = cut(text.rstrip(b"\0"))
    # What it passes through unread (settings of policies, unknown types) LVM2 prints without blanks.
    said, printed = (
        [line.replace(" = ", "=").replace(", ", ",").strip() for line in without_comments(one.decode())]
        for one in (text, print_text(parse_text(text, "stock")))
    )
    assert said == printed
    node.run(LvCreate("vg0", "added", extents=1, activate="n"))
    ours = committed_text(world.images[0])
    assert stocks is not None
    assert len(stocks.fragments) > 150
    assert all(fragment in ours for fragment in stocks.fragments), "not byte for byte as stock wrote it"
    node.run(LvRemove("vg0", "added"))
    shown = [row["lv_name"] for row in node.run(Lvs("vg0"))["rows"]]
    assert sorted(shown) == sorted(row["lv_name"] for row in stock.report("lvs", "vg0", quiet=False))
    plain, nexts = [], []
    for row in node.run(Lvs("vg0", all=True))["rows"]:
        try:
            node.run(LvRemove("vg0", row["lv_name"], force=True))
        except Refused as error:
            nexts.append(error.next)
        else:
            plain.append(row["lv_name"])
    assert sorted(plain) == ["lin", "lin_ro", "lin_skip", "str"]
    assert all("stock LVM2" in next for next in nexts)
    # Nor by that way on which what is removed is wiped afterwards.
    monkeypatch.setattr(zeroing, "AT_ONCE_BYTES", 0)
    for row in node.run(Lvs("vg0", all=True))["rows"]:
        with pytest.raises(Refused):
            node.run(LvRemove("vg0", row["lv_name"], force=True))
    stock.try_run("vgck", "vg0")
    left = [row["lv_name"].strip("[]") for row in stock.report("lvs", "-a", "vg0", quiet=False)]
    assert len(left) == len(nexts)
