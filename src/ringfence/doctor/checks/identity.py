"""Each host is a machine of its own, and this boot of it is like no other."""

from collections.abc import Iterator

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, error

CLONED = error(
    "machine-cloned",
    "two hosts have one machine id",
    "evidence is about a machine and a boot of it: what proves that one clone is off, or back, would be "
    "taken for the other",
)
BOOT_CLONED = error(
    "boot-cloned",
    "two hosts have one boot id",
    "a new boot is proof that the old one is over; hosts with one boot id are one machine, or lie about it",
)
UNKNOWN = error("machine-unknown", "a host has no machine id", "its daemon cannot start without")
KINDS = (CLONED, BOOT_CLONED, UNKNOWN)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    machines: dict[str, str] = {}
    boots: dict[str, str] = {}
    for host in facts.hosts:
        name, place = host.node, f"{host.root.rstrip('/')}/etc/machine-id"
        if not host.machine and host.boottime_ns:
            yield UNKNOWN.at(name, f"{name}: {place} holds no identity", "systemd-machine-id-setup")
            continue
        other = machines.setdefault(host.machine, name)
        if host.machine and other != name:
            mend = (
                f"rm {place}; systemd-machine-id-setup; then systemctl stop ringfence on every host, reboot "
                "this one, and start them again: a cluster that runs lets no other machine in by this name"
            )
            yield CLONED.at(name, f"{name} has the machine id of {other}: one is a clone", mend)
        other = boots.setdefault(host.boot, name)
        if host.boot and other != name:
            what = f"{name} has the boot id of {other}"
            yield BOOT_CLONED.at(
                name, what, "run one daemon a machine; in containers, give each its own kernel"
            )
