"""Whether one seed is one story: played twice here, and in processes with other hash seeds.

Whatever walks over a set, asks a real clock or draws from a stream that others share will give another
trace in one of them sooner or later."""

import json
import os
import shlex
import subprocess
import sys

from ringfence.sim.campaign import run_one
from ringfence.sim.scenario import Recipe
from ringfence.sim.world import Report

HASH_SEEDS = ("0", "1")


def tell_twice(recipe: Recipe) -> tuple[Report, dict[str, str]]:
    """The first telling, and the digest of the whole trace by how it was told."""
    first = run_one(recipe)
    told = {"first": first.digest, "again": run_one(recipe).digest}
    for seed in HASH_SEEDS:
        told[f"PYTHONHASHSEED={seed}"] = _elsewhere(recipe, seed)
    return first, told


def _elsewhere(recipe: Recipe, hash_seed: str) -> str:
    words = shlex.split(recipe.command())[1:]
    ran = subprocess.run(
        [sys.executable, "-m", "ringfence", *words, "--json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        text=True,
        check=False,  # what it found is another question
    )
    return str(json.loads(ran.stdout)["digest"])
