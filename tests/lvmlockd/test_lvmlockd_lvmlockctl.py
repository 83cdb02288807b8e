"""Stock lvmlockctl against ringfence, and what stock LVM2 has other hosts do: reload an LV, rename a VG."""

import re
from collections.abc import Iterator

import pytest
from stock_rig import ONE, TWO, LabHost, clear_vgs, done, refused, start_vg, until

from ringfence.lab.cluster import Lab


@pytest.fixture
def hosts(pair: Lab) -> Iterator[tuple[LabHost, LabHost]]:
    """Two that share vg0, with an LV vm1."""
    found = LabHost(pair, ONE), LabHost(pair, TWO)
    start_vg(found, pair.disk)
    done(found[0].start("lvcreate", "-qq", "-an", "-Zn", "-Wn", "-l1", "-n", "vm1", "vg0"))
    yield found
    clear_vgs(found)


def uuid_of(host: LabHost) -> str:
    return done(host.start("lvs", "--noheadings", "-o", "lv_uuid", "vg0/vm1")).strip()


def said(host: LabHost, since: int, words: str) -> list[str]:
    return [line for line in host.log[since:].splitlines() if words in line]


# -- lvmlockctl ----------------------------------------------------------------------------


def test_it_shows_who_has_what(hosts: tuple[LabHost, LabHost]) -> None:
    one, _ = hosts
    done(one.start("lvchange", "-qq", "-aey", "vg0/vm1"))
    shown = done(one.start("lvmlockctl", "--info")).splitlines()
    vg_uuid = done(one.start("vgs", "--noheadings", "-o", "vg_uuid", "vg0")).strip()
    assert f"VG vg0 lock_type=dlm {vg_uuid}" in shown
    assert "LS dlm lvm_vg0" in shown
    assert f"LK LV ex {uuid_of(one)}" in shown
    assert not [line for line in shown if line.startswith("UN")]


def test_it_shows_the_last_requests(hosts: tuple[LabHost, LabHost]) -> None:
    one, _ = hosts
    done(one.start("lvchange", "-qq", "-asy", "vg0/vm1"))
    shown = done(one.start("lvmlockctl", "--dump"))
    assert re.search(r"lvchange \(pid \d+\): lock_lv sh vg0/vm1 persistent = 0", shown)


def test_a_killed_vg_gives_no_locks_until_it_is_dropped(hosts: tuple[LabHost, LabHost]) -> None:
    one, two = hosts
    done(one.start("lvchange", "-qq", "-aey", "vg0/vm1"))
    since = len(one.log)
    done(one.start("lvmlockctl", "--stderr", "--kill", "vg0"))
    refused(one.start("lvchange", "-aey", "vg0/vm1"))
    refused(two.start("lvchange", "-aey", "vg0/vm1"))
    done(one.start("lvmlockctl", "--stderr", "--drop", "vg0"))
    done(two.start("lvchange", "-qq", "-aey", "vg0/vm1"))
    assert said(one, since, "has killed VG vg0 here")
    assert said(one, since, "has dropped VG vg0 here")
    done(one.start("vgchange", "-qq", "--lockstart", "vg0"))


def test_it_waits_until_all_can_be_stopped(hosts: tuple[LabHost, LabHost]) -> None:
    one, _ = hosts
    done(one.start("lvchange", "-qq", "-aey", "vg0/vm1"))
    since = len(one.log)
    stopping = one.start("lvmlockctl", "--stop-lockspaces")
    until(lambda: bool(said(one, since, "the stop of all lockspaces waits: VG vg0 is in use here")))
    done(one.start("vgchange", "-qq", "-an", "vg0"))
    done(stopping)
    assert "VG vg0" not in done(one.start("lvmlockctl", "--info"))
    done(one.start("vgchange", "-qq", "--lockstart", "vg0"))


def test_what_is_sanlocks_alone_changes_nothing(hosts: tuple[LabHost, LabHost]) -> None:
    one, _ = hosts
    for option in ("--gl-enable", "--gl-disable"):
        one.start("lvmlockctl", option, "vg0").wait()
    done(one.start("lvchange", "-qq", "-aey", "vg0/vm1"))


# -- refresh -------------------------------------------------------------------------------


def extend(one: LabHost, two: LabHost) -> list[str]:
    """The command for an LV that both have active in shared mode."""
    for host in (one, two):
        done(host.start("lvchange", "-qq", "-asy", "vg0/vm1"))
    return ["lvextend", "--lockopt", "shupdate", "-l+1", "vg0/vm1"]


def test_an_lv_that_is_extended_under_a_shared_lock_is_reloaded_elsewhere(
    hosts: tuple[LabHost, LabHost],
) -> None:
    one, two = hosts
    words = extend(one, two)
    since = len(two.log)
    done(one.start(*words))
    assert said(two, since, "stock LVM2 reloaded vg0/vm1")


def test_a_host_that_cannot_reload_it_makes_the_command_fail(hosts: tuple[LabHost, LabHost]) -> None:
    """Here device-mapper is not even in the kernel."""
    one, two = hosts
    words = extend(one, two)
    conf = two.lab.root(TWO) / "etc/lvm/lvm.conf"
    before = conf.read_text()
    since = len(one.log)
    conf.write_text(before.replace("activation = 0", "activation = 1"))
    try:
        ran = one.start(*words).wait()
    finally:
        conf.write_text(before)
    assert "Manual lvchange --refresh required on all hosts" in ran.err
    assert said(one, since, f"{TWO} did not reload LV vg0/vm1: lvchange --refresh: ")


# -- rename --------------------------------------------------------------------------------


def test_a_vg_is_renamed_while_other_hosts_have_it_started(hosts: tuple[LabHost, LabHost]) -> None:
    one, two = hosts
    done(two.start("lvchange", "-qq", "-aey", "vg0/vm1"))
    assert "LV vg0/vm1 must be inactive on all hosts" in one.start("vgrename", "vg0", "vg9").wait().err
    done(two.start("lvchange", "-qq", "-an", "vg0/vm1"))
    done(one.start("vgrename", "vg0", "vg9"))
    done(one.start("lvchange", "-qq", "-aey", "vg9/vm1"))
    done(two.start("vgchange", "-qq", "--lockstart", "vg9"))
    refused(two.start("lvchange", "-aey", "vg9/vm1"))
    done(one.start("lvchange", "-qq", "-an", "vg9/vm1"))
    done(two.start("lvchange", "-qq", "-aey", "vg9/vm1"))
