"""Devices that fail, lag, refuse, or switch another host: nothing of it is taken for off.

Debian's own agents, as in test_lies_agents.  Times stand in proportion: a lag of 30 s beside an agent that
looks four times is what minutes are beside its usual 20 looks."""

import time
from pathlib import Path

import msgspec
from agent_stacks import LOST, Benches, bmc_of, cluster, eventually, ours, outlets_of, pdu_of, said

from ringfence.core.cluster import Confirms, DeviceConfig
from ringfence.core.evidence import Evidence
from ringfence.core.ids import Epoch
from ringfence.fencing.domain import Domain
from ringfence.fencing.level_run import LevelRun, Run
from ringfence.lab import trees
from ringfence.lab.devices.bench import Bench

ESTABLISHED = "01"
"""In /proc/net/tcp."""


def test_a_controller_that_died_with_its_host_says_nothing_and_the_outlets_decide(bench: Benches) -> None:
    """The story of the source thread: the BMC lost its power with the host."""
    made = bench("ipmi", "apc-snmp")
    made.lie("n1", "bmc", "hang")
    bmc = msgspec.structs.replace(bmc_of(made), timeout_ms=1000)
    config = cluster((bmc,), outlets_of(made))
    first = ours(made, config)
    assert first.evidence is None
    assert made.runs("n1")
    second = ours(made, config, level=2)
    assert second.evidence is not None
    assert "bmc-n1 does not answer" in second.evidence.how
    assert not made.runs("n1")


# -- what takes its time ---------------------------------------------------------------------------


def test_a_status_that_lags_longer_than_the_agent_looks_is_no_off(bench: Benches) -> None:
    made = bench("ipmi")
    made.lie("n1", "bmc", "lag", delay_s=30.0)
    config = cluster((bmc_of(made),))
    outcome = ours(made, config)
    assert outcome.evidence is None
    assert "Timed out waiting to power OFF" in said(outcome)
    # It is off all the same: the next round's agent finds it so, and then that is no lie.
    made.lie("n1", "bmc", "none")
    assert ours(made, config).evidence is None, "nobody has seen an off of ours succeed"


def test_an_agent_that_looks_often_enough_waits_for_a_lagging_status(bench: Benches) -> None:
    made = bench("ipmi")
    made.lie("n1", "bmc", "lag", delay_s=3.0)
    outcome = ours(made, cluster((bmc_of(made, power_timeout=20),)))
    assert outcome.evidence is not None
    assert not made.runs("n1")


def test_off_that_comes_late_is_off_only_then(bench: Benches) -> None:
    """The device says done, and acts a while later: its status tells."""
    made = bench("ipmi")
    made.lie("n1", "bmc", "late", delay_s=30.0)
    outcome = ours(made, cluster((bmc_of(made),)))
    assert outcome.evidence is None
    assert made.runs("n1")


def test_a_pending_order_of_an_apc_reads_as_off(bench: Benches) -> None:
    """`OFF*`: accepted, the relay has not moved.  fence_apc takes it for off; the BMC refutes it."""
    made = bench("apc-menu", "ipmi")
    made.plug("n1", "psu2", "pdu-a", "n1")
    made.lie("n1", "pdu-a", "pending", delay_s=60.0)
    outcome = ours(made, cluster((bmc_of(made),), (pdu_of(made),)), level=2)
    assert [(word.device, word.power) for word in outcome.words[:2]] == [("pdu-a", "off")] * 2
    assert outcome.evidence is None
    assert 'bmc-n1 says "on"' in outcome.verdict
    assert made.runs("n1"), "this proves nothing: it was off in time"


def test_a_pending_order_is_waited_for_where_the_device_is_let_settle(bench: Benches) -> None:
    made = bench("apc-snmp")
    made.plug("n1", "psu2", "pdu-a", "n1")
    made.lie("n1", "pdu-a", "pending", delay_s=2.5)
    config = cluster((msgspec.structs.replace(pdu_of(made), settle_ms=2500),))
    assert ours(made, config).evidence is not None
    assert not made.runs("n1")


# -- what is somebody else's ---------------------------------------------------------------------------


def swapped(bench: Benches, *kinds: str) -> Bench:
    """Somebody has moved the cables: n1 lives from what are n2's outlets, and n2 from n1's."""
    made = bench(*kinds)
    for one, other in (("n1", "n2"), ("n2", "n1")):
        made.plug(one, "psu1", "pdu-a", other)
        made.plug(one, "psu2", "pdu-b", other)
    return made


def test_where_cables_were_swapped_the_host_s_own_controller_refutes_the_outlets(bench: Benches) -> None:
    made = swapped(bench, "ipmi", "apc-snmp")
    outcome = ours(made, cluster((bmc_of(made),), outlets_of(made)), level=2)
    assert outcome.evidence is None
    assert 'bmc-n1 says "on"' in outcome.verdict
    assert (made.runs("n1"), made.runs("n2")) == (True, False)


def test_where_nobody_else_sees_the_host_its_own_voice_refutes_them_then_and_later(bench: Benches) -> None:
    made = swapped(bench, "apc-snmp")
    config = cluster(outlets_of(made))

    def speaks(run: Run, attempt: LevelRun) -> None:
        if run.action == "status":
            attempt.heard_victim()

    at_once = ours(made, config, after=speaks)
    assert at_once.evidence is None
    assert "n1 still speaks" in at_once.verdict

    made.switch("n2", "on")
    silent = ours(made, config)
    assert silent.evidence is not None, "it hangs, and nobody can know better"
    domain = _given_up(silent.evidence)
    lie = domain.spoke(LOST, 0, Epoch(3, 1))
    assert lie is not None
    assert lie.devices == ("pdu-a", "pdu-b")
    assert list(domain.quarantined) == ["pdu-a", "pdu-b"]
    assert [victim.life for victim in domain.victims] == [LOST]


def _given_up(evidence: Evidence) -> Domain:
    domain = Domain()
    domain.add(LOST, Epoch(2, 1), "lost", True, [], 0)
    assert domain.began(LOST, 2, 0, 1, 0)
    assert domain.witness(evidence)
    domain.bound_passed(LOST, 2)
    domain.purged(LOST)
    assert domain.victims == []
    return domain


# -- what refuses, raves, or hangs ----------------------------------------------------------------------


def test_expired_credentials_are_no_off(bench: Benches) -> None:
    made = bench("ipmi", "apc")
    for device in ("bmc", "pdu"):
        made.lie("n1", device, "no-login")
    config = cluster((bmc_of(made),), (pdu_of(made),))
    for level in (1, 2):
        outcome = ours(made, config, level=level, limit_ms=4000)
        assert outcome.evidence is None
        assert "bench-secret" not in said(outcome)
        assert outcome.words[0].power == "unknown"
    assert made.orders == []


def test_ten_megabytes_of_nonsense_are_no_off_and_leave_one_line(bench: Benches) -> None:
    made = bench("redfish", "apc")
    for device in ("bmc", "pdu"):
        made.lie("n1", device, "garbage")
    config = cluster((made.config("bmc-n1"),), (pdu_of(made),))
    for level in (1, 2):
        outcome = ours(made, config, level=level, limit_ms=3000)
        assert outcome.evidence is None
        assert outcome.words[0].power == "unknown"
        assert all(len(word.words) < 400 and word.words.isprintable() for word in outcome.words)
    assert made.orders == []


def test_an_agent_that_forks_and_hangs_is_over_at_its_limit_with_its_children(tmp_path: Path) -> None:
    agent = tmp_path / "fence_forks"
    agent.write_text(f"#!/bin/sh\nfor n in 1 2 3; do sleep 60 & echo $! >{tmp_path}/$n; done\nsleep 60\n")
    agent.chmod(0o755)
    began = time.monotonic()
    outcome = ours(None, cluster((DeviceConfig("bmc-n1", str(agent), Confirms.HOST_OFF),)), limit_ms=2000)
    assert time.monotonic() - began < 30
    assert outcome.evidence is None
    assert "no answer within 2 s: killed" in outcome.verdict
    children = [int((tmp_path / name).read_text()) for name in "123"]
    eventually(lambda: not any(trees.command(pid) for pid in children))


def test_a_tool_that_an_agent_has_on_a_terminal_of_its_own_goes_with_it(bench: Benches) -> None:
    """fence_apc's telnet is in another session, where no signal to the agent's group reaches it."""
    made = bench("apc")
    made.lie("n1", "pdu", "hang")
    outcome = ours(made, cluster((pdu_of(made, login_timeout=30),)), limit_ms=2000)
    assert outcome.evidence is None
    assert "no answer within 2 s: killed" in outcome.verdict
    eventually(lambda: not _connected_to(made.devices["pdu-a"].port))


def _connected_to(port: int) -> bool:
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED for row in rows)
