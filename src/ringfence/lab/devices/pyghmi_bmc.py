"""A BMC over RMCP+ in Python, pyghmi's, for fence_ipmilan:

    python -m ringfence.lab.devices.pyghmi_bmc PASSWORD_FILE ADDRESS PORT POWER HOST

Unlike ipmi_sim it answers "get channel cipher suites", and has no sensors."""

import sys
from pathlib import Path

from pyghmi.ipmi.bmc import Bmc  # type: ignore[import-not-found,import-untyped,unused-ignore]

from ringfence.lab.devices.ask import ask
from ringfence.lab.devices.model import USER

BUSY = 0xC0
"""Completion code of a controller that cannot do it now."""
NOT_IN_THIS_STATE = 0xD5


class SwitchedBmc(Bmc):  # type: ignore[misc,unused-ignore]
    """Asks the power switch."""

    def __init__(self, password: str, address: str, port: int, power: str, host: str) -> None:
        super().__init__({USER: password}, port=port, address=address)
        self._power, self._host = power, host

    def get_power_state(self) -> str:
        says = ask(self._power, self._host, "bmc", "status")
        if says is None:
            raise ConnectionError("no power switch answers")
        return str(says["power"])

    def _order(self, action: str) -> int:
        return 0 if ask(self._power, self._host, "bmc", action) is not None else BUSY

    def power_off(self) -> int:
        return self._order("off")

    def power_on(self) -> int:
        return self._order("on")

    def power_cycle(self) -> int:
        return self._order("cycle") if self.get_power_state() == "on" else NOT_IN_THIS_STATE

    def power_reset(self) -> int:
        return self.power_cycle()

    def power_shutdown(self) -> int:
        return self.power_off()


def main(password_file: str, address: str, port: str, power: str, host: str) -> None:
    SwitchedBmc(Path(password_file).read_text().strip(), address, int(port), power, host).listen()


if __name__ == "__main__":
    main(*sys.argv[1:])
