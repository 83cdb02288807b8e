"""Stock LVM2's commands and ringfence's own on one VG, from several hosts, at the same time."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from stock_rig import (
    ONE,
    PLAIN,
    THREE,
    TWO,
    LabHost,
    Written,
    ailing,
    clear_vgs,
    done,
    lvs,
    many_writers,
    refused,
    seqno,
    start_vg,
    until,
)

from ringfence.core.errors import LockHeld, NotFound, Refused
from ringfence.lab.cluster import Lab
from ringfence.wire import client as calls

ON_HUB = pytest.mark.parametrize("trio", ["hub"], indirect=True)
ON_BOTH = pytest.mark.parametrize("trio", ["hub", "corosync"], indirect=True)


@pytest.fixture
def hosts(trio: Lab) -> Iterator[tuple[LabHost, ...]]:
    """Three that share vg0, which stock LVM2 made."""
    found = tuple(LabHost(trio, node) for node in (ONE, TWO, THREE))
    start_vg(found, trio.disk)
    yield found
    clear_vgs(found)


def own_lvs(host: LabHost, vg: str = "vg0") -> list[str]:
    found: list[str] = [row["lv_name"] for row in host.call(calls.Lvs(vg))["rows"]]
    return found


def change(host: LabHost, activate: str) -> None:
    """ringfence's own lvchange of vg0/vm1."""
    host.call(calls.LvChange("vg0", "vm1", activate))


@ON_BOTH
def test_four_writers_on_two_hosts_lose_nothing(hosts: tuple[LabHost, ...]) -> None:
    assert many_writers(hosts[:2], "vg0", writers=4, each=20) == Written(80, 80, 80)


@ON_BOTH
def test_both_kinds_of_commands_change_one_vg_at_once(hosts: tuple[LabHost, ...]) -> None:
    first = seqno(hosts[0], "vg0")

    def own(host: LabHost) -> None:
        for number in range(6):
            host.call(calls.LvCreate("vg0", f"own-{host.name}-{number}", extents=1, activate="n"))

    with ThreadPoolExecutor(len(hosts)) as pool:
        others = [pool.submit(own, host) for host in hosts]
        assert many_writers(hosts, "vg0", writers=3, each=6).succeeded == 18
        for other in others:
            other.result()
    for host in hosts:
        assert len(lvs(host, "vg0")) == 36
        assert sorted(own_lvs(host)) == sorted(lvs(host, "vg0"))
        assert ailing(host, "vg0") == ""
    assert seqno(hosts[1], "vg0") == first + 36


@ON_HUB
def test_each_sees_at_once_what_the_other_has_done(hosts: tuple[LabHost, ...]) -> None:
    one, two, three = hosts
    done(one.start("lvcreate", "-qq", *PLAIN, "-L", "4m", "-n", "vm1", "vg0"))
    assert own_lvs(two) == ["vm1"]
    two.call(calls.LvCreate("vg0", "vm2", extents=4, activate="n"))
    assert lvs(three, "vg0") == ["vm1", "vm2"]
    done(three.start("lvrename", "-qq", "vg0/vm2", "vg0/vm3"))
    assert own_lvs(one) == ["vm1", "vm3"]
    done(two.start("lvextend", "-qq", "-L", "12m", "vg0/vm3"))
    size = ("lvs", "--noheadings", "--units", "m", "-o", "lv_size", "vg0/vm3")
    assert done(one.ringfence(*size)) == done(three.start(*size))
    three.call(calls.LvRemove("vg0", "vm1"))
    assert lvs(one, "vg0") == ["vm3"]


@ON_HUB
def test_a_vg_that_stock_lvm2_renames_is_known_by_its_new_name(hosts: tuple[LabHost, ...]) -> None:
    one, two, three = hosts
    done(one.start("lvcreate", "-qq", *PLAIN, "-l1", "-n", "vm1", "vg0"))
    assert own_lvs(two) == ["vm1"]
    done(one.start("vgrename", "-qq", "vg0", "vg1"))
    until(lambda: spaces(one) == {"lvm_vg1": [ONE, TWO, THREE]})
    two.call(calls.LvCreate("vg1", "vm2", extents=1, activate="n"))
    done(three.start("vgchange", "-qq", "--lockstart", "vg1"))
    done(three.start("lvcreate", "-qq", *PLAIN, "-l1", "-n", "vm3", "vg1"))
    for host in hosts:
        assert lvs(host, "vg1") == ["vm1", "vm2", "vm3"]
        assert ailing(host, "vg1") == ""
    with pytest.raises(NotFound):
        two.call(calls.LvCreate("vg0", "vm4", extents=1, activate="n"))


@ON_HUB
def test_what_one_has_the_other_is_refused_and_told_who_holds_it(hosts: tuple[LabHost, ...]) -> None:
    one, two, three = hosts
    done(one.start("lvcreate", "-qq", *PLAIN, "-L", "4m", "-n", "vm1", "vg0"))
    locked, held = "LV locked by other host: vg0/vm1", f"held EX by {ONE}"

    done(one.start("lvchange", "-qq", "-aey", "vg0/vm1"))
    assert locked in refused(two.start("lvchange", "-aey", "vg0/vm1"))
    assert re.search(rf"LV vg0/vm1: lvchange \(pid \d+\) wants EX, {held}", two.log), two.log
    with pytest.raises(LockHeld, match=held):
        change(three, "ey")
    with pytest.raises(LockHeld, match=held):
        three.call(calls.LvRemove("vg0", "vm1"))
    assert held in done(two.ringfence("why", "vg0/vm1"))
    done(one.start("lvchange", "-qq", "-an", "vg0/vm1"))

    change(one, "ey")
    for words in (("lvchange", "-aey"), ("lvchange", "-asy"), ("lvextend", "-L8m"), ("lvremove", "-y")):
        assert locked in refused(two.start(*words, "vg0/vm1"))
    change(one, "n")

    done(one.start("lvchange", "-qq", "-asy", "vg0/vm1"))
    change(two, "sy")
    assert locked in refused(three.start("lvchange", "-aey", "vg0/vm1"))
    done(three.start("lvchange", "-qq", "-asy", "vg0/vm1"))
    done(one.start("lvchange", "-qq", "-an", "vg0/vm1"))
    change(two, "n")
    done(three.start("lvchange", "-qq", "-aey", "vg0/vm1"))


@ON_HUB
def test_an_lv_is_active_on_a_host_in_one_way_only(hosts: tuple[LabHost, ...]) -> None:
    one = hosts[0]
    done(one.start("lvcreate", "-qq", *PLAIN, "-L", "4m", "-n", "vm1", "vg0"))
    change(one, "ey")
    refused(one.start("lvchange", "-aey", "vg0/vm1"))
    kept = one.start("lvchange", "-an", "vg0/vm1").wait()
    assert "Failed to unlock logical volume vg0/vm1" in kept.err
    assert "ringfence lvchange -an vg0/vm1" in one.log
    assert f"held EX by {ONE}" in done(one.ringfence("why", "vg0/vm1"))
    change(one, "n")
    done(one.start("lvchange", "-qq", "-aey", "vg0/vm1"))
    for activate in ("ey", "n"):
        with pytest.raises(Refused) as caught:
            change(one, activate)
        assert "lvchange -an vg0/vm1" in f"{caught.value.message} {caught.value.next}"
    done(one.start("lvchange", "-qq", "-an", "vg0/vm1"))


@ON_HUB
def test_a_vg_with_disk_slots_is_removed_by_ringfence(trio: Lab, hosts: tuple[LabHost, ...]) -> None:
    """Stock LVM2 is refused the slots' LV, and the log says what to do."""
    one, two, three = hosts
    clear_vgs(hosts)
    one.call(calls.VgCreate("vg0", (str(trio.disk),), shared=True))
    done(two.start("vgchange", "-qq", "--lockstart", "vg0"))
    done(two.start("lvcreate", "-qq", *PLAIN, "-l1", "-n", "vm1", "vg0"))
    done(two.start("lvremove", "-qq", "-y", "vg0/vm1"))
    refused(one.start("vgremove", "-y", "vg0"))
    assert "only ringfence uses it; `ringfence vgremove` removes it with its VG" in one.log
    refused(one.start("lvremove", "-y", "vg0/ringfence_slots"))
    done(three.start("vgchange", "-qq", "--lockstart", "vg0"))
    assert ailing(three, "vg0") == ""
    one.call(calls.VgRemove("vg0"))
    assert done(two.start("vgs", "--noheadings", "-o", "name")).split() == []


def spaces(host: LabHost) -> dict[str, list[str]]:
    """The lockspaces of VGs, and who is in each."""
    found = host.call(calls.Status())["lockspaces"]
    return {one["name"]: one["members"] for one in found if one["name"] != "lvm_global" and one["members"]}


@ON_HUB
def test_a_vg_that_ringfence_renames_is_everybodys_by_its_new_name(
    trio: Lab, hosts: tuple[LabHost, ...]
) -> None:
    """With its lockspace and its disk slots; but not while an LV of it is active anywhere."""
    one, two, three = hosts
    clear_vgs(hosts)
    one.call(calls.VgCreate("vg0", (str(trio.disk),), shared=True))
    done(two.start("vgchange", "-qq", "--lockstart", "vg0"))
    done(two.start("lvcreate", "-qq", *PLAIN, "-l1", "-n", "vm1", "vg0"))
    done(two.start("lvchange", "-qq", "-asy", "vg0/vm1"))
    with pytest.raises(Refused, match=rf"active LVs: vm1 \(PR on {TWO}\)"):
        one.call(calls.VgRename("vg0", "vg1"))
    done(two.start("lvchange", "-qq", "-an", "vg0/vm1"))
    assert 'renamed to "vg1"' in done(one.ringfence("vgrename", "vg0", "vg1"))
    until(lambda: spaces(one) == {"lvm_vg1": [ONE, TWO, THREE]})
    done(three.start("lvcreate", "-qq", *PLAIN, "-l1", "-n", "vm2", "vg1"))
    assert "Cannot process volume group vg0" in refused(two.start("lvchange", "-aey", "vg0/vm1"))
    done(two.start("lvchange", "-qq", "-aey", "vg1/vm1"))
    for host in hosts:
        assert lvs(host, "vg1") == own_lvs(host, "vg1") == ["vm1", "vm2"]
        assert ailing(host, "vg1") == ""
    shown = one.call(calls.SlotsShow("vg1"))
    until(lambda: all(row["counter"] for row in one.call(calls.SlotsShow("vg1"))["nodes"]))
    assert [row["damaged"] for row in shown["nodes"]] == [[], [], []]
    done(two.start("lvchange", "-qq", "-an", "vg1/vm1"))
    one.call(calls.VgRename("vg1", "vg0"))
    until(lambda: spaces(one) == {"lvm_vg0": [ONE, TWO, THREE]})
    done(three.start("lvremove", "-qq", "-y", "vg0/vm2"))


@ON_HUB
def test_a_backup_is_restored_while_nobody_uses_the_vg(trio: Lab, hosts: tuple[LabHost, ...]) -> None:
    one, two, three = hosts
    file = trio.root(ONE) / "vg0.vg"
    done(one.start("lvcreate", "-qq", *PLAIN, "-l1", "-n", "vm1", "vg0"))
    done(one.ringfence("vgcfgbackup", "-f", str(file), "vg0"))
    two.call(calls.LvCreate("vg0", "vm2", extents=1, activate="n"))
    done(three.start("lvremove", "-qq", "-y", "vg0/vm1"))
    done(three.start("lvchange", "-qq", "-aey", "vg0/vm2"))
    said = refused(one.ringfence("vgcfgrestore", "-f", str(file), "vg0"))
    assert f"active LVs: vm2 (EX on {THREE})" in said
    done(three.start("lvchange", "-qq", "-an", "vg0/vm2"))
    before = seqno(two, "vg0")
    assert "Restored volume group vg0" in done(one.ringfence("vgcfgrestore", "-f", str(file), "vg0"))
    for host in hosts:
        assert lvs(host, "vg0") == own_lvs(host) == ["vm1"]
        assert ailing(host, "vg0") == ""
    assert seqno(three, "vg0") == before + 1
    until(lambda: "before* executing 'ringfence vgcfgrestore vg0" in listed(one))
    done(two.start("lvchange", "-qq", "-aey", "vg0/vm1"))


def listed(host: LabHost) -> str:
    return done(host.ringfence("vgcfgrestore", "--list", "vg0"))
