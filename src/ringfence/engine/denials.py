"""What the user of a lock is told whose wish is not granted: who is in the way, and what to do next.

It looks, and changes nothing."""

import errno

from ringfence.core.errors import (
    BadInput,
    Deadlock,
    LockHeld,
    LocksLost,
    NotFound,
    Refused,
    RingfenceError,
    TimedOut,
)
from ringfence.core.locknames import VG_SPACE
from ringfence.core.modes import UN, Mode
from ringfence.engine.context import Context
from ringfence.engine.uses import Use
from ringfence.locks.compat import compatible
from ringfence.locks.node_locks import ClientRefused, NodeLocks, Row
from ringfence.locks.resource import Resource


class Denials:
    def __init__(self, context: Context, node_locks: NodeLocks) -> None:
        self._context = context
        self._node_locks = node_locks

    def frozen(self, lockspace: str) -> str:
        """Why nothing is granted in this lockspace now, or empty."""
        context = self._context
        state = context.running
        if state is None:
            return f"{context.name(context.me)} cannot act now: {context.phase.value}"
        blocking = state.blocking(lockspace)
        if blocking:
            names = ", ".join(dict.fromkeys(context.name(victim.life.node) for victim in blocking))
            return f"lockspace {lockspace} is frozen until {names} is fenced"
        return ""

    def leaves(self, use: Use) -> RingfenceError:
        """This node is about to leave the lockspace."""
        me = self._context.name(self._context.me)
        return Refused(f"{use.what}: {me} leaves the lockspace", next=join_of(use.lockspace), retry=True)

    def lapsed(self, use: Use) -> RingfenceError:
        me = self._context.name(self._context.me)
        return Refused(f"{use.what}: {me} has no authority now", next=why_of(use), retry=True)

    def now(self, use: Use) -> RingfenceError | None:
        """Of a try, which does not wait for a cluster that cannot answer.  None: it can."""
        frozen = self.frozen(use.lockspace)
        return Refused(f"{use.what}: {frozen}", next=why_of(use), retry=True) if frozen else None

    def of(self, use: Use, out: ClientRefused) -> RingfenceError:
        """What the rules of the lock queues refuse, or another node."""
        if out.errno == errno.EAGAIN:
            return self._held_by(use, out.holders, LockHeld)
        if out.errno == errno.EDEADLK:
            return Deadlock(
                f"{use.what}: to wait for it would be a deadlock", next="release a lock, then try again"
            )
        if out.errno == errno.ENOENT:
            return NotFound(
                f"{use.what}: {self._context.name(self._context.me)} is not in lockspace {use.lockspace}",
                next=join_of(use.lockspace),
            )
        if out.errno == errno.EINVAL:
            return wrong_flags(use)
        return Refused(f"{use.what}: {errno.errorcode.get(out.errno, out.errno)}", retry=True)

    def _held_by(
        self, use: Use, holders: tuple[tuple[int, Mode], ...], kind: type[RingfenceError]
    ) -> RingfenceError:
        if not holders and not self._in_the_way_here(use):
            holders = self.others_waiting(use)
            if not holders and kind is TimedOut:
                words = f"{use.what}: the cluster has not answered yet"
                return kind(words, next=why_of(use), retry=True)
        if not holders:
            others = self.others_here(use)
            conflict = any(not compatible(row.held, use.wanted) for row in others)
            if not conflict and any(row.wanted is not UN for row in others):
                words = f"{use.what}: another client of this node waits for it, and comes first"
            else:
                words = f"{use.what} is in use here, by another client of this node"
            return kind(words, next=why_of(use), retry=True)
        first = self._context.name(holders[0][0])
        return kind(self._told_of(use, holders), node=first, next=why_of(use), retry=True)

    def _told_of(self, use: Use, holders: tuple[tuple[int, Mode], ...]) -> str:
        """Each holder under its own mode; who has nothing worth the name merely comes first."""
        names: dict[Mode, list[str]] = {}
        for node, mode in holders:
            names.setdefault(mode if mode > Mode.NL else UN, []).append(self._context.name(node))
        waiting = names.pop(UN, [])
        wait = f"{', '.join(waiting)} {'waits' if len(waiting) == 1 else 'wait'} for it" if waiting else ""
        if not names:
            return f"{use.what}: {wait}"
        held = ", ".join(f"{mode.name} by {', '.join(some)}" for mode, some in names.items())
        return f"{use.what} is held {held}{'; ' if wait else ''}{wait}"

    def too_late(self, use: Use) -> RingfenceError:
        """Its time is over."""
        frozen = self.frozen(use.lockspace)
        if frozen:
            kind = Refused if use.trying else TimedOut
            return kind(f"{use.what}: {frozen}", next=why_of(use), retry=True, code=TimedOut.code)
        holders = self._in_the_way(use)
        if use.trying and holders:
            names = ", ".join(self._context.name(node) for node, _ in holders)
            node = self._context.name(holders[0][0])
            words = f"{use.what}: {names} does not answer whether it needs its lock"
            return Refused(words, node=node, next=why_of(use), retry=True, code=TimedOut.code)
        return self._held_by(use, holders, TimedOut)

    def _in_the_way(self, use: Use) -> tuple[tuple[int, Mode], ...]:
        resource = self._resource(use)
        if resource is None:
            return ()
        return tuple(
            (lock.owner, lock.held)
            for lock in (*resource.granted, *resource.converting)
            if lock.owner != self._context.me and not compatible(lock.held, use.wanted)
        )

    def _in_the_way_here(self, use: Use) -> bool:
        """Whether a client of this node holds what conflicts, or waits where no other node does."""
        others = self.others_here(use)
        if any(not compatible(row.held, use.wanted) for row in others):
            return True
        return not self.others_waiting(use) and any(row.wanted is not UN for row in others)

    def others_here(self, use: Use) -> list[Row]:
        """What other clients of this node hold of it, and wait for."""
        rows = self._node_locks.rows(use.lockspace, use.resource)
        return [row for row in rows if row.lock_id not in (None, use.lock)]

    def others_waiting(self, use: Use) -> tuple[tuple[int, Mode], ...]:
        """Other nodes that may come before it, though nobody's lock is in its way."""
        resource = self._resource(use)
        if resource is None:
            return ()
        queued = (*resource.converting, *resource.waiting)
        return tuple((lock.owner, UN) for lock in queued if lock.owner != self._context.me)

    def _resource(self, use: Use) -> Resource | None:
        state = self._context.state
        space = state.lockspaces.get(use.lockspace) if state else None
        return space.resources.get(use.resource) if space else None


def not_waited_for(use: Use) -> Refused:
    return Refused(f"{use.what} is not waited for any more")


def wrong_flags(use: Use) -> BadInput:
    return BadInput(f"{use.what}: these flags and modes do not go together", next="see dlm_lock(3)")


def lost_error(what: str, node: str) -> LocksLost:
    return LocksLost(
        f"{what}: {node} was given up by the cluster: its locks are lost and its volumes closed",
        node=node,
        next="ringfence status",
    )


def no_orphan(use: Use, number: int) -> RingfenceError:
    if number == errno.EAGAIN:
        return LockHeld(
            f"{use.what}: no orphan here is {use.wanted.name}, those there are have other modes",
            next=f"ringfence locks {use.lockspace}",
        )
    return NotFound(f"{use.what}: there is no orphan of it here", next=f"ringfence locks {use.lockspace}")


def why_of(use: Use) -> str:
    """`why` takes VG/LV as well as LOCKSPACE/RESOURCE."""
    kind, _, name = use.what.partition(" ")
    return f"ringfence why {name if kind == 'LV' else f'{use.lockspace}/{use.resource}'}"


def join_of(lockspace: str) -> str:
    if lockspace.startswith(VG_SPACE):
        return f"vgchange --lockstart {lockspace.removeprefix(VG_SPACE)}"
    return f"join lockspace {lockspace} first"
