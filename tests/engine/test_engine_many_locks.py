"""Many locks: no step handles more of them than `at_once`, and all are handled in the end."""

from pathlib import Path
from typing import Any

import pytest
from engine_ring import MS, TIMING, Host, World

from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import LocksLost, Refused
from ringfence.core.ids import Epoch, Life
from ringfence.core.modes import Mode
from ringfence.engine import inputs
from ringfence.engine.context import Phase
from ringfence.engine.digest import digest_of_state
from ringfence.engine.outbox import Outbox
from ringfence.engine.snapshot import Gathering, split
from ringfence.engine.state import ClusterState
from ringfence.locks.flags import Flag
from ringfence.locks.lockspace import Lockspace, check_space
from ringfence.locks.resource import Lock, Resource
from ringfence.wire import client as calls
from ringfence.wire import entries, ring
from ringfence.wire.client import Request

SPACE = "apps"
AT_ONCE = 3
MANY = 20


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 2, at_once=AT_ONCE)
    for host in world.hosts.values():
        host.ask(calls.JoinSpace(SPACE))
    world.pass_ms(300)  # heartbeats came back: there is authority
    return world


def host_state(host: Host) -> Any:
    assert host.node is not None
    assert host.node.context is not None
    assert host.node.context.state is not None
    return host.node.context.state


def take(host: Host, name: str, client: int = 1, wait_ms: int | None = None, mode: str = "EX") -> str:
    return host.ask(calls.Lock(SPACE, name, mode, wait_ms), client)


def names(count: int) -> list[str]:
    return [f"r{number:02}" for number in range(count)]


def test_a_client_that_ends_with_many_locks_lets_go_of_all(world: World) -> None:
    first, second = world.hosts.values()
    for name in names(MANY):
        assert first.reply(take(first, name, mode="PR"))["mode"] == "PR"
    first.feed(inputs.ClientGone(1))
    world.run()
    assert first.do(calls.Locks(SPACE), client=2)["clients"] == []
    waiting = [take(second, name) for name in names(MANY)]
    assert [second.reply(one)["mode"] for one in waiting] == ["EX"] * MANY


@pytest.mark.parametrize("who", [1, 2])
def test_what_a_gone_client_has_not_let_go_of_yet_refuses_no_try(world: World, who: int) -> None:
    first, asks = world.hosts[1], world.hosts[who]
    for name in names(MANY):
        assert first.reply(take(first, name))["mode"] == "EX"
    last = names(MANY)[-1]
    first.held = []  # no step of its own
    first.feed(inputs.ClientGone(1))
    asked = take(asks, last, client=2, wait_ms=0)
    assert asks.reply(asked)["mode"] == "EX"
    first.go_on()
    assert asks.do(calls.Locks(SPACE), client=2)["clients"][0]["resource"] == last


def test_many_orphans_are_purged_but_not_one_that_is_taken_over_meanwhile(world: World) -> None:
    first, second = world.hosts.values()
    for name in names(MANY):
        first.do(calls.Lock(SPACE, name, flags=Flag.PERSISTENT))
    first.feed(inputs.ClientGone(1))
    world.run()
    first.held, world.stopped = [], True  # a frame's step does a slice, too
    asked = first.ask(calls.PurgeOrphans(SPACE), client=2)
    assert first.reply(asked) is None, "most are still there"
    kept = names(MANY)[-1]
    assert first.do(calls.Lock(SPACE, kept, flags=Flag.ORPHAN), client=3)["mode"] == "EX"
    world.stopped = False
    first.go_on()
    assert first.reply(asked) == {"purged": MANY}
    (row,) = first.do(calls.Locks(SPACE), client=2)["clients"]
    assert (row["resource"], row["state"]) == (kept, "granted")
    waiting = [take(second, name) for name in names(MANY)]
    assert [bool(second.reply(one)) for one in waiting] == [True] * (MANY - 1) + [False]


def test_a_lockspace_with_many_locks_is_left_by_force(world: World) -> None:
    """In the middle of it a client may still let go of what it has, and gets nothing new."""
    first, second = world.hosts.values()
    taken = [take(first, name) for name in names(MANY)]
    locks = [first.reply(one)["lock"] for one in taken]
    orphan = first.do(calls.Lock(SPACE, "orphan", flags=Flag.PERSISTENT), client=4)["lock"]
    first.feed(inputs.ClientGone(4))
    world.run()
    waits = [take(second, name) for name in names(MANY)]
    late = first.ask(calls.Convert(locks[-2], "PR"))
    assert first.reply(late)["mode"] == "PR"
    first.held, world.stopped = [], True
    left = first.ask(calls.LeaveSpace(SPACE, force=True), client=2)
    rows = first.do(calls.Locks(SPACE), client=2)["clients"]
    assert 0 < len(rows) < MANY
    first.do(calls.Unlock(locks[-1]))
    with pytest.raises(Refused, match="leaves the lockspace"):
        first.do(calls.Lock(SPACE, "new"), client=3)
    with pytest.raises(Refused, match="leaves the lockspace"):
        first.do(calls.Lock(SPACE, "orphan", flags=Flag.ORPHAN), client=3)
    assert first.reply(left) is None
    world.stopped = False
    first.go_on()
    world.pass_ms(100)
    assert first.reply(left) == {"left": SPACE, "lost": MANY}
    told = [first.replies[one][-1].result for one in taken]
    assert told[:-1] == [{"lost": True, "lock": lock} for lock in locks[:-1]]
    assert told[-1]["mode"] == "EX", "it was let go of, not lost"
    assert [second.reply(one)["mode"] for one in waits] == ["EX"] * MANY
    assert orphan not in [row["lock"] for row in first.do(calls.Locks(), client=2)["clients"]]


def test_a_clean_leave_takes_many_orphans_along(world: World) -> None:
    first, second = world.hosts.values()
    for name in names(MANY):
        first.do(calls.Lock(SPACE, name, flags=Flag.PERSISTENT))
    first.feed(inputs.ClientGone(1))
    world.run()
    left = first.ask(calls.Leave(), client=2)
    assert first.reply(left)["message"] == "left the cluster"
    assert SPACE in host_state(second).lockspaces
    assert not host_state(second).lockspaces[SPACE].resources


def test_leaving_a_lockspace_gives_back_every_kept_lock(world: World) -> None:
    first, _ = world.hosts.values()
    for name in names(MANY):
        lock = first.reply(take(first, name))["lock"]
        first.do(calls.Unlock(lock))
    assert len(host_state(first).lockspaces[SPACE].resources) == MANY, "kept"
    left = first.ask(calls.LeaveSpace(SPACE))
    world.pass_ms(100)
    assert first.reply(left) == {"left": SPACE, "lost": 0}
    assert not host_state(first).lockspaces[SPACE].resources


def test_a_frame_has_no_more_entries_than_a_step_applies() -> None:
    life, outbox = Life(1, "m", "b", 1), Outbox(AT_ONCE)
    outbox.open(0)
    for number in range(7):
        outbox.submit(entries.LockCancel(SPACE, f"r{number}"), 0)
    said: list[list[tuple[int, int]]] = []
    while items := outbox.frame():
        payload = ring.encode(Epoch(1, 1), life, items)
        said.append([(one.seq, one.after) for one in ring.decode(payload).items])  # type: ignore[union-attr]
        assert outbox.more == (len(said) < 3)
    assert said == [[(1, 0), (2, 1), (3, 2)], [(4, 3), (5, 4), (6, 5)], [(7, 6)]]
    assert [outbox.waits(seq) for seq in (0, 1, 7, 8)] == [False, True, True, False]
    assert len(outbox.applied(5)) == 5
    assert [outbox.waits(seq) for seq in (5, 6, 7)] == [False, True, True]


def test_time_limits_end_in_their_order_however_many_ended_before(world: World) -> None:
    """The heap of limits is pruned of what ended long ago, and of nothing else."""
    first, second = world.hosts.values()
    take(first, "busy")
    patient = take(second, "busy", wait_ms=60_000)
    hurried = take(second, "busy", client=2, wait_ms=1_000)
    for number in range(400):
        lock = second.reply(take(second, f"free{number}", 3, 30_000))["lock"]
        second.do(calls.Unlock(lock), client=3)
    world.pass_ms(1_100)
    with pytest.raises(Exception, match="held EX"):
        second.reply(hurried)
    assert second.reply(patient) is None
    world.pass_ms(59_000)
    with pytest.raises(Exception, match="held EX"):
        second.reply(patient)


def test_who_loses_many_locks_tells_every_holder(world: World) -> None:
    first, _ = world.hosts.values()
    held = [take(first, name) for name in names(MANY)]
    assert all(first.reply(id)["mode"] == "EX" for id in held)
    waits = take(first, "r00", client=2)
    world.freeze(1)
    world.view(2)
    world.run()
    world.thaw(1, 1, 2)
    world.run()
    assert "stale" in first.kinds()
    assert all(first.reply(id).get("lost") for id in held)
    with pytest.raises(LocksLost):
        first.reply(waits)


# -- slices -------------------------------------------------------------------------------


def three(tmp_path: Path, at_once: int = AT_ONCE) -> World:
    """Three nodes in the lockspace; n1 holds many locks, n2 keeps one."""
    (tmp_path / str(at_once)).mkdir()
    world = World(tmp_path / str(at_once), 3, at_once=at_once)
    for host in world.hosts.values():
        host.ask(calls.JoinSpace(SPACE))
    world.pass_ms(300)
    for name in names(MANY):
        assert world.hosts[1].reply(take(world.hosts[1], name))["mode"] == "EX"
    second = world.hosts[2]
    second.do(calls.Unlock(second.reply(take(second, "own"))["lock"]))
    return world


def waiters(world: World) -> dict[int, list[str]]:
    return {id: [take(world.hosts[id], name) for name in names(MANY)[id - 2 :: 2]] for id in (2, 3)}


def lose_first(world: World) -> None:
    """n1 loses power, and a person says so; its bound has not passed yet."""
    world.cut(1)
    world.view(2, 3)
    world.run()
    world.pass_ms(300)
    world.hosts[2].do(calls.FenceConfirm("an-a01n01", "tester", "unplugged", world.now_ns), client=9)


def digests(world: World, *ids: int) -> set[tuple[int, str]]:
    states = [host_state(world.hosts[id]) for id in ids]
    return {(state.position, digest_of_state(state)) for state in states}


def until_middle(world: World, host: Host) -> None:
    """Let time pass until that host is in the middle of the purge; it is held there."""
    host.held = []
    world.until(lambda: not settled(host))


def settled(host: Host) -> bool:
    assert host.node is not None
    assert host.node.context is not None
    return host.node.context.settled


def test_it_makes_no_difference_how_the_slices_fall(tmp_path: Path) -> None:
    """The same story in slices of one lock, of three, and whole: one state, and the same tokens."""
    ends = []
    for at_once in (1, AT_ONCE, 10_000):
        world = three(tmp_path, at_once)
        asked = waiters(world)
        lose_first(world)
        world.pass_ms(5_000)
        told = [world.hosts[id].reply(one)["token"] for id in asked for one in asked[id]]
        ((_, digest),) = digests(world, 2, 3)
        ends.append((told, digest))
    assert ends[0] == ends[1] == ends[2]


def test_what_is_delivered_during_a_purge_comes_after_it(tmp_path: Path) -> None:
    world = three(tmp_path)
    asked = waiters(world)
    lose_first(world)
    second, third = world.hosts[2], world.hosts[3]
    until_middle(world, second)
    # The third is through; what it asks for next must find all of the purge done, on both.
    new = take(third, "own")
    other = take(third, "r00", client=2)
    position = host_state(second).position
    assert third.reply(asked[3][-1])["mode"] == "EX"
    assert host_state(third).position > position
    assert not settled(second)
    assert second.reply(asked[2][-1]) is None, "its turn has not come"
    world.pass_ms(100)
    assert host_state(second).position == position, "ticks and heartbeats move nothing"
    second.go_on()
    assert second.reply(asked[2][-1])["mode"] == "EX"
    world.pass_ms(100)
    assert third.reply(new)["mode"] == "EX", "kept by the second, and given back"
    assert third.reply(other) is None, "behind its waiter"
    assert len(digests(world, 2, 3)) == 1


def test_a_view_that_comes_during_a_purge_waits_for_its_end(tmp_path: Path) -> None:
    world = three(tmp_path)
    asked = waiters(world)
    lose_first(world)
    second, third = world.hosts[2], world.hosts[3]
    until_middle(world, second)
    world.view(2, 3)
    world.run()
    assert not settled(second)
    assert not third.running, "the second has not said Ready: it is still in the old view"
    second.go_on()
    world.pass_ms(300)
    assert third.running
    assert second.running
    assert [world.hosts[id].reply(one)["mode"] for id in asked for one in asked[id]] == ["EX"] * MANY
    assert len(digests(world, 2, 3)) == 1


def test_heartbeats_are_heard_during_a_purge(tmp_path: Path) -> None:
    """Else a long purge would cost a node its authority."""
    world = three(tmp_path)
    waiters(world)
    lose_first(world)
    second = world.hosts[2]
    until_middle(world, second)
    world.pass_ms(1_500)
    assert not settled(second)
    assert second.may_write("grant")
    second.go_on()


def test_the_loss_of_the_ring_during_a_purge_waits_for_its_end(tmp_path: Path) -> None:
    """What came before the loss was delivered to all: it counts."""
    world = three(tmp_path)
    waiters(world)
    lose_first(world)
    second = world.hosts[2]
    until_middle(world, second)
    second.feed(inputs.RingLost("gone"))
    assert second.running
    second.go_on()
    assert settled(second)
    assert not second.running
    world.view(2, 3)
    world.run()
    world.pass_ms(300)
    assert len(digests(world, 2, 3)) == 1


def test_pieces_of_two_snapshots_do_not_mix() -> None:
    state = ClusterState(ClusterConfig("c"), lockspaces={SPACE: Lockspace(SPACE)})
    for name in names(5):
        state.lockspaces[SPACE].resources.put(Resource(name, (Lock(1, Mode.EX),)))
    pieces = list(split(state, (2,), 2))
    assert [(one.number, one.last, bool(one.state)) for one in pieces] == [
        (0, False, False), (1, False, False), (2, False, False), (3, False, False), (4, True, False),
    ]  # fmt: skip
    gathering = Gathering()
    for one in (*pieces[:2], *pieces[3:], *pieces[1:]):
        assert gathering.add(1, one) is None, "not from its beginning"
    *most, last = pieces
    assert [gathering.add(1, one) for one in (*pieces[:3], *most)] == [None] * 7
    whole = gathering.add(1, last)
    assert whole is not None
    assert digest_of_state(whole) == digest_of_state(state)
    assert gathering.add(1, last) is None, "it was the last"
    (one,) = split(state, (2,), 5)
    assert gathering.add(1, one) is not None, "what fits is sent whole"


def test_pieces_of_two_senders_do_not_mix() -> None:
    """Whoever begins first, and however they alternate: each one's state is its own."""
    states = []
    for mode in (Mode.EX, Mode.PR):
        state = ClusterState(ClusterConfig("c"), lockspaces={SPACE: Lockspace(SPACE)})
        for name in names(5):
            state.lockspaces[SPACE].resources.put(Resource(name, (Lock(1, mode),)))
        states.append(state)
    first, second = (list(split(state, (3,), 2)) for state in states)
    gathering = Gathering()
    found = []
    for one, other in zip(first, second, strict=True):
        found += [gathering.add(1, one), gathering.add(2, other)]
    assert found[:-2] == [None] * 8
    assert [digest_of_state(one) for one in found[-2:]] == [digest_of_state(one) for one in states]
    for one in first[:2]:
        gathering.add(1, one)
    assert [gathering.add(2, one) for one in first[2:]] == [None] * 3, "begun by another"


def third_comes_back(world: World) -> tuple[Host, Host]:
    """n3 left, and is about to take the state of n1, which is held after its first piece; n1 and n3."""
    first, third = world.hosts[1], world.hosts[3]
    third.do(calls.Leave())
    world.cut(3)
    world.view(1, 2)
    world.run()
    world.pass_ms(300)
    first.held = []
    world.boot(3, 1, 2, 3)
    return first, third


def test_the_state_comes_in_pieces_and_from_another_if_its_sender_is_lost(tmp_path: Path) -> None:
    world = three(tmp_path)
    first, third = third_comes_back(world)
    assert first.held, "it has said a piece, and has more to say"
    assert not third.running
    world.cut(1)
    world.view(2, 3)
    world.run()
    world.pass_ms(300)
    assert third.running
    assert len(digests(world, 2, 3)) == 1
    assert len(host_state(third).lockspaces[SPACE].resources) == MANY + 1
    check_space(host_state(third).lockspaces[SPACE], frozen=True)


def test_who_takes_a_large_state_for_long_is_not_given_up_for_silent(tmp_path: Path) -> None:
    world = three(tmp_path, at_once=2)
    first, third = third_comes_back(world)
    life = third.node.context.life
    began_ns = world.now_ns
    for _ in range(MANY):
        world.pass_ms(TIMING.silent_ms // 3)  # what a slow host may need for a piece
        for again in first.held[:1]:
            first.held.remove(again)
            again()
        world.run()
    assert third.running
    assert world.now_ns - began_ns > 3 * TIMING.silent_ms * MS
    assert third.node.context.life == life, "it came in at its first try"
    first.go_on()
    world.pass_ms(300)
    assert len(digests(world, 1, 2, 3)) == 1
    assert not [one for host in world.hosts.values() for one in host.kinds() if one in ("victim", "stale")]


def test_who_gets_no_more_of_the_state_is_given_up_for_silent(tmp_path: Path) -> None:
    """It could be the one who has to say who else is silent."""
    world = three(tmp_path, at_once=2)
    first, third = third_comes_back(world)
    life = third.node.context.life
    world.pass_ms(2 * TIMING.silent_ms)
    first.go_on()
    world.pass_ms(300)
    assert third.node.context.life != life


def test_who_was_behind_takes_the_state_and_learns_what_it_missed(tmp_path: Path) -> None:
    """In pieces, too; and what is said after the first of them is applied after the last."""
    world = three(tmp_path)
    first, second, third = world.hosts.values()
    waiting = [take(second, name) for name in names(MANY)[:5]]
    held = [row["lock"] for row in first.do(calls.Locks(SPACE))["clients"][:5]]
    for lock in held:
        first.feed(inputs.Asked(1, Request(f"u{lock}", calls.Unlock(lock)), "tester"))
    payloads = [payload for _, payload in world.queue]
    for payload in payloads:  # delivered to two of three, then the view ends
        first.feed(inputs.Delivered(1, payload))
        third.feed(inputs.Delivered(1, payload))
    world.view(1, 2, 3)
    first.held = []
    world.run()
    assert first.held
    assert not second.running
    late = take(third, "late")
    first.go_on()
    world.pass_ms(300)
    assert [second.reply(one)["mode"] for one in waiting] == ["EX"] * 5
    assert third.reply(late)["mode"] == "EX"
    assert len(digests(world, 1, 2, 3)) == 1


def test_a_view_that_was_put_off_is_on_disk_before_anything_is_said_in_it(tmp_path: Path) -> None:
    """All of it in one step that ends with another node's locks."""
    world = World(tmp_path, 3, at_once=1)
    for host in world.hosts.values():
        host.ask(calls.JoinSpace(SPACE))
    world.pass_ms(300)
    first, second, third = world.hosts.values()
    for name in names(MANY):
        take(third, name)
    world.cut(3)
    world.view(1, 2)
    world.run()
    first.held = []
    world.until(lambda: bool(first.held))  # in the middle of the purge
    world.view(1, 2)
    world.run()
    assert first.node is not None
    assert first.node.context is not None
    while first.node.context.phase is not Phase.BARRIER:
        first.held.pop(0)()
        world.run()
    first.node.context.at_once = 100
    take(first, "mine")
    take(second, "theirs")
    assert first.disk.epoch < second.disk.epoch
    (again,) = first.held
    first.held = []
    again()
    assert first.running
    assert first.disk.epoch == second.disk.epoch
    assert [sender for sender, _ in world.queue] == [1], "its own request for a lock"
