"""ringfence and stock LVM2 side by side, each with hosts and a shared VG of its own."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lvm_disks import Failed, Host, disk_bytes, write_vg
from lvmlockd_servers import VG, real

from ringfence.client import Connection, connect
from ringfence.lab.cluster import Lab
from ringfence.wire import client as calls

PLACE = "/dev/shm"
"""In memory, disks and all: a host's /run, where thousands of sockets are made, is."""


class Ours:
    """Two hosts of a lab, on a loop device with a VG."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._command = str(Path(sys.executable).parent / "ringfence")
        self._envs = [{"PATH": os.environ["PATH"], "LC_ALL": "C", **lab.env(node)} for node in lab.nodes]

    def run(self, *words: str, host: int = 0) -> None:
        """A command on one of the hosts.  Raises Failed."""
        ran = subprocess.run(
            [self._command, *words], env=self._envs[host], check=False, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        if ran.returncode:
            raise Failed(f"ringfence {' '.join(words)}: exit {ran.returncode}: {ran.stderr.strip()}")

    def seconds(self, *words: str) -> float:
        """Raises Failed."""
        began = time.perf_counter()
        self.run(*words)
        return time.perf_counter() - began

    @contextlib.contextmanager
    def daemons(self, each: int = 1) -> Iterator[list[Connection]]:
        """Connections to the first host's daemon, the second's, the first's, …: `each` to each."""
        with contextlib.ExitStack() as stack:
            yield [
                stack.enter_context(connect(str(self._lab.socket(node)), retry_ms=0))
                for node in self._lab.nodes * each
            ]

    def longest_step_ms(self) -> float:
        """For how long an event loop was ever late, of either host."""
        with self.daemons() as daemons:
            return max(daemon.call(calls.Status())["daemon"]["loop_lag_max_ms"] for daemon in daemons)

    def judge(self, directory: Path) -> Host:
        """Stock LVM2 on the first host, to look at what was made; it may exist once."""
        socket = self._lab.env(self._lab.nodes[0])["LVM_LVMLOCKD_SOCKET"]
        return Host(directory, str(self._lab.disk), socket)


@contextlib.contextmanager
def both(lvs: int, hosts: int = 1) -> Iterator[tuple[Ours, list[Host]]]:
    """Ours and stock's, each with a VG of so many LVs, started.

    Args: hosts: of stock's; ours are two."""
    with (
        tempfile.TemporaryDirectory(prefix=f"rfbv{os.getpid()}-", dir=PLACE) as place,
        contextlib.ExitStack() as stack,
    ):
        directory = Path(place)
        stock_place = directory / "stock"
        stock_place.mkdir()
        stock = stack.enter_context(real(stock_place, lvs, hosts))
        lab = Lab.up(directory / "lab", 2, disk_bytes(lvs), loop=True)
        stack.callback(lab.down)
        write_vg(lab.disk, VG, "lab", lvs)
        ours = Ours(lab)
        with ours.daemons() as daemons:
            for daemon in daemons:
                daemon.call(calls.VgChange("lockstart", VG))
                daemon.call(calls.Lvs(VG, "lv0" if lvs else ""))  # each has seen the VG once
        yield ours, stock
