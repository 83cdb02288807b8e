"""A lab: a whole cluster of real processes on this host, one directory, no root.

One hub, one power switch, and per host an init with a block service and a daemon below it.  The
lab's own commands reach hosts only as a data centre's hands would: power, cables, a debugger's stop."""

import contextlib
import os
import secrets
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ringfence.client import connect
from ringfence.config import Loaded, render
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Timing
from ringfence.core.errors import BadInput, Refused, RingfenceError, Unavailable
from ringfence.host.processes import Process, process
from ringfence.lab import fence_agent, trees
from ringfence.lab.interrupts import undisturbed
from ringfence.lab.layout import DEVICES, Kept, Layout, layout, node_names
from ringfence.lab.line_socket import Json, ask
from ringfence.ring.admin import HubAdmin

MOST_NODES = 16
TIMING = Timing(
    heartbeat_ms=100, token_ms=500, grant_ms=700, silent_ms=1500, write_ms=2500, hold_ms=30000,
    grace_ms=4000, post_join_delay_ms=4000, agent_timeout_ms=5000, backoff_ms=500,
)  # fmt: skip
"""Quicker than the defaults: everything is on one host."""
READY_S = 20.0
START_S = 10.0
POLL_S = 0.05
SOCKET_VARIABLE = "RINGFENCE_SOCKET"

Progress = Callable[[str], None]


class Lab:
    """A lab that is up.  Make one with `Lab.up`, find one with `Lab.open`."""

    def __init__(self, places: Layout, kept: Kept) -> None:
        self._places = places
        self._kept = kept
        self.nodes = kept.nodes

    # -- up and down ----------------------------------------------------------------------

    @classmethod
    def up(
        cls,
        directory: Path,
        nodes: int,
        size_bytes: int,
        timing: Timing = TIMING,
        naive: bool = False,
        progress: Progress = lambda line: None,
    ) -> "Lab":
        """Make a lab and return when every host is ready.  Whatever goes wrong, nothing is left running.

        Raises RingfenceError."""
        if not 1 <= nodes <= MOST_NODES:
            raise BadInput(f"a lab has 1 to {MOST_NODES} hosts, not {nodes}", next="--nodes 2")
        places = layout(directory)
        cls._refuse_second(places)
        lab = cls(places, Kept(node_names(nodes), naive=naive))
        try:
            lab._furnish(size_bytes, timing)
            progress(f"hub and power switches start in {places.dir}")
            lab.start_hub(timing.token_ms)
            lab._start_power()
            progress(f"{nodes} hosts boot")
            lab.wait_ready(READY_S + nodes, progress)
        except BaseException:
            lab.down()
            raise
        return lab

    @classmethod
    def open(cls, directory: Path) -> "Lab":
        """Raises Unavailable: there is no lab in it."""
        places = layout(directory)
        return cls(places, places.kept())

    @staticmethod
    def _refuse_second(places: Layout) -> None:
        if places.file.exists():
            kept = places.kept()
            if any(trees.alive(Process(*one)) for one in (kept.hub, kept.power) if one[0]):
                raise Refused(f"a lab runs in {places.dir}", next=f"ringfence lab down --dir {places.dir}")
        if places.disk.exists():
            raise Refused(
                f"{places.dir} holds the disk of an earlier lab", next=f"rm -r {places.dir}, or another --dir"
            )

    def down(self) -> None:
        """End everything; files stay.  May be called twice, and on a lab that came up by half.

        A second Ctrl-C waits until it is done: half of a cluster must not be left running."""
        with undisturbed():
            self._down()

    def _down(self) -> None:
        kept = self._places.kept() if self._places.file.exists() else self._kept
        if kept.power[0]:
            trees.send(Process(*kept.power), signal.SIGCONT)  # it may have been stopped, and is to answer
        with contextlib.suppress(RingfenceError):
            ask(self._places.power_socket, {"order": "stop"}, 15.0)
        _end(kept.power)  # first, for it could boot a host again
        for node in kept.nodes:  # all off by now, unless the switch was gone already
            _end(self._places.init_of(node) or (0, 0))
        _end(kept.hub)
        for socket in (self._places.power_socket, self._places.hub_socket):
            socket.unlink(missing_ok=True)
        for node in kept.nodes:
            for path in (self._places.root(node) / "run").rglob("*"):
                if path.is_socket():
                    path.unlink(missing_ok=True)

    def _furnish(self, size_bytes: int, timing: Timing) -> None:
        """Disk, agents, passwords, one configuration a host."""
        places = self._places
        try:
            places.dir.mkdir(parents=True, exist_ok=True)
            with places.disk.open("xb") as disk:
                disk.truncate(size_bytes)
            password = secrets.token_hex(12)
            _write(places.password_file, f"{password}\n", 0o600)
            for name in ("bmc", "pdu"):
                words = [sys.executable, "-I", "-S", os.path.abspath(fence_agent.__file__), name]
                _write(places.agent(name), f"#!/bin/sh\nexec {shlex.join(words)}\n", 0o755)
            config = config_of(places, self.nodes, timing, self._kept.naive)
            for node in self.nodes:
                paths, root = places.paths(node), places.root(node)
                loaded = Loaded(
                    config, (str(places.disk),), "", places.hub_socket, lab=True, lab_dir=str(places.dir)
                )
                _write(paths.file, render(loaded), 0o644)
                _write(root / "etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
                for device in config.devices:
                    _write(paths.secrets / device.name, f"password={password}\n", 0o600)
        except OSError as error:
            raise Unavailable(
                f"cannot make a lab in {places.dir}: {error}", next="choose another --dir"
            ) from None
        places.keep(self._kept)

    def start_hub(self, token_ms: int = TIMING.token_ms) -> None:
        """Also one that was killed: it goes on with the epochs that it kept."""
        places = self._places
        places.hub_socket.unlink(missing_ok=True)
        words = ["-m", "ringfence", "hub", "--socket", str(places.hub_socket)]
        words += ["--state", str(places.hub_state), "--token-ms", str(token_ms)]
        with undisturbed():  # what was started is written down before a Ctrl-C may end it all
            hub = self._run("hub", words)
            self._remember(msgspec.structs.replace(self._kept, hub=hub))
        self._until("the hub", places.hub_socket.exists, hub, "hub")

    def _start_power(self) -> None:
        places = self._places
        with undisturbed():
            power = self._run("power", ["-m", "ringfence.lab.power", str(places.dir)])
            self._remember(msgspec.structs.replace(self._kept, power=power))
        self._until("the power switch", places.power_socket.exists, power, "power")

    def hub(self) -> Process:
        """As it was started last; it may have ended."""
        return Process(*self._kept.hub)

    def kill_hub(self) -> None:
        """End it as a crash would."""
        _end(self._kept.hub)

    def _remember(self, kept: Kept) -> None:
        self._kept = kept
        self._places.keep(kept)

    def _run(self, name: str, words: list[str]) -> tuple[int, int]:
        """Start one of the lab's own processes; (pid, start time)."""
        pid = trees.spawn([sys.executable, *words], self._places.log(name))
        # It is this lab's `down` that ends it and buries it, in this process or in another.
        found = process(pid)
        return (pid, found.start if found else 0)

    def _until(self, what: str, true: Callable[[], bool], one: tuple[int, int], log: str) -> None:
        give_up = time.monotonic() + START_S
        while not true():
            if time.monotonic() > give_up or not trees.alive(Process(*one)):
                file = self._places.log(log)
                raise Unavailable(f"{what} did not start: {_last_line(file)}", next=f"see {file}")
            time.sleep(POLL_S)

    def wait_ready(self, limit_s: float, progress: Progress = lambda line: None) -> None:
        """Raises Unavailable: names a host that is not ready in time, with its log's last line."""
        give_up = time.monotonic() + limit_s
        for node in self.nodes:
            while not self._ready(node):
                if time.monotonic() > give_up:
                    log = self.root(node) / "daemon.log"
                    raise Unavailable(
                        f"{node} did not get ready: {_last_line(log)}", node=node, next=f"see {log}"
                    )
                time.sleep(POLL_S)
            progress(f"{node} is ready")

    def _ready(self, node: str) -> bool:
        try:
            with connect(self.socket(node), retry_ms=0) as daemon:
                status = daemon.status()
        except RingfenceError:
            return False
        ready = [one for one in status["members"] if one["state"] == "ready"]
        return bool(status["ready"]) and len(ready) == len(self.nodes)

    # -- where things are --------------------------------------------------------------------

    @property
    def disk(self) -> Path:
        return self._places.disk

    def root(self, node: str) -> Path:
        return self._places.root(self._known(node))

    def socket(self, node: str) -> Path:
        return self._places.paths(self._known(node)).socket

    def env(self, node: str) -> dict[str, str]:
        """What makes every other command talk to that host."""
        return {SOCKET_VARIABLE: str(self.socket(node))}

    def boot_id(self, node: str) -> str:
        return (self.root(node) / "run/boot_id").read_text().strip()

    # -- what can be done to hosts ---------------------------------------------------------------

    def freeze(self, node: str) -> None:
        """Stop every process of the host."""
        self._order("freeze", node)

    def thaw(self, node: str) -> None:
        self._order("thaw", node)

    def cut(self, node: str) -> None:
        """Take the host's ring cable out; cables that are out already stay out."""
        number = self.nodes.index(self._known(node)) + 1
        with HubAdmin(self._places.hub_socket) as hub:
            others = [[one for one in group if one != number] for group in hub.status().groups]
            hub.cut([*(group for group in others if group), [number]])

    def heal(self) -> None:
        """All ring cables are in again."""
        with HubAdmin(self._places.hub_socket) as hub:
            hub.heal()

    def power(self, node: str, to: str) -> None:
        """"on" or "off", by hand: chassis and both outlets."""
        if to not in ("on", "off"):
            raise BadInput(f"power is on or off, not {to!r}")
        self._order("power", node, to=to)

    def lie(self, node: str, device: str, mode: str) -> None:
        """Make the host's "bmc", "pdu-a", "pdu-b" or "pdu" lie in one of the ways of `power.Lie`."""
        self._order("lie", node, device=device, mode=mode)

    def spawn(
        self, node: str, argv: Sequence[str], out: Path | None = None, env: dict[str, str] | None = None
    ) -> int:
        """Start a program in the host's own tree; its pid.  Raises Unavailable if the host does not run,
        Refused if it is frozen: it would start it when it thaws, when nobody waits for it any more."""
        if self._report(node)["frozen"]:
            raise Refused(f"{node} is frozen and starts nothing", next=f"ringfence lab thaw {node}")
        request: Json = {"argv": list(argv), "out": str(out) if out else "", "env": env or {}}
        return int(ask(self._places.init_socket(self._known(node)), request)["pid"])

    def start_daemon(self, node: str) -> int:
        """Start the host's daemon again, as its service manager would; its pid.  Raises as `spawn`."""
        root = self.root(node)
        argv = [sys.executable, "-m", "ringfence", "daemon", "--node", node, "--root", str(root)]
        return self.spawn(node, argv, root / "daemon.log")

    def alive(self, node: str, pid: int) -> bool:
        """Whether the host runs this process."""
        init = self._report(node)["init"]
        return init is not None and any(one.pid == pid for one in trees.tree(Process(*init)))

    def status(self) -> Json:
        """{"dir", "naive", "hub", "power", "hosts": {name: {power, frozen, boots, outlets, lies, …}}}."""
        kept = self._places.kept()
        up = {name: trees.alive(Process(*one)) for name, one in (("hub", kept.hub), ("power", kept.power))}
        hosts = ask(self._places.power_socket, {"order": "status"})["hosts"] if up["power"] else {}
        return {"dir": str(self._places.dir), "naive": kept.naive, **up, "hosts": hosts}

    # -- helpers -------------------------------------------------------------------------------

    def _order(self, order: str, node: str, **more: str) -> Json:
        return ask(self._places.power_socket, {"order": order, "node": self._known(node), **more})

    def _report(self, node: str) -> Json:
        report: Json = ask(self._places.power_socket, {"order": "status"})["hosts"][self._known(node)]
        return report

    def _known(self, node: str) -> str:
        if node not in self.nodes:
            raise BadInput(f"the lab has no host {node}", next=f"one of {', '.join(self.nodes)}")
        return node


def config_of(places: Layout, nodes: Sequence[str], timing: Timing, naive: bool) -> ClusterConfig:
    """Level 1 is each host's BMC, level 2 both its outlets."""
    configs, devices = [], []
    for number, node in enumerate(nodes, 1):
        names = [f"{device}-{node}" for device in DEVICES]
        configs.append(NodeConfig(number, node, levels=(Level((names[0],)), Level((names[1], names[2])))))
        where = {"ip": str(places.power_socket)}
        bmc, pdu = str(places.agent("bmc")), str(places.agent("pdu"))
        devices.append(DeviceConfig(names[0], bmc, Confirms.HOST_OFF, {**where, "plug": node}))
        for name, outlet in ((names[1], "a"), (names[2], "b")):
            plug = {**where, "plug": f"{node}:{outlet}"}
            devices.append(DeviceConfig(name, pdu, Confirms.OUTLET_OFF, plug, own_supply=True))
    return ClusterConfig(
        "lab",
        two_node=len(nodes) == 2,
        naive=naive,
        timing=timing,
        nodes=tuple(configs),
        devices=tuple(sorted(devices, key=lambda device: device.name)),
    )


def _end(one: tuple[int, int]) -> None:
    """Kill a process and all below it, if it is still the one that was started, and bury it."""
    root = process(one[0]) if one[0] else None
    if root is not None and root.start == one[1]:
        trees.kill(root)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(root.pid, 0)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def _last_line(file: Path) -> str:
    try:
        lines = file.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1][:200] if lines else "its log is empty"
