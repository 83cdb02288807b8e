"""Mutants: the engine with one load-bearing rule taken out, each to be found by the simulator.

A mutant that no seed finds is a defect of the simulator.  Most rules are those of the safety model,
which knows for each how few steps lead to two writers without it.  `ringfence sim SEED --mutant NAME`
replays one; `make mutants` looks for each and says which seed found it, and how soon."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import click
import msgspec

from ringfence.core.ids import Epoch, Life, Token
from ringfence.engine import adoption, arrivals, losses, spaces, views
from ringfence.engine import node as engine_node
from ringfence.engine.context import Context
from ringfence.engine.deadlines import Deadlines
from ringfence.engine.facts import Fact, JoinDone, LockFact
from ringfence.engine.fencer import Fencer
from ringfence.engine.grants import Grants
from ringfence.engine.inputs import PathsDropped
from ringfence.engine.state import ClusterState
from ringfence.fencing.domain import Domain, Victim
from ringfence.fencing.level_run import LevelRun
from ringfence.locks.lockspace import Lockspace
from ringfence.locks.resource import Blocking
from ringfence.membership import barrier, quorum
from ringfence.membership.authority import Authority
from ringfence.membership.barrier import Barrier, Verdict
from ringfence.membership.hearing import Hearing
from ringfence.sim.plans import Faults
from ringfence.sim.world import Outcome, run
from ringfence.wire import ring
from ringfence.wire.ring import Heartbeat, Submitted

Change = tuple[Any, str, Any]
"""(owner, attribute, what it is instead)."""


class Mutant(NamedTuple):
    what: str
    """The rule that is missing."""
    changes: Callable[[], list[Change]]


MUTANTS: dict[str, Mutant] = {}


def _mutant(name: str, what: str) -> Callable[[Callable[[], list[Change]]], None]:
    def add(changes: Callable[[], list[Change]]) -> None:
        assert name not in MUTANTS
        MUTANTS[name] = Mutant(what, changes)

    return add


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The engine of this process is that mutant.  Raises KeyError for an unknown name."""
    before = []
    try:
        for owner, attribute, instead in MUTANTS[name].changes():
            before.append((owner, attribute, owner.__dict__[attribute]))
            setattr(owner, attribute, instead)
        yield
    finally:
        for owner, attribute, real in reversed(before):
            setattr(owner, attribute, real)


def engine(mutant: str) -> AbstractContextManager[None]:
    """The engine as that mutant; "": as it is."""
    return planted(mutant) if mutant else nullcontext()


class Found(NamedTuple):
    name: str
    faults: Faults
    seed: int
    """0: no seed found it."""
    outcome: str
    what: str
    seconds: float


def hunt(name: str, seeds: range) -> Found:
    """The first of these seeds that finds the mutant, with either plan of faults."""
    begin = time.monotonic()
    with planted(name):
        for seed in seeds:
            for faults in Faults:
                report = run(seed, faults=faults)
                if report.outcome is not Outcome.OK:
                    took_s = time.monotonic() - begin
                    return Found(name, faults, seed, report.outcome.value, report.what, took_s)
    return Found(name, Faults.SWARM, 0, "survived", "", time.monotonic() - begin)


def hunt_all(names: list[str], seeds: range, processes: int) -> Iterator[Found]:
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(hunt, names, [seeds] * len(names))


# -- evidence and the purge bound -----------------------------------------------------


@_mutant("no-evidence", "a victim is purged without evidence")
def _() -> list[Change]:
    return [(Domain, "proven", lambda self, victim: True)]


@_mutant("no-bound", "a victim is purged before its write authority has run out")
def _() -> list[Change]:
    def purgeable(self: Domain, ready: tuple[int, ...]) -> list[Life]:
        return [victim.life for victim in self.victims if self.proven(victim)]

    return [(Domain, "purgeable", purgeable)]


@_mutant("bound-at-once", "every survivor says at once that the bound has passed")
def _() -> list[Change]:
    return [(Hearing, "bound_passed", lambda self, life, now_ns, timing: True)]


@_mutant("bound-without-ears", "the bound counts from this node's start, whatever it heard since")
def _() -> list[Change]:
    return [(Hearing, "last_heard_ns", lambda self, life: self._started_ns)]


@_mutant("bound-of-one", "the bound of any one survivor is enough")
def _() -> list[Change]:
    def purgeable(self: Domain, ready: tuple[int, ...]) -> list[Life]:
        return [one.life for one in self.victims if self.proven(one) and (one.bound or not ready)]

    return [(Domain, "purgeable", purgeable)]


@_mutant("any-evidence", "evidence about one life of a node counts for all of them")
def _() -> list[Change]:
    real = Domain.witness

    def witness(self: Domain, evidence: Any, *, naive: bool = False) -> bool:
        for victim in self.of_node(evidence.life.node):
            real(self, msgspec.structs.replace(evidence, life=victim.life), naive=naive)
        return True

    return [(Domain, "witness", witness)]


@_mutant("claims-count", "an agent's word counts without a second look")
def _() -> list[Change]:
    return [(LevelRun, "_look_ended", lambda self, power: self._next_device())]


@_mutant("liars-believed", "what a quarantined device says still counts")
def _() -> list[Change]:
    real = LevelRun._pass

    def passes(self: LevelRun) -> None:
        self._quarantined = []
        real(self)

    return [(Domain, "counts", lambda self, victim, evidence: True), (LevelRun, "_pass", passes)]


@_mutant("lies-unheard", "a fenced life that speaks is not taken for a lie")
def _() -> list[Change]:
    return [
        (views, "is_fenced", lambda state, life: False),
        (arrivals, "fenced_by", lambda state, life: None),
    ]


@_mutant("old-words", "a person's word counts for a loss that came after it")
def _() -> list[Change]:
    return [(Fencer, "seen_ns", lambda self, victim: 0)]


# -- authority --------------------------------------------------------------------------


@_mutant("authority-for-ever", "authority never expires")
def _() -> list[Change]:
    return [
        (Context, "may_report", property(lambda self: True)),
        (Context, "deadlines_ns", lambda self: (1 << 62, 1 << 62)),
    ]


@_mutant("authority-of-one", "one member's echo renews authority, not a majority's")
def _() -> list[Change]:
    return [(Authority, "base_ns", lambda self, others_out: max(self._echoed.values(), default=0))]


@_mutant("authority-from-receipt", "authority counts from the echo's receipt, not from the sending")
def _() -> list[Change]:
    real = Authority.heard

    def heard(self: Authority, now_ns: int, node: int, heartbeat: Heartbeat) -> None:
        real(self, now_ns, node, heartbeat)
        if node in self._echoed:
            self._echoed[node] = now_ns

    return [(Authority, "heard", heard)]


@_mutant("no-grant-authority", "grants are told without grant authority")
def _() -> list[Change]:
    return [(Context, "may_report", property(lambda self: True))]


@_mutant("alone-without-evidence", "one of two renews its authority alone, without evidence about the other")
def _() -> list[Change]:
    return [(ClusterState, "others_out", lambda self, me: True)]


# -- views and the barrier ----------------------------------------------------------------


@_mutant("old-frames-heard", "what was said in an earlier view counts in this one")
def _() -> list[Change]:
    real = views.Views._delivered

    def delivered(self: Any, sender: int, payload: bytes) -> None:
        frame = ring.decode(payload)
        real(self, sender, ring.encode(self._context.epoch, frame.life, frame.items))

    return [(views.Views, "_delivered", delivered)]


@_mutant("no-epoch-on-disk", "a later epoch on a disk does not void an older state")
def _() -> list[Change]:
    return [(Barrier, "_outdated", lambda self, top: False)]


@_mutant("victims-forgotten", "victims that only disks remember are forgotten")
def _() -> list[Change]:
    real = Barrier.verdict

    def verdict(self: Barrier, config: Any) -> Verdict:
        return msgspec.structs.replace(real(self, config), victims=())

    return [(Barrier, "verdict", verdict)]


@_mutant("cold-start", "who is absent when the cluster begins is no victim")
def _() -> list[Change]:
    real = losses.make_victim

    def make_victim(state: ClusterState, life: Life, reason: str, **more: Any) -> None:
        if not life.unknown:
            real(state, life, reason, **more)

    return [(arrivals, "make_victim", make_victim)]


@_mutant("victims-carry", "a victim that returns carries its state on")
def _() -> list[Change]:
    return [(Barrier, "_struck", lambda self, victims: ())]


@_mutant("half-is-primary", "half of the votes is enough")
def _() -> list[Change]:
    def is_primary(config: Any, members: Any, carries_state: bool) -> bool:
        return bool(quorum.votes_of(config, members) * 2 >= config.votes)

    return [(barrier, "is_primary", is_primary)]


@_mutant("alone-without-state", "one of two begins alone, without state")
def _() -> list[Change]:
    real = quorum.is_primary

    def is_primary(config: Any, members: Any, carries_state: bool) -> bool:
        return real(config, members, True)

    return [(barrier, "is_primary", is_primary)]


@_mutant("no-second-barrier", "who can neither go on nor begin waits to be admitted")
def _() -> list[Change]:
    real = Barrier.verdict

    def verdict(self: Barrier, config: Any) -> Verdict:
        return msgspec.structs.replace(real(self, config), again=False)

    return [(Barrier, "verdict", verdict)]


@_mutant("unknown-again", "a memory of an unknown life is held against the present one")
def _() -> list[Change]:
    def knows(state: ClusterState, life: Life, arriving: dict[int, Life]) -> bool:
        known = state.domain.victim(life) is not None
        return known or any(record.life == life for record in state.domain.fenced)

    return [(arrivals, "_knows", knows)]


@_mutant("stale-keeps-locks", "a stale node's clients are not told that their locks are lost")
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


# -- daemons that come back -----------------------------------------------------------------


@_mutant("adopt-unshown", "a life that comes back adopts all that the earlier one had, not what it shows")
def _() -> list[Change]:
    return [(adoption, "clean_up", lambda state, node, lockspaces, kept: None)]


@_mutant("adopt-nothing", "a life that comes back loses the locks under its open volumes")
def _() -> list[Change]:
    def clean_up(state: ClusterState, node: int, lockspaces: Any, kept: Any) -> None:
        losses.clean_up(state, node, lockspaces, ())

    return [(adoption, "clean_up", clean_up), (engine_node._Node, "_adopted", _forget_volumes)]


@_mutant("open-is-closed", "a daemon says that all is closed, whatever it has found open")
def _() -> list[Change]:
    real = views.Views._say_ready

    def say_ready(self: Any) -> None:
        self._context.left_open = ()
        real(self)

    return [(views.Views, "_say_ready", say_ready)]


@_mutant("refused-keeps-volumes", "whoever may not adopt neither closes nor revokes what it has found open")
def _() -> list[Change]:
    real = Deadlines.lose

    def drop_paths(self: Any) -> None:
        self._generation += 1
        self.paths_dropped(PathsDropped(self._generation))

    def lose(self: Any) -> None:
        self._inherited = ()
        real(self)

    return [(views.Views, "drop_paths", drop_paths), (Deadlines, "lose", lose)]


@_mutant("adopted-lapse", "the authority of adopted volumes is never renewed")
def _() -> list[Change]:
    return [(Deadlines, "inherit", lambda self, pages: None)]


def _forget_volumes(self: Any, state: ClusterState) -> None:
    self.context.left_open = ()


# -- locks ------------------------------------------------------------------------------------


@_mutant("no-freeze", "a victim freezes nothing")
def _() -> list[Change]:
    return [(ClusterState, "blocking", lambda self, lockspace: [])]


@_mutant("grants-untold", "grants are never told")
def _() -> list[Change]:
    return [(Grants, "tell", lambda self: [])]


@_mutant("old-grants-told", "a grant is told in a later view, under the token that it had")
def _() -> list[Change]:
    real = Grants.tell

    def tell(self: Any) -> list[Any]:
        state = self._context.running
        for waiting in self._waiting.values() if state is not None else ():
            if waiting.token.epoch != state.epoch:
                waiting.token = _disguised(waiting.token, state.epoch)
        return real(self)

    return [(Grants, "tell", tell)]


def _disguised(token: Token, epoch: Epoch) -> Any:
    """The old token, which says that it is of this epoch."""

    class Disguised(Token, frozen=True):
        @property
        def epoch(self) -> Epoch:
            return epoch

    return Disguised(token.seq, token.rep, token.position)


@_mutant("tokens-repeat", "two grants may bear one token")
def _() -> list[Change]:
    def next_token(state: ClusterState) -> Token:
        return Token(state.epoch.seq, state.epoch.rep, state.position // 8)

    return [(spaces, "_next_token", next_token)]


@_mutant("gaps-pass", "a gap in a sender's numbers is passed over")
def _() -> list[Change]:
    def fits(self: ClusterState, life: Life, item: Submitted) -> bool:
        sender = self.senders.get(life.node)
        return sender is not None and sender.life == life and item.seq > sender.seq

    return [(ClusterState, "fits", fits)]


@_mutant("repeats-apply", "what is said twice is done twice")
def _() -> list[Change]:
    def fits(self: ClusterState, life: Life, item: Submitted) -> bool:
        sender = self.senders.get(life.node)
        return sender is not None and sender.life == life

    return [(ClusterState, "fits", fits)]


@_mutant("join-at-once", "a node is in a lockspace before the others have acknowledged it")
def _() -> list[Change]:
    def enter(state: ClusterState, name: str, life: Life) -> list[Fact]:
        space = state.lockspaces.setdefault(name, Lockspace(name=name))
        space.members = sorted({*space.members, life.node})
        return [JoinDone(name, life.node)]

    return [(spaces, "_enter_space", enter)]


@_mutant("no-notices", "blocking notices are forgotten")
def _() -> list[Change]:
    real = Grants.take

    def take(self: Grants, fact: LockFact) -> list[Any]:
        return [] if isinstance(fact.effect, Blocking) else real(self, fact)

    return [(Grants, "take", take)]


@_mutant("purge-for-all", "a victim's end purges the locks of whoever else is not ready")
def _() -> list[Change]:
    real = losses.settle

    def settle(state: ClusterState) -> Iterator[list[Fact]]:
        gone = [victim.life.node for victim in state.victims()]
        if gone and state.domain.purgeable(state.ready):
            for _, space in sorted(state.lockspaces.items()):
                for node in gone:
                    for _ in space.purge(node):
                        pass
        return real(state)

    return [(views, "settle", settle)]


@_mutant("one-life-a-node", "a victim's earlier and later lives are one and the same")
def _() -> list[Change]:
    def victim(self: Domain, life: Life) -> Victim | None:
        return next((one for one in self.victims if one.life.node == life.node), None)

    return [(Domain, "victim", victim)]


# -- looking for all of them ----------------------------------------------------------------------


@click.command()
@click.argument("names", nargs=-1)
@click.option("--seeds", type=click.IntRange(1), default=200, show_default=True, help="Of each plan.")
@click.option("--processes", type=click.IntRange(1), default=os.cpu_count() or 1, show_default=True)
def main(names: tuple[str, ...], seeds: int, processes: int) -> None:
    """Look for each mutant (default: all); exit 1 if one survives."""
    unknown = [name for name in names if name not in MUTANTS]
    if unknown:
        raise click.UsageError(f"no mutant is called {unknown[0]}; there are: {', '.join(MUTANTS)}")
    survivors = 0
    click.echo(f"{'mutant':24} {'faults':6} {'seed':>5} {'seconds':>8}  outcome")
    for found in hunt_all(list(names) or list(MUTANTS), range(1, seeds + 1), processes):
        survivors += not found.seed
        how = f"{found.outcome}: {found.what[:100]}" if found.seed else "SURVIVED"
        click.echo(f"{found.name:24} {found.faults.value:6} {found.seed:5} {found.seconds:8.1f}  {how}")
    if survivors:
        sys.exit(1)


if __name__ == "__main__":
    main()
