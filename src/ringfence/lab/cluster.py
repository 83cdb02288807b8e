"""A lab: a whole cluster of real processes on this host, in one directory.

One hub, one power switch, and per host an init with a block service and a daemon below it.  On corosync
(`--ring corosync`, needs root) there is a network switch instead of the hub, and each init has a corosync,
too.  The lab's own commands reach hosts only as a data centre's hands would: power, cables, a debugger's
stop."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ringfence.client import connect
from ringfence.core.cluster import Timing
from ringfence.core.errors import BadInput, Refused, RingfenceError, Unavailable
from ringfence.host.processes import STOPPED, Process, process
from ringfence.lab import trees
from ringfence.lab.devices.model import Simulated
from ringfence.lab.devices.rack import end_strays
from ringfence.lab.furnish import furnish
from ringfence.lab.interrupts import undisturbed
from ringfence.lab.layout import HUB, Kept, Layout, Ring, layout, node_names
from ringfence.lab.lies import DELAY_S
from ringfence.lab.line_socket import Json, ask
from ringfence.lab.logs import last_line
from ringfence.lab.network import Way
from ringfence.lab.parts import Part
from ringfence.lab.ring_side import ring_side
from ringfence.lab.stock_lvm2 import detach

MOST_NODES = 16
MOST_DISKS = 16
TIMING = Timing(
    heartbeat_ms=100, token_ms=500, grant_ms=700, silent_ms=1500, write_ms=2500, hold_ms=30000,
    grace_ms=4000, post_join_delay_ms=4000, agent_timeout_ms=5000, backoff_ms=500,
)  # fmt: skip
"""Quicker than the defaults: everything is on one host."""
READY_S = 60.0
START_S = 60.0
RACK_START_S = 60.0
"""Some of the simulators take a second of CPU each."""
POLL_S = 0.05
SOCKET_VARIABLE = "RINGFENCE_SOCKET"

Progress = Callable[[str], None]


class Lab:
    """A lab that is up.  Make one with `Lab.up`, find one with `Lab.open`."""

    def __init__(self, places: Layout, kept: Kept) -> None:
        self._places = places
        self._kept = kept
        self._side = ring_side(places, kept)
        self.nodes = kept.nodes
        self.ring = kept.ring

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
        ring: Ring = HUB,
        devices: Sequence[str] = (),
        loop: bool = False,
        disks: int = 1,
    ) -> "Lab":
        """Make a lab and return when every host is ready.  Whatever goes wrong, nothing is left running.

        Args:
            devices: kinds of simulated fence devices (`devices.kinds.chosen_kinds`), which real agents
                speak to; what is not among them is the lab's own.
            loop: the disks are block devices, as stock LVM2 needs them.
            disks: how many the hosts share, of `size_bytes` each.

        Raises RingfenceError."""
        if not 1 <= nodes <= MOST_NODES:
            raise BadInput(f"a lab has 1 to {MOST_NODES} hosts, not {nodes}", next="--nodes 2")
        if not 1 <= disks <= MOST_DISKS:
            raise BadInput(f"a lab has 1 to {MOST_DISKS} disks, not {disks}", next="--disks 1")
        if naive and ring != HUB:
            raise BadInput("protections are off only in a lab on the hub", next="--ring hub")
        places = layout(directory)
        cls._refuse_second(places)
        lab = cls(places, Kept(node_names(nodes), ring, naive=naive, devices=tuple(devices)))
        lab._side.check()
        try:
            lab._kept = furnish(places, lab._kept, lab._side, size_bytes, timing, disks, loop)
            progress(f"{lab.carrier_name} and power switches start in {places.dir}")
            lab.start_carrier(timing.token_ms)
            if devices:
                progress(f"simulated fence devices start: {', '.join(devices)}")
                lab._start_rack()
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
            if any(trees.alive(Process(*one)) for one in (kept.carrier, kept.power, kept.rack) if one[0]):
                raise Refused(f"a lab runs in {places.dir}", next=f"ringfence lab down --dir {places.dir}")
        if places.images:
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
        _end(kept.rack)
        if kept.devices:
            end_strays(self._places.rack)
            self._places.rack_socket.unlink(missing_ok=True)
        _end(kept.carrier)
        self._side.clear()
        for image in self._places.images:
            detach(image)
        self._places.power_socket.unlink(missing_ok=True)
        for node in kept.nodes:
            for path in (self._places.root(node) / "run").rglob("*"):
                if path.is_socket():
                    path.unlink(missing_ok=True)

    def start_carrier(self, token_ms: int = TIMING.token_ms) -> None:
        """The hub, or the switch.  Also a hub that was killed: it goes on with the epochs that it kept."""
        name, words = self._side.carrier, self._side.words(token_ms)
        with undisturbed():  # what was started is written down before a Ctrl-C may end it all
            carrier = self._run(name, words)
            self._remember(msgspec.structs.replace(self._kept, carrier=carrier))
        self._until(f"the {name}", self._side.works, carrier, name)

    def _start_rack(self) -> None:
        places = self._places
        with undisturbed():
            rack = self._run("rack", ["-m", "ringfence.lab.devices", str(places.dir)])
            self._remember(msgspec.structs.replace(self._kept, rack=rack))
        self._until("the simulated devices", places.rack_socket.exists, rack, "rack", RACK_START_S)

    def _start_power(self) -> None:
        places = self._places
        with undisturbed():
            power = self._run("power", ["-m", "ringfence.lab.power", str(places.dir)])
            self._remember(msgspec.structs.replace(self._kept, power=power))
        self._until("the power switch", places.power_socket.exists, power, "power")

    @property
    def carrier_name(self) -> str:
        """"hub" or "switch"."""
        return self._side.carrier

    def carrier(self) -> Process:
        """The hub or the switch, as it was started last; it may have ended."""
        return Process(*self._kept.carrier)

    def kill_carrier(self) -> None:
        """End it as a crash would."""
        _end(self._kept.carrier)

    def _remember(self, kept: Kept) -> None:
        self._kept = kept
        self._places.keep(kept)

    def _run(self, name: str, words: list[str]) -> tuple[int, int]:
        """Start one of the lab's own processes; (pid, start time)."""
        try:
            pid = trees.spawn([sys.executable, *words], self._places.log(name))
        except OSError as error:
            raise Unavailable(
                f"cannot start the lab's {name} ({sys.executable}): {error.strerror}",
                next="see that this user may run it, and may write to the lab's directory",
            ) from None
        # It is this lab's `down` that ends it and buries it, in this process or in another.
        found = process(pid)
        return (pid, found.start if found else 0)

    def _until(
        self, what: str, true: Callable[[], bool], one: tuple[int, int], log: str, limit_s: float = START_S
    ) -> None:
        give_up = time.monotonic() + limit_s
        while not true():
            if time.monotonic() > give_up or not trees.alive(Process(*one)):
                file = self._places.log(log)
                raise Unavailable(f"{what} did not start: {last_line(file)}", next=f"see {file}")
            time.sleep(POLL_S)

    def wait_ready(self, limit_s: float, progress: Progress = lambda line: None) -> None:
        """Raises Unavailable: names a host that is not ready in time, with its log's last line."""
        give_up = time.monotonic() + limit_s
        for node in self.nodes:
            while not self._ready(node):
                if time.monotonic() > give_up:
                    log = self.root(node) / "daemon.log"
                    raise Unavailable(
                        f"{node} did not get ready: {last_line(log)}", node=node, next=f"see {log}"
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
        """What the hosts share: a file, or the loop device that is made of it; the first of them."""
        return self.disks[0]

    @property
    def disks(self) -> tuple[Path, ...]:
        return tuple(Path(disk) for disk in self._kept.disks)

    def root(self, node: str) -> Path:
        return self._places.root(self._known(node))

    def socket(self, node: str) -> Path:
        return self._places.paths(self._known(node)).socket

    def env(self, node: str) -> dict[str, str]:
        """What makes every other command talk to that host."""
        return {
            SOCKET_VARIABLE: str(self.socket(node)),
            "LVM_SYSTEM_DIR": str(self._places.lvm(node)),
            "LVM_LVMLOCKD_SOCKET": str(self._places.paths(node).lvmlockd_socket),
        }

    def boot_id(self, node: str) -> str:
        return (self.root(node) / "run/boot_id").read_text().strip()

    # -- what can be done to hosts ---------------------------------------------------------------

    def freeze(self, node: str, part: Part | None = None) -> None:
        """Stop every process of the host, or one service of it with what that started."""
        if part is None:
            self._order("freeze", node)
        else:
            trees.freeze(self.part(node, part))

    def thaw(self, node: str, part: Part | None = None) -> None:
        if part is None:
            self._order("thaw", node)
        else:
            trees.thaw(self.part(node, part))

    def kill(self, node: str, part: Part) -> None:
        """SIGKILL to one service of the host, to nothing below it.  Nobody starts it again: see `start`."""
        trees.end(self.part(node, part))

    def start(self, node: str, part: Part) -> int:
        """Start a service of the host again, as its service manager would; its pid.

        Raises as `spawn`; Refused: it runs."""
        self._has(part)
        return self.spawn(
            node, part.argv(self._places, node), self.root(node) / part.log,
            once=f"{part.value} on {node}",
        )

    def cut(self, node: str, other: str = "", way: Way = Way.BOTH, link: int | None = None) -> None:
        """Let packets of the host be lost; what is cut already stays cut.

        Args:
            other: only those from and to this host; both go on to hear the rest.
            way: INBOUND: those to `node`.  OUTBOUND: those from it.
            link: only on this link.

        Raises Refused: the hub can only cut a host off from all others, both ways."""
        if other == node:
            raise BadInput(f"{node} cannot be cut off from itself", next="name another host")
        others = [other] if other else [one for one in self.nodes if one != node]
        self._side.cut(self.number(node), [self.number(one) for one in others], way, link)

    def partition(self, *groups: Sequence[str]) -> None:
        """Cut the ring into these groups in one step; hosts in none of them form one more together."""
        self._side.partition([[self.number(node) for node in group] for group in groups])

    def heal(self) -> None:
        """All cables are in again."""
        self._side.heal()

    def cuts(self) -> list[Json]:
        """[{"from", "to", "link"}]: what does not pass."""
        return [
            {"from": self.nodes[one - 1], "to": self.nodes[other - 1], "link": link}
            for one, other, link in self._side.cuts()
        ]

    def power(self, node: str, to: str) -> None:
        """"on" or "off", by hand: chassis and both outlets."""
        if to not in ("on", "off"):
            raise BadInput(f"power is on or off, not {to!r}")
        self._order("power", node, to=to)

    def lie(self, node: str, device: str, mode: str, delay_s: float = DELAY_S) -> None:
        """Make the host's "bmc", "pdu-a", "pdu-b" or "pdu" lie in one of the ways of `lies.Lie`.

        Args:
            delay_s: of those that act, or tell, later."""
        self._order("lie", node, device=device, mode=mode, delay_s=delay_s)

    def plug(self, node: str, supply: str, pdu: str, outlet: str) -> None:
        """Hang the host's supply "psu1" or "psu2" on the outlet of host `outlet` at "pdu-a" or "pdu-b"."""
        self._order("plug", node, supply=supply, pdu=pdu, outlet=outlet)

    def spawn(
        self,
        node: str,
        argv: Sequence[str],
        out: Path | None = None,
        env: dict[str, str] | None = None,
        once: str = "",
        files: Sequence[int] = (),
    ) -> int:
        """Start a program in the host's own tree; its pid.  Raises Unavailable if the host does not run,
        Refused if it is frozen: it would start it when it thaws, when nobody waits for it any more.

        Args:
            once: its name; Refused, too, if one that was started with these words has not ended.
            files: its stdin, stdout, stderr, and where its exit code is written when it has ended, in
                decimals; a signal's is negative.  Nothing is written if the host ends first."""
        report = self._report(node)
        if not report["init"]:
            state = "has crashed" if report["power"] == "on" else "is off"
            raise Unavailable(f"{node} {state} and starts nothing", next=f"ringfence lab power {node} on")
        if report["frozen"]:
            raise Refused(f"{node} is frozen and starts nothing", next=f"ringfence lab thaw {node}")
        request: Json = {"argv": list(argv), "out": str(out) if out else "", "env": env or {}, "once": once}
        return int(ask(self._places.init_socket(self._known(node)), request, files=files)["pid"])

    def alive(self, node: str, pid: int) -> bool:
        """Whether the host runs this process."""
        return any(one.pid == pid for one in self.tree(node))

    def tree(self, node: str) -> list[Process]:
        """All that the host runs; nothing if it is off."""
        init = self._report(node)["init"]
        return trees.tree(Process(*init)) if init is not None else []

    @property
    def services(self) -> list[Part]:
        """Of each host."""
        return [part for part in Part if part is not Part.COROSYNC or self.ring.is_corosync]

    def part(self, node: str, part: Part) -> Process:
        """Raises Unavailable: it does not run.  BadInput: no host of this lab has it."""
        self._has(part)
        for one in self.tree(node):
            if part.words in trees.command(one.pid):
                return one
        raise Unavailable(f"{part.value} does not run on {node}", next="ringfence lab status")

    def parts(self, node: str) -> dict[str, str]:
        """Service -> "runs", "frozen" or "ended"."""
        found = dict.fromkeys((part.value for part in self.services), "ended")
        for one in self.tree(node):
            command = trees.command(one.pid)
            for part in self.services:
                if part.words in command:
                    found[part.value] = "frozen" if one.state in STOPPED else "runs"
        return found

    def _has(self, part: Part) -> None:
        if part not in self.services:
            raise BadInput(
                f"this lab's ring is the hub: no host has {part.value}",
                next="make a lab with --ring corosync",
            )

    def status(self) -> Json:
        """{"dir", "naive", "ring", "hub" or "switch", "power", "hosts": {name: {power, frozen, …}}}; with
        simulated devices also "rack" and "devices": [{name, kind, address, port, state}]."""
        kept = self._places.kept()
        processes = [(self._side.carrier, kept.carrier), ("power", kept.power)]
        if kept.devices:
            processes.append(("rack", kept.rack))
        up = {name: trees.alive(Process(*one)) for name, one in processes}
        hosts = ask(self._places.power_socket, {"order": "status"})["hosts"] if up["power"] else {}
        told = {
            "dir": str(self._places.dir), "naive": kept.naive, "ring": kept.ring.name, **up, "hosts": hosts,
        }  # fmt: skip
        if kept.devices:
            told["devices"] = self._devices(up["rack"])
        return told

    def _devices(self, up: bool) -> list[Json]:
        states = ask(self._places.rack_socket, {"order": "status"})["devices"] if up else {}
        return [
            {
                "name": one.name, "kind": one.kind, "address": one.address, "port": one.port,
                "state": states.get(one.name, "ended"),
            }
            for one in self._places.devices()
        ]  # fmt: skip

    def device(self, name: str) -> Simulated:
        """One of the lab's simulated devices.  Raises BadInput."""
        found = {one.name: one for one in self._places.devices()}
        if name not in found:
            raise BadInput(f"the lab has no device {name}", next=f"one of {', '.join(found) or 'none'}")
        return found[name]

    # -- helpers -------------------------------------------------------------------------------

    def _order(self, order: str, node: str, **more: str | float) -> Json:
        return ask(self._places.power_socket, {"order": order, "node": self._known(node), **more})

    def _report(self, node: str) -> Json:
        report: Json = ask(self._places.power_socket, {"order": "status"})["hosts"][self._known(node)]
        return report

    def number(self, node: str) -> int:
        """Its node id."""
        return self.nodes.index(self._known(node)) + 1

    def _known(self, node: str) -> str:
        if node not in self.nodes:
            raise BadInput(f"the lab has no host {node}", next=f"one of {', '.join(self.nodes)}")
        return node


def _end(one: tuple[int, int]) -> None:
    """Kill a process and all below it, if it is still the one that was started, and bury it."""
    root = process(one[0]) if one[0] else None
    if root is not None and root.start == one[1]:
        trees.kill(root)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(root.pid, 0)
