"""A lab on corosync for fault tests: one for several faults, each of which finds it whole.

The labs have the quick timing with a token of 500 ms.  knet is what `ringfence init` writes; it finds a link
dead by its own pings (every 100 ms, over after 1 s), and 500 ms is the shortest token at which it does not
take a busy host for one.  udpu has no such pings: there totem itself has to find out."""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ringfence.client import Connection, connect
from ringfence.core.cluster import Timing
from ringfence.core.errors import RingfenceError, Unavailable
from ringfence.lab.cluster import TIMING, Lab
from ringfence.lab.corosync import SHARED
from ringfence.lab.layout import Ring
from ringfence.lab.namespaces import run_in
from ringfence.lab.network import port
from ringfence.lab.parts import Part
from ringfence.lab.stage import VG, VOLUME, Stage, Vm
from ringfence.lab.teller import Teller
from ringfence.wire import client as calls

SIZE = 256 << 20
WELL_S = 60.0
"""So long hosts may take to come back, on a machine that has other things to do."""
START_S = 60.0
"""So long a daemon may take to listen once its host has power."""
WRITES = 60
LOG_LINES = 6
"""So many of each host's last are told of a failure, less those that many writes leave there."""
REFUSED = "incident a write of"
Json = dict[str, Any]


class Cluster:
    """Hosts by number, from 1, with vg0/vm1 of 8 MiB; `stage` types commands and runs writers on them."""

    def __init__(self, path: Path, nodes: int, ring: Ring, timing: Timing) -> None:
        self._path = path
        self._make = lambda lab: Lab.up(lab, nodes, SIZE, timing, ring=ring)
        self._labs = self._stages = 0
        self._up = False

    def begin(self) -> None:
        """Come up, unless it is up.  Nothing is left of what did not."""
        if self._up:
            return
        self._labs += 1
        self._directory = self._path / str(self._labs)
        self.lab = self._make(self._directory / "lab")
        self._up = True
        self.stage = self._new_stage()
        try:
            self.stage.make_volume(self.lab.nodes[0], "8M")
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """All of it; `begin` makes another one."""
        if self._up:
            self._up = False
            try:
                self.stage.close()
            finally:
                self.lab.down()

    def _new_stage(self) -> Stage:
        self._stages += 1
        return Stage(self.lab, Teller(None), self._directory / f"vms{self._stages}")

    def name(self, number: int) -> str:
        return self.lab.nodes[number - 1]

    @property
    def numbers(self) -> range:
        return range(1, len(self.lab.nodes) + 1)

    # -- what hosts say ----------------------------------------------------------------

    def call(self, number: int, call: calls.Call, timeout_ms: int = 60_000) -> Any:
        with self.connected(number) as daemon:
            return daemon.call(call, timeout_ms=timeout_ms)

    def connected(self, number: int) -> Connection:
        """To its daemon; waits for one that is about to start.  Raises Unavailable."""
        give_up = time.monotonic() + START_S
        while True:
            try:
                return connect(self.lab.socket(self.name(number)), retry_ms=2000)
            except Unavailable:
                if self.off(number) or time.monotonic() > give_up:
                    raise
            time.sleep(0.05)

    def status(self, number: int) -> Json:
        told: Json = self.call(number, calls.Status())
        return told

    def why(self, number: int, target: str = "") -> str:
        """All lines; the first is "STUCK" if it is."""
        told = self.call(number, calls.Why(target))
        return "\n".join([*(["STUCK"] if told["stuck"] else []), *told["lines"]])

    def life(self, number: int) -> str:
        return str(self.status(number)["life"])

    def standings(self, number: int) -> list[str]:
        """Of each member, by its number, what this host says it is."""
        return [str(one["state"]) for one in self.status(number)["members"]]

    def victims(self, number: int) -> list[str]:
        return [str(one["name"]) for one in self.status(number)["victims"]]

    def position(self, number: int) -> int:
        """Where its history of events ends now."""
        newest = 0
        with self.connected(number) as daemon:
            while page := [int(one["seq"]) for one in daemon.events(since=newest)]:
                newest = max(page)
        return newest

    def kinds(self, number: int, since: int) -> list[str]:
        with self.connected(number) as daemon:
            return [str(one["kind"]) for one in daemon.events(since=since)]

    def ready(self, number: int, *others: int) -> bool:
        """Whether it is ready, with exactly these others, and nothing is stuck."""
        try:
            status = self.status(number)
        except RingfenceError:
            return False
        names = {self.name(one) for one in (number, *others)}
        ready = {one["name"] for one in status["members"] if one["state"] == "ready"}
        return bool(status["ready"]) and ready == names and not status["blocked"]

    def authority(self, number: int) -> tuple[str, str]:
        """("valid" or "lapsed" or "none") for grants and for writes."""
        told = self.status(number)["authority"]
        return str(told["grant"]), str(told["write"])

    # -- what is done to them ------------------------------------------------------------

    def dead_devices(self, *numbers: int) -> None:
        """Nobody can fence these hosts."""
        for number in numbers:
            for device in ("bmc", "pdu"):
                self.lab.lie(self.name(number), device, "unreachable")

    def honest_devices(self) -> None:
        for node in self.lab.nodes:
            for device in ("bmc", "pdu"):
                self.lab.lie(node, device, "none")

    def plug(self, number: int, to: str) -> None:
        """The host's cable at the switch: "up" or "down" (its link loses its carrier)."""
        switch = json.loads((self._directory / "lab/network.json").read_text())["switch"]
        run_in(switch, ["ip", "link", "set", port(number, 0), to])

    def off(self, number: int) -> bool:
        return bool(self.lab.status()["hosts"][self.name(number)]["power"] == "off")

    def ask_for_volume(self, number: int, volume: str = VOLUME) -> "Asked":
        return Asked(self, number, volume)

    def take_volume(self, number: int) -> None:
        """Have the volume active on this host, wherever it was."""
        for other in self.numbers:
            if other != number and self.active(other):
                self.call(other, calls.LvChange(VG, "vm1", "n", disconnect=True))
        self.call(number, calls.LvChange(VG, "vm1", "ey", 10_000))

    def active(self, number: int) -> bool:
        with contextlib.suppress(RingfenceError):
            return any(one["lv"] == "vm1" for one in self.status(number)["exports"])
        return False

    def write_on(self, number: int, tag: str) -> Vm:
        """A writer on this host, once it writes."""
        self.take_volume(number)
        vm = self.stage.start_vm(self.name(number), tag)
        self.stage.let_write(vm, WRITES)
        return vm

    # -- between faults -------------------------------------------------------------------

    def mend(self) -> None:
        """All is as it was: cables, devices, power, services; all are ready, and nothing is left to do.

        A cluster that cannot be mended is ended, so that nobody else stumbles over what is left of it."""
        try:
            self._mend()
        except BaseException:
            self.end()
            raise

    def _mend(self) -> None:
        lab = self.lab
        lab.heal()
        for number in self.numbers:
            self.plug(number, "up")
        self.honest_devices()
        for node in lab.nodes:
            host = lab.status()["hosts"][node]
            if host["power"] != "off":
                lab.thaw(node)
        give_up = time.monotonic() + WELL_S
        while not all(self.ready(one, *(set(self.numbers) - {one})) for one in self.numbers):
            assert time.monotonic() < give_up, self.tell()
            self._revive()
            time.sleep(0.1)
        self.stage.close()
        for vm in self.stage.vms:
            self.stage.stop_vm(vm)
        self.stage = self._new_stage()

    def _revive(self) -> None:
        for node, host in self.lab.status()["hosts"].items():
            if host["power"] == "off":
                self.lab.power(node, "on")
                continue
            for service, state in self.lab.parts(node).items():
                if state == "frozen":
                    with contextlib.suppress(Unavailable):  # its host was fenced meanwhile
                        self.lab.thaw(node, Part(service))

    def tell(self) -> str:
        """What all hosts say, for whoever looks into a failure: in few lines, for logs are cut."""
        said, logged = [], []
        for number in self.numbers:
            try:
                said.append(f"{self.name(number)}: {' | '.join(self.why(number).splitlines())}"[:400])
            except RingfenceError as error:
                said.append(f"{self.name(number)}: {error}")
            lines = (self.lab.root(self.name(number)) / "daemon.log").read_text(errors="replace").splitlines()
            logged += [line[:200] for line in lines if REFUSED not in line][-LOG_LINES:]
        return "\n".join([*said, *logged])


class Asked:
    """A request for the volume that waits for as long as it takes."""

    def __init__(self, cluster: Cluster, number: int, volume: str) -> None:
        vg, lv = volume.split("/")
        self._link = cluster.connected(number)
        self._cluster = cluster
        self._call = calls.LvChange(vg, lv, "ey", None)
        self._thread = _Thread(lambda: self._link.call(self._call, timeout_ms=90_000))

    @property
    def granted(self) -> bool:
        """Raises what the daemon answered."""
        return self._thread.done()

    def close(self) -> None:
        self._link.close()


class _Thread:
    def __init__(self, work: Callable[[], Any]) -> None:
        import threading

        self._error: BaseException | None = None

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def done(self) -> bool:
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True


def eventually(
    true: Callable[[], bool], limit_s: float = 60.0, what: Callable[[], str] = lambda: ""
) -> float:
    """Wait for it; returns how long that took, in seconds.

    what: says what was so instead, if it did not come about."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < limit_s, what()
        time.sleep(0.05)
    return time.monotonic() - began


@contextmanager
def running(nodes: int, transport: str = "knet", timing: Timing = TIMING) -> Iterator[Cluster]:
    """A cluster; nothing is left of it in the end."""
    path = Path(tempfile.mkdtemp(prefix="rffl", dir="/tmp"))
    shared = set(SHARED.iterdir())
    try:
        cluster = Cluster(path, nodes, Ring("corosync", transport=transport), timing)
        cluster.begin()
        try:
            yield cluster
        finally:
            cluster.end()
        eventually(lambda: left(path, shared) == [], what=lambda: str(left(path, shared)))
    finally:
        shutil.rmtree(path, ignore_errors=True)


def left(directory: Path, shared: set[Path]) -> list[str]:
    """What is still there of a lab: processes (they hold namespaces), mounts, corosync's shared memory.

    The latter may be another test's that has just killed a corosync: but not for long."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                if str(directory) in words:
                    found.append(f"process {entry.name}: {words}")
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if str(directory) in line]
    found += [f"interface {name}" for name in os.listdir("/sys/class/net") if name.startswith(("br", "n1."))]
    corosyncs = [path for path in SHARED.glob("qb-corosync-*") if path not in shared]
    # Other corosyncs of this machine may come and go meanwhile: only those of nobody are left behind.
    return found + [str(path) for path in corosyncs if not Path(f"/proc/{path.name.split('-')[2]}").exists()]
