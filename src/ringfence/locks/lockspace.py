"""A lockspace of the ordered state: its members, its resources, and what waits while it is frozen.

Pure and serialisable; holders are node ids.  While a member's fate is unproven the caller defers
operations instead of applying them, purges the victim once there is evidence, then resumes.
Purge and resume go on little by little, and nothing else may be done to the lockspace meanwhile.
Nothing is granted between the first and the last of these (design: lockspaces of a victim freeze).

Whoever may grant walks resources in the order of their names: the order of a dict is not part of the
state, and every node must give the same grants the same tokens."""

import errno
from collections.abc import Callable, Collection, Iterator, Sequence

import msgspec

from ringfence.core.errors import BadInput
from ringfence.core.ids import Token
from ringfence.core.locknames import NAME_BYTES, lockspace_name, resource_name
from ringfence.core.modes import UN, Mode
from ringfence.locks.flags import Flag, valid_request
from ringfence.locks.queues import (
    BUSY,
    CANCEL,
    CONVERT,
    REQUEST,
    UNLOCK,
    Cancelled,
    Effect,
    Granted,
    Lock,
    OpKind,
    Refused,
)
from ringfence.locks.resource import Resource, check
from ringfence.locks.table import Resources, check_table


class Op(msgspec.Struct, frozen=True):
    kind: OpKind
    resource: str
    owner: int
    mode: Mode | None = None
    flags: int = 0
    lvb: bytes | None = None
    now_ms: int = 0


def valid_name(resource: str) -> bool:
    """Whether the ordered state takes this for a resource's name: its text (core.locknames), or what an older
    node sends, which knows names of printable text only and asks for no more than 64 bytes of it."""
    if 1 <= len(resource.encode("utf-8", "surrogatepass")) <= NAME_BYTES:
        return True
    try:
        return resource_name(resource) == resource
    except BadInput:
        return False


def check_names(lockspace: str, resource: str) -> None:
    """Raises BadInput unless both are the texts of names (core.locknames)."""
    names = lockspace_name(lockspace), resource_name(resource)
    if names != (lockspace, resource):
        raise BadInput("a name is not written as it should be", next=f"write {' and '.join(names)}")


class Lockspace(msgspec.Struct):
    name: str
    members: list[int] = []
    """Sorted node ids."""
    joining: dict[int, list[int]] = {}
    """Node -> nodes whose acknowledgement of its join is missing."""
    resources: Resources = msgspec.field(default_factory=Resources)
    deferred: dict[tuple[str, int], Op] = {}
    """(resource, owner) -> its operation, in the order of asking."""

    def apply(self, op: Op) -> list[tuple[str, Effect]]:
        """Carry out an operation of a member while the lockspace runs."""
        resource = self.resources.open(op.resource)
        if resource is None:
            if op.kind in (CANCEL, BUSY):
                return []
            if op.kind is not REQUEST:
                return [(op.resource, Refused(op.owner, errno.ENOENT))]
            if not valid_name(op.resource):
                return [(op.resource, Refused(op.owner, errno.EINVAL))]
            resource = self.resources.add(Resource(op.resource))
            if valid_request(op.mode, op.flags, op.lvb):
                assert op.mode is not None
                return [(op.resource, resource.request_alone(op.owner, op.mode, op.flags, op.now_ms))]
        effects = _carry_out(resource, op)
        self._drop_if_empty(resource)
        return [(op.resource, effect) for effect in effects]

    def request_new(
        self,
        names: Sequence[str],
        owner: int,
        mode: Mode,
        flags: int,
        now_ms: int,
        tokens: Callable[[int], list[Token]],
    ) -> list[Token]:
        """`apply` of a member's requests, of names in a row, up to the first that is not of a new resource.

        Each is granted as it is wanted (`Resource.request_alone`).  The caller has found the flags valid.

        Args: tokens: makes those of so many grants.
        Returns: of each that was granted."""
        all_new = self.resources.has_none(names)
        new: dict[str, None] = {}
        for name in names:
            if name in new or not (all_new or name not in self.resources) or not valid_name(name):
                break
            new[name] = None
        stamps = tokens(len(new))
        kept = flags & Flag.AHEAD
        granted = {
            name: Resource(name, (Lock(owner, mode, UN, kept, stamp, now_ms),))
            for name, stamp in zip(new, stamps, strict=True)
        }
        self.resources.put_alone(owner, granted)
        return stamps

    def hand_on(self, name: str, owner: int, now_ms: int) -> tuple[Lock, Granted] | None:
        """`apply` of a member's unlock of what one other waits for: `Resource.hand_on`."""
        resource = self.resources.open(name)
        return None if resource is None else resource.hand_on(owner, now_ms)

    def unlock_alone(self, names: Sequence[str], owner: int) -> int:
        """`apply` of a member's unlocks, of names in a row, up to the first that is not its own alone: nobody
        is told, and the value goes with the resource.  Returns how many."""
        for count, name in enumerate(names):
            if not self.resources.drop_alone(owner, name):
                return count
        return len(names)

    def defer(self, op: Op) -> list[tuple[str, Effect]]:
        """Keep an operation for `resume`: the lockspace is frozen.

        What cannot wait is answered now: a NOQUEUE operation (EAGAIN, with the holders in its way, if
        any), a CANCEL, which takes back the holder's deferred or queued operation, and BUSY."""
        if op.kind is CANCEL:
            return self._cancel_frozen(op)
        if op.kind is BUSY:
            return self._busy_frozen(op)
        if (op.resource, op.owner) in self.deferred:
            return [(op.resource, Refused(op.owner, errno.EBUSY))]
        if op.flags & Flag.NOQUEUE and op.kind is not UNLOCK:
            return [(op.resource, Refused(op.owner, errno.EAGAIN, self._holders_in_the_way(op)))]
        self.deferred[op.resource, op.owner] = op
        return []

    def resume(self, now_ms: int = 0) -> Iterator[list[tuple[str, Effect]]]:
        """The lockspace runs again: grant what the purged left free, then replay what was deferred.

        To be run to its end.  Each item is what came of one resource, which is open until the next."""
        for resource in self.resources.stirred():
            yield [(resource.name, effect) for effect in resource.advance(now_ms)]
        replay, self.deferred = self.deferred, {}
        for op in replay.values():
            effects = self.apply(op)
            for name, effect in effects:
                if isinstance(effect, Granted):
                    # It waits since it was asked for, but holds only since now.
                    self._holder(name, effect.owner).since_ms = max(op.now_ms, now_ms)
            yield effects

    def _holder(self, resource: str, owner: int) -> Lock:
        lock = self.resources[resource].find(owner)
        assert lock is not None, f"{owner} was granted {resource} and does not hold it"
        return lock

    def purge(self, node: int, keep: Collection[str] = ()) -> Iterator[None]:
        """A lost node: its locks and requests vanish.  Nothing is granted until `resume`.

        Of the resources to `keep` it keeps what it holds, and only its wishes vanish.
        To be run to its end."""
        self.deferred = {where: op for where, op in self.deferred.items() if op.owner != node}
        if not keep:
            yield from self.resources.purge(node)
            return
        # Twenty thousand may stay, and of most there is nothing to take: those are only looked at.
        kept = dict.fromkeys(keep)
        names = [one.name for one in self.resources.of(node) if one.name not in kept or _wishes(one, node)]
        for name in names:
            found = self.resources.open(name)
            assert found is not None
            if name in kept:
                found.withdraw(node)
            else:
                found.purge((node,))
                self._drop_if_empty(found)
            yield

    def _drop_if_empty(self, resource: Resource) -> None:
        """The value block needs some lock to live, NL at least."""
        if resource.empty:
            self.resources.drop(resource.name)

    def _cancel_frozen(self, op: Op) -> list[tuple[str, Effect]]:
        resource = self.resources.open(op.resource)
        deferred = self.deferred.get((op.resource, op.owner))
        if deferred is not None and deferred.kind is not UNLOCK:
            del self.deferred[op.resource, op.owner]
            lock = resource.find(op.owner) if resource else None
            return [(op.resource, Cancelled(op.owner, lock.held if lock else UN))]
        if resource is None:
            return []
        taken = resource.withdraw(op.owner)
        self._drop_if_empty(resource)
        return [(op.resource, effect) for effect in taken]

    def _busy_frozen(self, op: Op) -> list[tuple[str, Effect]]:
        resource = self.resources.open(op.resource)
        if resource is None:
            return []
        refused = resource.refuse_tries(op.owner)
        self._drop_if_empty(resource)
        return [(op.resource, effect) for effect in refused]

    def _holders_in_the_way(self, op: Op) -> tuple[tuple[int, Mode], ...]:
        resource = self.resources.get(op.resource)
        if resource is None or op.mode is None:
            return ()
        return resource.holders_against(op.owner, op.mode)


def _carry_out(resource: Resource, op: Op) -> list[Effect]:
    if op.kind is REQUEST:
        return resource.request(op.owner, op.mode, op.flags, op.lvb, op.now_ms)
    if op.kind is CONVERT:
        return resource.convert(op.owner, op.mode, op.flags, op.lvb, op.now_ms)
    if op.kind is UNLOCK:
        return resource.unlock(op.owner, op.flags, op.lvb, op.now_ms)
    if op.kind is BUSY:
        return resource.busy(op.owner, op.now_ms)
    return resource.cancel(op.owner, op.now_ms)


def check_space(space: Lockspace, *, frozen: bool) -> None:
    """Assert what must hold between entries.  A frozen lockspace may have grants pending."""
    assert space.members == sorted(space.members)
    for resource in space.resources.each():
        assert not resource.empty, f"{resource.name} has no lock and is kept"
        for lock in (*resource.granted, *resource.converting, *resource.waiting):
            assert lock.owner in space.members, (
                f"{lock.owner} has a lock of {resource.name} and is no member"
            )
        if not frozen:
            check(resource)
    check_table(space.resources)
    assert frozen or not space.deferred


def _wishes(resource: Resource, node: int) -> bool:
    lock = resource.find(node)
    return lock is not None and lock.wanted is not UN
