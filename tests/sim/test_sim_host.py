"""A simulated host: its clock, its disk, and the guests of its open volumes."""


import msgspec
import pytest

from ringfence.core.cluster import ClusterConfig, NodeConfig
from ringfence.core.ids import Token
from ringfence.engine import effects, inputs, orders
from ringfence.engine.effects import Effect
from ringfence.engine.inputs import DiskState, Input
from ringfence.lvm2.label import SECTOR_BYTES
from ringfence.sim.disk import blank_disks
from ringfence.sim.host import Host, OwnDisk
from ringfence.sim.mirrored import Mirrored
from ringfence.sim.paths import Landed
from ringfence.sim.power import PowerRoom
from ringfence.sim.ring import SimRing
from ringfence.sim.scheduler import Scheduler
from ringfence.sim.storage import Trouble
from ringfence.sim.turns import Giver
from ringfence.wire.block import Extent
from ringfence.wire.client import Reply

S = 1_000_000_000


class Puppet:
    """An engine that wants what it is told to want with its next step."""

    def __init__(self) -> None:
        self.wants: list[Effect] = []
        self.facts: list[Input] = []

    def step(self, now_ns: int, input: Input) -> list[Effect]:
        self.facts.append(input)
        wants, self.wants = self.wants, []
        return wants


class Stage:
    """One host, and who looks on."""

    def __init__(self, rate: float = 1.0) -> None:
        self.scheduler = Scheduler(1)
        self.ends: list[str] = []
        self.writes: list[Landed] = []
        self.engines: list[Puppet] = []
        ring = SimRing(self.scheduler, 400, True)
        power = PowerRoom(self.scheduler, [1, 2], lambda node: self.host.power_off(), lambda node: None)
        config = ClusterConfig(name="sim", nodes=(NodeConfig(1, "n1"), NodeConfig(2, "n2")))
        disks = blank_disks(1 << 20)
        self.host = Host(self.scheduler, ring, power, self, self._engine, config, disks, 1, rate)

    def _engine(self) -> Puppet:
        self.engines.append(Puppet())
        return self.engines[-1]

    def stepped(self, host: Host, fact: Input, todo: list[Effect]) -> None: ...

    def answered(self, host: Host, client: int, reply: Reply) -> None: ...

    def ended(self, host: Host, why: str) -> None:
        self.ends.append(why)

    def reaped(self, host: Host) -> None: ...

    def landed(self, write: Landed) -> None:
        self.writes.append(write)

    def run(self, until_s: float) -> None:
        while self.scheduler.now_ns < until_s * S:
            self.scheduler.step()

    def want(self, *wants: Effect) -> None:
        self.engines[-1].wants = list(wants)
        assert self.host.daemon is not None
        self.host.feed(self.host.daemon, inputs.Tick())


def test_the_clock_runs_at_its_rate_goes_on_in_a_freeze_and_begins_with_each_boot() -> None:
    stage = Stage(rate=1.02)
    host = stage.host
    host.power_on()
    stage.run(10)
    assert host.clock_ns == pytest.approx(10.2 * S, rel=0.01)
    host.freeze()
    stage.run(20)
    assert host.clock_ns == pytest.approx(20.4 * S, rel=0.01)
    boot = host.boot
    host.power_off()
    host.power_on()
    assert host.clock_ns < S
    assert host.boot != boot


def test_a_clock_that_goes_at_another_rate_or_is_set_forward_never_goes_back() -> None:
    stage = Stage()
    host = stage.host
    host.power_on()
    stage.run(10)
    before_ns = host.clock_ns
    host.drift(rate=1.02)
    assert host.clock_ns == pytest.approx(before_ns, abs=1000)
    stage.run(20)
    assert host.clock_ns == pytest.approx(before_ns + 10.2 * S, rel=0.01)
    before_ns = host.clock_ns
    host.drift(ahead_ns=S // 10)
    assert host.clock_ns == before_ns + S // 10


def test_who_asks_to_be_told_hears_of_every_page_that_is_set() -> None:
    stage = Stage()
    stage.host.power_on()
    told: list[int] = []
    stage.host.renewed = told.append
    stage.want(effects.SetDeadline(1, "grant", 5 * S), effects.SetDeadline(1, "vg/vg0", 7 * S))
    stage.run(1)
    assert told == [5 * S, 7 * S]


def test_a_wall_clock_that_is_set_moves_nothing_else() -> None:
    stage = Stage()
    stage.host.power_on()
    stage.run(5)
    before = stage.host.clock_ns
    stage.host.wall_off_ms = -3_600_000
    assert stage.host.clock_ns == before
    stage.run(20)
    walls = [fact.wall_ms for fact in stage.engines[0].facts if isinstance(fact, inputs.Wall)]
    assert walls[0] > walls[-1]


def test_a_disk_that_refuses_ends_the_daemon_with_its_pages_lost() -> None:
    stage = Stage()
    stage.host.power_on()
    stage.host.own_disk = OwnDisk.FAILS
    stage.want(effects.SetDeadline(1, "grant", 99 * S), effects.Keep(DiskState(incarnation=7)))
    assert stage.host.daemon is None
    assert stage.ends == ["its disk refuses to keep its state"]
    assert not stage.host.valid(1, "grant")
    assert stage.host.disk.incarnation == 0


def test_what_follows_a_keep_waits_for_a_slow_disk() -> None:
    stage = Stage()
    stage.host.power_on()
    stage.host.own_disk = OwnDisk.SLOW
    stage.want(effects.Keep(DiskState(incarnation=7)), effects.SetDeadline(1, "grant", 99 * S))
    assert stage.host.disk.incarnation == 0
    assert not stage.host.valid(1, "grant")
    stage.run(6)
    assert stage.host.disk.incarnation == 7
    assert stage.host.valid(1, "grant")


# -- open volumes -----------------------------------------------------------------------

OPEN = orders.OpenPath("vg1", "lv0", "uuid", (Extent("/dev/sim0", 0, 4096),), False, Token(1, 1, 5))


def opened(stage: Stage, deadline_ns: int = 10 * S) -> None:
    stage.host.power_on()
    stage.want(effects.SetDeadline(1, "vg/vg1", deadline_ns), effects.DoOrder(1, OPEN))
    stage.run(1)
    assert stage.host.block.grips


def answers(stage: Stage) -> list[inputs.OrderDone]:
    return [fact for fact in stage.engines[-1].facts if isinstance(fact, inputs.OrderDone)]


def test_a_guest_writes_while_its_page_lets_it() -> None:
    stage = Stage()
    opened(stage)
    stage.run(20)
    assert len(stage.writes) > 20
    assert not any(write.late for write in stage.writes)
    last = len(stage.writes)
    stage.want(effects.SetDeadline(1, "vg/vg1", 30 * S))
    stage.run(25)
    assert len(stage.writes) > last, "it was held, and went on"


def test_a_write_in_flight_at_a_freeze_lands_late_and_is_told() -> None:
    stage = Stage()
    opened(stage)
    while not any(path.in_flight for path in stage.host.block.open.values()):
        stage.scheduler.step()
    stage.host.freeze()
    before = len(stage.writes)
    stage.run(30)
    assert len(stage.writes) == before
    stage.host.thaw()
    stage.run(31)
    assert [write.late for write in stage.writes[before:]] == [True]
    assert any(isinstance(fact, inputs.PathIncident) for fact in stage.engines[-1].facts)


def started(stage: Stage) -> inputs.Started:
    return next(fact for fact in stage.engines[-1].facts if isinstance(fact, inputs.Started))


def test_a_path_outlives_the_daemon_and_is_shown_to_the_next() -> None:
    stage = Stage()
    opened(stage)
    stage.host.kill_daemon()
    before = len(stage.writes)
    stage.run(5)
    assert len(stage.writes) > before
    stage.host.start_daemon()
    assert [(one.vg, one.lv) for one in started(stage).left_open] == [("vg1", "lv0")]
    assert not started(stage).paths_reaped
    assert stage.host.block.grips


def test_a_path_that_has_lost_its_authority_ends_before_the_next_daemon_begins() -> None:
    stage = Stage()
    opened(stage)
    stage.want(effects.SetDeadline(1, "vg/vg1", effects.LOST))
    stage.run(2)
    stage.host.kill_daemon()
    stage.host.start_daemon()
    assert started(stage).left_open == ()
    assert started(stage).paths_reaped
    assert stage.host.block.grips == []


@pytest.mark.parametrize("close", [True, False])
def test_a_path_is_closed_once_nothing_is_in_flight(close: bool) -> None:
    stage = Stage()
    opened(stage)
    while not any(path.in_flight for path in stage.host.block.open.values()):
        stage.scheduler.step()
    before = len(stage.writes)
    stage.want(effects.DoOrder(2, orders.ClosePath("vg1", "lv0")) if close else effects.DropPaths(1))
    while stage.host.block.grips:
        stage.scheduler.step()
    if close:
        assert len(stage.writes) == before + 1, "it was flushed"
    stage.run(5)
    assert len(stage.writes) <= before + 5
    assert [fact.error for fact in answers(stage)] == [None] * (2 if close else 1)


def test_a_worker_that_does_not_end_is_neither_closed_nor_dropped() -> None:
    stage = Stage()
    opened(stage)
    stage.host.block.stuck = True
    stage.want(effects.DoOrder(2, orders.ClosePath("vg1", "lv0")), effects.DropPaths(1))
    stage.run(3)
    assert answers(stage)[-1].error is not None
    assert stage.host.block.grips
    assert not any(isinstance(fact, inputs.PathsDropped) for fact in stage.engines[-1].facts)
    stage.host.block.stuck = False
    stage.run(4)
    assert stage.host.block.grips == []
    assert any(isinstance(fact, inputs.PathsDropped) for fact in stage.engines[-1].facts)


# -- orders that come late ----------------------------------------------------------------


def late(stage: Stage, worst_ms: int = 500) -> list[str]:
    """The block service is slow from now on.  Returns what it is at, as it comes."""
    stage.host.block.late_ms = worst_ms
    told: list[str] = []
    stage.host.block.ordered = lambda order, when: told.append(f"{type(order).__name__} {when}")
    return told


def ordered(stage: Stage, *then: Effect) -> list[str]:
    """A daemon has the LV opened, and the order has reached the block service, which is slow."""
    stage.host.power_on()
    told = late(stage)
    stage.want(effects.SetDeadline(1, "vg/vg1", 9 * S), effects.DoOrder(1, OPEN), *then)
    while not told:
        stage.scheduler.step()
    return told


def test_what_a_life_has_ordered_is_refused_once_all_was_dropped() -> None:
    stage = Stage()
    ordered(stage, effects.DropPaths(1))
    stage.run(2)
    (answer,) = answers(stage)
    assert answer.error is not None
    assert "dropped meanwhile" in answer.error["message"]
    assert stage.host.block.grips == []


def test_what_a_daemon_has_ordered_is_done_though_it_is_gone() -> None:
    stage = Stage()
    ordered(stage)
    stage.host.kill_daemon()
    assert stage.host.block.grips == []
    stage.run(2)
    assert stage.host.block.grips
    assert answers(stage) == []


def test_what_a_daemon_has_ordered_is_refused_once_it_is_succeeded() -> None:
    stage = Stage()
    told = ordered(stage)
    stage.host.kill_daemon()
    stage.host.start_daemon()
    stage.run(2)
    assert told == ["OpenPath given", "OpenPath done"]
    assert stage.host.block.grips == []


def test_orders_about_one_lv_are_carried_out_in_their_order_however_late() -> None:
    stage = Stage()
    opened(stage)
    late(stage, 1000)
    done: list[tuple[str, str]] = []

    def tell(order: orders.BlockOrder, when: str) -> None:
        if when == "done":
            assert isinstance(order, orders.OpenPath | orders.ClosePath)
            done.append((order.lv, type(order).__name__))

    stage.host.block.ordered = tell
    close, other = orders.ClosePath("vg1", "lv0", "uuid"), msgspec.structs.replace(OPEN, lv="lv1", uuid="2")
    for number, order in enumerate((close, OPEN, close, other), 2):
        stage.want(effects.DoOrder(number, order))
        stage.run(stage.scheduler.now_ns / S + 0.02)
    stage.run(9)
    assert [what for lv, what in done if lv == "lv0"] == ["ClosePath", "OpenPath", "ClosePath"]
    assert ("lv1", "OpenPath") in done[:-1], "who has an LV for itself need not wait for others"
    assert [answer.error for answer in answers(stage)] == [None] * 5


def test_a_daemon_that_waits_in_vain_knows_nothing_and_hears_nothing_more() -> None:
    stage = Stage()
    stage.host.power_on()
    late(stage, 60_000)
    stage.want(effects.SetDeadline(1, "vg/vg1", 200 * S), effects.DoOrder(1, OPEN))
    stage.run(130)
    (answer,) = answers(stage)
    assert answer.error is not None
    assert answer.error["message"] == "the block service has not answered"
    assert stage.host.block.grips, "it was opened all the same"


def test_nobody_takes_over_while_a_path_is_being_reloaded() -> None:
    stage = Stage()
    opened(stage)
    while not any(path.in_flight for path in stage.host.block.open.values()):
        stage.scheduler.step()
    reload = orders.ReloadPath("vg1", "lv0", "uuid", OPEN.extents, "lv9", False, OPEN.token)
    stage.host.block.do(reload, Giver(1, 1, stage.host.block.drops), lambda answer: None)
    stage.host.kill_daemon()
    stage.host.start_daemon()
    assert stage.host.daemon is None
    while stage.host.daemon is None:
        stage.scheduler.step()
    assert [one.lv for one in started(stage).left_open] == ["lv9"]


# -- disks that fail under guests -----------------------------------------------------------


MOVED = orders.MirrorPath("vg1", "lv0", "uuid", 0, (Extent("/dev/sim1", 8192, 4096),), OPEN.token)


class Told:
    """What the guests of a stage were told: how many writes have gone well, and of how many nobody knows."""

    def __init__(self, stage: Stage) -> None:
        self.well = self.unknown = 0
        stage.host.block.drawn = lambda order, offset: b"signed".ljust(SECTOR_BYTES, b"\0")
        stage.host.block.acknowledged = self._acknowledged

    def _acknowledged(self, order: orders.OpenPath, offset: int, data: bytes) -> None:
        self.well += bool(data)
        self.unknown += not data


def moving(stage: Stage) -> Mirrored:
    mirror = stage.host.block.open["vg1", "lv0"].mirror
    assert mirror is not None
    return mirror


def test_a_guest_is_told_that_a_write_has_failed() -> None:
    stage = Stage()
    opened(stage)
    told = Told(stage)
    stage.host.storage.suffer(Trouble.WRITES_FAIL, ("/dev/sim0",))
    stage.run(3)
    assert (told.well, told.unknown > 5) == (0, True)
    stage.host.storage.suffer(Trouble.NONE, ())
    stage.run(5)
    assert told.well > 5


@pytest.mark.parametrize("sealed", [True, False])
def test_a_new_place_that_fails_fails_the_copy_or_once_it_is_sealed_the_write(sealed: bool) -> None:
    stage = Stage()
    opened(stage)
    told = Told(stage)
    stage.want(effects.DoOrder(2, MOVED))
    stage.run(2)
    moving(stage).go_on()
    if sealed:
        stage.want(effects.DoOrder(3, orders.SealPath("vg1", "lv0", "uuid")))
        stage.run(3)
    stage.host.storage.suffer(Trouble.WRITES_FAIL, ("/dev/sim1",))
    before = told.well
    stage.run(6)
    assert (told.well == before) is sealed
    assert bool(told.unknown) is sealed
    assert bool(moving(stage).moving.failed) is not sealed


@pytest.mark.parametrize(
    ("how", "disk"), [(Trouble.READS_FAIL, "/dev/sim0"), (Trouble.WRITES_FAIL, "/dev/sim1")]
)
def test_a_copy_that_meets_an_error_has_failed(how: Trouble, disk: str) -> None:
    stage = Stage()
    opened(stage)
    stage.want(effects.DoOrder(2, MOVED))
    stage.run(2)
    stage.host.storage.suffer(how, (disk,))
    moving(stage).go_on()
    assert "the copy failed" in moving(stage).moving.failed
    assert not moving(stage).moving.copied_bytes
