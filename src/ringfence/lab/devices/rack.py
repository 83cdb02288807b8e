"""A rack of simulated devices: starts their processes, and puts each into the condition that its power and
its lie ask for.

A device without power is not there: its process is ended, and what is sent to its port meanwhile is lost,
not kept for later.  `python -m ringfence.lab.devices DIR` is the one of a lab."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ringfence.core.errors import RingfenceError, Unavailable
from ringfence.host.processes import Process, process
from ringfence.lab import trees
from ringfence.lab.devices.kind import Kind, Site
from ringfence.lab.devices.kinds import KINDS
from ringfence.lab.devices.model import BMC, Condition, Simulated, condition, new_password
from ringfence.lab.devices.stand_in import StandIn
from ringfence.lab.logs import last_line

START_S = 60.0
"""pyghmi's and sushy-tools' take a second of CPU to start."""
POLL_S = 0.005


class Rack:
    """
    Args:
        directory: each device's files are below it.
        power: the power switch's socket; it may come later.
        password: of all devices.
    """

    def __init__(self, devices: Sequence[Simulated], directory: Path, power: Path, password: str) -> None:
        self._slots = {one.name: _Slot(one, directory / one.name, power, password) for one in devices}
        self._one_at_a_time = threading.Lock()

    def start(self) -> None:
        """Returns when all answer.  Raises Unavailable: names what does not start; then nothing runs."""
        try:
            for slot in self._slots.values():
                slot.begin(Condition.ANSWERS)
            for slot in self._slots.values():
                slot.wait()
        except BaseException:
            self.close()
            raise

    def follow(self, view: Mapping[str, Mapping[str, Any]]) -> None:
        """What the power switch tells.  Returns when each device is what it is to be.  Raises Unavailable."""
        with self._one_at_a_time:
            changed = [slot for slot in self._slots.values() if slot.follow(view)]
            for slot in changed:
                slot.wait()

    def conditions(self) -> dict[str, str]:
        """Device -> its condition, or "ended": its process did by itself."""
        return {name: slot.told for name, slot in self._slots.items()}

    def close(self) -> None:
        """Nothing of it runs any more.  May be called twice."""
        with self._one_at_a_time:
            for slot in self._slots.values():
                slot.end()


class _Slot:
    """A device's place."""

    def __init__(self, one: Simulated, place: Path, power: Path, password: str) -> None:
        self._one = one
        self._kind: Kind = KINDS[one.kind]
        self._place, self._power, self._password = place, power, password
        self._condition = Condition.CLOSED
        self._process: Process | None = None
        self._stand_in: StandIn | None = None
        place.mkdir(parents=True, exist_ok=True)
        self._kind.show(place, {"psu1": "ok", "psu2": "ok"})

    @property
    def told(self) -> str:
        ended = self._process is not None and not trees.alive(self._process)
        return "ended" if ended else self._condition.value

    def follow(self, view: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether its condition is another now; then `wait` for it."""
        if self._one.device == BMC and self._one.hosts[0] in view:
            self._kind.show(self._place, view[self._one.hosts[0]]["supplies"])
        wanted = condition(self._one, view)
        if wanted is self._condition:
            return False
        self.begin(wanted)
        return True

    def begin(self, wanted: Condition) -> None:
        self.end()
        self._condition = wanted
        if wanted in (Condition.ANSWERS, Condition.REFUSES):
            # One that refuses logins knows another password than it was configured with.
            password = self._password if wanted is Condition.ANSWERS else new_password()
            launch = self._kind.launch(self._one, Site(self._place, self._power, password))
            try:
                self._process = process(trees.spawn(launch.argv, self._log, launch.env))
            except OSError as error:
                raise Unavailable(f"{self._one.name} does not start: {error.strerror}") from None
        elif wanted is not Condition.CLOSED:
            garble = wanted is Condition.GARBLED
            self._stand_in = StandIn(self._one.address, self._one.port, self._kind.udp, garble)

    def wait(self) -> None:
        """Until its port is open, if it is to be."""
        give_up = time.monotonic() + START_S
        while self._process is not None and not listens(self._process, self._one, self._kind.udp):
            if not trees.alive(self._process) or time.monotonic() > give_up:
                raise Unavailable(
                    f"{self._one.name} ({self._one.kind}) does not start: {last_line(self._log)}",
                    next=f"see {self._place}",
                )
            time.sleep(POLL_S)

    def end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(RingfenceError):
                trees.kill(self._process)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._process.pid, 0)
            self._process = None
        if self._stand_in is not None:
            self._stand_in.close()
            self._stand_in = None
        self._condition = Condition.CLOSED

    @property
    def _log(self) -> Path:
        return self._place / "log"


def listens(simulator: Process, one: Simulated, udp: bool) -> bool:
    """Whether this process has the device's port, as the kernel tells it; another's would answer for it."""
    where = f"{socket.inet_aton(one.address)[::-1].hex().upper()}:{one.port:04X}"
    table = Path("/proc/thread-self/net/udp" if udp else "/proc/thread-self/net/tcp").read_text()
    listening = "07" if udp else "0A"
    rows = [row.split() for row in table.splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == where and row[3] == listening}
    return bool(sockets) and not sockets.isdisjoint(_open_files(simulator.pid))


def _open_files(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for file in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(file.path))
    return found


def end_strays(directory: Path) -> None:
    """End the devices of a rack that was itself killed: all that names its directory."""
    inside = os.fsencode(directory) + b"/"
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        found = process(pid)
        if found is not None and pid != os.getpid():
            with contextlib.suppress(OSError):
                if inside in Path(f"/proc/{pid}/cmdline").read_bytes():
                    trees.send(found, signal.SIGKILL)
