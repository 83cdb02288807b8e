"""A Redfish service: sushy-tools' emulator, whose systems are hosts of a power switch, for fence_redfish.

    python -m ringfence.lab.devices.redfish_service DIR ADDRESS PORT POWER HOST…

DIR has `password`, `cert.pem` and `key.pem`.  With several HOSTs it is an enclosure's manager."""

import logging
import ssl
import sys
from pathlib import Path

import bcrypt
from sushy_tools import error  # type: ignore[import-not-found,import-untyped,unused-ignore]
from sushy_tools.emulator import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    main as emulator,
)

from ringfence.lab.devices.ask import ask
from ringfence.lab.devices.model import USER
from ringfence.lab.devices.systems import system_id

ORDERS = {
    "On": "on", "ForceOn": "on", "ForceOff": "off", "GracefulShutdown": "off", "ForceRestart": "cycle",
    "GracefulRestart": "cycle",
}  # fmt: skip
HASH_ROUNDS = 4
"""Of a password that nobody keeps; each request is checked against it."""


class SwitchDriver(emulator.fakedriver.FakeDriver):  # type: ignore[misc,unused-ignore]
    """Power is what the power switch says; all else of a system is the emulator's own invention."""

    def __init__(self) -> None:
        self._systems = {system_id(host): _system(host) for host in self._config["HOSTS"]}
        self._by_name = {system["name"]: uuid for uuid, system in self._systems.items()}

    def get_power_state(self, identity: str) -> str:
        return "On" if self._asked(identity, "status") == "on" else "Off"

    def set_power_state(self, identity: str, state: str) -> None:
        if state not in ORDERS:
            raise error.NotSupportedError(f"Power state {state} is not supported")
        self._asked(identity, ORDERS[state])

    def _asked(self, identity: str, action: str) -> str:
        says = ask(self._config["POWER"], self._get(identity)["name"], "bmc", action)
        if says is None:
            raise error.FishyError("no power switch answers")
        return str(says["power"])


def _system(host: str) -> dict[str, object]:
    return {"uuid": system_id(host), "name": host, "nics": []}


def main(directory: str, address: str, port: str, power: str, *hosts: str) -> None:
    place = Path(directory)
    password = (place / "password").read_bytes().strip()
    digest = bcrypt.hashpw(password, bcrypt.gensalt(HASH_ROUNDS)).decode()
    users = place / "users"
    users.touch(0o600)
    users.write_text(f"{USER}:{digest}\n")
    emulator.fakedriver.FakeDriver = SwitchDriver
    app = emulator.app
    app.configure(
        extra_config={
            "SUSHY_EMULATOR_FAKE_DRIVER": True, "SUSHY_EMULATOR_STATE_DIR": str(place),
            "SUSHY_EMULATOR_AUTH_FILE": str(users), "POWER": power, "HOSTS": hosts,
        }
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app.run(host=address, port=int(port), ssl_context=context, threaded=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
