"""Commands and the end of a life: what one is told, and what none asks for any more."""

from pathlib import Path
from typing import Any

import pytest
from engine_ring import World

from ringfence.core.errors import LocksLost, RingfenceError, TimedOut
from ringfence.core.modes import Mode
from ringfence.engine import orders
from ringfence.engine.locker import Locker
from ringfence.engine.tasks import Tasks

UUID = "0" * 32


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Tasks, Locker]:
    """Those of a running node, which takes no step meanwhile: what is ordered of its driver stays out."""
    world = World(tmp_path, 1, at_once=1)
    node = world.hosts[1].node
    assert node is not None
    assert node._running is not None
    return node._running._tasks, node._running.locker


def waits(order: orders.Order) -> orders.Command:
    return (yield order)


def test_a_command_that_ends_by_what_another_is_told_is_told_once(parts: tuple[Tasks, Locker]) -> None:
    """Whoever waits for the first lets go of the second: it is over before its turn comes."""
    tasks, _ = parts
    told: list[tuple[str, type[RingfenceError | None]]] = []

    def first(result: Any, error: RingfenceError | None) -> None:
        told.append(("first", type(error)))
        tasks.client_gone(7)

    def second(result: Any, error: RingfenceError | None) -> None:
        told.append(("second", type(error)))

    tasks.start("first", waits(orders.Pause(60_000)), first)
    tasks.start("second", waits(orders.JoinLockspace("games")), second, client=7)
    tasks.lost()
    assert told == [("first", LocksLost), ("second", TimedOut)]
    assert not tasks.busy


def test_locks_that_are_not_asked_for_yet_are_not_asked_for_in_another_life(
    parts: tuple[Tasks, Locker],
) -> None:
    """The command learns of the end of its life only when its paths are done."""
    tasks, locker = parts
    locks = [orders.Acquire("lvm_vg0", f"{UUID}{number}", Mode.EX, None, persistent=True) for number in "abc"]
    paths = orders.PathsTogether((orders.ClosePath("vg0", "vm1", UUID),))
    told: list[type[RingfenceError | None]] = []
    tasks.start(
        "one", waits(orders.Staggered(orders.LocksTogether(tuple(locks)), paths)),
        lambda result, error: told.append(type(error)),
    )  # fmt: skip
    assert len(locker.persistent()) == 1
    locker.lost()
    tasks.lost()
    tasks.look()
    assert (locker.persistent(), told) == ([], [])
    tasks.order_done(tasks._last_order, (None,), None)
    assert (locker.persistent(), told) == ([], [LocksLost])
