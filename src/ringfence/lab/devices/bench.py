"""Devices without a lab: hosts that are plain child processes, a power switch, and a rack, all in one `with`.

For tests of what real agents do, and of what is made of their words."""

import contextlib
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ringfence.core.cluster import Confirms, DeviceConfig
from ringfence.host.processes import Process, process
from ringfence.lab import trees
from ringfence.lab.devices.kinds import KINDS, devices_of
from ringfence.lab.devices.model import PDUS
from ringfence.lab.devices.rack import Rack
from ringfence.lab.layout import DEVICES
from ringfence.lab.lies import Lie
from ringfence.lab.line_socket import LineServer
from ringfence.lab.power import PowerSwitch

LOOPBACK = "127.0.0.1"
PASSWORD = "bench-secret-0"
"""Of all devices; SNMPv3 wants eight characters."""
_HOST = "import os, time; os.fork(); time.sleep(86400)"
"""More than one process, for power takes all of them."""


class Bench:
    """`with Bench(directory, ["ipmi", "apc-snmp"], ["n1", "n2"]) as bench: …`: hosts run, devices answer.

    Args:
        kinds: of `KINDS`; of the BMC's a device for each host, of the PDU's two, one for each supply; more
            than one of each sort is possible here.
        together: kinds of BMC of which there is only one device, for all hosts (a Redfish service).

    Raises Unavailable."""

    def __init__(
        self, directory: Path, kinds: Sequence[str], hosts: Sequence[str], together: Collection[str] = ()
    ) -> None:
        self.dir, self.hosts = directory, tuple(hosts)
        for name in kinds:
            KINDS[name].check()
        self.devices = {one.name: one for one in devices_of(kinds, self.hosts, LOOPBACK, together)}
        self._rack = Rack(list(self.devices.values()), directory, directory / "power", PASSWORD)
        self._sleepers = _Sleepers()
        self.power = PowerSwitch(
            self.hosts, self._sleepers, lies=dict.fromkeys(DEVICES, frozenset(Lie)), shared=PDUS,
            tell=self._rack.follow,
        )  # fmt: skip
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "Bench":
        with contextlib.ExitStack() as stack:
            server = LineServer(self.dir / "power", self.power.asked)
            stack.callback(self._sleepers.bury)
            stack.callback(server.close)
            stack.callback(self._rack.close)
            stack.callback(self.power.stop)
            self._rack.start()
            self.power.boot_all()
            self._closing = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    # -- what is true ---------------------------------------------------------------------------

    def host(self, name: str) -> dict[str, object]:
        """As `lab status` has it."""
        told = self.power.asked({"order": "status"})
        assert told is not None
        found: dict[str, object] = told["hosts"][name]
        return found

    def process(self, name: str) -> Process | None:
        """The host's first process, if it runs."""
        init = self.host(name)["init"]
        return Process(*init) if isinstance(init, list) else None

    def runs(self, name: str) -> bool:
        one = self.process(name)
        return one is not None and trees.alive(one)

    # -- what is done by hand ---------------------------------------------------------------------

    def lie(self, host: str, device: str, mode: str, delay_s: float = 3.0) -> None:
        """Args:
            device: "bmc", "pdu-a", "pdu-b", or "pdu" for both.
            mode: of `lies.Lie`.

        Raises RingfenceError."""
        self.power.asked({"order": "lie", "node": host, "device": device, "mode": mode, "delay_s": delay_s})

    def switch(self, host: str, to: str) -> None:
        """"on" or "off", by hand: chassis and outlets."""
        self.power.asked({"order": "power", "node": host, "to": to})

    def plug(self, host: str, supply: str, pdu: str, outlet: str) -> None:
        """Move the cable of supply "psu1" or "psu2" to the outlet of another host, or of the other PDU."""
        self.power.asked({"order": "plug", "node": host, "supply": supply, "pdu": pdu, "outlet": outlet})

    def conditions(self) -> dict[str, str]:
        """Device -> "answers", or why not."""
        return self._rack.conditions()

    @property
    def orders(self) -> list[tuple[str, str, str]]:
        """(host, device, action) that devices were given so far."""
        return list(self.power.orders)

    # -- how agents are told of it --------------------------------------------------------------------

    def config(self, device: str, parameters: Mapping[str, str] = MappingProxyType({})) -> DeviceConfig:
        """As a cluster's configuration has it; secrets apart.

        Args:
            device: "bmc-n1", "pdu-a".
            parameters: over those of its kind; a PDU needs a "plug" (`plug_of`)."""
        one = self.devices[device]
        kind = KINDS[one.kind]
        return DeviceConfig(
            device, kind.agent, Confirms.HOST_OFF if kind.bmc else Confirms.OUTLET_OFF,
            {**kind.parameters(one), **parameters}, own_supply=not kind.bmc,
        )  # fmt: skip

    def secrets(self, device: str) -> dict[str, str]:
        return KINDS[self.devices[device].kind].secrets(PASSWORD)


class _Sleepers:
    """Hosts that do nothing."""

    def __init__(self) -> None:
        self._booted: list[int] = []

    def boot(self, host: str) -> Process | None:
        self.bury()
        pid = trees.spawn([sys.executable, "-I", "-S", "-c", _HOST], Path(os.devnull))
        self._booted.append(pid)
        return process(pid)

    def end_strays(self, inits: Sequence[Process]) -> None:
        """What one of them leaves is not known to be its: nobody ends them but the switch."""

    def bury(self) -> None:
        """Those that have ended."""
        self._booted = [pid for pid in self._booted if not _buried(pid)]


def _buried(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
