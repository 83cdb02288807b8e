"""`make mutants`: look for a seed that notices each mutant, and say how soon it was found.

With --keep each is shrunk and written down, for the tests to replay: the same story under the mutant,
and on the whole engine."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from ringfence.sim import telling
from ringfence.sim.campaign import processes_here
from ringfence.sim.mutants import MUTANTS, planted
from ringfence.sim.plans import Faults
from ringfence.sim.scenario import Recipe
from ringfence.sim.shrink import Shrinker
from ringfence.sim.world import Report, play

SHRINK_S = 30


class Found(NamedTuple):
    name: str
    recipe: Recipe | None
    """None: it survived."""
    failure: str
    what: str
    seconds: float


def recipes(name: str, seeds: range) -> Iterator[Recipe]:
    """Where a mutant is looked for, in turn."""
    story = MUTANTS[name].story
    for seed in seeds:
        if story:
            yield Recipe(seed=seed, story=story, mutant=name)
        else:
            yield from (Recipe(seed=seed, faults=faults, mutant=name) for faults in Faults)


def hunt(name: str, seeds: range, keep: Path | None) -> Found:
    """The first run of these seeds that notices the mutant."""
    began = time.monotonic()
    with planted(name):
        for recipe in recipes(name, seeds):
            report = play(recipe.scenario())
            if report.failure:
                took_s = time.monotonic() - began
                if keep is not None:
                    (keep / f"{name}.txt").write_text(_shrunk(report, recipe))
                return Found(name, recipe, report.failure, report.what, took_s)
    return Found(name, None, "", "", time.monotonic() - began)


def _shrunk(report: Report, recipe: Recipe) -> str:
    return telling.kept(Shrinker(report, SHRINK_S).shrink(), recipe, recipe.mutant)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True, help="Of each plan.")
@click.option("--processes", type=click.IntRange(1), default=processes_here, help="At a time.")
@click.option(
    "--keep", type=click.Path(file_okay=False, exists=True, path_type=Path), metavar="DIRECTORY",
    help="Shrink what was found, and write it here.",
)  # fmt: skip
def main(names: tuple[str, ...], seeds: int, processes: int, keep: Path | None) -> None:
    """Look for each mutant (default: all); exit 1 if one survives."""
    unknown = [name for name in names if name not in MUTANTS]
    if unknown:
        raise click.UsageError(f"no mutant is called {unknown[0]}; there are: {', '.join(MUTANTS)}")
    names = names or tuple(MUTANTS)
    survivors = []
    click.echo(f"{'mutant':24} {'seed':>5} {'seconds':>8}  {'how':12} replay")
    with ProcessPoolExecutor(processes) as pool:
        for found in pool.map(partial(hunt, seeds=range(1, seeds + 1), keep=keep), names):
            if found.recipe is None:
                survivors.append(found.name)
                click.echo(f"{found.name:24} {'-':>5} {found.seconds:8.1f}  SURVIVED")
                continue
            click.echo(
                f"{found.name:24} {found.recipe.seed:5} {found.seconds:8.1f}  {found.failure:12} "
                f"{found.recipe.command()}"
            )
    click.echo(f"{len(names) - len(survivors)} of {len(names)} mutants found")
    if survivors:
        click.echo(f"survivors: {', '.join(survivors)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
