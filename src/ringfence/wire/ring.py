"""Frames: what nodes multicast to each other.  MessagePack; every frame bears its sender's life,
the protocol version and the epoch it was sent in, so that a receiver can drop what is stale."""

import msgspec

from ringfence.core.ids import Epoch, Life
from ringfence.wire import PROTOCOL
from ringfence.wire.entries import Entry


class Heartbeat(msgspec.Struct, frozen=True, tag=True):
    """Sent every heartbeat_ms, only after the sender's barrier in this view is complete."""

    counter: int
    echoes: dict[int, int]
    """Newest heartbeat counter seen in this view from each ready member, by node id."""


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
    """False: this node is stale and still drops data paths; it must not be admitted yet."""
    procdown: tuple[int, ...] = ()
    """Nodes whose daemon left while their host stayed, as this node's ring reported it."""
    config_version: int = 0
    config_digest: str = ""
    wall_ms: int = 0
    """The sender's wall clock; the ordered state's own idea of the date comes from these."""
    fenced: tuple[Life, ...] = ()
    """Lives that the sender's state has given up for fenced: whoever still lives one is stale."""
    quarantined: tuple[tuple[str, str], ...] = ()
    """Devices that this node's disk remembers as liars, each with why; for a state that begins afresh."""


class Snapshot(msgspec.Struct, frozen=True, tag=True):
    """The whole state as of the sender's position just after the targets were admitted."""

    targets: tuple[int, ...]
    state: bytes


class Submitted(msgspec.Struct, frozen=True, tag=True):
    """One entry; `seq` counts up within the sender's life, so that a resubmission counts once."""

    seq: int
    entry: Entry
    wall_ms: int = 0
    after: int = 0
    """The number of the sender's entry that must be the last one applied: none in between may be lost."""


Item = Heartbeat | Ready | Snapshot | Submitted


class Frame(msgspec.Struct, frozen=True, array_like=True):
    protocol: int
    epoch: Epoch
    life: Life
    items: tuple[Item, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def encode(epoch: Epoch, life: Life, items: tuple[Item, ...]) -> bytes:
    return _encoder.encode(Frame(PROTOCOL, epoch, life, items))


def decode(payload: bytes) -> Frame:
    """Raises msgspec.MsgspecError on anything that is not a frame."""
    return _decoder.decode(payload)
