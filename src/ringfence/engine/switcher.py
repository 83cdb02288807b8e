"""This node as the one who switches on: hosts that were fenced, and its own way to the storage.

Each try begins with an ordered entry, as an attempt to fence does, and asks the same of this node.  One
plug after the other is told "on"; one that fails does not keep the others from it (of two supplies one is
enough to come up).  Nothing is told "on" while a life of that node is an unproven victim."""

import msgspec

from ringfence.core.cluster import Use
from ringfence.core.evidence import Power
from ringfence.core.ids import Life
from ringfence.engine import powering
from ringfence.engine.agent_calls import AgentCalls, Call
from ringfence.engine.context import Context
from ringfence.engine.facts import PowerOnGranted
from ringfence.engine.inputs import AgentExited
from ringfence.fencing.actor import backoff_ms, may_start
from ringfence.fencing.power_on import PowerOn, actor_for, uses_of
from ringfence.wire.entries import DeviceWord, PowerOnBegan, PowerOnEnded


class _Running(msgspec.Struct):
    life: Life
    number: int
    uses: list[Use]
    """Those that are left."""
    words: list[DeviceWord] = []
    failed: list[str] = []
    call: int = 0


class Switcher:
    def __init__(self, context: Context, calls: AgentCalls) -> None:
        self._context = context
        self._calls = calls
        self._running: dict[Life, _Running] = {}
        self._paused: dict[tuple[Life, int], int] = {}
        """(life, tries so far) -> until when everybody waits."""

    # -- every step ----------------------------------------------------------------

    def look(self) -> None:
        state = self._context.running
        if state is None or not (state.power_ons or self._running):
            return
        wanted = {what.life: what for what in state.power_ons}
        for life, running in list(self._running.items()):
            what = wanted.get(life)
            if what is None or (what.actor, what.number) != (self._context.me, running.number):
                self._cancel(life)
        self._paused = {key: until_ns for key, until_ns in self._paused.items() if key[0] in wanted}
        for what in state.power_ons:
            if what.actor == self._context.me:
                self._compare(what)
            elif not what.actor:
                self._ask(what)

    def _compare(self, what: PowerOn) -> None:
        """What stands open in the ordered state runs here, and may."""
        if not self._all_proven(what.life.node):
            self._cancel(what.life)
        ending = [
            one.life
            for one in self._context.outbox.unapplied(PowerOnEnded)
            if isinstance(one, PowerOnEnded)
        ]
        if what.life not in self._running and what.life not in ending:
            verdict = f"{self._context.name(self._context.me)} could not go on"
            self._context.submit(self._end(what.life, what.number, verdict))

    def _all_proven(self, node: int) -> bool:
        state = self._context.state
        return state is not None and powering.all_proven(state, node)

    def _ask(self, what: PowerOn) -> None:
        context, state = self._context, self._context.running
        assert state is not None
        asked = [one.life for one in context.outbox.unapplied(PowerOnBegan) if isinstance(one, PowerOnBegan)]
        if context.vetoed or what.life in asked or not powering.may_begin(state, what):
            return
        if actor_for(what, state.ready) != context.me or self._pauses(what):
            return
        if may_start(ready=True, primary=True, heartbeat_back=context.heartbeat_back, calm=context.calm):
            context.submit(PowerOnBegan(what.life, what.number + 1))

    def _pauses(self, what: PowerOn) -> bool:
        now_ns, key = self._context.now_ns, (what.life, what.number)
        return now_ns < self._paused.setdefault(key, now_ns + what.next_in_ms * 1_000_000)

    # -- a try of this node ----------------------------------------------------------

    def begin(self, fact: PowerOnGranted) -> None:
        state = self._context.state
        assert state is not None
        what = next((one for one in state.power_ons if one.life == fact.life), None)
        if what is None or self._context.vetoed:
            return  # the next look gives it up
        running = _Running(fact.life, fact.number, list(uses_of(self._context.config, what)))
        self._running[fact.life] = running
        self._next(running)

    def _next(self, running: _Running) -> None:
        if not self._all_proven(running.life.node) or (running.uses and not self._context.calm):
            del self._running[running.life]
            return  # the next look gives it up
        if running.uses:
            use = running.uses.pop(0)
            device = self._context.config.device(use.device)
            name = self._context.name(running.life.node)
            call = Call(use, "on", running.life.node, f"the power of {name}", device.timeout_ms)
            running.call = self._calls.start(call, lambda exit: self._exited(running, use, exit))
            return
        del self._running[running.life]
        if running.failed:
            verdict = "; ".join(running.failed)
        else:
            verdict = f"{', '.join(word.device for word in running.words)} said \"on\""
        passed = not running.failed
        self._context.submit(
            self._end(running.life, running.number, verdict, passed=passed, words=tuple(running.words))
        )

    def _exited(self, running: _Running, use: Use, exit: AgentExited) -> None:
        running.words.append(DeviceWord(use.label, "on", exit.power.value, exit.words, exit.took_ms))
        if exit.power is not Power.ON:
            running.failed.append(f"{use.label}: {exit.words}" if exit.words else f"{use.label} failed")
        self._next(running)

    def _end(
        self,
        life: Life,
        number: int,
        verdict: str,
        *,
        passed: bool = False,
        words: tuple[DeviceWord, ...] = (),
    ) -> PowerOnEnded:
        next_in_ms = 0 if passed else backoff_ms(number - 1, self._context.config.timing)
        return PowerOnEnded(life, number, passed, verdict, words, next_in_ms)

    # -- it ends ---------------------------------------------------------------------

    def _cancel(self, life: Life) -> None:
        running = self._running.pop(life, None)
        if running is not None:
            self._calls.cancel(running.call)

    def cancel_all(self) -> None:
        """This node may not act any more."""
        for life in list(self._running):
            self._cancel(life)
