"""The hub's language: frames between the broker and its links.

A frame is a 4-byte big-endian length and that many bytes of MessagePack: one tagged message.
Payloads travel several to a frame (`Send` up, `Deliver` down), because on a busy ring the system
call, not the byte, is what costs.  A link speaks `Hello` first and is answered by `Welcome` or
`Refusal`; its role decides what it may say afterwards:

daemon   Send, Pong, Leave      hears View, Deliver, Ping, Removed
host     Pong                   hears Ping, Removed
admin    Cut, Heal, AskStatus   hears Done, HubStatus, Refusal

Pure: bytes in, values out.  `Frames` refuses what it cannot be sure of (a length over the limit,
bytes that are no message): after that nothing on the connection can be trusted, so the caller
closes it."""

import enum
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from ringfence.core.ids import Epoch

HUB_PROTOCOL = 1
MAX_FRAME_BYTES = 17 << 20
"""One payload of the largest size, or many small ones, and what is around them."""
MAX_PAYLOAD_BYTES = 16 << 20
MAX_HELLO_BYTES = 4096
"""Until it has said who it is, a connection may not make anybody hold more than this."""
_BATCH_BYTES = 256 << 10


class Role(enum.Enum):
    DAEMON = "daemon"
    HOST = "host"
    ADMIN = "admin"


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


# -- to the broker -------------------------------------------------------------


class Hello(_Message, frozen=True):
    role: Role
    node: int = 0
    """The node's configured id, from 1; an admin has none."""
    seen: int = 0
    """Highest epoch sequence that this node ever saw: a broker that lost its state goes on above it."""
    protocol: int = HUB_PROTOCOL


class Send(_Message, frozen=True):
    payloads: tuple[bytes, ...]


class Pong(_Message, frozen=True):
    pass


class Leave(_Message, frozen=True):
    """A clean leave: the view change says "leave", not "procdown"."""


class Cut(_Message, frozen=True):
    """Partition the ring.  Nodes in no group form one more together."""

    groups: tuple[tuple[int, ...], ...]


class Heal(_Message, frozen=True):
    pass


class AskStatus(_Message, frozen=True):
    pass


# -- from the broker -------------------------------------------------------------


class Welcome(_Message, frozen=True):
    token_ms: int
    detection_ms: int
    removed: str = ""
    """Why this node's last link was ended by the broker, if it was."""


class Refusal(_Message, frozen=True):
    message: str
    next: str = ""


class View(_Message, frozen=True):
    """joined and left are relative to the last view that this link was told (none: everybody joined)."""

    epoch: Epoch
    members: tuple[int, ...]
    joined: tuple[int, ...]
    left: tuple[int, ...]
    how: dict[int, str]


class Deliver(_Message, frozen=True):
    """(sender, payload), in the total order."""

    items: tuple[tuple[int, bytes], ...]


class Ping(_Message, frozen=True):
    pass


class Removed(_Message, frozen=True):
    """The last message on a link that the broker ends.  What the link sent later was dropped."""

    epoch: Epoch
    """The view that goes on without this node."""
    why: str


class Done(_Message, frozen=True):
    pass


class LinkStatus(msgspec.Struct, frozen=True):
    node: int
    group: int
    in_view: bool
    daemon: bool
    host: bool
    silent_ms: int
    buffered_bytes: int
    daemon_pid: int = 0


class PartitionStatus(msgspec.Struct, frozen=True):
    group: int
    epoch: Epoch
    members: tuple[int, ...]
    forming: bool
    """True: cut a moment ago; nothing is delivered until the loss has been detected."""
    delivered: int


class HubStatus(_Message, frozen=True):
    token_ms: int
    detection_ms: int
    groups: tuple[tuple[int, ...], ...]
    """The cut, as asked for; empty: whole."""
    partitions: tuple[PartitionStatus, ...]
    nodes: tuple[LinkStatus, ...]
    trouble: str = ""


ToHub = Hello | Send | Pong | Leave | Cut | Heal | AskStatus
FromHub = Welcome | Refusal | View | Deliver | Ping | Removed | Done | HubStatus
T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_to_hub: msgspec.msgpack.Decoder[ToHub] = msgspec.msgpack.Decoder(ToHub)
_from_hub: msgspec.msgpack.Decoder[FromHub] = msgspec.msgpack.Decoder(FromHub)


class FrameError(Exception):
    """The other side does not speak this language (any more): close the connection."""


def encode(message: ToHub | FromHub) -> bytes:
    """One frame, length first.  Raises FrameError if it would be over MAX_FRAME_BYTES."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return len(body).to_bytes(4, "big") + body


def batches(payloads: list[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Split waiting payloads into runs that each fit a frame, keeping their order."""
    start = size = 0
    for index, payload in enumerate(payloads):
        if index > start and size + len(payload) > _BATCH_BYTES:
            yield tuple(payloads[start:index])
            start, size = index, 0
        size += len(payload) + 16
    if start < len(payloads):
        yield tuple(payloads[start:])


class Frames(Generic[T]):
    """Takes a stream's bytes as they come and gives back the whole messages in it."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[T]", limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self._decoder = decoder
        self._buffer = bytearray()
        self.limit_bytes = limit_bytes

    @property
    def partial_bytes(self) -> int:
        """Bytes of a frame that has not arrived whole."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> Iterator[T]:
        """Yield every message that is complete now; keep the rest.

        Lazy: a caller that stops listening in the middle (a refused Hello) never sees the rest.
        Raises FrameError, after the messages before the bad one were yielded."""
        buffer = self._buffer
        buffer += chunk
        at = 0
        try:
            while len(buffer) - at >= 4:
                size = int.from_bytes(buffer[at : at + 4], "big")
                if size > self.limit_bytes:
                    raise FrameError(f"a frame claims {size} bytes; the limit is {self.limit_bytes}")
                if len(buffer) - at - 4 < size:
                    break
                body = buffer[at + 4 : at + 4 + size]
                at += 4 + size
                try:
                    message = self._decoder.decode(body)
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise FrameError(f"not a message of the hub's language: {error}") from None
                yield message
        finally:
            if at:
                del buffer[:at]


def to_hub_frames() -> Frames[ToHub]:
    return Frames(_to_hub, MAX_HELLO_BYTES)


def from_hub_frames() -> Frames[FromHub]:
    return Frames(_from_hub)
