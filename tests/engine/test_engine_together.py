"""Many lock orders of one command in real engines: in slices, to one answer, whatever happens meanwhile."""

from pathlib import Path

import pytest
from engine_ring import Host, World

from ringfence.core.errors import InternalError, LocksLost, Refused, RingfenceError, TimedOut, Unavailable
from ringfence.engine import effects, inputs, orders
from ringfence.engine.commands import whole_vg
from ringfence.wire import client as calls

LVS = 8


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, 2, at_once=3)
    world.pass_ms(300)  # heartbeats came back: there is authority
    first = world.hosts[1]
    first.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    for number in range(LVS):
        first.do(calls.LvCreate("vg0", f"lv{number}", extents=1, activate="n"))
    world.pass_ms(300)
    return world


def activate(host: Host, wait_ms: int | None = 0) -> str:
    return host.ask(calls.LvChange("vg0", "", activate="ey", wait_ms=wait_ms))


def persistent(host: Host) -> int:
    assert host.node is not None
    assert host.node._running is not None
    return len(host.node._running.locker.persistent())


def test_every_lock_is_had_in_slices(world: World) -> None:
    first, second = world.hosts.values()
    assert len(first.reply(activate(first))["lvs"]) == LVS
    assert len(first.paths) == persistent(first) == LVS
    with pytest.raises(Exception, match=r"held EX by an-a01n01 \(and 7 more"):
        second.reply(activate(second))
    assert persistent(second) == 0
    first.do(calls.LvChange("vg0", "", activate="n"))
    assert (first.paths, persistent(first)) == ({}, 0)
    assert len(second.reply(activate(second))["lvs"]) == LVS


def test_a_life_that_is_lost_half_way_opens_nothing(world: World) -> None:
    first, _ = world.hosts.values()
    world.stopped = True
    asked = activate(first)
    assert first.reply(asked) is None
    world.freeze(1)
    world.stopped = False
    world.view(2)
    world.run()
    world.thaw(1, 1, 2)
    world.run()
    with pytest.raises(LocksLost):
        first.reply(asked)
    assert (first.paths, persistent(first)) == ({}, 0)


def test_a_client_that_goes_waits_for_nothing_more(world: World) -> None:
    first, second = world.hosts.values()
    second.do(calls.LvChange("vg0", "lv3", activate="ey"))
    asked = first.ask(calls.LvChange("vg0", "", activate="ey", wait_ms=None), client=7)
    world.run()
    assert first.reply(asked) is None, "it waits for the one that is held"
    first.feed(inputs.ClientGone(7))
    world.run()
    with pytest.raises(TimedOut):
        first.reply(asked)
    assert persistent(first) == LVS - 1


@pytest.fixture
def batches(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Each command goes in batches, so that there is always one to be opened while the next is locked."""
    monkeypatch.setattr(whole_vg, "AT_ONCE", 3)
    return world


class Held:
    """A host whose block service takes its time with many paths at once.

    Args: pauses: from such an order on the ring stands still, and its engine is not called to go on."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch, pauses: bool = False) -> None:
        self._host, self._order, self._carry_out = host, host._order, host._carry_out
        self._pauses = pauses
        self.waiting: list[effects.DoOrder] = []
        monkeypatch.setattr(host, "_order", self._wait)
        monkeypatch.setattr(host, "_carry_out", self._pause)

    def _pause(self, effect: effects.Effect) -> None:
        if self._pauses and isinstance(effect, effects.DoOrder) and self._is_slow(effect):
            self._host.held, self._host.world.stopped = [], True
        self._carry_out(effect)

    @staticmethod
    def _is_slow(effect: effects.DoOrder) -> bool:
        return isinstance(effect.body, orders.PathsTogether)

    def _wait(self, effect: effects.DoOrder) -> None:
        if self._is_slow(effect):
            self.waiting.append(effect)
        else:
            self._order(effect)

    def answer(self, error: RingfenceError | None = None) -> None:
        """The order that waits, the first of them, is carried out, or fails."""
        effect = self.waiting.pop(0)
        if error is None:
            self._order(effect)
        else:
            self._host.feed(inputs.OrderDone(effect.order, error=error.as_dict()))
        self._host.world.run()


def lose(world: World) -> None:
    """The first host was away too long: its life is over when it hears of it."""
    world.freeze(1)
    world.stopped = False
    world.view(2)
    world.run()
    world.thaw(1, 1, 2)
    world.run()


def test_what_is_open_is_locked_at_every_moment(batches: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While batches are opened the next ones are locked; while some are closed, those before are unlocked."""
    first, _ = batches.hosts.values()
    block = Held(first, monkeypatch)
    seen = []
    for command in (calls.LvChange("vg0", "", activate="ey"), calls.LvChange("vg0", "", activate="n")):
        asked = first.ask(command)
        while first.reply(asked) is None:
            seen.append((persistent(first), len(first.paths)))
            block.answer()
    # The LV of the disk slots is in the first batch.
    assert seen == [(8, 0), (8, 2), (8, 5), (8, 8), (5, 5), (2, 2)]
    assert (first.paths, persistent(first)) == ({}, 0)


def test_a_life_that_is_lost_while_some_are_opened(batches: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = batches.hosts.values()
    block = Held(first, monkeypatch)
    asked = activate(first)
    lose(batches)
    for _ in block.waiting[:]:
        assert first.reply(asked) is None, "nobody knows yet what the block service does"
        block.answer(Refused("all paths were dropped meanwhile", retry=True))
    with pytest.raises(LocksLost):
        first.reply(asked)
    assert (first.paths, persistent(first)) == ({}, 0)
    assert first.node is not None
    assert first.node._running is not None
    assert first.node._running._tasks.opened == {}, "what an earlier life began is none of this one's"


def test_a_life_that_is_lost_while_the_others_are_locked(
    batches: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_vg, "AT_ONCE", 2)
    first, _ = batches.hosts.values()
    block = Held(first, monkeypatch)
    asked = activate(first)
    batches.stopped = True
    while block.waiting:
        block.answer()
    assert (first.reply(asked), len(first.paths), block.waiting) == (None, 5, []), "the ring stands still"
    lose(batches)
    with pytest.raises(LocksLost):
        first.reply(asked)
    assert (first.paths, persistent(first)) == ({}, 0)


@pytest.mark.parametrize("answered", [False, True])
def test_a_life_that_is_lost_before_all_locks_are_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    """What is left of them is not asked for in the next life."""
    monkeypatch.setattr(whole_vg, "AT_ONCE", LVS // 2 + 1)
    first, _ = world.hosts.values()
    assert first.node is not None
    first.node.context.at_once = 1
    block = Held(first, monkeypatch, pauses=True)
    asked = activate(first)
    assert LVS // 2 < persistent(first) < LVS, "half of them are had, and not all others asked for"
    if answered:
        block.answer()
    assert first.reply(asked) is None
    lose(world)
    first.go_on()
    if not answered:
        block.answer(Refused("all paths were dropped meanwhile", retry=True))
    with pytest.raises(LocksLost):
        first.reply(asked)
    assert (first.paths, persistent(first)) == ({}, 0)


def test_a_command_that_breaks_is_over_when_what_it_began_is(
    batches: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it has the VG; what may be open stays locked, and can be deactivated."""

    def break_down(*_: object) -> None:
        raise ZeroDivisionError

    batches.faulty = True
    first, second = batches.hosts.values()
    block = Held(first, monkeypatch)
    with monkeypatch.context() as patched:
        patched.setattr(whole_vg.Outcome, "add_open", break_down)
        asked = activate(first)
        block.answer()
    other = second.ask(calls.LvCreate("vg0", "another", extents=1, activate="n"))
    batches.run()
    while block.waiting:
        assert (first.reply(asked), second.reply(other)) == (None, None)
        block.answer()
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        first.reply(asked)
    assert second.reply(other) is not None
    assert len(first.paths) == 5
    assert persistent(first) == LVS
    off = first.ask(calls.LvChange("vg0", "", activate="n"))
    while block.waiting:
        block.answer()
    assert len(first.reply(off)["lvs"]) == LVS
    assert (first.paths, persistent(first)) == ({}, 0)


def test_a_block_service_that_goes_away_half_way(batches: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it may have opened keeps its lock."""
    first, _ = batches.hosts.values()
    block = Held(first, monkeypatch)
    asked = activate(first)
    block.answer()
    while block.waiting:
        block.answer(Unavailable("it hung up", retry=True))
    with pytest.raises(Unavailable, match=r"it hung up \(and 5 more"):
        first.reply(asked)
    assert (len(first.paths), persistent(first)) == (2, LVS)
