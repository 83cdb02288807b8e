"""`ringfence sim`: replay one seed, or look for a bad one."""

import sys

import click

from ringfence.sim.world import STEPS, Outcome, Report, run

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
@click.option("--trace/--no-trace", default=False, help="Print the end of the story even if all is well.")
def sim(seed: int, nodes: int, steps: int, seeds: int, trace: bool) -> None:
    """Replay a whole cluster with its faults from one number.

    Exit 0: every invariant held and every request was answered.  10: safety, 11: liveness, 12: the
    engine crashed."""
    for number in range(seed, seed + seeds):
        click.echo(f"seed {number}")
        report = run(number, nodes, steps)
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
        f"{report.nodes} nodes, {report.steps} steps, {report.simulated_s:.0f} s simulated; {counts}",
        f"faults: {faults or 'none'}; well again after {report.settled_ms / 1000:.1f} s",
        f"trace {report.digest}",
        report.outcome.value.upper() + (f": {report.what}" if report.what else ""),
    ]
    return "\n".join(lines)
