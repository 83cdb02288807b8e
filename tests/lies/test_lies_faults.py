"""Devices that fail, lag, refuse, or switch somebody else: nothing of it is taken for off.

Debian's own agents, as in test_lies_agents.  Times stand in proportion: a lag of 3 s beside an agent that polls for
2 s is what 20 s are beside its default of 20."""

import time
from pathlib import Path

import msgspec
from agent_stacks import (
    BMC,
    LOGIN,
    LOST,
    bare,
    bmc_of,
    cluster,
    host_off,
    ours,
    outlet_off,
    pdu_of,
    redfish_of,
    said,
)
from device_talk import apc_menus, garbage
from power_bench import Bench, eventually

from ringfence.core.cluster import DeviceConfig, Use
from ringfence.core.evidence import Evidence
from ringfence.core.ids import Epoch
from ringfence.fencing.domain import Domain
from ringfence.lab import trees

BOTH = (Use("pdu", {"plug": "5"}), Use("pdu", {"plug": "6"}))
APC = {"apc": LOGIN}


def apc_of(port: int, **more: object) -> DeviceConfig:
    return outlet_off("apc", "fence_apc", ip="127.0.0.1", ipport=port, username="apc", plug=5, **more)


def test_a_controller_that_died_with_its_host_says_nothing_and_the_outlets_decide(bench: Bench) -> None:
    """The story of the source thread: the BMC lost its power with the host."""
    controller = bench.ipmi("n1")
    controller.end()
    bmc, pdu = bmc_of(controller.port), pdu_of(bench.snmp().port)
    config = cluster((bmc,), BOTH, devices=(pdu,))
    first = ours(config, BMC, limit_ms=2000)
    assert first.evidence is None
    assert bench.runs("n1")
    second = ours(config, BMC, level=2, limit_ms=4000)
    assert second.evidence is not None
    assert "bmc-n1 does not answer" in second.evidence.how
    assert not bench.runs("n1")


# -- what takes its time ---------------------------------------------------------------------------


def test_a_status_that_lags_longer_than_the_agent_polls_is_no_off(bench: Bench) -> None:
    bench.late_s["n1"] = 3.0
    bmc = bmc_of(bench.ipmi("n1").port, power_timeout=1)
    outcome = ours(cluster((bmc,)), BMC)
    assert outcome.evidence is None
    assert "Timed out waiting to power OFF" in said(outcome)
    assert bench.runs("n1"), "this proves nothing: it was off in time"


def test_an_agent_that_polls_long_enough_waits_for_it(bench: Bench) -> None:
    bench.late_s["n1"] = 2.0
    outcome = ours(cluster((bmc_of(bench.ipmi("n1").port, power_timeout=20),)), BMC)
    assert outcome.evidence is not None
    assert not bench.runs("n1")


def test_a_pending_order_of_an_apc_reads_as_off(bench: Bench) -> None:
    """`OFF*`: accepted, the relay has not moved.  The agent takes it for off; a controller that answers refutes it."""
    bench.late_s |= {5: 8.0, 6: 0.1}
    port = bench.telnet(apc_menus)
    bench.outlet(6, False)
    answer = bare(apc_of(port), LOGIN, "off")
    assert answer.believed
    assert "Success: Powered OFF" in answer.words
    assert bench.runs("n1")

    outcome = ours(cluster((bmc_of(bench.ipmi("n1").port),), (apc_of(port),)), {**APC, **BMC}, level=2)
    assert outcome.evidence is None
    assert bench.runs("n1")


def test_a_pending_order_is_waited_for_where_the_device_is_let_settle(bench: Bench) -> None:
    bench.late_s[5] = 4.0
    bench.outlet(6, False)
    apc = msgspec.structs.replace(apc_of(bench.telnet(apc_menus)), settle_ms=3500)
    outcome = ours(cluster((apc,)), APC)
    assert outcome.evidence is not None
    assert not bench.runs("n1")


# -- what is somebody else's ---------------------------------------------------------------------------


def test_where_the_cables_were_swapped_the_host_s_own_controller_refutes_the_outlets(bench: Bench) -> None:
    """Outlets 7 and 8 are off indeed, and n2 with them: n1 lives from the others."""
    config = cluster(
        (bmc_of(bench.ipmi("n1").port),), (Use("pdu", {"plug": "7"}), Use("pdu", {"plug": "8"})),
        devices=(pdu_of(bench.snmp().port),),
    )  # fmt: skip
    outcome = ours(config, BMC, level=2)
    assert outcome.evidence is None
    assert 'bmc-n1 says "on"' in outcome.verdict
    assert (bench.runs("n1"), bench.runs("n2")) == (True, False)


def test_where_nobody_else_sees_the_host_its_own_word_refutes_it_then_and_later(bench: Bench) -> None:
    pdu = pdu_of(bench.snmp().port)
    config = cluster((Use("pdu", {"plug": "7"}), Use("pdu", {"plug": "8"})), devices=(pdu,))
    at_once = ours(config, {}, after=lambda run, attempt: attempt.heard_victim() if run.action == "status" else None)
    assert at_once.evidence is None
    assert "n1 still speaks" in at_once.verdict
    bench.outlet(7, True)
    bench.outlet(8, True)

    late = ours(config, {})
    assert late.evidence is not None, "it was hung, and nobody could know better"
    domain = _fenced(late.evidence)
    lie = domain.spoke(LOST, 0, Epoch(3, 1))
    assert lie is not None
    assert lie.devices == ("pdu",)
    assert list(domain.quarantined) == ["pdu"]
    assert [victim.life for victim in domain.victims] == [LOST]


def _fenced(evidence: Evidence) -> Domain:
    domain = Domain()
    domain.add(LOST, Epoch(2, 1), "lost", True, [], 0)
    assert domain.began(LOST, 2, 0, 1, 0)
    assert domain.witness(evidence)
    domain.bound_passed(LOST, 2)
    domain.purged(LOST)
    assert domain.victims == []
    return domain


# -- what refuses, raves, or hangs ----------------------------------------------------------------------


def test_expired_credentials_are_no_off(bench: Bench) -> None:
    bmc, apc = bmc_of(bench.ipmi("n1").port), apc_of(bench.telnet(apc_menus))
    wrong = {"bmc-n1": {"password": "expired"}, "apc": {"password": "expired"}}
    config = cluster((bmc,), (apc,))
    for level in (1, 2):
        outcome = ours(config, wrong, level=level, limit_ms=15_000)
        assert outcome.evidence is None
        assert "expired" not in said(outcome)
    assert bench.orders == []


def test_ten_megabytes_of_nonsense_are_no_off_and_leave_300_letters(bench: Bench) -> None:
    apc = apc_of(bench.telnet(garbage))
    redfish = redfish_of(bench.redfish(lambda bench, path, body: b"\xff{" * 5_000_000), systems_uri="/redfish/v1/Systems/n1")
    config = cluster((apc,), (redfish,))
    for level in (1, 2):
        outcome = ours(config, {**APC, "redfish": LOGIN}, level=level, limit_ms=15_000)
        assert outcome.evidence is None
        assert all(len(word.words) <= 350 for word in outcome.words)
    assert bench.orders == []


def test_a_valid_answer_of_ten_megabytes_is_taken_for_what_it_says(bench: Bench) -> None:
    answer = b'{"PowerState": "Off", "Oem": "' + b"x" * 10_000_000 + b'"}'
    redfish = redfish_of(bench.redfish(lambda bench, path, body: answer), systems_uri="/redfish/v1/Systems/n1")
    outcome = ours(cluster((redfish,)), {"redfish": LOGIN})
    assert outcome.evidence is None
    assert "already off" in outcome.verdict


def test_an_agent_that_forks_and_hangs_is_over_at_its_limit_with_its_children(tmp_path: Path) -> None:
    """One child in its group, one in a session of its own that keeps the pipes and would act late."""
    agent, late = tmp_path / "fence_forks", tmp_path / "late"
    agent.write_text(
        "#!/bin/sh\n"
        f"sleep 60 & echo $! >{tmp_path}/child\n"
        f"setsid sh -c 'echo $$ >{tmp_path}/escaped; sleep 3; touch {late}; sleep 60' & sleep 60\n"
    )
    agent.chmod(0o755)
    began = time.monotonic()
    outcome = ours(cluster((host_off("bmc-n1", str(agent)),)), {}, limit_ms=800)
    assert time.monotonic() - began < 3
    assert outcome.evidence is None
    assert "no answer within 0.8 s: killed" in outcome.verdict
    for file in ("child", "escaped"):
        pid = int((tmp_path / file).read_text())
        eventually(lambda pid=pid: not trees.command(pid))  # type: ignore[misc]
    assert not late.exists()
