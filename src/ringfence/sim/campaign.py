"""Many seeds, several at a time: what they added up to, and the first that failed."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice

import msgspec

from ringfence.host.parent import end_with
from ringfence.sim.mutants import engine
from ringfence.sim.scenario import Recipe
from ringfence.sim.world import Report, play

AHEAD = 8
"""Runs that wait for each process."""
GENTLE = 10
"""nice(2): whatever else this host does minds the time more."""


class Totals(msgspec.Struct):
    seeds: int = 0
    faults: int = 0
    fewest_faults: int = 0
    """In any one run."""
    fenced_seeds: int = 0
    """Runs in which at least one life was given up for fenced."""
    fences: int = 0
    lies_believed: int = 0
    grants: int = 0
    simulated_h: float = 0.0
    seconds: float = 0.0

    def add(self, report: Report) -> None:
        faults = sum(report.faults.values())
        self.fewest_faults = min(faults, self.fewest_faults) if self.seeds else faults
        self.seeds += 1
        self.faults += faults
        self.fenced_seeds += report.counts["fenced"] > 0
        self.fences += report.counts["fenced"]
        self.lies_believed += report.counts["lies believed"]
        self.grants += report.counts["grants"]
        self.simulated_h += report.simulated_s / 3600

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.faults} faults (at least {self.fewest_faults} each), "
            f"{self.fences} fences in {self.fenced_seeds} seeds, {self.lies_believed} lies believed, "
            f"{self.grants} grants, {self.simulated_h:.1f} h simulated in {self.seconds:.0f} s"
        )


def run_all(
    recipes: Iterable[Recipe],
    processes: int,
    minutes: float = 0,
    progress: Callable[[Totals], None] = lambda totals: None,
) -> tuple[Totals, Recipe | None]:
    """Run recipes until one fails, the time is over, or there are none left.

    Args:
        recipes: may have no end, if `minutes` has.
        minutes: begin no run after so long; 0 = no limit.

    Returns what was done, and the recipe that failed, if any: of several the first."""
    began = time.monotonic()
    totals = Totals()
    failed: list[Recipe] = []
    left = _until(iter(recipes), began + minutes * 60 if minutes else None)
    with workers(processes, GENTLE) as pool:
        running: dict[Future[Report], Recipe] = {}
        while not failed:
            for recipe in islice(left, processes * AHEAD - len(running)):
                running[pool.submit(run_one, recipe)] = recipe
            if not running:
                break
            for one in wait(running, return_when=FIRST_COMPLETED).done:
                report, recipe = one.result(), running.pop(one)
                totals.add(report)
                if report.failure:
                    failed.append(recipe)
            totals.seconds = time.monotonic() - began
            progress(totals)
        for one in running:
            one.cancel()
    return totals, min(failed, key=lambda recipe: recipe.seed, default=None)


def workers(processes: int, niceness: int = 0) -> ProcessPoolExecutor:
    """Processes for runs.  They end with this one: if it is killed, nobody tells them that no more come."""
    # Forked, so that they are this process's own children: a fork server would be their parent otherwise.
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(os.getpid(), niceness))


def _begin(parent: int, niceness: int) -> None:
    if not end_with(parent):
        os._exit(1)
    os.nice(niceness)


def run_one(recipe: Recipe) -> Report:
    """Also in a process of its own: with the mutant that the recipe names."""
    with engine(recipe.mutant):
        return play(recipe.scenario())


def processes_here() -> int:
    return len(os.sched_getaffinity(0))


def _until(recipes: Iterator[Recipe], end_s: float | None) -> Iterator[Recipe]:
    for recipe in recipes:
        if end_s is not None and time.monotonic() > end_s:
            return
        yield recipe
