"""`ringfence lock` on a cluster of real processes: what flock(1) promises, and a token."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cluster_lab import ONE, TWO, done, eventually, ringfence, running

from ringfence.client import connect
from ringfence.core.ids import Token
from ringfence.lab.cluster import TIMING, Lab
from ringfence.lab.parts import Part


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    # A daemon that is down for the time of some commands, on a busy machine, is no reason to fence its host.
    with running(2, msgspec.structs.replace(TIMING, grace_ms=30_000)) as lab:
        yield lab


def start(lab: Lab, node: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ringfence", "lock", *words], env={**os.environ, **lab.env(node)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_command_runs_under_the_lock_and_knows_its_token(two: Lab) -> None:
    script = 'echo "$RINGFENCE_LOCKSPACE $RINGFENCE_RESOURCE $RINGFENCE_TOKEN"; exit 7'
    tokens = []
    for node in (ONE, TWO):
        ran = ringfence(two, node, "lock", "games", "chess", "--", "sh", "-c", script)
        assert (ran.returncode, ran.stderr) == (7, "")
        lockspace, resource, token = ran.stdout.split()
        assert (lockspace, resource) == ("games", "chess")
        tokens.append(Token.parse(token))
    assert tokens[0] < tokens[1]


def test_no_two_hosts_are_inside_at_the_same_time(two: Lab, tmp_path: Path) -> None:
    """Both count in a file without any lock but ours."""
    (tmp_path / "n").write_text("0")
    loop = f"for i in 1 2 3; do read n <{tmp_path}/n; sleep 0.05; echo $((n+1)) >{tmp_path}/n; done"
    counting = [start(two, node, "games", "count", "--", "bash", "-c", loop) for node in (ONE, TWO, ONE, TWO)]
    for one in counting:
        assert one.wait(60) == 0, one.stderr
    assert (tmp_path / "n").read_text() == "12\n"


def test_a_lock_that_is_held_elsewhere(two: Lab) -> None:
    with start(two, ONE, "games", "go", "-m", "pr") as holder:
        assert holder.stdout is not None
        assert "games/go is held PR, token" in holder.stdout.readline()
        assert ringfence(two, TWO, "lock", "games", "go", "-n", "-m", "PR", "--", "true").returncode == 0
        ran = ringfence(two, TWO, "lock", "games", "go", "-n", "--", "echo", "inside")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert f"held PR by {ONE}" in ran.stderr
        begin = time.monotonic()
        ran = ringfence(two, TWO, "lock", "games", "go", "-w", "0.5", "-E", "9", "--", "echo", "inside")
        assert (ran.returncode, ran.stdout) == (9, "")
        assert time.monotonic() - begin >= 0.5
        waiting = start(two, TWO, "games", "go", "--", "echo", "inside")
        eventually(lambda: f" {ONE}\n" in done(two, TWO, "locks", "games"))
        rows = json.loads(done(two, TWO, "locks", "games", "--json"))["locks"]
        assert [(row["name"], row["behind"]) for row in rows if row["wanted"]] == [(TWO, [ONE])]
        holder.send_signal(signal.SIGINT)
        assert holder.wait(60) == 0
        assert waiting.communicate(timeout=60) == ("inside\n", "")
    # Both nodes wanted it: so it is kept by neither.
    eventually(lambda: not json.loads(done(two, TWO, "locks", "games", "--json"))["locks"])


def test_a_command_keeps_its_lock_when_the_one_that_took_it_is_killed(two: Lab, tmp_path: Path) -> None:
    script = f"echo $$ >{tmp_path}/pid; exec sleep 60"
    holder = start(two, ONE, "games", "orphan", "--", "sh", "-c", script)
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip() != "")
    holder.kill()
    holder.wait()
    try:
        ran = ringfence(two, TWO, "lock", "games", "orphan", "-w", "1", "--", "true")
        assert ran.returncode == 1
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    eventually(lambda: ringfence(two, TWO, "lock", "games", "orphan", "-n", "--", "true").returncode == 0)


def test_sigterm_ends_the_command_then_the_lock(two: Lab, tmp_path: Path) -> None:
    script = f"echo x >{tmp_path}/started; exec sleep 60"
    holder = start(two, ONE, "games", "term", "--", "sh", "-c", script)
    eventually(lambda: (tmp_path / "started").exists())
    holder.send_signal(signal.SIGTERM)
    assert holder.wait(60) == 128 + signal.SIGTERM
    assert ringfence(two, TWO, "lock", "games", "term", "-n", "--", "true").returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["games", "x", "--", "/nonexistent/command"], 127, "cannot run /nonexistent/command"),
        (["games", "x", "--", "/etc/passwd"], 126, "cannot run /etc/passwd: Permission denied; make it"),
        (["games", "x", "--", ""], 126, "cannot run '': Permission denied; check its name"),
        (["games", "x", "--", "/etc/passwd/x"], 126, "/etc/passwd/x: Not a directory; check its name"),
        (["games", "x", "-w", "1e30"], 3, "at most 1000000000 s"),
        (["games", "x", "-n", "-w", "1"], 3, "-n and -w do not go together"),
        (["games", "x" * 65, "--", "true"], 5, "1 to 64 bytes"),
        (["games", "x", "-m", "XX"], 3, "XX"),
    ],
)
def test_what_cannot_be(two: Lab, words: list[str], code: int, said: str) -> None:
    ran = ringfence(two, ONE, "lock", *words)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_command_that_cannot_be_run_is_told_as_asked(two: Lab) -> None:
    ran = ringfence(two, ONE, "lock", "--json", "games", "x", "--", "/nonexistent/command")
    assert (ran.returncode, ran.stderr) == (127, "")
    assert "cannot run /nonexistent/command" in json.loads(ran.stdout)["error"]["message"]


def test_a_script_without_its_interpreter_is_not_sought_by_name(two: Lab, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nonexistent/sh\n")
    script.chmod(0o755)
    ran = ringfence(two, ONE, "lock", "games", "x", "--", str(script))
    assert (ran.returncode, ran.stderr.split("; ")[1]) == (
        127, "check the interpreter that its first line names\n"
    )  # fmt: skip


@pytest.mark.parametrize("cleanly", [False, True])
def test_w_is_also_for_a_daemon_that_is_restarted(two: Lab, cleanly: bool) -> None:
    """One waits under it and is forgotten, one comes meanwhile and meets nobody: both have it in the end."""
    with start(two, ONE, "games", "late", "--", "sleep", "60") as holder:
        eventually(lambda: "late" in ringfence(two, ONE, "locks").stdout)
        waiting = start(two, TWO, "games", "late", "-m", "PR", "-w", "60", "--", "echo", "inside")
        eventually(lambda: f" {ONE}\n" in done(two, TWO, "locks", "games"))
        if cleanly:  # as `systemctl restart` does: whoever waits is refused
            daemon = two.part(TWO, Part.DAEMON).pid
            os.kill(daemon, signal.SIGTERM)
            eventually(lambda: not two.alive(TWO, daemon))
        else:
            two.kill(TWO, Part.DAEMON)
        try:
            coming = start(two, TWO, "games", "late", "-m", "PR", "-w", "60", "--", "echo", "inside")
            ran = ringfence(two, TWO, "lock", "games", "late", "-w", "0.5", "--", "true")
            assert (ran.returncode, ran.stderr.count("\n")) == (5, 1)
            assert "no ringfence daemon listens" in ran.stderr
            assert ringfence(two, TWO, "lock", "games", "late", "--", "true").returncode == 5
        finally:
            two.start(TWO, Part.DAEMON)
        holder.terminate()
        for one in (waiting, coming):
            assert one.communicate(timeout=60) == ("inside\n", "")
            assert one.returncode == 0


def test_a_slash_in_a_lockspaces_name_is_printed_as_it_is_typed_again(two: Lab) -> None:
    ran = ringfence(two, ONE, "lock", "a/b", "c", "--", "sh", "-c", 'echo "$RINGFENCE_LOCKSPACE"')
    assert ran.stdout == "a\\x2fb\n"
    with start(two, ONE, r"a\x2fb", "c") as holder:
        assert holder.stdout is not None
        what = holder.stdout.readline().split(" is held EX")[0]
        assert f"{what} is held EX by {ONE}" in done(two, TWO, "why", what)
        holder.send_signal(signal.SIGINT)
    done(two, ONE, "lockspace", "leave", r"a\x2fb")


def test_a_lockspace_that_does_not_exist(two: Lab) -> None:
    for verb in ("leave", "purge"):
        ran = ringfence(two, ONE, "lockspace", verb, "nosuch")
        assert (ran.returncode, ran.stdout) == (5, "")
        assert "there is no lockspace nosuch" in ran.stderr


def test_a_lock_that_is_merely_cached_does_not_keep_a_host_from_leaving(two: Lab) -> None:
    done(two, ONE, "lockspace", "join", "cards")
    with connect(two.socket(ONE)) as ring:
        with ring.lockspace("cards").lock("ace", cached=True):
            ran = ringfence(two, ONE, "lockspace", "leave", "cards")
            assert (ran.returncode, "still has locks in use: cards/ace" in ran.stderr) == (5, True)
        with ring.lockspace("cards").lock("king", cached=True):
            pass
        assert done(two, ONE, "lockspace", "leave", "cards") == "left cards\n"


def test_lockspaces(two: Lab) -> None:
    done(two, ONE, "lock", "games", "chess", "--", "true")
    lines = done(two, ONE, "lockspaces").splitlines()
    assert lines[0].split() == ["LOCKSPACE", "MEMBERS", "RESOURCES", "LOCKS", "STATE"]
    (row,) = [line.split() for line in lines[1:] if line.startswith("games ")]
    assert (row[1], row[-1]) == (f"{ONE},{TWO}", "runs")
    found = json.loads(done(two, ONE, "lockspaces", "--json"))["lockspaces"]
    assert [one["name"] for one in found if one["resources"]] == ["games"]


def test_a_name_of_any_content_is_one_lock_on_all_hosts(two: Lab) -> None:
    script = 'printf "%s %s" "$RINGFENCE_LOCKSPACE" "$RINGFENCE_RESOURCE"'
    for written in (r"a\x20/\xff", r"\x61\x20\x2f\xff", os.fsdecode(b"a /\xff")):
        ran = ringfence(two, TWO, "lock", "games", written, "--", "sh", "-c", script)
        assert (ran.returncode, ran.stdout) == (0, r"games a\x20/\xff"), ran.stderr
    with start(two, ONE, "games", "a /\\xff") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith(r"games/a\x20/\xff is held EX")
        ran = ringfence(two, TWO, "lock", "games", os.fsdecode(b"a /\xff"), "-n", "--", "true")
        assert (ran.returncode, rf"games/a\x20/\xff is held EX by {ONE}" in ran.stderr) == (1, True)
        holder.send_signal(signal.SIGINT)


def test_a_name_is_told_as_utf_8_in_any_locale(two: Lab) -> None:
    script = 'printf "%s" "$RINGFENCE_RESOURCE"'
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "ringfence", "lock", "games", r"\xc3\xbc", "--", "sh", "-c", script]
    ran = subprocess.run(
        command, env={**os.environ, **two.env(ONE), **plain}, capture_output=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "ü".encode()), ran.stderr


def test_leaving_a_lockspace_by_force_ends_the_command(two: Lab, tmp_path: Path) -> None:
    script = f"echo x >{tmp_path}/started; exec sleep 60"
    holder = start(two, ONE, "music", "organ", "--", "sh", "-c", script)
    eventually(lambda: (tmp_path / "started").exists())
    ran = ringfence(two, ONE, "lockspace", "leave", "music")
    assert (ran.returncode, "still has locks in use" in ran.stderr) == (5, True)
    assert done(two, ONE, "lockspace", "leave", "music", "--force") == "left music; locks taken away: 1\n"
    assert holder.wait(60) == 5
    assert ringfence(two, TWO, "lock", "music", "organ", "-n", "--", "true").returncode == 0


def test_a_lock_that_is_lost_ends_its_command() -> None:
    """Its host is taken for silent while it stands still, and wakes as another life."""
    with running(2) as lab:
        holder = start(lab, ONE, "games", "chess", "--", "sleep", "60")
        eventually(lambda: "chess" in done(lab, TWO, "locks"))
        for device in (f"bmc-{ONE}", f"pdu-a-{ONE}", f"pdu-b-{ONE}"):
            lab.lie(ONE, device.removesuffix(f"-{ONE}"), "perfect")
        lab.freeze(ONE)
        done(lab, TWO, "lock", "games", "chess", "--", "true")  # waits until the first host is given up
        lab.thaw(ONE)
        assert holder.wait(60) == 5
        assert holder.stderr is not None
        assert "the lock of games/chess is lost" in holder.stderr.read()
