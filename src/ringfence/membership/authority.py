"""A node's own authority: until when, on its own clock, it may report a grant or let a write through.

Every heartbeat carries the newest heartbeat its sender has seen from each ready member.  Authority
reaches `grant_ms` (or `write_ms`) after this node *sent* the newest of its heartbeats that a majority
of configured votes has echoed.  Any such majority shares a member with every later primary view, so
survivors who wait out the purge bound since they last heard this node never overlap it.

Each clause is load-bearing (steps to two writers without it, in the safety model): counted from the
echo's receipt instead of the sending, 10; one vote instead of a majority, 10; echoes taken across
views, 13; echoes before the barrier, 14.

Time is an argument: nanoseconds of CLOCK_BOOTTIME.  Source: Gray and Cheriton, Leases (SOSP 1989),
turned round: the holder counts from its own sending, the grantors from their own receipt."""

from ringfence.core.cluster import ClusterConfig
from ringfence.membership.quorum import votes_of
from ringfence.wire.ring import Heartbeat

NS_PER_MS = 1_000_000


class Authority:
    """Deadline arithmetic of one node.  A deadline of 0 means: never had any."""

    def __init__(self, config: ClusterConfig, node: int) -> None:
        self._config = config
        self._node = node
        self._counter = 0
        self._ready: tuple[int, ...] = ()
        self._sent: dict[int, int] = {}
        """Send time of own heartbeats of this view, by counter; those past `write_ms` are dropped."""
        self._newest: dict[int, int] = {}
        """Counter of the last heartbeat delivered from each ready member, in this view."""
        self._echoed: dict[int, int] = {}
        """Send time of the newest own heartbeat that each ready member has echoed, in this view."""
        self.grant_deadline_ns = 0
        self.write_deadline_ns = 0
        """As last renewed."""
        self._answered_ns = 0
        """Send time of the newest own heartbeat that a majority has echoed, in any view."""
        self._renewed: tuple[object, ...] = ()
        """All that the deadlines follow from, as it was when they were renewed last."""

    @property
    def answered_deadlines_ns(self) -> tuple[int, int]:
        """(grant, write) by a majority's answers alone; 0 = none.  Where a disk is asked instead of the other
        node (two_node), that it is thought to be out adds nothing."""
        if not self._answered_ns:
            return 0, 0
        timing = self._config.timing
        return (
            self._answered_ns + timing.grant_ms * NS_PER_MS,
            self._answered_ns + timing.write_ms * NS_PER_MS,
        )

    @property
    def own_heartbeat_ns(self) -> int:
        """Send time of the newest own heartbeat that came back through the ring in this view; 0 = none."""
        return self._echoed.get(self._node, 0)

    def configured(self, config: ClusterConfig) -> None:
        """An ordered entry changed the configuration (votes, timing)."""
        self._config = config

    def entered(self, epoch: object, ready: tuple[int, ...]) -> None:
        """The barrier of this view is complete.  Nothing heard in an earlier view counts any more."""
        del epoch  # frames bear it; whoever calls `heard` has compared it already
        self._forget()
        self._ready = tuple(sorted(ready))

    def suspended(self) -> None:
        """The view ended: the deadlines stand, nothing renews them until `entered`."""
        self._forget()

    def set_ready(self, ready: tuple[int, ...]) -> None:
        """Members were admitted to, or taken out of, the ready ones of this view."""
        self._ready = tuple(sorted(ready))
        for node in [node for node in self._newest if node not in ready]:
            del self._newest[node]
        for node in [node for node in self._echoed if node not in ready]:
            del self._echoed[node]

    def sent(self, now_ns: int) -> Heartbeat:
        """Return the next heartbeat; it must be multicast at once, for its age counts from now.

        Counters never repeat within a boot (they follow its clock), so that an echo meant for this
        node's last incarnation cannot be taken for one of ours."""
        self._counter = max(self._counter + 1, now_ns // NS_PER_MS)
        self._sent[self._counter] = now_ns
        self._prune(now_ns)
        return Heartbeat(counter=self._counter, echoes=dict(sorted(self._newest.items())))

    def heard(self, now_ns: int, node: int, heartbeat: Heartbeat) -> None:
        """A ready member's heartbeat of this view was delivered; the own ones too.

        The last delivered counts, not the highest: a member that came back in the same view counts
        anew, and to echo its predecessor would vouch for a heartbeat that nobody has seen."""
        if node not in self._ready:
            return
        self._newest[node] = heartbeat.counter
        echoed = heartbeat.counter if node == self._node else heartbeat.echoes.get(self._node, 0)
        sent_ns = self._sent.get(echoed)
        if sent_ns is None:
            return  # not sent in this view (or older than what counts already)
        assert sent_ns <= now_ns, "a heartbeat was echoed before it was sent"
        self._echoed[node] = max(self._echoed.get(node, 0), sent_ns)

    def base_ns(self, others_out: bool) -> int:
        """When this node sent the newest own heartbeat that enough members have echoed; 0 = none.

        Args:
            others_out: two_node only: every other configured life is cleanly out or has evidence.
                Then an own heartbeat that came back is enough."""
        if others_out and self._config.two_node:
            return self._echoed.get(self._node, 0)
        for base_ns in sorted(self._echoed.values(), reverse=True):
            vouching = [node for node, at_ns in self._echoed.items() if at_ns >= base_ns]
            if votes_of(self._config, vouching) >= self._config.majority:
                return base_ns
        return 0

    def deadlines(self, others_out: bool) -> tuple[int, int]:
        """Renew and return (grant, write) deadlines.  They never go back, until `lost`."""
        from_what = (self._config, others_out, *self._echoed.items())
        if from_what == self._renewed:  # as at most steps: the deadlines stand
            return self.grant_deadline_ns, self.write_deadline_ns
        self._renewed = from_what
        base_ns = self.base_ns(False)
        self._answered_ns = max(self._answered_ns, base_ns)
        if others_out:
            base_ns = self.base_ns(True)
        if base_ns:
            timing = self._config.timing
            self.grant_deadline_ns = max(self.grant_deadline_ns, base_ns + timing.grant_ms * NS_PER_MS)
            self.write_deadline_ns = max(self.write_deadline_ns, base_ns + timing.write_ms * NS_PER_MS)
        return self.grant_deadline_ns, self.write_deadline_ns

    def lost(self) -> None:
        """This incarnation's authority is gone for ever; only a new one that `entered` has any."""
        self._forget()
        self.grant_deadline_ns = self.write_deadline_ns = self._answered_ns = 0
        self._renewed = ()

    def _forget(self) -> None:
        self._ready = ()
        self._sent.clear()
        self._newest.clear()
        self._echoed.clear()

    def _prune(self, now_ns: int) -> None:
        """Drop send times too old to renew anything: an echo of them would reach a deadline long past."""
        oldest_ns = now_ns - self._config.timing.write_ms * NS_PER_MS
        for counter in [counter for counter, at_ns in self._sent.items() if at_ns < oldest_ns]:
            del self._sent[counter]
