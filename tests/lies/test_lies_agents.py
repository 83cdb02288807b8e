"""The nine ways in which real agents lie: each is believed by whoever looks at exit codes, and caught here.

Debian's own agents against simulated devices; what is true is known from the host itself, a process that runs
or does not.  Each test first shows that the lie is one.  What evidence cannot catch (a silent host, and one
device that lies well) is refused before anything is run; `forced` shows what is left then.  The numbers are
those of docs/fencing.md."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from agent_stacks import (
    Benches,
    bare,
    bmc_of,
    cluster,
    eventually,
    keys_of,
    lines_of,
    ours,
    pdu_of,
    said,
    say,
    sbd_device,
    tools_at,
)
from gate import Gate

from ringfence.agents.process import AGENT_PATH
from ringfence.core.cluster import Confirms, DeviceConfig, Use
from ringfence.core.evidence import EvidenceKind
from ringfence.lab.devices.bench import Bench
from ringfence.lab.devices.systems import system_uri

# -- 1 ---------------------------------------------------------------------------------------------


def both_on_one(bench: Benches, *kinds: str) -> Bench:
    """n1's second cable hangs on what is the other outlet of the same PDU."""
    made = bench(*kinds, "apc-snmp")
    made.plug("n1", "psu2", "pdu-a", "n2")
    return made


def test_1_of_a_list_of_plugs_only_the_first_is_switched(bench: Benches) -> None:
    made = both_on_one(bench)
    pdu = pdu_of(made, plug="1,2")
    answer = bare(made, pdu, "off")
    assert answer.believed
    assert "Success: Powered OFF" in answer.words
    assert made.orders == [("n1", "pdu-a", "off")] * 2, "outlet 1 twice, outlet 2 never"
    assert made.runs("n1")

    outcome = ours(made, cluster((pdu,)))
    assert outcome.evidence is None
    assert "some agents switch the first of several plugs" in outcome.verdict
    assert len(made.orders) == 2, "it was run all the same"


@pytest.mark.usefixtures("forced")
def test_1_forced_a_controller_that_still_answers_refutes_the_list(bench: Benches) -> None:
    made = both_on_one(bench, "ipmi")
    outcome = ours(made, cluster((bmc_of(made),), (pdu_of(made, plug="1,2"),)), level=2)
    assert outcome.evidence is None
    assert 'bmc-n1 says "on"' in outcome.verdict
    assert outcome.contradicted == ("pdu-a",)
    assert made.runs("n1")


def test_1_one_plug_a_call_switches_both(bench: Benches) -> None:
    made = both_on_one(bench)
    level = (Use("pdu-a", {"plug": "1"}), Use("pdu-a", {"plug": "2"}))
    outcome = ours(made, cluster(level, devices=(pdu_of(made),)))
    assert outcome.evidence is not None
    assert outcome.evidence.kind is EvidenceKind.OUTLETS_OFF
    assert not made.runs("n1")


# -- 2 ---------------------------------------------------------------------------------------------


def test_2_snmp_v2c_says_off_of_an_outlet_that_does_not_exist(bench: Benches) -> None:
    made = bench("apc-snmp")
    pdu = pdu_of(made, plug=42, snmp_version="2c")
    answer = bare(made, pdu, "off")
    assert answer.believed
    assert "Already OFF" in answer.words

    outcome = ours(made, cluster((pdu,)))
    assert outcome.evidence is None
    assert "the device has no such plug" in outcome.verdict
    assert made.orders == []
    assert made.runs("n1")


@pytest.mark.usefixtures("forced")
def test_2_forced_it_was_already_off_and_that_is_no_off(bench: Benches) -> None:
    made = bench("apc-snmp")
    outcome = ours(made, cluster((pdu_of(made, plug=42, snmp_version="2c"),)))
    assert outcome.evidence is None
    assert "pdu-a was already off, so no off was sent" in outcome.verdict


# -- 3 ---------------------------------------------------------------------------------------------


def test_3_a_cycle_is_acknowledged_and_nothing_happens(bench: Benches) -> None:
    made = bench("ipmi")
    made.lie("n1", "bmc", "ack-ignore")
    bmc = bmc_of(made, method="cycle")
    before = made.process("n1")
    answer = bare(made, bmc, "reboot")
    assert answer.believed
    assert "Success: Rebooted" in answer.words
    assert made.process("n1") == before

    outcome = ours(made, cluster((bmc,)))
    assert outcome.evidence is None
    assert "method=cycle is refused" in outcome.verdict


@pytest.mark.usefixtures("forced")
def test_3_forced_nobody_is_told_to_cycle(bench: Benches) -> None:
    """What is run is an off, then a look: a controller that ignores it is seen on."""
    made = bench("ipmi")
    made.lie("n1", "bmc", "ack-ignore")
    outcome = ours(made, cluster((bmc_of(made, method="cycle"),)))
    assert outcome.evidence is None
    assert made.orders == [("n1", "bmc", "off")]
    assert made.runs("n1")


# -- 4 ---------------------------------------------------------------------------------------------


def test_4_a_stale_controller_says_already_off(bench: Benches) -> None:
    made = bench("ipmi")
    made.lie("n1", "bmc", "say-off")
    bmc = bmc_of(made)
    answer = bare(made, bmc, "off")
    assert answer.believed
    assert "Already OFF" in answer.words
    assert made.orders == []

    outcome = ours(made, cluster((bmc,)))
    assert outcome.evidence is None
    assert "bmc-n1 was already off, so no off was sent" in outcome.verdict
    assert made.orders == []
    assert made.runs("n1")

    # A reboot of it sends only "on", waits for it in vain, and is a success.
    answer = bare(made, bmc, "reboot")
    assert answer.believed
    assert made.orders == [("n1", "bmc", "on")]
    assert made.runs("n1")


def test_4_a_plug_that_this_fencing_has_switched_off_may_be_off_already(bench: Benches) -> None:
    """Else a level of two outlets whose first try switched one of them could never pass."""
    made = bench("apc-snmp")
    pdu = pdu_of(made)
    assert ours(made, cluster((pdu,))).evidence is not None
    assert ours(made, cluster((pdu,)), switched={"pdu-a": 1}).evidence is not None
    assert ours(made, cluster((pdu,))).evidence is None
    assert made.orders == [("n1", "pdu-a", "off")]


# -- 5 ---------------------------------------------------------------------------------------------


@pytest.fixture
def sbd(tmp_path: Path) -> Iterator[DeviceConfig]:
    with sbd_device(tmp_path) as device:
        yield device


def pills(sbd: DeviceConfig) -> str:
    """What lies in the slots."""
    words = ["sbd", "-d", sbd.parameters["devices"], "list"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.replace("\t", " ")


@pytest.mark.usefixtures("forced")
def test_5_sbd_says_off_because_a_pill_lies_in_the_slot(sbd: DeviceConfig) -> None:
    """The first who fences is interrupted long before msgwait; the second finds its pill, and is content.

    (The victim does not even run sbd, and nobody here was switched off.)"""
    for limit_s in (2, 10):  # a busy machine may have been interrupted too soon
        first = ours(None, cluster((sbd,)), limit_ms=limit_s * 1000)
        assert first.evidence is None
        assert f"no answer within {limit_s} s: killed" in first.verdict
        if " off" in pills(sbd):
            break

    answer = say(sbd.agent, {**sbd.parameters, "action": "off"})
    assert answer.believed
    assert "Already OFF" in answer.words
    assert answer.took_s < 20, "it waited for msgwait"

    second = ours(None, cluster((sbd,)))
    assert second.evidence is None
    assert "sbd was already off, so no off was sent" in second.verdict


def test_5_what_is_run_in_its_place_waits_whatever_lies_in_the_slot(sbd: DeviceConfig) -> None:
    own = msgspec.structs.replace(sbd, confirms=Confirms.SELF_FENCE)
    for _ in range(2):
        outcome = ours(None, cluster((own,)), limit_ms=1500)
        assert outcome.evidence is None
        assert "no answer within 1.5 s: killed" in outcome.verdict


# -- 6 ---------------------------------------------------------------------------------------------


def enclosure_of(bench: Bench, **parameters: str) -> DeviceConfig:
    """The manager of both hosts, without a word of which is meant."""
    config = bench.config("manager", parameters)
    words = {key: value for key, value in config.parameters.items() if key != "systems_uri" or parameters}
    return DeviceConfig(config.name, config.agent, config.confirms, words)


def test_6_without_a_system_redfish_switches_the_last_of_the_list(bench: Benches) -> None:
    made = bench("redfish", together=("redfish",))
    manager = enclosure_of(made)
    answer = bare(made, manager, "off")
    assert answer.believed
    assert (made.runs("n1"), made.runs("n2")) == (True, False), "the bystander was cut"
    made.switch("n2", "on")

    outcome = ours(made, cluster((manager,)))
    assert outcome.evidence is None
    assert "systems_uri is missing" in outcome.verdict
    assert made.runs("n2")

    outcome = ours(made, cluster((enclosure_of(made, systems_uri=system_uri("n1")),)))
    assert outcome.evidence is not None
    assert (made.runs("n1"), made.runs("n2")) == (False, True)


@pytest.mark.usefixtures("forced")
def test_6_forced_another_device_that_sees_the_host_refutes_it(bench: Benches) -> None:
    made = bench("redfish", "ipmi", together=("redfish",))
    outcome = ours(made, cluster((enclosure_of(made),), (bmc_of(made),)))
    assert outcome.evidence is None
    assert 'bmc-n1 says "on"' in outcome.verdict
    assert made.runs("n1")


# -- 7 ---------------------------------------------------------------------------------------------


def test_7_option_off_is_ignored_and_means_reboot(bench: Benches) -> None:
    made = bench("ipmi")
    bmc = bmc_of(made)
    keys = {key: value for key, value in keys_of(made, bmc, "").items() if key != "action"}
    answer = say(bmc.agent, {**keys, "option": "off"})
    assert answer.believed
    assert made.orders == [("n1", "bmc", "off"), ("n1", "bmc", "on")]
    assert made.runs("n1"), "it was to be off"

    outcome = ours(made, cluster((bmc_of(made, option="off"),)))
    assert outcome.evidence is None
    assert "option is not for parameters" in outcome.verdict
    assert len(made.orders) == 2
    outcome = ours(made, cluster((bmc,)))
    assert outcome.evidence is not None
    assert made.orders[2:] == [("n1", "bmc", "off")]
    assert not made.runs("n1")


# -- 8 ---------------------------------------------------------------------------------------------


def test_8_power_timeout_counts_looks_and_the_limit_counts_seconds(bench: Benches) -> None:
    """power_timeout=2 is two looks, each as slow as the device is."""
    made = bench("ipmi")
    made.lie("n1", "bmc", "ack-ignore")
    with Gate(made.devices["bmc-n1"].port, slow_s=0.6) as gate:
        bmc = bmc_of(made, ipport=gate.port, power_timeout=2)
        answer = bare(made, bmc, "off")
        assert not answer.believed
        assert answer.took_s > 2 * 2

        began = time.monotonic()
        outcome = ours(made, cluster((bmc,)), limit_ms=1500)
        assert time.monotonic() - began < answer.took_s
    assert outcome.evidence is None
    assert "no answer within 1.5 s: killed" in outcome.verdict


def test_8_pacemakers_environment_would_make_it_wait_for_ever(
    bench: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench("ipmi")
    made.lie("n1", "bmc", "ack-ignore")
    bmc = bmc_of(made)
    monkeypatch.setenv("PCMK_service", "pacemaker-fenced")
    with subprocess.Popen(
        ["fence_ipmilan"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as waiting:  # fmt: skip
        try:
            assert waiting.stdin is not None
            waiting.stdin.write(lines_of(keys_of(made, bmc, "off")))
            waiting.stdin.close()
            # With the same variable our agent gives up by itself while the other waits on.
            outcome = ours(made, cluster((bmc,)))
            assert outcome.evidence is None
            assert "Timed out waiting to power OFF" in said(outcome)
            assert waiting.poll() is None
        finally:
            os.killpg(waiting.pid, signal.SIGKILL)  # nothing else ends it


# -- 9 ---------------------------------------------------------------------------------------------


def test_9_a_killed_agent_leaves_a_tool_that_switches_off_the_recovered_host(bench: Benches) -> None:
    made = bench("ipmi")
    with Gate(made.devices["bmc-n1"].port, sessions=1) as gate:
        keys = keys_of(made, bmc_of(made, ipport=gate.port, power_timeout=20), "off")
        with subprocess.Popen(
            ["fence_ipmilan"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"PATH": AGENT_PATH}
        ) as agent:
            assert agent.stdin is not None
            agent.stdin.write(lines_of(keys))
            agent.stdin.close()
            assert gate.held.wait(60)
            agent.kill()
        assert tools_at(gate.port), "nothing was left behind"
        gate.sessions = 100
        eventually(lambda: not made.runs("n1"))
    assert made.orders == [("n1", "bmc", "off")]


def test_9_with_the_agent_goes_all_that_it_started(bench: Benches) -> None:
    made = bench("ipmi")
    with Gate(made.devices["bmc-n1"].port, sessions=1) as gate:
        bmc = bmc_of(made, ipport=gate.port, power_timeout=20)
        outcome = ours(made, cluster((bmc,)), limit_ms=5000)
        assert outcome.evidence is None
        assert gate.held.is_set(), "its off never reached the door"
        assert "no answer within 5 s: killed" in outcome.verdict
        eventually(lambda: not tools_at(gate.port))
        gate.sessions = 100
        assert bare(made, bmc, "status").code == 0, "the door is open"
    assert made.orders == []
    assert made.runs("n1")
