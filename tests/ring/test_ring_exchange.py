"""From corosync's changes to views (`ring.corosync.exchange`): by hand, and by chance."""

import asyncio
import random

import pytest

from ringfence.core.cluster import Timing
from ringfence.core.ids import Epoch
from ringfence.engine.inputs import ViewChanged
from ringfence.host.clock import boottime_ns
from ringfence.ring.corosync.exchange import LEAVE, NODEDOWN, PROCDOWN, Confchg, Exchange, RingFormed
from ringfence.ring.corosync.pulse import Pulse
from ringfence.ring.corosync.ring import CorosyncRing
from ringfence.wire.corosync import Hello, LeaveOut, Process, RingId

A, B, C = Process(1, 11), Process(2, 22), Process(3, 33)
RING = RingFormed(RingId(4, 1), (1, 2, 3))


def hello(exchange: Exchange) -> Hello:
    found = exchange.hello()
    assert found is not None
    return found


def in_view(*members: Process, me: Process = A, seen: int = 7) -> Exchange:
    """Of all three nodes' ring; everybody else has seen epochs up to 7."""
    one = Exchange(me, seen)
    one.confchg(Confchg(tuple(sorted(members)), (), (me,)))
    one.ring_formed(RING)
    answer_all(one, seen=7)
    assert one.view is not None
    return one


def answer_all(one: Exchange, seen: int = 0) -> ViewChanged | None:
    mine = hello(one)
    view = None
    for process in one.members:
        said = mine if process == one.me else Hello(mine.ring, mine.members, seen)
        view = one.heard(process, said)
    return view


def test_epoch_is_above_what_anybody_saw_and_above_the_ring() -> None:
    view = in_view(A, B, seen=3).view
    assert view is not None
    assert view.epoch == Epoch(8, 1)
    fresh = Exchange(B, 0)
    fresh.confchg(Confchg((B,), (), (B,)))
    fresh.ring_formed(RingFormed(RingId(40, 2), (2,)))
    view = answer_all(fresh)
    assert view is not None
    assert view.epoch == Epoch(41, 2)


def test_process_that_comes_is_a_view_though_the_ring_stays() -> None:
    one = in_view(A, B)
    one.confchg(Confchg((A, B, C), (), (C,)))
    assert one.view is None
    view = answer_all(one)
    assert view is not None
    assert (view.joined, view.left, view.epoch.seq) == ((3,), (), 9)


def test_ring_that_forms_anew_is_a_view_though_nobody_came_or_went() -> None:
    one = in_view(A, B)
    one.ring_formed(RingFormed(RingId(8, 1), (1, 2)))
    view = answer_all(one)
    assert view is not None
    assert (view.joined, view.left, view.members) == ((), (), (1, 2))


@pytest.mark.parametrize(
    ("reason", "in_ring", "how"),
    [
        (LEAVE, True, "leave"),
        (LEAVE, False, "leave"),
        (PROCDOWN, True, "procdown"),
        (PROCDOWN, False, "nodedown"),
        (NODEDOWN, False, "nodedown"),
        (77, True, "nodedown"),
    ],
)
def test_how_a_node_left(reason: int, in_ring: bool, how: str) -> None:
    one = in_view(A, B)
    one.confchg(Confchg((A,), ((B, reason),)))
    assert one.doubtful == (reason == PROCDOWN)
    if not in_ring:
        one.ring_formed(RingFormed(RingId(8, 1), (1,)))
        assert not one.doubtful
    view = answer_all(one)
    assert view is not None
    assert (view.left, view.how) == ((2,), {2: how})


def test_process_that_went_and_came_back_is_told_as_both() -> None:
    one = in_view(A, B)
    again = Process(2, 99)
    one.confchg(Confchg((A,), ((B, PROCDOWN),)))
    one.confchg(Confchg((A, again), (), (again,)))
    view = answer_all(one)
    assert view is not None
    assert (view.left, view.joined, view.how) == ((2,), (2,), {2: "procdown"})


def test_thawed_member_learns_that_it_was_out_though_it_had_no_view_alone() -> None:
    one = in_view(A, B, C)
    one.confchg(Confchg((A,), ((B, NODEDOWN), (C, NODEDOWN))))
    one.ring_formed(RingFormed(RingId(8, 1), (1,)))
    one.confchg(Confchg((A, B, C), (), (B, C)))
    one.ring_formed(RingFormed(RingId(12, 1), (1, 2, 3)))
    view = answer_all(one)
    assert view is not None
    assert (view.left, view.joined) == ((2, 3), (2, 3))


def test_nobody_is_in_a_view_before_the_last_has_spoken() -> None:
    one = in_view(A, B)
    one.confchg(Confchg((A, B, C), (), (C,)))
    mine = hello(one)
    assert one.hello() is None, "said once"
    one.heard(A, mine)
    one.heard(C, Hello(mine.ring, mine.members, 0))
    assert one.view is None
    assert one.waiting_for == (B,)
    one.heard(Process(9, 9), mine)
    assert one.waiting_for == (B,), "a stranger's word is nobody's"


def test_hello_of_an_earlier_change_does_not_count() -> None:
    one = in_view(A, B)
    one.confchg(Confchg((A, B, C), (), (C,)))
    late = Hello(RING.ring, (A, B, C), 8)
    one.confchg(Confchg((A, B), ((C, PROCDOWN),)))
    mine = hello(one)
    one.heard(B, late)
    one.heard(A, mine)
    assert one.view is None
    assert one.heard(B, Hello(mine.ring, mine.members, 8)) is not None


def test_nothing_is_said_before_the_ring_is_known() -> None:
    one = Exchange(A, 0)
    one.confchg(Confchg((A,), (), (A,)))
    assert one.hello() is None
    one.ring_formed(RING)
    assert one.hello() is not None


def test_twin_is_seen() -> None:
    twin = Process(1, 12)
    one = Exchange(A, 0)
    one.confchg(Confchg((A, twin), (), (A,)))
    assert one.twins == (twin,)
    assert in_view(A, B).twins == ()


def half_answered(*answered: Process, members: tuple[Process, ...] = (A, B, C), new: bool = True) -> Exchange:
    """A was in a view of all; one of the others came anew, and these have answered that."""
    one = in_view(*members)
    one.confchg(Confchg(tuple(one for one in members if one != B), ((B, PROCDOWN),)))
    one.confchg(Confchg(members, (), (B,)))
    mine = hello(one)
    for process in answered:
        one.heard(process, Hello(mine.ring, mine.members, 30, leaves_out=new))
    return one


def test_who_does_not_answer_is_left_out() -> None:
    one = half_answered(A, B)
    word = one.leave_out()
    assert word == LeaveOut(RING.ring, (A, B, C), (C,))
    view = one.told_to_leave_out(B, word)
    assert view is not None
    assert (view.members, view.epoch.seq, view.how[3]) == ((1, 2), 31, "nodedown")
    assert one.heard(C, Hello(word.ring, word.members, 90)) is None
    assert one.view is view


def test_two_words_leave_out_what_both_name() -> None:
    one = half_answered(A, B, members=(A, B, C, Process(4, 44)))
    assert one.told_to_leave_out(A, LeaveOut(RING.ring, one.members, (C,))) is None
    view = one.told_to_leave_out(B, LeaveOut(RING.ring, one.members, (Process(4, 44),)))
    assert view is not None
    assert view.members == (1, 2)


def test_who_stood_still_just_now_has_nobody_left_out() -> None:
    """The others' hellos may wait behind its timers."""
    timing = Timing()

    async def said(stood_still_ms: int) -> int:
        ring = CorosyncRing(1, timing)
        ring._pulse = Pulse(timing.token_ms // 2, boottime_ns() - stood_still_ms * 1_000_000)
        ring._quiet_s = asyncio.get_running_loop().time() - timing.left_out_ms() / 1000
        ring._leave_out(half_answered(A, B))
        return len(ring._messages)

    assert asyncio.run(said(0)) == 1
    assert asyncio.run(said(timing.token_ms)) == 0


def test_whoever_is_left_out_has_no_view_and_finds_that_out() -> None:
    one = half_answered(B, C)
    word = LeaveOut(RING.ring, (A, B, C), (A,))
    assert one.told_to_leave_out(B, word) is None
    assert one.left_out
    assert one.heard(A, Hello(word.ring, word.members, 8)) is None, "it comes too late"


def test_who_is_to_be_left_out_is_in_if_it_answers_before_all_others_have() -> None:
    one = half_answered(B, members=(A, B, C, Process(4, 44)))
    word = LeaveOut(RING.ring, one.members, (A, C))
    assert one.told_to_leave_out(B, word) is None
    assert not one.left_out
    assert one.heard(A, Hello(word.ring, word.members, 8)) is None
    view = one.heard(Process(4, 44), Hello(word.ring, word.members, 8))
    assert view is not None
    assert view.members == (1, 2, 4)


@pytest.mark.parametrize(
    ("answered", "new"),
    [((A,), True), ((B, C), True), ((A, B), False), ((A, B, C), True)],
    ids=["less than half", "it does not hear itself", "one would not understand", "all have answered"],
)
def test_nobody_is_left_out(answered: tuple[Process, ...], new: bool) -> None:
    assert half_answered(*answered, new=new).leave_out() is None


def test_one_of_two_is_half() -> None:
    assert half_answered(A, members=(A, B)).leave_out() == LeaveOut(RING.ring, (A, B), (B,))


def test_who_has_answered_by_then_is_in() -> None:
    one = half_answered(A, B)
    word = one.leave_out()
    assert word is not None
    view = one.heard(C, Hello(word.ring, word.members, 8))
    assert view is not None
    assert one.told_to_leave_out(A, word) is None
    assert one.view is view


@pytest.mark.parametrize(
    ("sender", "word"),
    [
        (C, LeaveOut(RING.ring, (A, B, C), (C,))),
        (A, LeaveOut(RingId(8, 1), (A, B, C), (C,))),
        (A, LeaveOut(RING.ring, (A, C), (C,))),
    ],
    ids=["of one who has not answered", "of another ring", "of another change"],
)
def test_a_word_that_does_not_count(sender: Process, word: LeaveOut) -> None:
    one = half_answered(A, B)
    assert one.told_to_leave_out(sender, word) is None
    assert one.waiting_for == (C,)


# -- by chance ------------------------------------------------------------------------------


class Group:
    """Processes over a ring that keeps extended virtual synchrony, and nothing else.

    Those who go from one ring into the next together have delivered the same; what was sent and not yet
    ordered is ordered in the next ring."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.nodes = (1, 2, 3, 4)
        self.next_pid = 100
        self.ring_seq = 0
        self.disk = dict.fromkeys(self.nodes, 0)
        self.lost_memory = False
        self.running: dict[int, Exchange] = {}
        self.views: dict[Process, list[ViewChanged]] = {}
        self.compared = 0
        self.unsent: list[tuple[Process, Hello | LeaveOut]] = []
        self.left_out = 0
        self.parts: list[list[int]] = [list(self.nodes)]
        self.ids = {node: RingId() for node in self.nodes}
        for part in self.parts:
            self._form(part)

    def processes(self, part: list[int]) -> tuple[Process, ...]:
        return tuple(sorted(self.running[node].me for node in part if node in self.running))

    def part_of(self, node: int) -> list[int]:
        return next(part for part in self.parts if node in part)

    def _form(self, part: list[int]) -> None:
        self.ring_seq += 4
        ring = RingId(self.ring_seq if not self.lost_memory else self.ring_seq % 7, min(part))
        for node in part:
            self.ids[node] = ring
            if node in self.running:
                self.running[node].ring_formed(RingFormed(ring, tuple(part)))

    def start(self, node: int) -> None:
        self.next_pid += 1
        me = Process(node, self.next_pid)
        self.running[node] = Exchange(me, self.disk[node])
        self.views[me] = []
        part = self.part_of(node)
        for one in part:
            if one in self.running:
                self.running[one].confchg(Confchg(self.processes(part), (), (me,)))
        self.running[node].ring_formed(RingFormed(self.ids[node], tuple(part)))

    def stop(self, node: int, reason: int) -> None:
        me = self.running.pop(node).me
        self.unsent = [item for item in self.unsent if item[0] != me]
        part = self.part_of(node)
        for one in part:
            if one in self.running:
                self.running[one].confchg(Confchg(self.processes(part), ((me, reason),)))

    def regroup(self, parts: list[list[int]]) -> None:
        """Each new part hears of those it loses first, then of those it gains."""
        before = {node: self.part_of(node) for node in self.nodes}
        self.parts = parts
        for part in parts:
            for node in part:
                if node not in self.running:
                    continue
                stays = [one for one in before[node] if one in part]
                lost = self.processes([one for one in before[node] if one not in part])
                if lost:
                    gone = tuple((process, NODEDOWN) for process in lost)
                    self.running[node].confchg(Confchg(self.processes(stays), gone))
                gained = self.processes([one for one in part if one not in before[node]])
                if gained:
                    self.running[node].confchg(Confchg(self.processes(part), (), gained))
            self._form(part)

    def order_one(self) -> None:
        if not self.unsent:
            return
        sender = self.rng.choice([process for process, _ in self.unsent])
        at = next(i for i, (process, _) in enumerate(self.unsent) if process == sender)
        _, said = self.unsent.pop(at)
        heard = {
            node: self.hear(self.running[node], sender, said)
            for node in self.part_of(sender.node)
            if node in self.running
        }
        views = {node: view for node, view in heard.items() if view is not None}
        for node, view in views.items():
            self.views[self.running[node].me].append(view)
            self.disk[node] = view.epoch.seq
            assert view.members == tuple(views), "all members have it at this very place, and nobody else"
            assert {one.epoch for one in views.values()} == {view.epoch}
            self.compared += len(views) > 1

    def hear(self, one: Exchange, sender: Process, said: Hello | LeaveOut) -> ViewChanged | None:
        if isinstance(said, Hello):
            return one.heard(sender, said)
        return one.told_to_leave_out(sender, said)

    def leave_out(self, node: int) -> None:
        """It has lost patience."""
        one = self.running.get(node)
        if one is not None and (said := one.leave_out()) is not None:
            self.unsent.append((one.me, said))

    def go_if_left_out(self) -> None:
        for node, one in list(self.running.items()):
            if one.left_out:
                self.left_out += 1
                self.stop(node, LEAVE)
                self.start(node)

    def speak(self, node: int) -> None:
        one = self.running.get(node)
        if one is not None and (said := one.hello()) is not None:
            self.unsent.append((one.me, said))

    def step(self) -> None:
        node = self.rng.choice(self.nodes)
        if self.rng.random() < 0.3:
            self.go_if_left_out()
        match self.rng.randrange(13):
            case 0 if node not in self.running:
                self.start(node)
            case 1 if node in self.running and self.rng.random() < 0.3:
                self.stop(node, self.rng.choice((LEAVE, PROCDOWN)))
            case 2 if self.rng.random() < 0.3:
                cut = self.rng.randrange(1, 4)
                order = self.rng.sample(self.nodes, 4)
                self.regroup([sorted(order[:cut]), sorted(order[cut:])])
            case 3 if self.rng.random() < 0.3:
                self.regroup([list(self.nodes)])
            case 4 if self.rng.random() < 0.05:
                self.lost_memory = True
            case 5 | 6 | 7:
                self.speak(node)
            case 8 if self.rng.random() < 0.5:
                self.leave_out(node)
            case _:
                self.order_one()


@pytest.mark.parametrize("seed", range(40))
def test_whoever_is_in_a_view_is_in_the_same_one(seed: int) -> None:
    group = Group(seed)
    for _ in range(600):
        group.step()
    group.regroup([list(group.nodes)])
    for node in group.nodes:
        if node not in group.running:
            group.start(node)
    for _ in range(40):
        group.go_if_left_out()
        for node in group.nodes:
            group.speak(node)
        group.order_one()
    last = {group.views[group.running[node].me][-1].epoch for node in group.nodes}
    assert len(last) == 1, "all is quiet, and they are not together"
    seen: dict[int, int] = {}
    for process in sorted(group.views, key=lambda one: one.pid):
        for view in group.views[process]:
            assert process.node in view.members
            assert view.epoch.seq > seen.get(process.node, 0), "an epoch went back"
            seen[process.node] = view.epoch.seq
    assert group.compared > 10


def test_chance_leaves_some_out() -> None:
    left_out = 0
    for seed in range(10):
        group = Group(seed)
        for _ in range(600):
            group.step()
        left_out += group.left_out
    assert left_out > 10
