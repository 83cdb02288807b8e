"""The hands of a torture run: those that break the lab as planned, and those that mend it.

The second are a service manager (starts daemons, block services and clients that have ended, a moment
later), a data centre (boots hosts that are off) and an operator (ends the quarantine of a device that
tells the truth again).  One thread; an order that fails because the cluster acted first (a host that is
to be thawed has lost power) is noted and let go."""

import contextlib
import heapq
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ringfence.client import connect
from ringfence.core.errors import RingfenceError, Unavailable
from ringfence.host.processes import Process
from ringfence.lab import trees
from ringfence.lab.cluster import Lab
from ringfence.lab.layout import DEVICES
from ringfence.lab.line_socket import Json
from ringfence.lab.network import Way
from ringfence.lab.parts import Part
from ringfence.lab.torture.plan import Fault, Kind
from ringfence.wire import client as calls

KEEP_S = 0.4
"""How often the mending hands look round."""
AGAIN_S = 0.5
TRUST_EVERY_S = 3.0
ASK_MS = 700
WAYS = {Kind.CUT_IN: Way.INBOUND, Kind.CUT_OUT: Way.OUTBOUND}

Say = Callable[[str], None]


class Client(msgspec.Struct):
    """A client program that should run on a host."""

    node: str
    name: str
    module: str
    more: tuple[str, ...] = ()
    """Arguments of its own."""
    pid: int = 0
    starts: int = 0


class Hands:
    """Args:
    clients: what should run on the hosts; nothing of it does yet.
    histories: their directory.
    say: told each thing that is done."""

    def __init__(self, lab: Lab, seed: int, clients: Sequence[Client], histories: Path, say: Say) -> None:
        self._lab = lab
        self._rng = random.Random(f"hands {seed}")
        self._seed = seed
        self._clients = clients
        self._histories = histories
        self._say = say
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._missing: dict[str, float] = {}
        """What was found ended -> when it is to be started again."""
        self._asked: set[int] = set()
        """Pids of clients that were asked to end."""
        self._stopped: list[Process] = []
        self._lying: dict[str, int] = {}
        """Device -> how many faults keep it from the truth."""
        self._trusted_s = 0.0
        self.struck: dict[str, int] = {}
        """Kind -> how many took place."""
        self.patient = True
        """False: what is missing is started at once."""
        self.wanted = True
        """False: clients that end are not started again."""

    # -- time -----------------------------------------------------------------------

    def run(self, plan: Sequence[Fault], duration_s: float, look: Callable[[], None]) -> None:
        """Carry out the plan.  `look` is called now and then."""
        began_s = time.monotonic()
        for fault in plan:
            self._at(began_s + fault.at_ms / 1000, self._strike_of(fault))
        while time.monotonic() - began_s < duration_s:
            self._turn()
            look()

    def keep_until(self, true: Callable[[], bool], limit_s: float) -> bool:
        """Mend until something is true; False: it never was."""
        give_up = time.monotonic() + limit_s
        while not true():
            if time.monotonic() > give_up:
                return False
            self._turn()
        return True

    def _turn(self) -> None:
        self._keep()
        until = time.monotonic() + KEEP_S
        while self._due and self._due[0][0] <= until:
            due_s, _, act = heapq.heappop(self._due)
            time.sleep(max(0.0, due_s - time.monotonic()))
            act()
        time.sleep(max(0.0, until - time.monotonic()))

    def _at(self, due_s: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (due_s, self._count, act))

    def _strike_of(self, fault: Fault) -> Callable[[], None]:
        return lambda: self._strike(fault)

    # -- breaking ---------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        try:
            undo = self._do(fault)
        except RingfenceError as error:
            self._say(f"not done: {fault}: {error.message}")
            return
        self._say(str(fault))
        kind = f"{fault.kind.value} {fault.way}".strip()
        self.struck[kind] = self.struck.get(kind, 0) + 1
        if undo is not None:
            self._at(time.monotonic() + fault.for_ms / 1000, lambda: self._undo(undo))

    def _undo(self, undo: Callable[[], None]) -> None:
        try:
            undo()
        except Unavailable:  # the hub stands still, too
            self._at(time.monotonic() + AGAIN_S, lambda: self._undo(undo))
        except RingfenceError:
            return  # nothing is left of what was to be mended

    def _do(self, fault: Fault) -> Callable[[], None] | None:
        """Returns what mends it, if that is ours to do.  Raises RingfenceError."""
        lab, node = self._lab, fault.node
        match fault.kind:
            case Kind.FREEZE_HOST:
                lab.freeze(node)
                return lambda: lab.thaw(node)
            case Kind.FREEZE_DAEMON:
                return self._stop(lab.part(node, Part.DAEMON))
            case Kind.FREEZE_HUB:
                return self._stop(lab.carrier())
            case Kind.KILL_DAEMON:
                lab.kill(node, Part.DAEMON)
            case Kind.KILL_BLOCK:
                lab.kill(node, Part.BLOCK)
            case Kind.KILL_CLIENT:
                self._kill_client(node)
            case Kind.KILL_HUB:
                lab.kill_carrier()
                return self._start_carrier
            case Kind.FREEZE_COROSYNC:
                return self._stop(lab.part(node, Part.COROSYNC))
            case Kind.KILL_COROSYNC:
                lab.kill(node, Part.COROSYNC)
            case Kind.CUT | Kind.CUT_IN | Kind.CUT_OUT | Kind.CUT_PAIR:
                lab.cut(node, fault.other, WAYS.get(fault.kind, Way.BOTH))
                return lab.heal
            case Kind.POWER_OFF:
                lab.power(node, "off")
            case Kind.POWER_OFF_ALL:
                for one in lab.nodes:
                    lab.power(one, "off")
            case Kind.DEVICE:
                return self._spoil(node, fault.device, fault.way)
        return None

    def _start_carrier(self) -> None:
        if not trees.alive(self._lab.carrier()):
            self._lab.start_carrier()

    def _stop(self, one: Process) -> Callable[[], None]:
        trees.send(one, signal.SIGSTOP)
        self._stopped.append(one)
        return lambda: trees.send(one, signal.SIGCONT)

    def _spoil(self, node: str, device: str, way: str) -> Callable[[], None]:
        self._lab.lie(node, device, way)
        self._lying[f"{node} {device}"] = self._lying.get(f"{node} {device}", 0) + 1

        def honest() -> None:
            self._lying[f"{node} {device}"] -= 1
            if not self._lying[f"{node} {device}"]:
                self._lab.lie(node, device, "none")

        return honest

    def _kill_client(self, node: str) -> None:
        """Raises Unavailable: none runs there."""
        tree = {one.pid: one for one in self._lab.tree(node)}
        lockers = [one for one in self._clients if one.node == node and one.pid in tree]
        if not lockers:
            raise Unavailable(f"no client runs on {node}")
        trees.send(tree[self._rng.choice(lockers).pid], signal.SIGKILL)

    # -- mending -----------------------------------------------------------------------

    def mend(self) -> None:
        """All faults are over."""
        self._due = []
        self.patient = False
        for one in self._stopped:
            trees.send(one, signal.SIGCONT)
        self._start_carrier()
        self._lab.heal()
        self._lying = {}
        for node, host in self._lab.status()["hosts"].items():
            for device in DEVICES:
                self._lab.lie(node, device, "none")
            if host["frozen"]:
                with contextlib.suppress(RingfenceError):
                    self._lab.thaw(node)

    def _keep(self) -> None:
        hosts = self._lab.status()["hosts"]
        for node, host in hosts.items():
            self._keep_host(node, host)
        if time.monotonic() - self._trusted_s > TRUST_EVERY_S:
            self._trusted_s = time.monotonic()
            self._trust([node for node, host in hosts.items() if host["init"] and not host["frozen"]])

    def _keep_host(self, node: str, host: Json) -> None:
        if self._overdue(node, host["init"] is None, 0.5, 3.0):
            with contextlib.suppress(RingfenceError):
                self._lab.power(node, "on")
            return
        if host["init"] is None or host["frozen"]:
            return
        lines = {one.pid: trees.command(one.pid) for one in trees.tree(Process(*host["init"]))}
        for part in self._lab.services:
            ended = not any(part.words in line for line in lines.values())
            if self._overdue(f"{node} {part.value}", ended, 0.1, 3.0):
                with contextlib.suppress(RingfenceError):
                    self._lab.start(node, part)
        for client in self._clients:
            ended = client.node == node and client.module not in lines.get(client.pid, "")
            if self.wanted and self._overdue(f"{node} {client.name}", ended, 0.0, 1.0):
                self._start(client)

    def _overdue(self, what: str, missing: bool, least_s: float, most_s: float) -> bool:
        """Whether something has been missing for long enough to be started again."""
        if not missing:
            self._missing.pop(what, None)
            return False
        now_s = time.monotonic()
        wait_s = self._rng.uniform(least_s, most_s) if self.patient else least_s
        due_s = self._missing.setdefault(what, now_s + wait_s)
        if now_s < due_s:
            return False
        del self._missing[what]
        return True

    def _start(self, client: Client) -> None:
        client.starts += 1
        name = f"{client.name}.{client.starts}"
        seed = self._rng.randrange(1 << 30)
        words = [
            str(self._lab.root(client.node)),
            str(self._histories),
            name,
            client.node,
            str(seed),
            *client.more,
        ]
        log = self._histories / f"{name}.out"
        client.pid = self._spawn(client.node, ["-m", client.module, *words], log)

    def _spawn(self, node: str, words: list[str], log: Path) -> int:
        """0: the host does not start it now."""
        with contextlib.suppress(RingfenceError):
            return self._lab.spawn(node, [sys.executable, *words], log)
        return 0

    def _trust(self, nodes: Sequence[str]) -> None:
        """An operator ends the quarantine of devices that tell the truth, on the first host that answers."""
        for node in nodes:
            with contextlib.suppress(RingfenceError), connect(self._lab.socket(node), retry_ms=0) as daemon:
                quarantined = daemon.call(calls.Status(), timeout_ms=ASK_MS)["quarantined"]
                for device in quarantined:
                    kind, _, owner = str(device).partition("-an-")
                    if not self._lies(f"an-{owner}", kind):
                        daemon.call(calls.FenceTrust(device, "torture"), timeout_ms=ASK_MS)
                        self._say(f"{device} is trusted again")
                return

    def _lies(self, node: str, device: str) -> bool:
        return any(self._lying.get(f"{node} {one}") for one in (device, device.partition("-")[0]))

    # -- clients -------------------------------------------------------------------------

    def end_clients(self) -> list[str]:
        """Ask each to end, once, as soon as it has begun.  Returns the names of those that have not ended:
        to be called until there are none."""
        self.wanted = False
        running = {one.pid: one for node in self._lab.nodes for one in self._lab.tree(node)}
        left = [client for client in self._clients if client.pid in running]
        for client in left:
            if client.pid not in self._asked and self._has_begun(client):
                self._asked.add(client.pid)
                trees.send(running[client.pid], signal.SIGTERM)
        return [client.name for client in left]

    def _has_begun(self, client: Client) -> bool:
        """Its history has a line: before that a SIGTERM is the end of it, and looks like a crash."""
        history = self._histories / f"{client.name}.{client.starts}.jsonl"
        return history.exists() and history.stat().st_size > 0
