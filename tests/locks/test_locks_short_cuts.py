"""The short cuts for whoever is alone: told the same story, the general rules give the same effects and leave
the same state, step by step."""

import random
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import test_locks_nodes_random
from test_locks_nodes_random import NAME, NODES, SPACE, World, asks

from ringfence.core.modes import Mode
from ringfence.locks import lockspace, node_lock
from ringfence.locks.flags import Flag
from ringfence.locks.holdings import Keep
from ringfence.locks.local import Local
from ringfence.locks.lockspace import Lockspace
from ringfence.locks.node_lock import NodeLock
from ringfence.locks.node_locks import AskMany, ClientReleased, NodeLocks, Out
from ringfence.locks.resource import Resource

STEPS = 120
CUTS = (
    (NodeLock, "_request_alone"), (NodeLock, "grants_alone"), (NodeLock, "_ends_alone"),
    (NodeLock, "_goes_on"), (NodeLock, "_is_over"), (NodeLock, "take_ahead"), (NodeLock, "keeps_ahead"),
    (NodeLock, "gives_back"), (Resource, "request_alone"), (Lockspace, "hand_on"),
    (Local, "take_alone"),
)  # fmt: skip
"""Each tells whether it may be taken, or takes it."""


class Told(World):
    """A world that keeps a trace of all that is asked and told, and of what is known after it."""

    def __init__(self, choose: Callable[[int], int], *kinds: bool) -> None:
        super().__init__(choose, *kinds)
        self.trace: list[str] = []
        self.keeps = not self.ahead and self.choose(2) == 0
        """Nodes keep what their clients let go of, all of it."""

    def step(self) -> None:
        """A node that keeps nothing of a lock is in it, too."""
        super().step()
        if not self.keeps and self.choose(4) == 0:
            node = NODES[self.choose(3)]
            self.carry(node, self.nodes[node].give_back(SPACE, NAME))
        if self.keeps and self.choose(3) == 0:
            self.use_for_a_moment(NODES[self.choose(3)])
        if self.ahead and not self.frozen and self.choose(6) == 0:
            self.take_ahead(NODES[self.choose(3)], (Mode.EX, Mode.PR)[self.choose(2)])

    def use_for_a_moment(self, node: int) -> None:
        """What others ask for is let go of by who is alone and writes nothing; else such a one comes."""
        mine = [one for one, client in self.clients.items() if client.node == node and not client.releasing]
        if not mine:
            self.request(node, Mode.EX, 0, True)
        elif len(mine) == 1 and self.clients[mine[0]].wanted is Mode.UN:
            self.unlock(mine[0], None)

    def request(self, node: int, mode: Mode, flags: int, keep: bool) -> None:
        super().request(node, mode, flags, keep or self.keeps)

    def take_ahead(self, node: int, mode: Mode) -> None:
        """As for a stock vgchange: once who can lets go, a node asks ahead of its client."""
        self.all_let_go()
        self.give_back_all()
        self.ask_ahead(node, mode)
        self.deliver_all()
        super().request(node, mode, 0, keep=False)

    def all_let_go(self) -> None:
        for lock_id in [key for key, one in self.clients.items() if one.wanted is Mode.UN]:
            if lock_id in self.clients and not self.clients[lock_id].releasing:
                self.unlock(lock_id, None)

    def carry(self, node: int, outs: list[Out]) -> None:
        locks = self.nodes[node]
        known = [repr(locks._find(SPACE, name)) for name in locks.resources(SPACE)]
        self.trace.append(f"{node}: {outs} {known} {sorted(self.space.resources.items())}")
        super().carry(node, outs)


class ComesBack(Told):
    """Now and then all let go, and one comes that comes back to what its node has kept."""

    def step(self) -> None:
        super().step()
        if self.frozen or self.choose(4):
            return
        self.all_let_go()
        self.deliver_all()
        node, flags = NODES[self.choose(3)], self.choose(2) * Flag.NOQUEUE
        for mode in (Mode.EX, (Mode.PR, Mode.EX)[self.choose(2)]):
            self.request(node, mode, flags, keep=True)
            self.deliver_all()
            self.all_let_go()


def tell(seed: int, kind: type[Told] = Told) -> list[str]:
    world = kind(random.Random(seed).randrange, seed % 2 == 0, seed % 3 == 0, seed % 5 < 2)
    for _ in range(STEPS):
        world.step()
    world.drain()
    return world.trace


def by_the_rules(lock: NodeLock, lock_id: int, mode: Mode, flags: int, now_ms: int) -> list[Out]:
    asked = lock.local.request(lock_id, mode, node_lock._tries(flags), None, now_ms)
    return lock._tell(asked) + lock._step()


def no_more_kept(lock: NodeLock) -> bool:
    lock.keep = Keep.NEVER
    return False


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each short cut was taken."""
    counts: dict[str, int] = {}
    for owner, name in CUTS:
        cut = getattr(owner, name)

        def counted(self: Any, *given: Any, cut: Any = cut, name: str = name) -> Any:
            told = cut(self, *given)
            counts[name] = counts.get(name, 0) + (told not in (False, None))
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
    monkeypatch.setattr(NodeLock, "grants_alone", lambda lock, mode: None)
    monkeypatch.setattr(NodeLock, "_ends_alone", lambda lock: False)
    monkeypatch.setattr(NodeLock, "_goes_on", lambda lock: False)
    monkeypatch.setattr(NodeLock, "_is_over", lambda lock: False)
    monkeypatch.setattr(Lockspace, "hand_on", lambda *given: None)
    monkeypatch.setattr(Local, "take_alone", lambda *given: None)
    monkeypatch.setattr(NodeLock, "take_ahead", lambda lock, *given: None)
    monkeypatch.setattr(NodeLock, "keeps_ahead", lambda lock: False)
    monkeypatch.setattr(NodeLock, "gives_back", no_more_kept)
    monkeypatch.setattr(lockspace, "valid_request", lambda *given: False)
    for seed, story in stories.items():
        for number, (cut, ruled) in enumerate(zip(story, tell(seed), strict=True)):
            assert cut == ruled, f"seed {seed}, step {number}"
    assert not taken


class ByTheList(NodeLocks):
    """Whatever can be asked and told of many resources at a time is, of the one that there is."""

    counts: ClassVar[dict[str, int]] = {}
    within: ClassVar[bool] = False

    def request(self, lock_id: int, lockspace: str, resource: str, mode: Mode, **how: Any) -> list[Out]:
        flags, wishes = how["flags"], [(lock_id, resource)]
        if flags & ~Flag.NOQUEUE or how.get("keep", True) or how["cached"]:
            return super().request(lock_id, lockspace, resource, mode, **how)
        outs, others = self.request_many(lockspace, wishes, mode, flags, 0)
        if others:
            assert not outs
            return super().request(lock_id, lockspace, resource, mode, **how)
        return self.counted("requests", outs)

    def unlock(self, lock_id: int, **how: Any) -> list[Out]:
        outs, others = self.unlock_many([lock_id]) if how == {"flags": 0, "lvb": None} else ([], [lock_id])
        return super().unlock(lock_id, **how) if others else self.counted("unlocks", outs)

    def on_granted(self, *given: Any, hold_until_ms: int = 0) -> list[Out]:
        lockspace, resource, mode, token, lvb, valid, *_ = given
        if not valid or ByTheList.within:
            return super().on_granted(*given, hold_until_ms=hold_until_ms)
        ByTheList.within = True  # it falls back on the single one
        outs = self.on_granted_many(lockspace, [resource], mode, [token], lvb, hold_until_ms=hold_until_ms)
        ByTheList.within = False
        return self.counted("grants", outs)

    def on_released(self, lockspace: str, resource: str) -> list[Out]:
        if ByTheList.within:
            return super().on_released(lockspace, resource)
        ByTheList.within = True
        outs = self.on_released_many(lockspace, [resource])
        ByTheList.within = False
        return self.counted("releases", outs)

    def counted(self, what: str, outs: list[Out]) -> list[Out]:
        self.counts[what] = self.counts.get(what, 0) + 1
        return [one for out in outs for one in (asks(out) if isinstance(out, AskMany) else [out])]


@pytest.mark.parametrize("base", [0, 40, 740])
def test_what_is_done_by_the_list_is_done_as_one_by_one(base: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = range(base, base + 40)
    stories = {seed: tell(seed) for seed in seeds}
    monkeypatch.setattr(test_locks_nodes_random, "NodeLocks", ByTheList)
    monkeypatch.setattr(ByTheList, "counts", {})
    for seed in seeds:
        for number, (single, listed) in enumerate(zip(stories[seed], tell(seed), strict=True)):
            assert single == listed, f"seed {seed}, step {number}"
    assert len(ByTheList.counts) == 4
    assert all(count > 30 for count in ByTheList.counts.values()), ByTheList.counts


class WhatIsKept(NodeLocks):
    """Whoever may be served at once under what the node keeps is, and leaves so."""

    counts: ClassVar[dict[str, int]] = {}

    def request(self, lock_id: int, lockspace: str, resource: str, mode: Mode, **how: Any) -> list[Out]:
        plain = how.get("keep", True) and not (how["flags"] & ~node_lock.PLAIN or how["cached"])
        taken = self.take_kept(lock_id, lockspace, resource, mode, 0) if plain else None
        if taken is None:
            return super().request(lock_id, lockspace, resource, mode, **how)
        self.counts["taken"] = self.counts.get("taken", 0) + 1
        return [taken]

    def unlock(self, lock_id: int, **how: Any) -> list[Out]:
        if how != {"flags": 0, "lvb": None} or not self.leave_kept(lock_id):
            return super().unlock(lock_id, **how)
        self.counts["left"] = self.counts.get("left", 0) + 1
        return [ClientReleased(lock_id)]


@pytest.mark.parametrize("base", [0, 40, 740])
def test_what_is_kept_is_taken_and_left_as_anything_else(base: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = range(base, base + 40)
    stories = {seed: tell(seed, ComesBack) for seed in seeds}
    monkeypatch.setattr(test_locks_nodes_random, "NodeLocks", WhatIsKept)
    monkeypatch.setattr(WhatIsKept, "counts", {})
    for seed in seeds:
        for number, (ruled, cut) in enumerate(zip(stories[seed], tell(seed, ComesBack), strict=True)):
            assert cut == ruled, f"seed {seed}, step {number}"
    assert len(WhatIsKept.counts) == 2
    assert all(count > 30 for count in WhatIsKept.counts.values()), WhatIsKept.counts
