"""What all hosts look like, for `ringfence doctor`: a question and its answers through the total order.

The question is an entry; every ready node, once it has applied it, has its driver look at its host and
answers with an entry of its own.  Neither changes the state.  Who has not answered in time is named: a
host may be slow, its disks may hang.  One question is out at a time a node; who asks meanwhile
gets the same answers."""

from collections.abc import Callable

import msgspec

from ringfence.core.errors import RingfenceError, TimedOut
from ringfence.engine.context import Context
from ringfence.engine.facts import HostHeard, HostsAsked
from ringfence.engine.orders import Command, LookAtHost
from ringfence.engine.tasks import Tasks
from ringfence.wire import CHECKUPS
from ringfence.wire.checkup import Checkup, HostAnswer, HostFacts
from ringfence.wire.entries import AskHosts, HostSays

ANSWER_MS = 12_000
"""How long hosts are waited for: longer than `daemon.checkup` lets any look at a host take."""

Told = Callable[[Checkup | RingfenceError], None]


class _Question(msgspec.Struct):
    number: int
    asked_ns: int
    told: list[Told]
    awaited: list[int] | None = None
    """Nodes that have yet to answer; None: the question itself is not applied yet."""
    heard: list[HostAnswer] = []


class Checkups:
    def __init__(self, context: Context, tasks: Tasks) -> None:
        self._context = context
        self._tasks = tasks
        self._last = 0
        self._question: _Question | None = None

    def ask(self, told: Told) -> None:
        """`told` is called once, with what all hosts said; by a node that is not ready, its own alone.

        Raises Refused while the cluster's protocol does not have it."""
        if self._context.running is None:
            self._look_here(told)
            return
        self._context.must_speak(CHECKUPS, "compares hosts")
        if self._question is not None:
            self._question.told.append(told)
            return
        self._last += 1
        self._question = _Question(self._last, self._context.now_ns, [told])
        self._context.submit(AskHosts(self._last))

    def _look_here(self, told: Told) -> None:
        """This node cannot ask the others now; what its own host looks like is the more worth knowing."""
        context = self._context
        asked_ns = context.now_ns

        def looked(found: HostFacts, error: RingfenceError | None) -> None:
            own = HostAnswer(context.me, context.name(context.me), found, context.now_ns)
            told(error if error is not None else Checkup(asked_ns, (own,), alone=True))

        self._tasks.start("checkup", _look(), looked)

    def lost(self, error: RingfenceError) -> None:
        """This life is stale."""
        question, self._question = self._question, None
        for told in question.told if question is not None else []:
            told(error)

    # -- the ordered state -------------------------------------------------------------

    def asked(self, fact: HostsAsked) -> None:
        """Somebody asks: look at this host, and tell."""
        context, question, state = self._context, self._question, self._context.running
        assert state is not None
        if question is not None and fact.by == context.life and fact.number == question.number:
            question.awaited = list(state.ready)

        def looked(found: HostFacts, error: RingfenceError | None) -> None:
            facts = found if error is None else HostFacts(unseen=(f"this host: {error}",))
            if context.running is not None and fact.by in context.running.lives.values():
                context.submit(HostSays(fact.by, fact.number, facts))

        self._tasks.start("checkup", _look(), looked)

    def heard(self, fact: HostHeard) -> None:
        question = self._question
        if question is None or question.awaited is None or fact.by != self._context.life:
            return
        if fact.number == question.number and fact.node in question.awaited:
            question.awaited.remove(fact.node)
            name = self._context.name(fact.node)
            question.heard.append(HostAnswer(fact.node, name, fact.facts, self._context.now_ns))

    # -- time ----------------------------------------------------------------------------

    def look(self) -> None:
        """Tell once everybody has answered, or was waited for long enough."""
        question, state = self._question, self._context.running
        if question is None:
            return
        awaited = [node for node in question.awaited or [] if state is None or node in state.lives]
        late = self._context.now_ns >= question.asked_ns + ANSWER_MS * 1_000_000
        if late or (question.awaited is not None and not awaited):
            self._question = None
            found = self._checkup(question, awaited) if question.awaited is not None else _not_back()
            for told in question.told:
                told(found)

    def _checkup(self, question: _Question, awaited: list[int]) -> Checkup:
        heard = [one.node for one in question.heard]
        rest = [node.id for node in self._context.config.nodes if node.id not in heard]
        return Checkup(
            question.asked_ns,
            tuple(sorted(question.heard, key=lambda one: one.node)),
            tuple(self._context.name(node) for node in rest if node in awaited),
            tuple(self._context.name(node) for node in rest if node not in awaited),
        )


def _not_back() -> RingfenceError:
    return TimedOut("checkup: the ring has not brought the question back", next="ringfence why", retry=True)


def _look() -> Command:
    return (yield LookAtHost())
