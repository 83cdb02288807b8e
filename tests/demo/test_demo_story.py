"""The demo itself, as its user runs it: three acts, one table, nothing left."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ringfence.lab.demo_report import DemoReport
from ringfence.lab.judge import Foreign
from ringfence.lab.stage import newer, reported

ACT_FIELDS = {
    "name", "detect_ms", "fence_ms", "authority_wait_ms", "recover_ms", "total_ms", "acknowledged_writes",
    "lost_writes", "foreign_blocks", "unreported_foreign_blocks", "incidents", "tokens", "ok",
}  # fmt: skip


def demo(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringfence", "demo", "--dir", str(directory), *words],
        text=True, capture_output=True, timeout=280, check=False,
    )  # fmt: skip


def test_the_story_is_as_promised() -> None:
    with tempfile.TemporaryDirectory(prefix="rf", dir="/tmp") as directory:
        done = demo(Path(directory), "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        assert done.stderr == ""
        assert os.listdir(directory) == [], "nothing is left"
        assert running_in(directory) == [], "nothing of it runs on"
    told = json.loads(done.stdout)
    honest, lying, naive = told["acts"]
    assert told["ok"] is True
    assert all(set(act) == ACT_FIELDS for act in told["acts"])
    assert [act["name"] for act in told["acts"]] == ["honest", "lying", "naive"]
    for act in (honest, lying):
        assert act["lost_writes"] == act["unreported_foreign_blocks"] == 0
        assert act["acknowledged_writes"] > 400
        assert newer(*act["tokens"])
        assert act["authority_wait_ms"] > 0, "the lock waited for the loser's write authority"
    assert (honest["foreign_blocks"], honest["incidents"]) == (0, [])
    kinds = [one["kind"] for one in lying["incidents"]]
    assert {"fence-contradicted", "fence-lied", "write-refused"} <= set(kinds)
    assert all(one["volume"] == "vg0/vm1" for one in lying["incidents"] if one["kind"] == "write-refused")
    assert naive["foreign_blocks"] > 0, "without protections nothing was corrupted: the acts prove nothing"
    assert naive["lost_writes"] > 0


def test_the_lie_is_found_out_on_corosync_too() -> None:
    with tempfile.TemporaryDirectory(prefix="rf", dir="/tmp") as directory:
        done = demo(Path(directory), "--json", "--ring", "corosync", "--act", "lying")
        assert done.returncode == 0, done.stderr + done.stdout
        assert os.listdir(directory) == running_in(directory) == []
    (lying,) = json.loads(done.stdout)["acts"]
    assert set(lying) == ACT_FIELDS
    assert lying["lost_writes"] == lying["unreported_foreign_blocks"] == 0
    kinds = {one["kind"] for one in lying["incidents"]}
    assert {"fence-contradicted", "fence-lied", "write-refused"} <= kinds


@pytest.mark.long
def test_stock_agents_are_in_the_story_and_it_ends_as_promised() -> None:
    with tempfile.TemporaryDirectory(prefix="rf", dir="/tmp") as directory:
        done = demo(Path(directory), "--json", "--devices", "ipmi,apc-snmp", "--act", "honest")
        assert done.returncode == 0, done.stderr + done.stdout
        assert os.listdir(directory) == running_in(directory) == []
    (honest,) = json.loads(done.stdout)["acts"]
    assert set(honest) == ACT_FIELDS
    assert honest["lost_writes"] == honest["foreign_blocks"] == 0
    assert honest["fence_ms"] > 5000, "fence_ipmilan has given up a controller that does not answer"


def test_a_story_that_does_not_go_on_says_where_to_look() -> None:
    with tempfile.TemporaryDirectory(prefix="rf", dir="/tmp") as directory:
        long = Path(directory) / ("x" * 90)
        long.mkdir()
        done = demo(long, "--act", "honest")
    assert done.returncode == 5
    assert "too long a name" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_puts_everything_away(number: signal.Signals) -> None:
    with tempfile.TemporaryDirectory(prefix="rf", dir="/tmp") as directory:
        with subprocess.Popen(
            [sys.executable, "-m", "ringfence", "demo", "--dir", directory], stdout=subprocess.PIPE, text=True
        ) as story:
            assert story.stdout is not None
            for line in story.stdout:
                if "lvcreate" in line:
                    break
            story.send_signal(number)
            story.send_signal(number)  # an impatient user
            assert story.wait(60) == 128 + signal.SIGINT
        assert os.listdir(directory) == []
        assert running_in(directory) == []


def running_in(directory: str) -> list[str]:
    """Command lines that name the directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"{directory}/rfdemo" in words:
            found.append(words)
    return found


@pytest.mark.parametrize(
    ("first", "second", "is_newer"),
    [("2.1.20", "3.2.4", True), ("2.1.20", "2.1.3", False), ("2.1.9", "2.1.10", True), ("", "2.1.1", False)],
)
def test_tokens_order_by_their_parts(first: str, second: str, is_newer: bool) -> None:
    assert newer(first, second) is is_newer


def test_a_foreign_block_counts_as_reported_only_if_an_incident_covers_it() -> None:
    block = Foreign(3, 12288, 4096, "vm-a1", 7)
    late = {"kind": "write-late", "volume": "vg0/vm1", "offset_bytes": 8192, "length_bytes": 8192}
    assert reported(block, [late])
    assert not reported(block, [{**late, "length_bytes": 4096}])
    assert not reported(block, [{**late, "kind": "write-refused"}]), "what was refused has not landed"
    assert not reported(block, [{**late, "volume": "vg0/vm2"}])
    assert not reported(block, [{"kind": "fence-lied"}])
    assert not DemoReport([]).ok
