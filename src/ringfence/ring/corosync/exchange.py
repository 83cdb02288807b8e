"""From corosync's changes to the engine's views.

corosync tells two things: who is in the process group (a *confchg*), and that its totem ring has formed
anew.  Neither bears a number that would do for an epoch: the ring's id does not change when only
a process comes or goes, and a host whose corosync has lost its memory counts from the beginning.  So
after every change each member says one `Hello`, and when those of all members were delivered each computes
the same view: epoch = (1 + the highest sequence that any of them has seen, or the ring's own), lowest node).

Why all compute the same.  A change stands at the same place of the total order for all who go through it,
and so do the hellos.  A hello counts if it is about the change that was delivered last (same ring, same
processes).  One that was said for an earlier change with equal ring and members may count for the later
one; then it does so for everybody, and what it says is still true, for its sender has seen no view since.

Between a change and the last hello there is no view.  What is delivered then was sent in an earlier one
(nobody has the new one yet), so everybody drops it.  After the last hello nothing of an earlier view can
come: what a member has sent before its hello is delivered before its hello.  So what was sent in a view is
delivered in it or not at all.  (A thawed member may be alone in delivering it: own delivery is no commit.)

A member that dies in the exchange ends it: its end is another change.  One that stands still keeps all
waiting (`waiting_for` names it) until one of those who have answered, half of them all at least, has it left
out.  That word stands in the order like a hello, so all who hear it compute the same view; whoever finds
itself left out has to go, and come again.

Pure: no clock, no chance; facts in, at the place where they stand in the order."""

from typing import NamedTuple

from ringfence.core.ids import Epoch
from ringfence.engine.inputs import ViewChanged
from ringfence.wire.corosync import Hello, LeaveOut, Process, RingId

LEAVE, NODEDOWN, PROCDOWN = 2, 3, 5
"""Reasons, as corosync numbers them (corosync/cpg.h)."""
_HOW = {LEAVE: "leave", PROCDOWN: "procdown"}
_WORSE = ("leave", "procdown", "nodedown")


class Confchg(NamedTuple):
    """The group's processes changed."""

    members: tuple[Process, ...]
    left: tuple[tuple[Process, int], ...] = ()
    """With corosync's reason."""
    joined: tuple[Process, ...] = ()


class RingFormed(NamedTuple):
    """corosync's totem ring formed anew, of these nodes."""

    ring: RingId
    nodes: tuple[int, ...]


class Exchange:
    """One process in one group, from its own join on.

    Args:
        me: as corosync names it.
        seen: the highest epoch sequence that this node knows."""

    def __init__(self, me: Process, seen: int) -> None:
        self.me = me
        self.seen = seen
        self.view: ViewChanged | None = None
        """None: a change has come, and not every member has spoken."""
        self.members: tuple[Process, ...] = ()
        self._ring: RingId | None = None
        self._nodes: tuple[int, ...] = ()
        """Of the totem ring."""
        self._words: dict[Process, Hello] = {}
        self._left_out: tuple[Process, ...] = ()
        """Of the present change, unless they answer before all others have."""
        self._over = True
        """All others have: what is said now comes too late."""
        self._said = True
        self._told: dict[int, Process] = {}
        """Members of the last view, by node."""
        self._gone: dict[int, int] = {}
        """Nodes of the last view whose process left since, with corosync's worst reason."""

    # -- what corosync tells ---------------------------------------------------------

    def confchg(self, change: Confchg) -> None:
        self.members = tuple(sorted(change.members))
        self._words.clear()
        for process, reason in change.left:
            if self._told.get(process.node) == process or process.node in self._gone:
                before = self._gone.get(process.node, LEAVE)
                self._gone[process.node] = max(before, reason, key=_severity)
        self._changed()

    def ring_formed(self, formed: RingFormed) -> None:
        self._ring, self._nodes = formed.ring, formed.nodes
        self._changed()

    def _changed(self) -> None:
        self.view = None
        self._said = self._over = False
        self._left_out = ()

    @property
    def out(self) -> bool:
        """This process is not (or no longer) in the group."""
        return self.me not in self.members

    @property
    def left_out(self) -> bool:
        """The others have a view without this process, which did not answer."""
        return self._over and self.me in self._left_out

    @property
    def twins(self) -> tuple[Process, ...]:
        """Other processes of this node in the group.  Whoever comes second has to go."""
        return tuple(one for one in self.members if one.node == self.me.node and one != self.me)

    @property
    def doubtful(self) -> bool:
        """A daemon has ended, and whether its host goes with it may be known in a moment.

        A corosync that ends in good order reports its processes' ends first, and leaves the ring next."""
        return any(_how(reason) == "procdown" and node in self._nodes for node, reason in self._gone.items())

    @property
    def alone(self) -> bool:
        """All others of the last view have gone."""
        return self.members == (self.me,) and len(self._told) > 1

    # -- the exchange ------------------------------------------------------------------

    def hello(self) -> Hello | None:
        """What is to be said now; None if nothing is, or if it was said."""
        if self._said or self._ring is None or self.out:
            return None
        self._said = True
        return Hello(self._ring, self.members, self.seen, leaves_out=True)

    def heard(self, sender: Process, hello: Hello) -> ViewChanged | None:
        """A hello was delivered.  Returns the view, if it was the last that was missing."""
        if self._over or sender not in self.members:
            return None
        self._words[sender] = hello
        if self._answers(hello):
            self._left_out = tuple(one for one in self._left_out if one != sender)
        return self._come()

    def leave_out(self) -> LeaveOut | None:
        """What is to be said if nobody has answered for long; None: they must be waited for.

        Those who have answered must understand it; one that is left out and does not has no view when it
        goes on.  Less than half could be some whom the ring tells their own words alone."""
        silent, answered = self.waiting_for, self.answered
        if not silent or self._ring is None or self.me not in answered:
            return None
        if 2 * len(answered) < len(self.members):
            return None
        if not all(self._words[one].leaves_out for one in answered):
            return None
        return LeaveOut(self._ring, self.members, silent)

    def told_to_leave_out(self, sender: Process, word: LeaveOut) -> ViewChanged | None:
        """It was delivered.  Returns the view, if all others have answered."""
        if self._over or (word.ring, word.members) != (self._ring, self.members):
            return None
        if not self._answers(self._words.get(sender)):
            return None
        self._left_out += tuple(one for one in self.waiting_for if one in word.processes)
        return self._come()

    @property
    def answered(self) -> tuple[Process, ...]:
        """Members that have answered the present change."""
        return tuple(one for one in self.members if self._answers(self._words.get(one)))

    def _come(self) -> ViewChanged | None:
        self._over = not self.waiting_for
        if self._over and not self.left_out:
            self.view = self._computed()
        return self.view

    @property
    def waiting_for(self) -> tuple[Process, ...]:
        """Members that have not answered the present change; empty in a view."""
        if self.view is not None:
            return ()
        return tuple(one for one in self.members if one not in (*self.answered, *self._left_out))

    def _answers(self, hello: Hello | None) -> bool:
        return hello is not None and hello.ring == self._ring and hello.members == self.members

    def _computed(self) -> ViewChanged:
        assert self._ring is not None, "hellos bear a ring"
        nodes = {process.node: process for process in self.members if process not in self._left_out}
        seq = 1 + max(self._ring.seq, *(self._words[one].seen for one in self.answered))
        present = tuple(sorted(nodes))
        left = tuple(node for node in sorted(self._told) if node not in nodes or node in self._gone)
        joined = tuple(node for node in present if node not in self._told or node in self._gone)
        how = {node: self._how_left(node) for node in left}
        self.seen = seq
        self._told, self._gone = nodes, {}
        return ViewChanged(Epoch(seq, present[0]), present, joined, left, how)

    def _how_left(self, node: int) -> str:
        """A daemon's end is "procdown" only while its host is in the totem ring."""
        how = _how(self._gone.get(node, NODEDOWN))
        return how if how != "procdown" or node in self._nodes else "nodedown"


def _how(reason: int) -> str:
    return _HOW.get(reason, "nodedown")


def _severity(reason: int) -> int:
    return _WORSE.index(_how(reason))
