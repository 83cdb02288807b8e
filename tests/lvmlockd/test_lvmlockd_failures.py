"""A host stands still while stock LVM2 on it changes a VG; and a daemon ends under such a command."""

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stock_rig import (
    ONE,
    PLAIN,
    TWO,
    LabHost,
    Started,
    ailing,
    clear_vgs,
    done,
    lvs,
    refused,
    seqno,
    start_vg,
)

from ringfence.core.errors import Unavailable
from ringfence.host.processes import STOPPED, Process
from ringfence.lab import trees
from ringfence.lab.cluster import Lab
from ringfence.lab.parts import Part
from ringfence.wire import client as calls

CREATE = ("lvcreate", "-qq", *PLAIN, "-l1", "vg0", "-n")
WRITES = 3
"""What an lvcreate writes: the new text, slot 1 that points to it, and after vg_update slot 0."""


@pytest.fixture
def hosts(pair: Lab) -> Iterator[tuple[LabHost, LabHost]]:
    with sharing(pair) as both:
        yield both


@contextlib.contextmanager
def sharing(lab: Lab) -> Iterator[tuple[LabHost, LabHost]]:
    """Two hosts that share vg0, with vm0 in it; whole again afterwards."""
    one, two = LabHost(lab, ONE), LabHost(lab, TWO)
    start_vg((one, two), lab.disk)
    done(one.start(*CREATE, "vm0"))
    yield one, two
    for process in lab.tree(ONE):
        if process.state in STOPPED:  # of a test that failed
            trees.kill(process)
    for device in ("bmc", "pdu"):
        lab.lie(ONE, device, "none")
    eventually(lambda: ready(lab))
    clear_vgs((two, one))


def ready(lab: Lab) -> bool:
    """A fencing that is under way may switch off what was just switched on: so it is done again."""
    for node, host in lab.status()["hosts"].items():
        if host["power"] == "off":
            lab.power(node, "on")
    try:
        lab.wait_ready(0)
    except Unavailable:
        return False
    return True


def eventually(true: Callable[[], bool], limit_s: float = 60) -> None:
    give_up = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def stopped_after(host: LabHost, writes: int, name: str, tmp_path: Path) -> tuple[Started, Process]:
    """An lvcreate that stops itself (SIGSTOP) once it has written so often, and its process."""
    trace = str(tmp_path / "trace")
    strace = ("strace", "-o", trace, "-e", "trace=io_submit")
    done(host.start(*strace, *CREATE, f"{name}-before"))
    submits = Path(trace).read_text().count("io_submit(")
    when = submits - WRITES + writes
    started = host.start(*strace, "-e", f"inject=io_submit:signal=SIGSTOP:when={when}", *CREATE, name)
    # In between strace itself stops it at each of its calls, for a moment.
    eventually(lambda: "--- stopped by SIGSTOP ---" in Path(trace).read_text())
    (one,) = [one for one in host.lab.tree(host.name) if trees.command(one.pid).startswith("lvcreate ")]
    return started, one


@pytest.mark.parametrize(
    ("writes", "committed"), [pytest.param(1, False, marks=pytest.mark.long), (2, False), (3, True)]
)
def test_a_host_frozen_in_mid_commit(
    hosts: tuple[LabHost, LabHost], tmp_path: Path, writes: int, committed: bool
) -> None:
    one, two = hosts
    lab = one.lab
    done(one.start("lvchange", "-qq", "-aey", "vg0/vm0"))
    for device in ("bmc", "pdu"):
        lab.lie(ONE, device, "unreachable")
    frozen, _ = stopped_after(one, writes, "vm1", tmp_path)
    first = seqno_without_locks(two)
    lab.freeze(ONE)
    other = two.start(*CREATE, "vm2")
    eventually(lambda: bool(victims(two)))
    why = done(two.ringfence("why", "lvm_vg0"))
    waits = rf"{TWO} waits for EX on VG vg0 .*\(lvcreate \(pid \d+\)\), behind {ONE}; .* until it is fenced"
    assert re.search(waits, why), why
    with pytest.raises(TimeoutError):
        other.wait(0.5)  # nobody has proof that the host does not write any more
    assert seqno_without_locks(two) == first

    lab.lie(ONE, "bmc", "none")
    done(other)
    assert lab.status()["hosts"][ONE]["power"] == "off"
    with pytest.raises(Unavailable, match="was switched off before the command ended"):
        frozen.wait()
    assert ailing(two, "vg0") == ""
    assert lvs(two, "vg0") == ["vm0", *(["vm1"] if committed else []), "vm1-before", "vm2"]
    assert seqno(two, "vg0") == first + 1
    done(two.start("lvchange", "-qq", "-aey", "vg0/vm0"))
    two.call(calls.LvCreate("vg0", "vm3", extents=1, activate="n"))
    eventually(lambda: ready(lab))
    done(one.start("vgchange", "-qq", "--lockstart", "vg0"))
    done(one.start(*CREATE, "vm4"))
    assert lvs(two, "vg0")[-2:] == ["vm3", "vm4"]
    assert ailing(one, "vg0") == ""


@pytest.mark.long
@pytest.mark.parametrize("trio", ["corosync"], indirect=True)
def test_a_host_of_three_frozen_in_mid_commit(trio: Lab, tmp_path: Path) -> None:
    with sharing(trio) as hosts:
        test_a_host_frozen_in_mid_commit(hosts, tmp_path, 2, False)


def test_a_daemon_killed_in_mid_commit(hosts: tuple[LabHost, LabHost], tmp_path: Path) -> None:
    """Its successor knows of the command, and nobody gets the VG lock before that has ended."""
    one, two = hosts
    stopped, process = stopped_after(one, 2, "vm1", tmp_path)
    first = seqno_without_locks(two)
    one.lab.kill(ONE, Part.DAEMON)
    other = two.start(*CREATE, "vm2")
    one.lab.start(ONE, Part.DAEMON)
    one.lab.wait_ready(60)
    assert f"behind {ONE}" in done(two.ringfence("why", "lvm_vg0"))
    with pytest.raises(TimeoutError):
        other.wait(0.5)
    assert seqno_without_locks(two) == first
    trees.send(process, signal.SIGCONT)
    done(stopped)  # it had what it needs, and cannot say that it is done
    done(other)
    assert ailing(one, "vg0") == ailing(two, "vg0") == ""
    assert lvs(two, "vg0") == ["vm0", "vm1", "vm1-before", "vm2"]
    assert seqno(one, "vg0") == first + 2


def test_a_daemon_killed_while_lvs_are_active(hosts: tuple[LabHost, LabHost]) -> None:
    """Their locks stay this host's, and LVM2 lets them go as if nothing had been."""
    one, two = hosts
    done(one.start("lvchange", "-qq", "-aey", "vg0/vm0"))
    one.lab.kill(ONE, Part.DAEMON)
    eventually(lambda: bool(victims(two)))
    one.lab.start(ONE, Part.DAEMON)
    one.lab.wait_ready(60)
    assert "LV locked by other host: vg0/vm0" in refused(two.start("lvchange", "-aey", "vg0/vm0"))
    ours = one.ringfence("lvchange", "-aey", "vg0/vm0").wait()
    assert ours.code != 0
    assert "is active here through LVM2; " in ours.err
    done(one.start("lvchange", "-qq", "-an", "vg0/vm0"))
    done(two.start("lvchange", "-qq", "-aey", "vg0/vm0"))


def seqno_without_locks(host: LabHost) -> int:
    return int(done(host.start("vgs", "--nolocking", "--noheadings", "-o", "vg_seqno", "vg0")))


def victims(host: LabHost) -> list[object]:
    found: list[object] = host.call(calls.Status())["victims"]
    return found
