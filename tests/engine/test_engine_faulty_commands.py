"""A command that meets a fault of ringfence itself: it ends, and nothing else does.

At every order of several commands a fault is planted, as a bug right behind the answer would be; the other
host then finds a VG that is whole and whose locks are free."""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from engine_ring import World

from ringfence.core.errors import InternalError, LockHeld, RingfenceError
from ringfence.engine.commands.locking import VG_RESOURCE
from ringfence.engine.locker import Locker
from ringfence.engine.orders import Command, OpenPath, Order, WriteVersion
from ringfence.engine.tasks import Tasks
from ringfence.wire import client as calls


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two hosts with VG vg0."""
    world = World(tmp_path, 2)
    world.pass_ms(1000)
    world.hosts[1].do(calls.PvCreate((str(world.image),)))
    world.hosts[1].do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(1000)
    world.faulty = True
    return world


class Plant:
    """Throws a fault into commands whose name begins so, right behind the answer to an order, once.

    Args: at: which order: its number, or what it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, what: str, at: int | Callable[[Order], bool]) -> None:
        self.struck: Order | None = None
        self._at = at
        start = Tasks.start

        def planted(tasks: Tasks, name: str, command: Command, *more: Any, **options: Any) -> None:
            run = self._run(command) if name.startswith(what) else command
            start(tasks, name, run, *more, **options)

        monkeypatch.setattr(Tasks, "start", planted)

    def _run(self, command: Command) -> Command:
        try:
            order = command.send(None)
            for number in count():
                try:
                    answer = yield order
                except RingfenceError as error:
                    order = command.throw(error)
                    continue
                if self.struck is None and self._here(number, order):
                    self.struck = order
                    order = command.throw(ZeroDivisionError("planted"))
                else:
                    order = command.send(answer)
        except StopIteration as stop:
            return stop.value
        return None

    def _here(self, number: int, order: Order) -> bool:
        return number == self._at if isinstance(self._at, int) else self._at(order)


COMMANDS: dict[str, Callable[[int], Any]] = {
    "lvcreate": lambda number: calls.LvCreate("vg0", f"lv{number}", extents=1),
    "lvresize": lambda number: calls.LvResize("vg0", "kept", extents=1, sign="+"),
    "lvremove": lambda number: calls.LvRemove("vg0", "gone", force=True),
    "lvchange": lambda number: calls.LvChange("vg0", "kept", "", add_tags=(f"t{number}",)),
}


def names(world: World) -> list[str]:
    return [row["lv_name"] for row in world.hosts[2].do(calls.Lvs("vg0"))["rows"]]


@pytest.mark.parametrize("name", COMMANDS)
def test_at_every_order_the_command_alone_ends(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    one, other = world.hosts[1], world.hosts[2]
    one.do(calls.LvCreate("vg0", "kept", extents=1, activate="n"))
    for number in range(100):
        if "gone" not in names(world):
            one.do(calls.LvCreate("vg0", "gone", extents=1))
        before = names(world)
        with monkeypatch.context() as patched:
            plant = Plant(patched, name, number)
            with suppress(InternalError):
                one.do(COMMANDS[name](number))
        if plant.struck is None:
            assert number > 8, "it has been at every order"
            assert len(one.traces) == number
            return
        assert one.kinds().count("command-failed") == number + 1, plant.struck
        assert one.running, plant.struck
        after = names(world)
        assert set(before) ^ set(after) <= {"gone", f"lv{number}"}, f"old or new: {plant.struck}"
        # The next one has all locks but those of what may be open, and finds a VG that it can change.
        other.do(calls.LvCreate("vg0", f"next{number}", extents=1, activate="n"))
        other.do(calls.LvRemove("vg0", f"next{number}"))
        if f"lv{number}" in after:
            one.do(calls.LvChange("vg0", f"lv{number}", "n"))
            other.do(calls.LvRemove("vg0", f"lv{number}"))
    raise AssertionError("it has no end")


def test_whoever_has_its_locks_next_trusts_no_value(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a crash: nobody was told of its commit."""
    world.hosts[2].do(calls.LvCreate("vg0", "vm1", extents=1, activate="n"))
    Plant(monkeypatch, "lvchange", lambda order: isinstance(order, WriteVersion))
    with pytest.raises(InternalError, match=r"lvchange vg0/vm1 .* ringfence itself: ZeroDivisionError"):
        world.hosts[1].do(calls.LvChange("vg0", "vm1", "", add_tags=("t",)))
    state = world.hosts[2].node.context.state
    assert not state.lockspaces["lvm_vg0"].resources[VG_RESOURCE].lvb_valid
    world.hosts[2].do(calls.LvChange("vg0", "vm1", "", add_tags=("u",)))
    assert state.lockspaces["lvm_vg0"].resources[VG_RESOURCE].lvb_valid
    assert [row["lv_tags"] for row in world.hosts[1].do(calls.Lvs("vg0"))["rows"]] == ["t,u"]


def test_what_it_has_locked_for_good_stays_locked_until_somebody_deactivates_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = world.hosts[1], world.hosts[2]
    one.do(calls.LvCreate("vg0", "vm1", extents=1, activate="n"))
    with monkeypatch.context() as patched:
        Plant(patched, "lvchange", lambda order: isinstance(order, OpenPath))
        with pytest.raises(InternalError):
            one.do(calls.LvChange("vg0", "vm1", "ey"))
    assert [path.lv for path in one.paths.values()] == ["vm1"], "it was opened"
    with pytest.raises(LockHeld, match="held EX by an-a01n01"):
        other.do(calls.LvChange("vg0", "vm1", "ey"))
    one.do(calls.LvChange("vg0", "vm1", "n"))
    other.do(calls.LvChange("vg0", "vm1", "ey"))


def test_a_fault_of_the_engine_itself_is_nobody_elses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command asked for is no part of it: the engine may be in the middle of a change."""

    def faulty(*args: Any, **options: Any) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Locker, "acquire", faulty)
    with pytest.raises(ZeroDivisionError):
        world.hosts[1].do(calls.LvChange("vg0", "vm1", "", add_tags=("t",)))
    assert "command-failed" not in world.hosts[1].kinds()


def test_what_a_change_is_warned_of_goes_with_its_result(world: World) -> None:
    one = world.hosts[1]
    inner = one.storage.do

    def warn(order: Any) -> Any:
        answer = inner(order)
        return "WARNING: /var is full" if isinstance(order, WriteVersion) else answer

    one.storage.do = warn  # type: ignore[method-assign]
    reply = one.do(calls.LvCreate("vg0", "vm1", size_bytes=6 << 20))
    assert reply["notes"] == ["Rounding up size to full physical extent 8.00 MiB", "WARNING: /var is full"]
    assert one.do(calls.LvRemove("vg0", "vm1", force=True))["notes"] == ["WARNING: /var is full"]
