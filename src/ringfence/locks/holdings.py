"""What a node has of one resource, and what is told of it: values.  The rules are `node_lock`'s."""

import enum
from typing import TYPE_CHECKING, Final

import msgspec

from ringfence.core.ids import Token
from ringfence.core.modes import UN, Mode
from ringfence.locks.outs import ClientBlocking, ClientGranted, ClientReleased

if TYPE_CHECKING:
    from ringfence.locks.local import Local


class Keep(enum.Enum):
    """For how long a node has a cluster lock that its clients do not need."""

    UNTIL_ASKED = "until asked"
    """Until another node asks for it."""
    UNTIL_UNUSED = "until unused"
    """Until its last client has gone.  The node had to wait for it: others want it, too, and may be about to
    ask again."""
    NEVER = "never"
    """Its clients are told that they have released it when the cluster knows."""


UNTIL_ASKED: Final = Keep.UNTIL_ASKED
UNTIL_UNUSED: Final = Keep.UNTIL_UNUSED
NEVER: Final = Keep.NEVER
"""By their names alone: see `core.modes.UN`."""


class Holding(msgspec.Struct, gc=False, eq=False):
    """A struct for its size: a node may keep a million of these."""

    lockspace: str
    local: "Local"
    held: Mode = UN
    """The node's lock in the ordered state, as of the last answer."""
    token: Token | None = None
    keep: Keep = Keep.UNTIL_ASKED
    ahead: bool = False
    """It was asked for ahead, and the ordered state has not been told that a client uses it."""
    _unwritten: bool = False
    """A client wrote the value block (or spoiled it), and the cluster does not know yet."""
    _withheld: tuple[ClientReleased | ClientGranted | ClientBlocking, ...] = ()
    """Answers to be told when the cluster knows what was given back or written."""


class Place(msgspec.Struct, frozen=True):
    """Where a client's wish stands on its node."""

    heads: bool
    """The node asks the cluster for its sake."""
    behind: tuple[int, ...]
    """Clients queued right before it; those who will not wait, or pass the order, and who is before them."""
    shut_out: bool
    """Other nodes wait for this one, and no new client comes before them."""


class Row(msgspec.Struct, frozen=True):
    """A line of `ringfence locks`.  A kept lock without clients has one row without a lock_id."""

    lockspace: str
    resource: str
    lock_id: int | None
    held: Mode
    wanted: Mode
    cluster_held: Mode
    kept: bool
    """The node holds more than its clients need."""
    since_ms: int = 0
    token: Token | None = None
    orphan: bool = False
