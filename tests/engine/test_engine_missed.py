"""What a node missed: the difference of two states, and submissions that were lost on the way."""

import errno

import pytest

from ringfence.core.cluster import ClusterConfig
from ringfence.core.ids import Epoch, Life, Token
from ringfence.core.modes import Mode
from ringfence.engine.outbox import Outbox
from ringfence.engine.reconcile import missed
from ringfence.engine.state import ClusterState, Sender
from ringfence.locks.lockspace import Lockspace, Op, OpKind
from ringfence.locks.resource import Blocking, Cancelled, Granted, Lock, Refused, Released, Resource
from ringfence.wire import ring
from ringfence.wire.entries import Entry, LockCancel, LockRequest, LockUnlock

ME = 2
OLD, NEW = Token(1, 1, 5), Token(1, 1, 9)
MINE = Lock(ME, Mode.PR, token=OLD)
WAITING = Lock(ME, wanted=Mode.EX)


def state(*queues: list[Lock], deferred: tuple[Op, ...] = ()) -> ClusterState:
    """Of one resource "r" in lockspace "s": granted, converting, waiting."""
    granted, converting, waiting = [*queues, [], [], []][:3]
    space = Lockspace("s", members=[1, ME], deferred={(op.resource, op.owner): op for op in deferred})
    if granted or converting or waiting:
        space.resources.add(Resource("r", tuple(granted), tuple(converting), tuple(waiting)))
    return ClusterState(ClusterConfig("c"), lockspaces={"s": space})


ASKED = Op(OpKind.REQUEST, "r", ME, Mode.EX)
CONVERTS = Op(OpKind.CONVERT, "r", ME, Mode.EX)
REQUEST, CANCEL, UNLOCK = LockRequest("s", "r", Mode.EX), LockCancel("s", "r"), LockUnlock("s", "r")


@pytest.mark.parametrize(
    ("before", "after", "applied", "effect"),
    [
        (state([], [], [WAITING]), state([Lock(ME, Mode.EX, token=NEW)]), (), Granted),
        (state([MINE]), state(), (UNLOCK,), Released),
        (state([], [], [WAITING]), state(), (CANCEL,), Cancelled),
        (state(), state(), (REQUEST,), Refused),
        (state(), state(), (REQUEST, CANCEL), Cancelled),
        (state(deferred=(ASKED,)), state(), (CANCEL,), Cancelled),
        (state(deferred=(ASKED,)), state(), (), Refused),
        (state(deferred=(ASKED,)), state([Lock(ME, Mode.EX, token=NEW)]), (), Granted),
        (state([MINE], deferred=(CONVERTS,)), state([MINE]), (CANCEL,), Cancelled),
        (state([MINE], deferred=(CONVERTS,)), state([MINE]), (), Refused),
        (state([MINE]), state([Lock(ME, Mode.PR, token=OLD, notified=Mode.EX)]), (), Blocking),
        (state([MINE]), state([Lock(ME, Mode.PR, token=OLD, tried=Mode.EX)]), (), Blocking),
    ],
)
def test_each_end_of_an_operation_is_told(
    before: ClusterState, after: ClusterState, applied: tuple[Entry, ...], effect: type
) -> None:
    facts = [fact for some in missed(before, after, ME, applied) for fact in some]
    assert [(one.lockspace, one.resource, type(one.effect)) for one in facts] == [("s", "r", effect)]
    if effect is Blocking:
        tried = after.lockspaces["s"].resources["r"].granted[0].tried
        assert facts[0].effect == Blocking(ME, Mode.EX, tries=tried is Mode.EX)
    if effect is Refused:
        assert facts[0].effect == Refused(ME, errno.EAGAIN)


@pytest.mark.parametrize(
    ("before", "after", "applied"),
    [
        (state([MINE]), state([MINE]), ()),
        (state(), state([], [], [WAITING]), (REQUEST,)),
        (state(), state(deferred=(ASKED,)), (REQUEST,)),
        (state(deferred=(ASKED,)), state([], [], [WAITING]), ()),
        (state(deferred=(ASKED,)), state(deferred=(ASKED,)), ()),
    ],
)
def test_what_still_waits_has_no_answer_yet(
    before: ClusterState, after: ClusterState, applied: tuple[Entry, ...]
) -> None:
    assert not any(missed(before, after, ME, applied))


def test_a_submission_counts_only_as_the_next_one() -> None:
    """After a gap it would hide that an earlier one was lost."""
    life = Life(ME, "m", "b", 1)
    cluster = ClusterState(ClusterConfig("c"), senders={ME: Sender(life, 4)})

    def fits(seq: int, after: int, life: Life = life) -> bool:
        return cluster.fits(life, ring.Submitted(seq, REQUEST, after=after))

    assert [fits(seq, seq - 1) for seq in (4, 5, 6)] == [False, True, False]
    assert not fits(5, 4, Life(ME, "m", "b", 2))
    assert not fits(4, 4), "applied before"
    assert fits(7, 4), "its sender has given 5 and 6 up"


def test_what_only_its_sender_took_for_applied_is_waited_for_by_nothing() -> None:
    """Seed 638: an entry was delivered to its sender alone, which then took another's state."""
    life = Life(ME, "m", "b", 1)
    outbox = Outbox(256)
    outbox.open(0)
    for entry in (REQUEST, CANCEL, UNLOCK):
        outbox.submit(entry, 0)
    outbox.applied(2)
    outbox.close()
    outbox.open(1)  # in the state that the cluster carried on, only the first one counted
    payload = ring.encode(Epoch(2, 1), life, outbox.frame())
    (item,) = ring.decode(payload).items
    assert isinstance(item, ring.Submitted)
    assert (item.seq, item.after) == (3, 1)
    assert ClusterState(ClusterConfig("c"), senders={ME: Sender(life, 1)}).fits(life, item)


def submitted(outbox: Outbox) -> list[int]:
    return [item.seq for item in outbox.frame() if isinstance(item, ring.Submitted)]


def test_what_was_lost_on_the_way_is_said_again() -> None:
    outbox = Outbox(256)
    outbox.open(0)
    for entry in (REQUEST, CANCEL):
        outbox.submit(entry, 0)
        assert len(submitted(outbox)) == 1
    assert submitted(outbox) == [], "said once"
    outbox.repeat(2)  # the second came back; the first is lost
    assert submitted(outbox) == [1, 2]
    outbox.applied(1)
    outbox.repeat(2)  # nothing before it is missing: it is only slow
    assert submitted(outbox) == []
