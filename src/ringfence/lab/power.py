"""A power switch: what feeds hosts, and what their fence devices say of it, which may be a lie.

A host runs while its chassis is on and one of its two supplies has power.  A supply hangs by a cable on an
outlet of a PDU.  Its BMC switches the chassis and has power while one supply has; a PDU switches outlets.
Off ends all that the host runs; on is a new boot.

`python -m ringfence.lab.power DIR` is the one of a lab: the parent of every host's init, which it buries."""

import contextlib
import hmac
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import msgspec

from ringfence.core.errors import BadInput, RingfenceError
from ringfence.host.processes import Process
from ringfence.lab import trees
from ringfence.lab.devices.kinds import lies_of
from ringfence.lab.devices.model import BMC, PDUS
from ringfence.lab.layout import DEVICES, Layout, device_names
from ringfence.lab.lies import DELAY_S, OF_THE_LINE, PLAIN, Lie
from ringfence.lab.line_socket import Json, LineServer, ask
from ringfence.lab.machines import LabMachines, bury

ORDERS_KEPT = 1000
TELL_S = 40.0
"""How long simulated devices may take to become what they are to be."""


class Machines(Protocol):
    """What the power switch feeds."""

    def boot(self, host: str) -> Process | None:
        """None: it ended at once."""

    def end_strays(self, inits: Sequence[Process]) -> None:
        """Of a host whose init has ended by itself; `inits` are the others'."""


class Claim(msgspec.Struct):
    """What a device says for a while, or for ever, instead of the truth."""

    says: str
    until_s: float = math.inf
    """time.monotonic()."""
    pending: bool = False
    once: bool = False


class Host(msgspec.Struct):
    name: str
    cables: dict[str, tuple[str, str]]
    """Supply -> (PDU, the host whose outlet there it hangs on)."""
    chassis: bool = True
    outlets: dict[str, bool] = msgspec.field(default_factory=lambda: dict.fromkeys(PDUS, True))
    """PDU -> whether the outlet there that bears this host's name is on."""
    lies: dict[str, Lie] = msgspec.field(default_factory=lambda: dict.fromkeys(DEVICES, Lie.NONE))
    delays_s: dict[str, float] = {}
    claims: dict[str, Claim] = {}
    """Device -> what it says."""
    init: Process | None = None
    frozen: bool = False
    boots: int = 0


class PowerSwitch:
    """
    Args:
        hosts: in the order of their numbers.
        password: of devices that are asked through `asked` directly (the lab's own agents).
        lies: device -> the modes that it can be set to.
        shared: PDUs that are one device for all hosts: out of reach for all of them, or for none.
        tell: called with {host: {fed, supplies, lies}} after each change of these, before anybody is
            told of it; whoever plays a device that the change takes the power from falls silent here.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        machines: Machines,
        password: str = "",
        lies: Mapping[str, Collection[Lie]] = MappingProxyType({}),
        shared: Collection[str] = (),
        tell: Callable[[Json], None] = lambda view: None,
    ) -> None:
        self._hosts = {
            name: Host(name, {f"psu{number}": (pdu, name) for number, pdu in enumerate(PDUS, 1)})
            for name in hosts
        }
        self._machines = machines
        self._password = password
        self._lies = {device: frozenset(lies.get(device, PLAIN)) for device in DEVICES}
        self._shared = shared
        self._tell = tell
        self._told: Json = self._view()
        self._one_at_a_time = threading.RLock()
        """Orders are short; a device that hangs waits outside of it."""
        self.orders: deque[tuple[str, str, str]] = deque(maxlen=ORDERS_KEPT)
        """(host, device, action) that devices were given, the newest last."""
        self.over = threading.Event()

    # -- what is asked --------------------------------------------------------------------

    def asked(self, request: Json) -> Json | None:
        """Raises RingfenceError."""
        if "device" in request and "password" in request:
            return self._agent(request)
        order = request["order"]
        with self._one_at_a_time:
            self.end_crashed()
            if order == "status":
                return {"hosts": {host.name: self._report(host) for host in self._hosts.values()}}
            if order == "stop":
                self.stop()
                return {}
            host = self._host(request["node"])
            if order == "device":  # a simulated device, which has looked at the credentials itself
                return self._serve(host, request["device"], request["action"])
            if order == "freeze" and host.init is not None:
                trees.freeze(host.init)
                host.frozen = True
            elif order == "thaw" and host.init is not None:
                trees.thaw(host.init)
                host.frozen = False
            elif order == "power":
                self._switch(host, request["to"])
            elif order == "lie":
                self._lie(host, request["device"], request["mode"], float(request.get("delay_s", DELAY_S)))
            elif order == "plug":
                self._plug(host, request["supply"], request["pdu"], self._host(request["outlet"]))
            else:
                state = "has crashed" if self._on(host) else "is off"
                what = f"{host.name} {state}: there is nothing to {order}"
                raise BadInput(what, next=f"ringfence lab power {host.name} on")
            return self._report(host)

    def stop(self) -> None:
        """All hosts are off, and stay so."""
        with self._one_at_a_time:
            for host in self._hosts.values():
                host.chassis = False
                self._obey(host)
            self.over.set()

    def _switch(self, host: Host, to: str) -> None:
        """By hand: everything off, or everything on."""
        host.chassis = to == "on"
        if to == "on":
            host.claims = {}
            for pdu, owner in host.cables.values():
                self._hosts[owner].outlets[pdu] = True
            self._obey_all()
        self._obey(host)

    def _lie(self, host: Host, device: str, mode: str, delay_s: float) -> None:
        try:
            lie = Lie(mode)
        except ValueError:
            known = ", ".join(one.value for one in Lie)
            raise BadInput(f"{mode!r} is no way to lie", next=f"one of {known}") from None
        names = device_names(device)
        for name in names:
            if lie not in self._lies[name]:
                able = ", ".join(one.value for one in Lie if one in self._lies[name])
                raise BadInput(f"the {name} of this lab cannot lie by {mode}", next=f"one of {able}")
        for name in names:
            for one in self._hosts.values() if name in self._shared else ():
                if lie in OF_THE_LINE:
                    one.lies[name] = lie
                elif one.lies[name] in OF_THE_LINE:
                    one.lies[name] = Lie.NONE
            host.lies[name], host.delays_s[name] = lie, delay_s
            host.claims.pop(name, None)
        self._say()

    def _plug(self, host: Host, supply: str, pdu: str, owner: Host) -> None:
        """Move a supply's cable to another outlet, as somebody in the room would."""
        if supply not in host.cables or pdu not in PDUS:
            raise BadInput(
                f"{supply} of {host.name} cannot hang on {pdu}",
                next=f"supplies: {', '.join(host.cables)}; PDUs: {', '.join(PDUS)}",
            )
        host.cables[supply] = (pdu, owner.name)
        self._obey(host)

    def _report(self, host: Host) -> Json:
        init = host.init
        return {
            "power": "on" if self._on(host) else "off",
            "frozen": host.frozen,
            "boots": host.boots,
            "outlets": {name: "on" if on else "off" for name, on in host.outlets.items()},
            "chassis": "on" if host.chassis else "off",
            "supplies": self._supplies(host),
            "cables": {supply: list(where) for supply, where in host.cables.items()},
            "lies": {name: lie.value for name, lie in host.lies.items() if lie is not Lie.NONE},
            "init": [init.pid, init.start] if init else None,
        }

    def _host(self, name: str) -> Host:
        if name not in self._hosts:
            raise BadInput(f"the lab has no host {name}", next=f"one of {', '.join(self._hosts)}")
        return self._hosts[name]

    # -- fence devices --------------------------------------------------------------------------

    def _agent(self, request: Json) -> Json | None:
        """One of the lab's own agents: there is no device but this."""
        host, device = self._host(request["node"]), request["device"]
        lie = host.lies.get(device)
        if lie is None:
            raise BadInput(f"{host.name} has no device {device}")
        if lie is Lie.UNREACHABLE:
            return None
        if lie is Lie.HANG:
            self.over.wait()
            return None
        if lie is Lie.NO_LOGIN or not hmac.compare_digest(str(request["password"]), self._password):
            raise RingfenceError("Unable to connect/login to fencing device: access denied")
        with self._one_at_a_time:
            return self._serve(host, device, request["action"])

    def _serve(self, host: Host, device: str, action: str) -> Json | None:
        """{"power", "pending"}: what the device says; None: nothing, for it has no power.

        Args:
            action: "status", "on", "off", or "cycle": off, and on at once, of what is on."""
        if device == BMC and not self._fed(host):
            return None
        if action != "status":
            self.orders.append((host.name, device, action))
        lie, delay_s = host.lies[device], host.delays_s.get(device, DELAY_S)
        if lie is Lie.WRONG_HOST:
            names = list(self._hosts)
            host = self._hosts[names[(names.index(host.name) + 1) % len(names)]]
        if action == "status":
            return self._says(host, device, lie)
        ends_as = "on" if action == "cycle" else action
        if lie in (Lie.PERFECT, Lie.ECHO):
            host.claims[device] = Claim(ends_as, once=lie is Lie.ECHO)
        elif lie in (Lie.LATE, Lie.PENDING):
            if lie is Lie.PENDING:
                host.claims[device] = Claim(ends_as, pending=True)
            timer = threading.Timer(delay_s, self._order, (host, device, action))
            timer.daemon = True
            timer.start()
        elif lie is Lie.LAG:
            host.claims[device] = Claim(self._truth(host, device), time.monotonic() + delay_s)
            self._order(host, device, action)
        elif lie not in (Lie.ACK_IGNORE, Lie.SAY_OFF):
            self._order(host, device, action)
        return {"power": ends_as, "pending": False}

    def _says(self, host: Host, device: str, lie: Lie) -> Json:
        if lie is Lie.SAY_OFF:
            return {"power": "off", "pending": False}
        claim = host.claims.get(device)
        if claim is not None and time.monotonic() < claim.until_s:
            if claim.once:
                del host.claims[device]
            return {"power": claim.says, "pending": claim.pending}
        return {"power": self._truth(host, device), "pending": False}

    def _truth(self, host: Host, device: str) -> str:
        return "on" if (self._on(host) if device == BMC else host.outlets[device]) else "off"

    def _order(self, host: Host, device: str, action: str) -> None:
        with self._one_at_a_time:
            if self.over.is_set():
                return
            if host.lies[device] is Lie.PENDING:
                host.claims.pop(device, None)
            if device == BMC and action == "cycle":
                if self._on(host):  # else "not supported in present state"
                    host.chassis = False
                    self._obey(host)
                    host.chassis = True
            elif device == BMC:
                host.chassis = action == "on"
            elif action == "cycle":
                self._outlet(host, device, False)
                self._outlet(host, device, True)
            else:
                self._outlet(host, device, action == "on")
            self._obey_all()

    def _outlet(self, host: Host, pdu: str, to: bool) -> None:
        dark = [one for one in self._hosts.values() if not self._fed(one)]
        host.outlets[pdu] = to
        for one in dark:
            if self._fed(one):
                one.chassis = True  # its firmware is set to come up with the power
        self._obey_all()

    # -- power ------------------------------------------------------------------------------------

    def _supplies(self, host: Host) -> dict[str, str]:
        """Supply -> "ok", or "lost": there is no power on its cable."""
        return {
            supply: "ok" if self._hosts[owner].outlets[pdu] else "lost"
            for supply, (pdu, owner) in host.cables.items()
        }

    def _fed(self, host: Host) -> bool:
        return "ok" in self._supplies(host).values()

    def _on(self, host: Host) -> bool:
        return host.chassis and self._fed(host)

    def _view(self) -> Json:
        return {
            host.name: {
                "fed": self._fed(host),
                "supplies": self._supplies(host),
                "lies": {name: lie.value for name, lie in host.lies.items()},
            }
            for host in self._hosts.values()
        }

    def _say(self) -> None:
        view = self._view()
        if view != self._told:
            self._told = view
            self._tell(view)

    def boot_all(self) -> None:
        with self._one_at_a_time:
            self._obey_all()

    def _obey_all(self) -> None:
        for host in self._hosts.values():
            self._obey(host)

    def _obey(self, host: Host) -> None:
        """Make the host, and its controller, what its power says."""
        self._say()
        runs = host.init is not None and trees.alive(host.init)
        if runs and self._on(host):
            return
        if runs:
            assert host.init is not None
            trees.kill(host.init)
        if not runs and host.init is not None:
            self._end_strays()  # before anybody hears "off", or a new boot begins beside them
        host.init, host.frozen = None, False
        if self._on(host):
            host.init, host.boots = self._machines.boot(host.name), host.boots + 1

    def end_crashed(self) -> None:
        """A host whose init has ended has crashed: powered, and nothing of it runs."""
        with self._one_at_a_time:
            for host in self._hosts.values():
                if host.init is not None and not trees.alive(host.init):
                    self._end_strays()
                    host.init, host.frozen = None, False

    def _end_strays(self) -> None:
        self._machines.end_strays([host.init for host in self._hosts.values() if host.init is not None])


def main(directory: str) -> None:
    places = Layout(Path(directory))
    trees.become_subreaper()
    kept, password = places.kept(), places.password_file.read_text().strip()
    lies = lies_of(kept.devices)

    def tell(view: Json) -> None:
        with contextlib.suppress(RingfenceError):  # a rack that has ended has no devices to be told
            ask(places.rack_socket, {"order": "follow", "hosts": view}, TELL_S)

    switch = PowerSwitch(
        kept.nodes, LabMachines(places), password, lies, shared=[pdu for pdu in PDUS if pdu in lies],
        tell=tell if lies else lambda view: None,
    )  # fmt: skip
    server = LineServer(places.power_socket, switch.asked)
    switch.boot_all()
    while not switch.over.wait(0.1):
        with contextlib.suppress(RingfenceError):  # the kernel still holds one: tried again
            switch.end_crashed()
        bury()
    server.close()  # once the word that all is off has gone out


if __name__ == "__main__":
    main(*sys.argv[1:])
