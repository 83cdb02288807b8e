"""What this node still has to say: entries until they were applied, and this step's other items.

Entries are numbered within a life and go out in order; what was not applied when a view changed is
sent again in the next epoch (the ordered state counts each number once).  Everything that one step
has to say leaves in one frame; but of many entries no more than a receiver can apply in one step.

What nobody waits for is not hurried: it goes with whatever is said next, a heartbeat at the latest, or when
there is enough of it for a frame.  So a thousand releases in a row do not cost a thousand frames."""

from collections import deque
from itertools import chain

import msgspec

from ringfence.core.ids import Epoch, Life
from ringfence.wire import ring
from ringfence.wire.entries import Entry


class Outbox:
    """Args: at_once: the most entries in a frame; every member applies a whole frame in one step."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._seq = 0
        self._sent: deque[ring.Submitted] = deque()
        """Multicast in this epoch and not yet applied, oldest first."""
        self._unsent: deque[ring.Submitted] = deque()
        """Those that follow.  Together they are numbered without a gap up to `_seq`."""
        self._urgent = 0
        """The last number that somebody waits for."""
        self._base = 0
        """The last number of this life that the state has applied."""
        self._items: list[ring.Item] = []
        self._open = False
        self.just_applied: list[Entry] = []
        """Entries that turned out to be applied when the outbox was opened last."""

    def submit(self, entry: Entry, wall_ms: int, *, unhurried: bool = False) -> int:
        """Queue an entry; returns its number.

        unhurried: nobody waits for it, until `hurry` is called."""
        self._seq += 1
        if not unhurried:
            self._urgent = self._seq
        self._unsent.append(ring.Submitted(self._seq, entry, wall_ms))
        return self._seq

    def hurry(self) -> None:
        """Somebody waits for what was submitted: it leaves with this step's frame."""
        self._urgent = self._seq

    def say(self, item: ring.Item) -> None:
        """Send an item that is no entry with this step's frame (ready, heartbeat, snapshot)."""
        self._items.append(item)

    def applied(self, seq: int) -> list[Entry]:
        """Everything up to `seq` was applied.  Returns what of it had been waiting here."""
        self._base = seq
        done = []
        for waiting in (self._sent, self._unsent):
            while waiting and waiting[0].seq <= seq:
                done.append(waiting.popleft().entry)
        return done

    def repeat(self, seq: int) -> None:
        """Number `seq` came back and did not count: if an earlier one was lost on the way, say all again."""
        if self._sent and self._sent[0].seq < seq:
            self._unsend()

    def waits(self, seq: int) -> bool:
        """Whether an entry of this life has not been applied yet."""
        first = self._first()
        return first is not None and first.seq <= seq <= self._seq

    @property
    def more(self) -> bool:
        """Whether there is more to say than went into this step's frame."""
        return self._open and self._due()

    def close(self) -> None:
        """The view ended: entries wait, and all unapplied ones will be sent again."""
        self._open = False
        self._unsend()
        self._items = []

    def open(self, applied_seq: int) -> None:
        """This node runs in a new epoch; the state has applied its numbers up to `applied_seq`."""
        self.just_applied = self.applied(applied_seq)
        self._open = True
        self.hurry()
        self._unsend()

    def clear(self) -> None:
        """A new life starts counting from one."""
        self.close()
        self._seq = self._base = self._urgent = 0
        self._unsent.clear()

    def frame(self, epoch: Epoch, life: Life, protocol: int = 1) -> bytes | None:
        """This step's frame, or None if there is nothing to say."""
        items: list[ring.Item] = self._items
        self._items = []
        if self._open and (items or self._due()):
            while self._unsent and len(items) < self._at_once:
                items.append(self._send())
        return ring.encode(epoch, life, tuple(items), protocol) if items else None

    def _due(self) -> bool:
        """Whether entries must leave now, be it alone."""
        if not self._unsent:
            return False
        return self._unsent[0].seq <= self._urgent or len(self._unsent) >= self._at_once

    def _send(self) -> ring.Submitted:
        """The next one, with the number it follows.

        Not always one less: a node may have taken its own entry for applied, alone, in a state that the
        cluster has not carried on; that entry is gone, and nothing may wait for it."""
        after = self._sent[-1].seq if self._sent else self._base
        one = msgspec.structs.replace(self._unsent.popleft(), after=after)
        self._sent.append(one)
        return one

    def _unsend(self) -> None:
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()

    def _first(self) -> ring.Submitted | None:
        if self._sent:
            return self._sent[0]
        return self._unsent[0] if self._unsent else None

    def unapplied(self, kind: type) -> list[Entry]:
        """Entries of a kind that were not applied yet."""
        return [one.entry for one in chain(self._sent, self._unsent) if isinstance(one.entry, kind)]
