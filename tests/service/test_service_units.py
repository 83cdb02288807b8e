"""The packaged units under a real systemd: what a restart, the watchdog, a stop and a shutdown do to volumes.

Needs root, as a packager's or an admin's machine gives it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from service_rig import Rig

from ringfence.daemon.journal_fields import MESSAGE_IDS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="boots a systemd in namespaces of its own")

BOTH = {"n1": "ready", "n2": "ready"}
LVS = ("ringfence", "lvs", "--noheadings", "-o", "lv_holder", "vg0/vm1")


@contextmanager
def booted() -> Iterator[Rig]:
    """Two nodes are up, and a guest writes to vg0/vm1 on the first."""
    rig = Rig()
    try:
        rig.systemctl("start", "ringfence-hub", "ringfence")
        rig.start_witness()
        rig.run("ringfence", "vgcreate", "--shared", "vg0", "/srv/disk")
        rig.run("ringfence", "lvcreate", "-L", "8M", "-n", "vm1", "vg0")
        start_guest(rig)
        yield rig
    finally:
        rig.end()


def start_guest(rig: Rig) -> None:
    rig.run("sh", "-c", ": >/srv/guest.log")
    rig.systemctl("start", "guest")
    rig.until(lambda: len(written(rig)) > 3, "the guest's first writes")


def bring_up(rig: Rig) -> None:
    """The first node is in and the guest writes, as when it was booted."""
    if rig.show("guest", "ActiveState") == "active" and rig.members() == BOTH:
        return
    rig.systemctl("stop", "guest")
    rig.systemctl("start", "ringfence-hub", "ringfence")
    rig.until(lambda: rig.members() == BOTH, "the node to be back")
    rig.ask_witness("lvchange", "-an", "vg0/vm1")
    rig.run("ringfence", "lvchange", "-aey", "vg0/vm1")
    start_guest(rig)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with booted() as rig:
        yield rig


@pytest.fixture(scope="module")
def lasting() -> Iterator[Rig]:
    with booted() as rig:
        yield rig


@pytest.fixture
def same(lasting: Rig) -> Rig:
    """The rig of all tests after which the first node can be brought up again: a boot takes longer."""
    bring_up(lasting)
    lasting.look_away()
    return lasting


def written(rig: Rig) -> list[str]:
    return rig.run("sh", "-c", "cat /srv/guest.log 2>/dev/null || true").splitlines()


def goes_on(rig: Rig) -> None:
    """The guest writes, has never been refused, and nobody thinks of fencing."""
    before = len(written(rig))
    rig.until(lambda: len(written(rig)) > before + 5, "the guest to go on")
    assert not [line for line in written(rig) if line.startswith("error")]
    assert rig.members() == BOTH
    assert not rig.events("victim-due", "purged", "left")


def adopted(rig: Rig) -> None:
    rig.until(lambda: rig.events("adopted"), "the next daemon to adopt the volume")
    goes_on(rig)
    assert rig.run(*LVS).split()[0].startswith("n1:EX")


def left_cleanly(rig: Rig) -> None:
    """Nobody was fenced or suspected, and what the first node had is the second's for the asking."""
    rig.until(lambda: rig.events("left"), "the leave")
    assert not rig.events("victim", "victim-due", "purged")
    assert rig.members()["n1"] != "ready"
    taken = rig.ask_witness("lvchange", "-aey", "vg0/vm1")
    assert "error" not in taken, taken


def test_a_shutdown_stops_machines_first_and_leaves_while_there_are_a_ring_and_disks(rig: Rig) -> None:
    rig.systemctl("enable", "ringfence")
    rig.systemctl("start", "corosync", "multipathd")
    daemon = rig.pid()
    rig.systemctl("restart", "corosync")
    assert rig.pid() == daemon
    began = time.monotonic()
    rig.systemctl("--no-block", "poweroff")
    rig.until(rig.off, "the end of the shutdown")
    assert time.monotonic() - began < 60
    assert rig.events("left")  # the hub went down with the host: the witness can do no more than remember
    assert not rig.events("victim", "victim-due", "purged")
    assert rig.read("/srv/guest.log").splitlines()[-1] == "shut down"
    said = rig.old_journal()
    order = ("guest", "ringfence", "ringfence-block", "multipathd")
    stopped = [said.rindex(f"Stopped {unit}.service") for unit in order]
    assert stopped == sorted(stopped)
    assert said.rindex("Stopped ringfence.service") < said.rindex("Stopped corosync.service")
    assert "ordering cycle" not in said


def test_stock_lvm2_has_its_lvmlockd_and_is_done_before_the_daemon_leaves(rig: Rig) -> None:
    """The unit bears the name and starts nothing; what may use locks ends while there are some."""
    rig.systemctl("start", "lvmlockd", "lvmlocks")
    assert len(rig.run("pgrep", "lvmlockd").split()) == 1
    assert not [one for one in rig.run("sh", "-c", "readlink /proc/[0-9]*/exe").split() if "lvmlockd" in one]
    rig.systemctl("restart", "lvmlockd", "ringfence")
    adopted(rig)
    assert told_lvm(rig) == ["active vgchange --lock-start --lock-opt auto"]
    rig.systemctl("stop", "guest", "ringfence")
    rig.until(lambda: rig.events("left"), "the leave")
    assert told_lvm(rig)[1:] == ["active vgchange -an --select vg_lock_type=dlm"]
    rig.systemctl("start", "ringfence", "guest")
    rig.systemctl("--no-block", "poweroff")
    rig.until(rig.off, "the end of the shutdown")
    said = rig.old_journal()
    order = ("guest", "ringfence-lvm2", "lvmlocks", "ringfence")
    stopped = [said.rindex(f"Stopped {unit}.service") for unit in order]
    assert stopped == sorted(stopped)
    assert "ordering cycle" not in said


def told_lvm(rig: Rig) -> list[str]:
    return rig.run("cat", "/srv/lvm.log").splitlines()


def test_a_leave_that_cannot_be_had_does_not_hang_the_shutdown(rig: Rig) -> None:
    """The other node stands still: its fate is unknown, and nothing can be left."""
    rig.stop_witness()
    rig.until(lambda: "victim" in rig.journal("--unit", "ringfence"), "the loss of the other node")
    began = time.monotonic()
    rig.run("systemctl", "stop", "ringfence", check=False)
    assert 25 < time.monotonic() - began < 80
    assert rig.show("ringfence", "ActiveState") == "failed"
    said = rig.journal("--unit", "ringfence")
    assert "ends without a clean leave, and the others will fence it" in said
    assert rig.show("ringfence", "NRestarts") == "0"


# -- on one rig, one after the other: the last may leave it as it likes ---------------------------


def test_a_daemon_that_is_killed_is_started_again(same: Rig) -> None:
    same.run("kill", "-KILL", str(same.pid()))
    adopted(same)
    *_, before, entry = same.entries("RINGFENCE_KIND=started", f"MESSAGE_ID={MESSAGE_IDS['started']}")
    assert entry["MESSAGE"].startswith("started: n1 starts as 1/")
    assert (entry["PRIORITY"], entry["RINGFENCE_HOST"]) == ("5", "n1")
    (boot, number), (next_boot, next_number) = (
        one["RINGFENCE_LIFE"].rsplit(".", 1) for one in (before, entry)
    )
    assert (next_boot, int(next_number)) == (boot, int(number) + 1)
    assert entry["_SYSTEMD_UNIT"] == "ringfence.service"


def test_a_loop_that_stands_still_is_ended_by_the_watchdog(same: Rig) -> None:
    daemon = same.pid()
    began = time.monotonic()
    same.run("kill", "-STOP", str(daemon))
    same.until(lambda: same.pid() not in (0, daemon), "another daemon")
    assert time.monotonic() - began > 6, "within its write authority it may still come back by itself"
    adopted(same)  # which is refused after the grace period
    assert "Watchdog timeout" in same.journal("--unit", "ringfence")
    assert "most recent call first" in same.journal("--unit", "ringfence"), "it says where it stood"


@pytest.mark.parametrize("unit", ["ringfence", "ringfence-block"])
def test_a_stop_leaves_the_cluster(same: Rig, unit: str) -> None:
    same.systemctl("stop", "guest", unit)
    left_cleanly(same)
    assert same.show("ringfence", "ActiveState") == "inactive"
    assert not same.run("find", "/run/ringfence/dev", "-type", "s")


def test_who_has_left_by_hand_is_not_started_again(same: Rig) -> None:
    restarts = same.show("ringfence", "NRestarts")
    same.systemctl("stop", "guest")
    same.run("ringfence", "leave")
    same.until(lambda: same.show("ringfence", "ActiveState") == "inactive")
    left_cleanly(same)
    assert same.show("ringfence", "NRestarts") == restarts


def test_a_client_that_holds_a_lock_is_not_in_the_way_of_a_stop(same: Rig) -> None:
    same.run("systemd-run", "--unit", "holder", "ringfence", "lock", "games", "chess", "--", "sleep", "600")
    same.until(lambda: "chess" in same.run("ringfence", "locks", check=False), "the lock")
    same.systemctl("stop", "ringfence")
    left_cleanly(same)
    assert "still has locks in use: games/chess" in same.journal("--unit", "ringfence")
    same.until(lambda: same.show("holder", "ActiveState") != "active", "the holder to be told")


def test_a_block_service_that_is_restarted_takes_the_locks_of_its_volumes_along(same: Rig) -> None:
    same.systemctl("restart", "ringfence-block")
    same.until(lambda: same.events("evidence"), "the next daemon")
    assert same.events("evidence")[0]["fields"]["evidence"] == "volumes-closed"
    same.until(lambda: same.run(*LVS).strip() == "", "the lock to be free")
    assert written(same)[-1].startswith("error")
    assert not same.events("victim-due")


def test_a_restart_leaves_volumes_alone(same: Rig) -> None:
    block, daemon = same.show("ringfence-block", "MainPID"), same.pid()
    same.systemctl("restart", "ringfence")
    assert same.pid() not in (0, daemon)
    adopted(same)
    assert same.show("ringfence-block", "MainPID") == block
    assert same.show("ringfence", "Result") == "success"


def test_a_hub_that_is_restarted_is_waited_for(same: Rig) -> None:
    daemon, hub = same.pid(), same.show("ringfence-hub", "MainPID")
    same.systemctl("restart", "ringfence-hub")
    assert same.show("ringfence-hub", "MainPID") != hub
    same.until(lambda: same.members() == BOTH, "the ring to be back")
    goes_on(same)
    assert same.pid() == daemon


def test_a_block_service_that_is_late_is_waited_for(same: Rig) -> None:
    same.systemctl("stop", "guest", "ringfence-block")
    late = "test -e /run/once || { touch /run/once; exit 1; }"
    drop_in = f"[Service]\nExecStartPre=/bin/sh -c '{late}'\n"
    same.write("/run/systemd/system/ringfence-block.service.d/late.conf", drop_in)
    same.systemctl("daemon-reload")
    same.systemctl("start", "ringfence")
    same.until(lambda: same.members() == BOTH, "the daemon to be back")
    same.run("ringfence", "lvchange", "-aey", "vg0/vm1")


def test_a_hub_is_not_started_where_the_ring_is_another(same: Rig) -> None:
    said = same.run("ringfence", "config", "check", "--ring", "corosync", check=False)
    assert said == ""
    drop_in = "[Service]\nExecCondition=\nExecCondition=/usr/bin/ringfence config check --ring corosync\n"
    same.write("/run/systemd/system/ringfence-hub.service.d/other.conf", drop_in)
    same.systemctl("daemon-reload")
    same.systemctl("stop", "ringfence", "ringfence-hub")
    same.systemctl("start", "ringfence-hub")
    assert same.show("ringfence-hub", "Result") == "exec-condition"
    assert same.show("ringfence-hub", "ActiveState") == "inactive"
