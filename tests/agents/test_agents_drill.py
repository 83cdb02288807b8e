"""The cabling drill with real fence_apc_snmp and real ipmitool, on simulated PDUs and controllers."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ringfence.agents.runner import AgentRunner
from ringfence.agents.supplies import SupplyReader
from ringfence.core.cluster import ClusterConfig, Level, NodeConfig, Use
from ringfence.core.evidence import Evidence
from ringfence.engine.commands import drills
from ringfence.engine.commands.drills import Verdict, cabling
from ringfence.engine.effects import RunAgent
from ringfence.engine.orders import CallAgent, Pause, ReadSupplies
from ringfence.fencing.drills import controllers
from ringfence.lab.devices.bench import Bench

HOSTS = ("n1", "n2")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("bench"), ["ipmi", "apc-snmp"], HOSTS) as bench:
        yield bench


@pytest.fixture(autouse=True)
def cables(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As configured, before and after.  These controllers look at their supplies ten times a second."""
    monkeypatch.setattr(drills, "SETTLE_MS", 1000)
    monkeypatch.setattr(drills, "LOOK_MS", 100)
    yield
    for host in HOSTS:
        bench.plug(host, "psu1", "pdu-a", host)
        bench.plug(host, "psu2", "pdu-b", host)
        bench.switch(host, "on")


def config(bench: Bench) -> ClusterConfig:
    nodes = tuple(
        NodeConfig(
            id, host,
            levels=(
                Level((f"bmc-{host}",)),
                Level(tuple(Use(pdu, {"plug": str(id)}) for pdu in ("pdu-a", "pdu-b"))),
            ),
        )
        for id, host in enumerate(HOSTS, 1)
    )  # fmt: skip
    devices = tuple(bench.config(name) for name in sorted(bench.devices))
    return ClusterConfig("c", nodes=nodes, devices=devices)


class Calm:
    """A cluster in which nothing else happens."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def tell(self, line: str) -> None:
        self.lines.append(line)

    def acts(self) -> bool:
        return True

    def lost(self) -> bool:
        return False

    def needed(self, device: str) -> str:
        return ""

    def stays_off(self) -> bool:
        return False

    def others_lost(self) -> list[str]:
        return []

    def attempted(self, evidence: Evidence | None) -> None:
        raise AssertionError("a cabling drill fences nobody")

    def returned(self) -> bool:
        return False

    def now_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


async def drilled(bench: Bench, node: int = 1) -> Verdict:
    """The drill of a node, with its orders carried out as a daemon does it."""
    cluster = config(bench)
    agents = AgentRunner(cluster.device, bench.secrets)
    reader = SupplyReader(cluster.device, bench.secrets)
    uses = cluster.levels_of(node)[1].uses
    steps = cabling(cluster, node, uses, controllers(cluster), Calm())
    answer: Any = None
    while True:
        try:
            order = steps.send(answer)
        except StopIteration as end:
            verdict: Verdict = end.value
            return verdict
        answer = None
        match order:
            case CallAgent():
                device, parameters = order.use.device, order.use.parameters
                run = RunAgent(1, device, order.action, 30_000, cluster.name_of(node), parameters)
                answer = await agents.run(run)
            case ReadSupplies():
                answer = await reader.read(order.controllers)
            case Pause():
                await asyncio.sleep(order.time_ms / 1000)


def outlets(bench: Bench) -> list[object]:
    return [bench.host(host)["outlets"] for host in HOSTS]


ON = {"pdu-a": "on", "pdu-b": "on"}


def test_cables_as_configured_pass_and_nothing_goes_down(bench: Bench) -> None:
    before = [bench.process(host) for host in HOSTS]
    found = asyncio.run(drilled(bench))
    assert found.passed, found
    assert found.lines == (
        "pdu-a[1] feeds PSU1 of n1, and nothing else", "pdu-b[1] feeds PSU2 of n1, and nothing else",
    )  # fmt: skip
    assert [bench.process(host) for host in HOSTS] == before
    assert outlets(bench) == [ON, ON]


def test_cables_that_were_swapped_are_found(bench: Bench) -> None:
    bench.plug("n1", "psu1", "pdu-b", "n1")
    bench.plug("n1", "psu2", "pdu-a", "n1")
    found = asyncio.run(drilled(bench))
    assert not found.passed
    assert found.verdict.startswith("pdu-a[1] swapped, pdu-b[1] swapped: ")
    assert outlets(bench) == [ON, ON]


def test_a_cable_that_was_moved_to_another_hosts_outlet_is_found(bench: Bench) -> None:
    """Somebody has exchanged two cables of one PDU: fencing n1 by it would have cut a supply of n2."""
    bench.plug("n1", "psu1", "pdu-a", "n2")
    bench.plug("n2", "psu1", "pdu-a", "n1")
    found = asyncio.run(drilled(bench))
    assert not found.passed
    assert found.lines[0] == "pdu-a[1] feeds PSU1 of n2, and nothing of n1"
    assert outlets(bench) == [ON, ON]
    assert all(bench.runs(host) for host in HOSTS)


def test_nothing_is_switched_while_a_supply_is_bad_already(bench: Bench) -> None:
    bench.power.asked({"order": "device", "device": "pdu-b", "node": "n1", "action": "off"})
    time.sleep(1)  # the controller polls its supplies, ten times a second if nothing keeps it from that
    orders = len(bench.orders)
    found = asyncio.run(drilled(bench))
    assert found.verdict.startswith("not begun: n1 runs on what is left already: PSU2")
    assert {action for _, _, action in bench.orders[orders:]} <= {"status"}
