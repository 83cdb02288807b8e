"""Frames between nodes of several versions: what each understands of the others' words."""

import msgspec
import pytest

from ringfence.core.ids import Epoch, Life
from ringfence.wire import SPEAKS, UNSAID, Speaks, ring
from ringfence.wire.ring import Frame, Heartbeat, Ready

EPOCH, LIFE = Epoch(3, 1), Life(1, "machine", "boot", 1)
READY = Ready(False, Epoch(), 0, "", Epoch(), speaks=Speaks(77, 79))


def frame(protocol: int, *items: object) -> bytes:
    """As a later ringfence might send it: items are what it says they are."""
    return msgspec.msgpack.encode([protocol, EPOCH, LIFE, [msgspec.to_builtins(item) for item in items]])


def test_what_is_sent_is_what_is_read() -> None:
    items = (READY, Heartbeat(5, {1: 4}))
    payload = ring.encode(EPOCH, LIFE, items, SPEAKS.high)
    assert ring.decode(payload, SPEAKS) == Frame(SPEAKS.high, EPOCH, LIFE, items)


def test_ready_is_heard_in_any_protocol_and_nothing_else_is() -> None:
    news = {"type": "Gossip", "words": ["what", 1]}
    payload = frame(SPEAKS.high + 1, {**msgspec.to_builtins(READY), "mood": "fine"}, news, Heartbeat(5, {}))
    assert ring.decode(payload, SPEAKS) == Frame(SPEAKS.high + 1, EPOCH, LIFE, (READY,))


def test_an_entry_of_another_protocol_is_not_taken_for_ours() -> None:
    """The same name may mean something else there."""
    assert ring.decode(frame(SPEAKS.high + 1, Heartbeat(5, {})), SPEAKS).items == ()


def test_what_a_node_speaks_is_always_said_and_silence_is_not_the_first_protocol() -> None:
    assert b"speaks" in ring.encode(EPOCH, LIFE, (msgspec.structs.replace(READY, speaks=UNSAID),))
    words = msgspec.to_builtins(READY)
    del words["speaks"], words["protocol"]
    (ready,) = ring.decode(frame(1, words), SPEAKS).items
    assert isinstance(ready, Ready)
    assert (ready.speaks, ready.protocol) == (UNSAID, 1)
    assert 1 not in ready.speaks


@pytest.mark.parametrize(
    "payload",
    [b"", b"noise", frame(1, {"type": "Gossip"}), msgspec.msgpack.encode([9]), frame(1, READY)[:-3]],
)
def test_what_is_no_frame_is_an_error(payload: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        ring.decode(payload, SPEAKS)
