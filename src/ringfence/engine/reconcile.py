"""What a node missed when it took another's state but kept its life: its own locks, old against new.

A member can be behind in the same primary epoch: it was cut off before the others delivered the
last payloads of the view, and came back before they had formed another.  Its own requests may have
been granted, refused, released or noticed in what it did not see.  The difference of the two states
gives the same effects that the entries would have given."""

import errno
from collections.abc import Iterator, Sequence

from ringfence.core.modes import Mode
from ringfence.engine.facts import Fact, LockFact
from ringfence.engine.state import ClusterState
from ringfence.locks.queues import OpKind
from ringfence.locks.resource import Blocking, Cancelled, Granted, Lock, Refused, Released, Resource
from ringfence.wire.entries import Entry, LockCancel, LockConvert, LockRequest, LockRequests


def missed(
    before: ClusterState, after: ClusterState, me: int, applied: Sequence[Entry]
) -> Iterator[list[Fact]]:
    """Lock effects for node `me` that lie between two states; each item is about one resource.

    Args:
        applied: own entries that `after` has applied and `before` had not.
    """
    answered: set[tuple[str, str]] = set()
    for where in _mine(before, after, me):
        found = _difference(where, _resource(after, where), _lock(before, where, me), _lock(after, where, me))
        answered |= {where} if found else set()
        yield found
    asked = {(one.lockspace, one.resource) for one in applied if isinstance(one, LockRequest | LockConvert)}
    together = [one for one in applied if isinstance(one, LockRequests)]
    asked |= {(one.lockspace, resource) for one in together for resource in one.resources}
    asked |= _deferred(before, me)
    cancelled = {(one.lockspace, one.resource) for one in applied if isinstance(one, LockCancel)}
    for where in sorted(asked - answered - _deferred(after, me)):
        lock = _lock(after, where, me)
        if lock is not None and lock.wanted is not Mode.UN:
            continue  # it waits
        # Asked, and neither granted nor waiting: it was taken back or refused.
        held = lock.held if lock else Mode.UN
        took_back = where in cancelled
        yield [LockFact(*where, Cancelled(me, held) if took_back else Refused(me, errno.EAGAIN))]


def noticed(state: ClusterState, me: int) -> list[LockFact]:
    """What others want of the locks that node `me` had under an earlier life, and that life was told."""
    facts: list[LockFact] = []
    for name, space in sorted(state.lockspaces.items()):
        for resource in space.resources.of(me):
            lock = resource.find(me)
            assert lock is not None
            if lock.notified is not Mode.UN:
                facts.append(LockFact(name, resource.name, Blocking(me, lock.notified)))
            if lock.tried is not Mode.UN:
                facts.append(LockFact(name, resource.name, Blocking(me, lock.tried, tries=True)))
    return facts


def _deferred(state: ClusterState, me: int) -> set[tuple[str, str]]:
    """What `me` has asked for and a frozen lockspace keeps for later."""
    return {
        (name, op.resource)
        for name, space in state.lockspaces.items()
        for op in space.deferred.values()
        if op.owner == me and op.kind in (OpKind.REQUEST, OpKind.CONVERT)
    }


def _mine(before: ClusterState, after: ClusterState, me: int) -> Iterator[tuple[str, str]]:
    """Where `me` has a lock in either state, each once."""
    for state in (before, after):
        for name, space in sorted(state.lockspaces.items()):
            for resource in space.resources.of(me):
                where = (name, resource.name)
                if state is before or _lock(before, where, me) is None:
                    yield where


def _resource(state: ClusterState, where: tuple[str, str]) -> Resource | None:
    space = state.lockspaces.get(where[0])
    return space.resources.get(where[1]) if space else None


def _lock(state: ClusterState, where: tuple[str, str], me: int) -> Lock | None:
    resource = _resource(state, where)
    return resource.find(me) if resource else None


def _difference(
    where: tuple[str, str], resource: Resource | None, old: Lock | None, new: Lock | None
) -> list[Fact]:
    if new is None:
        assert old is not None
        gone = Released(old.owner) if old.held is not Mode.UN else Cancelled(old.owner, Mode.UN)
        return [LockFact(*where, gone)]
    assert resource is not None
    facts: list[Fact] = []
    if new.wanted is Mode.UN and (old is None or new.token != old.token):
        value = resource.lvb if resource.lvb_valid else None
        granted = Granted(new.owner, new.held, value, resource.lvb_valid)
        facts.append(LockFact(*where, granted, new.token))
    elif new.wanted is Mode.UN and old is not None and old.wanted is not Mode.UN:
        facts.append(LockFact(*where, Cancelled(new.owner, new.held)))
    if new.notified is not Mode.UN and (old is None or old.notified is not new.notified):
        facts.append(LockFact(*where, Blocking(new.owner, new.notified)))
    if new.tried is not Mode.UN and (old is None or old.tried is not new.tried):
        facts.append(LockFact(*where, Blocking(new.owner, new.tried, tries=True)))
    return facts
