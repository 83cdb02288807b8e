"""`ringfence doctor` on labs of real processes: a sound one has no finding, and each trouble that is planted
is named with its host and what mends it.  All is asked from one host: the others tell through the ring."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ringfence.client import connect
from ringfence.config import Paths
from ringfence.doctor.checks import judge
from ringfence.doctor.findings import Finding
from ringfence.doctor.gather import gather
from ringfence.lab.cluster import Lab
from ringfence.lab.layout import Ring
from ringfence.lab.parts import Part
from ringfence.wire import client as calls
from ringfence.wire.checkup import VgFacts

SIZE = 64 << 20
ONE, TWO, THREE = "an-a01n01", "an-a01n02", "an-a01n03"


@contextlib.contextmanager
def made_lab(ring: Ring, nodes: int) -> Iterator[Lab]:
    path = Path(tempfile.mkdtemp(prefix="rfdoc", dir="/tmp"))
    lab = Lab.up(path / "lab", nodes, SIZE, ring=ring)
    try:
        with connect(lab.socket(ONE)) as daemon:
            daemon.call(calls.VgCreate("vg0", (str(lab.disk),), shared=True), timeout_ms=60_000)
        yield lab
    finally:
        lab.down()
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with made_lab(Ring("hub"), 3) as lab:
        yield lab


@pytest.fixture(scope="module")
def corosync_lab() -> Iterator[Lab]:
    with made_lab(Ring("corosync"), 3) as lab:
        yield lab


def paths(lab: Lab, node: str) -> Paths:
    return Paths(lab.root(node))


def examined(lab: Lab, node: str = ONE) -> list[Finding]:
    """A disk that others keep busy is too slow for the slots now and then, and a host says so until they have
    been written once more: none of these tests is about that."""
    give_up = time.monotonic() + 60
    while True:
        found = judge(gather(paths(lab, node), os.fspath(lab.socket(node))))
        if all(one.id != "slots-fail" for one in found) or time.monotonic() > give_up:
            return found
        time.sleep(0.2)


def told(found: list[Finding]) -> list[tuple[str, str]]:
    """(id, host) of all errors and warnings."""
    return [(one.id, one.host) for one in found if one.severity.value != "note"]


@contextlib.contextmanager
def changed(path: Path, data: bytes, mode: int | None = None) -> Iterator[None]:
    """A file holds something else for a while."""
    before, status = path.read_bytes(), path.stat()
    path.write_bytes(data)
    if mode is not None:
        path.chmod(mode)
    try:
        yield
    finally:
        path.write_bytes(before)
        path.chmod(status.st_mode)


@contextlib.contextmanager
def with_mode(path: Path, mode: int) -> Iterator[None]:
    status = path.stat()
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(status.st_mode)


@contextlib.contextmanager
def lying(lab: Lab, node: str, device: str, mode: str) -> Iterator[None]:
    lab.lie(node, device, mode)
    try:
        yield
    finally:
        lab.lie(node, device, "none")


def test_a_sound_lab_has_no_finding(lab: Lab) -> None:
    words = [sys.executable, "-m", "ringfence", "doctor", "--json", "--root", str(lab.root(TWO))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    answer = msgspec.json.decode(done.stdout)
    assert answer == {
        "version": 1, "node": TWO, "findings": [], "unseen": [], "hosts": [ONE, TWO, THREE], "exit": 0,
    }  # fmt: skip
    assert done.returncode == 0


def test_every_host_says_which_vg_is_on_the_disk(lab: Lab) -> None:
    facts = gather(paths(lab, ONE), os.fspath(lab.socket(ONE)))
    assert facts.cluster is not None
    with connect(lab.socket(ONE)) as daemon:
        [known] = daemon.call(calls.Vgs("vg0"))["rows"]
    shared = VgFacts("vg0", "dlm", f"1.0.0:{facts.cluster.name}", uuid=known["vg_uuid"])
    assert [disk.vg for host in facts.hosts for disk in host.disks] == [shared] * 3


def test_another_configuration_on_one_host(lab: Lab) -> None:
    file = paths(lab, TWO).file
    with changed(file, file.read_bytes().replace(b"hold_ms = 30000", b"hold_ms = 31000")):
        found = examined(lab)
    assert told(found) == [("config-differs", TWO), ("config-not-applied", TWO)]
    assert ONE in found[0].mend


def test_a_configuration_that_cannot_be_used(lab: Lab) -> None:
    with changed(paths(lab, THREE).file, b"[cluster]\nname = 3\n"):
        found = examined(lab)
    assert told(found) == [("config-unusable", THREE)]
    assert "[cluster] name is not a string" in found[0].what


def test_a_secret_that_others_may_read(lab: Lab) -> None:
    secret = paths(lab, THREE).secrets / f"pdu-a-{ONE}"
    with with_mode(secret, 0o644):
        (found,) = examined(lab)
    assert (found.id, found.host, found.mend) == ("secret-open", THREE, f"chmod 600 {secret}")


def test_a_state_directory_that_others_may_write(lab: Lab) -> None:
    with with_mode(paths(lab, TWO).var, 0o777):
        (found,) = examined(lab)
    assert (found.id, found.host, found.mend) == ("file-writable", TWO, f"chmod go-w {paths(lab, TWO).var}")


def test_a_clone(lab: Lab) -> None:
    machine = (lab.root(ONE) / "etc/machine-id").read_bytes()
    with changed(lab.root(THREE) / "etc/machine-id", machine):
        found = examined(lab)
    assert told(found) == [("machine-cloned", THREE)]
    assert ONE in found[0].what


@pytest.mark.parametrize(
    ("mode", "id", "words"),
    [
        ("no-login", "device-fails", "access denied"),
        ("unreachable", "device-fails", "Unable to connect/login to fencing device: connection lost"),
        ("hang", "device-fails", "no answer within"),
        ("say-off", "device-says-off", f"says that {TWO} is off"),
    ],
)
def test_a_device_that_is_not_well(lab: Lab, mode: str, id: str, words: str) -> None:
    with lying(lab, TWO, "bmc", mode):
        (found,) = examined(lab)
    assert (found.id, found.host) == (id, ONE)
    assert f"bmc-{TWO}" in found.what
    assert words in found.what


def test_an_agent_that_is_not_installed(lab: Lab) -> None:
    agent = lab.disk.parent / "agents/fence_lab_pdu"
    away = agent.with_suffix(".away")
    agent.rename(away)
    try:
        found = examined(lab)
    finally:
        away.rename(agent)
    assert told(found) == [("agent-missing", ONE)] * 6
    assert all("is not installed on this host" in one.what for one in found)


def test_a_disk_that_one_host_does_not_see(lab: Lab) -> None:
    file = paths(lab, THREE).file
    with changed(file, file.read_bytes().replace(os.fsencode(lab.disk), b"/nonexistent/disk")):
        found = examined(lab)
    assert told(found) == [("disk-missing", THREE), ("disk-none", THREE)]
    assert f"which {ONE} has as {lab.disk}" in found[0].what


def test_a_copy_of_the_disk_on_one_host(lab: Lab) -> None:
    """Same uuid, same label, same size: only what was written since tells them apart."""
    copy = lab.disk.with_name("copy.img")
    # Its holes stay holes: a quarter of a gigabyte on its way to the disk would hold up the slots there.
    subprocess.run(["cp", "--sparse=always", lab.disk, copy], check=True, timeout=60)
    file = paths(lab, TWO).file
    with connect(lab.socket(ONE)) as daemon:
        daemon.call(calls.LvCreate("vg0", "news", size_bytes=4 << 20, activate="n"), timeout_ms=60_000)
    with changed(file, file.read_bytes().replace(os.fsencode(lab.disk), os.fsencode(copy))):
        found = examined(lab)
    copy.unlink()
    assert told(found) == [("disk-differs", TWO)]
    assert str(copy) in found[0].what


def test_a_daemon_that_was_killed(lab: Lab) -> None:
    """Its socket stays.  Asked there, this host is seen alone; asked elsewhere, it is absent.

    Its fence devices hang meanwhile, or it would be switched off after its grace period."""
    with lying(lab, THREE, "bmc", "hang"), lying(lab, THREE, "pdu", "hang"):
        lab.kill(THREE, Part.DAEMON)
        try:
            here = gather(paths(lab, THREE), os.fspath(lab.socket(THREE)))
            elsewhere = told(examined(lab))
        finally:
            lab.start(THREE, Part.DAEMON)
            lab.wait_ready(60)
    assert set(told(judge(here))) == {(id, THREE) for id in ("daemon-down", "stale-socket", "device-fails")}
    assert [line.partition(":")[0] for line in here.unseen] == ["the daemon and other hosts"]
    assert ("host-absent", THREE) in elsewhere


def test_a_stale_socket_on_another_host(lab: Lab) -> None:
    path = paths(lab, TWO).hub_socket
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    try:
        (found,) = examined(lab)
    finally:
        path.unlink()
    assert (found.id, found.host) == ("stale-socket", TWO)
    assert f"rm {path}" in found.mend


def test_words_and_exit_codes(lab: Lab) -> None:
    secret = paths(lab, TWO).secrets / f"bmc-{ONE}"
    words = [sys.executable, "-m", "ringfence", "doctor", "--quiet", "--root", str(lab.root(ONE))]
    with with_mode(secret, 0o640):
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    what, why, mend = done.stdout.splitlines()
    assert what.startswith(f"error    {TWO}: {secret} holds secrets and others may use it (mode 0640)")
    assert why.strip().startswith("why:")
    assert mend.strip() == f"mend: on {TWO}: chmod 600 {secret}"
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- on corosync ------------------------------------------------------------------------


def test_a_sound_lab_on_corosync_has_no_finding(corosync_lab: Lab) -> None:
    facts = gather(paths(corosync_lab, ONE), os.fspath(corosync_lab.socket(ONE)))
    assert judge(facts) == []
    assert facts.unseen == ()
    for host in facts.hosts:
        assert host.corosync is not None
        assert (host.corosync.members, host.corosync.quorate) == ((1, 2, 3), True)
        assert host.corosync.encrypted


def test_files_of_corosync_that_differ(corosync_lab: Lab) -> None:
    etc = {node: corosync_lab.root(node) / "etc/corosync" for node in (ONE, TWO, THREE)}
    conf = (etc[TWO] / "corosync.conf").read_bytes()
    with (
        changed(etc[TWO] / "corosync.conf", conf.replace(b"token: 500", b"token: 777")),
        changed(etc[THREE] / "authkey", b"another" * 32, 0o644),
    ):
        found = examined(corosync_lab)
    assert sorted(told(found)) == [
        ("corosync-conf-differs", TWO),
        ("corosync-conf-disagrees", TWO),
        ("corosync-key-differs", THREE),
        ("corosync-key-open", THREE),
    ]


def test_a_host_that_is_cut_off_says_what_it_sees_of_itself() -> None:
    """Its fence devices hang, so that it stays as it is: suspended."""
    with made_lab(Ring("corosync"), 3) as lab:
        for device in ("bmc", "pdu"):
            lab.lie(THREE, device, "hang")
        lab.cut(THREE)
        give_up = time.monotonic() + 60
        with connect(lab.socket(THREE)) as daemon:
            while daemon.status()["ready"]:
                assert time.monotonic() < give_up
                time.sleep(0.05)
        found = told(examined(lab, THREE))
        assert {("not-ready", THREE), ("corosync-not-quorate", THREE)} <= set(found)
        elsewhere = told(examined(lab))
    assert ("host-absent", THREE) in elsewhere
    assert ("blocked", ONE) in elsewhere
    assert ("device-fails", ONE) in elsewhere
