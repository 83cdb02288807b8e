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
from ringfence.wire import UNCLEAN

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
    assert not tasks.running()


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


QUIETLY = (orders.Identity(), orders.ReadDisks(()))
LOUDLY = (orders.NoteStopped("vg0"), orders.ReadDisks(()))


@pytest.mark.parametrize(
    ("asks", "client", "all_round"), [(QUIETLY, 7, False), (QUIETLY, None, True), (LOUDLY, 7, True)]
)
def test_who_may_wait_for_the_end_of_a_command_looks_then(
    parts: tuple[Tasks, Locker], asks: tuple[orders.Order, ...], client: int | None, all_round: bool
) -> None:
    """A client is answered; whoever runs a command of this node's own, or after one that has touched more
    than locks, may have something left to do."""
    tasks, _ = parts

    def command() -> orders.Command:
        for order in asks:
            yield from waits(order)

    tasks.start("one", command(), lambda result, error: None, client)
    context = tasks._context
    context.only_locks = True  # in another step
    tasks.order_done(tasks._last_order, None, None)
    assert not tasks.running()
    assert context.only_locks is not all_round


def test_unclean_lvs_that_only_this_host_knows_of_are_looked_at(parts: tuple[Tasks, Locker]) -> None:
    """The protocol is too old for an entry about them, which would say so."""
    tasks, _ = parts
    context = tasks._context
    assert context.state is not None
    context.state.protocol, context.only_locks = UNCLEAN - 1, True
    tasks.start("one", waits(orders.Publish("vg0", 3, 1, "", unclean=(UUID,))), lambda *_: None, client=7)
    assert context.unclean("vg0") == (UUID,)
    assert not context.only_locks
