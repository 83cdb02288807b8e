"""Real engines over a ring in memory, with real storage: as small as a cluster can be.

Everything that a node multicasts is delivered to all members at once and in one order; time moves
only when a test says so.  A frozen node's inputs wait.  Power is a table of switches; agents answer
from it, or lie as told."""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Timing
from ringfence.core.errors import DeviceFailed, NotFound, RingfenceError, TimedOut, from_dict
from ringfence.core.evidence import Power
from ringfence.core.ids import Epoch, Token
from ringfence.core.modes import Mode
from ringfence.engine import effects, inputs, orders
from ringfence.engine.context import AT_ONCE
from ringfence.engine.inputs import DiskState, Input
from ringfence.engine.lvm_notes import MODES
from ringfence.engine.node import Node
from ringfence.sim.mirrored import Mirrored, read_all, write_lv
from ringfence.storage import Storage
from ringfence.storage.driver import Moment
from ringfence.storage.slots import SlotDevice
from ringfence.wire import SPEAKS, Speaks
from ringfence.wire.checkup import HostFacts
from ringfence.wire.client import Reply, Request
from ringfence.wire.lvmlockd import LvmAnswered, LvmAsked, LvmLock
from ringfence.wire.proving import Current, Reading, Supply
from ringfence.wire.ring import Hardware, OpenLock

MS = 1_000_000
TIMING = Timing(
    heartbeat_ms=100, token_ms=500, grant_ms=700, silent_ms=1500, write_ms=2500, hold_ms=30000, grace_ms=4000,
    post_join_delay_ms=4000, agent_timeout_ms=5000, backoff_ms=500,
)  # fmt: skip
TICK_MS = 50
IDLE_TICK_MS = 200
"""As few as a node can have that has nothing to do: half a token without one is a gap."""
AGENT_MS = 200
"""How long every run of an agent takes."""


def config_of(count: int, **options: Any) -> ClusterConfig:
    """`count` nodes an-a01nXX, each with a BMC level and a PDU level."""
    nodes, devices = [], []
    for id in range(1, count + 1):
        name = f"an-a01n{id:02}"
        levels = (Level((f"bmc{id}",)), Level((f"pdu{id}",)))
        nodes.append(NodeConfig(id, name, levels=levels))
        devices.append(DeviceConfig(f"bmc{id}", "fence_lab_bmc", Confirms.HOST_OFF))
        devices.append(DeviceConfig(f"pdu{id}", "fence_lab_pdu", Confirms.OUTLET_OFF, own_supply=True))
    devices.sort(key=lambda device: device.name)
    options.setdefault("timing", TIMING)
    return ClusterConfig(
        "ring", two_node=count == 2, nodes=tuple(nodes), devices=tuple(devices), **options
    )


def read_file(path: str, offset: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def write_file(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


class Host:
    def __init__(self, world: "World", id: int) -> None:
        self.world = world
        self.id = id
        self.name = f"an-a01n{id:02}"
        self.disk = DiskState()
        self.boots = 1
        self.speaks = SPEAKS
        self.reaped = True
        """Whether every data path of the last life is known to be closed when it starts."""
        self.node: Node | None = None
        self.frozen = False
        self.inbox: deque[Input] = deque()
        self.pages: dict[tuple[int, str], int] = {}
        self.paths: dict[tuple[str, str], orders.OpenPath] = {}
        self.mirrors: dict[str, Mirrored] = {}
        """LV's uuid -> what is being moved of it."""
        self.opened_by: dict[tuple[str, str], int] = {}
        """The incarnation under whose page a path is open."""
        self.events: list[effects.Record] = []
        self.replies: dict[str, list[Reply]] = {}
        self.lvm_answers: list[tuple[int, LvmAnswered]] = []
        """Told to stock commands, in order."""
        self.notes: list[str] = []
        """Lines of the daemon's log alone."""
        self.ended: effects.Ended | None = None
        self.traces: list[Exception] = []
        """Faults that commands have met."""
        self.runs: list[effects.RunAgent] = []
        """Agent runs that were started."""
        self.held: list[Callable[[], None]] | None = None
        """If a list: the engine's calls for more time wait there until `go_on`."""
        self.machine = f"machine-{id}"
        self.hardware = Hardware()
        self.looks: HostFacts | None = HostFacts(node=self.name)
        """What it looks like; None: that cannot be found out."""
        self.hanging = False
        """To look at it, to have stock LVM2 reload a table, or to zero a slice takes for ever."""
        self.hung: list[effects.DoOrder] = []
        """Those that do."""
        self.lvm_ran = orders.LvmRan(0, "", 4)
        """How stock LVM2's commands end."""
        self.refreshes: list[orders.RefreshLvs] = []
        self.reloads: list[orders.ReloadPath] = []
        self.reload_fails: RingfenceError | None = None
        self.write_fails = ""
        """The step of a change that fails: "text", "precommit", "commit"."""
        """Those that were run."""
        self.scans = 0
        """How often devices were looked for."""
        self.dead_arrays: list[str] = []
        """VGs whose disk slots do not answer this host."""
        self.lvm_locks: dict[tuple[str, str, int, int], LvmLock] = {}
        """What the next daemon of this boot finds of LVM2's locks."""
        self.lvm_lost = False
        """They were to be dropped, and no later daemon may adopt them."""
        self.tables: list[str] = []
        """ "VG/LV" of device-mapper tables that LVM2 has made."""
        self.tables_hang = False
        """They cannot be cut."""
        self.processes: dict[int, int] = {}
        """LVM2's commands that run: pid -> when it was started."""
        self.watched: list[effects.WatchProcess] = []
        self.storage = Storage([str(world.directory / "*.img")], lambda guard: None, self._strike)

    def start(self, left_open: tuple[inputs.LeftOpen, ...] = ()) -> None:
        self.node = Node(self.world.at_once)
        self.feed(
            inputs.Started(
                self.world.config,
                self.id,
                self.machine,
                f"boot-{self.id}-{self.boots}",
                self.disk,
                self.reaped and not left_open,
                self.speaks,
                left_open,
                self.hardware,
            )
        )

    def kill(self) -> None:
        """The daemon is killed; its paths and their pages stay."""
        self.node, self.inbox = None, deque()

    def _dropped(self, generation: int, node: Node) -> None:
        if self.node is not node:
            return  # that daemon has ended
        self.processes.clear()
        if self.tables_hang:
            self.world.later_still.append(lambda: self._dropped(generation, node))
            return
        self.tables, self.lvm_locks, self.lvm_lost = [], {}, False
        self.feed(inputs.PathsDropped(generation))

    def _process_ended(self, watched: effects.WatchProcess) -> None:
        self.feed(inputs.ProcessEnded(watched.pid, watched.started))

    def end_process(self, pid: int) -> None:
        """A command of LVM2 ends."""
        self.processes.pop(pid, None)
        over, self.watched = self.watched, [one for one in self.watched if one.pid != pid]
        for one in over:
            if one.pid == pid:
                self._process_ended(one)

    def left_of_lvm2(self) -> tuple[inputs.LeftOpen, ...]:
        """What a new daemon finds of LVM2's, as `daemon.lvm.LvmHost.left` does."""
        self.lvm_locks = {
            key: one
            for key, one in self.lvm_locks.items()
            if not one.pid or self.processes.get(one.pid) == one.started
        }
        if self.lvm_lost:
            return ()
        return tuple(
            inputs.LeftOpen(
                one.lockspace.removeprefix("lvm_"), "",
                OpenLock(one.lockspace, one.resource, MODES[one.mode], Token.parse(one.token)), (), one,
            )
            for one in self.lvm_locks.values()
        )  # fmt: skip

    def left_open(self) -> tuple[inputs.LeftOpen, ...]:
        """What a new daemon finds open."""
        return self.left_of_lvm2() + tuple(
            inputs.LeftOpen(
                one.vg, one.lv,
                OpenLock(f"lvm_{one.vg}", one.uuid, Mode.PR if one.shared else one.hold.least, one.token),
                ((self.opened_by[one.vg, one.lv], f"vg/{one.vg}"),), hold=one.hold,
            )
            for one in self.paths.values()
        )  # fmt: skip

    def feed(self, fact: Input) -> None:
        """Inputs of a frozen host wait for its thaw."""
        if self.node is None:
            return
        if self.frozen:
            self.inbox.append(fact)
            return
        for effect in self.node.step(self.world.now_ns, fact):
            self._carry_out(effect)

    def _carry_out(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Multicast():
                self.world.queue.append((self.id, effect.payload))
            case effects.Keep():
                self.disk = effect.disk
            case effects.SetDeadline():
                self.pages[effect.incarnation, effect.page] = effect.deadline_ns
            case effects.DoOrder():
                self.world.later.append(lambda: self._order(effect))
            case effects.KeepLvmLocks():
                for lock in effect.gone:
                    self.lvm_locks.pop(lock.key, None)
                self.lvm_locks |= {lock.key: lock for lock in effect.kept}
            case effects.WatchProcess():
                if self.processes.get(effect.pid) == effect.started:
                    self.watched.append(effect)
                else:
                    self.world.later.append(lambda: self._process_ended(effect))
            case effects.DropPaths():
                self.paths, self.mirrors = {}, {}
                self.lvm_lost, node = True, self.node
                self.world.later.append(lambda: self._dropped(effect.generation, node))
            case effects.Answer():
                self.replies.setdefault(effect.reply.id, []).append(effect.reply)
            case effects.LvmAnswer():
                self.lvm_answers.append((effect.client, effect.answered))
            case effects.Note():
                self.notes.append(effect.what)
            case effects.CallAgain():
                again = functools.partial(self.feed, inputs.CalledAgain())
                (self.world.later if self.held is None else self.held).append(again)
            case effects.TickAt():
                pass  # World.pass_ms ticks often enough
            case effects.Record():
                self.events.append(effect)
            case effects.Trace():
                if not self.world.faulty:
                    raise effect.error
                self.traces.append(effect.error)
            case effects.RunAgent():
                self.runs.append(effect)
                took_ms = self.world.slow.get(effect.device, AGENT_MS)
                self.world.agents.append((self.world.now_ns + took_ms * MS, self, effect))
            case effects.CancelAgent():
                self.world.cancel(effect.run, self)
            case effects.Ended():
                self.ended = effect

    def _order(self, effect: effects.DoOrder) -> None:
        slow = orders.LookAtHost | orders.RefreshLvs | orders.ReloadPath | orders.ZeroBlocks
        if isinstance(effect.body, slow) and self.hanging:
            self.hung.append(effect)
            return
        try:
            answer = self._do(effect.body)
        except RingfenceError as error:
            self.feed(inputs.OrderDone(effect.order, error=error.as_dict()))
        else:
            self.feed(inputs.OrderDone(effect.order, answer=answer))

    def _reload(self, body: orders.ReloadPath) -> orders.Opened:
        self.reloads.append(body)
        if self.reload_fails is not None:
            raise self.reload_fails
        path = self.paths.get((body.vg, body.lv))
        if path is None or path.uuid != body.uuid:
            raise NotFound(f"{body.vg}/{body.lv} is not open here")
        assert body.hold is not None or path.token <= body.token
        if body.uuid in self.mirrors:
            self.mirrors[body.uuid].check_becomes(body.extents)
            del self.mirrors[body.uuid]
        del self.paths[body.vg, body.lv]
        self.paths[body.vg, body.name] = msgspec.structs.replace(
            path, lv=body.name, extents=body.extents, readonly=body.readonly, token=body.token,
            hold=path.hold if body.hold is None else body.hold,
        )  # fmt: skip
        return orders.Opened(f"/dev/{body.vg}/{body.name}", f"nbd+unix:///{body.name}")

    def _do(self, body: orders.DriverOrder) -> Any:
        match body:
            case orders.PathsTogether():
                return tuple(self._do(one) for one in body.orders)
            case orders.OpenPath():
                self.paths[body.vg, body.lv] = body
                self.opened_by[body.vg, body.lv] = self.node.context.life.incarnation
                return orders.Opened(f"/dev/{body.vg}/{body.lv}", f"nbd+unix:///{body.lv}")
            case orders.ReloadPath():
                return self._reload(body)
            case orders.ClosePath():
                key = (body.vg, body.lv)
                if body.uuid:
                    key = next((one for one, path in self.paths.items() if path.uuid == body.uuid), ("", ""))
                gone = self.paths.pop(key, None)
                self.mirrors.pop(gone.uuid if gone is not None else "", None)
                return None
            case orders.MirrorPath():
                path = self.paths[body.vg, body.lv]
                assert (path.uuid, path.token) == (body.uuid, body.token)
                assert body.uuid not in self.mirrors
                self.mirrors[body.uuid] = Mirrored(path.extents, body, read_file, write_file)
                return self.mirrors[body.uuid].moving
            case orders.SealPath():
                return self.mirrors[body.uuid].seal()
            case orders.UnmirrorPath():
                self.mirrors.pop(body.uuid, None)
                return None
            case orders.Compute():
                return body.work()
            case orders.LookAtHost():
                if self.looks is None:
                    raise RingfenceError("it cannot look")
                return self.looks
            case orders.ReadSupplies():
                return tuple(Reading(node, self.world.supplies(node)) for node, _ in body.controllers)
            case orders.OpenPaths():
                for mirror in self.mirrors.values():
                    mirror.go_on()
                return tuple(
                    orders.OpenVolume(
                        one.vg, one.lv, one.uuid, f"/dev/{one.vg}/{one.lv}", f"nbd+unix:///{one.lv}",
                        readonly=one.readonly, extents=one.extents, hold=one.hold,
                        moving=self.mirrors[one.uuid].moving if one.uuid in self.mirrors else None,
                    )
                    for one in self.paths.values()
                )
            case orders.RefreshLvs():
                self.refreshes.append(body)
                return self.lvm_ran
            case orders.CutTables():
                if not self.tables_hang:
                    self.tables = [one for one in self.tables if one.split("/")[0] not in body.vgs]
                return tuple(one for one in self.tables if one.split("/")[0] in body.vgs)
            case orders.StandingTables():
                return tuple(one for one in self.tables if one.split("/")[0] in body.vgs)
            case orders.SlotIo():
                if body.vg in self.dead_arrays:
                    raise TimedOut(f"VG {body.vg}: its array ({body.path}) does not answer", retry=True)
                with contextlib.closing(SlotDevice(lambda: self.world.now_ns)) as device:
                    return device.do(body)
            case _:
                self.scans += isinstance(body, orders.ScanDevices | orders.ReadDisks)
                return self.storage.do(body)

    def _strike(self, moment: Moment, what: str, index: int, write: orders.Write) -> None:
        if (moment, what) == (Moment.BEFORE, self.write_fails):
            raise DeviceFailed("the disk takes no writes")

    def write(self, vg: str, lv: str, offset: int, data: bytes) -> None:
        """As a client of an open path."""
        path = self.paths[vg, lv]
        if path.uuid in self.mirrors:
            self.mirrors[path.uuid].write(offset, data)
        else:
            write_lv(path.extents, offset, data, write_file)

    def read(self, vg: str, lv: str) -> bytes:
        extents = self.paths[vg, lv].extents
        return read_all(extents, read_file)

    def catch_up(self, count: int | None = None) -> None:
        """What hung comes to its end; all of it, and hangs no more, or the first so many."""
        self.hanging = count is not None
        some, self.hung = self.hung[:count], self.hung[len(self.hung[:count]) :]
        for effect in some:
            if isinstance(effect.body, orders.ZeroBlocks):
                self.storage.do(effect.body)
                self.feed(inputs.OrderDone(effect.order))
            else:
                self._order(effect)
        self.world.run()

    def go_on(self) -> None:
        """Do what was held, and hold nothing any more."""
        self.world.later.extend(self.held or ())
        self.held = None
        self.world.run()

    # -- what tests ask ------------------------------------------------------------

    def ask(self, call: Any, client: int = 1, id: str = "") -> str:
        """Send a request; returns its id."""
        self.world.asked += 1
        id = id or f"r{self.world.asked}"
        self.feed(inputs.Asked(client, Request(id, call), "tester"))
        self.world.run()
        return id

    def lvm(self, client: int, asked: LvmAsked) -> None:
        """A stock command sends a request."""
        self.feed(inputs.LvmRequest(client, asked))
        self.world.run()

    def reply(self, id: str) -> Any:
        """The last result of a request, its error raised; None while it waits."""
        replies = self.replies.get(id)
        if not replies:
            return None
        if replies[-1].error is not None:
            raise from_dict(replies[-1].error)
        return replies[-1].result

    def do(self, call: Any, client: int = 1) -> Any:
        """Ask, and demand the answer at once (no time passes)."""
        id = self.ask(call, client)
        assert id in self.replies, f"{call} waits"
        return self.reply(id)

    def may_write(self, page: str) -> bool:
        """As the data path reads its page: the newest incarnation's."""
        found = [deadline for (_, name), deadline in sorted(self.pages.items()) if name == page]
        return bool(found) and found[-1] > self.world.now_ns

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    @property
    def running(self) -> bool:
        return (
            self.node is not None and self.node.context is not None and self.node.context.running is not None
        )


class World:
    """Args:
    members: which hosts start at once (all, unless given).
    at_once: see `Node`.
    speaks: the protocols of all of them.
    shape: what else is different about the configuration."""

    def __init__(
        self,
        directory: Path,
        count: int,
        members: Sequence[int] = (),
        at_once: int = AT_ONCE,
        *,
        speaks: Speaks = SPEAKS,
        shape: Callable[[ClusterConfig], ClusterConfig] = lambda config: config,
        **options: Any,
    ) -> None:
        self.directory = directory
        self.at_once = at_once
        self.config = shape(config_of(count, **options))
        self.now_ns = 1_000_000 * MS
        self.queue: deque[tuple[int, bytes]] = deque()
        self.later: deque[Callable[[], None]] = deque()
        self.later_still: list[Callable[[], None]] = []
        """What is tried again as time passes."""
        self.agents: list[tuple[int, Host, effects.RunAgent]] = []
        self.asked = 0
        self.seq = 0
        self.members: tuple[int, ...] = ()
        """Of the view that was formed last."""
        self.sides: list[tuple[int, ...]] = []
        """Members of all views there are: more than one while the ring is parted."""
        self.told: dict[int, tuple[int, ...]] = {}
        """Members of the last view that each host was told."""
        self.stuck: tuple[int, ...] = ()
        """Hosts between which a path is cut: nothing is delivered to them, and what they say waits."""
        self.waiting: list[tuple[int, inputs.Delivered]] = []
        self.unsent: list[tuple[int, bytes]] = []
        self.faulty = False
        """A command may meet a fault of ringfence's."""
        self.stopped = False
        """The ring stands still: frames wait, and nobody hears of it."""
        self.power = dict.fromkeys(range(1, count + 1), Power.ON)
        self.unplugged: list[int] = []
        """Hosts whose outlets are off."""
        self.says: dict[tuple[str, str], Power] = {}
        """(device, action) -> what it answers whatever is true."""
        self.slow: dict[str, int] = {}
        """Device -> how long each of its runs takes, in ms, where that is not AGENT_MS."""
        self.outlets_off: list[tuple[int, int]] = []
        """(host, number of the supply) of outlets "feedN" that are off: of hosts with two supplies."""
        self.cables: dict[tuple[int, int], tuple[int, int]] = {}
        """(host, supply) -> the outlet it is fed by, where that is not its own."""
        self.image = directory / "disk.img"
        self.image.touch()
        with self.image.open("r+b") as file:
            file.truncate(64 << 20)
        self.hosts = {id: Host(self, id) for id in range(1, count + 1)}
        for id in members or self.hosts:
            self.hosts[id].speaks = speaks
            self.hosts[id].start()
        self.view(*(members or self.hosts))
        self.run()

    def view(self, *members: int, how: str = "nodedown") -> None:
        """The ring forms a view; hosts that are not in it hear nothing of it."""
        self.part(members, how=how)

    def part(self, *sides: tuple[int, ...], how: str = "nodedown") -> None:
        """The ring forms a view of each side at once."""
        self.queue.clear()
        self.sides = []
        for members in sides:
            if members:
                self.joined(*members, how=how)

    def joined(self, *members: int, how: str = "nodedown") -> None:
        """These form a view beside those that there are."""
        self.seq += 1
        self.members = tuple(sorted(members))
        self.sides.append(self.members)
        epoch = Epoch(self.seq, self.members[0])
        for id in self.members:
            told = self.told.get(id, ())
            joined = tuple(one for one in members if one not in told)
            left = tuple(one for one in told if one not in members)
            self.told[id] = self.members
            view = inputs.ViewChanged(epoch, self.members, joined, left, dict.fromkeys(left, how))
            self.hosts[id].feed(view)

    def outage(self) -> None:
        """Nobody reaches anybody."""
        self.part(*((id,) for id, host in self.hosts.items() if host.node is not None))

    def run(self) -> None:
        """Deliver, and do what was ordered, until nothing is left to do."""
        while self.later or (self.queue and not self.stopped):
            if self.queue and not self.stopped:
                sender, payload = self.queue.popleft()
                if sender in self.stuck:
                    self.unsent.append((sender, payload))
                else:
                    self.deliver(sender, payload)
            else:
                self.later.popleft()()

    def deliver(self, sender: int, payload: bytes) -> None:
        for id in next((side for side in self.sides if sender in side), ()):
            fact = inputs.Delivered(sender, payload)
            if id in self.stuck:
                self.waiting.append((id, fact))
            else:
                self.hosts[id].feed(fact)

    def mend(self) -> None:
        """The path that was cut is there again: what waited comes, in its order."""
        self.stuck, waiting, self.waiting = (), self.waiting, []
        for id, fact in waiting:
            self.hosts[id].feed(fact)
        self.queue.extend(self.unsent)
        self.unsent = []
        self.run()

    def go_on(self) -> None:
        """The ring moves again, and delivers one member's backlog after the other's."""
        self.stopped = False
        self.queue = deque(sorted(self.queue, key=lambda one: one[0]))
        self.run()

    def pass_ms(self, time_ms: int, tick_ms: int = TICK_MS) -> None:
        """Time passes, in ticks; frozen hosts do not notice."""
        for _ in range(time_ms // tick_ms):
            self.now_ns += tick_ms * MS
            self.later.extend(self.later_still)
            self.later_still = []
            due = [one for one in self.agents if one[0] <= self.now_ns]
            self.agents = [one for one in self.agents if one[0] > self.now_ns]
            for _, host, run in due:
                if host.node is not None:
                    host.feed(self.agent(run))
            for host in self.hosts.values():
                if not host.frozen:
                    host.feed(inputs.Tick())
            self.run()

    def until(self, true: Callable[[], bool], limit_ms: int = 30_000) -> int:
        """Let time pass until something is true; returns how long it took."""
        for passed_ms in range(0, limit_ms, TICK_MS):
            if true():
                return passed_ms
            self.pass_ms(TICK_MS)
        raise AssertionError(f"not true within {limit_ms} ms")

    def freeze(self, id: int) -> None:
        self.hosts[id].frozen = True

    def thaw(self, id: int, *members: int) -> None:
        """The host wakes, finds what came meanwhile, and is let into a view again."""
        host = self.hosts[id]
        host.frozen = False
        host.feed(inputs.RingLost("the ring went on without this host"))
        host.inbox.clear()
        self.run()
        if members:
            self.view(*members)
            self.run()

    def cancel(self, run: int, host: Host) -> None:
        """The agent is killed before it has done anything."""
        for one in [one for one in self.agents if one[1] is host and one[2].run == run]:
            self.agents.remove(one)
            killed = inputs.AgentExited(run, Power.UNKNOWN, "killed", 1, answered=False)
            self.later.append(functools.partial(host.feed, killed))

    def agent(self, run: effects.RunAgent) -> inputs.AgentExited:
        """A switch does as it is told and tells the truth, unless `says` has it lie.

        A BMC has no supply of its own: once the outlets are off it does not answer.  Of a device with
        plugs the first digit is the host's."""
        if run.device.startswith("feed"):
            return self.outlet(run)
        id = int(run.parameters["plug"][0] if "plug" in run.parameters else run.device[-1])
        unfed = all(one.current is not Current.FED for one in self.supplies(id))
        if run.device.startswith("bmc") and (unfed or id in self.unplugged):
            return inputs.AgentExited(run.run, Power.UNKNOWN, "no route to host", 5, answered=False)
        said = self.says.get((run.device, run.action))
        if said is not None:
            return inputs.AgentExited(run.run, said, "as scripted", 5, answered=said is not Power.UNKNOWN)
        if run.action == "off":
            self.power[id] = Power.OFF
            if run.device.startswith("pdu"):
                self.unplugged.append(id)
            self.cut(id)
        if run.action == "on":
            self.power[id] = Power.ON
            self.unplugged = [one for one in self.unplugged if one != id]
            return inputs.AgentExited(run.run, Power.ON, "done", 5)
        return inputs.AgentExited(run.run, self.power[id] if run.action == "status" else Power.OFF, "done", 5)

    def outlet(self, run: effects.RunAgent) -> inputs.AgentExited:
        """Of a PDU with an outlet for each host: feed1 for all first supplies, feed2 for all second ones."""
        outlet = int(run.parameters["plug"]), int(run.device[-1])
        said = self.says.get((run.device, run.action))
        if said is not None:
            return inputs.AgentExited(run.run, said, "as scripted", 5, answered=said is not Power.UNKNOWN)
        if run.action in ("on", "off"):
            self.outlets_off = [one for one in self.outlets_off if one != outlet]
        if run.action == "off":
            self.outlets_off.append(outlet)
            for id in self.hosts:
                if all(one.current is not Current.FED for one in self.supplies(id)):
                    self.power[id] = Power.OFF
                    self.cut(id)
        is_off = outlet in self.outlets_off
        return inputs.AgentExited(run.run, Power.OFF if is_off else Power.ON, "done", 5)

    def supplies(self, id: int) -> tuple[Supply, ...]:
        """What a host's controller sees: each supply is fed by the outlet that its cable is in."""
        fed = [self.cables.get((id, number), (id, number)) not in self.outlets_off for number in (1, 2)]
        return tuple(
            Supply(f"PSU{number}", Current.FED if one else Current.LOST) for number, one in enumerate(fed, 1)
        )

    def cut(self, id: int) -> None:
        """The host loses power."""
        host = self.hosts[id]
        host.node, host.paths, host.pages, host.inbox = None, {}, {}, deque()
        host.frozen = False
        host.lvm_locks, host.lvm_lost, host.tables, host.processes, host.watched = {}, False, [], {}, []

    def boot(self, id: int, *members: int) -> None:
        host = self.hosts[id]
        self.power[id] = Power.ON
        self.unplugged = [one for one in self.unplugged if one != id]
        host.boots += 1
        host.start()
        self.view(*members)
        self.run()
