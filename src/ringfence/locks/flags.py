"""Flags of lock operations, with the DLM's numbers, and which of them may go together.

Source: Linux include/uapi/linux/dlmconstants.h; the checks are those of fs/dlm/lock.c
`set_lock_args` and `set_unlock_args`."""

from typing import Final

from ringfence.core.modes import UN, Mode

LVB_BYTES = 32


class Flag:
    """Plain numbers: they are tested a dozen times for each lock, and an enum's `&` is ten times slower."""

    NOQUEUE: Final = 0x1
    """Refuse with EAGAIN rather than queue."""
    CANCEL: Final = 0x2
    """Of an unlock: take back what waits or converts; nothing held is given up."""
    CONVERT: Final = 0x4
    VALBLK: Final = 0x8
    """Read the value block with the grant, or write it, as the pair of modes says."""
    QUECVT: Final = 0x10
    """A conversion does not pass those that are queued (Davis 6-7)."""
    IVVALBLK: Final = 0x20
    """Where the value block would be written, mark it as not valid instead."""
    CONVDEADLK: Final = 0x40
    """Give up the held mode (to NL) rather than be refused with EDEADLK."""
    PERSISTENT: Final = 0x80
    """The lock stays as an orphan if its client ends without unlocking it."""
    NODLCKWT: Final = 0x100
    """Queue a conversion even if it deadlocks; whoever asked sorts it out."""
    NODLCKBLK: Final = 0x200
    """Taken and of no effect, as in the DLM."""
    EXPEDITE: Final = 0x400
    """Grant a new NL lock past every queue (Davis 6-11)."""
    NOQUEUEBAST: Final = 0x800
    """Beside NOQUEUE: if it is refused, those in its way hear of it all the same."""
    HEADQUE: Final = 0x1000
    """Queue at the head."""
    NOORDER: Final = 0x2000
    """Grant as soon as nobody's held mode conflicts, whatever the queues' order."""
    ORPHAN: Final = 0x4000
    """Take over an orphan of this name and mode."""
    ALTPR: Final = 0x8000
    """Where the mode wanted cannot be granted at once, PR will do."""
    ALTCW: Final = 0x10000
    """Where the mode wanted cannot be granted at once, CW will do."""
    FORCEUNLOCK: Final = 0x20000
    """Unlock also what waits or converts."""
    TIMEOUT: Final = 0x40000
    """Deprecated in the DLM; here only beside a time limit of the request, which is what counts."""
    YIELDS: Final = 0x1000000
    """Not the DLM's.  A node's conversion for the sake of one of its waiting clients: the node withdraws
    it when its held mode is in somebody's way, so it takes no part in deadlocks."""
    TRY: Final = 0x2000000
    """Not the DLM's, and only beside NOQUEUE.  A node's try for a client, where nodes keep locks that
    nobody uses: it waits, if nobody else does, until every holder in its way has given back or said
    that a client needs it."""
    AHEAD: Final = 0x8000000
    """Not the DLM's, and only beside NOQUEUE.  A node's request for what a client may want soon: granted, it
    is a lock that the node keeps and nobody uses, until the node says BUSY.  What is in its way alone is
    asked first (TRY)."""
    DEMOTED: Final = 0x4000000
    """Not the DLM's, and nobody may ask for it: CONVDEADLK took the mode of the conversion that bears it."""


FLAGS: dict[str, int] = {name: value for name, value in vars(Flag).items() if name.isupper()}
"""By name."""

ALTERNATIVES = Flag.ALTPR | Flag.ALTCW
NODES_OWN = Flag.YIELDS | Flag.TRY | Flag.AHEAD
"""What only a node may say to the cluster, and no client to its node."""
CLIENTS_OWN = Flag.PERSISTENT | Flag.ORPHAN
"""What concerns a client and its node alone: the cluster's holders are nodes, which do not end like that."""

_LOCKING = (
    Flag.NOQUEUE | Flag.VALBLK | Flag.IVVALBLK | Flag.PERSISTENT | Flag.NODLCKWT | Flag.NODLCKBLK
    | Flag.NOQUEUEBAST | Flag.HEADQUE | Flag.NOORDER | Flag.ORPHAN | Flag.ALTPR | Flag.ALTCW
    | Flag.FORCEUNLOCK | Flag.TRY
)  # fmt: skip
"""What the DLM takes with any request or conversion, though it may mean nothing there."""
FOR_REQUEST = _LOCKING | Flag.EXPEDITE | Flag.AHEAD
FOR_CONVERT = _LOCKING | Flag.CONVERT | Flag.QUECVT | Flag.CONVDEADLK | Flag.YIELDS
FOR_UNLOCK = Flag.CANCEL | Flag.VALBLK | Flag.IVVALBLK | Flag.FORCEUNLOCK
FOR_CLIENTS = (FOR_REQUEST | FOR_CONVERT | FOR_UNLOCK | Flag.TIMEOUT) & ~NODES_OWN
"""What a client may say at all."""
_BOTH_WAYS = Flag.CANCEL | Flag.FORCEUNLOCK


def _known(flags: int, allowed: int, lvb: bytes | None) -> bool:
    return flags & ~allowed == 0 and (lvb is None or len(lvb) == LVB_BYTES)


def valid_request(mode: Mode | None, flags: int, lvb: bytes | None) -> bool:
    """Whether a new request may carry these flags.

    EXPEDITE goes with NL only and not with NOQUEUE; QUECVT, CONVDEADLK and CONVERT speak of a conversion;
    CANCEL is for unlocking.  TIMEOUT is refused: rules know no time (callers have `wait_ms`)."""
    if mode is None or mode is UN or not _known(flags, FOR_REQUEST, lvb):
        return False
    return not flags & Flag.EXPEDITE or (mode is Mode.NL and not flags & Flag.NOQUEUE)


def valid_convert(held: Mode, mode: Mode | None, flags: int, lvb: bytes | None) -> bool:
    """Whether a conversion may carry these flags.

    EXPEDITE is for new locks.  CONVDEADLK cannot go with NOQUEUE.  QUECVT needs a pair that goes up, or PR
    to CW (lock.c, `__quecvt_compat_matrix`): any other conversion is granted at once and has nothing to
    queue for."""
    if mode is None or mode is UN or not _known(flags, FOR_CONVERT, lvb):
        return False
    if flags & Flag.CONVDEADLK and flags & Flag.NOQUEUE:
        return False
    return not flags & Flag.QUECVT or mode > held or (held, mode) == (Mode.PR, Mode.CW)


def valid_unlock(flags: int, lvb: bytes | None) -> bool:
    """Whether an unlock may carry these flags: to take back and to give up are two things."""
    return _known(flags, FOR_UNLOCK, lvb) and flags & _BOTH_WAYS != _BOTH_WAYS


def alternative(wanted: Mode, flags: int) -> Mode:
    """The mode that may be granted in place of the one wanted; UN: none.

    With both flags ALTPR comes first, but for who wants PR already (lock.c, `can_be_granted`).  NL and CR
    have none: PR and CW shut out more, and can never be granted where they cannot."""
    if wanted <= Mode.CR:
        return UN
    if flags & Flag.ALTPR and wanted is not Mode.PR:
        return Mode.PR
    return Mode.CW if flags & Flag.ALTCW and wanted is not Mode.CW else UN
