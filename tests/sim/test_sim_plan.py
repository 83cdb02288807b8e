"""Plans of faults are data: drawn from the seed alone, written and read, played the same again."""

from itertools import islice

import msgspec
import pytest

from ringfence.sim.faults import Cut, Devices, Fault, FreezeHost, PowerOff, Sign, parse_fault
from ringfence.sim.plans import Faults, draw_plan
from ringfence.sim.power import Manner
from ringfence.sim.scenario import Kept, Recipe, read, write
from ringfence.sim.stories import STORIES
from ringfence.sim.world import play

ENDLESS = [one for one in Faults if one is not Faults.STORY]
PLANS = [(seed, nodes, faults) for seed in range(3) for nodes in (2, 3, 5) for faults in ENDLESS]


@pytest.mark.parametrize(("seed", "nodes", "faults"), PLANS)
def test_a_plan_comes_from_the_seed_alone_and_in_order(seed: int, nodes: int, faults: Faults) -> None:
    plan = list(islice(draw_plan(seed, nodes, faults), 200))
    assert plan == list(islice(draw_plan(seed, nodes, faults), 200))
    assert [one.at_ms for one in plan] == sorted(one.at_ms for one in plan)


@pytest.mark.parametrize(("seed", "nodes", "faults"), PLANS)
def test_what_is_written_is_read(seed: int, nodes: int, faults: Faults) -> None:
    for fault in islice(draw_plan(seed, nodes, faults), 200):
        assert parse_fault(str(fault)) == fault


@pytest.mark.parametrize("name", STORIES)
def test_a_story_comes_from_the_seed_alone_and_is_written_and_read(name: str) -> None:
    for seed in range(20):
        scenario = Recipe(seed=seed, story=name).scenario()
        assert scenario == Recipe(seed=seed, story=name).scenario()
        assert scenario.nodes in STORIES[name].nodes
        assert scenario.ring in STORIES[name].rings
        kept = read(write(Kept(scenario=scenario))).scenario
        assert kept.plan == scenario.plan == tuple(sorted(kept.plan or (), key=lambda one: one.at_ms))


def test_a_plan_that_was_played_replays_from_its_text() -> None:
    report = play(Recipe(seed=7, strikes=12).scenario())
    assert len(report.scenario.plan or ()) > 10
    kept = Kept(scenario=report.scenario, about="A story.\n\nIt ends well.")
    lasting = msgspec.structs.replace(kept.scenario, lasts_ms=report.suffered_ms)
    again = read(write(msgspec.structs.replace(kept, scenario=lasting)))
    assert again.about == kept.about
    assert again.scenario.plan == report.scenario.plan
    assert play(report.scenario).digest == report.digest
    assert play(again.scenario).scenario.plan == report.scenario.plan


def test_a_fault_less_leaves_the_others_as_they_are() -> None:
    plan = tuple(islice(draw_plan(3, 3, Faults.SWARM), 12))
    scenario = Recipe(seed=3, nodes=3).scenario()
    shorter = msgspec.structs.replace(scenario, plan=plan[1:], lasts_ms=plan[-1].at_ms + 1)
    assert play(shorter).scenario.plan == plan[1:]


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        (FreezeHost(node=2, for_ms=5), None),
        (FreezeHost(node=3, for_ms=5), FreezeHost(node=2, for_ms=5)),
        (Cut(nodes=(1, 2, 3), for_ms=5), Cut(nodes=(1, 2), for_ms=5)),
        (PowerOff(nodes=(2,)), None),
        (Sign(node=1, desk=2), None),
        (Devices(node=4, bmc=Manner.LIES), Devices(node=3, bmc=Manner.LIES)),
    ],
)
def test_a_host_less(fault: Fault, left: Fault | None) -> None:
    assert fault.without(2) == left


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("1.0 melt node=1", "no fault is called 'melt'"),
        ("1.0 freeze-host node=1", "for_ms"),
        ("1.0 freeze-host node=1 for_ms=x", "for_ms"),
        ("1.0 freeze-host node=1 for_ms=1 colour=red", "no parameter 'colour=red'"),
        ("soon freeze-host node=1 for_ms=1", "soon"),
    ],
)
def test_a_line_that_makes_no_sense_says_why(line: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_fault(line)


def test_a_file_that_makes_no_sense_says_why() -> None:
    with pytest.raises(ValueError, match="no line '----'"):
        read("seed 1\nnodes 3\nring hub\n")
    with pytest.raises(ValueError, match="no parameter is called 'color'"):
        read("seed 1\nnodes 3\nring hub\ncolor red\n----\n")
    with pytest.raises(ValueError, match="nodes"):
        read("seed 1\nring hub\n----\n")
    with pytest.raises(ValueError, match="ring is one of"):
        read("seed 1\nnodes 3\nring pigeon\n----\n")
