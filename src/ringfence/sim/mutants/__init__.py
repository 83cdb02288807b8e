"""Mutants: the engine with one load-bearing rule taken out, each to be found by the simulator.

A mutant that no seed finds is a defect of the simulator.  Most rules are those of the safety model,
which knows for each how few steps lead to two writers without it.  `ringfence sim SEED --mutant NAME`
replays one; `make mutants` (see `hunt`) looks for each and says which seed found it, and how soon.

Not here, because no story reaches them yet, or because they stand twice:

* An entry or a heartbeat of an earlier view is stopped by the epoch in its frame, and again by its number
  (an entry counts right after the one that it follows; an echo counts only if the heartbeat is remembered).
  Without either one the other holds; without both nothing was found in some dozens of runs.
* A grant that could not be told in its own view gets a token of the next one (`engine.grants`).  What the
  state has carried on is still granted, and whoever gets it later gets a later token; so the old token
  would do, unless members of one view had applied different entries in it."""

from ringfence.sim.mutants import authority, evidence, locks, restarts, views
from ringfence.sim.mutants.table import MUTANTS, engine, planted

__all__ = ["MUTANTS", "authority", "engine", "evidence", "locks", "planted", "restarts", "views"]
