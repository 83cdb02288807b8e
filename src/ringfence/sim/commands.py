"""`ringfence sim`: replay one seed, or look for a bad one."""

import sys
from contextlib import nullcontext

import click

from ringfence.sim.mutants import MUTANTS, planted
from ringfence.sim.plans import Faults
from ringfence.sim.scenario import STEPS
from ringfence.sim.world import Outcome, Report, run

EXITS = {Outcome.OK: 0, Outcome.SAFETY: 10, Outcome.LIVENESS: 11, Outcome.CRASH: 12}


@click.command()
@click.argument("seed", type=int)
@click.option(
    "--nodes", type=click.IntRange(0, 16), default=0, help="How many; 0: as the seed says (2 to 4)."
)
@click.option(
    "--steps", type=click.IntRange(1), default=STEPS, show_default=True, help="Engine steps with faults."
)
@click.option("--seeds", type=click.IntRange(1), default=1, help="Try this many seeds, from SEED on.")
@click.option(
    "--faults", type=click.Choice([one.value for one in Faults]), default="swarm", show_default=True,
    help="swarm: a handful of kinds by chance; liar: hosts given up on a lie come back.",
)  # fmt: skip
@click.option("--mutant", type=click.Choice(list(MUTANTS)), help="Take this rule out of the engine first.")
@click.option("--trace/--no-trace", default=False, help="Print the end of the story even if all is well.")
def sim(
    seed: int, nodes: int, steps: int, seeds: int, faults: str, mutant: str | None, trace: bool
) -> None:
    """Replay a whole cluster with its faults from one number.

    Exit 0: every invariant held and every request was answered.  10: safety, 11: liveness, 12: the
    engine crashed."""
    with planted(mutant) if mutant else nullcontext():
        _replay(range(seed, seed + seeds), nodes, steps, Faults(faults), trace)


def _replay(seeds: range, nodes: int, steps: int, faults: Faults, trace: bool) -> None:
    for number in seeds:
        click.echo(f"seed {number}")
        report = run(number, nodes, steps, faults=faults)
        if trace or report.outcome is not Outcome.OK:
            for line in report.trace:
                click.echo(line)
        click.echo(_summary(report))
        click.echo(f"seed {number}")
        if report.outcome is not Outcome.OK:
            sys.exit(EXITS[report.outcome])


def _summary(report: Report) -> str:
    counts = ", ".join(f"{value} {name}" for name, value in report.counts.items())
    faults = ", ".join(f"{value} {name}" for name, value in report.faults.items())
    lines = [
        f"{report.scenario.nodes} nodes, {report.steps} steps, {report.simulated_s:.0f} s simulated",
        counts,
        f"faults: {faults or 'none'}; well again after {report.settled_ms / 1000:.1f} s",
        f"trace {report.digest}",
        report.outcome.value.upper() + (f": {report.what}" if report.what else ""),
    ]
    return "\n".join(lines)
