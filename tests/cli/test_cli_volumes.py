"""The volume verbs: which request goes out for which words, what is printed, how it ends."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_daemon import CannedDaemon
from cli_run import Run

from ringfence.cli.verbs import ROOMS, foreground, verb
from ringfence.cli.verbs.words import _every, takes_value
from ringfence.client.brief import UNKNOWN
from ringfence.core.errors import BadInput, BadName, LockHeld, NotFound, RingfenceError
from ringfence.lvm2.backup import pack, to_file
from ringfence.wire import client as calls

M = 1 << 20
HERE = str(Path.cwd())


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("pvcreate /dev/sda", calls.PvCreate(("/dev/sda",))),
        ("pvcreate -ff -y disk.img /x", calls.PvCreate((HERE + "/disk.img", "/x"), force=True)),
        ("pvcreate --metadatasize 2m /x", calls.PvCreate(("/x",), metadata_size_bytes=2 * M)),
        ("vgcreate --shared vg0 /x /y", calls.VgCreate("vg0", ("/x", "/y"), shared=True)),
        ("vgcreate --shared -f -Zy -M2 --addtag a --alloc cling -l 5 -p 6 --setautoactivation n vg0 /x",
            calls.VgCreate("vg0", ("/x",), True, force=True, tags=("a",), policy="cling", max_lv=5, max_pv=6,
                autoactivation=False)),
        ("vgchange --refresh vg0", calls.LvChange("vg0", "", refresh=True)),
        ("vgchange -ay --sysinit --monitor n -d --journal x vg0",
            calls.LvChange("vg0", "", "ey", counted=True)),
        ("vgcreate vg0 /x", calls.VgCreate("vg0", ("/x",))),
        ("vgcreate --shared -s 8m vg0 /x", calls.VgCreate("vg0", ("/x",), True, 8 * M)),
        ("vgremove -f vg0", calls.VgRemove("vg0", True)),
        ("vgremove vg0", calls.VgRemove("vg0")),
        ("vgchange --lockstart", calls.VgChange("lockstart")),
        ("vgchange --lockstop vg0", calls.VgChange("lockstop", "vg0")),
        ("vgchange -an vg0", calls.LvChange("vg0", "", "n", 0, counted=True)),
        ("vgchange -an --disconnect vg0", calls.LvChange("vg0", "", "n", disconnect=True, counted=True)),
        ("lvchange -an --disconnect vg0/vm1", calls.LvChange("vg0", "vm1", "n", disconnect=True)),
        ("lvcreate -L 64M -n vm1 vg0", calls.LvCreate("vg0", "vm1", 64 * M)),
        ("lvcreate --size 64 -n vg0/vm1", calls.LvCreate("vg0", "vm1", 64 * M)),
        ("lvcreate -L64m vg0", calls.LvCreate("vg0", "", 64 * M)),
        ("lvcreate -l 100%FREE -n vm1 vg0", calls.LvCreate("vg0", "vm1", 0, 100, "FREE")),
        ("lvcreate -l 25 -an vg0 --wait 2.5", calls.LvCreate("vg0", "", 0, 25, "", "n", 2500)),
        ("lvcreate -l 25 -aey vg0", calls.LvCreate("vg0", "", 0, 25)),
        (
            "lvcreate -i2 -I 128 --alloc cling --addtag @a --addtag b -pr -L1g vg0 /dev/sda:0-9:20- @fast",
            calls.LvCreate(
                "vg0", "", 1 << 30, stripes=2, stripe_size_bytes=128 << 10, alloc="cling",
                pvs=("/dev/sda:0-9:20-", "@fast"), tags=("a", "b"), permission="r",
            ),
        ),
        ("lvcreate -Cy -l100%PVS -n vg0/x /dev/sda", calls.LvCreate(
            "vg0", "x", extents=100, percent="PVS", alloc="contiguous", pvs=("/dev/sda",))),
        ("lvcreate -Zy -Wn --type striped -L1m vg0", calls.LvCreate("vg0", "", M)),
        ("lvchange --addtag a --deltag @b -pr vg0/x", calls.LvChange(
            "vg0", "x", add_tags=("a",), drop_tags=("b",), permission="r")),
        ("handover vg0/x --to b", calls.LvHandover("vg0", "x", "b")),
        ("handover /dev/vg0/x --to=b --prepare", calls.LvHandover("vg0", "x", "b", prepare=True)),
        ("handover --abort vg0/x", calls.LvHandover("vg0", "x", abort=True)),
        ("lvchange --refresh vg0/x", calls.LvChange("vg0", "x", refresh=True)),
        ("lvextend -L+1g vg0/x", calls.LvResize("vg0", "x", 1 << 30, sign="+", only="extend")),
        ("lvextend -l +100%FREE vg0/x -i2 /dev/sda", calls.LvResize(
            "vg0", "x", extents=100, percent="FREE", sign="+", only="extend", stripes=2, pvs=("/dev/sda",))),
        ("lvextend vg0/x /dev/sda", calls.LvResize(
            "vg0", "x", extents=100, percent="PVS", sign="+", only="extend", pvs=("/dev/sda",))),
        ("lvreduce -f -L -1m vg0/x", calls.LvResize("vg0", "x", M, sign="-", only="reduce", force=True)),
        ("lvresize -l 50%VG vg0/x", calls.LvResize("vg0", "x", extents=50, percent="VG")),
        ("pvremove -ff /x", calls.PvRemove(("/x",), 2)),
        ("pvmove", calls.PvMove()),
        ("pvmove --abort", calls.PvMove(abort=True)),
        ("pvmove -b -i 5 -n vg0/vm1 --alloc anywhere /x:0-9:20- /y:5+5 @fast", calls.PvMove(
            "/x:0-9:20-", ("/y:5+5", "@fast"), "vm1", "anywhere", background=True)),
        ("pvmove -n vm1 disk.img:3", calls.PvMove(HERE + "/disk.img:3", lv="vm1")),
        ("pvresize --setphysicalvolumesize 1g -y /x", calls.PvResize(("/x",), 1 << 30, True)),
        ("pvck --dump headers /x", calls.PvCk("/x", "headers")),
        ("vgextend vg0 /x --metadatasize 2m", calls.VgExtend("vg0", ("/x",), metadata_size_bytes=2 * M)),
        ("vgextend --restoremissing vg0 /x", calls.VgExtend("vg0", ("/x",), restore_missing=True)),
        ("vgreduce vg0 /x", calls.VgReduce("vg0", ("/x",))),
        ("vgreduce -a vg0", calls.VgReduce("vg0", all=True)),
        ("vgreduce --removemissing -f vg0", calls.VgReduce("vg0", remove_missing=True, force=True)),
        ("vgrename /dev/vg0 vg1", calls.VgRename("vg0", "vg1")),
        ("vgck --updatemetadata vg0", calls.VgCk("vg0", True)),
        ("vgchange --addtag @a --alloc cling -xn -l0 -p 4 --setautoactivation y vg0", calls.VgSet(
            "vg0", ("a",), policy="cling", resizeable=False, max_lv=0, max_pv=4, autoactivation=True)),
        ("lvrename vg0 a b", calls.LvRename("vg0", "a", "b")),
        ("lvrename vg0/a b", calls.LvRename("vg0", "a", "b")),
        ("lvrename /dev/vg0/a /dev/vg0/b", calls.LvRename("vg0", "a", "b")),
        ("lvchange -aey vg0/vm1", calls.LvChange("vg0", "vm1", "ey", 0)),
        ("lvchange -aey -P vg0/vm1", calls.LvChange("vg0", "vm1", "ey", partial=True)),
        ("lvchange -ay --activationmode degraded vg0/vm1", calls.LvChange("vg0", "vm1", "ey")),
        ("vgchange -ay --activationmode partial vg0",
            calls.LvChange("vg0", "", "ey", partial=True, counted=True)),
        ("vgchange -s 8m vg0", calls.VgSet("vg0", extent_size_bytes=8 * M)),
        ("lvreduce -f -L -1m --no-wipe vg0/x", calls.LvResize(
            "vg0", "x", M, sign="-", only="reduce", force=True, wipe=False)),
        ("lvchange -ay vg0/vm1", calls.LvChange("vg0", "vm1", "ey", 0)),
        ("lvchange -asy --wait forever vg0/vm1", calls.LvChange("vg0", "vm1", "sy", None)),
        ("lvchange -a n vg0", calls.LvChange("vg0", "", "n", 0)),
        ("lvchange --activate n /dev/mapper/a--vg-vm--1", calls.LvChange("a-vg", "vm-1", "n", 0)),
        ("lvextend -L 1g /dev/mapper/vg0-x /dev/mapper/mpatha", calls.LvResize(
            "vg0", "x", 1024 * M, only="extend", pvs=("/dev/mapper/mpatha",))),
        ("lvcreate -l1 -n x /dev/vg0 /dev/sda", calls.LvCreate("vg0", "x", extents=1, pvs=("/dev/sda",))),
        ("vgextend /dev/vg0 /dev/mapper/mpatha", calls.VgExtend("vg0", ("/dev/mapper/mpatha",))),
        ("vgchange --addtag t /dev/vg0", calls.VgSet("vg0", add_tags=("t",))),
        ("lvrename /dev/mapper/vg0-a /dev/mapper/vg0-b", calls.LvRename("vg0", "a", "b")),
        ("lvchange --activate n /dev/vg0/vm1", calls.LvChange("vg0", "vm1", "n", 0)),
        (
            "lvcreate -l 50%PVS -i 2 -I 16 -C y --addtag a --addtag b -p r -n vm1 vg0 /x:0-9:20- @ssd",
            calls.LvCreate(
                "vg0", "vm1", 0, 50, "PVS", stripes=2, stripe_size_bytes=16 << 10, alloc="contiguous",
                pvs=("/x:0-9:20-", "@ssd"), tags=("a", "b"), permission="r",
            ),
        ),
        ("lvchange --addtag a --deltag b vg0/vm1", calls.LvChange("vg0", "vm1", "", 0, ("a",), ("b",))),
        ("lvchange -pr -Cn vg0/vm1", calls.LvChange("vg0", "vm1", permission="r", alloc="inherit")),
        ("lvchange --refresh vg0", calls.LvChange("vg0", "", refresh=True)),
        ("lvextend -L +1g vg0/vm1", calls.LvResize("vg0", "vm1", 1024 * M, sign="+", only="extend")),
        (
            "lvextend -l +50%FREE --alloc cling vg0/vm1 /x",
            calls.LvResize(
                "vg0", "vm1", 0, 50, "FREE", "+", "extend", alloc="cling", pvs=("/x",),
            ),
        ),
        ("lvreduce -f -L 1g /dev/vg0/vm1", calls.LvResize("vg0", "vm1", 1024 * M, only="reduce", force=True)),
        ("lvresize -l 80%LV vg0/vm1", calls.LvResize("vg0", "vm1", 0, 80, "LV")),
        ("lvrename vg0 vm1 vm2", calls.LvRename("vg0", "vm1", "vm2")),
        ("lvrename /dev/vg0/vm1 /dev/vg0/vm2", calls.LvRename("vg0", "vm1", "vm2")),
        ("lvrename vg0/vm1 vm2", calls.LvRename("vg0", "vm1", "vm2")),
        ("lvremove vg0/vm1", calls.LvRemove("vg0", "vm1")),
        ("lvremove -y vg0/vm1", calls.LvRemove("vg0", "vm1", True)),
    ],
)
def test_words_become_requests(daemon: CannedDaemon, run: Run, words: str, call: calls.Call) -> None:
    ran = run(*words.split())
    assert (ran.code, ran.err) == (0, "")
    assert daemon.calls == [call]


@pytest.mark.parametrize(
    "words",
    [
        "lvcreate -n vm1 vg0",
        "lvcreate -L 64m -l 25 vg0",
        "lvcreate -L 64m",
        "lvcreate -L 64m -n vg1/vm1 vg0",
        "lvcreate -L 64m --name= vg0",
        "lvcreate -L 0 vg0",
        "lvcreate -L 64q vg0",
        "lvextend vg0/x",
        "vgreduce vg0",
        "vgreduce -a vg0 /x",
        "vgextend vg0",
        "vgrename vg0",
        "pvck --dump all /x",
        "vgchange -xmaybe vg0",
        "vgchange --addtag a",
        "lvextend -L -1g vg0/x",
        "lvreduce -L +1g vg0/x",
        "lvreduce -L 1g vg0",
        "lvrename vg0/a vg1/b",
        "lvrename vg0/a",
        "lvcreate -p x -L1m vg0",
        "lvcreate --alloc odd -L1m vg0",
        "lvcreate -L 64m -ax vg0",
        "lvcreate -L 64m --size 32m vg0",
        "lvcreate -L 64m vg0/vm1",
        "lvchange vg0/vm1",
        "lvchange -aey",
        "lvchange -aey vg0/",
        "lvchange -aey vg0/a/b",
        "lvchange -aey --wait soon vg0/vm1",
        "lvchange -aey --wait -1 vg0/vm1",
        "lvremove vg0/",
        "handover vg0/x",
        "handover vg0 --to b",
        "handover vg0/x --abort --to b",
        "vgchange vg0",
        "vgchange --lockstart -an vg0",
        "vgcreate vg0",
        "pvcreate",
        "vgremove",
    ],
)
def test_a_wrong_line_ends_with_3_and_asks_nobody(daemon: CannedDaemon, run: Run, words: str) -> None:
    ran = run(*words.split())
    assert (ran.code, ran.out, daemon.calls) == (3, "", [])
    assert ran.err.count("\n") == 1
    assert f"see `ringfence {words.split()[0]} --help`" in ran.err


@pytest.mark.parametrize(
    ("words", "what", "line"),
    [
        ("lvcreate --type raid1 -m1 -L1g -n x vg0", "mirrors", "lvcreate --type raid1 -m1 -L1g -n x vg0"),
        ("lvcreate --type=raid5 -L1g -n x vg0", "segment type raid5", "lvcreate --type=raid5 -L1g -n x vg0"),
        ("lvcreate -L 64m --thin vg0", "thin volumes", "lvcreate -L 64m --thin vg0"),
        ("lvcreate -yTL64m vg0/pool --json", "thin volumes", "lvcreate -yTL64m vg0/pool"),
        ("lvcreate -sn snap -L1g vg0/vm1 --wait 5", "snapshots", "lvcreate -sn snap -L1g vg0/vm1"),
        ("lvcreate --cachepool fast -L1g vg0", "caching", "lvcreate --cachepool fast -L1g vg0"),
        ("lvcreate --vdo -L9g -V1t vg0", "VDO", "lvcreate --vdo -L9g -V1t vg0"),
        ("lvconvert --type raid1 vg0/x", "lvconvert", "lvconvert --type raid1 vg0/x"),
        ("pvcreate -Zn /x", "a PV whose first sectors are left as they are", "pvcreate -Zn /x"),
        ("vgextend --metadataignore y vg0 /x", "an ignored metadata area",
            "vgextend --metadataignore y vg0 /x"),
        ("lvs --config x=1 vg0", "another configuration", "lvs --config x=1 vg0"),
        ("vgsplit vg0 'a b'", "vgsplit", "vgsplit vg0 'a b'"),
    ],
)
def test_what_is_left_to_stock_lvm2_is_said_as_the_command(
    daemon: CannedDaemon, run: Run, words: str, what: str, line: str
) -> None:
    ran = run(*shlex.split(words), "--json")
    assert ran.code == 3
    assert (ran.json["error"]["code"], daemon.calls) == ("left-to-lvm2", [])
    told = run(*(word for word in shlex.split(words) if word != "--json"))
    assert told.err == f"  {what}: left to stock LVM2, whose locks ringfence serves; run: lvm {line}\n"


@pytest.mark.parametrize(
    ("words", "call"),
    [
        ("lvcreate -yan -L64m vg0", calls.LvCreate("vg0", "", 64 * M, activate="n")),
        ("lvcreate --si 64m --na=x vg0", calls.LvCreate("vg0", "x", 64 * M)),
        ("lvcreate vg0 -L 64m -- ", calls.LvCreate("vg0", "", 64 * M)),
        ("lvchange -qqv -a=n vg0/vm1", None),
        ("lvcreate -L 64m -L 8m vg0", None),
        ("lvcreate --s 64m vg0", None),
        ("lvcreate --name", None),
        ("lvcreate --yes=1 -L1m vg0", None),
        ("lvcreate -t -L 64m vg0", None),
    ],
)
def test_words_are_taken_apart_as_getopt_does(
    daemon: CannedDaemon, run: Run, words: str, call: calls.Call | None
) -> None:
    ran = run(*words.split())
    assert daemon.calls == ([call] if call else [])
    assert ran.code == (0 if call else 3)


def test_lvcreate_prints_where_it_can_be_used(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: {
        "message": 'Logical volume "vm1" created.',
        "path": "/run/ringfence/dev/vg0/vm1",
        "uri": "nbd+unix:///vm1?socket=/run/ringfence/dev/vg0/vm1",
        "notes": ["Rounding up size to full physical extent 64.00 MiB", "WARNING: /var is full"],
    }
    ran = run("lvcreate", "-L", "63M", "vg0")
    assert ran.out == (
        "  Rounding up size to full physical extent 64.00 MiB\n"
        '  Logical volume "vm1" created.\n'
        "  /run/ringfence/dev/vg0/vm1\n"
        "  nbd+unix:///vm1?socket=/run/ringfence/dev/vg0/vm1\n"
    )
    assert ran.err == "  WARNING: /var is full\n"


def test_lvremove_of_a_vg_removes_each_of_its_lvs(daemon: CannedDaemon, run: Run) -> None:
    told = {"columns": {"lv_name": ["vm1", "vm2"]}}
    daemon.answer = lambda call: told if isinstance(call, calls.Lvs) else {"message": "removed"}
    ran = run("lvremove", "-f", "vg0", "vg1/vm9")
    assert (ran.code, ran.err) == (0, "")
    removed = [calls.LvRemove("vg0", "vm1", True), calls.LvRemove("vg0", "vm2", True)]
    asked = calls.Lvs("vg0", fields=("lv_name",))
    assert daemon.calls == [asked, *removed, calls.LvRemove("vg1", "vm9", True)]


def test_a_daemon_that_was_not_restarted_yet_tells_of_each(daemon: CannedDaemon, run: Run) -> None:
    """Only with --json each is asked for."""

    def old(call: Any) -> Any:
        if call.counted:
            raise BadInput(f"{UNKNOWN}: Object contains unknown field `counted`")
        return {"message": "1 logical volume(s)", "lvs": [{"name": "a"}]}

    daemon.answer = old
    ran = run("vgchange", "-aey", "vg0")
    assert (ran.code, ran.out) == (0, "  1 logical volume(s)\n")
    daemon.calls.clear()
    assert '"name": "a"' in run("vgchange", "-aey", "vg0", "--json").out
    assert daemon.calls == [calls.LvChange("vg0", "", "ey")]


def test_vgchange_without_names_is_for_the_clusters_vgs(daemon: CannedDaemon, run: Run) -> None:
    shared = {"vg0": "1.0.0:ring", "other": "1.0.0:elsewhere", "vg1": "1.0.0:ring"}
    rows = [{"vg_name": vg, "vg_lock_type": "dlm", "vg_lock_args": args} for vg, args in shared.items()]
    rows.append({"vg_name": "local", "vg_lock_type": "none", "vg_lock_args": ""})
    told: dict[type, Any] = {calls.Status: {"cluster": "ring"}, calls.Vgs: {"rows": rows}}
    daemon.answer = lambda call: told.get(type(call), {"message": ""})
    for words, change in (
        ("-an", calls.LvChange("", "", "n", counted=True)),
        ("-aey --wait 5", calls.LvChange("", "", "ey", 5000, counted=True)),
        ("-asy", calls.LvChange("", "", "sy", counted=True)),
        ("--refresh", calls.LvChange("", "", refresh=True)),
    ):
        daemon.calls.clear()
        assert run("vgchange", *words.split()).code == 0
        assert daemon.calls[2:] == [msgspec.structs.replace(change, vg=vg) for vg in ("vg0", "vg1")]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("lvchange -an -S lv_size>1m", ["vg0/b", "vg1/c"]),
        ("lvchange -an -S lv_size>1m vg1", ["vg1/c"]),
        ("lvchange -an -S name=a vg0/a vg0/b", ["vg0/a"]),
        ("lvchange -an -S name=nosuch", []),
        ("lvremove -y -S all vg0", ["vg0/a", "vg0/b"]),
        ("vgchange -an -S vg_free=0", ["vg1/"]),
        ("vgremove -S vg_name=~0 ", ["vg0/"]),
        ("lvchange -an -S vg_free=0", ["vg1/c"]),
    ],
)
def test_verbs_can_be_told_what_by_a_selection(
    daemon: CannedDaemon, run: Run, words: str, names: list[str]
) -> None:
    columns = {"lv_name": ["a", "b", "c"], "vg_name": ["vg0", "vg0", "vg1"], "lv_size": [M, 2 * M, 3 * M]}

    def answer(call: calls.Call) -> Any:
        if isinstance(call, calls.Lvs):
            return {"columns": {field: columns[field] for field in call.fields}}
        if isinstance(call, calls.Vgs):
            return {"rows": [{"vg_name": "vg0", "vg_free": M}, {"vg_name": "vg1", "vg_free": 0}]}
        return {}

    daemon.answer = answer
    ran = run(*words.split())
    done = [call for call in daemon.calls if not isinstance(call, calls.Lvs | calls.Vgs)]
    assert (ran.code, ran.err) == (0, "")
    assert [f"{call.vg}/{getattr(call, 'lv', '')}" for call in done] == names


@pytest.mark.parametrize(
    ("kinds", "code"), [([BadName], 3), ([BadInput], 5), ([BadName, BadName], 3), ([BadName, LockHeld], 5)]
)
def test_a_name_that_cannot_be_is_a_bad_command_line(
    daemon: CannedDaemon, run: Run, kinds: list[type[RingfenceError]], code: int
) -> None:
    """LVM2's exit codes: 3 for what the words alone show, 5 for what failed, the greatest of any."""
    left = list(kinds)

    def answer(call: calls.Call) -> Any:
        raise left.pop(0)("no")

    daemon.answer = answer
    assert run("lvremove", *(f"vg0/vm{number}" for number in range(len(kinds)))).code == code


def test_a_selection_that_cannot_be_changes_nothing(daemon: CannedDaemon, run: Run) -> None:
    for words in ("lvremove -y -S nosuch=1", "lvremove -y -S lv_size>", "vgremove -S lv_name=x"):
        ran = run(*words.split())
        assert ran.code == 5
        assert not any(isinstance(call, calls.LvRemove | calls.VgRemove) for call in daemon.calls)


def test_a_backup_goes_where_it_is_wanted_and_comes_back(
    daemon: CannedDaemon, run: Run, tmp_path: Path
) -> None:
    text = b'vg0 {\nid = "u"\nseqno = 7\n}\n'
    daemon.answer = lambda call: {"message": "done", "vg": "vg0"}
    backup = tmp_path / "var/lib/ringfence/backup/vg0"
    backup.parent.mkdir(parents=True)
    backup.write_bytes(to_file(text, "ringfence lvcreate vg0/vm1", "n1", 1_700_000_000))
    archive = tmp_path / "var/lib/ringfence/archive/vg0_00003-00000abc.vg"
    archive.parent.mkdir()
    archive.write_bytes(to_file(text, "before 'ringfence lvremove'", "n1", 1_700_000_001))
    (archive.parent / "vg0_x_00003-00000abc.vg").write_bytes(archive.read_bytes())
    socket = ("--root", str(tmp_path), "--socket", str(daemon.path))
    assert run("vgcfgbackup", "-f", str(tmp_path / "%s.vg"), "vg0", *socket) == (0, "  done\n", "")
    assert (tmp_path / "vg0.vg").read_bytes() == backup.read_bytes()
    assert run("vgcfgrestore", "vg0", "-f", str(tmp_path / "vg0.vg"), *socket).code == 0
    assert run("vgcfgrestore", "vg0", *socket).code == 0
    restore = calls.VgCfgRestore("vg0", pack(backup.read_bytes()))
    assert daemon.calls == [calls.VgCfgBackup("vg0"), restore, restore]
    told = run("vgcfgrestore", "--list", "vg0", "--json", *socket).json["files"]
    assert [(one["file"], one["seqno"]) for one in told] == [(str(archive), 7), (str(backup), 7)]
    assert "Description:\tbefore 'ringfence lvremove'" in run("vgcfgrestore", "-l", "vg0", *socket).out
    gone = run("vgcfgrestore", "vg1", *socket)
    assert (gone.code, "cannot read" in gone.err) == (5, True)
    assert run("vgcfgbackup", "-f", "/x", "vg0", "vg1", *socket).code == 3
    full = run("vgcfgbackup", "-f", "/dev/full", "vg0", *socket)
    assert (full.code, full.out) == (5, "")
    assert full.err == "  vg0: cannot write /dev/full: No space left on device; give another --file\n"
    assert run("vgcfgbackup", "-f", "/dev/full", "vg0", "--json", *socket).json["error"]["next"]


def test_vgck_without_names_is_for_all(daemon: CannedDaemon, run: Run) -> None:
    rows = [{"vg_name": "vg0"}, {"vg_name": "vg1"}]
    daemon.answer = lambda call: {"rows": rows} if isinstance(call, calls.Vgs) else {}
    assert run("vgck").code == 0
    assert daemon.calls == [calls.Vgs(), calls.VgCk("vg0"), calls.VgCk("vg1")]


def test_pvck_says_what_is_wrong_and_fails(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: {"lines": ["label in order"], "problems": ["the metadata are damaged"]}
    ran = run("pvck", "/x")
    assert ran == (5, "  label in order\n", "  the metadata are damaged\n")
    assert run("pvck", "--dump", "metadata", "/x").out == "label in order\n"


def refuse(call: calls.Call) -> Any:
    assert isinstance(call, calls.LvChange)
    if call.lv == "vm1":
        raise LockHeld("an-a01n01 holds it EX", node="an-a01n01", next="ringfence why vg0/vm1", retry=True)
    return {"message": "", "vg": call.vg, "name": call.lv}


def test_a_refusal_names_the_volume_and_the_rest_goes_on(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = refuse
    ran = run("lvchange", "-aey", "vg0/vm1", "vg0/vm2")
    assert (ran.code, ran.out, len(daemon.calls)) == (5, "", 2)
    assert ran.err == "  vg0/vm1: an-a01n01 holds it EX; ringfence why vg0/vm1\n" or ran.err == (
        "  an-a01n01 holds it EX; ringfence why vg0/vm1\n"
    )


def test_a_refusal_as_json(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = refuse
    ran = run("lvchange", "-aey", "vg0/vm1", "vg0/vm2", "--json")
    assert (ran.code, ran.err) == (5, "")
    error = {
        "code": "lock-held",
        "message": "an-a01n01 holds it EX",
        "node": "an-a01n01",
        "next": "ringfence why vg0/vm1",
        "retry": True,
    }
    assert ran.json == {
        "version": 1,
        "results": [{"message": "", "vg": "vg0", "name": "vm2"}],
        "error": error,
        "errors": [error],
    }


class Background:
    """A daemon that has an LV to zero or wipe: some percents further at each look."""

    def __init__(self, *percents: str, gone: bool, here: int | None = None) -> None:
        self.percents = list(percents)
        self.gone = gone
        self.here = here
        """Bytes of 200 that this host has done."""

    def __call__(self, call: calls.Call) -> Any:
        if isinstance(call, calls.Lvs):
            if not self.percents and self.gone:
                raise NotFound("no such LV")
            percent = self.percents.pop(0) if self.percents else ""
            return {"columns": {"lv_uuid": ["u"], "copy_percent": [percent]}}
        if isinstance(call, calls.Status):
            mine = {"vg": "vg0", "lv": "x_wiping", "done_bytes": self.here, "size_bytes": 200}
            return {"wiping": [] if self.here is None else [mine]}
        if isinstance(call, calls.LvChange):
            return {"vg": "vg0", "name": "x", "path": "/run/x", "uri": "nbd+unix:///x"}
        unclean = {"unclean": "x_wiping" if self.gone else "x", "uuid_unclean": "u"}
        later = "5 extents are being wiped, and free after that."
        message = f"removed\n{later}" if isinstance(call, calls.LvRemove) else "done"
        notes = ["rounded", later] if isinstance(call, calls.LvResize) else ["rounded"]
        return {"message": message, "vg": "vg0", "name": "x", "notes": notes, **unclean}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreground, "POLL_S", 0)


@pytest.mark.usefixtures("quick")
def test_in_the_foreground_it_is_said_how_far_the_wiping_is(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = Background("0.00", "40.00", "40.00", gone=True)
    ran = run("lvremove", "--foreground", "vg0/x")
    lines = ["vg0/x_wiping: 0.00%", "vg0/x_wiping: 40.00%", "vg0/x_wiping: 100.00%", "removed"]
    assert (ran.code, ran.out.split("\n")) == (0, [*(f"  {line}" for line in lines), ""])
    daemon.answer = Background("0.00", gone=True, here=50)
    ran = run("lvreduce", "-f", "-l", "-1", "--foreground", "vg0/x")
    assert (ran.out, ran.err) == ("  vg0/x_wiping: 25.00%\n  vg0/x_wiping: 100.00%\n  done\n", "  rounded\n")
    daemon.answer = Background("0.00", gone=True)
    assert "0.00%" not in run("lvremove", "-q", "--foreground", "vg0/x").out
    daemon.answer = Background("0.00", gone=True)
    assert run("lvremove", "--json", "--foreground", "vg0/x").json["results"][0]["message"] == "removed"
    daemon.answer = Background("0.00", gone=True)
    assert "free after that" in run("lvremove", "vg0/x").out, "without it, nobody waits"


@pytest.mark.usefixtures("quick")
def test_in_the_foreground_an_lv_is_activated_when_it_is_zeroed(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = Background("50.00", gone=False)
    ran = run("lvcreate", "--foreground", "-L", "1g", "-n", "x", "vg0")
    lines = ["vg0/x: 50.00%", "vg0/x: 100.00%", "done", "/run/x", "nbd+unix:///x"]
    assert (ran.code, ran.out.split("\n")) == (0, [*(f"  {line}" for line in lines), ""])
    made, active = daemon.calls[0], daemon.calls[-1]
    assert isinstance(made, calls.LvCreate)
    assert (made.activate, active) == ("n", calls.LvChange("vg0", "x", "ey", None))
    daemon.calls.clear()
    daemon.answer = Background(gone=False)
    assert run("lvcreate", "--foreground", "-an", "-L", "1g", "-n", "x", "vg0").code == 0
    assert not any(isinstance(call, calls.LvChange) for call in daemon.calls)


@pytest.mark.usefixtures("quick")
def test_who_cannot_tell_how_far_it_is_says_so_and_fails(daemon: CannedDaemon, run: Run) -> None:
    canned = Background("0.00", gone=True)

    def answer(call: calls.Call) -> Any:
        if isinstance(call, calls.Lvs):
            raise LockHeld("made to fail")
        return canned(call)

    daemon.answer = answer
    ran = run("lvremove", "--foreground", "vg0/x")
    assert (ran.code, ran.out.splitlines()[0]) == (5, "  removed")
    assert "how far it is, is not known: made to fail; see: ringfence why vg0/x_wiping" in ran.err


# -- all of LVM2's options ---------------------------------------------------------------------


def stocks_options(name: str) -> dict[str, bool]:
    """Long option -> whether a value follows, as the installed LVM2 has them."""
    done = subprocess.run([name, "--longhelp"], capture_output=True, text=True, check=True, close_fds=True)
    lines = re.findall(r"^\s*[\[(]? *(?:-.\|)?\s*--[a-z].*$", done.stdout, re.MULTILINE)
    words = re.findall(r"--([a-z]+)( [^\s\])|,]+)?", "\n".join(lines))
    found: dict[str, bool] = {}
    for option, value in words:
        # An option that two variants of the command spell alike has a value in each.
        found[f"--{option}"] = found.get(f"--{option}", False) or bool(value)
    return found


OURS = ("handover",)


@pytest.mark.parametrize("name", [name for name in ROOMS if name not in OURS])
def test_every_option_of_lvm2s_is_taken_or_refused_with_the_command_that_has_it(name: str) -> None:
    known = {option: one for one in _every(verb(name)) for option in one.names}
    theirs = stocks_options(name)
    assert "--yes" in theirs
    assert [option for option in theirs if option not in known] == []
    wrong = [option for option, value in theirs.items() if takes_value(known[option]) is not value]
    assert wrong == [], "the word behind it would be taken for something else"
