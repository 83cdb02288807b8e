"""What clients ask of their node, as it goes through the cluster: flags, orphans, names, turns."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_ring import TIMING, Host, World

from ringfence.core.errors import BadInput, LockHeld, NotFound, Refused
from ringfence.engine.inputs import ClientGone, Tick
from ringfence.locks.flags import Flag
from ringfence.wire import client as calls

ALICE, BOB = 11, 12


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, 3)
    world.pass_ms(1000)
    for host in world.hosts.values():
        host.do(calls.JoinSpace("games"))
    return world


def lock(host: Host, client: int, mode: str = "EX", *, name: str = "chess", **more: Any) -> Any:
    return host.do(calls.Lock("games", name, mode, notices=True, **more), client)


def gone(host: Host, client: int) -> None:
    host.feed(ClientGone(client))
    host.world.run()


def rows(host: Host) -> list[tuple[str, str, str]]:
    return [(one["resource"], one["mode"], one["state"]) for one in host.do(calls.Locks("games"))["clients"]]


# -- orphans -----------------------------------------------------------------------


def test_a_persistent_lock_outlives_its_client(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    held = lock(one, ALICE, flags=Flag.PERSISTENT)
    lock(one, ALICE, "PR", name="go")
    gone(one, ALICE)
    assert rows(one) == [("chess", "EX", "orphan")]
    with pytest.raises(LockHeld, match="held EX by an-a01n01"):
        lock(two, BOB, wait_ms=0)
    with pytest.raises(LockHeld, match="no orphan here is PR"):
        lock(one, BOB, "PR", flags=Flag.ORPHAN)
    with pytest.raises(NotFound, match="there is no orphan of it here"):
        lock(two, BOB, flags=Flag.ORPHAN)
    adopted = lock(one, BOB, flags=Flag.ORPHAN)
    assert (adopted["lock"], adopted["token"]) == (held["lock"], held["token"])
    assert rows(one) == [("chess", "EX", "granted")]
    one.do(calls.Unlock(adopted["lock"]), BOB)
    lock(two, BOB, wait_ms=0)


def test_an_orphan_is_purged(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    lock(two, BOB, "NL")
    lock(one, ALICE, flags=Flag.PERSISTENT)
    lock(one, ALICE, name="go", flags=Flag.PERSISTENT)
    gone(one, ALICE)
    with pytest.raises(Refused, match=r"left orphans on an-a01n01 \(2\)") as refused:
        one.do(calls.LeaveSpace("games"))
    assert "ringfence lockspace purge games" in refused.value.next
    assert one.do(calls.PurgeOrphans("games", "go")) == {"purged": 1}
    assert rows(one) == [("chess", "EX", "orphan")]
    assert one.do(calls.PurgeOrphans("games")) == {"purged": 1}
    assert not lock(two, BOB + 1, "PR")["lvb_valid"], "its client might have written"
    assert one.do(calls.PurgeOrphans("games")) == {"purged": 0}


def test_an_adopter_hears_who_waits(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    lock(one, ALICE, flags=Flag.PERSISTENT)
    gone(one, ALICE)
    waiting = two.ask(calls.Lock("games", "chess", "PR"), BOB)
    id = one.ask(calls.Lock("games", "chess", "EX", flags=Flag.ORPHAN, notices=True), BOB)
    adopted, notice = (reply.result for reply in one.replies[id])
    assert notice == {"blocking": "PR", "lock": adopted["lock"]}
    one.do(calls.Convert(adopted["lock"], "NL"), BOB)
    assert two.reply(waiting)["mode"] == "PR"


def test_who_waits_behind_an_orphan_is_told_so(world: World) -> None:
    one = world.hosts[1]
    lock(one, ALICE, flags=Flag.PERSISTENT)
    gone(one, ALICE)
    one.ask(calls.Lock("games", "chess", "PR"), BOB)
    (wait,) = one.do(calls.Locks("games"))["waits"]
    assert wait["lines"][1] == "behind an orphan on an-a01n01, which holds EX"


# -- taking back -------------------------------------------------------------------------


def test_unlock_by_force_ends_what_is_in_flight(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    mine = lock(one, ALICE, "PR")["lock"]
    lock(two, BOB, "PR")
    converting = one.ask(calls.Convert(mine, "EX"), ALICE)
    with pytest.raises(Refused, match="in flight"):
        one.do(calls.Unlock(mine), ALICE)
    assert one.do(calls.Unlock(mine, flags=Flag.FORCEUNLOCK), ALICE) == {"released": True}
    with pytest.raises(Refused, match="not waited for any more"):
        one.reply(converting)
    assert rows(one) == []


def test_cancel_takes_back_a_conversion_and_no_more(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    mine = lock(one, ALICE, "PR")["lock"]
    lock(two, BOB, "PR")
    converting = one.ask(calls.Convert(mine, "EX"), ALICE)
    assert one.do(calls.Unlock(mine, flags=Flag.CANCEL), ALICE)["mode"] == "PR"
    with pytest.raises(Refused, match="not waited for any more"):
        one.reply(converting)
    assert rows(one) == [("chess", "PR", "granted")]
    with pytest.raises(Refused, match="EBUSY"):
        one.do(calls.Unlock(mine, flags=Flag.CANCEL), ALICE)
    with pytest.raises(BadInput, match="do not go together"):
        one.do(calls.Unlock(mine, flags=Flag.CANCEL | Flag.FORCEUNLOCK), ALICE)


@pytest.mark.parametrize("wrong", [{"flags": Flag.CANCEL | Flag.FORCEUNLOCK}, {"flags": Flag.QUECVT},
                                   {"flags": Flag.FORCEUNLOCK, "lvb": b"short"}])  # fmt: skip
def test_an_unlock_that_cannot_be_leaves_what_is_in_flight_alone(world: World, wrong: dict[str, Any]) -> None:
    one, two = world.hosts[1], world.hosts[2]
    mine = lock(one, ALICE, "PR")["lock"]
    theirs = lock(two, BOB, "PR")["lock"]
    converting = one.ask(calls.Convert(mine, "EX"), ALICE)
    with pytest.raises(BadInput, match="do not go together"):
        one.do(calls.Unlock(mine, **wrong), ALICE)
    assert one.reply(converting) is None
    two.do(calls.Unlock(theirs), BOB)
    assert one.reply(converting)["mode"] == "EX"


@pytest.mark.parametrize("node", [1, 2])
@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_who_gave_up_its_mode_and_then_the_wait_is_told_what_it_holds(
    world: World, node: int, how: str
) -> None:
    one, other = world.hosts[1], world.hosts[node]
    mine, theirs = lock(one, ALICE, "PR")["lock"], lock(other, BOB, "PR")["lock"]
    first = other.ask(calls.Convert(theirs, "EX"), BOB)
    mine_raises = one.ask(calls.Convert(mine, "EX", wait_ms=500, flags=Flag.CONVDEADLK), ALICE)
    assert other.reply(first)["mode"] == "EX"
    if how == "cancelled":
        assert one.do(calls.Cancel(mine_raises), ALICE) == {"cancelled": True}
    world.pass_ms(1000)
    (answer,) = one.replies[mine_raises]
    assert answer.error is not None
    assert (answer.result["mode"], answer.result["demoted"]) == ("NL", True)
    assert one.do(calls.Unlock(mine), ALICE)


# -- other flags -------------------------------------------------------------------------


def test_the_alternative_is_told_with_the_grant(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    lock(one, ALICE, "PR")
    told = lock(two, BOB, "EX", flags=Flag.ALTPR)
    assert (told["mode"], told["altmode"]) == ("PR", True)
    assert not lock(two, BOB, "EX", name="go", flags=Flag.ALTPR)["altmode"]


def test_a_failed_try_may_send_notices(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    id = one.ask(calls.Lock("games", "chess", "PR", notices=True), ALICE)
    for flags in (0, Flag.NOQUEUEBAST, Flag.NOQUEUEBAST):
        with pytest.raises(LockHeld):
            lock(two, BOB, wait_ms=0, flags=flags)
    told = [reply.result["blocking"] for reply in one.replies[id][1:]]
    assert told == ["EX"]


def test_timeout_is_the_time_limit_or_nothing(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    lock(one, ALICE)
    with pytest.raises(BadInput, match="do not go together"):
        lock(two, BOB, flags=Flag.TIMEOUT)
    id = two.ask(calls.Lock("games", "chess", wait_ms=300, flags=Flag.TIMEOUT), BOB)
    world.pass_ms(400)
    with pytest.raises(Refused, match="is held EX by an-a01n01"):
        two.reply(id)


def test_what_is_for_nodes_to_say_no_client_may(world: World) -> None:
    for flags in (Flag.TRY, Flag.YIELDS):
        with pytest.raises(BadInput, match="not all known here"):
            lock(world.hosts[1], ALICE, flags=flags)


# -- names ----------------------------------------------------------------------------------


def test_names_of_any_content(world: World) -> None:
    """However a name is written, it is one lock; and it is printed so that it can be typed again."""
    one, two = world.hosts[1], world.hosts[2]
    space, name = "a/b \u202e", "\\x00\\xff x"
    for host in (one, two):
        host.do(calls.JoinSpace(space))
    one.do(calls.Lock(space, name), ALICE)
    other_space, other_name = "\\x61\\x2fb\\x20\u202e", "\\x00\\XFF\\x20x".replace("X", "x")
    with pytest.raises(LockHeld) as refused:
        two.do(calls.Lock(other_space, other_name, wait_ms=0), BOB)
    assert refused.value.message == r"a\x2fb\x20\xe2\x80\xae/\x00\xff\x20x is held EX by an-a01n01"
    assert refused.value.next == r"ringfence why a\x2fb\x20\xe2\x80\xae/\x00\xff\x20x"
    why = two.do(calls.Why(refused.value.next.removeprefix("ringfence why ")))
    assert "is held EX by an-a01n01" in why["lines"][0]
    assert one.do(calls.Locks(other_space))["locks"][0]["resource"] == r"\x00\xff\x20x"
    with pytest.raises(BadInput, match="a backslash alone"):
        one.do(calls.Lock("games", "\\"), ALICE)
    with pytest.raises(BadInput, match="1 to 64 bytes"):
        one.do(calls.JoinSpace("x" * 65))


# -- turns -------------------------------------------------------------------------------------


def test_two_clients_in_a_tight_loop_alternate(world: World) -> None:
    """Each asks again in the moment in which it has let go."""
    hosts = {ALICE: world.hosts[1], BOB: world.hosts[2]}
    turns: list[int] = []
    asked = {client: host.ask(calls.Lock("games", "chess"), client) for client, host in hosts.items()}
    for _ in range(40):
        inside = [client for client, host in hosts.items() if host.reply(asked[client]) is not None]
        assert len(inside) == 1
        client, host = inside[0], hosts[inside[0]]
        turns.append(client)
        world.stopped = True  # the unlock and the next request are said in one breath
        host.ask(calls.Unlock(host.reply(asked[client])["lock"]), client)
        asked[client] = host.ask(calls.Lock("games", "chess"), client)
        world.go_on()
    assert all(one != next for one, next in pairwise(turns))


@pytest.mark.parametrize("min_hold_ms", [0, 40])
def test_a_node_serves_its_own_for_the_minimum_hold_time_and_no_longer(
    tmp_path: Path, min_hold_ms: int
) -> None:
    """Four clients here, one there, all in a tight loop, 10 ms inside each time."""
    timing = msgspec.structs.replace(TIMING, min_hold_ms=min_hold_ms)
    world = World(tmp_path, 2, timing=timing)
    world.pass_ms(1000)
    one, two = world.hosts[1], world.hosts[2]
    homes = {client: two if client == 5 else one for client in range(1, 6)}
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    asked = {client: host.ask(calls.Lock("games", "chess"), client) for client, host in homes.items()}
    turns: list[int] = []
    for _ in range(60):
        inside = [client for client, host in homes.items() if host.reply(asked[client]) is not None]
        assert len(inside) == 1
        client, host = inside[0], homes[inside[0]]
        turns.append(client)
        world.now_ns += 10_000_000
        host.ask(calls.Unlock(host.reply(asked[client])["lock"]), client)
        asked[client] = host.ask(calls.Lock("games", "chess"), client)
        if len(turns) % 5 == 0:
            one.feed(Tick())
            two.feed(Tick())
            world.run()
    streaks = "".join("x" if client == 5 else "." for client in turns).split("x")[1:-1]
    assert {len(streak) for streak in streaks} == ({1} if min_hold_ms == 0 else {4})


# -- what no client may ask for ------------------------------------------------------------


@pytest.mark.parametrize("flags", [-1, 1 << 40, 0x80000, Flag.YIELDS, Flag.TRY, Flag.DEMOTED])
def test_flags_that_nobody_knows_are_refused(world: World, flags: int) -> None:
    one = world.hosts[1]
    mine = lock(one, ALICE)["lock"]
    for call in (
        calls.Lock("games", "go", flags=flags),
        calls.Convert(mine, "PR", flags=flags),
        calls.Unlock(mine, flags=flags),
    ):
        with pytest.raises(BadInput, match="flags"):
            one.do(call, ALICE)
    assert rows(one) == [("chess", "EX", "granted")]


@pytest.mark.parametrize(
    ("mode", "flags"),
    [("NL", 0), ("CR", 0), ("EX", Flag.PERSISTENT), ("EX", Flag.ORPHAN), ("PR", Flag.ALTCW), ("EX", -1)],
)
def test_what_cannot_be_cached_is_refused(world: World, mode: str, flags: int) -> None:
    one = world.hosts[1]
    with pytest.raises(BadInput):
        one.do(calls.Lock("games", "chess", mode, flags=flags, cached=True), ALICE)
    assert rows(one) == []
    assert one.do(calls.Lock("games", "chess", "CW", flags=Flag.VALBLK, cached=True), ALICE)


@pytest.mark.parametrize("lvb", [bytes(32), b"", bytes(33)])
def test_a_new_lock_writes_no_value_block(world: World, lvb: bytes) -> None:
    with pytest.raises(BadInput, match="writes no value block"):
        world.hosts[1].do(calls.Lock("games", "chess", lvb=lvb), ALICE)
