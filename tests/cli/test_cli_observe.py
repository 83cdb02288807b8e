"""status, why, events, locks, fence, config: what a person reads, what a program reads, the exit codes."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_daemon import CannedDaemon
from cli_run import Run

from ringfence.config import digest, parse
from ringfence.core.cluster import ClusterConfig, NodeConfig
from ringfence.core.errors import NotFound, Refused, from_dict
from ringfence.host.clock import boottime_ns
from ringfence.wire import client as calls

VICTIM = {
    "node": 1, "name": "an-a01n01", "life": "1/abc.1", "since_wall_ms": 1_700_000_000_000,
    "lines": ["level 1 (bmc) failed: no answer", "level 2 (pdu1, pdu2) is running"],
}  # fmt: skip
STATUS: dict[str, Any] = {
    "node": "an-a01n02", "cluster": "an-a01", "ready": True, "state": "running", "epoch": "4.2",
    "primary": True,
    "members": [{"node": 2, "name": "an-a01n02", "life": "2/def.1", "state": "ready"}],
    "victims": [], "lockspaces": [{"name": "lvm_vg0", "members": ["an-a01n02"], "frozen": False, "why": ""}],
    "authority": {"grant": "valid", "write": "valid", "grant_left_ms": 1200, "write_left_ms": 5500},
    "exports": [{"vg": "vg0", "lv": "vm1", "uri": "nbd+unix:///vm1?socket=/r/vm1", "connections": 1}],
    "quarantined": [], "incidents": [], "config": 1, "naive": False, "blocked": False, "daemon": "0.1.0",
}  # fmt: skip
BLOCKED = {
    **STATUS,
    "victims": [VICTIM],
    "lockspaces": [
        {"name": "lvm_vg0", "members": ["a[red]b"], "frozen": True, "why": "an-a01n01 is not fenced"}
    ],
    "quarantined": ["bmc"],
    "incidents": [{"kind": "fence-lied", "what": "it lied", "at_wall_ms": 1_700_000_000_000, "node": 1}],
    "naive": True,
    "blocked": True,
}
ENVIRONMENT = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}


def ringfence(*words: str, **more: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-m", "ringfence", *words], text=True, env=ENVIRONMENT, **more)


# -- status, why ---------------------------------------------------------------


def test_status_when_all_is_well(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: STATUS
    ran = run("status")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == "an-a01n02 in cluster an-a01: running, primary, epoch 4.2"
    assert "  lvm_vg0  an-a01n02  runs" in ran.out
    assert "  grant  valid  1200 ms" in ran.out
    assert "to be fenced" not in ran.out


def test_status_when_something_is_blocked(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: BLOCKED
    ran = run("status")
    assert ran.code == 1
    assert "BLOCKED, see `ringfence why`" in ran.out
    for part in (
        "level 2 (pdu1, pdu2) is running",
        "an-a01n01 is not fenced",
        "it lied",
        "believed: bmc",
        "naive",
    ):
        assert part in ran.out
    ran = run("status", "--json")
    assert ran.code == 1
    assert ran.json == {"version": 1, **BLOCKED}


def test_status_on_a_terminal_says_the_same(daemon: CannedDaemon) -> None:
    daemon.answer = lambda call: BLOCKED
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    with ringfence("status", "--socket", str(daemon.path), stdout=theirs) as process:
        os.close(theirs)
        shown = read_until_closed(ours)
    os.close(ours)
    assert process.returncode == 1
    assert "\x1b[" in shown, "with colours"
    for part in ("BLOCKED", "level 2 (pdu1, pdu2) is running", "it lied", "a[red]b"):
        assert part in shown


def read_until_closed(fd: int) -> str:
    found = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        select.select([fd], [], [], 1)
        try:
            part = os.read(fd, 65536)
        except BlockingIOError:
            continue
        except OSError:  # EIO: the other side is closed
            break
        if not part:
            break
        found += part
    return found.decode()


def test_a_status_with_nothing_in_it_still_prints(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: {"node": "n", "cluster": "c"}
    assert run("status").code == 0


def test_why(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: {"target": "vg0/vm1", "stuck": True, "lines": ["vg0/vm1 waits", "  for x"]}
    ran = run("why", "vg0/vm1")
    assert (ran.code, ran.out) == (0, "vg0/vm1 waits\n  for x\n")
    assert daemon.calls == [calls.Why("vg0/vm1")]
    daemon.answer = lambda call: {"target": "", "stuck": False, "lines": []}
    assert run("why").out == "nothing is stuck\n" or "not stuck" in run("why").out


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        ("/dev/vg0/vm1", "vg0/vm1"),
        ("/dev/mapper/vg--a-vm--1", "vg-a/vm-1"),
        ("/dev/vg0", "vg0"),
        ("games/dev", "games/dev"),
    ],
)
def test_why_of_a_device_is_of_its_lv(daemon: CannedDaemon, run: Run, word: str, asked: str) -> None:
    daemon.answer = lambda call: {"target": "", "stuck": False, "lines": []}
    assert run("why", word).out == f"{asked} is not stuck\n"
    assert daemon.calls == [calls.Why(asked)]


@pytest.mark.parametrize("verb", ["why", "locks"])
def test_an_empty_name_does_not_stand_for_everything(daemon: CannedDaemon, run: Run, verb: str) -> None:
    ran = run(verb, "")
    assert (ran.code, ran.err.count("\n")) == (3, 1)
    assert " is empty: leave it out to be told of " in ran.err
    assert not daemon.calls


# -- the daemon that is not there ------------------------------------------------


@pytest.mark.parametrize(
    "words", [["status"], ["lvs"], ["lvcreate", "-L", "1m", "vg0"], ["events", "-f"], ["fence", "history"]]
)
def test_nobody_listens(run: Run, tmp_path: Path, words: list[str]) -> None:
    ran = run(*words, "--socket", "/tmp/rf-nobody/socket")
    assert (ran.code, ran.out) == (5, "")
    assert ran.err == (
        "  no ringfence daemon listens on /tmp/rf-nobody/socket; start it (systemctl start ringfence), "
        "or set RINGFENCE_SOCKET\n"
    )


def test_nobody_listens_as_json(run: Run) -> None:
    ran = run("status", "--socket", "/tmp/rf-nobody/socket", "--json")
    assert (ran.code, ran.err) == (5, "")
    assert ran.json["version"] == 1
    assert ran.json["error"]["code"] == "unavailable"
    assert sorted(ran.json["error"]) == ["code", "message", "next", "node", "retry"]


def test_which_socket(
    daemon: CannedDaemon, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    daemon.answer = lambda call: STATUS
    assert run("status").code == 0  # RINGFENCE_SOCKET
    assert run("status", "--root", "/tmp/rf-no").code == 5, "a root that was named beats the environment"
    monkeypatch.setenv("RINGFENCE_SOCKET", "/tmp/rf-nobody")
    assert run("status").code == 5
    assert run("status", "--socket", str(daemon.path)).code == 0
    assert run("status", "--socket", str(daemon.path), "--root", "/tmp/rf-no").code == 0


# -- events -----------------------------------------------------------------------


def event(seq: int, kind: str = "joined") -> dict[str, Any]:
    return {
        "seq": seq,
        "wall_ms": 1_700_000_000_123,
        "boottime_ns": 5,
        "kind": kind,
        "what": f"e{seq}",
        "fields": {},
    }


def history(count: int) -> Any:
    def answer(call: calls.Call) -> Any:
        assert isinstance(call, calls.Events)
        found = [event(seq, "incident" if seq % 100 == 0 else "joined") for seq in range(1, count + 1)]
        found = [one for one in found if one["seq"] > call.since]
        if call.follow:
            return [({"event": one}, False) for one in found]
        return {"events": found[: call.limit]}

    return answer


def test_events(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = history(3)
    lines = run("events").out.splitlines()
    assert [line.split()[2:] for line in lines] == [
        ["1", "joined", "e1"],
        ["2", "joined", "e2"],
        ["3", "joined", "e3"],
    ]
    assert lines[0].split()[1].endswith(".123")
    assert run("events", "--json").json == {"version": 1, "events": [event(1), event(2), event(3)]}


def test_the_last_events_of_many(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = history(2500)
    assert [line.split()[2] for line in run("events", "-n", "2").out.splitlines()] == ["2499", "2500"]
    assert len(run("events", "-n", "0").out.splitlines()) == 2500
    assert len(run("events").out.splitlines()) == 100
    kinds = run("events", "--kind", "incident", "--since", "1000", "-n", "0").out.splitlines()
    assert len(kinds) == 15


def test_a_kind_that_there_is_not_is_refused_with_those_that_there_are(run: Run) -> None:
    ran = run("events", "--kind", "incident", "--kind", "fence-leid")
    assert ran.code == 3
    assert "no event is of kind 'fence-leid'; give one of adopted, " in ran.err
    assert ", fence-lied, " in ran.err


def test_following_shows_each_once_and_ctrl_c_is_no_failure(daemon: CannedDaemon) -> None:
    recorded = [event(1)]

    def answer(call: calls.Call) -> Any:
        assert isinstance(call, calls.Events)
        if not call.follow:
            return {"events": [one for one in recorded if one["seq"] > call.since]}
        return [({"event": one}, False) for one in (event(2), event(3)) if one["seq"] > call.since]

    daemon.answer = answer
    words = ("events", "-f", "--json", "--socket", str(daemon.path))
    with ringfence(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = [msgspec.json.decode(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
    assert [one["seq"] for one in seen] == [1, 2, 3]
    assert all(one["version"] == 1 for one in seen)


def test_a_reader_that_has_seen_enough_ends_it_without_a_word(daemon: CannedDaemon) -> None:
    daemon.answer = history(2000)
    words = ("events", "-n", "0", "--socket", str(daemon.path))
    with ringfence(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 128 + signal.SIGPIPE, "as a shell has it of any tool"


def test_an_answer_that_cannot_be_written_is_an_error(daemon: CannedDaemon) -> None:
    daemon.answer = history(20)
    words = ("events", "--socket", str(daemon.path))
    full = os.open("/dev/full", os.O_WRONLY)
    with ringfence(*words, stdout=full, stderr=subprocess.PIPE) as process:
        os.close(full)
        assert process.stderr is not None
        assert process.stderr.read() == "  cannot write the answer: No space left on device\n"
        assert process.wait(60) == 5


def test_without_a_standard_output_the_exit_code_still_tells(daemon: CannedDaemon) -> None:
    daemon.answer = history(20)
    line = f"exec {sys.executable} -m ringfence events --socket {daemon.path} >&-"
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


# -- locks, fence -------------------------------------------------------------------


def test_locks(daemon: CannedDaemon, run: Run) -> None:
    lock = {
        "lockspace": "lvm_vg0", "resource": "u1", "node": 1, "name": "an-a01n01", "mode": "EX", "wanted": "",
        "state": "granted", "token": "3.1.9", "since_wall_ms": 1_700_000_000_000,
    }  # fmt: skip
    waits = {**lock, "name": "an-a01n02", "mode": "", "wanted": "EX", "state": "waiting", "token": ""}
    daemon.answer = lambda call: {"locks": [lock, waits]}
    head, first, second = run("locks", "lvm_vg0").out.splitlines()
    columns = ["LOCKSPACE", "RESOURCE", "NODE", "STATE", "MODE", "WANTS", "TOKEN", "SINCE", "BEHIND"]
    assert head.split() == columns
    assert first.split()[:7] == ["lvm_vg0", "u1", "an-a01n01", "granted", "EX", "-", "3.1.9"]
    assert second.split()[:7] == ["lvm_vg0", "u1", "an-a01n02", "waiting", "-", "EX", "-"]
    assert daemon.calls == [calls.Locks("lvm_vg0")]


def test_locks_with_clients_and_what_they_wait_for(daemon: CannedDaemon, run: Run) -> None:
    client = {
        "lockspace": "games", "resource": "chess", "lock": 7, "state": "waiting", "mode": "", "wanted": "EX",
        "since_wall_ms": 1_700_000_000_000, "who": "uid 0 (root) pid 812",
    }  # fmt: skip
    waits = {"lines": ["pid 812 waits for EX on games/chess", "behind pid 9, which holds EX"]}
    orphan = {**client, "lock": 6, "state": "orphan", "mode": "EX", "wanted": "", "who": ""}
    found = {"locks": [], "clients": [client, orphan], "waits": [waits]}
    answer = {"node": "an-a01n02", **found, "current": False}
    daemon.answer = lambda call: answer
    ran = run("locks")
    _, blank, title, head, row, left, blank_too, waiting, first, second = ran.out.splitlines()
    assert (blank, title, blank_too, waiting) == ("", "clients of an-a01n02:", "", "waits:")
    columns = ["LOCKSPACE", "RESOURCE", "LOCK", "STATE", "MODE", "WANTS", "SINCE", "OWNER", "WHO"]
    assert head.split() == columns
    assert row.split()[:6] == ["games", "chess", "7", "waiting", "-", "EX"]
    assert left.split()[:6] == ["games", "chess", "6", "orphan", "EX", "-"]
    assert row.endswith("uid 0 (root) pid 812")
    assert (first, second) == ("  " + waits["lines"][0], "    " + waits["lines"][1])
    assert "not current: an-a01n02 cannot act now" in ran.err
    assert run("locks", "--json").json == {"version": 1, **answer}


def test_deadlocks(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: {"deadlocks": []}
    ran = run("locks", "--deadlocks")
    assert (ran.code, ran.out) == (0, "no deadlock\n")
    daemon.answer = lambda call: {"deadlocks": [{"lines": ["a waits for b", "b waits for a"], "ring": []}]}
    ran = run("locks", "--deadlocks")
    assert ran.code == 1
    assert ran.out.splitlines()[:3] == ["deadlock 1:", "  a waits for b", "  b waits for a"]
    assert run("locks", "--deadlocks", "--json").json["deadlocks"][0]["ring"] == []
    assert daemon.calls == [calls.Deadlocks()] * 3
    assert run("locks", "games", "--deadlocks").code == 3


def test_lockspace(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: {"joined": call.lockspace}
    assert run("lockspace", "join", r"a b\xff").out == "joined a\\x20b\\xff\n"
    daemon.answer = lambda call: {"left": call.lockspace, "lost": 2}
    assert run("lockspace", "leave", "games", "--force").out == "left games; locks taken away: 2\n"
    assert run("lockspace", "leave", "games", "--json").json == {"version": 1, "left": "games", "lost": 2}
    daemon.answer = lambda call: {"purged": 1}
    assert run("lockspace", "purge", "games").out == "orphans let go: 1\n"
    assert daemon.calls == [
        calls.JoinSpace(r"a\x20b\xff"),
        calls.LeaveSpace("games", force=True),
        calls.LeaveSpace("games"),
        calls.PurgeOrphans("games"),
    ]


def test_a_name_that_cannot_be(daemon: CannedDaemon, run: Run) -> None:
    ran = run("lockspace", "join", "a\\b")
    assert (ran.code, daemon.calls) == (5, [])
    assert "a backslash alone" in ran.err


def test_fence_history(daemon: CannedDaemon, run: Run) -> None:
    words = [{"device": "bmc", "action": "off", "words": "timed\nout"}]
    ended = {**event(7, "attempt-ended"), "fields": {"words": words}}
    daemon.answer = lambda call: {"history": [event(6, "victim"), ended]}
    first, second, third = run("fence", "history", "an-a01n01").out.splitlines()
    assert first.endswith("victim          e6")
    assert second.endswith("attempt-ended   e7")
    assert third.split() == ["bmc", "off", "timed", "out"]
    assert daemon.calls == [calls.FenceHistory("an-a01n01")]


def test_fence_confirm_with_a_signed_word(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: {"node": "n1", "confirmed": ["1/abc.1"], "waiting": 0}
    before_ns = boottime_ns()
    ran = run("fence", "confirm", "n1", "--yes", "--who", "digimer", "--why", "cable pulled")
    assert (ran.code, ran.out) == (0, "n1: confirmed by digimer; recorded\n")
    (call,) = daemon.calls
    assert call == calls.FenceConfirm("n1", "digimer", "cable pulled", call.signed_ns)
    assert before_ns < call.signed_ns < boottime_ns()


@pytest.mark.parametrize("words", [["--yes"], ["--yes", "--who", "x"], ["--yes", "--why", "x"]])
def test_fence_confirm_is_never_unsigned(daemon: CannedDaemon, run: Run, words: list[str]) -> None:
    ran = run("fence", "confirm", "n1", *words)
    assert (ran.code, daemon.calls) == (3, [])
    assert "--yes needs --who and --why" in ran.err


def test_fence_confirm_asks_nobody_where_nobody_is(daemon: CannedDaemon) -> None:
    daemon.answer = lambda call: {"lines": ["n1 suspected since 12:00:00Z"]}
    with ringfence(
        "fence",
        "confirm",
        "n1",
        "--socket",
        str(daemon.path),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        assert "there is no terminal" in process.stderr.read()
    assert process.returncode == 5
    assert daemon.calls == [calls.Why("n1")], "a node that is not there is said first"


@pytest.mark.parametrize(("word", "code"), [("n1", 0), ("yes", 5), ("N1", 5), ("", 5)])
def test_fence_confirm_takes_only_the_node_s_name(daemon: CannedDaemon, word: str, code: int) -> None:
    def answer(call: calls.Call) -> Any:
        if isinstance(call, calls.Why):
            return {"target": "n1", "stuck": True, "lines": ["n1 is suspected since noon"]}
        return {"node": "n1", "confirmed": ["1/abc.1"], "waiting": 0}

    daemon.answer = answer
    ours, theirs = pty.openpty()
    words = ("fence", "confirm", "n1", "--socket", str(daemon.path))
    with ringfence(*words, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        os.write(ours, f"{word}\nI looked\n".encode())
        out, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == code, err
    assert "n1 is suspected since noon" in err
    assert "Type the node's name" in err
    confirmed = [call for call in daemon.calls if isinstance(call, calls.FenceConfirm)]
    if code == 0:
        assert [(call.node, call.why) for call in confirmed] == [("n1", "I looked")]
        assert confirmed[0].who
        assert "recorded" in out
    else:
        assert confirmed == []
        assert "not confirmed, another word was typed" in err


def test_fence_trust(daemon: CannedDaemon, run: Run) -> None:
    def answer(call: calls.Call) -> Any:
        raise Refused("device bmc is not in quarantine", next="ringfence status")

    daemon.answer = answer
    ran = run("fence", "trust", "bmc", "--who", "digimer")
    assert (ran.code, ran.err) == (5, "  device bmc is not in quarantine; ringfence status\n")
    assert daemon.calls == [calls.FenceTrust("bmc", "digimer")]


# -- config, leave ---------------------------------------------------------------------

CONFIG = """
[cluster]
name = "c"
version = {version}
[timing]
write_ms = {write_ms}
[node.n1]
id = 1
fence = "manual"
[node.n2]
id = 2
fence = "manual"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new.toml"
    path.write_text(CONFIG.format(version=4, write_ms=5000))
    return path


def running(daemon: CannedDaemon, version: int, write_ms: int = 6000) -> ClusterConfig:
    now = parse(CONFIG.format(version=version, write_ms=write_ms)).cluster

    def answer(call: calls.Call) -> Any:
        if isinstance(call, calls.ConfigShow):
            return {"config": msgspec.to_builtins(now)}
        assert isinstance(call, calls.ConfigApply)
        return {"version": call.config.version}

    daemon.answer = answer
    return now


def test_one_address_for_two_nodes_is_told(daemon: CannedDaemon, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    text = CONFIG.format(version=4, write_ms=5000).replace("id =", 'addresses = ["10.0.0.1"]\nid =')
    for ring, told in (("corosync", True), ("hub", False)):
        file.write_text(text.replace('name = "c"', f'name = "c"\nring = "{ring}"'))
        line = "note: address 10.0.0.1 is given to n1 and n2: each link of each node needs its own"
        assert (line in run("config", "check", str(file)).out) is told
        running(daemon, version=3)
        assert (line in run("config", "apply", str(file)).err) is told


def test_config_check(run: Run, file: Path) -> None:
    ran = run("config", "check", str(file))
    assert ran.code == 0
    assert ran.out.splitlines()[0] == f"{file}: good; cluster c version 4, nodes n1, n2"
    assert "note: two nodes without two_node" in ran.out
    assert run("config", "check", str(file), "--ring", "hub").code == 0
    other = run("config", "check", str(file), "--ring", "corosync")
    assert (other.code, other.out) == (5, "")
    assert "is on the ring hub, not on corosync" in other.err
    as_json = run("config", "check", str(file), "--json").json
    assert as_json == {
        "version": 1, "file": str(file), "cluster": "c", "config": 4,
        "digest": digest(parse(file.read_text()).cluster),
        "wrong": [], "notes": [line.removeprefix("  note: ") for line in ran.out.splitlines()[1:]],
    }  # fmt: skip


def test_config_check_of_a_wrong_file(run: Run, file: Path) -> None:
    file.write_text(file.read_text() + "[node.n1]\n")
    ran = run("config", "check", str(file))
    assert (ran.code, ran.out) == (5, "")
    assert ran.err == f"  {file} line 13: node n1 is configured twice; remove one of the two\n"


def test_config_show_prints_what_can_be_loaded(daemon: CannedDaemon, run: Run) -> None:
    now = running(daemon, 7)
    assert parse(run("config", "show").out).cluster == now
    shown = run("config", "show", "--json").json
    assert (shown["version"], shown["config"]["version"], shown["digest"]) == (1, 7, digest(now))
    assert msgspec.convert(shown["config"], ClusterConfig) == now


@pytest.mark.parametrize("version", [1, 4, 5])
def test_config_apply_counts_the_version_up(daemon: CannedDaemon, run: Run, file: Path, version: int) -> None:
    file.write_text(CONFIG.format(version=version, write_ms=5000))
    now = running(daemon, 4)
    ran = run("config", "apply", str(file))
    assert (ran.code, ran.out) == (0, "configuration version 5 is in force on all nodes\n")
    timing = msgspec.structs.replace(now.timing, write_ms=5000)
    assert daemon.calls[-1] == calls.ConfigApply(msgspec.structs.replace(now, version=5, timing=timing))


def test_config_apply_of_the_same_does_nothing(daemon: CannedDaemon, run: Run, file: Path) -> None:
    running(daemon, 9, write_ms=5000)
    ran = run("config", "apply", str(file))
    assert (ran.code, ran.out) == (0, "nothing to do: version 9 says the same\n")
    assert daemon.calls == [calls.ConfigShow()]


def test_config_apply_of_a_version_far_ahead_is_refused(daemon: CannedDaemon, run: Run, file: Path) -> None:
    running(daemon, 2)
    ran = run("config", "apply", str(file))
    assert ran.code == 5
    assert f"{file}: version = 4, but the cluster is at 2; set version = 3" in ran.err
    assert daemon.calls == [calls.ConfigShow()]


def test_config_apply_of_a_wrong_file_asks_nobody(daemon: CannedDaemon, run: Run, file: Path) -> None:
    file.write_text("[cluster]\nname = 3\n")
    assert run("config", "apply", str(file)).code == 5
    assert daemon.calls == []


def test_leave(daemon: CannedDaemon, run: Run) -> None:
    ran = run("leave")
    assert (ran.code, ran.out, ran.err) == (0, "left the cluster\n", "")
    assert daemon.calls == [calls.Status(), calls.Leave()]


def test_leave_says_what_it_waits_for(daemon: CannedDaemon, run: Run) -> None:
    stuck = {"node": "n1", "ready": False, "blocked_by": ["n1: no quorum: n2, n3 missing"]}
    daemon.answer = lambda call: stuck if isinstance(call, calls.Status) else {}
    ran = run("leave")
    assert (ran.code, ran.out) == (0, "left the cluster\n")
    assert ran.err.startswith("n1: no quorum: n2, n3 missing: it cannot leave cleanly before that ends")


def test_an_error_of_the_daemon_is_one_line_whatever_is_in_it(daemon: CannedDaemon, run: Run) -> None:
    def answer(call: calls.Call) -> Any:
        raise NotFound("no\nsuch  thing", next="look")

    daemon.answer = answer
    for words in (
        ["status"],
        ["why", "x"],
        ["locks"],
        ["events"],
        ["fence", "history"],
        ["config", "show"],
        ["leave"],
    ):
        ran = run(*words)
        assert (ran.code, ran.out, ran.err) == (5, "", "  no\\nsuch thing; look\n"), words
        ran = run(*words, "--json")
        assert ran.code == 5
        assert isinstance(from_dict(ran.json["error"]), NotFound)


def test_the_node_config_type_is_what_config_show_prints() -> None:
    assert "manual" in NodeConfig.__struct_fields__
