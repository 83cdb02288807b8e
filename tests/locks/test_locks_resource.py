"""Resource and Lockspace: tables in full, and random operations against a plain second opinion.

The tables are written out here as the field's documents have them (dlmconstants.h's modes; lock.c's
`__dlm_compat_matrix` and `dlm_lvb_operations`), not derived from the code under test."""

import errno

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lock_story import all_of, run_out

from ringfence.core.errors import BadInput
from ringfence.core.modes import Mode
from ringfence.locks.compat import compatible, covers, supremum
from ringfence.locks.flags import Flag
from ringfence.locks.lockspace import Lockspace, Op, OpKind, check_names, check_space
from ringfence.locks.resource import (
    Cancelled,
    Effect,
    Granted,
    Queued,
    Refused,
    Released,
    Resource,
    check,
    reads_lvb,
    writes_lvb,
)

MODES = (Mode.NL, Mode.CR, Mode.CW, Mode.PR, Mode.PW, Mode.EX)

#        NL CR CW PR PW EX
COMPATIBLE = """
NL       1  1  1  1  1  1
CR       1  1  1  1  1  0
CW       1  1  1  0  0  0
PR       1  1  0  1  0  0
PW       1  1  0  0  0  0
EX       1  0  0  0  0  0
"""

# Rows: held (UN: a new lock), columns: wanted.  r: the value is returned, w: written, -: neither.
VALUE_BLOCK = """
         UN NL CR CW PR PW EX
UN       -  r  r  r  r  r  r
NL       -  r  r  r  r  r  r
CR       -  -  r  r  r  r  r
CW       -  -  -  r  r  r  r
PR       -  -  -  -  r  r  r
PW       w  w  w  w  w  w  r
EX       w  w  w  w  w  w  w
"""

PAIRS = [(held, wanted) for held in MODES for wanted in MODES]


def compatible_by_the_book(a: Mode, b: Mode) -> bool:
    rows = [line.split() for line in COMPATIBLE.strip().splitlines()]
    return rows[a][b + 1] == "1"


@pytest.mark.parametrize(("held", "wanted"), PAIRS)
def test_each_pair_of_modes(held: Mode, wanted: Mode) -> None:
    """A request, a try, and a conversion from NL, each beside one holder."""
    agree = compatible_by_the_book(held, wanted)
    assert compatible(held, wanted) is agree
    for flags in (0, Flag.NOQUEUE):
        resource = Resource("r")
        resource.request(1, held)
        told = resource.request(2, wanted, flags)[0]
        check(resource)
        assert isinstance(told, Granted if agree else Refused if flags else Queued)
    resource = Resource("r")
    resource.request(2, Mode.NL)
    resource.request(1, held)
    told = resource.convert(2, wanted)[0]
    check(resource)
    assert isinstance(told, Granted if agree else Queued)


def test_the_weakest_mode_that_covers_two() -> None:
    """By its definition: what agrees with the supremum is what agrees with both."""
    for a in MODES:
        for b in MODES:
            both = [one for one in MODES if compatible(a, one) and compatible(b, one)]
            assert [one for one in MODES if compatible(supremum(a, b), one)] == both
            assert covers(a, b) is all(compatible(b, one) for one in MODES if compatible(a, one))


def test_the_value_block_table() -> None:
    header, *rows = [line.split() for line in VALUE_BLOCK.strip().splitlines()]
    for held, *cells in rows:
        for wanted, cell in zip(header, cells, strict=True):
            reads, writes = reads_lvb(Mode[held], Mode[wanted]), writes_lvb(Mode[held], Mode[wanted])
            if Mode[wanted] is Mode.UN:
                reads = False  # an unlock has no answer to put it in
            assert (reads, writes) == (cell == "r", cell == "w"), f"{held} to {wanted}"


@pytest.mark.parametrize("held", MODES)
@pytest.mark.parametrize("flags", [0, Flag.VALBLK, Flag.IVVALBLK])
def test_unlock_and_the_value_block(held: Mode, flags: int) -> None:
    resource = Resource("r")
    resource.request(2, Mode.NL)
    resource.request(1, held)
    resource.unlock(1, flags, b"x" * 32)
    written = held >= Mode.PW and flags == Flag.VALBLK
    assert (resource.lvb == b"x" * 32) is written
    assert resource.lvb_seq == (1 if written else 0)
    assert resource.lvb_valid is not (held >= Mode.PW and flags == Flag.IVVALBLK)


@pytest.mark.parametrize("held", MODES)
def test_a_lost_holder_and_the_value_block(held: Mode) -> None:
    resource = Resource("r")
    resource.request(2, Mode.NL)
    resource.request(1, held)
    resource.purge([1])
    assert resource.lvb_valid is (held < Mode.PW)


@pytest.mark.parametrize("name", ["", "x" * 65, "é" * 33, "\\", "\\x4", "\\x41", "a b", "\udc80", "a\n"])
def test_what_is_not_the_text_of_a_name(name: str) -> None:
    with pytest.raises(BadInput):
        check_names("space", name)


@pytest.mark.parametrize("name", ["", "x" * 65, "\\x00" * 65, "\\" * 129])
def test_what_the_ordered_state_takes_for_no_name(name: str) -> None:
    space = Lockspace(name="space", members=[1])
    assert space.apply(Op(OpKind.REQUEST, name, 1, Mode.NL)) == [(name, Refused(1, errno.EINVAL))]
    assert space.resources == {}


def test_the_ordered_state_takes_the_text_of_any_name() -> None:
    space = Lockspace(name="space", members=[1])
    assert space.apply(Op(OpKind.REQUEST, "\\xff" * 64, 1, Mode.NL)) == [("\\xff" * 64, Granted(1, Mode.NL))]


# -- random operations -------------------------------------------------------------

OPERATIONS = st.tuples(
    st.sampled_from(["request", "convert", "convert", "unlock", "cancel", "purge"]),
    st.integers(1, 5),
    st.sampled_from(MODES),
    st.sampled_from(
        [
            0,
            0,
            0,
            int(Flag.NOQUEUE),
            int(Flag.NOORDER),
            int(Flag.HEADQUE),
            int(Flag.QUECVT),
            int(Flag.CONVDEADLK),
            int(Flag.NODLCKWT),
            int(Flag.EXPEDITE),
            int(Flag.IVVALBLK),
        ]
    ),
    st.booleans(),
)
COMPLETIONS = (Granted, Refused, Released, Cancelled)


class Opinion:
    """What each holder knows from its answers alone."""

    def __init__(self) -> None:
        self.held: dict[int, Mode] = {}
        self.in_flight: dict[int, Mode] = {}
        self.truth: bytes | None = bytes(32)
        self.grants = 0

    def hear(self, effects: list[Effect], refusable: int | None) -> None:
        for effect in effects:
            owner = effect.owner
            if isinstance(effect, Granted):
                assert self.in_flight.pop(owner) is effect.mode
                before = self.held.get(owner, Mode.UN)
                if effect.demoted:
                    before = Mode.NL
                self.held[owner] = effect.mode
                self.grants += 1
                if effect.lvb is not None:
                    assert effect.lvb == self.truth
                    assert reads_lvb(before, effect.mode)
                assert effect.lvb_valid is (self.truth is not None)
            elif isinstance(effect, Refused):
                assert owner == refusable
                self.in_flight.pop(owner, None)
            elif isinstance(effect, Released):
                del self.in_flight[owner], self.held[owner]
            elif isinstance(effect, Cancelled):
                del self.in_flight[owner]
                assert self.held.get(owner, Mode.UN) in (effect.held, Mode.UN) or effect.held is Mode.NL


@settings(max_examples=300)
@given(st.lists(OPERATIONS, max_size=60))
def test_any_operations(operations: list[tuple[str, int, Mode, int, bool]]) -> None:
    """One completion each; a refusal changes nothing; reads are the last write; `check` holds."""
    resource, mind = Resource("r"), Opinion()
    for number, (kind, owner, mode, flags, valblk) in enumerate(operations):
        value = bytes([number % 250 + 1]) * 32
        flags |= Flag.VALBLK if valblk else 0
        if kind == "purge":
            if any(mind.held.get(one, Mode.UN) >= Mode.PW for one in (owner,)):
                mind.truth = None
            resource.purge([owner])
            mind.held.pop(owner, None)
            mind.in_flight.pop(owner, None)
            mind.hear(resource.advance(), None)
            check(resource)
            continue
        if kind == "cancel":
            waited = owner in mind.in_flight
            effects = resource.cancel(owner)
            assert any(isinstance(one, Cancelled) for one in effects) is waited
            mind.hear(effects, None)
            check(resource)
            continue
        before = msgspec.msgpack.encode(resource)
        if kind == "request":
            effects = resource.request(owner, mode, flags)
        elif kind == "convert":
            effects = resource.convert(owner, mode, flags, value)
        else:
            flags &= Flag.VALBLK | Flag.IVVALBLK
            effects = resource.unlock(owner, flags, value)
        check(resource)
        if any(isinstance(one, Refused) for one in effects):
            assert len(effects) == 1
            assert msgspec.msgpack.encode(resource) == before
            continue
        assert owner not in mind.in_flight, "an operation in flight was not refused"
        wrote = kind != "request" and writes_lvb(mind.held[owner], mode if kind == "convert" else Mode.UN)
        if wrote and flags & Flag.IVVALBLK:
            mind.truth = None
        elif wrote and valblk:
            mind.truth = value
        mind.in_flight[owner] = mode if kind != "unlock" else Mode.UN
        mind.hear(effects, owner)
    drain(resource, mind)


def drain(resource: Resource, mind: Opinion) -> None:
    """Everybody lets go, converters first take their wish back: everybody is served."""
    for _ in range(50):
        idle = [owner for owner in mind.held if owner not in mind.in_flight]
        if not idle:
            idle = [owner for owner in mind.held if owner in mind.in_flight][:1]
            for owner in idle:
                mind.hear(resource.cancel(owner), None)
        for owner in idle:
            if owner not in mind.in_flight:
                mind.in_flight[owner] = Mode.UN
                mind.hear(resource.unlock(owner), None)
        check(resource)
    assert resource.empty
    assert (mind.held, mind.in_flight) == ({}, {})


@settings(max_examples=150)
@given(st.lists(OPERATIONS, max_size=40), st.integers(0, 40), st.integers(1, 5))
def test_a_frozen_lockspace_grants_nothing_and_forgets_nothing(
    operations: list[tuple[str, int, Mode, int, bool]], freeze_at: int, victim: int
) -> None:
    """Run, freeze, purge one, resume: nothing is granted between, and every operation is answered."""
    space = Lockspace(name="space", members=[1, 2, 3, 4, 5])
    asked: dict[int, int] = {}
    answered: dict[int, int] = {}
    for number, (kind, owner, mode, flags, _) in enumerate(operations):
        if kind == "purge" or (kind == "cancel" and number >= freeze_at):
            continue
        frozen = number >= freeze_at
        told = (space.defer if frozen else space.apply)(Op(OpKind(kind), "r", owner, mode, flags))
        effects = [effect for _, effect in told]
        assert not frozen or not any(isinstance(one, Granted | Queued) for one in effects)
        if kind != "cancel":
            asked[owner] = asked.get(owner, 0) + 1
        count(answered, effects)
        check_space(space, frozen=frozen)
    run_out(space.purge(victim))
    check_space(space, frozen=True)
    count(answered, [effect for _, effect in all_of(space.resume())])
    check_space(space, frozen=False)
    resource = space.resources.get("r")
    for owner in (1, 2, 3, 4, 5):
        lock = resource.find(owner) if resource else None
        if owner == victim:
            assert lock is None
        else:
            waits = lock is not None and lock.wanted is not Mode.UN
            assert asked.get(owner, 0) == answered.get(owner, 0) + waits


def count(answered: dict[int, int], effects: list[Effect]) -> None:
    for effect in effects:
        if isinstance(effect, COMPLETIONS):
            answered[effect.owner] = answered.get(effect.owner, 0) + 1
