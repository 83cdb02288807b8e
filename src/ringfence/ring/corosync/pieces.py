"""Payloads into messages, and back: what waits shares a message, what is too large is split.

Pure."""

from collections.abc import Iterator

from ringfence.wire.corosync import Batch, Piece, Process, encode

BATCH_BYTES = 16 << 10
"""What waits is put into one message up to about this size; larger ones gain nothing (measured)."""
PIECE_BYTES = 256 << 10
"""Well below what corosync takes as one atomic message (1,047,552 bytes)."""


def messages(payloads: list[bytes]) -> Iterator[bytes]:
    """Encoded messages that carry these payloads, in their order."""
    run: list[bytes] = []
    size = 0
    for payload in payloads:
        if run and size + len(payload) > BATCH_BYTES:
            yield encode(Batch(tuple(run)))
            run, size = [], 0
        if len(payload) > PIECE_BYTES:
            yield from _split(payload)
        else:
            run.append(payload)
            size += len(payload)
    if run:
        yield encode(Batch(tuple(run)))


def _split(payload: bytes) -> Iterator[bytes]:
    for number, start in enumerate(range(0, len(payload), PIECE_BYTES)):
        last = start + PIECE_BYTES >= len(payload)
        yield encode(Piece(number, last, payload[start : start + PIECE_BYTES]))


class Rejoiner:
    """Pieces of one view, by sender.  What does not follow on what came before is dropped whole."""

    def __init__(self) -> None:
        self._parts: dict[Process, list[bytes]] = {}

    def forget(self) -> None:
        """The view is over: what is incomplete stays so."""
        self._parts.clear()

    def add(self, sender: Process, piece: Piece) -> bytes | None:
        """Returns the payload, if this was its last piece."""
        parts = self._parts.setdefault(sender, [])
        if piece.number == 0:
            parts.clear()
        if piece.number != len(parts):
            del self._parts[sender]
            return None
        parts.append(piece.body)
        if not piece.last:
            return None
        del self._parts[sender]
        return b"".join(parts)
