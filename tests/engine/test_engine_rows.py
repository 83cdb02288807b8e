"""Lock operations in a row: as one entry they mean what they mean one by one, and they leave as one where all
nodes know that."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from ringfence.core.cluster import ClusterConfig, NodeConfig
from ringfence.core.ids import Epoch, Life
from ringfence.core.modes import Mode
from ringfence.engine import spaces
from ringfence.engine.digest import digest_of_state
from ringfence.engine.facts import Fact, LockFact, LockFacts
from ringfence.engine.losses import make_victim, settle
from ringfence.engine.outbox import Outbox
from ringfence.engine.state import ClusterState
from ringfence.locks.flags import Flag
from ringfence.locks.lockspace import Lockspace, check_space
from ringfence.locks.table import LEFT_OPEN
from ringfence.wire import entries, ring
from ringfence.wire.entries import (
    Entry,
    LockBusy,
    LockRequest,
    LockRequests,
    LocksBusy,
    LockUnlock,
    LockUnlocks,
)

SPACE = "s"
LIVES = {node: Life(node, f"m{node}", f"b{node}", 1) for node in (1, 2, 3)}
NAMES = tuple(f"r{number}" for number in range(8))
BAD_NAMES = ("", "x" * 65)
MODES = (Mode.NL, Mode.CR, Mode.PR, Mode.EX)
FLAGS = (0, Flag.VALBLK, Flag.NOQUEUE, Flag.NOQUEUE | Flag.TRY, Flag.NOQUEUE | Flag.VALBLK | Flag.AHEAD)
VALUE = b"v" * 32


def fresh() -> ClusterState:
    nodes = tuple(NodeConfig(node, f"n{node}") for node in LIVES)
    state = ClusterState(ClusterConfig("c", nodes=nodes), epoch=Epoch(4, 1), lives=dict(LIVES), wall_ms=1)
    state.lockspaces[SPACE] = Lockspace(SPACE, members=[1, 2])  # node 3 is not in it
    return state


def told(facts: Sequence[Fact]) -> list[LockFact]:
    """What of many resources is told as one, resource by resource."""
    found: list[LockFact] = []
    for fact in facts:
        if isinstance(fact, LockFacts):
            tokens = fact.tokens or (None,) * len(fact.resources)
            both = zip(fact.resources, tokens, strict=True)
            found += [LockFact(fact.lockspace, name, fact.effect, token) for name, token in both]
        else:
            assert isinstance(fact, LockFact)
            found.append(fact)
    return found


def one_by_one(entry: Any) -> list[Entry]:
    match entry:
        case LockRequests(lockspace, resources, mode, flags):
            return [LockRequest(lockspace, name, mode, flags) for name in resources]
        case LockUnlocks(lockspace, resources):
            return [LockUnlock(lockspace, name) for name in resources]
        case LocksBusy(lockspace, resources):
            return [LockBusy(lockspace, name) for name in resources]
    return [entry]


HANDLERS: dict[type, Any] = {
    LockRequest: spaces.lock_request, LockUnlock: spaces.lock_unlock, LockBusy: spaces.lock_busy,
    LockRequests: spaces.lock_requests, LockUnlocks: spaces.lock_unlocks, LocksBusy: spaces.locks_busy,
    entries.LockConvert: spaces.lock_convert, entries.LockCancel: spaces.lock_cancel,
}  # fmt: skip


def random_entry(rng: random.Random) -> Entry:
    names = tuple(rng.choice((*NAMES, *BAD_NAMES) if rng.random() < 0.1 else NAMES) for _ in range(5))
    mode, chance = rng.choice(MODES), rng.random()
    if chance < 0.4:
        return LockRequests(SPACE, names, mode, rng.choice(FLAGS) if rng.random() < 0.95 else Flag.EXPEDITE)
    if chance < 0.6:
        return LockUnlocks(SPACE, names)
    if chance < 0.7:
        return LocksBusy(SPACE, names)
    if chance < 0.8:
        return entries.LockConvert(SPACE, names[0], mode, Flag.VALBLK, VALUE)
    if chance < 0.9:
        return LockUnlock(SPACE, names[0], Flag.VALBLK, VALUE)
    return entries.LockCancel(SPACE, names[0])


def change_freeze(state: ClusterState, rng: random.Random) -> None:
    """A node's earlier life becomes a victim, or what is frozen goes on."""
    if not state.domain.victims:
        life = Life(3, "m3", "b0", 1)
        make_victim(state, life, "lost", due=False, lockspaces=(SPACE,) if rng.random() < 0.8 else ())
    else:
        state.domain.victims.clear()
    for _ in settle(state):
        pass


def same(one: ClusterState, other: ClusterState) -> None:
    assert digest_of_state(one) == digest_of_state(other)
    left, right = (msgspec.msgpack.decode(state.encode()) for state in (one, other))
    assert left == right
    for state in (one, other):
        check_space(state.lockspaces[SPACE], frozen=bool(state.blocking(SPACE)))


@pytest.mark.parametrize("seed", range(60))
def test_a_row_means_what_its_operations_mean_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    rows, singles = fresh(), fresh()
    for _ in range(60):
        if rng.random() < 0.08:
            at = rng.getrandbits(32)
            change_freeze(rows, random.Random(at))
            change_freeze(singles, random.Random(at))
        life, entry = LIVES[rng.choice((1, 1, 2, 2, 3))], random_entry(rng)
        rows.wall_ms = singles.wall_ms = rows.wall_ms + rng.randrange(3)
        together = told(HANDLERS[type(entry)](rows, life, entry))
        apart = [fact for one in one_by_one(entry) for fact in HANDLERS[type(one)](singles, life, one)]
        assert together == told(apart)
        if rng.random() < 0.3:
            same(rows, singles)
    same(rows, singles)


def test_the_short_cuts_leave_the_table_as_it_should_be() -> None:
    """More than stay open, some of them another's as well."""
    state = fresh()
    space = state.lockspaces[SPACE]
    many = tuple(f"r{number:04}" for number in range(3 * LEFT_OPEN))
    spaces.lock_requests(state, LIVES[2], LockRequests(SPACE, many[::7], Mode.CR))
    facts = spaces.lock_requests(state, LIVES[1], LockRequests(SPACE, many, Mode.PR))
    assert len(told(facts)) == len(many)
    tokens = [one.token for one in told(facts)]
    assert tokens == sorted(tokens)  # type: ignore[type-var]
    check_space(space, frozen=False)
    some = many[5:-5]
    assert [
        one.resource for one in told(spaces.lock_unlocks(state, LIVES[1], LockUnlocks(SPACE, some)))
    ] == list(some)
    check_space(space, frozen=False)
    assert set(space.resources) == {*many[::7], *many[:5], *many[-5:]}
    assert all(name in space.resources for name in many[:5])
    assert many[8] not in space.resources


# -- what leaves ---------------------------------------------------------------------------


def sent(outbox: Outbox) -> list[Entry]:
    payload = ring.encode(Epoch(1, 1), LIVES[1], outbox.frame(), 8)
    return [item.entry for item in ring.decode(payload).items if isinstance(item, ring.Submitted)]


def submit(outbox: Outbox, *asked: Entry, many_locks: bool = True, unhurried: bool = False) -> list[int]:
    return [outbox.submit(one, 7, many_locks=many_locks, unhurried=unhurried) for one in asked]


def requests(*names: str, mode: Mode = Mode.EX) -> list[Entry]:
    return [LockRequest(SPACE, name, mode) for name in names]


def opened(at_once: int = 4) -> Outbox:
    outbox = Outbox(at_once)
    outbox.open(0)
    return outbox


def test_operations_in_a_row_are_one_entry() -> None:
    outbox = opened()
    assert submit(outbox, *requests("a", "b", "c")) == [1, 1, 1]
    assert sent(outbox) == [LockRequests(SPACE, ("a", "b", "c"), Mode.EX)]
    assert outbox.applied(1) == [LockRequests(SPACE, ("a", "b", "c"), Mode.EX)]


def test_what_differs_or_stands_between_ends_a_row() -> None:
    outbox = opened(9)
    last = LockUnlock(SPACE, "f", Flag.VALBLK, VALUE)
    submit(outbox, *requests("a", "b"), *requests("c", mode=Mode.PR), LockUnlock(SPACE, "d"), last)
    submit(outbox, LockBusy(SPACE, "g"), LockBusy(SPACE, "h"), LockBusy("other", "h"), *requests("a"))
    assert sent(outbox) == [
        LockRequests(SPACE, ("a", "b"), Mode.EX), *requests("c", mode=Mode.PR), LockUnlock(SPACE, "d"), last,
        LocksBusy(SPACE, ("g", "h")), LockBusy("other", "h"), *requests("a"),
    ]  # fmt: skip


def test_no_older_node_is_sent_a_row() -> None:
    outbox = opened()
    submit(outbox, *requests("a", "b"), many_locks=False)
    submit(outbox, *requests("c", "d"))
    assert sent(outbox) == [*requests("a", "b"), LockRequests(SPACE, ("c", "d"), Mode.EX)]


def test_a_frame_is_about_no_more_locks_than_a_step_may_handle() -> None:
    outbox = opened(4)
    names = [f"r{number}" for number in range(10)]
    submit(outbox, *requests(*names))
    found = []
    while entry := sent(outbox):
        found += entry
    assert [entries.weight(one) for one in found] == [4, 4, 2]
    assert [name for one in found for name in one.resources] == names  # type: ignore[union-attr]


def test_what_has_been_sent_is_never_added_to() -> None:
    """Whoever has applied number 1 already has applied all that it means."""
    outbox = opened()
    submit(outbox, *requests("a", "b"))
    assert sent(outbox) == [LockRequests(SPACE, ("a", "b"), Mode.EX)]
    outbox.close()
    assert submit(outbox, *requests("c", "d")) == [2, 2]
    outbox.open(1)
    assert outbox.just_applied == [LockRequests(SPACE, ("a", "b"), Mode.EX)]
    assert sent(outbox) == [LockRequests(SPACE, ("c", "d"), Mode.EX)]


def test_what_nobody_waits_for_leaves_when_a_row_is_full() -> None:
    outbox = opened(4)
    submit(outbox, *(LockBusy(SPACE, name) for name in "abc"), unhurried=True)
    assert not sent(outbox)
    submit(outbox, LockBusy(SPACE, "d"), unhurried=True)
    assert sent(outbox) == [LocksBusy(SPACE, ("a", "b", "c", "d"))]
