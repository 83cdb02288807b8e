"""Authority: never longer than the rule allows, whatever is delayed, lost or partitioned."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ringfence.core.cluster import ClusterConfig, NodeConfig, Timing
from ringfence.core.ids import Epoch
from ringfence.membership.authority import Authority
from ringfence.wire.ring import Heartbeat

MS = 1_000_000
GRANT, WRITE = Timing().grant_ms, Timing().write_ms
E = Epoch(1, 1)


def cluster(count: int, two_node: bool = False) -> ClusterConfig:
    nodes = tuple(NodeConfig(id, f"n{id}") for id in range(1, count + 1))
    return ClusterConfig("c", two_node=two_node, nodes=nodes)


def node1(count: int = 3, *, two_node: bool = False) -> Authority:
    authority = Authority(cluster(count, two_node), 1)
    authority.entered(E, tuple(range(1, count + 1)))
    return authority


def echo(counter: int, of: int = 1, own: int = 1) -> Heartbeat:
    return Heartbeat(counter=own, echoes={of: counter})


def test_before_any_echo_there_is_none():
    authority = node1()
    authority.sent(100 * MS)
    assert authority.base_ns(False) == 0
    assert authority.deadlines(False) == (0, 0)


def test_counted_from_the_sending_not_from_the_echo():
    authority = node1()
    first = authority.sent(100 * MS)
    authority.heard(150 * MS, 1, first)
    assert authority.base_ns(False) == 0, "an own delivery is one vote of three"
    authority.heard(900 * MS, 2, echo(first.counter))
    assert authority.base_ns(False) == 100 * MS
    assert authority.deadlines(False) == ((100 + GRANT) * MS, (100 + WRITE) * MS)
    assert (authority.grant_deadline_ns, authority.write_deadline_ns) == authority.deadlines(False)
    assert authority.own_heartbeat_ns == 100 * MS


def test_the_newest_that_a_majority_has_echoed():
    authority = node1(5)
    beats = [authority.sent(at * MS) for at in (100, 300, 500)]
    authority.heard(600 * MS, 1, beats[2])
    authority.heard(600 * MS, 2, echo(beats[2].counter))
    assert authority.base_ns(False) == 0
    authority.heard(600 * MS, 3, echo(beats[0].counter))
    assert authority.base_ns(False) == 100 * MS
    authority.heard(700 * MS, 4, echo(beats[1].counter))
    assert authority.base_ns(False) == 300 * MS


def test_votes_weigh():
    nodes = (NodeConfig(1, "n1"), NodeConfig(2, "n2", votes=3), NodeConfig(3, "n3"))
    authority = Authority(ClusterConfig("c", nodes=nodes), 1)
    authority.entered(E, (1, 2, 3))
    beat = authority.sent(100 * MS)
    authority.heard(110 * MS, 1, beat)
    authority.heard(110 * MS, 3, echo(beat.counter))
    assert authority.base_ns(False) == 0
    authority.heard(110 * MS, 2, echo(beat.counter))
    assert authority.base_ns(False) == 100 * MS


def test_echoes_are_of_the_last_delivered():
    authority = node1()
    authority.heard(1 * MS, 2, Heartbeat(counter=57, echoes={}))
    authority.heard(1 * MS, 3, Heartbeat(counter=5, echoes={}))
    authority.heard(2 * MS, 2, Heartbeat(counter=1, echoes={}))
    assert authority.sent(3 * MS).echoes == {2: 1, 3: 5}


@pytest.mark.parametrize("end", ["suspended", "entered", "lost"])
def test_nothing_of_an_earlier_view_counts(end: str):
    authority = node1()
    old = authority.sent(100 * MS)
    authority.heard(110 * MS, 1, old)
    authority.heard(110 * MS, 2, echo(old.counter))
    before = authority.deadlines(False)
    newer = authority.sent(300 * MS)
    if end != "entered":
        getattr(authority, end)()
        authority.heard(310 * MS, 1, newer)
        authority.heard(310 * MS, 2, echo(newer.counter))
        assert authority.deadlines(False) == (before if end == "suspended" else (0, 0))
        assert authority.deadlines(True) == authority.deadlines(False)
    authority.entered(Epoch(2, 1), (1, 2, 3))
    authority.heard(310 * MS, 1, newer)
    authority.heard(310 * MS, 2, echo(newer.counter))
    authority.heard(310 * MS, 3, echo(old.counter))
    assert authority.base_ns(False) == 0
    assert authority.sent(400 * MS).echoes.get(3) == 1


def test_before_the_barrier_nothing_counts():
    authority = Authority(cluster(3), 1)
    beat = authority.sent(100 * MS)
    authority.heard(110 * MS, 1, beat)
    authority.heard(110 * MS, 2, echo(beat.counter))
    authority.entered(E, (1, 2, 3))
    authority.heard(120 * MS, 2, echo(beat.counter))
    authority.heard(120 * MS, 1, beat)
    assert authority.base_ns(False) == 0


def test_only_ready_members_vouch():
    authority = Authority(cluster(3), 1)
    authority.entered(E, (1,))
    beat = authority.sent(100 * MS)
    authority.heard(110 * MS, 1, beat)
    authority.heard(110 * MS, 2, echo(beat.counter))
    assert authority.base_ns(False) == 0
    authority.set_ready((1, 2))
    authority.heard(120 * MS, 2, echo(beat.counter))
    assert authority.base_ns(False) == 100 * MS
    authority.set_ready((1, 3))
    assert authority.base_ns(False) == 0
    assert authority.sent(200 * MS).echoes == {1: beat.counter}


def test_an_echo_of_what_was_never_sent_counts_nothing():
    authority = node1()
    beat = authority.sent(100 * MS)
    authority.heard(110 * MS, 1, beat)
    authority.heard(110 * MS, 2, echo(beat.counter + 1))
    assert authority.base_ns(False) == 0


def test_counters_never_repeat_across_incarnations_of_a_boot():
    first = Authority(cluster(3), 1)
    used = {first.sent(at * MS).counter for at in (5000, 5000, 5200, 5400)}
    assert len(used) == 4
    second = Authority(cluster(3), 1)
    assert second.sent(6000 * MS).counter > max(used)


def test_two_nodes_need_each_other_until_the_other_is_out():
    authority = node1(2, two_node=True)
    beat = authority.sent(100 * MS)
    authority.heard(110 * MS, 1, beat)
    assert authority.deadlines(False) == (0, 0)
    assert authority.deadlines(True) == ((100 + GRANT) * MS, (100 + WRITE) * MS)


def test_a_lone_member_of_three_has_none_though_all_others_are_fenced():
    authority = node1(3)
    beat = authority.sent(100 * MS)
    authority.heard(110 * MS, 1, beat)
    assert authority.deadlines(True) == (0, 0)


def test_a_deadline_never_goes_back():
    authority = node1(2, two_node=True)
    beat = authority.sent(5000 * MS)
    authority.heard(5010 * MS, 1, beat)
    high = authority.deadlines(True)
    assert authority.deadlines(False) == high
    authority.suspended()
    assert authority.deadlines(False) == high
    authority.lost()
    assert authority.deadlines(True) == (0, 0)


def test_what_is_kept_is_bounded():
    authority = node1()
    for at_ms in range(0, 600_000, 200):
        authority.sent(at_ms * MS)
    assert len(authority._sent) <= WRITE // 200 + 1


class Ring(RuleBasedStateMachine):
    """Three nodes on a ring that delays, partitions and merges.  Each group has one total order;
    a member delivers its prefix whenever it likes.

    Checked against what the ring knows and no node does: whoever holds write authority until D
    sent a heartbeat at D - write_ms that a majority of nodes has delivered, after their barriers
    and in the view in which it was sent.  So any majority that waits `bound_ms` since it last
    heard the node waits longer than its authority."""

    NODES = (1, 2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 1000 * MS
        self.authority = {node: Authority(cluster(3), node) for node in self.NODES}
        self.view: dict[int, list[tuple[int, Heartbeat, int]]] = {}
        self.at: dict[int, int] = {}
        self.ready: dict[int, bool] = dict.fromkeys(self.NODES, False)
        self.heard_ns: dict[tuple[int, int], int] = {}
        """(listener, speaker) -> when it last delivered a word of the speaker."""
        self.delivered: dict[tuple[int, int], list[int]] = {}
        """(speaker, send time) -> nodes that delivered it while ready."""
        self.change(({1, 2, 3},))

    def change(self, groups: tuple[set[int], ...]) -> None:
        for group in groups:
            log: list[tuple[int, Heartbeat, int]] = []
            for node in group:
                self.view[node], self.at[node], self.ready[node] = log, 0, False
                self.authority[node].suspended()

    @rule(ms=st.integers(1, 2500))
    def wait(self, ms: int) -> None:
        self.now_ns += ms * MS

    @rule(node=st.sampled_from(NODES))
    def barrier(self, node: int) -> None:
        members = tuple(other for other in self.NODES if self.view[other] is self.view[node])
        if not self.ready[node]:
            self.ready[node] = True
            self.authority[node].entered(E, members)

    @precondition(lambda self: any(self.ready.values()))
    @rule(node=st.sampled_from(NODES))
    def send(self, node: int) -> None:
        if self.ready[node]:
            self.view[node].append((node, self.authority[node].sent(self.now_ns), self.now_ns))

    @rule(node=st.sampled_from(NODES), count=st.integers(1, 6))
    def deliver(self, node: int, count: int) -> None:
        if not self.ready[node]:
            return
        for speaker, beat, sent_ns in self.view[node][self.at[node] : self.at[node] + count]:
            self.at[node] += 1
            self.authority[node].heard(self.now_ns, speaker, beat)
            self.heard_ns[node, speaker] = self.now_ns
            self.delivered.setdefault((speaker, sent_ns), []).append(node)

    @rule(split=st.sampled_from([({1, 2, 3},), ({1}, {2, 3}), ({1, 2}, {3}), ({1, 3}, {2}), ({1}, {2}, {3})]))
    def partition(self, split: tuple[set[int], ...]) -> None:
        self.change(split)

    @invariant()
    def authority_never_exceeds_the_rule(self) -> None:
        for node in self.NODES:
            grant_ns, write_ns = self.authority[node].deadlines(False)
            if write_ns == 0:
                continue
            base_ns = write_ns - WRITE * MS
            assert grant_ns == base_ns + GRANT * MS
            assert base_ns <= self.now_ns
            assert len(set(self.delivered.get((node, base_ns), []))) >= 2
            others = [other for other in self.NODES if other != node]
            last_ns = max(self.heard_ns.get((other, node), 0) for other in others)
            assert last_ns + Timing().bound_ms * MS > write_ns, "two survivors could purge too early"


Ring.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestRing = Ring.TestCase


def test_the_ring_of_this_test_does_give_authority():
    ring = Ring()
    for node in Ring.NODES:
        ring.barrier(node)
    for _ in range(2):
        for node in Ring.NODES:
            ring.send(node)
        for node in Ring.NODES:
            ring.deliver(node, 6)
    ring.authority_never_exceeds_the_rule()
    for node in Ring.NODES:
        assert ring.authority[node].deadlines(False)[1] == (1000 + WRITE) * MS
