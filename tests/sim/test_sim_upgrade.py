"""A rolling upgrade under faults: each host's first daemon speaks the old protocol, every later one both."""

from msgspec.structs import replace

from ringfence.engine.effects import Effect, Record
from ringfence.engine.inputs import Input, Started
from ringfence.engine.node import Node
from ringfence.sim.world import Outcome, run
from ringfence.wire import SPEAKS, Speaks

OLD, NEW = Speaks(1, 1), SPEAKS


class Cluster:
    """What is installed where, and what the nodes came to speak."""

    def __init__(self) -> None:
        self.started: dict[int, int] = {}
        self.raised = 0

    def engine(self, number: int) -> Node:
        return _Installed(self, number)


class _Installed(Node):
    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(at_once=2 + number % 3)
        self._cluster = cluster

    def step(self, now_ns: int, input: Input) -> list[Effect]:
        cluster = self._cluster
        if isinstance(input, Started):
            times = cluster.started[input.node] = cluster.started.get(input.node, 0) + 1
            input = replace(input, speaks=OLD if times == 1 else NEW)
        todo = super().step(now_ns, input)
        cluster.raised += sum(isinstance(one, Record) and one.kind == "protocol" for one in todo)
        return todo


def test_every_seed_ends_well_and_some_end_upgraded() -> None:
    raised = 0
    for seed in range(12, 20):
        cluster = Cluster()
        report = run(seed, make_engine=cluster.engine)
        assert report.outcome is Outcome.OK, (seed, report.what)
        raised += cluster.raised
    assert raised
