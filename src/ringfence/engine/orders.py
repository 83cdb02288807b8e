"""Orders: what a command (a generator in `commands`) asks for, one at a time, and the answers.

A command is a pure coroutine: `answer = yield order`.  A failed order raises a RingfenceError at
the yield.  Lock and ring orders are carried out by the engine itself; storage and block orders
leave it as an effect (`effects.DoOrder`) and come back as an input (`inputs.OrderDone`).
After a node went stale every running command gets LocksLost thrown in at its yield."""

from collections.abc import Callable, Generator
from typing import Any

import msgspec

from ringfence.core.cluster import Use
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.lvm2.area import MdaHeader
from ringfence.volumes.known import Known
from ringfence.volumes.model import Vg
from ringfence.wire.block import Extent, Hold, Moving, Plane
from ringfence.wire.entries import HandoverStep, VgDelta


class _Order(msgspec.Struct, frozen=True, tag=True):
    pass


# -- answered by the engine --------------------------------------------------


class Acquire(_Order, frozen=True, gc=False):
    """Take a lock through this node's cache.  Answer: Held.

    Raises LockHeld (message names the holders) if wait_ms is 0 and it is held, TimedOut, NotFound
    (lockspace not joined), Deadlock, LocksLost.  A transient lock is released when the command
    ends, whatever way it ends; a persistent one stays under `key` (an activation)."""

    lockspace: str
    resource: str
    mode: Mode
    wait_ms: int | None = None
    persistent: bool = False
    what: str = ""
    """For messages and `why`: "VG vg0", "LV vg0/vm1"."""


class Held(msgspec.Struct, frozen=True, gc=False):
    lock: int
    mode: Mode
    token: Token
    lvb: bytes | None
    """The last committed 32-byte value, or None: not valid."""
    demoted: bool = False
    """The mode held was given up (CONVDEADLK) while this one was waited for."""
    altmode: bool = False
    """It is the alternative (ALTPR, ALTCW), not the mode that was wanted."""
    by_lvm2: bool = False
    """Stock LVM2 asked for it: the LV is active through LVM2, not through a path of ours."""


class Convert(_Order, frozen=True):
    """Answer: Held."""

    lock: int
    mode: Mode
    wait_ms: int | None = None


class Release(_Order, frozen=True, gc=False):
    """With `lvb`: write the value block (the lock is held PW or EX).  Answer: None."""

    lock: int
    lvb: bytes | None = None


class FindLock(_Order, frozen=True):
    """This node's persistent lock on a resource.  Answer: Held or None."""

    lockspace: str
    resource: str


class FindLocks(_Order, frozen=True):
    """All persistent locks of this node in a lockspace.  Answer: dict[resource, Held]."""

    lockspace: str


class LocksTogether(_Order, frozen=True):
    """Carry all of these out at once, as many in a frame as there may be.  Answer: a tuple with the answer to
    each, or the RingfenceError that it would have raised.

    They differ only in what they are about: for the persistent locks of a VG's LVs, in one mode and with one
    wait; or to let go of locks, without a value."""

    orders: tuple[Acquire | Release, ...]


class Holder(msgspec.Struct, frozen=True):
    node: int
    name: str
    """The node's name."""
    mode: Mode
    token: Token
    since_wall_ms: int


class Holders(_Order, frozen=True):
    """Who holds a resource, cluster-wide.  Answer: tuple[Holder, ...].

    A lockspace that this node has not joined is answered too (the state is everywhere).  What a node has only
    asked for ahead, it does not hold."""

    lockspace: str
    resource: str


class SeqnoHeard(_Order, frozen=True):
    """The highest version of a VG that this cluster was told of.  Answer: int; 0: of none."""

    vg: str


class JoinLockspace(_Order, frozen=True):
    """Answer: None, when every ready member has acknowledged; at once if already joined."""

    lockspace: str


class GiveBack(_Order, frozen=True):
    """Have clients give back what they cache in lockspaces and do not use.  Answer: None, when they have;
    until the command ends nothing new is asked for there.

    Raises Refused while a client uses a lock there, or does not answer."""

    lockspaces: tuple[str, ...]
    for_good: bool = False
    """The node leaves the cluster: whoever waited was refused, and need only hear of it."""


class HoldOff(_Order, frozen=True):
    """Until the command ends nothing new is asked for in these lockspaces.  Answer: tuple[Active, ...], what
    this node has active there.

    Raises Refused while a command of stock LVM2 has a lock there: it could yet activate an LV."""

    lockspaces: tuple[str, ...]


class Active(msgspec.Struct, frozen=True):
    """An activation on this node."""

    lock: int
    lockspace: str
    what: str
    by_lvm2: bool


class LeaveLockspace(_Order, frozen=True):
    """Answer: None.  Raises Refused while this node holds locks in it."""

    lockspace: str
    for_good: bool = False
    """The node leaves the cluster: its orphans end here, as they would with its daemon."""


class Joined(_Order, frozen=True):
    """Lockspaces this node has joined.  Answer: tuple[str, ...]."""


class LockspaceMembers(_Order, frozen=True):
    """Answer: tuple[str, ...], names of the nodes that are in the lockspace."""

    lockspace: str


class Publish(_Order, frozen=True):
    """Tell every node that a VG changed.  Answer: None, at once: to all nodes a Release that follows comes
    behind it, so whoever is granted the VG's lock then has been told."""

    vg: str
    seqno: int
    crc: int
    what: str
    delta: VgDelta | None = None
    """Told where all nodes know of it."""
    unclean: tuple[str, ...] = ()
    """Its LVs that are being zeroed or wiped, by uuid."""
    removed: bool = False


class AskReload(_Order, frozen=True):
    """Have every other host that has this LV active through stock LVM2 reload its table.  Answer: None.

    Raises RingfenceError: one has not, or cannot be asked."""

    vg: str
    lv: str
    uuid: str


class AskHandover(_Order, frozen=True):
    """Have the next step of an LV's hand-over done, at the taker or in the total order.  Answer: None.

    Raises Refused: it was refused, or the taker could not do it, or did not answer in time."""

    vg: str
    lv: str
    """Its name."""
    uuid: str
    to: int
    step: HandoverStep
    seqno: int = 0
    crc: int = 0
    table: int = 0


class AwaitTaken(_Order, frozen=True):
    """Wait until the taker says that the LV is its own.  Answer: bool; False: after a while it has not."""

    uuid: str


class Handovers(_Order, frozen=True):
    """LVs of a VG that are being handed over.  Answer: dict[str, OnItsWay], by uuid."""

    vg: str


class OnItsWay(msgspec.Struct, frozen=True):
    giver: int
    taker: int
    step: HandoverStep
    names: tuple[str, str]
    """Of the two."""


class SayGoodbye(_Order, frozen=True):
    """Leave the cluster cleanly; no lock is held and no path open.  Answer: None, once applied."""


class VgText(msgspec.Struct, frozen=True):
    """Which text of a VG was the committed one: slot 0 of one of its metadata areas, as it was read."""

    path: str
    at_bytes: int
    data: bytes


class SlotsPlace(msgspec.Struct, frozen=True):
    """Where a VG's disk slots are on this host."""

    vg: str
    path: str
    start_bytes: int
    header: bytes
    """Block 0 as it was read."""
    nodes: int
    """The highest node id that has room."""
    text: VgText
    """By which this place is known: when it is another one, the slots may be elsewhere."""
    uuid: str = ""
    """Of the slots' LV, as LVM2 writes it."""


class NoteSlots(_Order, frozen=True):
    """This host has looked at the disks.  Answer: None, at once."""

    places: tuple[SlotsPlace, ...]
    without: dict[str, str]
    """Shared VGs of this cluster whose slots cannot be used, each with why."""
    made: bool = False
    """This host has just made these slots, under the VG's lock."""
    uuids: dict[str, str] = {}
    """Of the shared VGs that it saw: lockspace -> the VG's uuid."""


class EndSlots(_Order, frozen=True):
    """The VG is about to go, and its slots with it.  Answer: None, when no node writes there any more.

    Raises Refused after some seconds in which a node did not let go."""

    vg: str
    gone: bool = False
    """It is gone already, and who is not ready need not let go."""


class Wanted(_Order, frozen=True):
    """Whether a lock that is held stands in somebody's way, or this node is about to leave its lockspace: who
    works under it for long asks now and then.  Answer: bool."""

    lock: int


class NoteStopped(_Order, frozen=True):
    """Somebody has stopped a VG here by hand (`Context.stopped`); to join its lockspace starts it again.
    Answer: None, at once."""

    vg: str


class NoteRenamed(_Order, frozen=True):
    """VGs that were stopped here by hand are called otherwise by now.  Answer: None, at once."""

    names: dict[str, str]
    """Name now -> name that it was stopped under."""


class NoteUnseen(_Order, frozen=True):
    """Which of the VGs that were stopped here by hand this host's last look at the disks has not found.
    Answer: None, at once."""

    vgs: tuple[str, ...]
    removed: tuple[str, ...]
    """Of them those of which it was said that they are no more: nothing is left to be started."""


class NoteUnclean(_Order, frozen=True):
    """This host has seen which LVs of a VG are being zeroed or wiped.  Answer: None, at once.

    It goes on with them where nobody else does."""

    vg: str
    uuids: tuple[str, ...]


class NoteProgress(_Order, frozen=True):
    """How far a long command is, for people.  Answer: None, at once."""

    vg: str
    lv: str
    what: str
    """zeroed | wiped | moved."""
    done_bytes: int
    size_bytes: int


class Recall(_Order, frozen=True):
    """VGs as this node last read or wrote them.  Answer: KnownVgs, to look into only."""


class Remember(_Order, frozen=True):
    """A VG was read, or written, just so.  Answer: None."""

    known: Known


class LocksThere(_Order, frozen=True):
    """Answer: LockNames."""

    lockspace: str


class LockNames(msgspec.Struct, frozen=True):
    """Which resources of a lockspace have locks."""

    held: frozenset[str]
    """Any node's; each asks for more with `Holders`."""
    here: frozenset[str]
    """This node's persistent ones."""


class Identity(_Order, frozen=True):
    """Answer: Whoami."""


class Whoami(msgspec.Struct, frozen=True):
    cluster: str
    node: int
    name: str
    naive: bool
    now_wall_s: int
    """Wall clock, for creation_time in metadata."""
    uuid_seeds: tuple[str, ...]
    """Fresh random 32-character LVM2 uuids (chance comes in as an argument)."""
    node_names: dict[int, str] = {}
    """Every configured node."""
    slots: bool = False
    """Whether every node of the cluster knows disk slots."""
    wipe_mib_s: int = 0
    """How fast LVs may be wiped in the background, in MiB/s; 0: as fast as the devices take it."""


class CallAgent(_Order, frozen=True):
    """Run a device's agent once, for one use of it.  Answer: inputs.AgentExited.

    It ends early, with UNKNOWN, when somebody cancels it (`Tasks.cancel_calls`)."""

    use: Use
    action: str
    """off | on | status | list."""
    node: int
    """Whose plug it is."""
    timeout_ms: int = 0
    """0: the cluster's own limit."""


class Pause(_Order, frozen=True):
    """Let time pass.  Answer: None."""

    time_ms: int


class GoOn(_Order, frozen=True):
    """Let others have their turn: what concerns thousands must not hold the event loop.  Answer: None, in a
    later step; anything may have changed meanwhile."""


# -- answered by the storage driver -------------------------------------------


class ScanDevices(_Order, frozen=True):
    """List the block devices and files that [devices] paths allow.  Answer: tuple[Device, ...]."""


class Device(msgspec.Struct, frozen=True):
    path: str
    size_bytes: int
    sector_bytes: int = 512
    aliases: tuple[str, ...] = ()
    """Other paths that lead to the same device."""


class Read(msgspec.Struct, frozen=True):
    path: str
    offset_bytes: int
    length_bytes: int


class ReadBlocks(_Order, frozen=True):
    """Read ranges, with direct I/O.  Answer: tuple[bytes | None, ...]; None where a read failed."""

    reads: tuple[Read, ...]


class ReadDisks(_Order, frozen=True):
    """Scan the devices, and read all that LVM2 has on them.  Answer: volumes.discovery.Disks.

    The steps that it consists of are `commands.disks.steps_of`."""

    known: tuple[Known, ...]
    """VGs as this node knows them: a text that is one of theirs is not parsed again."""
    believed: bool = False
    """A text whose size and checksum a header tells, and which is known by these, is not even read."""


class ReadText(_Order, frozen=True):
    """Parse a long metadata text.  Answer: volumes.model.Vg.

    Raises Damaged; `where` names the text in it."""

    text: bytes
    where: str
    like: Vg | None = None
    """Another version of it: LVs whose text is the same are not parsed again."""
    packed: bool = False
    """By `lvm2.backup.pack`; and it is laid out anew, from whatever form it has."""


class SaveText(_Order, frozen=True):
    """Write a VG's committed text to this host's file of backups.  Answer: str, the file's path.

    Raises Damaged (it is not there any more), DeviceFailed, Unavailable."""

    path: str
    header: MdaHeader
    description: str


class Write(msgspec.Struct, frozen=True):
    path: str
    offset_bytes: int
    data: bytes


class WriteBlocks(_Order, frozen=True):
    """Write ranges in order, direct, flushed before the answer.  Answer: str | None, a warning for whoever
    gave the command, which goes with its result.

    The storage guard for `guard` (a VG's name, or "" for grant authority alone) is asked before and
    after each write; without authority: NoAuthority raised, and nothing further is written."""

    writes: tuple[Write, ...]
    guard: str = ""
    what: str = ""
    """Names the step for crash points: "pv-header", "text", "precommit", "commit"."""


class ZeroBlocks(_Order, frozen=True):
    """Make a range read as zeros, flushed before the answer.  Answer: None.

    Where the device (or the file system) can give the space back and reads zeros from then on, it does; else
    it is told to write zeros, or they are written.  The storage guard for `guard` is asked before and after
    each piece of it (`storage.driver.ZERO_STEP_BYTES`).  Other storage orders do not wait for this one."""

    path: str
    offset_bytes: int
    length_bytes: int
    guard: str


class WriteVersion(_Order, frozen=True):
    """Write a VG's next version: the steps that `lvm2.area` names, each on all areas before the next.  Answer
    and guard as of WriteBlocks.

    Flushed before the commit, and before the answer: of what is there before the commit nobody believes more
    than its checksum says, in whatever order a power cut leaves it; and what is zeroed along is nobody's."""

    texts: tuple[Write, ...]
    precommits: tuple[Write, ...]
    commits: tuple[Write, ...]
    guard: str
    zeros: tuple[ZeroBlocks, ...] = ()
    """Carried out first of all: a little, for all other storage orders wait for this one."""
    history: tuple[bytes, bytes] = (b"", b"")
    """The texts before and after it, NUL and all, for whoever keeps them, who reads what the headers name if
    it is not this."""

    @property
    def steps(self) -> tuple[tuple[str, tuple[Write, ...]], ...]:
        """Behind the zeros; each with its name for crash points."""
        return ("text", self.texts), ("precommit", self.precommits), ("commit", self.commits)


class CopyBlocks(_Order, frozen=True):
    """Copy a range to another place, which does not overlap it, flushed before the answer.  Answer: None.

    Under the guard as ZeroBlocks (`storage.driver.COPY_STEP_BYTES`), and like it beside other orders."""

    path: str
    offset_bytes: int
    length_bytes: int
    to_path: str
    to_offset_bytes: int
    guard: str


class Probe(_Order, frozen=True):
    """Find out what is on a device, or on an LV: its pieces, one after the other.  Answer:
    volumes.signatures.Probed.

    Raises DeviceFailed: it cannot be read."""

    extents: tuple[Extent, ...]


# -- answered by the slots' driver -----------------------------------------------


class SlotIo(_Order, frozen=True):
    """Read, perhaps after one write, blocks of a VG's disk slots.  Answer: tuple[bytes, ...], the reads.

    In this order: the VG's text and the header are compared; the write; a flush; the reads; the text again.
    So what is read is not older than what was written, nothing of it older than the order, and all of it from
    where the VG had its slots from the beginning to the end: whatever moves them (stock LVM2 too, which tells
    nobody) commits another text first.

    Raises VgChanged (the answer counts for nothing; look where they are now), NotFound (other bytes than
    `header`: the slots are gone), DeviceFailed, TimedOut (no answer within `limit_ms`; what was asked for may
    happen later all the same, unless it had not begun yet)."""

    vg: str
    path: str
    start_bytes: int
    """Of the slots' LV on its device; all offsets count from there."""
    header: bytes
    """What block 0 must read."""
    text: VgText
    reads: tuple[int, ...]
    """Offsets of whole blocks."""
    write: tuple[int, bytes] | None = None
    limit_ms: int = 1000
    not_after_ns: int = 0
    """CLOCK_BOOTTIME after which the write must not begin any more; 0 = whenever."""


# -- answered by the block driver ----------------------------------------------


class OpenPath(_Order, frozen=True, gc=False):
    """Make an active LV reachable.  Answer: Opened."""

    vg: str
    lv: str
    uuid: str
    extents: tuple[Extent, ...]
    shared: bool
    token: Token
    readonly: bool = False
    seqno: int = 0
    """Of the VG's version that says so."""
    vg_uuid: str = ""
    """With dashes; the plane of device-mapper needs it."""
    hold: Hold = Hold.NONE
    """Else it is a socket, whatever plane this host has."""


class Opened(msgspec.Struct, frozen=True):
    path: str
    """/run/ringfence/dev/VG/LV: a Unix socket, or a link to a block device."""
    uri: str
    """nbd+unix:///LV?socket=PATH, or file://PATH."""


class ClosePath(_Order, frozen=True, gc=False):
    """Flush, end and reap the LV's worker.  Answer: None.  An unopened LV is closed already."""

    vg: str
    lv: str
    """The name it is open under."""
    uuid: str = ""
    """Given: only the path of this LV, and under whatever name: it may just be renamed."""
    own: bool = False
    """To take back what this command has opened, or has tried to: refused where another one has opened it."""


class PathsTogether(_Order, frozen=True):
    """Carry all of these out at once.  Answer: a tuple with the answer to each, or the RingfenceError that it
    would have raised.

    What is opened so is reachable before anything runs for it: its worker starts with its first client."""

    orders: tuple[OpenPath | ClosePath, ...]


class Staggered(_Order, frozen=True):
    """Begin what is to be done with paths, and carry out meanwhile what is to be done with locks.

    Answer: the pair of the answers to the locks and of those to the paths of the Staggered *before* this one,
    or the RingfenceError that those would have raised as a whole.  So the paths of one are under way while
    locks are asked for twice, and whoever carries out either has the next ones before he is done with these.
    A command goes on until it was told of all that it began: at the end with a Staggered without paths.  One
    that ends by an error is over when all that it began is."""

    locks: LocksTogether = LocksTogether(())
    paths: PathsTogether = PathsTogether(())


class ReloadPath(_Order, frozen=True):
    """Change what an open LV is made of, under its running clients.  Answer: Opened.

    Any error: it is as it was, and open.  NotFound: it is not open."""

    vg: str
    lv: str
    """The name it is open under."""
    uuid: str
    extents: tuple[Extent, ...]
    name: str
    """What it is called from now on; `lv`: as before."""
    readonly: bool
    token: Token
    """Of the lock it is open under; later than that of its opening, if it was converted since."""
    hold: Hold | None = None
    """None: as before.  Else `token` is that of its lock from now on.  Answered when no change is under way
    any more, and all are flushed, where they wait from now on."""


class MirrorPath(_Order, frozen=True):
    """Copy a stretch of an open LV to another place, under its running clients, and keep it equal there.

    Answer: Moving; `OpenPaths` says how far it is.  Asked for once more, it goes on.  NotFound: not open."""

    vg: str
    lv: str
    """The name it is open under."""
    uuid: str
    offset_bytes: int
    to: tuple[Extent, ...]
    token: Token


class SealPath(_Order, frozen=True):
    """The last thing before metadata are committed that name the new place; ReloadPath ends the move then.

    Answer: Moving.  Refused: the copy is not complete, or has failed."""

    vg: str
    lv: str
    uuid: str


class UnmirrorPath(_Order, frozen=True):
    """Forget the new place: no metadata name it.  Answer: None."""

    vg: str
    lv: str
    uuid: str


class OpenPaths(_Order, frozen=True):
    """Answer: tuple[OpenVolume, ...]."""


class OpenVolume(msgspec.Struct, frozen=True):
    vg: str
    lv: str
    uuid: str
    path: str
    uri: str
    connections: int = 0
    direct: bool = True
    """False: its file system has no direct I/O; writes are O_DSYNC."""
    failed: str = ""
    """Why its worker ended by itself; such a path is not closed until it is."""
    stopped: str = ""
    """Why its worker stands still, and what to do."""
    readonly: bool = False
    extents: tuple[Extent, ...] = ()
    """What it is made of; empty: a block service of an older version does not tell."""
    moving: Moving | None = None
    plane: Plane = Plane.NBD
    fast: bool | None = None
    """Whether usual requests are served without the interpreter; None: not told, or it is a device."""
    hold: Hold = Hold.NONE
    """It is being handed over."""


class StandingTables(_Order, frozen=True):
    """Find device-mapper tables of VGs in which stock LVM2 has locks here, through which something may be
    written.  Answer: tuple[str, ...], "VG/LV" of each.

    Raises RingfenceError if that cannot be known."""

    vgs: tuple[str, ...]


class CutTables(_Order, frozen=True):
    """Make every device-mapper table fail that LVM2 has made of these VGs.  Answer: tuple[str, ...], "VG/LV"
    of those that stand all the same.

    Raises RingfenceError if that cannot be known."""

    vgs: tuple[str, ...]


# -- answered by the driver itself -----------------------------------------------


class ReadSupplies(_Order, frozen=True):
    """Ask management controllers, all at once, what they see of their hosts' power supplies.

    Answer: tuple[Reading, ...], one for each controller."""

    controllers: tuple[tuple[int, Use], ...]
    """(node, its controller)."""


class RefreshLvs(_Order, frozen=True):
    """Have stock LVM2 reload the device-mapper tables of LVs that it has active here.  Answer: LvmRan.

    Raises Unavailable: stock LVM2 is not on this host, or this host stood still before it was started."""

    vg: str
    lvs: tuple[str, ...]
    """Their names."""
    limit_ms: int


class LvmRan(msgspec.Struct, frozen=True):
    """How a stock command ended."""

    code: int | None
    """Its exit code; None: it was ended at its limit, or by a signal."""
    words: str
    """The end of what it said, one line for each of its lines."""
    took_ms: int


class Compute(_Order, frozen=True):
    """Compute something that takes long, beside all else.  Answer: what `work` returns.

    It is pure: it depends on nothing that may change meanwhile.  Raises the RingfenceError that it raises."""

    work: Callable[[], Any]


class LookAtHost(_Order, frozen=True):
    """Find out what this host looks like.  Answer: HostFacts, within some seconds; it changes nothing."""


ENGINE_ORDERS = (
    Acquire, Convert, Release, FindLock, FindLocks, LocksTogether, Holders, SeqnoHeard, JoinLockspace,
    GiveBack, HoldOff, LeaveLockspace, Joined, LockspaceMembers, Publish, AskReload, SayGoodbye, NoteSlots,
    EndSlots, NoteUnclean, NoteProgress, Wanted, Recall, Remember, LocksThere, Identity, Pause, GoOn,
    AskHandover, AwaitTaken, Handovers, NoteStopped, NoteRenamed, NoteUnseen,
)  # fmt: skip
StorageOrder = (
    ScanDevices | ReadBlocks | ReadDisks | ReadText | SaveText | WriteBlocks | WriteVersion | ZeroBlocks
    | CopyBlocks | Probe
)  # fmt: skip
BlockOrder = (
    OpenPath | PathsTogether | ReloadPath | MirrorPath | SealPath | UnmirrorPath | ClosePath | OpenPaths
)
DriverOrder = (
    StorageOrder | BlockOrder | StandingTables | CutTables | SlotIo | LookAtHost | ReadSupplies
    | RefreshLvs | Compute
)  # fmt: skip
Order = (
    Acquire | Convert | Release | FindLock | FindLocks | LocksTogether | Holders | SeqnoHeard
    | JoinLockspace | GiveBack | HoldOff | LeaveLockspace | Joined | LockspaceMembers | Publish
    | AskReload | SayGoodbye | NoteSlots | EndSlots | NoteUnclean | NoteProgress | Wanted | Recall | Remember
    | LocksThere | Identity | CallAgent | Pause | GoOn | AskHandover | AwaitTaken
    | Handovers | NoteStopped | NoteRenamed | NoteUnseen | Staggered | DriverOrder
)  # fmt: skip

Command = Generator[Order, Any, Any]
"""A running command: yields orders, receives answers, returns the call's result (JSON-able)."""
