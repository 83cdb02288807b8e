"""Rings of waiting clients: scenarios as files, and what must hold of any graph."""

import os
import time
from pathlib import Path

import pytest
from deadlock_story import DeadlockStory
from hypothesis import given
from hypothesis import strategies as st
from lock_story import BadCommand, replay

from ringfence.core.modes import Mode
from ringfence.locks.deadlock import Link, Seen, links, rings, unchanged, victim
from ringfence.wire.entries import ClientLock

SCENARIOS = sorted((Path(__file__).parent / "deadlocks").glob("*.txt"))


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 8


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    text, now = replay(path, DeadlockStory())
    if os.environ.get("REWRITE"):
        path.write_text(now)
    else:
        assert now == text


BAD = ["frobnicate", "request n9 p a EX", "request n1 p a", "unlock p a", "rings now"]


@pytest.mark.parametrize("line", BAD)
def test_the_harness_rejects_what_it_does_not_know(line: str) -> None:
    with pytest.raises(BadCommand):
        DeadlockStory().do(line)


def seen(owner: int, number: int, wanted: bool) -> Seen:
    mode = Mode.EX if wanted else Mode.UN
    lock = ClientLock("s", f"r{number}", number, 1, f"o{owner}", True, "", Mode.EX, mode, number, wanted)
    return Seen(1, lock)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_a_ring_is_found_where_there_is_one_and_is_one(pairs: list[tuple[int, int]]) -> None:
    graph = [
        Link(seen(waiter, 2 * at, True), seen(blocker, 2 * at + 1, False))
        for at, (waiter, blocker) in enumerate(pairs)
    ]
    found = rings(graph)
    for ring in found:
        assert all(link in graph for link in ring)
        after = [*ring[1:], ring[0]]
        assert all(one.blocker.owner == other.waiter.owner for one, other in zip(ring, after, strict=True))
        owners = [link.waiter.owner for link in ring]
        assert len(set(owners)) == len(owners), "no owner twice: it is a shortest"
        lost = victim(ring)
        assert lost is not None
        assert lost.lock.since_ms == max(link.waiter.lock.since_ms for link in ring)
    assert bool(found) == any(_reaches(pairs, blocker, waiter) for waiter, blocker in pairs)
    assert rings(unchanged(graph, graph)) == found
    assert rings(unchanged([], graph)) == []


def _reaches(pairs: list[tuple[int, int]], start: int, goal: int) -> bool:
    known, new = {start}, [start]
    while new:
        new = [blocker for waiter, blocker in pairs if waiter in new and blocker not in known]
        known.update(new)
    return goal in known


def test_a_long_queue_is_looked_through_quickly() -> None:
    """Ten thousand that wait in one queue, and nobody in a ring."""
    count = 10_000
    queue = [
        ClientLock("s", "r", at, at, f"o{at}", True, "", Mode.UN, Mode.EX, at, True, behind=(at - 1,))
        for at in range(1, count)
    ]
    begin = time.process_time()
    found = links({1: queue})
    assert len(found) == count - 2
    assert rings(found) == []
    assert time.process_time() - begin < 1
