"""The short cuts for whoever is alone: told the same story, the general rules give the same effects and leave
the same state, step by step."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from test_locks_nodes_random import NAME, NODES, SPACE, World

from ringfence.core.modes import Mode
from ringfence.locks import lockspace, node_lock
from ringfence.locks.node_lock import NodeLock
from ringfence.locks.node_locks import Out
from ringfence.locks.resource import Resource

STEPS = 120
CUTS = (
    (NodeLock, "_request_alone"), (NodeLock, "_grants_alone"), (NodeLock, "_ends_alone"),
    (NodeLock, "_goes_on"), (NodeLock, "_is_over"), (Resource, "request_alone"),
    (Resource, "_one_waits"),
)  # fmt: skip
"""Each tells whether it may be taken, or takes it."""


class Told(World):
    """A world that keeps a trace of all that is asked and told, and of what is known after it."""

    def __init__(self, choose: Callable[[int], int], *kinds: bool) -> None:
        super().__init__(choose, *kinds)
        self.trace: list[str] = []
        self.keeps = self.choose(2) == 0
        """Nodes keep what their clients let go of, all of it."""

    def step(self) -> None:
        """A node that keeps nothing of a lock is in it, too."""
        super().step()
        if not self.keeps and self.choose(2) == 0:
            node = NODES[self.choose(3)]
            self.carry(node, self.nodes[node].give_back(SPACE, NAME))
        if self.choose(3) == 0:
            self.use_for_a_moment(NODES[self.choose(3)])

    def use_for_a_moment(self, node: int) -> None:
        """What others ask for is let go of by who is alone and writes nothing; else such a one comes."""
        mine = [one for one, client in self.clients.items() if client.node == node and not client.releasing]
        if not mine:
            self.request(node, Mode.EX, 0, True)
        elif len(mine) == 1 and self.clients[mine[0]].wanted is Mode.UN:
            self.unlock(mine[0], None)

    def request(self, node: int, mode: Mode, flags: int, keep: bool) -> None:
        super().request(node, mode, flags, keep or self.keeps)

    def carry(self, node: int, outs: list[Out]) -> None:
        locks = self.nodes[node]
        known = [repr(locks._find(SPACE, name)) for name in locks.resources(SPACE)]
        self.trace.append(f"{node}: {outs} {known} {sorted(self.space.resources.items())}")
        super().carry(node, outs)


def tell(seed: int) -> list[str]:
    world = Told(random.Random(seed).randrange, seed % 2 == 0, seed % 3 == 0, seed % 5 == 0)
    for _ in range(STEPS):
        world.step()
    world.drain()
    return world.trace


def by_the_rules(lock: NodeLock, lock_id: int, mode: Mode, flags: int, now_ms: int) -> list[Out]:
    asked = lock.local.request(lock_id, mode, node_lock._tries(flags), None, now_ms)
    return lock._tell(asked) + lock._step()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each short cut was taken."""
    counts: dict[str, int] = {}
    for owner, name in CUTS:
        cut = getattr(owner, name)

        def counted(self: Any, *given: Any, cut: Any = cut, name: str = name) -> Any:
            told = cut(self, *given)
            counts[name] = counts.get(name, 0) + (told is not False)
            return told

        monkeypatch.setattr(owner, name, counted)
    return counts


@pytest.mark.parametrize("base", [0, 40, 740])
def test_the_rules_say_the_same(base: int, taken: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    stories = {seed: tell(seed) for seed in range(base, base + 40)}
    assert len(taken) == len(CUTS)
    assert all(count > 30 for count in taken.values()), taken
    taken.clear()
    monkeypatch.setattr(NodeLock, "_request_alone", by_the_rules)
    monkeypatch.setattr(NodeLock, "_grants_alone", lambda lock, done: False)
    monkeypatch.setattr(NodeLock, "_ends_alone", lambda lock: False)
    monkeypatch.setattr(NodeLock, "_goes_on", lambda lock: False)
    monkeypatch.setattr(NodeLock, "_is_over", lambda lock: False)
    monkeypatch.setattr(Resource, "_one_waits", lambda resource: False)
    monkeypatch.setattr(lockspace, "valid_request", lambda *given: False)
    for seed, story in stories.items():
        for number, (cut, ruled) in enumerate(zip(story, tell(seed), strict=True)):
            assert cut == ruled, f"seed {seed}, step {number}"
    assert not taken
