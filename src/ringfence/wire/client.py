"""The client socket's language: one JSON object a line, both ways.

A client sends `Request`s, each with an id of its own choice, unique per client run (a UUID);
repeating an id whose reply was lost changes nothing twice.  Ids of `CONNECTION_CALLS` need only be
unique within their connection: a counter will do.  The daemon answers each with one `Reply` whose
`final` is true (but for an `Unlock` that asked for silence); calls that stream (events, lock with
notices) send earlier replies with `final` false.  Ending the connection releases its own locks."""

import base64
from typing import Annotated, Any

import msgspec

from ringfence.core.cluster import ClusterConfig

NO_VALUE = base64.b64encode(bytes(32)).decode()
"""How a grant tells a value block that nobody has written, as nearly all are."""


Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""JSON's numbers end nowhere; those of the ring's frames (msgpack) and of SQLite do.  One that is larger
must be refused here: further in it would end the daemon, and with it this host's authority."""


class _Call(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True, omit_defaults=True):
    """A daemon refuses fields that it does not know: what asks for them would not be done.  Those that
    have their default are not sent, so that a newer client's calls are an older daemon's too."""


# -- asking ------------------------------------------------------------------


class Status(_Call, frozen=True):
    """This node, view, members, victims, lockspaces, authority, exports, incidents, blocked or not."""


class Why(_Call, frozen=True):
    """Why is TARGET stuck?  TARGET: VG/LV, a VG, LOCKSPACE/RESOURCE, a node, or "" for everything."""

    target: str = ""


class Locks(_Call, frozen=True):
    lockspace: str = ""


class Deadlocks(_Call, frozen=True):
    """Look, on all nodes, for clients that wait for one another in a ring.

    Reply result: {"deadlocks": [{"lines": [str], "ring": [{"waiter", "behind"}]}]}."""


class Checkup(_Call, frozen=True):
    """Ask every host what it looks like; `ringfence doctor` judges.

    Reply result: `checkup.Checkup`."""


class Events(_Call, frozen=True):
    """Recorded events, oldest first; with follow, then new ones until the client goes."""

    follow: bool = False
    since: Int = 0
    """Only events with a greater sequence number."""
    limit: Int = 1000


class FenceHistory(_Call, frozen=True):
    node: str = ""


class FenceConfirm(_Call, frozen=True):
    """A person's word that a host is off."""

    node: str
    who: str
    why: str
    signed_ns: Int
    """CLOCK_BOOTTIME of this host when the person said so.  A daemon that stood still may read it much
    later, and must not take it for word of a loss that came in between."""


class FenceStatus(_Call, frozen=True):
    """Who can be fenced, who waits to be, which proof is missing, who acts, what comes next; is it disarmed.

    Reply result: see `engine.fence_report`."""

    node: str = ""
    """Empty: every node."""


class FenceNode(_Call, frozen=True):
    """Fence a node, be it alive: a member is taken out at once.

    Reply result, as soon as the order stands: {"node", "order": its id, "lives": [life]}; what becomes of
    it `FenceStatus` tells.  The request's own id is the order's: to repeat it changes nothing."""

    node: str
    who: str
    why: str
    asked_ns: Int
    """CLOCK_BOOTTIME of this host when it was asked for: a daemon that stood still must not shoot for it."""
    action: str = ""
    """off | reboot; empty: as the configuration says."""


class FenceDisarm(_Call, frozen=True):
    """Maintenance: no agent is started anywhere for so long, and running ones are stopped; but a node that is
    let in still gets its own way to the storage.

    Reply result: {"disarmed": {"who", "why", "left_ms"}}."""

    for_ms: Int
    who: str
    why: str = ""


class FenceArm(_Call, frozen=True):
    who: str


class NodeReenrol(_Call, frozen=True):
    """Another machine may be this node from now on: the next to join under its name.

    Reply result: {"node", "machine": the one that was enrolled}."""

    node: str
    who: str
    why: str = ""


class FenceTrust(_Call, frozen=True):
    """End a device's quarantine by an operator's word."""

    device: str
    who: str


class FenceTest(_Call, frozen=True):
    """Have every ready node try, without switching anything, whether it could fence.

    One reply that is not final comes with each node's results: {"tests": [{"tester", "node", "use",
    "outcome", "what", "took_ms"}]}.  The last one has those of all, and besides {"silent", "absent",
    "unfenceable": [node's name]}: who did not answer, who is not ready, who has no device."""

    target: str = ""
    """A node, a device, or a use of one ("apc-a[5]"); empty: all."""


class FenceDrill(_Call, frozen=True):
    """Try a part of fencing in earnest, from this node.

    Replies that are not final: {"line": what happens}.  The last one: {"passed", "verdict", "lines"}."""

    node: str
    who: str
    destructive: bool = False
    """Cut the power of a node that is in no lockspace; else: one outlet of two at a time."""
    level: Int = 1
    """Of a destructive drill, from 1."""


class ConfigShow(_Call, frozen=True):
    pass


class ConfigApply(_Call, frozen=True):
    config: ClusterConfig


class Leave(_Call, frozen=True):
    """Close all volumes, leave the cluster cleanly and end the daemon; orphans end with it.

    Refused, with nothing closed, while a client has a lock that it does not merely cache (see `Lock`).  With
    force (which only the daemon itself asks for, when it must end) clients' locks are taken away after the
    volumes are closed, as `LeaveSpace` does it."""

    force: bool = False


# -- locks -------------------------------------------------------------------


class JoinSpace(_Call, frozen=True):
    """With wait_ms 0 it is refused where this node cannot act now, or the lockspace is frozen; else it waits,
    and the client gives up."""

    lockspace: str
    wait_ms: Int | None = None


class LeaveSpace(_Call, frozen=True):
    """Refused while anybody has a lock there; what is merely cached (see `Lock`) is asked back first.

    With force, clients' locks and orphans are taken away first: their holders are told {"lost": true}, and
    what they could write is no longer valid.  Never what volumes use."""

    lockspace: str
    force: bool = False


class PurgeOrphans(_Call, frozen=True):
    """Let go of what clients of this node left behind (PERSISTENT), in one resource or in all ("").

    Reply result: {"purged": count}."""

    lockspace: str
    resource: str = ""


class Lock(_Call, frozen=True):
    """Reply result: {"lock": id, "mode", "token", "lvb": base64 or null, "lvb_valid", "demoted", "altmode"};
    the last two: the mode held was given up meanwhile; the mode granted is the alternative.

    wait_ms: None waits for ever, 0 is a try-lock (NOQUEUE)."""

    lockspace: str
    resource: str
    mode: str = "EX"
    wait_ms: Int | None = None
    flags: Int = 0
    lvb: bytes | None = None
    """Refused: a value block is written by `Convert` and `Unlock`."""
    notices: bool = False
    """Send non-final replies {"blocking": MODE, "lock": id} when somebody is kept waiting by this lock."""
    cached: bool = False
    """The client may keep the lock after use, and answers notices (which this implies) at once: it
    unlocks if it does not use the lock, else it says `Busy` to {"blocking": MODE, "lock": id, "tries": true}
    and unlocks after use.  The result has "incarnation" as well: it may use what it keeps only while that
    incarnation's page "grant" (host.pages; `authority` beside the socket) says that authority is valid.

    Only CW, PR, PW and EX can be cached, and without flags."""
    deadlock: bool = False
    """Refuse it (deadlock) rather than let it wait in a ring, if it is the newest there that asks so."""
    owner: str = ""
    """What ties locks together in the search for such rings, on any node: who waits for one lets go of no
    other of the same owner.  Empty: the thread; but a cached lock, which outlives its uses, is on its own."""
    thread: str = ""
    """Which of a client's threads (or tasks) asks, where one has locks on several connections or several
    have on one: a name that nobody else on this node has.  Empty: the connection."""


class Convert(_Call, frozen=True):
    lock: Int
    mode: str
    wait_ms: Int | None = None
    flags: Int = 0
    lvb: bytes | None = None
    deadlock: bool = False
    """As in `Lock`, and with the owner of that one; the old mode is kept."""


class Unlock(_Call, frozen=True):
    lock: Int
    flags: Int = 0
    lvb: bytes | None = None
    quiet: bool = False
    """No reply unless it fails.  What this connection asks for next comes after it all the same."""


class Cancel(_Call, frozen=True):
    """Take back what a Lock or Convert of this connection waits for; that one ends with an error.

    If it was answered meanwhile: what a Lock was granted is released, a conversion stands.
    Reply result: {"cancelled": bool}; false: nothing to take back was found."""

    request: str
    """Its id."""


class Busy(_Call, frozen=True):
    """This connection uses a cached lock: tries that it is in the way of are refused."""

    lock: Int


# -- volumes: LVM2's verbs ---------------------------------------------------


class PvCreate(_Call, frozen=True):
    devices: tuple[str, ...]
    force: bool = False
    metadata_size_bytes: Int = 0


class Pvs(_Call, frozen=True):
    segments: bool = False
    """Each row has "segments" as well: what each piece of the PV is used for (`volumes.report_segments`)."""


class VgCreate(_Call, frozen=True):
    vg: str
    devices: tuple[str, ...]
    shared: bool = False
    extent_size_bytes: Int = 0
    metadata_size_bytes: Int = 0
    force: bool = False
    tags: tuple[str, ...] = ()
    policy: str = ""
    max_lv: Int | None = None
    max_pv: Int | None = None
    autoactivation: bool | None = None


class VgExtend(_Call, frozen=True):
    vg: str
    devices: tuple[str, ...]
    force: bool = False
    metadata_size_bytes: Int = 0
    restore_missing: bool = False
    """They are PVs of the VG that are flagged as missing, and are to be trusted again."""


class VgReduce(_Call, frozen=True):
    """Exactly one of devices, all (that are not in use) and remove_missing."""

    vg: str
    devices: tuple[str, ...] = ()
    all: bool = False
    remove_missing: bool = False
    force: bool = False
    """With remove_missing: remove the LVs that are partly on them."""


class VgRename(_Call, frozen=True):
    vg: str
    """Its name, or its uuid."""
    new: str


class VgSet(_Call, frozen=True):
    """vgchange of what stands in the metadata; None = as it is."""

    vg: str
    add_tags: tuple[str, ...] = ()
    drop_tags: tuple[str, ...] = ()
    policy: str = ""
    resizeable: bool | None = None
    max_lv: Int | None = None
    max_pv: Int | None = None
    autoactivation: bool | None = None
    extent_size_bytes: Int = 0
    """0: as it is."""


class VgCk(_Call, frozen=True):
    vg: str
    update_metadata: bool = False
    """Write it anew to all areas, and clear PVs that were taken out of it."""


class VgCfgBackup(_Call, frozen=True):
    """Write the VG's metadata to this host's file of backups.

    Reply result: {"message", "vg", "file": path}."""

    vg: str


class VgCfgRestore(_Call, frozen=True):
    """Make a VG what a file says it was.  Refused while any host has an LV of it active."""

    vg: str
    text: str
    """The file, as `lvm2.backup.pack` makes it."""


class PvRemove(_Call, frozen=True):
    devices: tuple[str, ...]
    force: Int = 0
    """2: though it belongs to a VG, or to nobody knows what."""


class PvResize(_Call, frozen=True):
    devices: tuple[str, ...]
    size_bytes: Int = 0
    """0: the device's."""
    yes: bool = False
    """To a size larger than the device, or smaller, on purpose."""


class PvCk(_Call, frozen=True):
    """Reply result: {"lines": [str], "problems": [str]}."""

    device: str
    dump: str = ""
    """headers | metadata | metadata_all | metadata_search; empty: a judgement."""


class VgRemove(_Call, frozen=True):
    vg: str
    force: bool = False
    """Remove its LVs too."""


class VgChange(_Call, frozen=True):
    """vgchange --lockstart | --lockstop | --shared (locktype).  Empty `vg` = all shared VGs."""

    action: str
    """lockstart | lockstop."""
    vg: str = ""


class Vgs(_Call, frozen=True):
    vg: str = ""


class LvCreate(_Call, frozen=True):
    """Exactly one of size_bytes and extents.  `percent` applies to extents: "VG" | "FREE" | "PVS" | ""."""

    vg: str
    lv: str = ""
    """Empty: lvol0, lvol1, …"""
    size_bytes: Int = 0
    extents: Int = 0
    percent: str = ""
    activate: str = "ey"
    """ey | sy | n."""
    wait_ms: Int | None = None
    stripes: Int = 1
    stripe_size_bytes: Int = 0
    """0: LVM2's default, 64 KiB."""
    alloc: str = "inherit"
    """contiguous | cling | normal | anywhere | inherit (from the VG)."""
    pvs: tuple[str, ...] = ()
    """Where it may be: DEVICE, DEVICE:FIRST-LAST:…, @TAG, in order of preference.  Empty: anywhere."""
    tags: tuple[str, ...] = ()
    permission: str = "rw"
    """rw | r."""
    wipe: bool = True
    """Zero all of it before it can be opened; else it shows what was on its extents before."""


class Lvs(_Call, frozen=True):
    vg: str = ""
    lv: str = ""
    all: bool = False
    """The LV of the disk slots and those that are being wiped, too."""
    fields: tuple[str, ...] = ()
    """Only these, as {"columns": {field: [one value for each LV]}} in place of {"rows": [{field: value}]}: in
    this order, LVs in that of the metadata, a VG after the other.  A field that the daemon does not know is
    refused (bad-input)."""
    same: bool = False
    """With `fields`: those whose value is the same for all LVs stand in "same": {field: value} instead, and
    "count" says how many LVs there are."""


class LvChange(_Call, frozen=True):
    vg: str
    lv: str
    """Empty: every LV of the VG."""
    activate: str = ""
    """ey | sy | n; empty: as it is."""
    wait_ms: Int | None = 0
    """How long to queue behind a holder; 0 = refuse at once, None = for ever."""
    add_tags: tuple[str, ...] = ()
    drop_tags: tuple[str, ...] = ()
    permission: str = ""
    """rw | r; empty: as it is.  To take the access away needs the LV's lock EX."""
    alloc: str = ""
    """As in `LvCreate`; empty: as it is."""
    refresh: bool = False
    """Reload what is open here by what the metadata says."""
    force: bool = False
    """Activate it shared whatever is on it."""
    partial: bool = False
    """Activate it though PVs of it are missing: what lies there fails."""
    disconnect: bool = False
    """Deactivate it, or change its mode, though NBD clients are connected: they are cut off."""
    counted: bool = False
    """Of every LV of a VG the result says how many, in "count", and not "lvs", which."""


class LvHandover(_Call, frozen=True):
    """Have another node go on with an LV that this one has open, EX; or take that back.

    Reply result: {"message", "vg", "name", "uuid", "to", "state"}; the state is "handed over", "given" (it is
    decided, and the taker has not said yet that it goes on), "prepared" or "taken back"."""

    vg: str
    lv: str
    to: str = ""
    """The node's name."""
    prepare: bool = False
    """Only have it open its end, to read; the same call without this goes on."""
    abort: bool = False
    """Take back what is not decided, instead."""
    wait_ms: Int | None = None
    """For the VG's lock."""


class LvResize(_Call, frozen=True):
    """Exactly one of size_bytes and extents; `percent` applies to extents: VG | FREE | PVS | LV.

    Reply result: {"message", "name", "vg", "uuid", "size_bytes", "old_size_bytes", "notes", "device"}; the
    last: where it is open here, or empty."""

    vg: str
    lv: str
    size_bytes: Int = 0
    extents: Int = 0
    percent: str = ""
    sign: str = ""
    """+ | -: by so much; empty: to so much."""
    only: str = ""
    """extend | reduce: refused if it would be the other; empty: whichever it is."""
    stripes: Int = 0
    """Of what is added; 0: as the LV has."""
    stripe_size_bytes: Int = 0
    alloc: str = "inherit"
    pvs: tuple[str, ...] = ()
    """As in `LvCreate`."""
    force: bool = False
    """Reduce it: what is at its end is lost."""
    wipe: bool = True
    """Zero what is added before it can be read, wipe what is given up before it is free."""
    wait_ms: Int | None = None
    """For the VG's lock."""


class LvRename(_Call, frozen=True):
    """Also while it is active, anywhere: its path gets the new name."""

    vg: str
    lv: str
    new: str
    wait_ms: Int | None = None
    """For the VG's lock."""


class LvRemove(_Call, frozen=True):
    """Where much is left to be wiped (likewise of `LvResize`), or zeroed (`LvCreate`, not activated), the
    result has "unclean" and "uuid_unclean", the name and uuid of the LV that keeps it until then."""

    vg: str
    lv: str
    force: bool = False
    wipe: bool = True
    """Its extents are free only once they are wiped; else at once, with what is on them."""


class PvMove(_Call, frozen=True):
    """Reply result: {"message", "moved_bytes", "notes"}, when all is moved that can be from this node."""

    source: str = ""
    """PV[:RANGE...]; empty: go on with all that was begun and not ended."""
    pvs: tuple[str, ...] = ()
    """PV[:RANGE...] or @TAG, where it may go; none: to any other PV."""
    lv: str = ""
    """This one's extents alone."""
    alloc: str = "inherit"
    abort: bool = False
    """Give up what is on its way, from the source or all; what has arrived stays there."""
    background: bool = False
    """Answer as soon as all is set apart: the hosts go on by themselves."""
    wait_ms: Int | None = None


class SlotsAdd(_Call, frozen=True):
    """Give a shared VG disk slots."""

    vg: str


class SlotsForget(_Call, frozen=True):
    """A VG that had disk slots was removed behind ringfence's back: let go of what waits for a mark there."""

    vg: str


class SlotsShow(_Call, frozen=True):
    """What stands in a VG's disk slots.

    Reply result: {"vg", "path", "start_bytes", "nodes": [{"node", "name", "life", "counter", "age_s",
    "clean", "mark", "mark_epoch", "mark_cut", "marked_by", "damaged": [line]}]}."""

    vg: str


Call = (
    Status | Why | Locks | Deadlocks | Checkup | Events | FenceHistory | FenceConfirm | FenceTrust
    | FenceStatus | FenceNode | FenceDisarm | FenceArm | NodeReenrol | FenceTest | FenceDrill
    | ConfigShow | ConfigApply | Leave | JoinSpace | LeaveSpace | PurgeOrphans
    | Lock | Convert | Unlock | Cancel | Busy
    | PvCreate | Pvs | VgCreate | VgRemove | VgChange | Vgs | LvCreate | Lvs | LvChange | LvRemove
    | LvResize | LvRename | LvHandover
    | PvRemove | PvResize | PvMove | PvCk | VgExtend | VgReduce | VgRename | VgSet | VgCk
    | VgCfgBackup | VgCfgRestore
    | SlotsAdd | SlotsForget | SlotsShow
)  # fmt: skip

LockCall = Lock | Convert | Unlock | Cancel | Busy
LOCK_CALLS = (Lock, Convert, Unlock, Cancel, Busy)
"""Calls about a connection's own locks."""
CONNECTION_CALLS = (*LOCK_CALLS, Events)
"""They belong to their connection and end with it."""
OPERATOR_CALLS = (FenceStatus, FenceNode, FenceDisarm, FenceArm, NodeReenrol)
"""Words about fencing and machines that `engine.operator` answers."""
VOLUME_CALLS = (
    PvCreate, Pvs, VgCreate, VgRemove, VgChange, Vgs, LvCreate, Lvs, LvChange, LvRemove,
    LvResize, LvRename,
    PvRemove, PvResize, PvMove, PvCk, VgExtend, VgReduce, VgRename, VgSet, VgCk,
    VgCfgBackup, VgCfgRestore,
    SlotsAdd, SlotsForget, SlotsShow,
)  # fmt: skip


READING_CALLS = (Pvs, PvCk, Vgs, VgCfgBackup, Lvs, SlotsShow)
"""Volume calls that change nothing, and are answered by a node that cannot act."""


class Request(msgspec.Struct, frozen=True):
    id: str
    call: Call


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    result: Any = None
    error: dict[str, Any] | None = None
    """As RingfenceError.as_dict().  Beside it, `result` says what a failed Convert left held, if that is not
    the old mode: CONVDEADLK gave it up."""
    final: bool = True


_encoder = msgspec.json.Encoder()


def encode(message: Request | Reply) -> bytes:
    """One line, newline included."""
    return _encoder.encode(message) + b"\n"


decode_request = msgspec.json.Decoder(Request).decode
"""A line's request.  Raises msgspec.MsgspecError."""
decode_reply = msgspec.json.Decoder(Reply).decode
"""A line's reply.  Raises msgspec.MsgspecError."""
