"""Tests of the ways to fence: asked for by a person or by the calendar, made by every member in turn.

The order to test is an entry; each ready member tests when all before it have told theirs, so that a device
with one session is asked by one at a time; its results are an entry, too, and the ordered state keeps them.
A test never delays a fence: what runs on a device that fencing needs is cancelled at once, and nothing is
started on it.  The calendar's tests wait while anybody must be fenced.

Each member keeps its own results on its disk, and tells them to a state that begins afresh."""

from collections.abc import Callable

import msgspec

from ringfence.core.errors import NotFound, RingfenceError
from ringfence.core.ids import Life
from ringfence.engine.commands.fence_test import fence_test
from ringfence.engine.context import Context
from ringfence.engine.facts import TestsAsked, TestsHeard
from ringfence.engine.state import ClusterState
from ringfence.engine.tasks import Tasks
from ringfence.fencing import drills, proving
from ringfence.fencing.proving import Subject
from ringfence.wire import FENCING
from ringfence.wire.client import Reply
from ringfence.wire.entries import AskTests, TestsTold
from ringfence.wire.proving import UseTest

MEMBER_MS = 90_000
"""How long one member may test; what it has not reached by then it says."""
LATE_MS = 30_000
"""How much longer than that others wait for its word."""
FIRST_MS = 600_000
"""What was never tried (a new device, a new cluster) is tried so long after it was first seen."""

CALENDAR_MS = 5_000
"""How often the calendar is looked at."""

Answer = Callable[[Reply], None]


class _Asker(msgspec.Struct):
    """A client here that waits for a round."""

    id: str
    answer: Answer
    told: list[tuple[int, tuple[UseTest, ...]]] = []


class _Round(msgspec.Struct):
    by: Life
    number: int
    subjects: list[Subject]
    turns: list[int]
    """Who has yet to tell, in order; the first one tests."""
    since_ns: int
    """When the turn began."""
    silent: list[int] = []
    runs: bool = False


class FenceTests:
    def __init__(self, context: Context, tasks: Tasks) -> None:
        self._context = context
        self._tasks = tasks
        self._last = 0
        self._rounds: list[_Round] = []
        """In the order of their entries; only the first goes on."""
        self._askers: dict[int, _Asker] = {}
        self._until_ns = 0
        """When this node's own turn must end."""
        self._untried_ns = 0
        """Since when something is known to be untried; 0: nothing is."""
        self._scheduled_ns = 0
        """When this node last ordered a round by the calendar."""
        self._calendar_ns = 0
        """When to look at the calendar next."""
        self._warned: list[proving.Alarm] = []

    # -- who asks ------------------------------------------------------------------------

    def ask(self, target: str, id: str, answer: Answer) -> None:
        """Order a round; `answer` gets its replies.

        Raises:
            NotFound: nothing is called like that.
            Refused: this node, or the cluster's protocol, cannot do it now."""
        context = self._context
        context.must_act()
        context.must_speak(FENCING, "tests its fencing")
        nodes = [node.name for node in context.config.nodes]
        if target and target not in nodes and not proving.subjects(context.config, target):
            raise NotFound(f"no node and no device is called {target}", next="ringfence config show")
        self._askers[self._order(target)] = _Asker(id, answer)

    def _order(self, target: str) -> int:
        self._last += 1
        self._context.submit(AskTests(self._last, target))
        return self._last

    def lost(self, error: RingfenceError) -> None:
        """This life is stale."""
        askers, self._askers, self._rounds = self._askers, {}, []
        for asker in askers.values():
            asker.answer(Reply(asker.id, error=error.as_dict()))

    # -- the ordered state -----------------------------------------------------------------

    def entered(self) -> None:
        """This node runs in a new epoch: a state that has forgotten its results is told them again."""
        context, state = self._context, self._context.state
        assert state is not None
        if state.protocol >= FENCING and context.disk.tested and context.me not in state.tested:
            results = proving.remembered(context.disk.tested)
            if not context.outbox.unapplied(TestsTold):
                context.submit(TestsTold(context.life, 0, results))

    def asked(self, fact: TestsAsked) -> None:
        context = self._context
        found = proving.subjects(context.config, fact.target)
        self._rounds.append(_Round(fact.by, fact.number, found, list(fact.turns), context.now_ns))

    def heard(self, fact: TestsHeard) -> None:
        for one in self._rounds:
            if (one.by, one.number) == (fact.by, fact.number) and fact.node in one.turns:
                one.turns.remove(fact.node)
                one.since_ns = self._context.now_ns
        asker = self._askers.get(fact.number) if fact.by == self._context.life else None
        if asker is not None:
            asker.told.append((fact.node, fact.results))
            tests = self._tests(fact.node, fact.results)
            asker.answer(Reply(asker.id, result={"tests": tests}, final=False))

    # -- time --------------------------------------------------------------------------------

    def look(self) -> None:
        state = self._context.running
        if state is None:
            return
        self._give_way(state)
        if self._rounds:
            self._go_on(state, self._rounds[0])
        elif state.disarmed is None and self._context.now_ns >= self._calendar_ns:
            self._calendar_ns = self._context.now_ns + CALENDAR_MS * 1_000_000
            self._look_at_calendar(state)
            self._warn(state)

    def _give_way(self, state: ClusterState) -> None:
        """Fencing goes first."""
        if any(one.runs for one in self._rounds):
            needed = [device for victim in state.victims() for device in self._devices(state, victim.life)]
            self._tasks.cancel_calls(needed)

    def _devices(self, state: ClusterState, life: Life) -> list[str]:
        """What is needed to fence this life; nothing once that is done."""
        victim = state.domain.victim(life)
        if victim is None or state.domain.proven(victim):
            return []
        return [name for level in state.config.levels_of(life.node) for name in level.names]

    def _go_on(self, state: ClusterState, one: _Round) -> None:
        context = self._context
        one.turns = [node for node in one.turns if node in state.lives]
        late_ns = one.since_ns + (MEMBER_MS + LATE_MS) * 1_000_000
        if one.turns and context.now_ns >= late_ns:
            one.silent.append(one.turns.pop(0))
            one.since_ns = context.now_ns
        if not one.turns:
            self._rounds.remove(one)
            self._conclude(state, one)
        elif one.turns[0] == context.me and not one.runs:
            one.runs = True
            self._test(one)

    def _test(self, one: _Round) -> None:
        context = self._context
        self._until_ns = context.now_ns + MEMBER_MS * 1_000_000
        # A host often cannot reach its own management controller, and need never fence itself.
        mine = [subject for subject in one.subjects if subject.node != context.me]

        def up() -> tuple[int, ...]:
            return context.running.ready if context.running is not None else ()

        def finished(results: tuple[UseTest, ...], error: RingfenceError | None) -> None:
            if error is None:
                context.submit(TestsTold(one.by, one.number, results))

        command = fence_test(context.config, mine, self._hold, up, lambda: context.wall_ms)
        self._tasks.start("fence test", command, finished)

    def _hold(self, subject: Subject) -> str:
        """Why this use cannot be tested now."""
        context, state = self._context, self._context.running
        if state is None:
            return f"{context.name(context.me)} cannot act now"
        for victim in state.victims():
            if subject.use.device in self._devices(state, victim.life):
                return f"it is needed to fence {context.name(victim.life.node)}"
        if state.drill is not None and subject.use in drills.uses_of(state.config, state.drill):
            return f"the drill of {context.name(state.drill.life.node)} switches it"
        return "no time was left" if context.now_ns >= self._until_ns else ""

    def _conclude(self, state: ClusterState, one: _Round) -> None:
        asker = self._askers.pop(one.number, None) if one.by == self._context.life else None
        if asker is None:
            return
        config = self._context.config
        answered = [node for node, _ in asker.told]
        asked = {subject.node for subject in one.subjects}
        result = {
            "tests": [test for node, results in asker.told for test in self._tests(node, results)],
            "silent": [config.name_of(node) for node in one.silent],
            "absent": [node.name for node in config.nodes if node.id not in (*answered, *one.silent)],
            "unfenceable": [node.name for node in config.nodes if node.id not in asked and not node.levels],
        }
        asker.answer(Reply(asker.id, result=result))

    def _tests(self, tester: int, results: tuple[UseTest, ...]) -> list[dict[str, object]]:
        name = self._context.name
        return [
            {
                "tester": name(tester),
                "node": name(one.node),
                "use": one.use,
                "outcome": one.outcome.value,
                "what": one.what,
                "took_ms": one.took_ms,
            }
            for one in results
        ]

    # -- the calendar --------------------------------------------------------------------------

    def _look_at_calendar(self, state: ClusterState) -> None:
        """The lowest ready member orders a round when one is due."""
        context = self._context
        every_ms = context.config.timing.fence_test_ms
        calm = not state.victims() and state.ready[0] == context.me and state.protocol >= FENCING
        if not every_ms or not calm or not context.wall_ms or not proving.subjects(context.config):
            return
        if self._due(state, every_ms) and context.now_ns - self._scheduled_ns >= FIRST_MS * 1_000_000:
            self._scheduled_ns = context.now_ns
            self._order("")

    def _due(self, state: ClusterState, every_ms: int) -> bool:
        context = self._context
        last_ms = max(proving.last_tried_ms(state.tested), state.tests_asked_ms)
        if not proving.untried(context.config, state.ready, state.tested):
            self._untried_ns = 0
            # A wall clock that was set back must not put a test off by years.
            return abs(context.wall_ms - last_ms) >= every_ms
        self._untried_ns = self._untried_ns or context.now_ns
        return context.now_ns - self._untried_ns >= FIRST_MS * 1_000_000

    def _warn(self, state: ClusterState) -> None:
        """Record, once, what has not been tested for too long; failures are recorded as they are told."""
        context = self._context
        found = proving.alarms(context.config, state.ready, state.tested, context.wall_ms)
        for alarm in found:
            if alarm.old and alarm.key not in [one.key for one in self._warned]:
                fields = {"node": alarm.node, "device": alarm.use, "tester": alarm.tester}
                context.record("fence-test-old", alarm.what, **fields)
        self._warned = found
