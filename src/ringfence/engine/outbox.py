"""What this node still has to say: entries until they were applied, and this step's other items.

Entries are numbered within a life and go out in order; what was not applied when a view changed is
sent again in the next epoch (the ordered state counts each number once).  Everything that one step
has to say leaves in one frame; but of many entries no more than a receiver can apply in one step.

Lock operations that follow one another and differ in nothing but the resource become one entry, where all
nodes know that (`LockRequests` and its like): what one command wants of thousands of locks is sent, read and
applied as lists of names.

What nobody waits for is not hurried: it goes with whatever is said next, a heartbeat at the latest, or when
there is enough of it for a frame.  So a thousand releases in a row do not cost a thousand frames."""

from collections import deque
from itertools import chain

import msgspec

from ringfence.core.modes import UN, Mode
from ringfence.wire import ring
from ringfence.wire.entries import (
    Entry,
    LockBusy,
    LockRequest,
    LockRequests,
    LocksBusy,
    LockUnlock,
    LockUnlocks,
    weight,
)

Kind = tuple[type, str, Mode, int, int]
"""Of lock operations: what, lockspace, mode, flags, wall_ms."""


class Outbox:
    """Args: at_once: how many locks the entries of a frame are about, at most; every member applies a whole
    frame in one step."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._seq = 0
        self._sent: deque[ring.Submitted] = deque()
        """Multicast in this epoch and not yet applied, oldest first."""
        self._unsent: deque[ring.Submitted] = deque()
        """Those that follow.  Together they are numbered without a gap up to `_seq`."""
        self._row: list[str] = []
        """Resources of the operations that go with the last of them, which has not been sent yet."""
        self._row_kind: Kind | None = None
        """What they have in common; None: nothing goes with the last one."""
        self._urgent = 0
        """The last number that somebody waits for."""
        self._base = 0
        """The last number of this life that the state has applied."""
        self._items: list[ring.Item] = []
        self._open = False
        self.more = False
        """Whether there is more to say than went into the last frame."""
        self.just_applied: list[Entry] = []
        """Entries that turned out to be applied when the outbox was opened last."""

    def submit(
        self, entry: Entry, wall_ms: int, *, unhurried: bool = False, many_locks: bool = False
    ) -> int:
        """Queue an entry; returns its number, which it may share with those before it.

        unhurried: nobody waits for it, until `hurry` is called.
        many_locks: all nodes know entries about many locks."""
        kind = _kind(entry, wall_ms) if many_locks else None
        if kind is not None and kind == self._row_kind:
            self._row.append(entry.resource)  # type: ignore[union-attr]
        else:
            if self._row:
                self._end_row()
            self._seq += 1
            self._unsent.append(ring.Submitted(self._seq, entry, wall_ms))
            self._row_kind = kind
        if len(self._row) >= self._at_once - 1:
            self._end_row()
        if not unhurried:
            self._urgent = self._seq
        return self._seq

    def _end_row(self) -> None:
        """What is submitted from here on is an entry of its own.

        Before a number is said: what had it once must mean the same ever after."""
        self._row_kind = None
        if self._row:
            names, self._row = self._row, []
            last = self._unsent.pop()
            self._unsent.append(msgspec.structs.replace(last, entry=_in_a_row(last.entry, names)))

    def hurry(self) -> None:
        """Somebody waits for what was submitted: it leaves with this step's frame."""
        self._urgent = self._seq

    def say(self, item: ring.Item) -> None:
        """Send an item that is no entry with this step's frame (ready, heartbeat, snapshot)."""
        self._items.append(item)

    def applied(self, seq: int) -> list[Entry]:
        """Everything up to `seq` was applied.  Returns what of it had been waiting here."""
        self._base = seq
        self._end_row()
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

    def close(self) -> None:
        """The view ended: entries wait, and all unapplied ones will be sent again."""
        self._open = False
        self._end_row()
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

    def frame(self) -> tuple[ring.Item, ...]:
        """What leaves with this step; empty if there is nothing to say."""
        if not (self._items or self._unsent):
            return ()
        items, self._items = self._items, []
        if self._open and self._unsent and (items or self._due()):
            self._row_kind = None
            if self._row:
                self._end_row()
            room = self._at_once - len(items)
            while self._unsent and room > 0:
                room -= weight(self._unsent[0].entry)
                items.append(self._send())
        self.more = bool(self._unsent) and self._open and self._due()
        return tuple(items)

    def _due(self) -> bool:
        """Whether entries, of which there are some, must leave now, be it alone."""
        first = self._unsent[0]
        if first.seq <= self._urgent or len(self._unsent) >= self._at_once:
            return True
        return weight(first.entry) >= self._at_once

    def _send(self) -> ring.Submitted:
        """The next one, with the number it follows.

        Not always one less: a node may have taken its own entry for applied, alone, in a state that the
        cluster has not carried on; that entry is gone, and nothing may wait for it."""
        after = self._sent[-1].seq if self._sent else self._base
        next = self._unsent.popleft()
        one = ring.Submitted(next.seq, next.entry, next.wall_ms, after)
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


def _kind(entry: Entry, wall_ms: int) -> Kind | None:
    """Equal for lock operations that can go as one entry."""
    if isinstance(entry, LockRequest):
        return (LockRequest, entry.lockspace, entry.mode, entry.flags, wall_ms) if entry.lvb is None else None
    if isinstance(entry, LockUnlock):
        plain = entry.lvb is None and not entry.flags
        return (LockUnlock, entry.lockspace, UN, 0, wall_ms) if plain else None
    return (LockBusy, entry.lockspace, UN, 0, wall_ms) if isinstance(entry, LockBusy) else None


def _in_a_row(first: Entry, names: list[str]) -> Entry:
    """One entry for the first operation and those of its kind that follow it."""
    assert isinstance(first, LockRequest | LockUnlock | LockBusy)
    resources = (first.resource, *names)
    if isinstance(first, LockRequest):
        return LockRequests(first.lockspace, resources, first.mode, first.flags)
    return (LockUnlocks if isinstance(first, LockUnlock) else LocksBusy)(first.lockspace, resources)
