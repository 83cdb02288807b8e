"""Two commands of one host at one LV: whatever their steps' order, no path without its lock.

The steps are drawn, not enumerated: each order that is to be carried out may be the next."""

import random
from collections import deque
from itertools import combinations_with_replacement
from typing import Any

import pytest
from engine_ring import Host, World

from ringfence.core.errors import DeviceFailed, NotFound, Unavailable
from ringfence.core.modes import Mode
from ringfence.engine import effects, inputs, orders
from ringfence.wire import client as calls
from ringfence.wire.client import Request

COMMANDS = {
    "alone": calls.LvChange("vg0", "vm1", "ey"),
    "shared": calls.LvChange("vg0", "vm1", "sy", force=True),
    "off": calls.LvChange("vg0", "vm1", "n"),
    "all": calls.LvChange("vg0", "", "ey"),
    "none": calls.LvChange("vg0", "", "n"),
    "given": calls.LvHandover("vg0", "vm1", "an-a01n02"),
    "lent": calls.LvHandover("vg0", "vm1", "an-a01n02", prepare=True),
}
BEFORE = {"closed": "n", "alone": "ey", "shared": "sy"}
DRAWS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("two"), 2)
    world.pass_ms(1000)
    world.hosts[1].do(calls.PvCreate((str(world.image),)))
    world.hosts[1].do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(1000)
    world.hosts[1].do(calls.LvCreate("vg0", "vm1", extents=1))
    world.pass_ms(500)
    return world


class Drawn(deque[Any]):
    """What is to be done, of which any may be next."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self._draw = draw

    def popleft(self) -> Any:
        self.rotate(-self._draw.randrange(len(self)))
        return super().popleft()


def open_is_locked(world: World) -> None:
    for host in world.hosts.values():
        for path in host.paths.values():
            assert lock_of(host, path.uuid) >= (Mode.PR if path.shared else path.hold.least), path


def lock_of(host: Host, uuid: str) -> Mode:
    resource = host.node.context.running.lockspaces["lvm_vg0"].resources.get(uuid)
    lock = resource.find(host.id) if resource is not None else None
    return Mode.UN if lock is None else lock.held


def back_to(world: World, state: str) -> None:
    for host in world.hosts.values():
        host.do(calls.LvChange("vg0", "vm1", "n"))
    world.pass_ms(600)
    assert not any(host.paths for host in world.hosts.values())
    assert not any(host.node._running._tasks.path_locks._paths for host in world.hosts.values())
    if state != "closed":
        world.hosts[1].do(calls.LvChange("vg0", "vm1", BEFORE[state], force=True))


@pytest.mark.parametrize("before", BEFORE)
def test_what_is_open_is_locked_whatever_meets(world: World, before: str, monkeypatch: Any) -> None:
    host = world.hosts[1]

    def checked(one: Host, do: Any) -> Any:
        def wrapped(body: Any) -> Any:
            answer = do(body)
            open_is_locked(world)
            return answer

        return wrapped

    for one in world.hosts.values():
        monkeypatch.setattr(one, "_do", checked(one, one._do))
    for (first, one), (second, other) in combinations_with_replacement(COMMANDS.items(), 2):
        for draw in range(DRAWS):
            back_to(world, before)
            monkeypatch.setattr(world, "later", Drawn(random.Random(f"{before}{first}{second}{draw}")))
            for call in (one, other):
                world.asked += 1
                host.feed(inputs.Asked(1, Request(f"r{world.asked}", call), "tester"))
            world.run()
            world.pass_ms(100)
            monkeypatch.setattr(world, "later", deque())
            open_is_locked(world)
            world.pass_ms(100)


def test_who_fails_to_open_it_leaves_open_what_another_command_has_opened(
    world: World, monkeypatch: Any
) -> None:
    """Both are told of one lock: the first one's, whose last look at the disks fails."""
    back_to(world, "closed")
    host, carried_out = world.hosts[1], world.hosts[1]._order
    reads: list[effects.DoOrder] = []

    def order(effect: effects.DoOrder) -> None:
        reads.extend([effect] if isinstance(effect.body, orders.ReadDisks) else [])
        if len(reads) != 2 or effect is not reads[1]:
            carried_out(effect)

    monkeypatch.setattr(host, "_order", order)
    first = host.ask(COMMANDS["alone"])
    second = host.do(COMMANDS["alone"])
    host.feed(inputs.OrderDone(reads[1].order, error=DeviceFailed("the disks do not answer").as_dict()))
    world.run()
    with pytest.raises(DeviceFailed):
        host.reply(first)
    ((vg, lv), path), *others = host.paths.items()
    assert (f"{vg}/{lv}", str(path.token), others) == ("vg0/vm1", second["token"], [])
    assert lock_of(host, path.uuid) is Mode.EX
    assert not host.do(calls.Why("vg0/vm1"))["stuck"]


def test_a_lock_whose_path_could_not_be_opened_is_told_of(world: World, monkeypatch: Any) -> None:
    """Of two the second one was told of the first one's lock, and leaves it alone."""
    back_to(world, "closed")
    host, opens, carried_out = world.hosts[1], list[effects.DoOrder](), world.hosts[1]._order

    def order(effect: effects.DoOrder) -> None:
        if isinstance(effect.body, orders.OpenPath):
            opens.append(effect)
        else:
            carried_out(effect)

    with monkeypatch.context() as patched:
        patched.setattr(host, "_order", order)
        asked = [host.ask(COMMANDS["alone"]) for _ in range(2)]
        for one in opens:
            host.feed(inputs.OrderDone(one.order, error=DeviceFailed("its worker does not start").as_dict()))
            world.run()
    for id in asked:
        with pytest.raises(DeviceFailed):
            host.reply(id)
    assert host.paths == {}
    assert "its export is gone" in host.do(calls.Why("vg0/vm1"))["lines"][0]
    host.do(COMMANDS["alone"])
    assert not host.do(calls.Why("vg0/vm1"))["stuck"]


def test_a_lock_whose_path_could_be_neither_opened_nor_closed_is_told_of(
    world: World, monkeypatch: Any
) -> None:
    """The block service is away while an LV is made: nobody knows whether that is open, so the lock stays."""
    host, carried_out = world.hosts[2], world.hosts[2]._do

    def away(body: Any) -> Any:
        if isinstance(body, orders.OpenPath | orders.ClosePath):
            raise DeviceFailed("no block service answers")
        return carried_out(body)

    with monkeypatch.context() as patched:
        patched.setattr(host, "_do", away)
        with pytest.raises(DeviceFailed, match="was created, but not activated"):
            host.do(calls.LvCreate("vg0", "new", extents=1))
    assert "vg0/new is active here, but its export is gone" in host.do(calls.Why())["lines"][0]
    host.do(calls.LvChange("vg0", "new", "ey"))
    assert not host.do(calls.Why())["stuck"]


def test_who_has_opened_nothing_keeps_no_lock_though_the_block_service_is_silent(
    world: World, monkeypatch: Any
) -> None:
    """An LV is removed while another host waits for its lock, and what does not exist any more nobody can
    deactivate there."""
    host, carried_out = world.hosts[2], world.hosts[2]._order
    world.hosts[1].do(calls.LvCreate("vg0", "gone", extents=1, activate="ey"))
    ((_, path),) = ((key, path) for key, path in world.hosts[1].paths.items() if key[1] == "gone")
    closes: list[effects.DoOrder] = []

    def order(effect: effects.DoOrder) -> None:
        if isinstance(effect.body, orders.ClosePath):
            closes.append(effect)
        else:
            carried_out(effect)

    monkeypatch.setattr(host, "_order", order)
    asked = host.ask(calls.LvChange("vg0", "gone", "ey", 5000))
    world.hosts[1].do(calls.LvRemove("vg0", "gone", force=True))
    world.run()
    for one in closes:
        silent = Unavailable("the block service has not answered")
        host.feed(inputs.OrderDone(one.order, error=silent.as_dict()))
    world.run()
    with pytest.raises(NotFound):
        host.reply(asked)
    assert lock_of(host, path.uuid) is Mode.UN
