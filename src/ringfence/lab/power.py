"""The lab's power switch: `python -m ringfence.lab.power DIR`, what feeds every host, and may lie.

A host runs while one of its two outlets and its chassis are on.  Its BMC switches the chassis and
has power while one outlet has; its PDU switches the outlets.  Off is SIGKILL for the host's whole
tree; on is a new init under a new boot id, with an empty /run.

It is the parent of every host's init, and buries them."""

import contextlib
import enum
import hmac
import os
import shutil
import sys
import threading
import uuid
from pathlib import Path

import msgspec

from ringfence.core.errors import BadInput, RingfenceError
from ringfence.host.processes import Process, process
from ringfence.lab import trees
from ringfence.lab.layout import DEVICES, Layout, device_names
from ringfence.lab.line_socket import Json, LineServer

LATE_S = 3.0
"""How long after its word a device of mode `late` acts."""


class Lie(enum.Enum):
    """What a device does with an order.  Without one it obeys and tells the truth."""

    NONE = "none"
    ACK_IGNORE = "ack-ignore"
    """Says done, does nothing; status tells the truth."""
    PERFECT = "perfect"
    """Says done, does nothing; from then on status says what was ordered."""
    LATE = "late"
    """Says done; does it LATE_S later."""
    SAY_OFF = "say-off"
    """Says off whatever is true, and does nothing."""
    WRONG_HOST = "wrong-host"
    """Is wired to the next host."""
    HANG = "hang"
    """Never answers."""
    NO_LOGIN = "no-login"
    """Refuses its credentials."""
    UNREACHABLE = "unreachable"
    """Hangs up at once."""


class Host(msgspec.Struct):
    name: str
    chassis: bool = True
    outlets: dict[str, bool] = {}
    lies: dict[str, Lie] = {}
    claimed: dict[str, str] = {}
    """Device -> what a perfect liar says."""
    init: Process | None = None
    frozen: bool = False
    boots: int = 0

    @property
    def fed(self) -> bool:
        return any(self.outlets.values())

    @property
    def on(self) -> bool:
        return self.chassis and self.fed


class PowerSwitch:
    def __init__(self, places: Layout) -> None:
        self._places = places
        self._password = places.password_file.read_text().strip()
        self._hosts = {
            name: Host(name, outlets={"pdu-a": True, "pdu-b": True}, lies=dict.fromkeys(DEVICES, Lie.NONE))
            for name in places.kept().nodes
        }
        self._one_at_a_time = threading.RLock()
        """Orders are short; a device that hangs waits outside of it."""
        self.over = threading.Event()

    # -- what is asked --------------------------------------------------------------------

    def asked(self, request: Json) -> Json | None:
        """Raises RingfenceError."""
        if "device" in request and "password" in request:
            return self._device(request)
        order = request["order"]
        with self._one_at_a_time:
            self.end_crashed()
            if order == "status":
                return {"hosts": {host.name: self._report(host) for host in self._hosts.values()}}
            if order == "stop":
                for host in self._hosts.values():
                    host.chassis = False
                    self._obey(host)
                self.over.set()
                return {}
            host = self._host(request["node"])
            if order == "freeze" and host.init is not None:
                trees.freeze(host.init)
                host.frozen = True
            elif order == "thaw" and host.init is not None:
                trees.thaw(host.init)
                host.frozen = False
            elif order == "power":
                self._switch(host, request["to"])
            elif order == "lie":
                self._lie(host, request["device"], request["mode"])
            else:
                state = "has crashed" if host.on else "is off"
                what = f"{host.name} {state}: there is nothing to {order}"
                raise BadInput(what, next=f"ringfence lab power {host.name} on")
            return self._report(host)

    def _switch(self, host: Host, to: str) -> None:
        """By hand: everything off, or everything on."""
        host.chassis = to == "on"
        if to == "on":
            host.outlets = dict.fromkeys(host.outlets, True)
            host.claimed = {}
        self._obey(host)

    def _lie(self, host: Host, device: str, mode: str) -> None:
        try:
            lie = Lie(mode)
        except ValueError:
            known = ", ".join(one.value for one in Lie)
            raise BadInput(f"{mode!r} is no way to lie", next=f"one of {known}") from None
        for name in device_names(device):
            host.lies[name] = lie
            host.claimed.pop(name, None)

    def _report(self, host: Host) -> Json:
        init = host.init
        return {
            "power": "on" if host.on else "off",
            "frozen": host.frozen,
            "boots": host.boots,
            "outlets": {name: "on" if on else "off" for name, on in host.outlets.items()},
            "chassis": "on" if host.chassis else "off",
            "lies": {name: lie.value for name, lie in host.lies.items() if lie is not Lie.NONE},
            "init": [init.pid, init.start] if init else None,
        }

    def _host(self, name: str) -> Host:
        if name not in self._hosts:
            raise BadInput(f"the lab has no host {name}", next=f"one of {', '.join(self._hosts)}")
        return self._hosts[name]

    # -- fence devices --------------------------------------------------------------------------

    def _device(self, request: Json) -> Json | None:
        host, device, action = self._host(request["node"]), request["device"], request["action"]
        lie = host.lies.get(device)
        if lie is None:
            raise BadInput(f"{host.name} has no device {device}")
        dark = device == "bmc" and not host.fed
        if lie is Lie.UNREACHABLE or dark:
            return None
        if lie is Lie.HANG:
            self.over.wait()
            return None
        if lie is Lie.NO_LOGIN or not hmac.compare_digest(str(request["password"]), self._password):
            raise RingfenceError("Unable to connect/login to fencing device: access denied")
        if lie is Lie.WRONG_HOST:
            names = list(self._hosts)
            host = self._hosts[names[(names.index(host.name) + 1) % len(names)]]
        with self._one_at_a_time:
            if action == "status":
                return {"power": self._says(host, device, lie)}
            if lie is Lie.PERFECT:
                host.claimed[device] = action
            elif lie is Lie.LATE:
                threading.Timer(LATE_S, self._order, (host, device, action)).start()
            elif lie not in (Lie.ACK_IGNORE, Lie.SAY_OFF):
                self._order(host, device, action)
        return {"power": action}

    def _says(self, host: Host, device: str, lie: Lie) -> str:
        if lie is Lie.SAY_OFF:
            return "off"
        if lie is Lie.PERFECT and device in host.claimed:
            return host.claimed[device]
        on = host.on if device == "bmc" else host.outlets[device]
        return "on" if on else "off"

    def _order(self, host: Host, device: str, action: str) -> None:
        with self._one_at_a_time:
            if self.over.is_set():
                return
            if device == "bmc":
                host.chassis = action == "on"
            else:
                host.outlets[device] = action == "on"
                if action == "on":
                    host.chassis = True  # its firmware is set to come up with the power
            self._obey(host)

    # -- the hosts themselves --------------------------------------------------------------------

    def boot_all(self) -> None:
        with self._one_at_a_time:
            for host in self._hosts.values():
                self._obey(host)

    def _obey(self, host: Host) -> None:
        """Make the host what its power says."""
        runs = host.init is not None and trees.alive(host.init)
        if runs and host.on:
            return
        if runs:
            assert host.init is not None
            trees.kill(host.init)
        if not runs and host.init is not None:
            self._end_strays()  # before anybody hears "off", or a new boot begins beside them
        host.init, host.frozen = None, False
        if host.on:
            self._boot(host)

    def end_crashed(self) -> None:
        """A host whose init has ended has crashed: powered, and nothing of it runs."""
        with self._one_at_a_time:
            for host in self._hosts.values():
                if host.init is not None and not trees.alive(host.init):
                    self._end_strays()
                    host.init, host.frozen = None, False

    def _end_strays(self) -> None:
        """What an init leaves behind falls to this process, whose only other children are inits."""
        inits = [host.init.pid for host in self._hosts.values() if host.init is not None]
        while strays := [one for one in trees.children(os.getpid()) if one.pid not in inits]:
            for stray in strays:
                trees.kill(stray)

    def _boot(self, host: Host) -> None:
        root = self._places.root(host.name)
        shutil.rmtree(root / "run", ignore_errors=True)
        (root / "run").mkdir(parents=True)
        (root / "run/boot_id").write_text(f"{uuid.uuid4()}\n")
        argv = [sys.executable, "-m", "ringfence.lab.init", str(self._places.dir), host.name]
        pid = trees.spawn(argv, root / "init.log")
        host.init, host.frozen, host.boots = process(pid), False, host.boots + 1
        start = host.init.start if host.init else 0
        self._places.init_file(host.name).write_bytes(msgspec.json.encode((pid, start)))


def main(directory: str) -> None:
    places = Layout(Path(directory))
    trees.become_subreaper()
    switch = PowerSwitch(places)
    server = LineServer(places.power_socket, switch.asked)
    switch.boot_all()
    while not switch.over.wait(0.1):
        with contextlib.suppress(RingfenceError):  # the kernel still holds one: tried again
            switch.end_crashed()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    server.close()  # once the word that all is off has gone out


if __name__ == "__main__":
    main(*sys.argv[1:])
