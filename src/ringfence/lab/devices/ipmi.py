"""A BMC over RMCP+: OpenIPMI's ipmi_sim, for fence_ipmilan; with a sensor for each of its host's supplies.

ipmi_sim answers no "get channel cipher suites", with which ipmitool 1.8.19 begins unless it is told a
cipher: agents that are not wait 10 s a call.

Source: ipmi_lan(5), ipmi_sim_cmd(5); IPMI 2.0, 43.2 (compact sensor record), table 42-3 (power supply)."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ringfence.lab.devices import ask
from ringfence.lab.devices.kind import Kind, Launch, Site, at, find_program
from ringfence.lab.devices.model import USER, Simulated
from ringfence.lab.lies import Lie

POLL_MS = 100
"""How often ipmi_sim looks at a supply."""
PRESENT, AC_LOST = 0x01, 0x08
"""States of the sensor."""
_LAN = """name "{name}"
set_working_mc 0x20
startlan 1
  addr {address} {port}
  priv_limit admin
  allowed_auths_admin none md2 md5 straight
  guid a123456789abcdefa123456789abcdef
endlan
chassis_control "{control}"
user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""
_EMU = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
{sensors}mc_enable 0x20
"""
_SENSOR = """sensor_add 0x20 0 {number} 0x08 0x6f poll {poll_ms} file "{file}"
sensor_set_event_support 0x20 0 {number} enable scanning per-state {lost} {lost} {lost} {lost}
main_sdr_add 0x20 {record}
"""


class Ipmi(Kind):
    name, bmc, udp, agent = "ipmi", True, True, "fence_ipmilan"
    programs: ClassVar = {"ipmi_sim": "openipmi", "ipmitool": "ipmitool", "fence_ipmilan": "fence-agents"}
    lies = frozenset(Lie) - {Lie.PENDING}
    quick: ClassVar = {"power_timeout": "8", "power_wait": "0"}

    def parameters(self, one: Simulated) -> dict[str, str]:
        return {**at(one), "username": USER, "lanplus": "1", "cipher": "3"}

    def launch(self, one: Simulated, site: Site) -> Launch:
        control = [sys.executable, "-I", "-S", os.path.abspath(ask.__file__), str(site.power), one.hosts[0]]
        script = site.write("chassis", f'#!/bin/sh\nexec {shlex.join(control)} "$@"\n', 0o700)
        lan = site.write(
            "lan.conf",
            _LAN.format(
                name=one.name, address=one.address, port=one.port, control=script, user=USER,
                password=site.password,
            ),
        )  # fmt: skip
        sensors = "".join(_sensor(number, site.dir / f"psu{number}") for number in (1, 2))
        emulated = site.write("sim.emu", _EMU.format(sensors=sensors))
        state = site.dir / "state"
        state.mkdir(exist_ok=True)
        words = ["-c", str(lan), "-f", str(emulated), "-s", str(state), "-n"]
        return Launch([find_program("ipmi_sim") or "ipmi_sim", *words])

    def show(self, site_dir: Path, supplies: Mapping[str, str]) -> None:
        for supply, state in supplies.items():
            new = site_dir / f"{supply}.new"
            new.write_text(f"{PRESENT if state == 'ok' else PRESENT | AC_LOST}\n")
            os.replace(new, site_dir / supply)


def _sensor(number: int, file: Path) -> str:
    lost = f"{AC_LOST:015b}"
    record = " ".join(f"0x{byte:02x}" for byte in _record(number))
    return _SENSOR.format(number=number, poll_ms=POLL_MS, file=file, lost=lost, record=record)


def _record(number: int) -> bytes:
    """The compact sensor record by which ipmitool finds the sensor of supply `number`."""
    name = f"PSU{number}".encode()
    mask = (PRESENT | AC_LOST).to_bytes(2, "little")
    power_supply = bytes([0x0A, number])  # entity, instance
    body = (
        bytes([0x20, 0, number]) + power_supply + bytes([0x67, 0x40, 0x08, 0x6F]) + mask * 3
        + bytes([0xC0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xC0 | len(name)]) + name
    )  # fmt: skip
    return bytes([0, 0, 0x51, 0x02, len(body)]) + body
