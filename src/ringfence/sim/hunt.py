"""`make mutants`: look for a seed that notices each mutant, and say how soon it was found.

Each is looked for first where it was found last (`mutants/found.txt`), then seed by seed: in its own story,
or in every kind of plan.  Only checkers count: an assertion of the engine that stumbles over a planted bug
says nothing of what its users would have seen.  And only what the engine itself stands, with the rule in its
place: a story that it fails proves nothing of the rule, and is a defect of its own, which the hunt tells.

With --record the file is written anew, with --markdown the table that `docs/mutants.md` keeps.  With --keep
each mutant that was found is shrunk and written down, for the tests to replay: the same story under the
mutant, and on the whole engine."""

import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from ringfence.sim import telling
from ringfence.sim.campaign import processes_here
from ringfence.sim.mutants import MUTANTS, planted
from ringfence.sim.plans import Faults
from ringfence.sim.scenario import Recipe, Scenario
from ringfence.sim.shrink import Shrinker
from ringfence.sim.stories import STORIES
from ringfence.sim.world import Outcome, Report, play

SHRINK_S = 30
RECORD = files("ringfence.sim.mutants") / "found.txt"
MARKDOWN_HEAD = """\
# Planted bugs, and who finds them

Each mutant is the engine with one load-bearing rule taken out. `make mutants` looks for a seed of the
simulator that notices it; a mutant that survives is a defect of the simulator. The number is that of the
invariant that a checker found broken (`sim/checkers.py`; a word: a checker without a number there). *Seed*
and *plan* replay it: `ringfence sim SEED --mutant NAME --faults PLAN`, or `--story PLAN` where the plan is a
directed story. It is looked for first where it was found last (`sim/mutants/found.txt`); *runs* says how many
it took.

Made by `python -m ringfence.sim.hunt --markdown docs/mutants.md`: do not edit.

"""


class Found(NamedTuple):
    name: str
    recipe: Recipe | None
    """None: it survived; or, with a failure, it does not fit the engine any more."""
    failure: str
    runs: int
    seconds: float
    broken: tuple[Recipe, ...] = ()
    """What the engine itself has not stood on the way."""

    @property
    def plan(self) -> str:
        recipe = self.recipe
        return "" if recipe is None else recipe.story or (recipe.faults or Faults.SWARM).value

    @property
    def noticed(self) -> str:
        """The invariant's number; what does not end is a breach of 11."""
        outcome, _, number = self.failure.partition(" ")
        return "11" if outcome == Outcome.LIVENESS.value else number


def known(name: str) -> Recipe | None:
    """Where a mutant was found last."""
    for line in RECORD.read_text().splitlines():
        words = line.split()
        if words and words[0] == name:
            return _recipe(name, int(words[1]), words[2])
    return None


def recipes(name: str, seeds: range) -> Iterator[Recipe]:
    """Where a mutant is looked for, in turn."""
    first = known(name)
    if first is not None:
        yield first
    story = MUTANTS[name].story
    plans = [story] if story else [faults.value for faults in Faults]
    for seed in seeds:
        yield from (_recipe(name, seed, plan) for plan in plans)


def _recipe(name: str, seed: int, plan: str) -> Recipe:
    if plan in STORIES:
        return Recipe(seed=seed, story=plan, mutant=name)
    return Recipe(seed=seed, faults=Faults(plan), mutant=name)


def fits(report: Report) -> bool:
    """Whether a mutant ran at all: an assertion of the engine's may end it, any other error is its own."""
    return report.outcome is not Outcome.CRASH or report.failure.endswith(AssertionError.__name__)


def hunt(name: str, seeds: range, keep: Path | None) -> Found:
    """The first run of these seeds that notices the mutant, or shows that it does not fit the engine."""
    began = time.monotonic()
    runs, broken = 0, []
    for recipe in recipes(name, seeds):
        report = proof(name, recipe.scenario())
        runs += 1
        if report is None:
            broken.append(msgspec.structs.replace(recipe, mutant=""))
        elif _noticed(report):
            took_s = time.monotonic() - began
            if keep is not None:
                (keep / f"{name}.txt").write_text(_shrunk(report, recipe))
            return Found(name, recipe, report.failure, runs, took_s, tuple(broken))
        elif not fits(report):
            return Found(name, None, report.failure, runs, time.monotonic() - began, tuple(broken))
    return Found(name, None, "", runs, time.monotonic() - began, tuple(broken))


def proof(name: str, scenario: Scenario) -> Report | None:
    """How a mutant's run of a story went; None: it failed, but so does the engine itself."""
    with planted(name):
        report = play(scenario)
    return None if _noticed(report) and play(scenario).failure else report


def _noticed(report: Report) -> bool:
    return report.outcome in (Outcome.SAFETY, Outcome.LIVENESS)


def _shrunk(report: Report, recipe: Recipe) -> str:
    def play_it(scenario: Scenario) -> Report:
        return proof(recipe.mutant, scenario) or Report(scenario)

    return telling.kept(Shrinker(report, SHRINK_S, play_it).shrink(), recipe, recipe.mutant)


def record(found: Iterable[Found]) -> str:
    """The text of `found.txt`."""
    lines = [f"{one.name} {one.recipe.seed} {one.plan}" for one in found if one.recipe is not None]
    return "\n".join(sorted(lines)) + "\n"


def markdown(found: Iterable[Found], summary: str) -> str:
    """The text of `docs/mutants.md`."""
    lines = ["| mutant | what the engine does without the rule | plan | seed | runs | seconds | noticed by |"]
    lines.append("|---|---|---|---|---|---|---|")
    for one in found:
        what = MUTANTS[one.name].what
        seed = "-" if one.recipe is None else str(one.recipe.seed)
        noticed = f"invariant {one.noticed}" if one.noticed.isdecimal() else one.noticed
        if one.recipe is None:
            noticed = f"**{_unfound(one)}**"
        lines.append(
            f"| {one.name} | {what} | {one.plan or '-'} | {seed} | {one.runs} | {one.seconds:.1f} | "
            f"{noticed} |"
        )
    return MARKDOWN_HEAD + "\n".join(lines) + f"\n\n{summary}\n"


@click.command()
@click.argument("names", nargs=-1)
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True, help="Of each plan.")
@click.option("--jobs", type=click.IntRange(1), default=processes_here, help="At a time.")
@click.option(
    "--keep", type=click.Path(file_okay=False, exists=True, path_type=Path), metavar="DIRECTORY",
    help="Shrink what was found, and write it here.",
)  # fmt: skip
@click.option("--record", "records", is_flag=True, help="Remember where they were found (of all mutants).")
@click.option(
    "--markdown", "table", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write the table here.",
)  # fmt: skip
def main(
    names: tuple[str, ...], seeds: int, jobs: int, keep: Path | None, records: bool, table: Path | None
) -> None:
    """Look for each mutant (default: all); exit 1 if one survives, or the engine itself fails on the way."""
    unknown = [name for name in names if name not in MUTANTS]
    if unknown:
        raise click.UsageError(f"no mutant is called {unknown[0]}; there are: {', '.join(MUTANTS)}")
    began = time.monotonic()
    all_found = []
    click.echo(f"{'mutant':24} {'seed':>5} {'runs':>4} {'seconds':>8}  {'how':18} replay")
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(partial(hunt, seeds=range(1, seeds + 1), keep=keep), names or tuple(MUTANTS)):
            all_found.append(found)
            sys.stdout.write(_line(found))
            sys.stdout.flush()
    unfound = [found for found in all_found if found.recipe is None]
    took_s = time.monotonic() - began
    summary = (
        f"{len(all_found) - len(unfound)} of {len(all_found)} mutants found, "
        f"in {took_s / 60:.1f} minutes with {jobs} at a time"
    )
    click.echo(summary)
    if records:
        Path(str(RECORD)).write_text(record(all_found))
    if table is not None:
        table.write_text(markdown(all_found, summary + "."))
    for one in unfound:
        click.echo(f"{one.name} {_unfound(one)}", err=True)
    broken = dict.fromkeys(recipe.command() for one in all_found for recipe in one.broken)
    for command in broken:
        click.echo(f"the engine itself fails: {command}", err=True)
    if unfound or broken:
        sys.exit(1)


def _unfound(found: Found) -> str:
    return f"does not fit the engine: {found.failure}" if found.failure else "survived"


def _line(found: Found) -> str:
    if found.recipe is None:
        return f"{found.name:24} {'-':>5} {found.runs:4} {found.seconds:8.1f}  {_unfound(found).upper()}\n"
    return (
        f"{found.name:24} {found.recipe.seed:5} {found.runs:4} {found.seconds:8.1f}  {found.failure:18} "
        f"{found.recipe.command()}\n"
    )


if __name__ == "__main__":
    main()
