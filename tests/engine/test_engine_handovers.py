"""An LV goes from one host to another: one writer at all times, and one in the end, whatever happens when."""

from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any

import msgspec
import pytest
from engine_ring import IDLE_TICK_MS, Host, World

from ringfence.core.errors import DeviceFailed, Refused, RingfenceError, Unavailable
from ringfence.core.evidence import Power
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.engine import inputs, orders
from ringfence.engine.commands.handover import take, take_back
from ringfence.storage.direct import DirectFile
from ringfence.wire import HANDOVERS, Speaks
from ringfence.wire import client as calls
from ringfence.wire.block import Extent, Hold
from ringfence.wire.entries import HandoverStep

GIVE = calls.LvHandover("vg0", "vm1", "an-a01n02")
PREPARE = calls.LvHandover("vg0", "vm1", "an-a01n02", prepare=True)
ABORT = calls.LvHandover("vg0", "vm1", abort=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return with_lv(World(tmp_path, 3))


def with_lv(world: World) -> World:
    """Three hosts, VG vg0; an-a01n01 has vm1 open."""
    world.pass_ms(1000)
    world.hosts[1].do(calls.PvCreate((str(world.image),)))
    world.hosts[1].do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(1000)
    world.hosts[1].do(calls.LvCreate("vg0", "vm1", extents=4))
    world.pass_ms(500)
    watch(world)
    return world


def watch(world: World) -> None:
    """After each order of any host: no two may write, and whoever may has the lock for it."""
    for host in world.hosts.values():
        host._do = checked(world, host, host._do)  # type: ignore[method-assign]


def checked(world: World, host: Host, do: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def wrapped(body: Any) -> Any:
        answer = do(body)
        check(world)
        return answer

    return wrapped


def check(world: World) -> None:
    may = writers(world)
    assert len(may) <= 1, may
    for id in may:
        assert mode(world, id) in (Mode.EX, Mode.PW)


def writers(world: World) -> list[int]:
    """Hosts whose path lets write, or would as soon as its deadline is renewed."""
    return [id for id, host in world.hosts.items() if any(not one.hold.waits for one in host.paths.values())]


def ends(world: World) -> dict[int, Hold]:
    return {id: one.hold for id, host in world.hosts.items() for one in host.paths.values()}


def mode(world: World, id: int) -> Mode:
    """Of the node's lock, in the ordered state as some node has it that runs."""
    state = next(
        host.node.context.running
        for host in world.hosts.values()
        if host.node is not None and host.node.context.running is not None and not host.node.context.left
    )
    for name, resource in state.lockspaces["lvm_vg0"].resources.items():
        lock = resource.find(id)
        if name != "VGLK" and lock is not None:
            return lock.held
    return Mode.UN


def settled(world: World, *, writer: int | None) -> None:
    """That one writes, under EX, and nobody else has anything of it left."""
    world.pass_ms(100)
    assert ends(world) == ({writer: Hold.NONE} if writer else {})
    assert {id: mode(world, id) for id in world.hosts if mode(world, id) is not Mode.UN} == (
        {writer: Mode.EX} if writer else {}
    )
    if writer is not None:
        (path,) = world.hosts[writer].paths.values()
        use = world.hosts[writer].node._running.locker.find("lvm_vg0", path.uuid)
        assert path.token == use.held.token, "a token of its own"
    for host in world.hosts.values():
        if host.running and not host.node.context.left:
            assert not world_handovers(host)
            assert not host.node._running._tasks.held
            assert not host.node._running._handovers.busy


def world_handovers(host: Host) -> dict[str, orders.OnItsWay]:
    found: dict[str, orders.OnItsWay] = host.node._running._tasks._handovers("vg0")
    return found


def tried_elsewhere(world: World, why: str = "held EX by") -> None:
    with pytest.raises(Refused, match=why):
        world.hosts[3].do(calls.LvChange("vg0", "vm1", "ey"))


# -- as it should go -----------------------------------------------------------------------


def test_it_goes_to_the_other_host_with_a_token_of_its_own(world: World) -> None:
    (before,) = world.hosts[1].paths.values()
    asked = world.hosts[1].ask(GIVE)
    world.pass_ms(100)
    answer = world.hosts[1].reply(asked)
    assert answer["message"] == "Logical volume vg0/vm1 handed over: it is an-a01n02's."
    settled(world, writer=2)
    (after,) = world.hosts[2].paths.values()
    assert after.token > before.token
    assert [event.what for event in world.hosts[3].events if event.kind == "handed-over"] == [
        "LV vg0/vm1 was handed over from an-a01n01 to an-a01n02"
    ]
    tried_elsewhere(world)
    back = world.hosts[2].ask(calls.LvHandover("vg0", "vm1", "an-a01n01"))
    world.pass_ms(100)
    assert world.hosts[2].reply(back)["state"] == "handed over"
    settled(world, writer=1)


def test_what_changes_it_waits_from_before_the_lock_is_weaker_until_it_is_ex(world: World) -> None:
    seen: list[tuple[str, Hold, str, str]] = []

    def note(host: Host, do: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def wrapped(body: Any) -> Any:
            answer = do(body)
            if isinstance(body, orders.OpenPath | orders.ReloadPath | orders.ClosePath):
                kind = type(body).__name__
                hold = getattr(body, "hold", None) or Hold.NONE
                seen.append((f"{host.id} {kind}", hold, mode(world, 1).name, mode(world, 2).name))
            return answer

        return wrapped

    for host in world.hosts.values():
        host._do = note(host, host._do)  # type: ignore[method-assign]
    world.hosts[1].ask(GIVE)
    world.pass_ms(200)
    assert seen == [
        ("1 ReloadPath", Hold.GIVING, "EX", "UN"),
        ("2 OpenPath", Hold.TAKING, "PR", "PR"),
        ("1 ClosePath", Hold.NONE, "PR", "PR"),
        ("2 ReloadPath", Hold.NONE, "UN", "EX"),
    ]


def test_a_prepared_one_is_written_on_until_it_is_given(world: World) -> None:
    asked = world.hosts[1].ask(PREPARE)
    world.pass_ms(100)
    assert world.hosts[1].reply(asked)["state"] == "prepared"
    assert ends(world) == {1: Hold.LENDING, 2: Hold.BORROWING}
    assert (mode(world, 1), mode(world, 2)) == (Mode.PW, Mode.CR)
    assert writers(world) == [1]
    world.pass_ms(10_000, IDLE_TICK_MS)
    assert ends(world) == {1: Hold.LENDING, 2: Hold.BORROWING}, "it stays so"
    tried_elsewhere(world, "is being handed over from an-a01n01 to an-a01n02")
    with pytest.raises(Refused, match="on an-a01n01, ringfence handover vg0/vm1 --abort"):
        world.hosts[3].do(calls.LvChange("vg0", "vm1", "sy", force=True))
    for host in world.hosts.values():
        lines = "\n".join(host.do(calls.Why("vg0/vm1"))["lines"])
        assert "is being handed over from an-a01n01 to an-a01n02 since" in lines
        assert "next: on an-a01n01, ringfence handover vg0/vm1 --to an-a01n02, or --abort" in lines
        notes = host.do(calls.Lvs("vg0"))["notes"]
        assert any("vg0/vm1 is being handed over from an-a01n01 to an-a01n02" in note for note in notes)
        (told,) = host.do(calls.Status())["handovers"]
        assert [told[name] for name in ("lv", "giver", "taker", "step")] == [
            "vm1", "an-a01n01", "an-a01n02", "lend",
        ]  # fmt: skip
    # The LV grows meanwhile: both ends follow, and stay held.
    world.hosts[3].do(calls.LvResize("vg0", "vm1", extents=1, sign="+"))
    world.pass_ms(100)
    assert ends(world) == {1: Hold.LENDING, 2: Hold.BORROWING}
    asked = world.hosts[1].ask(GIVE)
    world.pass_ms(100)
    assert world.hosts[1].reply(asked)["state"] == "handed over"
    settled(world, writer=2)
    (path,) = world.hosts[2].paths.values()
    assert sum(one.length_bytes for one in path.extents) == 5 << 22


def test_who_takes_it_writes_to_all_of_it_though_it_has_not_followed_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.hosts[1].ask(PREPARE)
    world.pass_ms(100)
    monkeypatch.setattr(world.hosts[2].node._running.refreshes.own, "look", lambda: None)
    world.hosts[3].do(calls.LvResize("vg0", "vm1", extents=1, sign="+"))
    asked = world.hosts[1].ask(GIVE)
    world.pass_ms(100)
    assert world.hosts[1].reply(asked)["state"] == "handed over"
    (path,) = world.hosts[2].paths.values()
    assert sum(one.length_bytes for one in path.extents) == 5 << 22
    assert path.hold is Hold.NONE


def test_a_prepared_one_is_dropped_by_a_word(world: World) -> None:
    world.hosts[1].ask(PREPARE)
    world.pass_ms(100)
    with pytest.raises(Refused, match="from an-a01n01 to an-a01n02; to drop that: on an-a01n01"):
        world.hosts[1].do(calls.LvHandover("vg0", "vm1", "an-a01n03"))
    assert ends(world) == {1: Hold.LENDING, 2: Hold.BORROWING}, "as it was"
    with pytest.raises(Refused, match="there: ringfence handover vg0/vm1 --abort"):
        world.hosts[2].do(ABORT)
    asked = world.hosts[1].ask(ABORT)
    world.pass_ms(3000)
    assert world.hosts[1].reply(asked)["state"] == "taken back"
    settled(world, writer=1)
    with pytest.raises(Refused, match="vg0/vm1 is not being handed over"):
        world.hosts[1].do(ABORT)


@pytest.mark.parametrize("how", [calls.Leave(), calls.LvChange("vg0", "vm1", "n")])
@pytest.mark.parametrize("who", [1, 2])
def test_whoever_lets_go_of_a_prepared_one_ends_it(world: World, who: int, how: calls.Call) -> None:
    """The taker: it is the giver's as before.  The giver: it is nobody's, and the taker closes its end."""
    world.hosts[1].ask(PREPARE)
    world.pass_ms(100)
    asked = world.hosts[who].ask(how)
    world.pass_ms(3000)
    world.hosts[who].reply(asked)
    settled(world, writer=1 if who == 2 else None)
    if who == 1:
        world.hosts[3].do(calls.LvChange("vg0", "vm1", "ey"))
        settled(world, writer=3)


@pytest.mark.parametrize("who", [1, 2])
def test_a_block_service_that_was_started_anew_leaves_the_lock_and_no_path(world: World, who: int) -> None:
    """What was prepared ends there; the LV is activated once more by whoever has it."""
    world.hosts[1].ask(PREPARE)
    world.pass_ms(100)
    world.hosts[who].paths.clear()
    asked = world.hosts[1].ask(ABORT)
    world.pass_ms(3000)
    reply = world.hosts[1].reply(asked)
    assert reply["state"] == "taken back"
    assert ("its path was gone: lvchange -aey vg0/vm1 opens it" in reply["message"]) == (who == 1)
    if who == 1:
        assert (ends(world), mode(world, 1), mode(world, 2)) == ({}, Mode.EX, Mode.UN)
        world.hosts[1].do(calls.LvChange("vg0", "vm1", "ey"))
    settled(world, writer=1)


def test_a_lock_without_a_path_is_told_of(world: World) -> None:
    """The block service was started anew, and the other host ends what was prepared: nobody asked here."""
    one = world.hosts[1]
    one.ask(PREPARE)
    world.pass_ms(100)
    one.paths.clear()
    world.hosts[2].do(calls.LvChange("vg0", "vm1", "n"))
    world.pass_ms(3000)
    assert (ends(world), mode(world, 1), mode(world, 2)) == ({}, Mode.EX, Mode.UN)
    told = [event.what for event in one.events if event.kind == "handover-dropped"]
    assert any("vg0/vm1 is held EX here and not open: its path was gone" in what for what in told), told


# -- what is refused -------------------------------------------------------------------------


def test_what_cannot_be_handed_over_is_refused_and_stays(world: World) -> None:
    one, two = world.hosts[1], world.hosts[2]

    def refused(kind: type[RingfenceError], words: str, call: Any = GIVE, host: Host = one) -> None:
        asked = host.ask(call)
        world.pass_ms(200)
        with pytest.raises(kind, match=words):
            host.reply(asked)
        settled(world, writer=1)

    refused(Refused, "vg0/vm1 is not active here", calls.LvHandover("vg0", "vm1", "an-a01n03"), two)
    refused(RingfenceError, "no node is called nowhere", calls.LvHandover("vg0", "vm1", "nowhere"))
    refused(RingfenceError, "is this node", calls.LvHandover("vg0", "vm1", "an-a01n01"))
    two.do(calls.VgChange("lockstop", "vg0"))
    refused(Refused, "an-a01n02 has not started VG vg0")
    two.do(calls.VgChange("lockstart", "vg0"))
    world.pass_ms(500)
    waits = world.hosts[3].ask(calls.LvChange("vg0", "vm1", "ey", wait_ms=2000))
    world.pass_ms(100)
    refused(Refused, "an-a01n03 waits for it")
    world.pass_ms(2500)
    with pytest.raises(RingfenceError):
        world.hosts[3].reply(waits)
    do = two._do

    def opens_nothing(body: Any) -> Any:
        if isinstance(body, orders.OpenPath):
            raise DeviceFailed("no such disk")
        return do(body)

    two._do = opens_nothing  # type: ignore[method-assign]
    refused(Refused, "no such disk")
    two._do = do  # type: ignore[method-assign]
    asked = one.ask(GIVE)
    world.pass_ms(200)
    assert one.reply(asked)["state"] == "handed over", "once nothing is in the way"


def test_a_taker_that_reads_other_metadata_is_refused_before_anything_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = world.hosts[2]
    do, stale = two.storage.do, world.image.read_bytes()
    world.hosts[3].do(calls.LvCreate("vg0", "other", extents=1, activate="n"))

    def reads_old(order: orders.StorageOrder) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(DirectFile, "read", lambda file, at, length: stale[at:][:length])
            return do(order)

    two.storage.do = reads_old  # type: ignore[method-assign]
    world.hosts[1].reloads.clear()
    asked = world.hosts[1].ask(GIVE)
    world.pass_ms(200)
    with pytest.raises(Refused, match="VG vg0 is version 2 on an-a01n02, and 3 where it is given"):
        world.hosts[1].reply(asked)
    assert world.hosts[1].reloads == []
    two.storage.do = do  # type: ignore[method-assign]
    settled(world, writer=1)


def test_what_fails_on_the_taker_is_told_as_the_takers(world: World) -> None:
    """It is read on the giver, whose own block service may have the same path."""
    two = world.hosts[2]
    do = two._do

    def silent(body: Any) -> Any:
        if isinstance(body, orders.OpenPath):
            raise Unavailable("the block service on /run/ringfence/block has not answered for 2 s")
        return do(body)

    two._do = silent  # type: ignore[method-assign]
    asked = world.hosts[1].ask(GIVE)
    world.pass_ms(200)
    with pytest.raises(Refused, match="not handed over: on an-a01n02: the block service on /run/"):
        world.hosts[1].reply(asked)
    settled(world, writer=1)


def test_a_third_host_that_comes_in_between_stops_it_and_is_waited_for(world: World) -> None:
    """Stock LVM2 activates it shared while both hold it PR: it may write now, so neither end does."""
    two, three = world.hosts[2], world.hosts[3]
    do, box = two._do, []
    (path,) = world.hosts[1].paths.values()
    locker = three.node._running.locker

    def comes_between(body: Any) -> Any:
        answer = do(body)
        if isinstance(body, orders.OpenPath):
            locker.acquire("lvm_vg0", path.uuid, Mode.PR, 0, box.append, persistent=True, what="LV vg0/vm1")
            three.feed(inputs.Tick())
        return answer

    two._do = comes_between  # type: ignore[method-assign]
    asked = world.hosts[1].ask(GIVE)
    world.pass_ms(200)
    with pytest.raises(Refused, match="PR on an-a01n01, PR on an-a01n02, PR on an-a01n03"):
        world.hosts[1].reply(asked)
    two._do = do  # type: ignore[method-assign]
    world.pass_ms(5000)
    assert ends(world) == {1: Hold.GIVING}
    assert world_handovers(world.hosts[1]) == {}
    lines = world.hosts[1].do(calls.Why("vg0/vm1"))["lines"]
    assert any("its writes wait until this host has it EX again" in line for line in lines)
    assert any("held PR by an-a01n03" in line for line in lines), lines
    locker.release(box[0].lock, lambda _: None)
    three.feed(inputs.Tick())
    world.pass_ms(3000)
    settled(world, writer=1)


@pytest.mark.parametrize("command", [take("vg0", "u1"), take_back("vg0", "u1", 0)], ids=["take", "back"])
def test_what_has_grown_while_the_lock_was_waited_for_stays_so(command: orders.Command) -> None:
    """The lock may take long; by then the path may have been reloaded."""
    before, now = Extent("/d", 0, 1 << 20), Extent("/d", 0, 2 << 20)
    volume = orders.OpenVolume("vg0", "vm1", "u1", "/s", "nbd", extents=(before,), hold=Hold.TAKING)
    order = next(command)
    while not isinstance(order, orders.ReloadPath):
        match order:
            case orders.OpenPaths():
                order = command.send((volume,))
            case orders.FindLock():
                order = command.send(orders.Held(1, Mode.PR, Token(1, 1, 1), None))
            case orders.Convert():
                volume = msgspec.structs.replace(volume, lv="new", extents=(now,))
                order = command.send(orders.Held(1, Mode.EX, Token(1, 1, 2), None))
    assert (order.lv, order.name, order.extents, order.hold) == ("new", "new", (now,), Hold.NONE)


def test_a_mixed_cluster_refuses_in_one_line(tmp_path: Path) -> None:
    world = with_lv(World(tmp_path, 3, speaks=Speaks(1, HANDOVERS - 1)))
    with pytest.raises(Refused, match="the cluster speaks protocol 6, and hands LVs over from 7 on"):
        world.hosts[1].do(GIVE)
    settled(world, writer=1)


# -- what is lost in the middle ---------------------------------------------------------------


# -- what happens in the middle ----------------------------------------------------------------


def quiet(world: World) -> bool:
    """Nobody must be fenced, and nothing is in the middle (a hand-over may be prepared)."""
    running = [host.node for host in world.hosts.values() if host.running]
    return not any(
        node.context.state.victims()
        or node._running._tasks.running()
        or any(way.step is not HandoverStep.LEND for way in node._running._tasks._handovers("vg0").values())
        for node in running
    )


class Strike:
    """Something happens to a host at its order of some number, before that is carried out or right after."""

    def __init__(
        self, world: World, id: int, kind: str, number: int, after: bool, at: type | UnionType
    ) -> None:
        self.world, self.id, self.kind = world, id, kind
        self.host = world.hosts[id]
        self.left = number
        self.after, self.at = after, at
        self.struck: orders.Order | None = None
        self._order = self.host._order
        self.host._order = self.order  # type: ignore[method-assign]

    def over(self) -> None:
        self.host._order = self._order  # type: ignore[method-assign]

    def order(self, effect: Any) -> None:
        if not isinstance(effect.body, self.at):
            self._order(effect)
            return
        self.left -= 1
        if self.left != 0:
            self._order(effect)
            return
        self.struck = effect.body
        if self.kind == "fails":
            self.host.feed(inputs.OrderDone(effect.order, error=DeviceFailed("it fails").as_dict()))
            return
        if self.after:
            self.host._do(effect.body)
        match self.kind:
            case "killed":
                self.host.kill()
            case "off":
                self.world.power[self.id] = Power.OFF
                self.world.cut(self.id)
            case "frozen" | "paused":
                self.host.frozen = True
                self.world.later.append(lambda: self._order(effect))
            case "parted":  # from now on it is heard by nobody, and hears nobody
                self.world.stuck = (self.id,)
                self._order(effect)

    def follow(self) -> None:
        """What comes of it, until all is quiet."""
        world, host = self.world, self.host
        others = tuple(id for id in world.hosts if id != self.id)
        match self.kind:
            case "killed":
                world.view(*others, how="procdown")
                world.pass_ms(200)
                host.start(host.left_open())
                world.view(*world.hosts)
            case "off" | "frozen":
                world.view(*others)
            case "parted":
                world.waiting, world.unsent, world.stuck = [], [], ()
                world.part(others, (self.id,))
            case "paused":
                world.pass_ms(1000)
                host.frozen = False
                while host.inbox:
                    host.feed(host.inbox.popleft())
        world.run()
        if self.kind in ("off", "frozen", "parted"):
            world.until(lambda: quiet(world) and host.node is None, 60_000)
            world.boot(self.id, *world.hosts)
        world.until(lambda: quiet(world) and all(one.running for one in world.hosts.values()), 60_000)
        world.pass_ms(200)


def give_back(world: World) -> None:
    """an-a01n01 has it, as in the beginning."""
    for id in writers(world):
        world.hosts[id].do(calls.LvChange("vg0", "vm1", "n"))
    world.hosts[1].do(calls.LvChange("vg0", "vm1", "ey"))
    world.pass_ms(100)


CHANGES = orders.OpenPath | orders.ReloadPath | orders.ClosePath


def struck(
    world: World, kind: str, who: int, *, prepared: bool = False, after: bool = False,
    at: type | UnionType = CHANGES,
) -> list[tuple[str, int | None]]:  # fmt: skip
    """Hand it over once for each order of that side's block service, which is when the host is struck.

    Returns: the order, and who writes in the end; None: nobody."""
    found: list[tuple[str, int | None]] = []
    for number in range(1, 20):
        if prepared:
            world.hosts[1].ask(PREPARE)
            world.pass_ms(100)
        strike = Strike(world, who, kind, number, after, at)
        world.hosts[1].ask(GIVE)
        world.pass_ms(50)
        strike.over()
        if strike.struck is None:
            settled(world, writer=2)
            give_back(world)
            return found
        strike.follow()
        if prepared and ends(world) == {1: Hold.LENDING, 2: Hold.BORROWING}:
            world.hosts[1].ask(ABORT)  # it was struck before anything else was done
            world.pass_ms(3000)
        (writer,) = writers(world) or [None]
        settled(world, writer=writer)
        found.append((type(strike.struck).__name__, writer))
        give_back(world)
    raise AssertionError(found)


GIVER = [("ReloadPath", 1), ("ClosePath", 2)]
TAKER = [("OpenPath", 1), ("ReloadPath", 2)]
"""Who has it in the end: from TAKE on, the taker.  A host that is lost while it is its, loses it."""


@pytest.mark.parametrize("kind", ["killed", "off"])
def test_whatever_happens_in_the_middle_one_writes_in_the_end(world: World, kind: str) -> None:
    giver = [(order, None if kind == "off" and who == 1 else who) for order, who in GIVER]
    taker = [(order, None if kind == "off" and who == 2 else who) for order, who in TAKER]
    assert struck(world, kind, 1) == giver
    assert struck(world, kind, 2) == taker


@pytest.mark.long
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", ["killed", "off", "frozen", "parted", "paused", "fails"])
@pytest.mark.parametrize("prepared", [False, True])
def test_whatever_happens_at_any_order(world: World, kind: str, prepared: bool, after: bool) -> None:
    at = orders.BlockOrder
    found = [struck(world, kind, who, prepared=prepared, after=after, at=at) for who in (1, 2)]
    assert min(map(len, found)) >= 4, found
