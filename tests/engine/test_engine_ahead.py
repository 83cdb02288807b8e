"""vgchange of a whole VG by stock LVM2: locks asked for ahead, releases told early; who comes between."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_ring import Host, World

from ringfence.core.errors import LockHeld, Refused
from ringfence.core.evidence import Power
from ringfence.core.modes import Mode
from ringfence.engine import effects, inputs, locker, orders
from ringfence.engine.commands import report
from ringfence.engine.lvmlockd import ahead
from ringfence.locks.flags import Flag
from ringfence.volumes.known import KnownVgs
from ringfence.wire import Speaks
from ringfence.wire import client as calls
from ringfence.wire.lvmlockd import LvmAsked

SPACE = "lvm_vg0"
COUNT = 14
WINDOW = 4
CLIENT = 1001


class Stock:
    """A stock command on a host, with one connection."""

    def __init__(self, host: Host, client: int = CLIENT) -> None:
        self.host = host
        self.client = client

    def ask(self, op: str, mode: str = "", uuid: str = "", **fields: Any) -> int | None:
        """The result; None: it is not answered yet."""
        opts = ("persistent",) if uuid else ()
        before = len(self.host.lvm_answers)
        self.host.lvm(self.client, LvmAsked(
            op, 100 + self.client, 5, "vgchange", mode, opts, "vg0", vg_lock_type="dlm",
            lv_name="vm" if uuid else "", lv_uuid=uuid, **fields,
        ))  # fmt: skip
        told = [one for client, one in self.host.lvm_answers[before:] if client == self.client]
        return told[0].result if told else None

    def lv(self, mode: str, uuid: str) -> int | None:
        return self.ask("lock_lv", mode, uuid)

    def vg(self, mode: str) -> int | None:
        return self.ask("lock_vg", mode)

    def gone(self) -> None:
        self.host.feed(inputs.LvmGone(self.client))
        self.host.world.run()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """A cluster with vg0 of COUNT LVs, none of them active; no device can fence anybody."""
    monkeypatch.setattr(ahead, "FIRST", WINDOW)
    monkeypatch.setattr(ahead, "MOST", WINDOW)

    def make(count: int = 2, **options: Any) -> World:
        world = World(tmp_path, count, **options)
        for device in ("bmc1", "pdu1", "bmc2", "pdu2"):
            world.says[device, "off"] = world.says[device, "status"] = Power.UNKNOWN
        world.pass_ms(1000)
        one = world.hosts[1]
        one.do(calls.PvCreate((str(world.image),)))
        one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
        world.pass_ms(200)
        for number in range(COUNT):
            one.do(calls.LvCreate("vg0", f"vm{number:02}", size_bytes=4 << 20, activate="n"))
        world.pass_ms(500)
        return world

    return make


@pytest.fixture
def world(made: Callable[..., World]) -> World:
    return made()


def uuids(world: World) -> list[str]:
    return [row["lv_uuid"] for row in world.hosts[1].do(calls.Lvs("vg0"))["rows"]]


def held(world: World, node: int = 1) -> dict[str, Mode]:
    """LVs that a node holds in the cluster, and does not only keep."""
    return {name: lock.held for name, lock in granted(world, node).items() if not lock.flags & Flag.AHEAD}


def kept(world: World, node: int = 1) -> list[str]:
    """Those that it has asked for ahead."""
    return [name for name, lock in granted(world, node).items() if lock.flags & Flag.AHEAD]


def granted(world: World, node: int) -> dict[str, Any]:
    state = next(host for host in world.hosts.values() if host.running and not host.frozen).node.context.state
    resources = state.lockspaces[SPACE].resources
    found = {name: resources[name].find(node) for name in sorted(resources) if name != "VGLK"}
    return {name: lock for name, lock in found.items() if lock is not None and lock.held is not Mode.UN}


def begin(world: World, count: int, host: int = 1) -> tuple[Stock, list[str]]:
    """`vgchange -aey` has activated the first so many."""
    names, stock = uuids(world), Stock(world.hosts[host])
    assert stock.vg("sh") == 0
    for uuid in names[:count]:
        assert stock.lv("ex", uuid) == 0
    return stock, names


def frames(host: Host, do: Callable[[], object]) -> int:
    """How many frames the host sends meanwhile."""
    sent = 0
    carry_out = host._carry_out

    def counted(effect: effects.Effect) -> None:
        nonlocal sent
        sent += isinstance(effect, effects.Multicast)
        carry_out(effect)

    host._carry_out = counted  # type: ignore[method-assign]
    do()
    del host._carry_out
    return sent


# -- asked for ahead -----------------------------------------------------------------------


def test_the_next_ones_are_asked_for_together(world: World) -> None:
    """Once the order is known, few requests cost a round of the ring; nothing is left over."""
    stock, names = begin(world, ahead.AFTER)
    assert sorted(kept(world)) == sorted(names[ahead.AFTER :][:WINDOW])
    rest = names[ahead.AFTER :]
    assert frames(world.hosts[1], lambda: [stock.lv("ex", uuid) for uuid in rest]) <= len(rest) // 2 + 1
    assert stock.vg("un") == 0
    world.pass_ms(200)
    assert held(world) == dict.fromkeys(sorted(names), Mode.EX)
    assert kept(world) == []


def test_no_answer_waits_for_what_is_asked_ahead_or_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locker, "LET_GO_AT", 2)
    (stock, names), host = begin(world, ahead.AFTER), world.hosts[1]

    def answered_first(mode: str, some: list[str]) -> None:
        host.held = []
        assert frames(host, lambda: [stock.lv(mode, uuid) for uuid in some]) == 0
        assert host.held, "it is called again"
        assert frames(host, host.go_on) == 1

    answered_first("ex", names[ahead.AFTER :][:2])
    assert len(kept(world)) == WINDOW + 2, "of the two that are taken it is not told yet"
    answered_first("un", names[:2])
    assert names[0] not in granted(world, 1)


@pytest.mark.parametrize(("cmd", "ahead_of_it"), [("vgchange", WINDOW), ("lvchange", 0)])
def test_the_order_is_read_while_a_vgchange_reads_it(world: World, cmd: str, ahead_of_it: int) -> None:
    """Others' is read when they have asked for a few in a row, which is then behind them."""
    host, names = world.hosts[1], uuids(world)
    host.lvm(CLIENT, LvmAsked("lock_vg", 100, 5, cmd, "sh", vg_name="vg0"))
    world.pass_ms(100)
    for uuid in names[: ahead.AFTER]:
        assert Stock(host).lv("ex", uuid) == 0
    assert len(kept(world)) == ahead_of_it


def test_the_order_is_read_once_for_a_command_that_takes_the_lock_over_and_over(world: World) -> None:
    host, reads = world.hosts[1], 0
    do = host._do

    def counted(body: Any) -> Any:
        nonlocal reads
        reads += isinstance(body, orders.ScanDevices | orders.ReadDisks)
        return do(body)

    host._do = counted  # type: ignore[method-assign]
    stock = Stock(host)
    for _ in range(50):
        assert [stock.vg("sh"), stock.vg("un")] == [0, 0]
    world.pass_ms(200)
    assert reads == 1


def test_shared_activations_are_asked_for_ahead_on_two_hosts_at_once(world: World) -> None:
    names, one, two = uuids(world), Stock(world.hosts[1]), Stock(world.hosts[2])
    assert [one.vg("sh"), two.vg("sh")] == [0, 0]
    for uuid in names:
        assert [one.lv("sh", uuid), two.lv("sh", uuid)] == [0, 0]
    world.pass_ms(200)
    assert held(world, 1) == held(world, 2) == dict.fromkeys(sorted(names), Mode.PR)


def test_what_is_only_kept_is_shown_as_no_activation(world: World) -> None:
    _, names = begin(world, 4)
    ahead_of = names[5]
    for host in world.hosts.values():
        rows = {row["lv_uuid"]: row for row in host.do(calls.Lvs("vg0"), client=2)["rows"]}
        assert [rows[ahead_of]["lv_holder"], rows[ahead_of]["lv_active"]] == ["", ""]
        found = host.do(calls.Locks(SPACE), client=2)["locks"]
        assert {row["state"] for row in found if row["resource"] in kept(world)} == {"kept"}
        said = " ".join(host.do(calls.Why(f"{SPACE}/{ahead_of}"), client=2)["lines"])
        assert "an-a01n01 asked for it ahead" in said
        assert "is held" not in said


@pytest.mark.parametrize("end", ["unlock", "gone", "idle"])
def test_what_is_not_used_is_given_back(world: World, end: str) -> None:
    stock, names = begin(world, 5)
    assert kept(world)
    if end == "unlock":
        assert stock.vg("un") == 0
    elif end == "gone":
        stock.gone()
    world.pass_ms(200 if end != "idle" else ahead.UNUSED_MS + 200)
    assert kept(world) == []
    assert sorted(held(world)) == sorted(names[:5])


def test_a_command_that_was_slow_goes_on(world: World) -> None:
    stock, names = begin(world, 5)
    world.pass_ms(ahead.UNUSED_MS + 200)
    for uuid in names[5:]:
        assert stock.lv("ex", uuid) == 0
    assert len(held(world)) + len(kept(world)) >= COUNT - 1


def test_who_skips_some_has_them_given_back(world: World) -> None:
    stock, names = begin(world, 4)
    assert stock.lv("ex", names[6]) == 0
    world.pass_ms(200)
    assert [uuid for uuid in (names[4], names[5]) if uuid in granted(world, 1)] == []


# -- another host ----------------------------------------------------------------------------


@pytest.mark.parametrize("wait_ms", [0, None])
def test_another_host_gets_what_is_only_kept(world: World, wait_ms: int | None) -> None:
    """In the middle of vgchange on host 1, a command on host 2 takes one of the next."""
    stock, names = begin(world, 4)
    assert names[5] in kept(world)
    taken = world.hosts[2].do(calls.LvChange("vg0", "vm05", "ey", wait_ms=wait_ms), client=2)
    assert taken["mode"] == "EX"
    assert stock.lv("ex", names[4]) == 0
    assert stock.lv("ex", names[5]) == -errno.EAGAIN
    assert stock.lv("ex", names[6]) == 0
    assert held(world, 2) == {names[5]: Mode.EX}


def test_another_host_is_refused_what_is_used_though_the_cluster_does_not_know_it_yet(world: World) -> None:
    stock, names = begin(world, 5)
    assert names[4] in kept(world), "its use is told with what is said next"
    with pytest.raises(LockHeld, match="an-a01n01"):
        world.hosts[2].do(calls.LvChange("vg0", "vm04", "ey", wait_ms=0), client=2)
    assert held(world)[names[4]] is Mode.EX
    assert stock.lv("ex", names[5]) == 0


def test_a_stock_command_there_gets_it_too(world: World) -> None:
    _, names = begin(world, 4)
    two = Stock(world.hosts[2])
    assert two.vg("sh") == 0
    assert [two.lv("ex", names[3]), two.lv("ex", names[6])] == [-errno.EAGAIN, 0]


# -- failures in the middle ------------------------------------------------------------------


def test_a_host_that_freezes_in_the_middle_keeps_all_until_it_is_fenced(world: World) -> None:
    """Also what it only kept: nobody can ask it any more."""
    _, names = begin(world, 4)
    world.freeze(1)
    asked = world.hosts[2].ask(calls.LvChange("vg0", "vm06", "ey", wait_ms=None), client=2)
    world.view(2)
    world.pass_ms(2000)
    assert world.hosts[2].reply(asked) is None
    assert names[6] in granted(world, 1)
    world.cut(1)
    world.hosts[2].do(calls.FenceConfirm("an-a01n01", "ann", "cable", world.now_ns), client=2)
    world.pass_ms(6000)
    assert world.hosts[2].reply(asked)["mode"] == "EX"
    assert granted(world, 1) == {}


def test_a_host_that_goes_stale_in_the_middle_has_neither(world: World) -> None:
    stock, _ = begin(world, 4)
    world.freeze(1)
    world.view(2)
    world.pass_ms(1000)
    world.hosts[2].do(calls.FenceConfirm("an-a01n01", "ann", "a lie", world.now_ns), client=2)
    world.pass_ms(6000)
    assert granted(world, 1) == {}
    world.thaw(1, 1, 2)
    world.pass_ms(3000)
    assert granted(world, 1) == {}
    stock.gone()
    again = Stock(world.hosts[1], CLIENT + 1)
    assert again.vg("sh") in (0, None)


def test_a_daemon_that_comes_back_adopts_what_was_used_alone(world: World) -> None:
    _, names = begin(world, 6)
    one = world.hosts[1]
    one.kill()
    world.view(2, how="procdown")
    world.run()
    one.start(one.left_open())
    world.view(1, 2)
    world.pass_ms(1000)
    assert sorted(granted(world, 1)) == sorted(names[:6])
    assert kept(world) == []


def test_a_leave_gives_back_what_is_kept(world: World) -> None:
    stock, names = begin(world, 5)
    for uuid in names[:5]:
        assert stock.lv("un", uuid) == 0
    assert stock.vg("un") == 0
    again = Stock(world.hosts[1], CLIENT + 1)
    for uuid in names[:5]:
        assert again.lv("ex", uuid) == 0
    for uuid in names[:5]:
        assert again.lv("un", uuid) == 0
    assert kept(world)
    asked = world.hosts[1].ask(calls.VgChange("lockstop", "vg0"), client=2)
    world.pass_ms(500)
    assert granted(world, 1) == {}
    assert world.hosts[1].reply(asked) is not None


def test_beside_an_older_node_nothing_is_asked_for_ahead(made: Callable[..., World]) -> None:
    """It would refuse its users what is only kept."""
    world = made(speaks=Speaks(1, 4))
    stock, names = begin(world, 8)
    assert kept(world) == []
    assert sorted(granted(world, 1)) == sorted(names[:8])
    assert stock.lv("ex", names[8]) == 0


def test_a_text_that_cannot_be_read_costs_nothing_but_speed(world: World) -> None:
    names, stock = uuids(world), Stock(world.hosts[1])
    world.hosts[1].storage = None  # type: ignore[assignment]
    world.hosts[1]._do = _unreadable  # type: ignore[method-assign]
    assert stock.vg("sh") == 0
    assert [stock.lv("ex", uuid) for uuid in names] == [0] * COUNT
    assert kept(world) == []


def test_the_disks_are_read_and_texts_parsed_by_a_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "SLICE", 3)
    world.hosts[1].node.context.known_vgs = KnownVgs()
    one, orders_done, real = world.hosts[1], [], world.hosts[1]._do
    one._do = lambda body: orders_done.append(type(body).__name__) or real(body)  # type: ignore[method-assign]
    assert [row["lv_name"] for row in one.do(calls.Lvs("vg0"))["rows"]] == [
        f"vm{number:02}" for number in range(COUNT)
    ]
    assert orders_done == ["ReadDisks", "OpenPaths"]


def _unreadable(body: Any) -> Any:
    raise LockHeld("no disk answers")


# -- released early --------------------------------------------------------------------------


def test_releases_are_told_before_the_cluster_knows(world: World) -> None:
    stock, names = begin(world, COUNT)
    world.stopped = True
    assert [stock.lv("un", uuid) for uuid in names] == [0] * COUNT
    assert len(granted(world, 1)) == COUNT
    assert stock.vg("un") is None, "the VG's lock is not, before it does"
    before = len(world.hosts[1].lvm_answers)
    world.stopped = False
    world.run()
    assert [one.result for _, one in world.hosts[1].lvm_answers[before:]] == [0]
    assert granted(world, 1) == {}
    assert world.hosts[2].do(calls.LvChange("vg0", "vm00", "ey", wait_ms=0), client=2)["mode"] == "EX"


def test_releases_share_frames(world: World) -> None:
    stock, names = begin(world, COUNT)
    assert frames(world.hosts[1], lambda: [stock.lv("un", uuid) for uuid in names]) == 0
    assert frames(world.hosts[1], lambda: stock.vg("un")) == 1
    assert granted(world, 1) == {}


def test_what_was_released_early_can_be_had_again_at_once(world: World) -> None:
    stock, names = begin(world, COUNT)
    for uuid in names:
        assert stock.lv("un", uuid) == 0
    assert stock.lv("ex", names[0]) == 0
    other = Stock(world.hosts[1], CLIENT + 1)
    assert other.lv("ex", names[1]) == 0
    assert stock.lv("un", names[2]) == -errno.ENOENT
    world.pass_ms(300)
    assert sorted(held(world)) == sorted(names[:2])


def test_what_was_just_released_costs_no_round_to_have_again(world: World) -> None:
    """A command that takes one LV's lock and lets go of it, over and over."""
    stock, names = begin(world, 1)

    def over_and_over() -> None:
        for _ in range(5):
            assert [stock.lv("un", names[0]), stock.lv("ex", names[0])] == [0, 0]

    assert frames(world.hosts[1], over_and_over) == 0
    assert held(world) == {names[0]: Mode.EX}


def test_who_waits_for_it_elsewhere_gets_it_without_a_delay(world: World) -> None:
    stock, names = begin(world, COUNT)
    asked = world.hosts[2].ask(calls.LvChange("vg0", "vm03", "ey", wait_ms=None), client=2)
    assert world.hosts[2].reply(asked) is None
    assert stock.lv("un", names[3]) == 0
    world.pass_ms(200)
    assert world.hosts[2].reply(asked)["mode"] == "EX"


def test_a_connection_that_ends_leaves_nothing_behind(world: World) -> None:
    stock, names = begin(world, COUNT)
    for uuid in names[:6]:
        assert stock.lv("un", uuid) == 0
    stock.gone()
    world.pass_ms(200)
    assert sorted(granted(world, 1)) == sorted(names[6:])


def test_a_daemon_killed_in_between_does_not_take_it_over(world: World) -> None:
    """It was told to be over: it is over for the next life, too."""
    stock, names = begin(world, COUNT)
    for uuid in names[:6]:
        assert stock.lv("un", uuid) == 0
    one = world.hosts[1]
    assert len(granted(world, 1)) == COUNT
    one.kill()
    world.view(2, how="procdown")
    world.run()
    one.start(one.left_open())
    world.view(1, 2)
    world.pass_ms(1000)
    assert sorted(granted(world, 1)) == sorted(names[6:])


def test_a_frozen_lockspace_does_not_hold_up_the_command_for_ever(world: World) -> None:
    stock, names = begin(world, COUNT)
    world.freeze(2)
    world.view(1)
    world.run()
    assert stock.lv("un", names[0]) == 0
    assert stock.vg("un") is None
    before = len(world.hosts[1].lvm_answers)
    world.pass_ms(6000)
    assert len(world.hosts[1].lvm_answers) == before + 1


def test_who_has_the_vg_next_finds_in_use_what_a_command_has_taken(world: World) -> None:
    """Of what was asked for ahead, too, of which the cluster is told for its own sake a while later."""
    stock, names = begin(world, COUNT)
    for uuid in names[: ahead.AFTER]:
        assert stock.lv("un", uuid) == 0
    assert stock.vg("un") == 0
    with pytest.raises(Refused, match="has active LVs"):
        world.hosts[2].do(calls.VgRename("vg0", "vg1"))
    assert held(world) == dict.fromkeys(sorted(names[ahead.AFTER :]), Mode.EX)


def test_what_a_daemon_that_comes_back_has_adopted_is_in_use(made: Callable[..., World]) -> None:
    """Whoever waited for the VG goes on with the adoption, and need not hear of it from the host itself."""
    world = made(3)
    one, two = world.hosts[1], world.hosts[2]
    stock, names = begin(world, 0)
    asked = two.ask(calls.VgRename("vg0", "vg1"))
    for uuid in names:
        assert stock.lv("ex", uuid) == 0
    for uuid in names[: ahead.AFTER]:
        assert stock.lv("un", uuid) == 0
    assert kept(world)
    assert two.reply(asked) is None
    one.kill()
    world.view(2, 3, how="procdown")
    world.run()
    one.start(one.left_of_lvm2())
    world.view(1, 2, 3)
    world.freeze(1)
    world.run()
    world.until(lambda: asked in two.replies)
    with pytest.raises(Refused, match="has active LVs"):
        two.reply(asked)
