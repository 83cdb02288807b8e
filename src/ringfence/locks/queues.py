"""What a resource consists of, and what is said about it: values.

The rules are `resource`'s and `local`'s.  What is here is also what the ordered state's bytes and digest
are made of (`Lock`, `Queues`): docs/formats/wire.md says what may be changed about it."""

import enum
from typing import Final

import msgspec

from ringfence.core.ids import Token
from ringfence.core.modes import UN, Mode
from ringfence.locks.flags import LVB_BYTES

EMPTY_LVB = bytes(LVB_BYTES)


class Lock(msgspec.Struct, gc=False, omit_defaults=True):
    owner: int
    held: Mode = UN
    """UN while it waits."""
    wanted: Mode = UN
    """UN once it is granted."""
    flags: int = 0
    """Of the operation in flight; of what is granted, AHEAD."""
    token: Token | None = None
    """Stamped by the caller on each grant."""
    since_ms: int = 0
    """When the present mode was granted; while waiting, when it was asked for."""
    notified: Mode = UN
    """The weakest mode that covers all it was told others want.  Reset by a grant."""
    tried: Mode = UN
    """The same for tries."""


class _Effect(msgspec.Struct, frozen=True, tag=True):
    owner: int


class Granted(_Effect, frozen=True):
    mode: Mode
    lvb: bytes | None = None
    """The value read with this grant; None if nothing was read or it is not valid."""
    lvb_valid: bool = True
    demoted: bool = False
    altmode: bool = False
    """It is the alternative mode, not the one that was wanted."""


class Queued(_Effect, frozen=True):
    """Not a completion: one will follow."""

    blockers: tuple[int, ...] = ()


class Refused(_Effect, frozen=True):
    """Nothing was changed.

    errno: EAGAIN (NOQUEUE and it cannot be granted now), EDEADLK, EINVAL (flags, mode, or a second lock
    of one holder), EBUSY (an operation is in flight), ENOENT (no such lock)."""

    errno: int
    blockers: tuple[tuple[int, Mode], ...] = ()
    """Who is in the way, with the mode held; UN: it holds nothing and only queues ahead."""


class Blocking(_Effect, frozen=True):
    """The blocking notice (BAST): somebody wants a mode that this holder keeps from it.

    UN takes back what was noticed before: nobody waits for this holder any more."""

    wants: Mode
    tries: bool = False
    """It is a try: answer with `busy` if the mode held is needed."""
    once: bool = False
    """It was refused (NOQUEUEBAST): nobody waits for an answer, and nothing will take this back."""


class Released(_Effect, frozen=True):
    pass


class Cancelled(_Effect, frozen=True):
    """The operation in flight was taken back; `held` as before it (UN: no lock)."""

    held: Mode = UN


Effect = Granted | Queued | Refused | Blocking | Released | Cancelled


class Queues(msgspec.Struct, gc=False, omit_defaults=True):
    """One resource.  A lock is in one queue."""

    name: str
    granted: tuple[Lock, ...] = ()
    converting: tuple[Lock, ...] = ()
    waiting: tuple[Lock, ...] = ()
    lvb: bytes = EMPTY_LVB
    lvb_valid: bool = True
    lvb_seq: int = 0
    """Counts writes; a write is also all that makes the LVB valid again."""
    stirred: bool = False
    """Something left a queue and nobody was let go on: `advance` is due."""


class OpKind(enum.Enum):
    REQUEST = "request"
    CONVERT = "convert"
    UNLOCK = "unlock"
    CANCEL = "cancel"
    BUSY = "busy"
    """What the owner holds is needed: it is not AHEAD any more, and tries in whose way it is are refused."""


REQUEST: Final = OpKind.REQUEST
CONVERT: Final = OpKind.CONVERT
UNLOCK: Final = OpKind.UNLOCK
CANCEL: Final = OpKind.CANCEL
BUSY: Final = OpKind.BUSY
"""By their names alone: see `core.modes.UN`."""


class Outstanding(msgspec.Struct, gc=False):
    """The cluster operation whose answer this node waits for."""

    kind: OpKind
    mode: Mode
    flags: int = 0
    raises: bool = False
    """It asks for more, or for a fresh value; else it gives back."""
    client: int | None = None
    """For whom it was asked; None once that client has withdrawn."""
    readers: tuple[int, ...] = ()
    """Clients that were queued when it was sent: its answer's value is new enough for them."""
    cancelled: bool = False
    refused_early: Mode = UN
    """What others were refused (NOQUEUEBAST) for the sake of this grant."""
    queued: bool = False
    """Others were in its way, so that it had to wait."""
    yielded: bool = False
    """It was taken back for the sake of other nodes: lower before anything else is asked."""


class LocalQueues(Queues, gc=False):
    """One resource inside a node, under the node's own cluster lock."""

    ceiling: Mode = UN
    """The node's cluster lock; while that is being lowered, what it is lowered to."""
    asked: Mode = UN
    """The weakest mode that covers what other nodes wait for; UN: none does."""
    noticed: Mode = UN
    """The same without mere tries: of a try that may be refused its holders are not told (lock.c)."""
    tried: Mode = UN
    """What other nodes try for, and have not been told that it is needed here."""
    caching: tuple[int, ...] = ()
    """Clients that may keep a lock unused; asked with a notice of a try, they release or say `busy`."""
    fresh: tuple[int, ...] | None = None
    """A cluster grant has just arrived: those who queued before it come before the other nodes, and for
    these clients the value block was read after they had asked."""
    outstanding: Outstanding | None = None
    settled: tuple[int, ...] = ()
    """Clients whose wish the cluster could not grant at once: they take the alternative that they named."""
    hold_until_ms: int = 0
    """The end of the minimum hold time, on the caller's clock: until it is set to 0, new clients are let in
    under the present ceiling though others wait."""
    nudged: dict[int, Mode] | None = None
    """The weakest mode that covers what each client was told of as refused, until its next grant."""
