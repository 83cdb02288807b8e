"""What a run, or many, had to tell: lines for people, values for programs."""

from typing import Any

import msgspec

from ringfence.sim.scenario import Kept, Recipe, Scenario, write
from ringfence.sim.world import Report


def parameters(scenario: Scenario, mutant: str) -> str:
    """One line, before anything has happened."""
    if scenario.lasts_ms:
        length = f"{scenario.lasts_ms / 1000:.1f} s of faults"
    else:
        length = f"{scenario.steps} steps with faults"
    faults = scenario.faults.value if scenario.plan is None else f"{len(scenario.plan)} planned"
    without = f", without a rule: {mutant}" if mutant else ""
    return (
        f"seed {scenario.seed}: {scenario.nodes} nodes, {scenario.clients} clients each, "
        f"ring {scenario.ring}, {length}, faults {faults}{without}"
    )


def summary(report: Report) -> str:
    counts = ", ".join(f"{value} {name}" for name, value in report.counts.items())
    faults = ", ".join(f"{value} {name}" for name, value in report.faults.items())
    lines = [
        f"{report.steps} steps, {report.simulated_s:.0f} s simulated; {counts}",
        f"faults: {faults or 'none'}; well again after {report.settled_ms / 1000:.1f} s",
        f"trace {report.digest}",
        report.outcome.value.upper() + (f": {report.what}" if report.what else ""),
    ]
    return "\n".join(lines)


def values(report: Report, replay: str, mutant: str) -> dict[str, Any]:
    """For --json.  plan: the faults that struck, as scenario files have them."""
    scenario = report.scenario
    return {
        "seed": scenario.seed,
        "nodes": scenario.nodes,
        "ring": scenario.ring,
        "clients": scenario.clients,
        "mutant": mutant,
        "outcome": report.outcome.value,
        "failure": report.failure,
        "what": report.what,
        "replay": replay,
        "steps": report.steps,
        "suffered_ms": report.suffered_ms,
        "simulated_s": round(report.simulated_s, 3),
        "settled_ms": round(report.settled_ms),
        "counts": report.counts,
        "faults": report.faults,
        "digest": report.digest,
        "plan": [str(fault) for fault in scenario.plan or ()],
    }


def kept(report: Report, recipe: Recipe | None, mutant: str) -> str:
    """A scenario file of a run that failed."""
    about = report.what if recipe is None else f"{report.what}\nShrunk from: {recipe.command()}"
    scenario = msgspec.structs.replace(report.scenario, lasts_ms=report.suffered_ms)
    return write(Kept(scenario=scenario, about=about, mutant=mutant, fails=report.failure))
