"""The ordered state in pieces, for a member that has to take it.

The first piece is the state without its resources; the others bring some of those each.  A state that
fits into one piece is sent whole.  The sender's state must not change between the first piece and the
last, and whoever gathers them takes none from the middle of another's: `Snapshot` numbers them."""

from collections.abc import Iterator

import msgspec

from ringfence.engine.state import ClusterState
from ringfence.locks.resource import Resource
from ringfence.locks.table import Resources
from ringfence.wire.ring import Snapshot

_Piece = dict[str, list[Resource]]
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Piece)


def split(state: ClusterState, targets: tuple[int, ...], count: int) -> Iterator[Snapshot]:
    """Args: count: how many resources a piece has at most."""
    if sum(len(space.resources) for space in state.lockspaces.values()) <= count:
        yield Snapshot(targets, state.encode())
        return
    spaces = {
        name: msgspec.structs.replace(space, resources=Resources())
        for name, space in state.lockspaces.items()
    }
    yield Snapshot(targets, b"", msgspec.structs.replace(state, lockspaces=spaces).encode())
    number = 0
    for name, space in state.lockspaces.items():
        for some in space.resources.slices(count):
            number += 1
            yield Snapshot(targets, b"", _encoder.encode({name: some}), number)
    yield Snapshot(targets, b"", _encoder.encode({}), number + 1, last=True)


class _Begun(msgspec.Struct):
    state: ClusterState
    next: int = 1
    """The number of the piece that must come now."""


class Gathering:
    """What has come of snapshots, sender by sender: a node that begins a new life while one member still
    tells the old one what it missed may hear another member in between."""

    def __init__(self) -> None:
        self._begun: dict[int, _Begun] = {}

    def has_begun(self, sender: int) -> bool:
        """Whether there is more to come of a snapshot of this sender's."""
        return sender in self._begun

    def add(self, sender: int, piece: Snapshot) -> ClusterState | None:
        """Returns the state with its last piece.  Raises msgspec.MsgspecError: it is written otherwise."""
        if piece.state:
            return ClusterState.decode(piece.state)
        begun = self._begun.pop(sender, None)
        if piece.number == 0:
            self._begun[sender] = _Begun(ClusterState.decode(piece.piece))
            return None
        if begun is None or piece.number != begun.next:
            return None  # the beginning was for an earlier life of this node
        for name, resources in _decoder.decode(piece.piece).items():
            table = begun.state.lockspaces[name].resources
            for resource in resources:
                table.put(resource)
        if piece.last:
            return begun.state
        begun.next += 1
        self._begun[sender] = begun
        return None
