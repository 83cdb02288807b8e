"""A torture client that writes: `python -m ringfence.lab.torture.vm ROOT LOGS CLIENT NODE SEED LV`.

It activates its LV exclusively, writes stamped blocks to it for a while (`lab.workload`), each stint
under a tag and with a log of its own, and deactivates it.  One such client a host and LV, so that every
LV has somebody who writes and others who wait.

SIGTERM: the stint ends, and the client when what it asked for is answered."""

import contextlib
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from ringfence.client import Connection, connect
from ringfence.config import Paths
from ringfence.core.errors import LockHeld, RingfenceError, TimedOut
from ringfence.host.clock import boottime_ns
from ringfence.lab.nbd_client import NbdClient, parse_uri
from ringfence.lab.torture.history import (
    Asked,
    Granted,
    HistoryWriter,
    Lost,
    Refused,
    Released,
    Releasing,
    Started,
)
from ringfence.lab.torture.names import LV_SPACE, SLOTS, VG
from ringfence.lab.workload import Stop, Writer
from ringfence.wire import client as calls

STINTS = (40, 500)
"""Writes.  Not a time: a VM that was frozen does not end when it thaws, it writes on."""
WRITES_PER_S = 80.0
GONE_S = 3
"""How long a volume may be away before the client gives it up."""
WAITS_MS = (None, None, None, 0, 3000)
AWAY_S = 0.2
REST_S = 0.1
"""Between two stints: little, so that whatever is hit is in the middle of one."""


class Vm:
    def __init__(self, root: Path, logs: Path, client: str, node: str, seed: int, lv: str) -> None:
        self._paths = Paths(root)
        self._logs = logs
        self._client = client
        self._lv = lv
        self._rng = random.Random(seed)
        self._history = HistoryWriter(logs / f"{client}.jsonl")
        self._history.append(Started(client, node, boottime_ns()))
        self._ops = 0
        self._writing: Path | None = None
        """The volume's socket, in the middle of a stint."""
        self._gone_s = 0
        self.stopping = False

    def stop(self) -> None:
        """From a signal handler.  Raises Stop in the middle of a stint."""
        self.stopping = True
        if self._writing is not None:
            raise Stop

    def look(self) -> None:
        """From a signal handler, every second.  Raises Stop if the volume was closed under the stint."""
        if self._writing is not None:
            self._gone_s = 0 if self._writing.exists() else self._gone_s + 1
            if self._gone_s >= GONE_S:
                raise Stop

    def run(self) -> None:
        while not self.stopping:
            try:
                with connect(self._paths.socket, retry_ms=0) as daemon:
                    self._tidy(daemon)
                    while not self.stopping:
                        self._stint(daemon)
                        time.sleep(self._rng.uniform(0, REST_S))
            except RingfenceError:
                time.sleep(AWAY_S)

    def _tidy(self, daemon: Connection) -> None:
        """What an earlier client of this host left open is nobody's."""
        with contextlib.suppress(RingfenceError):
            daemon.call(calls.LvChange(VG, self._lv, "n", 0, disconnect=True))

    def _stint(self, daemon: Connection) -> None:
        """Raises RingfenceError."""
        self._ops += 1
        op, lv, wait_ms = self._ops, self._lv, self._rng.choice(WAITS_MS)
        self._history.append(Asked(op, LV_SPACE, lv, "EX", wait_ms, boottime_ns()))
        try:
            daemon.call(calls.LvChange(VG, lv, "ey", wait_ms))
            uri, token = _opened(daemon, lv)
        except RingfenceError as error:
            self._history.append(Refused(op, error.code, boottime_ns()))
            if isinstance(error, LockHeld | TimedOut):
                return
            with contextlib.suppress(RingfenceError):
                daemon.call(calls.LvChange(VG, lv, "n", 0, disconnect=True))
            raise
        self._history.append(Granted(op, "EX", token, boottime_ns()))
        self._write(uri, token, f"{self._client}.{op}")
        self._history.append(Releasing(op, boottime_ns()))
        try:
            daemon.call(calls.LvChange(VG, lv, "n", 0, disconnect=True))
        except RingfenceError as error:
            self._history.append(Lost(op, error.code, boottime_ns()))
            raise
        self._history.append(Released(op, boottime_ns()))

    def _write(self, uri: str, token: str, tag: str) -> None:
        log = self._logs / "writes" / f"{self._lv}.{tag}.jsonl"
        writer = Writer(lambda: NbdClient(uri), log, tag, token, SLOTS, rate=WRITES_PER_S)
        with contextlib.suppress(Stop):
            try:
                self._gone_s, self._writing = 0, Path(parse_uri(uri)[0])
                if not self.stopping:
                    writer.run(self._rng.randint(*STINTS))
            finally:
                self._writing = None


def _opened(daemon: Connection, lv: str) -> tuple[str, str]:
    """(URI, token) of an LV that is open here.  Raises RingfenceError: it is not, any more."""
    for one in daemon.status()["exports"]:
        if (one["vg"], one["lv"]) == (VG, lv):
            for lock in daemon.locks(LV_SPACE)["clients"]:
                if lock["resource"] == one["uuid"] and lock["mode"] == "EX" and lock["token"]:
                    return str(one["uri"]), str(lock["token"])
    raise RingfenceError(f"{VG}/{lv} is not open here any more", retry=True)


def main(root: str, logs: str, client: str, node: str, seed: str, lv: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # whose history begins can be asked to end
    vm = Vm(Path(root), Path(logs), client, node, int(seed), lv)

    def stop(number: int, frame: FrameType | None) -> None:
        vm.stop()

    def look(number: int, frame: FrameType | None) -> None:
        vm.look()

    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
    vm.run()
    signal.setitimer(signal.ITIMER_REAL, 0)  # its handler goes before the interpreter does


if __name__ == "__main__":
    main(*sys.argv[1:])
