"""Without a rule about views, the barrier, who carries the state and what a disk remembers."""

from typing import Any

import msgspec

from ringfence.core.ids import Life
from ringfence.engine import apply as engine_apply
from ringfence.engine import arrivals, context, losses, views
from ringfence.engine.context import Phase
from ringfence.engine.state import ClusterState
from ringfence.membership import barrier, quorum
from ringfence.membership.barrier import Barrier, Verdict
from ringfence.sim.mutants.table import Change, mutant
from ringfence.wire import SPEAKS, ring


@mutant("no-epoch-on-disk", "a later epoch on a disk does not void an older state", story="later-epoch")
def _() -> list[Change]:
    return [(Barrier, "_outdated", lambda self, top: False)]


@mutant(
    "longest-state",
    "the longest state goes on, though it lacks what other members have heard",
    story="unheard-of",
)
def _() -> list[Change]:
    return [(Barrier, "_begins", lambda self, ready, longer: ready.position <= longer.position)]


@mutant(
    "all-ends-stand",
    "of states that each have heard what the others lack none goes on, if no majority agrees",
    story="ragged-ends",
)
def _() -> list[Change]:
    return [(barrier, "RAGGED_ENDS", SPEAKS.high + 1)]


@mutant("victims-forgotten", "victims that only disks remember are forgotten", story="suspected")
def _() -> list[Change]:
    return [_no_memory(victims=())]


@mutant(
    "fenced-forgotten", "lives given up for fenced that only disks remember are forgotten", story="suspected"
)
def _() -> list[Change]:
    return [_no_memory(fenced=())]


def _no_memory(**forgotten: Any) -> Change:
    real = Barrier.add

    def add(self: Barrier, node: int, life: Life, ready: ring.Ready) -> None:
        real(self, node, life, ready if ready.has_state else msgspec.structs.replace(ready, **forgotten))

    return Barrier, "add", add


@mutant("cold-start", "who is absent when the cluster begins is no victim", story="cold-start")
def _() -> list[Change]:
    real = losses.make_victim

    def make_victim(state: ClusterState, life: Life, reason: str, **more: Any) -> None:
        if not life.unknown:
            real(state, life, reason, **more)

    return [(arrivals, "make_victim", make_victim)]


@mutant("victims-carry", "a victim that returns carries its state on", story="frozen-half")
def _() -> list[Change]:
    return [(Barrier, "_struck", lambda self: ())]


@mutant("half-is-primary", "half of the votes is enough")
def _() -> list[Change]:
    def is_primary(config: Any, members: Any, carries_state: bool) -> bool:
        return bool(quorum.votes_of(config, members) * 2 >= config.votes)

    return [(barrier, "is_primary", is_primary)]


@mutant("alone-without-state", "one of two begins alone, without state")
def _() -> list[Change]:
    real = quorum.is_primary

    def is_primary(config: Any, members: Any, carries_state: bool) -> bool:
        return real(config, members, True)

    return [(barrier, "is_primary", is_primary)]


@mutant("no-second-barrier", "who can neither go on nor begin waits to be admitted", story="each-other")
def _() -> list[Change]:
    real = Barrier.verdict

    def verdict(self: Barrier, config: Any) -> Verdict:
        return msgspec.structs.replace(real(self, config), again=False)

    return [(Barrier, "verdict", verdict)]


@mutant("unknown-again", "a memory of an unknown life is held against the present one", story="old-memory")
def _() -> list[Change]:
    def knows(state: ClusterState, life: Life, arriving: dict[int, Life]) -> bool:
        known = state.domain.victim(life) is not None
        return known or any(record.life == life for record in state.domain.fenced)

    return [(arrivals, "_knows", knows)]


@mutant("left-out-waits", "who was left out of a barrier waits to be let in, as it is", story="left-out")
def _() -> list[Change]:
    real = views.Views.go_stale

    def go_stale(self: Any, why: str) -> None:
        if "began without it" in why:
            self._context.phase = Phase.JOINING
        else:
            real(self, why)

    return [(views.Views, "go_stale", go_stale)]


@mutant("stale-keeps-locks", "a stale node's clients are not told that their locks are lost")
def _() -> list[Change]:
    real = views.Views.go_stale

    def go_stale(self: Any, why: str) -> None:
        self._parts, parts = _Deaf(self._parts), self._parts
        try:
            real(self, why)
        finally:
            self._parts = parts

    return [(views.Views, "go_stale", go_stale)]


class _Deaf:
    """Parts that are not told that this life is lost."""

    def __init__(self, parts: Any) -> None:
        self._parts = parts

    def lost(self, why: str) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts, name)


@mutant("barrier-of-most", "the barrier does not wait for the last member")
def _() -> list[Change]:
    def complete(self: Barrier) -> bool:
        return len(self._words) >= max(1, len(self.members) - 1)

    def verdict(self: Barrier, config: Any) -> Verdict:
        spoke = Barrier(self.epoch, tuple(self._words))
        spoke._words = self._words
        return real(spoke, config)

    real = Barrier.verdict
    return [(Barrier, "complete", property(complete)), (Barrier, "verdict", verdict)]


@mutant("empty-carries", "a member without state is taken for the best carrier")
def _() -> list[Change]:
    real = Barrier.verdict

    def verdict(self: Barrier, config: Any) -> Verdict:
        found = real(self, config)
        if found.carriers and found.empty:
            return msgspec.structs.replace(found, carriers=(), empty=self.members, behind=(), fresh=True)
        return found

    return [(Barrier, "verdict", verdict)]


@mutant("late-words", "what a parted ring delivers to one side alone is taken in", story="parted-again")
def _() -> list[Change]:
    return [(views.Views, "_moves", property(lambda self: True))]


@mutant("lost-from-last-view", "lost is who was in the last view, primary or not", story="majorities")
def _() -> list[Change]:
    def view_changed(self: Any, view: Any) -> None:
        self.last = self.barrier.members if self.barrier is not None else view.members
        real_changed(self, view)

    def enter(self: Any, known: Barrier, verdict: Verdict, state: ClusterState) -> None:
        for node in [node for node in state.lives if node not in (*known.members, *self.last)]:
            del state.lives[node]
        real_enter(self, known, verdict, state)

    real_changed, real_enter = views.Views._view_changed, views.Views._enter
    return [(views.Views, "_view_changed", view_changed), (views.Views, "_enter", enter)]


@mutant("majority-forgets", "who must be fenced is forgotten when others come in", story="others-come")
def _() -> list[Change]:
    real = arrivals.enter_view

    def enter_view(state: ClusterState, epoch: Any, members: tuple[int, ...], *more: Any) -> Any:
        if any(node not in state.lives for node in members):
            for victim in [one for one in state.victims() if one.life.node not in members]:
                state.domain.victims.remove(victim)
                losses.clean_up(state, victim.life.node, victim.lockspaces, ())
        return real(state, epoch, members, *more)

    return [(views, "enter_view", enter_view)]


@mutant(
    "old-frames-heard",
    "frames of earlier views are heard; what is submitted counts before the barrier, and whatever its number",
    story="all-apart",
)
def _() -> list[Change]:
    def before(self: Any, sender: int, life: Life, item: ring.Item) -> None:
        context = self._context
        if isinstance(item, ring.Submitted) and context.state is not None and context.state.fits(life, item):
            self._parts.facts(engine_apply.apply(context.state, life, item))
            if life == context.life:
                context.outbox.applied(item.seq)
        else:
            real(self, sender, life, item)

    def fits(self: ClusterState, life: Life, item: ring.Submitted) -> bool:
        sender = self.senders.get(life.node)
        return sender is not None and sender.life == life

    real = views.Views._before
    return [old_frames(), (views.Views, "_before", before), (ClusterState, "fits", fits)]


def old_frames(*kinds: type) -> Change:
    """Frames of earlier views are heard, or (with `kinds`) these items of them."""
    real = views.Views._delivered

    def delivered(self: Any, sender: int, payload: bytes) -> None:
        context = self._context
        frame = ring.decode(payload, context.speaks)
        if frame.epoch < context.epoch:
            items = tuple(item for item in frame.items if not kinds or isinstance(item, kinds))
            payload = ring.encode(context.epoch, frame.life, items, context.protocol)
        real(self, sender, payload)

    return views.Views, "_delivered", delivered


@mutant(
    "first-come", "two of three that find each other first go on without the third", story="parted-again"
)
def _() -> list[Change]:
    return [(views.Views, "_awaited", lambda self, members: "")]


@mutant("newer-words", "what only a newer protocol has is said while an older one is spoken", "upgraded")
def _() -> list[Change]:
    return [(context, "MANY_LOCKS", 1)]
