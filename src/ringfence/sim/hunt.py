"""`make mutants`: look for a seed that notices each mutant, and say how soon it was found.

Each is looked for first where it was found last (`mutants/found.txt`), then seed by seed: in its own story,
or in every kind of plan.  Only checkers count: an assertion of the engine that stumbles over a planted bug
says nothing of what its users would have seen.  And only what the engine itself stands, with the rule in its
place: a story that it fails proves nothing of the rule, and is a defect of its own, which the hunt tells.

With --record the file is written anew, with --markdown the table that `docs/mutants.md` keeps.  With --keep
each mutant that was found is shrunk and written down, for the tests to replay: the same story under the
mutant, and on the whole engine.

A run of all takes long; with --resume it may be made in pieces: what was found by this very source, and how
long that took, is kept in a file, and not looked for again."""

import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from ringfence.sim import telling
from ringfence.sim.campaign import processes_here, workers
from ringfence.sim.mutants import MUTANTS, planted
from ringfence.sim.plans import Faults
from ringfence.sim.scenario import Recipe, Scenario
from ringfence.sim.shrink import Shrinker
from ringfence.sim.stories import STORIES
from ringfence.sim.world import Outcome, Report, play

SHRINK_S = 30
UNFINISHED = 3
"""Exit code: some are still to be looked for."""
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
    """Whether a mutant ran at all: an assertion of the engine's may end it, any other error is its own, and
    so is one of its own assertions."""
    if report.outcome is not Outcome.CRASH:
        return True
    own = Path(report.crashed_in).is_relative_to(Path(str(RECORD)).parent)
    return report.failure.endswith(AssertionError.__name__) and not own


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


class Piece(msgspec.Struct, frozen=True):
    """What one piece of a run has come to, about one mutant."""

    source: str
    """`source_digest`: of another engine, or another hunt, it says nothing."""
    seeds: int
    found: Found


def source_digest() -> str:
    """Of all code of this ringfence, but for what is only found again (`found.txt` is no code)."""
    digest = hashlib.blake2b(digest_size=12)
    root = Path(str(files("ringfence")))
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def done_by_now(file: Path, source: str, seeds: int) -> dict[str, Found]:
    """Of earlier pieces of the same run, by name."""
    if not file.exists():
        return {}
    pieces = [msgspec.json.decode(line, type=Piece) for line in file.read_bytes().splitlines()]
    return {one.found.name: one.found for one in pieces if (one.source, one.seeds) == (source, seeds)}


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
@click.option(
    "--resume", "pieces", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Keep here what was found; what this file has of the same source is not looked for again.",
)  # fmt: skip
@click.option(
    "--within", "within_s", type=click.IntRange(1), metavar="SECONDS",
    help="With --resume: begin with no mutant after so long; if there is one left, write nothing, and exit "
    f"{UNFINISHED}.",
)  # fmt: skip
def main(
    names: tuple[str, ...],
    seeds: int,
    jobs: int,
    keep: Path | None,
    records: bool,
    table: Path | None,
    pieces: Path | None,
    within_s: int | None,
) -> None:
    """Look for each mutant (default: all); exit 1 if one survives, or the engine itself fails on the way."""
    unknown = [name for name in names if name not in MUTANTS]
    if unknown:
        raise click.UsageError(f"no mutant is called {unknown[0]}; there are: {', '.join(MUTANTS)}")
    if within_s is not None and pieces is None:
        raise click.UsageError("--within is for a run that can be gone on with: give --resume, too")
    wanted = names or tuple(MUTANTS)
    source = source_digest()
    done = done_by_now(pieces, source, seeds) if pieces is not None else {}
    left = [name for name in wanted if name not in done]
    until_s = time.monotonic() + within_s if within_s is not None else None
    click.echo(f"{'mutant':24} {'seed':>5} {'runs':>4} {'seconds':>8}  {'how':18} replay")
    for found in _hunted(left, partial(hunt, seeds=range(1, seeds + 1), keep=keep), jobs, until_s):
        done[found.name] = found
        if pieces is not None:
            with pieces.open("ab") as file:
                file.write(msgspec.json.encode(Piece(source, seeds, found)) + b"\n")
        sys.stdout.write(_line(found))
        sys.stdout.flush()
    left = [name for name in left if name not in done]
    if left:
        click.echo(f"{len(left)} are still to be looked for: the same command goes on with them", err=True)
        sys.exit(UNFINISHED)
    _conclude([done[name] for name in wanted], jobs, records, table)


def _hunted(
    names: list[str], hunts: Callable[[str], Found], jobs: int, until_s: float | None
) -> Iterator[Found]:
    """So many at a time, each as it ends; none is begun after that moment."""
    with workers(jobs) as pool:
        running: list[Future[Found]] = []
        waiting = deque(names)
        while running or waiting:
            while waiting and len(running) < jobs and (until_s is None or time.monotonic() < until_s):
                running.append(pool.submit(hunts, waiting.popleft()))
            if not running:
                return
            wait(running, return_when=FIRST_COMPLETED)
            ended = [one for one in running if one.done()]
            running = [one for one in running if one not in ended]
            yield from (one.result() for one in ended)


def _conclude(all_found: list[Found], jobs: int, records: bool, table: Path | None) -> None:
    unfound = [found for found in all_found if found.recipe is None]
    took_s = sum(found.seconds for found in all_found)
    summary = (
        f"{len(all_found) - len(unfound)} of {len(all_found)} mutants found, "
        f"after {took_s / 60:.1f} minutes, {jobs} at a time, added up"
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
