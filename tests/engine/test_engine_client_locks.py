"""Locks of connections: waits that are taken back, silent unlocks, locks that clients cache."""

import random
from pathlib import Path
from typing import Any

import pytest
from engine_ring import World

from ringfence.core.errors import BadInput, LockHeld, NotFound, Refused, RingfenceError, TimedOut
from ringfence.core.evidence import Power
from ringfence.engine import inputs
from ringfence.engine.locker import Locker
from ringfence.wire import client as calls


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 2)
    world.pass_ms(1000)
    return world


def test_a_wait_is_taken_back_without_ending_the_connection(world: World) -> None:
    one = world.hosts[1]
    one.do(calls.JoinSpace("games"))
    held = one.do(calls.Lock("games", "chess"), client=7)["lock"]
    waits = one.ask(calls.Lock("games", "chess"), client=8)
    assert one.do(calls.Cancel(waits), client=9) == {"cancelled": False}, "it is another connection's"
    assert one.do(calls.Cancel(waits), client=8) == {"cancelled": True}
    with pytest.raises(Refused, match="not waited for any more"):
        one.reply(waits)
    assert one.do(calls.Cancel(waits), client=8) == {"cancelled": False}
    assert one.do(calls.Cancel(""), client=7) == {"cancelled": False}
    taken = one.ask(calls.Lock("games", "go"), client=8)
    assert one.reply(taken)["mode"] == "EX"
    assert one.do(calls.Cancel(taken), client=8) == {"cancelled": True}, "its grant crossed this"
    assert one.do(calls.Lock("games", "go", wait_ms=0), client=7)
    assert one.do(calls.Convert(held, "PR"), client=7)["mode"] == "PR"
    assert one.do(calls.Lock("games", "chess", "PR"), client=8)
    raises = one.ask(calls.Convert(held, "EX"), client=7)
    assert one.do(calls.Cancel(raises), client=7) == {"cancelled": True}
    with pytest.raises(Refused):
        one.reply(raises)
    with pytest.raises(LockHeld, match="in use here"):
        one.do(calls.Lock("games", "chess", "CW", wait_ms=0), client=9)
    assert one.do(calls.Convert(held, "NL"), client=7)["mode"] == "NL"


def test_an_unlock_may_be_quiet(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    lock = one.do(calls.Lock("games", "chess"))["lock"]
    id = one.ask(calls.Unlock(lock, quiet=True))
    assert id not in one.replies
    assert two.do(calls.Lock("games", "chess", wait_ms=0))
    id = one.ask(calls.Unlock(lock, quiet=True))
    with pytest.raises(NotFound, match="not one of this connection's"):
        one.reply(id)


def test_who_is_in_the_way_is_named_as_it_is(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    one.do(calls.Lock("games", "chess", "PR"), client=7)
    two.ask(calls.Lock("games", "chess", "EX"), client=7)
    world.pass_ms(100)
    for wait_ms in (0, 50):
        late = one.ask(calls.Lock("games", "chess", "PR", wait_ms=wait_ms), client=8)
        world.until(lambda late=late: late in one.replies)
        with pytest.raises(RingfenceError, match="an-a01n02 waits for it"):
            one.reply(late)
    with pytest.raises(BadInput, match="-1 ms"):
        one.do(calls.Lock("games", "go", wait_ms=-1), client=8)


def test_who_merely_waits_is_not_named_as_a_holder(tmp_path: Path) -> None:
    world = World(tmp_path, 3)
    world.pass_ms(1000)
    one, two, three = world.hosts.values()
    for host in (one, two, three):
        host.do(calls.JoinSpace("games"))
    two.do(calls.Lock("games", "chess", "EX"), client=7)
    three.ask(calls.Lock("games", "chess", "EX"), client=7)
    world.pass_ms(100)
    late = one.ask(calls.Lock("games", "chess", "EX", wait_ms=0), client=8)
    world.until(lambda: late in one.replies)
    with pytest.raises(RingfenceError, match="chess is held EX by an-a01n02; an-a01n03 waits for it"):
        one.reply(late)


def test_a_lock_that_a_client_merely_caches_makes_no_try_fail(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    taken = one.ask(calls.Lock("games", "chess", "PR", cached=True), client=7)
    grant = one.reply(taken)
    assert one.pages[grant["incarnation"], "grant"] > world.now_ns
    for host, client in ((one, 8), (two, 8)):
        tries = host.ask(calls.Lock("games", "chess", wait_ms=0), client)
        assert tries not in host.replies
        assert one.reply(taken) == {"blocking": "EX", "lock": grant["lock"], "tries": True}
        one.do(calls.Busy(grant["lock"]), client=7)
        with pytest.raises(LockHeld):
            host.reply(tries)
    tries = two.ask(calls.Lock("games", "chess", wait_ms=0), client=8)
    one.ask(calls.Unlock(grant["lock"], quiet=True), client=7)
    assert one.reply(taken) == {"released": True, "lock": grant["lock"]}
    assert two.reply(tries)["mode"] == "EX"


def test_a_client_that_caches_and_does_not_answer_is_given_five_seconds(world: World) -> None:
    one = world.hosts[1]
    one.do(calls.JoinSpace("games"))
    one.do(calls.Lock("games", "chess", cached=True), client=7)
    tries = one.ask(calls.Lock("games", "chess", wait_ms=0), client=8)
    assert world.until(lambda: tries in one.replies) >= 4900
    with pytest.raises(RingfenceError, match="in use here, by another client of this node"):
        one.reply(tries)


def test_a_client_that_stands_still_is_told_each_thing_once(world: World) -> None:
    one = world.hosts[1]
    one.do(calls.JoinSpace("games"))
    taken = one.ask(calls.Lock("games", "chess", cached=True), client=7)
    for _ in range(3):
        tries = one.ask(calls.Lock("games", "chess", wait_ms=0), client=8)
        world.until(lambda tries=tries: tries in one.replies)
        waits = one.ask(calls.Lock("games", "chess", wait_ms=100), client=8)
        world.until(lambda waits=waits: waits in one.replies)
    assert [reply.result.get("tries", False) for reply in one.replies[taken][1:]] == [True, False]
    one.do(calls.Busy(one.replies[taken][0].result["lock"]), client=7)
    one.ask(calls.Lock("games", "chess", wait_ms=0), client=8)
    assert one.reply(taken)["tries"]
    assert len(one.replies[taken]) == 4


def test_a_holder_that_asked_for_no_notices_is_told_that_its_lock_is_lost(world: World) -> None:
    one = world.hosts[1]
    one.do(calls.JoinSpace("games"))
    taken = one.ask(calls.Lock("games", "chess"), client=7)
    lock = one.reply(taken)["lock"]
    for device in ("bmc1", "pdu1", "bmc2", "pdu2"):
        world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN
    world.view(2)
    world.run()
    world.pass_ms(1000)
    world.view(1, 2)
    world.run()
    assert one.reply(taken) == {"lost": True, "lock": lock}
    with pytest.raises(NotFound):
        one.do(calls.Convert(lock, "PR"), client=7)


def test_who_gives_up_waiting_without_authority_believes_in_no_more_than_its_node_has(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]
    for host in (one, two):
        host.do(calls.JoinSpace("games"))
    held = one.do(calls.Lock("games", "chess"))["lock"]
    world.stopped = True  # until authority has lapsed
    world.pass_ms(1000)
    lowers = one.ask(calls.Convert(held, "PR", wait_ms=200))
    assert one.reply(lowers)["mode"] == "PR", "less than it held: that may be told at any time"
    again = one.ask(calls.Convert(held, "PR", wait_ms=200))
    raises = one.ask(calls.Lock("games", "go", "PR", wait_ms=200))
    world.pass_ms(500)
    for waits in (again, raises):
        with pytest.raises(TimedOut):
            one.reply(waits)
    world.go_on()
    world.pass_ms(500)
    assert two.do(calls.Lock("games", "chess", "PR"))["mode"] == "PR"


@pytest.mark.parametrize(
    ("first", "then", "left"), [("PR", "EX", "PR"), ("PR", "CW", "CR"), ("CW", "PR", "CR")]
)
def test_a_conversion_that_was_never_told_is_undone(world: World, first: str, then: str, left: str) -> None:
    one = world.hosts[1]
    one.do(calls.JoinSpace("games"))
    held = one.do(calls.Lock("games", "chess"))["lock"]
    one.do(calls.Convert(held, first))
    world.stopped = True  # until authority has lapsed; the node still has EX
    world.pass_ms(1000)
    converts = one.ask(calls.Convert(held, then, wait_ms=200))
    world.pass_ms(500)
    (answer,) = one.replies[converts]
    assert answer.error is not None
    told = answer.result["mode"] if answer.result else first
    row = one.do(calls.Locks("games"))["clients"][0]
    assert (told, row["mode"]) == (left, left)
    world.go_on()
    world.pass_ms(500)
    assert one.do(calls.Convert(held, "EX"))["mode"] == "EX"


def test_the_time_limit_of_a_conversion_that_was_never_told_ends_with_it(world: World) -> None:
    one = world.hosts[1]
    one.do(calls.JoinSpace("games"))
    held = one.do(calls.Lock("games", "chess"))["lock"]
    one.do(calls.Convert(held, "PR"))
    world.stopped = True
    world.pass_ms(1000)
    converts = one.ask(calls.Convert(held, "EX", wait_ms=500))
    assert one.do(calls.Cancel(converts)) == {"cancelled": True}
    world.pass_ms(1000)
    world.go_on()
    world.pass_ms(500)
    assert one.do(calls.Unlock(held)) == {"released": True}
    assert one.node._running is not None
    assert not one.node._running.locker._in_flight, "what has ended is not remembered for ever"


def _story(directory: Path, seed: int) -> list[str]:
    """What clients of two hosts are told, who ask for some locks at random, and what each host knows."""
    directory.mkdir()
    world, choose = World(directory, 2), random.Random(seed)
    world.pass_ms(1000)
    for host in world.hosts.values():
        host.do(calls.JoinSpace("games"))
        host.do(calls.JoinSpace("lvm_vg0"))
    held: list[tuple[int, int, int]] = []
    told: list[str] = []
    names = (("games", "chess"), ("games", "go"), ("lvm_vg0", "an-lv-of-it"), ("lvm_vg0", "VGLK"))
    for _ in range(150):
        id, number = choose.choice((1, 2)), choose.choice((7, 8))
        host, deed = world.hosts[id], choose.randrange(12)
        if deed < 6:
            mode, wait_ms = choose.choice(("EX", "EX", "PR", "CR")), choose.choice((None, None, 0, 200))
            cached = mode != "CR" and choose.randrange(8) == 0
            call = calls.Lock(*choose.choice(names), mode, wait_ms, cached=cached, thread=f"t{number}")
            asked = host.ask(call, number)
            if (reply := host.replies.get(asked)) and reply[-1].error is None:
                held.append((id, number, reply[-1].result["lock"]))
        elif deed < 10 and held:
            of, number, lock = held.pop(choose.randrange(len(held)))
            lvb = b"x" * 32 if choose.randrange(6) == 0 else None
            world.hosts[of].ask(calls.Unlock(lock, lvb=lvb, quiet=choose.randrange(2) == 0), number)
        elif deed == 10:
            world.stopped = not world.stopped and choose.randrange(3) == 0
            world.pass_ms(choose.choice((100, 300, 1000)))
            if not world.stopped:
                world.go_on()
        else:
            host.feed(inputs.ClientGone(number))
            world.run()
            held = [one for one in held if one[:2] != (id, number)]
        for one in world.hosts.values():
            told.append(f"{one.replies} {one.do(calls.Locks())}")
    return told


def test_what_a_node_keeps_is_given_and_taken_back_as_any_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = {name: getattr(Locker, name) for name in ("take_kept", "leave_kept")}
    counts = dict.fromkeys(cuts, 0)
    for name in cuts:

        def counted(self: Locker, *given: Any, name: str = name) -> Any:
            told = cuts[name](self, *given)
            counts[name] += bool(told)
            return told

        monkeypatch.setattr(Locker, name, counted)
    stories = [_story(tmp_path / f"cut-{seed}", seed) for seed in range(3)]
    assert all(count > 15 for count in counts.values()), counts
    for name in cuts:
        monkeypatch.setattr(Locker, name, lambda *given: None)
    for seed, story in enumerate(stories):
        ruled = _story(tmp_path / f"rules-{seed}", seed)
        for number, (one, other) in enumerate(zip(story, ruled, strict=True)):
            assert one == other, f"seed {seed}, step {number}"
