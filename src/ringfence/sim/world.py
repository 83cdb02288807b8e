"""A whole cluster with its faults, as one function of one integer.

`run(seed)` builds hosts with the real engine in them, lets clients work and faults strike, and
looks at the invariants after every event.  Then the faults stop, everything is mended, and every
request must be answered in bounded time (invariant 11).

Only faults that the design survives are injected, so that red always means a bug."""

import enum
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from ringfence.core.cluster import ClusterConfig, NodeConfig, Timing
from ringfence.core.modes import Mode
from ringfence.engine import inputs
from ringfence.engine.effects import Effect
from ringfence.engine.inputs import Input
from ringfence.engine.node import Node
from ringfence.sim.checkers import Checkers, Glimpse, SafetyViolation
from ringfence.sim.host import Engine, Host
from ringfence.sim.nemesis import Faults, Nemesis
from ringfence.sim.power import PowerRoom, device_configs, levels
from ringfence.sim.ring import SimRing
from ringfence.sim.scheduler import MS, Scheduler
from ringfence.sim.workload import Workload
from ringfence.wire import client as calls
from ringfence.wire.client import Reply, Request

STEPS = 4000
TIMING = Timing(
    heartbeat_ms=200,
    token_ms=400,
    grant_ms=700,
    silent_ms=1500,
    write_ms=2500,
    hold_ms=15000,
    grace_ms=4000,
    post_join_delay_ms=4000,
    agent_timeout_ms=1500,
    backoff_ms=300,
)
SETTLE_MS = 120_000
"""Within this long after the last fault everything must be well again."""
ADMIN = 9_000_000


class Outcome(enum.Enum):
    OK = "ok"
    CRASH = "crash"
    """The engine raised."""
    SAFETY = "safety"
    LIVENESS = "liveness"


@dataclass
class Report:
    """How a run went."""

    seed: int
    nodes: int
    outcome: Outcome = Outcome.OK
    what: str = ""
    steps: int = 0
    """Engine steps, all nodes together."""
    simulated_s: float = 0.0
    settled_ms: float = 0.0
    """How long it took after the last fault until all was well."""
    counts: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    """Of the whole trace: equal for equal seeds."""
    trace: list[str] = field(default_factory=list)
    """Its last lines."""


class LivenessViolation(Exception):
    """Invariant 11 does not hold."""


def run(
    seed: int,
    nodes: int = 0,
    steps: int = STEPS,
    make_engine: Callable[[int], Engine] | None = None,
    faults: Faults = Faults.SWARM,
) -> Report:
    """Replay the story of one seed.

    Args:
        nodes: how many; 0 = as the seed says (2 to 4).
        steps: engine steps with faults, before the world is mended.
        faults: which kinds strike.
        make_engine: for tests; gets a number that may seed the engine's own chance."""
    world = World(seed, nodes, make_engine or (lambda number: Node(at_once=2 + number % 3)), faults)
    report = Report(seed, len(world.hosts))
    try:
        world.suffer(steps)
        world.mend()
    except SafetyViolation as violation:
        report.outcome, report.what = Outcome.SAFETY, str(violation)
    except LivenessViolation as violation:
        report.outcome, report.what = Outcome.LIVENESS, str(violation)
    except Exception as error:
        report.outcome = Outcome.CRASH
        last = traceback.extract_tb(error.__traceback__)[-1]
        report.what = f"{error!r} in {last.name}, line {last.lineno} of {last.filename.rsplit('/', 1)[-1]}"
    world.describe(report)
    return report


class World:
    def __init__(
        self, seed: int, nodes: int, make_engine: Callable[[int], Engine], faults: Faults = Faults.SWARM
    ) -> None:
        scheduler = self.scheduler = Scheduler(seed)
        rng = scheduler.rng
        ids = list(range(1, (nodes or rng.choice([2, 3, 3, 4])) + 1))
        self.config = _config(ids)
        self.ring = SimRing(scheduler, TIMING.token_ms, totem=scheduler.chance(0.5))
        self.power = PowerRoom(scheduler, ids, self._lost_power, self._gained_power)
        self.steps = 0
        self._admin = ADMIN
        self._mended_ns = 0
        self._settled_ns = 0
        self.hosts = [
            Host(
                scheduler,
                self.ring,
                self.power,
                self,
                lambda: make_engine(rng.randrange(1 << 32)),
                self.config,
                node,
                rate=scheduler.between(0.99, 1.01),
            )
            for node in ids
        ]
        self.workload = Workload(
            scheduler, self.hosts, per_host=2, landed=lambda g, late: checkers.landed(g, late)
        )
        checkers = self.checkers = Checkers(
            scheduler,
            self.ring,
            self.power,
            self.hosts,
            look,
            lambda: self.workload.grips,
            self.workload.lock_of,
        )
        for host in self.hosts:
            scheduler.after(scheduler.between(0, 500), lambda host=host: self._boot(host))  # type: ignore[misc]
            scheduler.after(scheduler.between(500, 3000), lambda host=host: self._tend(host))  # type: ignore[misc]
        scheduler.note(f"seed {seed}: {len(ids)} nodes on a {'totem' if self.ring.totem else 'hub'}")
        self.nemesis = Nemesis(
            scheduler, self.ring, self.power, self.hosts, self._confirm, self._leave, faults
        )

    # -- power, init, operators -----------------------------------------------------

    def _lost_power(self, node: int) -> None:
        self._host(node).power_off()

    def _gained_power(self, node: int) -> None:
        host = self._host(node)
        self.scheduler.after(self.scheduler.between(300, 3000), lambda: self._boot(host))

    def _boot(self, host: Host) -> None:
        if self.power.supplies[host.node].on and not host.up:  # it may have been cut meanwhile
            host.power_on()

    def _tend(self, host: Host) -> None:
        """A host's init starts its daemon again; people switch hosts on again.  Both take their time."""
        if not host.up and not self.power.supplies[host.node].on:
            self.power.restore(host.node)
        elif host.up and not host.frozen and host.daemon is None:
            host.start_daemon()
        longest_ms = 1500 if self._mended_ns else self.scheduler.rng.choice([1000, 3000, 9000])
        self.scheduler.after(self.scheduler.between(200, longest_ms), lambda: self._tend(host))

    def _confirm(self, victim: Host) -> None:
        """Sign, at some other host, that `victim` is off; it is."""
        others = [host for host in self.hosts if host is not victim and host.daemon is not None]
        if others and not victim.up:
            self.checkers.signed.append((self.scheduler.now_ns, victim.node))
            host = self.scheduler.rng.choice(others)
            self._order(host, calls.FenceConfirm(victim.name, "sim", "unplugged", host.clock_ns))

    def _leave(self, host: Host) -> None:
        self._order(host, calls.Leave())

    def _order(self, host: Host, call: calls.Call) -> None:
        daemon = host.daemon
        if daemon is not None:
            self._admin += 1
            asked = inputs.Asked(self._admin, Request(f"admin{self._admin}", call), "sim")
            host.awake(lambda: host.feed(daemon, asked))

    def _host(self, node: int) -> Host:
        return next(host for host in self.hosts if host.node == node)

    # -- what hosts report ------------------------------------------------------------

    def stepped(self, host: Host, fact: Input, todo: list[Effect]) -> None:
        self.steps += 1
        self.checkers.stepped(host, todo)

    def answered(self, host: Host, client: int, reply: Reply) -> None:
        self.workload.answered(host, client, reply)

    def ended(self, host: Host, why: str) -> None:
        self.workload.ended(host)

    def reaped(self, host: Host) -> None:
        self.workload.reaped(host)

    # -- the story ----------------------------------------------------------------------

    def _event(self) -> None:
        assert self.scheduler.step(), "a world always has a next tick"
        self.checkers.beliefs()

    def suffer(self, steps: int) -> None:
        """Faults strike until the engines have made this many steps."""
        while self.steps < steps:
            self._event()

    def mend(self) -> None:
        """Faults stop, all is mended; then everything must be answered in bounded time."""
        self.scheduler.note("-- the faults stop, everything is mended --")
        self._mended_ns = self.scheduler.now_ns
        self.nemesis.stop()
        self.ring.restore()
        self.ring.heal()
        self.power.calm()
        for host in self.hosts:
            host.thaw()
        self.scheduler.after(SETTLE_MS / 4, self._operator_helps)
        self.workload.busy = False
        self._until(
            lambda: not self.workload.unanswered() and not self.workload.grips, "requests are not answered"
        )
        self._until(lambda: all(self._well(host) for host in self.hosts), "not every node is ready")
        self.workload.quiet()
        for host in self.hosts:
            self._probe(host)
        self._settled_ns = self.scheduler.now_ns

    def _operator_helps(self) -> None:
        """Devices that lied are believed no more: what only they could fence, a person must clear."""
        for host in self.hosts:
            glimpse = look(host)
            if glimpse is None or glimpse.running is None:
                continue
            for victim in glimpse.running.domain.victims:
                self.scheduler.note(f"an operator looks after {victim.life}")
                self.power.cut(victim.life.node)
                self._confirm(self._host(victim.life.node))
            if glimpse.running.domain.victims:
                break
        self.scheduler.after(SETTLE_MS / 8, self._operator_helps)

    def _probe(self, host: Host) -> None:
        """Each node can get an exclusive lock and give it back."""
        client = next(one for one in self.workload.clients if one.host is host)
        self.workload.probe(client, "lvm_vg0", "vm1", Mode.EX)
        self._until(lambda: self.workload.probed(client), f"{host.name} gets no lock")

    def _until(self, good: Callable[[], bool], otherwise: str) -> None:
        while not good():
            if self.scheduler.now_ns - self._mended_ns > SETTLE_MS * MS:
                raise LivenessViolation(
                    f"11: {otherwise}, {SETTLE_MS // 1000} s after the last fault: {self._why()}"
                )
            self._event()

    def _well(self, host: Host) -> bool:
        glimpse = look(host)
        return glimpse is not None and glimpse.running is not None and not glimpse.running.domain.victims

    def _why(self) -> str:
        parts = []
        for host in self.hosts:
            glimpse = look(host)
            if glimpse is None:
                parts.append(f"{host.name} has no daemon ({'up' if host.up else 'off'})")
                continue
            state = glimpse.running
            victims = ", ".join(str(victim.life) for victim in state.domain.victims) if state else "?"
            parts.append(f"{host.name} is {glimpse.phase}, victims: {victims or 'none'}")
        asked = [
            f"{client.host.name} {type(question.call).__name__} since {question.asked_ns / 1e9:.3f}"
            for client, question in self.workload.unanswered()
        ]
        return "; ".join([*parts, *asked[:4]])

    def describe(self, report: Report) -> None:
        report.steps = self.steps
        report.simulated_s = self.scheduler.now_ns / 1e9
        report.settled_ms = max(0, self._settled_ns - self._mended_ns) / MS
        report.digest = self.scheduler.digest
        report.trace = list(self.scheduler.trace)
        report.faults = dict(sorted(self.nemesis.counts.items()))
        report.counts = {
            "views": self.ring.views,
            "grants": self.workload.granted,
            "refused": self.workload.refused,
            "writes": self.workload.written,
            "held writes": self.workload.held_back,
            "late writes": self.checkers.late_writes,
            "lies believed": self.checkers.lies_believed,
            "fenced": self.checkers.fenced,
        }


def look(host: Host) -> Glimpse | None:
    """What a host's engine thinks."""
    daemon = host.daemon
    if daemon is None or not isinstance(daemon.engine, Node) or daemon.engine.context is None:
        return None
    context = daemon.engine.context
    return Glimpse(context.life, context.running, context.phase.value)


def _config(ids: list[int]) -> ClusterConfig:
    return ClusterConfig(
        name="sim",
        ring="sim",
        two_node=len(ids) == 2,
        timing=TIMING,
        nodes=tuple(NodeConfig(node, f"n{node}", levels=levels(node)) for node in ids),
        devices=device_configs(ids),
    )
