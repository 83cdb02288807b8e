"""pvs, vgs, lvs and their selection beside stock LVM2's on the same devices: the same bytes, the same rows.

Both read the same loop devices, without device-mapper and without locks.  Two fields differ, and are taken
out: stock LVM2 cannot tell (without device-mapper) whether an LV is active, and says so in lv_attr; and
who holds an LV is ringfence's own column."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_world import MIB, World
from stock_lvm import Stock

from ringfence.cli import main
from ringfence.cli.verbs import run as verbs_run
from ringfence.storage import Storage
from ringfence.wire.client import Call

LVS = "-lv_attr,lv_holder"


class Pair:
    """One command line, both ways."""

    def __init__(self, stock: Stock, capsys: pytest.CaptureFixture[str]) -> None:
        self.stock = stock
        self._capsys = capsys

    def theirs(self, line: str) -> tuple[int, str]:
        code, out, _ = self.stock.try_run(*shlex.split(line), lvmlockd=False)
        return code, out

    def ours(self, line: str) -> tuple[int, str]:
        self._capsys.readouterr()
        code = main(shlex.split(line))
        return code, self._capsys.readouterr().out


def brief(node: Any) -> type:
    """A daemon's client that asks the commands of `node` themselves."""

    class Direct:
        def __init__(self, path: str | None, retry_ms: int) -> None:
            self.path = "/run/ringfence/socket"

        def __enter__(self) -> "Direct":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def call(self, call: dict[str, Any]) -> Any:
            return json.loads(msgspec.json.encode(node.run(msgspec.convert(call, Call))))

    return Direct


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stock, World]]:
    directory = tmp_path_factory.mktemp("reports")
    world = World(Path(directory), (128 * MIB, 192 * MIB, 256 * MIB, 96 * MIB))
    stock = Stock(Path(directory))
    try:
        one, two, spare, other = stock.attach(*world.images)
        quiet = ("-an", "-Zn", "-Wn")

        def do(*words: str) -> None:
            stock.run(*words, lvmlockd=False, quiet=False)

        do("vgcreate", "vg0", one, two)
        do("pvcreate", spare)
        do("vgcreate", "-s", "1m", "--addtag", "far", "a-vg", other)
        do("lvcreate", *quiet, "-L8m", "-n", "a", "--addtag", "t1", "--addtag", "t2", "vg0")
        do("lvcreate", *quiet, "-L20m", "-i2", "-n", "b", "vg0")
        do("lvextend", "-L12m", "vg0/a")
        do("lvcreate", *quiet, "-L40m", "-n", "data-1", "-pr", "--addtag", "t1", "vg0")
        do("lvcreate", *quiet, "-l13", "-n", "x", "-C", "y", "a-vg")
        do("lvcreate", *quiet, "-L1m", "-n", "y", "a-vg")
        yield stock, world
    finally:
        stock.close()


@pytest.fixture
def pair(
    disks: tuple[Stock, World], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Pair:
    stock, world = disks
    node = world.node()
    node.storage = Storage(list(stock.loops.values()), node.guards.append)
    monkeypatch.setattr(verbs_run, "Brief", brief(node))
    return Pair(stock, capsys)


TABLES = [
    "pvs", "pvs -v", "pvs --segments", "pvs --noheadings", "pvs --units b", "pvs --units B --nosuffix",
    "pvs --units 4m", "pvs --units 1g",
    "pvs --units 1.5G", "pvs --units 2r", "pvs --units 512b --nosuffix", "pvs --units 3s", "pvs --units 0.1k",
    "pvs --units h", "pvs --units H", "pvs --units R", "pvs --units S", "pvs --units s", "pvs --units g",
    "pvs --units M", "pvs --units t --nosuffix", "pvs -o +pv_used,pv_tags,pv_mda_count,pv_in_use",
    "pvs -o pv_all", "pvs -o all", "pvs -o name,size,attr -O -size", "pvs -O pv_free,-pv_name",
    "pvs -o +vg_size,vg_free", "pvs -o pv_name,pv_major,pv_minor,dev_size,pe_start,pv_uuid",
    "pvs -o pv_name,pv_allocatable,pv_exported,pv_missing --binary",
    "pvs --segments -o pv_name,pvseg_all,lv_name,segtype",
    "pvs -o pv_name,seg_start,seg_size,seg_size_pe,stripes,stripe_size,seg_pe_ranges,devices,lv_size,lv_tags",
    "pvs --nameprefixes", "pvs --rows",
    "pvs --separator :", "pvs --separator : --aligned",
    "vgs", "vgs -v", "vgs vg0", "vgs -o all", "vgs -o vg_all --units k", "vgs --noheadings -o name,tags",
    "vgs @far", "vgs -o +pv_name", "vgs -o +lv_name", "vgs -o vg_name,lv_name,lv_size vg0",
    "vgs --nameprefixes --unquoted", "vgs --rows --noheadings", "vgs --rows --aligned --separator ' | '",
    "vgs -o#vg_tags", "vgs -o+vg_tags -o#", "vgs --reportformat json", "vgs -o vg_permissions,vg_extendable",
    f"lvs -o {LVS}", "lvs -o lv_name,vg_name,lv_size", "lvs -o name,size vg0", "lvs -o lv_name vg0/a",
    "lvs -o lv_name /dev/vg0/a", "lvs -o lv_name /dev/mapper/vg0-data--1",
    "lvs -o lv_name /dev/mapper/a--vg-y",
    "lvs -o lv_name,devices", "lvs -o lv_name,seg_pe_ranges,segtype,stripes --separator ,",
    "lvs --segments -o -lv_attr", "lvs --segments -v -o -lv_attr", "lvs -o lv_name,lv_tags,lv_layout,lv_role",
    "lvs -o lv_name,lv_size -O size", "lvs -o lv_name -O -vg_name,lv_name", "lvs -o lv_name,vg_name @t1",
    "lvs -v -o -lv_attr,lv_holder,lv_uri", "lvs -o lv_name,lv_time,lv_host", "lvs -o lv_full_name,lv_dm_path",
    "lvs -o lv_allocation_policy,lv_major,lv_minor,lv_read_ahead,seg_count --noheadings",
    "lvs -o lv_name,lv_size --units b --nosuffix --reportformat json", "lvs -o lv_name --nameprefixes --rows",
    "lvs --segments -o lv_name,seg_start,seg_start_pe,seg_size,seg_size_pe,stripe_size,data_stripes",
    "vgs -o +vg_name", "vgs -o -vg_size,vg_free -o +vg_free",
    "lvs -o lvname,LVSIZE", "lvs -o lv_name,lv_name", "lvs -o lv_name,vg_size,vg_free,vg_extent_size",
    "lvs -o lv_name,selected -S lv_size>9m",
    "lvs --reportformat json -o lv_name nothere",
]  # fmt: skip


@pytest.mark.parametrize("line", TABLES)
def test_the_same_bytes(pair: Pair, line: str) -> None:
    assert pair.ours(line) == pair.theirs(line)


SELECTIONS = [
    "all", "", "lv_size=12m", "lv_size!=12m", "lv_size>12m", "lv_size>=12m", "lv_size<12m", "lv_size<=12",
    "lv_size=12582912b", "lv_size=24576s", "lv_size>1.5e", "lv_size>0.01G",
    "lv_name=a", "lv_name!=a", "lv_name='a'", 'lv_name="a"', "lv_name=~^.$", "lv_name!~a", "lv_name=~'(a|b)'",
    "lv_name=~[a-b]", "name=a || name=b", "name=a#name=x", "name=a,vg_name=vg0", "name=a && size>20m",
    "!(name=a)", "!( name=a || name=b )", "(name=a)", "((name=a || name=b) && size>12m)",
    "name=a || name=b && size>20m", "lv_tags=t1", "lv_tags!=t1", "lv_tags=[t1]", "lv_tags=[t1,t2]",
    "lv_tags=[t2 && t1]", "lv_tags=[t1||t9]", "lv_tags={t1}", "lv_tags={t1,t2}", "lv_tags={t1||t9}",
    "lv_tags={t1&&t9}", 'lv_tags=""', "lv_tags={}", "seg_count>1", "seg_count=1", "lv_major=-1",
    "lv_major=undefined", "lv_major>0", "lv_major=unknown", "lv_time>2020", "lv_time since 2020-01-01",
    "lv_time before 2020-06", "lv_time until '2020-01-01 10:00'", "lv_time after '2020-01-01 10:00 +0200'",
    "lv_time>=@0", "lv_time=2019", "lv_read_ahead=auto", "vg_size>100m", "vg_name=~vg$",
    "vg_extendable=extendable", "vg_extendable=1", "vg_permissions=rw", "vg_permissions=writeable",
    "vg_permissions=read-only", "lv_allocation_policy=contiguous", "segtype=striped", "stripes>1",
    "lv_layout=linear", "lv_layout=[linear]", "lv_role=public", "data_percent<50", "lv_fixed_minor=0",
    "vg_mda_copies=unmanaged", "lv_name=a ", " lv_name = a", "lv_size>1m lv_name=a", "lv_when_full=undefined",
    # Refused
    "lv_size>10MB", "size>10mib",
    "foo=1", "lv_size", "lv_size=", "lv_size=abc", "lv_size=5%", "seg_count=5m", "lv_name>a",
    "lv_name since 2020",
    "lv_size since 2020", "lv_time=2020-13", "lv_time=2020-02-30", "lv_time=soon", "lv_time='2020 10:00'",
    "(name=a",
    "name=a)", "!name=a", "name=a &&", "name=a & name=b", "&& name=a", "lv_tags=[t1", "lv_tags=[t1}",
    "lv_tags=[t1,t2||t3]", "lv_tags=~t1", "lv_size=~1", "lv_name='a", "lv_name=~", "data_percent>101",
    "data_percent>5m", "seg_count>18446744073709551616", "help=1", "lv_name==a", "lv_name=~'('",
    "seg_count>-1",
]  # fmt: skip


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_same_selection(pair: Pair, selection: str) -> None:
    line = shlex.join(["lvs", "-o", "vg_name,lv_name", "-S", selection])
    ours, theirs = pair.ours(line), pair.theirs(line)
    if theirs[0] == 0:
        assert ours == theirs
    else:
        # LVM2 lists its fields as well where it refuses one.
        assert ours == (theirs[0], "")


REFUSALS = [
    "lvs -o nosuch", "lvs -O nosuch", "lvs -o pv_name", "lvs --units x", "lvs --units 0m",
    "lvs --units 4", "lvs --units 4mm", "lvs --units m4", "lvs --nosuch", "lvs vg0/nosuch",
    "lvs --reportformat xml", "lvs nosuch", "vgs nosuch", "pvs /dev/nosuch", "vgs -o pv_name,lv_name",
]  # fmt: skip


@pytest.mark.parametrize("line", REFUSALS)
def test_the_same_refusal(pair: Pair, line: str) -> None:
    assert pair.ours(line)[0] == pair.theirs(line)[0]


def test_all_fields_are_those_of_stock_in_its_order(pair: Pair) -> None:
    """And all of their values that this host can know are the same."""
    for line in ("vgs -o all", "pvs -o all", "lvs -o all", "lvs --segments -o all"):
        ours = json.loads(pair.ours(line + " --reportformat json")[1])["report"][0]
        theirs = json.loads(pair.theirs(line + " --reportformat json")[1])["report"][0]
        (our_rows,), (their_rows,) = ours.values(), theirs.values()
        assert list(ours) == list(theirs)
        for mine, one in zip(our_rows, their_rows, strict=True):
            for field in ("lv_holder", "lv_uri", "lv_parents"):
                mine.pop(field, None)
            assert list(mine) == list(one)
            differ = {name for name in one if mine[name] != one[name]}
            assert differ <= WITHOUT_DM, {name: (mine[name], one[name]) for name in differ - WITHOUT_DM}


WITHOUT_DM = {
    "lv_attr", "lv_active", "lv_active_locally", "lv_active_remotely", "lv_active_exclusively",
    "lv_permissions", "lv_device_open", "lv_path",
}  # fmt: skip
"""Stock LVM2 says "unknown" of these; lv_path is where ringfence serves the LV."""
