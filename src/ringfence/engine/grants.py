"""Between the ordered state and this node's clients: when a grant may be told.

A grant is reported only in the epoch that made it, while its lockspace runs and this node has
grant authority.  What a node delivered to itself is no commit: it may be alone in having seen it.
A grant that could not be told in time asks for a token of the present epoch first."""

import msgspec

from ringfence.core.ids import Epoch, Token
from ringfence.engine.context import Context
from ringfence.engine.facts import LockFact, LockFacts, Retokened
from ringfence.engine.state import ClusterState
from ringfence.locks.node_locks import NodeLocks, Out
from ringfence.locks.resource import Blocking, Cancelled, Granted, Queued, Refused, Released
from ringfence.wire.entries import Retoken


class _Waiting(msgspec.Struct):
    effect: Granted
    token: Token
    asked: Epoch = Epoch()
    """The epoch in which a newer token was asked for."""


class Grants:
    def __init__(self, context: Context, locks: NodeLocks) -> None:
        self._context = context
        self._locks = locks
        self.held_back: dict[tuple[str, str], _Waiting] = {}
        """Grants by (lockspace, resource)."""
        self.just_now: list[LockFacts] = []
        """Grants of many locks that came in this step, and wait besides: most may be told at once."""

    def take(self, fact: LockFact) -> list[Out]:
        """An effect of the ordered state for this node."""
        if self.just_now:
            self._unfold()
        effect, where = fact.effect, (fact.lockspace, fact.resource)
        if isinstance(effect, Granted):
            assert fact.token is not None
            self.held_back[where] = _Waiting(effect, fact.token)
            return []
        if isinstance(effect, Queued):
            self._locks.on_queued(*where)
            return []
        if isinstance(effect, Refused):
            return self._locks.on_refused(*where, effect.errno, effect.blockers)
        if isinstance(effect, Released):
            self.held_back.pop(where, None)
            return self._locks.on_released(*where)
        if isinstance(effect, Cancelled):
            return self._locks.on_cancelled(*where, effect.held)
        if isinstance(effect, Blocking):
            return self._locks.on_blocking(*where, effect.wants, effect.tries, effect.once)
        return []

    def take_many(self, fact: LockFacts) -> list[Out]:
        """The same effect of many resources."""
        if isinstance(fact.effect, Granted):
            self.just_now.append(fact)
            return []
        self._unfold()
        if self.held_back:
            for resource in fact.resources:
                self.held_back.pop((fact.lockspace, resource), None)
        return self._locks.on_released_many(fact.lockspace, fact.resources)

    def _unfold(self) -> None:
        """Each of them waits by itself."""
        for fact in self.just_now:
            assert isinstance(fact.effect, Granted)
            for resource, token in zip(fact.resources, fact.tokens, strict=True):
                self.held_back[fact.lockspace, resource] = _Waiting(fact.effect, token)
        self.just_now = []

    def retokened(self, fact: Retokened) -> None:
        self._unfold()
        waiting = self.held_back.get((fact.lockspace, fact.resource))
        if waiting is not None:
            waiting.token = fact.token

    def tell(self) -> list[Out]:
        """Report what may be reported now; `held_back` or `just_now` say that there is something."""
        state = self._context.running
        outs: list[Out] = []
        if self.just_now:
            outs = self._tell_just_now(state) if state is not None else []
            self._unfold()
        if state is None or not self.held_back:
            return outs
        for where, waiting in list(self.held_back.items()):
            if state.domain.victims and state.blocking(where[0]):
                continue
            token, epoch = waiting.token, state.epoch
            if token.seq != epoch.seq or token.rep != epoch.rep:
                if waiting.asked != state.epoch:
                    waiting.asked = state.epoch
                    self._context.submit(Retoken(*where))
                continue
            if not self._context.may_report_in(where[0]):
                continue
            del self.held_back[where]
            effect = waiting.effect
            outs += self._locks.on_granted(
                *where, effect.mode, token, effect.lvb, effect.lvb_valid, effect.demoted,
                hold_until_ms=self._hold_until_ms(),
            )  # fmt: skip
        return outs

    def _tell_just_now(self, state: ClusterState) -> list[Out]:
        outs: list[Out] = []
        untold: list[LockFacts] = []
        for fact in self.just_now:
            effect, where = fact.effect, fact.lockspace
            assert isinstance(effect, Granted)
            in_time = fact.tokens[0].epoch == state.epoch and not state.blocking(where)
            if in_time and self._context.may_report_in(where):
                outs += self._locks.on_granted_many(
                    where, fact.resources, effect.mode, fact.tokens, effect.lvb,
                    hold_until_ms=self._hold_until_ms(),
                )  # fmt: skip
            else:
                untold.append(fact)
        self.just_now = untold
        return outs

    def _hold_until_ms(self) -> int:
        """The end of the minimum hold time that begins now, on this node's clock; 0: there is none."""
        hold_ms = self._context.config.timing.min_hold_ms
        return self._context.now_ns // 1_000_000 + hold_ms if hold_ms else 0

    def waiting(self) -> list[tuple[str, str]]:
        """(lockspace, resource) of grants that are not told yet, for `why`."""
        self._unfold()
        return list(self.held_back)

    def clear(self) -> None:
        self.held_back, self.just_now = {}, []
