"""A step that touched only locks does not look all round (`engine.node`): what it would find is nothing.

Here whatever time alone brings is found before each step, as by a tick at that very moment; then nothing may
be left for a look round behind it, in whole clusters with their faults."""

import pytest

from ringfence.engine import orders, tasks
from ringfence.engine.effects import Effect
from ringfence.engine.inputs import Input, Started, Tick
from ringfence.engine.node import Node, _Node
from ringfence.sim.scenario import Recipe
from ringfence.sim.world import Outcome, play

PLANS = [(1, ""), (2, ""), (1, "volumes"), (2, "volumes"), (1, "met"), (2, "moved"), (3, "handed-over")]


class Watched(_Node):
    looked = False

    def _look_round(self) -> None:
        self.looked = True
        super()._look_round()


class Looking(Node):
    """Looks round once more behind each step that did not, and counts those."""

    quiet = 0

    def step(self, now_ns: int, input: Input) -> list[Effect]:
        if isinstance(input, Started):
            effects = super().step(now_ns, input)
            assert self._running is not None
            self._running.__class__ = Watched
            return effects
        node = self._running
        assert isinstance(node, Watched)
        before = super().step(now_ns, Tick())
        if node.context.left:
            return before
        node.looked = False
        effects = super().step(now_ns, input)
        if not node.looked and not node.context.left:
            Looking.quiet += 1
            outbox, running = node.context.outbox, node._tasks.running()
            said = outbox._seq
            node._look_round()
            found = [*node.context.effects, *outbox._items]
            assert (found, outbox._seq) == ([], said), f"missed after {type(input).__name__}: {found}"
            assert node._tasks.running() == running
        return before + effects


@pytest.mark.parametrize(("seed", "story"), PLANS)
def test_nothing_is_missed(seed: int, story: str) -> None:
    Looking.quiet = 0
    recipe = Recipe(seed=seed, strikes=0 if story else 8, story=story)
    report = play(recipe.scenario(), lambda number: Looking(at_once=2 + number % 3))
    assert report.outcome is Outcome.OK, report.what
    assert Looking.quiet > 100


def test_what_a_thread_does_quietly_is_to_read_and_write_disks() -> None:
    """Whatever else is carried out for a command may concern its data paths, or others' decisions."""
    asked_of_the_driver = [one for one in tasks.QUIET if one not in orders.ENGINE_ORDERS]
    assert all(issubclass(one, orders.StorageOrder) for one in asked_of_the_driver)
