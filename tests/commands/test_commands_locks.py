"""What commands lock, for how long, and what they do when somebody else holds it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_world import MIB, Node, World
from test_commands_backup import kept

from ringfence.core.errors import (
    BadInput,
    Damaged,
    LockHeld,
    NotFound,
    Refused,
    RingfenceError,
    TimedOut,
)
from ringfence.core.modes import Mode
from ringfence.engine import orders
from ringfence.engine.commands import autostart, command_for, report
from ringfence.engine.commands.locking import Version, parse_lvb, print_lvb
from ringfence.lvm2.backup import pack
from ringfence.wire.block import Extent, Plane
from ringfence.wire.client import (
    VOLUME_CALLS,
    LvChange,
    LvCreate,
    LvRemove,
    LvRename,
    LvResize,
    Lvs,
    PvCk,
    PvCreate,
    PvMove,
    PvRemove,
    PvResize,
    Pvs,
    SlotsAdd,
    SlotsForget,
    SlotsShow,
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


@pytest.fixture
def first(world: World) -> Node:
    node = world.node(1)
    node.run(VgCreate("vg0", tuple(world.images), shared=True))
    return node


def sketch(node: Node) -> list[str]:
    """The orders of the last command, reads left out."""
    lines = []
    for order in node.trace:
        match order:
            case orders.Acquire():
                kept = " persistent" if order.persistent else ""
                resource = order.resource if len(order.resource) < 10 else "LV"
                lines.append(f"lock {order.lockspace} {resource} {order.mode.name}{kept}")
            case orders.WriteBlocks():
                lines.append(f"write {order.what}")
            case orders.WriteVersion():
                lines += [f"zero {zeros.length_bytes >> 20} MiB with" for zeros in order.zeros]
                lines.append("write version")
            case orders.ZeroBlocks():
                lines.append(f"zero {order.length_bytes >> 20} MiB")
            case orders.Release():
                lines.append("unlock with value" if order.lvb else "unlock")
            case (
                orders.ReadBlocks() | orders.ReadDisks() | orders.Probe() | orders.Identity()
                | orders.Joined()
            ):  # fmt: skip
                pass
            case orders.Recall() | orders.Remember():
                pass
            case _:
                lines.append(type(order).__name__)
    return lines


def lvb(world: World, space: str = "lvm_vg0", resource: str = "VGLK") -> Version | None:
    return parse_lvb(world.resources[space, resource].lvb)


# -- sequences -----------------------------------------------------------------------


def test_vgcreate_locks_the_global_lock_and_the_vg(world: World, first: Node) -> None:
    assert sketch(first) == [
        "JoinLockspace",
        "lock lvm_global GLLK EX",
        "JoinLockspace",
        "lock lvm_vg0 VGLK EX",
        "write pv-header",
        "write pv-header",
        "write version",
        "write pv-header",
        "Publish",
        "unlock with value",
        "NoteSlots",
        "unlock with value",
    ]
    assert world.locks_of(1) == []
    assert lvb(world, "lvm_global", "GLLK") == Version(1)


def test_lvcreate_in_order(world: World, first: Node) -> None:
    reply = first.run(LvCreate("vg0", "vm1", size_bytes=5 * MIB))
    assert sketch(first) == [
        "lock lvm_vg0 VGLK EX",
        "lock lvm_vg0 LV EX persistent",
        "zero 8 MiB with",
        "write version",
        "Publish",
        "unlock with value",
        "OpenPath",
    ]
    assert reply["message"] == 'Logical volume "vm1" created.'
    assert reply["notes"] == ["Rounding up size to full physical extent 8.00 MiB"]
    assert (reply["name"], reply["size_bytes"]) == ("vm1", 8 * MIB)
    assert reply["uri"].startswith("nbd+unix:///vm1?socket=/")
    assert world.locks_of(1) == [("lvm_vg0", reply["uuid"], Mode.EX)]
    opened = first.open["vg0", "vm1"]
    assert opened.extents == (Extent(world.images[0], MIB, 8 * MIB),)
    assert str(opened.token) == reply["token"]
    assert first.guards == [*[""] * 0, *["vg0"] * len(first.guards)], (
        "every write asked for the VG's authority"
    )


def test_version_and_checksum_are_published(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=1))
    (_, notice) = world.published
    assert lvb(world) == Version(2, notice.crc)
    assert (notice.vg, notice.seqno) == ("vg0", 2)
    assert notice.what == "an-a01n01: lvcreate vg0/vm1"


def test_value_block_is_lvmlockds() -> None:
    block = print_lvb(Version(0x01020304, 0xAABBCCDD, True))
    assert block == bytes.fromhex("0101010004030201ddccbbaa") + bytes(20)
    assert parse_lvb(block) == Version(0x01020304, 0xAABBCCDD, True)
    assert parse_lvb(None) is None
    assert parse_lvb(bytes(32)) is None, "never written"
    assert parse_lvb(b"\1\2" + bytes(30)) is None, "of another major version"


def test_data_of_the_lv_before_does_not_shine_through(world: World, first: Node) -> None:
    with open(world.images[0], "r+b") as file:
        file.seek(MIB)
        file.write(b"\xff" * 5 * MIB)
    first.run(LvCreate("vg0", "vm1", extents=1))
    with open(world.images[0], "rb") as file:
        file.seek(MIB)
        assert file.read(5 * MIB) == bytes(4 * MIB) + b"\xff" * MIB


# -- activation ----------------------------------------------------------------------


def test_one_host_at_a_time(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=1))
    second = world.node(2)
    with pytest.raises(LockHeld, match="held EX by an-a01n01") as caught:
        second.run(LvChange("vg0", "vm1", "ey"))
    assert caught.value.node == "an-a01n01"
    assert second.open == {}
    assert world.locks_of(2) == []
    with pytest.raises(TimedOut):
        second.run(LvChange("vg0", "vm1", "ey", wait_ms=100))
    (row,) = second.run(Lvs("vg0"))["rows"]
    assert row["lv_holder"] == "an-a01n01:EX"
    assert row["lv_attr"] == "-wi-------"
    (row,) = first.run(Lvs("vg0"))["rows"]
    assert row["lv_attr"] == "-wi-a-----"
    assert row["lv_path"] == "/run/ringfence/dev/vg0/vm1"

    assert first.run(LvChange("vg0", "vm1", "n"))["was_active"]
    assert first.open == {}
    reply = second.run(LvChange("vg0", "vm1", "ey"))
    assert reply["mode"] == "EX"
    assert ("vg0", "vm1") in second.open
    assert not first.run(LvChange("vg0", "vm1", "n"))["was_active"], "to deactivate twice is no error"


def test_no_vg_lock_is_held_while_waiting_for_an_lv(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=1, activate="n"))
    first.run(LvChange("vg0", "vm1", "ey"))
    names = sketch(first)
    at = names.index("lock lvm_vg0 LV EX persistent")
    assert names[:at].count("lock lvm_vg0 VGLK PR") == names[:at].count("unlock") == 1
    assert names[at:] == ["lock lvm_vg0 LV EX persistent", "lock lvm_vg0 VGLK PR", "unlock", "OpenPath"]


def test_shared_activation_and_the_way_to_exclusive(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=1, activate="n"))
    second = world.node(2)
    first.run(LvChange("vg0", "vm1", "sy"))
    assert first.open["vg0", "vm1"].shared
    second.run(LvChange("vg0", "vm1", "sy"))
    with pytest.raises(LockHeld, match="held PR by an-a01n01"):
        second.run(LvChange("vg0", "vm1", "ey"))
    assert second.open["vg0", "vm1"].shared, "what was active stays so"
    first.run(LvChange("vg0", "vm1", "n"))
    second.run(LvChange("vg0", "vm1", "ey"))
    assert not second.open["vg0", "vm1"].shared
    second.run(LvChange("vg0", "vm1", "sy"))
    assert second.open["vg0", "vm1"].shared
    assert [mode for *_, mode in world.locks_of(2)] == [Mode.PR]


def test_activating_again_changes_nothing_and_reopens_a_lost_path(world: World, first: Node) -> None:
    before = first.run(LvCreate("vg0", "vm1", extents=1))
    again = first.run(LvChange("vg0", "vm1", "ey"))
    assert (again["token"], again["uri"]) == (before["token"], before["uri"])
    assert "OpenPath" not in sketch(first)
    first.open.clear()  # the block service was started anew
    assert first.run(LvChange("vg0", "vm1", "ey"))["token"] == before["token"]
    assert ("vg0", "vm1") in first.open


def test_a_whole_vg(world: World, first: Node) -> None:
    for name in ("a", "b", "c"):
        first.run(LvCreate("vg0", name, extents=1, activate="n"))
    reply = first.run(LvChange("vg0", "", "ey"))
    assert reply["message"] == '3 logical volume(s) in volume group "vg0" now active'
    assert [lv["name"] for lv in reply["lvs"]] == ["a", "b", "c"]
    second = world.node(2)
    first.run(LvChange("vg0", "b", "n"))
    with pytest.raises(LockHeld, match=r"\(and 1 more\)"):
        second.run(LvChange("vg0", "", "ey"))
    assert list(second.open) == [("vg0", "b")], "what can be had is had"
    assert len(first.run(LvChange("vg0", "", "n"))["lvs"]) == 2
    assert first.open == {}


def test_deactivation_needs_no_lock_and_works_while_frozen(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=1))
    world.frozen.add("lvm_vg0")
    first.run(LvChange("vg0", "vm1", "n"))
    assert world.locks_of(1) == []
    with pytest.raises(TimedOut, match="frozen"):
        first.run(LvChange("vg0", "vm1", "ey"))


def test_what_cannot_be_shared_now_is_let_go_of(world: World, first: Node) -> None:
    """Its path is closed by then, and where it is could only be read under the VG's lock: whoever has changed
    it meanwhile saw no path here."""
    made = first.run(LvCreate("vg0", "vm1", extents=4))

    def fail(order: orders.Order) -> RingfenceError | None:
        if not isinstance(order, orders.Convert):
            return None
        first.fail = None
        first.run(LvResize("vg0", "vm1", extents=1, force=True, only="reduce"))
        return TimedOut("LV vg0/vm1: lockspace lvm_vg0 is frozen", node="an-a01n02", next="ringfence why")

    first.fail = fail
    with pytest.raises(TimedOut, match="frozen; vg0/vm1 is not active here any more; ring") as caught:
        first.run(LvChange("vg0", "vm1", "sy", wait_ms=10, force=True))
    assert (caught.value.code, caught.value.node) == (TimedOut.code, "an-a01n02")
    assert first.open == {}
    assert world.locks_of(1) == [], made["uuid"]


# -- in use --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", [LvChange("vg0", "vm1", "n"), LvChange("vg0", "", "n"), LvChange("vg0", "vm1", "sy", force=True)]
)
def test_what_is_in_use_stays_active_as_it_is(world: World, first: Node, call: LvChange) -> None:
    """As for LVM2, whose -an never takes a disk from under a running machine, with --force neither."""
    made = first.run(LvCreate("vg0", "vm1", extents=1))
    first.run(LvCreate("vg0", "vm2", extents=1))
    first.clients[made["uuid"]] = 1
    for asked in (call, msgspec.structs.replace(call, force=True)):
        how = "-asy --force" if call.activate == "sy" else "-an"
        with pytest.raises(Refused, match=rf"vg0/vm1 in use.*; .*lvchange {how} --disconnect vg0/vm1"):
            first.run(asked)
    assert ("vg0", "vm1") in first.open
    assert (("vg0", "vm2") in first.open) == (call.lv != "")
    assert ("lvm_vg0", made["uuid"], Mode.EX) in world.locks_of(1)
    first.run(msgspec.structs.replace(call, disconnect=True))
    assert [mode for _, name, mode in world.locks_of(1) if name == made["uuid"]] == [
        Mode.PR for _ in range(call.activate == "sy")
    ]


def test_who_has_just_gone_is_waited_for(
    world: World, first: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = first.run(LvCreate("vg0", "vm1", extents=1))
    first.clients[made["uuid"]] = 1
    monkeypatch.setattr(first, "_do_Pause", lambda order: first.clients.clear())
    assert first.run(LvChange("vg0", "vm1", "n"))["was_active"]


def test_a_device_in_use_is_the_kernel_s_to_refuse(world: World, first: Node) -> None:
    """A scanner that has it open for a moment is waited for there, too."""
    made = first.run(LvCreate("vg0", "vm1", extents=1))
    first.clients[made["uuid"]] = 1
    first.plane = Plane.DM
    assert first.run(LvChange("vg0", "vm1", "n"))["was_active"]


def test_a_whole_vg_tells_of_those_that_became_active_too(world: World, first: Node) -> None:
    for name in ("a", "b", "c"):
        first.run(LvCreate("vg0", name, extents=1, activate="n"))
    first.run(LvChange("vg0", "b", "ey"))
    with pytest.raises(LockHeld, match=r'held EX by an-a01n01; 2 logical volume.* in volume group "vg0" now'):
        world.node(2).run(LvChange("vg0", "", "ey"))


# -- removal -------------------------------------------------------------------------


def test_lvremove_is_refused_while_the_lv_is_in_use(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=1))
    second = world.node(2)
    for force in (False, True):
        with pytest.raises(LockHeld, match="held EX by an-a01n01"):
            second.run(LvRemove("vg0", "vm1", force=force))
    with pytest.raises(Refused, match=r"vg0/vm1 is active here; lvchange -an vg0/vm1, or use --force"):
        first.run(LvRemove("vg0", "vm1"))
    assert ("vg0", "vm1") in first.open
    assert (
        first.run(LvRemove("vg0", "vm1", force=True))["message"]
        == 'Logical volume "vm1" successfully removed.'
    )
    assert first.open == {}
    assert world.locks_of(1) == []
    assert first.run(Lvs("vg0"))["rows"] == []


def test_what_is_in_use_here_is_not_removed_by_any_force(
    world: World, first: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts force by habit: LVM2 would not remove a running machine's disk either."""
    made = first.run(LvCreate("vg0", "vm1", extents=1))
    first.clients[made["uuid"]] = 1
    for call in (LvRemove("vg0", "vm1", force=True), VgRemove("vg0", force=True)):
        with pytest.raises(Refused, match=r"vg0/vm1 in use; .*lvchange -an --disconnect vg0/vm1"):
            first.run(call)
    assert ("vg0", "vm1") in first.open
    assert [row["lv_attr"] for row in first.run(Lvs("vg0"))["rows"]] == ["-wi-ao----"]
    # Who has just gone is counted for a moment yet.
    monkeypatch.setattr(first, "_do_Pause", lambda order: first.clients.clear())
    first.run(LvRemove("vg0", "vm1", force=True))
    assert first.run(Lvs("vg0"))["rows"] == []


def test_vgremove_is_refused_with_lvs_and_while_they_are_in_use(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "a", extents=1, activate="n"))
    first.run(LvCreate("vg0", "b", extents=1))
    with pytest.raises(Refused, match=r"still contains 2 logical volume\(s\); .*vgremove --force vg0"):
        first.run(VgRemove("vg0"))
    with pytest.raises(LockHeld, match="an-a01n01"):
        world.node(2).run(VgRemove("vg0", force=True))
    assert len(first.run(Lvs("vg0"))["rows"]) == 2
    first.run(VgRemove("vg0", force=True))
    assert first.open == {}
    assert world.members["lvm_vg0"] == [2]
    assert lvb(world) == Version(4, 0, True)
    assert first.run(Vgs())["rows"] == []
    # A VG of the same name begins anew, although the old one's value block is still there.
    first.run(VgCreate("vg0", tuple(world.images), shared=True))
    first.run(LvCreate("vg0", "a", extents=1))
    assert lvb(world) == Version(2, world.published[-1].crc)


# -- the value block as a witness ----------------------------------------------------


def test_a_disk_that_went_back_is_not_written(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=1))
    world.resources["lvm_vg0", "VGLK"].lvb = print_lvb(Version(9, 1))
    with pytest.raises(Damaged, match=r"vg0 on disk is version 2, but version 9 was committed; .*--lockstop"):
        first.run(LvCreate("vg0", "vm2", extents=1))


@pytest.mark.parametrize("value", [None, Version(2, 12345), Version(1, 7)])
def test_after_a_doubtful_writer_what_was_written_is_read_back(
    world: World, first: Node, value: Version | None
) -> None:
    first.run(LvCreate("vg0", "vm1", extents=1))
    world.resources["lvm_vg0", "VGLK"].lvb = print_lvb(value) if value else None
    first.run(LvCreate("vg0", "vm2", extents=1, activate="n"))
    commit = next(at for at, order in enumerate(first.trace) if isinstance(order, orders.WriteVersion))
    after = [type(order).__name__ for order in first.trace[commit + 1 :]]
    assert after[:2] == ["ReadBlocks", "ReadBlocks"]
    first.run(LvCreate("vg0", "vm3", extents=1, activate="n"))
    commit = next(at for at, order in enumerate(first.trace) if isinstance(order, orders.WriteVersion))
    assert type(first.trace[commit + 1]).__name__ == "Publish", "the value block is good again"


# -- lockspaces ------------------------------------------------------------------------


def test_commands_start_the_lockspace_they_need(world: World, first: Node) -> None:
    second = world.node(2)
    second.run(LvCreate("vg0", "vm1", extents=1))
    assert world.members["lvm_vg0"] == [1, 2]


def test_autostart_joins_what_is_ours(world: World, first: Node) -> None:
    second = world.node(2)
    assert second.drive(autostart())["started"] == ["vg0"]
    assert world.members["lvm_vg0"] == [1, 2]
    world.cluster = "another"
    assert world.node(3).drive(autostart())["started"] == []


def test_lockstart_and_lockstop(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=1))
    for vg in ("vg0", ""):
        with pytest.raises(Refused, match=r"vg0 has active LVs here: vm1; lvchange -an vg0"):
            first.run(VgChange("lockstop", vg))
    first.run(LvChange("vg0", "vm1", "n"))
    assert first.run(VgChange("lockstop", "vg0"))["stopped"] == ["vg0"]
    assert world.members["lvm_vg0"] == []
    assert first.run(VgChange("lockstop"))["stopped"] == []
    assert first.run(VgChange("lockstart", "vg0"))["started"] == ["vg0"]
    first.stopped.clear()
    assert first.run(VgChange("lockstop"))["stopped"] == ["vg0"]
    assert first.stopped == ["vg0"], "all of them are meant"
    assert first.run(VgChange("lockstart"))["message"] == "VG vg0 starting dlm lockspace"
    with pytest.raises(BadInput, match="lockstart or --lockstop"):
        first.run(VgChange("other"))


# -- reports -----------------------------------------------------------------------------


def test_reports_lock_shared_and_let_go(world: World, first: Node) -> None:
    for call in (Pvs(), Vgs(), Lvs(), Vgs("vg0"), Lvs("vg0")):
        assert first.run(call)["stale"] is False
        assert [line for line in sketch(first) if "lock" in line] == ["lock lvm_vg0 VGLK PR", "unlock"]


def test_reports_answer_while_frozen_or_not_started(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=1))
    world.frozen.add("lvm_vg0")
    for call in (Pvs(), Vgs(), Lvs()):
        reply = first.run(call)
        assert reply["rows"]
        assert reply["stale"] is True
        assert "without a lock" in reply["notes"][0]
        assert "frozen" in reply["notes"][0]
    reply = world.node(2).run(Lvs("vg0"))
    assert reply["rows"][0]["lv_holder"] == "an-a01n01:EX"
    assert reply["stale"] is True
    assert "not started here" in reply["notes"][0]


def test_reports_of_what_is_not_there(world: World, first: Node) -> None:
    with pytest.raises(NotFound, match='Volume group "vg9" not found'):
        first.run(Vgs("vg9"))
    with pytest.raises(NotFound, match='Volume group "vg9" not found'):
        first.run(Lvs("vg9"))
    with pytest.raises(NotFound, match='Failed to find logical volume "vg0/vm9"'):
        first.run(Lvs("vg0", "vm9"))
    assert world.locks_of(1) == []


def test_every_volume_call_has_its_command_and_a_json_reply(world: World) -> None:
    node = kept(world).node(1)
    calls = [
        PvCreate((world.images[0],)),
        VgCreate("vg0", tuple(world.images), shared=True),
        VgChange("lockstart", "vg0"),
        LvCreate("vg0", "vm1", extents=1),
        LvChange("vg0", "vm1", "n"),
        LvResize("vg0", "vm1", extents=1, sign="+"),
        LvRename("vg0", "vm1", "vm2"),
        PvMove(world.images[0]),
        Pvs(),
        Vgs(),
        Lvs(),
        LvRemove("vg0", "vm2"),
        VgReduce("vg0", all=True),
        PvRemove((world.images[1],)),
        VgExtend("vg0", (world.images[1],)),
        VgSet("vg0", add_tags=("a.tag",)),
        VgRename("vg0", "vg1"),
        VgRename("vg1", "vg0"),
        VgCk("vg0"),
        VgCfgBackup("vg0"),
        VgCfgRestore("vg0", ""),
        PvResize((world.images[0],)),
        PvCk(world.images[0]),
        SlotsAdd("vg0"),
        SlotsShow("vg0"),
        VgRemove("vg0"),
        SlotsForget("vg0"),
    ]
    assert {type(call) for call in calls} | {PvMove} == set(VOLUME_CALLS)  # that one has tests of its own
    reply: dict[str, Any] = {}
    for call in calls:
        if isinstance(call, VgCfgRestore):
            call = VgCfgRestore("vg0", pack(Path(reply["file"]).read_bytes()))
        world.slots = isinstance(call, SlotsAdd)  # by itself vgcreate would have made them
        reply = node.run(call)
        assert sum(key in reply for key in ("rows", "message", "nodes", "lines")) == 1
        assert msgspec.json.decode(msgspec.json.encode(reply)) == msgspec.to_builtins(reply)
    world.keeper.close()
    with pytest.raises(KeyError):
        command_for(object())


def test_columns_say_what_rows_say(world: World, first: Node) -> None:
    first.run(LvCreate("vg0", "vm1", extents=2))
    first.run(LvCreate("vg0", "vm2", extents=1, activate="n"))
    rows = first.run(Lvs("vg0"))["rows"]
    for fields in (tuple(rows[0]), ("lv_size", "lv_name"), ("lv_holder",)):
        columns = first.run(Lvs("vg0", fields=fields))["columns"]
        assert tuple(columns) == fields
        assert columns == {field: [row[field] for row in rows] for field in fields}
    with pytest.raises(BadInput, match="lv_nmae is not a field"):
        first.run(Lvs("vg0", fields=("lv_nmae",)))


def test_what_all_lvs_have_in_common_is_said_once(world: World, first: Node) -> None:
    fields = ("lv_name", "vg_name", "lv_size", "lv_holders")

    def told() -> Any:
        answer = first.run(Lvs("vg0", fields=fields, same=True))
        return {key: answer[key] for key in ("columns", "same", "count")}

    nothing: dict[str, list[Any]] = {field: [] for field in fields}
    assert told() == {"columns": nothing, "same": {}, "count": 0}
    first.run(LvCreate("vg0", "vm1", extents=1, activate="n"))
    alone = {"lv_name": "vm1", "vg_name": "vg0", "lv_size": 4 << 20, "lv_holders": []}
    assert told() == {"columns": {}, "same": alone, "count": 1}
    first.run(LvCreate("vg0", "vm2", extents=1, activate="n"))
    del alone["lv_name"]
    assert told() == {"columns": {"lv_name": ["vm1", "vm2"]}, "same": alone, "count": 2}


def test_many_rows_and_columns_are_encoded_piece_by_piece(
    world: World, first: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        first.run(LvCreate("vg0", f"vm{number}", extents=1, activate="n"))
    fields = ("lv_name", "lv_size", "lv_holders")
    calls = (Lvs("vg0"), Lvs("vg0", fields=fields))
    few = [first.run(call) for call in calls]
    monkeypatch.setattr(report, "SLICE", 2)
    monkeypatch.setattr(report, "LARGE", 4)
    many = [first.run(call) for call in calls]
    assert "GoOn" in sketch(first)
    assert [msgspec.json.decode(msgspec.json.encode(one)) for one in many] == few
