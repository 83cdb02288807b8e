"""Without a rule about nodes that come back: to the volumes that they left open, or to a cluster that
begins afresh."""

from collections.abc import Iterator
from typing import Any

import msgspec

from ringfence.engine import adoption, losses, views
from ringfence.engine import node as engine_node
from ringfence.engine.deadlines import Deadlines
from ringfence.engine.facts import Fact
from ringfence.engine.inputs import PathsDropped
from ringfence.engine.orders import OpenPath
from ringfence.engine.state import ClusterState
from ringfence.membership.barrier import Barrier
from ringfence.sim.mutants.table import Change, mutant
from ringfence.sim.paths import BlockService
from ringfence.sim.turns import Done, Giver, Turns


@mutant("adopt-unshown", "a life that comes back adopts all that the earlier one had, not what it shows")
def _() -> list[Change]:
    return [(adoption, "clean_up", lambda state, node, lockspaces, kept: None)]


@mutant("adopt-nothing", "a life that comes back loses the locks under its open volumes")
def _() -> list[Change]:
    def clean_up(state: ClusterState, node: int, lockspaces: Any, kept: Any) -> None:
        losses.clean_up(state, node, lockspaces, ())

    return [
        (adoption, "clean_up", clean_up),
        (adoption, "_used", lambda state, life, shown: []),  # what is shown has no lock any more
        (engine_node._Node, "_adopted", _forget_volumes),
    ]


@mutant("open-is-closed", "a daemon says that all is closed, whatever it has found open", story="restarts")
def _() -> list[Change]:
    real = views.Views._say_ready

    def say_ready(self: Any) -> None:
        self._context.left_open = ()
        real(self)

    return [(views.Views, "_say_ready", say_ready)]


@mutant("refused-keeps-volumes", "whoever may not adopt neither closes nor revokes what it has found open")
def _() -> list[Change]:
    real = Deadlines.lose

    def drop_paths(self: Any) -> None:
        self._generation += 1
        self.paths_dropped(PathsDropped(self._generation))

    def lose(self: Any) -> None:
        self._inherited = ()
        real(self)

    return [(views.Views, "drop_paths", drop_paths), (Deadlines, "lose", lose)]


@mutant("adopted-lapse", "the authority of adopted volumes is never renewed")
def _() -> list[Change]:
    return [(Deadlines, "inherit", lambda self, pages: None)]


@mutant("left-for-ever", "who once left cleanly is out for good, whatever came since", story="left-and-back")
def _() -> list[Change]:
    def out(self: Any) -> Any:
        return tuple(sorted({life for _, ready in self._words.values() for life in ready.out}))

    return [(Barrier, "_out", out)]


@mutant("succeeded-orders", "paths are opened and changed for a daemon that was succeeded", "late-orders")
def _() -> list[Change]:
    def check_still(self: Turns, giver: Giver) -> None:
        check(self, msgspec.structs.replace(giver, daemon=self.floor))

    check = Turns.check_still
    return [(Turns, "check_still", check_still)]


@mutant(
    "dropped-orders",
    "paths are opened for a life whose paths were all dropped, under the page of the life after it (either "
    "rule would be enough)",
    story="late-orders",
)
def _() -> list[Change]:
    def check_still(self: Turns, giver: Giver) -> None:
        check(self, msgspec.structs.replace(giver, drops=self.drops))

    def opens(self: Any, order: OpenPath, incarnation: int, done: Done) -> None:
        daemon = self._host.daemon
        really_opens(self, order, incarnation if daemon is None else daemon.incarnation, done)

    check, really_opens = Turns.check_still, BlockService._open
    return [(Turns, "check_still", check_still), (BlockService, "_open", opens)]


def _forget_volumes(self: Any, state: ClusterState) -> Iterator[list[Fact]]:
    self.context.left_open = ()
    return iter(())
