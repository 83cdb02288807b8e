"""This node in the ring: views, the readiness barrier, who may act, snapshots, staleness.

A view begins with one `Ready` from each member.  When the last of them was delivered every member
computes the same verdict at the same place in the order: the members that carry the state go on,
those without it wait for the snapshot, those whose state the cluster has gone past are stale.

A stale node drops its data paths first and only then says Ready again, as a new incarnation: its
next life must not begin while a writer of the old one may still run.

What concerns many locks at once (a purge, a snapshot) is work that goes on in slices.  Until it is
done everything else that the ring delivers waits behind it, in its order, as if the ring were slow; so
it makes no difference how the slices fall.  Only heartbeats are heard at once: they change no state.

A ring that is parted may deliver to each side, at the end of the view and long after, what that side's
own members sent behind a message that it has missed (Moser et al., Extended Virtual Synchrony, ICDCS
1994, 2.1: the transitional configuration; corosync does not tell of it).  Two sides that took it in would
have two states at one position.  So what is delivered when no own word of the last `token_ms` has come back
waits until one does; with the end of the view it is forgotten, and said again in the next.  No longer than
that: where a host that comes has all look round at once, a side gives up the others after the consensus
alone, 1.2 x token."""

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Protocol

import msgspec

from ringfence.core.digest import digest_of_config
from ringfence.core.ids import Epoch, Life
from ringfence.engine.apply import apply
from ringfence.engine.arrivals import admit, enter_view, heard_fenced
from ringfence.engine.context import Context, Phase
from ringfence.engine.digest import digest_of_state
from ringfence.engine.effects import DropPaths, Ended, Multicast
from ringfence.engine.facts import Fact, Noted
from ringfence.engine.identity import re_enrol, remembered
from ringfence.engine.inputs import Delivered, PathsDropped, RingLost, ViewChanged
from ringfence.engine.losses import is_fenced, settle
from ringfence.engine.refusals import refusals
from ringfence.engine.snapshot import Gathering, split
from ringfence.engine.state import ClusterState
from ringfence.membership.authority import Authority
from ringfence.membership.barrier import Barrier, Verdict
from ringfence.membership.quorum import is_primary
from ringfence.wire import FENCING, LEAVE_OUT, REMOVED_NODES, ring
from ringfence.wire.entries import LOCK_ENTRIES, Goodbye, VolumeNotice, weight
from ringfence.wire.ring import Heartbeat, LeaveOut, Ready, Snapshot, Submitted

Event = tuple[int, Life, ring.Item | None]
"""(sender, its life, what it said), in the total order; None: the frame itself was heard."""
_QUIET_ENTRIES = (*LOCK_ENTRIES, VolumeNotice)
LOSS_DETECTIONS = 2
"""A ring that has delivered nothing for longer than so many detection times has not just lost a member."""
Work = Iterator[list[Fact]]
"""What an event leads to, slice by slice."""


class Parts(Protocol):
    """What the rest of the engine does when this node's standing changes."""

    def facts(self, facts: list[Fact]) -> None:
        """Entries were applied."""

    def view_began(self) -> None:
        """What was said in the old epoch will be said again."""

    def entered(self, before: ClusterState | None) -> Work:
        """This node runs in a new epoch.  `before`: its own state, if it had to take another's."""

    def victim_heard(self, life: Life) -> None:
        """A frame of a life that must be fenced, or of a later one of its boot, was delivered."""

    def interrupted(self) -> None:
        """This node is ready no more; it may be again after the next barrier."""

    def lost(self, why: str) -> None:
        """This life is over for the cluster: locks, commands and authority go."""

    def reborn(self) -> None:
        """A new incarnation begins."""


class Views:
    def __init__(self, context: Context, parts: Parts, drop_paths: bool = True) -> None:
        self._context = context
        self._parts = parts
        self._drop_paths = drop_paths
        """False in a naive lab: a stale node notices nothing and goes on writing."""
        self.barrier: Barrier | None = None
        self.why = "waiting for the ring"
        """What keeps this node from running, for people."""
        self._primary = False
        self._regains = False
        """Since this node ran last it had no ring, no quorum, or a ring that delivered nothing."""
        self._ready_ns = 0
        """When to say Ready, if that waits; 0: it does not."""
        self._left_out: tuple[int, ...] = ()
        """Members that this node has asked to leave out of the barrier that is open."""
        self._word_ns = 0
        """When the last Ready of the barrier that is open was delivered."""
        self._again_ns = 0
        """When to ask to be admitted once more; 0: not in this view."""
        self._done = False
        """This view's barrier is complete."""
        self._procdown: set[int] = set()
        """Nodes whose daemon ended while their host stayed, since the last primary view."""
        self._buffer: list[Event] = []
        """What was delivered since the point that the awaited snapshot stands for."""
        self._gathering = Gathering()
        self._piece_in = 0
        """The last step that took a piece of it with more to come."""
        self._work: Work | None = None
        self._behind: deque[Event] = deque()
        """What this view's members said, and waits for the work."""
        self._unsure: list[Event] = []
        """What they said, and perhaps not all of them were told."""
        self._after: deque[ViewChanged | RingLost | Delivered] = deque()
        """From the end of this view on."""
        self._generation = 0

    # -- inputs --------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether the state is between two entries, or behind what was delivered."""
        return self._work is not None or bool(self._behind or self._after)

    @property
    def may_beat(self) -> bool:
        """Whether this node may say that it lives: it takes part, or the state for that is coming in.

        The others count on it from its admission on.  A large state takes longer to come in than they wait
        for a word; so who is given up for it would be given up in the next life again.  No piece, no word: it
        can do nothing yet that a member is to do, so it must not seem able to for longer than it gets on."""
        return self._context.running is not None or self._piece_in == self._context.step

    def from_ring(self, fact: ViewChanged | RingLost | Delivered) -> None:
        if not (self._work is not None or self._behind or self._after):  # not busy
            if isinstance(fact, Delivered):
                self._delivered(fact.sender, fact.payload)
            else:
                self._take(fact)
            if self._work is not None or self._behind or self._after:  # busy
                self.go_on()
        elif self._after or not isinstance(fact, Delivered):
            self._after.append(fact)
        else:
            self._take(fact)  # and the driver was asked to call again

    def go_on(self) -> None:
        """Work off what this step may, of what has begun and of what waits behind it."""
        context = self._context
        while self._work is not None or self._behind or self._after:  # busy
            if context.budget <= 0:
                context.more = True
                break
            context.budget -= 1
            if self._work is not None:
                self._slice(self._work)
            elif self._behind:
                event = self._behind.popleft()
                context.budget -= _extra(event[2])
                self._do(*event)
            else:
                self._take(self._after.popleft())
        context.settled = self._work is None

    def _slice(self, work: Work) -> None:
        facts = next(work, None)
        if facts is not None:
            self._parts.facts(facts)
        elif self._work is work:
            self._work = None

    def _take(self, fact: ViewChanged | RingLost | Delivered) -> None:
        if isinstance(fact, Delivered):
            self._delivered(fact.sender, fact.payload)
        elif isinstance(fact, ViewChanged):
            self._view_changed(fact)
        else:
            self._ring_lost(fact)

    def _view_changed(self, view: ViewChanged) -> None:
        context = self._context
        self._parts.view_began()
        newest = max(context.epoch, context.disk.epoch, context.state.epoch if context.state else Epoch())
        if view.epoch <= newest:
            reason = f"the ring's epoch went back: {view.epoch} after {newest}"
            context.out(Ended(f"{reason}; its state file was lost or another ring was joined", failed=True))
            return
        context.epoch, context.ring = view.epoch, view.members
        context.refused = {}
        silent_ms = (context.now_ns - self._back_ns) // 1_000_000
        if silent_ms > LOSS_DETECTIONS * context.config.timing.detection_ms:
            self._regains = True
        before = (*self.barrier.members, *self.barrier.left_out) if self.barrier is not None else ()
        gone = [view.how.get(node, "nodedown") for node in before if node not in view.members]
        nobody_new = all(node in before for node in view.members)
        context.hearing.ring_formed(
            context.now_ns, without_cause=nobody_new and ("nodedown" in gone or not gone)
        )
        for node, how in sorted(view.how.items()):
            (self._procdown.add if how == "procdown" else self._procdown.discard)(node)
        self._stop()
        self.barrier = Barrier(view.epoch, view.members)
        self._done = self._primary = False
        if context.phase is not Phase.STALE:
            context.phase = Phase.BARRIER
            self.why = "waiting for every member of the view to say that it is ready"
        absent = self._awaited(view.members)
        if absent:
            self._ready_ns = context.now_ns + context.config.timing.token_ms * 1_000_000
            self.why = f"waiting a moment for {absent}, for the ring is just coming together again"
        else:
            self._say_ready()

    def _awaited(self, members: tuple[int, ...]) -> str:
        """Names of those whom this node waits for before it says Ready.

        When a network is back its links come up one after the other: two of three may be a majority for some
        tenths of a second before the third is there, who has lost nothing.  So nobody who has been without
        quorum goes on without the others of the last primary view before a token has passed."""
        state = self._context.state
        if not self._regains or state is None or not is_primary(state.config, members, True):
            return ""
        return ", ".join(state.name(node) for node in state.ready if node not in members)

    def look(self) -> None:
        """Every step: say Ready, if that was waited with for long enough; and who is waited for in vain."""
        if self._ready_ns and self._context.now_ns >= self._ready_ns:
            self.why = "waiting for every member of the view to say that it is ready"
            self._say_ready()
        due = self._again_ns and self._context.now_ns >= self._again_ns
        if due and self._context.phase is Phase.SHUT_OUT:
            # Its voice is wanted, too: who was called fenced meanwhile, and speaks, was not.
            self._again_ns = 0
            self._context.phase = Phase.JOINING
            self._say_ready()
        if self.barrier is not None and not self._done and self._context.phase is Phase.BARRIER:
            self._look_for_silence(self.barrier)

    def _look_for_silence(self, barrier: Barrier) -> None:
        """Have the barrier go on without a daemon that is silent, though its host is in the ring.

        For so long nobody has spoken: where one is heard late, others may be about to.  The lowest of those
        who have spoken says so; the next one later, in case that it is silent by now."""
        context, hearing = self._context, self._context.hearing
        if barrier.life(context.me) != context.life or context.vetoed or not context.calm:
            return
        spoken = [node for node in barrier.members if barrier.life(node) is not None]
        waits_ms = context.config.timing.left_out_ms(spoken.index(context.me))
        if context.now_ns < max(self._word_ns, hearing.last_gap_ns) + waits_ms * 1_000_000:
            return
        silent = barrier.silent(context.config)
        if silent and silent != self._left_out:
            self._left_out = silent
            # In a protocol of which a node that was shut out passes over what it does not know.
            context.out(
                Multicast(ring.encode(context.epoch, context.life, (LeaveOut(silent),), LEAVE_OUT))
            )

    def _ring_lost(self, lost: RingLost) -> None:
        context = self._context
        self._stop()
        if self.barrier is not None:
            context.hearing.ring_formed(context.now_ns, without_cause=True)
        self.barrier, context.ring = None, ()
        self._parts.interrupted()
        self._regains = True
        if context.phase is not Phase.STALE:
            context.phase = Phase.NO_RING
            self.why = f"no ring: {lost.reason}"
        context.record("ring-lost", f"the ring is gone: {lost.reason}")

    def _delivered(self, sender: int, payload: bytes) -> None:
        context = self._context
        quiet = context.only_locks and context.running is not None
        context.only_locks = False
        if self.barrier is None:
            return
        try:
            frame = ring.decode(payload, context.speaks)
        except msgspec.MsgspecError as error:
            context.record(
                "bad-frame", f"a frame from {context.name(sender)} is unreadable: {error}", node=sender
            )
            return
        if frame.epoch != context.epoch or frame.life.node != sender:
            return
        quiet = quiet and not (self._work is not None or self._behind or self._after)  # busy
        for item in frame.items:  # whether nothing follows of it but what its facts say
            quiet = quiet and isinstance(item, Submitted) and isinstance(item.entry, _QUIET_ENTRIES)
        context.only_locks = quiet
        context.hearing.heard(frame.life, context.now_ns)
        if quiet and not self._unsure and self._all_are_heard and self._moves:
            for item in frame.items:  # as `_event` would
                if self._work is None and isinstance(item, Submitted):
                    self._submitted(frame.life, item)
                else:
                    self._behind.append((sender, frame.life, item))
            return
        if self._done and not self._all_are_heard:
            self._event(sender, frame.life, None)
        for item in frame.items:
            if self._done:
                self._event(sender, frame.life, item)
            else:
                self._before(sender, frame.life, item)

    def paths_dropped(self, dropped: PathsDropped) -> None:
        """Every data path of the stale life is closed: begin a new one."""
        context = self._context
        if dropped.generation != self._generation or context.phase is not Phase.STALE:
            return
        context.life = msgspec.structs.replace(context.life, incarnation=context.life.incarnation + 1)
        context.disk = msgspec.structs.replace(context.disk, incarnation=context.life.incarnation)
        context.keep = True
        context.authority = Authority(context.config, context.me)
        context.admitted = None
        self._parts.reborn()
        context.record("reborn", f"{context.name(context.me)} starts again as {context.life}")
        if self.barrier is None:
            context.phase, self.why = Phase.NO_RING, "no ring"
            return
        if not self._done:
            context.phase = Phase.BARRIER
        elif self._primary:
            context.phase, self.why = Phase.JOINING, "waiting to be admitted again"
        else:
            context.phase = Phase.SUSPENDED
        self._say_ready()

    # -- going stale -----------------------------------------------------------------

    def go_stale(self, why: str) -> None:
        """The cluster has gone on without this life."""
        context = self._context
        context.record("stale", f"{context.name(context.me)} is stale: {why}", life=str(context.life))
        context.phase, self.why = Phase.STALE, f"stale ({why}): waiting until every data path is closed"
        self._parts.interrupted()
        self._buffer, self._unsure, self._work = [], [], None
        if not self._drop_paths:
            return
        if context.state is not None:
            context.discarded += context.state.clear()
        context.state = None
        context.authority.lost()
        context.outbox.clear()
        self._parts.lost(why)
        context.left_open = ()
        self.drop_paths()

    def drop_paths(self) -> None:
        self._generation += 1
        self._context.out(DropPaths(self._generation))

    # -- the barrier -------------------------------------------------------------------

    def _stop(self) -> None:
        """The view is over."""
        self._context.authority.suspended()
        self._context.outbox.close()
        self._buffer, self._gathering = [], Gathering()
        self._unsure = []
        self._ready_ns = self._again_ns = 0
        self._left_out = ()

    def _say_ready(self) -> None:
        self._ready_ns = 0
        context, state = self._context, self._context.state
        carries = state is not None and context.phase is not Phase.STALE
        left_open = context.left_open
        lives = range(1, 1 if left_open else context.life.incarnation)
        context.outbox.say(
            Ready(
                has_state=carries,
                primary=state.epoch if state and carries else Epoch(),
                position=state.position if state and carries else 0,
                digest=digest_of_state(state) if state and carries else "",
                disk_epoch=context.disk.epoch,
                victims=context.disk.victims,
                closed=tuple(msgspec.structs.replace(context.life, incarnation=one) for one in lives),
                reaped=context.phase is not Phase.STALE and not left_open,
                shown=tuple(one.lock for one in left_open),
                procdown=tuple(sorted(self._procdown)),
                config_version=context.config.version,
                config_digest=digest_of_config(context.config),
                wall_ms=context.wall_ms,
                fenced=state.fenced_lives() if state and carries else context.disk.fenced,
                quarantined=context.disk.quarantined,
                speaks=context.speaks,
                out=context.disk.out,
                told=state.told() if state and carries else {},
                hardware=context.hardware,
                enrolled=context.disk.enrolled,
                protocol=state.protocol if state and carries else context.speaks.low,
            )
        )

    @property
    def _all_are_heard(self) -> bool:
        """Nobody is a victim, or was fenced, of whom it would be news to be heard."""
        state = self._context.running
        if state is None or state.domain.victims or state.domain.fenced:
            return False
        return not (self._unsure or self._behind or self._after or self._work is not None)

    def _event(self, sender: int, life: Life, item: ring.Item | None) -> None:
        running = self._context.phase is Phase.RUNNING
        if running and isinstance(item, Heartbeat):
            self._do(sender, life, item)
        elif running and (self._unsure or not self._moves):
            self._unsure.append((sender, life, item))
        elif self.busy:
            self._behind.append((sender, life, item))
        else:
            self._do(sender, life, item)

    @property
    def _moves(self) -> bool:
        """Whether the ring moves: a word that this node sent in this view within `token_ms` came back."""
        context = self._context
        after_ns = context.now_ns - context.config.timing.token_ms * 1_000_000
        return context.authority.own_heartbeat_ns > after_ns or context.hearing.view_ns > after_ns

    @property
    def _back_ns(self) -> int:
        """When this node sent the last word of this view that came back to it, or began the view."""
        return max(self._context.authority.own_heartbeat_ns, self._context.hearing.view_ns)

    def _do(self, sender: int, life: Life, item: ring.Item | None) -> None:
        if self._context.phase is Phase.RUNNING:
            self._apply(sender, life, item)
        elif self._context.phase is Phase.JOINING:
            self._waiting(sender, life, item)

    def _before(self, sender: int, life: Life, item: ring.Item) -> None:
        """The barrier is open.  Nobody says anything but Ready and LeaveOut before it is complete."""
        assert self.barrier is not None
        if isinstance(item, Ready):
            self.barrier.add(sender, life, item)
            self._word_ns = self._context.now_ns
        elif isinstance(item, LeaveOut) and self.barrier.life(sender) == life:
            self.barrier.leave_out(item.nodes)
        else:
            return
        if self.barrier.complete:
            self._conclude(self.barrier)

    def _conclude(self, barrier: Barrier) -> None:
        context = self._context
        verdict = barrier.verdict(context.config)
        if verdict.again:
            self._begin_again(barrier, verdict)
            return
        self._done, self._primary = True, verdict.primary
        context.refused = refusals(context, barrier, verdict)
        if context.phase is Phase.STALE:
            return  # it said so; it is admitted when it says Ready again
        if not verdict.primary:
            self._suspend(barrier, verdict)
            return
        me = context.me
        if me in barrier.left_out:
            self.go_stale(f"view {barrier.epoch} began without it: it said too late that it is ready")
        elif barrier.life(me) != context.life:
            context.phase, self.why = Phase.JOINING, "waiting to be admitted"
        elif me in verdict.stale:
            self.go_stale(f"view {barrier.epoch} carries a later state, or has given this life up")
        elif me in context.refused:
            self._shut_out()
        elif me in verdict.behind or me in verdict.empty:
            if verdict.fresh:
                self._enter(barrier, verdict, ClusterState(context.config, verdict.protocol))
            else:
                context.phase, self.why = Phase.JOINING, "waiting for the cluster's state"
        else:
            assert context.state is not None, "a carrier has state"
            self._enter(barrier, verdict, context.state)

    def _begin_again(self, barrier: Barrier, verdict: Verdict) -> None:
        """Nobody of this view can go on, nor begin: it has a second barrier, at the same place for all.

        Who is stale speaks when its data paths are closed, as its next life."""
        context = self._context
        self.barrier = Barrier(barrier.epoch, barrier.members)
        if context.phase is Phase.STALE or barrier.life(context.me) != context.life:
            return
        if context.me in verdict.stale:
            self.go_stale(f"no member of view {barrier.epoch} carries a state that holds")
            return
        if context.left_open:
            self.go_stale("nobody is left who knows whose the open volumes are")
            return
        context.refused = refusals(context, barrier, verdict)
        self._shut_out()  # nobody else is left: whoever could begin would have begun
        if context.phase is Phase.SHUT_OUT:
            self._say_ready()

    def _suspend(self, barrier: Barrier, verdict: Verdict) -> None:
        context = self._context
        context.phase = Phase.SUSPENDED
        self._regains = True
        absent = [node.name for node in context.config.nodes if node.id not in barrier.members]
        if verdict.divergent:
            self.why = "the members' states differ and no majority agrees: all stand still"
            context.record("divergent", self.why)
        elif context.refused:
            self.why = f"no quorum: {'; '.join(context.refused.values())}"
        else:
            self.why = f"no quorum: {', '.join(absent) or 'nobody carries the state'} missing"
        self._parts.interrupted()
        context.record("suspended", f"view {barrier.epoch} is not primary; {self.why}")

    def _shut_out(self) -> None:
        """This node does not take part, and says why."""
        context = self._context
        what = context.refused[context.me]
        context.record("shut-out", what)
        if context.state is not None or context.left_open:
            self.go_stale(what)
        else:
            context.phase, self.why = Phase.SHUT_OUT, what

    def _enter(self, barrier: Barrier, verdict: Verdict, state: ClusterState) -> None:
        """The view's first act, computed by everybody who has the state."""
        context = self._context
        context.state = state
        returning = []
        shown, hardware, enrolled = {}, {}, {}
        known = list(verdict.victims)
        wall_ms = 0
        for node in barrier.members:
            life, ready = barrier.life(node), barrier.ready(node)
            assert life is not None
            assert ready is not None
            # In a state that begins afresh nobody holds anything, so there is nothing to adopt.
            shown[node] = () if verdict.fresh else ready.shown
            hardware[node] = ready.hardware
            enrolled[node] = (ready.disk_epoch, ready.enrolled)
            able = ready.reaped or bool(shown[node])
            may = able and node not in verdict.stale and node not in context.refused
            returning.append((life, may))
            if verdict.fresh:
                state.domain.remember_liars(ready.quarantined)
            wall_ms = max(wall_ms, ready.wall_ms)
            if verdict.fresh and node in verdict.stale and life not in known:
                known.append(life)  # it may still write under what it once was granted
        if verdict.fresh and verdict.protocol >= REMOVED_NODES:
            # Of configured nodes that are absent any life may hold something; and what a node may hold that
            # is remembered as not proven fenced is not less because it was taken out of the configuration.
            configured = [node.id for node in state.config.nodes]
            known += sorted({Life(life.node) for life in known if life.node not in configured})
        if verdict.fresh and verdict.protocol >= FENCING:
            for one in remembered(enrolled).values():
                re_enrol(state, one)
        facts = enter_view(
            state,
            barrier.epoch,
            barrier.members,
            tuple(returning),
            tuple(known),
            verdict.procdown,
            wall_ms,
            verdict.fresh,
            shown,
            verdict.out,
            hardware,
            barrier.left_out,
        )
        if state.lives.get(context.me) != context.life:
            self.go_stale(f"not admitted to view {barrier.epoch}")
            return
        self._procdown.clear()
        if not verdict.fresh and state.protocol != verdict.protocol:
            what = f"all nodes can: protocol {verdict.protocol} is spoken from view {barrier.epoch} on"
            facts.append(Noted("protocol", what, {"protocol": verdict.protocol}))
        state.protocol = verdict.protocol
        for node, why in sorted(context.refused.items()):
            facts.append(Noted("not-admitted", why, {"node": node}))
        waiting = (*verdict.behind, *verdict.empty) if verdict.sender == context.me else ()
        # Who has yet to close its data paths asks again as its next life, and this would answer that.
        lives = [life for life, may in returning if may and life.node in waiting]
        self._work = chain(self._run(None), settle(state), self._answer(lives))
        self._parts.facts(facts)

    def _run(self, before: ClusterState | None) -> Work:
        context = self._context
        assert context.state is not None
        context.phase, self.why = Phase.RUNNING, ""
        context.admitted = context.admitted or context.epoch
        self._regains = False
        context.authority.entered(context.epoch, context.state.ready)
        context.outbox.open(context.state.senders[context.me].seq)
        return self._parts.entered(before)

    # -- snapshots -----------------------------------------------------------------------

    def _answer(self, waiting: list[Life]) -> Work:
        """The state for those who were admitted, one piece a step; an empty snapshot for the others."""
        context, state = self._context, self._context.state
        assert state is not None
        targets = tuple(life.node for life in waiting if state.lives.get(life.node) == life)
        refused = tuple(life.node for life in waiting if life.node not in targets)
        if refused:
            reasons = {node: context.refused[node] for node in refused if node in context.refused}
            again = any(state.keeps_out(life) is not None for life in waiting)
            context.outbox.say(Snapshot(refused, b"", why=reasons, again=again))
        if targets:
            for piece in split(state, targets, context.at_once):
                context.outbox.say(piece)
                if piece.piece and not piece.last:
                    context.budget = 0
                yield []

    def _waiting(self, sender: int, life: Life, item: ring.Item | None) -> None:
        """The barrier is complete and this node has no state of this view."""
        context = self._context
        if isinstance(item, Snapshot):
            if context.me in item.targets:
                self._take_snapshot(sender, item)
        elif isinstance(item, Ready) and sender == context.me:
            self._buffer = []  # the snapshot will stand for this very point
        elif not isinstance(item, Heartbeat):
            self._buffer.append((sender, life, item))

    def _take_snapshot(self, sender: int, snapshot: Snapshot) -> None:
        context = self._context
        if not snapshot.state and not snapshot.piece and context.left_open:
            self.go_stale("the cluster does not let it go on with the open volumes")
            return
        if not snapshot.state and not snapshot.piece:
            generic = "the cluster did not admit this node: a member can say why"
            context.refused |= snapshot.why
            was = self.why
            context.phase, self.why = Phase.SHUT_OUT, context.refused.get(context.me, generic)
            if self.why != was:
                context.record("shut-out", f"{context.name(context.me)} was not admitted: {self.why}")
            if snapshot.again:
                self._again_ns = context.now_ns + context.config.timing.token_ms * 1_000_000
            return
        try:
            state = self._gathering.add(sender, snapshot)
        except msgspec.MsgspecError as error:
            self._unreadable(error)
            return
        if self._gathering.has_begun(sender):
            self._piece_in = context.step
        if state is None or state.lives.get(context.me) != context.life:
            return  # there is more to come, or it is for an earlier incarnation of this node
        before, context.state = context.state, state
        if context.config != state.config:
            context.config = state.config
        self._behind.extendleft(reversed(self._buffer))
        self._buffer = []
        self._procdown.clear()
        self._work = self._run(before)

    def _unreadable(self, error: msgspec.MsgspecError) -> None:
        """Admitted, but to something that it does not understand.

        It goes at once, for to the others it would be silent, and be fenced; it has joined nothing yet."""
        context = self._context
        me = context.name(context.me)
        context.refused[context.me] = (
            f"the cluster's state cannot be read by this version of ringfence ({error}): {me} stays out; "
            "install the version of the other nodes there"
        )
        self._shut_out()
        if context.phase is Phase.SHUT_OUT:
            context.outbox.say(Submitted(1, Goodbye(context.life), context.wall_ms))

    # -- running ---------------------------------------------------------------------------

    def _apply(self, sender: int, life: Life, item: ring.Item | None) -> None:
        context = self._context
        state = context.state
        assert state is not None
        if item is None:
            if is_fenced(state, life):
                facts = heard_fenced(state, life)
                self._work = settle(state)
                self._parts.facts(facts)
                return
            for victim in state.domain.victims:
                if victim.life == life or victim.life.same_boot(life):
                    self._parts.victim_heard(victim.life)
            return
        if isinstance(item, Submitted):
            self._submitted(life, item)
        elif isinstance(item, Heartbeat):
            if state.lives.get(sender) == life:
                context.authority.heard(context.now_ns, sender, item)
                if life == context.life:
                    context.hearing.echoed(context.now_ns)
                    if self._unsure and self._moves:
                        self._behind.extend(self._unsure)
                        self._unsure = []
        elif isinstance(item, Ready):
            self._admit(life, item)

    def _submitted(self, life: Life, item: Submitted) -> None:
        context, state = self._context, self._context.running
        assert state is not None
        if state.fits(life, item):
            facts = apply(state, life, item)
            if life == context.life:
                context.outbox.applied(item.seq)
            if not isinstance(item.entry, LOCK_ENTRIES):
                context.authority.set_ready(state.ready)
            if state.unsettled:
                self._work = settle(state)
            self._parts.facts(facts)
        elif life == context.life:
            context.outbox.repeat(item.seq)

    def _admit(self, life: Life, ready: Ready) -> None:
        """A member says Ready again in this view: it was stale, and comes back as a new life.

        Or it was left out, and says it late.  It finds that out by itself, and comes back as its next life,
        which could take an answer to this one for its own."""
        context, state = self._context, self._context.state
        assert state is not None
        if state.lives.get(life.node) == life or state.domain.victim(life) is not None or not ready.reaped:
            return
        admitted = ready.config_digest == digest_of_config(context.config) and state.protocol in ready.speaks
        facts = admit(state, life, ready.wall_ms, ready.hardware) if admitted else []
        context.authority.set_ready(state.ready)
        others = [node for node in state.ready if node != life.node]
        waiting = [life] if others and others[0] == context.me else []
        self._work = chain(settle(state), self._answer(waiting))
        self._parts.facts(facts)


def _extra(item: ring.Item | None) -> int:
    """What it costs more to apply than an entry that is about one thing."""
    return weight(item.entry) - 1 if isinstance(item, Submitted) else 0
