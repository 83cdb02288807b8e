"""`ringfence sim`: replay one seed or a file, shrink what fails, or look for a seed that does."""

import itertools
import json
import sys
from pathlib import Path

import click
from msgspec.structs import asdict, replace

from ringfence.sim import telling
from ringfence.sim.campaign import processes_here, run_all, run_one
from ringfence.sim.mutants import MUTANTS, engine
from ringfence.sim.plans import Faults
from ringfence.sim.scenario import STEPS, Recipe, read
from ringfence.sim.shrink import Shrinker
from ringfence.sim.stories import STORIES
from ringfence.sim.twice import tell_twice
from ringfence.sim.world import Outcome, Report, play

EXITS = {Outcome.OK: 0, Outcome.SAFETY: 10, Outcome.LIVENESS: 11, Outcome.CRASH: 12}
EXIT_TWO_STORIES = 13
EXAMPLES = """\b
Examples:
  ringfence sim 7                         the story of one seed, and how it ended
  ringfence sim 7 --trace                 with the end of its trace
  ringfence sim 7 --twice                 told twice, and under other hash seeds
  ringfence sim 7 --mutant no-bound       what becomes of it without that rule
  ringfence sim 7 --mutant no-bound --shrink --out bound.txt
  ringfence sim --replay bound.txt        what a file keeps, on the whole engine
  ringfence sim 1 --seeds 500 --strikes 12
  ringfence sim 1000 --minutes 10         from seed 1000 on, for ten minutes"""


@click.command(epilog=EXAMPLES)
@click.argument("seed", type=int, required=False)
@click.option(
    "--replay", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Play this scenario file instead of a seed.",
)  # fmt: skip
@click.option(
    "--nodes", type=click.IntRange(2, 16), help="How many hosts.  [default: as the seed says, mostly 2 to 5]"
)
@click.option(
    "--steps", type=click.IntRange(1), default=STEPS, show_default=True, help="Engine steps with faults."
)
@click.option("--strikes", type=click.IntRange(1), help="End after so many faults, not after --steps.")
@click.option(
    "--faults", type=click.Choice([one.value for one in Faults]),
    help="swarm: a handful of kinds by chance; liar: hosts given up on a lie come back; restarts: daemons "
    "are killed and come back; story: one directed story.  [default: as the seed says]",
)  # fmt: skip
@click.option(
    "--story", type=click.Choice(sorted(STORIES)), metavar="NAME", help="This directed story, once."
)
@click.option(
    "--mutant", type=click.Choice(list(MUTANTS)), metavar="NAME",
    help="Take this rule out of the engine first (the names: make mutants).",
)  # fmt: skip
@click.option("--trace", is_flag=True, help="Print the end of the story even if all is well.")
@click.option("--twice", is_flag=True, help="Play it four times, under different hash seeds; compare.")
@click.option("--shrink", is_flag=True, help="If it fails: find the fewest faults and hosts that do.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write what was shrunk here.")
@click.option(
    "--limit", type=click.IntRange(1), default=60, show_default=True, metavar="SECONDS",
    help="Shrink no longer than this.",
)  # fmt: skip
@click.option("--seeds", type=click.IntRange(1), help="So many seeds, from SEED on; stop at one that fails.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Seeds from SEED on, for so long.")
@click.option("--processes", type=click.IntRange(1), help="At a time.  [default: one for each CPU]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def sim(
    seed: int | None,
    replay: Path | None,
    nodes: int | None,
    steps: int,
    strikes: int | None,
    faults: str | None,
    story: str | None,
    mutant: str | None,
    trace: bool,
    twice: bool,
    shrink: bool,
    out: Path | None,
    limit: int,
    seeds: int | None,
    minutes: float | None,
    processes: int | None,
    as_json: bool,
) -> int:
    """Replay a whole cluster with its faults from one number.

    \b
    Exit code:
       0  every invariant held and every request was answered
       3  bad command line
      10  safety: an invariant was broken
      11  liveness: a request was not answered in time
      12  the engine crashed
      13  --twice told two stories"""
    say = _Say(as_json, trace)
    shrinker = _Shrinking(limit, out) if shrink or seeds or minutes else None
    if replay is not None:
        if seed is not None or twice or seeds or minutes:
            raise click.UsageError("--replay FILE stands instead of SEED, and alone")
        return _replay(replay, mutant or "", say, shrinker)
    if seed is None:
        raise click.UsageError("give a SEED, or --replay FILE; see: ringfence sim --help")
    recipe = Recipe(
        seed=seed, nodes=nodes or 0, steps=steps, strikes=strikes or 0,
        faults=Faults(faults) if faults else None, story=story or "", mutant=mutant or "",
    )  # fmt: skip
    if twice:
        return _twice(recipe, say)
    if seeds or minutes:
        found = _many(recipe, seeds, minutes or 0, processes or processes_here(), say)
        if found is None:
            return 0
        recipe = found
    return _one(recipe, say, shrinker)


class _Say:
    def __init__(self, as_json: bool, trace: bool) -> None:
        self.as_json, self._trace = as_json, trace

    def line(self, line: str) -> None:
        if not self.as_json:
            click.echo(line)

    def report(self, report: Report, replay: str, mutant: str) -> None:
        if self.as_json:
            click.echo(json.dumps(telling.values(report, replay, mutant)))
            return
        if self._trace or report.failure:
            for line in report.trace:
                click.echo(line)
        click.echo(telling.summary(report))
        if report.failure:
            click.echo(f"replay: {replay}")


class _Shrinking:
    def __init__(self, limit_s: int, out: Path | None) -> None:
        self._limit_s, self._out = limit_s, out

    def shrink(self, report: Report, recipe: Recipe | None, mutant: str, say: _Say) -> None:
        with engine(mutant), _Progress() as progress:
            best = Shrinker(report, self._limit_s, progress=progress.line).shrink()
        text = telling.kept(best, recipe, mutant)
        if self._out is None:
            say.line(f"shrunk to {len(best.scenario.plan or ())} faults:\n\n{text}")
            return
        self._out.write_text(text)
        without = f" --mutant {mutant}" if mutant else ""
        say.line(f"shrunk: ringfence sim --replay {self._out}{without}")


class _Progress:
    """One line on a terminal, written over and over; nothing elsewhere."""

    def __enter__(self) -> "_Progress":
        return self

    def line(self, line: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{line}", err=True, nl=False)

    def __exit__(self, *error: object) -> None:
        self.line("")


def _one(recipe: Recipe, say: _Say, shrinking: _Shrinking | None) -> int:
    scenario = recipe.scenario()
    say.line(telling.parameters(scenario, recipe.mutant))
    return _told(run_one(recipe), recipe.command(), recipe, recipe.mutant, say, shrinking)


def _replay(file: Path, mutant: str, say: _Say, shrinking: _Shrinking | None) -> int:
    try:
        kept = read(file.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{file} is no scenario: {error}") from error
    say.line(telling.parameters(kept.scenario, mutant))
    if kept.mutant and not mutant:
        say.line(f"it failed ({kept.fails}) with --mutant {kept.mutant}; this is the whole engine")
    with engine(mutant):
        report = play(kept.scenario)
    without = f" --mutant {mutant}" if mutant else ""
    return _told(report, f"ringfence sim --replay {file}{without}", None, mutant, say, shrinking)


def _told(
    report: Report,
    replay: str,
    recipe: Recipe | None,
    mutant: str,
    say: _Say,
    shrinking: _Shrinking | None,
) -> int:
    say.report(report, replay, mutant)
    if report.failure and shrinking is not None:
        shrinking.shrink(report, recipe, mutant, say)
    return EXITS[report.outcome]


def _twice(recipe: Recipe, say: _Say) -> int:
    say.line(telling.parameters(recipe.scenario(), recipe.mutant))
    report, told = tell_twice(recipe)
    same = len(set(told.values())) == 1
    if say.as_json:
        values = telling.values(report, recipe.command(), recipe.mutant)
        click.echo(json.dumps({**values, "same": same, "digests": told}))
        return EXITS[report.outcome] if same else EXIT_TWO_STORIES
    for how, digest in told.items():
        say.line(f"{digest}  {how}")
    if not same:
        say.line(f"TWO STORIES; replay: {recipe.command()} --twice")
        return EXIT_TWO_STORIES
    say.line("one story, told four times")
    return _told(report, recipe.command(), recipe, recipe.mutant, say, None)


def _many(
    recipe: Recipe, seeds: int | None, minutes: float, processes: int, say: _Say
) -> Recipe | None:
    say.line(f"seeds from {recipe.seed} on, {processes} at a time")
    numbers = itertools.count(recipe.seed) if seeds is None else range(recipe.seed, recipe.seed + seeds)
    recipes = (replace(recipe, seed=number) for number in numbers)
    with _Progress() as progress:
        totals, failed = run_all(recipes, processes, minutes, lambda totals: progress.line(str(totals)))
    if say.as_json and failed is None:
        click.echo(json.dumps({"outcome": "ok", **asdict(totals)}))
    say.line(str(totals))
    return failed
