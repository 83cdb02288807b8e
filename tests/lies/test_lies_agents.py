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

import pytest
from agent_stacks import (
    BMC,
    LOGIN,
    Answer,
    bare,
    bmc_of,
    cluster,
    host_off,
    lines_of,
    ours,
    pdu_of,
    redfish_of,
    said,
    say,
)
from device_talk import redfish
from power_bench import Bench, eventually

from ringfence.agents.process import AGENT_PATH
from ringfence.core.cluster import Use
from ringfence.core.evidence import EvidenceKind
from ringfence.host.processes import process
from ringfence.lab import trees


def refused(answer: Answer) -> None:
    assert not answer.believed, answer.words


# -- 1 ---------------------------------------------------------------------------------------------


def test_1_of_a_list_of_plugs_only_the_first_is_switched(bench: Bench) -> None:
    pdu = pdu_of(bench.snmp().port, plug="5,6")
    answer = bare(pdu, {}, "off")
    assert answer.believed
    assert "Success: Powered OFF" in answer.words
    assert bench.orders == [("outlet 5", "off")]
    assert bench.runs("n1")

    outcome = ours(cluster((pdu,)), {})
    assert outcome.evidence is None
    assert "plug" in outcome.verdict
    assert bench.orders == [("outlet 5", "off")], "it was run all the same"


@pytest.mark.usefixtures("forced")
def test_1_forced_a_controller_that_still_answers_refutes_the_list(bench: Bench) -> None:
    pdu, bmc = pdu_of(bench.snmp().port, plug="5,6"), bmc_of(bench.ipmi("n1").port)
    outcome = ours(cluster((bmc,), (pdu,)), BMC, level=2)
    assert outcome.evidence is None
    assert 'bmc-n1 says "on"' in outcome.verdict
    assert outcome.contradicted == ("pdu",)
    assert bench.runs("n1")


def test_1_one_plug_a_call_switches_both(bench: Bench) -> None:
    pdu = pdu_of(bench.snmp().port)
    level = (Use("pdu", {"plug": "5"}), Use("pdu", {"plug": "6"}))
    outcome = ours(cluster(level, devices=(pdu,)), {})
    assert outcome.evidence is not None
    assert outcome.evidence.kind is EvidenceKind.OUTLETS_OFF
    assert not bench.runs("n1")
    assert bench.runs("n2")


# -- 2 ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("forced")
def test_2_snmp_v2c_says_off_of_an_outlet_that_does_not_exist(bench: Bench) -> None:
    pdu = pdu_of(bench.snmp().port, plug=42, snmp_version="2c")
    answer = bare(pdu, {}, "off")
    assert answer.believed
    assert "Already OFF" in answer.words

    outcome = ours(cluster((pdu,)), {})
    assert outcome.evidence is None
    assert "already off" in outcome.verdict
    assert bench.orders == []
    assert bench.runs("n1")


def test_2_by_snmp_v1_the_device_refuses_it_itself(bench: Bench) -> None:
    outcome = ours(cluster((pdu_of(bench.snmp().port, plug=42),)), {})
    assert outcome.evidence is None
    assert "noSuchName" in said(outcome)


# -- 3 ---------------------------------------------------------------------------------------------


def test_3_a_cycle_is_acknowledged_and_nothing_happens(bench: Bench) -> None:
    bench.deaf.add("n1")
    bmc = bmc_of(bench.ipmi("n1").port, method="cycle")
    answer = bare(bmc, LOGIN, "reboot")
    assert answer.believed
    assert "Success: Rebooted" in answer.words
    assert (bench.runs("n1"), bench.hosts["n1"].boots) == (True, 1)

    outcome = ours(cluster((bmc,)), BMC)
    assert outcome.evidence is None
    assert "cycle" in outcome.verdict


@pytest.mark.usefixtures("forced")
def test_3_forced_nobody_is_told_to_cycle(bench: Bench) -> None:
    """What is run is an off, then a look: a controller that ignores it is seen on."""
    bench.deaf.add("n1")
    outcome = ours(cluster((bmc_of(bench.ipmi("n1").port, method="cycle"),)), BMC)
    assert outcome.evidence is None
    assert bench.orders == [("n1", "off")]
    assert bench.runs("n1")


# -- 4 ---------------------------------------------------------------------------------------------


def test_4_a_stale_controller_says_already_off(bench: Bench) -> None:
    bench.stale.add("n1")
    bmc = bmc_of(bench.ipmi("n1").port)
    answer = bare(bmc, LOGIN, "off")
    assert answer.believed
    assert "Already OFF" in answer.words

    outcome = ours(cluster((bmc,)), BMC)
    assert outcome.evidence is None
    assert "bmc-n1 was already off, so no off was sent" in outcome.verdict
    assert bench.orders == []
    assert bench.runs("n1")


def test_4_a_reboot_of_it_sends_only_on_and_is_a_success(bench: Bench) -> None:
    bench.stale.add("n1")
    answer = bare(bmc_of(bench.ipmi("n1").port, power_timeout=1), LOGIN, "reboot")
    assert answer.believed
    assert ("n1", "off") not in bench.orders
    assert bench.runs("n1")


def test_4_an_outlet_that_this_fencing_has_switched_off_may_be_off_already(bench: Bench) -> None:
    """Else a level of two outlets whose first try switched one of them could never pass."""
    pdu = pdu_of(bench.snmp().port, plug=5)
    first = ours(cluster((pdu,)), {})
    assert first.evidence is not None
    again = ours(cluster((pdu,)), {}, switched={"pdu": 1})
    assert again.evidence is not None
    assert bench.orders == [("outlet 5", "off")]


# -- 5 ---------------------------------------------------------------------------------------------


@pytest.fixture
def sbd_device(tmp_path: Path) -> Iterator[str]:
    """A block device with a slot for n1, which nobody watches; msgwait is 20 s."""
    image = tmp_path / "sbd.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    loop = _run("losetup", "-f", "--show", str(image)).strip()
    try:
        _run("sbd", "-d", loop, "-4", "20", "-1", "10", "create")
        _run("sbd", "-d", loop, "allocate", "n1")
        yield loop
    finally:
        _run("losetup", "-d", loop)


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@pytest.mark.usefixtures("forced")
def test_5_sbd_says_off_because_a_pill_lies_in_the_slot(bench: Bench, sbd_device: str) -> None:
    """The first who fences is interrupted long before msgwait; the second finds its pill, and is content."""
    sbd = host_off("sbd", "fence_sbd", devices=sbd_device, plug="n1")
    first = ours(cluster((sbd,)), {}, limit_ms=1500)
    assert first.evidence is None
    assert "no answer within 1.5 s" in first.verdict

    answer = bare(sbd, {}, "off")
    assert answer.believed
    assert "Already OFF" in answer.words
    assert answer.took_s < 10, "it waited for msgwait"
    assert bench.runs("n1")

    second = ours(cluster((sbd,)), {})
    assert second.evidence is None
    assert "already off" in second.verdict


# -- 6 ---------------------------------------------------------------------------------------------


def test_6_without_a_system_redfish_switches_the_last_of_the_list(bench: Bench) -> None:
    device = redfish_of(bench.redfish(redfish))
    answer = bare(device, LOGIN, "off")
    assert answer.believed
    assert (bench.runs("n1"), bench.runs("n2")) == (True, False), "the bystander was cut"
    bench.chassis("n2", True)

    outcome = ours(cluster((device,)), {"redfish": LOGIN})
    assert outcome.evidence is None
    assert "systems_uri" in outcome.verdict
    assert bench.runs("n2")


@pytest.mark.usefixtures("forced")
def test_6_forced_another_device_that_sees_the_host_refutes_it(bench: Bench) -> None:
    device, bmc = redfish_of(bench.redfish(redfish)), bmc_of(bench.ipmi("n1").port)
    outcome = ours(cluster((device,), (bmc,)), {"redfish": LOGIN, **BMC})
    assert outcome.evidence is None
    assert 'bmc-n1 says "on"' in outcome.verdict
    assert bench.runs("n1")


def test_6_with_a_system_it_is_the_right_one(bench: Bench) -> None:
    device = redfish_of(bench.redfish(redfish), systems_uri="/redfish/v1/Systems/n1")
    outcome = ours(cluster((device,)), {"redfish": LOGIN})
    assert outcome.evidence is not None
    assert (bench.runs("n1"), bench.runs("n2")) == (False, True)


# -- 7 ---------------------------------------------------------------------------------------------


def test_7_option_off_is_ignored_and_means_reboot(bench: Bench) -> None:
    bmc = bmc_of(bench.ipmi("n1").port)
    answer = say(bmc.agent, {**bmc.parameters, **LOGIN, "option": "off"})
    assert answer.believed
    assert bench.orders == [("n1", "off"), ("n1", "on")]
    assert bench.runs("n1"), "it was to be off"

    bench.orders.clear()
    outcome = ours(cluster((bmc_of(int(bmc.parameters["ipport"]), option="off"),)), BMC)
    assert outcome.evidence is None
    assert "option is not for parameters" in outcome.verdict
    assert bench.orders == []
    outcome = ours(cluster((bmc,)), BMC)
    assert outcome.evidence is not None
    assert bench.orders == [("n1", "off")]
    assert not bench.runs("n1")


# -- 8 ---------------------------------------------------------------------------------------------


def test_8_power_timeout_counts_looks_and_the_limit_counts_seconds(bench: Bench) -> None:
    """power_timeout=2 is two looks, each as slow as the device is."""
    bench.deaf.add("n1")
    bench.slow_s["n1"] = 0.8
    bmc = bmc_of(bench.ipmi("n1").port, power_timeout=2)
    answer = bare(bmc, LOGIN, "off")
    refused(answer)
    assert answer.took_s > 2 * 2

    began = time.monotonic()
    outcome = ours(cluster((bmc,)), BMC, limit_ms=1500)
    assert time.monotonic() - began < 3.5
    assert outcome.evidence is None
    assert "no answer within 1.5 s: killed" in outcome.verdict


def test_8_pacemakers_environment_would_make_it_wait_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.deaf.add("n1")
    bmc = bmc_of(bench.ipmi("n1").port, power_timeout=1)
    refused(bare(bmc, LOGIN, "off"))
    monkeypatch.setenv("PCMK_service", "pacemaker-fenced")
    with subprocess.Popen(
        ["fence_ipmilan"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as waiting:  # fmt: skip
        assert waiting.stdin is not None
        waiting.stdin.write(lines_of({**bmc.parameters, **LOGIN, "action": "off"}))
        waiting.stdin.close()
        # Of the same daemon, with the same variable: its own agent is over while the other one waits on.
        outcome = ours(cluster((bmc,)), BMC)
        assert outcome.evidence is None
        assert "failed" in outcome.verdict or "unreachable" in outcome.verdict
        assert outcome.words[0].took_ms < 10_000, "killed at the limit"
        assert waiting.poll() is None
        os.killpg(waiting.pid, signal.SIGKILL)


# -- 9 ---------------------------------------------------------------------------------------------


def test_9_a_killed_agent_leaves_a_tool_that_switches_off_the_recovered_host(bench: Bench) -> None:
    gate = bench.gate(bench.ipmi("n1").port)
    gate.sessions = 1
    keys = {**bmc_of(gate.port, power_timeout=20).parameters, **LOGIN, "action": "off"}
    with subprocess.Popen(
        ["fence_ipmilan"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"PATH": AGENT_PATH}
    ) as agent:
        assert agent.stdin is not None
        agent.stdin.write(lines_of(keys))
        agent.stdin.close()
        assert gate.held.wait(20)
        agent.kill()
    assert _tools(gate.port), "nothing was left behind"
    gate.sessions = 100
    eventually(lambda: not bench.runs("n1"), 20)
    assert bench.orders == [("n1", "off")]


def test_9_with_the_agent_goes_all_that_it_started(bench: Bench) -> None:
    gate = bench.gate(bench.ipmi("n1").port)
    gate.sessions = 1
    outcome = ours(cluster((bmc_of(gate.port, power_timeout=20),)), BMC, limit_ms=2500)
    assert outcome.evidence is None
    assert gate.held.is_set(), "its off never reached the door"
    assert "no answer within 2.5 s: killed" in outcome.verdict
    eventually(lambda: not _tools(gate.port))
    gate.sessions = 100
    assert say("fence_ipmilan", {**bmc_of(gate.port).parameters, **LOGIN, "action": "status"}).code == 0
    assert bench.orders == []
    assert bench.runs("n1")


def _tools(port: int) -> list[int]:
    """Processes of ipmitool that speak to this port."""
    words = f"ipmitool -I lanplus -H 127.0.0.1 -p {port} "
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and words in trees.command(int(name)):
            one = process(int(name))
            if one is not None and one.state not in "ZX":
                found.append(one.pid)
    return found
