"""The volume verbs: which request goes out for which words, what is printed, how it ends."""

from pathlib import Path
from typing import Any

import pytest
from cli_daemon import CannedDaemon
from conftest import Run

from ringfence.core.errors import LockHeld
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
        ("vgcreate vg0 /x", calls.VgCreate("vg0", ("/x",))),
        ("vgcreate --shared -s 8m vg0 /x", calls.VgCreate("vg0", ("/x",), True, 8 * M)),
        ("vgremove -f vg0", calls.VgRemove("vg0", True)),
        ("vgremove vg0", calls.VgRemove("vg0")),
        ("vgchange --lockstart", calls.VgChange("lockstart")),
        ("vgchange --lockstop vg0", calls.VgChange("lockstop", "vg0")),
        ("vgchange -an vg0", calls.LvChange("vg0", "", "n", 0)),
        ("lvcreate -L 64M -n vm1 vg0", calls.LvCreate("vg0", "vm1", 64 * M)),
        ("lvcreate --size 64 -n vg0/vm1", calls.LvCreate("vg0", "vm1", 64 * M)),
        ("lvcreate -L64m vg0", calls.LvCreate("vg0", "", 64 * M)),
        ("lvcreate -l 100%FREE -n vm1 vg0", calls.LvCreate("vg0", "vm1", 0, 100, "FREE")),
        ("lvcreate -l 25 -an vg0 --wait 2.5", calls.LvCreate("vg0", "", 0, 25, "", "n", 2500)),
        ("lvcreate -l 25 -aey vg0", calls.LvCreate("vg0", "", 0, 25)),
        ("lvchange -aey vg0/vm1", calls.LvChange("vg0", "vm1", "ey", 0)),
        ("lvchange -ay vg0/vm1", calls.LvChange("vg0", "vm1", "ey", 0)),
        ("lvchange -asy --wait forever vg0/vm1", calls.LvChange("vg0", "vm1", "sy", None)),
        ("lvchange -a n vg0", calls.LvChange("vg0", "", "n", 0)),
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
        "lvcreate -L 0 vg0",
        "lvcreate -L 64q vg0",
        "lvcreate -l 50%OF vg0",
        "lvcreate -l +50%FREE vg0",
        "lvextend -L +1g -l +5 vg0/vm1",
        "lvextend vg0/vm1",
        "lvextend -L +1g vg0",
        "lvreduce -r -L 1g vg0/vm1",
        "lvrename vg0/vm1",
        "lvrename vg0/vm1 vg1/vm1",
        "lvrename vg0 vm1",
        "lvcreate -L 64m -ax vg0",
        "lvcreate -L 64m --thin vg0",
        "lvchange vg0/vm1",
        "lvchange -aey",
        "lvchange -aey vg0/",
        "lvchange -aey vg0/a/b",
        "lvchange -aey --wait soon vg0/vm1",
        "lvchange -aey --wait -1 vg0/vm1",
        "lvremove vg0/",
        "vgchange vg0",
        "vgchange -an",
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


def test_lvcreate_prints_where_it_can_be_used(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: {
        "message": 'Logical volume "vm1" created.',
        "path": "/run/ringfence/dev/vg0/vm1",
        "uri": "nbd+unix:///vm1?socket=/run/ringfence/dev/vg0/vm1",
        "notes": ["Rounding up size to full physical extent 64.00 MiB"],
    }
    ran = run("lvcreate", "-L", "63M", "vg0")
    assert ran.out == (
        '  Logical volume "vm1" created.\n'
        "  /run/ringfence/dev/vg0/vm1\n"
        "  nbd+unix:///vm1?socket=/run/ringfence/dev/vg0/vm1\n"
    )
    assert ran.err == "  Rounding up size to full physical extent 64.00 MiB\n"


def test_lvremove_of_a_vg_removes_each_of_its_lvs(daemon: CannedDaemon, run: Run) -> None:
    rows = [{"lv_name": "vm1"}, {"lv_name": "vm2"}]
    daemon.answer = lambda call: {"rows": rows} if isinstance(call, calls.Lvs) else {"message": "removed"}
    ran = run("lvremove", "-f", "vg0", "vg1/vm9")
    assert (ran.code, ran.err) == (0, "")
    removed = [calls.LvRemove("vg0", "vm1", True), calls.LvRemove("vg0", "vm2", True)]
    assert daemon.calls == [calls.Lvs("vg0"), *removed, calls.LvRemove("vg1", "vm9", True)]


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
