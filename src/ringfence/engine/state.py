"""The ordered state: what every ready node of a primary view agrees on.

Pure and deterministic: nodes that apply the same entries hold the same bytes, so any node can
answer who holds what, who waits for what, and who must be fenced.  Nothing here reads a clock:
dates come with the entries, and time itself reaches the state only as facts that nodes witness
(`VictimDue`, `BoundPassed`).

Recovery after a failure is not a protocol but two steps of this state: `enter_view` makes a lost
member a victim, which freezes the lockspaces it was in; `_settle` purges it as soon as there is
evidence and every ready node says that its write authority must have run out."""

from collections.abc import Callable
from typing import Any

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.evidence import CUTS, Evidence, EvidenceKind
from ringfence.core.ids import Epoch, Life, Token
from ringfence.engine.facts import (
    AttemptGranted,
    ConfigAccepted,
    ConfigRefused,
    Expelled,
    Fact,
    JoinDone,
    JoinSeen,
    Left,
    LockFact,
    Noted,
    Retokened,
    SpaceLeft,
    VgChanged,
    VictimGone,
)
from ringfence.fencing.domain import Domain, Victim
from ringfence.locks.lockspace import Lockspace, Op, OpKind
from ringfence.locks.resource import Effect as LockEffect
from ringfence.locks.resource import Granted
from ringfence.wire import PROTOCOL, entries
from ringfence.wire.entries import Entry, Incident

INCIDENTS_KEPT = 100


class VgVersion(msgspec.Struct):
    seqno: int
    crc: int
    what: str
    by: int


class Sender(msgspec.Struct):
    """How far a life's submissions were applied, so that a repeated one counts once."""

    life: Life
    seq: int


class ClusterState(msgspec.Struct):
    config: ClusterConfig
    protocol: int = PROTOCOL
    epoch: Epoch = Epoch()
    """The last primary epoch that this state went through."""
    position: int = 0
    """Counts entries and grants; with the epoch it makes tokens."""
    wall_ms: int = 0
    lives: dict[int, Life] = {}
    """Admitted lives of the current view's ready members."""
    out: dict[int, Life] = {}
    """Nodes that left cleanly."""
    enrolled: dict[int, str] = {}
    """The machine behind each node, since its first join."""
    senders: dict[int, Sender] = {}
    lockspaces: dict[str, Lockspace] = {}
    frozen: list[str] = []
    pending_joins: list[tuple[str, int]] = []
    """Joins that wait until a frozen lockspace runs again."""
    domain: Domain = msgspec.field(default_factory=Domain)
    vgs: dict[str, VgVersion] = {}
    incidents: list[Incident] = []

    # -- reading ---------------------------------------------------------------

    @property
    def ready(self) -> tuple[int, ...]:
        return tuple(sorted(self.lives))

    def victims(self) -> list[Victim]:
        return sorted(self.domain.victims, key=lambda victim: victim.life)

    def blocking(self, lockspace: str) -> list[Victim]:
        """Victims that keep the lockspace frozen.  An unknown life may have been in any."""
        return [
            victim
            for victim in self.victims()
            if victim.life.unknown or lockspace in victim.lockspaces
        ]

    def member(self, lockspace: str, node: int) -> bool:
        """Whether the node's present life is in the lockspace.

        A membership that a lost life of the node left behind is that life's until it is purged: what it
        held there must not be taken for its successor's."""
        space = self.lockspaces.get(lockspace)
        if space is None or node not in space.members:
            return False
        return not any(
            victim.life.node == node and lockspace in victim.lockspaces for victim in self.domain.victims
        )

    def others_out(self, node: int) -> bool:
        """Every other configured life is cleanly out or has evidence (the lone half's rule)."""
        for other in self.config.nodes:
            if other.id == node:
                continue
            if other.id in self.lives:
                return False
            victims = [victim for victim in self.domain.victims if victim.life.node == other.id]
            if not all(self.domain.proven(victim) for victim in victims):
                return False
        return True

    def lied(self, lockspace: str) -> bool:
        """A life that was given up for fenced is alive: writes under this lockspace must wait."""
        return any(victim.lied for victim in self.blocking(lockspace))

    def name(self, node: int) -> str:
        return self.config.name_of(node)

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "ClusterState":
        """Raises msgspec.MsgspecError."""
        return msgspec.msgpack.decode(data, type=cls)

    # -- views -----------------------------------------------------------------

    def enter_view(
        self,
        epoch: Epoch,
        members: tuple[int, ...],
        returning: tuple[tuple[Life, bool], ...],
        known_victims: tuple[Life, ...],
        procdown: tuple[int, ...],
        wall_ms: int,
        fresh: bool,
    ) -> list[Fact]:
        """A primary view's barrier is complete.

        Args:
            returning: each member's life, and whether it may be admitted (False: it is stale, or its
                configuration differs; its life is looked at, for it may expose a lie).
            known_victims: the union of what the members' disks remember.
            procdown: nodes whose daemon ended while their host stayed; they get a grace period.
            fresh: the state was made just now; configured nodes that are absent may be alive somewhere.
        """
        self.epoch = epoch
        self.wall_ms = max(self.wall_ms, wall_ms)
        self.position += 1
        facts: list[Fact] = []
        arriving = {life.node: life for life, _ in returning}
        may = {life.node: admitted for life, admitted in returning}
        for node, life in sorted(self.lives.items()):
            if node not in members:
                ended = node in procdown
                reason = f"its daemon ended, view {epoch}" if ended else f"lost from view {epoch}"
                facts += self._lose(life, reason, due=not ended)
            elif arriving[node] != life:
                facts += self._lose(life, f"came back as another life in view {epoch}", due=False)
            elif not may[node]:
                facts += self._lose(life, f"its state was stale in view {epoch}", due=False)
        for life in known_victims:
            if not self._knows(life, arriving):
                # In no lockspace: had it been in one of this state's, the state would know it.
                self._victim(life, "remembered on disk as not proven fenced", due=True, lockspaces=())
        for life, admitted in returning:
            facts += self._meet(life, admitted)
        for victim in self.victims():
            successor = self.lives.get(victim.life.node)
            if successor is not None and not victim.lied and not victim.evidence:
                facts += self._explain_by_return(victim, successor)
        if fresh:
            for node_config in self.config.nodes:
                # Also where a disk remembers a victim of that node: it may have had a later life since.
                # Who is here but stale may still write under what it was granted before this state.
                if node_config.id not in members or not may[node_config.id]:
                    here = node_config.id in members
                    reason = "stale" if here else "absent"
                    reason = f"{reason} when the cluster started"
                    self._victim(Life(node_config.id), reason, due=False, lockspaces=())
                    facts.append(self._note_victim(Life(node_config.id), reason))
        self.domain.actor_gone(self.ready)
        return facts + self._settle()

    def admit(self, life: Life, wall_ms: int) -> list[Fact]:
        """A member that was not ready says Ready again in this view, as a fresh incarnation."""
        self.wall_ms = max(self.wall_ms, wall_ms)
        self.position += 1
        return self._meet(life, True) + self._settle()

    def heard_fenced(self, life: Life) -> list[Fact]:
        """A frame of a life that is given up for fenced was delivered in this epoch."""
        self.position += 1
        return self._expose(life) + self._settle()

    def is_fenced(self, life: Life) -> bool:
        """Whether hearing this life, or its boot, means that a fence lied."""
        return self._fenced_by(life) is not None

    def _fenced_by(self, life: Life) -> Life | None:
        for record in self.domain.fenced:
            if record.life.same_boot(life) and any(one.kind in CUTS for one in record.evidence):
                return record.life
        for victim in self.domain.victims:
            if victim.lied or not victim.life.same_boot(life):
                continue
            if any(one.kind in CUTS for one in victim.evidence):
                return victim.life
        return None

    def _meet(self, life: Life, may_enter: bool) -> list[Fact]:
        if self.lives.get(life.node) == life:
            return []
        fenced = self._fenced_by(life)
        if fenced is not None:
            return self._expose(fenced)
        if not may_enter or any(victim.life == life for victim in self.domain.victims):
            return []
        machine = self.enrolled.get(life.node, life.machine)
        if machine != life.machine:
            what = f"{self.name(life.node)} came from another machine than the one that joined first: refused"
            return [Noted("clone-refused", what, {"node": life.node, "machine": life.machine})]
        facts: list[Fact] = []
        for victim in self._victims_of(life.node):
            facts += self._explain_by_return(victim, life)
        if any(victim.lied and victim.life.same_boot(life) for victim in self._victims_of(life.node)):
            return facts  # it was given up for fenced and runs on: it stays out until it is fenced
        self.enrolled[life.node] = life.machine
        self.lives[life.node] = life
        self.out.pop(life.node, None)
        self.senders[life.node] = Sender(life, 0)
        facts.append(Noted("joined", f"{self.name(life.node)} joined as {life}", {"node": life.node}))
        return facts

    def _explain_by_return(self, victim: Victim, life: Life) -> list[Fact]:
        """A node's return may prove what became of its earlier lives."""
        old = victim.life
        if not old.unknown and old.machine == life.machine and old.boot != life.boot:
            kind, how = EvidenceKind.NEW_BOOT, f"{self.name(life.node)} came back under a new boot id"
        elif old.unknown or (old.same_boot(life) and old.incarnation < life.incarnation):
            kind = EvidenceKind.VOLUMES_CLOSED
            how = f"{self.name(life.node)} came back and has verified that every volume was closed"
        else:
            return []
        evidence = Evidence(old, kind, life.node, how, (), self.wall_ms)
        return self._witness(evidence)

    def _expose(self, life: Life) -> list[Fact]:
        """A fenced life speaks: the fence was a lie.  Freeze, quarantine, fence again."""
        devices = self._devices_of_evidence(life)
        lie = self.domain.spoke(life, self.wall_ms, self.epoch)
        if lie is None:
            return []
        name = self.name(life.node)
        what = (
            f"{name} was given up for fenced ({', '.join(devices) or 'by word'}) and runs on under the same "
            f"boot id {life.boot[:8]}: the fence lied"
        )
        incident = Incident(
            kind="fence-lied",
            node=life.node,
            what=what,
            life=life,
            device=", ".join(devices),
            at_wall_ms=self.wall_ms,
        )
        fields = {"node": life.node, "life": str(life), "devices": list(devices)}
        return [
            *self._incident(incident),
            Noted("fence-lied", what, fields),
            self._note_victim(life, "the fence lied"),
        ]

    def _devices_of_evidence(self, life: Life) -> tuple[str, ...]:
        """Devices behind the evidence that this life's end was believed on, in order."""
        found: list[str] = []
        records = [record.evidence for record in self.domain.fenced if record.life == life]
        records += [victim.evidence for victim in self.domain.victims if victim.life == life]
        for evidences in records:
            for one in evidences:
                found += [device for device in one.devices if device not in found]
        return tuple(found)

    def _knows(self, life: Life, arriving: dict[int, Life]) -> bool:
        """Whether the state can already say what became of a life that a disk remembers."""
        if any(victim.life == life for victim in self.domain.victims):
            return True
        if any(record.life == life for record in self.domain.fenced):
            return True
        return arriving.get(life.node) == life and self.lives.get(life.node) == life

    def _victims_of(self, node: int) -> list[Victim]:
        return [victim for victim in self.victims() if victim.life.node == node]

    def _lose(self, life: Life, reason: str, *, due: bool) -> list[Fact]:
        del self.lives[life.node]
        self.senders.pop(life.node, None)
        self.pending_joins = [one for one in self.pending_joins if one[1] != life.node]
        spaces = tuple(name for name in sorted(self.lockspaces) if self.member(name, life.node))
        facts: list[Fact] = []
        for lockspace in self.lockspaces.values():
            facts += self._acknowledged(lockspace, life.node)
        self._victim(life, reason, due=due, lockspaces=spaces)
        facts.append(self._note_victim(life, reason))
        return facts

    def _victim(self, life: Life, reason: str, *, due: bool, lockspaces: tuple[str, ...]) -> None:
        self.domain.add(life, self.epoch, reason, due, lockspaces, self.wall_ms)
        self.frozen = [name for name in sorted(self.lockspaces) if self.blocking(name)]

    def _note_victim(self, life: Life, reason: str) -> Noted:
        what = f"{self.name(life.node)} must be fenced: {reason}"
        return Noted("victim", what, {"node": life.node, "life": str(life), "reason": reason})

    # -- entries ---------------------------------------------------------------

    def fits(self, life: Life, seq: int) -> bool:
        """Whether a submission counts: from an admitted life, and the next of it.

        One that was applied before does not, nor one that came though an earlier one was lost: that would
        take the lost one for applied, and whoever waits for it would wait for ever."""
        sender = self.senders.get(life.node)
        return sender is not None and sender.life == life and seq == sender.seq + 1

    def apply(self, life: Life, seq: int, entry: Entry, wall_ms: int) -> list[Fact]:
        """Apply the next entry of the total order; the caller has asked `fits`."""
        assert self.fits(life, seq)
        self.senders[life.node].seq = seq
        self.position += 1
        self.wall_ms = max(self.wall_ms, wall_ms)
        handler = _HANDLERS[type(entry)]
        facts: list[Fact] = handler(self, life, entry)
        return facts + self._settle()

    def _lock_op(self, life: Life, entry: Any, kind: OpKind) -> list[Fact]:
        space = self.lockspaces.get(entry.lockspace)
        if space is None or not self.member(space.name, life.node):
            return [self._no_space(entry, life.node)]
        op = Op(
            kind=kind,
            resource=entry.resource,
            owner=life.node,
            mode=getattr(entry, "mode", None),
            flags=getattr(entry, "flags", 0),
            lvb=getattr(entry, "lvb", None),
            now_ms=self.wall_ms,
        )
        if self.blocking(space.name):
            return self._stamp(space, space.defer(op))
        return self._stamp(space, space.apply(op))

    def _no_space(self, entry: Any, node: int) -> Fact:
        from errno import ENOENT

        from ringfence.locks.resource import Refused

        return LockFact(entry.lockspace, entry.resource, Refused(node, ENOENT, ()))

    def _stamp(self, space: Lockspace, effects: list[tuple[str, LockEffect]]) -> list[Fact]:
        """Give each grant its token: (epoch, position), a new position for every grant."""
        facts: list[Fact] = []
        for resource, effect in effects:
            token = None
            if isinstance(effect, Granted):
                token = self._next_token()
                lock = space.resources[resource].find(effect.owner)
                assert lock is not None
                lock.token = token
            facts.append(LockFact(space.name, resource, effect, token))
        return facts

    def _next_token(self) -> Token:
        self.position += 1
        return Token(self.epoch.seq, self.epoch.rep, self.position)

    def _request(self, life: Life, entry: entries.LockRequest) -> list[Fact]:
        return self._lock_op(life, entry, OpKind.REQUEST)

    def _convert(self, life: Life, entry: entries.LockConvert) -> list[Fact]:
        return self._lock_op(life, entry, OpKind.CONVERT)

    def _unlock(self, life: Life, entry: entries.LockUnlock) -> list[Fact]:
        return self._lock_op(life, entry, OpKind.UNLOCK)

    def _cancel(self, life: Life, entry: entries.LockCancel) -> list[Fact]:
        return self._lock_op(life, entry, OpKind.CANCEL)

    def _retoken(self, life: Life, entry: entries.Retoken) -> list[Fact]:
        space = self.lockspaces.get(entry.lockspace)
        resource = space.resources.get(entry.resource) if space else None
        lock = resource.find(life.node) if resource and self.member(entry.lockspace, life.node) else None
        if lock is None or lock.token is None:
            return []
        lock.token = self._next_token()
        return [Retokened(entry.lockspace, entry.resource, life.node, lock.token)]

    def _join(self, life: Life, entry: entries.JoinLockspace) -> list[Fact]:
        name = entry.lockspace
        space = self.lockspaces.get(name)
        if space is not None and self.member(name, life.node) and life.node not in space.joining:
            return [JoinDone(name, life.node)]
        if self.blocking(name) or (name, life.node) in self.pending_joins:
            if (name, life.node) not in self.pending_joins:
                self.pending_joins.append((name, life.node))
            return []
        return self._enter_space(name, life)

    def _enter_space(self, name: str, life: Life) -> list[Fact]:
        space = self.lockspaces.setdefault(name, Lockspace(name=name))
        space.members = sorted({*space.members, life.node})
        waiting_for = [node for node in self.ready if node != life.node]
        if not waiting_for:
            return [JoinDone(name, life.node)]
        space.joining[life.node] = waiting_for
        return [JoinSeen(name, life)]

    def _ack_join(self, life: Life, entry: entries.AckJoin) -> list[Fact]:
        space = self.lockspaces.get(entry.lockspace)
        joiner = entry.life.node
        if space is None or self.lives.get(joiner) != entry.life or joiner not in space.joining:
            return []
        return self._acknowledged(space, life.node, joiner)

    def _acknowledged(self, space: Lockspace, node: int, only: int | None = None) -> list[Fact]:
        """`node` has acknowledged, or is gone and need not."""
        facts: list[Fact] = []
        for joiner in sorted(space.joining):
            if only is not None and joiner != only:
                continue
            missing = [one for one in space.joining[joiner] if one != node]
            space.joining[joiner] = missing
            if not missing and joiner != node:
                del space.joining[joiner]
                facts.append(JoinDone(space.name, joiner))
        return facts

    def _leave_space(self, life: Life, entry: entries.LeaveLockspace) -> list[Fact]:
        name, node = entry.lockspace, life.node
        space = self.lockspaces.get(name)
        if space is None or not self.member(name, node):
            return [SpaceLeft(name, node)]
        if self.blocking(name):
            return [SpaceLeft(name, node, f"lockspace {name} is frozen until a lost node is fenced")]
        if any(resource.find(node) is not None for resource in space.resources.values()):
            return [SpaceLeft(name, node, f"{self.name(node)} still holds locks in {name}")]
        space.members.remove(node)
        facts = self._acknowledged(space, node)
        space.joining.pop(node, None)
        if not space.members:
            del self.lockspaces[name]
        return [*facts, SpaceLeft(name, node)]

    def _evidence(self, life: Life, entry: entries.EvidenceSeen) -> list[Fact]:
        return self._witness(entry.evidence)

    def _witness(self, evidence: Evidence) -> list[Fact]:
        if not self.domain.witness(evidence, naive=self.config.naive):
            return []
        fields = {
            "node": evidence.life.node,
            "life": str(evidence.life),
            "evidence": evidence.kind.value,
            "devices": list(evidence.devices),
        }
        facts: list[Fact] = [Noted("evidence", evidence.how, fields)]
        victim = self._victim_for(evidence.life)
        if victim is not None and self.domain.proven(victim):
            facts.append(VictimGone(evidence.life))
        return facts

    def _victim_for(self, life: Life) -> Victim | None:
        return next((victim for victim in self.domain.victims if victim.life == life), None)

    def _began(self, life: Life, entry: entries.AttemptBegan) -> list[Fact]:
        victim = self._victim_for(entry.life)
        if victim is None or victim.current is not None or self.domain.proven(victim):
            return []
        if entry.number != victim.number + 1 or self.domain.actor_for(victim, self.ready) != life.node:
            return []
        self.domain.began(entry.life, life.node, entry.level, entry.number, self.wall_ms)
        target = self.config.node(entry.life.node)
        devices = list(target.levels[entry.level].devices)
        what = (
            f"{self.name(life.node)} starts attempt {entry.number} to fence {target.name}: "
            f"level {entry.level + 1} ({', '.join(devices)})"
        )
        fields = {
            "node": entry.life.node,
            "life": str(entry.life),
            "actor": life.node,
            "level": entry.level + 1,
            "number": entry.number,
            "devices": devices,
        }
        return [
            Noted("attempt", what, fields),
            AttemptGranted(entry.life, life.node, entry.level, entry.number),
        ]

    def _ended(self, life: Life, entry: entries.AttemptEnded) -> list[Fact]:
        victim = self._victim_for(entry.life)
        if victim is None or victim.current is None or victim.current.number != entry.number:
            return []
        if victim.current.actor != life.node:
            return []
        level = victim.current.level
        self.domain.ended(
            entry.life,
            entry.number,
            entry.passed,
            entry.verdict,
            entry.words,
            entry.next_in_ms,
            ready=self.ready,
            levels=len(self.config.node(entry.life.node).levels),
        )
        fields = {
            "node": entry.life.node,
            "life": str(entry.life),
            "actor": life.node,
            "level": level + 1,
            "number": entry.number,
            "passed": entry.passed,
            "words": [msgspec.to_builtins(word) for word in entry.words],
        }
        facts: list[Fact] = [Noted("attempt-ended", entry.verdict, fields)]
        if entry.contradicted:
            self.domain.contradicted(entry.contradicted)
            incident = Incident(
                kind="fence-contradicted",
                node=entry.life.node,
                what=entry.verdict,
                life=entry.life,
                device=", ".join(entry.contradicted),
                at_wall_ms=self.wall_ms,
            )
            facts += self._incident(incident)
        return facts

    def _due(self, life: Life, entry: entries.VictimDue) -> list[Fact]:
        victim = self._victim_for(entry.life)
        if victim is None or victim.due:
            return []
        victim.due = True
        what = f"{self.name(entry.life.node)} did not come back in time: it will be fenced"
        return [Noted("victim-due", what, {"node": entry.life.node, "life": str(entry.life)})]

    def _bound(self, life: Life, entry: entries.BoundPassed) -> list[Fact]:
        self.domain.bound_passed(entry.life, life.node)
        return []

    def _suspect(self, life: Life, entry: entries.Suspect) -> list[Fact]:
        if self.lives.get(entry.life.node) != entry.life:
            return []
        reason = f"its daemon is silent, as {self.name(life.node)} found"
        return [*self._lose(entry.life, reason, due=False), Expelled(entry.life)]

    def _operator(self, life: Life, entry: entries.OperatorConfirms) -> list[Fact]:
        facts: list[Fact] = []
        for victim in self._victims_of(entry.node):
            if entry.victims is not None and (victim.life, victim.since) not in entry.victims:
                continue  # signed before this loss
            how = f"{entry.who} confirms that {self.name(entry.node)} is off: {entry.why}"
            facts += self._witness(
                Evidence(victim.life, EvidenceKind.OPERATOR, life.node, how, (), self.wall_ms)
            )
        return facts

    def _trust(self, life: Life, entry: entries.QuarantineLifted) -> list[Fact]:
        self.domain.release_quarantine(entry.device)
        what = f"{entry.who} trusts {entry.device} again"
        return [Noted("quarantine-lifted", what, {"device": entry.device, "who": entry.who})]

    def _config(self, life: Life, entry: entries.ConfigProposed) -> list[Fact]:
        new, old = entry.config, self.config
        why = ""
        if new.version != old.version + 1:
            why = f"version {new.version} offered, {old.version + 1} expected"
        elif [(n.id, n.name) for n in new.nodes] != [(n.id, n.name) for n in old.nodes]:
            why = "the set of nodes cannot change while the cluster runs"
        elif (new.name, new.ring, new.naive) != (old.name, old.ring, old.naive):
            why = "name, ring and naive cannot change while the cluster runs"
        elif self.ready != tuple(node.id for node in old.nodes):
            absent = [node.name for node in old.nodes if node.id not in self.lives]
            why = f"all nodes must be ready; missing: {', '.join(absent)}"
        if why:
            return [ConfigRefused(life.node, why)]
        self.config = new
        what = f"{self.name(life.node)} applied configuration version {new.version}"
        return [ConfigAccepted(new), Noted("config", what, {"version": new.version})]

    def _goodbye(self, life: Life, entry: entries.Goodbye) -> list[Fact]:
        node = life.node
        if entry.life != life or any(self.member(name, node) for name in sorted(self.lockspaces)):
            return []
        self.pending_joins = [one for one in self.pending_joins if one[1] != node]
        del self.lives[node]
        del self.senders[node]
        self.out[node] = life
        return [Noted("left", f"{self.name(node)} left the cluster", {"node": node}), Left(node)]

    def _volume(self, life: Life, entry: entries.VolumeNotice) -> list[Fact]:
        self.vgs[entry.vg] = VgVersion(entry.seqno, entry.crc, entry.what, life.node)
        fields = {"vg": entry.vg, "seqno": entry.seqno, "node": life.node}
        return [
            VgChanged(entry.vg, entry.seqno, entry.crc, entry.what, life.node),
            Noted("vg-changed", f"{entry.what} ({entry.vg} seqno {entry.seqno})", fields),
        ]

    def _incident_seen(self, life: Life, entry: entries.IncidentSeen) -> list[Fact]:
        return self._incident(entry.incident)

    def _incident(self, incident: Incident) -> list[Fact]:
        """Record it; a device that repeats its lie about one life, round after round, counts once."""
        repeats = incident.kind == "fence-contradicted" and any(
            (one.kind, one.life, one.device) == (incident.kind, incident.life, incident.device)
            for one in self.incidents
        )
        if repeats:
            return []
        self.incidents = [*self.incidents, incident][-INCIDENTS_KEPT:]
        return [Noted("incident", incident.what, msgspec.to_builtins(incident))]

    # -- what follows from the entries -------------------------------------------

    def _settle(self) -> list[Fact]:
        """Purge what may be purged, then let every lockspace that is free again go on."""
        facts: list[Fact] = []
        for life in self.domain.purgeable(self.ready):
            facts += self._purge(life)
        still = [name for name in sorted(self.lockspaces) if self.blocking(name)]
        thawed = [name for name in self.frozen if name not in still and name in self.lockspaces]
        self.frozen = still
        for name in thawed:
            space = self.lockspaces[name]
            facts.append(Noted("lockspace-runs", f"lockspace {name} goes on", {"lockspace": name}))
            facts += self._stamp(space, space.resume(self.wall_ms))
        facts += self._late_joins()
        return facts

    def _late_joins(self) -> list[Fact]:
        facts: list[Fact] = []
        waiting, self.pending_joins = self.pending_joins, []
        for name, node in waiting:
            life = self.lives.get(node)
            if life is None:
                continue  # it left meanwhile; its next life asks again
            if self.blocking(name):
                self.pending_joins.append((name, node))
            else:
                facts += self._enter_space(name, life)
        return facts

    def _purge(self, life: Life) -> list[Fact]:
        record = self.domain.purged(life)
        facts: list[Fact] = []
        for name in record.lockspaces:
            space = self.lockspaces.get(name)
            if space is None:
                continue
            # Effects of a purge are what the survivors may now do; they are computed by
            # resume(), once the lockspace has no other victim.
            space.purge([life.node])
            if life.node in space.members:
                space.members.remove(life.node)
            space.joining.pop(life.node, None)
            if not space.members:
                del self.lockspaces[name]
        what = f"{self.name(life.node)} is given up for fenced: its locks are cleaned up"
        fields = {"node": life.node, "life": str(life), "lockspaces": list(record.lockspaces)}
        return [*facts, Noted("purged", what, fields), VictimGone(life)]


_HANDLERS: dict[type, Callable[[ClusterState, Life, Any], list[Fact]]] = {
    entries.JoinLockspace: ClusterState._join,
    entries.AckJoin: ClusterState._ack_join,
    entries.LeaveLockspace: ClusterState._leave_space,
    entries.LockRequest: ClusterState._request,
    entries.LockConvert: ClusterState._convert,
    entries.LockUnlock: ClusterState._unlock,
    entries.LockCancel: ClusterState._cancel,
    entries.Retoken: ClusterState._retoken,
    entries.EvidenceSeen: ClusterState._evidence,
    entries.AttemptBegan: ClusterState._began,
    entries.AttemptEnded: ClusterState._ended,
    entries.VictimDue: ClusterState._due,
    entries.BoundPassed: ClusterState._bound,
    entries.Suspect: ClusterState._suspect,
    entries.OperatorConfirms: ClusterState._operator,
    entries.QuarantineLifted: ClusterState._trust,
    entries.ConfigProposed: ClusterState._config,
    entries.Goodbye: ClusterState._goodbye,
    entries.VolumeNotice: ClusterState._volume,
    entries.IncidentSeen: ClusterState._incident_seen,
}
