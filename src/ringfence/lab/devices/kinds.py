"""The kinds of simulated devices, by the names that `lab up --devices` takes."""

import shlex
import subprocess
import sys
from collections.abc import Collection, Sequence
from typing import ClassVar

from ringfence.core.errors import BadInput, Unavailable
from ringfence.lab.devices.ipmi import Ipmi
from ringfence.lab.devices.kind import Kind, Launch, Site, at, find_program
from ringfence.lab.devices.model import BMC, PDUS, USER, Simulated
from ringfence.lab.devices.ports import free_ports
from ringfence.lab.devices.systems import system_uri
from ringfence.lab.lies import Lie

_SNMPD = """agentaddress udp:{address}:{port}
rwcommunity {password}
createUser {user} SHA "{password}" AES "{password}"
rwuser {user} auth
sysobjectid .1.3.6.1.4.1.318.1.3.4.5
pass_persist .1.3.6.1.4.1.318 {table}
"""
_CERTIFICATE = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=lab"


class Pyghmi(Kind):
    """A BMC over RMCP+: pyghmi's."""

    name, bmc, udp, agent = "pyghmi", True, True, "fence_ipmilan"
    programs: ClassVar = {"ipmitool": "ipmitool", "fence_ipmilan": "fence-agents"}
    modules: ClassVar = {"pyghmi": "pyghmi"}
    lies = frozenset(Lie) - {Lie.PENDING}
    quick = Ipmi.quick

    def parameters(self, one: Simulated) -> dict[str, str]:
        return {**at(one), "username": USER, "lanplus": "1"}

    def launch(self, one: Simulated, site: Site) -> Launch:
        secret = site.write("password", site.password)
        words = ["-m", "ringfence.lab.devices.pyghmi_bmc", str(secret), one.address, str(one.port)]
        return Launch([sys.executable, *words, str(site.power), one.hosts[0]])


class Redfish(Kind):
    """A BMC's Redfish service over HTTPS: sushy-tools', with a certificate that nobody signed."""

    name, bmc, udp, agent = "redfish", True, False, "fence_redfish"
    programs: ClassVar = {"openssl": "openssl", "fence_redfish": "fence-agents"}
    modules: ClassVar = {"sushy_tools": "sushy-tools"}
    lies = frozenset(Lie) - {Lie.PENDING}

    def parameters(self, one: Simulated) -> dict[str, str]:
        # Without systems_uri the agent takes whichever system the service names last.
        return {**at(one), "username": USER, "ssl_insecure": "1", "systems_uri": system_uri(one.hosts[0])}

    def launch(self, one: Simulated, site: Site) -> Launch:
        site.write("password", site.password)
        if not (site.dir / "cert.pem").exists():
            words = [*_CERTIFICATE.split(), "-keyout", str(site.write("key.pem", ""))]
            done = subprocess.run(
                [find_program("openssl") or "openssl", *words, "-out", str(site.dir / "cert.pem")],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise Unavailable(f"openssl makes no certificate: {done.stderr.strip().splitlines()[-1:]}")
        words = ["-m", "ringfence.lab.devices.redfish_service", str(site.dir), one.address, str(one.port)]
        return Launch([sys.executable, *words, str(site.power), *one.hosts])


class ApcSnmp(Kind):
    """A switched rack PDU over SNMP v1, v2c and v3: net-snmp's snmpd."""

    name, bmc, udp, agent = "apc-snmp", False, True, "fence_apc_snmp"
    programs: ClassVar = {"snmpd": "snmpd", "snmpget": "snmp", "fence_apc_snmp": "fence-agents"}
    lies = frozenset(Lie)

    def parameters(self, one: Simulated) -> dict[str, str]:
        return {
            **at(one), "snmp_version": "3", "username": USER, "snmp_sec_level": "authPriv",
            "snmp_auth_prot": "SHA", "snmp_priv_prot": "AES",
        }  # fmt: skip

    def secrets(self, password: str) -> dict[str, str]:
        return {"password": password, "snmp_priv_passwd": password}

    def launch(self, one: Simulated, site: Site) -> Launch:
        words = ["-m", "ringfence.lab.devices.snmp_table", str(site.power), one.device, *one.hosts]
        table = site.write("table", f"#!/bin/sh\nexec {shlex.join([sys.executable, *words])}\n", 0o700)
        conf = site.write(
            "snmpd.conf",
            _SNMPD.format(
                address=one.address, port=one.port, password=site.password, user=USER, table=table
            ),
        )
        words = ["-f", "-C", "-c", str(conf), "-m", "", "-Lf", str(site.dir / "snmpd.log")]
        return Launch(
            [find_program("snmpd") or "snmpd", *words], {"SNMP_PERSISTENT_DIR": str(site.dir / "state")}
        )


class Apc(Kind):
    """A switched rack PDU over telnet: the command line of its newer firmware."""

    name, bmc, udp, agent = "apc", False, False, "fence_apc"
    programs: ClassVar = {"telnet": "telnet", "fence_apc": "fence-agents"}
    lies = frozenset(Lie)
    firmware = "6"

    def parameters(self, one: Simulated) -> dict[str, str]:
        return {**at(one), "username": USER}

    def launch(self, one: Simulated, site: Site) -> Launch:
        secret = site.write("password", site.password)
        words = ["-m", "ringfence.lab.devices.apc_cli", self.firmware, str(secret), one.address]
        return Launch([sys.executable, *words, str(one.port), str(site.power), one.device, *one.hosts])


class ApcMenu(Apc):
    """The same with its old firmware's menu, on which fence_apc reads "OFF*" as off."""

    name = "apc-menu"
    firmware = "3"


KINDS: dict[str, Kind] = {one.name: one for one in (Ipmi(), Pyghmi(), Redfish(), ApcSnmp(), Apc(), ApcMenu())}


def chosen_kinds(words: str) -> tuple[str, ...]:
    """ "ipmi,apc-snmp" -> its kinds, the BMC's first.

    Raises BadInput; Unavailable: names what is not installed."""
    names = [word.strip() for word in words.split(",") if word.strip()]
    for name in names:
        if name not in KINDS:
            raise BadInput(f"{name!r} is no kind of device", next=f"some of {', '.join(KINDS)}")
    for bmc, what in ((True, "BMC"), (False, "PDU")):
        if len(alike := [name for name in names if KINDS[name].bmc is bmc]) > 1:
            raise BadInput(f"a host has one {what}, not {' and '.join(alike)}", next=f"--devices {alike[0]}")
    for name in names:
        KINDS[name].check()
    return tuple(sorted(names, key=lambda name: not KINDS[name].bmc))


def lies_of(names: Collection[str]) -> dict[str, Collection[Lie]]:
    """Device -> how it can lie, in a lab with these kinds of devices; the lab's own are left out."""
    return {
        device: KINDS[name].lies for name in names for device in ((BMC,) if KINDS[name].bmc else PDUS)
    }


def devices_of(
    names: Collection[str], hosts: Sequence[str], address: str, together: Collection[str] = ()
) -> list[Simulated]:
    """Of each kind of BMC one for each host, of each kind of PDU one for each supply.

    Args:
        together: kinds of which one BMC serves all hosts: an enclosure's manager.

    Raises Unavailable: no free ports."""
    found = []
    for name in names:
        if not KINDS[name].bmc:
            whom = [(pdu, pdu, tuple(hosts)) for pdu in PDUS]
        elif name in together:
            whom = [("manager", BMC, tuple(hosts))]
        else:
            whom = [(f"{BMC}-{host}", BMC, (host,)) for host in hosts]
        found += [(name, *one) for one in whom]
    ports = free_ports(len(found))
    return [Simulated(*one, address, port) for one, port in zip(found, ports, strict=True)]
