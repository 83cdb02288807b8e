"""Many locks: no step handles more of them than `at_once`, and all are handled in the end."""

from pathlib import Path
from typing import Any

import pytest
from engine_ring import Host, World

from ringfence.core.ids import Epoch, Life
from ringfence.engine import inputs
from ringfence.engine.outbox import Outbox
from ringfence.wire import client as calls
from ringfence.wire import entries, ring

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
    while True:
        payload = outbox.frame(Epoch(1, 1), life)
        if payload is None:
            break
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
