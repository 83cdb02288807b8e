"""vgcfgbackup, vgcfgrestore and the archive: what was can be had again, and nobody is run over by it."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_world import MIB, Crash, Node, World
from stock_lvm import Stock
from test_commands_crash import CrashAt, own_view, stock_view
from test_commands_groups import SIZES, blank, hide, on_two, with_slots

from ringfence.core.errors import BadInput, Damaged, NotFound, Refused, TimedOut
from ringfence.daemon.archive import Archive, archived, obstacle
from ringfence.engine.orders import EndSlots, WriteVersion
from ringfence.host.kept import keep_bytes
from ringfence.lvm2.backup import KEEP_BYTES, Archived, archive_name, expired, of_vg, pack, read_head
from ringfence.storage import Moment, Storage
from ringfence.wire.client import (
    LvChange,
    LvCreate,
    LvRemove,
    Lvs,
    PvCreate,
    VgCfgBackup,
    VgCfgRestore,
    VgChange,
    VgCk,
    VgCreate,
    VgExtend,
    VgReduce,
    VgRemove,
    VgRename,
    Vgs,
    VgSet,
)


def kept(world: World) -> World:
    directory = world.directory
    storage = Storage([str(directory / "*.img")], lambda vg: None)
    world.keeper = Archive(directory / "archive", directory / "backup", "an-a01n01", storage.read)
    return world


@pytest.fixture
def three(directory: Path) -> Iterator[World]:
    world = kept(World(directory, SIZES))
    yield world
    if world.keeper is not None:
        world.keeper.close()


def backup(node: Node, vg: str = "vg0") -> bytes:
    return Path(node.run(VgCfgBackup(vg))["file"]).read_bytes()


def restore(node: Node, data: bytes, vg: str = "vg0") -> Any:
    return node.run(VgCfgRestore(vg, pack(data)))


def names(node: Node, vg: str = "vg0") -> list[str]:
    return [row["lv_name"] for row in node.run(Lvs(vg))["rows"]]


def test_a_backup_that_cannot_be_written_is_refused(three: World) -> None:
    node = on_two(three)
    backup(node)
    assert three.keeper is not None
    three.keeper.close()  # what waits is written
    shutil.rmtree(three.directory / "backup")
    (three.directory / "backup").touch()
    with pytest.raises(Refused, match=r"backup cannot be written: .*File exists.*; look at .*/backup"):
        node.run(VgCfgBackup("vg0"))


def test_what_was_wiped_once_does_not_count_any_more(three: World) -> None:
    """Since the backup was made others may have had the extents."""
    node = on_two(three)
    data = backup(node)
    at = data.index(b"creation_time", data.index(b"first {"))
    tags = b'tags = ["ringfence.zeroing", "ringfence.wiped.1"]\n\t\t\t'
    restore(node, data[:at] + tags + data[at:])
    (row,) = node.run(Lvs("vg0", "first"))["rows"]
    assert row["lv_tags"] == "ringfence.zeroing"


@pytest.mark.parametrize("which", ["archive", "backup"])
def test_who_changes_a_vg_is_told_that_no_history_is_kept(three: World, which: str) -> None:
    node = on_two(three)
    three.keeper.close()  # what waits is written
    shutil.rmtree(three.directory / which)
    (three.directory / which).touch()
    told: list[str] = []
    inner = node.storage.do

    def listen(order: Any) -> Any:
        answer = inner(order)
        if isinstance(order, WriteVersion):
            told.append(answer)
        return answer

    node.storage.do = listen  # type: ignore[method-assign]
    node.run(LvCreate("vg0", "vm1", extents=1, activate="n"))
    words = f"WARNING: the history of VGs' metadata is not kept on an-a01n01: {three.directory}/{which} "
    assert told == [words + "is not a directory"], "from the first change on: it is seen beforehand"
    (three.directory / which).unlink()
    node.run(LvRemove("vg0", "vm1"))
    assert told[-1] == ""


def test_a_full_file_system_is_an_obstacle(tmp_path: Path) -> None:
    small = tmp_path / "var"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=True)
    try:
        assert obstacle(small / "archive") == ""
        (small / "file").write_bytes(bytes((1 << 20) - 4096))
        assert obstacle(small / "archive") == f"the file system of {small} is full"
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        assert obstacle(small / "archive") == f"the file system of {small} is read-only"
    finally:
        subprocess.run(["umount", str(small)], check=True)


# -- the archive --------------------------------------------------------------------------


def test_what_was_before_each_change_is_kept_and_what_is_now(three: World) -> None:
    node = on_two(three)
    node.run(LvRemove("vg0", "first"))
    node.run(VgRename("vg0", "vg1"))
    node.run(VgRemove("vg1"))
    three.keeper.close()
    three.keeper = None
    archive = three.directory / "archive"
    told = [
        (one.name.partition("-")[0], head.seqno, head.description)
        for vg in ("vg0", "vg1")
        for one in of_vg(archived(archive), vg)
        for head in [read_head((archive / one.name).read_bytes())]
    ]
    assert told == [
        ("vg0_00000", 1, "Created *before* executing 'ringfence lvcreate vg0/first'"),
        ("vg0_00001", 2, "Created *before* executing 'ringfence lvremove vg0/first'"),
        ("vg0_00002", 3, "Created *before* executing 'ringfence vgrename vg0 vg1'"),
        ("vg1_00000", 4, "Created *before* executing 'ringfence vgremove'"),
    ]
    assert sorted(path.name for path in (three.directory / "backup").iterdir()) == ["vg0", "vg1"]
    assert read_head((three.directory / "backup/vg1").read_bytes()).seqno == 4


def gated(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The archive's thread writes no file before this is set."""
    gate = threading.Event()

    def slow(path: Path, data: bytes, mode: int) -> None:
        gate.wait(60)
        keep_bytes(path, data, mode)

    monkeypatch.setattr("ringfence.daemon.archive.keep_bytes", slow)
    return gate


def test_a_burst_is_kept_by_its_ends(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is slower than the changes: what waits is joined, and nobody waits for it."""
    gate, node = gated(monkeypatch), on_two(three)
    for number in range(14):
        node.run(VgSet("vg0", add_tags=(f"t{number}",)))
    gate.set()
    three.keeper.close()
    heads = [
        read_head((three.directory / "archive" / one.name).read_bytes()).seqno
        for one in of_vg(archived(three.directory / "archive"), "vg0")
    ]
    assert len(heads) <= 9
    assert heads[:8] == list(range(1, 9))
    assert read_head((three.directory / "backup/vg0").read_bytes()).seqno == 16


def test_what_was_committed_is_kept_though_it_was_written_over(
    three: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short texts are not read again; longer ones are, and what is not there any more is left out."""
    gate, node = gated(monkeypatch), on_two(three)
    for number in range(4):
        node.run(VgSet("vg0", add_tags=(f"t{number}",)))
    for image in three.directory.glob("*.img"):
        image.write_bytes(bytes(image.stat().st_size))
    gate.set()
    three.keeper.close()
    place = three.directory / "archive"
    texts = [(place / one.name).read_bytes() for one in of_vg(archived(place), "vg0")]
    assert [read_head(text).seqno for text in texts] == [1, 2, 3, 4, 5]
    assert [text.count(b'"t2"') for text in texts] == [0, 0, 0, 0, 1]
    assert (three.directory / "backup/vg0").read_bytes().count(b'"t3"') == 1


@pytest.mark.parametrize("trouble", ["long", "wrong"])
def test_a_text_that_nobody_has_at_hand_is_read(
    three: World, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    if trouble == "long":
        monkeypatch.setattr("ringfence.daemon.archive.SHORT_BYTES", 100)
    else:
        monkeypatch.setattr(
            "ringfence.engine.commands.commit.WriteVersion",
            lambda *args: WriteVersion(*args[:-1], (b"another\0", b"text\0")),
        )
    node = on_two(three)
    node.run(VgSet("vg0", add_tags=("t0",)))
    assert backup(node).count(b'"t0"') == 1
    kept = of_vg(archived(three.directory / "archive"), "vg0")
    assert [one.number for one in kept] == [0, 1]


def test_the_archive_is_listed_again_only_when_somebody_else_changed_it(
    three: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []

    def listing(place: Path) -> list[Archived]:
        listed.append(place)
        return archived(place)

    monkeypatch.setattr("ringfence.daemon.archive.archived", listing)
    node, place = on_two(three), three.directory / "archive"

    def change(tag: str) -> list[int]:
        """Returns the numbers of the archive's files after it."""
        node.run(VgSet("vg0", add_tags=(tag,)))
        backup(node)  # ... is written after all that waits
        return [one.number for one in of_vg(archived(place), "vg0")]

    assert [change(tag)[-1] for tag in "abcd"] == [1, 2, 3, 4]
    assert len(listed) == 1
    (place / of_vg(archived(place), "vg0")[-1].name).unlink()
    later_ns = place.stat().st_mtime_ns + 1  # than the last file, for the kernel's clock has ticks of 4 ms
    os.utime(place, ns=(later_ns, later_ns))
    assert change("e") == [0, 1, 2, 3, 4], "what a person has removed is not counted any more"
    assert len(listed) == 2
    assert change("f")[-1] == 5
    assert len(listed) == 2


def test_old_files_go_but_never_the_last_ten() -> None:
    day = 86400

    def files(count: int, size: int = 1, age_days: int = 0) -> list[Archived]:
        return [Archived(archive_name("vg0", n, n), size, 1000 * day - age_days * day) for n in range(count)]

    assert expired(files(10, 1 << 40, 99), 1000 * day) == []
    assert [one.number for one in expired(files(12, 1, 31), 1000 * day)] == [0, 1]
    assert expired(files(500, 1, 29), 1000 * day) == []
    assert [one.number for one in expired(files(2002), 1000 * day)] == [0, 1]
    assert [one.number for one in expired(files(20, KEEP_BYTES // 16), 1000 * day)] == [0, 1, 2, 3]
    odd = [Archived(name, 1, 0) for name in ("vg_0_00001-0000000a.vg", "vg_00002-0000000b.vg", "x.vg")]
    assert [one.name for one in of_vg(odd, "vg_0")] == ["vg_0_00001-0000000a.vg"]


# -- there and back -------------------------------------------------------------------------


def test_stock_restores_our_backups_and_we_restore_stocks(three: World, stock: Stock) -> None:
    stock.attach(*three.images)
    node = on_two(three)
    ours = str(three.directory / "ours.vg")
    Path(ours).write_bytes(backup(node))
    theirs = str(three.directory / "theirs.vg")
    stock.run("vgcfgbackup", "-f", theirs, "vg0", quiet=False)
    node.run(LvRemove("vg0", "first"))
    code, output, _ = stock.try_run("vgcfgrestore", "--list", "-f", ours)
    assert (code, "ringfence vgcfgbackup vg0" in output) == (0, True), output
    code, _, noise = stock.try_run("vgcfgrestore", "--force", "-f", ours, "vg0")
    assert code == 0, noise
    stock.run("vgck", "vg0")
    assert [row["lv_name"] for row in stock.report("lvs")] == ["first"]
    # Stock has used a seqno again; ours goes above whatever is known.
    node.run(VgChange("lockstop", "vg0"))
    three.resources.clear()
    node.run(VgChange("lockstart", "vg0"))
    node.run(LvCreate("vg0", "second", extents=1, activate="n"))
    seqno = node.run(Vgs("vg0"))["rows"][0]["vg_seqno"]
    answer = restore(node, Path(theirs).read_bytes())
    assert answer["message"] == "Restored volume group vg0."
    assert answer["seqno"] == seqno + 1
    assert names(node) == ["first"]
    stock.run("vgck", "vg0")
    assert "\t" not in stock.text(three.images[0]).partition("# Generated")[0]


def test_the_seqno_is_above_all_that_anybody_saw(three: World) -> None:
    node = on_two(three)
    old = backup(node)
    for number in range(3):
        node.run(LvCreate("vg0", f"vm{number}", extents=1, activate="n"))
    pv = [hide(three, 0), hide(three, 1)]
    for path in pv:
        os.rename(path + ".away", path)
    three.published.append(three.published[-1].__class__("vg0", 40, 0, "elsewhere"))
    assert restore(node, old)["seqno"] == 41
    assert (three.published[-1].vg, three.published[-1].seqno) == ("vg0", 41)
    node.run(LvCreate("vg0", "next", extents=1, activate="n"))
    assert node.run(Vgs("vg0"))["rows"][0]["vg_seqno"] == 42


def test_a_vg_that_was_removed_comes_back(three: World, stock: Stock) -> None:
    stock.attach(*three.images)
    node = with_slots(three)
    place = node.slots["vg0"]
    old = backup(node)
    node.run(VgRemove("vg0", force=True))
    answer = restore(three.node(2), old)
    assert answer["seqno"] > 3
    stock.run("vgck", "vg0")
    assert names(node) == ["first"]
    node.run(VgChange("lockstart", "vg0"))
    assert (node.slots["vg0"].path, node.slots["vg0"].start_bytes) == (place.path, place.start_bytes)
    assert node.without == {}


def test_pvs_that_the_file_does_not_have_are_free_again(three: World, stock: Stock) -> None:
    stock.attach(*three.images)
    node = on_two(three)
    old = backup(node)
    node.run(VgExtend("vg0", (three.images[2],)))
    restore(node, old)
    stock.run("vgck", "vg0")
    found = {stock.image_of(row["pv_name"]): row["vg_name"] for row in stock.report("pvs")}
    assert [found[image] for image in three.images] == ["vg0", "vg0", ""]
    node.run(PvCreate((three.images[2],)))


def test_slots_that_were_elsewhere_are_made_anew(three: World) -> None:
    node = with_slots(three)
    with_them = backup(node)
    node.run(VgRemove("vg0", force=True))
    three.slots = False
    node.run(VgCreate("vg0", tuple(three.images[:2]), shared=True, extent_size_bytes=MIB))
    with pytest.raises(Refused, match="is another VG"):
        restore(node, with_them)
    node.run(VgRemove("vg0"))
    restore(node, with_them)
    assert list(node.slots) == ["vg0"]
    without = re.sub(rb"\nringfence_slots \{.*?\n\}\n\}\n", b"\n", with_them, flags=re.DOTALL)
    assert b"ringfence.slots" not in without
    three.ended.clear()
    restore(node, without)
    assert three.ended == ["vg0"]
    assert any(isinstance(order, EndSlots) for order in node.trace)
    restore(node, with_them)
    assert list(node.slots) == ["vg0"]
    assert node.without == {}


# -- what is refused --------------------------------------------------------------------------


def test_it_is_refused_while_it_could_run_over_somebody(three: World) -> None:
    node, other = on_two(three), three.node(2)
    old = backup(node)
    node.run(LvCreate("vg0", "newer", extents=1, activate="n"))
    before = [Path(image).read_bytes() for image in three.images]
    other.run(LvChange("vg0", "newer", "ey"))
    with pytest.raises(Refused, match=r"has active LVs: newer \(EX on an-a01n02\); deactivate them there"):
        restore(node, old)
    other.run(LvChange("vg0", "newer", "n"))
    node.run(LvChange("vg0", "first", "sy"))
    with pytest.raises(Refused, match=r"first \(PR on an-a01n01\)"):
        restore(node, old)
    node.run(LvChange("vg0", "first", "n"))
    node.run(VgChange("lockstop", "vg0"))
    with pytest.raises(Refused, match="vgchange --lockstart vg0"):
        restore(node, old)
    node.run(VgChange("lockstart", "vg0"))
    three.frozen.add("lvm_vg0")
    with pytest.raises(TimedOut, match="frozen until a lost node is fenced"):
        restore(node, old)
    three.frozen.clear()
    assert [Path(image).read_bytes() for image in three.images] == before
    assert three.locks_of(1) == []


def test_what_cannot_be_restored_is_refused_before_anything_is_written(three: World) -> None:
    node = on_two(three)
    old = backup(node)
    bad = [
        (old.replace(b"1.0.0:ring", b"1.0.0:other"), Refused, "is shared by cluster"),
        (old.replace(b'lock_type = "dlm"\n', b""), Refused, "not shared"),
        (old[: len(old) // 2], Damaged, "damaged in line"),
        (b"hello", Damaged, "damaged in line"),
        (re.sub(rb"seqno = \d+", b"seqno = 4294967295", old), BadInput, "no VG was changed so often"),
        (old.replace(b"vg0 {", b"vg9 {"), BadInput, "is of VG vg9"),
        (old.replace(b"pe_count = 7", b"pe_count = 70"), Damaged, "run over the end"),
        (re.sub(rb"dev_size = \d+\npe_start = \d+\npe_count = 7", b"pe_start = 2048\npe_count = 70", old),
         BadInput, "had"),
        (re.sub(rb"pe_start = \d+", b"pe_start = 8", old), BadInput, "where the file has extents"),
    ]  # fmt: skip
    before = [Path(image).read_bytes() for image in three.images]
    for data, kind, words in bad:
        with pytest.raises(kind, match=words):
            restore(node, data)
    with pytest.raises(Damaged) as caught:
        restore(node, b"root:x:0:0:root:/root:/bin/bash")
    assert caught.value.next == "give a file that is in order; see: vgcfgrestore --list vg0"
    with pytest.raises(Damaged, match="is not what was sent"):
        node.run(VgCfgRestore("vg0", '"'))
    path = hide(three, 1)
    with pytest.raises(NotFound, match="Couldn't find device with uuid"):
        restore(node, old)
    os.rename(path + ".away", path)
    assert [Path(image).read_bytes() for image in three.images] == before
    node.run(VgReduce("vg0", (path,)))
    node.run(VgCreate("vg1", (path,), shared=True))
    with pytest.raises(Refused, match="is in VG vg1 now"):
        restore(node, old)
    node.run(VgRename("vg0", "vg2"))
    with pytest.raises(Refused, match="was renamed to vg2 since then"):
        restore(node, old)
    assert three.locks_of(1) == []


def test_crash_at_every_write_leaves_old_or_restored(directory: Path, stock: Stock) -> None:
    def ready() -> tuple[World, Node, bytes]:
        world = kept(blank(directory))
        stock.attach(*world.images)
        node = on_two(world)
        old = backup(node)
        world.keeper.close()
        world.keeper = None
        node.run(LvRemove("vg0", "first"))
        node.run(VgExtend("vg0", (world.images[2],)))
        return world, world.node(), old

    World(directory, SIZES)
    world, node, old = ready()
    before = stock_view(stock), own_view(world)
    counter = CrashAt(-1, Moment.AFTER)
    node.storage._crash_hook = counter
    restore(node, old)
    after = stock_view(stock), own_view(world)
    seen = []
    for at in range(counter.count + 1):
        world, node, old = ready()
        node.storage._crash_hook = CrashAt(at, Moment.AFTER)
        with pytest.raises(Crash):
            restore(node, old)
        world.purge(1)
        now = stock_view(stock), own_view(world)
        assert now in (before, after), at
        seen.append(now == after)
        other = world.node(2)
        other.run(VgChange("lockstart", "vg0"))
        other.run(VgCk("vg0", update_metadata=True))
        restore(other, old)
        other.run(VgCk("vg0"))
        assert names(other) == ["first"]
        assert stock.try_run("vgck", "vg0")[2] == []
    assert seen == sorted(seen)
    assert seen[0] != seen[-1]
