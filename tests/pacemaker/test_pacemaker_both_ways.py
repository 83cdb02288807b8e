"""A host that freezes, with ringfence and Pacemaker on both hosts: one asks the other, and nobody believes
what was not seen."""

import sys
import time
from collections.abc import Iterator

import pytest
from pacemaker_world import PacemakerWorld, eventually, level, primitive

from ringfence.config.pacemaker import with_pacemaker
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Use
from ringfence.wire import client as calls

pytestmark = pytest.mark.long


def hosts(*levels: Level) -> tuple[NodeConfig, ...]:
    return tuple(NodeConfig(one, f"n{one}", levels=levels) for one in (1, 2))


@pytest.fixture
def asking() -> Iterator[PacemakerWorld]:
    """ringfence asks Pacemaker."""
    world = PacemakerWorld(primitive("bmc", "fence_ipmilan", pcmk_host_map="n1:bmc1;n2:bmc2"))
    try:
        world.join(with_pacemaker(ClusterConfig("lab", fencing="pacemaker", nodes=hosts())))
        world.settle()
        yield world
    finally:
        world.close()


@pytest.fixture
def asked() -> Iterator[PacemakerWorld]:
    """Pacemaker asks ringfence."""
    world = PacemakerWorld(primitive("rf", "fence_ringfence", timeout="4"), level("n2", 1, "rf"))
    nodes = tuple(
        NodeConfig(one, f"n{one}", levels=(Level((Use("bmc", {"plug": f"bmc{one}"}),)),)) for one in (1, 2)
    )
    try:
        world.join(
            ClusterConfig(
                "lab", nodes=nodes, devices=(DeviceConfig("bmc", "fence_ipmilan", Confirms.HOST_OFF),)
            )
        )
        yield world
    finally:
        world.close()


def fencing(world: PacemakerWorld) -> dict[str, list[dict[str, object]]]:
    with world.daemon(world.hosts[1]) as daemon:
        found: dict[str, list[dict[str, object]]] = daemon.call(calls.FenceStatus("n2"))
    return found


def test_both_notice_one_loss_and_the_agent_runs_once(asking: PacemakerWorld) -> None:
    asked_back = asking.hosts[1].run("fence_ringfence", "-o", "off", "-n", "n2")
    assert (asked_back.returncode, "Pacemaker would ask ringfence" in asked_back.stderr) == (1, True)
    asking.lie("bmc2", "slow")
    with asking.fed_by("bmc2", asking.hosts[2]):
        asking.hosts[2].freeze()
        eventually(lambda: fencing(asking)["fenced"], asking.hosts[1])
    (record,) = fencing(asking)["fenced"]
    (proof,) = record["evidence"]
    assert proof["kind"] == "host-off"
    assert proof["how"].startswith('pacemaker said "off", and a second look agrees')
    assert asking.switched() == ["fence_ipmilan off bmc2 n2"]
    history = asking.hosts[1].run("stonith_admin", "--history", "n2", "--verbose", "--output-as=xml").stdout
    assert 'client="stonith_admin.' in history, "ours"
    assert 'client="pacemaker-controld.' in history, "Pacemaker's own"


def test_pacemaker_is_told_done_only_when_there_is_proof(asked: PacemakerWorld) -> None:
    for action in ("off", "status"):
        words = [sys.executable, "-I", "-m", "ringfence.agents.pacemaker"]
        loop = asked.hosts[1].run(*words, stdin=f"nodename=n2\naction={action}\n")
        assert (loop.returncode, "asks ringfence: a loop" in loop.stderr) == (1, True)
    assert asked.hosts[1].run("stonith_admin", "--query", "rf").returncode == 0
    assert asked.hosts[1].run("fence_ringfence", "-o", "status", "-n", "n2").returncode == 0
    asked.lie("bmc2", "ignored")
    refused = asked.hosts[1].run("stonith_admin", "--fence", "n2", "--timeout", "5")
    assert refused.returncode != 0, "its agent said done, and the second look says on"
    assert asked.hosts[1].run("fence_ringfence", "-o", "status", "-n", "n2").returncode == 1
    with asked.fed_by("bmc2", asked.hosts[2]):
        asked.lie("bmc2", "")
        assert asked.hosts[1].run("stonith_admin", "--fence", "n2", "--timeout", "20").returncode == 0
    (record,) = fencing(asked)["fenced"] or [None]
    assert record is not None
    give_up = time.monotonic() + 60
    while (code := asked.hosts[1].run("fence_ringfence", "-o", "status", "-n", "n2").returncode) != 2:
        assert time.monotonic() < give_up, code
        time.sleep(0.2)
