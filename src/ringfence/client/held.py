"""What a client knows of a lock that it took: the part that waits for nothing, in both clients."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ringfence.client.messages import NODE_LOST, Grant, ended, grant_of, lock_lost, result_of
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.wire.client import Reply

if TYPE_CHECKING:
    from ringfence.client.cache import Entry

OnBlocking = Callable[[Mode], object]
"""Called with the mode that somebody is kept waiting for by this lock."""
OnLost = Callable[[], object]
"""Called when the lock is gone: stop using what it protects, at once."""


class HeldLock:
    """The facts of one lock.  Fulfils `link.Holder`."""

    def __init__(
        self, lockspace: str, resource: str, on_blocking: OnBlocking | None, on_lost: OnLost | None
    ) -> None:
        self.lockspace = lockspace
        self.resource = resource
        self._on_blocking = on_blocking
        self._on_lost = on_lost
        self._grant: Grant | None = None
        self._entry: Entry | None = None
        """Of a cached lock: what it is a use of."""
        self._lost = ""

    @property
    def what(self) -> str:
        """LOCKSPACE/RESOURCE, as `ringfence why` takes it."""
        return f"{self.lockspace}/{self.resource}"

    @property
    def mode(self) -> Mode:
        """UN once it is unlocked or lost."""
        return self._grant.mode if self._grant is not None and not self._lost else Mode.UN

    @property
    def token(self) -> Token:
        """The newest grant's fencing token, for whatever storage can check it.

        Returns: a value that never goes back for this resource, whoever holds it.  Clients of one node
        that follow one another under the node's lock, and uses of a cached lock, share one.

        Raises:
            LocksLost: the lock is gone; stop using what it protects.
            BadInput: it has been unlocked; ask for it again.

        Source: docs/ARCHITECTURE.md, "Authority"; Kleppmann, "How to do distributed locking"."""
        return self._granted().token

    @property
    def lvb(self) -> bytes | None:
        """The value block, 32 bytes, as the newest grant read it.

        Returns: None if that grant read none (a conversion downward) or the value is not valid: whoever
        could write it was lost.

        Raises as `token`.

        Source: Linux fs/dlm/lock.c `dlm_lvb_operations`."""
        return self._granted().lvb

    def use(self, entry: "Entry", grant: Grant) -> None:
        """Hold it as one use of a cached lock.  Called by the cache."""
        self._entry, self._grant = entry, grant

    def told(self, lock: int, result: dict[str, Any]) -> None:
        """A word about the lock, called by whoever reads the link."""
        if result.get("lost"):
            self.lose(NODE_LOST)
        elif self._on_blocking is not None and result.get("blocking") in Mode.__members__:
            self._call(self._on_blocking, Mode[result["blocking"]])

    def lose(self, why: str) -> None:
        if self._lost:
            return
        self._lost = why
        if self._on_lost is not None and self._grant is not None:
            self._call(self._on_lost)

    def _converted(self, reply: Reply) -> None:
        """A conversion's answer.  One that failed, too, says what is held if that is not what was held before
        (CONVDEADLK).  Raises its error."""
        if reply.error is None or reply.result is not None:
            self._grant = grant_of(reply.result)
        result_of(reply)

    def _call(self, callback: Callable[..., object], *words: Mode) -> None:
        """Somewhere it may wait."""
        raise NotImplementedError

    def _granted(self) -> Grant:
        if self._lost:
            raise lock_lost(self.what, self._lost)
        if self._grant is None:
            raise ended(self.what)
        return self._grant
