"""One node: `step(now_ns, input) -> effects`.  Everything that a daemon decides is decided here.

Each step takes one past fact, lets the parts act on it, then looks round once: what may be told,
who must be fenced, which deadlines moved, what there is to say.  All that it has to say leaves in
one frame, last; what must be on disk before that is kept first.  What is too much for one step goes on in
the next: the driver is asked to call again.  After a step that touched nothing
but locks there is nothing else to look at: whatever time alone brings, the next tick finds.

The parts: `views` (who is in, who may act), `state` (what all agree on), `locker` (locks of users here),
`tasks` (volume commands), `fencer` (this node as the acting member), `agent_calls` (runs of fence
agents, admitted by device), `deadlines` (authority pages), `deadlocks` (clients that wait in a ring),
`checkups` (what all hosts look like), `refreshes` (LVs that several hosts have active), `handovers` (LVs on
their way to another host), `wiper` (LVs that are zeroed or wiped), `fence_tests` and
`drills` (whether all could fence), `arming` (when a maintenance ends), `requests` (clients),
`lvmlockd` (stock LVM2)."""

from collections.abc import Iterator
from itertools import chain

import msgspec

from ringfence.core.errors import RingfenceError
from ringfence.core.ids import Epoch, Life
from ringfence.engine import inputs
from ringfence.engine.agent_calls import AgentCalls
from ringfence.engine.arming import Arming
from ringfence.engine.checkups import Checkups
from ringfence.engine.client_locks import ClientLocks
from ringfence.engine.commands import autostart, look_for_slots
from ringfence.engine.commands.locking import space_of
from ringfence.engine.context import AT_ONCE, Context, Phase
from ringfence.engine.deadlines import Deadlines
from ringfence.engine.deadlocks import Deadlocks
from ringfence.engine.denials import lost_error
from ringfence.engine.drills import Drills
from ringfence.engine.effects import CallAgain, Effect, Ended, Keep, KeepConfig, Multicast, Record
from ringfence.engine.facts import (
    AttemptGranted,
    ConfigAccepted,
    ConfigRefused,
    DeadlockSought,
    DrillGranted,
    DrillOver,
    Expelled,
    Fact,
    HandoverAsked,
    HandoverHeard,
    HostHeard,
    HostsAsked,
    JoinSeen,
    Left,
    LockFact,
    LockFacts,
    NotAdmitted,
    Noted,
    PowerOnGranted,
    RefreshAsked,
    RefreshHeard,
    Retokened,
    SpaceLeft,
    TestsAsked,
    TestsHeard,
    VgChanged,
    VictimGone,
    WaitsTold,
)
from ringfence.engine.fence_tests import FenceTests
from ringfence.engine.fencer import Fencer
from ringfence.engine.handovers import Handovers
from ringfence.engine.identity import to_keep
from ringfence.engine.inputs import DiskState, Input
from ringfence.engine.locker import Locker
from ringfence.engine.lvm_processes import LvmProcesses
from ringfence.engine.lvmlockd.server import Lvmlockd
from ringfence.engine.mover import Mover
from ringfence.engine.reconcile import missed, noticed
from ringfence.engine.refreshes import Refreshes
from ringfence.engine.requests import Requests
from ringfence.engine.slots import Slots
from ringfence.engine.state import ClusterState
from ringfence.engine.switcher import Switcher
from ringfence.engine.tasks import Tasks, joined
from ringfence.engine.views import Views
from ringfence.engine.wiper import Wiper
from ringfence.membership.quorum import is_primary
from ringfence.volumes.deltas import follow
from ringfence.wire import ring
from ringfence.wire.block import Hold
from ringfence.wire.entries import AckJoin, Incident, IncidentSeen, Suspect
from ringfence.wire.slots import Mark

AUTOSTART_AGAIN_MS = 10_000


class Node:
    """The engine.  The first input must be `Started`.

    Args:
        at_once: how many locks one step handles at most, where an event concerns many."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._running: _Node | None = None

    def step(self, now_ns: int, input: Input) -> list[Effect]:
        """Take one fact; return what to do, in order.

        Args:
            now_ns: CLOCK_BOOTTIME; never goes back."""
        running = self._running
        if running is None:
            assert isinstance(input, inputs.Started), "Started comes first"
            running = self._running = _Node(now_ns, input, self._at_once)
        return running.step(now_ns, input)

    @property
    def context(self) -> Context | None:
        """For checkers, to read; None before the first input."""
        return self._running.context if self._running is not None else None


class _Node:
    def __init__(self, now_ns: int, started: inputs.Started, at_once: int) -> None:
        disk = started.disk
        again = disk.boot == started.boot
        incarnation = disk.incarnation + 1 if again else 1
        life = Life(started.node, started.machine, started.boot, incarnation)
        disk = msgspec.structs.replace(disk, incarnation=incarnation, boot=started.boot)
        if not again:
            disk = msgspec.structs.replace(disk, stopped=(), stopped_uuids=())
        context = self.context = Context(
            started.config, started.node, life, disk, started.speaks, at_once, started.hardware
        )
        context.keep = True
        context.hearing.started(now_ns)
        self.locker = Locker(context)
        self._lvm_processes = LvmProcesses(context, self.locker)
        clients = ClientLocks(context, self.locker)
        self._slots = Slots(context, self._found_mark)
        self._calls = AgentCalls(context)
        self._tasks = Tasks(context, self.locker, clients, self._calls, self._slots)
        self.refreshes = Refreshes(context, self.locker, self._tasks)
        self._handovers = Handovers(context, self.locker, self._tasks)
        self._wiper = Wiper(context, self._tasks)
        self._mover = Mover(context, self._tasks)
        self._lvmlockd = Lvmlockd(
            context, self.locker, self._tasks, self._slots, self._lvm_processes, self.refreshes
        )
        self._views = Views(context, self, drop_paths=not started.config.naive)
        self._fencer = Fencer(context, self._calls, self._slots)
        self._switcher = Switcher(context, self._calls)
        self._deadlocks = Deadlocks(context, self.locker)
        self._checkups = Checkups(context, self._tasks)
        self._fence_tests = FenceTests(context, self._tasks)
        self._drills = Drills(context, self._tasks)
        self._arming = Arming(context)
        self._requests = Requests(
            context, self.locker, clients, self._tasks, self._views, self._fencer, self._deadlocks,
            self._checkups, self._fence_tests, self._drills, self._arming, self._slots, self._lvmlockd,
            self.refreshes, self._wiper, self._mover, self._handovers,
        )  # fmt: skip
        self._deadlines = Deadlines(context, self._slots)
        self._sent_ns = 0
        self._called = False
        """The driver was asked to call again, and has not yet."""
        self._called_for_all = False
        """Then there is more to do than locks."""
        self._suspected: dict[Life, int] = {}
        """Lives this node has called silent, with the epoch's sequence in which it did."""
        self._incidents: list[Incident] = []
        """Told by the block service, not yet in the ordered state."""
        self._autostart = _Autostart()
        self._seeks_slots = False
        self._seqnos: dict[str, int] = {}
        """Of VGs, as they were published last."""
        self._kept: tuple[Epoch, int] | None = None
        """Of which state the disk knows; None: perhaps not all of it."""

    # -- one step ---------------------------------------------------------------------

    def step(self, now_ns: int, input: Input) -> list[Effect]:
        context = self.context
        context.now_ns = now_ns
        context.step += 1
        context.hearing.ticked(now_ns)
        if self.locker.node_locks.holding:
            self.locker.node_locks.time_passes(now_ns // 1_000_000)
        context.only_locks, context.more, context.more_locks = True, False, False
        context.budget = context.at_once
        if isinstance(input, inputs.Asked):  # by far the most frequent
            self._requests.asked(input)
        else:
            self._take(input)
        quiet = self._touched_only_locks()
        if quiet and (self._lvmlockd.used or self.locker.has_to_look):
            self.locker.look()
            if self._lvmlockd.used:
                self._lvmlockd.look()
            quiet = self._touched_only_locks()
        if not quiet:  # perhaps for what was seen there
            self.locker.let_go()
            self._look_round()
        if not context.left:
            items = context.outbox.frame()
            if items:
                frame = ring.encode(context.epoch, context.life, items, context.protocol)
                context.effects.append(Multicast(frame))
            self._called_for_all = self._called_for_all or context.more
            more = context.more or context.more_locks or (items and context.outbox.more)
            if more and not self._called:
                self._called = True
                context.out(CallAgain())
        effects, context.effects = context.effects, []
        return effects

    def _touched_only_locks(self) -> bool:
        """Whether nobody has to look at more than locks after this step.

        Asked at every step: mostly it is the first look at each of these that tells."""
        tasks, state = self._tasks, self.context.running
        return (
            self.context.only_locks
            and not (tasks.by_number and tasks.waits)
            and not self._requests.pending  # somebody waits until an entry was applied
            and not (tasks.held or (state is not None and state.handovers))  # those follow LVs' locks
        )

    def _take(self, input: Input) -> None:
        if isinstance(input, inputs.Delivered):
            self._views.from_ring(input)
            return
        if isinstance(input, inputs.LvmRequest):
            self._lvmlockd.asked(input.client, input.asked)
            return
        if isinstance(input, inputs.CalledAgain):
            self._called = False
            self.context.only_locks, self._called_for_all = not self._called_for_all, False
            self._views.go_on()
            return
        if isinstance(input, inputs.OrderDone) and input.order >= 0:
            self._tasks.order_done(input.order, input.answer, input.error)
            return
        self.context.only_locks = False
        match input:
            case inputs.Started():
                self._started(input)
            case inputs.ViewChanged() | inputs.RingLost():
                self._views.from_ring(input)
            case inputs.QuorumSaid():
                self._quorum_said(input.quorate)
            case inputs.RingRemarked():
                self._ring_remarked(input.what)
            case inputs.ClientGone():
                self._requests.client_gone(input.client)
            case inputs.LvmGone():
                self._lvmlockd.gone(input)
            case inputs.AgentExited():
                self._calls.exited(input)
            case inputs.OrderDone():
                self._slots.done(input.order, input.answer, input.error)
            case inputs.PathsDropped():
                self._views.paths_dropped(input)
            case inputs.ProcessEnded():
                self._lvm_processes.ended(input)
            case inputs.PathIncident():
                self._path_incident(input.incident)
            case inputs.Wall():
                self.context.wall_ms = input.wall_ms
            case inputs.Tick():
                pass

    def _started(self, started: inputs.Started) -> None:
        context = self.context
        assert context.phase is Phase.STARTING, "started twice"
        context.phase = Phase.NO_RING
        context.record(
            "started", f"{context.name(context.me)} starts as {context.life}", life=str(context.life)
        )
        if started.left_open:
            context.left_open = started.left_open
            self._deadlines.inherit([page for one in started.left_open for page in one.pages])
        elif not started.paths_reaped:
            context.phase = Phase.STALE
            self._views.drop_paths()

    def _quorum_said(self, quorate: bool) -> None:
        """Nothing is undone by a veto, and nothing is granted by its end: deadlines stand, then go on."""
        context = self.context
        if context.vetoed != quorate:
            return
        context.vetoed, context.vetoed_ns = not quorate, context.now_ns
        if quorate:
            context.record("quorate", f"{context.config.ring} says that this node is quorate again")
        else:
            self._fencer.cancel_all()
            self._switcher.cancel_all()
            what = "this node is not quorate: it renews, grants and fences nothing"
            context.record("not-quorate", f"{context.config.ring} says that {what}")

    def _ring_remarked(self, what: str) -> None:
        self.context.ring_remark = what
        if what:
            self.context.record("ring-remark", what)

    def _look_round(self) -> None:
        context = self.context
        context.renew()
        self._views.look()
        lockspaces = joined(context)
        self._slots.look(lockspaces)
        self.locker.look()
        self._tasks.look()
        self._requests.look()
        self._lvmlockd.look()
        self._deadlocks.look()
        self._checkups.look()
        self.refreshes.look()
        self._handovers.look()
        self._wiper.look()
        self._mover.look()
        self._fence_tests.look()
        self._drills.look()
        if context.left:
            return  # it is no member any more, and has no say in who is fenced
        self._look_for_silence()
        self._fencer.look()
        self._switcher.look()
        self._arming.look()
        self._look_at_autostart()
        self._look_for_slots()
        self._tell_incidents()
        self._deadlines.update(lockspaces)
        self._beat()
        self._keep()

    def _keep(self) -> None:
        """What this step leads to stands on what is on disk: so that comes first of all."""
        context = self.context
        disk, state = context.disk, context.running
        if state is not None:
            place = (state.epoch, state.position)
            if place == self._kept and context.settled and not context.keep:
                return  # the state changes with its position alone, and in the middle of an entry
            self._kept = place if context.settled else None
            victims = tuple(victim.life for victim in state.victims())
            liars = tuple(sorted(state.domain.quarantined.items()))
            fenced = state.fenced_lives()
            out = tuple(life for _, life in sorted(state.out.items()))
            tested = state.tested.get(context.me, disk.tested)
            disk = DiskState(
                state.epoch, disk.incarnation, disk.boot, victims, liars, fenced, out, tested, to_keep(state),
                disk.stopped, disk.stopped_uuids,
            )  # fmt: skip
        if disk != context.disk or context.keep:
            context.disk, context.keep = disk, False
            context.effects.insert(0, Keep(disk))

    def _beat(self) -> None:
        context = self.context
        due_ns = self._sent_ns + context.config.timing.heartbeat_ms * 1_000_000
        if context.now_ns >= due_ns and self._views.may_beat:
            self._sent_ns = context.now_ns
            context.outbox.say(context.authority.sent(context.now_ns))

    def _look_for_silence(self) -> None:
        """The lowest ready member that is not silent itself calls out who is.

        Not without a majority that speaks.  Of three members two of which do not reach one another, the
        ring delivers to the third its own words alone; it would have both fenced, and stand alone then."""
        context, state = self.context, self.context.running
        if state is None or not context.heartbeat_back:
            return
        timing = context.config.timing
        hearing, now_ns = context.hearing, context.now_ns
        if not (context.calm and hearing.attentive(now_ns, timing.detection_ms)):
            return
        silent = [
            life
            for node, life in sorted(state.lives.items())
            if node != context.me and hearing.silent(life, now_ns, timing.silent_ms)
        ]
        if not silent:
            return
        speaking = [node for node in state.ready if state.lives[node] not in silent]
        if speaking[0] != context.me or not is_primary(context.config, speaking, True):
            return
        for life in silent:
            if self._suspected.get(life) != context.epoch.seq:
                self._suspected[life] = context.epoch.seq
                context.submit(Suspect(life))

    # -- volumes that start by themselves, incidents ---------------------------------------

    def _look_at_autostart(self) -> None:
        """This cluster's shared VGs start by themselves, once in each life, and when one is made; their
        lockspaces are left when they are removed."""
        context, auto = self.context, self._autostart
        if context.running is None or auto.runs or not (auto.due or context.now_ns >= auto.again_ns > 0):
            return
        auto.due, auto.again_ns, auto.runs = False, 0, True

        removed = tuple(auto.removed)

        def finished(result: object, error: RingfenceError | None) -> None:
            auto.runs = False
            if error is None:
                auto.failed = ""
                auto.removed = {vg: True for vg in auto.removed if vg not in removed}
                return
            auto.again_ns = context.now_ns + AUTOSTART_AGAIN_MS * 1_000_000
            if auto.failed != str(error):
                auto.failed = str(error)
                context.record("autostart-failed", f"shared VGs were not started: {error}; trying again")

        starts = autostart(context.stopped, dict(context.vg_uuids), removed)
        self._tasks.start("autostart", starts, finished)

    def _look_for_slots(self) -> None:
        """Others use disk slots on a VG that is started here; where are they?"""
        if self._slots.scan_is_due and not self._seeks_slots:
            self._seeks_slots = True

            def finished(result: object, error: RingfenceError | None) -> None:
                self._seeks_slots = False

            self._tasks.start("disk slots", look_for_slots(), finished)

    def _found_mark(self, vg: str, mark: Mark) -> None:
        """This life was given up by others, who may have gone on without it."""
        context = self.context
        if mark.cut:
            name, by = context.name(context.me), context.name(mark.by)
            what = f"{name} reads on VG {vg} that {by} had proof of its end, and runs on: the fence lied"
            self._incidents.append(
                Incident("fence-lied", context.me, what, context.life, at_wall_ms=context.wall_ms)
            )
        members = self._views.barrier.members if self._views.barrier is not None else ()
        others = [node for node in members if node != context.me]
        ready = context.state.ready if context.state is not None else ()
        why = f"it is marked as fenced on VG {vg}, by {context.name(mark.by)} in epoch {mark.epoch}"
        self._views.go_stale(why)
        if others and not any(node in ready for node in others):
            # The others of this view wait to be let in by this node, which has said that it has state and has
            # none any more: only in another view can they begin without it.
            context.out(Ended(f"{why}; nobody else here has state: the daemon must start anew", failed=True))

    def _path_incident(self, incident: Incident) -> None:
        context = self.context
        if incident.life is None:
            incident = msgspec.structs.replace(incident, node=context.me, life=context.life)
        self._incidents.append(incident)

    def _tell_incidents(self) -> None:
        """Into the ordered state as soon as this node runs."""
        context = self.context
        if not self._incidents:
            return
        if context.running is not None:
            for incident in self._incidents:
                context.submit(IncidentSeen(incident))
            self._incidents = []

    # -- what the views bring (Parts) ---------------------------------------------------------

    def view_began(self) -> None:
        self._fencer.view_changed()

    def entered(self, before: ClusterState | None) -> Iterator[list[Fact]]:
        """This node runs in a new epoch; look again at what it may have missed."""
        context = self.context
        state = context.state
        assert state is not None
        self._configured()
        self._sent_ns = 0
        for name, space in sorted(state.lockspaces.items()):
            for joiner, waiting_for in sorted(space.joining.items()):
                if context.me in waiting_for and joiner in state.lives:
                    context.submit(AckJoin(name, state.lives[joiner]))
        self._fence_tests.entered()
        self.refreshes.entered()
        if self._autostart.life != context.life:
            self._autostart = _Autostart(context.life, due=True, runs=self._autostart.runs)
        work = [self._adopted(state)] if context.left_open else []
        if before is not None:
            work.append(missed(before, state, context.me, context.outbox.just_applied))
        return chain(*work)

    def _adopted(self, state: ClusterState) -> Iterator[list[Fact]]:
        """The volumes that the earlier life left open are this life's now, and so are their locks.

        Until all are, commands are told to wait for it (`left_open`)."""
        context = self.context
        for number, one in enumerate(context.left_open):
            if number % context.at_once == context.at_once - 1:
                context.budget = 0
                yield []
            held = state.lockspaces[one.lock.lockspace].resources[one.lock.resource].find(context.me)
            assert held is not None, f"{one.what} was adopted without its lock"
            lock = self.locker.restore(one.lock, held, one.what, one.lvm2)
            if one.lvm2 is None:
                self._tasks.opened[one.vg, one.lock.resource] = one.lv
                self._tasks.path_locks.adopted(one.vg, one.lock.resource, one.lock.mode)
                if one.hold is not Hold.NONE:
                    self._tasks.held[one.vg, one.lock.resource] = one.hold
            elif not one.lvm2.persistent:
                self._lvm_processes.stays(lock)
        context.left_open = ()
        self.refreshes.own.entered()  # the earlier life may have missed a change
        yield [*noticed(state, context.me)]

    def victim_heard(self, life: Life) -> None:
        self._fencer.heard(life)

    def interrupted(self) -> None:
        self._fencer.cancel_all()
        self._switcher.cancel_all()

    def lost(self, why: str) -> None:
        context = self.context
        self._deadlines.lose()
        self._slots.lost()
        self.locker.lost()
        self.context.vg_uuids.clear()  # until the VGs are started again they may be made anew
        self._lvm_processes.lost()
        self._lvmlockd.lost()
        self._tasks.lost()
        self._wiper.lost()
        self._mover.lost()
        error = lost_error("the request", context.name(context.me))
        self._requests.lost(error)
        self._deadlocks.lost(error)
        self._checkups.lost(error)
        self.refreshes.lost(error)
        self._handovers.lost(error)
        self._fence_tests.lost(error)
        self._drills.lost(error)

    def reborn(self) -> None:
        self._deadlines.start()

    def facts(self, facts: list[Fact]) -> None:
        for fact in facts:
            if not isinstance(fact, LockFact | LockFacts):
                self._fact(fact)
            elif fact.effect.owner != self.context.me:
                pass
            elif isinstance(fact, LockFact):
                self.locker.take_fact(fact)
            else:
                self.locker.take_facts(fact)

    def _fact(self, fact: Fact) -> None:
        context = self.context
        me = context.me
        if isinstance(fact, Noted):
            context.out(Record(fact.kind, fact.what, fact.fields))
            return
        if isinstance(fact, VgChanged):
            self._vg_changed(fact)
            return
        context.only_locks = False
        match fact:
            case Retokened():
                if fact.node == me:
                    self.locker.grants.retokened(fact)
            case DeadlockSought():
                self._deadlocks.sought(fact)
            case WaitsTold():
                self._deadlocks.answered(fact)
            case HostsAsked():
                self._checkups.asked(fact)
            case HostHeard():
                self._checkups.heard(fact)
            case RefreshAsked():
                self.refreshes.asked(fact)
            case RefreshHeard():
                self.refreshes.heard(fact)
            case HandoverAsked():
                self._handovers.asked(fact)
            case HandoverHeard():
                self._handovers.heard(fact)
            case TestsAsked():
                self._fence_tests.asked(fact)
            case TestsHeard():
                self._fence_tests.heard(fact)
            case DrillGranted():
                self._drills.granted(fact)
            case DrillOver():
                self._drills.over(fact)
            case JoinSeen():
                if fact.life.node != me:
                    context.submit(AckJoin(fact.lockspace, fact.life))
            case SpaceLeft():
                if fact.node == me:
                    self._tasks.space_left(fact)
            case AttemptGranted():
                if fact.actor == me:
                    self._fencer.begin(fact)
            case PowerOnGranted():
                if fact.actor == me:
                    self._switcher.begin(fact)
            case VictimGone():
                self._fencer.cancel(fact.life)
            case Left():
                if fact.node == me:
                    self._left()
            case Expelled():
                if fact.life == context.life:
                    self._views.go_stale(fact.why)
            case NotAdmitted():
                context.refused[fact.node] = fact.why
            case ConfigAccepted():
                context.config = fact.config
                self._configured()
                context.out(KeepConfig(fact.config))
            case ConfigRefused():
                if fact.node == me:
                    self._requests.config_refused(fact)

    def _configured(self) -> None:
        context = self.context
        context.authority.configured(context.config)
        context.hearing.configured(context.config.timing)

    def _vg_changed(self, fact: VgChanged) -> None:
        """A VG that another node shares or changes starts here too, unless it was stopped by hand; the
        lockspace of one that it removes is left."""
        self._follow(fact)
        if self.refreshes.changed(fact):
            self.context.only_locks = False
        if fact.by != self.context.me and fact.seqno <= self._seqnos.get(fact.vg, 0):
            self.context.vg_uuids.pop(space_of(fact.vg), None)  # removed, or made anew: another VG
        self._seqnos[fact.vg] = fact.seqno
        if fact.by != self.context.me and (fact.removed or not self.context.is_in(space_of(fact.vg))):
            self._autostart.due, self.context.only_locks = True, False
        if fact.removed:
            self._autostart.removed[fact.vg] = True
        else:
            self._autostart.removed.pop(fact.vg, None)

    def _follow(self, fact: VgChanged) -> None:
        """Have this node know the new version, too, if it knew the one before."""
        known = self.context.known_vgs.named(fact.vg) if fact.delta is not None else None
        if known is not None and fact.delta is not None and fact.by != self.context.me:
            new = follow(known, fact.delta, fact.seqno, fact.crc)
            if new is not None:
                self.context.known_vgs.put(new)

    def _left(self) -> None:
        """The goodbye was applied, which is kept: no authority, no more words; answer who asked, and end."""
        context = self.context
        context.left = True
        self._keep()
        self._deadlines.lose()
        self._tasks.look()
        context.out(Ended(f"{context.name(context.me)} left the cluster"))


class _Autostart(msgspec.Struct):
    life: Life | None = None
    due: bool = False
    runs: bool = False
    again_ns: int = 0
    failed: str = ""
    removed: dict[str, bool] = {}
    """VGs that are no more, until their lockspaces are left; in the order of that."""
