"""The lab: real processes, power that cuts whole trees, devices that lie, and nothing left at the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_watch import eventually, processes_of, scratch, typed

from ringfence.client import connect
from ringfence.core.errors import BadInput, Refused, RingfenceError, Unavailable
from ringfence.host.processes import STOPPED, Process, process
from ringfence.lab import trees
from ringfence.lab.cluster import Lab
from ringfence.lab.lies import Lie
from ringfence.lab.logs import last_line
from ringfence.lab.network import Way
from ringfence.lab.parts import Part
from ringfence.wire import client as calls

SIZE = 64 << 20
ONE, TWO = "an-a01n01", "an-a01n02"


@pytest.fixture
def directory() -> Iterator[Path]:
    with scratch("rflab") as path:
        yield path


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    path = Path(tempfile.mkdtemp(prefix="rflab", dir="/tmp"))
    made = Lab.up(path / "lab", 2, SIZE)
    try:
        yield made
    finally:
        made.down()
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def truthful(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test finds the module's lab whole: powered, thawed, on one ring, and nobody lies."""
    yield
    if "lab" in request.fixturenames:
        made: Lab = request.getfixturevalue("lab")
        made.heal()
        for node in made.nodes:
            for device in ("bmc", "pdu"):
                made.lie(node, device, "none")
            if made.status()["hosts"][node]["frozen"]:
                made.thaw(node)
        give_up = time.monotonic() + 60
        while not ready(made):
            assert time.monotonic() < give_up, made.status()
            # A fencing that is under way may switch off what was just switched on: so do it again.
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


def agent(
    lab: Lab, node: str, device: str, action: str, password: str = ""
) -> subprocess.CompletedProcess[str]:
    """As the daemon's runner would run it."""
    directory = lab.disk.parent
    kind, _, outlet = device.partition("-")
    password = password or (directory / "power.secret").read_text().strip()
    plug = f"{node}:{outlet}" if outlet else node
    keys = f"ip={directory}/power\nplug={plug}\npassword={password}\nnodename={node}\naction={action}\n"
    return subprocess.run(
        [directory / "agents" / f"fence_lab_{kind}"], input=keys, text=True, capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip


def is_up(lab: Lab, node: str) -> bool:
    init = lab.status()["hosts"][node]["init"]
    return init is not None and trees.alive(Process(*init))


def switch_on(lab: Lab, node: str) -> None:
    """By its BMC.  The other host may be about to fence it, and switch off what was just switched on."""
    give_up = time.monotonic() + 60
    while True:
        assert agent(lab, node, "bmc", "on").returncode == 0
        if is_up(lab, node):
            return
        assert time.monotonic() < give_up, lab.status()


# -- power ---------------------------------------------------------------------------


def test_honest_devices_switch_and_tell(lab: Lab) -> None:
    boot = lab.boot_id(ONE)
    assert agent(lab, ONE, "bmc", "status").returncode == 0
    assert agent(lab, ONE, "bmc", "off").returncode == 0
    assert agent(lab, ONE, "bmc", "status").returncode == 2
    assert agent(lab, ONE, "pdu-a", "status").returncode == 0, "an outlet that is on says so"
    assert not is_up(lab, ONE)
    assert is_up(lab, TWO)
    switch_on(lab, ONE)
    assert lab.boot_id(ONE) != boot


def test_both_outlets_feed_a_host_and_its_bmc(lab: Lab) -> None:
    assert agent(lab, ONE, "pdu-a", "off").returncode == 0
    assert is_up(lab, ONE), "the other outlet still feeds it"
    assert agent(lab, ONE, "bmc", "status").returncode == 0
    assert agent(lab, ONE, "pdu-b", "off").returncode == 0
    assert not is_up(lab, ONE)
    dark = agent(lab, ONE, "bmc", "status")
    assert dark.returncode == 1, "without power a BMC says nothing"
    assert "Unable to connect" in dark.stderr
    assert agent(lab, ONE, "pdu-a", "status").returncode == 2


def test_power_cuts_the_whole_tree(lab: Lab, tmp_path: Path) -> None:
    """Sessions of their own, orphans and a storm of forks: nothing survives, and nothing else is hit."""
    storm = "for _ in range(40):\n  if os.fork() == 0: os.setsid(); time.sleep(60)"
    script = f"import os, time\n{storm}\ntime.sleep(60)"
    pids = [lab.spawn(ONE, [sys.executable, "-c", script]) for _ in range(3)]
    orphan = lab.spawn(ONE, ["/bin/sh", "-c", f"(setsid sleep 60 & echo $! >{tmp_path}/orphan)"])
    eventually(lambda: (tmp_path / "orphan").exists() and not lab.alive(ONE, orphan))
    init = Process(*lab.status()["hosts"][ONE]["init"])
    eventually(lambda: len(trees.tree(init)) > 120)
    doomed = trees.tree(init)
    sleeper = int((tmp_path / "orphan").read_text())
    assert {*pids, sleeper} <= {one.pid for one in doomed}
    bystanders = trees.tree(Process(*lab.status()["hosts"][TWO]["init"]))
    lab.power(ONE, "off")
    assert not any(trees.alive(one) for one in doomed)
    assert all(trees.alive(one) for one in bystanders)


def test_frozen_is_every_process_and_thawed_is_every_process(lab: Lab) -> None:
    pid = lab.spawn(ONE, ["/bin/sh", "-c", "setsid sleep 60 & sleep 60"])
    init = Process(*lab.status()["hosts"][ONE]["init"])
    eventually(lambda: sum(one.parent == pid for one in trees.tree(init)) == 2)
    lab.freeze(ONE)
    assert all(one.state in STOPPED for one in trees.tree(init))
    assert lab.status()["hosts"][ONE]["frozen"]
    lab.thaw(ONE)
    eventually(lambda: not any(one.state in STOPPED for one in trees.tree(init)))


def test_a_pid_that_is_somebody_else_s_by_now_is_never_hit() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        found = process(sleeper.pid)
        assert found is not None
        trees.send(Process(found.pid, found.start - 1), signal.SIGKILL)
        assert trees.tree(Process(found.pid, found.start - 1)) == []
        assert not trees.alive(Process(found.pid, found.start - 1))
        assert trees.alive(found)
        trees.kill(found)
        assert sleeper.wait(60) == -signal.SIGKILL


# -- lies ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "device", "off", "status", "up"),
    [
        (Lie.ACK_IGNORE, "bmc", 0, 0, True),
        (Lie.PERFECT, "bmc", 0, 2, True),
        (Lie.SAY_OFF, "bmc", 0, 2, True),
        (Lie.NO_LOGIN, "bmc", 1, 1, True),
        (Lie.UNREACHABLE, "bmc", 1, 1, True),
        (Lie.ACK_IGNORE, "pdu-a", 0, 0, True),
        (Lie.PERFECT, "pdu-a", 0, 2, True),
    ],
)
def test_each_way_to_lie(lab: Lab, mode: Lie, device: str, off: int, status: int, up: bool) -> None:
    lab.lie(ONE, device, mode.value)
    before = agent(lab, ONE, device, "status").returncode
    assert before == {Lie.SAY_OFF: 2}.get(mode, 0 if status in (0, 2) else 1), "what it says unasked"
    assert agent(lab, ONE, device, "off").returncode == off
    assert agent(lab, ONE, device, "status").returncode == status
    assert is_up(lab, ONE) is up
    assert is_up(lab, TWO)


def test_late_says_done_and_does_it_later(lab: Lab) -> None:
    lab.lie(ONE, "bmc", "late", 3600)
    assert agent(lab, ONE, "bmc", "off").returncode == 0
    assert is_up(lab, ONE)
    lab.lie(TWO, "bmc", "late", 1)
    began = time.monotonic()
    assert agent(lab, TWO, "bmc", "off").returncode == 0
    eventually(lambda: not is_up(lab, TWO))
    assert time.monotonic() - began >= 1
    assert is_up(lab, ONE)


def test_wrong_host_hits_the_neighbour_and_looks_at_it(lab: Lab) -> None:
    lab.lie(ONE, "bmc", "wrong-host")
    assert agent(lab, ONE, "bmc", "off").returncode == 0
    assert agent(lab, ONE, "bmc", "status").returncode == 2
    assert is_up(lab, ONE)
    assert not is_up(lab, TWO)


def test_hanging_never_answers(lab: Lab) -> None:
    lab.lie(ONE, "bmc", "hang")
    with subprocess.Popen(
        [lab.disk.parent / "agents/fence_lab_bmc"], stdin=subprocess.PIPE, text=True
    ) as asked:
        assert asked.stdin is not None
        asked.stdin.write(f"ip={lab.disk.parent}/power\nplug={ONE}\npassword=x\naction=status\n")
        asked.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            asked.wait(0.7)
        asked.kill()


@pytest.mark.parametrize(
    ("action", "password"), [("off", "wrong"), ("", ""), ("reboot", ""), ("explode", "")]
)
def test_an_agent_without_password_or_action_does_nothing(lab: Lab, action: str, password: str) -> None:
    assert agent(lab, ONE, "bmc", action, password).returncode == 1
    assert is_up(lab, ONE)


def test_agents_describe_themselves(lab: Lab) -> None:
    told = agent(lab, ONE, "pdu-a", "metadata")
    assert told.returncode == 0
    assert '<resource-agent name="fence_lab_pdu"' in told.stdout


# -- up and down ---------------------------------------------------------------------------


def test_a_cut_host_is_alone_and_comes_back(lab: Lab) -> None:
    lab.lie(ONE, "bmc", "unreachable")
    lab.lie(ONE, "pdu", "unreachable")
    lab.lie(TWO, "bmc", "unreachable")
    lab.lie(TWO, "pdu", "unreachable")
    with connect(lab.socket(TWO)) as two:
        lab.cut(TWO)
        eventually(lambda: bool(two.status()["blocked"]))
        lab.heal()
        eventually(lambda: not two.status()["blocked"])


OURS_MS = 500
"""What ringfence itself may add to a level, beyond its agents and the waits that are configured: a few ms
(bench/fencing.py), and what a busy machine makes of them.  Ticks are counted in tests/engine."""


def test_a_level_takes_what_its_agents_take(lab: Lab) -> None:
    lab.lie(TWO, "bmc", "no-login")
    with connect(lab.socket(ONE)) as one:
        before = len(one.call(calls.FenceHistory(TWO))["history"])
        lab.freeze(TWO)
        ended = []
        while not any(fields["passed"] for fields in ended):
            history = one.call(calls.FenceHistory(TWO))["history"][before:]
            ended = [event["fields"] for event in history if event["kind"] == "attempt-ended"]
            time.sleep(0.1)
    assert [fields["level"] for fields in ended[-2:]] == [1, 2]
    for fields in ended[-2:]:
        took_ms = sum(word["took_ms"] for word in fields["words"])
        assert abs(fields["agents_ms"] - took_ms) <= len(fields["words"]), "one after the other"
        assert fields["waits_ms"] == 0
        assert fields["ours_ms"] <= OURS_MS


def test_the_hub_says_what_it_cannot_cut(lab: Lab) -> None:
    for act in (
        lambda: lab.cut(ONE, way=Way.INBOUND),
        lambda: lab.cut(ONE, link=0),
        lambda: lab.freeze(ONE, Part.COROSYNC),
    ):
        with pytest.raises((Refused, BadInput), match="hub") as caught:
            act()
        assert "--ring corosync" in str(caught.value.next)
    assert lab.cuts() == []
    lab.freeze(ONE, Part.DAEMON)
    assert lab.parts(ONE) == {"block": "runs", "daemon": "frozen"}
    lab.thaw(ONE, Part.DAEMON)


def test_secrets_are_for_their_user_alone(lab: Lab) -> None:
    secret = (lab.disk.parent / "power.secret").read_text().strip()
    for path in lab.disk.parent.rglob("*"):
        if not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        if secret.encode() in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, path


def test_down_leaves_nothing_and_may_be_said_twice(directory: Path) -> None:
    made = Lab.up(directory / "lab", 3, SIZE)
    assert len(processes_of(directory)) >= 3 * 3 + 2
    made.freeze(ONE)
    made.power(TWO, "off")
    Lab.open(directory / "lab").down()
    assert processes_of(directory) == []
    assert not list(directory.rglob("power")) or not (directory / "lab/power").exists()
    made.down()


def test_down_works_without_a_power_switch(directory: Path) -> None:
    """The switch was killed by accident: its hosts end with the rest all the same."""
    made = Lab.up(directory / "lab", 2, SIZE)
    inits = [Process(*host["init"]) for host in made.status()["hosts"].values()]
    os.kill(made._kept.power[0], signal.SIGKILL)
    made.down()
    assert not any(trees.alive(one) for one in inits)
    assert processes_of(directory) == []


def test_a_lab_that_does_not_come_up_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.lab.cluster.READY_S", -1.9)
    with pytest.raises(Unavailable, match="did not get ready"):
        Lab.up(directory / "lab", 2, SIZE)
    assert processes_of(directory) == []


def test_a_log_that_had_no_room_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "hub.log"
    log.touch()
    assert last_line(log) == "its log is empty"
    log.write_text("one\ntwo\n")
    assert last_line(log) == "two"
    log.unlink()  # as where it could not be made
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    assert last_line(log) == f"there is no room left in {tmp_path}"


def test_a_second_lab_in_one_directory_is_refused(lab: Lab) -> None:
    with pytest.raises(Refused, match="a lab runs in"):
        Lab.up(lab.disk.parent, 2, SIZE)
    lab.wait_ready(5)


def test_what_cannot_be_is_said_in_one_line(directory: Path) -> None:
    with pytest.raises(BadInput, match="too long a name"):
        Lab.up(directory / ("x" * 80), 2, SIZE)
    with pytest.raises(BadInput, match="1 to 16 hosts"):
        Lab.up(directory, 17, SIZE)
    with pytest.raises(Unavailable, match="there is no lab in"):
        Lab.open(directory)


def test_hosts_devices_and_modes_are_checked(lab: Lab) -> None:
    for act in (
        lambda: lab.freeze("an-a01n09"),
        lambda: lab.lie(ONE, "ups", "none"),
        lambda: lab.lie(ONE, "bmc", "sometimes"),
        lambda: lab.power(ONE, "maybe"),
        lambda: lab.cut(ONE, ONE),
    ):
        with pytest.raises(BadInput) as caught:
            act()
        assert "\n" not in str(caught.value)


def test_the_command_line_drives_a_lab(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_LAB", str(directory / "lab"))

    def ringfence(*words: str) -> subprocess.CompletedProcess[str]:
        return typed(capsys, *words)

    def outlives(*words: str) -> int:
        """In a process of its own, which ends before the lab that it made, or ends another's."""
        command = [sys.executable, "-m", "ringfence", *words]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode

    try:
        assert outlives("lab", "up", "--nodes", "2", "--size", "64M") == 0
        env = ringfence("lab", "env", TWO).stdout
        root = directory / "lab" / TWO
        assert env.splitlines() == [
            f"export RINGFENCE_SOCKET={root}/run/ringfence/socket",
            f"export LVM_SYSTEM_DIR={root}/etc/lvm",
            f"export LVM_LVMLOCKD_SOCKET={root}/run/lvm/lvmlockd.socket",
            f"export RINGFENCE_LAB={directory / 'lab'}",
        ]
        assert ringfence("lab", "lie", ONE, "bmc", "perfect").returncode == 0
        assert "bmc lies: perfect" in ringfence("lab", "status").stdout
        assert ringfence("lab", "freeze", ONE).returncode == 0
        assert '"frozen": true' in ringfence("lab", "status", "--json").stdout
        assert ringfence("lab", "thaw", ONE).returncode == 0
        again = ringfence("lab", "up")
        assert (again.returncode, again.stderr.count("\n")) == (5, 1)
        assert ringfence("lab", "lie", ONE, "bmc", "often").returncode == 3
        assert ringfence("lab", "freeze", "nobody").returncode == 5
        assert ringfence("lab", "power", ONE, "off").returncode == 0
        assert ringfence("lab", "start", ONE, "daemon").stderr == (
            f"  {ONE} is off and starts nothing; ringfence lab power {ONE} on\n"
        )
        assert ringfence("lab", "freeze", TWO).returncode == 0, "it must not fence the other"
        assert ringfence("lab", "power", ONE, "on").returncode == 0
        init = json.loads(ringfence("lab", "status", "--json").stdout)["hosts"][ONE]["init"]
        trees.kill(Process(*init))
        assert f"{ONE}    crashed chassis on" in ringfence("lab", "status").stdout
        assert f"{ONE} has crashed and starts nothing" in ringfence("lab", "start", ONE, "daemon").stderr
    finally:
        assert outlives("lab", "down") == 0
    assert processes_of(directory) == []


def test_nobody_special_can_have_a_lab(directory: Path) -> None:
    """No root: whoever may run Python may have a cluster."""
    directory.chmod(0o777)
    script = (
        "import sys; from pathlib import Path; from ringfence.lab.cluster import Lab; "
        "lab = Lab.up(Path(sys.argv[1]), 2, 64 << 20); lab.power('an-a01n01', 'off'); "
        "lab.down(); print('done')"
    )
    python = [sys.executable, "-c", script, str(directory / "lab")]
    # Without its capabilities root is nobody special, and may still read an interpreter below /root.
    plain = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.getuid() == 0 else []
    done = subprocess.run([*plain, *python], text=True, capture_output=True, timeout=60, check=False)
    assert done.stdout == "done\n", done.stderr


def test_errors_cross_the_sockets_as_they_were(lab: Lab) -> None:
    with pytest.raises(RingfenceError):
        lab.spawn(ONE, [])
