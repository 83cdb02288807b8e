"""Which flags go together: every pair of flags, with every operation and pair of modes, at both levels.

The rules stand here as the field's documents have them (lock.c, `set_lock_args`, `validate_lock_args`,
`set_unlock_args`), not as the code under test reads them.  TIMEOUT is the one exception: the DLM calls
it deprecated, and here rules know no time."""

import errno
from itertools import combinations_with_replacement

import pytest

from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.locks.flags import FLAGS, Flag
from ringfence.locks.lockspace import Lockspace, Op
from ringfence.locks.node_locks import AskCluster, ClientRefused, NodeLocks, Out
from ringfence.locks.resource import Effect, Granted, Refused, Released, Resource, check

MODES = (Mode.NL, Mode.CR, Mode.CW, Mode.PR, Mode.PW, Mode.EX)
NODES_OWN = {"YIELDS", "TRY", "AHEAD"}
PAIRS = [
    {one, other} for one, other in combinations_with_replacement(sorted(FLAGS.keys() - NODES_OWN), 2)
]

NEVER = {
    "request": {"CANCEL", "CONVERT", "QUECVT", "CONVDEADLK", "TIMEOUT", "DEMOTED"},
    "convert": {"CANCEL", "EXPEDITE", "TIMEOUT", "DEMOTED"},
    "unlock": set(FLAGS) - {"CANCEL", "VALBLK", "IVVALBLK", "FORCEUNLOCK"},
}
NOT_TOGETHER = {
    "request": [{"EXPEDITE", "NOQUEUE"}],
    "convert": [{"CONVDEADLK", "NOQUEUE"}],
    "unlock": [{"CANCEL", "FORCEUNLOCK"}],
}


def by_the_book(operation: str, names: set[str], held: Mode, wanted: Mode) -> bool:
    """Whether the DLM takes these flags."""
    if names & NEVER[operation] or any(pair <= names for pair in NOT_TOGETHER[operation]):
        return False
    if "EXPEDITE" in names and wanted is not Mode.NL:
        return False
    return "QUECVT" not in names or wanted > held or (held, wanted) == (Mode.PR, Mode.CW)


def number(names: set[str]) -> int:
    flags = 0
    for name in names:
        flags |= FLAGS[name]
    return flags


def operations() -> list[tuple[str, Mode, Mode]]:
    found = [("request", Mode.UN, wanted) for wanted in MODES]
    found += [("convert", held, wanted) for held in MODES for wanted in MODES]
    return [*found, *(("unlock", held, Mode.UN) for held in MODES)]


@pytest.mark.parametrize(("operation", "held", "wanted"), operations())
def test_every_pair_of_flags_of_a_resource(operation: str, held: Mode, wanted: Mode) -> None:
    for names in PAIRS:
        flags, resource = number(names), Resource("r")
        if operation != "request":
            resource.request(1, held)
        if operation == "request":
            told = resource.request(1, wanted, flags)
        elif operation == "convert":
            told = resource.convert(1, wanted, flags)
        else:
            told = resource.unlock(1, flags)
        check(resource)
        if not by_the_book(operation, names, held, wanted):
            assert told == [Refused(1, errno.EINVAL)], names
        elif operation == "unlock":
            assert told == [Refused(1, errno.EBUSY) if "CANCEL" in names else Released(1)], names
        else:
            assert isinstance(told[0], Granted), names


@pytest.mark.parametrize(("operation", "held", "wanted"), operations())
def test_every_pair_of_flags_of_a_client(operation: str, held: Mode, wanted: Mode) -> None:
    """The same one level down, where what a node may say to the cluster is refused to clients."""
    for names in [*PAIRS, {"YIELDS"}, {"TRY"}, {"TRY", "NOQUEUE"}]:
        flags, alone = number(names), Alone()
        if operation == "request":
            alone.carry(alone.node.request(1, "space", "r", wanted, flags=flags))
        else:
            alone.carry(alone.node.request(1, "space", "r", held))
        if operation == "convert":
            alone.carry(alone.node.convert(1, wanted, flags=flags))
        elif operation == "unlock":
            alone.carry(alone.node.unlock(1, flags=flags))
        allowed = by_the_book(operation, names, held, wanted) and not names & NODES_OWN
        assert (ClientRefused(1, errno.EINVAL) not in alone.said) is allowed, names


class Alone:
    """A node alone in its cluster: each question is answered at once."""

    def __init__(self) -> None:
        self.node = NodeLocks()
        self.space = Lockspace(name="space", members=[1])
        self.said: list[Out] = []

    def carry(self, outs: list[Out]) -> None:
        for out in outs:
            if not isinstance(out, AskCluster):
                self.said.append(out)
                continue
            for _, effect in self.space.apply(Op(out.kind, out.resource, 1, out.mode, out.flags, out.lvb)):
                self.carry(self.answer(effect))

    def answer(self, effect: Effect) -> list[Out]:
        where = ("space", "r")
        if isinstance(effect, Granted):
            token = Token(1, 1, 1)
            return self.node.on_granted(*where, effect.mode, token, effect.lvb, effect.lvb_valid)
        assert isinstance(effect, Released), effect
        return self.node.on_released(*where)


def test_flags_that_nobody_knows() -> None:
    resource = Resource("r")
    assert resource.request(1, Mode.PR, 0x80000) == [Refused(1, errno.EINVAL)]
    resource.request(1, Mode.PR)
    assert resource.convert(1, Mode.EX, 0x80000) == [Refused(1, errno.EINVAL)]
    assert resource.unlock(1, 0x80000) == [Refused(1, errno.EINVAL)]


def test_a_value_block_of_another_length() -> None:
    resource = Resource("r")
    resource.request(1, Mode.EX)
    assert resource.convert(1, Mode.NL, Flag.VALBLK, b"short") == [Refused(1, errno.EINVAL)]
    assert resource.unlock(1, Flag.VALBLK, b"x" * 33) == [Refused(1, errno.EINVAL)]
