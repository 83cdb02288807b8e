"""What users of locks have here: values.  `locker` and `client_locks` act on them."""

from collections.abc import Callable

import msgspec

from ringfence.core.errors import RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.orders import Held

Done = Callable[[Held | RingfenceError | None], None]
"""Called once with what is held now (None: nothing any more), or with why not."""


class Owner(msgspec.Struct, frozen=True):
    """On whose behalf a lock is held or asked for: while it waits for one it lets go of no other."""

    name: str
    who: str = ""
    """For people: the client's process, or the command."""
    named: bool = False
    """Its clients gave it this name, which means the same owner on every node."""


class Use(msgspec.Struct, gc=False):
    lock: int
    lockspace: str
    resource: str
    named: str
    """For people, "LV vg0/vm1"; empty: lockspace and resource say it all."""
    wanted: Mode
    done: Done | None
    """Of the operation in flight; None: nothing is in flight."""
    deadline_ns: int | None = None
    held: Held | None = None
    trying: bool = False
    since_wall_ms: int = 0
    client: int = 0
    """The connection it belongs to; 0: none, it is a command's."""
    owner: Owner | None = None
    deadlock: bool = False
    """The operation in flight is rather refused than left to wait in a ring."""
    operation: int = 0
    """Given when a search for deadlocks first sees this grant or this wish; 0 before."""
    by_lvm2: bool = False
    """Stock LVM2 asked for it, through lvmlockd's socket."""
    process: tuple[int, int] = (0, 0)
    """The command of LVM2 that asked: its pid, and when it started (`wire.lvmlockd.LvmAsked`)."""

    @property
    def what(self) -> str:
        return self.named or f"{self.lockspace}/{self.resource}"


class Owned(msgspec.Struct, gc=False):
    """What a client's connection has, or asks for."""

    request: str
    """The request that took it: notices go out under its id."""
    notices: bool
    lock: int = 0
    """0: it is being asked for."""
    converting: str = ""
    """The request of the conversion in flight."""
    cached: bool = False
    unanswered: int = 0
    """What a client that caches was told and has not answered (a bit each): it is not told again, so that
    one that stands still is owed no more than two words a lock."""
    asked_ms: int = 0
    """When it was last told, on the wall clock."""
    needed: bool = False
    """It has said `Busy` since this node last wanted to leave."""
