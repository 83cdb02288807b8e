"""Without a rule about disk slots."""

from typing import Any

from ringfence.core.errors import Damaged
from ringfence.engine import node as engine_node
from ringfence.engine import slots
from ringfence.engine.slot_watch import Watches
from ringfence.engine.slots import Slots
from ringfence.engine.state import ClusterState
from ringfence.sim.mutants.table import Change, mutant
from ringfence.wire.slots import parse_mark


@mutant("no-mark", "locks move from a victim that is not marked on the disk", story="slots-lie")
def _() -> list[Change]:
    return [(ClusterState, "unmarked", lambda self, victim: [])]


@mutant("mark-without-wait", "locks move as soon as the mark is written", story="slots-hang")
def _() -> list[Change]:
    return [(Slots, "_free_ns", lambda self, vg, victim, own: self._context.now_ns)]


@mutant(
    "damaged-is-unmarked",
    "a mark that cannot be read is taken for none; and nobody sees a slot move, which would be enough",
    story="slots-wake-alone",
)
def _() -> list[Change]:
    real = parse_mark

    def parse(data: bytes, node: int, where: str) -> Any:
        try:
            return real(data, node, where)
        except Damaged:
            return None

    return [(slots, "parse_mark", parse), (Watches, "saw", lambda self, *words: None)]


@mutant(
    "marked-shoots",
    "who wakes alone shoots whatever its mark says, and does not end for it (either would be enough)",
    story="slots-wake-alone",
)
def _() -> list[Change]:
    return [
        (Slots, "hurry", lambda self: False),
        (engine_node._Node, "_found_mark", lambda self, vg, mark: None),
    ]


@mutant(
    "evidence-instead-of-slot",
    "evidence gives the lone half of two its authority without a look at its own mark",
    story="slots-two-lies",
)
def _() -> list[Change]:
    return [(Slots, "_by_disk", lambda self, state, vg: False)]
