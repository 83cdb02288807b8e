"""What ringfence says in corosync's process group: an envelope around the engine's payloads.

Four bytes, "rfc" and the version, then one tagged MessagePack array:

Hello   what each member says after every change of who is in; all of them together make a view
LeaveOut  these do not say it: a view without them
Batch   payloads, in their order
Piece   a part of one payload that is larger than a message may be

Neither `Batch` nor `Piece` needs to say in which view it was sent: see `ring.corosync.exchange`.

Anybody whom corosync lets in can speak in the group.  `decode` refuses what is not ours; whoever
refuses drops it and goes on.

Pure: bytes in, values out."""

import msgspec

MAGIC = b"rfc"
VERSION = 1
LARGEST_SEQ = 1 << 53
"""An epoch's sequence that a hello may claim to have seen: more were never counted."""


class Process(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A member of the group, as corosync names it."""

    node: int
    pid: int


class RingId(msgspec.Struct, frozen=True, order=True, array_like=True):
    """Of corosync's totem ring: it changes whenever the ring forms anew."""

    seq: int = 0
    rep: int = 0


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


class Hello(_Message, frozen=True, tag=1):
    """A process's first word after a change: which change it answers, and what the next epoch stands on."""

    ring: RingId
    members: tuple[Process, ...]
    """Of the group, sorted, the sender too.  With `ring` it says which change this is about."""
    seen: int
    """Highest epoch sequence that the sender knows, from its disk or from a view."""
    leaves_out: bool = False
    """Whether the sender understands `LeaveOut`."""


class LeaveOut(_Message, frozen=True, tag=4):
    """The sender has waited long enough for these to answer a change: the view is of all others, and of those
    of them that have answered by now.  Only from who has answered it."""

    ring: RingId
    members: tuple[Process, ...]
    """With `ring`: the change, as in `Hello`."""
    processes: tuple[Process, ...]


class Batch(_Message, frozen=True, tag=2):
    payloads: tuple[bytes, ...]


class Piece(_Message, frozen=True, tag=3):
    """The parts of a payload follow one another; nothing else of that sender comes between."""

    number: int
    """From 0."""
    last: bool
    body: bytes


Message = Hello | LeaveOut | Batch | Piece

_HEAD = MAGIC + bytes([VERSION])
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class NotOurs(Exception):
    """Bytes in the group that this version does not take for a message; the text says why."""


def encode(message: Message) -> bytes:
    return _HEAD + _encoder.encode(message)


def decode(data: bytes) -> Message:
    """Raises NotOurs."""
    if data[:3] != MAGIC:
        raise NotOurs("it is no message of ringfence")
    if data[3:4] != _HEAD[3:4]:
        raise NotOurs(f"it is in version {data[3] if len(data) > 3 else 0} of the envelope, not {VERSION}")
    try:
        message = _decoder.decode(memoryview(data)[4:])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotOurs(f"it is damaged ({error})") from None
    if isinstance(message, Hello) and not 0 <= message.seen <= LARGEST_SEQ:
        raise NotOurs(f"it claims the epoch sequence {message.seen}")
    return message
