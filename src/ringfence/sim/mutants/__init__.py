"""Mutants: the engine with one load-bearing rule taken out, each to be found by the simulator.

A mutant that no seed finds is a defect of the simulator.  Most rules are those of the safety model,
which knows for each how few steps lead to two writers without it.  `ringfence sim SEED --mutant NAME`
replays one; `make mutants` (see `hunt`) looks for each and says which seed found it, and how soon.

Where a rule stands twice, a mutant takes both out and says so.  Of those, one stands three times
(`old-frames-heard`): an entry of an earlier view is stopped by the epoch in its frame; by the barrier, before
which nothing but Ready counts, for each member's own frames of the earlier view come before its Ready; and by
its number, an entry counting right after the one that it follows.  So what a gap or a repetition alone would
do cannot be seen: no ring that keeps the order of a sender brings either.

Taken out without a proof that its rule is needless: "a grant is told in a later view with the token of its
own".  It fell while a thawed node took in at once what it alone was told; since that waits (`late-words`) no
seed shows it.

Under other names: "an actor's receipt alone
counts" is `bound-of-one`, "two nodes purge without evidence" is `no-evidence`, "a value block from the wrong
holder" is `values-of-readers`, "the empty joiner sends the state" is `empty-carries`, "a readiness check is
skipped" is `barrier-of-most`."""

from ringfence.sim.mutants import authority, evidence, handovers, locks, restarts, slots, views, volumes
from ringfence.sim.mutants.table import MUTANTS, engine, planted

__all__ = [
    "MUTANTS", "authority", "engine", "evidence", "handovers", "locks", "planted", "restarts", "slots",
    "views", "volumes",
]  # fmt: skip
