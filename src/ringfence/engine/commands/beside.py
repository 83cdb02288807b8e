"""Planning that takes long is done beside the event loop.

A VG with thousands of holes, or an LV in thousands of pieces, costs seconds of pure computing; the loop that
keeps this host's authority alive must not stand still for that."""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from ringfence.engine.orders import Compute, Order
from ringfence.volumes.model import Vg

T = TypeVar("T")
MANY = 500
"""To plan with so many pieces takes some ms."""


def beside(pieces: int, work: Callable[[], T]) -> Generator[Order, Any, T]:
    """What `work` returns, which is pure and about so many pieces of PVs.  Raises what it raises."""
    if pieces <= MANY:
        return work()
    done: T = yield Compute(work)
    return done


def holes(vg: Vg) -> int:
    """How many pieces of its PVs are free."""
    return sum(len(use.free) for use in vg.index.uses.values())
