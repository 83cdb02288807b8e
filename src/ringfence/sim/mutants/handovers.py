"""Without a rule about LVs that go from one host to another.

That an end lets write under EX alone stands twice: in the order of its steps, and in `engine.path_locks`,
which looks at each of them."""

from ringfence.core.modes import Mode
from ringfence.engine import handovers, path_locks
from ringfence.engine.commands import handover
from ringfence.engine.commands.activation import find_open
from ringfence.engine.commands.locking import space_of
from ringfence.engine.orders import AskHandover, Command, Convert, FindLock, Held
from ringfence.sim.mutants.table import Change, mutant
from ringfence.wire.block import Hold
from ringfence.wire.entries import HandoverStep

_UNCHECKED: Change = (path_locks.PathLocks, "_may_open", lambda self, key, order, needs: True)


@mutant("taker-early", "a taker's end lets write before its lock is EX", story="handed-over")
def _() -> list[Change]:
    def take(vg: str, uuid: str) -> Command:
        volume = yield from find_open(vg, uuid)
        mine: Held | None = yield FindLock(space_of(vg), uuid)
        if volume is not None and mine is not None:
            yield handover._reload(volume, Hold.NONE, mine)
            yield Convert(mine.lock, Mode.EX)

    return [(handovers, "take", take), _UNCHECKED]


@mutant("giver-early", "a giver's end lets write before its lock is EX again", story="handed-over")
def _() -> list[Change]:
    def take_back(vg: str, uuid: str, taker: int) -> Command:
        volume = yield from find_open(vg, uuid)
        mine: Held | None = yield FindLock(space_of(vg), uuid)
        if volume is not None and mine is not None:
            yield handover._reload(volume, Hold.NONE, mine)
            yield AskHandover(vg, volume.lv, uuid, taker, HandoverStep.DROP)
            yield Convert(mine.lock, Mode.EX, handover.BACK_MS)

    return [(handovers, "take_back", take_back), (handover, "take_back", take_back), _UNCHECKED]
