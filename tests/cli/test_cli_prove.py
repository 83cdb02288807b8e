"""fence test and fence drill, as they are typed and printed."""

from typing import Any

from cli_daemon import CannedDaemon
from cli_run import Run

from ringfence.wire import client as calls

PASSED = {
    "tester": "n1", "node": "n2", "use": "bmc2", "outcome": "passed", "what": 'says "on"', "took_ms": 300,
}  # fmt: skip
FAILED = {**PASSED, "use": "apc[2]", "outcome": "failed", "what": "login failed", "took_ms": 2_000}
REST = {"silent": [], "absent": [], "unfenceable": []}


def streams(daemon: CannedDaemon, *parts: dict[str, Any]) -> None:
    daemon.answer = lambda call: [(part, part is parts[-1]) for part in parts]


def test_each_members_tests_are_told_as_they_come(daemon: CannedDaemon, run: Run) -> None:
    streams(daemon, {"tests": [PASSED]}, {"tests": [FAILED]}, {"tests": [PASSED, FAILED], **REST})
    ran = run("fence", "test", "n2")
    assert ran.code == 1
    assert ran.out.splitlines() == [
        'ok      n1 -> n2 by bmc2: says "on" (0.3 s)',
        "FAILED  n1 -> n2 by apc[2]: login failed (2.0 s)",
    ]
    assert daemon.calls == [calls.FenceTest("n2")]


def test_all_passed(daemon: CannedDaemon, run: Run) -> None:
    streams(daemon, {"tests": [PASSED]}, {"tests": [PASSED], **REST, "absent": ["n3"]})
    ran = run("fence", "test")
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "note    n3 is not in the cluster now, and tested nothing"
    assert run("fence", "test", "--json").json["tests"] == [PASSED]


def test_what_was_not_tested_is_no_success(daemon: CannedDaemon, run: Run) -> None:
    skipped = {**PASSED, "outcome": "skipped", "what": "not tested: no time was left", "took_ms": 0}
    for rest in (
        {"tests": []}, {"tests": [skipped]}, {"tests": [PASSED], "silent": ["n3"]},
        {"tests": [PASSED], "unfenceable": ["n3"]},
    ):  # fmt: skip
        streams(daemon, {**REST, **rest})
        assert run("fence", "test").code == 1, rest


def test_a_drill_tells_what_it_does_and_how_it_ended(daemon: CannedDaemon, run: Run) -> None:
    verdict = {"passed": False, "verdict": "apc[2] moved: mend the cables", "lines": ["apc[2] feeds n3"]}
    streams(daemon, {"line": "apc[2]: off"}, {"line": "moved: apc[2] feeds n3"}, verdict)
    ran = run("fence", "drill", "n2", "--who", "ann")
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "apc[2]: off", "moved: apc[2] feeds n3", "FAILED: apc[2] moved: mend the cables",
    ]  # fmt: skip
    assert daemon.calls == [calls.FenceDrill("n2", "ann")]


def test_no_power_is_cut_unasked(daemon: CannedDaemon, run: Run) -> None:
    ran = run("fence", "drill", "n2", "--destructive")
    assert ran.code != 0
    assert "there is no terminal; ringfence fence drill n2 --destructive --yes" in ran.err
    assert daemon.calls == []
    streams(daemon, {"passed": True, "verdict": "bmc2 cut n2", "lines": []})
    assert run("fence", "drill", "n2", "--destructive", "--yes", "--level", "2", "--who", "ann").code == 0
    assert daemon.calls == [calls.FenceDrill("n2", "ann", True, 2)]
