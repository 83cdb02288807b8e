"""A simulated host: clock, disk, authority pages, data paths, and the daemon around the real engine.

It carries out the engine's effects in order, as `daemon.driver` does, with the same promises: what
follows a Keep happens only if it was kept; pages read LOST once the daemon has ended (but not when
it was killed); a new daemon is shown the data paths that the old one left open, if all of them may be
adopted, and starts only after they were reaped otherwise.  Between
any two effects the host may freeze or lose power."""

import enum
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import RingfenceError
from ringfence.core.evidence import Power
from ringfence.engine import effects, inputs, orders
from ringfence.engine.effects import LOST, Effect
from ringfence.engine.inputs import DiskState, Input
from ringfence.sim.disk import Disks
from ringfence.sim.grips import Grip
from ringfence.sim.paths import BlockService, Landed
from ringfence.sim.power import PowerRoom
from ringfence.sim.ring import Endpoint, SimRing
from ringfence.sim.scheduler import MS, Scheduler, Timer
from ringfence.sim.slots import SlotPort
from ringfence.sim.storage import Storage
from ringfence.sim.turns import Giver
from ringfence.wire import SPEAKS
from ringfence.wire.checkup import HostFacts
from ringfence.wire.client import Reply
from ringfence.wire.entries import Incident
from ringfence.wire.ring import OpenLock

TAKE_OVER_MS = 5


class Engine(Protocol):
    """`engine.node.Node`."""

    def step(self, now_ns: int, input: Input) -> list[Effect]: ...


class Watcher(Protocol):
    """Who looks on: the checkers, and the clients that wait for replies."""

    def stepped(self, host: "Host", fact: Input, todo: list[Effect]) -> None: ...

    def answered(self, host: "Host", client: int, reply: Reply) -> None: ...

    def ended(self, host: "Host", why: str) -> None:
        """The daemon is gone (killed, ended, host off): its connections are closed."""

    def reaped(self, host: "Host") -> None:
        """No client of the host believes to hold anything: it was told so, or is gone."""

    def landed(self, write: Landed) -> None:
        """A guest's write reached a disk."""


class OwnDisk(enum.Enum):
    """How the disk behaves on which a host's daemon keeps its state."""

    GOOD = "good"
    SLOW = "slow"
    """Keeping takes seconds, and the daemon does nothing else meanwhile."""
    FAILS = "fails"


@dataclass(eq=False)
class Daemon:
    """One run of the daemon."""

    engine: Engine
    endpoint: Endpoint | None = None
    inbox: deque[Input] = field(default_factory=deque)
    """Inputs that wait while it is frozen."""
    todo: deque[Effect] = field(default_factory=deque)
    """Effects that wait while it is frozen: it stopped in the middle of a step."""
    agents: dict[int, Timer] = field(default_factory=dict)
    number: int = 0
    """Of the daemons of its host."""
    incarnation: int = 0
    """Of its newest authority page."""
    steps: int = 0


class Host:
    """Args:
    make_engine: a new, unstarted engine.
    rate: its clock's speed relative to true time.
    machine: its machine identity; "": the one that belongs to the node."""

    def __init__(
        self,
        scheduler: Scheduler,
        ring: SimRing,
        power: PowerRoom,
        watcher: Watcher,
        make_engine: Callable[[], Engine],
        config: ClusterConfig,
        disks: Disks,
        node: int,
        rate: float,
        machine: str = "",
    ) -> None:
        self.node = node
        self._machine = machine or f"machine-{node}"
        self.name = config.name_of(node)
        self.config = config
        self.disk = DiskState()
        self.daemon: Daemon | None = None
        self.frozen = False
        """The whole host; see `daemon_frozen` for the daemon alone."""
        self.freezes = 0
        self.daemon_frozen = False
        self.thawed_ns = 0
        """When it, or its daemon, went on last: what it heard meanwhile it learns from then on."""
        self.up = False
        self.boots = 0
        self.daemons = 0
        self.neglected_until_ns = 0
        """Nobody switches it on, or starts its daemon, before that."""
        self.pages: dict[tuple[int, str], int] = {}
        self.fault: Callable[[], str] = lambda: ""
        """Asked between effects: "", "freeze", "kill" or "power"."""
        self.own_disk = OwnDisk.GOOD
        self.speaks = SPEAKS
        """What its daemon speaks when it is started next."""
        self.jumped_ns = -1 << 60
        """When its clock last jumped."""
        self.wall_off_ms = 0
        """By how much its wall clock is wrong."""
        self.storage = Storage(scheduler, disks, self.awake)
        self.slots = SlotPort(scheduler, disks, self.awake)
        self.block = BlockService(scheduler, self, watcher.landed, self.report_late, disks)
        self.block.fails = self.storage.fails
        self.sent: Callable[[bytes], None] = lambda payload: None
        """Told what its daemon has just multicast."""
        self.renewed: Callable[[int], None] = lambda deadline_ns: None
        """Told what a page was set to."""
        self._scheduler, self._ring, self._power, self._watcher = scheduler, ring, power, watcher
        self._timeline = scheduler.timeline
        self._make_engine = make_engine
        self._rate = rate
        self._clock_set = 0, 1
        """(true time, what its clock read then)."""
        self._asleep: list[Callable[[], None]] = []

    # -- clock and power -----------------------------------------------------------

    @property
    def clock_ns(self) -> int:
        """CLOCK_BOOTTIME: goes on while the host is frozen."""
        at_ns, read_ns = self._clock_set
        return read_ns + int((self._timeline.now_ns - at_ns) * self._rate)

    def drift(self, rate: float = 0, ahead_ns: int = 0) -> None:
        """From now on its clock goes at another rate (0: the same), or is further ahead."""
        self._clock_set = self._scheduler.now_ns, self.clock_ns + ahead_ns
        self._rate = rate or self._rate

    @property
    def boot(self) -> str:
        return f"boot-{self.node}-{self.boots}"

    def power_on(self) -> None:
        """Boot, and start the daemon."""
        assert not self.up
        self.up = True
        self.boots += 1
        self.frozen = self.daemon_frozen = False
        self.pages = {}
        self._clock_set = self._scheduler.now_ns, 1
        self.start_daemon()

    def power_off(self) -> None:
        """Everything in memory is gone at once."""
        if not self.up:
            return
        self.up = False
        self._asleep = []
        self.storage.stop(power=True)
        self.slots.stop(power=True)
        self._end_daemon("nodedown", "its host lost power")
        self.pages = {}
        self.block.lose_power()
        self._watcher.reaped(self)

    # -- freezing --------------------------------------------------------------------

    def freeze(self, daemon_only: bool = False) -> None:
        if not self.up or self.frozen:
            return
        self._scheduler.note(f"{self.name} {'daemon ' if daemon_only else ''}frozen")
        if daemon_only:
            self.daemon_frozen = True
        else:
            self.frozen = True
            self.freezes += 1
        if self.daemon is not None and self.daemon.endpoint is not None:
            self._ring.freeze(self.daemon.endpoint, with_host=not daemon_only)

    def thaw(self) -> None:
        if not self.up or not (self.frozen or self.daemon_frozen):
            return
        self._scheduler.note(f"{self.name} thawed")
        self.thawed_ns = self._scheduler.now_ns
        self.frozen = self.daemon_frozen = False
        asleep, self._asleep = self._asleep, []
        for what in asleep:
            self._scheduler.after(self._scheduler.between(0, 5), lambda what=what: self.awake(what))  # type: ignore[misc]
        daemon = self.daemon
        if daemon is None:
            return
        if daemon.endpoint is not None:
            self._ring.thaw(daemon.endpoint)
        self._go_on(daemon)

    def awake(self, what: Callable[[], None]) -> None:
        """Do something as soon as the host is awake; never, if it loses power first."""
        if not self.up:
            return
        if self.frozen:
            self._asleep.append(what)
        else:
            what()

    # -- the daemon --------------------------------------------------------------------

    def start_daemon(self) -> None:
        """Look at what an earlier daemon left, and reap it if it may not be adopted, then start."""
        if not self.up or self.daemon is not None:
            return
        self.daemons += 1
        if not self.block.take_over(self.daemons):
            self._scheduler.after(TAKE_OVER_MS, lambda: self.awake(self.start_daemon))
            return
        left_open = self._left_open()
        self._lose_pages([page for one in left_open for page in one.pages])
        if left_open:
            self._watcher.reaped(self)
        else:
            self._reap()
        daemon = self.daemon = Daemon(self._make_engine(), number=self.daemons)
        self.daemon_frozen = False
        self._scheduler.note(f"{self.name} daemon starts ({self.boot})")
        started = inputs.Started(
            self.config, self.node, self._machine, self.boot, self.disk, not left_open,
            left_open=left_open, speaks=self.speaks,
        )
        self.feed(daemon, started)
        self.feed(daemon, inputs.Wall(self._wall_ms()))
        if self.daemon is daemon:
            daemon.endpoint = self._ring.connect(self.node, lambda fact: self.feed(daemon, fact))
            self._tick(daemon)

    def _left_open(self) -> tuple[inputs.LeftOpen, ...]:
        """As `daemon.inheritance.take_over` finds it."""
        paths = list(self.block.open.values())
        if any(self.lost(path.grip.incarnation, path.grip.page) for path in paths):
            return ()
        return tuple(
            inputs.LeftOpen(
                path.order.vg,
                path.order.lv,
                OpenLock(path.grip.lockspace, path.grip.resource, path.grip.mode, path.grip.token),
                ((path.grip.incarnation, path.grip.page),),
                hold=path.order.hold,
            )
            for path in paths
        )

    def kill_daemon(self) -> None:
        """SIGKILL: no page is set, no word is said."""
        self._end_daemon("procdown", "killed")

    def _end_daemon(self, how: str, why: str) -> None:
        daemon = self.daemon
        if daemon is None:
            return
        self.daemon = None
        self.daemon_frozen = False
        self._scheduler.note(f"{self.name} daemon ended: {why}")
        self.storage.stop(power=False)
        self.slots.stop(power=False)
        for timer in daemon.agents.values():
            timer.cancel()
        if daemon.endpoint is not None:
            self._ring.close(daemon.endpoint, how)
        self._watcher.ended(self, why)

    def _tick(self, daemon: Daemon) -> None:
        if self.daemon is not daemon:
            return
        every_ms = self.config.timing.heartbeat_ms / 2
        if not self.frozen and not self.daemon_frozen:
            self.feed(daemon, inputs.Tick())
            if self._scheduler.chance(0.1):
                self.feed(daemon, inputs.Wall(self._wall_ms()))
        self._scheduler.after(
            self._scheduler.delay_ms(every_ms * 0.8, every_ms * 2), lambda: self._tick(daemon)
        )

    def _wall_ms(self) -> int:
        return 1_700_000_000_000 + self._scheduler.now_ns // MS + self.wall_off_ms

    def feed(self, daemon: Daemon, fact: Input) -> None:
        """An input for this very run of the daemon; dropped if it is over."""
        if self.daemon is not daemon:
            return
        daemon.inbox.append(fact)
        self._go_on(daemon)

    def _go_on(self, daemon: Daemon) -> None:
        """Effects left over from before a freeze first, then inputs."""
        while self.daemon is daemon and not self.frozen and not self.daemon_frozen:
            if daemon.todo:
                self._carry_out(daemon, daemon.todo.popleft())
            elif daemon.inbox:
                fact = daemon.inbox.popleft()
                todo = daemon.engine.step(self.clock_ns, fact)
                daemon.steps += 1
                self._watcher.stepped(self, fact, todo)
                daemon.todo.extend(todo)
            else:
                return
            if daemon.todo:
                self._suffer()

    def _suffer(self) -> None:
        """In the middle of a step."""
        match self.fault():
            case "freeze":
                self.freeze()
            case "kill":
                self.kill_daemon()
            case "power":
                self._power.cut(self.node)

    # -- effects -------------------------------------------------------------------------

    def _carry_out(self, daemon: Daemon, effect: Effect) -> None:
        match effect:
            case effects.Multicast(payload):
                if daemon.endpoint is not None:
                    self._ring.multicast(daemon.endpoint, payload)
                    self.sent(payload)
            case effects.SetDeadline(incarnation, page, deadline_ns):
                daemon.incarnation = max(daemon.incarnation, incarnation)
                if self.pages.get((incarnation, page)) != LOST:
                    self.pages[incarnation, page] = deadline_ns
                self.renewed(deadline_ns)
            case effects.Keep():
                self._keep(daemon, effect)
            case effects.KeepConfig(config):
                self.config = config
            case effects.Answer(client, reply):
                self._watcher.answered(self, client, reply)
            case effects.CallAgain():
                self._later(daemon, inputs.CalledAgain(), 1)
            case effects.TickAt(at_ns):
                left_ms = max(0, at_ns - self.clock_ns) / MS
                self._later(daemon, inputs.Tick(), 5, after_ms=left_ms)
            case effects.Record(kind, what):
                self._scheduler.note(f"{self.name} {kind}: {what}")
            case effects.Trace(error):
                raise error
            case effects.RunAgent(run=run):
                daemon.agents[run] = self._power.run(
                    effect, self.awake, lambda exited: self._later(daemon, exited, 1)
                )
            case effects.CancelAgent(run):
                daemon.agents[run].cancel()
                gone = inputs.AgentExited(run, Power.UNKNOWN, "cancelled", 0, answered=False)
                self._later(daemon, gone, 20)
            case effects.DropPaths(generation):
                self.block.drop()
                self._drop_paths(daemon, generation)
            case effects.DoOrder(order, body):
                self._do(daemon, order, body)
            case effects.Ended(reason, failed):
                self._lose_pages()
                self._end_daemon("procdown" if failed else "leave", reason)

    def _keep(self, daemon: Daemon, effect: effects.Keep) -> None:
        """What follows happens only if it was kept; a daemon that cannot keep its state ends."""
        match self.own_disk:
            case OwnDisk.GOOD:
                self.disk = msgspec.msgpack.decode(msgspec.msgpack.encode(effect.disk), type=DiskState)
            case OwnDisk.FAILS:
                self._lose_pages()
                self._end_daemon("procdown", "its disk refuses to keep its state")
            case OwnDisk.SLOW:
                self.own_disk = OwnDisk.GOOD
                daemon.todo.appendleft(effect)
                self.freeze(daemon_only=True)
                self._scheduler.after(self._scheduler.between(50, 5000), self.thaw)

    def _lose_pages(self, kept: Collection[tuple[int, str]] = ()) -> None:
        for key in self.pages:
            if key not in kept:
                self.pages[key] = LOST

    def _reap(self) -> None:
        self.block.drop()
        self.block.reap()
        self._watcher.reaped(self)

    def _compute(self, daemon: Daemon, order: int, body: orders.Compute) -> None:
        try:
            done = inputs.OrderDone(order, answer=body.work())
        except RingfenceError as error:
            done = inputs.OrderDone(order, error=error.as_dict())
        delay_ms = self._scheduler.delay_ms(0.5, 20)
        self._scheduler.after(delay_ms, lambda: self.awake(lambda: self.feed(daemon, done)))

    def _do(self, daemon: Daemon, order: int, body: orders.DriverOrder) -> None:
        """Under the authority of the life that gave the order, whatever life it is when it is done."""
        incarnation = daemon.incarnation
        if isinstance(body, orders.StorageOrder):
            guard = partial(self.valid, incarnation)
            self.storage.do(order, body, guard, lambda done: self.feed(daemon, done))
            return

        if isinstance(body, orders.Compute):
            self._compute(daemon, order, body)
            return
        if isinstance(body, orders.SlotIo):
            late = partial(self._is_after, body.not_after_ns)
            self.slots.do(order, body, late, lambda done: self.feed(daemon, done))
            return

        assert not isinstance(body, orders.ReadSupplies), "no drills here"
        stock = orders.StandingTables | orders.CutTables | orders.RefreshLvs
        assert not isinstance(body, stock), "no stock LVM2 here"
        if isinstance(body, orders.LookAtHost):
            self._later(daemon, inputs.OrderDone(order, answer=HostFacts()), 5)
            return

        def done(answer: object) -> None:
            if isinstance(answer, RingfenceError):
                self._later(daemon, inputs.OrderDone(order, error=answer.as_dict()), 5)
            else:
                self._later(daemon, inputs.OrderDone(order, answer=answer), 5)

        giver = Giver(incarnation, daemon.number, self.block.drops)

        def start() -> None:  # whether the daemon is still there or not: it has said it
            self.block.do(body, giver, done)

        self._scheduler.after(self._scheduler.between(0, 10), lambda: self.awake(start))

    def _is_after(self, moment_ns: int) -> bool:
        return 0 < moment_ns < self.clock_ns

    def report_late(self, grip: Grip) -> None:
        """The check after a write failed: it may have landed late, and must not pass silently."""
        if self.daemon is not None:
            what = f"a write to {grip.resource} may have landed after authority lapsed"
            volume = f"{grip.lockspace}/{grip.resource}"
            self.feed(
                self.daemon, inputs.PathIncident(Incident("write-late", self.node, what, volume=volume))
            )

    def _later(self, daemon: Daemon, fact: Input, worst_ms: float, after_ms: float = 0) -> None:
        self._scheduler.after(
            after_ms + self._scheduler.between(0, worst_ms),
            lambda: self.awake(lambda: self.feed(daemon, fact)),
        )

    def _drop_paths(self, daemon: Daemon, generation: int) -> None:
        def reap() -> None:
            if self.daemon is not daemon:
                return
            if not self._can_be_closed():
                self._drop_paths(daemon, generation)
                return
            self.block.reap()
            self._watcher.reaped(self)
            self.feed(daemon, inputs.PathsDropped(generation))

        self._scheduler.after(self._scheduler.between(1, 200), lambda: self.awake(reap))

    def _can_be_closed(self) -> bool:
        """Nothing is claimed that is not known; and of a write in flight no guard knows when it lands."""
        return not (self.block.stuck and self.block.open) and not self.storage.writes

    # -- what data paths look at -----------------------------------------------------------

    def valid(self, incarnation: int, page: str) -> bool:
        """Whether a path of this host would let a write through now, frozen or not."""
        return self.up and self.pages.get((incarnation, page), LOST) > self.clock_ns

    def lost(self, incarnation: int, page: str) -> bool:
        return self.pages.get((incarnation, page), LOST) == LOST
