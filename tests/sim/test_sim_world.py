"""Whole worlds: they hold, and they repeat."""

import os
import random
import subprocess
import sys

import pytest

from ringfence.engine.node import Node
from ringfence.sim.faults import AnotherMachine, Cut, Devices, Fault, FreezeHost, SwitchOff
from ringfence.sim.plans import Faults
from ringfence.sim.power import Manner
from ringfence.sim.safety import SafetyViolation
from ringfence.sim.scenario import Scenario
from ringfence.sim.world import Outcome, World, look, play, run


@pytest.mark.parametrize("faults", Faults)
@pytest.mark.parametrize("seed", range(1, 6))
def test_the_world_holds(seed: int, faults: Faults) -> None:
    report = run(seed, faults=faults)
    assert report.outcome is Outcome.OK, f"ringfence sim {seed} --faults {faults.value}: {report.what}"


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_work_is_done_and_faults_strike(nodes: int) -> None:
    report = run(1000 + nodes, nodes)
    assert report.outcome is Outcome.OK, report.what
    assert report.counts["grants"] > 20
    assert report.counts["writes"] > 20
    assert report.faults


@pytest.mark.parametrize("ring", ["hub", "totem"])
def test_in_peace_everything_works_and_nothing_is_lost(ring: str) -> None:
    """Nobody is fenced, nobody stale; value blocks stay valid once written; reports are looked at."""
    world = World(Scenario(seed=8, nodes=3, ring=ring, lasts_ms=60_000, plan=()), lambda number: Node())
    world.suffer()
    world.mend()
    counters, admins = world.workload.counters, world.admins
    assert counters.reads > 30
    assert counters.invalid < counters.reads / 4, "only what clients spoiled themselves is not valid"
    assert world.workload.converted > 50
    assert admins.done > 20
    assert world.metadata.commits > 3
    assert world.workload.unanswered() == []
    assert world.checkers.late_writes == 0


def test_what_clients_leave_behind_is_taken_over() -> None:
    assert sum(run(seed).counts["orphans adopted"] for seed in (1, 2, 3)) > 0


def test_reports_of_volumes_are_compared_with_the_disks() -> None:
    listed = 0
    for seed in range(4):
        scenario = Scenario(seed=seed, nodes=2, ring="hub", lasts_ms=30_000, plan=())
        world = World(scenario, lambda number: Node())
        world.suffer()
        listed += world.admins.listed
    assert listed > 5


@pytest.mark.parametrize(("seed", "nodes"), [(1, 3), (2, 4), (3, 4), (4, 5), (5, 6)])
def test_where_only_quorum_was_lost_nobody_goes_stale(seed: int, nodes: int) -> None:
    """Halves that part, and a switch that reboots.  (The checker asks no more than that.)"""
    rng = random.Random(seed)
    plan: list[Fault] = []
    for at_ms in range(3000, 30_000, 4000):
        for_ms = rng.randrange(50, rng.choice([1000, 3500]))
        half = tuple(sorted(rng.sample(range(1, nodes + 1), nodes // 2)))
        cut = Cut(at_ms=at_ms, nodes=half, for_ms=for_ms)
        plan.append(SwitchOff(at_ms=at_ms, for_ms=for_ms) if nodes % 2 or rng.random() < 0.5 else cut)
    ring = rng.choice(["hub", "totem"])
    report = play(Scenario(seed=seed, nodes=nodes, ring=ring, lasts_ms=34_000, plan=tuple(plan)))
    assert report.outcome is Outcome.OK, report.what
    assert len(report.scenario.plan or ()) == len(plan)
    assert report.counts["views"] > 2 * len(plan) - 3, "nothing was cut off"
    assert report.counts["lies believed"] == 0


def test_where_one_side_goes_on_the_other_is_lost() -> None:
    """Or the test above would prove nothing."""
    plan = (Cut(at_ms=3000, nodes=(1,), for_ms=1000),)
    world = World(Scenario(seed=1, nodes=3, ring="hub", lasts_ms=16_000, plan=plan), lambda number: Node())
    world.checkers._only_quorum = lambda: True
    with pytest.raises(SafetyViolation, match=r"quorum: .* is a victim"):
        world.suffer()


def test_sixteen_nodes_work_together() -> None:
    scenario = Scenario(seed=3, nodes=16, ring="totem", clients=1, lasts_ms=2500, plan=())
    report = play(scenario)
    assert report.outcome is Outcome.OK, report.what
    assert report.counts["grants"] > 10


def test_one_seed_is_one_story_whatever_the_hash_seed() -> None:
    code = "from ringfence.sim.world import run; print(run(12, steps=1500).digest)"
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=250,
        ).stdout
        for seed in ("0", "1")
    ]
    assert said[0] == said[1]
    assert said[0].strip() == run(12, steps=1500).digest


def test_another_machine_in_a_hosts_place_proves_nothing_about_it() -> None:
    away = Manner.UNREACHABLE
    plan = (
        Devices(at_ms=3900, node=2, bmc=away, a=away, b=away),
        FreezeHost(at_ms=4000, node=2, for_ms=9000),
        AnotherMachine(at_ms=6000, node=2, for_ms=5000),
    )
    scenario = Scenario(seed=3, nodes=3, ring="hub", lasts_ms=11_000, plan=plan)
    world = World(scenario, lambda number: Node())
    world.suffer()
    assert any("came from another machine" in line for line in world.scheduler.trace)
    glimpse = look(world.hosts[0])
    assert glimpse is not None
    state = glimpse.running
    assert state is not None
    assert [victim.life.boot for victim in state.domain.victims] == ["boot-2-1"]
    assert not any(state.domain.proven(victim) for victim in state.domain.victims)
    world.mend()
