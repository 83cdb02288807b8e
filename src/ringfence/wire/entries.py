"""Entries: what the ordered state applies.  One tagged union, `Entry`.

A holder in the cluster state is a node, so a cluster lock is named by (lockspace, resource, node)."""

from enum import Enum
from typing import Any

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.evidence import Evidence
from ringfence.core.ids import Epoch, Life
from ringfence.core.modes import Mode
from ringfence.wire.checkup import HostFacts
from ringfence.wire.proving import DrillKind, UseTest


class _Entry(msgspec.Struct, frozen=True, tag=True):
    pass


class JoinLockspace(_Entry, frozen=True):
    """The sender joins; complete when every ready member has sent its AckJoin."""

    lockspace: str


class AckJoin(_Entry, frozen=True):
    lockspace: str
    life: Life
    """Whose join is acknowledged."""


class LeaveLockspace(_Entry, frozen=True):
    """The sender leaves cleanly; refused while it holds locks there."""

    lockspace: str


class LockRequest(_Entry, frozen=True):
    """The sender's node wants a lock that it does not hold."""

    lockspace: str
    resource: str
    mode: Mode
    flags: int = 0
    lvb: bytes | None = None


class LockConvert(_Entry, frozen=True):
    lockspace: str
    resource: str
    mode: Mode
    flags: int = 0
    lvb: bytes | None = None


class LockUnlock(_Entry, frozen=True):
    lockspace: str
    resource: str
    flags: int = 0
    lvb: bytes | None = None


class LockCancel(_Entry, frozen=True):
    """Take back a waiting request or conversion.  Nothing happens if it was granted meanwhile."""

    lockspace: str
    resource: str


class LockBusy(_Entry, frozen=True):
    """The sender's clients need what it holds: tries of other nodes that it is in the way of are refused."""

    lockspace: str
    resource: str


class LockRequests(_Entry, frozen=True):
    """`LockRequest`s in a row: the sender's node wants each of these locks, in this mode.

    This and the two below mean what as many entries of the one kind mean, one after the other.  Whoever sends
    them sees to it that they are not too many for one step of a receiver."""

    lockspace: str
    resources: tuple[str, ...]
    mode: Mode
    flags: int = 0


class LockUnlocks(_Entry, frozen=True):
    """`LockUnlock`s in a row, none of which writes a value block."""

    lockspace: str
    resources: tuple[str, ...]


class LocksBusy(_Entry, frozen=True):
    """`LockBusy` of each of these."""

    lockspace: str
    resources: tuple[str, ...]


class Retoken(_Entry, frozen=True):
    """A grant that could not be reported in its own epoch asks for a token of this one."""

    lockspace: str
    resource: str


class EvidenceSeen(_Entry, frozen=True):
    evidence: Evidence


class AttemptBegan(_Entry, frozen=True):
    """The sender starts the victim's next fence level.  `level` counts from 0."""

    life: Life
    level: int
    number: int
    """Attempt number of this victim, from 1; a stale number is ignored."""


class DeviceWord(msgspec.Struct, frozen=True):
    """What one device said in an attempt, for `why` and the history."""

    device: str
    action: str
    power: str
    """on | off | unknown."""
    words: str
    """The agent's own last line, secrets masked."""
    took_ms: int


class AttemptEnded(_Entry, frozen=True):
    """The sender's attempt ended.  `verdict` is one line; passed only with evidence beside it."""

    life: Life
    number: int
    passed: bool
    verdict: str
    words: tuple[DeviceWord, ...] = ()
    next_in_ms: int = 0
    """How long the actor will wait before the next attempt (back-off)."""
    contradicted: tuple[str, ...] = ()
    """Devices whose claim of "off" a second look refuted."""
    agents_ms: int = 0
    """How long agents ran."""
    waits_ms: int = 0
    """How long devices were left alone, as configured, or had no session free."""
    ours_ms: int = 0
    """The rest, from the attempt's beginning."""


class AgentSaid(_Entry, frozen=True):
    """An agent of the sender's running attempt ended, and the attempt goes on.

    Whoever takes over knows then what has been switched off."""

    life: Life
    number: int
    word: DeviceWord


class PowerOnBegan(_Entry, frozen=True):
    """The sender begins to switch on what is to be on for this life (`fencing.power_on`)."""

    life: Life
    number: int
    """The try's, from 1; a stale number is ignored."""


class PowerOnEnded(_Entry, frozen=True):
    life: Life
    number: int
    passed: bool
    verdict: str
    words: tuple[DeviceWord, ...] = ()
    next_in_ms: int = 0


class VictimDue(_Entry, frozen=True):
    """The victim's grace period or post-join delay has lapsed on the sender's clock: fence it."""

    life: Life


class BoundPassed(_Entry, frozen=True):
    """On the sender's clock, write authority of `life` must have run out."""

    life: Life


class Suspect(_Entry, frozen=True):
    """`life`'s daemon was silent for silent_ms though its host is in the ring."""

    life: Life


class OperatorConfirms(_Entry, frozen=True):
    """`fence confirm`: a person signs that the node's lives are off."""

    node: int
    who: str
    why: str
    victims: tuple[tuple[Life, Epoch], ...] | None = None
    """The victims the person was shown, with the epoch since which each is one: the word may be applied
    much later, and says nothing of a loss that came after it.  None: every one (a hand-made entry)."""


class QuarantineLifted(_Entry, frozen=True):
    device: str
    who: str


class ConfigProposed(_Entry, frozen=True):
    config: ClusterConfig


class Goodbye(_Entry, frozen=True):
    """The sender leaves the cluster cleanly: all volumes closed, no lock held."""

    life: Life


class Splice(msgspec.Struct, frozen=True, array_like=True):
    """LVs of a VG's text that are replaced by others."""

    at: int
    """The first of them, by its place among the LVs of the text before."""
    gone: int
    """How many they are."""
    lvs: tuple[bytes, ...]
    """The sections that stand there now."""


class VgDelta(msgspec.Struct, frozen=True, array_like=True):
    """How a VG's text comes from the one before."""

    base_bytes: int
    base_crc: int
    """Of the text before."""
    size_bytes: int
    """Of the new one; its CRC is the notice's."""
    head: bytes
    """What stands in front of the first LV."""
    tail: bytes
    """And behind the last."""
    splices: tuple[Splice, ...]
    """In the order of the text."""


class VolumeNotice(_Entry, frozen=True):
    """A VG changed: published after its commit, so that every node's view follows at once."""

    vg: str
    seqno: int
    crc: int
    what: str
    delta: VgDelta | None = None
    """From protocol DELTAS on, where it is short: for views; the ordered state knows nothing of it."""
    removed: bool = False
    """It is no more: whoever is in its lockspace may leave that.  Likewise nothing to the ordered state."""


class UncleanNoted(_Entry, frozen=True):
    """Which LVs of a VG are being zeroed or wiped (`volumes.unclean`), all of them: no host activates one,
    and each goes on with what nobody works on.  Said under the VG's lock, before the notice of the change."""

    vg: str
    uuids: tuple[str, ...]


class Incident(msgspec.Struct, frozen=True):
    """Something that must never pass silently: a lying fence, a refused or late write."""

    kind: str
    """fence-lied | fence-contradicted | write-refused | write-late."""
    node: int
    """The node that the incident is about."""
    what: str
    """One line for people."""
    life: Life | None = None
    device: str = ""
    volume: str = ""
    offset_bytes: int = 0
    length_bytes: int = 0
    at_wall_ms: int = 0


class IncidentSeen(_Entry, frozen=True):
    incident: Incident


class ClientLock(msgspec.Struct, frozen=True, array_like=True):
    """One client's lock, or its request for one, as its node knows it; for a search for deadlocks."""

    lockspace: str
    resource: str
    lock: int
    """Its id on its node."""
    operation: int
    """Another number after every grant and every new wish: equal in two pictures means that nothing moved."""
    owner: str
    """What ties locks together: who waits for one lets go of no other of the same owner."""
    named: bool
    """The owner's name was given by the client, and means the same one on every node."""
    who: str
    """For people: the client's process, or the command."""
    held: Mode
    wanted: Mode
    """UN: it does not wait."""
    since_ms: int
    refusable: bool = False
    """It would rather be refused than wait in a ring."""
    heads: bool = False
    """It is for its sake that the node waits in the cluster's queue."""
    behind: tuple[int, ...] = ()
    """The locks of its node that are queued right before it."""
    after: tuple[int, ...] = ()
    """The nodes that are served before it, whose own wishes keep it waiting."""


class SearchDeadlock(_Entry, frozen=True):
    """The sender looks for clients that wait in a ring: every ready node answers with `Waits`."""

    number: int


class Waits(_Entry, frozen=True):
    """The answer: this node's clients that wait, and what those hold for which others wait."""

    by: Life
    """Who searches."""
    number: int
    locks: tuple[ClientLock, ...] = ()


class AskHosts(_Entry, frozen=True):
    """Somebody at the sender looks for what is wrong: every ready node answers with `HostSays`."""

    number: int


class HostSays(_Entry, frozen=True):
    """The answer: what the sender's host looks like."""

    by: Life
    """Who asked."""
    number: int
    facts: HostFacts


class SlotsKept(_Entry, frozen=True):
    """The sender keeps a disk slot in this VG, or will when it has started the VG."""

    vg: str


class SlotsLeft(_Entry, frozen=True):
    """The sender writes no slot there any more."""

    vg: str


class SlotsEnd(_Entry, frozen=True):
    """The VG is about to be removed: who keeps a slot there shall leave it."""

    vg: str
    gone: bool = False
    """It was removed already: nobody waits for nodes that are not ready to leave it."""


class LifeSeen(_Entry, frozen=True):
    """A life that was given up for fenced was seen to go on, elsewhere than in the ring."""

    life: Life
    how: str
    """In words: where, and doing what."""


class Marked(_Entry, frozen=True):
    """The mark of this victim is on the VG's disk, and on the sender's clock whatever its unmarked slot has
    allowed it must have run out."""

    life: Life
    vg: str


class AskTests(_Entry, frozen=True):
    """Every ready node tries whether it could fence, one after the other, and answers with `TestsTold`."""

    number: int
    target: str = ""
    """A node's name, a device, or a use of one; empty: all there are."""


class TestsTold(_Entry, frozen=True):
    """The answer: what the sender's tests came to.

    Unasked (number 0) where a state that begins afresh has forgotten what the sender's disk remembers."""

    by: Life
    """Who asked."""
    number: int
    results: tuple[UseTest, ...] = ()


class DrillBegan(_Entry, frozen=True):
    """The sender wants to drill a node.  Refused while another drill goes on, or anybody must be fenced."""

    kind: DrillKind
    node: int
    level: int
    """From 0."""
    who: str


class DrillAttempted(_Entry, frozen=True):
    """A destructive drill has run its level.  With evidence it has shown that the devices cut this host, and
    no other: they are believed again, and the life is over.  Without, whoever fences may begin."""

    life: Life
    """The drilled one."""
    evidence: Evidence | None = None


class DrillEnded(_Entry, frozen=True):
    life: Life
    """The drilled one."""
    passed: bool
    verdict: str
    """One line."""
    lines: tuple[str, ...] = ()
    """What was found, a line each."""
    liars: tuple[str, ...] = ()
    """Devices that said "off" of a host that went on: believed no more."""


class FenceOrdered(_Entry, frozen=True):
    """`fence NODE`: a person (or a program in its name) wants the node fenced, be it alive."""

    id: str
    """Of the request: an order that is repeated counts once."""
    node: int
    life: Life | None
    """The node's life as the person was shown it; None: it was no member.  If that is another one by
    now, nothing is done."""
    action: str = ""
    """off | reboot; empty: as the cluster's configuration says."""
    who: str = ""
    why: str = ""


class Disarmed(_Entry, frozen=True):
    """`fence disarm`: maintenance.  No agent is started by anybody for so long."""

    for_ms: int
    who: str
    why: str = ""


class Armed(_Entry, frozen=True):
    """`fence arm`: the maintenance is over."""

    who: str


class DisarmExpired(_Entry, frozen=True):
    """On the sender's clock the time of that maintenance is over; the last ready member's word ends it."""

    number: int


class MachineForgotten(_Entry, frozen=True):
    """`node re-enrol`: the node's next join may be another machine's."""

    node: int
    machine: str
    """The one that was shown; if another is enrolled by now, nothing is done."""
    who: str
    why: str = ""


class AskRefresh(_Entry, frozen=True):
    """A stock LVM2 command at the sender has changed an LV that others have active, too: every other ready
    member of the VG's lockspace reloads its table, and answers with `RefreshTold`."""

    number: int
    vg: str
    lv: str
    """Its name."""
    uuid: str
    """As its lock is named."""


class RefreshTold(_Entry, frozen=True):
    """The answer."""

    by: Life
    """Who asked."""
    number: int
    refreshed: bool
    """False: stock LVM2 does not have it active at the sender, and there was nothing to reload."""
    failed: str = ""
    """Why it could not be, in one line."""


class HandoverStep(Enum):
    """How far the hand-over of an LV to another host is."""

    LOOK = "look"
    """The taker compares what both see on the disks."""
    LEND = "lend"
    """The taker opens its end beside the writer, to read: it is prepared."""
    OPEN = "open"
    """Nobody writes; the taker opens its end, or goes on with it."""
    TAKE = "take"
    """It is decided: the LV is the taker's as soon as the giver has let go."""
    DROP = "drop"
    """It is decided: the LV stays the giver's, and the taker closes its end."""


class AskHandover(_Entry, frozen=True):
    """The sender, who holds an LV, hands it over to another node, and asks for the next step of that.

    TAKE and DROP are decided by the order; the others the taker answers with `HandoverTold`."""

    number: int
    vg: str
    lv: str
    """Its name."""
    uuid: str
    """As its lock is named."""
    to: int
    """The taker."""
    step: HandoverStep
    seqno: int = 0
    """Of the VG, as the giver reads it."""
    crc: int = 0
    """Of its text."""
    table: int = 0
    """Of what the LV is made of: `engine.commands.handover.table_of`."""


class HandoverTold(_Entry, frozen=True):
    """The taker has done what it was asked for; or, after TAKE, the LV is its own."""

    by: Life
    """The giver that asked."""
    number: int
    uuid: str
    failed: str = ""
    """Why it could not be done, in one line."""


Entry = (
    JoinLockspace | AckJoin | LeaveLockspace | LockRequest | LockConvert | LockUnlock | LockCancel | LockBusy
    | LockRequests | LockUnlocks | LocksBusy
    | Retoken | EvidenceSeen | AttemptBegan | AttemptEnded | VictimDue | BoundPassed | Suspect
    | OperatorConfirms | QuarantineLifted | ConfigProposed | Goodbye | VolumeNotice | UncleanNoted
    | IncidentSeen
    | SearchDeadlock | Waits | AskHosts | HostSays | AgentSaid | PowerOnBegan | PowerOnEnded | AskTests
    | TestsTold | DrillBegan | DrillAttempted | DrillEnded
    | FenceOrdered | Disarmed | Armed | DisarmExpired | LifeSeen | MachineForgotten
    | SlotsKept | SlotsLeft | SlotsEnd | Marked | AskRefresh | RefreshTold | AskHandover | HandoverTold
)  # fmt: skip

MANY_LOCKS = (LockRequests, LockUnlocks, LocksBusy)
LOCK_ENTRIES = (LockRequest, LockConvert, LockUnlock, LockCancel, LockBusy, *MANY_LOCKS)
"""Those that change nothing but resources' queues."""


def one_by_one(entry: LockRequests | LockUnlocks) -> list[Entry]:
    """What it means, as single entries."""
    if isinstance(entry, LockUnlocks):
        return [LockUnlock(entry.lockspace, one) for one in entry.resources]
    return [LockRequest(entry.lockspace, one, entry.mode, entry.flags) for one in entry.resources]


def weight(entry: Entry) -> int:
    """What it costs to apply, in entries that are about one thing."""
    return len(entry.resources) if isinstance(entry, MANY_LOCKS) else 1


Json = dict[str, Any]
