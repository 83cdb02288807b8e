"""What fails is shrunk to what it takes, and kept as a file that fails in the same way."""

import pytest

from ringfence.sim import telling
from ringfence.sim.faults import Fault, FreezeHost, KillDaemon
from ringfence.sim.mutants import planted
from ringfence.sim.plans import Faults
from ringfence.sim.scenario import Recipe, Scenario, read
from ringfence.sim.shrink import Shrinker
from ringfence.sim.world import Outcome, Report, play


def failed(scenario: Scenario, what: str = "1: two writers") -> Report:
    return Report(scenario, Outcome.SAFETY, what, suffered_ms=scenario.lasts_ms)


NOISE = tuple(KillDaemon(at_ms=at_ms, node=4) for at_ms in range(0, 9000, 300))
CAUSES = (FreezeHost(at_ms=1000, node=2, for_ms=70), FreezeHost(at_ms=7000, node=3, for_ms=90))
PLAN = tuple(sorted([*NOISE, *CAUSES], key=lambda fault: fault.at_ms))
WHOLE = Scenario(seed=1, nodes=4, ring="hub", lasts_ms=9000, plan=PLAN)


def freezes(plan: tuple[Fault, ...] | None) -> list[int]:
    return sorted(fault.for_ms for fault in plan or () if isinstance(fault, FreezeHost))


def test_what_it_takes_is_left() -> None:
    def fails_with_both(scenario: Scenario) -> Report:
        both = freezes(scenario.plan) == [70, 90]
        return failed(scenario) if both else Report(scenario)

    scenario = Shrinker(failed(WHOLE), 60, fails_with_both).shrink().scenario
    assert freezes(scenario.plan) == [70, 90]
    assert len(scenario.plan or ()) == 2
    assert scenario.nodes == 2
    assert scenario.clients == 1
    assert [one.node for one in scenario.plan or () if isinstance(one, FreezeHost)] == [1, 2]


def test_another_failure_is_not_this_one() -> None:
    def fails_otherwise(scenario: Scenario) -> Report:
        same = scenario.plan == PLAN
        return failed(scenario, "1: two writers" if same else "7: a token goes back")

    scenario = Shrinker(failed(WHOLE), 60, fails_otherwise).shrink().scenario
    assert scenario.plan == PLAN


def test_a_smaller_plan_is_tried_with_other_seeds() -> None:
    def fails_with_odd_seeds(scenario: Scenario) -> Report:
        return failed(scenario) if scenario.seed % 4 == 3 else Report(scenario)

    assert Shrinker(failed(WHOLE), 60, fails_with_odd_seeds).shrink().scenario.plan == ()


def test_time_is_limited() -> None:
    report = failed(WHOLE)
    assert Shrinker(report, 0, failed).shrink().scenario.plan == PLAN


def test_what_does_not_fail_is_not_shrunk() -> None:
    with pytest.raises(AssertionError):
        Shrinker(Report(WHOLE), 1)


def test_a_mutants_failure_is_shrunk_and_kept() -> None:
    recipes = (Recipe(seed=seed, faults=Faults.LIAR, mutant="authority-for-ever") for seed in range(1, 20))
    with planted("authority-for-ever"):
        told = ((recipe, play(recipe.scenario())) for recipe in recipes)
        recipe, whole = next((recipe, report) for recipe, report in told if report.failure)
        shrunk = Shrinker(whole, 30).shrink()
        text = telling.kept(shrunk, recipe, recipe.mutant)
        again = play(read(text).scenario)
    assert len(shrunk.scenario.plan or ()) <= 3, text
    assert again.failure == whole.failure == read(text).fails
    assert play(read(text).scenario).outcome is Outcome.OK
