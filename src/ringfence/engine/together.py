"""Many lock orders of one command, carried out at once: as many in a step as it may handle, each answered by
itself, and the command when all are."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ringfence.engine.orders import Acquire, LocksTogether, Release

Done = Callable[[Any], None]
Ask = Callable[[Sequence[Acquire | Release], Sequence[Done]], list[int]]
"""Carries orders out; the answer or error of each goes to its Done, perhaps within the call.  Returns the
locks."""


class Together:
    """Args:
    at_once: how many are asked in a step.
    finished: called with all answers once the last one is there, unless `go_on` tells it."""

    def __init__(
        self, order: LocksTogether, at_once: int, ask: Ask, finished: Callable[[tuple[Any, ...]], None]
    ) -> None:
        self._orders = order.orders
        self._at_once = at_once
        self._ask = ask
        self._finished = finished
        self._answers: list[Any] = [None] * len(order.orders)
        self._asked = 0
        self._left = len(order.orders)
        self._asking = False
        self.locks: list[int] = []
        """Those that were asked for, answered or not."""

    @property
    def more(self) -> bool:
        """Whether some are still to be asked."""
        return self._asked < len(self._orders)

    def go_on(self) -> tuple[Any, ...] | None:
        """Ask the next ones.  Returns all answers, if they are there by now."""
        self._asking = True
        first, self._asked = self._asked, min(self._asked + self._at_once, len(self._orders))
        dones = [functools.partial(self._answered, number) for number in range(first, self._asked)]
        self.locks += self._ask(self._orders[first : self._asked], dones)
        self._asking = False
        return None if self._left else tuple(self._answers)

    def _answered(self, number: int, answer: Any) -> None:
        self._answers[number] = answer
        self._left -= 1
        if not self._left and not self._asking:
            self._finished(tuple(self._answers))
