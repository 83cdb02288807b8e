"""The table of a lockspace beside a plain one, which looks at every resource by name: both say the same."""

import errno
import random

import pytest
from lock_story import run_out

from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.locks import table
from ringfence.locks.flags import Flag
from ringfence.locks.lockspace import Lockspace, Op, OpKind, check_space
from ringfence.locks.resource import Effect, Granted, Refused, Resource
from ringfence.locks.table import LEFT_OPEN, Resources, check_table

NODES = (1, 2, 3)
NAMES = tuple(f"r{number}" for number in range(6))
Told = list[tuple[str, Effect]]


class Plain:
    """What a lockspace does, without any table that could be wrong."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self.deferred: list[Op] = []

    def apply(self, op: Op) -> Told:
        resource = self.resources.get(op.resource)
        if resource is None:
            if op.kind is OpKind.CANCEL:
                return []
            if op.kind is not OpKind.REQUEST:
                return [(op.resource, Refused(op.owner, errno.ENOENT))]
            resource = self.resources[op.resource] = Resource(op.resource)
        if op.kind is OpKind.REQUEST:
            effects = resource.request(op.owner, op.mode, op.flags, None, op.now_ms)
        elif op.kind is OpKind.CONVERT:
            effects = resource.convert(op.owner, op.mode, op.flags, None, op.now_ms)
        elif op.kind is OpKind.UNLOCK:
            effects = resource.unlock(op.owner, op.flags, None, op.now_ms)
        else:
            effects = resource.cancel(op.owner, op.now_ms)
        self.tidy()
        return [(op.resource, effect) for effect in effects]

    def withdraw(self, op: Op) -> None:
        left = [one for one in self.deferred if not _takes_back(op, one)]
        taken, self.deferred = left != self.deferred, left
        if not taken and op.resource in self.resources:
            self.resources[op.resource].withdraw(op.owner)
        self.tidy()

    def purge(self, node: int) -> None:
        self.deferred = [one for one in self.deferred if one.owner != node]
        for resource in self.resources.values():
            resource.purge([node])
        self.tidy()

    def resume(self, now_ms: int) -> Told:
        told: Told = []
        for name in sorted(self.resources):
            told += [(name, effect) for effect in self.resources[name].advance(now_ms)]
        replay, self.deferred = self.deferred, []
        for op in replay:
            effects = self.apply(op)
            for name, effect in effects:
                lock = self.resources[name].find(effect.owner) if isinstance(effect, Granted) else None
                if lock is not None:
                    lock.since_ms = max(op.now_ms, now_ms)
            told += effects
        return told

    def tidy(self) -> None:
        self.resources = {name: one for name, one in self.resources.items() if not one.empty}


def _takes_back(cancel: Op, op: Op) -> bool:
    same = (op.resource, op.owner) == (cancel.resource, cancel.owner)
    return same and op.kind is not OpKind.UNLOCK


def random_op(rng: random.Random, now_ms: int) -> Op:
    kind = rng.choice([OpKind.REQUEST, OpKind.REQUEST, OpKind.CONVERT, OpKind.UNLOCK, OpKind.CANCEL])
    asks = kind in (OpKind.REQUEST, OpKind.CONVERT)
    mode = rng.choice([Mode.NL, Mode.CR, Mode.PR, Mode.EX]) if asks else None
    flags = Flag.NOQUEUE if mode is not None and rng.random() < 0.2 else 0
    return Op(kind, rng.choice(NAMES), rng.choice(NODES), mode, flags, now_ms=now_ms)


@pytest.mark.parametrize("seed", range(200))
def test_a_table_says_what_a_look_at_every_resource_says(seed: int) -> None:
    rng = random.Random(seed)
    space, plain = Lockspace("s", members=list(NODES)), Plain()
    frozen = False
    for now_ms in range(150):
        chance = rng.random()
        if chance < 0.05 and not frozen:
            frozen = True
        elif chance < 0.15 and frozen:
            if rng.random() < 0.7:
                node = rng.choice(NODES)
                run_out(space.purge(node))
                plain.purge(node)
            frozen = False
            told: Told = []
            for some in space.resume(now_ms):
                told += some
            assert told == plain.resume(now_ms)
        else:
            op = random_op(rng, now_ms)
            if not frozen:
                assert space.apply(op) == plain.apply(op)
            else:
                answers = space.defer(op)
                deferred = (op.resource, op.owner) in space.deferred
                if op.kind is OpKind.CANCEL:
                    plain.withdraw(op)
                elif deferred and not answers:
                    plain.deferred.append(op)
        assert dict(space.resources) == plain.resources
        if rng.random() < 0.3:
            check_space(space, frozen=frozen)
    check_table(space.resources)


def test_what_is_touched_leaves_the_sum_and_comes_back() -> None:
    """More than stay open, each changed through `open`: the digest is that of a table made anew."""
    resources = Resources()
    for number in range(3 * LEFT_OPEN):
        resources.add(Resource(f"r{number:04}")).request(1 + number % 2, Mode.PR)
    before = resources.digest()
    assert before == Resources(resources.values()).digest()
    for number in range(0, 3 * LEFT_OPEN, 2):
        resource = resources.open(f"r{number:04}")
        assert resource is not None
        resource.request(3, Mode.CR)
    check_table(resources)
    assert resources.digest() != before
    assert len(list(resources.of(3))) == len(resources) // 2
    assert resources.locks == len(resources) * 3 // 2
    run_out(resources.purge(3))
    for resource in resources.stirred():
        resource.advance()
    assert resources.digest() == before
    run_out(resources.purge(1))
    assert sorted(one.name for one in resources.of(2)) == sorted(resources)
    assert resources.locks == len(resources) == 3 * LEFT_OPEN // 2


@pytest.mark.parametrize("later", [0, 5, 1000])
def test_the_sum_is_that_of_what_is_there_however_late_it_is_asked_for(
    later: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows come, single ones of them are changed, go by themselves, with others, or with their owner."""
    monkeypatch.setattr(table, "ADDED_LATER", later)
    rng = random.Random(later)
    space = Lockspace("s", members=list(NODES))
    for now_ms in range(2000):
        owner, some = rng.choice(NODES), tuple(rng.sample(NAMES, rng.randrange(1, len(NAMES))))
        match rng.randrange(5):
            case 0 | 1:
                space.request_new(some, owner, Mode.EX, 0, now_ms, lambda count: [Token(1, 1, 1)] * count)
            case 2:
                space.unlock_alone(some, owner)
            case 3:
                space.apply(random_op(rng, now_ms))
            case _:
                space.apply(Op(OpKind.UNLOCK, some[0], owner))
        if rng.randrange(300) == 0:
            run_out(space.purge(owner))
            run_out(space.resume(now_ms))
        if rng.randrange(20) == 0:
            check_table(space.resources)


def test_a_resource_that_differs_in_anything_has_another_digest() -> None:
    one, other = Resource("r"), Resource("r")
    one.request(1, Mode.EX)
    other.request(1, Mode.EX, now_ms=1)
    assert Resources([one]).digest() != Resources([other]).digest()
    assert Resources([one, Resource("s")]).digest() == Resources([Resource("s"), one]).digest()


def test_pieces_bring_every_resource_once() -> None:
    resources = Resources(Resource(f"r{number}") for number in range(10))
    pieces = list(resources.slices(4))
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert sorted(one.name for piece in pieces for one in piece) == sorted(resources)
