"""The nine ways in which real agents lie: each is believed by whoever looks at exit codes, and caught here.

Real agents of Debian against simulated devices; what is true is known from the host itself, a process that runs
or does not.  In each test the first half shows that the lie is one.  The numbers are those of docs/fencing.md."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_stacks import bare, cluster, host_off, ours, outlet_off
from power_bench import PASSWORD, Bench, Device

from ringfence.core.cluster import DeviceConfig
from ringfence.core.evidence import EvidenceKind

LOGIN = {"password": PASSWORD}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """n1 lives from outlets 5 and 6, n2 from 7 and 8."""
    with Bench(tmp_path, {"n1": (5, 6), "n2": (7, 8)}) as made:
        yield made


def bmc_of(device: Device, **more: object) -> DeviceConfig:
    return host_off(
        "bmc-n1", "fence_ipmilan", ip="127.0.0.1", ipport=device.port, username="admin", lanplus=1, cipher=3,
        power_wait=0, power_timeout=2, **more,
    )  # fmt: skip


def pdu_of(device: Device, plug: str, version: str = "1", name: str = "pdu") -> DeviceConfig:
    return outlet_off(
        name, "fence_apc_snmp", ip="127.0.0.1", ipport=device.port, community="private",
        snmp_version=version, plug=plug, power_timeout=2,
    )  # fmt: skip


def test_1_of_a_list_of_plugs_only_the_first_is_switched(bench: Bench) -> None:
    pdu = pdu_of(bench.snmp(), "5,6")
    answer = bare(pdu, {}, "off")
    assert answer.believed
    assert "Success: Powered OFF" in answer.words
    assert bench.outlets[6]
    assert bench.runs("n1")
    bench.outlet(5, True)

    bmc = bmc_of(bench.ipmi("n1"))
    outcome = ours(cluster((bmc,), (pdu,)), {"bmc-n1": LOGIN}, level=2)
    assert outcome.evidence is None
    print(outcome)


def test_2_snmp_v2c_says_off_of_an_outlet_that_does_not_exist(bench: Bench) -> None:
    pdu = pdu_of(bench.snmp(), "42", version="2c")
    answer = bare(pdu, {}, "off")
    assert answer.believed
    assert "Already OFF" in answer.words
    assert bench.orders == []

    outcome = ours(cluster((pdu,)), {})
    print(outcome)
    assert outcome.evidence is None


def test_3_a_cycle_is_acknowledged_and_nothing_happens(bench: Bench) -> None:
    bench.deaf.add("n1")
    bmc = bmc_of(bench.ipmi("n1"), method="cycle")
    answer = bare(bmc, LOGIN, "reboot")
    assert answer.believed
    assert "Rebooted" in answer.words
    assert bench.hosts["n1"].boots == 1
    assert bench.runs("n1")

    outcome = ours(cluster((bmc,)), {"bmc-n1": LOGIN})
    print(outcome)
    assert outcome.evidence is None


def test_4_a_stale_controller_says_already_off(bench: Bench) -> None:
    bench.stale.add("n1")
    bmc = bmc_of(bench.ipmi("n1"))
    answer = bare(bmc, LOGIN, "off")
    assert answer.believed
    assert "Already OFF" in answer.words
    assert bench.orders == []
    assert bench.runs("n1")

    outcome = ours(cluster((bmc,)), {"bmc-n1": LOGIN})
    print(outcome)
    assert outcome.evidence is None
