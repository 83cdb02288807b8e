"""Each planted bug is found by the simulator, and what was found once is kept as a scenario.

`scenarios/*.txt`: a shrunk story for each mutant (made by `python -m ringfence.sim.hunt --keep`), and
for bugs that the engine had.  The whole engine stands each of them; the mutant falls."""

import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import msgspec
import pytest
from msgspec.structs import replace

from ringfence.fencing.domain import Domain
from ringfence.sim.hunt import (
    RECORD,
    UNFINISHED,
    Found,
    done_by_now,
    fits,
    hunt,
    known,
    markdown,
    record,
    source_digest,
)  # fmt: skip
from ringfence.sim.mutants import MUTANTS, planted
from ringfence.sim.mutants.table import Mutant
from ringfence.sim.plans import Faults
from ringfence.sim.scenario import Kept, Recipe, Scenario, read
from ringfence.sim.world import Outcome, play, run

FOLDER = Path(__file__).parent / "scenarios"
SCENARIOS = {path.stem: read(path.read_text()) for path in FOLDER.glob("*.txt")}
OTHER_SEEDS = range(1, 101)
"""Any change of the engine or of the world moves small delays; the same faults are tried with these
before a mutant is called a survivor.  Of some only one in twenty notices it.  Who finds that many of them are
tried writes the seed that notices into the scenario: that saves the rest."""


def test_every_mutant_has_its_scenario() -> None:
    assert {kept.mutant for kept in SCENARIOS.values() if kept.mutant} == set(MUTANTS)
    assert len(MUTANTS) >= 20


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_the_engine_stands_what_was_found_once(name: str) -> None:
    report = play(SCENARIOS[name].scenario)
    assert report.outcome is Outcome.OK, f"ringfence sim --replay {FOLDER / name}.txt: {report.what}"


@pytest.mark.parametrize("name", sorted(name for name, kept in SCENARIOS.items() if kept.mutant))
def test_the_mutant_falls(name: str) -> None:
    kept = SCENARIOS[name]
    with planted(kept.mutant):
        reports = (play(one) for one in stories(kept))
        noticed = next((report for report in reports if report.failure), None)
        assert noticed is not None, (
            f"nobody noticed {kept.mutant}: {MUTANTS[kept.mutant].what}; look for another story: "
            f"python -m ringfence.sim.hunt --keep tests/sim/scenarios {kept.mutant}"
        )
        assert fits(noticed), f"{kept.mutant} does not fit the engine: {noticed.what}"


def test_a_mutant_that_does_not_fit_the_engine_is_told_from_a_survivor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rule has got another argument, and its mutant not: it is not taken out."""
    changes = [(Domain, "witness", lambda self, evidence: True)]
    monkeypatch.setitem(MUTANTS, "old", Mutant("a rule", "quick-lie", lambda: changes))
    found = hunt("old", range(1, 3), None)
    assert (found.recipe, found.failure, found.runs) == (None, "crash TypeError", 1)
    assert "**does not fit the engine: crash TypeError**" in markdown([found], "")


def test_an_assertion_of_a_mutants_own_is_no_survivor_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if what stands in `sim.mutants` had met something that it does not know."""

    def witness(*args: object, **how: object) -> bool:
        raise AssertionError

    own = witness.__code__.replace(co_filename=str(Path(str(RECORD)).with_name("evidence.py")))
    for code, failure in ((own, "crash AssertionError"), (witness.__code__, "")):
        raises = FunctionType(code, globals())
        monkeypatch.setitem(
            MUTANTS, "old", Mutant("a rule", "quick-lie", lambda raises=raises: [(Domain, "witness", raises)])
        )
        found = hunt("old", range(1, 2), None)
        assert (found.recipe, found.failure, found.runs) == (None, failure, 1)


def test_what_the_engine_itself_does_not_stand_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MUTANTS, "whole", Mutant("none at all", "liar", list))
    with planted("no-freeze"):
        found = hunt("whole", range(1, 2), None)
    assert (found.recipe, found.failure, found.runs) == (None, "", 1)
    assert found.broken == (Recipe(seed=1, faults=Faults.LIAR),)


def stories(kept: Kept) -> list[Scenario]:
    return [kept.scenario, *(replace(kept.scenario, seed=seed) for seed in OTHER_SEEDS)]


def test_the_engine_is_whole_again_afterwards() -> None:
    with planted("no-freeze"):
        assert run(1).outcome is not Outcome.OK
    assert run(1).outcome is Outcome.OK


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_the_engine_itself_stands_the_lie(seed: int) -> None:
    report = run(seed, faults=Faults.LIAR)
    assert report.outcome is Outcome.OK, f"ringfence sim {seed} --faults liar: {report.what}"
    assert report.counts["lies believed"] or report.counts["fenced"]


def test_a_mutant_is_looked_for_and_survivors_are_an_error() -> None:
    command = [sys.executable, "-m", "ringfence.sim.hunt", "--seeds", "3", "--jobs", "1"]
    ran = subprocess.run([*command, "no-freeze"], capture_output=True, text=True, timeout=250, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "1 of 1 mutants found" in ran.stdout
    assert re.search(r"ringfence sim \d+ --\w+ [\w-]+ --mutant no-freeze", ran.stdout), ran.stdout


@pytest.mark.timeout(600)
def test_a_run_in_pieces_goes_on_where_it_was_and_believes_no_other_source(tmp_path: Path) -> None:
    pieces, table = tmp_path / "pieces", tmp_path / "table.md"
    command = [sys.executable, "-m", "ringfence.sim.hunt", "--jobs", "1", "--resume", pieces]
    names = ["no-bound", "no-freeze"]

    def piece(*options: object) -> tuple[int, str]:
        whole = [*command, *options, *names]
        ran = subprocess.run(whole, capture_output=True, text=True, timeout=250, check=False)
        return ran.returncode, ran.stdout

    assert piece("--within", "1", "--markdown", table)[0] == UNFINISHED
    assert not table.exists()
    (first,) = pieces.read_bytes().splitlines()
    assert piece("--within", "200", "--markdown", table)[0] == 0
    assert [line.split()[1] for line in table.read_text().splitlines() if line.startswith("| no-")] == names
    assert len(pieces.read_bytes().splitlines()) == 2
    code, said = piece("--markdown", table)
    assert (code, "ringfence sim" in said) == (0, False)
    found = done_by_now(pieces, source_digest(), 200)
    assert list(found) == names
    assert done_by_now(pieces, "another", 200) == done_by_now(pieces, source_digest(), 3) == {}
    assert msgspec.json.decode(first)["found"][0] == "no-bound"


def test_where_each_was_found_is_remembered() -> None:
    """`make mutants` looks there first, and so takes minutes."""
    for name in MUTANTS:
        recipe = known(name)
        assert recipe is not None, f"look for {name} (ringfence.sim.hunt), and add it to {RECORD}"
        plan = Found(name, recipe, "", 0, 0).plan
        assert MUTANTS[name].story in ("", plan), f"{RECORD} knows {name} from another plan"


def test_what_was_found_is_written_as_a_table() -> None:
    found = [
        Found("no-bound", known("no-bound"), "safety 1", 1, 0.5),
        Found("no-freeze", None, "", 800, 100.0),
        Found("deaf-suspects", known("deaf-suspects"), "safety suspicion", 2, 1.0),
    ]
    text = markdown(found, "2 of 3 mutants found.")
    assert text.count("\n| ") == 4
    assert "| invariant 1 |" in text
    assert "| **survived** |" in text
    assert "| suspicion |" in text
    assert [line.split()[0] for line in record(found).splitlines()] == ["deaf-suspects", "no-bound"]
