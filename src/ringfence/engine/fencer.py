"""This node as an actor: starts fence attempts when it is its turn, and reports what came of them.

An attempt begins with an ordered entry, so that all nodes know who acts; the agents run only after
this node has seen its own entry applied.  The actor needs no authority (the lone half of two has
none yet), but it must be a ready member of a primary view, hear its own heartbeats, and have had a
clock without gaps for one detection time: a host that was frozen itself must not shoot."""

import functools

import msgspec

from ringfence.core.evidence import CUTS
from ringfence.core.ids import Epoch, Life
from ringfence.engine.agent_calls import AgentCalls, Call
from ringfence.engine.context import Context
from ringfence.engine.effects import TickAt
from ringfence.engine.facts import AttemptGranted
from ringfence.engine.inputs import AgentExited
from ringfence.engine.slots import Slots
from ringfence.fencing.actor import backoff_ms, may_start
from ringfence.fencing.delays import delays_of
from ringfence.fencing.domain import Victim
from ringfence.fencing.level_run import LevelRun, Outcome, Run
from ringfence.fencing.split import Split
from ringfence.wire import FENCING
from ringfence.wire.entries import (
    AgentSaid,
    AttemptBegan,
    AttemptEnded,
    BoundPassed,
    EvidenceSeen,
    VictimDue,
)


class _Running(msgspec.Struct):
    life: Life
    number: int
    run: LevelRun
    split: Split
    calls: dict[int, int] = {}
    """The level's run -> its number among this node's calls; those that have not exited."""
    admitted_ms: dict[int, tuple[float, float]] = {}
    """When each of its runs asked for a session, and got it."""
    tick_ms: int = 0
    """When the engine is called again for it."""
    asked_ns: int = 0
    """Since when it waits to read its own marks, before it shoots; 0: it does not."""
    passed: Outcome | None = None
    """It has passed, but the victim's disk slot moved a moment ago: will it go on moving?"""
    passed_ns: int = 0


class Fencer:
    def __init__(self, context: Context, calls: AgentCalls, slots: Slots) -> None:
        self._context = context
        self._calls = calls
        self._slots = slots
        self._running: dict[Life, _Running] = {}
        self._paused: dict[Life, tuple[int, int]] = {}
        """Victim -> (attempt number, until when): the pause after a round; every node waits it out."""
        self._asked: dict[Life, int] = {}
        """Attempt number that was asked for and has not been applied yet."""
        self._seen_ns: dict[tuple[Life, Epoch], int] = {}
        """When this node first saw a victim of that loss."""
        self._due_ns: dict[tuple[Life, Epoch], int] = {}
        """When it first saw it due."""
        self._said: dict[tuple[str, Life], int] = {}
        """Witness entries already submitted: (kind, life) -> epoch sequence."""

    # -- every step --------------------------------------------------------------

    def seen_ns(self, victim: Victim) -> int:
        """When this node first saw this victim of this loss; now, if it has not looked yet."""
        return self._seen_ns.get((victim.life, victim.since), self._context.now_ns)

    def look(self) -> None:
        """Witness what time has brought, and start what is this node's turn to start."""
        context = self._context
        state = context.running
        if state is None or not (state.domain.victims or self._running or self._seen_ns):
            return
        victims = state.victims()
        self._forget([victim.life for victim in victims])
        self._compare(victims)
        self._go_on()  # with none of those that have just been called off
        self._time_passes()
        for victim in victims:
            self._seen_ns.setdefault((victim.life, victim.since), context.now_ns)
            self._witness_bound(victim)
            if not victim.due:
                self._witness_due(victim)
                continue
            if (victim.life, victim.since) not in self._due_ns:
                self._due_ns[victim.life, victim.since] = context.now_ns
                self._tick_after_delay(victim)
            if state.being_cut(victim.life):
                continue  # its power is being cut already
            if not state.domain.proven(victim) and victim.current is None:
                self._ask(victim)

    def _compare(self, victims: list[Victim]) -> None:
        """What runs here and what the ordered state says of it must agree.

        An attempt that was closed there (a lie was found out) stops here; one that stands open there
        though it was given up here (this node was in no primary view for a while) ends there too."""
        for life, running in list(self._running.items()):
            current = next((one.current for one in victims if one.life == life), None)
            if current is None or (current.actor, current.number) != (self._context.me, running.number):
                self.cancel(life)
        told = [
            one.life for one in self._context.outbox.unapplied(AttemptEnded) if isinstance(one, AttemptEnded)
        ]
        for victim in victims:
            current = victim.current
            if current is None or current.actor != self._context.me:
                continue
            if victim.life not in self._running and victim.life not in told:
                verdict = f"{self._context.name(self._context.me)} could not act for a while: given up"
                wait_ms = self._wait_ms(victim)
                self._context.submit(
                    AttemptEnded(victim.life, current.number, False, verdict, next_in_ms=wait_ms)
                )

    def _forget(self, lives: list[Life]) -> None:
        self._seen_ns = {key: at_ns for key, at_ns in self._seen_ns.items() if key[0] in lives}
        self._due_ns = {key: at_ns for key, at_ns in self._due_ns.items() if key[0] in lives}
        for table in (self._paused, self._asked):
            for life in [one for one in table if one not in lives]:
                del table[life]
        self._said = {key: seq for key, seq in self._said.items() if key[1] in lives}

    def _once(self, kind: str, life: Life) -> bool:
        """True the first time in an epoch (an entry of an earlier epoch may have been lost)."""
        if self._said.get((kind, life)) == self._context.epoch.seq:
            return False
        self._said[kind, life] = self._context.epoch.seq
        return True

    def _witness_bound(self, victim: Victim) -> None:
        context = self._context
        if context.me in victim.bound:
            return
        timing = context.config.timing
        passed = context.config.naive or context.hearing.bound_passed(victim.life, context.now_ns, timing)
        if passed and self._once(f"bound {victim.number} {victim.lied}", victim.life):
            context.submit(BoundPassed(victim.life))

    def _witness_due(self, victim: Victim) -> None:
        context = self._context
        assert context.state is not None
        seen_ns = self.seen_ns(victim)
        timing = context.config.timing
        delay_ms = timing.post_join_delay_ms if victim.life.unknown else timing.grace_ms
        if context.now_ns - seen_ns < delay_ms * 1_000_000 or context.me != context.state.ready[0]:
            return
        if self._once("due", victim.life):
            context.submit(VictimDue(victim.life))

    def _ask(self, victim: Victim) -> None:
        context, state = self._context, self._context.running
        assert state is not None
        if state.disarmed is not None:
            self._asked.pop(victim.life, None)  # what was asked for is not granted now
            return
        levels = len(context.config.levels_of(victim.life.node))
        number = victim.number + 1
        if self._veto_is_new() or levels == 0 or self._asked.get(victim.life) == number:
            return
        if state.domain.actor_for(victim, state.ready) != context.me:
            return
        if self._pauses(victim) or self._delays(victim):
            return
        if self._calls.busy_for(victim.life.node, "on"):
            return  # else what still switches it on could end after the last look
        if not may_start(
            ready=True, primary=True, heartbeat_back=context.heartbeat_back, calm=context.calm
        ):
            return
        self._asked[victim.life] = number
        context.submit(AttemptBegan(victim.life, victim.level % levels, number))

    def _delay_until_ns(self, victim: Victim) -> int:
        """Until when the first attempt on this victim waits."""
        state = self._context.running
        assert state is not None
        delays = delays_of(self._context.config, victim.life, state.favoured) if not victim.number else ()
        since_ns = self._due_ns.get((victim.life, victim.since), self._context.now_ns)
        return since_ns + sum(one.delay_ms for one in delays) * 1_000_000

    def _delays(self, victim: Victim) -> bool:
        return self._context.now_ns < self._delay_until_ns(victim)

    def _tick_after_delay(self, victim: Victim) -> None:
        until_ns = self._delay_until_ns(victim)
        if until_ns > self._context.now_ns:
            self._context.out(TickAt(until_ns))

    def _veto_is_new(self) -> bool:
        """One that lasts does not keep the turn: the attempt is asked for, nothing is started, it is given
        up, and whoever is not vetoed comes next."""
        context = self._context
        lasts_ms = (context.now_ns - context.vetoed_ns) // 1_000_000
        return context.vetoed and lasts_ms < context.config.timing.detection_ms

    def _pauses(self, victim: Victim) -> bool:
        """The last attempt ended a round; whoever is next waits as long as its actor said."""
        last = victim.attempts[-1] if victim.attempts else None
        if last is None or not last.next_in_ms:
            return False
        now_ns = self._context.now_ns
        number, until_ns = self._paused.get(victim.life, (0, 0))
        if number != last.number:
            until_ns = now_ns + last.next_in_ms * 1_000_000
            self._paused[victim.life] = last.number, until_ns
        return now_ns < until_ns

    def doing(self, life: Life) -> list[str]:
        """What this node's attempt on a victim waits for other than agents, for people."""
        running = self._running.get(life)
        if running is None:
            return []
        queued = [self._calls.queued(call) for call in running.calls.values()]
        return [*(one for one in queued if one), *running.run.waits(self._context.now_ms)]

    # -- an attempt of this node ---------------------------------------------------

    def begin(self, fact: AttemptGranted) -> None:
        context = self._context
        assert context.state is not None
        if context.vetoed:
            return  # the next look gives it up
        domain = context.state.domain
        victim = domain.victim(fact.life)
        assert victim is not None, "an attempt on no victim"
        run = LevelRun(
            context.config, fact.life, fact.level, 1, seen_by=context.me, wall_ms=context.wall_ms,
            quarantined=tuple(domain.quarantined), switched=domain.switched_off(victim),
            listen_ms=self._listen_ms(fact.life),
        )  # fmt: skip
        split = Split(self._now_ms)
        running = self._running[fact.life] = _Running(fact.life, fact.number, run, split)
        if self._slots.hurry():
            # Who was given up itself, and does not know it yet, must not shoot the one who went on.
            running.asked_ns = context.now_ns
        else:
            self._start(running, run.start(context.now_ms))

    def _listen_ms(self, life: Life) -> int:
        """How long a claim that this victim is off waits for its voice.

        One whose host is in the ring (it was ordered fenced, or its daemon stood still) closes its paths,
        begins its next life, and says so: a quick lie would be believed before that.  Who was lost from the
        ring has been silent for as long already."""
        context = self._context
        return 2 * context.config.timing.token_ms if life.node in context.ring else 0

    def _go_on(self) -> None:
        """Attempts that wait for a disk."""
        for running in list(self._running.values()):
            if running.asked_ns and self._slots.read_since(running.asked_ns):
                running.asked_ns = 0
                self._start(running, running.run.start(self._context.now_ms))
            elif running.passed is not None:
                self._look_at_slot(running, running.passed)

    def _look_at_slot(self, running: _Running, outcome: Outcome) -> None:
        """Passed, unless its disk slot says that the victim writes on.  One that has stood still all the
        while costs no time."""
        now_ns = self._context.now_ns
        vg = self._slots.alive_since(running.life.node, running.passed_ns)
        rounds_ns = 2 * self._context.config.timing.slot_ms * 1_000_000
        if vg:
            self._refuse(running, outcome, f"goes on writing its slot on VG {vg}")
        elif now_ns >= running.passed_ns + rounds_ns and not self._slots.moves(running.life.node):
            self._end(running, outcome)

    def _refuse(self, running: _Running, outcome: Outcome, sign: str) -> None:
        """It had passed, and the victim gives a sign of life before that was told."""
        name = self._context.name(running.life.node)
        devices = outcome.evidence.devices if outcome.evidence is not None else ()
        verdict = f"{outcome.verdict}, but {name} {sign}: claim refused"
        self._end(running, Outcome(False, verdict, outcome.words, None, tuple(devices)))

    def _start(self, running: _Running, runs: list[Run]) -> None:
        if any(one.action == "off" for one in runs) and not self._context.calm:
            # What was asked for before the gap is old; others may have gone on without this host.
            verdict = f"{self._context.name(self._context.me)} had a gap in its clock: it switches nothing"
            self._end(running, Outcome(False, verdict, running.run.words))
            return
        for one in runs:
            purpose = f"the fencing of {self._context.name(running.life.node)}"
            call = Call(one.use, one.action, running.life.node, purpose, one.timeout_ms)
            told = functools.partial(self._exited, running, one)
            admitted = functools.partial(self._admitted, running, one, self._now_ms)
            running.calls[one.run] = self._calls.start(call, told, admitted)
        until_ms = running.run.until_ms
        if until_ms and running.tick_ms != until_ms:
            running.tick_ms = until_ms
            self._context.out(TickAt(until_ms * 1_000_000))
            if not running.calls:
                running.split.wait(self._now_ms, until_ms)
        self._conclude(running)

    @property
    def _now_ms(self) -> float:
        return self._context.now_ns / 1e6

    def _admitted(self, running: _Running, run: Run, asked_ms: float) -> None:
        running.admitted_ms[run.run] = asked_ms, self._now_ms

    def _exited(self, running: _Running, run: Run, exit: AgentExited) -> None:
        del running.calls[run.run]
        asked_ms, began_ms = running.admitted_ms.get(run.run, (self._now_ms, self._now_ms))
        running.split.wait(asked_ms, began_ms)
        running.split.agent(began_ms, exit.took_ms)
        level, now_ms = running.run, self._context.now_ms
        more = level.exited(run.run, exit.power, exit.words, exit.took_ms, exit.answered, now_ms)
        if level.finished is None and self._context.protocol >= FENCING:
            self._context.submit(AgentSaid(running.life, running.number, level.words[-1]))
        self._start(running, more)

    def _time_passes(self) -> None:
        for running in list(self._running.values()):
            if not running.asked_ns:
                self._start(running, running.run.time_passes(self._context.now_ms))

    def heard(self, life: Life) -> None:
        """The victim itself was heard: whatever an agent says of it now is contradicted."""
        running = self._running.get(life)
        if running is None:
            return
        if running.passed is not None:
            self._refuse(running, running.passed, "still speaks")
            return
        running.run.heard_victim()
        self._conclude(running)

    def _conclude(self, running: _Running) -> None:
        outcome = running.run.finished
        if outcome is None or running.life not in self._running or running.passed is not None:
            return
        is_cut = outcome.evidence is not None and outcome.evidence.kind in CUTS
        # (After a cut of its storage alone a host may try to write all it likes.)
        if is_cut and self._slots.moves(running.life.node):
            running.passed, running.passed_ns = outcome, self._context.now_ns
        else:
            self._end(running, outcome)

    def _end(self, running: _Running, outcome: Outcome) -> None:
        del self._running[running.life]
        self._cancel_calls(running)
        context = self._context
        victim = self._victim(running.life)
        wait_ms = self._wait_ms(victim) if victim is not None and not outcome.passed else 0
        if outcome.evidence is not None:
            context.submit(
                EvidenceSeen(msgspec.structs.replace(outcome.evidence, at_wall_ms=context.wall_ms))
            )
        context.submit(
            AttemptEnded(
                running.life,
                running.number,
                outcome.passed,
                outcome.verdict,
                outcome.words,
                wait_ms,
                outcome.contradicted,
                *running.split.ended(self._now_ms),
            )
        )

    def _wait_ms(self, victim: Victim) -> int:
        """How long whoever is next waits if the running attempt fails: only a round's end takes long."""
        context = self._context
        assert context.state is not None
        levels = len(context.config.levels_of(victim.life.node))
        ends = context.state.domain.ends_round(victim, context.state.ready, levels)
        return backoff_ms(victim.round, context.config.timing) if ends else 0

    def _victim(self, life: Life) -> Victim | None:
        state = self._context.state
        return next((one for one in state.domain.victims if one.life == life), None) if state else None

    def cancel(self, life: Life) -> None:
        """Evidence came from elsewhere, or the victim is gone: stop what still runs."""
        running = self._running.get(life)
        if running is not None and (running.run.finished is None or running.passed is not None):
            del self._running[life]
            self._cancel_calls(running)

    def cancel_all(self) -> None:
        """This node may not act any more."""
        for life in list(self._running):
            self.cancel(life)
        self._asked = {}

    def _cancel_calls(self, running: _Running) -> None:
        for call in running.calls.values():
            self._calls.cancel(call)
        running.calls = {}

    def view_changed(self) -> None:
        """What was asked for in the old epoch is asked for again."""
        self._asked = {}
