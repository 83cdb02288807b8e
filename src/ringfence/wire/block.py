"""The block service's language: one JSON object a line, both ways, and its worker's the same.

On the control socket a client sends `Request`s and gets one `Reply` each, in whatever order they
finish.  After `Watch` the service also sends a `Notice` for every incident that has not been
acknowledged yet, then for each new one, until `Acknowledge`d: at least once, never lost.  Ending the
connection closes no path.

Between the service and a worker: the worker reads one `Order` on a socket pair and answers with
`WorkerReady` or `WorkerFailed`, answers each `Swap`, tells its connections and incidents, and ends after
`EndWorker`.

Pure: bytes in, values out."""

from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

import msgspec

from ringfence.core.modes import EX, Mode
from ringfence.wire.entries import Incident

MAX_LINE_BYTES = 16 << 20
"""Of what the service is asked.  An LV of a hundred thousand extents still fits."""
MAX_ANSWER_BYTES = 256 << 20
"""Of what it answers: a hundred thousand open LVs can be listed."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a stripe begins."""

    path: str
    """Empty, also in an `Extent`: its device is missing, and what is asked of it fails."""
    start_bytes: int


class Extent(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A piece of an LV, in bytes: linear, or dealt out in stripes.  The LV is all of them, one after the
    other."""

    path: str
    start_bytes: int
    length_bytes: int
    beside: tuple[Place, ...] = ()
    """The other stripes; each is as long as the first, and `length_bytes` is the length of all."""
    stripe_bytes: int = 0
    """So much of the LV lies on one stripe, then as much on the next; 0: there is one alone."""

    @property
    def places(self) -> tuple[Place, ...]:
        return (Place(self.path, self.start_bytes), *self.beside)


class Plane(Enum):
    """How an active LV reaches its user."""

    NBD = "nbd"
    """A Unix socket on which a worker process of the block service answers."""
    DM = "dm"
    """A block device of this host's kernel, through device-mapper."""
    AUTO = "auto"
    """DM where this host has device-mapper and the LV lies on block devices, else NBD."""


class Hold(Enum):
    """What an LV's hand-over to another host does to its path here: at the one end, or at the other.

    Under a path that is held, its lock may be weaker than one that lets write (`engine.handovers`)."""

    NONE = ""
    LENDING = "lending"
    """Its other end is prepared: it writes on, and nobody else does."""
    GIVING = "giving"
    """What changes it waits, and is done or fails when that is decided; reads are answered."""
    BORROWING = "borrowing"
    """Opened for an LV that the other host still writes: changes wait, and reads are answered, with
    whatever is on the disk by then."""
    TAKING = "taking"
    """Changes wait, reads are answered; nobody writes."""

    @property
    def waits(self) -> bool:
        """Whether changes wait."""
        return self not in (Hold.NONE, Hold.LENDING)

    @property
    def least(self) -> Mode:
        """What the LV's lock is at the least, while a path of one host alone has this hold.

        A hold is set before its lock is weakened, and made less after the lock has become stronger."""
        return EX if self is NO_HOLD else _LEAST[self]


NO_HOLD: Final = Hold.NONE
"""By its name alone, as `core.modes.UN`."""
_LEAST = {
    Hold.LENDING: Mode.PW,
    Hold.GIVING: Mode.PR,
    Hold.TAKING: Mode.PR,
    Hold.BORROWING: Mode.CR,
}


def joined(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """The same, in as few pieces as can be."""
    found: list[Extent] = []
    for one in extents:
        if found and _follows(found[-1], one):
            length_bytes = found[-1].length_bytes + one.length_bytes
            found[-1] = msgspec.structs.replace(found[-1], length_bytes=length_bytes)
        else:
            found.append(one)
    return tuple(found)


def _follows(one: Extent, other: Extent) -> bool:
    """Whether the other goes on where the one ends, on each of its stripes."""
    length_bytes = one.length_bytes // len(one.places)
    ends = tuple(Place(place.path, place.start_bytes + length_bytes) for place in one.places)
    return (ends, one.stripe_bytes) == (other.places, other.stripe_bytes)


def moved(extents: Iterable[Extent], offset_bytes: int, to: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """An LV of which the stretch from an offset on has another place; joined.

    Raises ValueError: it begins or ends within a row of stripes."""
    end_bytes = offset_bytes + sum(one.length_bytes for one in to)
    before: list[Extent] = []
    behind: list[Extent] = []
    at = 0
    for one in extents:
        end = at + one.length_bytes
        if at < offset_bytes:
            before.append(_cut(one, 0, min(end, offset_bytes) - at))
        if end > end_bytes:
            skip = max(end_bytes - at, 0)
            behind.append(_cut(one, skip, one.length_bytes - skip))
        at = end
    return joined([*before, *to, *behind])


def begins_with(extents: Iterable[Extent], head: tuple[Extent, ...]) -> bool:
    """Whether an LV is another one (joined), or that and more behind it."""
    rest = sum(one.length_bytes for one in head)
    first: list[Extent] = []
    for one in extents:
        length_bytes = min(one.length_bytes, rest)
        if not length_bytes:
            break
        if length_bytes % (one.stripe_bytes * len(one.places) or 1):
            return False
        first.append(_cut(one, 0, length_bytes))
        rest -= length_bytes
    return not rest and joined(first) == head


def _cut(one: Extent, skip_bytes: int, length_bytes: int) -> Extent:
    """Raises ValueError: it does not begin and end with a row of stripes."""
    count = len(one.places)
    row_bytes = one.stripe_bytes * count or 1
    if skip_bytes % row_bytes or length_bytes % row_bytes:
        raise ValueError("within a row of stripes")
    first, *beside = (Place(place.path, place.start_bytes + skip_bytes // count) for place in one.places)
    return Extent(first.path, first.start_bytes, length_bytes, tuple(beside), one.stripe_bytes)


class _Call(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    pass


# -- asking ---------------------------------------------------------------------


class Open(_Call, frozen=True, omit_defaults=True, gc=False):
    """Start a worker for an LV.  Result: Path.  An LV that is open with the same order: its Path again."""

    vg: str
    lv: str
    uuid: str
    extents: tuple[Extent, ...]
    pages: tuple[str, ...]
    """Authority pages; a write needs all of them valid."""
    shared: bool = False
    readonly: bool = False
    hold_ms: int = 60000
    """How long a request waits on lapsed authority before it fails."""
    node: int = 0
    """This host's node id, for incidents."""
    token: str = ""
    """Of the lock it is opened under; for the daemon that comes next."""
    plane: Plane = Plane.NBD
    vg_uuid: str = ""
    """What the plane DM needs beside the rest."""
    hold: Hold = Hold.NONE
    """Else on the plane NBD, whatever `plane` says."""


class Close(_Call, frozen=True, gc=False):
    """Result: None, once the worker has answered what it had begun, was ended and reaped.

    With `flush` the LV's devices are flushed first (also after a worker that failed)."""

    vg: str
    lv: str
    flush: bool = True
    uuid: str = ""
    """Given: this LV's path, whatever it is called by now, and no other's."""


class Together(_Call, frozen=True):
    """Each of these, by itself.  Result: a list of Outcome, in their order.

    What is opened so has its socket; its worker starts with the first client (`Path.pid` is 0 until then)."""

    calls: tuple[Open | Close, ...]


class Reload(_Call, frozen=True, omit_defaults=True):
    """Change what an open LV is made of, or its hold, under its running clients.  Result: Path, as it is
    then.

    New requests wait, those under way are answered, the new extents take the old ones' place, and it goes
    on; connections live on.  Their clients keep the size that they were told, new ones are told the new one.
    Whatever fails is answered, and then all is as it was.  A Reload to what is there changes nothing."""

    vg: str
    lv: str
    """The name it is open under (or `name`, where this is asked for once more)."""
    uuid: str
    """Refused if the open LV has another."""
    extents: tuple[Extent, ...]
    name: str
    """What it is called from now on: its socket and its export are renamed.  `lv`: as before."""
    readonly: bool = False
    token: str = ""
    """Of the lock it is reloaded under, and is open under from then on; refused if it was opened under a
    later one.  Empty: not compared."""
    hold: Hold | None = None
    """None: as before.  Else `token` is that of the lock from now on, and not compared.  Answered when no
    change is under way any more, and flushed, where they wait from now on."""


class Mirror(_Call, frozen=True):
    """Copy a stretch of an open LV to another place, and keep it equal there.  Result: Path, whose `moving`
    goes on to change.

    Asked for once more it is the one that is there; of an LV only one stretch is moved at a time."""

    vg: str
    lv: str
    uuid: str
    offset_bytes: int
    """Where in the LV it begins."""
    to: tuple[Extent, ...]
    """Its new place, as long as the stretch."""
    token: str = ""
    """As in Reload."""


class Seal(_Call, frozen=True):
    """From now on no write is answered well that is not in both places: the metadata may name the new one.

    Result: Path.  Refused if the copy is not complete, or has failed."""

    vg: str
    lv: str
    uuid: str


class Unmirror(_Call, frozen=True):
    """Forget the new place.  Result: Path.  Never once metadata are committed that name it: then Reload."""

    vg: str
    lv: str
    uuid: str


class DropAll(_Call, frozen=True):
    """End every worker now, without flush.  Result: None, once all are reaped."""


class List(_Call, frozen=True):
    """Result: a list of Path."""


class TakeOver(_Call, frozen=True):
    """A new daemon begins.  Result: a list of Path, all that is open.

    What an earlier connection asks for from now on is refused: its daemon is gone, and an Open that is
    read late would open what nobody knows of."""


class Watch(_Call, frozen=True):
    """Send incidents on this connection.  Result: None."""


class Acknowledge(_Call, frozen=True):
    """These incidents are recorded elsewhere; forget them.  Result: None."""

    ids: tuple[str, ...]


Call = (
    Open | Close | Together | Reload | Mirror | Seal | Unmirror | DropAll | List | TakeOver | Watch
    | Acknowledge
)  # fmt: skip


class Request(msgspec.Struct, frozen=True):
    id: int
    call: Call


# -- answers --------------------------------------------------------------------


class Moving(msgspec.Struct, frozen=True):
    """How far the move of a stretch is."""

    offset_bytes: int
    length_bytes: int
    copied_bytes: int = 0
    complete: bool = False
    """All of it is copied, and on stable storage; what is written since then goes to both places."""
    sealed: bool = False
    failed: str = ""
    """Why the copy is of no use: begin again."""


class Path(msgspec.Struct, frozen=True, omit_defaults=True):
    """An open LV, as the service sees it."""

    vg: str
    lv: str
    uuid: str
    path: str
    """The Unix socket on which the LV is an NBD export, or a link to its device."""
    uri: str
    size_bytes: int
    shared: bool = False
    readonly: bool = False
    pid: int = 0
    """The worker; 0: nobody has come yet, or it is a device."""
    connections: int = 0
    direct: bool = True
    """False: the file system has no direct I/O; writes are O_DSYNC through this host's page cache."""
    failed: str = ""
    """Why its worker ended by itself.  Reaped, but not closed: it waits for a Close."""
    stopped: str = ""
    """Why its worker stands still, and what to do."""
    pages: tuple[str, ...] = ()
    """The authority pages it was opened with."""
    token: str = ""
    """Of the lock it was opened under."""
    extents: tuple[Extent, ...] = ()
    """What it is made of now."""
    plane: Plane = Plane.NBD
    """NBD or DM.  Of a device `pid` is 0, and `connections` says how often it is open."""
    moving: Moving | None = None
    fast: bool | None = None
    """Whether usual requests are served without the interpreter; None: not told, or it is a device."""
    hold: Hold = Hold.NONE


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of one of many calls."""

    path: str = ""
    """Of what was opened: as in Path."""
    uri: str = ""
    error: dict[str, Any] | None = None
    """As RingfenceError.as_dict()."""


class Reply(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    id: int
    result: Any = None
    error: dict[str, Any] | None = None
    """As RingfenceError.as_dict()."""


class Answered(msgspec.Struct, frozen=True, tag="Reply"):
    """A Reply as its reader has it: what the result is, whoever asked knows (`as_path`, …)."""

    id: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: dict[str, Any] | None = None


class Notice(msgspec.Struct, frozen=True, tag=True):
    id: str
    incident: Incident


Answer = Reply | Notice


# -- between the service and a worker ----------------------------------------------


class Order(msgspec.Struct, frozen=True):
    """All that a worker needs, its first line."""

    open: Open
    socket: str
    incidents: str
    """The append-only file that incidents go to before anybody is answered."""
    lock_fd: int
    """Kept open as long as the worker lives: nobody takes the service's lock before."""
    group: int = -1
    """The socket's group; -1: unchanged."""
    in_flight: int = 16
    """How many requests may be on their way to the disks at one time: so many writes can land late."""
    memory_fd: int = -1
    """A file that is locked, and stays so until the worker's memory is gone (`handle`)."""
    listener_fd: int = -1
    """The socket, where it listens already; -1: it is to be made."""


class WorkerReady(msgspec.Struct, frozen=True, tag=True):
    direct: bool
    block_bytes: int
    fast: bool | None = None
    """As in `Path`."""


class WorkerFailed(msgspec.Struct, frozen=True, tag=True):
    """The worker could not begin, or could not flush at its end.  It ends."""

    error: dict[str, Any]


class Connections(msgspec.Struct, frozen=True, tag=True):
    count: int


class IncidentStored(msgspec.Struct, frozen=True, tag=True):
    """A worker's new incident.  `durable` false: the file refused it, this message is all there is."""

    id: str
    incident: Incident
    durable: bool = True


class Swapped(msgspec.Struct, frozen=True, tag=True):
    """The answer to each word that is not the end, in their order."""

    direct: bool = True
    error: dict[str, Any] | None = None
    """As RingfenceError.as_dict(): nothing has changed."""


class Moves(msgspec.Struct, frozen=True, tag=True):
    """How far a move is now; None: nothing is moved any more."""

    moving: Moving | None


FromWorker = WorkerReady | WorkerFailed | Connections | IncidentStored | Swapped | Moves


class Swap(msgspec.Struct, frozen=True, tag=True):
    """Serve this from now on."""

    open: Open
    socket: str


class EndWorker(msgspec.Struct, frozen=True, omit_defaults=True):
    """The end, unless it has another word: one message for all, for a service that is older than its workers'
    files knows of the end only."""

    flush: bool = True
    word: Swap | Mirror | Seal | Unmirror | None = None


_encoder = msgspec.json.Encoder()
_request = msgspec.json.Decoder(Request)
_answer: msgspec.json.Decoder[Answered | Notice] = msgspec.json.Decoder(Answered | Notice)
_path = msgspec.json.Decoder(Path)
_outcomes = msgspec.json.Decoder(tuple[Outcome, ...])
_pieces = msgspec.json.Decoder(list[msgspec.Raw])
_order = msgspec.json.Decoder(Order)
_from_worker: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)
_end = msgspec.json.Decoder(EndWorker)


def encode(message: Request | Answer | Order | FromWorker | EndWorker) -> bytes:
    """One line, newline included."""
    return _encoder.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Raises msgspec.MsgspecError."""
    return _request.decode(line)


def decode_answer(line: bytes) -> Answered | Notice:
    """Raises msgspec.MsgspecError."""
    return _answer.decode(line)


def decode_order(line: bytes) -> Order:
    """Raises msgspec.MsgspecError."""
    return _order.decode(line)


def decode_from_worker(line: bytes) -> FromWorker:
    """Raises msgspec.MsgspecError."""
    return _from_worker.decode(line)


def decode_end(line: bytes) -> EndWorker:
    """Raises msgspec.MsgspecError."""
    return _end.decode(line)


def as_path(result: msgspec.Raw) -> Path:
    """An answer's result as a Path.  Raises msgspec.MsgspecError."""
    return _path.decode(result)


def as_outcomes(result: msgspec.Raw) -> tuple[Outcome, ...]:
    """An answer's result as Outcomes.  Raises msgspec.MsgspecError."""
    return _outcomes.decode(result)


def as_pieces(result: msgspec.Raw) -> list[msgspec.Raw]:
    """An answer's result as results, a list's members: there may be more than should be decoded in one step.

    Raises msgspec.MsgspecError."""
    return _pieces.decode(result)
