"""What must always hold, looked at after every event.  The numbers are those of the architecture.

The checkers see everything (frozen hosts, both sides of a cut, the true state of every switch) and
use as little of the engine's own reasoning as they can: a planted bug must not blind them too.

    1   beliefs under valid authority are compatible        `beliefs` (clients and open paths), and what is
                                                             open is locked (`_open_is_locked`)
    2   no grant between a loss and the evidence for it      `_grant_may_be_told`, `_nothing_granted`
    3   evidence fits what it is evidence for                `_evidence_fits`, `_fenced_stay_out`
    4   who blocks the head of a queue has been told         `engine.invariants` on the state; lazy clients
                                                             (`workload`) give back only when told, so that
                                                             a notice that is lost shows as a breach of 11
    5   a value block is the last one written, or not valid  `counters`
    6   equal positions, equal digests                       `_sound_and_equal`
    7   tokens increase                                      `_token_increases`
    8   metadata is one committed version                    `metadata`, `volumes` (what reports say)
    9   no write of a fenced life but the one in flight      `landed`, `path_landed`
    10  a victim is never forgotten, nor where it was        `_nobody_forgotten`, `_note_spaces`
    11  every request is answered in bounded time            `world.World.mend`; and who cannot be heard is
                                                             fenced in bounded time (`_is_fenced_soon`)
    12  an opened LV has its own data, the last of them     `tenants`

In an older protocol nobody says what only a newer one has (`said`).  Volumes that a later life adopts have
its authority (`_adopted_go_on`).  Where only quorum was lost and came back, nobody goes stale
(`_nobody_stale`) nor must be fenced (`_note_victims`).  Nobody is called silent who is not (`_is_silent`),
no try fails for want of a use (`workload`), and what a client leaves behind is there until somebody takes
it (`workload`)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from ringfence.core.evidence import CUTS, Evidence, EvidenceKind
from ringfence.core.ids import Epoch, Life, Token
from ringfence.core.modes import Mode
from ringfence.engine import invariants
from ringfence.engine.digest import digest_of_state
from ringfence.engine.effects import Answer, Effect, RunAgent
from ringfence.engine.state import ClusterState
from ringfence.fencing.domain import Victim
from ringfence.locks.resource import Resource
from ringfence.sim.counters import Counters
from ringfence.sim.grips import Grip, compatible, conflicts
from ringfence.sim.host import Host
from ringfence.sim.metadata import Metadata
from ringfence.sim.paths import Landed
from ringfence.sim.power import Manner, PowerRoom
from ringfence.sim.ring import SimRing
from ringfence.sim.safety import LivenessViolation, SafetyViolation
from ringfence.sim.scheduler import Scheduler
from ringfence.wire import (
    CHECKUPS,
    DEADLOCKS,
    HANDOVERS,
    LEAVE_OUT,
    MANY_LOCKS,
    REFRESHES,
    UNCLEAN,
    entries,
    ring,
)  # fmt: skip


class Glimpse(NamedTuple):
    """What a node's engine thinks."""

    life: Life
    running: ClusterState | None
    """Its state, if it may act on it now."""
    phase: str
    settled: bool = True
    """Its state is not in the middle of an entry."""


NEWER: dict[type, int] = {
    entries.SearchDeadlock: DEADLOCKS, entries.Waits: DEADLOCKS,
    entries.AskHosts: CHECKUPS, entries.HostSays: CHECKUPS,
    entries.AskRefresh: REFRESHES, entries.RefreshTold: REFRESHES,
    entries.UncleanNoted: UNCLEAN,
    entries.AskHandover: HANDOVERS, entries.HandoverTold: HANDOVERS,
    entries.LockRequests: MANY_LOCKS, entries.LockUnlocks: MANY_LOCKS, entries.LocksBusy: MANY_LOCKS,
    ring.LeaveOut: LEAVE_OUT,
}  # fmt: skip
"""Since which protocol there is what may be said (docs/formats/wire.md)."""
DIGEST_EVERY = 4
"""States that differ once go on differing: not every position need be compared."""
PLACES_KEPT = 50
SHOT_MS = 600
"""Longer than an array that works takes to answer, so that what is fired was decided on after the mark."""
SPOKE_MS = 3000
"""Who has spoken all along for so long is not silent."""
FENCED_S = 20
"""So long after the last fault, and in one view, who must be fenced is, if it can be."""
Look = Callable[[Host], Glimpse | None]


@dataclass
class _Told:
    """Highest tokens that were told for one resource."""

    by_mode: dict[Mode, tuple[Token, int]] = field(default_factory=dict)


class Checkers:
    """Args:
    look: what a host's engine thinks; None if no daemon runs.
    grips: what all clients and open paths believe.
    lock_of: which (lockspace, resource) a client asked for in a request.
    counted: the (lockspace, resource)s whose value blocks `counters` follows.
    joining: which lockspace a client asked to join in a request.
    only_quorum: whether nothing has struck so far but the loss of quorum, on all sides at once.
    struck_ns: when the last fault struck.
    is_promised: whether compatible beliefs are promised for a lockspace, whatever strikes here.
    is_marked: whether a host's own mark on the disk says that it was given up."""

    def __init__(
        self,
        scheduler: Scheduler,
        ring: SimRing,
        power: PowerRoom,
        hosts: list[Host],
        look: Look,
        grips: Callable[[], list[Grip]],
        lock_of: Callable[[int, str], tuple[str, str] | None],
        joining: Callable[[int, str], str | None],
        metadata: Metadata,
        counters: Counters,
        counted: tuple[tuple[str, str], ...],
        only_quorum: Callable[[], bool],
        struck_ns: Callable[[], int],
        is_promised: Callable[[str], bool] = lambda lockspace: True,
        is_marked: Callable[[Host], bool] = lambda host: False,
    ) -> None:
        self._scheduler, self._ring, self._power, self._hosts = scheduler, ring, power, hosts
        self._look, self._grips = look, grips
        self._lock_of, self._joining = lock_of, joining
        self._metadata, self._counters, self._counted = metadata, counters, counted
        self._only_quorum, self._struck_ns = only_quorum, struck_ns
        self._is_promised, self._is_marked = is_promised, is_marked
        self._marked_ns: dict[int, tuple[str, int]] = {}
        """Node -> (boot, since when its mark is seen on the disk)."""
        self._host_of = {host.node: host for host in hosts}
        self._suspects: list[tuple[Grip, Grip]] = []
        """Pairs of beliefs that must not be valid at once."""
        self._believed: list[Grip] = []
        self._modes: list[Mode] = []
        self._blocks: dict[tuple[int, tuple[str, str]], Resource | None] = {}
        self._digests: dict[int, tuple[Epoch, int, str]] = {}
        self._sound: dict[tuple[Epoch, int], None] = {}
        """Where a state was found sound; that the others' are the same is what their digests say."""
        self._told: dict[str, _Told] = {}
        self._victim_since_ns: dict[tuple[Life, bool, Epoch], int] = {}
        self._victim_since: dict[tuple[Life, bool, Epoch], tuple[Epoch, int]] = {}
        """Where in the total order a victim was first seen."""
        self._spaces: dict[tuple[Life, bool], tuple[tuple[Epoch, int], frozenset[str]]] = {}
        """In which lockspaces a victim was, as far as any state has known."""
        self._top = Epoch(), 0
        """The latest (epoch, position) of any state."""
        self._due_ns: dict[int, tuple[Epoch, int]] = {}
        """Since when a node has had somebody to fence in a view."""
        self._held: dict[tuple[Life, bool, Epoch], dict[tuple[str, str, int], Mode]] = {}
        """Which locks there were when a victim was first seen, by (lockspace, resource, node)."""
        self._called: dict[Life, Epoch] = {}
        """Every life that ever was a victim, and in which view first."""
        self._fenced: list[tuple[Life, tuple[Evidence, ...]]] = []
        self._exposed: set[str] = set()
        """Devices behind a lie that came to light (nobody trusts one again here)."""
        self._strong: dict[int, tuple[Life, Epoch]] = {}
        """The latest life of each node that ever had authority, and the epoch of that."""
        self.signed: list[tuple[int, int]] = []
        """(when, node): an operator has seen the host off and signed."""
        self.late_writes = 0
        self.lies_believed = 0

    @property
    def fenced(self) -> int:
        """Lives given up for fenced."""
        return len(self._fenced) - self.adopted

    @property
    def adopted(self) -> int:
        """Lives whose volumes a later one of the same boot went on with."""
        return sum(any(one.kind is EvidenceKind.ADOPTED for one in found) for _, found in self._fenced)

    # -- at every event ------------------------------------------------------------

    def beliefs(self) -> None:
        """1: beliefs under valid authority are pairwise compatible, wherever they are held."""
        grips = self._grips()
        modes = [grip.mode for grip in grips]
        if grips != self._believed or modes != self._modes:
            self._believed, self._modes = grips, modes
            resources: dict[tuple[str, str], list[Grip]] = {}
            for grip in [grip for grip in grips if self._is_promised(grip.lockspace)]:
                resources.setdefault((grip.lockspace, grip.resource), []).append(grip)
            self._suspects = [pair for held in resources.values() for pair in conflicts(held)]
        for one, other in self._suspects:
            if one.valid and other.valid:
                raise SafetyViolation(
                    f"1: {one.lockspace}/{one.resource} is believed {one.mode.name} by {one.host.name} "
                    f"({one.token}) and {other.mode.name} by {other.host.name} ({other.token}), "
                    "both under valid authority"
                )

    def said(self, host: Host, payload: bytes) -> None:
        """What is said in a protocol is of that protocol, for whoever speaks no newer one."""
        frame = ring.decode(payload)
        glimpse = self._look(host)
        if glimpse is None or glimpse.running is None:
            return
        for item in frame.items:
            what = item.entry if isinstance(item, ring.Submitted) else item
            since = NEWER.get(type(what), 1)
            if since > glimpse.running.protocol:
                raise SafetyViolation(
                    f"protocol: {host.name} says {type(what).__name__}, of protocol {since}, in protocol "
                    f"{glimpse.running.protocol}"
                )

    # -- after every step of an engine -----------------------------------------------

    def stepped(self, host: Host, todo: list[Effect]) -> None:
        self._does_not_shoot(host, todo)
        glimpse = self._look(host)
        if glimpse is not None and glimpse.phase == "stale":
            self._nobody_stale(host)
        if glimpse is None or glimpse.running is None:
            self._digests.pop(host.node, None)
            return
        state = glimpse.running
        self._note_victims(state)
        self._nobody_forgotten(host, state)
        changed = not glimpse.settled or self._sound_and_equal(host, state)
        self._is_fenced_soon(host, state)
        if changed:
            self._looked_at_anew(host, state, glimpse.settled)
        self._victims_stay_out(host, state)
        self._note_strong(host, glimpse, state)
        self._adopted_go_on(host, glimpse)
        for effect in todo:
            if isinstance(effect, Answer):
                self._grant_may_be_told(host, state, effect)
                if host.valid(glimpse.life.incarnation, "grant"):
                    self._join_is_known(host, state, effect)

    def _looked_at_anew(self, host: Host, state: ClusterState, settled: bool) -> None:
        """What comes with the state alone, which is another than at this node's last step."""
        if settled:
            self._note_spaces(host, state)
            self._nothing_granted(host, state)
            self._open_is_locked(host, state)
        self._fresh_blocks(host, state)
        self._evidence_fits(state)
        self._fenced_stay_out(state)

    def _does_not_shoot(self, host: Host, todo: list[Effect]) -> None:
        """Who was marked, and had the time to read it, does not fence the one who went on."""
        if not self._is_marked(host):
            self._marked_ns.pop(host.node, None)
            return
        now_ns, boot = self._scheduler.now_ns, host.boot
        since = self._marked_ns.setdefault(host.node, (boot, now_ns))
        shoots = any(isinstance(one, RunAgent) and one.action == "off" for one in todo)
        known_ns = max(since[1], host.slots.troubled_ns)
        if shoots and host.slots.well and since[0] == boot and now_ns - known_ns > SHOT_MS * 10**6:
            raise SafetyViolation(f"shot: {host.name} fences, though it was marked {SHOT_MS} ms ago at least")

    def _nobody_stale(self, host: Host) -> None:
        """Where all sides lost quorum at once and it came back, nobody has missed anything."""
        if self._only_quorum():
            raise SafetyViolation(f"quorum: {host.name} went stale, though nobody went on without it")

    def _sound_and_equal(self, host: Host, state: ClusterState) -> bool:
        """6: ready members at the same position have the same digest; each state is sound in itself.

        Returns whether the state is another than at this node's last step."""
        known = self._digests.get(host.node)
        place = state.epoch, state.position
        if known is not None and known[:2] == place:
            return False
        if place not in self._sound:
            wrong = invariants.check(state)
            if wrong:
                where = f"{host.name} at {state.epoch}, position {state.position}"
                raise SafetyViolation(f"state of {where}: {'; '.join(wrong)}")
            self._sound[place] = None
            if len(self._sound) > PLACES_KEPT:
                del self._sound[next(iter(self._sound))]
        due = known is None or state.epoch != known[0] or state.position % DIGEST_EVERY == 0
        digest = digest_of_state(state) if due else ""
        self._digests[host.node] = (*place, digest)
        if not due:
            return True
        for node, other in self._digests.items():
            differ = node != host.node and other[:2] == place and other[2] not in ("", digest)
            if differ and self._ring.together(node, host.node):
                raise SafetyViolation(
                    f"6: nodes {node} and {host.node} differ at {state.epoch}, position {state.position}"
                )
        return True

    def _nothing_granted(self, host: Host, state: ClusterState) -> None:
        """2: what is held in a frozen lockspace was granted before the loss that froze it."""
        for victim in state.domain.victims:
            key = (victim.life, victim.lied, victim.since)
            since, before = self._victim_since[key], self._held[key]
            for name, space in state.lockspaces.items():
                if not _froze(state, victim, name):
                    continue
                for resource in space.resources.each():
                    for lock in (*resource.granted, *resource.converting):
                        token = lock.token
                        # One that was not told in time gets a later token, and is no new grant.
                        newer = token is not None and (token.epoch, token.position) > since
                        if newer and before.get((name, resource.name, lock.owner)) is not lock.held:
                            raise SafetyViolation(
                                f"2: {host.name} has granted {name}/{resource.name} to node {lock.owner} "
                                f"({token}), though {victim.life} is not fenced"
                            )

    def _open_is_locked(self, host: Host, state: ClusterState) -> None:
        """1 before anybody else has opened it, too: what a host may write it has the lock of."""
        for grip in host.block.grips:
            if grip.valid and not _is_held(state, grip):
                what = f"{grip.resource} is open on {host.name} for {grip.mode.name} ({grip.token})"
                raise SafetyViolation(f"1: {what}, under no such lock of it")

    def _fresh_blocks(self, host: Host, state: ClusterState) -> None:
        """When a value block begins anew, for want of any lock that keeps it."""
        for where in self._counted:
            space = state.lockspaces.get(where[0])
            resource = space.resources.get(where[1]) if space is not None else None
            before = self._blocks.get((host.node, where))
            if resource is None or (resource is not before and resource.lvb_seq == 0):
                self._counters.fresh(*where, self._scheduler.now_ns)
            self._blocks[host.node, where] = resource

    def _note_victims(self, state: ClusterState) -> None:
        for victim in state.domain.victims:
            key = (victim.life, victim.lied, victim.since)
            if key not in self._victim_since and not victim.life.unknown and self._only_quorum():
                raise SafetyViolation(f"quorum: {victim.life} is a victim, though nobody was lost")
            if key not in self._victim_since_ns:
                self._is_silent(victim)
                self._held[key] = _locks(state)
            self._victim_since_ns.setdefault(key, self._scheduler.now_ns)
            self._victim_since.setdefault(key, (state.epoch, state.position))
            if victim.life not in self._called and self._established(state.epoch):
                self._called[victim.life] = state.epoch

    def _is_silent(self, victim: Victim) -> None:
        """Who is called silent has not spoken all the time."""
        if "silent" in victim.reason and self._ring.spoke_all_along(victim.life.node, SPOKE_MS):
            raise SafetyViolation(f"suspicion: {victim.life} is called silent, and is not")

    def _note_spaces(self, host: Host, state: ClusterState) -> None:
        """10: where a victim was is not forgotten while it is one, unless the state begins afresh."""
        if state.epoch > self._top[0] and state.position < self._top[1]:
            self._spaces.clear()
        self._top = max(self._top, (state.epoch, state.position))
        for life in state.lives.values():  # (one half of two may have called it a victim, and is out itself)
            self._spaces.pop((life, False), None)
        for victim in state.domain.victims:
            partly = state.partly(victim.life)  # given up there already, and not forgotten
            known_in = [*victim.lockspaces, *(partly.lockspaces if partly is not None else ())]
            spaces, place = frozenset(known_in), (state.epoch, state.position)
            since, known = self._spaces.get((victim.life, victim.lied), (place, spaces))
            if known - spaces and since <= place:
                forgotten = ", ".join(sorted(known - spaces))
                raise SafetyViolation(f"10: {host.name} has forgotten that {victim.life} was in {forgotten}")
            if since <= place:
                self._spaces[victim.life, victim.lied] = place, spaces

    def _is_fenced_soon(self, host: Host, state: ClusterState) -> None:
        """11: where nothing strikes and devices are honest, evidence is there in time."""
        if not state.domain.victims or state.disarmed is not None:
            self._due_ns.pop(host.node, None)
            return
        now_ns = self._scheduler.now_ns
        epoch, since_ns = self._due_ns.get(host.node, (None, now_ns))
        if epoch != state.epoch:
            self._due_ns[host.node] = state.epoch, now_ns
            return
        if now_ns - max(since_ns, self._struck_ns()) < FENCED_S * 10**9:
            return
        for victim in state.domain.victims:
            devices = [one for one in self._power.devices.values() if one.node == victim.life.node]
            honest = all(one.manner is Manner.HONEST for one in devices)
            trusted = not any(one.name in state.domain.quarantined for one in devices)
            if honest and trusted and not state.domain.proven(victim):
                raise LivenessViolation(f"11: {victim.life} is not fenced, though it could be")

    def _evidence_fits(self, state: ClusterState) -> None:
        """3: what a life was given up for is about that life, and newer than its loss."""
        for record in state.domain.fenced:
            key = (record.life, tuple(record.evidence))
            if key in self._fenced:
                continue
            self._fenced.append(key)
            if not any(self._believable(one) for one in record.evidence):
                raise SafetyViolation(f"3: {record.life} was given up on the word of an exposed liar")
            if not any(self._stands(state, record.life, one, record.since) for one in record.evidence):
                raise SafetyViolation(
                    f"3: {record.life} was given up for fenced, but none of this is evidence for it: "
                    f"{[one.how for one in record.evidence]}"
                )
            host = self._host(record.life.node)
            cut = any(one.kind in CUTS for one in record.evidence)
            if cut and host.up and host.boot == record.life.boot:
                self.lies_believed += 1
        for incident in state.incidents:
            if incident.kind == "fence-lied":
                self._exposed.update(incident.device.split(", "))

    def _fenced_stay_out(self, state: ClusterState) -> None:
        """3: a boot that was given up for cut off is no member, whatever incarnation it calls itself."""
        for record in state.domain.fenced:
            for life in state.lives.values():
                if record.life.same_boot(life) and any(one.kind in CUTS for one in record.evidence):
                    raise SafetyViolation(f"3: {life} is a member, though {record.life} was fenced")

    def _established(self, epoch: Epoch) -> bool:
        """Whether a majority runs in this view: what one node alone has begun, nobody else need know."""
        glimpses = [glimpse for host in self._hosts if (glimpse := self._look(host)) is not None]
        here = [one for one in glimpses if one.running is not None and one.running.epoch == epoch]
        return 2 * len(here) > len(self._hosts)

    def _victims_stay_out(self, host: Host, state: ClusterState) -> None:
        """10: a life that was a victim is no member of a later view.  (With two nodes each half may have
        called the other one a victim, and one of them is right.)"""
        if len(self._hosts) == 2 or not self._called:
            return
        for life in state.lives.values():
            epoch = self._called.get(life)
            if epoch is not None and state.epoch > epoch:
                raise SafetyViolation(f"10: {host.name} has {life} as a member, a victim since {epoch}")

    def _believable(self, evidence: Evidence) -> bool:
        """Not on the word of a device that was exposed as a liar before."""
        return not any(device in self._exposed for device in evidence.devices)

    def _stands(self, state: ClusterState, life: Life, evidence: Evidence, since: Epoch) -> bool:
        host = self._host(life.node)
        since_ns = max(
            (
                at_ns
                for (one, _, epoch), at_ns in self._victim_since_ns.items()
                if one == life and epoch == since
            ),
            default=None,
        )
        if evidence.life != life:
            return False
        match evidence.kind:
            # A return makes its victim and purges it within one entry: nobody saw it as a victim, and
            # what it proves does not depend on when.
            case EvidenceKind.NEW_BOOT:
                return host.boot != life.boot
            case EvidenceKind.VOLUMES_CLOSED:
                return not any(self._grips_of(life))
            case EvidenceKind.ADOPTED:
                return all(_is_held(state, grip) for grip in [*host.block.grips, *self._grips_of(life)])
            case _ if since_ns is None:
                return False
            case EvidenceKind.OPERATOR:
                return any(node == life.node and at_ns >= since_ns for at_ns, node in self.signed)
            case EvidenceKind.HOST_OFF | EvidenceKind.OUTLETS_OFF:
                return all(
                    any(at_ns >= since_ns and name == device for at_ns, name, _ in self._power.offs)
                    for device in evidence.devices
                )
        return False

    def _grips_of(self, life: Life) -> list[Grip]:
        return [
            grip
            for grip in self._grips()
            if grip.host.node == life.node
            and (life.unknown or (grip.host.boot == life.boot and grip.incarnation == life.incarnation))
            and grip.valid
        ]

    def _note_strong(self, host: Host, glimpse: Glimpse, state: ClusterState) -> None:
        life = glimpse.life
        if self._strong.get(host.node) == (life, state.epoch):
            return
        if state.lives.get(host.node) == life and any(
            host.valid(incarnation, page)
            for incarnation, page in host.pages
            if incarnation == life.incarnation
        ):
            self._strong[host.node] = (life, state.epoch)

    def _adopted_go_on(self, host: Host, glimpse: Glimpse) -> None:
        """Where this life has authority for a VG, so have the volumes of it that an earlier one opened."""
        for grip in host.block.grips:
            if host.valid(glimpse.life.incarnation, grip.page) and not grip.valid:
                raise SafetyViolation(f"adopted: {grip.resource} is held on {host.name}, which has authority")

    def _nobody_forgotten(self, host: Host, state: ClusterState) -> None:
        """10: whoever had authority is in, out cleanly, a victim, fenced, or followed by a later life."""
        for node, (life, epoch) in self._strong.items():
            if node in state.lives or node in state.out or state.epoch <= epoch:
                continue
            if any(victim.life.node == node for victim in state.domain.victims):
                continue
            if any(
                record.life == life
                or (record.life.node == node and record.since > epoch and _follows(record.life, life))
                for record in state.domain.fenced
            ):
                continue
            raise SafetyViolation(f"10: {host.name} has forgotten {life}, which had authority in {epoch}")

    def _join_is_known(self, host: Host, state: ClusterState, answer: Answer) -> None:
        """10: a node with authority that is told that it is in a lockspace is known there to every ready
        member: each of them may be the one that carries the state on."""
        name = self._joining(answer.client, answer.reply.id)
        if name is None or answer.reply.error is not None:
            return
        for node in state.ready:
            glimpse = self._look(self._host_of[node])
            other = glimpse.running if glimpse is not None else None
            if other is None or other.epoch != state.epoch:
                continue
            space = other.lockspaces.get(name)
            if space is None or host.node not in space.members:
                raise SafetyViolation(f"10: {host.name} is told that it is in {name}, but not node {node}")

    def _grant_may_be_told(self, host: Host, state: ClusterState, answer: Answer) -> None:
        result = answer.reply.result
        if not isinstance(result, dict) or "token" not in result or "lock" not in result:
            return
        asked = self._lock_of(answer.client, answer.reply.id)
        if asked is None:
            return
        space, resource = asked
        token = Token.parse(result["token"])
        for victim in state.domain.victims:
            # A node may serve its clients under a cluster lock that it had before the loss and keeps.
            newer = (token.epoch, token.position) > self._victim_since[victim.life, victim.lied, victim.since]
            if newer and _froze(state, victim, space):
                raise SafetyViolation(
                    f"2: {host.name} tells of grant {token} in {space}, though {victim.life} is not fenced"
                )
        mode = Mode[result["mode"]]
        if not self._believes_already(host, answer.client, int(result["lock"]), mode, token):
            self._token_increases(host, space, resource, mode, token)

    def _believes_already(self, host: Host, client: int, lock: int, mode: Mode, token: Token) -> bool:
        """Whether a client is told of no more than it believes to hold already: a conversion downward that is
        answered late gives nothing.  (The token may be a later one of its node's: as stale as its own.)"""
        return any(
            all(compatible(mode, other) for other in Mode if compatible(grip.mode, other))
            for grip in self._grips()
            if (grip.host, grip.client, grip.lock) == (host, client, lock) and grip.token <= token
        )

    def _token_increases(self, host: Host, space: str, resource: str, mode: Mode, token: Token) -> None:
        """7: a token is greater than every one told to another node for a conflicting mode."""
        if not self._is_promised(space):
            return
        told = self._told.setdefault(f"{space}/{resource}", _Told())
        for other_mode, (highest, node) in told.by_mode.items():
            if node != host.node and not compatible(mode, other_mode) and token <= highest:
                raise SafetyViolation(
                    f"7: {host.name} is told token {token} for {space}/{resource}, "
                    f"but node {node} was told {highest} before"
                )
        if mode not in told.by_mode or token > told.by_mode[mode][0]:
            told.by_mode[mode] = (token, host.node)

    # -- at every write -----------------------------------------------------------------

    def landed(self, grip: Grip, late: bool) -> None:
        """9: no write under a lock that went to another, but for the one in flight, which is reported."""
        for other in self._grips() if self._is_promised(grip.lockspace) else ():
            if (other.lockspace, other.resource) != (grip.lockspace, grip.resource):
                continue
            if other.token <= grip.token or not any(conflicts([grip, other])):
                continue
            if late and not grip.valid:
                self.late_writes += 1
                continue
            raise SafetyViolation(
                f"9: a write of {grip.host.name} to {grip.resource} landed under {grip.token}, "
                f"after {other.host.name} was told {other.token}"
            )

    def path_landed(self, write: Landed) -> None:
        """9 for an open LV; and what was written belongs to it, as the disks say."""
        grip = write.path.grip
        self.landed(grip, write.late)
        if write.late and not grip.valid:
            return
        holder = self._metadata.holder(write.disk, write.at_bytes)
        if holder != grip.resource:
            raise SafetyViolation(
                f"9: a write of {grip.host.name} to LV {grip.resource} landed at byte {write.at_bytes} of "
                f"{write.disk}, which belongs to {holder or 'no LV'}"
            )

    def _host(self, node: int) -> Host:
        return self._host_of[node]


def _froze(state: ClusterState, victim: Victim, lockspace: str) -> bool:
    """Whether a victim was, or may have been, in a lockspace, and has not been given up there yet."""
    anywhere = victim.life.unknown and state.partly(victim.life) is None
    return anywhere or lockspace in victim.lockspaces


def _locks(state: ClusterState) -> dict[tuple[str, str, int], Mode]:
    return {
        (name, resource.name, lock.owner): lock.held
        for name, space in state.lockspaces.items()
        for resource in space.resources.each()
        for lock in (*resource.granted, *resource.converting)
    }


def _is_held(state: ClusterState, grip: Grip) -> bool:
    """Whether the ordered state has the lock that an open path rests on."""
    space = state.lockspaces.get(grip.lockspace)
    resource = space.resources.get(grip.resource) if space is not None else None
    held = [*resource.granted, *resource.converting] if resource is not None else []
    return any(lock.owner == grip.host.node and lock.held >= grip.mode for lock in held)


def _follows(later: Life, life: Life) -> bool:
    """Whether `later` can only have begun after `life` was over, or stands for any life of its node."""
    if later.unknown:
        return True
    return (_boot_number(later), later.incarnation) > (_boot_number(life), life.incarnation)


def _boot_number(life: Life) -> int:
    return int(life.boot.rpartition("-")[2])
