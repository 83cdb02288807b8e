"""The simulated ring: total order with views, and an adversary inside.

It keeps the promises of `ring.port` and no others.  Within them it does the worst that real rings
were seen to do:

* A frozen member is removed after the detection time.  What it had not read yet comes when it
  thaws, up to an arbitrary point; what was sent meanwhile by others does not.
* A removed member that thaws sees one of three things: its link has ended (the hub); a view of
  itself alone and then the merged one, its own queued messages then reaching everybody, late; or
  ("ghost") its own messages delivered to itself alone in the old view, before any of that.
* While a loss is being detected a totem delivers nothing to anybody; a hub goes on.
* Sides of a cut count their epochs apart, so that both may use one sequence number; the
  representatives differ.
* A totem that is parted does not end at once.  For a moment the token still goes round while messages
  between the sides are lost.  A side delivers no message behind a gap, until it forms a view of its own:
  then, before that view, those of its own members.  So each side's last messages may be others.
* When it is mended, two sides may find each other some tenths of a second before the rest does.
* Each member gets what is ordered after a delay of its own, now and then a long one.  A ring that is slow
  delays everything for longer, also on its way to the ring: what was said in one view is then ordered in
  another.
* A path between two members is cut, and both still reach a third: those two are delivered nothing and
  send nothing until it heals; no view changes and nobody is told.  The third goes on.
* A member that can send but not receive is found out late, and the ring of the others forms anew again and
  again, with the same members.
* The ring's own process on one host stands still, and the daemon there does not notice: what it sends is
  taken and waits.  If the others have removed it meanwhile, it sees what a thawed host sees.
* A hub that stood still goes on with one member's backlog before another's.
* A totem has a quorum service, which speaks beside the order, up to 10 ms after the view it speaks of.

Survivors of a view change have delivered the same payloads before it (virtual synchrony)."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ringfence.core.ids import Epoch
from ringfence.engine.inputs import Delivered, QuorumSaid, RingLost, ViewChanged
from ringfence.sim.scheduler import MS, Scheduler, Timer

RingInput = ViewChanged | Delivered | RingLost | QuorumSaid
MAX_GHOSTS = 22
RAGGED_MS = 50
PAUSE_MS = 700
"""A daemon that works says something more often than that."""


@dataclass(eq=False)
class Endpoint:
    """One daemon's connection to the ring."""

    node: int
    deliver: Callable[[RingInput], None]
    told: tuple[int, ...] = ()
    """Members of the last view it was told."""
    epoch: Epoch = field(default_factory=Epoch)
    last_ns: int = 0
    """When its last input is due: the next is not earlier."""
    dropped_ns: int = -1
    """What was due until then, and it has not read, never comes."""
    last_sent_ns: int = 0
    frozen: bool = False
    host_frozen: bool = False
    forgets: bool = False
    """When it is removed while frozen, all that it has not read is lost."""
    open: bool = True
    ended: str = ""
    """How its connection ended, until the ring has removed it."""
    member: bool = False
    unread: list[RingInput] = field(default_factory=list)
    """Waits in its socket while it is frozen."""
    alone: bool = False
    """It thawed, found everybody gone, and has not merged yet."""
    ghosts: int = 0
    """How many of its next own payloads only it will ever see."""
    late: list[bytes] = field(default_factory=list)
    """Sent while it was out without knowing; ordered after it is in again."""
    undelivered: list[RingInput] = field(default_factory=list)
    """Waits in the ring while a path to it is cut."""
    unsent: list[bytes] = field(default_factory=list)
    gap: list[tuple[int, bytes]] = field(default_factory=list)
    """(sender, payload): what it has missed at a cut, and what came behind that."""
    spoke_ns: int = 0
    paused_ns: int = 0
    """When it last spoke after it had not for a while."""
    counted_ns: int = 0
    """When the quorum service's last word reaches it."""
    displaced: "Endpoint | None" = None
    """Another machine's, that was known by this node's id when this one connected."""
    numb: bool = False
    """The ring's process on its host is frozen, and not the daemon."""

    @property
    def lost(self) -> bool:
        """In the view, but not really: the ring has yet to find out."""
        return self.member and (self.host_frozen or not self.open)


@dataclass(eq=False)
class Side:
    """One side of a cut (or the whole)."""

    number: int
    members: list[Endpoint] = field(default_factory=list)
    waiting: list[tuple[Endpoint, bytes]] = field(default_factory=list)
    """Not ordered while a loss is being detected."""
    how: dict[int, str] = field(default_factory=dict)
    forming: Timer | None = None
    held: bool = False
    """A member was lost and has not been removed yet (totem only)."""


class SimRing:
    """Args:
    totem: True: behaves as corosync, False: as the hub.
    nodes: how many a totem's quorum service counts with; 0: it has none."""

    def __init__(self, scheduler: Scheduler, token_ms: int, totem: bool, nodes: int = 0) -> None:
        self._scheduler = scheduler
        self._token_ms = token_ms
        self.totem = totem
        self._nodes = nodes
        self._met = False
        """All nodes were in one view once: with two, one is enough from then on (wait_for_all)."""
        self._late = scheduler.stream("quorum")
        self.up = True
        self._cut: list[list[int]] = []
        self._sides: dict[int, Side] = {}
        self._endpoints: dict[int, Endpoint] = {}
        self._seen: dict[int, int] = {}
        """Highest sequence each node knows, as corosync keeps it on disk."""
        self._ragged_ns = 0
        """Until then the token passes the cut, and nothing else does."""
        self._stuck: tuple[int, ...] = ()
        """Nodes between which a path is cut."""
        self.slow_ms = 0.0
        """How long deliveries may take in a ring that is slow; 0: it is not."""
        self._still = False
        self.views = 0
        self.viewed_ns = 0
        """When the last of them began."""

    @property
    def detection_ms(self) -> float:
        return self._token_ms * 2.2 + self._scheduler.between(-0.03, 0.03) * self._token_ms

    # -- nodes -------------------------------------------------------------------

    def connect(self, node: int, deliver: Callable[[RingInput], None]) -> Endpoint:
        """A daemon starts; it is in a view after a while (or RingLost while the ring is down)."""
        endpoint = Endpoint(node, deliver, displaced=self._endpoints.get(node))
        self._endpoints[node] = endpoint
        self._scheduler.after(self._scheduler.between(1, 60), lambda: self._join(endpoint))
        return endpoint

    def _join(self, endpoint: Endpoint) -> None:
        if not endpoint.open or endpoint.member:
            return
        if not self.up or self._still or endpoint.frozen or endpoint.node in self._stuck:
            self._scheduler.after(self._scheduler.between(20, 500), lambda: self._join(endpoint))
            return
        side = self._side_of(endpoint.node)
        for older in [member for member in side.members if member.node == endpoint.node]:
            self._remove(older, older.ended or "nodedown")
        endpoint.member, endpoint.alone = True, False
        side = self._side_of(endpoint.node)
        side.members.append(endpoint)
        if side.forming is None:
            self._announce(side)
        late, endpoint.late = endpoint.late, []
        for payload in late:
            self._order(side, endpoint, payload)

    def multicast(self, endpoint: Endpoint, payload: bytes) -> None:
        """As `ring.port.Ring.multicast`."""
        scheduler = self._scheduler
        if not endpoint.open or not endpoint.told:
            return
        if endpoint.numb or endpoint.node in self._stuck:
            endpoint.unsent.append(payload)
            return
        if scheduler.now_ns - endpoint.spoke_ns > PAUSE_MS * MS:
            endpoint.paused_ns = scheduler.now_ns
        endpoint.spoke_ns = scheduler.now_ns
        slow = self.slow_ms and scheduler.chance(0.1)
        delay_ms = scheduler.between(0, self.slow_ms) if slow else scheduler.delay_ms(0.3, 20)
        at_ns = max(endpoint.last_sent_ns, scheduler.now_ns + int(delay_ms * MS))
        endpoint.last_sent_ns = at_ns
        if endpoint.ghosts and not endpoint.late:  # each sender's order is kept
            endpoint.ghosts -= 1
            scheduler.note(f"ring: {endpoint.node} hears itself, and nobody else does")
            self._give(endpoint, Delivered(endpoint.node, payload))
        elif endpoint.member:
            scheduler.at(at_ns, lambda: self._arrive(endpoint, payload))
        elif endpoint.alone and not endpoint.late and scheduler.chance(0.9):
            self._give(endpoint, Delivered(endpoint.node, payload))
        elif self.totem and len(endpoint.late) < MAX_GHOSTS:
            endpoint.late.append(payload)

    def _arrive(self, endpoint: Endpoint, payload: bytes) -> None:
        """A payload reaches the ring, if its sender is still in it.  (If it froze meanwhile, the
        payload had left already.)"""
        if endpoint.member:
            self._order(self._side_of(endpoint.node), endpoint, payload)

    def _order(self, side: Side, sender: Endpoint, payload: bytes) -> None:
        if self._scheduler.now_ns < self._ragged_ns and not any(one.held for one in self._sides.values()):
            self._order_raggedly(side, sender, payload)
            return
        if side.forming is not None or side.held or self._still:
            side.waiting.append((sender, payload))
            return
        for member in side.members:
            self._give(member, Delivered(sender.node, payload))

    def _order_raggedly(self, side: Side, sender: Endpoint, payload: bytes) -> None:
        for other in self._sides.values():
            for member in other.members:
                if sender.node not in member.told:
                    continue
                if member.gap or other is not side:
                    member.gap.append((sender.node, payload))
                else:
                    self._give(member, Delivered(sender.node, payload))

    def _give(self, endpoint: Endpoint, fact: RingInput) -> None:
        scheduler = self._scheduler
        if endpoint.node in self._stuck and endpoint.member:
            endpoint.undelivered.append(fact)
            return
        slow = self.slow_ms and scheduler.chance(0.3)
        delay_ms = scheduler.between(0, self.slow_ms) if slow else scheduler.delay_ms(0.2, 40)
        endpoint.last_ns = max(endpoint.last_ns + 1, scheduler.now_ns + int(delay_ms * MS))
        scheduler.at(endpoint.last_ns, lambda: self._read(endpoint, fact))

    def _read(self, endpoint: Endpoint, fact: RingInput) -> None:
        if not endpoint.open or self._scheduler.now_ns <= endpoint.dropped_ns:
            return
        if endpoint.frozen or endpoint.unread:
            endpoint.unread.append(fact)
        else:
            endpoint.deliver(fact)

    # -- faults ------------------------------------------------------------------

    def freeze(self, endpoint: Endpoint, with_host: bool) -> None:
        """The daemon reads no more; with its host frozen too, the ring will find out."""
        endpoint.frozen = True
        endpoint.host_frozen = endpoint.host_frozen or with_host
        if with_host and endpoint.member:
            self.unstick()
            if self.totem:
                self._side_of(endpoint.node).held = True
            self._scheduler.after(self.detection_ms, lambda: self._detected(endpoint))

    def _detected(self, endpoint: Endpoint) -> None:
        if self._still:
            self._scheduler.after(20, lambda: self._detected(endpoint))
        elif endpoint.host_frozen and endpoint.member:
            self._remove(endpoint, "nodedown")
            keep = self._scheduler.rng.randrange(len(endpoint.unread) + 1)
            if self._scheduler.chance(0.5) or endpoint.forgets:
                del endpoint.unread[0 if endpoint.forgets else keep :]
                endpoint.dropped_ns = endpoint.last_ns  # and what was still on its way behind that

    def numb(self, node: int) -> Endpoint | None:
        """Freeze the ring's process on a host, and not its daemon, until `thaw`; None: nothing to freeze."""
        endpoint = self._endpoints.get(node)
        if endpoint is None or endpoint.frozen or not self.up:
            return None
        self.freeze(endpoint, with_host=True)
        endpoint.numb = True
        return endpoint

    def wake(self, endpoint: Endpoint) -> None:
        if endpoint.numb:
            self.thaw(endpoint)

    def thaw(self, endpoint: Endpoint) -> None:
        """It reads on; if it was removed meanwhile it will find out, in one of three ways."""
        scheduler = self._scheduler
        if not endpoint.frozen:
            return
        endpoint.numb = False
        endpoint.frozen = endpoint.host_frozen = False
        if endpoint.member:
            side = self._side_of(endpoint.node)
            if side.held and not any(member.lost for member in side.members):
                self._release(side)
        elif not endpoint.told:
            pass  # it was joining, or has lost the ring: it goes on with that
        elif not self.totem or not self.up:
            endpoint.unread.append(RingLost("removed while frozen"))
            endpoint.told, endpoint.dropped_ns = (), endpoint.last_ns
            scheduler.after(scheduler.between(1, 100), lambda: self._join(endpoint))
        else:
            if scheduler.chance(0.6):
                endpoint.ghosts = scheduler.rng.randrange(1, MAX_GHOSTS)
            scheduler.after(scheduler.between(1, 80), lambda: self._alone(endpoint))
        unsent, endpoint.unsent = endpoint.unsent, []
        for payload in unsent:
            self.multicast(endpoint, payload)
        self._read_on(endpoint)

    def _read_on(self, endpoint: Endpoint) -> None:
        """Hand over what waited, one by one, in order; more may come in behind it meanwhile."""
        if endpoint.frozen or not endpoint.open or not endpoint.unread:
            return
        endpoint.deliver(endpoint.unread.pop(0))
        if endpoint.unread:
            self._scheduler.after(self._scheduler.between(0, 0.2), lambda: self._read_on(endpoint))

    def _alone(self, endpoint: Endpoint) -> None:
        """A thawed totem member forms a ring of itself, then merges."""
        if endpoint.frozen or endpoint.member or endpoint.alone or not endpoint.open or not endpoint.told:
            return
        if endpoint.unread:
            self._scheduler.after(1, lambda: self._alone(endpoint))
            return
        endpoint.ghosts, endpoint.alone = 0, True
        node = endpoint.node
        seq = self._seen[node] = self._seen.get(node, 0) + 1
        left = tuple(one for one in endpoint.told if one != node)
        endpoint.epoch, endpoint.told = Epoch(seq, node), (node,)
        how = dict.fromkeys(left, "nodedown")
        self._give(endpoint, ViewChanged(endpoint.epoch, (node,), (), left, how))
        self._count_votes(endpoint)
        if self._scheduler.chance(0.5):  # what it had queued is delivered here, or in the merged view
            for payload in endpoint.late:
                self._give(endpoint, Delivered(node, payload))
            endpoint.late = []
        self._scheduler.after(self._scheduler.between(0, 65), lambda: self._join(endpoint))

    def close(self, endpoint: Endpoint, how: str) -> None:
        """The daemon's connection ends.  how: leave, procdown, or nodedown (its host is off)."""
        endpoint.open, endpoint.ended = False, how
        if self._endpoints.get(endpoint.node) is endpoint:
            del self._endpoints[endpoint.node]
            if endpoint.displaced is not None and endpoint.displaced.open:
                self._endpoints[endpoint.node] = endpoint.displaced
        if not endpoint.member:
            return
        self.unstick()
        scheduler = self._scheduler
        if how == "leave":
            self._remove(endpoint, how)
            return
        delay_ms = scheduler.between(1, 50)
        if how == "nodedown" and self.totem:
            self._side_of(endpoint.node).held = True
            delay_ms = self.detection_ms
        scheduler.after(delay_ms, lambda: self._remove(endpoint, how))

    def _remove(self, endpoint: Endpoint, how: str) -> None:
        if not endpoint.member:
            return
        if self._still:
            self._scheduler.after(20, lambda: self._remove(endpoint, how))
            return
        side = self._side_of(endpoint.node)
        side.members.remove(endpoint)
        endpoint.member = False
        side.waiting = [item for item in side.waiting if item[0] is not endpoint]
        side.how[endpoint.node] = how
        if side.forming is None and side.members:
            self._announce(side)

    def cut(self, groups: list[list[int]], ragged_ms: int = 0) -> None:
        """Part the nodes; each side finds out one detection time later.

        Args: ragged_ms: how long a totem's token still passes; 0: as it comes."""
        self._regroup(groups, self.detection_ms)
        if self.totem and ragged_ms:
            self._ragged_ns = self._scheduler.now_ns + ragged_ms * MS
        elif self.totem and self._scheduler.chance(0.5):
            self._ragged_ns = self._scheduler.now_ns + int(self._scheduler.between(0, RAGGED_MS) * MS)

    def heal(self) -> None:
        if not self._cut:
            return
        parts = list(self._cut)
        # Sides that have not yet found out that they are apart do not form a part of a ring first.
        apart = all(side.forming is None for side in self._sides.values())
        if self.totem and apart and len(parts) > 2 and self._scheduler.chance(0.5):
            self._scheduler.rng.shuffle(parts)
            parts = [parts[0] + parts[1], *parts[2:]]
            self._regroup(parts, self._scheduler.between(10, 65))
            late_ms = self._scheduler.between(70, 300)
            self._scheduler.after(late_ms, lambda: self._heal_rest(parts))
        else:
            self._heal_rest(self._cut)

    def _heal_rest(self, parts: list[list[int]]) -> None:
        if self._cut is parts:
            self._regroup([], self._scheduler.between(10, 65))

    def deafen(self, node: int, others: list[int]) -> None:
        """Cut what the others send to this node, and not what it sends to them."""
        self._regroup([[node], others], 2 * self.detection_ms)
        if self.totem:
            self._form_again(self._cut, others[0])

    def _form_again(self, cut: list[list[int]], node: int) -> None:
        def form() -> None:
            if self._cut is not cut or not self.up:
                return
            side = self._side_of(node)
            if side.forming is None and side.members:
                side.forming = self._scheduler.after(self.detection_ms, lambda: self._formed(side))
            self._form_again(cut, node)

        self._scheduler.after(self._scheduler.between(3, 6) * self.detection_ms, form)

    def stick(self, one: int, other: int) -> None:
        """Cut the path between two nodes that both reach a third: nothing passes to or from either."""
        self.unstick()
        if self.whole and self.up and not any(end.lost for end in self._endpoints.values()):
            self._stuck = (one, other)

    def stand_still(self) -> None:
        """The hub reads and sends nothing, and nobody is told.  (A totem whose members all hear nothing is
        one that is cut: see `cut`.)"""
        if not self.totem:
            self._still = True

    def go_on(self) -> None:
        """It reads one link after the other, each to its end."""
        if not self._still:
            return
        self._still = False
        for side in self._sides.values():
            order = [member.node for member in side.members]
            self._scheduler.rng.shuffle(order)
            side.waiting.sort(key=lambda item: order.index(item[0].node) if item[0].node in order else -1)
            if not side.held:
                self._release(side)

    def unstick(self) -> None:
        stuck, self._stuck = self._stuck, ()
        for node in stuck:
            endpoint = self._endpoints.get(node)
            if endpoint is None:
                continue
            facts, endpoint.undelivered = endpoint.undelivered, []
            payloads, endpoint.unsent = endpoint.unsent, []
            for fact in facts:
                self._give(endpoint, fact)
            for payload in payloads:
                self.multicast(endpoint, payload)

    @property
    def whole(self) -> bool:
        return not self._cut

    @property
    def parts(self) -> list[list[int]]:
        """As `cut` was told; empty: it is whole."""
        return self._cut

    def _regroup(self, groups: list[list[int]], delay_ms: float) -> None:
        self.unstick()
        before = list(self._sides.values())
        self._cut, self._sides = groups, {}
        for old in before:
            if old.forming is not None:
                old.forming.cancel()
            for member in old.members:
                self._side_of(member.node).members.append(member)
        for side in self._sides.values():
            for old in before:
                if any(member in side.members for member in old.members):
                    side.how.update(old.how)
                    side.waiting += [item for item in old.waiting if item[0] in side.members]
            side.forming = self._scheduler.after(delay_ms, lambda side=side: self._formed(side))  # type: ignore[misc]

    def _formed(self, side: Side) -> None:
        side.forming = None
        if side.members:
            self._announce(side)

    def lose(self) -> None:
        """The ring itself ends (the hub is killed)."""
        self.unstick()
        self.up = self._still = False
        for side in self._sides.values():
            if side.forming is not None:
                side.forming.cancel()
            for member in side.members:  # also those whose end the ring had not noticed yet
                if not member.open:
                    member.member = False
        endpoints = list(self._endpoints.values())
        self._sides = {}
        for endpoint in endpoints:
            if endpoint.member or endpoint.told:
                endpoint.member, endpoint.alone, endpoint.told = False, False, ()
                self._give(endpoint, RingLost("the hub is gone"))
            self._scheduler.after(self._scheduler.between(20, 500), lambda e=endpoint: self._join(e))  # type: ignore[misc]

    def restore(self) -> None:
        self.up = True

    # -- views -------------------------------------------------------------------

    def _side_of(self, node: int) -> Side:
        number = next((at for at, group in enumerate(self._cut, 1) if node in group), 0)
        return self._sides.setdefault(number, Side(number))

    def _announce(self, side: Side) -> None:
        members = tuple(sorted(member.node for member in side.members))
        seq = 1 + max(self._seen.get(node, 0) for node in members)
        if not self.totem:  # the hub counts for all sides together
            seq = 1 + max(self._seen.values(), default=0)
        epoch = Epoch(seq, members[0])
        self.views += 1
        self.viewed_ns = self._scheduler.now_ns
        for member in side.members:
            gap, member.gap = member.gap, []
            for sender, payload in gap:
                if sender in members and member.told:  # else it has lost the ring since
                    self._give(member, Delivered(sender, payload))
        for member in side.members:
            left = tuple(one for one in member.told if one not in members)
            joined = tuple(one for one in members if one not in member.told)
            how = {one: side.how.get(one, "nodedown") for one in left}
            member.told, member.epoch, member.ghosts = members, epoch, 0
            self._seen[member.node] = seq
            self._give(member, ViewChanged(epoch, members, joined, left, how))
            self._count_votes(member)
        side.how = {}
        self._scheduler.note(f"ring: view {epoch} of {members}")
        side.held = self.totem and any(member.lost for member in side.members)
        if not side.held:
            self._release(side)

    def _count_votes(self, endpoint: Endpoint) -> None:
        if not self.totem or not self._nodes:
            return
        here = len(endpoint.told)
        self._met = self._met or here == self._nodes
        said = QuorumSaid(2 * here > self._nodes or (self._nodes == 2 and self._met))
        at_ns = self._scheduler.now_ns + int(self._late.between(0, 10) * MS)
        endpoint.counted_ns = max(endpoint.counted_ns + 1, at_ns)  # what it says, it says in order
        self._late.at(endpoint.counted_ns, lambda: self._read(endpoint, said))

    def _release(self, side: Side) -> None:
        side.held = False
        if side.forming is not None:
            return
        waiting, side.waiting = side.waiting, []
        for sender, payload in waiting:
            self._order(side, sender, payload)

    def spoke_all_along(self, node: int, for_ms: float) -> bool:
        """Whether this node's daemon has said something again and again for so long, and was in the ring."""
        endpoint, now_ns = self._endpoints.get(node), self._scheduler.now_ns
        if endpoint is None or not endpoint.member or endpoint.numb or node in self._stuck:
            return False
        speaks = now_ns - endpoint.spoke_ns < PAUSE_MS * MS
        return speaks and now_ns - endpoint.paused_ns > for_ms * MS

    def together(self, one: int, other: int) -> bool:
        """Whether two nodes are members of the same view, as the ring sees it."""
        a, b = self._endpoints.get(one), self._endpoints.get(other)
        return a is not None and b is not None and a.member and b.member and a.epoch == b.epoch
