"""What the engine needs of a ring, and nothing more.

Every ring engine fulfils `Ring`: payloads are delivered in one order to all members of a view, the
sender too; `ViewChanged` stands in the same order; epochs strictly increase for ever, also across a
restart of everything.  What a ring does not promise: that a payload is delivered at all (a view
change, a lost ring or a full queue may drop it; the engine stamps its frames with the epoch and
submits again what it has not seen applied), nor that what a node delivers to itself was delivered
to anybody else (own delivery is no commit)."""

from collections.abc import Callable
from typing import Protocol

from ringfence.engine.inputs import Delivered, QuorumSaid, RingLost, RingRemarked, ViewChanged

RingInput = ViewChanged | Delivered | RingLost | QuorumSaid | RingRemarked
OnInput = Callable[[RingInput], None]


class Ring(Protocol):
    on_input: OnInput
    """Called in the event loop, in the ring's order.  Must return soon: time it takes is time in
    which the ring looks silent to the others.

    Never called from within `multicast`, nor from within itself: the driver steps the engine in it at once,
    and multicasts in the middle of a step's effects."""

    async def start(self) -> None:
        """Begin to connect, and go on for ever.  Returns at once; the first `ViewChanged` says that
        this node is in, `RingLost` that it is not (or no longer)."""

    def multicast(self, payload: bytes) -> None:
        """Send to all members, this one too.  Returns at once; its own delivery comes later.

        While the ring is absent the payload is dropped, silently: the engine submits again after
        the next view.  Raises BadInput if it is larger than the ring can carry in one piece."""

    async def leave(self) -> None:
        """Leave cleanly (the others see "leave") and stop.  Bounded; never raises for a ring that is gone."""

    async def stop(self) -> None:
        """Drop the connection (the others see "procdown" or "nodedown") and stop."""
