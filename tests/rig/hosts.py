"""Two guests as a ringfence cluster on corosync, with shared disks, and what is asked of them."""

import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from build import Images
from guest import Failed, Guest, Ran

from ringfence.config import parse
from ringfence.config.corosync_conf import Options, render_corosync

PROJECT = Path(__file__).parents[2]
SITE = "/proj/.venv/lib/python3.11/site-packages"
"""Debian 12's Python is the project's own least one, so that its wheels serve both."""
ENVIRONMENT = {
    "PYTHONPATH": f"/proj/src:{SITE}", "PYTHONDONTWRITEBYTECODE": "1",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
}  # fmt: skip
MIB = 1 << 20
DISK_BYTES = 1024 * MIB
FILLED_BYTES = 256 * MIB
DISKS = ("/dev/vdb", "/dev/vdc")
NODES = ("g1", "g2")

# A time-out of under some seconds would be the emulation's.  The detection time (2.2 x token) is longer than
# the write authority, so that a peer that stands still for a moment makes this host's authority lapse and
# come back, and nobody a victim.
CONFIG = """
[cluster]
name = "rig"
ring = "corosync"
two_node = true
[timing]
heartbeat_ms = 500
token_ms = 5000
grant_ms = 3500
write_ms = 4000
silent_ms = 9000
hold_ms = 120000
grace_ms = 90000
post_join_delay_ms = 60000
fence_test_ms = 0
[devices]
paths = ["/dev/vdb", "/dev/vdc"]
[block]
plane = "dm"
[node.g1]
id = 1
addresses = ["10.0.0.1"]
fence = "manual"
[node.g2]
id = 2
addresses = ["10.0.0.2"]
fence = "manual"
"""
LVM_CONF = """
devices { use_devicesfile = 0
 global_filter = [ "a|^/dev/vd[bc]$|", "r|.*|" ]
 obtain_device_list_from_udev = 0
 external_device_info_source = "none"
 hints = "none"
 scan_lvs = 0 }
global { use_lvmlockd = 1
 use_lvmpolld = 0
 event_activation = 0
 notify_dbus = 0 }
activation { udev_sync = 0
 udev_rules = 0
 monitoring = 0 }
backup { backup = 0
 archive = 0 }
"""


class Host:
    """A guest that runs corosync, the block service and the daemon."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.name = guest.name
        self.daemon = 0
        """Its pid inside."""

    def start(self) -> None:
        guest = self.guest
        guest.wait_ready()
        guest.write("/etc/machine-id", f"{guest.number:032x}\n", "644")
        guest.write("/etc/ringfence/ringfence.toml", CONFIG)
        options = Options("udpu", encrypted=False)
        guest.write("/etc/corosync/corosync.conf", render_corosync(parse(CONFIG).cluster, options))
        guest.write("/etc/lvm/lvm.conf", LVM_CONF)
        guest.run("mkdir", "-p", "/var/lib/corosync", "/var/lib/ringfence", "/run/lvm")
        guest.run("sh", "-c", "printf '10.0.0.1 g1\\n10.0.0.2 g2\\n' >> /etc/hosts")
        self.spawn("corosync", "-f", log="/run/corosync.log")
        self.spawn("python3", "-m", "ringfence", "block", log="/run/block.log")
        time.sleep(1)
        self.start_daemon()

    def start_daemon(self) -> None:
        self.run("rm", "-f", "/run/daemon.log")
        words = ("python3", "-m", "ringfence", "daemon", "--node", self.name)
        self.daemon = self.spawn(*words, log="/run/daemon.log")

    def spawn(self, *words: str, log: str) -> int:
        return self.guest.spawn(*words, log=log, env=ENVIRONMENT)

    def run(self, *words: str, limit_s: float = 90, check: bool = True) -> Ran:
        return self.guest.run(*words, env=ENVIRONMENT, limit_s=limit_s, check=check)

    def ringfence(self, *words: str, limit_s: float = 90, check: bool = True) -> Ran:
        return self.run("python3", "-m", "ringfence", *words, limit_s=limit_s, check=check)

    def json(self, *words: str) -> Any:
        return json.loads(self.ringfence(*words, "--json").out)

    def stock(self, *words: str, check: bool = True) -> Ran:
        return self.run("lvm", *words, check=check)

    def joined(self) -> bool:
        """By its log: to ask it would cost a second of emulated time."""
        log = self.run("cat", "/run/daemon.log", check=False).out
        return all(f"{name} joined as" in log for name in NODES)

    def boottime(self) -> float:
        return float(self.run("cut", "-d ", "-f1", "/proc/uptime").out)

    def mapper(self, *names: str) -> tuple[str, ...]:
        """Of each device: "Active" or "Suspended" and what its table is made of; empty if it is not there."""
        words = ("dmsetup", "info", "-c", "--noheadings", "--separator", "=", "-o", "name,suspended")
        info = self.run(*words).out
        state = dict(line.strip().split("=") for line in info.splitlines() if "=" in line)
        tables = [line.split() for line in self.run("dmsetup", "table").out.splitlines()]
        kind = {words[0].rstrip(":"): words[3] for words in tables if len(words) > 3}
        return tuple(f"{state[name]} {kind[name]}" if name in kind else "" for name in names)

    def suspended(self, *names: str) -> bool:
        """All of them.  One process: it is asked in a hurry."""
        words = ("dmsetup", "info", "-c", "--noheadings", "-o", "suspended", *names)
        return self.run(*words).out.split() == ["Suspended"] * len(names)

    def writes(self, path: str) -> list[tuple[float, float, int]]:
        """A writer's log: (began, ended, errno)."""
        lines = self.run("cat", path).out.splitlines()
        rows = [line.split() for line in lines if line.count(" ") == 2]
        return [(float(began), float(ended), int(error)) for began, ended, error in rows]

    def logs(self) -> str:
        """The ends of what it said."""
        words = "for one in corosync block daemon; do echo == $one; tail -n 25 /run/$one.log; done"
        return self.run("sh", "-c", words, check=False).out


@contextlib.contextmanager
def cluster(images: Images) -> Iterator[tuple[Host, Host]]:
    """Two hosts that are one cluster."""
    room = Path(tempfile.mkdtemp(prefix="rig", dir="/tmp"))
    disks = [room / "disk1", room / "disk2"]
    for disk in disks:
        with disk.open("wb") as file:  # what was never written costs the host nothing to read
            for _ in range(FILLED_BYTES // MIB):
                file.write(os.urandom(MIB))
            os.truncate(file.fileno(), DISK_BYTES)
    port = _free_port()
    networks = (f"socket,listen=127.0.0.1:{port}", f"socket,connect=127.0.0.1:{port}")
    guests: list[Guest] = []
    try:
        for number, network in enumerate(networks, 1):
            guests.append(Guest(number, images, PROJECT, room, disks, network))
            time.sleep(0.5)  # whoever listens comes first
        hosts = Host(guests[0]), Host(guests[1])
        for host in hosts:
            host.start()
        for host in hosts:
            eventually(host.joined, 300, host.logs)
        yield hosts
    finally:
        for guest in guests:
            guest.close()
        shutil.rmtree(room, ignore_errors=True)


@contextlib.contextmanager
def counted(images: Images) -> Iterator[Guest]:
    """A guest by itself, whose clock counts instructions."""
    room = Path(tempfile.mkdtemp(prefix="rig", dir="/tmp"))
    guest = Guest(3, images, PROJECT, room, (), "hubport,hubid=0", counted=True)
    try:
        guest.wait_ready()
        yield guest
    finally:
        guest.close()
        shutil.rmtree(room, ignore_errors=True)


def eventually(true: Callable[[], bool], within_s: float, why: Callable[[], str] = str) -> float:
    """Look again until it is so; how long that took, s."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > within_s:
            raise Failed(f"it never came about: {why()}")
        time.sleep(0.5)
    return time.monotonic() - began


def after_longest_gap(writes: Sequence[tuple[float, float, int]]) -> tuple[float, int, int]:
    """(length of the longest pause between two writes' ends, s; successes after it; failures after it)."""
    gaps = [(writes[at + 1][1] - writes[at][1], at + 1) for at in range(len(writes) - 1)]
    length, first = max(gaps)
    later = writes[first:]
    return length, sum(not one[2] for one in later), sum(bool(one[2]) for one in later)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
