"""When a maintenance (`fence disarm`) ends by itself: each ready member's own clock, and the last one's word.

A member that was there counts from when it applied the entry; one that came later counts what had passed
by the dates in the order, and goes on with its own clock.  All must say so, so that one clock that is
wrong, or one that jumps, does not arm devices while somebody's hands are in the rack."""

from ringfence.core.ids import Epoch
from ringfence.engine.context import Context
from ringfence.engine.state import Disarm
from ringfence.wire.entries import DisarmExpired

NS_PER_MS = 1_000_000


class Arming:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._until_ns: dict[int, int] = {}
        """Number of the maintenance that was seen last -> its end on this node's clock."""
        self._said: tuple[int, Epoch] | None = None

    def look(self) -> None:
        state = self._context.running
        if state is None or state.disarmed is None:
            return
        disarm = state.disarmed
        if self.left_ms(disarm, state.wall_ms):
            return
        if self._context.me in disarm.expired and not all(one in disarm.expired for one in state.ready):
            return
        said = (disarm.number, self._context.epoch)
        if self._said != said:  # an entry of an earlier epoch may have been lost
            self._said = said
            self._context.submit(DisarmExpired(disarm.number))

    def left_ms(self, disarm: Disarm, wall_ms: int) -> int:
        """How long it goes on by this node's clock.

        Args:
            wall_ms: the ordered state's date."""
        now_ns = self._context.now_ns
        if disarm.number not in self._until_ns:
            passed_ms = min(max(0, wall_ms - disarm.at_wall_ms), disarm.for_ms)
            self._until_ns = {disarm.number: now_ns + (disarm.for_ms - passed_ms) * NS_PER_MS}
        return max(0, -(-(self._until_ns[disarm.number] - now_ns) // NS_PER_MS))
