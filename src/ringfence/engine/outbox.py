"""What this node still has to say: entries until they were applied, and this step's other items.

Entries are numbered within a life and go out in order; what was not applied when a view changed is
sent again in the next epoch (the ordered state counts each number once).  Everything that one step
has to say leaves in one frame."""

import msgspec

from ringfence.core.ids import Epoch, Life
from ringfence.wire import ring
from ringfence.wire.entries import Entry


class Outbox:
    def __init__(self) -> None:
        self._seq = 0
        self._waiting: list[ring.Submitted] = []
        """Not yet applied, oldest first."""
        self._base = 0
        """The last number of this life that the state has applied."""
        self._sent = 0
        """How many of `_waiting` were multicast in this epoch."""
        self._items: list[ring.Item] = []
        self._open = False
        self.just_applied: list[Entry] = []
        """Entries that turned out to be applied when the outbox was opened last."""

    def submit(self, entry: Entry, wall_ms: int) -> int:
        """Queue an entry; returns its number."""
        self._seq += 1
        self._waiting.append(ring.Submitted(self._seq, entry, wall_ms))
        return self._seq

    def say(self, item: ring.Item) -> None:
        """Send an item that is no entry with this step's frame (ready, heartbeat, snapshot)."""
        self._items.append(item)

    def applied(self, seq: int) -> None:
        """Everything up to `seq` was applied."""
        self._base = seq
        before = len(self._waiting)
        self._waiting = [one for one in self._waiting if one.seq > seq]
        self._sent = max(0, self._sent - (before - len(self._waiting)))

    def repeat(self, seq: int) -> None:
        """Number `seq` came back and did not count: if an earlier one was lost on the way, say all again."""
        if self._waiting and self._waiting[0].seq < seq:
            self._sent = 0

    def waits(self, seq: int) -> bool:
        """Whether an entry of this life has not been applied yet."""
        return any(one.seq == seq for one in self._waiting)

    def close(self) -> None:
        """The view ended: entries wait, and all unapplied ones will be sent again."""
        self._open = False
        self._sent = 0
        self._items = []

    def open(self, applied_seq: int) -> None:
        """This node runs in a new epoch; the state has applied its numbers up to `applied_seq`."""
        self.just_applied = [one.entry for one in self._waiting if one.seq <= applied_seq]
        self.applied(applied_seq)
        self._open = True
        self._sent = 0

    def clear(self) -> None:
        """A new life starts counting from one."""
        self.close()
        self._seq = self._base = 0
        self._waiting = []

    def frame(self, epoch: Epoch, life: Life, protocol: int = 1) -> bytes | None:
        """This step's frame, or None if there is nothing to say."""
        items: list[ring.Item] = self._items
        self._items = []
        if self._open:
            items = [*items, *self._following()[self._sent :]]
            self._sent = len(self._waiting)
        return ring.encode(epoch, life, tuple(items), protocol) if items else None

    def _following(self) -> list[ring.Submitted]:
        """What waits, each with the number it follows.

        Not always one less: a node may have taken its own entry for applied, alone, in a state that the
        cluster has not carried on; that entry is gone, and nothing may wait for it."""
        before = [self._base, *(one.seq for one in self._waiting)]
        pairs = zip(self._waiting, before, strict=False)
        return [msgspec.structs.replace(one, after=after) for one, after in pairs]

    def unapplied(self, kind: type) -> list[Entry]:
        """Entries of a kind that were not applied yet."""
        return [one.entry for one in self._waiting if isinstance(one.entry, kind)]
