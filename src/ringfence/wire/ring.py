"""Frames: what nodes multicast to each other.  MessagePack; every frame bears its sender's life,
the protocol it is written in and the epoch it was sent in, so that a receiver can drop what is stale.

A frame's shape and `Ready` are understood by every ringfence, whatever else it speaks: in them nodes
find out which protocol they have in common."""

import msgspec

from ringfence.core.ids import Epoch, Life, Token
from ringfence.core.modes import Mode
from ringfence.wire import SPEAKS, UNSAID, Speaks
from ringfence.wire.entries import Entry


class Heartbeat(msgspec.Struct, frozen=True, tag=True):
    """Sent every heartbeat_ms, only after the sender's barrier in this view is complete.

    Without echoes by who has yet to take the state, while pieces of it come."""

    counter: int
    echoes: dict[int, int]
    """Newest heartbeat counter seen in this view from each ready member, by node id."""


class OpenLock(msgspec.Struct, frozen=True):
    """A data path that a new daemon found open, as the lock that it was opened under."""

    lockspace: str
    resource: str
    mode: Mode
    token: Token


class Hardware(msgspec.Struct, frozen=True, array_like=True):
    """What the sender's machine is made of, beside the machine-id in its lives (host.hardware)."""

    board: str = ""
    """Digest of the board's own UUID: a copied disk has it not.  Empty: it cannot be read."""
    hypervisor: str = ""
    """The host is itself a virtual machine; of which kind."""


UNSAID_HARDWARE = Hardware()


class Enrolled(msgspec.Struct, frozen=True, array_like=True):
    """The machine that a node id belongs to."""

    node: int
    machine: str
    board: str = ""
    hypervisor: str = ""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The barrier: each member's first word in a view (and again after it went stale)."""

    has_state: bool
    primary: Epoch
    """Epoch of the last primary view that the carried state went through."""
    position: int
    digest: str
    disk_epoch: Epoch
    """Highest primary epoch that this node's disk knows."""
    victims: tuple[Life, ...] = ()
    closed: tuple[Life, ...] = ()
    """Earlier lives of this boot whose data paths this node has verified to be reaped."""
    reaped: bool = True
    """False: data paths of an earlier life of this node are open; it must not be admitted yet."""
    procdown: tuple[int, ...] = ()
    """Nodes whose daemon left while their host stayed, as this node's ring reported it."""
    config_version: int = 0
    config_digest: str = ""
    wall_ms: int = 0
    """The sender's wall clock; the ordered state's own idea of the date comes from these."""
    fenced: tuple[Life, ...] = ()
    """Lives that the sender's state (or its disk, if it has none) has given up for fenced: whoever still
    lives one is stale."""
    quarantined: tuple[tuple[str, str], ...] = ()
    """Devices that this node's disk remembers as liars, each with why; for a state that begins afresh."""
    speaks: Speaks = UNSAID
    """Always written: a node that says nothing of it has no part in anything."""
    protocol: int = 1
    """What is spoken in the state that it carries; without state it says nothing."""
    shown: tuple[OpenLock, ...] = ()
    """With `reaped` False: all that are open.  It may be admitted if these locks can become its own."""
    out: tuple[Life, ...] = ()
    """Lives that had left cleanly by the time of `disk_epoch`, as the sender's disk knows."""
    told: dict[int, tuple[int, int]] = {}
    """How much of each node's entries the carried state has applied: (incarnation, number of the last)."""
    hardware: Hardware = UNSAID_HARDWARE
    enrolled: tuple[Enrolled, ...] = ()
    """Whose each node id is, as the sender's disk knows; for a state that begins afresh."""


class LeaveOut(msgspec.Struct, frozen=True, tag=True):
    """The sender has waited long enough for these members to say Ready: the barrier goes on without those of
    them that have not said it by now.  Only from who has said it in this view."""

    nodes: tuple[int, ...]


class Snapshot(msgspec.Struct, frozen=True, tag=True):
    """The state as of the sender's position just after the targets were admitted, whole or in pieces.

    Neither `state` nor `piece`: the targets are not admitted."""

    targets: tuple[int, ...]
    state: bytes
    piece: bytes = b""
    number: int = 0
    """Of the piece, from 0."""
    last: bool = False
    why: dict[int, str] = {}
    """Why each target is not admitted."""
    again: bool = False
    """That may change within this view: they ask again after a while."""


class Submitted(msgspec.Struct, frozen=True, tag=True):
    """One entry; `seq` counts up within the sender's life, so that a resubmission counts once."""

    seq: int
    entry: Entry
    wall_ms: int = 0
    after: int = 0
    """The number of the sender's entry that must be the last one applied: none in between may be lost."""


Item = Heartbeat | Ready | LeaveOut | Snapshot | Submitted


class Frame(msgspec.Struct, frozen=True, array_like=True):
    protocol: int
    epoch: Epoch
    life: Life
    items: tuple[Item, ...]


class _Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A frame whose items may be of a protocol that this ringfence does not know."""

    protocol: int
    epoch: Epoch
    life: Life
    items: tuple[msgspec.Raw, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)
_envelope = msgspec.msgpack.Decoder(_Envelope)
_ready = msgspec.msgpack.Decoder(Ready)


def encode(epoch: Epoch, life: Life, items: tuple[Item, ...], protocol: int = 1) -> bytes:
    return _encoder.encode(Frame(protocol, epoch, life, items))


def decode(payload: bytes, speaks: Speaks = SPEAKS) -> Frame:
    """A frame; of one in a protocol that `speaks` does not include, only what every node understands.

    Raises msgspec.MsgspecError on anything that is not a frame."""
    try:
        frame = _decoder.decode(payload)
        if speaks.low <= frame.protocol <= speaks.high:
            return frame
    except msgspec.MsgspecError:
        if _envelope.decode(payload).protocol in speaks:
            raise
    envelope = _envelope.decode(payload)
    words: list[Item] = []
    for raw in envelope.items:
        try:
            words.append(_ready.decode(raw))
        except msgspec.MsgspecError:
            continue  # another item, in words that are not ours
    return Frame(envelope.protocol, envelope.epoch, envelope.life, tuple(words))
