"""The envelope in corosync's group: what is ours comes back equal, what is not is refused, pieces rejoin."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.ring.corosync import pieces
from ringfence.ring.corosync.pieces import Rejoiner, messages
from ringfence.wire.corosync import (
    LARGEST_SEQ,
    MAGIC,
    Batch,
    Hello,
    NotOurs,
    Piece,
    Process,
    RingId,
    decode,
    encode,
)

ONE, TWO = Process(1, 10), Process(2, 20)


@pytest.mark.parametrize(
    "message",
    [
        Hello(RingId(4, 1), (ONE, TWO), LARGEST_SEQ),
        Batch((b"", b"x" * 70_000)),
        Piece(3, True, b"\xff"),
    ],
)
def test_message_comes_back_equal(message: Hello | Batch | Piece) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_bytes_that_are_not_ours_are_refused(noise: bytes) -> None:
    for data in (noise, MAGIC + noise, encode(Batch(()))[:4] + noise):
        with contextlib.suppress(NotOurs):  # and nothing else is raised
            assert isinstance(decode(data), Hello | Batch | Piece)


@pytest.mark.parametrize("seen", [-1, LARGEST_SEQ + 1])
def test_epoch_that_nobody_can_have_seen_is_refused(seen: int) -> None:
    with pytest.raises(NotOurs, match="epoch sequence"):
        decode(encode(Hello(RingId(), (), seen)))


def test_later_version_is_named() -> None:
    with pytest.raises(NotOurs, match="version 9 of the envelope"):
        decode(MAGIC + b"\x09\xff")


def rejoined(rejoiner: Rejoiner, sender: Process, data: bytes) -> list[bytes]:
    message = decode(data)
    if isinstance(message, Batch):
        return list(message.payloads)
    assert isinstance(message, Piece)
    whole = rejoiner.add(sender, message)
    return [] if whole is None else [whole]


@given(st.lists(st.integers(0, 900_000), max_size=8))
def test_payloads_arrive_whole_and_in_order(sizes: list[int]) -> None:
    payloads = [bytes([number]) * size for number, size in enumerate(sizes)]
    sent = list(messages(payloads))
    assert all(len(message) < 1_047_552 for message in sent)
    rejoiner = Rejoiner()
    assert [one for message in sent for one in rejoined(rejoiner, ONE, message)] == payloads


def test_small_ones_share_a_message() -> None:
    assert len(list(messages([b"x" * 100] * 100))) == 1


def test_pieces_of_several_senders_may_come_in_turns() -> None:
    size = 2 * pieces.PIECE_BYTES + 1
    mine, theirs = list(messages([b"a" * size])), list(messages([b"b" * size]))
    rejoiner = Rejoiner()
    found = []
    for one, other in zip(mine, theirs, strict=True):
        found += rejoined(rejoiner, ONE, one) + rejoined(rejoiner, TWO, other)
    assert found == [b"a" * size, b"b" * size]


def test_sender_lost_midway_leaves_nothing_that_its_next_payload_could_join() -> None:
    rejoiner = Rejoiner()
    first, *_ = messages([b"a" * (pieces.PIECE_BYTES + 1)])
    assert rejoined(rejoiner, ONE, first) == []
    rejoiner.forget()
    assert rejoiner.add(ONE, Piece(1, True, b"b")) is None
    assert rejoiner.add(ONE, Piece(0, True, b"c")) == b"c"


def test_piece_that_does_not_follow_is_dropped_with_what_came_before() -> None:
    rejoiner = Rejoiner()
    assert rejoiner.add(ONE, Piece(0, False, b"a")) is None
    assert rejoiner.add(ONE, Piece(2, True, b"c")) is None
    assert rejoiner.add(ONE, Piece(1, True, b"b")) is None
