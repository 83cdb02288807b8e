"""Rolling upgrade: nodes that speak different protocols in one cluster."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_ring import World

from ringfence.core.errors import LockHeld, Refused
from ringfence.engine import apply
from ringfence.engine.context import AT_ONCE
from ringfence.locks.flags import Flag
from ringfence.wire import MANY_LOCKS, Speaks, entries
from ringfence.wire import client as calls

OLD, NEW, NEWER = Speaks(1, 1), Speaks(1, 2), Speaks(2, 3)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 3, speaks=OLD)
    world.pass_ms(1000)
    return world


def stop(world: World, id: int, rest: tuple[int, ...]) -> None:
    """Its daemon leaves cleanly."""
    host = world.hosts[id]
    for space in list(host.node.context.state.lockspaces):
        host.do(calls.LeaveSpace(space))
    host.do(calls.Leave())
    host.node = None
    world.view(*rest, how="leave")
    world.run()


def restart(world: World, id: int, speaks: Speaks) -> None:
    rest = tuple(one for one in world.members if one != id)
    stop(world, id, rest)
    world.hosts[id].speaks = speaks
    world.hosts[id].start()
    world.view(*rest, id)
    world.run()
    world.pass_ms(500)


def test_what_older_nodes_do_not_know_is_not_asked_of_them(world: World) -> None:
    """Flags are left out where a client can do without, names are refused."""
    for host in world.hosts.values():
        host.do(calls.JoinSpace("games"))
    restart(world, 2, NEW)
    one, two = world.hosts[1], world.hosts[2]
    two.do(calls.JoinSpace("games"))
    with pytest.raises(Refused, match="needs protocol 2"):
        two.do(calls.Lock("games", "a b"))
    with pytest.raises(Refused, match="needs protocol 2"):
        two.do(calls.JoinSpace("a/b"))
    two.do(calls.Lock("games", "Straße"))
    held = one.do(calls.Lock("games", "chess", "CW"))
    with pytest.raises(LockHeld):
        two.do(calls.Lock("games", "chess", "PR", wait_ms=0, flags=Flag.NOQUEUEBAST))
    waits = two.ask(calls.Lock("games", "chess", "PR", flags=Flag.ALTCW))
    resource = one.node.context.state.lockspaces["games"].resources["chess"]
    flags = [lock.flags for lock in (*resource.converting, *resource.waiting)]
    assert not any(one & (Flag.NOQUEUEBAST | Flag.ALTCW) for one in flags)
    one.do(calls.Unlock(held["lock"]))
    assert two.reply(waits)["mode"] in ("PR", "CW")


def protocols(world: World) -> list[int | None]:
    """What each host that runs speaks."""
    hosts = [host for host in world.hosts.values() if host.node]
    return [host.node.context.state.protocol if host.running else None for host in hosts]


def test_the_cluster_speaks_the_new_protocol_when_the_last_node_can(world: World) -> None:
    one = world.hosts[1]
    one.do(calls.JoinSpace("games"))
    held = one.ask(calls.Lock("games", "chess"))
    for id, expected in ((2, 1), (3, 1)):
        restart(world, id, NEW)
        assert protocols(world) == [expected] * 3
    one.do(calls.Unlock(one.reply(held)["lock"]))
    stop(world, 1, (2, 3))
    assert protocols(world) == [1, 1], "the node that is away may be back as it was"
    one.speaks = NEW
    one.start()
    world.view(1, 2, 3)
    world.run()
    assert protocols(world) == [2, 2, 2]
    assert [host.kinds().count("protocol") for host in world.hosts.values()] == [0, 1, 1]
    assert one.do(calls.Status())["protocol"] == 2


def test_one_that_is_too_old_is_told_so_and_stays_out(world: World) -> None:
    for id in (1, 2, 3):
        restart(world, id, NEW)
    restart(world, 3, OLD)
    one, three = world.hosts[1], world.hosts[3]
    assert protocols(world) == [2, 2, None]
    reason = (
        "an-a01n03 speaks protocol 1 and the cluster protocol 2 (its members can: protocols 1 to 2): "
        "it is not admitted; upgrade ringfence on an-a01n03 to one that speaks protocol 2"
    )
    found: dict[str, Any] = three.do(calls.Status())
    assert (found["state"], found["why"], found["blocked"]) == ("shut out", reason, True)
    assert reason in "\n".join(three.do(calls.Why())["lines"])
    told = one.do(calls.Status())
    assert (told["refused"], told["ready"], told["blocked"]) == ([reason], True, False)
    assert told["members"][2]["state"] == "in the ring, not admitted"
    assert one.do(calls.Why())["lines"] == [reason]
    assert one.do(calls.Why("an-a01n03")) == {"target": "an-a01n03", "stuck": True, "lines": [reason]}
    assert "not-admitted" in one.kinds()
    # The others go on, at their own protocol, and with their own quorum only.
    one.do(calls.JoinSpace("games"))
    assert one.do(calls.Lock("games", "chess"))["mode"] == "EX"
    with pytest.raises(Refused, match="cannot act now: an-a01n03 speaks protocol 1"):
        three.do(calls.FenceTrust("bmc1", "ann"))
    restart_shut_out(world, 3, NEW)
    assert protocols(world) == [2, 2, 2]
    assert one.do(calls.Why())["lines"] == ["nothing is stuck"]


def restart_shut_out(world: World, id: int, speaks: Speaks) -> None:
    rest = tuple(one for one in world.members if one != id)
    world.hosts[id].node = None
    world.view(*rest, how="leave")
    world.run()
    world.hosts[id].speaks = speaks
    world.hosts[id].start()
    world.view(*rest, id)
    world.run()
    world.pass_ms(500)


def test_one_that_is_too_new_waits_for_the_others(world: World) -> None:
    restart(world, 3, NEWER)
    assert protocols(world) == [1, 1, None]
    (line,) = world.hosts[1].do(calls.Status())["refused"]
    assert line.startswith("an-a01n03 speaks protocols 2 to 3 and the cluster protocol 1")
    assert line.endswith("upgrade an-a01n01, an-a01n02 first, or start an older ringfence there")


def test_who_does_not_speak_it_gives_no_quorum(world: World) -> None:
    """Two of three are in the ring, and only one of them counts."""
    for id in (1, 2, 3):
        restart(world, id, NEW)
    restart(world, 3, OLD)
    world.cut(2)
    world.view(1, 3)
    world.run()
    one = world.hosts[1]
    assert not one.running
    why = one.do(calls.Status())["why"]
    assert "no quorum: an-a01n03 speaks protocol 1 and the cluster protocol 2" in why


def rewrite(world: World, sender: int, change: Callable[[dict[str, Any]], None]) -> None:
    """From now on the items of one host's frames are changed on their way."""
    deliver = world.deliver

    def changed(who: int, payload: bytes) -> None:
        if who == sender:
            frame = msgspec.msgpack.decode(payload)
            for item in frame[3]:
                change(item)
            payload = msgspec.msgpack.encode(frame)
        deliver(who, payload)

    world.deliver = changed  # type: ignore[method-assign]


def test_one_that_does_not_say_what_it_speaks_has_no_part_in_anything(world: World) -> None:
    """As before ranges were announced; its frames are called protocol 1 all the same."""

    def silence(item: dict[str, Any]) -> None:
        if item["type"] == "Ready":
            del item["speaks"], item["protocol"]

    rewrite(world, 3, silence)
    restart(world, 3, OLD)
    one = world.hosts[1]
    assert protocols(world) == [1, 1, None]
    (line,) = one.do(calls.Status())["refused"]
    assert line.startswith("an-a01n03 does not say which protocols it speaks")
    assert one.do(calls.Why("an-a01n03"))["lines"] == [line]
    one.do(calls.JoinSpace("games"))
    assert one.do(calls.Lock("games", "chess"))["mode"] == "EX"
    world.cut(2)
    world.view(1, 3)
    world.run()
    assert not one.running, "it has no vote"
    assert f"no quorum: {line}" in one.do(calls.Status())["why"]


@pytest.mark.parametrize("at_once", [AT_ONCE, 2])
def test_who_cannot_read_the_state_stays_out_and_says_why(tmp_path: Path, at_once: int) -> None:
    """Whole or in pieces; it is not fenced for that."""
    world = World(tmp_path, 3, at_once=at_once, speaks=NEW)
    world.pass_ms(1000)
    one, three = world.hosts[1], world.hosts[3]
    one.do(calls.JoinSpace("games"))
    for number in range(5):
        one.do(calls.Lock("games", f"r{number}"))

    def spoil(item: dict[str, Any]) -> None:
        for field in ("state", "piece"):
            if item["type"] == "Snapshot" and item[field]:
                state = msgspec.msgpack.decode(item[field])
                item[field] = msgspec.msgpack.encode({**state, "lockspaces": 7, "games": 7})

    rewrite(world, 1, spoil)
    restart(world, 3, NEW)
    world.pass_ms(6_000)
    assert [host.running for host in world.hosts.values()] == [True, True, False]
    found = three.do(calls.Status())
    assert found["state"] == "shut out"
    assert found["why"].startswith("the cluster's state cannot be read by this version of ringfence (")
    assert found["why"].endswith("an-a01n03 stays out; install the version of the other nodes there")
    assert found["why"] in "\n".join(three.do(calls.Why())["lines"])
    assert three.kinds().count("shut-out") == 1
    assert not one.node.context.state.victims()
    assert one.do(calls.Lock("games", "chess"))["mode"] == "EX"


def test_a_fresh_start_speaks_what_most_can(tmp_path: Path) -> None:
    world = World(tmp_path, 3, members=(1, 2), speaks=NEW)
    world.pass_ms(1000)
    assert protocols(world) == [2, 2]
    world.cut(1)
    world.cut(2)
    for host in world.hosts.values():
        host.speaks = OLD
        host.boots += 1
        host.start()
    world.view(1, 2, 3)
    world.run()
    assert protocols(world) == [1, 1, 1], "a power loss of all is how a cluster goes back"


def test_many_locks_are_asked_for_one_by_one_until_all_know_them_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older node would take a frame with such an entry for unreadable."""
    counts: dict[type, int] = {}
    for kind in (entries.LockRequests, entries.LockRequest, entries.LockUnlocks, entries.LockUnlock):

        def counted(*given: Any, kind: type = kind, real: Any = apply._HANDLERS[kind]) -> Any:
            counts[kind] = counts.get(kind, 0) + 1
            return real(*given)

        monkeypatch.setitem(apply._HANDLERS, kind, counted)
    world = World(tmp_path, 2, speaks=Speaks(1, MANY_LOCKS - 1))
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    for number in range(3):
        one.do(calls.LvCreate("vg0", f"lv{number}", extents=1, activate="n"))
    for old in (True, False):
        counts.clear()
        assert len(one.do(calls.LvChange("vg0", "", activate="ey"))["lvs"]) == 3
        one.do(calls.LvChange("vg0", "", activate="n"))
        world.pass_ms(500)
        assert (entries.LockRequests in counts) is (entries.LockUnlocks in counts) is (not old)
        for id in (2, 1) if old else ():
            restart(world, id, Speaks(1, MANY_LOCKS))
