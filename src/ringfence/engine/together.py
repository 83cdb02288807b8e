"""Many lock orders of one command, carried out at once: as many in a step as it may handle, each answered by
itself, and the command when all are."""

import functools
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from ringfence.engine.orders import Acquire, LocksTogether, Release

Done = Callable[[Any], None]
Ask = Callable[[Sequence[Acquire | Release], Sequence[Done]], list[int]]
"""Carries orders out that differ only in what they are about; the answer or error of each goes to its Done,
perhaps within the call.  Returns the locks."""


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
        for _, alike in groupby(range(first, self._asked), lambda number: _kind(self._orders[number])):
            numbers = list(alike)
            dones = [functools.partial(self._answered, number) for number in numbers]
            self.locks += self._ask([self._orders[number] for number in numbers], dones)
        self._asking = False
        return None if self._left else tuple(self._answers)

    def _answered(self, number: int, answer: Any) -> None:
        self._answers[number] = answer
        self._left -= 1
        if not self._left and not self._asking:
            self._finished(tuple(self._answers))


def _kind(order: Acquire | Release) -> Any:
    return (order.lockspace, order.mode, order.wait_ms) if isinstance(order, Acquire) else None
