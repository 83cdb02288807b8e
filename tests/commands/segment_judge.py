"""What stock LVM2 says of a VG with each segment type, before and after we changed something else in it.

    .venv/bin/python tests/commands/segment_judge.py

prints the table of docs/formats/lvm2.md (needs root and loop devices; half a minute)."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from command_world import MIB, Node, World
from segment_samples import SAMPLES, Deal
from stock_lvm import Stock, StockFailed

from ringfence.lvm2.text import Section, parse_text, print_text
from ringfence.wire.client import LvCreate, LvRemove, Lvs, VgCreate

FIELDS = ("lv_name", "lv_attr", "segtype", "lv_size", "pool_lv", "origin", "devices")


class Verdict(msgspec.Struct, frozen=True):
    restored: str
    """What vgcfgrestore complained of; empty: nothing."""
    checked: str
    """vgck, after our changes."""
    before: list[dict[str, Any]]
    """Stock's rows, hidden LVs too."""
    after: list[dict[str, Any]]
    ours: list[dict[str, Any]]
    same: bool
    """Stock's dump of the VG is the same text but for what we added and signed."""

    @property
    def rows_agree(self) -> list[str]:
        """Rows of which stock and we disagree, as `field: theirs / ours`."""
        mine = {row["lv_name"]: row for row in self.ours}
        found = [
            f"{row['lv_name']} {field}: {row[field]!r} / {said!r}"
            for row in self.before
            for field in FIELDS
            if (said := str(mine.get(row["lv_name"].strip("[]"), {}).get(field))) != row[field].strip("[]")
        ]
        theirs = {row["lv_name"].strip("[]") for row in self.before}
        return found + [f"{name} is ours alone" for name in mine if name not in theirs and name != "added"]


def judge(world: World, stock: Stock, *names: str) -> Verdict:
    """Put samples on the disks, change something else, and let stock look."""
    stock.attach(*world.images)
    node = world.node()
    node.run(VgCreate("vg0", tuple(world.images), shared=True, extent_size_bytes=MIB))
    restored = restore(world, stock, *names)
    before = rows(stock)
    old = dump(world, stock)
    node.run(LvCreate("vg0", "added", extents=1, activate="n"))
    node.run(LvCreate("vg0", "gone", extents=2, activate="n"))
    node.run(LvRemove("vg0", "gone"))
    after = rows(stock)
    _, _, complaints = stock.try_run("vgck", "vg0")
    ours = theirs_of(stock, node)
    node.run(LvRemove("vg0", "added"))
    return Verdict(
        restored, " / ".join(complaints), before, [row for row in after if row["lv_name"] != "added"], ours,
        without_signature(old) == without_signature(dump(world, stock)),
    )  # fmt: skip


def restore(world: World, stock: Stock, *names: str) -> str:
    """`vgcfgrestore` the VG with samples in it; what stock complained of."""
    deal = Deal()
    for name in names:
        SAMPLES[name](deal)
    tree = parse_text(dump(world, stock).encode(), "backup")
    body = tree.section("vg0")
    assert body is not None
    items = list(body.items)
    at = next(at for at, (key, _) in enumerate(items) if key == "physical_volumes") + 1
    items.insert(at, ("logical_volumes", Section(tuple(deal.lvs.items()))))
    if deal.historical:
        items.insert(at + 1, ("historical_logical_volumes", Section(tuple(deal.historical.items()))))
    file = world.directory / "wanted.vg"
    file.write_bytes(print_text(tree.put("vg0", Section(tuple(items)))).rstrip(b"\0"))
    code, _, complaints = stock.try_run("vgcfgrestore", "--force", "-f", str(file), "vg0")
    known = (
        "Forced restore",
        "dangerous",
        "device-mapper",
        "/dev/mapper/control",
        "libdevmapper",
        "active volumes",
    )
    complaints = [line for line in complaints if not any(word in line for word in known)]
    if code:
        raise StockFailed(complaints)
    return " / ".join(complaints)


def rows(stock: Stock) -> list[dict[str, Any]]:
    fields = ",".join(FIELDS)
    found: dict[str, dict[str, Any]] = {}
    for row in stock.report("lvs", "-a", "-o", fields, "vg0", quiet=False):
        one = found.setdefault(row["lv_name"], row)
        if one is not row:  # a row for each segment, where there are columns of segments
            one["devices"] = ",".join(filter(None, (one["devices"], row["devices"])))
            if row["segtype"] not in one["segtype"].split(","):
                one["segtype"] += "," + row["segtype"]
    return list(found.values())


def theirs_of(stock: Stock, node: Node) -> list[dict[str, Any]]:
    """Our rows, with loop devices for images and stock's `unknown` for what is active."""
    result = []
    for row in node.run(Lvs("vg0", all=True))["rows"]:
        for image, loop in stock.loops.items():
            row["devices"] = row["devices"].replace(image, loop)
        attr = row["lv_attr"]
        row["lv_attr"] = f"{attr[:4]}XX{attr[6:]}"
        result.append(row)
    return result


def dump(world: World, stock: Stock) -> str:
    file = world.directory / "dump.vg"
    file.unlink(missing_ok=True)
    stock.run("vgcfgbackup", "-f", str(file), "vg0", quiet=False)
    return file.read_text()


def without_signature(text: str) -> list[str]:
    """Without what every change signs anew."""
    signed = ("seqno", "creation_time = ", "creation_host", "description", "# Generated")
    _, _, body = text.partition("\nvg0 {")
    return [line for line in body.splitlines() if not line.startswith(("\tseqno", *signed))]


def main() -> int:
    print("| sample | types | restored | `lvs -a`, `vgck` after our changes | everything else |")
    print("|---|---|---|---|---|")
    wrong = 0
    for name in SAMPLES:
        directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
        stock = Stock(directory)
        try:
            verdict = judge(World(directory, (160 * MIB, 160 * MIB)), stock, name)
        except StockFailed as error:
            print(f"| {name} | | refused: {error} | | |", flush=True)
            wrong += 1
            continue
        finally:
            stock.close()
            shutil.rmtree(directory)
        kinds = ", ".join(dict.fromkeys(row["segtype"] for row in verdict.before))
        differing = verdict.rows_agree
        same = "the same text" if verdict.same else "DIFFERS"
        said = verdict.checked or "no complaint"
        agreed = "; ".join(differing) or said
        wrong += not verdict.same or bool(differing) or verdict.before != verdict.after
        print(f"| {name} | {kinds} | {verdict.restored or 'yes'} | {agreed} | {same} |", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
