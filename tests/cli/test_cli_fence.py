"""fence NODE, fence status, disarm and arm, node re-enrol: what is asked, said, and the exit codes."""

import signal
import threading
from typing import Any

import pytest
from cli_daemon import CannedDaemon
from cli_run import Run

from ringfence.core.errors import NotFound, Refused
from ringfence.wire import client as calls

NODE: dict[str, Any] = {
    "name": "n3", "state": "ready", "levels": [["bmc3"], ["pdu[5]", "pdu[6]"]], "fenceable": True,
    "why_not": "", "machine": "abc", "board": "", "hypervisor": "kvm", "holds": {"lvm_vg0": 2},
    "counts": ["host-off (level 1)", "operator"],
    "tested_wall_ms": 0, "test_failed": ["n1, bmc3: no answer"],
}  # fmt: skip
WORD = {"device": "bmc3", "action": "off", "power": "unknown", "words": "Connection timed out", "took_ms": 9}
VICTIM: dict[str, Any] = {
    "node": "n3", "life": "3/b.1", "since_wall_ms": 0, "proven": False, "words": [WORD],
    "lines": ["n3 suspected since 12:00:00Z", "attempt 1: n1 is running level 1 (bmc3)", "next: level 2"],
}  # fmt: skip
FOUND: dict[str, Any] = {
    "node": "n1", "current": True, "disarmed": None, "evidence": ["power"],
    "quarantined": {"bmc1": "it lied"}, "nodes": [NODE], "victims": [], "fenced": [], "power": [],
}  # fmt: skip
SAID = {"kind": "host-off", "how": "bmc3 said so"}
PROOF = {"node": "n3", "life": "3/b.1", "evidence": [SAID], "order": "i"}


def answers(daemon: CannedDaemon, *steps: dict[str, Any]) -> None:
    """`FenceStatus` is answered with one step after the other, the last one again and again."""
    left = list(steps or [FOUND])

    def answer(call: Any) -> Any:
        match call:
            case calls.FenceStatus():
                return left.pop(0) if len(left) > 1 else left[0]
            case calls.FenceNode():
                return {"node": call.node, "order": "i", "lives": ["3/b.1"]}
            case calls.Status():
                return {"node": "n1"}
            case calls.FenceDisarm():
                return {"disarmed": {"who": call.who, "why": call.why, "left_ms": call.for_ms}}
            case calls.NodeReenrol():
                return {"node": call.node, "machine": "abc"}
        return {}

    daemon.answer = answer


def test_fence_node_tells_what_happens_until_there_is_proof(daemon: CannedDaemon, run: Run) -> None:
    failed = {**VICTIM, "lines": [*VICTIM["lines"], 'level 1 failed (attempt 1, n1): bmc3: unreachable']}
    proven = {**failed, "proven": True, "lines": [*failed["lines"], "evidence: host-off: pdu says so"]}
    answers(daemon, *({**FOUND, "victims": [one]} for one in (VICTIM, failed, proven)))
    ran = run("fence", "n3", "--reboot", "--yes", "--who", "ann", "--why", "it smokes")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "  attempt 1: n1 is running level 1 (bmc3)",
        "  level 1 failed (attempt 1, n1): bmc3: unreachable",
        "  evidence: host-off: pdu says so",
        "n3: fenced; its locks move when its write authority must have run out",
    ]
    (ordered,) = [call for call in daemon.calls if isinstance(call, calls.FenceNode)]
    assert (ordered.node, ordered.who, ordered.why, ordered.action) == ("n3", "ann", "it smokes", "reboot")
    assert ordered.asked_ns > 0


@pytest.mark.parametrize(
    ("words", "at", "told"),
    [
        ("n3 --yes", calls.FenceNode, "the order may stand; `ringfence fence status n3` shows it"),
        ("n3 --yes", calls.FenceStatus, "the order stands; `ringfence fence status n3` shows it"),
        ("drill n3", calls.FenceDrill, "the drill goes on; `ringfence fence history n3` tells its end"),
    ],
)
def test_interrupted_it_says_what_goes_on(
    daemon: CannedDaemon, run: Run, words: str, at: type, told: str
) -> None:
    answers(daemon)
    orders = daemon.answer

    def interrupted(call: Any) -> Any:
        if not isinstance(call, at):
            return orders(call)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return [({"line": "begins"}, False)]

    daemon.answer = interrupted
    ran = run("fence", *words.split())
    assert (ran.code, ran.err) == (130, f"  {told}\n")
    ran = run("fence", *words.split(), "--json")
    assert (ran.code, ran.err) == (130, "")
    error = ran.json["error"]
    assert (error["code"], f"{error['message']}; {error['next']}") == ("interrupted", told)


def test_what_was_purged_meanwhile_is_fenced(daemon: CannedDaemon, run: Run) -> None:
    answers(daemon, {**FOUND, "fenced": [PROOF]})
    ran = run("fence", "n3", "--yes", "--json")
    assert (ran.code, ran.json["fenced"]) == (0, True)
    assert ran.json["evidence"] == ["host-off: bmc3 said so"]


def test_it_need_not_be_waited_for(daemon: CannedDaemon, run: Run) -> None:
    answers(daemon)
    ran = run("fence", "n3", "--yes", "--no-wait")
    assert (ran.code, ran.out) == (0, "n3: ordered fenced; see `ringfence fence status n3`\n")


def test_nobody_is_fenced_unasked(daemon: CannedDaemon, run: Run) -> None:
    answers(daemon)
    ran = run("fence", "n3")
    assert ran.code == 5
    assert "there is no terminal; ringfence fence node n3 --yes" in ran.err
    assert not any(isinstance(call, calls.FenceNode) for call in daemon.calls)


def test_a_node_that_is_called_like_a_command(daemon: CannedDaemon, run: Run) -> None:
    answers(daemon)
    assert run("fence", "node", "history", "--yes", "--no-wait").code == 0
    assert [call.node for call in daemon.calls if isinstance(call, calls.FenceNode)] == ["history"]


def test_options_may_stand_before_the_node(daemon: CannedDaemon, run: Run) -> None:
    answers(daemon)
    assert run("fence", "--off", "--yes", "n3", "--no-wait").code == 0
    assert [call.action for call in daemon.calls if isinstance(call, calls.FenceNode)] == ["off"]
    assert run("fence", "-h").out.startswith("Usage: ringfence fence [OPTIONS] NODE | COMMAND")


def test_off_or_on_again(daemon: CannedDaemon, run: Run) -> None:
    answers(daemon)
    ran = run("fence", "n3", "--off", "--reboot", "--yes")
    assert ran.code == 3
    assert "give one of --off and --reboot" in ran.err
    assert not any(isinstance(call, calls.FenceNode) for call in daemon.calls)


def test_a_refusal_is_the_daemons(daemon: CannedDaemon, run: Run) -> None:
    def refuse(call: Any) -> Any:
        raise NotFound("no node is called histroy", next="ringfence status")

    daemon.answer = refuse
    ran = run("fence", "histroy", "--yes")
    assert (ran.code, ran.err) == (5, "  no node is called histroy; ringfence status\n")


def test_fence_status(daemon: CannedDaemon, run: Run) -> None:
    answers(daemon, {**FOUND, "victims": [VICTIM]})
    ran = run("fence", "status")
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].split() == ["NODE", "STATE", "LAST", "TEST", "FENCED", "BY", "WOULD", "COUNT"]
    assert "bmc3 | pdu[5], pdu[6]" in lines[1]
    assert "virtual (kvm); test failed: n1, bmc3: no answer" in lines[1]
    assert lines[2] == "quarantined: bmc1: it lied (`ringfence fence trust bmc1` ends it)"
    assert "    bmc3 off: Connection timed out" in lines
    answers(daemon)
    assert run("fence", "status", "n3", "--json").json["nodes"][0]["name"] == "n3"
    assert run("fence", "status").code == 0


def test_disarm_is_loud(daemon: CannedDaemon, run: Run) -> None:
    answers(daemon)
    said = run("fence", "disarm", "--for", "2h", "--why", "new PDU").out
    assert said == "FENCING IS DISARMED for 2h; `ringfence fence arm` ends that\n"
    (call,) = daemon.calls
    assert isinstance(call, calls.FenceDisarm)
    assert (call.for_ms, call.why) == (7_200_000, "new PDU")
    answers(daemon, {**FOUND, "disarmed": {"who": "ann", "why": "new PDU", "left_ms": 90_000}})
    assert run("fence", "status").err == "FENCING IS DISARMED by ann, new PDU: 90 s more\n"
    assert run("fence", "arm").out == "fencing is armed\n"


@pytest.mark.parametrize("words", [["--for", "5"], ["--for", "soon"], []])
def test_disarm_is_not_for_ever(daemon: CannedDaemon, run: Run, words: list[str]) -> None:
    assert run("fence", "disarm", *words).code == (5 if words else 3)
    assert daemon.calls == []


def test_re_enrol_asks_first(daemon: CannedDaemon, run: Run) -> None:
    answers(daemon)
    assert run("node", "re-enrol", "n3").code == 5
    ran = run("node", "re-enrol", "n3", "--yes", "--why", "new blade")
    assert (ran.code, ran.out[:40]) == (0, "n3: the next machine to join is enrolled")
    lines = run("node", "list").out.splitlines()
    assert [line.split() for line in lines] == [
        ["NODE", "STATE", "MACHINE-ID", "BOARD", "VIRTUAL"], ["n3", "ready", "abc", "-", "kvm"],
    ]  # fmt: skip


def test_history_since(daemon: CannedDaemon, run: Run) -> None:
    events = [
        {"seq": seq, "wall_ms": wall_ms, "kind": "attempt-ended", "what": f"e{seq}", "fields": fields}
        for seq, wall_ms, fields in (
            (1, 1_000, {}),
            (2, 1_790_000_000_000, {"words": [WORD], "agents_ms": 900, "waits_ms": 0, "ours_ms": 10}),
        )
    ]
    daemon.answer = lambda call: {"history": events}
    assert len(run("fence", "history").out.splitlines()) == 4
    lines = run("fence", "history", "--since", "2020-01-01").out.splitlines()
    assert [line.split()[-1] for line in lines] == ["e2", "ms)", "s"]
    assert "bmc3 off unknown Connection timed out (9 ms)" in lines[1]
    assert "agents 0.90 s, waits as configured 0.00 s, ringfence 0.01 s" in lines[2]
    ran = run("fence", "history", "--since", "yesterday")
    assert (ran.code, "is no point in time" in ran.err) == (5, True)


def test_a_word_that_the_cluster_refuses(daemon: CannedDaemon, run: Run) -> None:
    def refuse(call: Any) -> Any:
        raise Refused("n3 keeps its machine: n3 must be proven fenced first", next="wait for it")

    daemon.answer = refuse
    assert run("node", "re-enrol", "n3", "--yes").code == 5
