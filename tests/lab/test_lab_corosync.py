"""A lab on corosync: its hosts' networks, cuts and services, and that nothing of it is left."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from lab_watch import eventually, processes_of, typed

from ringfence.client import connect
from ringfence.core.errors import BadInput, Refused, Unavailable
from ringfence.host.processes import STOPPED, Process
from ringfence.lab import trees
from ringfence.lab.cluster import TIMING, Lab
from ringfence.lab.corosync import SHARED
from ringfence.lab.layout import Ring
from ringfence.lab.network import Way
from ringfence.lab.parts import Part

SIZE = 64 << 20
ONE, TWO, THREE = "an-a01n01", "an-a01n02", "an-a01n03"
COROSYNC = Ring("corosync", links=2)
PATIENT = msgspec.structs.replace(TIMING, token_ms=1500, grant_ms=1500, silent_ms=4000)
"""A token that outlasts knet's change from one link to another."""


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="rflab", dir="/tmp"))
    shared = set(SHARED.iterdir())
    try:
        yield path
        eventually(lambda: left(path, shared) == [])  # another test may just have killed a corosync
    finally:
        for pid in processes_of(path):  # a test that failed leaves nothing either
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(path, ignore_errors=True)


def left(directory: Path, shared: set[Path]) -> list[str]:
    """What is still there: processes (which hold namespaces), interfaces, rules, corosync's shared memory."""
    found = [f"process {pid}" for pid in processes_of(directory)]
    mounts = Path("/proc/self/mounts").read_text()
    found += [f"mount {line}" for line in mounts.splitlines() if str(directory) in line]
    found += [f"interface {name}" for name in os.listdir("/sys/class/net") if name.startswith(("br", "n1."))]
    corosyncs = [path for path in SHARED.glob("qb-corosync-*") if path not in shared]
    # Other corosyncs of this machine may come and go meanwhile: only those of nobody are left behind.
    return found + [str(path) for path in corosyncs if not Path(f"/proc/{path.name.split('-')[2]}").exists()]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    path = Path(tempfile.mkdtemp(prefix="rflab", dir="/tmp"))
    made = Lab.up(path / "lab", 3, SIZE, PATIENT, ring=COROSYNC)
    try:
        yield made
    finally:
        made.down()
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds the module's lab whole."""
    yield
    if "lab" in request.fixturenames:
        made: Lab = request.getfixturevalue("lab")
        made.heal()
        give_up = time.monotonic() + 60
        while not ready(made):
            assert time.monotonic() < give_up, made.status()
            for node, host in made.status()["hosts"].items():
                if host["power"] == "off":
                    made.power(node, "on")
            time.sleep(0.1)


def ready(lab: Lab) -> bool:
    try:
        lab.wait_ready(0)
    except Unavailable:
        return False
    return True


def state(lab: Lab, node: str) -> str:
    with connect(lab.socket(node), retry_ms=0) as daemon:
        status = daemon.status()
    return ",".join(one["name"] for one in status["members"] if one["state"] == "ready")


def purges(lab: Lab, node: str) -> int:
    """How often the host was given up for fenced, as another has it."""
    with connect(lab.socket(TWO), retry_ms=0) as daemon:
        events = list(daemon.events())
    return sum(one["kind"] == "purged" and one["fields"].get("node") == lab.number(node) for one in events)


# -- one lab, and what can be done to it ------------------------------------------------------


def test_each_host_has_a_network_a_run_and_shared_memory_of_its_own(lab: Lab, tmp_path: Path) -> None:
    for node, number in ((ONE, 1), (TWO, 2)):
        out = tmp_path / node
        pid = lab.spawn(node, ["/bin/sh", "-c", "hostname -I; ls /dev/shm; ls /run"], out)
        eventually(lambda node=node, pid=pid: not lab.alive(node, pid))
        told = out.read_text().split()
        assert {f"10.77.0.{number}", f"10.77.1.{number}", "corosync.pid", "ringfence"} <= set(told)
        assert len([one for one in told if one.startswith("qb-corosync-") and one.endswith("data")]) == 1
    assert not [name for name in os.listdir("/sys/class/net") if name.startswith(("link", "br", "n1."))]


def test_a_link_alone_does_not_matter(lab: Lab) -> None:
    lab.cut(ONE, link=0)  # the one in use
    assert len(lab.cuts()) == 4
    time.sleep(PATIENT.detection_ms / 1000 + 0.5)
    assert {host["boots"] for host in lab.status()["hosts"].values()} == {1}
    assert all(state(lab, node) == f"{ONE},{TWO},{THREE}" for node in lab.nodes)
    with pytest.raises(BadInput, match="no link 2"):
        lab.cut(ONE, link=2)


def test_a_host_that_loses_power_comes_back_on_the_same_network(lab: Lab) -> None:
    boot, before = lab.boot_id(ONE), purges(lab, ONE)
    lab.power(ONE, "off")
    assert lab.tree(ONE) == []
    eventually(lambda: purges(lab, ONE) > before)  # else its fencing may switch it off again
    lab.power(ONE, "on")
    lab.wait_ready(60)
    assert lab.boot_id(ONE) != boot


def test_cuts_are_of_a_pair_of_one_way_or_of_groups(lab: Lab) -> None:
    for node in lab.nodes:  # nobody is to be fenced for it
        lab.lie(node, "bmc", "unreachable")
        lab.lie(node, "pdu", "unreachable")
    try:
        lab.cut(ONE, TWO)
        assert passes(lab) == {(ONE, THREE), (TWO, THREE), (THREE, ONE), (THREE, TWO)}
        lab.heal()
        lab.cut(TWO, way=Way.INBOUND)
        assert passes(lab) == {(TWO, ONE), (TWO, THREE), (ONE, THREE), (THREE, ONE)}
        lab.heal()
        lab.partition([ONE], [TWO])
        assert passes(lab) == set()
    finally:
        lab.heal()
        for node in lab.nodes:
            lab.lie(node, "bmc", "none")
            lab.lie(node, "pdu", "none")


def passes(lab: Lab) -> set[tuple[str, str]]:
    cuts = {(cut["from"], cut["to"]) for cut in lab.cuts()}
    return {(one, other) for one in lab.nodes for other in lab.nodes if one != other} - cuts


def test_services_are_frozen_killed_and_started_one_by_one(lab: Lab) -> None:
    lab.freeze(ONE, Part.COROSYNC)
    assert lab.parts(ONE) == {"corosync": "frozen", "block": "runs", "daemon": "runs"}
    lab.thaw(ONE, Part.COROSYNC)
    lab.freeze(ONE, Part.DAEMON)
    assert lab.part(ONE, Part.DAEMON).state in STOPPED
    assert lab.parts(ONE) == {"corosync": "runs", "block": "runs", "daemon": "frozen"}
    lab.thaw(ONE, Part.DAEMON)
    assert lab.parts(ONE) == dict.fromkeys(("corosync", "block", "daemon"), "runs")
    lab.kill(TWO, Part.COROSYNC)
    eventually(lambda: lab.parts(TWO)["corosync"] == "ended")
    with pytest.raises(Unavailable, match="corosync does not run on"):
        lab.freeze(TWO, Part.COROSYNC)
    if lab.status()["hosts"][TWO]["power"] == "on":
        lab.start(TWO, Part.COROSYNC)
        with pytest.raises(Refused, match=f"corosync on {TWO} runs already"):
            lab.start(TWO, Part.COROSYNC)


# -- nothing is left ----------------------------------------------------------------------------


def test_down_leaves_nothing_of_hosts_that_are_off_frozen_or_cut(directory: Path) -> None:
    made = Lab.up(directory / "lab", 3, SIZE, ring=Ring("corosync", "udpu"))
    assert set(made.parts(ONE)) == {"corosync", "block", "daemon"}
    made.cut(ONE)
    made.freeze(TWO)
    made.power(THREE, "off")
    Lab.open(directory / "lab").down()
    assert not (directory / "lab/network.json").exists()
    made.down()


def test_a_lab_that_does_not_come_up_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.lab.cluster.READY_S", -1.9)
    with pytest.raises(Unavailable, match="did not get ready"):
        Lab.up(directory / "lab", 2, SIZE, ring=COROSYNC)
    assert processes_of(directory) == []


def test_a_switch_that_fails_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin = directory / "bin"
    bin.mkdir()
    (bin / "nft").write_text("#!/bin/sh\necho no rules today >&2\nexit 1\n")
    (bin / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match=r"the switch did not start: .*no rules today"):
        Lab.up(directory / "lab", 2, SIZE, ring=COROSYNC)
    assert processes_of(directory) == []


def test_what_is_killed_by_force_is_found_by_down(directory: Path) -> None:
    """The switch, the power and every init: their children run on, and nobody is above them."""
    made = Lab.up(directory / "lab", 2, SIZE, ring=Ring("corosync", "udpu"))
    inits = [Process(*host["init"]) for host in made.status()["hosts"].values()]
    for one in (made.carrier(), Process(*made._kept.power), *inits):
        os.kill(one.pid, signal.SIGKILL)
    assert processes_of(directory)
    done = subprocess.run(
        [sys.executable, "-m", "ringfence", "lab", "down", "--dir", str(directory / "lab")],
        text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for one in inits:
        assert not trees.alive(one)
    eventually(lambda: processes_of(directory) == [])


# -- what cannot be ------------------------------------------------------------------------------


def test_what_cannot_be_is_said_in_one_line(directory: Path) -> None:
    with pytest.raises(BadInput, match="only in a lab on the hub"):
        Lab.up(directory / "lab", 2, SIZE, naive=True, ring=COROSYNC)
    with pytest.raises(BadInput, match="of which each host on corosync has its own"):
        Lab.up(Path("/run/lab"), 2, SIZE, ring=COROSYNC)
    assert not Path("/run/lab").exists()


def test_without_root_it_is_refused_before_anything_is_made(directory: Path) -> None:
    plain = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.getuid() == 0 else []
    words = [*plain, sys.executable, "-m", "ringfence", "lab", "up", "--ring", "corosync", "--dir"]
    done = subprocess.run(
        [*words, str(directory / "lab")], text=True, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    assert "become root" in done.stderr
    assert not (directory / "lab").exists()


def test_the_command_line_drives_it(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_LAB", str(lab.disk.parent))

    def ringfence(*words: str) -> subprocess.CompletedProcess[str]:
        return typed(capsys, "lab", *words)

    for act in (
        ("cut", ONE, "--from", TWO, "--link", "0"),
        ("cut", THREE, "--outbound", "--link", "0", "--json"),
        ("freeze", ONE, "--only", "daemon"),
    ):
        done = ringfence(*act)
        assert done.returncode == 0, done.stderr
    told = ringfence("status").stdout
    assert f"cut: {ONE} -> {TWO} on link 0" in told
    assert "daemon frozen" in told
    assert ringfence("thaw", ONE, "--only", "daemon").returncode == 0
    assert ringfence("heal").returncode == 0
    assert "cut:" not in ringfence("status").stdout
