"""Whole worlds: they hold, they repeat, and they notice planted bugs."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from ringfence.core.ids import Life
from ringfence.engine.context import Context
from ringfence.engine.grants import Grants
from ringfence.engine.state import ClusterState
from ringfence.engine.views import Views
from ringfence.fencing.domain import Domain
from ringfence.membership.hearing import Hearing
from ringfence.sim.world import Outcome, run
from ringfence.wire.ring import Submitted

SEEDS = [
    5,  # an absent node with a remembered victim and a later life; a cold start
    6,  # a clean leave while clients hold locks
    9,  # a stale member of a cluster that begins afresh
    14, 29, 31,  # the lost half of two comes back and remembers the other as its victim
    16, 18, 44, 59,  # a node is back before its lost life was purged: whose lockspace, whose requests?
    124, 232,  # power fails under a write in flight
    35, 41, 318, 374,  # a person's word that is applied after a later loss
    51, 220,  # two attempts side by side: whose agent was it that said "off"?
    638,  # an entry that only its sender took for applied
    610,  # a frame that is lost before one that comes back
    416,  # the last ready member leaves
]  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_the_world_holds(seed: int) -> None:
    report = run(seed)
    assert report.outcome is Outcome.OK, f"ringfence sim {seed}: {report.what}"


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_work_is_done_and_faults_strike(nodes: int) -> None:
    report = run(1000 + nodes, nodes)
    assert report.outcome is Outcome.OK, report.what
    assert report.counts["grants"] > 20
    assert report.counts["writes"] > 20
    assert report.faults


def test_one_seed_is_one_story_whatever_the_hash_seed() -> None:
    code = "from ringfence.sim.world import run; print(run(12, steps=1500).digest)"
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("0", "1")
    ]
    assert said[0] == said[1]
    assert said[0].strip() == run(12, steps=1500).digest


def _no_evidence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Domain, "proven", lambda self, victim: True)


def _no_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Domain, "purgeable", lambda self, ready: [v.life for v in self.victims if self.proven(v)])


def _bound_always_passed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Hearing, "bound_passed", lambda self, life, now_ns, timing: True)


def _gaps_count(patch: pytest.MonkeyPatch) -> None:
    def fits(self: ClusterState, life: Life, item: Submitted) -> bool:
        sender = self.senders.get(life.node)
        return sender is not None and sender.life == life and item.seq > sender.seq

    patch.setattr(ClusterState, "fits", fits)


def _always_authority(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Context, "may_report", property(lambda self: True))
    patch.setattr(Context, "deadlines_ns", lambda self: (1 << 62, 1 << 62))


def _never_frozen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClusterState, "blocking", lambda self, lockspace: [])


def _stale_goes_on(patch: pytest.MonkeyPatch) -> None:
    real = Views.go_stale

    def go_stale(self: Any, why: str) -> None:
        self._parts, parts = _Deaf(self._parts), self._parts
        try:
            real(self, why)
        finally:
            self._parts = parts

    patch.setattr(Views, "go_stale", go_stale)


class _Deaf:
    """Parts that are not told that this life is lost."""

    def __init__(self, parts: Any) -> None:
        self._parts = parts

    def lost(self, why: str) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts, name)


def _locks_vanish(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Grants, "tell", lambda self: [])


FEW = range(1, 41)
BUGS: list[tuple[str, Callable[[pytest.MonkeyPatch], None], Iterable[int]]] = [
    ("purge without evidence", _no_evidence, FEW),
    # A believed lie, a writer that thaws soon and a rival at that moment: the bound needs all three.
    ("purge before the bound", _no_bound, (116, 149, 403)),
    ("the bound has always passed", _bound_always_passed, (116, 149, 403)),
    ("authority never expires", _always_authority, (32, *FEW)),
    ("a victim freezes nothing", _never_frozen, FEW),
    ("a stale node keeps its locks", _stale_goes_on, (10, *FEW)),
    ("grants are never told", _locks_vanish, FEW),
    ("a gap in a sender's numbers is passed over", _gaps_count, (610,)),
]


@pytest.mark.parametrize(("bug", "plant", "seeds"), BUGS, ids=[bug[0] for bug in BUGS])
def test_planted_bugs_are_noticed(
    bug: str,
    plant: Callable[[pytest.MonkeyPatch], None],
    seeds: Iterable[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    if not any(run(seed).outcome is not Outcome.OK for seed in seeds):
        pytest.fail(f"nobody noticed: {bug}")
