"""What becomes of a stock command's wish for a lock, by what stock commands have of it on this host already.

A *transient* lock is a connection's and ends with it.  A *persistent* one is the host's, an activation;
there is at most one of a resource, whichever command asked for it.

Source: LVM2 daemons/lvmlockd/lvmlockd-core.c, res_process: its stages, in their order."""

import enum

from ringfence.core.modes import Mode


class Ruling(enum.Enum):
    ALREADY = "held in this mode already"
    COVERED = "the activation's lock covers it, and nothing is kept of it"
    SHARED_EXISTS = "the LV is active shared: it cannot be changed"
    OTHER_MODE = "this command holds it in another mode"
    KEEP = "this command's transient lock becomes the activation's"
    CONVERT = "this lock changes its mode"
    SHARED_HERE = "others of this host share it: it cannot become exclusive"
    ASK = "ask for it"


def rule(wanted: Mode, *, persistent: bool, own: Mode, active: Mode, shares: int) -> Ruling:
    """Args:
    wanted: EX or PR.
    persistent: whether it is wanted as an activation's.
    own: what this connection's transient lock holds; UN: it has none.
    active: what the persistent lock holds; UN: there is none.
    shares: how many locks of this host are held PR on the LV; a VG's share is waited for instead: 0."""
    mine = active if persistent else own
    if mine is wanted:
        return Ruling.ALREADY
    if not persistent and active is not Mode.UN:
        return Ruling.COVERED if active in (Mode.EX, wanted) else Ruling.SHARED_EXISTS
    if persistent and own is not Mode.UN:
        return Ruling.KEEP if own is wanted else Ruling.OTHER_MODE
    if mine is Mode.UN:
        return Ruling.ASK
    return Ruling.SHARED_HERE if wanted is Mode.EX and shares > 1 else Ruling.CONVERT
