"""Without a rule about lockspaces, grants, value blocks and blocking notices."""

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec

from ringfence.core.ids import Life, Token
from ringfence.core.modes import Mode
from ringfence.engine import apply as engine_apply
from ringfence.engine import losses, spaces, views
from ringfence.engine.denials import Denials
from ringfence.engine.facts import Fact, JoinDone, LockFact
from ringfence.engine.grants import Grants
from ringfence.engine.state import ClusterState
from ringfence.fencing.domain import Domain, Victim
from ringfence.locks.flags import Flag
from ringfence.locks.lockspace import Lockspace
from ringfence.locks.node_lock import NodeLock
from ringfence.locks.resource import Blocking, Resource
from ringfence.sim.mutants.table import Change, mutant
from ringfence.wire.entries import LeaveLockspace
from ringfence.wire.ring import Submitted


@mutant("no-freeze", "a victim freezes nothing")
def _() -> list[Change]:
    return [(ClusterState, "blocking", lambda self, lockspace: [])]


@mutant("grants-untold", "grants are never told")
def _() -> list[Change]:
    return [(Grants, "tell", lambda self: [])]


@mutant("tokens-repeat", "two grants may bear one token")
def _() -> list[Change]:
    def next_token(state: ClusterState) -> Token:
        return Token(state.epoch.seq, state.epoch.rep, state.position // 8)

    return [(spaces, "_next_token", next_token)]


@mutant("join-at-once", "a node is in a lockspace before the others have acknowledged it")
def _() -> list[Change]:
    def enter(state: ClusterState, name: str, life: Life) -> list[Fact]:
        space = state.lockspaces.setdefault(name, Lockspace(name=name))
        space.members = sorted({*space.members, life.node})
        return [JoinDone(name, life.node)]

    return [(spaces, "_enter_space", enter)]


@mutant("no-notices", "blocking notices are forgotten")
def _() -> list[Change]:
    real = Grants.take

    def take(self: Grants, fact: LockFact) -> list[Any]:
        return [] if isinstance(fact.effect, Blocking) else real(self, fact)

    return [(Grants, "take", take)]


@mutant("purge-for-all", "a victim's end purges the locks of whoever else is not ready")
def _() -> list[Change]:
    def settle(state: ClusterState) -> Iterator[list[Fact]]:
        gone = [victim.life.node for victim in state.victims()]
        if gone and state.domain.purgeable(state.ready):
            for name in sorted(state.lockspaces):
                for node in gone:
                    deque(state.lockspaces[name].purge(node), maxlen=0)
        return losses.settle(state)

    return [(views, "settle", settle)]


@mutant("one-life-a-node", "a victim's earlier and later lives are one and the same", story="quick-boots")
def _() -> list[Change]:
    def victim(self: Domain, life: Life) -> Victim | None:
        return next((one for one in self.victims if one.life.node == life.node), None)

    return [(Domain, "victim", victim)]


@mutant("values-unwritten", "an unlock does not write the value block")
def _() -> list[Change]:
    return [(Resource, "_write_lvb", lambda self, held, wanted, flags, lvb: None)]


@mutant("values-of-readers", "whoever unlocks writes the value block, a reader too")
def _() -> list[Change]:
    def write(self: Resource, held: Mode, wanted: Mode, flags: int, lvb: bytes | None) -> None:
        if type(self) is Resource and wanted is Mode.UN and held in (Mode.PR, Mode.CR):
            self.lvb, self.lvb_seq = bytes(len(self.lvb)), self.lvb_seq + 1
        real(self, held, wanted, flags, lvb)

    real = Resource._write_lvb
    return [(Resource, "_write_lvb", write)]


@mutant("values-stay-valid", "a lost writer leaves the value block valid")
def _() -> list[Change]:
    def purge(self: Resource, owners: Collection[int]) -> None:
        valid = self.lvb_valid
        real(self, owners)
        self.lvb_valid = valid

    real = Resource.purge
    return [(Resource, "purge", purge)]


@mutant("lockstop-forgets", "who leaves a lockspace forgets which victims were in it", story="stopped")
def _() -> list[Change]:
    def apply(state: ClusterState, life: Life, item: Submitted) -> list[Fact]:
        if isinstance(item.entry, LeaveLockspace):
            name = item.entry.lockspace
            for victim in [one for one in state.domain.victims if name in one.lockspaces]:
                victim.lockspaces.remove(name)
                state.lockspaces[name].members.remove(victim.life.node)
        return real(state, life, item)

    real = engine_apply.apply
    return [(views, "apply", apply)]


@mutant("cache-answers-try", "a try fails for the sake of a lock that a node keeps and nobody uses")
def _() -> list[Change]:
    def ask(self: NodeLock, lock: Any, mode: Mode) -> Any:
        asked = real(self, lock, mode)
        assert self.local.outstanding is not None
        self.local.outstanding.flags &= ~Flag.TRY
        return msgspec.structs.replace(asked, flags=asked.flags & ~Flag.TRY)

    real = NodeLock._raise
    return [(NodeLock, "_raise", ask)]


@mutant("rows-take", "what is asked for in a row is given though another has it", story="volumes")
def _() -> list[Change]:
    def request(self: Lockspace, names: Sequence[str], owner: int, *how: Any) -> list[Token]:
        for name in names:
            if self.resources.open(name) is not None:
                self.resources.drop(name)
        return real(self, names, owner, *how)

    real = Lockspace.request_new
    return [(Lockspace, "request_new", request)]


@mutant("rows-thaw", "a frozen lockspace gives what is asked for in a row", story="volumes")
def _() -> list[Change]:
    """The rule stands twice: whole VGs are tried for, and a node tries for nothing in a frozen lockspace."""
    runs = (spaces, "_runs", lambda state, space, node: state.member(space.name, node))
    return [runs, (Denials, "frozen", lambda self, lockspace: "")]
