"""Leaving with clients about: what they merely cache comes back, what they use is in the way."""

from pathlib import Path
from typing import Any

import pytest
from engine_ring import TIMING, Host, World

from ringfence.core.errors import Refused
from ringfence.engine.inputs import ClientGone
from ringfence.locks.flags import Flag
from ringfence.wire import client as calls

ALICE, BOB, CAROL = 11, 12, 13
LEAVES = [calls.LeaveSpace("games"), calls.Leave()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 2)
    world.pass_ms(1000)
    for host in world.hosts.values():
        host.do(calls.JoinSpace("games"))
    return world


def cache(host: Host, client: int, name: str = "chess", mode: str = "EX") -> tuple[str, int]:
    """The request that notices come under, and the lock."""
    id = host.ask(calls.Lock("games", name, mode, cached=True), client)
    return id, host.reply(id)["lock"]


def asked_back(host: Host, id: str, lock: int) -> bool:
    return bool(host.reply(id) == {"blocking": "EX", "lock": lock, "tries": True})


def left(host: Host, leaving: str, call: Any) -> bool:
    world = host.world
    world.pass_ms(200)
    return host.ended is not None if isinstance(call, calls.Leave) else host.reply(leaving)["left"] == "games"


@pytest.mark.parametrize("call", LEAVES, ids=["lockspace", "cluster"])
def test_what_clients_merely_cache_is_asked_back(world: World, call: Any) -> None:
    one, two = world.hosts[1], world.hosts[2]
    kept = [(ALICE, *cache(one, ALICE)), (BOB, *cache(one, BOB, "go")), (BOB, *cache(one, BOB, "xo", "PR"))]
    leaving = one.ask(call)
    for client, id, lock in kept:
        assert asked_back(one, id, lock)
        assert leaving not in one.replies
        one.ask(calls.Unlock(lock, quiet=True), client)
    assert left(one, leaving, call)
    assert two.do(calls.Lock("games", "chess", wait_ms=0), CAROL)["lvb_valid"]


@pytest.mark.parametrize("call", LEAVES, ids=["lockspace", "cluster"])
def test_a_cached_lock_that_is_in_use_is_in_the_way(world: World, call: Any) -> None:
    one = world.hosts[1]
    id, lock = cache(one, ALICE)
    leaving = one.ask(call)
    assert asked_back(one, id, lock)
    with pytest.raises(Refused, match="leaves the lockspace"):
        one.do(calls.Lock("games", "go"), BOB)
    one.do(calls.Busy(lock), ALICE)
    with pytest.raises(Refused, match=r"an-a01n01 still has locks in use: games/chess \(tester\)"):
        one.reply(leaving)
    other = one.do(calls.Lock("games", "go"), BOB)["lock"]
    one.do(calls.Unlock(other), BOB)
    again = one.ask(call)
    assert again not in one.replies, "an old word says nothing of now"
    one.ask(calls.Unlock(lock, quiet=True), ALICE)
    assert left(one, again, call)


@pytest.mark.parametrize("call", LEAVES, ids=["lockspace", "cluster"])
def test_a_client_that_does_not_answer_is_given_five_seconds(world: World, call: Any) -> None:
    one = world.hosts[1]
    id, lock = cache(one, ALICE)
    leaving = one.ask(call)
    assert 4900 <= world.until(lambda: leaving in one.replies) <= 5100
    with pytest.raises(Refused, match=r"no answer came .*: games/chess \(tester\)"):
        one.reply(leaving)
    assert one.replies[id][-1].result["lock"] == lock
    assert one.do(calls.Lock("games", "go"), BOB), "it has not left"
    again = one.ask(calls.LeaveSpace("games"))
    with pytest.raises(Refused, match="games/go"):
        one.reply(again)


def test_who_ends_while_it_is_asked_is_in_nobodys_way(world: World) -> None:
    one = world.hosts[1]
    cache(one, ALICE)
    leaving = one.ask(calls.LeaveSpace("games"))
    one.feed(ClientGone(ALICE))
    assert left(one, leaving, calls.LeaveSpace("games"))


def test_nothing_is_closed_by_a_leave_that_a_client_is_in_the_way_of(world: World) -> None:
    one = world.hosts[1]
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(200)
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20))
    _, lock = cache(one, ALICE)
    waits = one.ask(calls.Lock("games", "chess"), BOB)
    leaving = one.ask(calls.Leave())
    with pytest.raises(Refused, match="leaves the cluster"):
        one.reply(waits)
    one.do(calls.Busy(lock), ALICE)
    with pytest.raises(Refused, match="games/chess"):
        one.reply(leaving)
    assert list(one.paths) == [("vg0", "vm1")]


@pytest.mark.parametrize("alone", [True, False], ids=["no quorum", "no ring"])
def test_who_never_got_in_has_nothing_to_leave(tmp_path: Path, alone: bool) -> None:
    world = World(tmp_path, 3, members=(1,) if alone else (2,))
    one = world.hosts[1]
    if not alone:
        one.start()
    leaving = one.ask(calls.Leave())
    assert "there is nothing to leave" in one.reply(leaving)["message"]
    assert one.ended is not None
    assert not one.ended.failed


def test_who_was_in_before_it_was_started_anew_is_let_in_and_leaves(tmp_path: Path) -> None:
    """The others still wait for it, and would fence it: it must say goodbye, in a life that they know."""
    world = World(tmp_path, 3)
    world.pass_ms(1000)
    one, two = world.hosts[1], world.hosts[2]
    one.kill()
    world.view(2, 3, how="procdown")
    world.run()
    one.start()
    leaving = one.ask(calls.Leave())
    world.pass_ms(500)
    assert one.ended is None, "it ends as if nobody missed it"
    world.view(1, 2, 3)
    world.until(lambda: one.ended is not None)
    assert one.reply(leaving)["message"] == "left the cluster"
    world.view(2, 3, how="leave")
    world.run()
    world.pass_ms(2 * TIMING.grace_ms)
    assert two.runs == []
    assert two.do(calls.Status())["members"][0]["state"] == "left"
    one.start()
    assert "there is nothing to leave" in one.reply(one.ask(calls.Leave()))["message"]


def test_who_was_in_and_has_lost_the_others_is_not_out(tmp_path: Path) -> None:
    world = World(tmp_path, 3)
    world.pass_ms(1000)
    world.view(1)
    world.run()
    world.hosts[1].ask(calls.Leave(force=True))
    world.pass_ms(5000)
    assert world.hosts[1].ended is None


def test_by_force_volumes_are_closed_and_then_clients_lose_their_locks(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(200)
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20))
    two.do(calls.Lock("games", "chess", "NL"), CAROL)
    held = one.ask(calls.Lock("games", "chess"), ALICE)
    lock = one.reply(held)["lock"]
    with pytest.raises(Refused, match="games/chess"):
        one.do(calls.Leave())
    one.ask(calls.Leave(force=True))
    world.pass_ms(200)
    assert one.ended is not None
    assert not one.ended.failed
    assert not one.paths
    assert one.reply(held) == {"lost": True, "lock": lock}
    world.view(2)
    world.run()
    assert two.node.context.state.victims() == []
    assert not two.do(calls.Lock("games", "chess"), CAROL)["lvb_valid"], "its client might have written"
    two.do(calls.LvChange("vg0", "vm1", activate="ey"))


def test_many_cached_locks_are_asked_for_in_slices(tmp_path: Path) -> None:
    world = World(tmp_path, 1, at_once=10)
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.JoinSpace("games"))
    kept = [cache(one, ALICE, f"game{number}") for number in range(45)]
    one.held = []
    leaving = one.ask(calls.LeaveSpace("games"))
    asked = [id for id, _ in kept if one.replies[id][-1].final is False and "tries" in one.reply(id)]
    assert 0 < len(asked) <= 20
    one.go_on()
    for id, lock in kept:
        assert asked_back(one, id, lock)
        one.ask(calls.Unlock(lock, quiet=True), ALICE)
    assert left(one, leaving, calls.LeaveSpace("games"))


def test_who_leaves_for_good_takes_its_orphans_along(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    two.do(calls.Lock("games", "chess", "NL"), CAROL)
    one.do(calls.Lock("games", "chess", flags=Flag.PERSISTENT), ALICE)
    one.do(calls.Lock("games", "go", "PR", flags=Flag.PERSISTENT), ALICE)
    one.feed(ClientGone(ALICE))
    one.ask(calls.Leave())
    world.pass_ms(200)
    assert one.ended is not None
    assert not one.ended.failed
    world.view(2)
    world.run()
    world.pass_ms(500)
    assert two.node.context.state.victims() == []
    assert not two.do(calls.Lock("games", "chess", "PR"), CAROL)["lvb_valid"], "its client might have written"
    assert two.do(calls.Lock("games", "go"), CAROL)["lvb_valid"]


def test_why_names_an_orphan_and_how_it_ends(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    one.do(calls.Lock("games", "chess", flags=Flag.PERSISTENT), ALICE)
    one.feed(ClientGone(ALICE))
    two.ask(calls.Lock("games", "chess"), CAROL)
    (line,) = [line for line in one.do(calls.Why("games/chess"))["lines"] if "orphan" in line]
    assert line.startswith("on an-a01n01, an orphan holds it EX since ")
    assert line.endswith("ringfence lockspace purge games chess")


def test_why_says_what_a_client_that_caches_was_asked(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    _, lock = cache(one, ALICE)

    def why() -> str:
        (line,) = [line for line in one.do(calls.Why("games/chess"))["lines"] if "caches" in line]
        return str(line)

    assert why().endswith("it caches it: it is asked when somebody wants it")
    two.ask(calls.Lock("games", "chess", wait_ms=0), CAROL)
    assert "it caches it, and has not answered since " in why()
    one.do(calls.Busy(lock), ALICE)
    assert why().endswith("it caches it: it is asked when somebody wants it")
    two.ask(calls.Lock("games", "chess"), CAROL)
    assert "it caches it, and was asked for it at " in why()
