"""Without a rule about evidence, or about the purge bound."""

from typing import Any

import msgspec

from ringfence.core.cluster import Timing
from ringfence.core.evidence import EvidenceKind
from ringfence.core.ids import Life
from ringfence.engine import arrivals, losses, views
from ringfence.engine.fencer import Fencer
from ringfence.fencing import domain, policy
from ringfence.fencing.domain import Domain
from ringfence.fencing.level_run import LevelRun
from ringfence.membership.hearing import Hearing
from ringfence.sim.mutants.table import Change, mutant


@mutant("no-evidence", "a victim is purged without evidence")
def _() -> list[Change]:
    return [(Domain, "proven", lambda self, victim: True)]


@mutant("no-bound", "a victim is purged before its write authority has run out")
def _() -> list[Change]:
    def purgeable(self: Domain, ready: tuple[int, ...]) -> list[Life]:
        return [victim.life for victim in self.victims if self.proven(victim)]

    return [(Domain, "purgeable", purgeable)]


@mutant("bound-at-once", "every survivor says at once that the bound has passed")
def _() -> list[Change]:
    return [(Hearing, "bound_passed", lambda self, life, now_ns, timing: True)]


@mutant("bound-without-ears", "the bound counts from this node's start, whatever it heard since")
def _() -> list[Change]:
    def bound_passed(self: Hearing, life: Life, now_ns: int, timing: Timing) -> bool:
        assert self._started_ns is not None
        return now_ns >= self._started_ns + timing.bound_ms * 1_000_000

    return [(Hearing, "bound_passed", bound_passed)]


@mutant("bound-of-one", "the bound of any one survivor is enough", story="was-away")
def _() -> list[Change]:
    def purgeable(self: Domain, ready: tuple[int, ...]) -> list[Life]:
        return [one.life for one in self.victims if self.proven(one) and (one.bound or not ready)]

    return [(Domain, "purgeable", purgeable)]


@mutant("any-evidence", "evidence about one life of a node counts for all of them", story="quick-lie")
def _() -> list[Change]:
    real = Domain.witness

    def witness(self: Domain, evidence: Any, **how: Any) -> bool:
        for victim in self.of_node(evidence.life.node):
            real(self, msgspec.structs.replace(evidence, life=victim.life), **how)
        return True

    return [(Domain, "witness", witness)]


@mutant("claims-count", "an agent's word counts without a second look", story="contradicted")
def _() -> list[Change]:
    def look_ended(self: LevelRun, plug: Any, power: Any, now_ms: int) -> None:
        plug.done = True

    return [(LevelRun, "_look_ended", look_ended)]


@mutant("liars-believed", "what a quarantined device says still counts")
def _() -> list[Change]:
    real = LevelRun._pass

    def passes(self: LevelRun) -> None:
        self._liars = ()
        real(self)

    return [(Domain, "counts", lambda self, victim, evidence: True), (LevelRun, "_pass", passes)]


@mutant("lies-unheard", "a fenced life that speaks is not taken for a lie")
def _() -> list[Change]:
    return [
        (views, "is_fenced", lambda state, life: False),
        (arrivals, "fenced_by", lambda state, life: None),
    ]


@mutant("old-words", "a person's word counts for a loss that came after it", story="slow-word")
def _() -> list[Change]:
    return [(Fencer, "seen_ns", lambda self, victim: 0)]


@mutant("bound-early", "the bound is said to have passed in half of the time")
def _() -> list[Change]:
    def bound_passed(self: Hearing, life: Life, now_ns: int, timing: Timing) -> bool:
        return now_ns >= self.last_heard_ns(life) + timing.bound_ms * 500_000

    return [(Hearing, "bound_passed", bound_passed)]


@mutant(
    "closed-after-lies",
    "that its volumes are closed clears a life about which a fence has lied",
    story="quick-lie",
)
def _() -> list[Change]:
    def accepts(kind: EvidenceKind, *, lied: bool, **how: Any) -> bool:
        return policy.accepts(kind, lied=False, **how)

    return [(domain, "accepts", accepts)]


@mutant("any-machine", "another machine's boot counts as a host's restart", story="newcomer-elsewhere")
def _() -> list[Change]:
    def by_return(state: Any, victim: Any, life: Life) -> Any:
        return real_return(state, victim, msgspec.structs.replace(life, machine=victim.life.machine))

    def meet(state: Any, life: Life, *more: Any) -> Any:
        if life.node not in state.lives:
            state.enrolled.pop(life.node, None)
        return real_meet(state, life, *more)

    real_return, real_meet = losses.explain_by_return, arrivals._meet
    return [(arrivals, "explain_by_return", by_return), (arrivals, "_meet", meet)]


@mutant("fresh-ears", "for who starts anew all bounds have passed", story="quick-return")
def _() -> list[Change]:
    def bound_passed(self: Hearing, life: Life, now_ns: int, timing: Timing) -> bool:
        return self.last_heard_ns(life) == self._started_ns or real(self, life, now_ns, timing)

    real = Hearing.bound_passed
    return [(Hearing, "bound_passed", bound_passed)]


@mutant("bound-without-margin", "the purge bound allows nothing for unequal clocks", story="clocks")
def _() -> list[Change]:
    def bound_passed(self: Hearing, life: Life, now_ns: int, timing: Timing) -> bool:
        return now_ns >= self.last_heard_ns(life) + timing.write_ms * 1_000_000

    return [(Hearing, "bound_passed", bound_passed)]


@mutant("deaf-suspects", "who has not heard itself may call others silent", story="hub-stood-still")
def _() -> list[Change]:
    return [(Hearing, "attentive", lambda self, now_ns, detection_ms: True)]


@mutant("agents-need-authority", "nobody fences without authority of its own", story="alone-for-long")
def _() -> list[Change]:
    def ask(self: Any, victim: Any) -> None:
        if self._context.may_report:
            real(self, victim)

    real = Fencer._ask
    return [(Fencer, "_ask", ask)]
