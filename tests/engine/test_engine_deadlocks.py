"""Clients of several nodes that wait for one another: found, told, broken; and never made up."""

from pathlib import Path
from typing import Any

import pytest
from engine_ring import Host, World

from ringfence.core.errors import BadInput, Deadlock, Refused, TimedOut
from ringfence.core.evidence import Power
from ringfence.engine import deadlocks, pictures
from ringfence.engine.facts import DeadlockSought
from ringfence.engine.inputs import ClientGone, RingLost, Tick
from ringfence.wire import Speaks
from ringfence.wire import client as calls
from ringfence.wire.entries import Waits

FIRST, SECOND = "games", "books"


def made(tmp_path: Path, count: int, **options: Any) -> World:
    world = World(tmp_path, count, **options)
    world.pass_ms(1000)
    for host in world.hosts.values():
        host.do(calls.JoinSpace(FIRST))
        host.do(calls.JoinSpace(SECOND))
    world.pass_ms(500)
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return made(tmp_path, 3)


def lock(host: Host, space: str, name: str, mode: str = "EX", client: int = 1, **more: Any) -> str:
    return host.ask(calls.Lock(space, name, mode, **more), client=client)


def hold(host: Host, space: str, name: str, mode: str = "EX", client: int = 1, **more: Any) -> int:
    reply = host.reply(lock(host, space, name, mode, client, **more))
    assert reply is not None
    found: int = reply["lock"]
    return found


def found(host: Host) -> list[list[str]]:
    """The rings that `locks --deadlocks` tells, each as lines."""
    id = host.ask(calls.Deadlocks(), client=99)
    host.world.pass_ms(deadlocks.CONFIRM_MS + 200)
    reply = host.reply(id)
    assert reply is not None
    for ring in reply["deadlocks"]:
        assert len(ring["lines"]) == len(ring["ring"])
    return [ring["lines"] for ring in reply["deadlocks"]]


def test_nobody_waits(world: World) -> None:
    hold(world.hosts[1], FIRST, "a")
    assert [found(host) for host in world.hosts.values()] == [[], [], []]


def test_two_nodes_and_two_lockspaces(world: World) -> None:
    one, two, three = world.hosts.values()
    hold(one, FIRST, "a")
    hold(two, SECOND, "b")
    first = lock(one, SECOND, "b")
    assert found(three) == []
    second = lock(two, FIRST, "a", deadlock=True)
    (ring,) = found(three)
    assert sorted(ring) == [
        "tester on an-a01n01 waits for EX on books/b, which tester on an-a01n02 holds EX",
        "tester on an-a01n02 waits for EX on games/a, which tester on an-a01n01 holds EX",
    ]
    assert one.reply(first) is None
    assert two.reply(second) is None
    world.pass_ms(deadlocks.AFTER_MS + 500)
    with pytest.raises(Deadlock, match="games/a: to wait would be for ever: "):
        two.reply(second)
    assert one.reply(first) is None, "it did not ask, and the ring is broken"
    assert found(one) == []
    two.feed(ClientGone(1))
    world.run()
    assert one.reply(first)["mode"] == "EX"


def test_a_ring_of_three(world: World) -> None:
    hosts = list(world.hosts.values())
    for host, name in zip(hosts, "abc", strict=True):
        hold(host, FIRST, name)
    waits = [
        lock(host, FIRST, name, "PR", deadlock=True) for host, name in zip(hosts, "bca", strict=True)
    ]
    (ring,) = found(hosts[0])
    assert len(ring) == 3
    world.pass_ms(deadlocks.AFTER_MS + 1000)
    assert [_refused(host, id) for host, id in zip(hosts, waits, strict=True)] == [False, False, True]
    assert [host.kinds().count("deadlock") for host in hosts] == [0, 0, 1]


def _refused(host: Host, id: str) -> bool:
    try:
        assert host.reply(id) is None
    except Deadlock:
        return True
    return False


def test_only_the_newest_of_those_who_ask_is_refused(world: World) -> None:
    one, two, _ = world.hosts.values()
    hold(one, FIRST, "a")
    hold(two, FIRST, "b")
    first = lock(one, FIRST, "b", deadlock=True)
    world.pass_ms(3000)
    second = lock(two, FIRST, "a")  # it would rather wait
    world.pass_ms(deadlocks.PAUSE_MS)
    assert _refused(one, first)
    assert two.reply(second) is None


def test_a_node_with_very_many_locks_answers_in_slices(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = world.hosts.values()
    for number in range(40):
        hold(one, FIRST, f"x{number}", client=100 + number)
    monkeypatch.setattr(pictures, "SLICE", 1)
    hold(one, FIRST, "a")
    hold(two, FIRST, "b")
    lock(one, FIRST, "b")
    lock(two, FIRST, "a")
    one.held = []
    asked = two.ask(calls.Deadlocks(), client=9)
    world.pass_ms(100)
    assert two.reply(asked) is None, "the first slices are not all"
    one.go_on()
    world.pass_ms(1500)  # no time for one slice a tick
    assert len(two.reply(asked)["deadlocks"]) == 1


def test_clients_of_one_node(world: World) -> None:
    one = world.hosts[1]
    hold(one, FIRST, "a", client=1)
    hold(one, FIRST, "b", client=2)
    first = lock(one, FIRST, "b", client=1)
    second = lock(one, FIRST, "a", client=2, deadlock=True)
    assert len(found(world.hosts[2])) == 1
    world.pass_ms(2000)
    assert _refused(one, second)
    assert one.reply(first) is None


def test_conversions_that_were_allowed_to_wait(world: World) -> None:
    """NODLCKWT: the rule for one resource is off, and the search is asked instead."""
    one, two, _ = world.hosts.values()
    nodlckwt = 0x100
    held = [hold(host, FIRST, "a", "PR") for host in (one, two)]
    first = one.ask(calls.Convert(held[0], "EX", flags=nodlckwt))
    second = two.ask(calls.Convert(held[1], "EX", flags=nodlckwt, deadlock=True))
    world.pass_ms(3000)
    assert _refused(two, second)
    assert one.reply(first) is None
    two.do(calls.Unlock(held[1]))
    assert one.reply(first)["mode"] == "EX"


def test_conversions_of_one_resource_are_refused_at_once(world: World) -> None:
    one, two, _ = world.hosts.values()
    held = [hold(host, FIRST, "a", "PR") for host in (one, two)]
    first = one.ask(calls.Convert(held[0], "EX"))
    with pytest.raises(Deadlock):
        two.do(calls.Convert(held[1], "EX"))
    assert one.reply(first) is None


def test_a_ring_through_the_order_of_the_queue(world: World) -> None:
    """A reader waits behind a writer, which waits for a reader, which waits for what the first holds."""
    one, two, three = world.hosts.values()
    hold(one, FIRST, "a", "PR", client=1)
    hold(three, FIRST, "b")
    writer = lock(two, FIRST, "a", "EX", deadlock=True)
    reader = lock(three, FIRST, "a", "PR")
    last = lock(one, FIRST, "b", "PR", client=1)
    (ring,) = found(two)
    assert "behind tester on an-a01n02, which waits for EX" in "; ".join(ring)
    world.pass_ms(2500)
    assert _refused(two, writer)
    assert three.reply(reader)["mode"] == "PR"
    assert one.reply(last) is None


def test_a_reader_that_is_not_let_in_under_its_nodes_lock(world: World) -> None:
    """Other nodes come first: this is an order, too."""
    one, two, _ = world.hosts.values()
    hold(one, FIRST, "a", "PR", client=1)
    hold(one, FIRST, "b", client=2)
    writer = lock(two, FIRST, "a", "EX")
    world.pass_ms(100)  # the minimum hold time is over
    reader = lock(one, FIRST, "a", "PR", client=2)
    last = lock(one, FIRST, "b", client=1, deadlock=True)
    assert len(found(two)) == 1
    world.pass_ms(2500)
    assert _refused(one, last)
    one.feed(ClientGone(1))
    world.run()
    assert two.reply(writer)["mode"] == "EX"
    assert one.reply(reader) is None


def test_an_owner_ties_connections_together_on_any_node(world: World) -> None:
    one, two, _ = world.hosts.values()
    hold(one, FIRST, "a", client=1, owner="job 7")
    hold(two, FIRST, "b", client=1)
    lock(one, FIRST, "b", client=2)
    lock(two, FIRST, "a", client=1)
    assert found(one) == [], "the holder of a waits for nothing"
    lock(two, FIRST, "b", client=5, owner="job 7")
    (ring,) = found(one)
    assert "tester (job 7) on an-a01n02 waits for EX on games/b" in "; ".join(ring)
    with pytest.raises(BadInput, match="at most 64 bytes"):
        one.do(calls.Lock(FIRST, "z", owner="x" * 65))


def test_a_thread_s_connections_are_one_owner(world: World) -> None:
    """A client has a connection for locks that it is told about, and others for the rest."""
    one, two, _ = world.hosts.values()
    for host, mine in ((one, "a"), (two, "b")):
        hold(host, FIRST, mine, client=1, thread="t", notices=True)
        hold(host, SECOND, mine, client=2, thread="t")
    lock(one, FIRST, "b", client=2, thread="t")
    assert found(one) == []
    second = lock(two, FIRST, "a", client=3, thread="t", deadlock=True)
    ((first, other),) = found(one)
    assert "tester on an-a01n0" in first
    assert "tester on an-a01n0" in other
    world.pass_ms(deadlocks.AFTER_MS + 500)
    assert _refused(two, second)


def test_threads_that_share_a_connection_are_two_owners(world: World) -> None:
    one, two, _ = world.hosts.values()
    hold(one, FIRST, "a", thread="holds")
    hold(two, FIRST, "b")
    lock(one, FIRST, "b", thread="waits")
    second = lock(two, FIRST, "a", deadlock=True)
    assert found(one) == []
    world.pass_ms(deadlocks.PAUSE_MS)
    assert two.reply(second) is None, "who holds it waits for nothing"
    with pytest.raises(BadInput, match="at most 64 bytes"):
        one.do(calls.Lock(FIRST, "z", thread="x" * 65))


@pytest.mark.parametrize("thread", ["", "t"])
def test_a_cached_lock_stands_for_itself(world: World, thread: str) -> None:
    """It may be of no use to who asked for it first, or be another one's by now."""
    one, two, _ = world.hosts.values()
    hold(one, FIRST, "a", cached=True, thread=thread)
    hold(one, FIRST, "c", thread=thread)
    hold(two, FIRST, "b")
    lock(one, FIRST, "b", thread=thread)
    lock(two, FIRST, "a")
    assert found(one) == []
    hold(one, FIRST, "d", cached=True, owner="job 7")
    hold(two, FIRST, "e", client=3)
    lock(one, FIRST, "e", client=2, owner="job 7")
    lock(two, FIRST, "d", client=3)
    assert len(found(one)) == 1, "its users have named their owner"


def test_more_names_than_are_remembered(world: World) -> None:
    one, two, _ = world.hosts.values()
    hold(one, FIRST, "a", thread="t")
    for number in range(150):
        hold(one, SECOND, f"{number}", thread=f"t{number}")
    hold(two, FIRST, "b")
    lock(one, FIRST, "b", thread="t")
    lock(two, FIRST, "a")
    assert len(found(one)) == 1


def test_a_lock_that_its_owner_holds_already(world: World) -> None:
    one = world.hosts[1]
    hold(one, FIRST, "a", owner="me", client=1)
    again = lock(one, FIRST, "a", owner="me", client=2, deadlock=True)
    assert found(one) == [
        ["tester (me) on an-a01n01 waits for EX on games/a, which tester (me) on an-a01n01 holds EX"]
    ]
    world.pass_ms(2500)
    assert _refused(one, again)


def test_who_waits_for_a_victim_waits_in_no_ring(world: World) -> None:
    one, two, _ = world.hosts.values()
    hold(one, FIRST, "a")
    hold(two, FIRST, "b")
    waiting = lock(one, FIRST, "b", deadlock=True)
    lock(two, FIRST, "a")
    world.says["bmc2", "off"] = world.says["pdu2", "off"] = Power.UNKNOWN
    world.freeze(2)
    world.view(1, 3)
    world.run()
    world.pass_ms(4000)
    assert one.node.context.state.frozen
    assert found(one) == []
    assert one.reply(waiting) is None


def test_a_conversion_that_a_freeze_puts_off_is_behind_no_request(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    reads = hold(one, FIRST, "a", "PR")
    writes = lock(two, FIRST, "a", deadlock=True)
    for device in ("bmc3", "pdu3"):
        world.says[device, "off"] = Power.UNKNOWN
    world.cut(3)
    world.view(1, 2)
    world.run()
    world.pass_ms(300)
    raises = one.ask(calls.Convert(reads, "EX", deadlock=True))
    assert found(two) == [], "once nothing is frozen it goes first"
    world.pass_ms(3 * deadlocks.AFTER_MS)
    assert (one.reply(raises), two.reply(writes)) == (None, None)
    one.do(calls.FenceConfirm("an-a01n03", "op", "pulled the plug", world.now_ns))
    world.until(lambda: one.reply(raises) is not None)


def test_a_ring_that_dissolves_between_the_pictures_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first picture shows it; then somebody lets go, before the second is taken."""
    one, two, three = world.hosts.values()
    held = hold(one, FIRST, "a")
    hold(two, FIRST, "b")
    waiting = lock(two, FIRST, "a")
    lock(one, FIRST, "b")
    real, seen = deadlocks.rings, []

    def rings(links: Any) -> Any:
        world.stopped = not seen  # the first picture is complete, and the next entry waits
        seen.append(real(links))
        return seen[-1]

    monkeypatch.setattr(deadlocks, "rings", rings)
    asked = three.ask(calls.Deadlocks())
    one.ask(calls.Unlock(held))
    world.go_on()
    world.pass_ms(500)
    assert [len(one) for one in seen] == [1, 0]
    assert three.reply(asked)["deadlocks"] == []
    assert two.reply(waiting)["mode"] == "EX"


def test_another_ring_in_the_second_picture_is_not_the_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be one that never was, as the first may have been."""
    one, two = world.hosts[1], world.hosts[2]

    def make_ring(clients: tuple[int, int]) -> None:
        for client, name in zip(clients, "ab", strict=True):
            hold(one, FIRST, name, client=client)
        for client, name in zip(clients, "ba", strict=True):
            lock(one, FIRST, name, client=client)

    make_ring((1, 2))
    real, seen = deadlocks.rings, []

    def rings(links: Any) -> Any:
        world.stopped = not seen
        seen.append(real(links))
        return seen[-1]

    monkeypatch.setattr(deadlocks, "rings", rings)
    asked = two.ask(calls.Deadlocks())
    for client in (1, 2):
        one.feed(ClientGone(client))
    make_ring((3, 4))  # under the locks that the node has kept
    world.go_on()
    world.pass_ms(500)
    assert two.reply(asked)["deadlocks"] == []
    assert len(found(two)) == 1


def test_a_ring_that_was_never_there_at_one_moment(world: World) -> None:
    """Each node's picture is true when it is made; together they show a ring that never was.

    Host 2 tells that b is held and its holder waits for a; then all that changes, and only afterwards
    does host 1 come to wait for b, and tell of it."""
    one, two, three = world.hosts.values()
    hold(one, FIRST, "a")
    held = hold(two, FIRST, "b")
    lock(three, FIRST, "b", client=4)
    lock(three, FIRST, "a", client=5)
    waiting = lock(two, FIRST, "a", wait_ms=60_000)
    context = one.node.context
    real = context.submit
    told: list[Waits] = []

    def submit(entry: Any, **how: Any) -> int:
        if isinstance(entry, Waits) and not told:
            told.append(entry)
            return 0  # host 1 is slow to answer
        return real(entry, **how)

    context.submit = submit
    asked = three.ask(calls.Deadlocks())
    assert told
    # Host 2's picture is out.  Its client gives up and lets go; another takes b, and host 1 waits for it.
    two.feed(ClientGone(1))
    three.feed(ClientGone(4))
    world.run()
    assert two.reply(waiting) is None
    assert hold(two, FIRST, "b", client=3) != held
    lock(one, FIRST, "b")
    context.submit = real
    # Now host 1 answers, with what is true of it by now.
    one.node._running.facts([DeadlockSought(told[0].by, told[0].number)])
    one.feed(Tick())
    world.run()
    world.pass_ms(500)
    assert three.reply(asked)["deadlocks"] == []


def test_members_that_leave_end_a_search(world: World) -> None:
    one, two, _ = world.hosts.values()
    hold(one, FIRST, "a")
    hold(two, FIRST, "b")
    lock(one, FIRST, "b")
    lock(two, FIRST, "a")
    world.freeze(3)  # it will not answer
    asked = one.ask(calls.Deadlocks(), client=5)
    assert one.reply(asked) is None
    world.view(1, 2)
    world.run()
    world.pass_ms(500)
    assert len(one.reply(asked)["deadlocks"]) == 1


def test_a_member_that_is_another_life_by_now_is_not_waited_for(world: World) -> None:
    one = world.hosts[1]
    world.freeze(3)
    asked = one.ask(calls.Deadlocks(), client=5)
    world.cut(3)
    world.boot(3, 1, 2, 3)
    world.pass_ms(500)
    assert one.reply(asked) == {"deadlocks": []}


def test_a_silent_member_that_was_removed_is_not_waited_for(world: World) -> None:
    one = world.hosts[1]
    world.freeze(3)
    asked = one.ask(calls.Deadlocks(), client=5)
    world.pass_ms(5000)
    assert 3 not in one.node.context.state.lives
    assert one.reply(asked) == {"deadlocks": []}


def test_a_search_that_nobody_answers_says_who(world: World) -> None:
    one = world.hosts[1]
    world.freeze(3)
    asked = one.ask(calls.Deadlocks(), client=5)
    for _ in range(deadlocks.ANSWER_MS // 50 + 10):
        world.now_ns += 50_000_000
        one.feed(Tick())
    with pytest.raises(TimedOut, match="deadlocks: an-a01n03 has not answered"):
        one.reply(asked)


def test_a_search_is_not_repeated_more_and_more_often(world: World) -> None:
    one, two, _ = world.hosts.values()
    hold(one, FIRST, "a")
    searches = 0
    real = two.node.context.submit

    def submit(entry: Any, **how: Any) -> int:
        nonlocal searches
        searches += type(entry).__name__ == "SearchDeadlock"
        return real(entry, **how)

    two.node.context.submit = submit
    lock(two, FIRST, "a", deadlock=True)
    world.pass_ms(60_000)
    assert 5 <= searches <= 8


def test_an_older_protocol_does_not_have_it(tmp_path: Path) -> None:
    world = made(tmp_path, 2, speaks=Speaks(1, 1))
    one, two = world.hosts.values()
    hold(one, FIRST, "a")
    hold(two, FIRST, "b")
    lock(one, FIRST, "b", deadlock=True)
    waiting = lock(two, FIRST, "a", deadlock=True)
    with pytest.raises(Refused, match="speaks protocol 1, and looks for deadlocks from 2 on"):
        one.do(calls.Deadlocks())
    world.pass_ms(5000)
    assert two.reply(waiting) is None


def test_without_a_ring_there_is_no_search(world: World) -> None:
    one = world.hosts[1]
    one.feed(RingLost("the hub is gone"))
    with pytest.raises(Refused, match="cannot act now"):
        one.do(calls.Deadlocks())


def test_volume_commands_count(world: World) -> None:
    """An activation that has its LV's lock waits for the VG's, which a program holds that wants the LV's."""
    one, two, _ = world.hosts.values()
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(500)
    made = one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20, activate="n"))
    world.pass_ms(500)
    held = hold(two, "lvm_vg0", made["uuid"], client=8)
    command = one.ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=None))
    hold(two, "lvm_vg0", "VGLK", client=9)
    two.do(calls.Unlock(held), client=8)
    assert one.reply(command) is None
    lost = lock(two, "lvm_vg0", made["uuid"], client=9, deadlock=True)
    (ring,) = found(one)
    assert "lvchange vg0/vm1 on an-a01n01 waits for PR on lvm_vg0/VGLK" in "; ".join(ring)
    world.pass_ms(2500)
    assert _refused(two, lost)
    two.feed(ClientGone(9))
    world.run()
    assert one.reply(command)["mode"] == "EX"
