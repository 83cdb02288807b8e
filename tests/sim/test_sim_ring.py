"""The simulated ring keeps the promises of `ring.port`, and breaks everything else.

Members here echo numbers; random freezes, cuts and kills strike; then the logs are compared."""

from itertools import pairwise

import pytest

from ringfence.core.ids import Epoch
from ringfence.engine.inputs import Delivered, RingLost, ViewChanged
from ringfence.sim.ring import Endpoint, RingInput, SimRing
from ringfence.sim.scheduler import Scheduler


class Member:
    def __init__(self, ring: SimRing, node: int) -> None:
        self.log: list[RingInput] = []
        self.sent = 0
        self.node = node
        self.epoch = ""
        """Of the latest view."""
        self.endpoint: Endpoint = ring.connect(node, self._deliver)

    def _deliver(self, fact: RingInput) -> None:
        self.log.append(fact)
        if isinstance(fact, ViewChanged):
            self.epoch = str(fact.epoch)

    def views(self) -> list[ViewChanged]:
        return [fact for fact in self.log if isinstance(fact, ViewChanged)]

    def by_epoch(self) -> dict[Epoch, list[Delivered]]:
        """What was delivered in each view."""
        found: dict[Epoch, list[Delivered]] = {}
        epoch = None
        for fact in self.log:
            if isinstance(fact, ViewChanged):
                epoch = fact.epoch
                found[epoch] = []
            elif isinstance(fact, RingLost):
                epoch = None
            elif isinstance(fact, Delivered):
                assert epoch is not None, "delivered outside of any view"
                found[epoch].append(fact)
        return found


def play(seed: int, totem: bool) -> tuple[SimRing, list[Member]]:
    """Three members multicast and suffer for a while, then all is mended and one more goes round."""
    scheduler = Scheduler(seed)
    ring = SimRing(scheduler, 400, totem)
    members = [Member(ring, node) for node in (1, 2, 3)]

    def chatter(member: Member) -> None:
        if member.endpoint.numb or not member.endpoint.frozen:
            member.sent += 1
            ring.multicast(member.endpoint, f"{member.node}:{member.sent}:{member.epoch}".encode())
        scheduler.after(scheduler.between(1, 30), lambda: chatter(member))

    def suffer() -> None:
        member = scheduler.rng.choice(members)
        match scheduler.rng.randrange(9):
            case 0:
                ring.freeze(member.endpoint, with_host=scheduler.chance(0.7))
                scheduler.after(scheduler.between(10, 3000), lambda: ring.thaw(member.endpoint))
            case 1 if not ring.parts:
                ring.cut([[member.node], [one.node for one in members if one is not member]])
                scheduler.after(scheduler.between(10, 3000), ring.heal)
            case 2:
                ring.lose()
                scheduler.after(scheduler.between(10, 500), ring.restore)
            case 3 if ring.whole:
                ring.deafen(member.node, [one.node for one in members if one is not member])
                scheduler.after(scheduler.between(10, 6000), ring.heal)
            case 4:
                ring.stick(*sorted(scheduler.rng.sample((1, 2, 3), 2)))
                scheduler.after(scheduler.between(10, 3000), ring.unstick)
            case 5:
                ring.slow_ms = scheduler.between(0, 800)
            case 6:
                ring.stand_still()
                scheduler.after(scheduler.between(10, 4000), ring.go_on)
            case 7:
                numb = ring.numb(member.node)
                scheduler.after(scheduler.between(10, 3000), lambda: numb and ring.wake(numb))
        if scheduler.now_ns < 20e9:
            scheduler.after(scheduler.between(300, 3000), suffer)

    for member in members:
        chatter(member)
    scheduler.after(2000, suffer)
    while scheduler.now_ns < 40e9:
        scheduler.step()
    return ring, members


SEEDS = [(seed, totem) for seed in (*range(6), 28, 32) for totem in (False, True)]


@pytest.mark.parametrize(("seed", "totem"), SEEDS)
def test_members_that_stay_together_deliver_the_same(seed: int, totem: bool) -> None:
    _, members = play(seed, totem)
    compared = 0
    for one in members:
        for other in members:
            if one.node >= other.node:
                continue
            mine, theirs = one.by_epoch(), other.by_epoch()
            after = dict(
                zip([v.epoch for v in one.views()], [v.epoch for v in one.views()][1:], strict=False)
            )
            theirs_after = dict(
                zip([v.epoch for v in other.views()], [v.epoch for v in other.views()][1:], strict=False)
            )
            for epoch in mine:
                if epoch not in theirs:
                    continue
                a, b = mine[epoch], theirs[epoch]
                if epoch in after and after[epoch] == theirs_after.get(epoch):
                    assert a == b, f"{one.node} and {other.node} went on together from {epoch}"
                    compared += len(a)
                else:  # one was lost: it saw less, or itself alone at the end
                    common = min(len(a), len(b))
                    differing = next((i for i in range(common) if a[i] != b[i]), common)
                    tails = a[differing:], b[differing:]
                    assert any(
                        all(fact.sender == member.node for fact in tail)
                        for member, tail in zip((one, other), tails, strict=True)
                    )
    assert compared > 100


@pytest.mark.parametrize(("seed", "totem"), SEEDS)
def test_epochs_increase_and_views_name_oneself(seed: int, totem: bool) -> None:
    _, members = play(seed, totem)
    for member in members:
        epochs = [view.epoch for view in member.views()]
        assert epochs == sorted(set(epochs))
        assert all(
            member.node in view.members and view.epoch.rep == min(view.members) for view in member.views()
        )
        assert member.views()[-1].members == (1, 2, 3), "all is mended, and they are not together"
        owners: dict[Epoch, tuple[int, ...]] = {}
        for view in member.views():
            assert owners.setdefault(view.epoch, view.members) == view.members


@pytest.mark.parametrize(("seed", "totem"), SEEDS)
def test_each_senders_order_is_kept_and_nothing_comes_twice(seed: int, totem: bool) -> None:
    _, members = play(seed, totem)
    for member in members:
        for sender in (1, 2, 3):
            numbers = [
                int(fact.payload.split(b":")[1])
                for fact in member.log
                if isinstance(fact, Delivered) and fact.sender == sender
            ]
            assert numbers == sorted(set(numbers))


def test_the_adversary_is_at_work() -> None:
    """Ghosts, stale and lost messages and lone views must all occur, or nothing is tested by them."""
    ghosts = stale = alone = lost = 0
    for seed in range(6):
        _, members = play(seed, True)
        alone += sum(view.members == (member.node,) for member in members for view in member.views())
        seen_at: dict[bytes, list[tuple[int, Epoch]]] = {}
        for member in members:
            for epoch, delivered in member.by_epoch().items():
                for fact in delivered:
                    seen_at.setdefault(fact.payload, []).append((member.node, epoch))
        lost += sum(member.sent for member in members) - len(seen_at)
        with_others = {view.epoch for member in members for view in member.views() if len(view.members) > 1}
        for payload, places in seen_at.items():
            sender, _, epoch_sent = payload.decode().split(":")
            stale += any(node != int(sender) and str(epoch) != epoch_sent for node, epoch in places)
            ghosts += len(places) == 1 and places[0][0] == int(sender) and places[0][1] in with_others
    assert ghosts
    assert stale
    assert alone
    assert lost


def test_same_seed_same_story() -> None:
    first, again = play(3, True)[1], play(3, True)[1]
    assert [member.log for member in first] == [member.log for member in again]


# -- shapes of partitions ------------------------------------------------------------------


def in_peace(totem: bool) -> tuple[Scheduler, SimRing, list[Member]]:
    """Three members in one view, each of which says something every 50 ms."""
    scheduler = Scheduler(1)
    ring = SimRing(scheduler, 400, totem)
    members = [Member(ring, node) for node in (1, 2, 3)]

    def chatter(member: Member) -> None:
        member.sent += 1
        ring.multicast(member.endpoint, f"{member.node}:{member.sent}:{member.epoch}".encode())
        scheduler.after(50, lambda: chatter(member))

    for member in members:
        chatter(member)
    until(scheduler, 1000)
    for member in members:
        member.log.clear()
    return scheduler, ring, members


def until(scheduler: Scheduler, at_ms: int) -> None:
    while scheduler.now_ns < at_ms * 1_000_000:
        scheduler.step()


def test_with_one_path_cut_two_hear_nothing_and_nobody_is_told() -> None:
    scheduler, ring, (one, two, three) = in_peace(True)
    ring.stick(1, 3)
    until(scheduler, 1100)
    heard = len(one.log), len(three.log)
    until(scheduler, 4000)
    assert (len(one.log), len(three.log)) == heard
    assert {fact.sender for fact in two.log[-20:] if isinstance(fact, Delivered)} == {2}
    ring.unstick()
    until(scheduler, 5000)
    assert not any(member.views() for member in (one, two, three)), "a view changed"
    shortest = min(len(member.log) for member in (one, two, three)) - 20
    assert one.log[:shortest] == two.log[:shortest] == three.log[:shortest]
    assert {fact.sender for fact in one.log[-20:] if isinstance(fact, Delivered)} == {1, 2, 3}


def test_a_member_that_receives_nothing_makes_the_others_form_again_and_again() -> None:
    scheduler, ring, (one, two, three) = in_peace(True)
    ring.deafen(2, [1, 3])
    until(scheduler, 1000 + int(1.5 * ring.detection_ms))
    assert not any(member.views() for member in (one, two, three)), "it is found out late"
    until(scheduler, 20_000)
    assert [view.members for view in two.views()] == [(2,)]
    assert {view.members for view in one.views()} == {(1, 3)}
    assert len(one.views()) > 2
    assert [view.epoch for view in one.views()] == [view.epoch for view in three.views()]
    ring.heal()
    until(scheduler, 21_000)
    assert {member.views()[-1].members for member in (one, two, three)} == {(1, 2, 3)}


@pytest.mark.parametrize("totem", [True, False])
def test_a_switch_that_is_back_in_time_is_a_view_of_the_same_members(totem: bool) -> None:
    scheduler, ring, members = in_peace(totem)
    ring.cut([[1], [2], [3]])
    until(scheduler, 1300)
    ring.heal()
    until(scheduler, 3000)
    for member in members:
        assert [(view.members, view.joined, view.left) for view in member.views()] == [((1, 2, 3), (), ())]


def test_a_slow_ring_keeps_the_order() -> None:
    scheduler, ring, (one, two, three) = in_peace(True)
    ring.slow_ms = 800
    until(scheduler, 9000)
    shortest = min(len(member.log) for member in (one, two, three))
    assert shortest > 100
    assert one.log[:shortest] == two.log[:shortest] == three.log[:shortest]
    assert not one.views()


def test_a_hub_that_stood_still_delivers_one_backlog_before_another() -> None:
    scheduler, ring, (one, two, three) = in_peace(False)
    ring.stand_still()
    until(scheduler, 1050)
    heard = len(one.log)
    until(scheduler, 5000)
    assert len(one.log) == heard, "it stands still"
    ring.go_on()
    until(scheduler, 5040)
    assert one.log == two.log == three.log
    senders = [fact.sender for fact in one.log[heard:] if isinstance(fact, Delivered)]
    assert len(senders) > 200
    assert sum(a != b for a, b in pairwise(senders)) < 10
    until(scheduler, 6000)
    assert not any(member.views() for member in (one, two, three)), "nobody is told"


def test_a_ring_process_that_stands_still_takes_what_is_sent_and_delivers_it_late() -> None:
    scheduler, ring, (one, two, three) = in_peace(True)
    numb = ring.numb(1)
    assert numb is not None
    until(scheduler, 1500)
    assert not any(fact.sender == 1 for fact in two.log[3:] if isinstance(fact, Delivered))
    ring.wake(numb)
    until(scheduler, 3000)
    assert not any(member.views() for member in (one, two, three)), "it was back in time"
    said = [fact.payload for fact in two.log if isinstance(fact, Delivered) and fact.sender == 1]
    assert len(said) > 30, "nothing of it is lost"
    assert said == [fact.payload for fact in three.log if isinstance(fact, Delivered) and fact.sender == 1]


def test_a_ring_process_that_stands_still_for_long_is_lost_and_its_daemon_hears_of_it_late() -> None:
    scheduler, ring, (one, two, _) = in_peace(True)
    numb = ring.numb(1)
    assert numb is not None
    until(scheduler, 3000)
    assert [view.members for view in two.views()] == [(2, 3)]
    assert not one.views(), "the daemon of the first notices nothing"
    ring.wake(numb)
    until(scheduler, 5000)
    assert [view.members for view in one.views()] == [(1,), (1, 2, 3)]
    assert two.views()[-1].members == (1, 2, 3)
