"""What a node's locks ask of the cluster and tell its clients."""

import msgspec

from ringfence.core.ids import Token
from ringfence.core.modes import UN, Mode
from ringfence.locks.queues import OpKind


class _Out(msgspec.Struct, frozen=True):
    pass


class AskCluster(_Out, frozen=True):
    """Send this operation of the node into the total order.

    At most one is outstanding for each resource, CANCEL and BUSY apart.  REQUEST, CONVERT and UNLOCK
    have one answer each; CANCEL and BUSY have none of their own."""

    lockspace: str
    resource: str
    kind: OpKind
    mode: Mode = UN
    flags: int = 0
    lvb: bytes | None = None
    unhurried: bool = False
    """Nobody waits for it: a BUSY that may be told later, before anything else is said of this lock."""


class AskMany(_Out, frozen=True):
    """The same operation of each of these resources: REQUEST, or UNLOCK that writes no value block."""

    lockspace: str
    resources: tuple[str, ...]
    kind: OpKind
    mode: Mode = UN
    flags: int = 0


class ClientGranted(_Out, frozen=True, gc=False):
    lock_id: int
    mode: Mode
    token: Token
    """The cluster grant's: clients of one node that follow one another under it share it."""
    lvb: bytes | None = None
    """The newest value; None if this grant reads none, or if it is not valid."""
    lvb_valid: bool = True
    demoted: bool = False
    altmode: bool = False
    """It is the alternative that the client named, not the mode that it wanted."""


class ClientRefused(_Out, frozen=True):
    lock_id: int
    errno: int
    holders: tuple[tuple[int, Mode], ...] = ()
    """Nodes in the way; empty if it is other clients of this node."""


class ClientBlocking(_Out, frozen=True):
    lock_id: int
    wants: Mode
    tries: bool = False
    """Only for a client that caches its lock: release it, or say `busy`."""


class ClientReleased(_Out, frozen=True):
    lock_id: int


class ClientCancelled(_Out, frozen=True):
    lock_id: int
    held: Mode
    """What it holds now; UN: nothing."""


class ClientLost(_Out, frozen=True):
    """The lock, held or waited for, is gone: this life is stale."""

    lock_id: int


ClientOut = ClientGranted | ClientRefused | ClientBlocking | ClientReleased | ClientCancelled | ClientLost
Out = AskCluster | AskMany | ClientOut
