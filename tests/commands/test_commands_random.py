"""Random VGs, written by us: stock LVM2 has nothing to say against them, and reads what we wrote."""

import random
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from command_world import MIB, World
from segment_samples import SAMPLES, Deal, striped
from stock_lvm import Stock

from ringfence.core.modes import Mode
from ringfence.engine.commands.commit import begin, commit, prepare
from ringfence.engine.commands.disks import read_disks
from ringfence.engine.commands.locking import lock_vg
from ringfence.engine.orders import Order
from ringfence.lvm2.text import Section, parse_text
from ringfence.volumes.model import Vg
from ringfence.wire.client import LvCreate, LvRemove, Lvs, Pvs, VgCreate, Vgs

VGS = 6
FIXED = ("unknown", "raid5, reshaping", "cache volume")
"""Samples that stock complains of, that fit one extent size, that it drops a key of (metadata_format)."""
EXTENT_BYTES = (4096, 65536, 1 << 20, 4 << 20)


def put(name: str, deal: Deal, tags: tuple[str, ...]) -> Generator[Order, Any, Vg]:
    """Write a VG with these LVs in it, as any command writes one."""
    locked = yield from lock_vg(name, Mode.EX)
    change = yield from begin(locked)
    body = change.vg.body
    items = [item for item in body.items if item[0] != "logical_volumes"]
    lvs = body.section("logical_volumes") or Section()
    at = next(at for at, (key, _) in enumerate(items) if key == "physical_volumes") + 1
    items.insert(at, ("logical_volumes", Section((*lvs.items, *deal.lvs.items()))))
    if deal.historical:
        items.insert(at + 1, ("historical_logical_volumes", Section(tuple(deal.historical.items()))))
    flags = next(at for at, (key, _) in enumerate(items) if key == "flags") + 1
    if tags:
        items.insert(flags, ("tags", tags))
    return (yield from commit(prepare(change, change.vg.with_body(Section(tuple(items))), "a random VG")))


def random_deal(rng: random.Random, vg: Vg) -> Deal:
    """Samples of some types, and LVs of any shape between them, in what is free."""
    deal = Deal(
        [max((end.start_extent for end in vg.index.free_ranges(pv.name)), default=0) for pv in vg.pvs]
    )
    kinds = rng.sample([name for name in SAMPLES if name not in FIXED], rng.randrange(6))
    for kind in kinds if len(vg.pvs) > 1 and vg.extent_bytes >= MIB else ():
        SAMPLES[kind](deal)
    for number in range(rng.randrange(12)):
        areas = rng.randint(1, len(vg.pvs))
        segments = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            each = rng.randint(1, 3)
            deal.take(1)  # or stock makes one segment of two that meet
            segments.append(striped(each * areas, *(deal.take(each, pv) for pv in range(areas))))
        name = rng.choice(("a.b", "a-b", "A+_", "x")) + str(number) + "y" * rng.choice((0, 5, 60))
        deal.lv(name, *segments, write=rng.random() < 0.8, flags=rng.choice(((), ("ACTIVATION_SKIP",))))
        if rng.random() < 0.3:
            deal.lvs[name] = tagged(deal.lvs[name], rng.choice((("t1",), ("a/b=c", "x&y", "#!:"))))
    return deal


def tagged(lv: Section, tags: tuple[str, ...]) -> Section:
    items = list(lv.items)
    items.insert(next(at for at, (key, _) in enumerate(items) if key == "flags") + 1, ("tags", tags))
    return Section(tuple(items))


def said(text: bytes, name: str) -> dict[str, object]:
    """What a text says of a VG: its members by name, for stock has an order of its own for LVs."""
    body = parse_text(text, name).section(name)
    assert body is not None
    flat: dict[str, object] = {}
    for key, node in body.items:
        if isinstance(node, Section):
            flat |= {f"{key}/{name}": one for name, one in node.items}
        else:
            flat[key] = node
    return flat


FIELDS = (
    (
        "vgs",
        Vgs(),
        "vg_name",
        "vg_name,vg_attr,vg_size,vg_free,lv_count,snap_count,pv_count,vg_seqno,vg_tags",
    ),
    ("pvs", Pvs(), "pv_uuid", "pv_uuid,vg_name,pv_attr,pv_size,pv_free,pv_used,pv_pe_count,dev_size"),
    ("lvs", Lvs(all=True), "lv_full_name", "lv_full_name,lv_size,lv_uuid,lv_tags,seg_count,origin,pool_lv"),
)


def judge(world: World, stock: Stock, written: dict[str, Vg]) -> None:
    stock.run("vgck", *written)
    stock.run("vgcfgbackup", "-f", f"{world.directory}/%s.vg", quiet=False)
    for name, vg in written.items():
        theirs, ours = said((world.directory / f"{name}.vg").read_bytes(), name), said(vg.text, name)
        for pv in (key for key in ours if key.startswith("physical_volumes/")):
            theirs[pv], ours[pv] = (side[pv].put("device", "") for side in (theirs, ours))  # type: ignore[attr-defined]
        assert theirs == ours
    node = world.node()
    for command, call, key, fields in FIELDS:
        mine = {row[key]: row for row in node.run(call)["rows"]}
        names = fields.split(",")
        rows = stock.report(command, *(["-a"] if command == "lvs" else []), "-o", ",".join(names))
        assert len(rows) == len(mine)
        for row in rows:
            for field in names:
                bare = row[field].replace("[", "").replace("]", "")
                assert bare == str(mine[row[key].replace("[", "").replace("]", "")][field]), (row, field)


def test_stock_reads_what_we_wrote(directory: Path, stock: Stock) -> None:
    seed = time.time_ns() // 1000
    print(f"seed {seed}")
    rng = random.Random(seed)
    pvs = [rng.randint(1, 3) for _ in range(VGS)]
    world = World(directory, [1024 * MIB] * sum(pvs))
    stock.attach(*world.images)
    node = world.node()
    images = iter(world.images)
    written: dict[str, Vg] = {}
    for number, count in enumerate(pvs):
        name = f"vg{number}"
        members = tuple(next(images) for _ in range(count))
        size, extent = rng.choice((0, 2 << 20, 5 << 20)), rng.choice(EXTENT_BYTES)
        node.run(VgCreate(name, members, shared=True, extent_size_bytes=extent, metadata_size_bytes=size))
        for lv in range(rng.randrange(4)):
            node.run(LvCreate(name, f"ours{lv}", extents=rng.randint(1, 3), activate="n"))
        if rng.random() < 0.5:
            node.run(LvCreate(name, "brief", extents=1, activate="n"))
            node.run(LvRemove(name, "brief"))
        (before,) = (one.vg for one in node.drive(read_disks()).vgs if one.vg.name == name)
        tags = rng.choice(((), ("a/b=c",), ("t", "u")))
        try:
            written[name] = node.drive(put(name, random_deal(rng, before), tags))
        except BaseException:
            print(f"{name}: {count} PVs, extents of {extent}")
            raise
    judge(world, stock, written)
