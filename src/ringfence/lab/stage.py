"""One lab with a shared VG and an LV in it, and the "VMs" that write to that LV.

What the demo's acts (and the tests of whole clusters) do with a lab: type commands, start and stop
writers in a host's own process tree, take the volume over, and judge what became of every write."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ringfence.client import Connection, connect
from ringfence.core.errors import RingfenceError, TimedOut
from ringfence.host.clock import boottime_ns
from ringfence.lab import stamps
from ringfence.lab.cluster import Lab
from ringfence.lab.demo_report import Timeline, timeline
from ringfence.lab.judge import Foreign, Verdict, judge_files
from ringfence.lab.nbd_client import NbdClient
from ringfence.lab.stamps import Acknowledged, Failed
from ringfence.lab.teller import Teller

VG, LV = "vg0", "vm1"
VOLUME = f"{VG}/{LV}"
LOCKSPACE = f"lvm_{VG}"
WRITES_PER_S = 400
POLL_S = 0.02
TAKE_OVER_S = 90.0
"""Stock agents take their time to give a device up."""
TOLD = (
    "victim", "attempt", "attempt-ended", "evidence", "purged", "lockspace-runs", "fence-lied", "joined",
)  # fmt: skip
"""Kinds of events that belong into the story."""


class Vm(msgspec.Struct):
    """A writer that was started on a host."""

    tag: str
    node: str
    log: Path
    pid: int
    seen_bytes: int = 0
    acknowledged: int = 0
    """As far as the log was read."""
    refused: int = 0
    unread: bytes = b""


class Stage:
    def __init__(self, lab: Lab, teller: Teller, directory: Path) -> None:
        self.lab = lab
        self.teller = teller
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._daemons: dict[str, Connection] = {}
        self.vms: list[Vm] = []
        """In the order in which they took the volume over."""

    def close(self) -> None:
        for daemon in self._daemons.values():
            daemon.close()
        self._daemons = {}

    # -- commands ---------------------------------------------------------------------

    def daemon(self, node: str) -> Connection:
        if node not in self._daemons:
            self._daemons[node] = connect(self.lab.socket(node), retry_ms=5000)
        return self._daemons[node]

    def type(self, node: str, *words: str, may_fail: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a `ringfence` command against a host, and show it.

        Raises RingfenceError if it fails and may not."""
        done = subprocess.run(
            _ringfence(words), env=self._env(node), text=True, capture_output=True, timeout=60, check=False
        )
        lines = (done.stdout + done.stderr).rstrip().splitlines()
        shown = " ".join(words).replace(str(self.lab.disk), "disk.img")
        self.teller.command(
            node,
            f"ringfence {shown}",
            self._shown(lines),
            done.returncode,
        )
        if done.returncode and not may_fail:
            raise RingfenceError(
                f"ringfence {' '.join(words)} failed on {node}", next=f"see {self.lab.disk.parent}"
            )
        return done

    def _shown(self, lines: list[str]) -> list[str]:
        """Less one indentation, and without the lab's own directory."""
        return [line.removeprefix("  ").replace(str(self.lab.disk.parent), "…") for line in lines]

    def _env(self, node: str) -> dict[str, str]:
        return {**os.environ, **self.lab.env(node), "COLUMNS": "200"}

    # -- the volume ---------------------------------------------------------------------

    def make_volume(self, node: str, size: str) -> None:
        """A shared VG on the disk, and an LV in it that `node` has active."""
        self.type(node, "vgcreate", "--shared", VG, str(self.lab.disk))
        self.type(node, "lvcreate", "-L", size, "-n", LV, VG)

    def uri(self, node: str) -> str:
        """Where the volume is open on a host.  Raises RingfenceError if it is not."""
        for one in self.daemon(node).status()["exports"]:
            if (one["vg"], one["lv"]) == (VG, LV):
                return str(one["uri"])
        raise RingfenceError(f"{VOLUME} is not open on {node}", next="ringfence lvchange -aey")

    def token(self, node: str) -> str:
        """The fencing token of the volume's lock as `node` holds it; "" if it does not."""
        held = [
            str(lock["token"])
            for lock in self.daemon(node).locks(LOCKSPACE)["locks"]
            if lock["name"] == node and lock["mode"] == "EX" and lock["resource"] not in ("VGLK", "GLLK")
        ]
        return held[0] if held else ""

    def incidents(self, node: str) -> list[dict[str, Any]]:
        return list(self.daemon(node).status()["incidents"])

    # -- writers --------------------------------------------------------------------------

    def start_vm(self, node: str, tag: str) -> Vm:
        """Start a writer in the host's own tree: what happens to the host happens to it."""
        log = self._directory / f"{tag}.log"
        argv = [
            sys.executable, "-m", "ringfence.lab.workload", "write", "--uri", self.uri(node),
            "--log", str(log), "--tag", tag, "--token", self.token(node), "--rate", str(WRITES_PER_S),
        ]  # fmt: skip
        pid = self.lab.spawn(node, argv, self._directory / f"{tag}.out")
        vm = Vm(tag, node, log, pid)
        self.vms.append(vm)
        return vm

    def stop_vm(self, vm: Vm) -> None:
        """End the writer, if it lives, and wait for that."""
        if self.lab.alive(vm.node, vm.pid):
            os.kill(vm.pid, signal.SIGTERM)
        self.until(f"the writer {vm.tag} ends", lambda: not self.lab.alive(vm.node, vm.pid), 60)

    def look(self, vm: Vm) -> Vm:
        """Read on in its log."""
        with vm.log.open("rb") if vm.log.exists() else open(os.devnull, "rb") as file:
            file.seek(vm.seen_bytes)
            data = file.read()
        vm.seen_bytes += len(data)
        whole, newline, vm.unread = (vm.unread + data).rpartition(b"\n")
        for line in filter(None, (whole + newline).splitlines()):
            record = msgspec.json.decode(line, type=stamps.Record)
            if isinstance(record, Acknowledged):
                vm.acknowledged += 1
            elif isinstance(record, Failed) and record.errno:
                vm.refused += 1
        return vm

    def let_write(self, vm: Vm, count: int) -> None:
        """Wait until it has so many more acknowledged writes."""
        goal = self.look(vm).acknowledged + count
        self.until(f"{vm.tag} writes to {VOLUME}", lambda: self.look(vm).acknowledged >= goal, 60)

    def judge(self, reader: str) -> Verdict:
        """What became of all writes, read through the volume as it is open on `reader`."""
        slots = _geometry(self.vms[0].log)
        with NbdClient(self.uri(reader), timeout_s=30) as client:
            final = stamps.snapshot(client.read, *slots)
        return judge_files([vm.log for vm in self.vms], final)

    # -- failures -----------------------------------------------------------------------------

    def take_over(self, survivor: str, lost: str) -> Timeline:
        """Freeze `lost`, let `survivor` queue for the volume, and tell what happens until it has it."""
        daemon = self.daemon(survivor)
        since = _newest(daemon)
        frozen_ns = boottime_ns()
        self.lab.freeze(lost)
        self.teller.say(f"{lost} is frozen: every process of it has stopped (SIGSTOP)")
        words = ("lvchange", "-aey", "--wait", "forever", VOLUME)
        self.teller.command(survivor, f"ringfence {' '.join(words)} &", [])
        asked = subprocess.Popen(
            _ringfence(words), env=self._env(survivor), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            told = _Events(self, survivor, since, why=True)
            what = f"{survivor} gets {VOLUME}"
            self.until(what, lambda: told.look() or asked.poll() is not None, TAKE_OVER_S)
            granted_ns = boottime_ns()
            output = asked.communicate(timeout=10)[0]
        finally:
            if asked.poll() is None:
                asked.kill()
                asked.wait()
        told.look()
        if asked.returncode:
            raise RingfenceError(f"{survivor} did not get {VOLUME}: {output.strip()}")
        self.teller.command(
            survivor, f"# {' '.join(words[:2])} is done", self._shown(output.rstrip().splitlines())
        )
        number = next(one["node"] for one in daemon.status()["members"] if one["name"] == lost)
        return timeline(told.all, number, frozen_ns, granted_ns)

    def watch(self, node: str) -> "_Events":
        """Tell what `node` records from now on, at each `look`."""
        return _Events(self, node, _newest(self.daemon(node)), why=False)

    def until(self, what: str, true: Callable[[], bool], limit_s: float) -> None:
        """Raises TimedOut."""
        give_up = time.monotonic() + limit_s
        while not true():
            if time.monotonic() > give_up:
                raise TimedOut(f"not seen within {limit_s:g} s: {what}", next=f"see {self._directory.parent}")
            time.sleep(POLL_S)


class _Events:
    """A host's new events, told as they come."""

    def __init__(self, stage: Stage, node: str, since: int, why: bool) -> None:
        self._stage = stage
        self._node = node
        self._since = since
        self._why = why
        self.all: list[dict[str, Any]] = []

    def look(self) -> bool:
        """Tell what is new.  Always False, so that it can stand in an `or`."""
        for event in self._stage.daemon(self._node).events(since=self._since):
            self._since = max(self._since, int(event["seq"]))
            self.all.append(event)
            if event["kind"] in TOLD:
                self._stage.teller.happened(event["kind"], event["what"])
            if self._why and event["kind"] == "attempt":
                self._why = False
                lines = self._stage.daemon(self._node).why(VOLUME)["lines"]
                self._stage.teller.command(self._node, f"ringfence why {VOLUME}", lines)
        return False

    def kinds(self) -> list[str]:
        return [str(event["kind"]) for event in self.all]


def reported(block: Foreign, incidents: list[dict[str, Any]]) -> bool:
    """Whether an incident of a write that landed late names the volume and a range that covers the block.

    (A refused write has not landed: its range explains no block.)"""
    end = block.offset_bytes + block.length_bytes
    return any(
        one.get("kind") == "write-late"
        and one.get("volume") == VOLUME
        and int(one["offset_bytes"]) <= block.offset_bytes
        and end <= int(one["offset_bytes"]) + int(one["length_bytes"])
        for one in incidents
    )


def newer(first: str, second: str) -> bool:
    """Whether token `second` is the greater one: seq.rep.position, by their parts."""
    parts = [tuple(int(part) for part in re.findall(r"\d+", token)) for token in (first, second)]
    return all(len(one) == 3 for one in parts) and parts[1] > parts[0]


def _ringfence(words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "ringfence", *words]


def _newest(daemon: Connection) -> int:
    newest = 0
    while page := [int(event["seq"]) for event in daemon.events(since=newest)]:
        newest = max(page)
    return newest


def _geometry(log: Path) -> tuple[int, int]:
    """(slots, block size in bytes) of a writer."""
    started = next(one for one in stamps.read_log(log) if isinstance(one, stamps.Started))
    return started.slots, started.block_bytes
