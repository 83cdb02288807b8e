"""Failures of whole hosts and their parts, on clusters of real processes."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_lab import (
    ONE,
    THREE,
    TWO,
    done,
    eventually,
    kinds,
    make_volume,
    pid_of,
    ringfence,
    running,
    status,
    tool,
    uri_of,
    why,
)

from ringfence.lab.cluster import TIMING, Lab


@pytest.fixture
def two() -> Iterator[Lab]:
    with running(2) as lab:
        yield lab


@pytest.fixture
def three() -> Iterator[Lab]:
    with running(3) as lab:
        yield lab


def holder(lab: Lab, node: str) -> str:
    (row,) = [one for one in _lvs(lab, node) if one]
    return row


def _lvs(lab: Lab, node: str) -> list[str]:
    return done(lab, node, "lvs", "--noheadings", "-o", "lv_holder").split()


def test_a_killed_daemon_s_host_is_fenced_when_its_grace_lapses(two: Lab) -> None:
    make_volume(two, ONE)
    os.kill(pid_of(two, ONE, "daemon"), signal.SIGKILL)
    eventually(lambda: status(two, TWO)["victims"] != [])
    (victim,) = status(two, TWO)["victims"]
    assert (victim["name"], victim["due"]) == (ONE, False), "its host is there: it has a grace period"
    assert "may come back" in ringfence(two, TWO, "why", ONE).stdout
    taken = ringfence(two, TWO, "lvchange", "-aey", "--wait", "60", "vg0/vm1")
    assert taken.returncode == 0, taken.stderr
    assert two.status()["hosts"][ONE]["power"] == "off"
    seen = kinds(two, TWO)
    assert seen.index("victim") < seen.index("victim-due") < seen.index("evidence") < seen.index("purged")


def test_without_its_hub_a_ring_stands_still_and_says_so(two: Lab) -> None:
    make_volume(two, ONE)
    two.kill_carrier()
    eventually(lambda: status(two, ONE)["blocked"])
    said = ringfence(two, ONE, "status")
    assert (said.returncode, "BLOCKED" in said.stdout) == (1, True)
    assert "ringfence hub" in ringfence(two, ONE, "why").stdout
    eventually(lambda: status(two, ONE)["authority"]["write"] == "lapsed")
    assert ringfence(two, TWO, "lvcreate", "-L", "8M", "-n", "vm2", "vg0", "--wait", "1").returncode == 5
    two.start_carrier()
    two.wait_ready(60)
    assert status(two, ONE)["victims"] == [], "nobody was lost: the state went on where it stood"
    assert holder(two, TWO).startswith("an-a01n01:EX@")
    done(two, TWO, "lvcreate", "-L", "8M", "-n", "vm2", "vg0")


def test_a_cut_between_two_ends_with_one(two: Lab) -> None:
    """Both halves shoot; whoever is faster goes on, and the other is off or out.  Never both."""
    done(two, ONE, "vgcreate", "--shared", "vg0", str(two.disk))
    done(two, ONE, "lvcreate", "-an", "-L", "8M", "-n", "vm1", "vg0")
    two.cut(ONE)

    def off() -> list[str]:
        return [node for node, host in two.status()["hosts"].items() if host["power"] == "off"]

    eventually(lambda: off() != [])

    def over() -> bool:
        return len(off()) == 2 or any(_settled(two, node) for node in two.nodes if node not in off())

    eventually(over)
    two.heal()
    alive = [node for node in two.nodes if node not in off()]
    if alive:
        (survivor,) = alive
        assert ringfence(two, survivor, "lvchange", "-aey", "--wait", "60", "vg0/vm1").returncode == 0


def _settled(lab: Lab, node: str) -> bool:
    found = status(lab, node)
    return bool(found["ready"]) and not found["victims"] and found["authority"]["grant"] == "valid"


def test_a_minority_stands_still_and_is_fenced_by_the_majority(three: Lab) -> None:
    make_volume(three, THREE)
    for device in ("bmc", "pdu"):
        three.lie(THREE, device, "unreachable")
    three.cut(THREE)
    eventually(lambda: "no quorum" in status(three, THREE)["why"])
    eventually(lambda: status(three, ONE)["victims"] != [])
    confirm = f"ringfence fence confirm {THREE}"
    eventually(lambda: confirm in why(three, TWO, THREE))  # every device was tried
    waiting = ringfence(three, TWO, "lvchange", "-aey", "--wait", "2", "vg0/vm1")
    assert waiting.returncode == 5, "no evidence, no lock"
    said = ringfence(three, TWO, "why", "vg0/vm1").stdout
    assert "still missing: evidence" in said
    assert confirm in said, "after a round of every device a person is asked for"
    three.lie(THREE, "pdu", "none")
    taken = ringfence(three, TWO, "lvchange", "-aey", "--wait", "60", "vg0/vm1")
    assert taken.returncode == 0, taken.stderr
    assert three.status()["hosts"][THREE]["power"] == "off"


def test_a_person_s_word_moves_the_lock_and_is_recorded(two: Lab) -> None:
    make_volume(two, ONE)
    for device in ("bmc", "pdu"):
        two.lie(ONE, device, "unreachable")
    two.freeze(ONE)
    eventually(lambda: status(two, TWO)["victims"] != [])
    two.power(ONE, "off")
    words = ("fence", "confirm", ONE, "--yes", "--who", "ann", "--why", "pulled both cables")
    assert "confirmed by ann" in done(two, TWO, *words)
    done(two, TWO, "lvchange", "-aey", "--wait", "60", "vg0/vm1")
    told = done(two, TWO, "fence", "history", ONE)
    assert "ann" in told
    assert "pulled both cables" in told


def test_a_host_that_comes_back_reads_what_was_written_meanwhile(two: Lab, tmp_path: Path) -> None:
    make_volume(two, ONE)
    two.power(ONE, "off")
    done(two, TWO, "lvchange", "-aey", "--wait", "60", "vg0/vm1")
    (tmp_path / "in").write_bytes(b"\x11" * (8 << 20))
    tool("nbdcopy", "--flush", tmp_path / "in", uri_of(two, TWO, "vg0/vm1"))
    two.power(ONE, "on")
    two.wait_ready(60)
    done(two, TWO, "lvchange", "-an", "vg0/vm1")
    done(two, ONE, "lvchange", "-aey", "vg0/vm1")
    tool("nbdcopy", uri_of(two, ONE, "vg0/vm1"), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"\x11" * (8 << 20)


def test_a_host_whose_daemon_stands_still_is_fenced(two: Lab) -> None:
    """Its links and its block service run on: only its silence on the ring tells."""
    make_volume(two, ONE)
    pid = pid_of(two, ONE, "daemon")
    os.kill(pid, signal.SIGSTOP)
    taken = ringfence(two, TWO, "lvchange", "-aey", "--wait", "60", "vg0/vm1")
    assert taken.returncode == 0, taken.stderr
    assert two.status()["hosts"][ONE]["power"] == "off"


def test_a_volume_whose_worker_dies_is_opened_anew(two: Lab) -> None:
    make_volume(two, ONE)
    os.kill(pid_of(two, ONE, "ringfence.block.worker"), signal.SIGKILL)
    eventually(lambda: status(two, ONE)["blocked"])
    assert ringfence(two, ONE, "status").returncode == 1
    assert "vg0/vm1 is active here, but its worker ended" in ringfence(two, ONE, "why").stdout
    done(two, ONE, "lvchange", "-aey", "vg0/vm1")
    assert ringfence(two, ONE, "status").returncode == 0
    assert "export-size: 8388608" in tool("nbdinfo", uri_of(two, ONE, "vg0/vm1"))


def test_a_block_service_that_stands_still_or_is_gone_is_told(two: Lab) -> None:
    make_volume(two, ONE)
    pid = pid_of(two, ONE, "ringfence.block")
    os.kill(pid, signal.SIGSTOP)
    for words in (("status",), ("why",), ("why", "vg0/vm1")):
        assert "has not answered for 2 s" in ringfence(two, ONE, *words).stdout
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: "no block service answers" in why(two, ONE))
    assert ringfence(two, ONE, "lvchange", "-an", "vg0/vm1").returncode == 5, "what is open is not known"
    again = [sys.executable, "-m", "ringfence.block", "--root", str(two.root(ONE))]
    two.spawn(ONE, again)
    eventually(lambda: "its export is gone" in why(two, ONE))
    assert "its export is gone" in ringfence(two, ONE, "why", "vg0/vm1").stdout
    blocked = ringfence(two, ONE, "status")
    assert (blocked.returncode, "its export is gone" in blocked.stdout) == (1, True)
    done(two, ONE, "lvchange", "-aey", "vg0/vm1")
    assert ringfence(two, ONE, "status").returncode == 0
    worker = pid_of(two, ONE, "ringfence.block.worker")
    os.kill(worker, signal.SIGSTOP)
    eventually(lambda: f"process {worker}, is stopped; next: kill -CONT" in why(two, ONE))
    os.kill(worker, signal.SIGCONT)
    eventually(lambda: not status(two, ONE)["blocked"])


def test_a_hub_that_stood_still_costs_nobody_anything(two: Lab) -> None:
    make_volume(two, ONE)
    hub = two.carrier().pid
    worker = pid_of(two, ONE, "ringfence.block.worker")
    silent_s = TIMING.silent_ms / 1000
    time.sleep(silent_s)  # long enough in peace for everybody to trust what it hears
    os.kill(hub, signal.SIGSTOP)
    try:
        time.sleep(silent_s + 1)
        assert "do not come back from the ring since" in ringfence(two, ONE, "why").stdout
    finally:
        os.kill(hub, signal.SIGCONT)
    time.sleep(silent_s)
    assert "victim" not in kinds(two, TWO)
    assert pid_of(two, ONE, "ringfence.block.worker") == worker
    assert ringfence(two, ONE, "status").returncode == 0
    done(two, ONE, "lvchange", "-aey", "vg0/vm1")
    assert "export-size: 8388608" in tool("nbdinfo", uri_of(two, ONE, "vg0/vm1"))


def test_the_last_host_to_leave_leaves_nothing_to_fence(two: Lab) -> None:
    for node in (ONE, TWO):
        done(two, node, "leave")
    for node in (ONE, TWO):
        two.power(node, "off")
        two.power(node, "on")
    two.wait_ready(60)
    assert status(two, ONE)["victims"] == []
