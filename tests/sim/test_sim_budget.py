"""The budget of every `make test`: many seeds, each with many faults, and with many fences among them.

The same as `make sim`; what fails prints the line that replays it."""

import pytest

from ringfence.sim.campaign import processes_here, run_all
from ringfence.sim.scenario import Recipe

SEEDS = 500
STRIKES = 10


@pytest.mark.timeout(3600)  # beside all the other jobs, and after them
def test_many_seeds_hold(capsys: pytest.CaptureFixture[str]) -> None:
    recipes = (Recipe(seed=seed, strikes=STRIKES) for seed in range(1, SEEDS + 1))
    totals, failed = run_all(recipes, processes_here())
    with capsys.disabled():
        print(f"\n{totals}")
    assert failed is None, f"look: {failed.command()} --shrink"
    assert totals.seeds == SEEDS
    assert totals.fewest_faults >= STRIKES
    assert totals.fenced_seeds >= 100
