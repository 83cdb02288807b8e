"""Inputs: past facts that reach `Node.step(now_ns, input)`."""

from typing import Any

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.evidence import Power
from ringfence.core.ids import Epoch, Life
from ringfence.fencing.proving import Kept
from ringfence.wire import SPEAKS, Speaks
from ringfence.wire.block import Hold
from ringfence.wire.client import Request
from ringfence.wire.entries import Incident
from ringfence.wire.lvmlockd import LvmAsked, LvmLock
from ringfence.wire.ring import UNSAID_HARDWARE, Enrolled, Hardware, OpenLock


class _Input(msgspec.Struct, frozen=True):
    pass


class DiskState(msgspec.Struct, frozen=True):
    """What a node keeps on its own disk, written and read whole."""

    epoch: Epoch = Epoch()
    """Highest primary epoch this node took part in."""
    incarnation: int = 0
    """Last incarnation used under `boot`."""
    boot: str = ""
    victims: tuple[Life, ...] = ()
    quarantined: tuple[tuple[str, str], ...] = ()
    """Devices that were caught lying, each with why."""
    fenced: tuple[Life, ...] = ()
    """Lives that were given up for fenced: what they held may be others' since."""
    out: tuple[Life, ...] = ()
    """Lives that had left cleanly, and whose nodes had not come back, in the state of `epoch`."""
    tested: tuple[Kept, ...] = ()
    """What this node's own tests of fence devices came to."""
    enrolled: tuple[Enrolled, ...] = ()
    """Whose each node id is."""
    stopped: tuple[str, ...] = ()
    """VGs that somebody stopped here by hand in `boot`."""
    stopped_uuids: tuple[str, ...] = ()
    """Theirs, in the same order, "" where it was not known: a VG is stopped whatever it is called by now.
    (Fewer, as an older version kept none: not known.)"""


class LeftOpen(msgspec.Struct, frozen=True):
    """What an earlier daemon of this boot left open: a data path, or what stock LVM2 has through it."""

    vg: str
    lv: str
    lock: OpenLock
    """What it was opened under."""
    pages: tuple[tuple[int, str], ...] = ()
    """(incarnation, page): the authority pages that it looks at.  None of them is lost."""
    lvm2: LvmLock | None = None
    """LVM2's, which no page stops: an LV that it activated, or the lock of a command that runs."""
    hold: Hold = Hold.NONE
    """The path is held: its LV is being handed over."""

    @property
    def what(self) -> str:
        """For people: "LV vg0/vm1", "VG vg0"."""
        return self.lvm2.what if self.lvm2 is not None else f"LV {self.vg}/{self.lv}"


class Started(_Input, frozen=True):
    """First input of all.

    `paths_reaped`: the block service has verified that no data path of an earlier daemon of this
    boot is open (the driver closes them before it starts the engine).
    `left_open`: if not reaped, all that are open, where that is known and all of them may be adopted."""

    config: ClusterConfig
    node: int
    machine: str
    boot: str
    disk: DiskState
    paths_reaped: bool
    speaks: Speaks = SPEAKS
    left_open: tuple[LeftOpen, ...] = ()
    hardware: Hardware = UNSAID_HARDWARE


class ViewChanged(_Input, frozen=True):
    """The ring's new view, in order relative to `Delivered`.

    how: for each node that left, "leave" (the ring was told), "procdown" (its daemon ended, its host
    is still in the ring) or "nodedown"."""

    epoch: Epoch
    members: tuple[int, ...]
    joined: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    how: dict[int, str] = {}


class Delivered(_Input, frozen=True):
    """A payload in the total order, own ones included."""

    sender: int
    payload: bytes


class RingLost(_Input, frozen=True):
    """The ring itself (hub, corosync) is gone; the driver tries again and says so."""

    reason: str


class QuorumSaid(_Input, frozen=True):
    """What the ring's own quorum service says (corosync's votequorum), beside the order and a moment late.

    It can only forbid.  Until it has said anything it does not."""

    quorate: bool


class RingRemarked(_Input, frozen=True):
    """What a person should know of the ring though it works; empty: nothing (any more)."""

    what: str


class Tick(_Input, frozen=True):
    """Time has passed; sent at least every heartbeat_ms."""


class Asked(_Input, frozen=True):
    """A client's request.  `client` is a connection number; `who` its credentials, for the record."""

    client: int
    request: Request
    who: str = ""


class ClientGone(_Input, frozen=True):
    client: int


class LvmRequest(_Input, frozen=True):
    """A request of stock LVM2 on lvmlockd's socket; a connection has one at a time.  No connection of that
    socket has the number of one of the client socket's."""

    client: int
    asked: LvmAsked


class LvmGone(_Input, frozen=True):
    """A connection of that socket ended.

    unread: for certain, its peer did not read the whole of the last reply.
    hung_up: this side has ended it; its process may go on."""

    client: int
    unread: bool = False
    hung_up: bool = False


class AgentExited(_Input, frozen=True):
    """An agent run ended, one way or another (exit, time limit, cancelled, could not start)."""

    run: int
    power: Power
    """For action "off"/"on": OFF/ON means the agent exited 0.  For "status": what it reports."""
    words: str
    took_ms: int
    answered: bool = True
    """False: the device was not reached or the agent ran into its limit."""
    plugs: dict[str, str] | None = None
    """Of "list": plug -> what the device calls it; None: it tells none."""


class OrderDone(_Input, frozen=True):
    """A driver order's answer; exactly one of answer and error (as RingfenceError.as_dict())."""

    order: int
    answer: Any = None
    error: dict[str, Any] | None = None


class PathsDropped(_Input, frozen=True):
    """Answer to effects.DropPaths: every data path of this node is closed and its worker reaped."""

    generation: int


class PathIncident(_Input, frozen=True):
    """The block service reports a refused or late write."""

    incident: Incident


class ProcessEnded(_Input, frozen=True):
    """Answer to effects.WatchProcess: no such process exists any more, and it can write nothing."""

    pid: int
    started: int


class CalledAgain(_Input, frozen=True):
    """Answer to effects.CallAgain: others have had their turn."""


class Wall(_Input, frozen=True):
    """The wall clock, for records only."""

    wall_ms: int


Input = (
    Started | ViewChanged | Delivered | RingLost | QuorumSaid | RingRemarked | Tick | Asked | ClientGone
    | LvmRequest | LvmGone | AgentExited | OrderDone | PathsDropped | PathIncident | ProcessEnded
    | CalledAgain | Wall
)  # fmt: skip
