"""Every message and entry as a versioned value.  Pure: bytes in, values out, and back.

`entries` are what the cluster state applies; `ring` is how they travel between nodes; `client`,
`block` and `hub` are the local sockets' languages.

Nodes of several versions of ringfence may be in one cluster: each announces which protocols it
speaks, and all speak one of them.  What is promised between protocols stands in docs/formats/wire.md."""

import msgspec


class Speaks(msgspec.Struct, frozen=True, array_like=True):
    """The protocols that a node speaks, both ends included."""

    low: int
    high: int

    def __contains__(self, protocol: int) -> bool:
        return self.low <= protocol <= self.high

    def __str__(self) -> str:
        return f"protocol {self.low}" if self.low == self.high else f"protocols {self.low} to {self.high}"


SPEAKS = Speaks(1, 9)
"""Of this ringfence."""
UNSAID = Speaks(0, 0)
"""Of a node that says nothing of it: it is from before there was more than one.  It calls its protocol 1, but
its state and digests are others than those of protocol 1 as it is now."""
DEADLOCKS = 2
"""From here on: `SearchDeadlock` and `Waits`."""
WHOLE_DLM = 2
"""From here on: between nodes the flags NOQUEUEBAST, ALTPR and ALTCW, and names that are not written as they
are (core.locknames)."""
CHECKUPS = 3
"""From here on: `AskHosts` and `HostSays`."""
CLEAN_STOP = 3
"""From here on: a state that begins afresh believes disks about who has left cleanly."""
WHOLE_PREFIX = 4
"""From here on: `Ready.told`, and with it who lacks the last entries of a state from who has others."""
FENCING = 4
"""From here on: the entries of fence orders, tests, drills, power switched on again, and disk slots."""
REFRESHES = 5
"""From here on: `AskRefresh` and `RefreshTold`."""
AHEAD = 5
"""From here on: the flag AHEAD between nodes, and `LockBusy` ends what it said."""
DELTAS = 6
"""From here on: `VolumeNotice.delta`."""
UNCLEAN = 6
"""From here on: `UncleanNoted`."""
HANDOVERS = 7
"""From here on: `AskHandover` and `HandoverTold`."""
MOVES = 7
"""From here on: nobody opens, removes or forgets an LV that keeps extents for one that is being moved."""
RAGGED_ENDS = 7
"""From here on: of states that each lack what another has applied one goes on, though few have it."""
MANY_LOCKS = 8
"""From here on: `LockRequests`, `LockUnlocks` and `LocksBusy`."""
LEAVE_OUT = 8
"""From here on: `ring.LeaveOut`."""
SHOWN_IS_USED = 8
"""From here on: a lock that was asked for ahead, and is adopted, is in use with that."""
REMOVED_NODES = 9
"""From here on: in a state that begins afresh, victims that disks remember, of nodes that are not configured,
may have been in any lockspace."""
