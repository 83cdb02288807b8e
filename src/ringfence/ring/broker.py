"""The embedded ring's mind: who is in, and in which order payloads are delivered.

It behaves as totem does (corosync), so that what runs on it runs on the real ring:

* A *member* is a node with a daemon link.  Its host's init holds a link of its own, so that a
  daemon's end ("procdown") and a host's end ("nodedown") can be told apart.  A node without a host
  link: its daemon link is its host.
* A host is removed when all its links were silent for detection_ms = token + consensus = 2.2 x
  token (corosync.conf(5)), or at once when its host link ends.  Time in which the broker itself did
  not run does not count.  A daemon that is frozen alone stays in: that is the engine's to decide.
* Every view has an epoch (sequence, lowest member); the sequence is on disk before the view is
  announced (`epochs`).  If it cannot be kept, the view is not announced: who wants to join is
  refused, and where a member was lost the others are dropped too, since the old view must not go on.
* What was sent on a removed link and is not yet ordered is dropped with it.
* `cut` partitions the ring, for tests: nothing is delivered until the loss is detected, then every
  part has its own views, epochs and order.  `heal` merges.
* A broker that was there before (a number is on disk, or a node has seen one) gathers whoever was in
  its ring before it announces the first view.
* A slow member: everybody's sending waits for it, for one token time; then it is left behind, up to
  LIMIT_BYTES, and removed.

All state lives in one event loop; a callback's work is bounded by what one read returns."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from ringfence.core.ids import Epoch
from ringfence.ring.epochs import Epochs
from ringfence.ring.link import Link
from ringfence.wire import hub as wire
from ringfence.wire.hub import ToHub

HIGH_WATER_BYTES = 4 << 20
LOW_WATER_BYTES = 1 << 20
LIMIT_BYTES = 64 << 20
GATHER_MS = 1200
"""How long a broker that came back waits before its first view: a little over the longest pause in which
a node tries again.  Without it the first comer would see all the others lost."""

_PING = wire.encode(wire.Ping())


class JoinRefused(Exception):
    """One line for the newcomer, and what to do next."""

    def __init__(self, message: str, next: str = "") -> None:
        super().__init__(message)
        self.message, self.next = message, next


@dataclass(eq=False)
class Host:
    """What the broker knows of one node."""

    node: int
    daemon: Link[ToHub] | None = None
    host: Link[ToHub] | None = None
    silent_ms: float = 0.0
    told: tuple[int, ...] = ()
    """Members of the last view that the daemon link was told."""
    removed: str = ""
    """Why the broker ended its last links; told when it comes back."""
    ending: asyncio.TimerHandle | None = None
    """Its daemon link ended a moment ago; if the host link ends too, it is the host that went."""
    lagging: bool = False
    """It did not read for a token time: nobody waits for it any more."""

    @property
    def links(self) -> list[Link[ToHub]]:
        return [link for link in (self.daemon, self.host) if link is not None]


@dataclass(eq=False)
class Partition:
    """One order: the members of one side of a cut (or all of them)."""

    group: int
    members: dict[int, Host] = field(default_factory=dict)
    """In the view, or to be in the one that forms."""
    epoch: Epoch = field(default_factory=Epoch)
    how: dict[int, str] = field(default_factory=dict)
    """How members left since the last announced view."""
    pending: list[tuple[int, bytes]] = field(default_factory=list)
    pending_bytes: int = 0
    flushing: bool = False
    forming: asyncio.TimerHandle | None = None
    """Cut a moment ago: nothing is delivered until this has run."""
    pressed_ms: float | None = None
    """How long senders have been waiting for a slow member; None: they are not."""
    delivered: int = 0


class Broker:
    """Views and order for the links that it is given.  `tick` must be called every `tick_ms`."""

    def __init__(self, epochs: Epochs, token_ms: int, log: Callable[[str], None]) -> None:
        self.token_ms = token_ms
        self.detection_ms = token_ms * 22 // 10
        self.tick_ms = max(5, min(50, token_ms // 10))
        self.linger_ms = max(20, min(100, token_ms // 10))
        """How long a lost daemon link waits for its host link to be lost as well: a host that is
        powered off loses both, in any order."""
        self.trouble = ""
        self._epochs = epochs
        self._log = log
        self._hosts: dict[int, Host] = {}
        self._partitions: dict[int, Partition] = {}
        self._cut: tuple[tuple[int, ...], ...] = ()
        self._since_ping_ms = 0.0
        self._loop = asyncio.get_running_loop()
        self._gathered = False

    # -- coming ------------------------------------------------------------------

    def join(self, node: int, link: Link[ToHub], seen: int) -> None:
        """A daemon link: the node becomes a member, in a new view.

        Raises JoinRefused; the link is then the caller's again."""
        host = self._hosts.setdefault(node, Host(node))
        if host.ending is not None:
            self._remove(host, "procdown", "its daemon ended")
        if host.daemon is not None:
            raise JoinRefused(
                f"node {node} already has a daemon on this hub (process {host.daemon.peer_pid()})",
                "stop that one first, or give this one another node id",
            )
        self._epochs.above(seen)
        welcome = wire.Welcome(self.token_ms, self.detection_ms, host.removed)
        if (present := self._partitions.get(self._group_of(node))) is not None:
            self._flush(present)
        partition = self._partition_for(node)
        if not self._gathered:
            self._gathered = True
            if self._epochs.seq:
                partition.forming = self._loop.call_later(GATHER_MS / 1000, self._formed, partition)
        partition.members[node] = host
        host.daemon, host.told, host.lagging, host.silent_ms = link, (), False, 0.0
        if partition.forming is None:
            epoch = self._next_epoch(partition)
            if epoch is None:
                del partition.members[node]
                host.daemon = None
                self._forget_empty(partition)
                raise JoinRefused(self.trouble, "free space where the hub keeps its --state file")
        link.on_message = partial(self._said, host, link)
        link.on_closed = lambda why: self._daemon_ended(host, why)
        link.on_drained = lambda: self._drained(node)
        link.send(wire.encode(welcome))
        host.removed = ""
        if partition.forming is None:
            assert epoch is not None
            self._announce(partition, epoch)

    def attach(self, node: int, link: Link[ToHub]) -> None:
        """A host link: from now on it tells whether the node's host lives.  Raises JoinRefused."""
        host = self._hosts.setdefault(node, Host(node))
        if host.host is not None:
            raise JoinRefused(
                f"node {node} already has a host link on this hub (process {host.host.peer_pid()})",
                "stop that host first, or give this one another node id",
            )
        host.host, host.silent_ms = link, 0.0
        link.on_closed = lambda why: self._host_ended(host, why)
        link.send(wire.encode(wire.Welcome(self.token_ms, self.detection_ms, host.removed)))

    # -- order -------------------------------------------------------------------

    def _said(self, host: Host, link: Link[ToHub], message: ToHub) -> None:
        match message:
            case wire.Send(payloads):
                self._submit(host, payloads)
            case wire.Leave():
                self._remove(host, "leave", "it left")
            case wire.Pong():
                pass
            case _:
                link.finish(wire.encode(wire.Refusal("a daemon link may only send, pong and leave")))
                self._daemon_ended(host, "it spoke out of turn")

    def _submit(self, host: Host, payloads: tuple[bytes, ...]) -> None:
        partition = self._partitions[self._group_of(host.node) if self._cut else 0]
        for payload in payloads:
            partition.pending.append((host.node, payload))
            partition.pending_bytes += len(payload)
        if partition.forming is not None:
            if partition.pending_bytes > HIGH_WATER_BYTES:
                self._press(partition)
        elif not partition.flushing:
            # The first at once: it may be all there is.  The rest of this turn together.
            partition.flushing = True
            self._flush(partition)
            self._loop.call_soon(self._turn_over, partition)

    def _turn_over(self, partition: Partition) -> None:
        partition.flushing = False
        self._flush(partition)

    def _flush(self, partition: Partition) -> None:
        """Deliver what waits, in one frame or a few, to all members alike.

        Whoever sent it is served last: what others do about it (be granted what it gave back) waits for
        the frame; it has a reply of its own less often."""
        if partition.forming is not None or not partition.pending:
            return
        items, partition.pending, partition.pending_bytes = partition.pending, [], 0
        partition.delivered += len(items)
        sender = items[-1][0]
        frames = _frames(items) if len(items) > 1 else (wire.encode(wire.Deliver((items[0],))),)
        for frame in frames:
            own = None
            for node, member in partition.members.items():
                if node == sender:
                    own = member.daemon
                elif member.daemon is not None:
                    member.daemon.send_now(frame)
            if own is not None:
                own.send_now(frame)
        self._mind_slow(partition)

    def _mind_slow(self, partition: Partition) -> None:
        for member in list(partition.members.values()):
            buffered = member.daemon.buffered_bytes if member.daemon else 0
            if buffered > LIMIT_BYTES:
                how = "procdown" if member.host is not None else "nodedown"
                self._remove(member, how, f"it left {buffered >> 20} MiB unread")
            elif buffered > HIGH_WATER_BYTES and not member.lagging:
                self._press(partition)

    def _press(self, partition: Partition) -> None:
        """Stop reading from the members until the slowest has caught up, or a token time is over."""
        if partition.pressed_ms is None:
            partition.pressed_ms = 0.0
            for member in partition.members.values():
                if member.daemon is not None:
                    member.daemon.pause()

    def _relax(self, partition: Partition) -> None:
        partition.pressed_ms = None
        for member in partition.members.values():
            if member.daemon is not None:
                member.daemon.resume()

    def _drained(self, node: int) -> None:
        partition = self._partitions.get(self._group_of(node))
        if partition is None or node not in partition.members:
            return
        partition.members[node].lagging = False
        if partition.pressed_ms is not None and not self._slow(partition) and partition.forming is None:
            self._relax(partition)

    def _slow(self, partition: Partition) -> list[Host]:
        return [
            member
            for member in partition.members.values()
            if member.daemon is not None
            and member.daemon.buffered_bytes > LOW_WATER_BYTES
            and not member.lagging
        ]

    # -- going -------------------------------------------------------------------

    def _daemon_ended(self, host: Host, why: str) -> None:
        host.daemon = None
        if host.host is None:
            self._remove(host, "nodedown", why)
        elif host.ending is None:
            delay_s = self.linger_ms / 1000
            host.ending = self._loop.call_later(delay_s, self._remove, host, "procdown", "its daemon ended")

    def _host_ended(self, host: Host, why: str) -> None:
        host.host = None
        self._remove(host, "nodedown", f"its host is gone ({why})")

    def _remove(self, host: Host, how: str, why: str) -> None:
        """Out of the view, its links ended and told, whatever they had sent dropped."""
        if host.ending is not None:
            host.ending.cancel()
            host.ending = None
        partition = self._partitions.get(self._group_of(host.node))
        member = partition is not None and partition.members.pop(host.node, None) is not None
        epoch: Epoch | None = Epoch()
        if partition is not None and member:
            self._flush(partition)
            # Left over only while a view forms: the next one is without this sender.
            partition.pending = [item for item in partition.pending if item[0] != host.node]
            partition.pending_bytes = sum(len(payload) for _, payload in partition.pending)
            partition.how[host.node] = how
            if partition.forming is None and partition.members:
                epoch = self._next_epoch(partition)
        self._dismiss(host, epoch or Epoch(), "" if how == "leave" else why, host_too=how == "nodedown")
        if partition is None or not member:
            return
        self._log(f"node {host.node} removed ({how}): {why}")
        if not partition.members:
            self._forget_empty(partition)
        elif epoch is None:
            self._dissolve(partition)
        elif partition.forming is None:
            self._announce(partition, epoch)

    def _dismiss(self, host: Host, epoch: Epoch, why: str, host_too: bool) -> None:
        last = wire.encode(wire.Removed(epoch, why))
        if host.daemon is not None:
            host.daemon.finish(last)
            in_epoch = f" in epoch {epoch}" if epoch.seq else ""
            host.removed = f"removed from the ring{in_epoch}: {why}" if why else ""
        if host_too and host.host is not None:
            host.host.finish(last)
        host.daemon = None
        host.told = ()
        if host_too:
            host.host = None

    def _dissolve(self, partition: Partition) -> None:
        """The next view cannot be kept on disk: nobody may go on in the old one."""
        members, partition.members = list(partition.members.values()), {}
        for member in members:
            if member.ending is not None:
                member.ending.cancel()
                member.ending = None
            self._dismiss(member, Epoch(), self.trouble, host_too=False)
        self._forget_empty(partition)

    # -- views -------------------------------------------------------------------

    def _next_epoch(self, partition: Partition) -> Epoch | None:
        """The next view's epoch, kept on disk.  None (and `trouble`) if it cannot be kept."""
        try:
            seq = self._epochs.next()
        except OSError as error:
            self.trouble = f"the hub cannot keep its epoch in {self._epochs.path}: {error.strerror or error}"
            self._log(self.trouble)
            return None
        self.trouble = ""
        return Epoch(seq, min(partition.members))

    def _announce(self, partition: Partition, epoch: Epoch) -> None:
        """Tell every member the new view, between the payloads before and after it."""
        members = tuple(sorted(partition.members))
        partition.epoch = epoch
        for node in members:
            host = partition.members[node]
            left = tuple(one for one in host.told if one not in partition.members)
            joined = tuple(one for one in members if one not in host.told)
            how = {one: partition.how.get(one, "nodedown") for one in left}
            host.told = members
            if host.daemon is not None:
                host.daemon.send(wire.encode(wire.View(epoch, members, joined, left, how)))
        partition.how = {}
        self._log(f"epoch {epoch}: members {', '.join(map(str, members))}")

    def _group_of(self, node: int) -> int:
        """Which side of the cut; 0 for whoever the cut does not name."""
        if not self._cut:
            return 0
        return next((at for at, group in enumerate(self._cut, 1) if node in group), 0)

    def _partition_for(self, node: int) -> Partition:
        group = self._group_of(node)
        return self._partitions.setdefault(group, Partition(group))

    def _forget_empty(self, partition: Partition) -> None:
        if not partition.members:
            if partition.forming is not None:
                partition.forming.cancel()
            self._partitions.pop(partition.group, None)

    # -- tests' faults -----------------------------------------------------------

    def cut(self, groups: Iterable[tuple[int, ...]]) -> None:
        """Part the nodes.  Nothing is delivered across from now on, nor within a part until the loss
        of the others has been detected there, as in totem."""
        self._regroup(tuple(tuple(sorted(group)) for group in groups), delay_ms=self.detection_ms)

    def heal(self) -> None:
        self._regroup((), delay_ms=0)

    def _regroup(self, groups: tuple[tuple[int, ...], ...], delay_ms: int) -> None:
        for partition in list(self._partitions.values()):
            self._flush(partition)
        before = self._partitions
        self._cut, self._partitions = groups, {}
        changed: list[Partition] = []
        for old in before.values():
            for node, host in old.members.items():
                self._partition_for(node).members[node] = host
        for old in before.values():
            for partition in self._partitions.values():
                if set(partition.members) & set(old.members):
                    partition.how.update(old.how)
                    partition.delivered = max(partition.delivered, old.delivered)
            for item in old.pending:
                home = self._partitions.get(self._group_of(item[0]))
                if home is not None:
                    home.pending.append(item)
                    home.pending_bytes += len(item[1])
            if old.forming is not None:
                old.forming.cancel()
        for partition in self._partitions.values():
            same = [old for old in before.values() if set(old.members) == set(partition.members)]
            if same and same[0].forming is None:
                partition.epoch, partition.how = same[0].epoch, same[0].how
                partition.pressed_ms = same[0].pressed_ms
            else:
                changed.append(partition)
        for partition in changed:
            if delay_ms:
                partition.forming = self._loop.call_later(delay_ms / 1000, self._formed, partition)
            else:
                self._formed(partition)

    def _formed(self, partition: Partition) -> None:
        partition.forming = None
        self._relax(partition)
        epoch = self._next_epoch(partition)
        if epoch is None:
            self._dissolve(partition)
            return
        self._announce(partition, epoch)
        self._flush(partition)

    # -- time --------------------------------------------------------------------

    def tick(self, elapsed_ms: float) -> None:
        """Ping, and remove who has been silent too long.

        elapsed_ms: since the last tick, on the broker's clock.  More than two ticks' worth is the
        broker's own absence, of which nobody else is guilty."""
        elapsed_ms = min(elapsed_ms, 2.0 * self.tick_ms)
        self._since_ping_ms += elapsed_ms
        ping = self._since_ping_ms >= self.token_ms / 4
        if ping:
            self._since_ping_ms = 0.0
        for host in list(self._hosts.values()):
            self._listen(host, elapsed_ms, ping)
        for partition in list(self._partitions.values()):
            self._wait_for_slow(partition, elapsed_ms)

    def _listen(self, host: Host, elapsed_ms: float, ping: bool) -> None:
        links = host.links
        heard = any(link.heard for link in links)
        paused = any(link.paused for link in links)
        for link in links:
            link.heard = False
        if heard or not links:
            host.silent_ms = 0.0
        elif not paused:
            host.silent_ms += elapsed_ms
        if host.silent_ms >= self.detection_ms:
            self._remove(host, "nodedown", f"no answer for {host.silent_ms:.0f} ms")
        elif ping:
            for link in links:
                if link.buffered_bytes <= HIGH_WATER_BYTES:
                    link.send(_PING)

    def _wait_for_slow(self, partition: Partition, elapsed_ms: float) -> None:
        if partition.pressed_ms is None or partition.forming is not None:
            return
        partition.pressed_ms += elapsed_ms
        slow = self._slow(partition)
        if slow and partition.pressed_ms < self.token_ms:
            return
        for member in slow:
            member.lagging = True
            self._log(f"node {member.node} does not read; the others no longer wait for it")
        self._relax(partition)

    # -- looking -----------------------------------------------------------------

    def status(self) -> wire.HubStatus:
        partitions = tuple(
            wire.PartitionStatus(
                one.group, one.epoch, tuple(sorted(one.members)), one.forming is not None, one.delivered
            )
            for _, one in sorted(self._partitions.items())
        )
        nodes = tuple(self._link_status(host) for _, host in sorted(self._hosts.items()))
        return wire.HubStatus(self.token_ms, self.detection_ms, self._cut, partitions, nodes, self.trouble)

    def _link_status(self, host: Host) -> wire.LinkStatus:
        group = self._group_of(host.node)
        partition = self._partitions.get(group)
        return wire.LinkStatus(
            node=host.node,
            group=group,
            in_view=partition is not None and partition.forming is None and host.node in partition.members,
            daemon=host.daemon is not None,
            host=host.host is not None,
            silent_ms=int(host.silent_ms),
            buffered_bytes=sum(link.buffered_bytes for link in host.links),
            daemon_pid=host.daemon.peer_pid() if host.daemon else 0,
        )

    def close(self) -> None:
        for host in self._hosts.values():
            for link in host.links:
                link.close()


def _frames(items: list[tuple[int, bytes]]) -> Iterator[bytes]:
    """What delivers them, in one frame or a few."""
    start = 0
    for run in wire.batches([payload for _, payload in items]):
        yield wire.encode(wire.Deliver(tuple(items[start : start + len(run)])))
        start += len(run)
