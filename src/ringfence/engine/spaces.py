"""Lockspaces of the ordered state: who is in, what is asked of their locks, which token a grant bears."""

import errno
import functools
from typing import Any

from ringfence.core.ids import Life, Token
from ringfence.engine.facts import Fact, JoinDone, JoinSeen, LockFact, LockFacts, Retokened, SpaceLeft
from ringfence.engine.state import ClusterState
from ringfence.locks.flags import Flag, valid_request
from ringfence.locks.lockspace import Lockspace, Op
from ringfence.locks.queues import BUSY, CANCEL, CONVERT, EMPTY_LVB, REQUEST, UNLOCK, OpKind
from ringfence.locks.resource import Effect as LockEffect
from ringfence.locks.resource import Granted, Refused, Released
from ringfence.wire import entries


def _lock_op(state: ClusterState, life: Life, entry: Any, kind: OpKind) -> list[Fact]:
    space = state.lockspaces.get(entry.lockspace)
    if space is None or not state.member(space.name, life.node):
        return [_no_space(state, entry, life.node)]
    op = Op(
        kind=kind,
        resource=entry.resource,
        owner=life.node,
        mode=getattr(entry, "mode", None),
        flags=getattr(entry, "flags", 0),
        lvb=getattr(entry, "lvb", None),
        now_ms=state.wall_ms,
    )
    if state.blocking(space.name):
        return stamp(state, space, space.defer(op))
    return stamp(state, space, space.apply(op))


def _no_space(state: ClusterState, entry: Any, node: int) -> Fact:
    return LockFact(entry.lockspace, entry.resource, Refused(node, errno.ENOENT))


def stamp(state: ClusterState, space: Lockspace, effects: list[tuple[str, LockEffect]]) -> list[Fact]:
    """Give each grant its token: (epoch, position), a new position for every grant."""
    facts: list[Fact] = []
    for resource, effect in effects:
        token = None
        if isinstance(effect, Granted):
            token = _next_token(state)
            lock = space.resources[resource].find(effect.owner)
            assert lock is not None
            lock.token = token
        facts.append(LockFact(space.name, resource, effect, token))
    return facts


def _next_token(state: ClusterState) -> Token:
    state.position += 1
    return Token(state.epoch.seq, state.epoch.rep, state.position)


def _next_tokens(state: ClusterState, count: int) -> list[Token]:
    seq, rep, first = state.epoch.seq, state.epoch.rep, state.position + 1
    state.position += count
    return [Token(seq, rep, position) for position in range(first, first + count)]


def lock_request(state: ClusterState, life: Life, entry: entries.LockRequest) -> list[Fact]:
    return _lock_op(state, life, entry, REQUEST)


def lock_convert(state: ClusterState, life: Life, entry: entries.LockConvert) -> list[Fact]:
    return _lock_op(state, life, entry, CONVERT)


def lock_unlock(state: ClusterState, life: Life, entry: entries.LockUnlock) -> list[Fact]:
    """What one other node waits for is handed on to it in one go, the rest goes by the rules."""
    node, space = life.node, state.lockspaces.get(entry.lockspace)
    frozen = bool(state.domain.victims)  # or some lockspace is
    plain = not (entry.flags or frozen) and entry.lvb is None
    if plain and space is not None and node in space.members:
        heir = space.hand_on(entry.resource, node, state.wall_ms)
        if heir is not None:
            lock, granted = heir
            lock.token = token = _next_token(state)
            return [
                LockFact(space.name, entry.resource, Released(node)),
                LockFact(space.name, entry.resource, granted, token),
            ]
    return _lock_op(state, life, entry, UNLOCK)


def lock_cancel(state: ClusterState, life: Life, entry: entries.LockCancel) -> list[Fact]:
    return _lock_op(state, life, entry, CANCEL)


def lock_busy(state: ClusterState, life: Life, entry: entries.LockBusy) -> list[Fact]:
    if not state.member(entry.lockspace, life.node):
        return []  # it was purged meanwhile; nobody waits for this answer
    return _lock_op(state, life, entry, BUSY)


def lock_requests(state: ClusterState, life: Life, entry: entries.LockRequests) -> list[Fact]:
    """As many `lock_request`s; what nobody has yet is granted in one go, the rest by the rules."""
    node, mode, flags, names = life.node, entry.mode, entry.flags, entry.resources
    space = state.lockspaces.get(entry.lockspace)
    plain = space is not None and _runs(state, space, node) and valid_request(mode, flags, None)
    facts: list[Fact] = []
    at = 0
    while at < len(names):
        if plain and space is not None:
            next_tokens = functools.partial(_next_tokens, state)
            tokens = space.request_new(names[at:], node, mode, flags, state.wall_ms, next_tokens)
            if tokens:
                granted = Granted(node, mode, EMPTY_LVB if flags & Flag.VALBLK else None)
                some = names[at : at + len(tokens)]
                facts.append(LockFacts(space.name, some, granted, tuple(tokens)))
                at += len(tokens)
                continue
        one = entries.LockRequest(entry.lockspace, names[at], mode, flags)
        facts += lock_request(state, life, one)
        at += 1
    return facts


def lock_unlocks(state: ClusterState, life: Life, entry: entries.LockUnlocks) -> list[Fact]:
    """As many `lock_unlock`s; what nobody else has to do with ends in one go, the rest by the rules."""
    node, names = life.node, entry.resources
    space = state.lockspaces.get(entry.lockspace)
    plain = space is not None and _runs(state, space, node)
    facts: list[Fact] = []
    at = 0
    while at < len(names):
        count = space.unlock_alone(names[at:], node) if plain and space is not None else 0
        if count:
            facts.append(LockFacts(entry.lockspace, names[at : at + count], Released(node)))
            at += count
        else:
            facts += lock_unlock(state, life, entries.LockUnlock(entry.lockspace, names[at]))
            at += 1
    return facts


def locks_busy(state: ClusterState, life: Life, entry: entries.LocksBusy) -> list[Fact]:
    facts: list[Fact] = []
    for name in entry.resources:
        facts += lock_busy(state, life, entries.LockBusy(entry.lockspace, name))
    return facts


def _runs(state: ClusterState, space: Lockspace, node: int) -> bool:
    """Whether what this node asks of the lockspace is carried out at once."""
    return state.member(space.name, node) and not state.blocking(space.name)


def retoken(state: ClusterState, life: Life, entry: entries.Retoken) -> list[Fact]:
    space = state.lockspaces.get(entry.lockspace)
    resource = space.resources.open(entry.resource) if space else None
    lock = resource.find(life.node) if resource and state.member(entry.lockspace, life.node) else None
    if lock is None or lock.token is None:
        return []
    lock.token = _next_token(state)
    return [Retokened(entry.lockspace, entry.resource, life.node, lock.token)]


def join(state: ClusterState, life: Life, entry: entries.JoinLockspace) -> list[Fact]:
    name = entry.lockspace
    space = state.lockspaces.get(name)
    if space is not None and state.member(name, life.node) and life.node not in space.joining:
        return [JoinDone(name, life.node)]
    waits = bool(state.blocking(name)) or state.being_cut(life)
    if waits or (name, life.node) in state.pending_joins:
        if (name, life.node) not in state.pending_joins:
            state.pending_joins.append((name, life.node))
        return []
    return _enter_space(state, name, life)


def _enter_space(state: ClusterState, name: str, life: Life) -> list[Fact]:
    space = state.lockspaces.setdefault(name, Lockspace(name=name))
    space.members = sorted({*space.members, life.node})
    waiting_for = [node for node in state.ready if node != life.node]
    if not waiting_for:
        return [JoinDone(name, life.node)]
    space.joining[life.node] = waiting_for
    return [JoinSeen(name, life)]


def ack_join(state: ClusterState, life: Life, entry: entries.AckJoin) -> list[Fact]:
    space = state.lockspaces.get(entry.lockspace)
    joiner = entry.life.node
    if space is None or state.lives.get(joiner) != entry.life or joiner not in space.joining:
        return []
    return acknowledged(state, space, life.node, joiner)


def acknowledged(state: ClusterState, space: Lockspace, node: int, only: int | None = None) -> list[Fact]:
    """`node` has acknowledged, or is gone and need not."""
    facts: list[Fact] = []
    for joiner in sorted(space.joining):
        if only is not None and joiner != only:
            continue
        missing = [one for one in space.joining[joiner] if one != node]
        space.joining[joiner] = missing
        if not missing and joiner != node:
            del space.joining[joiner]
            facts.append(JoinDone(space.name, joiner))
    return facts


def leave_space(state: ClusterState, life: Life, entry: entries.LeaveLockspace) -> list[Fact]:
    name, node = entry.lockspace, life.node
    space = state.lockspaces.get(name)
    if space is None or not state.member(name, node):
        return [SpaceLeft(name, node)]
    if state.blocking(name):
        return [SpaceLeft(name, node, f"lockspace {name} is frozen until a lost node is fenced")]
    if any(space.resources.of(node)):
        return [SpaceLeft(name, node, f"{state.name(node)} still holds locks in {name}")]
    space.members.remove(node)
    facts = acknowledged(state, space, node)
    space.joining.pop(node, None)
    if not space.members:
        del state.lockspaces[name]
    return [*facts, SpaceLeft(name, node)]


def late_joins(state: ClusterState) -> list[Fact]:
    facts: list[Fact] = []
    waiting, state.pending_joins = state.pending_joins, []
    for name, node in waiting:
        life = state.lives.get(node)
        if life is None:
            continue  # it left meanwhile; its next life asks again
        if state.blocking(name) or state.being_cut(life):
            state.pending_joins.append((name, node))
        else:
            facts += _enter_space(state, name, life)
    return facts
