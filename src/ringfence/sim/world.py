"""A whole cluster with its faults, as one function of one integer.

`run(seed)` draws a scenario and plays it: it builds hosts with the real engine in them, lets clients
work and faults strike, and looks at the invariants after every event.  Then the faults stop, everything
is mended, and every request must be answered in bounded time (invariant 11).

Only faults that the design survives are injected, so that red always means a bug."""

import enum
import re
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import msgspec

from ringfence.core.cluster import ClusterConfig, NodeConfig, Timing, Volumes
from ringfence.core.errors import Damaged
from ringfence.core.modes import Mode
from ringfence.engine import inputs
from ringfence.engine.effects import Effect, Record
from ringfence.engine.inputs import Input
from ringfence.engine.node import Node
from ringfence.lvm2.label import SECTOR_BYTES
from ringfence.sim import slotted
from ringfence.sim.checkers import Checkers, Glimpse
from ringfence.sim.disk import DISKS, blank_disks, make_small_pvs
from ringfence.sim.faults import Arena, Cut, Fault, SwitchOff, Typed
from ringfence.sim.grips import Grip
from ringfence.sim.host import Daemon, Engine, Host, OwnDisk
from ringfence.sim.metadata import Metadata
from ringfence.sim.nemesis import Nemesis
from ringfence.sim.paths import Landed
from ringfence.sim.plans import Faults
from ringfence.sim.power import PowerRoom, device_configs, levels, topology
from ringfence.sim.ring import SimRing
from ringfence.sim.safety import LivenessViolation, SafetyViolation
from ringfence.sim.scenario import STEPS, Recipe, Scenario
from ringfence.sim.scheduler import MS, Scheduler
from ringfence.sim.slotted import make_slotted_vg
from ringfence.sim.storage import Trouble
from ringfence.sim.tenants import Tenants, small_slices
from ringfence.sim.volumes import VG, Admins
from ringfence.sim.workload import COUNTERS, Workload
from ringfence.wire import SPEAKS, Speaks
from ringfence.wire import client as calls
from ringfence.wire.block import Hold
from ringfence.wire.client import Reply, Request
from ringfence.wire.slots import BLOCK_BYTES, mark_offset, parse_mark

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
DISK_BYTES = 5 << 18
CHANGING_PACE_MS = 800
SLOW_WIPES = Volumes(wipe_mib_s=1)
ANOTHERS_BOOTS = 1000
"""So that no boot of it is one of the machine that it replaces."""


class Outcome(enum.Enum):
    OK = "ok"
    CRASH = "crash"
    """The engine raised."""
    SAFETY = "safety"
    LIVENESS = "liveness"


@dataclass
class Report:
    """How a run went."""

    scenario: Scenario
    """With the faults that have struck as its plan: that replays it."""
    outcome: Outcome = Outcome.OK
    what: str = ""
    crashed_in: str = ""
    """The file whose code raised."""
    steps: int = 0
    """Engine steps, all nodes together."""
    suffered_ms: int = 0
    """How long faults struck, in simulated time."""
    mended: bool = False
    """The run has come so far that faults had stopped."""
    simulated_s: float = 0.0
    settled_ms: float = 0.0
    """How long it took after the last fault until all was well."""
    counts: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    """Of the whole trace: equal for equal scenarios."""
    trace: list[str] = field(default_factory=list)
    """Its last lines."""

    @property
    def failure(self) -> str:
        """The class of what went wrong, or "": the outcome and the invariant's number, or the error."""
        if self.outcome is Outcome.OK:
            return ""
        first = re.match(r"\w+", self.what)
        return f"{self.outcome.value} {first[0] if first else '?'}"


def run(
    seed: int,
    nodes: int = 0,
    steps: int = STEPS,
    make_engine: Callable[[int], Engine] | None = None,
    faults: Faults | None = None,
) -> Report:
    """Replay the story of one seed.

    Args:
        nodes: how many; 0 = as the seed says (mostly 2 to 5).
        steps: engine steps with faults, before the world is mended.
        faults: which kinds strike; None = as the seed says.
        make_engine: for tests; gets a number that may seed the engine's own chance."""
    return play(Recipe(seed=seed, nodes=nodes, steps=steps, faults=faults).scenario(), make_engine)


def play(scenario: Scenario, make_engine: Callable[[int], Engine] | None = None) -> Report:
    """Replay a scenario: the same story whenever it is played."""
    world = World(scenario, make_engine or (lambda number: Node(at_once=2 + number % 3)))
    report = Report(scenario)
    try:
        with small_slices() if scenario.volumes else nullcontext():
            world.suffer()
            world.mend()
    except SafetyViolation as violation:
        report.outcome, report.what = Outcome.SAFETY, str(violation)
    except LivenessViolation as violation:
        report.outcome, report.what = Outcome.LIVENESS, str(violation)
    except Exception as error:
        report.outcome = Outcome.CRASH
        last = traceback.extract_tb(error.__traceback__)[-1]
        report.crashed_in = last.filename
        report.what = f"{error!r} in {last.name}, line {last.lineno} of {last.filename.rsplit('/', 1)[-1]}"
    world.describe(report)
    return report


class World:
    def __init__(self, scenario: Scenario, make_engine: Callable[[int], Engine]) -> None:
        self.scenario = scenario
        scheduler = self.scheduler = Scheduler(scenario.seed)
        ids = list(range(1, scenario.nodes + 1))
        self._replacements: list[Host] = []
        self.config = topology(scenario.topology, _config(ids, SLOW_WIPES if scenario.volumes else Volumes()))
        self.ring = SimRing(
            scheduler.stream("ring"), TIMING.token_ms, totem=scenario.ring == "totem", nodes=len(ids)
        )
        self.power = PowerRoom(scheduler.stream("power"), ids, self._lost_power, self._gained_power)
        self.steps = 0
        self._admin = ADMIN
        self._mended_ns = 0
        self._full = False
        """Moves met a metadata area with no room for their next version; those here are very small."""
        self._upgraded = False
        """Daemons were started anew because the story was over."""
        self._settled_ns = 0
        self.metadata = self._make_disks()
        self.hosts = [self._make_host(node, make_engine) for node in ids]
        self.workload = Workload(
            scheduler.stream("workload"),
            self.hosts,
            per_host=scenario.clients,
            landed=lambda grip, late: checkers.landed(grip, late),
            viewed_ns=lambda: self.ring.viewed_ns,
        )
        self.workload.counters.promised = not scenario.slots or all(
            space == slotted.SPACE for space, _ in COUNTERS
        )
        volumes = scheduler.stream("volumes")
        pace_ms = volumes.rng.choice([600, 3000, 10000]) * max(1, scenario.nodes / 3)
        if scenario.volumes:
            pace_ms = CHANGING_PACE_MS
        self.admins = Admins(
            volumes, self.workload, self.hosts, self.metadata, pace_ms, idle=scenario.slots,
            changing=scenario.volumes,
        )  # fmt: skip
        self.tenants = Tenants(self.metadata.disks)
        for block in [host.block for host in self.hosts] if scenario.volumes else ():
            block.signs = True
            block.drawn, block.acknowledged = self.tenants.drawn, self.tenants.acknowledged
            block.opened = self.tenants.opened
        checkers = self.checkers = Checkers(
            scheduler,
            self.ring,
            self.power,
            self.hosts,
            look,
            self._grips,
            self.workload.lock_of,
            self.workload.joining,
            self.metadata,
            self.workload.counters,
            COUNTERS,
            lambda: not self._upgraded and all(map(self._only_quorum, self.nemesis.struck)),
            lambda: max(self.nemesis.struck_ns, self._mended_ns),
            is_promised=lambda space: not scenario.slots or space == slotted.SPACE,
            is_marked=self.is_marked,
        )
        for host in self.hosts if scenario.speaks else ():
            host.speaks = Speaks(SPEAKS.low, scenario.speaks)
            host.sent = partial(checkers.said, host)
        self._init = {host: scheduler.stream(f"init {host.node}") for host in self.hosts}
        for host, init in self._init.items():
            init.after(init.between(0, 500), partial(self._boot, host))
            init.after(init.between(500, 3000), partial(self._tend_again, host))
        scheduler.note(f"seed {scenario.seed}: {scenario.nodes} nodes on a {scenario.ring}")
        arena = Arena(
            scheduler, self.ring, self.power, {host.node: host for host in self.hosts},
            sign=self._sign, order=self._order_fenced, disarm=self._disarm, leave=self._leave,
            stop=self._stop, hand_over=self._hand_over, hand_back=self._hand_back, type_there=self._type,
            replace=self._replace, tend=self._revive, rot=self._rot,
            await_writer=self._await_writer,
        )  # fmt: skip
        self.nemesis = Nemesis(arena, scenario.faults_to_come())

    def _make_host(self, node: int, make_engine: Callable[[int], Engine]) -> Host:
        scheduler = self.scheduler.stream(f"host {node}")
        return Host(
            scheduler,
            self.ring,
            self.power,
            self,
            lambda: make_engine(scheduler.rng.randrange(1 << 32)),
            self.config,
            self.metadata.disks,
            node,
            rate=scheduler.between(0.98, 1.02),
        )

    def _replace(self, host: Host, for_ms: int) -> None:
        """Another machine under a host's node id, which the checkers know nothing of."""
        scheduler = self.scheduler.stream(f"replacement of host {host.node}")
        other = Host(
            scheduler, self.ring, self.power, _Nobody(), Node, self.config, self.metadata.disks, host.node,
            rate=1, machine=f"another-{host.node}",
        )  # fmt: skip
        other.boots = ANOTHERS_BOOTS
        scheduler.note(f"another machine is {host.name} now")
        other.power_on()
        self._replacements.append(other)
        scheduler.after(for_ms, other.power_off)

    def _make_disks(self) -> Metadata:
        disks = blank_disks(DISK_BYTES)
        if self.scheduler.chance(0.5):
            make_small_pvs(disks)
        self._slots_start = make_slotted_vg(disks, "sim") if self.scenario.slots else 0
        metadata = Metadata(disks)
        disks.wrote = lambda what: metadata.look()
        return metadata

    def _rot(self, node: int) -> None:
        at = self._slots_start + mark_offset(node)
        disk = self.metadata.disks.disks[slotted.PATH]
        block = disk.read(at, BLOCK_BYTES)
        if self._slots_start and block is not None and any(block):
            self.scheduler.note(f"the mark of n{node} rots")
            disk.write(at, bytes([0xFF]) * SECTOR_BYTES)

    def _await_writer(self, told: Callable[[int], None]) -> None:
        def once(node: int) -> None:
            self.workload.told_writer = lambda node: None
            if not self._mended_ns:
                told(node)

        self.workload.told_writer = once

    def is_marked(self, host: Host) -> bool:
        """Whether the disk says that this very boot of the host was given up."""
        if not self.scenario.slots:
            return False
        disk = self.metadata.disks.disks.get(slotted.PATH)
        data = disk.read(self._slots_start + mark_offset(host.node), BLOCK_BYTES) if disk else None
        try:
            mark = parse_mark(data, host.node, "sim") if data is not None else None
        except Damaged:
            return False
        return mark is not None and mark.life.boot == host.boot

    def _grips(self) -> list[Grip]:
        grips = self.workload.grips
        for host in self.hosts:
            if host.block.open:
                grips += host.block.grips
        return grips

    def _only_quorum(self, fault: Fault) -> bool:
        """Whether this fault leaves no side with a majority."""
        if len(self.hosts) == 2:
            return False
        return isinstance(fault, SwitchOff) or (
            isinstance(fault, Cut) and 2 * len(fault.nodes) == len(self.hosts)
        )

    # -- power, init, operators -----------------------------------------------------

    def _lost_power(self, node: int) -> None:
        self._host(node).power_off()

    def _gained_power(self, node: int) -> None:
        host = self._host(node)
        init = self._init[host]
        init.after(init.between(300, 3000), lambda: self._boot(host))

    def _boot(self, host: Host) -> None:
        if self.power.supplies[host.node].on and not host.up:  # it may have been cut meanwhile
            host.power_on()

    def _tend(self, host: Host) -> None:
        """What a host's init does for its daemon, and people for the host."""
        if self.scheduler.now_ns < host.neglected_until_ns and not self._mended_ns:
            return
        if not host.up and not self.power.supplies[host.node].on:
            self.power.restore(host.node)
        elif host.up and not host.frozen and host.daemon is None:
            host.start_daemon()

    def _revive(self, host: Host) -> None:
        self._tend(host)
        self._boot(host)

    def _tend_again(self, host: Host) -> None:
        """Both take their time."""
        self._tend(host)
        init = self._init[host]
        longest_ms = 1500 if self._mended_ns else init.rng.choice([1000, 3000, 9000])
        init.after(init.between(200, longest_ms), lambda: self._tend_again(host))

    def _confirm(self, victim: Host) -> None:
        """Sign, at some other host, that `victim` is off."""
        others = [host for host in self.hosts if host is not victim and host.daemon is not None]
        if others:
            self._sign(victim, self.scheduler.rng.choice(others), slow_ms=0)

    def _sign(self, victim: Host, desk: Host, slow_ms: int) -> None:
        daemon = desk.daemon
        if not victim.up and daemon is not None:
            self.checkers.signed.append((self.scheduler.now_ns, victim.node))
            call = calls.FenceConfirm(victim.name, "sim", "unplugged", desk.clock_ns)
            self.scheduler.after(slow_ms, lambda: self._order(desk, daemon, call))

    def _order_fenced(self, victim: Host, desk: Host) -> None:
        if desk.daemon is not None:
            call = calls.FenceNode(victim.name, "sim", "to see what becomes of it", desk.clock_ns)
            self._order(desk, desk.daemon, call)

    def _disarm(self, desk: Host, for_ms: int) -> None:
        if desk.daemon is not None:
            self._order(desk, desk.daemon, calls.FenceDisarm(for_ms, "sim", "hands in the rack"))

    def _leave(self, host: Host) -> None:
        if host.daemon is not None:
            self.workload.orphans_end(host)
            self._order(host, host.daemon, calls.Leave())

    def _stop(self, host: Host) -> None:
        if host.daemon is not None:
            self._order(host, host.daemon, calls.VgChange("lockstop", VG))

    def _hand_over(self, taker: Host, prepare: bool) -> None:
        """By the first host that has an LV open for itself."""
        for host in self.hosts:
            for path in host.block.open.values():
                if host is not taker and host.daemon is not None and path.writes:
                    call = calls.LvHandover(VG, path.order.lv, taker.name, prepare=prepare)
                    self._order(host, host.daemon, call)
                    return

    def _hand_back(self) -> None:
        for host in self.hosts:
            for path in host.block.open.values():
                if host.daemon is not None and path.order.hold is Hold.LENDING:
                    self._order(host, host.daemon, calls.LvHandover(VG, path.order.lv, abort=True))
                    return

    def _type(self, host: Host, verb: str, lv: str) -> None:
        commands: dict[str, calls.Call] = {
            "create": calls.LvCreate(VG, lv, extents=2, activate="n"),
            "alone": calls.LvChange(VG, lv, "ey", 2000),
            "shared": calls.LvChange(VG, lv, "sy", 2000),
            "off": calls.LvChange(VG, lv, "n"),
            "remove": calls.LvRemove(VG, lv, force=True),
            "move": calls.PvMove(self.scheduler.rng.choice(DISKS), lv=lv, background=True),
        }
        if host.daemon is not None:
            self._order(host, host.daemon, commands[verb])

    def _order(self, host: Host, daemon: Daemon, call: calls.Call) -> None:
        """Ask this very run of a daemon for something."""
        self._admin += 1
        asked = inputs.Asked(self._admin, Request(f"admin{self._admin}", call), "sim")
        host.awake(lambda: host.feed(daemon, asked))

    def _host(self, node: int) -> Host:
        return next(host for host in self.hosts if host.node == node)

    # -- what hosts report ------------------------------------------------------------

    def stepped(self, host: Host, fact: Input, todo: list[Effect]) -> None:
        self.steps += 1
        self.checkers.stepped(host, todo)
        for one in todo:
            if isinstance(one, Record) and one.kind == "move-failed" and "metadata area is full" in one.what:
                self._full = True

    def answered(self, host: Host, client: int, reply: Reply) -> None:
        self.workload.answered(host, client, reply)

    def ended(self, host: Host, why: str) -> None:
        self.workload.ended(host)

    def reaped(self, host: Host) -> None:
        if host.storage.writes:
            raise SafetyViolation(f"9: a life of {host.name} counts as closed, with a write in flight")
        self.workload.reaped(host)

    def landed(self, write: Landed) -> None:
        self.checkers.path_landed(write)

    # -- the story ----------------------------------------------------------------------

    def _event(self) -> None:
        assert self.scheduler.step(), "a world always has a next tick"
        self.checkers.beliefs()

    def suffer(self) -> None:
        """Faults strike, for as long as the scenario says."""
        scenario = self.scenario
        while self.scheduler.now_ns < scenario.lasts_ms * MS or (
            not scenario.lasts_ms and self.steps < scenario.steps
        ):
            self._event()

    def mend(self) -> None:
        """Faults stop, all is mended; then everything must be answered in bounded time."""
        self.scheduler.note("-- the faults stop, everything is mended --")
        self._mended_ns = self.scheduler.now_ns
        self.nemesis.stop()
        self.ring.restore()
        self.ring.heal()
        self.ring.go_on()
        self.ring.slow_ms = 0
        self.power.calm()
        for other in self._replacements:
            other.power_off()  # before the host in whose place it is goes on
        for host in self.hosts:
            host.own_disk = OwnDisk.GOOD
            host.block.stuck = False
            host.block.late_ms = 0
            host.storage.suffer(Trouble.NONE, ())
            host.slots.suffer()
            host.thaw()
            if host.speaks != SPEAKS:
                host.speaks, self._upgraded = SPEAKS, True
                host.kill_daemon()
            if host.daemon is not None and host.daemon.endpoint is not None:
                self.ring.thaw(host.daemon.endpoint)
        self.scheduler.after(SETTLE_MS / 4, self._operator_helps)
        self.workload.busy = False
        self._until(lambda: not self.workload.unanswered(), "requests are not answered")
        self.workload.let_go()
        self._until(lambda: not self.workload.unanswered() and not self._grips(), "locks are not given back")
        self._until(lambda: all(self._well(host) for host in self.hosts), "not every node is ready")
        if self.scenario.speaks:
            self._until(lambda: all(map(self._is_upgraded, self.hosts)), "an older protocol is spoken")
        self._until(lambda: not self._unclean(), "LVs are not zeroed, wiped or moved to the end")
        self.workload.quiet()
        for host in self.hosts:
            self._probe(host)
            self.admins.probe(host)
            self._until(lambda: not self.workload.unanswered(), f"{host.name} does not list the VG")
        self._settled_ns = self.scheduler.now_ns

    def _operator_helps(self) -> None:
        """Devices that lied are believed no more: what only they could fence, a person must clear.  And where
        there is no room for another version of the metadata, a person gives up what is being moved; and what
        somebody has typed to be activated, for which a host's own commands may wait, somebody deactivates."""
        here = next((host for host in self.hosts if host.daemon is not None), None)
        if self._full and here is not None and here.daemon is not None:
            self._order(here, here.daemon, calls.PvMove(abort=True))
        if any(isinstance(fault, Typed) for fault in self.nemesis.struck):
            for host in self.hosts:
                if host.block.open and host.daemon is not None:
                    self._order(host, host.daemon, calls.LvChange(VG, "", "n"))
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

    def _unclean(self) -> bool:
        """Whether LVs are to be zeroed, wiped or moved, and a host was not told to stay out of their VG."""
        committed = self.metadata.named(VG)
        return committed is not None and bool(committed.unclean) and any(map(self._in_vg, self.hosts))

    def _in_vg(self, host: Host) -> bool:
        glimpse = look(host)
        return (
            glimpse is not None
            and glimpse.running is not None
            and glimpse.running.member(f"lvm_{VG}", host.node)
        )

    def _well(self, host: Host) -> bool:
        glimpse = look(host)
        return glimpse is not None and glimpse.running is not None and not glimpse.running.domain.victims

    def _is_upgraded(self, host: Host) -> bool:
        glimpse = look(host)
        return glimpse is not None and glimpse.running is not None and glimpse.running.protocol == SPEAKS.high

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
        held = [f"{grip.host.name} holds {grip.lockspace}/{grip.resource}" for grip in self._grips()]
        return "; ".join([*parts, *asked[:4], *held[:4]])

    def describe(self, report: Report) -> None:
        report.scenario = msgspec.structs.replace(self.scenario, plan=tuple(self.nemesis.struck))
        report.steps = self.steps
        report.mended = self._mended_ns > 0
        report.suffered_ms = -(-(self._mended_ns or self.scheduler.now_ns) // MS)
        report.simulated_s = self.scheduler.now_ns / 1e9
        report.settled_ms = max(0, self._settled_ns - self._mended_ns) / MS
        report.digest = self.scheduler.digest
        report.trace = list(self.scheduler.trace)
        report.faults = self.nemesis.counts
        report.counts = {
            "views": self.ring.views,
            "grants": self.workload.granted,
            "refused": self.workload.refused,
            "writes": self.workload.written,
            "held writes": self.workload.held_back,
            "late writes": self.checkers.late_writes,
            "lies believed": self.checkers.lies_believed,
            "fenced": self.checkers.fenced,
            "adopted": self.checkers.adopted,
            "conversions": self.workload.converted,
            "deadlocks": self.workload.deadlocks,
            "orphans adopted": self.workload.adopted,
            "value blocks read": self.workload.counters.reads,
            "volume commands": self.admins.done,
            "VG versions": self.metadata.commits,
        }


class _Nobody:
    """Watches a host that no client uses."""

    def stepped(self, host: Host, fact: Input, todo: list[Effect]) -> None: ...

    def answered(self, host: Host, client: int, reply: Reply) -> None: ...

    def ended(self, host: Host, why: str) -> None: ...

    def reaped(self, host: Host) -> None: ...

    def landed(self, write: Landed) -> None: ...


def look(host: Host) -> Glimpse | None:
    """What a host's engine thinks."""
    daemon = host.daemon
    if daemon is None or not isinstance(daemon.engine, Node) or daemon.engine.context is None:
        return None
    context = daemon.engine.context
    return Glimpse(context.life, context.running, context.phase.value, context.settled)


def _config(ids: list[int], volumes: Volumes) -> ClusterConfig:
    return ClusterConfig(
        name="sim",
        ring="sim",
        two_node=len(ids) == 2,
        timing=TIMING,
        nodes=tuple(NodeConfig(node, f"n{node}", levels=levels(node)) for node in ids),
        devices=device_configs(ids),
        volumes=volumes,
    )
